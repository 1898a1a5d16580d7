"""The wall picture: one A3 sheet, landscape, with the whole chart, or with one run's way through it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime

from exlab_watch_agent import __version__
from exlab_watch_agent.core.text import printable, utc_text
from exlab_watch_agent.diagram import tables
from exlab_watch_agent.diagram.measure import shortened, width
from exlab_watch_agent.diagram.overlay import NOTHING, Overlay
from exlab_watch_agent.diagram.picture import UNIT, Picture
from exlab_watch_agent.diagram.route import PITCH, SPINE_WIDTH, CannotDrawError, plan
from exlab_watch_agent.diagram.shapes import Anchor, Area, Drawn, Ink, Outline, Shape, Sheet, Text
from exlab_watch_agent.statechart import Chart, Rail

WIDTH, HEIGHT = 420.0, 297.0  # A3 landscape, ISO 216
MARGIN = 9.0
BLOCK_HEIGHT = 13.0
TITLE_BASE, PHASE_TOP, PHASE_HEIGHT, RAIL_TOP = 16.5, 21.5, 6.5, 31.0
LEVEL_STEPS, LEVEL_STEP_MAX = (5.4, 4.8, 4.1), 7.0  # from one bus to the next: the widest at which the table fits
STEPS_MAX = 150  # more than the sheet ever holds
SIZES = (2.9, 2.8, 2.7, 2.6, 2.5, 2.4)  # of the table's text; below 2.4 mm (6.8 pt) nobody reads it from arm's length


def wall_picture(chart: Chart, overlay: Overlay = NOTHING, *, at: datetime | None = None) -> Sheet:
    """Return the sheet. `at`: the date of the title block, which stays empty for a pen where it is None.

    Raises: CannotDrawError with the state or arrow that has no room.
    """
    laid = plan(chart)
    columns = 1 + max(round(node.x / PITCH) for node in laid.nodes.values() if node.rail is Rail.SPINE)
    origin = (WIDTH - (columns - 1) * PITCH * UNIT) / 2
    if origin - SPINE_WIDTH / 2 * UNIT < MARGIN + 7.0:
        raise CannotDrawError(f"the spine has {columns} columns, and the sheet has no room for so many.")

    def pictured(step: float) -> Picture:
        return Picture(chart, laid, overlay, top=RAIL_TOP, origin=origin, level_step=step)

    bottom = HEIGHT - MARGIN - BLOCK_HEIGHT - 4.0
    for least in LEVEL_STEPS:
        lowest = pictured(least).bottom + 5.0
        parts, shown, size, left_out = _fitted_table(chart, overlay, bottom - lowest)
        spare = bottom - tables.height(parts, size) - lowest
        if spare >= 0 and not left_out:
            break
    levels = max(1, sum(max(0, laid.levels(channel) - 1) for channel in (Rail.ABOVE, Rail.BELOW)))
    picture = pictured(min(LEVEL_STEP_MAX, least + max(0.0, spare) / levels))
    table_top = picture.bottom + 5.0

    drawn: list[Drawn] = [
        *_phases(chart, picture, columns),
        *_heading(overlay),
        *tables.promises(chart, left=MARGIN + 4.0, top=RAIL_TOP - 1.4, size=2.75),
        *tables.key(left=MARGIN + 126.0, top=RAIL_TOP - 1.4, size=2.75, is_way=overlay.is_way),
        *picture.drawn(),
        *tables.table(parts, shown, left=MARGIN, top=table_top, size=size),
        *tables.title_block(
            (
                ("program", "exlab-watch-agent", 1.25),
                ("chart", chart.name, 0.7),
                ("version of the chart", chart.version, 1.2),
                ("version of the agent", __version__, 0.8),
                ("date", utc_text(at) if at is not None else "", 1.2),
                ("sheet", "A3, 1 of 1", 0.7),
                ("checked and signed", "", 2.4),
            ),
            Area(MARGIN, HEIGHT - MARGIN - BLOCK_HEIGHT, WIDTH - MARGIN, HEIGHT - MARGIN),
        ),
    ]
    if left_out:
        words = f"{left_out} more steps are in `exlab-watch-agent show`"
        drawn.append(
            Text(WIDTH - MARGIN, HEIGHT - MARGIN - BLOCK_HEIGHT - 1.6, words, size, anchor=Anchor.END, ink=Ink.QUIET)
        )
    problems = list(picture.problems)
    if spare < 0:
        problems.append(f"the table of {len(chart.rows)} rows is {-spare:.0f} mm too high for the sheet")
    return Sheet(WIDTH, HEIGHT, _title(overlay), tuple(drawn), tuple(problems))


def _fitted_table(
    chart: Chart, overlay: Overlay, room: float
) -> tuple[list[list[list[tables.Cell]]], tables.Columns, float, int]:
    """Return the table in the largest type that fits, its columns, the type's size, and how many steps are left out."""
    wide = (WIDTH - 2 * MARGIN - (tables.COLUMNS - 1) * tables.COLUMN_GAP) / tables.COLUMNS
    for size in SIZES:
        if overlay.is_way:
            columns = tables.step_columns(overlay, size, wide)
            blocks = tables.step_blocks(overlay.steps[:STEPS_MAX], columns, size)
        else:
            columns = tables.row_columns(chart, size, wide)
            blocks = tables.row_blocks(chart, overlay, columns, size)
        parts = tables.split(blocks)
        if tables.height(parts, size) <= room and len(overlay.steps) <= STEPS_MAX:
            return parts, columns, size, 0
    left_out = 0
    if overlay.is_way:

        def high(count: int) -> float:
            return tables.height(tables.split(blocks[:count]), size)

        fitting = bisect_right(range(len(blocks) + 1), room - 2.0, key=high) - 1
        parts, left_out = tables.split(blocks[:fitting]), len(overlay.steps) - fitting
    return parts, columns, size, left_out


def _title(overlay: Overlay) -> str:
    return printable(overlay.subject) or "The life of one run"


def _heading(overlay: Overlay) -> Iterator[Drawn]:
    yield Text(MARGIN, TITLE_BASE, shortened(_title(overlay), 7.5, 255.0, is_bold=True), 7.5, is_bold=True)
    said = "A run moves along a numbered arrow, or not at all: everything else is refused, and changes nothing."
    if overlay.detail:
        said = printable(overlay.detail)
        while width(said, 3.1) > 140.0:
            said = f"…{said[2:]}"  # the end of a path says more than its beginning
    yield Text(WIDTH - MARGIN, TITLE_BASE, said, 3.1, anchor=Anchor.END, ink=Ink.QUIET)


def _phases(chart: Chart, picture: Picture, columns: int) -> Iterator[Drawn]:
    """Yield the phases of the spine as shaded columns behind everything, each with its name."""
    spine = sorted((spec.place.column, spec.phase) for spec in chart.states.values() if spec.place.rail is Rail.SPINE)
    names = list(dict.fromkeys(phase for _, phase in spine))
    half = PITCH * UNIT / 2
    for index, name in enumerate(names):
        inside = [column for column, phase in spine if phase == name]
        left = picture.frame.x(min(inside) * PITCH) - half
        right = picture.frame.x(max(inside) * PITCH) + half
        left = MARGIN if min(inside) == 0 else left
        right = WIDTH - MARGIN if max(inside) == columns - 1 else right
        middle = (picture.frame.x(min(inside) * PITCH) + picture.frame.x(max(inside) * PITCH)) / 2
        area = Area(left + 0.4, PHASE_TOP, right - 0.4, PHASE_TOP + PHASE_HEIGHT)
        yield Shape(area, Outline.BAND, owner="phase")
        yield Text(middle, PHASE_TOP + 4.6, f"{index + 1}  {name}", 3.8, is_bold=True, anchor=Anchor.MIDDLE)
