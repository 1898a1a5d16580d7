"""The audit trail: one JSON line a fact, each chained to the line before by BLAKE3; the commit point of every move.

A line is canonical JSON (ASCII, sorted keys, no spaces) with `seq`, `at`, `host`, `operator`, `chart`, `kind` and
`prev`, the BLAKE3 of the line before without its newline. Lines of one commit that are followed by more of it carry
`following`, their number: a commit is whole or it is not. A torn last commit is what a crash leaves: it was never
acknowledged, so it is moved to the evidence and cut off. Anything else that does not chain is damage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from exlab_watch_agent.adapters.durable import fsync_folder, write_all
from exlab_watch_agent.errors import StateFolderError, StoreWriteError

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class TrailHead:
    """The last line: its number, its digest, and where the file ends after it."""

    seq: int = 0
    digest: str = GENESIS
    end_bytes: int = 0


def line_digest(line: bytes) -> str:
    """Return the BLAKE3 of one line without its newline."""
    return str(blake3(line).hexdigest())


class AuditTrail:
    """Appends lines and keeps the head. One writer; `append` is durable when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self.head = TrailHead()

    def open(self, head: TrailHead) -> None:
        """Continue after `head`, to which `read_tail` has led. The file must end there. Raises: StateFolderError, OSError.

        What was replayed is durable when this returns: an agent that was killed between a write and its fsync left
        lines that are in the page cache only, and the name of a new file that is in no folder yet.
        """
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        try:
            if os.fstat(descriptor).st_size != head.end_bytes:
                raise StateFolderError(f"{self._path} changed while it was opened; start the agent again.")
            os.fsync(descriptor)
            fsync_folder(self._path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self.head = head

    def append(self, facts: Sequence[Mapping[str, Any]]) -> TrailHead:
        """Append the facts as lines with one write and one fsync; return the new head.

        Raises: StoreWriteError; nothing was acknowledged then, and what may have reached the file is cut off. A failed
        fsync is never repeated: this trail then refuses every further line.
        """
        if self._descriptor < 0:
            raise StoreWriteError("the audit trail is closed")
        lines: list[bytes] = []
        seq, digest = self.head.seq, self.head.digest
        for following, fact in zip(reversed(range(len(facts))), facts, strict=True):
            seq += 1
            chained = {**fact, "seq": seq, "prev": digest, **({"following": following} if following else {})}
            line = json.dumps(chained, sort_keys=True, separators=(",", ":")).encode()
            digest = line_digest(line)
            lines.append(line + b"\n")
        data = b"".join(lines)
        try:
            self._write(data)
            os.fsync(self._descriptor)
            self.head = TrailHead(seq, digest, self.head.end_bytes + len(data))
        except OSError as error:
            self._abandon()
            raise StoreWriteError(
                f"{self._path} cannot be written ({error.strerror}): make room or mend the disk, then start the agent again."
            ) from error
        except BaseException:  # an interrupt: the next line must not follow half of this one
            self._abandon()
            raise
        return self.head

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data)

    def _abandon(self) -> None:
        """Cut off what was not acknowledged and refuse all further lines."""
        with suppress(OSError):  # The next start finds a torn or unacknowledged line; both are handled there.
            os.ftruncate(self._descriptor, self.head.end_bytes)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ChainBrokenError(StateFolderError):
    """A line does not chain to the line before. `seq` is the number that was expected there."""

    def __init__(self, message: str, *, seq: int) -> None:
        super().__init__(message)
        self.seq = seq


def read_tail(path: Path, start: TrailHead) -> Iterator[tuple[dict[str, Any], TrailHead]]:
    """Yield (fact, head after it) for every line of a whole commit after `start`; stops before a torn last commit.

    Raises: ChainBrokenError naming the first line that was changed, removed, inserted or reordered.
    """
    if not path.exists():
        return
    head = start
    commit: list[tuple[dict[str, Any], TrailHead]] = []
    with path.open("rb") as file:
        file.seek(start.end_bytes)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            line = raw[:-1]
            fact = _parsed(line)
            if fact.get("seq") != head.seq + 1:
                raise _broken(path, head.seq + 1)
            if fact.get("prev") != head.digest:
                raise _broken_between(path, head.seq, line, next(file, b""))
            head = TrailHead(head.seq + 1, line_digest(line), head.end_bytes + len(raw))
            commit.append((fact, head))
            if not fact.get("following"):
                yield from commit
                commit.clear()


def check_head(path: Path, head: TrailHead) -> None:
    """Look whether the line that ends where `head` says is the one that it names. Raises: ChainBrokenError."""
    if head.seq == 0:
        return
    line = _line_before(path, head.end_bytes)
    if not line.endswith(b"\n") or line_digest(line[:-1]) != head.digest:
        raise _broken(path, head.seq)


def _line_before(path: Path, end_bytes: int) -> bytes:
    """Return the bytes from the last line start before `end_bytes` up to there."""
    size_bytes = 1 << 14
    with path.open("rb") as file:
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


def _broken(path: Path, seq: int) -> ChainBrokenError:
    return ChainBrokenError(f"{path.name} was changed, cut or reordered at line {seq}.", seq=seq)


def _broken_between(path: Path, seq: int, line: bytes, next_line: bytes) -> ChainBrokenError:
    """Return which of two lines in the right order, `seq` and `line` after it, is the wrong one: the next one vouches."""
    if seq == 0:
        return _broken(path, 1)
    vouched = _parsed(next_line).get("prev")
    if vouched is None:
        return ChainBrokenError(f"{path.name} was changed at line {seq} or {seq + 1}.", seq=seq)
    return _broken(path, seq if vouched == line_digest(line) else seq + 1)
