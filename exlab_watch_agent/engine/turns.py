"""Whose turn it is: which queued run is pushed next, and which sealed one is audited.

Decided here: a look right before each push, one push a lane, one audit at a time beside them, and when a run's backoff or its
next audit is due. Not here: which lanes are served first (core/queueing.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from exlab_watch_agent.core.decide import awaits_holder, claim_of
from exlab_watch_agent.core.discovery import destination_of, place_of
from exlab_watch_agent.core.effects import Admit
from exlab_watch_agent.core.events import AuditDue, Inspection, RunVanished, Unseen, UnseenCode
from exlab_watch_agent.core.link import must_ask_fully
from exlab_watch_agent.core.places import Footing, other_places
from exlab_watch_agent.core.queueing import lanes_to_start
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.reread import is_overdue, is_reread, next_look_in_s, share_wait_s
from exlab_watch_agent.core.retry import remaining_wait_s
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.keys import Slot
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.reconciling import Reconciling
from exlab_watch_agent.engine.runs import Runs
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.statechart import CHART, RunState

REREAD_PUT_OFF_S = 300.0
LOOK_AGAIN_S = 86_400.0
"""A copy that another agent holds is looked at again after so long."""


class Turns:
    """The loop's own; only its thread uses it."""

    def __init__(self, bench: Bench, *, looks: Looks, runs: Runs, reconciling: Reconciling) -> None:
        self._bench = bench
        self._looks = looks
        self._runs = runs
        self._reconciling = reconciling
        self._last_lane: str | None = None

    # --- pushes ------------------------------------------------------------------------------------------------------

    def make_ready(self, record: RunRecord, *, wait_s: float) -> None:
        """Have a queued run pushed when it is its turn, and not before `wait_s` are over."""
        if wait_s > 0:
            self._bench.timers.set(TimerKind.READY, record.job_id, due_s=self._bench.in_s(wait_s))
        else:
            self._bench.timers.cancel(TimerKind.READY, record.job_id)
            self._bench.lanes[record.equipment_id].put_into_queue(record.job_id)

    def on_ready(self, job_id: str) -> None:
        """A queued run's wait is over."""
        record = self._bench.commit.record(job_id)
        if record is not None and record.state is RunState.QUEUED:
            self.make_ready(record, wait_s=0)

    def forget(self, record: RunRecord) -> None:
        """Forget the turns and waits of a run that has moved on.

        A turn for a push that is left over would cut short the wait after a failure, one for an audit repeat what was just
        done.
        """
        self._bench.timers.cancel(TimerKind.READY, record.job_id)
        lane = self._bench.lanes[record.equipment_id]
        lane.queue.pop(record.job_id, None)
        if record.state is not RunState.QUEUED:
            lane.firsts.discard(record.job_id)
        lane.audits.pop(record.job_id, None)
        lane.unread.pop(record.job_id, None)

    def start_pushes(self) -> None:
        """Look at the runs whose turn it is, for a push."""
        busy = [lane_id for lane_id in self._bench.lanes if self._bench.errands.taken(Slot.PUSH, lane_id)]
        waiting = [lane_id for lane_id, lane in self._bench.lanes.items() if _is_waiting(lane)]
        with_work = [lane_id for lane_id, lane in self._bench.lanes.items() if lane.queue]
        for lane_id in lanes_to_start(
            with_work,
            busy=busy,
            waiting=waiting,
            pushes_max=self._bench.policy.pushes_max,
            last_started=self._last_lane,
        ):
            self._last_lane = lane_id
            self._start_next(self._bench.lanes[lane_id])

    def _start_next(self, lane: Lane) -> None:
        while lane.queue:
            job_id, _ = lane.queue.popitem(last=False)
            record = self._bench.commit.record(job_id)
            if record is None or not (record.state is RunState.QUEUED or awaits_holder(record)):
                continue
            place = place_of(record.run_path, self._looks.roots)
            if place is None:
                continue
            layout = self._bench.policy.layout
            self._bench.errands.want(
                Admit(
                    place,
                    claim=claim_of(record),
                    destination=record.destination if record.has_place else destination_of(place, layout),
                    others=() if record.has_place else other_places(place, layout),
                    is_shown=record.footing is Footing.SHOWN,
                    declared_mismatches=record.declared_mismatches,
                    manifest_digest=record.sealed_as,
                    asks_nas_fully=must_ask_fully(lane.link, now_s=self._bench.clock.monotonic_s()),
                )
            )
            return

    def on_admitted(self, effect: Admit, result: Inspection | None) -> None:
        """After the look before a push: put the run back into the queue unless its push goes on."""
        job_id, lane = effect.claim.job_id, self._bench.lanes[effect.equipment_id]
        record = self._bench.commit.record(job_id)
        if record is not None and awaits_holder(record):
            self.audit_in(job_id, LOOK_AGAIN_S)
        if record is None or record.state is not RunState.QUEUED:
            return
        code = result.code if isinstance(result, Unseen) else None
        if code is UnseenCode.DESTINATION:
            lane.put_into_queue(job_id, is_first=True)
            return
        wait_s = self._bench.pace.unreadable_s
        if code is UnseenCode.MISSING:
            # Whether the run was moved, removed, or its root went away is the scan's to say.
            wait_s = self._bench.pace.missing_s
            self._reconciling.want_scan((effect.equipment_id,), is_full=False)
        self._bench.timers.set(TimerKind.READY, job_id, due_s=self._bench.in_s(wait_s))

    # --- audits ------------------------------------------------------------------------------------------------------

    def plan_audit(self, record: RunRecord, now: datetime) -> None:
        """Have a sealed run audited when that is due; at once where what was proven is void."""
        if awaits_holder(record):
            self.audit_in(
                record.job_id,
                remaining_wait_s(
                    due_at=record.entered_at + timedelta(seconds=LOOK_AGAIN_S), wait_s=LOOK_AGAIN_S, now=now
                ),
            )
            return
        if record.verified_at is None:
            return
        interval_s = next_look_in_s(record, self._bench.policy)
        is_only_copy = record.state is RunState.CLEANED
        looked_at = max(record.verified_at, record.entered_at) if is_only_copy else record.verified_at
        due = looked_at + timedelta(seconds=interval_s)
        # What is wrong with an only copy is on record, and not righter for being looked at again at once.
        is_due = record.verify_passes == 0 and not is_only_copy
        wait_s = 0.0 if is_due else remaining_wait_s(due_at=due, wait_s=interval_s, now=now)
        self.audit_in(record.job_id, wait_s)

    def audit_in(self, job_id: str, wait_s: float) -> None:
        self._bench.timers.set(TimerKind.AUDIT, job_id, due_s=self._bench.in_s(wait_s))

    def on_audit_due(self, job_id: str) -> None:
        record = self._bench.commit.record(job_id)
        if record is not None and awaits_holder(record):
            self._bench.lanes[record.equipment_id].put_into_queue(job_id)
        elif record is not None and record.state in CHART.auditable:
            self.audit_soon(record)

    def audit_soon(self, record: RunRecord) -> None:
        """Have a sealed run audited when it is its turn."""
        if self._looks.is_mine(record):
            self._bench.lanes[record.equipment_id].audits.setdefault(record.job_id)

    def start_audit(self) -> None:
        """Start one audit, unless one is under way."""
        if any(self._bench.errands.taken(Slot.AUDIT, lane_id) for lane_id in self._bench.lanes):
            return
        for lane in self._bench.lanes.values():
            while lane.audits and lane.is_ours and lane.may_read:
                if self._audit_next(lane):
                    return

    def _audit_next(self, lane: Lane) -> bool:
        """Start the next audit of the lane; return False where that run is not audited now."""
        job_id, _ = lane.audits.popitem(last=False)
        record = self._bench.commit.record(job_id)
        if record is None or record.state not in CHART.auditable:
            return False
        is_vanished = record.run_path in lane.vanished
        if not is_vanished and is_reread(record, self._bench.policy) and self._is_instrument_at_work(lane):
            put_off_s = self._put_off_s(lane, record)
            if put_off_s > 0:
                self.audit_in(job_id, put_off_s)
                return False
        after = self._runs.decide(job_id, RunVanished() if is_vanished else AuditDue())
        if after is None or after.state is not RunState.AUDITING:
            # a conflict stays where it is: look again later whether the difference is gone
            self.audit_in(job_id, self._bench.policy.audit_interval_s)
        return True

    def _put_off_s(self, lane: Lane, record: RunRecord) -> float:
        """Return for how long a run is not read again because its instrument is at work, in seconds; 0: it is read all the same.

        An instrument that never rests must not keep a copy from being looked at for good: what is overdue is read a run at a time.
        """
        now, now_s = self._bench.clock.now(), self._bench.clock.monotonic_s()
        if not is_overdue(record, self._bench.policy, now=now):
            return REREAD_PUT_OFF_S
        if now_s >= lane.reread_not_before_s:
            lane.reread_not_before_s = now_s + share_wait_s(record)
            return 0.0
        lane.unread[record.job_id] = record.verified_at or record.entered_at
        return max(REREAD_PUT_OFF_S, lane.reread_not_before_s - now_s)

    def _is_instrument_at_work(self, lane: Lane) -> bool:
        """Whether a run of the lane is acquired or pushed: what was proven long ago is not read again then.

        A run that has been incomplete for longer than `agent.stale_hours` is told as a problem, and holds up nothing.
        """
        store, policy, now = self._bench.commit.store, self._bench.policy, self._bench.clock.now()
        if lane.queue or store.ids_in(CHART.on_a_push, lane.equipment_id):
            return True
        acquired = map(self._bench.commit.record, store.ids_in((RunState.ACQUIRING,), lane.equipment_id))
        return any(one is not None and abs((now - one.entered_at).total_seconds()) < policy.stale_s for one in acquired)


def _is_waiting(lane: Lane) -> bool:
    return lane.is_held or not lane.is_ours
