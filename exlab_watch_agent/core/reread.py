"""When a proven copy is read again, and how much of what was proven was read lately.

Decided here: the time until a run's next look, and what coverage counts. Not here: whose turn it is among those that are due, and
what must not be disturbed by it (engine/turns.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from blake3 import blake3

from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.statechart import CHART, RunState

EARLIEST = 0.5
LATEST = 0.9
"""Parts of `agent.reread_days` after its last pass between which a run is due: later than that there would be no time left to wait
for an instrument that is at work, and with one moment for all a migration of a thousand runs would come back in one night."""


BYTES_PER_S = 4 * 1024 * 1024
"""At this rate on average a lane reads what is overdue beside an instrument that never rests: 30 TB of copies in 90 days."""
TOLD_AFTER = 1.1
"""Parts of `agent.reread_days` after which it is told that something was not read again: the small shares come first."""


def is_overdue(record: RunRecord, policy: Policy, *, now: datetime) -> bool:
    """Return whether a run was not read for all of `agent.reread_days`, so that it waits for no instrument any more."""
    return record.verified_at is not None and now - record.verified_at > timedelta(seconds=policy.reread_s)


def share_wait_s(record: RunRecord) -> float:
    """Return how long after this run has been read beside a working instrument the next one of its lane may be, in seconds."""
    return record.bytes_total / BYTES_PER_S


def is_reread(record: RunRecord, policy: Policy) -> bool:
    """Return whether another look at a run only serves to have read every byte lately: all the passes it needs were made."""
    return record.verify_passes >= max(1, policy.cleanup.verify_passes_min)


def next_look_in_s(record: RunRecord, policy: Policy) -> float:
    """Return how long after its last pass a sealed run is looked at again, in seconds.

    Until it has its passes, and where its last look could not be finished, after `audit_interval_hours`; then within `reread_days`:
    by its job each at a time of its own, which a restart does not change.
    """
    if record.last_error is not None or not is_reread(record, policy):
        return policy.audit_interval_s
    spread = int.from_bytes(blake3(record.job_id.encode()).digest(length=4)) / 2**32
    return policy.reread_s * (EARLIEST + (LATEST - EARLIEST) * spread)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of all that was ever sealed was read and found right within the time. `oldest_at`: since when no byte was left unread;
    None where nothing is sealed, or where something is disproven now, so that it has no such time."""

    runs_sealed: int = 0
    runs_read: int = 0
    bytes_sealed: int = 0
    bytes_read: int = 0
    oldest_at: datetime | None = None


def coverage(records: Iterable[RunRecord], *, policy: Policy, now: datetime) -> Coverage:
    """Return how much of the sealed runs' bytes was read within `reread_days`: on both sides, after `cleaned` on the NAS."""
    since = now - timedelta(seconds=policy.reread_s)
    sealed = [record for record in records if record.is_sealed and record.state in _KEPT]
    read_at = [record.verified_at if record.verify_passes else None for record in sealed]
    read = [record for record, at in zip(sealed, read_at, strict=True) if at is not None and at >= since]
    known = [at for at in read_at if at is not None]
    return Coverage(
        runs_sealed=len(sealed),
        runs_read=len(read),
        bytes_sealed=sum(record.bytes_total for record in sealed),
        bytes_read=sum(record.bytes_total for record in read),
        oldest_at=min(known) if len(known) == len(sealed) and known else None,
    )


_KEPT = CHART.auditable | {RunState.AUDITING}
