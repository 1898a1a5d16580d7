"""When run folders are looked at: soon after something happened there, not too often, and a few at a time for scans.

Decided here: which folders are looked at at all, how often one that keeps changing is, and which looks wait for others. Not
here: how a look is made (acts/inspect.py), and what follows from what was seen (runs.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.effects import Inspect
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.keys import Slot
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.messages import Ended
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.statechart import RunState

REREAD_WAITS_S = (0.3, 1.0, 3.0)
"""A half-written creation.json is read again after these before it becomes a problem."""
BACKGROUND_LOOKS_MAX = 2
LOOK_DUTY = 10
"""A run that keeps changing is looked at for at most one part in this many of a worker's time."""
SLOW_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """When a folder may be looked at again, and whether its last look took so long that the next waits in the background."""

    not_before_s: float = 0.0
    is_slow: bool = False


class Looks:
    """The loop's own; only its thread uses it.

    `only`: paths of the runs that are looked after; None: all that are found. `own_signatures`: job id → signature of the
    `creation.json` that the agent itself wrote last.
    """

    def __init__(self, bench: Bench, *, only: set[str] | None) -> None:
        self._bench = bench
        self.only = only
        self.roots = {lane_id: lane.ports.root for lane_id, lane in bench.lanes.items()}
        self.own_signatures: dict[str, FileSignature] = {}
        self._paces: dict[str, Pace] = {}
        self._rereads: dict[str, int] = {}

    def is_mine(self, record: RunRecord) -> bool:
        """Return whether this engine looks after the run."""
        return record.equipment_id in self._bench.lanes and (self.only is None or record.run_path in self.only)

    def want(self, run_path: str, *, is_about_creation: bool = False, is_background: bool = False) -> None:
        """Look at a run soon: one look at a time for each run, and not too often while it keeps changing."""
        place = place_of(run_path, self.roots)
        if place is None or (self.only is not None and run_path not in self.only):
            return
        record = self._bench.commit.record_at(run_path)
        job_id = record.job_id if record is not None else ""
        self._bench.errands.want(
            Inspect(place, job_id, is_about_creation=is_about_creation, is_background=is_background)
        )

    def want_in(self, run_path: str, wait_s: float) -> None:
        """Look at a run after this long, unless it is looked at before."""
        self._bench.timers.set_earlier(TimerKind.LOOK, run_path, due_s=self._bench.in_s(wait_s))

    def want_backlog(self, lane: Lane) -> bool:
        """Look at what a scan asks for a few at a time, so that a run that is being written now goes before them.

        Return whether there was anything to look at.
        """
        free = BACKGROUND_LOOKS_MAX - self._bench.errands.taken(Slot.BACKGROUND, lane.equipment_id)
        if not lane.is_ours or not lane.backlog or free <= 0:
            return False
        for _ in range(min(free, len(lane.backlog))):
            path, _ = lane.backlog.popitem(last=False)
            self.want(path, is_background=True)
        return True

    def brief(self, effect: Inspect) -> Inspect | None:
        """Return the look with what is known at this moment, in which it may start; None when it is put off."""
        path = effect.place.run_path
        lane = self._bench.lanes[effect.equipment_id]
        if not lane.is_ours:
            self.was_readable(path)
            lane.put_first([path])  # the scan that finds the root to be ours may have passed it already
            return None
        pace = self._paces.get(path, Pace())
        if self._bench.clock.monotonic_s() < pace.not_before_s and not effect.is_about_creation:
            self._bench.timers.set_earlier(TimerKind.LOOK, path, due_s=pace.not_before_s)
            return None
        if pace.is_slow and not effect.is_background:
            lane.put_first([path])  # several runs of 100,000 files must not keep all readers from a new one
            return None
        record = self._bench.commit.record_at(path)
        known_signature = None
        if record is not None and effect.is_about_creation:
            known_signature = self.own_signatures.get(record.job_id)
        if known_signature is None:  # else the look may end at our own write, and the planned one must still come
            self._bench.timers.cancel(TimerKind.LOOK, path)
        return replace(
            effect,
            declared_mismatches=record.declared_mismatches if record is not None else (),
            known_signature=known_signature,
            judges_gate=record is not None and record.state is not RunState.ACQUIRING,
        )

    def ended(self, run_path: str, ended: Ended) -> None:
        """Take note of how long a look took: the next one waits the longer."""
        took_s = ended.ended_s - ended.began_s
        # A machine may sleep, or a disk hang, in the middle of a look: a full scan's look is never put off for another.
        not_before_s = ended.ended_s + min(LOOK_DUTY * took_s, self._bench.policy.rescan_s)
        self._paces[run_path] = Pace(not_before_s, took_s > SLOW_LOOK_S)

    # --- a creation.json that cannot be read --------------------------------------------------------------------------

    def read_again(self, run_path: str) -> bool:
        """Have it read again in a moment, as it may be half written; False once that was tried often enough."""
        rereads = self._rereads.get(run_path, 0)
        if rereads == len(REREAD_WAITS_S):
            return False
        self._rereads[run_path] = rereads + 1
        due_s = self._bench.in_s(REREAD_WAITS_S[rereads])
        self._bench.timers.set(TimerKind.LOOK, run_path, due_s=due_s)
        return True

    def was_readable(self, run_path: str) -> None:
        """Start again with the next one that cannot be read."""
        self._rereads.pop(run_path, None)

    @property
    def is_reading_again(self) -> bool:
        """Whether a `creation.json` that could not be read is about to be read again."""
        return bool(self._rereads)

    def forget_paces(self) -> None:
        """Drop what no look needs any longer."""
        now_s = self._bench.clock.monotonic_s()
        self._paces = {path: pace for path, pace in self._paces.items() if pace.not_before_s > now_s}
