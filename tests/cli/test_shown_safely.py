"""No name, reason or message that comes from outside reaches a terminal or a log raw; JSON says it as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import CACHE, Lab, Said, override, read_creation, save_in_place

Command = Callable[..., Said]
EVIL = "P\u202egnp\u200f\u2066\x1b[31m\nNOT ok\x07\x9b"
HARMFUL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")
RULES = ("illegal_filesystem_character", "leftover_jinja_marker")


def harmful(text: str) -> list[str]:
    return [ascii(line) for line in text.split("\n") if HARMFUL.search(line) or line.startswith("NOT ok")]


@pytest.fixture
def run(lab: Lab) -> Path:
    """A run whose project, files, operator and reasons are meant to steer a terminal; nothing of it blocks."""
    overrides = [override(rule, operator=EVIL, reason=EVIL, id=f"{EVIL}{rule}") for rule in RULES]
    files = {f"{EVIL} {{{{ x }}}}.tif": b"1" * 100, "d\u200e/b": b"2"}
    return lab.new_run(files=files, project=EVIL, validation_overrides=overrides, created_by=EVIL)


def test_no_command_hands_on_what_steers_a_terminal_and_no_log_keeps_it(lab: Lab, on: Command, run: Path) -> None:
    other = lab.new_run(project=EVIL, files={f"{EVIL}.tif": b"3"})
    (lab.local / "SCOPE_01" / EVIL / "Runs" / "Run_2026-01-01T00-00").mkdir(parents=True)
    spoiled = lab.new_run(project=EVIL)
    save_in_place(spoiled, read_creation(spoiled) | {"level": EVIL})
    said = [on("run", "--once")]
    assert lab.record(run)["state"] == "verified"
    name = next(path for path in run.iterdir() if path.name.endswith(".tif"))
    name.write_bytes(b"another")
    copy = lab.copy_of(run)
    (copy / name.name).write_bytes(b"third")
    said.append(on("verify", str(run)))
    assert lab.record(run)["state"] == "conflict"
    for words in (
        ["status"],
        ["status", "--json"],
        *([command, str(one)] for command in ("show", "sync", "retry", "verify") for one in (run, other)),
        ["show", str(run), "--json"],
        ["problems"],
        ["problems", "--json"],
        ["override", "list", str(run)],
        ["override", "list", str(run), "--json"],
        ["override", "add", str(other), "--class", EVIL, "--reason", EVIL],
        ["override", "add", str(other), "--class", RULES[0], "--reason", EVIL, "--operator", EVIL],
        ["override", "revoke", str(other), EVIL, "--reason", EVIL],
        ["override", "revoke", str(run), f"{EVIL}{RULES[1]}", "--reason", EVIL],
        ["override", "revoke", str(run), f"{EVIL}{RULES[1]}", "--reason", EVIL],
        ["scan"],
        ["scan", "--accept-root", EVIL],
        ["bind", EVIL],
        ["show", EVIL],
        ["show", run.name, EVIL],
        [EVIL],
        ["status", f"--{EVIL}"],
        ["resolve", str(run), "--use", "local", "--reason", EVIL],
    ):
        said.append(on(*words))
    bad = [(one.code, *harmful(one.out), *harmful(one.err)) for one in said if harmful(one.out) or harmful(one.err)]
    assert bad == []
    logs = [*lab.state.glob("logs/*"), *(lab.local / "SCOPE_01").rglob("wizard.*.log")]
    assert len(logs) > 1
    assert {str(log): found for log in logs if (found := harmful(log.read_text(encoding="utf-8")))} == {}


def test_a_config_a_state_folder_and_a_destination_of_such_a_name_are_shown_safely(lab: Lab, command: Command) -> None:
    home = lab.home / EVIL
    home.mkdir(mode=0o700)
    lab.settings["agent"]["state_dir"] = None
    lab.save_config()
    words = ("--config", str(home / "config.yaml"), "--state-dir", str(home / "state"))
    said = [command("status", *words), command("init", *words), command("init", *words), command("check", *words)]
    assert (home / "config.yaml").exists()
    words = ("--config", str(lab.config), "--state-dir", str(home / "state"))
    said += [command("check", *words), command("bind", "--all", "--yes", *words), command("run", "--once", *words)]
    said += [command("status", *words), command("check", *words)]
    home.chmod(0o777)
    said += [command("check", *words), command("run", "--once", *words)]
    bad = [(one.code, *harmful(one.out), *harmful(one.err)) for one in said if harmful(one.out) or harmful(one.err)]
    assert bad == []


def test_json_says_a_name_as_it_is_in_ascii(lab: Lab, on: Command, run: Path) -> None:
    on("run", "--once")
    blocked = lab.new_run(project=EVIL, files={f"{EVIL}.tif": b"3"})
    on("run", "--once")
    shown, listed, needed = (on(*words, "--json") for words in (["show", str(run)], ["status"], ["problems"]))
    for said in (shown, listed, needed):
        assert said.out.isascii()
    assert (shown.json["run_path"], shown.json["project"]) == (str(run), EVIL)
    assert shown.json["destination"] == f"{EVIL}/Runs/{run.name}"
    assert {one["run_path"] for one in listed.json["runs"]} == {str(run), str(blocked)}
    assert [problem["subject"] for problem in needed.problems] == [str(blocked)]
    assert read_creation(lab.copy_of(run))["created_by"] == EVIL
    assert (
        json.loads((lab.copy_of(run) / CACHE / "creation.json").read_text())["validation_overrides"][0]["reason"]
        == EVIL
    )
