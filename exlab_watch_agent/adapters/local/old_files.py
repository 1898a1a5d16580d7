"""Files whose names went to ours, looked at for a minute more: whoever opened one before may write into it after.

Decided here: how long each is looked at, how many at once (more are not watched), and when what is written into one counts as
done: two looks after each other find the same, or it is the last look. Not here: what becomes of it (creation_file.py), and how the
names changed places (exchanging.py). Such a file has no name any more; a kill of the agent within that minute lets it go unseen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK
from exlab_watch_agent.ports import Clock

WATCHED_FOR_S = 60.0
LOOK_EVERY_S = 1.0
FILES_MAX = 128
CLOSE_WAIT_S = 15.0
_BYTES_MAX = 64 << 20

TakeIn = Callable[[bytes, bool], bool]
"""Given what somebody wrote, and whether this was the last look; returns False when it is to be looked at again."""


@dataclass(slots=True)
class _OldFile:
    """`known`: what it held when nothing was to be done. `seen`, `settled`: size and mtime at the last look, and at `known`."""

    descriptor: int
    known: bytes
    take_in: TakeIn
    until_s: float
    seen: tuple[int, int] | None = None
    settled: tuple[int, int] | None = None


class OldFiles:
    """Looks at them on a thread of its own between `start` and `close`; else nothing is watched."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, look_every_s: float = LOOK_EVERY_S) -> None:
        self._clock = clock
        self._look_every_s = look_every_s
        self._changed = threading.Condition()
        self._files: list[_OldFile] = []
        self._is_watching = False
        self._thread = threading.Thread(target=self._run, name="old-files", daemon=True)

    def start(self) -> None:
        self._is_watching = True
        self._thread.start()

    def watch(self, descriptor: int, known: bytes, take_in: TakeIn) -> None:
        """Watch an open file that held `known`; the descriptor is closed here. `take_in` is called on another thread."""
        file = _OldFile(descriptor, known, take_in, self._clock.monotonic_s() + WATCHED_FOR_S)
        with self._changed:
            if not self._is_watching or len(self._files) >= FILES_MAX:
                os.close(descriptor)
                return
            self._files.append(file)
            self._changed.notify()

    def look(self) -> None:
        """Look at each once. One whose time is over is looked at for the last time."""
        now_s = self._clock.monotonic_s()
        with self._changed:
            files = list(self._files)
            self._files = [file for file in files if now_s < file.until_s and self._is_watching]
            kept = set(map(id, self._files))
        for file in files:
            _look_at(file, is_last=id(file) not in kept)

    def close(self) -> None:
        """Look at all for the last time, and let them go. May be called twice, and without a start."""
        with self._changed:
            was_watching, self._is_watching = self._is_watching, False
            self._changed.notify()
        if was_watching:
            self._thread.join(CLOSE_WAIT_S)
            if not self._thread.is_alive():  # else it still works with their descriptors
                self.look()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._files) or not self._is_watching)
                if self._is_watching:
                    self._changed.wait(self._look_every_s)
                if not self._is_watching:
                    return
            self.look()


def _look_at(file: _OldFile, *, is_last: bool) -> None:
    try:
        with suppress(OSError):  # a disk that fails says so to whoever reads the file that has the name
            status = os.fstat(file.descriptor)
            stamp = (status.st_size, status.st_mtime_ns)
            is_quiet, file.seen = stamp == file.seen, stamp
            if is_last or (is_quiet and stamp != file.settled):
                data = os.pread(file.descriptor, _BYTES_MAX, 0)
                if data == file.known or file.take_in(data, is_last):
                    file.known, file.settled = data, stamp
    finally:
        if is_last:
            os.close(file.descriptor)
