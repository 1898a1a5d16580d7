"""Verify's hashing of both sides at once against hashlib alone on the same two cores, as a ratio of throughputs.

Run: python benchmarks/verify.py [--rounds 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from whole_sync import MIB, write_file

from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.transports.mounted.transport import MountedPathTransport
from exlab_watch_agent.ports import Control


def hashlib_alone(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        hasher = hashlib.sha256()
        buffer = bytearray(256 * 1024)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(memoryview(buffer)[:count])


def both(one: Callable[[], object], other: Callable[[], object]) -> float:
    with ThreadPoolExecutor(2) as pool:
        began = time.perf_counter()
        for future in (pool.submit(one), pool.submit(other)):
            future.result()
        return time.perf_counter() - began


def measure(home: Path, name: str, *, files: int, size_bytes: int, rounds: int) -> None:
    local, nas = home / "local", home / "nas"
    local.mkdir()
    for number in range(files):
        write_file(local / f"{number:05d}.bin", size_bytes)
    shutil.copytree(local, nas / "run")
    inventory = DiskRunTree().inventory(str(local))
    transport = MountedPathTransport(str(nas))
    paths = [entry.path for entry in inventory.files]
    ratios: list[float] = []
    times: dict[str, float] = {}

    def rival() -> None:
        times["rival"] = both(lambda: hashlib_alone(local), lambda: hashlib_alone(nas / "run"))

    def ours() -> None:
        times["ours"] = both(
            lambda: LocalDigester().digests(str(local), inventory.files, control=Control()),
            lambda: transport.read_back("run", paths, control=Control()),
        )

    for number in range(rounds):
        for measured in (ours, rival) if number % 2 else (rival, ours):
            measured()
        ratios.append(times["rival"] / times["ours"])
    print(f"{name}: {100 * statistics.median(ratios):.0f} % of hashlib on both cores (95 % is asked)")
    shutil.rmtree(local)
    shutil.rmtree(nas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        measure(Path(folder), "one 1 GiB file", files=1, size_bytes=1024 * MIB, rounds=arguments.rounds)
        measure(Path(folder), "500 files of 1 MiB", files=500, size_bytes=MIB, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
