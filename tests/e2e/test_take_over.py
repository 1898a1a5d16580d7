"""`resolve RUN --take-over`: what others have at a destination makes room because an operator says so, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.core.commands import TakeOver
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.errors import FailureKind, TransportError
from tests.e2e.test_adoption import CLAIM, MANIFEST, age_the_seals, claim_of, data_there, fall_silent
from tests.e2e.test_left_there import as_exlab_wizard_ends, by_rclone, by_rsync, cut, flip
from tests.e2e.test_proof import FILES, another_agent, everything, superseded, triggers, zero
from tests.lab.lab import CACHE, Lab, put, read_creation, run_to_rest
from tests.lab.wrapped import Wrapped


@pytest.fixture
def first(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "first")


@pytest.fixture
def run(first: Lab) -> Path:
    return first.new_run(files=FILES)


def kind(lab: Lab, run: Path) -> str:
    record = lab.record(run)
    assert record["state"] == "conflict", lab.states(run)
    return str(record["last_error"]["kind"])


def lost(lab: Lab, before: dict[str, bytes]) -> list[str]:
    """Return the files whose content was at the NAS and is there no more, neither in its place nor aside."""
    there = {path.read_bytes() for path in (lab.nas / "SCOPE_01").rglob("*") if path.is_file()}
    return [name for name, data in before.items() if data not in there]


def test_data_of_nobody_known_make_room_and_what_is_equal_stays(first: Lab, run: Path) -> None:
    name, data = next(iter(FILES.items()))
    copy = first.copy_of(run)
    put(copy, {"of somebody else.bin": b"1", "d/x": b"2"})
    shutil.copy2(run / name, copy / name)
    kept = (copy / name).stat().st_ino
    before = everything(copy)
    assert first.cli("run", "--once").code == 3
    assert kind(first, run) == "destination_occupied"
    said = first.cli("resolve", str(run), "--take-over", "--reason", "left by a test of the NAS")
    assert said.code == 0, said
    assert "all else is moved aside there" in said.out
    assert triggers(first, run)[3:5] == ["taken_over", "push_started"]
    first.assert_whole(run)
    assert (copy / name).stat().st_ino == kept
    assert not (copy / "of somebody else.bin").exists()
    assert lost(first, before) == []
    move = next(m for m in first.cli("show", str(run), "--json").json["history"] if m["trigger"] == "taken_over")
    assert move["reason"] == "left by a test of the NAS"
    assert move["operator"]
    commands = [line for line in first.trail() if line["kind"] == "operator_command"]
    assert commands[-1]["data"] == {
        "command": "take_over",
        "job_id": first.record(run)["job_id"],
        "reason": "left by a test of the NAS",
    } | {name: commands[-1]["data"][name] for name in ("uid", "login") if name in commands[-1]["data"]}
    assert data == (copy / name).read_bytes()
    assert first.record(run).get("takes_over", "") == ""


@pytest.mark.parametrize("is_running", [False, True])
def test_a_sealed_copy_of_another_agent_is_taken_over_on_an_operators_word(
    first: Lab, run: Path, tmp_path: Path, is_running: bool
) -> None:
    assert first.cli("run", "--once").code == 0
    held, before = claim_of(first, run), everything(first.copy_of(run))
    other = another_agent(first, tmp_path / "other")
    (run / "a.bin").write_bytes(b"measured anew")
    (run / "b.bin").unlink()
    assert other.cli("run", "--once").code == 3
    assert kind(other, run) == "claimed_by_other_agent"
    assert everything(first.copy_of(run)) == before
    assert other.cli("resolve", str(run), "--use", "local").code == 1
    assert everything(first.copy_of(run)) == before
    if is_running:
        with other.running():
            assert other.cli("resolve", run.name, "--take-over").code == 0
            other.until_state(run, "verified")
    else:
        assert other.cli("resolve", run.name, "--take-over").code == 0
    other.assert_whole(run)
    assert not (first.copy_of(run) / "b.bin").exists()
    assert lost(first, before) == [], "manifest, creation.json and claim of the other one included"
    claim = claim_of(other, run)
    assert (claim["job_id"], claim["generation"]) == (other.record(run)["job_id"], 2)
    assert claim["former"] == [{name: held[name] for name in ("state_folder", "host", "job_id", "sealed_at")}]
    assert before[MANIFEST] in superseded(first).values()

    # The one that held it finds that out, and touches nothing.
    there = everything(first.copy_of(run))
    assert first.cli("verify", str(run)).code == 3
    assert first.cli("run", "--once").code == 3
    assert kind(first, run) == "claimed_by_other_agent"
    assert everything(first.copy_of(run)) == there
    # What is here is not what it had proven: that is for an operator to choose, before anybody gives way.
    assert first.cli("resolve", str(run), "--take-over").code == 1
    assert kind(first, run) == "local_files_missing"
    assert everything(first.copy_of(run)) == there
    (problem,) = first.cli("problems", "--json").problems
    assert problem["command"] == f"exlab-watch-agent resolve '{run}' --take-over"
    put(run, FILES)
    assert first.cli("resolve", str(run), "--take-over").code == 0
    first.assert_whole(run)
    assert lost(first, there) == []
    assert [one["job_id"] for one in claim_of(first, run)["former"]] == [held["job_id"], claim["job_id"]]


def here(run: Path) -> dict[str, bytes]:
    return {name: data for name, data in everything(run).items() if not name.startswith(CACHE)}


class StopsInTheMiddle(Wrapped):
    """A NAS that goes away once what is there was moved aside, or right before that."""

    at = "copy"

    def set_aside(self, *arguments: Any) -> Any:
        if StopsInTheMiddle.at == "set_aside":
            raise TransportError(FailureKind.NETWORK, "gone")
        return self._inner.set_aside(*arguments)

    def copy(self, *arguments: Any, **named: Any) -> Any:
        if StopsInTheMiddle.at == "copy":
            raise TransportError(FailureKind.NETWORK, "gone")
        return self._inner.copy(*arguments, **named)


@pytest.mark.parametrize("at", ["set_aside", "copy"])
def test_a_take_over_that_was_broken_off_goes_on_and_does_not_displace_whoever_came_meanwhile(
    first: Lab, run: Path, tmp_path: Path, at: str
) -> None:
    assert first.cli("run", "--once").code == 0
    before = everything(first.copy_of(run))
    (run / "a.bin").write_bytes(b"measured anew")
    other = another_agent(first, tmp_path / "other")
    assert other.cli("run", "--once").code == 3
    StopsInTheMiddle.at = at
    run_to_rest(other, wrapped=StopsInTheMiddle, command=TakeOver(Operator("asmith"), run_path=str(run)))
    assert other.record(run)["state"] == "queued"
    assert lost(first, before) == []
    # Its claim stands; the first agent's operator takes the folder back before it is sealed.
    assert first.cli("run", "--once").code in (0, 3)
    first.cli("verify", str(run))
    assert kind(first, run) in ("claimed_by_other_agent", "claimed_unsealed", "local_changed_after_sync")
    assert first.cli("resolve", str(run), "--take-over").code == 1
    assert kind(first, run) == "local_changed_after_sync"
    assert first.cli("resolve", str(run), "--use", "local").code == 1, "what it had proven is given up"
    assert kind(first, run) in ("claimed_by_other_agent", "claimed_unsealed")
    assert first.cli("resolve", str(run), "--take-over").code == 0, first.record(run)
    there = everything(first.copy_of(run))
    other.cli("retry", str(run))
    assert other.cli("run", "--once").code == 3
    assert kind(other, run) == "claimed_by_other_agent", "the word was for the one that was there then"
    assert everything(first.copy_of(run)) == there
    assert {name: there[name] for name in there if not name.startswith(CACHE)} == here(run)


def test_two_agents_with_one_copied_run_folder_stop_and_neither_moves_a_file_of_the_other(
    first: Lab, tmp_path: Path
) -> None:
    run = first.new_run(files=FILES)
    second = Lab(tmp_path / "second", is_bound=False)
    second.nas = first.nas
    second.settings["equipment"] = [one.to_config(second) for one in second.equipment]
    second.save_config()
    second.bind()
    copied = second.local / run.relative_to(first.local)
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run, copied)
    (copied / "a.bin").write_bytes(b"written there after the folder was copied")
    with first.running():
        first.until_state(run, "verified")
        before = everything(first.copy_of(run))
        with second.running():
            second.until_state(copied, "conflict")
            for lab, path in ((first, run), (second, copied)):
                lab.cli("verify", str(path))
                lab.cli("scan")
        first.until_state(run, "verified")
    assert kind(second, copied) == "claimed_by_other_agent"
    assert everything(first.copy_of(run)) == before
    assert superseded(first) == {}
    assert "a.bin" in everything(copied)


def test_a_word_that_waits_for_a_nas_that_is_away_is_not_for_who_came_meanwhile(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    assert first.cli("run", "--once").code == 0
    other = another_agent(first, tmp_path / "other")
    (run / "a.bin").write_bytes(b"measured anew")
    assert other.cli("run", "--once").code == 3
    assert kind(other, run) == "claimed_by_other_agent"
    away = first.nas.with_name("away")
    first.nas.rename(away)
    other.cli("resolve", str(run), "--take-over")
    assert other.record(run)["state"] == "queued"
    away.rename(first.nas)
    claim = claim_of(first, run) | {"job_id": "third", "state_folder": "f" * 32, "generation": 2}
    (first.copy_of(run) / CLAIM).write_text(json.dumps(claim))
    before = everything(first.copy_of(run))
    assert other.cli("run", "--once").code == 3
    assert kind(other, run) == "claimed_by_other_agent"
    assert everything(first.copy_of(run)) == before, "nobody said that this one is to give way"
    assert superseded(first) == {}
    (problem,) = other.cli("problems", "--json").problems
    assert "not held by the one that was to give way" in problem["sentence"]
    assert other.cli("resolve", str(run), "--take-over").code == 0
    other.assert_whole(run)
    assert [one["job_id"] for one in claim_of(other, run)["former"]] == ["third"]


def test_what_was_claimed_and_never_sealed_is_taken_over(first: Lab, run: Path, tmp_path: Path) -> None:
    assert first.cli("run", "--once").code == 0
    claim = claim_of(first, run)
    for name in ("manifest_sha256", "sealed_at"):
        claim.pop(name)
    (first.copy_of(run) / CLAIM).write_text(json.dumps(claim))
    creation = read_creation(first.copy_of(run)) | {"sync_status": "pending"}
    (first.copy_of(run) / CACHE / "creation.json").write_text(json.dumps(creation))
    before = data_there(first, run)
    other = another_agent(first, tmp_path / "other")
    assert other.cli("run", "--once").code == 3
    assert kind(other, run) == "claimed_unsealed"
    (problem,) = other.cli("problems", "--json").problems
    assert problem["command"] == f"exlab-watch-agent resolve '{run}' --take-over"
    assert other.cli("resolve", "SCOPE_01", "--take-over").code == 0
    other.assert_whole(run)
    assert data_there(first, run) == before, "what is equal was not copied anew"


def test_an_agent_whose_copy_was_adopted_while_it_was_silent_takes_it_over_again(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    assert first.cli("run", "--once").code == 0
    fall_silent(first)
    other = another_agent(first, tmp_path / "other")
    assert other.cli("run", "--once").code == 0
    age_the_seals(first)
    before = data_there(first, run)
    assert first.cli("verify", str(run)).code == 3
    assert kind(first, run) == "claimed_by_other_agent"
    assert first.cli("resolve", str(run), "--take-over").code == 0
    first.assert_whole(run)
    assert data_there(first, run) == before
    assert claim_of(first, run)["generation"] == 3


def test_it_is_refused_where_it_cannot_help(first: Lab, run: Path) -> None:
    assert first.cli("run", "--once").code == 0
    said = first.cli("resolve", str(run), "--take-over")
    assert (said.code, said.err) == (1, "The run is verified: there is no conflict to resolve.\n")
    zero(run / "a.bin")
    (run / "a.bin").write_bytes(b"longer than it was before, by far")
    assert first.cli("verify", str(run)).code == 3
    before = everything(first.copy_of(run))
    said = first.cli("resolve", str(run), "--take-over")
    assert said.code == 1
    assert said.err.startswith(
        "local_changed_after_sync: the copy is this agent's own, so there is nobody to take it over from: put the files back"
    )
    assert everything(first.copy_of(run)) == before


def test_several_runs_are_answered_for_one_by_one(first: Lab, run: Path) -> None:
    ours = first.new_run(files=FILES)
    put(first.copy_of(run), {"x": b"1"})
    assert first.cli("run", "--once").code == 3
    said = first.cli("resolve", str(run), str(ours), "--take-over")
    assert said.code == 1
    assert f"{run}: the destination is taken over" in said.out
    assert f"{ours}: The run is verified: there is no conflict to resolve." in said.err
    first.assert_whole(run)
    said = first.cli("resolve", "--all", "--take-over")
    assert (said.code, said.out) == (0, "no run is in conflict\n")


def test_the_copy_of_another_run_of_this_agent_is_not_taken_over(first: Lab) -> None:
    one = first.new_run("Run_2026-04-17T00-01", files=FILES)
    first.cli("run", "--once")
    one.rename(one.with_name("Run_2026-04-17T09-09"))
    first.cli("scan")
    two = first.new_run("Run_2026-04-17T00-01", files={"other.bin": b"other"}, created_at="2026-04-18T14:32:00Z")
    assert first.cli("run", "--once").code == 3
    assert kind(first, two) == "destination_occupied"
    before = everything(first.copy_of(two))
    said = first.cli("resolve", str(two), "--take-over")
    assert said.code == 1
    assert "another run of this agent has the destination" in said.err
    assert everything(first.copy_of(two)) == before


def test_a_first_seal_does_not_go_over_the_claim_of_an_agent_that_was_given_the_folder_meanwhile(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    class GivenAway(Wrapped):
        """Another agent's claim comes between the push and the seal."""

        def read_back(self, *arguments: Any, **named: Any) -> Any:
            claim = claim_of(first, run) | {"job_id": "other", "state_folder": "f" * 32, "generation": 2}
            (first.copy_of(run) / CLAIM).write_text(json.dumps(claim))
            return self._inner.read_back(*arguments, **named)

    run_to_rest(first, wrapped=GivenAway)
    assert kind(first, run) == "claimed_unsealed"
    assert claim_of(first, run)["job_id"] == "other"
    assert read_creation(run)["sync_status"] != "synced"


# --- places --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [by_rclone, by_rsync])
def test_who_takes_over_from_an_agent_that_is_gone_has_that_place_for_its_own(
    first: Lab, run: Path, tmp_path: Path, copied: Any
) -> None:
    copy = copied(run, first.nas / "SCOPE_01")
    as_exlab_wizard_ends(run)
    assert first.cli("run", "--once").code == 0
    first.assert_whole(run, copy)
    place, before = first.record(run)["destination"], everything(copy)
    assert place == copy.relative_to(first.nas / "SCOPE_01").as_posix(), "where ExLab-Wizard had left it"
    other = another_agent(first, tmp_path / "other")
    # Nobody has its state folder any more, as far as this one can see, and its last sign of life is young.
    assert other.cli("run", "--once").code == 3
    assert kind(other, run) == "claimed_by_other_agent"
    assert other.cli("resolve", str(run), "--take-over").code == 0
    record = other.record(run)
    assert (record["state"], record["destination"], record.get("footing", "own")) == ("verified", place, "own")
    other.assert_whole(run, copy)
    assert not other.copy_of(run).exists(), "it is kept where it is, and not copied to the layout's place"
    assert {name: data for name, data in everything(copy).items() if not name.startswith(CACHE)} == here(run)
    assert lost(other, before) == []
    ended = other.cli("run", "--once")
    assert (ended.code, triggers(other, run)[-1]) == (0, "sealed"), "and it stays so"


@pytest.mark.parametrize("copied", [by_rclone, by_rsync])
def test_what_exlab_wizard_left_needs_no_take_over(first: Lab, run: Path, copied: Any) -> None:
    copy = copied(run, first.nas / "SCOPE_01")
    put(copy, {"of somebody else": b"1"})
    assert first.cli("run", "--once").code == 3
    assert kind(first, run) == "destination_occupied"
    (copy / "of somebody else").unlink()
    inodes = {name: (copy / name).stat().st_ino for name in here(run)}
    assert first.cli("resolve", str(run), "--take-over").code == 0
    assert triggers(first, run)[-4:] == ["taken_over", "copy_adopted", "proven", "sealed"], (
        "by proof, as without a word"
    )
    first.assert_whole(run, copy)
    assert {name: (copy / name).stat().st_ino for name in here(run)} == inodes
    assert "former" not in claim_of_copy(copy) or claim_of_copy(copy)["former"] == []
    said = first.cli("resolve", str(run), "--take-over")
    assert (said.code, said.err) == (1, "The run is verified: there is no conflict to resolve.\n")


def claim_of_copy(copy: Path) -> dict[str, Any]:
    claim: dict[str, Any] = json.loads((copy / CLAIM).read_text())
    return claim


@pytest.mark.parametrize("copied", [by_rclone, by_rsync])
@pytest.mark.parametrize("harm", [flip, cut])
def test_what_exlab_wizard_left_and_is_not_what_is_here_makes_room_on_an_operators_word(
    first: Lab, tmp_path: Path, copied: Any, harm: Any
) -> None:
    run = first.new_run(files={"image.tif": bytes(range(256)) * 40, **FILES})
    copy = copied(run, first.nas / "SCOPE_01")
    harm(copy / "image.tif")
    before = everything(copy)
    inodes = {name: (copy / name).stat().st_ino for name in FILES}
    assert first.cli("run", "--once").code == 3
    assert kind(first, run) == "destination_occupied"
    assert everything(copy) == before
    assert first.cli("resolve", str(run), "--take-over").code == 0, triggers(first, run)
    assert first.record(run)["destination"] == copy.relative_to(first.nas / "SCOPE_01").as_posix()
    first.assert_whole(run, copy)
    assert {name: (copy / name).stat().st_ino for name in FILES} == inodes, "what was equal stayed"
    assert lost(first, before) == []


def test_a_copy_within_the_folder_that_is_taken_over_is_not_moved(tmp_path: Path) -> None:
    lab = Lab(tmp_path, layout="flat")
    one = lab.new_run(files=FILES, project="A")
    copy = by_rsync(one, lab.nas / "SCOPE_01")
    assert lab.cli("run", "--once").code == 0
    lab.assert_whole(one, copy)
    two = lab.new_run(one.name, files={"other.bin": b"other"}, project="B", created_at="2026-04-18T14:32:00Z")
    assert lab.cli("run", "--once").code == 3
    assert kind(lab, two) == "destination_occupied"
    put(copy.parent, {"of somebody else": b"1"})
    before = everything(copy)
    assert lab.cli("resolve", str(two), "--take-over").code == 0
    lab.assert_whole(one, copy)
    assert everything(copy) == before
    assert not (copy.parent / "of somebody else").exists()
    assert (copy.parent / "other.bin").read_bytes() == b"other"
    assert lab.record(two)["state"] == "verified"
