"""The transport for a server that one reaches by ssh: rsync moves the data, a shell on the target does all else.

Decided here: what is at the destination, the order of a push, and what proves that the target is the one that is
meant. Not here: the connection (connection.py), the scripts (target_folder.py), rsync's options (program.py), the
formats of the agent's own files (own_files.py), whose folder it is and what is copied (core).

A push, for each portion of the files:

1. the local files are those of the list;
2. rsync copies them into `<destination>/.exlab-partial/<16 hex>.push/`, a folder made for it a moment ago;
3. what is in there has every name and size of the list, and the local files are still those of the list;
4. one `mv -n` for each folder gives them their final names, which nothing else has.

So rsync never sees a file of ours or of others, never replaces one, and cannot nest a folder; what changed while it was
read never gets a name; and an rsync of a push that was cut off, which may live on at the target for a while, writes into
a folder that the next push removes, and can then give nothing a name.

Nothing is deleted but temporary and probe files of the agent.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from blake3 import blake3

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.rsync.connection import SshConnection
from exlab_watch_agent.adapters.transports.rsync.hashing import Hashing
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rsync.program import PushProgress, Rsync, local_rsync_version
from exlab_watch_agent.adapters.transports.rsync.sampler import Sampler
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
from exlab_watch_agent.adapters.transports.rsync.staged_push import StagedPush, own_folder, taken
from exlab_watch_agent.adapters.transports.rsync.target_entries import TargetEntry
from exlab_watch_agent.adapters.transports.rsync.target_errors import classified_target
from exlab_watch_agent.adapters.transports.rsync.target_folder import (
    PIECE_KEPT_BYTES,
    TargetFolder,
    checking,
    data_below,
)
from exlab_watch_agent.adapters.transports.shared.local_side import (
    as_it_is,
    bytes_to_place,
)
from exlab_watch_agent.adapters.transports.shared.marked_root import MarkedRoot, WhileThere, look_of
from exlab_watch_agent.adapters.transports.shared.own_files import (
    CREATION_PATH,
    MARKER_FILE,
    OWN_FILE_BYTES_MAX,
    PROBE_PREFIX,
    require_cache_path,
    require_data_path,
    require_inside,
)
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, DestinationLook
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS, folders_of
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER
from exlab_watch_agent.errors import (
    FailureKind,
    TransportError,
)
from exlab_watch_agent.ports import NOTHING_ELSE, Control, RemoteFile

PORTION_BYTES = 512 * 1024 * 1024
PORTION_FILES = 10_000
"""What is lost at most when a push is cut off. A portion costs one start of rsync, 60 ms."""
SAMPLED_FROM_BYTES = 256 * 1024 * 1024
"""Each sampled block is a program started on the target: below this size the verification itself costs less."""
_ASKED_BYTES_MAX = 1024 * 1024
_ASKED_NULS_MAX = 1000
_PROBE_MTIME_S = 1_000_000_000
_PROBE_MTIME_TEXT = "200109090146.40"
_UNHINDERED = Control()


class RsyncSshTransport(MarkedRoot):
    """Implements ports.Transport on a folder of a server with a shell.

    `owner`: as in MountedPathTransport. `is_metered`: whether a bandwidth limit may come into force; where it never can,
    the data take the shorter way. `children`: without it the transport has its own, ended by `close`.
    `piece_kept_bytes`: as PIECE_KEPT_BYTES says.
    """

    def __init__(
        self,
        target: RsyncSshTarget,
        *,
        owner: str = "",
        children: Children | None = None,
        socket_folder: Path | None = None,
        stall_s: float = 300.0,
        stream_bytes_max: int = 1 << 30,
        is_metered: bool = True,
        sampled_from_bytes: int = SAMPLED_FROM_BYTES,
        piece_kept_bytes: int = PIECE_KEPT_BYTES,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(f"{target.host}:{target.remote_path}", clock=clock)
        self._piece_kept_bytes = piece_kept_bytes
        self._root = target.remote_path
        self._own_children = Children() if children is None else None
        self._children = children or self._own_children or Children()
        login = SshLogin(target.host, target.port, target.key_path, target.known_hosts_path, pace)
        self._connection = SshConnection(login, self._children, socket_folder, clock=clock)
        self._rsync = Rsync(self._children, login, stall_s, is_metered)
        self._hashing = Hashing(self._connection, self._folder)
        self._stream_bytes_max = stream_bytes_max
        self._sampled_from_bytes = sampled_from_bytes
        self._probe_name = PROBE_PREFIX + (blake3(owner.encode()).hexdigest(8) if owner else secrets.token_hex(8))
        self._probing = threading.Lock()
        self._keeps_times = True

    def check_tools(self) -> tuple[str, ...]:
        here = local_rsync_version(self._children)
        tools = self._connection.tools()
        if not tools.rsync_version:
            text = f"There is no rsync on {self._connection.login.target}: install it there, then retry."
            raise TransportError(FailureKind.BINARY_MISSING, text)
        hasher = (
            f"SHA-256 there by {tools.hasher[0]}"
            if tools.hasher
            else "no SHA-256 there: files are streamed back to be hashed"
        )
        return (f"rsync {here} here, {tools.rsync_version} on the target; {hasher}",)

    def require_shell(self) -> None:
        """Raises: NoShellError when the account runs no command of ours; TransportError when the server cannot be reached."""
        self._connection.tools()

    def close(self) -> None:
        self._connection.close()
        if self._own_children is not None:
            self._own_children.close()

    # --- is it there -------------------------------------------------------------------------------------------------

    def _read_own(self, path: str) -> bytes | None:
        with self._folder() as folder:
            return folder.read(path, OWN_FILE_BYTES_MAX)

    def _place_marker_file(self, data: bytes) -> None:
        with self._folder() as folder:
            folder.place_new(MARKER_FILE, data)
            folder.sync()

    def _place_claim_file(self, destination: str, data: bytes) -> None:
        with self._folder() as folder:
            folder.place_new(f"{destination}/{CLAIM_PATH}", data)

    def nature(self) -> Nature:
        return nature_of(self._name)

    def _exchange_a_nonce(self, while_there: WhileThere | None = None) -> bool:
        nonce = secrets.token_hex(16).encode()
        with self._probing, self._folder() as folder:
            try:
                if while_there is not None:
                    folder.put(self._probe_name, nonce)
                    while_there(self._probe_name, nonce)
            except TransportError as error:
                if error.kind is FailureKind.DESTINATION_FULL:
                    return False
                raise
            finally:  # it takes away what was put there
                found = folder.exchange(self._probe_name, nonce, mtime_text=_PROBE_MTIME_TEXT)
        if found is None:
            return False
        if found[0] != nonce:
            raise TransportError(FailureKind.NETWORK, "what was written is not what is read back")
        self._keeps_times = abs(found[1] - _PROBE_MTIME_S) * 10**9 <= MTIME_TOLERANCE_NS
        return True

    def free_bytes(self) -> int | None:
        with self._folder() as folder:
            return folder.free_bytes()

    # --- whose is it -------------------------------------------------------------------------------------------------

    def look(self, destination: str) -> DestinationLook:
        with self._folder(destination) as folder:
            seen = folder.look(destination, CLAIM_PATH, CREATION_PATH, OWN_FILE_BYTES_MAX)
        return look_of(destination, claim=seen.claim, creation=seen.creation, is_empty=seen.is_empty)

    # --- what is there -----------------------------------------------------------------------------------------------

    def listing(self, destination: str) -> Mapping[str, RemoteFile]:
        with self._folder(destination) as folder:
            found = data_below(folder, destination)
        return {
            path: RemoteFile(entry.size_bytes, entry.mtime_s * 10**9 if self._keeps_times else None)
            for path, entry in found.items()
            if entry.is_file
        }

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        path = f"{destination}/{require_inside(relative_path)}"
        with self._folder(destination) as folder:
            return folder.read(path, limit_bytes)

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        for entry in files:
            require_inside(entry.path)
        if sum(entry.size_bytes for entry in files) < self._sampled_from_bytes:
            return None
        with self._folder(destination, control) as folder:
            standing = data_below(folder, destination)
            wanted = [entry for entry in files if entry.path in standing and standing[entry.path].is_file]
            sampler = Sampler(wanted, {entry.path: standing[entry.path].size_bytes for entry in wanted})
            folder.blocks(destination, sampler.blocks, sampler.take)
        return sampler.digests()

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        found = self._hashing.digests(destination, paths, control=control)
        is_hashed_there = self._connection.tools().hasher is not None
        return ReadBack(found, HowRead.SERVER_HASH if is_hashed_there else HowRead.DOWNLOAD, is_past_cache=True)

    def digest_bytes_max(self) -> int | None:
        return None if self._connection.tools().hasher is not None else self._stream_bytes_max

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        for entry in files:
            require_data_path(entry.path)
        with self._folder(destination, control) as folder:
            standing = data_below(folder, destination)
            _require_free(files, standing, destination)
            folders = {path for path, entry in standing.items() if entry.is_folder}
            push = self._push(folder, source_root, destination, control, PushProgress(control))
            for portion in portions(
                files, count_max=PORTION_FILES, bytes_max=PORTION_BYTES, size_bytes_of=attrgetter("size_bytes")
            ):
                try:
                    push.copy(portion, folders)
                except TransportError as error:
                    if error.kind is FailureKind.DESTINATION_FULL:
                        with contextlib.suppress(TransportError):
                            folder.clear_partials(destination, keeps_pieces=False)
                    raise
            # Also what a push that was killed had left under final names: a sync is for the whole file system.
            if files:
                folder.clear_partials(destination, keeps_pieces=False, then_syncs=True)
            else:
                folder.sync()

    def _push(
        self, folder: TargetFolder, source_root: str, destination: str, control: Control, progress: PushProgress
    ) -> StagedPush:
        return StagedPush(
            folder=folder,
            rsync=self._rsync,
            remote_shell=self._connection.remote_shell_words,
            name=self._name,
            root=self._root,
            source_root=source_root,
            destination=destination,
            control=control,
            progress=progress,
            piece_kept_bytes=self._piece_kept_bytes,
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
        given = {entry.path: instead[entry.path] for entry in files if entry.path in instead}
        read = [entry for entry in files if entry.path not in given]
        total_bytes = sum(entry.size_bytes for entry in read) + sum(map(len, given.values()))
        if total_bytes <= _ASKED_BYTES_MAX:
            small = {entry.path: bytes_to_place(source_root, entry.path, instead) for entry in files}
            if sum(data.count(b"\0") for data in small.values()) <= _ASKED_NULS_MAX:
                self._replace_by_asking(small, destination, control)
                return
        if read:
            with self._folder(destination, control) as folder:
                push = self._push(folder, source_root, destination, control, PushProgress(_UNHINDERED))
                waiting = own_folder(destination, "push")
                growing = [as_it_is(source_root, entry.path) for entry in read]
                push.stage(growing, waiting)
                folder.move_over(waiting, destination, [entry.path for entry in read])
                folder.clear_partials(destination, keeps_pieces=False, then_syncs=True)
        # Last, so that what is given never says more than what is beside it.
        self._replace_by_asking(given, destination, control)

    def _replace_by_asking(self, files: Mapping[str, bytes], destination: str, control: Control) -> None:
        if not files:
            return
        with self._folder(destination, control) as folder:
            small = [(f"{destination}/{path}", data) for path, data in files.items()]
            folder.replace(small, own_folder(destination, "small"))

    def write_small(self, path: str, data: bytes) -> None:
        with self._folder(path) as folder:
            parent, _, name = path.rpartition("/")
            if parent:
                folder.remove_left(parent, name)
            folder.put(path, data)
            folder.sync()

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        wanted = [require_data_path(path) for path in paths]
        with self._folder(destination) as folder:
            standing = data_below(folder, destination)
            moving = [path for path in wanted if path in standing]
            if not moving:
                return
            aside = folder.new_numbered_folder(f"{SUPERSEDED_FOLDER}/{destination}")
            parents: dict[str, list[str]] = {}
            for path in moving:
                parent, _, name = path.rpartition("/")
                parents.setdefault(parent, []).append(name)
            said = folder.move_new(destination, aside, parents)
            left = [path for path in moving if path in data_below(folder, destination)]
            if left:
                raise classified_target(f"Cannot move aside {left[0]!r} at {self._name}", said)
            folder.sync()

    def clear_partials(self, destination: str) -> None:
        """As the port says; but a piece of a large file is kept, and the next push goes on from its end."""
        with self._folder(destination) as folder:
            folder.clear_partials(destination, keeps_pieces=True)

    # --- shared ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _folder(self, path: str | None = None, control: Control = _UNHINDERED) -> Iterator[TargetFolder]:
        """Yield the root through a shell that is the caller's alone. `path` must lie below it."""
        if path is not None:
            require_inside(path)
        check = checking(control)
        with self._connection.shell(check) as shell:
            yield TargetFolder(
                shell, self._connection.tools(), self._root, check, piece_kept_bytes=self._piece_kept_bytes
            )


def nature_of(name: str) -> Nature:
    """Return the nature of a root that is reached by ssh."""
    return Nature("rsync over ssh", name, "it is reached by ssh")


def _require_free(files: Iterable[FileEntry], standing: Mapping[str, TargetEntry], destination: str) -> None:
    """Raise TransportError when a name is taken, or something else than a folder is where a folder must be."""
    for entry in files:
        if entry.path in standing:
            raise TransportError(FailureKind.UNKNOWN, taken(entry.path, destination))
    for path in folders_of(entry.path for entry in files):
        if path in standing and not standing[path].is_folder:
            text = f"{path!r} in {destination!r} is a link or a file where a folder must be: move it away, then retry."
            raise TransportError(FailureKind.UNKNOWN, text)
