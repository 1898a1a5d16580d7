"""Checks the whole audit trail of a folder, here or copied elsewhere, from its first line: does every line chain?

Decided here: what is read, and which anchors lie in the folder itself. A break is a break, whether the agent noted it (a line of
kind `trail_damaged`) or an operator accepted what was left: lines were changed or are gone. Not here: which line was changed
(segments.py), and what an anchor means (core/anchors.py). Nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.segments import Break, TrailReader, find_segments
from exlab_watch_agent.adapters.state.slots import STORE_SCHEMA, read_slots
from exlab_watch_agent.core.anchors import Anchor
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import StateFolderError


@dataclass
class Chain:
    """What a whole reading of the trail found. `began_at`, `ended_at`: the times that its first and last line say.

    `breaks`: the lowest line first. `noted`: those of them that the agent itself wrote down when it found them.
    `is_torn`: behind the last line there is what a crash leaves, which was never acknowledged.
    `digests`: line number → BLAKE3 of the lines that were asked for.
    """

    folder: Path
    lines: int = 0
    segments: int = 0
    last_seq: int = 0
    digest: str = ""
    began_at: str = ""
    ended_at: str = ""
    state_folder: str = ""
    breaks: tuple[Break, ...] = ()
    noted: tuple[Break, ...] = ()
    is_torn: bool = False
    digests: dict[int, str] = field(default_factory=dict)


def read_chain(folder: Path, wanted: Collection[int] = ()) -> Chain:
    """Read every line. `wanted`: numbers of lines whose digests are wanted. Raises: StateFolderError when there is none to read."""
    try:
        found = Chain(folder)
        segments = find_segments(folder)
        reader = TrailReader(segments)
        for line in reader.lines():
            fact = line.fact
            found.began_at = found.began_at or str(fact.get("at", ""))
            found.ended_at = str(fact.get("at", ""))
            found.lines += 1
            if line.head.seq in wanted:
                found.digests[line.head.seq] = line.head.digest
            data = fact.get("data")
            if isinstance(data, dict) and isinstance(data.get("state_folder"), str):
                found.state_folder = data["state_folder"]
    except OSError as error:
        raise StateFolderError(f"The audit trail in {folder} cannot be read: {reason(error)}.") from error
    if not segments:
        raise StateFolderError(
            f"There is no audit trail in {folder}: name the folder that has audit.jsonl, a state folder or a copy of one."
        )
    found.segments = len(segments)
    found.last_seq, found.digest = reader.head.seq, reader.head.digest
    found.breaks = tuple(sorted([*reader.accounted, *reader.breaks], key=lambda one: one.seq))
    found.noted = tuple(reader.accounted)
    found.is_torn = reader.torn_at is not None
    return found


def anchors_in(folder: Path) -> list[Anchor]:
    """Return what the folder's own slots and heartbeat know of its trail. What cannot be read says nothing.

    Raises: StateFolderError when another version wrote the slots.
    """
    found: list[Anchor] = []
    layout = StateLayout(folder)
    try:
        slot = read_slots(folder)
    except OSError:
        slot = None
    if slot is not None and slot.generation and slot.schema == STORE_SCHEMA:
        seq, digest = slot.facts["head"]["trail"][:2]
        found.append(Anchor("the store beside it", TrailPosition(seq, digest)))
    try:
        position = position_in(layout.heartbeat.read_bytes())
    except OSError:
        position = None
    if position is not None:
        found.append(Anchor("the heartbeat beside it", position))
    return found


def position_in(data: bytes) -> TrailPosition | None:
    """Return the line of the trail that a heartbeat names, None where it names none."""
    try:
        said = json.loads(data)
        audit = said.get("audit", {})
        seq, digest = said.get("audit_seq", audit.get("seq")), said.get("audit_blake3", audit.get("blake3"))
    except (ValueError, AttributeError, RecursionError):
        return None
    is_position = isinstance(seq, int) and not isinstance(seq, bool) and isinstance(digest, str) and seq > 0
    return TrailPosition(seq, digest) if is_position else None
