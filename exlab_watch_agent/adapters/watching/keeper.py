"""The keeper of one root: a thread that does whatever may wait for a disk.

It compares the folder with the one that is watched, sets watches, replaces an observer that died, overflowed or went deaf,
and checks by a canary that events arrive. A share that hangs so hangs its own keeper and nothing else. Which folders are
watched is said in levels.py, by which observer in observers.py. Source: docs/facts.md, inotify and watchdog.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from watchdog.observers.api import BaseObserver

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK
from exlab_watch_agent.adapters.local import mounts
from exlab_watch_agent.adapters.local.handles import is_link
from exlab_watch_agent.adapters.watching import canary
from exlab_watch_agent.adapters.watching.limits import MORE_INSTANCES, Limits, more_watches, read_limits
from exlab_watch_agent.adapters.watching.observers import (
    ObserverMaker,
    PathHandler,
    levels_of,
    make_observer,
    schedule,
    stop,
)
from exlab_watch_agent.adapters.watching.pace import PACE, Pace
from exlab_watch_agent.core.policy import ObserverMode
from exlab_watch_agent.ports import Clock

log = logging.getLogger(__name__)

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
        pace: Pace = PACE,
        clock: Clock = SYSTEM_CLOCK,
        make_observer: ObserverMaker = make_observer,
    ) -> None:
        super().__init__(name=f"watch {name}", daemon=True)
        self._root = root
        self._on_path = on_path
        self._on_lost = on_lost
        self._may_write = may_write
        self._is_finished = is_finished
        self._is_inbox = is_inbox
        self._pace = pace
        self._clock = clock
        self._make_observer = make_observer
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
                self._wake.wait(self._pace.keep_every_s)
                self._wake.clear()
        finally:
            self._end_observer()

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
        identity = identity_of(folder)
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
            self._check_canary()
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
        if identity != self._watched or any(levels_of(self.observer, "is_over")):
            return "the folder went away or was replaced by another one"
        if not all(thread.is_alive() for thread in (self.observer, *self.observer.emitters)):
            return "a thread of it has ended"
        if any(levels_of(self.observer, "has_overflowed")):
            return "the kernel's queue overflowed"
        if self._silent == self._pace.silent_max:
            return "its canary was not heard"
        if self._silent > self._pace.silent_max and self._is_retry_due():
            return "to find out whether its canary is heard again"
        if sum(levels_of(self.observer, "missing")) and self._is_retry_due():
            return "to find out whether there are watches for all its folders now"
        return ""

    def _is_retry_due(self) -> bool:
        """Return whether what failed may be tried again: after a while, or at once when the kernel's limits are others."""
        return self._clock.monotonic_s() >= self._retry_due_s or read_limits() != self._limits

    def _begin(self, identity: tuple[int, int]) -> None:
        self._watched = identity
        self._limits = read_limits()
        self._retry_due_s = self._clock.monotonic_s() + self._pace.retry_every_s
        observer: BaseObserver | None = None
        try:
            observer = self._make_observer(self._is_finished, self._limits, self._pace)
            observer.start()
            handler = PathHandler(self._root.folder, self._on_path, None if self._is_inbox else self._heard.set)
            schedule(observer, handler, self._root.folder, is_recursive=not self._is_inbox)
        except OSError as error:
            self._failure = error
            if observer is not None:
                stop(observer, wait_s=self._pace.stop_wait_s)
            return
        self._failure = None
        self.observer = observer
        # What has replaced another folder is first scanned, to find out whether it is ours.
        self._canary_due_s = (
            self._clock.monotonic_s() + self._pace.keep_every_s if self._is_late and not self._silent else 0.0
        )
        with self._first_look:
            is_late, self._is_late, self._is_seeing = self._is_late, False, True
        if is_late:
            self._on_lost()

    def _check_canary(self) -> None:
        """Create and delete the canary; record whether the observer reported it."""
        self._canary_due_s = self._clock.monotonic_s() + self._pace.canary_every_s
        self._heard.clear()
        try:
            canary.place(self._root.folder)
        except (canary.NoCanaryError, OSError) as error:
            self._canary = f"none: {error}"
            self._canary_due_s = 0.0
            self._silent = 0
            return
        is_heard = self._heard.wait(self._pace.canary_wait_s)
        try:
            canary.remove(self._root.folder)
        except OSError as error:
            log.warning("%s is left behind: %s", canary.path_of(self._root.folder), error.strerror)
        if self._stopping.is_set():
            return
        if is_heard:
            if self._silent > self._pace.silent_max:
                self._on_lost()
            self._silent = 0
            self._canary = "heard"
        else:
            self._silent += 1
            self._canary = "silent"
            if self._silent <= self._pace.silent_max:
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
            watches=sum(levels_of(self.observer, "watches")),
            missing=sum(levels_of(self.observer, "missing")),
            let_go=sum(levels_of(self.observer, "let_go")),
            canary=self._canary,
        )
        if self._silent > self._pace.silent_max:
            reason = "native events do not arrive: the canary was not heard, not even by a new observer"
            return replace(health, kind=self._fallback, is_degraded=True, reason=reason)
        if health.missing:
            why = next((refusal for refusal in levels_of(self.observer, "refusal") if refusal), "")
            reason = f"{health.missing} folders, with what is in them, are not watched ({why})"
            command = more_watches(health.watches + health.missing + 2 * health.let_go)
            return replace(health, kind=self._fallback, is_degraded=True, reason=reason, command=command)
        if health.let_go:
            return replace(
                health, reason=f"{health.let_go} finished runs are left to the scans, because watches are scarce"
            )
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
        self._silent = 0 if self._silent < self._pace.silent_max else self._silent
        if observer is not None:
            stop(observer, wait_s=self._pace.stop_wait_s)


def identity_of(folder: str) -> tuple[int, int] | None:
    """Return what tells this folder from another under its name; None where no folder is that can be listed."""
    try:
        status = os.lstat(folder)
    except OSError:
        return None
    # watchdog takes a folder that may not be read for a watched one.
    if not stat.S_ISDIR(status.st_mode) or is_link(status) or not os.access(folder, os.R_OK | os.X_OK):
        return None
    return status.st_dev, status.st_ino
