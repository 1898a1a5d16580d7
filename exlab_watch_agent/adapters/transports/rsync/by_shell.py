"""The transport for a server that one reaches by ssh: rsync moves the data, a shell on the target does all else.

Decided here: what stands where at the destination, the order of a push, and what proves that the target is the one that is
meant. Not here: the connection (ssh_session.py), the scripts (target_folder.py), rsync's options (rsync_process.py), the
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
import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter
from pathlib import Path

import xxhash
from blake3 import blake3

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.local.digests import Pulse
from exlab_watch_agent.adapters.transports.rsync import target_folder
from exlab_watch_agent.adapters.transports.rsync.connection import SshConnection, SshLogin
from exlab_watch_agent.adapters.transports.rsync.program import Rsync, Told, local_rsync_version
from exlab_watch_agent.adapters.transports.rsync.remote_shell import ANSWER_S
from exlab_watch_agent.adapters.transports.rsync.target_folder import (
    BLOCK_BYTES,
    TargetEntry,
    TargetFolder,
    classified_target,
)
from exlab_watch_agent.adapters.transports.shared.local_side import (
    as_it_is,
    bytes_to_place,
    require_sources,
    require_sources_unchanged,
)
from exlab_watch_agent.adapters.transports.shared.marked_root import MarkedRoot, WhileThere, look_of
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
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry
from exlab_watch_agent.core.placing import folders_of, plan_moves
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS
from exlab_watch_agent.core.sampling import BLOCK_BYTES as SAMPLE_BYTES
from exlab_watch_agent.core.sampling import sample_offsets
from exlab_watch_agent.errors import (
    CancelledError,
    FailureKind,
    TransportError,
)
from exlab_watch_agent.ports import NOTHING_ELSE, Control, RemoteFile

PORTION_BYTES = 512 * 1024 * 1024
PORTION_FILES = 10_000
"""What is lost at most when a push is cut off. A portion costs one start of rsync, 60 ms."""
SAMPLED_FROM_BYTES = 256 * 1024 * 1024
"""Each sampled block is a program started on the target: below this size the verification itself costs less."""
_HASH_PORTION_BYTES = 64 * 1024 * 1024
_HASH_PORTION_FILES = 500
_HASHERS_MAX = 4
_SLOWEST_HASH_BYTES_PER_S = 1_000_000
_ASKED_BYTES_MAX = 1024 * 1024
_ASKED_NULS_MAX = 1000
_PROBE_MTIME_S = 1_000_000_000
_PROBE_MTIME_TEXT = "200109090146.40"
_UNHINDERED = Control()


class RsyncSshTransport(MarkedRoot):
    """Implements ports.Transport on a folder of a server with a shell.

    `owner`: as in mounted_path. `is_metered`: whether a bandwidth limit may come into force; where it never can, the data
    take the shorter way. `children`: without it the transport has its own, ended by `close`.
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
    ) -> None:
        super().__init__(f"{target.host}:{target.remote_path}")
        self._root = target.remote_path
        self._own_children = Children() if children is None else None
        self._children = children or self._own_children or Children()
        login = SshLogin(target.host, target.port, target.key_path, target.known_hosts_path)
        self._connection = SshConnection(login, self._children, socket_folder)
        self._rsync = Rsync(self._children, login, stall_s, is_metered)
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
            found = _data_below(folder, destination)
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
            standing = _data_below(folder, destination)
            wanted = [entry for entry in files if entry.path in standing and standing[entry.path].is_file]
            sampler = _Sampler(wanted, {entry.path: standing[entry.path].size_bytes for entry in wanted})
            folder.blocks(destination, sampler.blocks, sampler.take)
        return sampler.digests()

    def digests(self, destination: str, paths: Sequence[str], *, control: Control) -> dict[str, str]:
        for path in paths:
            require_inside(path)
        _check(control)()
        tools = self._connection.tools()
        with self._folder(destination, control) as folder:
            standing = _data_below(folder, destination)
        files = [(path, standing[path].size_bytes) for path in paths if path in standing and standing[path].is_file]
        if tools.hasher is None:
            return self._streamed_digests(destination, files, control)
        waiting = deque(
            portions(files, count_max=_HASH_PORTION_FILES, bytes_max=_HASH_PORTION_BYTES, size_bytes_of=itemgetter(1))
        )
        workers = min(len(waiting), _HASHERS_MAX, max(1, tools.processors))
        found: dict[str, str] = {}
        pulse = Pulse(control)
        has_failed = threading.Event()

        def work_off() -> None:
            own = Control(lambda: has_failed.is_set() or control.is_cancelled())
            try:
                with self._folder(destination, own) as folder:
                    while waiting:
                        with contextlib.suppress(IndexError):
                            self._hash_portion(folder, destination, waiting.popleft(), found, pulse)
            except BaseException:
                has_failed.set()
                raise

        if workers <= 1:
            work_off()
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="remote-digests") as pool:
                ends = [pool.submit(work_off) for _ in range(workers)]
            errors = [error for end in ends if (error := end.exception()) is not None]
            if errors:
                raise next((e for e in errors if not isinstance(e, CancelledError)), errors[0])
        pulse.finished()
        return found

    @staticmethod
    def _hash_portion(
        folder: TargetFolder, destination: str, files: Sequence[tuple[str, int]], found: dict[str, str], pulse: Pulse
    ) -> None:
        size_bytes = sum(size for _, size in files)
        some = folder.digests(
            destination, [path for path, _ in files], silence_s=ANSWER_S + size_bytes / _SLOWEST_HASH_BYTES_PER_S
        )
        if len(some) != len(files):
            standing = _data_below(folder, destination)
            left = [path for path, _ in files if path not in some and path in standing]
            if left:
                text = f"Cannot hash {left[0]!r} on the target: the account may not read it, or its disk fails."
                raise TransportError(FailureKind.AUTH, text)
        found |= some
        for _ in files:
            pulse.finished_file()
        pulse.moved(size_bytes)

    def digest_bytes_max(self) -> int | None:
        return None if self._connection.tools().hasher is not None else self._stream_bytes_max

    def _streamed_digests(self, destination: str, files: Sequence[tuple[str, int]], control: Control) -> dict[str, str]:
        """The same where nothing on the target can hash: all bytes come back here."""
        found = {}
        pulse = Pulse(control)
        with self._folder(destination, control) as folder:
            for path, _ in files:
                hasher = hashlib.sha256()

                def take(data: bytes, hasher: hashlib._Hash = hasher) -> None:
                    hasher.update(data)
                    pulse.moved(len(data))

                if folder.stream(f"{destination}/{path}", take):
                    found[path] = hasher.hexdigest()
                    pulse.finished_file()
        pulse.finished()
        return found

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        for entry in files:
            require_data_path(entry.path)
        with self._folder(destination, control) as folder:
            standing = _data_below(folder, destination)
            _require_free(files, standing, destination)
            folders = {path for path, entry in standing.items() if entry.is_folder}
            told = Told(control)
            for portion in portions(
                files, count_max=PORTION_FILES, bytes_max=PORTION_BYTES, size_bytes_of=attrgetter("size_bytes")
            ):
                try:
                    self._copy_portion(folder, source_root, portion, destination, folders, control, told)
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

    def _copy_portion(
        self,
        folder: TargetFolder,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        folders: set[str],
        control: Control,
        told: Told,
    ) -> None:
        waiting = _own_folder(destination, "push")
        self._stage(folder, source_root, files, destination, waiting, control, told)
        require_sources_unchanged(source_root, files)
        moves = plan_moves([entry.path for entry in files], folders)
        said = folder.move_new(waiting, destination, moves)
        left = sorted(path for path, entry in folder.survey(waiting).items() if entry.is_file)
        if left and said:
            raise classified_target(f"Cannot give {left[0]!r} its name at {self._name}", said)
        if left:
            raise TransportError(FailureKind.UNKNOWN, _taken(left[0], destination))
        folders |= folders_of(entry.path for entry in files)
        told.finish(files)

    def _stage(
        self,
        folder: TargetFolder,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        waiting: str,
        control: Control,
        told: Told,
    ) -> None:
        """Let rsync copy the files into the folder `waiting`, and require that all of them are there."""
        require_sources(source_root, files)
        folder.make(waiting)
        large = [entry.path for entry in files if entry.size_bytes >= target_folder.PIECE_KEPT_BYTES]
        may_resume = bool(large) and folder.offer_pieces(destination, waiting, large)
        try:
            self._rsync.push(
                source_root,
                files,
                f"{self._root}/{waiting}",
                remote_shell=self._connection.remote_shell_words(),
                control=control,
                report=told.report,
                may_resume=may_resume,
            )
        except TransportError:
            require_sources(source_root, files)  # one that is gone or changed is the reason, whatever rsync said
            raise
        arrived = {path: entry for path, entry in folder.survey(waiting).items() if not entry.is_folder}
        expected = {entry.path: entry.size_bytes for entry in files}
        if {path: entry.size_bytes for path, entry in arrived.items()} != expected:
            require_sources_unchanged(source_root, files)
            odd = sorted(set(expected) ^ set(arrived)) or sorted(
                p for p in expected if arrived[p].size_bytes != expected[p]
            )
            raise arrived_under_another_name(odd[0], self._name)

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
                waiting = _own_folder(destination, "push")
                growing = [as_it_is(source_root, entry.path) for entry in read]
                self._stage(folder, source_root, growing, destination, waiting, control, Told(_UNHINDERED))
                folder.move_over(waiting, destination, [entry.path for entry in read])
                folder.clear_partials(destination, keeps_pieces=False, then_syncs=True)
        # Last, so that what is given never says more than what stands beside it.
        self._replace_by_asking(given, destination, control)

    def _replace_by_asking(self, files: Mapping[str, bytes], destination: str, control: Control) -> None:
        if not files:
            return
        with self._folder(destination, control) as folder:
            small = [(f"{destination}/{path}", data) for path, data in files.items()]
            folder.replace(small, _own_folder(destination, "small"))

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
            standing = _data_below(folder, destination)
            moving = [path for path in wanted if path in standing]
            if not moving:
                return
            aside = folder.new_numbered_folder(f"{SUPERSEDED_FOLDER}/{destination}")
            parents: dict[str, list[str]] = {}
            for path in moving:
                parent, _, name = path.rpartition("/")
                parents.setdefault(parent, []).append(name)
            said = folder.move_new(destination, aside, parents)
            left = [path for path in moving if path in _data_below(folder, destination)]
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
        check = _check(control)
        with self._connection.shell(check) as shell:
            yield TargetFolder(shell, self._connection.tools(), self._root, check)


def nature_of(name: str) -> Nature:
    """Return the nature of a root that is reached by ssh."""
    return Nature("rsync over ssh", name, "it is reached by ssh")


def _check(control: Control) -> Callable[[], None]:
    def check() -> None:
        if control.is_cancelled():
            raise CancelledError("stopped as asked")

    return check


def _own_folder(destination: str, kind: str) -> str:
    """Return a new name for a folder of ours; `TargetFolder.clear_partials` knows the form."""
    return f"{destination}/{PARTIAL_FOLDER}/{secrets.token_hex(8)}.{kind}"


def _data_below(folder: TargetFolder, destination: str) -> dict[str, TargetEntry]:
    return folder.survey(destination, leave_out=(CACHE_FOLDER, PARTIAL_FOLDER))


def _taken(path: str, destination: str) -> str:
    return f"Cannot write {path!r} in {destination!r}: something of that name stands there already, and it is never replaced."


def _require_free(files: Iterable[FileEntry], standing: Mapping[str, TargetEntry], destination: str) -> None:
    """Raise TransportError when a name is taken, or something else than a folder stands where a folder must be."""
    for entry in files:
        if entry.path in standing:
            raise TransportError(FailureKind.UNKNOWN, _taken(entry.path, destination))
    for path in folders_of(entry.path for entry in files):
        if path in standing and not standing[path].is_folder:
            text = f"{path!r} in {destination!r} is a link or a file where a folder must be: move it away, then retry."
            raise TransportError(FailureKind.UNKNOWN, text)


class _Sampler:
    """Turns the target's blocks, which come one after the other in one stream, into one digest a file.

    `dd` reads at multiples of its block: so of each sample both blocks in which it can lie are asked for.
    """

    def __init__(self, files: Sequence[FileEntry], sizes: Mapping[str, int]) -> None:
        self.blocks: list[tuple[str, list[int]]] = []
        self._hashers = {entry.path: xxhash.xxh3_128() for entry in files}
        self._expected: deque[tuple[str, int, int, int]] = deque()  # path, bytes that come, sample from, sample to
        self._left = bytearray()
        for entry in files:
            numbers = []
            for offset in sample_offsets(entry.size_bytes):
                number = offset // BLOCK_BYTES
                coming = min(max(0, sizes[entry.path] - number * BLOCK_BYTES), 2 * BLOCK_BYTES)
                begin = offset - number * BLOCK_BYTES
                end = begin + min(SAMPLE_BYTES, entry.size_bytes - offset)
                numbers.append(number)
                self._expected.append((entry.path, coming, begin, end))
            self.blocks.append((entry.path, numbers))

    def take(self, data: bytes) -> None:
        self._left += data
        while self._expected and len(self._left) >= self._expected[0][1]:
            path, coming, begin, end = self._expected.popleft()
            self._hashers[path].update(bytes(self._left[:coming][begin:end]))
            del self._left[:coming]

    def digests(self) -> dict[str, str]:
        """Return path → xxh3_128. Raises: TransportError when less or more came than the files' sizes promised."""
        if self._expected or self._left:
            raise TransportError(FailureKind.NETWORK, "Files on the target changed while samples of them were read.")
        return {path: hasher.hexdigest() for path, hasher in self._hashers.items()}
