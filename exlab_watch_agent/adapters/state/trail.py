"""Writing the audit trail: one JSON line a fact, each chained to the line before by BLAKE3; the commit point of every move.

A line is compact JSON with `seq`, `prev` (the BLAKE3 of the line before without its newline), `at`, `kind`, `host`,
`operator` and `chart`. Lines of one commit that are followed by more of it carry `following`, their number: a commit is
whole or it is not. A line of a run carries `before`, the place of the same run's line before it, so that its history is
read without the lines of others. `sum` ends a line: a digest of all before it, by which the line itself shows that a byte
of it went bad; who changes a line on purpose can make it fit, and is found by the chain. Each segment begins with a line
that tells of the one that was closed before it.

Closed segments are not compressed: a place in them stays a byte offset, `grep` and `b3sum` read them, and half of a line
is digests and times, which do not shrink.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from exlab_watch_agent.adapters.local.durable import fsync_folder, sync_data, write_all, write_atomically
from exlab_watch_agent.adapters.state.documents import Place, json_bytes
from exlab_watch_agent.adapters.state.layout import StateLayout, closed_name
from exlab_watch_agent.adapters.state.segments import (
    TrailHead,
    finished,
)
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import StateFolderError, StoreFullError, StoreWriteError

TRAIL_SCHEMA = 2
"""In the first line of each segment. Lines before the first such line are of schema 1: without `before`."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Batch:
    """The lines of one commit, chained on a head. A line's place is known before it is written: `next_place`."""

    def __init__(self, head: TrailHead, following: int) -> None:
        """`following`: how many lines will be added after the first one."""
        self.head = head
        self.data: list[bytes] = []
        self._following = following

    @property
    def next_place(self) -> Place:
        return self.head.segment, self.head.end_bytes

    def add(self, body: bytes) -> None:
        """Add a line of these members (without braces, `seq`, `prev` and `following`)."""
        seq = self.head.seq + 1
        more = b'"following":%d,' % self._following if self._following > 0 else b""
        line, digest = finished(b'{"seq":%d,"prev":"%b",%b%b' % (seq, self.head.digest.encode(), more, body))
        self._following -= 1
        self.data.append(line + b"\n")
        self.head = TrailHead(seq, digest, self.head.segment, self.head.end_bytes + len(line) + 1)


def errors_as_store_errors(path: Path, error: OSError, *, is_unchanged: bool = True) -> StoreWriteError:
    """Return what a failed write to the state folder means, from its errno; `is_unchanged`: nothing of it is left."""
    if error.errno in _NO_ROOM and is_unchanged:
        return StoreFullError(f"There is no room for {path}: make room there.")
    return StoreWriteError(
        f"{path} cannot be written ({reason(error)}): make room or repair the disk, then start the agent again."
    )


class AuditTrail:
    """Appends lines to the live segment and keeps the head. One writer; `append` is durable when it returns.

    `write`: writes all of these bytes to a descriptor, or raises.
    """

    def __init__(self, folder: Path, *, write: Callable[[int, bytes], None] = write_all) -> None:
        self._write = write
        self._folder = folder
        self._path = StateLayout(folder).trail
        self._descriptor = -1
        self.head = TrailHead()

    def open(self, head: TrailHead) -> None:
        """Continue after `head`, to which reading has led. The file must end there. Raises: StateFolderError, OSError.

        What was replayed is durable when this returns: an agent that was killed between a write and its fsync left
        lines that are in the page cache only, and the name of a new file that is in no folder yet.
        """
        descriptor = self._opened()
        try:
            if os.fstat(descriptor).st_size != head.end_bytes:
                raise StateFolderError(f"{self._path} changed while it was opened; start the agent again.")
            os.fsync(descriptor)
            fsync_folder(self._folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self.head = head

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))

    def append(self, batch: Batch) -> None:
        """Append a batch that was begun on `head`, with one write and one sync.

        Raises: StoreFullError when there was no room, and what was written of it is cut off again: the file is as it
        was, and the same may be tried later. StoreWriteError otherwise: a failed sync is never repeated, this trail
        then refuses every further line. Nothing was acknowledged in either case.
        """
        if self._descriptor < 0:
            raise StoreWriteError("the audit trail is closed")
        try:
            self._write(self._descriptor, b"".join(batch.data))
        except OSError as error:
            raise errors_as_store_errors(self._path, error, is_unchanged=self._is_cut_back(error)) from error
        except BaseException:  # an interrupt: the next line must not follow half of this one
            self._abandon()
            raise
        try:
            sync_data(self._descriptor)
        except OSError as error:
            self._abandon()
            # Not a full disk, whatever its number says: these bytes may be marked clean and never reach the disk.
            raise errors_as_store_errors(self._path, error, is_unchanged=False) from error
        except BaseException:
            self._abandon()
            raise
        self.head = batch.head

    def _is_cut_back(self, error: OSError) -> bool:
        """After a failed write: bring the file back to its head if it was only for want of room, else refuse all further lines."""
        if error.errno in _NO_ROOM:
            try:
                os.ftruncate(self._descriptor, self.head.end_bytes)
            except OSError:
                pass
            else:
                return True
        self._abandon()
        return False

    def _abandon(self) -> None:
        """Cut off what was not acknowledged and refuse all further lines."""
        with suppress(OSError):  # The next start finds a torn or unacknowledged line; both are handled there.
            os.ftruncate(self._descriptor, self.head.end_bytes)
        self.close()

    def rotate(self, opening: Callable[[str, int], bytes]) -> None:
        """Close the live segment and go on in a new one.

        `opening`: from the closed file's name and size the members of the new segment's first line. Raises: as `append`.
        """
        if self._descriptor < 0:
            raise StoreWriteError("the audit trail is closed")
        head = self.head
        batch = Batch(TrailHead(head.seq, head.digest, head.seq + 1, 0), 0)
        batch.add(opening(closed_name(head.segment), head.end_bytes))
        try:
            place_next(self._folder, batch.data)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                self.close()
            raise errors_as_store_errors(self._path, error) from error
        self.close()
        try:
            close_live(self._folder, head.segment)
            put_next_in_place(self._folder)
            self._descriptor = self._opened()
        except OSError as error:
            # The next start finds every step of this and finishes it.
            raise errors_as_store_errors(self._path, error, is_unchanged=False) from error
        self.head = batch.head

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


# The steps from one segment to the next. At every moment the folder has a live segment under one of its two names
# (`segments.live_path`), so that one that is missing is never taken for a stop in the middle.


def place_next(folder: Path, lines: Iterable[bytes]) -> None:
    """Write the next segment beside the live one, durably. Raises: OSError; the trail is as it was then."""
    layout = StateLayout(folder)
    layout.closed.mkdir(exist_ok=True, mode=0o700)
    write_atomically(layout.next_trail, _pieces(lines), mode=0o600)


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    yield from lines


def close_live(folder: Path, first_seq: int) -> None:
    """Move the live segment to the closed ones, durably. Raises: OSError."""
    layout = StateLayout(folder)
    target = layout.closed_segment(first_seq)
    if target.exists():
        raise FileExistsError(errno.EEXIST, "a closed segment has this number already", str(target))
    layout.trail.rename(target)
    fsync_folder(layout.closed)
    fsync_folder(folder)


def put_next_in_place(folder: Path) -> None:
    """Give the next segment its name, durably. Raises: OSError."""
    layout = StateLayout(folder)
    layout.next_trail.rename(layout.trail)
    fsync_folder(folder)


def opening_data(closed: str | None, closed_bytes: int) -> dict[str, object]:
    """Return what a segment's first line says of itself and of the one before."""
    return {"schema": TRAIL_SCHEMA, "closed": closed, "closed_bytes": closed_bytes}


def fact_body(*, at: str, kind: str, who: bytes, operator: str | None, rest: bytes = b"") -> bytes:
    """Return a line's members: `who` is its `host` and `chart`, `rest` what comes after `operator`, each as JSON members.

    `kind` is one of our own words, which are the same in JSON.
    """
    by = b"null" if operator is None else json_bytes(operator)
    return b'"at":"%b","kind":"%b",%b,"operator":%b%b' % (at.encode(), kind.encode("ascii"), who, by, rest)
