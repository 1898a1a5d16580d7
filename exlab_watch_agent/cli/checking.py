"""`init` and `check`: a config to begin with, and whether everything is there that the agent will need, a line each."""

from __future__ import annotations

from pathlib import Path

from exlab_watch_agent.app import checks, starting
from exlab_watch_agent.app.site import Site, wizards_config_path
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.core.attention import CHECK
from exlab_watch_agent.core.problem import Tier
from exlab_watch_agent.core.text import counted, printable, shell_word
from exlab_watch_agent.errors import ExitCode
from exlab_watch_agent.report.problems import Fold, exit_code, folded


def init(path: Path, wizards: Path | None, state_dir: Path | None) -> int:
    """Write a config file; return the exit code. Raises: ConfigError where one exists, or ExLab-Wizard's cannot be used."""
    check = f"run `exlab-watch-agent check --config {shell_word(str(path))}`"
    if wizards is not None:
        found = starting.write_beside(path, wizards, state_dir=state_dir)
        has = counted(found, "instrument") if found else "no instrument yet"
        say(
            f"{printable(str(path))} was written; {printable(str(wizards))}, which has {has}, is read with it as it is: {check}."
        )
        return ExitCode.FINE
    starting.write_example_config(path, state_dir=state_dir)
    say(f"{printable(str(path))} was written: set the equipment in it, then {check}.")
    theirs = wizards_config_path()
    if theirs.exists():
        command = f"exlab-watch-agent init --from {shell_word(str(theirs))}"
        say(
            f"ExLab-Wizard's config is {printable(str(theirs))}: to go by its instruments, `{command}` writes a file beside it."
        )
    return ExitCode.FINE


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
