"""A sheet as SVG: nothing is decided here but ink. It carries its font, so that it looks the same on every screen.

Every text has its computed width beside it (`textLength`): a program that does not read the font still lets no text run into
another. Everything that comes from outside goes through `xml_text`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import assert_never

from exlab_watch_agent.diagram.measure import FAMILY, font_path
from exlab_watch_agent.diagram.shapes import Anchor, Area, Drawn, Ink, Line, Outline, Point, Shape, Sheet, Stroke, Text
from exlab_watch_agent.diagram.text_formats import xml_attribute, xml_text

INKS = {
    Ink.BLACK: "#16212b",
    Ink.BACK: "#2f5580",
    Ink.STOP: "#95391f",
    Ink.QUIET: "#4d5a66",
    Ink.PALE: "#9aa4ad",
    Ink.WHITE: "#ffffff",
}
# Colour, width in mm, dashes.
STROKES = {
    Stroke.MAIN: (INKS[Ink.BLACK], 0.8, ""),
    Stroke.BACK: (INKS[Ink.BACK], 0.38, ""),
    Stroke.STOP: (INKS[Ink.STOP], 0.38, "1.7 0.9"),
    Stroke.PALE: ("#c3cad0", 0.3, ""),
    Stroke.TAKEN: (INKS[Ink.BLACK], 0.75, ""),
    Stroke.HAIR: ("#b4bcc4", 0.14, ""),
}
HEAD_LENGTH, HEAD_HALF = 2.2, 0.85
POINT, CUT, ROUND = 3.4, 2.6, 4.0  # of the outlines: how far a tip reaches out, how much of a corner is cut, its radius


def svg(sheet: Sheet) -> str:
    """Return the sheet as one self-contained SVG file."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg_element(sheet)}'


def svg_element(sheet: Sheet) -> str:
    """Return the same without the line that makes it a file, for within a page of HTML."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(sheet.width)}mm" height="{_n(sheet.height)}mm"'
        f' viewBox="0 0 {_n(sheet.width)} {_n(sheet.height)}" role="img" aria-label={xml_attribute(sheet.title)}>',
        f"<title>{xml_text(sheet.title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect width="{_n(sheet.width)}" height="{_n(sheet.height)}" fill="#ffffff"/>',
    ]
    for drawn in sheet.drawn:
        lines += _drawn(drawn)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _style() -> str:
    faces = "".join(
        f"@font-face{{font-family:'{FAMILY}';font-weight:{600 if is_bold else 400};"
        f"src:url(data:font/ttf;base64,{base64.b64encode(font_path(is_bold=is_bold).read_bytes()).decode()})}}"
        for is_bold in (False, True)
    )
    family = f"svg text{{font-family:'{FAMILY}','DejaVu Sans Condensed',Arial,sans-serif;font-weight:400}}"
    return f"{faces}{family}svg .b{{font-weight:600}}svg .m{{text-anchor:middle}}svg .e{{text-anchor:end}}"


def _drawn(drawn: Drawn) -> Iterator[str]:
    match drawn:
        case Text():
            yield _text(drawn)
        case Line():
            yield from _line(drawn)
        case Shape():
            yield from _shape(drawn)
        case _ as unknown:
            assert_never(unknown)


def _text(text: Text) -> str:
    classes = {Anchor.START: "", Anchor.MIDDLE: "m", Anchor.END: "e"}[text.anchor] + (" b" if text.is_bold else "")
    named = f' class="{classes.strip()}"' if classes.strip() else ""
    return (
        f'<text x="{_n(text.x)}" y="{_n(text.y)}" font-size="{_n(text.size)}"{named} fill="{INKS[text.ink]}"'
        f' textLength="{_n(text.width)}" lengthAdjust="spacingAndGlyphs">{xml_text(text.words)}</text>'
    )


# --- lines -----------------------------------------------------------------------------------------------------------


def _line(line: Line) -> Iterator[str]:
    colour, wide, dashes = STROKES[line.stroke]
    points = list(line.points)
    if line.has_head:
        points[-1] = _toward(points[-1], points[-2], HEAD_LENGTH * 0.8)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    yield f'<path d="{_rounded(points, line.bend)}" fill="none" stroke="{colour}" stroke-width="{wide}"{dashed}/>'
    if line.has_head:
        yield f'<path d="{_head(line.points[-2], line.points[-1], max(1.0, wide / 0.55))}" fill="{colour}"/>'


def _rounded(points: list[Point], bend: float) -> str:
    said = [f"M{_at(points[0])}"]
    last = len(points) - 1
    for index in range(1, last):
        before, corner, after = points[index - 1 : index + 2]
        # Two corners share what is between them.
        room = (
            math.dist(before, corner) / (1 if index == 1 else 2),
            math.dist(corner, after) / (1 if index + 1 == last else 2),
        )
        radius = min(bend, *room)
        said.append(f"L{_at(_toward(corner, before, radius))}Q{_at(corner)} {_at(_toward(corner, after, radius))}")
    return "".join([*said, f"L{_at(points[-1])}"])


def _toward(start: Point, goal: Point, distance: float) -> Point:
    """Return the point so far from `start` on the way to `goal`."""
    whole = math.dist(start, goal)
    share = distance / whole if whole else 0.0
    return start[0] + (goal[0] - start[0]) * share, start[1] + (goal[1] - start[1]) * share


def _head(before: Point, tip: Point, scale: float) -> str:
    back = _toward(tip, before, HEAD_LENGTH)
    across = HEAD_HALF * scale / (math.dist(tip, back) or 1.0)
    dx, dy = (tip[1] - back[1]) * across, (tip[0] - back[0]) * across
    return f"M{_at(tip)}L{_at((back[0] + dx, back[1] - dy))}L{_at((back[0] - dx, back[1] + dy))}Z"


# --- outlines --------------------------------------------------------------------------------------------------------


def _shape(shape: Shape) -> Iterator[str]:
    tip = f"<title>{xml_text(shape.tip)}</title>" if shape.tip else ""
    line = "#b4bcc4" if shape.is_pale else INKS[Ink.BLACK]
    wide = 0.75 if shape.is_strong else 0.25 if shape.is_pale else 0.45
    match shape.outline:
        case Outline.BAND:
            yield _rect(shape.area, 0.8, "#e9edf0", "", 0.0, tip)
        case Outline.FRAME:
            yield _rect(shape.area, 0.0, "none", INKS[Ink.BLACK], 0.45, tip)
        case Outline.BADGE:
            fill = INKS[Ink.BLACK] if shape.is_strong else "#ffffff"
            yield _rect(shape.area, 0.9, fill, "#c3cad0" if shape.is_pale else "#5c6873", 0.2, tip)
        case Outline.CHIP:
            yield _rect(shape.area, 0.9, INKS[Ink.BLACK] if shape.is_strong else "#ffffff", INKS[Ink.BLACK], 0.2, tip)
        case Outline.PROMISE:
            middle, radius = _middle(shape.area), (shape.area.bottom - shape.area.top) / 2
            colour = INKS[Ink.PALE] if shape.is_pale else INKS[Ink.BLACK]
            yield f'<circle cx="{_n(middle[0])}" cy="{_n(middle[1])}" r="{_n(radius)}" fill="{colour}">{tip}</circle>'
        case Outline.WORKING:
            fill = "#f3f5f7" if shape.is_pale else "#dde4ea"
            yield _polygon(_pointed(shape.area), fill, line, wide, tip)
        case Outline.STOPPED:
            yield _polygon(_cut(shape.area), "#ffffff", line, wide, tip)
        case Outline.RESTING:
            yield _rect(shape.area, _radius(shape.area), "#ffffff", line, wide, tip)
        case Outline.FINAL:
            yield _rect(shape.area, _radius(shape.area), "#ffffff", line, wide, tip)
            inner = Area(*(a + d for a, d in zip(_sides(shape.area), (1.0, 1.0, -1.0, -1.0), strict=True)))
            yield _rect(inner, _radius(shape.area) - 1.0, "none", line, wide, "")
        case _ as unknown:
            assert_never(unknown)


def _rect(area: Area, radius: float, fill: str, line: str, wide: float, tip: str) -> str:
    stroke = f' stroke="{line}" stroke-width="{wide}"' if line else ""
    return (
        f'<rect x="{_n(area.left)}" y="{_n(area.top)}" width="{_n(area.right - area.left)}"'
        f' height="{_n(area.bottom - area.top)}" rx="{_n(max(radius, 0.0))}" fill="{fill}"{stroke}>{tip}</rect>'
    )


def _polygon(points: list[Point], fill: str, line: str, wide: float, tip: str) -> str:
    path = "M" + "L".join(_at(point) for point in points) + "Z"
    return f'<path d="{path}" fill="{fill}" stroke="{line}" stroke-width="{wide}">{tip}</path>'


def _pointed(area: Area) -> list[Point]:
    left, top, right, bottom = _sides(area)
    middle, tip = (top + bottom) / 2, min(POINT, (bottom - top) / 2)
    return [
        (left + tip, top),
        (right - tip, top),
        (right, middle),
        (right - tip, bottom),
        (left + tip, bottom),
        (left, middle),
    ]


def _cut(area: Area) -> list[Point]:
    left, top, right, bottom = _sides(area)
    cut = min(CUT, (bottom - top) / 3)
    upper = [(left, top + cut), (left + cut, top), (right - cut, top), (right, top + cut)]
    return [*upper, (right, bottom - cut), (right - cut, bottom), (left + cut, bottom), (left, bottom - cut)]


def _radius(area: Area) -> float:
    return min(ROUND, (area.bottom - area.top) / 2)


def _middle(area: Area) -> Point:
    return (area.left + area.right) / 2, (area.top + area.bottom) / 2


def _sides(area: Area) -> tuple[float, float, float, float]:
    return area.left, area.top, area.right, area.bottom


def _at(point: Point) -> str:
    return f"{_n(point[0])} {_n(point[1])}"


def _n(value: float) -> str:
    """Return a number with at most two places: a hundredth of a millimetre is below what a printer shows."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
