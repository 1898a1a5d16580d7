"""Whose destination folder it is. Two runs never share one: what belongs to another run or agent is never written to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.rollback import TrailPosition

CLAIM_FILE = "exlab-watch-agent.json"
CLAIM_SCHEMA = 2
FORMER_MAX = 100
CLAIM_PATH = f"{CACHE_FOLDER}/{CLAIM_FILE}"
NOBODY_KNOWN = "nobody known"
"""Who holds a folder in which data are without a claim that can be read."""
_LAST_SEEN = "as last seen: "
_WHOEVER = "whoever"
"""What earlier versions wrote in the place of that; it is for nobody with a claim now."""


@dataclass(frozen=True, slots=True)
class FormerHolder:
    """An agent that held a copy before: its state folder (empty where it said none), host, job, and when it sealed the copy."""

    state_folder: str
    host: str
    job_id: str
    sealed_at: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose destination folder it is: the content of `<destination>/.exlab-wizard/exlab-watch-agent.json`.

    `state_folder`: the id of the agent that makes it, empty in claims of the first version; `host` is for people.
    `generation`: how many agents have held the copy, this one included; `former`: those before, the latest last.
    """

    job_id: str
    equipment_id: str
    run: str
    identity: RunIdentity
    state_folder: str = ""
    host: str = ""
    generation: int = 1
    former: tuple[FormerHolder, ...] = ()

    def is_of(self, mine: Claim) -> bool:
        """True when the agent that makes `mine` made this one for the same job. One without an id is known by its job alone."""
        is_same_folder = not self.state_folder or not mine.state_folder or self.state_folder == mine.state_folder
        return is_same_folder and self.job_id == mine.job_id

    def taken_over(self, by: Claim, *, sealed_at: str) -> Claim:
        """Return the claim of the agent that holds the copy from now on, which keeps those who held it before."""
        former = FormerHolder(self.state_folder, self.host, self.job_id, sealed_at)
        return replace(by, generation=self.generation + 1, former=(*self.former, former)[-FORMER_MAX:])

    def kept_by(self, mine: Claim) -> Claim:
        """Return our claim as it is written anew over this one of ours: with the same holders before us."""
        return replace(mine, generation=self.generation, former=self.former)

    def names_same_run(self, other: Claim) -> bool:
        """True when both are about one run, whoever makes them. That does not make a claim ours: only the job does."""
        return (self.identity, self.equipment_id, self.run) == (other.identity, other.equipment_id, other.run)


@dataclass(frozen=True, slots=True)
class DestinationLook:
    """What a destination folder says of itself before anything is pushed.

    `is_empty`: it is absent or holds nothing at all. `claim`: ours or another agent's, if there is one.
    `identity`: from a `creation.json` that is there, None when there is none or it cannot be read.
    `is_sealed`: claim or `creation.json` say that the copy was proven. `says_synced`: its `creation.json` says so.
    `sealed_as`: the manifest's digest that the claim says was proven, empty where it says none. `anchor`: the last line that
    its holder's audit trail had when it was sealed, and `sealed_at` when that was. `holder`: who makes the claim, in words.
    """

    is_empty: bool
    claim: Claim | None
    identity: RunIdentity | None
    is_sealed: bool = False
    holder: str = ""
    says_synced: bool = False
    sealed_as: str = ""
    anchor: TrailPosition | None = None
    sealed_at: str = ""

    @property
    def holding(self) -> str:
        """Who holds the folder and as what, in one word that is another one after each change of hands or seal."""
        if self.claim is None:
            return NOBODY_KNOWN
        return f"{self.claim.state_folder}/{self.claim.job_id}/{self.claim.generation}/{self.sealed_as}"

    def anchor_of(self, mine: Claim) -> TrailPosition | None:
        """Return the anchor where this very agent made the claim, whatever the job: an older copy of its state folder does not know
        all of its jobs. Those of others say nothing of our trail."""
        if self.claim is None:
            return None
        is_ours = self.claim.is_of(mine) or (bool(mine.state_folder) and self.claim.state_folder == mine.state_folder)
        return self.anchor if is_ours else None


class DestinationStanding(StrEnum):
    """Whose the destination folder is.

    `UNASKED`: the NAS answered and this folder did not; the push asks again, and meets the same error in its own words.
    `SEALED_UNCLAIMED`: a proven copy of this run, and no claim says whose. `ADOPTABLE`: a proven copy of this run by an agent
    that gives no sign of life any more. `LEFT_THERE`: what ExLab-Wizard copied of this run, by name and size, and no claim.
    `OCCUPIED_HERE`: another run of this very agent has it.
    """

    UNASKED = "unasked"
    FREE = "free"
    OURS = "ours"
    SEALED_UNCLAIMED = "sealed_unclaimed"
    OCCUPIED = "occupied"
    OCCUPIED_HERE = "occupied_here"
    CLAIMED_BY_OTHER_AGENT = "claimed_by_other_agent"
    CLAIMED_UNSEALED = "claimed_unsealed"
    ADOPTABLE = "adoptable"
    LEFT_THERE = "left_there"


def standing(look: DestinationLook, mine: Claim, *, is_our_seal: bool = True) -> DestinationStanding:
    """Return whose the folder is. A claim is ours when its job and its agent are ours, and for no other reason.

    `is_our_seal`: False where another copy of our state folder sealed it: then it is that one's. Data without a claim and without
    our identity are somebody else's: fail closed.
    """
    if look.claim is not None:
        if look.claim.is_of(mine) and is_our_seal:
            return DestinationStanding.OURS
        if not look.claim.names_same_run(mine):
            return DestinationStanding.OCCUPIED
        return DestinationStanding.CLAIMED_BY_OTHER_AGENT if look.is_sealed else DestinationStanding.CLAIMED_UNSEALED
    if look.is_empty:
        return DestinationStanding.FREE
    if look.identity != mine.identity:
        return DestinationStanding.OCCUPIED
    return DestinationStanding.SEALED_UNCLAIMED if look.is_sealed else DestinationStanding.OURS


DESTINATION_OCCUPIED = "destination_occupied"
OF_THIS_AGENT = "of another run of this agent"
HELD_BY_OTHERS = "and others hold the copy"
OF_OTHERS = frozenset(
    {"destination_occupied", "claimed_by_other_agent", "claimed_unsealed", "differs_from_sealed_copy"}
)
"""Kinds of conflict in which the destination is not ours to write to; an operator may have it taken over."""


def may_be_displaced(where: DestinationStanding, *, consent: str, holding: str) -> bool:
    """Return whether what others have at a destination may go aside because an operator said so.

    `consent`: who was to give way, as the record keeps it; `holding`: who is found there now. Consent is to one holder and, once
    that was found there, to one state of its copy: who comes after it, or comes back, asks for another word, so that two agents
    never push each other away.
    """
    return where in _HELD_BY_OTHERS and is_meant(consent, holding)


def as_last_seen(held_by: str) -> str:
    """Return the consent of an operator to what was told: that this holder gives way (DestinationLook.holding; empty: none known).

    It may wait for a NAS that is away, and who comes meanwhile was not told of.
    """
    return f"{_LAST_SEEN}{held_by or NOBODY_KNOWN}"


def awaits_look(consent: str) -> bool:
    """Return whether nobody has looked yet since an operator's word at who holds the destination now."""
    return consent == _WHOEVER or consent.startswith(_LAST_SEEN)


def is_meant(consent: str, holding: str) -> bool:
    """Return whether an operator's word is for whoever is found to hold a destination; both as in `may_be_displaced`."""
    if not awaits_look(consent):
        return bool(consent) and consent == holding
    return _holder(consent.removeprefix(_LAST_SEEN)) == _holder(holding)


def _holder(holding: str) -> str:
    """Return which agent's which job it is, whatever has become of its copy since."""
    return holding if holding == NOBODY_KNOWN else holding.rsplit("/", 2)[0]


_HELD_BY_OTHERS = frozenset(
    {
        DestinationStanding.OCCUPIED,
        DestinationStanding.CLAIMED_UNSEALED,
        DestinationStanding.CLAIMED_BY_OTHER_AGENT,
        DestinationStanding.SEALED_UNCLAIMED,
        DestinationStanding.ADOPTABLE,
    }
)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a destination may not be written to: the kind of conflict, and a sentence with what a person can do.

    `detail`: OF_THIS_AGENT where it is another run of this agent that holds it, else empty.
    """

    kind: str
    message: str
    detail: str = ""


_WAY_OUT = (
    "nothing there was touched. Restore the state folder that it belongs to; or stop the other agent, then give "
    "`exlab-watch-agent resolve RUN --take-over`: what is equal there stays, all else goes aside below .exlab-superseded."
)


def _held_here(destination: str, of_whom: str) -> Conflict:
    text = (
        f"{destination} holds another run's data, of this very agent{of_whom}: nothing there was touched, and it is not taken "
        "over. Rename one of the two run folders here, so that each has a place of its own; then give "
        "`exlab-watch-agent resolve RUN --use local`."
    )
    return Conflict(DESTINATION_OCCUPIED, text, OF_THIS_AGENT)


def conflict_at(
    where: DestinationStanding,
    destination: str,
    *,
    holder: str,
    is_sealed: bool,
    detail: str = "",
    sign_fault: str = "",
) -> Conflict | None:
    """Return why nothing may be pushed to `destination`; None when it may.

    `holder`: who claims it, in words. `is_sealed`: our own record says that we sealed this run, so that a proven copy
    whose claim was lost is ours. `detail`: what it holds, in words, where more is known of it. `sign_fault`: why the holder's sign
    of life may be none.
    """
    of_whom = f" ({holder})" if holder else ""
    match where:
        case (
            DestinationStanding.UNASKED
            | DestinationStanding.FREE
            | DestinationStanding.OURS
            | DestinationStanding.ADOPTABLE
            | DestinationStanding.LEFT_THERE
        ):
            return None
        case DestinationStanding.SEALED_UNCLAIMED if is_sealed:
            return None
        case DestinationStanding.OCCUPIED:
            whose = f"another run's data{of_whom}" if holder else detail or "data that are not known to be this run's"
            text = (
                f"{destination} holds {whose}: nothing there was touched. Rename the run's folder here; or give "
                "`exlab-watch-agent resolve RUN --take-over`: what is equal there stays, all else goes aside below "
                ".exlab-superseded."
            )
            return Conflict(DESTINATION_OCCUPIED, text)
        case DestinationStanding.OCCUPIED_HERE:
            return _held_here(destination, of_whom)
        case DestinationStanding.CLAIMED_UNSEALED:
            text = (
                f"{destination} was begun for this run by another agent, which has not proven it{of_whom}: {_WAY_OUT}"
            )
            return Conflict(where, text)
    text = f"{destination} holds a sealed copy of this run that this agent did not make{of_whom}: {_WAY_OUT}"
    if sign_fault:
        text = f"{text} But {sign_fault}."
    return Conflict(DestinationStanding.CLAIMED_BY_OTHER_AGENT, text)
