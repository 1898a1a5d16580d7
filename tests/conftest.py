"""What holds for every test: no thread and no child process that it started outlives it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

LEAVE_S = 5.0


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before, children_before = set(threading.enumerate()), _children()  # a module's own agent is older than its tests
    yield
    deadline = time.monotonic() + LEAVE_S
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive() and not _is_shared(t)]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads were left behind: {left}")
        time.sleep(0.01)
    assert not _children() - children_before, "a child process was left behind"


def _children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        return set(children.read().split())


def _is_shared(thread: threading.Thread) -> bool:
    """watchdog reads inotify for the whole process on one thread that it keeps."""
    return type(thread).__name__ == "InotifyFD"
