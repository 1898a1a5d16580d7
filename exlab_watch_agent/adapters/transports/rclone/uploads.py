"""Brings files to a remote under names that nothing has, each under its name once it is whole.

Decided here: which requests bring which files, and what it means that one could not be written. Which names may be taken
when, and why, is said in far_side.py.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.transports.far_side import Shipment
from exlab_watch_agent.adapters.transports.rclone.daemon import PARTIAL_SUFFIX
from exlab_watch_agent.adapters.transports.rclone.errors import RcloneError, error_in
from exlab_watch_agent.adapters.transports.rclone.jobs import Jobs, Supervision
from exlab_watch_agent.adapters.transports.rclone.remote import Remote, from_to
from exlab_watch_agent.adapters.transports.rclone.requests import Requests
from exlab_watch_agent.adapters.transports.shared.own_files import arrived_under_another_name, taken
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS
from exlab_watch_agent.errors import AgentError, SourceChangedError, TransportError
from exlab_watch_agent.ports import Progress, RemoteFile

LARGE_BYTES = 16 * 1024 * 1024
"""From this size on a file is copied by itself to a name of our own, and its final name is looked for once it is whole."""
BATCH_FILES, BATCH_BYTES = 1000, 64 * 1024 * 1024
"""How many smaller files go into one request: for as long as that lasts their names are not looked for again."""
SMALL_AT_ONCE = 8
_LARGE_AT_ONCE = 2
_SHOWS_PARTS = frozenset({"webdav"})
"""Backends for which rclone writes under the final name what a cut may leave a part of: there the agent renames itself."""


@dataclass(frozen=True)
class _Push:
    """One push: from where, to which run's folder, under which name rclone counts it, and who watches it."""

    source_root: str
    destination: str
    group: str
    supervision: Supervision


class Uploads:
    """The pushes to one remote. `batch_files`, `batch_bytes`, `large_bytes`: as BATCH_FILES and so on say."""

    def __init__(self, remote: Remote, jobs: Jobs, *, batch_files: int, batch_bytes: int, large_bytes: int) -> None:
        self._remote = remote
        self._jobs = jobs
        self._batch_files = batch_files
        self._batch_bytes = batch_bytes
        self._large_bytes = large_bytes

    def copy_all(self, shipment: Shipment) -> None:
        """Bring all of it there. Raises: what went wrong first; then rclone no longer works on it."""
        files, control = shipment.files, shipment.control
        group = f"push-{secrets.token_hex(4)}"
        supervision = self._jobs.supervision(control, lambda: self._jobs.moved(group), set_rate=self._jobs.set_rate)
        small = [entry for entry in files if entry.size_bytes < self._large_bytes]
        large = [entry for entry in files if entry.size_bytes >= self._large_bytes]
        push = _Push(shipment.source_root, shipment.folder, group, supervision)
        supervision.keep_rate()
        try:
            for batch in portions(
                small, count_max=self._batch_files, bytes_max=self._batch_bytes, size_bytes_of=attrgetter("size_bytes")
            ):
                if self._remote.daemon.config.base_type in _SHOWS_PARTS:
                    self._copy_by_parts(push, batch)
                else:
                    self._copy_listed(push, batch, at_once=SMALL_AT_ONCE)
            if large and self._remote.features().get("Move"):
                self._copy_large(push, large)
            else:
                for batch in portions(large, count_max=_LARGE_AT_ONCE):
                    self._copy_listed(push, batch, at_once=_LARGE_AT_ONCE)
        finally:
            with contextlib.suppress(RcloneError, TransportError):
                self._jobs.set_rate(None)  # what is read back to be proven is not an upload
            self._jobs.forget(group)
        control.report(Progress(sum(entry.size_bytes for entry in files), len(files)))

    def _copy_listed(self, push: _Push, entries: Sequence[FileEntry], *, at_once: int) -> None:
        """Let rclone copy these files, each under its name once it is whole, in one request."""
        # What both paths end with goes into the names: then the far side is the root itself, to which there is an open connection.
        here, there, common = _without_common_end(push.source_root, push.destination)
        with self._jobs.listed(f"{common}{entry.path}" for entry in entries) as names:
            parameters = {
                "srcFs": here, "dstFs": f"{self._remote.fs}/{there}" if there else self._remote.fs,
                "_config": {"Transfers": at_once, "NoTraverse": True, "NoUpdateDirModTime": True},
                "_filter": names, "_group": push.group,
            }  # fmt: skip
            try:
                self._jobs.working("sync/copy", parameters, group=push.group, supervision=push.supervision)
            except RcloneError as error:
                raise self._failed_of(push, {f"{common}{entry.path}": entry for entry in entries}, error) from error
        # What rclone compares it has found there, and skipped. Nothing else makes it compare here.
        if self._remote.ask("core/stats", group=push.group).get("checks"):
            raise self._met(push, entries)

    def _met(self, push: _Push, entries: Sequence[FileEntry]) -> TransportError:
        """Return which of these names was taken, each of which either was taken or is a copy of ours now."""
        there = self._remote.files(push.destination)
        for entry in entries:
            if entry.path not in there:
                return arrived_under_another_name(entry.path, self._remote.fs)
        foreign = [entry for entry in entries if not _is_copy(there[entry.path], entry)]
        return taken((foreign or entries)[0].path, push.destination, self._remote.fs)

    def _failed_of(self, push: _Push, named: Mapping[str, FileEntry], error: RcloneError) -> AgentError:
        """Return what it means that some of these could not be written; `named`: rclone's name → entry."""
        said = self._jobs.failed(push.group)
        failed = [name for name in named if name in said]
        why = RcloneError(said[failed[0]]) if failed else error
        return self._copy_error([named[name] for name in failed] or list(named.values()), why)

    def _copy_error(self, failed: Sequence[FileEntry], error: RcloneError) -> AgentError:
        """Return what it means that these files, or one of them, could not be written, and `error` is what rclone says."""
        if "source file is being updated" in str(error):
            return SourceChangedError(f"{failed[0].path!r} changed while it was being copied.")
        # Files fill a disk together, and the one that failed first need not be the one for which there is no room.
        kind = self._remote.kind_of(error, needed_bytes=sum(entry.size_bytes for entry in failed))
        what = repr(failed[0].path) if len(failed) == 1 else f"{failed[0].path!r} and {len(failed) - 1} more"
        return TransportError(
            kind, f"Cannot write {what} to {self._remote.fs}: {error}.", detail=self._remote.daemon.tail()
        )

    def _copy_by_parts(self, push: _Push, batch: Sequence[FileEntry]) -> None:
        """The same where rclone writes under the final name: under names of our own, and renamed when all are whole."""
        token = secrets.token_hex(4)
        finals = [f"{push.destination}/{entry.path}" for entry in batch]
        parts = [_part_beside(final, number, token) for number, final in enumerate(finals)]
        copies = [
            from_to(push.source_root, entry.path, self._remote.fs, to) for entry, to in zip(batch, parts, strict=True)
        ]
        self._work_off_batch("copyfile", copies, push, batch, group=push.group)
        moves = [from_to(self._remote.fs, part, self._remote.fs, to) for part, to in zip(parts, finals, strict=True)]
        group = f"names-{token}"  # what it counts is not progress
        try:
            self._work_off_batch("movefile", moves, push, batch, group=group)
            if self._remote.ask("core/stats", group=group).get("transfers") != len(batch):
                self._put_back(push, dict(zip(parts, batch, strict=True)))
        finally:
            self._jobs.forget(group)

    def _put_back(self, push: _Push, parts: Mapping[str, FileEntry]) -> None:
        """Remove those of our parts (by path) that were not moved, because somebody has their names. Raises: which."""
        left = [part for part in parts if self._remote.exists(part)]
        for part in left:
            self._remote.ask("operations/deletefile", fs=self._remote.fs, remote=part)
        if left:
            raise self._met(push, [parts[part] for part in left])

    def _copy_large(self, push: _Push, entries: Sequence[FileEntry]) -> None:
        """Let rclone copy each to a name of our own and move it when it is whole, unless somebody has its name by then."""
        token = secrets.token_hex(4)
        names_group = f"names-{token}"

        def bring(requests: Requests, numbered: tuple[int, FileEntry]) -> None:
            number, entry = numbered
            final = f"{push.destination}/{entry.path}"
            part = _part_beside(final, number, token)
            copy = from_to(push.source_root, entry.path, self._remote.fs, part)
            move = from_to(self._remote.fs, part, self._remote.fs, final)
            try:
                requests.call("operations/copyfile", {**copy, "_group": push.group}, may_take_hours=True)
                requests.call("operations/movefile", {**move, "_group": names_group}, may_take_hours=True)
                self._put_back(push, {part: entry})
            except RcloneError as error:
                raise self._copy_error([entry], error) from error

        try:
            self._jobs.supervise(list(enumerate(entries)), bring, supervision=push.supervision, threads=_LARGE_AT_ONCE)
        except RcloneError as error:  # that one failed was seen before its own answer came
            self._jobs.stop(push.group)
            raise self._failed_of(push, {entry.path: entry for entry in entries}, error) from error
        except AgentError:
            self._jobs.stop(push.group)
            raise
        finally:
            self._jobs.forget(names_group)

    def _work_off_batch(
        self, what: str, inputs: Sequence[Mapping[str, Any]], push: _Push, batch: Sequence[FileEntry], *, group: str
    ) -> None:
        """Let rclone copy or move, one input for each entry, and return when it has done all. Raises what went wrong."""
        try:
            answers = self._jobs.batched(what, inputs, group=group, at_once=SMALL_AT_ONCE, supervision=push.supervision)
        except RcloneError as error:
            raise self._copy_error(batch, error) from error
        failed = [(entry, error_in(answer)) for entry, answer in zip(batch, answers, strict=True) if "error" in answer]
        if failed:
            self._jobs.stop(group)
            raise self._copy_error([entry for entry, _ in failed], failed[0][1])


def _part_beside(final: str, number: int, token: str) -> str:
    """Return a name of our own in the same folder, which `clear_partials` knows again."""
    return f"{final.rpartition('/')[0]}/{number}.{token}{PARTIAL_SUFFIX}"


def _is_copy(file: RemoteFile, entry: FileEntry) -> bool:
    """Whether this may be our copy of the entry, as far as a listing tells."""
    is_same_time = file.mtime_ns is None or abs(file.mtime_ns - entry.mtime_ns) <= MTIME_TOLERANCE_NS
    return is_same_time and file.size_bytes == entry.size_bytes


def _without_common_end(source_root: str, destination: str) -> tuple[str, str, str]:
    """Return both paths without the folders with which both end, and those, each with a slash behind it."""
    here, there = Path(source_root), destination.split("/")
    common = ""
    while there and here.name == there[-1]:
        common = f"{there.pop()}/{common}"
        here = here.parent
    return str(here), "/".join(there), common
