"""What is around the picture: the rows in words, a run's steps, the promises, the key to the shapes, the title block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from exlab_watch_agent.core.text import printable
from exlab_watch_agent.diagram.measure import shortened, width, wrapped
from exlab_watch_agent.diagram.overlay import Overlay, Step, promise_letter
from exlab_watch_agent.diagram.shapes import Anchor, Area, Drawn, Ink, Line, Outline, Shape, Stroke, Text
from exlab_watch_agent.statechart import Chart

COLUMNS = 3  # of a table beside each other, as `split` makes them
COLUMN_GAP = 7.0
LINE_HEIGHT = 1.27  # of the size
KEY_STEP = 1.48  # of the size, from one line of the key to the next
RULE_GAP = 0.3  # of a line, between a rule and what is above it


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of a table. `cells`: a text a column. `is_first`: a rule is drawn above it, and it says what it is about."""

    cells: tuple[str, ...]
    bold: tuple[bool, ...]
    is_first: bool
    ink: Ink = Ink.BLACK


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table: their heads, and where each begins, in mm from its left edge."""

    heads: tuple[str, ...]
    starts: tuple[float, ...]
    width: float


def row_columns(chart: Chart, size: float, total: float) -> Columns:
    """Return columns for number, from, trigger, to and why, as narrow as their texts allow."""
    names = max(width(state, size, is_bold=True) for state in chart.states)
    triggers = max(width(row.trigger, size) for row in chart.rows)
    starts = [0.0, 2.1 * size]
    for wide in (names, triggers, names):
        starts.append(starts[-1] + wide + 0.9 * size)
    return Columns(("", "from", "trigger", "to", "why"), tuple(starts), total)


def row_blocks(chart: Chart, overlay: Overlay, columns: Columns, size: float) -> list[list[Cell]]:
    """Return the rows as blocks that are not torn apart, each with its lines."""
    blocks: list[list[Cell]] = []
    last = None
    for number, row in enumerate(chart.rows, start=1):
        letters = "".join(promise_letter(index) for index in chart.promises_of(row.key))
        note = overlay.rows.get(row.key)
        ink = Ink.PALE if overlay.is_way and note is None else Ink.BLACK
        said = f"{row.why}\N{NO-BREAK SPACE}[{letters}]" if letters else row.why
        said = f"{note}: {said}" if note else said
        lines = wrapped(said, size, columns.width - columns.starts[4]) or [""]
        is_new = row.source is not last
        last = row.source
        first = Cell(
            (str(number), row.source, row.trigger, row.dest, lines[0]), (True, True, False, False, False), is_new, ink
        )
        blocks.append([first, *(Cell(("", "", "", "", line), (False,) * 5, False, ink) for line in lines[1:])])
    return blocks


def step_columns(overlay: Overlay, size: float, total: float) -> Columns:
    """Return columns for a run's steps: when, how long it stayed before, the row, the move, and why."""
    at = max([width(step.at, size) for step in overlay.steps], default=0.0)
    stayed = max([width(step.stayed, size) for step in overlay.steps], default=0.0)
    moved = max([width(step.move, size) for step in overlay.steps], default=0.0)
    starts = [0.0, 2.1 * size]
    for wide in (at, stayed, moved):
        starts.append(starts[-1] + max(wide, 2.4 * size) + 0.9 * size)
    return Columns(("", "when", "after", "move", "why"), tuple(starts), total)


def step_blocks(steps: Sequence[Step], columns: Columns, size: float) -> list[list[Cell]]:
    """Return a run's steps as blocks."""
    blocks: list[list[Cell]] = []
    for step in steps:
        lines = wrapped(printable(step.reason), size, columns.width - columns.starts[4])[:2] or [""]
        first = Cell((step.number, step.at, step.stayed, step.move, lines[0]), (True, False, False, False, False), True)
        blocks.append([first, *(Cell(("", "", "", "", line), (False,) * 5, False) for line in lines[1:])])
    return blocks


def split(blocks: Sequence[list[Cell]]) -> list[list[list[Cell]]]:
    """Return the blocks in COLUMNS parts, in their order and as even as can be."""
    ends = list(accumulate((_lines([block]) for block in blocks), initial=0.0))
    whole = len(blocks)
    _, first, second = min(
        (max(ends[i], ends[j] - ends[i], ends[whole] - ends[j]), i, j)
        for i in range(whole + 1)
        for j in range(i, whole + 1)
    )
    return [list(blocks[:first]), list(blocks[first:second]), list(blocks[second:])]


def height(parts: Sequence[Sequence[list[Cell]]], size: float) -> float:
    """Return how high the table is with its head, in mm."""
    return (max(map(_lines, parts), default=0.0) + 1.6) * LINE_HEIGHT * size


def _lines(part: Sequence[list[Cell]]) -> float:
    """Return how many lines a part takes, with what is left free above its rules."""
    return sum(len(block) + (RULE_GAP if block[0].is_first else 0.0) for block in part)


def table(
    parts: Sequence[Sequence[list[Cell]]], columns: Columns, *, left: float, top: float, size: float
) -> Iterator[Drawn]:
    """Yield a table in its parts beside each other."""
    step = LINE_HEIGHT * size
    for index, part in enumerate(parts):
        x = left + index * (columns.width + COLUMN_GAP)
        y = top + step
        for start, head in zip(columns.starts, columns.heads, strict=True):
            if head:
                yield Text(x + start, y, head, size * 0.92, ink=Ink.QUIET)
        y += 0.6 * step
        is_top = True
        for block in part:
            for cell in block:
                if cell.is_first and not is_top:
                    y += RULE_GAP * step
                if cell.is_first or is_top:
                    yield Line(((x, y - 0.05 * step), (x + columns.width, y - 0.05 * step)), Stroke.HAIR, "rule")
                is_said = cell.is_first or is_top  # where the rows come from is said once, and again atop a column
                is_top = False
                y += step
                for place, (start, words, is_bold) in enumerate(
                    zip(columns.starts, cell.cells, cell.bold, strict=True)
                ):
                    if not words or (place == 1 and not is_said):
                        continue
                    room = (columns.starts[place + 1] if place + 1 < len(columns.starts) else columns.width) - start
                    shown = shortened(words, size, room, is_bold=is_bold)
                    yield Text(x + start, y - 0.22 * step, shown, size, is_bold=is_bold, ink=cell.ink)


def promises(chart: Chart, *, left: float, top: float, size: float) -> Iterator[Drawn]:
    """Yield the promises, each with its letter."""
    yield Text(left, top + size, "What is promised, and the letter of the arrows that carry it", size, is_bold=True)
    for index, promise in enumerate(chart.promises):
        y = top + size + (index + 1) * KEY_STEP * size + 0.2
        area = Area(left, y - 0.36 * size - 1.65, left + 3.3, y - 0.36 * size + 1.65)
        yield Shape(area, Outline.PROMISE, owner="key")
        yield Text(left + 1.65, y, promise_letter(index), 2.35, is_bold=True, anchor=Anchor.MIDDLE, ink=Ink.WHITE)
        yield Text(left + 5.2, y, promise.says, size)


def key(*, left: float, top: float, size: float, is_way: bool) -> Iterator[Drawn]:
    """Yield what the shapes and lines mean."""
    yield Text(left, top + size, "How to read it", size, is_bold=True)
    shapes = (
        (Outline.WORKING, "working: owns one task"),
        (Outline.RESTING, "resting: waits for an event"),
        (Outline.STOPPED, "stopped: a person must act"),
        (Outline.FINAL, "final: nothing more is to be done"),
    )
    lines: tuple[tuple[Stroke, str], ...] = (
        (Stroke.MAIN, "the way to the goal"),
        (Stroke.BACK, "a way back, or out of a stop"),
        (Stroke.STOP, "into a stop"),
    )
    if is_way:
        lines = ((Stroke.TAKEN, "taken by this run"), (Stroke.PALE, "not taken by this run"))
    for index, (outline, words) in enumerate(shapes):
        y = top + size + (index + 1) * KEY_STEP * size + 0.2
        area = Area(left, y - 0.36 * size - 1.6, left + 9.0, y - 0.36 * size + 1.6)
        yield Shape(area, outline, owner="key")
        yield Text(left + 11.0, y, words, size)
    column = left + 11.0 + max(width(words, size) for _, words in shapes) + 6.0
    for index, (stroke, words) in enumerate(lines):
        y = top + size + (index + 1) * KEY_STEP * size + 0.2
        yield Line(((column, y - 0.36 * size), (column + 10.0, y - 0.36 * size)), stroke, "key", has_head=True)
        yield Text(column + 12.0, y, words, size)
    y = top + size + (len(lines) + 1) * KEY_STEP * size + 0.2
    area = Area(column + 3.0, y - 0.36 * size - 1.65, column + 6.9, y - 0.36 * size + 1.65)
    yield Shape(area, Outline.BADGE, owner="key")
    yield Text(column + 4.95, y - 0.015 * size, "7", 2.35, is_bold=True, anchor=Anchor.MIDDLE)
    yield Text(column + 12.0, y, "its number, below" if not is_way else "its number in the chart", size)


def title_block(fields: Sequence[tuple[str, str, float]], area: Area) -> Iterator[Drawn]:
    """Yield a frame of fields beside each other: name, value and share of the width. An empty value is for a pen."""
    yield Shape(area, Outline.FRAME, owner="title block")
    total = sum(share for _, _, share in fields)
    x = area.left
    for name, value, share in fields:
        wide = (area.right - area.left) * share / total
        if x > area.left:
            yield Line(((x, area.top), (x, area.bottom)), Stroke.HAIR, "title block")
        yield Text(x + 2.0, area.top + 4.0, name, 2.35, ink=Ink.QUIET)
        if value:
            yield Text(x + 2.0, area.bottom - 2.6, shortened(value, 3.3, wide - 4.0, is_bold=True), 3.3, is_bold=True)
        x += wide
