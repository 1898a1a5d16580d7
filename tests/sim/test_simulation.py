"""Seeded lives of the agent in a world that goes wrong. `EXLAB_SIM_SEEDS=5000 pytest tests/sim` lives more of them."""

from __future__ import annotations

import os

import pytest

from exlab_watch_agent.core.policy import Layout
from exlab_watch_agent.engine import Noticed
from exlab_watch_agent.statechart import RunState
from tests.sim.simulation import HOUR_S, Simulation, in_place, simulate
from tests.sim.world import Killed

SEEDS = int(os.environ.get("EXLAB_SIM_SEEDS", "200"))
SEEDS_IN_A_CHUNK = 25


@pytest.mark.timeout(max(120, SEEDS))
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_IN_A_CHUNK))
def test_whatever_goes_wrong_no_byte_is_lost_and_nothing_is_called_synced_that_was_not_proven(first, tmp_path):
    for seed in range(first, min(first + SEEDS_IN_A_CHUNK, SEEDS)):
        simulate(seed, tmp_path / str(seed))


# --- lives by script: one fault for each copy, nothing else goes wrong ----------------------------------------------


def live(tmp_path, script: str, *, seed: int = 1) -> Simulation:
    """One complete run on a NAS whose copies go wrong as the script says, and two days."""
    simulation = Simulation(seed, tmp_path, script=script, layout=Layout.MIRROR)
    with in_place(simulation):
        while not any(run.equipment_id == "EQ_A" for run in simulation.world.runs.values()):
            simulation.world.runs.clear()
            simulation.environment.begin_run()
        (run,) = simulation.world.runs.values()
        simulation.environment.complete_run(run)
        simulation.start()
        simulation.run_for(5 * HOUR_S)
        assert simulation.store is not None
        simulation.moves = [move.trigger for move in simulation.store.history(f"{1:032x}")]
        (simulation.record,) = simulation.oracle.acknowledged.values()
    return simulation


STRAIGHT = ["push_started", "pushed", "precheck_passed", "proven", "sealed"]
SCRIPTS = {
    "ok": STRAIGHT,
    "drop ok": ["push_started", "put_back", *STRAIGHT],
    "drop_after ok": ["push_started", "put_back", *STRAIGHT],
    "partial ok": ["push_started", "put_back", *STRAIGHT],
    "full full ok": ["push_started", "put_back", "push_started", "put_back", *STRAIGHT],
    "truncate ok": ["push_started", "pushed", "put_back", *STRAIGHT],
    "skip ok": ["push_started", "pushed", "put_back", *STRAIGHT],
    "corrupt ok": ["push_started", "pushed", "put_back", *STRAIGHT],
    "truncate truncate ok": ["push_started", "pushed", "put_back", "push_started", "pushed", "gave_up"],
    "auth ok": ["push_started", "gave_up"],
    "drop drop drop drop drop": ["push_started", "put_back"] * 4 + ["push_started", "gave_up"],
}


@pytest.mark.parametrize(("script", "moves"), SCRIPTS.items())
def test_a_copy_that_goes_wrong_leads_to_what_the_specification_says(script, moves, tmp_path):
    life = live(tmp_path, script)
    assert life.moves == ["discovered", "admitted", *moves]
    assert life.record.state is (RunState.VERIFIED if moves[-1] == "sealed" else RunState.FAILED)


def test_a_copy_that_looks_right_and_is_not_is_found_by_its_hashes_where_no_ranges_can_be_read(tmp_path):
    seed = next(s for s in range(1, 50) if not Simulation(s, tmp_path, script="").world.nas["EQ_A"].has_ranges)
    life = live(tmp_path, "corrupt ok", seed=seed)
    assert life.moves[2:] == ["push_started", "pushed", "precheck_passed", "put_back", *STRAIGHT]


@pytest.mark.parametrize("trouble", ["away", "unmounted"])
def test_a_night_of_maintenance_costs_no_attempt(trouble, tmp_path):
    life = live(tmp_path, trouble)
    assert life.record.attempts == 0
    assert life.record.state is RunState.QUEUED
    with in_place(life):
        life.start()
        life.run_for(12 * HOUR_S)
        life.world.nas["EQ_A"].state = "up"
        life.run_for(HOUR_S)
        (record,) = life.oracle.acknowledged.values()
    assert (record.state, record.attempts) == (RunState.VERIFIED, 0)


def test_one_seed_lives_one_life(tmp_path):
    assert simulate(3, tmp_path / "a") == simulate(3, tmp_path / "b")


def test_the_simulator_can_die_and_be_noticed(tmp_path):
    assert issubclass(Killed, BaseException)
    assert not issubclass(Killed, Exception), "no `except Exception` of the code under test may survive a kill"
    assert Noticed(("a",)).paths == ("a",)
