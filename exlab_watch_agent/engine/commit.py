"""One pass of the loop as a unit of work: what it decided, made durable with one commit, and only then given back to take effect.

Decided here: the order of saving and acting, and what happens while the state folder has no room: nothing is decided, nothing
is started, results of running effects are kept, file events come down to one scan, and the same commit is tried again. Not
here: what is durable and how (the store), and what a failed fsync means (the store raises it, and the agent ends).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.effects import Effect
from exlab_watch_agent.core.facts import Fact, IncidentFound, IncidentHealed, TrailFoundBehind, Transition
from exlab_watch_agent.core.pace import PACE, Pace
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.rollback import SEALED_AT, TrailPosition, found_behind
from exlab_watch_agent.engine.messages import Answer, CommandGiven, Ended, Message, Noted, Noticed, ScanWanted, Woken
from exlab_watch_agent.engine.timers import TimerKind, Timers
from exlab_watch_agent.engine.views import Pause
from exlab_watch_agent.errors import StoreFullError
from exlab_watch_agent.ports import Clock, Entry, RunStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that is durable now; `before` is None for a run that has just been discovered."""

    before: RunRecord | None
    after: RunRecord
    move: Move


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command, due once what the command caused is durable."""

    to: Callable[[Answer], None]
    answer: Answer


Consequence = Moved | Effect | Reply


class Commit:
    """The loop's own; only its thread uses it. What is saved here is true for this pass, and durable at its end.

    `waits_for_room` is False where a command had rather end than wait.
    """

    def __init__(self, store: RunStore, clock: Clock, timers: Timers, pace: Pace = PACE) -> None:
        self.store = store
        self._clock = clock
        self._timers = timers
        self._pace = pace
        self._entries: list[Entry] = []
        self._fresh: dict[str, RunRecord] = {}
        self._fresh_paths: dict[str, str] = {}
        self._consequences: list[Consequence] = []
        self.waits_for_room = True
        self.pause: Pause | None = None
        self._wait_s = self._pace.room_first_s
        self._held: list[Message] = []
        self._timers_held: list[tuple[TimerKind, str]] = []
        self._has_missed_events = False

    # --- the records as they are in this pass ------------------------------------------------------------------------

    def record(self, job_id: str) -> RunRecord | None:
        return self._fresh.get(job_id) or self.store.get(job_id)

    def record_at(self, run_path: str) -> RunRecord | None:
        job_id = self._fresh_paths.get(run_path)
        if job_id is not None:
            return self._fresh[job_id]
        stored = self.store.by_path(run_path)
        record = self.record(stored.job_id) if stored is not None else None
        # A run that was moved away in this very pass leaves its place to another.
        return record if record is not None and record.run_path == run_path else None

    def twins(self, identity: RunIdentity) -> list[RunRecord]:
        """Return the known runs of this identity as they are now: one may have been moved in this very pass."""
        return [self._fresh.get(stored.job_id, stored) for stored in self.store.by_identity(identity)]

    # --- what this pass decides --------------------------------------------------------------------------------------

    def note(self, fact: Fact, *, operator: str | None = None) -> None:
        """Put a line into the trail that is about no run."""
        self._entries.append(Entry(fact.kind, operator=operator, data=fact.data()))

    def compare_anchor(self, seen: TrailPosition, *, where: str = SEALED_AT) -> None:
        """Hold deletion where an anchor of our own on the NAS does not fit the trail here."""
        found = found_behind(
            seen,
            head=self.store.position,
            digest_here=self.store.digest_at(seen.seq),
            ahead=self.store.ahead,
            where=where,
        )
        if found:
            log.error("Deletion is held: %s.", found)
            self.note(TrailFoundBehind(seen, found))

    def save(self, record: RunRecord, fact: Fact, *, operator: str | None = None) -> RunRecord:
        """Put a run's record and a line of the trail beside the others of this pass."""
        move = fact.move if isinstance(fact, Transition) else None
        self._entries.append(Entry(fact.kind, record, move, operator, fact.data()))
        self._fresh[record.job_id] = record
        self._fresh_paths[record.run_path] = record.job_id
        return record

    def note_incidents(self, before: RunRecord, after: RunRecord) -> None:
        """Put what was found wrong with a copy, and what is right again, into the trail as lines of their own."""
        known = {one.id: one for one in before.incidents}
        for one in after.incidents:
            if one.id not in known:
                log.warning("%s: the copy on the NAS is not what was sealed: %s", after.run_path, one.what)
                self.save(after, IncidentFound(one))
            elif one.is_healed and not known[one.id].is_healed:
                self.save(after, IncidentHealed(one))

    def then(self, *consequences: Consequence) -> None:
        """Have this take effect once the pass is durable, in the order of these calls."""
        self._consequences += consequences

    @property
    def is_empty(self) -> bool:
        return not self._entries and not self._consequences

    # --- saving ------------------------------------------------------------------------------------------------------

    def make_durable(self) -> list[Consequence] | None:
        """Make this pass durable; return what may take effect now, in order.

        None where there is no room: what was decided stays for the next try, and a pause begins. Raises: StoreWriteError;
        StoreFullError where nobody is to wait.
        """
        if self._entries:
            try:
                self.store.commit(self._entries, at=self._clock.now())
            except StoreFullError as error:
                if not self.waits_for_room:
                    raise StoreFullError(f"{error} Then start it again: nothing goes on by itself.") from error
                self._wait(f"{error} The agent then goes on by itself.")
                return None
            self._end_pause()
        self._entries.clear()
        self._fresh.clear()
        self._fresh_paths.clear()
        due, self._consequences = self._consequences, []
        return due

    def _wait(self, reason: str) -> None:
        now_s = self._clock.monotonic_s()
        if self.pause is None:
            self.pause = Pause(self._clock.now(), reason)
            self._wait_s = self._pace.room_first_s
            log.warning("Nothing is decided until there is room: %s", reason)
        else:
            self._wait_s = min(self._pace.room_max_s, self._wait_s * 2)
        self._timers.set(TimerKind.ROOM, "", due_s=now_s + self._wait_s)

    def _end_pause(self) -> None:
        if self.pause is None:
            return
        self.pause = None
        self._timers.cancel(TimerKind.ROOM, "")
        # Set again before what was decided takes effect: that may cancel one of them.
        for kind, key in self._timers_held:
            self._timers.set_earlier(kind, key, due_s=self._clock.monotonic_s())
        self._timers_held.clear()
        log.warning("There is room again: the agent goes on where it was.")

    # --- while there is no room --------------------------------------------------------------------------------------

    def hold(self, messages: Iterable[Message]) -> bool:
        """Keep what must not be lost; return whether it is time to try the same commit again.

        What is kept is bounded by the effects that were running when the pause began.
        """
        for message in messages:
            self._keep(message)
        due = self._timers.take_due(self._clock.monotonic_s())
        self._timers_held += [(kind, key) for kind, key in due if kind is not TimerKind.ROOM]
        return any(kind is TimerKind.ROOM for kind, _ in due)

    def take_held(self) -> list[Message]:
        """Return and forget what was kept, once there is room again."""
        held, self._held = self._held, []
        if self._has_missed_events:
            held.append(ScanWanted())
            self._has_missed_events = False
        return held

    def _keep(self, message: Message) -> None:
        assert self.pause is not None, "there is a pause"
        match message:
            case Woken():
                pass
            case Noticed() | ScanWanted():
                self._has_missed_events = True
            case CommandGiven():
                message.reply({"ok": False, "message": f"Nothing is decided now: {self.pause.reason}"})
            case Ended() | Noted():
                self._held.append(message)
            case _:
                assert_never(message)


def answer(text: str, *, is_ok: bool = True) -> Mapping[str, object]:
    """Return the answer to a command, as it is left for the one who gave it."""
    return {"ok": is_ok, "message": text}
