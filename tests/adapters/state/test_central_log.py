"""The central log: private, and what it cannot take is said on stderr without a traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.state.central_log import CentralLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    handler = CentralLog(tmp_path / "logs" / "agent.log", size_bytes_max=1000, kept=2)
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_file_and_folder_are_private_to_the_user_also_after_a_rotation(log: logging.Logger, tmp_path: Path) -> None:
    for number in range(30):
        log.warning("line %d of many, written until the file is full and another one begins", number)
    files = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in files] == ["agent.log", "agent.log.1", "agent.log.2"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


def test_a_line_that_cannot_be_written_goes_to_stderr_and_the_next_one_to_the_file_again(
    log: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "agent.log"
    log.warning("before")
    path.unlink()
    path.symlink_to("/dev/full")  # every write says ENOSPC
    log.handlers[0].handleError(logging.makeLogRecord({"msg": "opens it anew"}))
    capsys.readouterr()
    path.unlink()
    path.mkdir()
    log.warning("no room for this")
    log.warning("nor for this")
    said = capsys.readouterr().err.splitlines()
    assert [line.rsplit(": ", 1)[1] for line in said] == ["no room for this", "nor for this"]
    path.rmdir()
    log.warning("after")
    assert path.read_text().endswith("after\n")
    assert capsys.readouterr().err == ""


def test_closing_a_log_whose_disk_is_full_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = CentralLog(tmp_path / "agent.log", size_bytes_max=1000, kept=2)
    handler.stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115  # the handler closes it
    handler.emit(logging.makeLogRecord({"msg": "no room for this"}))
    handler.stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115  # the handler closes it
    handler.stream.write("what was not flushed")
    handler.close()
    said = capsys.readouterr().err
    assert "no room for this" in said
    assert "Traceback" not in said
