"""Hashes files: SHA-256 of every byte, and xxh3 over sampled blocks.

Decided here: how a file is read (once, through one small reused buffer, never mapped: a mapped file that shrinks kills
the process) and when a local file counts as changed. Not here: which files to sample and where (core/sampling.py), and
what equal or different digests mean.

Source: docs/facts.md, Speeds and costs: any piece from 64 KiB to 1 MiB reads at the speed of the hash; the piece must fit
the processor's own cache together with the page it came from.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from io import FileIO

import xxhash

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.durable import READ_FLAGS
from exlab_watch_agent.adapters.local.page_cache import may_be_cached
from exlab_watch_agent.adapters.local.tree import is_inside
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.sampling import BLOCK_BYTES, sample_offsets
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import CancelledError, RunUnreadableError, SourceChangedError
from exlab_watch_agent.ports import Clock, Control, Progress

BUFFER_BYTES = 256 * 1024
_FETCH_AHEAD_BYTES = 2 * 1024 * 1024
_DROP_EVERY_BYTES = 64 * 1024 * 1024
_REPORT_EVERY_S = 0.2
# A link (ELOOP), a socket (ENXIO), or something else than a folder on the way (ENOTDIR).
_NOT_A_FILE_ANY_MORE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENOTDIR})
_FADVISE = getattr(os, "posix_fadvise", None)
_SEQUENTIAL = getattr(os, "POSIX_FADV_SEQUENTIAL", 0)
_WILLNEED = getattr(os, "POSIX_FADV_WILLNEED", 0)
_DONTNEED = getattr(os, "POSIX_FADV_DONTNEED", 0)


class Pulse:
    """Asks for cancellation at every piece and reports progress a few times a second. May be used by many threads."""

    def __init__(self, control: Control, clock: Clock | None = None) -> None:
        self._control = control
        self._monotonic_s = (clock or SystemClock()).monotonic_s
        self._lock = threading.Lock()
        self._bytes = 0
        self._files = 0
        self._report_due_s = self._monotonic_s() + _REPORT_EVERY_S

    def moved(self, size_bytes: int) -> None:
        """Count bytes. Raises: CancelledError."""
        if self._control.is_cancelled():
            raise CancelledError("stopped as asked")
        with self._lock:
            self._bytes += size_bytes
            if self._monotonic_s() >= self._report_due_s:
                self._report()

    @property
    def bytes_moved(self) -> int:
        return self._bytes

    def finished_file(self) -> None:
        with self._lock:
            self._files += 1

    def finished(self) -> None:
        with self._lock:
            self._report()

    def _report(self) -> None:
        self._report_due_s = self._monotonic_s() + _REPORT_EVERY_S
        self._control.report(Progress(bytes_done=self._bytes, files_done=self._files))


def drop_cached(descriptor: int, offset: int = 0, size_bytes: int = 0) -> None:
    """Let the next read of this range come from where the bytes are kept, as far as the platform allows.

    `size_bytes` of 0 means up to the end. Clean pages go at once; for dirty ones the writing back begins.
    """
    _advise(descriptor, offset, size_bytes, _DONTNEED)


def fetch_anew(descriptor: int) -> bool:
    """Forget what is cached of a file and begin to read its start, without waiting for it.

    Return whether it really was forgotten: then what is read next comes from where it is kept.
    """
    _advise(descriptor, 0, 0, _DONTNEED)
    if may_be_cached(descriptor, os.fstat(descriptor).st_size):
        return False
    _advise(descriptor, 0, _FETCH_AHEAD_BYTES, _WILLNEED)
    return True


def _advise(descriptor: int, offset: int, size_bytes: int, advice: int) -> None:
    if _FADVISE is not None:
        with contextlib.suppress(OSError):  # advice only: some file systems do not take it
            _FADVISE(descriptor, offset, size_bytes, advice)


def hash_descriptor(
    descriptor: int, size_bytes: int, buffer: memoryview, moved: Callable[[int], None], *, drops_behind: bool = False
) -> str:
    """Return the SHA-256 (64 lowercase hex) of an open file from its current position to its end.

    `size_bytes` is what is expected, not a limit: it only chooses the cheap way for small files. `drops_behind`:
    the bytes do not stay in the page cache once they were hashed.
    """
    hasher = _hash_small(descriptor, size_bytes, moved) if size_bytes < len(buffer) else None
    if hasher is None:
        hasher = _hash_large(descriptor, buffer, moved, drops_behind=drops_behind)
    if drops_behind:
        drop_cached(descriptor)
    return hasher.hexdigest()


def _hash_small(descriptor: int, size_bytes: int, moved: Callable[[int], None]) -> hashlib._Hash | None:
    """Return the hash of a file that one read takes whole; None (and the file rewound) if it did not."""
    data = os.read(descriptor, size_bytes + 1)
    if len(data) != size_bytes:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return None
    moved(size_bytes)
    return hashlib.sha256(data)


def _hash_large(
    descriptor: int, buffer: memoryview, moved: Callable[[int], None], *, drops_behind: bool
) -> hashlib._Hash:
    _advise(descriptor, 0, 0, _SEQUENTIAL)
    hasher = hashlib.sha256()
    done = dropped = 0
    with FileIO(descriptor, closefd=False) as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
            moved(size)
            done += size
            if drops_behind and done - dropped >= _DROP_EVERY_BYTES:
                drop_cached(descriptor, dropped, done - dropped)
                dropped = done
    return hasher


def sample_descriptor(descriptor: int, size_bytes: int) -> str:
    """Return xxh3_128 (32 lowercase hex) over the blocks that `sample_offsets(size_bytes)` names.

    A file that ends before gives another digest: what is not there is left out.
    """
    hasher = xxhash.xxh3_128()
    for offset in sample_offsets(size_bytes):
        os.lseek(descriptor, offset, os.SEEK_SET)
        wanted = min(BLOCK_BYTES, size_bytes - offset)
        while wanted > 0 and (piece := os.read(descriptor, wanted)):
            hasher.update(piece)
            wanted -= len(piece)
    return hasher.hexdigest()


def new_buffer() -> memoryview:
    return memoryview(bytearray(BUFFER_BYTES))


def require_unchanged(entry: FileEntry, status: os.stat_result) -> None:
    """Raise SourceChangedError unless the open file is the entry's; members of the entry that are 0 are not known."""
    if (
        status.st_size != entry.size_bytes
        or status.st_mtime_ns != entry.mtime_ns
        or (entry.ctime_ns and status.st_ctime_ns != entry.ctime_ns)
        or (entry.inode and status.st_ino != entry.inode)
        or (entry.device and status.st_dev != entry.device)
        or not stat.S_ISREG(status.st_mode)
    ):
        raise SourceChangedError(f"{entry.path!r} changed while it was being worked on.")


def unreadable(root: str, path: str, error: OSError) -> RunUnreadableError:
    """Return the error for a local file that is there and cannot be read now: a wait, whatever the reason_with_name."""
    return RunUnreadableError(f"Cannot read {path!r} in {root}: {reason_with_name(error)}.")


def open_source(root: str, entry: FileEntry) -> int:
    """Return a descriptor of a local file that is what its entry says.

    Raises: FileNotFoundError (what that means is the caller's to say), SourceChangedError, RunUnreadableError.
    """
    descriptor = open_now(root, entry.path)
    try:
        require_unchanged(entry, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_now(root: str, path: str) -> int:
    """Return a descriptor of a local file as it is now, whether or not it is still a regular one. Raises as above."""
    if not is_inside(path):
        raise RunUnreadableError(f"{path!r} does not name a file inside the run {root}.")
    try:
        return os.open(f"{root}/{path}", READ_FLAGS)
    except FileNotFoundError:
        if not os.path.isdir(root):  # a root that went away is not a run whose files were deleted
            raise RunUnreadableError(f"The run folder {root} is no longer there.") from None
        raise
    except OSError as error:
        if error.errno in _NOT_A_FILE_ANY_MORE:
            raise SourceChangedError(f"{path!r} is no longer a regular file.") from error
        raise unreadable(root, path, error) from error


class LocalDigester:
    """Implements ports.Digester on a local disk."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    def digests(self, root: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str]:
        buffer = new_buffer()
        pulse = Pulse(control, self._clock)
        found = {}
        for entry in files:
            try:
                descriptor = open_source(root, entry)
            except FileNotFoundError:
                continue
            try:
                found[entry.path] = hash_descriptor(descriptor, entry.size_bytes, buffer, pulse.moved)
                require_unchanged(entry, os.fstat(descriptor))
            except OSError as error:
                raise unreadable(root, entry.path, error) from error
            finally:
                os.close(descriptor)
            pulse.finished_file()
        pulse.finished()
        return found

    def samples(self, root: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str]:
        pulse = Pulse(control, self._clock)
        found = {}
        for entry in files:
            pulse.moved(0)
            try:
                descriptor = open_source(root, entry)
            except FileNotFoundError:
                continue
            try:
                found[entry.path] = sample_descriptor(descriptor, entry.size_bytes)
                require_unchanged(entry, os.fstat(descriptor))
            except OSError as error:
                raise unreadable(root, entry.path, error) from error
            finally:
                os.close(descriptor)
        return found
