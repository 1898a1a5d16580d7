"""The audit trail on real files: one chain of lines, whole commits, and any change of it found with its line."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.state.documents import json_bytes
from exlab_watch_agent.adapters.state.layout import CLOSED_FOLDER, TRAIL_NAME, closed_name
from exlab_watch_agent.adapters.state.segments import (
    GENESIS,
    TrailHead,
    TrailReader,
    find_segments,
    finished,
    line_digest,
)
from exlab_watch_agent.adapters.state.trail import AuditTrail, Batch, fact_body, opening_data
from exlab_watch_agent.errors import StateFolderError, StoreFullError, StoreWriteError

WHO = b'"host":"pc","chart":"c"'


def body(text: str) -> bytes:
    return fact_body(at="2026-04-17T14:32:11Z", kind=text, who=WHO, operator=None)


def opened(folder: Path, head: TrailHead | None = None) -> AuditTrail:
    (folder / TRAIL_NAME).touch()
    trail = AuditTrail(folder)
    trail.open(head or TrailHead())
    return trail


def append(trail: AuditTrail, *texts: str) -> None:
    batch = Batch(trail.head, len(texts) - 1)
    for text in texts:
        batch.add(body(text))
    trail.append(batch)


def rotate(trail: AuditTrail) -> None:
    def opening(closed: str, closed_bytes: int) -> bytes:
        return body("segment_opened") + b',"data":' + json_bytes(opening_data(closed, closed_bytes))

    trail.rotate(opening)


def read(folder: Path) -> tuple[list[tuple[int, str]], TrailReader]:
    reader = TrailReader(find_segments(folder))
    return [(line.fact["seq"], line.fact["kind"]) for line in reader.lines()], reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ten lines in three segments: 1-3, 4-7, 8-10."""
    trail = opened(tmp_path)
    for text in ("one", "two", "three"):
        append(trail, text)
    rotate(trail)
    append(trail, "five", "six", "seven")
    rotate(trail)
    append(trail, "nine")
    append(trail, "ten")
    trail.close()
    return tmp_path


def parts(folder: Path) -> list[Path]:
    return [segment.path for segment in find_segments(folder)]


def test_a_line_is_json_chained_to_the_line_before_and_fits_its_sum(folder: Path) -> None:
    digest = GENESIS
    seq = 0
    for path in parts(folder):
        for line in path.read_bytes().splitlines():
            fact = json.loads(line)
            seq += 1
            assert (fact["seq"], fact["prev"]) == (seq, digest)
            assert finished(line.rpartition(b',"sum":"')[0]) == (line, line_digest(line))
            digest = line_digest(line)
    assert seq == 10


def test_segments_are_named_by_their_first_line_and_say_what_was_closed_before(folder: Path) -> None:
    assert [path.name for path in parts(folder)] == [closed_name(1), closed_name(4), TRAIL_NAME]
    first = json.loads((folder / TRAIL_NAME).read_bytes().splitlines()[0])
    closed = folder / CLOSED_FOLDER / closed_name(4)
    assert first["data"] == {"schema": 2, "closed": closed.name, "closed_bytes": closed.stat().st_size}
    lines, reader = read(folder)
    assert [seq for seq, _ in lines] == list(range(1, 11))
    assert (reader.breaks, reader.torn_at) == ([], None)


def test_a_trail_goes_on_where_it_ended_and_is_read_from_any_head(folder: Path) -> None:
    _, reader = read(folder)
    trail = opened(folder, reader.head)
    append(trail, "eleven")
    trail.close()
    again = TrailReader(find_segments(folder), reader.head)
    assert [line.fact["kind"] for line in again.lines()] == ["eleven"]
    assert again.head.seq == 11


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_that_ends_elsewhere_than_the_head_is_not_opened(folder: Path, difference: int) -> None:
    head = read(folder)[1].head
    before = (folder / TRAIL_NAME).read_bytes()
    with pytest.raises(StateFolderError, match="changed while it was opened"):
        AuditTrail(folder).open(TrailHead(head.seq, head.digest, head.segment, head.end_bytes + difference))
    assert (folder / TRAIL_NAME).read_bytes() == before


# --- failing writes --------------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[int]:
    """Let a system call fail; return the list of its calls."""
    calls: list[int] = []
    real = getattr(os, name)

    def call(*args: Any) -> Any:
        calls.append(args[0])
        if name == "write":
            real(args[0], bytes(args[1])[:5])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return calls


def test_without_room_nothing_is_acknowledged_the_file_is_as_before_and_the_same_may_be_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = opened(folder, read(folder)[1].head)
    before = (folder / TRAIL_NAME).read_bytes()
    for number in (errno.ENOSPC, errno.EDQUOT):
        with monkeypatch.context() as patch:
            failing(patch, "write", number)
            with pytest.raises(StoreFullError, match=r"There is no room for .*: make room there\."):
                append(trail, "eleven")
        assert ((folder / TRAIL_NAME).read_bytes(), trail.head.seq) == (before, 10)
    append(trail, "eleven")
    trail.close()
    assert read(folder)[0][-1] == (11, "eleven")


def test_without_room_that_cannot_be_cut_back_the_trail_refuses_every_further_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = opened(folder, read(folder)[1].head)
    with monkeypatch.context() as patch:
        failing(patch, "write", errno.ENOSPC)
        failing(patch, "ftruncate", errno.EIO)
        with pytest.raises(StoreWriteError) as caught:
            append(trail, "eleven")
        assert not isinstance(caught.value, StoreFullError)
    with pytest.raises(StoreWriteError, match="closed"):
        append(trail, "eleven")
    lines, reader = read(folder)
    assert (lines[-1], reader.torn_at) == ((10, "ten"), reader.head.end_bytes)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_sync_is_never_repeated_whatever_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trail = opened(folder, read(folder)[1].head)
    calls = failing(monkeypatch, "fdatasync", number)
    with pytest.raises(StoreWriteError) as caught:
        append(trail, "eleven")
    assert not isinstance(caught.value, StoreFullError)
    with pytest.raises(StoreWriteError, match="closed"):
        append(trail, "eleven")
    assert len(calls) == 1
    assert read(folder)[0][-1] == (10, "ten")


def test_an_interrupt_in_the_middle_of_an_append_leaves_no_half_line_to_write_after(folder: Path) -> None:
    def interrupted(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:7])
        raise KeyboardInterrupt

    trail = AuditTrail(folder, write=interrupted)
    trail.open(read(folder)[1].head)
    before = (folder / TRAIL_NAME).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        append(trail, "eleven")
    assert (folder / TRAIL_NAME).read_bytes() == before
    with pytest.raises(StoreWriteError, match="closed"):
        append(trail, "eleven")


# --- reading ---------------------------------------------------------------------------------------------------------------


def test_a_trail_torn_at_any_byte_gives_exactly_the_whole_commits_before(tmp_path: Path) -> None:
    trail = opened(tmp_path)
    append(trail, "one")
    first = trail.head.end_bytes
    append(trail, "two", "three")
    trail.close()
    data = (tmp_path / TRAIL_NAME).read_bytes()
    for size in range(first + 1, len(data)):
        for filler in (b"", b"\0" * 50):
            (tmp_path / TRAIL_NAME).write_bytes(data[:size] + filler)
            lines, reader = read(tmp_path)
            assert (lines, reader.breaks, reader.torn_at) == ([(1, "one")], [], first), size


def test_any_flipped_byte_is_found_with_the_number_of_its_line(folder: Path) -> None:
    seq = 0
    for path in parts(folder):
        data = path.read_bytes()
        for position in range(0, len(data), 9):
            path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
            reader = TrailReader(find_segments(folder, live_first_seq=8))
            count = sum(1 for _ in reader.lines())
            line = seq + data[:position].count(b"\n") + 1
            is_sum_s_name = b',"sum":"' not in path.read_bytes()[max(0, position - 12) : position + 12]
            if reader.breaks or reader.torn_at is None:
                is_found = bool(reader.breaks) and abs(reader.breaks[0].seq - line) <= (1 if is_sum_s_name else 0)
                assert is_found or (line == 10 and count == 10), (path.name, position)
        path.write_bytes(data)
        seq += data.count(b"\n")


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int, str]] = {
    "a line taken out": (lambda lines: lines[:2] + lines[3:], 6, "line 6 is missing before line 7"),
    "two lines taken out": (lambda lines: lines[:1] + lines[3:], 5, "lines 5 to 6 are missing before line 7"),
    "two lines changed over": (
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        5,
        "line 5 is missing before line 6",
    ),
    "a line twice": (lambda lines: [*lines[:2], lines[1], *lines[2:]], 5, "line 5 in .* is out of order"),
    "a line with another's text": (
        lambda lines: [
            *lines[:2],
            finished(lines[2].rpartition(b',"sum"')[0].replace(b"six", b"SIX"))[0] + b"\n",
            lines[3],
        ],
        6,
        "line 6 .* was changed",
    ),
    "an alien line": (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], 6, "line 6 in .* was changed or cannot be read"),
    "no line": (lambda _: [], 4, "lines 4 to 7 are missing before line 8"),
}


@pytest.mark.parametrize(("change", "seq", "found"), CHANGES.values(), ids=CHANGES)
def test_what_was_done_to_an_old_segment_is_named_with_its_first_line(
    folder: Path, change: Callable[[list[bytes]], list[bytes]], seq: int, found: str
) -> None:
    path = folder / CLOSED_FOLDER / closed_name(4)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    lines, reader = read(folder)
    assert reader.breaks[0].seq == seq
    assert re.search(found, reader.breaks[0].found), reader.breaks
    assert lines[:3] == [(1, "one"), (2, "two"), (3, "three")]
    assert lines[-2:] == [(9, "nine"), (10, "ten")]


def test_a_missing_segment_is_said(folder: Path) -> None:
    (folder / CLOSED_FOLDER / closed_name(4)).unlink()
    lines, reader = read(folder)
    assert [(found.seq, found.found) for found in reader.breaks] == [
        (4, f"lines 4 to 7 are missing before line 8 in {TRAIL_NAME}")
    ]
    assert [seq for seq, _ in lines] == [1, 2, 3, 8, 9, 10]
