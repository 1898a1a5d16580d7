"""A log that grows is read once, line by line, through a rotation, and nothing else is ever opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local.log_file import LINE_BYTES_MAX, LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.log"


def add(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_each_line_comes_once_and_whole(path: Path) -> None:
    log = LogFile.at(path)
    assert list(log.new_lines()) == []
    add(path, b"one\ntwo\r\nthr")
    assert list(log.new_lines()) == ["one", "two"]
    add(path, b"ee\n\xff\n")
    assert list(log.new_lines()) == ["three", "\udcff"]
    assert list(log.new_lines()) == []
    add(path, b"half")
    assert [*log.new_lines(), *log.begun(), *log.begun()] == ["half"]
    log.close()


def test_a_rotation_loses_no_line(path: Path) -> None:
    log = LogFile.at(path)
    add(path, b"one\n")
    assert list(log.new_lines()) == ["one"]
    add(path, b"two\nhalf")
    path.rename(path.with_suffix(".log.1"))
    assert list(log.new_lines()) == ["two"]
    add(path, b"three\n")
    assert list(log.new_lines()) == ["half", "three"]
    assert list(log.new_lines()) == []
    path.write_bytes(b"4\n")
    assert list(log.new_lines()) == ["4"], "a file that was emptied in place is read from its beginning"
    log.close()


def test_a_line_without_end_comes_in_parts(path: Path) -> None:
    log = LogFile.at(path)
    add(path, b"x" * (3 * LINE_BYTES_MAX) + b"\n")
    found = list(log.new_lines())
    assert "".join(found) == "x" * (3 * LINE_BYTES_MAX)
    assert max(map(len, found)) <= 2 * LINE_BYTES_MAX
    log.close()


def test_neither_a_link_nor_a_pipe_is_opened(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        list(LogFile.at(path).new_lines())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        list(LogFile.at(path).new_lines())
    run = tmp_path / "run"
    (run / ".exlab-wizard").mkdir(parents=True)
    (run / ".exlab-wizard" / "wizard.pc.log").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        list(LogFile.of_run(str(run), "pc").new_lines())
