"""Run under strace by test_crash_points.py: one process for every n, each of which reaches the injected call at its n-th.

strace counts the calls of each process on its own and lets the CALLS_MAX-th fail. So a process that first makes
CALLS_MAX - n calls of that kind, which do nothing, meets the failure at the n-th call of its life, and one start of
Python serves for all n. Acknowledged commits are said over a socket, which is none of the calls that fail.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.errors import AgentError, StoreFullError
from tests.adapters.state.store_lives import NOW, a_record, moved

STEPS = 5
LIVES = 2
SEGMENT_BYTES = 6000


class Point(TypedDict):
    """What one process told whose n-th call failed or killed it."""

    n: int
    said: list[str]


def idle_calls(folder: Path, call: str, count: int) -> None:
    """Make so many calls of this kind that change nothing that the store looks at."""
    file = os.open(folder / "idle", os.O_RDWR | os.O_CREAT)
    for _ in range(count):
        with suppress(OSError):
            match call:
                case "write":
                    os.write(file, b"")
                case "fsync":
                    os.fsync(file)
                case "fdatasync":
                    os.fdatasync(file)
                case "ftruncate":
                    os.ftruncate(file, 0)
                case "rename":
                    os.rename(folder / "nothing", folder / "nothing else")
                case "unlink":
                    os.unlink(folder / "nothing")
                case "mkdir":
                    os.mkdir(folder)
    os.close(file)


def live(folder: Path, say: socket.socket) -> None:
    for life in range(LIVES):
        store = RunStore(folder, segment_bytes=SEGMENT_BYTES)
        store.open()
        for number in range(life * STEPS, (life + 1) * STEPS):
            entries = [moved(a_record(run, turn=number), number + 1) for run in range(1 + 2 * (number % 2))]
            try:
                store.commit(entries, at=NOW)
            except StoreFullError:
                say.send(b"full ")
                store.commit(entries, at=NOW)  # there is room now
            say.send(b"kept ")
            if number % STEPS == 2:
                try:
                    store.checkpoint()
                except StoreFullError:
                    say.send(b"full ")
                    store.checkpoint()
        store.close()
    say.send(b"end ")


def end_of_one(base: Path, call: str, n: int, calls_max: int) -> Point:
    listen, say = socket.socketpair()
    child = os.fork()
    if child == 0:
        with suppress(AgentError):
            idle_calls(base, call, calls_max - n)
            live(base / str(n), say)
        os._exit(0)
    say.close()
    said = b""
    while data := listen.recv(1 << 16):
        said += data
    listen.close()
    os.waitpid(child, 0)
    return {"n": n, "said": said.decode().split()}


def main() -> None:
    base, call, calls_max = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    points = []
    for n in range(1, calls_max + 1):
        point = end_of_one(base, call, n, calls_max)
        points.append(point)
        if point["said"][-1:] == ["end"] and "full" not in point["said"]:
            break  # its life was over before the n-th call
    sys.stdout.write(json.dumps(points))


main()
