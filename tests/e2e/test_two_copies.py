"""Where the local data and the NAS copy differ, or two runs want one place: what is healed, and what waits for a person."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.lab.lab import CACHE, Lab, hashes, read_creation


def superseded(lab: Lab) -> dict[str, bytes]:
    root = lab.nas / "SCOPE_01" / ".exlab-superseded"
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def sealed_run(lab: Lab) -> Path:
    run = lab.new_run(files={"a.bin": b"a" * 5000, "b.bin": b"b" * 5000})
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)
    return run


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.mark.parametrize("damage", [b"X" * 5000, b"a" * 4000, None], ids=["other", "short", "missing"])
def test_damage_on_the_nas_is_found_by_verify_healed_and_kept_as_evidence(lab: Lab, damage: bytes | None) -> None:
    run = sealed_run(lab)
    victim = lab.copy_of(run) / "a.bin"
    status = victim.stat()
    if damage is None:
        victim.unlink()
    else:
        victim.write_bytes(damage)
        os.utime(victim, ns=(status.st_mtime_ns, status.st_mtime_ns))
    said = lab.cli("verify", run.name)
    assert said.code == 0, said.err
    assert "another verify pass was started" in said.out
    assert f"{run}: damage was found: 1 file " in said.out
    assert f"{run}: verified: " in said.out
    assert lab.states(run)[7:] == [
        "auditing",
        "queued",
        "running",
        "prechecking",
        "awaiting_verify",
        "sealing",
        "verified",
    ]
    lab.assert_whole(run)
    assert superseded(lab) == ({} if damage is None else {"a.bin": damage})
    assert lab.debris() == []
    assert lab.cli("problems").code == 0
    found = [fact["move"]["reason"] for fact in lab.facts(run) if fact.get("move", {}).get("trigger") == "copy_damaged"]
    assert len(found) == 1
    assert "a.bin" in found[0]


def test_a_local_change_after_the_seal_is_a_conflict_that_nobody_but_a_person_resolves(lab: Lab) -> None:
    run = sealed_run(lab)
    before = hashes(lab.copy_of(run))
    (run / "a.bin").write_bytes(b"A new truth")
    said = lab.cli("verify", str(run))
    assert said.code == 3
    record = lab.record(run)
    assert (record["state"], record["last_error"]["kind"]) == ("conflict", "local_changed_after_sync")
    assert hashes(lab.copy_of(run)) == before
    assert read_creation(run)["sync_status"] == "failed"
    assert lab.cli("run", "--once").code == 3
    problems = lab.cli("problems", "--json")
    (problem,) = problems.problems
    assert problems.code == 3
    assert (problem["code"], problem["tier"]) == ("local_changed_after_sync", "needs_you")
    assert "a.bin" in problem["sentence"]
    assert problem["sentence"].endswith("put the files back here as they were, from the copy on the NAS")
    assert problem["command"] == f"exlab-watch-agent verify '{run}'"

    assert lab.cli("resolve", str(run), "--use", "nas").code == 2
    resolved = lab.cli("resolve", str(run), "--use", "local", "--reason", "it was mended by hand")
    assert resolved.code == 0, resolved.err
    assert lab.record(run)["state"] == "verified"
    lab.assert_whole(run)
    assert superseded(lab) == {"a.bin": b"a" * 5000}
    chosen = next(
        one for one in lab.cli("show", run.name, "--json").json["history"] if one["trigger"] == "local_chosen"
    )
    assert chosen["reason"] == "it was mended by hand"
    assert chosen["operator"]
    assert lab.cli("problems").code == 0


def test_a_difference_that_went_away_again_needs_no_resolving(lab: Lab) -> None:
    run = sealed_run(lab)
    shutil.copytree(run, lab.home / "backup")
    (run / "a.bin").write_bytes(b"an accident")
    assert lab.cli("verify", run.name).code == 3
    shutil.copy2(lab.home / "backup" / "a.bin", run / "a.bin")
    assert lab.cli("verify", run.name).code == 0
    assert lab.states(run)[-2:] == ["conflict", "verified"]
    lab.assert_whole(run)
    assert superseded(lab) == {}
    assert lab.cli("problems").code == 0


def test_a_local_file_that_is_gone_after_the_seal_does_not_go_on_the_nas(lab: Lab) -> None:
    run = sealed_run(lab)
    (run / "a.bin").unlink()
    assert lab.cli("verify", run.name).code == 3
    assert lab.record(run)["state"] == "conflict"
    assert sorted(hashes(lab.copy_of(run))) == ["a.bin", "b.bin"]


def test_what_lies_on_the_nas_beside_the_run_s_own_files_is_left_alone(lab: Lab) -> None:
    run = sealed_run(lab)
    extra = lab.copy_of(run) / "notes of a colleague.txt"
    extra.write_text("mine")
    assert lab.cli("verify", run.name).code == 0
    assert extra.read_text() == "mine"
    assert lab.record(run)["verify_passes"] >= 1


def test_two_runs_of_one_name_never_share_a_place_in_the_flat_layout(tmp_path: Path) -> None:
    lab = Lab(tmp_path, layout="flat")
    leaf = "Run_2026-04-17T14-32"
    first = lab.new_run(leaf, {"same.bin": b"first"}, project="A")
    assert lab.cli("run", "--once").code == 0
    flat = lab.nas / "SCOPE_01" / leaf
    lab.assert_whole(first, flat)
    second = lab.new_run(leaf, {"same.bin": b"second", "more.bin": b"more"}, project="B")
    said = lab.cli("run", "--once")
    assert (said.code, said.out) == (3, "1 verified, 1 conflict\n")
    assert lab.record(second)["last_error"]["kind"] == "destination_occupied"
    assert (flat / "same.bin").read_bytes() == b"first"
    assert not (flat / "more.bin").exists()
    lab.assert_whole(first, flat)
    assert read_creation(second)["sync_status"] == "failed"
    (problem,) = lab.cli("problems", "--json").problems
    assert (problem["code"], problem["subject"]) == ("destination_occupied", str(second))
    again = lab.cli("resolve", str(second), "--use", "local")
    assert again.code == 1
    assert (flat / "same.bin").read_bytes() == b"first"
    lab.assert_whole(first, flat)


def test_data_of_unknown_origin_at_the_destination_are_not_touched(lab: Lab) -> None:
    run = lab.new_run()
    copy = lab.copy_of(run)
    copy.mkdir(parents=True)
    (copy / "image.tif").write_bytes(b"somebody else's")
    assert lab.cli("run", "--once").code == 3
    assert lab.record(run)["last_error"]["kind"] == "destination_occupied"
    assert (copy / "image.tif").read_bytes() == b"somebody else's"
    assert not (copy / CACHE).exists()


def test_a_copy_of_a_run_folder_is_another_run_and_gets_a_copy_of_its_own(lab: Lab) -> None:
    run = sealed_run(lab)
    twin = run.with_name("Run_2027-01-01T00-00")
    shutil.copytree(run, twin)
    assert lab.cli("run", "--once").code == 0
    assert lab.record(twin)["job_id"] != lab.record(run)["job_id"]
    lab.assert_whole(run)
    lab.assert_whole(twin)
