"""What a picture is made of: texts, lines and outlines in millimetres, y downwards. A closed union, drawn in svg.py.

Each says what room it takes, so that what lies on what is computed here and not looked for in a rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from exlab_watch_agent.diagram.measure import ASCENT, DESCENT, width

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle, in mm: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Area, *, apart: float = 0.0) -> bool:
        """Return whether the two overlap, or come nearer than `apart`."""
        return (
            self.left < other.right + apart
            and other.left < self.right + apart
            and self.top < other.bottom + apart
            and other.top < self.bottom + apart
        )

    def holds(self, other: Area) -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


class Ink(StrEnum):
    """The few tones of the picture; each is told from the others in grey too."""

    BLACK = "black"
    BACK = "back"
    STOP = "stop"
    QUIET = "quiet"
    PALE = "pale"
    WHITE = "white"


class Stroke(StrEnum):
    """How a line is drawn, so that its kind is seen without any colour."""

    MAIN = "main"  # the way to the goal: thick
    BACK = "back"  # a way back, or out of a stop: thin
    STOP = "stop"  # into a stop: dashed
    PALE = "pale"  # not taken by the run that is shown
    TAKEN = "taken"  # taken by it
    HAIR = "hair"  # rules of tables and frames


class Anchor(StrEnum):
    START = "start"
    MIDDLE = "middle"
    END = "end"


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text. `x`, `y`: where its anchor is on the baseline; `size` in mm."""

    x: float
    y: float
    words: str
    size: float
    is_bold: bool = False
    anchor: Anchor = Anchor.START
    ink: Ink = Ink.BLACK

    @property
    def width(self) -> float:
        return width(self.words, self.size, is_bold=self.is_bold)

    @property
    def area(self) -> Area:
        left = self.x - {Anchor.START: 0.0, Anchor.MIDDLE: 0.5, Anchor.END: 1.0}[self.anchor] * self.width
        return Area(left, self.y - ASCENT * self.size, left + self.width, self.y + DESCENT * self.size)


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points, with rounded corners. `owner`: what shares this line; two owners must not.

    `bend`: the radius of its corners. `has_head`: whether an arrowhead is at its end.
    """

    points: tuple[Point, ...]
    stroke: Stroke
    owner: str = ""
    has_head: bool = False
    bend: float = 1.0

    @property
    def segments(self) -> tuple[tuple[Point, Point], ...]:
        return tuple(zip(self.points, self.points[1:], strict=False))


class Outline(StrEnum):
    """The shape of a state says what it is."""

    WORKING = "working"  # pointed at both sides, tinted
    RESTING = "resting"  # rounded
    FINAL = "final"  # rounded, with a second line inside
    STOPPED = "stopped"  # cut corners: rests until a person acts
    BADGE = "badge"  # the number of a row
    PROMISE = "promise"  # the letter of a promise
    BAND = "band"  # the ground of a phase
    FRAME = "frame"
    CHIP = "chip"  # how many runs are in a state


@dataclass(frozen=True, slots=True)
class Shape:
    """An outline that fills its area. `is_pale`: not part of the way that is shown; `is_strong`: part of it.

    `owner`: whose line it may lie on, or the state that it is.
    """

    area: Area
    outline: Outline
    owner: str = ""
    is_pale: bool = False
    is_strong: bool = False
    tip: str = ""  # what a pointer over it is told


Drawn = Text | Line | Shape


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole page. `drawn` in the order of painting; `problems`: what could not be drawn cleanly, a sentence each."""

    width: float
    height: float
    title: str
    drawn: tuple[Drawn, ...]
    problems: tuple[str, ...]
