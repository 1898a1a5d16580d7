"""Whether a sealed copy still says that it was proven, and of what; and which files beside its data may be replaced.

Decided here: what counts as a seal that is lost or was altered, and what in a copy's cache folder is of others and must be kept.
Not here: whether the data are what they were (manifest.py), and whose the copy is (claim.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FOLDERS_PATH, MANIFEST_FILE

FOLDERS_FAULT = "its list of empty folders is not that of the run"
SUPERSEDED_FOLDER = ".exlab-superseded"
"""Below a destination root: what had to make room there. Nothing in it is ever replaced or removed."""

_THE_AGENTS = frozenset(
    (CLAIM_PATH, FOLDERS_PATH, *(f"{CACHE_FOLDER}/{name}" for name in (CREATION_FILE, MANIFEST_FILE, "ingest.json")))
)
"""What the agent, or ExLab-Wizard on the instrument, alone writes: at the destination the instrument's counts."""


def is_the_agents(path: str, *, host: str) -> bool:
    """Return whether a file of the copy's cache folder is the agent's to replace, whatever it says there.

    `host`: of this PC, whose log is such a file, too; empty where it is not known.
    """
    return path in _THE_AGENTS or (bool(host) and path == f"{CACHE_FOLDER}/wizard.{host}.log")


def says_more(path: str, *, there: bytes, here: bytes) -> bool:
    """Return whether a file of the copy's cache folder says what the one that is to replace it does not.

    A log only grows: one that is the beginning of ours is an older state of it.
    """
    return not here.startswith(there) if path.endswith(".log") else here != there


@dataclass(frozen=True, slots=True)
class SealFound:
    """What a copy's cache folder holds of its seal now.

    `is_claimed`: its claim is this run's. `claimed_digest`: the manifest that the claim says was proven, as 64 lowercase hex,
    empty where it says none. `manifest_digest`: SHA-256 of the manifest that is there, empty where there is none. `says_synced`:
    its `creation.json` says so. `lists_folders`: it names the empty folders that the run has now. `altered`: the first other file
    of its cache folder that is gone there, or neither what the claim says was placed nor what is here; else empty.
    """

    is_claimed: bool
    claimed_digest: str
    manifest_digest: str
    says_synced: bool
    lists_folders: bool = True
    altered: str = ""


def kept_as(destination: str, path: str, digest: str) -> str:
    """Return where, below the root, a file of a copy's cache folder is kept that somebody wrote or altered.

    The same file has the same place, however often it is kept. `path`: of the file below the run. `digest`: its SHA-256.
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
    if found.altered:
        return f"a file beside its data was altered or is gone: {found.altered}"
    if not found.lists_folders:
        return FOLDERS_FAULT
    return ""
