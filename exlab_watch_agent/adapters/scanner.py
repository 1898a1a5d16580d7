"""Walks the levels of an equipment down to its runs: project, `Runs` or `TestRuns`, leaf, `creation.json`; no deeper.

What it returns is whole or it raises: a short list would make runs look deleted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from exlab_watch_agent.adapters.durable import is_link
from exlab_watch_agent.core.discovery import RunPlace, place_of
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.ports import SeenRun

RUN_FOLDERS = ("Runs", "TestRuns")


class DiskRunScanner:
    """Implements ports.RunScanner."""

    def scan(self, equipment: EquipmentPolicy) -> tuple[SeenRun, ...]:
        root = equipment_root(equipment)
        roots = {equipment.equipment_id: root}
        seen: list[SeenRun] = []
        for project in _folders(root):
            for name in RUN_FOLDERS:
                parent = os.path.join(root, project, name)
                for leaf in _folders(parent, may_be_absent=True):
                    place = place_of(os.path.join(parent, leaf), roots)
                    if place is not None:
                        seen.append(SeenRun(place, _creation_signature(place)))
        return tuple(sorted(seen, key=lambda run: run.place.run_path))

    def is_there(self, path: str) -> bool:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True


def equipment_root(equipment: EquipmentPolicy) -> str:
    """Return the folder below which the equipment's projects are."""
    return os.path.join(equipment.local_root, equipment.equipment_id)


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
        raise RootUnavailableError(
            f"{path} is not there: mount it or create it; nothing is concluded from it."
        ) from error
    except OSError as error:
        raise RootUnavailableError(
            f"{path} cannot be listed ({error.strerror}); nothing is concluded from it."
        ) from error
    yield from sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return False
    # Windows shows a junction as a folder; only its reparse tag tells.
    return os.name == "posix" or not is_link(entry.stat(follow_symlinks=False))


def _creation_signature(place: RunPlace) -> tuple[int, int, int] | None:
    cache_folder = os.path.join(place.run_path, CACHE_FOLDER)
    try:
        status = os.lstat(os.path.join(cache_folder, CREATION_FILE))
        is_linked = is_link(os.lstat(cache_folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return (0, 0, 0)
    # Something that is no regular file or cannot be asked is still looked at, so that the operator is told.
    if is_linked:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino) if stat.S_ISREG(status.st_mode) else (0, 0, 0)
