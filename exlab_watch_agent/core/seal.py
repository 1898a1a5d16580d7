"""Whether a sealed copy still says that it was proven, and of what.

Decided here: what counts as a seal that is lost or was altered. Not here: whether the data are what they were (manifest.py),
and whose the copy is (claim.py).
"""

from __future__ import annotations

from dataclasses import dataclass

FOLDERS_FAULT = "its list of empty folders is not that of the run"
SUPERSEDED_FOLDER = ".exlab-superseded"
"""Below a destination root: what had to make room there. Nothing in it is ever replaced or removed."""


@dataclass(frozen=True, slots=True)
class SealFound:
    """What a copy's cache folder holds of its seal now.

    `is_claimed`: its claim is this run's. `claimed_digest`: the manifest that the claim says was proven, as 64 lowercase
    hex, empty where it says none. `manifest_digest`: SHA-256 of the manifest that is there, empty where there is none.
    `says_synced`: its `creation.json` says so. `lists_folders`: it names the empty folders that the run has now.
    """

    is_claimed: bool
    claimed_digest: str
    manifest_digest: str
    says_synced: bool
    lists_folders: bool = True


def kept_as(destination: str, path: str, digest: str) -> str:
    """Return where, below the root, a file of a run's seal that somebody altered is kept; the same file at the same place.

    `path`: of the file below the run. `digest`: its SHA-256.
    """
    return f"{SUPERSEDED_FOLDER}/{destination}/seal-{digest[:16]}/{path.rpartition('/')[2]}"


def seal_fault(found: SealFound, *, manifest_digest: str) -> str:
    """Return in words what is wrong with the seal of a run that was proven as `manifest_digest`; empty where nothing is."""
    if not found.is_claimed:
        return "its claim is gone or damaged"
    if not found.manifest_digest:
        return "its manifest is gone"
    if found.manifest_digest != manifest_digest:
        return "its manifest was altered"
    if found.claimed_digest != manifest_digest:
        return "its claim does not name the manifest that was proven"
    if not found.says_synced:
        return "its creation.json does not say synced"
    if not found.lists_folders:
        return FOLDERS_FAULT
    return ""
