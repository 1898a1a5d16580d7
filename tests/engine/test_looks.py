"""Looks at runs: what is noticed while nothing may be looked at yet is not forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from exlab_watch_agent.core import root
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import Inspect
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from tests.sim.world import FakeClock

EQ = "SCOPE_01"
PLACE = RunPlace("/data/SCOPE_01/P/Runs/Run_1", EQ, "P", "Runs", "Run_1")


def test_a_run_that_is_noticed_while_the_first_scan_is_under_way_is_looked_at_after_it() -> None:
    """The scan had listed its folder a moment before; the run was then found by the next one, a quarter of an hour later."""
    wanted: list[Any] = []
    lane = Lane(cast("Any", SimpleNamespace(root="/data/SCOPE_01", equipment=SimpleNamespace(equipment_id=EQ))), "/nas")
    bench = SimpleNamespace(
        lanes={EQ: lane},
        clock=FakeClock(),
        commit=SimpleNamespace(record_at=lambda _: None),
        errands=SimpleNamespace(want=wanted.append, taken=lambda *_: 0),
    )
    looks = Looks(cast("Bench", bench), only=None)
    assert looks.brief(Inspect(PLACE, "", is_about_creation=True)) is None, "nothing there is looked at before"
    lane.root = root.Ours("disk 1")
    assert looks.want_backlog(lane)
    assert [effect.place for effect in wanted] == [PLACE]
