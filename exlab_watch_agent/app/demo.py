"""The world of the demo: an instrument, an operator, and a NAS that loses the end of a file it has acknowledged.

Nothing of the agent is staged: the same engine, watcher, transport and files as in a laboratory. What is shown of it is
cli/demo.py's.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.config.load import load_settings
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, MANIFEST_FILE, FileEntry
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.ports import Control, Transport

EQUIPMENT = "CONFOCAL_01"
PROJECT = "PROJ-0042 Cortex pilot"
SENTINEL = "acquisition_complete.flag"
SETTLE_S = 1
LOST_BYTES = 100_000

CONFIG = """\
equipment:
  - id: {equipment}
    label: Confocal Microscope 1
    local_root: {local}
    nas_root: {nas}
    completeness_signal: sentinel_file
    sentinel_filename: {sentinel}
    transport: {{type: mounted_path, path: {nas}}}
agent:
  state_dir: {state}
  settle_seconds: {settle}
"""


class ForgetfulNas(Destination):
    """A NAS that loses, once and for this run, the end of the largest file that it has acknowledged."""

    def __init__(self, root: str, leaf: str) -> None:
        super().__init__(MountedFarSide(root))
        self._leaf = leaf
        self._has_forgotten = False

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        super().copy(source_root, files, destination, control=control)
        if destination.endswith(self._leaf) and not self._has_forgotten:
            self._has_forgotten = True
            largest = max(files, key=lambda entry: entry.size_bytes)
            path = os.path.join(self.describe(), destination, largest.path)
            os.truncate(path, largest.size_bytes - LOST_BYTES)
            os.utime(path, ns=(largest.mtime_ns, largest.mtime_ns))


class World:
    """An instrument PC, a NAS folder and a state folder below one folder, which must be there and empty."""

    def __init__(self, home: Path) -> None:
        self.config = home / "config.yaml"
        self.local = home / "instrument-pc" / EQUIPMENT
        self.nas = home / "nas" / EQUIPMENT
        self._state = home / "state"
        self._runs = self.local / PROJECT / "Runs"
        self.clock = SystemClock()
        self._runs.mkdir(parents=True)
        self.nas.mkdir(parents=True)
        places = {"local": self.local.parent, "nas": self.nas, "state": self._state}
        quoted = {name: json.dumps(str(path)) for name, path in places.items()}
        text = CONFIG.format(equipment=EQUIPMENT, sentinel=SENTINEL, settle=SETTLE_S, **quoted)
        self.config.write_text(text, encoding="utf-8")

    @contextmanager
    def agent_at_work(self, on_move: Callable[[RunRecord, Move], None], *, forgets: str) -> Iterator[None]:
        """Have an agent at work beside the block, whose NAS forgets the end of a file of the run with the leaf `forgets`."""

        def transport(_equipment: EquipmentPolicy) -> Transport:
            return ForgetfulNas(str(self.nas), forgets)

        agent = Agent(load_settings(self.config), on_move=on_move, transport_factory=transport)
        agent.open()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                agent.run()
            except BaseException as error:  # noqa: BLE001 - handed to the teller, who raises it
                failures.append(error)

        thread = threading.Thread(target=run, name="demo-agent")
        try:
            agent.bind(EQUIPMENT, "demo")  # as `exlab-watch-agent bind` would: nothing shows that this folder is a NAS
            thread.start()
            yield
        finally:
            agent.stop()
            if thread.ident is not None:
                thread.join()
            agent.close()
        if failures:
            raise failures[0]

    def begin_run(self, leaf: str) -> Path:
        """Do what ExLab-Wizard does: make the run folder with its creation.json."""
        run = self._runs / leaf
        (run / CACHE_FOLDER).mkdir(parents=True)
        document: dict[str, Any] = {
            "schema_version": "1.8",
            "created_at": utc_text(self.clock.now()),
            "created_by": "asmith",
            "level": "run",
            "run_kind": "experimental",
            "lims_project": {"uid": "8c7e0a52", "short_id": "PROJ-0042", "name_at_creation": "Cortex pilot"},
            "paths": {"local": str(run), "nas": f"//nas01/lab/{EQUIPMENT}/{PROJECT}/Runs/{leaf}"},
            "sync_status": "pending",
            "validation_overrides": [],
        }
        (run / CACHE_FOLDER / CREATION_FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")
        return run

    def override(self, run: Path, problem_class: str, reason: str) -> None:
        """Do what an operator does who lets a run through."""
        override = {
            "id": str(uuid.uuid4()),
            "problem_class": problem_class,
            "operator": "demo",
            "recorded_at": utc_text(self.clock.now()),
            "expires_at": None,
            "reason": reason,
            "revoked": False,
        }
        JsonCreationFiles().append_override(str(run), override)

    def moved_aside(self, name: str) -> list[Path]:
        """Return the files of this name that were moved aside on the NAS."""
        return sorted((self.nas / ".exlab-superseded").rglob(name))

    def is_copied(self, run: Path) -> bool:
        """Return whether every data file is on both sides and equal, hashed here by the simplest means."""
        digests = _digests(run)
        return digests == _digests(self.copy_of(run)) and bool(digests)

    def copy_of(self, run: Path) -> Path:
        return self.nas / run.relative_to(self.local)

    def status_at_nas(self, run: Path) -> str:
        """Return the sync_status that the copy's creation.json has."""
        text = (self.copy_of(run) / CACHE_FOLDER / CREATION_FILE).read_text(encoding="utf-8")
        return str(json.loads(text)["sync_status"])

    def manifest_lines(self, run: Path) -> int:
        return (self.copy_of(run) / CACHE_FOLDER / MANIFEST_FILE).read_text(encoding="utf-8").count("\n")

    def trail_lines(self) -> int:
        return StateLayout(self._state).trail.read_text(encoding="utf-8").count("\n")


def _digests(run: Path) -> dict[str, str]:
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and CACHE_FOLDER not in path.parts
    }
