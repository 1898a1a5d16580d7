"""Carries out what was decided: effects on the lanes' hands, statuses into `creation.json`, waits for the NAS, audits.

Decided here: one piece of work at a time for each run, what waits for what, and that nothing starts while the NAS is known
to be away. Not here: how an effect is carried out (handlers.py), and which queued run may start (engine.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from exlab_watch_agent.acts.handlers import ask_destination, bind, carry_out, find_destination, write_status
from exlab_watch_agent.core.bandwidth import rate_bytes_per_s
from exlab_watch_agent.core.binding import BY_ITSELF, Binding, accepted
from exlab_watch_agent.core.decide import work_effect
from exlab_watch_agent.core.effects import Effect, Seal, WorkEffect, WriteStatus
from exlab_watch_agent.core.events import AuditDue, EffectFailed, Outcome, Sealed
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.retry import remaining_wait_s
from exlab_watch_agent.engine.desk import Desk
from exlab_watch_agent.engine.lane import PROBE_FIRST_S, Bound, Lane, Probed, ScanWanted, StatusWritten, Task, Worked
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.errors import (
    NAS_UNREACHABLE,
    AgentError,
    CancelledError,
    DestinationUnreachableError,
    FailureKind,
    Wait,
)
from exlab_watch_agent.ports import Control, Entry, Progress, SavedCreation
from exlab_watch_agent.statechart import RunState

log = logging.getLogger(__name__)

PROBE_MAX_S = 60.0
STATUS_RETRY_S = 60.0
SILENCE_S = 60.0
AUDITABLE = frozenset({RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE, RunState.CONFLICT})


class Working:
    """Part of the engine's loop; see desk.py."""

    def __init__(self, desk: Desk, now_local: Callable[[], datetime], *, is_working: bool = True) -> None:
        self._desk = desk
        self._now_local = now_local
        self._is_working = is_working
        self.tasks: dict[str, Task] = {}
        self.next_work: dict[str, WorkEffect] = {}
        self.status_running: set[str] = set()
        self._status_wanted: dict[str, str] = {}

    def start(self, effect: Effect) -> None:
        if isinstance(effect, WriteStatus):
            self._status_wanted[effect.job_id] = effect.sync_status
            self._write_status(effect.job_id)
        else:
            self.start_work(effect)

    def start_work(self, effect: WorkEffect) -> None:
        """Start a run's work: one at a time for each run, after its wait, and only while the NAS is not known to be away."""
        lane = self._desk.lanes[effect.equipment_id]
        if effect.job_id in self.tasks:
            self.next_work[effect.job_id] = effect
            return
        if isinstance(effect, Seal) and effect.wait_s > 0:
            self.next_work[effect.job_id] = effect
            self._desk.timers.set(TimerKind.WORK, effect.job_id, due_s=self._desk.clock.monotonic_s() + effect.wait_s)
            return
        if isinstance(effect, Seal) and effect.job_id in self.status_running:
            # The seal writes "synced" itself; a status that is still on its way would overwrite it afterwards.
            self.next_work[effect.job_id] = effect
            return
        if lane.waiting_since is not None or not lane.is_ours or not self._is_working:
            lane.parked[effect.job_id] = effect
            return
        record = self._desk.record(effect.job_id)
        if record is not None and record.state is RunState.RUNNING:
            lane.pushing = effect.job_id
        began_s = self._desk.clock.monotonic_s()
        task = Task(effect.turn, threading.Event(), lane, began_s=began_s, is_seal=isinstance(effect, Seal))
        self.tasks[effect.job_id] = task
        self._desk.submit(lane.hands, self._work, effect, task, lane)

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
        self._desk.post(Worked(effect.job_id, effect.turn, outcome))

    def on_worked(self, message: Worked) -> None:
        task = self.tasks.pop(message.job_id)
        before = self._desk.record(message.job_id)
        assert before is not None, "a task belongs to a known run"
        if message.outcome is not None and not self._desk.stopping.is_set():
            if isinstance(message.outcome, EffectFailed) and message.outcome.is_destination_away:
                self.lane_waits(task.lane, message.outcome.message, message.outcome.wait)
            if isinstance(message.outcome, EffectFailed) and message.outcome.is_source_away:
                self._desk.post(ScanWanted((before.equipment_id,)))
            if isinstance(message.outcome, Sealed) and message.outcome.creation_before is not None:
                assert message.outcome.creation_after is not None, "a seal says both"
                saved = SavedCreation(message.outcome.creation_before, message.outcome.creation_after)
                self._desk.wrote(before, saved)
            self._desk.decide(message.job_id, message.outcome)
        after = self._desk.record(message.job_id)
        assert after is not None, "a record does not go away"
        if after.state is not RunState.RUNNING:
            self.free_slot(task.lane, message.job_id)
        self._start_waiting_work(message.job_id)

    def _start_waiting_work(self, job_id: str) -> None:
        """Start what waited for the run's earlier work or for the writing of its status, and for nothing else."""
        waiting = self.next_work.get(job_id)
        if waiting is None or job_id in self.tasks or self._desk.timers.has(TimerKind.WORK, job_id):
            return
        del self.next_work[job_id]
        self.start_work(waiting)

    def cancel(self, job_id: str) -> None:
        task = self.tasks.get(job_id)
        if task is not None:
            task.cancel.set()

    def free_slot(self, lane: Lane, job_id: str) -> None:
        if lane.pushing == job_id:
            lane.pushing = None

    def _write_status(self, job_id: str) -> None:
        record = self._desk.record(job_id)
        if record is None or job_id in self.status_running or not self._desk.lanes[record.equipment_id].is_ours:
            return  # a root that is not ours yet gets its statuses when it is
        self.status_running.add(job_id)
        lane = self._desk.lanes[record.equipment_id]
        effect = WriteStatus(job_id, record.run_path, record.equipment_id, self._status_wanted[job_id])
        self._desk.see(lane, self._do_write_status, effect, lane)

    def _do_write_status(self, effect: WriteStatus, lane: Lane) -> None:
        try:
            saved = write_status(effect, lane.ports)
            self._desk.post(StatusWritten(effect.job_id, effect.sync_status, saved, None))
        except AgentError as error:
            self._desk.post(StatusWritten(effect.job_id, effect.sync_status, None, str(error)))
        except Exception as error:  # a defect must not leave the status unwritten without a word
            log.exception("writing the status of %s failed", effect.run_path)
            self._desk.post(StatusWritten(effect.job_id, effect.sync_status, None, f"it could not be written: {error}"))

    def on_status_written(self, message: StatusWritten) -> None:
        self.status_running.discard(message.job_id)
        record = self._desk.record(message.job_id)
        assert record is not None, "a status belongs to a known run"
        if message.saved is None:
            self._desk.tell(message.job_id, problem=message.error or "")
            due_s = self._desk.clock.monotonic_s() + STATUS_RETRY_S
            self._desk.timers.set_earlier(TimerKind.LOOK, record.run_path, due_s=due_s)
        else:
            self._desk.wrote(record, message.saved)
        if self._status_wanted.get(message.job_id) == message.status:
            del self._status_wanted[message.job_id]
        elif message.job_id in self._status_wanted:
            self._write_status(message.job_id)
        self._start_waiting_work(message.job_id)

    def make_ready(self, record: RunRecord, *, wait_s: float) -> None:
        if wait_s > 0:
            self._desk.timers.set(TimerKind.READY, record.job_id, due_s=self._desk.clock.monotonic_s() + wait_s)
        elif record.job_id not in self._desk.lanes[record.equipment_id].ready:
            self._desk.lanes[record.equipment_id].ready.append(record.job_id)

    def is_writing(self, job_id: str) -> bool:
        """Return whether the agent itself may be changing this run's `creation.json` now."""
        task = self.tasks.get(job_id)
        return job_id in self.status_running or (task is not None and task.is_seal)

    def lane_waits(self, lane: Lane, reason: str, wait: Wait) -> None:
        """Start nothing of this lane that needs its destination, and ask that again soon; say why, and what helps."""
        lane.wait = wait
        if lane.waiting_since is None:
            lane.waiting_since = self._desk.clock.now()
            lane.probe_wait_s = PROBE_FIRST_S
            log.warning("%s waits (%s): %s", lane.equipment.equipment_id, wait.code, reason)
            self._desk.timers.set(
                TimerKind.PROBE, lane.equipment.equipment_id, due_s=self._desk.clock.monotonic_s() + lane.probe_wait_s
            )
        lane.waiting_reason = reason

    def probe(self, lane: Lane, *, is_light: bool = False) -> None:
        """Ask whether the destination is there, and unless `is_light` whether it can be written to."""
        lane.asking += 1
        due_s = self._desk.clock.monotonic_s() + SILENCE_S
        self._desk.timers.set(TimerKind.SILENCE, lane.equipment.equipment_id, due_s=due_s)
        self._desk.see(lane, self._do_probe, lane, is_light)

    def on_silence(self, lane: Lane) -> None:
        """The destination has not answered for so long that nobody is to wait for it: a dead mount may never answer."""
        if lane.asking:
            self.lane_waits(lane, f"it has not answered for {SILENCE_S:g} s", NAS_UNREACHABLE)

    def _do_probe(self, lane: Lane, is_light: bool) -> None:
        equipment_id = lane.equipment.equipment_id
        try:
            ports = lane.ports
            marker_id = find_destination(ports) if is_light else ask_destination(ports, is_full=True, is_doubted=True)
            self._desk.post(Probed(equipment_id, marker_id, None))
        except DestinationUnreachableError as error:
            self._desk.post(Probed(equipment_id, None, error))
        except Exception as error:  # a defect must not end the probing
            log.exception("a probe of %s failed", equipment_id)
            self._desk.post(Probed(equipment_id, None, DestinationUnreachableError(f"the probe failed: {error}")))

    def on_probed(self, message: Probed) -> None:
        lane = self._desk.lanes[message.equipment_id]
        lane.asking -= 1
        self._desk.timers.cancel(TimerKind.SILENCE, message.equipment_id)
        if message.error is not None:
            self.lane_waits(lane, str(message.error), message.error.wait)
            lane.probe_wait_s = min(PROBE_MAX_S, lane.probe_wait_s * 2)
            self._desk.timers.set(
                TimerKind.PROBE, message.equipment_id, due_s=self._desk.clock.monotonic_s() + lane.probe_wait_s
            )
            return
        if message.marker_id is not None:
            self.remember_marker(lane, message.marker_id)
        if lane.waiting_since is not None:
            log.info("%s: the NAS is back", message.equipment_id)
        lane.waiting_since, lane.waiting_reason = None, ""
        self._take_up_parked(lane)

    def _take_up_parked(self, lane: Lane) -> None:
        parked, lane.parked = lane.parked, {}
        for effect in parked.values():
            self._desk.after_commit.append(lambda effect=effect: self.start_work(effect))  # type: ignore[misc]

    def take_up(self, lane: Lane) -> None:
        """The root is ours: start what was put off until then."""
        if lane.is_ours:
            return
        lane.is_ours = True
        self._take_up_parked(lane)
        for job_id in list(self._status_wanted):
            self._write_status(job_id)

    def let_go(self, lane: Lane) -> None:
        """The root is not ours, or not any more: end what works there; it is done again once the root is ours."""
        lane.is_ours = False
        for job_id, task in self.tasks.items():
            record = self._desk.record(job_id)
            work = work_effect(record) if record is not None else None
            if task.lane is lane and work is not None:
                task.cancel.set()
                lane.parked[job_id] = work

    def remember_marker(self, lane: Lane, marker_id: str, *, operator: str | None = None) -> None:
        """Take the root with this marker for the lane's destination from now on: by itself, or because an operator says so."""
        if accepted(lane.binding) == marker_id:
            return
        if lane.binding is None or lane.binding.marker_id != marker_id:
            self._void_passes(lane, marker_id)
        lane.binding = Binding(marker_id, operator or BY_ITSELF)
        data = {"root": lane.marker_key, "marker_id": marker_id, "accepted_by": lane.binding.accepted_by}
        self._desk.entries.append(Entry("destination_bound", operator=operator, data=data))

    def _void_passes(self, lane: Lane, marker_id: str) -> None:
        """Another place than before, as far as is known: what was proven elsewhere is proven there anew, and at once."""
        for job_id in self._desk.store.ids_in(AUDITABLE, lane.equipment.equipment_id):
            record = self._desk.record(job_id)
            if record is None:
                continue
            data = {"root": lane.marker_key, "marker_id": marker_id}
            record = self._desk.save(replace(record, verify_passes=0), Entry("passes_voided", data=data))
            if self._desk.is_mine(record):
                self.queue_audit(record)

    def bind(self, lane: Lane, operator: str, reply: Callable[[Mapping[str, Any]], None]) -> None:
        """Have the lane's destination bound because an operator says that it is the right one."""
        lane.asking += 1
        self._desk.see(lane, self._do_bind, lane, operator, reply)

    def _do_bind(self, lane: Lane, operator: str, reply: Callable[[Mapping[str, Any]], None]) -> None:
        marker_id: str | None = None
        error: str | None = None
        try:
            marker_id = bind(lane.ports)
        except AgentError as refused:
            error = str(refused)
        except Exception as defect:  # a defect must not leave the operator without an answer
            log.exception("binding the destination of %s failed", lane.equipment.equipment_id)
            error = f"the binding failed: {defect}"
        self._desk.post(Bound(lane.equipment.equipment_id, operator, marker_id, error, reply))

    def on_bound(self, message: Bound) -> None:
        lane = self._desk.lanes[message.equipment_id]
        lane.asking -= 1
        if message.marker_id is None:
            answer = {"ok": False, "message": message.error}
        else:
            self.remember_marker(lane, message.marker_id, operator=message.operator)
            answer = {"ok": True, "message": f"{message.equipment_id}: {lane.ports.transport.describe()} is bound"}
            if lane.waiting_since is not None:
                self.probe(lane)
        self._desk.after_commit.append(lambda: message.reply(answer))

    def plan_audit(self, record: RunRecord, now: datetime) -> None:
        if record.verified_at is None:
            return
        due = record.verified_at + timedelta(seconds=self._desk.policy.audit_interval_s)
        wait_s = remaining_wait_s(due_at=due, wait_s=self._desk.policy.audit_interval_s, now=now)
        if record.verify_passes == 0:  # what was proven is void
            wait_s = 0.0
        self._desk.timers.set(TimerKind.AUDIT, record.job_id, due_s=self._desk.clock.monotonic_s() + wait_s)

    def queue_audit(self, record: RunRecord) -> None:
        audits = self._desk.lanes[record.equipment_id].audits
        if record.job_id not in audits:
            audits.append(record.job_id)

    def start_audit(self, lane: Lane) -> None:
        job_id = lane.audits.popleft()
        record = self._desk.record(job_id)
        if record is None or record.state not in AUDITABLE:
            return
        after = self._desk.decide(job_id, AuditDue())
        if after is not None and after.state is RunState.AUDITING:
            lane.auditing = job_id
        else:  # a conflict stays where it is: look again whether the difference is gone
            self._desk.timers.set(
                TimerKind.AUDIT, job_id, due_s=self._desk.clock.monotonic_s() + self._desk.policy.audit_interval_s
            )

    def progress(self) -> dict[str, tuple[Progress, float]]:
        """Return job id → (how far its work is, seconds since it began)."""
        now_s = self._desk.clock.monotonic_s()
        return {job_id: (task.progress, now_s - task.began_s) for job_id, task in self.tasks.items()}
