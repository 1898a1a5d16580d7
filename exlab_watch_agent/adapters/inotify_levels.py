"""A watchdog observer for Linux that watches only the levels down to each run's cache folder, never the data below.

watchdog's recursive watch registers every folder: at 10,000 of them its own registering floods its queue, and a burst
makes it warn with a text that grows with the number of watches. Here the same emitter and the same single inotify
descriptor serve, and only the choice of folders differs. Source: FACTS.md A1 and its last chapter, watchdog 7.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD, Mask

from exlab_watch_agent.core.inventory import CACHE_FOLDER

RUN_FOLDERS = (b"Runs", b"TestRuns")
CACHE_LEVEL = 4
"""`<project>` is level 1, `Runs` 2, the run 3, its cache folder 4."""


def is_watched_level(root: bytes, path: bytes) -> bool:
    """Return whether a folder is the root itself or one of the levels between it and a run's cache folder."""
    if path == root:
        return True
    prefix = os.path.join(root, b"")
    if not path.startswith(prefix):
        return False
    parts = path[len(prefix) :].split(os.sep.encode())
    if len(parts) > CACHE_LEVEL or (len(parts) >= 2 and parts[1] not in RUN_FOLDERS):
        return False
    return len(parts) < CACHE_LEVEL or parts[CACHE_LEVEL - 1] == os.fsencode(CACHE_FOLDER)


class LevelWatchGroup(InotifyWatchGroup):
    """The watches of one root. Not recursive: the root alone."""

    def __repr__(self) -> str:
        return f"<LevelWatchGroup {self.path!r}>"

    def on_queue_overflow(self) -> None:
        """Leave the watches as they are: the watcher hears of the overflow and replaces the whole observer.

        watchdog takes all watches away and sets them again. Each one that goes queues an event, so that more watches
        than the queue is long would overflow it again, for ever.
        """

    def _add_all_callbacks(self, path: bytes) -> None:
        # The names that watchdog's walk found a moment ago are reported by the kernel once more: asking again for a
        # watch that stands makes watchdog warn. A folder that was replaced has lost its entry here before its
        # successor is reported, because the kernel keeps the order.
        if path not in self._active_callbacks_by_path:
            self._add_callback(path)
        for folder in self._folders_below(path) if self.is_recursive else ():
            self._add_all_callbacks(folder)

    def _folders_below(self, path: bytes) -> Iterator[bytes]:
        for entry in self._entries(path):
            if entry.is_dir(follow_symlinks=False) and is_watched_level(self.path, entry.path):
                yield entry.path

    def _entries(self, path: bytes) -> list[os.DirEntry[bytes]]:
        if not is_watched_level(self.path, path):
            return []
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except OSError:
            return []  # It went away again; whatever comes in its place is reported by its parent's watch.

    def _add_callback(self, path: bytes) -> None:
        if is_watched_level(self.path, path):
            super()._add_callback(path)

    def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:
        """Return a creation event for everything that stood in a new folder before its watch did."""
        events: list[InotifyEvent] = []
        watch = self._active_callbacks_by_path.get(src_path)
        for entry in self._entries(src_path) if watch is not None else ():
            is_folder = entry.is_dir(follow_symlinks=False)
            mask = InotifyConstants.IN_CREATE | (InotifyConstants.IN_ISDIR if is_folder else 0)
            assert watch is not None, "the loop is empty without a watch"
            events.append(InotifyEvent(watch, Mask(mask), 0, entry.name))
            if is_folder:
                events += self._recursive_simulate(entry.path)
        return events


class LevelEmitter(InotifyEmitter):
    """watchdog's emitter over a `LevelWatchGroup`."""

    def on_thread_start(self) -> None:
        self._inotify = LevelWatchGroup(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=self.watch.is_recursive,
            event_mask=self.get_event_mask_from_filter(),
        )


class LevelObserver(BaseObserver):
    """An observer with an inotify descriptor of its own, so that replacing the observer replaces everything."""

    def __init__(self, *, timeout: float) -> None:
        self._inotify_fd = InotifyFD()
        self._inotify_fd.start()
        super().__init__(LevelEmitter, timeout=timeout, inotify_fd=self._inotify_fd)

    def on_thread_stop(self) -> None:
        # First the descriptor: taking the watches away one by one would queue an event for each, and overflow it.
        self._inotify_fd.stop()
        super().on_thread_stop()
        self._inotify_fd.join()
