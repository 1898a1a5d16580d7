"""Which folders below an equipment's folder are watched, and what an event in one of them is about.

Both are the layout: `<project>/Runs/<leaf>/.exlab-wizard/creation.json`. Everything deeper is data, and data are found
by looking at the run. What is said here is said alike for every kind of observer. Nothing here reaches the disk.

`parts` are the segments of a path below the equipment's folder, which itself is `()`.
"""

from __future__ import annotations

from exlab_watch_agent.core.discovery import RUN_PARENT_FOLDERS
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CHANGE_LATER

CANARY_FILE = "watch-agent.canary"
CANARY = (CACHE_FOLDER, CANARY_FILE)
PROJECT_LEVEL, PARENT_LEVEL, RUN_LEVEL, CACHE_LEVEL = 1, 2, 3, 4

Parts = tuple[str, ...]


def is_watched(parts: Parts) -> bool:
    """Return whether the folder at `parts` is watched, given that the one above it is."""
    match len(parts):
        case 0:
            return True
        case 1:
            return parts[0] == CACHE_FOLDER or not parts[0].startswith(".")
        case 2:
            return parts[1] in RUN_PARENT_FOLDERS and parts[0] != CACHE_FOLDER
        case 3:
            return not parts[2].startswith(".")
        case 4:
            return parts[3] == CACHE_FOLDER
    return False


def subject_of(parts: Parts, *, is_folder: bool) -> Parts | None:
    """Return what an event at `parts` is about, None where it is about nothing of ours.

    That is a folder above the runs, a run folder, a file of its cache folder that others change (CHANGE_LATER), or the canary.
    Whatever happens directly in a run folder is about the run, so that a storm of files there has one subject. `is_folder` is
    asked only above the files of a run; say True where it cannot be told.
    """
    depth = len(parts)
    if parts == CANARY:
        return parts
    if not parts or parts[0] == CACHE_FOLDER or not is_watched(parts[:RUN_LEVEL]):
        return None
    if depth <= RUN_LEVEL:
        return parts if is_folder and is_watched(parts) else None
    if parts[1] not in RUN_PARENT_FOLDERS:
        return None
    if depth == CACHE_LEVEL:
        return parts[:RUN_LEVEL]
    return (
        parts
        if len(parts) == CACHE_LEVEL + 1 and parts[RUN_LEVEL] == CACHE_FOLDER and parts[-1] in CHANGE_LATER
        else None
    )
