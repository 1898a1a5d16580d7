"""What a lane's destination is to it: never asked, answering, or away; and what leads from one to the other.

    Unasked ──answered──▶ Answering ◀──answered── Away
        └──lost, unanswered──▶ Away ◀──lost, unanswered── Answering

While it is away nothing of the lane that needs it is started, and no attempt is counted; it is asked again after 5 s, and after
each question without an answer twice as late, up to five minutes. One that answers is asked again after five minutes (pace.py).
One that is full is away for what writes there, and for nothing else. That it answers again may not help: where a quota is used
up it says that there is room. So what met a full one again, before anything got through, waits twice as long as the last time.
Not here: how it is asked (acts/probe.py), and which root is taken for the destination (binding.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from exlab_watch_agent.core.pace import PACE, Pace
from exlab_watch_agent.errors import DESTINATION_FULL, Wait

ASKED_FULLY_FOR_S = 10.0
"""For this long, a destination that kept and gave back a few bytes need not do so again."""


@dataclass(frozen=True, slots=True)
class Unasked:
    """Nothing has asked it yet."""


@dataclass(frozen=True, slots=True)
class Answering:
    """It answered when it was last asked. `asked_fully_s`: when (monotonic) it last kept and gave back a few bytes.

    `full_wait_s`: for how long one that was full was last waited for; 0 once something was pushed there.
    """

    asked_fully_s: float | None = None
    full_wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Away:
    """It cannot be used: since when, why in words, what that wait is called; it is asked again every `probe_wait_s`.

    `needs_bytes`: of one that is full, how much room is needed at least, as far as known, and `needed_by` for which job.
    """

    since: datetime
    reason: str
    wait: Wait
    probe_wait_s: float = PACE.probe_first_s
    needs_bytes: int = 0
    needed_by: str = ""

    @property
    def is_full(self) -> bool:
        return self.wait == DESTINATION_FULL


Link = Unasked | Answering | Away


@dataclass(frozen=True, slots=True)
class LinkLost:
    """Work met that the destination cannot be used, or it was silent for too long. `needs_bytes`, `needed_by`: as in `Away`."""

    at: datetime
    reason: str
    wait: Wait
    needs_bytes: int = 0
    needed_by: str = ""


@dataclass(frozen=True, slots=True)
class ProbeUnanswered:
    """The destination was asked, and cannot be used."""

    at: datetime
    reason: str
    wait: Wait


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The destination answered a probe; `asked_fully_s` is set when it also kept and gave back a few bytes."""

    asked_fully_s: float | None = None


@dataclass(frozen=True, slots=True)
class AdmissionAnswered:
    """The destination answered the look before a push. Only a probe ends a wait: other work was just refused there."""

    asked_fully_s: float | None = None


@dataclass(frozen=True, slots=True)
class PushArrived:
    """All files of a run have arrived at the destination."""


LinkEvent = LinkLost | ProbeUnanswered | ProbeAnswered | AdmissionAnswered | PushArrived


@dataclass(frozen=True, slots=True)
class LinkStep:
    """What the link is now, and in how many seconds it is to be probed; None leaves a probe that is planned as it is."""

    link: Link
    probe_in_s: float | None = None


def decide_link(link: Link, event: LinkEvent, pace: Pace = PACE) -> LinkStep:
    """Return what follows from what was met at the destination."""
    match event:
        case LinkLost():
            return _after_loss(link, event, pace)
        case ProbeUnanswered():
            before_s = link.probe_wait_s if isinstance(link, Away) else pace.probe_first_s
            wait_s = min(pace.probe_max_s, before_s * 2)
            is_full = event.wait == DESTINATION_FULL
            if not isinstance(link, Away) or link.is_full is not is_full:
                return LinkStep(Away(event.at, event.reason, event.wait, wait_s), wait_s)
            return LinkStep(replace(link, reason=event.reason, wait=event.wait, probe_wait_s=wait_s), wait_s)
        case ProbeAnswered():
            return LinkStep(_answering(link, event.asked_fully_s), pace.probe_idle_s)
        case AdmissionAnswered():
            if isinstance(link, Away):
                return LinkStep(link)
            return LinkStep(_answering(link, event.asked_fully_s), pace.probe_idle_s)
        case PushArrived():
            return LinkStep(replace(link, full_wait_s=0.0) if isinstance(link, Answering) else link)
        case _:
            assert_never(event)


def _after_loss(link: Link, event: LinkLost, pace: Pace) -> LinkStep:
    is_full = event.wait == DESTINATION_FULL
    if isinstance(link, Away):
        if is_full and not link.is_full:  # work that was under way knows less than who asked last
            return LinkStep(link)
        if is_full is link.is_full:
            told = replace(link, reason=event.reason, wait=event.wait)
            return LinkStep(replace(told, needs_bytes=event.needs_bytes, needed_by=event.needed_by))
    wait_s = pace.probe_first_s
    if is_full and isinstance(link, Answering) and link.full_wait_s:
        wait_s = min(pace.probe_max_s, link.full_wait_s * 2)
    away = Away(event.at, event.reason, event.wait, wait_s, event.needs_bytes, event.needed_by)
    return LinkStep(away, wait_s)


def _answering(link: Link, asked_fully_s: float | None) -> Answering:
    match link:
        case Answering():
            return replace(link, asked_fully_s=link.asked_fully_s if asked_fully_s is None else asked_fully_s)
        case Away() if link.is_full:
            return Answering(asked_fully_s, link.probe_wait_s)
        case _:
            return Answering(asked_fully_s)


def must_ask_fully(link: Link, *, now_s: float) -> bool:
    """Return whether the destination must show before a push that it keeps what is written, or did so a moment ago."""
    if not isinstance(link, Answering) or link.asked_fully_s is None:
        return True
    return now_s - link.asked_fully_s >= ASKED_FULLY_FOR_S
