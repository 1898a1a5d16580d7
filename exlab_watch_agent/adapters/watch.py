"""watchdog behind one rule: events are hints. The handler only hands a path on; a supervisor keeps the observer alive.

Asked of the kernel are only created, moved, deleted and closed-after-writing (modified where there is no close event):
with all events, reading files alone floods the queue, and an overflow's repair can flood it again for ever.
Source: FACTS.md A1 and its last chapter.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver

from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE

log = logging.getLogger(__name__)

_IS_LINUX: bool = sys.platform.startswith("linux")

EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileClosedEvent if _IS_LINUX else FileModifiedEvent,
]

RUN_CHILD_DEPTH = 4
"""`<project>/Runs/<leaf>/<name>`: below that only `.exlab-wizard/creation.json` is of interest."""
STOP_WAIT_S = 5.0
OBSERVER_TIMEOUT_S = 0.05
"""On Windows nothing is delivered until the queue is quiet for this long; the default of a second starves us."""


def make_observer() -> BaseObserver:
    """Return an observer that is not started: on Linux one that watches only the levels that matter."""
    if _IS_LINUX:
        from exlab_watch_agent.adapters.inotify_levels import LevelObserver

        return LevelObserver(timeout=OBSERVER_TIMEOUT_S)
    from watchdog.observers import Observer

    return Observer(timeout=OBSERVER_TIMEOUT_S)


class _Handler(FileSystemEventHandler):
    """Passes paths on. It must not raise: an exception would end watchdog's dispatcher thread for good."""

    def __init__(self, root: str, on_path: Callable[[str], None], *, is_inbox: bool) -> None:
        self._prefix = os.path.join(root, "")
        self._on_path = on_path
        self._is_inbox = is_inbox

    def on_any_event(self, event: FileSystemEvent) -> None:
        for path in (event.dest_path, event.src_path):
            text = os.fsdecode(path) if path else ""
            if text and (self._is_inbox or self._is_of_interest(text)):
                self._on_path(text)

    def _is_of_interest(self, path: str) -> bool:
        if not path.startswith(self._prefix):
            return False
        parts = path[len(self._prefix) :].split(os.sep, RUN_CHILD_DEPTH + 1)
        if len(parts) <= RUN_CHILD_DEPTH:
            return True
        return parts[RUN_CHILD_DEPTH - 1 :] == [CACHE_FOLDER, CREATION_FILE]


class _Overflow(logging.Handler):
    """watchdog reports lost events to its log and to no handler: listen there."""

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_overflow = on_overflow

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._on_overflow()


class Watcher:
    """Watches each equipment's root and the inbox; replaces an observer that died and says so.

    `on_path` is called from watchdog's threads with a path that may have changed; `on_lost` when events may have been
    lost: None for all roots, else the root's key. `supervise` is called every few seconds from the engine's loop.
    """

    def __init__(
        self,
        roots: Mapping[str, str],
        inbox: Path,
        *,
        on_path: Callable[[str], None],
        on_inbox: Callable[[], None],
        on_lost: Callable[[str | None], None],
    ) -> None:
        self._roots = dict(roots)
        self._inbox = inbox
        self._on_path = on_path
        self._on_inbox = on_inbox
        self._on_lost = on_lost
        self._observer: BaseObserver | None = None
        self._missing: dict[str, str] = {}
        self._overflow = _Overflow(lambda: on_lost(None))
        self.restarts = 0

    def start(self) -> None:
        logging.getLogger("watchdog.observers").addHandler(self._overflow)
        self._begin()

    def _begin(self) -> None:
        observer = make_observer()
        observer.start()
        self._observer = observer
        self._missing = dict(self._roots)
        self._add_missing()
        handler = _Handler(str(self._inbox), lambda _: self._on_inbox(), is_inbox=True)
        observer.schedule(handler, str(self._inbox), recursive=False, event_filter=EVENTS)

    def _add_missing(self) -> list[str]:
        """Watch the roots that are there now; return those that were added."""
        added: list[str] = []
        for key, root in list(self._missing.items()):
            if not os.path.isdir(root):
                continue
            try:
                assert self._observer is not None
                handler = _Handler(root, self._on_path, is_inbox=False)
                self._observer.schedule(handler, root, recursive=True, event_filter=EVENTS)
            except OSError as error:
                log.warning("%s cannot be watched (%s): the scan alone serves it", root, error)
                continue
            del self._missing[key]
            added.append(key)
        return added

    def supervise(self) -> None:
        """Replace what died; watch roots that came (back)."""
        observer = self._observer
        if observer is None:
            return
        is_healthy = observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)
        gone = [key for key, root in self._roots.items() if key not in self._missing and not os.path.isdir(root)]
        if not is_healthy or gone:
            log.warning("the file watcher is replaced%s", f" ({', '.join(gone)} went away)" if gone else "")
            self.restarts += 1
            self._end_observer()
            self._begin()
            self._on_lost(None)
            return
        for key in self._add_missing():
            self._on_lost(key)

    @property
    def is_degraded(self) -> bool:
        """True while a root is not watched, so that only scans see it."""
        return bool(self._missing)

    def _end_observer(self) -> None:
        observer, self._observer = self._observer, None
        if observer is None:
            return
        # Stopping has hung on unmounted paths: never wait for it without a bound.
        stopper = threading.Thread(target=_stop, args=(observer,), daemon=True)
        stopper.start()
        stopper.join(STOP_WAIT_S)

    def stop(self) -> None:
        logging.getLogger("watchdog.observers").removeHandler(self._overflow)
        self._end_observer()


def _stop(observer: BaseObserver) -> None:
    observer.stop()
    if observer.is_alive():
        observer.join(STOP_WAIT_S)
