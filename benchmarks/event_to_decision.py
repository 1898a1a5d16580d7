"""`creation.json` written → decision durable, with many runs known. Prints median and p99 in milliseconds.

A real agent with a real watcher on a real folder; the clock starts when the `creation.json` of a new run appears under
its name, and stops when the line of the audit trail that registers the run is fsynced.

With `--scanning`, full scans of all that is known are under way all the while.

Run: python benchmarks/event_to_decision.py [--known 100 1000 10000] [--new 200] [--scanning] [--folder DIR] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.config.load import parse_settings
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.engine.messages import ScanWanted

CONFIG = """\
equipment:
  - {{id: SCOPE_01, label: Scope, local_root: {home}/local, nas_root: x, completeness_signal: sentinel_file,
     sentinel_filename: done.flag, transport: {{type: mounted_path, path: {home}/nas}}}}
agent: {{state_dir: {home}/state, settle_seconds: 30}}
"""


def write_run(home: Path, number: int) -> tuple[str, float]:
    """Make a run as ExLab-Wizard does; return its path and when its creation.json appeared."""
    run = home / "local" / "SCOPE_01" / f"P{number // 500}" / "Runs" / f"Run_2026-01-01T00-00-{number:05d}"
    cache = run / ".exlab-wizard"
    cache.mkdir(parents=True)
    creation = {
        "schema_version": "1.8", "created_at": "2026-01-01T00:00:00Z", "created_by": "bench", "level": "run",
        "run_kind": "experimental", "lims_project": {"uid": str(number)}, "paths": {"local": str(run)},
    }  # fmt: skip
    temporary = cache / "tmp"
    temporary.write_text(json.dumps(creation))
    began = time.perf_counter()
    os.replace(temporary, cache / "creation.json")
    return str(run), began


def measure(home: Path, known: int, new: int, *, is_scanning: bool) -> None:
    (home / "nas").mkdir(parents=True)
    for number in range(known):
        write_run(home, number)
    decided: dict[str, float] = {}
    changed = threading.Condition()

    def on_move(record: RunRecord, _move: Move) -> None:
        with changed:
            decided.setdefault(record.run_path, time.perf_counter())
            changed.notify_all()

    agent = Agent(parse_settings(CONFIG.format(home=home), source="benchmark"), on_move=on_move)
    agent.open()
    agent.bind("SCOPE_01", "benchmark")
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        with changed:
            assert changed.wait_for(lambda: len(decided) == known, timeout=600), "the known runs were not taken up"
        time.sleep(3)
        waits: list[float] = []
        for number in range(known, known + new):
            if is_scanning and agent.engine is not None:
                agent.engine.post(ScanWanted())
            path, began = write_run(home, number)
            with changed:
                assert changed.wait_for(lambda path=path: path in decided, timeout=30), f"{path} was missed"
            waits.append((decided[path] - began) * 1000)
            time.sleep(0.02)
    finally:
        agent.stop()
        thread.join()
        agent.close()
    waits.sort()
    print(
        f"{known} runs known: median {statistics.median(waits):.1f} ms, p99 {waits[int(len(waits) * 0.99)]:.1f} ms, "
        f"worst {waits[-1]:.1f} ms of {new}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--scanning", action="store_true", help="with a full scan under way all the while")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="100 known runs, 20 new ones: only that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.known, arguments.new = [100], 20
    for known in arguments.known:
        with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
            measure(Path(folder) / "lab", known, arguments.new, is_scanning=arguments.scanning)


if __name__ == "__main__":
    main()
