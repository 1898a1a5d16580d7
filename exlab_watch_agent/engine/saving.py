"""Makes each pass of the loop durable before it takes effect, and waits while the state folder has no room.

Decided here: the order of saving and acting, and what happens meanwhile where there is no room: nothing is decided, nothing
is started, outcomes of running work are kept, file events come down to one scan, and the same commit is tried again. Not
here: what is durable and how (the store), and what a failed fsync means (the store raises it, and the agent ends).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exlab_watch_agent.engine.desk import Desk
from exlab_watch_agent.engine.lane import Noticed, Requested, ScanWanted, Woken
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.errors import StoreFullError

log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0
WAIT_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing is decided now, in one sentence with the next step, and since when."""

    since: datetime
    reason: str


class Saving:
    """Part of the engine's loop; see desk.py. `waits_for_room` is False where a command had rather end than wait."""

    def __init__(self, desk: Desk, schedule: Callable[[], None]) -> None:
        self._desk = desk
        self._schedule = schedule
        self.waits_for_room = True
        self.pause: Pause | None = None
        self._wait_s = FIRST_WAIT_S
        self._held: list[Any] = []
        self._timers_held: list[tuple[TimerKind, str]] = []
        self._has_missed_events = False

    def commit(self) -> None:
        """Make this pass durable, then let it take effect. Repeats while what took effect decided something more.

        Where there is no room, what was decided stays for the next try, and a pause begins. Raises: StoreWriteError.
        """
        while self._desk.entries or self._desk.after_commit:
            if self._desk.entries and not self._is_durable():
                return
            self._desk.entries.clear()
            self._desk.fresh.clear()
            self._desk.fresh_paths.clear()
            actions, self._desk.after_commit = self._desk.after_commit, []
            for action in actions:
                action()
            self._schedule()

    def _is_durable(self) -> bool:
        try:
            self._desk.store.commit(self._desk.entries, at=self._desk.clock.now())
        except StoreFullError as error:
            if not self.waits_for_room:
                raise
            self._wait(str(error))
            return False
        self._end_pause()
        return True

    def _wait(self, reason: str) -> None:
        now_s = self._desk.clock.monotonic_s()
        if self.pause is None:
            self.pause = Pause(self._desk.clock.now(), reason)
            self._wait_s = FIRST_WAIT_S
            log.warning("Nothing is decided until there is room: %s", reason)
        else:
            self._wait_s = min(WAIT_MAX_S, self._wait_s * 2)
        self._desk.timers.set(TimerKind.ROOM, "", due_s=now_s + self._wait_s)

    def _end_pause(self) -> None:
        if self.pause is None:
            return
        self.pause = None
        self._desk.timers.cancel(TimerKind.ROOM, "")
        # Set again before what was decided takes effect: that may cancel one of them.
        for kind, key in self._timers_held:
            self._desk.timers.set_earlier(kind, key, due_s=self._desk.clock.monotonic_s())
        self._timers_held.clear()
        log.warning("There is room again: the agent goes on where it was.")

    def go_on(self, messages: Iterable[Any]) -> list[Any]:
        """During a pause: keep what must not be lost, try again when it is time; return what can be handled now.

        What is kept is bounded by the work and the looks that were under way when the pause began.
        """
        for message in messages:
            self._keep(message)
        due = self._desk.timers.take_due(self._desk.clock.monotonic_s())
        self._timers_held += [(kind, key) for kind, key in due if kind is not TimerKind.ROOM]
        if any(kind is TimerKind.ROOM for kind, _ in due):
            self.commit()
        if self.pause is not None:
            return []
        held, self._held = self._held, []
        if self._has_missed_events:
            held.append(ScanWanted())
            self._has_missed_events = False
        return held

    def _keep(self, message: Any) -> None:
        assert self.pause is not None, "there is a pause"
        match message:
            case None | Woken():
                pass
            case Noticed() | ScanWanted():
                self._has_missed_events = True
            case Requested():
                message.reply({"ok": False, "message": f"Nothing is decided now: {self.pause.reason}"})
            case _:
                self._held.append(message)
