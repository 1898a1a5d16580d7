"""Seeded lives of the agent in a world that goes wrong. `EXLAB_SIM_SEEDS=5000 pytest tests/sim` lives more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.heartbeat import FOLDER as HEARTBEATS
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE
from exlab_watch_agent.core.policy import Layout
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.statechart import RunState
from tests.sim.oracle import what_is_wrong
from tests.sim.simulation import HOUR_S, Simulation, in_place, simulate, status_of
from tests.sim.world import SENTINEL, Killed, NasFile

ROOT = Path(__file__).parent.parent.parent
SEEDS = int(os.environ.get("EXLAB_SIM_SEEDS", "200"))
SEEDS_IN_A_CHUNK = 25


@pytest.mark.timeout(max(120, SEEDS))
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_IN_A_CHUNK))
def test_whatever_goes_wrong_no_byte_is_lost_and_nothing_is_called_synced_that_was_not_proven(
    first: int, tmp_path: Path
) -> None:
    for seed in range(first, min(first + SEEDS_IN_A_CHUNK, SEEDS)):
        simulate(seed, tmp_path / str(seed))


# --- lives by script: one fault for each copy, nothing else goes wrong ----------------------------------------------


@contextmanager
def one_run(tmp_path: Path, script: str, *, has_ranges: bool = True) -> Iterator[Simulation]:
    """One complete run in the lane EQ_A, and an agent that has just started. The copies go wrong as the script says."""
    simulation = Simulation(1, tmp_path, script=script, layout=Layout.MIRROR)
    simulation.world.nas["EQ_A"].has_ranges = has_ranges
    with in_place(simulation):
        while not any(run.equipment_id == "EQ_A" for run in simulation.world.runs.values()):
            simulation.world.runs.clear()
            simulation.environment.begin_run()
        (run,) = simulation.world.runs.values()
        simulation.environment.complete_run(run)
        simulation.start()
        yield simulation


def record_of(simulation: Simulation) -> RunRecord:
    (record,) = simulation.oracle.acknowledged.values()
    return record


def moves_of(simulation: Simulation) -> list[str]:
    assert simulation.agent.store is not None
    return [move.trigger for move in simulation.agent.store.history(record_of(simulation).job_id)]


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
def test_a_copy_that_goes_wrong_leads_to_what_the_specification_says(
    script: str, moves: list[str], tmp_path: Path
) -> None:
    with one_run(tmp_path, script) as life:
        life.run_for(5 * HOUR_S)
        assert moves_of(life) == ["discovered", "admitted", *moves]
        assert record_of(life).state is (RunState.VERIFIED if moves[-1] == "sealed" else RunState.FAILED)


def test_a_copy_that_only_looks_right_is_found_by_its_hashes_where_no_ranges_can_be_read(tmp_path: Path) -> None:
    with one_run(tmp_path, "corrupt ok", has_ranges=False) as life:
        life.run_for(HOUR_S)
        assert moves_of(life)[2:] == ["push_started", "pushed", "precheck_passed", "put_back", *STRAIGHT]


def test_a_turn_in_the_queue_from_before_a_push_does_not_cut_short_the_wait_after_it(tmp_path: Path) -> None:
    """The operator's word comes during the look before the push, which takes the run out of the queue by itself."""
    with one_run(tmp_path, "drop ok") as life:

        def retry_during_the_look(name: str) -> None:
            if name == "look":
                life.world.port = lambda _: None
                life.agent.operate({"command": "retry", "job_id": record_of(life).job_id, "operator": "asmith"})

        life.world.port = retry_during_the_look
        life.run_for(35.0)
        assert moves_of(life)[2:] == ["push_started", "put_back"]
        life.run_for(HOUR_S)
        assert moves_of(life)[2:] == SCRIPTS["drop ok"]


@pytest.mark.parametrize("trouble", ["away", "unmounted"])
def test_a_night_of_maintenance_costs_no_attempt(trouble: str, tmp_path: Path) -> None:
    with one_run(tmp_path, trouble) as life:
        life.run_for(12 * HOUR_S)
        assert (record_of(life).state, record_of(life).attempts) == (RunState.QUEUED, 0)
        life.world.nas["EQ_A"].state = "up"
        life.run_for(HOUR_S)
        assert (record_of(life).state, record_of(life).attempts) == (RunState.VERIFIED, 0)


def test_a_nas_that_rots_after_the_seal_is_healed_and_both_versions_are_kept(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        nas = life.world.nas["EQ_A"]
        name, good = rot(life)
        life.run_for(7 * HOUR_S)
        assert moves_of(life)[-7:] == ["audit_started", "copy_damaged", *STRAIGHT]
        assert nas.real[name].data == good
        assert nas.lost() == []


@pytest.mark.parametrize("name", ["checksums.sha256", "exlab-watch-agent.json"])
def test_a_seal_that_is_lost_on_the_nas_is_made_again_by_the_next_audit(tmp_path: Path, name: str) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        nas = life.world.nas["EQ_A"]
        life.world.touch()
        lost = next(path for path in nas.real if path.endswith(f"/{name}"))
        good = nas.real.pop(lost).data
        life.run_for(7 * HOUR_S)
        assert moves_of(life)[-3:] == ["audit_started", "seal_missed", "sealed"]
        assert (nas.real[lost].data == good, nas.lost()) == (name == "checksums.sha256", [])


# --- coincidences that chance seldom brings about: one directed life for each guard that a seed rarely needs --------


def rot(life: Simulation) -> tuple[str, bytes]:
    """Let one data file rot on the NAS; return its name and what it was."""
    nas = life.world.nas["EQ_A"]
    name = next(path for path in nas.ever if path.endswith((".bin", ".tif")))
    good = nas.real[name].data
    nas.rot(name, good[:-1] + b"~")
    return name, good


def test_in_a_conflict_neither_side_is_touched_even_when_the_nas_copy_is_damaged(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        life.environment.overwrite_file(run)
        life.run_for(7 * HOUR_S)
        assert record_of(life).state is RunState.CONFLICT
        life.environment.undo_changes(run)
        name, good = rot(life)
        life.run_for(7 * HOUR_S)  # a conflict is looked at again
        assert record_of(life).state is RunState.CONFLICT
        nas = life.world.nas["EQ_A"]
        assert nas.real[name].data == good[:-1] + b"~"
        nas.rot(name, good)
        life.run_for(7 * HOUR_S)
        assert "difference_gone" in moves_of(life)
        assert record_of(life).state is RunState.VERIFIED


def test_a_seal_that_was_due_before_a_conflict_is_made_once_the_difference_is_gone(tmp_path: Path) -> None:
    """The copy was pushed anew and says "pending": equal data alone must not count as verified."""
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        rot(life)

        def change_before_the_seal(name: str) -> None:
            if record_of(life).state is RunState.SEALING:
                life.world.port = lambda _: None
                life.environment.append_file(run)

        life.world.port = change_before_the_seal
        life.run_for(6 * HOUR_S)
        assert record_of(life).state is RunState.CONFLICT
        life.environment.undo_changes(run)
        life.run_for(7 * HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        assert what_is_wrong(life.world.nas["EQ_A"], record_of(life).destination, run) == []


def test_a_claim_that_went_to_an_empty_mount_point_is_not_followed_by_data_on_the_nas(tmp_path: Path) -> None:
    """The share is away for just the moment in which the claim is placed and looked for."""
    with one_run(tmp_path, "") as life:
        nas = life.world.nas["EQ_A"]

        def away_for_a_moment(name: str) -> None:
            nas.state = {"place_claim": "unmounted", "clear_partials": "up"}.get(name, nas.state)

        life.world.port = away_for_a_moment
        life.run_for(60.0)
        assert record_of(life).state is RunState.QUEUED
        assert all(path.startswith(HEARTBEATS) for path in nas.real)
        life.world.port = lambda _: None
        nas.state = "up"
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED


def test_a_folder_that_is_copied_back_to_where_its_original_was_gets_no_share_in_its_copy(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        old = run.path
        life.environment.move_run(run)
        life.run_for(HOUR_S)
        assert record_of(life).run_path == run.path
        life.environment.copy_run(run)
        while old not in life.world.runs:  # chance chose another place
            life.world.runs = {run.path: run}
            life.environment.copy_run(run)
        life.environment.append_file(life.world.runs[old])
        life.environment.complete_run(life.world.runs[old])
        life.run_for(7 * HOUR_S)
        states = {record.run_path: record.state for record in life.oracle.acknowledged.values()}
        assert states == {run.path: RunState.VERIFIED, old: RunState.CONFLICT}


def test_a_copied_folder_is_not_pushed_to_its_original_s_copy_although_the_nas_does_not_show_that_for_a_moment(
    tmp_path: Path,
) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        old, nas = run.path, life.world.nas["EQ_A"]
        life.environment.move_run(run)
        life.run_for(HOUR_S)
        while old not in life.world.runs:
            life.world.runs = {run.path: run}
            life.environment.copy_run(run)
        life.environment.complete_run(life.world.runs[old])
        real = nas.real

        def empty_for_the_look(name: str) -> None:
            nas.real = {} if name == "look" and life.oracle.looking else real

        life.world.port = empty_for_the_look
        life.run_for(2 * HOUR_S)
        assert life.agent.store is not None
        (copied,) = (record for record in life.oracle.acknowledged.values() if record.run_path == old)
        assert copied.state is RunState.CONFLICT
        assert [move.trigger for move in life.agent.store.history(copied.job_id)][-2:] == ["admitted", "conflict_found"]


def test_a_sealed_run_whose_healing_failed_keeps_its_proven_copy_when_it_changes_then(tmp_path: Path) -> None:
    with one_run(tmp_path, "ok auth") as life:
        (run,) = life.world.runs.values()
        life.environment.write_file(run)
        life.environment.complete_run(run)
        life.run_for(HOUR_S)
        rot(life)
        life.run_for(7 * HOUR_S)
        assert (record_of(life).state, record_of(life).is_sealed) == (RunState.FAILED, True)
        for path in sorted(set(run.files) - {SENTINEL}):
            life.world.put(run, path, b"something else, written after the seal")
        life.run_for(3 * HOUR_S)
        assert record_of(life).state is RunState.FAILED
        life.agent.operate({"command": "retry", "all": True, "operator": "asmith"})
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.CONFLICT


def test_a_sealed_run_that_was_blocked_when_it_was_to_be_healed_keeps_its_proven_copy_when_it_changes_then(
    tmp_path: Path,
) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()

        def add_entry(**entry: str) -> None:
            life.environment._edit(run, lambda members: members["validation_overrides"].append(entry))
            life.agent.operate({"command": "scan", "operator": "asmith"})

        life.environment.bad_name(run)
        add_entry(id="a", operator="asmith", problem_class="reserved_filesystem_name")
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        add_entry(id="b", operator="asmith", revokes="a")
        rot(life)
        life.run_for(7 * HOUR_S)
        assert (record_of(life).state, record_of(life).is_sealed) == (RunState.BLOCKED, True)
        for path in sorted(set(run.files) - {SENTINEL}):
            life.world.put(run, path, b"something else, written after the seal")
        life.run_for(3 * HOUR_S)
        assert record_of(life).state is RunState.BLOCKED
        add_entry(id="c", operator="asmith", problem_class="reserved_filesystem_name")
        life.run_for(3 * HOUR_S)
        assert record_of(life).state is RunState.CONFLICT


def test_a_destination_that_is_the_instruments_own_folder_is_never_written_to_and_proves_nothing(
    tmp_path: Path,
) -> None:
    with one_run(tmp_path, "") as life:
        nas = life.world.nas["EQ_A"]
        nas.source = lambda: life.world.as_destination("EQ_A")
        life.run_for(HOUR_S)
        assert (record_of(life).state, record_of(life).attempts) == (RunState.QUEUED, 0)
        nas.source = None
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED


@pytest.mark.parametrize("shows", ["root", "run"])
def test_a_bound_destination_that_becomes_the_instruments_own_folder_is_not_written_to(
    shows: str, tmp_path: Path
) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (first,) = life.world.runs
        while len([run for run in life.world.runs.values() if run.equipment_id == "EQ_A"]) < 2:
            life.world.runs = {first: life.world.runs[first]}
            life.environment.begin_run()
        (second,) = (run for run in life.world.runs.values() if run.path != first)
        life.environment.complete_run(second)
        nas = life.world.nas["EQ_A"]
        nas.source, nas.source_shows = lambda: life.world.as_destination("EQ_A"), {shows}
        life.run_for(2 * HOUR_S)
        states = {record.run_path: (record.state, record.attempts) for record in life.oracle.acknowledged.values()}
        assert states[second.path] == (RunState.QUEUED, 0)
        nas.source = None
        life.run_for(2 * HOUR_S)
        assert all(record.state is RunState.VERIFIED for record in life.oracle.acknowledged.values())


def test_a_destination_that_becomes_the_instruments_own_folder_is_no_second_copy_to_an_audit(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        nas = life.world.nas["EQ_A"]
        nas.source, nas.source_shows = lambda: life.world.as_destination("EQ_A"), {"run"}
        life.run_for(24 * HOUR_S)
        assert record_of(life).verify_passes == 1
        nas.source = None
        life.run_for(24 * HOUR_S)
        assert record_of(life).verify_passes > 1


def test_nobody_waits_for_a_destination_that_never_answers(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(120, hold="Probe")
        assert life.agent.engine is not None
        lane = life.agent.engine.lanes["EQ_A"]
        assert lane.away is not None
        assert lane.away.reason == "it has not answered for 60 s"
        assert life.agent.engine.is_at_rest()
        life.run_for(HOUR_S)
        assert life.agent.engine.lanes["EQ_A"].away is None
        assert record_of(life).state is RunState.VERIFIED


def test_the_outcome_of_an_audit_that_began_before_its_run_was_moved_is_not_believed(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        moved: list[int] = []

        def move_when_all_is_read(name: str) -> None:
            if name == "read creation" and life.oracle.windows:
                life.world.port = lambda _: None
                life.environment.move_run(run)
                life.agent.operate({"command": "scan", "operator": "asmith"})
                life.run_for(0.0)
                moved.append(record_of(life).turn)
                assert record_of(life).run_path == run.path

        life.world.port = move_when_all_is_read
        life.run_for(6 * HOUR_S)
        assert (record_of(life).state, record_of(life).turn) == (RunState.VERIFIED, moved[0] + 1)


def test_a_status_that_is_late_does_not_overwrite_the_seals(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        rot(life)
        life.run_for(7 * HOUR_S, hold="WriteStatus")
        assert record_of(life).state is RunState.SEALING
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        assert record_of(life).state is RunState.VERIFIED
        assert what_is_wrong(life.world.nas["EQ_A"], record_of(life).destination, run) == []


def run_until_killed(life: Simulation, *, at: str) -> None:
    """Let the agent work for an hour at most, and kill it at this call of a port."""

    def kill(port: str) -> None:
        if port == at:
            life.world.port = lambda _: None
            raise Killed(port)

    life.world.port = kill
    with pytest.raises(Killed):
        life.run_for(HOUR_S)
    life.agent.die(at)


def claimed_by_another_agent(life: Simulation) -> bytes:
    """Let another agent's claim stand at the destination, sealed as it was and lately, so that it is at work; return it."""
    nas = life.world.nas["EQ_A"]
    path = f"{record_of(life).destination}/{CLAIM_PATH}"
    said = json.loads(nas.real[path].data) | {
        "job_id": "f" * 32,
        "state_folder": "e" * 32,
        "sealed_at": "2099-01-01T00:00:00Z",
    }
    claim = json.dumps(said).encode()
    assert b"manifest_sha256" in claim
    nas.real[path] = NasFile(claim, 0)
    return claim


@pytest.mark.parametrize("when", ["before the look", "look", "require_claim"])
def test_a_sealed_copy_that_another_agent_claims_is_left_to_it(when: str, tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        rot(life)
        nas = life.world.nas["EQ_A"]
        data = {path: file.data for path, file in nas.real.items() if path in nas.ever}

        def claimed_meanwhile(name: str) -> None:
            if name == when and record_of(life).state is RunState.RUNNING:
                life.world.port = lambda _: None
                claimed_by_another_agent(life)

        if when == "before the look":
            claimed_by_another_agent(life)
        life.world.port = claimed_meanwhile
        life.run_for(7 * HOUR_S)
        record = record_of(life)
        assert (record.state, record.verify_passes) == (RunState.CONFLICT, 0)
        assert record.last_error is not None
        assert record.last_error.kind in ("claimed_by_other_agent", "destination_occupied")
        assert when == "require_claim" or record.last_error.kind == "claimed_by_other_agent"
        life.agent.operate({"command": "resolve", "job_id": record.job_id, "operator": "asmith"})
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.CONFLICT
        assert {path: file.data for path, file in nas.real.items() if path in nas.ever} == data


def test_a_sealed_copy_that_goes_on_saying_synced_is_not_changed(tmp_path: Path) -> None:
    """The NAS took the new `creation.json`, and has the old one all the same."""
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        name, good = rot(life)
        nas = life.world.nas["EQ_A"]
        path = f"{record_of(life).destination}/{CACHE_FOLDER}/{CREATION_FILE}"
        sealed = nas.real[path]

        def keep_the_old_one(port: str) -> None:
            if port == "clear_partials" and record_of(life).state is RunState.RUNNING:
                nas.real[path] = sealed

        life.world.port = keep_the_old_one
        life.run_for(12 * HOUR_S)
        record = record_of(life)
        assert (record.state, record.verify_passes) == (RunState.FAILED, 0)
        assert nas.real[name].data != good
        life.world.port = lambda _: None
        life.agent.operate({"command": "retry", "all": True, "operator": "asmith"})
        life.run_for(HOUR_S)
        assert nas.real[name].data == good


def test_what_is_wrong_on_the_nas_is_on_record_before_anything_is_moved_there(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(HOUR_S)
        name, good = rot(life)

        def refuse(port: str) -> None:
            if port == "set_aside":
                raise TransportError(FailureKind.UNKNOWN, "nothing can be moved there")

        life.world.port = refuse
        life.run_for(12 * HOUR_S)
        record = record_of(life)
        assert moves_of(life).count("copy_damaged") == 1
        assert (record.state, record.verify_passes) == (RunState.FAILED, 0)
        assert life.world.nas["EQ_A"].real[name].data != good
        life.world.port = lambda _: None
        life.agent.operate({"command": "retry", "all": True, "operator": "asmith"})
        life.run_for(HOUR_S)
        assert (record_of(life).state, record_of(life).verify_passes) == (RunState.VERIFIED, 1)
        assert life.world.nas["EQ_A"].real[name].data == good


def test_a_seal_that_went_to_an_empty_mount_point_does_not_make_synced_stand_here(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        nas = life.world.nas["EQ_A"]

        def away_while_it_is_sealed(port: str) -> None:
            if port == "text_with_status":
                nas.state = "unmounted"
            elif port == "put_text":
                assert nas.state == "up", "the status is written here, and the NAS is away"

        life.world.port = away_while_it_is_sealed
        life.run_for(60.0)
        assert (record_of(life).state, record_of(life).attempts) == (RunState.SEALING, 0)
        assert status_of(run) == "pending"
        life.world.port = lambda _: None
        nas.state = "up"
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED


@pytest.mark.parametrize("back_at", ["require_marker", "inventory"])
def test_a_share_that_was_away_only_while_its_seal_was_written_has_none(back_at: str, tmp_path: Path) -> None:
    """The seal went to the empty mount point, and may even be read back from there, before the share is back."""
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        nas = life.world.nas["EQ_A"]
        seen: list[str] = []

        def away_while_it_is_written(port: str) -> None:
            if port == "text_with_status":
                seen.append(port)
                nas.state = "unmounted"
            elif seen and port == back_at:
                nas.state = "up"

        life.world.port = away_while_it_is_written
        life.run_for(60.0)
        assert seen
        nas.state = "up"
        life.world.port = lambda _: None
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        assert what_is_wrong(nas, record_of(life).destination, run) == []


def test_a_seal_that_the_nas_did_not_keep_is_made_again(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        nas = life.world.nas["EQ_A"]

        def lose_half_of_it(port: str) -> None:
            if port != "read_small" or not life.oracle.windows:
                return
            destination = record_of(life).destination
            if nas.creation_status(destination) == "synced":
                life.world.port = lambda _: None
                path = f"{destination}/{CACHE_FOLDER}/{CREATION_FILE}"
                nas.real[path] = NasFile(nas.real[path].data[:-9], 0)

        life.world.port = lose_half_of_it
        life.run_for(HOUR_S)
        assert moves_of(life)[-2:] == ["seal_failed", "sealed"]
        assert what_is_wrong(nas, record_of(life).destination, run) == []


def test_the_nas_is_not_told_synced_of_a_run_that_changed_before_its_seal(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        nas = life.world.nas["EQ_A"]

        def change_before_the_seal(port: str) -> None:
            if life.oracle.windows and record_of(life).state is RunState.SEALING:
                life.world.port = lambda _: None
                life.environment.append_file(run)

        life.world.port = change_before_the_seal
        life.run_for(35.0)
        assert moves_of(life)[-2:] == ["proven", "changed"]
        assert nas.creation_status(record_of(life).destination) is None
        life.run_for(HOUR_S)
        assert what_is_wrong(nas, record_of(life).destination, run) == []


def test_killed_between_the_seal_there_and_the_status_here_the_next_agent_ends_it(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        run_until_killed(life, at="put_text")
        nas = life.world.nas["EQ_A"]
        assert (nas.creation_status(record_of(life).destination), status_of(run)) == ("synced", "pending")
        life.start()
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        assert what_is_wrong(nas, record_of(life).destination, run) == []


def test_what_a_kill_left_of_a_commit_is_cut_off_before_the_next_commit(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        life.run_for(10.0)
        assert record_of(life).state is RunState.ACQUIRING
        life.agent.torn = b'{"seq":99,"at":"2026-04-17T14:'
        life.agent.die("the write of the trail")
        life.start()
        life.run_for(HOUR_S)
        assert moves_of(life)[1:] == ["admitted", *STRAIGHT]
        before = record_of(life)
        life.agent.die("a step")
        life.start()  # all of it is in the trail, and whole
        assert life.agent.store is not None
        assert (list(life.agent.store), life.agent.store.hold) == ([before], None)


def test_a_wall_clock_that_is_set_makes_one_pass_of_two_that_are_seconds_apart(tmp_path: Path) -> None:
    def pass_after(seconds: float, *, jump_days: float = 0) -> int:
        life.run_for(seconds)
        life.clock.jump(jump_days)
        before = moves_of(life).count("proven")
        life.agent.operate({"command": "verify", "job_id": record_of(life).job_id, "operator": "asmith"})
        life.run_for(1)
        assert moves_of(life).count("proven") == before + 1
        return record_of(life).verify_passes

    with one_run(tmp_path, "") as life:
        while all(record.state is not RunState.VERIFIED for record in life.oracle.acknowledged.values()):
            life.run_for(1)
        assert pass_after(3, jump_days=1 / 24) == 1
        assert pass_after(3, jump_days=-1 / 24) == 1
        assert pass_after(3, jump_days=-400) == 1
        assert pass_after(70) == 2
        life.agent.die("a reboot")
        life.clock.reboot()
        life.start()
        assert pass_after(30, jump_days=1) == 2
        assert pass_after(70, jump_days=-2) == 3


def test_one_seed_lives_one_life(tmp_path: Path) -> None:
    assert simulate(3, tmp_path / "a") == simulate(3, tmp_path / "b")


def test_one_seed_lives_one_life_whatever_the_machine_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = simulate(11, tmp_path / "here")
    monkeypatch.setattr("socket.gethostname", lambda: "a-much-longer-name-than-most")
    assert simulate(11, tmp_path / "there") == here


def test_one_seed_lives_one_life_in_every_process(tmp_path: Path) -> None:
    """Sets of paths have another order in each process, unless Python is told by which seed."""
    life = (
        "import sys, pathlib; from tests.sim.simulation import simulate; print(simulate(9, pathlib.Path(sys.argv[1])))"
    )
    lives = {
        subprocess.run(
            [sys.executable, "-c", life, str(tmp_path / hash_seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(lives) == 1
