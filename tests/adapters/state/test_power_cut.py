"""Power cuts of a real file system: the store commits on a loop device whose journal is cut off without a flush.

`FS_IOC_SHUTDOWN` without a flush of the log ends the file system as a loss of power ends it: what was not made durable is
gone at the next mount. Needs root and loop devices; where they are missing this is skipped, and says so.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.errors import StoreFullError
from tests.adapters.state.store_lives import NOW, a_record, assert_whole, moved, opened

SHUTDOWN = 0x8004587D
WITHOUT_FLUSH = 2
TRIALS = 6
SIZES = {"ext4": "64M", "xfs": "320M"}
RUNS = 5
RELEASE_S = 60.0


def done(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


class Disk:
    """A file system of its own in a file, mounted through a loop device."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.image, self.mount_point = folder / "image", folder / "mount"
        self.mount_point.mkdir()
        done("truncate", "-s", SIZES[kind], str(self.image))
        done(f"mkfs.{kind}", "-q", str(self.image))
        try:
            self.mount()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"POWER CUTS NOT TRIED: no loop device can be mounted here ({error.stderr.decode().strip()})")

    def mount(self) -> None:
        done("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def cut_power(self) -> None:
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount, and wait until the system has let go of it: a copy of the mount in another namespace keeps it alive.

        Mounted again before that it would be the same file system, as dead as the cut has left it.
        """
        deadline_s = time.monotonic() + RELEASE_S
        while subprocess.run(["umount", str(self.mount_point)], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline_s, "something works in it"
            time.sleep(0.1)
        while subprocess.run(["losetup", "-j", str(self.image)], capture_output=True, check=True).stdout:
            assert time.monotonic() < deadline_s, "something keeps it"
            time.sleep(0.1)


@pytest.fixture(params=list(SIZES))
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("POWER CUTS NOT TRIED: they need root and loop devices")
    disk = Disk(tmp_path, request.param)
    yield disk
    disk.unmount()


def committing(folder: Path, speak: int) -> None:
    """Commit without end, checkpoints and new segments among it; say each commit once it is acknowledged."""
    with suppress(BaseException):
        store = RunStore(folder, segment_bytes=20_000, checkpoint_lines=12)
        store.open()
        seq = sum(record.turn for record in store)
        while True:
            seq += 1
            store.commit([moved(a_record(seq % RUNS, turn=(seq - 1) // RUNS), (seq - 1) // RUNS + 1)], at=NOW)
            os.write(speak, b"%d\n" % seq)
    os._exit(0)


def last_number(said: bytes) -> int:
    return int(said.rpartition(b"\n")[0].split()[-1])


def test_a_power_cut_loses_no_acknowledged_commit(disk: Disk) -> None:
    chance = random.Random(20260417)
    folder = disk.mount_point / "state"
    seq = 0
    for trial in range(TRIALS):
        listen, speak = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(listen)
            committing(folder, speak)
        os.close(speak)
        said = b""
        until_s = time.monotonic() + chance.uniform(0.05, 0.4)
        while said.count(b"\n") < 10 or time.monotonic() < until_s:
            said += os.read(listen, 1 << 16)
        acknowledged = last_number(said)
        disk.cut_power()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while data := os.read(listen, 1 << 16):
            said += data
        os.close(listen)
        assert acknowledged > seq
        disk.unmount()
        disk.mount()
        with opened(folder) as store:
            seq = sum(record.turn for record in store)
            # What was said before the cut must be there. Of what was said from then on the last may not: the simulated cut
            # takes a moment, in which the kernel can still call a sync done whose blocks it then forgets; after a real
            # one nobody says anything. A commit whose sync had begun may have become durable all the same.
            assert acknowledged <= seq <= last_number(said) + 1, trial
            assert store.hold is None, (trial, store.hold)
            for record in store:
                assert [move.trigger for move in store.history(record.job_id)] == [
                    f"step_{turn}" for turn in range(1, record.turn + 1)
                ]
        assert_whole(folder)


def test_a_disk_that_is_full_takes_nothing_harms_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("A FULL DISK WAS NOT TRIED: mounting a tmpfs needs root")
    done("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path))
    try:
        ballast = tmp_path / "ballast"
        ballast.write_bytes(b"x" * 600_000)
        with opened(tmp_path / "state", segment_bytes=60_000) as store:
            acknowledged = 0
            with suppress(StoreFullError):
                while acknowledged < 5000:
                    store.commit([moved(a_record(0, turn=acknowledged), acknowledged + 1)], at=NOW)
                    acknowledged += 1
            assert 50 < acknowledged < 5000
            for _ in range(3):
                with pytest.raises(StoreFullError):
                    store.commit([moved(a_record(run), 1) for run in range(1, 40)], at=NOW)
            with pytest.raises(StoreFullError):
                store.checkpoint()
            assert {record.turn for record in store} == {acknowledged}
            assert len(store.history(a_record(0).job_id)) == acknowledged
            ballast.unlink()
            store.commit([moved(a_record(run), 1) for run in range(1, 40)], at=NOW)
            store.checkpoint()
            assert len(store) == 40
        with opened(tmp_path / "state") as store:
            assert (len(store), store.hold, store.notices) == (40, None, ())
        assert_whole(tmp_path / "state")
    finally:
        done("umount", "-l", str(tmp_path))
