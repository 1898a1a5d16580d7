"""A running agent knows whether its config file still says what it took in."""

from __future__ import annotations

import os
from pathlib import Path

from exlab_watch_agent.app.config_file import ConfigFile


def saved(path: Path, text: str, second: int) -> None:
    path.write_text(text)
    os.utime(path, (second, second))


def test_a_file_is_newer_when_it_says_something_else_and_no_longer_once_it_says_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    saved(path, "a: 1", 1_000_000_000)
    config = ConfigFile(path)
    assert config.changed_at() is None
    saved(path, "a: 1", 1_000_000_100)
    assert config.changed_at() is None, "it was only saved"
    saved(path, "a: 2", 1_000_000_200)
    changed_at = config.changed_at()
    assert changed_at is not None
    assert changed_at.timestamp() == 1_000_000_200
    path.unlink()
    assert config.changed_at() == changed_at, "an editor that saves by renaming has it away for a moment"
    saved(path, "a: 1", 1_000_000_300)
    assert config.changed_at() is None


def test_without_a_file_there_is_none_to_be_newer(tmp_path: Path) -> None:
    assert ConfigFile(None).changed_at() is None
    assert ConfigFile(tmp_path / "none").changed_at() is None
