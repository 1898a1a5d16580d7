"""`problems`: what needs a person, of all or of some; `problems dismiss ID`: a soft finding or an orphan is listed no more; and
`forget`: neither is what nobody can mend any more.

Neither changes anything of gate, cleanup and record.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.cli.overriding import moment_of
from exlab_watch_agent.cli.saying import say, say_json
from exlab_watch_agent.core.attention import with_flags
from exlab_watch_agent.core.commands import DismissProblem, Forget, reason_in
from exlab_watch_agent.core.forgetting import is_of, refusal, rest, to_forget
from exlab_watch_agent.core.problem import DISMISSABLE, TIERS, Problem, about
from exlab_watch_agent.core.run_problems import RUN_GONE
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


def forget(site: Site, word: str, reason: str) -> int:
    """Have what nobody can mend any more of a run or an instrument told no longer.

    Raises: ConfigError for a reason that says too little, RunNotFoundError, AgentError where all of it can still be mended.
    """
    why = reason_in(reason)
    is_equipment = word in site.roots or any(record.equipment_id == word for record in site.records.values())
    subject = word if is_equipment else site.find_run(word)[0]
    named = {"equipment_id": subject} if is_equipment else {"run_path": subject}
    found = [one for one in offline.find_problems(site) if is_of(one, **named)]
    if back := next((one.subject for one in to_forget(found) if _is_back(site, one)), None):
        again = with_flags(about("sync", back), site.flags)
        raise AgentError(f"{printable(back)} is here again, so that nothing of it is beyond mending yet. -> {again}")
    beyond = to_forget(found)
    if not beyond:
        raise AgentError(refusal(found, subject))
    command = Forget(operator_here(), subject, " ".join(one.id for one in beyond), why)
    say(f"{printable(subject)}: {offline.dismiss(site, command)}{rest(found)}")
    return ExitCode.FINE


def _is_back(site: Site, problem: Problem) -> bool:
    """Whether the run that a problem is about is on the disk now, of which an agent has known that it is not."""
    return problem.code == RUN_GONE and site.is_here(problem.subject)
