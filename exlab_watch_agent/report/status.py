"""Records and the running agent's live view → what `status`, `show` and `problems` say. JSON and text use the same values.

The JSON shapes are a promise (SPEC 13). `live` is what a running agent leaves in `<state_dir>/live.json`; an empty
mapping where none runs.
"""

from __future__ import annotations

import heapq
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from exlab_watch_agent.adapters.clock import utc_text
from exlab_watch_agent.core.gate import Finding, printable
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.words import counted
from exlab_watch_agent.statechart import CHART, RunState

HOLD = "deletion_on_hold"
NEEDS_ATTENTION = frozenset({RunState.FAILED, RunState.BLOCKED, RunState.CONFLICT})
_PUSHED = frozenset(RunState) - {
    RunState.ACQUIRING,
    RunState.BLOCKED,
    RunState.QUEUED,
    RunState.RUNNING,
    RunState.FAILED,
}


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
    return record.bytes_total if record.state in _PUSHED else 0


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


def sentence(record: RunRecord, live: Mapping[str, Any], *, now: datetime) -> str:
    """Return in one sentence why the run is where it is."""
    error = f": {record.last_error.message}" if record.last_error is not None else ""
    reason = live.get("waiting", {}).get(record.job_id, "")
    match record.state:
        case RunState.ACQUIRING:
            return f"not complete yet: {reason}" if reason else "not complete yet"
        case RunState.QUEUED:
            lane = live.get("lanes", {}).get(record.equipment_id, {})
            if lane.get("waiting_since"):
                return f"NAS unreachable since {lane['waiting_since']}: {lane['waiting_reason']}"
            if record.next_attempt_at is not None and record.next_attempt_at > now:
                return f"attempt {record.attempts} failed{error}; next attempt at {_time(record.next_attempt_at)}"
            return f"waiting for a slot{error}"
        case RunState.VERIFIED if record.verified_at is not None:
            return (
                f"{counted(record.files_total, 'file')} proven equal on both sides, last at {_time(record.verified_at)}"
            )
        case RunState.BLOCKED | RunState.FAILED | RunState.CONFLICT:
            return record.last_error.message if record.last_error is not None else CHART.states[record.state].meaning
    return CHART.states[record.state].meaning + error


class Severity(IntEnum):
    """Worst first."""

    DATA_AT_RISK = 0
    STOPPED = 1
    WAITING = 2
    NOTICE = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """What needs a person, and the one command (or deed) that helps."""

    severity: Severity
    kind: str
    subject: str
    message: str
    command: str

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": self.severity.name.lower(),
            "kind": self.kind,
            "subject": self.subject,
            "message": self.message,
            "command": self.command,
        }


def problems_of_state(*, paused: str | None, hold: str | None) -> list[Problem]:
    """Return what is wrong with the agent as a whole: its state is in doubt, or it waits for room."""
    found: list[Problem] = []
    if hold is not None:
        command = "exlab-watch-agent resolve --accept-trail"
        found.append(Problem(Severity.DATA_AT_RISK, HOLD, "state folder", f"nothing is deleted: {hold}", command))
    if paused is not None:
        message = f"the agent is paused {paused}"
        found.append(Problem(Severity.STOPPED, "state_folder_full", "state folder", message, "make room there"))
    return found


def rank(problem: Problem) -> tuple[Any, ...]:
    """Return what problems are sorted by: worst first, and a state in doubt before all that it says of runs."""
    return (problem.kind != HOLD, problem.severity, problem.kind, problem.subject)


def problems(
    records: Iterable[RunRecord],
    live: Mapping[str, Any],
    *,
    orphans: Iterable[Finding],
    path_problems: Mapping[str, str],
    policy: Policy,
    known_equipment: frozenset[str],
    now: datetime,
) -> list[Problem]:
    """Return what needs a person, worst first, each once."""
    found: list[Problem] = []
    for record in records:
        found.extend(_of_run(record, live, policy=policy, known_equipment=known_equipment, now=now))
    for equipment_id, lane in live.get("lanes", {}).items():
        if lane.get("waiting_since"):
            found.append(
                Problem(
                    Severity.WAITING,
                    "nas_unreachable",
                    equipment_id,
                    f"NAS unreachable since {lane['waiting_since']}: {lane['waiting_reason']}",
                    "exlab-watch-agent check",
                )
            )
        if lane.get("root_problem"):
            found.append(
                Problem(
                    Severity.WAITING, "root_unavailable", equipment_id, lane["root_problem"], "exlab-watch-agent check"
                )
            )
    for equipment_id, watch in (live.get("observer") or {}).get("roots", {}).items():
        # That a root is not there is said above already, by the scan.
        if watch["degraded"] and not live.get("lanes", {}).get(equipment_id, {}).get("root_problem"):
            message = f"new runs may be noticed late: {watch['reason']}"
            command = watch["command"] or "exlab-watch-agent check"
            found.append(Problem(Severity.WAITING, "observer_degraded", equipment_id, message, command))
    for path, message in path_problems.items():
        found.append(Problem(Severity.STOPPED, "creation_json", printable(path), printable(message), "edit the file"))
    for finding in orphans:
        found.append(
            Problem(Severity.NOTICE, str(finding.rule), finding.run_path, finding.rule_detail, "see the message")
        )
    return sorted(set(found), key=rank)


def _of_run(
    record: RunRecord, live: Mapping[str, Any], *, policy: Policy, known_equipment: frozenset[str], now: datetime
) -> list[Problem]:
    name = shell_name(record.run_path)
    subject = printable(record.run_path)
    message = printable(record.last_error.message) if record.last_error is not None else ""
    found: list[Problem] = []
    if record.equipment_id not in known_equipment:
        message = f"{record.equipment_id} is not in the configuration any more, so this run is not looked after"
        return [
            Problem(Severity.STOPPED, "equipment_unknown", subject, message, "add the equipment to the config file")
        ]
    match record.state:
        case RunState.CONFLICT:
            command = f"exlab-watch-agent resolve {name} --use local"
            kind = record.last_error.kind if record.last_error is not None else "conflict"
            found.append(Problem(Severity.DATA_AT_RISK, kind, subject, message, command))
        case RunState.FAILED:
            kind = record.last_error.kind if record.last_error is not None else "failed"
            found.append(Problem(Severity.STOPPED, kind, subject, message, f"exlab-watch-agent retry {name}"))
        case RunState.BLOCKED:
            kind = record.last_error.kind if record.last_error is not None else "blocked"
            command = f'exlab-watch-agent override add {name} --class {kind} --reason "..."'
            found.append(Problem(Severity.STOPPED, kind, subject, message, command))
        case RunState.ACQUIRING if now - record.entered_at > timedelta(seconds=policy.stale_s):
            message = f"not complete since {_time(record.entered_at)}: {live.get('waiting', {}).get(record.job_id, '')}"
            found.append(
                Problem(Severity.WAITING, "stale", subject, message.rstrip(": "), f"exlab-watch-agent show {name}")
            )
        case RunState.SEALING if record.attempts >= 3:
            found.append(Problem(Severity.STOPPED, "seal_failed", subject, message, f"exlab-watch-agent show {name}"))
    note = live.get("run_problems", {}).get(record.job_id)
    if note:
        found.append(Problem(Severity.WAITING, "run", subject, note, f"exlab-watch-agent show {name}"))
    for detail in live.get("refused_after_sync", {}).get(record.job_id, ()):
        found.append(
            Problem(Severity.NOTICE, "synced_under_prior_policy", subject, detail, f"exlab-watch-agent show {name}")
        )
    return found


def shell_name(run_path: str) -> str:
    """Return the path as one word of a POSIX shell."""
    return shlex.quote(printable(run_path)) if os.name == "posix" else f'"{printable(run_path)}"'


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
