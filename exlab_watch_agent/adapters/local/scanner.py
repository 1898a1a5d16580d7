"""Walks the levels of an equipment down to its runs: project, `Runs` or `TestRuns`, leaf, `creation.json`; no deeper.

What stands elsewhere is searched for beside that (strays.py).

What it returns is whole or it raises: a short list would make runs look deleted.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath

from exlab_watch_agent.adapters.local.cache_signature import cache_signature
from exlab_watch_agent.adapters.local.handles import (
    EQUIPMENT_LEVELS,
    RUN_LEVELS,
    Folder,
    LinkError,
    folder_below,
    is_link,
    is_real_folder,
)
from exlab_watch_agent.adapters.local.identity import signature_of
from exlab_watch_agent.adapters.local.strays import strays_beside, strays_of
from exlab_watch_agent.core.discovery import RUN_PARENT_FOLDERS, RunPlace
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FileSignature
from exlab_watch_agent.core.misplaced import folder_problems
from exlab_watch_agent.core.policy import EquipmentPolicy, Policy
from exlab_watch_agent.core.reconcile import SeenRun
from exlab_watch_agent.core.snapshot import FolderProblem
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import RootUnavailableError

_UNTOLD = FileSignature(0, 0, 0)
"""What is not a regular file or cannot be asked: it is still looked at, so that the operator hears of it."""


class DiskRunScanner:
    """Implements ports.RunScanner."""

    def scan(self, equipment: EquipmentPolicy, *, with_caches: bool = False) -> tuple[SeenRun, ...]:
        root = equipment_root(equipment)
        seen: list[SeenRun] = []
        for project, name, parent in _run_parents(root):
            above = os.path.join(root, project, name)
            for leaf in _folders_in(parent):
                place = RunPlace(os.path.join(above, leaf), equipment.equipment_id, project, name, leaf)
                cache = _cache_signature(parent, leaf) if with_caches else None
                seen.append(SeenRun(place, _creation_signature(parent, leaf), cache))
        return tuple(sorted(seen, key=lambda run: run.place.run_path))

    def folders(self, equipment: EquipmentPolicy) -> Iterator[str]:
        """Yield every folder below the equipment's that a scan comes by, the run folders too. Raises: RootUnavailableError."""
        root = equipment_root(equipment)
        for project in _projects(root):
            yield os.path.join(root, project)
            for name in RUN_PARENT_FOLDERS:
                yield os.path.join(root, project, name)
        for project, name, parent in _run_parents(root):
            for leaf in _folders_in(parent):
                yield os.path.join(root, project, name, leaf)

    def misplaced(
        self, equipment: EquipmentPolicy, seen: Iterable[SeenRun], policy: Policy
    ) -> Mapping[str, FolderProblem]:
        strays = strays_of(equipment, equipment_root(equipment), seen)
        return folder_problems([*strays, *strays_beside(equipment, policy)])

    def volume(self, equipment: EquipmentPolicy) -> str:
        root = equipment_root(equipment)
        with _root_folder(root) as folder:
            try:
                status = folder.status()
                # The device number alone may be another after a reboot and the same after a new mount.
                volume_id = folder.volume_id()
            except OSError as error:
                raise _unavailable(root, error) from error
        return f"{status.st_dev:x}.{volume_id:x}.{status.st_ino:x}"

    def is_empty(self, equipment: EquipmentPolicy) -> bool:
        root = equipment_root(equipment)
        with _root_folder(root) as folder:
            try:
                # `lost+found` is the file system's own.
                return all(name.startswith(".") or name == "lost+found" for name in folder.names())
            except OSError as error:
                raise _unavailable(root, error) from error

    def free_bytes(self, equipment: EquipmentPolicy) -> int | None:
        try:
            return shutil.disk_usage(equipment_root(equipment)).free
        except OSError:
            return None

    def is_there(self, path: str) -> bool:
        above, name = os.path.split(path)
        try:
            with folder_below(above, RUN_LEVELS - 1) as folder:
                folder.lstat(name)
        except LinkError:
            return True  # where a link leads is not looked at, so that it cannot be told
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True


def equipment_root(equipment: EquipmentPolicy) -> str:
    """Return the folder below which the equipment's projects are, spelled as all paths of its runs begin."""
    return str(PurePath(equipment.local_root, equipment.equipment_id))


def _root_folder(root: str) -> Folder:
    try:
        return folder_below(root, EQUIPMENT_LEVELS)
    except OSError as error:
        raise _unavailable(root, error) from error


def _projects(root: str) -> list[str]:
    with _root_folder(root) as folder:
        return _names_of_folders(folder)


def _run_parents(root: str) -> Iterator[tuple[str, str, Folder]]:
    """Yield each `Runs` and `TestRuns` with its project; it is open until the next one is asked for.

    What is no folder, or a link, by now counts as it would have counted a moment before. Raises: RootUnavailableError.
    """
    with _root_folder(root) as folder:
        for project in _names_of_folders(folder):
            with _stepped(folder, project) as inside:
                if inside is None:
                    continue
                for name in RUN_PARENT_FOLDERS:
                    with _stepped(inside, name, to_list=True) as parent:
                        if parent is not None:
                            yield project, name, parent


@contextmanager
def _stepped(folder: Folder, name: str, *, to_list: bool = False) -> Iterator[Folder | None]:
    """Yield a folder that may be absent. Raises: RootUnavailableError when it can neither be entered nor is absent."""
    try:
        found = folder.step(name, to_list=to_list)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise _unavailable(folder.path_of(name), error) from error
    with found:
        yield found


def _names_of_folders(folder: Folder) -> list[str]:
    try:
        with folder.again(to_list=True) as listed:
            return _folders_in(listed)
    except OSError as error:
        raise _unavailable(folder.path, error) from error


def _folders_in(folder: Folder) -> list[str]:
    """Return the names of real folders in one that was opened to be listed, sorted. Raises: RootUnavailableError."""
    try:
        with folder.scan() as entries:
            return sorted(entry.name for entry in entries if is_real_folder(entry))
    except OSError as error:
        raise _unavailable(folder.path, error) from error


def _unavailable(path: str, error: OSError) -> RootUnavailableError:
    if isinstance(error, LinkError):
        return RootUnavailableError(
            f"{path} is a link, and links are not followed: let local_root name the folder that it leads to."
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RootUnavailableError(
            f"{path} is not there: mount it or create it; until then none of its runs counts as gone."
        )
    return RootUnavailableError(
        f"{path} cannot be listed ({reason(error)}): let the agent's account read it; until then none of its runs counts "
        "as gone."
    )


def _creation_signature(parent: Folder, leaf: str) -> FileSignature | None:
    # Two names at once, not step by step: thousands of runs are asked at each scan, and all that comes of it is whether the
    # run is looked at. Where a leaf is a link by now, the look refuses it.
    cache_folder = f"{leaf}/{CACHE_FOLDER}"
    try:
        status = parent.lstat(f"{cache_folder}/{CREATION_FILE}")
        is_linked = is_link(parent.lstat(cache_folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNTOLD
    if is_linked:
        return _UNTOLD
    return signature_of(status) if stat.S_ISREG(status.st_mode) else _UNTOLD


def _cache_signature(parent: Folder, leaf: str) -> int | None:
    try:
        return cache_signature(parent, f"{leaf}/{CACHE_FOLDER}")
    except OSError:
        return None  # where it can be read again, a later scan tells
