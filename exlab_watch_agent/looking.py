"""Looks at runs: when, how often, and what follows from what was seen there.

Decided here: one look at a time for each run, quiet time, when to look again, which record a run at a path has. Not here:
how a look is made (handlers.py), and what it means for the run's state (core/decide.py).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace

from exlab_watch_agent.core.completeness import settled
from exlab_watch_agent.core.creation import Creation
from exlab_watch_agent.core.decide import work_effect
from exlab_watch_agent.core.destination import DestinationStanding
from exlab_watch_agent.core.discovery import RunPlace, place_of
from exlab_watch_agent.core.gate import blocking, mark_overrides
from exlab_watch_agent.core.overrides import dangling_tombstones, next_expiry
from exlab_watch_agent.core.reconcile import Signature
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.desk import Desk
from exlab_watch_agent.handlers import Look, LookResult, NothingNew, Seen, Unseen, look
from exlab_watch_agent.lane import (
    SETTLED_STATES,
    UNREADABLE_LOOKS_TOLD,
    Lane,
    Looked,
    LookState,
    ScanWanted,
    View,
)
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState
from exlab_watch_agent.timers import TimerKind
from exlab_watch_agent.working import Working

log = logging.getLogger(__name__)

REREAD_WAITS_S = (0.3, 1.0, 3.0)
"""A half-written creation.json is read again after these before it becomes a problem."""
UNREADABLE_WAIT_S = 5.0
PROBLEM_WAIT_S = 60.0
BACKGROUND_LOOKS_MAX = 2
LOOK_DUTY = 10
"""A run that keeps changing is looked at for at most one part in this many of a worker's time."""
SLOW_LOOK_S = 0.25
TICK_S = 0.05
"""A file that was changed twice within a tick may show the same signature; ticks are 1 to 16 ms long."""


class Looking:
    """Part of the engine's loop; see desk.py."""

    def __init__(self, desk: Desk, working: Working) -> None:
        self._desk = desk
        self._working = working
        self.looks: dict[str, LookState] = {}
        self.rereads: dict[str, int] = {}
        self.running = 0
        self._after_write: set[str] = set()

    def want_look(self, run_path: str, *, is_about_creation: bool = False, in_background: bool = False) -> None:
        """Look at a run soon: one look at a time for each run, and not too often while it keeps changing."""
        place = place_of(run_path, self._desk.roots)
        if place is None or (self._desk.only is not None and run_path not in self._desk.only):
            return
        lane = self._desk.lanes[place.equipment_id]
        if not lane.is_ours:
            self.rereads.pop(run_path, None)
            return  # the scan that follows when the root is ours finds it
        state = self.looks.setdefault(run_path, LookState())
        record = self._desk.record_at(run_path)
        if state.is_running:
            state.again = True
        elif is_about_creation and record is not None and self._working.is_writing(record.job_id):
            self._after_write.add(record.job_id)  # what is written is known only then, and most often it is our own
        elif self._desk.clock.monotonic_s() < state.not_before_s and not is_about_creation:
            self._desk.timers.set_earlier(TimerKind.LOOK, run_path, due_s=state.not_before_s)
        elif state.is_slow and not in_background:
            self.put_first(lane, [run_path])  # several runs of 100,000 files must not keep all eyes from a new one
        else:
            self._look_now(state, place, record, is_about_creation=is_about_creation)

    def _look_now(
        self, state: LookState, place: RunPlace, record: RunRecord | None, *, is_about_creation: bool
    ) -> None:
        state.is_running = True
        self.running += 1
        view = self._desk.views.get(record.job_id) if record is not None else None
        known_signature = view.own_signature if view is not None and is_about_creation else None
        if known_signature is None:  # else the look may end at our own write, and the planned one must still come
            self._desk.timers.cancel(TimerKind.LOOK, place.run_path)
        self.look(
            Look(
                place,
                declared_mismatches=record.declared_mismatches if record is not None else (),
                known_signature=known_signature,
                judges_gate=record is not None and record.state is not RunState.ACQUIRING,
            )
        )

    def catch_up(self, job_id: str) -> None:
        """Look at a `creation.json` that changed while the agent itself was writing it."""
        record = self._desk.record(job_id)
        if job_id in self._after_write and record is not None and not self._working.is_writing(job_id):
            self._after_write.discard(job_id)
            self.want_look(record.run_path, is_about_creation=True)

    @staticmethod
    def put_first(lane: Lane, run_paths: Sequence[str]) -> None:
        """Have these runs looked at in the background, in this order, before all others that wait."""
        for path in reversed(run_paths):
            lane.backlog[path] = None
            lane.backlog.move_to_end(path, last=False)

    def look_at_backlog(self, lane: Lane) -> None:
        """Look at what a scan asks for a few at a time, so that a run that is being written now goes before them."""
        while lane.is_ours and lane.backlog and lane.background_looks < BACKGROUND_LOOKS_MAX:
            path, _ = lane.backlog.popitem(last=False)
            running = self.running
            self.want_look(path, in_background=True)
            if self.running > running:
                self.looks[path].is_background = True
                lane.background_looks += 1

    def look(self, order: Look) -> None:
        lane = self._desk.lanes[order.place.equipment_id]
        self._desk.see(lane, self._do_look, order, lane)

    def _do_look(self, order: Look, lane: Lane) -> None:
        began_s = self._desk.clock.monotonic_s()
        result: LookResult
        try:
            result = look(order, lane.ports)
        except Exception as error:  # a defect must not leave the run unseen without a word
            log.exception("a look at %s failed", order.place.run_path)
            result = Unseen("unreadable", f"the look failed: {error}")
        self._desk.post(Looked(order, result, began_s, self._desk.clock.monotonic_s()))

    def on_looked(self, message: Looked) -> None:
        path = message.order.place.run_path
        lane = self._desk.lanes[message.order.place.equipment_id]
        record = self._desk.record_at(path)
        creation = None if isinstance(message.result, NothingNew) else message.result.creation
        if record is None and creation is not None and self._asks_for_twins(lane, message, creation):
            return
        if message.order.claim is None:
            self._end_look(lane, path, message)
        if not lane.is_ours:
            self.rereads.pop(path, None)
            return  # it went away meanwhile: nothing is concluded from it
        match message.result:
            case Unseen():
                self._on_unseen(lane, message, message.result, record)
            case NothingNew():
                pass
            case Seen():
                self._desk.tell_of_path(path, None)
                self.rereads.pop(path, None)
                self._on_seen_run(lane, message, message.result, record)

    def _asks_for_twins(self, lane: Lane, message: Looked, creation: Creation) -> bool:
        """Before a run is taken for a new one: have asked whether those of the same identity are still at their places."""
        places = {
            twin.run_path
            for twin in self._desk.twins(creation.identity)
            if twin.equipment_id == lane.equipment.equipment_id
        }
        if places <= message.twins.keys():
            return False
        self._desk.see(lane, self._ask_for_twins, lane, message, sorted(places))
        return True

    def _ask_for_twins(self, lane: Lane, message: Looked, places: Sequence[str]) -> None:
        asked = {path: lane.scanner.is_there(path) for path in places}
        answered = replace(message, twins={**message.twins, **asked})
        path = message.order.place.run_path
        if not lane.scanner.is_there(path):  # asked last: a run that was moved back meanwhile is not two runs
            answered = replace(answered, result=Unseen("missing", f"{path} is not there any more"))
        self._desk.post(answered)

    def _end_look(self, lane: Lane, path: str, message: Looked) -> None:
        state = self.looks[path]
        state.is_running = False
        self.running -= 1
        if state.is_background:
            state.is_background = False
            lane.background_looks -= 1
        took_s = message.ended_s - message.began_s
        state.is_slow = took_s > SLOW_LOOK_S
        # A machine may sleep, or a disk hang, in the middle of a look: a full scan's look is never put off for another.
        state.not_before_s = message.ended_s + min(LOOK_DUTY * took_s, self._desk.policy.rescan_s)
        if state.again:
            state.again = False
            self.want_look(path)

    def forget(self, lane: Lane) -> None:
        """Let go of what is kept about runs that rest: there may be many of them, and hardly anything ever happens there."""
        now_s = self._desk.clock.monotonic_s()
        self.looks = {
            path: state for path, state in self.looks.items() if state.is_running or state.not_before_s > now_s
        }
        for job_id in [job_id for job_id in self._desk.views if self._desk.store.state_of(job_id) in SETTLED_STATES]:
            record = self._desk.record(job_id)
            if record is not None and record.equipment_id == lane.equipment.equipment_id:
                self._forget_view(record)

    def _forget_view(self, record: RunRecord) -> None:
        view = self._desk.views[record.job_id]
        has_news = view.problem or view.unreadable or blocking(view.findings)
        if record.state in SETTLED_STATES and not has_news:
            del self._desk.views[record.job_id]
            self._desk.told += bool(view.reason)

    def _on_unseen(self, lane: Lane, message: Looked, result: Unseen, record: RunRecord | None) -> None:
        path = message.order.place.run_path
        now_s = self._desk.clock.monotonic_s()
        match result.code:
            case "root":
                self.rereads.pop(path, None)
                self._desk.post(ScanWanted((lane.equipment.equipment_id,)))
                return
            case "destination":
                self._working.lane_waits(lane, result.message, result.wait)
                return
            case "creation":
                rereads = self.rereads.get(path, 0)
                if rereads < len(REREAD_WAITS_S):
                    self.rereads[path] = rereads + 1
                    self._desk.timers.set(TimerKind.LOOK, path, due_s=now_s + REREAD_WAITS_S[rereads])
                    return
                self._desk.tell_of_path(path, result.message)
                # A permission or a lock that is mended leaves no event.
                self._desk.timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + PROBLEM_WAIT_S)
            case "level":
                assert result.signature is not None, "the file was read"
                lane.passed_over[path] = result.signature
                self._desk.tell_of_path(path, result.message)
                # What is corrected, or moved away, may leave no event either.
                self._desk.timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + PROBLEM_WAIT_S)
            case "unreadable":
                record = self._on_unreadable(lane, message, result, record)
                self._desk.timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + UNREADABLE_WAIT_S)
            case "missing":
                self._desk.tell_of_path(path, None)
        self.rereads.pop(path, None)
        if record is None:
            return
        view = self._desk.views.setdefault(record.job_id, View())
        if result.code == "missing" and view.reason != result.message:
            # Only a whole scan can say that it is gone.
            self._desk.post(ScanWanted((record.equipment_id,), is_full=False))
        if result.code == "missing":
            self._desk.tell(record.job_id, unreadable="", unreadable_looks=0)
        self._desk.tell(record.job_id, reason=result.message)
        view.is_settling = False

    def _on_unreadable(self, lane: Lane, message: Looked, result: Unseen, record: RunRecord | None) -> RunRecord | None:
        """Note that a run cannot be read whole, and know it from the first time on: a run without a record is nowhere.

        Nothing is decided: what cannot be seen is neither complete nor changed.
        """
        path = message.order.place.run_path
        if record is None:
            if result.creation is None:  # a look that failed by a defect
                self._desk.tell_of_path(path, result.message)
                return None
            record = self._register(message, result.creation)
            lane.passed_over.pop(path, None)
            lane.known[path] = None
        if result.creation is not None:
            self._desk.tell_of_path(path, None)
        view = self._desk.views.setdefault(record.job_id, View())
        if not view.unreadable:
            log.warning("%s cannot be read whole, and is looked at again: %s", path, result.message)
        looks = min(view.unreadable_looks + 1, UNREADABLE_LOOKS_TOLD)
        self._desk.tell(record.job_id, unreadable=result.message, unreadable_looks=looks)
        return record

    def _on_seen_run(self, lane: Lane, message: Looked, seen: Seen, record: RunRecord | None) -> None:
        path = message.order.place.run_path
        if seen.marker_id is not None:
            self._working.remember_marker(lane, seen.marker_id)
            if message.order.asks_nas_fully:
                lane.asked_fully_s = message.ended_s
        if record is None:
            record = self._register(message, seen.creation)
        lane.passed_over.pop(path, None)
        lane.known[path] = None if self._may_change_unseen(seen.signature) else seen.signature
        if record.identity != seen.creation.identity and not record.is_sealed:
            record = self._desk.save(replace(record, identity=seen.creation.identity), Entry("identity_changed"))
        record = self._note_overrides(record, seen)
        view = self._desk.views.setdefault(record.job_id, View())
        if view.unreadable:
            log.info("%s can be read whole again", path)
            self._desk.tell(record.job_id, unreadable="", unreadable_looks=0)
        quiet_s = self._observe_quiet(view, message, seen.inspected.fingerprint)
        completeness = seen.inspected.completeness
        lane.unsignalled.discard(path)
        if seen.inspected.is_unsignalled:
            lane.unsignalled.add(path)
        if record.state is RunState.ACQUIRING:
            # Later states ask for the same fingerprint instead, so that a restart does not make runs settle again.
            completeness = settled(completeness, quiet_s=quiet_s, settle_s=self._desk.policy.settle_s)
        findings = mark_overrides(seen.inspected.findings, seen.creation.overrides, now=self._desk.clock.now())
        self._desk.tell(record.job_id, problem="", findings=findings, reason=completeness.reason)
        view.is_settling = seen.inspected.completeness.is_complete and not completeness.is_complete
        inspected = replace(seen.inspected, completeness=completeness)
        if inspected.destination is not None and self._has_twin_at(record, inspected.destination_path):
            inspected = replace(inspected, destination=DestinationStanding.OCCUPIED)
        self._desk.decide(record.job_id, inspected)
        self._plan_next_look(path, view, seen, quiet_s)

    def _may_change_unseen(self, signature: Signature) -> bool:
        """Whether the file is so young that it may change within one tick of its file system's clock: look once more."""
        return abs(self._desk.clock.now().timestamp() - signature[0] / 1e9) < TICK_S

    def _has_twin_at(self, record: RunRecord, destination: str) -> bool:
        """Whether another job has this destination: a copied folder claims to be the run that it was copied from."""
        return any(
            twin.job_id != record.job_id and (twin.equipment_id, twin.destination) == (record.equipment_id, destination)
            for twin in self._desk.twins(record.identity)
        )

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
        record = self._desk.record_at(path)
        if record is None:
            return
        now_s = self._desk.clock.monotonic_s()
        if record.state is RunState.ACQUIRING:
            if seen.inspected.is_unsignalled:
                return  # the signal's own event, or a scan, says when there is more to see
            if view.is_settling:
                wait_s = max(0.02, self._desk.policy.settle_s - quiet_s)
            else:
                first_s = max(1.0, self._desk.policy.settle_s)
                wait_s = first_s * 2.0 ** min(view.looks_unchanged, 20)
            if view.is_settling or wait_s < self._desk.policy.rescan_s:  # else the next full scan comes first
                self._desk.timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + wait_s)
            return
        expiry = next_expiry(seen.creation.overrides, now=self._desk.clock.now())
        if expiry is not None and record.state not in SETTLED_STATES:
            wait_s = max(0.0, (expiry - self._desk.clock.now()).total_seconds()) + 0.01
            self._desk.timers.set_earlier(TimerKind.LOOK, path, due_s=now_s + wait_s)

    def _register(self, message: Looked, creation: Creation) -> RunRecord:
        """Return the record of a run at a path where none was known: one that was moved there, or a new one."""
        place = message.order.place
        for twin in self._desk.twins(creation.identity):
            # Of its place, not of its job: it may have been found in another one since that was asked.
            if message.twins.get(twin.run_path) is False:
                return self._move_path(twin, place)
        now = self._desk.clock.now()
        record = RunRecord(
            job_id=uuid.uuid4().hex,
            run_path=place.run_path,
            equipment_id=place.equipment_id,
            project=place.project,
            run_kind=creation.run_kind,
            identity=creation.identity,
            entered_at=now,
            discovered_at=now,
        )
        move = Move(now, "discovered", None, record.state, "creation.json was noticed")
        self._desk.after_commit.append(lambda: self._desk.on_move(record, move))
        return self._desk.save(record, Entry("transition", move=move))

    def _move_path(self, record: RunRecord, place: RunPlace) -> RunRecord:
        log.info("%s was moved to %s", record.run_path, place.run_path)
        moved = replace(record, run_path=place.run_path, project=place.project, turn=record.turn + 1)
        self._desk.tell_of_path(record.run_path, None)
        lane = self._desk.lanes[record.equipment_id]
        lane.known.pop(record.run_path, None)
        lane.unsignalled.discard(record.run_path)
        saved = self._desk.save(moved, Entry("moved", data={"from": record.run_path, "to": place.run_path}))
        work = work_effect(saved)
        if work is not None:
            self._working.cancel(saved.job_id)
            self._desk.after_commit.append(lambda: self._working.start_work(work))
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
            self._desk.save(saved, Entry(kind, operator=entry.operator or None, data=data))
        if len(overrides) < record.overrides_seen:
            self._desk.save(
                saved, Entry("overrides_removed", data={"from": record.overrides_seen, "to": len(overrides)})
            )
        return saved
