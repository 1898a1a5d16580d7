"""The way to a server that one reaches by ssh and that runs rsync and nothing else (`rrsync`, a forced command).

Decided here: what rsync alone can do, by which calls, and what is refused because it cannot. Not here: what may be written there
and why (destination.py), rsync's calls (rsync_folder.py, program.py), the connection (connection.py).

- Files wait in `<root>/.exlab-watch-agent/` while they arrive, and rsync gives each its name once it is whole. What has
  the name already stays (`--ignore-existing`), of which rsync says nothing.
- A file that must make room is moved by the same rsync that puts the right one in its place (`--backup`).
- Nothing can be removed, so the probe file stays: one small file in `<root>/.exlab-watch-agent/`.
- Nothing creates a file exclusively. (`rrsync` lets one rsync in at a time, which makes it so.)
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
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.digests import BUFFER_BYTES, Pulse, hash_descriptor
from exlab_watch_agent.adapters.transports.far_side import (
    Capabilities,
    Exchanged,
    FarSide,
    FolderLook,
    Listing,
    Shipment,
    holds_nothing,
)
from exlab_watch_agent.adapters.transports.rsync.by_shell import nature_of
from exlab_watch_agent.adapters.transports.rsync.connection import SilentConnection
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rsync.program import PushProgress, local_rsync_version
from exlab_watch_agent.adapters.transports.rsync.rsync_folder import (
    NEW,
    SMALL_BYTES_MAX,
    UNHINDERED,
    RsyncEntry,
    RsyncFolder,
    require_plain,
)
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
from exlab_watch_agent.adapters.transports.shared.local_side import bytes_to_place
from exlab_watch_agent.adapters.transports.shared.own_files import (
    MARKER_FILE,
    OWN_FOLDER,
    PARTIAL_FOLDER,
)
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_PATH, FileEntry
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.core.push_plan import folders_of
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.ports import Control, RemoteFile

PORTION_BYTES = 64 * 1024 * 1024
PORTION_FILES = 1000
"""What comes back at once to be hashed: a call costs 50 ms, and the bytes are on our disk meanwhile."""
_SPOKEN = re.compile(r"\[sender|rrsync")


class RsyncOnlyFarSide(FarSide):
    """Implements FarSide on a folder of a server that allows rsync only; members as those of ShellFarSide.

    With `rrsync` the target's `remote_path` counts from the folder that rrsync names.
    """

    likely_cause = "Its disk or share may not be mounted there."

    def __init__(
        self,
        target: RsyncSshTarget,
        *,
        children: Children,
        socket_folder: Path | None = None,
        stall_s: float = 300.0,
        is_metered: bool = True,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self.name = f"{target.host}:{target.remote_path}"
        self.can = Capabilities(tells_taken=False, moves=False, removes=False, settle_s=pace.settle_s)
        self._root = target.remote_path.rstrip("/")
        self._children = children
        login = SshLogin.of(target, pace)
        self._connection = SilentConnection(login, children, socket_folder, clock=clock)
        self._folder = RsyncFolder(
            self.name, self._root, login=login, connection=self._connection, children=children, stall_s=stall_s,
            is_metered=is_metered, clock=clock,
        )  # fmt: skip

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

    # --- the root ----------------------------------------------------------------------------------------------------

    def nature(self) -> Nature:
        return nature_of(self.name)

    def free_bytes(self) -> int | None:
        return None

    def exchange(
        self,
        path: str,
        data: bytes,
        *,
        mtime_ns: int,  # noqa: ARG002  (rsync keeps times)
        while_there: Callable[[], None] | None,
    ) -> Exchanged:
        self.put(path, data)
        if while_there is not None:
            while_there()
        return Exchanged(self.read_own(path))

    # --- what is there -----------------------------------------------------------------------------------------------

    def look(self, folder: str) -> FolderLook:
        cache = f"{folder}/{CACHE_FOLDER}"
        seen = self._folder.survey([f"{folder}/", f"{cache}/"])
        top = {path.removeprefix(f"{folder}/").split("/")[0] for path in seen if path.startswith(f"{folder}/")}
        if holds_nothing(top, lambda: [path for path in seen if path.startswith(f"{cache}/")]):
            return FolderLook(is_empty=True)
        paths = [f"{folder}/{path}" for path in (CLAIM_PATH, CREATION_PATH)]
        own = self._folder.read([path for path in paths if path in seen and seen[path].kind == stat.S_IFREG])
        claim, creation = (own.get(path) for path in paths)
        return FolderLook(False, claim, creation)

    def list(self, folder: str, control: Control) -> Listing:
        found = self._data_below(folder, control)
        return Listing(
            {
                p: RemoteFile(entry.size_bytes, entry.mtime_ns)
                for p, entry in found.items()
                if entry.kind == stat.S_IFREG
            },
            [path for path, entry in found.items() if entry.kind == stat.S_IFDIR],
            [path for path, entry in found.items() if entry.kind not in (stat.S_IFREG, stat.S_IFDIR)],
        )

    def read_own(self, path: str) -> bytes | None:
        return self._folder.read([path]).get(path)

    def read_below(self, folder: str, path: str, limit_bytes: int) -> bytes | None:
        return self.read_several(folder, [path], limit_bytes).get(path)

    def read_several(self, folder: str, paths: Sequence[str], limit_bytes: int) -> dict[str, bytes]:
        above = self._plain_folders(f"{folder}/{path}" for path in folders_of(paths))
        wanted = {f"{folder}/{path}": path for path in paths}
        wanted = {at: path for at, path in wanted.items() if "/" not in path or at.rpartition("/")[0] in above}
        if not wanted:
            return {}
        seen = {at: entry for at, entry in self._folder.survey(list(wanted)).items() if entry.kind == stat.S_IFREG}
        for at, entry in seen.items():
            if entry.size_bytes > max(limit_bytes, SMALL_BYTES_MAX):
                text = f"{at!r} at {self.name} has {entry.size_bytes} bytes, more than any file of the agent's."
                raise TransportError(FailureKind.UNKNOWN, text)
        found = self._folder.read([at for at in wanted if at in seen])
        return {wanted[at]: data[:limit_bytes] for at, data in found.items()}

    def _plain_folders(self, paths: Iterable[str]) -> set[str]:
        """Return those of these paths that are folders, and lie in folders all the way."""
        seen = self._folder.survey_by_level(paths)
        return {path for path, entry in seen.items() if entry.kind == stat.S_IFDIR}

    def sees_any(self, paths: Sequence[str]) -> bool | None:
        """Return whether any is there. Links above them are followed, which can only show more."""
        ended = self._folder.list_call(paths, UNHINDERED, recursive=False)
        return bool(ended.stdout) if ended.returncode == 0 else None  # one of them may be in somebody's private folder

    def samples(self, folder: str, files: Sequence[FileEntry], control: Control) -> dict[str, str]:  # noqa: ARG002
        raise AssertionError("`can` says that no ranges are read")

    def read_back(self, folder: str, paths: Sequence[str], control: Control) -> ReadBack:
        there = self._data_below(folder, control)
        files = [(p, there[p].size_bytes) for p in paths if p in there and there[p].kind == stat.S_IFREG]
        found: dict[str, str] = {}
        pulse = Pulse(control)
        for portion in portions(files, count_max=PORTION_FILES, bytes_max=PORTION_BYTES, size_bytes_of=itemgetter(1)):
            wanted = [f"{folder}/{path}" for path, _ in portion]
            with self._folder.pulled(wanted, control, sum(size_bytes for _, size_bytes in portion)) as at:
                for path, _ in portion:
                    with contextlib.suppress(FileNotFoundError):  # it went away there meanwhile
                        found[path] = _hashed(at / folder / path, pulse)
        pulse.finished()
        return ReadBack(found, HowRead.DOWNLOAD, is_past_cache=True)

    def hashes_any_size(self) -> bool:
        return False

    def _data_below(self, folder: str, control: Control = UNHINDERED) -> dict[str, RsyncEntry]:
        """Return what is in a run's folder, by paths relative to it; the cache folder and our own are left out."""
        seen = self._folder.survey([folder], control, recursive=True)
        if folder in seen and seen[folder].kind != stat.S_IFDIR:
            text = f"{folder!r} at {self.name} is a link or a file where a folder must be: move it away, then retry."
            raise TransportError(FailureKind.UNKNOWN, text)
        below = {path.removeprefix(f"{folder}/"): e for path, e in seen.items() if path.startswith(f"{folder}/")}
        return {path: e for path, e in below.items() if path.split("/")[0] not in (CACHE_FOLDER, PARTIAL_FOLDER)}

    # --- writing -----------------------------------------------------------------------------------------------------

    def require_fit(self, folder: str, files: Sequence[FileEntry]) -> None:  # noqa: ARG002
        require_plain(folder)

    def send(self, shipment: Shipment) -> None:
        self._folder.make_folders([OWN_FOLDER, shipment.folder])
        how = ["--ignore-existing"]
        if shipment.aside is not None:
            how = ["-I", "--backup", f"--backup-dir={self._root}/{shipment.aside}"]
        progress = PushProgress(shipment.control)
        self._folder.run(
            [*NEW, *how, f"--temp-dir={self._root}/{OWN_FOLDER}"], f"{shipment.source_root}/",
            self._folder.address(f"{shipment.folder}/."), [entry.path for entry in shipment.files], shipment.control,
            progress.report,
        )  # fmt: skip
        progress.finish(shipment.files)

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        folder: str,
        *,
        control: Control,
        instead: Mapping[str, bytes],
    ) -> None:
        small = {f"{folder}/{entry.path}": bytes_to_place(source_root, entry.path, instead) for entry in files}
        self._folder.put(small, may_replace=True, control=control)

    def put_new(self, path: str, data: bytes, *, temporary: str, is_lasting: bool) -> bool:  # noqa: ARG002
        self._folder.put({path: data}, may_replace=False)
        return True  # as far as can be told

    def put(self, path: str, data: bytes) -> None:
        self._folder.put({path: data}, may_replace=True)

    # --- making room -------------------------------------------------------------------------------------------------

    def present(self, folder: str, paths: Sequence[str]) -> Sequence[str]:
        there = self._data_below(folder)
        found = [path for path in paths if path in there]
        for path in found:
            if there[path].kind not in (stat.S_IFREG, stat.S_IFLNK):
                text = f"{folder}/{path} at {self.name} is not a regular file: move it away there, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
        return found

    def new_numbered(self, parent: str) -> str:
        """Return the first numbered folder that is not there. Only this run's agent makes any."""
        seen = self._folder.survey([f"{parent}/"])
        return next(f"{parent}/{n}" for n in range(1, len(seen) + 2) if f"{parent}/{n}" not in seen)

    def move(self, from_folder: str, to_folder: str, paths: Sequence[str]) -> None:  # noqa: ARG002
        raise AssertionError("`can` says that nothing is moved")

    def clear_partials(self, folder: str) -> None:
        """Nothing: rsync removes what it leaves unfinished, and no other thing can be removed."""


def _hashed(path: Path, pulse: Pulse) -> str:
    with path.open("rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        found = hash_descriptor(file.fileno(), size_bytes, memoryview(bytearray(BUFFER_BYTES)), pulse.moved)
    pulse.finished_file()
    return found
