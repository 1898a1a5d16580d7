"""Checks the whole audit trail of a folder, here or copied elsewhere, from its first line: does every line chain?

Decided here: what is read, and which anchors lie in the folder itself. A break makes the trail less than whole, also where an
agent accounted for it (a line of kind `trail_damaged`) and an operator accepted what was left: lines were changed or are
gone. Not here: which line was changed (segments.py), and what an anchor means (core/anchors.py). Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.recovery import head_of, read_at_rest
from exlab_watch_agent.adapters.state.segments import Break, TrailHead, TrailReader, find_segments
from exlab_watch_agent.adapters.state.slots import read_slots
from exlab_watch_agent.core import heartbeat
from exlab_watch_agent.core.anchors import Anchor, disagreements
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.errors import StateFolderError


@dataclass(frozen=True, slots=True)
class Chain:
    """What a whole reading of the trail found. `began_at`, `ended_at`: the times that its first and last line say.

    `breaks`: where it does not hold, in order; the first names the first line that was changed, removed or reordered.
    `accounted`: those that an agent found at a start and wrote down. `against`: what the anchors say against it, in words.
    `is_torn`: behind the last line there is what a crash leaves, which was never acknowledged.
    """

    folder: Path
    lines: int
    segments: int
    head: TrailHead
    began_at: str
    ended_at: str
    breaks: tuple[Break, ...]
    accounted: tuple[Break, ...]
    against: tuple[str, ...]
    is_torn: bool

    @property
    def is_whole(self) -> bool:
        return not (self.breaks or self.accounted or self.against)


class Taker(Protocol):
    """Wants each line that counts, in order. `begin` comes before each reading: one may be repeated."""

    def begin(self) -> None: ...

    def take(self, fact: Mapping[str, object], /) -> None: ...


def read_chain(folder: Path, anchors: Sequence[Anchor] = (), *, taker: Taker | None = None) -> Chain:
    """Read every line, and hold the trail against the anchors; they must have been asked for before.

    `taker` is given the lines of the same reading. Safe while an agent writes there. Raises: StateFolderError when there is none
    to read.
    """
    found = read_at_rest(folder, lambda: _read(folder, anchors, taker), is_whole=lambda chain: chain.is_whole)
    if not found.segments:
        raise StateFolderError(
            f"There is no audit trail in {folder}: name the folder that has audit.jsonl, a state folder or a copy of one."
        )
    return found


def _read(folder: Path, anchors: Sequence[Anchor], taker: Taker | None) -> Chain:
    wanted = {anchor.position.seq for anchor in anchors}
    digests: dict[int, str] = {}
    began_at = ended_at = ""
    lines = 0
    segments = find_segments(folder)
    reader = TrailReader(segments)
    if taker is not None:
        taker.begin()
    for line in reader.lines():
        ended_at = str(line.fact.get("at", ""))
        began_at = began_at or ended_at
        lines += 1
        if line.head.seq in wanted:
            digests[line.head.seq] = line.head.digest
        if taker is not None:
            taker.take(line.fact)
    return Chain(
        folder=folder,
        lines=lines,
        segments=len(segments),
        head=reader.head,
        began_at=began_at,
        ended_at=ended_at,
        breaks=tuple(reader.breaks),
        accounted=tuple(reader.accounted),
        against=disagreements(anchors, last_seq=reader.end_seq, digests=digests),
        is_torn=reader.torn_at is not None,
    )


def anchors_in(folder: Path) -> list[Anchor]:
    """Return what the folder's own slots and heartbeat know of its trail. What cannot be read says nothing.

    Raises: StateFolderError when another version wrote the slots.
    """
    found: list[Anchor] = []
    layout = StateLayout(folder)
    with suppress(OSError):
        head = head_of(read_slots(folder))
        if head.seq:
            found.append(Anchor("the store beside it", TrailPosition(head.seq, head.digest), is_beside=True))
    try:
        position = heartbeat.anchor_in(layout.heartbeat.read_bytes())
    except OSError:
        position = None
    if position is not None:
        found.append(Anchor("the heartbeat beside it", position, is_beside=True))
    return found
