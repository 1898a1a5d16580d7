"""What the parts of the engine's loop share: the records of this pass, the lanes, the timers, the inbox, the views.

Only the loop's thread touches any of it, but for `post`. What is saved here is true for this pass, and durable when the
engine has committed it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.decide import decide
from exlab_watch_agent.core.effects import Effect
from exlab_watch_agent.core.events import Event
from exlab_watch_agent.core.gate import blocking
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.reconcile import Signature
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.engine.lane import SETTLED_STATES, Lane, View
from exlab_watch_agent.engine.timers import Timers
from exlab_watch_agent.ports import Clock, Entry, RunStore, SavedCreation


@dataclass
class Desk:
    """`on_move` tells others of a move that is durable; `moved` and `start` are what the engine does then.

    `views`: job id → what is told about a run; a run that rests, and of which there is nothing to tell, has none.
    `path_problems`: the same of folders that are no usable run. `told` counts the changes of both.
    """

    store: RunStore
    policy: Policy
    clock: Clock
    on_move: Callable[[RunRecord, Move], None]
    moved: Callable[[RunRecord, RunRecord, Move], None]
    start: Callable[[Effect], None]
    only: set[str] | None
    lanes: dict[str, Lane]
    roots: dict[str, str]
    timers: Timers = field(default_factory=Timers)
    inbox: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)
    entries: list[Entry] = field(default_factory=list)
    fresh: dict[str, RunRecord] = field(default_factory=dict)
    fresh_paths: dict[str, str] = field(default_factory=dict)
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    path_problems: dict[str, str] = field(default_factory=dict)
    told: int = 0

    def post(self, message: Any) -> None:
        """Put a message into the inbox; never blocks."""
        self.inbox.put(message)

    def record(self, job_id: str) -> RunRecord | None:
        return self.fresh.get(job_id) or self.store.get(job_id)

    def record_at(self, run_path: str) -> RunRecord | None:
        job_id = self.fresh_paths.get(run_path)
        if job_id is not None:
            return self.fresh[job_id]
        stored = self.store.by_path(run_path)
        record = self.record(stored.job_id) if stored is not None else None
        # A run that was moved away in this very pass leaves its place to another.
        return record if record is not None and record.run_path == run_path else None

    def twins(self, identity: RunIdentity) -> list[RunRecord]:
        """Return the known runs of this identity as they are now: one may have been moved in this very pass."""
        return [self.fresh.get(stored.job_id, stored) for stored in self.store.by_identity(identity)]

    def is_mine(self, record: RunRecord) -> bool:
        return record.equipment_id in self.lanes and (self.only is None or record.run_path in self.only)

    def save(self, record: RunRecord, entry: Entry) -> RunRecord:
        """Put a line of the trail beside the others of this pass; it is true for this pass, and durable at its end."""
        self.entries.append(replace(entry, record=record))
        self.fresh[record.job_id] = record
        self.fresh_paths[record.run_path] = record.job_id
        return record

    def decide(self, job_id: str, event: Event) -> RunRecord | None:
        record = self.record(job_id)
        if record is None:
            return None
        step = decide(record, event, now=self.clock.now(), policy=self.policy)
        move = step.move
        after = step.record
        if move is not None:
            after = replace(after, creation_signature=self._signature_to_keep(after))
            self.save(after, Entry("transition", move=move, operator=move.operator))
            self.after_commit.append(lambda: self.moved(record, after, move))
        for effect in step.effects:
            self.after_commit.append(lambda effect=effect: self.start(effect))  # type: ignore[misc]
        return after

    def _signature_to_keep(self, record: RunRecord) -> Signature | None:
        """Return the signature by which the next start knows that this run need not be looked at; None where it must be."""
        view = self.views.get(record.job_id)
        has_news = view is not None and (view.problem or blocking(view.findings))
        if record.state not in SETTLED_STATES or has_news:
            return None
        return self.lanes[record.equipment_id].known.get(record.run_path)

    def wrote(self, record: RunRecord, saved: SavedCreation) -> None:
        """Note that the agent itself changed a `creation.json`: nothing in it is new, if all was known before."""
        known = self.lanes[record.equipment_id].known
        if known.get(record.run_path) != saved.before:
            return
        known[record.run_path] = saved.after
        self.views.setdefault(record.job_id, View()).own_signature = saved.after

    # --- what people are told ----------------------------------------------------------------------------------------

    def tell(self, job_id: str, **changes: Any) -> View:
        """Change what is told about a run: `reason`, `problem`, `findings`."""
        view = self.views.setdefault(job_id, View())
        for name, value in changes.items():
            if getattr(view, name) != value:
                setattr(view, name, value)
                self.told += 1
        return view

    def tell_of_path(self, path: str, problem: str | None) -> None:
        """Say what keeps a folder from being a usable run; None: nothing does."""
        if self.path_problems.get(path) == problem:
            return
        self.told += 1
        if problem is None:
            del self.path_problems[path]
        else:
            self.path_problems[path] = problem

    def see(self, lane: Lane, function: Callable[..., None], *arguments: Any) -> None:
        self.submit(lane.eyes, function, *arguments)

    def submit(self, executor: Executor, function: Callable[..., None], *arguments: Any) -> None:
        if not self.stopping.is_set():
            executor.submit(function, *arguments)
