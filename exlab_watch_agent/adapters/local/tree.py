"""Reads run folders: what is in them, and single small files.

Decided here: what is a data file on disk, what of the cache folder travels to the NAS, and how a folder is walked
without following a link. Not here: whether an inventory is complete or acceptable (core/completeness.py,
core/gate.py). Nothing in this module writes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from exlab_watch_agent.adapters.local.durable import READ_FLAGS, is_link
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry, Inventory, OddEntry, OddKind
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import RootUnavailableError, RunUnreadableError

_FOLDER_FLAGS = READ_FLAGS | getattr(os, "O_DIRECTORY", 0)
_LISTS_BY_HANDLE = os.scandir in os.supports_fd
_STEPS_BY_HANDLE = os.open in os.supports_dir_fd
_ON_WINDOWS = os.name == "nt"

_TRASH_PREFIX = ".trash-"


def is_inside(relative_path: str) -> bool:
    """Say whether a relative POSIX path can only name something below the folder it is joined to."""
    if _ON_WINDOWS and ("\\" in relative_path or ":" in relative_path):
        return False
    parts = relative_path.split("/")
    return not ("" in parts or "." in parts or ".." in parts or "\0" in relative_path)


@dataclass(slots=True)
class Walk:
    """Everything found below one folder, unsorted, paths relative to it and POSIX."""

    files: list[FileEntry] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    odd: list[OddEntry] = field(default_factory=list)
    vanished: int = 0


def _nothing(_name: str, _status: os.stat_result) -> bool:
    return False


def walk(root: str, *, leave_out: Callable[[str, os.stat_result], bool] = _nothing) -> Walk:
    """Return everything below `root`; no link is followed, `root` itself included.

    `leave_out` is asked for the entries directly in `root` only. An entry that vanishes between being listed and being
    looked at is counted and skipped: it is gone. Raises: OSError when any folder cannot be listed.
    """
    found = Walk()
    pending = [""]
    while pending:
        prefix = pending.pop()
        # No slash at the end: with one the system would follow a link that took the folder's place.
        for name, status in _entries(f"{root}/{prefix}"[:-1], found):
            if not prefix and leave_out(name, status):
                continue
            path = prefix + name
            mode = status.st_mode
            if is_link(status):
                found.odd.append(OddEntry(path, OddKind.SYMLINK))
            elif stat.S_ISREG(mode):
                found.files.append(_file_entry(path, status))
            elif stat.S_ISDIR(mode):
                found.directories.append(path)
                pending.append(path + "/")
            else:
                found.odd.append(OddEntry(path, OddKind.SPECIAL))
    return found


def _file_entry(path: str, status: os.stat_result) -> FileEntry:
    return FileEntry(
        path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
    )  # by position: this line runs once a file


def _entries(folder: str, found: Walk) -> Iterator[tuple[str, os.stat_result]]:
    with _opened(folder) as handle, os.scandir(folder if handle is None else handle) as listing:
        for entry in listing:
            try:
                # A Windows listing carries sizes that lag behind an open file, and no identity: ask the file itself.
                status = os.lstat(entry.path) if _ON_WINDOWS else entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                found.vanished += 1
                continue
            yield entry.name, status


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int | None]:
    """Yield a handle of the folder itself, never of a link's target; None where folders cannot be listed by handle."""
    if not _LISTS_BY_HANDLE:
        if is_link(os.lstat(folder)):
            raise NotADirectoryError(f"{folder} is a link")
        yield None
        return
    handle = os.open(folder, _FOLDER_FLAGS)
    try:
        yield handle
    finally:
        os.close(handle)


def open_below(root: str, relative_path: str) -> int:
    """Return a descriptor for reading one file, reached from `root` step by step without following a link.

    Whether it is a regular file is left to the caller's `fstat`. Raises: OSError (ELOOP or ENOTDIR at a link).
    """
    *folders, name = relative_path.split("/")
    if not _STEPS_BY_HANDLE:
        return _open_below_by_path(root, folders, name)
    handle = os.open(root, _FOLDER_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for folder in folders:
            step = os.open(folder, _FOLDER_FLAGS, dir_fd=handle)
            os.close(handle)
            handle = step
        return os.open(name, READ_FLAGS, dir_fd=handle)
    finally:
        os.close(handle)


def _open_below_by_path(root: str, folders: list[str], name: str) -> int:
    path = root
    for part in (*folders, name):
        path = os.path.join(path, part)
        if is_link(os.lstat(path)):
            raise NotADirectoryError(f"{path} is a link")
    return os.open(path, READ_FLAGS)


def read_at_most(descriptor: int, limit_bytes: int) -> bytes:
    """Return the first `limit_bytes` of an open file, fewer at its end."""
    pieces = []
    missing = limit_bytes
    while missing > 0 and (piece := os.read(descriptor, min(missing, 1 << 20))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


class DiskRunTree:
    """Implements ports.RunTree on a local disk."""

    def inventory(self, run_path: str) -> Inventory:
        before = _run_folder(run_path)
        try:
            found = walk(run_path, leave_out=_is_cache_folder)
        except OSError as error:
            _run_folder(run_path)  # gone meanwhile: then that is the news
            raise RunUnreadableError(_cannot_list(run_path, error)) from error
        if found.vanished and not os.path.samestat(before, _run_folder(run_path)):
            raise RootUnavailableError(f"The run folder {run_path} was replaced while it was being listed.")
        return Inventory(
            files=tuple(sorted(found.files, key=_path_of)),
            directories=tuple(sorted(found.directories)),
            odd=tuple(sorted(found.odd, key=_path_of)),
        )

    def has_name(self, run_path: str, name: str) -> bool:
        try:
            os.lstat(f"{run_path}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def cache_files(self, run_path: str) -> tuple[FileEntry, ...]:
        _run_folder(run_path)
        try:
            found = walk(f"{run_path}/{CACHE_FOLDER}", leave_out=_stays_home)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise RunUnreadableError(_cannot_list(run_path, error)) from error
        travelling = (entry for entry in found.files if not _is_passing(entry.path))
        return tuple(sorted((_below_cache_folder(entry) for entry in travelling), key=_path_of))

    def read_small(self, run_path: str, relative_path: str, *, limit_bytes: int) -> bytes:
        if not is_inside(relative_path):
            raise RunUnreadableError(f"{relative_path!r} does not name a file inside the run {run_path}.")
        try:
            descriptor = open_below(run_path, relative_path)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise RunUnreadableError(f"{relative_path!r} in {run_path} is not a regular file.")
                return read_at_most(descriptor, limit_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RunUnreadableError(
                f"Cannot read {relative_path!r} in {run_path}: {reason_with_name(error)}."
            ) from error


def _path_of(entry: FileEntry | OddEntry) -> str:
    return entry.path


def _run_folder(run_path: str) -> os.stat_result:
    """Return the run folder's own status. Raises: RootUnavailableError unless it is a real folder."""
    try:
        status = os.lstat(run_path)
    except OSError as error:
        raise RootUnavailableError(f"The run folder {run_path} is not there: {reason_with_name(error)}.") from error
    if is_link(status) or not stat.S_ISDIR(status.st_mode):
        raise RootUnavailableError(f"{run_path} is a link or a file, not a folder: put the run folder itself there.")
    return status


def _is_cache_folder(name: str, status: os.stat_result) -> bool:
    """Leave out the cache folder; a link or a special file under its name is shown, because it must not be one."""
    return (
        name == CACHE_FOLDER and not is_link(status) and (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode))
    )


def _stays_home(name: str, _status: os.stat_result) -> bool:
    """Leave out the data that a cleanup is about to remove."""
    return name.startswith(_TRASH_PREFIX)


def _is_passing(path: str) -> bool:
    """Say whether a cache file is a lock or somebody's temporary file."""
    name = path.rpartition("/")[2]
    return name.endswith(".lock") or (name.startswith(".") and name.endswith(".tmp"))


def _below_cache_folder(entry: FileEntry) -> FileEntry:
    return FileEntry(
        path=f"{CACHE_FOLDER}/{entry.path}",
        size_bytes=entry.size_bytes,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns,
        inode=entry.inode,
        device=entry.device,
    )


def _cannot_list(run_path: str, error: OSError) -> str:
    return f"A part of the run {run_path} cannot be listed now: {reason_with_name(error)}."
