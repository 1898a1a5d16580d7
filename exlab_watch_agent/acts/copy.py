"""What effects ask of a run's copy at the destination."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from exlab_watch_agent.core import heartbeat
from exlab_watch_agent.core.claim import (
    CLAIM_PATH,
    CLAIM_SCHEMA,
    Claim,
    DestinationLook,
    DestinationStanding,
    conflict_at,
)
from exlab_watch_agent.core.creation import says_synced
from exlab_watch_agent.core.effects import Precheck, Push, Seal, Verify
from exlab_watch_agent.core.inventory import (
    CACHE_FOLDER,
    CREATION_FILE,
    FOLDERS_PATH,
    MANIFEST_FILE,
    FileEntry,
    Inventory,
)
from exlab_watch_agent.errors import DestinationOccupiedError, FailureKind, ManifestNotKeptError
from exlab_watch_agent.ports import Control, Ports

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
    its bytes are. The claim that is taken over after the proof is the one that was there when that was decided.

    Raises: DestinationOccupiedError.
    """
    found = ports.transport.look(effect.destination)
    mine = ports.agent.signed(effect.claim)
    is_adopted = bool(effect.adopts) and found.sealed_as == effect.adopts and not found.is_of_another_run(mine)
    if found.claim is not None and not found.claim.is_of(mine) and not is_adopted:
        where = DestinationStanding.CLAIMED_BY_OTHER_AGENT if found.is_sealed else DestinationStanding.CLAIMED_UNSEALED
        conflict = conflict_at(where, effect.destination, holder=found.holder, is_sealed=True)
        assert conflict is not None, "a foreign claim is one"
        raise DestinationOccupiedError(conflict.message, kind=conflict.kind)
    return found


def holder_is_at_work(found: DestinationLook, ports: Ports) -> bool:
    """Return whether the agent that claims a copy has left a sign of life lately. Raises: TransportError.

    One that says nothing of where it works, or whose sign cannot be read, is thought at work.
    """
    claim = found.claim
    if claim is None or not is_plain(claim.host):
        return True
    if claim.state_folder and claim.state_folder == ports.agent.state_folder:
        return False  # it is this one, under another job
    names = [heartbeat.name_of(claim.host)]
    if claim.state_folder:
        names.append(heartbeat.name_beside(claim.host, claim.state_folder))
    for name in names:
        data = ports.transport.read_small(heartbeat.FOLDER, name, limit_bytes=heartbeat.BYTES_MAX)
        if data is None:
            continue
        sign = heartbeat.sign_in(data)
        if sign is None or heartbeat.is_at_work(
            sign,
            state_folder=claim.state_folder,
            now=ports.clock.now(),
            here=ports.agent.machine,
            own_state_dir=ports.agent.state_dir,
            exists=ports.agent.exists,
        ):
            return True
    return False


def is_plain(host: str) -> bool:
    """Return whether a host's name can be part of a file's name."""
    return bool(host) and not set(host) & set("/\\\0") and host not in (".", "..")


def claim_bytes(claim: Claim, more: Mapping[str, str | int]) -> bytes:
    """Return the content of a claim's file; `more`: what the seal adds."""
    return (json.dumps({"schema": CLAIM_SCHEMA, **asdict(claim), **more}, indent=2) + "\n").encode()


def take_over(effect: Push, look_there: DestinationLook, ports: Ports, control: Control) -> None:
    """Put our claim in the place of that of an agent that is at work no more, which stays named in it.

    To be called when the local data were found equal to the manifest that its copy was sealed with.
    """
    assert look_there.claim is not None, "there is one to take over"
    claim = look_there.claim.taken_over(ports.agent.signed(effect.claim), sealed_at=look_there.sealed_at)
    data = claim_bytes(claim, {})
    entry = FileEntry(CLAIM_PATH, len(data), int(ports.clock.now().timestamp()) * 10**9)
    ports.transport.replace(effect.run_path, [entry], effect.destination, control=control, instead={CLAIM_PATH: data})


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
