"""What a picture shows on top of the chart: how many runs are where, or the way that one run took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePath

from exlab_watch_agent.core.record import Move
from exlab_watch_agent.core.text import age, counted, printable, utc_text
from exlab_watch_agent.statechart import Chart, RowKey, RunState, Trigger


@dataclass(frozen=True, slots=True)
class Step:
    """One move of a run, in words. `number`: of the row, empty where today's chart has no such row.

    `stayed`: how long the run was in the state before.
    """

    number: str
    at: str
    stayed: str
    move: str
    trigger: str
    reason: str
    operator: str


@dataclass(frozen=True)
class Overlay:
    """Notes beside states and rows. `subject`: what the picture is about, for its title; `detail`: the same in full.

    `states`: a short note a state, `3 runs`. `rows`: a short note a row, `2×`. `is_way`: only what has a note belongs to the
    way, and all else is drawn pale. `steps`: the way in full. `now`: the state in which the run is.
    """

    subject: str = ""
    detail: str = ""
    states: Mapping[RunState, str] = field(default_factory=dict)
    rows: Mapping[RowKey, str] = field(default_factory=dict)
    is_way: bool = False
    steps: tuple[Step, ...] = ()
    now: RunState | None = None


NOTHING = Overlay()


def promise_letter(index: int) -> str:
    """Return the letter of a promise, by its place among them."""
    return chr(ord("A") + index)


def counts_overlay(states: Sequence[RunState]) -> Overlay:
    """Return how many runs are in each state. `states`: of the runs, one each."""
    found = Counter(states)
    notes = {state: counted(count, "run") for state, count in found.items()}
    return Overlay(subject=f"{counted(len(states), 'run')}, and where they are", states=notes)


def way_overlay(chart: Chart, run_path: str, moves: Sequence[Move], now: datetime) -> Overlay:
    """Return one run's way: how often each row was taken, how often and how long the run was in each state, and each step.

    A run may be older than today's chart: a move that the chart does not have is a step without a number and without an arrow.
    """
    numbers = {(row.source, row.trigger, row.dest): number for number, row in enumerate(chart.rows, start=1)}
    taken: Counter[RowKey] = Counter()
    visits: Counter[RunState] = Counter()
    stays: dict[RunState, timedelta] = {}
    steps: list[Step] = []
    for index, move in enumerate(moves):
        begun = moves[index - 1].at if index else None
        left = moves[index + 1].at if index + 1 < len(moves) else now
        visits[move.dest] += 1
        stays[move.dest] = stays.get(move.dest, timedelta()) + (left - move.at)
        number = None
        if move.source is not None and move.trigger in set(Trigger):
            number = numbers.get((move.source, Trigger(move.trigger), move.dest))
            if number is not None:
                taken[move.source, Trigger(move.trigger)] += 1
        steps.append(
            Step(
                number=str(number or ""),
                at=utc_text(move.at),
                stayed=_took(move.at - begun) if begun is not None else "",
                move=f"{move.source or 'new'} → {move.dest}",
                trigger=printable(move.trigger),
                reason=printable(move.reason),
                operator=printable(move.operator or ""),
            )
        )
    return Overlay(
        subject=f"The way of {printable(PurePath(run_path).name)}",
        detail=printable(run_path),
        states={state: f"{count}×, {_took(stays[state])}" for state, count in visits.items()},
        rows={key: f"{count}×" for key, count in taken.items()},
        is_way=True,
        steps=tuple(steps),
        now=moves[-1].dest if moves else None,
    )


def _took(span: timedelta) -> str:
    """Return how long something took: below a second to the hundredth, which is how long many a step takes."""
    seconds = span.total_seconds()
    return f"{max(seconds, 0.0):.2f} s" if seconds < 1 else age(seconds)
