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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.acts.handlers import ask_destination
from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SystemClock, utc_text
from exlab_watch_agent.adapters.local.cache_folder import CacheFolderSealer, FolderManifestStore
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.durable import open_private, remove_temporaries, write_atomically
from exlab_watch_agent.adapters.local.root_lock import EquipmentRootLock
from exlab_watch_agent.adapters.local.run_log import RunLogWriter
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state import holder
from exlab_watch_agent.adapters.state.central_log import CentralLog
from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.adapters.state.inbox import Inbox
from exlab_watch_agent.adapters.state.store import HOLDER_NAME, RunStore
from exlab_watch_agent.adapters.transports.mounted.transport import MountedPathTransport
from exlab_watch_agent.adapters.transports.rclone.transport import RcloneTransport
from exlab_watch_agent.adapters.transports.rsync.transport import RsyncTransport
from exlab_watch_agent.adapters.watching.keeper import Health, WatchedRoot
from exlab_watch_agent.adapters.watching.limits import read_limits
from exlab_watch_agent.adapters.watching.watcher import Watcher
from exlab_watch_agent.config.settings import Settings
from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import printable
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget, Policy, RcloneTarget
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.engine.lane import (
    SETTLED_STATES,
    DestinationLost,
    Lane,
    LaneSetup,
    Noticed,
    Requested,
    ScanWanted,
    Woken,
)
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.errors import (
    AgentError,
    ConfigError,
    DestinationUnreachableError,
    StateFolderError,
    StoreFullError,
)
from exlab_watch_agent.ports import Ports, Transport
from exlab_watch_agent.report.problems import Moment, Problem, problems
from exlab_watch_agent.report.status import OldestUnsynced
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

LIVE_NAME = "live.json"
HEARTBEAT_NAME = "heartbeat.json"
LOG_FOLDER = "logs"
MANIFESTS_FOLDER = "manifests"
CHILDREN_FOLDER = "children"
SSH_FOLDER = "ssh"
LIVE_EVERY_S = 0.5
LIVE_DUTY = 50
"""Writing the live view takes at most one part in this many of the loop's time."""
SUPERVISE_EVERY_S = 1.0
INBOX_EVERY_S = 1.0
HEARTBEAT_EVERY_S = 30.0
NAS_HEARTBEAT_EVERY_S = 3600.0


def make_transport(
    equipment: EquipmentPolicy, policy: Policy, *, state_dir: Path | None = None, children: Children | None = None
) -> Transport:
    """Return the transport that an equipment's target asks for, for the agent of that state folder if one is given.

    `children` keeps the programs that it runs; without it the transport has its own, ended by its `close`.
    Raises: ConfigError for a transport that this platform does not have.
    """
    owner = f"{socket.gethostname()} {state_dir} {equipment.equipment_id}" if state_dir is not None else ""
    if isinstance(equipment.target, MountedPathTarget):
        return MountedPathTransport(equipment.target.path, owner=owner)
    if isinstance(equipment.target, RcloneTarget):
        return RcloneTransport(
            equipment.target,
            owner=owner,
            children=children,
            stall_s=policy.stall_s,
            stream_bytes_max=policy.verify_stream_bytes_max,
        )
    if os.name == "nt":
        raise ConfigError(
            f"equipment {equipment.equipment_id}: rsync over ssh runs on Linux and macOS only; on Windows use rclone with "
            "a remote of type sftp."
        )
    return RsyncTransport(
        equipment.target,
        owner=owner,
        children=children,
        socket_folder=None if state_dir is None else state_dir / SSH_FOLDER,
        stall_s=policy.stall_s,
        stream_bytes_max=policy.verify_stream_bytes_max,
        is_metered=equipment.bandwidth is not None,
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
        is_working: bool = True,
        on_move: Callable[[RunRecord, Move], None] | None = None,
        on_notice: Callable[[str], None] = lambda _: None,
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
        self._is_working = is_working
        self._extra_on_move = on_move
        self._on_notice = on_notice
        self._children = Children(self.state_dir / CHILDREN_FOLDER)
        self._transport_factory = transport_factory or self.make_transport
        self._run_log = RunLogWriter(self._host)
        self._inbox = Inbox(self.state_dir)
        self._watcher: Watcher | None = None
        self._watches_allowed = read_limits().watches
        self._log_handler: logging.Handler | None = None
        self.engine: Engine | None = None
        self._last: dict[str, float] = {}
        self._inbox_has_news = True
        self._is_stopping = False
        self._has_run = False
        self._shown: tuple[Any, ...] = ()
        self._oldest = OldestUnsynced(())
        self._live_every_s = LIVE_EVERY_S
        self._not_seen: set[str] = set()
        self._since = ""
        self._pause_said: str | None = None
        self._unwritten: set[str] = set()
        self._nas_heartbeats: dict[str, float] = {}
        self._lanes_before: Mapping[str, Any] = {}

    def make_transport(self, equipment: EquipmentPolicy) -> Transport:
        """Return the configured transport of an equipment; its programs live and end with this agent."""
        return make_transport(equipment, self.policy, state_dir=self.state_dir, children=self._children)

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the state folder and put the parts together; nothing runs yet.

        Raises: StateFolderError, ConfigError.
        """
        lanes = [self._lane_setup(equipment) for equipment in self.policy.equipment]
        require_private(self.state_dir)
        self.store.open()
        try:
            self._children.end_leftovers()  # before anything new writes to where a killed agent's child still writes
            self._open_log()
            for notice in self.store.notices:
                self._notify(notice)
            for folder in (self.state_dir, self.state_dir / MANIFESTS_FOLDER):
                remove_temporaries(folder)  # The lock is ours, so they are those of an agent that was killed.
            self._since = utc_text(self._clock.now())
            self._say_who_holds()
            self._prepare_inbox()
            self._run_log.start()
            if self._only is not None or self._is_choosy or not self._is_working:
                self._lanes_before = lanes_of(read_live(self.state_dir))
            self._oldest = OldestUnsynced(self._unsettled())
            self.engine = Engine(
                store=self.store,
                lanes=lanes,
                policy=self.policy,
                clock=self._clock,
                now_local=self._clock.now_local,
                trail_head=self._trail_head,
                on_move=self._on_move,
                on_pass=self._on_pass,
                is_working=self._is_working,
                only=frozenset(record.run_path for record in self.store) if self._is_choosy else self._only,
            )
        except BaseException:
            self.close()
            raise

    def run(self, *, until_rest: bool = False) -> None:
        """Work until `stop`, or until all runs rest. Raises: StoreWriteError."""
        assert self.engine is not None, "open() comes first"
        self._has_run = True
        log.info("agent %s started, chart %s, pid %d", __version__, CHART.version, os.getpid())
        if self._is_stopping:  # asked while the parts were put together
            self.engine.stop()
        if self._is_watching:
            self._watcher = self._make_watcher(self.engine.lanes)
        try:
            if self._watcher is not None:
                self._watcher.start()
            self.engine.run(until_rest=until_rest)
            if until_rest and self._only is None and not self._is_stopping:
                self._beat_on_all()  # the hourly one would hardly ever fall into so short a life
        finally:
            if self._watcher is not None:
                self._watcher.stop()

    def _make_watcher(self, lanes: Mapping[str, Lane]) -> Watcher:
        return Watcher(
            {lane_id: WatchedRoot(lane.root, lane.equipment.observer) for lane_id, lane in lanes.items()},
            self._inbox.folder,
            on_news=lambda: self._post(Woken()),
            on_inbox=self._on_inbox,
            on_lost=lambda lane_id: self._post(ScanWanted((lane_id,))),
            on_poll=lambda lane_id: self._post(ScanWanted((lane_id,), is_full=False)),
            took_s=lambda lane_id: lanes[lane_id].scan_took_s,
            may_write=lambda lane_id: lanes[lane_id].is_ours,
            is_finished=self._is_finished,
        )

    def _is_finished(self, run_path: str) -> bool:
        """Return whether little more will happen in this run folder. Asked by the watcher's threads."""
        return self.store.state_at(run_path) in SETTLED_STATES

    def bind(self, equipment_id: str, operator: str) -> str:
        """Bind an equipment's destination because an operator says that it is the right one; return what is to be said.

        For an agent that is open and does not run; a running one is asked through its inbox. Raises: AgentError.
        """
        assert self.engine is not None, "open() comes first"
        return self.engine.bind(equipment_id, operator)

    def stop(self) -> None:
        self._is_stopping = True
        if self.engine is not None:
            self.engine.stop()

    def close(self) -> None:
        """Write what a start would otherwise have to replay, and let the state folder go."""
        try:
            if self.engine is not None and self._has_run:
                self._publish(force=True)
                self._beat_here()
            if self.engine is not None:
                self._checkpoint()
        finally:
            self._close_transports()
            self._run_log.close()
            self._release_roots()
            log.info("agent stopped")
            if self._log_handler is not None:
                package = logging.getLogger("exlab_watch_agent")
                package.removeHandler(self._log_handler)
                package.propagate = True
                self._log_handler.close()
            self.store.close()

    def _close_transports(self) -> None:
        if self.engine is not None:
            for lane in self.engine.lanes.values():
                with suppress(AgentError):  # what hangs in the system is found by the next start
                    lane.ports.transport.close()
        with suppress(AgentError):
            self._children.close()

    def _lane_setup(self, equipment: EquipmentPolicy) -> LaneSetup:
        transport = self._transport_factory(equipment)

        def make_ports(binding: Callable[[], Binding | None], trail_head: Callable[[], Mapping[str, Any]]) -> Ports:
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
                apartness=ProbedApartness(equipment, transport, self._clock, self.policy.equipment),
                binding=binding,
                trail_head=trail_head,
            )

        root = equipment_root(equipment)
        holder_of_root = {"pid": os.getpid(), "host": self._host, "state_dir": str(self.state_dir)}
        root_lock = EquipmentRootLock(root, holder=holder_of_root)
        return LaneSetup(equipment, root, DiskRunScanner(), make_ports, root_lock)

    def _release_roots(self) -> None:
        # A thread that hangs in a dead mount may yet wake and write: such a root goes with the process.
        if self.engine is not None and self.engine.is_drained:
            for lane in self.engine.lanes.values():
                lane.root_lock.release()

    def _checkpoint(self) -> None:
        """Spare the next start the replay. Raises: StoreWriteError."""
        try:
            self.store.checkpoint()
        except StoreFullError as error:  # The trail has everything, so nothing but time is lost.
            log.warning("%s", error)

    def _open_log(self) -> None:
        handler = CentralLog(
            self.state_dir / LOG_FOLDER / "agent.log",
            size_bytes_max=int(self.settings.logging.central_log_max_mb * 1024 * 1024),
            kept=self.settings.logging.central_log_keep,
        )
        package = logging.getLogger("exlab_watch_agent")
        package.setLevel(self.settings.logging.level)
        package.addHandler(handler)
        package.propagate = False
        self._log_handler = handler

    def _say_who_holds(self) -> None:
        """Say who holds the folder, and whether it waits for room: in place, because this must work on a full disk, too."""
        said = {"pid": os.getpid(), "host": self._host, "since": self._since, "version": __version__}
        self._try(HOLDER_NAME, lambda: holder.say(self.state_dir / HOLDER_NAME, said | {"paused": self.paused}))

    def _try(self, what: str, write: Callable[[], object]) -> None:
        """Write what is not needed for any run's safety; that it cannot be written is said once, not at every try."""
        try:
            write()
            self._unwritten.discard(what)
        except OSError as error:
            if what not in self._unwritten:
                log.warning("%s cannot be written (%s): it is tried again.", what, error.strerror)
            self._unwritten.add(what)

    def _prepare_inbox(self) -> None:
        try:
            self._inbox.prepare()
        except OSError as error:
            raise StateFolderError(
                f"{self._inbox.folder} cannot be made ({error.strerror}): make room or mend the disk, then start again."
            ) from error

    @property
    def paused(self) -> str | None:
        """Why nothing is decided now, in one sentence with the next step; None in ordinary times."""
        pause = self.engine.pause if self.engine is not None else None
        return f"since {utc_text(pause.since)}: {pause.reason}" if pause is not None else None

    def _notify(self, text: str) -> None:
        """Say something of the whole agent: to the log, and to whoever runs it."""
        log.warning("%s", text)
        self._on_notice(text)

    def _tell_of_pause(self) -> None:
        paused = self.paused
        if paused == self._pause_said:
            return
        self._pause_said = paused
        self._say_who_holds()
        self._notify(
            f"paused {paused}" if paused is not None else "There is room again: the agent goes on where it was."
        )
        self._nas_heartbeats.clear()  # From the NAS it is to be seen at once, too.
        self._last.pop("heartbeat", None)

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
        self._oldest.moved(record)
        self._run_log.put(record, move)
        if self._extra_on_move is not None:
            self._extra_on_move(record, move)

    def _on_pass(self) -> None:
        """What has to happen now and then, from the engine's loop, which comes by at least once a second."""
        self._tell_of_pause()
        if self._watcher is not None and (paths := self._watcher.take()):
            self._post(Noticed(paths))
        # A request that would be refused is better left where it is: it is obeyed when there is room.
        if self.paused is None and (self._inbox_has_news or self._is_time("inbox", INBOX_EVERY_S)):
            self._inbox_has_news = False
            self._take_requests()
        if self._is_time("live", self._live_every_s):
            self._publish()
        if self._watcher is not None and self._is_time("supervise", SUPERVISE_EVERY_S):
            self._watcher.supervise()
            self._scan_what_is_not_seen(self._watcher)
        if self._is_time("heartbeat", HEARTBEAT_EVERY_S):
            self._beat()

    def _scan_what_is_not_seen(self, watcher: Watcher) -> None:
        """Look through a root as soon as its watching fails: most often because the root itself has gone."""
        degraded = {lane_id for lane_id, health in watcher.health().items() if health.is_degraded}
        if new := tuple(sorted(degraded - self._not_seen)):
            self._post(ScanWanted(new))
        self._not_seen = degraded

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
        unreadable: dict[str, dict[str, Any]] = {}
        for job_id, view in list(engine.views.items()):
            if view.reason:
                waiting[job_id] = printable(view.reason)
            if view.problem:
                run_problems[job_id] = printable(view.problem)
            if view.unreadable and (record := self.store.get(job_id)) is not None:
                said = {"message": printable(view.unreadable), "looks": view.unreadable_looks}
                unreadable[printable(record.run_path)] = said
        return {
            "schema": 1,
            "at": utc_text(self._clock.now()),
            "lanes": self._lanes_json(),
            "observer": self._observer_json(),
            "progress": self._progress_json(),
            "waiting": waiting,
            "run_problems": run_problems,
            "unreadable": unreadable,
            "path_problems": {printable(path): printable(text) for path, text in engine.path_problems.items()},
            "orphans": [finding.to_json() for finding in engine.orphans()],
            "refused_after_sync": {
                job_id: [finding.rule_detail for finding in findings]
                for job_id, findings in engine.refused_after_sync().items()
            },
        }

    def _lanes_json(self) -> dict[str, Any]:
        assert self.engine is not None, "open() comes first"
        return {lane_id: self._lane_json(lane) for lane_id, lane in self.engine.lanes.items()}

    def _progress_json(self) -> dict[str, Any]:
        assert self.engine is not None, "open() comes first"
        return {
            job_id: {"bytes_done": p.bytes_done, "files_done": p.files_done, "seconds": round(seconds, 1)}
            for job_id, (p, seconds) in self.engine.progress().items()
        }

    def _observer_json(self) -> dict[str, Any]:
        """Return how each root is watched; `kind` is `mixed` where that differs."""
        if self._watcher is None:
            return {"kind": "scan", "degraded": False, "restarts": 0, "roots": {}}
        roots = self._watcher.health()
        kinds = {health.kind for health in roots.values()}
        return {
            "kind": kinds.pop() if len(kinds) == 1 else "mixed",
            "degraded": any(health.is_degraded for health in roots.values()),
            "restarts": self._watcher.restarts,
            "watches_allowed": self._watches_allowed,
            "roots": {lane_id: _health_json(health) for lane_id, health in roots.items()},
        }

    def _lane_json(self, lane: Lane) -> dict[str, Any]:
        before = self._lanes_before.get(lane.equipment.equipment_id, {})
        return {
            "destination": lane.ports.transport.describe(),
            "waiting_since": utc_text(lane.waiting_since) if lane.waiting_since is not None else None,
            "waiting_reason": lane.waiting_reason,
            "waiting_kind": lane.wait.code,
            "waiting_command": lane.wait.command,
            "root_problem": lane.root_problem,
            "last_scan_at": utc_text(lane.last_scan_at) if lane.last_scan_at is not None else None,
            "last_success_at": utc_text(lane.last_success_at) if lane.last_success_at is not None else None,
            **(_still_waits(before) if not _has_asked(lane, before) else {}),
        }

    def problems(self) -> list[Problem]:
        """Return what needs a person once this agent has ended, of all that it was to look after."""
        assert self.engine is not None, "open() comes first"
        live, at = self.live(), Moment(self._clock.now(), is_ended=True)
        known = frozenset(self.engine.lanes)
        if self._only is None:
            hold = self.store.hold
            return problems(self.store, live, policy=self.policy, known_equipment=known, at=at, hold=hold)
        records = [record for record in self.store if record.run_path in self._only]
        places = [
            place_of(path, {lane_id: lane.root for lane_id, lane in self.engine.lanes.items()}) for path in self._only
        ]
        concerned = {place.equipment_id for place in places if place is not None}
        live["lanes"] = {lane_id: lane for lane_id, lane in live["lanes"].items() if lane_id in concerned}
        return problems(records, live, policy=self.policy, known_equipment=known, at=at)

    def _publish(self, *, force: bool = False) -> None:
        """Leave the live view for other processes, when it is another than before. Not durable: it is true now or not at all."""
        assert self.engine is not None, "open() comes first"
        # Cheap to ask, and the same for as long as nothing that is shown has changed: then nothing is gone through.
        shown = self.engine.told, self._lanes_json(), self._observer_json(), self._progress_json()
        if shown == self._shown and not force:
            return
        began_s = self._clock.monotonic_s()
        text = json.dumps(self.live())
        self._try(LIVE_NAME, lambda: self._write_live(text, shown))
        self._live_every_s = max(LIVE_EVERY_S, LIVE_DUTY * (self._clock.monotonic_s() - began_s))

    def _write_live(self, text: str, shown: tuple[Any, ...]) -> None:
        path = self.state_dir / LIVE_NAME
        temporary = path.with_suffix(".tmp")
        try:
            with open(temporary, "w", encoding="utf-8", opener=open_private) as file:
                file.write(text)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        self._shown = shown

    def _unsettled(self) -> Iterator[RunRecord]:
        """Yield the records of the runs that do not rest sealed: few, where all is well."""
        for job_id in self.store.ids_in([state for state in RunState if state not in SETTLED_STATES]):
            record = self.store.get(job_id)
            if record is not None:
                yield record

    def heartbeat(self) -> dict[str, Any]:
        """Return what the heartbeat says."""
        assert self.engine is not None, "open() comes first"
        found = self.store.counts()
        return {
            "schema": 1,
            "at": utc_text(self._clock.now()),
            "host": self._host,
            "pid": os.getpid(),
            "version": __version__,
            "counts": {state.value: found[state] for state in CHART.states if found.get(state)},
            "oldest_unsynced": self._oldest.find(self.store.get),
            "lanes": self._lanes_json(),
            "observer": self._observer_json(),
            "audit": {"seq": self.store.head.seq, "blake3": self.store.head.digest},
            "paused": self.paused,
            "hold": self.store.hold,
        }

    def _beat_here(self) -> bytes:
        data = (json.dumps(self.heartbeat(), indent=2) + "\n").encode()
        self._try(HEARTBEAT_NAME, lambda: write_atomically(self.state_dir / HEARTBEAT_NAME, data, mode=0o600))
        return data

    def _beat(self) -> None:
        data = self._beat_here()
        assert self.engine is not None, "open() comes first"
        for lane_id, lane in self.engine.lanes.items():
            is_known = lane.ports.marker_id() is not None and lane.waiting_since is None
            now_s = self._clock.monotonic_s()
            if is_known and now_s - self._nas_heartbeats.get(lane_id, -NAS_HEARTBEAT_EVERY_S) >= NAS_HEARTBEAT_EVERY_S:
                self._nas_heartbeats[lane_id] = now_s
                with suppress(RuntimeError):  # the executor is closed while the agent stops
                    lane.eyes.submit(self._beat_on_nas, lane, data)

    def _beat_on_all(self) -> None:
        assert self.engine is not None, "open() comes first"
        data = self._beat_here()
        for lane in self.engine.lanes.values():
            if lane.ports.marker_id() is not None and lane.waiting_since is None:
                self._beat_on_nas(lane, data)

    def _beat_on_nas(self, lane: Lane, data: bytes) -> None:
        try:
            lane.ports.transport.require_marker(expected_marker_id=lane.ports.marker_id())
        except DestinationUnreachableError as error:  # said to people as any other wait for the NAS
            self._post(DestinationLost(lane.equipment.equipment_id, error))
            return
        try:
            ask_destination(lane.ports, is_full=True)
            lane.ports.transport.write_small(f".exlab-watch-agent/{self._host}.json", data)
        except AgentError as error:  # it may still be read, and audited
            log.warning("the heartbeat could not be placed on the NAS: %s", error)


def read_live(state_dir: Path) -> dict[str, Any]:
    """Return the live view that an agent left, which is true only while it runs; empty where there is none."""
    try:
        return dict(json.loads((state_dir / LIVE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def lanes_of(left: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lanes of a live view that an agent left, each with the time `at` at which it was so."""
    return {lane_id: {"at": left.get("at"), **lane} for lane_id, lane in left.get("lanes", {}).items()}


def _has_asked(lane: Lane, before: Mapping[str, Any]) -> bool:
    """Return whether this agent knows by itself how it is with a destination that an earlier one was waiting for.

    One that was started for single runs, or works on none, asks few or none; what is not asked stays as it was found.
    """
    since = before.get("waiting_since")
    has_answered = lane.asked_fully_s >= 0
    if since is None or lane.waiting_since is not None or has_answered:
        return True
    return lane.last_success_at is not None and lane.last_success_at > datetime.fromisoformat(since)


def _still_waits(before: Mapping[str, Any]) -> dict[str, Any]:
    return {name: before[name] for name in before if name == "at" or name.startswith("waiting_")}


def _health_json(health: Health) -> dict[str, Any]:
    return {
        "kind": health.kind,
        "degraded": health.is_degraded,
        "reason": printable(health.reason),
        "command": health.command,
        "watches": health.watches,
        "missing": health.missing,
        "let_go": health.let_go,
        "canary": printable(health.canary),
    }


def leave_now(agent: Agent, code: int) -> None:
    """End the process at once where a thread hangs in a dead mount: waiting for it would be for ever."""
    if agent.engine is not None and not agent.engine.is_drained:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
