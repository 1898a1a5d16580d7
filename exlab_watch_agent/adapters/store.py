"""The run store: TinyDB as the projection of the audit trail.

`commit` appends to the trail first (the commit point), then changes the documents in memory; the documents reach their
slot files at a checkpoint. At start the trail's tail is replayed onto the newest good slot, or the whole trail where no
slot is good. The cost of a commit does not grow with the number of runs: the table below works on the live documents,
where TinyDB's own copies and writes the whole table.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from tinydb import TinyDB
from tinydb.table import Document, Table

from exlab_watch_agent.adapters.audit_trail import AuditTrail, ChainBrokenError, TrailHead, check_head, read_tail
from exlab_watch_agent.adapters.clock import utc_text_exact
from exlab_watch_agent.adapters.durable import fsync_folder, is_temporary_name, write_atomically
from exlab_watch_agent.adapters.slots import SlotStorage, read_slots
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.errors import StateFolderError, StoreWriteError
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import CHART

TRAIL_NAME = "audit.jsonl"
LOCK_NAME = "agent.lock"
HOLDER_NAME = "agent.json"
EVIDENCE_NAME = "evidence"
CHECKPOINT_LINES_MIN = 2000
HISTORY_MAX = 500
LOCK_WAIT_S = 0.3
"""A command that asks whether an agent runs holds the lock for a moment; an agent holds it for good."""
STORE_SCHEMA = 1

_RECORD: TypeAdapter[RunRecord] = TypeAdapter(RunRecord)
_MOVE: TypeAdapter[Move] = TypeAdapter(Move)
_RECORD_MEMBERS = frozenset(member.name for member in fields(RunRecord))
_IDENTITY_MEMBERS = frozenset(member.name for member in fields(RunIdentity))


class LiveTable(Table):
    """A TinyDB table over live documents with text ids: a look-up or an update touches one document, not all."""

    document_id_class = str  # type: ignore[assignment]  # TinyDB types it as int and supports any
    default_query_cache_capacity = 0

    def __init__(self, storage: Any, name: str, **options: Any) -> None:
        super().__init__(storage, name, **options)
        self._live: dict[Any, Any] = dict(storage.read().get(name, {}))

    def _read_table(self) -> dict[Any, Any]:
        return self._live

    def _update_table(self, updater: Callable[[dict[Any, Any]], None]) -> None:
        updater(self._live)
        self.clear_cache()


class StateDatabase(TinyDB):
    """TinyDB with our table and our slots; only a checkpoint writes."""

    table_class = LiveTable  # type: ignore[assignment]  # TinyDB declares the base class and supports others

    def checkpoint(self) -> None:
        """Write all tables to the next slot."""
        self.storage.write({name: self.table(name)._read_table() for name in ("runs", "facts")})


@dataclass
class Loaded:
    """What a state folder holds, replayed and checked. `notices` are sentences for the operator."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    head: TrailHead = field(default_factory=TrailHead)
    notices: list[str] = field(default_factory=list)
    damaged: tuple[Path, ...] = ()
    is_torn: bool = False


def load(folder: Path) -> Loaded:
    """Return the state of the folder without changing anything in it; safe while an agent writes there.

    Raises: StateFolderError when neither the slots nor the trail can be trusted or read.
    """
    try:
        return _loaded(folder)
    except ChainBrokenError as error:
        raise StateFolderError(
            f"{folder / TRAIL_NAME}: {error} Keep the file as evidence and restore it from a backup, or move the state "
            "folder away to start anew; no data were touched."
        ) from error
    except OSError as error:
        raise StateFolderError(f"{folder} cannot be read ({error.strerror}): mend that, then start again.") from error


def _loaded(folder: Path) -> Loaded:
    report = read_slots(folder)
    trail = folder / TRAIL_NAME
    loaded = Loaded(damaged=report.damaged)
    size_bytes = trail.stat().st_size if trail.exists() else 0
    if report.content is not None:
        loaded.runs = dict(report.content.get("runs", {}))
        loaded.facts = dict(report.content.get("facts", {}))
        _check_schema(loaded.facts, folder)
        loaded.head = TrailHead(*loaded.facts["head"]["trail"])
        if size_bytes < loaded.head.end_bytes:
            raise StateFolderError(
                f"{trail} is shorter than the state says ({size_bytes} < {loaded.head.end_bytes} bytes): its end was cut. "
                "Restore the file from a backup, or move the state folder away to start anew; no data were touched."
            )
        check_head(trail, loaded.head)
    for fact, head in read_tail(trail, loaded.head):
        _replay(loaded, fact, head.seq)
        loaded.head = head
    if report.damaged and loaded.head.seq == 0:
        raise StateFolderError(
            f"{', '.join(path.name for path in report.damaged)} in {folder} is damaged and {TRAIL_NAME} is missing or empty: "
            "restore the folder from a backup, or move it away to start anew; no data were touched."
        )
    loaded.is_torn = size_bytes > loaded.head.end_bytes
    source = "the other one" if report.content is not None else f"{TRAIL_NAME} alone"
    loaded.notices += [f"{path.name} is damaged; the state was rebuilt from {source}." for path in report.damaged]
    return loaded


def _check_schema(facts: Mapping[str, Any], folder: Path) -> None:
    schema = facts.get("head", {}).get("schema")
    if schema != STORE_SCHEMA:
        raise StateFolderError(
            f"{folder} was written by another version of the agent (schema {schema}, this one knows {STORE_SCHEMA}): "
            "install that version again."
        )


def _replay(loaded: Loaded, fact: Mapping[str, Any], seq: int) -> None:
    try:
        _replay_known(loaded, fact)
    except (KeyError, TypeError, AttributeError) as error:
        raise StateFolderError(
            f"Line {seq} of {TRAIL_NAME} cannot be read by this version: install the version that wrote it."
        ) from error


def _replay_known(loaded: Loaded, fact: Mapping[str, Any]) -> None:
    if fact["kind"] == "destination_bound":
        loaded.facts.setdefault("markers", {})[fact["data"]["root"]] = fact["data"]["marker_id"]
    record = fact.get("record")
    if record is None:
        return
    job_id = record["job_id"]
    history = loaded.runs.get(job_id, {}).get("history", [])
    if "move" in fact:
        history = [*history, fact["move"]][-HISTORY_MAX:]
    loaded.runs[job_id] = {"record": record, "history": history}


def record_of(document: Mapping[str, Any]) -> RunRecord:
    """Return the record of a document. Raises: StateFolderError for a state or member that this version does not know."""
    raw = document["record"]
    # The adapter passes over what it does not know, and the next write would drop it.
    unknown = {*(raw.keys() - _RECORD_MEMBERS), *(raw.get("identity", {}).keys() - _IDENTITY_MEMBERS)}
    try:
        record = _RECORD.validate_python(raw)
    except ValidationError as error:
        unknown |= {".".join(map(str, problem["loc"])) for problem in error.errors()}
    if unknown:
        raise StateFolderError(
            f"The stored run {raw.get('job_id', '?')} cannot be read by this version (unknown or wrong: "
            f"{', '.join(sorted(unknown))}): install the version that wrote it."
        )
    return record


def history_of(document: Mapping[str, Any]) -> tuple[Move, ...]:
    """Return a document's moves, oldest first. Raises: StateFolderError for a state that this version does not know."""
    try:
        return tuple(_MOVE.validate_python(move) for move in document["history"])
    except ValidationError as error:
        raise StateFolderError(
            f"The history of the stored run {document['record'].get('job_id', '?')} cannot be read by this version: "
            "install the version that wrote it."
        ) from error


class RunStore:
    """Implements ports.RunStore over one state folder. One writer, one process; readers use `load`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Not bound to a thread: whoever closes the store lets the folder go.
        self._lock = FileLock(folder / LOCK_NAME, timeout=LOCK_WAIT_S, thread_local=False)
        self._trail = AuditTrail(folder / TRAIL_NAME)
        self._database: StateDatabase | None = None
        self._records: dict[str, RunRecord] = {}
        self._by_path: dict[str, str] = {}
        self._by_identity: defaultdict[RunIdentity, set[str]] = defaultdict(set)
        self._lines_since_checkpoint = 0
        self._host = socket.gethostname()
        self.notices: tuple[str, ...] = ()

    def open(self) -> None:
        """Lock the folder, load, replay, set damage aside.

        Raises: StateFolderError when another agent holds the folder or its content cannot be trusted.
        """
        try:
            _make_private_folder(self._folder)
            self._lock.acquire()
        except Timeout:
            raise StateFolderError(
                f"Another agent works in {self._folder} ({holder_text(self._folder)}): stop it first, or give another --state-dir."
            ) from None
        except OSError as error:
            raise StateFolderError(f"{self._folder} cannot be used as state folder ({error.strerror}).") from error
        try:
            self._load()
        except OSError as error:
            self.close()
            raise StateFolderError(
                f"{self._folder} cannot be brought in order ({error.strerror}): make room or mend the disk, then start again."
            ) from error
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        loaded = load(self._folder)
        # Read all before anything is changed: a folder of another version is left as it is.
        records = [record_of(document) for document in loaded.runs.values()]
        for path in loaded.damaged:
            self._set_aside(path)
        if loaded.is_torn:
            loaded.notices.append(self._cut_torn_tail(loaded.head.end_bytes))
        self._trail.open(loaded.head)
        self._remove_leftovers()
        content = {"runs": loaded.runs, "facts": loaded.facts}
        self._database = StateDatabase(self._folder, content, storage=SlotStorage)
        for index in (self._records, self._by_path, self._by_identity):
            index.clear()
        for record in records:
            self._index(record)
        self._lines_since_checkpoint = 0
        self.notices = tuple(loaded.notices)

    def _table(self, name: str) -> LiveTable:
        assert self._database is not None, "the store is not open"
        table = self._database.table(name)
        assert isinstance(table, LiveTable)
        return table

    def _set_aside(self, path: Path) -> None:
        evidence = self._evidence()
        # One above the highest: a number that an operator has taken away must not lead to another file's name.
        used = [int(name[:4]) for name in os.listdir(evidence) if name[:4].isdecimal()]
        path.rename(evidence / f"{max(used, default=0) + 1:04d}-{path.name}")
        fsync_folder(evidence)
        fsync_folder(self._folder)

    def _cut_torn_tail(self, end_bytes: int) -> str:
        """Keep what a crash left of an unacknowledged commit as evidence, then cut it off; return a notice of it."""
        with (self._folder / TRAIL_NAME).open("r+b") as file:
            file.seek(end_bytes)
            torn = file.read()
            # By content: after a stop before the cut the same file is written again, and no other is ever replaced.
            name = f"torn-after-{end_bytes}-{blake3(torn).hexdigest()[:8]}.bin"
            write_atomically(self._evidence() / name, torn, mode=0o600)
            file.truncate(end_bytes)
            file.flush()
            os.fsync(file.fileno())
        return (
            f"{TRAIL_NAME} ended in {len(torn)} bytes of a commit that was never acknowledged; "
            f"they were moved to {EVIDENCE_NAME}/{name}."
        )

    def _evidence(self) -> Path:
        evidence = self._folder / EVIDENCE_NAME
        evidence.mkdir(exist_ok=True, mode=0o700)
        fsync_folder(self._folder)
        return evidence

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of an agent that was killed while it wrote one."""
        for name in os.listdir(self._folder):
            if is_temporary_name(name):
                with suppress(OSError):
                    (self._folder / name).unlink()

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> RunRecord | None:
        return self._records.get(job_id)

    def by_path(self, run_path: str) -> RunRecord | None:
        job_id = self._by_path.get(run_path)
        return self._records[job_id] if job_id is not None else None

    def by_identity(self, identity: RunIdentity) -> tuple[RunRecord, ...]:
        return tuple(self._records[job_id] for job_id in sorted(self._by_identity.get(identity, ())))

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def history(self, job_id: str) -> tuple[Move, ...]:
        document = self._table("runs").get(doc_id=job_id)  # type: ignore[call-overload]  # text ids
        return history_of(document) if document is not None else ()

    def marker_id(self, root: str) -> str | None:
        """Return the id of the marker that was found or placed in this destination root, None before its first use."""
        markers: dict[str, str] = self._table("facts")._live.get("markers", {})
        return markers.get(root)

    @property
    def head(self) -> TrailHead:
        return self._trail.head

    # --- writing -----------------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        """Make the entries durable with one fsync, then true in memory. Raises: StoreWriteError, and nothing is true."""
        # In proportion to the number of runs, so that the cost of a checkpoint, spread over the moves, stays flat. Before
        # the commit point: a checkpoint that fails after it would call lines untrue that stand in the trail.
        if self._lines_since_checkpoint > max(CHECKPOINT_LINES_MIN, len(self._records)):
            self.checkpoint()
        facts = [self._fact(entry, at) for entry in entries]
        self._trail.append(facts)
        for entry, fact in zip(entries, facts, strict=True):
            self._apply(entry, fact)
        self._lines_since_checkpoint += len(facts)

    def _fact(self, entry: Entry, at: datetime) -> dict[str, Any]:
        fact: dict[str, Any] = {
            "at": utc_text_exact(at),
            "kind": entry.kind,
            "host": self._host,
            "operator": entry.operator,
            "chart": CHART.version,
        }
        if entry.data:
            fact["data"] = dict(entry.data)
        if entry.move is not None:
            fact["move"] = _MOVE.dump_python(entry.move, mode="json")
        if entry.record is not None:
            fact["record"] = _RECORD.dump_python(entry.record, mode="json")
        return fact

    def _apply(self, entry: Entry, fact: Mapping[str, Any]) -> None:
        if entry.kind == "destination_bound":
            markers = self._table("facts")._live.setdefault("markers", {})
            markers[entry.data["root"]] = entry.data["marker_id"]
        if entry.record is None:
            return
        runs = self._table("runs")
        job_id: Any = entry.record.job_id
        document = runs.get(doc_id=job_id)
        history: list[Any] = document["history"] if isinstance(document, dict) else []
        if entry.move is not None:
            history.append(fact["move"])
            del history[:-HISTORY_MAX]
        runs.upsert(Document({"record": fact["record"], "history": history}, doc_id=job_id))
        self._index(entry.record)

    def _index(self, record: RunRecord) -> None:
        old = self._records.get(record.job_id)
        if old is not None and old.run_path != record.run_path and self._by_path.get(old.run_path) == record.job_id:
            del self._by_path[old.run_path]
        if old is not None and old.identity != record.identity:
            self._by_identity[old.identity].discard(record.job_id)
        self._records[record.job_id] = record
        self._by_path[record.run_path] = record.job_id
        self._by_identity[record.identity].add(record.job_id)

    def checkpoint(self) -> None:
        """Write the documents to the next slot, so that the next start replays little. Raises: StoreWriteError."""
        assert self._database is not None, "the store is not open"
        head = self._trail.head
        self._table("facts")._live["head"] = {"schema": STORE_SCHEMA, "trail": [head.seq, head.digest, head.end_bytes]}
        try:
            self._database.checkpoint()
        except OSError as error:
            raise StoreWriteError(
                f"{self._folder} cannot be written ({error.strerror}): make room or mend the disk, then start the agent again."
            ) from error
        self._lines_since_checkpoint = 0

    def close(self) -> None:
        """Close and unlock. Nothing is lost without a checkpoint before: the trail has everything."""
        self._trail.close()
        self._database = None
        self._lock.release()


def _make_private_folder(folder: Path) -> None:
    """Make the folder stand durably, with what lies above it, for this account alone. Raises: OSError."""
    missing = [folder, *folder.parents]
    missing = missing[: next(number for number, path in enumerate(missing) if path.exists())]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=0o700)
        fsync_folder(path.parent)
    with suppress(PermissionError):  # A folder above that we may not read was made durable by whoever made this one.
        fsync_folder(folder.parent)  # Also one that stands: its maker may have been killed in between.
    if os.name == "posix":
        folder.chmod(0o700)


def holder_text(folder: Path) -> str:
    """Return who holds the folder, as far as its agent has said."""
    try:
        return (folder / HOLDER_NAME).read_text(encoding="utf-8").strip()[:200]
    except (OSError, UnicodeDecodeError):
        return "it has not said who it is"
