"""What an equipment's folder on this PC, its *root*, may be to a lane, and what a scan makes of it.

    Unasked ──found──▶ Ours ◀──found── Doubted
        └─────doubted──────▶ Doubted ◀──doubted── Ours

Only a scan leads from one to the other: nothing in a root is looked at, touched or concluded until one has found that it
is ours. Not here: by what a scan knows that (reconcile.py), and what else is done at the change (engine/reconciling.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from exlab_watch_agent.core.pace import PACE, Pace


@dataclass(frozen=True, slots=True)
class Unasked:
    """No scan has ended yet."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The last scan found the runs' folder, with this identity, and it is held against agents of other state folders."""

    volume: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """The last scan did not find it to be ours: why, in one sentence with the next step; the next scan is in `wait_s`.

    `volume`: its identity when it last was, None where it never was.
    """

    reason: str
    wait_s: float
    volume: str | None = None


Root = Unasked | Ours | Doubted


@dataclass(frozen=True, slots=True)
class RootFound:
    """A scan found that the root is ours."""

    volume: str


@dataclass(frozen=True, slots=True)
class RootInDoubt:
    """A scan found no root, or not ours, or could not look at it."""

    reason: str


def after_scan(root: Root, event: RootFound | RootInDoubt, pace: Pace = PACE) -> Root:
    """Return what the root is after a scan. Doubt that lasts is looked into after 5 s, then after twice as long, up to 60 s."""
    match event:
        case RootFound():
            return Ours(event.volume)
        case RootInDoubt():
            wait_s = min(pace.doubt_max_s, root.wait_s * 2) if isinstance(root, Doubted) else pace.doubt_first_s
            return Doubted(event.reason, wait_s, volume_of(root))
        case _:
            assert_never(event)


def volume_of(root: Root) -> str | None:
    """Return the identity that the root had when it was last found to be ours; work under way there is held to it."""
    return None if isinstance(root, Unasked) else root.volume
