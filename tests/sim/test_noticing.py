"""Events alone, scans alone, and both with events lost, doubled and out of order lead to the same states.

The same things happen in each life, to the same tree; only what the agent is told of them differs. Between them it is left
alone until it has come to rest, because how far a run had come when it was changed may rightly make a difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from exlab_watch_agent.core.inventory import CREATION_FILE
from exlab_watch_agent.core.policy import Layout
from exlab_watch_agent.engine.keys import Slot
from exlab_watch_agent.engine.looks import BACKGROUND_LOOKS_MAX, Pace
from exlab_watch_agent.engine.messages import Noticed, ScanWanted
from exlab_watch_agent.errors import CreationFileError
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState
from tests.sim.simulation import HOUR_S, Simulation, in_place, status_of
from tests.sim.world import SENTINEL

NEVER_S = 1e9
DEEDS = (
    "begin_run", "begin_run", "write_file", "append_file", "overwrite_file", "remove_file", "complete_run", "complete_run",
    "bad_name", "undo_changes", "override", "spoil_creation", "move_run", "copy_run", "remove_run",
)  # fmt: skip
SEEDS = range(1, 25)
"""Without 0: there a blocked run changes below its top level, of which no event tells; and what is blocked is not audited."""


class Life(Simulation):
    """`way`: what the agent is told: `events`, `scans`, or `both`, the events then as a bad watcher gives them."""

    def __init__(self, seed: int, folder: Path, way: str) -> None:
        super().__init__(seed, folder, script="", layout=Layout.MIRROR)
        self._way = way
        self._watcher = Random(f"{seed} {way}")
        # Audits that never become re-reads, which would wait for runs that are acquired.
        cleanup = replace(self.policy.cleanup, verify_passes_min=1000)
        self.agent.policy = replace(self.policy, rescan_s=NEVER_S if way == "events" else 900.0, cleanup=cleanup)
        self.world.notice = self._notice

    def _notice(self, path: str) -> None:
        if self.agent.engine is None or self._way == "scans":
            return
        copies = self._watcher.choice((0, 1, 1, 2)) if self._way == "both" else 1
        self.agent.events += [path] * copies
        if self._way == "both":
            self._watcher.shuffle(self.agent.events)

    def do(self, deed: str, choice: Random) -> None:
        """One deed of the environment; its own chance is the same in every life."""
        self.random.setstate(choice.getstate())
        act = getattr(self.environment, deed)
        if deed == "begin_run":
            act()
        elif self.world.runs:
            act(choice.choice([self.world.runs[path] for path in sorted(self.world.runs)]))
        choice.random()

    def outcome(self) -> dict[str, Any]:
        assert self.agent.store is not None
        return {
            record.run_path: (record.state, record.sync_status, record.files_total, record.overrides_seen)
            for record in self.agent.store
        }


@contextmanager
def life(seed: int, folder: Path, way: str) -> Iterator[Life]:
    alive = Life(seed, folder, way)
    with in_place(alive):
        alive.start()
        yield alive


def live(seed: int, folder: Path, way: str) -> list[dict[str, Any]]:
    """Return what is where after each burst of deeds."""
    choice, outcomes = Random(seed), []
    with life(seed, folder, way) as alive:
        for _ in range(6):
            for _ in range(choice.randint(1, 5)):
                alive.do(choice.choice(DEEDS), choice)
            alive.run_for(13 * HOUR_S)  # two audits: with events alone it is they who see what moved below the top
            outcomes.append(alive.outcome())
    return outcomes


@pytest.mark.parametrize("seed", SEEDS)
def test_events_alone_scans_alone_and_a_bad_watcher_with_scans_end_in_the_same_states(
    seed: int, tmp_path: Path
) -> None:
    scans = live(seed, tmp_path / "scans", "scans")
    assert live(seed, tmp_path / "both", "both") == scans
    assert live(seed, tmp_path / "events", "events") == scans


# --- single rules ----------------------------------------------------------------------------------------------------


def complete_run(alive: Life, *, equipment_id: str = "EQ_A") -> Any:
    """Put a complete run into a lane, without a word to the agent."""
    before = set(alive.world.runs)
    while True:
        alive.environment.begin_run()
        (path,) = set(alive.world.runs) - before
        if alive.world.runs[path].equipment_id == equipment_id:
            break
        del alive.world.runs[path]
    alive.environment.complete_run(alive.world.runs[path])
    return alive.world.runs[path]


def looks_of(alive: Life) -> list[str]:
    """Collect the paths of the looks from now on."""
    alive.agent.looks = []
    return alive.agent.looks


def test_a_run_that_rests_sealed_is_not_read_again_by_scans_nor_by_the_next_start(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = complete_run(alive)
        alive.run_for(HOUR_S)
        assert alive.outcome()[run.path][0] is RunState.VERIFIED
        paths = looks_of(alive)
        alive.run_for(2 * HOUR_S)
        assert paths == []
        alive.agent.die("a restart")
        alive.agent.depth = 0
        alive.start()
        paths = looks_of(alive)
        alive.run_for(2 * HOUR_S)
        assert paths == []
        alive.environment.override(run)  # another creation.json: now it is
        alive.run_for(HOUR_S)
        assert paths[0] == run.path
        assert alive.agent.store is not None
        (record,) = alive.agent.store
        assert record.overrides_seen == 1


def test_an_operator_s_edit_that_the_agent_s_own_write_took_along_is_still_looked_at(tmp_path: Path) -> None:
    """The agent writes a status into a file that was edited since its last look: what it wrote is then not all its own."""
    with life(1, tmp_path, "events") as alive:
        run = complete_run(alive)
        alive.environment.bad_name(run)
        assert alive.agent.engine is not None
        alive.agent.engine.post(ScanWanted())
        alive.run_for(60.0, hold="WriteStatus")
        assert alive.outcome()[run.path][0] is RunState.BLOCKED
        alive._way = "scans"  # the edit makes no event; the agent's own write after it does
        while not alive.environment.is_admitted(run):
            alive.environment.override(run)
        alive._way = "events"
        alive.run_for(HOUR_S)
        assert alive.outcome()[run.path][0] is RunState.VERIFIED


def test_a_status_that_could_not_be_written_and_one_that_another_program_wrote_are_put_right(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = complete_run(alive)
        alive.environment.bad_name(run)

        def locked(name: str) -> None:
            if name == "set_sync_status":
                alive.world.port = lambda _: None
                raise CreationFileError("another program has it open", code="locked")

        alive.world.port = locked
        assert alive.agent.engine is not None
        alive.agent.engine.post(ScanWanted())
        alive.run_for(40.0)
        assert (alive.outcome()[run.path][0], status_of(run)) == (RunState.BLOCKED, "pending")
        alive.run_for(100.0)
        assert status_of(run) == "blocked_by_validation"
        alive.environment._edit(run, lambda members: members.update(sync_status="synced"))
        alive.run_for(HOUR_S)
        assert status_of(run) == "blocked_by_validation"


def test_the_agent_s_own_writes_lead_to_no_look_at_the_data(tmp_path: Path) -> None:
    with life(1, tmp_path, "events") as alive:
        run = complete_run(alive)
        alive.environment.bad_name(run)
        reads: list[str] = []

        def port(name: str) -> None:
            reads.append(name)
            if name == "set_sync_status done":  # the event is quicker than the writing thread's own word
                assert alive.agent.engine is not None
                alive.agent.events.clear()
                alive.agent.engine.post(Noticed((f"{run.path}/.exlab-wizard/creation.json",)))
                alive.agent.engine.turn_over()

        alive.world.port = port
        assert alive.agent.engine is not None
        alive.agent.engine.post(ScanWanted())
        alive.run_for(31.0)
        assert alive.outcome()[run.path][:2] == (RunState.BLOCKED, "blocked_by_validation")
        written = reads.index("set_sync_status done")
        assert "inventory" not in reads[written:]
        assert "read creation" in reads[written:]  # it was noticed, and known for its own


def test_a_folder_that_is_new_is_looked_at_before_all_that_is_only_looked_at_again(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        assert alive.agent.engine is not None
        blocked = [complete_run(alive) for _ in range(3)]
        for run in blocked:
            alive.environment.bad_name(run)
        alive.agent.engine.post(ScanWanted())
        alive.run_for(60.0)
        assert {state for state, *_ in alive.outcome().values()} == {RunState.BLOCKED}
        new = complete_run(alive)
        paths = looks_of(alive)
        alive.agent.engine.post(ScanWanted(("EQ_A",)))
        alive.run_for(0.0)
        assert paths[0] == new.path
        assert sorted(paths[1:]) == sorted(run.path for run in blocked)


def test_a_root_that_is_there_again_is_looked_at_in_full_whatever_the_scan_was_for(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        assert alive.agent.engine is not None
        run = complete_run(alive)
        alive.environment.bad_name(run)
        alive.agent.engine.post(ScanWanted())
        alive.run_for(60.0)
        assert alive.outcome()[run.path][0] is RunState.BLOCKED
        alive.world.roots_away.add("EQ_A")
        alive.agent.engine.post(ScanWanted(("EQ_A",)))
        alive.run_for(1.0)
        assert alive.agent.engine.lanes["EQ_A"].root_problem is not None
        alive.environment.bad_name(run)
        alive.world.roots_away.clear()
        alive.agent.engine.post(ScanWanted(("EQ_A",), is_full=False))
        alive.run_for(1.0)
        assert alive.outcome()[run.path][0] is not RunState.BLOCKED


def test_a_slow_look_waits_for_its_turn_in_the_background_and_a_new_run_does_not(tmp_path: Path) -> None:
    with life(1, tmp_path, "events") as alive:
        run = complete_run(alive)
        alive.world.take(run, SENTINEL)
        assert alive.agent.engine is not None
        alive.agent.engine.post(Noticed((run.path,)))
        alive.run_for(0.0)
        lane = alive.agent.engine.lanes["EQ_A"]
        alive.agent.engine._looks._paces[run.path] = Pace(is_slow=True)
        taken = alive.agent.engine._errands._taken
        taken[Slot.BACKGROUND, "EQ_A"] = BACKGROUND_LOOKS_MAX  # others are under way
        alive.agent.engine.post(Noticed((run.path,)))
        new = complete_run(alive)
        paths = looks_of(alive)
        alive.agent.engine.post(Noticed((new.path,)))
        alive.agent.engine.turn_over()
        assert paths == [new.path]
        assert list(lane.backlog) == [run.path]
        taken[Slot.BACKGROUND, "EQ_A"] = 0
        alive.agent.engine.turn_over()
        assert paths == [new.path, run.path]


def test_a_look_that_a_sleeping_machine_drew_out_puts_no_later_scan_s_look_off(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = complete_run(alive)
        alive.world.take(run, SENTINEL)

        def sleep(name: str) -> None:
            if name == "read creation":
                alive.world.port = lambda _: None
                alive.clock.advance(10 * HOUR_S)

        alive.world.port = sleep
        alive.run_for(10 * HOUR_S)
        alive.environment.complete_run(run)
        alive.run_for(HOUR_S)
        assert alive.outcome()[run.path][0] is RunState.VERIFIED


def test_a_run_is_no_orphan_any_more_once_its_creation_json_was_read_even_before_the_next_scan(tmp_path: Path) -> None:
    """A scan may come between a new run's folder and its `creation.json`, which the instrument's software writes last."""
    with life(1, tmp_path, "scans") as alive:
        run = complete_run(alive)
        creation = run.cache.pop(CREATION_FILE)
        assert alive.agent.engine is not None
        lane = alive.agent.engine.lanes["EQ_A"]
        alive.agent.engine.post(ScanWanted())
        alive.run_for(0.0)
        assert [orphan.run_path for orphan in lane.orphans] == [run.path]
        run.cache[CREATION_FILE] = creation
        alive.agent.engine.post(Noticed((run.path,)))
        alive.run_for(0.0)
        assert run.path in alive.outcome()
        assert lane.orphans == ()


def test_a_run_that_is_moved_away_and_back_while_it_is_looked_at_is_one_run(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = complete_run(alive)
        alive.run_for(HOUR_S)
        home = run.path
        alive.environment.move_run(run)
        assert alive.agent.engine is not None
        alive.agent.engine.post(Noticed((run.path,)))
        alive.run_for(0.0, hold="AskWhere")  # it was seen there, and is about to be asked for here
        while run.path != home:
            alive.environment.move_run(run)
        alive.run_for(HOUR_S)
        assert list(alive.outcome()) == [home]


def test_a_run_that_is_copied_and_moved_is_found_in_one_of_two_places_and_is_not_moved_on_to_the_other(
    tmp_path: Path,
) -> None:
    """Both are asked for while it is gone from its old place; the second answer says nothing of where it is by then."""
    with life(1, tmp_path, "events") as alive:
        run = complete_run(alive)
        assert alive.agent.engine is not None
        alive.agent.engine.post(Noticed((run.path,)))
        alive.run_for(HOUR_S)
        assert list(alive.outcome()) == [run.path]
        facts: list[str] = []
        committed = alive.oracle.committed

        def note(entries: Sequence[Entry]) -> None:
            facts.extend(entry.kind for entry in entries)
            committed(entries)

        alive.oracle.committed = note  # type: ignore[method-assign]
        alive.environment.copy_run(run)
        alive.environment.move_run(run)
        alive.run_for(0.0, hold="AskWhere")
        alive.run_for(0.0)
        assert facts.count("moved") == 1
        assert set(alive.outcome()) == set(alive.world.runs)


def queued_run(alive: Life) -> Any:
    """Put a complete run into EQ_A that stays in the queue, because the NAS is away."""
    alive.world.nas["EQ_A"].state = "dead"
    run = complete_run(alive)
    alive.run_for(HOUR_S)
    assert alive.outcome()[run.path][0] is RunState.QUEUED
    return run


def test_a_run_whose_override_is_revoked_while_it_is_in_the_queue_is_not_pushed(tmp_path: Path) -> None:
    def say(members: dict[str, Any], **entry: str) -> None:
        members["validation_overrides"].append({"operator": "asmith", **entry})

    with life(1, tmp_path, "scans") as alive:
        nas = alive.world.nas["EQ_A"]
        nas.state = "dead"
        run = complete_run(alive)
        alive.environment.bad_name(run)
        alive.environment._edit(run, lambda members: say(members, id="a", problem_class="reserved_filesystem_name"))
        alive.run_for(HOUR_S)
        assert alive.outcome()[run.path][0] is RunState.QUEUED
        alive.environment._edit(run, lambda members: say(members, id="b", revokes="a"))
        nas.state = "up"
        alive.run_for(HOUR_S)
        assert alive.outcome()[run.path][0] is RunState.BLOCKED
        assert nas.real == {}


def test_a_queued_run_that_is_gone_fails_when_a_second_scan_says_so(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = queued_run(alive)
        alive.environment.remove_run(run)
        assert alive.agent.engine is not None
        alive.agent.engine.post(ScanWanted())
        alive.run_for(1.0)
        assert alive.outcome()[run.path][0] is RunState.QUEUED
        alive.run_for(10.0)
        assert alive.outcome()[run.path][0] is RunState.FAILED


def test_a_queued_run_that_scans_pass_by_twice_and_that_is_there_after_each_is_not_gone(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = queued_run(alive)

        def away_for_the_scan(name: str) -> None:
            if name == "scan":
                alive.world.runs.pop(run.path, None)
            elif name == "scan done":
                alive.world.runs[run.path] = run

        alive.world.port = away_for_the_scan
        assert alive.agent.engine is not None
        for _ in range(2):
            alive.agent.engine.post(ScanWanted())
            alive.run_for(1.0)
        assert alive.outcome()[run.path][0] is RunState.QUEUED


def test_a_folder_that_cannot_be_read_may_be_the_run_that_is_gone_and_is_not_scanned_for_all_the_time(
    tmp_path: Path,
) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = queued_run(alive)
        other = complete_run(alive)
        alive.environment.spoil_creation(other)
        alive.environment.remove_run(run)
        calls: list[str] = []
        alive.world.port = calls.append
        assert alive.agent.engine is not None
        alive.agent.engine.post(ScanWanted(("EQ_A",)))
        alive.run_for(600.0)
        assert calls.count("scan") == 2
        assert alive.outcome()[run.path][0] is RunState.QUEUED
        alive.environment.spoil_creation(other)  # it is another one
        alive.run_for(HOUR_S)
        assert alive.outcome()[run.path][0] is RunState.FAILED


def test_a_run_that_settled_when_its_root_went_away_and_is_gone_then_keeps_nobody_waiting(tmp_path: Path) -> None:
    with life(1, tmp_path, "scans") as alive:
        run = complete_run(alive)
        assert alive.agent.engine is not None
        alive.agent.engine.post(ScanWanted())
        alive.run_for(1.0)
        assert not alive.agent.engine.is_at_rest()
        alive.world.roots_away.add("EQ_A")
        alive.run_for(60.0)
        assert alive.agent.engine.is_at_rest()
        alive.environment.remove_run(run)
        alive.world.roots_away.clear()
        alive.run_for(HOUR_S)
        assert alive.agent.engine.is_at_rest()
