"""The way to a server that one reaches by ssh: rsync moves the data, a shell on the target does all else.

Decided here: the order of a push, and which questions make which verb. Not here: what may be written there and why
(destination.py), the connection (connection.py), the scripts (target_folder.py), rsync's options (program.py).

A push, for each portion of the files:

1. the local files are those of the list;
2. rsync copies them into `<destination>/.exlab-partial/<16 hex>.push/`, a folder made for it a moment ago;
3. what is in there has every name and size of the list, and the local files are still those of the list;
4. one `mv -n` for each folder gives them their final names, which nothing else has.

So rsync never sees a file of ours or of others, never replaces one, and cannot nest a folder; what changed while it was
read never gets a name; and an rsync of a push that was cut off, which may live on at the target for a while, writes into
a folder that the next push removes, and can then give nothing a name.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.far_side import (
    Capabilities,
    Exchanged,
    FarSide,
    FolderLook,
    Listing,
    Shipment,
)
from exlab_watch_agent.adapters.transports.rsync.connection import SshConnection
from exlab_watch_agent.adapters.transports.rsync.hashing import Hashing
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rsync.program import PushProgress, Rsync, local_rsync_version
from exlab_watch_agent.adapters.transports.rsync.sampler import Sampler
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
from exlab_watch_agent.adapters.transports.rsync.staged_push import StagedPush, own_folder
from exlab_watch_agent.adapters.transports.rsync.target_errors import classified_target
from exlab_watch_agent.adapters.transports.rsync.target_folder import (
    PIECE_KEPT_BYTES,
    TargetFolder,
    checking,
    data_below,
)
from exlab_watch_agent.adapters.transports.shared.local_side import as_it_is, bytes_to_place, require_sources
from exlab_watch_agent.adapters.transports.shared.own_files import OWN_FILE_BYTES_MAX
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.inventory import CREATION_PATH, FileEntry
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.errors import (
    FailureKind,
    TransportError,
)
from exlab_watch_agent.ports import Control, RemoteFile

PORTION_BYTES = 512 * 1024 * 1024
PORTION_FILES = 10_000
"""What is lost at most when a push is cut off. A portion costs one start of rsync, 60 ms."""
SAMPLED_FROM_BYTES = 256 * 1024 * 1024
"""Each sampled block is a program started on the target: below this size the verification itself costs less."""
_ASKED_BYTES_MAX = 1024 * 1024
_ASKED_NULS_MAX = 1000
_UNHINDERED = Control()


class ShellFarSide(FarSide):
    """Implements FarSide on a folder of a server with a shell.

    `is_metered`: whether a bandwidth limit may come into force; where it never can, the data take the shorter way.
    `children`: without it the way has its own, ended by `close`. `piece_kept_bytes`: as PIECE_KEPT_BYTES says.
    `connection` is what it works with.
    """

    likely_cause = "Its disk or share may not be mounted there."

    def __init__(
        self,
        target: RsyncSshTarget,
        *,
        children: Children | None = None,
        socket_folder: Path | None = None,
        stall_s: float = 300.0,
        is_metered: bool = True,
        sampled_from_bytes: int = SAMPLED_FROM_BYTES,
        piece_kept_bytes: int = PIECE_KEPT_BYTES,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self.name = f"{target.host}:{target.remote_path}"
        self.can = Capabilities(
            creates_exclusively=True,
            names_last=True,
            sampled_from_bytes=sampled_from_bytes,
            portion_files=PORTION_FILES,
            portion_bytes=PORTION_BYTES,
        )
        self._piece_kept_bytes = piece_kept_bytes
        self._path = target.remote_path
        self._own_children = Children() if children is None else None
        self._children = children or self._own_children or Children()
        login = SshLogin.of(target, pace)
        self.connection = SshConnection(login, self._children, socket_folder, clock=clock)
        self._rsync = Rsync(self._children, login, stall_s, is_metered)
        self._hashing = Hashing(self.connection, self._folder)

    def check_tools(self) -> tuple[str, ...]:
        here = local_rsync_version(self._children)
        tools = self.connection.tools()
        if not tools.rsync_version:
            text = f"There is no rsync on {self.connection.login.target}: install it there, then retry."
            raise TransportError(FailureKind.BINARY_MISSING, text)
        hasher = (
            f"SHA-256 there by {tools.hasher[0]}"
            if tools.hasher
            else "no SHA-256 there: files are streamed back to be hashed"
        )
        return (f"rsync {here} here, {tools.rsync_version} on the target; {hasher}",)

    def require_shell(self) -> None:
        """Raises: NoShellError when the account runs no command of ours; TransportError when the server cannot be reached."""
        self.connection.tools()

    def close(self) -> None:
        self.connection.close()
        if self._own_children is not None:
            self._own_children.close()

    @contextlib.contextmanager
    def _folder(self, control: Control = _UNHINDERED) -> Iterator[TargetFolder]:
        """Yield the root through a shell that is the caller's alone."""
        check = checking(control)
        with self.connection.shell(check) as shell:
            tools = self.connection.tools()
            root = tools.path_of(self._path)
            yield TargetFolder(shell, tools, root, check, piece_kept_bytes=self._piece_kept_bytes)

    # --- the root ----------------------------------------------------------------------------------------------------

    def nature(self) -> Nature:
        return nature_of(self.name)

    def free_bytes(self) -> int | None:
        with self._folder() as folder:
            return folder.free_bytes()

    def exchange(self, path: str, data: bytes, *, mtime_ns: int, while_there: Callable[[], None] | None) -> Exchanged:
        when = datetime.fromtimestamp(mtime_ns // 10**9, UTC)
        with self._folder() as folder:
            try:
                if while_there is not None:
                    folder.put(path, data)
                    while_there()
            finally:  # it takes away what was put there
                found, mtime_s = folder.exchange(path, data, mtime_text=when.strftime("%Y%m%d%H%M.%S"))
        return Exchanged(found, mtime_s * 10**9)

    # --- what is there -----------------------------------------------------------------------------------------------

    def look(self, folder: str) -> FolderLook:
        with self._folder() as root:
            return root.look(folder, CLAIM_PATH, CREATION_PATH, OWN_FILE_BYTES_MAX)

    def list(self, folder: str, control: Control) -> Listing:
        with self._folder(control) as root:
            found = data_below(root, folder)
        return Listing(
            {
                path: RemoteFile(entry.size_bytes, entry.mtime_s * 10**9)
                for path, entry in found.items()
                if entry.is_file
            },
            [path for path, entry in found.items() if entry.is_folder],
            [path for path, entry in found.items() if not (entry.is_file or entry.is_folder)],
        )

    def read_own(self, path: str) -> bytes | None:
        with self._folder() as root:
            return root.read(path, OWN_FILE_BYTES_MAX)

    def read_below(self, folder: str, path: str, limit_bytes: int) -> bytes | None:
        with self._folder() as root:
            return root.read(f"{folder}/{path}", limit_bytes)

    def samples(self, folder: str, files: Sequence[FileEntry], control: Control) -> dict[str, str]:
        with self._folder(control) as root:
            there = data_below(root, folder)
            wanted = [entry for entry in files if entry.path in there and there[entry.path].is_file]
            sampler = Sampler(wanted, {entry.path: there[entry.path].size_bytes for entry in wanted})
            root.blocks(folder, sampler.blocks, sampler.take)
        return sampler.digests()

    def read_back(self, folder: str, paths: Sequence[str], control: Control) -> ReadBack:
        found = self._hashing.digests(folder, paths, control)
        is_hashed_there = self.connection.tools().hasher is not None
        with self._folder(control) as root:
            nas_at = root.now()
        how = HowRead.SERVER_HASH if is_hashed_there else HowRead.DOWNLOAD
        return ReadBack(found, how, is_past_cache=True, nas_at=nas_at)

    def hashes_any_size(self) -> bool:
        return self.connection.tools().hasher is not None

    # --- copying -----------------------------------------------------------------------------------------------------

    def send(self, shipment: Shipment) -> None:
        with self._folder(shipment.control) as root:
            try:
                self._push(root, shipment.source_root, shipment.folder, shipment.control).copy(shipment)
            except TransportError as error:
                if error.kind is FailureKind.DESTINATION_FULL:
                    with contextlib.suppress(TransportError):
                        root.clear_partials(shipment.folder, keeps_pieces=False)
                raise

    def sync(self, folder: str) -> None:
        """Make all durable, also what a push that was killed had left under final names: a sync is for the whole file system."""
        with self._folder() as root:
            root.clear_partials(folder, keeps_pieces=False, then_syncs=True)

    def _push(self, root: TargetFolder, source_root: str, folder: str, control: Control) -> StagedPush:
        return StagedPush(
            root=root,
            rsync=self._rsync,
            remote_shell=self.connection.remote_shell_words,
            name=self.name,
            root_path=self.connection.tools().path_of(self._path),
            source_root=source_root,
            folder=folder,
            control=control,
            progress=PushProgress(control),
            piece_kept_bytes=self._piece_kept_bytes,
        )

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        folder: str,
        *,
        control: Control,
        instead: Mapping[str, bytes],
    ) -> None:
        given = {entry.path: instead[entry.path] for entry in files if entry.path in instead}
        read = [entry for entry in files if entry.path not in given]
        total_bytes = sum(entry.size_bytes for entry in read) + sum(map(len, given.values()))
        if total_bytes <= _ASKED_BYTES_MAX:
            small = {entry.path: bytes_to_place(source_root, entry.path, instead) for entry in files}
            if sum(data.count(b"\0") for data in small.values()) <= _ASKED_NULS_MAX:
                self._replace_by_asking(small, folder, control)
                return
        if read:
            growing = [as_it_is(source_root, entry.path) for entry in read]
            with self._folder(control) as root:
                push = self._push(root, source_root, folder, dataclasses.replace(control, report=_UNHINDERED.report))
                waiting = own_folder(folder, "push")
                try:
                    push.stage(growing, waiting)
                except TransportError:
                    require_sources(
                        source_root, growing
                    )  # one that is gone or changed is the reason, whatever rsync said
                    raise
                root.move_over(waiting, folder, [entry.path for entry in read])
                root.clear_partials(folder, keeps_pieces=False, then_syncs=True)
        # Last, so that what is given never says more than what is beside it.
        self._replace_by_asking(given, folder, control)

    def _replace_by_asking(self, files: Mapping[str, bytes], folder: str, control: Control) -> None:
        if not files:
            return
        with self._folder(control) as root:
            small = [(f"{folder}/{path}", data) for path, data in files.items()]
            root.replace(small, own_folder(folder, "small"))

    # --- small files -------------------------------------------------------------------------------------------------

    def put_new(self, path: str, data: bytes, *, temporary: str, is_lasting: bool) -> bool:
        with self._folder() as root:
            is_first = root.place_new(path, data, temporary)
            if is_lasting:
                root.sync()
        return is_first

    def put(self, path: str, data: bytes) -> None:
        with self._folder() as root:
            parent, _, name = path.rpartition("/")
            if parent:
                root.remove_left(parent, name)
            root.put(path, data)
            root.sync()

    # --- making room -------------------------------------------------------------------------------------------------

    def present(self, folder: str, paths: Sequence[str]) -> Sequence[str]:
        with self._folder() as root:
            there = data_below(root, folder)
        return [path for path in paths if path in there]

    def new_numbered(self, parent: str) -> str:
        with self._folder() as root:
            return root.new_numbered_folder(parent)

    def move(self, from_folder: str, to_folder: str, paths: Sequence[str]) -> None:
        parents: dict[str, list[str]] = {}
        for path in paths:
            parent, _, name = path.rpartition("/")
            parents.setdefault(parent, []).append(name)
        with self._folder() as root:
            said = root.move_new(from_folder, to_folder, parents)
            there = data_below(root, from_folder)
            left = [path for path in paths if path in there]
            if left:
                raise classified_target(f"Cannot move aside {left[0]!r} at {self.name}", said)
            root.sync()

    def clear_partials(self, folder: str) -> None:
        """As the port says; but a piece of a large file is kept, and the next push goes on from its end."""
        with self._folder() as root:
            root.clear_partials(folder, keeps_pieces=True)


def nature_of(name: str) -> Nature:
    """Return the nature of a root that is reached by ssh."""
    return Nature("rsync over ssh", name, "it is reached by ssh")
