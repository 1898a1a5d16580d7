"""How a run's cache folder looks, in one number: asked of every sealed run at each full scan, so it must cost three looks."""

from __future__ import annotations

from blake3 import blake3

from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.core.inventory import CHANGE_LATER


def cache_signature(above: Folder, cache_folder: str) -> int:
    """Return the number, as RunTree.cache_signature says. `cache_folder`: its path below `above`. Raises: OSError.

    The folder's own time tells of names that came, went or were replaced, the files' of those that are written in place. It only
    asks for a look, so that names are taken two at once. 52 bits: a number that every reader of JSON keeps.
    """
    parts = [above.lstat(cache_folder).st_mtime_ns]
    for name in CHANGE_LATER:
        try:
            status = above.lstat(f"{cache_folder}/{name}")
        except FileNotFoundError:
            continue
        parts += [status.st_mtime_ns, status.st_size, status.st_ino]
    return int(blake3(repr(parts).encode()).hexdigest(7)[:13], 16)
