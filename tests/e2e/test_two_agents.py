"""Two agents with state folders of their own over one equipment's root: one of them works on it, the other one waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lab.lab import CACHE, AgentProcess, Equipment, Lab, hashes, until

TAKES_OVER_S = 60.0


def lab_over_the_same_root(lab: Lab, home: Path, *equipment: Equipment) -> Lab:
    """Return another state folder and config over the same instrument folder and the same NAS."""
    other = Lab(home, *equipment, is_bound=False, is_quick=True)
    other.local, other.nas = lab.local, lab.nas
    for one in other.equipment:
        (lab.local / one.id).mkdir(exist_ok=True)
        one.root(lab).mkdir(parents=True, exist_ok=True)
    other.settings["equipment"] = [one.to_config(other) for one in other.equipment]
    other.save_config()
    other.bind()
    return other


def lane(lab: Lab, equipment_id: str) -> dict[str, Any]:
    return dict(lab.live().get("lanes", {}).get(equipment_id, {}))


def test_the_second_agent_says_who_works_there_touches_nothing_and_takes_over_when_the_first_is_killed(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path / "first")
    other = lab_over_the_same_root(lab, tmp_path / "second", Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    with AgentProcess(lab) as first:
        first.until_up()
        first_run = lab.new_run()
        lab.until_state(first_run, "verified")
        with other.running():
            own = lab.new_run(equipment="SCOPE_02")
            other.until_state(own, "verified")
            problem = until(lambda: lane(other, "SCOPE_01").get("root_problem"), "the lane says why it waits")
            assert f"pid {first.pid} on" in problem
            assert str(lab.state) in problem
            assert "stop that one" in problem
            listed = other.cli("problems", "--json").problems
            assert [p["subject"] for p in listed if p["code"] == "root_unavailable"] == ["SCOPE_01"]
            assert other.cli("status").code == 0  # asking needs no lock
            assert other.cli("check").code == 3  # nor does this, which tells the same

            shared = lab.new_run()
            lab.until_state(shared, "verified")
            lab.assert_whole(shared)
            assert not [fact for fact in other.trail() if fact.get("record", {}).get("equipment_id") == "SCOPE_01"]

            first.kill()
            until(lambda: lane(other, "SCOPE_01").get("root_problem") is None, "it takes over", wait_s=TAKES_OVER_S)
            late = lab.new_run()
            other.until_state(late, "verified", wait_s=TAKES_OVER_S)
            other.assert_whole(late)
            # What the first agent has sealed stays its copy: a person must say that the other one may go on with it.
            left = other.cli("problems", "--json").problems
            assert {p["code"] for p in left} == {"claimed_by_other_agent"}
            assert {p["subject"] for p in left} == {str(first_run), str(shared)}
    assert hashes(lab.copy_of(shared)) == hashes(shared)
    assert lab.debris() == []


def test_a_command_that_works_by_itself_leaves_the_root_of_another_agent_alone_and_says_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "first", settle_seconds=600)
    other = lab_over_the_same_root(lab, tmp_path / "second", Equipment("SCOPE_01"))
    with lab.running() as first:
        run = lab.new_run()
        lab.until_state(run, "acquiring")
        for words in (["run", "--once", "--quiet"], ["sync", str(run)]):
            said = other.cli(*words)
            assert f"pid {first.pid} on" in said.err, said
        assert not [fact for fact in other.trail() if "record" in fact]
        assert not lab.copy_of(run).exists()


def test_the_lock_is_no_run_and_no_reason_to_scan(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    cache = lab.local / "SCOPE_01" / CACHE
    with lab.running() as agent:
        holder = json.loads((cache / "watch-agent.json").read_text())
        assert (holder["pid"], holder["state_dir"]) == (agent.pid, str(lab.state))
        run = lab.new_run()
        lab.until_state(run, "verified")
        scanned_at = lane(lab, "SCOPE_01")["last_scan_at"]
        for number in range(50):
            (cache / "watch-agent.json").write_text(json.dumps({**holder, "number": number}))
        (cache / "Runs" / "Run_2026-04-17T14-32" / CACHE).mkdir(parents=True)
        (cache / "Runs" / "Run_2026-04-17T14-32" / CACHE / "creation.json").write_text("{}")
        lab.until_state(lab.new_run(), "verified")  # came after all these events
        assert lane(lab, "SCOPE_01")["last_scan_at"] == scanned_at
        assert lab.cli("problems").code == 0
        assert {fact["record"]["project"] for fact in lab.trail() if "record" in fact} == {run.parent.parent.name}
    assert lab.cli("run", "--once", "--quiet").code == 0  # the lock went with the agent


def test_a_root_that_cannot_be_written_waits_with_the_reason_and_is_taken_once_it_can(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    root = lab.local / "SCOPE_01"
    run = lab.new_run()
    root.chmod(0o555)
    try:
        with lab.running(as_user=True):
            problem = until(lambda: lane(lab, "SCOPE_01").get("root_problem"), "the lane says why it waits")
            assert "cannot be written" in problem
            assert not lab.copy_of(run).exists()
            root.chmod(0o755)
            lab.until_state(run, "verified", wait_s=TAKES_OVER_S)
    finally:
        root.chmod(0o755)
