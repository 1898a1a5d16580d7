"""What a mounted share gives back of a copy, and whether that came from the share or from this PC's memory.

Decided here: that every file is asked for anew, and how it is read where the system still holds some of it. Not here: how
the system is asked (adapters/local/page_cache.py), and what a read is worth (core/passes.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from exlab_watch_agent.adapters.local.digests import Pulse, hash_descriptor, new_buffer
from exlab_watch_agent.adapters.local.mounts import mount_of
from exlab_watch_agent.adapters.local.page_cache import hash_directly
from exlab_watch_agent.adapters.transports.mounted.folders import Folders
from exlab_watch_agent.core.passes import HowRead, ReadBack, weakest
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.ports import Control

_NOTHING_BELOW_THE_CACHE = frozenset({"ramfs", "tmpfs"})


def read_back(root: str, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
    """Return the SHA-256 of each of these files that is there, and the least that can be said of how they were read.

    Raises: OSError; TransportError for a file that cannot be read; CancelledError.
    """
    pulse = Pulse(control)
    buffer = new_buffer()
    found = {}
    ways = []
    with contextlib.closing(Folders(root).opened_ahead(destination, paths)) as opened:
        for path, descriptor, is_anew in opened:
            try:
                found[path], how = _hashed(descriptor, buffer, pulse, is_anew=is_anew)
            except OSError as error:
                raise _unreadable(root, path, error) from error
            finally:
                os.close(descriptor)
            ways.append(how)
            pulse.finished_file()
    pulse.finished()
    how = weakest(ways)
    is_past_cache = how is not HowRead.PAGE_CACHE or mount_of(root).kind in _NOTHING_BELOW_THE_CACHE
    return ReadBack(found, how, is_past_cache=is_past_cache)


def _hashed(descriptor: int, buffer: memoryview, pulse: Pulse, *, is_anew: bool) -> tuple[str, HowRead]:
    """Return the SHA-256 of an open file and how it was read; `is_anew`: the cache held nothing of it when this began."""
    how = HowRead.NOWAIT
    if not is_anew:
        digest = hash_directly(descriptor, pulse.moved)
        if digest is not None:
            return digest, HowRead.O_DIRECT
        how = HowRead.PAGE_CACHE
    size_bytes = os.fstat(descriptor).st_size
    return hash_descriptor(descriptor, size_bytes, buffer, pulse.moved, drops_behind=True), how


def _unreadable(root: str, path: str, error: OSError) -> OSError | TransportError:
    """EIO can mean a bad block or a lost server: the next look at the marker shows which."""
    if error.errno != errno.EIO:
        return error
    text = f"Cannot read {path!r} at {root}: {reason_with_name(error)}."
    return TransportError(FailureKind.UNKNOWN, text, detail=reason_with_name(error))
