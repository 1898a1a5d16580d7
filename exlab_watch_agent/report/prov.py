"""A run's chain of custody as PROV-JSON (https://www.w3.org/submissions/prov-json/): what was made of what, by whom, and when.

Decided here: the data on the instrument's PC and their copy at the destination are two collections of the same files; each
event of the run's life is an activity of the agent, on behalf of the operator who decided it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from exlab_watch_agent.core.text import unicode_text
from exlab_watch_agent.report.dossier import Dossier
from exlab_watch_agent.report.life import EventType, LifeEvent, Outcome, copy_of, life_of, operators_in
from exlab_watch_agent.report.pages import script_elsewhere

NAMESPACE = "urn:exlab-watch-agent:"
LOCAL, COPY, PROGRAM = "exlab:local", "exlab:copy", "exlab:agent"
_USES_COPY = frozenset({EventType.FIXITY_CHECK, EventType.INGESTION_END, EventType.RECOVERY})


def prov_of(dossier: Dossier) -> bytes:
    """Return the document as JSON in ASCII."""
    events = life_of(dossier)
    document: dict[str, Any] = {"prefix": {"exlab": f"{NAMESPACE}{dossier.record.job_id}:"}}
    document["entity"] = _entities(dossier)
    document["activity"] = {_activity_id(event): _activity(event) for event in events}
    document["agent"] = {
        PROGRAM: {
            "prov:type": _name("prov:SoftwareAgent"),
            "prov:label": "exlab-watch-agent",
            **{f"exlab:{name}": version for name, version in dossier.program.items()},
            "exlab:verify-script": script_elsewhere(dossier.script),
        },
        **{
            _operator_id(name): {"prov:type": _name("prov:Person"), "prov:label": unicode_text(name)}
            for name in operators_in(events)
        },
    }
    relations: dict[str, list[dict[str, str]]] = {}
    for event in events:
        for relation, members in _relations(event):
            relations.setdefault(relation, []).append(members)
    relations["hadMember"] = [
        {"prov:collection": whole, "prov:entity": _file_id(file.path)}
        for whole in ((LOCAL, COPY) if dossier.record.is_sealed else (LOCAL,))
        for file in dossier.files
    ]
    if dossier.record.is_sealed:
        relations["wasDerivedFrom"] = [{"prov:generatedEntity": COPY, "prov:usedEntity": LOCAL}]
    for relation, members_of in relations.items():
        if members_of:
            document[relation] = {f"_:{relation}{number}": one for number, one in enumerate(members_of, start=1)}
    return json.dumps(document, indent=2, ensure_ascii=True).encode() + b"\n"


def _entities(dossier: Dossier) -> dict[str, Any]:
    record = dossier.record
    digest = {"exlab:manifest-sha256": record.manifest_digest} if record.manifest_digest else {}
    whole = {"prov:type": _name("prov:Collection"), "exlab:equipment": record.equipment_id, **digest}
    entities: dict[str, Any] = {
        LOCAL: {**whole, "prov:label": "the data here", "prov:location": unicode_text(record.run_path)}
    }
    if record.destination:
        place = unicode_text(copy_of(dossier))
        entities[COPY] = {**whole, "prov:label": "the copy at the destination", "prov:location": place}
    for file in dossier.files:
        entities[_file_id(file.path)] = {"prov:label": unicode_text(file.path), "exlab:sha256": file.sha256}
    return entities


def _activity(event: LifeEvent) -> Mapping[str, Any]:
    proof = event.proof
    began_at = proof.started_at if proof is not None else None
    return {
        "prov:startTime": began_at.isoformat() if began_at is not None else event.at,
        "prov:endTime": event.at,
        "prov:type": event.type.value,
        "prov:label": unicode_text(event.detail),
        "exlab:outcome": event.outcome.value,
        **({"exlab:pass": proof.id, "exlab:read-by": proof.remote.value} if proof is not None else {}),
    }


def _relations(event: LifeEvent) -> list[tuple[str, dict[str, str]]]:
    """Return what an event had to do with the data and with whom."""
    activity = _activity_id(event)
    found = [("wasAssociatedWith", {"prov:activity": activity, "prov:agent": PROGRAM})]
    if event.operator:
        found.append(("wasAssociatedWith", {"prov:activity": activity, "prov:agent": _operator_id(event.operator)}))
    if event.type is EventType.DELETION and event.outcome is Outcome.SUCCESS:
        found.append(("wasInvalidatedBy", {"prov:entity": LOCAL, "prov:activity": activity, "prov:time": event.at}))
    else:
        found.append(("used", {"prov:activity": activity, "prov:entity": LOCAL}))
    if event.type in _USES_COPY:
        found.append(("used", {"prov:activity": activity, "prov:entity": COPY}))
    if event.type is EventType.REPLICATION and event.outcome is Outcome.SUCCESS:
        found.append(("wasGeneratedBy", {"prov:entity": COPY, "prov:activity": activity, "prov:time": event.at}))
    return found


def _name(qualified: str) -> dict[str, str]:
    return {"$": qualified, "type": "prov:QUALIFIED_NAME"}


def _activity_id(event: LifeEvent) -> str:
    return f"exlab:{event.id}"


def _file_id(path: str) -> str:
    """Return a name without any sign that a qualified name may not have: the path itself is the label."""
    return f"exlab:file-{sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


def _operator_id(name: str) -> str:
    return f"exlab:operator-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
