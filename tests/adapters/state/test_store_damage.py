"""A damaged state folder: what is rebuilt, what is held, what is kept as evidence, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.state import recovery
from exlab_watch_agent.adapters.state.chain import anchors_in, read_chain
from exlab_watch_agent.adapters.state.documents import Documents, json_bytes
from exlab_watch_agent.adapters.state.layout import CLOSED_FOLDER, EVIDENCE_NAME, SLOT_NAMES, TRAIL_NAME
from exlab_watch_agent.adapters.state.recovery import load
from exlab_watch_agent.adapters.state.segments import TrailHead, finished
from exlab_watch_agent.adapters.state.slots import read_slots
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.state.trail import TRAIL_SCHEMA, Batch, fact_body, opening_data
from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.errors import StateFolderError
from exlab_watch_agent.ports import Entry
from tests.adapters.state.store_lives import (
    NOW,
    State,
    a_record,
    assert_whole,
    everything,
    live_a_little,
    moved,
    opened,
    slot_paths,
    state_of,
    state_read,
)

Records = dict[str, RunRecord]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def lived(folder: Path) -> State:
    return live_a_little(folder)


def records_of(state: State) -> Records:
    return {job_id: record for job_id, (record, _) in state.items()}


def kept_as_evidence(folder: Path) -> set[bytes]:
    evidence = folder / EVIDENCE_NAME
    return {path.read_bytes() for path in evidence.iterdir()} if evidence.exists() else set()


def assert_held_with(folder: Path, records: Records, found: str) -> None:
    """The folder reads and opens with these records, deletion on hold; the hold outlives starts and ends by a word."""
    before = everything(folder)
    loaded = load(folder)
    assert found in (loaded.hold or "")
    assert {record.job_id: record for record in loaded.documents.records()} == records
    assert everything(folder) == before
    with opened(folder) as store:
        assert found in (store.hold or "")
        assert any(found in notice for notice in store.notices)
        assert {record.job_id: record for record in store} == records
        store.commit([moved(a_record(9), 1)], at=NOW)  # the agent works on
    for name in SLOT_NAMES:  # what only a slot knew stands in the trail now
        (folder / name).write_bytes(b"")
    with opened(folder) as store:
        assert found in (store.hold or "")
        assert {r.job_id: r for r in store} == records | {a_record(9).job_id: moved(a_record(9), 1).record}
        head = store.head
        store.accept_trail("asmith", "restored from the backup of Monday", NOW)
        assert store.hold is None
        assert store.head.seq == head.seq + 1
        store.accept_trail("asmith", "again", NOW)
        assert store.head.seq == head.seq + 1
    last = json.loads((folder / TRAIL_NAME).read_bytes().splitlines()[-1])
    assert (last["kind"], last["operator"], last["data"]["reason"]) == (
        "trail_accepted",
        "asmith",
        "restored from the backup of Monday",
    )
    with opened(folder) as store:
        assert (store.hold, store.notices) == (None, ())
    assert load(folder).hold is None
    assert read_chain(folder, anchors_in(folder)).breaks == ()


def flip(path: Path, position: int) -> bytes:
    """Flip a bit of one byte; return the file's bytes as they are now."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x04
    path.write_bytes(data)
    return bytes(data)


# --- slots -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"\0" * 500], ids=repr)
@pytest.mark.parametrize("which", [0, 1], ids=["the newest slot", "the older slot"])
def test_a_damaged_slot_is_set_aside_said_so_and_rebuilt(
    lived: State, folder: Path, which: int, content: bytes
) -> None:
    path = slot_paths(folder)[which]
    path.write_bytes(content)
    loaded = load(folder)
    assert ({r.job_id: r for r in loaded.documents.records()}, loaded.hold) == (records_of(lived), None)
    assert path.read_bytes() == content
    with opened(folder) as store:
        assert state_of(store) == lived
        assert store.binding("SCOPE_01", "/mnt/nas") == Binding("m-1", spelling="/mnt/nas")
        assert store.notices == (f"{path.name} is damaged; the state was rebuilt from the other one.",)
        assert store.hold is None
    assert kept_as_evidence(folder) == {content}
    with opened(folder) as store:
        assert (state_of(store), store.notices) == (lived, ())


@pytest.mark.parametrize("content", [None, b"", b"null"], ids=repr)
def test_without_both_slots_all_is_rebuilt_from_the_trail_and_deletion_is_on_hold(
    lived: State, folder: Path, content: bytes | None
) -> None:
    for name in SLOT_NAMES:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    assert state_read(load(folder)) == lived
    gone = content is None
    said = f"state.a.json and state.b.json are {'gone' if gone else 'damaged'}; the state was rebuilt from audit.jsonl alone"
    assert_held_with(folder, records_of(lived), said)


def test_any_flipped_byte_of_a_slot_leaves_the_same_state(lived: State, folder: Path) -> None:
    slot = slot_paths(folder)[0]
    data = slot.read_bytes()
    for position in range(0, len(data), 7):
        flip(slot, position)
        loaded = load(folder)
        assert loaded.damaged_slots == (slot,), position
        assert ({r.job_id: r for r in loaded.documents.records()}, loaded.hold) == (records_of(lived), None)
        slot.write_bytes(data)


def test_evidence_is_never_replaced_by_later_evidence(lived: State, folder: Path) -> None:
    for content in (b"first", b"second", b"third"):
        slot_paths(folder)[1].write_bytes(content)
        with opened(folder) as store:
            store.checkpoint()
            store.checkpoint()
        if content == b"second":  # an operator takes the first away
            min((folder / EVIDENCE_NAME).iterdir()).unlink()
    assert kept_as_evidence(folder) == {b"second", b"third"}


# --- the trail -------------------------------------------------------------------------------------------------------------


def test_a_trail_that_is_gone_leaves_the_state_of_the_newest_slot_on_hold(lived: State, folder: Path) -> None:
    with opened(folder) as store:
        store.checkpoint()
    (folder / TRAIL_NAME).unlink()
    assert_held_with(folder, records_of(lived), "audit.jsonl is missing")


def test_an_empty_trail_leaves_the_state_of_the_newest_slot_on_hold(lived: State, folder: Path) -> None:
    with opened(folder) as store:
        store.checkpoint()
    (folder / TRAIL_NAME).write_bytes(b"")
    assert_held_with(folder, records_of(lived), "audit.jsonl is empty")


def test_a_trail_that_was_cut_below_the_newest_slot_leaves_its_state_on_hold(folder: Path) -> None:
    with opened(folder) as store:
        for turn in range(1, 5):
            store.commit([moved(a_record(run, turn=turn - 1), turn) for run in range(3)], at=NOW)
        store.checkpoint()
        records = {record.job_id: record for record in store}
    trail = folder / TRAIL_NAME
    data = trail.read_bytes()
    for number, size in enumerate(
        (len(data) - 1, data.rindex(b"\n", 0, -1) + 1, len(data) // 2, data.index(b"\n") + 1)
    ):
        copy = folder.with_name(f"cut {number}")
        copy.mkdir()
        for path in folder.iterdir():
            if path.is_file():
                (copy / path.name).write_bytes(path.read_bytes() if path != trail else data[:size])
        assert_held_with(copy, records, "The audit trail was changed")


def test_any_flipped_byte_behind_the_checkpoint_is_met_with_a_hold_and_costs_only_what_it_touched(folder: Path) -> None:
    with opened(folder) as store:
        store.checkpoint()
        head = store.head
        for run in range(4):
            store.commit([moved(a_record(run), 1)], at=NOW)
        records = {record.job_id: record for record in store}
    trail = folder / TRAIL_NAME
    data = trail.read_bytes()
    for position in range(head.end_bytes, len(data) - 1, 17):
        flip(trail, position)
        loaded = load(folder)
        found = {record.job_id: record for record in loaded.documents.records()}
        assert found.items() <= records.items(), position
        # Two lines are touched by a flipped line end, and by the name of a sum: such a line shows nothing by itself.
        assert len(found) >= 2, position
        assert loaded.hold is not None or found == records, position
        trail.write_bytes(data)


def test_a_changed_line_is_kept_as_evidence_and_the_lines_after_it_count(lived: State, folder: Path) -> None:
    trail = folder / TRAIL_NAME
    with opened(folder) as store:
        store.checkpoint()
        start = store.head.end_bytes
        for run in (5, 6, 7):
            store.commit([moved(a_record(run), 1)], at=NOW)
        records = {record.job_id: record for record in store}
    damaged = flip(trail, trail.read_bytes().index(b"because", start))
    del records[a_record(5).job_id]
    assert_held_with(folder, records, "The audit trail was changed: line")
    assert damaged in kept_as_evidence(folder)
    closed = {path.read_bytes() for path in (folder / CLOSED_FOLDER).iterdir()}
    assert damaged in closed  # it stays in its place, too, so that the chain can be read over it
    found = read_chain(folder, anchors_in(folder))
    assert found.breaks == ()
    assert len(found.accounted) == 1


def test_a_closed_segment_that_went_is_said_and_held(lived: State, folder: Path) -> None:
    (first, *_) = sorted((folder / CLOSED_FOLDER).iterdir())
    lost = first.read_bytes()
    first.unlink()
    assert_held_with(folder, records_of(lived), f"{first.name} in {CLOSED_FOLDER} is missing or was changed")
    assert read_chain(folder, anchors_in(folder)).accounted[0].found.startswith("lines 1 to ")
    first.write_bytes(lost)
    assert read_chain(folder, anchors_in(folder)).accounted == ()


@pytest.mark.parametrize("torn", [b"{", b'{"seq":99,"prev":"', b"\0" * 700, b"x" * 100_000], ids=lambda t: repr(t[:6]))
def test_a_torn_last_line_is_cut_off_kept_as_evidence_and_said(lived: State, folder: Path, torn: bytes) -> None:
    trail = folder / TRAIL_NAME
    whole = trail.read_bytes()
    trail.write_bytes(whole + torn)
    loaded = load(folder)
    assert (state_read(loaded), loaded.torn_at, loaded.hold) == (lived, len(whole), None)
    assert trail.read_bytes() == whole + torn
    with opened(folder) as store:
        assert (state_of(store), store.hold) == (lived, None)
        assert len(store.notices) == 1
        assert f"{len(torn)} bytes of a commit that was never acknowledged" in store.notices[0]
        assert kept_as_evidence(folder) == {torn}
        assert trail.read_bytes() == whole
        store.commit([moved(a_record(5), 1)], at=NOW)
    assert len(load(folder).documents) == 4
    assert_whole(folder)


def test_a_commit_torn_between_its_lines_is_cut_off_whole(lived: State, folder: Path) -> None:
    trail = folder / TRAIL_NAME
    whole = trail.read_bytes()
    with opened(folder) as store:
        store.commit([moved(a_record(number), 1) for number in (5, 6, 7)], at=NOW)
    lines = trail.read_bytes()[len(whole) :].splitlines(keepends=True)
    for kept in (1, 2):
        trail.write_bytes(whole + b"".join(lines[:kept]))
        with opened(folder) as store:
            assert state_of(store) == lived
        assert trail.read_bytes() == whole


# --- nothing but traces ----------------------------------------------------------------------------------------------------


def file_in(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).write_bytes(b"x")


TRACES: dict[str, Callable[[Path], object]] = {
    "two damaged slots": lambda folder: [(folder / name).write_bytes(b"") for name in SLOT_NAMES],
    "manifests": lambda folder: file_in(folder / "manifests", "m"),
    "a log": lambda folder: file_in(folder / "logs", "agent.log"),
    "a holder": lambda folder: (folder / "agent.json").write_bytes(b"{}"),
    "an empty trail": lambda folder: (folder / TRAIL_NAME).write_bytes(b""),
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_traces_of_a_former_life_without_slots_and_trail_are_held_and_nothing_silently_starts_anew(
    folder: Path, trace: Callable[[Path], object]
) -> None:
    folder.mkdir()
    trace(folder)
    assert_held_with(folder, {}, "empty" if "trail" in str(os.listdir(folder)) else "")
    assert load(folder.with_name("never")).hold is None


def test_a_lock_alone_is_no_former_life(folder: Path) -> None:
    folder.mkdir()
    (folder / "agent.lock").touch()
    with opened(folder) as store:
        assert (store.hold, store.notices) == (None, ())


# --- other versions --------------------------------------------------------------------------------------------------------


def old_lines(count: int) -> list[bytes]:
    """Return lines as schema 1 wrote them: keys sorted, every member, no place of the line before."""
    from blake3 import blake3

    lines: list[bytes] = []
    digest = "0" * 64
    documents = Documents()
    for seq in range(1, count + 1):
        entry = moved(a_record(seq % 2, turn=(seq - 1) // 2), (seq - 1) // 2 + 1)
        assert entry.record is not None
        assert entry.move is not None
        documents.put(entry.record, json_bytes({}), None)
        record = documents_record(entry.record)
        move = {
            "at": entry.move.at.isoformat(), "trigger": entry.move.trigger, "source": entry.move.source,
            "dest": entry.move.dest, "reason": entry.move.reason, "operator": None,
        }  # fmt: skip
        fact = {
            "seq": seq,
            "prev": digest,
            "at": "2026-04-17T14:32:11Z",
            "kind": "transition",
            "host": "pc",
            "operator": None,
        }
        lines.append(json.dumps(fact | {"chart": "c", "move": move, "record": record}, sort_keys=True).encode())
        digest = blake3(lines[-1]).hexdigest()
    return lines


def documents_record(record: RunRecord) -> dict[str, Any]:
    documents = Documents()
    from exlab_watch_agent.adapters.state.documents import record_json

    documents.put(record, record_json(record), None)
    return documents.members()[record.job_id]


def test_a_folder_of_the_first_schema_is_carried_over_with_its_histories(folder: Path) -> None:
    from blake3 import blake3

    lines = old_lines(9)
    folder.mkdir()
    (folder / TRAIL_NAME).write_bytes(b"\n".join(lines) + b"\n")
    end = sum(len(line) + 1 for line in lines[:5])
    head = {"schema": 1, "trail": [5, blake3(lines[4]).hexdigest(), end]}
    body = json.dumps({"runs": {}, "facts": {"head": head}}).encode()
    header = {"generation": 4, "length": len(body), "blake3": blake3(b"4\n" + body).hexdigest()}
    (folder / SLOT_NAMES[0]).write_bytes(json.dumps(header).encode() + b"\n" + body)
    histories = {
        a_record(0).job_id: ["step_1", "step_2", "step_3", "step_4"],
        a_record(1).job_id: [f"step_{n}" for n in range(1, 6)],
    }
    for _ in range(2):
        with opened(folder) as store:
            assert (store.hold, store.notices) == (None, ())
            assert {r.job_id: [m.trigger for m in store.history(r.job_id)] for r in store} == histories
            for number, run in enumerate((0, 1)):
                turn = len(histories[a_record(run).job_id])
                store.commit([moved(a_record(run, turn=turn), turn + 1)], at=NOW)
                histories[a_record(run).job_id].append(f"step_{turn + 1}")
                assert number < 2
    assert read_slots(folder).schema == 2
    assert_whole(folder)
    assert (folder / CLOSED_FOLDER / "audit.000000000001.jsonl").read_bytes() == b"\n".join(lines) + b"\n"


def rewritten_header(folder: Path, **changes: Any) -> None:
    """Write the newest slot's header again as another version would have, its digest right."""
    from blake3 import blake3

    path = slot_paths(folder)[0]
    header_line, _, body = path.read_bytes().partition(b"\n")
    header = {**json.loads(header_line), **changes}
    header["blake3"] = blake3(b"%d %d\n" % (header["generation"], header["schema"]) + body).hexdigest()
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)


def test_a_newer_schema_is_refused_in_one_sentence_and_left_as_it_is(lived: State, folder: Path) -> None:
    rewritten_header(folder, schema=3)
    before = everything(folder)
    for open_it in (lambda: load(folder), RunStore(folder).open):
        with pytest.raises(StateFolderError, match=r"another version of the agent .*install that version again\.$"):
            open_it()
    assert everything(folder) == before


@pytest.mark.parametrize("ahead", [1, -1], ids=["the store's number is ahead", "the store's number is behind"])
def test_a_trail_is_judged_by_the_trail_s_own_schema_whatever_the_store_s_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """The two numbers are equal today, and nothing but the constant itself can make them differ."""
    monkeypatch.setattr(recovery, "STORE_SCHEMA", TRAIL_SCHEMA + ahead)
    folder.mkdir()
    trail = folder / TRAIL_NAME

    def opened_by(schema: int) -> None:
        batch = Batch(TrailHead(), 0)
        data = json_bytes(opening_data(None, 0) | {"schema": schema})
        who = b'"host":"pc","chart":"c"'
        batch.add(
            fact_body(at="2026-04-17T14:32:11Z", kind="segment_opened", who=who, operator=None, rest=b',"data":' + data)
        )
        trail.write_bytes(b"".join(batch.data))

    opened_by(TRAIL_SCHEMA)
    assert load(folder).head.seq == 1
    opened_by(TRAIL_SCHEMA + 1)
    said = rf"schema {TRAIL_SCHEMA + 1}, this one knows {TRAIL_SCHEMA}\): install that version again\.$"
    with pytest.raises(StateFolderError, match=said):
        load(folder)


CHANGES: dict[str, tuple[bytes, bytes]] = {
    "an unknown state": (b'"state":"queued"', b'"state":"paused"'),
    "an unknown member": (b'"turn":2', b'"rank":2'),
    "another kind of value": (b'"attempts":2', b'"attempts":[]'),
    "no kind": (b'"kind":"transition"', b'"kynd":"transition"'),
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_a_line_that_this_version_does_not_know_is_refused_and_left_as_it_is(
    folder: Path, old: bytes, new: bytes
) -> None:
    with opened(folder) as store:
        place = store.head.end_bytes
        store.commit([moved(a_record(0, turn=1), 2)], at=NOW)
    trail = folder / TRAIL_NAME
    data = trail.read_bytes()
    assert old in data[place:]
    line = data[place:].rpartition(b',"sum":"')[0].replace(old, new)
    trail.write_bytes(data[:place] + finished(line)[0] + b"\n")
    before = everything(folder)
    for open_it in (lambda: load(folder), RunStore(folder).open):
        with pytest.raises(
            StateFolderError, match=r"cannot be read by this version.*install the version that wrote it\.$"
        ):
            open_it()
    assert everything(folder) == before


def test_a_folder_that_was_refused_is_not_held(lived: State, folder: Path) -> None:
    slot = slot_paths(folder)[0]
    data = slot.read_bytes()
    rewritten_header(folder, schema=3)
    store = RunStore(folder)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StateFolderError):
        store.open()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    slot.write_bytes(data)
    with opened(folder) as again:
        assert state_of(again) == lived


@pytest.mark.parametrize("name", [SLOT_NAMES[0], "."])
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "state"
    if name == ".":
        folder.write_bytes(b"")
    else:
        (folder / name).mkdir(parents=True)
    with pytest.raises(StateFolderError, match="cannot be read"):
        load(folder)
    with pytest.raises(StateFolderError, match=r"cannot be (read|used)"):
        RunStore(folder).open()


def test_a_fact_of_the_facts_survives_the_loss_of_slots(lived: State, folder: Path) -> None:
    with opened(folder) as store:
        store.commit([Entry("root_bound", data={"equipment_id": "A", "volume": "v1"})], at=NOW)
    for name in SLOT_NAMES:
        (folder / name).unlink()
    with opened(folder) as store:
        assert (store.root_volume("A"), store.binding("SCOPE_01", "/mnt/nas")) == (
            "v1",
            Binding("m-1", spelling="/mnt/nas"),
        )
