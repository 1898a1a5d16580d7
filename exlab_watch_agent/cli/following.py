"""`log`: the lines of a log, and with -f those that come."""

from __future__ import annotations

from collections import deque

from exlab_watch_agent.app.logs import log_of
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.saying import say, say_aside
from exlab_watch_agent.errors import ExitCode

FOLLOW_EVERY_S = 0.5
FIRST_SHOWN_MAX = 10


def log(site: Site, word: str | None, *, is_followed: bool) -> int:
    """Print a log; with `is_followed` its last lines, and those that come until Ctrl-C. Raises: AgentError."""
    found = log_of(site, word)
    try:
        if not is_followed:
            is_empty = True
            for line in found.lines():
                say(line)
                is_empty = False
            if is_empty:
                say_aside("nothing is logged of that yet")
            return ExitCode.FINE
        for line in deque(found.lines(), maxlen=FIRST_SHOWN_MAX):
            say(line, is_flushed=True)
        while True:
            site.clock.pause(FOLLOW_EVERY_S)
            for line in found.new_lines():
                say(line, is_flushed=True)
    finally:
        found.file.close()
