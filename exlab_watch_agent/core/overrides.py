"""Which entries of `validation_overrides` are in force at an instant, and when that changes next.

Decided here: what revokes what, and what an expiry means. Not here: which findings an override lets through (gate.py),
and how entries get into `creation.json` (adapters/local/creation_file.py).

Whatever is in doubt counts against the override: an override that wrongly lapses costs an operator a minute, one that
wrongly holds pushes a run that the lab refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

from exlab_watch_agent.core.creation import OverrideEntry

# `fromisoformat` also takes week dates and bare dates, hence a pattern of our own before it.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


class OverrideStanding(StrEnum):
    """What an entry of the list is worth now. A revoked override stays `revoked` also after its expiry."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TOMBSTONE = "tombstone"


def parse_time(text: str) -> datetime | None:
    """Return an RFC 3339 time as aware UTC, None where it is malformed. Seconds may be left out.

    A time without `Z` or offset is malformed: whether it means local time or UTC would be a guess, and the wrong one
    prolongs an override by hours. So is one that does not fit into the years 1 to 9999 of UTC.
    """
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def override_standing(entry: OverrideEntry, overrides: Sequence[OverrideEntry], *, now: datetime) -> OverrideStanding:
    """Return what `entry` is worth at `now`, given the whole list it is in."""
    return _standing(entry, revoked_ids(overrides), now)


def active_overrides(overrides: Sequence[OverrideEntry], *, now: datetime) -> tuple[OverrideEntry, ...]:
    """Return the overrides in force at `now`, in the order of the list. `expires_at == now` is no longer in force."""
    revoked = revoked_ids(overrides)
    return tuple(entry for entry in overrides if _standing(entry, revoked, now) is OverrideStanding.ACTIVE)


def active_classes(overrides: Sequence[OverrideEntry], *, now: datetime) -> frozenset[str]:
    """Return the problem classes that at least one active override covers."""
    active = active_overrides(overrides, now=now)
    return frozenset(entry.problem_class for entry in active if entry.problem_class is not None)


def next_expiry(overrides: Sequence[OverrideEntry], *, now: datetime) -> datetime | None:
    """Return when the first of the active overrides lapses, None when none ever does: ask the gate again then."""
    texts = (entry.expires_at for entry in active_overrides(overrides, now=now))
    return min((at for text in texts if text is not None and (at := parse_time(text)) is not None), default=None)


def dangling_tombstones(overrides: Sequence[OverrideEntry]) -> tuple[OverrideEntry, ...]:
    """Return the tombstones that revoke no override of the list. They have no effect and deserve a warning.

    A tombstone that names another tombstone is one of them: a revocation cannot be taken back, only a new override
    be given.
    """
    override_ids = {entry.id for entry in overrides if not _is_tombstone(entry)}
    return tuple(entry for entry in overrides if _is_tombstone(entry) and entry.revokes not in override_ids)


def _is_tombstone(entry: OverrideEntry) -> bool:
    return entry.revokes is not None


def revoked_ids(overrides: Sequence[OverrideEntry]) -> frozenset[str]:
    """Return every id that some tombstone names, wherever in the list either of them is."""
    return frozenset(entry.revokes for entry in overrides if entry.revokes is not None)


def _standing(entry: OverrideEntry, revoked_ids: frozenset[str], now: datetime) -> OverrideStanding:
    if _is_tombstone(entry):
        return OverrideStanding.TOMBSTONE
    if entry.id in revoked_ids:
        return OverrideStanding.REVOKED
    if entry.expires_at is None:
        return OverrideStanding.ACTIVE
    expires_at = parse_time(entry.expires_at)
    is_in_force = expires_at is not None and now < expires_at
    return OverrideStanding.ACTIVE if is_in_force else OverrideStanding.EXPIRED
