"""The world around the agents, in memory: their PCs, NAS folders, and the chance by which things go wrong.

What is true is here (the oracle reads it); what the agent may see of it goes through ports.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count
from random import Random

from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FileEntry, Inventory
from exlab_watch_agent.core.passes import Uptime
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER

LOCAL_ROOT = "/data/lab"
SENTINEL = "acquisition_complete.flag"
EXPECTED = "files.json"
BAD_NAME = "CON"  # reserved on Windows: a hard finding


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing may catch this."""


class Violation(BaseException):
    """The oracle found that something happened which must never happen; no `except Exception` may swallow it."""


class FakeClock:
    """Implements ports.Clock: the wall clock jumps, the monotonic one only advances, and only when told.

    `ahead_days`: by how much the wall clock is wrong from the beginning.
    """

    def __init__(self, ahead_days: float = 0) -> None:
        self.wall = datetime(2026, 4, 17, 14, 0, tzinfo=UTC) + timedelta(days=ahead_days)
        self.mono_s = 1000.0
        self.jumps = 0
        self.boots = 1
        self.booted_s = 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic_s(self) -> float:
        return self.mono_s

    def uptime(self) -> Uptime:
        return Uptime(f"boot {self.boots}", self.mono_s - self.booted_s)

    def reboot(self) -> None:
        self.boots += 1
        self.booted_s = self.mono_s

    def advance(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.mono_s += seconds

    def jump(self, days: float) -> None:
        self.wall += timedelta(days=days)
        self.jumps += 1


@dataclass
class LocalFile:
    """One file on the instrument's disk."""

    data: bytes
    mtime_ns: int
    ctime_ns: int
    inode: int


def entry(path: str, file: LocalFile) -> FileEntry:
    return FileEntry(path, len(file.data), file.mtime_ns, file.ctime_ns, file.inode, 1)


@dataclass(eq=False)
class SimRun:
    """A run folder: `files` are data, `cache` is `.exlab-wizard/`. `truth`: what the instrument wrote and did not take away."""

    number: int
    path: str
    equipment_id: str
    files: dict[str, LocalFile] = field(default_factory=dict)
    cache: dict[str, LocalFile] = field(default_factory=dict)
    truth: dict[str, bytes] = field(default_factory=dict)
    is_locked: bool = False
    spoiled_text: bytes | None = None
    earlier: dict[str, LocalFile] = field(default_factory=dict)
    changed: list[tuple[float, str]] = field(default_factory=list)

    def inventory(self) -> Inventory:
        folders = sorted({path.rpartition("/")[0] for path in self.files if "/" in path})
        return Inventory(tuple(entry(path, file) for path, file in sorted(self.files.items())), tuple(folders))

    def stood_for_s(self, fingerprint: str, now_s: float) -> float:
        """How long it was from the first to the last moment with this fingerprint: a file that came and went unseen
        between two looks leaves no trace in it."""
        ends = [at for at, _ in self.changed[1:]] + [now_s]
        stood = [(at, end) for (at, seen), end in zip(self.changed, ends, strict=True) if seen == fingerprint]
        return max(end for _, end in stood) - min(at for at, _ in stood) if stood else 0.0

    @property
    def content(self) -> frozenset[tuple[str, bytes]]:
        """The data files as they are now: equal contents are equal whatever their times."""
        return frozenset((path, file.data) for path, file in self.files.items())

    @property
    def author(self) -> str:
        """`created_by`: every run has its own, and a copied folder that of its original."""
        text = self.spoiled_text or self.creation_text
        return str(json.loads(text)["created_by"])

    @property
    def creation_text(self) -> bytes:
        return self.cache[CREATION_FILE].data


@dataclass
class NasFile:
    data: bytes
    mtime_ns: int


@dataclass
class Volume:
    """What is on one NAS. `ever`: each content that a data name had, which from then on must not be lost. `owners`: whose
    data were copied to a destination. `unreadable`: names that are listed and cannot be read. `spoiled`: what the medium lost.
    """

    real: dict[str, NasFile] = field(default_factory=dict)
    ever: dict[str, set[bytes]] = field(default_factory=dict)
    owners: dict[str, set[str]] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    spoiled: set[tuple[str, bytes]] = field(default_factory=set)

    def copied(self) -> Volume:
        ever, owners = ({key: set(held) for key, held in kept.items()} for kept in (self.ever, self.owners))
        return Volume(dict(self.real), ever, owners, set(self.unreadable), set(self.spoiled))  # type: ignore[arg-type]

    def has(self, path: str, data: bytes) -> bool:
        """Whether this content of a name can be read, in its place or where it was moved aside to."""
        file = self.real.get(path)
        if file is not None and file.data == data:
            return path not in self.unreadable
        return any(
            other.startswith(SUPERSEDED_FOLDER) and file.data == data and superseded_name(other) == path
            for other, file in self.real.items()
        )


class Nas:
    """One destination root. While it is not mounted, an empty folder of the local disk is in its place: `ghost`; or another
    NAS is mounted there, with a marker of its own: `foreign`.

    `apart`: a copy that somebody made of it, marker and all, which may be mounted in its place; no agent can tell.
    `source`: what is in the equipment's own folder, to which it leads; None for an honest NAS. `source_shows`: by which
    probe files that can be seen, those of the root or those of a run.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_ranges = True
        self.keeps_times = True
        self.is_read_only = False
        self.volume = Volume()
        self.apart: Volume | None = None
        self.ghost: dict[str, NasFile] = {}
        self.foreign: dict[str, NasFile] = {}
        self.marker_id: str | None = None
        self.state = "up"  # up | dead | unmounted | foreign
        self.source: Callable[[], dict[str, NasFile]] | None = None
        self.source_shows = {"root", "run"}

    @property
    def real(self) -> dict[str, NasFile]:
        return self.volume.real

    @real.setter
    def real(self, files: dict[str, NasFile]) -> None:
        self.volume.real = files

    @property
    def ever(self) -> dict[str, set[bytes]]:
        return self.volume.ever

    @property
    def owners(self) -> dict[str, set[str]]:
        return self.volume.owners

    @property
    def files(self) -> dict[str, NasFile]:
        """What an agent sees."""
        if self.source is not None:
            return self.source()
        return {"unmounted": self.ghost, "foreign": self.foreign}.get(self.state, self.volume.real)

    @property
    def marker_seen(self) -> str | None:
        """The marker in the root that an agent sees."""
        return {"unmounted": None, "foreign": "marker of another NAS"}.get(self.state, self.marker_id)

    def put(self, path: str, file: NasFile) -> None:
        self.files[path] = file
        if self.state == "up":
            self.volume.unreadable.discard(path)
            self.volume.spoiled.discard((path, file.data))

    def take(self, path: str) -> NasFile | None:
        if self.state == "up":
            self.volume.unreadable.discard(path)
        return self.files.pop(path, None)

    def cannot_read(self, path: str) -> bool:
        return self.state == "up" and self.source is None and path in self.volume.unreadable

    def change_places(self) -> None:
        """Mount the copy in the place of the NAS, and keep that as it is; the first time, only make the copy."""
        if self.apart is None:
            self.apart = self.volume.copied()
        else:
            self.volume, self.apart = self.apart, self.volume

    def below(self, destination: str) -> dict[str, NasFile]:
        """The real data files below a destination that can be read, by their path relative to it."""
        prefix = destination + "/"
        cache = f"{prefix}{CACHE_FOLDER}/"
        return {
            path[len(prefix) :]: file
            for path, file in self.real.items()
            if path.startswith(prefix) and not path.startswith(cache) and path not in self.volume.unreadable
        }

    def remember(self, path: str, data: bytes) -> None:
        """Note that this name has this content: from now on it must not be lost."""
        self.ever.setdefault(path, set()).add(data)

    def rot(self, path: str, data: bytes) -> None:
        """The medium changed a file in place: the only way in which content is ever lost here."""
        self.ever.get(path, set()).discard(self.real[path].data)
        self.volume.spoiled.add((path, self.real[path].data))
        self.real[path] = NasFile(data, self.real[path].mtime_ns)
        self.remember(path, data)

    def has(self, path: str, data: bytes) -> bool:
        """Whether this content of a name can be read there or from the copy, or was lost to the medium."""
        return any(volume.has(path, data) for volume in self._volumes) or any(
            (path, data) in volume.spoiled or path in volume.unreadable for volume in self._volumes
        )

    def is_harmed(self, path: str, data: bytes) -> bool:
        """Whether it was the medium's doing that the name does not give this content."""
        return path in self.volume.unreadable or (path, data) in self.volume.spoiled

    @property
    def _volumes(self) -> list[Volume]:
        return [self.volume] if self.apart is None else [self.volume, self.apart]

    def lost(self) -> list[str]:
        """Names of which some content that was there is neither there nor among the superseded."""
        kept: dict[str, set[bytes]] = {}
        for path, file in self.real.items():
            original = superseded_name(path) if path.startswith(SUPERSEDED_FOLDER + "/") else path
            kept.setdefault(original, set()).add(file.data)
        return [path for path, contents in self.ever.items() if contents - kept.get(path, set())]

    def claim_at(self, destination: str) -> bytes | None:
        """The bytes of the claim at the destination, None where there is none."""
        file = self.real.get(f"{destination}/{CLAIM_PATH}")
        return file.data if file is not None else None

    def creation_status(self, destination: str) -> str | None:
        """What the `creation.json` at the destination says, None where there is none."""
        file = self.real.get(f"{destination}/{CACHE_FOLDER}/{CREATION_FILE}")
        return status_in(file.data) if file is not None else None


@lru_cache(maxsize=4096)
def superseded_name(path: str) -> str:
    """`.exlab-superseded/<destination>/<n>/<rest>` → `<destination>/<rest>`: no folder of a run here is called by a number."""
    parts = path.split("/")[1:]
    at = next((at for at, part in enumerate(parts) if part.isdigit() or part.startswith("seal-")), None)
    if at is None:
        raise Violation(f"{path} is not what was moved aside from anywhere")
    return "/".join(parts[:at] + parts[at + 1 :])


@lru_cache(maxsize=4096)
def status_in(data: bytes) -> str:
    try:
        return str(json.loads(data).get("sync_status", "pending"))
    except ValueError:
        return "unreadable"


class Fate:
    """Chance, and the numbers by which no two contents are the same. One seed gives one life; each life has its own
    inclinations, so that some are calm in some respects.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.is_calm = False
        pick = self.random.choice
        self.p_kill = pick((0, 0, 0.002, 0.01))
        self.p_fault = pick((0, 0.02, 0.05, 0.2))
        self.p_breathe = pick((0.02, 0.1, 0.3))
        self.p_at_once = pick((0, 0.1, 0.5))
        self.p_slow = pick((0, 0.1, 0.4))
        self.p_aimed = pick((0.2, 0.8))
        self.p_environment = pick((0.1, 0.2, 0.4))
        self.p_event_lost = pick((0, 0.2, 1.0))
        self.serials = count(1)
        self.inclinations = {name: pick((0, 1, 1, 3)) for name in WEIGHTS}

    def happens(self, probability: float) -> bool:
        return not self.is_calm and self.random.random() < probability


# What the environment may do, and how often relative to each other before a life's own inclinations.
WEIGHTS = {
    "begin_run": 6,
    "write_file": 6,
    "append_file": 3,
    "overwrite_file": 3,
    "remove_file": 1,
    "complete_run": 10,
    "bad_name": 1,
    "touch_signal": 1,
    "undo_changes": 2,
    "override": 3,
    "spoil_creation": 2,
    "move_run": 2,
    "copy_run": 2,
    "remove_run": 0.3,
    "remove_sealed": 2,
    "edit_cache": 1,
    "carry_run": 4,
    "lock_run": 1,
    "rot": 4,
    "unreadable": 2,
    "change_places": 0.4,
    "nas_trouble": 3,
    "nas_back": 5,
    "root_trouble": 1,
    "jump_clock": 1,
    "operate": 4,
}


@dataclass
class World:
    """Everything outside one agent: its PC, with its clock and its disk, and the NAS folders, which it may share with others.

    `touch` is called before anything of it changes, `notice` when a watcher would see it, `port` at every call of a port.
    """

    fate: Fate
    clock: FakeClock = field(default_factory=FakeClock)
    runs: dict[str, SimRun] = field(default_factory=dict)
    nas: dict[str, Nas] = field(default_factory=dict)
    roots_away: set[str] = field(default_factory=set)
    paths_used: dict[str, str] = field(default_factory=dict)
    taken_from: set[str] = field(default_factory=set)
    touch: Callable[[], None] = lambda: None
    notice: Callable[[str], None] = lambda _: None
    port: Callable[[str], None] = lambda _: None
    change_nas: Callable[[Nas], None] = Nas.change_places

    def next_serial(self) -> int:
        return next(self.fate.serials)

    def stamp(self, data: bytes) -> LocalFile:
        """A file written now. Two writes never share a ctime and an inode, as on a real disk."""
        serial = self.next_serial()
        now_ns = int(self.clock.wall.timestamp()) * 10**9
        return LocalFile(data, now_ns, now_ns + serial, serial)

    def put(self, run: SimRun, name: str, data: bytes) -> None:
        """The instrument writes a data file."""
        self.touch()
        run.files[name] = self.stamp(data)
        run.truth[name] = data
        self.note_change(run)
        self.notice(f"{run.path}/{name}")

    def take(self, run: SimRun, name: str) -> None:
        """The instrument removes a data file."""
        self.touch()
        del run.files[name], run.truth[name]
        self.taken_from.add(run.author)
        self.note_change(run)
        self.notice(f"{run.path}/{name}")

    def as_destination(self, equipment_id: str) -> dict[str, NasFile]:
        """An equipment's own folder, seen as if it were its NAS."""
        root = f"{LOCAL_ROOT}/{equipment_id}/"
        return {
            f"{run.path.removeprefix(root)}/{name}": NasFile(file.data, file.mtime_ns)
            for run in self.runs.values()
            if run.path.startswith(root)
            for name, file in (
                *run.files.items(),
                *((f"{CACHE_FOLDER}/{name}", file) for name, file in run.cache.items()),
            )
        }

    def note_change(self, run: SimRun) -> None:
        run.changed.append((self.clock.mono_s, run.inventory().fingerprint))

    def put_cache(self, run: SimRun, name: str, data: bytes) -> None:
        run.cache[name] = self.stamp(data)
        self.notice(f"{run.path}/{CACHE_FOLDER}/{name}")
