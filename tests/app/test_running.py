"""One agent after the other in one process, at its edges: who comes between them, and a thread that hangs.

What is asked of agents here is only that they begin, end and say what follows: fakes stand in for them, because no mount of a
test can be made to hang for good. Real ones are in tests/e2e/test_reload.py.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from exlab_watch_agent.adapters.state.folder_lock import folder_lock
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.pace import PACE
from exlab_watch_agent.app.running import Running
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.config.load import Settings, settings_from_mapping


class BegunAnewError(Exception):
    """The process would have begun anew here."""


@dataclass
class FakeAgent:
    lived: list[str]
    name: str
    successor: Settings | None = None
    is_drained: bool = True
    engine: Any = field(init=False)

    def __post_init__(self) -> None:
        self.engine = SimpleNamespace(is_drained=self.is_drained)

    def open(self) -> None:
        self.lived.append(f"open {self.name}")

    def run(self) -> None:
        self.lived.append(f"run {self.name}")

    def stop(self) -> None:
        self.lived.append(f"stop {self.name}")

    def wake(self) -> None:
        self.lived.append(f"wake {self.name}")

    def close(self) -> None:
        self.lived.append(f"close {self.name}")


def _nothing(_agent: Agent) -> AbstractContextManager[None]:
    return nullcontext()


SETTINGS = settings_from_mapping({"equipment": [], "agent": {}})


class FakeRunning(Running):
    """Its agents are these, in order; while one of them is closed, the folder's lock is asked for as another process would."""

    def __init__(self, home: Path, *agents: FakeAgent) -> None:
        def begin_anew() -> None:
            raise BegunAnewError

        site = Site(None, home)
        super().__init__(site, on_move=lambda *_: None, on_notice=lambda _: None, pace=PACE, begin_anew=begin_anew)
        site.settings = SETTINGS
        self.agents = list(agents)

    def _open(self, settings: Settings) -> Agent:
        agent = cast("Agent", self.agents.pop(0))
        self._agent = agent
        if self._is_stopping:
            agent.stop()
        agent.open()
        return agent


def test_one_agent_ends_before_the_next_begins_and_the_last_one_is_closed(tmp_path: Path) -> None:
    lived: list[str] = []
    agents = FakeAgent(lived, "a", SETTINGS), FakeAgent(lived, "b")
    last: object = FakeRunning(tmp_path, *agents).run(_nothing)
    assert last is agents[1]
    assert lived == ["open a", "run a", "close a", "open b", "run b", "close b"]


def test_nobody_comes_between_two_agents(tmp_path: Path) -> None:
    free: list[bool] = []

    class Asking(FakeAgent):
        def close(self) -> None:
            super().close()
            another = folder_lock(tmp_path)
            try:
                another.acquire(timeout=0)
            except TimeoutError:
                free.append(False)
            else:
                another.release()
                free.append(True)

    lived: list[str] = []
    FakeRunning(tmp_path, Asking(lived, "a", SETTINGS), Asking(lived, "b")).run(_nothing)
    assert free == [False, True]


def test_no_agent_begins_beside_a_thread_that_hangs(tmp_path: Path) -> None:
    lived: list[str] = []
    hanging = FakeAgent(lived, "a", SETTINGS, is_drained=False)
    with pytest.raises(BegunAnewError):
        FakeRunning(tmp_path, hanging, FakeAgent(lived, "b")).run(_nothing)
    assert lived == ["open a", "run a", "close a"]


def test_a_stop_that_comes_with_a_reload_is_the_end(tmp_path: Path) -> None:
    lived: list[str] = []

    class Stopped(FakeAgent):
        def run(self) -> None:
            running.stop()

    running = FakeRunning(tmp_path, Stopped(lived, "a", SETTINGS), FakeAgent(lived, "b"))
    running.run(_nothing)
    assert lived == ["open a", "stop a", "close a"]


def test_a_stop_between_two_agents_reaches_the_next(tmp_path: Path) -> None:
    lived: list[str] = []

    class StoppedInBetween(FakeAgent):
        def close(self) -> None:
            running.stop()

    running = FakeRunning(tmp_path, StoppedInBetween(lived, "a", SETTINGS), FakeAgent(lived, "b"))
    running.run(_nothing)
    assert lived == ["open a", "run a", "stop a", "stop b", "open b", "run b", "close b"]


BEGINS_ANEW = """\
import pathlib, sys, threading
sys.path.insert(0, sys.argv[2])
from exlab_watch_agent.app.running import begin_process_anew
lives = pathlib.Path(sys.argv[1])
with lives.open("a") as file:
    print(__import__("os").getpid(), *sys.argv[3:], file=file)
if len(lives.read_text().splitlines()) < 3:
    threading.Thread(target=threading.Event().wait).start()  # it hangs for good, and nobody waits for it
    begin_process_anew()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there the process ends, and its service starts it again")
def test_a_process_begins_anew_as_itself_with_its_words_whatever_hangs_in_it(tmp_path: Path) -> None:
    program, lives = tmp_path / "program.py", tmp_path / "lives"
    program.write_text(BEGINS_ANEW)
    words = [sys.executable, str(program), str(lives), str(Path(__file__).parents[2]), "run", "--quiet"]
    assert subprocess.run(words, timeout=60, check=False).returncode == 0
    first, *others = lives.read_text().splitlines()
    assert first.endswith(" run --quiet")
    assert others == [first, first]
