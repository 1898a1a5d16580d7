"""What a holder says of itself can be said without room, and a reader of nonsense reads nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.state import holder
from exlab_watch_agent.adapters.state.holder import SIZE_BYTES


def test_what_is_said_is_read_and_the_file_is_private_and_keeps_its_size_and_place(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    holder.say(path, {"pid": 1, "paused": None})
    before = path.stat()
    assert before.st_size == SIZE_BYTES
    assert before.st_mode & 0o777 == 0o600
    holder.say(path, {"pid": 1, "paused": "since a while: " + "ü" * 5000})
    assert holder.read(path)["paused"].startswith("since a while: üü")
    after = path.stat()
    # The same blocks of the same file: a full disk has no others.
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)
    holder.say(path, {"pid": 2})
    assert holder.read(path) == {"pid": 2}


def test_a_longer_or_shorter_file_of_before_is_brought_to_size(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    for text in ("{}", "x" * 9000):
        path.write_text(text)
        holder.say(path, {"pid": 1})
        assert (path.stat().st_size, holder.read(path)) == (SIZE_BYTES, {"pid": 1})


@pytest.mark.parametrize("said", [b"", b"{", b"[1]", b"\xff\xfe", b"\0" * SIZE_BYTES])
def test_nonsense_is_read_as_nothing(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "agent.json"
    assert holder.read(path) == {}
    path.write_bytes(said)
    assert holder.read(path) == {}


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "agent.json").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=os.strerror(40)):
        holder.say(tmp_path / "agent.json", {"pid": 1})
    assert (tmp_path / "precious").read_text() == "kept"


def test_who_holds_the_folder_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    assert holder.in_words(path) == "it has not said who it is"
    holder.say(path, {"pid": 4711, "host": "labpc-04", "since": "2026-04-17T14:32:11Z", "paused": None})
    assert holder.in_words(path) == "pid 4711 on labpc-04 since 2026-04-17T14:32:11Z"
    holder.say(path, {"host": "a\x1b[31m\nb"})
    assert holder.in_words(path) == "on a\\x1b[31m\\nb"
    path.write_bytes(b"{")
    assert holder.in_words(path) == "it has not said who it is"
