"""What needs a person. The one rule of that: `problems`, the end of `run --once` and of other commands, and exit codes ask here.

Decided here: what is listed, how bad it is, and which command or deed helps. Worse than a notice is what a person must see
to (`need_a_person`); a run that is still being acquired is nothing, and a folder that was never a run is a notice. Not here:
how the snapshot that is judged comes about. It is a running agent's (app/publish.py), or what the last agent left of its lanes
with a fresh look at the folders (app/fresh.py). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from exlab_watch_agent.core.attention import FAILURES_TOLD, SEAL_FAILURES_STOPPED, UNREADABLE_LOOKS_TOLD
from exlab_watch_agent.core.gate import Rule, without_creation
from exlab_watch_agent.core.incidents import IncidentKind
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.rollback import ELSEWHERE
from exlab_watch_agent.core.text import age, printable, shell_word, unicode_text, utc_text
from exlab_watch_agent.core.ways_out import ways_out
from exlab_watch_agent.errors import NAS_UNREACHABLE
from exlab_watch_agent.report.snapshot import LaneView, Snapshot
from exlab_watch_agent.statechart import CHART, RunState

HOLD = "deletion_on_hold"
CHECK = "exlab-watch-agent check"
REPAIRS_TOLD_FOR = timedelta(days=7)
_IN_WORDS = {
    IncidentKind.COPY_DAMAGED: "the copy on the NAS was found damaged",
    IncidentKind.COPY_UNREADABLE: "the copy on the NAS could not be read back",
    IncidentKind.SEAL_ALTERED: "the data on the NAS were right, but the seal of the copy was not",
}
READ_IT = (
    "Let the agent's account read it, close the program that holds it, or shorten the path; then the agent goes on."
)


class Severity(IntEnum):
    """Worst first."""

    DATA_AT_RISK = 0
    STOPPED = 1
    WAITING = 2
    NOTICE = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """What needs a person, and the one command (or deed) that helps. A run's path is the subject as it is: made safe when shown."""

    severity: Severity
    kind: str
    subject: str
    message: str
    command: str

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": self.severity.name.lower(),
            "kind": self.kind,
            "subject": unicode_text(self.subject),
            "message": self.message,
            "command": self.command,
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """When it is judged. `is_ended`: no agent goes on after that, so that what would be tried again is reported at once."""

    now: datetime
    is_ended: bool


def need_a_person(found: Iterable[Problem]) -> list[Problem]:
    """Return those for which a command ends with exit code 3."""
    return [problem for problem in found if problem.severity < Severity.NOTICE]


def problems(
    records: Iterable[RunRecord],
    snapshot: Snapshot,
    *,
    policy: Policy,
    known_equipment: frozenset[str],
    at: Moment,
    paused: str | None = None,
    hold: str | None = None,
) -> list[Problem]:
    """Return what needs a person, worst first, each once."""
    found = problems_of_state(paused=paused, hold=hold)
    orphans = {finding.run_path: finding.rule_detail for finding in snapshot.orphans}
    for record in records:
        if record.run_path in orphans and record.is_sealed:
            orphans[record.run_path] = without_creation(record.destination)
        if record.equipment_id in known_equipment:
            found += _of_run(record, snapshot, policy=policy, at=at)
        else:
            found.append(_of_nobody_s(record))
    for equipment_id, lane in snapshot.lanes.items():
        found += _of_lane(equipment_id, lane, at)
    for equipment_id, message in snapshot.roots_away.items():
        found.append(Problem(Severity.WAITING, "root_unavailable", equipment_id, printable(message), CHECK))
    found += _of_watching(snapshot)
    found += _of_folders(snapshot, orphans, at)
    return sorted(set(found), key=_rank)


def _rank(problem: Problem) -> tuple[Any, ...]:
    """Return what problems are sorted by: worst first, and a state in doubt before all that it says of runs."""
    return (problem.kind != HOLD, problem.severity, problem.kind, problem.subject)


# --- the agent and its equipment -------------------------------------------------------------------------------------


def problems_of_state(*, paused: str | None, hold: str | None) -> list[Problem]:
    """Return what is wrong with the agent as a whole: its state is in doubt, or it waits for room."""
    found: list[Problem] = []
    if hold is not None:
        is_elsewhere = hold.startswith(ELSEWHERE)
        command = "exlab-watch-agent resolve " + (
            '--accept-machine --reason "..."' if is_elsewhere else "--accept-trail"
        )
        found.append(
            Problem(Severity.DATA_AT_RISK, HOLD, "state folder", f"nothing is deleted: {printable(hold)}", command)
        )
    if paused is not None:
        message = f"the agent is paused {paused}"
        found.append(Problem(Severity.STOPPED, "state_folder_full", "state folder", message, "make room there"))
    return found


def _of_lane(equipment_id: str, lane: LaneView, at: Moment) -> list[Problem]:
    found: list[Problem] = []
    if waits := why_lane_waits(lane, at):
        found.append(Problem(Severity.WAITING, lane.waiting_kind, equipment_id, waits, lane.waiting_command))
    if away := why_root_waits(lane, at):
        found.append(Problem(Severity.WAITING, "root_unavailable", equipment_id, away, CHECK))
    return found


def why_lane_waits(lane: LaneView, at: Moment) -> str:
    """Return why an equipment's runs do not go on to their destination; empty when they do."""
    if lane.waiting_since is None:
        return ""
    since, reason = utc_text(lane.waiting_since), lane.waiting_reason
    if lane.waiting_kind == NAS_UNREACHABLE.code:
        return printable(f"NAS unreachable since {since}: {reason}{_seen(lane, at)}")
    return printable(f"{reason} (since {since}){_seen(lane, at)}")


def why_root_waits(lane: LaneView, at: Moment) -> str:
    """Return why nothing is concluded from an equipment's folder; empty when it is looked after."""
    return printable(f"{lane.root_problem}{_seen(lane, at)}") if lane.root_problem else ""


def _seen(lane: LaneView, at: Moment) -> str:
    """Return how old it is what is known of a lane, where no agent that asks there says it now."""
    earlier = lane.seen_earlier
    if earlier is None:
        return ""
    ago = f" {age((at.now - earlier.at).total_seconds())} ago" if earlier.at is not None else " earlier"
    return f" (as an agent last saw it,{ago}{'; no agent is running' if at.is_ended else ''})"


def _of_watching(snapshot: Snapshot) -> list[Problem]:
    found: list[Problem] = []
    for equipment_id, health in (snapshot.observer.roots if snapshot.observer is not None else {}).items():
        lane = snapshot.lanes.get(equipment_id)
        # That a root is not there is said already, by the scan.
        if health.is_degraded and not (lane is not None and lane.root_problem):
            message = f"new runs may be noticed late: {health.reason}"
            command = health.command or CHECK
            found.append(Problem(Severity.WAITING, "observer_degraded", equipment_id, message, command))
    return found


# --- folders ---------------------------------------------------------------------------------------------------------


def _of_folders(snapshot: Snapshot, orphans: Mapping[str, str], at: Moment) -> list[Problem]:
    found = [
        Problem(Severity.STOPPED, "creation_json", printable(path), printable(message), "edit the file")
        for path, message in snapshot.path_problems.items()
    ]
    for path, unreadable in snapshot.unreadable.items():
        if at.is_ended or unreadable.looks >= UNREADABLE_LOOKS_TOLD:
            message = f"{printable(unreadable.message)} {READ_IT}"
            found.append(Problem(Severity.WAITING, "unreadable", printable(path), message, _show(path)))
    for path, detail in orphans.items():
        found.append(Problem(Severity.NOTICE, Rule.ORPHAN.value, path, printable(detail), "see the message"))
    return found


# --- runs ------------------------------------------------------------------------------------------------------------


def _of_nobody_s(record: RunRecord) -> Problem:
    message = f"{record.equipment_id} is no longer in the configuration, so no agent looks after this run"
    command = "add the equipment to the config file"
    return Problem(Severity.STOPPED, "equipment_unknown", record.run_path, message, command)


def _of_run(record: RunRecord, snapshot: Snapshot, *, policy: Policy, at: Moment) -> list[Problem]:
    subject, show = record.run_path, _show(record.run_path)
    found: list[Problem] = []
    if problem := _of_state(record, snapshot, policy=policy, at=at):
        found.append(problem)
    if note := snapshot.run_problems.get(record.job_id):
        found.append(Problem(Severity.WAITING, "run", subject, note, show))
    found += _of_incidents(record, at)
    for detail in snapshot.refused_after_sync.get(record.job_id, ()):
        found.append(Problem(Severity.NOTICE, "synced_under_prior_policy", subject, detail, show))
    return found


def _of_incidents(record: RunRecord, at: Moment) -> list[Problem]:
    """Return what was proven wrong with the copy: each incident that is not healed, and the repairs of the last days."""
    found: list[Problem] = []
    show = _show(record.run_path)
    for one in record.incidents:
        what = f"{_IN_WORDS[one.kind]} on {utc_text(one.found_at)}: {printable(one.what)}"
        if one.healed_at is None:
            message = f"{what}; it is not healed yet"
            found.append(Problem(Severity.DATA_AT_RISK, one.kind.value, record.run_path, message, show))
        elif at.now - one.healed_at <= REPAIRS_TOLD_FOR:
            message = f"{what}; it was right again on {utc_text(one.healed_at)}"
            found.append(Problem(Severity.NOTICE, "repaired", record.run_path, message, show))
    return found


def _of_state(record: RunRecord, snapshot: Snapshot, *, policy: Policy, at: Moment) -> Problem | None:
    """Return what is wrong with a run by the state in which it rests or works."""
    name, subject = shell_word(record.run_path), record.run_path
    message = printable(record.last_error.message) if record.last_error is not None else ""
    kind = record.last_error.kind if record.last_error is not None else str(record.state)
    has_failed = record.last_error is not None and record.attempts >= (1 if at.is_ended else FAILURES_TOLD)
    match record.state:
        case RunState.CONFLICT:
            detail = record.last_error.detail if record.last_error is not None else ""
            ways = ways_out(kind, record.run_path, detail=detail)
            command = str(ways[0]) if ways else _show(record.run_path)
            return Problem(Severity.DATA_AT_RISK, kind, subject, message, command)
        case RunState.FAILED:
            return Problem(Severity.STOPPED, kind, subject, message, f"exlab-watch-agent retry {name}")
        case RunState.BLOCKED:
            command = f'exlab-watch-agent override add {name} --class {kind} --reason "..."'
            return Problem(Severity.STOPPED, kind, subject, message, command)
        case RunState.ACQUIRING if at.now - record.entered_at > timedelta(seconds=policy.stale_s):
            missing = snapshot.waiting.get(record.job_id, "")
            text = f"not complete since {utc_text(record.entered_at)}: {missing}".rstrip(": ")
            return Problem(Severity.WAITING, "stale", subject, text, _show(record.run_path))
        case state if state in CHART.tells_attempts and has_failed:
            command = f"exlab-watch-agent retry {name}" if state is RunState.QUEUED else _show(record.run_path)
            return Problem(Severity.WAITING, kind, subject, printable(failed_attempt(record, at)), command)
        case RunState.QUEUED if at.is_ended and (reason := snapshot.waiting.get(record.job_id)):
            text = f"still queued and not pushed: {printable(reason)}"
            return Problem(Severity.WAITING, "under_way", subject, text, _show(record.run_path))
        case RunState.SEALING if has_failed:
            severity = Severity.STOPPED if record.attempts >= SEAL_FAILURES_STOPPED else Severity.WAITING
            return Problem(severity, "seal_failed", subject, message, _show(record.run_path))
        case RunState.VERIFIED if record.last_error is not None:
            text = f"the last verify pass could not be finished: {message}"
            return Problem(Severity.WAITING, "audit_failed", subject, text, f"exlab-watch-agent verify {name}")
    return None


def failed_attempt(record: RunRecord, at: Moment) -> str:
    """Return which attempt failed, why, and what comes next."""
    error = record.last_error.message if record.last_error is not None else "no reason is known"
    due = record.next_attempt_at
    if at.is_ended:
        when = f", not before {utc_text(due)}" if due is not None and due > at.now else ""
        following = f"the next `exlab-watch-agent run` tries it again{when}"
    elif record.state is not RunState.QUEUED:
        following = "it is being tried again"
    else:
        following = f"next attempt at {utc_text(due)}" if due is not None and due > at.now else "the next one is due"
    return f"attempt {record.attempts} failed: {error}; {following}"


def _show(run_path: str) -> str:
    return f"exlab-watch-agent show {shell_word(run_path)}"
