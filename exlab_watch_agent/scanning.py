"""Reconciles lanes with the disk: the scan is the truth, events only bring it forward.

Decided here: when a lane is scanned and what follows from a run that was seen, that is new, or that is gone, and from a root
that may not be ours. Walking and comparing are done beside the loop, over values that nobody changes meanwhile; the loop is
handed only what is different. Not here: how the folders are walked (adapters/scanner.py), how they are compared
(core/reconcile.py), and how a run is looked at (looking.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from exlab_watch_agent.core.completeness import signal_file
from exlab_watch_agent.core.events import RunVanished
from exlab_watch_agent.core.gate import Finding, orphan
from exlab_watch_agent.core.reconcile import Differences, Known, differences, root_doubt
from exlab_watch_agent.desk import Desk
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.lane import PROBE_FIRST_S, SETTLED_STATES, Lane, Scanned
from exlab_watch_agent.looking import Looking
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState
from exlab_watch_agent.timers import TimerKind
from exlab_watch_agent.working import Working

log = logging.getLogger(__name__)

ROOT_WAIT_MAX_S = 60.0
SECOND_SCAN_S = 5.0
SCAN_DUTY = 4
"""Scans that events ask for take at most one part in this many of the time: folders may come by the thousand."""
UNSETTLED_STATES = tuple(state for state in RunState if state not in SETTLED_STATES)
GONE_STATES = frozenset({RunState.ACQUIRING, RunState.BLOCKED, RunState.QUEUED})
"""Of these only the scan tells that the run folder is gone; work under way notices by itself, and a failure stays one."""


def gone(run_path: str) -> str:
    """Return what is told of a run whose folder is gone although it was not synced."""
    return f"{run_path} is gone: put it back, or ignore this if it was removed on purpose"


class Scanning:
    """Part of the engine's loop; see desk.py."""

    def __init__(self, desk: Desk, looking: Looking, working: Working) -> None:
        self._desk = desk
        self._looking = looking
        self._working = working

    # --- when --------------------------------------------------------------------------------------------------------

    def want_scan(self, equipment_ids: Iterable[str], *, is_full: bool = True) -> None:
        """Reconcile lanes with the disk; a scan that is not full only looks for runs that came, went or were edited."""
        for equipment_id in equipment_ids:
            lane = self._desk.lanes[equipment_id]
            lane.scan_is_full |= is_full
            if lane.is_scanning:
                lane.scan_again = True
            elif not is_full and self._desk.clock.monotonic_s() < lane.scan_not_before_s:
                self._desk.timers.set_earlier(TimerKind.SCAN_AGAIN, equipment_id, due_s=lane.scan_not_before_s)
            else:
                self._begin(lane)

    def _begin(self, lane: Lane) -> None:
        equipment_id = lane.equipment.equipment_id
        self._desk.timers.cancel(TimerKind.SCAN_AGAIN, equipment_id)
        lane.is_scanning = True
        # A root that was not ours is taken up with all that is in it.
        is_full, lane.scan_is_full = lane.scan_is_full or not lane.is_ours, False
        bound = self._desk.store.root_volume(equipment_id)
        known = Known(dict(lane.known), dict(lane.passed_over), bound, lane.accepted_volume, lane.accepted_by)
        cleaned = frozenset(self._desk.store.paths_in((RunState.CLEANED,), equipment_id))
        self._desk.see(lane, self._scan, lane, known, cleaned, tuple(sorted(lane.unsignalled)), is_full)

    # --- beside the loop ---------------------------------------------------------------------------------------------

    def _scan(
        self, lane: Lane, known: Known, cleaned: frozenset[str], unsignalled: tuple[str, ...], is_full: bool
    ) -> None:
        equipment_id, began_s = lane.equipment.equipment_id, self._desk.clock.monotonic_s()
        error: str | None = None
        volume = ""
        found: Differences | None = None
        gone: tuple[str, ...] = ()
        signalled: tuple[str, ...] = ()
        try:
            volume = lane.scanner.volume(lane.equipment)
            found, gone = self._compare(lane, known, cleaned, volume)
            if (signal := signal_file(lane.equipment)) is not None:
                signalled = tuple(path for path in unsignalled if lane.ports.tree.has_name(path, signal))
            lane.root_lock.take()  # the first thing that is written there, so only once it is known to be our root
        except RootUnavailableError as unavailable:
            error = str(unavailable)
        except Exception as defect:  # a defect must not leave the lane scanning for ever
            log.exception("a scan of %s failed", equipment_id)
            error = f"the scan failed: {defect}"
        ended_s = self._desk.clock.monotonic_s()
        self._desk.post(
            Scanned(equipment_id, began_s, ended_s, is_full, error, volume, found, gone, signalled, known.accepted_by)
        )

    @staticmethod
    def _compare(lane: Lane, known: Known, cleaned: frozenset[str], volume: str) -> tuple[Differences, tuple[str, ...]]:
        """Return what is different and which known runs are gone. Raises: RootUnavailableError when it may not be our root."""
        found = differences(known, lane.scanner.scan(lane.equipment))
        doubt = root_doubt(
            root=lane.root,
            equipment_id=lane.equipment.equipment_id,
            known=known,
            expected=(path for path in known.runs if path not in cleaned),
            is_any_there=found.is_any_there,
            is_empty=found.runs_total == 0 and lane.scanner.is_empty(lane.equipment),
            volume=volume,
        )
        if doubt is not None:
            raise RootUnavailableError(doubt)
        # One that came, or was moved there, after the scan had passed is not gone.
        gone = tuple(path for path in found.missing if path not in cleaned and not lane.scanner.is_there(path))
        if lane.scanner.volume(lane.equipment) != volume:
            raise RootUnavailableError(f"{lane.root} became another folder or volume while it was scanned.")
        return found, gone

    # --- what follows ------------------------------------------------------------------------------------------------

    def on_scanned(self, message: Scanned) -> None:
        lane = self._desk.lanes[message.equipment_id]
        lane.is_scanning = False
        lane.scan_took_s = message.ended_s - message.began_s
        lane.scan_not_before_s = message.ended_s + SCAN_DUTY * lane.scan_took_s
        if message.accepted_by is not None:
            lane.accepted_by = None  # it was said of what was there, and of nothing that comes later
        if message.found is None or message.error is not None:
            self._wait_for_root(lane, message.error or "the scan came to nothing")
        else:
            self._take_in(lane, message, message.found)
            wait_s = self._desk.policy.rescan_s
            if message.is_full or not self._desk.timers.has(TimerKind.SCAN, message.equipment_id):
                self._desk.timers.set(TimerKind.SCAN, message.equipment_id, due_s=message.ended_s + wait_s)
        if lane.scan_again:
            lane.scan_again = False
            self.want_scan((message.equipment_id,), is_full=lane.scan_is_full)

    def _wait_for_root(self, lane: Lane, problem: str) -> None:
        """Conclude nothing, touch nothing, and look again soon, and then ever more seldom."""
        if lane.root_problem != problem:
            log.warning("%s waits: %s", lane.equipment.equipment_id, problem)
        lane.root_problem = problem
        self._working.let_go(lane)
        lane.root_wait_s = min(ROOT_WAIT_MAX_S, lane.root_wait_s * 2 or PROBE_FIRST_S)
        due_s = self._desk.clock.monotonic_s() + lane.root_wait_s
        self._desk.timers.set(TimerKind.SCAN, lane.equipment.equipment_id, due_s=due_s)

    def _take_in(self, lane: Lane, message: Scanned, found: Differences) -> None:
        if lane.root_problem is not None:
            log.info("%s: the root is there again", lane.equipment.equipment_id)
        lane.root_problem, lane.root_wait_s = None, 0.0
        self._bind(lane, message)
        if message.is_full:
            lane.last_scan_at = self._desk.clock.now()
            self._looking.forget(lane)
        if lane.orphans != found.orphans:
            lane.orphans = dict(found.orphans)
            self._desk.told += 1
        lane.runs_seen = found.runs_total
        if message.is_full:
            unsettled = self._desk.store.paths_in(UNSETTLED_STATES, lane.equipment.equipment_id)
            lane.backlog.update((path, None) for path in unsettled if path not in lane.unsignalled)
        # Those that were taken in since the scan began are no news any more.
        changed = [
            path
            for path, signature in found.changed.items()
            if lane.known.get(path, lane.passed_over.get(path)) != signature
        ]
        self._looking.put_first(lane, [*changed, *message.signalled])
        # A run that is gone from its place may be the one that is new in another: that is to be known first.
        may_have_moved = any(self._desk.record_at(path) is None for path in changed)
        was_gone, lane.gone = lane.gone, frozenset(message.gone)
        for path in message.gone:
            lane.backlog.pop(path, None)
            lane.unsignalled.discard(path)
            self._on_gone(lane, path, is_first=path not in was_gone, may_have_moved=may_have_moved)

    def _bind(self, lane: Lane, message: Scanned) -> None:
        """Remember by which identity this root was last found to be ours, and who said so if an operator did."""
        equipment_id, volume, operator = message.equipment_id, message.volume, message.accepted_by
        lane.volume = volume
        if operator is not None:
            lane.accepted_volume = volume
        if operator is not None or self._desk.store.root_volume(equipment_id) != volume:
            data = {"equipment_id": equipment_id, "volume": volume}
            self._desk.entries.append(Entry("root_bound", operator=operator, data=data))
        self._working.take_up(lane)

    def _on_gone(self, lane: Lane, path: str, *, is_first: bool, may_have_moved: bool) -> None:
        """Say that a run folder is gone. A run in the queue fails only when a second scan says so, too.

        What the first one saw is a moment old: the folder may be back, or just be on its way to another place. A folder
        that cannot be read may be that place for ever, so only the first scan asks for another one soon.
        """
        record = self._desk.record_at(path)  # none where it was moved in this very pass
        if record is None or record.state not in GONE_STATES or not self._desk.is_mine(record):
            return
        view = self._desk.tell(
            record.job_id,
            problem=gone(record.run_path),
        )
        view.is_settling = False
        if record.state is not RunState.QUEUED or lane.pushing == record.job_id:
            return
        if is_first:
            due_s = self._desk.clock.monotonic_s() + SECOND_SCAN_S
            self._desk.timers.set_earlier(TimerKind.SCAN_AGAIN, lane.equipment.equipment_id, due_s=due_s)
        elif not may_have_moved:
            self._desk.decide(record.job_id, RunVanished())

    def orphans(self) -> tuple[Finding, ...]:
        """Return a finding for every run-shaped folder without creation.json that the last scans saw."""
        return tuple(orphan(place) for lane in self._desk.lanes.values() for place in lane.orphans.values())
