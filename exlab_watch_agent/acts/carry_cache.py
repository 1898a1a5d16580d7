"""Brings what changed in a sealed run's cache folder to its copy: overrides, ReadMe fields, the ingest state, the log.

What must be true: the copy is sealed as ours (its claim says so, with our manifest) and nothing but its cache folder is written;
what others changed there is kept aside first; the claim's member `cache`, which says what we put there, is written last. So a
stop at any moment leaves old and new files, each of them whole, and the next time brings the rest. Data are not asked for, no pass
is made or lost. Not here: when it is due (engine/caches.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from exlab_watch_agent.acts.copy import keep_beside, put_claim, read_there, require_read_back
from exlab_watch_agent.core.binding import first_folder
from exlab_watch_agent.core.cache_copy import (
    DIGESTED_BYTES_MAX,
    digest_of,
    due,
    form_of,
    is_log,
    is_of_others,
    makes_due,
)
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.creation import says_synced
from exlab_watch_agent.core.effects import CarryCache
from exlab_watch_agent.core.events import CacheCarried, CacheStays, Unreached
from exlab_watch_agent.core.inventory import CREATION_PATH, FileEntry
from exlab_watch_agent.core.members import texts
from exlab_watch_agent.errors import (
    DESTINATION_FULL,
    AgentError,
    DestinationUnreachableError,
    FailureKind,
    TransportError,
)
from exlab_watch_agent.ports import Control, Ports


def carry_cache(effect: CarryCache, ports: Ports, control: Control) -> CacheCarried | CacheStays | Unreached:
    """Bring what is due; safe to repeat. Where nothing is, the destination is not asked."""
    try:
        ports.require_root()
        signature = ports.tree.cache_signature(effect.run_path)  # first: what changes while it is read is seen again
        found = read_cache(effect.run_path, ports)
        if form_of(found.digests) == effect.form:
            return CacheCarried(effect.form, signature)
        if not says_synced(found.data.get(CREATION_PATH, b"")):
            return CacheStays("its creation.json does not say synced")
        return _bring(effect, found, signature, ports, control)
    except DestinationUnreachableError as error:
        return Unreached(str(error), error.wait)
    except TransportError as error:
        return _trouble(error, ports)
    except AgentError as error:  # a file that is being saved, a folder that is not there: the next look tells
        return CacheStays(str(error))


class FoundCache:
    """A run's cache folder as it was read. `data`: path → bytes of what was read whole; `digests`: of all that makes due."""

    def __init__(self, entries: tuple[FileEntry, ...], data: Mapping[str, bytes]) -> None:
        self.entries = entries
        self.data = data
        self.digests = {
            entry.path: digest_of(entry, data.get(entry.path)) for entry in entries if makes_due(entry.path)
        }


def read_cache(run_path: str, ports: Ports) -> FoundCache:
    """Read what travels of the cache folder, each small file once: what is compared is what is placed."""
    entries = tuple(entry for entry in ports.tree.cache_files(run_path) if entry.path != CLAIM_PATH)
    data = {
        entry.path: ports.tree.read_small(run_path, entry.path, limit_bytes=DIGESTED_BYTES_MAX + 1)
        for entry in entries
        if makes_due(entry.path) and entry.size_bytes <= DIGESTED_BYTES_MAX
    }
    return FoundCache(entries, {path: read for path, read in data.items() if len(read) <= DIGESTED_BYTES_MAX})


def _bring(
    effect: CarryCache, found: FoundCache, signature: int, ports: Ports, control: Control
) -> CacheCarried | CacheStays:
    transport = ports.transport
    transport.require_marker(expected_marker_id=ports.marker_id())
    ports.require_mounts(first_folder(effect.destination))
    ports.apartness.require_run(effect.run_path, effect.destination)
    look = transport.look(effect.destination)
    mine = ports.agent.signed(effect.claim)
    if look.claim is None or not look.claim.is_of(mine) or look.sealed_as != effect.manifest_digest:
        return CacheStays("its copy is not sealed as ours any more: the next audit finds out why")
    told = read_there(effect, CLAIM_PATH, ports) or b""
    placed = placed_in(told)
    names = due(found.digests, placed)
    for path in names:
        _keep_of_others(effect, path, found, placed, ports)
    wanted = [entry for entry in found.entries if entry.path in names or is_log(entry.path)]
    instead = {path: found.data[path] for path in names if path in found.data}
    transport.replace(effect.run_path, wanted, effect.destination, control=control, instead=instead, placed=placed)
    require_read_back(effect, instead, ports)
    transport.require_claim(effect.destination, mine)
    put_claim(effect, with_cache(told, {**placed, **found.digests}), ports, control)
    # In the empty mount point of a share that went away meanwhile all this was written just as well.
    transport.require_marker(expected_marker_id=ports.marker_id())
    ports.require_mounts()
    return CacheCarried(form_of(found.digests), signature, names)


def _keep_of_others(effect: CarryCache, path: str, found: FoundCache, placed: Mapping[str, str], ports: Ports) -> None:
    """Keep what others wrote there in the place of ours. Raises: TransportError where it is too large to be kept."""
    there = read_there(effect, path, ports)
    if there is not None and is_of_others(there, here=found.data.get(path), placed=placed.get(path, "")):
        keep_beside(effect, path, there, ports)


def placed_in(claim: bytes) -> dict[str, str]:
    """Return what a claim says that its agent put into the cache folder: path → digest; nothing where it says nothing."""
    try:
        members = json.loads(claim)
    except (ValueError, RecursionError):
        return {}
    return texts(members, "cache") if isinstance(members, dict) else {}


def with_cache(claim: bytes, digests: Mapping[str, str]) -> bytes:
    """Return a claim's file that says what is in the cache folder now, and all else as before."""
    members = json.loads(claim)
    return (json.dumps({**members, "cache": dict(sorted(digests.items()))}, indent=2) + "\n").encode()


def _trouble(error: TransportError, ports: Ports) -> CacheStays | Unreached:
    try:
        ports.transport.require_marker(expected_marker_id=ports.marker_id())
        ports.require_mounts()
    except DestinationUnreachableError as away:
        return Unreached(str(away), away.wait)
    if error.kind is FailureKind.DESTINATION_FULL:
        return Unreached(str(error), DESTINATION_FULL)
    return CacheStays(str(error), is_refused=True)
