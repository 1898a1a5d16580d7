"""Folders by handle, reached step by step: no link is followed below `local_root`, and no path is too long.

Decided here: how a folder is entered. The agent often has more rights than the account of the instrument, which may put a
link in the place of any folder of a run at any moment; a path would be resolved anew by each call, a handle stays what it
was. Not here: what is read or written in a folder (durable.py), and how a whole tree is walked (tree.py).

The part of a path that the config names may lead through links; the names below it may not. A run's path ends with four of
them: equipment, project, `Runs` or `TestRuns`, leaf. From the run on everything is on the run's own device.

Windows opens nothing by the handle of a folder. There each step looks at the name and goes on by path: a name that is
swapped between the look and the use is followed. Nobody has tried that way on Windows; it is only run on other systems.

Source: docs/facts.md, Folders by handle.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Self

from exlab_watch_agent.adapters.local.identity import identity_of

RUN_LEVELS = 4
"""How many names of a run's path are below `local_root`."""
EQUIPMENT_LEVELS = 1

_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
# O_NONBLOCK: the open of a fifo would wait for a writer for ever. O_NOCTTY: nothing we open may become our terminal.
READ_FLAGS = os.O_RDONLY | _BINARY | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""With these every file is opened that is only read."""
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _NOFOLLOW
"""With these a file is made that was not there."""
_LIST_FLAGS = os.O_RDONLY | _DIRECTORY | _NOFOLLOW
# O_PATH asks for no right to list a folder that is only passed, as a path does not either.
_PASS_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | _DIRECTORY | _NOFOLLOW
_BY_HANDLE = {os.open, os.stat, os.mkdir, os.unlink, os.rename} <= os.supports_dir_fd and os.scandir in os.supports_fd

_LINK_TAGS = frozenset({0xA000000C, 0xA0000003})
"""Reparse tags of Windows: symbolic link; mount point, which a junction also is."""
_NOT_A_FOLDER = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EMLINK})
_CLOSED = -1


class LinkError(NotADirectoryError):
    """A link is where a folder must be."""


class OtherDeviceError(OSError):
    """Another disk is mounted where a folder must be."""


def is_link(status: os.stat_result) -> bool:
    """Return whether this `lstat` is of a symbolic link or a Windows junction: a name that leads to another place.

    Windows also marks other things with a reparse tag: files of a deduplicated volume, files that a cloud or a compressed
    image holds. These are the file itself, read by its name like any other; refused as links, whole runs would stay behind.
    Source: Microsoft, [MS-FSCC] 2.1.2.1.
    """
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) in _LINK_TAGS


def is_real_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a folder with a name that may be a run's or of one above: no link, and not hidden."""
    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return False
    # Windows shows a junction as a folder; only its reparse tag tells.
    return os.name == "posix" or not is_link(entry.stat(follow_symlinks=False))


class Folder:
    """One folder that is open. The names in it are handled through its handle; its path is there for messages.

    Without a handle (by the constructor) it is a name for a path, and each call goes that path. `device`: on which each
    step from here must stay, None for any. Methods raise OSError, with the whole path as its file name.
    """

    __slots__ = ("_below", "device", "handle", "path")

    def __init__(self, path: str, handle: int | None = None, *, device: int | None = None) -> None:
        self.path = path
        self.handle = handle
        self.device = device
        self._below: dict[str, int] = {} if handle is None else {"dir_fd": handle}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle; whatever is asked afterwards fails. May be called twice."""
        if self.handle is not None and self.handle != _CLOSED:
            handle, self.handle = self.handle, _CLOSED
            self._below = {"dir_fd": _CLOSED}
            os.close(handle)

    # --- folders -----------------------------------------------------------------------------------------------------

    def step(self, name: str, *, to_list: bool = False) -> Folder:
        """Return the folder of that name in this one, to be closed by the caller. `to_list`: its names are asked for next.

        Raises: LinkError, OtherDeviceError, other OSErrors.
        """
        path = self.path_of(name)
        if self.handle is None:
            return self._step_by_path(path)
        try:
            handle = os.open(name, _LIST_FLAGS if to_list else _PASS_FLAGS, dir_fd=self.handle)
        except OSError as error:
            raise self._said(error, name, path) from error
        if self.device is not None and os.fstat(handle).st_dev != self.device:
            os.close(handle)
            raise _other_device(path)
        return Folder(path, handle, device=self.device)

    def _step_by_path(self, path: str) -> Folder:
        status = os.lstat(path)
        if is_link(status):
            raise _link(path)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if self.device is not None and status.st_dev != self.device:
            raise _other_device(path)
        return Folder(path, device=self.device)

    def _said(self, error: OSError, name: str, path: str) -> OSError:
        """Return the error with the whole path, and as a LinkError where a link is the reason."""
        if error.errno in _NOT_A_FOLDER:
            with suppress(OSError):
                if is_link(self.lstat(name)):
                    return _link(path)
        error.filename = path
        return error

    def below(self, relative: str, *, to_list: bool = False) -> Folder:
        """Return the folder at a POSIX path below this one, itself for an empty path: another one, closed by the caller."""
        folder = self.again()
        for name in relative.split("/") if relative else ():
            with folder:
                folder = folder.step(name)
        if not to_list:
            return folder
        with folder:
            return folder.again(to_list=True)

    def again(self, *, to_list: bool = False) -> Folder:
        """Return the same folder with a handle of its own, to be closed by the caller."""
        if self.handle is None:
            return Folder(self.path, device=self.device)
        handle = self.open_itself() if to_list else os.dup(self.handle)
        return Folder(self.path, handle, device=self.device)

    def open_itself(self) -> int:
        """Return a descriptor of this folder by which its names can be listed and made durable."""
        if self.handle is None:
            return os.open(self.path, os.O_RDONLY | _DIRECTORY)
        return os.open(".", _LIST_FLAGS, dir_fd=self.handle)

    def back_from(self, child: Folder, identity: tuple[int, int]) -> Folder:
        """Return this folder, whose handle was closed, opened anew by way of a folder in it.

        Raises: OSError when the child was moved to another folder meanwhile.
        """
        if child.handle is None:
            return Folder(self.path, device=self.device)
        handle = os.open("..", _LIST_FLAGS, dir_fd=child.handle)
        if identity_of(os.fstat(handle)) != identity:
            os.close(handle)
            raise OSError(errno.ESTALE, "the folder was moved while it was being listed", child.path)
        return Folder(self.path, handle, device=self.device)

    # --- names -------------------------------------------------------------------------------------------------------

    def path_of(self, name: str) -> str:
        return f"{self.path}{os.sep}{name}"  # not os.path.join: this runs for each folder of a walk

    def _at(self, name: str) -> str:
        return name if self._below else self.path_of(name)

    def status(self) -> os.stat_result:
        return os.stat(self.path) if self.handle is None else os.fstat(self.handle)

    def volume_id(self) -> int:
        """Return the number by which the system knows the file system, 0 where it has none."""
        if not hasattr(os, "statvfs"):
            return 0
        if self.handle is None:
            return os.statvfs(self.path).f_fsid
        descriptor = self.open_itself()  # an older kernel does not say it of a handle that only passes
        try:
            return os.fstatvfs(descriptor).f_fsid
        finally:
            os.close(descriptor)

    def lstat(self, name: str) -> os.stat_result:
        return os.lstat(self._at(name), **self._below)

    def has(self, name: str) -> bool:
        """Say whether anything at all has this name, a link itself included."""
        try:
            self.lstat(name)
        except (OSError, ValueError):
            return False
        return True

    def names(self) -> list[str]:
        if self.handle is None:
            return os.listdir(self.path)
        with self.again(to_list=True) as folder:
            return os.listdir(folder._listed)

    def scan(self) -> os._ScandirIterator[str]:
        """Return what `os.scandir` does. For a folder that was opened to be listed."""
        return os.scandir(self._listed)

    @property
    def _listed(self) -> str | int:
        return self.path if self.handle is None else self.handle

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Return a descriptor; with the flags above no link is followed."""
        try:
            return os.open(self._at(name), flags, mode, **self._below)
        except OSError as error:
            error.filename = self.path_of(name)
            raise

    def mkdir(self, name: str, mode: int = 0o777) -> None:
        os.mkdir(self._at(name), mode, **self._below)

    def unlink(self, name: str) -> None:
        os.unlink(self._at(name), **self._below)

    def rmdir(self, name: str) -> None:
        os.rmdir(self._at(name), **self._below)

    def replace(self, source: str, target: str) -> None:
        """Rename within this folder over whatever has the name."""
        os.replace(self._at(source), self._at(target), **self._from_to(self))

    def move(self, source: str, there: Folder, target: str) -> None:
        """Rename to another folder over whatever has the name there (nothing may, on Windows)."""
        os.rename(self._at(source), there._at(target), **self._from_to(there))

    def move_over(self, source: str, there: Folder, target: str) -> None:
        """Rename to another folder over whatever has the name there."""
        os.replace(self._at(source), there._at(target), **self._from_to(there))

    def link(self, source: str, there: Folder, target: str) -> None:
        """Give a file of this folder another name, which nothing may have."""
        os.link(self._at(source), there._at(target), **self._from_to(there), follow_symlinks=not self._below)

    def _from_to(self, there: Folder) -> dict[str, int]:
        """Both folders are by handle, or both by path."""
        if self.handle is None or there.handle is None:
            return {}
        return {"src_dir_fd": self.handle, "dst_dir_fd": there.handle}


def _link(path: str) -> LinkError:
    return LinkError(errno.ENOTDIR, "it is a link, which is not followed", path)


def _other_device(path: str) -> OtherDeviceError:
    return OtherDeviceError(errno.EXDEV, "another disk is mounted there", path)


# --- ways in ---------------------------------------------------------------------------------------------------------


def folder_at(path: str) -> Folder:
    """Return the folder to which a path leads, links followed. Raises: OSError."""
    if not _BY_HANDLE:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return Folder(path)
    return Folder(path, os.open(path, _PASS_FLAGS & ~_NOFOLLOW))


def folder_below(path: str, levels: int) -> Folder:
    """Return the folder at a path of which the last so many names are entered step by step. Raises: OSError."""
    anchor, names = _split(path, levels)
    folder = folder_at(anchor)
    for name in names:
        with folder:
            folder = folder.step(name)
    return folder


def run_folder(run_path: str) -> Folder:
    """Return a run's own folder; each step from it stays on its device. Raises: OSError."""
    folder = folder_below(run_path, RUN_LEVELS)
    folder.device = folder.status().st_dev
    return folder


def statuses_below(path: str, levels: int) -> list[os.stat_result]:
    """Return the status of each of these folders, the uppermost first, as far as they can be entered."""
    anchor, names = _split(path, levels)
    found = []
    with suppress(OSError):
        folder = folder_at(anchor)
        for name in names:
            with folder:
                folder = folder.step(name)
            found.append(folder.status())
        folder.close()
    return found


def _split(path: str, levels: int) -> tuple[str, list[str]]:
    """Return what comes before the last so many names of a path, and these."""
    names: list[str] = []
    while len(names) < levels:
        above, name = os.path.split(path)
        if not name and above != path:  # a separator at the end
            path = above
        elif not name:
            break
        else:
            names.append(name)
            path = above
    return path or ".", names[::-1]
