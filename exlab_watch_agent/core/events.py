"""What happened, in the past tense: to a run (`Event`), and what came of each effect (`Result`).

An event with a `turn` is the outcome of an effect of that turn. Every class of effects.py has its results here.
Longer than other modules: it is one closed union, and who reads it looks for what there is beside what he knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from exlab_watch_agent.core.binding import Below
from exlab_watch_agent.core.claim import DestinationStanding
from exlab_watch_agent.core.completeness import Completeness
from exlab_watch_agent.core.creation import Creation, OverrideEntry, SavedCreation
from exlab_watch_agent.core.gate import Finding
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.manifest import Comparison
from exlab_watch_agent.core.passes import LocalSide, Pass
from exlab_watch_agent.core.reconcile import Differences
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.core.snapshot import FolderProblem
from exlab_watch_agent.errors import NAS_UNREACHABLE, FailureKind, Wait

# --- of a run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inspected:
    """The run folder was looked at. Findings carry no override marks yet: that depends on the time of the decision.

    `destination` is set when the look was made to start a push: the NAS answered and the folder was looked at; `holder` says
    in words who claims it, `claimed_manifest` and `claimed_job` what its claim says was proven and by whom, `anchor` at which
    line of our trail it was sealed, `holding` who has it and as what (DestinationLook.holding), `detail` what it holds where more
    is known. `is_unsignalled`: the signal of a run that is not complete is not there, so nothing else was looked at. `sign_fault`:
    why the sign of life of the agent that holds the copy may be none, in a sentence, else empty.
    """

    creation: Creation
    completeness: Completeness
    findings: tuple[Finding, ...]
    fingerprint: str
    files_total: int
    bytes_total: int
    destination: DestinationStanding | None = None
    destination_path: str = ""
    is_unsignalled: bool = False
    holder: str = ""
    anchor: TrailPosition | None = None
    claimed_manifest: str = ""
    claimed_job: str = ""
    holding: str = ""
    detail: str = ""
    sign_fault: str = ""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The transport says that every listed file is at the destination."""

    turn: int


@dataclass(frozen=True, slots=True)
class PrecheckPassed:
    """Nothing cheap speaks against the copy."""

    turn: int


@dataclass(frozen=True, slots=True)
class CopyWrong:
    """The precheck found the copy partial or wrong. Nothing was touched: the next push moves aside what is wrong."""

    turn: int
    message: str


@dataclass(frozen=True, slots=True)
class Verified:
    """Every data file was hashed on both sides. Nothing was touched: the next push moves aside what is wrong.

    Where both sides are not equal, the comparison is all that it says: `manifest_digest` is empty then, but where the local data
    are what a copy that is to be adopted was sealed with. `declared_mismatches`: paths whose hash differs from the one that the
    instrument's own manifest gave. `overrides`: as they were in `creation.json` when the hashing ended. `skipped_oversize`: files
    whose hash at the destination was not taken because of `verify.max_stream_bytes`. `seal_fault`: the run was sealed, and this is
    wrong with the seal of its copy; empty where nothing is. `anchor`: the line of our trail at which it was sealed, as its claim
    says. `is_by_manifest`: there was a manifest to compare both sides with. `others_manifest`: what a manifest of ExLab-Wizard's
    says of the difference, as the end of a sentence. `proof`: what is kept of it where both sides are equal and nothing was left
    out, else None. `below`: what the first folder on the way to the copy lies on, None where that cannot be told. `local`: what
    the destination was compared with; where that was the manifest alone, all local files count as missing, so that nobody takes it
    for a proof of both sides. `chosen_by`, `reason`: as in Verify; `is_folder_here`: of what is left of the run then, its folder
    is here.
    """

    turn: int
    comparison: Comparison
    manifest_digest: str
    fingerprint: str
    files_total: int
    bytes_total: int
    declared_mismatches: tuple[str, ...] = ()
    overrides: tuple[OverrideEntry, ...] = ()
    skipped_oversize: tuple[str, ...] = ()
    seal_fault: str = ""
    anchor: TrailPosition | None = None
    proof: Pass | None = None
    is_by_manifest: bool = False
    below: Below | None = None
    others_manifest: str = ""
    local: LocalSide = LocalSide.READ
    chosen_by: str = ""
    reason: str = ""
    is_folder_here: bool = False


@dataclass(frozen=True, slots=True)
class Sealed:
    """Manifest and `creation.json` were read back from the NAS as they are here.

    `saved`: which local `creation.json` the seal changed into which. `cache_form`, `cache_signature`: as in CacheCarried.
    """

    turn: int
    saved: SavedCreation | None = None
    cache_form: str = ""
    cache_signature: int = 0


@dataclass(frozen=True, slots=True)
class RunChanged:
    """The run is not what was judged complete. `is_missing_there`: it is whole here, and its copy is not any more.

    `is_unproven`: as far as is known neither has changed, but the proof is none to seal by.
    `stayed`: of a sealed run that changed while it was hashed, how all else compares with its manifest and its copy: what a file
    that moved is now counts as what was sealed, and proves nothing. `moving`: the paths of those files. `seal_fault`: as in
    Verified.
    """

    turn: int
    message: str
    is_missing_there: bool = False
    is_unproven: bool = False
    stayed: Comparison | None = None
    moving: tuple[str, ...] = ()
    fingerprint: str = ""
    seal_fault: str = ""


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """An effect could not come to its end.

    `is_destination_away`: the destination did not answer a probe afterwards, or is full, so no attempt is consumed.
    `wait`: what that wait for the destination is called. `needs_bytes`: of one that is full, how much room is needed at least.
    `is_source_away`: the run folder was not there, moved away or with its whole root; no attempt is consumed either.
    `fingerprint` is set when a local file vanished: what is left, so that the vanishing itself counts as no new change.
    `is_copy_unreadable`: a verify could not read the copy as a whole while the destination answered; the cause is there.
    `conflict`: the destination is claimed by others, and this is the kind of conflict; `holding`: by whom (as in
    DestinationLook; empty where that is not known).
    """

    turn: int
    kind: FailureKind
    message: str
    detail: str = ""
    is_destination_away: bool = False
    is_source_away: bool = False
    fingerprint: str = ""
    wait: Wait = NAS_UNREACHABLE
    needs_bytes: int = 0
    is_copy_unreadable: bool = False
    conflict: str = ""
    holding: str = ""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """An operator asks for another try."""

    operator: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """An operator does not want the run to go on until somebody asks for another try."""

    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class LocalChosen:
    """An operator says that the local data win over the NAS copy."""

    operator: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """An operator says that what others have at the run's destination is to make room: nothing of it is destroyed."""

    operator: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AuditDue:
    """It is time for another pass, or an operator asked for one."""

    operator: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunVanished:
    """The run folder is gone: two scans say so, of a root that is there, is ours and was listed whole, and no folder that is new
    or cannot be read may be this one under another name."""


@dataclass(frozen=True, slots=True)
class DestinationReplaced:
    """The copies are at another place now: an operator said so, or (empty) it counts as one. `has_data`: the run's are here."""

    operator: str
    reason: str
    has_data: bool = True


Outcome = Pushed | PrecheckPassed | CopyWrong | Verified | Sealed | RunChanged | EffectFailed
Event = (
    Inspected
    | Outcome
    | RetryRequested
    | CancelRequested
    | LocalChosen
    | TakenOver
    | AuditDue
    | RunVanished
    | DestinationReplaced
)


# --- of the other effects -----------------------------------------------------------------------------------------------


class UnseenCode(StrEnum):
    """Why a look could not be finished.

    `root`: the equipment's folder is not there or not the one that was scanned; `missing`: no run folder or no
    creation.json; `creation`: it cannot be used (message, line and column in the text); `level`: it is not a run's;
    `unreadable`: a part of the run cannot be listed or read; `destination`: the NAS cannot be used.
    """

    ROOT = "root"
    MISSING = "missing"
    CREATION = "creation"
    LEVEL = "level"
    UNREADABLE = "unreadable"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found. `marker_id` is set when the destination was asked, and `below` by what its first folder lies on."""

    creation: Creation
    signature: FileSignature
    inspected: Inspected
    marker_id: str | None = None
    below: Below | None = None


@dataclass(frozen=True, slots=True)
class NothingNew:
    """The `creation.json` is the one that the agent wrote last."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """The look could not be finished: a wait, never a failure.

    `signature` is that of a file of another level; `creation` is the file of a run that cannot be read whole, where that
    could be read; `wait` names the wait for the NAS. `called`, `detail`: what an unusable `creation.json` is called, and what a
    program may want to know beside that.
    """

    code: UnseenCode
    message: str
    creation: Creation | None = None
    signature: FileSignature | None = None
    wait: Wait = NAS_UNREACHABLE
    called: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)

    def folder_problem(self) -> FolderProblem:
        """Return what is to be told of the folder."""
        return FolderProblem(self.message, self.called or "creation_json", self.detail)


Inspection = Seen | NothingNew | Unseen


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Whether a run is still in each of the folders that were asked for (path → so), and in the new one, asked last."""

    are_there: Mapping[str, bool]
    is_new_there: bool


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan found of the root with the identity `volume`.

    `gone`: known paths at which nothing is. `signalled`: runs whose signal has come. `free_bytes`: on the disk of the root, None
    where that cannot be told. `misplaced`: what is to be told of what stands where no run can be, by folder; None where that was
    not searched for.
    """

    volume: str
    found: Differences
    gone: tuple[str, ...] = ()
    signalled: tuple[str, ...] = ()
    free_bytes: int | None = None
    misplaced: Mapping[str, FolderProblem] | None = None


@dataclass(frozen=True, slots=True)
class ScanFailed:
    """Why nothing is concluded from a scan, in one sentence with the next step."""

    message: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The destination answered; `marker_id` is that of its root's marker. `is_put_back`: which was gone, and was placed again.

    `free_bytes`: there, where that was asked for and can be told.
    """

    marker_id: str
    is_put_back: bool = False
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Unreached:
    """The destination cannot be used, why, and what that wait is called."""

    message: str
    wait: Wait = NAS_UNREACHABLE


@dataclass(frozen=True, slots=True)
class BindingRefused:
    """The destination root could not be bound, in one sentence."""

    message: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """The root with this marker may take the place of the bound one.

    `without_data`: job ids of proven runs of which nothing is left here; `lost`: those of them whose copies are not there either.
    """

    marker_id: str
    without_data: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StatusWritten:
    """`creation.json` says what the state says."""

    saved: SavedCreation


@dataclass(frozen=True, slots=True)
class StatusUnwritten:
    """`creation.json` could not be changed, in one sentence."""

    message: str


@dataclass(frozen=True, slots=True)
class CacheCarried:
    """A run's cache folder is at the NAS in this form. `signature`: how it looked here (RunTree.cache_signature). `paths`: what had
    to be brought, logs apart."""

    form: str
    signature: int
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheStays:
    """A run's cache folder could not be brought now, in one sentence. `is_refused`: the NAS answers, and does not take it."""

    message: str
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class HeartbeatPlaced:
    """The sign of life is on the NAS, or could not be placed there although the NAS may still be read: `problem`.

    `anchor`: the line of our trail that the one before told, None where there was none of ours."""

    problem: str = ""
    anchor: TrailPosition | None = None


Result = (
    Outcome
    | Inspection
    | Whereabouts
    | Scanned
    | ScanFailed
    | Answered
    | Unreached
    | BindingRefused
    | Replaced
    | StatusWritten
    | StatusUnwritten
    | CacheCarried
    | CacheStays
    | HeartbeatPlaced
)
