"""`override add` is checked against the run as it is, and `override list` has all runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_commands import one_line
from tests.lab.lab import CACHE, Lab, override, read_creation, save_in_place, tombstone

PLACEHOLDER = "unresolved_placeholder_token"
ILLEGAL = "illegal_filesystem_character"


@pytest.fixture
def _in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("is_known", [True, False])
def test_the_answer_names_what_still_blocks(lab: Lab, on: Command, is_known: bool) -> None:
    run = lab.new_run(files={"a:b": b"1", "<id>": b"2"})
    if is_known:
        assert on("run", "--once").code == 3
    said = on("override", "add", run.name, "--class", ILLEGAL, "--reason", "the name is right")
    assert said.code == 0
    assert f'; what still blocks it, {PLACEHOLDER}: The file name "<id>" still has' in one_line(said.out)
    said = on("override", "add", run.name, "--class", PLACEHOLDER, "--reason", "the name is right")
    assert one_line(said.out).endswith("; nothing blocks it any more")
    assert on("run", "--once").code == 0


def test_a_run_without_findings_takes_no_override(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    said = on("override", "add", run.name, "--class", ILLEGAL, "--reason", "just in case")
    assert (said.code, said.out) == (1, "")
    assert (
        one_line(said.err) == f"The run has nothing that {ILLEGAL} is about, so nothing was added; {run} breaks none."
    )
    assert read_creation(run).get("validation_overrides", []) == []


def test_a_run_that_cannot_be_looked_at_takes_one_and_that_is_said(
    lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.new_run(files={"a:b": b"1"})
    flags = ["--config", str(lab.config)]
    assert command("run", "--once", *flags).code == 3
    lab.settings["equipment"] = []
    lab.save_config()
    said = command("override", "add", str(run), "--class", ILLEGAL, "--reason", "the name is right", *flags)
    assert said.code == 0
    assert "cannot be told now: its equipment is not in the config" in one_line(said.out)


@pytest.mark.usefixtures("_in_new_york")
def test_a_day_is_over_at_its_end_on_this_pc(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"a:b": b"1"})
    # The clocks go forward there on that day, which has 23 hours.
    assert (
        on(
            "override", "add", run.name, "--class", ILLEGAL, "--reason", "the name may stay", "--expires", "2999-03-10"
        ).code
        == 0
    )
    (entry,) = read_creation(run)["validation_overrides"]
    end = datetime(2999, 3, 11).astimezone()
    assert entry["expires_at"] == end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert entry["expires_at"][11:] in ("04:00:00Z", "05:00:00Z")


def test_the_overrides_of_all_runs_say_why_one_has_no_effect(lab: Lab, on: Command) -> None:
    first, second, plain = lab.new_run(), lab.new_run(), lab.new_run()
    assert on("run", "--once").code == 0
    entries = [
        override(ILLEGAL, id="1"),
        override("illegal_filesystem", id="2"),
        override(ILLEGAL, id="3", expires_at="2027-01-01"),
        override(ILLEGAL, id="4", expires_at="2020-01-01T00:00:00Z"),
        {"id": "5", "problem_clas": ILLEGAL, "reason": "typo"},
    ]
    save_in_place(first, read_creation(first) | {"validation_overrides": entries})
    graves = [override(ILLEGAL, id="6"), tombstone("6"), tombstone("nowhere")]
    save_in_place(second, read_creation(second) | {"validation_overrides": graves})
    (plain / CACHE / "creation.json").unlink()
    said = on("override", "list")
    assert said.code == 0
    assert one_line(said.err) == "1 run left out, whose creation.json is not here or cannot be read"
    lines = said.out.splitlines()
    assert (lines[0], lines[6]) == (str(first), str(second))
    worth = [line[2:11].strip() for line in lines if line.startswith("  ")]
    assert worth == ["active", "no effect", "no effect", "no effect", "no effect", "revoked", "tombstone", "no effect"]
    for word in (
        "no rule is called so",
        "is no time such as",
        "it expired at 2020-01-01T00:00:00Z",
        "names no problem_class",
    ):
        assert word in said.out
    assert "(revoked by " in lines[7]
    assert "no override here has that id" in lines[9]
    listed = on("override", "list", "--json").json["overrides"]
    assert [one["run_path"] for one in listed] == [str(first)] * 5 + [str(second)] * 3
    assert [bool(one["why"]) for one in listed] == [False, True, True, True, True, True, False, True]
    assert on("override", "list", first.name).out.count("\n") == 5


def test_without_any_override_the_list_says_so(lab: Lab, on: Command, tmp_path: Path) -> None:
    lab.new_run()
    assert on("run", "--once").code == 0
    assert on("override", "list").out == "no overrides\n"
