"""The transport for whatever rclone can reach: SFTP, SMB, WebDAV, FTP, S3 and the rest.

Decided here: what stands where at the destination, which requests bring it there, which of a backend's answers are
believed, and when a name or a file cannot be brought or proven. Not here: the running rclone (rclone_daemon.py), the
operator's config (rclone_config.py), the formats of the agent's own files (own_files.py).

What rclone is asked for: to list, read, hash and copy; to move, only a file that must make room and the agent's own;
to delete, only probe and partial files of the agent by their exact names. Never sync, purge, delete or cleanup.

- A file is copied to a name that nothing has. Where the backend can rename, rclone writes `<name>.<8 hex>.exlab-partial`
  beside it and renames the whole file; object stores show only whole ones. For WebDAV, where rclone writes under the
  final name, the agent does the same with names of its own. Some wrapper may still show a part under the final name after
  a cut: its size shows it to the next push, and its hash to the verifier.
- Somebody else's file may come under a name while a push runs, and most backends replace what a rename or an upload
  meets. So names are looked for as late as rclone can (`--ignore-existing`): of small files when their batch begins, which
  is bounded by files and bytes; of a large one between its copy to a name of our own and its move. The push then fails.
- Nothing that rclone offers creates a file exclusively: of two agents that claim one folder within the same moment both
  may believe it is theirs until they look again, which each does before and after its data are copied.
- rclone's own comparison of hashes after a copy is off: it reads large files whole once more, in which time no byte
  seems to move, and proves less than the verifier's SHA-256 of what is stored, without which nothing counts as synced.
- rclone asks no server to sync to its disk. What was copied may be only in the server's memory for a while.
- Links on the server are the server's affair: rclone follows or hides them as the backend does.

Source: rclone 1.75 (fs/operations, fs/rc), and FACTS.md A7 for what it silently leaves undone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import xxhash
from blake3 import blake3

from exlab_watch_agent.adapters.children.process import STALL_S, Children, StallWatch
from exlab_watch_agent.adapters.local.digests import Pulse
from exlab_watch_agent.adapters.transports.rclone.daemon import (
    PARTIAL_SUFFIX,
    RcloneDaemon,
    RcloneError,
    Requests,
    error_in,
    rclone_program,
    rclone_version,
)
from exlab_watch_agent.adapters.transports.shared.local_side import bytes_to_place, require_sources
from exlab_watch_agent.adapters.transports.shared.marked_root import NOTHING_THERE, MarkedRoot, WhileThere, look_of
from exlab_watch_agent.adapters.transports.shared.own_files import (
    CREATION_PATH,
    MARKER_FILE,
    OWN_FILE_BYTES_MAX,
    PARTIAL_FOLDER,
    PROBE_PREFIX,
    SUPERSEDED_FOLDER,
    arrived_under_another_name,
    require_cache_path,
    require_data_path,
    require_inside,
)
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, DestinationLook
from exlab_watch_agent.core.gate import folded
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS
from exlab_watch_agent.core.sampling import BLOCK_BYTES, sample_offsets
from exlab_watch_agent.errors import (
    AgentError,
    CancelledError,
    DestinationUnreachableError,
    FailureKind,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import NOTHING_ELSE, Control, Progress, RemoteFile

SAMPLED_BYTES_MIN = 32 * 1024 * 1024
"""Below this many bytes in all, the verifier has read everything sooner than ranges of it could be asked for."""
HASHED_THERE_BYTES_MIN = 1024 * 1024
"""A server's own sha256sum costs it a process for each file; smaller files are read sooner."""
LARGE_BYTES = 16 * 1024 * 1024
"""From this size on a file is copied by itself to a name of our own, and its final name is looked for once it is whole."""
BATCH_FILES, BATCH_BYTES = 1000, 64 * 1024 * 1024
"""How many smaller files go into one request: for as long as that lasts their names are not looked for again."""
_SMALL_AT_ONCE, _LARGE_AT_ONCE = 8, 2
_FILES_PER_REQUEST = 500
_READERS = 4
_LOOK_EVERY_S = 0.1
_STOP_WAIT_S = 3.0
_DIGEST_CHARACTERS = 64
_PARTIAL = re.compile(r".*\.[0-9a-f]{8}" + re.escape(PARTIAL_SUFFIX), re.DOTALL)
_GLOB = re.compile(r"[\\*?\[\]{},]")
_FRACTION = re.compile(r"\.(\d+)")
_OVERWRITING = {"IgnoreExisting": False, "IgnoreTimes": True}
_HASHES_THERE = frozenset({"sftp"})
"""Backends whose SHA-256 is taken by the server, of the bytes on its disk, when it is asked. Others keep what they once
were told, or what they saw while the bytes arrived: that is no reading of what is stored."""
_SHOWS_PARTS = frozenset({"webdav"})
"""Backends for which rclone writes under the final name what a cut may leave a part of: there the agent renames itself."""

Listed = Mapping[str, Any]


class RcloneTransport(MarkedRoot):
    """Implements ports.Transport on a remote of an operator's rclone.conf.

    `owner`: as in MountedPathTransport. `children`: keeps the process; None for one of its own. `stall_s`: a piece of
    work that moves no byte for that long is ended with the process. `stream_bytes_max`: larger files are not downloaded
    to be hashed. `sampled_bytes_min`: of less than that in all no blocks are compared. `batch_files`, `batch_bytes`,
    `large_bytes`: as BATCH_FILES, BATCH_BYTES and LARGE_BYTES say.
    """

    LIKELY_CAUSE: ClassVar[str] = "The share may not be mounted there."

    def __init__(
        self,
        target: RcloneTarget,
        *,
        owner: str = "",
        children: Children | None = None,
        stall_s: float = STALL_S,
        stream_bytes_max: int | None = None,
        sampled_bytes_min: int = SAMPLED_BYTES_MIN,
        batch_files: int = BATCH_FILES,
        batch_bytes: int = BATCH_BYTES,
        large_bytes: int = LARGE_BYTES,
    ) -> None:
        self._daemon = RcloneDaemon(target, children)
        self._fs = self._daemon.fs
        super().__init__(self._fs, settle_s=0.5)
        self._stall_s = stall_s
        self._stream_bytes_max = stream_bytes_max
        self._sampled_bytes_min = sampled_bytes_min
        self._batch_files = batch_files
        self._batch_bytes = batch_bytes
        self._large_bytes = large_bytes
        self._probe_name = PROBE_PREFIX + (blake3(owner.encode()).hexdigest(8) if owner else secrets.token_hex(8))
        self._probing = threading.Lock()
        self._clear: set[str] = set()
        self._rate: float | None = None

    def check_tools(self) -> tuple[str, ...]:
        program = rclone_program()
        status = os.stat(program)
        version = rclone_version(program, (status.st_ino, status.st_mtime_ns))
        return (f"rclone {version} ({program})", *self._daemon.config.notes())

    def close(self) -> None:
        self._daemon.close()

    # --- is it there -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (RcloneError, TransportError) as error:
            raise DestinationUnreachableError(self._why_away(error)) from error

    def _why_away(self, error: RcloneError | TransportError) -> str:
        """Return the sentence that an operator gets while the lane waits: what it is, and what to do about it."""
        if isinstance(error, TransportError):  # a sentence already, of a program or a config of ours
            return str(error)
        why = str(error).rstrip(".")
        match error.kind:
            case FailureKind.AUTH:
                return (
                    f"{self._fs} does not let us in: {why}. Correct the user, password, key or known_hosts of "
                    f"[{self._daemon.remote}] in {self._daemon.config_path}, or its rights there."
                )
            case FailureKind.NETWORK:
                return f"{self._fs} cannot be reached: {why}. Look whether it is switched on, and at the network."
            case _:
                return self._away(why)

    def nature(self) -> Nature:
        try:
            types = self._daemon.config.leaf_types
        except TransportError as error:
            raise DestinationUnreachableError(str(error)) from error
        why = "" if "local" in types else f"the remote {self._daemon.remote} leads to another machine"
        return Nature(f"rclone {'+'.join(sorted(types))}", self._fs, why)

    def _require_folder(self) -> None:
        """Return when the root is there. Where folders are only parts of names, that is: the bucket."""
        if self._list("", recurse=False) is None:
            raise DestinationUnreachableError(self._away("there is no such folder"))

    def _read_own(self, path: str) -> bytes | None:
        return self._read(path, OWN_FILE_BYTES_MAX)

    def _place_marker_file(self, data: bytes) -> None:
        self._write(MARKER_FILE, data, may_replace=False)

    def _place_claim_file(self, destination: str, data: bytes) -> None:
        self._write(f"{destination}/{CLAIM_PATH}", data, may_replace=False)

    def _exchange_a_nonce(self, while_there: WhileThere | None = None) -> bool:
        nonce = secrets.token_hex(16).encode()
        with self._probing:
            try:
                try:
                    self._write(self._probe_name, nonce, may_replace=True)
                except RcloneError as error:
                    if self._kind_of(error, needed_bytes=len(nonce)) is FailureKind.DESTINATION_FULL:
                        return False
                    raise
                if while_there is not None:
                    while_there(self._probe_name, nonce)
                if self._read_own(self._probe_name) != nonce:
                    raise RcloneError("what was written is not what is read back")
            finally:
                with contextlib.suppress(RcloneError):  # there is none; one that stays is taken by the next probe
                    self._ask("operations/deletefile", fs=self._fs, remote=self._probe_name)
        return True

    def free_bytes(self) -> int | None:
        try:
            if not self._features().get("About"):
                return None
            free = self._ask("operations/about", fs=self._fs).get("free")
        except (RcloneError, TransportError):
            return None
        return int(free) if isinstance(free, int) and free >= 0 else None

    def top_names(self) -> tuple[str, ...] | None:
        with self._reached():
            return tuple(sorted(str(item["Name"]) for item in self._list("", recurse=False) or ()))

    # --- whose is it -------------------------------------------------------------------------------------------------

    def look(self, destination: str) -> DestinationLook:
        with self._answering("Cannot look at", destination):
            top = self._list(destination, recurse=False) or ()
            names = {str(item["Name"]) for item in top} - {PARTIAL_FOLDER}
            if not names or (
                names == {CACHE_FOLDER} and not self._list(f"{destination}/{CACHE_FOLDER}", recurse=False)
            ):
                return NOTHING_THERE
            return look_of(
                destination,
                claim=self._read_own(f"{destination}/{CLAIM_PATH}"),
                creation=self._read_own(f"{destination}/{CREATION_PATH}"),
            )

    # --- what is there -----------------------------------------------------------------------------------------------

    def listing(self, destination: str) -> Mapping[str, RemoteFile]:
        with self._answering("Cannot list", destination):
            return self._files(destination)

    def _files(self, destination: str) -> dict[str, RemoteFile]:
        found: dict[str, RemoteFile] = {}
        keeps_times = self._keeps_times()
        for item in self._list(destination, recurse=True, filters=_hidden_in(destination)) or ():
            path = _below(str(item["Path"]), destination)
            if item["IsDir"] or _is_partial(path):
                continue
            if path in found:
                text = (
                    f"{destination!r} at {self._fs} holds two files of the name {path!r}: remove the wrong one there."
                )
                raise TransportError(FailureKind.UNKNOWN, text)
            found[path] = RemoteFile(int(item["Size"]), _nanoseconds(str(item["ModTime"])) if keeps_times else None)
        return found

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        with self._answering("Cannot read from", destination):
            return self._read(f"{destination}/{require_inside(relative_path)}", limit_bytes)

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        if sum(entry.size_bytes for entry in files) < self._sampled_bytes_min:
            return None
        found: dict[str, str] = {}
        with self._answering("Cannot read from", destination):
            there = self._files(destination)
            present = [entry for entry in files if require_inside(entry.path) in there]
            pulse = Pulse(control)

            def sample(requests: Requests, entry: FileEntry) -> None:
                hasher = xxhash.xxh3_128()
                for offset in sample_offsets(entry.size_bytes):
                    data = b""
                    if offset < there[entry.path].size_bytes:
                        path = f"{destination}/{entry.path}"
                        with requests.reading(path, start=offset, size_bytes=BLOCK_BYTES) as response:
                            data = response.read(BLOCK_BYTES)
                    hasher.update(data)
                    pulse.moved(len(data))
                found[entry.path] = hasher.hexdigest()

            watch = _Watch(control, self._stall_s, lambda: pulse.bytes_moved, lambda _: None)
            self._supervise(present, sample, watch=watch, threads=_READERS)
        return found

    def digests(self, destination: str, paths: Sequence[str], *, control: Control) -> dict[str, str]:
        for path in paths:
            require_inside(path)
        found: dict[str, str] = {}
        with self._answering("Cannot read from", destination):
            if control.is_cancelled():
                raise CancelledError("stopped as asked")
            asked: list[str] = []
            sizes: dict[str, int] = {}
            if self._hashes_there():
                sizes = {path: file.size_bytes for path, file in self._files(destination).items()}
                asked = sorted(path for path in paths if sizes.get(path, 0) >= HASHED_THERE_BYTES_MIN)
            read = sorted(set(paths) - set(asked))
            # A server that hashes says nothing meanwhile: then only time can tell, at 10 MB a second.
            longest = max((sizes[path] for path in asked), default=0)
            group = f"proof-{secrets.token_hex(4)}"
            watch = _Watch(control, self._stall_s + longest / 10_000_000, lambda: self._moved(group), lambda _: None)
            try:
                found |= self._read_and_hashed(destination, read, group=group, watch=watch)
                # Of a file that cannot be read a list of hashes says nothing; asked for it alone, rclone says why.
                silent = set(read) - found.keys()
                silent &= self._files(destination).keys() if silent else set()
                for wanted, more in ((asked, {}), (sorted(silent), {"download": True})):
                    for batch in portions(wanted, count_max=_FILES_PER_REQUEST):
                        inputs = [
                            {"fs": self._fs, "remote": f"{destination}/{path}", "hashType": "sha256", **more}
                            for path in batch
                        ]
                        answers = self._batched("hashsumfile", inputs, group=group, at_once=_READERS, watch=watch)
                        found |= _digests_in(zip(batch, answers, strict=True))
            finally:
                self._forget(group)
        return found

    def _read_and_hashed(
        self, destination: str, paths: Sequence[str], *, group: str, watch: _Watch
    ) -> Mapping[str, str]:
        """Return path → SHA-256 of files that rclone reads back; one that is not there is left out."""
        if not paths:
            return {}
        with self._listed(f"{destination}/{path}" for path in paths) as names:
            parameters = {
                "fs": self._fs, "hashType": "sha256", "download": True,
                "_config": {"Checkers": _READERS, "NoTraverse": True}, "_filter": names, "_group": group,
            }  # fmt: skip
            answer = self._working("operations/hashsum", parameters, group=group, watch=watch)
        lines = [(_below(line[_DIGEST_CHARACTERS + 2 :], destination), line) for line in answer["hashsum"]]
        return _digests_in((path, {"hash": line[:_DIGEST_CHARACTERS]}) for path, line in lines)

    def digest_bytes_max(self) -> int | None:
        with self._answering("Cannot ask what it can hash:", "x"):
            if self._daemon.config.base_type == "local" or self._hashes_there():
                return None
        return self._stream_bytes_max

    def _hashes_there(self) -> bool:
        """Whether the server itself takes SHA-256, which it has shown on the marker."""
        if self._daemon.config.base_type not in _HASHES_THERE or "sha256" not in self._info()["Hashes"]:
            return False
        return self._daemon.remembered("hashes there", self._hashes_the_marker)

    def _hashes_the_marker(self) -> bool:
        known = self._read_own(MARKER_FILE)
        try:
            answer = self._ask("operations/hashsumfile", fs=self._fs, remote=MARKER_FILE, hashType="sha256")
        except RcloneError:  # it has no such program, or runs none for us
            return False
        return known is not None and answer.get("hash") == hashlib.sha256(known).hexdigest()

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        with self._answering("Cannot write to", destination):
            self._require_names(files)
            self._require_own_claim(destination)
            standing = self._files(destination) if files else {}
            for entry in files:
                if entry.path in standing:
                    raise self._taken(destination, entry)
            require_sources(source_root, files)
            self._clear.discard(destination)
            try:
                self._copy_all(source_root, files, destination, control)
                require_sources(source_root, files)
            except (SourceChangedError, TransportError):
                self._withdraw(source_root, files, destination)
                raise
            self._require_own_claim(destination)
            self._require_apart([*standing, *(entry.path for entry in files)], destination)
            self._clear.add(destination)
            control.report(Progress(sum(entry.size_bytes for entry in files), len(files)))

    def _taken(self, destination: str, entry: FileEntry) -> TransportError:
        text = f"{destination}/{entry.path} at {self._fs} stands there already, and it is never replaced."
        return TransportError(FailureKind.UNKNOWN, text)

    def _require_apart(self, paths: Sequence[str], destination: str) -> None:
        """Return when no two of these names are one to the server's disk, of which its protocol says nothing."""
        if len({folded(path) for path in paths}) < len(paths):
            arrived = self._files(destination)
            for path in paths:
                if path not in arrived:
                    raise arrived_under_another_name(path, self._fs)

    def _withdraw(self, source_root: str, files: Sequence[FileEntry], destination: str) -> None:
        """Move aside what this very copy made of files that changed meanwhile: rclone may have taken some of both."""
        changed = []
        for entry in files:
            try:
                require_sources(source_root, [entry])
            except AgentError:
                changed.append(entry.path)
        with contextlib.suppress(RcloneError, TransportError):  # else their time or hash shows them to the next push
            self.set_aside(destination, changed)

    def _require_names(self, files: Sequence[FileEntry]) -> None:
        """Refuse what would stand there under another name, or not beside another. Raises: TransportError."""
        changed = self._daemon.config.changed_names(self._default_encodings())
        seen: dict[str, str] = {}
        for entry in files:
            path = require_data_path(entry.path)
            if any(changed.search(part) for part in path.split("/")) or _is_partial(path):
                text = f"{path!r} cannot have that name at {self._fs}, rclone would change it. Rename it, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
            if self._features().get("CaseInsensitive") and seen.setdefault(folded(path), path) != path:
                text = f"{path!r} and {seen[folded(path)]!r} are one name at {self._fs}. Rename one, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)

    def _copy_all(self, source_root: str, files: Sequence[FileEntry], destination: str, control: Control) -> None:
        group = f"push-{secrets.token_hex(4)}"
        watch = _Watch(control, self._stall_s, lambda: self._moved(group), self._set_rate)
        small = [entry for entry in files if entry.size_bytes < self._large_bytes]
        large = [entry for entry in files if entry.size_bytes >= self._large_bytes]
        push = _Push(source_root, destination, group, watch)
        watch.keep_rate()
        try:
            for batch in portions(
                small, count_max=self._batch_files, bytes_max=self._batch_bytes, size_bytes_of=attrgetter("size_bytes")
            ):
                if self._daemon.config.base_type in _SHOWS_PARTS:
                    self._copy_by_parts(push, batch)
                else:
                    self._copy_listed(push, batch, at_once=_SMALL_AT_ONCE)
            if large and self._features().get("Move"):
                self._copy_large(push, large)
            else:
                for batch in portions(large, count_max=_LARGE_AT_ONCE):
                    self._copy_listed(push, batch, at_once=_LARGE_AT_ONCE)
        finally:
            with contextlib.suppress(RcloneError, TransportError):
                self._set_rate(None)  # what is read back to be proven is no upload
            self._forget(group)

    def _copy_listed(self, push: _Push, entries: Sequence[FileEntry], *, at_once: int) -> None:
        """Let rclone copy these files, each under its name once it is whole, in one request."""
        # What both paths end with goes into the names: then the far side is the root itself, to which a connection stands.
        here, there, common = _without_common_end(push.source_root, push.destination)
        with self._listed(f"{common}{entry.path}" for entry in entries) as names:
            parameters = {
                "srcFs": here, "dstFs": f"{self._fs}/{there}" if there else self._fs,
                "_config": {"Transfers": at_once, "NoTraverse": True, "NoUpdateDirModTime": True},
                "_filter": names, "_group": push.group,
            }  # fmt: skip
            try:
                self._working("sync/copy", parameters, group=push.group, watch=push.watch)
            except RcloneError as error:
                raise self._failed_of(push, {f"{common}{entry.path}": entry for entry in entries}, error) from error
        # What rclone compares it has met there, and passed over. Nothing else makes it compare here.
        if self._ask("core/stats", group=push.group).get("checks"):
            raise self._met(push, entries)

    def _met(self, push: _Push, entries: Sequence[FileEntry]) -> AgentError:
        """Return which of these names was taken, each of which either was taken or is a copy of ours now.

        Raises: what the sources say of themselves, which comes first.
        """
        require_sources(push.source_root, entries)
        there = self._files(push.destination)
        for entry in entries:
            if entry.path not in there:
                return arrived_under_another_name(entry.path, self._fs)
        foreign = [entry for entry in entries if not _is_copy(there[entry.path], entry)]
        return self._taken(push.destination, (foreign or entries)[0])

    def _failed_of(self, push: _Push, named: Mapping[str, FileEntry], error: RcloneError) -> AgentError:
        """Return what it means that some of these could not be written; `named`: rclone's name → entry."""
        said = self._failed(push.group)
        failed = [name for name in named if name in said]
        why = RcloneError(said[failed[0]]) if failed else error
        return self._copy_error(push.source_root, [named[name] for name in failed] or list(named.values()), why)

    def _failed(self, group: str) -> Mapping[str, str]:
        """Return path → what went wrong, of the latest transfers of a group."""
        with contextlib.suppress(RcloneError, TransportError):
            done = self._ask("core/transferred", group=group).get("transferred") or ()
            return {str(item["name"]): str(item["error"]) for item in done if item.get("error")}
        return {}

    def _copy_error(self, source_root: str, failed: Sequence[FileEntry], error: RcloneError) -> AgentError:
        """Return what it means that these files, or one of them, could not be written, and `error` is what rclone says.

        Raises: what the sources say of themselves, which comes first.
        """
        require_sources(source_root, failed)
        if "source file is being updated" in str(error):
            return SourceChangedError(f"{failed[0].path!r} changed while it was being copied.")
        # Files fill a disk together, and the one that failed first need not be the one for which there is no room.
        kind = self._kind_of(error, needed_bytes=sum(entry.size_bytes for entry in failed))
        what = repr(failed[0].path) if len(failed) == 1 else f"{failed[0].path!r} and {len(failed) - 1} more"
        return TransportError(kind, f"Cannot write {what} to {self._fs}: {error}.", detail=self._daemon.tail())

    def _copy_by_parts(self, push: _Push, batch: Sequence[FileEntry]) -> None:
        """The same where rclone writes under the final name: under names of our own, and renamed when all are whole."""
        token = secrets.token_hex(4)
        finals = [f"{push.destination}/{entry.path}" for entry in batch]
        parts = [_part_beside(final, number, token) for number, final in enumerate(finals)]
        copies = [_from_to(push.source_root, entry.path, self._fs, to) for entry, to in zip(batch, parts, strict=True)]
        self._work_off_batch("copyfile", copies, push, batch, group=push.group)
        moves = [_from_to(self._fs, part, self._fs, to) for part, to in zip(parts, finals, strict=True)]
        group = f"names-{token}"  # what it counts is no progress
        try:
            self._work_off_batch("movefile", moves, push, batch, group=group)
            if self._ask("core/stats", group=group).get("transfers") != len(batch):
                self._put_back(push, dict(zip(parts, batch, strict=True)))
        finally:
            self._forget(group)

    def _put_back(self, push: _Push, parts: Mapping[str, FileEntry]) -> None:
        """Remove those of our parts (by path) that were not moved, because somebody has their names. Raises: which."""
        taken = [part for part in parts if self._stands(part)]
        for part in taken:
            self._ask("operations/deletefile", fs=self._fs, remote=part)
        if taken:
            raise self._met(push, [parts[part] for part in taken])

    def _copy_large(self, push: _Push, entries: Sequence[FileEntry]) -> None:
        """Let rclone copy each to a name of our own and move it when it is whole, unless somebody has its name by then."""
        token = secrets.token_hex(4)
        names_group = f"names-{token}"

        def bring(requests: Requests, numbered: tuple[int, FileEntry]) -> None:
            number, entry = numbered
            final = f"{push.destination}/{entry.path}"
            part = _part_beside(final, number, token)
            copy = _from_to(push.source_root, entry.path, self._fs, part)
            move = _from_to(self._fs, part, self._fs, final)
            try:
                requests.call("operations/copyfile", {**copy, "_group": push.group}, timeout_s=None)
                requests.call("operations/movefile", {**move, "_group": names_group}, timeout_s=None)
                self._put_back(push, {part: entry})
            except RcloneError as error:
                raise self._copy_error(push.source_root, [entry], error) from error

        try:
            self._supervise(list(enumerate(entries)), bring, watch=push.watch, threads=_LARGE_AT_ONCE)
        except RcloneError as error:  # that one failed was seen before its own answer came
            self._stop(push.group)
            raise self._failed_of(push, {entry.path: entry for entry in entries}, error) from error
        except AgentError:
            self._stop(push.group)
            raise
        finally:
            self._forget(names_group)

    def _work_off_batch(
        self, what: str, inputs: Sequence[Mapping[str, Any]], push: _Push, batch: Sequence[FileEntry], *, group: str
    ) -> None:
        """Let rclone copy or move, one input for each entry, and return when it has done all. Raises what went wrong."""
        try:
            answers = self._batched(what, inputs, group=group, at_once=_SMALL_AT_ONCE, watch=push.watch)
        except RcloneError as error:
            raise self._copy_error(push.source_root, batch, error) from error
        failed = [(entry, error_in(answer)) for entry, answer in zip(batch, answers, strict=True) if "error" in answer]
        if failed:
            self._stop(group)
            raise self._copy_error(push.source_root, [entry for entry, _ in failed], failed[0][1])

    def _batched(
        self, what: str, inputs: Sequence[Mapping[str, Any]], *, group: str, at_once: int, watch: _Watch
    ) -> Sequence[Mapping[str, Any]]:
        """Let rclone do this for each input, and return its answers in the same order; what failed says so in its own.

        Raises: CancelledError, TransportError with `network` after a stall, RcloneError; rclone does nothing of it any more.
        """
        asked = [{"_path": f"operations/{what}", **members} for members in inputs]
        parameters = {"inputs": asked, "concurrency": at_once, "_group": group}
        results: Sequence[Mapping[str, Any]] = self._working("job/batch", parameters, group=group, watch=watch)[
            "results"
        ]
        return results

    def _working(self, path: str, parameters: Mapping[str, Any], *, group: str, watch: _Watch) -> Mapping[str, Any]:
        """Return rclone's answer to a request that may take hours. Raises: as `_batched`."""
        answer: dict[str, Any] = {}

        def ask(requests: Requests, parameters: Mapping[str, Any]) -> None:
            answer.update(requests.call(path, parameters, timeout_s=None))

        try:
            self._supervise([parameters], ask, watch=watch, threads=1)
        except (CancelledError, TransportError, RcloneError):
            self._stop(group)
            raise
        return answer

    @contextlib.contextmanager
    def _listed(self, paths: Iterable[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the filter that lets rclone see these paths and no others."""
        with self._scratch() as folder:
            (folder / "names").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
            yield {"FilesFrom0": [str(folder / "names")]}

    def _forget(self, group: str) -> None:
        with contextlib.suppress(RcloneError, TransportError):
            self._ask("core/stats-delete", group=group)

    def _moved(self, group: str) -> tuple[int, int]:
        """Return bytes and files that rclone says it has moved for this group.

        Raises: RcloneError once any file failed. rclone would try every other one, too, and wait for each of them.
        """
        stats = self._ask("core/stats", group=group)
        if stats.get("errors"):
            raise RcloneError(str(stats.get("lastError") or "rclone gave no reason"))
        return int(stats.get("bytes", 0)), int(stats.get("transfers", 0))

    def _set_rate(self, rate_bytes_per_s: float | None) -> None:
        """Let rclone send at most that fast from now on, what is on its way included."""
        if rate_bytes_per_s != self._rate:
            # One number, not "up:down": rclone keeps to those on network connections only, to this one in every copy.
            rate = "off" if rate_bytes_per_s is None else f"{max(1, int(rate_bytes_per_s))}B"
            self._ask("core/bwlimit", rate=rate)
            self._rate = rate_bytes_per_s

    def _stop(self, group: str) -> None:
        """Return when rclone writes nothing of this group any more; end it when it does not stop by itself."""
        try:
            self._ask("job/stopgroup", group=group)
            deadline = StallWatch(_STOP_WAIT_S, "rclone")
            while self._ask("core/stats", group=group).get("transferring"):
                deadline.saw(None)
                threading.Event().wait(_LOOK_EVERY_S / 2)
        except (RcloneError, TransportError):
            self._daemon.stop()

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        *,
        control: Control,
        instead: Mapping[str, bytes] = NOTHING_ELSE,
    ) -> None:
        with self._answering("Cannot write to", destination):
            for entry in files:
                require_cache_path(entry.path)
            if not files:
                return
            self._clear.discard(destination)
            with self._scratch() as folder:
                inputs = []
                for number, entry in enumerate(files):
                    if control.is_cancelled():
                        raise CancelledError("stopped as asked")
                    (folder / str(number)).write_bytes(bytes_to_place(source_root, entry.path, instead))
                    os.utime(folder / str(number), ns=(entry.mtime_ns, entry.mtime_ns))
                    inputs.append(self._putting(folder, str(number), f"{destination}/{entry.path}", may_replace=True))
                results = list(self._ask("job/batch", inputs=inputs, concurrency=_SMALL_AT_ONCE)["results"])
                # Several that make one new folder at once may get in each other's way over SFTP.
                again = [n for n, result in enumerate(results) if "mkParentDir failed" in str(result.get("error"))]
                if again:
                    more = self._ask("job/batch", inputs=[inputs[n] for n in again], concurrency=1)["results"]
                    for n, result in zip(again, more, strict=True):
                        results[n] = result
            for entry, result in zip(files, results, strict=True):
                if "error" in result:
                    raise RcloneError(f"{entry.path}: {error_in(result)}")
            self._clear.add(destination)

    def write_small(self, path: str, data: bytes) -> None:
        with self._answering("Cannot write", path):
            self._write(path, data, may_replace=True)

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        with self._answering("Cannot move aside in", destination):
            standing = [path for path in map(require_data_path, paths) if self._stands(f"{destination}/{path}")]
            if not standing:
                return
            if not (self._features().get("Move") or self._features().get("Copy")):
                text = f"{self._fs} cannot rename files: move {destination}/{standing[0]} away there, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
            parent = f"{SUPERSEDED_FOLDER}/{destination}"
            taken = {str(item["Name"]) for item in self._list(parent, recurse=False) or ()}
            number = next(n for n in range(1, len(taken) + 2) if str(n) not in taken)
            for path in standing:
                names = _from_to(self._fs, f"{destination}/{path}", self._fs, f"{parent}/{number}/{path}")
                self._ask("operations/movefile", **names)
                # `--ignore-existing` leaves the source where the new name was taken meanwhile.
                if self._stands(f"{destination}/{path}"):
                    raise TransportError(
                        FailureKind.UNKNOWN, f"{destination}/{path} at {self._fs} cannot be moved aside."
                    )

    def clear_partials(self, destination: str) -> None:
        with self._answering("Cannot clean up in", destination):
            if destination in self._clear:  # nothing of ours was stopped there since
                return
            for item in self._list(destination, recurse=True, filters=[f"+ *{PARTIAL_SUFFIX}", "- *"]) or ():
                if not item["IsDir"] and _is_partial(str(item["Path"])):
                    with _unless_missing():
                        self._ask("operations/deletefile", fs=self._fs, remote=item["Path"])
            self._clear.add(destination)

    # --- shared ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _answering(self, doing: str, path: str) -> Iterator[None]:
        """The border: `path` must lie below the root, and what rclone says becomes a TransportError."""
        require_inside(path)
        try:
            yield
        except RcloneError as error:
            detail = error.tail or self._daemon.tail()
            raise TransportError(error.kind, f"{doing} {path!r} at {self._fs}: {error}.", detail=detail) from error

    def _kind_of(self, error: RcloneError, *, needed_bytes: int) -> FailureKind:
        """Return what an error of writing means; some servers have no word for "full", but know how full they are."""
        if error.kind is FailureKind.UNKNOWN:
            free_bytes = self.free_bytes()
            if free_bytes is not None and free_bytes < max(needed_bytes, 1):
                return FailureKind.DESTINATION_FULL
        return error.kind

    def _ask(self, path: str, **parameters: Any) -> dict[str, Any]:
        return Requests(self._daemon).call(path, parameters)

    def _info(self) -> Mapping[str, Any]:
        info = self._daemon.once("operations/fsinfo", {"fs": self._fs})
        assert isinstance(info, dict), "rclone answers with an object"
        return info

    def _features(self) -> Mapping[str, bool]:
        features: Mapping[str, bool] = self._info()["Features"]
        return features

    def _keeps_times(self) -> bool:
        """Whether times are kept well enough to tell something, and are had without another request for each file."""
        return int(self._info()["Precision"]) <= MTIME_TOLERANCE_NS and not self._features().get("SlowModTime")

    def _default_encodings(self) -> Mapping[str, str]:
        providers = self._daemon.once("config/providers", {})["providers"]
        return {
            str(provider["Name"]): str(option["DefaultStr"])
            for provider in providers
            for option in provider["Options"] or ()
            if option["Name"] == "encoding"
        }

    def _list(self, path: str, *, recurse: bool, filters: Sequence[str] = ()) -> Sequence[Listed] | None:
        """Return what is in a folder, None where there is none."""
        options = {"recurse": recurse, "noMimeType": True, "noModTime": not self._keeps_times()}
        parameters: dict[str, Any] = {"fs": self._fs, "remote": path, "opt": options}
        if filters:
            parameters["_filter"] = {"FilterRule": list(filters)}
        try:
            found = Requests(self._daemon).call("operations/list", parameters)["list"]
        except RcloneError as error:
            if error.is_missing:
                return None
            raise
        return found or ()

    def _stands(self, path: str) -> bool:
        return self._ask("operations/stat", fs=self._fs, remote=path).get("item") is not None

    def _read(self, path: str, limit_bytes: int) -> bytes | None:
        try:
            with Requests(self._daemon).reading(path) as response:
                return response.read(limit_bytes)
        except RcloneError as error:
            if error.is_missing:
                return None
            raise

    def _write(self, path: str, data: bytes, *, may_replace: bool) -> None:
        with self._scratch() as folder:
            (folder / "data").write_bytes(data)
            self._ask(**{"path": "operations/copyfile", **self._putting(folder, "data", path, may_replace=may_replace)})

    def _putting(self, folder: Path, name: str, path: str, *, may_replace: bool) -> dict[str, Any]:
        return {
            "_path": "operations/copyfile",
            **_from_to(str(folder), name, self._fs, path),
            "_config": _OVERWRITING if may_replace else {},
        }

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield a folder of our own here, for files that rclone is to send; it is gone afterwards."""
        folder = self._daemon.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    def _supervise(
        self, items: Sequence[Any], work: Callable[[Requests, Any], None], *, watch: _Watch, threads: int
    ) -> None:
        """Do the work for each item in a few threads; cancelled, stalled or failed, break off all of it.

        Raises: what the work raises first, CancelledError, TransportError with `network` for a stall.
        """
        if not items:
            return
        requests = Requests(self._daemon)
        waiting = list(reversed(items))
        is_over = threading.Event()

        def work_off() -> None:
            while not is_over.is_set():
                try:
                    item = waiting.pop()  # takes from the end, and is atomic
                except IndexError:
                    return
                work(requests, item)

        with ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="rclone") as pool:
            futures: set[Future[None]] = {pool.submit(work_off) for _ in range(min(threads, len(items)))}
            try:
                pending = futures
                while pending:
                    ended, pending = wait(pending, timeout=_LOOK_EVERY_S, return_when=FIRST_EXCEPTION)
                    for future in ended:
                        future.result()
                    if pending:
                        watch.look()
            finally:
                is_over.set()
                if any(not future.done() for future in futures):
                    requests.break_off()


class _Watch:
    """The eyes on one piece of work: is it cancelled, does it move, at which rate may it."""

    def __init__(
        self,
        control: Control,
        stall_s: float,
        progress: Callable[[], object],
        set_rate: Callable[[float | None], None],
    ) -> None:
        self._control = control
        self._stall = StallWatch(stall_s, "rclone")
        self._progress = progress
        self._set_rate = set_rate
        self._most = (0, 0)

    def keep_rate(self) -> None:
        self._set_rate(self._control.rate_bytes_per_s())

    def look(self) -> None:
        """Raises: CancelledError, TransportError with `network` after a stall."""
        if self._control.is_cancelled():
            raise CancelledError("stopped as asked")
        self.keep_rate()
        progress = self._progress()
        self._stall.saw(progress)
        if isinstance(progress, tuple):
            # A file that is begun anew counts from its start again: what was reported is not taken back.
            self._most = max(self._most[0], progress[0]), max(self._most[1], progress[1])
            self._control.report(Progress(*self._most))


@dataclass(frozen=True)
class _Push:
    """One push: from where, to which run's folder, under which name rclone counts it, and who watches it."""

    source_root: str
    destination: str
    group: str
    watch: _Watch


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


def _digests_in(answers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return path → SHA-256 of what was hashed; a file that is not there is left out. Raises: RcloneError."""
    found: dict[str, str] = {}
    for path, answer in answers:
        if "error" in answer:
            error = error_in(answer)
            if error.is_missing:
                continue
            raise error
        digest = str(answer.get("hash", ""))
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise RcloneError(f"there is no SHA-256 of {path!r}")
        found[path] = digest
    return found


@contextlib.contextmanager
def _unless_missing() -> Iterator[None]:
    try:
        yield
    except RcloneError as error:
        if not error.is_missing:
            raise


def _from_to(source_fs: str, source: str, target_fs: str, target: str) -> dict[str, str]:
    return {"srcFs": source_fs, "srcRemote": source, "dstFs": target_fs, "dstRemote": target}


def _is_partial(path: str) -> bool:
    return _PARTIAL.fullmatch(path.rpartition("/")[2]) is not None


def _hidden_in(destination: str) -> list[str]:
    place = _GLOB.sub(lambda found: f"\\{found[0]}", destination)
    return [f"- /{place}/{CACHE_FOLDER}/**", f"- /{place}/{PARTIAL_FOLDER}/**"]


def _below(path: str, destination: str) -> str:
    return path.removeprefix(f"{destination}/")


def _nanoseconds(text: str) -> int:
    """Return nanoseconds since the epoch of an RFC 3339 time with up to nine digits after the second."""
    fraction = _FRACTION.search(text)
    whole = datetime.fromisoformat(_FRACTION.sub("", text))
    return int(whole.timestamp()) * 10**9 + (int(fraction[1].ljust(9, "0")[:9]) if fraction else 0)
