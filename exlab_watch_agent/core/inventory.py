"""What is in a run folder: the value that the tree adapter returns and every judgement starts from.

Decided here: what counts as a data file, the fingerprint by which a change is noticed, and the list of empty folders. Not here:
whether the inventory is complete (completeness.py) or acceptable (gate.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from blake3 import blake3

CACHE_FOLDER = ".exlab-wizard"
CREATION_FILE = "creation.json"
MANIFEST_FILE = "checksums.sha256"
README_FIELDS_FILE = "readme_fields.json"
INGEST_FILE = "ingest.json"
CHANGE_LATER = (CREATION_FILE, README_FIELDS_FILE, INGEST_FILE)
"""What ExLab-Wizard and people change in the cache folder of a run that is sealed."""
FOLDERS_FILE = "folders.txt"
CREATION_PATH = f"{CACHE_FOLDER}/{CREATION_FILE}"
MANIFEST_PATH = f"{CACHE_FOLDER}/{MANIFEST_FILE}"
FOLDERS_PATH = f"{CACHE_FOLDER}/{FOLDERS_FILE}"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One regular file. `path` is POSIX and relative to the run folder; times are nanoseconds since the epoch."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0


class FileSignature(NamedTuple):
    """By what a small file is known again without reading it: equal signatures mean "nobody saved it in between".

    A tuple in this order, which is also its form on disk: three numbers of a JSON list.
    """

    mtime_ns: int
    size_bytes: int
    inode: int


class OddKind(StrEnum):
    """What an entry is that is neither a regular file nor a folder."""

    SYMLINK = "symlink"
    SPECIAL = "special"
    MOUNT_POINT = "mount_point"


@dataclass(frozen=True, slots=True)
class OddEntry:
    """A link (also a Windows junction), a special file, or where another disk is mounted. None is followed or opened."""

    path: str
    kind: OddKind


@dataclass(frozen=True)
class Inventory:
    """Everything in a run folder outside the cache folder, each tuple sorted by path.

    `files`: regular files. `directories`: folders at any depth. `odd`: links, special files, mount points.
    Names that are not valid Unicode carry surrogate escapes, as `os.fsdecode` gives them.
    """

    files: tuple[FileEntry, ...]
    directories: tuple[str, ...] = ()
    odd: tuple[OddEntry, ...] = ()

    @property
    def files_total(self) -> int:
        return len(self.files)

    @cached_property
    def bytes_total(self) -> int:
        return sum(entry.size_bytes for entry in self.files)

    @property
    def folders_text(self) -> bytes:
        """Return the text of `folders.txt`: folders in which there is no file and no other folder, sorted, a line each.

        They are not made at a destination; `mkdir -p` of each line makes them again. A backslash, a newline and a carriage
        return in a name are written as `\\\\`, `\\n` and `\\r`.
        """
        held = {entry.path.rpartition("/")[0] for entry in self.files} | {
            p.rpartition("/")[0] for p in self.directories
        }
        empty = (path for path in self.directories if path not in held)
        lines = (path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "\n" for path in empty)
        return "".join(lines).encode("utf-8", "surrogateescape")

    @cached_property
    def fingerprint(self) -> str:
        """BLAKE3 over names, sizes, mtimes and ctimes of all entries, folders and odd entries by name only.

        Equal fingerprints mean "nothing moved", never "the bytes are equal".
        """
        hasher = blake3()
        for entry in self.files:
            line = f"f{entry.path}\0{entry.size_bytes}\0{entry.mtime_ns}\0{entry.ctime_ns}\0\0"
            hasher.update(line.encode("utf-8", "surrogatepass"))
        for path in self.directories:
            hasher.update(f"d{path}\0\0".encode("utf-8", "surrogatepass"))
        for odd in self.odd:
            hasher.update(f"o{odd.path}\0{odd.kind}\0\0".encode("utf-8", "surrogatepass"))
        return hasher.hexdigest(length=16)
