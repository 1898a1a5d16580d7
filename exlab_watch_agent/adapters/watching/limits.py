"""What the kernel allows of inotify, how much of it is needed, and what to do about too little. Source: inotify(7)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.core.text import counted
from exlab_watch_agent.ports import SeenRun

FOLDER = Path("/proc/sys/fs/inotify")
WATCHES, INSTANCES, EVENTS = "max_user_watches", "max_user_instances", "max_queued_events"
WATCHES_SUGGESTED_MIN = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """All are for one user, over all programs, but the queue, which is for each instance. None: not known here."""

    watches: int | None = None
    instances: int | None = None
    events: int | None = None


def read_limits() -> Limits:
    return Limits(_number(WATCHES), _number(INSTANCES), _number(EVENTS))


def _number(name: str) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return int((FOLDER / name).read_text())
    except (OSError, ValueError):
        return None


def watches_for(seen: Iterable[SeenRun]) -> int:
    """Return how many folders are watched for these runs of one equipment: each run, its cache folder, those above."""
    runs = tuple(seen)
    projects = {run.place.project for run in runs}
    parents = {(run.place.project, run.place.parent_folder) for run in runs}
    caches = sum(run.creation_signature is not None for run in runs)
    return 2 + len(projects) + len(parents) + len(runs) + caches  # 2: the equipment's folder and its own cache folder


def more_watches(needed: int) -> str:
    """Return the command that allows at least twice what is needed, in powers of two."""
    wanted = WATCHES_SUGGESTED_MIN
    while wanted < 2 * needed:
        wanted *= 2
    return f"sysctl -w fs.inotify.{WATCHES}={wanted}"


MORE_INSTANCES = f"sysctl -w fs.inotify.{INSTANCES}=1024"


def judged(needed: int, equipment: int, limits: Limits) -> list[tuple[bool, str]]:
    """Return for `check`: is there room for so many watches, and for an instance for each equipment and the inbox?"""
    lines: list[tuple[bool, str]] = []
    if limits.watches is not None:
        text = f"file watcher: {needed} inotify watches needed, {limits.watches} allowed for this user"
        if needed <= limits.watches:
            lines.append((True, text))
        else:
            lines.append((False, f"{text}; as root: {more_watches(needed)} (and a line in /etc/sysctl.d to keep it)"))
    if limits.instances is not None and limits.instances < equipment + 1:
        text = f"file watcher: {counted(equipment + 1, 'inotify instance')} needed, {limits.instances} allowed"
        lines.append((False, f"{text}; as root: {MORE_INSTANCES} (and a line in /etc/sysctl.d to keep it)"))
    return lines
