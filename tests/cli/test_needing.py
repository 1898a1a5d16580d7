"""`problems` of some runs, instruments and projects only, by code and severity; and what an operator dismisses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import Equipment, Lab, Said

Command = Callable[..., Said]
PLACEHOLDER, CHARACTER = "unresolved_placeholder_token", "illegal_filesystem_character"
WHY = "it was made by hand, for a talk"


@pytest.fixture
def two(tmp_path: Path, command: Command) -> tuple[Lab, Command, dict[str, str]]:
    """Two instruments with three blocked runs and an orphan, after `run --once`; the runs' paths by what they are."""
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    on: Command = lambda *words: command(*words, "--config", str(lab.config))  # noqa: E731
    runs = {
        "first": lab.new_run(files={"<id>": b"1"}),
        "second": lab.new_run(files={"a:b": b"1"}, project="Other project"),
        "third": lab.new_run(files={"<id>": b"1"}, equipment="SCOPE_02"),
        "orphan": lab.local / "SCOPE_01" / "P" / "Runs" / "Run_2026-01-01T00-00",
    }
    runs["orphan"].mkdir(parents=True)
    assert on("run", "--once", "--quiet").code == 3
    return lab, on, {name: str(path) for name, path in runs.items()}


def subjects(said: Said) -> set[str]:
    return {one["subject"] for one in said.problems}


@pytest.mark.parametrize(
    ("words", "found", "code"),
    [
        ([], ["first", "second", "third", "orphan"], 3),
        (["SCOPE_01"], ["first", "second", "orphan"], 3),
        (["SCOPE_02"], ["third"], 3),
        (["Other project"], ["second"], 3),
        (["Other project", "SCOPE_02"], ["second", "third"], 3),
        (["--class", PLACEHOLDER], ["first", "third"], 3),
        (["SCOPE_01", "--class", PLACEHOLDER], ["first"], 3),
        (["--severity", "soft"], ["orphan"], 0),
        (["--severity", "hard"], ["first", "second", "third"], 3),
        (["--class", "stale"], [], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_problems_are_listed_of_what_is_named_only(
    two: tuple[Lab, Command, dict[str, str]], words: list[str], found: list[str], code: int
) -> None:
    _, on, runs = two
    said = on("problems", "--json", *words)
    assert (said.code, subjects(said)) == (code, {runs[name] for name in found})


def test_a_run_is_named_by_path_or_leaf_and_what_nobody_knows_is_refused(
    two: tuple[Lab, Command, dict[str, str]],
) -> None:
    _, on, runs = two
    for word in (runs["first"], Path(runs["first"]).name):
        assert subjects(on("problems", "--json", word)) == {runs["first"]}
    said = on("problems", "Run_2020-01-01T00-00")
    assert (said.code, said.out) == (1, "")
    said = on("problems", "--class", "unresolved_placeholder")
    assert said.code == 2
    assert f"The nearest one is {PLACEHOLDER}." in said.err


def test_equal_ones_are_folded_and_the_command_that_is_named_lists_each(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path)
    on: Command = lambda *words: command(*words, "--config", str(lab.config))  # noqa: E731
    runs = [lab.new_run(files={"<id>": b"1"}) for _ in range(3)]
    on("run", "--once", "--quiet")
    said = on("problems")
    assert said.out.count("NEEDS YOU") == 1
    assert (
        "    and 2 more of SCOPE_01, unresolved_placeholder_token: exlab-watch-agent problems SCOPE_01 --class "
        in said.out
    )
    said = on("problems", "SCOPE_01", "--class", PLACEHOLDER)
    assert [str(run) in said.out for run in runs] == [True] * 3
    assert said.out.count("NEEDS YOU") == 3


def test_an_orphan_can_be_dismissed_with_a_reason_and_for_a_time(two: tuple[Lab, Command, dict[str, str]]) -> None:
    lab, on, runs = two
    (orphan,) = on("problems", "--json", "--severity", "soft").problems
    said = on("problems", "dismiss", orphan["id"], "--reason", WHY)
    assert (said.code, said.out) == (0, "it is listed with --all only from now on\n")
    assert runs["orphan"] not in on("problems").out
    (again,) = on("problems", "--json", "--all", "--severity", "soft").problems
    assert (again["id"], again["dismissed"], again["detail"]["dismissed_reason"]) == (orphan["id"], True, WHY)
    assert "NOTICE (dismissed)" in on("problems", "--all", "--class", "orphan").out
    (fact,) = [line for line in lab.trail() if line["kind"] == "problem_dismissed"]
    assert (fact["data"]["problem_id"], fact["data"]["reason"]) == (orphan["id"], WHY)
    assert fact["operator"] == fact["data"]["by"] != ""
    lab.assert_chain_holds()
    assert on("run", "--once", "--quiet").code == 3
    assert runs["orphan"] not in on("problems").out, "another agent knows it, too"

    assert on("problems", "dismiss", orphan["id"], "--reason", WHY, "--until", "1h").code == 0
    (again,) = on("problems", "--json", "--all", "--severity", "soft").problems
    assert again["detail"]["dismissed_until"].endswith("Z")


def test_a_running_agent_takes_a_dismissal(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.new_run()
    (lab.local / "SCOPE_01" / "P" / "Runs" / "Run_2026-01-01T00-00").mkdir(parents=True)
    with lab.running():
        (orphan,) = lab.cli("problems", "--json", "--severity", "soft").problems
        said = lab.cli("problems", "dismiss", orphan["id"], "--reason", WHY)
        assert (said.code, said.out) == (0, "it is listed with --all only from now on\n"), said.err
        assert lab.cli("problems", "--json", "--severity", "soft").problems == []


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--reason", WHY], 2, "Name the ID of one problem"),
        (["ID", "--reason", "short"], 2, "10 to 500 characters"),
        (["ID", "--reason", WHY, "--until", "soon"], 2, "--until takes a day"),
        (["ID", "--reason", WHY, "--until", "2020-01-01T00:00:00Z"], 2, "lies in the past"),
        (["0123456789ab", "--reason", WHY], 1, "No problem is called 0123456789ab"),
        (["ID", "--reason", WHY], 1, f"{PLACEHOLDER} cannot be dismissed"),
    ],
    ids=lambda word: " ".join(word) if isinstance(word, list) else None,
)
def test_what_cannot_be_dismissed_is_refused_with_what_can_be_done(
    two: tuple[Lab, Command, dict[str, str]], words: list[str], code: int, text: str
) -> None:
    lab, on, runs = two
    (blocked,) = on("problems", "--json", runs["first"]).problems
    said = on("problems", "dismiss", *(blocked["id"] if word == "ID" else word for word in words))
    assert (said.code, said.out, text in said.err) == (code, "", True), said.err
    assert not [line for line in lab.trail() if line["kind"] == "problem_dismissed"]


def test_reason_and_until_belong_to_a_dismissal(two: tuple[Lab, Command, dict[str, str]]) -> None:
    assert two[1]("problems", "--reason", WHY).code == 2
