"""Records and an agent's live view → what `status` and `show` say. JSON and text use the same values.

The JSON shapes are a promise (SPEC 13). `live` is what a running agent leaves in `<state_dir>/live.json`; where none runs,
the lanes alone as the last one left them. What needs a person is decided in problems.py.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import counted, printable, utc_text
from exlab_watch_agent.report.problems import Moment, failed_attempt, why_lane_waits, why_root_waits
from exlab_watch_agent.statechart import CHART, RunState


def run_json(record: RunRecord, live: Mapping[str, Any]) -> dict[str, Any]:
    """Return one run as `status --json` shows it."""
    error = record.last_error
    return {
        "job_id": record.job_id,
        "run_path": printable(record.run_path),
        "equipment_id": record.equipment_id,
        "project": printable(record.project),
        "run_kind": record.run_kind,
        "state": record.state.value,
        "sync_status": record.sync_status,
        "attempts": record.attempts,
        "next_attempt_at": _time(record.next_attempt_at),
        "last_error": {"kind": error.kind, "message": printable(error.message)} if error is not None else None,
        "verify_passes": record.verify_passes,
        "verified_at": _time(record.verified_at),
        "enqueued_at": _time(record.enqueued_at),
        "destination": printable(record.destination),
        "files_total": record.files_total,
        "bytes_total": record.bytes_total,
        "bytes_done": bytes_done(record, live),
    }


def bytes_done(record: RunRecord, live: Mapping[str, Any]) -> int:
    """Return the bytes that are at the destination as far as is known now."""
    if record.state is RunState.RUNNING:
        return min(record.bytes_total, int(live.get("progress", {}).get(record.job_id, {}).get("bytes_done", 0)))
    return record.bytes_total if record.state in CHART.at_destination else 0


def status_json(
    records: Iterable[RunRecord],
    live: Mapping[str, Any],
    *,
    is_running: bool,
    pid: int | None,
    version: str,
    paused: str | None,
    hold: str | None,
) -> dict[str, Any]:
    """Return what `status --json` prints."""
    runs = sorted(records, key=lambda record: record.run_path)
    return {
        "schema": 1,
        "agent": {"running": is_running, "pid": pid, "version": version, "paused": paused, "hold": hold},
        "counts": counts(runs),
        "lanes": live.get("lanes", {}),
        "observer": live.get("observer"),
        "runs": [run_json(record, live) for record in runs],
    }


def counts(records: Iterable[RunRecord]) -> dict[str, int]:
    """Return how many runs are in each state, only states that occur, in the chart's order."""
    found = Counter(record.state for record in records)
    return {state.value: found[state] for state in CHART.states if found[state]}


def history_json(moves: Sequence[Move]) -> list[dict[str, Any]]:
    return [
        {
            "at": _time(move.at),
            "trigger": move.trigger,
            "from": move.source.value if move.source is not None else None,
            "to": move.dest.value,
            "reason": printable(move.reason),
            "operator": move.operator,
        }
        for move in moves
    ]


def sentence(record: RunRecord, live: Mapping[str, Any], at: Moment) -> str:
    """Return in one sentence why the run is where it is."""
    error = f": {record.last_error.message}" if record.last_error is not None else ""
    reason = live.get("waiting", {}).get(record.job_id, "")
    match record.state:
        case RunState.ACQUIRING:
            return f"not complete yet: {reason}" if reason else "not complete yet"
        case RunState.QUEUED:
            return _why_queued(record, live, at)
        case RunState.VERIFIED if record.verified_at is not None:
            return (
                f"{counted(record.files_total, 'file')} proven equal on both sides, last at {_time(record.verified_at)}"
            )
        case state if state in CHART.needs_attention:
            return record.last_error.message if record.last_error is not None else CHART.states[record.state].meaning
    return CHART.states[record.state].meaning + error


def _why_queued(record: RunRecord, live: Mapping[str, Any], at: Moment) -> str:
    lane = live.get("lanes", {}).get(record.equipment_id, {})
    if waits := why_root_waits(lane, at) or why_lane_waits(lane, at):
        return waits
    if unreadable := live.get("unreadable", {}).get(printable(record.run_path)):
        return str(unreadable["message"])
    if record.attempts > 0:
        return failed_attempt(record, at)
    error = f": {record.last_error.message}" if record.last_error is not None else ""
    return f"waiting for {'an agent to run' if at.is_ended else 'a slot'}{error}"


class OldestUnsynced:
    """Which run has waited longest to be synced, told at a cost that does not grow with the number of runs.

    A heap that is told of moves; runs that are synced meanwhile leave it when they come to its top.
    """

    def __init__(self, records: Iterable[RunRecord]) -> None:
        self._heap = [(record.discovered_at, record.job_id) for record in records if _waits_to_be_synced(record)]
        heapq.heapify(self._heap)
        self._is_in = {job_id for _, job_id in self._heap}

    def moved(self, record: RunRecord) -> None:
        """Take in a run that is new, or not synced any more."""
        if record.job_id not in self._is_in and _waits_to_be_synced(record):
            self._is_in.add(record.job_id)
            heapq.heappush(self._heap, (record.discovered_at, record.job_id))

    def find(self, get: Callable[[str], RunRecord | None]) -> dict[str, str] | None:
        """Return path and time of that run, None when all are synced. `get` returns a job's record as it is now."""
        while self._heap:
            record = get(self._heap[0][1])
            if record is not None and _waits_to_be_synced(record):
                return {"run_path": printable(record.run_path), "since": _time(record.discovered_at) or ""}
            self._is_in.discard(heapq.heappop(self._heap)[1])
        return None


def _waits_to_be_synced(record: RunRecord) -> bool:
    return record.sync_status not in ("synced", "cleaned") and record.discovered_at is not None


def _time(moment: datetime | None) -> str | None:
    return utc_text(moment) if moment is not None else None
