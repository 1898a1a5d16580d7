"""Walks the levels of an equipment down to its runs: project, `Runs` or `TestRuns`, leaf, `creation.json`; no deeper.

What it returns is whole or it raises: a short list would make runs look deleted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import PurePath

from exlab_watch_agent.adapters.local.durable import is_link, signature_of
from exlab_watch_agent.core.discovery import RUN_PARENT_FOLDERS, RunPlace
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FileSignature
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.reconcile import SeenRun
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import RootUnavailableError

_UNTOLD = FileSignature(0, 0, 0)
"""What is not a regular file or cannot be asked: it is still looked at, so that the operator hears of it."""


class DiskRunScanner:
    """Implements ports.RunScanner."""

    def scan(self, equipment: EquipmentPolicy) -> tuple[SeenRun, ...]:
        root = equipment_root(equipment)
        seen: list[SeenRun] = []
        for project in _folders(root):
            for name in RUN_PARENT_FOLDERS:
                parent = os.path.join(root, project, name)
                for leaf in _folders(parent, may_be_absent=True):
                    place = RunPlace(os.path.join(parent, leaf), equipment.equipment_id, project, name, leaf)
                    seen.append(SeenRun(place, _creation_signature(place)))
        return tuple(sorted(seen, key=lambda run: run.place.run_path))

    def folders(self, equipment: EquipmentPolicy) -> Iterator[str]:
        """Yield every folder below the equipment's that a scan comes by, the run folders too. Raises: RootUnavailableError."""
        root = equipment_root(equipment)
        for project in _folders(root):
            yield os.path.join(root, project)
            for name in RUN_PARENT_FOLDERS:
                parent = os.path.join(root, project, name)
                yield parent
                for leaf in _folders(parent, may_be_absent=True):
                    yield os.path.join(parent, leaf)

    def volume(self, equipment: EquipmentPolicy) -> str:
        root = equipment_root(equipment)
        try:
            status = os.lstat(root)
            # The device number alone may be another after a reboot and the same after a new mount.
            volume_id = os.statvfs(root).f_fsid if hasattr(os, "statvfs") else 0
        except OSError as error:
            raise _unavailable(root, error) from error
        return f"{status.st_dev:x}.{volume_id:x}.{status.st_ino:x}"

    def is_empty(self, equipment: EquipmentPolicy) -> bool:
        root = equipment_root(equipment)
        try:
            with os.scandir(root) as entries:
                # `lost+found` is the file system's own.
                return all(entry.name.startswith(".") or entry.name == "lost+found" for entry in entries)
        except OSError as error:
            raise _unavailable(root, error) from error

    def is_there(self, path: str) -> bool:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True


def equipment_root(equipment: EquipmentPolicy) -> str:
    """Return the folder below which the equipment's projects are, spelled as all paths of its runs begin."""
    return str(PurePath(equipment.local_root, equipment.equipment_id))


def _folders(path: str, *, may_be_absent: bool = False) -> Iterator[str]:
    """Yield the names of real folders in `path`; links are never followed. Raises: RootUnavailableError."""
    try:
        # `path` itself may be a link, which the listing would follow.
        is_linked = is_link(os.lstat(path))
        if is_linked and may_be_absent:
            return
        if is_linked:
            raise RootUnavailableError(
                f"{path} is a link, and links are not followed: let local_root name the folder that it leads to."
            )
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError) as error:
        if may_be_absent:
            return
        raise _unavailable(path, error) from error
    except OSError as error:
        raise _unavailable(path, error) from error
    yield from sorted(names)


def _unavailable(path: str, error: OSError) -> RootUnavailableError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RootUnavailableError(f"{path} is not there: mount it or create it; nothing is concluded from it.")
    return RootUnavailableError(f"{path} cannot be listed ({reason(error)}); nothing is concluded from it.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return False
    # Windows shows a junction as a folder; only its reparse tag tells.
    return os.name == "posix" or not is_link(entry.stat(follow_symlinks=False))


def _creation_signature(place: RunPlace) -> FileSignature | None:
    cache_folder = os.path.join(place.run_path, CACHE_FOLDER)
    try:
        status = os.lstat(os.path.join(cache_folder, CREATION_FILE))
        is_linked = is_link(os.lstat(cache_folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNTOLD
    if is_linked:
        return _UNTOLD
    return signature_of(status) if stat.S_ISREG(status.st_mode) else _UNTOLD
