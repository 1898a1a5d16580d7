"""The two slots behind TinyDB, on real files: what is written, what is believed, what a stop leaves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from exlab_watch_agent.adapters.state.layout import SLOT_NAMES
from exlab_watch_agent.adapters.state.slots import Slots, read_slots
from exlab_watch_agent.errors import StateFolderError

ONE = [b'{"last":null,"record":{"job_id":"a"}}']
TWO = [b'{"last":[1,7],"record":{"job_id":"a"}}', b'{"last":null,"record":{"job_id":"b"}}']


def newest(folder: Path) -> Path:
    return folder / SLOT_NAMES[read_slots(folder).generation % 2]


def written(folder: Path, *contents: list[bytes]) -> Slots:
    slots = Slots(folder, read_slots(folder).generation)
    for lines in contents:
        slots.write(b'{"x":{"y":1}}', lines)
    return slots


def test_an_empty_folder_has_no_content_and_no_damage(tmp_path: Path) -> None:
    report = read_slots(tmp_path)
    assert (report.generation, report.facts, report.lines, report.damaged) == (0, {}, [], ())


def test_what_was_written_last_is_read_and_generations_count_up(tmp_path: Path) -> None:
    for number, lines in enumerate((ONE, TWO, []), start=1):
        written(tmp_path, lines)
        report = read_slots(tmp_path)
        assert (report.generation, report.facts, report.lines) == (number, {"x": {"y": 1}}, lines)
    assert (newest(tmp_path).stat().st_mode & 0o777) == 0o600


def test_slots_are_written_in_turn_and_the_newest_good_one_is_never_touched(tmp_path: Path) -> None:
    slots = written(tmp_path, ONE)
    for _ in range(6):
        standing = newest(tmp_path)
        before = (standing.read_bytes(), standing.stat().st_ino)
        slots.write(b"{}", TWO)
        assert (standing.read_bytes(), standing.stat().st_ino) == before
        assert newest(tmp_path) != standing


def test_the_older_slot_serves_where_the_newest_is_damaged_and_the_damaged_one_is_written_next(tmp_path: Path) -> None:
    written(tmp_path, ONE, TWO)
    damaged = newest(tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    report = read_slots(tmp_path)
    assert (report.generation, report.lines, report.damaged) == (1, ONE, (damaged,))
    written(tmp_path, TWO)
    assert (read_slots(tmp_path).lines, read_slots(tmp_path).damaged) == (TWO, ())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "null": lambda _: b"null",
    "an empty object": lambda _: b"{}",
    "an empty object twice": lambda _: b"{}\n{}",
    "line break only": lambda _: b"\n",
    "NULs": lambda data: b"\0" * len(data),
    "the header alone": lambda data: data.partition(b"\n")[0],
    "the body alone": lambda data: data.partition(b"\n")[2],
    "half": lambda data: data[: len(data) // 2],
    "a byte more": lambda data: data + b"\n",
    "a list for a header": lambda data: b"[1]\n" + data.partition(b"\n")[2],
    "a deep header": lambda data: b"[" * 100_000 + b"\n" + data.partition(b"\n")[2],
    "an endless generation": lambda data: data.replace(b'"generation":1', b'"generation":1e999'),
    "a generation that is no number": lambda data: data.replace(b'"generation":1', b'"generation":null'),
    "a newer schema that its digest does not know of": lambda data: data.replace(b'"schema":2', b'"schema":3'),
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
    assert (report.generation, report.lines, report.damaged) == (0, [], (slot,))


def test_no_flipped_bit_passes_or_makes_a_slot_newer(tmp_path: Path) -> None:
    written(tmp_path, TWO, ONE)
    slot = newest(tmp_path)
    good = slot.read_bytes()
    for position in range(len(good)):
        for bit in (1, 2, 4, 8, 16):
            slot.write_bytes(good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :])
            report = read_slots(tmp_path)
            assert (report.generation, report.damaged) == (1, (slot,)), (position, bit)


@pytest.mark.parametrize(("schema", "head"), [(3, b""), (0, b""), (1, b"{}")], ids=["newer", "none", "older, no head"])
def test_a_whole_slot_of_another_version_is_refused(tmp_path: Path, schema: int, head: bytes) -> None:
    body = b'{"runs":{},"facts":{}}'
    digest = blake3((b"1\n" if schema == 1 else b"1 %d\n" % schema) + body).hexdigest()
    header = {"generation": 1, "schema": schema, "length": len(body), "blake3": digest}
    (tmp_path / SLOT_NAMES[1]).write_bytes(json.dumps(header).encode() + b"\n" + body)
    with pytest.raises(StateFolderError, match=r"another version of the agent .*install that version again\.$"):
        read_slots(tmp_path)


def test_a_slot_that_cannot_be_read_is_an_error_and_not_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / SLOT_NAMES[0]).mkdir()
    with pytest.raises(OSError, match="directory"):
        read_slots(tmp_path)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_no_file_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    slots = written(tmp_path, ONE)
    names = sorted(os.listdir(tmp_path))

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space"):
            slots.write(b"{}", TWO)
    assert (read_slots(tmp_path).lines, sorted(os.listdir(tmp_path))) == (ONE, names)
    slots.write(b"{}", TWO)
    assert (read_slots(tmp_path).generation, read_slots(tmp_path).lines) == (2, TWO)
