"""Whether the NAS knows more of the audit trail than the state folder here: then that is an older copy of itself.

Each seal leaves the trail's last line in the claim, so the chain is anchored outside this PC. Decided here: what an anchor that
is ahead, or that names another line, means. Not here: what follows (deletion is held until an operator accepts the state).
"""

from __future__ import annotations

from dataclasses import dataclass

ELSEWHERE = (
    "the state folder belongs to another machine: only one of the two may go on with it (`resolve --accept-machine`), and "
    "the other needs a state folder of its own"
)
"""Why deletion is held while a state folder works on another machine than the one that it is at home on."""


@dataclass(frozen=True, slots=True)
class TrailPosition:
    """One line of the audit trail. `seq`: its number, from 1. `digest`: its BLAKE3 as 64 lowercase hex."""

    seq: int
    digest: str


def is_in_trail(seen: TrailPosition, *, head: TrailPosition, digest_here: str | None) -> bool:
    """Return whether the trail here has this line. `digest_here`: of its line with that number; one that cannot be read, None, is
    believed to be the same."""
    return seen.seq <= head.seq and digest_here in (None, seen.digest)


SEALED_AT = "a copy on the NAS was sealed at"
LEFT_AT = "this agent's heartbeat on the NAS was left at"


def found_behind(
    seen: TrailPosition,
    *,
    head: TrailPosition,
    digest_here: str | None,
    ahead: TrailPosition | None,
    where: str = SEALED_AT,
) -> str:
    """Return in words what an anchor of our own on the NAS says against the trail here; empty where it says nothing.

    `head`: the trail's last line. `digest_here`: of its line with the anchor's number, None where that cannot be read.
    `ahead`: the furthest anchor that was found to differ before; it was told then. `where`: what the anchor is, in words.
    """
    if ahead is not None and seen.seq <= ahead.seq:
        return ""
    if seen.seq > head.seq:
        return (
            f"{where} line {seen.seq} of the audit trail, and the trail here ends with line "
            f"{head.seq}: the state folder is an older copy of itself"
        )
    if digest_here not in (None, seen.digest):
        return (
            f"{where} another line {seen.seq} of the audit trail than the one here: the state folder "
            "was put back to an older copy, or both copies of it were used"
        )
    return ""
