"""The picture itself: the plan of route.py in millimetres, with the texts and numbers at its states and arrows.

What is at an arrow is stacked on its port, away from the state: the number of each row, the letters of the promises it
carries, and the note of the overlay. So the room that a stack needs is known before anything is placed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exlab_watch_agent.core.text import printable
from exlab_watch_agent.diagram.measure import balanced, width
from exlab_watch_agent.diagram.overlay import Overlay, promise_letter
from exlab_watch_agent.diagram.route import Bus, Edge, Loop, Node, Plan, Tap
from exlab_watch_agent.diagram.shapes import Anchor, Area, Drawn, Ink, Line, Outline, Point, Shape, Stroke, Text
from exlab_watch_agent.statechart import Chart, Rail, RunState, Tag

UNIT = 2.2  # mm; a port and the next are two units apart, which holds a badge
SPINE_HEIGHT, RAIL_HEIGHT = 19.0, 15.0
BADGE_HEIGHT, BADGE_WIDTH, STACK_STEP = 3.3, 3.9, 3.7
FIRST_BADGE = 2.9  # from a state's edge to the middle of the first badge
LOOP_HEIGHT = FIRST_BADGE + STACK_STEP  # above the first badges of its neighbours
HEAD = 2.2  # the length of an arrowhead, as svg.py draws it
BEND = 1.7
NAME_SIZE, MEANING_SIZE, NUMBER_SIZE, LABEL_SIZE = 3.3, 2.35, 2.35, 2.5
SHORT_BUS = 12  # units
STACK_END = 1.6  # from the last badge to the first bus


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the plan is on the sheet, in mm. `origin`: of column 0; `level_step`: from one bus to the next."""

    origin: float
    spine_top: float
    spine_bottom: float
    above_bottom: float
    below_top: float
    first_level: dict[Rail, float]
    level_step: float

    def x(self, units: float) -> float:
        return self.origin + units * UNIT

    def y(self, channel: Rail, level: int) -> float:
        """Return where a bus is."""
        away = self.first_level[channel] + (level - 1) * self.level_step
        return self.spine_top - away if channel is Rail.ABOVE else self.spine_bottom + away

    def edge(self, node: Node, channel: Rail) -> float:
        """Return where the arrows of a channel touch a state."""
        if node.rail is Rail.SPINE:
            return self.spine_top if channel is Rail.ABOVE else self.spine_bottom
        return self.above_bottom if node.rail is Rail.ABOVE else self.below_top


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a stack: a number, a promise's letter, or a note."""

    words: str
    outline: Outline | None


class Picture:
    """A chart, a plan and an overlay, drawn for one sheet."""

    def __init__(
        self, chart: Chart, plan: Plan, overlay: Overlay, *, top: float, origin: float, level_step: float
    ) -> None:
        self._chart, self._plan, self._overlay = chart, plan, overlay
        self.frame = self._framed(top, origin, level_step)
        self.problems: list[str] = []

    @property
    def bottom(self) -> float:
        return self.frame.below_top + RAIL_HEIGHT

    def drawn(self) -> list[Drawn]:
        """Return everything, in the order of painting."""
        lines = [*self._pale_or_plain_lines(), *self._taken_lines()]
        stacks = [shape for stack in self._stacks() for shape in stack]
        nodes = [shape for node in self._plan.nodes.values() for shape in self._node(node)]
        labels = self._labels([*stacks, *nodes], lines)
        return [*lines, *nodes, *stacks, *labels]

    # --- the frame ---------------------------------------------------------------------------------------------------

    def _framed(self, top: float, origin: float, level_step: float) -> Frame:
        first: dict[Rail, float] = {}
        far: dict[Rail, float] = {}
        for channel in (Rail.ABOVE, Rail.BELOW):
            near_spine, near_rail = [0.0], [0.0]
            for bus in self._plan.buses:
                for tap in bus.taps:
                    if bus.channel is channel and tap.edge is not None:
                        is_spine = self._plan.nodes[tap.edge.source].rail is Rail.SPINE
                        (near_spine if is_spine else near_rail).append(_stack_height(self._items(tap.edge)))
            for loop in self._plan.loops:
                if loop.channel is channel:
                    is_spine = self._plan.nodes[loop.edge.source].rail is Rail.SPINE
                    height = LOOP_HEIGHT - FIRST_BADGE + _stack_height(self._items(loop.edge))
                    (near_spine if is_spine else near_rail).append(height)
            first[channel] = max(near_spine) + STACK_END
            far[channel] = max(near_rail) + STACK_END
            far[channel] = max(far[channel], HEAD + BEND + 1.0)
        above = max(0, self._plan.levels(Rail.ABOVE) - 1) * level_step
        below = max(0, self._plan.levels(Rail.BELOW) - 1) * level_step
        above_bottom = top + RAIL_HEIGHT
        spine_top = above_bottom + far[Rail.ABOVE] + above + first[Rail.ABOVE]
        spine_bottom = spine_top + SPINE_HEIGHT
        below_top = spine_bottom + first[Rail.BELOW] + below + far[Rail.BELOW]
        return Frame(origin, spine_top, spine_bottom, above_bottom, below_top, first, level_step)

    # --- states ------------------------------------------------------------------------------------------------------

    def node_area(self, node: Node) -> Area:
        frame, half = self.frame, node.width / 2 * UNIT
        top, height = {
            Rail.SPINE: (frame.spine_top, SPINE_HEIGHT),
            Rail.ABOVE: (frame.above_bottom - RAIL_HEIGHT, RAIL_HEIGHT),
            Rail.BELOW: (frame.below_top, RAIL_HEIGHT),
        }[node.rail]
        return Area(frame.x(node.x) - half, top, frame.x(node.x) + half, top + height)

    def _node(self, node: Node) -> Iterator[Drawn]:
        spec, area = self._chart.states[node.state], self.node_area(node)
        note = self._overlay.states.get(node.state)
        is_pale = self._overlay.is_way and note is None
        yield Shape(area, outline_of(self._chart, node.state), owner=node.state, is_pale=is_pale, tip=spec.meaning)
        middle, ink = self.frame.x(node.x), Ink.PALE if is_pale else Ink.BLACK
        inner = area.right - area.left - 4.4
        lines = balanced(spec.meaning, MEANING_SIZE, inner)
        rows_max = 4 if node.rail is Rail.SPINE else 3
        if note is not None:
            rows_max -= 1
        if len(lines) > rows_max and note is None:
            self.problems.append(f"the meaning of {node.state} does not fit into its place: say it in fewer words")
        lines = lines[:rows_max]
        step = 1.2 * MEANING_SIZE
        height = NAME_SIZE + step * len(lines) + (4.0 if note else 0.0)
        y = (area.top + area.bottom - height) / 2 + 0.8 * NAME_SIZE
        yield Text(middle, y, node.state, NAME_SIZE, is_bold=True, anchor=Anchor.MIDDLE, ink=ink)
        for line in lines:
            y += step if line is not lines[0] else step + 0.6
            yield Text(middle, y, line, MEANING_SIZE, anchor=Anchor.MIDDLE, ink=Ink.PALE if is_pale else Ink.QUIET)
        if note:
            chip = width(note, MEANING_SIZE, is_bold=True) + 2.4
            box = Area(middle - chip / 2, y + 1.2, middle + chip / 2, y + 4.7)
            yield Shape(box, Outline.CHIP, owner=node.state, is_strong=node.state is self._overlay.now)
            ink = Ink.WHITE if node.state is self._overlay.now else Ink.BLACK
            yield Text(middle, y + 3.8, note, MEANING_SIZE, is_bold=True, anchor=Anchor.MIDDLE, ink=ink)

    # --- arrows ------------------------------------------------------------------------------------------------------

    def _pale_or_plain_lines(self) -> Iterator[Line]:
        """Yield every arrow: a bus once, with its taps."""
        is_way = self._overlay.is_way
        for edge in self._plan.straight:
            yield self._straight_line(edge, Stroke.PALE if is_way else Stroke.MAIN)
        for bus in self._plan.buses:
            stroke = Stroke.PALE if is_way else self._stroke(bus.dest)
            yield from self._bus_lines(bus, stroke)
        for loop in self._plan.loops:
            yield self._loop_line(loop, Stroke.PALE if is_way else Stroke.BACK)
        start = self._plan.nodes[self._chart.initial]
        area = self.node_area(start)
        y = (area.top + area.bottom) / 2
        yield Line(
            ((area.left - 6.5, y), (area.left, y)), Stroke.TAKEN if is_way else Stroke.MAIN, "start", has_head=True
        )

    def _taken_lines(self) -> Iterator[Line]:
        """Yield the arrows that the run took, each from end to end, on top of the pale ones."""
        if not self._overlay.is_way:
            return
        for edge in self._plan.straight:
            if self._is_taken(edge):
                yield self._straight_line(edge, Stroke.TAKEN)
        for bus in self._plan.buses:
            for tap in bus.taps:
                if tap.edge is not None and self._is_taken(tap.edge):
                    yield from self._whole_way(bus, tap)
        for loop in self._plan.loops:
            if self._is_taken(loop.edge):
                yield self._loop_line(loop, Stroke.TAKEN)

    def _whole_way(self, bus: Bus, tap: Tap) -> Iterator[Line]:
        yield Line((*self._to_bus(bus, tap), *self._from_bus(bus)), Stroke.TAKEN, bus.dest, has_head=True, bend=BEND)

    def _stroke(self, dest: RunState) -> Stroke:
        is_stop = Tag.NEEDS_ATTENTION in self._chart.states[dest].tags
        return Stroke.STOP if is_stop else Stroke.BACK

    def _straight_line(self, edge: Edge, stroke: Stroke) -> Line:
        source, dest = self.node_area(self._plan.nodes[edge.source]), self.node_area(self._plan.nodes[edge.dest])
        y = (source.top + source.bottom) / 2
        return Line(((source.right, y), (dest.left, y)), stroke, f"{edge.source} to {edge.dest}", has_head=True)

    def _loop_line(self, loop: Loop, stroke: Stroke) -> Line:
        edge, sign = self._touch(loop.edge.source, loop.channel)
        left, right, top = self.frame.x(loop.left), self.frame.x(loop.right), edge + sign * LOOP_HEIGHT
        points = ((right, edge), (right, top), (left, top), (left, edge))
        return Line(points, stroke, f"{loop.edge.source} to itself", has_head=True, bend=1.6)

    def _touch(self, state: RunState, channel: Rail) -> tuple[float, float]:
        """Return where a state's arrows in a channel begin, and whether they go up (-1) or down (1) from there."""
        node = self._plan.nodes[state]
        away = -1.0 if channel is Rail.ABOVE else 1.0
        return self.frame.edge(node, channel), away if node.rail is Rail.SPINE else -away

    def _to_bus(self, bus: Bus, tap: Tap) -> tuple[Point, ...]:
        x, y = self.frame.x(tap.x), self.frame.y(bus.channel, bus.level)
        if tap.edge is None:
            (feeder,) = [b for b in self._plan.buses if b.dest is bus.dest and b.channel is not bus.channel]
            begin = self.frame.y(feeder.channel, feeder.level)
            return ((x, begin + math.copysign(BEND, y - begin)), (x, y))
        return ((x, self._touch(tap.edge.source, bus.channel)[0]), (x, y))

    def _from_bus(self, bus: Bus) -> tuple[Point, ...]:
        """Return how a bus goes on where it ends: to its state, or through the spine and on with the other bus."""
        x, y = self.frame.x(bus.end), self.frame.y(bus.channel, bus.level)
        if not bus.is_through_spine:
            return ((x, y), (x, self._touch(bus.dest, bus.channel)[0]))
        (other,) = [b for b in self._plan.buses if b.dest is bus.dest and b.channel is not bus.channel]
        return ((x, y), (x, self.frame.y(other.channel, other.level)), *self._from_bus(other))

    def _bus_lines(self, bus: Bus, stroke: Stroke) -> Iterator[Line]:
        """Yield the outermost taps with the bus itself, and all others as far as the bus."""
        end, y = self.frame.x(bus.end), self.frame.y(bus.channel, bus.level)
        left = [tap for tap in bus.taps if tap.x < bus.end]
        right = [tap for tap in reversed(bus.taps) if tap.x > bus.end]
        goal = self._from_bus(bus)[1]
        turn = (end, y + math.copysign(BEND * 1.05, goal[1] - y))
        for side, toward in ((left, BEND), (right, -BEND)):
            for tap in side:
                way = self._to_bus(bus, tap)
                if tap is not side[0]:
                    yield Line((*way, (way[-1][0] + toward * 1.05, y)), stroke, bus.dest, bend=BEND)
                elif bus.is_through_spine or (side is right and left):
                    yield Line((*way, (end, y), turn), stroke, bus.dest, bend=BEND)
                else:
                    yield Line((*way, (end, y), goal), stroke, bus.dest, has_head=True, bend=BEND)

    # --- numbers, promises, notes ------------------------------------------------------------------------------------

    def _is_taken(self, edge: Edge) -> bool:
        return any(self._chart.rows[number - 1].key in self._overlay.rows for number in edge.numbers)

    def _items(self, edge: Edge) -> list[Item]:
        items: list[Item] = []
        for number in edge.numbers:
            row = self._chart.rows[number - 1]
            items.append(Item(str(number), Outline.BADGE))
            items += [Item(promise_letter(index), Outline.PROMISE) for index in self._chart.promises_of(row.key)]
            if row.key in self._overlay.rows:
                items.append(Item(self._overlay.rows[row.key], None))
        return items

    def _stacks(self) -> Iterator[list[Drawn]]:
        for edge in self._plan.straight:
            line = self._straight_line(edge, Stroke.MAIN)
            (left, y), (right, _) = line.points
            yield self._stack(edge, left + (right - HEAD - left) * 0.66, y, -1.0, line.owner)
        for bus in self._plan.buses:
            for tap in bus.taps:
                if tap.edge is not None:
                    edge_y, sign = self._touch(tap.edge.source, bus.channel)
                    yield self._stack(tap.edge, self.frame.x(tap.x), edge_y + sign * FIRST_BADGE, sign, bus.dest)
        for loop in self._plan.loops:
            edge_y, sign = self._touch(loop.edge.source, loop.channel)
            middle = self.frame.x((loop.left + loop.right) / 2)
            owner = f"{loop.edge.source} to itself"
            yield self._stack(loop.edge, middle, edge_y + sign * LOOP_HEIGHT, sign, owner)

    def _stack(self, edge: Edge, x: float, y: float, sign: float, owner: str) -> list[Drawn]:
        is_pale = self._overlay.is_way and not self._is_taken(edge)
        found: list[Drawn] = []
        for index, item in enumerate(self._items(edge)):
            middle = y + sign * index * STACK_STEP
            half = BADGE_WIDTH / 2 if item.outline is not Outline.PROMISE else BADGE_HEIGHT / 2
            area = Area(x - half, middle - BADGE_HEIGHT / 2, x + half, middle + BADGE_HEIGHT / 2)
            tip = ""
            if item.outline is Outline.BADGE:
                row = self._chart.rows[int(item.words) - 1]
                tip = f"{row.source}, {row.trigger}, {row.dest}: {row.why}"
            outline = item.outline or Outline.CHIP
            is_strong = self._overlay.is_way and not is_pale and outline is not Outline.CHIP
            found.append(Shape(area, outline, owner=owner, is_pale=is_pale, is_strong=is_strong, tip=tip))
            ink = Ink.PALE if is_pale else Ink.BLACK
            if outline is Outline.PROMISE or is_strong:
                ink = Ink.WHITE
            size = NUMBER_SIZE
            words = printable(item.words)
            while width(words, size, is_bold=True) > BADGE_WIDTH - 0.5:
                size *= 0.95
            found.append(Text(x, middle + 0.345 * size, words, size, is_bold=True, anchor=Anchor.MIDDLE, ink=ink))
        return found

    # --- the names of buses ------------------------------------------------------------------------------------------

    def _labels(self, drawn: Sequence[Drawn], lines: Sequence[Line]) -> list[Drawn]:
        taken = [shape.area for shape in drawn if not isinstance(shape, Line)]
        taken += [_line_area(*segment) for line in lines for segment in line.segments]
        found: list[Drawn] = []
        for bus in self._plan.buses:
            text = self._label(bus, taken)
            low, high = bus.span
            if text is None and len(bus.taps) == 1 and high - low < SHORT_BUS:
                continue  # one arrow that goes nearly straight: its number says enough
            if text is None:
                self.problems.append(f"the bus to {bus.dest} {bus.channel} the spine has no room for its name")
                continue
            taken.append(text.area)
            found.append(text)
        return found

    def _label(self, bus: Bus, taken: Sequence[Area]) -> Text | None:
        """Return the name of a bus, near where it ends, at a spot that nothing else touches; None without one."""
        numbers = [number for tap in bus.taps if tap.edge is not None for number in tap.edge.numbers]
        triggers = list(dict.fromkeys(str(self._chart.rows[number - 1].trigger) for number in numbers))
        full = f"to {bus.dest}: {', '.join(triggers)}"
        y = self.frame.y(bus.channel, bus.level)
        low, high = bus.span
        left, right = self.frame.x(low), self.frame.x(high)
        ink = Ink.PALE if self._overlay.is_way else Ink.STOP if self._stroke(bus.dest) is Stroke.STOP else Ink.BACK
        for words in (full, f"to {bus.dest}"):
            long = width(words, LABEL_SIZE)
            spots: list[tuple[float, Text]] = []
            for step in range(int(left * 2), int(right * 2) + 1):
                start = step / 2
                if start < left or start + long > right:
                    continue
                for raised, cost in ((-1.1, 0.0), (LABEL_SIZE * 0.75 + 0.6, 9.0)):
                    text = Text(start, y + raised, words, LABEL_SIZE, ink=ink)
                    room = Area(start - 0.6, text.area.top, start + long + 0.6, text.area.bottom)
                    if any(room.meets(area, apart=0.3) for area in taken):
                        continue
                    spots.append((cost + abs(start + long / 2 - self.frame.x(bus.end)), text))
            if spots:
                return min(spots, key=lambda spot: (round(spot[0], 3), spot[1].x, spot[1].y))[1]
        return None


def outline_of(chart: Chart, state: RunState) -> Outline:
    """Return the shape that says what a state is."""
    spec = chart.states[state]
    if spec.is_final:
        return Outline.FINAL
    if Tag.NEEDS_ATTENTION in spec.tags:
        return Outline.STOPPED
    return Outline.WORKING if spec.is_working else Outline.RESTING


def _stack_height(items: Sequence[Item]) -> float:
    return FIRST_BADGE + (len(items) - 1) * STACK_STEP + BADGE_HEIGHT / 2


def _line_area(one: Point, other: Point) -> Area:
    return Area(min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1]))
