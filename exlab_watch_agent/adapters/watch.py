"""watchdog behind one rule: events are hints. The handler only hands a path on; a supervisor keeps the observer alive.

Asked of the kernel are only created, moved, deleted and closed-after-writing (modified where there is no close event):
with all events, reading files alone floods the queue, and an overflow's repair can flood it again for ever.
Source: FACTS.md A1 and its last chapter.
"""

from __future__ import annotations

import logging
import os
import stat
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

from exlab_watch_agent.adapters.durable import is_link
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

_INBOX = "inbox"  # No equipment id: those are upper case.
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
                try:
                    self._on_path(text)
                except Exception:
                    log.exception("an event of %s was not passed on", text)

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
        try:
            if "overflow" in record.getMessage().lower():
                self._on_overflow()
        except Exception:  # noqa: BLE001  # it would end the thread that reads inotify
            self.handleError(record)


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
        # Key → identity of the folder that is watched: a watch follows a folder that is renamed or mounted over.
        self._watched: dict[str, tuple[int, int]] = {}
        self._said: dict[str, str] = {}
        self._is_started = False
        self._has_overflowed = threading.Event()
        self._overflow = _Overflow(self._on_overflow)
        self.restarts = 0

    def start(self) -> None:
        logging.getLogger("watchdog.observers").addHandler(self._overflow)
        self._is_started = True
        self._begin()

    def _on_overflow(self) -> None:
        self._has_overflowed.set()
        self._on_lost(None)

    def _begin(self) -> bool:
        """Start an observer over all that is there; return whether there is one."""
        self._watched = {}
        try:
            observer = make_observer()
            observer.start()
        except OSError as error:
            self._say("", f"nothing can be watched ({error}): the scans alone serve")
            return False
        self._said.pop("", None)
        self._observer = observer
        self._add_missing()
        return True

    @property
    def _folders(self) -> dict[str, str]:
        return {**self._roots, _INBOX: str(self._inbox)}

    def _add_missing(self) -> list[str]:
        """Watch the folders that are there now and not watched yet; return the keys of the roots among them."""
        added: list[str] = []
        for key, folder in self._folders.items():
            identity = _identity(folder)
            if key in self._watched or identity is None:
                continue
            is_inbox = key == _INBOX
            try:
                assert self._observer is not None
                handler = _Handler(folder, self._on_inbox_path if is_inbox else self._on_path, is_inbox=is_inbox)
                self._observer.schedule(handler, folder, recursive=not is_inbox, event_filter=EVENTS)
            except OSError as error:
                self._say(key, f"{folder} cannot be watched ({error}): the scan alone serves it")
                continue
            self._said.pop(key, None)
            self._watched[key] = identity
            if not is_inbox:
                added.append(key)
        return added

    def _on_inbox_path(self, _: str) -> None:
        self._on_inbox()

    def _say(self, key: str, text: str) -> None:
        """Warn once, not at every look."""
        if self._said.get(key) != text:
            self._said[key] = text
            log.warning("%s", text)

    def supervise(self) -> None:
        """Replace what died; watch folders that came (back)."""
        if not self._is_started:
            return
        if self._observer is None:
            if self._begin():
                self._on_lost(None)
            return
        gone = [
            folder
            for key, folder in self._folders.items()
            if self._watched.get(key, _identity(folder)) != _identity(folder)
        ]
        # After an overflow folders may be there that nobody watches, and others under another name.
        if gone or self._has_overflowed.is_set() or not _is_healthy(self._observer):
            log.warning("the file watcher is replaced%s", f" ({', '.join(gone)} went away)" if gone else "")
            self.restarts += 1
            self._end_observer()
            self._has_overflowed.clear()
            self._begin()
            self._on_lost(None)
            return
        for key in self._add_missing():
            self._on_lost(key)

    @property
    def is_degraded(self) -> bool:
        """True while a root is not watched, so that only scans see it."""
        return not self._watched.keys() >= self._roots.keys()

    def _end_observer(self) -> None:
        observer, self._observer = self._observer, None
        if observer is None:
            return
        # Stopping has hung on unmounted paths: never wait for it without a bound.
        stopper = threading.Thread(target=_stop, args=(observer,), daemon=True)
        stopper.start()
        stopper.join(STOP_WAIT_S)

    def stop(self) -> None:
        self._is_started = False
        logging.getLogger("watchdog.observers").removeHandler(self._overflow)
        self._end_observer()


def _identity(folder: str) -> tuple[int, int] | None:
    """Return what tells this folder from another under its name; None where no folder is that can be listed."""
    try:
        status = os.lstat(folder)
    except OSError:
        return None
    # watchdog takes a folder that may not be read for a watched one.
    if not stat.S_ISDIR(status.st_mode) or is_link(status) or not os.access(folder, os.R_OK | os.X_OK):
        return None
    return status.st_dev, status.st_ino


def _is_healthy(observer: BaseObserver) -> bool:
    """Return whether all threads live: the dispatcher, one emitter a folder, and the one that reads inotify for them."""
    reader: threading.Thread | None = getattr(observer, "_inotify_fd", None)
    threads = [observer, *observer.emitters, *([reader] if reader is not None else [])]
    return all(thread.is_alive() for thread in threads)


def _stop(observer: BaseObserver) -> None:
    observer.stop()
    if observer.is_alive():
        observer.join(STOP_WAIT_S)
