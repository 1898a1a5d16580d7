"""What can be forgotten: of what is gone, no longer configured or lost, and nothing that can be mended; and for how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from exlab_watch_agent.core.attention import attention
from exlab_watch_agent.core.forgetting import is_of, refusal, rest, to_forget
from exlab_watch_agent.core.incidents import IncidentKind
from exlab_watch_agent.core.problem import TIERS, Dismissal, Problem, Tier
from exlab_watch_agent.core.record import LastError, RunRecord
from exlab_watch_agent.core.run_problems import is_told_as_gone
from exlab_watch_agent.core.snapshot import Note
from exlab_watch_agent.core.ways_out import LOCAL_CHANGED, LOCAL_MISSING
from exlab_watch_agent.statechart import RunState
from tests.core.test_attention import DAMAGE, NO_COPY, NOW, RUN, codes, judged, record, situation

GONE = {f"job {RUN}": Note("run_gone", "it is gone")}
NETWORK = LastError("network", "the line broke")
SEALED: dict[str, Any] = {"sealed_at": NOW, "verified_at": NOW}
ALTERED = replace(DAMAGE, id="job/8", kind=IncidentKind.SEAL_ALTERED)


def beyond(found: list[Problem]) -> list[str]:
    return [one.code for one in found if one.is_beyond_mending]


# --- of what is gone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["acquiring", "blocked", "queued", "failed", "conflict"])
def test_a_run_that_is_gone_and_was_never_sealed_is_told_as_that_alone_and_can_be_forgotten(state: str) -> None:
    """What it was waiting for is of no use any more: there is one problem, and one command."""
    old = NOW - timedelta(days=3)
    run = record(RunState(state), last_error=NETWORK, attempts=2, enqueued_at=old)
    assert is_told_as_gone(run)
    (found,) = judged(run, run_problems=GONE)
    assert (found.tier, found.code, found.command) == (
        Tier.NEEDS_YOU, "run_gone", f'exlab-watch-agent forget {RUN} --reason "..."',
    )  # fmt: skip
    assert found.is_beyond_mending


@pytest.mark.parametrize("state", RunState)
def test_what_is_under_way_or_proven_is_never_told_as_gone_by_that_alone(state: RunState) -> None:
    """The copy of a sealed run is hashed first, and of one that failed or is in conflict it is said what it needs."""
    rests = state in (RunState.ACQUIRING, RunState.BLOCKED, RunState.QUEUED)
    assert is_told_as_gone(record(state, **SEALED)) == rests
    assert is_told_as_gone(record(state)) == (rests or state in (RunState.FAILED, RunState.CONFLICT))


def test_a_sealed_run_that_waits_to_be_healed_and_is_gone_is_not_forgotten() -> None:
    run = record(RunState.QUEUED, incidents=(DAMAGE,), **SEALED)
    assert beyond(judged(run, run_problems=GONE)) == []


# --- of what is lost -------------------------------------------------------------------------------------------------

LOST: list[tuple[str, RunRecord, list[str]]] = [
    ("cleaned, and the copy is lost", record(RunState.CLEANED, last_error=NO_COPY, incidents=(DAMAGE,)), ["only_copy_lost"]),
    ("proven, nothing here, no copy there", record(RunState.VERIFIED, last_error=NO_COPY), ["only_copy_lost"]),
    (
        "in conflict for that, nothing here",
        record(RunState.CONFLICT, last_error=NO_COPY, gone_at=NOW, **SEALED),
        ["only_copy_lost"],
    ),
    ("in conflict for that, and data are here again", record(RunState.CONFLICT, last_error=NO_COPY, **SEALED), []),
    ("cleaned, and the seal is not right", record(RunState.CLEANED, incidents=(ALTERED,)), ["seal_altered"]),
    ("the copy is damaged, and the data are here", record(RunState.QUEUED, incidents=(DAMAGE,), **SEALED), []),
    ("the data are back, and not compared yet", record(RunState.QUEUED, gone_at=NOW, incidents=(DAMAGE,), **SEALED), []),
    ("it was cancelled before that", record(RunState.FAILED, last_error=NETWORK, gone_at=NOW, incidents=(DAMAGE,), **SEALED), []),
    ("what is back is other data", record(RunState.CONFLICT, last_error=LastError(LOCAL_CHANGED, "x"), gone_at=NOW,
                                          incidents=(DAMAGE,), **SEALED), []),
    ("the heal failed", record(RunState.FAILED, last_error=NETWORK, incidents=(DAMAGE,), **SEALED), []),
    ("some files are missing here", record(RunState.CONFLICT, last_error=LastError(LOCAL_MISSING, "x"), **SEALED), []),
    ("the data changed", record(RunState.CONFLICT, last_error=LastError(LOCAL_CHANGED, "x"), **SEALED), []),
    ("the only copy could not be looked at", record(RunState.CLEANED, last_error=NETWORK), []),
    ("failed", record(RunState.FAILED, last_error=NETWORK), []),
    ("cancelled", record(RunState.FAILED, last_error=LastError("cancelled", "cancelled by asmith: x")), []),
    ("blocked", record(RunState.BLOCKED, last_error=LastError("reserved_filesystem_name", "x")), []),
    ("somebody removed it, and the copy is right", record(RunState.CLEANED, gone_at=NOW), []),
]  # fmt: skip


@pytest.mark.parametrize(("run", "codes_beyond"), [case[1:] for case in LOST], ids=[case[0] for case in LOST])
def test_only_what_nothing_here_can_mend_is_beyond_mending(run: RunRecord, codes_beyond: list[str]) -> None:
    assert beyond(judged(run)) == codes_beyond


def test_a_loss_keeps_its_name_while_it_lasts_and_another_loss_has_another() -> None:
    lost = record(RunState.CLEANED, last_error=NO_COPY, incidents=(DAMAGE,), **SEALED)
    (first,) = judged(lost)
    audited = replace(lost, turn=lost.turn + 1, entered_at=NOW + timedelta(days=1))
    assert judged(audited)[0].id == first.id, "it was looked at once more"
    more = replace(lost, incidents=(DAMAGE, replace(DAMAGE, id="job/9", files_total=3)))
    assert judged(more)[0].id != first.id, "more is lost"
    found_again = replace(lost, verified_at=NOW + timedelta(days=2))
    assert judged(found_again)[0].id != first.id, "it was right in between"


# --- of what is no longer configured ---------------------------------------------------------------------------------


def test_an_instrument_that_is_not_configured_is_forgotten_with_what_is_wrong_with_its_copies() -> None:
    runs = (record(RunState.VERIFIED, incidents=(DAMAGE,), **SEALED), record(RunState.FAILED, RUN + "-01"))
    found = judged(*runs, known_equipment=frozenset())
    assert codes(found) == [("risk", "copy_damaged"), ("needs_you", "equipment_unknown")]
    assert [one.is_beyond_mending for one in found] == [True, True]
    assert found[1].command == 'exlab-watch-agent forget SCOPE_01 --reason "..."'
    (again,) = [one for one in judged(*runs, known_equipment=frozenset()) if one.code == "equipment_unknown"]
    assert again.id == found[1].id
    moved = (runs[0], replace(runs[1], turn=runs[1].turn + 1))
    (later,) = [one for one in judged(*moved, known_equipment=frozenset()) if one.code == "equipment_unknown"]
    assert later.id != found[1].id, "it was looked after in between"


# --- what a person says of it ----------------------------------------------------------------------------------------


def test_what_was_forgotten_is_not_told_while_it_is_beyond_mending_and_counts_again_once_it_is_not() -> None:
    told = situation(record(RunState.CLEANED, last_error=NO_COPY, **SEALED))
    (found,) = attention(told)
    forgotten = replace(told, dismissals={found.id: Dismissal("asmith", "the disk is dead")})
    (after,) = attention(forgotten)
    assert (after.is_dismissed, after.detail["dismissed_by"]) == (True, "asmith")
    mendable = replace(found, is_beyond_mending=False)
    assert not forgotten.dismissals[found.id].holds(mendable, now=NOW)


def test_of_a_run_its_own_problems_are_meant_and_of_an_instrument_all() -> None:
    own = Problem("run_gone", RUN, "", "", "SCOPE_01", (RUN,))
    lane = Problem("nas_unreachable", "SCOPE_01", "", "", "SCOPE_01", (RUN, RUN + "-01"))
    other = Problem("run_gone", "/data/B/r", "", "", "B", ("/data/B/r",))
    assert [is_of(one, run_path=RUN) for one in (own, lane, other)] == [True, False, False]
    assert [is_of(one, equipment_id="SCOPE_01") for one in (own, lane, other)] == [True, True, False]


MENDABLE = Problem("nas_sync_failed", RUN, "the line broke", "exlab-watch-agent retry R", "SCOPE_01", (RUN,))
FORGETTABLE = Problem("run_gone", RUN, "", "", "SCOPE_01", (RUN,), is_beyond_mending=True)
NOTICE = Problem("repaired", RUN, "", "", "SCOPE_01", (RUN,))
DONE = replace(FORGETTABLE, is_dismissed=True)


@pytest.mark.parametrize(
    ("found", "ids", "said"),
    [
        ([], 0, "There is no problem of R that could be forgotten."),
        ([DONE], 0, "Nothing of R is told any more."),
        (
            [MENDABLE],
            0,
            "nas_sync_failed of R can still be mended, and is not forgotten before that. -> exlab-watch-agent retry R",
        ),
        ([FORGETTABLE, NOTICE, DONE], 1, ""),
        ([FORGETTABLE, MENDABLE], 1, "; 1 other problem of it needs you, the first: exlab-watch-agent retry R"),
    ],
)
def test_what_can_be_mended_is_refused_with_the_command_that_mends_it(
    found: list[Problem], ids: int, said: str
) -> None:
    assert len(to_forget(found)) == ids
    assert (rest(found) if ids else refusal(found, "R")) == said


def test_every_code_that_is_beyond_mending_is_one_of_the_codes() -> None:
    assert {"run_gone", "only_copy_lost", "equipment_unknown"} <= TIERS.keys()
