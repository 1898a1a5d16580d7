"""The way to whatever rclone can reach: SFTP, SMB, WebDAV, FTP, S3 and the rest.

Decided here: which names rclone can bring unchanged, and how small files get there and back. Not here: what may be written
there and why (destination.py), which requests bring a push's files (uploads.py), what proves them (proof.py), which of a
backend's answers are believed (remote.py), the running rclone (daemon.py, jobs.py), the operator's config (config.py).

What rclone is asked for: to list, read, hash and copy; to move, only a file that must make room and the agent's own;
to delete, only probe and partial files of the agent by their exact names. Never sync, purge, delete or cleanup.

- A file is copied to a name that nothing has. Where the backend can rename, rclone writes `<name>.<8 hex>.exlab-partial`
  beside it and renames the whole file; object stores show only whole ones. For WebDAV, where rclone writes under the
  final name, the agent does the same with names of its own. Some wrapper may still show a part under the final name after
  a cut: its size shows it to the next push, and its hash to the verifier.
- Somebody else's file may come under a name while a push runs, and most backends replace what a rename or an upload
  meets. So names are looked for as late as rclone can (`--ignore-existing`): of small files when their batch begins, which
  is bounded by files and bytes; of a large one between its copy to a name of our own and its move. The push then fails.
- Nothing that rclone offers creates a file exclusively.
- rclone's own comparison of hashes after a copy is off: it reads large files whole once more, in which time no byte
  seems to move, and proves less than the verifier's SHA-256 of what is stored, without which nothing counts as synced.
- rclone asks no server to sync to its disk. What was copied may be only in the server's memory for a while.
- Links on the server are the server's affair: rclone follows or hides them as the backend does.

Source: rclone 1.75 (fs/operations, fs/rc), and docs/facts.md, rclone, for what it silently leaves undone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.children.process import STALL_S, Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.far_side import (
    NO_LAG,
    Capabilities,
    Exchanged,
    FarSide,
    FolderLook,
    Lag,
    Listing,
    Shipment,
    cannot_be_used,
    holds_nothing,
)
from exlab_watch_agent.adapters.transports.rclone.daemon import (
    PARTIAL_SUFFIX,
    RcloneDaemon,
    rclone_program,
    rclone_version,
)
from exlab_watch_agent.adapters.transports.rclone.errors import RcloneError, error_in, met_another
from exlab_watch_agent.adapters.transports.rclone.jobs import Jobs
from exlab_watch_agent.adapters.transports.rclone.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rclone.proof import SAMPLED_BYTES_MIN, Proof
from exlab_watch_agent.adapters.transports.rclone.remote import Remote, from_to, is_partial, unless_missing
from exlab_watch_agent.adapters.transports.rclone.uploads import (
    BATCH_BYTES,
    BATCH_FILES,
    LARGE_BYTES,
    SMALL_AT_ONCE,
    Uploads,
)
from exlab_watch_agent.adapters.transports.shared.local_side import bytes_to_place
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.gate import folded
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_PATH, FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.errors import (
    CancelledError,
    DestinationUnreachableError,
    FailureKind,
    TransportError,
)
from exlab_watch_agent.ports import Control

_OVERWRITING = {"IgnoreExisting": False, "IgnoreTimes": True}

LISTS_AT_ONCE = frozenset({"local"})
"""Types of remotes whose listing is what is on the disk. Of a server nobody knows what writes behind it, SFTP and SMB included."""


class RcloneFarSide(FarSide):
    """Implements FarSide on a remote of an operator's rclone.conf.

    `children`: keeps the process; None for one of its own. `stall_s`: a piece of work that moves no byte for that long is
    ended with the process. `sampled_bytes_min`: of less than that in all no blocks are compared. `batch_files`,
    `batch_bytes`, `large_bytes`: as BATCH_FILES, BATCH_BYTES and LARGE_BYTES say. `remote` is what it works with.
    """

    likely_cause = "The share may not be mounted there."
    foreign = (RcloneError,)

    def __init__(
        self,
        target: RcloneTarget,
        *,
        children: Children | None = None,
        stall_s: float = STALL_S,
        sampled_bytes_min: int = SAMPLED_BYTES_MIN,
        batch_files: int = BATCH_FILES,
        batch_bytes: int = BATCH_BYTES,
        large_bytes: int = LARGE_BYTES,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        daemon = RcloneDaemon(target, children, pace=pace, clock=clock)
        self.name = self._fs = daemon.fs
        self.can = Capabilities(sampled_from_bytes=sampled_bytes_min, settle_s=pace.settle_s)
        self._lag = Lag(pace.lag_s, pace.lag_look_every_s)
        self.remote = Remote(daemon)
        self._jobs = Jobs(self.remote, stall_s=stall_s, pace=pace, clock=clock)
        self._proof = Proof(self.remote, self._jobs)
        self._uploads = Uploads(
            self.remote, self._jobs, batch_files=batch_files, batch_bytes=batch_bytes, large_bytes=large_bytes
        )

    def check_tools(self) -> tuple[str, ...]:
        program = rclone_program()
        status = os.stat(program)
        version = rclone_version(program, (status.st_ino, status.st_mtime_ns))
        return (f"rclone {version} ({program})", *self.remote.daemon.config.notes())

    def close(self) -> None:
        self.remote.daemon.close()

    # --- errors ------------------------------------------------------------------------------------------------------

    def translated(self, error: Exception, doing: str) -> TransportError:
        assert isinstance(error, RcloneError), "the only foreign one"
        return TransportError(error.kind, f"{doing}: {error}.", detail=error.tail or self.remote.daemon.tail())

    def away(self, error: Exception) -> str:
        if not isinstance(error, RcloneError):  # a sentence already, of a program or a config of ours
            return str(error)
        why = str(error).rstrip(".")
        match error.kind:
            case FailureKind.AUTH:
                return (
                    f"{self._fs} does not let us in: {why}. Correct the user, password, key or known_hosts of "
                    f"[{self.remote.daemon.remote}] in {self.remote.daemon.config_path}, or its rights there."
                )
            case FailureKind.NETWORK:
                return f"{self._fs} cannot be reached: {why}. Look whether it is switched on, and at the network."
            case _:
                return cannot_be_used(self, why)

    # --- the root ----------------------------------------------------------------------------------------------------

    def nature(self) -> Nature:
        try:
            types = self.remote.daemon.config.leaf_types
        except TransportError as error:
            raise DestinationUnreachableError(str(error)) from error
        why = "" if "local" in types else f"the remote {self.remote.daemon.remote} leads to another machine"
        return Nature(f"rclone {'+'.join(sorted(types))}", self._fs, why)

    def require_root(self) -> None:
        """Return when the root is there. Where folders are only parts of names, that is: the bucket."""
        if self.remote.entries("", recurse=False) is None:
            raise DestinationUnreachableError(cannot_be_used(self, "there is no such folder"))

    def free_bytes(self) -> int | None:
        return self.remote.free_bytes()

    def top_names(self) -> Iterable[str] | None:
        return self._names("")

    def exchange(
        self,
        path: str,
        data: bytes,
        *,
        mtime_ns: int,  # noqa: ARG002  (rclone says beforehand which times are kept)
        while_there: Callable[[], None] | None,
    ) -> Exchanged:
        try:
            self._write_if_there_is_room(path, data)
            if while_there is not None:
                while_there()
            return Exchanged(self.remote.read_own(path))
        finally:
            with contextlib.suppress(RcloneError):  # there is none; one that stays is taken by the next probe
                self.remote.ask("operations/deletefile", fs=self._fs, remote=path)

    def _write_if_there_is_room(self, path: str, data: bytes) -> None:
        try:
            self.put(path, data)
        except RcloneError as error:
            if self.remote.kind_of(error, needed_bytes=len(data)) is not FailureKind.DESTINATION_FULL:
                raise
            raise RcloneError(str(error), kind=FailureKind.DESTINATION_FULL, tail=error.tail) from error

    def _names(self, folder: str) -> set[str]:
        return {str(item["Name"]) for item in self.remote.entries(folder, recurse=False) or ()}

    # --- what is there -----------------------------------------------------------------------------------------------

    def look(self, folder: str) -> FolderLook:
        if holds_nothing(self._names(folder), lambda: self._names(f"{folder}/{CACHE_FOLDER}")):
            return FolderLook(is_empty=True)
        claim, creation = (self.read_own(f"{folder}/{path}") for path in (CLAIM_PATH, CREATION_PATH))
        return FolderLook(False, claim, creation)

    def list(self, folder: str, control: Control) -> Listing:  # noqa: ARG002
        return Listing(self.remote.files(folder))

    def lag(self) -> Lag:
        at_once = self.remote.daemon.config.leaf_types <= LISTS_AT_ONCE
        return NO_LAG if at_once else self._lag

    def read_own(self, path: str) -> bytes | None:
        return self.remote.read_own(path)

    def read_below(self, folder: str, path: str, limit_bytes: int) -> bytes | None:
        return self.remote.read(f"{folder}/{path}", limit_bytes)

    def samples(self, folder: str, files: Sequence[FileEntry], control: Control) -> dict[str, str]:
        return self._proof.samples(folder, files, control)

    def read_back(self, folder: str, paths: Sequence[str], control: Control) -> ReadBack:
        return self._proof.read_back(folder, paths, control)

    def hashes_any_size(self) -> bool:
        return self._proof.hashes_any_size()

    # --- writing -----------------------------------------------------------------------------------------------------

    def require_fit(self, folder: str, files: Sequence[FileEntry]) -> None:  # noqa: ARG002
        """Refuse what would have another name there, or could not be beside another one. Raises: TransportError."""
        changed = self.remote.daemon.config.changed_names(self.remote.default_encodings())
        folds = self.remote.features().get("CaseInsensitive")
        seen: dict[str, str] = {}
        for entry in files:
            path = entry.path
            if any(changed.search(part) for part in path.split("/")) or is_partial(path):
                text = f"{path!r} cannot have that name at {self._fs}, rclone would change it. Rename it, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
            if folds and seen.setdefault(folded(path), path) != path:
                text = f"{path!r} and {seen[folded(path)]!r} are one name at {self._fs}. Rename one, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)

    def send(self, shipment: Shipment) -> None:
        self._uploads.copy_all(shipment)

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        folder: str,
        *,
        control: Control,
        instead: Mapping[str, bytes],
    ) -> None:
        with self._jobs.scratch() as scratch:
            inputs = []
            for number, entry in enumerate(files):
                if control.is_cancelled():
                    raise CancelledError("stopped as asked")
                (scratch / str(number)).write_bytes(bytes_to_place(source_root, entry.path, instead))
                os.utime(scratch / str(number), ns=(entry.mtime_ns, entry.mtime_ns))
                inputs.append(self._putting(scratch, str(number), f"{folder}/{entry.path}", may_replace=True))
            results = list(self.remote.ask("job/batch", inputs=inputs, concurrency=SMALL_AT_ONCE)["results"])
            # Several that make one new folder at once may get in each other's way over SFTP, or not find their file in it.
            again = [n for n, result in enumerate(results) if met_another(result)]
            if again:
                more = self.remote.ask("job/batch", inputs=[inputs[n] for n in again], concurrency=1)["results"]
                for n, result in zip(again, more, strict=True):
                    results[n] = result
        for entry, result in zip(files, results, strict=True):
            if "error" in result:
                raise RcloneError(f"{entry.path}: {error_in(result)}")

    def put_new(self, path: str, data: bytes, *, temporary: str, is_lasting: bool) -> bool:  # noqa: ARG002
        self._write(path, data, may_replace=False)
        return True  # as far as can be told

    def put(self, path: str, data: bytes) -> None:
        self._write(path, data, may_replace=True)

    def _write(self, path: str, data: bytes, *, may_replace: bool) -> None:
        with self._jobs.scratch() as folder:
            (folder / "data").write_bytes(data)
            self.remote.ask(
                **{"path": "operations/copyfile", **self._putting(folder, "data", path, may_replace=may_replace)}
            )

    def _putting(self, folder: Path, name: str, path: str, *, may_replace: bool) -> dict[str, Any]:
        return {
            "_path": "operations/copyfile",
            **from_to(str(folder), name, self._fs, path),
            "_config": _OVERWRITING if may_replace else {},
        }

    # --- making room -------------------------------------------------------------------------------------------------

    def present(self, folder: str, paths: Sequence[str]) -> Sequence[str]:
        found = [path for path in paths if self.remote.exists(f"{folder}/{path}")]
        if found and not (self.remote.features().get("Move") or self.remote.features().get("Copy")):
            text = f"{self._fs} cannot rename files: move {folder}/{found[0]} away there, then retry."
            raise TransportError(FailureKind.UNKNOWN, text)
        return found

    def new_numbered(self, parent: str) -> str:
        taken = self._names(parent)
        return next(f"{parent}/{n}" for n in range(1, len(taken) + 2) if str(n) not in taken)

    def move(self, from_folder: str, to_folder: str, paths: Sequence[str]) -> None:
        for path in paths:
            names = from_to(self._fs, f"{from_folder}/{path}", self._fs, f"{to_folder}/{path}")
            self.remote.ask("operations/movefile", **names)
            # `--ignore-existing` leaves the source where the new name was taken meanwhile.
            if self.remote.exists(f"{from_folder}/{path}"):
                text = f"{from_folder}/{path} at {self._fs} cannot be moved aside."
                raise TransportError(FailureKind.UNKNOWN, text)

    def clear_partials(self, folder: str) -> None:
        for item in self.remote.entries(folder, recurse=True, filters=[f"+ *{PARTIAL_SUFFIX}", "- *"]) or ():
            if not item["IsDir"] and is_partial(str(item["Path"])):
                with unless_missing():
                    self.remote.ask("operations/deletefile", fs=self._fs, remote=item["Path"])
