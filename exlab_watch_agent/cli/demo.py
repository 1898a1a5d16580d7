"""`demo`: the real agent on a sample instrument tree and a NAS folder, told as a story.

Nothing of the agent is staged: the same engine, watcher, transport and files as in a laboratory. The demo plays only
the world around it: the instrument, the operator, and a NAS that loses the end of a file it has acknowledged.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.clock import SystemClock, utc_text
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.transports.mounted.transport import MountedPathTransport
from exlab_watch_agent.app.agent import Agent, make_transport
from exlab_watch_agent.config.load import load_settings
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, MANIFEST_FILE, FileEntry
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.ports import Control, Transport
from exlab_watch_agent.statechart import RunState

EQUIPMENT = "CONFOCAL_01"
PROJECT = "PROJ-0042 Cortex pilot"
SENTINEL = "acquisition_complete.flag"
SETTLE_S = 1
STEP_WAIT_S = 60.0
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


class ForgetfulNas(MountedPathTransport):
    """The NAS of the third story: once, it loses the end of the largest file that it has acknowledged."""

    def __init__(self, root: str, leaf: str) -> None:
        super().__init__(root)
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


def tell(keep: Path | None) -> int:
    """Tell the story in a temporary folder, or in `keep`, which must be new; return the exit code."""
    if keep is not None:
        home = keep.expanduser().absolute()
        if home.exists():
            raise ConfigError(f"{home} exists: the demo only builds in a new folder.")
        home.mkdir(parents=True)
        return _Story(home).tell()
    home = Path(tempfile.mkdtemp(prefix="exlab-demo-"))
    try:
        return _Story(home).tell()
    finally:
        shutil.rmtree(home)


class _Story:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._local = home / "instrument-pc"
        self._nas = home / "nas" / EQUIPMENT
        self._state = home / "state"
        self._runs = self._local / EQUIPMENT / PROJECT / "Runs"
        self._changed = threading.Condition()
        self._records: dict[str, RunRecord] = {}
        self._clock = SystemClock()
        self._began_s = self._clock.monotonic_s()

    def tell(self) -> int:
        self._runs.mkdir(parents=True)
        self._nas.mkdir(parents=True)
        config = self._home / "config.yaml"
        config.write_text(self._config(), encoding="utf-8")
        self._say("An instrument PC, a NAS folder, and the agent between them.")
        self._say(f"  instrument  {self._local / EQUIPMENT}")
        self._say(f"  NAS         {self._nas}")
        partial_leaf = "Run_2026-04-17T16-45"
        settings = load_settings(config)

        def transport(equipment: EquipmentPolicy) -> Transport:
            honest = make_transport(equipment, settings.policy())
            return ForgetfulNas(honest.describe(), partial_leaf)

        agent = Agent(settings, on_move=self._on_move, transport_factory=transport)
        agent.open()
        agent.bind(EQUIPMENT, "demo")  # as `exlab-watch-agent bind` would: nothing shows that this folder is a NAS
        failures: list[BaseException] = []

        def run() -> None:
            try:
                agent.run()
            except BaseException as error:  # noqa: BLE001 - handed to the teller, who raises it
                failures.append(error)

        thread = threading.Thread(target=run, name="demo-agent")
        thread.start()
        try:
            clean = self._tell_clean("Run_2026-04-17T14-32")
            blocked = self._tell_blocked("Run_2026-04-17T15-10")
            partial = self._tell_partial(partial_leaf)
        finally:
            agent.stop()
            thread.join()
            agent.close()
        if failures:
            raise failures[0]
        return self._tell_end([clean, blocked, partial])

    # --- the three stories -------------------------------------------------------------------------------------------

    def _tell_clean(self, leaf: str) -> Path:
        self._chapter("1. A clean run")
        run = self._begin_run(leaf)
        self._say("The instrument writes three images. The agent knows the run from its creation.json and waits:")
        for number in range(3):
            (run / f"image_{number:03d}.tif").write_bytes(secrets.token_bytes(700_000))
        self._await(run, RunState.ACQUIRING)
        self._say(f"The instrument is done and says so with {SENTINEL}. {SETTLE_S} s of quiet, then:")
        (run / SENTINEL).touch()
        self._await(run, RunState.VERIFIED)
        return run

    def _tell_blocked(self, leaf: str) -> Path:
        self._chapter("2. A run that breaks the path rules")
        run = self._begin_run(leaf)
        self._say("Somebody left a template's placeholder in a file name:")
        (run / "scan_<sample_id>.dat").write_bytes(secrets.token_bytes(200_000))
        (run / SENTINEL).touch()
        self._await(run, RunState.BLOCKED)
        self._say("Nothing was copied. The operator decides that the name may stay, in creation.json or by the command")
        self._say(f"  exlab-watch-agent override add {leaf} --class unresolved_placeholder_token --reason ...")
        override = {
            "id": str(uuid.uuid4()),
            "problem_class": "unresolved_placeholder_token",
            "operator": "demo",
            "recorded_at": utc_text(self._clock.now()),
            "expires_at": None,
            "reason": "the sample has no id",
            "revoked": False,
        }
        JsonCreationFiles().append_override(str(run), override)
        self._await(run, RunState.VERIFIED)
        return run

    def _tell_partial(self, leaf: str) -> Path:
        self._chapter("3. A copy that is not whole")
        self._say("This time the NAS loses the end of a file after it has said that all is well.")
        run = self._begin_run(leaf)
        (run / "raw").mkdir()
        (run / "raw" / "stack.bin").write_bytes(secrets.token_bytes(3_000_000))
        (run / "notes.txt").write_text("z-stack, 63x oil\n", encoding="utf-8")
        (run / SENTINEL).touch()
        self._await(run, RunState.VERIFIED)
        superseded = sorted((self._nas / ".exlab-superseded").rglob("stack.bin"))
        self._say("The damaged file was not destroyed, it was moved aside:")
        for path in superseded:
            self._say(f"  {path.relative_to(self._nas)} ({path.stat().st_size} bytes)")
        return run

    def _tell_end(self, runs: list[Path]) -> int:
        self._chapter("What is there now")
        is_equal = True
        for run in runs:
            copy = self._nas / run.relative_to(self._local / EQUIPMENT)
            same = _digests(run) == _digests(copy) and bool(_digests(run))
            is_equal &= same
            status = json.loads((copy / CACHE_FOLDER / CREATION_FILE).read_text(encoding="utf-8"))["sync_status"]
            lines = (copy / CACHE_FOLDER / MANIFEST_FILE).read_text(encoding="utf-8").count("\n")
            word = "equal" if same else "DIFFERENT"
            self._say(f"  {run.name}: hashed once more by this story, not by the agent: {word};")
            self._say(f"      the NAS copy says {status!r} and carries a manifest of {lines} files")
        lines = (self._state / "audit.jsonl").read_text(encoding="utf-8").count("\n")
        self._say(f"  {lines} facts stand in the audit trail, each chained to the one before.")
        self._say("")
        if self._home.name.startswith("exlab-demo-"):
            self._say("The folder is removed now; `demo --keep DIR` leaves it for you to look at.")
        else:
            self._say(f"Look around: exlab-watch-agent status --config {self._home / 'config.yaml'}")
        return ExitCode.FINE if is_equal else ExitCode.FAILED

    # --- the world ---------------------------------------------------------------------------------------------------

    def _config(self) -> str:
        quoted = {
            name: json.dumps(str(path))
            for name, path in (("local", self._local), ("nas", self._nas), ("state", self._state))
        }
        return CONFIG.format(equipment=EQUIPMENT, sentinel=SENTINEL, settle=SETTLE_S, **quoted)

    def _begin_run(self, leaf: str) -> Path:
        """Do what ExLab-Wizard does: make the run folder with its creation.json."""
        run = self._runs / leaf
        (run / CACHE_FOLDER).mkdir(parents=True)
        document: dict[str, Any] = {
            "schema_version": "1.8",
            "created_at": utc_text(self._clock.now()),
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

    # --- telling -----------------------------------------------------------------------------------------------------

    def _on_move(self, record: RunRecord, move: Move) -> None:
        with self._changed:
            self._records[record.run_path] = record
            source = move.source.value if move.source is not None else "new"
            seconds = self._clock.monotonic_s() - self._began_s
            self._say(f"  {seconds:6.2f} s  {source:>15} -> {move.dest.value:<15} {_short(move.reason)}")
            self._changed.notify_all()

    def _await(self, run: Path, state: RunState) -> None:
        def has_arrived() -> bool:
            record = self._records.get(str(run))
            return record is not None and record.state is state

        with self._changed:
            if not self._changed.wait_for(has_arrived, timeout=STEP_WAIT_S):
                raise AgentError(f"{run} did not become {state} in {STEP_WAIT_S:g} s: the demo ends here.")

    def _chapter(self, title: str) -> None:
        self._say("")
        self._say(title)

    @staticmethod
    def _say(text: str) -> None:
        print(text)
        sys.stdout.flush()


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"


def _digests(run: Path) -> dict[str, str]:
    """Return path → SHA-256 of every data file, by the simplest means."""
    is_data: Callable[[Path], bool] = lambda path: path.is_file() and CACHE_FOLDER not in path.parts  # noqa: E731
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if is_data(path)
    }
