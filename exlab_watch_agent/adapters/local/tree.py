"""Reads run folders: what is in them, and single small files.

Decided here: what is a data file on disk, what of the cache folder travels to the NAS, and how a tree is walked with few
handles. Not here: how a folder is entered (handles.py), and whether an inventory is complete or acceptable
(core/completeness.py, core/gate.py). Nothing in this module writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from exlab_watch_agent.adapters.local.cache_signature import cache_signature
from exlab_watch_agent.adapters.local.handles import READ_FLAGS, Folder, LinkError, is_link, run_folder
from exlab_watch_agent.adapters.local.identity import entry_of, identity_of
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry, Inventory, OddEntry, OddKind
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import RootUnavailableError, RunUnreadableError

_ON_WINDOWS = os.name == "nt"

_TRASH_PREFIX = ".trash-"
_HANDLES_MAX = 32
"""How many folders in each other a walk keeps open: a process may have some hundred open files."""


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


def walk(top: Folder, *, leave_out: Callable[[str, os.stat_result], bool] = _nothing) -> Walk:
    """Return everything below a folder; no link is followed, and where `top` says so no other device entered.

    `leave_out` is asked for the entries directly in `top` only. An entry that vanishes between being listed and being
    looked at is counted and skipped: it is gone. Raises: OSError when any folder cannot be listed.
    """
    found = Walk()
    way = [_Step(top.again(to_list=True), "")]
    try:
        way[0].list_into(found, leave_out)
        while way:
            step = way[-1]
            if step.pending:
                name = step.pending.pop()
                way.append(_Step(step.folder.step(name, to_list=True), f"{step.prefix}{name}/"))
                way[-1].list_into(found)
                if len(way) > _HANDLES_MAX:
                    way[-1 - _HANDLES_MAX].let_go()
            else:
                way.pop()
                with step.folder:
                    if way:
                        way[-1].come_back_from(step)
    finally:
        for step in way:
            step.folder.close()
    return found


class _Step:
    """A folder on the way from the top to where a walk is: `pending` are the folders in it that are still to be walked."""

    __slots__ = ("folder", "identity", "pending", "prefix")

    def __init__(self, folder: Folder, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.pending: list[str] = []
        self.identity: tuple[int, int] | None = None

    def let_go(self) -> None:
        if self.identity is not None:
            return  # it was let go on the way to another folder of this depth, and nobody has come back to it yet
        self.identity = identity_of(self.folder.status())
        self.folder.close()

    def come_back_from(self, child: _Step) -> None:
        if self.identity is not None:
            self.folder = self.folder.back_from(child.folder, self.identity)
            self.identity = None

    def list_into(self, found: Walk, leave_out: Callable[[str, os.stat_result], bool] | None = None) -> None:
        folder, prefix = self.folder, self.prefix
        device = folder.device
        with folder.scan() as listing:
            for entry in listing:
                name = entry.name
                try:
                    # A Windows listing carries sizes that lag behind an open file, and no identity: ask the file itself.
                    status = folder.lstat(name) if _ON_WINDOWS else entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    found.vanished += 1
                    continue
                if leave_out is not None and leave_out(name, status):
                    continue
                path = prefix + name
                mode = status.st_mode
                if is_link(status):
                    found.odd.append(OddEntry(path, OddKind.SYMLINK))
                elif stat.S_ISREG(mode):
                    found.files.append(entry_of(path, status))
                elif not stat.S_ISDIR(mode):
                    found.odd.append(OddEntry(path, OddKind.SPECIAL))
                elif device is not None and status.st_dev != device:
                    found.odd.append(OddEntry(path, OddKind.MOUNT_POINT))
                else:
                    found.directories.append(path)
                    self.pending.append(name)


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
        with _opened(run_path) as run:
            try:
                found = walk(run, leave_out=_is_cache_folder)
            except OSError as error:
                _require_same(run_path, run)  # gone meanwhile: then that is the news
                raise RunUnreadableError(_cannot_list(run_path, error)) from error
            _require_same(run_path, run)
        return Inventory(
            files=tuple(sorted(found.files, key=_path_of)),
            directories=tuple(sorted(found.directories)),
            odd=tuple(sorted(found.odd, key=_path_of)),
        )

    def has_name(self, run_path: str, name: str) -> bool:
        try:
            with run_folder(run_path) as run:
                run.lstat(name)
        except LinkError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def has_data(self, run_path: str) -> bool:
        try:
            with run_folder(run_path) as run:
                return any(name != CACHE_FOLDER for name in run.names())
        except LinkError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def cache_files(self, run_path: str) -> tuple[FileEntry, ...]:
        with _opened(run_path) as run:
            try:
                with run.step(CACHE_FOLDER) as cache_folder:
                    found = walk(cache_folder, leave_out=_stays_home)
            except FileNotFoundError:
                return ()
            except OSError as error:
                raise RunUnreadableError(_cannot_list(run_path, error)) from error
        travelling = (entry for entry in found.files if not _is_passing(entry.path))
        return tuple(sorted((_below_cache_folder(entry) for entry in travelling), key=_path_of))

    def cache_signature(self, run_path: str) -> int:
        with _opened(run_path) as run:
            try:
                return cache_signature(run, CACHE_FOLDER)
            except OSError as error:
                raise RunUnreadableError(_cannot_list(run_path, error)) from error

    def read_small(self, run_path: str, relative_path: str, *, limit_bytes: int) -> bytes:
        if not is_inside(relative_path):
            raise RunUnreadableError(f"{relative_path!r} does not name a file inside the run {run_path}.")
        folder, _, name = relative_path.rpartition("/")
        try:
            with run_folder(run_path) as run, run.below(folder) as inside:
                descriptor = inside.open(name, READ_FLAGS)
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


def _opened(run_path: str) -> Folder:
    """Return the run folder. Raises: RootUnavailableError unless it is a real one, reached by real ones."""
    try:
        return run_folder(run_path)
    except NotADirectoryError as error:
        raise RootUnavailableError(
            f"The run folder {run_path} is not there: {error.filename} is a link or a file. Put the folder itself there."
        ) from error
    except OSError as error:
        raise RootUnavailableError(f"The run folder {run_path} is not there: {reason_with_name(error)}.") from error


def _require_same(run_path: str, run: Folder) -> None:
    """Raise RootUnavailableError unless the path still leads to this folder."""
    with _opened(run_path) as now:
        if not os.path.samestat(run.status(), now.status()):
            raise RootUnavailableError(f"The run folder {run_path} was replaced while it was being listed.")


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
