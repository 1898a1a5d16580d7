"""`log`: a run's lines, an instrument's, the agent's; and with -f those that come."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_commands import one_line
from tests.lab.lab import CACHE, Equipment, Lab

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \[")


def test_each_word_has_its_log_with_times_in_utc(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_010"))
    on = ["--config", str(lab.config)]
    first, second = lab.new_run(), lab.new_run(equipment="SCOPE_010")
    assert command("run", "--once", *on).code == 0
    of_run = command("log", first.name, *on)
    assert (of_run.code, of_run.err) == (0, "")
    assert f"[run:{first.name}] NAS sync complete" in of_run.out
    assert second.name not in of_run.out
    of_equipment = command("log", "SCOPE_01", *on).out
    assert f"[run:{first.name}] NAS sync complete" in of_equipment
    assert second.name not in of_equipment
    of_agent = command("log", *on).out
    assert first.name in of_agent
    assert second.name in of_agent
    for text in (of_run.out, of_equipment, of_agent):
        assert all(STAMP.match(line) for line in text.splitlines())
    older = lab.state / "logs" / "agent.log"
    older.rename(older.with_suffix(".log.1"))
    older.write_text("2026-04-17T14:32:11Z [INFO ] x: the last\n")
    assert command("log", *on).out == f"{of_agent}2026-04-17T14:32:11Z [INFO ] x: the last\n"


def test_what_has_no_log_says_so(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    said = on("log", run.name)
    assert (said.code, said.out, one_line(said.err)) == (0, "", "nothing is logged of that yet")
    assert "No run is called" in one_line(on("log", "SCOPE_9").err)
    (run / CACHE / f"wizard.{socket.gethostname()}.log").mkdir()
    said = on("log", run.name)
    assert (said.code, said.out) == (1, "")
    assert "cannot be read: it is not a regular file." in one_line(said.err)
    shutil.rmtree(lab.state)
    assert on("log").code == 2


def test_f_follows_until_ctrl_c(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    assert on("run", "--once").code == 0
    with subprocess.Popen(
        [sys.executable, *lab.argv("log", "-f")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline()
            with (lab.state / "logs" / "agent.log").open("a") as log:
                log.write("a new line\n")
            while process.stdout.readline() != "a new line\n":
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stderr.read() == "Stopped.\n"
        finally:
            process.kill()
    assert run.exists()
