"""Empty folders do not travel, but the copy says which there were: `.exlab-wizard/folders.txt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.lab.lab import CACHE, Lab, Said, override, put

Command = Callable[..., Said]


def folders_of(copy: Path) -> bytes:
    return (copy / CACHE / "folders.txt").read_bytes()


def test_empty_folders_are_listed_at_the_destination_and_not_made(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"full/image.tif": b"1"}, validation_overrides=[override("illegal_filesystem_character")])
    for name in ("empty", "full/below", "deep/deeper/deepest", "ä \\ b\nc"):
        (run / name).mkdir(parents=True)
    on("run", "--once")
    assert lab.record(run)["state"] == "verified"
    copy = lab.copy_of(run)
    listed = "deep/deeper/deepest\nempty\nfull/below\nä \\\\ b\\nc\n".encode()
    assert folders_of(copy) == folders_of(run) == listed
    assert sorted(path.name for path in copy.iterdir()) == [CACHE, "full"]
    assert [path.name for path in (copy / "full").iterdir()] == ["image.tif"]
    lab.assert_whole(run)


def test_a_run_without_empty_folders_has_no_such_file(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"full/image.tif": b"1"})
    on("run", "--once")
    assert lab.record(run)["state"] == "verified"
    assert not (run / CACHE / "folders.txt").exists()
    assert not (lab.copy_of(run) / CACHE / "folders.txt").exists()


def test_an_audit_brings_the_list_up_to_date(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"a.bin": b"1"})
    on("run", "--once")
    (run / "later").mkdir()
    assert on("verify", run.name).code == 0
    assert folders_of(lab.copy_of(run)) == b"later\n"
    assert lab.states(run)[-3:] == ["auditing", "sealing", "verified"]
    assert "empty folders" in on("show", run.name).out
    put(lab.copy_of(run), {f"{CACHE}/folders.txt": b"altered\n"})
    on("verify", run.name)
    assert folders_of(lab.copy_of(run)) == b"later\n"
    (run / "later").rmdir()
    on("verify", run.name)
    assert folders_of(lab.copy_of(run)) == folders_of(run) == b""
    on("verify", run.name)
    assert lab.states(run)[-2:] == ["auditing", "verified"], "nothing is left to be brought"
