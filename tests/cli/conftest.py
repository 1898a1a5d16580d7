"""The command line in this process, which spares each test the start of another one, and at a quick pace (tests/lab/quick.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exlab_watch_agent.cli.main import main
from tests.lab.lab import Lab, Said
from tests.lab.quick import QUICK

Command = Callable[..., Said]


@pytest.fixture(autouse=True)
def _nobody_s_own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs one command to its end and returns what it said."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["exlab-watch-agent", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(QUICK)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert "A defect of exlab-watch-agent" not in said.err
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def on(lab: Lab, command: Command) -> Command:
    """Return the same with the lab's config."""
    return lambda *words: command(*words, "--config", str(lab.config))
