"""What is to be done next, in the imperative: plain values that `acts` carries out and `engine/errands.py` runs.

Decided here: what an effect must be told. A working state owns exactly one effect of work; start-up issues it again, so
every effect is safe to repeat. Not here: what came of it (events.py), and when it may start (engine/errands.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exlab_watch_agent.core.claim import Claim
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.passes import UNKNOWN_UPTIME, LocalSide, Uptime
from exlab_watch_agent.core.reconcile import Known
from exlab_watch_agent.core.rollback import TrailPosition

# --- the work of a run's working states ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subject:
    """The run that work is about, as it was decided: an outcome of an older `turn` is stale.

    `destination`: POSIX path below the destination root. `fingerprint`: of the inventory that was judged complete.
    """

    job_id: str
    turn: int
    run_path: str
    equipment_id: str
    destination: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Push(Subject):
    """Copy what is missing at the destination. `is_sealed`: a sealed copy of this run may be there, and is ours.

    `adopts`: the manifest of a sealed copy of another agent, which the local data were found equal to, and `adopts_from`
    the job in its claim; else empty. `takes_over`: who is to give way on an operator's word (DestinationLook.holding), and what
    is not the run's goes aside until it is sealed; else empty. `manifest_digest`: what this run was sealed as; empty where it was
    not. `is_open`: the run's place is yet to be decided; what keeps this one from being asked is all that is to be found out.
    `is_shown`: what is at the destination without a claim was found equal to what is here, and stays as it is.
    """

    claim: Claim
    is_sealed: bool = False
    adopts: str = ""
    adopts_from: str = ""
    takes_over: str = ""
    manifest_digest: str = ""
    is_open: bool = False
    is_shown: bool = False


@dataclass(frozen=True, slots=True)
class Precheck(Subject):
    """Look for cheap evidence against the copy."""


@dataclass(frozen=True, slots=True)
class Verify(Subject):
    """Hash every data file on both sides and compare; `manifest_digest` is empty where there is no manifest yet.

    `is_audit`: it is one more pass over a sealed run. `adopts`: the manifest of a sealed copy of another agent that is to be
    taken over, else empty. `is_left_there`: the copy has no claim, and is ours only if every file of it is what is here. `local`:
    what there is to compare the destination with; after the removal of the local data the manifest alone. `may_be_gone`: two scans
    did not find the run's folder, so that where it is gone the manifest will do. `chosen_by`: the operator who says that the sealed
    copy of a run in conflict counts, and `reason` why; then not one data file may be left here.
    """

    manifest_digest: str
    claim: Claim
    is_audit: bool = False
    adopts: str = ""
    adopts_from: str = ""
    is_left_there: bool = False
    local: LocalSide = LocalSide.READ
    may_be_gone: bool = False
    chosen_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Seal(Subject):
    """Write manifest and final `creation.json` on both sides and read them back.

    `wait_s`: not before that long. `is_again`: the run was sealed before. `adopts`: as in Verify. `anchor`: what the claim is to
    say besides whose it is, above all the trail's head. `is_left_there`: what was there without a claim was found equal to what is
    here, and what is in its cache folder is kept as evidence. `proven`: the machine's uptime when the proof ended.
    `is_taken_over`: an operator had others make room for this copy. `has_missed`: a file of the copy was missing before a seal
    already. `is_proven`: a pass counts; without one nothing is sealed for the first time.
    """

    manifest_digest: str
    claim: Claim
    wait_s: float
    is_again: bool = False
    adopts: str = ""
    adopts_from: str = ""
    is_left_there: bool = False
    proven: Uptime = UNKNOWN_UPTIME
    has_missed: bool = False
    is_proven: bool = True
    is_taken_over: bool = False
    anchor: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether this agent has not sealed this very copy before, so that the proof alone says that it is right."""
        return not self.is_again or bool(self.adopts) or self.is_taken_over


Work = Push | Precheck | Verify | Seal


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Make `sync_status` in `creation.json` say what the state says."""

    job_id: str
    run_path: str
    equipment_id: str
    sync_status: str


# --- the effects of a lane ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look at one run folder. `job_id`: of the run that is known there, empty for none.

    `is_about_creation`: only because its `creation.json` was written; such a look ends where that is the file of
    `known_signature`, which the agent itself wrote last. `judges_gate`: findings are wanted even while the run is not
    complete. `is_background`: it waits for its turn behind those of fresh events.
    """

    place: RunPlace
    job_id: str = ""
    is_about_creation: bool = False
    is_background: bool = False
    declared_mismatches: tuple[str, ...] = ()
    known_signature: FileSignature | None = None
    judges_gate: bool = False

    @property
    def equipment_id(self) -> str:
        return self.place.equipment_id


@dataclass(frozen=True, slots=True)
class Admit:
    """Look at a queued run and at its destination, right before a push.

    `asks_nas_fully`: the NAS must keep and give back a few bytes; else its marker is enough, because it did so a moment
    ago. `manifest_digest`: what the run was sealed as; empty where it was not. `others`: where else a copy of the run may be;
    none once its place is decided. `is_shown`: as in Push.
    """

    place: RunPlace
    claim: Claim
    destination: str
    others: tuple[str, ...] = ()
    is_shown: bool = False
    declared_mismatches: tuple[str, ...] = ()
    asks_nas_fully: bool = True
    manifest_digest: str = ""

    @property
    def equipment_id(self) -> str:
        return self.place.equipment_id


@dataclass(frozen=True, slots=True)
class AskWhere:
    """Ask whether a run is still in any of these folders, and last of all whether the folder that is new still is one.

    `places`: the paths of the known runs of the same identity.
    """

    place: RunPlace
    places: tuple[str, ...]

    @property
    def equipment_id(self) -> str:
        return self.place.equipment_id


@dataclass(frozen=True, slots=True)
class Scan:
    """Compare an equipment's folder with what is known of its runs.

    `cleaned`: paths of runs whose folders need not be there. `unsignalled`: paths of runs of which only the signal is
    asked for. One that is not full only looks for what came, went or was edited; one that is deep has every sealed run looked
    at, others a share of them. `seeks_misplaced`: it also searches for what stands where no run can be.
    """

    equipment_id: str
    root: str
    known: Known
    cleaned: frozenset[str] = frozenset()
    unsignalled: tuple[str, ...] = ()
    is_full: bool = True
    is_deep: bool = False
    seeks_misplaced: bool = True


@dataclass(frozen=True, slots=True)
class SealedCopy:
    """A proven copy of ours: its job, its POSIX path below the root, and the manifest that its claim must name."""

    job_id: str
    destination: str
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask whether the destination is there, and unless `is_light` whether it can be written to.

    `serial` tells one from others that hang. `copies`: some that a root without its marker may be known by. `asks_room`: also how
    much room is free there. `needs_bytes`: one that has less room is full.
    """

    equipment_id: str
    is_light: bool = False
    serial: int = 0
    copies: tuple[SealedCopy, ...] = ()
    asks_room: bool = False
    needs_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the destination root because an operator says that it is the right one. `serial` tells two of them apart.

    `copies`: some that a root without its marker may be known by.
    """

    equipment_id: str
    operator: str
    serial: int = 0
    copies: tuple[SealedCopy, ...] = ()


@dataclass(frozen=True, slots=True)
class CarryCache:
    """Bring what changed in a sealed run's cache folder to its copy. `form`: in which it travelled last (core/cache_copy.py)."""

    job_id: str
    run_path: str
    equipment_id: str
    destination: str
    manifest_digest: str
    claim: Claim
    form: str = ""


@dataclass(frozen=True, slots=True)
class SealedRun(SealedCopy):
    """The same of a run, with where it is here."""

    run_path: str


@dataclass(frozen=True, slots=True)
class ReplaceDestination:
    """Have the root that answers take the place of the bound one, because an operator says so.

    `sealed`: the equipment's runs that were proven at the bound one: the only copy of some may be there.
    """

    equipment_id: str
    sealed: tuple[SealedRun, ...] = ()


@dataclass(frozen=True, slots=True)
class PlaceHeartbeat:
    """Leave the agent's sign of life on the NAS. `host`: of this PC, which the file is called by.

    `position`: the last line of the trail that it tells, and `told_to` up to which line an older sign that says otherwise has been
    told; one that was not is left there.
    """

    equipment_id: str
    host: str
    data: bytes
    position: TrailPosition | None = None
    told_to: int = 0


Effect = (
    Work
    | WriteStatus
    | Inspect
    | Admit
    | AskWhere
    | Scan
    | Probe
    | Bind
    | ReplaceDestination
    | CarryCache
    | PlaceHeartbeat
)
