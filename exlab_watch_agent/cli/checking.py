"""`check`: is everything there that the agent will need? One line each, and what to do about what is not."""

from __future__ import annotations

from exlab_watch_agent.app import checks
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.core.attention import CHECK
from exlab_watch_agent.core.problem import Tier
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import ExitCode
from exlab_watch_agent.report.problems import Fold, exit_code, folded


def check(site: Site) -> int:
    """Print the findings; return the exit code. Raises: ConfigError.

    1 where the agent could not even start to work; else that of what needs a person.
    """
    found = checks.check(site)
    for is_fine, text in [*found.lines, *map(_line, folded(found.problems, flags=site.flags))]:
        say(f"{'ok ' if is_fine else 'NOT'} {text}")
    return exit_code(found.problems) if all(is_fine for is_fine, _ in found.lines) else ExitCode.FAILED


def _line(fold: Fold) -> checks.Line:
    """Return one kind of problem in a line: `check` is not told as what helps to one who gives it."""
    first = fold.first
    helps = "" if first.command.startswith(CHECK) else f" -> {first.command}"
    return first.tier is Tier.NOTICE, f"{printable(first.subject)}: {first.sentence}{fold.others()}{helps}"
