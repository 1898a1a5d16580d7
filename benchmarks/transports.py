"""Whole sync through rclone and rsync against the bare tool's copy plus one hash of each side. Prints ratios of one run.

The agent's time is from its start to all runs `verified`, connections and proof included: watching is off, settling is 0 s.
The rival is one call of the bare tool for all runs and one hashlib pass over each side, the far side read on the server's
own disk, from its page cache. rsync's rival ends with `sync`, because the agent asks the server's rsync for fsync; rclone has
no such thing. For small runs the milliseconds a run that the agent needs above the rival are printed as well.

Run: python benchmarks/transports.py [--quick] [--rounds 3] [--folder DIR] [--ways rclone-local,...] [--loads small,...]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.config.load import parse_settings
from exlab_watch_agent.statechart import RunState

sys.path.insert(0, str(Path(__file__).parents[1]))
from whole_sync import MIB, hash_all, make_runs

from tests.lab.servers import (
    RCLONE,
    Place,
    RcloneRemote,
    SshServer,
    local_remote,
    running_samba,
    running_sshd,
    sftp_remote,
)


@dataclass(frozen=True)
class Load:
    """Runs to sync: so many, each of so many files. A small one is judged by its milliseconds above the rival."""

    name: str
    runs: int
    files: int
    size_bytes: int
    is_small: bool = False


LOADS = {
    "large": Load("one file of 2 GiB", 1, 1, 2048 * MIB),
    "many": Load("20,000 files of 4 KiB", 1, 20_000, 4096),
    "runs": Load("200 runs of 10 x 1 MiB", 200, 10, MIB),
    "small": Load("50 runs of 3 x 20 KiB", 50, 3, 20_480, is_small=True),
}
QUICK = {
    "large": Load("one file of 128 MiB", 1, 1, 128 * MIB),
    "many": Load("1,000 files of 4 KiB", 1, 1000, 4096),
    "runs": Load("20 runs of 10 x 1 MiB", 20, 10, MIB),
    "small": Load("10 runs of 3 x 20 KiB", 10, 3, 20_480, is_small=True),
}
RATIO_MOST = 1.2
MS_MOST = {"rclone": 65, "rsync_ssh": 150}


@dataclass(frozen=True)
class Way:
    """A transport to a server."""

    name: str
    server: RcloneRemote | SshServer

    def place(self, name: str) -> Place:
        return self.server.place(name)

    def copy_bare(self, source: Path, place: Place) -> None:
        """Copy a tree as one does by hand."""
        if isinstance(self.server, RcloneRemote):
            there = f"{self.server.name}:{place.transport['rclone_remote_path']}"
            argv = [str(RCLONE), "copy", "--config", str(self.server.config), str(source), there]
            subprocess.run(argv, check=True)
            return
        shell = (
            f"ssh -F /dev/null -T -p {self.server.port} -i {self.server.key} -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={self.server.known_hosts}"
        )
        subprocess.run(["rsync", "-rt", "-e", shell, f"{source}/", f"{self.server.target}:{place.root}/"], check=True)
        subprocess.run(["sync"], check=True)


@contextmanager
def running_ways(home: Path, names: list[str]) -> Iterator[list[Way]]:
    with ExitStack() as stack:
        sshd = stack.enter_context(running_sshd(home / "sshd"))
        found: list[Way] = []
        for name in names:
            if name == "rclone-local":
                found.append(Way(name, local_remote(home / "rclone-local")))
            elif name == "rclone-sftp":
                found.append(Way(name, sftp_remote(home / "rclone-sftp", sshd)))
            elif name == "rclone-smb":
                found.append(Way(name, stack.enter_context(running_samba(home / "smb"))))
            else:
                found.append(Way(name, sshd))
        yield found


def rival(way: Way, local: Path, place: Place) -> float:
    began = time.perf_counter()
    way.copy_bare(local / "SCOPE_01", place)
    hash_all(local)
    hash_all(place.root)
    return time.perf_counter() - began


def ours(local: Path, place: Place, state: Path) -> float:
    config = {
        "equipment": [
            {
                "id": "SCOPE_01", "local_root": str(local), "completeness_signal": "creation_json",
                "transport": dict(place.transport),
            }
        ],
        "agent": {"state_dir": str(state), "settle_seconds": 0},
        "verify": {"max_stream_bytes": 1 << 40},
    }  # fmt: skip
    agent = Agent(parse_settings(json.dumps(config), source="benchmark"), scope=Scope(is_watching=False))
    agent.open()
    try:
        began = time.perf_counter()
        agent.bind("SCOPE_01", "benchmark")
        agent.run(until_rest=True)
        spent = time.perf_counter() - began
        wrong = {record.run_path: record.last_error for record in agent.store if record.state is not RunState.VERIFIED}
        assert not wrong, wrong
    finally:
        agent.close()
    return spent


def measure(home: Path, way: Way, load: Load, *, rounds: int) -> str:
    """Run both, in turns, and return a line with the medians."""
    local = home / "local"
    make_runs(local, load.runs, load.files, load.size_bytes)
    subprocess.run(["sync"], check=True)
    ratios: list[float] = []
    above_ms: list[float] = []
    for number in range(rounds):
        times: dict[str, float] = {}
        for who in ("rival", "ours") if number % 2 else ("ours", "rival"):
            place, state = way.place(f"{who} {number}"), home / f"state {who}"
            times[who] = rival(way, local, place) if who == "rival" else ours(local, place, state)
            shutil.rmtree(place.root)
            shutil.rmtree(state, ignore_errors=True)
            subprocess.run(["sync"], check=True)
        ratios.append(times["ours"] / times["rival"])
        above_ms.append((times["ours"] - times["rival"]) / load.runs * 1000)
        print(f"  {way.name}, {load.name}: ours {times['ours']:.2f} s, rival {times['rival']:.2f} s", flush=True)
    shutil.rmtree(local)
    line = f"{way.name:13} {load.name:24} {statistics.median(ratios):6.2f}"
    if load.is_small:
        most = MS_MOST["rsync_ssh" if isinstance(way.server, SshServer) else "rclone"]
        return f"{line}   {statistics.median(above_ms):5.0f} ms a run above the rival, {most} are asked"
    return f"{line}   {RATIO_MOST} is asked"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the sizes, one round")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--ways", default="rclone-local,rclone-sftp,rsync-ssh", help="also: rclone-smb")
    parser.add_argument("--loads", default=",".join(LOADS))
    arguments = parser.parse_args()
    loads = QUICK if arguments.quick else LOADS
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    lines = []
    with tempfile.TemporaryDirectory(prefix="exlab-bench-", dir=arguments.folder) as folder:
        home = Path(folder)
        with running_ways(home, arguments.ways.split(",")) as ways:
            for way in ways:
                for name in arguments.loads.split(","):
                    lines.append(measure(home / "work", way, loads[name], rounds=rounds))
    print("\nwhole sync over (bare copy + one hash of each side), medians:")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
