"""Proven damage or loss of a copy: what a record keeps of it, also after it was healed.

Decided here: what two findings are one incident, how many are kept, and what it takes to call one healed. Not here: what counts
as damage (manifest.py, seal.py), and what is done about it (decide.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

INCIDENTS_KEPT_MAX = 20
"""In a run's record; the trail has all."""
NAMES_KEPT_MAX = 5


class IncidentKind(StrEnum):
    """What was proven wrong at the NAS.

    `COPY_DAMAGED`: data files differ from the manifest, or are missing. `COPY_UNREADABLE`: the copy is listed and cannot be
    read back. `SEAL_ALTERED`: the data are right, and what said so is gone or is not what was sealed.
    """

    COPY_DAMAGED = "copy_damaged"
    COPY_UNREADABLE = "copy_unreadable"
    SEAL_ALTERED = "seal_altered"


@dataclass(frozen=True, slots=True)
class Incident:
    """One finding. `id`: `<job>/<turn>` of the comparison that found it, as a pass is called.

    `files_total`: how many data files it is about, `files` the first of their POSIX paths, sorted. `what`: in words.
    `healed_by`: the id of the pass by which the copy was right again; empty as long as `healed_at` is None. `replaced_by`: the
    operator who let other data take the copy's place meanwhile; then what is right again is another copy, and of what was
    proven before there is what was moved aside. Empty where nobody did.
    """

    id: str
    kind: IncidentKind
    found_at: datetime
    what: str
    files_total: int = 0
    files: tuple[str, ...] = ()
    healed_at: datetime | None = None
    healed_by: str = ""
    replaced_by: str = ""

    @property
    def is_healed(self) -> bool:
        return self.healed_at is not None

    def is_again(self, other: Incident) -> bool:
        """Return whether `other` says nothing that this one, not healed yet, does not say."""
        same = (self.kind, self.files_total, self.files) == (other.kind, other.files_total, other.files)
        return same and not self.is_healed


def incident_of(
    kind: IncidentKind, *, found_by: str, found_at: datetime, what: str, files: Sequence[str] = ()
) -> Incident:
    """Return an incident of these data files, as many as there are. `found_by`: becomes its id."""
    return Incident(found_by, kind, found_at, what, len(files), tuple(sorted(files)[:NAMES_KEPT_MAX]))


def with_incident(known: tuple[Incident, ...], found: Incident) -> tuple[Incident, ...]:
    """Return the incidents with one more, unless it is known and not healed yet.

    Where there are too many, the oldest that is healed gives way first: one that is not must stay visible.
    """
    if any(one.is_again(found) for one in known):
        return known
    of_this_turn = sum(one.id.partition(" ")[0] == found.id for one in known)
    if of_this_turn:  # a conflict is looked at again and again, and is no other turn for that
        found = replace(found, id=f"{found.id} {of_this_turn + 1}")
    if len(known) >= INCIDENTS_KEPT_MAX:
        drop = next((one for one in known if one.is_healed), known[0])
        known = tuple(one for one in known if one is not drop)
    return (*known, found)


def all_replaced(known: tuple[Incident, ...], *, by: str) -> tuple[Incident, ...]:
    """Return the incidents once an operator gave up what was proven: those that are not healed end with other data."""
    return tuple(one if one.is_healed else replace(one, replaced_by=by) for one in known)


def all_healed(known: tuple[Incident, ...], *, at: datetime, by: str) -> tuple[Incident, ...]:
    """Return the incidents once the copy was proven, and says so itself: whatever was wrong with it is not any more."""
    if all(one.is_healed for one in known):
        return known
    return tuple(one if one.is_healed else replace(one, healed_at=at, healed_by=by) for one in known)
