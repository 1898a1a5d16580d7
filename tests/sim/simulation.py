"""One seeded life of the agent: the real core, engine, handlers and store in a world in memory that goes wrong.

Nothing runs in parallel and nothing waits. Calls that the engine hands to its executors wait in a list; every step runs
one of them, turns the engine's loop over, lets the environment act, moves the clock to the next timer, or kills the
agent. Inside a call, at every port, the same can happen once more (`_port`), which is how calls overlap.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from exlab_watch_agent.acts.carry_out import carry_out
from exlab_watch_agent.adapters.local.durable import write_all
from exlab_watch_agent.adapters.state.layout import TRAIL_NAME
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.transports.shared.own_files import claim_in
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.commands import command_of
from exlab_watch_agent.core.decide import Step, decide, is_short
from exlab_watch_agent.core.discovery import destination_of, place_of
from exlab_watch_agent.core.effects import Admit, Effect, Inspect, Precheck, Push, Seal, Verify, Work
from exlab_watch_agent.core.events import Event, Outcome, Result
from exlab_watch_agent.core.policy import CompletenessSignal, EquipmentPolicy, Layout, MountedPathTarget, Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.messages import CommandGiven, Noticed
from exlab_watch_agent.errors import CancelledError, StoreWriteError
from exlab_watch_agent.ports import Control, Entry, Ports, one_after_the_other
from exlab_watch_agent.statechart import CHART, RunState
from tests.sim.environment import Environment
from tests.sim.oracle import Oracle, what_is_wrong
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
from tests.sim.world import EXPECTED, LOCAL_ROOT, SENTINEL, Fate, Killed, Nas, SimRun, Violation, World, status_in

DEPTH_MAX = 3
LOOP_TURNS_MAX = 20_000
LANES = ("EQ_A", "EQ_B")
HOUR_S = 3600.0
TAKEN = ("destination_occupied", "claimed_by_other_agent", "claimed_unsealed", "differs_from_sealed_copy")


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


class Simulation:
    """One life. `script`: faults of the copies in order, for a life without any other trouble."""

    def __init__(self, seed: int, folder: Path, *, script: str | None = None, layout: Layout | None = None) -> None:
        self.seed = seed
        self._folder = folder
        self.fate = Fate(seed)
        self.random = self.fate.random
        self.world = World(self.fate)
        self.clock = self.world.clock
        self.policy = self._policy(layout)
        self.oracle = Oracle(self.world, settle_s=self.policy.settle_s)
        self.world.port = self._port
        self.world.notice = self._notice
        self.world.touch = self.oracle.world_changes
        self.world.nas = {lane: Nas(f"nas of {lane}") for lane in LANES}
        for nas in self.world.nas.values():
            nas.has_ranges = self.random.random() < 0.6
        self.environment = Environment(self.world, self.policy, self._operate)
        self.oracle.is_admitted = self.environment.is_admitted
        self._script = script
        self.fate.is_calm = script is not None
        self.trace: deque[str] = deque(maxlen=150)
        self._calls: list[Call] = []
        self._running: list[Call] = []
        self._events: list[str] = []
        self._depth = 0
        self._is_in_loop = False
        self._jobs = 0
        self.looks: list[str] = []
        self._in_flight: Sequence[Entry] = ()
        self._torn = b""
        self.store: RunStore | None = None
        self.engine: Engine | None = None

    def _policy(self, layout: Layout | None) -> Policy:
        signal = self.random.choice((CompletenessSignal.MANIFEST, CompletenessSignal.CREATION_JSON))
        return Policy(
            equipment=(
                EquipmentPolicy(
                    "EQ_A",
                    "A",
                    LOCAL_ROOT,
                    MountedPathTarget("/mnt/a"),
                    CompletenessSignal.SENTINEL_FILE,
                    sentinel_filename=SENTINEL,
                ),
                EquipmentPolicy(
                    "EQ_B", "B", LOCAL_ROOT, MountedPathTarget("/mnt/b"), signal, manifest_filename=EXPECTED
                ),
            ),
            rescan_s=HOUR_S,
            audit_interval_s=6 * HOUR_S,
            reread_s=12 * HOUR_S,
            layout=layout or self.random.choice(list(Layout)),
            pushes_max=self.random.choice((1, 2)),
        )

    # --- the agent's life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start an agent on what is left in the state folder."""
        self.store = _WatchedStore(self._folder / "state", self)
        self.store.open()
        self.oracle.store_was_read({record.job_id: record for record in self.store}, self._in_flight)
        self._in_flight = ()
        self.oracle.agent_starts()
        self.engine = Engine(
            store=self.store,
            lanes=[self._lane(equipment) for equipment in self.policy.equipment],
            policy=self.policy,
            clock=self.clock,
            now_local=self.clock.now,
            anchor=lambda: {"audit_seq": self.store.head.seq if self.store is not None else 0},
            carry_out=self.carry_out,
            decide=self.decide,
            new_job_id=self._new_job_id,
            make_executor=lambda _: self,  # type: ignore[arg-type,return-value]
            make_side_by_side=lambda _: one_after_the_other,
        )
        self._in_loop(self.engine.begin)

    def _lane(self, equipment: EquipmentPolicy) -> Ports:
        nas = self.world.nas[equipment.equipment_id]
        return Ports(
            clock=self.clock,
            tree=MemoryTree(self.world),
            creations=MemoryCreations(self.world, self.oracle.status_is_written),
            digester=MemoryDigester(self.world),
            scanner=MemoryScanner(self.world),
            root_lock=OurRoot(),
            transport=FaultyTransport(self.world, nas, self._script or self._fault, self.oracle.nas_is_written),
            manifests=KillableManifestStore(self.world, self._folder / "state" / "manifests"),
            sealer=MemorySealer(self.world),
            equipment=equipment,
            root=f"{LOCAL_ROOT}/{equipment.equipment_id}",
            policy=self.policy,
            apartness=MemoryApartness(nas),
        )

    def _new_job_id(self) -> str:
        self._jobs += 1
        return f"{self._jobs:032x}"

    def _fault(self, method: str) -> str:
        return self.random.choice(FAULTS) if self.fate.happens(self.fate.p_fault) else "ok"

    def die(self, why: str) -> None:
        """The process is gone: no call ends, nothing is written any more; only what is on the disks is left."""
        self._log(f"KILLED at {why}")
        self.oracle.count("killed")
        assert self.store is not None
        self.store.close()  # the system closes files and drops locks
        with (self._folder / "state" / TRAIL_NAME).open("ab") as file:
            file.write(self._torn)
        self._torn = b""
        self.store = self.engine = None
        self._calls.clear()
        self._running.clear()
        self._events.clear()
        self.oracle.windows.clear()
        self.oracle.looking.clear()
        self._depth = 0
        self._is_in_loop = False
        if self.oracle.counts["killed"] % 3 == 0:
            self.clock.reboot()

    # --- executor ----------------------------------------------------------------------------------------------------

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Implements Executor.submit as far as the engine uses it. A fast thread may be done before it returns."""
        if isinstance(arguments[0], Inspect | Admit):
            self.looks.append(arguments[0].place.run_path)
        call = Call(function, arguments, self.fate.happens(self.fate.p_slow))
        if call.job_id is not None and any(other.job_id == call.job_id for other in [*self._calls, *self._running]):
            raise Violation(f"two effects of one run at the same time: {call.arguments[0]}")
        if self._depth < DEPTH_MAX and self.fate.happens(self.fate.p_at_once):
            self._run(call)
        else:
            self._calls.append(call)

    def _run(self, call: Call) -> None:
        self._log(f"run {call}")
        self._depth += 1
        self._running.append(call)
        call.function(*call.arguments)
        self._running.remove(call)
        self._depth -= 1

    def _next_call(self) -> Call:
        """Any call that waits; a slow one only now and then, so that much happens before it is done."""
        fast = [call for call in self._calls if not call.is_slow]
        call = self.random.choice(fast if fast and self.random.random() < 0.95 else self._calls)
        self._calls.remove(call)
        return call

    def carry_out(self, effect: Effect, ports: Ports, control: Control) -> Result:
        """The real one, watched where it is work or is to start a push."""
        if isinstance(effect, Push | Precheck | Verify | Seal):
            return self._work(effect, ports, control)
        if not isinstance(effect, Admit):
            return carry_out(effect, ports, control)
        self.oracle.look_begins(effect.place.run_path)
        result = carry_out(effect, ports, control)
        self.oracle.look_ends(effect.place.run_path)
        return result

    def _work(self, effect: Work, ports: Ports, control: Control) -> Outcome:
        window = self.oracle.effect_begins(effect)
        self._log(f"begin {type(effect).__name__} {effect.run_path[-30:]} turn {effect.turn}")
        try:
            outcome = carry_out(effect, ports, control)
        except CancelledError:
            self.oracle.effect_ends(window, None)
            raise
        assert isinstance(outcome, Outcome)
        self.oracle.effect_ends(window, outcome)
        self._log(f"end {type(effect).__name__} {effect.run_path[-30:]}: {outcome}"[:300])
        return outcome

    def decide(self, record: RunRecord, event: Event, *, now: datetime, policy: Policy) -> Step:
        """The real one, watched."""
        step = decide(record, event, now=now, policy=policy)
        self.oracle.decided(record, event, step)
        return step

    # --- one step ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        try:
            if self.engine is None:
                if self.random.random() < 0.5:
                    self.start()
                else:
                    self._environment_acts()
            elif self.fate.happens(self.fate.p_kill):
                self.die("a step")
            else:
                self._something_happens()
        except Killed as killed:
            self.die(str(killed))
        self.oracle.check()

    def _something_happens(self) -> None:
        assert self.engine is not None
        if self.random.random() < self.fate.p_environment:
            self._environment_acts()
        if self._events and self.random.random() < 0.5:
            self._deliver()
        draw = self.random.random()
        patience = 0.95 if any(not call.is_slow for call in self._calls) else 0.3
        if self.engine.has_messages and draw < 0.6:
            self._turn_over()
        elif self._calls and draw < patience:
            self._run(self._next_call())
        else:
            self._let_time_pass()
            self._turn_over()

    def _port(self, name: str) -> None:
        """At every call of a port: the process may end here, and the rest of the world goes on meanwhile."""
        if self.fate.happens(self.fate.p_kill):
            raise Killed(name)
        if self._depth <= DEPTH_MAX and self.fate.happens(self.fate.p_breathe):
            self._depth += 1
            draw = self.random.random()
            if draw < 0.5:
                self._environment_acts()
            elif draw < 0.7 and self._calls:
                self._run(self._next_call())
            elif draw < 0.95 and not self._is_in_loop:
                self._turn_over()
            elif not self._is_in_loop:
                self._let_time_pass()
            self._depth -= 1

    def _turn_over(self) -> None:
        assert self.engine is not None
        if self._is_in_loop:
            return
        messages = self.engine.waiting_messages()
        if len(messages) > 1 and self.random.random() < 0.3:
            keep = self.random.randrange(1, len(messages))
            for message in messages[keep:]:
                self.engine.post(message)
            del messages[keep:]
        self._in_loop(lambda: self.engine.turn_over(messages))  # type: ignore[union-attr]

    def _in_loop(self, action: Callable[[], None]) -> None:
        self._is_in_loop = True
        try:
            action()
        except StoreWriteError as error:
            raise Killed("a store that cannot write, at which the engine stops") from error
        self._is_in_loop = False

    def _environment_acts(self) -> None:
        done = self.environment.act(self.world.runs.get(self._path_to_aim_at()))
        if done:
            self._log(f"environment: {done}")
            self.oracle.count(done.split()[0])

    def _path_to_aim_at(self) -> str:
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

    def _let_time_pass(self) -> None:
        assert self.engine is not None
        due_s = self.engine.next_due_s()
        until_due = max(0.0, (due_s if due_s is not None else self.clock.mono_s) - self.clock.mono_s)
        seconds = self.random.choice((0.2, 5.0, until_due, until_due, until_due, self.random.uniform(0, 8000)))
        self._log(f"{seconds:.1f} s pass")
        self.clock.advance(seconds)

    # --- events and commands -----------------------------------------------------------------------------------------

    def _notice(self, path: str) -> None:
        """What a watcher would say, unless it is lost; perhaps twice, later, and in another order."""
        if self.engine is None or self.random.random() < self.fate.p_event_lost:
            return
        self._events.append(path)
        if self.random.random() < 0.1:
            self._events.append(path)

    def _deliver(self) -> None:
        assert self.engine is not None
        path = self._events.pop(self.random.randrange(len(self._events)))
        self.engine.post(Noticed((path,)))

    def _operate(self, request: dict[str, Any]) -> None:
        if self.engine is not None:
            self.engine.post(CommandGiven(command_of(request), lambda _: self.oracle.waits_are_void()))

    def _log(self, text: str) -> None:
        self.trace.append(f"{'  ' * self._depth}{self.clock.mono_s:10.1f} {text}")

    # --- the store ---------------------------------------------------------------------------------------------------

    def write_trail(self, descriptor: int, data: bytes) -> None:
        """The one write of a commit: it may be torn by a kill, or the disk may be full."""
        if self.fate.happens(self.fate.p_kill * 3):
            self._torn = data[: self.random.randrange(len(data) + 1)]
            raise Killed("the write of the trail")
        if self.fate.happens(self.fate.p_kill / 2):
            write_all(descriptor, data[: self.random.randrange(len(data) + 1)])
            raise OSError(28, "No space left on device")
        write_all(descriptor, data)

    def commit(self, entries: Sequence[Entry], at: datetime) -> None:
        self._in_flight = list(entries)
        try:
            RunStore.commit(self.store, entries, at=at)  # type: ignore[arg-type]
        except StoreWriteError:
            self._in_flight = ()
            raise
        self._in_flight = ()
        for entry in entries:
            if entry.move is not None and entry.record is not None:
                self._log(
                    f"{entry.record.run_path[-30:]} {entry.move.source} -> {entry.move.dest} "
                    f"({entry.move.trigger}: {entry.move.reason}) turn {entry.record.turn}"
                )
        self.oracle.committed(entries)
        if self.fate.happens(self.fate.p_kill):
            raise Killed("the moment after a commit")

    # --- the end -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All faults end. Time passes, an operator does what is asked of one, and everything must come to rest."""
        self.fate.is_calm = True
        self.environment.come_to_an_end()
        if self.engine is None:
            self.start()
        self._log("CALM")
        self.run_for(20 * HOUR_S)
        self._put_missing_files_back()
        for command in ("resolve", "retry", "resolve"):  # a sealed run that failed may have changed meanwhile
            for record in sorted(self.oracle.acknowledged.values(), key=lambda r: r.job_id):
                if (record.state, command) in ((RunState.CONFLICT, "resolve"), (RunState.FAILED, "retry")):
                    self._operate({"command": command, "job_id": record.job_id, "operator": "asmith"})
            self.run_for(14 * HOUR_S)
        self.check_end()

    def _put_missing_files_back(self) -> None:
        """An operator does what `show` says of files that are missing after the seal, and has both sides compared."""
        for record in sorted(self.oracle.acknowledged.values(), key=lambda r: r.job_id):
            run = self.world.runs.get(record.run_path)
            if run is None or not is_short(record):
                continue
            for name, data in self.oracle.sealed_files(record.job_id).items():
                if name not in run.files:
                    self.world.put(run, name, data)
            self._operate({"command": "verify", "job_id": record.job_id, "operator": "asmith"})
        self.run_for(14 * HOUR_S)

    def run_for(self, seconds: float, *, hold: str = "") -> None:
        """Let the agent work undisturbed for so long, from timer to timer. `hold`: calls of this name do not come on."""
        assert self.engine is not None
        end_s = self.clock.mono_s + seconds
        for _ in range(LOOP_TURNS_MAX):
            while ready := [call for call in self._calls if str(call) != hold]:
                self._calls.remove(ready[0])
                self._run(ready[0])
            if self.engine.has_messages or self._events:
                for path in self._events:
                    self.engine.post(Noticed((path,)))
                self._events.clear()
                self._in_loop(self.engine.turn_over)
                continue
            due_s = self.engine.next_due_s()
            if any(str(call) != hold for call in self._calls):
                continue
            if due_s is None or due_s > end_s:
                self.clock.advance(max(0.0, end_s - self.clock.mono_s))
                self.oracle.check()
                return
            self.clock.advance(max(0.0, due_s - self.clock.mono_s))
            self._in_loop(self.engine.turn_over)
        raise Violation("the agent does not come to rest")

    def ending(self) -> str:
        """What is where, for whoever looks at a life that failed."""
        records = [
            f"{record.job_id[-4:]} {record.state} turn {record.turn} {record.run_path} at {record.destination!r} "
            f"sealed {record.is_sealed} {record.last_error}"
            for record in self.oracle.acknowledged.values()
        ]
        runs = [f"run {run.number} {run.path}" for run in self.world.runs.values()]
        nas = [f"{nas.name} is {nas.state}" for nas in self.world.nas.values()]
        return "\n".join([*records, *runs, *nas])

    def check_end(self) -> None:
        assert self.engine is not None
        records = {record.run_path: record for record in self.oracle.acknowledged.values()}
        if not self.engine.is_at_rest():
            raise Violation("the engine is not at rest")
        for run in self.world.runs.values():
            record = records.get(run.path)
            if record is None:
                raise Violation(f"{run.path} was never noticed")
            self._check_run(run, record)
        for record in records.values():
            # A seal never gives up, and a folder that somebody removed meanwhile does not come back.
            is_gone = record.state is RunState.SEALING and record.run_path not in self.world.runs
            if record.is_working and not is_gone:
                raise Violation(f"{record.run_path} is still {record.state}")

    def _check_run(self, run: SimRun, record: RunRecord) -> None:
        nas = self.world.nas[run.equipment_id]
        self.oracle.count(f"ends {record.state}")
        if record.state is RunState.VERIFIED:
            if wrong := what_is_wrong(nas, record.destination, run):
                raise Violation(f"{run.path} is verified, and its copy is not whole: {wrong}")
            return
        if status_of(run) != record.sync_status:
            raise Violation(f"{run.path} is {record.state}, and its creation.json says {status_of(run)}")
        if record.state is RunState.BLOCKED and not self.environment.is_admitted(run):
            return
        is_occupied = record.last_error is not None and record.last_error.kind in TAKEN
        if record.state is RunState.CONFLICT and is_occupied and self._is_taken(record):
            return
        raise Violation(f"{run.path} is complete, and ends as {record.state}: {record.last_error}")

    def _is_taken(self, record: RunRecord) -> bool:
        """Whether the destination that the run must have holds data of another."""
        place = place_of(record.run_path, {lane: f"{LOCAL_ROOT}/{lane}" for lane in LANES})
        assert place is not None
        claimed = destination_of(place, self.policy.layout)
        nas = self.world.nas[record.equipment_id]
        mine = self.world.runs[record.run_path].author
        claim = nas.real.get(f"{claimed}/{CLAIM_PATH}")
        holder = claim_in(claim.data) if claim is not None else None
        is_claimed = holder is not None and holder.job_id != record.job_id
        # A copied folder keeps away from where its original was to go, even when nothing came of that.
        is_claimed |= any(
            other.destination == claimed and other.job_id != record.job_id and other.identity == record.identity
            for other in self.oracle.acknowledged.values()
        )
        return is_claimed or any(author != mine for author in nas.owners.get(claimed, ()))


def status_of(run: SimRun) -> str:
    return status_in(run.creation_text)


class _WatchedStore(RunStore):
    """The real store; the simulation stands at its commits."""

    def __init__(self, folder: Path, simulation: Simulation) -> None:
        super().__init__(folder, checkpoint_lines=20, write_trail=simulation.write_trail, host="lab")
        self._simulation = simulation

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        self._simulation.commit(entries, at)


class _NoErrors(logging.Handler):
    """An internal error that the engine only logs is a violation here."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            raise Violation(f"logged as an internal error: {record.getMessage()} {error!r}") from error


@contextmanager
def in_place(simulation: Simulation) -> Iterator[None]:
    """Live without fsync, which would only cost time here, and count an internal error that is logged as a violation."""
    package = logging.getLogger("exlab_watch_agent")
    handler, was = _NoErrors(), (package.level, package.propagate)
    package.addHandler(handler)
    package.propagate = False
    try:
        with ExitStack() as stack:
            for name in ("fsync", "fdatasync"):
                stack.enter_context(patch(f"os.{name}", lambda _: None))
            yield
    finally:
        if simulation.store is not None:
            with suppress(Exception):
                simulation.store.close()
        package.removeHandler(handler)
        package.level, package.propagate = was


def simulate(seed: int, folder: Path, *, steps: int = 250) -> dict[str, int]:
    """Live one seeded life to its end and return what happened how often. Raises: AssertionError with the last steps."""
    simulation = Simulation(seed, folder)
    with in_place(simulation):
        try:
            for _ in range(steps):
                simulation.step()
            simulation.settle()
        except (Violation, Exception) as error:
            last = "\n".join(simulation.trace)
            raise AssertionError(
                f"seed {seed}: {type(error).__name__}: {error}\n{last}\n{simulation.ending()}"
            ) from error
    return simulation.oracle.counts
