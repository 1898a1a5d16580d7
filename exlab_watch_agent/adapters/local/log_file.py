"""The lines of a log that grows: read as they come, also when the file is rotated away, and never through a link or a pipe."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from exlab_watch_agent.adapters.local.handles import run_folder
from exlab_watch_agent.core.inventory import CACHE_FOLDER

LINE_BYTES_MAX = 64 * 1024
"""A longer line is given in parts."""
_PIECE_BYTES = 64 * 1024
# O_NONBLOCK: the open of a fifo would wait for a writer for ever.
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class LogFile:
    """One log; `open_file` returns a descriptor of the file that has its name now. Close it in the end.

    Raises, at each question: OSError where it cannot be read; a file that is not there has no lines yet.
    """

    def __init__(self, open_file: Callable[[], int]) -> None:
        self._open_file = open_file
        self._file: int | None = None
        self._begun = b""

    @classmethod
    def at(cls, path: Path) -> LogFile:
        return cls(lambda: os.open(path, _READ))

    @classmethod
    def of_run(cls, run_path: str, host: str) -> LogFile:
        """Return the log that ExLab-Wizard and the agent on this host keep in a run."""

        def open_file() -> int:
            with run_folder(run_path) as run, run.step(CACHE_FOLDER) as folder:
                return folder.open(f"wizard.{host}.log", _READ)

        return cls(open_file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def new_lines(self) -> Iterator[str]:
        """Yield the whole lines that came since the last question, those of a file that was rotated away first."""
        if self._file is not None:
            yield from self._lines()
        following = self._opened()
        if following is None:
            return
        if self._file is not None and os.path.samestat(os.fstat(self._file), os.fstat(following)):
            os.close(following)
            return
        if self._file is not None:
            yield from self._lines()  # what came while the next one was opened
            yield from self.begun()
        self.close()
        self._file = following
        yield from self._lines()

    def begun(self) -> Iterator[str]:
        """Yield the last line where it has no end yet."""
        if self._begun:
            yield _text(self._begun)
        self._begun = b""

    def _opened(self) -> int | None:
        try:
            file = self._open_file()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file

    def _lines(self) -> Iterator[str]:
        assert self._file is not None
        if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):  # emptied in place
            os.lseek(self._file, 0, os.SEEK_SET)
        while piece := os.read(self._file, _PIECE_BYTES):
            *whole, self._begun = (self._begun + piece).split(b"\n")
            yield from map(_text, whole)
            if len(self._begun) > LINE_BYTES_MAX:
                yield from self.begun()


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").removesuffix("\r")
