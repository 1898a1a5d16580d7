"""What operators left in the inbox, as commands with the way back for their answers. What is no command is answered here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from exlab_watch_agent.adapters.state.inbox import Inbox
from exlab_watch_agent.app.publish import Every
from exlab_watch_agent.core.commands import AgentCommand, agent_command_of
from exlab_watch_agent.engine.commit import answer
from exlab_watch_agent.engine.messages import Answer
from exlab_watch_agent.errors import AgentError, StateFolderError
from exlab_watch_agent.ports import Clock

log = logging.getLogger(__name__)

Request = tuple[AgentCommand, Callable[[Answer], None]]


class Requests:
    """The requests that operators left in the inbox. `has_news` may be set from any thread."""

    def __init__(self, inbox: Inbox, clock: Clock, every_s: float) -> None:
        self._inbox = inbox
        self._time = Every(clock, every_s)
        self.has_news = True

    def prepare(self) -> None:
        """Make the inbox. Raises: StateFolderError."""
        try:
            self._inbox.prepare()
        except OSError as error:
            raise StateFolderError(
                f"{self._inbox.folder} cannot be made ({error.strerror}): make room or repair the disk, then start again."
            ) from error

    def take(self) -> list[Request]:
        """Return the requests that are there, each with the way back for its answer; none where it is not time to look."""
        if not (self.has_news or self._time.is_time()):
            return []
        self.has_news = False
        try:
            taken = self._inbox.take()
        except OSError as error:
            log.warning("the inbox cannot be read: %s", error.strerror)
            return []
        commands: list[Request] = []
        for request in taken:
            reply = partial(self._inbox.reply, request.name)
            try:
                commands.append((agent_command_of(request.members, request.owner), reply))
            except AgentError as error:
                reply(answer(str(error), is_ok=False))
        return commands
