"""`cancel`, `retry` and `sync`, as an operator has them: with a running agent, without one, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import Equipment, Lab, Said, put, read_creation, until

Command = Callable[..., Said]
WHY = "the wrong sample was measured"
STAYS = "nothing more is done with the run, also where it changes or the agent starts again, until `retry`"


@pytest.fixture
def away(lab: Lab, on: Command) -> Path:
    """A run that waits for a NAS that is away."""
    lab.new_run()
    assert on("run", "--once", "--quiet").code == 0
    (lab.nas / "SCOPE_01").rename(lab.nas / "away")
    run = lab.new_run()
    assert on("run", "--once", "--quiet").code == 3
    assert lab.record(run)["state"] == "queued"
    return run


def the_problem(on: Command, run: Path) -> dict[str, object]:
    (found,) = [one for one in on("problems", "--json").problems if one["subject"] == str(run)]
    return found


def test_without_an_agent_a_run_is_cancelled_and_stays_so_until_it_is_retried(
    lab: Lab, on: Command, away: Path
) -> None:
    said = on("cancel", away.name, "--reason", f"  {WHY} ")
    assert (said.code, said.out, said.err) == (0, f"{away}: {STAYS}\n", "")
    record = lab.record(away)
    assert (record["state"], record["last_error"]["kind"]) == ("failed", "cancelled")
    assert read_creation(away)["sync_status"] == "failed"
    move = on("show", str(away), "--json").json["history"][-1]
    assert (move["trigger"], move["from"], move["to"], move["reason"]) == ("cancelled", "queued", "failed", WHY)
    assert "(uid " in move["operator"]
    assert f"cancelled by {move['operator']}: {WHY}" in on("show", str(away)).out

    problem = the_problem(on, away)
    assert (problem["tier"], problem["code"], problem["detail"]) == (
        "needs_you", "nas_sync_failed", {"kind": "cancelled"},
    )  # fmt: skip
    assert str(problem["sentence"]).startswith(f"cancelled by {move['operator']}: {WHY} (")
    assert str(problem["command"]) == f"exlab-watch-agent retry '{away}'"

    (lab.nas / "away").rename(lab.nas / "SCOPE_01")
    put(away, {"more.bin": b"1"})
    for _ in range(2):
        assert on("run", "--once", "--quiet").code == 3
        assert lab.record(away)["state"] == "failed"
        assert not lab.copy_of(away).exists()
    said = on("sync", str(away))
    assert said.code == 1
    assert f"The run was cancelled by {move['operator']}: {WHY}. `exlab-watch-agent retry" in said.err
    said = on("cancel", str(away), "--reason", WHY)
    assert (said.code, said.err.startswith("The run rests as it is: cancelled by ")) == (1, True)

    assert on("retry", str(away)).code == 0
    lab.assert_whole(away)
    assert [one for one in on("problems", "--json").problems if one["subject"] == str(away)] == []
    lab.assert_chain_holds()


def test_a_push_under_way_dies_at_once_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8))  # a MiB a second
    run = lab.new_run(files={"big.bin": b"x" * 60_000_000})
    with lab.running():
        lab.until_state(run, "running")
        until(lambda: lab.live()["progress"] or None, "the push is under way")
        said = lab.cli("cancel", str(run), "--reason", WHY)
        assert (said.code, said.out) == (0, f"{run}: {STAYS}\n"), said.err
        assert lab.record(run)["state"] == "failed"
        until(lambda: not lab.live()["progress"], "nothing is pushed any more")
        put(run, {"more.bin": b"1"})
        assert lab.cli("scan").code == 0
        until(lambda: read_creation(run)["sync_status"] == "failed", "creation.json says so")
        assert lab.states(run)[-2:] == ["running", "failed"]
        assert lab.cli("retry", "--all").out == "1 failed run put back into the queue, 1 of them cancelled before\n"
        lab.until_state(run, "running", "acquiring")


def test_what_has_nothing_under_way_is_not_cancelled_and_a_reason_is_asked_for(lab: Lab, on: Command) -> None:
    run, blocked = lab.new_run(), lab.new_run(files={"<id>": b"1"})
    on("run", "--once", "--quiet")
    said = on("cancel", run.name, "--reason", WHY)
    assert (said.code, said.err) == (
        1, "The run is verified: it is proven on the NAS, and nothing of it is under way.\n",
    )  # fmt: skip
    assert "The run is blocked: the gate keeps it back" in on("cancel", blocked.name, "--reason", WHY).err
    for words in (["cancel", run.name], ["cancel", run.name, "--reason", "short"]):
        assert on(*words).code == 2
    assert on("cancel", "Run_2020-01-01T00-00", "--reason", WHY).code == 1


def test_retry_ends_the_wait_of_a_queued_run_and_its_attempts_count_anew(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    lab.settings["agent"]["retry_schedule"] = ["1h", "2h", "4h"]
    lab.save_config()
    obstacle = lab.copy_of(run).parent
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_text("a file where a folder must be")
    assert on("run", "--once", "--quiet").code == 3
    waiting = lab.record(run)
    assert (waiting["state"], waiting["attempts"], waiting["next_attempt_at"] is None) == ("queued", 1, False)
    assert on("retry", str(run)).code == 1, "it failed again"
    again = lab.record(run)
    assert (again["state"], again["attempts"]) == ("queued", 1), "it was the first attempt again"
    assert [fact["data"]["attempts"] for fact in lab.trail() if fact["kind"] == "attempts_cleared"] == [1]
    obstacle.unlink()
    said = on("retry", "--all")
    assert (said.code, said.out.splitlines()[0]) == (
        0, "0 failed runs put back into the queue; 1 run waited for the next attempt, and no longer",
    )  # fmt: skip
    lab.assert_whole(run)
    lab.assert_chain_holds()


def test_sync_puts_a_run_first_in_the_line_of_its_instrument(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    (lab.nas / "SCOPE_01").rename(lab.nas / "away")
    runs = [lab.new_run() for _ in range(4)]
    with lab.running():
        for run in runs:
            lab.until_state(run, "queued")
        lab.until_lane_waits("SCOPE_01")
        said = lab.cli("sync", str(runs[3]))
        assert said.code == 0, said.err
        assert said.out.startswith("the run is the first in the line of SCOPE_01, and waits with all of SCOPE_01: ")
        assert lab.cli("retry", str(runs[2])).out.startswith(
            "the run is in the queue, and waits with all of SCOPE_01: "
        )
        (lab.nas / "away").rename(lab.nas / "SCOPE_01")
        for run in runs:
            lab.until_state(run, "verified")
    pushed = [
        fact["record"]["run_path"] for fact in lab.trail() if fact.get("move", {}).get("trigger") == "push_started"
    ]
    assert pushed[1] == str(runs[3]), "all others of the lane come after it"
