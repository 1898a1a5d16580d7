"""What needs a person, as a running agent judges it over its own snapshot: for its heartbeat, for `run`, and at its end.

Decided here: which records are judged, and that something is told when it begins and when it ends. What is a problem is
core/attention.py's. Only the engine's loop calls it, but for `first_seen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.app.diary import Diary
from exlab_watch_agent.core.attention import Situation, completed, judged
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.snapshot import Snapshot
from exlab_watch_agent.core.standing import Ending, Standing, Working, moment_of
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.ports import Clock
from exlab_watch_agent.report.problems import need_a_person, news_of
from exlab_watch_agent.statechart import CHART

WAITS_TOLD_AFTER = timedelta(minutes=1)
"""In `run` a wait of an instrument is told once it lasted so long: at the start of a PC its network is not there yet."""
OF_INSTRUMENTS = frozenset({"nas_unreachable", "root_unavailable"})
WORKING, ENDING = Working(), Ending()


@dataclass(frozen=True)
class Concern:
    """What an agent is to judge. `is_for_all`: of all runs, and not of those only that a command is about."""

    policy: Policy
    roots: Mapping[str, str]
    flags: str = ""
    is_for_all: bool = True

    @property
    def known_equipment(self) -> frozenset[str]:
        return frozenset(self.roots)


class Attending:
    """`first_seen`: id of a problem → since when, as an earlier agent left it; what nothing else dates is dated by it."""

    def __init__(
        self,
        store: RunStore,
        engine: Engine,
        clock: Clock,
        concern: Concern,
        *,
        diary: Diary,
        first_seen: Mapping[str, datetime],
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._concern = concern
        self._diary = diary
        self._told: dict[str, Problem] = {}
        self._beside: set[str] = set()
        self.first_seen = first_seen

    def take_up(self, record: RunRecord) -> None:
        """Note a record that is judged although the run rests: of an instrument that is gone, or with an error, damage or
        a cache folder that stays behind it."""
        is_nobody_s = record.equipment_id not in self._concern.known_equipment
        is_told = record.last_error is not None or is_nobody_s or bool(record.incidents) or bool(record.cache_stays)
        if is_told:
            self._beside.add(record.job_id)
        else:
            self._beside.discard(record.job_id)

    def problems(
        self, snapshot: Snapshot, *, agent: Standing = WORKING, paused: str | None = None, hold: str | None = None
    ) -> tuple[Problem, ...]:
        """Return what needs a person of all runs, without reading those that rest well."""
        self._diary.on_rooms(self._engine.view.lanes)
        ids = {*self._store.ids_in(CHART.unsettled), *self._engine.view.told.runs, *self._beside}
        records = [record for job_id in ids if (record := self._store.get(job_id)) is not None]
        found = self.of(records, snapshot, agent=agent, paused=paused, hold=hold)
        self._diary.on_judged(found)
        return found

    def of(
        self,
        records: Iterable[RunRecord],
        snapshot: Snapshot,
        *,
        agent: Standing,
        paused: str | None = None,
        hold: str | None = None,
    ) -> tuple[Problem, ...]:
        """Return the same of these runs."""
        situation = Situation(
            moment_of(agent, self._clock.now()),
            agent,
            tuple(records),
            snapshot,
            self._concern.policy,
            self._concern.known_equipment,
            paused,
            hold,
            self._concern.flags,
            self._diary.week,
            self._concern.roots,
            self._store.dismissals,
            has_config=True,
        )
        found = judged(situation)
        now = situation.at.now
        seen = {one.id: self.first_seen.get(one.id, now) for one in found if one.since is None}
        self.first_seen = seen if self._concern.is_for_all else {**self.first_seen, **seen}
        return completed(found, situation)

    def news(self, found: Iterable[Problem]) -> list[str]:
        """Return what is to be told since the last question: what began to need a person, and what does so no longer."""
        now = self._clock.now()
        needed = {one.id: one for one in need_a_person(found) if not _is_young(one, now)}
        told, self._told = self._told, needed
        return news_of(told, needed)


def _is_young(problem: Problem, now: datetime) -> bool:
    return problem.code in OF_INSTRUMENTS and problem.since is not None and now - problem.since < WAITS_TOLD_AFTER
