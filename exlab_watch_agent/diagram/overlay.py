"""What a picture shows on top of the chart: how many runs are where, or the way that one run took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exlab_watch_agent.statechart import RowKey, RunState


@dataclass(frozen=True, slots=True)
class Step:
    """One move of a run, in words. `number`: of the row, empty where today's chart has no such row."""

    number: str
    at: str
    stayed: str
    move: str
    trigger: str
    reason: str


@dataclass(frozen=True)
class Overlay:
    """Notes beside states and rows. `subject`: what the picture is about, for its title.

    `states`: a short note a state, `3 runs`. `rows`: a short note a row, `2×`. `is_way`: only what has a note belongs to the
    way, and all else is drawn pale. `steps`: the way in full, a line each. `now`: the state in which the run is.
    """

    subject: str = ""
    states: Mapping[RunState, str] = field(default_factory=dict)
    rows: Mapping[RowKey, str] = field(default_factory=dict)
    is_way: bool = False
    steps: tuple[Step, ...] = ()
    now: RunState | None = None


NOTHING = Overlay()
