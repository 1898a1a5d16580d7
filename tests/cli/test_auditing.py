"""`audit verify` asks the NAS what it knows of the trail; `audit log` finds lines and says them in three forms."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exlab_watch_agent.cli.saying import csv_line
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
        (("--since", "2026-04-19", "--until", "2026-04-18"), "--until must be later than --since"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(lab: Lab, on: Command, words: tuple[str, ...], said: str) -> None:
    lab.new_run()
    on("run", "--once")
    found = on("audit", "log", *words)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1


def test_a_question_that_nothing_answers_names_what_could_be_asked(lab: Lab, on: Command) -> None:
    lab.new_run()
    on("run", "--once")
    kinds = on("audit", "log", "--kind", "verify")
    assert (kinds.code, kinds.out) == (0, "")
    assert kinds.err.startswith("no line of the trail says that; kinds of lines are: ")
    assert "operator_command, override_added" in kinds.err
    equipment = on("audit", "log", "--equipment", "SCOPE_O1", "--csv")
    assert (equipment.code, equipment.out) == (0, "")
    assert equipment.err == "no line of the trail says that; instruments that are known are: SCOPE_01\n"


def test_a_cell_that_a_spreadsheet_would_take_for_a_formula_is_none(lab: Lab, on: Command) -> None:
    lab.new_run()
    on("run", "--once")
    on("resolve", "--accept-trail", "--reason", "=HYPERLINK(1)")
    for row in csv.reader(on("audit", "log", "--csv").out.splitlines()):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(1)", " =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"])
def test_what_begins_like_a_formula_is_text_in_csv(cell: str) -> None:
    assert next(csv.reader([csv_line(("7", cell))])) == ["7", f"'{cell}"]


def test_all_other_cells_are_as_they_are_and_each_row_is_one_line(lab: Lab, on: Command) -> None:
    cells = ("7", "", "a=b", "/data/a,b", 'a "quoted" one', "<script>", "\u2019")
    assert next(csv.reader([csv_line(cells)])) == list(cells)
    assert "\n" not in csv_line(("a\nb", "c\r\nd"))
    lab.new_run()
    on("run", "--once")
    first = next(csv.DictReader(on("audit", "log", "--csv").out.splitlines()))
    assert (first["kind"], first["equipment"], first["run"], first["operator"]) == ("segment_opened", "", "", "")


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
