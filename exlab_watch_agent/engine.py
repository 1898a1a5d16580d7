"""The loop that owns every record: take what happened, decide, save, hand out.

Watchers, timers, workers and operators only put messages into its inbox. One pass of the loop decides everything that
has arrived, makes it durable with one fsync, and only then starts effects: save, then act. What is deliberately not
here: rules of a run's life (core/decide.py), how an effect is carried out (handlers.py), and how parts are chosen
(agent.py).
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
from datetime import datetime, timedelta
from typing import Any

from exlab_watch_agent.core.bandwidth import rate_bytes_per_s
from exlab_watch_agent.core.completeness import settled
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.decide import claim_of, decide, verify_effect, work_effect
from exlab_watch_agent.core.destination import DestinationStanding
from exlab_watch_agent.core.discovery import RunPlace, destination_of, looks_like_run, place_of, runs_to_look_at
from exlab_watch_agent.core.effects import Effect, Seal, WorkEffect, WriteStatus
from exlab_watch_agent.core.events import (
    AuditDue,
    EffectFailed,
    Event,
    LocalChosen,
    Outcome,
    RetryRequested,
    RunVanished,
)
from exlab_watch_agent.core.gate import Finding, blocking, mark_overrides, orphan
from exlab_watch_agent.core.inventory import CREATION_FILE
from exlab_watch_agent.core.overrides import dangling_tombstones, next_expiry
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.queueing import lanes_to_start
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.retry import remaining_wait_s
from exlab_watch_agent.core.words import counted
from exlab_watch_agent.errors import AgentError, CancelledError, FailureKind, RootUnavailableError
from exlab_watch_agent.handlers import (
    Look,
    NotARun,
    NothingNew,
    Seen,
    Unseen,
    carry_out,
    look,
    write_status,
)
from exlab_watch_agent.lane import (
    ASK_FULLY_EVERY_S,
    PROBE_FIRST_S,
    Lane,
    LaneSetup,
    Looked,
    LookState,
    Noticed,
    Probed,
    Requested,
    Scanned,
    ScanWanted,
    StatusWritten,
    Task,
    View,
    Woken,
    Worked,
)
from exlab_watch_agent.ports import Clock, Control, Entry, Progress, RunStore, SeenRun
from exlab_watch_agent.statechart import RunState, Trigger
from exlab_watch_agent.timers import TimerKind, Timers

log = logging.getLogger(__name__)

BATCH_MAX = 256
PROBE_MAX_S = 60.0
REREAD_WAITS_S = (0.3, 1.0, 3.0)
"""A half-written creation.json is read again after these before it becomes a problem."""
UNREADABLE_WAIT_S = 5.0
PROBLEM_WAIT_S = 60.0
MISSING_WAIT_S = 60.0
STATUS_RETRY_S = 60.0
BACKGROUND_LOOKS_MAX = 1
LOOK_DUTY = 10
"""A run that keeps changing is looked at for at most one part in this many of a worker's time."""
SETTLED_STATES = frozenset({RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE, RunState.CLEANED})
AUDITABLE = frozenset({RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE, RunState.CONFLICT})
STOP_WAIT_S = 20.0
THREADS = 3


def _threads(name: str) -> Executor:
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=name)


class Engine:
    """Drives all runs. `run` is called once, from one thread; `post` from any."""

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
        make_executor: Callable[[str], Executor] = _threads,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._now_local = now_local
        self._on_move = on_move
        self._on_pass = on_pass
        self._only = None if only is None else set(only)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._timers = Timers()
        self.lanes: dict[str, Lane] = {}
        self._stopping = threading.Event()
        self._entries: list[Entry] = []
        self._fresh: dict[str, RunRecord] = {}
        self._fresh_paths: dict[str, str] = {}
        self._after_commit: list[Callable[[], None]] = []
        self._tasks: dict[str, Task] = {}
        self._next_work: dict[str, WorkEffect] = {}
        self._looks: dict[str, LookState] = {}
        self._status_wanted: dict[str, str] = {}
        self._status_running: set[str] = set()
        self.views: dict[str, View] = {}
        self.path_problems: dict[str, str] = {}
        self._rereads: dict[str, int] = {}
        self._last_lane: str | None = None
        self.is_drained = False
        for setup in lanes:
            self._add_lane(setup, trail_head, make_executor)
        self._roots = {lane_id: lane.root for lane_id, lane in self.lanes.items()}

    def _add_lane(
        self, setup: LaneSetup, trail_head: Callable[[], Mapping[str, Any]], make_executor: Callable[[str], Executor]
    ) -> None:
        lane_id = setup.equipment.equipment_id
        ports = setup.make_ports(lambda: self.lanes[lane_id].marker_id, trail_head)
        key = f"{lane_id} {ports.transport.describe()}"
        eyes, hands = make_executor(f"{lane_id}-eyes"), make_executor(f"{lane_id}-hands")
        self.lanes[lane_id] = Lane(
            setup.equipment, setup.root, setup.scanner, ports, eyes, hands, key, self._store.marker_id(key)
        )

    # --- the loop ----------------------------------------------------------------------------------------------------

    def post(self, message: Any) -> None:
        """Put a message into the inbox; never blocks."""
        self._inbox.put(message)

    def stop(self) -> None:
        """Ask the loop to end; safe from a signal handler's thread."""
        self._stopping.set()
        self._inbox.put(Woken())

    def run(self, *, until_rest: bool = False) -> None:
        """Work until stopped, or until all runs rest. Raises: StoreWriteError when a record cannot be made durable."""
        try:
            self.begin()
            while not self._stopping.is_set():
                self.turn_over(self._take())
                if until_rest and self.is_at_rest():
                    break
        finally:
            self._end()

    def turn_over(self, messages: Iterable[Any] | None = None) -> None:
        """One pass: decide what has arrived and what is due, make it durable, let it take effect. Waits for nothing.

        `messages`: what was taken from the inbox; None to take what is there.
        """
        for message in self._waiting_messages() if messages is None else messages:
            self._handle(message)
        for kind, key in self._timers.take_due(self._clock.monotonic_s()):
            self._fire(kind, key)
        self._schedule()
        self._commit()
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
            if self._is_mine(record):
                self._resume(record, now)
            lane = self.lanes.get(record.equipment_id)
            if lane is not None and record.verified_at is not None:
                lane.last_success_at = max(record.verified_at, lane.last_success_at or record.verified_at)
        self._want_scan(self.lanes)

    def _is_mine(self, record: RunRecord) -> bool:
        return record.equipment_id in self.lanes and (self._only is None or record.run_path in self._only)

    def _resume(self, record: RunRecord, now: datetime) -> None:
        """Take up a stored run: working states do their work again, waits go on where they were."""
        work = work_effect(record)
        if work is not None:
            if isinstance(work, Seal):
                wait_s = _remaining(record, now)
                work = replace(work, wait_s=wait_s)
            self._start_work(work)
        elif record.state is RunState.QUEUED:
            self._make_ready(record, wait_s=_remaining(record, now))
        elif record.state in AUDITABLE:
            self._plan_audit(record, now)

    def _end(self) -> None:
        """Cancel all work, wait for it a bounded time, and let outcomes that still arrive go: they will be repeated."""
        self._stopping.set()
        for task in self._tasks.values():
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
        if self._entries or self._tasks or self._status_running or not self._inbox.empty():
            return False
        if any(state.is_running or state.again for state in self._looks.values()):
            return False
        for lane in self.lanes.values():
            if lane.is_scanning or lane.scan_again or lane.backlog or lane.pushing is not None:
                return False
            is_away = lane.waiting_since is not None or lane.root_problem is not None
            if not is_away and (lane.ready or lane.audits or lane.auditing):
                return False
        return not any(view.is_settling and view.changes <= 1 for view in self.views.values()) and not self._rereads

    # --- messages ----------------------------------------------------------------------------------------------------

    def _handle(self, message: Any) -> None:
        match message:
            case Noticed():
                self._on_noticed(message)
            case ScanWanted():
                self._want_scan(self.lanes if message.equipment_ids is None else message.equipment_ids)
            case Scanned():
                self._on_scanned(message)
            case Looked():
                self._on_looked(message)
            case Worked():
                self._on_worked(message)
            case StatusWritten():
                self._on_status_written(message)
            case Probed():
                self._on_probed(message)
            case Requested():
                self._on_request(message)

    def _on_noticed(self, message: Noticed) -> None:
        about_creation = [path for path in message.paths if path.endswith(CREATION_FILE)]
        for run_path in runs_to_look_at(about_creation, self._roots)[0]:
            self._want_look(run_path, is_about_creation=True)
        others = [path for path in message.paths if not path.endswith(CREATION_FILE)]
        run_paths, equipment_ids = runs_to_look_at(others, self._roots)
        for run_path in run_paths:
            self._want_look(run_path)
        self._want_scan(equipment_ids, is_full=False)

    def _fire(self, kind: TimerKind, key: str) -> None:
        match kind:
            case TimerKind.LOOK:
                self._want_look(key)
            case TimerKind.SCAN:
                self._want_scan((key,))
            case TimerKind.PROBE:
                self._probe(self.lanes[key])
            case TimerKind.READY:
                record = self._record(key)
                if record is not None and record.state is RunState.QUEUED:
                    self._make_ready(record, wait_s=0)
            case TimerKind.WORK:
                effect = self._next_work.pop(key, None)
                if effect is not None:
                    self._start_work(replace(effect, wait_s=0) if isinstance(effect, Seal) else effect)
            case TimerKind.AUDIT:
                record = self._record(key)
                if record is not None and record.state in AUDITABLE:
                    self._queue_audit(record)

    # --- scans -------------------------------------------------------------------------------------------------------

    def _want_scan(self, equipment_ids: Iterable[str], *, is_full: bool = True) -> None:
        """Reconcile lanes with the disk; a scan that is not full only looks for runs that came, went or were edited."""
        for equipment_id in equipment_ids:
            lane = self.lanes[equipment_id]
            lane.scan_is_full |= is_full
            if lane.is_scanning:
                lane.scan_again = True
                continue
            lane.is_scanning = True
            self._see(lane, self._scan, lane, lane.scan_is_full)
            lane.scan_is_full = False

    def _scan(self, lane: Lane, is_full: bool) -> None:
        equipment_id = lane.equipment.equipment_id
        try:
            self.post(Scanned(equipment_id, lane.scanner.scan(lane.equipment), is_full=is_full))
        except RootUnavailableError as error:
            self.post(Scanned(equipment_id, error=str(error)))
        except Exception as error:  # a defect must not leave the lane scanning for ever
            log.exception("a scan of %s failed", equipment_id)
            self.post(Scanned(equipment_id, error=f"the scan failed: {error}"))

    def _on_scanned(self, message: Scanned) -> None:
        lane = self.lanes[message.equipment_id]
        lane.is_scanning = False
        self._timers.set(TimerKind.SCAN, message.equipment_id, due_s=self._clock.monotonic_s() + self._policy.rescan_s)
        if lane.scan_again:
            lane.scan_again = False
            self._want_scan((message.equipment_id,), is_full=lane.scan_is_full)
        if message.error is not None:
            if lane.root_problem != message.error:
                log.warning("%s: %s", message.equipment_id, message.error)
            lane.root_problem = message.error
            self._timers.set(TimerKind.SCAN, message.equipment_id, due_s=self._clock.monotonic_s() + PROBE_FIRST_S)
            return
        lane.root_problem = None
        lane.last_scan_at = self._clock.now()
        lane.orphans = {}
        for seen in message.seen:
            self._on_seen(lane, seen, is_full=message.is_full)
        # A run that is gone from its place may be the one that is new in another: that is to be known first.
        has_strangers = any(
            seen.creation_signature is not None and self._record_at(seen.place.run_path) is None
            for seen in message.seen
        )
        self._find_vanished(lane, {seen.place.run_path for seen in message.seen}, may_have_moved=has_strangers)

    def _on_seen(self, lane: Lane, seen: SeenRun, *, is_full: bool) -> None:
        path = seen.place.run_path
        if seen.creation_signature is None:
            if looks_like_run(seen.place.leaf):
                lane.orphans[path] = seen.place
            return
        record = self._record_at(path)
        view = self.views.get(record.job_id) if record is not None else None
        is_known = view is not None and view.signature == seen.creation_signature
        # A sealed run's data are looked at by its audits; its creation.json whenever it is another one.
        is_settled = record is not None and record.state in SETTLED_STATES
        if not is_known:
            self._want_look(path)
        elif is_full and not is_settled:
            lane.backlog[path] = None

    def _find_vanished(self, lane: Lane, paths: set[str], *, may_have_moved: bool) -> None:
        for stored in self._store:
            if stored.equipment_id != lane.equipment.equipment_id or stored.run_path in paths:
                continue
            record = self._record(stored.job_id) or stored  # it may have been moved in this very pass
            if record.state in (RunState.ACQUIRING, RunState.BLOCKED, RunState.QUEUED) and self._is_mine(record):
                if lane.scanner.is_there(record.run_path):  # it came, or was moved here, after the scan had passed
                    continue
                view = self.views.setdefault(record.job_id, View())
                view.problem = f"{record.run_path} is gone: put it back, or ignore this if it was removed on purpose"
                if record.state is RunState.QUEUED and lane.pushing != record.job_id and not may_have_moved:
                    self._decide(record.job_id, RunVanished())

    # --- looks -------------------------------------------------------------------------------------------------------

    def _want_look(self, run_path: str, *, is_about_creation: bool = False) -> None:
        """Look at a run soon: one look at a time for each run, and not too often while it keeps changing."""
        place = place_of(run_path, self._roots)
        if place is None or (self._only is not None and run_path not in self._only):
            return
        state = self._looks.setdefault(run_path, LookState())
        now_s = self._clock.monotonic_s()
        if state.is_running:
            state.again = True
        elif now_s < state.not_before_s and not is_about_creation:
            self._timers.set_earlier(TimerKind.LOOK, run_path, due_s=state.not_before_s)
        else:
            state.is_running = True
            record = self._record_at(run_path)
            view = self.views.get(record.job_id) if record is not None else None
            known_signature = view.own_signature if view is not None and is_about_creation else None
            if known_signature is None:  # else the look may end at our own write, and the planned one must still come
                self._timers.cancel(TimerKind.LOOK, run_path)
            self._look(
                Look(
                    place,
                    declared_mismatches=record.declared_mismatches if record is not None else (),
                    known_signature=known_signature,
                    judges_gate=record is not None and record.state is not RunState.ACQUIRING,
                )
            )

    def _look_at_backlog(self, lane: Lane) -> None:
        """Look at what a full scan asks for a few at a time, so that a run that is being written now goes before them."""
        while lane.backlog and lane.background_looks < BACKGROUND_LOOKS_MAX:
            path = next(iter(lane.backlog))
            del lane.backlog[path]
            self._want_look(path)
            state = self._looks.get(path)
            if state is not None and state.is_running and not state.is_background:
                state.is_background = True
                lane.background_looks += 1

    def _look(self, order: Look) -> None:
        lane = self.lanes[order.place.equipment_id]
        self._see(lane, self._do_look, order, lane)

    def _do_look(self, order: Look, lane: Lane) -> None:
        began_s = self._clock.monotonic_s()
        try:
            result = look(order, lane.ports)
        except Exception as error:  # a defect must not leave the run unseen without a word
            log.exception("a look at %s failed", order.place.run_path)
            result = Unseen("unreadable", f"the look failed: {error}")
        self.post(Looked(order, result, began_s, self._clock.monotonic_s()))

    def _on_looked(self, message: Looked) -> None:
        path = message.order.place.run_path
        lane = self.lanes[message.order.place.equipment_id]
        is_start = message.order.claim is not None
        if not is_start:
            self._end_look(path, message)
        record = self._record_at(path)
        match message.result:
            case Unseen():
                self._on_unseen(lane, path, message.result, record)
            case NotARun():
                self.path_problems.pop(path, None)
            case NothingNew():
                pass
            case Seen():
                self.path_problems.pop(path, None)
                self._rereads.pop(path, None)
                self._on_seen_run(lane, message, message.result, record)
        if is_start:
            self._end_start(lane, message)

    def _end_look(self, path: str, message: Looked) -> None:
        state = self._looks[path]
        state.is_running = False
        if state.is_background:
            state.is_background = False
            self.lanes[message.order.place.equipment_id].background_looks -= 1
        state.not_before_s = message.ended_s + LOOK_DUTY * (message.ended_s - message.began_s)
        if state.again:
            state.again = False
            self._want_look(path)

    def _on_unseen(self, lane: Lane, path: str, result: Unseen, record: RunRecord | None) -> None:
        now_s = self._clock.monotonic_s()
        if result.code == "destination":
            self._lane_waits(lane, result.message)
            return
        if result.code == "creation":
            rereads = self._rereads.get(path, 0)
            if rereads < len(REREAD_WAITS_S):
                self._rereads[path] = rereads + 1
                self._timers.set(TimerKind.LOOK, path, due_s=now_s + REREAD_WAITS_S[rereads])
                return
            self.path_problems[path] = result.message
            # A permission or a lock that is mended leaves no event.
            self._timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + PROBLEM_WAIT_S)
        self._rereads.pop(path, None)
        if result.code == "missing":
            self.path_problems.pop(path, None)
        if result.code == "unreadable":
            self._timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + UNREADABLE_WAIT_S)
        if record is not None:
            view = self.views.setdefault(record.job_id, View())
            if result.code == "missing" and view.reason != result.message:
                self._want_scan((record.equipment_id,), is_full=False)  # only a whole scan can say that it is gone
            view.reason = result.message
            view.is_settling = False

    def _on_seen_run(self, lane: Lane, message: Looked, seen: Seen, record: RunRecord | None) -> None:
        if seen.marker_id is not None:
            self._remember_marker(lane, seen.marker_id)
            if message.order.asks_nas_fully:
                lane.asked_fully_s = message.ended_s
        if record is None:
            record = self._register(message.order.place, seen)
        if record.identity != seen.creation.identity and not record.is_sealed:
            record = self._save(replace(record, identity=seen.creation.identity), Entry("identity_changed"))
        record = self._note_overrides(record, seen)
        view = self.views.setdefault(record.job_id, View())
        view.problem = ""
        view.signature = seen.signature
        quiet_s = self._observe_quiet(view, message, seen.inspected.fingerprint)
        completeness = seen.inspected.completeness
        if record.state is RunState.ACQUIRING:
            # Later states ask for the same fingerprint instead, so that a restart does not make runs settle again.
            completeness = settled(completeness, quiet_s=quiet_s, settle_s=self._policy.settle_s)
        now = self._clock.now()
        view.findings = mark_overrides(seen.inspected.findings, seen.creation.overrides, now=now)
        view.reason = completeness.reason
        view.is_settling = seen.inspected.completeness.is_complete and not completeness.is_complete
        inspected = replace(seen.inspected, completeness=completeness)
        if inspected.destination is not None and self._has_twin_at(record, inspected.destination_path):
            inspected = replace(inspected, destination=DestinationStanding.OCCUPIED)
        self._decide(record.job_id, inspected)
        self._plan_next_look(message.order.place.run_path, view, seen, quiet_s)

    def _has_twin_at(self, record: RunRecord, destination: str) -> bool:
        """Whether another job has this destination: a copied folder claims to be the run that it was copied from."""
        return any(
            twin.job_id != record.job_id and (twin.equipment_id, twin.destination) == (record.equipment_id, destination)
            for twin in self._twins(record.identity)
        )

    def _twins(self, identity: RunIdentity) -> list[RunRecord]:
        """Return the known runs of this identity as they are now: one may have been moved in this very pass."""
        return [self._fresh.get(stored.job_id, stored) for stored in self._store.by_identity(identity)]

    def _observe_quiet(self, view: View, message: Looked, fingerprint: str) -> float:
        """Return for how long the run is known to have been as it is: only our own two looks count, no file's times."""
        if fingerprint != view.fingerprint:
            view.fingerprint = fingerprint
            view.quiet_since_s = message.ended_s
            view.changes += 1
            view.looks_unchanged = 0
            return 0.0
        view.looks_unchanged += 1
        return max(0.0, message.began_s - view.quiet_since_s)

    def _plan_next_look(self, path: str, view: View, seen: Seen, quiet_s: float) -> None:
        record = self._record_at(path)
        if record is None:
            return
        now_s = self._clock.monotonic_s()
        if record.state is RunState.ACQUIRING:
            if view.is_settling:
                wait_s = max(0.02, self._policy.settle_s - quiet_s)
            else:
                first_s = max(1.0, self._policy.settle_s)
                wait_s = min(self._policy.rescan_s, first_s * 2.0 ** min(view.looks_unchanged, 20))
            self._timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + wait_s)
            return
        expiry = next_expiry(seen.creation.overrides, now=self._clock.now())
        if expiry is not None and record.state not in SETTLED_STATES:
            wait_s = max(0.0, (expiry - self._clock.now()).total_seconds()) + 0.01
            self._timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + wait_s)

    def _register(self, place: RunPlace, seen: Seen) -> RunRecord:
        """Return the record of a run at a path where none was known: one that was moved there, or a new one."""
        lane = self.lanes[place.equipment_id]
        for twin in self._twins(seen.creation.identity):
            if twin.equipment_id == place.equipment_id and not lane.scanner.is_there(twin.run_path):
                return self._move_path(twin, place)
        now = self._clock.now()
        record = RunRecord(
            job_id=uuid.uuid4().hex,
            run_path=place.run_path,
            equipment_id=place.equipment_id,
            project=place.project,
            run_kind=seen.creation.run_kind,
            identity=seen.creation.identity,
            entered_at=now,
            discovered_at=now,
        )
        move = Move(now, "discovered", None, record.state, "creation.json was noticed")
        self._after_commit.append(lambda: self._on_move(record, move))
        return self._save(record, Entry("transition", move=move))

    def _move_path(self, record: RunRecord, place: RunPlace) -> RunRecord:
        log.info("%s was moved to %s", record.run_path, place.run_path)
        moved = replace(record, run_path=place.run_path, project=place.project, turn=record.turn + 1)
        self.path_problems.pop(record.run_path, None)
        saved = self._save(moved, Entry("moved", data={"from": record.run_path, "to": place.run_path}))
        work = work_effect(saved)
        if work is not None:
            self._cancel(saved.job_id)
            self._after_commit.append(lambda: self._start_work(work))
        return saved

    def _note_overrides(self, record: RunRecord, seen: Seen) -> RunRecord:
        overrides = seen.creation.overrides
        if len(overrides) == record.overrides_seen:
            return record
        for tombstone in dangling_tombstones(overrides):
            if tombstone.index >= record.overrides_seen:
                log.warning("%s: a tombstone revokes %s, which is not there", record.run_path, tombstone.revokes)
        saved = replace(record, overrides_seen=len(overrides))
        for entry in overrides[record.overrides_seen :]:
            kind = "override_revoked" if entry.revokes is not None else "override_added"
            data = {
                "id": entry.id,
                "problem_class": entry.problem_class,
                "revokes": entry.revokes,
                "reason": entry.reason,
                "recorded_at": entry.recorded_at,
                "expires_at": entry.expires_at,
            }
            self._save(saved, Entry(kind, operator=entry.operator or None, data=data))
        if len(overrides) < record.overrides_seen:
            self._save(saved, Entry("overrides_removed", data={"from": record.overrides_seen, "to": len(overrides)}))
        return saved

    # --- deciding and saving -----------------------------------------------------------------------------------------

    def _record(self, job_id: str) -> RunRecord | None:
        return self._fresh.get(job_id) or self._store.get(job_id)

    def _record_at(self, run_path: str) -> RunRecord | None:
        job_id = self._fresh_paths.get(run_path)
        if job_id is not None:
            return self._fresh[job_id]
        stored = self._store.by_path(run_path)
        record = self._record(stored.job_id) if stored is not None else None
        # A run that was moved away in this very pass leaves its place to another.
        return record if record is not None and record.run_path == run_path else None

    def _save(self, record: RunRecord, entry: Entry) -> RunRecord:
        """Put a line of the trail beside the others of this pass; it is true for this pass, and durable at its end."""
        self._entries.append(replace(entry, record=record))
        self._fresh[record.job_id] = record
        self._fresh_paths[record.run_path] = record.job_id
        return record

    def _decide(self, job_id: str, event: Event) -> RunRecord | None:
        record = self._record(job_id)
        if record is None:
            return None
        step = decide(record, event, now=self._clock.now(), policy=self._policy)
        move = step.move
        if move is not None:
            self._save(step.record, Entry("transition", move=move, operator=move.operator))
            self._after_commit.append(lambda: self._moved(record, step.record, move))
        for effect in step.effects:
            self._after_commit.append(lambda effect=effect: self._start(effect))  # type: ignore[misc]
        return step.record

    def _commit(self) -> None:
        """Make this pass durable, then let it take effect. Repeats while what took effect decided something more."""
        while self._entries or self._after_commit:
            if self._entries:
                self._store.commit(self._entries, at=self._clock.now())
            self._entries.clear()
            self._fresh.clear()
            self._fresh_paths.clear()
            actions, self._after_commit = self._after_commit, []
            for action in actions:
                action()
            self._schedule()

    def _moved(self, before: RunRecord, after: RunRecord, move: Move) -> None:
        """Bring what the loop keeps in memory in line with a move that is durable now."""
        self._on_move(after, move)
        lane = self.lanes[after.equipment_id]
        task = self._tasks.get(after.job_id)
        if task is not None and task.turn != after.turn:
            task.cancel.set()
        self._next_work.pop(after.job_id, None)
        self._timers.cancel(TimerKind.WORK, after.job_id)
        lane.parked.pop(after.job_id, None)
        if before.state is RunState.QUEUED:
            # A turn in the queue or a timer that is left over would cut short the wait after a failure.
            self._timers.cancel(TimerKind.READY, after.job_id)
            with suppress(ValueError):
                lane.ready.remove(after.job_id)
        if before.state is RunState.RUNNING and task is None:
            self._free_slot(lane, after.job_id)
        if before.state is RunState.AUDITING and lane.auditing == after.job_id:
            lane.auditing = None
        if after.state is RunState.QUEUED:
            self._make_ready(after, wait_s=after.wait_s)
        if after.state is RunState.ACQUIRING:
            self._want_look(after.run_path)
        if move.trigger == Trigger.AUDIT_INTERRUPTED:
            wait_s = min(self._policy.audit_interval_s, self._policy.retry_schedule_s[-1])
            self._timers.set(TimerKind.AUDIT, after.job_id, due_s=self._clock.monotonic_s() + wait_s)
        elif after.state in AUDITABLE:
            self._plan_audit(after, self._clock.now())
        if move.trigger in (Trigger.SEALED, Trigger.PROVEN, Trigger.DIFFERENCE_GONE):
            lane.last_success_at = move.at

    # --- effects -----------------------------------------------------------------------------------------------------

    def _start(self, effect: Effect) -> None:
        if isinstance(effect, WriteStatus):
            self._status_wanted[effect.job_id] = effect.sync_status
            self._write_status(effect.job_id)
        else:
            self._start_work(effect)

    def _start_work(self, effect: WorkEffect) -> None:
        """Start a run's work: one at a time for each run, after its wait, and only while the NAS is not known to be away."""
        lane = self.lanes[effect.equipment_id]
        if effect.job_id in self._tasks:
            self._next_work[effect.job_id] = effect
            return
        if isinstance(effect, Seal) and effect.wait_s > 0:
            self._next_work[effect.job_id] = effect
            self._timers.set(TimerKind.WORK, effect.job_id, due_s=self._clock.monotonic_s() + effect.wait_s)
            return
        if isinstance(effect, Seal) and effect.job_id in self._status_running:
            # The seal writes "synced" itself; a status that is still on its way would overwrite it afterwards.
            self._next_work[effect.job_id] = effect
            return
        if lane.waiting_since is not None:
            lane.parked[effect.job_id] = effect
            return
        record = self._record(effect.job_id)
        if record is not None and record.state is RunState.RUNNING:
            lane.pushing = effect.job_id
        task = Task(effect.turn, threading.Event(), lane, began_s=self._clock.monotonic_s())
        self._tasks[effect.job_id] = task
        self._submit(lane.hands, self._work, effect, task, lane)

    def _work(self, effect: WorkEffect, task: Task, lane: Lane) -> None:
        def report(progress: Progress) -> None:
            task.progress = progress

        control = Control(
            is_cancelled=task.cancel.is_set,
            report=report,
            rate_bytes_per_s=lambda: rate_bytes_per_s(lane.equipment.bandwidth, self._now_local()),
        )
        outcome: Outcome | None = None
        try:
            outcome = carry_out(effect, lane.ports, control)
        except CancelledError:
            pass
        except Exception as error:  # a defect is shown as a failure of the run, never swallowed
            log.exception("%s of %s failed", type(effect).__name__, effect.run_path)
            outcome = EffectFailed(
                effect.turn, FailureKind.UNKNOWN, f"an internal error stopped it ({error!r}): see the central log"
            )
        self.post(Worked(effect.job_id, effect.turn, outcome))

    def _on_worked(self, message: Worked) -> None:
        task = self._tasks.pop(message.job_id)
        before = self._record(message.job_id)
        assert before is not None, "a task belongs to a known run"
        if message.outcome is not None and not self._stopping.is_set():
            if isinstance(message.outcome, EffectFailed) and message.outcome.is_destination_away:
                self._lane_waits(task.lane, message.outcome.message)
            self._decide(message.job_id, message.outcome)
        after = self._record(message.job_id)
        assert after is not None, "a record does not go away"
        if after.state is not RunState.RUNNING:
            self._free_slot(task.lane, message.job_id)
        self._start_waiting_work(message.job_id)

    def _start_waiting_work(self, job_id: str) -> None:
        """Start what waited for the run's earlier work or for the writing of its status, and for nothing else."""
        waiting = self._next_work.get(job_id)
        if waiting is None or job_id in self._tasks or self._timers.has(TimerKind.WORK, job_id):
            return
        del self._next_work[job_id]
        self._start_work(waiting)

    def _cancel(self, job_id: str) -> None:
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel.set()

    def _free_slot(self, lane: Lane, job_id: str) -> None:
        if lane.pushing == job_id:
            lane.pushing = None

    def _write_status(self, job_id: str) -> None:
        record = self._record(job_id)
        if record is None or job_id in self._status_running:
            return
        self._status_running.add(job_id)
        lane = self.lanes[record.equipment_id]
        effect = WriteStatus(job_id, record.run_path, record.equipment_id, self._status_wanted[job_id])
        self._see(lane, self._do_write_status, effect, lane)

    def _do_write_status(self, effect: WriteStatus, lane: Lane) -> None:
        try:
            signature = write_status(effect, lane.ports)
            self.post(StatusWritten(effect.job_id, effect.sync_status, signature, None))
        except AgentError as error:
            self.post(StatusWritten(effect.job_id, effect.sync_status, None, str(error)))
        except Exception as error:  # a defect must not leave the status unwritten without a word
            log.exception("writing the status of %s failed", effect.run_path)
            self.post(StatusWritten(effect.job_id, effect.sync_status, None, f"it could not be written: {error}"))

    def _on_status_written(self, message: StatusWritten) -> None:
        self._status_running.discard(message.job_id)
        view = self.views.setdefault(message.job_id, View())
        if message.error is not None:
            view.problem = message.error
            record = self._record(message.job_id)
            if record is not None:
                due_s = self._clock.monotonic_s() + STATUS_RETRY_S
                self._timers.set_earlier(TimerKind.LOOK, record.run_path, due_s=due_s)
        else:
            view.own_signature = view.signature = message.signature
        if self._status_wanted.get(message.job_id) == message.status:
            del self._status_wanted[message.job_id]
        elif message.job_id in self._status_wanted:
            self._write_status(message.job_id)
        self._start_waiting_work(message.job_id)

    def _see(self, lane: Lane, function: Callable[..., None], *arguments: Any) -> None:
        self._submit(lane.eyes, function, *arguments)

    def _submit(self, executor: Executor, function: Callable[..., None], *arguments: Any) -> None:
        if not self._stopping.is_set():
            executor.submit(function, *arguments)

    # --- lanes -------------------------------------------------------------------------------------------------------

    def _make_ready(self, record: RunRecord, *, wait_s: float) -> None:
        if wait_s > 0:
            self._timers.set(TimerKind.READY, record.job_id, due_s=self._clock.monotonic_s() + wait_s)
        elif record.job_id not in self.lanes[record.equipment_id].ready:
            self.lanes[record.equipment_id].ready.append(record.job_id)

    def _schedule(self) -> None:
        """Start what may start: a look right before each push, one audit at a time beside them."""
        busy = [lane_id for lane_id, lane in self.lanes.items() if lane.pushing is not None]
        away = [lane_id for lane_id, lane in self.lanes.items() if lane.waiting_since or lane.root_problem]
        with_work = [lane_id for lane_id, lane in self.lanes.items() if lane.ready]
        for lane_id in lanes_to_start(
            with_work, busy=busy, waiting=away, pushes_max=self._policy.pushes_max, last_started=self._last_lane
        ):
            self._last_lane = lane_id
            self._start_next(self.lanes[lane_id])
        for lane in self.lanes.values():
            self._look_at_backlog(lane)
        if not any(lane.auditing for lane in self.lanes.values()):
            for lane_id, lane in self.lanes.items():
                if lane.audits and lane_id not in away:
                    self._start_audit(lane)
                    break

    def _start_next(self, lane: Lane) -> None:
        while lane.ready:
            record = self._record(lane.ready.popleft())
            if record is None or record.state is not RunState.QUEUED:
                continue
            place = place_of(record.run_path, self._roots)
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
            self._look(order)
            return

    def _end_start(self, lane: Lane, message: Looked) -> None:
        """After the look before a push: keep the slot if the push goes on, else free it and put the run back."""
        record = self._record_at(message.order.place.run_path)
        if record is not None and record.state is RunState.RUNNING:
            return
        job_id = message.order.claim.job_id if message.order.claim is not None else ""
        self._free_slot(lane, job_id)
        current = self._record(job_id)
        if current is None or current.state is not RunState.QUEUED:
            return
        if isinstance(message.result, Unseen) and message.result.code == "destination":
            lane.ready.appendleft(job_id)
        elif isinstance(message.result, Unseen) and message.result.code == "missing":
            # Whether the run was moved, removed, or its root went away is the scan's to say.
            self._timers.set(TimerKind.READY, job_id, due_s=self._clock.monotonic_s() + MISSING_WAIT_S)
            self._want_scan((lane.equipment.equipment_id,), is_full=False)
        else:
            self._timers.set(TimerKind.READY, job_id, due_s=self._clock.monotonic_s() + UNREADABLE_WAIT_S)

    def _lane_waits(self, lane: Lane, reason: str) -> None:
        if lane.waiting_since is None:
            lane.waiting_since = self._clock.now()
            lane.probe_wait_s = PROBE_FIRST_S
            log.warning("%s: NAS unreachable: %s", lane.equipment.equipment_id, reason)
            self._timers.set(
                TimerKind.PROBE, lane.equipment.equipment_id, due_s=self._clock.monotonic_s() + lane.probe_wait_s
            )
        lane.waiting_reason = reason

    def _probe(self, lane: Lane) -> None:
        self._see(lane, self._do_probe, lane)

    def _do_probe(self, lane: Lane) -> None:
        equipment_id = lane.equipment.equipment_id
        try:
            marker_id = lane.ports.transport.probe(expected_marker_id=lane.marker_id)
            self.post(Probed(equipment_id, marker_id, None))
        except AgentError as error:
            self.post(Probed(equipment_id, None, str(error)))
        except Exception as error:  # a defect must not end the probing
            log.exception("a probe of %s failed", equipment_id)
            self.post(Probed(equipment_id, None, f"the probe failed: {error}"))

    def _on_probed(self, message: Probed) -> None:
        lane = self.lanes[message.equipment_id]
        if message.error is not None:
            lane.waiting_reason = message.error
            lane.probe_wait_s = min(PROBE_MAX_S, lane.probe_wait_s * 2)
            self._timers.set(TimerKind.PROBE, message.equipment_id, due_s=self._clock.monotonic_s() + lane.probe_wait_s)
            return
        if message.marker_id is not None:
            self._remember_marker(lane, message.marker_id)
        if lane.waiting_since is not None:
            log.info("%s: the NAS is back", message.equipment_id)
        lane.waiting_since, lane.waiting_reason = None, ""
        parked, lane.parked = lane.parked, {}
        for effect in parked.values():
            self._after_commit.append(lambda effect=effect: self._start_work(effect))  # type: ignore[misc]

    def _remember_marker(self, lane: Lane, marker_id: str) -> None:
        if lane.marker_id == marker_id:
            return
        lane.marker_id = marker_id
        self._entries.append(Entry("destination_bound", data={"root": lane.marker_key, "marker_id": marker_id}))

    # --- audits ------------------------------------------------------------------------------------------------------

    def _plan_audit(self, record: RunRecord, now: datetime) -> None:
        if record.verified_at is None:
            return
        due = record.verified_at + timedelta(seconds=self._policy.audit_interval_s)
        wait_s = remaining_wait_s(due_at=due, wait_s=self._policy.audit_interval_s, now=now)
        self._timers.set(TimerKind.AUDIT, record.job_id, due_s=self._clock.monotonic_s() + wait_s)

    def _queue_audit(self, record: RunRecord) -> None:
        audits = self.lanes[record.equipment_id].audits
        if record.job_id not in audits:
            audits.append(record.job_id)

    def _start_audit(self, lane: Lane) -> None:
        job_id = lane.audits.popleft()
        record = self._record(job_id)
        if record is None or record.state not in AUDITABLE:
            return
        after = self._decide(job_id, AuditDue())
        if after is not None and after.state is RunState.AUDITING:
            lane.auditing = job_id
        else:  # a conflict stays where it is: look again whether the difference is gone
            self._timers.set(TimerKind.AUDIT, job_id, due_s=self._clock.monotonic_s() + self._policy.audit_interval_s)

    # --- operators ---------------------------------------------------------------------------------------------------

    def _on_request(self, message: Requested) -> None:
        try:
            text = self._obey(message.request)
            answer = {"ok": True, "message": text}
        except AgentError as error:
            answer = {"ok": False, "message": str(error)}
        self._after_commit.append(lambda: message.reply(answer))

    def _obey(self, request: Mapping[str, Any]) -> str:
        command, operator = str(request.get("command")), str(request.get("operator") or "unknown")
        self._entries.append(
            Entry("operator_command", operator=operator, data={k: v for k, v in request.items() if k != "operator"})
        )
        if command == "scan":
            self._want_scan(self.lanes)
            return "a scan was started"
        if command == "retry" and request.get("all"):
            failed = [
                record.job_id for record in self._store if record.state is RunState.FAILED and self._is_mine(record)
            ]
            for job_id in failed:
                self._decide(job_id, RetryRequested(operator))
            return f"{counted(len(failed), 'failed run')} put back into the queue"
        if command == "enqueue":
            return self._enqueue(str(request.get("run_path")))
        if command == "look":
            self._want_look(str(request.get("run_path")), is_about_creation=False)
            return "the run is looked at"
        record = self._requested_run(request)
        match command:
            case "retry":
                return self._retry(record, operator)
            case "sync":
                return self._sync(record, operator)
            case "verify":
                return self._verify(record, operator, str(request.get("reason") or "an operator asked for it"))
            case "resolve":
                return self._resolve(record, operator, str(request.get("reason") or ""))
        raise AgentError(f"{command} is no command that this agent knows.")

    def _enqueue(self, run_path: str) -> str:
        """Look after this run from now on, also where this engine does not look after all that it finds."""
        if place_of(run_path, self._roots) is None:
            raise AgentError(f"{run_path} is no run of a configured equipment.")
        if self._only is not None:
            self._only.add(run_path)
        record = self._record_at(run_path)
        if record is not None and record.state is RunState.FAILED:
            self._decide(record.job_id, RetryRequested("program"))
        self._want_look(run_path)
        return record.job_id if record is not None else ""

    def _requested_run(self, request: Mapping[str, Any]) -> RunRecord:
        record = self._record(str(request.get("job_id"))) or self._record_at(str(request.get("run_path")))
        if record is None:
            raise AgentError("No such run is known: check the path, or start `exlab-watch-agent run` to find new runs.")
        if record.equipment_id not in self.lanes:
            raise AgentError(f"{record.equipment_id} is not in the configuration any more: put it back first.")
        return record

    def _retry(self, record: RunRecord, operator: str) -> str:
        if record.state is RunState.FAILED:
            self._decide(record.job_id, RetryRequested(operator))
            return "the run is queued again"
        if record.state is RunState.QUEUED:
            self._timers.cancel(TimerKind.READY, record.job_id)
            self._make_ready(record, wait_s=0)
            return "the run does not wait any longer"
        raise AgentError(f"The run is {record.state}, and only a failed or queued one can be tried again.")

    def _sync(self, record: RunRecord, operator: str) -> str:
        if record.state in (RunState.FAILED, RunState.QUEUED):
            return self._retry(record, operator)
        if record.state in (RunState.ACQUIRING, RunState.BLOCKED):
            self._want_look(record.run_path)
            return f"the run is {record.state} and is looked at now"
        return f"the run is {record.state}"

    def _verify(self, record: RunRecord, operator: str, reason: str) -> str:
        if record.state is RunState.CONFLICT and record.is_sealed:
            self._after_commit.append(lambda: self._start_work(verify_effect(record)))
            return "both sides are compared again"
        if record.state not in (RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE):
            raise AgentError(f"The run is {record.state}: there is no sealed copy to verify yet.")
        self._decide(record.job_id, AuditDue(operator, reason))
        return "another verify pass was started"

    def _resolve(self, record: RunRecord, operator: str, reason: str) -> str:
        if record.state is not RunState.CONFLICT:
            raise AgentError(f"The run is {record.state}: there is no conflict to resolve.")
        self._decide(record.job_id, LocalChosen(operator, reason))
        return "the local data win: the run is queued, and what differs on the NAS is moved aside, not removed"

    # --- for people --------------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, tuple[Progress, float]]:
        """Return job id → (how far its work is, seconds since it began)."""
        now_s = self._clock.monotonic_s()
        return {job_id: (task.progress, now_s - task.began_s) for job_id, task in self._tasks.items()}

    def refused_after_sync(self) -> dict[str, tuple[Finding, ...]]:
        """Return job id → findings that would block a run that is synced already."""
        return {
            record.job_id: blocking(view.findings)
            for record in self._store
            if record.sync_status == "synced"
            and (view := self.views.get(record.job_id)) is not None
            and blocking(view.findings)
        }

    def orphans(self) -> tuple[Finding, ...]:
        """Return a finding for every run-shaped folder without creation.json that the last scans saw."""
        return tuple(orphan(place) for lane in self.lanes.values() for place in lane.orphans.values())


def _remaining(record: RunRecord, now: datetime) -> float:
    if record.next_attempt_at is None:
        return 0.0
    return remaining_wait_s(due_at=record.next_attempt_at, wait_s=record.wait_s, now=now)
