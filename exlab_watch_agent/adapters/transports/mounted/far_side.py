"""The way to a folder of this machine: an SMB or NFS mount, or a local disk. Needs no program.

Decided here: what is read, written and moved below the root, what becomes durable when, and which mounts are refused. Not here:
what may be written there and why (destination.py), that no name leads out of the root (folders.py), and how the bytes of a file
get there (copy.py).

What is read is asked for again (the page cache is told to forget it first); the attributes of a file may still come from the
client's cache for a second or two, which is why listings only ever fail a copy and the hashes decide.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.digests import Pulse, sample_descriptor
from exlab_watch_agent.adapters.local.durable import is_temporary_name, sync_folder, temporary_name
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.local.mounts import answers_from_a_cache, is_elsewhere, mount_below, mount_of
from exlab_watch_agent.adapters.local.tree import walk
from exlab_watch_agent.adapters.transports.far_side import (
    Capabilities,
    Exchanged,
    FarSide,
    FolderLook,
    Listing,
    Shipment,
    cannot_be_used,
    holds_nothing,
)
from exlab_watch_agent.adapters.transports.mounted.copy import (
    WORKERS,
    FileCopier,
    Order,
    place_new,
    removed_afterwards,
    write_whole,
)
from exlab_watch_agent.adapters.transports.mounted.errors import classified
from exlab_watch_agent.adapters.transports.mounted.folders import Folders, require_apart
from exlab_watch_agent.adapters.transports.mounted.read_back import read_back
from exlab_watch_agent.adapters.transports.shared.own_files import OWN_FILE_BYTES_MAX, PARTIAL_FOLDER
from exlab_watch_agent.core.binding import Below, Nature
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_PATH, FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import DestinationUnreachableError, TransportError
from exlab_watch_agent.ports import Control, RemoteFile

_UNHINDERED = Control()


def _is_ours(name: str, _status: os.stat_result) -> bool:
    return name in (CACHE_FOLDER, PARTIAL_FOLDER)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


class MountedFarSide(FarSide):
    """Implements FarSide on a mounted folder. `workers`: how many files are on their way at once."""

    likely_cause = "The share may not be mounted."
    foreign = (OSError,)
    can = Capabilities(creates_exclusively=True, checks_each_file=True, names_last=True, sampled_from_bytes=0)

    def __init__(self, root: str, *, workers: int = WORKERS, clock: PausingClock = SYSTEM_CLOCK) -> None:
        self.name = root
        self._root = root
        self._workers = workers
        self._clock = clock
        self._devices: set[int] = set()

    def check_tools(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Nothing runs between calls."""

    # --- errors ------------------------------------------------------------------------------------------------------

    def translated(self, error: Exception, doing: str) -> TransportError:
        assert isinstance(error, OSError), "the only foreign one"
        return classified(error, doing)

    def away(self, error: Exception) -> str:
        why = reason_with_name(error) if isinstance(error, OSError) else str(error).rstrip(".")
        refused = "Let the agent's account read and write there." if isinstance(error, PermissionError) else ""
        return cannot_be_used(self, why, cause=refused)

    def _below(self, folder: str) -> Folders:
        """Return the folders below the root, unless this PC may answer for a server that has not seen the bytes in this one."""
        self._require_no_cache(folder)
        return Folders(self._root)

    def _require_no_cache(self, relative: str) -> None:
        folder = f"{self._root}/{relative}" if relative else self._root
        try:
            device = os.stat(folder).st_dev
        except (FileNotFoundError, NotADirectoryError):
            if relative:
                self._require_no_cache(_folder_of(relative))
                return
            raise
        if device not in self._devices:
            kind = mount_of(folder).kind
            if answers_from_a_cache(kind):
                text = (
                    f"{folder} is a {kind} mount, on which a cache on this PC may answer for a server that has not seen the "
                    "bytes: give a transport of type rclone for this remote, or mount the share with nfs, cifs or sshfs."
                )
                raise DestinationUnreachableError(text)
            self._devices.add(device)

    # --- the root ----------------------------------------------------------------------------------------------------

    def require_root(self) -> None:
        self._require_no_cache("")
        if not stat.S_ISDIR(os.stat(self._root).st_mode):
            raise DestinationUnreachableError(cannot_be_used(self, "it is not a folder"))

    def nature(self) -> Nature:
        try:
            self.require_root()
            mount = mount_of(self._root)
        except OSError as error:
            raise DestinationUnreachableError(self.away(error)) from error
        why = f"{mount.kind} is a network file system" if is_elsewhere(mount.kind) else ""
        return Nature(mount.kind or "a file system that cannot be told", mount.source, why)

    def below(self, folder: str) -> Below | None:
        mount = mount_below(self._root, folder)
        return None if mount is None else Below(mount.kind, mount.source)

    def free_bytes(self) -> int | None:
        try:
            usage = shutil.disk_usage(self._root)
        except OSError:
            return None
        return usage.free if usage.total > 0 else None  # some network file systems do not know and say 0

    def top_names(self) -> Iterable[str] | None:
        return os.listdir(self._root)

    def exchange(self, path: str, data: bytes, *, mtime_ns: int, while_there: Callable[[], None] | None) -> Exchanged:
        with Folders(self._root) as folders, self._waiting(folders, path) as (folder, name):
            write_whole(folder, name, data, mtime_ns=mtime_ns)
            if while_there is not None:
                while_there()
            with Folders(self._root) as again:  # what the root's name leads to now, not what was opened
                back = again.read(path, OWN_FILE_BYTES_MAX)
            return Exchanged(back, folder.lstat(name).st_mtime_ns)

    # --- what is there -----------------------------------------------------------------------------------------------

    def look(self, folder: str) -> FolderLook:
        with self._below(folder) as folders:
            return FolderLook(
                is_empty=holds_nothing(folders.names(folder), lambda: folders.names(f"{folder}/{CACHE_FOLDER}")),
                claim=folders.read(f"{folder}/{CLAIM_PATH}", OWN_FILE_BYTES_MAX),
                creation=folders.read(f"{folder}/{CREATION_PATH}", OWN_FILE_BYTES_MAX),
            )

    def list(self, folder: str, control: Control) -> Listing:  # noqa: ARG002
        with self._below(folder) as folders:
            if not folders.is_there(folder):
                return Listing({})
            with folders.folder(folder) as opened:
                found = walk(opened, leave_out=_is_ours)
        return Listing(
            {entry.path: RemoteFile(entry.size_bytes, entry.mtime_ns) for entry in found.files},
            found.directories,
            [entry.path for entry in found.odd],
        )

    def read_own(self, path: str) -> bytes | None:
        with self._below(_folder_of(path)) as folders:
            return folders.read(path, OWN_FILE_BYTES_MAX)

    def read_below(self, folder: str, path: str, limit_bytes: int) -> bytes | None:
        with self._below(folder) as folders:
            return folders.read(f"{folder}/{path}", limit_bytes)

    def samples(self, folder: str, files: Sequence[FileEntry], control: Control) -> dict[str, str]:
        pulse = Pulse(control)
        found = {}
        with self._below(folder) as folders:
            for entry in files:
                pulse.moved(0)
                with folders.opened(f"{folder}/{entry.path}") as descriptor:
                    if descriptor is not None:
                        found[entry.path] = sample_descriptor(descriptor, entry.size_bytes)
        return found

    def read_back(self, folder: str, paths: Sequence[str], control: Control) -> ReadBack:
        self._require_no_cache(folder)
        return read_back(self._root, folder, paths, control=control)

    def hashes_any_size(self) -> bool:
        return True

    # --- copying -----------------------------------------------------------------------------------------------------

    def send(self, shipment: Shipment) -> None:
        require_apart(self._root, shipment.source_root)
        folder = shipment.folder
        with self._below(folder) as folders:
            folders.make(folder)
            with self._partial_folder(folders, folder) as partial:
                self._copier(folders, shipment.source_root, shipment.control).copy_new(
                    [self._order(folders, folder, entry, partial) for entry in shipment.files]
                )
            folders.require_in_place(folder)

    def sync(self, folder: str) -> None:
        """Make all folders durable, not only those written to now: a push that was killed made names that nobody made durable."""
        with self._below(folder) as folders:
            folders.make(folder)
            for below in folders.below(folder):
                folders.touch(f"{folder}/{below}")
            folders.touch_up_to_root(folder)
            self._make_durable(folders)
            folders.require_in_place(folder)

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        folder: str,
        *,
        control: Control,
        instead: Mapping[str, bytes],
    ) -> None:
        with self._below(folder) as folders:
            folders.make(folder)
            with self._partial_folder(folders, folder) as partial:
                self._copier(folders, source_root, control).replace(
                    [self._order(folders, folder, entry, partial, data=instead.get(entry.path)) for entry in files]
                )
            self._make_durable(folders)
            folders.require_in_place(folder)

    def _copier(self, folders: Folders, source_root: str = "", control: Control = _UNHINDERED) -> FileCopier:
        return FileCopier(source_root, control, folders, workers=self._workers, clock=self._clock)

    def _order(
        self, folders: Folders, destination: str, entry: FileEntry, partial: str, *, data: bytes | None = None
    ) -> Order:
        final = f"{destination}/{entry.path}"
        folder = _folder_of(final)
        folders.make(folder)
        folders.touch(folder)
        return Order(entry, partial=partial, final=final, data=data)

    @contextlib.contextmanager
    def _partial_folder(self, folders: Folders, destination: str) -> Iterator[str]:
        """Yield the path of the folder for files on their way; it is gone afterwards unless something of others is in it."""
        partial = f"{destination}/{PARTIAL_FOLDER}"
        folders.make(partial)
        try:
            yield partial
        finally:
            with contextlib.suppress(OSError), folders.folder(destination) as folder:
                folder.rmdir(PARTIAL_FOLDER)

    def _make_durable(self, folders: Folders) -> None:
        self._copier(folders).make_durable()

    # --- small files -------------------------------------------------------------------------------------------------

    def put_new(self, path: str, data: bytes, *, temporary: str, is_lasting: bool) -> bool:
        above, _, name = path.rpartition("/")
        with self._below(above) as folders:
            is_first = not folders.has(path)
            if is_first:
                folders.make(above)
                with self._waiting(folders, temporary) as (here, waiting), folders.folder(above) as there:
                    write_whole(here, waiting, data)
                    try:
                        place_new(here, waiting, there, name)
                    except FileExistsError:  # another agent was faster
                        is_first = False
            if is_lasting:
                with folders.folder(above) as folder:
                    sync_folder(folder)
        return is_first

    @contextlib.contextmanager
    def _waiting(self, folders: Folders, path: str) -> Iterator[tuple[Folder, str]]:
        """Yield the folder and name of a file that is not there now and will not be there afterwards, nor its folder where it
        is ours."""
        above, _, name = path.rpartition("/")
        with contextlib.ExitStack() as stack:
            if above:
                stack.enter_context(self._partial_folder(folders, _folder_of(above)))
            folder = stack.enter_context(folders.folder(above))
            stack.enter_context(removed_afterwards(folder, name))
            with contextlib.suppress(OSError):  # usually there is none; one that stays is said by what follows
                folder.unlink(name)
            yield folder, name

    def put(self, path: str, data: bytes) -> None:
        above, _, name = path.rpartition("/")
        temporary = temporary_name(name)
        with self._below(above) as folders:
            folders.make(above)
            folders.touch_up_to_root(above)
            with folders.folder(above) as folder:
                for left in folder.names() if above else ():  # by a write that was killed
                    if left.startswith(f".{name}.") and is_temporary_name(left):
                        folder.unlink(left)
                with removed_afterwards(folder, temporary):
                    write_whole(folder, temporary, data)
                    folder.replace(temporary, name)
            self._make_durable(folders)

    # --- making room -------------------------------------------------------------------------------------------------

    def present(self, folder: str, paths: Sequence[str]) -> Sequence[str]:
        with self._below(folder) as folders:
            return [path for path in paths if folders.has(f"{folder}/{path}")]

    def new_numbered(self, parent: str) -> str:
        with self._below(parent) as folders:
            return folders.new_numbered(parent)

    def move(self, from_folder: str, to_folder: str, paths: Sequence[str]) -> None:
        with self._below(from_folder) as folders:
            for path in paths:
                old_folder, _, name = f"{from_folder}/{path}".rpartition("/")
                new_folder = _folder_of(f"{to_folder}/{path}")
                folders.make(new_folder)
                with (
                    folders.folder(old_folder) as here,
                    folders.folder(new_folder) as there,
                    contextlib.suppress(FileNotFoundError),  # one name of two that this share takes for the same
                ):
                    here.move(name, there, name)
                folders.touch_up_to_root(new_folder)
                folders.touch(old_folder)
            self._make_durable(folders)

    def clear_partials(self, folder: str) -> None:
        with self._below(folder) as folders:
            if not folders.is_there(f"{folder}/{PARTIAL_FOLDER}"):
                return
            with folders.folder(f"{folder}/{PARTIAL_FOLDER}") as partial:
                for name in partial.names():
                    if is_temporary_name(name) and stat.S_ISREG(partial.lstat(name).st_mode):
                        partial.unlink(name)
            with contextlib.suppress(OSError), folders.folder(folder) as above:
                above.rmdir(PARTIAL_FOLDER)
