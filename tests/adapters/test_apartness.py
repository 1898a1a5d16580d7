"""Two folders are told apart by probe files, on real files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exlab_watch_agent.adapters import apartness
from exlab_watch_agent.adapters.apartness import ASK_EVERY_S, ProbedApartness
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget
from exlab_watch_agent.errors import (
    DestinationIsSourceError,
    DestinationUnreachableError,
    RootUnavailableError,
    RunUnreadableError,
)
from tests.sim.world import FakeClock

CACHE = ".exlab-wizard"
RUN = "P/Runs/Run_2026-04-17T14-32"


class Counted(Destination):
    rounds = 0

    def round_trip(self, while_there: Callable[[str, bytes], None] | None = None) -> None:
        self.rounds += 1
        super().round_trip(while_there)


class Place:
    """An equipment's folder, and a destination that leads to `root`."""

    def __init__(self, home: Path, root: Path) -> None:
        self.local = home / "local"
        self.equipment = self.local / "EQ"
        self.run = self.equipment / RUN
        for folder in (self.equipment / CACHE, self.run / CACHE):
            folder.mkdir(parents=True)
        root.mkdir(parents=True, exist_ok=True)
        policy = EquipmentPolicy("EQ", "EQ", str(self.local), MountedPathTarget(str(root)))
        self.transport = Counted(MountedFarSide(str(root)))
        self.clock = FakeClock()
        self.apartness = ProbedApartness(policy, self.transport, self.clock)

    def files(self) -> list[Path]:
        return [path for path in self.local.rglob("*") if path.is_file()]


def test_another_folder_is_apart_and_is_asked_once_a_day(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "nas")
    place.apartness.require_root()
    place.apartness.require_root()
    assert place.transport.rounds == 1
    place.clock.advance(ASK_EVERY_S)
    place.apartness.require_root()
    place.apartness.require_root(anew=True)
    assert place.transport.rounds == 3
    place.apartness.require_run(str(place.run), RUN)
    assert place.files() == list((tmp_path / "nas").iterdir()) == []


@pytest.mark.parametrize("below", ["", "EQ", "EQ/P", "EQ/P/Runs", f"EQ/{RUN}", ".."])
def test_a_root_at_a_level_of_the_instruments_own_tree_or_above_it_is_found(below: str, tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "local" / below)
    with pytest.raises(DestinationIsSourceError, match="the instrument's own folder"):
        place.apartness.require_root()
    assert place.files() == []


def test_a_run_at_its_own_destination_is_found_and_keeps_the_root_waiting_until_it_is_another_folder(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, tmp_path / "nas")
    (tmp_path / "nas" / "P").mkdir()
    (tmp_path / "nas" / "P" / "Runs").mkdir()
    there = tmp_path / "nas" / RUN
    os.rename(place.run, there)  # no bind mount: the run's folder is where its copy would be
    for _ in range(2):
        with pytest.raises(DestinationIsSourceError):
            place.apartness.require_run(str(there), RUN)
        with pytest.raises(DestinationIsSourceError):
            place.apartness.require_root(anew=True)
    os.rename(there, place.run)
    place.apartness.require_root(anew=True)


def test_what_a_kill_left_is_taken_away_and_travels_nowhere(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "nas")
    left = place.run / CACHE / ".apart.0123456789abcdef.tmp"
    left.touch()
    place.apartness.require_run(str(place.run), RUN)
    assert not left.exists()


def test_without_the_cache_folder_it_is_asked_again_once_that_is_there(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "nas")
    (place.equipment / CACHE).rmdir()
    for _ in range(2):
        place.apartness.require_root()
    assert place.transport.rounds == 2


def test_a_link_in_place_of_a_cache_folder_is_not_written_through(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "nas")
    (tmp_path / "elsewhere").mkdir()
    (place.run / CACHE).rmdir()
    (place.run / CACHE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunUnreadableError, match="a link"):
        place.apartness.require_run(str(place.run), RUN)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_folder_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "nas")
    shutil.rmtree(place.run)
    with pytest.raises(RootUnavailableError):
        place.apartness.require_run(str(place.run), RUN)


def test_a_probe_file_that_somebody_takes_away_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, tmp_path / "nas")

    def take_away(*_: object, **__: object) -> None:
        for path in place.files():
            path.unlink()

    monkeypatch.setattr(place.transport, "read_small", take_away)
    monkeypatch.setattr(place.transport, "is_any_there", take_away)
    with pytest.raises(DestinationUnreachableError, match="no file can be made"):
        place.apartness.require_root()
    with pytest.raises(RunUnreadableError):
        place.apartness.require_run(str(place.run), RUN)


def test_lanes_that_ask_at_the_same_time_leave_each_other_s_probe_files_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with apartness._probe_in(folder) as first, apartness._probe_in(folder) as second:
        assert {entry.name for entry in tmp_path.iterdir()} == {first, second}
    assert list(tmp_path.iterdir()) == []
