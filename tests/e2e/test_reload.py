"""A config that changes under a running agent: what is taken in by itself, what waits for a word, and that nothing is lost."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import AgentProcess, Equipment, Lab, until


def told(lab: Lab) -> list[str]:
    return [one["code"] for one in lab.cli("problems", "--json").problems]


def noticed(lab: Lab) -> str | None:
    """Return the code of what the running agent says of its config, as the live view has it: quicker to ask than a command."""
    news = lab.live().get("config_news")
    return news["code"] if news else None


def taken(lab: Lab) -> list[dict[str, Any]]:
    """Return what the trail says of other configs, each with who gave the command."""
    return [line for line in lab.trail() if line["kind"] == "config_changed"]


def add(lab: Lab, equipment: Equipment) -> None:
    """Put another instrument into the config, with its folders."""
    lab.equipment.append(equipment)
    (lab.local / equipment.id).mkdir(parents=True)
    equipment.root(lab).mkdir(parents=True)
    lab.settings["equipment"].append(equipment.to_config(lab))
    lab.save_config()


def until_taken(lab: Lab, number: int = 1) -> dict[str, Any]:
    """Wait for the next agent: from then on it sees what happens. Return what the trail says of the config."""
    until(lambda: len(taken(lab)) >= number, "another config is taken in")
    until(lambda: set(lab.live().get("lanes", {})) == {one["id"] for one in lab.settings["equipment"]}, "its lanes")
    return dict(taken(lab)[number - 1]["data"])


def test_an_instrument_that_is_added_is_looked_after_without_a_word_and_so_are_the_others(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    first = lab.new_run()
    with lab.running() as agent:
        lab.until_state(first, "verified")
        add(lab, Equipment("SCOPE_02"))
        said = until_taken(lab)
        assert (said["because"], said["total"]) == ("by_itself", 1)
        assert said["changes"] == [f"SCOPE_02 is new, to mounted_path {lab.nas / 'SCOPE_02'}"]
        assert lab.cli("bind", "--all", "--yes").code == 0
        other, again = lab.new_run(equipment="SCOPE_02"), lab.new_run()
        for run in (other, again):
            lab.until_state(run, "verified")
            lab.assert_whole(run)
        assert agent.process.poll() is None
        assert "another config is taken in (by itself), 1 change:" in agent.said()
        assert told(lab) == []
    lab.assert_chain_holds()


def test_what_may_not_be_taken_in_by_itself_waits_for_reload_which_says_what_changed(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    assert lab.cli("reload").err.startswith("No agent is running with the state folder ")
    with lab.running():
        assert lab.cli("reload").out == "the config says what is in force: nothing has changed\n"
        lab.settings["nas_cleanup"] = {"enabled": True}
        lab.settings["logging"] = {"level": "DEBUG"}
        lab.save_config()
        until(lambda: noticed(lab) == "config_newer", "it is told")
        (one,) = lab.cli("problems", "--json").problems
        what = "nas_cleanup.enabled: false -> true (looser); logging.level: INFO -> DEBUG"
        assert one["sentence"] == f"the config was changed, which waits for `reload`: {what}"
        assert one["command"] == "exlab-watch-agent reload"
        assert taken(lab) == []
        said = lab.cli("reload")
        assert (said.code, said.out.splitlines()) == (
            0,
            [
                "another config is taken in (`reload` asked for it), 2 changes:",
                "nas_cleanup.enabled: false -> true (looser)",
                "logging.level: INFO -> DEBUG",
            ],
        )
        until(lambda: noticed(lab) is None, "it is in force")
        run = lab.new_run()
        lab.until_state(run, "verified")
    assert "nas_cleanup.enabled: false -> true" in lab.cli("audit", "log", "--kind", "config_changed").out
    (line,) = taken(lab)
    asked = [one for one in lab.trail() if one["kind"] == "operator_command" and one["data"]["command"] == "reload"]
    assert len(asked) == 2, "the one that changed nothing, too"
    assert line["operator"] == asked[-1]["operator"] != ""
    lab.assert_chain_holds()


def test_with_mistakes_the_config_before_stays_in_force_and_they_are_shown(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    with lab.running() as agent:
        lab.settings["agent"]["setle_seconds"] = 3
        lab.save_config()
        until(lambda: "NEEDS YOU  agent: the config was saved with mistakes" in agent.said(), "it is told")
        assert "setle_seconds" in agent.said()
        for words in (["reload"], ["reload", "--state-dir", str(lab.state)], ["status"], ["problems"]):
            said = lab.cli(*words)
            assert (said.code, "agent.setle_seconds" in said.err) == (2, True), words
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: "The config cannot be taken in, and the one before it stays:" in agent.said(), "a signal, too")
        run = lab.new_run()
        lab.until_state(run, "verified")
        assert taken(lab) == []
        lab.settings["agent"].pop("setle_seconds")
        lab.save_config()
        until(lambda: "OVER  agent: the config was saved with mistakes" in agent.said(), "it is over")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_sighup_takes_the_config_in_and_ends_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    with lab.running() as agent:
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: "the config says what is in force: nothing has changed" in agent.said(), "it is heard")
        lab.settings["agent"]["rescan_minutes"] = 20
        lab.save_config()
        agent.process.send_signal(signal.SIGHUP)
        until_taken(lab)
        (line,) = taken(lab)
        assert (line["data"]["because"], line.get("operator")) == ("signal", None)
        run = lab.new_run()
        lab.until_state(run, "verified")
        assert told(lab) == []


def test_a_destination_that_became_another_place_is_asked_for_after_the_reload(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    first = lab.new_run()
    with lab.running():
        lab.until_state(first, "verified")
        lab.equipment = [Equipment("SCOPE_01", nas="elsewhere")]
        lab.equipment[0].root(lab).mkdir()
        lab.settings["equipment"] = [lab.equipment[0].to_config(lab)]
        lab.save_config()
        until(lambda: noticed(lab) == "config_newer", "it waits")
        second = lab.new_run()
        lab.until_state(second, "verified")
        assert (lab.nas / "SCOPE_01").joinpath(*second.relative_to(lab.local).parts[1:]).is_dir(), "the old place"
        assert lab.cli("reload").code == 0
        until_taken(lab)
        third = lab.new_run()
        lab.until_lane_waits("SCOPE_01")
        assert told(lab) == ["destination_unbound"], "the new place is asked for"
        lab.until_state(third, "queued")
        assert lab.cli("bind", "SCOPE_01", "--replace", "--reason", "the new server", "--yes").code == 0
        for run in (first, second, third):
            until(lab.copy_of(run).is_dir, f"{run.name} is copied")
            lab.until_state(run, "verified")
            lab.assert_whole(run)
    lab.assert_chain_holds()


def test_an_instrument_that_is_taken_out_waits_for_reload_and_its_runs_are_told_once(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02", upload_mbps=1.0), is_quick=True)
    kept, gone = lab.new_run(), lab.new_run(equipment="SCOPE_02", files={"a.bin": b"x" * 3_000_000})
    with lab.running():
        lab.until_state(kept, "verified")
        lab.until_state(gone, "running")
        lab.settings["equipment"].pop()
        lab.save_config()
        until(lambda: noticed(lab) == "config_newer", "it waits")
        assert lab.cli("reload").code == 0
        until_taken(lab)
        until(lambda: told(lab) == ["equipment_unknown"], "its run is told")
        more = lab.new_run()
        lab.until_state(more, "verified")
        assert lab.record(gone)["state"] == "running", "it rests where it was"
        lab.settings["equipment"].append(lab.equipment[1].to_config(lab))
        lab.settings["equipment"][1]["transport"].pop("bandwidth")
        lab.save_config()
        until_taken(lab, 2)
        lab.until_state(gone, "verified")
        lab.assert_whole(gone)


def test_what_is_taken_in_by_itself_waits_for_a_push_and_a_person_does_not(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01", upload_mbps=2.0), is_quick=True)
    run = lab.new_run(files={f"{number}.bin": bytes([number]) * 300_000 for number in range(6)})
    with lab.running() as agent:
        lab.until_state(run, "running")
        add(lab, Equipment("SCOPE_02"))
        until(lambda: noticed(lab) == "config_pending", "it is noticed")
        assert (taken(lab), lab.record(run)["state"]) == ([], "running")
        assert lab.cli("reload").code == 0
        until_taken(lab)
        lab.until_state(run, "verified", wait_s=40)
        lab.assert_whole(run)
        assert lab.states(run).count("running") == 1, "it went on"
        assert agent.process.poll() is None
        assert lab.debris() == []


@pytest.mark.parametrize("lines", [0, 1])
def test_a_kill_right_at_a_reload_under_a_push_loses_nothing(tmp_path: Path, lines: int) -> None:
    """Killed when the reload is given, and when it is in the trail; the next start goes on from there with the config as it is."""
    lab = Lab(tmp_path, Equipment("SCOPE_01", upload_mbps=2.0), is_quick=True)
    run = lab.new_run(files={f"{number}.bin": bytes([number]) * 400_000 for number in range(6)})
    with AgentProcess(lab) as agent:
        agent.until_up()
        lab.until_state(run, "running")
        lab.settings["equipment"][0]["transport"].pop("bandwidth")
        lab.settings["agent"]["rescan_minutes"] = 20
        lab.save_config()
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: len(taken(lab)) >= lines, "so far")
        agent.kill()
    lab.assert_chain_holds_but_for_a_torn_end()
    with lab.running():
        lab.until_state(run, "verified")
        lab.assert_whole(run)
    lab.assert_chain_holds()
    assert lab.debris() == []


def test_reload_after_reload_is_one_process_with_one_lock_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    with lab.running() as agent:
        threads = files = 0
        for number in range(5):
            lab.settings["agent"]["rescan_minutes"] = 20 + number
            lab.save_config()
            agent.process.send_signal(signal.SIGHUP)
            until_taken(lab, number + 1)
            agent.until_up()
            run = lab.new_run()
            lab.until_state(run, "verified")
            proc = Path(f"/proc/{agent.pid}")
            if number == 1:
                threads, files = len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))
        second = lab.cli("run", "--once")
        assert (second.code, "Another agent works in" in second.err) == (1, True)
        assert len(list((proc / "task").iterdir())) <= threads + 3
        assert len(list((proc / "fd").iterdir())) <= files + 3


def test_a_config_that_loses_its_last_instrument_is_no_end_and_the_next_one_is_taken_in(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True)
    with lab.running() as agent:
        entries, lab.settings["equipment"] = lab.settings["equipment"], []
        lab.save_config()
        until(
            lambda: told(lab) == ["config_newer", "no_equipment"] or told(lab) == ["no_equipment", "config_newer"],
            "told",
        )
        assert lab.cli("reload").code == 0
        until_taken(lab)
        assert told(lab) == ["no_equipment"]
        lab.settings["equipment"] = entries
        lab.save_config()
        until_taken(lab, 2)
        run = lab.new_run()
        lab.until_state(run, "verified")
        assert agent.process.poll() is None


def test_bind_is_not_said_of_a_place_that_the_running_agent_does_not_know_yet(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_quick=True, is_bound=False)
    with lab.running():
        lab.settings["equipment"] = [Equipment("SCOPE_01", nas="elsewhere").to_config(lab)]
        (lab.nas / "elsewhere").mkdir()
        lab.save_config()
        said = lab.cli("bind", "--all", "--yes")
        assert said.code == 1
        assert "`exlab-watch-agent reload`" in said.err
        assert not [line for line in lab.trail() if line["kind"] == "destination_bound"]
        assert lab.cli("reload").code == 0
        until_taken(lab)
        assert lab.cli("bind", "--all", "--yes").code == 0
    shutil.rmtree(lab.nas / "SCOPE_01")
