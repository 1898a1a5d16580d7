"""Commands as people type them: by variables and `~`, in another shell, into a pipe, with -h, completed by the Tab key."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_commands import COMMANDS, one_line
from tests.lab.lab import Lab


@pytest.fixture
def home(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home folder, which is the lab's: `~/config.yaml` is its config, which names no state folder, and `~/st 2` that."""
    lab.state = lab.state.rename(lab.home / "st 2")
    del lab.settings["agent"]["state_dir"]
    lab.save_config()
    monkeypatch.setenv("HOME", str(lab.home))
    monkeypatch.chdir(lab.nas)
    return lab.home


def test_variables_stand_for_the_flags_and_flags_count_more(
    lab: Lab, home: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.new_run()
    monkeypatch.setenv("EXLAB_WATCH_AGENT_CONFIG", "~/config.yaml")
    monkeypatch.setenv("EXLAB_WATCH_AGENT_STATE_DIR", "../st 2")
    assert command("run", "--once").code == 0
    lab.assert_whole(run)
    assert (lab.home / "st 2").is_dir()
    assert str(run) in command("show", run.name).out
    other = command("show", run.name, "--state-dir", str(lab.home / "nothing"))
    assert other.code == 2
    monkeypatch.setenv("EXLAB_WATCH_AGENT_CONFIG", "")
    assert command("check").code == 2, "an empty variable is none"


def test_a_command_that_is_printed_works_in_a_shell_without_the_variables(
    lab: Lab, home: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.new_run(files={"a:b": b"1"})
    monkeypatch.setenv("EXLAB_WATCH_AGENT_CONFIG", "~/config.yaml")
    monkeypatch.setenv("EXLAB_WATCH_AGENT_STATE_DIR", "~/st 2")
    assert command("run", "--once").code == 3
    (line,) = [line for line in command("problems").out.splitlines() if "override add" in line]
    pasted = shlex.split(line.replace("...", "for a reason"))[1:]
    monkeypatch.delenv("EXLAB_WATCH_AGENT_CONFIG")
    monkeypatch.delenv("EXLAB_WATCH_AGENT_STATE_DIR")
    monkeypatch.chdir("/")
    assert command(*pasted[1:]).code == 0


def test_a_command_in_a_sentence_carries_the_flags_as_well(lab: Lab, home: Path, command: Command) -> None:
    run = lab.new_run()
    flags = ["--config", "../config.yaml", "--state-dir", "~/st 2"]
    shown = f"--config {lab.config} --state-dir '{home}/st 2'`"
    assert f"`exlab-watch-agent status --all {shown} lists" in one_line(command("show", "Run_1999", *flags).err)
    assert f"`exlab-watch-agent sync '{run}' {shown} looks" in one_line(command("verify", run.name, *flags).err)
    assert f"`exlab-watch-agent sync '{run}' {shown} does that" in command("show", run.name, *flags).out


@pytest.mark.parametrize("given", ["~/st 2", "../st 2", "./../st 2"])
def test_a_path_means_the_same_to_every_command(lab: Lab, home: Path, command: Command, given: str) -> None:
    flags = [f"--config={given.replace('st 2', 'config.yaml')}", f"--state-dir={given}"]
    run = lab.new_run()
    assert command("run", "--once", *flags).code == 0
    assert (home / "st 2").is_dir()
    assert not list(lab.nas.glob("~*"))
    for words in (["show", run.name], ["audit", "verify"], ["verify", run.name], ["diagram", "--counts"]):
        assert command(*words, *flags).code == 0, words
    assert command("audit", "verify", given).code == 0
    assert command("diagram", "-o", given.replace("st 2", "chart.svg")).code == 0
    assert (home / "chart.svg").exists()
    out = given.replace("st 2", "run.json")
    assert command("audit", "export", "--run", run.name, "--format", "json", "-o", out, *flags).code == 0
    assert (home / "run.json").exists()
    new = given.replace("st 2", "new.yaml")
    assert command("init", "--config", new, "--state-dir", given).code == 0
    assert str(home / "st 2") in (home / "new.yaml").read_text()


def test_the_demo_is_not_disturbed_by_variables(lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXLAB_WATCH_AGENT_CONFIG", str(lab.config))
    said = command("demo", "--keep", str(lab.home))
    assert (said.code, "only builds in a new folder" in one_line(said.err)) == (2, True)
    assert "leave out --config" in command("demo", "--config", str(lab.config)).err


@pytest.mark.parametrize(
    ("words", "said"), [(["--config="], "it is empty"), (["--state-dir", "~nobody-here/x"], "no home folder is known")]
)
def test_a_path_that_cannot_be_one_is_refused(command: Command, words: list[str], said: str) -> None:
    refused = command("status", *words)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err


@pytest.mark.parametrize("words", [[], *COMMANDS], ids=" ".join)
def test_h_is_help(command: Command, words: list[str]) -> None:
    assert command(*words, "-h").out == command(*words, "--help").out != ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_the_commands(shell: str) -> None:
    program = [sys.executable, "-m", "exlab_watch_agent"]
    # Without this it asks which shell it was started from, which a test may not have been.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [*program, "--show-completion", shell]
    shown = subprocess.run(words, capture_output=True, text=True, env=named, check=True).stdout
    assert "exlab-watch-agent" in shown
    asked = {
        "_EXLAB_WATCH_AGENT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "exlab-watch-agent prob",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "exlab-watch-agent prob",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    said = subprocess.run(program, capture_output=True, text=True, env={**os.environ, **asked}, check=False)
    assert "problems" in said.stdout
    assert "Traceback" not in said.stderr
