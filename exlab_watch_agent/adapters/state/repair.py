"""Brings a state folder in order before the store works in it: what a stop left, what is damaged, what is not begun yet.

What was found, and which of it counts, was decided by reading (recovery.py). Decided here: in which steps the folder gets
there, so that a stop between any two of them is repaired in the same way at the next start, and no old byte is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from exlab_watch_agent.adapters.local.durable import fsync_folder, write_atomically
from exlab_watch_agent.adapters.state.documents import json_bytes, place_json, record_json
from exlab_watch_agent.adapters.state.folder_facts import note_fact
from exlab_watch_agent.adapters.state.layout import EVIDENCE_NAME, TRAIL_NAME, StateLayout, closed_name
from exlab_watch_agent.adapters.state.recovery import Loaded
from exlab_watch_agent.adapters.state.segments import TrailHead, live_path
from exlab_watch_agent.adapters.state.trail import Batch, close_live, opening_data, place_next, put_next_in_place
from exlab_watch_agent.core.facts import FolderNamed

LineBody = Callable[[str, bytes, bytes], bytes]
"""From a line's kind, its data as JSON and its further members: the members of the line (see `trail.fact_body`)."""


class Repair:
    """Brings one folder in order with what was read of it; changes `loaded` along with it.

    `named`: what a folder is called whose trail begins now.
    """

    def __init__(self, loaded: Loaded, body: LineBody, named: FolderNamed) -> None:
        self._loaded = loaded
        self._folder = loaded.folder
        self._layout = StateLayout(loaded.folder)
        self._body = body
        self._named = named

    def run(self) -> None:
        """Set damage aside, finish what was begun, and begin the trail where there is none. May be repeated after a stop.

        Raises: OSError, StoreWriteError.
        """
        for path in self._loaded.damaged_slots:
            self._set_aside(path)
        self._finish_rotation()
        if self._loaded.damage:
            self._go_on_after_damage()
        elif self._loaded.torn_at is not None:
            self._cut_torn_tail()
        if not self._loaded.head.seq:
            self._begin_trail()

    def _finish_rotation(self) -> None:
        """Finish what a stop left of going on in the next segment, or forget it where it had not begun."""
        if live_path(self._folder) == self._layout.next_trail:
            put_next_in_place(self._folder)
        else:
            self._layout.next_trail.unlink(missing_ok=True)

    def _begin_trail(self) -> None:
        data = {**opening_data(None, 0), **self._named.data()}
        batch = Batch(TrailHead(), 0)
        batch.add(self._body("segment_opened", json_bytes(data), b""))
        write_atomically(self._layout.trail, b"".join(batch.data), mode=0o600)
        note_fact(self._loaded.facts, "segment_opened", data)
        self._loaded.head = batch.head

    def _go_on_after_damage(self) -> None:
        """Go on in a new segment that says what was found, with deletion on hold; leave every old byte as it is.

        The new segment chains on the last line that counts, and repeats the records whose lines are lost: from here on
        the trail has everything again. It appears whole or not at all, so a stop in the middle repeats this.
        """
        loaded = self._loaded
        segments = {segment.path.name: segment.size_bytes for segment in loaded.segments if not segment.is_live}
        closing = loaded.segments[-1] if loaded.segments and loaded.segments[-1].is_live else None
        if closing is not None:
            self._keep_copy(closing.path)
            segments[closed_name(closing.first_seq)] = closing.size_bytes
        elif self._layout.trail.exists():
            self._set_aside(self._layout.trail)
        data = opening_data(None, 0) | {"found": loaded.trail_doubt, "segments": segments}
        batch = Batch(TrailHead(loaded.end_seq, loaded.head.digest, loaded.end_seq + 1, 0), 0)
        batch.add(self._body("trail_damaged", json_bytes(data), b""))
        for job_id in loaded.unsupported():
            record = loaded.documents.record(job_id)
            assert record is not None, "it is one of the documents"
            dumped, place = record_json(record), batch.next_place
            rest = b',"before":%b,"record":%b' % (place_json(loaded.documents.last(job_id)), dumped)
            batch.add(self._body("run_restored", b"{}", rest))
            loaded.documents.put(record, dumped, place)
        place_next(self._folder, batch.data)
        if closing is not None:
            close_live(self._folder, closing.first_seq)
        put_next_in_place(self._folder)
        note_fact(loaded.facts, "trail_damaged", data)
        loaded.head = batch.head
        loaded.notices += [*loaded.damage, "Nothing is deleted until an operator has accepted the state."]

    def _cut_torn_tail(self) -> None:
        """Keep what a crash left of an unacknowledged commit as evidence, then cut it off, and say so."""
        end_bytes = self._loaded.head.end_bytes
        with self._layout.trail.open("r+b") as file:
            file.seek(end_bytes)
            torn = file.read()
            # By content: after a stop before the cut the same file is written again, and no other is ever replaced.
            name = f"torn-after-{self._loaded.head.seq}-{blake3(torn).hexdigest()[:8]}.bin"
            write_atomically(self._evidence() / name, torn, mode=0o600)
            file.truncate(end_bytes)
            file.flush()
            os.fsync(file.fileno())
        self._loaded.notices.append(
            f"{TRAIL_NAME} ended in {len(torn)} bytes of a commit that was never acknowledged; "
            f"they were moved to {EVIDENCE_NAME}/{name}."
        )

    # --- evidence ----------------------------------------------------------------------------------------------------

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

    def _evidence(self) -> Path:
        evidence = self._layout.evidence
        evidence.mkdir(exist_ok=True, mode=0o700)
        fsync_folder(self._folder)
        return evidence
