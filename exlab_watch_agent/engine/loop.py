"""The loop that owns every record: take what happened, decide, commit, start.

Watchers, timers, executors and operators only put messages into its inbox. One pass decides everything that has arrived,
makes it durable with one fsync, and only then lets it take effect and starts effects: save, then act. Its parts, all of them
used by the loop's thread alone: runs.py (what was seen of runs), turns.py (whose turn it is), destinations.py,
reconciling.py (scans), operators.py (commands), over commit.py, errands.py and timers.py. Not here: rules of a run's life
(core/decide.py), how an effect is carried out (acts), and how parts are chosen (app).
"""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from exlab_watch_agent.acts.carry_out import carry_out
from exlab_watch_agent.acts.probe import bind_destination
from exlab_watch_agent.core.bandwidth import rate_bytes_per_s
from exlab_watch_agent.core.decide import decide, work_effect
from exlab_watch_agent.core.effects import (
    Bind,
    Effect,
    PlaceHeartbeat,
    Probe,
    Seal,
)
from exlab_watch_agent.core.pace import PACE, Pace
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.retry import remaining_wait_s
from exlab_watch_agent.core.rollback import LEFT_AT, TrailPosition
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.caches import Caches
from exlab_watch_agent.engine.commit import Commit, Moved, Reply
from exlab_watch_agent.engine.destinations import Destinations
from exlab_watch_agent.engine.dispatch import Anchor, Dispatch
from exlab_watch_agent.engine.errands import CarryOut, Errands, UnderWay
from exlab_watch_agent.engine.gaps import Gaps
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.messages import Message, Noticed, Woken
from exlab_watch_agent.engine.operators import Operators
from exlab_watch_agent.engine.reconciling import Reconciling
from exlab_watch_agent.engine.runs import Decide, Runs
from exlab_watch_agent.engine.timers import Timers
from exlab_watch_agent.engine.turns import Turns
from exlab_watch_agent.engine.uptime import AgentUptime
from exlab_watch_agent.engine.views import EngineView, lane_now
from exlab_watch_agent.ports import Clock, Ports, RunStore, SideBySide
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

BATCH_MAX = 256
THREADS = 6
"""Of a lane's readers: 1 scans, 2 look in the background, 1 may hang in the NAS, 2 are for fresh events."""


def _threads(name: str) -> Executor:
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=name)


def _new_job_id() -> str:
    return uuid.uuid4().hex


class Engine:
    """Drives all runs. `run` is called once, from one thread; `post` from any.

    `view`: what others may read of it, at any time and from any thread. `hints`: asked at the start of each pass for the
    paths of file events since the last one. `on_taken_up`: told of each stored run at the start. `anchor`: what a seal is to say
    of the trail and the agent. With `is_working`
    False the engine only finds out what is where: nothing is pushed, verified or sealed.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        lanes: Iterable[Ports],
        policy: Policy,
        clock: Clock,
        now_local: Callable[[], datetime],
        anchor: Callable[[], Anchor],
        on_move: Callable[[RunRecord, Move], None] = lambda *_: None,
        on_pass: Callable[[], None] = lambda: None,
        on_taken_up: Callable[[RunRecord], None] = lambda _: None,
        hints: Callable[[], tuple[str, ...]] = tuple,
        only: Iterable[str] | None = None,
        pace: Pace = PACE,
        is_working: bool = True,
        carry_out: CarryOut = carry_out,
        decide: Decide = decide,
        new_job_id: Callable[[], str] = _new_job_id,
        make_executor: Callable[[str], Executor] = _threads,
        make_side_by_side: Callable[[Executor], SideBySide] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._on_pass = on_pass
        self._on_taken_up = on_taken_up
        self._hints = hints
        self._is_working = is_working
        self._gaps = Gaps(clock)
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._timers = Timers()
        self._uptime = AgentUptime(clock)
        self.lanes = {ports.equipment.equipment_id: self._lane(ports) for ports in lanes}
        self._commit = Commit(store, clock, self._timers, pace)
        self._errands = Errands(
            self.lanes,
            clock=clock,
            timers=self._timers,
            post=self.post,
            rate_bytes_per_s=lambda lane: rate_bytes_per_s(lane.ports.equipment.bandwidth, now_local()),
            pushes_max=policy.pushes_max,
            make_executor=make_executor,
            carry_out=carry_out,
            make_side_by_side=make_side_by_side,
        )
        bench = Bench(self._commit, self._errands, self._timers, self.lanes, policy, clock, pace, self.post)
        self._looks = Looks(bench, only=None if only is None else set(only))
        self._runs = Runs(bench, looks=self._looks, decide=decide, new_job_id=new_job_id)
        self._caches = Caches(bench, looks=self._looks)
        self._reconciling = Reconciling(bench, looks=self._looks, runs=self._runs, caches=self._caches)
        self._turns = Turns(bench, looks=self._looks, runs=self._runs, reconciling=self._reconciling)
        self._destinations = Destinations(bench, audit_soon=self._turns.audit_soon, decide=self._runs.decide)
        operators = Operators(
            bench,
            looks=self._looks,
            runs=self._runs,
            turns=self._turns,
            destinations=self._destinations,
            reconciling=self._reconciling,
        )
        self._dispatch = Dispatch(
            bench,
            looks=self._looks,
            runs=self._runs,
            turns=self._turns,
            caches=self._caches,
            destinations=self._destinations,
            reconciling=self._reconciling,
            operators=operators,
            on_move=on_move,
            anchor=anchor,
        )
        self.view = EngineView({lane_id: lane_now(lane) for lane_id, lane in self.lanes.items()}, self._runs.views.now)

    def _lane(self, ports: Ports) -> Lane:
        spelling = ports.transport.describe()
        ports = replace(ports, ran_s=self._uptime.sum_s)
        binding = self._store.binding(ports.equipment.equipment_id, spelling)
        mounts = dict(self._store.mounts(ports.equipment.equipment_id, spelling))
        return Lane(ports, spelling, binding, mounts, is_working=self._is_working)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def post(self, message: Message) -> None:
        """Put a message into the inbox; never blocks. May be called from any thread."""
        self._inbox.put(message)

    def stop(self) -> None:
        """Ask the loop to end; safe from a signal handler's thread."""
        self._stopping.set()
        self._inbox.put(Woken())

    def run(self, *, until_rest: bool = False) -> None:
        """Work until stopped, or until all runs rest. Raises: StoreWriteError when a record cannot be made durable.

        Where there is no room for one, the loop waits for it; with `until_rest` that is also an error.
        """
        self._commit.waits_for_room = not until_rest
        try:
            self.begin()
            while not self._stopping.is_set():
                messages = self._take()
                if self._gaps.has_been_away():
                    self._reconciling.want_scan(self.lanes)
                self.turn_over(messages)
                if until_rest and self.is_at_rest():
                    break
        finally:
            self._stopping.set()
            self._errands.drain()

    def turn_over(self, messages: Iterable[Message] | None = None) -> None:
        """One pass: decide what has arrived and what is due, make it durable, let it take effect. Waits for nothing.

        `messages`: what was taken from the inbox; None to take what is there.
        """
        taken = list(self.waiting_messages() if messages is None else messages)
        if paths := self._hints():
            taken.insert(0, Noticed(paths))
        if self._commit.pause is not None:
            if self._commit.hold(taken):
                self._settle()
            taken = [] if self._commit.pause is not None else self._commit.take_held()
        if self._commit.pause is None:
            for message in taken:
                self._dispatch.on_message(message)
            for kind, key in self._timers.take_due(self._clock.monotonic_s()):
                self._dispatch.on_timer(kind, key)
            self._settle()
        self._show()
        self._on_pass()

    def _show(self) -> None:
        """Swap the view for what is so now."""
        lanes = {lane_id: lane_now(lane) for lane_id, lane in self.lanes.items()}
        view = EngineView(lanes, self._runs.views.now, self._commit.pause)
        if view != self.view:
            self.view = view

    def waiting_messages(self) -> list[Message]:
        """Return and forget what waits in the inbox."""
        messages: list[Message] = []
        with suppress(queue.Empty):
            while True:
                messages.append(self._inbox.get_nowait())
        return messages

    @property
    def has_messages(self) -> bool:
        return not self._inbox.empty()

    def next_due_s(self) -> float | None:
        """Return when (monotonic) something is due next, None when nothing is planned."""
        return self._timers.next_due_s()

    def _take(self) -> list[Message]:
        due_s = self._timers.next_due_s()
        timeout = 1.0 if due_s is None else min(1.0, max(0.0, due_s - self._clock.monotonic_s()))
        messages: list[Message] = []
        with suppress(queue.Empty):
            messages.append(self._inbox.get(timeout=timeout))
            while len(messages) < BATCH_MAX:
                messages.append(self._inbox.get_nowait())
        return messages

    def _settle(self) -> None:
        """Commit what was decided and let it take effect, until nothing more follows from it."""
        while True:
            due = self._commit.make_durable()
            if due is None:
                return
            for consequence in due:
                match consequence:
                    case Moved():
                        self._dispatch.on_moved(consequence)
                    case Reply():
                        consequence.to(consequence.answer)
                    case _:
                        self._want(consequence)
            self._start()
            if self._commit.is_empty:
                return

    def _want(self, effect: Effect) -> None:
        self._errands.want(effect, wait_s=effect.wait_s if isinstance(effect, Seal) else 0.0)

    def _start(self) -> None:
        """Start what may start: what was decided, then looks in the background, a push each lane, one audit beside them."""
        self._errands.start(self._dispatch.brief)
        while sum(self._looks.want_backlog(lane) for lane in self.lanes.values()):
            self._errands.start(self._dispatch.brief)
        if self._is_working:
            self._turns.start_pushes()
            self._turns.start_audit()
            self._caches.start()
            self._errands.start(self._dispatch.brief)

    # --- start and end -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take up every stored run where it was, and reconcile with the disk."""
        now = self._clock.now()
        for record in self._store:
            self._on_taken_up(record)
            for proof in record.passes[-1:]:
                self._uptime.take_up(proof.uptime_sum_s)
            lane = self.lanes.get(record.equipment_id)
            if lane is None:
                continue
            # What rests as it was left need not be read again; all else is looked at, a few at a time.
            lane.known[record.run_path] = record.creation_signature
            if record.is_sealed:
                lane.caches[record.run_path] = record.cache_signature
            if self._looks.is_mine(record):
                self._resume(record, now)
            if record.verified_at is not None:
                lane.last_success_at = max(record.verified_at, lane.last_success_at or record.verified_at)
        for lane in self.lanes.values() if self._is_working and self._looks.only is None else ():
            # one that is away, or waits to be bound, is also reported with nothing to do
            self._destinations.probe(lane, is_light=True)
        self._reconciling.want_scan(self.lanes)
        self._start()

    def _resume(self, record: RunRecord, now: datetime) -> None:
        """Take up a stored run: working states do their work again, waits go on where they were."""
        work = work_effect(record)
        if work is not None:
            self._errands.want(work, wait_s=_remaining(record, now) if isinstance(work, Seal) else 0.0)
        elif record.state is RunState.QUEUED:
            self._turns.make_ready(record, wait_s=_remaining(record, now))
        elif record.state in CHART.auditable:
            self._turns.plan_audit(record, now)

    def is_at_rest(self) -> bool:
        """Return whether nothing is under way and nothing more would happen without a new event or a longer wait."""
        if not self._commit.is_empty or self.has_messages or self._looks.is_reading_again:
            return False
        if not self._errands.is_idle(but_for=self._need_not_be_waited_for):
            return False
        for lane in self.lanes.values():
            if lane.is_ours and (lane.backlog or (self._is_working and lane.asks_twice)):
                return False
            if not (self._is_working and lane.is_ours):
                continue
            if (lane.queue or lane.caches_due) and lane.away is None:
                return False
            if lane.audits and (lane.away is None or lane.away.is_full):
                return False
        return not (self._is_working and self._runs.is_settling)

    def _need_not_be_waited_for(self, effect: Effect) -> bool:
        """A sign of life, and a question to a NAS that is away: a dead mount may never answer."""
        if isinstance(effect, Probe | Bind):
            return not self._destinations.may_say_more(effect)
        return isinstance(effect, PlaceHeartbeat)

    @property
    def is_busy(self) -> bool:
        """Whether a stop now would cut something off: work on a run, a binding, a replacement. From `on_pass` only."""
        return self._errands.is_working or any(lane.replacing is not None for lane in self.lanes.values())

    @property
    def is_drained(self) -> bool:
        """Whether every thread of the executors has ended; False while one hangs in a dead mount."""
        return self._errands.is_drained

    def bind(self, equipment_id: str, operator: str) -> str:
        """Bind a destination at once, before `run`; return what is to be said. Raises: AgentError."""
        lane = self.lanes[equipment_id]
        bound = bind_destination(lane.ports_now(), self._destinations.some_copies(lane))
        self._destinations.accept(lane, bound, operator=operator)
        self._commit.waits_for_room = False
        self._commit.make_durable()
        self._show()
        return f"{equipment_id}: {lane.ports.transport.describe()} is bound"

    def compare_heartbeat(self, anchor: TrailPosition) -> None:
        """Hold deletion where our own heartbeat on the NAS does not fit the trail here. To be called after `run`."""
        self._commit.compare_anchor(anchor, where=LEFT_AT)
        self._commit.waits_for_room = False
        self._commit.make_durable()

    # --- for people --------------------------------------------------------------------------------------------------

    @property
    def roots(self) -> Mapping[str, str]:
        """Equipment id → its folder here."""
        return self._looks.roots

    def ports_of(self, equipment_id: str) -> Ports:
        """Return a lane's ports with what is known of both its sides now. From any thread."""
        return self.lanes[equipment_id].ports_now()

    def place(self, effect: PlaceHeartbeat) -> None:
        """Have a sign of life left on a lane's NAS, also during a pause. To be called from `on_pass` only."""
        self._errands.start_beside(effect)

    def under_way(self) -> dict[str, UnderWay]:
        """Return job id → its work, and how far that is. From any thread."""
        return self._errands.under_way()


def _remaining(record: RunRecord, now: datetime) -> float:
    if record.next_attempt_at is None:
        return 0.0
    return remaining_wait_s(due_at=record.next_attempt_at, wait_s=record.wait_s, now=now)
