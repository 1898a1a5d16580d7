"""Which files of a run's cache folder are due at the NAS after the seal, and whether it has travelled in its present form.

Decided here: what counts (logs go along and make nothing due; what tells of the proof is the seal's), in which form the folder is,
and what of the copy is the agent's own to replace. Not here: when it is brought (engine/caches.py), and how (acts/carry_cache.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase

from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FOLDERS_PATH, MANIFEST_PATH, FileEntry

DIGESTED_BYTES_MAX = 16 * 1024 * 1024
"""Larger files of a cache folder are known by size and time: they travel, and are not read for each look."""
_THE_SEALS = frozenset({CLAIM_PATH, MANIFEST_PATH, FOLDERS_PATH})
"""What a seal alone places, after a proof: whatever becomes of them here is no news for the copy."""


def is_log(path: str) -> bool:
    """Return whether this file of the cache folder (relative to the run) is a log, which goes along and makes nothing due."""
    folder, _, name = path.rpartition("/")
    return folder == CACHE_FOLDER and fnmatchcase(name, "wizard.*.log")


def makes_due(path: str) -> bool:
    """Return whether a change of this file of the cache folder has to be brought to the NAS by itself."""
    return path not in _THE_SEALS and not is_log(path)


def digest_of(entry: FileEntry, data: bytes | None) -> str:
    """Return by what a file is known: the SHA-256 of its bytes; `data` is None where it is too large to be read."""
    return f"{entry.size_bytes}:{entry.mtime_ns}" if data is None else hashlib.sha256(data).hexdigest()


def form_of(digests: Mapping[str, str]) -> str:
    """Return the form of a cache folder in 32 hex digits. `digests`: path → digest_of, of the files that make something due."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()) if makes_due(path))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def has_travelled(form: str, digests: Mapping[str, str]) -> bool:
    """Return whether a cache folder is at the NAS in its present form. `form`: that in which it travelled last; empty: never."""
    return bool(form) and form == form_of(digests)


def due(digests: Mapping[str, str], placed: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths whose bytes are not those that the agent put into the copy, sorted.

    `placed`: path → digest, as the copy's claim keeps it.
    """
    return tuple(sorted(path for path, digest in digests.items() if makes_due(path) and placed.get(path) != digest))


def is_altered(there: bytes | None, *, here: bytes | None, placed: str) -> bool:
    """Return whether a file of the copy is not what the agent put there, as an audit sees it: gone, or of others.

    What is here may just be on its way there.
    """
    return there is None or is_of_others(there, here=here, placed=placed)


def size_known(placed: str) -> int | None:
    """Return the size by which a large file is known (digest_of); None for one that is known by its bytes."""
    size, colon, _ = placed.partition(":")
    return int(size) if colon and size.isdecimal() else None


def is_of_others(there: bytes | None, *, here: bytes | None, placed: str) -> bool:
    """Return whether what the copy has must be kept before it is replaced: it is neither what is here nor what we put there.

    `placed`: the digest of what the agent put there last, empty where that is not known.
    """
    return there is not None and there != here and hashlib.sha256(there).hexdigest() != placed
