"""The one rule of what needs a person: from when on it is told, how bad it is, and what helps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import orphan
from exlab_watch_agent.core.incidents import IncidentKind, incident_of
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import LastError, RunRecord
from exlab_watch_agent.report.problems import Moment, Problem, Severity, need_a_person, problems
from exlab_watch_agent.report.snapshot import LaneView, SeenEarlier, Snapshot, UnreadableView
from exlab_watch_agent.report.status import sentence
from exlab_watch_agent.statechart import RunState

NOW = datetime(2026, 4, 18, 12, 0, 0, tzinfo=UTC)
RUN = "/data/SCOPE_01/P/Runs/Run_2026-04-17T14-32"
FULL = LastError("destination_full", "no room")
GOES_ON, HAS_ENDED = Moment(NOW, is_ended=False), Moment(NOW, is_ended=True)


def record(state: RunState, **members: Any) -> RunRecord:
    identity = RunIdentity("2026-04-17T14:32:00Z", "asmith", "uid", "Run_2026-04-17T14-32")
    return RunRecord("job", RUN, "SCOPE_01", "P", "experimental", identity, NOW, state=state, **members)


def judged(*records: RunRecord, at: Moment = GOES_ON, **members: Any) -> list[Problem]:
    return problems(records, Snapshot(**members), policy=Policy(), known_equipment=frozenset({"SCOPE_01"}), at=at)


def kinds(found: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.severity.name, problem.kind) for problem in found]


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING, RunState.PRECHECKING, RunState.AWAITING_VERIFY])
def test_attempts_that_fail_are_told_from_the_second_on_while_an_agent_goes_on_and_else_at_once(
    state: RunState,
) -> None:
    for attempts, while_it_goes_on, after_it_ended in ((0, False, False), (1, False, True), (2, True, True)):
        one = record(state, attempts=attempts, last_error=FULL)
        assert kinds(judged(one)) == [("WAITING", "destination_full")] * while_it_goes_on
        assert kinds(judged(one, at=HAS_ENDED)) == [("WAITING", "destination_full")] * after_it_ended


def test_a_failed_attempt_says_what_comes_next() -> None:
    due = NOW + timedelta(minutes=2)
    queued = record(RunState.QUEUED, attempts=2, last_error=FULL, next_attempt_at=due)
    assert [(one.message, one.command) for one in judged(queued)] == [
        ("attempt 2 failed: no room; next attempt at 2026-04-18T12:02:00Z", f"exlab-watch-agent retry {RUN}")
    ]
    assert judged(queued, at=HAS_ENDED)[0].message == (
        "attempt 2 failed: no room; the next `exlab-watch-agent run` tries it again, not before 2026-04-18T12:02:00Z"
    )
    running = record(RunState.RUNNING, attempts=2, last_error=FULL)
    assert [(one.message, one.command) for one in judged(running)] == [
        ("attempt 2 failed: no room; it is being tried again", f"exlab-watch-agent show {RUN}")
    ]


@pytest.mark.parametrize(
    ("attempts", "while_it_goes_on", "after_it_ended"),
    [(0, [], []), (1, [], ["WAITING"]), (2, ["WAITING"], ["WAITING"]), (3, ["STOPPED"], ["STOPPED"])],
)
def test_a_seal_that_fails_is_told_likewise_and_has_stopped_at_the_third(
    attempts: int, while_it_goes_on: list[str], after_it_ended: list[str]
) -> None:
    one = record(RunState.SEALING, attempts=attempts, last_error=FULL)
    assert kinds(judged(one)) == [(severity, "seal_failed") for severity in while_it_goes_on]
    assert kinds(judged(one, at=HAS_ENDED)) == [(severity, "seal_failed") for severity in after_it_ended]


def test_a_verify_pass_that_could_not_be_finished_is_told() -> None:
    one = record(RunState.VERIFIED, attempts=1, last_error=LastError("network", "the line broke"))
    assert judged(one) == [
        Problem(
            Severity.WAITING,
            "audit_failed",
            RUN,
            "the last verify pass could not be finished: the line broke",
            f"exlab-watch-agent verify {RUN}",
        )
    ]
    assert judged(record(RunState.VERIFIED)) == []


def test_a_run_that_cannot_be_read_is_told_at_the_third_look_while_an_agent_goes_on_and_else_at_once() -> None:
    for looks, while_it_goes_on in ((1, False), (2, False), (3, True)):
        unreadable = {RUN: UnreadableView("It is locked.", looks)}
        assert kinds(judged(unreadable=unreadable)) == [("WAITING", "unreadable")] * while_it_goes_on
        assert kinds(judged(at=HAS_ENDED, unreadable=unreadable)) == [("WAITING", "unreadable")]


def test_a_lane_s_own_kind_and_command_are_given_and_the_nas_is_the_default() -> None:
    lane = LaneView(waiting_since=NOW - timedelta(hours=1), waiting_reason="it was never used")
    (away,) = judged(lanes={"SCOPE_01": lane})
    assert (away.kind, away.command) == ("nas_unreachable", "exlab-watch-agent check")
    assert away.message == "NAS unreachable since 2026-04-18T11:00:00Z: it was never used"
    kind, command = "destination_unbound", "exlab-watch-agent bind SCOPE_01"
    other = replace(lane, waiting_kind=kind, waiting_command=command)
    (unbound,) = judged(lanes={"SCOPE_01": other})
    assert (unbound.severity, unbound.kind, unbound.command) == (Severity.WAITING, kind, command)
    assert unbound.message == "it was never used (since 2026-04-18T11:00:00Z)"
    queued = record(RunState.QUEUED)
    assert sentence(queued, Snapshot(lanes={"SCOPE_01": other}), GOES_ON) == unbound.message


def test_what_an_agent_left_behind_is_told_with_its_age() -> None:
    lane = LaneView(root_problem="It is not there.", seen_earlier=SeenEarlier(NOW - timedelta(hours=3)))
    (one,) = judged(at=HAS_ENDED, lanes={"SCOPE_01": lane})
    assert one.message == "It is not there. (as an agent last saw it, 3 h ago; no agent is running)"
    assert sentence(record(RunState.QUEUED), Snapshot(lanes={"SCOPE_01": lane}), HAS_ENDED) == one.message


def test_a_queued_run_says_whom_it_waits_for() -> None:
    queued = record(RunState.QUEUED)
    assert sentence(queued, Snapshot(), GOES_ON) == "waiting for a slot"
    assert sentence(queued, Snapshot(), HAS_ENDED) == "waiting for an agent to run"
    failed = record(RunState.QUEUED, attempts=1, last_error=FULL)
    assert sentence(failed, Snapshot(), GOES_ON) == "attempt 1 failed: no room; the next one is due"


def test_a_sealed_run_without_its_creation_json_is_not_called_unsynced() -> None:
    place = place_of(RUN, {"SCOPE_01": "/data/SCOPE_01"})
    assert place is not None
    sealed = record(RunState.VERIFIED, destination="P/Runs/Run_1", sealed_at=NOW)
    (found,) = judged(sealed, at=HAS_ENDED, orphans=(orphan(place),))
    assert found.kind == "orphan"
    assert "not synced" not in found.message
    assert found.message == (
        "The run is synced, but its .exlab-wizard/creation.json is missing here, so no override or status can be read: put it "
        "back; the NAS copy has one in P/Runs/Run_1/.exlab-wizard."
    )


def test_notices_and_runs_that_are_still_acquired_need_nobody() -> None:
    place = place_of(RUN, {"SCOPE_01": "/data/SCOPE_01"})
    assert place is not None
    found = judged(record(RunState.ACQUIRING), at=HAS_ENDED, orphans=(orphan(place),))
    assert kinds(found) == [("NOTICE", "orphan")]
    assert need_a_person(found) == []
    assert len(need_a_person(judged(record(RunState.FAILED, last_error=FULL)))) == 1


def test_an_incident_is_told_as_a_risk_until_it_is_healed_and_then_as_a_notice_for_a_week() -> None:
    found = incident_of(
        IncidentKind.COPY_DAMAGED, found_by="job/7", found_at=NOW, what="a.bin differs", files=["a.bin"]
    )
    (open_one,) = judged(record(RunState.QUEUED, incidents=(found,)))
    assert (open_one.severity, open_one.kind, open_one.subject) == (Severity.DATA_AT_RISK, "copy_damaged", RUN)
    assert open_one.message == (
        "the copy on the NAS was found damaged on 2026-04-18T12:00:00Z: a.bin differs; it is not healed yet"
    )
    healed = replace(found, healed_at=NOW, healed_by="job/9")
    for days, expected in ((0, [("NOTICE", "repaired")]), (7, [("NOTICE", "repaired")]), (8, [])):
        at = Moment(NOW + timedelta(days=days), is_ended=False)
        assert kinds(judged(record(RunState.VERIFIED, incidents=(healed,)), at=at)) == expected
    assert need_a_person(judged(record(RunState.VERIFIED, incidents=(healed,)))) == []
