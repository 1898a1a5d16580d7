"""`run`, and `reload` for the agent that runs."""

from __future__ import annotations

import threading

from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.app.pace import Pace
from exlab_watch_agent.app.running import Running
from exlab_watch_agent.app.site import CommandRefusedError, Site, operator_here
from exlab_watch_agent.cli.narrating import Narrator
from exlab_watch_agent.cli.saying import say, say_lines_aside
from exlab_watch_agent.cli.work import drive, end, end_if_interrupted, on_signals
from exlab_watch_agent.core.attention import NO_EQUIPMENT
from exlab_watch_agent.core.commands import Reload
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.report.problems import exit_code
from exlab_watch_agent.report.status import counts


def run_agent(site: Site, *, is_once: bool, is_quiet: bool, pace: Pace) -> int:
    """Run the agent in the foreground; return the exit code."""
    narrator = Narrator(is_quiet=is_quiet)
    if is_once:
        return _run_once(site, narrator, pace)
    if not site.settings.equipment:
        site = with_equipment(site, narrator, every_s=pace.config_every_s, stop=threading.Event())
        if not site.settings.equipment:
            return ExitCode.FINE  # stopped before there was any
    running = Running(site, on_move=narrator.on_move, on_notice=narrator.on_notice, pace=pace)
    with on_signals(running.stop, running.reload) as stopped:
        agent = running.run(narrator.following)
    end_if_interrupted(agent, narrator, stopped)
    return end(agent, narrator, (), ExitCode.FINE)


def _run_once(site: Site, narrator: Narrator, pace: Pace) -> int:
    agent = Agent(
        site.settings,
        state_dir=site.state,
        scope=Scope(is_watching=False),
        on_move=narrator.on_move,
        on_notice=narrator.on_notice,
        pace=pace,
        flags=site.flags,
    )
    _, found = drive(agent, narrator, until_rest=True)
    there = ", ".join(f"{count} {state}" for state, count in counts(agent.store).items())
    say(there or "no runs were found")
    return end(agent, narrator, found, exit_code(found))


def with_equipment(site: Site, narrator: Narrator, *, every_s: float, stop: threading.Event) -> Site:
    """Wait until the config has an instrument, or for `stop`, which a signal sets; return the site as it is then.

    Each mistake in the config is told once meanwhile, and is no end: ExLab-Wizard may be writing it just now. Whoever asks for a
    reload has it already: the config is read again all the time.
    """
    narrator.on_notice(f"{NO_EQUIPMENT}; waiting for one")
    told = ""
    with on_signals(stop.set, lambda: None) as stopped:
        while not site.settings.equipment and not stop.wait(every_s):
            again = Site(site.config, site.state)
            try:
                if again.settings.equipment:
                    return again
            except ConfigError as error:
                if told != str(error):
                    told = str(error)
                    say_lines_aside(told)
    if stopped.by_ctrl_c:
        raise KeyboardInterrupt
    return site


def reload(site: Site) -> int:
    """Have the running agent take in the config as it is now, and say what that changes; return the exit code.

    2: the config cannot be taken in, and why. Raises: AgentError where no agent runs.
    """
    if site.holder is None:
        shown = printable(str(site.state_dir))
        raise AgentError(
            f"No agent is running with the state folder {shown}: `exlab-watch-agent run` starts one, with the config as it is then."
        )
    try:
        said = site.ask_agent(Reload(operator_here()), must_answer=True)
    except CommandRefusedError as error:
        say_lines_aside(str(error))
        return ExitCode.USAGE
    for line in said.split("\n"):
        say(line)
    return ExitCode.FINE
