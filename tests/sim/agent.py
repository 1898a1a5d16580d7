"""One agent of a life: the real core, engine, handlers and store on one PC of the world in memory.

Calls that its engine hands to its executors wait in a list until somebody runs one. Inside a call, at every port, the agent may
be killed, and the world may go on first: that is how calls overlap. Decided here: what one agent is, and what is left of it.
Not here: when it acts, and what else goes on (simulation.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from exlab_watch_agent.acts.carry_out import carry_out
from exlab_watch_agent.adapters.local.durable import write_all
from exlab_watch_agent.adapters.state.layout import TRAIL_NAME
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.core.commands import command_of
from exlab_watch_agent.core.decide import Step, decide
from exlab_watch_agent.core.effects import (
    Admit,
    CarryCache,
    Effect,
    Inspect,
    PlaceHeartbeat,
    Precheck,
    Push,
    Seal,
    Verify,
    Work,
)
from exlab_watch_agent.core.events import Event, Outcome, Result
from exlab_watch_agent.core.facts import MachineAccepted
from exlab_watch_agent.core.policy import EquipmentPolicy, Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.messages import CommandGiven, Noticed
from exlab_watch_agent.errors import CancelledError, StateFolderError, StoreWriteError
from exlab_watch_agent.ports import AgentSelf, Control, Entry, Ports, one_after_the_other
from exlab_watch_agent.statechart import CHART
from tests.sim.environment import Environment
from tests.sim.oracle import Oracle
from tests.sim.ports import (
    FAULTS,
    FaultyTransport,
    KillableManifestStore,
    MemoryApartness,
    MemoryCreations,
    MemoryDigester,
    MemoryScanner,
    MemorySealer,
    MemoryTree,
    OurRoot,
)
from tests.sim.world import LOCAL_ROOT, Killed, Violation, World

DEPTH_MAX = 3
BEAT_S = 6 * 3600.0
"""How often it leaves a sign of life; the real one does so every 15 minutes."""
STATE_DIR = "/var/lib/exlab-watch-agent"


@dataclass
class Call:
    """A call that waits in an executor."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    is_slow: bool = False

    @property
    def job_id(self) -> str | None:
        """Whose work it is; None for looks, scans and the like."""
        effect = self.arguments[0]
        return effect.job_id if isinstance(effect, Push | Precheck | Verify | Seal) else None

    def __str__(self) -> str:
        return type(self.arguments[0]).__name__


@dataclass(frozen=True)
class Surroundings:
    """What an agent asks of the life that it is part of. `meanwhile`: lets others act while it waits at a port; `log`: keeps a
    line for whoever looks at a life that failed. `script`: faults of the copies in order, None for chance."""

    new_job_id: Callable[[], str]
    meanwhile: Callable[[Agent], None]
    let_time_pass: Callable[[Agent], None]
    log: Callable[[Agent, str], None]
    script: str | None = None


@dataclass
class Agent:
    """An agent, its PC, and whoever watches it.

    `host`, `machine`: as others see the PC. While the agent does not run, `engine` and `store` are None; it does not start before
    `back_s` (monotonic). `calls` wait in its executors, `running` are under way, `events` would be told by a watcher.
    `in_flight`, `torn`: the commit under way, and what a kill left of it in the trail. `home`: the machine that its state folder
    is at home on, empty before it has one.
    """

    number: int
    folder: Path
    world: World
    policy: Policy
    oracle: Oracle
    life: Surroundings
    host: str = "lab"
    machine: str = "1" * 32
    environment: Environment = field(init=False)
    store: RunStore | None = None
    engine: Engine | None = None
    calls: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    depth: int = 0
    is_in_loop: bool = False
    back_s: float = 0.0
    torn: bytes = b""
    in_flight: Sequence[Entry] = ()
    home: str = ""
    copies_kept: int = 0
    _beaten_s: float = 0.0

    def __post_init__(self) -> None:
        self.clock, self.fate, self.random = self.world.clock, self.world.fate, self.world.fate.random
        self.environment = Environment(self.world, self.policy, self.operate)
        self.oracle.is_admitted = self.environment.is_admitted
        self.world.port = self.port
        self.world.notice = self.notice

    @property
    def state_folder(self) -> Path:
        return self.folder / "state"

    # --- its life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start on what is left in the state folder."""
        self.store = self.oracle.store = _WatchedStore(self)
        try:
            self.store.open()
        except StateFolderError as error:
            raise Killed("a state folder in which there is no room, at which the agent ends") from error
        is_elsewhere = bool(self.home) and self.home != self.machine
        if is_elsewhere and self.store.hold is None:
            raise Violation("a state folder of another machine was opened, and deletion is not held")
        self.home = self.home or self.machine
        itself = AgentSelf(
            self.store.folder_id,
            self.host,
            self.machine,
            STATE_DIR,
            is_gone=lambda path: path != STATE_DIR,
            has_line=self.store.has_line,
        )
        self.oracle.me = itself
        self.oracle.store_was_read({record.job_id: record for record in self.store}, self.in_flight)
        self.in_flight = ()
        self.oracle.agent_starts()
        self._beaten_s = self.clock.mono_s - BEAT_S
        self.engine = Engine(
            store=self.store,
            lanes=[self._lane(equipment, itself) for equipment in self.policy.equipment],
            policy=self.policy,
            clock=self.clock,
            now_local=self.clock.now,
            anchor=self._anchor,
            on_pass=self._beat,
            carry_out=self.carry_out,
            decide=self.decide,
            new_job_id=self.life.new_job_id,
            make_executor=lambda _: self,  # type: ignore[arg-type,return-value]
            make_side_by_side=lambda _: one_after_the_other,
        )
        self.in_loop(self.engine.begin)

    def _lane(self, equipment: EquipmentPolicy, itself: AgentSelf) -> Ports:
        nas = self.world.nas[equipment.equipment_id]
        faults = self._fault if self.life.script is None else self.life.script
        return Ports(
            clock=self.clock,
            tree=MemoryTree(self.world),
            creations=MemoryCreations(self.world, self.oracle.status_is_written),
            digester=MemoryDigester(self.world),
            scanner=MemoryScanner(self.world),
            root_lock=OurRoot(),
            transport=FaultyTransport(self.world, nas, faults, self.oracle.nas_is_written),
            manifests=KillableManifestStore(self.world, self.state_folder / "manifests"),
            sealer=MemorySealer(self.world),
            equipment=equipment,
            root=f"{LOCAL_ROOT}/{equipment.equipment_id}",
            policy=self.policy,
            apartness=MemoryApartness(nas),
            agent=itself,
        )

    def _fault(self, method: str) -> str:
        return self.random.choice(FAULTS) if self.fate.happens(self.fate.p_fault) else "ok"

    def _anchor(self) -> Mapping[str, str | int]:
        assert self.store is not None
        head = self.store.head
        at = utc_text(self.clock.now())
        return {"host": self.host, "audit_seq": head.seq, "audit_blake3": head.digest, "sealed_at": at}

    def _beat(self) -> None:
        """Leave a sign of life where the NAS answers."""
        if self.engine is None or self.store is None or self.clock.mono_s - self._beaten_s < BEAT_S:
            return
        self._beaten_s = self.clock.mono_s
        said = {
            "at": utc_text(self.clock.now()),
            "host": self.host,
            "state_folder": self.store.folder_id,
            "machine": self.machine,
            "path": STATE_DIR,
        }
        for lane in self.engine.lanes.values():
            if lane.away is None and lane.binding is not None:
                self.engine.place(PlaceHeartbeat(lane.equipment_id, self.host, json.dumps(said).encode()))

    def die(self, why: str) -> None:
        """The process is gone: no call ends, nothing is written any more; only what is on the disks is left."""
        self.log(f"KILLED at {why}")
        self.oracle.count("killed")
        assert self.store is not None
        self.store.close()  # the system closes files and drops locks
        with (self.state_folder / TRAIL_NAME).open("ab") as file:
            file.write(self.torn)
        self.torn = b""
        self.store = self.engine = self.oracle.store = None
        self.calls.clear()
        self.running.clear()
        self.events.clear()
        self.oracle.windows.clear()
        self.oracle.looking.clear()
        self.depth = 0
        self.is_in_loop = False
        if self.oracle.counts["killed"] % 3 == 0:
            self.clock.reboot()

    # --- what becomes of its state folder while it does not run --------------------------------------------------------

    def keep_a_copy(self) -> Path:
        """Copy the state folder as it is; return where to."""
        self.copies_kept += 1
        copy = self.folder / f"copy-{self.copies_kept}"
        shutil.copytree(self.state_folder, copy)
        return copy

    def lose_state(self) -> None:
        shutil.rmtree(self.state_folder)
        self.home = ""
        self._know_nothing("the state folder is lost")

    def take_state(self, copy: Path, *, home: str) -> None:
        """Put a copy of a state folder, of this agent's or of another's, in the place of the state folder. `home`: the machine on
        which that one was first opened."""
        shutil.rmtree(self.state_folder, ignore_errors=True)
        shutil.copytree(copy, self.state_folder)
        self.home = home
        self._know_nothing("another copy of a state folder is there")

    def _know_nothing(self, what: str) -> None:
        self.log(what)
        self.oracle.count(what)
        self.in_flight = ()
        self.oracle.state_was_replaced()

    # --- executor ----------------------------------------------------------------------------------------------------

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Implements Executor.submit as far as the engine uses it. A fast thread may be done before it returns."""
        if isinstance(arguments[0], Inspect | Admit):
            self.looks.append(arguments[0].place.run_path)
        call = Call(function, arguments, self.fate.happens(self.fate.p_slow))
        if call.job_id is not None and any(other.job_id == call.job_id for other in [*self.calls, *self.running]):
            raise Violation(f"two effects of one run at the same time: {call.arguments[0]}")
        if self.depth < DEPTH_MAX and self.fate.happens(self.fate.p_at_once):
            self.run(call)
        else:
            self.calls.append(call)

    def run(self, call: Call) -> None:
        self.log(f"run {call}")
        self.depth += 1
        self.running.append(call)
        call.function(*call.arguments)
        self.running.remove(call)
        self.depth -= 1

    def next_call(self) -> Call:
        """Any call that waits; a slow one only now and then, so that much happens before it is done."""
        fast = [call for call in self.calls if not call.is_slow]
        call = self.random.choice(fast if fast and self.random.random() < 0.95 else self.calls)
        self.calls.remove(call)
        return call

    def carry_out(self, effect: Effect, ports: Ports, control: Control) -> Result:
        """The real one, watched where it is work or is to start a push."""
        if isinstance(effect, Push | Precheck | Verify | Seal):
            return self._work(effect, ports, control)
        if isinstance(effect, CarryCache):
            return self._carry_cache(effect, ports, control)
        if not isinstance(effect, Admit):
            return carry_out(effect, ports, control)
        self.oracle.look_begins(effect.place.run_path)
        result = carry_out(effect, ports, control)
        self.oracle.look_ends(effect.place.run_path)
        return result

    def _work(self, effect: Work, ports: Ports, control: Control) -> Outcome:
        window = self.oracle.effect_begins(effect)
        self.log(f"begin {type(effect).__name__} {effect.run_path[-30:]} turn {effect.turn}")
        try:
            outcome = carry_out(effect, ports, control)
        except CancelledError:
            self.oracle.effect_ends(window, None)
            raise
        assert isinstance(outcome, Outcome)
        self.oracle.effect_ends(window, outcome)
        self.log(f"end {type(effect).__name__} {effect.run_path[-30:]}: {outcome}"[:300])
        return outcome

    def _carry_cache(self, effect: CarryCache, ports: Ports, control: Control) -> Result:
        window = self.oracle.carrying_begins(effect)
        carried = None
        try:
            carried = carry_out(effect, ports, control)
        finally:
            self.oracle.carrying_ends(window, carried)
        return carried

    def decide(self, record: RunRecord, event: Event, *, now: datetime, policy: Policy) -> Step:
        """The real one, watched."""
        step = decide(record, event, now=now, policy=policy)
        self.oracle.decided(record, event, step)
        return step

    # --- one step ----------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Do one thing that is to be done: take in an event, turn the loop over, run a call, or let time pass."""
        assert self.engine is not None
        if self.events and self.random.random() < 0.5:
            self._deliver()
        draw = self.random.random()
        patience = 0.95 if any(not call.is_slow for call in self.calls) else 0.3
        if self.engine.has_messages and draw < 0.6:
            self.turn_over()
        elif self.calls and draw < patience:
            self.run(self.next_call())
        else:
            self.life.let_time_pass(self)
            self.turn_over()

    def port(self, name: str) -> None:
        """At every call of a port: the process may end here, and the rest of the world goes on meanwhile."""
        if self.fate.happens(self.fate.p_kill):
            raise Killed(name)
        if self.depth <= DEPTH_MAX and self.fate.happens(self.fate.p_breathe):
            self.depth += 1
            draw = self.random.random()
            if draw < 0.5:
                self.life.meanwhile(self)
            elif draw < 0.7 and self.calls:
                self.run(self.next_call())
            elif draw < 0.95 and not self.is_in_loop:
                self.turn_over()
            elif not self.is_in_loop:
                self.life.let_time_pass(self)
            self.depth -= 1

    def turn_over(self) -> None:
        """One pass of the engine's loop over what waits, or over a part of it."""
        assert self.engine is not None
        if self.is_in_loop:
            return
        messages = self.engine.waiting_messages()
        if len(messages) > 1 and self.random.random() < 0.3:
            keep = self.random.randrange(1, len(messages))
            for message in messages[keep:]:
                self.engine.post(message)
            del messages[keep:]
        self.in_loop(lambda: self.engine.turn_over(messages))  # type: ignore[union-attr]

    def in_loop(self, action: Callable[[], None]) -> None:
        self.is_in_loop = True
        try:
            action()
        except StoreWriteError as error:
            raise Killed("a store that cannot write, at which the engine stops") from error
        self.is_in_loop = False

    def path_to_aim_at(self) -> str:
        """The run that is being worked on, or a sealed one that is in trouble: there the rules are at their hardest."""
        windows = self.oracle.windows
        if windows and self.random.random() < self.fate.p_aimed:
            return windows[-1].effect.run_path
        in_trouble = [
            record.run_path
            for record in self.oracle.acknowledged.values()
            if record.is_sealed and record.state not in CHART.settled
        ]
        return self.random.choice(in_trouble) if in_trouble and self.random.random() < self.fate.p_aimed else ""

    def due_in_s(self) -> float:
        """In how many seconds something is due."""
        due_s = self.engine.next_due_s() if self.engine is not None else None
        return max(0.0, (due_s if due_s is not None else self.clock.mono_s) - self.clock.mono_s)

    # --- undisturbed ---------------------------------------------------------------------------------------------------

    def do_all_there_is(self, *, hold: str = "") -> bool:
        """Do what can be done now; return whether there was anything. `hold`: calls of this name do not come on."""
        if self.engine is None:
            return False
        is_any = False
        while ready := [call for call in self.calls if str(call) != hold]:
            self.calls.remove(ready[0])
            self.run(ready[0])
            is_any = True
        if self.engine.has_messages or self.events:
            for path in self.events:
                self.engine.post(Noticed((path,)))
            self.events.clear()
            self.in_loop(self.engine.turn_over)
            is_any = True
        return is_any

    # --- events and commands -----------------------------------------------------------------------------------------

    def notice(self, path: str) -> None:
        """What a watcher would say, unless it is lost; perhaps twice, later, and in another order."""
        if self.engine is None or self.random.random() < self.fate.p_event_lost:
            return
        self.events.append(path)
        if self.random.random() < 0.1:
            self.events.append(path)

    def _deliver(self) -> None:
        assert self.engine is not None
        path = self.events.pop(self.random.randrange(len(self.events)))
        self.engine.post(Noticed((path,)))

    def operate(self, request: dict[str, Any]) -> None:
        """An operator gives the agent a command, where it runs."""
        if self.engine is not None:
            self.engine.post(CommandGiven(command_of(request), lambda _: self.oracle.waits_are_void()))

    def log(self, text: str) -> None:
        self.life.log(self, text)

    # --- the store ---------------------------------------------------------------------------------------------------

    def write_trail(self, descriptor: int, data: bytes) -> None:
        """The one write of a commit: it may be torn by a kill, or the disk may be full."""
        if self.fate.happens(self.fate.p_kill * 3):
            self.torn = data[: self.random.randrange(len(data) + 1)]
            raise Killed("the write of the trail")
        if self.fate.happens(self.fate.p_kill / 2):
            write_all(descriptor, data[: self.random.randrange(len(data) + 1)])
            raise OSError(28, "No space left on device")
        write_all(descriptor, data)

    def commit(self, entries: Sequence[Entry], at: datetime) -> None:
        self.in_flight = list(entries)
        try:
            RunStore.commit(self.store, entries, at=at)  # type: ignore[arg-type]
        except StoreWriteError:
            self.in_flight = ()
            raise
        self.in_flight = ()
        for entry in entries:
            if entry.kind == MachineAccepted.kind:
                self.home = self.machine
            if entry.move is not None and entry.record is not None:
                self.log(
                    f"{entry.record.run_path[-30:]} {entry.move.source} -> {entry.move.dest} "
                    f"({entry.move.trigger}: {entry.move.reason}) turn {entry.record.turn}"
                )
        self.oracle.committed(entries)
        if self.fate.happens(self.fate.p_kill):
            raise Killed("the moment after a commit")


class _WatchedStore(RunStore):
    """The real store; the simulation is at its commits."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(
            agent.state_folder,
            checkpoint_lines=20,
            write_trail=agent.write_trail,
            host="lab",
            machine=agent.machine,
            clock=agent.clock,
        )
        self._agent = agent

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        self._agent.commit(entries, at)
