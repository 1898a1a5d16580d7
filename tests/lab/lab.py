"""A laboratory in a folder: instruments, NAS folders, a config, the real command line as a subprocess.

What a test knows of the agent it learns as an outsider does: from the audit trail, the files on both sides, and the
commands. Waiting is always for something, with a deadline; nothing here sleeps for a fixed time and hopes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal, TypeVar

from blake3 import blake3

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope, make_transport
from exlab_watch_agent.config.load import Settings, load_settings
from exlab_watch_agent.core.commands import Command
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.ports import Transport
from tests.lab import prepared
from tests.lab.servers import Place

T = TypeVar("T")

RECORD_DEFAULTS: dict[str, Any] = {
    "state": "acquiring", "turn": 0, "discovered_at": None, "enqueued_at": None, "destination": "", "fingerprint": "",
    "files_total": 0, "bytes_total": 0, "attempts": 0, "mismatches": 0, "next_attempt_at": None, "wait_s": 0.0,
    "last_error": None, "manifest_digest": "", "sealed_at": None, "verify_passes": 0, "verified_at": None,
    "declared_mismatches": [], "overrides_seen": 0, "creation_signature": None,
    "verified_boot_id": "", "verified_uptime_s": 0.0,
}  # fmt: skip
"""What a record's members are that its line of the trail leaves out."""

CACHE = ".exlab-wizard"
PROJECT = "PROJ-0042 Cortex pilot"
SENTINEL = "acquisition_complete.flag"
WAIT_S = 20.0
POLL_S = 0.02
QUICK_PROGRAM = Path(__file__).with_name("quick.py")
SECRET = "s3cr3t-t0ken"

AS_AN_ORDINARY_USER = """\
import ctypes, os, sys
if os.geteuid() == 0:  # root reads everything unless it gives up these two, which exec then cannot give back
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def until(holds: Callable[[], T | Literal[False] | None], what: str, *, wait_s: float = WAIT_S) -> T:
    """Return what `holds` returns once that is true. Fails, saying `what` did not come, after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {wait_s:g} s")
        time.sleep(POLL_S)
    return found


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problems(self) -> list[dict[str, Any]]:
        """What `problems --json` said, but for the agent's own standing; each command without the flags that it carries."""
        found = [one for one in self.json["problems"] if not one["code"].startswith("agent_")]
        return [{**one, "command": one["command"].partition(" --config ")[0]} for one in found]


@dataclass
class Equipment:
    """One instrument of the config. Its destination is `place`; without one, a mounted path in the lab's NAS folder."""

    id: str = "SCOPE_01"
    signal: Mapping[str, str] = field(default_factory=lambda: {"completeness_signal": "creation_json"})
    nas: str = ""
    upload_mbps: float | None = None
    place: Place | None = None

    def root(self, lab: Lab) -> Path:
        """Return the destination root as a folder of this machine."""
        return self.place.root if self.place else lab.nas / (self.nas or self.id)

    def to_config(self, lab: Lab) -> dict[str, Any]:
        mounted = {"type": "mounted_path", "path": str(self.root(lab))}
        transport: dict[str, Any] = dict(self.place.transport) if self.place else mounted
        if self.upload_mbps is not None:
            transport["bandwidth"] = {"upload_mbps": self.upload_mbps}
        return {"id": self.id, "label": self.id, "local_root": str(lab.local), "transport": transport, **self.signal}


def _asks_to_be_bound(equipment: EquipmentPolicy, settings: Settings) -> bool:
    transport = make_transport(equipment, settings.policy())
    try:
        return not transport.nature().elsewhere
    except AgentError:  # a test about a destination that cannot be used
        return False
    finally:
        transport.close()


SENTINEL_SIGNAL = {"completeness_signal": "sentinel_file", "sentinel_filename": SENTINEL}
MANIFEST_SIGNAL = {"completeness_signal": "manifest", "manifest_filename": "manifest.json"}


class Lab:
    """One laboratory. `agent` holds members of the config's block of that name.

    `is_bound`: its operator has said `bind` already where a destination would ask for that. `is_quick`: its running agent
    waits less before it asks again what is away (quick.py); for tests of what it does then, not of when.
    """

    def __init__(
        self, home: Path, *equipment: Equipment, is_bound: bool = True, is_quick: bool = False, **agent: Any
    ) -> None:
        self.home = home
        self.program = [str(QUICK_PROGRAM)] if is_quick else ["-m", "exlab_watch_agent"]
        self.local = home / "instrument pc"
        self.nas = home / "nas"
        self.state = home / "state"
        self.config = home / "config.yaml"
        self.equipment = list(equipment) or [Equipment()]
        self._leaves = 0
        self.settings: dict[str, Any] = {
            "equipment": [one.to_config(self) for one in self.equipment],
            # A block of ExLab-Wizard that the agent passes over; what is in it must never be seen again.
            "lims": {"endpoint": "https://lims.example", "token": SECRET},
            "agent": {"state_dir": str(self.state), "settle_seconds": 0.2, **agent},
        }
        for one in self.equipment:
            (self.local / one.id).mkdir(parents=True, exist_ok=True)
            one.root(self).mkdir(parents=True, exist_ok=True)
        self.save_config()
        if is_bound:
            self.bind()

    def save_config(self) -> None:
        self.config.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")

    def bind(self) -> None:
        """Do what `bind --yes` does, for every destination that is there and does not bind by itself."""
        settings = load_settings(self.config)
        asking = [equipment for equipment in settings.policy().equipment if _asks_to_be_bound(equipment, settings)]
        if asking:
            agent = Agent(settings, scope=Scope(is_watching=False))
            agent.open()
            try:
                for equipment in asking:
                    agent.bind(equipment.equipment_id, "asmith")
            finally:
                agent.close()

    def new_leaf(self) -> str:
        self._leaves += 1
        return f"Run_2026-04-17T{self._leaves // 60:02d}-{self._leaves % 60:02d}"

    # --- the instrument ----------------------------------------------------------------------------------------------

    def new_run(
        self,
        leaf: str = "",
        files: Mapping[str, bytes] | None = None,
        *,
        equipment: str | None = None,
        project: str = PROJECT,
        parent: str = "Runs",
        **members: Any,
    ) -> Path:
        """Make a run as an instrument and ExLab-Wizard do: the data, and creation.json last. Without a `leaf`, a new one."""
        leaf = leaf or self.new_leaf()
        run = self.local / (equipment or self.equipment[0].id) / project / parent / leaf
        (run / CACHE).mkdir(parents=True)
        put(run, {"image.tif": leaf.encode() * 1000} if files is None else files)
        self.write_creation(run, **members)
        return run

    def write_creation(self, run: Path, **members: Any) -> None:
        text = json.dumps(creation_of(run, **members), indent=2, ensure_ascii=False)
        (run / CACHE / "creation.json").write_text(text, encoding="utf-8")

    # --- the NAS -----------------------------------------------------------------------------------------------------

    def destination_root(self, run: Path) -> Path:
        equipment_id = run.relative_to(self.local).parts[0]
        return next(one for one in self.equipment if one.id == equipment_id).root(self)

    def copy_of(self, run: Path) -> Path:
        """Return where the copy of a run is in the layout `mirror`."""
        return self.destination_root(run).joinpath(*run.relative_to(self.local).parts[1:])

    def debris(self) -> list[str]:
        """Return what no agent may leave on a NAS once it rests."""
        return sorted(
            str(path)
            for root in {one.root(self) for one in self.equipment}
            for path in root.rglob("*")
            if path.name.startswith((".exlab-partial", ".exlab-probe-")) or path.suffix in (".tmp", ".partial")
        )

    def assert_whole(self, run: Path, copy: Path | None = None) -> None:
        """Fail unless the copy is what a synced run's copy must be, seen with other eyes than the agent's."""
        copy = copy or self.copy_of(run)
        assert hashes(copy) == hashes(run) != {}
        assert read_creation(copy)["sync_status"] == read_creation(run)["sync_status"] == "synced"
        manifest = copy / CACHE / "checksums.sha256"
        checked = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", str(manifest)], cwd=copy, capture_output=True, text=True
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        assert manifest.read_bytes().count(b"\n") == len(hashes(run))
        assert manifest.read_bytes() == (run / CACHE / "checksums.sha256").read_bytes()

    # --- the agent's records -----------------------------------------------------------------------------------------

    def trail(self) -> list[dict[str, Any]]:
        """Return the whole lines of the audit trail."""
        try:
            data = (self.state / "audit.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        facts = [json.loads(line) for line in data.split(b"\n")[:-1]]
        return [fact | {"record": RECORD_DEFAULTS | fact["record"]} if "record" in fact else fact for fact in facts]

    def facts(self, run: Path) -> list[dict[str, Any]]:
        """Return the trail's lines about the run that is at this path now."""
        trail = self.trail()
        job_ids = {fact["record"]["job_id"] for fact in trail if fact.get("record", {}).get("run_path") == str(run)}
        return [fact for fact in trail if fact.get("record", {}).get("job_id") in job_ids]

    def record(self, run: Path) -> dict[str, Any]:
        found = self.facts(run)
        return found[-1]["record"] if found else {"state": None}

    def states(self, run: Path) -> list[str]:
        """Return the states that the run has been in, in order."""
        return [fact["move"]["dest"] for fact in self.facts(run) if "move" in fact]

    def until_state(self, run: Path, *states: str, wait_s: float = WAIT_S) -> dict[str, Any]:
        """Return the run's record once it is in one of these states."""
        try:
            until(lambda: self.record(run)["state"] in states, f"{run.name} {'/'.join(states)}", wait_s=wait_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it went {self.states(run)}, {self.record(run).get('last_error')}") from None
        return self.record(run)

    def until_lane_waits(self, equipment_id: str) -> None:
        """Wait until the live view says that this equipment's destination cannot be used."""
        waits = lambda: self.live().get("lanes", {}).get(equipment_id, {}).get("waiting_since")  # noqa: E731
        until(waits, f"{equipment_id} waits for its destination")

    def live(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.state / "live.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    def log(self) -> str:
        path = self.state / "logs" / "agent.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def assert_chain_holds(self) -> None:
        """Recompute every link of the audit trail."""
        previous, lines = "0" * 64, (self.state / "audit.jsonl").read_bytes().split(b"\n")
        assert lines.pop() == b""
        for number, line in enumerate(lines, start=1):
            fact = json.loads(line)
            assert (fact["seq"], fact["prev"]) == (number, previous)
            previous = blake3(line).hexdigest()

    def assert_chain_holds_but_for_a_torn_end(self) -> None:
        """The same of the whole lines: a line that was being written when the agent was killed was never acknowledged."""
        previous = "0" * 64
        for line in (self.state / "audit.jsonl").read_bytes().split(b"\n")[:-1]:
            assert json.loads(line)["prev"] == previous
            previous = blake3(line).hexdigest()

    def assert_log_is_clean(self) -> None:
        for text in (self.log(), (self.state / "audit.jsonl").read_text(encoding="utf-8")):
            assert "Traceback" not in text
            assert "internal error" not in text
            assert SECRET not in text

    # --- the command line --------------------------------------------------------------------------------------------

    def argv(self, *words: str) -> list[str]:
        return [*self.program, *words, "--config", str(self.config)]

    def cli(self, *words: str, wait_s: float = 60, as_user: bool = False, feed: str = "") -> Said:
        """Run one command to its end; `feed` is what it can read."""
        with TemporaryFile() as given, TemporaryFile() as said, TemporaryFile() as complained:
            given.write(feed.encode())
            given.seek(0)
            process = _started(self, *words, as_user=as_user, files=(given, said, complained))
            try:
                code = process.wait(wait_s)
            except BaseException:
                process.kill()
                process.wait()
                raise
            out, err = (_all_of(file) for file in (said, complained))
        assert "Traceback" not in err, err
        return Said(code, out, err)

    @contextmanager
    def running(self, *, as_user: bool = False) -> Iterator[AgentProcess]:
        """An agent in the foreground, from its first scan on; afterwards it must have ended well."""
        agent = AgentProcess(self, as_user=as_user)
        try:
            agent.until_up()
            yield agent
        except BaseException:
            agent.kill()
            print(agent.said())
            print(self.log())
            raise
        assert agent.stop() == 0, agent.said()
        assert "Traceback" not in agent.said()
        self.assert_log_is_clean()


class AgentProcess:
    """One agent process of a lab. `is_from_nothing`: it loads its modules itself, as it does outside the tests."""

    def __init__(self, lab: Lab, *, as_user: bool = False, is_from_nothing: bool = False) -> None:
        self.lab = lab
        self._output = lab.home / "agent.out"
        self._live_before = self._live_view()
        with self._output.open("ab") as output, open(os.devnull, "rb") as nothing:
            files = (nothing, output, output)
            self.process = (
                prepared.start_anew(lab.argv("run"), cwd=lab.home, files=files)
                if is_from_nothing
                else _started(lab, "run", as_user=as_user, files=files)
            )

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def until_up(self) -> None:
        """Wait for its first scan: from then on it sees what happens, as events or as a scan that is done anew."""

        def is_up() -> bool:
            assert self.process.poll() is None, self.said()
            lanes = self.lab.live().get("lanes", {}).values()
            has_scanned = all(lane["last_scan_at"] or lane["root_problem"] for lane in lanes)
            is_its_own = self._live_view() != self._live_before  # and not what an earlier agent left
            return self._holder().get("pid") == self.pid and is_its_own and bool(lanes) and has_scanned

        until(is_up, "the agent is up")

    def _live_view(self) -> tuple[int, int] | None:
        """Return which file the live view is, which each agent replaces."""
        try:
            status = (self.lab.state / "live.json").stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _holder(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.lab.state / "agent.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(10)
        finally:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def run_to_rest(
    lab: Lab,
    *,
    wrapped: Callable[[Any], Any] = lambda transport: transport,
    transport_factory: Callable[[EquipmentPolicy], Transport] | None = None,
    clock: SystemClock | None = None,
    command: Command | None = None,
) -> None:
    """Do `run --once` in this process, by this clock if one is given, an operator's command first.

    Each transport is replaced by what `wrapped` makes of it, or made by the factory.
    """
    agent = Agent(
        load_settings(lab.config),
        scope=Scope(is_watching=False),
        transport_factory=transport_factory or (lambda equipment: wrapped(agent.make_transport(equipment))),
        clock=clock,
    )
    agent.open()
    try:
        if command is not None:
            agent.ask(command, lambda _: None)
        agent.run(until_rest=True)
    finally:
        agent.close()


def _started(lab: Lab, *words: str, as_user: bool, files: prepared.Files) -> prepared.Started | subprocess.Popen[bytes]:
    if as_user:
        return prepared.start_anew(["-c", AS_AN_ORDINARY_USER, *lab.argv(*words)], cwd=lab.home, files=files)
    return prepared.start(lab.argv(*words), cwd=lab.home, files=files)


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


# --- files -----------------------------------------------------------------------------------------------------------


def put(run: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)


def creation_of(run: Path, **members: Any) -> dict[str, Any]:
    """Return a creation.json as ExLab-Wizard writes it, with members it has and this agent does not know."""
    return {
        "schema_version": "1.8",
        "created_at": "2026-04-17T14:32:00Z",
        "created_by": "asmith",
        "level": "run",
        "run_kind": "test" if run.name.startswith("TestRun_") else "experimental",
        "lims_project": {"uid": f"uid {run.parent.parent.name}", "short_id": "PROJ-0042", "name_at_creation": "Cortex"},
        "template": {"name": "confocal_run_v2", "version": "2.1", "run_scope": "both"},
        "variables": {"sample": "β-tubulin", "deep": {"unknown": [1.50, None, {"kept": True}]}},
        "paths": {"local": str(run), "nas": f"//nas01/lab/{run.name}"},
        "sync_status": "pending",
        "validation_overrides": [],
        **members,
    }


def read_creation(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / CACHE / "creation.json").read_text(encoding="utf-8")))


def save_in_place(run: Path, document: Any) -> None:
    """Save as some editors do: the same file, cut and written again."""
    (run / CACHE / "creation.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def save_by_rename(run: Path, document: Any) -> None:
    """Save as the other editors do."""
    temporary = run / CACHE / "creation.json~"
    temporary.write_text(json.dumps(document, indent=2), encoding="utf-8")
    os.replace(temporary, run / CACHE / "creation.json")


def override(problem_class: str, **members: Any) -> dict[str, Any]:
    return {
        "id": f"id-{problem_class}",
        "problem_class": problem_class,
        "operator": "asmith",
        "recorded_at": "2026-04-18T09:14:22Z",
        "reason": "the name may stay",
        "revoked": False,
        **members,
    }


def tombstone(revokes: str) -> dict[str, Any]:
    return {
        "id": f"tombstone-{revokes}",
        "revokes": revokes,
        "operator": "bjones",
        "recorded_at": "2026-05-01T11:02:14Z",
        "reason": "a mistake",
        "revoked": True,
    }


def hashes(run: Path) -> dict[str, str]:
    """Return path → SHA-256 of every data file."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.relative_to(run).parts[0] != CACHE
    }
