"""The documents of all runs in memory: each one compact JSON line, turned into a record only when it is asked for.

Decided here: how a record becomes bytes and a record again, and what is found without looking at all documents (job id,
path, identity, state and equipment). A document is the line of the slot file: `{"last":[segment, offset],"record":{...}}`,
where `last` is the place of the run's latest line in the trail and members that equal their default are left out. Not
here: what is durable, and when.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from blake3 import blake3
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from exlab_watch_agent.adapters.state.layered import Layered
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.errors import StateFolderError
from exlab_watch_agent.statechart import CHART, RunState

Place = tuple[int, int]
"""Where a line of the trail begins: the number of its segment's first line, and the byte offset in that segment."""

_RECORD: TypeAdapter[RunRecord] = TypeAdapter(RunRecord)
_MOVE: TypeAdapter[Move] = TypeAdapter(Move)
_RECORD_MEMBERS = frozenset(member.name for member in fields(RunRecord))
_IDENTITY_MEMBERS = frozenset(member.name for member in fields(RunIdentity))
_STATES = {state.value: state for state in RunState}
RECENT_MAX = 256
_BEGIN = b'{"last":'
_BETWEEN = b',"record":'


def json_bytes(value: Any) -> bytes:
    """Return compact JSON, ASCII only: a name that is not valid Unicode survives as well."""
    return json.dumps(value, separators=(",", ":")).encode()


def record_json(record: RunRecord) -> bytes:
    """Return the record as compact JSON, members that equal their default left out; its state is always written."""
    dumped = _dumped(_RECORD, record)
    if record.state is CHART.initial:
        return b'%b,"state":"%b"}' % (dumped[:-1], record.state.value.encode())
    return dumped


def move_json(move: Move) -> bytes:
    """Return the move as compact JSON, members that equal their default left out."""
    return _dumped(_MOVE, move)


def _dumped(adapter: TypeAdapter[Any], value: Any) -> bytes:
    try:
        return adapter.dump_json(value, exclude_defaults=True)
    except PydanticSerializationError:  # A name that is not valid Unicode.
        return json_bytes(adapter.dump_python(value, mode="json", exclude_defaults=True))


def record_of(raw: Any) -> RunRecord:
    """Return the record of parsed JSON. Raises: StateFolderError for a state or member that this version does not know."""
    try:
        # The adapter ignores what it does not know, and the next write would drop it.
        unknown = {*(raw.keys() - _RECORD_MEMBERS), *(raw.get("identity", {}).keys() - _IDENTITY_MEMBERS)}
        record = _RECORD.validate_python(raw)
    except ValidationError as error:
        unknown |= {".".join(map(str, problem["loc"])) for problem in error.errors()}
    except (AttributeError, TypeError):
        raise StateFolderError(
            "A stored run cannot be read by this version: install the version that wrote it."
        ) from None
    if unknown:
        raise StateFolderError(
            f"The stored run {raw.get('job_id', '?')} cannot be read by this version (unknown or wrong: "
            f"{', '.join(sorted(unknown))}): install the version that wrote it."
        )
    return record


def move_of(raw: Any) -> Move:
    """Return the move of parsed JSON. Raises: StateFolderError for a state that this version does not know."""
    try:
        return _MOVE.validate_python(raw)
    except ValidationError as error:
        raise StateFolderError(
            "A move in the audit trail cannot be read by this version: install the version that wrote it."
        ) from error


def document_line(last: Place | None, record: bytes) -> bytes:
    """Return the document of a record's JSON."""
    return b"%b%b%b%b}" % (_BEGIN, place_json(last), _BETWEEN, record)


def place_json(place: Place | None) -> bytes:
    return b"null" if place is None else b"[%d,%d]" % place


def _identity_key(created_at: str, created_by: str, project_uid: str, leaf_name: str) -> bytes:
    """Return 16 bytes in place of the four texts: a fifth of their size in memory."""
    return blake3(repr((created_at, created_by, project_uid, leaf_name)).encode()).digest(length=16)


def _key_of(identity: RunIdentity) -> bytes:
    return _identity_key(identity.created_at, identity.created_by, identity.project_uid, identity.leaf_name)


class _Kept(NamedTuple):
    """One document with what its index entries are: they must be found again when it is replaced."""

    line: bytes
    run_path: str
    identity: bytes
    state: RunState
    equipment_id: str


def _indexed(kept: _Kept) -> tuple[bytes, RunState, str]:
    return kept.identity, kept.state, kept.equipment_id


@dataclass(frozen=True, slots=True)
class DocumentsView:
    """Implements ports.RunsView: the runs as they were at one moment. From any thread."""

    kept: Layered[str, _Kept]
    by_path: Layered[str, str]

    def get(self, job_id: str) -> RunRecord | None:
        kept = self.kept.get(job_id)
        return record_of(json.loads(kept.line)["record"]) if kept is not None else None

    def at(self, run_path: str) -> RunRecord | None:
        job_id = self.by_path.get(run_path)
        return self.get(job_id) if job_id is not None else None

    def state_at(self, run_path: str) -> RunState | None:
        job_id = self.by_path.get(run_path)
        kept = self.kept.get(job_id) if job_id is not None else None
        return kept.state if kept is not None else None


class Documents(Collection[str]):
    """The documents by job id; as a collection, the job ids. One thread only, but for the views that it has handed out."""

    def __init__(self) -> None:
        self._kept: Layered[str, _Kept] = Layered()
        # Those that were put last: runs under way are asked for again and again.
        self._recent: dict[str, RunRecord] = {}
        self._by_path: Layered[str, str] = Layered()
        self._by_identity: dict[bytes, tuple[str, ...]] = {}
        self._by_state: defaultdict[RunState, defaultdict[str, dict[str, None]]] = defaultdict(
            lambda: defaultdict(dict)
        )

    def view(self) -> DocumentsView:
        """Return what is known now, for any thread and for as long as it likes."""
        return DocumentsView(self._kept, self._by_path)

    def take_line(self, line: bytes) -> None:
        """Take in a document as it is in a slot, of two at one path the one that was written last.

        Its record is parsed, and checked for what is indexed and for unknown members; the rest is checked when the record
        is asked for. Raises: StateFolderError when it is not one of this version.
        """
        document = json.loads(line)
        raw = document["record"]
        try:
            is_known = raw.keys() <= _RECORD_MEMBERS and raw["identity"].keys() == _IDENTITY_MEMBERS
            state = _STATES[raw.get("state", CHART.initial.value)]
            if not is_known:
                raise KeyError
            kept = _Kept(
                line, raw["run_path"], _identity_key(**raw["identity"]), state, sys.intern(raw["equipment_id"])
            )
        except (KeyError, TypeError, AttributeError):
            record = record_of(raw)  # says what is wrong
            raise AssertionError(f"{record.job_id} is whole after all") from None
        job_id, rival = raw["job_id"], self._by_path.get(kept.run_path)
        self._kept.load(job_id, kept)
        self._index(job_id, kept)
        is_latest = rival is None or (self.last(rival) or (0, 0)) <= (document["last"] or (0, 0))
        if is_latest:
            self._by_path.load(kept.run_path, job_id)

    def put(self, record: RunRecord, dumped: bytes, last: Place | None) -> None:
        """Take in a record whose JSON is `dumped`; `last` is the place of its line in the trail."""
        before = self._recent.get(record.job_id)
        if before is not None and before.identity == record.identity:
            key = self._kept[record.job_id].identity
        else:
            key = _key_of(record.identity)
        line = document_line(last, dumped)
        self._put(record.job_id, _Kept(line, record.run_path, key, record.state, sys.intern(record.equipment_id)))
        self._recent[record.job_id] = record
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]

    def _put(self, job_id: str, kept: _Kept) -> None:
        self._recent.pop(job_id, None)
        old = self._kept.get(job_id)
        self._kept = self._kept.put(job_id, kept)
        if self._by_path.get(kept.run_path) != job_id:
            self._by_path = self._by_path.put(kept.run_path, job_id)
        if old is not None and old.run_path != kept.run_path and self._by_path.get(old.run_path) == job_id:
            self._by_path = self._by_path.remove(old.run_path)
        if old is None or _indexed(old) != _indexed(kept):
            if old is not None:
                self._forget(job_id, old)
            self._index(job_id, kept)

    def _index(self, job_id: str, kept: _Kept) -> None:
        self._by_identity[kept.identity] = (*self._by_identity.get(kept.identity, ()), job_id)
        self._by_state[kept.state][kept.equipment_id][job_id] = None

    def _forget(self, job_id: str, old: _Kept) -> None:
        del self._by_state[old.state][old.equipment_id][job_id]
        others = tuple(other for other in self._by_identity[old.identity] if other != job_id)
        if others:
            self._by_identity[old.identity] = others
        else:
            del self._by_identity[old.identity]

    def record(self, job_id: str) -> RunRecord | None:
        """Raises: StateFolderError when it is not one of this version."""
        recent = self._recent.get(job_id)
        if recent is not None:
            return recent
        kept = self._kept.get(job_id)
        return record_of(json.loads(kept.line)["record"]) if kept is not None else None

    def raw_record(self, job_id: str) -> Any:
        """Return the record's members as they are written, those that equal their default left out."""
        return json.loads(self._kept[job_id].line)["record"]

    def members(self) -> dict[str, dict[str, Any]]:
        """Return job id → every member of the record, those that equal their default too, as JSON values."""
        return {record.job_id: _RECORD.dump_python(record, mode="json") for record in self.records()}

    def records(self) -> Iterator[RunRecord]:
        for kept in self._kept.values():
            yield record_of(json.loads(kept.line)["record"])

    def at_path(self, run_path: str) -> str | None:
        return self._by_path.get(run_path)

    def of_identity(self, identity: RunIdentity) -> tuple[str, ...]:
        return tuple(sorted(self._by_identity.get(_key_of(identity), ())))

    def ids_in(self, states: Collection[RunState], equipment_id: str | None = None) -> tuple[str, ...]:
        found: list[str] = []
        for state in states:
            of_state: Mapping[str, Mapping[str, None]] = self._by_state.get(state, {})
            for equipment in of_state if equipment_id is None else (equipment_id,):
                found += of_state.get(equipment, ())
        return tuple(found)

    def paths_in(self, states: Collection[RunState], equipment_id: str | None = None) -> tuple[str, ...]:
        return tuple(self._kept[job_id].run_path for job_id in self.ids_in(states, equipment_id))

    def state_of(self, job_id: str) -> RunState | None:
        kept = self._kept.get(job_id)
        return kept.state if kept is not None else None

    def counts(self) -> dict[RunState, int]:
        sums = {state: sum(map(len, self._by_state.get(state, {}).values())) for state in RunState}
        return {state: count for state, count in sums.items() if count}

    def last(self, job_id: str) -> Place | None:
        """Return where the run's latest line begins in the trail; None when that is not known."""
        kept = self._kept.get(job_id)
        if kept is None:
            return None
        segment, _, offset = kept.line[len(_BEGIN) : kept.line.index(_BETWEEN)].strip(b"[]").partition(b",")
        return (int(segment), int(offset)) if offset else None

    def lines(self) -> list[bytes]:
        """Return all documents as they are written to a slot: a list of its own over bytes that never change."""
        return [kept.line for kept in self._kept.values()]

    def __iter__(self) -> Iterator[str]:
        return (job_id for job_id, _ in self._kept.items())

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._kept

    def __len__(self) -> int:
        return len(self._kept)
