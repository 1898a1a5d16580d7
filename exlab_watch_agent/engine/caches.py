"""When what changed in the cache folder of a sealed run is brought to its copy.

An errand with a not-before time, no state of the run: it lowers no passes and stops nothing. Decided here: that events begin a
short quiet time, that a scan's find is due at once, and that a lane brings one folder at a time. What is due after a kill or a
night without NAS, the next full scan finds: the record keeps how the folder looked when it travelled last. Not here: what counts
(core/cache_copy.py), and how it is brought (acts/carry_cache.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from exlab_watch_agent.core.decide import claim_of
from exlab_watch_agent.core.effects import CarryCache
from exlab_watch_agent.core.events import CacheCarried, CacheStays
from exlab_watch_agent.core.facts import CacheFolderCarried, CacheFolderStays
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.keys import Slot
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.statechart import RunState

log = logging.getLogger(__name__)


class Caches:
    """The loop's own; only its thread uses it."""

    def __init__(self, bench: Bench, *, looks: Looks) -> None:
        self._bench = bench
        self._looks = looks

    def noticed(self, run_path: str) -> None:
        """A file of this run's cache folder was written: bring it once it has had a moment to become whole."""
        record = self._bench.commit.record_at(run_path)
        if record is not None and _may_travel(record) and not self._bench.timers.has(TimerKind.CACHE, record.job_id):
            due_s = self._bench.in_s(self._bench.pace.cache_quiet_s)
            self._bench.timers.set(TimerKind.CACHE, record.job_id, due_s=due_s)

    def found(self, run_paths: Iterable[str]) -> None:
        """A scan found that the cache folders of these runs are not as they were when they travelled."""
        for run_path in run_paths:
            record = self._bench.commit.record_at(run_path)
            if record is not None:
                self.want(record.job_id)

    def want(self, job_id: str) -> None:
        """Have a run's cache folder brought when it is its turn."""
        record = self._bench.commit.record(job_id)
        if record is not None and _may_travel(record):
            self._bench.lanes[record.equipment_id].caches_due.setdefault(job_id)

    def start(self) -> None:
        """Start one in each lane whose destination answers."""
        for lane in self._bench.lanes.values():
            is_free = lane.is_ours and not lane.is_held and not self._bench.errands.taken(Slot.CACHE, lane.equipment_id)
            if lane.caches_due and is_free:
                self._start_next(lane)

    def _start_next(self, lane: Lane) -> None:
        while lane.caches_due:
            job_id, _ = lane.caches_due.popitem(last=False)
            record = self._bench.commit.record(job_id)
            if record is not None and _may_travel(record) and self._looks.is_mine(record):
                self._bench.errands.want(
                    CarryCache(job_id, record.run_path, record.equipment_id, "", "", claim_of(record))
                )
                return

    def brief(self, effect: CarryCache) -> CarryCache | None:
        """Return the errand with what is known at this moment, in which it may start; None where the run has moved on."""
        record = self._bench.commit.record(effect.job_id)
        if record is None or not _may_travel(record):
            return None
        return replace(
            effect,
            run_path=record.run_path,
            destination=record.destination,
            manifest_digest=record.manifest_digest,
            claim=claim_of(record),
            form=record.cache_form,
        )

    def on_carried(self, effect: CarryCache, result: CacheCarried | CacheStays) -> None:
        record = self._bench.commit.record(effect.job_id)
        assert record is not None, "an errand belongs to a known run"
        if isinstance(result, CacheStays):  # a full scan finds it again
            log.info("%s: its cache folder is brought to the NAS later: %s", effect.run_path, result.message)
            if result.is_refused:
                self._tell(record, result.message)
            return
        record = self._tell(record, "")
        if (
            record.cache_form != effect.form
        ):  # its destination counts as another place since: a full scan finds it again
            return
        if record.run_path == effect.run_path:
            self._bench.lanes[record.equipment_id].caches[record.run_path] = result.signature
        if _may_travel(record) and result.form != record.cache_form:
            carried = replace(record, cache_form=result.form, cache_signature=result.signature)
            self._bench.commit.save(carried, CacheFolderCarried(result.form, result.paths))

    def _tell(self, record: RunRecord, message: str) -> RunRecord:
        """Keep in the record what keeps the cache folder from its copy; empty: nothing does."""
        if record.cache_stays == message:
            return record
        told = record.with_cache_staying(message, at=self._bench.clock.now())
        return self._bench.commit.save(told, CacheFolderStays(message))


def _may_travel(record: RunRecord) -> bool:
    """Whether a run is sealed and rests, or is compared once more: a deletion and a seal bring the folder themselves."""
    return record.is_sealed and record.state in (RunState.VERIFIED, RunState.AUDITING, RunState.CLEANUP_ELIGIBLE)
