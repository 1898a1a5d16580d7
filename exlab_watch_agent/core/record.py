"""A run's record: everything about a run that outlives the process. Frozen; every move makes a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.machine import advance
from exlab_watch_agent.statechart import CHART, RunState, Trigger


@dataclass(frozen=True, slots=True)
class LastError:
    """Why a run is not where it should be. `kind` is a FailureKind, a gate rule or a conflict's name."""

    kind: str
    message: str
    detail: str = ""


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

    `turn` counts moves; an outcome of an older turn is stale. `fingerprint` is that of the inventory last judged
    complete or last proven. `attempts` counts failures since the last success or operator's word, `mismatches` those in
    which the copy was wrong. `next_attempt_at` and `wait_s` say together when a backoff ends, also after the clock
    jumped. `manifest_digest` names the manifest that the verifier wrote; `sealed_at` is set by the first seal and
    cleared only by an operator. `verify_passes` counts passes since anything was last found different; `verified_at` is
    the latest, `verified_uptime_s` after the boot `verified_boot_id` (empty: not known). `declared_mismatches` are files
    whose hash differs from the one that the instrument gave; `overrides_seen` counts the entries of
    `validation_overrides` that the audit trail knows of. `creation_signature` is that of the `creation.json` of a run
    that rests sealed, once nothing in it is left to be taken in; None: look at it at the next start.
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
    creation_signature: tuple[int, int, int] | None = None
    verified_boot_id: str = ""
    verified_uptime_s: float = 0.0

    @property
    def is_sealed(self) -> bool:
        return self.sealed_at is not None

    @property
    def sync_status(self) -> str:
        """What `creation.json` should say."""
        return CHART.sync_status(self.state)

    @property
    def is_working(self) -> bool:
        return self.state in CHART.working

    def moved(self, trigger: Trigger, *, at: datetime, **changes: Any) -> RunRecord:
        """Return the record one move on. Raises: IllegalTransition."""
        state = advance(self.state, trigger)
        return replace(self, state=state, turn=self.turn + 1, entered_at=at, **changes)
