"""What the tests of the store share: records and moves that tell themselves apart, a plain dict as the model, lives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.state.chain import anchors_in, read_chain
from exlab_watch_agent.adapters.state.layout import SLOT_NAMES
from exlab_watch_agent.adapters.state.recovery import Loaded, load
from exlab_watch_agent.adapters.state.slots import read_slots
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import LastError, Move, RunRecord
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
def opened(folder: Path, **options: Any) -> Iterator[RunStore]:
    store = RunStore(folder, **options)
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
    if (
        store._writer is not None
    ):  # A thread cannot be ended: its slot is whole then, as if the end had come a little later.
        store._writer.join()
        store._writer = None
    if store._trail._descriptor >= 0:
        os.close(store._trail._descriptor)
        store._trail._descriptor = -1
    store._lock.release(force=True)


State = dict[str, tuple[RunRecord, tuple[Move, ...]]]


def state_of(store: RunStore) -> State:
    return {record.job_id: (record, store.history(record.job_id)) for record in store}


def state_read(loaded: Loaded) -> State:
    return {record.job_id: (record, loaded.history(record.job_id)) for record in loaded.documents.records()}


def with_entries(state: State, entries: Sequence[Entry]) -> State:
    after = dict(state)
    for entry in entries:
        assert entry.record is not None
        history = after.get(entry.record.job_id, (None, ()))[1]
        after[entry.record.job_id] = (entry.record, (*history, entry.move) if entry.move else history)
    return after


def slot_paths(folder: Path) -> tuple[Path, Path]:
    """Return the newest slot and the other one."""
    newest = read_slots(folder).generation % 2
    return folder / SLOT_NAMES[newest], folder / SLOT_NAMES[1 - newest]


def live_a_little(folder: Path) -> State:
    """Leave a folder with three segments, two good slots, a tail after them, three runs and a marker; return its state."""
    with opened(folder, segment_bytes=2500) as store:
        for turn in (1, 2):
            for number in range(3):
                store.commit([moved(a_record(number, turn=turn - 1), turn)], at=NOW)
            store.commit([Entry("destination_bound", data={"root": "SCOPE_01 /mnt/nas", "marker_id": "m-1"})], at=NOW)
            store.checkpoint()
        store.commit([moved(a_record(0, turn=2), 3), moved(a_record(1, turn=2), 3)], at=NOW)
        return state_of(store)


def assert_whole(folder: Path) -> None:
    """The chain holds from the first line to the last, over all segments, and ends where the store says."""
    found = read_chain(folder, anchors_in(folder))
    assert (found.breaks, found.accounted, found.is_torn) == ((), (), False)
    assert found.head == load(folder).head
