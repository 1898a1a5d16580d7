"""The canary: a small file of our own whose coming and going must be reported by the observer of a root.

It lies in the cache folder of the equipment, never in a run. What must be true before anything is made or removed here:
the name is the canary's and nobody else's, and the folder is a real one inside the root and no link. The folder is never
made: it is there once the agent's lock is, so that nothing is written below a mount point whose disk is gone.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from exlab_watch_agent.adapters.local.durable import is_link
from exlab_watch_agent.adapters.watching.levels import CANARY_FILE
from exlab_watch_agent.core.inventory import CACHE_FOLDER

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
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
        _require_folder(os.path.join(root, CACHE_FOLDER))
        remove(root)
        os.close(os.open(path_of(root), _CREATE, 0o644))
    except OSError as error:
        if error.errno in _NOT_HERE:
            raise NoCanaryError(f"no file can be made in {root} ({error.strerror})") from error
        raise


def remove(root: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path_of(root))


def _require_folder(folder: str) -> None:
    try:
        status = os.lstat(folder)
    except FileNotFoundError as error:
        raise NoCanaryError(f"{folder} is not there yet") from error
    if is_link(status) or not stat.S_ISDIR(status.st_mode):
        raise NoCanaryError(f"{folder} is not a folder")
