"""How the answer of a hashing program on the target is read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from exlab_watch_agent.errors import FailureKind, TransportError

_DIGEST_LINE = re.compile(rb"([0-9a-f]{64}) [ *]")


def is_odd(name: str) -> bool:
    """Say whether hashing programs may print this name in another way than it is."""
    return "\\" in name or not name.isprintable()


def digests_in(output: bytes, order: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """Return path → digest from the lines of a hasher. `order`: each path with the name that its line must end with.

    The names are known and come in this order, so what a line belongs to is never guessed. Raises: TransportError when
    a line is none of these.
    """
    found: dict[str, str] = {}
    expected = iter(order)
    at = 0
    while at < len(output):
        digest = _DIGEST_LINE.match(output, at)
        if digest is None:
            break
        for path, name in expected:
            end = output.find(b"\n", digest.end()) if name is None else digest.end() + len(name)
            if end >= 0 and output[end : end + 1] == b"\n" and (name is None or output[digest.end() : end] == name):
                found[path] = digest[1].decode()
                at = end + 1
                break
        else:
            break
    if at < len(output):
        raise TransportError(
            FailureKind.UNKNOWN,
            "The target's hashes cannot be read: its answer has a form that this version does not know.",
        )
    return found
