"""What the inside needs of the outside: Protocols and their obligations.

Handlers and the engine know only these. Every method that reaches a disk or a network is called from a worker thread,
may be called again after a crash with the same arguments, and raises errors of `errors.py` only. Longer than other modules,
because it is mostly prose: the obligations of both sides are in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from exlab_watch_agent.core.binding import Below, BelowChange, accepted, below_change, mount_away
from exlab_watch_agent.core.binding import Binding as Binding
from exlab_watch_agent.core.binding import Nature as Nature
from exlab_watch_agent.core.claim import Claim as Claim
from exlab_watch_agent.core.claim import DestinationLook as DestinationLook
from exlab_watch_agent.core.creation import Creation, RunIdentity
from exlab_watch_agent.core.creation import SavedCreation as SavedCreation
from exlab_watch_agent.core.inventory import FileEntry, FileSignature, Inventory
from exlab_watch_agent.core.manifest import ExtraFiles as ExtraFiles
from exlab_watch_agent.core.passes import ReadBack as ReadBack
from exlab_watch_agent.core.passes import Uptime as Uptime
from exlab_watch_agent.core.policy import EquipmentPolicy, Policy
from exlab_watch_agent.core.problem import Dismissal
from exlab_watch_agent.core.reconcile import SeenRun as SeenRun
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.core.snapshot import FolderProblem
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.statechart import RunState


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Return the wall clock as aware UTC. It may jump."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        ...

    def uptime(self) -> Uptime:
        """Return for how long the machine has been up, as far as that is known: never more than really passed."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an effect is. `bytes_done` counts what need not be moved again, skipped files included."""

    bytes_done: int
    files_done: int


def _never() -> bool:
    return False


def _ignore(_: Progress) -> None:
    return None


def _unlimited() -> float | None:
    return None


First = TypeVar("First")
Second = TypeVar("Second")


class SideBySide(Protocol):
    """Runs two parts of one effect, at the same time where that is possible, and returns what both return.

    What the first raises cancels the second and is raised; what the second raises is raised once the first has ended.
    """

    def __call__(
        self, control: Control, first: Callable[[Control], First], second: Callable[[Control], Second], /
    ) -> tuple[First, Second]: ...


def one_after_the_other(
    control: Control, first: Callable[[Control], First], second: Callable[[Control], Second], /
) -> tuple[First, Second]:
    """Implements SideBySide where there is one thread."""
    return first(control), second(control)


NOTHING_ELSE: Mapping[str, bytes] = MappingProxyType({})
NOTHING_PLACED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Control:
    """What a running effect may ask of the engine, and tell it.

    `is_cancelled` is asked at least every few hundred milliseconds; when it says True the callee raises
    `CancelledError` and leaves nothing under a final name that is not whole. `report` may be called from any thread,
    often. `rate_bytes_per_s` is the bandwidth limit in force at this moment, None for none: ask it again for every
    piece, so that a limit that changes in the middle of a file holds at once. `side_by_side` runs two parts of the effect
    at the same time: an effect makes no threads of its own.
    """

    is_cancelled: Callable[[], bool] = _never
    report: Callable[[Progress], None] = _ignore
    rate_bytes_per_s: Callable[[], float | None] = _unlimited
    side_by_side: SideBySide = one_after_the_other


UNHINDERED = Control()


class RunTree(Protocol):
    """Reads run folders; never writes, never follows a link."""

    def inventory(self, run_path: str) -> Inventory:
        """Return what is in the run folder outside the cache folder.

        Raises: RunUnreadableError when any part cannot be listed (a short inventory would be a lie);
        RootUnavailableError when the run folder itself is not there.
        """
        ...

    def has_name(self, run_path: str, name: str) -> bool:
        """Return whether anything has this name directly in the run folder; True when that cannot be told."""
        ...

    def has_data(self, run_path: str) -> bool:
        """Return whether anything is in the run folder beside the cache folder; True when that cannot be told."""
        ...

    def cache_files(self, run_path: str) -> tuple[FileEntry, ...]:
        """Return the regular files of the cache folder that travel to the NAS, paths relative to the run folder."""
        ...

    def cache_signature(self, run_path: str) -> int:
        """Return how the cache folder looks: another number once a name in it, or one of CHANGE_LATER, was written.

        A line more in a log changes it not. Raises RunUnreadableError.
        """
        ...

    def read_small(self, run_path: str, relative_path: str, *, limit_bytes: int) -> bytes:
        """Return at most `limit_bytes` of one regular file. Raises RunUnreadableError."""
        ...


class RunScanner(Protocol):
    """Walks the levels of one equipment down to its runs; never into the data."""

    def scan(self, equipment: EquipmentPolicy, *, with_caches: bool = False) -> tuple[SeenRun, ...]:
        """Return every folder in the equipment's Runs and TestRuns folders, sorted by path; on demand how their cache folders look.

        Raises: RootUnavailableError when the equipment's folder or any level above the runs cannot be listed: a short
        list would make runs look deleted.
        """
        ...

    def misplaced(
        self, equipment: EquipmentPolicy, seen: Iterable[SeenRun], policy: Policy
    ) -> Mapping[str, FolderProblem]:
        """Return what is to be told of each `creation.json` that stands where no run can be, by the path of the folder at fault.

        `seen`: what `scan` has just returned; `policy`: which instruments the config has. Bounded, and never raises: what cannot
        be looked at is passed over.
        """
        ...

    def is_there(self, path: str) -> bool:
        """Return whether anything is at this path; True when that cannot be told."""
        ...

    def volume(self, equipment: EquipmentPolicy) -> str:
        """Return what tells the equipment's folder from another folder or volume that has its name.

        The same folder may have another identity after a reboot or a new mount. Raises: RootUnavailableError.
        """
        ...

    def is_empty(self, equipment: EquipmentPolicy) -> bool:
        """Return whether nothing is in the equipment's folder but hidden entries. Raises: RootUnavailableError."""
        ...

    def free_bytes(self, equipment: EquipmentPolicy) -> int | None:
        """Return the free bytes on the disk of the equipment's folder, None where that cannot be told."""
        ...


class RootLock(Protocol):
    """Keeps the agents of other state folders off an equipment's root."""

    def take(self) -> None:
        """Hold the root from now on; nothing where it is held already.

        Raises: RootUnavailableError when another agent holds it, the lock cannot be placed there, or there is no root.
        """
        ...

    def release(self) -> None:
        """Release the root. May be called again, and without having taken it."""
        ...


@dataclass(frozen=True, slots=True)
class CreationFile:
    """A parsed `creation.json` with the signature of the very file that was read (for "was that our own write?")."""

    creation: Creation
    signature: FileSignature


@dataclass(frozen=True, slots=True)
class CreationText:
    """The bytes that a `creation.json` is to hold, made from the file of this signature. Nothing is written yet."""

    data: bytes
    signature: FileSignature


class CreationFiles(Protocol):
    """Reads and changes `creation.json`. Every change holds the lock over the whole read-change-write."""

    def read(self, run_path: str) -> CreationFile:
        """Raises CreationFileError with code, line and column."""
        ...

    def set_sync_status(self, run_path: str, sync_status: str) -> SavedCreation:
        """Write `sync_status` into the file, durably, all else kept; return which file was changed into which.

        Writes nothing when the file says so already.
        """
        ...

    def text_with_status(self, run_path: str, sync_status: str) -> CreationText:
        """Return what `set_sync_status` would write; the text as it is when the file has that status already."""
        ...

    def put_text(self, run_path: str, text: CreationText) -> SavedCreation:
        """Write a text of `text_with_status` into the file, durably; return which file was changed into which.

        Raises: CreationFileError with the code `changed`, and writes nothing, when the file was replaced meanwhile.
        """
        ...

    def append_override(self, run_path: str, entry: Mapping[str, Any]) -> FileSignature:
        """Append one entry to `validation_overrides`, durably, all else kept; return the file's new signature."""
        ...


class Digester(Protocol):
    """Hashes local files. Reads each byte once, caches no file in memory."""

    def digests(self, root: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str]:
        """Return POSIX path → 64 lowercase hex SHA-256, for exactly these files.

        A file that is gone is left out. Raises: SourceChangedError if a file's size, mtime, ctime or identity is not
        the entry's before and after reading; RunUnreadableError when a file exists and cannot be read.
        """
        ...

    def samples(self, root: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str]:
        """Return POSIX path → xxh3_128 hex over the sampled blocks of each file (see core/sampling.py)."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file at the destination. `mtime_ns` is None where the backend keeps none."""

    size_bytes: int
    mtime_ns: int | None


class Transport(Protocol):
    """One way to one equipment's NAS folder, the *destination root*.

    `destination` is always a run's POSIX path relative to that root. Nothing at the destination is ever deleted except
    the agent's own temporary files and probe files. No method trusts an answer that a cache on this side could have
    given where the platform allows to ask again.
    """

    def describe(self) -> str:
        """Return the destination root for people, without secrets."""
        ...

    def check_tools(self) -> tuple[str, ...]:
        """Return a sentence for each program that is used, with its version, and for what an operator should know of it.

        Raises: TransportError with `binary_missing` when one is missing or too old.
        """
        ...

    def nature(self) -> Nature:
        """Return what the root lies on, and whether that shows it to be a place other than this PC.

        Raises: DestinationUnreachableError when the root is missing, or is of a kind that is refused.
        """
        ...

    def bind(self, *, known_marker_id: str | None = None) -> str:
        """Return the id in the root's marker `.exlab-watch-agent.json`: a new one where there was none, else what is there.

        With `known_marker_id` nothing is placed: the marker must be that one. Never creates the root.
        Raises: DestinationUnreachableError when the root does not answer, is missing, or its marker is damaged or another.
        """
        ...

    def put_marker_back(self, marker_id: str) -> None:
        """Place the root's marker with this id again, where there is none; never creates the root.

        To be called when it is shown that this is the root which had it. Raises: DestinationUnreachableError as `bind`.
        """
        ...

    def probe(self, *, expected_marker_id: str | None) -> None:
        """Return when the root has the expected marker, and keeps and gives back a few bytes.

        Raises: DestinationUnreachableError when it does not answer, is missing, has no marker or another id than expected;
        also when nothing is expected yet.
        """
        ...

    def require_marker(self, *, expected_marker_id: str | None) -> None:
        """Return when the root's marker is the expected one now: the cheap question before and after each piece of work.

        Raises: DestinationUnreachableError as `probe` does.
        """
        ...

    def round_trip(self, while_there: Callable[[str, bytes], None] | None = None) -> None:
        """Write a probe file of our own into the root, read it back, compare and remove it; leaves nothing, places no marker.

        `while_there` is called with its path below the root and its bytes while it is there; what it raises is raised.
        Raises: DestinationUnreachableError; with `while_there` also where there is no room for the probe file.
        """
        ...

    def below(self, folder: str) -> Below | None:
        """Return what this first folder below the root lies on: a mount of its own, or the root's file system; so if it is absent.

        None where the way cannot tell. Raises: DestinationUnreachableError.
        """
        ...

    def free_bytes(self) -> int | None:
        """Return the free space of the root, None where it cannot be told."""
        ...

    def top_names(self) -> tuple[str, ...] | None:
        """Return the names directly in the root, sorted, for a person to recognise it; None where they cannot be told."""
        ...

    def look(self, destination: str) -> DestinationLook:
        """Return whose folder `destination` is."""
        ...

    def place_claim(self, destination: str, claim: Claim) -> None:
        """Write `claim` at the destination, exclusively. A claim of another job is never replaced.

        Raises: DestinationOccupiedError when there is one, with the kind of conflict that it is.
        """
        ...

    def require_claim(self, destination: str, claim: Claim) -> None:
        """Return when the claim at the destination, as the NAS has it now, is this one.

        To be asked after `place_claim` and before the data: where nothing is created exclusively, another agent may have placed its
        own in the same moment. `copy` asks again after the data there. Raises: DestinationOccupiedError as `place_claim` does;
        TransportError when there is none.
        """
        ...

    def listing(
        self, destination: str, *, due: Sequence[FileEntry] = (), control: Control = UNHINDERED
    ) -> Mapping[str, RemoteFile]:
        """Return all regular files below the destination (cache folder and own temporary files left out): POSIX path → file.

        An absent folder is an empty mapping. `due`: files that were pushed a moment ago. While one of them is missing or shorter, a
        server whose listings may lag behind what it took in is asked again, for some seconds; where a listing is what is there
        it is believed at once. Raises: CancelledError.
        """
        ...

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        """Copy these data files to names that do not exist at the destination; durable when it returns.

        Each file appears under its final name only when whole, with the source's mtime. Names that do exist are never
        replaced. Raises: SourceChangedError when a file is not what its entry says before or after it was read;
        TransportError with `local_file_vanished` when one is gone.
        """
        ...

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        *,
        control: Control,
        instead: Mapping[str, bytes] = NOTHING_ELSE,
        placed: Mapping[str, str] = NOTHING_PLACED,
    ) -> None:
        """Copy these small agent-kept files (the cache folder) over what is there, each atomically and durably.

        Of what others wrote there a copy is kept first (`core.seal.says_more`); `placed`: path → SHA-256 of what the agent put
        there last, of which none is.
        `instead`: path of one of them → the bytes to place in the stead of what the local file holds.
        """
        ...

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        """Return the bytes of one file as the NAS has them now; None when it is not there."""
        ...

    def read_several(self, destination: str, relative_paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        """Return path → bytes of those of a few small files that are there, as `read_small` does, with fewer questions."""
        ...

    def is_any_there(self, paths: Sequence[str]) -> bool:
        """Return whether there is a file under any of these paths below the root. One that is kept private counts as absent."""
        ...

    def write_small(self, path: str, data: bytes) -> None:
        """Write one small agent-owned file below the root (heartbeat, receipts), atomically and durably.

        `path` is relative to the destination root; missing folders are made.
        """
        ...

    def can_move(self) -> bool:
        """Whether `set_aside` moves files at once; else each stays until its successor comes, and one without any for ever."""
        ...

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        """Move these files to `.exlab-superseded/<destination>/<n>/` below the root; a name that is gone is skipped."""
        ...

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        """Return what `Digester.samples` returns, of the destination's bytes; None where ranges cannot be read.

        A file that is missing is left out.
        """
        ...

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        """Return SHA-256 of the bytes at the destination, read again, and how they were read. A missing file is left out.

        Raises: TransportError.
        """
        ...

    def digest_bytes_max(self) -> int | None:
        """Return the size above which a file is not to be asked of `read_back`; None for no bound.

        There is a bound where each file would have to be downloaded to be hashed (`verify.max_stream_bytes`).
        """
        ...

    def clear_partials(self, destination: str) -> None:
        """Remove what an earlier, interrupted push of ours left under temporary names. Idempotent."""
        ...

    def close(self) -> None:
        """End what the transport keeps running between calls. May be called twice; a later call begins again."""
        ...


class Apartness(Protocol):
    """Shows that a destination is not the instrument's own folder: what one of the two is given must not appear in the other.

    Ordinary ways to this are a `local_root` that is itself a mount of the NAS, and a bind mount. Then nothing may be written
    or moved there: what looks like a copy is the original.
    """

    def require_root(self, *, anew: bool = False, is_first: bool = False) -> None:
        """Return when the root is shown to be apart from every equipment's folder; asked once a day, and `anew` always.

        `is_first`: before it is bound, all of these folders are searched, however deep.

        Raises: DestinationIsSourceError; DestinationUnreachableError when it cannot be asked.
        """
        ...

    def require_run(self, run_path: str, destination: str) -> None:
        """Return when the run's own folder is not what is at its destination; asked each time.

        Raises: DestinationIsSourceError; RootUnavailableError when there is no run folder; RunUnreadableError when no file
        can be made in it; TransportError.
        """
        ...


class ManifestStore(Protocol):
    """Keeps the manifest that the verifier wrote for each run, outside the run folder, and what was found wrong there."""

    def save(self, job_id: str, data: bytes) -> None:
        """Make this the run's manifest, durably. Raises: ManifestNotKeptError."""
        ...

    def load(self, job_id: str, *, digest: str) -> bytes | None:
        """Return the manifest whose SHA-256 is `digest`, None when it is not there or differs."""
        ...

    def note_wrong(self, job_id: str, paths: Sequence[str]) -> None:
        """Keep the names of data files whose copies were found wrong, durably, for the next push. Raises: ManifestNotKeptError."""
        ...

    def wrong(self, job_id: str) -> frozenset[str]:
        """Return the names that were noted last; none where there is no list, or none that can be read."""
        ...

    def forget_wrong(self, job_id: str) -> None:
        """Remove the list, durably: the names have made room, or proved right. Raises: ManifestNotKeptError."""
        ...

    def keep_extra(self, job_id: str, extra: ExtraFiles) -> None:
        """Keep what the last comparison found there beside the run's own files. Raises: ManifestNotKeptError."""
        ...


class Sealer(Protocol):
    """Writes the agent's own files into a run's cache folder, each atomically and durably."""

    def write(self, run_path: str, relative_path: str, data: bytes) -> None:
        """Write the file. The cache folder must be there; nothing outside it can be named."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit trail to be: a move (record and move set), or another fact with its `data`."""

    kind: str
    record: RunRecord | None = None
    move: Move | None = None
    operator: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class RunsView(Protocol):
    """The runs as they were at one moment; never changes. From any thread."""

    def get(self, job_id: str) -> RunRecord | None: ...

    def at(self, run_path: str) -> RunRecord | None:
        """Return the run at this path."""
        ...

    def state_at(self, run_path: str) -> RunState | None:
        """Return its state, which costs less than its record."""
        ...


class RunStore(Protocol):
    """Keeps the records and the audit trail. Only the engine's loop calls it; other threads read `view` and nothing else."""

    @property
    def view(self) -> RunsView:
        """The runs as of the last commit: another value after each."""
        ...

    def get(self, job_id: str) -> RunRecord | None: ...

    def by_path(self, run_path: str) -> RunRecord | None: ...

    def by_identity(self, identity: RunIdentity) -> tuple[RunRecord, ...]: ...

    def __iter__(self) -> Iterator[RunRecord]: ...

    def __len__(self) -> int: ...

    def ids_in(self, states: Collection[RunState], equipment_id: str | None = None) -> tuple[str, ...]:
        """Return the job ids of the runs in these states (of one equipment); costs what it returns, not what is stored."""
        ...

    def paths_in(self, states: Collection[RunState], equipment_id: str | None = None) -> tuple[str, ...]:
        """Return the run paths of the runs in these states (of one equipment); costs as `ids_in`."""
        ...

    def state_of(self, job_id: str) -> RunState | None:
        """Return a run's state without its record, None for an unknown one. May be called from any thread."""
        ...

    def counts(self) -> Mapping[RunState, int]:
        """Return how many runs are in each state; states without runs are left out."""
        ...

    @property
    def dismissals(self) -> Mapping[str, Dismissal]:
        """Id of a problem → that an operator wants it listed no more."""
        ...

    def binding(self, equipment_id: str, spelling: str) -> Binding | None:
        """Return an equipment's binding, None before the first one; `spelling`: of the root that is configured."""
        ...

    def mounts(self, equipment_id: str, spelling: str) -> Mapping[str, Below]:
        """Return the mounts that are known directly below this root: folder → mount."""
        ...

    def root_volume(self, equipment_id: str) -> str | None:
        """Return the volume on which this equipment's root was last bound (`root_bound`), None before the first time."""
        ...

    @property
    def hold(self) -> str | None:
        """Why nothing may be deleted until an operator has accepted the state; None when deletion is not held."""
        ...

    @property
    def position(self) -> TrailPosition:
        """The audit trail's last line."""
        ...

    def digest_at(self, seq: int) -> str | None:
        """Return the digest of the trail's line with this number, None where there is none that can be read."""
        ...

    @property
    def ahead(self) -> TrailPosition | None:
        """The furthest anchor on the NAS that was found not to fit the trail; None where there never was one."""
        ...

    def accept_trail(self, operator: str, reason: str, at: datetime) -> bool:
        """End the hold: the operator takes the state as it is for true. Durable, with a line of its own in the trail.

        Return whether anything was in doubt. Raises: as `commit`.
        """
        ...

    @property
    def folder_id(self) -> str:
        """What the state folder is called, whoever works in it: 32 hex."""
        ...

    def accept_machine(self, operator: str, reason: str, at: datetime) -> bool:
        """Be at home on this machine from now on. Return whether the folder was not before. Raises: as `commit`."""
        ...

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        """Make all entries durable with one fsync, then true in memory.

        Raises: StoreFullError when there is no room: none of them is true, and the same commit may be tried again later;
        StoreWriteError otherwise: none of them is true and the engine must stop.
        """
        ...


def _not_known() -> float:
    return 0.0


def _never_gone(_: str) -> bool:
    return False


def _always_has(_: TrailPosition) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class AgentSelf:
    """Who this agent is. `state_folder`: its id, which others know it by. `host` is for people.

    `machine`: 32 hex, empty where the system says nothing. `state_dir`: where the state folder is. `is_gone`: whether
    nothing is at a path of this machine any more; False where that cannot be told. `has_line`: whether a line is in its audit
    trail, True where that cannot be told: an older copy of the state folder, and a copy of it on another machine, lack some.
    """

    state_folder: str = ""
    host: str = ""
    machine: str = ""
    state_dir: str = ""
    is_gone: Callable[[str], bool] = _never_gone
    has_line: Callable[[TrailPosition], bool] = _always_has

    def signed(self, claim: Claim) -> Claim:
        """Return the claim as this agent makes it."""
        return replace(claim, state_folder=self.state_folder, host=self.host)


@dataclass(frozen=True)
class Ports:
    """What the effects of one lane work with, and what the engine knew of both of its sides when they began.

    `root`: the equipment's folder. `binding`: the equipment's, which may be to another root than `transport` leads to.
    `mounts`: those that are known directly below the root that it leads to.
    `volume`: identity of the equipment's folder as the last scan found it, None before the first.
    `agent`: who works; `ran_s`: for how long, in seconds, agents of its state folder have run in all, as far as known.
    """

    clock: Clock
    tree: RunTree
    creations: CreationFiles
    digester: Digester
    scanner: RunScanner
    root_lock: RootLock
    transport: Transport
    manifests: ManifestStore
    sealer: Sealer
    equipment: EquipmentPolicy
    root: str
    policy: Policy
    apartness: Apartness
    binding: Binding | None = None
    mounts: Mapping[str, Below] = field(default_factory=dict)
    volume: str | None = None
    agent: AgentSelf = AgentSelf()
    ran_s: Callable[[], float] = _not_known

    def marker_id(self) -> str | None:
        """Return the id of the destination root's marker where that root was accepted, else None."""
        return accepted(self.binding, self.transport.describe())

    def require_mounts(self, folder: str = "") -> None:
        """Return when each mount that is known below the destination root is there, and `folder` is no automount that is away.

        Asked with the marker: where such a mount is away, the folder that it hides accepts writes, and its emptiness looks
        like damage. Raises: DestinationUnreachableError.
        """
        for name in {*self.mounts, *filter(None, [folder])}:
            known = self.mounts.get(name)
            if below_change(known, self.transport.below(name)) is BelowChange.AWAY:
                raise mount_away(self.equipment.equipment_id, self.transport.describe(), name, known)

    def require_root(self) -> None:
        """Return when the equipment's folder is the one that the last scan found to be ours. Asks the disk.

        Between that scan and now another volume may have been mounted. Raises: RootUnavailableError.
        """
        if self.volume is not None and self.scanner.volume(self.equipment) != self.volume:
            raise RootUnavailableError(f"{self.root} is no longer the same folder or volume as a moment ago.")
