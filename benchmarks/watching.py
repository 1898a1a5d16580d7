"""Idle cost of watching, and what is missed in a storm: the agent, a plain recursive watchdog observer, watchfiles.

Idle: processor seconds (as a share of one core) and resident memory over a span in which nothing happens, each rival a
process of its own over the same tree, and at the end whether a new run is still noticed. All runs wait for their
sentinel, or with --verified all are verified; every setting is the default one. Storm: new runs missed while files are
appended to without pause; no timed scan of the agent falls into it, so that events alone count.

watchfiles is a rival only here: pip install watchfiles
Run: python benchmarks/watching.py [--quick] [--runs 10000] [--files 20] [--idle 60] [--verified] [--folder DIR]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WATCHDOG = """\
import sys, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        for path in (event.src_path, event.dest_path):
            if path.endswith("creation.json"):
                print(path, flush=True)
observer = Observer()
observer.schedule(Handler(), sys.argv[1], recursive=True)
observer.start()
time.sleep(1e9)
"""
WATCHFILES = """\
import sys
from watchfiles import watch
for changes in watch(sys.argv[1], recursive=True, debounce=50, step=10):
    for _, path in changes:
        if path.endswith("creation.json"):
            print(path, flush=True)
"""


@dataclass
class Rival:
    """A process that watches, and the runs that it has noticed."""

    name: str
    process: subprocess.Popen[bytes]
    noticed: Callable[[], set[str]]

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_script(name: str, script: str, home: Path) -> Rival:
    out = home / f"{name}.out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(home / "local" / "SCOPE_01")], stdout=file, stderr=subprocess.DEVNULL
        )
    return Rival(name, process, lambda: {line.split("/.exlab")[0] for line in out.read_text().splitlines()})


def start_agent(home: Path, *, is_verified: bool) -> Rival:
    signal_member = "completeness_signal: creation_json"
    if not is_verified:
        signal_member = "completeness_signal: sentinel_file, sentinel_filename: done.flag"
    config = home / "config.yaml"
    config.write_text(
        f"equipment:\n  - {{id: SCOPE_01, local_root: {home}/local, {signal_member},\n"
        f"     transport: {{type: mounted_path, path: {home}/nas}}}}\n"
        f"agent: {{state_dir: {home}/state, settle_seconds: {0 if is_verified else 30}}}\n"
    )
    command = [sys.executable, "-m", "exlab_watch_agent"]
    subprocess.run([*command, "bind", "--all", "--yes", "--config", str(config)], check=True, stdout=subprocess.DEVNULL)
    with (home / "agent.out").open("wb") as file:
        process = subprocess.Popen([*command, "run", "--config", str(config)], stdout=file, stderr=file)
    state = home / "state"

    def noticed() -> set[str]:
        found: set[str] = set()
        trail = [*sorted(state.glob("audit/*.jsonl")), *state.glob("audit.jsonl")]
        for line in (line for path in trail for line in path.read_text().splitlines()):
            record = json.loads(line).get("record") or {}
            if not is_verified or record.get("state") == "verified":
                found.add(record.get("run_path", ""))
        return found - {""}

    return Rival("agent", process, noticed)


def make_run(home: Path, number: int, files: int) -> str:
    run = home / "local" / "SCOPE_01" / f"P{number // 500}" / "Runs" / f"Run_2026-01-01T00-00-{number:05d}"
    cache = run / ".exlab-wizard"
    (run / "data").mkdir(parents=True)
    cache.mkdir()
    for name in range(files):
        (run / "data" / f"{name}.tif").touch()
    creation = {
        "schema_version": "1.8", "created_at": "2026-01-01T00:00:00Z", "created_by": "bench", "level": "run",
        "run_kind": "experimental", "lims_project": {"uid": str(number)}, "paths": {"local": str(run)},
    }  # fmt: skip
    (cache / "tmp").write_text(json.dumps(creation))
    (cache / "tmp").replace(cache / "creation.json")
    return str(run)


def wait_for(holds: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def until_calm(rival: Rival) -> None:
    """Wait until it has used less than a tenth of a core for five seconds, or two minutes have passed."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        before = rival.cpu_s()
        time.sleep(5)
        if rival.cpu_s() - before < 0.5:
            return


def measure_idle(rival: Rival, home: Path, number: int, idle_s: float) -> float:
    """Print one line; return the share of a core."""
    until_calm(rival)
    before = rival.cpu_s()
    time.sleep(idle_s)
    share = (rival.cpu_s() - before) / idle_s
    memory_mib = rival.memory_mib()
    run = make_run(home, number, 1)
    sees = wait_for(lambda: run in rival.noticed(), 30)
    print(
        f"{rival.name:<12} idle {share:8.3%} of a core, {memory_mib:6.1f} MiB, {'seeing' if sees else 'DEAF'}",
        flush=True,
    )
    return share


def measure_storm(rival: Rival, home: Path, first: int, new: int) -> None:
    busy = home / "local" / "SCOPE_01" / "P0" / "Runs" / "Run_2026-01-01T00-00-00000"
    ends = threading.Event()

    def append(numbers: range) -> None:
        files = [(busy / f"{number}.raw").open("ab", buffering=0) for number in numbers]
        while not ends.is_set():
            for file in files:
                file.write(b"x" * 64)
        for file in files:
            file.close()

    writers = [threading.Thread(target=append, args=(range(part * 20, part * 20 + 20),)) for part in range(2)]
    for writer in writers:
        writer.start()
    try:
        runs = {make_run(home, first + number, 1) for number in range(new)}
        wait_for(lambda: runs <= rival.noticed(), 30)
    finally:
        ends.set()
        for writer in writers:
            writer.join()
        for file in busy.glob("*.raw"):
            file.unlink()
    print(f"{rival.name:<12} storm: {len(runs - rival.noticed())} of {new} new runs missed", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 runs, 10 s, 100 new runs")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--idle", type=float, default=60)
    parser.add_argument("--new", type=int, default=500)
    parser.add_argument("--verified", action="store_true", help="let the agent bring all runs to verified first")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs, arguments.idle, arguments.new = 1000, 10, 100
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        home = Path(folder)
        (home / "nas").mkdir()
        for number in range(arguments.runs):
            make_run(home, number, arguments.files)
        print(f"{arguments.runs} runs, {arguments.runs * arguments.files} data files", flush=True)
        starts: list[Callable[[], Rival]] = [
            lambda: start_agent(home, is_verified=arguments.verified),
            lambda: start_script("watchdog", WATCHDOG, home),
        ]
        if importlib.util.find_spec("watchfiles") is not None:
            starts.append(lambda: start_script("watchfiles", WATCHFILES, home))
        shares: dict[str, float] = {}
        for turn, start in enumerate(starts):
            rival = start()
            try:
                if rival.name == "agent":
                    known = wait_for(lambda rival=rival: len(rival.noticed()) >= arguments.runs, 3600)
                    assert known, "the agent did not take up all runs"
                number = arguments.runs + turn * 10_000
                shares[rival.name] = measure_idle(rival, home, number, arguments.idle)
                measure_storm(rival, home, number + 1, arguments.new)
            finally:
                rival.stop()
        for name, share in shares.items():
            print(f"idle of {name} over the agent's: {share / max(shares['agent'], 1e-9):.1f}")


if __name__ == "__main__":
    main()
