"""The two slots behind TinyDB, on real files: what is written, what is believed, what a stop leaves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB

from exlab_watch_agent.adapters.slots import SLOT_NAMES, SlotStorage, read_slots

Content = dict[str, dict[str, Any]]

ONE: Content = {"runs": {"a": {"state": "queued"}}, "facts": {}}
TWO: Content = {"runs": {"a": {"state": "running"}, "b": {"state": "queued"}}, "facts": {"x": {"y": 1}}}


class DeadError(BaseException):
    """The process is gone: no handler of the code under test may take it for an error."""


def newest(folder: Path) -> Path:
    return folder / SLOT_NAMES[read_slots(folder).generation % 2]


def written(folder: Path, *contents: Content) -> SlotStorage:
    storage = SlotStorage(folder, {})
    for content in contents:
        storage.write(content)
    return storage


def test_an_empty_folder_has_no_content_and_no_damage(tmp_path: Path) -> None:
    report = read_slots(tmp_path)
    assert (report.generation, report.content, report.damaged) == (0, None, ())


def test_what_was_written_last_is_read_and_generations_count_up(tmp_path: Path) -> None:
    written(tmp_path, ONE)
    assert (read_slots(tmp_path).generation, read_slots(tmp_path).content) == (1, ONE)
    written(tmp_path, TWO)
    assert (read_slots(tmp_path).generation, read_slots(tmp_path).content) == (2, TWO)
    assert (newest(tmp_path).stat().st_mode & 0o777) == 0o600


def test_slots_are_written_in_turn_and_the_newest_good_one_is_never_touched(tmp_path: Path) -> None:
    storage = written(tmp_path, ONE)
    for number in range(6):
        standing = newest(tmp_path)
        before = (standing.read_bytes(), standing.stat().st_ino)
        storage.write({"runs": {str(number): {}}})
        assert (standing.read_bytes(), standing.stat().st_ino) == before
        assert newest(tmp_path) != standing


def test_the_older_slot_serves_where_the_newest_is_damaged_and_the_damaged_one_is_written_next(tmp_path: Path) -> None:
    written(tmp_path, ONE, TWO)
    damaged = newest(tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    report = read_slots(tmp_path)
    assert (report.generation, report.content, report.damaged) == (1, ONE, (damaged,))
    written(tmp_path, TWO)
    assert (read_slots(tmp_path).content, read_slots(tmp_path).damaged) == (TWO, ())


def trailing(data: bytes) -> bytes:
    return data + b"\n"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "null": lambda _: b"null",
    "null and a line break": lambda _: b"null\n",
    "an empty object": lambda _: b"{}",
    "an empty object twice": lambda _: b"{}\n{}",
    "line break only": lambda _: b"\n",
    "NULs": lambda data: b"\0" * len(data),
    "the header alone": lambda data: data.partition(b"\n")[0],
    "the body alone": lambda data: data.partition(b"\n")[2],
    "half": lambda data: data[: len(data) // 2],
    "a byte more": trailing,
    "a list for a header": lambda data: b"[1]\n" + data.partition(b"\n")[2],
    "a deep header": lambda data: b"[" * 100_000 + b"\n" + data.partition(b"\n")[2],
    "an endless generation": lambda data: data.replace(b'"generation": 1', b'"generation": 1e999'),
    "a generation that is no number": lambda data: data.replace(b'"generation": 1', b'"generation": null'),
    "not Unicode": lambda _: b"\xff\xfe\n\xff",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_slot_is_reported_and_never_opens_as_an_empty_database(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    written(tmp_path, ONE)
    slot = newest(tmp_path)
    slot.write_bytes(damage(slot.read_bytes()))
    report = read_slots(tmp_path)
    assert (report.content, report.damaged) == (None, (slot,))


@pytest.mark.parametrize("body", [None, [], 1, {"runs": None}], ids=repr)
def test_a_slot_whose_digest_fits_a_body_that_is_no_database_is_damaged(tmp_path: Path, body: Any) -> None:
    written(tmp_path, body)
    assert read_slots(tmp_path).content is None
    assert len(read_slots(tmp_path).damaged) == 1


def test_no_flipped_bit_passes_or_makes_a_slot_newer(tmp_path: Path) -> None:
    written(tmp_path, TWO, ONE)
    slot = newest(tmp_path)
    good = slot.read_bytes()
    for position in range(len(good)):
        for bit in (1, 2, 4, 8, 16):
            slot.write_bytes(good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :])
            report = read_slots(tmp_path)
            if report.damaged:
                assert (report.generation, report.content) == (1, TWO)
            else:  # a letter of a key's case or a blank of the header: what it says is the same
                assert (report.generation, report.content) == (2, ONE)


def test_an_old_slot_with_a_new_number_is_not_the_newest(tmp_path: Path) -> None:
    written(tmp_path, ONE, TWO)
    older = tmp_path / SLOT_NAMES[1]
    header, _, body = older.read_bytes().partition(b"\n")
    older.write_bytes(json.dumps({**json.loads(header), "generation": 99}).encode() + b"\n" + body)
    assert read_slots(tmp_path).content == TWO
    assert read_slots(tmp_path).damaged == (older,)


def test_a_slot_that_cannot_be_read_is_an_error_and_not_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / SLOT_NAMES[0]).mkdir()
    with pytest.raises(OSError):
        read_slots(tmp_path)


@pytest.mark.parametrize("is_after", [False, True], ids=["before the call", "after the call"])
def test_a_stop_at_any_step_of_a_write_leaves_the_content_before_or_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_after: bool
) -> None:
    seen: set[int] = set()
    for stop_at in range(1, 100):
        folder = tmp_path / str(stop_at)
        folder.mkdir()
        storage = written(folder, ONE)
        calls = 0

        def dying(real: Callable[..., Any], stop_at: int = stop_at) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > stop_at or (calls == stop_at and not is_after):
                    raise DeadError
                result = real(*args, **kwargs)
                if calls == stop_at:
                    raise DeadError
                return result

            return call

        with monkeypatch.context() as patch:
            for name in ("write", "fsync", "replace", "rename", "unlink", "fchmod"):
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                storage.write(TWO)
            except DeadError:
                is_dead = True
            else:
                is_dead = False
        report = read_slots(folder)
        assert not report.damaged
        assert report.content in ((ONE, TWO) if is_dead else (TWO,))
        seen.add(report.generation)
        if not is_dead:
            break
    else:
        pytest.fail("the write never came to its end")
    assert seen == {1, 2}


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_no_file_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    storage = written(tmp_path, ONE)

    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError):
            storage.write(TWO)
    assert read_slots(tmp_path).content == ONE
    assert os.listdir(tmp_path) == [SLOT_NAMES[1]]
    storage.write(TWO)
    assert read_slots(tmp_path).content == TWO


def test_tinydb_reads_the_content_that_it_is_given(tmp_path: Path) -> None:
    database = TinyDB(tmp_path, ONE, storage=SlotStorage)
    assert database.storage.read() == ONE
    assert not os.listdir(tmp_path)
