"""One agent after the other over one state folder, in one process: each reload ends one as a stop does, and begins the next.

Decided here: that the folder's lock is held meanwhile, so that nobody comes between them, and that no agent begins beside a thread
of the one before. Not here: when there is a reload (reloading.py), and which signals mean what (cli/running.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn

from exlab_watch_agent.adapters.state.folder_lock import folder_lock
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.config_file import ConfigSource
from exlab_watch_agent.app.pace import Pace
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.config.load import Settings
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.errors import ExitCode

Around = Callable[[Agent], AbstractContextManager[None]]


def begin_process_anew() -> NoReturn:
    """Begin this very command from its start; its threads end, wherever they hang.

    Where a system cannot, the process ends as failed, so that its service starts it again.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own words
    os._exit(ExitCode.FAILED)


class Running:
    """The agents of a site, until `stop`. `on_move`, `on_notice`: see Agent.

    `begin_anew`: for where a thread hangs in a dead mount, which may yet write; it does not return.
    """

    def __init__(
        self,
        site: Site,
        *,
        on_move: Callable[[RunRecord, Move], None],
        on_notice: Callable[[str], None],
        pace: Pace,
        begin_anew: Callable[[], None] = begin_process_anew,
    ) -> None:
        self._site = site
        self._on_move = on_move
        self._on_notice = on_notice
        self._pace = pace
        self._begin_anew = begin_anew
        self._lock = folder_lock(site.state_dir)
        self._source = ConfigSource(
            lambda: Site(site.config, site.state).settings, has_fixed_state_dir=site.state is not None
        )
        self._agent: Agent | None = None
        self._is_stopping = False

    def stop(self) -> None:
        """End the agent that runs, and begin no other. From any thread, and from a signal's handler."""
        self._is_stopping = True
        if self._agent is not None:
            self._agent.stop()

    def reload(self) -> None:
        """Have the config read anew, by the agent that runs or by the next one. From any thread, and from a signal's handler."""
        self._source.want()
        if self._agent is not None:
            self._agent.wake()

    def run(self, around: Around) -> Agent:
        """Work until `stop`, `around` each agent; return the last one, closed. Raises: as `Agent.open` and `Agent.run` do."""
        agent = self._open(self._site.settings)
        while True:
            try:
                with around(agent):
                    agent.run()
                successor = None if self._is_stopping else agent.successor
            except BaseException:
                agent.close()
                raise
            if successor is None:
                agent.close()
                return agent
            with self._lock:
                agent.close()
                if agent.engine is not None and not agent.engine.is_drained:
                    self._begin_anew()
                agent = self._open(successor)

    def _open(self, settings: Settings) -> Agent:
        agent = Agent(
            settings,
            state_dir=self._site.state_dir,
            on_move=self._on_move,
            on_notice=self._on_notice,
            pace=self._pace,
            flags=self._site.flags,
            source=self._source,
            lock=self._lock,
        )
        self._agent = agent
        if self._is_stopping:
            agent.stop()
        agent.open()
        return agent
