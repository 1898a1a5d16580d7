"""Watching under one rule: events are hints. What is touched is reported by path, what may have been missed is scanned.

Each root has an observer of its own and a keeper (keeper.py), a thread that does whatever may wait for a disk; what the
engine's loop calls here touches none. Where events cannot be trusted, the root is scanned every few seconds instead
(`polling`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK
from exlab_watch_agent.adapters.watching.keeper import POLLING, Health, RootKeeper, WatchedRoot
from exlab_watch_agent.adapters.watching.observers import ObserverMaker, make_observer
from exlab_watch_agent.adapters.watching.pace import PACE, Pace
from exlab_watch_agent.core.policy import ObserverMode
from exlab_watch_agent.ports import Clock


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
        pace: Pace = PACE,
        clock: Clock = SYSTEM_CLOCK,
        make_observer: ObserverMaker = make_observer,
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
        self._pace = pace
        self._clock = clock
        self._make_observer = make_observer
        self._paths: dict[str, None] = {}
        self._paths_lock = threading.Lock()
        self._polled_s: dict[str, float] = {}
        self.keepers: dict[str, RootKeeper] = {}
        self.inbox_keeper: RootKeeper | None = None

    def start(self) -> None:
        """Begin to watch, and wait a bounded time for the roots that answer: the first scan then misses nothing."""
        keep = partial(RootKeeper, pace=self._pace, clock=self._clock, make_observer=self._make_observer)
        for key, root in self._roots.items():
            self.keepers[key] = keep(
                root,
                name=key,
                on_path=self._on_path,
                on_lost=partial(self._on_lost, key),
                may_write=partial(self._may_write, key),
                is_finished=self._is_finished,
            )
        self.inbox_keeper = keep(
            self._inbox_root, name="inbox", on_path=lambda _: self._on_inbox(), on_lost=self._on_inbox, is_inbox=True
        )
        for keeper in self._all_keepers():
            keeper.start()
        deadline_s = self._clock.monotonic_s() + self._pace.start_wait_s
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
            wait_s = max(self._pace.poll_every_s, self._pace.poll_share_max * self._took_s(key))
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
        if began_s is not None and now_s - began_s > self._pace.hang_s:
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
        deadline_s = self._clock.monotonic_s() + self._pace.stop_wait_s
        for keeper in keepers:
            keeper.join(max(0.0, deadline_s - self._clock.monotonic_s()))
        self.keepers, self.inbox_keeper = {}, None
