"""The run store: documents as the projection of the audit trail. `docs/state.md` tells of the formats.

`commit` appends to the trail first (the commit point), then changes the documents in memory; the documents reach their
slot files at a checkpoint, written by a thread of its own from bytes that nobody changes. At start the trail's lines
after the newest good slot are replayed. The cost of a commit does not grow with the number of runs. Not here: how damage is
repaired (repair.py), and how others read the projection as a TinyDB (database.py).
"""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.durable import fsync_folder, remove_temporaries, write_all
from exlab_watch_agent.adapters.local.machine import machine_id
from exlab_watch_agent.adapters.state import holder
from exlab_watch_agent.adapters.state.documents import Documents, Place, json_bytes, move_json, place_json, record_json
from exlab_watch_agent.adapters.state.folder_facts import (
    binding_in,
    dismissals_in,
    hold_in,
    mounts_in,
    note_fact,
    trail_doubt_in,
)
from exlab_watch_agent.adapters.state.folder_lock import folder_lock
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.lookup import digest_at
from exlab_watch_agent.adapters.state.recovery import history_of, load
from exlab_watch_agent.adapters.state.repair import Repair
from exlab_watch_agent.adapters.state.segments import TrailHead
from exlab_watch_agent.adapters.state.slots import Slots
from exlab_watch_agent.adapters.state.trail import (
    AuditTrail,
    Batch,
    errors_as_store_errors,
    fact_body,
    opening_data,
)
from exlab_watch_agent.core.binding import Below, Binding
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.facts import Fact, FolderFact, FolderNamed, MachineAccepted, MachineChanged, TrailAccepted
from exlab_watch_agent.core.problem import Dismissal
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.rollback import TrailPosition, is_in_trail
from exlab_watch_agent.core.text import reason, utc_text_exact
from exlab_watch_agent.errors import StateFolderError, StoreWriteError
from exlab_watch_agent.ports import Clock, Entry
from exlab_watch_agent.statechart import CHART, RunState

CHECKPOINT_LINES = 2000
SEGMENT_BYTES = 32 << 20


class _SlotWriter(threading.Thread):
    """Writes one slot beside the loop. `error` is what went wrong, once the thread has ended."""

    def __init__(self, slots: Slots, facts: bytes, lines: list[bytes]) -> None:
        super().__init__(name="checkpoint")
        self.error: OSError | None = None
        self._work = (slots, facts, lines)

    def run(self) -> None:
        slots, facts, lines = self._work
        try:
            slots.write(facts, lines)
        except OSError as error:
            self.error = error


class RunStore:
    """Implements ports.RunStore over one state folder. One writer, one process; readers use `load`.

    `segment_bytes`: how long the trail's live segment may become. `checkpoint_lines`: a checkpoint is due after so many
    lines, or after half as many as there are runs, whichever is more. `write_trail`: the one write of each commit. `host`: what its
    lines call this machine, by default its own name. `lock`: the folder's, where its owner holds it from one store to the next.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        checkpoint_lines: int = CHECKPOINT_LINES,
        write_trail: Callable[[int, bytes], None] = write_all,
        clock: Clock | None = None,
        host: str | None = None,
        machine: str | None = None,
        lock: FileLock | None = None,
    ) -> None:
        self._folder = folder
        self._layout = StateLayout(folder)
        self._lock = lock or folder_lock(folder)
        self._trail = AuditTrail(folder, write=write_trail)
        self._segment_bytes = segment_bytes
        self._checkpoint_lines = checkpoint_lines
        self._documents = Documents()
        self.view = self._documents.view()
        self._facts: dict[str, Any] = {}
        self._slots: Slots | None = None
        self._writer: _SlotWriter | None = None
        self._lines_since_checkpoint = 0
        self._who = b'"host":%b,"chart":%b' % (json_bytes(host or socket.gethostname()), json_bytes(CHART.version))
        self.machine = machine_id() if machine is None else machine
        self._now = (clock or SystemClock()).now
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
            who = holder.in_words(self._layout.holder)
            raise StateFolderError(
                f"Another agent works in {self._folder} ({who}): stop it first, or give another --state-dir."
            ) from None
        except OSError as error:
            raise StateFolderError(f"{self._folder} cannot be used as state folder ({reason(error)}).") from error
        try:
            self._load()
        except (OSError, StoreWriteError) as error:
            self.close()
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise StateFolderError(
                f"{self._folder} cannot be brought in order ({why}): make room or repair the disk, then start again."
            ) from error
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        loaded = load(self._folder)  # reads all before anything is changed: a folder of another version stays as it is
        was_in_order = bool(loaded.generation) and not loaded.damage
        named = FolderNamed(uuid.uuid4().hex, self.machine)
        Repair(loaded, self._body, named).run()
        self._trail.open(loaded.head)
        remove_temporaries(self._folder)
        self._documents, self._facts = loaded.documents, loaded.facts
        self.view = self._documents.view()
        self._slots = Slots(self._folder, loaded.generation)
        self._lines_since_checkpoint = 0
        if not was_in_order or "has_opening" not in self._facts:
            self.checkpoint()
        if "has_opening" not in self._facts:  # a trail of schema 1
            self._rotate()
        self._know_itself(named)
        self.notices = tuple(loaded.notices)

    def _know_itself(self, named: FolderNamed) -> None:
        """Give an older folder its name, and notice that it was copied or moved to another machine."""
        if "folder" not in self._facts:
            self._note(named)
        home, found_on = self._facts["folder"]["machine"], self._facts.get("found_on", "")
        if home and self.machine not in ("", home, found_on):
            self._note(MachineChanged(self.machine))

    def _note(self, fact: Fact) -> None:
        self.commit([Entry(fact.kind, data=fact.data())], at=self._now())

    def _body(self, kind: str, data: bytes, rest: bytes = b"") -> bytes:
        """Return the members of a line that nobody asked for."""
        rest = b',"data":%b%b' % (data, rest)
        return fact_body(at=utc_text_exact(self._now()), kind=kind, who=self._who, operator=None, rest=rest)

    def close(self) -> None:
        """Close and unlock. Nothing is lost without a checkpoint before: the trail has everything."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        self._trail.close()
        self._slots = None
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

    def counts(self) -> dict[RunState, int]:
        return self._documents.counts()

    def history(self, job_id: str) -> tuple[Move, ...]:
        """Return the run's moves, oldest first; reads the run's own lines. Raises: StateFolderError."""
        return history_of(self._folder, self._documents, job_id)

    def binding(self, equipment_id: str, spelling: str) -> Binding | None:
        """Return an equipment's binding, None before the first one; `spelling`: of the root that is configured."""
        return binding_in(self._facts, equipment_id, spelling)

    def mounts(self, equipment_id: str, spelling: str) -> dict[str, Below]:
        """Return the mounts that are known directly below this root: folder → mount."""
        return mounts_in(self._facts, equipment_id, spelling)

    def root_volume(self, equipment_id: str) -> str | None:
        """Return the volume on which this equipment's root was last bound, None before the first time."""
        return dict[str, str](self._facts.get("volumes", {})).get(equipment_id)

    @property
    def hold(self) -> str | None:
        """Why nothing may be deleted until an operator has accepted the state; None when deletion is not held."""
        return hold_in(self._facts, trail_doubt=trail_doubt_in(self._facts))

    @property
    def dismissals(self) -> Mapping[str, Dismissal]:
        """Id of a problem → that an operator wants it listed no more."""
        return dismissals_in(self._facts)

    def note(self, fact: FolderFact, operator: str, at: datetime) -> None:
        """Put a line about the folder into the trail, durably. Raises: as `commit`."""
        self.commit([Entry(fact.kind, operator=operator, data=fact.data())], at=at)

    @property
    def folder_id(self) -> str:
        """What this state folder is called, whoever works in it: 32 hex."""
        found: str = self._facts["folder"]["id"]
        return found

    @property
    def head(self) -> TrailHead:
        return self._trail.head

    @property
    def position(self) -> TrailPosition:
        """The trail's last line."""
        return TrailPosition(self._trail.head.seq, self._trail.head.digest)

    def digest_at(self, seq: int) -> str | None:
        """Return the digest of the trail's line with this number, None where there is none that can be read."""
        return digest_at(self._folder, seq)

    def has_line(self, seen: TrailPosition) -> bool:
        """Return whether the trail has this line, as far as it can be read. May be called from any thread."""
        return is_in_trail(seen, head=self.position, digest_here=self.digest_at(seen.seq))

    @property
    def ahead(self) -> TrailPosition | None:
        """The furthest anchor on the NAS that was found not to fit the trail; None where there never was one."""
        found = self._facts.get("ahead")
        return None if found is None else TrailPosition(found["seq"], found["digest"])

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
        self.view = self._documents.view()
        self._lines_since_checkpoint += len(entries)

    def accept_trail(self, operator: str, reason: str, at: datetime) -> bool:
        """End the hold: the operator takes the state as it is for true. Return whether anything was in doubt."""
        doubt = trail_doubt_in(self._facts)
        if doubt is not None:
            fact = TrailAccepted(reason, doubt)
            self.commit([Entry(fact.kind, operator=operator, data=fact.data())], at=at)
        return doubt is not None

    def accept_machine(self, operator: str, reason: str, at: datetime) -> bool:
        """Be at home on this machine from now on. Return whether the folder was not before."""
        is_new = "found_on" in self._facts
        if is_new:
            fact = MachineAccepted(self.machine or self._facts["found_on"], reason)
            self.commit([Entry(fact.kind, operator=operator, data=fact.data())], at=at)
        return is_new

    def _keep_in_proportion(self) -> None:
        """Close a long segment and begin a checkpoint that is due. Raises: StoreFullError, StoreWriteError.

        Before the commit point: what fails after it would call lines untrue that are in the trail. The number of lines
        between two checkpoints grows with the number of runs, so that their cost, spread over the lines, stays flat, and a
        start replays few.
        """
        if self._writer is not None and not self._writer.is_alive():
            self._end_writer()
        if self._trail.head.end_bytes >= self._segment_bytes:
            self._rotate()
        if self._writer is None and self._lines_since_checkpoint > self._lines_between_checkpoints():
            self._writer = _SlotWriter(self._opened_slots(), *self._snapshot())
            self._lines_since_checkpoint = 0
            self._writer.start()

    def _lines_between_checkpoints(self) -> int:
        return max(self._checkpoint_lines, len(self) // 2)

    def _rotate(self) -> None:
        data: dict[str, Any] = {}

        def opening(closed: str, closed_bytes: int) -> bytes:
            data.update(opening_data(closed, closed_bytes))
            return self._body("segment_opened", json_bytes(data))

        self._trail.rotate(opening)
        note_fact(self._facts, "segment_opened", data)

    def _opened_slots(self) -> Slots:
        assert self._slots is not None, "the store is not open"
        return self._slots

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
            self._lines_since_checkpoint = self._lines_between_checkpoints() + 1
            raise errors_as_store_errors(self._folder, error) from error

    def checkpoint(self) -> None:
        """Write the documents to the next slot, so that the next start replays little. Raises: StoreFullError, StoreWriteError."""
        self._end_writer()
        try:
            self._opened_slots().write(*self._snapshot())
        except OSError as error:
            raise errors_as_store_errors(self._folder, error) from error
        self._lines_since_checkpoint = 0


def _make_private_folder(folder: Path) -> None:
    """Make the folder, durably, with those above it, for this account alone. One that is there stays as it is. Raises: OSError."""
    missing = [folder, *folder.parents]
    missing = missing[: next(number for number, path in enumerate(missing) if path.exists())]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=0o700)
        fsync_folder(path.parent)
    with suppress(PermissionError):  # A folder above that we may not read was made durable when this one was made.
        fsync_folder(folder.parent)  # Also one that exists: its maker may have been killed in between.
