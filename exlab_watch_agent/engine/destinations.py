"""The lanes' destinations as the loop sees them: whether they answer, which root is bound, and who said so.

Decided here: when a destination is asked, and that another root than before voids what was proven. Not here: what follows
from an answer or from silence (core/link.py), and how it is asked (acts/probe.py).
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import timedelta
from itertools import count

from exlab_watch_agent.core.binding import (
    BY_ITSELF,
    Below,
    BelowChange,
    Binding,
    accepted,
    below_change,
    first_folder,
    marker_key,
)
from exlab_watch_agent.core.commands import ReplaceDestination
from exlab_watch_agent.core.decide import sealed_run_of
from exlab_watch_agent.core.effects import Bind, Effect, Probe, SealedCopy, SealedRun
from exlab_watch_agent.core.effects import ReplaceDestination as StartReplacing
from exlab_watch_agent.core.events import Answered, BindingRefused, DestinationReplaced, Event, Replaced, Unreached
from exlab_watch_agent.core.facts import DestinationBound, MountFound, PassesVoided
from exlab_watch_agent.core.link import (
    AdmissionAnswered,
    LinkEvent,
    LinkLost,
    ProbeAnswered,
    ProbeUnanswered,
    PushArrived,
    decide_link,
)
from exlab_watch_agent.core.record import LastError, RunRecord
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.core.ways_out import ONLY_COPY_LOST, copy_lost
from exlab_watch_agent.core.week import SAMPLE_EVERY, Room
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.commit import Reply, answer
from exlab_watch_agent.engine.keys import Slot, key_of
from exlab_watch_agent.engine.lane import Lane, Replacing
from exlab_watch_agent.engine.messages import Answer, Ended
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.errors import NAS_UNREACHABLE, AgentError, Wait
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

SILENCE_S = 60.0
"""A destination that has not answered for so long is away: a dead mount may never answer."""
SILENT_PROBES_MAX = 3
"""So many questions without an answer may be left hanging in a dead mount, each on a thread, before no new one is asked."""
COPIES_ASKED_FOR_MAX = 3
SILENT = f"it has not answered for {SILENCE_S:g} s"
COUNTS_AS_ANOTHER = "it counts as another place than before"
ANOTHER_ROOT = "the root that answered is another than the one that is bound"


class Destinations:
    """The loop's own; only its thread uses it. `audit_soon`: told of each sealed run whose passes are void; `decide`: of what is
    to be decided for a run."""

    def __init__(
        self,
        bench: Bench,
        *,
        audit_soon: Callable[[RunRecord], None],
        decide: Callable[[str, Event], RunRecord | None],
    ) -> None:
        self._bench = bench
        self._audit_soon = audit_soon
        self._decide = decide
        self._serials = count(1)
        self._silent: defaultdict[str, set[int]] = defaultdict(set)
        self._replies: dict[int, Callable[[Answer], None]] = {}

    # --- the link ----------------------------------------------------------------------------------------------------

    def probe(self, lane: Lane, *, is_light: bool = False) -> None:
        """Ask whether the destination is there, and unless `is_light` whether it can be written to."""
        due_s = self._bench.in_s(SILENCE_S)
        self._bench.timers.set(TimerKind.SILENCE, lane.equipment_id, due_s=due_s)
        silent = self._silent[lane.equipment_id]
        # Where one hangs, the share may have been mounted anew meanwhile: another one is asked beside it.
        serial = next(
            number for number in range(SILENT_PROBES_MAX) if number not in silent or number == SILENT_PROBES_MAX - 1
        )
        room, now = lane.room_there, self._bench.clock.now()
        asks_room = room is None or not timedelta(0) <= now - room.at < SAMPLE_EVERY
        needs_bytes = self._room_needed(lane)
        copies = self.some_copies(lane)
        self._bench.errands.want(Probe(lane.equipment_id, is_light, serial, copies, asks_room, needs_bytes))

    def _room_needed(self, lane: Lane) -> int:
        """Return how much room a full destination must have, in bytes: no more than the run needs now, 0 where it is gone."""
        if lane.away is None or not lane.away.needs_bytes:
            return 0
        record = self._bench.commit.record(lane.away.needed_by)
        is_waiting = record is not None and record.state is RunState.QUEUED
        return min(lane.away.needs_bytes, record.bytes_total) if record is not None and is_waiting else 0

    def on_probed(self, ended: Ended, effect: Probe, result: Answered | Unreached) -> None:
        lane = self._bench.lanes[effect.equipment_id]
        self._silent[lane.equipment_id].discard(effect.serial)
        if isinstance(result, Answered) and not self._is_bound_to_another(lane, result.marker_id):
            self._bench.timers.cancel(TimerKind.SILENCE, lane.equipment_id)
            self.remember_marker(lane, result.marker_id)
            if result.free_bytes is not None:
                lane.room_there = Room(self._bench.clock.now(), result.free_bytes)
            self._on_link(lane, ProbeAnswered(None if effect.is_light else ended.ended_s))
            return
        if not self.is_asking(lane):
            self._bench.timers.cancel(TimerKind.SILENCE, lane.equipment_id)
        refusal = result if isinstance(result, Unreached) else Unreached(ANOTHER_ROOT)
        self._on_link(lane, ProbeUnanswered(self._bench.clock.now(), refusal.message, refusal.wait))

    def on_silence(self, lane: Lane) -> None:
        """The destination has not answered for so long that nothing waits for it any longer."""
        silent = self._silent[lane.equipment_id]
        for serial in range(SILENT_PROBES_MAX):
            if self._bench.errands.is_running(key_of(Probe(lane.equipment_id, serial=serial))):
                silent.add(serial)
        if self.is_asking(lane):
            self._on_link(lane, ProbeUnanswered(self._bench.clock.now(), SILENT, NAS_UNREACHABLE))

    def lost(self, lane: Lane, reason: str, wait: Wait, *, needs_bytes: int = 0, needed_by: str = "") -> None:
        """Start nothing of this lane that needs its destination, and ask that again soon; say why, and what helps.

        Work that was under way when a probe said what it is knows less than the probe: that stays said.
        """
        away = lane.away
        if away is not None and not away.is_full and wait == NAS_UNREACHABLE != away.wait:
            return
        self._on_link(lane, LinkLost(self._bench.clock.now(), reason, wait, needs_bytes, needed_by))

    def on_pushed(self, lane: Lane) -> None:
        """All files of a run of this lane have arrived."""
        self._on_link(lane, PushArrived())

    def on_admission(self, lane: Lane, marker_id: str, *, asked_fully_s: float | None) -> bool:
        """The destination answered the look before a push; return whether it is the one that is bound."""
        if self._is_bound_to_another(lane, marker_id):
            self.lost(lane, ANOTHER_ROOT, NAS_UNREACHABLE)
            return False
        self.remember_marker(lane, marker_id)
        self._on_link(lane, AdmissionAnswered(asked_fully_s))
        return True

    def _is_bound_to_another(self, lane: Lane, marker_id: str) -> bool:
        """Whether another root was accepted meanwhile, while this question was under way: only an operator changes that."""
        return accepted(lane.binding, lane.spelling) not in (None, marker_id)

    def _on_link(self, lane: Lane, event: LinkEvent) -> None:
        before, might_read = lane.away, lane.may_read
        step = decide_link(lane.link, event, self._bench.pace)
        lane.link = step.link
        if isinstance(event, ProbeAnswered | AdmissionAnswered):
            lane.answered_at = self._bench.clock.now()
        if step.probe_in_s is not None:
            due_s = self._bench.in_s(step.probe_in_s)
            self._bench.timers.set(TimerKind.PROBE, lane.equipment_id, due_s=due_s)
        if before is None and lane.away is not None:
            log.warning("%s waits (%s): %s", lane.equipment_id, lane.away.wait.code, lane.away.reason)
        elif before is not None and lane.away is None:
            log.info(
                "%s: %s", lane.equipment_id, "the NAS is asked for room again" if before.is_full else "the NAS is back"
            )
        is_back = before is not None and lane.away is None
        if is_back or (lane.may_read and not might_read):
            self._bench.errands.on_opened(lane.equipment_id)

    def may_say_more(self, question: Probe | Bind) -> bool:
        """Whether a question that runs may still say what it is that keeps a lane waiting: not where one hangs already."""
        away = self._bench.lanes[question.equipment_id].away
        hangs = isinstance(question, Bind) or bool(self._silent[question.equipment_id])
        return away is None or (away.wait == NAS_UNREACHABLE and not hangs)

    def is_asking(self, lane: Lane) -> bool:
        questions: list[Effect] = [Probe(lane.equipment_id, serial=serial) for serial in range(SILENT_PROBES_MAX)]
        questions += [Bind(lane.equipment_id, "", serial) for serial in self._replies]
        return any(self._bench.errands.is_running(key_of(question)) for question in questions)

    # --- the binding -------------------------------------------------------------------------------------------------

    def bind(self, lane: Lane, operator: str, reply: Callable[[Answer], None]) -> Bind:
        """Return what binds the lane's destination because an operator says that it is the right one."""
        serial = next(self._serials)
        self._replies[serial] = reply
        return Bind(lane.equipment_id, operator, serial, self.some_copies(lane))

    def some_copies(self, lane: Lane) -> tuple[SealedCopy, ...]:
        """Return some sealed copies of the lane's, by which its root is known without a marker."""
        ids = self._bench.commit.store.ids_in(CHART.auditable, lane.equipment_id)
        records = filter(None, map(self._bench.commit.record, ids[-COPIES_ASKED_FOR_MAX:]))
        return tuple(SealedCopy(record.job_id, record.destination, record.manifest_digest) for record in records)

    def on_bound(self, effect: Bind, result: Answered | BindingRefused) -> None:
        lane = self._bench.lanes[effect.equipment_id]
        reply = self._replies.pop(effect.serial)
        if isinstance(result, BindingRefused):
            self._bench.commit.then(Reply(reply, answer(result.message, is_ok=False)))
            return
        self.accept(lane, result, operator=effect.operator)
        said = f"{lane.equipment_id}: {lane.ports.transport.describe()} is bound"
        self._bench.commit.then(Reply(reply, answer(said)))
        if lane.away is not None:
            self.probe(lane)

    def accept(self, lane: Lane, bound: Answered, *, operator: str) -> None:
        """Take the root for the lane's destination because an operator says so; what was proven there is proven anew where its
        marker was gone: it may be another disk with a copy of the data."""
        if bound.is_put_back:
            self._void_passes(lane, bound.marker_id)
            lane.binding = None
        self.remember_marker(lane, bound.marker_id, operator=operator)

    def remember_marker(self, lane: Lane, marker_id: str, *, operator: str | None = None) -> None:
        """Take the root with this marker for the lane's destination from now on: by itself, or because an operator says so.

        A marker that was accepted under another spelling stays accepted by whoever did that.
        """
        if accepted(lane.binding, lane.spelling) == marker_id:
            return
        before = lane.binding
        is_known = before is not None and before.marker_id == marker_id
        if before is not None and is_known and before.spelling != lane.spelling:
            self._carry_mounts(lane, before.spelling)
        if before is None or not is_known or before.spelling != lane.spelling:
            self._void_passes(lane, marker_id)
        accepted_by = operator or (before.accepted_by if before is not None and is_known else "") or BY_ITSELF
        self._bind_to(lane, Binding(marker_id, accepted_by, lane.spelling), operator=operator)

    def _carry_mounts(self, lane: Lane, spelling: str) -> None:
        """Go on knowing what lay below the root where it is reached by another spelling now: it is the same NAS."""
        for folder, below in self._bench.commit.store.mounts(lane.equipment_id, spelling).items():
            if folder not in lane.mounts:
                lane.mounts[folder] = below
                self._bench.commit.note(MountFound(marker_key(lane.equipment_id, lane.spelling), folder, below))

    def _bind_to(
        self, lane: Lane, binding: Binding, *, operator: str | None, replaces: str = "", reason: str = ""
    ) -> None:
        lane.binding = binding
        root = marker_key(lane.equipment_id, binding.spelling)
        bound = DestinationBound(root, binding.marker_id, binding.accepted_by, replaces, reason)
        self._bench.commit.note(bound, operator=operator)

    def remember_mount(self, lane: Lane, folder: str, now: Below | None) -> None:
        """Take note of what a first folder below the root lies on. What was proven in the folder that a mount hides, or on another
        mount, was proven elsewhere."""
        marker_id = accepted(lane.binding, lane.spelling)
        if now is None or marker_id is None or below_change(lane.mounts.get(folder), now) is not BelowChange.LEARN:
            return
        lane.mounts[folder] = now
        self._bench.commit.note(MountFound(marker_key(lane.equipment_id, lane.spelling), folder, now))
        self._void_passes(lane, marker_id, folder)

    def _void_passes(self, lane: Lane, marker_id: str, folder: str = "") -> None:
        """Another place than before, as far as is known: what was proven elsewhere is proven again there, and at once.

        Of runs in any state: one that is audited or sealed as the agent starts was proven elsewhere just as well. With `folder`
        only of those below that one.
        """
        for job_id in self._bench.commit.store.ids_in(tuple(RunState), lane.equipment_id):
            record = self._bench.commit.record(job_id)
            if record is None or (folder and first_folder(record.destination) != folder):
                continue
            if record.state is RunState.SEALING:  # what is to be sealed was proven elsewhere, and is proven anew before
                record = self._decide(job_id, DestinationReplaced("", COUNTS_AS_ANOTHER)) or record
            record = self._elsewhere(lane, record, marker_id)
            if record.state in CHART.auditable:
                self._audit_soon(record)

    def _elsewhere(self, lane: Lane, record: RunRecord, marker_id: str) -> RunRecord:
        """Return the record, saved, of a run whose destination counts as another place than before."""
        anew = record.elsewhere()
        if record.is_sealed:
            lane.caches[record.run_path] = anew.cache_signature
            lane.caches_due.setdefault(record.job_id)
        if anew == self._bench.commit.record(record.job_id):
            return anew
        return self._bench.commit.save(anew, PassesVoided(marker_key(lane.equipment_id, lane.spelling), marker_id))

    # --- a replaced NAS ----------------------------------------------------------------------------------------------

    def replace(self, lane: Lane, command: ReplaceDestination, reply: Callable[[Answer], None]) -> None:
        """Have the root that answers take the place of the bound one, once the lane is at rest. Raises: AgentError."""
        if lane.replacing is not None:
            raise AgentError(f"The destination of {lane.equipment_id} is being replaced already: wait for that to end.")
        if self._bench.commit.store.ids_in((RunState.CLEANING,), lane.equipment_id):
            raise AgentError(
                f"A run of {lane.equipment_id} is being cleaned up on the word of the place that is to be given up: let that "
                "end, then give the command again."
            )
        lane.replacing = Replacing(str(command.operator), command.reason, reply, self._bench.clock.now())
        self.replace_at_rest(lane)

    def replace_at_rest(self, lane: Lane) -> None:
        """Go on with a replacement that waits: for the work that is under way, and until it is known what is here."""
        replacing = lane.replacing
        if replacing is None or replacing.is_asked:
            return
        if lane.root_problem is not None:
            text = f"which runs of {lane.equipment_id} have data here cannot be told: {lane.root_problem}"
            self._end_replacing(lane, replacing, answer(text, is_ok=False))
            return
        errands = self._bench.errands
        if not lane.is_ours or errands.at_work_in(lane.equipment_id):
            return
        if errands.taken(Slot.PUSH, lane.equipment_id) or errands.taken(Slot.CACHE, lane.equipment_id):
            return
        lane.replacing = dataclasses.replace(replacing, is_asked=True)
        self._bench.commit.then(StartReplacing(lane.equipment_id, self._sealed_runs(lane)))

    def _sealed_runs(self, lane: Lane) -> tuple[SealedRun, ...]:
        records = map(self._bench.commit.record, self._bench.commit.store.ids_in(tuple(RunState), lane.equipment_id))
        return tuple(sealed_run_of(record) for record in records if record is not None and record.is_sealed)

    def on_replaced(self, effect: StartReplacing, result: Replaced | BindingRefused) -> None:
        lane = self._bench.lanes[effect.equipment_id]
        replacing = lane.replacing
        assert replacing is not None, "it is ended here and nowhere else"
        if isinstance(result, BindingRefused):
            self._end_replacing(lane, replacing, answer(result.message, is_ok=False))
            return
        former = lane.binding
        lane.mounts.clear()
        self._bind_to(
            lane,
            Binding(result.marker_id, replacing.operator, lane.spelling),
            operator=replacing.operator,
            replaces="" if former is None else former.marker_id,
            reason=replacing.reason,
        )
        job_ids = self._bench.commit.store.ids_in(tuple(RunState), lane.equipment_id)
        queued = sum(self._start_anew(lane, job_id, replacing, result) for job_id in job_ids)
        said = f"{lane.equipment_id}: {lane.spelling} takes the place of "
        said += "what was bound before" if former is None or former.spelling == lane.spelling else former.spelling
        said += f"; {counted(queued, 'run')} will be proven there or pushed anew"
        if result.lost:
            said += (
                f"; {counted(len(result.lost), 'run')} without data here {_are(result.lost)} not there: see `problems`"
            )
        self._end_replacing(lane, replacing, answer(said))
        if lane.away is not None:
            self.probe(lane)

    def _start_anew(self, lane: Lane, job_id: str, replacing: Replacing, found: Replaced) -> bool:
        """Have one run proven or pushed anew where the destination was replaced; return whether it is queued for that now."""
        before = self._bench.commit.record(job_id)
        event = DestinationReplaced(replacing.operator, replacing.reason, job_id not in found.without_data)
        record, turn = self._decide(job_id, event), None if before is None else before.turn
        while record is not None and record.turn != turn:  # an audit comes to rest first
            turn = record.turn
            record = self._decide(job_id, event)
        if before is None or record is None:
            return False
        if job_id in found.lost:
            record = record.with_error(LastError(ONLY_COPY_LOST, copy_lost(record.destination)))
        record = self._elsewhere(lane, record, found.marker_id)
        if record.state in CHART.auditable:
            self._audit_soon(record)
        return record.state is RunState.QUEUED and record.turn != before.turn

    def _end_replacing(self, lane: Lane, replacing: Replacing, said: Answer) -> None:
        lane.replacing = None
        self._bench.commit.then(Reply(replacing.reply, said))
        self._bench.errands.on_opened(lane.equipment_id)


def _are(job_ids: Collection[str]) -> str:
    return "is" if len(job_ids) == 1 else "are"
