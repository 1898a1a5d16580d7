"""Runs effects: the only user of executors, so that "is anything under way?" is one question.

Decided here: at most one effect of a key runs, and a newer one takes the place of one that waits; what an effect waits for
(a time, another key, the lane's root or destination), and how it ends: as one `Ended` in the loop's inbox, whatever happened.
At the moment when an effect may start, the loop *briefs* it: completes it with what is known then, or drops it. Not here:
what an effect does (acts), and what follows from its end (loop.py).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Executor, wait
from dataclasses import dataclass, field

from exlab_watch_agent.acts.carry_out import carry_out
from exlab_watch_agent.core.effects import (
    Bind,
    CarryCache,
    Effect,
    Inspect,
    Precheck,
    Push,
    ReplaceDestination,
    Seal,
    Verify,
    Work,
)
from exlab_watch_agent.core.events import Result
from exlab_watch_agent.engine.keys import (
    Key,
    Slot,
    admit_key,
    cache_key,
    key_of,
    merged,
    slot_of,
    status_key,
    where_key,
    work_key,
)
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.messages import Ended
from exlab_watch_agent.engine.timers import TimerKind, Timers
from exlab_watch_agent.errors import CancelledError
from exlab_watch_agent.ports import Clock, Control, First, Ports, Progress, Second, SideBySide

log = logging.getLogger(__name__)

STOP_WAIT_S = 20.0
CarryOut = Callable[[Effect, Ports, Control], Result]
Brief = Callable[[Effect], Effect | None]


@dataclass(slots=True)
class Running:
    """One effect that was handed to an executor."""

    effect: Effect
    began_s: float
    cancel: threading.Event = field(default_factory=threading.Event)
    progress: Progress = field(default_factory=lambda: Progress(0, 0))


@dataclass(frozen=True, slots=True)
class UnderWay:
    """One run's work as it is now, `seconds` after it began. `rate_bytes_per_s`: the limit in force, None for none."""

    effect: Work
    progress: Progress
    seconds: float
    rate_bytes_per_s: float | None


class Errands:
    """The loop's own; only its thread calls these methods. `post` is called by the executors' threads.

    Each lane has executors of its own, so that a hanging mount holds up no other lane: *readers* look, scan and ask;
    *workers* push, hash and seal, so that ten-hour pushes never make the lane blind; *parts* run the other half of an effect
    that has two.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        *,
        clock: Clock,
        timers: Timers,
        post: Callable[[Ended], None],
        rate_bytes_per_s: Callable[[Lane], float | None],
        pushes_max: int,
        make_executor: Callable[[str], Executor],
        carry_out: CarryOut = carry_out,
        make_side_by_side: Callable[[Executor], SideBySide] | None = None,
    ) -> None:
        self._lanes = lanes
        self._clock = clock
        self._timers = timers
        self._post = post
        self._rate_bytes_per_s = rate_bytes_per_s
        self._pushes_max = pushes_max
        self._carry_out = carry_out
        self._readers = {lane_id: make_executor(f"{lane_id}-readers") for lane_id in lanes}
        self._workers = {lane_id: make_executor(f"{lane_id}-workers") for lane_id in lanes}
        self._parts = {lane_id: make_executor(f"{lane_id}-parts") for lane_id in lanes}
        self._side_by_side = {
            lane_id: (make_side_by_side or on_executor)(parts) for lane_id, parts in self._parts.items()
        }
        self._running: dict[Key, Running] = {}
        self._taken: Counter[tuple[Slot | None, str]] = Counter()
        self._waiting: dict[Key, Effect] = {}
        self._not_before_s: dict[Key, float] = {}
        self._to_try: deque[Key] = deque()
        self._behind: defaultdict[Key, list[Key]] = defaultdict(list)
        self._parked: defaultdict[str, dict[Key, None]] = defaultdict(dict)
        self._is_stopping = False
        self.is_drained = False

    # --- wanting -----------------------------------------------------------------------------------------------------

    def want(self, effect: Effect, *, wait_s: float = 0.0) -> None:
        """Have this effect run: after `wait_s`, once what it waits for is over, and once those before it have ended."""
        key = key_of(effect)
        waiting = self._waiting.get(key)
        self._waiting[key] = effect if waiting is None else merged(waiting, effect)
        self._not_before_s.pop(key, None)
        self._timers.cancel(TimerKind.ERRAND, key)
        if wait_s > 0:
            self._not_before_s[key] = self._clock.monotonic_s() + wait_s
        self._to_try.append(key)

    def drop(self, key: Key) -> None:
        """Drop what waits under this key, and ask what runs to end."""
        self._waiting.pop(key, None)
        self._not_before_s.pop(key, None)
        self._timers.cancel(TimerKind.ERRAND, key)
        self.cancel(key)

    def cancel(self, key: Key) -> None:
        """Ask what runs under this key to end; what waits stays."""
        running = self._running.get(key)
        if running is not None:
            running.cancel.set()

    def on_time(self, key: Key) -> None:
        """The time that a waiting effect was to wait for has come."""
        self._not_before_s.pop(key, None)
        self._to_try.append(key)

    def on_opened(self, equipment_id: str) -> None:
        """The lane's root is ours, or its destination is back: what waited for that may start."""
        self._to_try.extend(self._parked.pop(equipment_id, ()))

    def on_ended(self, ended: Ended) -> None:
        """Take note that an effect has ended. To be called before anything follows from it."""
        key = key_of(ended.effect)
        del self._running[key]
        self._taken[slot_of(ended.effect), ended.effect.equipment_id] -= 1
        self._to_try.append(key)
        self._to_try.extend(self._behind.pop(key, ()))

    # --- starting ----------------------------------------------------------------------------------------------------

    def start(self, brief: Brief) -> None:
        """Start all that may start now; `brief` completes each effect at that moment, or drops it by returning None."""
        while self._to_try:
            self._try(self._to_try.popleft(), brief)

    def _try(self, key: Key, brief: Brief) -> None:
        effect = self._waiting.get(key)
        if effect is None or key in self._running:
            return
        not_before_s = self._not_before_s.get(key)
        if not_before_s is not None and not_before_s > self._clock.monotonic_s():
            self._timers.set(TimerKind.ERRAND, key, due_s=not_before_s)
            return
        if (other := self._waits_behind(effect)) is not None:
            self._behind[other].append(key)
            return
        lane = self._lanes[effect.equipment_id]
        if not lane.is_open_for(effect):
            self._parked[effect.equipment_id][key] = None
            return
        del self._waiting[key]
        self._not_before_s.pop(key, None)
        briefed = brief(effect)
        if briefed is not None and not self._is_stopping:
            self._hand_over(key, briefed, lane)

    def _waits_behind(self, effect: Effect) -> Key | None:
        """Return the key of another effect that must end first."""
        keys: tuple[Key, ...] = ()
        match effect:
            case Push():
                # One that was parked while its lane was suspended finds others in its place.
                pushes = [key for key, running in self._running.items() if slot_of(running.effect) is Slot.PUSH]
                if len(pushes) >= self._pushes_max:
                    return pushes[0]
                keys = (cache_key(effect.job_id),)
            case Seal():
                # It writes "synced" itself; a status that is still on its way would overwrite it afterwards.
                key = status_key(effect.job_id)
                if key in self._running or key in self._waiting:
                    return key
                keys = (cache_key(effect.job_id),)
            case CarryCache():
                # Both may be changing the very files.
                keys = (status_key(effect.job_id), work_key(effect.job_id))
            case Inspect():
                keys = (where_key(effect.place.run_path),)
                # What is written is known only afterwards, and most often it is our own.
                if effect.is_about_creation and effect.job_id and self.is_writing(effect.job_id):
                    keys = (*keys, status_key(effect.job_id), work_key(effect.job_id))
        return next((key for key in keys if key in self._running), None)

    def _hand_over(self, key: Key, effect: Effect, lane: Lane) -> None:
        running = Running(effect, self._clock.monotonic_s())
        self._running[key] = running
        self._taken[slot_of(effect), effect.equipment_id] += 1
        is_work = isinstance(effect, Push | Precheck | Verify | Seal | CarryCache)
        executor = (self._workers if is_work else self._readers)[effect.equipment_id]
        executor.submit(self._run, effect, lane, running)

    def _run(self, effect: Effect, lane: Lane, running: Running) -> None:
        """Carry out an effect on an executor's thread, with what is known of both sides when it gets there."""
        began_s = self._clock.monotonic_s()

        def report(progress: Progress) -> None:
            running.progress = progress

        control = Control(
            is_cancelled=running.cancel.is_set,
            report=report,
            rate_bytes_per_s=lambda: self._rate_bytes_per_s(lane),
            side_by_side=self._side_by_side[effect.equipment_id],
        )
        result: Result | None
        try:
            result = None if running.cancel.is_set() else self._carry_out(effect, lane.ports_now(), control)
        except CancelledError:
            result = None
        self._post(Ended(effect, result, began_s, self._clock.monotonic_s()))

    def start_beside(self, effect: Effect) -> None:
        """Start an effect that waits for nothing and depends on nothing that was decided, also while nothing else starts."""
        key = key_of(effect)
        self._waiting[key] = effect
        self._try(key, lambda effect: effect)
        self._waiting.pop(key, None)  # the next one will say more than one that waits

    # --- what is under way -------------------------------------------------------------------------------------------

    def taken(self, slot: Slot, equipment_id: str) -> int:
        """Return how many effects of a lane that take this slot run."""
        return self._taken[slot, equipment_id]

    def is_running(self, key: Key) -> bool:
        return key in self._running

    def is_waiting(self, key: Key) -> bool:
        return key in self._waiting

    def is_admitting(self, job_id: str) -> bool:
        """Return whether a queued run is being looked at for its push."""
        return admit_key(job_id) in self._running

    def at_work_in(self, equipment_id: str) -> list[str]:
        """Return the job ids of a lane's runs whose work runs."""
        return [
            running.effect.job_id
            for running in self._running.values()
            if isinstance(running.effect, Push | Precheck | Verify | Seal)
            and running.effect.equipment_id == equipment_id
        ]

    def is_writing(self, job_id: str) -> bool:
        """Return whether the agent itself may be changing this run's `creation.json` now."""
        work = self._running.get(work_key(job_id))
        return status_key(job_id) in self._running or (work is not None and isinstance(work.effect, Seal))

    @property
    def is_working(self) -> bool:
        """Return whether something runs that would begin anew after a stop: work on a run, a binding. From the loop's thread."""
        work = Push | Precheck | Verify | Seal | CarryCache | Bind | ReplaceDestination
        return any(isinstance(running.effect, work) for running in self._running.values())

    def is_idle(self, *, but_for: Callable[[Effect], bool]) -> bool:
        """Return whether nothing runs but what need not be waited for, and nothing is about to."""
        return not self._to_try and all(but_for(running.effect) for running in self._running.values())

    def under_way(self) -> dict[str, UnderWay]:
        """Return job id → its work. From any thread."""
        now_s = self._clock.monotonic_s()
        return {
            running.effect.job_id: UnderWay(
                running.effect,
                running.progress,
                now_s - running.began_s,
                self._rate_bytes_per_s(self._lanes[running.effect.equipment_id]),
            )
            for running in list(self._running.values())
            if isinstance(running.effect, Push | Precheck | Verify | Seal)
        }

    # --- the end -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing more, and ask all work to end. Looks and probes end by themselves."""
        self._is_stopping = True
        for running in list(self._running.values()):
            running.cancel.set()

    def drain(self) -> None:
        """Wait a bounded time for what runs; what is not done is done again at the next start."""
        self.stop()
        closers = [
            threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
            for executors in (self._readers, self._workers, self._parts)
            for executor in executors.values()
        ]
        for closer in closers:
            closer.start()
        deadline_s = self._clock.monotonic_s() + STOP_WAIT_S
        for closer in closers:
            closer.join(max(0.0, deadline_s - self._clock.monotonic_s()))
        self.is_drained = not any(closer.is_alive() for closer in closers)


def on_executor(executor: Executor) -> SideBySide:
    """Return a way to run two parts of an effect at the same time, the second one on this executor."""

    def side_by_side(
        control: Control, first: Callable[[Control], First], second: Callable[[Control], Second], /
    ) -> tuple[First, Second]:
        has_failed = threading.Event()
        others = Control(
            is_cancelled=lambda: has_failed.is_set() or control.is_cancelled(),
            rate_bytes_per_s=control.rate_bytes_per_s,
        )
        try:
            other = executor.submit(second, others)
        except RuntimeError as error:  # the executor is being closed, or the system has no thread left
            if control.is_cancelled():
                raise CancelledError from error
            raise
        try:
            mine = first(control)
        except BaseException:
            has_failed.set()
            if not other.cancel():  # one that was cancelled before it began never tells that it has ended
                wait([other])
            raise
        try:
            return mine, other.result()
        except FutureCancelledError as error:
            raise CancelledError from error

    return side_by_side
