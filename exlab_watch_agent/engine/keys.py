"""Of which key an effect is the only one that runs, which slot it takes, and what two that wait come down to. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import assert_never

from exlab_watch_agent.core.effects import (
    Admit,
    AskWhere,
    Bind,
    CarryCache,
    Effect,
    Inspect,
    PlaceHeartbeat,
    Precheck,
    Probe,
    Push,
    ReplaceDestination,
    Scan,
    Seal,
    Verify,
    WriteStatus,
)

Key = str
"""Kind of effect and what it is about, in one text: timers take the same."""


def work_key(job_id: str) -> Key:
    return f"work {job_id}"


def admit_key(job_id: str) -> Key:
    return f"admit {job_id}"


def cache_key(job_id: str) -> Key:
    return f"cache {job_id}"


def status_key(job_id: str) -> Key:
    return f"status {job_id}"


def key_of(effect: Effect) -> Key:
    """Return of which key this effect is the only one that runs."""
    match effect:
        case Push() | Precheck() | Verify() | Seal():
            return work_key(effect.job_id)
        case WriteStatus():
            return status_key(effect.job_id)
        case Inspect():
            return f"inspect {effect.place.run_path}"
        case Admit():
            return admit_key(effect.claim.job_id)
        case AskWhere():
            return where_key(effect.place.run_path)
        case Scan():
            return f"scan {effect.equipment_id}"
        case Probe():
            return f"probe {effect.equipment_id} {effect.serial}"
        case Bind():
            return f"bind {effect.equipment_id} {effect.serial}"
        case ReplaceDestination():
            return f"replace {effect.equipment_id}"
        case CarryCache():
            return cache_key(effect.job_id)
        case PlaceHeartbeat():
            return f"heartbeat {effect.equipment_id}"
        case _:
            assert_never(effect)


class Slot(StrEnum):
    """What there is a limited number of: pushes of a lane, audits, looks in the background, cache folders that are brought."""

    PUSH = "push"
    AUDIT = "audit"
    BACKGROUND = "background"
    CACHE = "cache"


def slot_of(effect: Effect) -> Slot | None:
    """Return which slot an effect takes while it runs."""
    match effect:
        case Admit() | Push():
            return Slot.PUSH
        case Verify() if effect.is_audit:
            return Slot.AUDIT
        case Inspect() if effect.is_background:
            return Slot.BACKGROUND
        case CarryCache():
            return Slot.CACHE
    return None


def where_key(run_path: str) -> Key:
    return f"where {run_path}"


def merged(waiting: Effect, newer: Effect) -> Effect:
    """Return the effect that does what both ask for; the newer one where they do not add up."""
    match waiting, newer:
        case Inspect(), Inspect():
            return replace(
                newer,
                is_about_creation=waiting.is_about_creation and newer.is_about_creation,
                is_background=waiting.is_background and newer.is_background,
            )
        case Scan(), Scan():
            return replace(newer, is_full=waiting.is_full or newer.is_full, is_deep=waiting.is_deep or newer.is_deep)
        case Probe(), Probe():
            return replace(newer, is_light=waiting.is_light and newer.is_light)
        case _:
            return newer
