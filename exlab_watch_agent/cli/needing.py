"""`problems`: what needs a person, of all or of some; and `problems dismiss ID`: a soft finding or an orphan is listed no more.

A dismissal changes nothing of gate, cleanup and record.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.cli.overriding import moment_of
from exlab_watch_agent.cli.saying import say, say_json
from exlab_watch_agent.core.commands import DismissProblem, reason_in
from exlab_watch_agent.core.problem import DISMISSABLE, TIERS
from exlab_watch_agent.core.text import printable, utc_text
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.report.problems import Wanted, exit_code, folded, lines, unfolded


def list_all(site: Site, words: Sequence[str], asked: Wanted, *, as_json: bool) -> int:
    """List what needs a person of these runs, instruments and projects, or of all; return the exit code.

    Raises: ConfigError, RunNotFoundError.
    """
    if asked.code and asked.code not in TIERS:
        near = "".join(f" The nearest one is {name}." for name in get_close_matches(asked.code, TIERS, n=1))
        raise ConfigError(f"{printable(asked.code)} is not the code of a problem: docs/json.md lists them.{near}")
    wanted = offline.wanted_of(site, words, asked)
    found = [problem for problem in offline.find_problems(site) if wanted.takes(problem)]
    if as_json:
        say_json({"schema": 1, "problems": [problem.to_json() for problem in found]})
        return exit_code(found)
    for line in lines(unfolded(found) if wanted.names_some else folded(found, flags=site.flags)):
        say(line)
    return exit_code(found)


def dismiss(site: Site, words: Sequence[str], *, reason: str, until: str | None) -> int:
    """Dismiss one problem. Raises: ConfigError for wrong words, AgentError where it cannot be dismissed."""
    if len(words) != 1:
        raise ConfigError("Name the ID of one problem, as `problems --json` gives it: problems dismiss ID --reason R.")
    why = reason_in(reason)
    moment = moment_of(until, site.now(), "--until")
    found = next((one for one in offline.find_problems(site) if one.id == words[0]), None)
    if found is None:
        raise AgentError(f"No problem is called {printable(words[0])}: `problems --all --json` gives the id of each.")
    if found.code not in DISMISSABLE:
        raise AgentError(
            f"{found.code} cannot be dismissed, only soft findings and orphans can: it goes once it is mended. -> {found.command}"
        )
    command = DismissProblem(operator_here(), found.id, why, utc_text(moment) if moment is not None else None)
    say(offline.dismiss(site, command))
    return ExitCode.FINE
