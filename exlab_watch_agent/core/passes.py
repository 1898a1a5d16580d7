"""What one proof of a run keeps, when two of them count as two, and which of them deletion may go by.

Decided here: from what a pass knows of clocks and caches, whether it is apart from another and whether it counts. Not here:
what a pass compares (manifest.py), and how bytes are read past a cache (the transports).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

PASSES_APART_S = 60.0
"""Passes closer together than this count as one, unless `nas_cleanup` asks for no age at all: then any two count."""
PASSES_KEPT_MAX = 8


@dataclass(frozen=True, slots=True)
class Uptime:
    """For how long the machine has been up, by a clock that nobody sets. Of one `boot_id` two of them can be compared.

    `boot_id` is empty where it is not known.
    """

    boot_id: str = ""
    seconds: float = 0.0


UNKNOWN_UPTIME = Uptime()


class HowRead(StrEnum):
    """By what way the bytes at a destination were read to be hashed.

    `SERVER_HASH`: the server hashed them. `DOWNLOAD`: they were fetched from a server through no file system of this PC.
    `O_DIRECT`: past the page cache. `NOWAIT`: the system said that nothing of them was in its cache when the reading
    began. `NO_BUFFERING`: what O_DIRECT is called on Windows. `STORAGE_HOST`: another program there hashed them.
    `INJECTED`: a program that uses this one as a library said their hashes. `PAGE_CACHE`: none of these; they may have
    come from this PC's memory.
    """

    SERVER_HASH = "server_hash"
    DOWNLOAD = "download"
    O_DIRECT = "o_direct"
    NOWAIT = "nowait"
    NO_BUFFERING = "no_buffering"
    STORAGE_HOST = "storage_host"
    INJECTED = "injected"
    PAGE_CACHE = "page_cache"


_NOT_SHOWN = frozenset({HowRead.PAGE_CACHE, HowRead.INJECTED})


def weakest(ways: Sequence[HowRead]) -> HowRead:
    """Return the way that may be said of all these together: one that is not shown before one that is; of none, a download.

    Where no file was read there was nothing that a cache could have answered.
    """
    unshown = [way for way in ways if way in _NOT_SHOWN]
    return (unshown or list(ways) or [HowRead.DOWNLOAD])[0]


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a destination gave back: POSIX path → SHA-256 (64 lowercase hex) of each file that is there, and how.

    `is_past_cache`: whether none of it can have come from this PC's caches, so that what was hashed is what another reader
    of the NAS would get. `nas_at`: the NAS's own clock (aware UTC) when the last of it was read, None where the way has none.
    """

    digests: Mapping[str, str]
    how: HowRead
    is_past_cache: bool
    nas_at: datetime | None = None


class LocalSide(StrEnum):
    """What a pass compared the destination with: the local files, read anew, or after their removal the manifest alone."""

    READ = "read"
    MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class Pass:
    """One proof that both sides are equal, with all that is needed to judge later what it is worth.

    Times are aware UTC. `boot_id`, `monotonic_s`: the machine's uptime when it ended. `uptime_sum_s`: for how long agents of
    this state folder had run in all by then, as far as known: never more. `nas_at`: the NAS's own clock when it ended, None
    where the way has none. `marker_id`, `spelling`: of which destination root, and how it was reached.
    `manifest_sha256`: of what was proven. `remote`: how the destination was read; `past_cache`: whether past this PC's
    caches. Source: SPEC 9.
    """

    id: str
    started_at: datetime
    ended_at: datetime
    boot_id: str
    monotonic_s: float
    uptime_sum_s: float
    marker_id: str
    spelling: str
    manifest_sha256: str
    files: int
    bytes: int
    remote: HowRead
    past_cache: bool
    nas_at: datetime | None = None
    local: LocalSide = LocalSide.READ

    @property
    def uptime(self) -> Uptime:
        return Uptime(self.boot_id, self.monotonic_s)


def are_apart(*, earlier_at: datetime, earlier: Uptime, now: datetime, uptime: Uptime) -> bool:
    """Return whether a pass that ends now counts beside that of `earlier_at`.

    After a reboot only the time since then is known to have passed. A wall clock that was set back tells nothing; one
    that was set ahead cannot hasten anything, because the uptime must agree. What is not known does not count as a minute.
    """
    if not earlier.boot_id or not uptime.boot_id:
        return False
    passed_s = uptime.seconds - (earlier.seconds if earlier.boot_id == uptime.boot_id else 0.0)
    by_wall_s = (now - earlier_at).total_seconds()
    return passed_s >= PASSES_APART_S and (by_wall_s >= PASSES_APART_S or by_wall_s < 0)


def is_apart_from(earlier: Pass, later: Pass) -> bool:
    """Return whether two passes count as two: every clock that there is says so, the NAS's as well where both have it."""
    if (
        earlier.nas_at is not None
        and later.nas_at is not None
        and (later.nas_at - earlier.nas_at).total_seconds() < PASSES_APART_S
    ):
        return False
    return are_apart(earlier_at=earlier.ended_at, earlier=earlier.uptime, now=later.ended_at, uptime=later.uptime)


def counting(passes: Sequence[Pass], *, manifest_sha256: str, marker_id: str, needs_distance: bool) -> tuple[Pass, ...]:
    """Return the passes that deletion may go by, oldest first.

    Each was read past this PC's caches, said by no program that was injected, is of this manifest and this destination, and
    apart from the one that counted before it. `needs_distance`: False where `nas_cleanup` asks for no age at all.
    """
    found: list[Pass] = []
    for one in passes:
        is_of_this = (one.manifest_sha256, one.marker_id) == (manifest_sha256, marker_id)
        if not is_of_this or not one.past_cache or one.remote in _NOT_SHOWN:
            continue
        if not found or not needs_distance or is_apart_from(found[-1], one):
            found.append(one)
    return tuple(found)
