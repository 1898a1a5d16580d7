"""Counts what happened in a period, line by line of the audit trail.

Decided here: what counts as what. What a line says is taken from the line alone, so that the same trail gives the same counts on
every day. Memory grows with the runs and not with the lines: of each kind of event the first `ROWS_MAX` are listed, and all are
counted. Not here: where the lines come from, and how the counts are told (period.py). Pure.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from exlab_watch_agent.core.members import block, number, text
from exlab_watch_agent.core.text import unicode_text, utc_text
from exlab_watch_agent.report.trail import TrailRow, row_of
from exlab_watch_agent.statechart import CHART, RunState

ROWS_MAX = 500
"""So many events of a kind are listed: an A4 page has about forty. `audit log` has all."""
OLDEST_MAX = 20
AGES_DAYS = (1, 7, 30, 90, 365)
_STOPS = frozenset({"blocked", "failed", "conflict"})
_FAILURES = frozenset({"put_back", "gave_up", "seal_failed", "audit_interrupted"})
_INCIDENTS = frozenset({"incident", "incident_healed"})
_OVERRIDES = frozenset({"override_added", "override_revoked", "overrides_removed"})
_RUNS_OWN = frozenset(
    {
        "transition", "identity_changed", "moved", "run_restored", "cache_carried", "attempts_cleared", "segment_opened",
    }
)  # fmt: skip
"""Kinds that are not listed line by line: they are counted, or say nothing that a period is asked for."""
_STATES = {state.value: state for state in RunState}


Here = tuple[int, str]
"""A line's number and time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which lines are meant. Empty: no bound. `since`, `until`: as the trail writes times; the first is within, the second not."""

    equipment_id: str = ""
    since: str = ""
    until: str = ""

    def to_json(self) -> dict[str, str | None]:
        return {
            "equipment_id": self.equipment_id or None,
            "since": shown_time(self.since) or None,
            "until": shown_time(self.until) or None,
        }


@dataclass(slots=True)
class Counts:
    """What happened in the period. Bytes and files of runs are those of the moment of their first seal."""

    runs_found: int = 0
    runs_sealed: int = 0
    files_sealed: int = 0
    bytes_sealed: int = 0
    passes: int = 0
    passes_past_cache: int = 0
    bytes_proven: int = 0
    incidents: int = 0
    incidents_healed: int = 0
    overrides_added: int = 0
    overrides_revoked: int = 0
    deletions: int = 0
    bytes_deleted: int = 0
    stops: int = 0
    failed_attempts: int = 0
    commands: int = 0

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(slots=True)
class Rows:
    """The first rows of a kind of event, and how many there were."""

    total: int = 0
    rows: list[TrailRow] = field(default_factory=list)

    def add(self, fact: Mapping[str, object]) -> None:
        self.total += 1
        if len(self.rows) < ROWS_MAX:
            self.rows.append(row_of(fact))

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "rows": [
                {
                    "seq": row.seq,
                    "at": row.at,
                    "kind": row.kind,
                    "equipment_id": row.equipment or None,
                    "run_path": unicode_text(row.run) or None,
                    "operator": unicode_text(row.operator) or None,
                    "what": unicode_text(row.what),
                }
                for row in self.rows
            ],
        }


@dataclass(slots=True)
class _Run:
    """What the latest line about a run says of it."""

    path: str
    equipment_id: str
    state: str
    files: int = 0
    bytes: int = 0
    found_at: str = ""
    is_sealed: bool = False
    passes: int = 0
    verified_at: str = ""

    @property
    def is_proven(self) -> bool:
        state = _STATES.get(self.state)
        is_synced = state is not None and CHART.sync_status(state) in ("synced", "cleaned")
        return is_synced and self.passes > 0 and bool(self.verified_at)


class PeriodTally:
    """Takes the lines of a trail in their order, each once. `begin` forgets all: a reading may be done again."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.begin()

    def begin(self) -> None:
        self._runs: dict[str, _Run] = {}
        self.counts: dict[str, Counts] = {}
        self.incidents, self.overrides, self.deletions = Rows(), Rows(), Rows()
        self.stops, self.commands, self.others = Rows(), Rows(), Rows()
        self.open_incidents: set[tuple[str, str]] = set()
        self.kinds: Counter[str] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.read_by: Counter[str] = Counter()
        self.charts: dict[str, tuple[Here, Here]] = {}
        self.hosts: dict[str, tuple[Here, Here]] = {}
        self.first: Here | None = None
        self.last: Here | None = None

    def take(self, fact: Mapping[str, object]) -> None:
        """Take in the next line, whatever version wrote it."""
        at = text(fact, "at")
        if self.bounds.until and at >= self.bounds.until:
            return
        record, data = block(fact, "record"), block(fact, "data")
        equipment_id = self._equipment_of(record, data)
        job_id = text(record, "job_id")
        before = self._runs.get(job_id)
        now = _run_of(record, before) if job_id else None
        if now is not None:
            self._runs[job_id] = now  # also one of another instrument: a command may name it by its job id alone
        if equipment_id and not self._is_asked_for(equipment_id):
            return
        is_within = at >= self.bounds.since
        if text(fact, "kind") in _INCIDENTS and job_id:
            self._take_incident(job_id, fact, data)
        if is_within:
            self._count(fact, equipment_id, before, now, record)

    def _is_asked_for(self, equipment_id: str) -> bool:
        return self.bounds.equipment_id in ("", equipment_id)

    def _equipment_of(self, record: Mapping[str, object], data: Mapping[str, object]) -> str:
        """Return which instrument a line is about, empty for one that is about none."""
        named = text(record, "equipment_id") or text(data, "equipment_id") or text(data, "equipment")
        known = self._runs.get(text(data, "job_id"))
        return named or text(data, "root").partition(" ")[0] or (known.equipment_id if known else _in(data))

    def _take_incident(self, job_id: str, fact: Mapping[str, object], data: Mapping[str, object]) -> None:
        key = (job_id, text(data, "id"))
        if text(fact, "kind") == "incident":
            self.open_incidents.add(key)
        else:
            self.open_incidents.discard(key)

    def _count(
        self,
        fact: Mapping[str, object],
        equipment_id: str,
        before: _Run | None,
        now: _Run | None,
        record: Mapping[str, object],
    ) -> None:
        kind, move = text(fact, "kind"), block(fact, "move")
        counts = self.counts.setdefault(equipment_id, Counts())
        self.kinds[kind] += 1
        here = (number(fact, "seq"), shown_time(text(fact, "at")))
        self.first, self.last = self.first or here, here
        for seen, name in ((self.charts, "chart"), (self.hosts, "host")):
            word = text(fact, name)
            seen[word] = (seen.get(word, (here, here))[0], here)
        if now is not None and kind != "run_restored":
            self._count_run(counts, before, now, record)
        if move:
            self._count_move(counts, move, record, fact)
        elif kind in _INCIDENTS:
            counts.incidents += kind == "incident"
            counts.incidents_healed += kind == "incident_healed"
            self.incidents.add(fact)
        elif kind in _OVERRIDES:
            counts.overrides_added += kind == "override_added"
            counts.overrides_revoked += kind != "override_added"
            self.overrides.add(fact)
        elif kind == "operator_command":
            counts.commands += 1
            self.commands.add(fact)
        elif kind not in _RUNS_OWN:
            self.others.add(fact)

    def _count_run(self, counts: Counts, before: _Run | None, now: _Run, record: Mapping[str, object]) -> None:
        if now.is_sealed and not (before is not None and before.is_sealed):
            counts.runs_sealed += 1
            counts.files_sealed += now.files
            counts.bytes_sealed += now.bytes
        if now.verified_at and now.verified_at != (before.verified_at if before is not None else ""):
            passes = record.get("passes")
            latest = passes[-1] if isinstance(passes, list) and passes else None
            proof = latest if isinstance(latest, dict) and text(latest, "ended_at") == now.verified_at else {}
            counts.passes += 1
            counts.passes_past_cache += proof.get("past_cache") is True
            counts.bytes_proven += number(proof, "bytes") or now.bytes
            self.read_by[text(proof, "remote") or "unknown"] += 1

    def _count_move(
        self, counts: Counts, move: Mapping[str, object], record: Mapping[str, object], fact: Mapping[str, object]
    ) -> None:
        dest, trigger = text(move, "dest"), text(move, "trigger")
        counts.runs_found += not text(move, "source")
        if dest in _STOPS and dest != text(move, "source"):
            counts.stops += 1
            self.stops.add(fact)
        if dest == "cleaned" and text(move, "source") != "cleaned":
            counts.deletions += 1
            counts.bytes_deleted += number(record, "bytes_total")
            self.deletions.add(fact)
        if trigger in _FAILURES:
            counts.failed_attempts += 1
            error = text(block(record, "last_error"), "kind") or "unknown"
            self.failures[text(record, "equipment_id"), error] += 1

    def coverage(self, at: datetime) -> dict[str, Any]:
        """Return how many of the runs that were known then are proven, and how old the proofs are."""
        runs = [run for run in self._runs.values() if self._is_asked_for(run.equipment_id)]
        proven = [run for run in runs if run.is_proven]
        unproven = sorted((run for run in runs if not run.is_proven), key=lambda run: (run.found_at, run.path))
        states = Counter(run.state for run in runs)
        ages = Counter(_age_class(run.verified_at, at) for run in proven)
        return {
            "at": utc_text(at),
            "runs": len(runs),
            "bytes": sum(run.bytes for run in runs),
            "states": {name: states[name] for name in (*_STATES, *sorted(states.keys() - _STATES.keys())) if states[name]},
            "proven": len(proven),
            "bytes_proven": sum(run.bytes for run in proven),
            "by_age": [{"within_days": days, "runs": ages[days]} for days in (*AGES_DAYS, None)],
            "oldest": [_run_json(run) for run in heapq.nsmallest(OLDEST_MAX, proven, key=lambda run: run.verified_at)],
            "not_proven": {"total": len(unproven), "runs": [_run_json(run) for run in unproven[:ROWS_MAX]]},
        }  # fmt: skip


def _run_of(record: Mapping[str, object], before: _Run | None) -> _Run:
    """Return what this line says of its run. Members that equal their default are left out of a line."""
    at = text(record, "discovered_at") or (before.found_at if before is not None else text(record, "entered_at"))
    path, equipment_id = text(record, "run_path"), text(record, "equipment_id")
    if before is not None and (path, equipment_id) == (before.path, before.equipment_id):
        path, equipment_id = before.path, before.equipment_id  # a run's lines share one text each
    return _Run(
        path,
        equipment_id,
        text(record, "state") or CHART.initial.value,
        number(record, "files_total"),
        number(record, "bytes_total"),
        at,
        bool(text(record, "sealed_at")),
        number(record, "verify_passes"),
        text(record, "verified_at"),
    )


def _in(data: Mapping[str, object]) -> str:
    """Return the instrument that a run's path names: <local_root>/<EQUIPMENT>/<project>/Runs/<run>."""
    parts = re.split(r"[/\\]", text(data, "run_path"))
    return parts[-4] if len(parts) >= 4 else ""


def _run_json(run: _Run) -> dict[str, Any]:
    return {
        "run_path": unicode_text(run.path),
        "equipment_id": run.equipment_id,
        "state": run.state,
        "files_total": run.files,
        "bytes_total": run.bytes,
        "found_at": shown_time(run.found_at) or None,
        "verified_at": shown_time(run.verified_at) or None,
        "verify_passes": run.passes,
    }


def _age_class(verified_at: str, at: datetime) -> int | None:
    """Return within how many days of `at` this was, None: longer ago."""
    try:
        since = at - datetime.fromisoformat(verified_at)
    except (ValueError, TypeError):
        return None
    return next((days for days in AGES_DAYS if since <= timedelta(days=days)), None)


def shown_time(moment: str) -> str:
    """Return a time of the trail without its fractions, empty for none."""
    return f"{moment[:19]}Z" if moment else ""


def summed(every: Sequence[Counts]) -> Counts:
    """Return what these come to together."""
    members = [one.to_json() for one in every]
    return Counts(**{name: sum(one[name] for one in members) for name in Counts().to_json()})
