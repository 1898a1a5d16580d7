"""Puts our claim in the place of others' because an operator said so, and what they have there aside. Nothing is destroyed.

What must be true: the holder is the one that the operator's word was for (`Push.takes_over`); a run that was sealed here before is
here as it was sealed, byte for byte, for else an operator must choose between the two first; the claim changes hands first,
so that an agent that is at work there after all finds that out before it moves anything; and all that is not the run's, whole
files of the cache folder included, lies below `.exlab-superseded` before the first file of ours comes. Each step may be
repeated after a kill: what is equal stays. Not here: a copy that is adopted by proof (copy.py), and which files of the run
itself must make room (core/push_plan.py).
"""

from __future__ import annotations

from exlab_watch_agent.acts.copy import (
    claim_bytes,
    keep_beside,
    present,
    put_claim,
    read_here,
    read_there,
    sealed_manifest,
)
from exlab_watch_agent.core.claim import CLAIM_FILE, CLAIM_PATH, DestinationLook
from exlab_watch_agent.core.effects import Push
from exlab_watch_agent.core.inventory import (
    CACHE_FOLDER,
    CREATION_FILE,
    FOLDERS_FILE,
    MANIFEST_FILE,
    Inventory,
)
from exlab_watch_agent.core.manifest import Agreement, compare
from exlab_watch_agent.core.places import not_below, place_within
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.core.ways_out import LOCAL_CHANGED, LOCAL_MISSING
from exlab_watch_agent.errors import DestinationOccupiedError, LocalDiffersError
from exlab_watch_agent.ports import Control, Ports

_SEALED = frozenset({CREATION_FILE, FOLDERS_FILE, MANIFEST_FILE})


def displace(effect: Push, found: DestinationLook, inventory: Inventory, ports: Ports, control: Control) -> None:
    """Claim a destination that others hold; the holder until now stays named in the claim.

    Raises: DestinationOccupiedError where the way there cannot move files aside and some would have to go; LocalDiffersError.
    """
    if effect.manifest_digest:
        _require_as_sealed(effect, inventory, ports, control)
    _require_room_can_be_made(effect, inventory, ports)
    mine = ports.agent.signed(effect.claim)
    claim = mine if found.claim is None else found.claim.taken_over(mine, sealed_at=found.sealed_at)
    before = read_there(effect, CLAIM_PATH, ports)
    if before is not None:
        keep_beside(effect, CLAIM_PATH, before, ports)
    put_claim(effect, claim_bytes(claim, {}), ports, control)


def put_others_aside(effect: Push, inventory: Inventory, ports: Ports) -> None:
    """Move aside what is there and is not the run's: data files that the run does not have, and other cache files.

    Of the cache folder, all that is not byte for byte what is here; of what is, a copy is kept of what the seal replaces: the
    manifest and the `creation.json` of a copy that was sealed are evidence. Files of the run's names are left to the push, which
    tells the equal ones from others.
    """
    transport = ports.transport
    others, evidence = _other_cache_files(effect, ports)
    for name in evidence if transport.can_move() else (*evidence, *others):
        _keep(effect, name, ports)
    if others and transport.can_move():
        transport.set_aside(f"{effect.destination}/{CACHE_FOLDER}", others)
    extra = _extra(effect, inventory, ports)
    if extra and transport.can_move():
        transport.set_aside(effect.destination, extra)


def _extra(effect: Push, inventory: Inventory, ports: Ports) -> list[str]:
    """Return the data files there that the run does not have, sorted.

    What is in a place within this one is a copy of its own, and may be another run's of this very agent.
    """
    within = place_within(effect.destination)
    is_shared = bool(within) and not ports.transport.look(within).is_empty
    there = not_below(effect.destination if is_shared else "", present(ports, effect.destination))
    return sorted(set(there) - {entry.path for entry in inventory.files})


def _other_cache_files(effect: Push, ports: Ports) -> tuple[list[str], list[str]]:
    """Return the names of files in the copy's cache folder that are not as here, and of those that are and will be replaced."""
    here = {entry.path for entry in ports.tree.cache_files(effect.run_path)}
    others: list[str] = []
    evidence: list[str] = []
    for name in sorted(ports.transport.listing(f"{effect.destination}/{CACHE_FOLDER}")):
        path = f"{CACHE_FOLDER}/{name}"
        if name == CLAIM_FILE:
            continue  # it is ours by now
        if path not in here or read_there(effect, path, ports) != read_here(effect, path, ports):
            others.append(name)
        elif name in _SEALED:
            evidence.append(name)
    return others, evidence


def _keep(effect: Push, name: str, ports: Ports) -> None:
    """Keep a copy where nothing can be moved."""
    path = f"{CACHE_FOLDER}/{name}"
    data = read_there(effect, path, ports)
    if data is not None:
        keep_beside(effect, path, data, ports)


def _require_as_sealed(effect: Push, inventory: Inventory, ports: Ports, control: Control) -> None:
    """Return where every file here is what this agent sealed, and none is missing. Raises: LocalDiffersError."""
    manifest = sealed_manifest(effect, ports)
    here = ports.digester.digests(effect.run_path, inventory.files, control=control)
    found = compare(local=here, manifest=manifest, remote=manifest)
    if found.agreement is Agreement.EQUAL:
        return
    kind = LOCAL_MISSING if found.local_missing else LOCAL_CHANGED
    names = (*found.local_missing, *found.local_changed, *found.local_added)
    first = f" (first: {names[0]})" if names else ""
    raise LocalDiffersError(
        f"{counted(len(names), 'file')} here {'is' if len(names) == 1 else 'are'} not as this agent sealed the run before{first}, "
        "so nobody had to give way to it, and nothing there was touched",
        kind=kind,
    )


def _require_room_can_be_made(effect: Push, inventory: Inventory, ports: Ports) -> None:
    if ports.transport.can_move():
        return
    if extra := _extra(effect, inventory, ports):
        raise DestinationOccupiedError(
            f"{effect.destination} has {counted(len(extra), 'file')} that this run does not have (first: {extra[0]}), and over "
            f"{ports.transport.describe()} nothing can be moved aside: move the folder away on the NAS, then give "
            "`exlab-watch-agent resolve RUN --use local`."
        )
