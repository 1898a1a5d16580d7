"""Where the arrows of the wall picture go, computed from rows and places alone.

The spine runs from left to right, one state a column; neighbours are joined by a straight arrow. Every other arrow leaves
its state upwards or downwards by a port of its own and joins the *bus* of its destination: one level line that gathers
all arrows to the same state and ends there in one head. There is a channel for buses above the spine and one below it,
each between the spine and a rail of other states. So no two arrows can share a line unless they go to the same state.

Lengths are in units here: ports of the spine have even numbers, those of the rails odd ones, so that two upright lines never
meet. The order of ports and buses is searched for by swapping, as long as that makes fewer crossings; no chance is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.statechart import Chart, Rail, RunState

PITCH = 18  # from one column to the next, in units
SPINE_WIDTH = 13
SPINE_PORTS = (-4, -2, 0, 2, 4)  # from the middle of a state on the spine: what its straight edges hold
RAIL_WIDTH_MIN, RAIL_WIDTH_LOOSE = 17, 30
RAIL_ENDS = 4  # of the width of a state on a rail, what holds no port
LANE = 8  # from the middle of a column: where an arrow may go through the spine, in the gap behind it
LABEL_GAP = 2  # between the ends of two buses on one level
SWEEPS_MAX = 40
CROSSING_COST, RISE_COST, RUN_COST = 100, 3, 1


class CannotDrawError(AgentError):
    """The places in the chart leave an arrow no way: a defect of the release, found by a test."""


@dataclass(frozen=True, slots=True)
class Edge:
    """All rows from one state to one other, which are one arrow. `numbers`: of the rows, from 1."""

    source: RunState
    dest: RunState
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tap:
    """Where an edge joins its bus. `edge` is None for a bus that comes through the spine from the other channel."""

    edge: Edge | None
    x: int


@dataclass(frozen=True, slots=True)
class Bus:
    """One level line. `level` counts from 1, away from the spine. `end`: where it turns to its destination."""

    dest: RunState
    channel: Rail
    level: int
    taps: tuple[Tap, ...]
    end: int
    is_through_spine: bool

    @property
    def span(self) -> tuple[int, int]:
        places = [self.end, *(tap.x for tap in self.taps)]
        return min(places), max(places)


@dataclass(frozen=True, slots=True)
class Loop:
    """An edge back to its own state, on one side of it, from one port to another."""

    edge: Edge
    channel: Rail
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Node:
    """A state's place: its middle and its width."""

    state: RunState
    rail: Rail
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it, in units. `levels`: how many a channel has."""

    nodes: Mapping[RunState, Node]
    straight: tuple[Edge, ...]
    buses: tuple[Bus, ...]
    loops: tuple[Loop, ...]

    def levels(self, channel: Rail) -> int:
        return max((bus.level for bus in self.buses if bus.channel is channel), default=0)


def edges_of(chart: Chart) -> tuple[Edge, ...]:
    """Return the arrows, in the order of their first rows."""
    numbers: dict[tuple[RunState, RunState], list[int]] = {}
    for number, row in enumerate(chart.rows, start=1):
        numbers.setdefault((row.source, row.dest), []).append(number)
    return tuple(Edge(source, dest, tuple(found)) for (source, dest), found in numbers.items())


def plan(chart: Chart) -> Plan:
    """Return where everything goes. Raises: CannotDrawError with the state or arrow that has no room."""
    return _Router(chart).plan()


# --- the search ------------------------------------------------------------------------------------------------------

Side = tuple[RunState, Rail]  # a state and the channel to which its ports lead


@dataclass(eq=False)
class _Stub:
    """One port, or the two of a loop. `bus` is None for a loop; `edge` is None for a bus's end.

    `slots`: how many ports it takes; three for a loop that leaves the middle one out, so that its number has room.
    """

    bus: _Track | None
    edge: Edge | None
    x: int = 0
    slots: int = 1


@dataclass(eq=False)
class _Track:
    """A bus while its place is searched for."""

    dest: RunState
    channel: Rail
    taps: list[_Stub] = field(default_factory=list)
    end: _Stub | None = None
    lane: int | None = None
    from_lanes: list[int] = field(default_factory=list)

    def end_x(self) -> int:
        return self.lane if self.lane is not None else self.end.x if self.end is not None else 0

    def places(self) -> list[int]:
        return [self.end_x(), *(tap.x for tap in self.taps), *self.from_lanes]


class _Router:
    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        self._places = {state: spec.place for state, spec in chart.states.items()}
        self._tracks: dict[tuple[RunState, Rail], _Track] = {}
        self._sides: dict[Side, list[_Stub]] = {}
        self._slots: dict[Side, Sequence[int]] = {}
        self._straight: list[Edge] = []
        loops: list[Edge] = []
        for edge in edges_of(chart):
            if edge.source is edge.dest:
                loops.append(edge)
            elif self._is_straight(edge):
                self._straight.append(edge)
            else:
                self._join(edge)
        self._loops = [(edge, self._loop(edge)) for edge in loops]
        self._nodes = {state: self._node(state) for state in chart.states}
        for side in self._sides:
            self._slots[side] = self._slots_of(side)
        self._lanes()

    # --- which bus, which side ---

    def _is_straight(self, edge: Edge) -> bool:
        source, dest = self._places[edge.source], self._places[edge.dest]
        return source.rail is dest.rail is Rail.SPINE and dest.column == source.column + 1

    def _join(self, edge: Edge) -> None:
        source, dest = self._places[edge.source].rail, self._places[edge.dest].rail
        channel = Rail.BELOW if Rail.BELOW is (source if source is not Rail.SPINE else dest) else Rail.ABOVE
        track = self._track(edge.dest, channel)
        stub = _Stub(track, edge)
        track.taps.append(stub)
        self._sides.setdefault((edge.source, channel), []).append(stub)

    def _track(self, dest: RunState, channel: Rail) -> _Track:
        if (dest, channel) not in self._tracks:
            track = self._tracks[dest, channel] = _Track(dest, channel)
            if self._places[dest].rail in (Rail.SPINE, channel):
                track.end = _Stub(track, None)
                self._sides.setdefault((dest, channel), []).append(track.end)
            else:
                self._track(dest, _other(channel))
        return self._tracks[dest, channel]

    def _loop(self, edge: Edge) -> _Stub:
        rail = self._places[edge.source].rail
        used = {channel: sum(s.slots for s in self._sides.get((edge.source, channel), [])) for channel in _CHANNELS}
        channel = min(_CHANNELS, key=lambda one: used[one]) if rail is Rail.SPINE else rail
        stub = _Stub(None, edge, slots=2)
        self._sides.setdefault((edge.source, channel), []).append(stub)
        return stub

    # --- how much room ---

    def _node(self, state: RunState) -> Node:
        place = self._places[state]
        if place.rail is Rail.SPINE:
            return Node(state, place.rail, round(place.column * PITCH), SPINE_WIDTH)
        ports = sum(stub.slots for stub in self._sides.get((state, place.rail), []))
        loose, tight = (
            min(4 * ports + 2, RAIL_WIDTH_LOOSE),
            2 * ports + RAIL_ENDS,
        )  # with a port left out between two, or none
        return Node(state, place.rail, round(place.column * PITCH), max(RAIL_WIDTH_MIN, loose, tight))

    def _slots_of(self, side: Side) -> Sequence[int]:
        state, channel = side
        node = self._nodes[state]
        if node.rail is Rail.SPINE:
            slots = [node.x + port for port in SPINE_PORTS]
        else:
            reach = (node.width - RAIL_ENDS) // 2
            slots = [x for x in range(node.x - reach, node.x + reach + 1) if x % 2]
        needed = sum(stub.slots for stub in self._sides[side])
        if needed > len(slots):
            raise CannotDrawError(
                f"{state} has {needed} arrows {channel} it and room for {len(slots)}: "
                f"give it or its neighbours another `place` in the chart."
            )
        step = 2 if 2 * needed - 1 <= len(slots) else 1
        loop = next((stub for stub in self._sides[side] if stub.bus is None), None)
        if loop is not None and step == 1 and needed < len(slots):
            loop.slots, needed = 3, needed + 1
        first = (len(slots) - step * (needed - 1) - 1) // 2
        return slots[first : first + step * (needed - 1) + 1 : step]

    def _lanes(self) -> None:
        """Give each bus to the other rail a gap of the spine of its own, as near to where it comes from as there is one."""
        spine = [round(place.column) for place in self._places.values() if place.rail is Rail.SPINE]
        free = [column * PITCH + LANE for column in range(min(spine) - 1, max(spine) + 1)]
        for track in self._tracks.values():
            if track.end is not None:
                continue
            near = [self._nodes[tap.edge.source].x for tap in track.taps if tap.edge is not None]
            if not free:
                raise CannotDrawError(
                    f"no gap of the spine is left for the arrows to {track.dest}: give it another `place`."
                )
            middle = sum(near) / len(near)
            _, lane = min((abs(lane - middle), lane) for lane in free)
            free.remove(lane)
            track.lane = lane
            self._tracks[track.dest, _other(track.channel)].from_lanes.append(lane)

    # --- the order of ports and buses ---

    def plan(self) -> Plan:
        for side, stubs in self._sides.items():
            stubs.sort(key=self._pull)
            self._spread(side)
        buses: list[Bus] = []
        for channel in _CHANNELS:
            order = self._searched(channel)
            levels: list[int] = []
            for index, track in enumerate(order):
                below = [levels[i] for i in range(index) if _meet(order[i], track)]
                levels.append(1 + max(below, default=0))
            buses += [self._bus(track, level) for track, level in zip(order, levels, strict=True)]
        loops = [self._placed(edge, stub) for edge, stub in self._loops]
        return Plan(self._nodes, tuple(self._straight), tuple(buses), tuple(loops))

    def _pull(self, stub: _Stub) -> float:
        """Where the other end of a stub is: left or right of it."""
        if stub.bus is None:
            return float(10**6)
        if stub.edge is not None:
            return float(stub.bus.lane if stub.bus.lane is not None else self._nodes[stub.bus.dest].x)
        sources = [self._nodes[tap.edge.source].x for tap in stub.bus.taps if tap.edge is not None]
        return sum(sources) / len(sources) if sources else 0.0

    def _spread(self, side: Side) -> None:
        slots, at = self._slots[side], 0
        for stub in self._sides[side]:
            stub.x = slots[at]
            at += stub.slots

    def _searched(self, channel: Rail) -> list[_Track]:
        """Return the buses of a channel from the spine outwards, with as few crossings as swapping finds."""
        order = sorted(
            (track for track in self._tracks.values() if track.channel is channel),
            key=lambda track: (max(track.places()) - min(track.places()), track.dest),
        )
        sides = [side for side in self._sides if side[1] is channel]
        cost = self._cost(order)
        for _ in range(SWEEPS_MAX):
            before = cost
            cost = self._swapped_buses(order, cost)
            for side in sides:
                cost = self._swapped_ports(side, order, cost)
            if cost == before:
                break
        return order

    def _swapped_buses(self, order: list[_Track], cost: int) -> int:
        """Swap two buses wherever that costs less; return what it costs now."""
        for i, j in combinations(range(len(order)), 2):
            order[i], order[j] = order[j], order[i]
            found = self._cost(order)
            if found < cost:
                cost = found
            else:
                order[i], order[j] = order[j], order[i]
        return cost

    def _swapped_ports(self, side: Side, order: list[_Track], cost: int) -> int:
        """Swap two ports wherever that costs less; return what it costs now."""
        stubs = self._sides[side]
        for i, j in combinations(range(len(stubs)), 2):
            stubs[i], stubs[j] = stubs[j], stubs[i]
            self._spread(side)
            found = self._cost(order)
            if found < cost:
                cost = found
            else:
                stubs[i], stubs[j] = stubs[j], stubs[i]
                self._spread(side)
        return cost

    def _cost(self, order: list[_Track]) -> int:
        top = len(order) + 1
        spans = [(min(track.places()), max(track.places())) for track in order]
        total = 0
        for level, track in enumerate(order, start=1):
            uprights = [(tap.x, self._nodes[tap.edge.source].rail) for tap in track.taps if tap.edge is not None]
            uprights.append((track.end_x(), Rail.SPINE if track.lane is not None else self._nodes[track.dest].rail))
            uprights += [(lane, Rail.SPINE) for lane in track.from_lanes]
            total += RUN_COST * (spans[level - 1][1] - spans[level - 1][0])
            for x, rail in uprights:
                low, high = (0, level) if rail is Rail.SPINE else (level, top)
                total += RISE_COST * (high - low)
                total += CROSSING_COST * sum(
                    spans[i][0] < x < spans[i][1] for i in range(low, high - 1) if i + 1 != level
                )
        return total

    # --- what comes out ---

    def _bus(self, track: _Track, level: int) -> Bus:
        taps = [Tap(tap.edge, tap.x) for tap in track.taps] + [Tap(None, lane) for lane in track.from_lanes]
        taps.sort(key=lambda tap: tap.x)
        return Bus(track.dest, track.channel, level, tuple(taps), track.end_x(), track.lane is not None)

    def _placed(self, edge: Edge, stub: _Stub) -> Loop:
        (channel,) = [channel for (_, channel), stubs in self._sides.items() if stub in stubs]
        slots = self._slots[edge.source, channel]
        return Loop(edge, channel, stub.x, slots[slots.index(stub.x) + stub.slots - 1])


_CHANNELS = (Rail.ABOVE, Rail.BELOW)


def _other(channel: Rail) -> Rail:
    return Rail.BELOW if channel is Rail.ABOVE else Rail.ABOVE


def _meet(one: _Track, other: _Track) -> bool:
    return min(one.places()) - LABEL_GAP < max(other.places()) and min(other.places()) - LABEL_GAP < max(one.places())
