"""What archives are given of a run: read back by the field's own readers where there are such, and harmless whatever the names.

PREMIS: the Library of Congress' schema (version 3.0) is not ours to keep here. Documents of the demo's runs and of the two runs
below were valid by it once, by hand, with `xmlschema`. Here its order of elements is written down anew, and an independent reading
of the XML is compared with the run.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import bagit
import pytest
from prov.model import ProvActivity, ProvDocument, ProvEntity
from rocrate.rocrate import ROCrate

from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.incidents import Incident, IncidentKind
from exlab_watch_agent.core.overrides import OverrideStanding
from exlab_watch_agent.core.passes import HowRead, Pass
from exlab_watch_agent.core.record import Move
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.report.bagit import bag_of
from exlab_watch_agent.report.dossier import Dossier, FileProof
from exlab_watch_agent.report.life import DISCOVERED, EVENTS, FAILED_ATTEMPTS, NO_EVENTS, life_of
from exlab_watch_agent.report.pages import SCRIPT_NAME
from exlab_watch_agent.report.premis import premis_of
from exlab_watch_agent.report.prov import prov_of
from exlab_watch_agent.report.rocrate import crate_of
from exlab_watch_agent.report.status import RunInFull
from exlab_watch_agent.statechart import RunState, Trigger
from tests.report.reports import HOSTILE, NOW, RECORD, SCRIPT, dossier, hostile_dossier

DATA = {"a.tif": b"first", "sub folder/b #2.tif": b"the second", "ä.dat": b""}
EVIDENCE = {"report.html": b"<!DOCTYPE html>", "trail.jsonl": b"{}\n"}
FILES = tuple(FileProof(path, sha256(content).hexdigest(), len(content)) for path, content in DATA.items())
PROOF = Pass(
    id=f"{RECORD.job_id}/4",
    started_at=NOW + timedelta(seconds=3),
    ended_at=NOW + timedelta(seconds=4),
    boot_id="b",
    monotonic_s=1.0,
    uptime_sum_s=1.0,
    marker_id="m",
    spelling="/mnt/nas/CONFOCAL_01",
    manifest_sha256="c" * 64,
    files=3,
    bytes=15,
    remote=HowRead.NOWAIT,
    past_cache=True,
)
INCIDENT = Incident(
    "i", IncidentKind.COPY_DAMAGED, NOW + timedelta(days=1), "1 file differs", healed_at=NOW + timedelta(days=2)
)


def whole_life() -> Dossier:
    """Return a run that was refused, let through, pushed twice, proven, damaged and healed."""
    record = replace(RECORD, passes=(PROOF,), incidents=(INCIDENT,), files_total=3, bytes_total=15)
    ways = (
        (None, DISCOVERED, RunState.ACQUIRING, None),
        (RunState.ACQUIRING, "refused", RunState.BLOCKED, None),
        (RunState.BLOCKED, "admitted", RunState.QUEUED, "asmith"),
        (RunState.RUNNING, "put_back", RunState.QUEUED, None),
        (RunState.RUNNING, "pushed", RunState.PRECHECKING, None),
        (RunState.AWAITING_VERIFY, "proven", RunState.SEALING, None),
        (RunState.SEALING, "sealed", RunState.VERIFIED, None),
    )
    history = tuple(
        Move(NOW + timedelta(seconds=number), trigger, source, dest, f"reason {number}", operator)
        for number, (source, trigger, dest, operator) in enumerate(ways)
    )
    entry = OverrideEntry(0, "o", "name_too_long", None, "asmith", "2026-04-17T14:32:01Z", None, "the name may stay")
    return dossier(
        record,
        run=RunInFull(record.run_path, "resting", record=record, history=history),
        files=FILES,
        overrides=((entry, OverrideStanding.ACTIVE),),
    )


def test_every_trigger_is_an_event_or_is_known_to_be_none() -> None:
    known = EVENTS | NO_EVENTS | FAILED_ATTEMPTS
    assert {trigger.value for trigger in Trigger} <= known
    assert not EVENTS & NO_EVENTS


def test_a_life_is_told_in_order_with_who_decided_and_how_the_copy_was_read() -> None:
    told = [(event.type.value, event.outcome.value, event.operator) for event in life_of(whole_life())]
    assert told == [
        ("ingestion start", "success", ""),
        ("validation", "fail", ""),
        ("policy assignment", "success", "asmith"),
        ("validation", "success", "asmith"),
        ("replication", "fail", ""),
        ("replication", "success", ""),
        ("fixity check", "success", ""),
        ("ingestion end", "success", ""),
        ("fixity check", "fail", ""),
        ("recovery", "success", ""),
    ]
    (check,) = [event for event in life_of(whole_life()) if event.proof is not None]
    assert "when nothing of it was in the page cache" in check.detail


# --- BagIt -----------------------------------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        target = folder / name
        (target if name.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            target.write_bytes(content)
    return folder


def test_a_bag_is_valid_once_the_data_are_put_into_it_and_only_these_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", bag_of(whole_life(), EVIDENCE))
    bag = bagit.Bag(str(folder))
    assert bag.payload_entries() == {f"data/{file.path}": {"sha256": file.sha256} for file in FILES}
    assert bag.info["Payload-Oxum"] == "15.3"
    assert bag.info["External-Identifier"] == RECORD.job_id
    assert "The data are not in this bag." in bag.info["Internal-Sender-Description"]
    with pytest.raises(bagit.BagValidationError):
        bag.validate()
    write(folder / "data", DATA)
    assert bagit.Bag(str(folder)).validate()
    (folder / "data" / "a.tif").write_bytes(b"First")
    with pytest.raises(bagit.BagValidationError, match=r"data/a\.tif sha256 validation failed"):
        bagit.Bag(str(folder)).validate()


def test_evidence_that_was_altered_in_a_bag_shows(tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", {**bag_of(whole_life(), EVIDENCE), **{f"data/{n}": c for n, c in DATA.items()}})
    (folder / "custody" / "trail.jsonl").write_bytes(b"[]\n")
    with pytest.raises(bagit.BagValidationError, match=r"custody/trail\.jsonl sha256 validation failed"):
        bagit.Bag(str(folder)).validate()


@pytest.mark.parametrize(
    ("spelling", "url"),
    [
        ("/mnt/nas/CONFOCAL_01", "file:///mnt/nas/CONFOCAL_01/P/Runs/Run_2026-04-17T14-32/a.tif"),
        ("\\\\nas01\\lab", "file://nas01/lab/P/Runs/Run_2026-04-17T14-32/a.tif"),
        ("Z:\\lab", "file:///Z:/lab/P/Runs/Run_2026-04-17T14-32/a.tif"),
        ("/mnt/\udce4 50%", "file:///mnt/%E4%2050%25/P/Runs/Run_2026-04-17T14-32/a.tif"),
        ("nas:lab", None),
        ("exlab@nas01:/srv/lab", None),
    ],
)
def test_a_bag_says_where_each_file_is_where_a_url_can(spelling: str, url: str | None) -> None:
    given = whole_life()
    record = replace(given.record, passes=(replace(PROOF, spelling=spelling),))
    bag = bag_of(replace(given, record=record), EVIDENCE)
    if url is None:
        assert "fetch.txt" not in bag
        assert f"They are at {spelling}/P/Runs".encode() in bag["bag-info.txt"]
    else:
        assert bag["fetch.txt"].splitlines()[0] == f"{url} 5 data/a.tif".encode()


def test_a_bag_spells_line_ends_and_percent_signs_and_refuses_what_it_cannot_spell() -> None:
    odd = (FileProof("100%\r\n.tif", "d" * 64, 1),)
    manifest = bag_of(dossier(files=odd), EVIDENCE)["manifest-sha256.txt"]
    assert manifest == f"{'d' * 64}  data/100%25%0D%0A.tif\n".encode()
    with pytest.raises(AgentError, match="no Unicode"):
        bag_of(dossier(files=(FileProof("\udcff", "d" * 64, 1),)), EVIDENCE)
    with pytest.raises(AgentError, match="never sealed"):
        bag_of(dossier(files=()), EVIDENCE)


def test_a_bag_of_a_run_whose_local_data_are_gone_knows_the_volume_from_the_record() -> None:
    gone = tuple(replace(file, size_bytes=None) for file in FILES)
    bag = bag_of(replace(whole_life(), files=gone), EVIDENCE)
    assert b"Payload-Oxum: 15.3\n" in bag["bag-info.txt"]
    assert b"/a.tif - data/a.tif\n" in bag["fetch.txt"]


# --- PREMIS ----------------------------------------------------------------------------------------------------------

# Element → its children in the order in which they may come. Source: the data dictionary of PREMIS 3.0, as its schema has it.
ORDER = {
    "premis": "object event agent",
    "object": "objectIdentifier significantProperties objectCharacteristics originalName storage relationship "
    "linkingEventIdentifier",
    "objectIdentifier": "objectIdentifierType objectIdentifierValue",
    "significantProperties": "significantPropertiesType significantPropertiesValue",
    "objectCharacteristics": "compositionLevel fixity size format",
    "fixity": "messageDigestAlgorithm messageDigest",
    "format": "formatDesignation",
    "formatDesignation": "formatName",
    "storage": "contentLocation",
    "contentLocation": "contentLocationType contentLocationValue",
    "relationship": "relationshipType relationshipSubType relatedObjectIdentifier",
    "relatedObjectIdentifier": "relatedObjectIdentifierType relatedObjectIdentifierValue",
    "linkingEventIdentifier": "linkingEventIdentifierType linkingEventIdentifierValue",
    "event": "eventIdentifier eventType eventDateTime eventDetailInformation eventOutcomeInformation "
    "linkingAgentIdentifier linkingObjectIdentifier",
    "eventIdentifier": "eventIdentifierType eventIdentifierValue",
    "eventDetailInformation": "eventDetail",
    "eventOutcomeInformation": "eventOutcome eventOutcomeDetail",
    "eventOutcomeDetail": "eventOutcomeDetailNote",
    "linkingAgentIdentifier": "linkingAgentIdentifierType linkingAgentIdentifierValue linkingAgentRole",
    "linkingObjectIdentifier": "linkingObjectIdentifierType linkingObjectIdentifierValue",
    "agent": "agentIdentifier agentName agentType agentVersion agentNote",
    "agentIdentifier": "agentIdentifierType agentIdentifierValue",
}
SPACE = {"p": "http://www.loc.gov/premis/v3"}


def read_premis(document: bytes) -> ElementTree.Element:
    """Return the root of a document whose elements are all known and in order."""
    root = ElementTree.fromstring(document)
    for element in root.iter():
        name = element.tag.removeprefix(f"{{{SPACE['p']}}}")
        children = [child.tag.removeprefix(f"{{{SPACE['p']}}}") for child in element]
        allowed = ORDER.get(name, "").split()
        assert [allowed.index(child) for child in children] == sorted(allowed.index(child) for child in children)
        assert bool(children) == (name in ORDER), name
    return root


def texts(element: ElementTree.Element, path: str) -> list[str | None]:
    return [found.text for found in element.findall(path, SPACE)]


def test_premis_has_every_file_with_its_digest_and_every_event_with_its_outcome() -> None:
    given = whole_life()
    root = read_premis(premis_of(given))
    assert texts(root, "p:object/p:objectCharacteristics/p:fixity/p:messageDigest") == [one.sha256 for one in FILES]
    assert texts(root, "p:object/p:objectCharacteristics/p:size") == [str(one.size_bytes) for one in FILES]
    events = zip(
        texts(root, "p:event/p:eventType"),
        texts(root, "p:event/p:eventOutcomeInformation/p:eventOutcome"),
        strict=True,
    )
    assert list(events) == [(event.type.value, event.outcome.value) for event in life_of(given)]
    assert texts(root, "p:agent/p:agentType") == ["software", "person"]
    linked = texts(root, "p:object/p:linkingEventIdentifier/p:linkingEventIdentifierValue")
    assert linked == texts(root, "p:event/p:eventIdentifier/p:eventIdentifierValue")
    assert len(set(linked)) == len(linked)
    (check, *_) = [
        one for one in texts(root, "p:event/p:eventDetailInformation/p:eventDetail") if one and "pass=" in one
    ]
    assert f'manifest-sha256="{"c" * 64}"' in check


def test_premis_spells_what_xml_cannot_hold() -> None:
    odd = "a\ufffe\uffff\x00\ud800\x7f.tif"
    root = read_premis(premis_of(dossier(files=(FileProof(odd, "d" * 64),))))
    assert "a\\ufffe\\uffff\\x00\\ud800\\x7f.tif" in texts(root, "p:object/p:originalName")


# --- PROV ------------------------------------------------------------------------------------------------------------


def test_prov_says_what_was_made_of_what_and_by_whom() -> None:
    document = ProvDocument.deserialize(io.StringIO(prov_of(whole_life()).decode()), format="json")
    entities = {str(one.identifier): one for one in document.get_records(ProvEntity)}
    assert {"exlab:local", "exlab:copy"} < entities.keys()
    assert len(entities) == 2 + len(FILES)
    assert len(list(document.get_records(ProvActivity))) == len(life_of(whole_life()))
    said = document.get_provn()
    assert "wasDerivedFrom(exlab:copy, exlab:local" in said
    assert "wasGeneratedBy(exlab:copy, exlab:move-5" in said
    assert said.count("hadMember(exlab:copy") == len(FILES)
    assert "used(exlab:move-6, exlab:copy" in said
    unused = [one for one in entities if one not in said.partition("agent(")[2]]
    assert not unused


@pytest.mark.parametrize("form", [premis_of, prov_of])
def test_a_form_of_somebody_else_names_the_script_that_it_cannot_carry(form: Callable[[Dossier], bytes]) -> None:
    made = form(whole_life()).decode()
    assert SCRIPT_NAME in made
    assert sha256(SCRIPT.encode()).hexdigest() in made
    assert "--format json" in made


# --- RO-Crate --------------------------------------------------------------------------------------------------------


def test_a_crate_has_the_evidence_and_names_the_data_that_are_elsewhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "crate", crate_of(whole_life(), EVIDENCE))
    crate = ROCrate(str(folder))
    assert crate.version == "1.1"
    found = {entity["name"]: entity for entity in crate.data_entities}
    assert found.keys() == {*DATA, *EVIDENCE}
    for file in FILES:
        assert (found[file.path]["sha256"], found[file.path]["contentSize"]) == (file.sha256, str(file.size_bytes))
        assert found[file.path].id.startswith("arcp://uuid,aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa/")
    for name, content in EVIDENCE.items():
        assert found[name]["sha256"] == sha256(content).hexdigest()
    (check,) = [one for one in crate.contextual_entities if one.type == "AssessAction" and one.get("startTime")]
    assert check["agent"]["name"] == "exlab-watch-agent"
    people = [one["name"] for one in crate.contextual_entities if one.type == "Person"]
    assert people == ["asmith"]


# --- names -----------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Dossier], bytes]] = {
    "premis": premis_of,
    "prov": prov_of,
    "bagit": lambda given: b"".join(bag_of(given, {}).values()),
    "rocrate": lambda given: crate_of(given, {})["ro-crate-metadata.json"],
    "json": lambda given: json.dumps(given.to_json()).encode(),
}


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_in(one)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("form", FORMS)
def test_hostile_names_are_harmless(form: str) -> None:
    made = FORMS[form](hostile_dossier())
    if form != "bagit":  # its manifest names files as they are: that is what it is for
        assert "\u202e".encode() not in made
        assert b"\x1b" not in made
    match form:
        case "premis":
            root = read_premis(made)
            assert "<script>alert(1)</script>" in "".join(root.itertext())
        case "bagit":
            lines = bag_of(hostile_dossier(), {})["bag-info.txt"].decode().splitlines()
            assert all(": " in line for line in lines)
            assert bag_of(hostile_dossier(), {})["manifest-sha256.txt"].count(b"\n") == 1
        case _:
            assert made.isascii()
            assert any(HOSTILE in text for text in texts_in(json.loads(made)))


def test_prov_and_a_crate_of_hostile_names_are_read_back_with_these_names(tmp_path: Path) -> None:
    document = ProvDocument.deserialize(io.StringIO(prov_of(hostile_dossier()).decode()), format="json")
    labels = {str(label) for one in document.get_records(ProvEntity) for label in one.get_attribute("prov:label")}
    assert HOSTILE in labels
    folder = write(tmp_path / "crate", crate_of(hostile_dossier(), EVIDENCE))
    crate = ROCrate(str(folder))
    assert HOSTILE in {entity["name"] for entity in crate.data_entities}
    assert all(not {" ", "<", '"', "\n"} & {*entity.id} for entity in crate.data_entities)
