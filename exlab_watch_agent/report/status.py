"""Records and an agent's snapshot → what `status` and `show` say. JSON and text use the same values.

The JSON shapes are a promise: members are added, never removed or renamed. The snapshot is a running agent's; where none
runs, it has the lanes alone, as the last one left them. What needs a person is decided in core/attention.py. Pure.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.attention import why_lane_waits, why_root_waits
from exlab_watch_agent.core.gate import Finding
from exlab_watch_agent.core.incidents import Incident
from exlab_watch_agent.core.manifest import ExtraFiles
from exlab_watch_agent.core.passes import Pass, counting
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.reread import Coverage
from exlab_watch_agent.core.run_problems import failed_attempt, refusal_of
from exlab_watch_agent.core.snapshot import Snapshot, lanes_json
from exlab_watch_agent.core.standing import Moment
from exlab_watch_agent.core.text import age, counted, human_bytes, printable, unicode_text, utc_text
from exlab_watch_agent.core.ways_out import WayOut, ways_out
from exlab_watch_agent.report.heartbeat import OldestUnsynced
from exlab_watch_agent.statechart import CHART, RunState

FINDINGS_SHOWN_MAX = 100
NOTHING_SEEN = Snapshot()
NOTHING_EXTRA = ExtraFiles()
NOTHING_SEALED = Coverage()


def run_json(record: RunRecord, snapshot: Snapshot) -> dict[str, Any]:
    """Return one run as `status --json` shows it."""
    error, progress = record.last_error, snapshot.progress.get(record.job_id)
    return {
        "job_id": record.job_id,
        "run_path": unicode_text(record.run_path),
        "equipment_id": record.equipment_id,
        "project": unicode_text(record.project),
        "run_kind": record.run_kind,
        "state": record.state.value,
        "sync_status": record.sync_status,
        "attempts": record.attempts,
        "next_attempt_at": time_text(record.next_attempt_at),
        "last_error": {"kind": error.kind, "message": unicode_text(error.message)} if error is not None else None,
        "verify_passes": record.verify_passes,
        "verified_at": time_text(record.verified_at),
        "enqueued_at": time_text(record.enqueued_at),
        "destination": unicode_text(record.destination),
        "files_total": record.files_total,
        "bytes_total": record.bytes_total,
        "bytes_done": bytes_done(record, snapshot),
        "progress": progress.to_json() if progress is not None else None,
    }


@dataclass(frozen=True, slots=True)
class RunInFull:
    """Everything that `show` says about one run. `record` is None for a run that is on the disk and not known yet.

    `dismissed`: what is not told of it any more, because an operator said so.
    """

    run_path: str
    why: str
    findings: tuple[Finding, ...] = ()
    record: RunRecord | None = None
    snapshot: Snapshot = NOTHING_SEEN
    history: tuple[Move, ...] = ()
    extra: ExtraFiles = NOTHING_EXTRA
    dismissed: tuple[Problem, ...] = ()

    @property
    def ways_out(self) -> tuple[WayOut, ...]:
        """What can end the conflict that the run is in."""
        if self.record is None or self.record.state is not RunState.CONFLICT or self.record.last_error is None:
            return ()
        error = self.record.last_error
        return ways_out(error.kind, self.record.run_path, detail=error.detail)

    def to_json(self) -> dict[str, Any]:
        findings = [finding.to_json() for finding in self.findings[:FINDINGS_SHOWN_MAX]]
        if self.record is None:
            return {
                "job_id": "",
                "run_path": unicode_text(self.run_path),
                "state": None,
                "why": self.why,
                "history": [],
                "findings": findings,
            }
        error = self.record.last_error
        return {
            **run_json(self.record, self.snapshot),
            "why": self.why,
            "passes": [pass_json(one) for one in self.record.passes],
            "passes_past_cache": len(proofs_past_cache(self.record)),
            "incidents": [incident_json(one) for one in self.record.incidents],
            "last_error_detail": unicode_text(error.detail) if error is not None else "",
            "history": history_json(self.history),
            "findings": findings,
            "ways_out": [str(way) for way in self.ways_out],
            "dismissed": [problem.to_json() for problem in self.dismissed],
            "extra": {
                "files_total": self.extra.files_total,
                "paths": [unicode_text(path) for path in self.extra.paths],
            },
        }


def proofs_past_cache(record: RunRecord) -> tuple[Pass, ...]:
    """Return the passes of the copy as it is now that no cache of this PC can have answered, apart from each other."""
    marker_id = record.passes[-1].marker_id if record.passes else ""
    return counting(record.passes, manifest_sha256=record.manifest_digest, marker_id=marker_id, needs_distance=True)


def pass_json(one: Pass) -> dict[str, Any]:
    """Return one pass as `show --json` shows it."""
    times = {"started_at": one.started_at, "ended_at": one.ended_at, "nas_at": one.nas_at}
    return {
        **asdict(one),
        **{name: time_text(at) for name, at in times.items()},
        "spelling": printable(one.spelling),
        "remote": one.remote.value,
        "local": one.local.value,
    }


def incident_json(one: Incident) -> dict[str, Any]:
    """Return one incident as `show --json` shows it."""
    return {
        "id": one.id,
        "kind": one.kind.value,
        "found_at": time_text(one.found_at),
        "what": unicode_text(one.what),
        "files_total": one.files_total,
        "files": [unicode_text(path) for path in one.files],
        "healed_at": time_text(one.healed_at),
        "healed_by": one.healed_by or None,
        "replaced_by": one.replaced_by or None,
    }


def bytes_done(record: RunRecord, snapshot: Snapshot) -> int:
    """Return the bytes that are at the destination as far as is known now."""
    if record.state is RunState.RUNNING:
        progress = snapshot.progress.get(record.job_id)
        return min(record.bytes_total, progress.bytes_done) if progress is not None else 0
    return record.bytes_total if record.state in CHART.at_destination else 0


def status_json(
    records: Iterable[RunRecord],
    snapshot: Snapshot,
    *,
    is_running: bool,
    pid: int | None,
    version: str,
    paused: str | None,
    hold: str | None,
    read_again: Coverage = NOTHING_SEALED,
    listed: Sequence[RunRecord] | None = None,
) -> dict[str, Any]:
    """Return what `status --json` prints. `listed`: the runs to be listed; None for all."""
    runs = sorted(records, key=lambda record: record.run_path)
    shown = runs if listed is None else listed
    return {
        "schema": 1,
        "agent": {"running": is_running, "pid": pid, "version": version, "paused": paused, "hold": hold},
        "counts": counts(runs),
        "lanes": lanes_json(snapshot.lanes),
        "observer": snapshot.observer.to_json() if snapshot.observer is not None else None,
        "runs": [run_json(record, snapshot) for record in shown],
        "coverage": coverage_json(read_again),
    }


def coverage_json(found: Coverage) -> dict[str, Any]:
    """Return how much of what was proven was read again in time, as `status --json` shows it."""
    return {
        "runs_sealed": found.runs_sealed,
        "runs_read": found.runs_read,
        "bytes_sealed": found.bytes_sealed,
        "bytes_read": found.bytes_read,
        "oldest_read_at": time_text(found.oldest_at),
    }


def coverage_text(found: Coverage, *, days: float) -> str:
    """Return the same in a sentence; empty where nothing was ever sealed."""
    if not found.runs_sealed:
        return ""
    share = f"{human_bytes(found.bytes_read)} of {human_bytes(found.bytes_sealed)}"
    oldest = f"; every byte was read at {time_text(found.oldest_at)} or later" if found.oldest_at is not None else ""
    return (
        f"read and found right within {days:g} days: {share}, {found.runs_read} of {counted(found.runs_sealed, 'synced run')}"
        f"{oldest}"
    )


def counts(records: Iterable[RunRecord]) -> dict[str, int]:
    """Return how many runs are in each state, only states that occur, in the chart's order."""
    found = Counter(record.state for record in records)
    return {state.value: found[state] for state in CHART.states if found[state]}


def only_here(records: Iterable[RunRecord], *, now: datetime) -> str:
    """Return how many runs and bytes are only on this PC, and how old the oldest is; quiet is not success."""
    unproven = [record for record in records if record.sync_status not in ("synced", "cleaned")]
    if not unproven:
        return "every known run is proven on the NAS"
    size = human_bytes(sum(record.bytes_total for record in unproven))
    acquired = sum(1 for record in unproven if record.state is RunState.ACQUIRING)
    growing = f" ({acquired} of them not complete yet)" if acquired else ""
    oldest = min((record.discovered_at or record.entered_at for record in unproven), default=now)
    amount = f"{counted(len(unproven), 'run')}, {size}"
    verb = "is" if len(unproven) == 1 else "are"
    return f"{amount}{growing} {verb} only on this PC, the oldest for {age((now - oldest).total_seconds())}"


def history_json(moves: Sequence[Move]) -> list[dict[str, Any]]:
    return [
        {
            "at": time_text(move.at),
            "trigger": move.trigger,
            "from": move.source.value if move.source is not None else None,
            "to": move.dest.value,
            "reason": unicode_text(move.reason),
            "operator": move.operator,
        }
        for move in moves
    ]


def sentence(record: RunRecord, snapshot: Snapshot, at: Moment) -> str:
    """Return in one sentence why the run is where it is."""
    error = f": {record.last_error.message}" if record.last_error is not None else ""
    reason = snapshot.waiting.get(record.job_id, "")
    match record.state:
        case RunState.ACQUIRING:
            return f"not complete yet: {reason}" if reason else "not complete yet"
        case RunState.QUEUED:
            return _why_queued(record, snapshot, at)
        case RunState.VERIFIED if record.verified_at is not None:
            proven = f"{counted(record.files_total, 'file')} proven equal on both sides, last at {time_text(record.verified_at)}"
            return f"{proven}; the latest pass could not be finished{error}" if error else proven
        case RunState.BLOCKED:
            return refusal_of(record, snapshot).sentence
        case state if state in CHART.needs_attention:
            return record.last_error.message if record.last_error is not None else CHART.states[record.state].meaning
    if record.is_working and not at.goes_on:
        return f"under way when the agent was last seen ({CHART.states[record.state].meaning}); the next one goes on with it{error}"
    return CHART.states[record.state].meaning + error


def _why_queued(record: RunRecord, snapshot: Snapshot, at: Moment) -> str:
    lane = snapshot.lanes.get(record.equipment_id)
    if lane is not None and (waits := why_root_waits(lane, at) or why_lane_waits(lane, at)):
        return waits
    if unreadable := snapshot.unreadable.get(printable(record.run_path)):
        return unreadable.message
    if record.attempts > 0:
        return failed_attempt(record, at)
    error = f": {record.last_error.message}" if record.last_error is not None else ""
    return f"waiting for {'an agent to run' if at.is_ended else 'its turn to be pushed'}{error}"


class UnsyncedRuns:
    """Knows which run has waited longest to be synced, at a cost that does not grow with the number of runs.

    A heap that gets the moves; runs that are synced meanwhile leave it when they come to its top.
    """

    def __init__(self, records: Iterable[RunRecord]) -> None:
        self._heap = [(record.discovered_at, record.job_id) for record in records if _waits_to_be_synced(record)]
        heapq.heapify(self._heap)
        self._is_in = {job_id for _, job_id in self._heap}

    def moved(self, record: RunRecord) -> None:
        """Take in a run that is new, or no longer synced."""
        if record.job_id not in self._is_in and _waits_to_be_synced(record):
            self._is_in.add(record.job_id)
            heapq.heappush(self._heap, (record.discovered_at, record.job_id))

    def oldest(self, get: Callable[[str], RunRecord | None]) -> OldestUnsynced | None:
        """Return that run, None when all are synced. `get` returns a job's record as it is now."""
        while self._heap:
            record = get(self._heap[0][1])
            if record is not None and record.discovered_at is not None and _waits_to_be_synced(record):
                return OldestUnsynced(record.run_path, record.discovered_at)
            self._is_in.discard(heapq.heappop(self._heap)[1])
        return None


def _waits_to_be_synced(record: RunRecord) -> bool:
    return record.sync_status not in ("synced", "cleaned") and record.discovered_at is not None


def time_text(moment: datetime | None) -> str | None:
    """Return a time as it is shown, None for none."""
    return utc_text(moment) if moment is not None else None
