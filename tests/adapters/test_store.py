"""The run store, on real files: stopped at every step, killed, cut, changed, and read back."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tinydb import TinyDB

from exlab_watch_agent.adapters import store as store_module
from exlab_watch_agent.adapters.audit_trail import AuditTrail, read_tail
from exlab_watch_agent.adapters.durable import temporary_name
from exlab_watch_agent.adapters.slots import SLOT_NAMES, SlotStorage, read_slots
from exlab_watch_agent.adapters.store import (
    EVIDENCE_NAME,
    HOLDER_NAME,
    TRAIL_NAME,
    LiveTable,
    Loaded,
    RunStore,
    TrailHead,
    history_of,
    load,
    record_of,
)
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import LastError, Move, RunRecord
from exlab_watch_agent.errors import StateFolderError, StoreWriteError
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState

NOW = datetime(2026, 4, 17, 14, 32, 11, 250_000, tzinfo=UTC)
LOCAL = "/data/lab/SCOPE_01/PROJ-0042 Übersicht/Runs"


def a_record(number: int, **changes: Any) -> RunRecord:
    leaf = f"Run_2026-04-17T14-{number:02d}"
    record = RunRecord(
        job_id=f"{number:032x}",
        run_path=f"{LOCAL}/{leaf}",
        equipment_id="SCOPE_01",
        project="PROJ-0042 Übersicht",
        run_kind="experimental",
        identity=RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", leaf),
        entered_at=NOW,
        discovered_at=NOW,
        last_error=LastError("network", "no answer", "line\none") if number % 2 else None,
        declared_mismatches=("a\udcff.tif",) if number % 3 == 0 else (),
    )
    return replace(record, **changes)


def moved(record: RunRecord, turn: int) -> Entry:
    """Return the entry of a move to `turn`; any two turns differ in state, time and attempts."""
    states = list(RunState)
    source = record.state if record.turn else None
    after = replace(record, turn=turn, state=states[turn % len(states)], attempts=turn, entered_at=at(turn))
    return Entry("transition", after, Move(at(turn), f"step_{turn}", source, after.state, f"because {turn}"))


def at(turn: int) -> datetime:
    return NOW + timedelta(seconds=turn)


@contextmanager
def opened(folder: Path) -> Iterator[RunStore]:
    store = RunStore(folder)
    store.open()
    try:
        yield store
    finally:
        store.close()


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return all files of the folder but the lock, with their times: what a reader must not change."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "agent.lock")
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def let_go(store: RunStore) -> None:
    """Do to a store what the end of its process does: close its descriptors, and nothing else."""
    if store._trail._descriptor >= 0:
        os.close(store._trail._descriptor)
        store._trail._descriptor = -1
    store._lock.release(force=True)


State = dict[str, tuple[RunRecord, tuple[Move, ...]]]


def state_of(store: RunStore) -> State:
    return {record.job_id: (record, store.history(record.job_id)) for record in store}


def state_read(loaded: Loaded) -> State:
    return {job_id: (record_of(document), history_of(document)) for job_id, document in loaded.runs.items()}


def with_entries(state: State, entries: Sequence[Entry]) -> State:
    after = dict(state)
    for entry in entries:
        assert entry.record is not None
        history = after.get(entry.record.job_id, (None, ()))[1]
        after[entry.record.job_id] = (entry.record, (*history, entry.move) if entry.move else history)
    return after


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def lived(folder: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A folder with two good slots, a tail in the trail after them, three runs and a marker; its state."""
    with opened(folder) as store:
        for turn in (1, 2):
            for number in range(3):
                store.commit([moved(a_record(number, turn=turn - 1), turn)], at=NOW)
            store.commit([Entry("destination_bound", data={"root": "SCOPE_01 /mnt/nas", "marker_id": "m-1"})], at=NOW)
            store.checkpoint()
        store.commit([moved(a_record(0, turn=2), 3), moved(a_record(1, turn=2), 3)], at=NOW)
        return state_of(store)


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_new_folder_is_empty_private_and_without_notices(folder: Path) -> None:
    with opened(folder) as store:
        assert (len(store), list(store), store.notices, store.head) == (0, [], (), TrailHead())
        store.commit([moved(a_record(0), 1)], at=NOW)
        store.checkpoint()
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in (TRAIL_NAME, SLOT_NAMES[1]):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_each_folder_that_is_made_is_made_durable_in_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])
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


def test_a_commit_costs_one_write_and_one_fsync_and_memory_changes_after_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    with opened(folder) as store, monkeypatch.context() as patch:
        for name in ("write", "fsync"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda *args, n=name, r=real: (calls.append((n, len(store))), r(*args))[1])
        store.commit([moved(a_record(number), 1) for number in range(5)], at=NOW)
        assert calls == [("write", 0), ("fsync", 0)]
        assert len(store) == 5


def test_the_trail_holds_one_line_an_entry_with_who_where_and_by_which_chart(folder: Path) -> None:
    with opened(folder) as store:
        store.commit(
            [moved(a_record(0), 1), Entry("operator_command", operator="asmith", data={"command": "retry"})], at=NOW
        )
        head = store.head
    lines = [json.loads(line) for line in (folder / TRAIL_NAME).read_bytes().splitlines()]
    assert [(line["seq"], line["kind"], line["operator"]) for line in lines] == [
        (1, "transition", None),
        (2, "operator_command", "asmith"),
    ]
    assert lines[0]["at"] == "2026-04-17T14:32:11.250000Z"
    assert all(line["host"] and len(line["chart"]) == 16 and len(line["prev"]) == 64 for line in lines)
    assert lines[1]["data"] == {"command": "retry"}
    assert (head.seq, head.end_bytes) == (2, (folder / TRAIL_NAME).stat().st_size)


def test_the_trail_goes_on_over_restarts_as_one_chain(folder: Path) -> None:
    for turn in range(1, 5):
        with opened(folder) as store:
            store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)
            if turn % 2:
                store.checkpoint()
            head = store.head
    facts = list(read_tail(folder / TRAIL_NAME, TrailHead()))
    assert [fact["seq"] for fact, _ in facts] == [1, 2, 3, 4]
    assert facts[-1][1] == head


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


def test_history_is_in_order_and_bounded_however_it_was_read_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "HISTORY_MAX", 5)
    wanted = tuple(f"step_{turn}" for turn in range(8, 13))
    job_id = a_record(0).job_id
    with opened(folder) as store:
        for turn in range(1, 13):
            store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)
            if turn == 7:
                store.checkpoint()
        assert tuple(move.trigger for move in store.history(job_id)) == wanted
        assert store.history("unknown") == ()
    with opened(folder) as store:
        assert tuple(move.trigger for move in store.history(job_id)) == wanted
    for name in SLOT_NAMES:
        (folder / name).unlink(missing_ok=True)
    with opened(folder) as store:
        assert tuple(move.trigger for move in store.history(job_id)) == wanted


def test_what_is_no_move_adds_nothing_to_the_history(folder: Path) -> None:
    with opened(folder) as store:
        store.commit([moved(a_record(0), 1), Entry("override_added", a_record(0, turn=1, overrides_seen=1))], at=NOW)
        before = state_of(store)
        assert len(store.history(a_record(0).job_id)) == 1
    with opened(folder) as store:
        assert state_of(store) == before


def test_marker_ids_survive_and_the_latest_counts(folder: Path) -> None:
    with opened(folder) as store:
        assert store.marker_id("nas") is None
        for marker_id in ("old", "new"):
            store.commit([Entry("destination_bound", data={"root": "nas", "marker_id": marker_id})], at=NOW)
            store.checkpoint()
        store.commit([Entry("destination_bound", data={"root": "other", "marker_id": "third"})], at=NOW)
        assert (store.marker_id("nas"), store.marker_id("other")) == ("new", "third")
    with opened(folder) as store:
        assert (store.marker_id("nas"), store.marker_id("other")) == ("new", "third")


# --- TinyDB ----------------------------------------------------------------------------------------------------------


class Unwalkable(dict[str, Any]):
    """A table's documents: any look at all of them is a failure."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("all documents were walked or copied")

    __iter__ = keys = values = items = copy = __or__ = __ror__ = __eq__ = _refuse  # type: ignore[assignment]
    __hash__: ClassVar[None] = None  # type: ignore[assignment]


def test_documents_live_in_tinydb_and_a_move_touches_one_of_them_and_no_slot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as store:
        store.commit([moved(a_record(number), 1) for number in range(50)], at=NOW)
        database = store._database
        assert isinstance(database, TinyDB)
        runs = database.table("runs")
        assert isinstance(runs, LiveTable)
        assert isinstance(database.storage, SlotStorage)
        monkeypatch.setattr(runs, "_live", Unwalkable(runs._live))
        monkeypatch.setattr(database.storage, "write", None)
        monkeypatch.setattr(database.storage, "read", None)
        for number in (7, 50):
            store.commit([moved(a_record(number, turn=1), 2)], at=NOW)
            document = runs.get(doc_id=a_record(number).job_id)  # type: ignore[call-overload]
            assert document["record"]["turn"] == 2
            assert [move.trigger for move in store.history(a_record(number).job_id)][-1] == "step_2"
        with pytest.raises(AssertionError, match="walked"):
            runs.all()


def test_the_older_lines_are_not_read_again_at_a_start(lived: State, folder: Path) -> None:
    trail = folder / TRAIL_NAME
    end_bytes = read_slots(folder).content["facts"]["head"]["trail"][2]  # type: ignore[index]
    data = trail.read_bytes()
    last = data.rfind(b"\n", 0, end_bytes - 1) + 1
    trail.write_bytes(b"x" * (last - 1) + b"\n" + data[last:])
    assert state_read(load(folder)) == lived


def test_checkpoints_come_by_themselves_in_proportion_to_the_number_of_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_LINES_MIN", 4)
    with opened(folder) as store:
        for turn in range(1, 7):
            store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)
        assert read_slots(folder).generation == 1
        store.commit([moved(a_record(number), 1) for number in range(1, 30)], at=NOW)
        for turn in range(7, 307):
            store.commit([moved(a_record(0, turn=turn - 1), turn)], at=NOW)
        assert 9 <= read_slots(folder).generation - 1 <= 10  # 300 lines of 30 runs


# --- one agent -------------------------------------------------------------------------------------------------------


def test_a_second_opener_is_refused_with_the_holder_and_changes_nothing(folder: Path) -> None:
    with opened(folder) as store:
        (folder / HOLDER_NAME).write_text('{"pid": 4711, "host": "labpc-04"}')
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
        (folder / HOLDER_NAME).write_bytes(b"\xff\xfe")
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


def test_a_folder_that_was_refused_is_not_held(folder: Path) -> None:
    folder.mkdir()
    (folder / SLOT_NAMES[0]).write_bytes(b"")
    store = RunStore(folder)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StateFolderError):
        store.open()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    (folder / SLOT_NAMES[0]).unlink()
    with opened(folder):
        pass


# --- damage ----------------------------------------------------------------------------------------------------------


def slot_paths(folder: Path) -> tuple[Path, Path]:
    """Return the newest slot and the other one."""
    newest = read_slots(folder).generation % 2
    return folder / SLOT_NAMES[newest], folder / SLOT_NAMES[1 - newest]


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"\0" * 500], ids=repr)
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["the newest slot", "the older slot", "both slots"])
def test_damaged_slots_are_set_aside_said_so_and_rebuilt(
    lived: State, folder: Path, which: tuple[int, ...], content: bytes
) -> None:
    damaged = [slot_paths(folder)[index] for index in which]
    for path in damaged:
        path.write_bytes(content)
    assert state_read(load(folder)) == lived
    assert all(path.read_bytes() == content for path in damaged)
    with opened(folder) as store:
        assert state_of(store) == lived
        assert store.marker_id("SCOPE_01 /mnt/nas") == "m-1"
        source = f"{TRAIL_NAME} alone" if len(which) == 2 else "the other one"
        assert sorted(store.notices) == sorted(
            f"{path.name} is damaged; the state was rebuilt from {source}." for path in damaged
        )
        store.checkpoint()
    evidence = sorted((folder / EVIDENCE_NAME).iterdir())
    assert sorted(path.name[5:] for path in evidence) == sorted(path.name for path in damaged)
    assert all(path.read_bytes() == content for path in evidence)
    with opened(folder) as store:
        assert state_of(store) == lived
        assert store.notices == ()


def test_without_any_slot_the_state_is_rebuilt_from_the_trail_alone(lived: State, folder: Path) -> None:
    for name in SLOT_NAMES:
        (folder / name).unlink()
    with opened(folder) as store:
        assert state_of(store) == lived
        assert store.marker_id("SCOPE_01 /mnt/nas") == "m-1"


def test_evidence_is_never_replaced_by_later_evidence(lived: State, folder: Path) -> None:
    evidence = folder / EVIDENCE_NAME
    for content in (b"first", b"second", b"third"):
        slot_paths(folder)[1].write_bytes(content)
        with opened(folder) as store:
            store.checkpoint()
            store.checkpoint()
        if content == b"first":
            continue
        if content == b"second":  # an operator takes the first away
            min(evidence.iterdir()).unlink()
    assert sorted(path.read_bytes() for path in evidence.iterdir()) == [b"second", b"third"]


@pytest.mark.parametrize("trail", [None, b"", b'{"torn'], ids=["no trail", "an empty trail", "a torn trail"])
def test_damaged_slots_without_a_trail_never_open_as_an_empty_database(folder: Path, trail: bytes | None) -> None:
    folder.mkdir()
    (folder / SLOT_NAMES[0]).write_bytes(b"")
    (folder / SLOT_NAMES[1]).write_bytes(b"null")
    if trail is not None:
        (folder / TRAIL_NAME).write_bytes(trail)
    before = everything(folder)
    for open_it in (lambda: load(folder), RunStore(folder).open):
        with pytest.raises(
            StateFolderError, match=r"damaged and audit.jsonl is missing or empty.*no data were touched"
        ):
            open_it()
    assert everything(folder) == before


def test_a_trail_that_was_cut_is_refused_and_nothing_is_changed(lived: State, folder: Path) -> None:
    trail = folder / TRAIL_NAME
    data = trail.read_bytes()
    end_bytes = read_slots(folder).content["facts"]["head"]["trail"][2]  # type: ignore[index]
    cuts = [0, 1, end_bytes - 1, *(index + 1 for index in range(end_bytes - 1) if data[index : index + 1] == b"\n")]
    for size in cuts:
        trail.write_bytes(data[:size])
        before = everything(folder)
        with pytest.raises(
            StateFolderError, match=r"shorter than the state says .* its end was cut.*no data were touched"
        ):
            RunStore(folder).open()
        assert everything(folder) == before
    trail.unlink()
    with pytest.raises(StateFolderError, match="its end was cut"):
        RunStore(folder).open()
    assert not trail.exists()
    trail.write_bytes(data)
    with opened(folder) as store:
        assert state_of(store) == lived


def test_a_cut_tail_that_was_filled_up_again_is_refused(lived: State, folder: Path) -> None:
    with opened(folder) as store:
        store.checkpoint()
    trail = folder / TRAIL_NAME
    lines = trail.read_bytes().splitlines(keepends=True)
    for forged in (
        b"x" * (len(lines[-1]) - 1) + b"\n",
        b"\0" * len(lines[-1]),
        lines[-1].replace(b"because", b"becausE"),
    ):
        trail.write_bytes(b"".join([*lines[:-1], forged]))
        with pytest.raises(StateFolderError, match=f"changed, cut or reordered at line {len(lines)}"):
            RunStore(folder).open()


@pytest.mark.parametrize("has_slots", [True, False], ids=["with slots", "without slots"])
def test_a_changed_trail_is_refused_with_the_line_and_what_to_do(lived: State, folder: Path, has_slots: bool) -> None:
    trail = folder / TRAIL_NAME
    if not has_slots:
        for name in SLOT_NAMES:
            (folder / name).unlink()
    lines = trail.read_bytes().splitlines(keepends=True)
    trail.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"seq":10', b'"seq":11')]))
    before = everything(folder)
    with pytest.raises(StateFolderError, match=r"changed, cut or reordered at line 10\. Keep the file as evidence"):
        RunStore(folder).open()
    assert everything(folder) == before


@pytest.mark.parametrize("torn", [b"{", b'{"seq":11,"prev":"', b"\0" * 700, b"x" * 100_000], ids=lambda t: repr(t[:6]))
def test_a_torn_last_line_is_cut_off_kept_as_evidence_and_said(lived: State, folder: Path, torn: bytes) -> None:
    trail = folder / TRAIL_NAME
    whole = trail.read_bytes()
    trail.write_bytes(whole + torn)
    loaded = load(folder)
    assert (state_read(loaded), loaded.is_torn) == (lived, True)
    assert trail.read_bytes() == whole + torn
    with opened(folder) as store:
        assert state_of(store) == lived
        assert len(store.notices) == 1
        assert f"{len(torn)} bytes of a commit that was never acknowledged" in store.notices[0]
        (evidence,) = (folder / EVIDENCE_NAME).iterdir()
        assert evidence.name in store.notices[0]
        assert evidence.read_bytes() == torn
        assert trail.read_bytes() == whole
        store.commit([moved(a_record(5), 1)], at=NOW)
    assert len(load(folder).runs) == 4


def test_a_commit_torn_between_its_lines_is_cut_off_whole(lived: State, folder: Path) -> None:
    trail = folder / TRAIL_NAME
    whole = trail.read_bytes()
    with opened(folder) as store:
        store.commit([moved(a_record(number), 1) for number in (5, 6, 7)], at=NOW)
    lines = trail.read_bytes()[len(whole) :].splitlines(keepends=True)
    for kept in (1, 2):
        trail.write_bytes(whole + b"".join(lines[:kept]))
        assert state_read(load(folder)) == lived
        with opened(folder) as store:
            assert state_of(store) == lived
        assert trail.read_bytes() == whole


def test_two_torn_tails_at_the_same_place_are_both_kept(lived: State, folder: Path) -> None:
    trail = folder / TRAIL_NAME
    whole = trail.read_bytes()
    for torn in (b'{"a', b'{"b', b'{"b'):
        trail.write_bytes(whole + torn)
        with opened(folder):
            pass
    assert sorted(path.read_bytes() for path in (folder / EVIDENCE_NAME).iterdir()) == [b'{"a', b'{"b']


def test_temporary_files_of_a_killed_agent_are_removed_at_the_next_start(lived: State, folder: Path) -> None:
    (folder / temporary_name(SLOT_NAMES[0])).write_bytes(b"half a slot")
    (folder / ".mine.tmp").write_bytes(b"an operator's")
    with opened(folder) as store:
        assert state_of(store) == lived
    assert sorted(name for name in os.listdir(folder) if name.startswith(".")) == [".mine.tmp"]


def test_a_slot_that_cannot_be_read_is_refused_in_one_sentence(folder: Path) -> None:
    (folder / SLOT_NAMES[0]).mkdir(parents=True)
    for open_it in (lambda: load(folder), RunStore(folder).open):
        with pytest.raises(StateFolderError, match="cannot be read"):
            open_it()


def test_a_state_folder_that_cannot_be_made_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateFolderError, match="cannot be used as state folder"):
            RunStore(folder).open()


# --- other versions --------------------------------------------------------------------------------------------------


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write the newest slot again, changed, as another version of the agent would have."""
    content = read_slots(folder).content
    assert content is not None
    change(content)
    SlotStorage(folder, {}).write(content)


@pytest.mark.parametrize("schema", [0, 2, None, "1"], ids=repr)
def test_another_schema_is_refused_in_one_sentence_and_left_as_it_is(lived: State, folder: Path, schema: Any) -> None:
    rewritten(folder, lambda content: content["facts"]["head"].update(schema=schema))
    before = everything(folder)
    for open_it in (lambda: load(folder), RunStore(folder).open):
        with pytest.raises(StateFolderError, match=r"another version of the agent .*install that version again\.$"):
            open_it()
    assert everything(folder) == before


def test_a_slot_without_a_head_is_that_of_another_version(lived: State, folder: Path) -> None:
    rewritten(folder, lambda content: content["facts"].pop("head"))
    with pytest.raises(StateFolderError, match="another version of the agent"):
        RunStore(folder).open()


def test_an_unknown_state_in_a_slot_is_refused_and_never_another_one(lived: State, folder: Path) -> None:
    unmoved = a_record(2).job_id  # no line of the tail brings it up to date
    rewritten(folder, lambda content: content["runs"][unmoved]["record"].update(state="paused"))
    slot_paths(folder)[1].write_bytes(b"damaged")
    before = everything(folder)
    with pytest.raises(
        StateFolderError, match=rf"{unmoved} cannot be read by this version .*state.*install the version"
    ):
        RunStore(folder).open()
    assert everything(folder) == before


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an unknown state": lambda fact: fact["record"].update(state="paused"),
    "a state in capitals": lambda fact: fact["record"].update(state="QUEUED"),
    "an unknown member": lambda fact: fact["record"].update(priority=1),
    "an unknown member of the identity": lambda fact: fact["record"]["identity"].update(serial=1),
    "a missing member": lambda fact: fact["record"].pop("run_path"),
    "a missing job id": lambda fact: fact["record"].pop("job_id"),
    "another kind of value": lambda fact: fact["record"].update(attempts="many"),
    "no record at all": lambda fact: fact.update(record=[]),
    "no kind": lambda fact: fact.pop("kind"),
    "a binding without its marker": lambda fact: fact.update(kind="destination_bound", data={"root": "x"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_line_that_this_version_does_not_know_is_refused_in_one_sentence_and_left_as_it_is(
    folder: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    with opened(folder) as store:
        store.commit([moved(a_record(0), 1)], at=NOW)
        head = store.head
    (fact,) = (fact for fact, _ in read_tail(folder / TRAIL_NAME, TrailHead()))
    change(fact)
    trail = AuditTrail(folder / TRAIL_NAME)
    trail.open(head)
    trail.append([fact])
    trail.close()
    (folder / TRAIL_NAME).write_bytes((folder / TRAIL_NAME).read_bytes() + b"{torn")
    before = everything(folder)
    with pytest.raises(StateFolderError, match=r"cannot be read by this version.*install the version that wrote it\.$"):
        RunStore(folder).open()
    assert everything(folder) == before


def test_a_history_with_an_unknown_state_is_refused_when_it_is_asked_for(lived: State, folder: Path) -> None:
    job_id = a_record(2).job_id
    rewritten(folder, lambda content: content["runs"][job_id]["history"][0].update(dest="paused"))
    with opened(folder) as store, pytest.raises(StateFolderError, match=f"history of the stored run {job_id}"):
        store.history(job_id)


# --- failing disks ---------------------------------------------------------------------------------------------------


def real_of(name: str) -> Callable[..., Any]:
    """Return the system call; an fsync without its wait, where no power is cut."""
    return no_fsync if name == "fsync" else getattr(os, name)  # type: ignore[no-any-return]


def no_fsync(_: int) -> None:
    return None


class Failing:
    """Lets the n-th of the watched system calls fail, once, as a disk would."""

    NAMES = ("write", "fsync", "replace", "rename", "unlink", "mkdir", "ftruncate")

    def __init__(self, patch: pytest.MonkeyPatch, *, fail_at: int, number: int, names: Sequence[str]) -> None:
        self.count = 0
        self.failed: str | None = None
        self._fail_at, self._number = fail_at, number
        for name in names:
            patch.setattr(os, name, self._watched(name, real_of(name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self._fail_at:
                self.failed = name
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(self._number, os.strerror(self._number))
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["no room", "a bad disk"])
def test_any_failed_write_or_fsync_stops_the_store_and_a_reopen_shows_exactly_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_LINES_MIN", 3)
    failed: set[str | None] = set()
    said: set[str] = set()
    for fail_at in range(1, 200):
        folder = tmp_path / str(fail_at)
        acknowledged: State = {}
        with opened(folder) as store, monkeypatch.context() as patch:
            failing = Failing(patch, fail_at=fail_at, number=number, names=("write", "fsync", "replace"))
            try:
                for turn in range(1, 7):
                    entries = [moved(a_record(run, turn=turn - 1), turn) for run in range(2)]
                    store.commit(entries, at=NOW)
                    acknowledged = with_entries(acknowledged, entries)
            except StoreWriteError as error:
                said.add(str(error).partition(": ")[2])
            assert state_of(store) == acknowledged
        with opened(folder) as store:
            assert state_of(store) == acknowledged
            assert store.notices == ()
        failed.add(failing.failed)
        if failing.failed is None:
            break
    assert failed == {"write", "fsync", "replace", None}
    assert said == {"make room or mend the disk, then start the agent again."}


def test_a_start_on_a_failing_disk_is_one_sentence_and_the_next_start_finds_all(
    lived: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = folder / TRAIL_NAME
    trail.write_bytes(trail.read_bytes() + b'{"torn')
    slot_paths(folder)[1].write_bytes(b"damaged")
    template = folder.rename(folder.with_name("template"))
    said: set[str] = set()
    for fail_at in range(1, 200):
        shutil.copytree(template, folder)
        with monkeypatch.context() as patch:
            failing = Failing(patch, fail_at=fail_at, number=errno.EIO, names=Failing.NAMES)
            store = RunStore(folder)
            try:
                store.open()
            except StateFolderError as error:
                said.add(str(error).partition("state ")[2])
            store.close()
        with opened(folder) as store:
            assert state_of(store) == lived
        kept = {path.read_bytes() for path in (folder / EVIDENCE_NAME).iterdir() if not path.name.startswith(".")}
        assert kept == {b'{"torn', b"damaged"}
        shutil.rmtree(folder)
        if failing.failed is None:
            break
    else:
        pytest.fail("the start never came to its end")
    assert said == {
        "cannot be used as state folder (Input/output error).",
        "cannot be brought in order (Input/output error): make room or mend the disk, then start again.",
    }


def test_a_failed_checkpoint_is_a_store_write_error_and_loses_nothing(
    lived: State, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as store:
        with monkeypatch.context() as patch:
            Failing(patch, fail_at=1, number=errno.ENOSPC, names=("write",))
            with pytest.raises(StoreWriteError, match="make room"):
                store.checkpoint()
        assert state_of(store) == lived
    with opened(folder) as store:
        assert state_of(store) == lived
        assert store.notices == ()


# --- a stop at every step --------------------------------------------------------------------------------------------


class DeadError(BaseException):
    """The process is gone: no handler of the code under test may take it for an error."""


class Dying:
    """Ends the "process" at the n-th system call that changes something: from then on none has any effect."""

    NAMES = ("write", "fsync", "replace", "rename", "unlink", "mkdir", "ftruncate", "chmod")

    def __init__(self, patch: pytest.MonkeyPatch, *, die_at: int, how: str) -> None:
        self.count = 0
        self._die_at, self._how = die_at, how
        for name in self.NAMES:
            patch.setattr(os, name, self._watched(name, real_of(name)))

    @property
    def is_dead(self) -> bool:
        return self.count >= self._die_at

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                raise DeadError
            self.count += 1
            if not self.is_dead:
                return real(*args, **kwargs)
            if self._how == "after":
                real(*args, **kwargs)
            elif self._how == "half way" and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise DeadError

        return call


class Life:
    """What was acknowledged, and what was under way when the process died."""

    def __init__(self) -> None:
        self.acknowledged: State = {}
        self.under_way: State = {}
        self.stores: list[RunStore] = []

    def commit(self, store: RunStore, *entries: Entry) -> None:
        self.under_way = with_entries(self.acknowledged, entries)
        store.commit(entries, at=NOW)
        self.acknowledged = self.under_way

    def live(self, folder: Path) -> None:
        """Live twice over the same folder: commits of one and of many, a checkpoint by hand and one by itself."""
        for first in (1, 4):
            store = RunStore(folder)
            self.stores.append(store)
            store.open()
            self.commit(store, moved(a_record(0, turn=first - 1), first))
            self.commit(store, *(moved(a_record(run, turn=first - 1), first) for run in (1, 2, 3)))
            store.checkpoint()
            self.commit(store, moved(a_record(0, turn=first), first + 1))
            self.commit(store, moved(a_record(0, turn=first + 1), first + 2))
            if first == 1:
                store.checkpoint()
            store.close()


def assert_whole(folder: Path) -> None:
    """The whole chain holds, and ends where the store says."""
    facts = list(read_tail(folder / TRAIL_NAME, TrailHead()))
    assert [fact["seq"] for fact, _ in facts] == list(range(1, len(facts) + 1))
    assert (folder / TRAIL_NAME).stat().st_size == (facts[-1][1].end_bytes if facts else 0)


@pytest.mark.parametrize("how", ["before", "after", "half way"])
def test_a_stop_at_any_step_of_a_life_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_LINES_MIN", 5)
    endings: set[bool] = set()
    for die_at in range(1, 500):
        folder = tmp_path / str(die_at)
        life = Life()
        with monkeypatch.context() as patch:
            dying = Dying(patch, die_at=die_at, how=how)
            with suppress(DeadError):
                life.live(folder)
        for store in life.stores:
            let_go(store)
        if folder.exists():
            read = state_read(load(folder))
            assert read in (life.acknowledged, life.under_way), die_at
            with opened(folder) as store:
                assert state_of(store) == read
                endings.add(read == life.acknowledged)
                store.commit([moved(a_record(9), 1)], at=NOW)
                assert len(store) == len(read) + 1
            assert_whole(folder)
        if not dying.is_dead:
            assert life.acknowledged == read
            break
    else:
        pytest.fail("the life never came to its end")
    assert die_at > 40
    assert endings == {True, False}  # a line that stood and was not acknowledged yet may be true, and is then whole


@pytest.mark.parametrize("how", ["before", "after", "half way"])
def test_a_stop_at_any_step_of_a_recovery_loses_neither_state_nor_evidence(
    lived: State, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    trail = folder / TRAIL_NAME
    trail.write_bytes(trail.read_bytes() + b'{"torn')
    slot_paths(folder)[1].write_bytes(b"older")
    slot_paths(folder)[0].write_bytes(b"newer")
    (folder / temporary_name("x")).write_bytes(b"")
    template = folder.rename(folder.with_name("template"))
    for die_at in range(1, 200):
        shutil.copytree(template, folder)
        store = RunStore(folder)
        with monkeypatch.context() as patch:
            dying = Dying(patch, die_at=die_at, how=how)
            with suppress(DeadError):
                store.open()
                store.checkpoint()
                store.close()
        let_go(store)
        assert state_read(load(folder)) == lived, die_at
        with opened(folder) as store:
            assert state_of(store) == lived
        kept = sorted(p.read_bytes() for p in (folder / EVIDENCE_NAME).iterdir() if not p.name.startswith("."))
        assert kept == [b"newer", b"older", b'{"torn'], die_at
        shutil.rmtree(folder)
        if not dying.is_dead:
            break
    else:
        pytest.fail("the recovery never came to its end")
    assert die_at > 10


# --- other processes -------------------------------------------------------------------------------------------------

RUNS = 5


def entry_of(seq: int) -> Entry:
    """Return the entry that is line `seq` of the trail in the tests below."""
    return moved(a_record((seq - 1) % RUNS, turn=(seq - 1) // RUNS), (seq - 1) // RUNS + 1)


def turns_at(seq: int) -> dict[str, int]:
    """Return each run's turn when the trail has `seq` lines."""
    turns = {a_record(run).job_id: (seq - 1 - run) // RUNS + 1 for run in range(RUNS)}
    return {job_id: turn for job_id, turn in turns.items() if turn > 0}


def committing(folder: Path, speak: int, seq_max: int) -> None:
    """Commit line after line and say each number once it is acknowledged. Runs in a child process of its own."""
    with suppress(BaseException):
        store = RunStore(folder)
        store.open()
        while store.head.seq < seq_max:
            store.commit([entry_of(store.head.seq + 1)], at=NOW)
            os.write(speak, b"%d\n" % store.head.seq)
    os._exit(0)


def start_committing(folder: Path, seq_max: int = 1_000_000) -> tuple[int, int]:
    """Return the child's process id and the end of the pipe on which it speaks."""
    listen, speak = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listen)
        committing(folder, speak, seq_max)
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
    monkeypatch.setattr(store_module, "CHECKPOINT_LINES_MIN", 3)  # so that checkpoints are hit, too
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
            seq = store.head.seq
            assert seq in (acknowledged, acknowledged + 1)
            assert {record.job_id: record.turn for record in store} == turns_at(seq)
            for record in store:
                assert [move.trigger for move in store.history(record.job_id)] == [
                    f"step_{turn}" for turn in range(1, record.turn + 1)
                ][-store_module.HISTORY_MAX :]
    assert_whole(folder)
    assert read_slots(folder).generation > 10


def test_reading_while_a_process_commits_gives_consistent_states_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_LINES_MIN", 7)
    forbidden = [name for name in Dying.NAMES if name != "write"]
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
                assert loaded.damaged == ()
                turns = {job_id: document["record"]["turn"] for job_id, document in loaded.runs.items()}
                assert turns == turns_at(loaded.head.seq)
                seen.append(loaded.head.seq)
    finally:
        end(child, listen)
    assert seen == sorted(seen)
    assert len(set(seen)) > 10


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
    assert load(folder).runs == {}
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


# --- any life --------------------------------------------------------------------------------------------------------


class AnyLife(RuleBasedStateMachine):
    """The store against a plain dict: commits, checkpoints, clean restarts, crashes, torn tails, damaged slots."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", no_fsync)  # no power is cut here
        self.folder = Path(tempfile.mkdtemp(prefix="exlab-store-"))
        self.model: State = {}
        self.markers: dict[str, str] = {}
        self.lines = 0
        self.open()

    def open(self) -> None:
        self.store = RunStore(self.folder)
        self.store.open()

    def entry(self, run: int, path: int, is_move: bool) -> Entry:
        record = self.model.get(a_record(run).job_id, (a_record(run), ()))[0]
        record = replace(record, run_path=f"{LOCAL}/run {run} at {path}")
        return moved(record, record.turn + 1) if is_move else Entry("moved", replace(record, attempts=path))

    @rule(work=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=4))
    def commit(self, work: list[tuple[int, int, bool]]) -> None:
        entries: list[Entry] = []
        for run, path, is_move in work:
            entries.append(self.entry(run, path, is_move))
            self.model = with_entries(self.model, entries[-1:])
        self.store.commit(entries, at=NOW)
        self.lines += len(entries)

    @rule(root=st.sampled_from("ab"), marker_id=st.sampled_from("xyz"))
    def bind(self, root: str, marker_id: str) -> None:
        self.store.commit([Entry("destination_bound", data={"root": root, "marker_id": marker_id})], at=NOW)
        self.markers[root] = marker_id
        self.lines += 1

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()

    @rule(is_checkpointed=st.booleans())
    def restart(self, is_checkpointed: bool) -> None:
        if is_checkpointed:
            self.store.checkpoint()
        self.store.close()
        self.open()
        assert self.store.notices == ()

    @rule(torn=st.binary(max_size=30).filter(lambda data: b"\n" not in data))
    def crash(self, torn: bytes) -> None:
        let_go(self.store)
        with (self.folder / TRAIL_NAME).open("ab") as trail:
            trail.write(torn)
        self.open()
        assert len(self.store.notices) == bool(torn)

    @precondition(lambda self: self.lines > 0)
    @rule(which=st.sampled_from([(0,), (1,), (0, 1)]), content=st.sampled_from([None, b"", b"null", b"{}\n{}"]))
    def lose_slots(self, which: tuple[int, ...], content: bytes | None) -> None:
        let_go(self.store)
        damaged = 0
        for slot in (self.folder / SLOT_NAMES[index] for index in which):
            if content is None:
                slot.unlink(missing_ok=True)
            elif slot.exists():
                slot.write_bytes(content)
                damaged += 1
        self.open()
        assert len(self.store.notices) == damaged

    @invariant()
    def holds(self) -> None:
        assert state_of(self.store) == self.model
        assert len(self.store) == len(self.model)
        assert self.store.head.seq == self.lines
        assert {root: self.store.marker_id(root) for root in "ab" if self.store.marker_id(root)} == self.markers
        for record, _ in self.model.values():
            assert self.store.by_path(record.run_path) == record
            assert self.store.by_identity(record.identity) == (record,)
        known = {record.run_path for record, _ in self.model.values()}
        for path in {f"{LOCAL}/run {run} at {path}" for run in range(4) for path in range(3)} - known:
            assert self.store.by_path(path) is None

    def teardown(self) -> None:
        self.patch.undo()
        self.store.close()
        assert_whole(self.folder)
        shutil.rmtree(self.folder)


AnyLife.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
test_any_life_of_a_store_is_that_of_a_dict = AnyLife.TestCase
