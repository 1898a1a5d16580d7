"""What an auditor waits for over a trail of a million lines: `audit verify`, a period's summary, and the questions of `audit log`.

By turns, each in a process of its own, so that its memory is its own. The summary is compared with the check of the chain,
which it contains, and each question with a bare reading of the same bytes line by line, which no search without an index can beat.

Run: python -m benchmarks.audit [--lines 1000000] [--runs 10000] [--rounds 3] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.store import NOW, build, entry_of, record_of
from exlab_watch_agent.adapters.state.chain import read_chain
from exlab_watch_agent.adapters.state.segments import find_segments
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.state.trail_log import Wanted, lines_that_match
from exlab_watch_agent.report.dossier import HOW_READ
from exlab_watch_agent.report.pages import ChainSummary
from exlab_watch_agent.report.period import Period
from exlab_watch_agent.report.tally import Bounds, PeriodTally

BARE = "bare reading"
QUESTIONS = {
    "log of a run": Wanted(job_id=record_of(17).job_id),
    "log of an operator": Wanted(operator="asmith"),
    "log of a kind": Wanted(kind="override_added"),
    "log since then": Wanted(since="2027-01-01T00:00:00.000000Z"),
    "log of everything": Wanted(),
}


def fill(state: Path, lines: int, runs: int) -> None:
    build(state, runs)
    store = RunStore(state)
    store.open()
    for start in range(runs, lines, 1000):
        store.commit([entry_of(n % runs, n // runs) for n in range(start, min(lines, start + 1000))], at=NOW)
    store.checkpoint()
    store.close()


def read(state: Path, *, is_summed_up: bool) -> None:
    """Do one reading and print its seconds, its peak memory in MiB, and the lines."""
    tally = PeriodTally(Bounds()) if is_summed_up else None
    began = time.process_time()
    chain = read_chain(state, taker=tally)
    if tally is not None:
        now = datetime.now(UTC)
        summary = ChainSummary(chain.lines, chain.head.seq, chain.head.digest, 0, 0)
        Period(now, "benchmark", "here", {}, now, tally, (), {}, summary, "").to_html(how_read=HOW_READ)
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([took, peak, chain.lines]))


def ask(state: Path, question: str) -> None:
    """Ask `audit log` one question, or read the lines and ask nothing, and print the same; `lines`: those that were found."""
    began = time.process_time()
    if question == BARE:
        lines = 0
        for segment in find_segments(state):
            with segment.path.open("rb") as file:
                lines += sum(1 for _ in file)
    else:
        lines = sum(1 for _ in lines_that_match(state, QUESTIONS[question]))
    took = time.process_time() - began
    print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, lines]))


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sum-up", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None and arguments.ask is not None:
        ask(arguments.read, arguments.ask)
        return
    if arguments.read is not None:
        read(arguments.read, is_summed_up=arguments.sum_up)
        return
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        state = Path(folder) / "state"
        fill(state, arguments.lines, arguments.runs)
        asked = {name: ["--ask", name] for name in (BARE, *QUESTIONS)}
        turns: dict[str, list[str]] = {"check": [], "summary": ["--sum-up"], **asked}
        found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in turns}
        for _ in range(arguments.rounds):
            for name, more in turns.items():
                argv = [sys.executable, "-m", "benchmarks.audit", "--read", str(state), *more]
                said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
                found[name].append(tuple(json.loads(said)))
        for name, readings in found.items():
            seconds, peak = (statistics.median(one[number] for one in readings) for number in (0, 1))
            print(f"{name}: {readings[0][2]} lines, {seconds:.1f} s of CPU, {peak:.0f} MiB at most")
        ratios = [summed[0] / checked[0] for checked, summed in zip(found["check"], found["summary"], strict=True)]
        print(f"summary over check: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        for name in QUESTIONS:
            ratios = [one[0] / bare[0] for bare, one in zip(found[BARE], found[name], strict=True)]
            print(f"{name} over bare reading: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
