"""What `status` and `show` say of records and of an agent's snapshot, in JSON and in sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import orphan
from exlab_watch_agent.core.record import LastError, Move, RunRecord
from exlab_watch_agent.core.reread import Coverage
from exlab_watch_agent.core.snapshot import LaneView, ProgressView, Snapshot, UnreadableView
from exlab_watch_agent.core.standing import Moment
from exlab_watch_agent.core.text import human_bytes
from exlab_watch_agent.report.heartbeat import OldestUnsynced
from exlab_watch_agent.report.status import (
    FINDINGS_SHOWN_MAX,
    RunInFull,
    UnsyncedRuns,
    bytes_done,
    counts,
    coverage_json,
    coverage_text,
    run_json,
    sentence,
    status_json,
)
from exlab_watch_agent.statechart import CHART, RunState, Trigger

NOW = datetime(2026, 4, 18, 12, 0, 0, tzinfo=UTC)
RUN = "/data/SCOPE_01/P/Runs/Run_2026-04-17T14-32"
GOES_ON, HAS_ENDED = Moment(NOW, is_ended=False), Moment(NOW, is_ended=True)


def record(state: RunState, job_id: str = "job", path: str = RUN, **members: Any) -> RunRecord:
    identity = RunIdentity("2026-04-17T14:32:00Z", "asmith", "uid", "Run_2026-04-17T14-32")
    members = {"bytes_total": 1000, "files_total": 2, **members}
    return RunRecord(job_id, path, "SCOPE_01", "P", "experimental", identity, NOW, state=state, **members)


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_has_all_of_its_keys_in_every_state() -> None:
    keys = [
        *("job_id", "run_path", "equipment_id", "project", "run_kind", "state", "sync_status", "attempts"),
        *("next_attempt_at", "last_error", "verify_passes", "verified_at", "enqueued_at", "destination"),
        *("files_total", "bytes_total", "bytes_done", "progress"),
    ]
    for state in RunState:
        assert list(run_json(record(state), Snapshot())) == keys


def test_names_and_errors_of_a_run_are_told_as_they_are_but_for_what_is_no_unicode() -> None:
    error = LastError("network", "lost\x1b[2J")
    shown = run_json(record(RunState.QUEUED, path="/data/a\x07b\u202e\udcff", last_error=error), Snapshot())
    assert shown["run_path"] == "/data/a\x07b\u202e\\udcff"
    assert shown["last_error"] == {"kind": "network", "message": "lost\x1b[2J"}


@pytest.mark.parametrize("state", list(RunState))
def test_a_run_has_none_or_all_of_its_bytes_at_the_nas_but_while_it_is_pushed(state: RunState) -> None:
    progress = Snapshot(progress={"job": ProgressView(bytes_done=400), "other": ProgressView(bytes_done=700)})
    done = bytes_done(record(state), progress)
    if state is RunState.RUNNING:
        assert done == 400
        assert bytes_done(record(state), Snapshot()) == 0
        assert bytes_done(record(state, bytes_total=300), progress) == 300, "never more than there are"
    else:
        has_none = {RunState.ACQUIRING, RunState.BLOCKED, RunState.QUEUED, RunState.FAILED}
        assert done == (0 if state in has_none else 1000)


def test_a_run_that_is_not_known_yet_has_a_why_and_its_findings() -> None:
    assert RunInFull("/data/a\nb", "nobody took it up").to_json() == {
        "job_id": "",
        "run_path": "/data/a\nb",
        "state": None,
        "why": "nobody took it up",
        "history": [],
        "findings": [],
    }


def test_a_run_in_full_has_its_progress_its_history_and_so_many_findings() -> None:
    place = place_of(RUN, {"SCOPE_01": "/data/SCOPE_01"})
    assert place is not None
    move = Move(NOW, Trigger.PUSH_STARTED, RunState.QUEUED, RunState.RUNNING, "it is\x07 due", operator="asmith")
    full = RunInFull(
        RUN,
        "it is being pushed",
        findings=(orphan(place),) * (FINDINGS_SHOWN_MAX + 1),
        record=record(RunState.RUNNING, last_error=LastError("network", "lost", "line 1\nline\x1b 2")),
        snapshot=Snapshot(progress={"job": ProgressView(400, 1, 2.04)}),
        history=(move,),
    )
    shown = full.to_json()
    assert shown["why"] == "it is being pushed"
    assert shown["bytes_done"] == 400
    assert shown["progress"] == {
        "bytes_done": 400, "files_done": 1, "seconds": 2.0, "doing": None, "bytes_total": 0, "limit_bytes_per_s": None,
    }  # fmt: skip
    assert "\x1b" in shown["last_error_detail"]
    assert len(shown["findings"]) == FINDINGS_SHOWN_MAX
    assert shown["history"] == [
        {
            "at": "2026-04-18T12:00:00Z",
            "trigger": "push_started",
            "from": "queued",
            "to": "running",
            "reason": "it is\x07 due",
            "operator": "asmith",
        }
    ]


# --- all runs --------------------------------------------------------------------------------------------------------


def test_states_are_counted_in_the_chart_s_order_and_only_those_that_occur() -> None:
    found = counts(map(record, [RunState.VERIFIED, RunState.ACQUIRING, RunState.VERIFIED]))
    assert list(found.items()) == [("acquiring", 1), ("verified", 2)]


def test_status_lists_runs_by_path_and_says_who_runs() -> None:
    runs = [record(RunState.QUEUED, "b", "/data/b"), record(RunState.VERIFIED, "a", "/data/a")]
    lane = LaneView("/nas/A", root_problem="It is not there.")
    shown = status_json(
        runs, Snapshot(lanes={"A": lane}), is_running=True, pid=7, version="0.1.0", paused=None, hold="damage"
    )
    assert list(shown) == ["schema", "agent", "counts", "lanes", "observer", "runs", "coverage"]
    assert shown["agent"] == {"running": True, "pid": 7, "version": "0.1.0", "paused": None, "hold": "damage"}
    assert [run["run_path"] for run in shown["runs"]] == ["/data/a", "/data/b"]
    assert shown["lanes"] == {"A": lane.to_json()}
    assert shown["observer"] is None


def test_how_much_was_read_again_is_said_with_the_time_since_when_every_byte_was_read() -> None:
    at = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
    found = Coverage(3, 2, 3 * 1024, 2 * 1024, at)
    assert coverage_text(found, days=90) == (
        "read and found right within 90 days: 2.0 KiB of 3.0 KiB, 2 of 3 synced runs; every byte was read at "
        "2026-04-17T14:32:00Z or later"
    )
    assert coverage_json(found)["oldest_read_at"] == "2026-04-17T14:32:00Z"
    assert coverage_text(Coverage(), days=90) == ""


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_has_a_sentence_also_where_nothing_else_is_known(state: RunState) -> None:
    for at in (GOES_ON, HAS_ENDED):
        assert sentence(record(state), Snapshot(), at)


def test_a_run_that_is_acquired_says_what_is_missing() -> None:
    acquiring = record(RunState.ACQUIRING)
    assert sentence(acquiring, Snapshot(), GOES_ON) == "not complete yet"
    waits = Snapshot(waiting={"job": "done.flag is not there yet"})
    assert sentence(acquiring, waits, GOES_ON) == "not complete yet: done.flag is not there yet"


def test_a_verified_run_says_when_it_was_proven() -> None:
    proven = record(RunState.VERIFIED, verified_at=NOW)
    assert sentence(proven, Snapshot(), GOES_ON) == "2 files proven equal on both sides, last at 2026-04-18T12:00:00Z"


@pytest.mark.parametrize("state", [RunState.BLOCKED, RunState.FAILED, RunState.CONFLICT])
def test_a_run_that_stands_still_says_its_error_or_what_its_state_means(state: RunState) -> None:
    assert sentence(record(state, last_error=LastError("auth", "no key")), Snapshot(), GOES_ON) == "no key"
    assert sentence(record(state), Snapshot(), GOES_ON) == CHART.states[state].meaning


def test_what_a_queued_run_waits_for_is_said_from_the_outside_in() -> None:
    """Its root first, then its destination, then what of it cannot be read, then its own last attempt."""
    queued = record(RunState.QUEUED, attempts=1, last_error=LastError("network", "lost"))
    said = sentence(queued, Snapshot(), GOES_ON)
    assert said == "attempt 1 failed: lost; the next one is due"
    unreadable = Snapshot(unreadable={RUN: UnreadableView("It is locked.")})
    assert sentence(queued, unreadable, GOES_ON) == "It is locked."
    lane = LaneView(waiting_since=NOW, waiting_reason="it is away")
    away = replace(unreadable, lanes={"SCOPE_01": lane})
    assert sentence(queued, away, GOES_ON) == "NAS unreachable since 2026-04-18T12:00:00Z: it is away"
    gone = replace(away, lanes={"SCOPE_01": replace(lane, root_problem="It is not there.")})
    assert sentence(queued, gone, GOES_ON) == "It is not there."
    other = replace(away, lanes={"SCOPE_02": lane})
    assert sentence(queued, other, GOES_ON) == "It is locked.", "another equipment's wait is not its own"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_an_amount_is_shown_in_the_largest_unit_of_which_there_is_one(amount: int, shown: str) -> None:
    assert human_bytes(amount) == shown


# --- the run that waits longest --------------------------------------------------------------------------------------


def test_the_oldest_unsynced_run_is_found_while_runs_come_and_are_synced() -> None:
    ages = {"old": 3, "middle": 2, "young": 1}
    kept = {
        job_id: record(RunState.QUEUED, job_id, f"/data/{job_id}", discovered_at=NOW - timedelta(hours=hours))
        for job_id, hours in ages.items()
    }
    unsynced = UnsyncedRuns([kept["young"], kept["old"]])
    assert unsynced.oldest(kept.get) == OldestUnsynced("/data/old", NOW - timedelta(hours=3))
    unsynced.moved(kept["middle"])
    unsynced.moved(kept["middle"])  # a second move of the same run
    for job_id, following in (("old", "middle"), ("middle", "young")):
        kept[job_id] = replace(kept[job_id], state=RunState.VERIFIED)
        found = unsynced.oldest(kept.get)
        assert found is not None
        assert found.run_path == f"/data/{following}"
    kept["young"] = replace(kept["young"], state=RunState.VERIFIED)
    assert unsynced.oldest(kept.get) is None
    kept["old"] = replace(kept["old"], state=RunState.CONFLICT)
    unsynced.moved(kept["old"])
    assert unsynced.oldest(kept.get) == OldestUnsynced("/data/old", NOW - timedelta(hours=3))


def test_a_run_that_is_not_kept_any_more_is_no_oldest_one() -> None:
    run = record(RunState.QUEUED, discovered_at=NOW)
    assert UnsyncedRuns([run]).oldest(lambda _: None) is None
