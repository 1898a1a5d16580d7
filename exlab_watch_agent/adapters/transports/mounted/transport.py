"""The transport for a folder of this machine: an SMB or NFS mount, or a local disk. Needs no program.

Decided here: what is at the destination, and what proves that the share is really there. Not here: that no name
leads out of it (folders.py), how the bytes of a file get there (copy.py), the formats of the agent's own files
(own_files.py), whose folder it is and what is copied (core).

Nothing is deleted but temporary and probe files of the agent. What is read is asked for again (the page cache is told
to forget it first); the attributes of a file may still come from the client's cache for a second or two, which is why
listings only ever fail a copy and the hashes decide.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from blake3 import blake3

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.digests import (
    Pulse,
    sample_descriptor,
)
from exlab_watch_agent.adapters.local.durable import (
    fsync_folder,
    is_temporary_name,
    temporary_name,
)
from exlab_watch_agent.adapters.local.mounts import answers_from_a_cache, is_elsewhere, mount_of
from exlab_watch_agent.adapters.local.tree import walk
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
from exlab_watch_agent.adapters.transports.shared.marked_root import MarkedRoot, WhileThere, look_of
from exlab_watch_agent.adapters.transports.shared.own_files import (
    CREATION_PATH,
    MARKER_FILE,
    OWN_FILE_BYTES_MAX,
    PARTIAL_FOLDER,
    PROBE_PREFIX,
    require_cache_path,
    require_data_path,
    require_inside,
)
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, DestinationLook
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import DestinationUnreachableError, FailureKind, TransportError
from exlab_watch_agent.ports import NOTHING_ELSE, Control, RemoteFile

_PROBE_MTIME_NS = 1_000_000_000 * 10**9
_UNHINDERED = Control()


def _is_ours(name: str, _status: os.stat_result) -> bool:
    return name in (CACHE_FOLDER, PARTIAL_FOLDER)


class MountedPathTransport(MarkedRoot):
    """Implements ports.Transport on a mounted folder.

    `owner`: who asks, unlike anybody else who may ask this root. Then the probe file has the same name each time, and
    what a kill has left of it is taken away by the owner's next probe. `workers`: how many files are on their way at once.
    """

    LIKELY_CAUSE: ClassVar[str] = "The share may not be mounted."

    def __init__(
        self, root: str, *, owner: str = "", workers: int = WORKERS, clock: PausingClock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(root, clock=clock)
        self._workers = workers
        self._root = root
        self._probe_name = PROBE_PREFIX + (blake3(owner.encode()).hexdigest(8) if owner else secrets.token_hex(8))
        self._probing = threading.Lock()
        self._keeps_times = True
        self._devices: set[int] = set()

    def check_tools(self) -> tuple[str, ...]:
        return ()

    # --- is it there -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OSError, TransportError) as error:
            why = reason_with_name(error) if isinstance(error, OSError) else str(error)
            raise DestinationUnreachableError(self._away(why)) from error

    def _require_folder(self) -> None:
        self._require_no_cache()
        if not stat.S_ISDIR(os.stat(self._root).st_mode):
            raise DestinationUnreachableError(self._away("it is not a folder"))

    def nature(self) -> Nature:
        with self._reached():
            self._require_folder()
            mount = mount_of(self._root)
        why = f"{mount.kind} is a network file system" if is_elsewhere(mount.kind) else ""
        return Nature(mount.kind or "a file system that cannot be told", mount.source, why)

    def _expected_marker(self, expected_marker_id: str | None) -> str | None:
        self._require_no_cache()
        return super()._expected_marker(expected_marker_id)

    def _require_no_cache(self, path: str = "") -> None:
        """Refuse a mount on which this PC may answer for a server that has not seen the bytes. `path`: below the root."""
        folder = f"{self._root}/{path}" if path else self._root
        try:
            device = os.stat(folder).st_dev
        except (FileNotFoundError, NotADirectoryError):
            if path:
                self._require_no_cache(path.rpartition("/")[0])
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

    def _read_own(self, path: str) -> bytes | None:
        return Folders(self._root).read(path, OWN_FILE_BYTES_MAX)

    def _place_marker_file(self, data: bytes) -> None:
        with self._own_probe() as temporary:
            write_whole(temporary, data)
            with contextlib.suppress(FileExistsError):
                place_new(temporary, f"{self._root}/{MARKER_FILE}")
        fsync_folder(Path(self._root))

    def _place_claim_file(self, destination: str, data: bytes) -> None:
        # Its bytes are durable; its name becomes so with the folders that `copy` makes durable after the data. Should a
        # power cut take the name and leave data, the folder counts as occupied, and an operator is asked.
        folders = Folders(self._root)
        folders.make(f"{destination}/{CACHE_FOLDER}")
        with self._partial_folder(folders, destination) as partial:
            temporary = f"{partial}/{temporary_name('claim')}"
            with removed_afterwards(temporary):
                write_whole(temporary, data)
                with contextlib.suppress(FileExistsError):  # another agent was faster: then its claim is judged
                    place_new(temporary, folders.path(f"{destination}/{CLAIM_PATH}"))

    def _exchange_a_nonce(self, while_there: WhileThere | None = None) -> bool:
        # A `stat` could be answered by a cache while the server is gone.
        nonce = secrets.token_hex(16).encode()
        with self._own_probe() as probe:
            try:
                write_whole(probe, nonce, mtime_ns=_PROBE_MTIME_NS)
            except OSError as error:
                if classified(error, "").kind is FailureKind.DESTINATION_FULL:
                    return False
                raise
            if while_there is not None:
                while_there(self._probe_name, nonce)
            if self._read_own(probe.rpartition("/")[2]) != nonce:
                raise OSError(errno.EIO, "what was written is not what is read back")
            self._keeps_times = abs(os.lstat(probe).st_mtime_ns - _PROBE_MTIME_NS) <= MTIME_TOLERANCE_NS
        return True

    @contextlib.contextmanager
    def _own_probe(self) -> Iterator[str]:
        """Yield the path of the probe file, which is not there now and will not be there afterwards."""
        path = f"{self._root}/{self._probe_name}"
        with self._probing, removed_afterwards(path):
            with contextlib.suppress(OSError):  # usually there is none; one that stays is said by what follows
                os.unlink(path)
            yield path

    def free_bytes(self) -> int | None:
        try:
            usage = shutil.disk_usage(self._root)
        except OSError:
            return None
        return usage.free if usage.total > 0 else None  # some network file systems do not know and say 0

    def top_names(self) -> tuple[str, ...] | None:
        with self._reached():
            return tuple(sorted(os.listdir(self._root)))

    # --- whose is it -------------------------------------------------------------------------------------------------

    def look(self, destination: str) -> DestinationLook:
        with self._answering("Cannot look at", destination):
            folders = Folders(self._root)
            return look_of(
                destination,
                claim=folders.read(f"{destination}/{CLAIM_PATH}", OWN_FILE_BYTES_MAX),
                creation=folders.read(f"{destination}/{CREATION_PATH}", OWN_FILE_BYTES_MAX),
                is_empty=self._holds_nothing(folders, destination),
            )

    def _holds_nothing(self, folders: Folders, destination: str) -> bool:
        """Say whether nothing is there but what a push of ours leaves that was stopped at once."""
        names = set(folders.names(destination)) - {PARTIAL_FOLDER}
        return not names or (names == {CACHE_FOLDER} and not folders.names(f"{destination}/{CACHE_FOLDER}"))

    # --- what is there -----------------------------------------------------------------------------------------------

    def listing(self, destination: str) -> Mapping[str, RemoteFile]:
        with self._answering("Cannot list", destination):
            folders = Folders(self._root)
            if not folders.is_there(destination):
                return {}
            found = walk(folders.path(destination), leave_out=_is_ours)
        return {
            entry.path: RemoteFile(entry.size_bytes, entry.mtime_ns if self._keeps_times else None)
            for entry in found.files
        }

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        with self._answering("Cannot read from", destination):
            return Folders(self._root).read(f"{destination}/{require_inside(relative_path)}", limit_bytes)

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        pulse = Pulse(control)
        found = {}
        with self._answering("Cannot read from", destination):
            folders = Folders(self._root)
            for entry in files:
                pulse.moved(0)
                with folders.opened(f"{destination}/{require_inside(entry.path)}") as descriptor:
                    if descriptor is not None:
                        found[entry.path] = sample_descriptor(descriptor, entry.size_bytes)
        return found

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        with self._answering("Cannot read from", destination):
            for path in paths:
                require_inside(path)
            return read_back(self._root, destination, paths, control=control)

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        with self._answering("Cannot write to", destination):
            require_apart(self._root, source_root)
            copier = FileCopier(source_root, control, workers=self._workers, clock=self._clock)
            folders = Folders(self._root)
            folders.make(destination)
            with self._partial_folder(folders, destination) as partial:
                for entry in files:
                    require_data_path(entry.path)
                copier.copy_new([self._order(folders, destination, entry, partial) for entry in files])
            # All folders, not only those written to now: a push that was killed made names that nobody made durable.
            for folder in folders.below(destination):
                folders.touch(f"{destination}/{folder}")
            folders.touch_up_to_root(destination)
            copier.make_durable(map(folders.path, folders.touched))

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
            copier = FileCopier(source_root, control, workers=self._workers, clock=self._clock)
            folders = Folders(self._root)
            folders.make(destination)
            with self._partial_folder(folders, destination) as partial:
                for entry in files:
                    require_cache_path(entry.path)
                copier.replace(
                    [self._order(folders, destination, entry, partial, data=instead.get(entry.path)) for entry in files]
                )
            copier.make_durable(map(folders.path, folders.touched))

    def _order(
        self, folders: Folders, destination: str, entry: FileEntry, partial: str, *, data: bytes | None = None
    ) -> Order:
        final = f"{destination}/{entry.path}"
        folder = final.rpartition("/")[0]
        folders.make(folder)
        folders.touch(folder)
        return Order(entry, temporary=f"{partial}/{temporary_name('partial')}", final=folders.path(final), data=data)

    @contextlib.contextmanager
    def _partial_folder(self, folders: Folders, destination: str) -> Iterator[str]:
        """Yield the folder for files on their way; it is gone afterwards unless something of others is in it."""
        folders.make(f"{destination}/{PARTIAL_FOLDER}")
        partial = folders.path(f"{destination}/{PARTIAL_FOLDER}")
        try:
            yield partial
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(partial)

    def write_small(self, path: str, data: bytes) -> None:
        with self._answering("Cannot write", path):
            folders = Folders(self._root)
            folder, _, name = path.rpartition("/")
            folders.make(folder)
            folders.touch_up_to_root(folder)
            for left in folders.names(folder) if folder else ():  # by a write that was killed
                if left.startswith(f".{name}.") and is_temporary_name(left):
                    os.unlink(folders.path(f"{folder}/{left}"))
            temporary = folders.path(f"{folder}/{temporary_name(name)}" if folder else temporary_name(name))
            with removed_afterwards(temporary):
                write_whole(temporary, data)
                os.replace(temporary, folders.path(path))
            FileCopier("", _UNHINDERED).make_durable(map(folders.path, folders.touched))

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        with self._answering("Cannot move aside in", destination):
            folders = Folders(self._root)
            standing = [path for path in paths if folders.has(f"{destination}/{require_data_path(path)}")]
            if not standing:
                return
            aside = folders.new_numbered(f"{SUPERSEDED_FOLDER}/{destination}")
            for path in standing:
                new_folder = f"{aside}/{path}".rpartition("/")[0]
                folders.make(new_folder)
                with contextlib.suppress(FileNotFoundError):  # one name of two that this share takes for the same
                    os.rename(folders.path(f"{destination}/{path}"), folders.path(f"{aside}/{path}"))
                folders.touch_up_to_root(new_folder)
                folders.touch(f"{destination}/{path}".rpartition("/")[0])
            FileCopier("", _UNHINDERED).make_durable(map(folders.path, folders.touched))

    def clear_partials(self, destination: str) -> None:
        with self._answering("Cannot clean up in", destination):
            folders = Folders(self._root)
            partial = f"{destination}/{PARTIAL_FOLDER}"
            for name in folders.names(partial):
                path = folders.path(f"{partial}/{name}")
                if is_temporary_name(name) and stat.S_ISREG(os.lstat(path).st_mode):
                    os.unlink(path)
            if folders.is_there(partial):
                with contextlib.suppress(OSError):
                    os.rmdir(folders.path(partial))

    def digest_bytes_max(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing runs between calls."""

    # --- shared ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _answering(self, doing: str, path: str) -> Iterator[None]:
        """The border: `path` must lie below the root, and what the system says becomes a TransportError."""
        require_inside(path)
        try:
            self._require_no_cache(path)
            yield
        except OSError as error:
            raise classified(error, f"{doing} {path!r} at {self._root}") from error
