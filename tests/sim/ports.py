"""The ports over the world in memory. Every call may be the last (a kill), may meet a fault, and lets the world go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.transports.shared.own_files import (
    claim_text,
    look_of,
    require_cache_path,
    require_data_path,
)
from exlab_watch_agent.core.binding import Below, Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, Claim, DestinationLook, conflict_at, standing
from exlab_watch_agent.core.creation import Creation, OverrideEntry, identity_in
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.heartbeat import FOLDER as HEARTBEATS
from exlab_watch_agent.core.inventory import (
    CACHE_FOLDER,
    CREATION_FILE,
    CREATION_PATH,
    FileEntry,
    FileSignature,
    Inventory,
)
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.policy import EquipmentPolicy, Policy
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER
from exlab_watch_agent.core.snapshot import FolderProblem
from exlab_watch_agent.errors import (
    CancelledError,
    CreationFileError,
    DestinationIsSourceError,
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    ManifestNotKeptError,
    MarkerMissingError,
    RootUnavailableError,
    RunUnreadableError,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import (
    NOTHING_ELSE,
    NOTHING_PLACED,
    UNHINDERED,
    Control,
    CreationFile,
    CreationText,
    RemoteFile,
    SavedCreation,
    SeenRun,
)
from tests.sim.world import LOCAL_ROOT, LocalFile, Nas, NasFile, SimRun, Violation, World, entry, status_in


def signature(file: LocalFile) -> FileSignature:
    return FileSignature(file.ctime_ns, len(file.data), file.inode)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def run_at(world: World, run_path: str) -> SimRun:
    run = world.runs.get(run_path)
    if run is None or run.equipment_id in world.roots_away:
        raise RootUnavailableError(f"{run_path} is not there")
    return run


class MemoryTree:
    """Implements ports.RunTree."""

    def __init__(self, world: World) -> None:
        self._world = world

    def inventory(self, run_path: str) -> Inventory:
        self._world.port("inventory")
        run = run_at(self._world, run_path)
        if run.is_locked:
            raise RunUnreadableError(f"{run_path} is locked")
        return run.inventory()

    def has_name(self, run_path: str, name: str) -> bool:
        self._world.port("has_name")
        run = self._world.runs.get(run_path)
        return run is not None and name in run.files

    def has_data(self, run_path: str) -> bool:
        self._world.port("has_data")
        run = self._world.runs.get(run_path)
        return run is not None and bool(run.files)

    def cache_files(self, run_path: str) -> tuple[FileEntry, ...]:
        self._world.port("cache_files")
        cache = run_at(self._world, run_path).cache
        return tuple(entry(f"{CACHE_FOLDER}/{name}", file) for name, file in sorted(cache.items()))

    def cache_signature(self, run_path: str) -> int:
        self._world.port("cache_signature")
        return cache_look(run_at(self._world, run_path))

    def read_small(self, run_path: str, relative_path: str, *, limit_bytes: int) -> bytes:
        self._world.port("read_small")
        run = run_at(self._world, run_path)
        folder, _, name = relative_path.rpartition("/")
        file = run.cache.get(name) if folder == CACHE_FOLDER else run.files.get(relative_path)
        if file is None or run.is_locked:
            raise RunUnreadableError(f"{relative_path} cannot be read")
        return file.data[:limit_bytes]


def cache_look(run: SimRun) -> int:
    """How a cache folder looks, logs apart: the same number in every process."""
    looks = [(name, signature(file)) for name, file in sorted(run.cache.items()) if not name.endswith(".log")]
    return crc32(repr(looks).encode())


class MemoryScanner:
    """Implements ports.RunScanner."""

    def __init__(self, world: World) -> None:
        self._world = world

    def scan(self, equipment: EquipmentPolicy, *, with_caches: bool = False) -> tuple[SeenRun, ...]:
        self._world.port("scan")
        if equipment.equipment_id in self._world.roots_away:
            raise RootUnavailableError(f"{equipment.equipment_id} is not there")
        roots = {equipment.equipment_id: f"{LOCAL_ROOT}/{equipment.equipment_id}"}
        seen = []
        for path, run in sorted(self._world.runs.items()):
            place = place_of(path, roots)
            if place is not None:
                creation = run.cache.get(CREATION_FILE)
                look = cache_look(run) if with_caches else None
                seen.append(SeenRun(place, signature(creation) if creation is not None else None, look))
        self._world.port("scan done")
        return tuple(seen)

    def misplaced(
        self, equipment: EquipmentPolicy, seen: Iterable[SeenRun], policy: Policy
    ) -> Mapping[str, FolderProblem]:
        return {}  # this world has no folder but those of runs

    def is_there(self, path: str) -> bool:
        run = self._world.runs.get(path)
        return run is not None and run.equipment_id not in self._world.roots_away

    def volume(self, equipment: EquipmentPolicy) -> str:
        if equipment.equipment_id in self._world.roots_away:
            raise RootUnavailableError(f"{equipment.equipment_id} is not there")
        return "the disk"

    def is_empty(self, equipment: EquipmentPolicy) -> bool:
        return False  # the folders of the projects stay when the last run is removed

    def free_bytes(self, equipment: EquipmentPolicy) -> int | None:
        return None


class OurRoot:
    """Implements ports.RootLock: nobody else works on this root."""

    def take(self) -> None:
        pass

    def release(self) -> None:
        pass


class MemoryCreations:
    """Implements ports.CreationFiles. What cannot be parsed is never overwritten."""

    def __init__(self, world: World, wrote: Callable[[SimRun, str], None]) -> None:
        self._world = world
        self._wrote = wrote

    def read(self, run_path: str) -> CreationFile:
        self._world.port("read creation")
        run, members = self._parsed(run_path)
        return CreationFile(_creation(members), signature(run.cache[CREATION_FILE]))

    def set_sync_status(self, run_path: str, sync_status: str) -> SavedCreation:
        self._world.port("set_sync_status")
        run, members = self._parsed(run_path)
        before = signature(run.cache[CREATION_FILE])
        if members.get("sync_status", "pending") != sync_status:
            if self._world.fate.happens(self._world.fate.p_fault / 4):
                raise CreationFileError(f"{run_path} is locked by another program", code="locked")
            self._wrote(run, sync_status)
            members["sync_status"] = sync_status
            self._world.put_cache(run, CREATION_FILE, json.dumps(members).encode())
        written = signature(run.cache[CREATION_FILE])
        self._world.port("set_sync_status done")
        return SavedCreation(before, written)

    def text_with_status(self, run_path: str, sync_status: str) -> CreationText:
        self._world.port("text_with_status")
        run, members = self._parsed(run_path)
        file = run.cache[CREATION_FILE]
        is_said = members.get("sync_status", "pending") == sync_status
        data = file.data if is_said else json.dumps(members | {"sync_status": sync_status}).encode()
        return CreationText(data, signature(file))

    def put_text(self, run_path: str, text: CreationText) -> SavedCreation:
        self._world.port("put_text")
        run, _ = self._parsed(run_path)
        before = signature(run.cache[CREATION_FILE])
        if before != text.signature:
            raise CreationFileError(f"{run_path} was saved by another program", code="changed")
        if run.cache[CREATION_FILE].data != text.data:
            self._wrote(run, status_in(text.data))
            self._world.put_cache(run, CREATION_FILE, text.data)
        written = signature(run.cache[CREATION_FILE])
        self._world.port("put_text done")
        return SavedCreation(before, written)

    def append_override(self, run_path: str, entry: Mapping[str, Any]) -> FileSignature:
        raise AssertionError("the engine appends no overrides")

    def _parsed(self, run_path: str) -> tuple[SimRun, dict[str, Any]]:
        try:
            run = run_at(self._world, run_path)
            members: dict[str, Any] = json.loads(run.cache[CREATION_FILE].data)
        except (RootUnavailableError, KeyError):
            raise CreationFileError(f"{run_path} has no creation.json", code="missing") from None
        except ValueError:
            raise CreationFileError(f"{run_path}: invalid JSON", code="invalid_json", line=1, column=1) from None
        return run, members


def _creation(members: Mapping[str, Any]) -> Creation:
    overrides = tuple(
        OverrideEntry(
            index,
            given["id"],
            problem_class=given.get("problem_class"),
            revokes=given.get("revokes"),
            operator=given["operator"],
            expires_at=given.get("expires_at"),
        )
        for index, given in enumerate(members["validation_overrides"])
    )
    identity = identity_in(json.dumps(members).encode(), folder_name="")
    assert identity is not None
    status = members.get("sync_status", "pending")
    return Creation("1.8", 8, "run", "experimental", identity, True, "P", status, overrides)


class MemoryDigester:
    """Implements ports.Digester; a file that moved while it was read raises, as on a real disk."""

    def __init__(self, world: World) -> None:
        self._world = world

    def digests(self, root: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str]:
        return self._read(root, files, control, "hash")

    def samples(self, root: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str]:
        return self._read(root, files, control, "sample")

    def _read(self, root: str, files: Sequence[FileEntry], control: Control, what: str) -> dict[str, str]:
        found = {}
        for wanted in files:
            data = source_bytes(self._world, root, wanted)
            if data is None:
                continue
            self._world.port(f"{what} {wanted.path}")
            _stop_if_cancelled(control)
            if source_bytes(self._world, root, wanted) is None:
                raise SourceChangedError(f"{wanted.path} changed while it was read")
            found[wanted.path] = sha256(data)
        return found


def source_bytes(world: World, root: str, wanted: FileEntry) -> bytes | None:
    """The bytes of a local file that is what its entry says; None when it is gone."""
    run = world.runs.get(root)
    if run is None or run.equipment_id in world.roots_away or run.is_locked:
        raise RunUnreadableError(f"{root} cannot be read")
    folder, _, name = wanted.path.rpartition("/")
    file = run.cache.get(name) if folder == CACHE_FOLDER else run.files.get(wanted.path)
    if file is None:
        return None
    if entry(wanted.path, file) != wanted:
        raise SourceChangedError(f"{wanted.path} changed")
    return file.data


def _stop_if_cancelled(control: Control) -> None:
    if control.is_cancelled():
        raise CancelledError("told to stop")


class MemorySealer:
    """Implements ports.Sealer."""

    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, run_path: str, relative_path: str, data: bytes) -> None:
        self._world.port(f"seal {relative_path}")
        try:
            run = run_at(self._world, run_path)
        except RootUnavailableError as error:
            raise RunUnreadableError(str(error)) from error
        self._world.put_cache(run, relative_path, data)


class KillableManifestStore(FolderManifestStore):
    """The real one, in which the agent may die before and after the write."""

    def __init__(self, world: World, folder: Any) -> None:
        super().__init__(folder)
        self._world = world

    def save(self, job_id: str, data: bytes) -> None:
        self._world.port("save manifest")
        super().save(job_id, data)
        self._world.port("saved manifest")

    def note_wrong(self, job_id: str, paths: Sequence[str]) -> None:
        self._world.port("note wrong")
        if self._world.fate.happens(self._world.fate.p_fault):
            raise ManifestNotKeptError("no room in the state folder")
        super().note_wrong(job_id, paths)
        self._world.port("noted wrong")

    def forget_wrong(self, job_id: str) -> None:
        self._world.port("forget wrong")
        super().forget_wrong(job_id)
        self._world.port("forgot wrong")


class MemoryApartness:
    """Implements ports.Apartness from the truth: does the destination lead back to the instrument's own folder?"""

    def __init__(self, nas: Nas) -> None:
        self._nas = nas

    def require_root(self, *, anew: bool = False, is_first: bool = False) -> None:
        self._require("root")

    def require_run(self, run_path: str, destination: str) -> None:
        self._require("run")

    def _require(self, by: str) -> None:
        if self._nas.source is not None and by in self._nas.source_shows:
            raise DestinationIsSourceError("the destination is the instrument's own folder")


# What can happen to one call of the transport.
FAULTS = (
    "drop", "drop_after", "truncate", "corrupt", "skip", "partial", "slow", "away", "unmounted", "foreign", "full", "auth",
)  # fmt: skip


def scripted(words: str) -> Callable[[str], str]:
    """One word for each call of `copy`, in order; all other calls and all later ones are ok."""
    waiting = words.split()

    def fault(method: str) -> str:
        return waiting.pop(0) if method == "copy" and waiting else "ok"

    return fault


class FaultyTransport:
    """Implements ports.Transport over one `Nas`. `faults`: a script such as "ok drop corrupt", or method → fault."""

    def __init__(
        self, world: World, nas: Nas, faults: str | Callable[[str], str], wrote: Callable[[Nas, str, bytes], None]
    ) -> None:
        self._world = world
        self._nas = nas
        self._fault = scripted(faults) if isinstance(faults, str) else faults
        self._wrote = wrote

    def describe(self) -> str:
        return self._nas.name

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def _call(self, method: str) -> str:
        """Every call begins here. Returns the fault that the method itself has to play out."""
        self._world.port(method)
        self._answer()
        fault = self._fault(method)
        if fault in ("away", "unmounted", "foreign"):
            self._world.touch()
            self._nas.state = "dead" if fault == "away" else fault
            self._answer()
        if fault == "drop":
            raise TransportError(FailureKind.NETWORK, "the connection was lost")
        if fault == "full":
            raise TransportError(FailureKind.DESTINATION_FULL, "no space left")
        if fault == "auth":
            raise TransportError(FailureKind.AUTH, "the login was refused")
        return fault

    def _answer(self) -> None:
        if self._nas.state == "dead":
            raise TransportError(FailureKind.NETWORK, "the NAS does not answer")

    def _write(self) -> None:
        if self._nas.is_read_only:
            raise TransportError(FailureKind.AUTH, "the file system is read-only")

    def _read(self, path: str) -> NasFile | None:
        """What is at this path. Raises: TransportError where it is listed and cannot be read."""
        if self._nas.cannot_read(path):
            raise TransportError(FailureKind.UNKNOWN, f"{path} cannot be read back")
        return self._nas.files.get(path)

    @staticmethod
    def _end(fault: str) -> None:
        if fault == "drop_after":
            raise TransportError(FailureKind.NETWORK, "the answer was lost")

    # --- is it there, whose is it ------------------------------------------------------------------------------------

    def nature(self) -> Nature:
        """Nothing shows an empty mount point, or somebody else's NAS, to be the place that it must be."""
        return Nature("simulated", self._nas.name, "it is a NAS" if self._nas.state in ("up", "dead") else "")

    def bind(self, *, known_marker_id: str | None = None) -> str:
        self._world.port("probe")
        self._require_answer()
        if self._nas.state == "up" and self._nas.marker_id is None and known_marker_id is None:
            self._write_probe()
            self._nas.marker_id = f"marker-of-{self._nas.name}"
        if self._nas.marker_seen is None:
            raise MarkerMissingError("the marker is missing")
        if known_marker_id not in (None, self._nas.marker_seen):
            raise DestinationUnreachableError("the marker is another one")
        return self._nas.marker_seen

    def probe(self, *, expected_marker_id: str | None) -> None:
        self.require_marker(expected_marker_id=expected_marker_id)
        self._write_probe()

    def require_marker(self, *, expected_marker_id: str | None) -> None:
        self._world.port("probe")
        self._require_answer()
        if self._nas.marker_seen is None:
            raise MarkerMissingError("the marker is missing")
        if expected_marker_id is None or expected_marker_id != self._nas.marker_seen:
            raise DestinationUnreachableError("the marker is another one, or nobody has seen it yet")

    def _require_answer(self) -> None:
        if self._nas.state == "dead":
            raise DestinationUnreachableError("the NAS does not answer")

    def _write_probe(self) -> None:
        if self._nas.is_read_only:
            raise DestinationUnreachableError("the NAS keeps nothing: it is read-only")

    def put_marker_back(self, marker_id: str) -> None:
        raise AssertionError("only an operator has a marker put back")

    def round_trip(self, while_there: Callable[[str, bytes], None] | None = None) -> None:
        raise AssertionError("the engine leaves no probe files but by probe()")

    def top_names(self) -> tuple[str, ...] | None:
        return None

    def below(self, folder: str) -> Below | None:
        return None

    def free_bytes(self) -> int | None:
        return None

    def look(self, destination: str) -> DestinationLook:
        fault = self._call("look")
        claim = self._read(f"{destination}/{CLAIM_PATH}")
        creation = self._read(f"{destination}/{CREATION_PATH}")
        self._end(fault)
        return look_of(
            destination,
            claim=claim.data if claim is not None else None,
            creation=creation.data if creation is not None else None,
            is_empty=not any(path.startswith(destination + "/") for path in self._nas.files),
        )

    def place_claim(self, destination: str, claim: Claim) -> None:
        fault = self._call("place_claim")
        path = f"{destination}/{CLAIM_PATH}"
        if path in self._nas.files:
            self._require_ours(destination, claim)
        else:
            self._write()
            self._wrote(self._nas, path, claim_text(claim))
            self._nas.put(path, NasFile(claim_text(claim), 0))
        self._end(fault)

    def require_claim(self, destination: str, claim: Claim) -> None:
        self._end(self._call("require_claim"))
        self._require_ours(destination, claim)

    def _require_ours(self, destination: str, claim: Claim) -> None:
        """As Destination does."""
        file = self._read(f"{destination}/{CLAIM_PATH}")
        if file is None:
            raise TransportError(FailureKind.UNKNOWN, f"the claim at {destination} could not be read back")
        there = look_of(destination, claim=file.data, creation=None)
        if there.claim is None:
            raise DestinationOccupiedError(f"the claim at {destination} cannot be read")
        conflict = conflict_at(standing(there, claim), destination, holder=there.holder, is_sealed=False)
        if conflict is not None:
            raise DestinationOccupiedError(conflict.message, kind=conflict.kind)

    # --- reading -----------------------------------------------------------------------------------------------------

    def listing(
        self,
        destination: str,
        *,
        due: Sequence[FileEntry] = (),
        control: Control = UNHINDERED,
    ) -> Mapping[str, RemoteFile]:
        fault = self._call("listing")
        prefix = destination + "/"
        found = {
            path[len(prefix) :]: RemoteFile(len(file.data), file.mtime_ns if self._nas.keeps_times else None)
            for path, file in sorted(self._nas.files.items())
            if path.startswith((prefix,)) and not path.startswith(f"{prefix}{CACHE_FOLDER}/")
        }
        self._end(fault)
        return found

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        self._end(self._call("read_small"))
        file = self._read(f"{destination}/{relative_path}")
        return file.data[:limit_bytes] if file is not None else None

    def read_several(self, destination: str, relative_paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        found = {path: self.read_small(destination, path, limit_bytes=limit_bytes) for path in relative_paths}
        return {path: data for path, data in found.items() if data is not None}

    def is_any_there(self, paths: Sequence[str]) -> bool:
        raise AssertionError("the simulated world has an apartness of its own")

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        if self._call("samples") == "skip" or not self._nas.has_ranges:
            return None
        return self._digests(destination, [wanted.path for wanted in files], control)

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        fault = self._call("digests")
        found = self._digests(destination, paths, control)
        if fault == "corrupt" and found:
            found[sorted(found)[0]] = sha256(b"misread")
        self._end(fault)
        return ReadBack(found, HowRead.DOWNLOAD, is_past_cache=True)

    def check_tools(self) -> tuple[str, ...]:
        return ()

    def digest_bytes_max(self) -> int | None:
        return None

    def close(self) -> None:
        pass

    def _digests(self, destination: str, paths: Sequence[str], control: Control) -> dict[str, str]:
        found = {}
        for path in paths:
            self._world.port(f"read back {path}")
            _stop_if_cancelled(control)
            self._answer()
            file = self._read(f"{destination}/{path}")
            if file is not None:
                found[path] = sha256(file.data)
        return found

    # --- writing -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        fault = self._call("copy")
        for position, wanted in enumerate(files):
            data = source_bytes(self._world, source_root, wanted)
            if data is None:
                raise TransportError(FailureKind.LOCAL_FILE_VANISHED, f"{wanted.path} is gone")
            self._world.port(f"copy {wanted.path}")
            _stop_if_cancelled(control)
            if source_bytes(self._world, source_root, wanted) is None:
                raise SourceChangedError(f"{wanted.path} vanished while it was copied")
            self._answer()
            is_last = position == len(files) - 1
            if fault == "partial" and is_last:
                raise TransportError(FailureKind.NETWORK, "the copy died in the middle")
            if fault == "skip" and is_last:
                continue
            if is_last and fault == "truncate":
                data = data[:-1]
            if is_last and fault == "corrupt":
                data = data[:-1] + b"?"
            self._put(destination, require_data_path(wanted.path), data, wanted.mtime_ns, source_root)
        self._end(fault)

    def _put(self, destination: str, name: str, data: bytes, mtime_ns: int, source_root: str) -> None:
        path = f"{destination}/{name}"
        if path in self._nas.files:
            raise TransportError(FailureKind.UNKNOWN, f"{path} exists")
        self._write()
        self._world.touch()
        self._wrote(self._nas, path, data)
        if self._nas.state == "up":
            self._nas.owners.setdefault(destination, set()).add(self._world.runs[source_root].author)
            self._nas.remember(path, data)
        self._nas.put(path, NasFile(data, mtime_ns))

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
        fault = self._call("replace")
        for wanted in files:
            data = instead.get(wanted.path) or source_bytes(self._world, source_root, wanted)
            if data is None:
                raise TransportError(FailureKind.LOCAL_FILE_VANISHED, f"{wanted.path} is gone")
            self._world.port(f"replace {wanted.path}")
            _stop_if_cancelled(control)
            self._answer()
            self._write()
            path = f"{destination}/{require_cache_path(wanted.path)}"
            self._wrote(self._nas, path, data)
            if fault == "truncate":
                data = data[:-1]
            if fault != "skip":
                self._nas.put(path, NasFile(data, wanted.mtime_ns))
        self._end(fault)

    def write_small(self, path: str, data: bytes) -> None:
        """Signs of life, and what is kept as evidence, which is never written over with anything else."""
        fault = self._call("write_small")
        self._write()
        there = self._nas.files.get(path)
        if there is not None and there.data != data and not path.startswith(f"{HEARTBEATS}/"):
            raise Violation(f"{path} is written over")
        self._nas.put(path, NasFile(data, 0))
        self._end(fault)

    def can_move(self) -> bool:
        return True

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        fault = self._call("set_aside")
        files = self._nas.files
        standing = [path for path in paths if f"{destination}/{require_data_path(path)}" in files]
        number = 1
        while any(path.startswith(f"{SUPERSEDED_FOLDER}/{destination}/{number}/") for path in files):
            number += 1
        for path in standing:
            self._world.port(f"set aside {path}")
            self._write()
            self._world.touch()
            self._wrote(self._nas, f"{destination}/{path}", b"")
            moved = self._nas.take(f"{destination}/{path}")
            if moved is not None:
                self._nas.files[f"{SUPERSEDED_FOLDER}/{destination}/{number}/{path}"] = moved
        self._end(fault)

    def clear_partials(self, destination: str) -> None:
        self._end(self._call("clear_partials"))
