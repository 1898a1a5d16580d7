"""Damage to the state folder as a person meets it: one sentence, one command, and nothing is decided for him."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab, until

COMMAND = "exlab-watch-agent resolve --accept-trail"


def change_a_line(trail: Path) -> None:
    data = trail.read_bytes()
    trail.write_bytes(data.replace(b"acquiring", b"acquirinG", 1))


def agent_of(lab: Lab) -> dict[str, Any]:
    return dict(lab.cli("status", "--json").json["agent"])


def first_problem(lab: Lab) -> dict[str, Any]:
    said = lab.cli("problems", "--json")
    assert said.code in (3, 4)
    return dict(said.problems[0])


@pytest.fixture
def damaged(tmp_path: Path) -> Lab:
    """A lab whose agent has found that its trail was changed; a failed run would be listed first otherwise."""
    lab = Lab(tmp_path)
    lab.new_run()
    lab.new_run(files={"<id>": b""})
    lab.cli("run", "--once", "--quiet")
    change_a_line(lab.state / "audit.jsonl")
    for slot in lab.state.glob("state.*"):
        slot.unlink()  # so that the whole trail is read
    lab.cli("run", "--once", "--quiet")
    return lab


def accept_without_an_agent(lab: Lab) -> None:
    said = lab.cli("resolve", "--accept-trail", "--reason", "the disk was replaced")
    assert (said.code, said.err) == (0, ""), said
    assert "the state as it is now counts" in said.out


def accept_with_a_running_agent(lab: Lab) -> None:
    with lab.running():
        assert agent_of(lab)["hold"]
        heartbeat = lab.state / "heartbeat.json"
        until(lambda: json.loads(heartbeat.read_text())["hold"], "the heartbeat says it")
        accept_without_an_agent(lab)
        assert agent_of(lab) | {"pid": 0} == agent_of(lab) | {"pid": 0, "running": True, "hold": None}


@pytest.mark.parametrize("accept", [accept_without_an_agent, accept_with_a_running_agent])
def test_a_hold_is_listed_first_with_the_command_that_ends_it(damaged: Lab, accept: Callable[[Lab], None]) -> None:
    hold = agent_of(damaged)["hold"]
    assert hold
    problem = first_problem(damaged)
    assert (problem["code"], problem["tier"], problem["command"]) == ("deletion_on_hold", "risk", COMMAND)
    assert problem["sentence"] == f"nothing is deleted: {hold}"
    assert hold in damaged.cli("status").out
    assert COMMAND in damaged.cli("status").out

    accept(damaged)
    assert agent_of(damaged)["hold"] is None
    assert first_problem(damaged)["code"] != "deletion_on_hold"
    accepted = [fact for fact in damaged.trail() if fact["kind"] == "trail_accepted"]
    assert [fact["data"]["reason"] for fact in accepted] == ["the disk was replaced"]
    assert accepted[0]["operator"]
    again = damaged.cli("resolve", "--accept-trail")
    assert (again.code, again.out) == (1, "")
    assert again.err == "Nothing is on hold: there is no damage that would have to be accepted.\n"
    # The hold does not come back by itself.
    damaged.cli("run", "--once", "--quiet")
    assert agent_of(damaged)["hold"] is None


def test_a_state_folder_that_others_may_write_in_is_refused_in_one_sentence(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_bound=False)
    lab.state.mkdir()
    lab.state.chmod(0o777)
    for words in (["run"], ["run", "--once"], ["check"]):
        said = lab.cli(*words)
        assert said.code == 1
        assert f"chmod 700 {lab.state}" in said.err + said.out
    assert list(lab.state.iterdir()) == []
    lab.state.chmod(0o700)
    lab.bind()
    assert lab.cli("run", "--once").code == 0


def test_every_file_of_a_state_folder_is_the_user_s_alone(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with lab.running():
        lab.until_state(lab.new_run(), "verified")
        lab.cli("verify", lab.trail()[-1]["record"]["job_id"])
        # An empty lock has nothing to hide, and the folder above is private.
        found = [path for path in lab.state.rglob("*") if path.is_dir() or path.stat().st_size]
        open_to_others = [path for path in found if path.lstat().st_mode & 0o077]
    assert found
    assert open_to_others == []
