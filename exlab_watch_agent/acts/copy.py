"""What effects ask of a run's copy at the destination."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from exlab_watch_agent.core.creation import says_synced
from exlab_watch_agent.core.effects import Precheck, Push, Verify
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE
from exlab_watch_agent.errors import FailureKind, ManifestNotKeptError
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


def copy_says_synced(effect: Push | Verify, ports: Ports) -> bool:
    """Return whether the copy's `creation.json` says that the copy was proven."""
    path = f"{CACHE_FOLDER}/{CREATION_FILE}"
    data = ports.transport.read_small(effect.destination, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX)
    return says_synced(data or b"")
