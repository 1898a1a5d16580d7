"""The command `diagram`: the chart is part of the program, so it needs neither config nor state folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exlab_watch_agent.diagram.overlay import NOTHING
from exlab_watch_agent.diagram.text_formats import TEXT_FORMATS
from exlab_watch_agent.statechart import CHART
from tests.cli.conftest import Command
from tests.lab.lab import Lab


@pytest.mark.parametrize("form", TEXT_FORMATS)
def test_the_chart_is_printed_in_each_form_without_a_config_or_a_state_folder(command: Command, form: str) -> None:
    said = command("diagram", "--format", form)
    assert (said.code, said.err) == (0, "")
    assert said.out == TEXT_FORMATS[form](CHART, NOTHING)


def test_without_a_form_it_is_mermaid(command: Command) -> None:
    assert command("diagram").out.startswith("stateDiagram-v2\n")


def test_the_name_of_the_file_says_which_form_is_meant(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "chart.scxml"
    said = command("diagram", "-o", str(out))
    assert (said.code, said.out, said.err) == (0, "", f"{out} was written\n")
    assert out.read_text(encoding="utf-8") == TEXT_FORMATS["scxml"](CHART, NOTHING)


def test_a_file_that_exists_is_never_overwritten(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "image.json"
    out.write_bytes(b"somebody's data")
    said = command("diagram", "-o", str(out))
    assert (said.code, said.err) == (1, f"{out} exists, and nothing is overwritten: give another name.\n")
    assert out.read_bytes() == b"somebody's data"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "gif"], "--format takes mermaid, dot, plantuml,"),
        (["-o", "chart.tif"], "The name chart.tif does not say which form is meant: give --format."),
    ],
)
def test_a_form_that_is_not_known_is_a_usage_error(command: Command, words: list[str], sentence: str) -> None:
    said = command("diagram", *words)
    assert said.code == 2
    assert said.err.startswith(sentence)
    assert said.err.count("\n") == 1


def test_a_folder_that_is_not_there_is_said_in_one_sentence(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "away" / "chart.dot"
    said = command("diagram", "-o", str(out))
    assert (said.code, said.err) == (1, f"{out} cannot be written: No such file or directory.\n")


def test_the_wall_picture_has_the_date_of_its_making(command: Command, tmp_path: Path) -> None:
    assert command("diagram", "-o", str(tmp_path / "chart.svg")).code == 0
    assert re.search(r">\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ</text>", (tmp_path / "chart.svg").read_text(encoding="utf-8"))


def test_counts_come_from_the_store_without_a_running_agent(on: Command, lab: Lab) -> None:
    for _ in range(2):
        lab.new_run()
    assert on("run", "--once", "--quiet").code == 0
    said = on("diagram", "--counts", "--format", "json")
    value = said.json
    assert (said.code, value["subject"]) == (0, "2 runs, and where they are")
    assert {state["state"]: state["note"] for state in value["states"] if state["note"]} == {"verified": "2 runs"}
    assert (
        "verified #40;2 runs#41;" in on("diagram", "--counts").out
        or "verified (2 runs)" in on("diagram", "--counts").out
    )


def test_a_run_s_way_has_each_of_its_moves_with_times_and_counts(on: Command, lab: Lab, tmp_path: Path) -> None:
    run = lab.new_run()
    assert on("run", "--once", "--quiet").code == 0
    value = on("diagram", "--run", run.name, "--format", "json").json
    history = on("show", run.name, "--json").json["history"]
    assert [(step["at"], step["trigger"], step["reason"]) for step in value["steps"]] == [
        (move["at"], move["trigger"], move["reason"]) for move in history
    ]
    assert [row["trigger"] for row in value["rows"] if row["note"] == "1×"] == [
        "admitted", "push_started", "pushed", "precheck_passed", "proven", "sealed",
    ]  # fmt: skip
    out = tmp_path / "way.html"
    assert on("diagram", "--run", str(run), "-o", str(out)).code == 0
    assert f"<h1>The way of {run.name}</h1>" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["--counts"], ["--run", "Run_1"]])
def test_what_is_read_from_the_state_needs_a_state_folder(command: Command, tmp_path: Path, words: list[str]) -> None:
    said = command("diagram", *words, "--state-dir", str(tmp_path / "none"))
    assert said.code == 2
    assert said.err.startswith(f"There is no state folder at {tmp_path / 'none'}")


def test_counts_and_a_run_are_two_different_questions(command: Command) -> None:
    said = command("diagram", "--counts", "--run", "Run_1")
    assert (said.code, said.err) == (2, "Give --counts for all runs, or --run for one.\n")


def test_a_run_that_is_not_known_has_no_way(on: Command, lab: Lab) -> None:
    lab.new_run()
    assert on("run", "--once", "--quiet").code == 0
    assert on("diagram", "--run", "Run_1900-01-01T00-00").code == 1
