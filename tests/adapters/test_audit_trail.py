"""The audit trail, on real files: what a line is, what a failure leaves, and that no change goes unseen."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from exlab_watch_agent.adapters.audit_trail import (
    GENESIS,
    AuditTrail,
    ChainBrokenError,
    TrailHead,
    check_head,
    read_tail,
)
from exlab_watch_agent.errors import StateFolderError, StoreWriteError

START = TrailHead()


def opened(path: Path, head: TrailHead = START) -> AuditTrail:
    trail = AuditTrail(path)
    trail.open(head)
    return trail


def facts_of(path: Path, start: TrailHead = START) -> list[dict[str, Any]]:
    return [fact for fact, _ in read_tail(path, start)]


def head_of(path: Path) -> TrailHead:
    head = START
    for _, head in read_tail(path, START):  # noqa: B007  # the last one is wanted
        pass
    return head


def a_trail(path: Path, count: int = 6) -> list[bytes]:
    """Write a trail of `count` commits of one line; return its lines with their ends."""
    trail = opened(path)
    for number in range(1, count + 1):
        trail.append([{"kind": "test", "at": f"2026-04-17T14:32:{number:02d}Z", "data": {"n": number, "text": "ä\n"}}])
    trail.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


class Calls:
    """Counts the calls on the trail's file, and lets one fail or do less than it was asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.does: dict[str, Callable[..., Any]] = {}
        for name in ("write", "fsync", "ftruncate"):
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.names.append(name)
            return self.does[name](real, *args) if name in self.does else real(*args)

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


# --- lines -----------------------------------------------------------------------------------------------------------


def test_a_line_is_canonical_json_chained_to_the_line_before(path: Path) -> None:
    lines = a_trail(path, 3)
    digest = GENESIS
    for seq, raw in enumerate(lines, start=1):
        fact = json.loads(raw)
        assert raw == json.dumps(fact, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        assert raw.isascii()
        assert (fact["seq"], fact["prev"]) == (seq, digest)
        digest = blake3(raw[:-1]).hexdigest()
    assert head_of(path) == TrailHead(3, digest, path.stat().st_size)


def test_a_trail_goes_on_where_it_ended(path: Path) -> None:
    a_trail(path, 2)
    trail = opened(path, head_of(path))
    assert trail.append([{"kind": "more"}]) == trail.head == head_of(path)
    trail.close()
    assert [fact["seq"] for fact in facts_of(path)] == [1, 2, 3]


def test_names_that_are_no_unicode_and_names_with_line_ends_come_back_as_they_were(path: Path) -> None:
    data = {"name": "a\udcff\u2028\r\n\0{}"}
    trail = opened(path)
    trail.append([{"data": data}])
    trail.close()
    assert facts_of(path)[0]["data"] == data


def test_a_commit_of_many_lines_costs_one_write_and_one_fsync(path: Path, calls: Calls) -> None:
    trail = opened(path)
    calls.names.clear()
    trail.append([{"n": number} for number in range(50)])
    trail.close()
    assert calls.names == ["write", "fsync"]
    assert [fact["n"] for fact in facts_of(path)] == list(range(50))


def test_reading_starts_after_the_head_that_is_given(path: Path) -> None:
    a_trail(path, 2)
    middle = head_of(path)
    trail = opened(path, middle)
    trail.append([{"kind": "third"}])
    trail.close()
    assert [fact["kind"] for fact in facts_of(path, middle)] == ["third"]


def test_a_trail_that_is_not_there_has_no_lines(path: Path) -> None:
    assert facts_of(path) == []


# --- failures --------------------------------------------------------------------------------------------------------


def test_short_writes_are_carried_on(path: Path, calls: Calls) -> None:
    calls.does["write"] = lambda real, descriptor, data: real(descriptor, bytes(data)[:7])
    trail = opened(path)
    trail.append([{"n": 1}, {"n": 2}])
    trail.close()
    assert [fact["n"] for fact in facts_of(path)] == [1, 2]


def then(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    steps = iter([first, second])
    return lambda real, *args: next(steps)(real, *args)


FAILURES: dict[str, dict[str, Callable[..., Any]]] = {
    "no room": {"write": failing(errno.ENOSPC)},
    "a bad disk": {"write": failing(errno.EIO)},
    "not a byte is taken": {"write": lambda *_: 0},
    "no room after a part": {
        "write": then(lambda real, descriptor, data: real(descriptor, bytes(data)[:9]), failing(errno.ENOSPC))
    },
    "no room after a whole line": {
        "write": then(
            lambda real, descriptor, data: real(descriptor, bytes(data)[: bytes(data).index(b"\n") + 1]),
            failing(errno.ENOSPC),
        )
    },
    "a failed fsync": {"fsync": failing(errno.EIO)},
}


@pytest.mark.parametrize("does", FAILURES.values(), ids=FAILURES)
def test_a_failed_append_acknowledges_nothing_cuts_its_bytes_off_and_refuses_all_further_lines(
    path: Path, calls: Calls, does: Mapping[str, Callable[..., Any]]
) -> None:
    trail = opened(path)
    acknowledged = trail.append([{"n": 1}])
    before = path.read_bytes()
    calls.does.update(does)
    with pytest.raises(StoreWriteError, match="make room or mend the disk"):
        trail.append([{"n": 2}, {"n": 3}])
    assert trail.head == acknowledged
    assert path.read_bytes() == before
    calls.does.clear()
    calls.names.clear()
    with pytest.raises(StoreWriteError):
        trail.append([{"n": 4}])
    assert calls.names == []
    assert head_of(path) == acknowledged


def test_a_failed_fsync_is_never_repeated_on_the_same_file(path: Path, calls: Calls) -> None:
    trail = opened(path)
    calls.does["fsync"] = failing(errno.EIO)
    calls.names.clear()
    with pytest.raises(StoreWriteError):
        trail.append([{"n": 1}])
    trail.close()
    assert calls.names.count("fsync") == 1


def test_a_line_that_could_not_be_cut_off_either_is_left_for_the_next_start(path: Path, calls: Calls) -> None:
    trail = opened(path)
    acknowledged = trail.append([{"n": 1}])
    calls.does["write"] = then(lambda real, descriptor, data: real(descriptor, bytes(data)[:9]), failing(errno.EIO))
    calls.does["ftruncate"] = failing(errno.EIO)
    with pytest.raises(StoreWriteError):
        trail.append([{"n": 2}])
    assert head_of(path) == acknowledged
    assert path.stat().st_size == acknowledged.end_bytes + 9


def test_an_interrupt_in_the_middle_of_an_append_leaves_no_half_line_to_write_after(path: Path, calls: Calls) -> None:
    def interrupted(real: Callable[..., Any], descriptor: int, data: bytes) -> Any:
        real(descriptor, bytes(data)[:9])
        raise KeyboardInterrupt

    trail = opened(path)
    acknowledged = trail.append([{"n": 1}])
    calls.does["write"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        trail.append([{"n": 2}])
    calls.does.clear()
    with pytest.raises(StoreWriteError):
        trail.append([{"n": 3}])
    assert path.stat().st_size == acknowledged.end_bytes


def test_a_fact_that_cannot_be_written_as_json_changes_nothing(path: Path) -> None:
    trail = opened(path)
    with pytest.raises(TypeError):
        trail.append([{"n": 1}, {"n": object()}])
    assert path.stat().st_size == 0
    trail.append([{"n": 2}])
    trail.close()
    assert [fact["n"] for fact in facts_of(path)] == [2]


# --- opening ---------------------------------------------------------------------------------------------------------


def test_opening_makes_durable_what_a_killed_agent_left_in_the_page_cache(path: Path, calls: Calls) -> None:
    synced: list[str] = []
    calls.does["fsync"] = lambda real, descriptor: (
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}")),
        real(descriptor),
    )
    a_trail(path, 1)
    synced.clear()
    opened(path, head_of(path)).close()
    assert synced == [str(path), str(path.parent)]


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_that_ends_elsewhere_than_the_head_is_not_opened_and_not_touched(path: Path, difference: int) -> None:
    a_trail(path, 2)
    before, descriptors = path.read_bytes(), os.listdir("/proc/self/fd")
    head = head_of(path)
    trail = AuditTrail(path)
    with pytest.raises(StateFolderError, match="changed while it was opened"):
        trail.open(TrailHead(head.seq, head.digest, head.end_bytes + difference))
    with pytest.raises(StoreWriteError):
        trail.append([{"n": 1}])
    assert path.read_bytes() == before
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


# --- a crash ---------------------------------------------------------------------------------------------------------


def test_a_trail_torn_at_any_byte_gives_exactly_the_whole_lines_before(path: Path) -> None:
    lines = a_trail(path, 3)
    data = path.read_bytes()
    ends = [len(b"".join(lines[:count])) for count in range(4)]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        assert len(facts_of(path)) == sum(end <= size for end in ends[1:])


def test_a_commit_of_several_lines_is_whole_or_it_is_not(path: Path) -> None:
    trail = opened(path)
    first = trail.append([{"n": 1}])
    whole = trail.append([{"n": number} for number in (2, 3, 4)])
    trail.close()
    data = path.read_bytes()
    for size in range(first.end_bytes, whole.end_bytes):
        path.write_bytes(data[:size])
        assert head_of(path) == first, size
    path.write_bytes(data)
    assert head_of(path) == whole


def test_a_tail_of_zeros_is_a_torn_line(path: Path) -> None:
    a_trail(path, 2)
    path.write_bytes(path.read_bytes() + b"\0" * 4096)
    assert len(facts_of(path)) == 2


# --- tampering -------------------------------------------------------------------------------------------------------


def broken_at(path: Path) -> int:
    with pytest.raises(ChainBrokenError) as caught:
        facts_of(path)
    assert str(caught.value.seq) in str(caught.value)
    return caught.value.seq


@pytest.mark.parametrize("seq", [1, 2, 3, 4, 5])
def test_any_flipped_byte_is_found_with_the_number_of_its_line(path: Path, seq: int) -> None:
    lines = a_trail(path)
    for position in range(len(lines[seq - 1])):
        changed = bytearray(lines[seq - 1])
        changed[position] ^= 1
        path.write_bytes(b"".join([*lines[: seq - 1], bytes(changed), *lines[seq:]]))
        assert broken_at(path) == seq, bytes(changed)


def test_any_flipped_byte_of_the_last_line_is_found_by_who_knows_the_head(path: Path) -> None:
    lines = a_trail(path)
    head = head_of(path)
    check_head(path, head)
    for position in range(len(lines[-1])):
        changed = bytearray(lines[-1])
        changed[position] ^= 1
        path.write_bytes(b"".join([*lines[:-1], bytes(changed)]))
        with pytest.raises(ChainBrokenError) as caught:
            check_head(path, head)
        assert caught.value.seq == 6


@pytest.mark.parametrize("seq", [1, 2, 3, 4, 5])
def test_a_removed_line_is_found_with_its_number(path: Path, seq: int) -> None:
    lines = a_trail(path)
    path.write_bytes(b"".join([*lines[: seq - 1], *lines[seq:]]))
    assert broken_at(path) == seq


@pytest.mark.parametrize("seq", [1, 2, 3, 4, 5])
def test_reordered_lines_are_found_with_the_number_of_the_first(path: Path, seq: int) -> None:
    lines = a_trail(path)
    lines[seq - 1], lines[seq] = lines[seq], lines[seq - 1]
    path.write_bytes(b"".join(lines))
    assert broken_at(path) == seq


@pytest.mark.parametrize("seq", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    "alien", [b"{}\n", b"\n", b"null\n", b"[1]\n", b"\xff\n", b'{"seq":"x"}\n', b"[" * 50_000 + b"\n"]
)
def test_an_inserted_line_is_found_with_its_number(path: Path, seq: int, alien: bytes) -> None:
    lines = a_trail(path)
    path.write_bytes(b"".join([*lines[: seq - 1], alien, *lines[seq - 1 :]]))
    assert broken_at(path) == seq


def test_a_line_that_was_doubled_is_found_at_its_second_standing(path: Path) -> None:
    lines = a_trail(path)
    path.write_bytes(b"".join([*lines[:3], lines[2], *lines[3:]]))
    assert broken_at(path) == 4


def test_a_changed_line_with_only_one_after_it_is_named_with_its_neighbour(path: Path) -> None:
    lines = a_trail(path, 2)
    path.write_bytes(lines[0].replace(b'"n":1', b'"n":7') + lines[1])
    with pytest.raises(ChainBrokenError, match="line 1 or 2"):
        facts_of(path)


def test_the_head_is_checked_whatever_the_length_of_the_last_line(path: Path) -> None:
    trail = opened(path)
    for size in (1, 16_000, 16_384, 20_000, 300_000):
        trail.append([{"text": "x" * size}])
        check_head(path, trail.head)
        with pytest.raises(ChainBrokenError):
            check_head(path, TrailHead(trail.head.seq, GENESIS, trail.head.end_bytes))
        with pytest.raises(ChainBrokenError):
            check_head(path, TrailHead(trail.head.seq, trail.head.digest, trail.head.end_bytes - 1))
    trail.close()
