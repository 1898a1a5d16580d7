"""Sits between rsync and ssh and lets no more bytes pass than the bandwidth limit of the moment. A program of its own.

`python -I -S metered_stream.py RATE_FILE PROGRAM ARGUMENT...` starts the program with a pipe as its standard input and
hands on its own input at the rate that the file says (one double, bytes per second, infinity for none). The agent
rewrites that file while this runs, so a limit that changes in the middle of a file holds at once; rsync's own `--bwlimit`
is fixed, and to begin a file of hours again at each edge of a window would read all of it again on both sides.

What comes back does not pass through here: the program has our standard output.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
from pathlib import Path

RATE = struct.Struct("<d")
UNLIMITED = float("inf")
_PIECE_BYTES = 64 * 1024
_PIECES_PER_S = 10
_WAIT_MAX_S = 0.2


def write_rate(path: Path, bytes_per_s: float | None) -> None:
    """Say the rate. Eight bytes are written at once, so a reader never sees half of them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, RATE.pack(UNLIMITED if bytes_per_s is None else max(1.0, bytes_per_s)))
    finally:
        os.close(descriptor)


def main(rate_file: str, *command: str) -> int:
    """Return the program's exit code."""
    rate = os.open(rate_file, os.O_RDONLY)
    reading, writing = os.pipe()
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_CLOSE, writing)],
    )
    os.close(reading)
    os.close(1)  # who reads it must see its end when the program ends, not when we do
    # rsync waits for us with our input still open: so it is the program's end that ends us, not our input's.
    threading.Thread(target=_hand_on, args=(rate, writing), daemon=True).start()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _hand_on(rate: int, writing: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the program ended first, and its exit code says why
        while True:
            piece = min(_PIECE_BYTES, max(1, int(min(_rate_in(rate), 1e12) / _PIECES_PER_S)))
            data = os.read(0, piece)
            if not data:
                break
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view) :]
            _wait_for(rate, len(data))
    os.close(writing)


def _rate_in(rate: int) -> float:
    return float(RATE.unpack(os.pread(rate, RATE.size, 0))[0])


def _wait_for(rate: int, size_bytes: int) -> None:
    """Return when so many bytes have had their time, at the rates that hold meanwhile."""
    missing = float(size_bytes)
    while True:
        rate_bytes_per_s = _rate_in(rate)
        if rate_bytes_per_s == UNLIMITED or missing < 1:
            return
        wait_s = min(_WAIT_MAX_S, missing / rate_bytes_per_s)
        threading.Event().wait(wait_s)  # the adapters' clock cannot be used here: nothing of ours is imported
        missing -= wait_s * rate_bytes_per_s


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
