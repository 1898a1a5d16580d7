"""Is this a folder to keep state in: ours, and nobody else's to write in? What is in it is the store's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from exlab_watch_agent.errors import StateFolderError

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def require_private(folder: Path) -> None:
    """Return when nobody else can have written in the folder. One that is not there yet is made private later.

    Raises: StateFolderError. Windows: nothing is said, the folder lies below the user's own profile by default, and its
    access lists are the administrator's.
    """
    if os.name != "posix":
        return
    try:
        status = os.stat(folder)
    except OSError:
        return  # The caller that makes or opens it says what is wrong.
    if status.st_uid != os.geteuid():
        raise StateFolderError(
            f"{folder} belongs to another user (uid {status.st_uid}): run the agent under that account, or give another "
            "--state-dir."
        )
    if stat.S_ISDIR(status.st_mode) and status.st_mode & _OTHERS_MAY_WRITE:
        raise StateFolderError(
            f"{folder} may be written by others (mode {stat.S_IMODE(status.st_mode):04o}), and what is in it decides what is "
            f"synced: look whether it is as it should be, then `chmod 700 {folder}`."
        )
