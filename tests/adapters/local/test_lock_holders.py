"""Who holds a lock, as the system tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from exlab_watch_agent.adapters.local.account import account_of
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.local.lock_holders import lock_holder


def holder(path: Path, *, proc: str = "/proc") -> str:
    return lock_holder(Folder(str(path)), "a.lock", proc=proc)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_holder_is_told_by_process_program_and_account(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert holder(tmp_path) == "", "nothing is there"
    path.touch()
    assert holder(tmp_path) == "", "nobody holds it"
    with FileLock(path):
        if not holder(tmp_path):
            pytest.skip("this file system's number in /proc/locks is another than that of its files")
        program = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
        assert holder(tmp_path) == f"pid {os.getpid()} ({program}) of account {account_of(os.geteuid())}"
    assert holder(tmp_path) == ""


def test_who_waits_for_the_lock_or_is_not_seen_here_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    status = path.stat()
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [
        "nonsense",
        f"1: FLOCK  ADVISORY  WRITE 0 {where} 0 EOF",
        f"1: -> FLOCK  ADVISORY  WRITE 77 {where} 0 EOF",
        f"2: FLOCK  ADVISORY  WRITE 78 {where}9 0 EOF",
    ]
    (tmp_path / "locks").write_text("\n".join(lines))
    assert holder(tmp_path, proc=str(tmp_path)) == ""
    (tmp_path / "locks").write_text("\n".join([*lines, f"3: POSIX  ADVISORY  WRITE 79 {where} 0 EOF"]))
    assert holder(tmp_path, proc=str(tmp_path)) == "pid 79", "a process that has ended since is named by its number"
    (tmp_path / "79").mkdir()
    (tmp_path / "79" / "comm").write_bytes(b"evil\x1b[31m\n")
    assert holder(tmp_path, proc=str(tmp_path)).startswith("pid 79 (evil\\x1b[31m) of account ")
