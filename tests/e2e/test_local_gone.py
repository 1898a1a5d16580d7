"""A run that somebody removed here: its copy is proven before it is called the only one, and looked at afterwards."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.core.commands import UseNasManifest
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.core.text import shell_word
from tests.lab.lab import Lab, put, read_creation, run_to_rest
from tests.lab.wrapped import Wrapped

FILES = {"a.bin": b"a" * 5000, "b.bin": b"b" * 5000, "sub/c.bin": b"c" * 5000}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path, retry_schedule=["1s", "1s"], is_quick=True)
    lab.settings["nas_cleanup"] = {"min_age_hours": 0}
    lab.save_config()
    return lab


def once(lab: Lab, *, code: int = 0) -> None:
    assert lab.cli("run", "--once", "--quiet").code == code


def synced(lab: Lab) -> Path:
    """Return a run that is synced, beside another one that stays."""
    run, _ = lab.new_run(files=FILES), lab.new_run(files=FILES)
    once(lab)
    assert lab.record(run)["state"] == "verified"
    return run


def told(lab: Lab) -> list[tuple[str, str]]:
    return [(one["tier"], one["code"]) for one in lab.cli("problems", "--json").problems]


def test_a_removed_run_is_cleaned_once_its_copy_was_hashed_and_nothing_is_made_again_here(lab: Lab) -> None:
    run = synced(lab)
    shutil.rmtree(run)
    once(lab)
    record = lab.record(run)
    assert (record["state"], record["passes"][-1]["local"]) == ("cleaned", "manifest")
    assert not run.exists()
    assert told(lab) == [("notice", "removed_by_others")]
    shown = lab.cli("show", run.name, "--json").json
    assert shown["history"][-1]["trigger"] == "local_gone"
    once(lab)
    assert lab.record(run)["state"] == "cleaned"


def test_a_removed_run_whose_copy_has_rotted_is_a_conflict_and_an_incident(lab: Lab) -> None:
    run = synced(lab)
    rotten = lab.copy_of(run) / "a.bin"
    rotten.write_bytes(bytes(5000))
    shutil.rmtree(run)
    once(lab, code=4)
    assert lab.record(run)["state"] == "conflict"
    assert told(lab) == [("risk", "only_copy_lost")]
    assert rotten.read_bytes() == bytes(5000)
    shown = lab.cli("show", run.name, "--json").json
    assert [one["kind"] for one in shown["incidents"]] == ["copy_damaged"]
    back = "put the run's data back here as they were, from the old NAS or from a backup"
    put_right = "or, once the copy on the NAS was put right, from a backup of it, have it proven as the only one"
    again = f"exlab-watch-agent resolve {shell_word(str(run))} --use"
    forgotten = (
        "or, if nobody has them any more, have the loss forgotten, then: "
        f'exlab-watch-agent forget {shell_word(str(run))} --reason "..."'
    )
    assert shown["ways_out"] == [
        f"{back}, then: {again} local",
        f"{put_right}, then: {again} nas-manifest",
        forgotten,
    ]
    before = sorted((run, copy) for run, copy in everything(lab).items())
    assert lab.cli("resolve", run.name, "--use", "nas-manifest").code == 1
    assert (lab.record(run)["state"], sorted(everything(lab).items())) == ("conflict", before), "it is not right yet"
    rotten.write_bytes(FILES["a.bin"])
    assert lab.cli("resolve", run.name, "--use", "nas-manifest", "--reason", "restored from a snapshot").code == 0
    record = lab.record(run)
    assert (record["state"], record["passes"][-1]["local"]) == ("cleaned", "manifest")
    assert ("risk", "only_copy_lost") not in told(lab)


def test_an_only_copy_that_rots_is_found_and_stays_visible(lab: Lab) -> None:
    run = synced(lab)
    shutil.rmtree(run)
    once(lab)
    (lab.copy_of(run) / "a.bin").write_bytes(bytes(5000))
    assert lab.cli("verify", run.name).code == 4
    assert lab.record(run)["state"] == "cleaned"
    assert told(lab) == [("risk", "only_copy_lost")]
    (lab.copy_of(run) / "a.bin").write_bytes(FILES["a.bin"])
    assert lab.cli("verify", run.name).code == 0
    (incident,) = lab.cli("show", run.name, "--json").json["incidents"]
    assert incident["healed_at"] is not None


def test_a_run_that_comes_back_is_proven_and_synced_again(lab: Lab) -> None:
    run = synced(lab)
    elsewhere = lab.home / "away"
    shutil.move(run, elsewhere)
    once(lab)
    assert lab.record(run)["state"] == "cleaned"
    shutil.move(elsewhere, run)
    once(lab)
    assert lab.record(run)["state"] == "verified", (lab.cli("show", run.name).out, lab.log())
    assert read_creation(run)["sync_status"] == "synced"
    assert "push_started" not in [move["trigger"] for move in lab.cli("show", run.name, "--json").json["history"][5:]]
    lab.assert_whole(run)


def test_where_only_the_cache_folder_comes_back_the_copy_stays_the_only_one_and_is_audited(lab: Lab) -> None:
    run = synced(lab)
    elsewhere = lab.home / "away"
    shutil.move(run, elsewhere)
    once(lab)
    shutil.copytree(elsewhere / ".exlab-wizard", run / ".exlab-wizard")
    once(lab)
    assert lab.record(run)["state"] == "cleaned", "nothing of its data is here, so that nothing is only here"
    assert read_creation(run)["sync_status"] == "cleaned"
    rotten = lab.copy_of(run) / "a.bin"
    rotten.write_bytes(bytes(5000))
    assert lab.cli("verify", run.name).code == 4
    assert told(lab) == [("risk", "only_copy_lost")]
    rotten.write_bytes(FILES["a.bin"])
    put(run, FILES)
    once(lab)
    assert lab.record(run)["state"] == "verified", lab.cli("show", run.name).out
    lab.assert_whole(run)


def test_a_run_that_comes_back_with_other_bytes_is_a_conflict_and_its_copy_stays(lab: Lab) -> None:
    run = synced(lab)
    elsewhere = lab.home / "away"
    shutil.move(run, elsewhere)
    once(lab)
    shutil.move(elsewhere, run)
    put(run, {"a.bin": b"A" * 5000})
    once(lab, code=3)
    assert (lab.record(run)["state"], lab.record(run)["last_error"]["kind"]) == ("conflict", "local_changed_after_sync")
    assert (lab.copy_of(run) / "a.bin").read_bytes() == FILES["a.bin"]


def test_some_files_that_are_gone_are_a_conflict_that_ends_when_they_are_put_back(lab: Lab) -> None:
    run = synced(lab)
    (run / "a.bin").unlink()
    assert lab.cli("verify", run.name).code == 3
    assert lab.record(run)["last_error"]["kind"] == "local_files_missing"
    said = lab.cli("resolve", run.name, "--use", "local")
    assert (said.code, "put the missing files back" in said.err) == (1, True)
    assert lab.record(run)["last_error"]["kind"] == "local_files_missing"
    shutil.copy2(lab.copy_of(run) / "a.bin", run / "a.bin")
    assert lab.cli("verify", run.name).code == 0
    assert lab.record(run)["state"] == "verified"


def test_a_run_that_was_renamed_is_not_gone(lab: Lab) -> None:
    run = synced(lab)
    renamed = run.with_name("Run_2026-05-05T05-05")
    run.rename(renamed)
    once(lab)
    assert lab.record(renamed)["state"] == "verified"


def test_of_a_folder_that_is_empty_or_not_there_nothing_is_concluded(lab: Lab) -> None:
    run = synced(lab)
    root = run.parents[2]
    aside = root.with_name("aside")
    root.rename(aside)
    once(lab, code=3)
    root.mkdir()
    once(lab, code=3)
    assert lab.record(run)["state"] == "verified"
    root.rmdir()
    aside.rename(root)
    once(lab)
    assert lab.record(run)["state"] == "verified"


@pytest.mark.parametrize("rots", ["before it is removed", "afterwards"])
def test_a_lost_only_copy_is_made_whole_by_the_command_that_is_told_once_the_data_are_back(lab: Lab, rots: str) -> None:
    run = synced(lab)
    elsewhere, rotten = lab.home / "away", lab.copy_of(run) / "a.bin"
    if rots == "before it is removed":
        rotten.write_bytes(bytes(5000))
        shutil.move(run, elsewhere)
        once(lab, code=4)
        said = lab.cli("resolve", run.name, "--use", "local")
        assert (said.code, "is not here" in said.err) == (1, True)
    else:
        shutil.move(run, elsewhere)
        once(lab)
        rotten.write_bytes(bytes(5000))
        assert lab.cli("verify", run.name).code == 4
        said = lab.cli("sync", run.name)
        assert (said.code, "the NAS has the only copy" in said.out) == (1, True)
    (problem,) = lab.cli("problems", "--json").problems
    shutil.move(elsewhere, run)
    program, *words = shlex.split(problem["command"])
    assert program == "exlab-watch-agent"
    assert lab.cli(*words).code == 0
    once(lab)
    assert lab.record(run)["state"] == "verified"
    assert told(lab) == [("notice", "repaired")]
    lab.assert_whole(run)
    assert (lab.copy_of(run) / "a.bin").read_bytes() == FILES["a.bin"]


def test_a_file_that_is_new_here_does_not_make_up_for_one_that_is_missing(lab: Lab) -> None:
    """A `Thumbs.db` made a conflict of another kind of it, in which the rest could be called the run."""
    run = synced(lab)
    (run / "a.bin").unlink()
    (run / "Thumbs.db").write_bytes(b"x")
    lab.cli("verify", run.name)
    assert lab.record(run)["last_error"]["kind"] == "local_files_missing"
    lab.cli("resolve", run.name, "--use", "local")
    assert lab.record(run)["state"] == "conflict"
    assert (lab.copy_of(run) / "a.bin").read_bytes() == FILES["a.bin"]


def everything(lab: Lab) -> dict[str, bytes]:
    """Every data file at the NAS."""
    found = {str(path): path.read_bytes() for path in lab.nas.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if "/.exlab" not in path}


def test_what_is_left_of_a_run_is_given_up_for_its_sealed_copy_only_once_it_was_moved_away(lab: Lab) -> None:
    run = synced(lab)
    (run / "a.bin").unlink()
    assert lab.cli("verify", run.name).code == 3
    assert lab.record(run)["last_error"]["kind"] == "local_files_missing"
    said = lab.cli("resolve", run.name, "--use", "nas-manifest")
    assert said.code == 1
    assert "2 data files of this run are left here (b.bin, sub/c.bin): move what is left away first" in said.err
    assert {path.name for path in run.rglob("*.bin")} == {"b.bin", "c.bin"}, "nothing is removed by it"
    assert lab.record(run)["state"] == "conflict"
    moved = lab.home / "moved away"
    moved.mkdir()
    shutil.move(run / "b.bin", moved)
    shutil.move(run / "sub", moved)
    before = everything(lab)
    with lab.running():
        assert lab.cli("resolve", run.name, "--use", "nas-manifest", "--reason", "the rest is archived").code == 0
        lab.until_state(run, "cleaned")
    assert everything(lab) == before
    record = lab.record(run)
    assert (record["passes"][-1]["local"], record.get("gone_at")) == ("manifest", None)
    move = lab.cli("show", run.name, "--json").json["history"][-1]
    assert (move["trigger"], move["reason"], bool(move["operator"])) == ("nas_chosen", "the rest is archived", True)
    assert read_creation(run)["sync_status"] == "cleaned"
    (lab.copy_of(run) / "a.bin").write_bytes(bytes(5000))
    assert lab.cli("verify", run.name).code == 4, "it is looked at as an only copy from now on"


def test_a_file_that_comes_back_while_the_copy_is_proven_keeps_the_conflict(lab: Lab) -> None:
    run = synced(lab)
    shutil.rmtree(run / "sub")
    lab.cli("verify", run.name)
    for path in run.glob("*.bin"):
        path.unlink()

    class ComesBack(Wrapped):
        def read_back(self, *arguments: Any, **named: Any) -> Any:
            put(run, {"a.bin": b"somebody is bringing it back"})
            return self._inner.read_back(*arguments, **named)

    run_to_rest(lab, wrapped=ComesBack, command=UseNasManifest(Operator("asmith"), run_path=str(run)))
    assert lab.record(run)["state"] == "conflict"
    assert (run / "a.bin").exists()
