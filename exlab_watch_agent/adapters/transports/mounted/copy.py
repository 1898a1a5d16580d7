"""Copies files into a mounted folder: whole, durable, under names that nothing else has.

Decided here: the order temporary file, bytes, time, fsync, final name; how many files are on their way at once; what
an errno of the destination means; how a bandwidth limit is kept. Not here: which files, and what a folder at the
destination means (mounted_path.py).

Source: FACTS.md (iv) "Mounted path" and "Speeds and costs": with eight files on their way an fsync for each costs
about what one `sync` at the end does; one after the other it costs three times that.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.digests import (
    Pulse,
    drop_cached,
    open_now,
    open_source,
    require_unchanged,
    unreadable,
)
from exlab_watch_agent.adapters.local.durable import fsync_folder, is_link, write_all
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import CancelledError, FailureKind, SourceChangedError, TransportError
from exlab_watch_agent.ports import Control

T = TypeVar("T")

WORKERS = 8
PIECE_BYTES = 8 * 1024 * 1024
_SMALL_PIECE_BYTES = 128 * 1024  # must stay in the processor's cache between read and write
_LEAST_PIECE_BYTES = 16 * 1024
_LARGE_BYTES = 16 * 1024 * 1024
_WRITE_BACK_EVERY_BYTES = 32 * 1024 * 1024
_PIECES_PER_S = 8
_LONGEST_WAIT_S = 0.1

_CREATE_FLAGS = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_monotonic_s = SystemClock().monotonic_s
_SENDFILE = getattr(os, "sendfile", None)
_TIMES_BY_HANDLE = os.utime in os.supports_fd

# A file system without hard links says one of these (vfat EPERM, cifs EOPNOTSUPP, FUSE ENOSYS).
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
# A share that keeps no times, or lets only the owner set them, says one of these. Bytes are what is promised.
_NO_TIMES = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})

_FULL, _AUTH, _NETWORK = FailureKind.DESTINATION_FULL, FailureKind.AUTH, FailureKind.NETWORK
_KINDS: dict[str, FailureKind] = {
    "ENOSPC": _FULL,
    "EDQUOT": _FULL,
    "EACCES": _AUTH,
    "EPERM": _AUTH,
    "EROFS": _AUTH,
    "EKEYREJECTED": _AUTH,
    "EKEYEXPIRED": _AUTH,
    "EIO": _NETWORK,
    "ESTALE": _NETWORK,
    "ENOENT": _NETWORK,
    "ENODEV": _NETWORK,
    "ENXIO": _NETWORK,
    "EREMOTEIO": _NETWORK,
    "ENOTCONN": _NETWORK,
    "ENOLINK": _NETWORK,
    "ECOMM": _NETWORK,
    "EPIPE": _NETWORK,
    "EHOSTDOWN": _NETWORK,
    "EHOSTUNREACH": _NETWORK,
    "ENETDOWN": _NETWORK,
    "ENETUNREACH": _NETWORK,
    "ENETRESET": _NETWORK,
    "ETIMEDOUT": _NETWORK,
    "ECONNRESET": _NETWORK,
    "ECONNABORTED": _NETWORK,
    "ECONNREFUSED": _NETWORK,
    "ESHUTDOWN": _NETWORK,
}
_KIND_BY_ERRNO = {getattr(errno, name): kind for name, kind in _KINDS.items() if hasattr(errno, name)}
# Windows has errors of shares that no errno stands for: bad or deleted network name, timeouts, logon failures.
_KIND_BY_WINERROR = {
    39: _FULL,
    112: _FULL,
    86: _AUTH,
    1326: _AUTH,
    1327: _AUTH,
    1331: _AUTH,
    53: _NETWORK,
    59: _NETWORK,
    64: _NETWORK,
    67: _NETWORK,
    121: _NETWORK,
    1231: _NETWORK,
    1232: _NETWORK,
}


def classified(error: OSError, doing: str) -> TransportError:
    """Return what an error of the destination means for the push. `doing` begins the sentence."""
    if isinstance(error, FileExistsError):
        text = f"{doing}: a file of that name stands there already, and it is never replaced."
        return TransportError(FailureKind.UNKNOWN, text, detail=reason_with_name(error))
    kind = _KIND_BY_WINERROR.get(getattr(error, "winerror", None) or 0)
    kind = kind or _KIND_BY_ERRNO.get(error.errno or 0, FailureKind.UNKNOWN)
    return TransportError(kind, f"{doing}: {error.strerror or error}.", detail=reason_with_name(error))


class Throttle:
    """Lets bytes pass at the rate that is in force at the moment. Shared by all threads of one copy."""

    def __init__(self, rate_bytes_per_s: Callable[[], float | None], check: Callable[[], None]) -> None:
        self._rate = rate_bytes_per_s
        self._check = check
        self._lock = threading.Lock()
        self._ahead_bytes = 0.0
        self._at_s = _monotonic_s()

    def take(self, wanted_bytes: int) -> int:
        """Return how many of the wanted bytes may be moved now, at least one; waits until some may.

        Raises: what `check` raises, asked at least every 0.1 s.
        """
        with self._lock:
            while True:
                self._check()
                rate = self._rate()
                if rate is None:
                    self._ahead_bytes = 0.0
                    return wanted_bytes
                rate = max(rate, 1.0)
                now_s = _monotonic_s()
                self._ahead_bytes = max(0.0, self._ahead_bytes - (now_s - self._at_s) * rate)
                self._at_s = now_s
                allowed_ahead = rate / _PIECES_PER_S
                # What was moved at a higher rate is not waited for at the lower one.
                self._ahead_bytes = min(self._ahead_bytes, 2 * allowed_ahead + _LEAST_PIECE_BYTES)
                if self._ahead_bytes < allowed_ahead:
                    granted = min(wanted_bytes, max(_LEAST_PIECE_BYTES, int(allowed_ahead)))
                    self._ahead_bytes += granted
                    return granted
                wait_s = (self._ahead_bytes - allowed_ahead) / rate
                threading.Event().wait(min(max(wait_s, 0.001), _LONGEST_WAIT_S))


@dataclass(frozen=True, slots=True)
class Order:
    """One file to copy: `entry` below the source root to `temporary`, then to `final`. All in one file system.

    `data`: the bytes to place instead of what the source holds (`replace` only).
    """

    entry: FileEntry
    temporary: str
    final: str
    data: bytes | None = None


class FileCopier:
    """Copies the files of one push. One instance a call; its methods raise errors of errors.py only."""

    def __init__(self, source_root: str, control: Control) -> None:
        self._source_root = source_root
        self._control = control
        self._pulse = Pulse(control)
        self._has_failed = threading.Event()
        self._throttle = Throttle(control.rate_bytes_per_s, self._check)
        self._one_large = threading.Lock()

    def copy_new(self, orders: Iterable[Order]) -> None:
        """Copy files to names that nothing has. Each is whole and durable before it gets its name.

        The names are durable only after `make_durable` of their folders.
        """
        self._in_parallel(self._copy_new, orders)
        self._pulse.finished()

    def replace(self, orders: Iterable[Order]) -> None:
        """Copy files over what has their names. Only lines appended to a log may come while it is read."""
        self._in_parallel(self._replace, orders)

    def make_durable(self, folders: Iterable[str]) -> None:
        self._in_parallel(_make_durable, folders)

    def _check(self) -> None:
        if self._has_failed.is_set() or self._control.is_cancelled():
            raise CancelledError("stopped as asked")

    def _in_parallel(self, work: Callable[[T], None], items: Iterable[T]) -> None:
        """Do the work for each item in a few threads; the first error stops all of them and is raised."""
        waiting = list(items)
        waiting.reverse()  # pop() takes from the end and is atomic
        errors: list[BaseException] = []

        def work_off() -> None:
            try:
                while True:
                    self._check()
                    try:
                        item = waiting.pop()
                    except IndexError:
                        return
                    work(item)
            except BaseException as error:  # noqa: BLE001  (raised below, in the caller's thread)
                errors.append(error)
                self._has_failed.set()

        workers = min(WORKERS, len(waiting))
        if workers <= 1:
            work_off()
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
                for _ in range(workers):
                    pool.submit(work_off)
        if errors:
            raise errors[0]

    def _copy_new(self, order: Order) -> None:
        entry = order.entry
        try:
            source = open_source(self._source_root, entry)
        except FileNotFoundError as error:
            text = f"{entry.path!r} was removed from {self._source_root} before it was copied."
            raise TransportError(FailureKind.LOCAL_FILE_VANISHED, text) from error
        try:
            _deliver(order, lambda target: self._fill_unchanged(entry, source, target), place_new)
        finally:
            os.close(source)
        self._pulse.finished_file()

    def _fill_unchanged(self, entry: FileEntry, source: int, target: int) -> int:
        """Write all bytes of a file that stays what its entry says; return its mtime."""
        # One large file after the other: disks read best in a line, and the fsync of one overlaps the next.
        with self._one_large if entry.size_bytes >= _LARGE_BYTES else nullcontext():
            moved = self._move(entry.path, source, target, entry.size_bytes)
        require_unchanged(entry, os.fstat(source))
        if moved != entry.size_bytes:
            raise SourceChangedError(f"{entry.path!r} became shorter while it was being copied.")
        return entry.mtime_ns

    def _replace(self, order: Order) -> None:
        path, data = order.entry.path, order.data
        if data is not None:
            _deliver(order, lambda target: self._fill_with(data, target, order.entry), os.replace)
            return
        try:
            source = open_now(self._source_root, path)
        except FileNotFoundError as error:
            raise SourceChangedError(f"{path!r} was removed before it was copied.") from error
        try:
            _deliver(order, lambda target: self._fill_as_it_is(path, source, target), os.replace)
        finally:
            os.close(source)

    @staticmethod
    def _fill_with(data: bytes, target: int, entry: FileEntry) -> int:
        write_all(target, data)
        return entry.mtime_ns

    def _fill_as_it_is(self, path: str, source: int, target: int) -> int:
        """Write what the file holds at this moment; return its mtime. What a log gets meanwhile comes next time."""
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode):
            raise SourceChangedError(f"{path!r} is not a regular file any more.")
        moved = self._move(path, source, target, before.st_size)
        after = os.fstat(source)
        is_as_it_was = (moved, after.st_size, after.st_mtime_ns) == (before.st_size, before.st_size, before.st_mtime_ns)
        if not is_as_it_was and not path.endswith(".log"):
            raise SourceChangedError(f"{path!r} changed while it was being copied.")
        return before.st_mtime_ns

    def _move(self, path: str, source: int, target: int, size_bytes: int) -> int:
        """Move up to `size_bytes` bytes; return how many, fewer only where the source ended before."""
        done = handed_over = 0
        while done < size_bytes:
            allowed = self._throttle.take(min(PIECE_BYTES, size_bytes - done))
            moved = self._move_piece(path, source, target, done, allowed)
            if moved == 0:
                break
            done += moved
            self._pulse.moved(moved)
            if done - handed_over >= _WRITE_BACK_EVERY_BYTES:
                # The disk begins to write while we copy on; else the fsync at the end would wait for all of it.
                drop_cached(target, handed_over, done - handed_over)
                handed_over = done
        return done

    def _move_piece(self, path: str, source: int, target: int, offset: int, size_bytes: int) -> int:
        if _SENDFILE is not None:
            # An error says neither which side it came from nor whether this file system knows the call: the plain
            # way, begun at the same byte, finds out both.
            with suppress(OSError):
                return int(_SENDFILE(target, source, offset, size_bytes))
        try:
            os.lseek(source, offset, os.SEEK_SET)
            data = os.read(source, min(size_bytes, _SMALL_PIECE_BYTES))
        except OSError as error:
            raise unreadable(self._source_root, path, error) from error
        os.lseek(target, offset, os.SEEK_SET)
        write_all(target, data)
        return len(data)


def _deliver(order: Order, fill: Callable[[int], int], put: Callable[[str, str], None]) -> None:
    """Make a temporary file, let `fill` write it and tell its mtime, make it durable, and `put` it under its name.

    After any error the temporary file is gone: a failed fsync is never repeated on the same file.
    """
    try:
        target = create(order.temporary)
        try:
            try:
                mtime_ns = fill(target)
                settle(target, mtime_ns)
            finally:
                os.close(target)  # some network file systems report a full disk only here
            if not _TIMES_BY_HANDLE:
                _keep_time(order.temporary, mtime_ns)
            put(order.temporary, order.final)
        except BaseException:
            with suppress(OSError):
                os.unlink(order.temporary)
            raise
    except OSError as error:
        raise classified(error, f"Cannot write {order.final!r}") from error


def create(path: str) -> int:
    """Return a descriptor for writing a file that was not there, with the permissions of the share (or the umask)."""
    return os.open(path, _CREATE_FLAGS, 0o666)


def settle(descriptor: int, mtime_ns: int | None = None) -> None:
    """Make the written file durable. What the page cache keeps of it serves the precheck; the verifier drops that first."""
    if mtime_ns is not None and _TIMES_BY_HANDLE:
        _keep_time(descriptor, mtime_ns)
    os.fsync(descriptor)


def _keep_time(where: int | str, mtime_ns: int) -> None:
    try:
        os.utime(where, ns=(mtime_ns, mtime_ns))
    except OSError as error:
        if error.errno not in _NO_TIMES:
            raise


def place_new(temporary: str, final: str) -> None:
    """Give a whole file its final name. Raises: FileExistsError when anything has that name; it stays as it is."""
    if os.name == "nt":
        os.rename(temporary, final)  # never replaces there
        return
    try:
        os.link(temporary, final)
    except FileExistsError:
        # A server that did it and lost its answer is asked again by the kernel, and then says that the name exists.
        if not os.path.samestat(os.lstat(temporary), os.lstat(final)):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _place_without_links(temporary, final)
        return
    os.unlink(temporary)


def _place_without_links(temporary: str, final: str) -> None:
    """The same where the file system has no hard links: there the look and the rename are two steps."""
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, "File exists", final)
    os.rename(temporary, final)


def _make_durable(folder: str) -> None:
    try:
        fsync_folder(Path(folder))
    except OSError as error:
        raise classified(error, f"Cannot make {folder!r} durable") from error


class Folders:
    """The folders below one root, each looked at once: no link is walked through, neither to read nor to write.

    `touched` are those whose names changed, and which must therefore be made durable. For one operation, one thread.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._real: set[str] = {""}
        self.touched: set[str] = set()

    def path(self, relative: str) -> str:
        return f"{self._root}/{relative}" if relative else self._root

    def is_there(self, relative: str) -> bool:
        """Say whether a real folder stands there, reached through real folders only. Raises: OSError."""
        if relative in self._real:
            return True
        if not self.is_there(relative.rpartition("/")[0]):
            return False
        try:
            status = os.lstat(self.path(relative))
        except (FileNotFoundError, NotADirectoryError):
            return False
        if is_link(status) or not stat.S_ISDIR(status.st_mode):
            return False
        self._real.add(relative)
        return True

    def make(self, relative: str) -> None:
        """Make the folder and those above it, never the root. Raises: TransportError if something else stands there."""
        if relative in self._real:
            return
        parent = relative.rpartition("/")[0]
        self.make(parent)
        try:
            os.mkdir(self.path(relative))
            self.touch(parent)
        except FileExistsError:
            if not self.is_there(relative):
                text = f"{self.path(relative)!r} is a link or a file where a folder must be: move it away, then retry."
                raise TransportError(FailureKind.UNKNOWN, text) from None
        self._real.add(relative)

    def touch(self, relative: str) -> None:
        """Note that names in this folder changed."""
        self.touched.add(relative)

    def touch_up_to_root(self, relative: str) -> None:
        """Note that this folder and all above it may have been made by a push that was stopped before they were durable."""
        while relative:
            self.touched.add(relative)
            relative = relative.rpartition("/")[0]
        self.touched.add("")
