"""The projection as a TinyDB for other people's scripts: what it shows, and that it changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB, where
from tinydb.table import Document

import exlab_watch_agent
from exlab_watch_agent.adapters.state.database import open_readonly
from exlab_watch_agent.adapters.state.documents import record_of
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.errors import NoStateFolderError, StateFolderError
from exlab_watch_agent.statechart import RunState
from tests.adapters.state.store_lives import NOW, a_record, everything, moved, opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with five runs in a slot, two of which have moved on since, and a sixth that only the trail knows."""
    with opened(tmp_path / "state") as store:
        store.commit([moved(a_record(number), 1) for number in range(5)], at=NOW)
        store.checkpoint()
        store.commit([moved(a_record(number, turn=1), 2) for number in (0, 1, 5)], at=NOW)
    return tmp_path / "state"


def test_runs_are_found_by_what_their_records_say_as_of_the_last_commit(folder: Path) -> None:
    runs = exlab_watch_agent.open_readonly(folder).table("runs")
    assert len(runs) == 6
    state = list(RunState)[2].value
    found = runs.search(where("state") == state)
    assert {str(run.doc_id) for run in found} == {a_record(number).job_id for number in (0, 1, 5)}
    assert runs.count(where("identity")["created_by"] == a_record(0).identity.created_by) == 6
    one: Any = runs.get(doc_id=a_record(3).job_id)  # type: ignore[call-overload]  # TinyDB types ids as int
    assert one["turn"] == 1


def test_documents_are_plain_json_with_every_member(folder: Path) -> None:
    for run in open_readonly(str(folder)).table("runs"):
        members = json.loads(json.dumps(run))
        assert members == run
        assert record_of(members).job_id == str(run.doc_id)
        assert members["next_attempt_at"] is None
        assert members["project"]


def test_the_runs_are_also_the_table_that_is_asked_without_a_name(folder: Path) -> None:
    assert len(open_readonly(folder).all()) == 6


def test_reading_beside_a_working_agent_locks_and_changes_nothing(folder: Path) -> None:
    with opened(folder) as store:
        before = everything(folder)
        names = sorted(os.listdir(folder))
        database = open_readonly(folder)
        assert (everything(folder), sorted(os.listdir(folder))) == (before, names)
        store.commit([moved(a_record(7), 1)], at=NOW)
        assert len(database.table("runs")) == 6
        assert len(open_readonly(folder).table("runs")) == 7


def test_a_folder_without_a_lock_file_gets_none(folder: Path) -> None:
    StateLayout(folder).lock.unlink(missing_ok=True)
    open_readonly(folder).close()
    assert not StateLayout(folder).lock.exists()


JOB = a_record(0).job_id
WRITES: dict[str, Callable[[TinyDB], object]] = {
    "insert": lambda db: db.table("runs").insert({"state": "verified"}),
    "insert of a document": lambda db: db.table("runs").insert(Document({"state": "verified"}, doc_id=JOB)),  # type: ignore[arg-type]
    "insert of many": lambda db: db.table("runs").insert_multiple([{"state": "verified"}]),
    "update": lambda db: db.table("runs").update({"state": "verified"}),
    "update of one": lambda db: db.table("runs").update({"state": "verified"}, doc_ids=[JOB]),  # type: ignore[list-item]
    "upsert": lambda db: db.table("runs").upsert({"state": "verified"}, where("job_id") == JOB),
    "remove": lambda db: db.table("runs").remove(where("job_id") == JOB),
    "truncate": lambda db: db.table("runs").truncate(),
    "drop of a table": lambda db: db.drop_table("runs"),
    "drop of all": lambda db: db.drop_tables(),
    "insert into another table": lambda db: db.table("mine").insert({"a": 1}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_raises_and_nothing_is_changed_on_disk_or_in_memory(
    folder: Path, write: Callable[[TinyDB], object]
) -> None:
    before = everything(folder)
    database = open_readonly(folder)
    runs = database.table("runs").all()
    with pytest.raises(StateFolderError, match="only read here"):
        write(database)
    assert database.table("runs").all() == runs
    assert everything(folder) == before
    with opened(folder) as store:
        assert isinstance(store, RunStore)
        assert len(store) == 6


def test_a_folder_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NoStateFolderError, match="no agent has worked"):
        open_readonly(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
