"""Looks at what travelled in the cache folder of a sealed copy beside what tells of the proof. Reads only.

Decided here: that the claim's member `cache` says what must be there, and that a claim which was written anew meanwhile is no
evidence; of `creation.json` it is asked elsewhere that it says synced. Not here: what counts as altered (core/cache_copy.py), and
what follows from it (core/decide.py).
"""

from __future__ import annotations

from exlab_watch_agent.acts.carry_cache import placed_in
from exlab_watch_agent.acts.copy import read_here, read_there
from exlab_watch_agent.core.cache_copy import is_altered, makes_due, size_known
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.effects import Verify
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_PATH
from exlab_watch_agent.ports import Ports, RemoteFile


def altered_beside(effect: Verify, ports: Ports, *, is_here: bool) -> str:
    """Return the first path in the copy's cache folder that is gone or is not what the agent put there; empty where none is.

    `is_here`: whether the run is here, so that a file may be on its way. Raises: TransportError.
    """
    claim = read_there(effect, CLAIM_PATH, ports) or b""
    placed = {path: digest for path, digest in placed_in(claim).items() if makes_due(path) and path != CREATION_PATH}
    if not placed:  # one of an earlier version
        return ""
    sizes = {f"{CACHE_FOLDER}/{name}": file.size_bytes for name, file in _listing(effect, ports).items()}
    here = {entry.path for entry in ports.tree.cache_files(effect.run_path)} if is_here else set()
    found = next((p for p in sorted(placed) if _is_altered(effect, p, placed[p], sizes.get(p), p in here, ports)), "")
    # The errand that brings what changed here writes the claim last: then what was found may be its doing.
    return found if found and (read_there(effect, CLAIM_PATH, ports) or b"") == claim else ""


def _listing(effect: Verify, ports: Ports) -> dict[str, RemoteFile]:
    return dict(ports.transport.listing(f"{effect.destination}/{CACHE_FOLDER}"))


def _is_altered(effect: Verify, path: str, placed: str, size_there: int | None, is_here: bool, ports: Ports) -> bool:
    size = size_known(placed)
    if size is not None:
        return size_there != size
    there = None if size_there is None else read_there(effect, path, ports)
    return is_altered(there, here=read_here(effect, path, ports) if is_here else None, placed=placed)
