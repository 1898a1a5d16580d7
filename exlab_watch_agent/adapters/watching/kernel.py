"""inotify's system calls and their numbers, by ctypes. Source: inotify(7), <sys/inotify.h>.

Not here: which folders are watched, and what is made of the events (inotify.py).
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x2000, 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_EXCL_UNLINK, IN_ISDIR = 0x1000000, 0x2000000, 0x4000000, 0x40000000
IN_CLOEXEC, IN_NONBLOCK = 0o2000000, 0o4000

MASK = (
    IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK
)
ROOT_MASK = MASK | IN_DELETE_SELF | IN_MOVE_SELF


class Kernel:
    """The system calls. One descriptor; `total` counts the watches of all descriptors of this process."""

    total = 0
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = int(self._libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC))
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, "inotify instance limit reached" if number == errno.EMFILE else os.strerror(number))

    def add(self, path: str, mask: int) -> int:
        """Return the number of the folder's watch. Raises: OSError."""
        number = int(self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), mask))
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, "inotify watch limit reached" if code == errno.ENOSPC else os.strerror(code))
        return number

    def remove(self, number: int) -> None:
        self._libc.inotify_rm_watch(self.descriptor, number)  # that it is gone already is not an error

    @classmethod
    def count(cls, difference: int) -> None:
        with cls._lock:
            cls.total += difference
