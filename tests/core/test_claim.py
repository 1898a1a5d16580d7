"""Whose a destination folder is, and what is said of one that is not ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exlab_watch_agent.core.claim import (
    NOBODY_KNOWN,
    Claim,
    DestinationLook,
    DestinationStanding,
    FormerHolder,
    as_last_seen,
    conflict_at,
    may_be_displaced,
    standing,
)
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.rollback import TrailPosition

IDENTITY = RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", "Run_2026-04-17T14-32")
OTHER_IDENTITY = replace(IDENTITY, created_by="bjones")
MINE = Claim("job-1", "EQ", "P/Runs/Run_2026-04-17T14-32", IDENTITY)
BY_FOLDER = replace(MINE, state_folder="ours", host="labpc")
SAME_RUN = replace(MINE, job_id="job-2")
NOTHING = DestinationLook(is_empty=True, claim=None, identity=None)
S = DestinationStanding


def look(**found: Any) -> DestinationLook:
    return replace(NOTHING, is_empty=False, **found)


@pytest.mark.parametrize(
    ("found", "whose"),
    [
        (NOTHING, S.FREE),
        (look(), S.OCCUPIED),
        (look(claim=MINE), S.OURS),
        (look(claim=MINE, is_sealed=True), S.OURS),
        (look(claim=replace(MINE, run="another place", identity=OTHER_IDENTITY)), S.OURS),
        (look(claim=SAME_RUN), S.CLAIMED_UNSEALED),
        (look(claim=SAME_RUN, is_sealed=True), S.CLAIMED_BY_OTHER_AGENT),
        (look(claim=SAME_RUN, identity=IDENTITY), S.CLAIMED_UNSEALED),
        (look(claim=replace(SAME_RUN, identity=OTHER_IDENTITY)), S.OCCUPIED),
        (look(claim=replace(SAME_RUN, run="P/Runs/Run_2026-04-17T14-33")), S.OCCUPIED),
        (look(claim=replace(SAME_RUN, equipment_id="EQ_2"), is_sealed=True), S.OCCUPIED),
        (look(identity=IDENTITY), S.OURS),
        (look(claim=replace(MINE, state_folder="another")), S.OURS),
        (look(claim=replace(BY_FOLDER, state_folder="another")), S.CLAIMED_UNSEALED),
        (look(claim=replace(BY_FOLDER, state_folder="another"), is_sealed=True), S.CLAIMED_BY_OTHER_AGENT),
        (look(identity=IDENTITY, is_sealed=True), S.SEALED_UNCLAIMED),
        (look(identity=OTHER_IDENTITY), S.OCCUPIED),
        (look(identity=OTHER_IDENTITY, is_sealed=True), S.OCCUPIED),
    ],
)
def test_a_folder_is_ours_by_our_job_or_where_nobody_says_that_it_is_another_s(
    found: DestinationLook, whose: S
) -> None:
    mine = BY_FOLDER if found.claim is not None and found.claim.host else MINE
    assert standing(found, mine) is whose


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("where", list(S))
def test_only_a_folder_that_is_ours_or_may_be_is_gone_on_with(where: S, is_sealed: bool) -> None:
    conflict = conflict_at(where, "P/Runs/R", holder="job 7 on labpc-07", is_sealed=is_sealed)
    # One that may be adopted is gone on with by proving it, not by writing there.
    may_be_ours = where in (S.UNASKED, S.FREE, S.OURS, S.ADOPTABLE, S.LEFT_THERE) or (
        where is S.SEALED_UNCLAIMED and is_sealed
    )
    assert (conflict is None) is may_be_ours
    if conflict is not None:
        assert conflict.message.startswith("P/Runs/R ")
        assert "job 7 on labpc-07" in conflict.message
    if conflict is not None:
        assert "exlab-watch-agent resolve RUN --" in conflict.message


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (S.OCCUPIED, "destination_occupied"),
        (S.OCCUPIED_HERE, "destination_occupied"),
        (S.CLAIMED_BY_OTHER_AGENT, "claimed_by_other_agent"),
        (S.SEALED_UNCLAIMED, "claimed_by_other_agent"),
        (S.CLAIMED_UNSEALED, "claimed_unsealed"),
    ],
)
def test_each_kind_of_conflict_has_its_name(where: S, kind: str) -> None:
    conflict = conflict_at(where, "P/Runs/R", holder="", is_sealed=False)
    assert conflict is not None
    assert conflict.kind == kind
    assert "()" not in conflict.message


@pytest.mark.parametrize("is_sealed", [False, True])
def test_what_another_copy_of_our_state_folder_sealed_is_not_ours(is_sealed: bool) -> None:
    whose = standing(look(claim=BY_FOLDER, is_sealed=is_sealed), BY_FOLDER, is_our_seal=False)
    assert whose is (S.CLAIMED_BY_OTHER_AGENT if is_sealed else S.CLAIMED_UNSEALED)


@pytest.mark.parametrize(
    ("claim", "is_told"),
    [
        (MINE, True),
        (BY_FOLDER, True),
        (replace(BY_FOLDER, job_id="job-2"), True),
        (replace(BY_FOLDER, state_folder="another"), False),
        (SAME_RUN, False),
        (None, False),
    ],
)
def test_the_anchor_in_a_claim_speaks_of_our_trail_where_we_made_it_for_whichever_job(
    claim: Claim | None, is_told: bool
) -> None:
    anchor = TrailPosition(7, "a" * 64)
    assert look(claim=claim, anchor=anchor).anchor_of(BY_FOLDER) == (anchor if is_told else None)


def test_whoever_takes_a_copy_over_names_all_who_held_it_before() -> None:
    first = replace(MINE, job_id="job-0", state_folder="a", host="one")
    second = first.taken_over(replace(MINE, state_folder="b", host="two"), sealed_at="then")
    third = second.taken_over(replace(MINE, job_id="job-3", state_folder="c"), sealed_at="later")
    assert (second.generation, third.generation) == (2, 3)
    assert third.former == (FormerHolder("a", "one", "job-0", "then"), FormerHolder("b", "two", "job-1", "later"))
    again = replace(MINE, job_id="job-3", state_folder="c", host="renamed")
    assert third.kept_by(again) == replace(again, generation=3, former=third.former)


HELD = (S.OCCUPIED, S.CLAIMED_UNSEALED, S.CLAIMED_BY_OTHER_AGENT, S.SEALED_UNCLAIMED, S.ADOPTABLE)


@pytest.mark.parametrize("where", list(S))
def test_an_operators_word_displaces_the_holder_it_was_for_and_nobody_else(where: S) -> None:
    is_held = where in HELD
    assert may_be_displaced(where, consent=as_last_seen("b/7/1/m"), holding="b/7/1/") is is_held
    assert may_be_displaced(where, consent="b/7/1/", holding="b/7/1/") is is_held
    assert not may_be_displaced(where, consent="", holding="")
    for came_after in ("b/7/1/sealed", "b/7/3/", "c/7/1/", NOBODY_KNOWN):
        assert not may_be_displaced(where, consent="b/7/1/", holding=came_after)
