"""A state folder is ours and nobody else's to write in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.errors import StateFolderError


def test_a_folder_of_this_account_alone_is_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    require_private(tmp_path)


@pytest.mark.parametrize("trace", ["audit.jsonl", "state.b.json", "evidence"])
def test_a_state_folder_that_was_opened_to_others_is_closed_by_a_chmod(tmp_path: Path, trace: str) -> None:
    (tmp_path / trace).mkdir()
    (tmp_path / "something else").mkdir()
    tmp_path.chmod(0o755)
    try:
        with pytest.raises(StateFolderError, match="chmod 700"):
            require_private(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_link_to_a_folder_is_judged_by_both_ends(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "open" / "link").symlink_to(tmp_path / "state")
    require_private(tmp_path / "open" / "link")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StateFolderError, match=f"{tmp_path / 'open'} may be written by others"):
        require_private(tmp_path / "open" / "link")
    (tmp_path / "open" / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "real")
    with pytest.raises(StateFolderError, match=f"{tmp_path / 'open'} may be written by others"):
        require_private(tmp_path / "link")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o701, "may be read by others"),
        (0o750, "may be read by others"),
        (0o755, "may be read by others"),
        (0o770, "may be written by others"),
        (0o702, "may be written by others"),
        (0o777, "may be written by others"),
        (0o1777, "may be written by others"),
    ],
)
def test_a_folder_that_is_open_to_others_is_refused_and_left_as_it_is(tmp_path: Path, mode: int, words: str) -> None:
    tmp_path.chmod(mode)
    try:
        with pytest.raises(StateFolderError, match=words) as refused:
            require_private(tmp_path)
        assert f"chmod 700 {tmp_path}" in str(refused.value)
        assert tmp_path.stat().st_mode & 0o7777 == mode
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(StateFolderError, match=f"belongs to another user \\(uid {owner}\\)"):
        require_private(tmp_path)


def test_a_folder_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    require_private(tmp_path / "new")


def test_windows_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(os, "name", "nt")
    try:
        require_private(tmp_path)
    finally:
        monkeypatch.undo()
        tmp_path.chmod(0o700)
