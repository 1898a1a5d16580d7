"""What the words of a program on the target mean: a table."""

from __future__ import annotations

import re

from exlab_watch_agent.errors import FailureKind, TransportError

_FULL, _AUTH, _NETWORK = FailureKind.DESTINATION_FULL, FailureKind.AUTH, FailureKind.NETWORK
_SAYINGS: tuple[tuple[str, FailureKind, str], ...] = (
    ("No space left on device|Disk quota exceeded", _FULL, "the target is full: make room there"),
    ("Read-only file system", _AUTH, "the target can only be read: have it made writable, then retry"),
    (
        # The last is what a shell says of a folder that is there and that it may not enter.
        "Permission denied|Operation not permitted|can't cd to",
        _AUTH,
        "the account may not do that there: give it the right, then retry",
    ),
    ("Input/output error|Stale file handle|not connected|Remote I/O error", _NETWORK, "the target's own disk fails"),
)


def classified_target(doing: str, said: str) -> TransportError:
    """Return what the words of a program on the target mean. `doing` begins the sentence."""
    for pattern, kind, sentence in _SAYINGS:
        if re.search(pattern, said):
            return TransportError(kind, f"{doing}: {sentence}.", detail=said)
    last = said.splitlines()[-1] if said else "it gave no reason"
    return TransportError(FailureKind.UNKNOWN, f"{doing}: {last}.", detail=said)
