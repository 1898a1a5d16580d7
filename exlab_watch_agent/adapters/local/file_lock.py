"""The lock on a file beside others' files, as every program that uses `filelock` takes it: `flock` on POSIX.

Decided here: that the file is reached by its folder's handle, so that none is made elsewhere, and who may take it: those who may
write into its folder, or this account alone. Not here: what the lock guards, and what is said while another has it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress

from filelock import FileLock, Timeout

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.durable import give
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.local.identity import identity_of

if sys.platform != "win32":
    import fcntl

_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # the open of a fifo would wait for ever
    | getattr(os, "O_NOCTTY", 0)
)
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})
_ASK_EVERY_S = 0.05
_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class LockedError(Exception):
    """Another program has the lock."""


class HeldLock:
    """A lock that was taken. It is released by `release`, or when the process ends, however that comes about."""

    def __init__(self, release: Callable[[], None], identity: tuple[int, int]) -> None:
        self._release: Callable[[], None] | None = release
        self._identity = identity

    def is_named(self, folder: Folder, name: str) -> bool:
        """Say whether this is the lock that others find under the name."""
        try:
            return identity_of(folder.lstat(name)) == self._identity
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock. May be called twice."""
        release, self._release = self._release, None
        if release is not None:
            release()


def take(
    folder: Folder, name: str, *, wait_s: float, is_ours_alone: bool = False, clock: PausingClock = SYSTEM_CLOCK
) -> HeldLock:
    """Return the lock of that name, waited for so long. Raises: LockedError, OSError, NotImplementedError.

    `is_ours_alone`: no other account is to take it, also not one that an earlier version let take it: whoever may read a lock
    file may hold it. Else it is for those who may write into the folder.
    """
    if folder.handle is None or sys.platform == "win32":
        return _taken_by_path(folder, name, wait_s, 0o600 if is_ours_alone else 0o664)
    until_s = clock.monotonic_s() + wait_s
    while True:
        lock = _tried(folder, name, is_ours_alone=is_ours_alone)
        if lock is not None:
            return lock
        if clock.monotonic_s() >= until_s:
            raise LockedError
        clock.pause(_ASK_EVERY_S)


def _taken_by_path(folder: Folder, name: str, wait_s: float, mode: int) -> HeldLock:
    # Not bound to a thread: any thread may close the agent, which releases its locks.
    lock = FileLock(folder.path_of(name), timeout=wait_s, mode=mode, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError from None
    return HeldLock(lock.release, identity_of(folder.lstat(name)))


def _tried(folder: Folder, name: str, *, is_ours_alone: bool) -> HeldLock | None:
    descriptor = _opened(folder, name, is_ours_alone=is_ours_alone)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", folder.path_of(name))
        lock = HeldLock(lambda: os.close(descriptor), identity_of(status))
        if _is_locked(descriptor) and lock.is_named(folder, name):  # one that was removed meanwhile guards nothing
            if is_ours_alone:
                with suppress(OSError):  # another account's file, or a file system without such bits
                    give(descriptor, 0o600, (os.geteuid(), os.getegid()))
            return lock
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def _opened(folder: Folder, name: str, *, is_ours_alone: bool) -> int:
    try:
        descriptor = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    except FileExistsError:
        return _opened_as_it_is(folder, name)
    if is_ours_alone:
        return descriptor
    # Whoever may write into the folder may take the lock, as whoever owns the folder can: ExLab-Wizard often runs under
    # another account than the agent, and there is nothing in this file to protect.
    around = folder.status()
    with suppress(OSError):  # a file system without such bits (vfat) refuses them, and shows the file as it shows all
        give(descriptor, 0o644 | (around.st_mode & _MAY_WRITE), (around.st_uid, around.st_gid))
    return descriptor


def _opened_as_it_is(folder: Folder, name: str) -> int:
    try:
        return folder.open(name, os.O_RDWR | _FLAGS)
    except PermissionError:
        return folder.open(name, os.O_RDONLY | _FLAGS)  # which suffices for the lock of a local disk
