"""What a push by a tool asks of the run: nothing outside it is read or taken for a part of it, and no path is too long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.transports.shared.local_side import (
    as_it_is,
    bytes_to_place,
    read_as_it_is,
    require_sources,
    require_sources_unchanged,
)
from exlab_watch_agent.errors import FailureKind, RunUnreadableError, SourceChangedError, TransportError
from tests.lab.swapping import deep_folder, write_below

LONG = ["d" * 250] * 20


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    with deep_folder(tmp_path) as home:
        write_below(home, ["run", "a", "image.tif"], b"x")
        yield home / "run"


def test_the_files_of_a_list_are_there_until_one_changes_or_goes(run: Path) -> None:
    files = DiskRunTree().inventory(str(run)).files
    require_sources(str(run), files)
    require_sources_unchanged(str(run), files)
    (run / "a" / "image.tif").write_bytes(b"other")
    with pytest.raises(SourceChangedError):
        require_sources(str(run), files)
    with pytest.raises(SourceChangedError):
        require_sources_unchanged(str(run), files)
    (run / "a" / "image.tif").unlink()
    with pytest.raises(TransportError) as caught:
        require_sources(str(run), files)
    assert caught.value.kind is FailureKind.LOCAL_FILE_VANISHED
    with pytest.raises(SourceChangedError):
        require_sources_unchanged(str(run), files)


def test_a_folder_that_is_a_link_by_now_is_a_change_even_where_it_leads_to_the_very_files(run: Path) -> None:
    files = DiskRunTree().inventory(str(run)).files
    (run / "a").rename(run.parent / "elsewhere")
    (run / "a").symlink_to(run.parent / "elsewhere")
    with pytest.raises(SourceChangedError):
        require_sources(str(run), files)
    with pytest.raises(SourceChangedError):
        require_sources_unchanged(str(run), files)


def test_no_small_file_is_read_through_a_folder_that_is_a_link_by_now(run: Path) -> None:
    write_below(run.parent, ["note.txt"], b"what only root may read")
    (run / ".exlab-wizard").symlink_to(run.parent)
    for read in (read_as_it_is, as_it_is):
        with pytest.raises(SourceChangedError):
            read(str(run), ".exlab-wizard/note.txt")
    assert bytes_to_place(str(run), ".exlab-wizard/note.txt", {".exlab-wizard/note.txt": b"given"}) == b"given"


def test_a_run_folder_that_is_gone_is_unreadable_and_not_a_run_whose_files_were_deleted(run: Path) -> None:
    files = DiskRunTree().inventory(str(run)).files
    run.rename(run.parent / "elsewhere")
    for require in (require_sources, require_sources_unchanged):
        with pytest.raises(RunUnreadableError, match="no longer there"):
            require(str(run), files)


def test_a_path_that_is_longer_than_the_system_takes_is_one_like_any_other(run: Path) -> None:
    write_below(run, [*LONG, "note.txt"], b"12345")
    path = "/".join([*LONG, "note.txt"])
    assert read_as_it_is(str(run), path) == b"12345"
    assert as_it_is(str(run), path).size_bytes == 5
    files = DiskRunTree().inventory(str(run)).files
    require_sources(str(run), files)
    require_sources_unchanged(str(run), files)
    assert len(files) == 2


def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(run: Path) -> None:
    files = DiskRunTree().inventory(str(run)).files
    (run / "a" / "image.tif").unlink()
    os.mkfifo(run / "a" / "image.tif")
    with pytest.raises(SourceChangedError):
        require_sources(str(run), files)
    with pytest.raises(SourceChangedError):
        require_sources_unchanged(str(run), files)
