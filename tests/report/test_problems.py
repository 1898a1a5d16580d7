"""Problems as people read them: equal ones of an instrument in one place, and with what a command ends."""

from __future__ import annotations

from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.errors import ExitCode
from exlab_watch_agent.report.problems import exit_code, folded, lines, news_of, one_line

ORPHAN = Problem("orphan", "/data/A/P/Runs/x", "it has no creation.json", "exlab-watch-agent show x", "A")
HOLD = Problem(
    "deletion_on_hold", "agent", "nothing is deleted: a line is gone", "exlab-watch-agent resolve --accept-trail"
)


def stale(number: int, equipment_id: str = "A") -> Problem:
    path = f"/data/{equipment_id}/P/Runs/{number}"
    return Problem("stale", path, f"not complete: {number}", f"exlab-watch-agent show {number}", equipment_id, (path,))


def test_equal_problems_of_one_instrument_are_shown_once_with_their_number_and_the_command_that_lists_them() -> None:
    found = [HOLD, stale(1), stale(2), stale(3), stale(1, "B")]
    assert lines(folded(found, flags="--config c.yaml")) == [
        "RISK  agent: nothing is deleted: a line is gone",
        "    -> exlab-watch-agent resolve --accept-trail",
        "NEEDS YOU  /data/A/P/Runs/1: not complete: 1",
        "    -> exlab-watch-agent show 1",
        "    and 2 more of A, stale: exlab-watch-agent problems A --class stale --config c.yaml",
        "NEEDS YOU  /data/B/P/Runs/1: not complete: 1",
        "    -> exlab-watch-agent show 1",
    ]
    assert one_line(folded(found)[1]) == (
        "NEEDS YOU  /data/A/P/Runs/1: not complete: 1 (and 2 more) -> exlab-watch-agent show 1"
    )


def test_where_only_notices_are_it_is_said_first_that_nothing_needs_a_person() -> None:
    assert lines([]) == ["nothing needs a person"]
    assert lines(folded([ORPHAN])) == [
        "nothing needs a person",
        "NOTICE  /data/A/P/Runs/x: it has no creation.json",
        "    -> exlab-watch-agent show x",
    ]


def test_a_name_cannot_steer_the_terminal() -> None:
    (line, _) = lines(folded([stale(1), Problem("stale", "/data/\x1b[2J", "x", "y", "C")]))[-2:]
    assert "\x1b" not in line


def test_a_command_ends_with_the_worst_that_was_found() -> None:
    assert [exit_code(found) for found in ([], [ORPHAN], [ORPHAN, stale(1)], [ORPHAN, stale(1), HOLD])] == [
        ExitCode.FINE,
        ExitCode.FINE,
        ExitCode.NEEDS_ATTENTION,
        ExitCode.AT_RISK,
    ]


def test_a_second_one_of_a_kind_is_news_and_each_end_is_told_once() -> None:
    first, second = stale(1), stale(2)
    assert news_of({}, {first.id: first}) == [one_line(folded([first])[0])]
    assert news_of({first.id: first}, {first.id: first, second.id: second}) == [one_line(folded([second])[0])]
    assert news_of({first.id: first, second.id: second}, {second.id: second}) == [
        f"OVER  {first.subject}: not complete: 1"
    ]
    both = {first.id: first, second.id: second}
    assert news_of(both, both) == []
    assert news_of(both, {}) == [f"OVER  {first.subject}: not complete: 1 (and 1 more)"]
