"""Commands that work: `run`, and the operator's actions, by the running agent or, without one, here under the same lock."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.app.agent import Agent, leave_now
from exlab_watch_agent.cli.context import Context, operator_name
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import counted, printable
from exlab_watch_agent.engine.lane import Requested
from exlab_watch_agent.engine.requests import NOTHING_ON_HOLD, TRAIL_ACCEPTED
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.report.problems import Moment, Problem, Severity, need_a_person
from exlab_watch_agent.report.status import counts, sentence
from exlab_watch_agent.statechart import CHART, RunState

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM]
BARS_EVERY_S = 0.2


class Narrator:
    """Tells a waiting person on stderr what happens: a line a move, and a bar for each push where there is a terminal."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._is_quiet = is_quiet
        self._bars: Progress | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def on_move(self, record: RunRecord, move: Move) -> None:
        if self._is_quiet:
            return
        source = move.source.value if move.source is not None else "new"
        text = f"{record.equipment_id} {printable(record.run_path.rsplit('/', 1)[-1])}: {source} -> {move.dest}"
        try:
            self._console.print(f"{text} ({printable(move.reason)})", markup=False)
        except (OSError, SystemExit):  # rich ends the program when the reader of its words has gone; the agent works on
            self._is_quiet = True

    def on_notice(self, text: str) -> None:
        """Say what concerns the whole agent; also where moves are not to be told."""
        with suppress(OSError, SystemExit):  # as above
            self._console.print(printable(text), markup=False)

    @contextmanager
    def following(self, agent: Agent) -> Iterator[None]:
        if self._is_quiet or not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            self._bars = bars
            self._thread = threading.Thread(target=self._follow, args=(agent, bars), daemon=True)
            self._thread.start()
            try:
                yield
            finally:
                self._stop.set()
                self._thread.join()

    def _follow(self, agent: Agent, bars: Progress) -> None:
        shown: dict[str, Any] = {}
        while not self._stop.wait(BARS_EVERY_S):
            progress = agent.engine.progress() if agent.engine is not None else {}
            for job_id in set(shown) - set(progress):
                bars.remove_task(shown.pop(job_id))
            for job_id, (done, _) in progress.items():
                record = agent.store.get(job_id)
                if record is None or not record.bytes_total:
                    continue
                if job_id not in shown:
                    name = f"{record.state} {printable(record.run_path.rsplit('/', 1)[-1])}"
                    shown[job_id] = bars.add_task(name, total=record.bytes_total)
                bars.update(shown[job_id], completed=done.bytes_done)


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGINT and SIGTERM while the block runs."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_agent(context: Context, *, is_once: bool, is_quiet: bool) -> int:
    """Run the agent in the foreground; return the exit code."""
    narrator = Narrator(is_quiet=is_quiet)
    agent = Agent(
        context.settings,
        state_dir=context.state,
        is_watching=not is_once,
        on_move=narrator.on_move,
        on_notice=narrator.on_notice,
    )
    found = _drive(agent, narrator, until_rest=is_once)
    if is_once:
        there = ", ".join(f"{count} {state}" for state, count in counts(agent.store).items())
        print(there or "no runs were found")
    return _end(agent, narrator, found)


def _drive(agent: Agent, narrator: Narrator, *, until_rest: bool, requests: Sequence[Requested] = ()) -> list[Problem]:
    """Have the agent work; return what needs a person when it came to rest, of all that it was to look after."""
    with stopping_on_signals(agent.stop):
        agent.open()
        try:
            for request in requests:
                agent.engine.post(request)  # type: ignore[union-attr]
            with narrator.following(agent):
                agent.run(until_rest=until_rest)
            return need_a_person(agent.problems()) if until_rest else []
        finally:
            agent.close()


def _end(agent: Agent, narrator: Narrator, found: Sequence[Problem]) -> int:
    """Say on stderr what needs a person, a line each, and return the exit code."""
    for problem in found:
        narrator.on_notice(f"{problem.severity.name}  {problem.subject}: {problem.message} -> {problem.command}")
    code = ExitCode.NEEDS_ATTENTION if found else ExitCode.FINE
    leave_now(agent, code)
    return code


def _still_under_way(agent: Agent, run_paths: frozenset[str]) -> list[Problem]:
    """Return those of the runs that did not come to rest, most often because the command was stopped."""
    live, at = agent.live(), Moment(SystemClock().now(), is_ended=True)
    moving = CHART.working | {RunState.QUEUED}
    return [
        Problem(
            Severity.WAITING,
            "under_way",
            printable(record.run_path),
            f"it is still {record.state}: {printable(sentence(record, live, at))}",
            "exlab-watch-agent run",
        )
        for record in agent.store
        if record.run_path in run_paths and record.state in moving
    ]


def act(context: Context, request: Mapping[str, Any], *, run_paths: frozenset[str]) -> int:
    """Have an operator's command obeyed; print the answer; return the exit code. Raises: AgentError with the refusal."""
    if context.holder is not None:
        print(context.ask_agent(request))
        return ExitCode.FINE
    answers: list[Mapping[str, Any]] = []
    narrator = Narrator()
    agent = Agent(
        context.settings, state_dir=context.state, only=run_paths, is_watching=False, on_move=narrator.on_move
    )
    order = Requested({**request, "operator": operator_name()}, answers.append)
    found = _drive(agent, narrator, until_rest=True, requests=[order])
    if not answers:
        raise AgentError("It was stopped before the command was obeyed: give it again.")
    for answer in answers:
        if not answer["ok"]:
            raise AgentError(str(answer["message"]))
        print(answer["message"])
    return _end(agent, narrator, found or _still_under_way(agent, run_paths))


def accept_trail(context: Context, reason: str) -> int:
    """Have the state that was found after damage counted as true; return the exit code. Raises: AgentError."""
    if context.holder is not None:
        print(context.ask_agent({"command": "accept_trail", "reason": reason}))
        return ExitCode.FINE
    if context.hold is None:
        raise AgentError(NOTHING_ON_HOLD)
    require_private(context.state_dir)
    store = RunStore(context.state_dir)
    store.open()
    try:
        store.accept_trail(operator_name(), reason, SystemClock().now())
    finally:
        store.close()
    print(TRAIL_ACCEPTED)
    return ExitCode.FINE


def scan(context: Context, accept_root: str | None) -> int:
    """Reconcile now what is known with what is on the disk; without a running agent here, and nothing is pushed."""
    if accept_root is not None and accept_root not in context.roots:
        raise ConfigError(
            f"{printable(accept_root)} is no equipment of the config, which has {', '.join(context.roots)}."
        )
    request = {"command": "scan"} if accept_root is None else {"command": "scan", "accept_root": accept_root}
    if context.holder is not None:
        print(context.ask_agent(request))
        return ExitCode.FINE
    before = {record.job_id for record in context.records.values()}
    answers: list[Mapping[str, Any]] = []
    order = Requested({**request, "operator": operator_name()}, answers.append)
    narrator = Narrator(is_quiet=True)
    agent = Agent(context.settings, state_dir=context.state, is_watching=False, is_working=False)
    found = _drive(agent, narrator, until_rest=True, requests=[order])
    assert agent.engine is not None, "the agent was opened"
    for equipment_id, lane in agent.engine.lanes.items():
        if lane.root_problem is not None:
            print(f"{equipment_id} waits: {printable(lane.root_problem)}")
            continue
        new = sum(1 for record in agent.store if record.equipment_id == equipment_id and record.job_id not in before)
        parts = [counted(lane.runs_seen, "run folder"), f"{new} new", f"{len(lane.gone)} gone"]
        print(f"{equipment_id}: {', '.join(parts)}")
    return _end(agent, narrator, found)


def sync_run(context: Context, word: str) -> int:
    """Bring one run to rest now; a run that is not complete yet is said to be so."""
    path, record = context.find_run(word)
    if context.holder is not None:
        request = {"command": "sync" if record is not None else "look", "run_path": path}
        print(context.ask_agent(request))
        if unusable := context.live.get("path_problems", {}).get(printable(path)):
            print(f"{printable(path)}: {unusable}", file=sys.stderr)
            return ExitCode.NEEDS_ATTENTION
        return ExitCode.FINE
    narrator = Narrator()
    agent = Agent(
        context.settings, state_dir=context.state, only=frozenset({path}), is_watching=False, on_move=narrator.on_move
    )
    orders: list[Requested] = []
    if record is not None and record.state in CHART.retryable:
        orders.append(Requested({"command": "sync", "run_path": path, "operator": operator_name()}, lambda _: None))
    found = _drive(agent, narrator, until_rest=True, requests=orders)
    return _say_how_it_ended(agent, narrator, path, found)


def _say_how_it_ended(agent: Agent, narrator: Narrator, path: str, found: Sequence[Problem]) -> int:
    record = next((r for r in agent.store if r.run_path == path), None)
    engine = agent.engine
    assert engine is not None, "the agent was opened"
    if record is None:
        place = place_of(path, {lane_id: lane.root for lane_id, lane in engine.lanes.items()})
        root_problem = engine.lanes[place.equipment_id].root_problem if place is not None else None
        reason = root_problem or engine.path_problems.get(path) or "it has no usable .exlab-wizard/creation.json"
        raise AgentError(f"{printable(path)} was not synced: {printable(reason)}")
    if record.sync_status == "synced":
        print(
            f"{printable(path)}: {record.state}, {counted(record.files_total, 'file')}, {counted(record.bytes_total, 'byte')}"
        )
    found = found or _still_under_way(agent, frozenset({path}))
    if found or record.sync_status == "synced":
        return _end(agent, narrator, found)
    view = engine.views.get(record.job_id)
    print(f"{printable(path)}: {record.state}: {printable(view.reason if view is not None else '')}", file=sys.stderr)
    leave_now(agent, ExitCode.FAILED)
    return ExitCode.FAILED
