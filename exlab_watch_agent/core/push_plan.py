"""What a push has to do: the list made before it, not whatever a tool would find; and the moves that place what it copied."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from exlab_watch_agent.core.inventory import FileEntry

MTIME_TOLERANCE_NS = 2_000_000_000
"""FAT and some SMB servers keep times to two seconds."""


@dataclass(frozen=True, slots=True)
class PushPlan:
    """`copy`: files to copy. `set_aside`: names at the destination that have other content and must make room.

    A file whose size and time agree is left for the verifier to judge: what it finds wrong makes room for the next push.
    """

    copy: tuple[FileEntry, ...]
    set_aside: tuple[str, ...]

    @property
    def bytes_to_copy(self) -> int:
        return sum(entry.size_bytes for entry in self.copy)


def plan_push(
    files: Sequence[FileEntry], present: Mapping[str, tuple[int, int | None]], *, wrong: Collection[str] = ()
) -> PushPlan:
    """Return what is to be copied. `present`: POSIX path → (size in bytes, mtime in ns or None).

    `wrong`: what a comparison found other there; it makes room although size and time may agree.
    """
    copy: list[FileEntry] = []
    set_aside: list[str] = []
    for entry in files:
        there = present.get(entry.path)
        if there is not None and entry.path not in wrong and _looks_equal(entry, *there):
            continue
        copy.append(entry)
        if there is not None:
            set_aside.append(entry.path)
    return PushPlan(copy=tuple(copy), set_aside=tuple(set_aside))


def wrong_sizes(files: Sequence[FileEntry], present: Mapping[str, tuple[int, int | None]]) -> tuple[str, ...]:
    """Return the paths that are missing at the destination or have another size there."""
    return tuple(e.path for e in files if e.path not in present or present[e.path][0] != e.size_bytes)


def is_behind(files: Sequence[FileEntry], sizes: Mapping[str, int]) -> bool:
    """Whether a listing shows one of these files not at all, or shorter: as one that lags does. `sizes`: path → bytes there.

    A longer file is another one, and does not become right by waiting.
    """
    return any(sizes.get(entry.path, -1) < entry.size_bytes for entry in files)


def _looks_equal(entry: FileEntry, size_bytes: int, mtime_ns: int | None) -> bool:
    if size_bytes != entry.size_bytes:
        return False
    return mtime_ns is None or abs(mtime_ns - entry.mtime_ns) <= MTIME_TOLERANCE_NS


# How a copy that waits in a folder of its own gets its final names: in as few moves as there can be.


def plan_moves(paths: Iterable[str], folders: Iterable[str]) -> dict[str, list[str]]:
    """Return parent folder → names in it to be moved there, files or whole folders.

    `paths`: POSIX paths of files, below both folders alike. `folders`: those that exist where they go, without the
    top itself. A folder that does not exist there is moved with all that is in it.
    """
    standing = {"", *folders}
    moves: dict[str, dict[str, None]] = {}
    for path in paths:
        parent = ""
        for name in path.split("/"):
            below = f"{parent}/{name}" if parent else name
            if below not in standing:
                moves.setdefault(parent, {})[name] = None
                break
            parent = below
    return {parent: list(names) for parent, names in moves.items()}


def folders_of(paths: Iterable[str]) -> set[str]:
    """Return every folder on the way to these files, without the top."""
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
