"""Which runs `status` is to list, of all that are known; and a list of runs as CSV. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.snapshot import Snapshot
from exlab_watch_agent.report.status import run_json
from exlab_watch_agent.statechart import RunState

CSV_COLUMNS = (
    *("run_path", "equipment_id", "project", "run_kind", "state", "sync_status", "attempts", "next_attempt_at"),
    *("last_error_kind", "last_error_message", "verify_passes", "verified_at", "enqueued_at", "destination"),
    *("files_total", "bytes_total", "bytes_done", "job_id"),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for. Of `runs` (paths) and `equipment` (ids), empty for all, those in `states` (empty: any) since `since`.

    `limit`: at most so many, those whose state changed last. `is_all`: also those that are at their goal, which are listed by
    themselves only where something else was asked for.
    """

    runs: frozenset[str] = frozenset()
    equipment: frozenset[str] = frozenset()
    states: frozenset[RunState] = frozenset()
    since: datetime | None = None
    limit: int | None = None
    is_all: bool = False

    @property
    def names_some(self) -> bool:
        return bool(self.runs or self.equipment)

    def named(self, records: Iterable[RunRecord]) -> list[RunRecord]:
        """Return the runs that the words name, by path."""
        found = [
            record
            for record in records
            if not self.names_some or record.run_path in self.runs or record.equipment_id in self.equipment
        ]
        return sorted(found, key=lambda record: record.run_path)

    def takes_lane(self, equipment_id: str, records: Sequence[RunRecord]) -> bool:
        """Return whether something is asked of this instrument, or of one of its runs, which `records` are."""
        return not self.names_some or equipment_id in {*self.equipment, *(one.equipment_id for one in records)}

    def listed(self, records: Iterable[RunRecord]) -> list[RunRecord]:
        """Return the runs to be listed of those that are named, by path."""
        is_narrowed = self.names_some or self.states or self.since is not None or self.limit is not None or self.is_all
        found = [record for record in records if (is_narrowed or not is_at_goal(record)) and self._takes(record)]
        if self.limit is not None:
            found = sorted(found, key=lambda record: record.entered_at, reverse=True)[: self.limit]
        return sorted(found, key=lambda record: record.run_path)

    def _takes(self, record: RunRecord) -> bool:
        if self.states and record.state not in self.states:
            return False
        return self.since is None or record.entered_at >= self.since


def is_at_goal(record: RunRecord) -> bool:
    """Return whether a run is proven and nothing is being done with it."""
    return record.sync_status in ("synced", "cleaned") and not record.is_working


def csv_rows(records: Iterable[RunRecord], snapshot: Snapshot) -> Iterable[tuple[str, ...]]:
    """Yield a heading and one row a run, with the members of `status --json`."""
    yield CSV_COLUMNS
    for record in records:
        members = run_json(record, snapshot)
        error = members["last_error"] or {"kind": "", "message": ""}
        members |= {"last_error_kind": error["kind"], "last_error_message": error["message"]}
        yield tuple("" if members[name] is None else str(members[name]) for name in CSV_COLUMNS)
