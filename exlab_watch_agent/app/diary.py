"""The diary of the last week in the state folder: outages that ended, and how much room the disks had.

Decided here: what is written down when. What is kept, and what it amounts to, is core/week.py's. Nothing depends on the file: one
that cannot be written or read costs notices, and nothing else. Only the engine's loop calls it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from exlab_watch_agent.adapters.local.durable import write_atomically
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.core.week import Happening, Week
from exlab_watch_agent.engine.views import LaneNow
from exlab_watch_agent.ports import Clock

OUTAGE_MIN = timedelta(minutes=1)
OUTAGES = {"nas_unreachable": "the NAS", "root_unavailable": "its folder here"}


class Diary:
    """`week` is what is known now; `save` leaves it for others where it has changed."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self.path = StateLayout(state_dir).week
        self._clock = clock
        self.week = read_week(state_dir)
        self._saved = self.week
        self._away: Mapping[str, Problem] = {}

    def on_judged(self, found: Iterable[Problem]) -> None:
        """Note an outage that ended since the last judgement."""
        away = {problem.id: problem for problem in found if problem.code in OUTAGES}
        now = self._clock.now()
        for problem_id, before in self._away.items():
            since = before.since
            if problem_id not in away and since is not None and now - since >= OUTAGE_MIN:
                text = f"{OUTAGES[before.code]} could not be used from {utc_text(since)} to {utc_text(now)}"
                self._note(Happening(now, "outage_ended", before.subject, text))
        self._away = away

    def on_rooms(self, lanes: Mapping[str, LaneNow]) -> None:
        """Note how much room there is, at most once an hour for each disk."""
        for equipment_id, lane in lanes.items():
            self.week = self.week.with_room(equipment_id, here=lane.room_here, there=lane.room_there)

    def _note(self, happening: Happening) -> None:
        self.week = self.week.with_happening(happening)

    def save(self) -> None:
        """Raises: OSError."""
        if self.week is not self._saved:
            write_atomically(self.path, json.dumps(self.week.to_json()).encode(), mode=0o600)
            self._saved = self.week


def read_week(state_dir: Path) -> Week:
    """Return what is kept of the last week; an empty one where nothing can be read."""
    try:
        return Week.from_json(json.loads(StateLayout(state_dir).week.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return Week()
