"""`status` for some runs, as a table, and without words for what is not at its goal."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.cli.conftest import Command
from tests.cli.test_commands import one_line
from tests.lab.lab import Equipment, Lab


def listed(text: str) -> list[str]:
    """Return the names of the runs that are listed."""
    return [line.split("/")[-1].partition("  (")[0] for line in text.splitlines() if "/Runs/" in line and "  (" in line]


def test_without_words_only_what_is_not_at_its_goal_is_listed(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    first, second = lab.new_run(), lab.new_run(equipment="SCOPE_02")
    blocked = lab.new_run(files={"<id>": b"1"})
    on = ["--config", str(lab.config)]
    assert command("run", "--once", *on).code == 3
    assert listed(command("status", *on).out) == [blocked.name]
    assert "1 blocked, 2 verified" in command("status", *on).out.replace(
        "2 verified, 1 blocked", "1 blocked, 2 verified"
    )
    for words, expected in (
        (["--all"], [first, blocked, second]),
        (["SCOPE_02"], [second]),
        (["SCOPE_02", first.name], [first, second]),
        (["--state", "verified"], [first, second]),
        (["--state", "verified", "--state", "blocked"], [first, blocked, second]),
        (["SCOPE_02", "--state", "blocked"], []),
        (["--since", "1h"], [first, blocked, second]),
        (["--since", "2999-01-01"], []),
        (["--limit", "3"], [first, blocked, second]),
    ):
        said = command("status", *words, *on)
        assert (said.code, listed(said.out)) == (0, [run.name for run in expected]), words
        shown = command("status", *words, "--json", *on).json
        assert [one["run_path"] for one in shown["runs"]] == [str(run) for run in expected], words
        rows = list(csv.DictReader(command("status", *words, "--csv", *on).out.splitlines()))
        assert [row["run_path"] for row in rows] == [str(run) for run in expected], words
    shown = command("status", "SCOPE_02", "--json", *on).json
    assert (shown["counts"], list(shown["lanes"])) == ({"verified": 1}, ["SCOPE_02"])
    assert len(listed(command("status", "--limit", "1", *on).out)) == 1


def test_what_cannot_be_asked_for_is_refused(lab: Lab, on: Command) -> None:
    lab.new_run()
    on("run", "--once")
    for words in (["--state", "lost"], ["--limit", "0"], ["--since", "soon"], ["--csv", "--json"]):
        said = on("status", *words)
        assert (said.code, said.out) == (2, ""), words
    said = on("status", "SCOPE_9")
    assert (said.code, "No run is called SCOPE_9" in one_line(said.err)) == (1, True)
