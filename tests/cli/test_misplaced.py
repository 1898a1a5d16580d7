"""A `creation.json` where no run can be is told by every way of asking, once a folder at fault, until it was put right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import PROJECT, Equipment, Lab, Said, until

Command = Callable[..., Said]


@pytest.fixture
def slips(lab: Lab) -> dict[Path, tuple[str, list[Path]]]:
    """Make a run in its place, and four kinds of slips; return folder at fault → the command that helps, and what is in it."""
    lab.new_run()
    root = lab.local / "SCOPE_01"
    spelled = [lab.new_run(parent="runs"), lab.new_run(parent="runs")]
    deep = lab.new_run("April/Run_2026-04-20T10-00")
    bare = lab.new_run("Run_2026-04-20T11-00", project="Runs", parent="")
    other = lab.new_run(equipment="FLOW_01")
    scan, check = "exlab-watch-agent scan", "exlab-watch-agent check"
    return {
        root / PROJECT / "Runs" / "April": (scan, [deep]),
        root / PROJECT / "runs": (scan, spelled),
        root / "Runs": (scan, [bare]),
        lab.local / "FLOW_01": (check, [other]),
    }


def put_right(lab: Lab) -> None:
    (lab.local / "FLOW_01").rename(lab.home / "FLOW_01")
    root = lab.local / "SCOPE_01"
    for run in [*(root / PROJECT / "runs").iterdir(), *(root / PROJECT / "Runs" / "April").iterdir()]:
        run.rename(root / PROJECT / "Runs" / run.name)
    (root / PROJECT / "runs").rmdir()
    (root / PROJECT / "Runs" / "April").rmdir()
    (root / "Q").mkdir()
    (root / "Runs").rename(root / "Q" / "Runs")


def told(said: Said) -> dict[Path, tuple[str, list[Path]]]:
    """Return the same as the fixture of what was told."""
    found = [one for one in said.problems if one["code"] == "misplaced_creation"]
    return {Path(one["subject"]): (one["command"], [Path(run) for run in one["runs"]]) for one in found}


def lines_of(lab: Lab, start: str) -> list[str]:
    """Return how each of the two folds begins: that of FLOW_01 and that of SCOPE_01, in the order in which they are listed."""
    deep = lab.local / "SCOPE_01" / PROJECT / "Runs" / "April"
    return [
        f"{start}{lab.local / 'FLOW_01'}: 1 folder in it has a creation.json (",
        f"{start}{deep}: 1 folder in it has a creation.json (Run_2026-04-20T10-00) where no run can be, so it is not "
        f"copied: these are one level too deep; move the runs in it one level up, to {deep.parent}",
    ]


def test_without_an_agent_it_is_told_by_problems_and_check(
    lab: Lab, on: Command, slips: dict[Path, tuple[str, list[Path]]]
) -> None:
    said = on("problems", "--json")
    assert (said.code, told(said)) == (3, slips)
    assert {(one["tier"], one["severity"]) for one in said.problems} == {("needs_you", "hard")}
    assert {one["equipment_id"] for one in said.problems} == {"SCOPE_01", "FLOW_01"}
    assert {one["detail"]["kind"] for one in said.problems} == {
        "too_deep",
        "run_parent",
        "no_project",
        "unknown_equipment",
    }

    said = on("problems")
    folds = [line for line in said.out.splitlines() if line.startswith("NEEDS YOU  /")]
    assert [line.startswith(start) for line, start in zip(folds, lines_of(lab, "NEEDS YOU  "), strict=True)] == [
        True,
        True,
    ]
    assert (
        "and 2 more of SCOPE_01, misplaced_creation: exlab-watch-agent problems SCOPE_01 --class misplaced_creation"
        in said.out
    )
    assert told(on("problems", "SCOPE_01", "--json")).keys() == slips.keys() - {lab.local / "FLOW_01"}

    said = on("check")
    assert said.code == 3
    wrong = [line for line in said.out.splitlines() if line.startswith("NOT ")]
    assert [line.startswith(start) for line, start in zip(wrong, lines_of(lab, "NOT "), strict=True)] == [True, True]
    assert " (and 2 more) -> exlab-watch-agent scan --config " in wrong[1]


def test_run_once_tells_it_and_ends_with_3_and_copies_what_is_in_its_place(
    lab: Lab, on: Command, slips: dict[Path, tuple[str, list[Path]]]
) -> None:
    said = on("run", "--once", "--quiet")
    assert (said.code, said.out) == (3, "1 verified\n")
    folds = said.err.splitlines()
    assert [line.startswith(start) for line, start in zip(folds, lines_of(lab, "NEEDS YOU  "), strict=True)] == [
        True,
        True,
    ]
    assert on("status").out.startswith("4 problems need you\n")
    assert told(on("problems", "--json")) == slips

    put_right(lab)
    assert on("run", "--once", "--quiet") == Said(0, "5 verified\n", "")
    assert told(on("problems", "--json")) == {}
    assert on("check").code == 0


def test_a_running_agent_tells_it_when_it_begins_and_when_it_was_put_right(
    lab: Lab, on: Command, slips: dict[Path, tuple[str, list[Path]]]
) -> None:
    with lab.running() as agent:
        until(lambda: told(on("problems", "--json")) == slips, "the problems")
        assert on("problems").code == on("check").code == 3
        assert set(lab.live()["path_runs"]) == {str(path) for path in slips}
        until(lambda: f"NEEDS YOU  {lab.local / 'FLOW_01'}: " in agent.said(), "the line on stderr")
        put_right(lab)  # no scan is asked for: the search goes on with each look at the levels until nothing is found
        until(lambda: told(on("problems", "--json")) == {}, "the end of the problems")
        until(lambda: f"OVER  {lab.local / 'FLOW_01'}: " in agent.said(), "the line of the end")

        lab.new_run("Run_2026-05-05T10-00", parent="RUNS")
        assert on("scan").code == 0
        until(lambda: len(told(on("problems", "--json"))) == 1, "what came later, by a scan")


def test_an_instrument_of_which_runs_are_known_is_told_by_these_alone(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("FLOW_01"))
    on: Command = lambda *words: command(*words, "--config", str(lab.config))  # noqa: E731
    lab.new_run(equipment="FLOW_01")
    assert on("run", "--once", "--quiet").code == 0
    lab.settings["equipment"].pop()
    lab.save_config()
    assert [one["code"] for one in on("problems", "--json").problems] == ["equipment_unknown"]
