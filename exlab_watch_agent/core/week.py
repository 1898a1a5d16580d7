"""What the last week was like: what happened and is over, and how fast the disks fill.

Decided here: what is kept for how long, and when a disk is foreseen to be full. Not here: whom that needs (attention.py). What a
damaged file leaves out is missing and harms nobody: nothing depends on it but what is told. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from exlab_watch_agent.core.members import block, moment, number, text, time_text

KEPT_FOR = timedelta(days=7)
SAMPLE_EVERY = timedelta(hours=1)
SPAN_MIN = timedelta(hours=12)
"""What was written within less says nothing of a week: one large run would be taken for the rate of every day."""
LEFT_MAX = timedelta(days=36_500)
HAPPENINGS_MAX = 2000


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened once and is over. `code`: as that of a problem; `run_path`: empty where it is about an instrument."""

    at: datetime
    code: str
    equipment_id: str
    sentence: str
    run_path: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "at": time_text(self.at),
            "code": self.code,
            "equipment_id": self.equipment_id,
            "sentence": self.sentence,
            "run_path": self.run_path,
        }


@dataclass(frozen=True, slots=True)
class Room:
    """How much room was free at a time, in bytes."""

    at: datetime
    free_bytes: int

    def to_json(self) -> dict[str, object]:
        return {"at": time_text(self.at), "free_bytes": self.free_bytes}


@dataclass(frozen=True, slots=True)
class Week:
    """`here`, `there`: equipment id → how much room the disk of its folder, and its destination, had, the oldest first."""

    happened: tuple[Happening, ...] = ()
    here: Mapping[str, tuple[Room, ...]] = field(default_factory=dict)
    there: Mapping[str, tuple[Room, ...]] = field(default_factory=dict)

    def with_happening(self, happening: Happening) -> Week:
        kept = [one for one in self.happened if happening.at - one.at <= KEPT_FOR]
        return replace(self, happened=(*kept, happening)[-HAPPENINGS_MAX:])

    def with_room(self, equipment_id: str, *, here: Room | None, there: Room | None) -> Week:
        """Return the week with these samples; with itself where none is due."""
        local, remote = _with(self.here, equipment_id, here), _with(self.there, equipment_id, there)
        if local is self.here and remote is self.there:
            return self
        return replace(self, here=local, there=remote)

    def to_json(self) -> dict[str, object]:
        return {
            "schema": 1,
            "happened": [happening.to_json() for happening in self.happened],
            "here": {name: [room.to_json() for room in rooms] for name, rooms in self.here.items()},
            "there": {name: [room.to_json() for room in rooms] for name, rooms in self.there.items()},
        }

    @classmethod
    def from_json(cls, left: object) -> Week:
        """Return what can be read of what an agent left."""
        if not isinstance(left, dict):
            return cls()
        happened = left.get("happened")
        return cls(
            tuple(_happenings(happened if isinstance(happened, list) else [])),
            _rooms(block(left, "here")),
            _rooms(block(left, "there")),
        )


def _with(kept: Mapping[str, tuple[Room, ...]], name: str, room: Room | None) -> Mapping[str, tuple[Room, ...]]:
    before = kept.get(name, ())
    if room is None or (before and timedelta(0) <= room.at - before[-1].at < SAMPLE_EVERY):
        return kept
    # A clock that was set back leaves samples of the future behind, which say nothing.
    recent = [one for one in before if timedelta(0) <= room.at - one.at <= KEPT_FOR]
    return {**kept, name: (*recent, room)}


def full_in(rooms: tuple[Room, ...], *, now: datetime) -> timedelta | None:
    """Return in how long this disk is full at the rate of the last week; None where it does not fill, or too little is known."""
    of_week = [room for room in rooms if timedelta(0) <= now - room.at <= KEPT_FOR]
    if len(of_week) < 2:
        return None
    first, last = of_week[0], of_week[-1]
    span, used = last.at - first.at, first.free_bytes - last.free_bytes
    if span < SPAN_MIN or used <= 0:
        return None
    left_s = span.total_seconds() * last.free_bytes / used
    return timedelta(seconds=min(left_s, LEFT_MAX.total_seconds()))


def _happenings(left: list[object]) -> list[Happening]:
    found: list[Happening] = []
    for one in left:
        if isinstance(one, dict) and (at := moment(one, "at")) is not None:
            words = (text(one, name) for name in ("code", "equipment_id", "sentence", "run_path"))
            found.append(Happening(at, *words))
    return found


def _rooms(left: Mapping[str, object]) -> dict[str, tuple[Room, ...]]:
    found: dict[str, tuple[Room, ...]] = {}
    for name, rooms in left.items():
        listed = [one for one in rooms if isinstance(one, dict)] if isinstance(rooms, list) else []
        read = [(moment(one, "at"), number(one, "free_bytes")) for one in listed]
        found[name] = tuple(Room(at, free_bytes) for at, free_bytes in read if at is not None)
    return found
