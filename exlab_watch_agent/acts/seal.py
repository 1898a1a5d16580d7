"""Says on both sides that a copy was proven, the NAS first."""

from __future__ import annotations

import hashlib

from exlab_watch_agent.acts.carry_cache import read_cache
from exlab_watch_agent.acts.copy import (
    claim_bytes,
    claim_entry,
    folders_to_list,
    keep_beside,
    keep_what_differs,
    look_unless_foreign,
    manifest_here,
    manifest_there,
    present,
    read_there,
    require_read_back,
)
from exlab_watch_agent.acts.source import unchanged_inventory
from exlab_watch_agent.core.cache_copy import form_of
from exlab_watch_agent.core.claim import CLAIM_FILE, CLAIM_PATH, Claim, DestinationLook
from exlab_watch_agent.core.effects import Seal
from exlab_watch_agent.core.events import RunChanged, Sealed
from exlab_watch_agent.core.inventory import (
    CREATION_PATH,
    FOLDERS_FILE,
    FOLDERS_PATH,
    MANIFEST_FILE,
    MANIFEST_PATH,
    Inventory,
)
from exlab_watch_agent.core.manifest import format_manifest, manifest_digest
from exlab_watch_agent.core.passes import Uptime
from exlab_watch_agent.core.push_plan import wrong_sizes
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.errors import FailureKind, ManifestLostError, TransportError
from exlab_watch_agent.ports import Control, Ports

PROOF_HOLDS_S = 3600.0
"""For so long a proof counts for a first seal."""
PROVEN_LONG_AGO = "it was proven too long ago to be sealed now: it is proven anew"


def seal(effect: Seal, ports: Ports, control: Control) -> Sealed | RunChanged:
    """Place manifest, claim and a `creation.json` that says `synced` at the NAS, and read them back; only then it says so here.

    Before the first seal, also of a copy that is adopted or taken over, the copy is listed once more: one of which a file went
    missing since it was proven is pushed anew, and where that happens again the seal fails. A proof that is older than
    PROOF_HOLDS_S is made anew: sizes do not show what others wrote there meanwhile.
    """
    inventory = unchanged_inventory(effect, ports)
    if effect.is_first and (not effect.is_proven or _is_old(effect.proven, ports.clock.uptime())):
        return RunChanged(effect.turn, PROVEN_LONG_AGO, is_unproven=True)
    if effect.is_first and (missing := _missing_there(effect, inventory, ports, control)):
        if effect.has_missed:
            raise TransportError(FailureKind.HASH_MISMATCH, f"once more {missing}: something removes files there")
        return RunChanged(effect.turn, missing, is_missing_there=True, is_unproven=True)
    # Also before the first seal: an operator may have given the folder to another agent since the push.
    look_there = look_unless_foreign(effect, ports)
    if effect.is_again or effect.adopts or effect.is_left_there:
        _keep_what_was_altered(effect, look_there, ports)
    claim = _handed_on(look_there, ports.agent.signed(effect.claim))
    if effect.is_left_there:  # two runs of ours may have been found equal to one copy: the first that claims it has it
        ports.transport.place_claim(effect.destination, claim)
    manifest = ports.manifests.load(effect.job_id, digest=effect.manifest_digest)
    if manifest is None:
        manifest = _manifest_anew(effect, inventory, ports, control)
    if not effect.is_again:
        _keep_others_manifest(effect, manifest, ports)
    ports.sealer.write(effect.run_path, MANIFEST_FILE, manifest)
    folders = folders_to_list(effect.run_path, inventory, ports)
    if folders is not None:
        ports.sealer.write(effect.run_path, FOLDERS_FILE, folders)
    signature = ports.tree.cache_signature(effect.run_path)  # before it is read: what changes meanwhile is seen again
    found = read_cache(effect.run_path, ports)
    synced = ports.creations.text_with_status(effect.run_path, "synced")
    here = {**found.data, MANIFEST_PATH: manifest, CREATION_PATH: synced.data}
    if folders is not None:
        here[FOLDERS_PATH] = folders
    digests = found.digests | {path: hashlib.sha256(data).hexdigest() for path, data in here.items()}
    told_claim = claim_bytes(claim, {"manifest_sha256": effect.manifest_digest, **effect.anchor, "cache": digests})
    ports.sealer.write(effect.run_path, CLAIM_FILE, told_claim)
    ports.transport.clear_partials(effect.destination)  # a seal that was killed also leaves some
    cache = (*found.entries, claim_entry(told_claim, ports))
    if effect.adopts or effect.is_left_there:
        keep_what_differs(effect, found.entries, ports)
    told = {path: data for path, data in here.items() if path in _SEAL} | {CLAIM_PATH: told_claim}
    ports.transport.replace(effect.run_path, cache, effect.destination, control=control, instead={**here, **told})
    # In the empty mount point of a share that went away the seal is read back just as well: so the marker comes first. A share
    # that was away while the seal was written, and is back by now, then has no seal to be read.
    ports.transport.require_marker(expected_marker_id=ports.marker_id())
    ports.require_mounts()
    require_read_back(effect, told, ports)
    unchanged_inventory(effect, ports)
    # The very text that the NAS has: what another program saved meanwhile is not overwritten, and the seal is made again.
    saved = ports.creations.put_text(effect.run_path, synced)
    return Sealed(effect.turn, saved, form_of(digests), signature)


def _missing_there(effect: Seal, inventory: Inventory, ports: Ports, control: Control) -> str:
    """Return in words what went missing of the copy since it was proven; nothing where it has all files. Raises: TransportError."""
    gone = wrong_sizes(inventory.files, present(ports, effect.destination, due=inventory.files, control=control))
    if not gone:
        return ""
    return f"{counted(len(gone), 'file')} missing or different in size on the NAS since the proof (first: {gone[0]})"


def _is_old(proven: Uptime, now: Uptime) -> bool:
    """Whether a proof is too old for a first seal; also where the machine was started since. False where nothing tells."""
    if not proven.boot_id or not now.boot_id:
        return False
    return proven.boot_id != now.boot_id or now.seconds - proven.seconds > PROOF_HOLDS_S


_SEAL = frozenset({MANIFEST_PATH, CREATION_PATH, FOLDERS_PATH})
"""What is read back of what a seal places, beside the claim."""


def _handed_on(look_there: DestinationLook, mine: Claim) -> Claim:
    """Return our claim with all who held the copy before us."""
    there = look_there.claim
    if there is None:
        return mine
    return there.kept_by(mine) if there.is_of(mine) else there.taken_over(mine, sealed_at=look_there.sealed_at)


def _keep_what_was_altered(effect: Seal, look_there: DestinationLook, ports: Ports) -> None:
    """Keep beside the runs, as evidence, a manifest or claim there that is not as we left it: the seal replaces both."""
    manifest = manifest_there(effect, ports)
    if manifest is not None and manifest_digest(manifest) != effect.manifest_digest:
        keep_beside(effect, MANIFEST_PATH, manifest, ports)
    if look_there.claim is None:
        damaged = read_there(effect, CLAIM_PATH, ports)
        if damaged is not None:
            keep_beside(effect, CLAIM_PATH, damaged, ports)


def _keep_others_manifest(effect: Seal, manifest: bytes, ports: Ports) -> None:
    """Keep, as evidence beside the runs on the NAS, a manifest that somebody else wrote into the run's own cache folder."""
    if any(entry.path == CLAIM_PATH for entry in ports.tree.cache_files(effect.run_path)):
        return  # a seal of ours has been here since
    here = manifest_here(effect, ports)
    if here is not None and here != manifest:
        keep_beside(effect, MANIFEST_PATH, here, ports)


def _manifest_anew(effect: Seal, inventory: Inventory, ports: Ports, control: Control) -> bytes:
    """Return the manifest that the verifier could not keep, made from the local files; its digest says that it is the same."""
    here = ports.digester.digests(effect.run_path, inventory.files, control=control)
    text = format_manifest(here)
    if manifest_digest(text) != effect.manifest_digest:
        raise ManifestLostError(
            "the manifest is lost from the state folder, and the local files are not those that were proven: compare them "
            "with the NAS copy.",
        )
    ports.manifests.save(effect.job_id, text)
    return text
