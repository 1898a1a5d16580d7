"""Reading a state folder: newest good slot, the trail's lines after it, and what is wrong with either.

Nothing is changed here; the folder is brought in order with what is found (repair.py). Decided here: which of slots
and trail is believed, and what is damage (deletion is on hold until an operator accepts the state) and what is only said.
Cannot be seen here: that the whole folder was put back to an older state, and that whole commits were cut off the trail
that no slot knew of. The heads in sealed runs and in the heartbeat on the NAS tell those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from exlab_watch_agent.adapters.state.documents import Documents, Place, move_of, record_json, record_of
from exlab_watch_agent.adapters.state.folder_facts import hold_in, note_fact, trail_doubt_in
from exlab_watch_agent.adapters.state.layout import CLOSED_FOLDER, SLOT_NAMES, TRAIL_NAME, StateLayout
from exlab_watch_agent.adapters.state.segments import (
    Break,
    Line,
    Segment,
    TrailHead,
    TrailReader,
    find_segments,
    line_at,
    live_path,
    segment_path,
)
from exlab_watch_agent.adapters.state.slots import STORE_SCHEMA, SlotReport, read_slots
from exlab_watch_agent.core.record import Move
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import StateFolderError

_READS_MAX = 20


@dataclass
class Loaded:
    """What a state folder holds. `notices` are sentences for the operator; `damage` those for which deletion is held.

    `head`: the last line that counts. `end_seq`: the highest number that a line of the trail had. `torn_at`: where the
    live segment's torn last commit begins. `supported`: whether a document's line is in the trail.
    """

    folder: Path
    documents: Documents = field(default_factory=Documents)
    facts: dict[str, Any] = field(default_factory=dict)
    head: TrailHead = field(default_factory=TrailHead)
    end_seq: int = 0
    generation: int = 0
    segments: list[Segment] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    damaged_slots: tuple[Path, ...] = ()
    torn_at: int | None = None

    @property
    def hold(self) -> str | None:
        """Why nothing may be deleted until an operator has accepted the state; None when deletion is not held."""
        return hold_in(self.facts, trail_doubt=self.trail_doubt)

    @property
    def trail_doubt(self) -> str | None:
        """What was found against the trail, before or by this reading; None where nothing was."""
        known = trail_doubt_in(self.facts)
        new = [found for found in self.damage if found not in (known or "")]
        return " ".join([known, *new] if known else new) or None

    def unsupported(self) -> list[str]:
        """Return the job ids of the documents that the whole trail, read from its beginning, would not give. Raises: OSError.

        Reads every line, which only a start after damage does.
        """
        said: dict[str, bytes] = {}
        for line in TrailReader(self.segments).lines():
            if isinstance(raw := line.fact.get("record"), dict):
                said[raw["job_id"]] = _short(raw)
        return [job_id for job_id in self.documents if said.get(job_id) != _short(self.documents.raw_record(job_id))]

    def history(self, job_id: str) -> tuple[Move, ...]:
        """Return the run's moves, oldest first. Raises: StateFolderError, as `history_of`."""
        return history_of(self.folder, self.documents, job_id)


def _short(raw: Any) -> bytes:
    """Return 16 bytes that stand for a record's members."""
    return blake3(json.dumps(raw, sort_keys=True).encode()).digest(length=16)


def load(folder: Path) -> Loaded:
    """Return the state of the folder without changing anything in it; safe while an agent writes there.

    Raises: StateFolderError when the folder cannot be read, or another version wrote what is in it.
    """
    return read_at_rest(folder, lambda: _loaded(folder), is_whole=lambda loaded: not loaded.damage)


_Read = TypeVar("_Read")


def read_at_rest(folder: Path, read: Callable[[], _Read], *, is_whole: Callable[[_Read], bool]) -> _Read:
    """Return what is read of a folder in which an agent may be writing.

    What looks damaged is read again if the agent wrote a slot or went on in another segment meanwhile.
    Raises: StateFolderError.
    """
    try:
        before = _names(folder)
        for _ in range(_READS_MAX):
            found: _Read | None = None
            with suppress(FileNotFoundError):  # closed under another name in between
                found = read()
            after = _names(folder)
            if found is not None and (after == before or is_whole(found)):
                return found
            before = after
        raise StateFolderError(f"{folder} changes faster than it can be read: try again.")
    except OSError as error:
        raise StateFolderError(f"{folder} cannot be read ({reason(error)}): correct that, then start again.") from error


def _names(folder: Path) -> list[tuple[str, int]]:
    """Return what changes when an agent writes a slot or goes on in another segment."""
    found = []
    layout = StateLayout(folder)
    for path in (*layout.slots, layout.trail):
        with suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_ino))
    return found


def _loaded(folder: Path) -> Loaded:
    if not folder.is_dir():
        if folder.exists():
            raise NotADirectoryError(20, "not a folder", str(folder))
        return Loaded(folder)
    slot = read_slots(folder)
    loaded = Loaded(folder, generation=slot.generation, damaged_slots=slot.damaged)
    slot_head = head_of(slot)
    if slot.generation and slot.schema == STORE_SCHEMA:
        _take_slot(loaded, slot)
        loaded.head = slot_head
    # A slot of schema 1 knows no line's place: the trail is read from its beginning.
    loaded.segments = find_segments(folder, live_first_seq=slot_head.segment)
    reader = TrailReader(loaded.segments, loaded.head)
    seen_head = _replayed(loaded, reader, slot_head)
    loaded.head, loaded.torn_at = reader.head, reader.torn_at
    loaded.end_seq = max(reader.end_seq, slot_head.seq)
    if slot.schema != STORE_SCHEMA and loaded.end_seq and not seen_head:
        loaded.damage.append(f"{TRAIL_NAME} does not hold line {slot_head.seq}, which the state was written after.")
        _take_slot(loaded, slot)
        loaded.head = slot_head if slot_head.seq >= loaded.head.seq else loaded.head
    _judge(loaded, slot, reader.breaks)
    return loaded


def head_of(slot: SlotReport) -> TrailHead:
    if not slot.generation:
        return TrailHead()
    if slot.schema == STORE_SCHEMA:
        seq, digest, segment, end_bytes = slot.facts["head"]["trail"]
        return TrailHead(seq, digest, segment, end_bytes)
    seq, digest, end_bytes = slot.facts["head"]["trail"]
    return TrailHead(seq, digest, 1, end_bytes)


def _take_slot(loaded: Loaded, slot: SlotReport) -> None:
    loaded.facts = slot.facts
    for line in slot.lines:
        loaded.documents.take_line(line)


def _replayed(loaded: Loaded, reader: TrailReader, slot_head: TrailHead) -> bool:
    """Bring documents and facts in line with the trail; return whether the slot's last line is in it.

    Each run's record is checked once, however many lines it has.
    """
    latest: dict[str, tuple[Line, Any]] = {}
    is_head_there = slot_head.seq == 0
    for line in reader.lines():
        is_head_there |= (line.head.seq, line.head.digest) == (slot_head.seq, slot_head.digest)
        try:
            note_fact(loaded.facts, line.fact["kind"], line.fact.get("data", {}))
            if (raw := line.fact.get("record")) is not None:
                latest[raw["job_id"]] = (line, raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise StateFolderError(
                f"Line {line.head.seq} of {TRAIL_NAME} cannot be read by this version: install the version that wrote it."
            ) from error
    for line, raw in sorted(latest.values(), key=lambda both: both[0].head.seq):
        record = record_of(raw)
        loaded.documents.put(record, record_json(record), line.place)
    return is_head_there


def _judge(loaded: Loaded, slot: SlotReport, breaks: list[Break]) -> None:
    """Say what is wrong: as damage where proof is missing, as a notice where all was rebuilt."""
    folder, damage = loaded.folder, loaded.damage
    live = live_path(folder)
    has_trail = bool(loaded.segments)
    if live is not None and live.stat().st_size == 0:
        damage.append(f"{live.name} is empty, which it never is.")
    elif live is None and (has_trail or slot.generation):
        damage.append(f"{TRAIL_NAME} is missing.")
    if breaks:
        more = f", and {len(breaks) - 1} more such places" if len(breaks) > 1 else ""
        damage.append(f"The audit trail was changed: {breaks[0].found}{more}.")
    there = {segment.path.name: segment.size_bytes for segment in loaded.segments if not segment.is_live}
    lost = [name for name, size in loaded.facts.get("segments", {}).items() if there.get(name, size + 1) != size]
    if lost and not breaks:
        damage.append(f"{', '.join(lost)} in {CLOSED_FOLDER} is missing or was changed.")
    names = " and ".join(path.name for path in slot.damaged)
    be = "are" if len(slot.damaged) > 1 else "is"
    if slot.generation:
        loaded.notices += [
            f"{path.name} is damaged; the state was rebuilt from the other one." for path in slot.damaged
        ]
    elif not has_trail and (slot.damaged or any(map(_is_used, StateLayout(folder).traces_of_use))):
        damage.append(
            f"{names or 'The state'} in {folder} {be} {'damaged' if names else 'gone'} and {TRAIL_NAME} is missing or empty, "
            "though an agent worked here before: what was known of the runs is lost, and they are found again."
        )
    elif slot.damaged or (loaded.end_seq > 1 and loaded.facts.get("has_opening")):
        # The first line and a slot were there before anything else was written. (Not so in folders of schema 1.)
        damage.append(
            f"{names or ' and '.join(SLOT_NAMES)} {f'{be} damaged' if names else 'are gone'}; the state was rebuilt from "
            f"{TRAIL_NAME} alone, and nothing vouches for its end."
        )


def _is_used(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


# --- a run's own lines ---------------------------------------------------------------------------------------------------


def history_of(folder: Path, documents: Documents, job_id: str) -> tuple[Move, ...]:
    """Return the run's moves, oldest first: its own lines are read, from the latest back, and no others.

    Where a line is no longer there, a first move `history_lost` says so. Raises: StateFolderError for a move that this
    version does not know, or when the trail cannot be read.
    """
    if job_id not in documents:
        return ()
    moves: list[Move] = []
    try:
        for fact in _own_lines(folder, documents.last(job_id), job_id):
            if fact is None:
                moves.append(_lost(moves, documents, job_id))
            elif "move" in fact:
                moves.append(move_of(fact["move"]))
    except OSError as error:
        raise StateFolderError(
            f"The audit trail in {folder} cannot be read ({reason(error)}): correct that, then try again."
        ) from error
    return tuple(reversed(moves))


def _own_lines(folder: Path, place: Place | None, job_id: str) -> Iterator[dict[str, Any] | None]:
    """Yield the run's lines from the latest back; None where the next one cannot be found."""
    if place is None:
        yield None
    while place is not None:
        fact = _line_of(folder, place, job_id)
        yield fact
        if fact is None:
            return
        if "before" not in fact:  # written by schema 1, which had one segment
            yield from reversed(list(_lines_without_links(segment_path(folder, place[0]), place[1], job_id)))
            return
        before = fact["before"]
        place = (before[0], before[1]) if before else None


def _line_of(folder: Path, place: Place, job_id: str) -> dict[str, Any] | None:
    for _ in range(2):  # the segment may be closed, and so renamed, between the look for its name and the reading
        try:
            fact = line_at(segment_path(folder, place[0]), place[1])
        except FileNotFoundError:
            continue
        if isinstance(record := fact.get("record"), dict) and record.get("job_id") == job_id:
            return fact
    return None


def _lines_without_links(path: Path, end_bytes: int, job_id: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        at = 0
        for raw in file:
            at += len(raw)
            if at > end_bytes:
                return
            if job_id.encode() in raw:
                fact = json.loads(raw)
                if isinstance(fact.get("record"), dict) and fact["record"].get("job_id") == job_id:
                    yield fact


def _lost(later: list[Move], documents: Documents, job_id: str) -> Move:
    reason = f"the lines before are not in {TRAIL_NAME} or {CLOSED_FOLDER} any more"
    if later:
        return Move(later[-1].at, "history_lost", None, later[-1].source or later[-1].dest, reason)
    record = documents.record(job_id)
    assert record is not None, "asked by the one that has the document"
    return Move(record.entered_at, "history_lost", None, record.state, reason)
