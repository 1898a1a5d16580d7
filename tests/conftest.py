"""What holds for every test: no thread and no child process that it started outlives it.

Nor does a process that such a child left behind: the tests' own process takes orphans in. Servers that serve many tests
(tests/lab/servers.py) are counted out.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab.servers import (  # noqa: F401 - fixtures for all tests
    KEEPER_PIDS,
    mounted,
    rclone_alias,
    rclone_crypt,
    rclone_ftp,
    rclone_local,
    rclone_s3,
    rclone_sftp,
    rclone_smb,
    rclone_sshd,
    rclone_sshd_without_commands,
    rclone_webdav,
    server_home,
    sshd,
    sshd_bare,
    sshd_busybox,
    sshd_ordinary_user,
    sshd_rrsync,
    sshd_sftp_only,
)

LEAVE_S = 5.0
PR_SET_CHILD_SUBREAPER = 36


def pytest_configure() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before, children_before = set(threading.enumerate()), _children()  # a module's own agent is older than its tests
    yield
    deadline = time.monotonic() + LEAVE_S
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive() and not _is_shared(t)]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads were left behind: {left}")
        time.sleep(0.01)
    while pids := _children() - children_before - KEEPER_PIDS:
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # an orphan that has ended waits for this
        if time.monotonic() > deadline:
            pytest.fail(f"child processes were left behind: {[_command(pid) for pid in pids]}")
        time.sleep(0.01)


def _children() -> set[int]:
    """Return the processes that any thread of this one started, and the orphans it took in."""
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or f"[{pid}]"
    return f"{pid}, which has just ended"


def _is_shared(thread: threading.Thread) -> bool:
    """watchdog reads inotify for the whole process on one thread that it keeps."""
    return type(thread).__name__ == "InotifyFD"
