"""What is wrong with a sheet, a sentence each: computed from the boxes of its layout, never looked for in a rendering."""

from __future__ import annotations

from itertools import combinations

from exlab_watch_agent.diagram.shapes import Area, Line, Outline, Point, Shape, Sheet, Text

Segment = tuple[Point, Point]
APART_MIN = 0.9  # mm between two lines beside each other that belong to different arrows
COVERS = (Outline.BADGE, Outline.PROMISE, Outline.CHIP, Outline.BAND)
STATES = (Outline.WORKING, Outline.RESTING, Outline.FINAL, Outline.STOPPED)


def tangles(sheet: Sheet) -> list[str]:
    """Return what lies on what and should not."""
    return [*sheet.problems, *_off_the_sheet(sheet), *_shared_lines(sheet), *_texts(sheet), *_shapes(sheet)]


def area_of(segment: Segment) -> Area:
    (x1, y1), (x2, y2) = segment
    return Area(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def lines_of(sheet: Sheet) -> list[Line]:
    return [drawn for drawn in sheet.drawn if isinstance(drawn, Line)]


def _off_the_sheet(sheet: Sheet) -> list[str]:
    paper = Area(5, 5, sheet.width - 5, sheet.height - 5)
    areas = [(drawn.words, drawn.area) for drawn in sheet.drawn if isinstance(drawn, Text)]
    areas += [(shape.outline.value, shape.area) for shape in sheet.drawn if isinstance(shape, Shape)]
    areas += [(line.owner, area_of(segment)) for line in lines_of(sheet) for segment in line.segments]
    return [f"{name!r} is off the sheet" for name, area in areas if not paper.holds(area)]


def _shared_lines(sheet: Sheet) -> list[str]:
    """Two arrows share a line only if they share a bus: neither on each other nor close beside each other."""
    found = []
    segments = [(line.owner, segment) for line in lines_of(sheet) for segment in line.segments]
    for (one, first), (other, second) in combinations(segments, 2):
        if one == other or not _are_parallel(first, second):
            continue
        if area_of(first).meets(area_of(second), apart=APART_MIN) and _run_beside(first, second):
            found.append(f"the arrows of {one!r} and {other!r} share a line at {first}")
    return found


def _is_level(segment: Segment) -> bool:
    return segment[0][1] == segment[1][1]


def _are_parallel(first: Segment, second: Segment) -> bool:
    assert _is_level(first) or first[0][0] == first[1][0], f"a slanted line: {first}"
    return _is_level(first) is _is_level(second)


def _run_beside(first: Segment, second: Segment) -> bool:
    """Whether two parallel lines have more than a corner beside each other."""
    axis = 0 if _is_level(first) else 1
    low = max(min(first[0][axis], first[1][axis]), min(second[0][axis], second[1][axis]))
    high = min(max(first[0][axis], first[1][axis]), max(second[0][axis], second[1][axis]))
    return high - low > 0.01


def _texts(sheet: Sheet) -> list[str]:
    found = []
    texts = [(drawn.words, drawn.area) for drawn in sheet.drawn if isinstance(drawn, Text) and drawn.words]
    for (one, first), (other, second) in combinations(texts, 2):
        if first.meets(second):
            found.append(f"{one!r} lies on {other!r}")
    covers = [(index, d.area) for index, d in enumerate(sheet.drawn) if isinstance(d, Shape) and d.outline in COVERS]
    for index, line in enumerate(sheet.drawn):
        if not isinstance(line, Line):
            continue
        segments = [area_of(segment) for segment in line.segments]
        for words, area in texts:
            is_covered = any(at > index and cover.holds(area) for at, cover in covers)
            if not is_covered and any(area.meets(segment) for segment in segments):
                found.append(f"{words!r} lies on a line of {line.owner!r}")
    return found


def _shapes(sheet: Sheet) -> list[str]:
    found = []
    shapes = [drawn for drawn in sheet.drawn if isinstance(drawn, Shape) and drawn.outline is not Outline.FRAME]
    lines = [(line.owner, [area_of(segment) for segment in line.segments]) for line in lines_of(sheet)]
    for one, other in combinations(shapes, 2):
        if one.area.meets(other.area) and not (one.area.holds(other.area) or other.area.holds(one.area)):
            found.append(f"{one.outline} of {one.owner} lies on {other.outline} of {other.owner}")
    for shape in shapes:
        inner = Area(shape.area.left + 0.1, shape.area.top + 0.1, shape.area.right - 0.1, shape.area.bottom - 0.1)
        for owner, segments in lines:
            is_own = owner == shape.owner and shape.outline not in STATES
            if not is_own and any(inner.meets(segment) for segment in segments):
                found.append(f"a line of {owner!r} goes through {shape.outline} of {shape.owner!r}")
    return found
