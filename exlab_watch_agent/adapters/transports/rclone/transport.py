"""The transport for whatever rclone can reach: SFTP, SMB, WebDAV, FTP, S3 and the rest.

Decided here: what is at the destination, and when a name or a file cannot be brought. Not here: which requests
bring it there (uploads.py), what proves it (proof.py), which of a backend's answers are believed (remote.py), the running
rclone (daemon.py, jobs.py), the operator's config (config.py), the formats of the agent's own files (own_files.py).

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

Source: rclone 1.75 (fs/operations, fs/rc), and docs/facts.md, rclone, for what it silently leaves undone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from blake3 import blake3

from exlab_watch_agent.adapters.children.process import STALL_S, Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
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
from exlab_watch_agent.adapters.transports.shared.local_side import bytes_to_place, require_sources
from exlab_watch_agent.adapters.transports.shared.marked_root import NOTHING_THERE, MarkedRoot, WhileThere, look_of
from exlab_watch_agent.adapters.transports.shared.own_files import (
    CREATION_PATH,
    MARKER_FILE,
    PARTIAL_FOLDER,
    PROBE_PREFIX,
    arrived_under_another_name,
    require_cache_path,
    require_data_path,
    require_inside,
)
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, DestinationLook
from exlab_watch_agent.core.gate import folded
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER
from exlab_watch_agent.errors import (
    AgentError,
    CancelledError,
    DestinationUnreachableError,
    FailureKind,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import NOTHING_ELSE, Control, Progress, RemoteFile

_OVERWRITING = {"IgnoreExisting": False, "IgnoreTimes": True}


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
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        daemon = RcloneDaemon(target, children, pace=pace, clock=clock)
        super().__init__(daemon.fs, clock=clock, settle_s=pace.settle_s)
        self._fs = daemon.fs
        self._remote = Remote(daemon)
        self._jobs = Jobs(self._remote, stall_s=stall_s, pace=pace, clock=clock)
        self._proof = Proof(
            self._remote, self._jobs, sampled_bytes_min=sampled_bytes_min, stream_bytes_max=stream_bytes_max
        )
        self._uploads = Uploads(
            self._remote, self._jobs, batch_files=batch_files, batch_bytes=batch_bytes, large_bytes=large_bytes
        )
        self._probe_name = PROBE_PREFIX + (blake3(owner.encode()).hexdigest(8) if owner else secrets.token_hex(8))
        self._probing = threading.Lock()
        self._clear: set[str] = set()

    def check_tools(self) -> tuple[str, ...]:
        program = rclone_program()
        status = os.stat(program)
        version = rclone_version(program, (status.st_ino, status.st_mtime_ns))
        return (f"rclone {version} ({program})", *self._remote.daemon.config.notes())

    def close(self) -> None:
        self._remote.daemon.close()

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
                    f"[{self._remote.daemon.remote}] in {self._remote.daemon.config_path}, or its rights there."
                )
            case FailureKind.NETWORK:
                return f"{self._fs} cannot be reached: {why}. Look whether it is switched on, and at the network."
            case _:
                return self._away(why)

    def nature(self) -> Nature:
        try:
            types = self._remote.daemon.config.leaf_types
        except TransportError as error:
            raise DestinationUnreachableError(str(error)) from error
        why = "" if "local" in types else f"the remote {self._remote.daemon.remote} leads to another machine"
        return Nature(f"rclone {'+'.join(sorted(types))}", self._fs, why)

    def _require_folder(self) -> None:
        """Return when the root is there. Where folders are only parts of names, that is: the bucket."""
        if self._remote.entries("", recurse=False) is None:
            raise DestinationUnreachableError(self._away("there is no such folder"))

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
                    if self._remote.kind_of(error, needed_bytes=len(nonce)) is FailureKind.DESTINATION_FULL:
                        return False
                    raise
                if while_there is not None:
                    while_there(self._probe_name, nonce)
                if self._remote.read_own(self._probe_name) != nonce:
                    raise RcloneError("what was written is not what is read back")
            finally:
                with contextlib.suppress(RcloneError):  # there is none; one that stays is taken by the next probe
                    self._remote.ask("operations/deletefile", fs=self._fs, remote=self._probe_name)
        return True

    def free_bytes(self) -> int | None:
        return self._remote.free_bytes()

    def _read_own(self, path: str) -> bytes | None:
        return self._remote.read_own(path)

    def top_names(self) -> tuple[str, ...] | None:
        with self._reached():
            return tuple(sorted(str(item["Name"]) for item in self._remote.entries("", recurse=False) or ()))

    # --- whose is it -------------------------------------------------------------------------------------------------

    def look(self, destination: str) -> DestinationLook:
        with self._answering("Cannot look at", destination):
            top = self._remote.entries(destination, recurse=False) or ()
            names = {str(item["Name"]) for item in top} - {PARTIAL_FOLDER}
            if not names or (
                names == {CACHE_FOLDER} and not self._remote.entries(f"{destination}/{CACHE_FOLDER}", recurse=False)
            ):
                return NOTHING_THERE
            return look_of(
                destination,
                claim=self._remote.read_own(f"{destination}/{CLAIM_PATH}"),
                creation=self._remote.read_own(f"{destination}/{CREATION_PATH}"),
            )

    # --- what is there -----------------------------------------------------------------------------------------------

    def listing(self, destination: str) -> Mapping[str, RemoteFile]:
        with self._answering("Cannot list", destination):
            return self._remote.files(destination)

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        with self._answering("Cannot read from", destination):
            return self._remote.read(f"{destination}/{require_inside(relative_path)}", limit_bytes)

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        with self._answering("Cannot read from", destination):
            return self._proof.samples(destination, files, control=control)

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        with self._answering("Cannot read from", destination):
            return self._proof.read_back(destination, paths, control=control)

    def digest_bytes_max(self) -> int | None:
        with self._answering("Cannot ask what it can hash:", "x"):
            return self._proof.digest_bytes_max()

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        with self._answering("Cannot write to", destination):
            self._require_names(files)
            self._require_own_claim(destination)
            standing = self._remote.files(destination) if files else {}
            for entry in files:
                if entry.path in standing:
                    raise self._uploads.taken(destination, entry)
            require_sources(source_root, files)
            self._clear.discard(destination)
            try:
                self._uploads.copy_all(source_root, files, destination, control)
                require_sources(source_root, files)
            except (SourceChangedError, TransportError):
                self._withdraw(source_root, files, destination)
                raise
            self._require_own_claim(destination)
            self._require_apart([*standing, *(entry.path for entry in files)], destination)
            self._clear.add(destination)
            control.report(Progress(sum(entry.size_bytes for entry in files), len(files)))

    def _require_apart(self, paths: Sequence[str], destination: str) -> None:
        """Return when no two of these names are one to the server's disk, of which its protocol says nothing."""
        if len({folded(path) for path in paths}) < len(paths):
            arrived = self._remote.files(destination)
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
        """Refuse what would have another name there, or could not be beside another one. Raises: TransportError."""
        changed = self._remote.daemon.config.changed_names(self._remote.default_encodings())
        seen: dict[str, str] = {}
        for entry in files:
            path = require_data_path(entry.path)
            if any(changed.search(part) for part in path.split("/")) or is_partial(path):
                text = f"{path!r} cannot have that name at {self._fs}, rclone would change it. Rename it, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
            if self._remote.features().get("CaseInsensitive") and seen.setdefault(folded(path), path) != path:
                text = f"{path!r} and {seen[folded(path)]!r} are one name at {self._fs}. Rename one, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)

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
            with self._jobs.scratch() as folder:
                inputs = []
                for number, entry in enumerate(files):
                    if control.is_cancelled():
                        raise CancelledError("stopped as asked")
                    (folder / str(number)).write_bytes(bytes_to_place(source_root, entry.path, instead))
                    os.utime(folder / str(number), ns=(entry.mtime_ns, entry.mtime_ns))
                    inputs.append(self._putting(folder, str(number), f"{destination}/{entry.path}", may_replace=True))
                results = list(self._remote.ask("job/batch", inputs=inputs, concurrency=SMALL_AT_ONCE)["results"])
                # Several that make one new folder at once may get in each other's way over SFTP, or not find their file in it.
                again = [n for n, result in enumerate(results) if met_another(result)]
                if again:
                    more = self._remote.ask("job/batch", inputs=[inputs[n] for n in again], concurrency=1)["results"]
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
            standing = [path for path in map(require_data_path, paths) if self._remote.exists(f"{destination}/{path}")]
            if not standing:
                return
            if not (self._remote.features().get("Move") or self._remote.features().get("Copy")):
                text = f"{self._fs} cannot rename files: move {destination}/{standing[0]} away there, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
            parent = f"{SUPERSEDED_FOLDER}/{destination}"
            taken = {str(item["Name"]) for item in self._remote.entries(parent, recurse=False) or ()}
            number = next(n for n in range(1, len(taken) + 2) if str(n) not in taken)
            for path in standing:
                names = from_to(self._fs, f"{destination}/{path}", self._fs, f"{parent}/{number}/{path}")
                self._remote.ask("operations/movefile", **names)
                # `--ignore-existing` leaves the source where the new name was taken meanwhile.
                if self._remote.exists(f"{destination}/{path}"):
                    raise TransportError(
                        FailureKind.UNKNOWN, f"{destination}/{path} at {self._fs} cannot be moved aside."
                    )

    def clear_partials(self, destination: str) -> None:
        with self._answering("Cannot clean up in", destination):
            if destination in self._clear:  # nothing of ours was stopped there since
                return
            for item in self._remote.entries(destination, recurse=True, filters=[f"+ *{PARTIAL_SUFFIX}", "- *"]) or ():
                if not item["IsDir"] and is_partial(str(item["Path"])):
                    with unless_missing():
                        self._remote.ask("operations/deletefile", fs=self._fs, remote=item["Path"])
            self._clear.add(destination)

    # --- shared ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _answering(self, doing: str, path: str) -> Iterator[None]:
        """The border: `path` must lie below the root, and what rclone says becomes a TransportError."""
        require_inside(path)
        try:
            yield
        except RcloneError as error:
            detail = error.tail or self._remote.daemon.tail()
            raise TransportError(error.kind, f"{doing} {path!r} at {self._fs}: {error}.", detail=detail) from error

    def _write(self, path: str, data: bytes, *, may_replace: bool) -> None:
        with self._jobs.scratch() as folder:
            (folder / "data").write_bytes(data)
            self._remote.ask(
                **{"path": "operations/copyfile", **self._putting(folder, "data", path, may_replace=may_replace)}
            )

    def _putting(self, folder: Path, name: str, path: str, *, may_replace: bool) -> dict[str, Any]:
        return {
            "_path": "operations/copyfile",
            **from_to(str(folder), name, self._fs, path),
            "_config": _OVERWRITING if may_replace else {},
        }
