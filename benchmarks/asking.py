"""How long people wait for an answer with many runs known: `status`, `problems`, `show`, beside `--version`, which only starts.

The runs are real ones on a disk, pushed by `run --once` to a mounted path; one in fifty is blocked by its name. Each command is
started as a process, with no agent at work and beside one. Prints the median of some rounds as a ratio to `--version`, and seconds.

Run: python benchmarks/asking.py [--known 5000] [--rounds 5] [--folder DIR] [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """\
equipment:
  - {{id: SCOPE_01, label: Scope, local_root: {home}/local, completeness_signal: creation_json,
     transport: {{type: mounted_path, path: {home}/nas}}}}
agent: {{state_dir: {home}/state, settle_seconds: 0.2}}
"""
BLOCKED_EVERY = 50
COMMANDS = (
    ["status"],
    ["status", "--json"],
    ["problems"],
    ["problems", "--json"],
    ["show", "Run_2026-01-01T00-00-00000"],
)


def write_run(home: Path, number: int) -> None:
    run = home / "local" / "SCOPE_01" / f"P{number // 500}" / "Runs" / f"Run_2026-01-01T00-00-{number:05d}"
    (run / ".exlab-wizard").mkdir(parents=True)
    (run / ("scan_<id>.dat" if number % BLOCKED_EVERY == 0 else "image.tif")).write_bytes(b"x" * 1000)
    creation = {
        "schema_version": "1.8", "created_at": "2026-01-01T00:00:00Z", "created_by": "bench", "level": "run",
        "run_kind": "experimental", "lims_project": {"uid": str(number)}, "paths": {"local": str(run)},
    }  # fmt: skip
    (run / ".exlab-wizard" / "creation.json").write_text(json.dumps(creation))


def agent(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "exlab_watch_agent", *words, "--config", str(home / "config.yaml")]


def waited(argv: list[str], rounds: int) -> tuple[float, int]:
    """Return the median time in seconds, and how many lines were said."""
    took, lines = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - began)
        assert done.returncode in (0, 3), done.stderr
        lines = done.stdout.count("\n")
    return statistics.median(took), lines


def ask_all(home: Path, rounds: int, which: str) -> None:
    start, _ = waited([sys.executable, "-m", "exlab_watch_agent", "--version"], rounds)
    for words in COMMANDS:
        took, lines = waited(agent(home, *words), rounds)
        print(f"{which}: {' '.join(words)}: {took / start:.1f} times --version ({took:.2f} s), {lines} lines")


def measure(home: Path, known: int, rounds: int) -> None:
    home.mkdir()
    (home / "nas").mkdir()
    (home / "config.yaml").write_text(CONFIG.format(home=home))
    for number in range(known):
        write_run(home, number)
    subprocess.run(agent(home, "bind", "--all", "--yes"), check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(agent(home, "run", "--once", "--quiet"), check=False, capture_output=True, text=True)
    print(f"{known} runs known: {done.stdout.strip()}")
    ask_all(home, rounds, "no agent")
    with subprocess.Popen(agent(home, "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        time.sleep(10)
        ask_all(home, rounds, "an agent")
        running.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="100 known runs, one round: only that it runs")
    arguments = parser.parse_args()
    known, rounds = (100, 1) if arguments.quick else (arguments.known, arguments.rounds)
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        measure(Path(folder) / "lab", known, rounds)


if __name__ == "__main__":
    main()
