"""How it is with the agent at the moment of a judgement: it works, it hangs, it is gone, it never ran, or it is just ending.

Decided here: from when on an agent that holds its state folder counts as hanging. Not here: what is told of that (attention.py),
and where it is read from (app/site.py). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

HANGS_AFTER = timedelta(minutes=2)
"""The loop comes by at least once a second; after so long without a pass it does not move."""


@dataclass(frozen=True, slots=True)
class Working:
    """Its loop comes by."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """It holds the state folder, and its loop last came by at `moved_at`."""

    moved_at: datetime
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """No agent runs. `since`: when the last one gave its last sign of life; `is_in_order`: it was stopped, and not killed."""

    since: datetime | None
    is_in_order: bool


@dataclass(frozen=True, slots=True)
class NeverRan:
    """None has worked with this state folder yet."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The agent that asks has come to rest and ends as it was told to: of itself it has nothing to say."""


Standing = Working | Hanging | Gone | NeverRan | Ending


@dataclass(frozen=True, slots=True)
class Moment:
    """When it is judged. `is_ended`: no agent is running then, or goes on after it; `goes_on`: one runs, and moves."""

    now: datetime
    is_ended: bool
    is_hanging: bool = False

    @property
    def goes_on(self) -> bool:
        return not (self.is_ended or self.is_hanging)


def moment_of(agent: Standing, now: datetime) -> Moment:
    """Return the moment at which an agent of this standing is judged."""
    return Moment(now, is_ended=isinstance(agent, Gone | NeverRan | Ending), is_hanging=isinstance(agent, Hanging))


def standing_of_holder(moved_at: datetime | None, *, now: datetime, pid: int | None) -> Working | Hanging:
    """Return how it is with an agent that holds its state folder.

    `moved_at`: when its loop last came by, None where it does not say.
    """
    if moved_at is not None and now - moved_at > HANGS_AFTER:
        return Hanging(moved_at, pid)
    return Working()
