"""Is this a folder to keep state in: ours, and nobody else's to write in? What is in it is the store's.

Where it lies is judged as well: a folder above it that others may write lets them put another one in its place. Whether it
lies among runs or their copies: adapters/local/overlaps.py. Nothing is made or changed here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.errors import StateFolderError

_PRIVATE = 0o700


def require_private(folder: Path) -> None:
    """Return when the folder is this account's alone, and nobody else can replace it. One that is not there yet may be made.

    Raises: StateFolderError. Windows: nothing is said, the folder lies below the user's own profile by default, and its
    access lists are the administrator's.
    """
    if os.name != "posix":
        return
    with suppress(OSError):  # The caller that makes or opens it says what is wrong.
        _require_own(folder, os.stat(folder))
    for above in _folders_above(folder):
        with suppress(OSError):
            status = os.stat(above)
            if _may_be_written_by_others(status):
                raise StateFolderError(
                    f"{above} may be written by others (mode {stat.S_IMODE(status.st_mode):04o}), who could put another "
                    f"folder in the place of {folder}: give another --state-dir, or let nobody else write there."
                )


def _require_own(folder: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise StateFolderError(
            f"{folder} belongs to another user (uid {status.st_uid}): run the agent under that account, or give another "
            "--state-dir."
        )
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or mode & ~_PRIVATE & 0o777 == 0:
        return
    if _holds_other_things(folder):
        raise StateFolderError(
            f"{folder} is open to others (mode {mode:04o}) and holds other things than an agent's state: give --state-dir a "
            "folder of its own, one that is not there yet is made."
        )
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateFolderError(
            f"{folder} may be written by others (mode {mode:04o}), and what is in it decides what is "
            f"synced: look whether it is as it should be, then `chmod 700 {folder}`."
        )
    raise StateFolderError(
        f"{folder} may be read by others (mode {mode:04o}), and a state folder is for its own account alone: "
        f"`chmod 700 {folder}`, or give another --state-dir."
    )


def _holds_other_things(folder: Path) -> bool:
    layout = StateLayout(folder)
    if any(path.exists() for path in (layout.trail, *layout.slots, *layout.traces_of_use)):
        return False
    return any(name != layout.lock.name for name in os.listdir(folder))


def _may_be_written_by_others(status: os.stat_result) -> bool:
    """Return whether others may rename what is in a folder. A group of root's or the account's own is not others."""
    if status.st_mode & stat.S_ISVTX:
        return False
    has_shared_group = status.st_gid not in (0, os.getegid())
    return bool(status.st_mode & stat.S_IWOTH or (has_shared_group and status.st_mode & stat.S_IWGRP))


def _folders_above(folder: Path) -> Iterator[Path]:
    """Yield the folders above by the name that was given, and those above what that leads to."""
    given = folder.absolute()
    yield from dict.fromkeys((*given.parents, *Path(os.path.realpath(given)).parents))
