"""The one place where parts are chosen and joined: settings in, a running agent out; start, stop, signals' effect.

Beside the engine it runs what is about the whole machine and not about one run: the watcher, the inbox, the live view
for `status`, the heartbeat here and on the NAS, the logs.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.clock import SystemClock, utc_text
from exlab_watch_agent.adapters.creation_json import JsonCreationFiles
from exlab_watch_agent.adapters.digests import LocalDigester
from exlab_watch_agent.adapters.durable import remove_temporaries, write_atomically
from exlab_watch_agent.adapters.inbox import Inbox
from exlab_watch_agent.adapters.run_log import RunLogWriter
from exlab_watch_agent.adapters.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.seal import CacheFolderSealer, FolderManifestStore
from exlab_watch_agent.adapters.store import HOLDER_NAME, RunStore
from exlab_watch_agent.adapters.transports.mounted_path import MountedPathTransport
from exlab_watch_agent.adapters.tree import DiskRunTree
from exlab_watch_agent.adapters.watch import Watcher
from exlab_watch_agent.core.gate import printable
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget, Policy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.engine import Engine
from exlab_watch_agent.errors import AgentError, ConfigError
from exlab_watch_agent.lane import Lane, LaneSetup, Noticed, Requested, ScanWanted
from exlab_watch_agent.ports import Ports, Transport
from exlab_watch_agent.report.status import counts, oldest_unsynced
from exlab_watch_agent.settings import Settings
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

LIVE_NAME = "live.json"
HEARTBEAT_NAME = "heartbeat.json"
LOG_FOLDER = "logs"
MANIFESTS_FOLDER = "manifests"
LIVE_EVERY_S = 0.5
SUPERVISE_EVERY_S = 5.0
INBOX_EVERY_S = 1.0
HEARTBEAT_EVERY_S = 30.0
NAS_HEARTBEAT_EVERY_S = 3600.0


def make_transport(equipment: EquipmentPolicy, *, state_dir: Path | None = None) -> Transport:
    """Return the transport that an equipment's target asks for, for the agent of that state folder if one is given.

    Raises: ConfigError for a transport that is not built in yet.
    """
    owner = f"{socket.gethostname()} {state_dir} {equipment.equipment_id}" if state_dir is not None else ""
    if isinstance(equipment.target, MountedPathTarget):
        return MountedPathTransport(equipment.target.path, owner=owner)
    raise ConfigError(
        f"equipment {equipment.equipment_id}: only the transport mounted_path is in this version; mount the share and "
        "use `transport: {type: mounted_path, path: ...}`."
    )


class Agent:
    """A watch agent over one state folder. `run` blocks; `stop` may be called from any thread or signal handler."""

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path | None = None,
        only: frozenset[str] | None = None,
        is_watching: bool = True,
        is_choosy: bool = False,
        on_move: Callable[[RunRecord, Move], None] | None = None,
        transport_factory: Callable[[EquipmentPolicy], Transport] | None = None,
    ) -> None:
        self.state_dir = state_dir or settings.state_dir
        self.settings = settings
        self.policy: Policy = settings.policy()
        self.store = RunStore(self.state_dir)
        self._clock = SystemClock()
        self._host = socket.gethostname()
        self._only = only
        self._is_watching = is_watching
        self._is_choosy = is_choosy
        self._extra_on_move = on_move
        self._transport_factory = transport_factory or partial(make_transport, state_dir=self.state_dir)
        self._run_log = RunLogWriter(self._host)
        self._inbox = Inbox(self.state_dir)
        self._watcher: Watcher | None = None
        self._log_handler: logging.Handler | None = None
        self.engine: Engine | None = None
        self._last: dict[str, float] = {}
        self._inbox_has_news = True
        self._is_stopping = False
        self._live_text = ""
        self._nas_heartbeats: dict[str, float] = {}

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the state folder and put the parts together; nothing runs yet.

        Raises: StateFolderError, ConfigError.
        """
        lanes = [self._lane_setup(equipment) for equipment in self.policy.equipment]
        self.store.open()
        try:
            self._open_log()
            for notice in self.store.notices:
                log.warning("%s", notice)
            for folder in (self.state_dir, self.state_dir / MANIFESTS_FOLDER):
                remove_temporaries(folder)  # The lock is ours, so they are those of an agent that was killed.
            self._say_who_holds()
            self._inbox.prepare()
            self._run_log.start()
            self.engine = Engine(
                store=self.store,
                lanes=lanes,
                policy=self.policy,
                clock=self._clock,
                now_local=self._clock.now_local,
                trail_head=self._trail_head,
                on_move=self._on_move,
                on_pass=self._on_pass,
                only=frozenset(record.run_path for record in self.store) if self._is_choosy else self._only,
            )
        except BaseException:
            self.close()
            raise

    def run(self, *, until_rest: bool = False) -> None:
        """Work until `stop`, or until all runs rest. Raises: StoreWriteError."""
        assert self.engine is not None, "open() comes first"
        log.info("agent %s started, chart %s, pid %d", __version__, CHART.version, os.getpid())
        if self._is_stopping:  # asked while the parts were put together
            self.engine.stop()
        if self._is_watching:
            self._watcher = Watcher(
                {lane_id: lane.root for lane_id, lane in self.engine.lanes.items()},
                self._inbox.folder,
                on_path=lambda path: self._post(Noticed((path,))),
                on_inbox=self._on_inbox,
                on_lost=lambda key: self._post(ScanWanted(None if key is None else (key,))),
            )
        try:
            if self._watcher is not None:
                self._watcher.start()
            self.engine.run(until_rest=until_rest)
            if until_rest and self._only is None and not self._is_stopping:
                self._beat_on_all()  # the hourly one would hardly ever fall into so short a life
        finally:
            if self._watcher is not None:
                self._watcher.stop()

    def stop(self) -> None:
        self._is_stopping = True
        if self.engine is not None:
            self.engine.stop()

    def close(self) -> None:
        """Write what a start would otherwise have to replay, and let the state folder go."""
        try:
            if self.engine is not None:
                self._publish(force=True)
                self._beat_here()
                self.store.checkpoint()
        finally:
            self._run_log.close()
            with suppress(OSError):
                (self.state_dir / HOLDER_NAME).unlink()
            log.info("agent stopped")
            if self._log_handler is not None:
                package = logging.getLogger("exlab_watch_agent")
                package.removeHandler(self._log_handler)
                package.propagate = True
                self._log_handler.close()
            self.store.close()

    def _lane_setup(self, equipment: EquipmentPolicy) -> LaneSetup:
        transport = self._transport_factory(equipment)

        def make_ports(marker_id: Callable[[], str | None], trail_head: Callable[[], Mapping[str, Any]]) -> Ports:
            return Ports(
                clock=self._clock,
                tree=DiskRunTree(),
                creations=JsonCreationFiles(),
                digester=LocalDigester(),
                transport=transport,
                manifests=FolderManifestStore(self.state_dir / MANIFESTS_FOLDER),
                sealer=CacheFolderSealer(),
                equipment=equipment,
                policy=self.policy,
                marker_id=marker_id,
                trail_head=trail_head,
            )

        return LaneSetup(equipment, equipment_root(equipment), DiskRunScanner(), make_ports)

    def _open_log(self) -> None:
        folder = self.state_dir / LOG_FOLDER
        folder.mkdir(exist_ok=True, mode=0o700)
        handler = RotatingFileHandler(
            folder / "agent.log",
            maxBytes=int(self.settings.logging.central_log_max_mb * 1024 * 1024),
            backupCount=self.settings.logging.central_log_keep,
            encoding="utf-8",
            errors="backslashreplace",
        )
        handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)-5s] %(name)s: %(message)s"))
        package = logging.getLogger("exlab_watch_agent")
        package.setLevel(self.settings.logging.level)
        package.addHandler(handler)
        package.propagate = False
        self._log_handler = handler

    def _say_who_holds(self) -> None:
        holder = {"pid": os.getpid(), "host": self._host, "since": utc_text(self._clock.now()), "version": __version__}
        write_atomically(self.state_dir / HOLDER_NAME, json.dumps(holder).encode(), mode=0o600)

    # --- beside the engine -------------------------------------------------------------------------------------------

    def _post(self, message: Any) -> None:
        if self.engine is not None:
            self.engine.post(message)

    def _on_inbox(self) -> None:
        self._inbox_has_news = True
        self._post(None)

    def _trail_head(self) -> Mapping[str, Any]:
        head = self.store.head
        return {
            "host": self._host,
            "version": __version__,
            "chart": CHART.version,
            "audit_seq": head.seq,
            "audit_blake3": head.digest,
            "sealed_at": utc_text(self._clock.now()),
        }

    def _on_move(self, record: RunRecord, move: Move) -> None:
        self._run_log.put(record, move)
        if self._extra_on_move is not None:
            self._extra_on_move(record, move)

    def _on_pass(self) -> None:
        """What has to happen now and then, from the engine's loop, which comes by at least once a second."""
        if self._inbox_has_news or self._is_time("inbox", INBOX_EVERY_S):
            self._inbox_has_news = False
            self._take_requests()
        if self._is_time("live", LIVE_EVERY_S):
            self._publish()
        if self._watcher is not None and self._is_time("supervise", SUPERVISE_EVERY_S):
            self._watcher.supervise()
        if self._is_time("heartbeat", HEARTBEAT_EVERY_S):
            self._beat()

    def _is_time(self, what: str, every_s: float) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s - self._last.get(what, -every_s) < every_s:
            return False
        self._last[what] = now_s
        return True

    def _take_requests(self) -> None:
        try:
            taken = self._inbox.take()
        except OSError as error:
            log.warning("the inbox cannot be read: %s", error.strerror)
            return
        for name, request in taken:
            self._post(Requested(request, lambda answer, name=name: self._inbox.reply(name, answer)))  # type: ignore[misc]

    # --- the live view -----------------------------------------------------------------------------------------------

    def live(self) -> dict[str, Any]:
        """Return what is true only while the agent runs: progress, waits, reasons, health."""
        assert self.engine is not None, "open() comes first"
        engine = self.engine
        waiting: dict[str, str] = {}
        run_problems: dict[str, str] = {}
        for job_id, view in list(engine.views.items()):
            if view.reason:
                waiting[job_id] = printable(view.reason)
            if view.problem:
                run_problems[job_id] = printable(view.problem)
        return {
            "schema": 1,
            "lanes": {lane_id: self._lane_json(lane) for lane_id, lane in engine.lanes.items()},
            "observer": self._observer_json(),
            "progress": {
                job_id: {"bytes_done": p.bytes_done, "files_done": p.files_done, "seconds": round(seconds, 1)}
                for job_id, (p, seconds) in engine.progress().items()
            },
            "waiting": waiting,
            "run_problems": run_problems,
            "path_problems": {printable(path): printable(text) for path, text in engine.path_problems.items()},
            "orphans": [finding.to_json() for finding in engine.orphans()],
            "refused_after_sync": {
                job_id: [finding.rule_detail for finding in findings]
                for job_id, findings in engine.refused_after_sync().items()
            },
        }

    def _observer_json(self) -> dict[str, Any]:
        if self._watcher is None:
            return {"kind": "scan", "degraded": False, "restarts": 0}
        return {"kind": "native", "degraded": self._watcher.is_degraded, "restarts": self._watcher.restarts}

    @staticmethod
    def _lane_json(lane: Lane) -> dict[str, Any]:
        return {
            "destination": lane.ports.transport.describe(),
            "waiting_since": utc_text(lane.waiting_since) if lane.waiting_since is not None else None,
            "waiting_reason": lane.waiting_reason,
            "root_problem": lane.root_problem,
            "last_scan_at": utc_text(lane.last_scan_at) if lane.last_scan_at is not None else None,
            "last_success_at": utc_text(lane.last_success_at) if lane.last_success_at is not None else None,
        }

    def _publish(self, *, force: bool = False) -> None:
        """Leave the live view for other processes, when it is another than before. Not durable: it is true now or not at all."""
        text = json.dumps(self.live())
        if text == self._live_text and not force:
            return
        self._live_text = text
        path = self.state_dir / LIVE_NAME
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error.strerror)

    def heartbeat(self) -> dict[str, Any]:
        """Return what the heartbeat says."""
        assert self.engine is not None, "open() comes first"
        records = list(self.store)
        return {
            "schema": 1,
            "at": utc_text(self._clock.now()),
            "host": self._host,
            "pid": os.getpid(),
            "version": __version__,
            "counts": counts(records),
            "oldest_unsynced": oldest_unsynced(records),
            "lanes": {lane_id: self._lane_json(lane) for lane_id, lane in self.engine.lanes.items()},
            "observer": self._observer_json(),
            "audit": {"seq": self.store.head.seq, "blake3": self.store.head.digest},
        }

    def _beat_here(self) -> bytes:
        data = (json.dumps(self.heartbeat(), indent=2) + "\n").encode()
        try:
            write_atomically(self.state_dir / HEARTBEAT_NAME, data, mode=0o600)
        except OSError as error:
            log.warning("the heartbeat cannot be written: %s", error.strerror)
        return data

    def _beat(self) -> None:
        data = self._beat_here()
        assert self.engine is not None, "open() comes first"
        for lane_id, lane in self.engine.lanes.items():
            is_known = lane.marker_id is not None and lane.waiting_since is None
            now_s = self._clock.monotonic_s()
            if is_known and now_s - self._nas_heartbeats.get(lane_id, -NAS_HEARTBEAT_EVERY_S) >= NAS_HEARTBEAT_EVERY_S:
                self._nas_heartbeats[lane_id] = now_s
                with suppress(RuntimeError):  # the executor is closed while the agent stops
                    lane.eyes.submit(self._beat_on_nas, lane, data)

    def _beat_on_all(self) -> None:
        assert self.engine is not None, "open() comes first"
        data = self._beat_here()
        for lane in self.engine.lanes.values():
            if lane.marker_id is not None and lane.waiting_since is None:
                self._beat_on_nas(lane, data)

    def _beat_on_nas(self, lane: Lane, data: bytes) -> None:
        try:
            lane.ports.transport.probe(expected_marker_id=lane.marker_id)
            lane.ports.transport.write_small(f".exlab-watch-agent/{self._host}.json", data)
        except AgentError as error:
            log.warning("the heartbeat could not be placed on the NAS: %s", error)


def needs_attention(agent: Agent) -> bool:
    """Return whether a run that this agent was to look after is failed, blocked or in conflict."""
    looked_after = (r for r in agent.store if agent._only is None or r.run_path in agent._only)
    return any(r.state in (RunState.FAILED, RunState.BLOCKED, RunState.CONFLICT) for r in looked_after)


def leave_now(agent: Agent, code: int) -> None:
    """End the process at once where a thread hangs in a dead mount: waiting for it would be for ever."""
    if agent.engine is not None and not agent.engine.is_drained:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
