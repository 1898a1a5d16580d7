"""Copies files into a mounted folder: whole, durable, under names that nothing else has.

Decided here: the order temporary file, bytes, time, fsync, final name, and how many files are on their way at once. Not
here: which files (far_side.py), what an errno of the destination means (errors.py), and how a bandwidth limit is kept
(throttle.py).

Source: docs/facts.md, Replacing a file durably, and Speeds and costs: with eight files on their way an fsync for each costs
about what one `sync` at the end does; one after the other it costs two to three times that.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.digests import (
    Pulse,
    drop_cached,
)
from exlab_watch_agent.adapters.local.durable import sync_folder, temporary_name, write_all
from exlab_watch_agent.adapters.local.handles import CREATE_FLAGS, Folder
from exlab_watch_agent.adapters.local.identity import require_unchanged
from exlab_watch_agent.adapters.local.renaming import CannotRenameSoError, rename_new
from exlab_watch_agent.adapters.local.sources import Sources, unreadable
from exlab_watch_agent.adapters.transports.mounted.errors import classified
from exlab_watch_agent.adapters.transports.mounted.folders import Folders
from exlab_watch_agent.adapters.transports.mounted.throttle import Throttle
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.errors import CancelledError, FailureKind, SourceChangedError, TransportError
from exlab_watch_agent.ports import Control

T = TypeVar("T")

WORKERS = 8
PIECE_BYTES = 8 * 1024 * 1024
_SMALL_PIECE_BYTES = 128 * 1024  # must stay in the processor's cache between read and write
_LARGE_BYTES = 16 * 1024 * 1024
_WRITE_BACK_EVERY_BYTES = 32 * 1024 * 1024

_TIMES_BY_HANDLE = os.utime in os.supports_fd

# A file system without hard links says one of these (vfat EPERM, cifs EOPNOTSUPP, FUSE ENOSYS, mergerfs over two disks EXDEV).
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_EXCLUSIVE_CREATION = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
# A share that keeps no times, or lets only the owner set them, says one of these. Bytes are what is promised.
_NO_TIMES = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Order:
    """One file to copy: `entry` below the source root to a new name in `partial`, then to `final`.

    `partial`: a folder, and `final`: a file, both below the root and in one file system. `data`: the bytes to place instead of
    what the source holds (`replace` only).
    """

    entry: FileEntry
    partial: str
    final: str
    data: bytes | None = None


class FileCopier:
    """Copies the files of one push. One instance a call; its methods raise errors of errors.py only."""

    def __init__(
        self,
        source_root: str,
        control: Control,
        folders: Folders,
        *,
        workers: int = WORKERS,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self._source_root = source_root
        self._folders = folders
        self._control = control
        self._pulse = Pulse(control)
        self._has_failed = threading.Event()
        self._throttle = Throttle(control.rate_bytes_per_s, self._check, clock=clock)
        self._workers = workers
        self._one_large = threading.Lock()

    def copy_new(self, orders: Iterable[Order]) -> None:
        """Copy files to names that nothing has. Each is whole and durable before it gets its name.

        The names are durable only after `make_durable` of their folders.
        """
        with Sources(self._source_root) as sources:
            self._in_parallel(partial(self._copy_new, sources), orders)
        self._pulse.finished()

    def replace(self, orders: Iterable[Order]) -> None:
        """Copy files over what has their names. Only lines appended to a log may come while it is read."""
        with Sources(self._source_root) as sources:
            self._in_parallel(partial(self._replace, sources), orders)

    def make_durable(self) -> None:
        """Make the names in all folders durable that were touched."""
        self._in_parallel(self._make_durable, sorted(self._folders.touched))  # beside each other: entered once

    def _make_durable(self, relative: str) -> None:
        try:
            with self._folders.folder(relative) as folder:
                sync_folder(folder)
        except OSError as error:
            raise classified(error, f"Cannot make {self._folders.path(relative)!r} durable") from error

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

        workers = min(self._workers, len(waiting))
        if workers <= 1:
            work_off()
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
                for _ in range(workers):
                    pool.submit(work_off)
        if errors:
            raise errors[0]

    def _copy_new(self, sources: Sources, order: Order) -> None:
        entry = order.entry
        try:
            source = sources.open_as_listed(entry)
        except FileNotFoundError as error:
            text = f"{entry.path!r} was removed from {self._source_root} before it was copied."
            raise TransportError(FailureKind.LOCAL_FILE_VANISHED, text) from error
        try:
            self._deliver(order, lambda target: self._fill_unchanged(entry, source, target), place_new)
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

    def _replace(self, sources: Sources, order: Order) -> None:
        path, data = order.entry.path, order.data
        if data is not None:
            self._deliver(order, lambda target: self._fill_with(data, target, order.entry), Folder.move_over)
            return
        try:
            source = sources.open_now(path)
        except FileNotFoundError as error:
            raise SourceChangedError(f"{path!r} was removed before it was copied.") from error
        try:
            self._deliver(order, lambda target: self._fill_as_it_is(path, source, target), Folder.move_over)
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
            raise SourceChangedError(f"{path!r} is no longer a regular file.")
        moved = self._move(path, source, target, before.st_size)
        after = os.fstat(source)
        is_as_it_was = (moved, after.st_size, after.st_mtime_ns) == (before.st_size, before.st_size, before.st_mtime_ns)
        if not is_as_it_was and not path.endswith(".log"):
            raise SourceChangedError(f"{path!r} changed while it was being copied.")
        return before.st_mtime_ns

    def _deliver(
        self, order: Order, fill: Callable[[int], int], put: Callable[[Folder, str, Folder, str], None]
    ) -> None:
        """Make a temporary file, let `fill` write it and tell its mtime, make it durable, and `put` it under its name.

        After any error the temporary file is gone: a failed fsync is never repeated on the same file.
        """
        folder, _, name = order.final.rpartition("/")
        temporary = temporary_name("partial")
        try:
            with self._folders.folder(order.partial) as here, self._folders.folder(folder) as there:
                target = create(here, temporary)
                try:
                    try:
                        mtime_ns = fill(target)
                        settle(target, mtime_ns)
                    finally:
                        os.close(target)  # some network file systems report a full disk only here
                    if not _TIMES_BY_HANDLE:
                        _keep_time(here.path_of(temporary), mtime_ns)
                    put(here, temporary, there, name)
                except BaseException:
                    with suppress(OSError):
                        here.unlink(temporary)
                    raise
        except OSError as error:
            raise classified(error, f"Cannot write {self._folders.path(order.final)!r}") from error

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
        sendfile = getattr(os, "sendfile", None)  # Windows has none
        if sendfile is not None:
            # An error says neither which side it came from nor whether this file system knows the call: the plain
            # way, begun at the same byte, finds out both.
            with suppress(OSError):
                return int(sendfile(target, source, offset, size_bytes))
        try:
            os.lseek(source, offset, os.SEEK_SET)
            data = os.read(source, min(size_bytes, _SMALL_PIECE_BYTES))
        except OSError as error:
            raise unreadable(self._source_root, path, error) from error
        os.lseek(target, offset, os.SEEK_SET)
        write_all(target, data)
        return len(data)


def create(folder: Folder, name: str) -> int:
    """Return a descriptor for writing a file that was not there, with the permissions of the share (or the umask)."""
    return folder.open(name, CREATE_FLAGS, 0o666)


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


def place_new(here: Folder, temporary: str, there: Folder, final: str) -> None:
    """Give a whole file its final name. Raises: FileExistsError when anything has that name; it stays as it is.

    By a hard link, else a rename that replaces nothing, else in a place held by an empty file of ours (`_place_by_holding`).
    The link comes first: over SMB the server itself refuses one to a name that is taken; whether such a rename may go on, only
    this PC looks there.
    """
    if os.name == "nt":
        here.move(temporary, there, final)  # never replaces there
        return
    try:
        here.link(temporary, there, final)
    except FileExistsError:
        # A server that did it and lost its answer is asked again by the kernel, and then says that the name exists.
        if not _are_one(here, temporary, there, final):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _place_without_links(here, temporary, there, final)
        return
    here.unlink(temporary)


def _place_without_links(here: Folder, temporary: str, there: Folder, final: str) -> None:
    try:
        rename_new(here, temporary, there, final)
    except CannotRenameSoError:
        _place_by_holding(here, temporary, there, final)


def _are_one(here: Folder, temporary: str, there: Folder, final: str) -> bool:
    try:
        return os.path.samestat(here.lstat(temporary), there.lstat(final))
    except FileNotFoundError:
        return False


def _place_by_holding(here: Folder, temporary: str, there: Folder, final: str) -> None:
    """The same without a rename that replaces nothing and without hard links: an empty file holds the name, made exclusively.

    Between the last look at it and the rename somebody else could open that empty file and write into it: such a file is lost.
    A stop in between leaves it empty; the next push finds another size and moves it aside. Where nothing can be made
    exclusively either, the look and the rename are two steps.
    """
    try:
        held = create(there, final)
    except OSError as error:
        if error.errno not in _NO_EXCLUSIVE_CREATION:
            raise
        if there.has(final):
            raise _exists(there, final) from None
        here.move(temporary, there, final)
        return
    os.close(held)  # over SMB an open file cannot be replaced
    if not _is_empty_file(there, final):
        raise _exists(there, final)
    try:
        here.move(temporary, there, final)
    except OSError:
        with suppress(OSError):
            if _is_empty_file(there, final):
                there.unlink(final)
        raise


def _is_empty_file(folder: Folder, name: str) -> bool:
    status = folder.lstat(name)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _exists(folder: Folder, name: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), folder.path_of(name))


def write_whole(folder: Folder, name: str, data: bytes, *, mtime_ns: int | None = None) -> None:
    """Make a small file that was not there, whole and durable. Raises: OSError."""
    descriptor = create(folder, name)
    try:
        write_all(descriptor, data)
        settle(descriptor, mtime_ns)
    finally:
        os.close(descriptor)


@contextmanager
def removed_afterwards(folder: Folder, name: str) -> Iterator[None]:
    """Leave no temporary file behind, whatever happens."""
    try:
        yield
    finally:
        with suppress(OSError):  # it usually has its final name by now
            folder.unlink(name)
