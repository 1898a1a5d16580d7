"""Takes another config in: the last decision of a running agent, which is in the trail, and told, before the agent ends for it.

Decided here: who may want it (an operator, a signal, the agent itself), and what is answered. What changed and whether that may be
taken in without a person is config_file.py's; that the next agent begins, running.py's.
"""

from __future__ import annotations

from collections.abc import Callable

from exlab_watch_agent.app.config_file import ConfigSource, ConfigWatch, Found, in_one_line
from exlab_watch_agent.config.changes import Waits
from exlab_watch_agent.config.load import Settings
from exlab_watch_agent.core.commands import Reload
from exlab_watch_agent.core.facts import ConfigChanged, Fact, OperatorCommand, TakenBecause
from exlab_watch_agent.core.text import counted, printable_lines
from exlab_watch_agent.engine.commit import answer
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.messages import Answer, Noted

CHANGES_KEPT_MAX = 100
"""So many changes are spelled out in the trail and in the answer; of more, the number."""
NO_RELOAD = "This agent works on a single command and ends by itself: the next one reads the config anew."
UNDER_WAY = "Another config is being taken in just now: `status` says what is in force then."
NOTHING_NEW = "the config says what is in force: nothing has changed"
_SAID = {
    TakenBecause.COMMAND: "`reload` asked for it",
    TakenBecause.SIGNAL: "a signal asked for it",
    TakenBecause.BY_ITSELF: "by itself",
}


class Reloading:
    """The loop's own; only its thread uses it. `successor`: the config to go on with once this agent has ended; None: none.

    `tell`: says one line to whoever runs the agent.
    """

    def __init__(
        self, watch: ConfigWatch, source: ConfigSource | None, engine: Engine, tell: Callable[[str], None]
    ) -> None:
        self._watch = watch
        self._source = source
        self._engine = engine
        self._tell = tell
        self._is_taking = False
        self.successor: Settings | None = None

    def on_command(self, command: Reload, reply: Callable[[Answer], None]) -> None:
        """Obey an operator: what the config says now is taken in, whatever it waits for, or refused in words."""
        given = OperatorCommand(command)
        found = self._watch.find()
        refused = self._refusal(found)
        if refused or not found.changes:
            said = answer(refused or NOTHING_NEW, is_ok=not refused)
            self._engine.post(Noted((given,), str(command.operator), reply, said))
            return
        self._take(found, TakenBecause.COMMAND, reply, given=(given,), operator=str(command.operator))

    def in_time(self) -> None:
        """Do what a signal asked for, and what may be done by itself."""
        if self._source is None or self._is_taking:
            return
        if self._source.take_wish():
            found = self._watch.find()
            if refused := self._refusal(found):
                self._tell_lines(refused)
            elif found.changes:
                self._take(found, TakenBecause.SIGNAL, lambda _: None)
            else:
                self._tell(NOTHING_NEW)
        elif (due := self._watch.due(is_busy=self._engine.is_busy)) is not None:
            self._take(due, TakenBecause.BY_ITSELF, lambda _: None)

    def _refusal(self, found: Found) -> str:
        """Return why it cannot be taken in now, in lines; empty where it can."""
        if self._source is None:
            return NO_RELOAD
        if self._is_taking:
            return UNDER_WAY
        if found.mistakes:
            return f"The config cannot be taken in, and the one before it stays:\n{found.mistakes}"
        if found.waits_for is Waits.START:
            told = in_one_line([one.sentence for one in found.changes if one.waits_for is Waits.START])
            return f"The config was not taken in, because this needs a new start of the agent: {told}."
        return ""

    def _take(
        self,
        found: Found,
        because: TakenBecause,
        reply: Callable[[Answer], None],
        *,
        given: tuple[Fact, ...] = (),
        operator: str | None = None,
    ) -> None:
        """Have what changes put into the trail, and the agent end once it is there: the next one begins with it."""
        self._is_taking = True
        told, total = found.sentences[:CHANGES_KEPT_MAX], len(found.sentences)
        head = f"another config is taken in ({_SAID[because]}), {counted(total, 'change')}:"
        more = [f"... and {total - len(told)} more"] if total > len(told) else []
        said = "\n".join((head, *told, *more))

        def go(said: Answer) -> None:
            reply(said)
            self.successor = found.settings
            self._tell_lines(str(said["message"]))
            self._engine.stop()

        fact = ConfigChanged(told, total, because)
        self._engine.post(Noted((*given, fact), operator, go, answer(said)))

    def _tell_lines(self, text: str) -> None:
        for line in printable_lines(text).split("\n"):
            self._tell(line)
