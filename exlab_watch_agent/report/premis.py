"""A run's chain of custody as PREMIS 3 (https://www.loc.gov/standards/premis/v3/), for archives that keep it beside the data.

Decided here: the run is a representation, each sealed file a file object with its SHA-256, and each event of its life an event
of the agent or of a person. Names are spelled as in all reports (`printable`): XML has no other way to hold a control character.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from exlab_watch_agent.core.text import printable
from exlab_watch_agent.report.dossier import Dossier, FileProof
from exlab_watch_agent.report.life import EventType, LifeEvent, copy_of, life_of, operators_in
from exlab_watch_agent.report.pages import script_elsewhere

PREMIS = "http://www.loc.gov/premis/v3"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
_NO_XML = re.compile("[\ufffe\uffff]")
"""What `printable` leaves as it is and XML 1.0 does not allow. Source: its production Char."""
_ABOUT_ALL_FILES = frozenset({EventType.FIXITY_CHECK, EventType.REPLICATION, EventType.DELETION})


def premis_of(dossier: Dossier) -> bytes:
    """Return the document, encoded as UTF-8."""
    ElementTree.register_namespace("premis", PREMIS)
    ElementTree.register_namespace("xsi", XSI)
    events = life_of(dossier)
    root = Element(f"{{{PREMIS}}}premis", {"version": "3.0"})
    _representation(root, dossier, events)
    for file in dossier.files:
        _file(root, dossier, file)
    for event in events:
        _event(root, dossier, event)
    _agents(root, dossier, events)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _representation(root: Element, dossier: Dossier, events: Sequence[LifeEvent]) -> None:
    record = dossier.record
    run = _object(root, "representation", "job id", record.job_id)
    _texts(
        _sub(run, "significantProperties"),
        significantPropertiesType="equipment",
        significantPropertiesValue=record.equipment_id,
    )
    _texts(
        _sub(run, "significantProperties"),
        significantPropertiesType="project",
        significantPropertiesValue=record.project,
    )
    _texts(run, originalName=record.run_path)
    for where, at in (("local folder", record.run_path), ("destination", copy_of(dossier))):
        if at:
            place = _sub(_sub(run, "storage"), "contentLocation")
            _texts(place, contentLocationType=where, contentLocationValue=at)
    for event in events:
        link = _sub(run, "linkingEventIdentifier")
        _texts(link, linkingEventIdentifierType="event", linkingEventIdentifierValue=_event_id(dossier, event))


def _file(root: Element, dossier: Dossier, file: FileProof) -> None:
    one = _object(root, "file", "path in the run", _file_id(dossier, file))
    traits = _sub(one, "objectCharacteristics")
    _texts(traits, compositionLevel="0")
    _texts(_sub(traits, "fixity"), messageDigestAlgorithm="SHA-256", messageDigest=file.sha256)
    if file.size_bytes is not None:
        _texts(traits, size=str(file.size_bytes))
    _texts(_sub(_sub(traits, "format"), "formatDesignation"), formatName="not identified")
    _texts(one, originalName=file.path)
    relation = _sub(one, "relationship")
    _texts(relation, relationshipType="structural", relationshipSubType="is part of")
    whole = _sub(relation, "relatedObjectIdentifier")
    _texts(whole, relatedObjectIdentifierType="job id", relatedObjectIdentifierValue=dossier.record.job_id)


def _event(root: Element, dossier: Dossier, event: LifeEvent) -> None:
    one = _sub(root, "event")
    identifier = _sub(one, "eventIdentifier")
    _texts(identifier, eventIdentifierType="event", eventIdentifierValue=_event_id(dossier, event))
    _texts(one, eventType=event.type.value, eventDateTime=event.at)
    _texts(_sub(one, "eventDetailInformation"), eventDetail=_detail(dossier, event))
    outcome = _sub(one, "eventOutcomeInformation")
    _texts(outcome, eventOutcome=event.outcome.value)
    _texts(_sub(outcome, "eventOutcomeDetail"), eventOutcomeDetailNote=event.detail)
    agents = [("program", "exlab-watch-agent", "executing program")]
    if event.operator:
        agents.append(("account", event.operator, "authorizer"))
    for kind, name, role in agents:
        link = _sub(one, "linkingAgentIdentifier")
        _texts(link, linkingAgentIdentifierType=kind, linkingAgentIdentifierValue=name, linkingAgentRole=role)
    link = _sub(one, "linkingObjectIdentifier")
    _texts(link, linkingObjectIdentifierType="job id", linkingObjectIdentifierValue=dossier.record.job_id)


def _detail(dossier: Dossier, event: LifeEvent) -> str:
    """Return by what the event was done; of one that is about all files also by which manifest, so that no file need name it."""
    program = "; ".join(f'{name}="{version}"' for name, version in dossier.program.items())
    digest = event.proof.manifest_sha256 if event.proof is not None else dossier.record.manifest_digest
    about = f'; manifest-sha256="{digest}"' if event.type in _ABOUT_ALL_FILES and digest else ""
    return f"program={program}{about}" if not event.proof else f'program={program}{about}; pass="{event.proof.id}"'


def _agents(root: Element, dossier: Dossier, events: Sequence[LifeEvent]) -> None:
    program = _agent(root, "program", "exlab-watch-agent", "software")
    _texts(program, agentVersion=dossier.program.get("exlab-watch-agent", ""))
    _texts(program, agentNote=f"chart {dossier.program.get('chart', '')}, on {dossier.host}")
    _texts(program, agentNote=script_elsewhere(dossier.script))
    for operator in operators_in(events):
        _agent(root, "account", operator, "person")


def _agent(root: Element, kind: str, name: str, agent_type: str) -> Element:
    agent = _sub(root, "agent")
    _texts(_sub(agent, "agentIdentifier"), agentIdentifierType=kind, agentIdentifierValue=name)
    _texts(agent, agentName=name, agentType=agent_type)
    return agent


def _object(root: Element, category: str, kind: str, value: str) -> Element:
    one = SubElement(root, f"{{{PREMIS}}}object", {f"{{{XSI}}}type": f"premis:{category}"})
    _texts(_sub(one, "objectIdentifier"), objectIdentifierType=kind, objectIdentifierValue=value)
    return one


def _event_id(dossier: Dossier, event: LifeEvent) -> str:
    return f"{dossier.record.job_id}/{event.id}"


def _file_id(dossier: Dossier, file: FileProof) -> str:
    return f"{dossier.record.job_id}/{file.path}"


def _sub(parent: Element, name: str) -> Element:
    return SubElement(parent, f"{{{PREMIS}}}{name}")


def _texts(parent: Element, **members: str) -> None:
    """Add elements that have nothing but a text, in this order."""
    for name, value in members.items():
        _sub(parent, name).text = _NO_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", printable(value))
