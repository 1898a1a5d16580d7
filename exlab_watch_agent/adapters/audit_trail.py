"""The audit trail: one JSON line a fact, each chained to the line before by BLAKE3; the commit point of every move.

A line is canonical JSON (ASCII, sorted keys, no spaces) with `seq`, `at`, `host`, `operator`, `chart`, `kind` and
`prev`, the BLAKE3 of the line before without its newline. A torn last line is what a crash leaves: it was never
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

from exlab_watch_agent.adapters.durable import fsync_folder
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
        """Continue after `head`, to which `read_tail` has led. The file must end there."""
        is_new = not self._path.exists()
        self._descriptor = os.open(
            self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600
        )
        if os.fstat(self._descriptor).st_size != head.end_bytes:
            raise StateFolderError(f"{self._path} changed while it was opened; start the agent again.")
        if is_new:
            fsync_folder(self._path.parent)
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
        for fact in facts:
            seq += 1
            line = json.dumps({**fact, "seq": seq, "prev": digest}, sort_keys=True, separators=(",", ":")).encode()
            digest = line_digest(line)
            lines.append(line + b"\n")
        data = b"".join(lines)
        try:
            self._write(data)
            os.fsync(self._descriptor)
        except OSError as error:
            self._abandon()
            raise StoreWriteError(
                f"{self._path} cannot be written ({error.strerror}): make room or mend the disk, then start the agent again."
            ) from error
        self.head = TrailHead(seq, digest, self.head.end_bytes + len(data))
        return self.head

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

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
    """Yield (fact, head after it) for every whole line after `start`; stops before a torn last line.

    Raises: ChainBrokenError at the first line that does not chain or parse.
    """
    if not path.exists():
        return
    head = start
    with path.open("rb") as file:
        file.seek(start.end_bytes)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            fact, head = _checked(path, raw[:-1], head)
            yield fact, head


def _checked(path: Path, line: bytes, head: TrailHead) -> tuple[dict[str, Any], TrailHead]:
    expected = head.seq + 1
    try:
        fact = json.loads(line)
        is_chained = fact["seq"] == expected and fact["prev"] == head.digest
    except (ValueError, KeyError, TypeError, RecursionError):
        is_chained, fact = False, {}
    if not is_chained:
        raise ChainBrokenError(f"{path.name} was changed, cut or reordered at line {expected}.", seq=expected)
    return fact, TrailHead(expected, line_digest(line), head.end_bytes + len(line) + 1)
