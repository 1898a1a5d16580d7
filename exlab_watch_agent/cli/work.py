"""The operator's actions: by the running agent or, without one, here under the same lock."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from exlab_watch_agent.app.agent import Agent, leave_now
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.cli.narrating import Narrator
from exlab_watch_agent.cli.saying import say, say_aside
from exlab_watch_agent.core.attention import with_flags
from exlab_watch_agent.core.commands import (
    Cancel,
    Command,
    LookAt,
    Retry,
    RetryAll,
    ScanRoots,
    Sync,
    reason_in,
)
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.problem import command as command_of
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.standing import Moment
from exlab_watch_agent.core.text import counted, printable, shell_word
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.report.problems import exit_code, folded, need_a_person, one_line
from exlab_watch_agent.report.status import sentence
from exlab_watch_agent.statechart import CHART, RunState

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM]
RELOAD_SIGNAL: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
NAMED_MAX = 3


@dataclass
class Stopped:
    """Whether a person pressed Ctrl-C, which a service's SIGTERM is not."""

    by_ctrl_c: bool = False


@contextmanager
def on_signals(stop: Callable[[], None], reload: Callable[[], None] | None = None) -> Iterator[Stopped]:
    """While the block runs, call `stop` on SIGINT and SIGTERM, and `reload` on SIGHUP where there is that signal."""
    stopped = Stopped()
    meant = dict.fromkeys(STOP_SIGNALS, stop)
    if reload is not None and RELOAD_SIGNAL is not None:
        meant[RELOAD_SIGNAL] = reload

    def handle(number: int, _frame: FrameType | None) -> None:
        stopped.by_ctrl_c |= number == signal.SIGINT
        meant[signal.Signals(number)]()

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, handle) for number in meant}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Answers = list[Mapping[str, object]]


def drive(
    agent: Agent,
    narrator: Narrator,
    *,
    until_rest: bool,
    commands: Sequence[Command] = (),
) -> tuple[Answers, list[Problem]]:
    """Have the agent work, an operator's commands first; return the answers to them in order, and what needs a person afterwards.

    Of problems, those of all that the agent was to look after, and only where it came to rest. Raises: SystemExit after Ctrl-C.
    """
    answers: Answers = []
    with on_signals(agent.stop) as stopped:
        agent.open()
        try:
            for command in commands:
                agent.ask(command, answers.append)
            with narrator.following(agent):
                agent.run(until_rest=until_rest)
            found = need_a_person(agent.problems()) if until_rest and not stopped.by_ctrl_c else []
        finally:
            agent.close()
    end_if_interrupted(agent, narrator, stopped)
    return answers, found


def end_if_interrupted(agent: Agent, narrator: Narrator, stopped: Stopped) -> None:
    """Say what was stopped, where a person did that. Raises: SystemExit then."""
    if stopped.by_ctrl_c:
        narrator.on_notice(_what_goes_on(agent))
        leave_now(agent, ExitCode.INTERRUPTED)
        raise SystemExit(ExitCode.INTERRUPTED)


def _what_goes_on(agent: Agent) -> str:
    """Return in one sentence what was stopped."""
    moving = [os.path.basename(record.run_path) for record in agent.store if record.is_working]
    if not moving:
        return "Stopped; nothing was under way."
    more = f" and {len(moving) - NAMED_MAX} more" if len(moving) > NAMED_MAX else ""
    return f"Stopped; the next agent that runs goes on with {', '.join(moving[:NAMED_MAX])}{more}."


def end(agent: Agent, narrator: Narrator, found: Sequence[Problem], code: ExitCode) -> int:
    """Say on stderr what needs a person, a line each, and return the exit code."""
    for fold in folded(found):
        narrator.on_notice(one_line(fold))
    leave_now(agent, code)
    return code


def _still_under_way(site: Site, agent: Agent, run_paths: frozenset[str]) -> list[Problem]:
    """Return those of the runs that did not come to rest, most often because the command was stopped."""
    snapshot, at = agent.snapshot(), Moment(site.now(), is_ended=True)
    moving = CHART.working | {RunState.QUEUED}
    return [
        Problem(
            "under_way",
            record.run_path,
            f"it is still {record.state}: {printable(sentence(record, snapshot, at))}",
            with_flags(command_of("run"), site.flags),
            record.equipment_id,
            (record.run_path,),
            record.entered_at,
        )
        for record in agent.store
        if record.run_path in run_paths and record.state in moving
    ]


def act_on_each(site: Site, commands: Mapping[str, Command]) -> int:
    """Have a command for each of these runs (path → command) obeyed, and print what it did with each; return the exit code."""
    paths = iter(commands)
    codes: list[int] = []

    def tell(answer: Mapping[str, object]) -> None:
        """Answers come in the order of the commands."""
        is_done = bool(answer["ok"])
        (say if is_done else say_aside)(f"{printable(next(paths))}: {answer['message']}")
        codes.append(ExitCode.FINE if is_done else ExitCode.FAILED)

    if site.holder is not None:
        for command in commands.values():
            try:
                tell({"ok": True, "message": site.ask_agent(command)})
            except AgentError as error:
                tell({"ok": False, "message": str(error)})
        return max(codes)
    narrator = Narrator()
    agent = _agent_for(site, frozenset(commands), narrator)
    answers, found = drive(agent, narrator, until_rest=True, commands=tuple(commands.values()))
    for answer in answers:
        tell(answer)
    if len(answers) < len(commands):
        raise AgentError("Stopped before all commands took effect; run it again.")
    found = found or _still_under_way(site, agent, frozenset(commands))
    return end(agent, narrator, found, ExitCode.FAILED if ExitCode.FAILED in codes else _done_or_not(found))


def act(site: Site, command: Command, *, run_paths: frozenset[str], asks_attention: bool = False) -> int:
    """Have an operator's command obeyed; print the answer; return the exit code. Raises: AgentError with the refusal.

    Where its runs did not come to rest as they should, it could not do its work; with `asks_attention` the code says how bad
    that is.
    """
    if site.holder is not None:
        say(site.ask_agent(command))
        return ExitCode.FINE
    narrator = Narrator()
    agent = _agent_for(site, run_paths, narrator)
    answers, found = drive(agent, narrator, until_rest=True, commands=(command,))
    for said in _answered(answers):
        say(said)
    found = found or _still_under_way(site, agent, run_paths)
    return end(agent, narrator, found, exit_code(found) if asks_attention else _done_or_not(found))


def _answered(answers: Answers) -> list[str]:
    """Return what was answered. Raises: AgentError with the first refusal, or where nothing was."""
    if not answers:
        raise AgentError("Stopped before the command took effect; run it again.")
    for answer in answers:
        if not answer["ok"]:
            raise AgentError(str(answer["message"]))
    return [str(answer["message"]) for answer in answers]


def _done_or_not(found: Sequence[Problem]) -> ExitCode:
    return ExitCode.FAILED if found else ExitCode.FINE


def _agent_for(site: Site, run_paths: frozenset[str], narrator: Narrator) -> Agent:
    """Return an agent that looks after these runs only."""
    scope = Scope(only=run_paths, is_watching=False)
    return Agent(site.settings, state_dir=site.state, scope=scope, on_move=narrator.on_move, flags=site.flags)


def known(site: Site, word: str) -> tuple[str, RunRecord]:
    """Return path and record of a run that is known. Raises: AgentError, RunNotFoundError."""
    path, record = site.find_run(word)
    if record is None:
        raise AgentError(f"{printable(path)} is not known yet: {site.command('sync', shell_word(path))} looks at it.")
    return path, record


def retry(site: Site, words: Sequence[str], *, is_all: bool) -> int:
    """Try these runs again, or every failed one; return the exit code. Raises: ConfigError, RunNotFoundError."""
    if is_all == bool(words):
        raise ConfigError("Name the runs to try again, or give --all.")
    if is_all:
        tried = frozenset(record.run_path for record in site.records.values() if _is_to_be_tried(record))
        if not tried:
            say("no run has failed, and none waits for its next attempt")
            return ExitCode.FINE
        return act(site, RetryAll(operator_here()), run_paths=tried)
    named = [known(site, word) for word in words]  # a mistyped name stops all before anything is done
    codes: list[int] = []
    for path, record in named:
        try:
            codes.append(act(site, Retry(operator_here(), job_id=record.job_id), run_paths=frozenset({path})))
        except AgentError as error:
            say_aside(str(error))
            codes.append(ExitCode.FAILED)
    return max(codes)


def _is_to_be_tried(record: RunRecord) -> bool:
    return record.state is RunState.FAILED or (record.state is RunState.QUEUED and record.next_attempt_at is not None)


def cancel(site: Site, word: str, reason: str) -> int:
    """End what is under way with a run; return the exit code. Raises: AgentError with the refusal, RunNotFoundError."""
    path, record = known(site, word)
    command = Cancel(operator_here(), job_id=record.job_id, reason=reason_in(reason))
    if site.holder is not None:
        said = site.ask_agent(command)
    else:
        scope = Scope(only=frozenset({path}), is_watching=False, is_working=False)
        agent = Agent(site.settings, state_dir=site.state, scope=scope, flags=site.flags)
        (said,) = _answered(drive(agent, Narrator(is_quiet=True), until_rest=True, commands=(command,))[0])
        leave_now(agent, ExitCode.FINE)
    say(f"{printable(path)}: {said}")
    return ExitCode.FINE


def scan(site: Site, accept_root: str | None) -> int:
    """Reconcile now what is known with what is on the disk; without a running agent here, and nothing is pushed."""
    if accept_root is not None and accept_root not in site.roots:
        raise ConfigError(f"{printable(accept_root)} is not in the config, which has {', '.join(site.roots)}.")
    command = ScanRoots(operator_here(), accept_root)
    if site.holder is not None:
        say(site.ask_agent(command))
        return ExitCode.FINE
    before = {record.job_id: record.state for record in site.records.values()}
    narrator = Narrator(is_quiet=True)
    scope = Scope(is_watching=False, is_working=False)
    agent = Agent(site.settings, state_dir=site.state, scope=scope, flags=site.flags)
    _, found = drive(agent, narrator, until_rest=True, commands=(command,))
    for equipment_id, lane in agent.scanned().items():
        if lane.root_problem is not None:
            say(f"{equipment_id} waits: {printable(lane.root_problem)}")
            continue
        new = sum(1 for record in agent.store if record.equipment_id == equipment_id and record.job_id not in before)
        say(f"{equipment_id}: {counted(lane.runs_seen, 'run folder')}, {new} new, {lane.gone} gone")
        doubted = [
            record
            for record in agent.store
            if record.equipment_id == equipment_id
            and record.state is RunState.AUDITING
            and before.get(record.job_id) in CHART.sealed_here
        ]
        if doubted:
            first = f"(first: {printable(doubted[0].run_path)})"
            say(
                f"  {counted(len(doubted), 'run')} whose data moved since they were proven {first}: `run` compares both sides"
            )
    return end(agent, narrator, found, ExitCode.FINE)


def sync_run(site: Site, word: str) -> int:
    """Bring one run to rest now; say so where it is not complete yet."""
    path, record = site.find_run(word)
    if site.holder is not None:
        kind = Sync if record is not None else LookAt
        say(site.ask_agent(kind(operator_here(), run_path=path)))
        if unusable := site.snapshot.path_problems.get(printable(path)):
            say_aside(f"{printable(path)}: {unusable.message}")
            return ExitCode.FAILED
        return ExitCode.FINE
    narrator = Narrator()
    agent = _agent_for(site, frozenset({path}), narrator)
    must_ask = record is not None and record.state in CHART.retryable
    commands = (Sync(operator_here(), run_path=path),) if must_ask else ()
    answers, found = drive(agent, narrator, until_rest=True, commands=commands)
    if commands:
        _answered(answers)  # what was done is said by how it ended
    return _say_how_it_ended(site, agent, narrator, path, found)


def _say_how_it_ended(site: Site, agent: Agent, narrator: Narrator, path: str, found: Sequence[Problem]) -> int:
    record = next((r for r in agent.store if r.run_path == path), None)
    snapshot = agent.snapshot()
    if record is None:
        equipment = site.equipment_of(path)
        lane = snapshot.lanes.get(equipment.equipment_id) if equipment is not None else None
        root_problem = lane.root_problem if lane is not None else None
        unusable = snapshot.path_problems.get(printable(path))
        why = unusable.message if unusable is not None else ""
        reason = root_problem or why or "it has no usable .exlab-wizard/creation.json"
        raise AgentError(f"{printable(path)} was not synced: {printable(reason)}")
    if record.sync_status == "synced":
        files, size = counted(record.files_total, "file"), counted(record.bytes_total, "byte")
        say(f"{printable(path)}: {record.state}, {files}, {size}")
    elif record.state is RunState.CLEANED:
        say(f"{printable(path)}: {record.state}, the NAS has the only copy")
    found = found or _still_under_way(site, agent, frozenset({path}))
    if found or record.sync_status == "synced" or record.state is RunState.CLEANED:
        return end(agent, narrator, found, _done_or_not(found))
    say_aside(f"{printable(path)}: {record.state}: {snapshot.waiting.get(record.job_id, '')}")
    leave_now(agent, ExitCode.FAILED)
    return ExitCode.FAILED
