"""Records and the running agent's live view → what `status`, `show` and `problems` say. JSON and text use the same values.

The JSON shapes are a promise (SPEC 13). `live` is what a running agent leaves in `<state_dir>/live.json`; an empty
mapping where none runs.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    records: Iterable[RunRecord], live: Mapping[str, Any], *, is_running: bool, pid: int | None, version: str
) -> dict[str, Any]:
    """Return what `status --json` prints."""
    runs = sorted(records, key=lambda record: record.run_path)
    return {
        "schema": 1,
        "agent": {"running": is_running, "pid": pid, "version": version},
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
    for path, message in path_problems.items():
        found.append(Problem(Severity.STOPPED, "creation_json", printable(path), printable(message), "edit the file"))
    for finding in orphans:
        found.append(
            Problem(Severity.NOTICE, str(finding.rule), finding.run_path, finding.rule_detail, "see the message")
        )
    return sorted(set(found), key=lambda p: (p.severity, p.kind, p.subject))


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


def oldest_unsynced(records: Iterable[RunRecord]) -> dict[str, str] | None:
    """Return path and time of the run that has waited longest to be synced, None when all are."""
    waiting = [r for r in records if r.sync_status not in ("synced", "cleaned") and r.discovered_at is not None]
    if not waiting:
        return None
    oldest = min(waiting, key=lambda record: (record.discovered_at, record.run_path))
    return {"run_path": printable(oldest.run_path), "since": _time(oldest.discovered_at) or ""}


def _time(moment: datetime | None) -> str | None:
    return utc_text(moment) if moment is not None else None
