"""A state folder that an earlier version left, as it lies in `tests/data`: every later version must go on with it.

The data are never written anew (make_golden.py made them). Where one of these tests fails, the code has moved a name or a
meaning on disk: the code is to be changed back, or to read both, and never the data. Long because it is one list: every file
of the folder, read and written.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.state.chain import anchors_in, read_chain
from exlab_watch_agent.adapters.state.documents import move_json, move_of, record_json, record_of
from exlab_watch_agent.adapters.state.folder_facts import binding_in
from exlab_watch_agent.adapters.state.holder import read as read_holder
from exlab_watch_agent.adapters.state.inbox import Inbox
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.recovery import Loaded, load
from exlab_watch_agent.adapters.state.segments import TrailReader, find_segments
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.transports.shared.own_files import claim_in, holder_in, marker_id_in, sealed_as
from exlab_watch_agent.app.publish import lanes_left, read_live
from exlab_watch_agent.core.binding import split_key
from exlab_watch_agent.core.commands import command_of
from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.facts import (
    DestinationBound,
    Fact,
    IdentityChanged,
    OperatorCommand,
    OverrideFound,
    OverridesRemoved,
    PassesVoided,
    RootBound,
    RunMoved,
    Transition,
)
from exlab_watch_agent.core.manifest import parse_manifest
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.snapshot import SeenEarlier
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState, Trigger
from tests.adapters.state import todays_writers as writers
from tests.adapters.state.make_golden import (
    BY_PROGRAMS,
    COMMANDS,
    manifest_of,
    plain,
    plain_history,
    trail_head,
    words_of,
)

DATA = Path(__file__).parent.parent.parent / "data"
KEPT = DATA / "state-v2"
AT_NAS = DATA / "state-v2-nas"
EXPECTED: dict[str, Any] = json.loads((DATA / "state-v2-expected.json").read_text(encoding="ascii"))

STATES = {
    "acquiring", "blocked", "queued", "running", "prechecking", "awaiting_verify", "sealing", "verified", "auditing",
    "conflict", "failed",
}  # fmt: skip
"""Without those that only cleanup reaches, which that version did not have."""
TRIGGERS = {
    "discovered", "admitted", "refused", "changed", "push_started", "pushed", "put_back", "gave_up", "precheck_passed",
    "proven", "sealed", "seal_failed", "conflict_found", "audit_started", "audit_interrupted", "copy_damaged",
    "local_chosen", "difference_gone", "seal_missed", "retried",
}  # fmt: skip
KINDS = {
    "segment_opened", "trail_damaged", "run_restored", "trail_accepted", "transition", "identity_changed", "moved",
    "override_added", "override_revoked", "overrides_removed", "root_bound", "destination_bound", "passes_voided",
    "operator_command",
}  # fmt: skip
KINDS_OF_THE_FOLDER = {"segment_opened", "trail_damaged", "run_restored", "trail_accepted"}
"""Lines that a state folder writes about itself."""
MEMBERS = {
    "job_id", "run_path", "equipment_id", "project", "run_kind", "identity", "entered_at", "state", "turn",
    "discovered_at", "enqueued_at", "destination", "fingerprint", "files_total", "bytes_total", "attempts", "mismatches",
    "next_attempt_at", "wait_s", "last_error", "manifest_digest", "sealed_at", "verify_passes", "verified_at",
    "declared_mismatches", "overrides_seen", "creation_signature", "verified_boot_id", "verified_uptime_s",
}  # fmt: skip
ERRORS = {
    "auth", "network", "destination_full", "hash_mismatch", "local_file_vanished", "binary_missing", "unknown",
    "local_changed_after_sync", "destination_occupied", "claimed_by_other_agent", "claimed_unsealed",
    "verify_skipped_oversize",
    "manifest_hash_mismatch", "symlink_in_run", "special_file_in_run", "case_collision", "illegal_filesystem_character",
    "reserved_filesystem_name", "mode_prefix_mismatch", "leftover_jinja_marker", "unresolved_placeholder_token",
}  # fmt: skip
"""Every kind of failure, of conflict, and every rule of the gate that blocks."""
COMMAND_NAMES = {"scan", "sync", "look", "retry", "verify", "resolve", "accept_trail", "bind"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that may be changed, as private as an agent leaves it."""
    copy = Path(shutil.copytree(KEPT, tmp_path / "state"))
    copy.chmod(0o700)
    return copy


def text(value: Any) -> str:
    """Return JSON in which 1 and 1.0 are two values, and the order of members is none."""
    return json.dumps(value, sort_keys=True)


def raw_lines() -> list[dict[str, Any]]:
    """Return the lines of the trail as they lie there, read without the package."""
    paths = [*sorted((KEPT / "audit").glob("audit.*.jsonl")), KEPT / "audit.jsonl"]
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def raw_documents(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (KEPT / name).read_bytes().splitlines()[2:]]


def head_of(slot: Path) -> int:
    """Return the number of the line after which a slot was written."""
    return int(json.loads(slot.read_bytes().splitlines()[1])["head"]["trail"][0])


def by_age(folder: Path) -> list[Path]:
    return sorted((folder / "state.a.json", folder / "state.b.json"), key=head_of)


def assert_expected(records: list[RunRecord]) -> None:
    """Every record says what was written, and of members that a later version added that they were not there."""
    assert {record.job_id for record in records} == EXPECTED["records"].keys()
    for record in records:
        found, expected = plain(record), EXPECTED["records"][record.job_id]
        assert text({name: found.get(name) for name in expected}) == text(expected)
        for member in fields(record):
            if member.name not in expected:
                assert member.default is not MISSING
                assert getattr(record, member.name) == member.default


def loaded_of(folder: Path) -> Loaded:
    loaded = load(folder)
    assert_expected(list(loaded.documents.records()))
    return loaded


def assert_bindings(loaded: Loaded) -> None:
    for root, expected in EXPECTED["bindings"].items():
        assert {
            "marker_id": loaded.facts["markers"][root],
            "accepted_by": loaded.facts["accepted_by"][root],
        } == expected
        equipment_id, spelling = split_key(root)
        binding = binding_in(loaded.facts, equipment_id, spelling)
        assert binding is not None
        # WIN_03 was bound twice: slots of that version do not say which came last, the trail does.
        assert binding.spelling in (spelling, spelling.replace("/mnt/old-nas/", "/mnt/nas/"))


# --- all of it is there ------------------------------------------------------------------------------------------------


def test_the_kept_runs_are_in_every_state_that_can_be_reached_and_have_every_member() -> None:
    records = EXPECTED["records"].values()
    assert len(records) == 50
    assert {record["state"] for record in records} == STATES
    on_disk = [document["record"] for document in raw_documents(by_age(KEPT)[-1].name)]
    on_disk += [line["record"] for line in raw_lines() if "record" in line]
    assert set().union(*on_disk) == MEMBERS
    assert set().union(*(record["identity"] for record in on_disk)) == {
        "created_at", "created_by", "project_uid", "leaf_name",
    }  # fmt: skip
    errors = [record["last_error"] for record in on_disk if record.get("last_error")]
    assert {error["kind"] for error in errors} == ERRORS
    assert set().union(*errors) == {"kind", "message", "detail"}


def test_the_kept_trail_has_every_kind_of_line_with_the_members_that_it_had() -> None:
    lines = raw_lines()
    assert {line["kind"] for line in lines} == KINDS == EXPECTED["lines"].keys()
    for kind, expected in EXPECTED["lines"].items():
        of_kind = [line for line in lines if line["kind"] == kind]
        assert len(of_kind) == expected["count"]
        assert set().union(*of_kind) == set(expected["members"])
        assert set().union(*(line.get("data", {}) for line in of_kind)) == set(expected["data"])
    moves = [line["move"] for line in lines if "move" in line]
    assert {move["trigger"] for move in moves} == TRIGGERS
    assert set().union(*moves) == {"at", "trigger", "source", "dest", "reason", "operator"}
    commands = {line["data"]["command"] for line in lines if line["kind"] == "operator_command"}
    assert commands == COMMAND_NAMES | {"enqueue"}


def test_the_kept_folder_has_what_else_an_agent_leaves_there() -> None:
    for name in (
        "agent.json", "agent.lock", "audit", "audit.jsonl", "children", "evidence", "heartbeat.json", "inbox", "live.json",
        "logs", "manifests", "replies", "state.a.json", "state.b.json",
    ):  # fmt: skip
        assert (KEPT / name).exists(), name
    assert len(list((KEPT / "audit").iterdir())) >= 5
    first, last = by_age(KEPT)
    assert head_of(first) < head_of(last) < EXPECTED["head"][0]


# --- it is read -----------------------------------------------------------------------------------------------------------


def test_it_opens_without_damage_and_without_a_hold(folder: Path) -> None:
    loaded = loaded_of(folder)
    assert (loaded.damage, loaded.hold, loaded.notices, loaded.torn_at) == ([], None, [], None)
    store = RunStore(folder)
    store.open()
    try:
        assert (store.hold, store.notices) == (None, ())
        assert_expected(list(store))
        seq, digest = EXPECTED["head"]
        assert store.digest_at(seq) == digest
        assert store.head.seq == seq + 1, "it got its name"
    finally:
        store.close()


def test_every_run_is_found_by_what_it_is_known_by(folder: Path) -> None:
    store = RunStore(folder)
    store.open()
    try:
        for job_id, expected in EXPECTED["records"].items():
            record = store.get(job_id)
            assert record is not None
            assert store.by_path(expected["run_path"]) == record
            assert record in store.by_identity(record.identity)
            assert job_id in store.ids_in([RunState(expected["state"])], expected["equipment_id"])
    finally:
        store.close()


def test_every_history_reads_back(folder: Path) -> None:
    loaded = load(folder)
    found = {job_id: plain_history(loaded.history(job_id)) for job_id in EXPECTED["histories"]}
    assert found == EXPECTED["histories"]


def test_bindings_and_volumes_read_back(folder: Path) -> None:
    assert_bindings(load(folder))
    assert {binding["accepted_by"] for binding in EXPECTED["bindings"].values()} == {"", "itself", "asmith"}
    store = RunStore(folder)
    store.open()
    try:
        for equipment_id, volume in EXPECTED["volumes"].items():
            assert store.root_volume(equipment_id) == volume
    finally:
        store.close()


def test_the_trail_verifies_over_all_segments(folder: Path) -> None:
    found = read_chain(folder, anchors_in(folder))
    assert [found.head.seq, found.head.digest] == EXPECTED["head"]
    assert (found.breaks, found.is_torn) == ((), False)
    assert [[gap.seq, gap.found] for gap in found.accounted] == EXPECTED["accounted"]
    assert [line.fact for line in TrailReader(find_segments(folder)).lines()] == raw_lines()


def test_the_trail_alone_gives_the_same_records(folder: Path) -> None:
    for slot in by_age(folder):
        slot.unlink()
    loaded = loaded_of(folder)
    assert_bindings(loaded)
    assert loaded.facts["volumes"] == EXPECTED["volumes"]
    found = {job_id: plain_history(loaded.history(job_id)) for job_id in EXPECTED["histories"]}
    assert found == EXPECTED["histories"]
    store = RunStore(folder)
    store.open()
    try:
        assert_expected(list(store))
        assert store.hold is not None  # nothing vouches for the trail's end
    finally:
        store.close()


def test_the_older_slot_and_the_lines_after_it_give_the_same_records(folder: Path) -> None:
    older, newest = by_age(folder)
    newest.unlink()
    loaded = loaded_of(folder)
    assert (loaded.damage, loaded.hold) == ([], None)
    assert loaded.head.seq - head_of(older) > 20


def test_it_is_gone_on_with_and_opens_again(folder: Path) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    store = RunStore(folder, segment_bytes=20_000)
    store.open()
    try:
        before = next(iter(store))
        after = replace(before.moved(Trigger.ADMITTED, at=at), enqueued_at=at)
        store.commit([Entry("transition", after, Move(at, "admitted", before.state, after.state, "a reason"))], at=at)
        store.commit([Entry("operator_command", operator="bjones", data={"command": "scan"})], at=at)
        store.checkpoint()
    finally:
        store.close()
    loaded = load(folder)
    assert (loaded.damage, loaded.hold) == ([], None)
    assert loaded.documents.record(before.job_id) == after
    old = EXPECTED["histories"][before.job_id]["moves"]
    assert plain_history(loaded.history(before.job_id))["moves"] == [*old, "admitted queued"]
    others = {record.job_id: record for record in loaded.documents.records()} | {before.job_id: before}
    assert_expected(list(others.values()))
    assert read_chain(folder, anchors_in(folder)).breaks == ()


# --- and written under the same names -----------------------------------------------------------------------------------


def test_a_record_written_anew_has_the_very_members_that_are_on_the_disk() -> None:
    records = [line["record"] for line in raw_lines() if "record" in line]
    records += [document["record"] for slot in by_age(KEPT) for document in raw_documents(slot.name)]
    for raw in records:
        assert text(json.loads(record_json(record_of(raw)))) == text(raw)


def test_a_move_written_anew_has_the_very_members_that_are_on_the_disk() -> None:
    for raw in (line["move"] for line in raw_lines() if "move" in line):
        assert text(json.loads(move_json(move_of(raw)))) == text(raw)


def test_a_fact_told_now_has_the_very_members_that_are_on_the_disk() -> None:
    lines = [
        line for line in raw_lines() if line["kind"] not in KINDS_OF_THE_FOLDER and not is_of_the_first_version(line)
    ]
    assert {line["kind"] for line in lines} == KINDS - KINDS_OF_THE_FOLDER
    for line in lines:
        fact = fact_of(line)
        assert (fact.kind, text(fact.data())) == (line["kind"], text(line.get("data", {})))


def is_of_the_first_version(line: dict[str, Any]) -> bool:
    """Return whether a root was bound as the first version did it, which asked nobody."""
    return line["kind"] == "destination_bound" and "accepted_by" not in line["data"]


def fact_of(line: dict[str, Any]) -> Fact:
    """Return what a line of the trail says."""
    data = line.get("data", {})
    match line["kind"]:
        case "transition":
            return Transition(move_of(line["move"]))
        case "identity_changed":
            return IdentityChanged()
        case "moved":
            return RunMoved(data["from"], data["to"])
        case "override_added" | "override_revoked":
            return OverrideFound(OverrideEntry(0, **data))
        case "overrides_removed":
            return OverridesRemoved(data["from"], data["to"])
        case "destination_bound":
            return DestinationBound(**data)
        case "passes_voided":
            return PassesVoided(**data)
        case "root_bound":
            return RootBound(**data)
        case "operator_command":
            return OperatorCommand(command_of(data))
    raise AssertionError(line["kind"])


def test_a_line_and_a_slot_written_now_have_the_members_of_the_kept_ones(folder: Path) -> None:
    store = RunStore(folder)
    store.open()
    try:
        record = replace(next(iter(store)), turn=77)
        move = Move(record.entered_at, "discovered", None, record.state, "once more")
        store.commit([Entry("transition", record, move), Entry("transition", record, move)], at=record.entered_at)
        store.checkpoint()
    finally:
        store.close()
    lines = (folder / "audit.jsonl").read_bytes().splitlines()[-2:]
    known = [*EXPECTED["lines"]["transition"]["members"], "following"]
    assert set().union(*map(json.loads, lines)) == set(known)
    kept, written = by_age(KEPT)[-1].read_bytes().splitlines(), by_age(folder)[-1].read_bytes().splitlines()
    head, facts, *documents = [json.loads(line).keys() for line in written[:3]]
    assert [head, facts - {"folder"}, *documents] == [json.loads(line).keys() for line in kept[:3]]


def test_kept_manifests_and_lists_of_what_is_wrong_are_read_and_written_as_they_are(
    folder: Path, tmp_path: Path
) -> None:
    kept, anew = FolderManifestStore(StateLayout(folder).manifests), FolderManifestStore(tmp_path / "anew")
    assert len(EXPECTED["manifests"]) >= 3
    for job_id, digest in EXPECTED["manifests"].items():
        data = kept.load(job_id, digest=digest)
        assert data is not None
        assert set(parse_manifest(data)) == {"README.md", "raw/λ 01.tif"}
        anew.save(job_id, data)
    for job_id, names in EXPECTED["wrong"].items():
        assert kept.wrong(job_id) == frozenset(names)
        anew.note_wrong(job_id, names)
    contents = [
        {path.name: path.read_bytes() for path in root.iterdir()} for root in (KEPT / "manifests", tmp_path / "anew")
    ]
    assert contents[0] == contents[1]


# --- requests and answers --------------------------------------------------------------------------------------------------


def test_every_kept_request_is_taken(folder: Path) -> None:
    taken = {request.name: request.members for request in Inbox(folder).take()}
    assert taken == EXPECTED["requests"]
    assert {request["command"] for request in taken.values()} == COMMAND_NAMES
    assert [name for name in os.listdir(folder / "inbox") if not name.endswith(".tmp")] == []


def test_every_kept_request_is_obeyed_and_noted_as_it_was(folder: Path) -> None:
    for slot in by_age(folder):
        slot.unlink()  # so that there is a hold, which one of them ends
    requests = [*EXPECTED["requests"].values(), *({**request, "operator": "program"} for request in BY_PROGRAMS)]
    answers, written = writers.answers_of_an_engine(folder, requests)
    assert [answer for answer in answers if not answer["ok"]] == []
    assert len(answers) == len(requests) - 1  # a binding is answered when it was tried
    assert all(answer.keys() == {"ok", "message"} for answer in answers)
    noted = [line["data"] for line in raw_lines() if line["kind"] == "operator_command"]
    assert text(written) == text(noted)
    assert load(folder).hold is None


def test_the_command_line_still_leaves_the_requests_that_it_left(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    commands = [words_of(words, request) for words, request in COMMANDS]
    left = writers.requests_left(folder, tmp_path / "scratch", commands)
    expected = [EXPECTED["requests"][name] for name in sorted(EXPECTED["requests"])]
    added = {"uid", "login"}  # by which account, since then; what was there still says who that claims to be
    assert text([{k: v for k, v in request.items() if k not in added} for _, request in left]) == text(expected)
    assert all(request.keys() >= added for _, request in left)
    assert all(name.endswith(".json") and not name.startswith(".") for name, _ in left)


def test_the_kept_answer_is_understood_and_answers_are_written_like_it(folder: Path) -> None:
    (path,) = (KEPT / "replies").iterdir()
    kept = path.read_bytes()
    assert writers.answer_fetched(folder, kept) == {"ok": True, "message": "a scan was started"}
    assert writers.answer_left(folder, path.name, json.loads(kept)) == kept


# --- what agents say of themselves, and what stands at the NAS -------------------------------------------------------------


ADDED = {
    *("state_folder", "machine", "path"),  # which agent it is
    *("agent_running", "verdict", "tier", "audit_seq", "audit_blake3", "last_agent"),  # how it is with it
    *("root_problem_since", "answered_at"),  # since when
    *(
        "path_codes",
        "path_runs",
        "run_codes",
        "refusals",
        "notes",
        "first_seen",
        "config_changed_at",
        "config_news",
    ),  # and what holds now
    *("doing", "bytes_total", "limit_bytes_per_s"),  # what is under way
}
"""Members that later versions say beside those of the first one."""


def as_they_were(said: Any) -> Any:
    """Return what is said without what was added since the first version."""
    if not isinstance(said, dict):
        return said
    return {name: as_they_were(member) for name, member in said.items() if name not in ADDED}


def test_the_kept_live_view_is_what_people_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status").mkdir()
    writers.said_with_an_agent(folder, tmp_path / "status", ["status", "--json"])
    status = json.loads(capsys.readouterr().out)
    kept = json.loads((KEPT / "live.json").read_text())
    assert (status["agent"]["running"], status["agent"]["pid"]) == (True, 4711)
    assert (as_they_were(status["lanes"]), status["observer"]) == (kept["lanes"], kept["observer"])
    progress = {run["job_id"]: run["bytes_done"] for run in status["runs"]}
    assert all(progress[job_id] == done["bytes_done"] for job_id, done in kept["progress"].items())
    (tmp_path / "problems").mkdir()
    writers.said_with_an_agent(folder, tmp_path / "problems", ["problems", "--json"])
    said = capsys.readouterr().out
    told = [
        "destination_unbound", "The folder is not there.", "a share", "raw/a.bin cannot be read", "the folder is gone",
        "its creation.json is no JSON", "looks like a run", "CON is reserved",
    ]  # fmt: skip
    assert [words for words in told if words not in said] == []
    seen_earlier = lanes_left(read_live(folder))["SCOPE_01"].seen_earlier
    assert seen_earlier == SeenEarlier(datetime.fromisoformat(kept["at"]))


def test_agents_still_say_of_themselves_what_they_said(folder: Path, tmp_path: Path) -> None:
    told = writers.told_by_an_agent(folder, tmp_path / "scratch")
    kept = {name: json.loads((KEPT / name).read_text()) for name in ("live.json", "heartbeat.json", "agent.json")}
    kept["watch-agent.json"] = json.loads((DATA / "state-v2-root/.exlab-wizard/watch-agent.json").read_text())
    told |= {name: as_they_were(told[name]) for name in ("live.json", "heartbeat.json")}
    assert told["agent.json"].pop("at"), "since then: when its loop last came by"
    assert writers.shape_of(told) == writers.shape_of(kept)
    assert told["heartbeat.json"]["counts"] == kept["heartbeat.json"]["counts"]
    assert (AT_NAS / ".exlab-watch-agent/lab-pc-1.json").read_bytes() == (KEPT / "heartbeat.json").read_bytes()


def test_who_holds_a_folder_is_read_from_what_it_said(tmp_path: Path) -> None:
    said = read_holder(KEPT / "agent.json")
    assert (said["pid"], said["host"], said["version"], said["paused"]) == (4711, "lab-pc-1", "0.1.0", None)
    root = Path(shutil.copytree(DATA / "state-v2-root", tmp_path / "root"))
    assert "pid 4711 on lab-pc-1, state folder /var/lib/exlab-watch-agent" in writers.refusal_at_a_held_root(root)


def test_the_note_of_a_child_is_understood_and_notes_are_written_like_it(folder: Path, tmp_path: Path) -> None:
    (path,) = (KEPT / "children").glob("*/*.json")
    assert writers.note_of_a_child(tmp_path / "children").keys() == json.loads(path.read_text()).keys()
    Children(StateLayout(folder).children).end_leftovers()
    assert list((folder / "children").iterdir()) == []


def test_marker_and_claims_are_understood_and_written_as_they_are() -> None:
    (record,) = (record for record in load(KEPT).documents.records() if record.job_id == f"{30:032x}")
    kept = {
        "marker": (AT_NAS / ".exlab-watch-agent.json").read_bytes(),
        "claim": (AT_NAS / "claimed/.exlab-wizard/exlab-watch-agent.json").read_bytes(),
        "sealed claim": (AT_NAS / "sealed/.exlab-wizard/exlab-watch-agent.json").read_bytes(),
    }
    assert marker_id_in(kept["marker"]) == "0f" * 16
    for name in ("claim", "sealed claim"):
        claim = claim_in(kept[name])
        assert claim is not None
        assert (claim.job_id, claim.equipment_id) == (record.job_id, "SCOPE_01")
        assert (claim.run, claim.identity) == ("P-42/Runs/Run_2026-04-17T14-30", record.identity)
    assert [bool(sealed_as(kept[name])) for name in ("claim", "sealed claim")] == [False, True]
    assert holder_in(kept["sealed claim"]).endswith("on lab-pc-1, sealed at 2026-04-18T10:00:00Z")
    written = writers.at_the_destination(record, manifest_of(record), trail_head())
    assert written["marker"] == kept["marker"]
    added = {"state_folder", "generation", "former"}  # by schema 2, and the host before the seal, too
    claimed, before = json.loads(written["claim"]), json.loads(kept["claim"])
    assert claimed.keys() == before.keys() | added | {"host"}
    assert {name: claimed[name] for name in before} == {**before, "schema": 2}
    said, before = json.loads(written["sealed claim"]), json.loads(kept["sealed claim"])
    assert said.keys() == before.keys() | added | {"cache"}  # what the agent put beside the data
    assert {**{name: said[name] for name in before}, "version": "", "chart": ""} == {
        **before, "schema": 2, "version": "", "chart": "",
    }  # fmt: skip
    assert (said["state_folder"], said["generation"], said["former"]) == ("5f" * 16, 1, [])
