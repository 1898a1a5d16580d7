"""A run's record: everything about a run that outlives the process. Frozen; every move makes a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.incidents import Incident, all_healed, all_replaced, with_incident
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.machine import advance
from exlab_watch_agent.core.passes import PASSES_KEPT_MAX, LocalSide, Pass
from exlab_watch_agent.core.places import Footing
from exlab_watch_agent.statechart import CHART, RunState, Trigger

CANCELLED = "cancelled"
"""The `kind` of the last error of a run that an operator has stopped."""


@dataclass(frozen=True, slots=True)
class LastError:
    """Why a run is not where it should be. `kind` is a FailureKind, a gate rule, a conflict's name or CANCELLED."""

    kind: str
    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SealTrouble:
    """That this run could not be sealed: since when, how often, and why the last time. `kind` is a FailureKind."""

    since: datetime
    times: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Move:
    """One line of a run's history. `source` is None for the first."""

    at: datetime
    trigger: str
    source: RunState | None
    dest: RunState
    reason: str
    operator: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. Times are aware UTC.

    `turn` counts moves; an outcome of an older turn is stale. `fingerprint` is that of the inventory last judged complete or last
    proven. `attempts` counts failures since the last success or operator's word, `mismatches` those in which the copy was wrong.
    `next_attempt_at` and `wait_s` say together when a backoff ends, also after the clock jumped. `manifest_digest` names the
    manifest that the verifier wrote; `sealed_at` is set by the first seal and cleared only by an operator. `verify_passes` counts
    passes since anything was last found different; `verified_at` is the latest, `verified_uptime_s` after the boot
    `verified_boot_id` (empty: not known). `passes` are the latest of them, the oldest first, as far as they were made since then
    by a version that kept them. `declared_mismatches` are files whose hash differs from the one that the instrument gave;
    `overrides_seen` counts the entries of `validation_overrides` that the audit trail knows of. `creation_signature` is that of
    the `creation.json` of a run that rests sealed, once nothing in it is left to be taken in; None: look at it at the next start.
    `adopts`: the manifest of another agent's sealed copy at the destination, and `adopts_from` the job in its claim, from when it
    is to be taken over until it is sealed as ours. Once the local data were found equal to that manifest, the run is a sealed one.
    `incidents`: the latest of what was proven wrong with its copy, the oldest first, healed or not. `destination` is empty until
    the run's place is decided, and `footing` says what it rests on. `takes_over`: who is to give way at the destination because an
    operator said so (as_last_seen of `held_by` until that was found there, then DestinationLook.holding), until the run is sealed
    there. `cache_form`: in which form the cache folder travelled last (core/cache_copy.py; empty: not known), and
    `cache_signature` how it looked then. `gone_at`: when two scans had said that the folder of this sealed run is gone, as long as
    nothing was proven of it here since; None: it is there, as far as is known. `held_by`: who held the destination when that was
    last seen (DestinationLook.holding; empty: not known). `interruptions`: how many audits in a row ended because files changed
    here meanwhile. `cache_stays`: why the NAS did not take what changed in the cache folder; empty: it did. `seal_trouble`: what
    keeps it from being sealed; None: nothing did.
    """

    job_id: str
    run_path: str
    equipment_id: str
    project: str
    run_kind: str
    identity: RunIdentity
    entered_at: datetime
    state: RunState = CHART.initial
    turn: int = 0
    discovered_at: datetime | None = None
    enqueued_at: datetime | None = None
    destination: str = ""
    fingerprint: str = ""
    files_total: int = 0
    bytes_total: int = 0
    attempts: int = 0
    mismatches: int = 0
    next_attempt_at: datetime | None = None
    wait_s: float = 0.0
    last_error: LastError | None = None
    manifest_digest: str = ""
    sealed_at: datetime | None = None
    verify_passes: int = 0
    verified_at: datetime | None = None
    declared_mismatches: tuple[str, ...] = ()
    overrides_seen: int = 0
    creation_signature: FileSignature | None = None
    verified_boot_id: str = ""
    verified_uptime_s: float = 0.0
    passes: tuple[Pass, ...] = ()
    adopts: str = ""
    adopts_from: str = ""
    takes_over: str = ""
    incidents: tuple[Incident, ...] = ()
    cache_form: str = ""
    cache_signature: int = 0
    footing: Footing = Footing.OWN
    gone_at: datetime | None = None
    held_by: str = ""
    interruptions: int = 0
    cache_stays: str = ""
    cache_stays_since: datetime | None = None
    seal_trouble: SealTrouble | None = None

    @property
    def has_place(self) -> bool:
        """Whether it is decided where at the NAS the copy is, or is to be."""
        return bool(self.destination) and self.footing in (Footing.OWN, Footing.SHOWN)

    @property
    def is_sealed(self) -> bool:
        return self.sealed_at is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether it rests because an operator stopped it: no change of its data, and no restart, has it go on."""
        return self.state is RunState.FAILED and self.last_error is not None and self.last_error.kind == CANCELLED

    @property
    def sealed_as(self) -> str:
        """The digest of the manifest that was sealed; empty where the run was not."""
        return self.manifest_digest if self.is_sealed else ""

    @property
    def sync_status(self) -> str:
        """What `creation.json` should say."""
        return CHART.sync_status(self.state)

    @property
    def is_working(self) -> bool:
        return self.state in CHART.working

    # --- what may change in it: one word a change --------------------------------------------------------------------

    def moved(self, trigger: Trigger, *, at: datetime) -> RunRecord:
        """Return the record one move on. Raises: IllegalTransition."""
        return replace(self, state=advance(self.state, trigger), turn=self.turn + 1, entered_at=at)

    def moved_to(self, run_path: str, project: str) -> RunRecord:
        """Return the record of a run whose folder is elsewhere now: what works at the old place is stale.

        A sealed copy keeps its place; before that, the place is decided by where the run is.
        """
        moved = replace(self, run_path=run_path, project=project, turn=self.turn + 1)
        if self.is_sealed:
            return moved
        if not self.is_working:
            return moved.at_place("")
        # What ExLab-Wizard left is proven by what it holds, wherever the run is here.
        is_own = self.footing is Footing.OWN
        return moved.at_place(self.destination, Footing.OPEN if is_own else self.footing)

    def at_place(self, destination: str, footing: Footing = Footing.OWN) -> RunRecord:
        """Return the record of a run whose place at the NAS is this one; empty for one that is yet to be decided."""
        return replace(self, destination=destination, footing=footing)

    def without_doubtful_place(self) -> RunRecord:
        """Return the record without a place that does not rest on a claim of ours: it is looked for anew."""
        return self if self.footing is Footing.OWN else self.at_place("")

    def without_wait(self) -> RunRecord:
        return replace(self, next_attempt_at=None, wait_s=0.0)

    def waiting(self, wait_s: float, *, now: datetime) -> RunRecord:
        """Return the record with a backoff of `wait_s` seconds from `now` on; 0 means none."""
        return replace(self, wait_s=wait_s, next_attempt_at=now + timedelta(seconds=wait_s) if wait_s else None)

    def with_error(self, error: LastError) -> RunRecord:
        return replace(self, last_error=error)

    def failed(self, error: LastError, *, is_mismatch: bool = False) -> RunRecord:
        """Return the record with one failure more; one in which the copy was wrong voids the passes."""
        if is_mismatch:
            return replace(
                self, attempts=self.attempts + 1, mismatches=self.mismatches + 1, last_error=error
            ).with_passes_void()
        return replace(self, attempts=self.attempts + 1, last_error=error)

    def cleared(self, *, of_mismatches: bool = True) -> RunRecord:
        """Return the record as one without failures behind it and without a wait.

        Until it is sealed, a run whose copy was wrong remembers that: what is wrong then again is not pushed over and over.
        """
        mismatches = 0 if of_mismatches else self.mismatches
        return replace(
            self, attempts=0, mismatches=mismatches, last_error=None, next_attempt_at=None, wait_s=0.0, interruptions=0
        )

    def with_seal_failed(self, error: LastError, *, at: datetime) -> RunRecord:
        """Return the record after one more seal that failed; that outlives a proof made anew for the next."""
        before = self.seal_trouble or SealTrouble(at, 0, error.kind, error.message)
        trouble = SealTrouble(before.since, before.times + 1, error.kind, error.message)
        return replace(self, seal_trouble=trouble)

    def afresh(self) -> RunRecord:
        """Return the record of a run that must be complete and quiet again: it has other data, of which nothing is proven."""
        anew = replace(self, fingerprint="", declared_mismatches=(), adopts="", adopts_from="", manifest_digest="")
        anew = replace(anew, seal_trouble=None)
        nothing_proven = replace(anew, verified_at=None, verified_boot_id="", verified_uptime_s=0.0)
        return nothing_proven.without_doubtful_place().with_passes_void().cleared()

    def with_data(self, fingerprint: str, *, files_total: int, bytes_total: int) -> RunRecord:
        """Return the record with what its folder held when it was judged complete or proven."""
        return replace(self, fingerprint=fingerprint, files_total=files_total, bytes_total=bytes_total)

    def with_pass(self, proof: Pass, *, is_one_more: bool) -> RunRecord:
        """Return the record after a proof. `is_one_more`: it is apart from the last one and counts beside it."""
        return replace(
            self,
            verify_passes=self.verify_passes + (1 if is_one_more else 0),
            verified_at=proof.ended_at,
            verified_boot_id=proof.boot_id,
            verified_uptime_s=proof.monotonic_s,
            manifest_digest=proof.manifest_sha256,
            passes=(*self.passes, proof)[-PASSES_KEPT_MAX:],
            gone_at=None if proof.local is LocalSide.READ else self.gone_at,
        )

    def adopted(self, manifest_digest: str, *, at: datetime) -> RunRecord:
        """Return the record of a run whose local data are what another agent's copy was sealed with: from now on it is sealed."""
        return replace(self, sealed_at=at, manifest_digest=manifest_digest)

    def with_cache_staying(self, message: str, *, at: datetime) -> RunRecord:
        """Return the record after the cache folder could not be brought, and why; empty: nothing kept it."""
        since = (self.cache_stays_since or at) if message else None
        return replace(self, cache_stays=message, cache_stays_since=since)

    def with_passes_void(self) -> RunRecord:
        return replace(self, verify_passes=0, passes=())

    def with_local_gone(self, at: datetime) -> RunRecord:
        return replace(self, gone_at=at)

    def returned(self, at: datetime) -> RunRecord:
        """Return the record of a removed run of which there are data again: whatever they are, they are proven anew."""
        return replace(self, fingerprint="", gone_at=self.gone_at or at).with_passes_void().cleared()

    def elsewhere(self) -> RunRecord:
        """Return the record once its destination counts as another place than before: what was proven there and brought there, and
        whom an operator had make room, says nothing of the new one."""
        return replace(self.with_passes_void(), takes_over="", held_by="", cache_form="", cache_signature=0)

    def with_incident(self, found: Incident) -> RunRecord:
        return replace(self, incidents=with_incident(self.incidents, found))

    def healed(self, *, at: datetime) -> RunRecord:
        """Return the record once the copy is what the latest pass proved, and its seal says so."""
        by = self.passes[-1].id if self.passes else ""
        return replace(self, incidents=all_healed(self.incidents, at=at, by=by))

    def unsealed(self, *, by: str) -> RunRecord:
        """Return the record as before the first seal: the operator `by` gave up what was proven."""
        return replace(
            self.without_doubtful_place(),
            takes_over="",
            seal_trouble=None,
            incidents=all_replaced(self.incidents, by=by),
            sealed_at=None,
            gone_at=None,
            manifest_digest="",
            verify_passes=0,
            passes=(),
            adopts="",
            adopts_from="",
            verified_at=None,
            verified_boot_id="",
            verified_uptime_s=0.0,
        )
