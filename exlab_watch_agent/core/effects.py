"""What is to be done next, in the imperative: plain values that a handler carries out.

A working state owns exactly one effect; start-up issues it again, so every effect is safe to repeat.
"""

from __future__ import annotations

from dataclasses import dataclass

from exlab_watch_agent.core.claim import Claim


@dataclass(frozen=True, slots=True)
class Push:
    """Copy what is missing at the destination. `is_sealed`: a sealed copy of this run may stand there, and is ours."""

    job_id: str
    turn: int
    run_path: str
    equipment_id: str
    destination: str
    fingerprint: str
    claim: Claim
    is_sealed: bool = False


@dataclass(frozen=True, slots=True)
class Precheck:
    """Look for cheap evidence against the copy."""

    job_id: str
    turn: int
    run_path: str
    equipment_id: str
    destination: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Hash every data file on both sides and compare; `manifest_digest` is empty where there is no manifest yet."""

    job_id: str
    turn: int
    run_path: str
    equipment_id: str
    destination: str
    fingerprint: str
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class Seal:
    """Write manifest and final `creation.json` on both sides and read them back. `wait_s`: not before that long."""

    job_id: str
    turn: int
    run_path: str
    equipment_id: str
    destination: str
    fingerprint: str
    manifest_digest: str
    claim: Claim
    wait_s: float


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Make `sync_status` in `creation.json` say what the state says."""

    job_id: str
    run_path: str
    equipment_id: str
    sync_status: str


Effect = Push | Precheck | Verify | Seal | WriteStatus
WorkEffect = Push | Precheck | Verify | Seal
