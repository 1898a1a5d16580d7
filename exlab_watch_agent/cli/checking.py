"""`check`: is everything there that the agent will need? One line each, and what to do about what is not."""

from __future__ import annotations

from exlab_watch_agent.app import checks
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.errors import ExitCode


def check(site: Site) -> int:
    """Print the findings; return 0 when all is well, 1 when something is not. Raises: ConfigError."""
    lines = checks.check(site)
    for is_fine, text in lines:
        say(f"{'ok ' if is_fine else 'NOT'} {text}")
    return ExitCode.FINE if all(is_fine for is_fine, _ in lines) else ExitCode.FAILED
