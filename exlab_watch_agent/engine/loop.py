"""The loop that owns every record: take what happened, decide, save, hand out.

Watchers, timers, workers and operators only put messages into its inbox. One pass of the loop decides everything that
has arrived, makes it durable with one fsync, and only then starts effects: save, then act. Its parts, all of them run on
the loop's thread over one desk (desk.py): looks (looking.py), scans (scanning.py), effects (working.py), operators'
commands (requests.py), saving (saving.py). What is deliberately not here: rules of a run's life (core/decide.py), how an
effect is carried out (handlers.py), and how parts are chosen (agent.py).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from exlab_watch_agent.acts.handlers import Look, Unseen, bind
from exlab_watch_agent.core.binding import marker_key
from exlab_watch_agent.core.decide import claim_of, work_effect
from exlab_watch_agent.core.discovery import destination_of, place_of, runs_to_look_at
from exlab_watch_agent.core.effects import Seal
from exlab_watch_agent.core.gate import Finding, blocking
from exlab_watch_agent.core.inventory import CREATION_FILE
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.queueing import lanes_to_start
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.retry import remaining_wait_s
from exlab_watch_agent.engine.desk import Desk
from exlab_watch_agent.engine.lane import (
    ASK_FULLY_EVERY_S,
    Bound,
    DestinationLost,
    Lane,
    LaneSetup,
    Looked,
    Noticed,
    Probed,
    Requested,
    Scanned,
    ScanWanted,
    StatusWritten,
    View,
    Woken,
    Worked,
)
from exlab_watch_agent.engine.looking import UNREADABLE_WAIT_S, Looking
from exlab_watch_agent.engine.requests import Requests
from exlab_watch_agent.engine.saving import Pause, Saving
from exlab_watch_agent.engine.scanning import Scanning
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.engine.working import AUDITABLE, Working
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.ports import Clock, Progress, RunStore
from exlab_watch_agent.statechart import RunState, Trigger

log = logging.getLogger(__name__)

BATCH_MAX = 256
AWAY_S = 30.0
BACK_S = 1.0
MISSING_WAIT_S = 60.0
STOP_WAIT_S = 20.0
THREADS = 6
"""Of a lane's eyes, at most one scans, two look in the background, and one may hang in the NAS."""


def _threads(name: str) -> Executor:
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=name)


class Gaps:
    """Notices that the machine slept, the process was stopped, or the wall clock was set: what happened then is unknown."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s, self._last_at = clock.monotonic_s(), clock.now()

    def has_been_away(self) -> bool:
        """Return whether either clock says that the last pass, at most a second or two ago, is longer ago than that.

        On some platforms the monotonic clock stands still while the machine sleeps; the wall clock never does.
        """
        now_s, now_at = self._clock.monotonic_s(), self._clock.now()
        passed_s, passed_wall_s = now_s - self._last_s, (now_at - self._last_at).total_seconds()
        self._last_s, self._last_at = now_s, now_at
        is_away = max(passed_s, passed_wall_s) > AWAY_S or passed_wall_s < -BACK_S
        if is_away:
            log.info("%.0f s passed, %.0f s by the wall clock: all is looked through", passed_s, passed_wall_s)
        return is_away


class Engine:
    """Drives all runs. `run` is called once, from one thread; `post` from any.

    With `is_working` False it only finds out what is where: nothing is pushed, verified or sealed.
    """

    def __init__(
        self,
        *,
        store: RunStore,
        lanes: Iterable[LaneSetup],
        policy: Policy,
        clock: Clock,
        now_local: Callable[[], datetime],
        trail_head: Callable[[], Mapping[str, Any]],
        on_move: Callable[[RunRecord, Move], None] = lambda *_: None,
        on_pass: Callable[[], None] = lambda: None,
        only: Iterable[str] | None = None,
        is_working: bool = True,
        make_executor: Callable[[str], Executor] = _threads,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._on_pass = on_pass
        self._is_working = is_working
        self._gaps = Gaps(clock)
        self._last_lane: str | None = None
        self.is_drained = False
        self.lanes: dict[str, Lane] = {}
        for setup in lanes:
            self._add_lane(setup, trail_head, make_executor)
        self._desk = Desk(
            store,
            policy,
            clock,
            on_move,
            moved=self._moved,
            start=lambda effect: self._working.start(effect),
            only=None if only is None else set(only),
            lanes=self.lanes,
            roots={lane_id: lane.root for lane_id, lane in self.lanes.items()},
        )
        self._timers = self._desk.timers
        self._inbox = self._desk.inbox
        self.views = self._desk.views
        self.path_problems = self._desk.path_problems
        self._working = Working(self._desk, now_local, is_working=is_working)
        self._looking = Looking(self._desk, self._working)
        self._scanning = Scanning(self._desk, self._looking, self._working)
        self._requests = Requests(self._desk, self._working, self._looking, self._scanning)
        self._saving = Saving(self._desk, self._schedule)

    def _add_lane(
        self, setup: LaneSetup, trail_head: Callable[[], Mapping[str, Any]], make_executor: Callable[[str], Executor]
    ) -> None:
        lane_id = setup.equipment.equipment_id
        ports = setup.make_ports(lambda: self.lanes[lane_id].binding, trail_head)
        ports = replace(ports, require_root=lambda: _require_root(self.lanes[lane_id]))
        key = marker_key(lane_id, ports.transport.describe())
        eyes, hands = make_executor(f"{lane_id}-eyes"), make_executor(f"{lane_id}-hands")
        self.lanes[lane_id] = Lane(
            setup.equipment,
            setup.root,
            setup.scanner,
            setup.root_lock,
            ports,
            eyes,
            hands,
            key,
            self._store.binding(key),
        )

    # --- the loop --------------------------------------------------------------------------------------------------------

    def post(self, message: Any) -> None:
        """Put a message into the inbox; never blocks. May be called from any thread."""
        self._desk.post(message)

    def stop(self) -> None:
        """Ask the loop to end; safe from a signal handler's thread."""
        self._desk.stopping.set()
        self._inbox.put(Woken())

    def run(self, *, until_rest: bool = False) -> None:
        """Work until stopped, or until all runs rest. Raises: StoreWriteError when a record cannot be made durable.

        Where there is no room for one, the loop waits for it; with `until_rest` that is an error, too.
        """
        self._saving.waits_for_room = not until_rest
        try:
            self.begin()
            while not self._desk.stopping.is_set():
                messages = self._take()
                if self._gaps.has_been_away():
                    self._scanning.want_scan(self.lanes)
                self.turn_over(messages)
                if until_rest and self.is_at_rest():
                    break
        finally:
            self._end()

    def turn_over(self, messages: Iterable[Any] | None = None) -> None:
        """One pass: decide what has arrived and what is due, make it durable, let it take effect. Waits for nothing.

        `messages`: what was taken from the inbox; None to take what is there.
        """
        taken: Iterable[Any] = self._waiting_messages() if messages is None else messages
        if self._saving.pause is not None:
            taken = self._saving.go_on(taken)
        if self._saving.pause is None:
            for message in taken:
                self._handle(message)
            for kind, key in self._timers.take_due(self._clock.monotonic_s()):
                self._fire(kind, key)
            self._schedule()
            self._saving.commit()
        self._on_pass()

    def _waiting_messages(self) -> list[Any]:
        messages: list[Any] = []
        with suppress(queue.Empty):
            while True:
                messages.append(self._inbox.get_nowait())
        return messages

    def _take(self) -> list[Any]:
        due_s = self._timers.next_due_s()
        timeout = 1.0 if due_s is None else min(1.0, max(0.0, due_s - self._clock.monotonic_s()))
        messages: list[Any] = []
        try:
            messages.append(self._inbox.get(timeout=timeout))
            while len(messages) < BATCH_MAX:
                messages.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return messages

    def begin(self) -> None:
        """Take up every stored run where it was, and reconcile with the disk."""
        now = self._clock.now()
        for record in self._store:
            if record.equipment_id in self.lanes:
                # What rests as it was left need not be read again; all else is looked at, a few at a time.
                self.lanes[record.equipment_id].known[record.run_path] = record.creation_signature
            if self._desk.is_mine(record):
                self._resume(record, now)
            lane = self.lanes.get(record.equipment_id)
            if lane is not None and record.verified_at is not None:
                lane.last_success_at = max(record.verified_at, lane.last_success_at or record.verified_at)
        for lane in self.lanes.values() if self._is_working and self._desk.only is None else ():
            self._working.probe(
                lane, is_light=True
            )  # one that is away, or waits to be bound, is told also with nothing to do
        self._scanning.want_scan(self.lanes)

    def _resume(self, record: RunRecord, now: datetime) -> None:
        """Take up a stored run: working states do their work again, waits go on where they were."""
        work = work_effect(record)
        if work is not None:
            if isinstance(work, Seal):
                wait_s = _remaining(record, now)
                work = replace(work, wait_s=wait_s)
            self._working.start_work(work)
        elif record.state is RunState.QUEUED:
            self._working.make_ready(record, wait_s=_remaining(record, now))
        elif record.state in AUDITABLE:
            self._working.plan_audit(record, now)

    def _end(self) -> None:
        """Cancel all work, wait for it a bounded time, and let outcomes that still arrive go: they will be repeated."""
        self._desk.stopping.set()
        for task in self._working.tasks.values():
            task.cancel.set()
        closers = [
            threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
            for lane in self.lanes.values()
            for executor in (lane.eyes, lane.hands)
        ]
        for closer in closers:
            closer.start()
        deadline_s = self._clock.monotonic_s() + STOP_WAIT_S
        for closer in closers:
            closer.join(max(0.0, deadline_s - self._clock.monotonic_s()))
        self.is_drained = not any(closer.is_alive() for closer in closers)

    def is_at_rest(self) -> bool:
        """Return whether nothing is under way and nothing more would happen without a new event or a longer wait."""
        if self._desk.entries or self._working.tasks or self._working.status_running or not self._inbox.empty():
            return False
        if self._looking.running or self._looking.rereads:
            return False
        for lane in self.lanes.values():
            if lane.is_scanning or lane.scan_again or (lane.asking and lane.waiting_since is None):
                return False
            if lane.is_ours and (lane.backlog or lane.pushing is not None):
                return False
            is_away = lane.waiting_since is not None or not lane.is_ours
            if self._is_working and not is_away and (lane.ready or lane.audits or lane.auditing):
                return False
        return not (self._is_working and any(self._settles(job_id, view) for job_id, view in self.views.items()))

    def _settles(self, job_id: str, view: View) -> bool:
        """Whether a run is about to count as complete. Where its root is away, nobody knows when."""
        record = self._desk.record(job_id)
        return view.is_settling and view.changes <= 1 and record is not None and self.lanes[record.equipment_id].is_ours

    def bind(self, equipment_id: str, operator: str) -> str:
        """Bind a destination at once, before `run`; return what is to be said. Raises: AgentError."""
        answers: list[Mapping[str, Any]] = []
        lane = self.lanes[equipment_id]
        lane.asking += 1
        self._working.on_bound(Bound(equipment_id, operator, bind(lane.ports), None, answers.append))
        self._saving.waits_for_room = False
        self._saving.commit()
        return str(answers[0]["message"])

    # --- messages --------------------------------------------------------------------------------------------------------

    def _handle(self, message: Any) -> None:
        match message:
            case Noticed():
                self._on_noticed(message)
            case ScanWanted():
                equipment_ids = self.lanes if message.equipment_ids is None else message.equipment_ids
                self._scanning.want_scan(equipment_ids, is_full=message.is_full)
            case Scanned():
                self._scanning.on_scanned(message)
            case Looked():
                self._looking.on_looked(message)
                if message.order.claim is not None:
                    self._end_start(self.lanes[message.order.place.equipment_id], message)
            case Worked():
                self._working.on_worked(message)
                self._looking.catch_up(message.job_id)
            case StatusWritten():
                self._working.on_status_written(message)
                self._looking.catch_up(message.job_id)
            case Probed():
                self._working.on_probed(message)
            case DestinationLost():
                lane = self.lanes[message.equipment_id]
                self._working.lane_waits(lane, str(message.error), message.error.wait)
            case Bound():
                self._working.on_bound(message)
            case Requested():
                self._requests.on_request(message)

    def _on_noticed(self, message: Noticed) -> None:
        about_creation = [path for path in message.paths if path.endswith(CREATION_FILE)]
        for run_path in runs_to_look_at(about_creation, self._desk.roots)[0]:
            self._looking.want_look(run_path, is_about_creation=True)
        others = [path for path in message.paths if not path.endswith(CREATION_FILE)]
        run_paths, equipment_ids = runs_to_look_at(others, self._desk.roots)
        for run_path in run_paths:
            self._looking.want_look(run_path)
        self._scanning.want_scan(equipment_ids, is_full=False)

    def _fire(self, kind: TimerKind, key: str) -> None:
        match kind:
            case TimerKind.LOOK:
                self._looking.want_look(key)
            case TimerKind.SCAN:
                self._scanning.want_scan((key,))
            case TimerKind.SCAN_AGAIN:
                self._scanning.want_scan((key,), is_full=False)
            case TimerKind.PROBE:
                self._working.probe(self.lanes[key])
            case TimerKind.SILENCE:
                self._working.on_silence(self.lanes[key])
            case TimerKind.READY:
                record = self._desk.record(key)
                if record is not None and record.state is RunState.QUEUED:
                    self._working.make_ready(record, wait_s=0)
            case TimerKind.WORK:
                effect = self._working.next_work.pop(key, None)
                if effect is not None:
                    self._working.start_work(replace(effect, wait_s=0) if isinstance(effect, Seal) else effect)
            case TimerKind.AUDIT:
                record = self._desk.record(key)
                if record is not None and record.state in AUDITABLE:
                    self._working.queue_audit(record)

    # --- after saving ----------------------------------------------------------------------------------------------------

    def _moved(self, before: RunRecord, after: RunRecord, move: Move) -> None:
        """Bring what the loop keeps in memory in line with a move that is durable now."""
        self._desk.on_move(after, move)
        lane = self.lanes[after.equipment_id]
        task = self._working.tasks.get(after.job_id)
        if task is not None and task.turn != after.turn:
            task.cancel.set()
        self._working.next_work.pop(after.job_id, None)
        self._timers.cancel(TimerKind.WORK, after.job_id)
        lane.parked.pop(after.job_id, None)
        if before.state is RunState.QUEUED:
            # A turn in the queue or a timer that is left over would cut short the wait after a failure.
            self._timers.cancel(TimerKind.READY, after.job_id)
            with suppress(ValueError):
                lane.ready.remove(after.job_id)
        if before.state is RunState.RUNNING and task is None:
            self._working.free_slot(lane, after.job_id)
        if before.state is RunState.AUDITING and lane.auditing == after.job_id:
            lane.auditing = None
        if after.state is RunState.QUEUED:
            self._working.make_ready(after, wait_s=after.wait_s)
        if after.state is RunState.ACQUIRING:
            self._looking.want_look(after.run_path)
        if move.trigger == Trigger.AUDIT_INTERRUPTED:
            wait_s = min(self._policy.audit_interval_s, self._policy.retry_schedule_s[-1])
            self._timers.set(TimerKind.AUDIT, after.job_id, due_s=self._clock.monotonic_s() + wait_s)
        elif after.state in AUDITABLE:
            self._working.plan_audit(after, self._clock.now())
        if move.trigger in (Trigger.SEALED, Trigger.PROVEN, Trigger.DIFFERENCE_GONE):
            lane.last_success_at = move.at

    # --- starting pushes and audits --------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Start what may start: a look right before each push, one audit at a time beside them."""
        for lane in self.lanes.values():
            self._looking.look_at_backlog(lane)
        if self._is_working:
            self._start_work()

    def _start_work(self) -> None:
        busy = [lane_id for lane_id, lane in self.lanes.items() if lane.pushing is not None]
        away = [
            lane_id
            for lane_id, lane in self.lanes.items()
            if lane.waiting_since or lane.root_problem or not lane.is_ours
        ]
        with_work = [lane_id for lane_id, lane in self.lanes.items() if lane.ready]
        for lane_id in lanes_to_start(
            with_work, busy=busy, waiting=away, pushes_max=self._policy.pushes_max, last_started=self._last_lane
        ):
            self._last_lane = lane_id
            self._start_next(self.lanes[lane_id])
        if not any(lane.auditing for lane in self.lanes.values()):
            for lane_id, lane in self.lanes.items():
                if lane.audits and lane_id not in away:
                    self._working.start_audit(lane)
                    break

    def _start_next(self, lane: Lane) -> None:
        while lane.ready:
            record = self._desk.record(lane.ready.popleft())
            if record is None or record.state is not RunState.QUEUED:
                continue
            place = place_of(record.run_path, self._desk.roots)
            if place is None:
                continue
            lane.pushing = record.job_id
            order = Look(
                place,
                declared_mismatches=record.declared_mismatches,
                claim=claim_of(record),
                destination=destination_of(place, self._policy.layout),
                judges_gate=True,
                asks_nas_fully=self._clock.monotonic_s() - lane.asked_fully_s >= ASK_FULLY_EVERY_S,
            )
            self._looking.look(order)
            return

    def _end_start(self, lane: Lane, message: Looked) -> None:
        """After the look before a push: keep the slot if the push goes on, else free it and put the run back."""
        record = self._desk.record_at(message.order.place.run_path)
        if record is not None and record.state is RunState.RUNNING:
            return
        job_id = message.order.claim.job_id if message.order.claim is not None else ""
        self._working.free_slot(lane, job_id)
        current = self._desk.record(job_id)
        if current is None or current.state is not RunState.QUEUED:
            return
        if isinstance(message.result, Unseen) and message.result.code == "destination":
            lane.ready.appendleft(job_id)
        elif isinstance(message.result, Unseen) and message.result.code == "missing":
            # Whether the run was moved, removed, or its root went away is the scan's to say.
            self._timers.set(TimerKind.READY, job_id, due_s=self._clock.monotonic_s() + MISSING_WAIT_S)
            self._scanning.want_scan((lane.equipment.equipment_id,), is_full=False)
        else:
            self._timers.set(TimerKind.READY, job_id, due_s=self._clock.monotonic_s() + UNREADABLE_WAIT_S)

    # --- for people ------------------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, tuple[Progress, float]]:
        """Return job id → (how far its work is, seconds since it began)."""
        return self._working.progress()

    @property
    def told(self) -> int:
        """How often something changed of what views, orphans and problems of folders tell."""
        return self._desk.told

    def refused_after_sync(self) -> dict[str, tuple[Finding, ...]]:
        """Return job id → findings that would block a run that is synced already."""
        refused = {job_id: found for job_id, view in list(self.views.items()) if (found := blocking(view.findings))}
        records = {job_id: self._store.get(job_id) for job_id in refused}
        return {
            job_id: found
            for job_id, found in refused.items()
            if (record := records[job_id]) is not None and record.sync_status == "synced"
        }

    @property
    def pause(self) -> Pause | None:
        """Why nothing is decided now; None in ordinary times."""
        return self._saving.pause

    def orphans(self) -> tuple[Finding, ...]:
        """Return a finding for every run-shaped folder without creation.json that the last scans saw."""
        return self._scanning.orphans()


def _require_root(lane: Lane) -> None:
    """Between the scan that said whose root it is and now another volume may have been mounted. Asks the disk.

    Before the first scan there is nothing to compare with; the loop itself does not ask then.
    """
    if lane.volume is not None and lane.scanner.volume(lane.equipment) != lane.volume:
        raise RootUnavailableError(f"{lane.root} is another folder or volume than a moment ago.")


def _remaining(record: RunRecord, now: datetime) -> float:
    if record.next_attempt_at is None:
        return 0.0
    return remaining_wait_s(due_at=record.next_attempt_at, wait_s=record.wait_s, now=now)
