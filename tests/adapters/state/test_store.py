"""The run store on real files, in ordinary times: what is kept, one agent at a time, other processes."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.state import folder_facts
from exlab_watch_agent.adapters.state.chain import anchors_in, read_chain
from exlab_watch_agent.adapters.state.layered import Layered
from exlab_watch_agent.adapters.state.layout import CLOSED_FOLDER, SLOT_NAMES, TRAIL_NAME, StateLayout
from exlab_watch_agent.adapters.state.recovery import load
from exlab_watch_agent.adapters.state.segments import TrailReader, find_segments
from exlab_watch_agent.adapters.state.slots import Slots, read_slots
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.facts import KINDS
from exlab_watch_agent.errors import StateFolderError, StoreFullError, StoreWriteError
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState
from tests.adapters.state.store_lives import (
    LOCAL,
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def lived(folder: Path) -> State:
    """A folder with segments, two good slots, a tail in the trail after them, three runs and a marker; its state."""
    return live_a_little(folder)


def facts_of(folder: Path) -> list[dict[str, Any]]:
    return [line.fact for line in TrailReader(find_segments(folder)).lines()]


# --- the trail and what is written when --------------------------------------------------------------------------------------


def test_a_new_folder_is_empty_private_and_without_notices(folder: Path) -> None:
    with opened(folder) as store:
        assert (len(store), list(store), store.notices, store.hold, store.head.seq) == (0, [], (), None, 1)
        store.commit([moved(a_record(0), 1)], at=NOW)
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in (TRAIL_NAME, SLOT_NAMES[1]):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_a_commit_costs_one_write_and_one_sync_and_memory_changes_after_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []

    def noted(store: RunStore, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append((name, len(store)))
            return real(*args)

        return call

    with opened(folder) as store, monkeypatch.context() as patch:
        for name in ("write", "fsync", "fdatasync"):
            patch.setattr(os, name, noted(store, name, getattr(os, name)))
        store.commit([moved(a_record(number), 1) for number in range(5)], at=NOW)
        assert calls == [("write", 0), ("fdatasync", 0)]
        assert len(store) == 5


def test_the_trail_holds_one_line_an_entry_with_who_where_and_by_which_chart(folder: Path) -> None:
    with opened(folder) as store:
        store.commit(
            [moved(a_record(0), 1), Entry("operator_command", operator="asmith", data={"command": "retry"})], at=NOW
        )
        head = store.head
    lines = [json.loads(line) for line in (folder / TRAIL_NAME).read_bytes().splitlines()]
    assert [(line["seq"], line["kind"], line["operator"]) for line in lines] == [
        (1, "segment_opened", None),
        (2, "transition", None),
        (3, "operator_command", "asmith"),
    ]
    assert lines[1]["at"] == "2026-04-17T14:32:11.250000Z"
    assert all(line["host"] and len(line["chart"]) == 16 and len(line["prev"]) == 64 for line in lines)
    assert lines[2]["data"] == {"command": "retry"}
    assert (head.seq, head.end_bytes) == (3, (folder / TRAIL_NAME).stat().st_size)


def test_the_trail_goes_on_over_restarts_and_segments_as_one_chain(folder: Path) -> None:
    for turn in range(1, 20):
        with opened(folder, segment_bytes=3000) as store:
            store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)
            if turn % 2:
                store.checkpoint()
    closed = sorted((folder / CLOSED_FOLDER).iterdir())
    assert len(closed) >= 3
    assert all(json.loads(path.read_bytes().splitlines()[0])["kind"] == "segment_opened" for path in closed)
    assert [fact["seq"] for fact in facts_of(folder)] == list(range(1, 20 + len(closed) + 1))
    assert_whole(folder)
    assert read_chain(folder, anchors_in(folder)).is_whole


def test_data_that_are_not_of_their_kind_never_reach_the_trail(folder: Path) -> None:
    with opened(folder) as store:
        before = (folder / TRAIL_NAME).read_bytes()
        with pytest.raises(KeyError):
            store.commit([Entry("destination_bound", data={"root": "x"})], at=NOW)
        assert (folder / TRAIL_NAME).read_bytes() == before


def test_history_is_read_from_the_run_s_own_lines_over_all_segments_also_without_slots(folder: Path) -> None:
    wanted = tuple(f"step_{turn}" for turn in range(1, 31))
    job_id = a_record(0).job_id
    with opened(folder, segment_bytes=5000) as store:
        for turn in range(1, 31):
            store.commit([moved(a_record(run, turn=turn - 1), turn) for run in range(3)], at=NOW)
        assert tuple(move.trigger for move in store.history(job_id)) == wanted
        assert store.history("unknown") == ()
    with opened(folder) as store:
        assert tuple(move.trigger for move in store.history(job_id)) == wanted
    for name in SLOT_NAMES:
        (folder / name).unlink(missing_ok=True)
    assert tuple(move.trigger for move in load(folder).history(job_id)) == wanted


def test_a_lost_part_of_a_history_is_said_in_its_place(folder: Path) -> None:
    job_id = a_record(0).job_id
    with opened(folder, segment_bytes=3000) as store:
        for turn in range(1, 12):
            store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)
    sorted((folder / CLOSED_FOLDER).iterdir())[1].unlink()
    first, *rest = load(folder).history(job_id)
    assert (first.trigger, first.source) == ("history_lost", None)
    assert [move.trigger for move in rest] == [f"step_{turn}" for turn in range(12 - len(rest), 12)]


def test_runs_are_counted_and_listed_by_state_and_equipment(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(6):
            record = a_record(number, equipment_id="A" if number % 2 else "B")
            store.commit([Entry("moved", record)], at=NOW)
        store.commit([Entry("moved", a_record(1, equipment_id="A", state=RunState.QUEUED))], at=NOW)

    def look(counts: Any, ids_in: Any) -> None:
        assert counts() == {RunState.ACQUIRING: 5, RunState.QUEUED: 1}
        assert ids_in([RunState.QUEUED]) == (a_record(1).job_id,)
        assert set(ids_in([RunState.ACQUIRING], "A")) == {a_record(3).job_id, a_record(5).job_id}
        assert len(ids_in(list(RunState))) == 6
        assert ids_in([RunState.QUEUED], "B") == ()

    with opened(folder) as store:
        look(store.counts, store.ids_in)
    documents = load(folder).documents
    look(documents.counts, documents.ids_in)


def test_root_volumes_survive_and_the_latest_counts(folder: Path) -> None:
    with opened(folder) as store:
        assert store.root_volume("A") is None
        for volume in ("v1", "v2"):
            store.commit([Entry("root_bound", data={"equipment_id": "A", "volume": volume})], at=NOW)
            store.checkpoint()
    with opened(folder) as store:
        assert store.root_volume("A") == "v2"


def test_checkpoints_come_by_themselves_in_proportion_to_the_number_of_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder, checkpoint_lines=4) as store:
        store.commit([moved(a_record(number), 1) for number in range(60)], at=NOW)
        begun: list[int] = []
        real = Slots.write

        def write(*args: Any) -> Any:
            begun.append(1)
            return real(*args)

        monkeypatch.setattr(Slots, "write", write)
        for turn in range(1, 310):
            store.commit([moved(a_record(0, turn=turn), turn + 1)], at=NOW)
            if store._writer is not None:
                store._writer.join()
        assert 9 <= len(begun) <= 11  # 309 lines of 60 runs
    with opened(folder) as store:
        assert len(store) == 60


def test_a_checkpoint_that_failed_beside_the_loop_is_said_before_the_next_commit_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder, checkpoint_lines=2) as store:
        store.commit([moved(a_record(number), 1) for number in range(3)], at=NOW)
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "write", no_room)
            store.commit([moved(a_record(3), 1)], at=NOW)
            assert store._writer is not None
            store._writer.join()
            with pytest.raises(StoreFullError, match="make room"):
                store.commit([moved(a_record(4), 1)], at=NOW)
            assert len(store) == 4
        store.commit([moved(a_record(4), 1)], at=NOW)
    with opened(folder) as store:
        assert (len(store), store.notices) == (5, ())


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def walked(_: Layered[Any, Any]) -> Any:
    raise AssertionError("all documents were walked or copied")


def test_a_move_touches_one_document_and_no_slot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as store:
        store.commit([moved(a_record(number), 1) for number in range(50)], at=NOW)
        monkeypatch.setattr(Layered, "items", walked)
        monkeypatch.setattr(Slots, "write", None)
        for number in (7, 50):
            store.commit([moved(a_record(number, turn=1), 2)], at=NOW)
            record = store.get(a_record(number).job_id)
            assert record is not None
            assert record.turn == 2
            assert [move.trigger for move in store.history(a_record(number).job_id)][-1] == "step_2"
        with pytest.raises(AssertionError, match="walked"):
            list(store)


def test_the_older_lines_are_not_read_again_at_a_start(lived: State, folder: Path) -> None:
    (first, *_) = sorted((folder / CLOSED_FOLDER).iterdir())
    first.write_bytes(b"x" * first.stat().st_size)
    loaded = load(folder)
    assert ({r.job_id: r for r in loaded.documents.records()}, loaded.hold) == (
        {k: v[0] for k, v in lived.items()},
        None,
    )
    assert read_chain(folder, anchors_in(folder)).breaks[0].seq == 1


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_each_folder_that_is_made_is_made_durable_in_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with opened(tmp_path / "a" / "b" / "state"):
        assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= synced


def test_a_record_comes_back_as_it_was_with_and_without_a_checkpoint(folder: Path) -> None:
    records = [a_record(number) for number in range(6)]
    with opened(folder) as store:
        store.commit([Entry("transition", record) for record in records[:3]], at=NOW)
        store.checkpoint()
        store.commit([Entry("transition", record) for record in records[3:]], at=NOW)
    with opened(folder) as store:
        assert list(store) == records
        assert [store.get(record.job_id) for record in records] == records
        assert store.get("unknown") is None


def test_runs_are_found_by_path_and_identity_also_after_moves_and_after_a_restart(folder: Path) -> None:
    first, second = a_record(1), a_record(2)
    away = replace(first, run_path=f"{LOCAL}/elsewhere", turn=1)
    heir = replace(a_record(3), run_path=first.run_path)
    other = replace(second, identity=replace(second.identity, created_by="bjones"), turn=1)
    twin = replace(a_record(4), identity=away.identity)

    def look(store: RunStore) -> None:
        assert store.by_path(first.run_path) == heir
        assert store.by_path(away.run_path) == away
        assert store.by_path(second.run_path) == other
        assert store.by_path(f"{LOCAL}/never") is None
        assert store.by_identity(away.identity) == (away, twin)
        assert store.by_identity(second.identity) == ()
        assert store.by_identity(other.identity) == (other,)

    with opened(folder) as store:
        for record in (first, second, away, heir, other, twin):
            store.commit([Entry("moved", record)], at=NOW)
        look(store)
    with opened(folder) as store:
        look(store)
        store.checkpoint()
    with opened(folder) as store:
        look(store)


def test_a_path_that_another_run_has_taken_stays_with_it_when_the_first_one_moves(folder: Path) -> None:
    first = a_record(1)
    heir = replace(a_record(2), run_path=first.run_path)
    away = replace(first, run_path=f"{LOCAL}/elsewhere")
    with opened(folder) as store:
        store.commit([Entry("moved", record) for record in (first, heir, away)], at=NOW)
        assert (store.by_path(first.run_path), store.by_path(away.run_path)) == (heir, away)
    with opened(folder) as store:
        assert (store.by_path(first.run_path), store.by_path(away.run_path)) == (heir, away)


def test_a_store_that_is_opened_again_knows_nothing_of_before(folder: Path) -> None:
    record, moved_on = a_record(1), replace(a_record(1), run_path=f"{LOCAL}/elsewhere")
    store = RunStore(folder)
    store.open()
    store.commit([Entry("moved", record)], at=NOW)
    store.close()
    with opened(folder) as other:
        other.commit([Entry("moved", moved_on)], at=NOW)
    store.open()
    assert (store.by_path(record.run_path), store.by_path(moved_on.run_path)) == (None, moved_on)
    store.close()
    folder.rename(folder.with_name("moved away"))
    store.open()
    assert (len(store), store.by_path(moved_on.run_path), store.by_identity(record.identity)) == (0, None, ())
    store.close()


def test_a_run_that_came_back_to_its_path_is_found_there(folder: Path) -> None:
    record = a_record(1)
    with opened(folder) as store:
        for path in (record.run_path, f"{LOCAL}/elsewhere", record.run_path):
            store.commit([Entry("moved", replace(record, run_path=path))], at=NOW)
        assert store.by_path(record.run_path) == record
        assert store.by_path(f"{LOCAL}/elsewhere") is None


def test_what_is_no_move_adds_nothing_to_the_history(folder: Path) -> None:
    with opened(folder) as store:
        store.commit([moved(a_record(0), 1), Entry("override_added", a_record(0, turn=1, overrides_seen=1))], at=NOW)
        before = state_of(store)
        assert len(store.history(a_record(0).job_id)) == 1
    with opened(folder) as store:
        assert state_of(store) == before


def test_marker_ids_survive_and_the_latest_counts(folder: Path) -> None:
    with opened(folder) as store:
        assert store.binding("EQ", "nas") is None
        for marker_id in ("old", "new"):
            data = {"root": "EQ nas", "marker_id": marker_id, "accepted_by": "asmith"}
            store.commit([Entry("destination_bound", data=data)], at=NOW)
            store.checkpoint()
        store.commit([Entry("destination_bound", data={"root": "OTHER nas", "marker_id": "third"})], at=NOW)
        assert store.binding("EQ", "nas") == Binding("new", "asmith", "nas")
        assert store.binding("OTHER", "nas") == Binding("third", "", "nas")
    with opened(folder) as store:
        assert store.binding("EQ", "nas") == Binding("new", "asmith", "nas")
        assert store.binding("OTHER", "nas") == Binding("third", "", "nas")


# --- one agent -------------------------------------------------------------------------------------------------------


def test_a_second_opener_is_refused_with_the_holder_and_changes_nothing(folder: Path) -> None:
    with opened(folder) as store:
        StateLayout(folder).holder.write_text('{"pid": 4711, "host": "labpc-04"}')
        store.commit([moved(a_record(0), 1)], at=NOW)
        before = everything(folder)
        with pytest.raises(StateFolderError, match=r"Another agent works in .*4711.*labpc-04.*stop it first"):
            RunStore(folder).open()
        assert everything(folder) == before
        store.commit([moved(a_record(0, turn=1), 2)], at=NOW)
    with opened(folder) as store:
        assert len(store) == 1


def test_another_process_is_refused_too(folder: Path) -> None:
    with opened(folder):
        child = os.fork()
        if child == 0:
            code = 9
            with suppress(BaseException):
                try:
                    RunStore(folder).open()
                    code = 1
                except StateFolderError:
                    code = 0
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_a_holder_that_says_nothing_or_nonsense_is_still_named_as_one(folder: Path) -> None:
    with opened(folder):
        with pytest.raises(StateFolderError, match="it has not said who it is"):
            RunStore(folder).open()
        StateLayout(folder).holder.write_bytes(b"\xff\xfe")
        with pytest.raises(StateFolderError, match="it has not said who it is"):
            RunStore(folder).open()


def test_a_command_that_asks_for_a_moment_whether_an_agent_runs_does_not_keep_one_from_starting(folder: Path) -> None:
    folder.mkdir()
    asking = RunStore(folder)._lock
    asking.acquire()
    timer = threading.Timer(0.1, lambda: asking.release(force=True))
    timer.start()
    with opened(folder) as store:
        assert len(store) == 0
    timer.join()


def test_whoever_closes_a_store_lets_the_folder_go(folder: Path) -> None:
    store = RunStore(folder)
    store.open()
    closer = threading.Thread(target=store.close)
    closer.start()
    closer.join()
    with opened(folder):
        pass


def test_a_store_can_be_closed_twice_and_opened_again(lived: State, folder: Path) -> None:
    store = RunStore(folder)
    for _ in range(2):
        store.open()
        assert state_of(store) == lived
        store.close()
        store.close()
    with pytest.raises(StoreWriteError):
        store.commit([moved(a_record(0), 1)], at=NOW)


# --- other processes -------------------------------------------------------------------------------------------------

RUNS = 5


def entry_of(seq: int) -> Entry:
    """Return the entry that is line `seq` of the trail in the tests below."""
    return moved(a_record((seq - 1) % RUNS, turn=(seq - 1) // RUNS), (seq - 1) // RUNS + 1)


def turns_at(seq: int) -> dict[str, int]:
    """Return each run's turn when the trail has `seq` lines."""
    turns = {a_record(run).job_id: (seq - 1 - run) // RUNS + 1 for run in range(RUNS)}
    return {job_id: turn for job_id, turn in turns.items() if turn > 0}


def committing(folder: Path, speak: int, done_max: int) -> None:
    """Commit line after line and say each number once it is acknowledged. Runs in a child process of its own."""
    with suppress(BaseException):
        store = RunStore(folder, segment_bytes=8000, checkpoint_lines=3)  # so that checkpoints are hit, too
        store.open()
        done = sum(record.turn for record in store)
        while done < done_max:
            done += 1
            store.commit([entry_of(done)], at=NOW)
            os.write(speak, b"%d\n" % done)
    os._exit(0)


def start_committing(folder: Path, done_max: int = 1_000_000) -> tuple[int, int]:
    """Return the child's process id and the end of the pipe on which it speaks."""
    listen, speak = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listen)
        committing(folder, speak, done_max)
    os.close(speak)
    return child, listen


def end(child: int, listen: int) -> bytes:
    """Kill the child; return what it had still said."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = b""
    while data := os.read(listen, 1 << 16):
        said += data
    os.close(listen)
    return said


def test_kill_9_of_a_committing_process_loses_no_acknowledged_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(20260417)
    seq = 0
    for _ in range(30):
        child, listen = start_committing(folder)
        said, wanted = b"", chance.randint(1, 14)
        while said.count(b"\n") < wanted:
            said += os.read(listen, 1 << 16)
        time.sleep(chance.uniform(0, 0.002))
        said += end(child, listen)
        acknowledged = int(said.split()[-1])
        assert acknowledged > seq
        assert said.split()[0] == b"%d" % (seq + 1)
        with opened(folder) as store:
            seq = sum(record.turn for record in store)
            assert seq in (acknowledged, acknowledged + 1)
            assert {record.job_id: record.turn for record in store} == turns_at(seq)
            for record in store:
                assert [move.trigger for move in store.history(record.job_id)] == [
                    f"step_{turn}" for turn in range(1, record.turn + 1)
                ]
    assert_whole(folder)
    assert read_slots(folder).generation > 10


def test_reading_while_a_process_commits_gives_consistent_states_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = ("fsync", "fdatasync", "replace", "rename", "unlink", "mkdir", "ftruncate", "chmod")
    child, listen = start_committing(folder)
    try:
        os.read(listen, 1)
        seen: list[int] = []
        deadline = time.monotonic() + 1.5
        with monkeypatch.context() as patch:
            for name in forbidden:
                patch.setattr(os, name, None)
            while time.monotonic() < deadline:
                loaded = load(folder)
                assert loaded.notices == []
                assert (loaded.damage, loaded.damaged_slots) == ([], ())
                turns = {record.job_id: record.turn for record in loaded.documents.records()}
                assert sum(turns.values()) == sum(turns_at(sum(turns.values())).values())
                assert turns == turns_at(sum(turns.values()))
                seen.append(sum(turns.values()))
    finally:
        end(child, listen)
    assert seen == sorted(seen)
    assert len(set(seen)) > 10


def test_a_segment_that_is_closed_between_two_looks_of_a_reader_is_not_missed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    is_file, iterdir = Path.is_file, Path.iterdir
    with opened(folder, segment_bytes=4000) as store:
        turn = 0

        def commit_into_the_next_segment() -> None:
            nonlocal turn
            segment = store.head.segment
            while store.head.segment == segment:
                turn += 1
                store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)

        def first_name_was_taken_away(path: Path) -> bool:
            """As if the live segment had been closed just before, and the next one got its name right after this look."""
            looks.append(path.name)
            return is_file(path) and looks != [TRAIL_NAME]

        def closing(path: Path) -> Any:
            if path.name == CLOSED_FOLDER and not looks:
                looks.append(path.name)
                commit_into_the_next_segment()
            return iterdir(path)

        commit_into_the_next_segment()
        for name, hindering in (("is_file", first_name_was_taken_away), ("iterdir", closing)):
            looks.clear()
            with monkeypatch.context() as patch:
                patch.setattr(Path, name, hindering)
                acknowledged = turn
                assert next(load(folder).documents.records()).turn >= acknowledged
                looks.clear()
                assert read_chain(folder, anchors_in(folder)).is_whole
            assert looks, "it was hindered"


def test_reading_a_folder_changes_nothing_in_it_not_even_a_damaged_one(lived: State, folder: Path) -> None:
    before = everything(folder)
    assert state_read(load(folder)) == lived
    assert everything(folder) == before
    slot_paths(folder)[0].write_bytes(b"")
    trail = folder / TRAIL_NAME
    trail.write_bytes(trail.read_bytes() + b'{"half')
    before, names = everything(folder), sorted(os.listdir(folder))
    assert state_read(load(folder)) == lived
    assert (everything(folder), sorted(os.listdir(folder))) == (before, names)


def test_reading_a_folder_that_is_not_there_is_an_empty_state_and_makes_none(folder: Path) -> None:
    assert len(load(folder).documents) == 0
    assert not folder.exists()


def test_a_slot_that_goes_away_while_it_is_read_is_no_error(
    lived: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that starts may set a damaged slot aside in the middle of a reader's work."""
    slot = slot_paths(folder)[1]
    slot.write_bytes(b"damaged")
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == slot:
            slot.unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert state_read(load(folder)) == lived


def test_a_trail_with_a_line_of_a_kind_that_only_a_later_version_writes_is_left_to_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(folder_facts, "KINDS", KINDS | {"removal_planned"})
        with opened(folder) as store:
            store.commit([Entry("removal_planned", data={"files": 3})], at=NOW)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(StateFolderError, match=r"removal_planned.*install the version"), opened(folder):
        pass
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    with opened(folder.parent / "another") as store, pytest.raises(StateFolderError, match="removal_planned"):
        store.commit([Entry("removal_planned")], at=NOW)
