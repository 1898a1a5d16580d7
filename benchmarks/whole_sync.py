"""Whole sync on a mounted path against `cp -a` + `sync` + one hashlib pass over each side. Prints ratios of one run.

The agent's time is from its start to all runs `verified`: watching is off, settling is 0 s, every file is fsynced, read
back past the page cache and hashed on both sides. The rival reads its copy back from the page cache.

Run: python benchmarks/whole_sync.py [--rounds 3] [--folder DIR] [--small]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.config.load import parse_settings
from exlab_watch_agent.statechart import RunState

CONFIG = """\
equipment:
  - {{id: SCOPE_01, label: Scope, local_root: {local}, nas_root: x, completeness_signal: creation_json,
     transport: {{type: mounted_path, path: {nas}}}}}
agent: {{state_dir: {state}, settle_seconds: 0}}
"""
MIB = 1 << 20
PIECE = os.urandom(MIB)


def write_file(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for number in range(size_bytes // MIB):
            file.write(number.to_bytes(8, "big") + PIECE[8:])
        file.write(PIECE[: size_bytes % MIB])


def make_runs(root: Path, runs: int, files: int, size_bytes: int) -> None:
    for number in range(runs):
        run = (
            root
            / "SCOPE_01"
            / "P1"
            / "Runs"
            / f"Run_2026-01-{1 + number // 1440:02d}T{number // 60 % 24:02d}-{number % 60:02d}"
        )
        (run / ".exlab-wizard").mkdir(parents=True)
        for index in range(files):
            write_file(run / f"{index:04d}.bin", size_bytes)
        creation = {
            "schema_version": "1.8", "created_at": f"2026-01-01T00:00:{number:02d}Z", "created_by": "bench", "level": "run",
            "run_kind": "experimental", "lims_project": {"uid": str(number)}, "paths": {"local": str(run)},
        }  # fmt: skip
        (run / ".exlab-wizard" / "creation.json").write_text(json.dumps(creation))


def hash_all(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            hasher = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                while piece := file.read(256 * 1024):
                    hasher.update(piece)


def rival(local: Path, nas: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["cp", "-a", str(local / "SCOPE_01"), str(nas)], check=True)
    subprocess.run(["sync"], check=True)
    hash_all(local)
    hash_all(nas)
    return time.perf_counter() - began


def ours(local: Path, nas: Path, state: Path) -> float:
    settings = parse_settings(CONFIG.format(local=local, nas=nas, state=state), source="benchmark")
    agent = Agent(settings, scope=Scope(is_watching=False))
    agent.open()
    try:
        began = time.perf_counter()
        agent.bind("SCOPE_01", "benchmark")
        agent.run(until_rest=True)
        spent = time.perf_counter() - began
        assert all(record.state is RunState.VERIFIED for record in agent.store), "a run was not verified"
    finally:
        agent.close()
    return spent


def measure(home: Path, name: str, *, runs: int, files: int, size_bytes: int, rounds: int) -> None:
    local = home / "local"
    make_runs(local, runs, files, size_bytes)
    subprocess.run(["sync"], check=True)
    ratios: list[float] = []
    for number in range(rounds):
        times: dict[str, float] = {}
        for who in ("rival", "ours") if number % 2 else ("ours", "rival"):
            nas, state = home / f"nas-{who}", home / f"state-{who}"
            nas.mkdir()
            times[who] = rival(local, nas) if who == "rival" else ours(local, nas, state)
            shutil.rmtree(nas)
            shutil.rmtree(state, ignore_errors=True)
            subprocess.run(["sync"], check=True)
        ratios.append(times["ours"] / times["rival"])
        print(f"  {name}: ours {times['ours']:.2f} s, rival {times['rival']:.2f} s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"{name}: median ratio {statistics.median(ratios):.2f} (at most 1.00 is asked)")
    shutil.rmtree(local)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--small", action="store_true", help="a quarter of the sizes")
    arguments = parser.parse_args()
    part = 4 if arguments.small else 1
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        home = Path(folder)
        measure(home, "200 runs of 10 x 1 MiB", runs=200 // part, files=10, size_bytes=MIB, rounds=arguments.rounds)
        measure(home, "one 2 GiB file", runs=1, files=1, size_bytes=2048 * MIB // part, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
