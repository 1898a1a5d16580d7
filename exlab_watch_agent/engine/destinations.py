"""The lanes' destinations as the loop sees them: whether they answer, which root is bound, and who said so.

Decided here: when a destination is asked, and that another root than before voids what was proven. Not here: what follows
from an answer or from silence (core/link.py), and how it is asked (acts/probe.py).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from itertools import count

from exlab_watch_agent.core.binding import BY_ITSELF, Binding, accepted
from exlab_watch_agent.core.effects import Bind, Effect, Probe, SealedCopy
from exlab_watch_agent.core.events import Answered, BindingRefused, Unreached
from exlab_watch_agent.core.facts import DestinationBound, PassesVoided
from exlab_watch_agent.core.link import (
    AdmissionAnswered,
    LinkEvent,
    LinkLost,
    ProbeAnswered,
    ProbeUnanswered,
    decide_link,
)
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.week import SAMPLE_EVERY, Room
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.commit import Reply, answer
from exlab_watch_agent.engine.keys import key_of
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.messages import Answer, Ended
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.errors import NAS_UNREACHABLE, Wait
from exlab_watch_agent.statechart import CHART

log = logging.getLogger(__name__)

SILENCE_S = 60.0
"""A destination that has not answered for so long is away: a dead mount may never answer."""
SILENT_PROBES_MAX = 3
"""So many questions without an answer may be left hanging in a dead mount, each on a thread, before no new one is asked."""
COPIES_ASKED_FOR_MAX = 3
SILENT = f"it has not answered for {SILENCE_S:g} s"
ANOTHER_ROOT = "the root that answered is another than the one that is bound"


class Destinations:
    """The loop's own; only its thread uses it. `void`: told of each run whose passes are void, to audit it soon."""

    def __init__(self, bench: Bench, *, audit_soon: Callable[[RunRecord], None]) -> None:
        self._bench = bench
        self._audit_soon = audit_soon
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
        self._bench.errands.want(Probe(lane.equipment_id, is_light, serial, self.some_copies(lane), asks_room))

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

    def lost(self, lane: Lane, reason: str, wait: Wait) -> None:
        """Start nothing of this lane that needs its destination, and ask that again soon; say why, and what helps.

        Work that was under way when a probe said what it is knows less than the probe: that stays said.
        """
        if lane.away is not None and wait == NAS_UNREACHABLE != lane.away.wait:
            return
        self._on_link(lane, LinkLost(self._bench.clock.now(), reason, wait))

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
        return accepted(lane.binding) not in (None, marker_id)

    def _on_link(self, lane: Lane, event: LinkEvent) -> None:
        before = lane.away
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
            log.info("%s: the NAS is back", lane.equipment_id)
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
        """Take the root with this marker for the lane's destination from now on: by itself, or because an operator says so."""
        if accepted(lane.binding) == marker_id:
            return
        if lane.binding is None or lane.binding.marker_id != marker_id:
            self._void_passes(lane, marker_id)
        lane.binding = Binding(marker_id, operator or BY_ITSELF)
        self._bench.commit.note(
            DestinationBound(lane.marker_key, marker_id, lane.binding.accepted_by), operator=operator
        )

    def _void_passes(self, lane: Lane, marker_id: str) -> None:
        """Another place than before, as far as is known: what was proven elsewhere is proven again there, and at once."""
        for job_id in self._bench.commit.store.ids_in(CHART.auditable, lane.equipment_id):
            record = self._bench.commit.record(job_id)
            if record is not None:
                voided = record.with_passes_void()
                self._audit_soon(self._bench.commit.save(voided, PassesVoided(lane.marker_key, marker_id)))
