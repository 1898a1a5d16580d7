"""`forget`: what nobody can mend any more is told no longer; what can be mended is refused, and nothing is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import CACHE, Equipment, Lab, Said, put, until

Command = Callable[..., Said]
WHY = "removed on purpose, a dry run"
HIDDEN = "1 problem is listed with --all only from now on"


def told(said: Said) -> list[str]:
    return [one["code"] for one in said.problems if one["subject"] != "agent"]


def put_back(lab: Lab, run: Path, files: dict[str, bytes] | None = None) -> None:
    (run / CACHE).mkdir(parents=True)
    put(run, files or {})
    lab.write_creation(run)


@pytest.fixture
def gone(lab: Lab, on: Command) -> Path:
    """A run that was removed before it was complete, beside one that is synced."""
    run, _ = lab.new_run(files={}), lab.new_run()
    assert on("run", "--once", "--quiet").code == 0
    shutil.rmtree(run)
    assert on("run", "--once", "--quiet").code == 3
    return run


def test_a_run_that_was_removed_on_purpose_is_forgotten_and_stays_in_status_and_in_the_trail(
    lab: Lab, on: Command, gone: Path
) -> None:
    said = on("forget", gone.name, "--reason", WHY)
    assert (said.code, said.out, said.err) == (0, f"{gone}: {HIDDEN}\n", "")
    assert on("problems").code == 0
    assert told(on("problems", "--json")) == []
    assert told(on("problems", "--json", "--all")) == ["run_gone"]
    assert on("run", "--once", "--quiet").code == 0, "another agent knows it, too"
    assert "1 problem is dismissed or forgotten: exlab-watch-agent problems --all --config " in on("status").out
    assert on("status", "--json").json["counts"] == {"acquiring": 1, "verified": 1}
    assert f"not told     run_gone, as " in on("show", str(gone)).out  # noqa: F541
    (dismissed,) = on("show", str(gone), "--json").json["dismissed"]
    assert (dismissed["code"], dismissed["beyond_mending"]) == ("run_gone", True)
    (fact,) = [line for line in lab.trail() if line["kind"] == "problem_dismissed"]
    assert (fact["data"]["subject"], fact["data"]["reason"], fact["operator"]) == (str(gone), WHY, fact["data"]["by"])
    said = on("forget", gone.name, "--reason", WHY)
    assert (said.code, said.err) == (1, f"Nothing of {gone} is told any more.\n")
    lab.assert_chain_holds()


def test_a_run_that_was_forgotten_and_is_there_again_is_looked_after_and_told_of_when_it_is_gone_once_more(
    lab: Lab, on: Command, gone: Path
) -> None:
    put_back(lab, gone)
    said = on("forget", str(gone), "--reason", WHY)
    assert said.code == 1, "nothing is told of it, for it is here again"
    shutil.rmtree(gone)
    assert on("forget", str(gone), "--reason", WHY).code == 0
    put_back(lab, gone)
    assert on("run", "--once", "--quiet").code == 0
    shutil.rmtree(gone)
    assert on("run", "--once", "--quiet").code == 3
    assert told(on("problems", "--json")) == ["run_gone"]
    assert on("forget", str(gone), "--reason", WHY).code == 0
    assert on("problems").code == 0


def test_a_failed_run_that_was_removed_is_told_as_gone_and_forgotten(lab: Lab, on: Command) -> None:
    run, _ = lab.new_run(), lab.new_run()
    lab.settings["agent"]["retry_schedule"] = ["1s"]
    lab.save_config()
    obstacle = lab.copy_of(run)
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_text("a file where a folder must be")
    assert on("run", "--once", "--quiet").code == 3
    assert told(on("problems", "--json")) == ["nas_sync_failed"]
    said = on("forget", run.name, "--reason", WHY)
    assert said.code == 1
    assert said.err.startswith(f"nas_sync_failed of {run} can still be mended, and is not forgotten before that. -> ")
    assert f"exlab-watch-agent retry '{run}' --config " in said.err
    shutil.rmtree(run)
    assert on("run", "--once", "--quiet").code == 3
    assert told(on("problems", "--json")) == ["run_gone"]
    assert on("forget", run.name, "--reason", WHY).code == 0
    assert on("problems").code == 0
    assert lab.record(run)["state"] == "failed"


def test_a_lost_copy_of_a_removed_run_is_forgotten_and_its_incident_stays_on_record(lab: Lab, on: Command) -> None:
    run, _ = lab.new_run(), lab.new_run()
    on("run", "--once", "--quiet")
    shutil.rmtree(run)
    on("run", "--once", "--quiet")
    assert lab.record(run)["state"] == "cleaned"
    copy = next(path for path in lab.copy_of(run).iterdir() if path.is_file())
    right = copy.read_bytes()
    copy.write_bytes(bytes(len(right)))
    assert on("verify", run.name).code == 4
    claim = (lab.copy_of(run) / ".exlab-wizard" / "exlab-watch-agent.json").read_bytes()
    assert on("forget", run.name, "--reason", WHY).code == 0
    assert on("problems").code == 0
    assert on("verify", run.name).code == 0, "it was looked at again, and is as it was"
    assert told(on("problems", "--json", "--all")) == ["only_copy_lost"]
    (incident,) = on("show", run.name, "--json").json["incidents"]
    assert (incident["kind"], incident["healed_at"]) == ("copy_damaged", None)
    assert on("status", "--json").json["counts"] == {"cleaned": 1, "verified": 1}
    assert (lab.copy_of(run) / ".exlab-wizard" / "exlab-watch-agent.json").read_bytes() == claim

    copy.write_bytes(right)
    assert on("verify", run.name).code == 0
    copy.write_bytes(bytes(len(right)))
    assert on("verify", run.name).code == 4, "that is another loss"
    assert told(on("problems", "--json")) == ["only_copy_lost", "repaired"]


def test_an_instrument_that_is_no_longer_configured_is_forgotten_with_one_command(
    tmp_path: Path, command: Command
) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    on: Command = lambda *words: command(*words, "--config", str(lab.config))  # noqa: E731
    run = lab.new_run(equipment="SCOPE_02")
    lab.new_run()
    assert on("run", "--once", "--quiet").code == 0
    both = lab.settings["equipment"]
    lab.settings["equipment"] = both[:1]
    lab.save_config()
    assert on("problems").code == 3
    (found,) = [one for one in on("problems", "--json").problems if one["code"] == "equipment_unknown"]
    assert found["command"] == 'exlab-watch-agent forget SCOPE_02 --reason "..."'
    said = on("forget", "SCOPE_02", "--reason", WHY)
    assert (said.code, said.out) == (0, f"SCOPE_02: {HIDDEN}\n")
    assert on("problems").code == 0
    assert on("run", "--once", "--quiet").code == 0
    assert str(run) in on("status", "--all").out

    lab.settings["equipment"] = both
    lab.save_config()
    assert on("verify", run.name).code == 0
    lab.settings["equipment"] = both[:1]
    lab.save_config()
    assert on("problems").code == 3, "it was looked after in between: that it is not any more is news"


def test_a_running_agent_takes_it_and_what_is_wrong_is_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run, other = lab.new_run(files={}), lab.new_run()
    with lab.running():
        lab.until_state(run, "acquiring")
        lab.until_state(other, "verified")
        shutil.rmtree(run)
        assert lab.cli("scan").code == 0
        until(lambda: "run_gone" in told(lab.cli("problems", "--json")), "it is told as gone")
        said = lab.cli("forget", str(run), "--reason", WHY)
        assert (said.code, said.out) == (0, f"{run}: {HIDDEN}\n"), said.err
        assert told(lab.cli("problems", "--json")) == []
        (line,) = [
            fact for fact in lab.trail() if fact["kind"] == "operator_command" and fact["data"]["command"] == "forget"
        ]
        assert (line["data"]["subject"], line["data"]["reason"]) == (str(run), WHY)
        assert lab.cli("forget", other.name, "--reason", WHY).err.startswith("There is no problem of ")
        assert lab.cli("forget", str(run), "--reason", "short").code == 2
        put_back(lab, run, {"a.bin": b"1"})
        lab.until_state(run, "verified")
    lab.assert_whole(run)
