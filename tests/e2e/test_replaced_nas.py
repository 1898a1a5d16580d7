"""A NAS that was replaced is accepted by one command; after that nothing counts that was proven at the old one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.state.recovery import load
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.core.record import Move
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState
from tests.lab.lab import CACHE, Equipment, Lab, read_creation, until

MARKER = ".exlab-watch-agent.json"
REASON = "the old NAS burned down"
REPLACE = ("bind", "SCOPE_01", "--replace", "--reason", REASON)


def root(lab: Lab) -> Path:
    return lab.nas / "SCOPE_01"


def replace_nas(lab: Lab, *, by: str = "an empty one", root_path: Path | None = None) -> Path:
    """Put another NAS in the place of the first; return where that one is kept."""
    here = root_path or root(lab)
    old = lab.home / "old nas"
    here.rename(old)
    if by == "one restored from a backup":
        shutil.copytree(old, here)
    else:
        here.mkdir()
    if by == "one of another agent":
        (here / MARKER).write_text(json.dumps({"schema": 1, "id": "e" * 32}))
    return old


def moves(lab: Lab, run: Path, trigger: str) -> list[dict[str, Any]]:
    return [fact for fact in lab.facts(run) if fact.get("move", {}).get("trigger") == trigger]


def synced_lab(tmp_path: Path, runs: int = 1) -> tuple[Lab, list[Path]]:
    lab = Lab(tmp_path)
    made = [lab.new_run() for _ in range(runs)]
    assert lab.cli("run", "--once", "--quiet").code == 0
    return lab, made


@pytest.mark.parametrize("by", ["an empty one", "one restored from a backup", "one of another agent"])
def test_all_runs_are_proven_or_pushed_anew_at_the_nas_that_takes_the_place(tmp_path: Path, by: str) -> None:
    lab, (run, other) = synced_lab(tmp_path, 2)
    old = replace_nas(lab, by=by)
    data = lab.copy_of(run) / "image.tif"
    if by == "one restored from a backup":
        before = os.stat(data).st_ino
        (lab.copy_of(other) / "image.tif").write_bytes(b"rotten in the backup")
    later = lab.new_run()
    if by != "one restored from a backup":  # of that one nobody can tell that it is another
        assert lab.cli("run", "--once", "--quiet").code == 3
        assert [lab.record(one)["state"] for one in (run, other, later)] == ["verified", "verified", "queued"]
    old_id = json.loads((old / MARKER).read_text())["id"]

    refused = lab.cli(*REPLACE, feed="n\n")
    assert (refused.code, "nothing was changed" in refused.err) == (1, True)
    assert "2 were proven there, and all have their data here" in refused.out
    assert f"takes the place of {root(lab)}" in refused.out
    assert lab.record(run)["verify_passes"] == 1

    said = lab.cli(*REPLACE, feed="y\n")
    assert (said.code, said.err) == (0, "")
    assert "2 runs will be proven there or pushed anew" in said.out
    new_id = json.loads((root(lab) / MARKER).read_text())["id"]
    bound = [fact for fact in lab.trail() if fact["kind"] == "destination_bound"][-1]
    assert (bound["data"]["replaces"], bound["data"]["marker_id"]) == (old_id, new_id)
    assert bound["data"]["reason"] == REASON
    assert bound["operator"] == bound["data"]["accepted_by"] != ""
    for one in (run, other):
        record = lab.record(one)
        assert (record["state"], record["verify_passes"], record.get("passes", [])) == ("queued", 0, [])
        assert read_creation(one)["sync_status"] == "pending", "nothing is called synced that is not proven"
        (moved,) = moves(lab, one, "destination_replaced")
        assert REASON in moved["move"]["reason"]
        assert moved["operator"] == bound["operator"]
    assert REASON in lab.cli("show", run.name).out

    assert lab.cli("run", "--once", "--quiet").code == 0
    for one in (run, other, later):
        assert lab.record(one)["verify_passes"] == 1
        lab.assert_whole(one)
    if by == "one restored from a backup":
        assert os.stat(data).st_ino == before, "what is there and equal is proven, not copied"
        (aside,) = root(lab).rglob(".exlab-superseded/**/image.tif")
        assert aside.read_bytes() == b"rotten in the backup"
    lab.assert_chain_holds()


def test_the_sentence_of_a_lane_at_another_marker_is_the_command_that_helps(tmp_path: Path) -> None:
    lab, (run,) = synced_lab(tmp_path)
    replace_nas(lab, by="one of another agent")
    assert lab.cli("run", "--once", "--quiet").code == 3
    (problem,) = lab.cli("problems", "--json").problems
    command = 'exlab-watch-agent bind SCOPE_01 --replace --reason "..."'
    assert problem["code"] == "nas_unreachable"
    assert "NAS unreachable since" in problem["sentence"]
    assert f"`{command}`" in problem["sentence"]
    assert problem["command"].startswith(command)
    assert command in lab.cli("check").out
    words = shlex.split(command.replace('"..."', shlex.quote(REASON)))
    assert lab.cli(*words[1:], "--yes").code == 0
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)


def test_another_path_in_the_config_is_accepted_by_the_same_command(tmp_path: Path) -> None:
    lab, (run,) = synced_lab(tmp_path)
    new = tmp_path / "new nas"
    new.mkdir()
    lab.settings["equipment"][0]["transport"]["path"] = str(new)
    lab.save_config()
    said = lab.cli(*REPLACE, "--yes")
    assert (said.code, said.err) == (0, "")
    assert f"{new} takes the place of {root(lab)}" in said.out
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run, new / run.relative_to(lab.local / "SCOPE_01"))
    lab.settings["equipment"][0]["transport"]["path"] = str(root(lab))
    lab.save_config()
    assert lab.cli("run", "--once", "--quiet").code == 3, "the place that was given up is no destination by itself"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("left", ["nothing", "the cache folder"])
def test_a_run_whose_only_copy_was_at_the_old_place_is_told_as_a_risk_where_it_is_not_at_the_new_one(
    tmp_path: Path, there: bool, left: str
) -> None:
    lab, (run, kept) = synced_lab(tmp_path, 2)
    replace_nas(lab, by="one restored from a backup" if there else "an empty one")
    if left == "nothing":
        shutil.rmtree(run)
    else:
        (run / "image.tif").unlink()
    said = lab.cli(*REPLACE, "--yes")
    assert "1 run of them not whole here" in said.out
    assert lab.record(run)["state"] == "verified", "nothing is there that could be pushed"
    assert lab.record(run)["verify_passes"] == 0
    lost = [one for one in lab.cli("problems", "--json").problems if one["code"] == "only_copy_lost"]
    assert bool(lost) is not there
    is_removed = there and left == "nothing"
    assert lab.cli("run", "--once", "--quiet").code == (0 if is_removed else 3 if there else 4)
    told = {one["code"]: one for one in lab.cli("problems", "--json").problems if str(run) in one["runs"]}
    assert ("only_copy_lost" in told) is not there, told
    if there:  # without a folder, two scans and a proven copy say that it was removed; with one, that files are missing
        assert list(told) == ["removed_by_others" if is_removed else "local_files_missing"]
        return
    problem = told["only_copy_lost"]
    assert problem["tier"] == "risk"
    assert "put the run's data back here" in problem["sentence"]
    assert lab.record(run)["state"] == "conflict"
    lab.assert_whole(kept)


def test_a_sealed_copy_that_is_back_is_not_put_aside_for_local_data_that_changed(tmp_path: Path) -> None:
    lab, (run,) = synced_lab(tmp_path)
    replace_nas(lab, by="one restored from a backup")
    (run / "image.tif").write_bytes(b"changed after the seal")
    before = (lab.copy_of(run) / "image.tif").read_bytes()
    lab.cli("verify", run.name)
    assert lab.record(run)["state"] == "conflict"
    assert lab.cli(*REPLACE, "--yes").code == 0
    lab.cli("run", "--once", "--quiet")
    assert lab.record(run)["state"] == "conflict"
    assert lab.record(run)["verify_passes"] == 0
    assert (lab.copy_of(run) / "image.tif").read_bytes() == before
    assert not (root(lab) / ".exlab-superseded").exists()


def test_a_running_agent_lets_its_work_end_first_and_starts_none_meanwhile(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8.0))
    first = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    with lab.running():
        second = lab.new_run(files={"image.tif": os.urandom(3_000_000)})
        third = lab.new_run()
        lab.until_state(second, "running")
        said = lab.cli(*REPLACE, "--yes")  # the same root: restored from a backup, as far as the agent can know
        assert said.code == 0, said.err
        waits = lab.live()["lanes"]["SCOPE_01"]
        assert waits["waiting_kind"] == "destination_replacing" or lab.record(second)["state"] != "running"
        until(lambda: lab.record(first)["state"] == "verified" and moves(lab, first, "destination_replaced"), "anew")
        for run in (first, second, third):
            lab.until_state(run, "verified")
    kinds = [fact.get("move", {}).get("trigger") or fact["kind"] for fact in lab.trail()]
    taken = kinds.index("operator_command")
    accepted = len(kinds) - 1 - kinds[::-1].index("destination_bound")
    assert "push_started" not in kinds[taken:accepted]
    assert "pushed" in kinds[taken:accepted], "the push that was under way came to its end"
    for run in (first, second, third):
        lab.assert_whole(run)


def test_nothing_is_replaced_while_a_run_is_cleaned_up(tmp_path: Path) -> None:
    lab, (run,) = synced_lab(tmp_path)
    (record,) = load(lab.state).documents.records()
    store = RunStore(lab.state)
    store.open()
    try:
        cleaning = replace(record, state=RunState.CLEANING, turn=record.turn + 1)
        move = Move(store._now(), "interlocks_held", record.state, RunState.CLEANING, "for a test")
        store.commit([Entry("transition", cleaning, move)], at=store._now())
    finally:
        store.close()
    said = lab.cli(*REPLACE, "--yes")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "is being cleaned up" in said.err
    assert lab.record(run)["verify_passes"] == 1


def test_nothing_is_replaced_while_nobody_can_tell_which_runs_have_data_here(tmp_path: Path) -> None:
    lab, (run,) = synced_lab(tmp_path)
    (lab.local / "SCOPE_01").rename(tmp_path / "disk that is away")
    said = lab.cli(*REPLACE, "--yes")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "was not replaced" in said.err
    (tmp_path / "disk that is away").rename(lab.local / "SCOPE_01")
    assert lab.record(run)["verify_passes"] == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--replace",), 2, "10 to 500 characters"),
        (("--replace", "--reason", "too short"), 2, "10 to 500 characters"),
        (("--replace", "--reason", "x" * 501), 2, "10 to 500 characters"),
        (("--reason", REASON), 2, "--reason goes with --replace"),
        (("--replace", "--reason", REASON, "--yes"), 1, "nothing was bound yet"),
    ],
)
def test_what_is_no_replacement_is_said_in_one_sentence(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    lab = Lab(tmp_path, is_bound=False)
    answer = lab.cli("bind", "SCOPE_01", *words)
    assert (answer.code, answer.err.count("\n")) == (code, 1)
    assert said in answer.err
    assert list(root(lab).iterdir()) == []


def test_the_cache_folder_alone_is_no_data(tmp_path: Path) -> None:
    lab, (run,) = synced_lab(tmp_path)
    assert (run / CACHE).is_dir()
    (run / "image.tif").unlink()
    said = lab.cli(*REPLACE, feed="n\n")
    assert "1 run of them not whole here" in said.out


def test_a_run_of_which_a_part_is_gone_here_has_its_only_whole_copy_at_the_old_place(tmp_path: Path) -> None:
    """A file that is left, or an empty folder, used to count as its data: the last copy was given up without a word."""
    lab = Lab(tmp_path)
    run = lab.new_run(files={"a/big.tif": b"A" * 5000, "b/big.tif": b"B" * 5000})
    assert lab.cli("run", "--once", "--quiet").code == 0
    (run / "a/big.tif").unlink()
    replace_nas(lab)
    said = lab.cli(*REPLACE, "--yes")
    assert "1 run of them not whole here" in said.out
    found = lab.cli("problems", "--json")
    assert found.code == 4
    assert "only_copy_lost" in [one["code"] for one in found.problems]
    assert not lab.copy_of(run).exists()
