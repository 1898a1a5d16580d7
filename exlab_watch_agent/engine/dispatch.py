"""Hands each message, timer and durable move to the part of the loop that it belongs to.

Decided here: which part that is, and what two of them must do in one go. A message, result or timer that nobody takes does
not exist: every match is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never

from exlab_watch_agent.core.binding import first_folder
from exlab_watch_agent.core.decide import work_effect
from exlab_watch_agent.core.discovery import run_of_cache_file, runs_to_look_at
from exlab_watch_agent.core.effects import (
    Admit,
    AskWhere,
    Bind,
    CarryCache,
    Effect,
    Inspect,
    PlaceHeartbeat,
    Precheck,
    Probe,
    Push,
    ReplaceDestination,
    Scan,
    Seal,
    Verify,
    Work,
    WriteStatus,
)
from exlab_watch_agent.core.events import (
    Answered,
    BindingRefused,
    CacheCarried,
    CacheStays,
    EffectFailed,
    HeartbeatPlaced,
    Inspection,
    NothingNew,
    Outcome,
    Pushed,
    Replaced,
    ScanFailed,
    Scanned,
    Sealed,
    Seen,
    StatusUnwritten,
    StatusWritten,
    Unreached,
    Unseen,
    UnseenCode,
    Verified,
    Whereabouts,
)
from exlab_watch_agent.core.inventory import CHANGE_LATER, CREATION_FILE
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.rollback import LEFT_AT
from exlab_watch_agent.core.snapshot import Note
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.caches import Caches
from exlab_watch_agent.engine.commit import Moved, Reply
from exlab_watch_agent.engine.destinations import ANOTHER_ROOT, Destinations
from exlab_watch_agent.engine.keys import work_key
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.messages import CommandGiven, Ended, Message, Noted, Noticed, ScanWanted, Woken
from exlab_watch_agent.engine.operators import Operators
from exlab_watch_agent.engine.reconciling import Reconciling
from exlab_watch_agent.engine.runs import Runs
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.engine.turns import Turns
from exlab_watch_agent.statechart import CHART, RunState, Trigger

log = logging.getLogger(__name__)

Anchor = Mapping[str, str | int]
"""What a seal is to say of the trail and the agent, as JSON members."""


class Dispatch:
    """The loop's own; only its thread uses it."""

    def __init__(
        self,
        bench: Bench,
        *,
        looks: Looks,
        runs: Runs,
        turns: Turns,
        caches: Caches,
        destinations: Destinations,
        reconciling: Reconciling,
        operators: Operators,
        on_move: Callable[[RunRecord, Move], None],
        anchor: Callable[[], Anchor],
    ) -> None:
        self._bench = bench
        self._looks = looks
        self._operators = operators
        self._on_move = on_move
        self._anchor = anchor
        self._runs = runs
        self._turns = turns
        self._caches = caches
        self._destinations = destinations
        self._reconciling = reconciling

    # --- messages ----------------------------------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        match message:
            case Woken():
                pass
            case Noticed():
                self._on_noticed(message)
            case ScanWanted():
                equipment_ids = self._bench.lanes if message.equipment_ids is None else message.equipment_ids
                self._reconciling.want_scan(equipment_ids, is_full=message.is_full)
            case CommandGiven():
                self._operators.on_command(message)
            case Noted():
                for fact in message.facts:
                    self._bench.commit.note(fact, operator=message.operator)
                self._bench.commit.then(Reply(message.reply, message.answer))
            case Ended():
                self._bench.errands.on_ended(message)
                self._on_ended(message)
                self._destinations.replace_at_rest(self._bench.lanes[message.effect.equipment_id])
            case _:
                assert_never(message)

    def _on_noticed(self, message: Noticed) -> None:
        about_creation = [path for path in message.paths if path.endswith(CREATION_FILE)]
        for run_path in runs_to_look_at(about_creation, self._looks.roots)[0]:
            self._looks.want(run_path, is_about_creation=True)
        for path in message.paths:
            if path.endswith(CHANGE_LATER):
                self._caches.noticed(run_of_cache_file(path))
        others = [path for path in message.paths if not path.endswith(CREATION_FILE)]
        run_paths, equipment_ids = runs_to_look_at(others, self._looks.roots)
        for run_path in run_paths:
            self._looks.want(run_path)
        self._reconciling.want_scan(equipment_ids, is_full=False)

    def _on_ended(self, ended: Ended) -> None:
        """Let follow what follows from the end of an effect: each kind has results of its own, and None when cancelled."""
        match ended.effect, ended.result:
            case (Push() | Precheck() | Verify() | Seal()) as effect, outcome if outcome is None or isinstance(
                outcome, Outcome
            ):
                self._on_worked(effect, outcome)
            case Inspect() as effect, (Seen() | NothingNew() | Unseen()) as seen:
                self._runs.on_inspected(ended, effect, seen)
            case Admit() as effect, (Seen() | NothingNew() | Unseen()) as seen:
                self._on_admitted(ended, effect, seen)
            case AskWhere() as effect, Whereabouts() as answer:
                self._runs.on_whereabouts(effect, answer)
            case Scan() as effect, (Scanned() | ScanFailed()) as found:
                self._reconciling.on_scanned(ended, effect, found)
            case Probe() as effect, (Answered() | Unreached()) as answered:
                self._destinations.on_probed(ended, effect, answered)
            case Bind() as effect, (Answered() | BindingRefused()) as bound:
                self._destinations.on_bound(effect, bound)
            case ReplaceDestination() as effect, (Replaced() | BindingRefused()) as replaced:
                self._destinations.on_replaced(effect, replaced)
            case WriteStatus() as effect, (StatusWritten() | StatusUnwritten()) as written:
                self._on_status(effect, written)
            case CarryCache() as effect, (CacheCarried() | CacheStays()) as carried:
                self._caches.on_carried(effect, carried)
            case CarryCache() as effect, None:
                self._caches.want(effect.job_id)
            case CarryCache() as effect, Unreached() as unreached:
                self._destinations.lost(self._bench.lanes[effect.equipment_id], unreached.message, unreached.wait)
                self._caches.want(effect.job_id)
            case PlaceHeartbeat() as effect, Unreached() as unreached:
                self._bench.lanes[effect.equipment_id].lacks_heartbeat = True
                self._destinations.lost(self._bench.lanes[effect.equipment_id], unreached.message, unreached.wait)
            case PlaceHeartbeat() as effect, HeartbeatPlaced() as placed:
                self._bench.lanes[effect.equipment_id].lacks_heartbeat = bool(placed.problem)
                if placed.anchor is not None:
                    self._bench.commit.compare_anchor(placed.anchor, where=LEFT_AT)
                if placed.problem:
                    log.warning("the heartbeat could not be placed on the NAS: %s", placed.problem)
            case effect, result:
                raise AssertionError(f"{type(effect).__name__} does not end with {result}")

    def _on_worked(self, effect: Work, outcome: Outcome | None) -> None:
        record = self._bench.commit.record(effect.job_id)
        assert record is not None, "work belongs to a known run"
        if outcome is None:  # most often the run has moved on, or its work was wanted anew when it was cancelled
            work = work_effect(record)
            if (
                work is not None
                and work.turn == effect.turn
                and not self._bench.errands.is_waiting(work_key(record.job_id))
            ):
                self._bench.commit.then(work)
            return
        lane = self._bench.lanes[effect.equipment_id]
        match outcome:
            case EffectFailed() if outcome.is_destination_away:
                needs, job_id = outcome.needs_bytes, effect.job_id
                self._destinations.lost(lane, outcome.message, outcome.wait, needs_bytes=needs, needed_by=job_id)
            case EffectFailed() if outcome.is_source_away:
                self._bench.post(ScanWanted((effect.equipment_id,)))
            case Pushed():
                self._destinations.on_pushed(lane)
            case Verified():
                self._destinations.remember_mount(lane, first_folder(effect.destination), outcome.below)
            case Sealed():
                lane.caches[record.run_path] = outcome.cache_signature
                if outcome.saved is not None:
                    self._runs.wrote(record, outcome.saved)
        self._runs.decide(effect.job_id, outcome)

    def _on_admitted(self, ended: Ended, effect: Admit, result: Inspection) -> None:
        lane = self._bench.lanes[effect.equipment_id]
        if isinstance(result, Unseen) and result.code is UnseenCode.DESTINATION:
            self._destinations.lost(lane, result.message, result.wait)
        if isinstance(result, Seen) and result.marker_id is not None:
            asked_fully_s = ended.ended_s if effect.asks_nas_fully else None
            if not self._destinations.on_admission(lane, result.marker_id, asked_fully_s=asked_fully_s):
                result = Unseen(UnseenCode.DESTINATION, ANOTHER_ROOT)
            else:
                self._destinations.remember_mount(lane, first_folder(effect.destination), result.below)
        self._runs.take_in(ended, effect.place, result)
        self._turns.on_admitted(effect, result)

    def _on_status(self, effect: WriteStatus, result: StatusWritten | StatusUnwritten) -> None:
        record = self._bench.commit.record(effect.job_id)
        assert record is not None, "a status belongs to a known run"
        if isinstance(result, StatusWritten):
            self._runs.wrote(record, result.saved)
        else:
            self._runs.views.tell_problem(effect.job_id, Note("status_unwritten", result.message))
            self._looks.want_in(record.run_path, self._bench.pace.status_s)

    # --- timers ------------------------------------------------------------------------------------------------------

    def on_timer(self, kind: TimerKind, key: str) -> None:
        match kind:
            case TimerKind.LOOK:
                self._looks.want(key)
            case TimerKind.SCAN:
                self._reconciling.want_scan((key,))
            case TimerKind.SCAN_AGAIN:
                self._reconciling.want_scan((key,), is_full=False)
            case TimerKind.PROBE:
                lane = self._bench.lanes[key]
                self._destinations.probe(lane, is_light=lane.away is None)
            case TimerKind.SILENCE:
                self._destinations.on_silence(self._bench.lanes[key])
            case TimerKind.READY:
                self._turns.on_ready(key)
            case TimerKind.ERRAND:
                self._bench.errands.on_time(key)
            case TimerKind.CACHE:
                self._caches.want(key)
            case TimerKind.AUDIT:
                self._turns.on_audit_due(key)
            case TimerKind.ROOM:
                pass  # only a pause looks at it
            case _:
                assert_never(kind)

    # --- after saving ------------------------------------------------------------------------------------------------

    def on_moved(self, moved: Moved) -> None:
        """Bring what is kept in memory in line with a move that is durable now."""
        before, after, move = moved.before, moved.after, moved.move
        self._on_move(after, move)
        if before is None:
            return
        self._bench.errands.drop(work_key(after.job_id))
        self._turns.forget(after)
        if after.state is RunState.QUEUED:
            self._turns.make_ready(after, wait_s=after.wait_s)
        if move.trigger in (Trigger.LOCAL_GONE, Trigger.NAS_CHOSEN):
            self._bench.lanes[after.equipment_id].read(after.run_path, None)  # whatever is there later is news
        if after.state is RunState.ACQUIRING:
            self._looks.want(after.run_path)
        if move.trigger == Trigger.AUDIT_INTERRUPTED:
            self._turns.audit_in(
                after.job_id, min(self._bench.policy.audit_interval_s, self._bench.policy.retry_schedule_s[-1])
            )
        elif after.state in CHART.auditable:
            self._turns.plan_audit(after, self._bench.clock.now())
        if move.trigger in (Trigger.SEALED, Trigger.PROVEN, Trigger.DIFFERENCE_GONE):
            self._bench.lanes[after.equipment_id].last_success_at = move.at

    def brief(self, effect: Effect) -> Effect | None:
        """Complete an effect with what is known at the moment in which it may start; None where it is put off."""
        match effect:
            case Inspect():
                return self._looks.brief(effect)
            case Scan():
                return self._reconciling.brief(effect)
            case CarryCache():
                return self._caches.brief(effect)
            case Seal():
                return replace(effect, anchor=self._anchor())
            case WriteStatus():  # it may have waited, and the run have moved on, or its folder have been moved
                record = self._bench.commit.record(effect.job_id)
                assert record is not None, "a status belongs to a known run"
                return replace(effect, run_path=record.run_path, sync_status=record.sync_status)
            case _:
                return effect
