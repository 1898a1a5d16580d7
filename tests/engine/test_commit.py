"""Save, then act, and what happens while there is no room to save: nothing is lost, nothing is done twice or too early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from exlab_watch_agent.core.commands import RetryAll
from exlab_watch_agent.core.effects import Probe
from exlab_watch_agent.core.events import Answered
from exlab_watch_agent.core.facts import RootBound
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.core.passes import Uptime
from exlab_watch_agent.engine.commit import Commit, Reply, answer
from exlab_watch_agent.engine.messages import Answer, CommandGiven, Ended, Message, Noticed, ScanWanted, Woken
from exlab_watch_agent.engine.timers import TimerKind, Timers
from exlab_watch_agent.errors import StoreFullError, StoreWriteError
from exlab_watch_agent.ports import Entry, RunStore

BEGAN = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)


@dataclass
class Clock:
    mono_s: float = 1000.0

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.mono_s - 1000.0)

    def monotonic_s(self) -> float:
        return self.mono_s

    def uptime(self) -> Uptime:
        return Uptime("boot", self.mono_s)


@dataclass
class Store:
    """A store that has room, has none, or fails."""

    error: StoreWriteError | None = None
    kept: list[str] = field(default_factory=list)
    tries: int = 0

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.kept += [str(entry.data["volume"]) for entry in entries]


class Pass:
    """The part of a loop that commits: what took effect is in `done`."""

    def __init__(self) -> None:
        self.store, self.clock, self.timers = Store(), Clock(), Timers()
        self.done: list[str] = []
        self.commit = Commit(cast("RunStore", self.store), self.clock, self.timers)

    def decide(self, what: str) -> None:
        self.commit.note(RootBound("SCOPE_01", what))
        self.commit.then(Reply(lambda said: self.done.append(str(said["message"])), answer(what)))

    def is_paused(self) -> bool:
        return self.commit.pause is not None

    def settle(self) -> None:
        for consequence in self.commit.make_durable() or ():
            assert isinstance(consequence, Reply)
            consequence.to(consequence.answer)

    def wait(self, seconds: float, *messages: Message) -> list[Message]:
        """Let time pass during a pause; return what can be handled once it is over."""
        self.clock.mono_s += seconds
        if self.commit.hold(messages):
            self.settle()
        return [] if self.commit.pause is not None else self.commit.take_held()


@pytest.fixture
def loop() -> Pass:
    return Pass()


FULL = StoreFullError("There is no room in the folder: make room.")


def test_nothing_takes_effect_before_it_is_durable_and_then_once(loop: Pass) -> None:
    loop.store.error = FULL
    loop.decide("a")
    loop.decide("b")
    loop.settle()
    assert loop.commit.pause is not None
    assert (loop.commit.pause.since, loop.commit.pause.reason) == (BEGAN, f"{FULL} The agent then goes on by itself.")
    assert (loop.store.kept, loop.done) == ([], [])
    loop.wait(1.0)
    assert loop.done == []
    loop.store.error = None
    loop.wait(2.0)
    assert not loop.is_paused()
    assert (loop.store.kept, loop.done) == (["a", "b"], ["a", "b"])
    loop.settle()
    assert (loop.store.kept, loop.done) == (["a", "b"], ["a", "b"])
    assert loop.commit.is_empty


def test_it_tries_again_after_1_2_4_and_at_most_30_seconds_and_from_1_in_the_next_pause(loop: Pass) -> None:
    for _ in range(2):
        loop.store.error, loop.store.tries = FULL, 0
        loop.decide("a")
        loop.settle()
        for tries, wait_s in enumerate((1, 2, 4, 8, 16, 30, 30, 30), start=1):
            assert loop.store.tries == tries
            loop.wait(wait_s - 0.01)
            assert loop.store.tries == tries
            loop.wait(0.01)
        loop.store.error = None
        loop.wait(30)
        assert not loop.is_paused()
        assert not loop.timers.has(TimerKind.ROOM, "")


def ended(number: int) -> Ended:
    return Ended(Probe(f"SCOPE_{number}"), Answered("0" * 32), 0.0, 1.0)


def test_meanwhile_results_are_kept_in_order_and_events_come_down_to_one_scan(loop: Pass) -> None:
    loop.store.error = FULL
    loop.decide("a")
    loop.settle()
    for number in range(5000):
        assert loop.wait(0.0, Noticed((f"/data/{number}",)), ScanWanted(("SCOPE_01",), is_full=False), Woken()) == []
    assert loop.wait(0.0, ended(0), ended(1)) == []
    assert loop.wait(0.0, ended(2)) == []
    loop.store.error = None
    assert loop.wait(1.0) == [ended(0), ended(1), ended(2), ScanWanted()]
    loop.store.error = FULL
    loop.decide("b")
    loop.settle()
    loop.store.error = None
    assert loop.wait(1.0) == []  # no event was missed this time


def test_what_arrives_in_the_moment_of_room_is_handled_then_too(loop: Pass) -> None:
    loop.store.error = FULL
    loop.decide("a")
    loop.settle()
    loop.store.error = None
    assert loop.wait(1.0, ended(0)) == [ended(0)]


def test_timers_that_come_due_fire_afterwards_and_once(loop: Pass) -> None:
    loop.store.error = FULL
    loop.timers.set(TimerKind.LOOK, "kept", due_s=1000.5)
    loop.decide("a")
    loop.settle()
    loop.wait(1.0)
    assert loop.timers.next_due_s() == 1003.0  # the loop sleeps until the next try, and not at all before
    loop.store.error = None
    loop.wait(2.0)
    assert loop.timers.take_due(loop.clock.mono_s) == [(TimerKind.LOOK, "kept")]
    loop.store.error = FULL
    loop.decide("b")
    loop.settle()
    loop.store.error = None
    loop.wait(1.0)
    assert loop.timers.take_due(loop.clock.mono_s) == []  # once is enough


def test_a_timer_is_set_again_before_what_was_decided_can_cancel_it(loop: Pass) -> None:
    seen: list[bool] = []
    loop.store.error = FULL
    loop.timers.set(TimerKind.READY, "a run's", due_s=1000.5)
    loop.commit.note(RootBound("SCOPE_01", "a"))
    loop.commit.then(Reply(lambda _: seen.append(loop.timers.has(TimerKind.READY, "a run's")), answer("")))
    loop.settle()
    loop.wait(1.0)
    loop.store.error = None
    loop.wait(2.0)
    assert seen == [True]


def test_a_command_is_refused_with_the_reason_instead_of_waiting_for_room(loop: Pass) -> None:
    answers: list[Answer] = []
    loop.store.error = FULL
    loop.decide("a")
    loop.settle()
    loop.wait(0.0, CommandGiven(RetryAll(Operator("asmith")), answers.append))
    assert answers == [{"ok": False, "message": f"Nothing is decided now: {FULL} The agent then goes on by itself."}]
    loop.store.error = None
    assert loop.wait(1.0) == []


def test_what_took_effect_may_decide_more_and_find_no_room_again(loop: Pass) -> None:
    def decide_more(_: Answer) -> None:
        loop.store.error = FULL
        loop.decide("b")

    loop.decide("a")
    loop.commit.then(Reply(decide_more, answer("")))
    loop.settle()
    assert (loop.store.kept, loop.done) == (["a"], ["a"])
    loop.settle()
    assert loop.is_paused()
    loop.store.error = None
    loop.wait(1.0)
    assert (loop.store.kept, loop.done) == (["a", "b"], ["a", "b"])


def test_a_failed_fsync_is_not_waited_for_and_a_command_does_not_wait_for_room_either(loop: Pass) -> None:
    loop.store.error = StoreWriteError("the disk fails")
    loop.decide("a")
    with pytest.raises(StoreWriteError, match="the disk fails"):
        loop.settle()
    loop.commit.waits_for_room = False
    loop.store.error = FULL
    with pytest.raises(StoreFullError) as ended:
        loop.settle()
    assert (
        str(ended.value) == "There is no room in the folder: make room. Then start it again: nothing goes on by itself."
    )
    assert not loop.is_paused()
    assert loop.done == []
