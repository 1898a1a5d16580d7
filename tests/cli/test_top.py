"""`top`: one screen without a terminal; with one, live, never wrapped, and ended by a key or Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exlab_watch_agent.cli.top import spread
from tests.cli.conftest import Command
from tests.lab.lab import AgentProcess, Lab, until

WIDTH, HEIGHT = 60, 20
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_without_a_terminal_it_is_one_screen(lab: Lab, on: Command) -> None:
    run, blocked = lab.new_run(), lab.new_run(files={"<id>": b"1"})
    assert on("run", "--once").code == 3
    said = on("top")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "1 problem needs you"
    assert lines[1] == "no agent is running; 1 blocked, 1 verified"
    assert any(line.startswith(f"{blocked.name}  blocked: The file name") for line in lines)
    assert run.name not in said.out
    assert run.name in on("top", run.name).out


class Screen:
    """What a program shows on a terminal of 60 columns."""

    def __init__(self, argv: list[str], *, has_stderr: bool) -> None:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self._before = termios.tcgetattr(self._slave)
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(WIDTH), "LINES": str(HEIGHT)}
        self.process = subprocess.Popen(
            argv,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave if has_stderr else subprocess.PIPE,
            env=environment,
        )
        self._said = ""

    def read(self) -> str:
        """Return all that was shown until now."""
        while select.select([self._master], [], [], 0.05)[0]:
            self._said += os.read(self._master, 65536).decode("utf-8", "replace")
        return self._said

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def is_as_before(self) -> bool:
        return bool(termios.tcgetattr(self._slave) == self._before)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        os.close(self._master)
        os.close(self._slave)


@contextmanager
def screen(lab: Lab, *words: str, has_stderr: bool = False) -> Iterator[Screen]:
    shown = Screen([sys.executable, *lab.argv(*words)], has_stderr=has_stderr)
    try:
        yield shown
    finally:
        shown.close()


@pytest.mark.parametrize("end", ["q", "ctrl-c"])
def test_it_ends_quietly_and_leaves_the_terminal_as_it_was(lab: Lab, on: Command, end: str) -> None:
    lab.new_run(files={"<id>": b"1"})
    assert on("run", "--once").code == 3
    with screen(lab, "top") as shown:
        until(lambda: "blocked: The file" in shown.read(), "the run is shown")
        if end == "q":
            shown.press("q")
        else:
            shown.process.send_signal(signal.SIGINT)
        until(lambda: shown.read() and shown.process.poll() is not None, "it ends")
        assert shown.process.returncode == 0
        assert shown.process.stderr is not None
        assert shown.process.stderr.read() == b""
        assert shown.is_as_before()


def test_a_push_is_shown_with_all_of_its_parts_and_nothing_wraps(lab: Lab, on: Command) -> None:
    lab.settings["equipment"][0]["transport"]["bandwidth"] = {"upload_mbps": 8}
    lab.save_config()
    run = lab.new_run(files={"a.bin": os.urandom(20_000_000)})
    with AgentProcess(lab) as agent, screen(lab, "top") as shown:
        agent.until_up()
        until(lambda: "limit 1.0 MiB/s" in shown.read(), "the limit is shown")
        shown.press("q")
        until(lambda: shown.read() and shown.process.poll() is not None, "it ends")
        text = STEERING.sub("\n", shown.read()).replace("\r", "\n")
        lines = [line.strip() for line in text.split("\n")]
        assert max(map(len, lines)) <= WIDTH
        assert f"{run.name}  SCOPE_01" in lines
        assert any(re.match(r"push: .+ of 19.1 MiB \(\d+ %\)", line) for line in lines)
        progress = on("status", "--json").json["runs"][0]["progress"]
        assert (progress["doing"], progress["bytes_total"]) == ("push", 20_000_000)
        assert progress["limit_bytes_per_s"] == 1024 * 1024
        assert re.search(r"\n +push: .+ left, limit 1.0 MiB/s\n", on("status").out)


def test_run_shows_on_a_terminal_what_is_under_way_in_one_line_each(lab: Lab) -> None:
    lab.settings["equipment"][0]["transport"]["bandwidth"] = {"upload_mbps": 8}
    lab.save_config()
    run = lab.new_run(files={"a.bin": os.urandom(20_000_000)})
    with screen(lab, "run", "--once", has_stderr=True) as shown:
        until(lambda: f"{run.name} push: 3" in shown.read(), "the push is shown")
        shown.process.send_signal(signal.SIGINT)
        until(lambda: shown.read() and shown.process.poll() is not None, "it ends")
        assert shown.process.returncode == 130
        text = STEERING.sub("\n", shown.read()).replace("\r", "\n")
    pushes = [line.rstrip() for line in text.split("\n") if " push: " in line]
    assert pushes
    assert max(map(len, pushes)) <= WIDTH
    assert "Stopped; the next agent that runs goes on with" in text


def test_parts_are_spread_over_lines() -> None:
    assert list(spread(["aaa", "bbb", "c"], width=None)) == ["  aaa, bbb, c"]
    assert list(spread(["aaa", "bbb", "c"], width=10)) == ["  aaa, bbb", "  c"]
    assert list(spread(["aaaaaaaaaaaa", "b"], width=5)) == ["  aaaaaaaaaaaa", "  b"]
