"""A NAS that is away, at the start and in the middle: the lane waits, no attempt is consumed, nothing is written astray."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.lab.lab import AgentProcess, Equipment, Lab, override, read_creation, save_in_place, tombstone, until

PLACEHOLDER = "unresolved_placeholder_token"


def lane(lab: Lab) -> dict[str, Any]:
    return dict(lab.live()["lanes"]["SCOPE_01"])


def until_away(lab: Lab) -> None:
    until(lambda: lane(lab)["waiting_since"], "the lane waits")


def with_placeholder(lab: Lab, *overrides: dict[str, Any]) -> Path:
    return lab.new_run(files={"scan_<id>.dat": b"data"}, validation_overrides=list(overrides))


def test_while_the_nas_is_away_the_lane_waits_and_the_gate_goes_on_and_afterwards_all_goes_on(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    first = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(first)
    nas, away = lab.nas / "SCOPE_01", lab.nas / "away"

    # At the start an unmounted mount point is there instead: an empty folder that would accept every write.
    nas.rename(away)
    nas.mkdir()
    run = lab.new_run()
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    expiring = with_placeholder(lab, override(PLACEHOLDER, expires_at=soon))
    revoked = with_placeholder(lab, override(PLACEHOLDER))
    removed = lab.new_run()
    runs = [run, expiring, revoked, removed]
    with lab.running():
        until_away(lab)
        for one in runs:
            lab.until_state(one, "queued")

        save_in_place(revoked, read_creation(revoked) | {"validation_overrides": [override(PLACEHOLDER), _revoking()]})
        lab.until_state(revoked, "blocked")
        removed.rename(lab.home / "removed")
        assert lab.until_state(removed, "failed")["last_error"]["kind"] == "local_file_vanished"
        (lab.home / "removed").rename(removed)
        assert lab.cli("retry", removed.name).code == 0
        lab.until_state(expiring, "blocked")
        assert [lab.record(one)["attempts"] for one in (run, expiring, revoked)] == [0, 0, 0]

        nas.rmdir()  # fails unless it is still empty
        away.rename(nas)
        lab.until_state(run, "verified")
        lab.assert_whole(run)
        lab.until_state(removed, "verified")
        assert lab.states(run) == [
            "acquiring",
            "queued",
            "running",
            "prechecking",
            "awaiting_verify",
            "sealing",
            "verified",
        ]
        until(lambda: not lane(lab)["waiting_since"], "the lane no longer waits")
        assert not lab.copy_of(expiring).exists()
        assert not lab.copy_of(revoked).exists()
    assert lab.debris() == []
    lab.assert_chain_holds()


def test_a_nas_that_goes_away_in_the_middle_of_a_push_costs_no_attempt_and_is_said(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8), is_quick=True)
    nas, away = lab.nas / "SCOPE_01", lab.nas / "away"
    with lab.running():
        long = lab.new_run(files={f"{number:02d}.bin": bytes([number]) * 120_000 for number in range(20)})
        until(lambda: list(lab.copy_of(long).glob("*.bin")), "some files are there")
        nas.rename(away)
        until_away(lab)
        until(lambda: lab.record(long)["state"] == "queued", "it is put back")
        assert lab.record(long)["attempts"] == 0
        _assert_said(lab, long)
        assert not nas.exists()
        away.rename(nas)
        lab.until_state(long, "verified")
        lab.assert_whole(long)
    assert lab.debris() == []
    lab.assert_chain_holds()


def _revoking() -> dict[str, Any]:
    return tombstone(f"id-{PLACEHOLDER}")


def _assert_said(lab: Lab, run: Path) -> None:
    since = lane(lab)["waiting_since"]
    status = lab.cli("status")
    assert f"NAS unreachable since {since}: " in status.out
    assert status.code == 0
    assert "NAS unreachable since" in lab.cli("show", str(run), "--json").json["why"]
    problems = lab.cli("problems", "--json")
    said = [problem for problem in problems.problems if problem["code"] == "nas_unreachable"]
    assert len(said) == 1
    assert said[0]["sentence"].startswith(f"NAS unreachable since {since}: ")
    assert said[0]["subject"] == "SCOPE_01"
    assert problems.code == 3


def test_run_once_with_the_nas_away_ends_and_leaves_the_runs_queued(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.nas / "SCOPE_01").rename(lab.nas / "away")
    run = lab.new_run()
    said = lab.cli("run", "--once")
    assert (said.code, "1 queued" in said.out) == (3, True)
    assert "The share may not be mounted" in said.err
    assert lab.record(run)["attempts"] == 0
    assert sorted(path.name for path in lab.nas.iterdir()) == ["away"]
    synced = lab.cli("sync", str(run))
    assert synced.code == 1
    assert "share may not be mounted" in synced.err
    (lab.nas / "away").rename(lab.nas / "SCOPE_01")
    assert lab.cli("sync", str(run)).code == 0
    lab.assert_whole(run)


def test_what_a_killed_agent_was_waiting_for_is_known_until_the_next_one_finds_it_mended(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    (lab.nas / "SCOPE_01").rename(lab.nas / "away")
    run = lab.new_run()
    with AgentProcess(lab) as agent:
        agent.until_up()
        until_away(lab)
        assert "no agent is running" not in lab.cli("problems").out
        agent.kill()
    said = lab.cli("problems")
    assert said.code == 3
    assert "NEEDS YOU  SCOPE_01: NAS unreachable since " in said.out
    assert " ago; no agent is running)\n" in said.out
    (lab.nas / "away").rename(lab.nas / "SCOPE_01")
    assert lab.cli("run", "--once", "--quiet").code == 0
    assert lab.cli("problems").code == 0
    lab.assert_whole(run)


def test_another_share_in_the_place_of_the_nas_is_not_written_to(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.new_run()
    lab.cli("run", "--once")
    marker = lab.nas / "SCOPE_01" / ".exlab-watch-agent.json"
    marker.write_text('{"schema": 1, "id": "' + "0" * 32 + '"}')
    run = lab.new_run()
    assert lab.cli("run", "--once").code == 3
    assert lab.record(run)["state"] == "queued"
    assert not lab.copy_of(run).exists()


def test_a_root_that_is_missing_or_unreadable_makes_its_lane_wait_until_it_appears(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("MISSING_01"), Equipment("LOCKED_01"), is_quick=True)
    missing, locked = lab.local / "MISSING_01", lab.local / "LOCKED_01"
    run = lab.new_run(equipment="LOCKED_01")
    missing.rmdir()
    locked.chmod(0)
    try:
        with lab.running(as_user=True):
            lab.until_state(lab.new_run(equipment="SCOPE_01"), "verified")
            problems = lab.cli("problems", "--json").problems
            said = {problem["subject"]: problem for problem in problems if problem["code"] == "root_unavailable"}
            assert set(said) == {"MISSING_01", "LOCKED_01"}
            for equipment_id, root in (("MISSING_01", missing), ("LOCKED_01", locked)):
                assert str(root) in said[equipment_id]["sentence"]
            assert f"{missing} " in lab.cli("status").out
            locked.chmod(0o755)
            late = lab.new_run(equipment="MISSING_01")
            lab.until_state(late, "verified", wait_s=40)
            lab.until_state(run, "verified", wait_s=40)
            lab.assert_whole(run)
            until(lambda: lab.cli("problems").code == 0, "nothing is wrong any more")
    finally:
        locked.chmod(0o755)


def test_a_root_that_goes_away_takes_no_run_with_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    run = lab.new_run()
    waiting = lab.new_run(files={})
    root, elsewhere = lab.local / "SCOPE_01", lab.home / "elsewhere"
    with lab.running():
        lab.until_state(run, "verified")
        lab.until_state(waiting, "acquiring")
        root.rename(elsewhere)
        until(lambda: lane(lab)["root_problem"], "the lane says so", wait_s=40)
        assert lab.record(run)["state"] == "verified"
        assert lab.record(waiting)["state"] == "acquiring"
        elsewhere.rename(root)
        (waiting / "a.bin").write_bytes(b"a")
        lab.until_state(waiting, "verified", wait_s=40)
        until(lambda: lane(lab)["root_problem"] is None, "the lane is fine again")
