"""watchdog's side of watching: which observer a platform gets, which events are asked for, and what becomes of one.

Decided here: what a handler passes on. A handler only hands a path on: events are hints. Not here: when an observer is
made, judged and replaced (keeper.py), and how the one for Linux works (inotify.py).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver

from exlab_watch_agent.adapters.watching.levels import CANARY, subject_of
from exlab_watch_agent.adapters.watching.limits import Limits
from exlab_watch_agent.adapters.watching.pace import Pace

log = logging.getLogger(__name__)

OTHER_PLATFORMS_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileModifiedEvent,
]

ObserverMaker = Callable[[Callable[[str], bool], Limits, Pace], BaseObserver]
"""Returns an observer that is not started. The first argument says of a run folder that little will happen there."""


def level_observer(is_finished: Callable[[str], bool], limits: Limits, pace: Pace) -> BaseObserver:
    """Return one that watches only the levels that matter. Linux."""
    from exlab_watch_agent.adapters.watching.inotify import LevelObserver

    return LevelObserver(is_finished=is_finished, watches_max=limits.watches, pace=pace)


def plain_observer(_is_finished: Callable[[str], bool], _limits: Limits, pace: Pace) -> BaseObserver:
    """Return watchdog's own observer for this platform."""
    from watchdog.observers import Observer

    return Observer(timeout=pace.quiet_s)


make_observer: ObserverMaker = level_observer if sys.platform.startswith("linux") else plain_observer


def schedule(observer: BaseObserver, handler: FileSystemEventHandler, folder: str, *, is_recursive: bool) -> None:
    """Let a started observer watch a folder. Raises: OSError."""
    events = None if hasattr(observer, "watches_levels") else OTHER_PLATFORMS_EVENTS
    observer.schedule(handler, folder, recursive=is_recursive, event_filter=events)


def stop(observer: BaseObserver, *, wait_s: float) -> None:
    """End an observer, and wait at most this long for its threads."""
    observer.stop()
    if observer.is_alive():
        observer.join(wait_s)


def levels_of(observer: BaseObserver, name: str) -> list[Any]:
    """Return what the emitters' bookkeeping says; nothing where watchdog's own observer keeps none that can be asked."""
    levels = [getattr(emitter, "levels", None) for emitter in observer.emitters]
    return [getattr(one, name) for one in levels if one is not None]


class PathHandler(FileSystemEventHandler):
    """Passes on what events are about. It must not raise: an exception would end watchdog's dispatcher thread for good."""

    def __init__(self, root: str, on_path: Callable[[str], None], on_canary: Callable[[], None] | None) -> None:
        self._prefix = os.path.join(root, "")
        self._on_path = on_path
        self._on_canary = on_canary

    def on_any_event(self, event: FileSystemEvent) -> None:
        try:
            # Windows calls everything that was deleted a file.
            is_folder = event.is_directory or event.event_type == "deleted"
            for path in (event.dest_path, event.src_path):
                if path:
                    self._take(os.fsdecode(path), is_folder=is_folder)
        except Exception:
            log.exception("an event of %s was not passed on", self._prefix)

    def _take(self, path: str, *, is_folder: bool) -> None:
        if self._on_canary is None:
            self._on_path(path)
            return
        if not path.startswith(self._prefix):
            return
        subject = subject_of(tuple(path[len(self._prefix) :].split(os.sep)), is_folder=is_folder)
        if subject == CANARY:
            self._on_canary()
        elif subject is not None:
            self._on_path(self._prefix + os.sep.join(subject))
