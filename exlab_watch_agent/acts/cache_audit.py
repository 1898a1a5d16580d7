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
from exlab_watch_agent.core.inventory import CREATION_PATH
from exlab_watch_agent.ports import Ports


def altered_beside(effect: Verify, ports: Ports, *, is_here: bool) -> str:
    """Return the first path in the copy's cache folder that is gone or is not what the agent put there; empty where none is.

    `is_here`: whether the run is here, so that a file may be on its way. Raises: TransportError.
    """
    claim = read_there(effect, CLAIM_PATH, ports) or b""
    placed = {path: digest for path, digest in placed_in(claim).items() if makes_due(path) and path != CREATION_PATH}
    if not placed:  # one of an earlier version
        return ""
    here = {entry.path for entry in ports.tree.cache_files(effect.run_path)} if is_here else set()
    found = next((path for path in sorted(placed) if _is_altered(effect, path, placed[path], path in here, ports)), "")
    # The errand that brings what changed here writes the claim last: then what was found may be its doing.
    return found if found and (read_there(effect, CLAIM_PATH, ports) or b"") == claim else ""


def _is_altered(effect: Verify, path: str, placed: str, is_here: bool, ports: Ports) -> bool:
    size = size_known(placed)
    if size is not None:
        return _size_there(effect, path, ports) != size
    # Asked for by its name: a listing may lag behind what was placed a moment ago.
    there = read_there(effect, path, ports)
    if not is_altered(there, here=None, placed=placed):
        return False
    return not is_here or is_altered(there, here=read_here(effect, path, ports), placed=placed)


def _size_there(effect: Verify, path: str, ports: Ports) -> int | None:
    folder, _, name = f"{effect.destination}/{path}".rpartition("/")
    found = ports.transport.listing(folder).get(name)
    return None if found is None else found.size_bytes
