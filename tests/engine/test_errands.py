"""Errands: one effect of a key at a time, what it waits for, and that each ends once, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from exlab_watch_agent.core import link, root
from exlab_watch_agent.core.binding import Below
from exlab_watch_agent.core.claim import Claim
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import (
    Effect,
    Inspect,
    PlaceHeartbeat,
    Precheck,
    Probe,
    Push,
    Scan,
    Seal,
    Verify,
    WriteStatus,
)
from exlab_watch_agent.core.events import Answered, HeartbeatPlaced, Pushed, Result
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget
from exlab_watch_agent.core.reconcile import Known
from exlab_watch_agent.engine.errands import Errands, on_executor
from exlab_watch_agent.engine.keys import Slot, key_of, merged, status_key, work_key
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.messages import Ended
from exlab_watch_agent.engine.timers import TimerKind, Timers
from exlab_watch_agent.errors import DESTINATION_FULL, NAS_UNREACHABLE, CancelledError
from exlab_watch_agent.ports import Control, Ports, Progress
from tests.sim.world import FakeClock

EQ = "SCOPE_01"
PLACE = RunPlace("/data/SCOPE_01/P/Runs/Run_1", EQ, "P", "Runs", "Run_1")
IDENTITY = RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", "Run_1")
SUBJECT = ("job", 3, PLACE.run_path, EQ, "P/Runs/Run_1", "f")
CLAIM = Claim("job", EQ, "P/Runs/Run_1", IDENTITY)
PUSH = Push(*SUBJECT, claim=CLAIM)
SEAL = Seal(*SUBJECT, manifest_digest="d", claim=CLAIM, wait_s=0.0)
STATUS = WriteStatus("job", PLACE.run_path, EQ, "pending")
LOOK = Inspect(PLACE, "job")
VERIFY = Verify(*SUBJECT, manifest_digest="", claim=CLAIM)
AWAY = link.Away(FakeClock().now(), "it is not there", NAS_UNREACHABLE)
FULL = link.Away(FakeClock().now(), "it has no room", DESTINATION_FULL)


class Executors:
    """Stands in for every executor: a call waits until the test runs it."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.is_closed = False

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(lambda: function(*arguments))

    def shutdown(self, *, cancel_futures: bool) -> None:
        self.is_closed = cancel_futures

    def run_next(self) -> None:
        self.calls.pop(0)()


@dataclass(frozen=True)
class FewPorts:
    """Ports of which nobody looks at more."""

    equipment: EquipmentPolicy
    binding: None = None
    mounts: Mapping[str, Below] = field(default_factory=dict)
    volume: str | None = None


class Desk:
    """Errands over one lane whose root is ours, with what ended and what was carried out."""

    def __init__(self, carry_out: Callable[..., Result] | None = None) -> None:
        self.clock, self.timers, self.executors = FakeClock(), Timers(), Executors()
        ports = cast("Ports", FewPorts(EquipmentPolicy(EQ, "Scope", "/data", MountedPathTarget("/mnt"))))
        self.lane = Lane(ports, EQ, root=root.Ours("disk 1"), link=link.Answering())
        self.done: list[Effect] = []
        self.ended: list[Ended] = []
        self.briefed: Callable[[Effect], Effect | None] = lambda effect: effect
        self.errands = Errands(
            {EQ: self.lane},
            clock=self.clock,
            timers=self.timers,
            post=self.ended.append,
            rate_bytes_per_s=lambda _: None,
            pushes_max=2,
            make_executor=lambda _: cast("Executor", self.executors),
            carry_out=carry_out or self.carry_out,
        )

    def carry_out(self, effect: Effect, _ports: Ports, _control: Control) -> Result:
        self.done.append(effect)
        return HeartbeatPlaced()

    def want(self, *effects: Effect) -> None:
        for effect in effects:
            self.errands.want(effect)
        self.start()

    def start(self) -> None:
        self.errands.start(self.briefed)

    def end_one(self) -> Ended:
        """Run the oldest call that waits, and have its end taken note of."""
        self.executors.run_next()
        self.errands.on_ended(self.ended[-1])
        self.start()
        return self.ended[-1]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_one_effect_of_a_key_runs_at_a_time_and_the_newest_of_those_that_wait_takes_the_others_place(
    desk: Desk,
) -> None:
    second, third = replace(PUSH, turn=4), replace(PUSH, turn=5)
    desk.want(PUSH)
    desk.want(second)
    desk.want(third)
    assert len(desk.executors.calls) == 1
    desk.end_one()
    desk.end_one()
    assert desk.done == [PUSH, third]
    assert desk.errands.is_idle(but_for=lambda _: False)


def test_effects_of_other_keys_run_beside_each_other(desk: Desk) -> None:
    desk.want(PUSH, LOOK, STATUS, Probe(EQ), replace(PUSH, job_id="another"))
    assert len(desk.executors.calls) == 5


def test_an_effect_waits_for_its_time(desk: Desk) -> None:
    desk.errands.want(SEAL, wait_s=30.0)
    desk.start()
    assert desk.executors.calls == []
    assert desk.errands.is_idle(but_for=lambda _: False), "a wait is rest"
    desk.clock.advance(30.0)
    assert desk.timers.take_due(desk.clock.mono_s) == [(TimerKind.ERRAND, key_of(SEAL))]
    desk.errands.on_time(key_of(SEAL))
    desk.start()
    assert desk.end_one().effect == SEAL


def test_a_newer_effect_without_a_wait_does_not_wait_for_the_older_ones_time(desk: Desk) -> None:
    desk.errands.want(SEAL, wait_s=30.0)
    desk.start()
    desk.want(PUSH)
    desk.end_one()
    assert desk.done == [PUSH]
    assert desk.timers.next_due_s() is None


@pytest.mark.parametrize("order", [(STATUS, SEAL), (SEAL, STATUS)])
def test_a_seal_waits_for_a_status_that_is_on_its_way_in_whichever_order_both_are_wanted(
    desk: Desk, order: tuple[Effect, Effect]
) -> None:
    desk.want(PUSH)
    for effect in order:
        desk.errands.want(effect)
    desk.end_one()  # the end of the push is what lets the seal be tried first
    assert [desk.end_one().effect for _ in range(2)] == [STATUS, SEAL]


def test_a_look_about_the_creation_json_waits_until_our_own_write_is_known_and_any_other_look_does_not(
    desk: Desk,
) -> None:
    about = replace(LOOK, is_about_creation=True)
    desk.want(STATUS)
    desk.want(about)
    assert len(desk.executors.calls) == 1
    desk.end_one()
    assert len(desk.executors.calls) == 1
    desk.end_one()
    desk.want(SEAL)
    desk.want(about)
    assert len(desk.executors.calls) == 1
    desk.want(LOOK)
    assert len(desk.executors.calls) == 2


@pytest.mark.parametrize(
    ("effect", "needs_root", "needs_nas"),
    [
        (PUSH, True, True),
        (SEAL, True, True),
        (VERIFY, True, True),
        (STATUS, True, False),
        (Probe(EQ), False, False),
        (Scan(EQ, "/data/SCOPE_01", Known({}, {})), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_needs_the_root_or_the_nas_waits_until_it_is_there(
    desk: Desk, effect: Effect, needs_root: bool, needs_nas: bool
) -> None:
    desk.lane.root, desk.lane.link = root.Doubted("it is empty", 5.0), AWAY
    desk.want(effect)
    assert bool(desk.executors.calls) == (not needs_root and not needs_nas)
    desk.lane.root = root.Ours("disk 1")
    desk.errands.on_opened(EQ)
    desk.start()
    assert bool(desk.executors.calls) == (not needs_nas)
    desk.lane.link = link.Answering()
    desk.errands.on_opened(EQ)
    desk.start()
    assert len(desk.executors.calls) == 1
    assert desk.end_one().effect == effect


@pytest.mark.parametrize(
    ("effect", "needs_room"),
    [
        (PUSH, True),
        (SEAL, True),
        (VERIFY, False),
        (Precheck(*SUBJECT), False),
        (PlaceHeartbeat(EQ, "lab", b"{}"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_writes_waits_for_room_and_what_reads_does_not(desk: Desk, effect: Effect, needs_room: bool) -> None:
    desk.lane.link = FULL
    desk.want(effect)
    assert len(desk.executors.calls) == (not needs_room)
    desk.lane.link = link.Answering()
    desk.errands.on_opened(EQ)
    desk.start()
    assert len(desk.executors.calls) == 1


def test_what_is_dropped_does_not_start_and_what_runs_is_asked_to_end() -> None:
    desks: list[Desk] = []

    def carry_out(effect: Effect, _ports: Ports, control: Control) -> Result:
        desks[0].errands.drop(work_key("job"))
        assert control.is_cancelled()
        raise CancelledError("told to stop")

    desks.append(Desk(carry_out))
    desks[0].want(PUSH)
    desks[0].want(replace(PUSH, turn=4))
    ended = desks[0].end_one()
    assert (ended.effect, ended.result) == (PUSH, None)
    assert desks[0].executors.calls == []


def test_what_was_cancelled_before_a_thread_was_free_for_it_is_not_begun(desk: Desk) -> None:
    desk.want(PUSH)
    desk.errands.cancel(work_key("job"))
    assert desk.end_one().result is None
    assert desk.done == []


def test_a_push_that_was_parked_waits_for_those_that_took_its_place(desk: Desk) -> None:
    desk.lane.link = AWAY
    desk.want(PUSH)
    desk.lane.link = link.Answering()
    others = [replace(PUSH, job_id=f"other {number}") for number in range(2)]
    desk.want(*others)
    desk.errands.on_opened(EQ)
    desk.start()
    assert len(desk.executors.calls) == 2, "there are two slots"
    assert [desk.end_one().effect for _ in range(3)] == [*others, PUSH]


def test_a_sign_of_life_starts_by_itself_and_one_that_cannot_start_is_forgotten(desk: Desk) -> None:
    beat = PlaceHeartbeat(EQ, ".exlab-watch-agent/pc.json", b"{}")
    desk.errands.want(PUSH)
    desk.errands.start_beside(beat)
    desk.lane.link = AWAY
    desk.errands.start_beside(replace(beat, data=b"old by then"))
    assert [desk.end_one().effect] == [beat]
    desk.lane.link = link.Answering()
    desk.errands.on_opened(EQ)
    desk.start()
    desk.end_one()
    assert desk.done == [beat, PUSH]


def test_an_effect_is_completed_or_dropped_at_the_moment_when_it_may_start(desk: Desk) -> None:
    desk.briefed = lambda effect: replace(effect, turn=9) if effect == PUSH else None
    desk.want(PUSH, STATUS)
    assert desk.end_one().effect == replace(PUSH, turn=9)
    assert desk.executors.calls == []
    assert not desk.errands.is_running(status_key("job"))


@pytest.mark.parametrize(
    ("waiting", "newer", "both"),
    [
        (LOOK, replace(LOOK, is_about_creation=True), LOOK),
        (replace(LOOK, is_about_creation=True), LOOK, LOOK),
        (replace(LOOK, is_background=True), LOOK, LOOK),
        (LOOK, replace(LOOK, is_background=True), LOOK),
        (Probe(EQ, is_light=True), Probe(EQ), Probe(EQ)),
        (Probe(EQ), Probe(EQ, is_light=True), Probe(EQ)),
        (Scan(EQ, "/", Known({}, {})), Scan(EQ, "/", Known({}, {}), is_full=False), Scan(EQ, "/", Known({}, {}))),
        (STATUS, replace(STATUS, sync_status="synced"), replace(STATUS, sync_status="synced")),
        (PUSH, SEAL, SEAL),
    ],
)
def test_two_that_wait_come_down_to_one_that_does_what_both_ask_for(
    waiting: Effect, newer: Effect, both: Effect
) -> None:
    assert merged(waiting, newer) == both


def test_slots_are_counted_while_their_effects_run(desk: Desk) -> None:
    audit = Verify(*SUBJECT, manifest_digest="d", claim=CLAIM, is_audit=True)
    desk.want(replace(PUSH, job_id="another"), audit, replace(LOOK, is_background=True))
    taken = {slot: desk.errands.taken(slot, EQ) for slot in Slot}
    assert taken == {Slot.PUSH: 1, Slot.AUDIT: 1, Slot.CACHE: 0, Slot.BACKGROUND: 1}
    for _ in range(3):
        desk.end_one()
    assert not any(desk.errands.taken(slot, EQ) for slot in Slot)


def test_progress_is_that_of_work_only(desk: Desk) -> None:
    def carry_out(effect: Effect, _ports: Ports, control: Control) -> Result:
        control.report(Progress(7, 1))
        (found,) = desk.errands.under_way().values()
        assert (found.progress, found.seconds) == (Progress(7, 1), 5.0)
        return Pushed(3)

    desk = Desk(carry_out)
    desk.want(PUSH, Probe(EQ))
    (found,) = desk.errands.under_way().values()
    assert (found.effect.job_id, found.progress, found.seconds) == ("job", Progress(0, 0), 0.0)
    desk.clock.advance(5.0)
    desk.end_one()
    assert desk.errands.under_way() == {}


def test_after_the_stop_nothing_starts_and_what_runs_is_told(desk: Desk) -> None:
    desk.want(PUSH)
    desk.errands.drain()
    assert desk.errands.is_drained
    assert desk.executors.is_closed
    desk.want(STATUS)
    assert len(desk.executors.calls) == 1


# --- two parts of one effect ----------------------------------------------------------------------------------------------


class FirstFailedError(Exception):
    pass


class SecondFailedError(Exception):
    pass


def test_two_parts_run_at_the_same_time_and_what_both_return_comes_back() -> None:
    meet = threading.Barrier(2, timeout=60)

    def first(_: Control) -> int:
        meet.wait()
        return 1

    def second(_: Control) -> str:
        meet.wait()
        return "two"

    with ThreadPoolExecutor(1) as executor:
        assert on_executor(executor)(Control(), first, second) == (1, "two")


def test_what_the_first_raises_cancels_the_second_and_is_raised_when_that_has_ended() -> None:
    has_ended = threading.Event()

    def first(_: Control) -> None:
        raise FirstFailedError

    def second(control: Control) -> None:
        waits = threading.Event()
        while not control.is_cancelled():
            waits.wait(0.001)
        has_ended.set()
        raise CancelledError("told to stop")

    with ThreadPoolExecutor(1) as executor, pytest.raises(FirstFailedError):
        on_executor(executor)(Control(), first, second)
    assert has_ended.is_set()


def test_what_the_second_raises_is_raised_once_the_first_has_ended() -> None:
    has_failed, done = threading.Event(), []

    def first(_: Control) -> None:
        assert has_failed.wait(60)
        done.append("first")

    def second(_: Control) -> None:
        has_failed.set()
        raise SecondFailedError

    with ThreadPoolExecutor(1) as executor, pytest.raises(SecondFailedError):
        on_executor(executor)(Control(), first, second)
    assert done == ["first"]


def test_cancelling_the_effect_cancels_both_parts_and_so_does_an_executor_that_is_closed_by_then() -> None:
    def part(control: Control) -> None:
        if control.is_cancelled():
            raise CancelledError("told to stop")

    with ThreadPoolExecutor(1) as executor:
        side_by_side = on_executor(executor)
        with pytest.raises(CancelledError):
            side_by_side(Control(is_cancelled=lambda: True), part, part)
    with pytest.raises(CancelledError):
        side_by_side(Control(is_cancelled=lambda: True), part, part)


def test_where_the_system_has_no_thread_left_it_is_an_error_and_no_wish_of_ours() -> None:
    class NoThreads(Executor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError, match="new thread"):
        on_executor(NoThreads())(Control(), lambda _: None, lambda _: None)


def test_a_second_part_that_was_cancelled_before_it_began_is_not_waited_for() -> None:
    executor, gate = ThreadPoolExecutor(1), threading.Event()
    executor.submit(gate.wait)

    def first(_: Control) -> None:
        executor.shutdown(wait=False, cancel_futures=True)
        raise CancelledError("told to stop")

    def both() -> None:
        with pytest.raises(CancelledError):
            on_executor(executor)(Control(), first, lambda _: None)

    worker = threading.Thread(target=both)
    worker.start()
    worker.join(60)
    gate.set()
    assert not worker.is_alive()


def test_the_answer_of_a_probe_is_posted_with_when_it_began_and_ended(desk: Desk) -> None:
    def carry_out(effect: Effect, _ports: Ports, _control: Control) -> Result:
        desk.clock.advance(2.0)
        return Answered("0" * 32)

    desk = Desk(carry_out)
    desk.want(Probe(EQ))
    desk.clock.advance(1.0)  # it waited in the executor's queue
    ended = desk.end_one()
    assert ended.ended_s - ended.began_s == 2.0
