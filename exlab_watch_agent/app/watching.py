"""The watcher beside the engine: what it notices becomes messages, and a root that it cannot watch is scanned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from exlab_watch_agent.adapters.watching.keeper import Health, WatchedRoot
from exlab_watch_agent.adapters.watching.limits import read_limits
from exlab_watch_agent.adapters.watching.pace import PACE, Pace
from exlab_watch_agent.adapters.watching.watcher import Watcher
from exlab_watch_agent.core.snapshot import ObserverView, RootHealth
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.messages import ScanWanted, Woken
from exlab_watch_agent.ports import RunStore
from exlab_watch_agent.statechart import CHART


class Watching:
    """Watches the roots of all lanes.

    `start` and `stop` may wait for a disk; `hints`, `supervise` and `view` are for the engine's loop and never do.
    """

    def __init__(
        self,
        engine: Engine,
        roots: Mapping[str, WatchedRoot],
        store: RunStore,
        inbox_folder: Path,
        *,
        on_inbox: Callable[[], None],
        pace: Pace = PACE,
    ) -> None:
        self._store = store
        self._post = engine.post
        self._watches_allowed = read_limits().watches
        self._degraded: set[str] = set()
        self._watcher = Watcher(
            roots,
            inbox_folder,
            on_news=lambda: engine.post(Woken()),
            on_inbox=on_inbox,
            on_lost=lambda lane_id: engine.post(ScanWanted((lane_id,))),
            on_poll=lambda lane_id: engine.post(ScanWanted((lane_id,), is_full=False)),
            took_s=lambda lane_id: engine.view.lanes[lane_id].scan_took_s,
            may_write=lambda lane_id: engine.view.lanes[lane_id].is_ours,
            is_finished=self._is_finished,
            pace=pace,
        )

    def _is_finished(self, run_path: str) -> bool:
        """Return whether little more will happen in this run folder. Asked by the watcher's threads."""
        return self._store.view.state_at(run_path) in CHART.settled

    def start(self) -> None:
        self._watcher.start()

    def stop(self) -> None:
        self._watcher.stop()

    def hints(self) -> tuple[str, ...]:
        """Return and forget the paths at which something happened."""
        return self._watcher.take()

    def supervise(self) -> None:
        """Look after the watcher's own health, and have a root scanned as soon as its watching fails.

        Most often it fails because the root itself has gone.
        """
        self._watcher.supervise()
        degraded = {lane_id for lane_id, health in self._watcher.health().items() if health.is_degraded}
        if new := tuple(sorted(degraded - self._degraded)):
            self._post(ScanWanted(new))
        self._degraded = degraded

    def view(self) -> ObserverView:
        """Return how each root is watched now."""
        roots = self._watcher.health()
        kinds = {health.kind for health in roots.values()}
        return ObserverView(
            kind=kinds.pop() if len(kinds) == 1 else "mixed",
            is_degraded=any(health.is_degraded for health in roots.values()),
            restarts=self._watcher.restarts,
            watches_allowed=self._watches_allowed,
            roots={lane_id: _root_health(health) for lane_id, health in roots.items()},
        )


def _root_health(health: Health) -> RootHealth:
    return RootHealth(
        kind=health.kind,
        is_degraded=health.is_degraded,
        reason=health.reason,
        command=health.command,
        watches=health.watches,
        missing=health.missing,
        let_go=health.let_go,
        canary=health.canary,
    )
