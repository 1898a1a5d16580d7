"""Which place at the NAS a run has, over what was seen at each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exlab_watch_agent.core.claim import Claim, DestinationLook, DestinationStanding
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.places import (
    Held,
    Holding,
    SeenPlace,
    held_at,
    may_be_left,
    not_below,
    other_places,
    place_of_copy,
    place_within,
)
from exlab_watch_agent.core.policy import Layout

LEAF = "Run_2026-04-17T14-32"
MIRROR, FLAT, NESTED = f"P/Runs/{LEAF}", LEAF, f"{LEAF}/{LEAF}"
PLACE = RunPlace(f"/data/EQ/{MIRROR}", "EQ", "P", "Runs", LEAF)
IDENTITY = RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", LEAF)
OTHERS = replace(IDENTITY, project_uid="9d8f")
MINE = Claim("job-1", "EQ", MIRROR, IDENTITY, state_folder="ours")
THEIRS = replace(MINE, job_id="job-2", state_folder="theirs")
ANOTHER_RUN = replace(THEIRS, run=f"Q/Runs/{LEAF}", identity=OTHERS)
S = DestinationStanding
H = Holding


def empty(destination: str) -> SeenPlace:
    return SeenPlace(destination, DestinationLook(is_empty=True, claim=None, identity=None))


def seen(destination: str, holding: Holding | None = None, **found: Any) -> SeenPlace:
    look = replace(DestinationLook(is_empty=False, claim=None, identity=None), **found)
    return SeenPlace(destination, look, None if holding is None else Held(holding, "first.bin"))


@pytest.mark.parametrize(("layout", "others"), [(Layout.MIRROR, (FLAT, NESTED)), (Layout.FLAT, (MIRROR, NESTED))])
def test_a_copy_may_be_where_either_layout_or_exlab_wizard_puts_it(layout: Layout, others: tuple[str, ...]) -> None:
    assert other_places(PLACE, layout) == others
    assert [may_be_left(path) for path in (MIRROR, FLAT, NESTED)] == [False, True, True]


def test_what_is_in_a_place_within_another_is_not_that_one_s() -> None:
    assert place_within(FLAT) == NESTED
    assert [place_within(path) for path in (MIRROR, NESTED)] == ["", ""]
    paths = ["a", f"{LEAF}/a", f"{LEAF}2/a"]
    assert not_below(LEAF, paths) == ["a", f"{LEAF}2/a"]
    assert not_below("", paths) == paths


IN_MIRROR = [
    # what was seen: the layout's place first; the place that the run has, and whose it is
    ([empty(MIRROR), empty(FLAT)], MIRROR, S.FREE),
    # a claim keeps its place, whatever the layout says
    ([empty(MIRROR), seen(FLAT, claim=MINE)], FLAT, S.OURS),
    ([seen(MIRROR, claim=THEIRS), seen(FLAT, claim=MINE)], FLAT, S.OURS),
    ([empty(MIRROR), seen(FLAT, claim=THEIRS)], FLAT, S.CLAIMED_UNSEALED),
    ([empty(MIRROR), seen(FLAT, claim=THEIRS, is_sealed=True)], FLAT, S.CLAIMED_BY_OTHER_AGENT),
    ([empty(MIRROR), seen(FLAT, H.STRANGE), seen(NESTED, claim=THEIRS)], NESTED, S.CLAIMED_UNSEALED),
    # another run's is nothing of this run's
    ([empty(MIRROR), seen(FLAT, claim=ANOTHER_RUN)], MIRROR, S.FREE),
    ([empty(MIRROR), seen(FLAT, H.WHOLE, identity=OTHERS)], MIRROR, S.FREE),
    ([empty(MIRROR), seen(FLAT, H.PART, identity=OTHERS)], MIRROR, S.FREE),
    ([empty(MIRROR), seen(FLAT, H.OTHER, identity=OTHERS)], MIRROR, S.FREE),
    ([empty(MIRROR), seen(FLAT, H.STRANGE)], MIRROR, S.FREE),
    ([empty(MIRROR), seen(FLAT, H.NONE)], MIRROR, S.FREE),
    ([seen(MIRROR, identity=OTHERS), empty(FLAT)], MIRROR, S.OCCUPIED),
    # ExLab-Wizard's, with its creation.json or without
    ([empty(MIRROR), seen(FLAT, H.WHOLE, identity=IDENTITY)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.WHOLE, identity=IDENTITY, is_sealed=True)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.PART, identity=IDENTITY)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.NONE, identity=IDENTITY)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.WHOLE)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.PART)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.NONE), seen(NESTED, H.WHOLE, identity=IDENTITY)], NESTED, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.PART, identity=IDENTITY), seen(NESTED, H.WHOLE)], NESTED, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.WHOLE), seen(NESTED, H.WHOLE)], FLAT, S.LEFT_THERE),
    ([empty(MIRROR), seen(FLAT, H.OTHER, identity=IDENTITY), seen(NESTED, H.PART)], NESTED, S.LEFT_THERE),
    # what the layout's place has of this run comes first
    ([seen(MIRROR, identity=IDENTITY), seen(FLAT, H.WHOLE, identity=IDENTITY)], MIRROR, S.OURS),
    ([seen(MIRROR, identity=IDENTITY, is_sealed=True), empty(FLAT)], MIRROR, S.SEALED_UNCLAIMED),
    # mixed with other data, or not what is here
    ([empty(MIRROR), seen(FLAT, H.MORE, identity=IDENTITY)], FLAT, S.OCCUPIED),
    ([empty(MIRROR), seen(FLAT, H.OTHER, identity=IDENTITY)], FLAT, S.OCCUPIED),
    ([empty(MIRROR), seen(FLAT, H.STRANGE, identity=IDENTITY)], FLAT, S.OCCUPIED),
    ([empty(MIRROR), seen(FLAT, H.MORE)], FLAT, S.OCCUPIED),
    ([empty(MIRROR), seen(FLAT, H.OTHER)], FLAT, S.OCCUPIED),
    ([empty(MIRROR), seen(FLAT, H.MORE, identity=OTHERS)], FLAT, S.OCCUPIED),
]


@pytest.mark.parametrize(("places", "destination", "whose"), IN_MIRROR)
def test_a_run_has_the_place_where_a_copy_of_it_is_found_else_the_layout_s(
    places: list[SeenPlace], destination: str, whose: S
) -> None:
    found = place_of_copy(places, MINE)
    assert (found.destination, found.standing) == (destination, whose)
    is_mixed = whose is S.OCCUPIED and destination != MIRROR
    assert ("first.bin" in found.detail) is is_mixed


@pytest.mark.parametrize(
    ("places", "destination", "whose"),
    [
        ([empty(FLAT), empty(MIRROR)], FLAT, S.FREE),
        ([empty(FLAT), seen(MIRROR, claim=MINE)], MIRROR, S.OURS),
        ([seen(FLAT, H.WHOLE, identity=IDENTITY), empty(MIRROR)], FLAT, S.LEFT_THERE),
        ([seen(FLAT, H.STRANGE), empty(MIRROR), empty(NESTED)], FLAT, S.OCCUPIED),
        ([seen(FLAT, H.WHOLE, identity=OTHERS), empty(MIRROR), empty(NESTED)], FLAT, S.OCCUPIED),
        ([seen(FLAT, claim=ANOTHER_RUN), empty(MIRROR), empty(NESTED)], FLAT, S.OCCUPIED),
        ([seen(FLAT, H.NONE), empty(MIRROR), seen(NESTED, H.WHOLE, identity=IDENTITY)], NESTED, S.LEFT_THERE),
    ],
)
def test_in_the_flat_layout_what_exlab_wizard_left_is_at_the_layout_s_own_place(
    places: list[SeenPlace], destination: str, whose: S
) -> None:
    found = place_of_copy(places, MINE)
    assert (found.destination, found.standing) == (destination, whose)


SIZES = {"a.tif": 10, "deep/b.tif": 20}


@pytest.mark.parametrize(
    ("there", "held"),
    [
        ({}, Held(H.NONE)),
        ({"a.tif": 10}, Held(H.PART)),
        (SIZES, Held(H.WHOLE)),
        ({**SIZES, "z": 1, "c": 1}, Held(H.MORE, "c")),
        ({"a.tif": 10, "c": 1}, Held(H.OTHER, "c")),
        ({"a.tif": 9}, Held(H.OTHER, "a.tif")),
        ({**SIZES, "a.tif": 9, "z": 1}, Held(H.OTHER, "a.tif")),
        ({"c": 1}, Held(H.STRANGE, "c")),
        # a place of its own within this one
        ({f"{LEAF}/a.tif": 10, f"{LEAF}/.exlab-wizard/creation.json": 5}, Held(H.NONE)),
        ({"a.tif": 10, f"{LEAF}/a.tif": 10}, Held(H.PART)),
        # what a killed rclone or rsync leaves
        ({"a.tif": 10, "deep/b.tif.1f2e3d4c.partial": 7}, Held(H.PART)),
        ({"a.tif": 10, "deep/.b.tif.aB3dE9": 7}, Held(H.PART)),
        ({"deep/b.tif.1f2e3d4c.partial": 7}, Held(H.NONE)),
        ({"a.tif": 10, "c.tif.1f2e3d4c.partial": 7}, Held(H.OTHER, "c.tif.1f2e3d4c.partial")),
        ({"a.tif": 10, ".b.tif.aB3dE9": 7}, Held(H.OTHER, ".b.tif.aB3dE9")),
    ],
)
def test_what_is_there_is_told_by_names_and_sizes(there: dict[str, int], held: Held) -> None:
    assert held_at(SIZES, there, below=LEAF) == held
