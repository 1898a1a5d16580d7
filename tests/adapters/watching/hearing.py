"""A watcher over real folders, and what it said."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watchdog.observers.api import BaseObserver, EventEmitter

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK
from exlab_watch_agent.adapters.watching.keeper import Health, RootKeeper, WatchedRoot, identity_of
from exlab_watch_agent.adapters.watching.observers import ObserverMaker, make_observer
from exlab_watch_agent.adapters.watching.pace import Pace
from exlab_watch_agent.adapters.watching.watcher import Watcher
from exlab_watch_agent.core.policy import ObserverMode
from exlab_watch_agent.ports import Clock

WAIT_S = 60.0
"""For a machine that has ten times as much to do as it can; where all is well nothing takes a second."""
BRISK = Pace(keep_every_s=0.05)
"""Keepers that look every 50 ms instead of every 5 s."""
CACHE = ".exlab-wizard"


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.01)


class Heard:
    """A watcher over two roots, and what it said. `outside` is on the same volume and not watched."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        mode: ObserverMode = ObserverMode.AUTO,
        pace: Pace = BRISK,
        clock: Clock = SYSTEM_CLOCK,
        make_observer: ObserverMaker = make_observer,
        on_news: Callable[[], None] | None = None,
    ) -> None:
        self.root = tmp_path / "lab" / "SCOPE_01"
        self.other = tmp_path / "lab" / "FLOW_01"
        self.inbox = tmp_path / "state" / "inbox"
        self.outside = tmp_path / "outside"
        self.runs = self.root / "PROJ-0042 Übersicht" / "Runs"
        for folder in (self.runs, self.other / CACHE, self.root / CACHE, self.inbox, self.outside):
            folder.mkdir(parents=True)
        self.paths: list[str] = []
        self.lost: list[str] = []
        self.polled: list[str] = []
        self.inbox_calls = 0
        self.took_s = 0.0
        self.is_ours = True
        self.finished: set[str] = set()
        self.watcher = Watcher(
            {"SCOPE_01": WatchedRoot(str(self.root), mode), "FLOW_01": WatchedRoot(str(self.other), mode)},
            self.inbox,
            on_news=on_news or self.take,
            on_inbox=self.count,
            on_lost=self.lost.append,
            on_poll=self.polled.append,
            took_s=lambda _: self.took_s,
            may_write=lambda _: self.is_ours,
            is_finished=self.finished.__contains__,
            pace=pace,
            clock=clock,
            make_observer=make_observer,
        )

    def take(self) -> None:
        self.paths += self.watcher.take()

    def count(self) -> None:
        self.inbox_calls += 1

    def __enter__(self) -> Heard:
        self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.stop()

    @property
    def keeper(self) -> RootKeeper:
        return self.watcher.keepers["SCOPE_01"]

    @property
    def health(self) -> Health:
        return self.watcher.health()["SCOPE_01"]

    @property
    def observer(self) -> BaseObserver:
        assert self.keeper.observer is not None
        return self.keeper.observer

    def is_well(self) -> bool:
        return not self.watcher.is_degraded and all(
            health.kind == "native" for health in self.watcher.health().values()
        )

    def until_well(self) -> None:
        until(self.is_well, f"health: {self.watcher.health()}")

    def until_this_root_is_watched(self) -> None:
        """Wait until the folder that stands at the root's path now is the watched one, and its watch stands."""

        def is_watched() -> bool:
            return self.keeper.observer is not None and self.keeper._watched == identity_of(str(self.root))

        until(is_watched, "the watch over this very folder")

    def settle(self) -> None:
        """Wait until all that has happened was delivered: what is made last is reported last."""
        mark = self.root / f"mark-{time.monotonic_ns()}"
        mark.mkdir()
        until(lambda: str(mark) in self.paths, "the mark")
        mark.rmdir()
        until(lambda: self.paths.count(str(mark)) >= 2, "the end of the mark")
        self.paths[:] = [path for path in self.paths if path != str(mark)]

    def forget(self) -> None:
        self.settle()
        self.paths.clear()

    def heard(self, path: Path) -> None:
        until(lambda: str(path) in self.paths, f"{path} among {self.paths[-20:]}")

    def is_seeing(self, root: Path) -> None:
        """A new run in `root` is reported; another one where the watch was just being replaced, which wants a scan."""

        def is_heard_or_lost() -> bool:
            return str(creation) in self.paths or self.lost != lost

        deadline = time.monotonic() + WAIT_S
        while True:
            lost = list(self.lost)
            creation = creation_of(make_run(root / f"P{time.monotonic_ns()}" / "Runs" / "Run_2026-04-17T14-32"))
            until(is_heard_or_lost, f"{creation} among {self.paths[-20:]}")
            if str(creation) in self.paths:
                return
            assert time.monotonic() < deadline, f"the watch over {root} is replaced again and again"

    def open_watches(self) -> int:
        """Return how many folders this watcher watches, as the kernel counts them."""
        keepers = [*self.watcher.keepers.values(), self.watcher.inbox_keeper]
        observers = [keeper.observer for keeper in keepers if keeper is not None and keeper.observer is not None]
        return sum(_watches_of(emitter) for observer in observers for emitter in observer.emitters)


def creation_of(run: Path) -> Path:
    return run / ".exlab-wizard" / "creation.json"


def make_run(run: Path) -> Path:
    creation_of(run).parent.mkdir(parents=True)
    creation_of(run).write_text("{}")
    return run


def _watches_of(emitter: EventEmitter) -> int:
    """Return how many watches an emitter's descriptor has, as the kernel counts them; none where it is closed."""
    kernel = getattr(emitter, "_kernel", None)
    try:
        return Path(f"/proc/self/fdinfo/{kernel.descriptor}").read_text().count("inotify wd:") if kernel else 0
    except FileNotFoundError:
        return 0
