"""Trouble that nobody would see, on real agents: killed, hanging, stopped, a NAS that went away while nothing was to be done."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.lab.lab import AgentProcess, Equipment, Lab, Said, override, read_creation, save_in_place, until

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def of_the_agent(said: Said) -> list[dict[str, Any]]:
    return [one for one in said.json["problems"] if one["code"].startswith("agent_")]


def test_an_agent_that_was_killed_is_told_with_what_it_was_doing_until_another_one_has_run(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01", upload_mbps=1.0))
    run = lab.new_run(files={"a.bin": b"x" * 2_000_000})
    with AgentProcess(lab) as agent:
        agent.until_up()
        lab.until_state(run, "running")
        agent.kill()
    said = lab.cli("problems", "--json")
    (gone,) = of_the_agent(said)
    assert (said.code, gone["code"], gone["tier"], gone["runs"]) == (3, "agent_gone", "needs_you", [])
    how = f"so it was killed or this PC went down; it was pushing {run}"
    assert re.fullmatch(
        rf"no agent is running: it has given no sign of life since {TIME}, {re.escape(how)}", gone["sentence"]
    )
    status = lab.cli("status")
    verdict, _, quiet, standing = status.out.splitlines()[:4]
    assert verdict == "1 problem needs you"
    assert re.fullmatch(r"1 run, 1\.9 MiB is only on this PC, the oldest for \d+ s", quiet)
    assert standing == gone["sentence"]
    assert "under way when the agent was last seen" in status.out
    assert lab.cli("scan").code == 0
    assert [one["code"] for one in of_the_agent(lab.cli("problems", "--json"))] == ["agent_gone"], "a scan is no agent"

    lab.settings["equipment"][0]["transport"].pop("bandwidth")
    lab.save_config()
    assert lab.cli("run", "--once", "--quiet").code == 0
    said = lab.cli("problems", "--json")
    assert (said.code, [one["code"] for one in of_the_agent(said)]) == (0, ["agent_stopped"])


def test_an_agent_that_does_not_move_is_the_first_problem_and_one_that_goes_on_is_none(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(files={"scan_<id>.dat": b"data"})
    with lab.running() as agent:
        lab.until_state(run, "blocked")
        assert of_the_agent(lab.cli("problems", "--json")) == []
        agent.process.send_signal(signal.SIGSTOP)
        try:
            assert of_the_agent(lab.cli("problems", "--json")) == [], "it has only just stopped"
            _let_two_minutes_pass(lab)
            said = lab.cli("problems", "--json")
            assert (said.code, said.json["problems"][0]["code"]) == (3, "agent_hanging")
            assert f"(pid {agent.pid}) has not moved for 3 min" in said.json["problems"][0]["sentence"]
            assert len(said.problems) == 1, "what it knew is told as well"
            assert "\nthe agent (pid " in lab.cli("status").out
        finally:
            agent.process.send_signal(signal.SIGCONT)


def _let_two_minutes_pass(lab: Lab) -> None:
    """Have the holder's file say what it would say by then; nobody waits two minutes in a test."""
    path = lab.state / "agent.json"
    said = json.loads(path.read_text())
    long_ago = datetime.now(UTC) - timedelta(minutes=3)
    path.write_text(json.dumps(said | {"at": long_ago.isoformat()}))


def test_an_agent_in_the_foreground_tells_what_needs_a_person_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    with lab.running() as agent:
        run = lab.new_run(files={"scan_<id>.dat": b"data"})
        until(lambda: f"NEEDS YOU  {run}: " in agent.said(), "it is told")
        save_in_place(run, read_creation(run) | {"validation_overrides": [override("unresolved_placeholder_token")]})
        until(lambda: f"OVER  {run}: " in agent.said(), "its end is told")
        assert agent.said().count("NEEDS YOU") == 1
        assert "exlab-watch-agent override add " in agent.said()


def test_a_nas_that_goes_away_while_nothing_is_to_be_done_is_told_and_so_is_its_return(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    run = lab.new_run()
    with lab.running():
        lab.until_state(run, "verified")
        until(lambda: lab.cli("problems").code == 0, "nothing needs a person")
        (lab.nas / "SCOPE_01").rename(lab.nas / "away")
        until(lambda: lab.live()["lanes"]["SCOPE_01"]["waiting_since"], "it is noticed")
        said = lab.cli("problems", "--json")
        assert (said.code, [one["code"] for one in said.problems]) == (3, ["nas_unreachable"])
        assert (said.problems[0]["equipment_id"], said.problems[0]["runs"]) == ("SCOPE_01", [])
        (lab.nas / "away").rename(lab.nas / "SCOPE_01")
        until(lambda: lab.cli("problems").code == 0, "it is back")


def test_the_heartbeat_says_what_needs_a_person_here_and_on_the_nas(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.new_run(files={"scan_<id>.dat": b"data"})
    assert lab.cli("run", "--once", "--quiet").code == 3
    here = json.loads((lab.state / "heartbeat.json").read_text())
    (there,) = (lab.nas / "SCOPE_01" / ".exlab-watch-agent").glob("*.json")
    for beat in (here, json.loads(there.read_text())):
        assert (beat["verdict"], beat["tier"], beat["agent_running"]) == ("1 problem needs you", "needs_you", False)
        assert beat["last_agent"]["stopped_in_order"] is True
        assert (beat["audit_seq"], beat["audit_blake3"]) == (beat["audit"]["seq"], beat["audit"]["blake3"])


def test_a_blocked_run_tells_what_blocks_it_now_and_not_what_was_overridden(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(files={"a:b.txt": b"1", "scan_<id>.dat": b"2"})
    with lab.running():
        lab.until_state(run, "blocked")
        (first,) = lab.cli("problems", "--json").problems
        assert lab.cli("override", "add", run.name, "--class", first["code"], "--reason", "no other name").code == 0
        until(lambda: _code(lab) != first["code"], "it speaks of the other one")
        after = _code(lab)
    (second,) = lab.cli("problems", "--json").problems
    assert after == second["code"] != first["code"], "without an agent, too"
    assert second["code"] in second["command"]
    assert lab.cli("show", run.name, "--json").json["why"] == second["sentence"]


def _code(lab: Lab) -> str:
    (problem,) = lab.cli("problems", "--json").problems
    return str(problem["code"])


def test_a_config_that_was_saved_since_the_agent_read_it_is_told_while_it_runs(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    with lab.running():
        assert lab.cli("problems").code == 0
        lab.settings["agent"]["rescan_minutes"] = 20
        lab.save_config()
        until(lambda: [one["code"] for one in lab.cli("problems", "--json").problems] == ["config_newer"], "it is told")
    assert lab.cli("problems", "--json").problems == []
