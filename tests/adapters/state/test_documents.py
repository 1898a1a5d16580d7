"""The documents in memory, and the views of them that other threads read: each is whole and never changes."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest

from exlab_watch_agent.adapters.state.documents import RECENT_MAX, Documents, document_line, record_json, record_of
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


@pytest.mark.parametrize("is_recent", [True, False], ids=["recent", "not recent"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_view_stays_what_it_was_and_the_next_one_has_the_change(change: dict[str, Any], is_recent: bool) -> None:
    documents, after = Documents(), replace(RECORD, **change)
    put(documents, RECORD)
    if not is_recent:
        for number in range(RECENT_MAX):
            put(documents, a_record(number + 100))
    others = a_record(2, identity=RECORD.identity, state=RECORD.state)
    put(documents, others)
    view = documents.view()
    put(documents, after)
    for found, expected in ((view, RECORD), (documents.view(), after)):
        assert (found.get(RECORD.job_id), found.at(expected.run_path)) == (expected, expected)
        assert found.state_at(expected.run_path) is expected.state
        assert found.at(others.run_path) == others
    if after.run_path != RECORD.run_path:
        assert (view.at(after.run_path), documents.view().at(RECORD.run_path)) == (None, None)
    assert documents.record(RECORD.job_id) == after
    assert {*documents.of_identity(after.identity)} >= {RECORD.job_id}
    assert documents.ids_in((after.state,), after.equipment_id).count(RECORD.job_id) == 1
    assert sum(documents.counts().values()) == len(documents) == len(list(documents.records()))


def test_documents_are_told_in_the_order_in_which_they_came_whatever_changed_since() -> None:
    documents = Documents()
    for number in range(40):
        documents.take_line(document_line((1, number), record_json(a_record(number))))
    for number in (*range(40, 80), 7, 3, 55, 41):
        put(documents, replace(a_record(number), state=RunState.QUEUED))
    assert list(documents) == [a_record(number).job_id for number in range(80)]
    assert [record.job_id for record in documents.records()] == list(documents)


def test_a_view_that_another_thread_goes_on_reading_is_whole_while_runs_are_put_again_and_again() -> None:
    documents = Documents()
    records = [replace(RECORD, state=state) for state in (RunState.QUEUED, RunState.RUNNING)]
    put(documents, records[0])
    views = [documents.view()]
    is_over = threading.Event()
    wrong: list[Any] = []
    read = 0

    def look() -> None:
        nonlocal read
        while not is_over.is_set():
            view = views[-1]
            found = view.at(RECORD.run_path)
            if found not in records or view.state_at(RECORD.run_path) is not found.state:
                wrong.append(found)
            read += 1

    reader = threading.Thread(target=look)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reader.start()
        for number in range(5_000):
            put(documents, records[number % 2])
            views.append(documents.view())
    finally:
        is_over.set()
        reader.join()
        sys.setswitchinterval(interval_s)
    assert read > 10
    assert wrong == []


def test_the_signature_of_a_creation_json_is_three_numbers_on_disk() -> None:
    record = replace(RECORD, creation_signature=FileSignature(mtime_ns=3, size_bytes=2, inode=1))
    assert b'"creation_signature":[3,2,1]' in record_json(record)
    assert record_of(json.loads(record_json(record))) == record
