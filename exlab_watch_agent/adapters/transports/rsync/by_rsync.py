"""The transport for a server that one reaches by ssh and that runs rsync and nothing else (`rrsync`, a forced command).

Decided here: what rsync alone can do, by which calls, and what is refused because it cannot. Not here: rsync's
calls (rsync_folder.py, program.py), the connection (connection.py), the formats of the agent's own files (own_files.py).

- Files wait in `<root>/.exlab-watch-agent/` while they arrive, and rsync gives each its name once it is whole. What has
  the name already stays (`--ignore-existing`), and is looked for before and after.
- A file that must make room is moved by the same rsync that puts the right one in its place (`--backup`): until then it
  stays where it was, and `listing` leaves it out. Which files these are is known to this object only: after a restart
  they are listed again, and found wrong again.
- Nothing can be removed, so the probe file stays: one small file in `<root>/.exlab-watch-agent/`.
- Nothing creates a file exclusively: of two agents that claim one folder in the same moment both may believe it is
  theirs until they look again, which each does after its data are copied. (`rrsync` lets one rsync in at a time, which
  makes it exclusive.)
- A file that changed while it was sent has its name already when that is noticed; the next push replaces it.
- Hashes are computed here, of the bytes that come back, through a temporary file of at most `stream_bytes_max`.
- Links above a run's folder are the server's affair; in it they are never followed.

One call runs at a time: `rrsync` refuses a second one.

Source: rsync 3.2.7 and 3.5.0 (log.c for how names are printed, generator.c for what `--backup` moves), their rrsync.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from blake3 import blake3

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.digests import BUFFER_BYTES, Pulse, hash_descriptor
from exlab_watch_agent.adapters.transports.rsync.by_shell import nature_of
from exlab_watch_agent.adapters.transports.rsync.connection import SilentConnection
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rsync.program import PushProgress, local_rsync_version
from exlab_watch_agent.adapters.transports.rsync.rsync_folder import (
    NEW,
    OWN_FOLDER,
    SMALL_BYTES_MAX,
    UNHINDERED,
    RsyncEntry,
    RsyncFolder,
    require_plain,
)
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
from exlab_watch_agent.adapters.transports.shared.local_side import (
    bytes_to_place,
    require_sources,
    require_sources_unchanged,
)
from exlab_watch_agent.adapters.transports.shared.marked_root import NOTHING_THERE, MarkedRoot, WhileThere, look_of
from exlab_watch_agent.adapters.transports.shared.own_files import (
    CREATION_PATH,
    MARKER_FILE,
    PARTIAL_FOLDER,
    require_cache_path,
    require_data_path,
    require_inside,
)
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, Claim, DestinationLook
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.core.push_plan import folders_of
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER
from exlab_watch_agent.errors import (
    FailureKind,
    TransportError,
)
from exlab_watch_agent.ports import NOTHING_ELSE, Control, RemoteFile

PORTION_BYTES = 64 * 1024 * 1024
PORTION_FILES = 1000
"""What comes back at once to be hashed: a call costs 50 ms, and the bytes are on our disk meanwhile."""
_SPOKEN = re.compile(r"\[sender|rrsync")


class RsyncOnlyTransport(MarkedRoot):
    """Implements ports.Transport on a folder of a server that allows rsync only; members as those of RsyncSshTransport.

    With `rrsync` the target's `remote_path` counts from the folder that rrsync names.
    """

    def __init__(
        self,
        target: RsyncSshTarget,
        *,
        children: Children,
        owner: str = "",
        socket_folder: Path | None = None,
        stall_s: float = 300.0,
        stream_bytes_max: int = 1 << 30,
        is_metered: bool = True,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(f"{target.host}:{target.remote_path}", clock=clock, settle_s=pace.settle_s)
        self._root = target.remote_path.rstrip("/")
        self._children = children
        login = SshLogin(target.host, target.port, target.key_path, target.known_hosts_path, pace)
        self._connection = SilentConnection(login, children, socket_folder, clock=clock)
        self._folder = RsyncFolder(
            self._name, self._root, login=login, connection=self._connection, children=children, stall_s=stall_s,
            is_metered=is_metered, clock=clock,
        )  # fmt: skip
        self._stream_bytes_max = stream_bytes_max
        suffix = blake3(owner.encode()).hexdigest(8) if owner else secrets.token_hex(8)
        self._probe_path = f"{OWN_FOLDER}/probe-{suffix}"
        self._making_room: dict[str, set[str]] = {}

    def check_tools(self) -> tuple[str, ...]:
        here = local_rsync_version(self._children)
        self._folder.survey([MARKER_FILE])
        return (f"rsync {here} here; the account allows rsync only: files are streamed back to be hashed",)

    def close(self) -> None:
        self._connection.close()

    def is_answering(self) -> bool:
        """Return whether an rsync answers there at all. Raises: TransportError when the server cannot be reached."""
        ended = self._folder.list_call([MARKER_FILE], UNHINDERED, recursive=False)
        return ended.returncode == 0 or _SPOKEN.search(ended.tail) is not None

    # --- is it there -------------------------------------------------------------------------------------------------

    def _read_own(self, path: str) -> bytes | None:
        return self._folder.read([path]).get(path)

    def _place_marker_file(self, data: bytes) -> None:
        self._folder.put({MARKER_FILE: data}, may_replace=False)

    def _place_claim_file(self, destination: str, data: bytes) -> None:
        self._folder.put({f"{destination}/{CLAIM_PATH}": data}, may_replace=False)

    def nature(self) -> Nature:
        return nature_of(self._name)

    def _exchange_a_nonce(self, while_there: WhileThere | None = None) -> bool:
        nonce = secrets.token_hex(16).encode()
        try:
            self._folder.put({self._probe_path: nonce}, may_replace=True)
        except TransportError as error:
            if error.kind is FailureKind.DESTINATION_FULL:
                return False
            raise
        if while_there is not None:
            while_there(self._probe_path, nonce)
        if self._read_own(self._probe_path) != nonce:
            raise TransportError(FailureKind.NETWORK, "what was written is not what is read back")
        return True

    def free_bytes(self) -> int | None:
        return None

    # --- whose is it -------------------------------------------------------------------------------------------------

    def look(self, destination: str) -> DestinationLook:
        require_inside(destination)
        cache = f"{destination}/{CACHE_FOLDER}"
        seen = self._folder.survey([f"{destination}/", f"{cache}/"])
        top = {_first(path, destination) for path in seen if path.startswith(f"{destination}/")} - {PARTIAL_FOLDER}
        if not top or (top == {CACHE_FOLDER} and not any(path.startswith(f"{cache}/") for path in seen)):
            return NOTHING_THERE
        paths = [f"{destination}/{path}" for path in (CLAIM_PATH, CREATION_PATH)]
        own = self._folder.read([path for path in paths if path in seen and seen[path].kind == stat.S_IFREG])
        claim, creation = (own.get(path) for path in paths)
        return look_of(destination, claim=claim, creation=creation)

    def place_claim(self, destination: str, claim: Claim) -> None:
        require_plain(destination)
        super().place_claim(destination, claim)

    # --- what is there -----------------------------------------------------------------------------------------------

    def listing(self, destination: str) -> Mapping[str, RemoteFile]:
        leaving = self._making_room.get(destination, set())
        return {
            path: RemoteFile(entry.size_bytes, entry.mtime_ns)
            for path, entry in self._data_below(destination).items()
            if entry.kind == stat.S_IFREG and path not in leaving
        }

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        path = f"{destination}/{require_inside(relative_path)}"
        require_inside(path)
        # One call for each: of a link that is listed together with what is behind it, rsync says that it is a folder.
        for folder in sorted(f"{destination}/{folder}" for folder in folders_of([relative_path])):
            entry = self._folder.survey([folder]).get(folder)
            if entry is None or entry.kind != stat.S_IFDIR:
                return None
        seen = self._folder.survey([path])
        if path not in seen or seen[path].kind != stat.S_IFREG:
            return None
        if seen[path].size_bytes > max(limit_bytes, SMALL_BYTES_MAX):
            text = f"{path!r} at {self._name} has {seen[path].size_bytes} bytes, more than any file of the agent's."
            raise TransportError(FailureKind.UNKNOWN, text)
        data = self._folder.read([path]).get(path)
        return None if data is None else data[:limit_bytes]

    def samples(
        self,
        destination: str,  # noqa: ARG002
        files: Sequence[FileEntry],  # noqa: ARG002
        *,
        control: Control,  # noqa: ARG002
    ) -> dict[str, str] | None:
        return None

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        for path in paths:
            require_inside(path)
        standing = self._data_below(destination, control)
        leaving = self._making_room.get(destination, set())
        files = [
            (path, standing[path].size_bytes)
            for path in paths
            if path in standing and standing[path].kind == stat.S_IFREG and path not in leaving
        ]
        found: dict[str, str] = {}
        pulse = Pulse(control)
        for portion in portions(files, count_max=PORTION_FILES, bytes_max=PORTION_BYTES, size_bytes_of=itemgetter(1)):
            with self._folder.pulled(
                [f"{destination}/{path}" for path, _ in portion], control, sum(s for _, s in portion)
            ) as at:
                for path, _ in portion:
                    with contextlib.suppress(FileNotFoundError):  # it went away there meanwhile
                        found[path] = _hashed(at / destination / path, pulse)
        pulse.finished()
        return ReadBack(found, HowRead.DOWNLOAD, is_past_cache=True)

    def digest_bytes_max(self) -> int | None:
        return self._stream_bytes_max

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        for entry in files:
            require_data_path(entry.path)
        require_plain(require_inside(destination))
        if not files:
            return
        standing = self._data_below(destination, control)
        leaving = self._making_room.get(destination, set()) & standing.keys()
        self._require_free(files, {path: entry for path, entry in standing.items() if path not in leaving}, destination)
        require_sources(source_root, files)
        self._folder.make_folders([OWN_FOLDER, destination])
        progress = PushProgress(control)
        try:
            new = [entry for entry in files if entry.path not in leaving]
            self._push(source_root, new, destination, ["--ignore-existing"], control, progress)
            replaced = [entry for entry in files if entry.path in leaving]
            if replaced:
                aside = f"{self._root}/{self._numbered_folder(destination)}"
                self._push(
                    source_root, replaced, destination, ["-I", "--backup", f"--backup-dir={aside}"], control, progress
                )
        except TransportError:
            require_sources(source_root, files)  # one that is gone or changed is the reason, whatever rsync said
            raise
        arrived = self._data_below(destination, control)
        for entry in files:
            there = arrived.get(entry.path)
            if there is None or (there.kind, there.size_bytes) != (stat.S_IFREG, entry.size_bytes):
                require_sources_unchanged(source_root, files)
                raise TransportError(FailureKind.UNKNOWN, self._odd(entry.path, destination))
        self._making_room.get(destination, set()).difference_update(entry.path for entry in files)
        require_sources_unchanged(source_root, files)
        self._require_own_claim(destination)

    def _push(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        options: Sequence[str],
        control: Control,
        progress: PushProgress,
    ) -> None:
        if files:
            self._folder.run(
                [*NEW, *options, f"--temp-dir={self._root}/{OWN_FOLDER}"], f"{source_root}/",
                self._folder.address(f"{destination}/."), [entry.path for entry in files], control, progress.report,
            )  # fmt: skip
            progress.finish(files)

    def _require_free(self, files: Sequence[FileEntry], standing: Mapping[str, RsyncEntry], destination: str) -> None:
        for entry in files:
            if entry.path in standing:
                raise TransportError(FailureKind.UNKNOWN, self._odd(entry.path, destination))
        for path in folders_of(entry.path for entry in files):
            if path in standing and standing[path].kind != stat.S_IFDIR:
                text = (
                    f"{path!r} in {destination!r} is a link or a file where a folder must be: move it away, then retry."
                )
                raise TransportError(FailureKind.UNKNOWN, text)

    def _odd(self, path: str, destination: str) -> str:
        return (
            f"Cannot write {path!r} in {destination!r} at {self._name}: something of that name, or of one that the server "
            "takes for the same, exists already and is never replaced. Rename one of them, then retry."
        )

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        *,
        control: Control,
        instead: Mapping[str, bytes] = NOTHING_ELSE,
    ) -> None:
        for entry in files:
            require_cache_path(entry.path)
        require_inside(destination)
        small = {f"{destination}/{e.path}": bytes_to_place(source_root, e.path, instead) for e in files}
        if small:
            self._folder.put(small, may_replace=True, control=control)

    def write_small(self, path: str, data: bytes) -> None:
        self._folder.put({require_inside(path): data}, may_replace=True)

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        wanted = [require_data_path(path) for path in paths]
        standing = self._data_below(destination)
        moving = {path for path in wanted if path in standing}
        for path in moving:
            if standing[path].kind not in (stat.S_IFREG, stat.S_IFLNK):
                text = f"{destination}/{path} at {self._name} is not a regular file: move it away there, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
        self._making_room.setdefault(destination, set()).update(moving)

    def clear_partials(self, destination: str) -> None:
        """Nothing: rsync removes what it leaves unfinished, and no other thing can be removed."""
        require_inside(destination)

    # --- by rsync ----------------------------------------------------------------------------------------------------

    def _data_below(self, destination: str, control: Control = UNHINDERED) -> dict[str, RsyncEntry]:
        """Return what is in a run's folder, by paths relative to it; the cache folder and our own are left out."""
        require_inside(destination)
        seen = self._folder.survey([destination], control, recursive=True)
        if destination in seen and seen[destination].kind != stat.S_IFDIR:
            text = (
                f"{destination!r} at {self._name} is a link or a file where a folder must be: move it away, then retry."
            )
            raise TransportError(FailureKind.UNKNOWN, text)
        below = {
            path.removeprefix(f"{destination}/"): e for path, e in seen.items() if path.startswith(f"{destination}/")
        }
        return {path: e for path, e in below.items() if path.split("/")[0] not in (CACHE_FOLDER, PARTIAL_FOLDER)}

    def _numbered_folder(self, destination: str) -> str:
        """Return the first numbered folder for what must make room that is not there. Only this run's agent makes any."""
        parent = f"{SUPERSEDED_FOLDER}/{destination}"
        seen = self._folder.survey([f"{parent}/"])
        return next(f"{parent}/{n}" for n in range(1, len(seen) + 2) if f"{parent}/{n}" not in seen)


def _first(path: str, destination: str) -> str:
    return path.removeprefix(f"{destination}/").split("/")[0]


def _hashed(path: Path, pulse: Pulse) -> str:
    with path.open("rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        found = hash_descriptor(file.fileno(), size_bytes, memoryview(bytearray(BUFFER_BYTES)), pulse.moved)
    pulse.finished_file()
    return found
