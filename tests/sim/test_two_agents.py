"""State folders that are lost, put back or copied, PCs that are replaced, and two agents on one NAS: what none of them may do to
a copy that another proved, or that it proved itself and knows nothing of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.effects import Push, Seal, Verify
from exlab_watch_agent.core.policy import Layout
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.statechart import RunState
from tests.sim.agent import Agent
from tests.sim.copies import holder_at
from tests.sim.simulation import DAY_S, HOUR_S, Scenario, Simulation, in_place
from tests.sim.test_simulation import STRAIGHT, moves_of, one_run, record_of, run_until_killed
from tests.sim.world import Nas, NasFile, SimRun

TWO = Scenario("two PCs", agents=2)


def data_on(life: Simulation) -> dict[str, bytes]:
    """Every data file on the NAS, in its place."""
    nas = life.nas["EQ_A"]
    return {path: file.data for path, file in nas.real.items() if path in nas.ever}


def change(life: Simulation, run: SimRun) -> None:
    life.environment.overwrite_file(run)
    life.environment.complete_run(run)


# --- one PC, whose state folder is not what it was ---------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", ["inventory", "clear_partials", "samples"])
def test_a_state_folder_that_was_put_back_moves_nothing_aside_of_what_was_sealed_since(
    killed_at: str, tmp_path: Path
) -> None:
    """Whatever its record says of the run: acquiring, running, or that its copy is compared."""
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        run_until_killed(life, at=killed_at)
        copy = life.agent.keep_a_copy()
        life.start()
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        before = data_on(life)
        life.agent.die("a restore from a backup")
        life.agent.take_state(copy, home=life.agent.home)
        change(life, run)
        life.start()
        life.run_for(2 * DAY_S)
        assert (record_of(life).state, data_on(life)) == (RunState.CONFLICT, before)
        assert life.agent.store is not None
        assert life.agent.store.hold is not None
        life.agent.operate({"command": "resolve", "job_id": record_of(life).job_id, "operator": "asmith"})
        life.run_for(DAY_S)
        assert (record_of(life).state, data_on(life)) == (RunState.CONFLICT, before)


def test_a_state_folder_that_was_put_back_takes_up_what_was_sealed_since_where_both_sides_are_equal(
    tmp_path: Path,
) -> None:
    with one_run(tmp_path, "") as life:
        run_until_killed(life, at="clear_partials")
        copy = life.agent.keep_a_copy()
        life.start()
        life.run_for(HOUR_S)
        before = data_on(life)
        life.agent.die("a restore from a backup")
        life.agent.take_state(copy, home=life.agent.home)
        life.start()
        life.run_for(2 * DAY_S)
        assert (record_of(life).state, data_on(life)) == (RunState.VERIFIED, before)
        assert "copy_adopted" in moves_of(life)
        assert life.agent.store is not None
        assert life.agent.store.hold is not None


def test_a_sealed_run_is_not_healed_over_what_another_line_of_its_state_folder_sealed(tmp_path: Path) -> None:
    """The older copy of the state folder knows the first seal, and not that an operator had it replaced since."""
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        first = dict(run.files)
        life.run_for(HOUR_S)
        life.agent.die("a backup")
        copy = life.agent.keep_a_copy()
        change(life, run)
        life.start()
        life.run_for(7 * HOUR_S)
        life.agent.operate({"command": "resolve", "job_id": record_of(life).job_id, "operator": "asmith"})
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        before = data_on(life)
        life.agent.die("a restore from a backup")
        life.agent.take_state(copy, home=life.agent.home)
        run.files, run.truth = first, {name: file.data for name, file in first.items()}  # a snapshot was put back
        life.world.note_change(run)
        life.start()
        life.run_for(DAY_S)
        assert (record_of(life).state, data_on(life)) == (RunState.CONFLICT, before)


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_new_state_folder_takes_a_copy_over_by_a_proof_and_only_where_nothing_differs(
    is_changed: bool, tmp_path: Path
) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        life.run_for(HOUR_S)
        before, first = data_on(life), record_of(life).job_id
        life.agent.die("the disk of the state folder broke")
        life.agent.lose_state()
        if is_changed:
            change(life, run)
        life.start()
        life.run_for(2 * HOUR_S)
        assert record_of(life).job_id != first
        assert record_of(life).state is (RunState.CONFLICT if is_changed else RunState.VERIFIED)
        assert data_on(life) == before


def test_a_copy_that_cannot_be_read_back_before_its_first_seal_is_pushed_once_more(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        nas = life.nas["EQ_A"]

        def make_unreadable() -> None:
            nas.volume.unreadable.add(next(path for path in nas.ever if path.endswith((".bin", ".tif"))))

        def at_port(name: str) -> None:
            if name == "samples":
                life.world.port = lambda _: None
                make_unreadable()

        life.world.port = at_port
        life.run_for(HOUR_S)
        assert moves_of(life)[2:] == [*STRAIGHT[:3], "put_back", *STRAIGHT]


def test_a_file_that_is_listed_and_cannot_be_read_is_damage_at_the_second_try(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        nas = life.nas["EQ_A"]
        nas.volume.unreadable.add(next(path for path in nas.ever if path.endswith((".bin", ".tif"))))
        life.run_for(7 * HOUR_S)
        assert moves_of(life)[-7:] == ["audit_started", "copy_damaged", *STRAIGHT]
        assert not nas.volume.unreadable


def test_a_copy_that_cannot_be_read_at_all_is_damage_at_the_second_look(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        life.environment.write_file(run)
        life.environment.complete_run(run)
        life.run_for(HOUR_S)
        nas = life.nas["EQ_A"]
        nas.volume.unreadable |= set(nas.ever)
        life.run_for(13 * HOUR_S)
        assert moves_of(life)[-9:] == ["audit_started", "audit_interrupted", "audit_started", "copy_damaged", *STRAIGHT]


def test_a_nas_that_is_read_only_is_audited_and_waits_to_be_healed_without_an_attempt(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        nas, passes = life.nas["EQ_A"], record_of(life).verify_passes
        nas.is_read_only = True
        life.run_for(7 * HOUR_S)
        assert record_of(life).verify_passes > passes
        name = next(path for path in nas.ever if path.endswith((".bin", ".tif")))
        nas.rot(name, nas.real[name].data[:-1] + b"~")
        life.run_for(12 * HOUR_S)  # the run has its passes: it is read again within `reread_s`
        assert (record_of(life).state, record_of(life).attempts) == (RunState.QUEUED, 0)
        nas.is_read_only = False
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED


# --- two PCs -------------------------------------------------------------------------------------------------------------


@contextmanager
def two_pcs(tmp_path: Path, *, host: str = "lab-1") -> Iterator[tuple[Simulation, Agent, Agent]]:
    """A run that is sealed by the agent of the first PC, and carried over to the second one; no agent runs there. `host`: what
    the second one is called."""
    life = Simulation(1, tmp_path, script="", layout=Layout.MIRROR, scenario=TWO)
    old, new = life.agents
    new.host = host
    with in_place(life):
        while not any(run.equipment_id == "EQ_A" for run in old.world.runs.values()):
            old.world.runs.clear()
            old.environment.begin_run()
        (run,) = old.world.runs.values()
        old.environment.edit_cache(run)
        old.environment.complete_run(run)
        old.start()
        life.run_for(HOUR_S)
        new.environment.take_over(run)
        yield life, old, new


def only_record(agent: Agent) -> RunRecord:
    (record,) = agent.oracle.acknowledged.values()
    return record


@pytest.mark.parametrize("host", ["lab-1", "lab-0"])
def test_a_copy_is_left_to_an_agent_that_is_at_work_and_taken_over_once_that_is_silent(
    host: str, tmp_path: Path
) -> None:
    """Also by a PC that is called like the old one."""
    with two_pcs(tmp_path, host=host) as (life, old, new):
        before, nas = data_on(life), life.nas["EQ_A"]
        new.start()
        life.run_for(2 * DAY_S)
        assert (only_record(old).state, only_record(new).state) == (RunState.VERIFIED, RunState.CONFLICT)
        old.die("the PC is given away")
        life.run_for(3 * DAY_S)
        assert only_record(new).state is RunState.VERIFIED
        claim = holder_at(nas, only_record(new).destination)
        assert claim is not None
        assert [former.job_id for former in claim.former] == [only_record(old).job_id]
        assert data_on(life) == before
        old.start()  # it comes back after all, and its copy is another's
        life.run_for(DAY_S)
        assert (only_record(old).state, only_record(new).state) == (RunState.CONFLICT, RunState.VERIFIED)
        assert data_on(life) == before


def test_the_same_job_of_another_state_folder_is_another_s(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        nas, path = life.nas["EQ_A"], f"{record_of(life).destination}/{CLAIM_PATH}"
        said = json.loads(nas.real[path].data) | {"state_folder": "e" * 32}
        nas.real[path] = NasFile(json.dumps(said).encode(), 0)
        life.oracle.nas_was_changed(nas)
        name = next(path for path in nas.ever if path.endswith((".bin", ".tif")))
        nas.rot(name, nas.real[name].data[:-1] + b"~")
        before = data_on(life)
        life.run_for(7 * HOUR_S)
        assert (record_of(life).state, data_on(life)) == (RunState.CONFLICT, before)


def silence(life: Simulation, old: Agent) -> None:
    old.die("the PC is given away")
    life.run_for(2 * DAY_S)


def comes_back(life: Simulation) -> None:
    """The agent that was silent leaves a sign of life."""
    nas = life.nas["EQ_A"]
    (path,) = (path for path in nas.real if path.endswith("/lab-0.json"))
    said = json.loads(nas.real[path].data) | {"at": life.agents[1].clock.now().isoformat()}
    nas.real[path] = NasFile(json.dumps(said).encode(), 0)


def seals_again(life: Simulation) -> None:
    """The copy is another one than that which was to be taken over: a third agent was quicker."""
    life.agents[0].oracle.state_was_replaced()
    nas, destination = life.nas["EQ_A"], only_record(life.agents[1]).destination
    said = json.loads(nas.real[f"{destination}/{CLAIM_PATH}"].data) | {"job_id": "f" * 32}
    nas.real[f"{destination}/{CLAIM_PATH}"] = NasFile(json.dumps(said).encode(), 0)


@pytest.mark.parametrize("deed", [comes_back, seals_again])
@pytest.mark.parametrize(("kind", "port"), [(Verify, "look"), (Seal, "look")])
def test_a_copy_whose_holder_comes_back_while_it_is_taken_over_is_left_to_it(
    kind: type[Verify | Seal], port: str, deed: Callable[[Simulation], None], tmp_path: Path
) -> None:
    with two_pcs(tmp_path) as (life, old, new):
        silence(life, old)
        nas, destination = life.nas["EQ_A"], only_record(old).destination
        claims: list[bytes | None] = []

        def meanwhile(name: str) -> None:
            if name == port and new.oracle.windows and isinstance(new.oracle.windows[-1].effect, kind):
                new.world.port = lambda _: None
                deed(life)
                claims.append(nas.claim_at(destination))

        new.world.port = meanwhile
        new.start()
        life.run_for(HOUR_S)
        assert claims
        assert (only_record(new).state, nas.claim_at(destination)) == (RunState.CONFLICT, claims[0])


def test_a_damaged_copy_of_a_silent_agent_is_healed_from_data_that_are_what_was_sealed(tmp_path: Path) -> None:
    with two_pcs(tmp_path) as (life, old, new):
        silence(life, old)
        nas = life.nas["EQ_A"]
        name = next(path for path in nas.ever if path.endswith((".bin", ".tif")))
        good = nas.real[name].data
        nas.rot(name, good[:-1] + b"~")
        new.start()
        life.run_for(HOUR_S)
        assert (only_record(new).state, nas.real[name].data, nas.lost()) == (RunState.VERIFIED, good, [])


def test_while_a_damaged_copy_is_healed_its_holder_may_come_back(tmp_path: Path) -> None:
    with two_pcs(tmp_path) as (life, old, new):
        silence(life, old)
        nas = life.nas["EQ_A"]
        name = next(path for path in nas.ever if path.endswith((".bin", ".tif")))
        nas.rot(name, nas.real[name].data[:-1] + b"~")

        def meanwhile(port: str) -> None:
            if port == "look" and new.oracle.windows and isinstance(new.oracle.windows[-1].effect, Push):
                new.world.port = lambda _: None
                comes_back(life)

        new.world.port = meanwhile
        new.start()
        before = data_on(life)
        life.run_for(HOUR_S)
        assert (only_record(new).state, data_on(life)) == (RunState.CONFLICT, before)


def test_a_copy_that_cannot_be_read_is_not_asked_for_without_end_by_whoever_would_take_it_over(tmp_path: Path) -> None:
    with two_pcs(tmp_path) as (life, old, new):
        silence(life, old)
        nas = life.nas["EQ_A"]
        nas.volume.unreadable |= set(nas.ever)
        new.start()
        life.run_for(DAY_S)
        assert (only_record(new).state, only_record(new).attempts) == (RunState.FAILED, 5)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_another_agent_kept_beside_its_copy_is_kept_when_that_is_taken_over(
    is_damaged: bool, tmp_path: Path
) -> None:
    with two_pcs(tmp_path) as (life, old, new):
        silence(life, old)
        nas = life.nas["EQ_A"]
        (run,) = new.world.runs.values()
        left = nas.real[f"{only_record(old).destination}/.exlab-wizard/readme_fields.json"].data
        new.environment.edit_cache(run)
        if is_damaged:
            name = next(path for path in nas.ever if path.endswith((".bin", ".tif")))
            nas.rot(name, nas.real[name].data[:-1] + b"~")
        new.start()
        life.run_for(HOUR_S)
        assert only_record(new).state is RunState.VERIFIED
        kept = [file.data for path, file in nas.real.items() if path.endswith("/readme_fields.json")]
        assert sorted(kept) == sorted([left, run.cache["readme_fields.json"].data])


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_pc_that_was_copied_with_its_state_folder_deletes_nothing_and_moves_nothing_aside(
    is_changed: bool, tmp_path: Path
) -> None:
    with two_pcs(tmp_path) as (life, old, new):
        (run,) = new.world.runs.values()
        old.die("it is copied")
        new.take_state(old.keep_a_copy(), home=old.home)
        old.start()
        if is_changed:
            new.environment.overwrite_file(run)
            new.environment.complete_run(run)
        before = data_on(life)
        new.start()
        life.run_for(DAY_S)
        assert old.store is not None
        assert new.store is not None
        assert (old.store.hold, new.store.hold is None) == (None, False)
        assert only_record(new).state is (RunState.CONFLICT if is_changed else RunState.VERIFIED)
        assert (only_record(old).state, data_on(life)) == (RunState.VERIFIED, before)


def test_another_nas_in_the_place_of_the_bound_one_is_not_written_to(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (first,) = life.world.runs
        nas: Nas = life.nas["EQ_A"]
        nas.state = "foreign"
        while len([run for run in life.world.runs.values() if run.equipment_id == "EQ_A"]) < 2:
            life.world.runs = {first: life.world.runs[first]}
            life.environment.begin_run()
        for run in life.world.runs.values():
            life.environment.complete_run(run)
        life.run_for(DAY_S)
        assert nas.foreign == {}
        nas.state = "up"
        life.run_for(HOUR_S)
        assert all(record.state is RunState.VERIFIED for record in life.oracle.acknowledged.values())
