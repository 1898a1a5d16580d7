"""What ExLab-Wizard left on the NAS: proven where it is, completed where it is partial, and never written to where it differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.errors import FailureKind, TransportError
from tests.e2e.test_proof import everything, superseded, triggers
from tests.lab.disks import full_disk
from tests.lab.lab import CACHE, Lab, creation_of, hashes, put, read_creation, run_to_rest, save_in_place, until
from tests.lab.servers import done, program
from tests.lab.wrapped import Wrapped

RCLONE = Path(sys.executable).with_name("rclone")
LEAF = "Run_2026-04-17T14-32"
FILES = {"image.tif": os.urandom(40_000), "deep/er/β.tif": os.urandom(5_000), "empty": b"", "two  blanks": b"2"}
LEFT = ["discovered", "admitted", "copy_adopted"]
COMPLETED = [*LEFT, "put_back", "push_started", "pushed", "precheck_passed", "proven", "sealed"]


def by_rclone(run: Path, root: Path) -> Path:
    """Copy as ExLab-Wizard's transport over rclone does."""
    copy = root / run.name
    subprocess.run([str(RCLONE), "copy", "--checksum", str(run), str(copy)], check=True, capture_output=True)
    return copy


def by_rsync(run: Path, root: Path) -> Path:
    """Copy as ExLab-Wizard's transport over rsync does, whose run folder appears twice."""
    command = ["rsync", "-avz", "--checksum", "--partial", str(run), str(root / run.name)]
    subprocess.run(command, check=True, capture_output=True)
    return root / run.name / run.name


EITHER_WAY = pytest.mark.parametrize("copied", [by_rclone, by_rsync])
EITHER_LAYOUT = pytest.mark.parametrize("layout", ["mirror", "flat"])
Copied = Callable[[Path, Path], Path]


def ended(lab: Lab, run: Path, code: int = 0) -> None:
    said = lab.cli("run", "--once", "--quiet")
    assert said.code == code, (said.err, lab.record(run))


def bytes_and_inodes(folder: Path) -> dict[str, tuple[int, bytes]]:
    names = (name for name in everything(folder) if not name.startswith(CACHE) and f"/{CACHE}/" not in name)
    return {name: ((folder / name).stat().st_ino, (folder / name).read_bytes()) for name in names}


def as_exlab_wizard_ends(run: Path) -> None:
    """Write what ExLab-Wizard writes after its push: a manifest of its own form, and its status."""
    lines = [f"{digest} {name}" for name, digest in sorted(hashes(run).items(), reverse=True)]
    (run / CACHE / "checksums.sha256").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save_in_place(run, read_creation(run) | {"sync_status": "synced"})


@EITHER_LAYOUT
@EITHER_WAY
def test_a_whole_copy_is_proven_where_it_is_and_keeps_its_place(tmp_path: Path, copied: Copied, layout: str) -> None:
    lab = Lab(tmp_path, layout=layout)
    run = lab.new_run(LEAF, FILES)
    copy = copied(run, lab.nas / "SCOPE_01")
    as_exlab_wizard_ends(run)
    theirs, before = (run / CACHE / "checksums.sha256").read_bytes(), bytes_and_inodes(copy)
    ended(lab, run)
    assert triggers(lab, run) == [*LEFT, "proven", "sealed"]
    assert lab.record(run)["destination"] == copy.relative_to(lab.nas / "SCOPE_01").as_posix()
    assert bytes_and_inodes(copy) == before, "no byte was copied anew"
    lab.assert_whole(run, copy)
    assert theirs in superseded(lab).values(), "its manifest is evidence"
    assert not (lab.nas / "SCOPE_01" / lab.copy_of(run).parts[-3]).exists() or layout == "flat"
    ended(lab, run)
    assert triggers(lab, run) == [*LEFT, "proven", "sealed"]


@EITHER_WAY
def test_a_copy_that_was_copied_again_and_says_synced_is_proven_too_and_its_cache_folder_is_kept(
    tmp_path: Path, copied: Copied
) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(LEAF, FILES)
    as_exlab_wizard_ends(run)
    copy = copied(run, lab.nas / "SCOPE_01")
    (copy / CACHE / "wizard.other-pc.log").write_text("theirs")
    theirs = (copy / CACHE / "checksums.sha256").read_bytes()
    ended(lab, run)
    assert triggers(lab, run) == [*LEFT, "proven", "sealed"]
    lab.assert_whole(run, copy)
    assert (copy / CACHE / "wizard.other-pc.log").read_text() == "theirs"
    assert theirs in superseded(lab).values()


@EITHER_LAYOUT
@EITHER_WAY
def test_a_partial_copy_is_completed_where_it_is_and_nothing_of_it_moves(
    tmp_path: Path, copied: Copied, layout: str
) -> None:
    lab = Lab(tmp_path, layout=layout)
    run = lab.new_run(LEAF, FILES)
    copy = copied(run, lab.nas / "SCOPE_01")
    (copy / "deep/er/β.tif").unlink()
    (copy / "image.tif.1f2e3d4c.partial").write_bytes(b"what a killed rclone leaves")
    os.utime(copy / "image.tif", (1, 1))  # some ways keep no times
    before = bytes_and_inodes(copy)
    ended(lab, run)
    assert triggers(lab, run) == COMPLETED
    assert before.items() <= bytes_and_inodes(copy).items(), "what was equal is as it was"
    (copy / "image.tif.1f2e3d4c.partial").unlink()
    lab.assert_whole(run, copy)
    assert not [path for path in superseded(lab) if "/seal-" not in path]


def test_a_copy_made_when_the_run_was_created_has_no_data_and_is_completed(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(LEAF, {})
    copy = by_rclone(run, lab.nas / "SCOPE_01")
    put(run, FILES)
    ended(lab, run)
    assert triggers(lab, run) == COMPLETED
    lab.assert_whole(run, copy)


@EITHER_WAY
def test_a_copy_without_a_creation_json_is_this_run_s_by_its_bytes(tmp_path: Path, copied: Copied) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(LEAF, FILES)
    copy = copied(run, lab.nas / "SCOPE_01")
    shutil.rmtree(copy / CACHE)
    (copy / "empty").unlink()
    ended(lab, run)
    assert triggers(lab, run) == COMPLETED
    lab.assert_whole(run, copy)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@EITHER_LAYOUT
@EITHER_WAY
@pytest.mark.parametrize("has_creation", [True, False])
@pytest.mark.parametrize("harm", [flip, cut])
def test_a_copy_in_which_a_file_differs_is_a_conflict_and_not_touched(
    tmp_path: Path, copied: Copied, layout: str, has_creation: bool, harm: Callable[[Path], None]
) -> None:
    lab = Lab(tmp_path, layout=layout)
    run = lab.new_run(LEAF, FILES)
    as_exlab_wizard_ends(run)
    root = lab.nas / "SCOPE_01"
    copy = copied(run, root)
    harm(copy / "image.tif")
    (copy / "empty").unlink()
    if not has_creation:
        shutil.rmtree(copy / CACHE)
    before = everything(copy)
    ended(lab, run, code=3)
    error = lab.record(run)["last_error"]
    assert error["kind"] == "destination_occupied"
    assert "image.tif" in error["message"]
    assert ("manifest speaks for what is here" in error["message"]) is (harm is flip)
    assert everything(copy) == before
    assert superseded(lab) == {}
    assert read_creation(run)["sync_status"] == "failed"
    # The way out that is named: what is there is moved away, and the run goes to its own place.
    copy.rename(tmp_path / "moved away")
    if copied is by_rsync:
        (root / LEAF).rmdir()
    assert lab.cli("resolve", str(run), "--use", "local").code == 0
    ended(lab, run)
    lab.assert_whole(run, lab.copy_of(run) if layout == "mirror" else root / LEAF)


@pytest.mark.parametrize("last", ["first", "second"])
def test_two_runs_of_one_name_that_were_merged_are_a_conflict(tmp_path: Path, last: str) -> None:
    lab = Lab(tmp_path)
    first = lab.new_run(LEAF, {"same.bin": b"first", "of the first": b"1"}, project="A")
    second = lab.new_run(LEAF, {"same.bin": b"second", "of the second": b"2"}, project="B")
    pair = [first, second] if last == "second" else [second, first]
    for run in pair:
        copy = by_rclone(run, lab.nas / "SCOPE_01")
    before = everything(copy)
    ended(lab, pair[1], code=3)
    error = lab.record(pair[1])["last_error"]
    assert error["kind"] == "destination_occupied"
    assert f"first: of the {'first' if pair[0] == first else 'second'}" in error["message"]
    assert everything(copy) == before
    # The other one is not what is there: the file of the same name is the last one's. It has its own place.
    assert lab.record(pair[0])["state"] == "verified"
    lab.assert_whole(pair[0])


def test_of_two_merged_runs_that_are_both_there_whole_both_are_a_conflict(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    runs = [lab.new_run(LEAF, {f"{name}.bin": name.encode()}, project=name) for name in "AB"]
    for run in runs:
        copy = by_rclone(run, lab.nas / "SCOPE_01")
    before = everything(copy)
    ended(lab, runs[0], code=3)
    assert [lab.record(run)["last_error"]["kind"] for run in runs] == ["destination_occupied"] * 2
    assert everything(copy) == before


def test_another_run_s_copy_of_that_name_is_nothing_of_this_run(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    gone = lab.new_run(LEAF, FILES, project="A")
    copy = by_rclone(gone, lab.nas / "SCOPE_01")
    shutil.rmtree(gone)
    run = lab.new_run(LEAF, {"image.tif": b"another"}, project="B")
    before = everything(copy)
    ended(lab, run)
    lab.assert_whole(run)
    assert everything(copy) == before


def test_two_runs_that_one_copy_equals_do_not_share_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path, max_parallel_runs=4)
    runs = [lab.new_run(LEAF, FILES, project=name) for name in "AB"]
    copy = by_rclone(runs[0], lab.nas / "SCOPE_01")
    shutil.rmtree(copy / CACHE)
    lab.cli("run", "--once", "--quiet")
    claim = json.loads((copy / CACHE / "exlab-watch-agent.json").read_text())
    (holder,) = [run for run in runs if lab.record(run)["job_id"] == claim["job_id"]]
    lab.assert_whole(holder, copy)
    (other,) = [run for run in runs if run != holder]
    if lab.record(other)["state"] == "conflict":  # both had been found equal to it before one of them claimed it
        assert lab.record(other)["last_error"]["kind"] == "destination_occupied"
    else:
        lab.assert_whole(other)


def test_the_layout_is_for_new_runs(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run(LEAF, FILES)
    ended(lab, run)
    lab.settings["agent"]["layout"] = "flat"
    lab.save_config()
    (lab.copy_of(run) / "image.tif").write_bytes(b"rot")
    lab.cli("verify", str(run))
    assert "copy_damaged" in triggers(lab, run)
    new = lab.new_run("Run_2026-05-01T00-00")
    lab.cli("run", "--once", "--quiet")
    lab.assert_whole(run)
    lab.assert_whole(new, lab.nas / "SCOPE_01" / new.name)
    assert not (lab.nas / "SCOPE_01" / LEAF).exists()


@pytest.mark.parametrize("layout", ["flat", "mirror"])
def test_a_place_that_is_claimed_for_the_run_is_kept_by_an_agent_that_comes_after(tmp_path: Path, layout: str) -> None:
    lab = Lab(tmp_path, layout=layout)
    run = lab.new_run(LEAF, FILES)
    ended(lab, run)
    copy = lab.nas / "SCOPE_01" / LEAF if layout == "flat" else lab.copy_of(run)
    shutil.rmtree(lab.state)
    lab.settings["agent"]["layout"] = "mirror" if layout == "flat" else "flat"
    lab.save_config()
    lab.bind()
    assert lab.cli("run", "--once", "--quiet").code == 0
    assert triggers(lab, run) == [*LEFT, "proven", "sealed"]
    lab.assert_whole(run, copy)
    assert [path.name for path in (lab.nas / "SCOPE_01").iterdir() if not path.name.startswith(".")] == [
        copy.relative_to(lab.nas / "SCOPE_01").parts[0]
    ]


class CannotBeLookedAt(Wrapped):
    """A folder there that says nothing of itself, for as long as a test wants."""

    def __init__(self, inner: Any, path: str, times: list[None]) -> None:
        super().__init__(inner)
        self._path, self._times = path, times

    def look(self, destination: str) -> Any:
        if destination == self._path and self._times:
            self._times.pop()
            raise TransportError(FailureKind.UNKNOWN, f"cannot look at {destination}")
        return self._inner.look(destination)


def is_due(at: str | None) -> bool:
    return at is None or datetime.fromisoformat(at) <= datetime.now(UTC)


@pytest.mark.parametrize("times", [1, 2])
def test_a_place_that_could_not_be_looked_at_is_not_passed_over(tmp_path: Path, times: int) -> None:
    """Nobody knows whether ExLab-Wizard's copy is there: the run is not copied to another place meanwhile."""
    lab = Lab(tmp_path, retry_schedule=["1s"] * 5)
    run = lab.new_run(LEAF, FILES)
    copy = by_rclone(run, lab.nas / "SCOPE_01")
    left: list[None] = [None] * times
    for _ in range(times):  # the second time when its backoff is over
        run_to_rest(lab, wrapped=lambda transport: CannotBeLookedAt(transport, LEAF, left))
        until(lambda: lab.record(run)["state"] == "verified" or is_due(lab.record(run)["next_attempt_at"]), "its turn")
    run_to_rest(lab)  # the look that follows may come after a slow machine's rest
    lab.assert_whole(run, copy)
    assert not lab.copy_of(run).exists()
    assert triggers(lab, run)[-3:] == ["copy_adopted", "proven", "sealed"]
    assert triggers(lab, run)[2:4] == ["push_started", "put_back"]


@pytest.mark.timeout(120)
def test_a_place_that_cannot_be_listed_is_a_failed_attempt_and_no_endless_loop(tmp_path: Path) -> None:
    """rsync keeps the rights of folders: one that only its owner may list made a hundred moves a second, untold."""
    lab = Lab(tmp_path)
    run = lab.new_run(LEAF, FILES)
    flat = lab.nas / "SCOPE_01" / LEAF
    put(flat, {"image.tif": FILES["image.tif"], "private/x": b"1"})
    (flat / "private").chmod(0)
    try:
        said = lab.cli("run", "--once", as_user=True)
        record = lab.record(run)
        assert (said.code, record["state"], record["attempts"]) == (3, "failed", 1)
        assert "ermission" in record["last_error"]["message"] + record["last_error"]["detail"]
        assert triggers(lab, run)[-2:] == ["push_started", "gave_up"]
    finally:
        (flat / "private").chmod(0o755)


def test_what_was_shown_to_be_a_part_of_the_run_is_claimed_and_another_run_that_is_put_there_is_not_moved(
    tmp_path: Path,
) -> None:
    """Between the proof and the push the NAS was full, and ExLab-Wizard put another run of that leaf there."""
    with full_disk(tmp_path / "nas" / "SCOPE_01", size="3m") as nas:
        lab = Lab(tmp_path)
        run = lab.new_run(LEAF, {"a.bin": os.urandom(1_000_000), "b.bin": os.urandom(2_500_000)})
        copy = nas / LEAF
        put(copy, {"a.bin": (run / "a.bin").read_bytes()})
        assert lab.cli("run", "--once", "--quiet").code == 3
        assert lab.record(run)["last_error"]["kind"] == "destination_full"
        assert (copy / CACHE / "exlab-watch-agent.json").is_file(), "nobody else takes it meanwhile"
        done(program("mount"), "-o", "remount,size=20m", nas)
        theirs = {
            "a.bin": os.urandom(700_000),
            f"{CACHE}/creation.json": json.dumps(creation_of(run, created_by="other")).encode(),
        }
        put(copy, theirs)
        assert lab.cli("run", "--once", "--quiet").code == 3
        assert lab.record(run)["last_error"]["kind"] == "destination_occupied"
        assert {name: (copy / name).read_bytes() for name in theirs} == theirs


def test_what_was_shown_at_one_nas_is_proven_anew_at_the_one_that_takes_its_place(tmp_path: Path) -> None:
    root = tmp_path / "nas" / "SCOPE_01"
    with full_disk(root, size="3m"):
        lab = Lab(tmp_path)
        run = lab.new_run(LEAF, {"a.bin": os.urandom(1_000_000), "b.bin": os.urandom(2_500_000)})
        put(root / LEAF, {"a.bin": (run / "a.bin").read_bytes()})
        assert lab.cli("run", "--once", "--quiet").code == 3
    theirs = {"a.bin": os.urandom(700_000), "report.docx": b"a stranger's"}
    put(root / LEAF, theirs)
    assert lab.cli("bind", "SCOPE_01", "--replace", "--reason", "the old one was full", "--yes").code == 0
    lab.cli("run", "--once", "--quiet")
    assert {name: (root / LEAF / name).read_bytes() for name in theirs} == theirs, "theirs stay where they are"
