"""What goes wrong while effects are under way: one that waited too long, one that never ends, one that ends for no reason,
and a world that changes under it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from exlab_watch_agent.core.binding import accepted
from exlab_watch_agent.core.effects import Precheck, Seal, Verify, Work
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.engine.messages import ScanWanted
from exlab_watch_agent.engine.views import RunView
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.statechart import RunState
from tests.sim.agent import Call
from tests.sim.oracle import what_is_wrong
from tests.sim.simulation import HOUR_S, Simulation, status_of
from tests.sim.test_noticing import complete_run
from tests.sim.test_simulation import STRAIGHT, moves_of, one_run, record_of, run_until_killed


def take_call(life: Simulation, name: str, equipment_id: str = "EQ_A") -> Call:
    """Take the one waiting call of this kind out of the executor: it hangs until the test runs it."""
    (call,) = [c for c in life.agent.calls if str(c) == name and c.arguments[0].equipment_id == equipment_id]
    life.agent.calls.remove(call)
    return call


def end(life: Simulation, call: Call) -> None:
    assert life.agent.engine is not None
    life.agent.run(call)
    life.agent.in_loop(life.agent.engine.turn_over)


def test_a_status_that_waited_is_written_where_the_run_is_by_then_and_never_into_another_run(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        home = run.path
        life.environment.overwrite_file(run)
        life.run_for(7 * HOUR_S, hold="WriteStatus")  # a conflict, and its status hangs
        assert record_of(life).state is RunState.CONFLICT
        life.environment.undo_changes(run)
        life.run_for(7 * HOUR_S, hold="WriteStatus")  # the difference is gone, and "synced" waits for its turn
        assert record_of(life).sync_status == "synced"
        life.environment.move_run(run)
        life.agent.engine.post(ScanWanted())
        life.run_for(HOUR_S, hold="WriteStatus")
        assert record_of(life).run_path == run.path
        while home not in life.world.runs:  # another run comes to the old place
            before = set(life.world.runs)
            life.environment.begin_run()
            (path,) = set(life.world.runs) - before
            if path != home and (stranger := life.world.runs.pop(path)).equipment_id == "EQ_A":
                stranger.path = home
                life.world.runs[home] = stranger
        life.agent.events.clear()
        life.run_for(5.0)
        assert status_of(life.world.runs[home]) != "synced"
        assert status_of(run) == "synced"


def test_a_look_that_began_before_the_first_binding_binds_no_other_root(tmp_path: Path) -> None:
    """It took long, the probe beside it bound the root by then, and then another share was mounted there."""
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        nas, lane = life.world.nas["EQ_A"], life.agent.engine.lanes["EQ_A"]
        probe = take_call(life, "Probe")
        life.run_for(40.0, hold="Admit")
        admission = take_call(life, "Admit")
        before = lane.binding
        end(life, probe)
        first = accepted(lane.binding, lane.spelling)
        assert first is not None
        nas.marker_id = "another root"
        now, lane.binding = lane.binding, before
        life.agent.run(admission)  # as one that took what was known when it began
        lane.binding = now
        life.agent.in_loop(life.agent.engine.turn_over)
        life.run_for(60.0)
        assert (accepted(lane.binding, lane.spelling), lane.away is not None) == (first, True)
        nas.marker_id = first
        life.run_for(HOUR_S)
        assert (accepted(lane.binding, lane.spelling), lane.away) == (first, None)
        assert record_of(life).state is RunState.VERIFIED


def test_work_that_ends_although_nobody_asked_it_to_is_done_again(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(40.0, hold="Verify")
        verify = take_call(life, "Verify")
        verify.arguments[2].cancel.set()
        end(life, verify)
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED


def test_a_question_that_hangs_for_ever_does_not_keep_its_lane_away_for_ever(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        lane = life.agent.engine.lanes["EQ_A"]
        take_call(life, "Probe")
        life.run_for(6 * HOUR_S)
        assert lane.away is None
        assert record_of(life).state is RunState.VERIFIED


def test_of_questions_that_hang_only_a_few_are_left_hanging(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(HOUR_S, hold="Probe")
        hanging = [call for call in life.agent.calls if call.arguments[0].equipment_id == "EQ_A"]
        assert [str(call) for call in hanging] == ["Probe"] * 3
        end(life, take_one(life, hanging[-1]))
        assert life.agent.engine.lanes["EQ_A"].away is None


def take_one(life: Simulation, call: Call) -> Call:
    life.agent.calls.remove(call)
    return call


def test_a_conflict_that_is_compared_in_one_lane_keeps_no_other_lane_from_its_audits(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        (mine,) = life.world.runs.values()
        other = complete_run(cast("Any", life), equipment_id="EQ_B")
        life.agent.engine.post(ScanWanted())
        life.run_for(HOUR_S)
        life.environment.overwrite_file(mine)
        life.run_for(6.5 * HOUR_S)
        assert record_at(life, mine.path).state is RunState.CONFLICT
        passes = record_at(life, other.path).verify_passes
        life.agent.operate({"command": "verify", "job_id": record_at(life, mine.path).job_id, "operator": "asmith"})
        life.agent.in_loop(life.agent.engine.turn_over)
        take_call(life, "Verify")
        life.run_for(48 * HOUR_S)
        assert record_at(life, other.path).verify_passes > passes


def test_a_turn_for_an_audit_is_gone_once_its_run_was_audited_for_another_reason(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        (mine,) = life.world.runs.values()
        other = complete_run(cast("Any", life), equipment_id="EQ_B")
        life.agent.engine.post(ScanWanted())
        life.run_for(HOUR_S)
        job_id = record_at(life, mine.path).job_id
        life.agent.operate({"command": "verify", "job_id": record_at(life, other.path).job_id, "operator": "asmith"})
        life.agent.in_loop(life.agent.engine.turn_over)
        hanging = take_call(life, "Verify", "EQ_B")
        life.run_for(6 * HOUR_S)
        assert list(life.agent.engine.lanes["EQ_A"].audits) == [job_id]
        life.agent.operate({"command": "verify", "job_id": job_id, "operator": "asmith"})
        life.run_for(1.0)
        before = record_at(life, mine.path)
        end(life, hanging)
        life.run_for(HOUR_S)
        assert before.state is RunState.VERIFIED
        assert record_at(life, mine.path) == before


def record_at(life: Simulation, run_path: str) -> RunRecord:
    return next(record for record in life.oracle.acknowledged.values() if record.run_path == run_path)


def test_while_a_root_is_in_doubt_what_works_there_is_held_to_the_one_that_was_ours(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(60.0)
        life.world.roots_away.add("EQ_A")
        life.agent.engine.post(ScanWanted())
        life.run_for(1.0)
        assert life.agent.engine.lanes["EQ_A"].root_problem is not None
        with pytest.raises(RootUnavailableError):
            life.agent.engine.ports_of("EQ_A").require_root()


def test_a_pass_does_not_go_through_all_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(HOUR_S)
        views = life.agent.engine._runs.views
        for number in range(2000):
            views.tell(f"{number:032x}", RunView(reason="waits"))
        life.agent.in_loop(life.agent.engine.turn_over)
        plain: Callable[[RunView, object], bool] = RunView.__eq__
        compared = 0

        def counted(view: RunView, other: object) -> bool:
            nonlocal compared
            compared += 1
            return plain(view, other)

        monkeypatch.setattr(RunView, "__eq__", counted)
        views.tell(f"{7:032x}", RunView(reason="is pushed"))
        life.agent.in_loop(life.agent.engine.turn_over)
        assert compared < 20


# --- a world that changes under an effect ----------------------------------------------------------------------------


def once_at(life: Simulation, kind: type[Work], port: str, deed: Callable[[], object]) -> None:
    """Let something happen once, at the first call of a port (or the first that begins so) of an effect of this kind."""

    def at_port(name: str) -> None:
        if name.startswith(port) and life.oracle.windows and isinstance(life.oracle.windows[-1].effect, kind):
            life.world.port = lambda _: None
            deed()

    life.world.port = at_port


@pytest.mark.parametrize("port", ["inventory", "samples"])
def test_a_run_that_changes_when_its_copy_is_prechecked_starts_over_and_its_copy_is_not_to_blame(
    port: str, tmp_path: Path
) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        once_at(life, Precheck, port, lambda: life.environment.write_file(run))
        life.run_for(HOUR_S)
        assert moves_of(life)[2:] == ["push_started", "pushed", "changed", "admitted", *STRAIGHT]


def test_what_changed_while_both_sides_were_hashed_is_not_proven(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        once_at(life, Verify, "digests", lambda: life.environment.append_file(run))  # here all was read by then
        life.run_for(HOUR_S)
        assert moves_of(life)[2:] == [*STRAIGHT[:3], "changed", "admitted", *STRAIGHT]


def test_a_run_of_which_a_file_was_away_while_it_was_hashed_is_not_proven_without_it(tmp_path: Path) -> None:
    """Somebody moves it elsewhere and back, so that the run is as it was before and after."""
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        last = "zz, after all others"
        life.world.put(run, last, b"moved elsewhere and back")
        life.environment.complete_run(run)
        file = run.files[last]

        def take_it() -> None:
            del run.files[last]
            once_at(life, Verify, "digests", lambda: run.files.update({last: file}))

        once_at(life, Verify, "hash ", take_it)
        life.run_for(40.0)
        assert moves_of(life)[2:6] == [*STRAIGHT[:3], "changed"]


def test_here_no_synced_is_said_of_a_run_that_changed_while_the_nas_was_told(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        once_at(life, Seal, "read_small", lambda: life.environment.append_file(run))
        life.run_for(HOUR_S)
        assert moves_of(life)[2:] == [*STRAIGHT[:4], "changed", "admitted", *STRAIGHT]
        assert what_is_wrong(life.world.nas["EQ_A"], record_of(life).destination, run) == []


def test_a_manifest_that_rotted_in_the_state_folder_does_not_get_into_a_seal(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        kept = tmp_path / "state" / "manifests"
        once_at(life, Seal, "inventory", lambda: next(kept.glob("*.sha256")).write_bytes(b"something else"))
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        assert what_is_wrong(life.world.nas["EQ_A"], record_of(life).destination, run) == []


def test_a_seal_that_comes_to_nothing_takes_synced_back_without_waiting_for_a_look(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (run,) = life.world.runs.values()
        run_until_killed(life, at="put_text done")
        assert status_of(run) == "synced"
        life.environment.append_file(run)
        life.start()
        life.run_for(1.0, hold="Inspect")
        assert moves_of(life)[-1] == "changed"
        assert status_of(run) == "pending"


def test_the_instruments_own_folder_is_not_bound_and_ends_no_wait_for_the_destination(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        nas, lane = life.world.nas["EQ_A"], life.agent.engine.lanes["EQ_A"]
        nas.source = lambda: life.world.as_destination("EQ_A")
        life.run_for(300.0)
        assert (nas.marker_id, lane.away is not None) == (None, True)
        nas.source = None
        life.run_for(HOUR_S)
        assert record_of(life).state is RunState.VERIFIED
        nas.state = "dead"
        life.agent.operate({"command": "verify", "job_id": record_of(life).job_id, "operator": "asmith"})
        life.run_for(1.0)
        assert lane.away is not None
        nas.source, nas.state = lambda: life.world.as_destination("EQ_A"), "up"
        life.run_for(150.0)
        assert lane.away is not None
        nas.source = None
        life.run_for(150.0)
        assert lane.away is None


def test_what_was_proven_is_not_read_again_while_another_run_of_its_equipment_is_acquired(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(8 * HOUR_S)
        job_id = record_of(life).job_id
        assert life.oracle.acknowledged[job_id].verify_passes == 2
        runs = life.world.runs
        while not any(run.equipment_id == "EQ_A" and not life.environment.is_complete(run) for run in runs.values()):
            life.environment.begin_run()
        life.run_for(9.5 * HOUR_S)  # of which the run is due after nine at the latest, and overdue after ten
        assert life.oracle.acknowledged[job_id].verify_passes == 2
        life.run_for(3 * HOUR_S)  # what is overdue waits for nobody
        assert life.oracle.acknowledged[job_id].verify_passes > 2


def test_a_run_that_was_removed_is_proven_at_the_nas_and_its_only_copy_is_watched(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        assert life.agent.engine is not None
        life.run_for(HOUR_S)
        (run,) = life.world.runs.values()
        nas, destination = life.world.nas["EQ_A"], record_of(life).destination
        life.environment.remove_run(run)
        life.run_for(2 * HOUR_S)
        assert (record_of(life).state, moves_of(life)[-2:]) == (RunState.CLEANED, ["audit_started", "local_gone"])
        (name,) = [name for name in sorted(run.files) if run.files[name].data][:1]
        nas.rot(f"{destination}/{name}", run.files[name].data[:-1] + b"~")
        life.run_for(14 * HOUR_S)
        assert [(one.kind, one.files) for one in record_of(life).incidents] == [("copy_damaged", (name,))]
        assert record_of(life).state is RunState.CLEANED


def test_an_instrument_that_never_rests_keeps_no_copy_from_being_read_again(tmp_path: Path) -> None:
    with one_run(tmp_path, "") as life:
        (first,) = life.world.runs.values()
        life.run_for(9 * HOUR_S)
        assert [record.verify_passes for record in life.oracle.acknowledged.values()] == [2]
        for hour in range(0, 60, 6):
            if hour % 18 == 0:  # one that is not complete holds up nothing any more after a day
                begin_run_in(life, "EQ_A")
            life.run_for(6 * HOUR_S)
            (copy,) = (record for record in life.oracle.acknowledged.values() if record.run_path == first.path)
            assert copy.verified_at is not None
            unread_s = (life.agent.clock.now() - copy.verified_at).total_seconds()
            assert unread_s < 14 * HOUR_S, "it is read again although the instrument is at work all the time"


def begin_run_in(life: Simulation, equipment_id: str) -> None:
    """Have one instrument begin a run, which it does not complete."""
    before = dict(life.world.runs)
    for _ in range(100):
        life.environment.begin_run()
        (begun,) = life.world.runs.keys() - before.keys()
        if life.world.runs[begun].equipment_id == equipment_id:
            return
        del life.world.runs[begun]
    raise AssertionError(f"no run was begun in {equipment_id}")
