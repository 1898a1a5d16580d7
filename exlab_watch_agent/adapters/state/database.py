"""The projection as a TinyDB that can only be read: for other people's scripts, beside a running agent or without one.

```python
from tinydb import where
from exlab_watch_agent import open_readonly

runs = open_readonly("/var/lib/exlab-watch-agent").table("runs")
for run in runs.search(where("state") == "failed"):
    print(run["run_path"], run["last_error"])
```

What is shown is the moment of opening: the newest good slot and the trail's lines after it. Nothing is locked, made or
changed, and whatever TinyDB offers for changing raises. The store itself works on the same documents (store.py), where a
change is a line of the trail first; a change made here would be in no history.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Table

from exlab_watch_agent.adapters.state.recovery import load
from exlab_watch_agent.errors import NoStateFolderError, StateFolderError

RUNS = "runs"


class _Moment(Storage):
    """Implements tinydb.Storage over what was read once."""

    def __init__(self, tables: Mapping[str, dict[str, Any]]) -> None:
        self._tables = tables

    def read(self) -> dict[str, dict[str, Any]]:
        return dict(self._tables)

    def write(self, data: dict[str, dict[str, Any]]) -> NoReturn:  # noqa: ARG002
        _refuse()


class _ReadOnlyTable(Table):
    """A table whose document ids are texts, and which refuses before it has changed anything in memory."""

    document_id_class = str  # type: ignore[assignment]  # TinyDB types it as int and supports any

    def _get_next_id(self) -> NoReturn:
        _refuse()

    def _update_table(self, updater: Callable[[Any], None]) -> NoReturn:  # noqa: ARG002
        _refuse()


class _ReadOnlyDatabase(TinyDB):
    table_class = _ReadOnlyTable
    default_table_name = RUNS


def open_readonly(state_dir: str | os.PathLike[str]) -> TinyDB:
    """Return the runs of a state folder as they are now, in the table `runs`: job id → the record's members.

    Every member is there, as JSON values: times are texts, what is not known is None or empty.
    Raises: NoStateFolderError when there is no such folder; StateFolderError when it cannot be read, or another version
    wrote what is in it. Every attempt to change something raises StateFolderError.
    """
    folder = Path(state_dir)
    if not folder.exists():
        raise NoStateFolderError(f"There is no state folder at {folder}: no agent has worked with it yet.")
    return _ReadOnlyDatabase({RUNS: load(folder).documents.members()}, storage=_Moment)


def _refuse() -> NoReturn:
    raise StateFolderError("The state folder is only read here: runs are changed by the agent's commands.")
