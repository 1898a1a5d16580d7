"""Any sequence of commits, checkpoints, new segments, crashes and damaged slots against a plain dict."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exlab_watch_agent.adapters.state.layout import SLOT_NAMES, TRAIL_NAME
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.ports import Entry
from tests.adapters.state.store_lives import (
    LOCAL,
    NOW,
    State,
    a_record,
    assert_whole,
    let_go,
    moved,
    state_of,
    with_entries,
)


class AnyLife(RuleBasedStateMachine):
    """The store against a plain dict."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for name in ("fsync", "fdatasync"):  # no power is cut here
            self.patch.setattr(os, name, lambda _: None)
        self.folder = Path(tempfile.mkdtemp(prefix="exlab-store-"))
        self.model: State = {}
        self.markers: dict[str, str] = {}
        self.is_held = False
        self.open()

    def open(self) -> None:
        self.store = RunStore(self.folder, segment_bytes=5000, checkpoint_lines=9)
        self.store.open()

    def entry(self, run: int, path: int, is_move: bool) -> Entry:
        record = self.model.get(a_record(run).job_id, (a_record(run), ()))[0]
        record = replace(record, run_path=f"{LOCAL}/run {run} at {path}")
        return moved(record, record.turn + 1) if is_move else Entry("moved", replace(record, attempts=path))

    @rule(work=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=4))
    def commit(self, work: list[tuple[int, int, bool]]) -> None:
        entries: list[Entry] = []
        for run, path, is_move in work:
            entries.append(self.entry(run, path, is_move))
            self.model = with_entries(self.model, entries[-1:])
        self.store.commit(entries, at=NOW)

    @rule(root=st.sampled_from("ab"), marker_id=st.sampled_from("xyz"))
    def bind(self, root: str, marker_id: str) -> None:
        self.store.commit([Entry("destination_bound", data={"root": f"{root} nas", "marker_id": marker_id})], at=NOW)
        self.markers[root] = marker_id

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()

    @rule()
    def begin_a_segment(self) -> None:
        self.store._rotate()

    @rule(is_checkpointed=st.booleans())
    def restart(self, is_checkpointed: bool) -> None:
        if is_checkpointed:
            self.store.checkpoint()
        self.store.close()
        self.open()
        assert self.store.notices == ()

    @rule(torn=st.binary(max_size=30).filter(lambda data: b"\n" not in data))
    def crash(self, torn: bytes) -> None:
        let_go(self.store)
        with (self.folder / TRAIL_NAME).open("ab") as trail:
            trail.write(torn)
        self.open()
        assert len(self.store.notices) == bool(torn)

    @rule(which=st.sampled_from([(0,), (1,), (0, 1)]), content=st.sampled_from([None, b"", b"null", b"{}\n{}"]))
    def lose_slots(self, which: tuple[int, ...], content: bytes | None) -> None:
        let_go(self.store)
        there = [self.folder / name for name in SLOT_NAMES if (self.folder / name).exists()]
        damaged = [slot for slot in (self.folder / SLOT_NAMES[index] for index in which) if slot in there]
        for slot in damaged:
            if content is None:
                slot.unlink()
            else:
                slot.write_bytes(content)
        # A trail of one line has nothing that a slot could have vouched for.
        is_all = len(damaged) == len(there) and (content is not None or self.store.head.seq > 1)
        self.open()
        self.is_held |= is_all
        assert bool(self.store.notices) == (is_all or (content is not None and bool(damaged)))

    @rule()
    def accept(self) -> None:
        self.store.accept_trail("asmith", "looked at", NOW)
        self.is_held = False

    @invariant()
    def holds(self) -> None:
        assert state_of(self.store) == self.model
        assert len(self.store) == len(self.model)
        assert sum(self.store.counts().values()) == len(self.model)
        assert (self.store.hold is not None) == self.is_held
        assert {root: found.marker_id for root in "ab" if (found := self.store.binding(root, "nas"))} == self.markers
        for record, _ in self.model.values():
            assert self.store.by_path(record.run_path) == record
            assert self.store.by_identity(record.identity) == (record,)
            assert record.job_id in self.store.ids_in([record.state], record.equipment_id)
        known = {record.run_path for record, _ in self.model.values()}
        for path in {f"{LOCAL}/run {run} at {path}" for run in range(4) for path in range(3)} - known:
            assert self.store.by_path(path) is None

    def teardown(self) -> None:
        self.store.checkpoint()
        self.store.close()
        assert_whole(self.folder)
        self.patch.undo()
        shutil.rmtree(self.folder)


AnyLife.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
test_any_life_of_a_store_is_that_of_a_dict = AnyLife.TestCase
