"""The life of an agent over one state folder: open, run, stop, close. Of what it is made is said in build.py.

Beside the engine it runs what is about the whole machine and not about one run: the watching (watching.py), operators'
requests from the inbox, and what others read of it (publish.py).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.durable import remove_temporaries
from exlab_watch_agent.adapters.local.overlaps import misplaced_state_folder
from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.watching.keeper import WatchedRoot
from exlab_watch_agent.app.build import (
    Parts,
    Scope,
    close_log,
    open_log,
    parts_of,
    ports_of,
)
from exlab_watch_agent.app.config_file import ConfigSource, ConfigWatch
from exlab_watch_agent.app.pace import PACE, Pace
from exlab_watch_agent.app.publish import (
    Attempts,
    Every,
    HolderFile,
    Publisher,
)
from exlab_watch_agent.app.reloading import Reloading
from exlab_watch_agent.app.requests import Requests
from exlab_watch_agent.app.snapshots import ScannedLane, paused_of, scanned_of
from exlab_watch_agent.app.telling import publisher_of
from exlab_watch_agent.app.watching import Watching
from exlab_watch_agent.config.load import Settings
from exlab_watch_agent.core.commands import AgentCommand, Reload
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.snapshot import ObserverView, ProgressView, Snapshot
from exlab_watch_agent.core.standing import Ending
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.messages import Answer, CommandGiven, Woken
from exlab_watch_agent.errors import AgentError, StateFolderError, StoreFullError
from exlab_watch_agent.ports import Ports, Transport
from exlab_watch_agent.statechart import CHART

log = logging.getLogger(__name__)

EVERYTHING = Scope()


class Agent:
    """A watch agent over one state folder. `run` blocks; `stop` may be called from any thread or signal handler.

    `on_move` is told of each move once it is durable, `on_notice` of what concerns the whole agent, and of what needs a person
    when that begins and ends. `transport_factory` gives the way to an equipment's NAS in the stead of the configured one.
    `flags`: what each command needs behind it to mean this agent. `source`: where its config is read anew; `lock`: see RunStore.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path | None = None,
        scope: Scope = EVERYTHING,
        on_move: Callable[[RunRecord, Move], None] = lambda *_: None,
        on_notice: Callable[[str], None] = lambda _: None,
        transport_factory: Callable[[EquipmentPolicy], Transport] | None = None,
        clock: SystemClock | None = None,
        pace: Pace = PACE,
        flags: str = "",
        source: ConfigSource | None = None,
        lock: FileLock | None = None,
    ) -> None:
        self._flags = flags
        self._source = source
        self._parts: Parts = parts_of(settings, state_dir=state_dir, clock=clock or SystemClock(), pace=pace, lock=lock)
        self._scope = scope
        self._tell_of_move = on_move
        self._on_notice = on_notice
        self._transport_factory = transport_factory or self._parts.make_transport
        self._requests = Requests(self._parts.inbox, self._parts.clock, self._parts.pace.inbox_every_s)
        self._supervise = Every(self._parts.clock, pace.supervise_every_s)
        self._watching: Watching | None = None
        self._log_handler: logging.Handler | None = None
        self._lanes: list[Ports] = []
        self._running: tuple[Engine, Publisher, Reloading] | None = None
        self._is_stopping = False
        self._has_run = False
        self._has_ended_well = False

    @property
    def store(self) -> RunStore:
        return self._parts.store

    @property
    def engine(self) -> Engine | None:
        """The engine, None before `open`."""
        return self._running[0] if self._running is not None else None

    @property
    def successor(self) -> Settings | None:
        """The config that another agent is to go on with once this one has ended; None where it was not ended for that."""
        return self._running[2].successor if self._running is not None else None

    @property
    def _open_engine(self) -> Engine:
        assert self._running is not None, "open() comes first"
        return self._running[0]

    @property
    def _publisher(self) -> Publisher:
        assert self._running is not None, "open() comes first"
        return self._running[1]

    @property
    def _reloading(self) -> Reloading:
        assert self._running is not None, "open() comes first"
        return self._running[2]

    def make_transport(self, equipment: EquipmentPolicy) -> Transport:
        """Return the configured transport of an equipment; its programs live and end with this agent."""
        return self._parts.make_transport(equipment)

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the state folder and put the parts together; nothing runs yet.

        Raises: StateFolderError, ConfigError.
        """
        parts = self._parts
        self._lanes = [
            ports_of(
                item,
                parts.policy,
                self._transport_factory(item),
                state_dir=parts.state_dir,
                clock=parts.clock,
                old_files=parts.old_files,
            )
            for item in parts.policy.equipment
        ]
        if misplaced := misplaced_state_folder(str(parts.state_dir), parts.policy):
            raise StateFolderError(misplaced)
        require_private(parts.state_dir)
        parts.store.open()
        try:
            parts.children.end_leftovers()  # before anything new writes to where a killed agent's child still writes
            self._log_handler = open_log(parts)
            for notice in parts.store.notices:
                self._notify(notice)
            for folder in (parts.state_dir, StateLayout(parts.state_dir).manifests):
                remove_temporaries(folder)  # The lock is ours, so they are those of an agent that was killed.
            attempts = Attempts()
            holder_file = HolderFile(parts, attempts)
            holder_file.say()
            self._requests.prepare()
            parts.run_log.start()
            parts.old_files.start()
            engine = Engine(
                store=parts.store,
                lanes=[replace(ports, agent=parts.itself()) for ports in self._lanes],
                policy=parts.policy,
                clock=parts.clock,
                now_local=parts.clock.now_local,
                anchor=parts.anchor,
                hints=self._hints,
                on_move=self._on_move,
                on_pass=self._on_pass,
                is_working=self._scope.is_working,
                only=self._only(),
                pace=parts.pace.engine,
                on_taken_up=lambda record: self._publisher.attending.take_up(record),
            )
            watch = ConfigWatch(
                parts.settings,
                self._source,
                state_dir=parts.state_dir,
                clock=parts.clock,
                steady_s=parts.pace.config_steady_s,
                busy_s=parts.pace.config_busy_s,
            )
            publisher = publisher_of(
                parts,
                engine,
                self._scope,
                flags=self._flags,
                holder_file=holder_file,
                attempts=attempts,
                observer=self._observer,
                config=watch,
            )
            self._running = engine, publisher, Reloading(watch, self._source, engine, self._notify)
        except BaseException:
            self.close()
            raise

    def _only(self) -> frozenset[str] | None:
        if self._scope.only_enqueued:
            return frozenset(record.run_path for record in self.store)
        return self._scope.only

    def run(self, *, until_rest: bool = False) -> None:
        """Work until `stop`, or until all runs rest. Raises: StoreWriteError."""
        engine = self._open_engine
        self._has_run = True
        log.info("agent %s started, chart %s, pid %d", __version__, CHART.version, os.getpid())
        if self._is_stopping:  # asked while the parts were put together
            engine.stop()
        if self._scope.is_watching:
            self._watching = Watching(
                engine,
                {
                    ports.equipment.equipment_id: WatchedRoot(ports.root, ports.equipment.observer)
                    for ports in self._lanes
                },
                self.store,
                self._parts.inbox.folder,
                on_inbox=self._on_inbox,
                pace=self._parts.pace.watching,
            )
        try:
            if self._watching is not None:
                self._watching.start()
            engine.run(until_rest=until_rest)
            self._has_ended_well = True
            if until_rest and self._scope.only is None and not self._is_stopping:
                self._publisher.beat_everywhere()  # the one that comes by time would hardly ever fall into so short a life
        finally:
            if self._watching is not None:
                self._watching.stop()

    def wake(self) -> None:
        """Have the loop come by at once; from any thread, and from a signal's handler."""
        if self.engine is not None:
            self.engine.post(Woken())

    def stop(self) -> None:
        self._is_stopping = True
        if self.engine is not None:
            self.engine.stop()

    def close(self) -> None:
        """Write what a start would otherwise have to replay, and release the state folder."""
        try:
            if self._running is not None:
                if self._has_run:
                    self._publisher.publish(is_last=True)
                    self._publisher.beat_here(is_last=True, is_in_order=self._has_ended_well)
                self._checkpoint()
        finally:
            self._close_transports()
            self._parts.old_files.close()
            self._parts.run_log.close()
            self._release_roots()
            log.info("agent stopped")
            if self._log_handler is not None:
                close_log(self._log_handler)
            self.store.close()

    def _checkpoint(self) -> None:
        """Spare the next start the replay. Raises: StoreWriteError."""
        try:
            self.store.checkpoint()
        except StoreFullError as error:  # The trail has everything, so nothing but time is lost.
            log.warning("%s", error)

    def _close_transports(self) -> None:
        for ports in self._lanes:
            with suppress(AgentError):  # what hangs in the system is found by the next start
                ports.transport.close()
        with suppress(AgentError):
            self._parts.children.close()

    def _release_roots(self) -> None:
        # A thread that hangs in a dead mount may yet wake and write: such a root goes with the process.
        if self.engine is not None and self.engine.is_drained:
            for ports in self._lanes:
                ports.root_lock.release()

    # --- what an operator asks ---------------------------------------------------------------------------------------

    def ask(self, command: AgentCommand, reply: Callable[[Answer], None]) -> None:
        """Have the engine obey a command; `reply` is called with the answer, on the engine's thread."""
        if isinstance(command, Reload):
            self._reloading.on_command(command, reply)
        else:
            self._open_engine.post(CommandGiven(command, reply))

    def bind(self, equipment_id: str, operator: str) -> str:
        """Bind an equipment's destination because an operator says that it is the right one; return what is to be said.

        For an agent that is open and does not run; a running one is asked through its inbox. Raises: AgentError.
        """
        return self._open_engine.bind(equipment_id, operator)

    # --- what is known -----------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return what is true only while the agent runs: progress, waits, reasons, health. From any thread."""
        return self._publisher.snapshot()

    def progress(self) -> dict[str, ProgressView]:
        """Return job id → how far its work is. From any thread."""
        return self._publisher.progress()

    def scanned(self) -> dict[str, ScannedLane]:
        """Return equipment id → what its last scan saw."""
        return scanned_of(self._open_engine)

    @property
    def paused(self) -> str | None:
        """Why nothing is decided now, in one sentence with the next step; None in ordinary times."""
        return paused_of(self.engine) if self.engine is not None else None

    def problems(self) -> tuple[Problem, ...]:
        """Return what needs a person once this agent has ended, of all that it was to look after."""
        snapshot, only = self.snapshot(), self._scope.only
        if only is None:
            return self._publisher.attending.of(self.store, snapshot, agent=Ending(), hold=self.store.hold)
        records = [record for record in self.store if record.run_path in only]
        places = [place_of(path, self._parts.roots) for path in only]
        concerned = {place.equipment_id for place in places if place is not None}
        lanes = {lane_id: lane for lane_id, lane in snapshot.lanes.items() if lane_id in concerned}
        return self._publisher.attending.of(records, replace(snapshot, lanes=lanes), agent=Ending())

    # --- beside the engine -------------------------------------------------------------------------------------------

    def _hints(self) -> tuple[str, ...]:
        return self._watching.hints() if self._watching is not None else ()

    def _observer(self) -> ObserverView:
        return self._watching.view() if self._watching is not None else ObserverView()

    def _notify(self, text: str) -> None:
        """Say something about the whole agent: to the log, and to the caller."""
        log.warning("%s", text)
        self._on_notice(text)

    def _on_inbox(self) -> None:
        self._requests.has_news = True
        self._open_engine.post(Woken())

    def _on_move(self, record: RunRecord, move: Move) -> None:
        self._publisher.on_move(record)
        self._parts.run_log.put(record, move)
        self._tell_of_move(record, move)

    def _on_pass(self) -> None:
        """What has to happen now and then, from the engine's loop, which comes by at least once a second."""
        if (news := self._publisher.news_of_pause()) is not None:
            self._notify(news)
        # A request that would be refused is better left where it is: it is obeyed when there is room.
        if self.paused is None:
            for command, reply in self._requests.take():
                self.ask(command, reply)
            self._reloading.in_time()
        if self._scope.is_watching:
            for line in self._publisher.news_in_time():
                self._notify(line)
        # First: of an agent that is killed in its first moments, whoever saw it live must hear that it is gone.
        self._publisher.beat_in_time()
        self._publisher.publish_in_time()
        self._publisher.log_progress_in_time()
        if self._watching is not None and self._supervise.is_time():
            self._watching.supervise()


def leave_now(agent: Agent, code: int) -> None:
    """End the process at once where a thread hangs in a dead mount: waiting for it would be for ever."""
    if agent.engine is not None and not agent.engine.is_drained:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
