"""Reconciles lanes with the disk: the scan is the truth, events only bring it forward.

Decided here: when a lane is scanned and what follows from a run that was seen, that is new, or that is gone, and from a root
that may not be ours. Walking and comparing are done beside the loop, over values that nobody changes meanwhile; the loop is
handed only what is different. Not here: how the folders are walked and compared (acts/scan.py, core/reconcile.py), and how a
run is looked at (runs.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath
from zlib import crc32

from exlab_watch_agent.core.decide import work_effect
from exlab_watch_agent.core.effects import Scan
from exlab_watch_agent.core.events import RunVanished, ScanFailed, Scanned
from exlab_watch_agent.core.facts import RootBound
from exlab_watch_agent.core.reconcile import Known
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.root import Doubted, RootFound, RootInDoubt, after_scan
from exlab_watch_agent.core.run_problems import gone_text, is_told_as_gone
from exlab_watch_agent.core.week import Room
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.caches import Caches
from exlab_watch_agent.engine.keys import key_of, work_key
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.messages import Ended
from exlab_watch_agent.engine.runs import Runs
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

SCAN_DUTY = 4
"""Scans that events ask for take at most one part in this many of the time: folders may come by the thousand."""
LOOK_AT_SEALED_S = 86_400.0
"""Within so long every sealed run is looked at by the scans of an agent that always runs."""
_SHARES_ON_EACH_DAY = 37
"""By so many shares the scans of an hour are further on the next day: a prime, so that all come round."""
NOTHING_KNOWN = Known({}, {})


class Reconciling:
    """The loop's own; only its thread uses it."""

    def __init__(self, bench: Bench, *, looks: Looks, runs: Runs, caches: Caches) -> None:
        self._caches = caches
        self._bench = bench
        self._looks = looks
        self._runs = runs

    # --- when --------------------------------------------------------------------------------------------------------

    def want_scan(self, equipment_ids: Iterable[str], *, is_full: bool = True, is_deep: bool = False) -> None:
        """Reconcile lanes with the disk; a scan that is not full only looks for runs that came, went or were edited.

        `is_deep`: every sealed run is looked at for data that came, went or moved, and not only a share of them.
        """
        for equipment_id in equipment_ids:
            lane = self._bench.lanes[equipment_id]
            effect = Scan(equipment_id, lane.ports.root, NOTHING_KNOWN, is_full=is_full, is_deep=is_deep)
            is_running = self._bench.errands.is_running(key_of(effect))
            if not is_full and not is_running and self._bench.clock.monotonic_s() < lane.scan_not_before_s:
                self._bench.timers.set_earlier(TimerKind.SCAN_AGAIN, equipment_id, due_s=lane.scan_not_before_s)
            else:
                self._bench.errands.want(effect)

    def brief(self, effect: Scan) -> Scan | None:
        """Return the scan with what is known at this moment, in which it may start."""
        lane, equipment_id = self._bench.lanes[effect.equipment_id], effect.equipment_id
        if not effect.is_full and self._bench.clock.monotonic_s() < lane.scan_not_before_s:
            self._bench.timers.set_earlier(TimerKind.SCAN_AGAIN, equipment_id, due_s=lane.scan_not_before_s)
            return None
        self._bench.timers.cancel(TimerKind.SCAN_AGAIN, equipment_id)
        return replace(
            effect,
            known=lane.as_known(self._bench.commit.store.root_volume(equipment_id)),
            cleaned=frozenset(self._bench.commit.store.paths_in((RunState.CLEANED,), equipment_id)),
            unsignalled=tuple(sorted(lane.unsignalled)),
            # While something is told of, each scan seeks: that it was put right is seen soon.
            seeks_misplaced=effect.is_full or not lane.is_ours or bool(lane.misplaced),
            is_full=effect.is_full or not lane.is_ours,  # a root that was not ours is taken up with all that is in it
        )

    # --- what follows ------------------------------------------------------------------------------------------------

    def on_scanned(self, ended: Ended, effect: Scan, result: Scanned | ScanFailed) -> None:
        lane = self._bench.lanes[effect.equipment_id]
        lane.scan_took_s = ended.ended_s - ended.began_s
        lane.scan_not_before_s = ended.ended_s + SCAN_DUTY * lane.scan_took_s
        if effect.known.accepted_by is not None:
            lane.accepted_by = None  # it was said of what was there, and of nothing that comes later
        if isinstance(result, ScanFailed):
            self._doubt(lane, result.message)
            return
        self._take_in(lane, effect, result)
        if effect.is_full or not self._bench.timers.has(TimerKind.SCAN, lane.equipment_id):
            due_s = ended.ended_s + self._bench.policy.rescan_s
            self._bench.timers.set(TimerKind.SCAN, lane.equipment_id, due_s=due_s)

    def _doubt(self, lane: Lane, problem: str) -> None:
        """Suspend the lane and scan again after a while: nothing is concluded from a root that may not be ours."""
        if lane.root_problem != problem:
            log.warning("%s waits: %s", lane.equipment_id, problem)
        lane.doubted_since = lane.doubted_since or self._bench.clock.now()
        lane.root = after_scan(lane.root, RootInDoubt(problem), self._bench.pace)
        assert isinstance(lane.root, Doubted), "a scan said so"
        for job_id in self._bench.errands.at_work_in(lane.equipment_id):
            record = self._bench.commit.record(job_id)
            work = work_effect(record) if record is not None else None
            if work is not None:  # done again once the root is ours
                self._bench.errands.cancel(work_key(job_id))
                self._bench.errands.want(work)
        due_s = self._bench.in_s(lane.root.wait_s)
        self._bench.timers.set(TimerKind.SCAN, lane.equipment_id, due_s=due_s)

    def _take_in(self, lane: Lane, effect: Scan, result: Scanned) -> None:
        self._bind(lane, result.volume, effect.known.accepted_by)
        found = result.found
        if effect.is_full:
            lane.last_scan_at = self._bench.clock.now()
            if result.free_bytes is not None:
                lane.room_here = Room(lane.last_scan_at, result.free_bytes)
            self._runs.forget(lane)
        lane.orphans = tuple(found.orphans.values())
        if result.misplaced is not None:
            lane.misplaced = result.misplaced
        lane.runs_seen = found.runs_total
        if effect.is_full:
            unsettled = self._bench.commit.store.paths_in(CHART.unsettled, lane.equipment_id)
            lane.backlog.update((path, None) for path in unsettled if path not in lane.unsignalled)
            lane.backlog.update((path, None) for path in self._sealed_to_look_at(lane, is_all=effect.is_deep))
        # Skip files that were read after the scan had listed them.
        changed = [
            path
            for path, signature in found.changed.items()
            if lane.known.get(path, lane.rejected.get(path)) != signature
        ]
        lane.put_first([*changed, *result.signalled])
        self._caches.found(found.caches)
        # A run that is gone from its place may be the one that is new in another: that is to be known first.
        may_have_moved = any(self._bench.commit.record_at(path) is None for path in changed)
        was_gone, lane.gone = lane.gone, frozenset(result.gone)
        lane.vanished, lane.asks_twice = frozenset(), False
        for path in result.gone:
            lane.backlog.pop(path, None)
            lane.unsignalled.discard(path)
            self._on_gone(lane, path, is_first=path not in was_gone, may_have_moved=may_have_moved)

    def _sealed_to_look_at(self, lane: Lane, *, is_all: bool) -> Iterable[str]:
        """Return the sealed runs that this scan looks at: data that come into one are an event only directly in its folder.

        Their files may be many, so each scan takes its share: an agent that always runs looks at each about once a day.
        """
        sealed = [*self._bench.commit.store.paths_in(CHART.sealed_here, lane.equipment_id), *self._cleaned_here(lane)]
        if self._looks.only is not None:  # it was started for these runs
            return [path for path in sealed if path in self._looks.only]
        if is_all:
            return sealed
        shares = max(1, int(LOOK_AT_SEALED_S // self._bench.policy.rescan_s))
        scans = int(self._bench.clock.now().timestamp() // self._bench.policy.rescan_s)
        # Far on with each day, so that an agent that runs at the same hours of each day gets to all of them, too: by eight hours a
        # day in five days, by one scan a day in as many days as there are shares.
        turn = (scans + _SHARES_ON_EACH_DAY * (scans // shares)) % shares
        return [path for path in sealed if crc32(path.encode("utf-8", "surrogateescape")) % shares == turn]

    def _cleaned_here(self, lane: Lane) -> Iterable[str]:
        """Return the cleaned runs whose cache folder is here, as far as is known: data may come back into it without an event."""
        cleaned = self._bench.commit.store.paths_in((RunState.CLEANED,), lane.equipment_id)
        return (path for path in cleaned if lane.known.get(path) is not None)

    def _bind(self, lane: Lane, volume: str, operator: str | None) -> None:
        """Remember by which identity this root was last found to be ours, and who said so if an operator did."""
        was_ours = lane.is_ours
        if lane.root_problem is not None:
            log.info("%s: the root is there again", lane.equipment_id)
        lane.root = after_scan(lane.root, RootFound(volume))
        lane.doubted_since = None
        if operator is not None:
            lane.accepted_volume = volume
        if operator is not None or self._bench.commit.store.root_volume(lane.equipment_id) != volume:
            self._bench.commit.note(RootBound(lane.equipment_id, volume), operator=operator)
        if not was_ours:
            self._bench.errands.on_opened(lane.equipment_id)

    def _on_gone(self, lane: Lane, path: str, *, is_first: bool, may_have_moved: bool) -> None:
        """Say that a run folder is gone. A run in the queue fails only when a second scan says so as well.

        What the first one saw is a moment old: the folder may be back, or just be on its way to another place. A folder
        that cannot be read may be that place for ever, so only the first scan asks for another one soon.
        """
        record = self._bench.commit.record_at(path)  # none where it was moved in this very pass
        if record is None or not self._looks.is_mine(record):
            return
        if record.state in CHART.sealed_here:
            self._on_sealed_gone(lane, record, is_first=is_first, may_have_moved=may_have_moved)
            return
        if not is_told_as_gone(record):
            return
        self._runs.say_gone(record, gone_text(record.run_path))
        if record.state is not RunState.QUEUED or self._bench.errands.is_admitting(record.job_id):
            return
        if is_first:
            due_s = self._bench.in_s(self._bench.pace.second_scan_s)
            self._bench.timers.set_earlier(TimerKind.SCAN_AGAIN, lane.equipment_id, due_s=due_s)
        elif not may_have_moved:
            self._runs.decide(record.job_id, RunVanished())

    def _on_sealed_gone(self, lane: Lane, record: RunRecord, *, is_first: bool, may_have_moved: bool) -> None:
        """Have the copy of a sealed run hashed once two scans say that the run is gone, when it is its turn.

        A folder of the same name that is no usable run may be this one, on its way to another place or damaged.
        """
        if not is_first:
            self._note_vanished(lane, record, may_have_moved=may_have_moved)
            return
        lane.asks_twice = lane.is_working and lane.may_read
        due_s = self._bench.in_s(self._bench.pace.second_scan_s)
        self._bench.timers.set_earlier(TimerKind.SCAN_AGAIN, lane.equipment_id, due_s=due_s)

    def _note_vanished(self, lane: Lane, record: RunRecord, *, may_have_moved: bool) -> None:
        leaf = PurePath(record.run_path).name
        unusable = (*lane.rejected, *(orphan.run_path for orphan in lane.orphans), *self._runs.views.now.folders)
        if may_have_moved or any(PurePath(path).name == leaf for path in unusable):
            return
        lane.vanished |= {record.run_path}
        if record.gone_at is None:  # else its copy was looked at without an end, and is again when that is due
            lane.audits.setdefault(record.job_id)
