"""What the audit trail's own past says against it: positions of it that were written down elsewhere.

A chain shows what was changed in the middle of it. That its end was cut off, that it was written anew from beginning to end,
or that the whole folder was put back to an older copy, only shows by what others know of it: the store's slots and the heartbeat
beside it, and on the NAS the heartbeat and the claim of each sealed copy. Decided here: what such an anchor says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exlab_watch_agent.core.rollback import TrailPosition


@dataclass(frozen=True, slots=True)
class Anchor:
    """A line of the trail as somebody else knew it. `where`: who, in words that go on with "knows line 7".

    `is_beside`: it lies in the same folder as the trail, so that who puts that back to an older copy puts it back, too.
    """

    where: str
    position: TrailPosition
    is_beside: bool = False


def disagreements(anchors: Sequence[Anchor], *, last_seq: int, digests: Mapping[int, str]) -> tuple[str, ...]:
    """Return in words what the anchors say against a trail that ends with line `last_seq`; the lowest line first.

    `digests`: line number → BLAKE3 as 64 hex, of the lines that the anchors name, as far as they could be read.
    """
    found: list[str] = []
    for anchor in sorted(anchors, key=lambda anchor: anchor.position.seq):
        seq, digest = anchor.position.seq, anchor.position.digest
        if seq > last_seq:
            found.append(
                f"{anchor.where} knows line {seq}, and the trail ends with line {last_seq}: its end was cut off, or the whole "
                "folder was put back to an older copy"
            )
        elif seq in digests and digests[seq] != digest:
            found.append(
                f"{anchor.where} knows another line {seq} than the one here: the trail was written anew, or the folder was put "
                "back to an older copy and used again"
            )
    return tuple(found)
