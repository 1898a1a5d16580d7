"""How a command ends before its end: by Ctrl-C, by a reader that has gone, on a terminal that lacks letters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.lab.lab import Equipment, Lab, until

MANY = 60
LISTS = [
    ["status", "--all"],
    ["status", "--json"],
    ["status", "--csv"],
    ["problems"],
    ["audit", "log"],
    ["log"],
    ["top"],
]


@pytest.fixture
def many(lab: Lab, on: Command) -> Lab:
    for number in range(MANY):
        lab.new_run(f"Run_2026-04-17T00-{number:02d}", project="Zellkörper " + "x" * 60, files={"<ü>": b"1"})
    assert on("run", "--once", "--quiet").code == 3
    return lab


def test_a_reader_that_has_gone_is_no_mistake(many: Lab) -> None:
    for words in LISTS:
        with subprocess.Popen(
            [sys.executable, *many.argv(*words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert (process.wait(30), process.stderr.read()) == (0, b""), words


@pytest.mark.parametrize(
    "terminal",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ],
    ids=["ascii", "C", "bare"],
)
def test_a_terminal_that_lacks_letters_gets_them_spelled_out(many: Lab, terminal: dict[str, str]) -> None:
    environment = {**os.environ, **terminal}
    for words in (["status"], ["top"], ["problems"], ["status", "--csv"], ["show", "Run_2026-04-17T00-01"], ["-h"]):
        argv = [sys.executable, *many.argv(*words)]
        said = subprocess.run(argv, capture_output=True, env=environment, check=False)
        assert b"Traceback" not in said.stderr
        assert b"defect" not in said.stderr, words
        if terminal.get("PYTHONIOENCODING") == "ascii":
            assert said.stdout.isascii()


@pytest.mark.parametrize("words", [["run"], ["run", "--once"], ["sync", "Run_2026-04-17T00-01"]], ids=" ".join)
def test_ctrl_c_says_one_line_and_ends_with_130(tmp_path: Path, words: list[str]) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8))
    run = lab.new_run(files={"a.bin": os.urandom(20_000_000)})
    with subprocess.Popen(
        [sys.executable, *lab.argv(*words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            lab.until_state(run, "running")
            until(lambda: lab.live().get("progress"), "it is pushed")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            said = process.stderr.read().splitlines()
        finally:
            process.kill()
    assert said[-1] == f"Stopped; the next agent that runs goes on with {run.name}."
    del lab.settings["equipment"][0]["transport"]["bandwidth"]
    lab.save_config()
    assert lab.cli("run", "--once").code == 0
    lab.assert_whole(run)
