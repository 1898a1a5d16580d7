"""Which place at its destination root a run has: where a copy of it is found, else where the layout puts it.

ExLab-Wizard copies a run to `<leaf>/` (its rclone, our layout `flat`) or to `<leaf>/<leaf>/` (its rsync), without a claim. A run
that is found claimed or left at one of these places is proven there and keeps that place, whatever the layout says. Decided here:
which places are looked at, what the data files at a place without a claim say, and which place it is. Not here: what a claim
means (claim.py), and what becomes of the run (decide.py).

Sizes decide nothing in a run's favour: what looks like its copy here is hashed on both sides before a byte is written there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from exlab_watch_agent.core.claim import Claim, DestinationLook, DestinationStanding, standing
from exlab_watch_agent.core.discovery import RunPlace, destination_of
from exlab_watch_agent.core.policy import Layout

_RCLONE_PARTIAL = re.compile(r"(?P<path>.+)\.[0-9a-f]{8}\.partial")
_RSYNC_PARTIAL = re.compile(r"(?P<folder>(?:.*/)?)\.(?P<name>[^/]+)\.[A-Za-z0-9]{6}")


class Footing(StrEnum):
    """What a run's place at the NAS rests on, as its record keeps it.

    `OWN`: on a claim of ours, or on the layout. `OPEN`: on nothing yet; it is decided once the work under way has ended.
    `LEFT_THERE`: on a copy without a claim, which is to be proven. `SHOWN`: on such a copy of which every file was found equal,
    and some are missing.
    """

    OWN = "own"
    OPEN = "open"
    LEFT_THERE = "left_there"
    SHOWN = "shown"


class Holding(StrEnum):
    """What data files are at a place without a claim, by name and size, beside those that the run has.

    `NONE`: no file at all. `PART`: some of the run's and no other. `WHOLE`: all of them and no other. `OTHER`: a file of the run's
    with another size, or some of the run's and some that it does not have. `MORE`: all of them and some that it does not have.
    `STRANGE`: none of the run's.
    """

    NONE = "none"
    PART = "part"
    WHOLE = "whole"
    OTHER = "other"
    MORE = "more"
    STRANGE = "strange"


@dataclass(frozen=True, slots=True)
class Held:
    """What is at a place, and the first file (sorted) that keeps it from being the run's copy; empty where none does."""

    holding: Holding
    first: str = ""


@dataclass(frozen=True, slots=True)
class SeenPlace:
    """One place as it was seen. `held` is asked for where something is there that nobody claims, else None.

    `is_our_seal`: as in `standing`.
    """

    destination: str
    look: DestinationLook
    held: Held | None = None
    is_our_seal: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """The place that a run has, whose it is, and what was seen there. `detail`: in words what it holds, where that is mixed;
    `sign_fault`: why the sign of life of whoever holds it may be none, in a sentence."""

    destination: str
    standing: DestinationStanding
    look: DestinationLook
    detail: str = ""
    sign_fault: str = ""


def other_places(place: RunPlace, layout: Layout) -> tuple[str, ...]:
    """Return where else than at the layout's place a copy of a run may be, in the order of preference.

    A place within another one comes right after it.
    """
    flat = destination_of(place, Layout.FLAT)
    every = (destination_of(place, Layout.MIRROR), flat, nested_in(flat))
    return tuple(path for path in every if path != destination_of(place, layout))


def nested_in(flat: str) -> str:
    """Return where ExLab-Wizard's rsync puts a run that its rclone would put to `flat`."""
    return f"{flat}/{flat}"


def place_within(destination: str) -> str:
    """Return the place that there may be within this one, empty where there can be none."""
    return "" if "/" in destination else nested_in(destination)


def not_below(folder: str, paths: Iterable[str]) -> list[str]:
    """Return the paths that are not in a folder which is a place of its own; all of them where its name is empty."""
    return [path for path in paths if not (folder and path.startswith(f"{folder}/"))]


def may_be_left(destination: str) -> bool:
    """Whether ExLab-Wizard may have put a copy there: where the project is no part of the place."""
    parts = destination.split("/")
    return len(parts) == 1 or (len(parts) == 2 and parts[0] == parts[1])


def held_at(sizes: Mapping[str, int], there: Mapping[str, int], *, below: str = "") -> Held:
    """Return what a place holds. `sizes`: the run's data files, path → bytes; `there`: those at the place.

    `below`: a folder there that is a place of its own, which does not count. What a killed rclone or rsync left of a file of the
    run under a name of its own is nobody's data.
    """
    found = {path: there[path] for path in not_below(below, there)}
    others = sorted(path for path in found.keys() - sizes.keys() if not _is_cut_off(path, sizes))
    ours = found.keys() & sizes.keys()
    differing = sorted(path for path in ours if found[path] != sizes[path])
    if not ours:
        return Held(Holding.STRANGE, others[0]) if others else Held(Holding.NONE)
    if differing or (others and len(ours) < len(sizes)):
        return Held(Holding.OTHER, (differing or others)[0])
    if others:
        return Held(Holding.MORE, others[0])
    return Held(Holding.WHOLE if len(ours) == len(sizes) else Holding.PART)


def place_of_copy(seen: Sequence[SeenPlace], mine: Claim) -> Found:
    """Return which place a run has. `seen`: what was seen at each, the layout's first; at least that one.

    1. where a claim of ours is; 2. where another claim of this run is; 3. the layout's, where a copy without a claim is this
    run's by its `creation.json`; 4. where ExLab-Wizard left a copy of this run, a whole one before a partial one, and either
    before one that is mixed with other data; 5. the layout's.
    """
    best = min(seen, key=lambda one: _rank(one, mine))  # the first of equals
    match _rank(best, mine):
        case _Rank.LEFT_WHOLE | _Rank.LEFT_IN_PART:
            return Found(best.destination, DestinationStanding.LEFT_THERE, best.look)
        case _Rank.MIXED:
            return Found(best.destination, DestinationStanding.OCCUPIED, best.look, _mixed(best, mine))
        case _Rank.NOT_HERE:
            best = seen[0]
    return Found(best.destination, standing(best.look, mine, is_our_seal=best.is_our_seal), best.look)


class _Rank(IntEnum):
    """What speaks for a place, the strongest first."""

    CLAIMED_BY_US = 0
    CLAIMED_FOR_THE_RUN = 1
    NAMED_BY_CREATION = 2
    LEFT_WHOLE = 3
    LEFT_IN_PART = 4
    MIXED = 5
    NOT_HERE = 6


_BY_HOLDING = {
    Holding.NONE: _Rank.NOT_HERE,
    Holding.PART: _Rank.LEFT_IN_PART,
    Holding.WHOLE: _Rank.LEFT_WHOLE,
    Holding.OTHER: _Rank.MIXED,
    Holding.MORE: _Rank.MIXED,
    Holding.STRANGE: _Rank.NOT_HERE,
}
_NAMED_BY_HOLDING = {**_BY_HOLDING, Holding.NONE: _Rank.LEFT_IN_PART, Holding.STRANGE: _Rank.MIXED}


def _rank(one: SeenPlace, mine: Claim) -> _Rank:
    look = one.look
    if look.claim is not None:
        if look.claim.is_of(mine):
            return _Rank.CLAIMED_BY_US
        return _Rank.CLAIMED_FOR_THE_RUN if look.claim.names_same_run(mine) else _Rank.NOT_HERE
    if look.is_empty:
        return _Rank.NOT_HERE
    is_named = look.identity == mine.identity
    if not may_be_left(one.destination):
        return _Rank.NAMED_BY_CREATION if is_named else _Rank.NOT_HERE
    if one.held is None:
        return _Rank.NOT_HERE
    if is_named:
        return _NAMED_BY_HOLDING[one.held.holding]
    if look.identity is None:
        return _BY_HOLDING[one.held.holding]
    # Another run was copied there last: of two that were, all files of this one are there, and more.
    return _Rank.MIXED if one.held.holding is Holding.MORE else _Rank.NOT_HERE


def _mixed(one: SeenPlace, mine: Claim) -> str:
    """Return in words what a place holds in which a copy of this run is not alone, or not as it is here."""
    assert one.held is not None, "that is by what it is mixed"
    if _names_another(one.look, mine):
        return f"data of this run mixed with those of another one (first: {one.held.first})"
    return f"a copy of this run that no agent made, with data that are not as they are here (first: {one.held.first})"


def _names_another(look: DestinationLook, mine: Claim) -> bool:
    """Whether the `creation.json` of a place is that of another run."""
    return look.identity is not None and look.identity != mine.identity


def _is_cut_off(path: str, sizes: Iterable[str]) -> bool:
    """Whether this is what a killed rclone (`<name>.<8 hex>.partial`) or rsync (`.<name>.<6 letters>`) left of one of these."""
    by_rclone = _RCLONE_PARTIAL.fullmatch(path)
    if by_rclone is not None and by_rclone["path"] in sizes:
        return True
    by_rsync = _RSYNC_PARTIAL.fullmatch(path)
    return by_rsync is not None and by_rsync["folder"] + by_rsync["name"] in sizes
