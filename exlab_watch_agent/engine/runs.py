"""What the loop knows of runs from looking at them: which run a folder is, for how long it has been quiet, what is said of it.

Decided here: which record a run at a path has, that a run is new, quiet time, and when the next look is due. Not here: how a
look is made (acts/inspect.py), how often (looks.py), and what it means for the run's state (core/decide.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from exlab_watch_agent.core.claim import DestinationStanding
from exlab_watch_agent.core.completeness import settled
from exlab_watch_agent.core.creation import Creation, SavedCreation
from exlab_watch_agent.core.decide import Step, work_effect
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import AskWhere, Inspect
from exlab_watch_agent.core.events import (
    Event,
    Inspected,
    Inspection,
    NothingNew,
    Seen,
    Unseen,
    UnseenCode,
    Verified,
    Whereabouts,
)
from exlab_watch_agent.core.facts import (
    IdentityChanged,
    RunMoved,
    Transition,
)
from exlab_watch_agent.core.gate import blocking, mark_overrides
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.notes import notes_of
from exlab_watch_agent.core.overrides import next_expiry
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.run_problems import RUN_GONE
from exlab_watch_agent.core.snapshot import Note
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.commit import Moved
from exlab_watch_agent.engine.keys import work_key
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.messages import Ended, ScanWanted
from exlab_watch_agent.engine.noting import note_overrides, note_that_it_is_here
from exlab_watch_agent.engine.views import UNREADABLE_LOOKS_TOLD, RunView, Views
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

TICK_S = 0.05
"""A file that was changed twice within a tick may show the same signature; ticks are 1 to 16 ms long."""

Decide = Callable[..., Step]


@dataclass(slots=True)
class Memory:
    """What the looks of this life saw of a run. `is_settling`: it would be complete if it were quiet."""

    fingerprint: str = ""
    quiet_since_s: float = 0.0
    changes: int = 0
    looks_unchanged: int = 0
    is_settling: bool = False


class Runs:
    """The loop's own; only its thread uses it."""

    def __init__(self, bench: Bench, *, looks: Looks, decide: Decide, new_job_id: Callable[[], str]) -> None:
        self._bench = bench
        self._looks = looks
        self._decide = decide
        self._new_job_id = new_job_id
        self.views = Views()
        self._memory: dict[str, Memory] = {}
        self._held: dict[str, Ended] = {}

    # --- deciding ----------------------------------------------------------------------------------------------------

    def decide(self, job_id: str, event: Event) -> RunRecord | None:
        """Decide what follows for a run, save it, and have it take effect once it is durable; return the record then."""
        record = self._bench.commit.record(job_id)
        if record is None:
            return None
        if isinstance(event, Inspected | Verified) and event.anchor is not None:
            self._bench.commit.compare_anchor(event.anchor)
        step = self._decide(record, event, now=self._bench.clock.now(), policy=self._bench.policy)
        after = step.record
        if step.move is not None:
            cache = self._bench.lanes[after.equipment_id].caches.get(after.run_path, after.cache_signature)
            after = replace(after, creation_signature=self._signature_to_keep(after), cache_signature=cache)
            self._bench.commit.save(after, Transition(step.move), operator=step.move.operator)
            self._bench.commit.then(Moved(record, after, step.move))
        self._bench.commit.note_incidents(record, after)
        self._bench.commit.then(*step.effects)
        return after

    def _signature_to_keep(self, record: RunRecord) -> FileSignature | None:
        """Return the signature by which the next start knows that this run need not be looked at; None where it must be."""
        view = self.views.of(record.job_id)
        if record.state not in CHART.settled or record.gone_at is not None or view.problem or blocking(view.findings):
            return None
        return self._bench.lanes[record.equipment_id].known.get(record.run_path)

    def wrote(self, record: RunRecord, saved: SavedCreation) -> None:
        """Note that the agent itself changed a `creation.json`: nothing in it is new, if all was known before."""
        known = self._bench.lanes[record.equipment_id].known
        if known.get(record.run_path) != saved.before:
            return
        known[record.run_path] = saved.after
        self._looks.own_signatures[record.job_id] = saved.after

    def _memory_of(self, job_id: str) -> Memory:
        return self._memory.setdefault(job_id, Memory())

    # --- what was seen -----------------------------------------------------------------------------------------------

    def on_inspected(self, ended: Ended, effect: Inspect, result: Inspection) -> None:
        self._looks.ended(effect.place.run_path, ended)
        self.take_in(ended, effect.place, result)

    def take_in(self, ended: Ended, place: RunPlace, result: Inspection) -> None:
        """Let what a look at a folder saw be known. A run without a record is taken for a new one only after a question."""
        record = self._bench.commit.record_at(place.run_path)
        creation = None if isinstance(result, NothingNew) else result.creation
        if record is None and creation is not None and (places := self._places_of_twins(place, creation)):
            self._held[place.run_path] = replace(ended, result=result)
            self._bench.errands.want(AskWhere(place, places))
            return
        self._take_in_as(ended, place, result, record, {})

    def _places_of_twins(self, place: RunPlace, creation: Creation) -> tuple[str, ...]:
        """Return where the lane's known runs of this identity were last found: this may be one of them, moved."""
        twins = self._bench.commit.twins(creation.identity)
        return tuple(sorted(twin.run_path for twin in twins if twin.equipment_id == place.equipment_id))

    def on_whereabouts(self, effect: AskWhere, answer: Whereabouts) -> None:
        """Go on with the look that had to wait for this answer."""
        path = effect.place.run_path
        held = self._held.pop(path, None)
        if held is None:
            return
        result = held.result
        assert isinstance(result, Seen | Unseen), "only what has a creation.json is held"
        record = self._bench.commit.record_at(path)
        if record is None and result.creation is not None:
            places = self._places_of_twins(effect.place, result.creation)
            if not answer.are_there.keys() >= set(places):
                self._held[path] = held
                self._bench.errands.want(AskWhere(effect.place, places))
                return
        if not answer.is_new_there:
            result = Unseen(UnseenCode.MISSING, f"{path} is no longer there")
        self._take_in_as(held, effect.place, result, record, answer.are_there)

    def _take_in_as(
        self,
        ended: Ended,
        place: RunPlace,
        result: Inspection,
        record: RunRecord | None,
        are_there: Mapping[str, bool],
    ) -> None:
        lane = self._bench.lanes[place.equipment_id]
        if not lane.is_ours:
            self._looks.was_readable(place.run_path)
            return  # it went away meanwhile: nothing is concluded from it
        match result:
            case Unseen():
                self._on_unseen(lane, place, result, record, are_there)
            case NothingNew():
                pass
            case Seen():
                self.views.tell_of_folder(place.run_path, None)
                self._looks.was_readable(place.run_path)
                record = record or self._register(place, result.creation, are_there)
                self._on_seen(lane, ended, result, record)

    def _on_unseen(
        self, lane: Lane, place: RunPlace, result: Unseen, record: RunRecord | None, are_there: Mapping[str, bool]
    ) -> None:
        path = place.run_path
        match result.code:
            case UnseenCode.ROOT:
                self._looks.was_readable(path)
                self._bench.post(ScanWanted((lane.equipment_id,)))
                return
            case UnseenCode.DESTINATION:
                return  # of the lane, not of the run
            case UnseenCode.CREATION:
                if self._looks.read_again(path):
                    return
                self.views.tell_of_folder(path, result.folder_problem())
                self._looks.want_in(
                    path, self._bench.pace.problem_s
                )  # a permission or a lock that is corrected makes no event
            case UnseenCode.LEVEL:
                assert result.signature is not None, "the file was read"
                lane.rejected[path] = result.signature
                self.views.tell_of_folder(path, result.folder_problem())
                self._looks.want_in(
                    path, self._bench.pace.problem_s
                )  # what is corrected, or moved away, may leave no event either
            case UnseenCode.UNREADABLE:
                record = self._on_unreadable(lane, place, result, record, are_there)
                self._looks.want_in(path, self._bench.pace.unreadable_s)
            case UnseenCode.MISSING:
                self.views.tell_of_folder(path, None)
        self._looks.was_readable(path)
        if record is None:
            return
        view = self.views.of(record.job_id)
        if result.code is UnseenCode.MISSING:
            if view.reason != result.message:  # only a whole scan can say that it is gone
                self._bench.post(ScanWanted((record.equipment_id,), is_full=False))
            view = replace(view, unreadable="", unreadable_looks=0)
        self.views.tell(record.job_id, replace(view, reason=result.message))
        self._memory_of(record.job_id).is_settling = False

    def _on_unreadable(
        self, lane: Lane, place: RunPlace, result: Unseen, record: RunRecord | None, are_there: Mapping[str, bool]
    ) -> RunRecord | None:
        """Note that a run cannot be read whole, and know it from the first time on: a run without a record is nowhere.

        Nothing is decided: what cannot be seen is neither complete nor changed.
        """
        path = place.run_path
        if record is None:
            if result.creation is None:  # a look that failed by a defect
                self.views.tell_of_folder(path, result.folder_problem())
                return None
            record = self._register(place, result.creation, are_there)
            lane.read(path, None)
        if result.creation is not None:
            self.views.tell_of_folder(path, None)
        view = self.views.of(record.job_id)
        if not view.unreadable:
            log.warning("%s cannot be read whole, and is looked at again: %s", path, result.message)
        looks = min(view.unreadable_looks + 1, UNREADABLE_LOOKS_TOLD)
        self.views.tell(record.job_id, replace(view, unreadable=result.message, unreadable_looks=looks))
        return record

    def _on_seen(self, lane: Lane, ended: Ended, seen: Seen, record: RunRecord) -> None:
        path, inspected = record.run_path, seen.inspected
        lane.read(path, None if self._may_change_unseen(seen.signature) else seen.signature)
        if record.identity != seen.creation.identity and not record.is_sealed:
            record = self._bench.commit.save(replace(record, identity=seen.creation.identity), IdentityChanged())
        record = note_overrides(self._bench.commit, record, seen.creation.overrides)
        note_that_it_is_here(self._bench, record)
        memory, view = self._memory_of(record.job_id), self.views.of(record.job_id)
        if view.unreadable:
            log.info("%s can be read whole again", path)
        quiet_s = _observe_quiet(memory, ended, inspected.fingerprint)
        completeness = inspected.completeness
        lane.unsignalled.discard(path)
        if inspected.is_unsignalled:
            lane.unsignalled.add(path)
        if record.state in (RunState.ACQUIRING, RunState.CLEANED):  # also one that is there again must settle first
            # Later states ask for the same fingerprint instead, so that a restart does not make runs settle again.
            completeness = settled(completeness, quiet_s=quiet_s, settle_s=self._bench.policy.settle_s)
        findings = mark_overrides(inspected.findings, seen.creation.overrides, now=self._bench.clock.now())
        notes = notes_of(findings, seen.creation.overrides)
        self.views.tell(record.job_id, RunView(completeness.reason, findings=findings, notes=notes))
        memory.is_settling = inspected.completeness.is_complete and not completeness.is_complete
        if completeness != inspected.completeness:
            inspected = replace(inspected, completeness=completeness)
        if inspected.destination is not None and self._is_of_another_here(record, inspected):
            inspected = replace(inspected, destination=DestinationStanding.OCCUPIED_HERE)
        self.decide(record.job_id, inspected)
        self._plan_next_look(path, memory, seen, quiet_s)

    def _may_change_unseen(self, signature: FileSignature) -> bool:
        """Whether the file is so young that it may change within one tick of its file system's clock: look once more."""
        return abs(self._bench.clock.now().timestamp() - signature.mtime_ns / 1e9) < TICK_S

    def _is_of_another_here(self, record: RunRecord, inspected: Inspected) -> bool:
        """Whether another job has this destination, or claims it: a copied folder claims to be what it was copied from."""
        if inspected.claimed_job != record.job_id and self._bench.commit.record(inspected.claimed_job) is not None:
            return True
        here = (record.equipment_id, inspected.destination_path)
        twins = self._bench.commit.twins(record.identity)
        return any(t.job_id != record.job_id and (t.equipment_id, t.destination) == here for t in twins)

    def _plan_next_look(self, path: str, memory: Memory, seen: Seen, quiet_s: float) -> None:
        record = self._bench.commit.record_at(path)
        if record is None:
            return
        if record.state is RunState.ACQUIRING:
            if seen.inspected.is_unsignalled:
                return  # the signal's own event, or a scan, says when there is more to see
            if memory.is_settling:
                wait_s = max(0.02, self._bench.policy.settle_s - quiet_s)
            else:
                wait_s = max(1.0, self._bench.policy.settle_s) * 2.0 ** min(memory.looks_unchanged, 20)
            if memory.is_settling or wait_s < self._bench.policy.rescan_s:  # else the next full scan comes first
                self._looks.want_in(path, wait_s)
            return
        expiry = next_expiry(seen.creation.overrides, now=self._bench.clock.now())
        if expiry is not None and record.state not in CHART.settled:
            self._looks.want_in(path, max(0.0, (expiry - self._bench.clock.now()).total_seconds()) + 0.01)

    # --- which run it is ---------------------------------------------------------------------------------------------

    def _register(self, place: RunPlace, creation: Creation, are_there: Mapping[str, bool]) -> RunRecord:
        """Return the record of a run at a path where none was known: one that was moved there, or a new one."""
        for twin in self._bench.commit.twins(creation.identity):
            # Of its place, not of its job: it may have been found in another one since that was asked.
            if are_there.get(twin.run_path) is False:
                return self._move_path(twin, place)
        record = _new_record(self._new_job_id(), place, creation, self._bench.clock.now())
        move = Move(record.entered_at, "discovered", None, record.state, "creation.json was noticed")
        self._bench.commit.then(Moved(None, record, move))
        return self._bench.commit.save(record, Transition(move))

    def _move_path(self, record: RunRecord, place: RunPlace) -> RunRecord:
        log.info("%s was moved to %s", record.run_path, place.run_path)
        self.views.tell_of_folder(record.run_path, None)
        self._bench.lanes[record.equipment_id].forget(record.run_path)
        moved = self._bench.commit.save(
            record.moved_to(place.run_path, place.project), RunMoved(record.run_path, place.run_path)
        )
        work = work_effect(moved)
        if work is not None:
            self._bench.errands.cancel(work_key(moved.job_id))
            self._bench.commit.then(work)
        return moved

    # --- what is remembered ------------------------------------------------------------------------------------------

    def say_gone(self, record: RunRecord, problem: str) -> None:
        """Say that a run's folder is gone."""
        self.views.tell_problem(record.job_id, Note(RUN_GONE, problem))
        self._memory_of(record.job_id).is_settling = False

    def forget(self, lane: Lane) -> None:
        """Drop what is kept about runs that rest: there may be many of them, and hardly anything ever happens there."""
        self._looks.forget_paces()
        for job_id in [*self._memory, *self.views.now.runs]:
            record = (
                self._bench.commit.record(job_id)
                if self._bench.commit.store.state_of(job_id) in CHART.settled
                else None
            )
            is_here = record is not None and record.equipment_id == lane.equipment_id
            if record is not None and is_here and record.state in CHART.settled and not self.views.of(job_id).has_news:
                self._memory.pop(job_id, None)
                self._looks.own_signatures.pop(job_id, None)
                self.views.forget(job_id)

    @property
    def is_settling(self) -> bool:
        """Whether a run is about to count as complete. Where its root is away, nobody knows when."""
        return any(self._settles(job_id, memory) for job_id, memory in self._memory.items())

    def _settles(self, job_id: str, memory: Memory) -> bool:
        record = self._bench.commit.record(job_id) if memory.is_settling and memory.changes <= 1 else None
        return record is not None and self._bench.lanes[record.equipment_id].is_ours


def _observe_quiet(memory: Memory, ended: Ended, fingerprint: str) -> float:
    """Return for how long the run is known to have been as it is: only our own two looks count, no file's times."""
    if fingerprint != memory.fingerprint:
        memory.fingerprint = fingerprint
        memory.quiet_since_s = ended.ended_s
        memory.changes += 1
        memory.looks_unchanged = 0
        return 0.0
    memory.looks_unchanged += 1
    return max(0.0, ended.began_s - memory.quiet_since_s)


def _new_record(job_id: str, place: RunPlace, creation: Creation, now: datetime) -> RunRecord:
    return RunRecord(
        job_id=job_id,
        run_path=place.run_path,
        equipment_id=place.equipment_id,
        project=place.project,
        run_kind=creation.run_kind,
        identity=creation.identity,
        entered_at=now,
        discovered_at=now,
    )
