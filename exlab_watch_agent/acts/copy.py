"""What effects ask of a run's copy at the destination."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from exlab_watch_agent.core.claim import DestinationLook, DestinationStanding, conflict_at
from exlab_watch_agent.core.creation import says_synced
from exlab_watch_agent.core.effects import Precheck, Push, Seal, Verify
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FOLDERS_PATH, MANIFEST_FILE, Inventory
from exlab_watch_agent.errors import DestinationOccupiedError, FailureKind, ManifestNotKeptError
from exlab_watch_agent.ports import Ports

NOT_THE_COPY = frozenset({FailureKind.NETWORK, FailureKind.DESTINATION_FULL, FailureKind.BINARY_MISSING})
"""Kinds of failure that say nothing of the bytes that are there."""
CACHE_READ_BACK_BYTES_MAX = 256 * 1024 * 1024


def present(ports: Ports, destination: str) -> dict[str, tuple[int, int | None]]:
    """Return POSIX path → (size in bytes, mtime in ns or None where the backend keeps none) of the copy's data files."""
    listing = ports.transport.listing(destination)
    return {path: (file.size_bytes, file.mtime_ns) for path, file in listing.items()}


def note_wrong(effect: Precheck | Verify, paths: Sequence[str], ports: Ports) -> None:
    """Keep the names of files that exist there and are wrong, so that the next push really replaces them."""
    # What a share that has just gone away does not show is not a reason to move anything.
    ports.transport.require_marker(expected_marker_id=ports.marker_id())
    # A list that cannot be written replaces no verdict: nothing makes room then, and the next comparison says it again.
    with suppress(ManifestNotKeptError):
        ports.manifests.note_wrong(effect.job_id, paths)


def look_unless_foreign(effect: Verify | Seal, ports: Ports) -> DestinationLook:
    """Return what the copy says of itself, unless somebody else has claimed it meanwhile: then it is not our proof, whatever
    its bytes are.

    Raises: DestinationOccupiedError.
    """
    found = ports.transport.look(effect.destination)
    if found.claim is not None and found.claim.job_id != effect.job_id:
        where = DestinationStanding.CLAIMED_BY_OTHER_AGENT if found.is_sealed else DestinationStanding.CLAIMED_UNSEALED
        conflict = conflict_at(where, effect.destination, holder=found.holder, is_sealed=True)
        assert conflict is not None, "a foreign claim is one"
        raise DestinationOccupiedError(conflict.message, kind=conflict.kind)
    return found


def manifest_there(effect: Verify | Seal, ports: Ports) -> bytes | None:
    """Return the manifest that the copy has, None where it has none."""
    path = f"{CACHE_FOLDER}/{MANIFEST_FILE}"
    return ports.transport.read_small(effect.destination, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX)


def folders_to_list(run_path: str, inventory: Inventory, ports: Ports) -> bytes | None:
    """Return what `folders.txt` must say, None where there need be none: no folder is empty, and none ever was."""
    text = inventory.folders_text
    is_there = any(entry.path == FOLDERS_PATH for entry in ports.tree.cache_files(run_path))
    return text if text or is_there else None


def copy_says_synced(effect: Push, ports: Ports) -> bool:
    """Return whether the copy's `creation.json` says that the copy was proven."""
    path = f"{CACHE_FOLDER}/{CREATION_FILE}"
    data = ports.transport.read_small(effect.destination, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX)
    return says_synced(data or b"")
