"""Watching under one rule: events are hints. A handler only hands a path on; a keeper for each root keeps it seeing.

Each root has an observer of its own and a keeper, a thread that does whatever may wait for a disk: it compares the
folder with the one that is watched, sets watches, replaces an observer that died, overflowed or went deaf, and lets a
canary sing. A share that hangs so hangs its own keeper and nothing else; what the engine's loop calls here touches no
disk. Which folders are watched is said in levels.py, how on Linux in inotify_levels.py; elsewhere watchdog's own observer
serves. Where events cannot be trusted, the root is scanned every few seconds instead (`polling`). Source: FACTS.md A1.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
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

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local import mounts
from exlab_watch_agent.adapters.local.durable import is_link
from exlab_watch_agent.adapters.watching import canary
from exlab_watch_agent.adapters.watching.levels import CANARY, subject_of
from exlab_watch_agent.adapters.watching.limits import MORE_INSTANCES, Limits, more_watches, read_limits
from exlab_watch_agent.core.policy import ObserverMode

log = logging.getLogger(__name__)

_IS_LINUX: bool = sys.platform.startswith("linux")

KEEP_EVERY_S = 5.0
CANARY_EVERY_S = 300.0
CANARY_WAIT_S = 10.0
SILENT_MAX = 2
"""A canary that is not heard may have been unlucky in a storm; after this many in a row the observer is replaced."""
RETRY_EVERY_S = 600.0
"""Where native events failed they are tried again this often: setting 20,000 watches takes some tenths of a second."""
HANG_S = 60.0
START_WAIT_S = 5.0
STOP_WAIT_S = 5.0
POLL_EVERY_S = 5.0
POLL_DUTY = 50
"""A root is polled for at most one part in this many of the time."""
OBSERVER_TIMEOUT_S = 0.05
"""On Windows nothing is delivered until the queue is quiet for this long; the default of a second starves us."""

OTHER_PLATFORMS_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileModifiedEvent,
]

NATIVE, POLLING = "native", "polling"


@dataclass(frozen=True, slots=True)
class WatchedRoot:
    folder: str
    mode: ObserverMode = ObserverMode.AUTO


@dataclass(frozen=True, slots=True)
class Health:
    """How a root is watched. Degraded: less is seen, or later, than was asked for; `command` is what helps.

    `kind` is `polling` where scans every few seconds serve the root; events that arrive all the same are used.
    `watches` and `missing` count folders, `let_go` finished runs that are left to the scans where watches are scarce.
    """

    kind: str
    is_degraded: bool
    reason: str = ""
    command: str = ""
    watches: int = 0
    missing: int = 0
    let_go: int = 0
    canary: str = ""


def make_observer(is_finished: Callable[[str], bool], limits: Limits) -> BaseObserver:
    """Return an observer that is not started: on Linux one that watches only the levels that matter."""
    if _IS_LINUX:
        from exlab_watch_agent.adapters.watching.inotify import LevelObserver

        return LevelObserver(timeout=OBSERVER_TIMEOUT_S, is_finished=is_finished, watches_max=limits.watches)
    from watchdog.observers import Observer

    return Observer(timeout=OBSERVER_TIMEOUT_S)


class _Handler(FileSystemEventHandler):
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


class RootKeeper(threading.Thread):
    """Keeps one root watched. `on_path` is called from its observer's threads, `on_lost` from its own.

    `on_lost`: events may have been lost, or what comes from now on is seen for the first time; the root must be scanned.
    `may_write`: whether the root is known to be ours; before that, no canary is placed in it.
    `is_inbox`: a plain folder, whose files are all of interest, and where the canary has no place.
    """

    def __init__(
        self,
        root: WatchedRoot,
        *,
        name: str,
        on_path: Callable[[str], None],
        on_lost: Callable[[], None],
        may_write: Callable[[], bool] = lambda: True,
        is_finished: Callable[[str], bool] = lambda _: False,
        is_inbox: bool = False,
    ) -> None:
        super().__init__(name=f"watch {name}", daemon=True)
        self._root = root
        self._on_path = on_path
        self._on_lost = on_lost
        self._may_write = may_write
        self._is_finished = is_finished
        self._is_inbox = is_inbox
        self._clock = SystemClock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._heard = threading.Event()
        self._first_look = threading.Lock()
        self._is_seeing = False
        self._is_late = False
        self.is_begun = threading.Event()
        self.turn_began_s: float | None = None
        self.turns = 0
        self.restarts = 0
        self.observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._limits = Limits()
        self._failure: OSError | None = None
        self._silent = 0
        self._canary = ""
        self._canary_due_s = 0.0
        self._retry_due_s = 0.0
        self.health = Health(NATIVE, True, f"{root.folder} has not answered yet")

    # --- life --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.turn_began_s = self._clock.monotonic_s()
                try:
                    self._turn()
                except Exception as error:
                    log.exception("the watch over %s failed", self._root.folder)
                    self._set(Health(self._fallback, True, f"the watch failed: {error}"))
                self.turn_began_s = None
                self.turns += 1
                self.is_begun.set()
                self._wake.wait(KEEP_EVERY_S)
                self._wake.clear()
        finally:
            self._end_observer()

    def look_now(self) -> None:
        """Have the next turn at once."""
        self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._heard.set()
        self._wake.set()

    def be_late(self) -> None:
        """Say that the first scan does not wait for this root: what came before its watch must be scanned for."""
        with self._first_look:
            self._is_late = not self._is_seeing

    # --- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        folder, mode = self._root.folder, self._root.mode
        if mode is ObserverMode.POLLING:
            self._set(Health(POLLING, False, "as the config file says"))
            return
        identity = _identity(folder)
        if identity is None:
            self._end_observer()
            self._is_late = True
            self._set(Health(NATIVE, True, f"{folder} is not there or cannot be listed"))
            return
        kind = mounts.kind_of(folder) if identity != self._watched else ""
        if mode is ObserverMode.AUTO and mounts.is_shared(kind):
            self._end_observer()
            self._set(Health(POLLING, False, f"{folder} is on {kind}: what other computers write there makes no event"))
            return
        self._keep_observer(identity)
        self._set(self._judged())
        self.is_begun.set()  # The canary may take longer than a start should wait.
        is_due = self._clock.monotonic_s() >= self._canary_due_s
        if self.observer is not None and not self._is_inbox and is_due and self._may_write():
            self._sing()
            self._set(self._judged())

    def _keep_observer(self, identity: tuple[int, int]) -> None:
        """Leave a healthy observer alone; replace one that is not, where that may help."""
        if self.observer is None:
            if self._watched != identity or self._is_retry_due():
                self._begin(identity)
            return
        why = self._why_replace(identity)
        if why:
            log.warning("the watch over %s is replaced: %s", self._root.folder, why)
            self.restarts += 1
            self._end_observer()
            self._is_late = True
            self._begin(identity)

    def _why_replace(self, identity: tuple[int, int]) -> str:
        assert self.observer is not None, "asked of an observer"
        if identity != self._watched or any(_levels(self.observer, "is_over")):
            return "the folder went away, or another stands in its place"
        if not all(thread.is_alive() for thread in (self.observer, *self.observer.emitters)):
            return "a thread of it has ended"
        if any(_levels(self.observer, "has_overflowed")):
            return "the kernel's queue overflowed"
        if self._silent == SILENT_MAX:
            return "its canary was not heard"
        if self._silent > SILENT_MAX and self._is_retry_due():
            return "to find out whether its canary is heard again"
        if sum(_levels(self.observer, "missing")) and self._is_retry_due():
            return "to find out whether there are watches for all its folders now"
        return ""

    def _is_retry_due(self) -> bool:
        """Return whether what failed may be tried again: after a while, or at once when the kernel's limits are others."""
        return self._clock.monotonic_s() >= self._retry_due_s or read_limits() != self._limits

    def _begin(self, identity: tuple[int, int]) -> None:
        self._watched = identity
        self._limits = read_limits()
        self._retry_due_s = self._clock.monotonic_s() + RETRY_EVERY_S
        observer: BaseObserver | None = None
        try:
            observer = make_observer(self._is_finished, self._limits)
            observer.start()
            handler = _Handler(self._root.folder, self._on_path, None if self._is_inbox else self._heard.set)
            events = None if _IS_LINUX else OTHER_PLATFORMS_EVENTS
            observer.schedule(handler, self._root.folder, recursive=not self._is_inbox, event_filter=events)
        except OSError as error:
            self._failure = error
            if observer is not None:
                _stop(observer)
            return
        self._failure = None
        self.observer = observer
        # What stands in the place of another folder is first scanned, to find out whether it is ours.
        self._canary_due_s = self._clock.monotonic_s() + KEEP_EVERY_S if self._is_late and not self._silent else 0.0
        with self._first_look:
            is_late, self._is_late, self._is_seeing = self._is_late, False, True
        if is_late:
            self._on_lost()

    def _sing(self) -> None:
        """Place the canary and take it away again; remember whether that was reported."""
        self._canary_due_s = self._clock.monotonic_s() + CANARY_EVERY_S
        self._heard.clear()
        try:
            canary.place(self._root.folder)
        except (canary.NoCanaryError, OSError) as error:
            self._canary = f"none: {error}"
            self._canary_due_s = 0.0
            self._silent = 0
            return
        is_heard = self._heard.wait(CANARY_WAIT_S)
        try:
            canary.remove(self._root.folder)
        except OSError as error:
            log.warning("%s is left behind: %s", canary.path_of(self._root.folder), error.strerror)
        if self._stopping.is_set():
            return
        if is_heard:
            if self._silent > SILENT_MAX:
                self._on_lost()
            self._silent = 0
            self._canary = "heard"
        else:
            self._silent += 1
            self._canary = "silent"
            if self._silent <= SILENT_MAX:
                self._canary_due_s = 0.0
                self._wake.set()

    # --- what is said of it ------------------------------------------------------------------------------------------

    @property
    def _fallback(self) -> str:
        return POLLING if self._root.mode is ObserverMode.AUTO else NATIVE

    def _judged(self) -> Health:
        if self.observer is None:
            return self._without_watch()
        health = Health(
            NATIVE,
            False,
            watches=sum(_levels(self.observer, "watches")),
            missing=sum(_levels(self.observer, "missing")),
            let_go=sum(_levels(self.observer, "let_go")),
            canary=self._canary,
        )
        if self._silent > SILENT_MAX:
            reason = "native events do not arrive: the canary was not heard, not even by a new observer"
            return replace(health, kind=self._fallback, is_degraded=True, reason=reason)
        if health.missing:
            why = next((refusal for refusal in _levels(self.observer, "refusal") if refusal), "")
            reason = f"{health.missing} folders, with what is in them, are not watched ({why})"
            command = more_watches(health.watches + health.missing + 2 * health.let_go)
            return replace(health, kind=self._fallback, is_degraded=True, reason=reason, command=command)
        if health.let_go:
            return replace(health, reason=f"{health.let_go} finished runs are left to the scans, watches being scarce")
        return replace(
            health, reason="" if self._canary == "heard" else f"canary {self._canary}" if self._canary else ""
        )

    def _without_watch(self) -> Health:
        error = self._failure
        reason = f"{self._root.folder} cannot be watched ({error.strerror if error is not None else 'not tried'})"
        command = ""
        if error is not None and error.errno == errno.ENOSPC:
            command = more_watches(self._limits.watches or 0)
        elif error is not None and error.errno == errno.EMFILE:
            command = MORE_INSTANCES
        return Health(self._fallback, True, reason, command)

    def _set(self, health: Health) -> None:
        """Take over what is true now, and say so when it became worse or better."""
        before, self.health = self.health, health
        if (before.is_degraded, before.reason) == (health.is_degraded, health.reason):
            return
        if health.is_degraded:
            log.warning("watching %s: degraded, %s", self._root.folder, health.reason)
        else:
            log.info("watching %s: %s%s", self._root.folder, health.kind, f", {health.reason}" if health.reason else "")

    def _end_observer(self) -> None:
        observer, self.observer = self.observer, None
        self._watched = None
        self._silent = 0 if self._silent < SILENT_MAX else self._silent
        if observer is not None:
            _stop(observer)


class Watcher:
    """A keeper for each root and one for the inbox. Nothing here waits for a disk, but `start` and `stop` a bounded time.

    `on_news`: `take` has something to give. `on_lost` is handed the key of a root that must be scanned, `on_poll` of one
    for which a light scan serves in place of events. `took_s` says how long a root's latest scan took, in seconds;
    `may_write` whether a root is known to be ours.
    """

    def __init__(
        self,
        roots: Mapping[str, WatchedRoot],
        inbox: Path,
        *,
        on_news: Callable[[], None],
        on_inbox: Callable[[], None],
        on_lost: Callable[[str], None],
        on_poll: Callable[[str], None],
        took_s: Callable[[str], float] = lambda _: 0.0,
        may_write: Callable[[str], bool] = lambda _: True,
        is_finished: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._roots = dict(roots)
        self._inbox_root = WatchedRoot(str(inbox), ObserverMode.NATIVE)
        self._on_news = on_news
        self._on_inbox = on_inbox
        self._on_lost = on_lost
        self._on_poll = on_poll
        self._took_s = took_s
        self._may_write = may_write
        self._is_finished = is_finished
        self._clock = SystemClock()
        self._paths: dict[str, None] = {}
        self._paths_lock = threading.Lock()
        self._polled_s: dict[str, float] = {}
        self.keepers: dict[str, RootKeeper] = {}
        self.inbox_keeper: RootKeeper | None = None

    def start(self) -> None:
        """Begin to watch, and wait a bounded time for the roots that answer: the first scan then misses nothing."""
        for key, root in self._roots.items():
            self.keepers[key] = RootKeeper(
                root,
                name=key,
                on_path=self._on_path,
                on_lost=partial(self._on_lost, key),
                may_write=partial(self._may_write, key),
                is_finished=self._is_finished,
            )
        self.inbox_keeper = RootKeeper(
            self._inbox_root, name="inbox", on_path=lambda _: self._on_inbox(), on_lost=self._on_inbox, is_inbox=True
        )
        for keeper in self._all_keepers():
            keeper.start()
        deadline_s = self._clock.monotonic_s() + START_WAIT_S
        for keeper in self._all_keepers():
            keeper.is_begun.wait(max(0.0, deadline_s - self._clock.monotonic_s()))
            keeper.be_late()

    def _all_keepers(self) -> list[RootKeeper]:
        return [*self.keepers.values(), *([self.inbox_keeper] if self.inbox_keeper is not None else [])]

    def _on_path(self, path: str) -> None:
        with self._paths_lock:
            is_first = not self._paths
            self._paths[path] = None
        if is_first:
            self._on_news()

    def take(self) -> tuple[str, ...]:
        """Return and forget the paths that may have changed since the last call, each once: a storm is bounded by them."""
        with self._paths_lock:
            paths, self._paths = self._paths, {}
        return tuple(paths)

    def supervise(self) -> None:
        """Ask for the scans of the polled roots that are due. Called about once a second."""
        now_s = self._clock.monotonic_s()
        for key, keeper in self.keepers.items():
            wait_s = max(POLL_EVERY_S, POLL_DUTY * self._took_s(key))
            if keeper.health.kind == POLLING and now_s - self._polled_s.get(key, -wait_s) >= wait_s:
                self._polled_s[key] = now_s
                self._on_poll(key)

    def health(self) -> dict[str, Health]:
        """Return key → how that root is watched. A keeper that does not come back says that its root hangs."""
        now_s = self._clock.monotonic_s()
        return {key: self._health_of(keeper, now_s) for key, keeper in self.keepers.items()}

    def _health_of(self, keeper: RootKeeper, now_s: float) -> Health:
        began_s = keeper.turn_began_s
        if not keeper.is_alive():
            return replace(keeper.health, is_degraded=True, reason="its keeper has ended; restart the agent")
        if began_s is not None and now_s - began_s > HANG_S:
            return replace(
                keeper.health, is_degraded=True, reason="its folder does not answer; is the share connected?"
            )
        return keeper.health

    @property
    def restarts(self) -> int:
        return sum(keeper.restarts for keeper in self.keepers.values())

    @property
    def is_degraded(self) -> bool:
        return any(health.is_degraded for health in self.health().values())

    def stop(self) -> None:
        """End all threads; those that hang in a dead mount are left behind after a while, and end with the process."""
        keepers = [keeper for keeper in self._all_keepers() if keeper.ident is not None]
        for keeper in keepers:
            keeper.stop()
        deadline_s = self._clock.monotonic_s() + STOP_WAIT_S
        for keeper in keepers:
            keeper.join(max(0.0, deadline_s - self._clock.monotonic_s()))
        self.keepers, self.inbox_keeper = {}, None


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


def _levels(observer: BaseObserver, name: str) -> list[Any]:
    """Return what the emitters' bookkeeping says; nothing where watchdog's own observer keeps none that can be asked."""
    levels = [getattr(emitter, "levels", None) for emitter in observer.emitters]
    return [getattr(one, name) for one in levels if one is not None]


def _stop(observer: BaseObserver) -> None:
    observer.stop()
    if observer.is_alive():
        observer.join(STOP_WAIT_S)
