"""The canary: a small file of our own whose coming and going must be reported by the observer of a root.

It lies in the cache folder of the equipment, never in a run. What must be true before anything is made or removed here:
the name is the canary's and nobody else's, and the folder is a real one inside the root and no link. The folder is never
made: it is there once the agent's lock is, so that nothing is written below a mount point whose disk is gone.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from exlab_watch_agent.adapters.local.handles import CREATE_FLAGS, EQUIPMENT_LEVELS, Folder, folder_below
from exlab_watch_agent.adapters.watching.levels import CANARY_FILE
from exlab_watch_agent.core.inventory import CACHE_FOLDER

_NOT_HERE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class NoCanaryError(Exception):
    """No canary can be placed in this root, for a reason that says nothing about its events."""


def path_of(root: str) -> str:
    return os.path.join(root, CACHE_FOLDER, CANARY_FILE)


def place(root: str) -> None:
    """Make the canary; one that a killed agent left is taken away first. Raises: NoCanaryError, OSError.

    May wait for ever on a share that does not answer.
    """
    try:
        with _cache_folder(root) as folder:
            with suppress(FileNotFoundError):
                folder.unlink(CANARY_FILE)
            os.close(folder.open(CANARY_FILE, CREATE_FLAGS, 0o644))
    except OSError as error:
        if error.errno in _NOT_HERE:
            raise NoCanaryError(f"no file can be made in {root} ({error.strerror})") from error
        raise


def remove(root: str) -> None:
    """Remove the canary where there is one. Raises: OSError."""
    with suppress(FileNotFoundError), folder_below(os.path.join(root, CACHE_FOLDER), EQUIPMENT_LEVELS + 1) as folder:
        folder.unlink(CANARY_FILE)


def _cache_folder(root: str) -> Folder:
    path = os.path.join(root, CACHE_FOLDER)
    try:
        return folder_below(path, EQUIPMENT_LEVELS + 1)
    except FileNotFoundError as error:
        raise NoCanaryError(f"{path} is not there yet") from error
    except NotADirectoryError as error:
        raise NoCanaryError(f"{path} is not a folder") from error
