"""One seeded life: agents on their PCs, and the NAS folders that they share, in a world in memory that goes wrong.

Nothing runs in parallel and nothing waits. Each step lets one agent do one thing, lets the environment act, moves the clocks
on, or kills an agent; inside a call, at every port, the same can happen once more (`_meanwhile`), which is how calls overlap.
Decided here: who acts when, what becomes of an agent that was killed, and how a life must end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from unittest.mock import patch

from exlab_watch_agent.adapters.transports.shared.own_files import anchor_in
from exlab_watch_agent.core.decide import is_short
from exlab_watch_agent.core.discovery import destination_of, place_of
from exlab_watch_agent.core.policy import CompletenessSignal, EquipmentPolicy, Layout, MountedPathTarget, Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.statechart import RunState
from tests.sim.agent import Agent, Surroundings
from tests.sim.copies import Copies, holder_at
from tests.sim.oracle import Oracle, is_ahead, is_of_others, what_is_wrong
from tests.sim.world import (
    EXPECTED,
    LOCAL_ROOT,
    SENTINEL,
    FakeClock,
    Fate,
    Killed,
    Nas,
    SimRun,
    Violation,
    World,
    status_in,
)

LOOP_TURNS_MAX = 20_000
LANES = ("EQ_A", "EQ_B")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
STEPS = 250


@dataclass(frozen=True)
class Scenario:
    """What kind of life it is. `p_state`: how often something becomes of the state folder at a kill. `p_off`: how often, at a
    step, a PC is switched off for days. `change`: what happens after half of the steps. `is_shared`: both PCs have runs from
    the beginning, and people carry run folders from one to the other.
    """

    name: str
    agents: int = 1
    p_state: float = 0.0
    p_off: float = 0.0
    change: str = ""
    is_shared: bool = False


ALONE = Scenario("one agent")
SCENARIOS = (
    ALONE,
    ALONE,
    Scenario("one agent whose state folder is lost or put back", p_state=0.4, p_off=0.004),
    ALONE,
    Scenario("two PCs with one equipment id and one NAS", agents=2, p_state=0.15, p_off=0.006, is_shared=True),
    Scenario("a PC that is replaced, its runs carried over", agents=2, p_off=0.003, change="replaced"),
    ALONE,
    Scenario("a PC that is copied, state folder and all", agents=2, p_off=0.003, change="copied"),
)
"""Which of them a life is goes by its seed."""


class Simulation:
    """One life. `script`: faults of the copies in order, for a life without any other trouble, of one agent unless a `scenario`
    is given.

    `agent`, `world`, `environment`, `oracle`, `clock`: those of the first PC, in most lives the only one.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        script: str | None = None,
        layout: Layout | None = None,
        scenario: Scenario | None = None,
    ) -> None:
        self.seed = seed
        self.scenario = scenario or (SCENARIOS[seed % len(SCENARIOS)] if script is None else ALONE)
        self.fate = Fate(seed)
        self.random = self.fate.random
        self.policy = self._policy(layout)
        self.nas = {lane: Nas(f"nas of {lane}") for lane in LANES}
        for nas in self.nas.values():
            nas.has_ranges = self.random.random() < 0.6
        self.fate.is_calm = script is not None
        self.counts: dict[str, int] = {}
        self.copies = Copies(self.nas)
        self.trace: deque[str] = deque(maxlen=150)
        self._jobs = 0
        self._acting: list[Agent] = []
        surroundings = Surroundings(
            self._new_job_id, self._meanwhile, self._let_time_pass, lambda agent, text: self._log(text, agent), script
        )
        self.agents = [self._make_agent(number, folder, surroundings) for number in range(self.scenario.agents)]
        for agent in self.agents:
            agent.environment.others = [other.world for other in self.agents if other is not agent]
        if self.scenario.change:
            self.agents[1].back_s = inf
        self.agent = self.agents[0]
        self.world, self.environment, self.oracle = self.agent.world, self.agent.environment, self.agent.oracle
        self.clock = self.world.clock

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

    def _make_agent(self, number: int, folder: Path, surroundings: Surroundings) -> Agent:
        ahead_days = 0.0 if number == 0 or self.fate.is_calm else self.random.choice((0, 0, 0.02, -0.6, 2))
        world = World(self.fate, FakeClock(ahead_days), nas=self.nas)
        world.touch = self._touch
        world.change_nas = self._change_nas
        oracle = Oracle(world, self.copies, settle_s=self.policy.settle_s, counts=self.counts)
        return Agent(
            number,
            folder if number == 0 else folder / f"pc-{number}",
            world,
            self.policy,
            oracle,
            surroundings,
            host=f"lab-{number}" if self.fate.is_calm or self.random.random() < 0.5 else "lab",
            machine=f"{number + 1:032x}",
        )

    def _new_job_id(self) -> str:
        self._jobs += 1
        return f"{self._jobs:032x}"

    def _touch(self) -> None:
        for agent in self.agents:
            agent.oracle.world_changes()

    def _change_nas(self, nas: Nas) -> None:
        """Somebody mounts a copy of a NAS in its place, marker and all."""
        self._touch()
        if nas.apart is not None:
            self.copies.nas_was_changed(nas)
            for agent in self.agents:
                agent.oracle.nas_was_changed(nas)
        nas.change_places()

    # --- one step ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.agent.start()

    def step(self, number: int) -> None:
        if self.scenario is not ALONE and number == STEPS // 2:
            self._have_a_quiet_night()
            if self.scenario.change:
                self._change_pcs()
        agent = self.random.choice(self.agents) if len(self.agents) > 1 else self.agent
        self._entered(agent, lambda: self._step_of(agent))
        self.check()

    def check(self) -> None:
        for agent in self.agents:
            agent.oracle.check()
        self.copies.check(agent.world for agent in self.agents)

    def _step_of(self, agent: Agent) -> None:
        if agent.engine is None:
            self._step_without(agent)
        elif self.fate.happens(self.fate.p_kill):
            agent.die("a step")
            self._after_death(agent)
        elif self.scenario.p_off and self.fate.happens(self.scenario.p_off):
            agent.die("a step: the PC is switched off")
            self._after_death(agent)
            agent.back_s = agent.clock.mono_s + self.random.uniform(0.2, 4) * DAY_S
        else:
            if self.random.random() < self.fate.p_environment:
                self._environment_acts(agent)
            agent.act()

    def _step_without(self, agent: Agent) -> None:
        if agent.back_s > agent.clock.mono_s:
            if len(self.agents) == 1 or self.random.random() < 0.1:
                self._let_time_pass(agent)
            elif agent.world.runs or self.scenario.is_shared:
                self._environment_acts(agent)
        elif self.random.random() < 0.5:
            agent.start()
        else:
            self._environment_acts(agent)

    def _entered(self, agent: Agent, deed: Callable[[], None]) -> None:
        """Let an agent do something. Where it dies of that, nobody else does."""
        self._acting.append(agent)
        try:
            deed()
        except Killed as killed:
            agent.die(str(killed))
            self._after_death(agent)
        self._acting.remove(agent)

    def _meanwhile(self, agent: Agent) -> None:
        """What goes on while an agent waits at a port: something in the world, or the other agent does something."""
        idle = [other for other in self.agents if other.engine is not None and other not in self._acting]
        if idle and self.random.random() < 0.5:
            other = self.random.choice(idle)
            self._entered(other, other.act)
        else:
            self._environment_acts(agent)

    def _environment_acts(self, agent: Agent) -> None:
        done = agent.environment.act(agent.world.runs.get(agent.path_to_aim_at()))
        if done:
            self._log(f"environment: {done}", agent)
            self._count(done.split()[0])

    def _let_time_pass(self, agent: Agent) -> None:
        until_due = agent.due_in_s()
        is_any_silent = any(other.back_s > other.clock.mono_s for other in self.agents)
        long_s = self.random.uniform(0, DAY_S if is_any_silent else 8000)
        seconds = self.random.choice((0.2, 5.0, until_due, until_due, until_due, long_s))
        self._log(f"{seconds:.1f} s pass", agent)
        self._advance(seconds)

    def _advance(self, seconds: float) -> None:
        for agent in self.agents:
            agent.clock.advance(seconds)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _log(self, text: str, agent: Agent) -> None:
        whose = f"{agent.number}" if len(self.agents) > 1 else ""
        self.trace.append(f"{whose}{'  ' * agent.depth}{agent.clock.mono_s:10.1f} {text}")

    # --- what becomes of PCs and of state folders ------------------------------------------------------------------------

    def _after_death(self, agent: Agent) -> None:
        """A copy of the state folder may be kept; and it may be lost, or be replaced by a copy of some time ago."""
        if self.fate.is_calm or self.random.random() >= self.scenario.p_state:
            return
        copies = sorted(agent.folder.glob("copy-*"))
        match self.random.choice(("keep", "keep", "lose", "put back", "put back")):
            case "keep":
                agent.keep_a_copy()
            case "lose":
                agent.lose_state()
            case _ if copies:
                agent.take_state(self.random.choice(copies), home=agent.home)

    def _have_a_quiet_night(self) -> None:
        """Nothing goes wrong for some hours, so that what is complete by then is sealed, most of all where agents meet later."""
        self.fate.is_calm = True
        for agent in self.agents:
            agent.environment.have_peace(complete=0.8)
            if agent.engine is None and agent.back_s <= agent.clock.mono_s:
                agent.start()
        self.run_for(2 * HOUR_S)
        self.fate.is_calm = False

    def _change_pcs(self) -> None:
        """The first PC is replaced by the second one, or copied: all runs go over, and where it is a copy the state folder, too."""
        old, new = self.agents
        if old.engine is not None:
            old.die("a step: its disk is copied")
        for run in list(old.world.runs.values()):
            if new.environment.take_over(run) is False:
                new.world.taken_from.add(run.author)
        new.world.taken_from |= old.world.taken_from
        if self.scenario.change == "copied" and old.state_folder.exists():
            new.take_state(old.keep_a_copy(), home=old.home)
        is_retired = self.scenario.change == "replaced" or self.random.random() < 0.3
        old.back_s = inf if is_retired else old.clock.mono_s
        new.back_s = 0.0

    # --- the end -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All faults end. Time passes, an operator does what is asked of one, and everything must come to rest."""
        self.fate.is_calm = True
        for agent in self.agents:
            agent.environment.come_to_an_end()
            if agent.engine is None and agent.back_s != inf:
                agent.start()
        self._log("CALM", self.agent)
        self.run_for(20 * HOUR_S)
        self._put_missing_files_back()
        for command in ("resolve", "retry", "resolve"):  # a sealed run that failed may have changed meanwhile
            for agent in self.agents:
                for record in sorted(agent.oracle.acknowledged.values(), key=lambda r: r.job_id):
                    if (record.state, command) in ((RunState.CONFLICT, "resolve"), (RunState.FAILED, "retry")):
                        agent.operate({"command": command, "job_id": record.job_id, "operator": "asmith"})
            self.run_for(14 * HOUR_S)
        self.check_end()

    def _put_missing_files_back(self) -> None:
        """An operator does what `show` says of files that are missing after the seal, and has both sides compared."""
        for agent in self.agents:
            for record in sorted(agent.oracle.acknowledged.values(), key=lambda r: r.job_id):
                run = agent.world.runs.get(record.run_path)
                if run is None or not is_short(record):
                    continue
                sealed = self.copies.sealed[self.nas[record.equipment_id].name, record.destination]
                for name, data in sealed.files.items():
                    if name not in run.files:
                        agent.world.put(run, name, data)
                agent.operate({"command": "verify", "job_id": record.job_id, "operator": "asmith"})
        self.run_for(14 * HOUR_S)

    def run_for(self, seconds: float, *, hold: str = "") -> None:
        """Let all agents work undisturbed for so long, from timer to timer. `hold`: calls of this name do not come on."""
        end_s = self.clock.mono_s + seconds
        for _ in range(LOOP_TURNS_MAX):
            if sum(agent.do_all_there_is(hold=hold) for agent in self.agents):
                continue
            at_work = [agent for agent in self.agents if agent.engine is not None]
            dues = [due_s for agent in at_work if (due_s := agent.engine.next_due_s()) is not None]  # type: ignore[union-attr]
            if not dues or min(dues) > end_s:
                self._advance(max(0.0, end_s - self.clock.mono_s))
                self.check()
                return
            self._advance(max(0.0, min(dues) - self.clock.mono_s))
            for agent in at_work:
                agent.in_loop(agent.engine.turn_over)  # type: ignore[union-attr]
        raise Violation("the agents do not come to rest")

    def ending(self) -> str:
        """What is where, for whoever looks at a life that failed."""
        told = [f"scenario: {self.scenario.name}"]
        for agent in self.agents:
            told.append(f"agent {agent.number} {agent.oracle.me.state_folder} on {agent.host}, {agent.clock.wall}")
            told += [
                f"{record.job_id[-4:]} {record.state} turn {record.turn} {record.run_path} at {record.destination!r} "
                f"sealed {record.is_sealed} {record.last_error}"
                for record in agent.oracle.acknowledged.values()
            ]
            told += [f"run {run.number} {run.path}" for run in agent.world.runs.values()]
        return "\n".join([*told, *(f"{nas.name} is {nas.state}" for nas in self.nas.values())])

    def check_end(self) -> None:
        for agent in self.agents:
            if agent.engine is not None:
                self._check_end_of(agent)

    def _check_end_of(self, agent: Agent) -> None:
        assert agent.engine is not None
        records = {record.run_path: record for record in agent.oracle.acknowledged.values()}
        if not agent.engine.is_at_rest():
            raise Violation("the engine is not at rest")
        for run in agent.world.runs.values():
            record = records.get(run.path)
            if record is None:
                raise Violation(f"{run.path} was never noticed")
            self._check_run(agent, run, record)
        for record in records.values():
            # A seal never gives up, and a folder that somebody removed meanwhile does not come back.
            is_gone = record.state is RunState.SEALING and record.run_path not in agent.world.runs
            if record.is_working and not is_gone:
                raise Violation(f"{record.run_path} is still {record.state}")

    def _check_run(self, agent: Agent, run: SimRun, record: RunRecord) -> None:
        nas = self.nas[run.equipment_id]
        self._count(f"ends {record.state}")
        if record.state is RunState.VERIFIED:
            if wrong := what_is_wrong(nas, record.destination, run):
                raise Violation(f"{run.path} is verified, and its copy is not whole: {wrong}")
            return
        if status_of(run) != record.sync_status:
            raise Violation(f"{run.path} is {record.state}, and its creation.json says {status_of(run)}")
        if record.state is RunState.BLOCKED and not agent.environment.is_admitted(run):
            return
        if record.state is RunState.CONFLICT and is_of_others(record) and self._is_taken(agent, record):
            return
        # What cannot be read is not proven to be what is here, so it is not taken over, and not healed either.
        unreadable = [path for path in nas.volume.unreadable if path.startswith(f"{record.destination}/")]
        is_compared_first = record.adopts or record.gone_at is not None  # or it is back, and files may be missing here
        if record.state is RunState.FAILED and is_compared_first and unreadable:
            return
        raise Violation(f"{run.path} is complete, and ends as {record.state}: {record.last_error}")

    def _is_taken(self, agent: Agent, record: RunRecord) -> bool:
        """Whether the destination that the run must have, or the one that it has, holds data of another."""
        place = place_of(record.run_path, {lane: f"{LOCAL_ROOT}/{lane}" for lane in LANES})
        assert place is not None
        claimed = destination_of(place, self.policy.layout)
        nas = self.nas[record.equipment_id]
        mine = agent.world.runs[record.run_path].author
        # A copied folder keeps away from where its original was to go, even when nothing came of that.
        is_claimed = any(
            other.destination == claimed and other.job_id != record.job_id and other.identity == record.identity
            for other in agent.oracle.acknowledged.values()
        )
        # What another copy of its own state folder sealed is another's, too.
        # A run that was sealed keeps its place where others hold it by now, until an operator has said twice that it need not.
        for held in filter(None, {claimed, record.destination}):
            anchor = anchor_in(nas.claim_at(held) or b"")
            is_claimed |= anchor is not None and agent.store is not None and is_ahead(anchor, agent.store)
            holder = holder_at(nas, held)
            is_claimed |= holder is not None and not agent.oracle.is_mine(holder, record.job_id)
        return is_claimed or any(author != mine for author in nas.owners.get(claimed, ()))


def status_of(run: SimRun) -> str:
    return status_in(run.creation_text)


class _NoErrors(logging.Handler):
    """An internal error that the engine only logs is a violation here. (That deletion is held is news, and no error of ours.)"""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and not record.getMessage().startswith("Deletion is held"):
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
        for agent in simulation.agents:
            if agent.store is not None:
                with suppress(Exception):
                    agent.store.close()
        package.removeHandler(handler)
        package.level, package.propagate = was


def simulate(seed: int, folder: Path, *, steps: int = STEPS) -> dict[str, int]:
    """Live one seeded life to its end and return what happened how often. Raises: AssertionError with the last steps."""
    simulation = Simulation(seed, folder)
    with in_place(simulation):
        try:
            for number in range(steps):
                simulation.step(number)
            simulation.settle()
        except (Violation, Exception) as error:
            last = "\n".join(simulation.trace)
            raise AssertionError(
                f"seed {seed}: {type(error).__name__}: {error}\n{last}\n{simulation.ending()}"
            ) from error
    return simulation.counts
