"""What the present code leaves for others beside its records: requests, answers, the live view, claims, markers, holders.

Shared by the generator of the kept files and by the tests that hold today's writers against them.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from filelock import FileLock
from rpds import HashTrieMap

from exlab_watch_agent.acts.carry_out import carry_out
from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.root_lock import LOCK_NAME as ROOT_LOCK_NAME
from exlab_watch_agent.adapters.local.root_lock import EquipmentRootLock
from exlab_watch_agent.adapters.state import holder
from exlab_watch_agent.adapters.state.inbox import Inbox, send_request
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.transports.shared.own_files import claim_text, marker_text
from exlab_watch_agent.adapters.watching.keeper import Health
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.watching import Watching
from exlab_watch_agent.cli.main import app
from exlab_watch_agent.config.load import settings_from_mapping
from exlab_watch_agent.core.claim import DestinationLook
from exlab_watch_agent.core.commands import command_of
from exlab_watch_agent.core.decide import claim_of, work_effect
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import Precheck, Seal
from exlab_watch_agent.core.events import Sealed
from exlab_watch_agent.core.gate import Finding, OffendingKind, Rule
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileSignature, Inventory
from exlab_watch_agent.core.link import Away
from exlab_watch_agent.core.passes import UNKNOWN_UPTIME
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget, Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.root import Doubted
from exlab_watch_agent.core.snapshot import FolderProblem, Note
from exlab_watch_agent.engine.errands import UnderWay
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.messages import CommandGiven
from exlab_watch_agent.engine.views import EngineView, RunView, Told, lane_now
from exlab_watch_agent.errors import RootUnavailableError, Wait
from exlab_watch_agent.ports import AgentSelf, Control, CreationText, Ports, Progress, SavedCreation
from exlab_watch_agent.statechart import RunState

HOST = "lab-pc-1"
LAB, NAS, STATE = "/data/lab", "/mnt/nas", "/var/lib/exlab-watch-agent"
EQUIPMENT = ("SCOPE_01", "SENTINEL_02", "WIN_03")
MARKER_ID = "0f" * 16
AT = datetime(2026, 4, 19, 9, 30, tzinfo=UTC)
PID = 4711


@contextmanager
def fixed(now: Callable[[], datetime]) -> Iterator[None]:
    """Have every part of the package take this for the wall clock, and `lab-pc-1` for the machine."""
    with (
        mock.patch.object(SystemClock, "now", side_effect=now),
        mock.patch.object(socket, "gethostname", return_value=HOST),
    ):
        yield


def shape_of(value: Any) -> Any:
    """Return the value with a type's name in place of each scalar: what a reader counts on, whatever is said."""
    if isinstance(value, dict):
        return {key: shape_of(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [shape_of(member) for member in value]
    return type(value).__name__


# --- requests ----------------------------------------------------------------------------------------------------------


def _config(folder: Path) -> Path:
    """Write a config whose instruments stand in `folder/lab`, and whose destinations in `folder/nas`; return its path."""
    for equipment_id in EQUIPMENT:
        (folder / "lab" / equipment_id).mkdir(parents=True)
        (folder / "nas" / equipment_id).mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(json.dumps(_settings_of(f"{folder}/lab", f"{folder}/nas", f"{folder}/other-state")))
    return path


def _settings_of(lab: str, nas: str, state: str) -> dict[str, Any]:
    equipment = [
        {
            "id": equipment_id,
            "local_root": lab,
            "completeness_signal": "creation_json",
            "transport": {"type": "mounted_path", "path": f"{nas}/{equipment_id}"},
        }
        for equipment_id in EQUIPMENT
    ]
    return {"equipment": equipment, "agent": {"state_dir": state}}


def requests_left(
    state_dir: Path, scratch: Path, commands: Sequence[Sequence[str]]
) -> list[tuple[str, dict[str, Any]]]:
    """Give each command to the command line while an agent seems to run; return name and content of what it left.

    `state_dir`: a copy that may be changed. A word `{lab}` in a command stands for the folder of the instruments. In what
    is returned that folder is called `/data/lab`.
    """
    config = _config(scratch)
    (scratch / "lab/SCOPE_01/P-42/Runs/Run_2026-04-20T08-00").mkdir(parents=True)
    left: list[tuple[str, dict[str, Any]]] = []
    inbox = Inbox(state_dir)
    inbox.prepare()
    inbox.take()
    StateLayout(state_dir).live.unlink(missing_ok=True)  # it says of another agent what its destinations are
    done = threading.Event()

    def play_the_agent() -> None:
        while not done.wait(0.01):
            for path in sorted(StateLayout(state_dir).inbox.glob("*.json")):
                text = path.read_text(encoding="ascii").replace(f"{scratch}/lab", LAB)
                left.append((path.name, json.loads(text)))
                path.unlink()
                inbox.reply(path.name, {"ok": True, "message": "taken"})

    agent = threading.Thread(target=play_the_agent)
    # The real lock, held as by another process.
    with FileLock(StateLayout(state_dir).lock), mock.patch.dict("os.environ", {"LOGNAME": "asmith"}):
        agent.start()
        try:
            for words in commands:
                told = [word.format(lab=f"{scratch}/lab") for word in words]
                app([*told, "--config", str(config), "--state-dir", str(state_dir)], standalone_mode=False)
        finally:
            done.set()
            agent.join()
    return left


def said_with_an_agent(state_dir: Path, scratch: Path, words: Sequence[str]) -> None:
    """Give a command that only reads to the command line while an agent seems to run."""
    config = _config(scratch)
    with FileLock(StateLayout(state_dir).lock):
        app([*words, "--config", str(config), "--state-dir", str(state_dir)], standalone_mode=False)


def answer_fetched(state_dir: Path, answer: bytes) -> dict[str, Any] | None:
    """Leave a request, have it answered with these bytes, and return the answer as whoever asked reads it."""

    done = threading.Event()

    def answer_it() -> None:
        while not done.wait(0.01):
            for asked in StateLayout(state_dir).inbox.glob("*.json"):
                (state_dir / "replies" / asked.name).write_bytes(answer)
                return

    agent = threading.Thread(target=answer_it)
    Inbox(state_dir).prepare()
    Inbox(state_dir).take()
    agent.start()
    try:
        return send_request(state_dir, {"command": "scan"}, wait_s=10.0)
    finally:
        done.set()
        agent.join()


def note_of_a_child(folder: Path) -> dict[str, Any]:
    """Start a child as an agent does, and return the note that stands of it while it runs."""
    children = Children(folder)
    child = children.start([sys.executable, "-c", "input()"], purpose="to be noted", has_stdin=True)
    try:
        (note,) = folder.glob("*/*.json")
        return dict(json.loads(note.read_text()))
    finally:
        child.end()
        children.close()


def refusal_at_a_held_root(root: Path) -> str:
    """Return what an agent is told that comes to a root which another one holds."""
    with FileLock(root / CACHE_FOLDER / ROOT_LOCK_NAME):
        try:
            EquipmentRootLock(str(root), holder={}).take()
        except RootUnavailableError as error:
            return str(error)
    raise AssertionError("the root was taken from who holds it")


def answer_left(state_dir: Path, name: str, answer: Mapping[str, Any]) -> bytes:
    """Return what the agent's side writes as the answer to the request of this name."""
    inbox = Inbox(state_dir)
    inbox.prepare()
    inbox.reply(name, answer)
    return (state_dir / "replies" / name).read_bytes()


def answers_of_an_engine(
    state_dir: Path, requests: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Have an engine obey each request over this state folder, with nobody to work for it.

    Returns its answers, and the data of the lines `operator_command` that it wrote. An answer that comes only after the
    destination was asked is not among them.
    """
    store = RunStore(state_dir)
    written: list[Mapping[str, Any]] = []
    commit = store.commit

    def committed(entries: Sequence[Any], *, at: datetime) -> None:
        written.extend(entry.data for entry in entries if entry.kind == "operator_command")
        commit(entries, at=at)

    store.commit = committed  # type: ignore[method-assign]
    store.open()
    try:
        answers: list[Mapping[str, Any]] = []
        clock = SystemClock()
        engine = Engine(
            store=store,
            lanes=[_ports(equipment_id) for equipment_id in EQUIPMENT],
            policy=Policy(),
            clock=clock,
            now_local=clock.now_local,
            anchor=dict,
            make_executor=lambda _: NobodyWorks(),
        )
        for request in requests:
            engine.turn_over([CommandGiven(command_of(request), answers.append)])
        return answers, written
    finally:
        store.close()


class NobodyWorks(Executor):
    """Takes everything and does nothing."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        return Future()


def _ports(equipment_id: str) -> Ports:
    return ports_with(
        clock=SystemClock(),
        transport=SimpleNamespace(describe=lambda: f"{NAS}/{equipment_id}"),
        equipment=EquipmentPolicy(equipment_id, "", LAB, MountedPathTarget(f"{NAS}/{equipment_id}")),
        root=f"{LAB}/{equipment_id}",
        policy=Policy(),
    )


def ports_with(**given: Any) -> Ports:
    """Return ports that have what is given, and nothing else."""
    every: dict[str, Any] = {member.name: given.get(member.name) for member in fields(Ports)} | {"mounts": {}}
    return Ports(**every)


# --- what a running agent says -------------------------------------------------------------------------------------------


def told_by_an_agent(state_dir: Path, scratch: Path) -> dict[str, Any]:
    """Open an agent over this state folder, with something to tell of everything; return what it tells, by file name."""
    (scratch / "lab/SCOPE_01").mkdir(parents=True)
    settings = settings_from_mapping(_settings_of(f"{scratch}/lab", NAS, str(state_dir)))
    agent = Agent(settings, state_dir=state_dir)
    agent.open()
    try:
        _give_it_something_to_tell(agent)
        assert agent.engine is not None
        agent.engine.lanes["SCOPE_01"].ports.root_lock.take()
        (root_holder,) = (scratch / "lab/SCOPE_01/.exlab-wizard").glob("*.json")
        layout = StateLayout(state_dir)
        agent._publisher.publish()
        agent._publisher.beat_here()
        return {
            "live.json": json.loads(layout.live.read_text()),
            "heartbeat.json": {**json.loads(layout.heartbeat.read_text()), "pid": PID},
            "agent.json": {**holder.read(layout.holder), "pid": PID},
            root_holder.name: {**json.loads(root_holder.read_text()), "pid": PID, "state_dir": STATE},
        }
    finally:
        agent.close()


def _give_it_something_to_tell(agent: Agent) -> None:
    engine = agent.engine
    assert engine is not None
    by_state = {state: next(iter(agent.store.ids_in([state], "SCOPE_01"))) for state in _TOLD_OF}
    sealed, waiting, running, failed = (by_state[state] for state in _TOLD_OF)
    run_path = f"{LAB}/SCOPE_01/P-42/Runs/Run_2026-04-20T08-00"
    rule = Rule.RESERVED_FILESYSTEM_NAME
    finding = Finding(rule, rule.tier, run_path, "CON", OffendingKind.FILE_NAME, "CON", "CON is reserved: rename it.")
    runs = {
        sealed: RunView(findings=(finding,)),
        waiting: RunView(reason="no data files yet"),
        running: RunView(unreadable="raw/a.bin cannot be read", unreadable_looks=3),
        failed: RunView(problem=Note("run_gone", "the folder is gone")),
    }
    lane = engine.lanes["SCOPE_01"]
    wait = Wait("destination_unbound", "exlab-watch-agent bind SCOPE_01")
    lane.link = Away(AT, "The destination does not answer.", wait)
    lane.orphans = (RunPlace(run_path, "SCOPE_01", "P-42", "Runs", "Run_2026-04-20T08-00"),)
    other = engine.lanes["SENTINEL_02"]
    other.last_scan_at = other.last_success_at = AT
    other.root = Doubted("The folder is not there.", 5.0)
    engine.view = EngineView(
        {lane_id: lane_now(lane) for lane_id, lane in engine.lanes.items()},
        Told(
            HashTrieMap(runs),
            HashTrieMap({run_path: FolderProblem("its creation.json is no JSON", "creation_invalid_json")}),
        ),
    )
    work = Precheck(running, 1, run_path, "SCOPE_01", "P-42/Runs/Run", "")
    engine.under_way = lambda: {running: UnderWay(work, Progress(4096, 1), 12.34, None)}  # type: ignore[method-assign]
    agent._watching = _watching(engine, agent.store)


def _watching(engine: Engine, store: RunStore) -> Watching:
    """Return a watching of which the watcher says this, and watches nothing."""
    health = {
        "SCOPE_01": Health("inotify", False, watches=12),
        "WIN_03": Health("polling", True, "a share", "", 0, 3),
    }
    watching = Watching(engine, {}, store, Path("/nowhere"), on_inbox=lambda: None)
    watching._watcher = SimpleNamespace(health=lambda: health, restarts=1)  # type: ignore[assignment]
    watching._watches_allowed = 65536
    return watching


_TOLD_OF = (RunState.VERIFIED, RunState.ACQUIRING, RunState.RUNNING, RunState.FAILED)


# --- at the destination ----------------------------------------------------------------------------------------------------


def at_the_destination(record: RunRecord, manifest: bytes, trail_head: Mapping[str, Any]) -> dict[str, bytes]:
    """Return marker and claim as they are placed, and the claim as the seal of this run, which is `sealing`, writes it."""
    return {
        "marker": marker_text(MARKER_ID),
        "claim": claim_text(claim_of(record)),
        "sealed claim": _sealed_claim(record, manifest, trail_head),
    }


def _sealed_claim(record: RunRecord, manifest: bytes, trail_head: Mapping[str, Any]) -> bytes:
    effect = work_effect(record)
    assert isinstance(effect, Seal)
    written: dict[str, bytes] = {}
    before, after = FileSignature(1, 2, 3), FileSignature(4, 5, 6)
    text = CreationText(b'{"sync_status": "synced"}', before)
    told: dict[str, bytes] = {}

    def nothing(*_: Any, **__: Any) -> None:
        pass

    inventory = mock.create_autospec(Inventory, fingerprint=effect.fingerprint, files=(), folders_text=b"")
    ports = ports_with(
        clock=SimpleNamespace(now=lambda: datetime(2026, 4, 18, 10, tzinfo=UTC), uptime=lambda: UNKNOWN_UPTIME),
        tree=SimpleNamespace(inventory=lambda _: inventory, cache_files=lambda _: (), cache_signature=lambda _: 7),
        creations=SimpleNamespace(text_with_status=lambda *_: text, put_text=lambda *_: SavedCreation(before, after)),
        transport=SimpleNamespace(
            look=lambda _: DestinationLook(is_empty=False, claim=None, identity=None),
            describe=lambda: NAS,
            below=nothing,
            require_marker=nothing,
            clear_partials=nothing,
            listing=lambda *_, **__: {},
            replace=lambda *_, instead, **__: told.update(instead),
            read_small=lambda _, path, **__: told[path],
            read_several=lambda _, paths, **__: {path: told[path] for path in paths},
        ),
        manifests=SimpleNamespace(load=lambda *_, **__: manifest),
        agent=AgentSelf(state_folder="5f" * 16, host=HOST),
        sealer=SimpleNamespace(write=lambda _, name, data: written.update({name: data})),
        apartness=SimpleNamespace(require_root=nothing),
    )
    outcome = carry_out(replace(effect, anchor=trail_head), ports, Control())
    assert isinstance(outcome, Sealed), outcome
    return written["exlab-watch-agent.json"]
