"""A NAS without room: the lane stops, no attempt is used, it is told at once, and all goes on when somebody has made room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.disks import full_disk
from tests.lab.lab import Lab, until
from tests.lab.servers import done, program

SMALL = {"a.bin": b"a" * 100_000}
MEMBERS = ("code", "equipment_id", "command")
TOLD = ("destination_full", "SCOPE_01", "exlab-watch-agent check")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with full_disk(tmp_path / "nas" / "SCOPE_01", size="2m") as nas:
        yield nas


def large() -> dict[str, bytes]:
    return {"a.bin": os.urandom(1_200_000), "b.bin": os.urandom(1_200_000)}


def told(said: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(one[member] for member in MEMBERS) for one in said]


def test_a_full_nas_stops_the_lane_lets_audits_go_on_and_costs_no_attempt(tmp_path: Path, disk: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    sealed = lab.new_run(files=SMALL)
    with lab.running():
        lab.until_state(sealed, "verified")
        waiting = lab.new_run(files=large())
        lab.until_lane_waits("SCOPE_01")
        said = lab.cli("problems", "--json")
        assert (said.code, told(said.problems)) == (3, [TOLD])
        assert "make room on the NAS" in said.problems[0]["sentence"]

        small = lab.new_run(files=SMALL)
        lab.until_state(small, "queued")
        started = lab.record(sealed)["verified_at"]
        assert lab.cli("verify", str(sealed)).code == 0
        until(lambda: lab.record(sealed)["verified_at"] != started, "it is audited while the NAS is full")
        assert [lab.record(run)["state"] for run in (waiting, small)] == ["queued", "queued"]
        assert not lab.copy_of(small).exists(), "what waits behind the one that found no room is not tried"

        done(program("mount"), "-o", "remount,size=8m", disk)
        for run in (waiting, small):
            assert lab.until_state(run, "verified")["attempts"] == 0
            lab.assert_whole(run)
        until(lambda: told(lab.cli("problems", "--json").problems) == [], "nothing is told any more")
    assert lab.states(waiting).count("running") < 20, "it was not tried over and over"
    lab.assert_chain_holds()


def test_without_a_running_agent_a_full_nas_is_told_too(tmp_path: Path, disk: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(files=large())
    said = lab.cli("run", "--once")
    assert said.code == 3
    assert "make room on the NAS" in said.out + said.err
    found = lab.cli("problems", "--json")
    assert (found.code, told(found.problems)) == (3, [TOLD])
    record = lab.record(run)
    assert (record["state"], record["attempts"], record["last_error"]["kind"]) == ("queued", 0, "destination_full")
    (run / "b.bin").unlink()
    assert lab.cli("run", "--once").code == 0
    assert lab.record(run)["state"] == "verified"
    assert told(lab.cli("problems", "--json").problems) == []


def test_a_lane_does_not_stay_full_for_a_run_that_is_gone(tmp_path: Path, disk: Path) -> None:
    """It used to ask for the room of the run that was removed until the agent was started anew."""
    lab = Lab(tmp_path, is_quick=True)
    with lab.running():
        waiting = lab.new_run(files=large())
        lab.until_lane_waits("SCOPE_01")
        small = lab.new_run(files=SMALL)
        lab.until_state(small, "queued")
        shutil.rmtree(waiting)
        lab.until_state(small, "verified")
    assert disk.is_dir()
