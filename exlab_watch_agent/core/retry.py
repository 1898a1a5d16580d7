"""Failure kind and attempts → put back or give up; and how long a wait still is after a restart.

Decided here: whether a run that failed is tried again by itself, and when. Not here: what a failure's kind is (the
transports), and that a destination which does not answer at all consumes no attempt (the engine never asks us then).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from exlab_watch_agent.errors import FailureKind

# Time heals these: the network comes back, space is made, and the unknown deserves the benefit of the doubt.
_WAITS_FOR_BETTER_TIMES = frozenset({FailureKind.NETWORK, FailureKind.UNKNOWN, FailureKind.DESTINATION_FULL})

# Trying again cannot heal these, a person must act.
_NEEDS_A_PERSON = {
    FailureKind.AUTH: "the NAS refused the login, and trying again would not change that",
    FailureKind.LOCAL_FILE_VANISHED: "a local file vanished, and trying again would not bring it back",
    FailureKind.BINARY_MISSING: "a program that the transport needs is missing",
}

_MISMATCHES_MAX = 2


@dataclass(frozen=True, slots=True)
class PutBack:
    """The run goes back into the queue and is due after `wait_s` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The run has failed and waits for an operator. `reason` is a clause without a full stop."""

    reason: str


def after_failure(
    kind: FailureKind, *, attempts: int, mismatches: int, schedule_s: tuple[float, ...]
) -> PutBack | GiveUp:
    """Return what follows from a failure.

    `attempts` counts the failures since the run was last armed and `mismatches` the unequal verifies among them, both
    with this one included. `schedule_s` has n waits in seconds; the n-th failure is the last, so that the default of
    five waits gives up at the fifth failure.
    """
    if kind in _NEEDS_A_PERSON:
        return GiveUp(_NEEDS_A_PERSON[kind])
    if kind is FailureKind.HASH_MISMATCH:
        if mismatches < _MISMATCHES_MAX:
            return PutBack(0)
        return GiveUp("the NAS copy still differs after it was pushed once more")
    assert kind in _WAITS_FOR_BETTER_TIMES, f"no rule for {kind}"
    assert attempts >= 1, "a failure counts itself"
    if attempts >= len(schedule_s):
        return GiveUp(f"{attempts} attempts failed" if attempts > 1 else "the only attempt allowed failed")
    return PutBack(schedule_s[attempts - 1])


def remaining_wait_s(*, due_at: datetime, wait_s: float, now: datetime) -> float:
    """Return the seconds from `now` until `due_at`, never negative and never more than `wait_s`.

    `wait_s` is the wait that was ordered when `due_at` was set: a clock that was set back by a year in between must not
    make a run wait for a year.
    """
    return min(max((due_at - now).total_seconds(), 0.0), max(wait_s, 0.0))
