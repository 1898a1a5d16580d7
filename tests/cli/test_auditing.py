"""`audit verify` asks the NAS what it knows of the trail; `audit log` finds lines and says them in three forms."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import Lab, Said

Command = Callable[..., Said]


def rolled_back(lab: Lab, older: Path) -> None:
    shutil.rmtree(lab.state)
    shutil.copytree(older, lab.state)


def test_a_whole_trail_is_said_to_be_whole_with_how_many_know_of_it(lab: Lab, on: Command, command: Command) -> None:
    lab.new_run()
    on("run", "--once")
    said = on("audit", "verify")
    assert said.code == 0
    # Slot and heartbeat here, claim and heartbeat at the NAS.
    assert said.out.splitlines()[-1] == (
        "every line chains; positions of it that others know and that agree: 2 beside it, 2 on the NAS"
    )
    by_itself = command("audit", "verify", str(lab.state))
    assert by_itself.code == 0
    assert by_itself.out.splitlines()[-1] == (
        "every line chains; positions of it that others know and that agree: 2 beside it; nobody outside the folder was asked, "
        "so that it was put back to an older copy would not show"
    )


def test_a_state_folder_that_was_put_back_to_an_older_copy_is_told_by_the_nas_alone(
    lab: Lab, on: Command, command: Command, tmp_path: Path
) -> None:
    lab.new_run()
    on("run", "--once")
    shutil.copytree(lab.state, tmp_path / "older")
    second = lab.new_run()
    on("run", "--once")
    rolled_back(lab, tmp_path / "older")
    assert command("audit", "verify", str(lab.state)).code == 0, "nothing in the folder itself can show it"
    said = on("audit", "verify")
    assert said.code == 1
    broken = [line for line in said.out.splitlines() if line.startswith("BROKEN")]
    assert any("the heartbeat at" in line and "put back to an older copy" in line for line in broken)
    assert second.name  # its claim is of a run that this folder does not know


def test_a_changed_line_is_named_and_the_command_ends_with_1(lab: Lab, on: Command) -> None:
    lab.new_run()
    on("run", "--once")
    trail = lab.state / "audit.jsonl"
    lines = trail.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"SCOPE", b"SKOPE")
    trail.write_bytes(b"\n".join(lines))
    said = on("audit", "verify")
    assert said.code == 1
    assert "BROKEN  line 4 in audit.jsonl was changed" in said.out
    assert said.out.splitlines()[-1].startswith("the trail is not as it was written")


def test_a_nas_that_is_away_is_not_asked_and_said_so(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    lab.destination_root(run).rename(lab.home / "away")
    said = on("audit", "verify")
    assert said.code == 0
    assert "not asked  SCOPE_01: " in said.out
    assert said.out.splitlines()[-1].endswith("so that it was put back to an older copy would not show")


def test_lines_are_found_and_said_as_a_table_as_csv_and_as_json(lab: Lab, on: Command) -> None:
    run, other = lab.new_run(), lab.new_run()
    on("run", "--once")
    on("verify", run.name)
    about_run = [json.loads(line) for line in on("audit", "log", "--run", run.name, "--json").out.splitlines()]
    assert {line["kind"] for line in about_run} == {"transition", "operator_command"}
    assert other.name not in json.dumps(about_run)
    rows = list(csv.DictReader(on("audit", "log", "--kind", "operator_command", "--csv").out.splitlines()))
    assert [row["what"] for row in rows] == ["verify"]
    assert rows[0]["operator"]
    (line,) = on("audit", "log", "--kind", "operator_command").out.splitlines()
    assert line.endswith("verify")
    assert on("audit", "log", "--since", "1h").out.count("\n") == len(lab.trail())
    nothing = on("audit", "log", "--until", "2020-01-01")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no line of the trail says that\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--since", "yesterday"), "--since takes a day"),
        (("--until", "2026-13-40"), "--until takes a day"),
        (("--csv", "--json"), "not both"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(lab: Lab, on: Command, words: tuple[str, ...], said: str) -> None:
    lab.new_run()
    on("run", "--once")
    found = on("audit", "log", *words)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1


def test_a_cell_that_a_spreadsheet_would_take_for_a_formula_is_none(lab: Lab, on: Command) -> None:
    lab.new_run()
    on("run", "--once")
    on("resolve", "--accept-trail", "--reason", "=HYPERLINK(1)")
    for row in csv.reader(on("audit", "log", "--csv").out.splitlines()):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


def test_without_a_state_folder_it_ends_with_2_and_a_folder_without_a_trail_with_1(
    lab: Lab, command: Command, tmp_path: Path
) -> None:
    nowhere = ("--config", str(lab.config), "--state-dir", str(tmp_path / "nowhere"))
    for words in (("audit", "verify"), ("audit", "log")):
        found = command(*words, *nowhere)
        assert found.code == 2
        assert "There is no state folder at" in found.err
    said = command("audit", "verify", str(tmp_path))
    assert said.code == 1
    assert "There is no audit trail in" in said.err
