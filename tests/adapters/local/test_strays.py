"""The search for a `creation.json` that stands where no run can be, on real folders: what it finds, and what it leaves alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local import handles
from exlab_watch_agent.adapters.local.mounts import shares_in
from exlab_watch_agent.adapters.local.root_lock import EquipmentRootLock
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner
from exlab_watch_agent.adapters.local.strays import Bounds, strays_beside, strays_of
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget, Policy
from exlab_watch_agent.core.snapshot import FolderProblem

RUN = "Run_2026-04-17T14-32"
OTHER = "Run_2026-04-18T10-00"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lab" / "SCOPE_01"
    folder.mkdir(parents=True)
    return folder


def make(path: Path, level: str = "run") -> Path:
    (path / ".exlab-wizard").mkdir(parents=True)
    (path / ".exlab-wizard" / "creation.json").write_text(json.dumps({"level": level}))
    return path


def misplaced(
    root: Path, *others: EquipmentPolicy, staged_elsewhere: frozenset[str] = frozenset()
) -> Mapping[str, FolderProblem]:
    """Return folder at fault → what is told of it, by a scan of `root` under a config that has it and these others."""
    one = equipment(root)
    scanner = DiskRunScanner()
    return scanner.misplaced(one, scanner.scan(one), Policy((one, *others), staged_elsewhere=staged_elsewhere))


def equipment(root: Path, destination: str = "/mnt/nas") -> EquipmentPolicy:
    return EquipmentPolicy(root.name, "", str(root.parent), MountedPathTarget(destination))


def faults(root: Path, *others: EquipmentPolicy) -> dict[str, list[str]]:
    """Return folder at fault → what has a `creation.json` below it, both below the local root."""
    found = misplaced(root, *others)

    def below(path: str) -> str:
        return os.path.relpath(path, root.parent)

    return {below(path): [below(run) for run in problem.runs] for path, problem in found.items()}


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "at_fault"),
    [
        (f"SCOPE_01/P/runs/{RUN}", "SCOPE_01/P/runs"),
        (f"SCOPE_01/P/RUNS/{RUN}", "SCOPE_01/P/RUNS"),
        (f"SCOPE_01/P/2026-04/{RUN}", "SCOPE_01/P/2026-04"),
        (f"SCOPE_01/P/Runs/April/{RUN}", "SCOPE_01/P/Runs/April"),
        (f"SCOPE_01/P/Runs/{OTHER}/{RUN}", f"SCOPE_01/P/Runs/{OTHER}"),  # the outer one is an orphan
        (f"SCOPE_01/group/P/Runs/{RUN}", "SCOPE_01/group/P/Runs"),
        (f"SCOPE_01/P/sub/TestRuns/Test{RUN}", "SCOPE_01/P/sub/TestRuns"),
        (f"SCOPE_01/Runs/{RUN}", "SCOPE_01/Runs"),
        (f"SCOPE_01/P/{RUN}", f"SCOPE_01/P/{RUN}"),
        (f"SCOPE_01/{RUN}", f"SCOPE_01/{RUN}"),
        ("SCOPE_01/P/Runs", "SCOPE_01/P/Runs"),
        ("SCOPE_01", "SCOPE_01"),
        (f"FLOW_01/P/Runs/{RUN}", "FLOW_01"),
        (f"FLOW_01/P/TestRuns/Test{RUN}", "FLOW_01"),
        (f"Scope_01/P/Runs/{RUN}", "Scope_01"),
    ],
)
def test_a_run_one_slip_away_from_its_place_is_found(root: Path, path: str, at_fault: str) -> None:
    make(root / "P" / "Runs" / "Run_2026-01-01T00-00")
    make(root / "P", level="project")
    make(root.parent / path)
    assert faults(root) == {at_fault: [path]}


def test_it_is_told_once_a_folder_at_fault_and_no_longer_once_it_was_put_right(root: Path) -> None:
    make(root / "P" / "runs" / RUN)
    make(root / "P" / "runs" / OTHER)
    make(root.parent / "FLOW_01" / "P" / "Runs" / RUN)
    make(root.parent / "FLOW_01" / "Q" / "Runs" / RUN)
    assert faults(root) == {
        "SCOPE_01/P/runs": [f"SCOPE_01/P/runs/{RUN}", f"SCOPE_01/P/runs/{OTHER}"],
        "FLOW_01": [f"FLOW_01/P/Runs/{RUN}", f"FLOW_01/Q/Runs/{RUN}"],
    }
    (root / "P" / "runs").rename(root / "P" / "Runs")
    assert faults(root, equipment(root.parent / "FLOW_01")) == {}


# --- what is left alone ----------------------------------------------------------------------------------------------


def test_what_the_wizard_writes_above_the_runs_is_in_its_place(root: Path) -> None:
    make(root, level="equipment")
    (root / ".exlab-wizard" / "equipment.json").write_text("{}")
    make(root / ".exlab-wizard" / "templates" / "confocal_run_v2")
    make(root / "P", level="project")
    make(root / "P" / "Runs", level="project")
    (root / "P" / "Runs" / ".exlab-wizard" / "runs.json").write_text("{}")
    make(root / "P" / "Runs" / RUN)
    make(root / "P" / "TestRuns" / "any name")
    (root / "Q" / ".exlab-wizard").mkdir(parents=True)
    (root / "Q" / ".exlab-wizard" / "creation.json").write_text("{ being saved")
    assert faults(root) == {}


def test_folders_that_are_no_instrument_s_are_left_alone(root: Path) -> None:
    make(root.parent / "backup" / "P" / "Runs" / RUN)
    make(root.parent / "FLOW_01" / "P" / RUN)  # of what shape its folders are is not ours to say
    (root.parent / "FLOW_02" / "P" / "Runs" / RUN).mkdir(parents=True)
    assert faults(root) == {}


def test_an_instrument_that_is_handed_to_another_computer_or_configured_here_is_not_told(root: Path) -> None:
    make(root.parent / "FLOW_01" / "P" / "Runs" / RUN)
    assert faults(root, equipment(root.parent / "FLOW_01")) == {}
    assert misplaced(root, staged_elsewhere=frozenset({"FLOW_01"})) == {}
    elsewhere = EquipmentPolicy("FLOW_01", "", "/elsewhere", MountedPathTarget("/mnt/nas"))
    assert list(faults(root, elsewhere)) == ["FLOW_01"]


def test_an_instrument_that_another_agent_works_on_is_not_told(root: Path) -> None:
    other = root.parent / "FLOW_01"
    make(other / "P" / "Runs" / RUN)
    lock = EquipmentRootLock(str(other), holder={"pid": 1})
    lock.take()
    try:
        assert faults(root) == {}
    finally:
        lock.release()
    assert list(faults(root)) == ["FLOW_01"]


def test_a_destination_beside_the_runs_is_not_an_instrument(root: Path) -> None:
    make(root.parent / "NAS" / "P" / "Runs" / RUN)
    one = equipment(root, destination=str(root.parent / "NAS"))
    scanner = DiskRunScanner()
    assert scanner.misplaced(one, scanner.scan(one), Policy((one,))) == {}


def test_no_link_is_followed(root: Path, tmp_path: Path) -> None:
    there = make(tmp_path / "there" / "P" / "Runs" / RUN)
    (root / "P" / "Runs" / "April").mkdir(parents=True)
    for link, target in [
        (root / "P" / "runs", there.parent),
        (root / "P" / RUN, there),
        (root / "P" / "Runs" / "April" / RUN, there),
        (root.parent / "FLOW_01", there.parents[2]),
        (root / "Runs", there.parent),
    ]:
        link.symlink_to(target, target_is_directory=True)
    for folder, at in [(root / "Q" / "runs" / RUN, "folder"), (root / "R" / "runs" / RUN, "file")]:
        folder.mkdir(parents=True)
        if at == "folder":
            (folder / ".exlab-wizard").symlink_to(there / ".exlab-wizard")
        else:
            (folder / ".exlab-wizard").mkdir()
            (folder / ".exlab-wizard" / "creation.json").symlink_to(there / ".exlab-wizard" / "creation.json")
    assert faults(root) == {}


def test_what_cannot_be_looked_into_is_staged_elsewhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root / "P" / "runs" / RUN)
    make(root / "Q" / "runs" / RUN)
    whole = handles.Folder.step

    def step(folder: handles.Folder, name: str, *, to_list: bool = False) -> handles.Folder:
        if folder.path == str(root / "P") and name == "runs":
            raise PermissionError(13, "no")
        return whole(folder, name, to_list=to_list)

    monkeypatch.setattr(handles.Folder, "step", step)
    assert list(faults(root)) == ["SCOPE_01/Q/runs"]


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_no_folder_of_a_run_or_of_a_find_is_listed_and_none_below_what_one_slip_leads_to(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in (
        root / "P" / "Runs" / RUN,
        root / "P" / "runs" / RUN,
        root / "P" / OTHER,
        root.parent / "FLOW_01/P/Runs" / RUN,
    ):
        make(run)
        (run / "raw" / "tile").mkdir(parents=True)
    (root / "P" / "Runs" / "April" / "x" / "y").mkdir(parents=True)
    (root / "P" / "docs" / "2026" / "x").mkdir(parents=True)
    (root.parent / "FLOW_01" / "P" / "raw" / "x").mkdir(parents=True)
    real, listed = os.scandir, set()

    def scandir(path: Any) -> Any:
        where = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
        listed.add(os.path.relpath(where, root.parent))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    misplaced(root)
    assert sorted(listed) == [
        ".",
        "FLOW_01",
        "FLOW_01/P",
        "FLOW_01/P/Runs",
        "SCOPE_01",
        "SCOPE_01/P",
        "SCOPE_01/P/Runs",
        "SCOPE_01/P/Runs/April",
        "SCOPE_01/P/docs",
        "SCOPE_01/P/runs",
    ]


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        (Bounds(), 20),
        (Bounds(found_max=7), 7),
        (Bounds(entries_max=5), 5),
        (Bounds(asked_max=4), 2),  # the project, `runs`, and two in it
    ],
)
def test_the_search_has_bounds(root: Path, bounds: Bounds, found: int) -> None:
    for number in range(20):
        make(root / "P" / "runs" / f"Run_{number}")
    assert len(strays_of(equipment(root), str(root), (), bounds=bounds)) == found
    (root / "P" / "runs").rename(root / "P" / "Runs")
    flow = root.rename(root.with_name("FLOW_01"))
    beside = strays_beside(equipment(flow.with_name("SCOPE_01")), Policy(), bounds=bounds)
    assert len(beside) == found


def test_shares_are_told_from_the_list_of_mounts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        f"36 35 0:40 / {tmp_path}/NAS_01 rw,relatime shared:1 - nfs4 server:/lab rw",
        f"37 35 0:41 / {tmp_path}/AUTO rw - autofs systemd-1 rw",
        f"38 35 8:1 / {tmp_path}/DISK_02 rw - ext4 /dev/sda1 rw",
        f"39 35 0:42 / {tmp_path}/deeper/NAS_03 rw - cifs //nas/lab rw",
    ]
    mounts = tmp_path / "mountinfo"
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr("exlab_watch_agent.adapters.local.mounts.MOUNTS", str(mounts))
    assert shares_in(str(tmp_path)) == {"NAS_01", "AUTO"}
    monkeypatch.setattr("exlab_watch_agent.adapters.local.mounts.MOUNTS", str(tmp_path / "none"))
    assert shares_in(str(tmp_path)) == frozenset()
