"""When what was proven is read again: spread over the time, the same after each restart, and never later than promised."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.policy import CleanupPolicy, Policy
from exlab_watch_agent.core.record import LastError, RunRecord
from exlab_watch_agent.core.reread import Coverage, coverage, is_overdue, next_look_in_s, share_wait_s
from exlab_watch_agent.statechart import RunState

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
DAY_S = 86_400.0
POLICY = Policy(audit_interval_s=DAY_S, reread_s=90 * DAY_S, cleanup=CleanupPolicy(verify_passes_min=2))


def run(job_id: str = "job", *, passes: int = 2, days: float = 0, state: RunState = RunState.VERIFIED) -> RunRecord:
    identity = RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", "Run_2026-04-17T14-32")
    at = NOW - timedelta(days=days)
    return RunRecord(
        job_id, f"/data/{job_id}", "EQ", "P", "experimental", identity, at, state=state, sealed_at=at, verified_at=at,
        verify_passes=passes, bytes_total=10,
    )  # fmt: skip


def test_until_a_run_has_its_passes_it_is_audited_at_the_interval() -> None:
    assert [next_look_in_s(run(passes=passes), POLICY) for passes in (0, 1)] == [DAY_S, DAY_S]


def test_then_it_is_read_again_within_the_time_and_not_with_all_others() -> None:
    waits = [next_look_in_s(run(f"job-{number}"), POLICY) / DAY_S for number in range(1000)]
    assert (min(waits) >= 45, max(waits) <= 81) == (True, True)
    days = [sum(1 for wait in waits if day <= wait < day + 1) for day in range(45, 81)]
    assert max(days) < 60, "of a thousand runs no day gets more than twice its share"
    assert next_look_in_s(run("job-7"), POLICY) == next_look_in_s(run("job-7", passes=9), POLICY)


def test_a_look_that_could_not_be_finished_is_not_put_off_for_weeks() -> None:
    interrupted = replace(run(), last_error=LastError("network", "the NAS went away"))
    assert next_look_in_s(interrupted, POLICY) == DAY_S


def test_where_no_pass_is_asked_for_one_is_enough() -> None:
    policy = Policy(audit_interval_s=DAY_S, reread_s=90 * DAY_S, cleanup=CleanupPolicy(verify_passes_min=0))
    assert next_look_in_s(run(passes=0), policy) == DAY_S
    assert next_look_in_s(run(passes=1), policy) > DAY_S


def test_coverage_counts_what_was_read_in_time_and_says_since_when_nothing_is_unread() -> None:
    runs = [run("a", days=1), run("b", days=91), run("c", days=2, state=RunState.CLEANED)]
    found = coverage([*runs, run("d", state=RunState.FAILED)], policy=POLICY, now=NOW)
    assert found == Coverage(3, 2, 30, 20, NOW - timedelta(days=91))
    disproven = coverage([*runs, run("e", passes=0, state=RunState.CONFLICT)], policy=POLICY, now=NOW)
    assert (disproven.runs_sealed, disproven.runs_read, disproven.oldest_at) == (4, 2, None)
    assert coverage([], policy=POLICY, now=NOW) == Coverage()


def test_what_was_not_read_for_all_of_the_time_waits_for_no_instrument() -> None:
    assert [is_overdue(run(days=days), POLICY, now=NOW) for days in (81, 90, 90.1, 400)] == [False, False, True, True]
    assert not is_overdue(replace(run(days=400), verified_at=None), POLICY, now=NOW)


def test_beside_an_instrument_it_is_read_at_a_bounded_rate() -> None:
    assert share_wait_s(replace(run(), bytes_total=100 * 1024**3)) == 25_600.0
