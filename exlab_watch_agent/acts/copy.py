"""What effects ask of a run's copy at the destination."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

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
from exlab_watch_agent.core.effects import CarryCache, Precheck, Push, Seal, Verify
from exlab_watch_agent.core.heartbeat import SignOfLife
from exlab_watch_agent.core.inventory import (
    CREATION_PATH,
    FOLDERS_PATH,
    MANIFEST_PATH,
    FileEntry,
    Inventory,
)
from exlab_watch_agent.core.manifest import manifest_digest, parse_manifest
from exlab_watch_agent.core.seal import kept_as
from exlab_watch_agent.errors import (
    DestinationOccupiedError,
    FailureKind,
    ManifestLostError,
    ManifestNotKeptError,
    TransportError,
)
from exlab_watch_agent.ports import UNHINDERED, Control, Ports

NOT_THE_COPY = frozenset({FailureKind.NETWORK, FailureKind.DESTINATION_FULL, FailureKind.BINARY_MISSING})
"""Kinds of failure that say nothing of the bytes that are there."""
CACHE_READ_BACK_BYTES_MAX = 256 * 1024 * 1024
OfCopy = Push | Verify | Seal | CarryCache
"""What is about one run's copy, and reads or writes its cache folder."""


def present(
    ports: Ports, destination: str, *, due: Sequence[FileEntry] = (), control: Control = UNHINDERED
) -> dict[str, tuple[int, int | None]]:
    """Return POSIX path → (size in bytes, mtime in ns or None where the backend keeps none) of the copy's data files.

    `due`: those that were pushed a moment ago, as in Transport.listing.
    """
    listing = ports.transport.listing(destination, due=due, control=control)
    return {path: (file.size_bytes, file.mtime_ns) for path, file in listing.items()}


def lacks_room(destination: str, free_bytes: int | None, needs_bytes: int) -> str:
    """Return in one sentence that a destination has less room than this; nothing where it has it or cannot tell (None)."""
    if free_bytes is None or free_bytes >= needs_bytes:
        return ""
    return f"{destination} has {free_bytes} bytes free and the run needs {needs_bytes}: make room on the NAS."


def read_there(effect: OfCopy, path: str, ports: Ports) -> bytes | None:
    """Return a file of the copy's cache folder, None where there is none. `path`: below the run. Raises: TransportError."""
    return ports.transport.read_small(effect.destination, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX)


def read_here(effect: OfCopy, path: str, ports: Ports) -> bytes:
    """Return a file of the run's own cache folder. Raises: RunUnreadableError."""
    return ports.tree.read_small(effect.run_path, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX)


def require_read_back(effect: OfCopy, placed: Mapping[str, bytes], ports: Ports) -> None:
    """Return when the copy's cache folder has these files as they were placed, path → bytes. Raises: TransportError."""
    there = ports.transport.read_several(effect.destination, tuple(placed), limit_bytes=CACHE_READ_BACK_BYTES_MAX)
    for path, data in placed.items():
        if there.get(path) != data:
            raise TransportError(FailureKind.UNKNOWN, f"{path} on the NAS is not the one that was written")


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
    is_ours = found.claim is None or (
        found.claim.is_of(ports.agent.signed(effect.claim)) and is_our_seal(found, ports, effect.manifest_digest)
    )
    if not is_ours and not may_be_adopted(effect, found, ports):
        where = DestinationStanding.CLAIMED_BY_OTHER_AGENT if found.is_sealed else DestinationStanding.CLAIMED_UNSEALED
        is_of_this_run = found.claim is not None and found.claim.names_same_run(effect.claim)
        if effect.is_left_there and not is_of_this_run:
            where = DestinationStanding.OCCUPIED  # two runs were found equal to it, and the other one has it
        conflict = conflict_at(where, effect.destination, holder=found.holder, is_sealed=True)
        assert conflict is not None, "a foreign claim is one"
        raise DestinationOccupiedError(conflict.message, kind=conflict.kind, holding=found.holding)
    return found


def is_our_seal(found: DestinationLook, ports: Ports, manifest_digest: str) -> bool:
    """Return whether the seal of a copy that is claimed for our job is one that we know of; True where it is not sealed.

    An older copy of our state folder, and a copy of it on another machine, do not know what was sealed since: then it is proven
    like another agent's before it counts, and nothing of it makes room. `manifest_digest`: what our own record says was sealed.
    """
    if found.anchor is None or found.sealed_as in ("", manifest_digest):
        return True
    return ports.agent.has_line(found.anchor)


def is_the_one_adopted(effect: Push | Verify | Seal, found: DestinationLook) -> bool:
    """Return whether a claim is still the one that was there when it was decided to take the copy over."""
    claim = found.claim
    return (
        bool(effect.adopts)
        and claim is not None
        and claim.names_same_run(effect.claim)
        and (claim.job_id, found.sealed_as) == (effect.adopts_from, effect.adopts)
    )


def may_be_adopted(effect: Push | Verify | Seal, found: DestinationLook, ports: Ports) -> bool:
    """Return whether the copy is the one that was to be adopted, and whoever claims it has not come back meanwhile."""
    return is_the_one_adopted(effect, found) and not holder_at_work(found, ports).is_so


@dataclass(frozen=True, slots=True)
class AtWork:
    """Whether an agent must be thought at work, and why its sign of life may be none (empty: nothing speaks against it)."""

    is_so: bool
    fault: str = ""


def holder_at_work(found: DestinationLook, ports: Ports) -> AtWork:
    """Return whether the agent that claims a copy has left a sign of life lately. Raises: TransportError.

    One that says nothing of where it works, or whose sign cannot be read, is thought at work.
    """
    claim = found.claim
    if claim is None:
        return AtWork(is_so=True)
    now = ports.clock.now()
    signs = [(name, sign) for name, sign in _signs(ports) if sign is None or _is_of(sign, claim)]
    if not signs:
        # It may have ended before it could leave any: what it sealed lately is a sign of life, too.
        return AtWork(is_so=heartbeat.is_recent(found.sealed_at, now=now))
    live = [(name, sign) for name, sign in signs if sign is None or _is_at_work(sign, ports)]
    faults = [heartbeat.fault_of(name, sign, now=now) for name, sign in live]
    # One that is in order says enough: then nobody is to be told to remove another.
    return AtWork(is_so=bool(live), fault=faults[0] if faults and all(faults) else "")


def _signs(ports: Ports) -> Iterator[tuple[str, SignOfLife | None]]:
    """Yield the name and content of every sign of life at the destination, None where it cannot be read. Raises: TransportError."""
    for name in ports.transport.listing(heartbeat.FOLDER):
        if name.endswith(".json"):
            data = ports.transport.read_small(heartbeat.FOLDER, name, limit_bytes=heartbeat.BYTES_MAX)
            yield name, None if data is None else heartbeat.sign_in(data)


def _is_of(sign: SignOfLife, claim: Claim) -> bool:
    """Whether a sign may be that of the agent that makes the claim; of the first version both say their host alone."""
    if sign.state_folder and claim.state_folder:
        return sign.state_folder == claim.state_folder
    return not claim.host or sign.host == claim.host


def _is_at_work(sign: SignOfLife, ports: Ports) -> bool:
    agent = ports.agent
    return heartbeat.is_at_work(
        sign,
        now=ports.clock.now(),
        machine=agent.machine,
        host=agent.host,
        state_dir=agent.state_dir,
        is_gone=agent.is_gone,
    )


def claim_bytes(claim: Claim, more: Mapping[str, str | int | Mapping[str, str]]) -> bytes:
    """Return the content of a claim's file; `more`: what the seal adds."""
    return (json.dumps({"schema": CLAIM_SCHEMA, **asdict(claim), **more}, indent=2) + "\n").encode()


def claim_entry(data: bytes, ports: Ports) -> FileEntry:
    """Return a claim's file as one that is to be placed: written now."""
    return FileEntry(CLAIM_PATH, len(data), int(ports.clock.now().timestamp()) * 10**9)


def put_claim(effect: Push | CarryCache, data: bytes, ports: Ports, control: Control) -> None:
    """Put a claim of ours in the place of the one that is there, whole and at once."""
    entries, instead = [claim_entry(data, ports)], {CLAIM_PATH: data}
    ports.transport.replace(effect.run_path, entries, effect.destination, control=control, instead=instead)


def keep_beside(effect: Push | Seal | CarryCache, path: str, data: bytes, ports: Ports) -> None:
    """Keep a file that was in the copy's cache folder as evidence, below the root and beside the runs."""
    if len(data) >= CACHE_READ_BACK_BYTES_MAX:
        text = f"{path} of {effect.destination} on the NAS is not ours and too large to be kept beside: move it away there."
        raise TransportError(FailureKind.UNKNOWN, text)
    ports.transport.write_small(kept_as(effect.destination, path, hashlib.sha256(data).hexdigest()), data)


def keep_what_differs(effect: Push | Seal, entries: Sequence[FileEntry], ports: Ports) -> None:
    """Keep what another agent's copy has in its cache folder and ours is about to replace. The claim hands on what it said."""
    for entry in entries:
        if entry.path == CLAIM_PATH:
            continue
        there = read_there(effect, entry.path, ports)
        if there is not None and there != read_here(effect, entry.path, ports):
            keep_beside(effect, entry.path, there, ports)


def adopt(effect: Push, look_there: DestinationLook, ports: Ports, control: Control) -> None:
    """Put our claim in the place of that of an agent that is at work no more, which stays named in it.

    To be called when the local data were found equal to the manifest that its copy was sealed with.
    """
    assert look_there.claim is not None, "there is one to take over"
    claim = look_there.claim.taken_over(ports.agent.signed(effect.claim), sealed_at=look_there.sealed_at)
    # It goes on saying what the copy was sealed with, for whoever comes after us.
    data = claim_bytes(claim, {"manifest_sha256": effect.adopts, "sealed_at": look_there.sealed_at})
    put_claim(effect, data, ports, control)


def manifest_there(effect: Verify | Seal, ports: Ports) -> bytes | None:
    """Return the manifest that the copy has, None where it has none."""
    return read_there(effect, MANIFEST_PATH, ports)


def manifest_here(effect: Verify | Seal, ports: Ports) -> bytes | None:
    """Return the manifest that the run's own cache folder has, None where it has none."""
    if not any(entry.path == MANIFEST_PATH for entry in ports.tree.cache_files(effect.run_path)):
        return None
    return read_here(effect, MANIFEST_PATH, ports)


def sealed_manifest(effect: Push | Verify, ports: Ports) -> dict[str, str]:
    """Return the manifest that this run was sealed with: as it is kept, else as the run's own cache folder has it.

    Raises: ManifestLostError, RunUnreadableError.
    """
    data = ports.manifests.load(effect.job_id, digest=effect.manifest_digest)
    if data is None:
        data = read_here(effect, MANIFEST_PATH, ports)
        if manifest_digest(data) != effect.manifest_digest:
            raise ManifestLostError(
                "the manifest of this sealed run is lost or was changed, here and in the state folder: "
                "restore .exlab-wizard/checksums.sha256 from the NAS copy.",
            )
    return parse_manifest(data)


def folders_to_list(run_path: str, inventory: Inventory, ports: Ports) -> bytes | None:
    """Return what `folders.txt` must say, None where there need be none: no folder is empty, and none ever was."""
    text = inventory.folders_text
    is_there = any(entry.path == FOLDERS_PATH for entry in ports.tree.cache_files(run_path))
    return text if text or is_there else None


def copy_says_synced(effect: Push, ports: Ports) -> bool:
    """Return whether the copy's `creation.json` says that the copy was proven."""
    return says_synced(read_there(effect, CREATION_PATH, ports) or b"")
