"""What one scan of an equipment's runs costs, first and unchanged, against walking the same tree by other means, in one run.

The scan walks the levels down to each run's `creation.json` and no deeper. Beside it: `os.walk` with a stat of every entry,
and watchdog's DirectorySnapshot, both over the whole tree. The page cache is warm for all.

Run: python benchmarks/scan.py [--runs 10000] [--files 20] [--folder DIR] [--quick]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.utils.dirsnapshot import DirectorySnapshot

from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget
from exlab_watch_agent.core.reconcile import Known, differences

RUNS_A_PROJECT = 500


def build(root: Path, runs: int, files: int) -> None:
    for number in range(runs):
        run = root / f"P{number // RUNS_A_PROJECT}" / "Runs" / f"Run_2026-01-01T00-00-{number:05d}"
        (run / ".exlab-wizard").mkdir(parents=True)
        (run / ".exlab-wizard" / "creation.json").write_text("{}")
        for name in range(files):
            (run / f"{name:03d}.tif").touch()


def walk_all(root: str) -> int:
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            os.lstat(os.path.join(folder, name))
            count += 1
    return count


def timed(what: str, action: Callable[[], object], reference_s: float | None = None) -> float:
    """Print the best of three in CPU and wall seconds; return the CPU seconds."""
    best_s, best_wall_s = float("inf"), float("inf")
    for _ in range(3):
        began, began_wall = time.process_time(), time.perf_counter()
        action()
        best_s = min(best_s, time.process_time() - began)
        best_wall_s = min(best_wall_s, time.perf_counter() - began_wall)
    ratio = f", {best_s / reference_s:.1f} times the unchanged scan" if reference_s else ""
    print(f"{what}: {best_s * 1000:.0f} ms of CPU, {best_wall_s * 1000:.0f} ms{ratio}")
    return best_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="200 runs: only that it runs")
    arguments = parser.parse_args()
    runs = 200 if arguments.quick else arguments.runs
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        equipment = EquipmentPolicy("SCOPE_01", "Scope", folder, MountedPathTarget("/mnt/nas"))
        root = equipment_root(equipment)
        build(Path(root), runs, arguments.files)
        scanner = DiskRunScanner()
        taken_in = {run.place.run_path: run.creation_signature for run in scanner.scan(equipment)}
        print(f"{runs} runs x {arguments.files} files")
        unchanged_s = timed("unchanged scan", lambda: differences(Known(taken_in, {}), scanner.scan(equipment)))
        timed("first scan", lambda: differences(Known({}, {}), scanner.scan(equipment)), unchanged_s)
        timed("os.walk and stat of every entry", lambda: walk_all(root), unchanged_s)
        timed("watchdog DirectorySnapshot", lambda: DirectorySnapshot(root), unchanged_s)


if __name__ == "__main__":
    main()
