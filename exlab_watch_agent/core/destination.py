"""Whose destination folder it is. Two runs never share one: what belongs to another run is never written to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.inventory import CACHE_FOLDER

CLAIM_FILE = "exlab-watch-agent.json"
CLAIM_PATH = f"{CACHE_FOLDER}/{CLAIM_FILE}"


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose destination folder it is: stands in `<destination>/.exlab-wizard/exlab-watch-agent.json`."""

    job_id: str
    equipment_id: str
    run: str
    identity: RunIdentity

    def is_same_run(self, other: Claim) -> bool:
        """True for the same job, and for the same run under a new job id (after the state was lost and rebuilt)."""
        if self.job_id == other.job_id:
            return True
        return (self.identity, self.equipment_id, self.run) == (other.identity, other.equipment_id, other.run)


@dataclass(frozen=True, slots=True)
class DestinationLook:
    """What a destination folder says of itself before anything is pushed.

    `is_empty`: it is absent or holds nothing at all. `claim`: ours or another agent's, if one stands there.
    `identity`: from a `creation.json` that is there, None when there is none or it cannot be read.
    """

    is_empty: bool
    claim: Claim | None
    identity: RunIdentity | None


class DestinationStanding(StrEnum):
    """Whose the destination folder is."""

    FREE = "free"
    OURS = "ours"
    OCCUPIED = "occupied"


def standing(look: DestinationLook, mine: Claim) -> DestinationStanding:
    """Return whose the folder is. Data without a claim and without our identity are somebody else's: fail closed."""
    if look.claim is not None:
        return DestinationStanding.OURS if look.claim.is_same_run(mine) else DestinationStanding.OCCUPIED
    if look.is_empty:
        return DestinationStanding.FREE
    return DestinationStanding.OURS if look.identity == mine.identity else DestinationStanding.OCCUPIED
