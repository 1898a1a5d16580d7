"""Files that ours replaced, into which whoever had opened them goes on writing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local import old_files, renaming
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.local.old_files import OldFiles
from tests.sim.world import FakeClock

TEXT = '{"schema_version": "1.9", "created_at": "2026-04-17T14:32:00Z", "level": "run", "sync_status": "pending"}'
REVOKED = TEXT.replace("}", ', "validation_overrides": [{"id": "h", "revokes": "x", "revoked": true}]}')


class Watched:
    """A run whose `creation.json` an editor has open, and which the agent then calls synced."""

    def __init__(self, run: Path) -> None:
        self.folder = run / ".exlab-wizard"
        self.folder.mkdir(parents=True)
        self.file = self.folder / "creation.json"
        self.file.write_text(TEXT)
        self.clock = FakeClock()
        self.said: list[str] = []
        self.old_files = OldFiles(clock=self.clock, look_every_s=3600)
        self.old_files.start()
        self.files = JsonCreationFiles(tell=self.said.append, old_files=self.old_files)
        self.editor = open(self.file, "r+")  # noqa: SIM115  (closed by the fixture)
        self.files.set_sync_status(str(run), "synced")

    def edits(self, text: str) -> None:
        self.editor.seek(0)
        self.editor.truncate()
        self.editor.write(text)
        self.editor.flush()

    def looks(self) -> None:
        """Twice, as what is still being written is not taken in."""
        self.old_files.look()
        self.old_files.look()

    def kept(self) -> list[str]:
        return [path.read_text() for path in self.folder.glob("creation.json.saved-*")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "local" / "SCOPE_01" / "P" / "Runs" / "Run_2026-04-17T14-32"


@pytest.fixture
def watched(run: Path, tmp_path: Path) -> Iterator[Watched]:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    try:
        renaming.exchange(Folder(str(tmp_path)), "a", "b")
    except renaming.CannotRenameSoError as error:
        pytest.skip(str(error))
    watched = Watched(run)
    yield watched
    watched.old_files.close()
    watched.editor.close()


def test_what_an_editor_writes_into_the_file_that_ours_replaced_is_put_back_with_the_status_that_ours_says(
    watched: Watched,
) -> None:
    watched.looks()
    assert watched.file.read_text() == TEXT.replace("pending", "synced")
    watched.edits(REVOKED)
    watched.old_files.look()
    assert watched.file.read_text() == TEXT.replace("pending", "synced"), "it may still be writing"
    watched.old_files.look()
    assert watched.file.read_text() == REVOKED.replace("pending", "synced")
    later = REVOKED.replace('"h"', '"a later one"')
    watched.edits(later)
    watched.looks()
    assert watched.file.read_text() == later.replace("pending", "synced")
    assert (watched.kept(), watched.said) == ([], [])


def test_half_a_save_waits_for_the_other_half_and_is_kept_beside_when_the_minute_is_over(watched: Watched) -> None:
    watched.edits(REVOKED[:50])
    watched.looks()
    watched.looks()
    assert watched.file.read_text() == TEXT.replace("pending", "synced")
    assert watched.kept() == []
    watched.clock.advance(old_files.WATCHED_FOR_S + 1)
    watched.old_files.look()
    assert watched.kept() == [REVOKED[:50]]
    assert "creation.json.saved-" in watched.said[0]
    watched.edits(REVOKED)
    watched.looks()
    assert watched.kept() == [REVOKED[:50]], "it is watched no more"


def test_after_a_later_save_by_another_it_is_kept_beside_and_nothing_is_replaced(watched: Watched) -> None:
    later = TEXT.replace("pending", "failed")
    watched.edits(REVOKED)
    watched.file.unlink()
    watched.file.write_text(later)
    watched.looks()
    watched.old_files.close()
    assert watched.file.read_text() == later
    assert watched.kept() == [REVOKED]


def test_what_is_written_until_the_agent_stops_is_taken_in_by_the_last_look(watched: Watched) -> None:
    watched.edits(REVOKED)
    watched.old_files.close()
    assert watched.file.read_text() == REVOKED.replace("pending", "synced")


def test_a_file_that_was_emptied_and_never_written_leaves_nothing(watched: Watched) -> None:
    watched.edits("")
    watched.looks()
    watched.old_files.close()
    assert watched.kept() == []
    assert watched.file.read_text() == TEXT.replace("pending", "synced")


def test_its_own_thread_looks(run: Path, watched: Watched) -> None:
    watched.old_files.close()
    quick = OldFiles(look_every_s=0.01)
    quick.start()
    with open(watched.file, "r+") as editor:
        JsonCreationFiles(old_files=quick).set_sync_status(str(run), "failed")
        editor.truncate()
        editor.write(REVOKED)
        editor.flush()
        quick.close()
    assert watched.file.read_text() == REVOKED.replace("pending", "failed")


def test_without_a_start_and_beyond_the_most_nothing_stays_open(tmp_path: Path) -> None:
    def refuse(_: bytes, __: bool) -> bool:
        raise AssertionError("nothing was written")

    def opened() -> int:
        return os.open(tmp_path / "a", os.O_RDONLY)

    (tmp_path / "a").write_bytes(b"a")
    never_started = OldFiles()
    never_started.watch(descriptor := opened(), b"a", refuse)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    watching = OldFiles(look_every_s=3600)
    watching.start()
    descriptors = [opened() for _ in range(old_files.FILES_MAX + 1)]
    for one in descriptors:
        watching.watch(one, b"a", refuse)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[-1])
    os.fstat(descriptors[0])
    watching.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])
