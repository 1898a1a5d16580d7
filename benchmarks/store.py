"""The store at 100 to 100,000 runs: one durable transition, start, memory, look-ups; and its disk after a million lines.

Each durable write is compared, by turns in one run, with a bare append and sync of the same bytes, with sqlite3 (WAL,
synchronous=FULL) and, up to 1,000 runs, with stock TinyDB, which rewrites its file at every update.

Run: python benchmarks/store.py [--quick] [--runs 100 1000 10000 100000] [--moves 2000] [--folder DIR]
     python benchmarks/store.py --disk-after 1000000 [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tinydb import TinyDB
from tinydb.table import Document

from exlab_watch_agent.adapters.local.durable import sync_data
from exlab_watch_agent.adapters.state.documents import record_json
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState, Trigger

NOW = datetime(2026, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)
TINYDB_RUNS_MAX = 1000
MOVES_WITH_TINYDB = 60
READS = 2000


def record_of(number: int) -> RunRecord:
    """Return a record with all that a synced run has."""
    name = f"Run_2026-01-01T00-{number:06d}"
    return RunRecord(
        job_id=f"{number:032x}",
        run_path=f"/data/lab/SCOPE_01/PROJ-0042 Cortex/Runs/{name}",
        equipment_id="SCOPE_01",
        project="PROJ-0042 Cortex",
        run_kind="experimental",
        identity=RunIdentity("2026-01-01T00:00:00Z", "asmith", "8c7e", name),
        entered_at=NOW,
        state=RunState.VERIFIED,
        discovered_at=NOW,
        enqueued_at=NOW,
        destination=f"PROJ-0042 Cortex/Runs/{name}",
        fingerprint=f"{number:032x}",
        files_total=120,
        bytes_total=12_345_678,
        manifest_digest=f"{number:064x}",
        sealed_at=NOW,
        verify_passes=2,
        verified_at=NOW,
    )


def entry_of(number: int, turn: int) -> Entry:
    dest, source = (RunState.AUDITING, RunState.VERIFIED) if turn % 2 else (RunState.VERIFIED, RunState.AUDITING)
    move = Move(
        NOW, Trigger.AUDIT_STARTED if turn % 2 else Trigger.PROVEN, source, dest, "the time for an audit has come"
    )
    return Entry("transition", replace(record_of(number), state=dest, turn=turn), move)


def build(folder: Path, runs: int) -> None:
    store = RunStore(folder)
    store.open()
    for start in range(0, runs, 1000):
        store.commit([entry_of(number, 0) for number in range(start, min(runs, start + 1000))], at=NOW)
    store.checkpoint()
    store.close()


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rivals(folder: Path, runs: int, line: bytes) -> dict[str, Callable[[int], object]]:
    """Return the other ways of one durable change of one run."""
    bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(_: int) -> None:
        os.write(bare, line)
        sync_data(bare)

    database = sqlite3.connect(folder / "rival.sqlite", isolation_level=None)
    assert database.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    database.execute("pragma synchronous=full")
    database.execute("create table runs (id text primary key, document blob)")
    document = record_json(record_of(0))
    database.execute("begin")
    database.executemany("insert into runs values (?, ?)", ((f"{number:032x}", document) for number in range(runs)))
    database.execute("commit")
    found: dict[str, Callable[[int], object]] = {
        "bare append and sync": append,
        # Another document each time: sqlite writes nothing for one that is the same.
        "sqlite3": lambda n: database.execute(
            "update runs set document=? where id=?", (b"%b %d" % (document, n), f"{n % runs:032x}")
        ),
    }
    if runs <= TINYDB_RUNS_MAX:
        tiny = TinyDB(folder / "tiny.json")
        tiny.insert_multiple(Document({"document": document.decode()}, doc_id=number + 1) for number in range(runs))
        found["stock TinyDB"] = lambda n: tiny.update({"document": f"{n}"}, doc_ids=[n % runs + 1])
    return found


def transitions(folder: Path, runs: int, moves: int) -> None:
    store = RunStore(folder / "state")
    store.open()
    line = b"x" * (len((folder / "state" / "audit.jsonl").read_bytes().splitlines()[-1]))
    others = rivals(folder, runs, line + b"\n")
    entries = [
        entry_of(number % runs, number // runs + 1) for number in range(moves)
    ]  # the rivals build nothing either
    others["store"] = lambda n: store.commit([entries[n]], at=NOW)
    times: dict[str, list[float]] = {name: [] for name in sorted(others)}
    names = list(times)
    for number in range(moves):
        # By turns, each behind each other one: a sync may have to wait for what the one before has left.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name != "stock TinyDB" or number < MOVES_WITH_TINYDB:
                change = others[name]
                times[name].append(timed(lambda change=change, number=number: change(number)))  # type: ignore[misc]
    bare = statistics.mean(times["bare append and sync"])
    for name, seen in times.items():
        p99 = sorted(seen)[int(len(seen) * 0.99)]
        print(
            f"  {name:22} mean {statistics.mean(seen) * 1e6:8.0f} us ({statistics.mean(seen) / bare:6.2f} of bare), "
            f"median {statistics.median(seen) * 1e6:8.0f} us, p99 {p99 * 1e6:8.0f} us, most {max(seen) * 1e6:8.0f} us"
        )
    store.close()


def look_ups(folder: Path, runs: int) -> None:
    store = RunStore(folder / "state")
    store.open()
    records = [record_of(number * 7919 % runs) for number in range(READS)]
    ways: dict[str, Callable[[RunRecord], object]] = {
        "job id": lambda record: store.get(record.job_id),
        "path": lambda record: store.by_path(record.run_path),
        "identity": lambda record: store.by_identity(record.identity),
        "history": lambda record: store.history(record.job_id),
        "counts": lambda _: store.counts(),
    }
    said = []
    for name, look in ways.items():
        assert look(records[0])
        took = timed(lambda look=look: [look(record) for record in records])  # type: ignore[misc]
        said.append(f"{name} {took / READS * 1e6:.1f} us")
    print(f"  look-ups: {', '.join(said)}")
    store.close()


def opening(folder: Path) -> None:
    """Open in a process of its own, whose memory nobody else has used."""
    subprocess.run([sys.executable, __file__, "--open", str(folder / "state")], check=True)


def open_and_say(folder: Path) -> None:
    def status() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

    before = status()
    store = RunStore(folder)
    took = timed(store.open)
    print(f"  open: {took:.2f} s, most memory {status()} MiB, of it {before} before")
    store.close()


def disk_after(folder: Path, lines: int, runs: int = 10_000) -> None:
    build(folder / "state", runs)
    store = RunStore(folder / "state")
    store.open()
    began = time.perf_counter()
    for start in range(0, lines, 1000):  # a thousand a sync: only the disk used is asked here
        store.commit([entry_of(n % runs, n // runs + 1) for n in range(start, min(lines, start + 1000))], at=NOW)
    took = time.perf_counter() - began
    store.checkpoint()
    store.close()
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{runs} runs and {lines} transitions: {used / 1e6:.0f} MB, {used / lines:.0f} bytes each, in {took:.0f} s")
    opening(folder)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--moves", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 runs, 200 moves")
    parser.add_argument("--disk-after", type=int, metavar="TRANSITIONS")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open is not None:
        open_and_say(arguments.open)
        return
    if arguments.disk_after:
        with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
            disk_after(Path(folder), arguments.disk_after)
        return
    for runs in [100, 1000] if arguments.quick else arguments.runs:
        with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
            print(f"{runs} runs", flush=True)
            build(Path(folder) / "state", runs)
            transitions(Path(folder), runs, 200 if arguments.quick else arguments.moves)
            look_ups(Path(folder), runs)
            opening(Path(folder))


if __name__ == "__main__":
    main()
