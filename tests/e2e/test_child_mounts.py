"""A folder below the destination root that is a mount of its own: what it hides is not the NAS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import PROJECT, Lab, read_creation, run_to_rest
from tests.lab.wrapped import Wrapped


def mount(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)


def unmount(target: Path) -> None:
    subprocess.run(["umount", "--lazy", str(target)], check=True)


@contextmanager
def a_child(tmp_path: Path, lab: Lab) -> Iterator[tuple[Path, Path]]:
    """Yield the project's folder at the NAS, which is a mount, and what is mounted there."""
    child, below = lab.nas / "SCOPE_01" / PROJECT, tmp_path / "child dataset"
    below.mkdir()
    mount(below, child)
    try:
        yield child, below
    finally:
        with suppress(subprocess.CalledProcessError):
            unmount(child)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def mounts_learned(lab: Lab) -> list[dict[str, Any]]:
    return [fact["data"] for fact in lab.trail() if fact["kind"] == "destination_mount"]


def test_while_a_child_mount_is_away_nothing_is_pushed_into_the_folder_that_it_hides_and_no_copy_is_called_damaged(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path)
    with a_child(tmp_path, lab) as (child, below):
        run = lab.new_run()
        assert lab.cli("run", "--once", "--quiet").code == 0
        (learned,) = mounts_learned(lab)
        assert learned["folder"] == PROJECT
        assert learned["source"].endswith(f"{below.name}]")
        unmount(child)
        later = lab.new_run()
        assert lab.cli("verify", run.name).code == 3
        assert lab.cli("run", "--once", "--quiet").code == 3
        told = lab.cli("problems", "--json").problems
        (problem,) = [one for one in told if one["code"] == "nas_unreachable"]
        assert "was a mount of its own" in problem["sentence"]
        assert lab.cli("check").code == 3
        assert files_in(child) == []
        assert (lab.record(run)["state"], lab.record(run)["verify_passes"]) == ("verified", 1)
        assert (lab.record(later)["state"], lab.record(later)["attempts"]) == ("queued", 0)
        mount(below, child)
        assert lab.cli("verify", run.name).code == 0
        assert lab.cli("run", "--once", "--quiet").code == 0
        for one in (run, later):
            lab.assert_whole(one)
        assert "copy_damaged" not in [fact.get("move", {}).get("trigger") for fact in lab.facts(run)]
        assert len(mounts_learned(lab)) == 1


def test_a_run_elsewhere_below_the_root_waits_with_it_for_it_is_one_nas(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with a_child(tmp_path, lab) as (child, below):
        lab.new_run()
        assert lab.cli("run", "--once", "--quiet").code == 0
        unmount(child)
        other = lab.new_run(project="PROJ-0043")
        assert lab.cli("run", "--once", "--quiet").code == 3
        assert (lab.record(other)["state"], lab.record(other)["attempts"]) == ("queued", 0)
        mount(below, child)
        assert lab.cli("run", "--once", "--quiet").code == 0
        lab.assert_whole(other)


def test_what_was_proven_in_a_folder_that_a_mount_hides_now_is_pushed_to_the_mount(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run, other = lab.new_run(), lab.new_run(project="PROJ-0043")
    assert lab.cli("run", "--once", "--quiet").code == 0
    with a_child(tmp_path, lab) as (child, below):
        later = lab.new_run()
        assert lab.cli("run", "--once", "--quiet").code == 0
        for one in (run, later, other):
            lab.assert_whole(one)
        assert (below / run.relative_to(lab.local / "SCOPE_01" / PROJECT)).is_dir()
        assert [fact["kind"] for fact in lab.facts(run)].count("passes_voided") == 1
        assert "passes_voided" not in [fact["kind"] for fact in lab.facts(other)]
        unmount(child)
        assert not lab.copy_of(later).exists()


class UnmountsAt(Wrapped):
    """A NAS whose child mount goes away in the middle: after the claim, or before data, proof or seal."""

    def __init__(self, inner: Any, child: Path, at: str) -> None:
        super().__init__(inner)
        self._child, self._at, self._is_done = child, at, False

    def _go(self, at: str) -> None:
        if at == self._at and not self._is_done:
            self._is_done = True
            unmount(self._child)

    def place_claim(self, *args: Any, **more: Any) -> None:
        self._inner.place_claim(*args, **more)
        self._go("the claim")

    def copy(self, *args: Any, **more: Any) -> None:
        self._go("the copy")
        self._inner.copy(*args, **more)

    def read_back(self, *args: Any, **more: Any) -> Any:
        self._go("the proof")
        return self._inner.read_back(*args, **more)

    def replace(self, *args: Any, **more: Any) -> None:
        self._go("the seal")
        self._inner.replace(*args, **more)


@pytest.mark.parametrize("at", ["the claim", "the copy", "the proof", "the seal"])
def test_a_child_mount_that_goes_away_in_the_middle_proves_nothing_and_costs_nothing(tmp_path: Path, at: str) -> None:
    lab = Lab(tmp_path, retry_schedule=["0.1s"])
    with a_child(tmp_path, lab) as (child, below):
        lab.new_run()
        assert lab.cli("run", "--once", "--quiet").code == 0
        run = lab.new_run()
        run_to_rest(lab, wrapped=lambda transport: UnmountsAt(transport, child, at))
        assert len(list(below.rglob("*"))) != len(list(child.rglob("*"))), "it is away"
        assert lab.record(run)["state"] in ("queued", "sealing")
        assert lab.record(run)["attempts"] == 0
        assert read_creation(run)["sync_status"] == "pending"
        mount(below, child)
        with lab.running():  # a seal that failed waits a moment, which `--once` does not
            lab.until_state(run, "verified")
        lab.assert_whole(run)
        assert "hash_mismatch" not in str(lab.facts(run))


def test_a_mount_that_rightly_became_a_folder_is_accepted_as_a_replaced_nas_is(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with a_child(tmp_path, lab) as (child, _):
        run = lab.new_run()
        assert lab.cli("run", "--once", "--quiet").code == 0
        unmount(child)
        assert lab.cli("run", "--once", "--quiet").code == 3
        words = ("--replace", "--reason", "the dataset was merged into its parent")
        assert lab.cli("bind", "SCOPE_01", *words, "--yes").code == 0
        assert lab.cli("run", "--once", "--quiet").code == 0
        lab.assert_whole(run)


def test_another_spelling_of_the_same_root_does_not_forget_what_was_mounted_below_it(tmp_path: Path) -> None:
    """The new place shows the NAS without its child: runs were called damaged, and pushed into the folder that it hides."""
    lab = Lab(tmp_path)
    with a_child(tmp_path, lab):
        run = lab.new_run()
        assert lab.cli("run", "--once", "--quiet").code == 0
        other = tmp_path / "new mountpoint"
        mount(lab.nas / "SCOPE_01", other)
        try:
            lab.settings["equipment"][0]["transport"]["path"] = str(other)
            lab.save_config()
            said = lab.cli("run", "--once")
            assert said.code == 3
            assert PROJECT in said.err
            assert files_in(other / PROJECT) == []
            assert not lab.record(run).get("incidents")
        finally:
            unmount(other)
