"""Durable transitions: one commit of the store against a bare append and fsync of the same bytes, as a ratio.

Run: python benchmarks/durable_transition.py [--runs 100 1000 10000] [--moves 500] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from exlab_watch_agent.adapters.store import RunStore
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState, Trigger

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number: int) -> Entry:
    identity = RunIdentity("2026-01-01T00:00:00Z", "bench", str(number), f"Run_{number}")
    record = RunRecord(
        f"{number:032x}", f"/data/lab/SCOPE_01/P/Runs/Run_{number}", "SCOPE_01", "P", "experimental", identity, NOW
    )
    return Entry("transition", record, Move(NOW, "discovered", None, RunState.ACQUIRING, "creation.json was noticed"))


def measure(folder: Path, runs: int, moves: int) -> None:
    store = RunStore(folder / "state")
    store.open()
    entries = [entry(number) for number in range(runs)]
    for start in range(0, runs, 500):
        store.commit(entries[start : start + 500], at=NOW)
    store.checkpoint()
    size_before = store.head.end_bytes
    ours: list[float] = []
    bare: list[float] = []
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = b"x" * 1200
    records = [e.record for e in entries]
    for number in range(moves):
        record = records[number % runs]
        assert record is not None
        if record.state is RunState.ACQUIRING:
            trigger, dest = Trigger.ADMITTED, RunState.QUEUED
        else:
            trigger, dest = Trigger.CHANGED, RunState.ACQUIRING
        moved = record.moved(trigger, at=NOW)
        records[number % runs] = moved
        move = Move(NOW, trigger, record.state, dest, "a benchmark")
        began = time.perf_counter()
        store.commit([Entry("transition", moved, move)], at=NOW)
        middle = time.perf_counter()
        os.write(descriptor, line)
        os.fsync(descriptor)
        bare.append(time.perf_counter() - middle)
        ours.append(middle - began)
    os.close(descriptor)
    size = (store.head.end_bytes - size_before) / moves
    store.close()
    mean = statistics.mean
    print(
        f"{runs} runs: {1 / mean(ours):.0f} transitions/s, median {statistics.median(ours) * 1000:.3f} ms, bare append "
        f"and fsync {statistics.median(bare) * 1000:.3f} ms, ratio {statistics.median(ours) / statistics.median(bare):.2f}, "
        f"{size:.0f} bytes a line"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--moves", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    for runs in arguments.runs:
        with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
            measure(Path(folder), runs, arguments.moves)


if __name__ == "__main__":
    main()
