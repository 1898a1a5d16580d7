"""The documents in memory while another thread reads them: what is known is never missing, however short the moment."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from exlab_watch_agent.adapters.state import documents as documents_module
from exlab_watch_agent.adapters.state.documents import RECENT_MAX, Documents, record_json, record_of
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.statechart import RunState
from tests.adapters.state.store_lives import LOCAL, a_record

RECORD = a_record(1, state=RunState.QUEUED)
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "the state": {"state": RunState.RUNNING},
    "the path": {"run_path": f"{LOCAL}/elsewhere"},
    "the identity": {"identity": replace(RECORD.identity, created_by="bjones")},
    "the equipment": {"equipment_id": "SCOPE_02"},
}


def put(documents: Documents, record: RunRecord) -> None:
    documents.put(record, record_json(record), (1, 42))


@contextmanager
def at_every_instant(do: Callable[[], None]) -> Iterator[None]:
    """Call `do` before each bytecode of the module that this thread runs: where another thread may take over."""

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != documents_module.__file__:
            return None
        frame.f_trace_opcodes = True
        do()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("is_recent", [True, False], ids=["recent", "not recent"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_known_run_is_missing_at_no_instant_of_a_put(change: dict[str, Any], is_recent: bool) -> None:
    documents, after = Documents(), replace(RECORD, **change)
    put(documents, RECORD)
    if not is_recent:
        for number in range(RECENT_MAX):
            put(documents, a_record(number + 100))
    others = a_record(2, identity=RECORD.identity, state=RECORD.state)
    put(documents, others)
    looks: list[tuple[bool, bool, bool]] = []

    def look() -> None:
        found = documents.record(RECORD.job_id)
        job_ids = {documents.at_path(record.run_path) for record in (RECORD, after)}
        twins = {*documents.of_identity(RECORD.identity), *documents.of_identity(after.identity)}
        looks.append(
            (
                found in (RECORD, after) and documents.state_of(RECORD.job_id) in (RECORD.state, after.state),
                RECORD.job_id in job_ids and RECORD in map(restored, documents.records()),
                twins >= {RECORD.job_id, others.job_id},
            )
        )

    def restored(record: RunRecord) -> RunRecord:
        return RECORD if record == after else record

    with at_every_instant(look):
        put(documents, after)
        put(documents, RECORD)
    assert len(looks) > 50
    assert set(looks) == {(True, True, True)}


def test_a_reader_in_another_thread_finds_a_run_that_is_put_again_and_again_in_one_state_and_counted_once() -> None:
    documents = Documents()
    states = (RunState.QUEUED, RunState.RUNNING)
    records = [replace(RECORD, state=state) for state in states]
    put(documents, records[0])
    is_over = threading.Event()
    missed: dict[str, int] = {}
    read = 0

    def look() -> None:
        nonlocal read
        while not is_over.is_set():
            found = {
                "path": documents.at_path(RECORD.run_path) == RECORD.job_id,
                "record": documents.record(RECORD.job_id) in records,
                "state": documents.state_of(RECORD.job_id) in states,
                "identity": documents.of_identity(RECORD.identity) == (RECORD.job_id,),
                "ids in states": documents.ids_in(states) == (RECORD.job_id,),
                "paths in states": documents.paths_in(states) == (RECORD.run_path,),
                "counts": sum(documents.counts().values()) == 1,
            }
            read += 1
            for what, is_there in found.items():
                if not is_there:
                    missed[what] = missed.get(what, 0) + 1

    reader = threading.Thread(target=look)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reader.start()
        for number in range(20_000):
            put(documents, records[number % 2])
    finally:
        is_over.set()
        reader.join()
        sys.setswitchinterval(interval_s)
    assert read > 100
    assert missed == {}


def test_the_signature_of_a_creation_json_is_three_numbers_on_disk() -> None:
    record = replace(RECORD, creation_signature=FileSignature(mtime_ns=3, size_bytes=2, inode=1))
    assert b'"creation_signature":[3,2,1]' in record_json(record)
    assert record_of(json.loads(record_json(record))) == record
