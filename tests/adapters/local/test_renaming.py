"""Renames that change two names' places, or take only a free name."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local import renaming
from exlab_watch_agent.adapters.local.handles import Folder, folder_at
from exlab_watch_agent.adapters.local.renaming import CannotRenameSoError, exchange, rename_new

ONE, OTHER = "one \udcff", "other"


@pytest.fixture(params=["by handle", "by path"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Folder]:
    """A folder with two files, where this file system can let them change places."""
    (tmp_path / ONE).write_bytes(b"1")
    (tmp_path / OTHER).write_bytes(b"2")
    with folder_at(str(tmp_path)) if request.param == "by handle" else Folder(str(tmp_path)) as here:
        try:
            exchange(here, ONE, OTHER)
            exchange(here, ONE, OTHER)
        except CannotRenameSoError as error:
            pytest.skip(str(error))
        yield here


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_two_names_change_places(folder: Folder, tmp_path: Path) -> None:
    exchange(folder, ONE, OTHER)
    assert contents(tmp_path) == {ONE: b"2", OTHER: b"1"}


def test_an_exchange_with_nothing_moves_nothing(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exchange(folder, ONE, "absent")
    assert contents(tmp_path) == {ONE: b"1", OTHER: b"2"}


@pytest.mark.parametrize("what", ["file", "folder", "broken link"])
def test_a_name_that_anything_has_is_not_taken(folder: Folder, tmp_path: Path, what: str) -> None:
    other = tmp_path / OTHER
    if what != "file":
        other.unlink()
    if what == "folder":
        other.mkdir()
    elif what == "broken link":
        other.symlink_to("nowhere")
    with pytest.raises(FileExistsError) as caught:
        rename_new(folder, ONE, folder, OTHER)
    assert caught.value.filename2 == str(other)
    assert (tmp_path / ONE).read_bytes() == b"1"
    assert folder.has(OTHER)


def test_a_free_name_is_taken_in_another_folder(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with folder.step("below") as below:
        rename_new(folder, ONE, below, "new")
    assert (tmp_path / "below" / "new").read_bytes() == b"1"
    assert contents(tmp_path) == {OTHER: b"2"}


def test_a_folder_that_was_swapped_for_a_link_is_still_the_one_that_was_opened(folder: Folder, tmp_path: Path) -> None:
    for path in (tmp_path / "real", tmp_path / "elsewhere"):
        path.mkdir()
        (path / "a").write_bytes(b"a")
        (path / "b").write_bytes(b"b")
    with folder.step("real") as real:
        if real.handle is None:
            pytest.skip("this folder has no handle")
        (tmp_path / "real").rename(tmp_path / "moved")
        (tmp_path / "real").symlink_to(tmp_path / "elsewhere")
        exchange(real, "a", "b")
        rename_new(real, "a", real, "new")
    assert contents(tmp_path / "elsewhere") == {"a": b"a", "b": b"b"}
    assert contents(tmp_path / "moved") == {"new": b"b", "b": b"a"}


def asked_to_exchange(folder: Folder) -> None:
    exchange(folder, "a", "b")


def asked_to_rename(folder: Folder) -> None:
    rename_new(folder, "a", folder, "b")


@pytest.mark.parametrize("act", [asked_to_exchange, asked_to_rename])
def test_a_platform_without_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Folder], None]
) -> None:
    monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    with pytest.raises(CannotRenameSoError):
        act(Folder(str(tmp_path)))


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_system_without_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(renaming, "_renameat2", lambda: lambda *_: ctypes.set_errno(code) or -1)
    with pytest.raises(CannotRenameSoError):
        asked_to_rename(Folder(str(tmp_path)))
