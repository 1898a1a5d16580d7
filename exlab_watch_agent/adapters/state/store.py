"""The run store: TinyDB as the projection of the audit trail.

`commit` appends to the trail first (the commit point), then changes the documents in memory; the documents reach their
slot files at a checkpoint, written by a thread of its own from bytes that nobody changes. At start the trail's lines
after the newest good slot are replayed. The cost of a commit does not grow with the number of runs: the table below works
on the live documents, where TinyDB's own copies and writes the whole table. `docs/state.md` tells of the formats.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from filelock import FileLock, Timeout
from tinydb import TinyDB
from tinydb.table import Table

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.durable import fsync_folder, is_temporary_name, write_atomically
from exlab_watch_agent.adapters.state.documents import Documents, Place, json_bytes, move_json, place_json, record_json
from exlab_watch_agent.adapters.state.layout import EVIDENCE_NAME, TRAIL_NAME, StateLayout, closed_name
from exlab_watch_agent.adapters.state.recovery import Loaded, binding_in, history_of, load, note_fact
from exlab_watch_agent.adapters.state.segments import TrailHead, live_path
from exlab_watch_agent.adapters.state.slots import SlotStorage
from exlab_watch_agent.adapters.state.trail import (
    AuditTrail,
    Batch,
    close_live,
    errors_as_store_errors,
    fact_body,
    opening_data,
    place_next,
    put_next_in_place,
)
from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import reason, utc_text_exact
from exlab_watch_agent.errors import StateFolderError, StoreWriteError
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import CHART, RunState

CHECKPOINT_LINES_MIN = 2000
SEGMENT_BYTES = 32 << 20
LOCK_WAIT_S = 0.3
"""A command that asks whether an agent runs holds the lock for a moment; an agent holds it for good."""


class _Touched(MutableMapping[Any, Any]):
    """What TinyDB's updater gets to see: it changes documents in place, so those that it took are written back after it."""

    def __init__(self, live: MutableMapping[Any, Any]) -> None:
        self._live = live
        self._taken: dict[Any, Any] = {}

    def write_back(self) -> None:
        for key, document in self._taken.items():
            self._live[key] = document

    def __getitem__(self, key: Any) -> Any:
        return self._taken.setdefault(key, self._live[key])

    def __setitem__(self, key: Any, document: Any) -> None:
        self._taken.pop(key, None)
        self._live[key] = document

    def __delitem__(self, key: Any) -> None:
        self._taken.pop(key, None)
        del self._live[key]

    def __contains__(self, key: object) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[Any]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)


class LiveTable(Table):
    """A TinyDB table over live documents with text ids: a look-up or an update by id touches one document, not all.

    What is changed here reaches the next slot, and not the trail: only a commit is durable and in every history.
    """

    document_id_class = str  # type: ignore[assignment]  # TinyDB types it as int and supports any
    default_query_cache_capacity = 0

    def __init__(self, storage: Any, name: str, **options: Any) -> None:
        super().__init__(storage, name, **options)
        self._live: MutableMapping[Any, Any] = storage.read()[name]

    def _read_table(self) -> Any:
        return self._live

    def _update_table(self, updater: Callable[[Any], None]) -> None:
        touched = _Touched(self._live)
        updater(touched)
        touched.write_back()
        self.clear_cache()


class StateDatabase(TinyDB):
    """TinyDB with our table and our slots; only a checkpoint writes."""

    table_class = LiveTable  # type: ignore[assignment]  # TinyDB declares the base class and supports others


class _SlotWriter(threading.Thread):
    """Writes one slot beside the loop. `error` is what went wrong, once the thread has ended."""

    def __init__(self, storage: SlotStorage, facts: bytes, lines: list[bytes]) -> None:
        super().__init__(name="checkpoint")
        self.error: OSError | None = None
        self._work = (storage, facts, lines)

    def run(self) -> None:
        storage, facts, lines = self._work
        try:
            storage.write_lines(facts, lines)
        except OSError as error:
            self.error = error


class RunStore:
    """Implements ports.RunStore over one state folder. One writer, one process; readers use `load`.

    `segment_bytes`: how long the trail's live segment may become.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._layout = StateLayout(folder)
        # Not bound to a thread: whoever closes the store lets the folder go.
        self._lock = FileLock(self._layout.lock, timeout=LOCK_WAIT_S, thread_local=False)
        self._trail = AuditTrail(folder)
        self._segment_bytes = segment_bytes
        self._documents = Documents()
        self._facts: dict[str, Any] = {}
        self._database: StateDatabase | None = None
        self._writer: _SlotWriter | None = None
        self._lines_since_checkpoint = 0
        self._who = b'"host":%b,"chart":%b' % (json_bytes(socket.gethostname()), json_bytes(CHART.version))
        self._now = SystemClock().now
        self.notices: tuple[str, ...] = ()

    # --- start and end -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the folder, load, replay, set damage aside.

        Damage does not keep the store from opening: what can be rebuilt is rebuilt, and `hold` says why nothing may be
        deleted. Raises: StateFolderError when another agent holds the folder, or another version wrote what is in it.
        """
        try:
            _make_private_folder(self._folder)
            self._lock.acquire()
        except Timeout:
            raise StateFolderError(
                f"Another agent works in {self._folder} ({holder_text(self._folder)}): stop it first, or give another --state-dir."
            ) from None
        except OSError as error:
            raise StateFolderError(f"{self._folder} cannot be used as state folder ({reason(error)}).") from error
        try:
            self._load()
        except (OSError, StoreWriteError) as error:
            self.close()
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise StateFolderError(
                f"{self._folder} cannot be brought in order ({why}): make room or mend the disk, then start again."
            ) from error
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        loaded = load(self._folder)  # reads all before anything is changed: a folder of another version stays as it is
        was_in_order = bool(loaded.generation) and not loaded.damage
        for path in loaded.damaged_slots:
            self._set_aside(path)
        self._finish_rotation()
        if loaded.damage:
            self._go_on_after_damage(loaded)
        elif loaded.torn_at is not None:
            self._cut_torn_tail(loaded)
        if not loaded.head.seq:
            self._begin_trail(loaded)
        self._trail.open(loaded.head)
        self._remove_leftovers()
        self._documents, self._facts = loaded.documents, loaded.facts
        content = {"runs": self._documents, "facts": self._facts}
        self._database = StateDatabase(self._folder, content, loaded.generation, storage=SlotStorage)
        self._lines_since_checkpoint = 0
        if not was_in_order or "has_opening" not in self._facts:
            self.checkpoint()
        if "has_opening" not in self._facts:  # a trail of schema 1
            self._rotate()
        self.notices = tuple(loaded.notices)

    def _finish_rotation(self) -> None:
        """Finish what a stop left of going on in the next segment, or forget it where it had not begun."""
        live = live_path(self._folder)
        if live is not None and live == self._layout.next_trail:
            put_next_in_place(self._folder)
        else:
            self._layout.next_trail.unlink(missing_ok=True)

    def _begin_trail(self, loaded: Loaded) -> None:
        data = opening_data(None, 0)
        batch = Batch(TrailHead(), 0)
        batch.add(self._body("segment_opened", None, json_bytes(data)))
        write_atomically(self._layout.trail, b"".join(batch.data), mode=0o600)
        note_fact(loaded.facts, "segment_opened", data)
        loaded.head = batch.head

    def _body(self, kind: str, operator: str | None, data: bytes, rest: bytes = b"") -> bytes:
        rest = b',"data":%b%b' % (data, rest)
        return fact_body(at=utc_text_exact(self._now()), kind=kind, who=self._who, operator=operator, rest=rest)

    def _go_on_after_damage(self, loaded: Loaded) -> None:
        """Go on in a new segment that says what was found, with deletion on hold; leave every old byte as it is.

        The new segment chains on the last line that counts, and repeats the records whose lines are lost: from here on
        the trail has everything again. It appears whole or not at all, so a stop in the middle repeats this.
        """
        live = self._layout.trail
        segments = {segment.path.name: segment.size_bytes for segment in loaded.segments if not segment.is_live}
        closing = loaded.segments[-1] if loaded.segments and loaded.segments[-1].is_live else None
        if closing is not None:
            self._keep_copy(closing.path)
            segments[closed_name(closing.first_seq)] = closing.size_bytes
        elif live.exists():
            self._set_aside(live)
        data = opening_data(None, 0) | {"found": loaded.hold, "segments": segments}
        batch = Batch(TrailHead(loaded.end_seq, loaded.head.digest, loaded.end_seq + 1, 0), 0)
        batch.add(self._body("trail_damaged", None, json_bytes(data)))
        for job_id in loaded.unsupported():
            record = loaded.documents.record(job_id)
            assert record is not None, "it is one of the documents"
            dumped, place = record_json(record), batch.next_place
            rest = b',"before":%b,"record":%b' % (place_json(loaded.documents.last(job_id)), dumped)
            batch.add(self._body("run_restored", None, b"{}", rest))
            loaded.documents.put(record, dumped, place)
        place_next(self._folder, batch.data)
        if closing is not None:
            close_live(self._folder, closing.first_seq)
        put_next_in_place(self._folder)
        note_fact(loaded.facts, "trail_damaged", data)
        loaded.head = batch.head
        loaded.notices += [*loaded.damage, "Nothing is deleted until an operator has accepted the state."]

    def _keep_copy(self, path: Path) -> None:
        """Copy a damaged file to the evidence, under its digest: after a stop the same copy is made again."""
        content = path.read_bytes()
        write_atomically(self._evidence() / f"{blake3(content).hexdigest()[:8]}-{path.name}", content, mode=0o600)

    def _set_aside(self, path: Path) -> None:
        evidence = self._evidence()
        # One above the highest: a number that an operator has taken away must not lead to another file's name.
        used = [int(name[:4]) for name in os.listdir(evidence) if name[:4].isdecimal() and name[4:5] == "-"]
        path.rename(evidence / f"{max(used, default=0) + 1:04d}-{path.name}")
        fsync_folder(evidence)
        fsync_folder(self._folder)

    def _cut_torn_tail(self, loaded: Loaded) -> None:
        """Keep what a crash left of an unacknowledged commit as evidence, then cut it off, and say so."""
        with self._layout.trail.open("r+b") as file:
            file.seek(loaded.head.end_bytes)
            torn = file.read()
            # By content: after a stop before the cut the same file is written again, and no other is ever replaced.
            name = f"torn-after-{loaded.head.seq}-{blake3(torn).hexdigest()[:8]}.bin"
            write_atomically(self._evidence() / name, torn, mode=0o600)
            file.truncate(loaded.head.end_bytes)
            file.flush()
            os.fsync(file.fileno())
        loaded.notices.append(
            f"{TRAIL_NAME} ended in {len(torn)} bytes of a commit that was never acknowledged; "
            f"they were moved to {EVIDENCE_NAME}/{name}."
        )

    def _evidence(self) -> Path:
        evidence = self._layout.evidence
        evidence.mkdir(exist_ok=True, mode=0o700)
        fsync_folder(self._folder)
        return evidence

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of an agent that was killed while it wrote one."""
        for name in os.listdir(self._folder):
            if is_temporary_name(name):
                with suppress(OSError):
                    (self._folder / name).unlink()

    def close(self) -> None:
        """Close and unlock. Nothing is lost without a checkpoint before: the trail has everything."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        self._trail.close()
        self._database = None
        self._lock.release()

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> RunRecord | None:
        return self._documents.record(job_id)

    def by_path(self, run_path: str) -> RunRecord | None:
        job_id = self._documents.at_path(run_path)
        return self._documents.record(job_id) if job_id is not None else None

    def by_identity(self, identity: RunIdentity) -> tuple[RunRecord, ...]:
        found = (self._documents.record(job_id) for job_id in self._documents.of_identity(identity))
        return tuple(record for record in found if record is not None)

    def __iter__(self) -> Iterator[RunRecord]:
        return self._documents.records()

    def __len__(self) -> int:
        return len(self._documents)

    def ids_in(self, states: Collection[RunState], equipment_id: str | None = None) -> tuple[str, ...]:
        return self._documents.ids_in(states, equipment_id)

    def paths_in(self, states: Collection[RunState], equipment_id: str | None = None) -> tuple[str, ...]:
        return self._documents.paths_in(states, equipment_id)

    def state_of(self, job_id: str) -> RunState | None:
        return self._documents.state_of(job_id)

    def state_at(self, run_path: str) -> RunState | None:
        job_id = self._documents.at_path(run_path)
        return self._documents.state_of(job_id) if job_id is not None else None

    def counts(self) -> dict[RunState, int]:
        return self._documents.counts()

    def history(self, job_id: str) -> tuple[Move, ...]:
        """Return the run's moves, oldest first; reads the run's own lines. Raises: StateFolderError."""
        return history_of(self._folder, self._documents, job_id)

    def binding(self, root: str) -> Binding | None:
        """Return the marker that was found or placed in this destination root and who accepted it, None before its first use."""
        return binding_in(self._facts, root)

    def root_volume(self, equipment_id: str) -> str | None:
        """Return the volume on which this equipment's root was last bound, None before the first time."""
        volumes: dict[str, str] = self._facts.get("volumes", {})
        return volumes.get(equipment_id)

    @property
    def hold(self) -> str | None:
        """Why nothing may be deleted until an operator has accepted the state; None when deletion is not held."""
        found: str | None = self._facts.get("hold", {}).get("found")
        return found

    @property
    def head(self) -> TrailHead:
        return self._trail.head

    # --- writing -----------------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        """Make the entries durable with one sync, then true in memory.

        Raises: StoreFullError, StoreWriteError; nothing of it is true then, as ports.RunStore says.
        """
        for entry in entries:
            note_fact({}, entry.kind, entry.data)  # Data that are not of their kind must not get into the trail.
        self._keep_in_proportion()
        batch = Batch(self._trail.head, len(entries) - 1)
        places: dict[str, Place] = {}
        written: list[tuple[Entry, bytes, Place]] = []
        moment = utc_text_exact(at)
        for entry in entries:
            place, dumped, rest = batch.next_place, b"", b""
            if entry.data:
                rest += b',"data":' + json_bytes(dict(entry.data))
            if entry.move is not None:
                rest += b',"move":' + move_json(entry.move)
            if entry.record is not None:
                job_id = entry.record.job_id
                dumped = record_json(entry.record)
                before = places.get(job_id) or self._documents.last(job_id)
                rest += b',"before":%b,"record":%b' % (place_json(before), dumped)
                places[job_id] = place
            batch.add(fact_body(at=moment, kind=entry.kind, who=self._who, operator=entry.operator, rest=rest))
            written.append((entry, dumped, place))
        self._trail.append(batch)
        for entry, dumped, place in written:
            note_fact(self._facts, entry.kind, entry.data)
            if entry.record is not None:
                self._documents.put(entry.record, dumped, place)
        self._lines_since_checkpoint += len(entries)

    def accept_trail(self, operator: str, reason: str, at: datetime) -> None:
        """End the hold: the operator takes the state as it is for true. Does nothing where nothing is held."""
        if self.hold is not None:
            self.commit([Entry("trail_accepted", operator=operator, data={"reason": reason, "hold": self.hold})], at=at)

    def _keep_in_proportion(self) -> None:
        """Close a long segment and begin a checkpoint that is due. Raises: StoreFullError, StoreWriteError.

        Before the commit point: what fails after it would call lines untrue that stand in the trail. The number of lines
        between two checkpoints grows with the number of runs, so that their cost, spread over the lines, stays flat, and a
        start replays few.
        """
        if self._writer is not None and not self._writer.is_alive():
            self._end_writer()
        if self._trail.head.end_bytes >= self._segment_bytes:
            self._rotate()
        if self._writer is None and self._lines_since_checkpoint > max(CHECKPOINT_LINES_MIN, len(self) // 2):
            self._writer = _SlotWriter(self._storage(), *self._snapshot())
            self._lines_since_checkpoint = 0
            self._writer.start()

    def _rotate(self) -> None:
        data: dict[str, Any] = {}

        def opening(closed: str, closed_bytes: int) -> bytes:
            data.update(opening_data(closed, closed_bytes))
            return self._body("segment_opened", None, json_bytes(data))

        self._trail.rotate(opening)
        note_fact(self._facts, "segment_opened", data)

    def _storage(self) -> SlotStorage:
        assert self._database is not None, "the store is not open"
        storage = self._database.storage
        assert isinstance(storage, SlotStorage)
        return storage

    def _snapshot(self) -> tuple[bytes, list[bytes]]:
        """Return the projection as bytes that nobody changes: facts, documents."""
        head = self._trail.head
        self._facts["head"] = {"trail": [head.seq, head.digest, head.segment, head.end_bytes]}
        return json_bytes(self._facts), self._documents.lines()

    def _end_writer(self) -> None:
        """Wait for the checkpoint that is being written. Raises: StoreFullError, StoreWriteError when it failed."""
        if self._writer is None:
            return
        self._writer.join()
        error, self._writer = self._writer.error, None
        if error is not None:
            self._lines_since_checkpoint = max(CHECKPOINT_LINES_MIN, len(self) // 2) + 1
            raise errors_as_store_errors(self._folder, error) from error

    def checkpoint(self) -> None:
        """Write the documents to the next slot, so that the next start replays little. Raises: StoreFullError, StoreWriteError."""
        self._end_writer()
        try:
            self._storage().write_lines(*self._snapshot())
        except OSError as error:
            raise errors_as_store_errors(self._folder, error) from error
        self._lines_since_checkpoint = 0


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
        return StateLayout(folder).holder.read_text(encoding="utf-8").strip()[:200]
    except (OSError, UnicodeDecodeError):
        return "it has not said who it is"
