"""What holds for every test: no thread and no child process outlives it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

LEAVE_S = 5.0


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + LEAVE_S
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive() and not _is_shared(t)]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads were left behind: {left}")
        time.sleep(0.01)
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        assert not children.read().split(), "a child process was left behind"


def _is_shared(thread: threading.Thread) -> bool:
    """watchdog reads inotify for the whole process on one thread that it keeps."""
    return type(thread).__name__ == "InotifyFD"
