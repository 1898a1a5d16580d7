"""Reading the audit trail: its segments, its chain, and what of it can still be trusted when it is damaged.

The live segment is `audit.jsonl`; a segment that has its size is closed by renaming it to `audit/audit.<number of its
first line>.jsonl`, and is never written again. Decided here: which lines chain, which one was changed when they do not,
and which ones count after damage. Not here: what a line means (recovery.py), and how one is written (trail.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from blake3 import blake3

from exlab_watch_agent.adapters.state.documents import Place
from exlab_watch_agent.adapters.state.layout import CLOSED_NAME, StateLayout, closed_name

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class TrailHead:
    """The last line: its number, its digest, the number of its segment's first line, and where that line ends there."""

    seq: int = 0
    digest: str = GENESIS
    segment: int = 1
    end_bytes: int = 0


class Segment(NamedTuple):
    """One file of the trail. `first_seq` is the number of its first line."""

    first_seq: int
    path: Path
    size_bytes: int
    is_live: bool


class Line(NamedTuple):
    """One line that chains: what it says, and the head after it. `place`: where it begins."""

    fact: dict[str, Any]
    place: Place
    head: TrailHead


def line_digest(line: bytes) -> str:
    """Return the BLAKE3 of one line without its newline."""
    return blake3(line).hexdigest()


_SUM = b',"sum":"'
_SUM_BYTES = len(_SUM) + 16 + len(b'"}')


def finished(line: bytes) -> tuple[bytes, str]:
    """Return the line, whose last brace is still to come, with its sum as the last member; and the digest of all of it."""
    hasher = blake3(line)
    end = b'%b%b"}' % (_SUM, hasher.hexdigest(length=8).encode())
    return line + end, hasher.update(end).hexdigest()


def _is_itself(line: bytes) -> bool:
    """Return whether the line's sum fits; True for a line without one (schema 1)."""
    before, end = line[:-_SUM_BYTES], line[-_SUM_BYTES:]
    return not end.startswith(_SUM) or finished(before)[0] == line


def find_segments(folder: Path, *, live_first_seq: int = 1) -> list[Segment]:
    """Return the segments in order, the live one last, if it is there and has any byte.

    `live_first_seq`: what the slot says of the live segment, for when its own first line cannot be read.
    Raises: OSError.
    """
    live = _opened_live(folder)
    found: list[Segment] = []
    closed = StateLayout(folder).closed
    # The closed ones come after the live one: one that an agent closes in between is then found here, and none is missed.
    if closed.is_dir():
        for path in sorted(closed.iterdir()):
            if match := CLOSED_NAME.fullmatch(path.name):
                status = path.stat()
                found.append(Segment(int(match[1]), path, status.st_size, is_live=False))
                if live is not None and os.path.samestat(status, live.status):
                    live = None
    if live is None or live.status.st_size == 0:
        return found
    seq = _parsed(live.first_line).get("seq")
    if not isinstance(seq, int) or seq < 1:
        seq = live_first_seq
    first_seq = max(seq, found[-1].first_seq + 1 if found else 1)
    return [*found, Segment(first_seq, live.path, live.status.st_size, is_live=True)]


class _Live(NamedTuple):
    path: Path
    status: os.stat_result
    first_line: bytes


def _opened_live(folder: Path) -> _Live | None:
    path = live_path(folder)
    if path is None:
        return None
    with path.open("rb") as file:
        return _Live(path, os.fstat(file.fileno()), file.readline())


def live_path(folder: Path) -> Path | None:
    """Return the live segment's file, None when there is none.

    A stop in the middle of closing a segment leaves the next one under its first name: it is the live one then. An agent
    that closes one at this moment may have given it its last name between two looks, so that is looked for once more.
    """
    layout = StateLayout(folder)
    return next((path for path in (layout.trail, layout.next_trail, layout.trail) if path.is_file()), None)


def segment_path(folder: Path, first_seq: int) -> Path:
    """Return the file in which the segment of this first line is, or should be."""
    layout = StateLayout(folder)
    closed = layout.closed_segment(first_seq)
    return closed if closed.exists() else live_path(folder) or layout.trail


@dataclass(frozen=True, slots=True)
class Break:
    """A place at which the chain does not hold. `seq`: the first line that is not as it was written."""

    seq: int
    found: str


@dataclass
class TrailReader:
    """Reads the lines after `start`, commit by commit, past whatever is damaged.

    Where the chain holds, every line of a whole commit is returned. Where it does not, a `Break` is noted; the line that
    was changed (the one for which the line after it does not vouch) is left out, with the commit that it belonged to, and
    reading goes on with the next line that has a higher number. A line of kind `trail_damaged` accounts for the breaks
    before it: they move to `accounted`.
    """

    segments: Sequence[Segment]
    head: TrailHead = field(default_factory=TrailHead)
    breaks: list[Break] = field(default_factory=list)
    accounted: list[Break] = field(default_factory=list)
    torn_at: int | None = None
    """Where the live segment's torn last commit begins: bytes that a crash left, never acknowledged."""

    def __post_init__(self) -> None:
        self.end_seq = self.head.seq
        """The highest number that a line had, or must have had: the next line gets a higher one."""
        self._good_seq = self.head.seq
        self._digest: str | None = self.head.digest  # None behind a line that could not be read: nothing tells it
        self._open: list[Line] = []  # lines of a commit whose last line has not come yet
        self._after: Segment | None = None  # the segment behind the one that is read
        self._unvouched: list[Line] = []  # the commit before: the next line may still tell that it was changed

    def lines(self) -> Iterator[Line]:
        """Yield every line that counts; `head` is then that of the last one yielded. Raises: OSError."""
        start = self.head
        if start.seq and not any(segment.first_seq == start.segment for segment in self.segments):
            self._broken(start.seq, f"{closed_name(start.segment)} is missing")
        for number, segment in enumerate(self.segments):
            if segment.first_seq >= start.segment:
                self._after = next(iter(self.segments[number + 1 :]), None)
                yield from self._of_segment(segment, start, is_last=self._after is None)
        if self._open and self.torn_at is None:
            # All lines are there and the last one says that more follow: the commit was never whole.
            self.torn_at = self._open[0].place[1]
        self._open = []
        yield from self._vouched()

    def _of_segment(self, segment: Segment, start: TrailHead, *, is_last: bool) -> Iterator[Line]:
        with segment.path.open("rb") as file:
            offset = 0
            if segment.first_seq == start.segment and start.seq:
                self._check_start(file, segment, start)
                offset = start.end_bytes
                file.seek(offset)
            while raw := file.readline():
                if self._is_torn(raw, file, is_last=is_last):
                    self.torn_at = self._open[0].place[1] if self._open else offset
                    self._open = []
                    return
                yield from self._taken(raw, file, segment, offset)
                offset += len(raw)

    def _check_start(self, file: BinaryIO, segment: Segment, start: TrailHead) -> None:
        if segment.size_bytes < start.end_bytes:
            self._broken(start.seq, f"the end of {segment.path.name} was cut: line {start.seq} is no longer in it")
            return
        line = _line_before(file, start.end_bytes)
        if not line.endswith(b"\n") or line_digest(line[:-1]) != start.digest:
            self._broken(start.seq, f"line {start.seq} in {segment.path.name} was changed")

    def _is_torn(self, raw: bytes, file: BinaryIO, *, is_last: bool) -> bool:
        """Return whether nothing but what a crash leaves begins here: half a line, or blocks that were never written."""
        if not is_last:
            return False
        if not raw.endswith(b"\n"):
            return True
        if b"\0" not in raw:
            return False
        after = file.tell()
        is_rest = not any(_parsed(line) for line in file)
        file.seek(after)
        return is_rest

    def _taken(self, raw: bytes, file: BinaryIO, segment: Segment, offset: int) -> Iterator[Line]:
        line = raw.rstrip(b"\n")
        fact, digest = _parsed(line) if _is_itself(line) else {}, line_digest(line)
        seq, name = fact.get("seq"), segment.path.name
        if not isinstance(seq, int):
            self._pass_over(self.end_seq + 1, f"line {self.end_seq + 1} in {name} was changed or cannot be read")
            return
        if seq <= self._good_seq:
            self._broken(seq, f"line {seq} in {name} is out of order")
            return
        if seq > self.end_seq + 1:
            self._broken(self.end_seq + 1, f"{_lines(self.end_seq + 1, seq - 1)} missing before line {seq} in {name}")
            self._open = []
        elif (
            self._digest is not None and fact.get("prev") != self._digest and not self._is_right(line, seq, file, name)
        ):
            return
        self._good_seq = self.end_seq = seq
        self._digest = digest
        head = TrailHead(seq, digest, segment.first_seq, offset + len(raw))
        self._open.append(Line(fact, (segment.first_seq, offset), head))
        if fact.get("kind") == "trail_damaged":
            self.accounted += self.breaks
            self.breaks.clear()
        if not fact.get("following"):
            yield from self._vouched()
            self._unvouched, self._open = self._open, []

    def _is_right(self, line: bytes, seq: int, file: BinaryIO, name: str) -> bool:
        """Return which of two lines that do not chain counts: this one (True), if the one after it vouches for it.

        The one before is left out then. At the end of the trail nothing tells which was changed: neither counts.
        """
        following = _peeked(file)
        if not following and self._after is not None:
            with self._after.path.open("rb") as after:
                following = _peeked(after)
        if _parsed(following).get("prev") == line_digest(line):
            self._broken(self._good_seq, f"line {self._good_seq} before line {seq} in {name} was changed")
            self._leave_out_latest()
            return True
        if following:
            self._pass_over(seq, f"line {seq} in {name} was changed")
        else:
            self._pass_over(seq, f"line {self._good_seq} or {seq} in {name} was changed")
            self._leave_out_latest()
        return False

    def _leave_out_latest(self) -> None:
        if self._open:
            self._open = []
        else:
            self._unvouched = []

    def _pass_over(self, seq: int, found: str) -> None:
        self._broken(seq, found)
        self._open = []
        self.end_seq = seq
        self._digest = None

    def _vouched(self) -> Iterator[Line]:
        for line in self._unvouched:
            self.head = line.head
            yield line
        self._unvouched = []

    def _broken(self, seq: int, found: str) -> None:
        self.breaks.append(Break(seq, found))


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def _peeked(file: BinaryIO) -> bytes:
    """Return the next line without its newline, and leave the file where it was."""
    at = file.tell()
    line = file.readline()
    file.seek(at)
    return line.rstrip(b"\n")


def _line_before(file: BinaryIO, end_bytes: int) -> bytes:
    """Return the bytes from the last line start before `end_bytes` up to there."""
    size_bytes = 1 << 14
    while True:
        begin = max(0, end_bytes - size_bytes)
        file.seek(begin)
        data = file.read(end_bytes - begin)
        newline = data.rfind(b"\n", 0, -1)
        if newline >= 0 or begin == 0:
            return data[newline + 1 :]
        size_bytes *= 8


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the line's fact, an empty one where it is none."""
    try:
        fact = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fact if isinstance(fact, dict) else {}


def line_at(path: Path, offset: int) -> dict[str, Any]:
    """Return the fact of the line that begins there, an empty one where there is none. Raises: OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        return _parsed(file.readline())
