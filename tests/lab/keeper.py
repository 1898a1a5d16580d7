"""Keeps one server program: `python keeper.py PROGRAM ARGUMENT...` runs it until standard input ends, then ends it all.

Servers fork a process for each connection, and these start shells and tools. All of them are taken in by this process
(`PR_SET_CHILD_SUBREAPER`), so none is left when it ends, and none ever looks like a child of the tests. Standard input
ends when the tests say so and also when they are killed.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
BURY_EVERY_S = 1.0


def main() -> int:
    """Return 0 when told to end the server, 1 when it ended by itself."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches the whole group: the tests close our input then
        signal.signal(number, signal.SIG_IGN)
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_restore_signals)
    has_ended = os.pidfd_open(server.pid)
    while True:
        ready, _, _ = select.select([sys.stdin, has_ended], [], [], BURY_EVERY_S)
        if ready:
            break
        _bury_orphans(server.pid)
    _end_children()
    return 0 if sys.stdin in ready else 1


def _restore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _bury_orphans(server: int) -> None:
    for pid in _children():
        if pid != server:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _end_children() -> None:
    """Kill until there is none: the children of a killed child become ours."""
    while pids := _children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            for pid in pids:
                os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
