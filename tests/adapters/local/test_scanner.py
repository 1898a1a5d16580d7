"""The scan of the levels down to the runs, on real folders: whole and sorted, or an error; never through a link."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget
from exlab_watch_agent.errors import RootUnavailableError

RUN = "Run_2026-04-17T14-32"
TEST_RUN = "TestRun_2026-04-17T14-32"


def equipment(local_root: Path) -> EquipmentPolicy:
    return EquipmentPolicy("SCOPE_01", "Scope", str(local_root), MountedPathTarget("/mnt/nas"))


def whole(path: Any, *, dir_fd: int | None = None, **_: Any) -> str:
    """Return the path that a call is about: of a handle, of a name below one, or of a path itself."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return str(path) if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lab" / "SCOPE_01"
    folder.mkdir(parents=True)
    return folder


def scan(root: Path) -> dict[str, tuple[int, int, int] | None]:
    """Return run path below the root → signature."""
    seen = DiskRunScanner().scan(equipment(root.parent))
    assert [run.place.run_path for run in seen] == sorted(run.place.run_path for run in seen)
    assert all(run.place.equipment_id == "SCOPE_01" for run in seen)
    return {os.path.relpath(run.place.run_path, root): run.creation_signature for run in seen}


def make_run(path: Path) -> Path:
    (path / ".exlab-wizard").mkdir(parents=True)
    (path / ".exlab-wizard" / "creation.json").write_text("{}")
    return path


def signature(run: Path) -> tuple[int, int, int]:
    status = (run / ".exlab-wizard" / "creation.json").stat()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def test_the_root_is_the_equipments_folder_below_the_local_root(root: Path) -> None:
    assert equipment_root(equipment(root.parent)) == str(root)


def test_runs_and_test_runs_of_all_projects_are_found_in_order_with_the_signature_of_their_creation_json(
    root: Path,
) -> None:
    runs = [
        make_run(root / project / parent / leaf)
        for project in ("PROJ-0042 Übersicht", "A", "A b", "zz")
        for parent, leaf in (("TestRuns", TEST_RUN), ("Runs", RUN), ("Runs", "Run_2025-01-01T00-00"))
    ]
    assert scan(root) == {str(run.relative_to(root)): signature(run) for run in runs}
    (place,) = (
        r.place
        for r in DiskRunScanner().scan(equipment(root.parent))
        if r.place.project == "zz" and "Test" in r.place.leaf
    )
    assert (place.parent_folder, place.leaf, place.relative) == ("TestRuns", TEST_RUN, f"zz/TestRuns/{TEST_RUN}")


def test_the_signature_is_another_one_after_each_way_to_save(root: Path) -> None:
    run = make_run(root / "P" / "Runs" / RUN)
    creation = run / ".exlab-wizard" / "creation.json"
    seen = [scan(root)[f"P/Runs/{RUN}"]]
    creation.write_text('{"a": 1}')
    seen.append(scan(root)[f"P/Runs/{RUN}"])
    (root / "new").write_text('{"b": 1}')
    os.utime(root / "new", ns=(0, creation.stat().st_mtime_ns))
    (root / "new").replace(creation)
    seen.append(scan(root)[f"P/Runs/{RUN}"])
    assert len(set(seen)) == 3


def test_a_folder_without_creation_json_or_with_any_name_is_seen_so_that_it_can_be_told(root: Path) -> None:
    (root / "P" / "Runs" / RUN).mkdir(parents=True)
    (root / "P" / "Runs" / "Run_<DATE>" / ".exlab-wizard").mkdir(parents=True)
    (root / "P" / "Runs" / "notes").mkdir(parents=True)
    (root / "P" / "Runs" / "file for a cache").mkdir()
    (root / "P" / "Runs" / "file for a cache" / ".exlab-wizard").touch()
    assert scan(root) == {
        f"P/Runs/{RUN}": None,
        "P/Runs/Run_<DATE>": None,
        "P/Runs/notes": None,
        "P/Runs/file for a cache": None,
    }


def test_a_name_that_is_no_unicode_is_seen(root: Path) -> None:
    run = os.path.join(os.fsencode(root), b"P", b"Runs", b"Run_\xff")
    os.makedirs(run)
    assert list(scan(root)) == ["P/Runs/Run_\udcff"]


def test_files_hidden_folders_and_other_levels_are_no_runs(root: Path) -> None:
    make_run(root / "P" / "Runs" / ".hidden")
    make_run(root / ".exlab-wizard" / "Runs" / RUN)
    make_run(root / ".trash" / "Runs" / RUN)
    make_run(root / "P" / "Others" / RUN)
    make_run(root / RUN)
    make_run(root / "P" / RUN)
    make_run(root / "P" / "Runs" / RUN / "data" / "Runs" / RUN)
    (root / "P" / "Runs" / "file").touch()
    (root / "file").touch()
    (root / "Q").mkdir()
    (root / "Q" / "Runs").touch()
    os.mkfifo(root / "P" / "Runs" / "fifo")
    assert list(scan(root)) == [f"P/Runs/{RUN}"]


def test_an_equipment_without_projects_has_no_runs(root: Path) -> None:
    assert scan(root) == {}


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["P", "P/Runs", "P/TestRuns", f"P/Runs/{RUN}"])
def test_links_are_not_followed_at_any_level(root: Path, tmp_path: Path, level: str) -> None:
    own = make_run(root / "own" / "Runs" / RUN)
    outside = make_run(tmp_path / "outside" / "P" / "Runs" / RUN)
    make_run(tmp_path / "outside" / "P" / "TestRuns" / TEST_RUN)
    link = root / level
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "outside" / level, target_is_directory=True)
    assert outside.exists()
    assert scan(root) == {str(own.relative_to(root)): signature(own)}


def test_an_equipment_folder_that_is_a_link_is_not_followed_and_said(root: Path) -> None:
    make_run(root / "P" / "Runs" / RUN)
    real = root.rename(root.with_name("real"))
    root.symlink_to(real, target_is_directory=True)
    with pytest.raises(RootUnavailableError, match="is a link, and links are not followed"):
        scan(root)


def test_a_local_root_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    run = make_run(root / "P" / "Runs" / RUN)
    (tmp_path / "link").symlink_to(root.parent, target_is_directory=True)
    assert scan(tmp_path / "link" / "SCOPE_01") == {f"P/Runs/{RUN}": signature(run)}


def as_folder(path: Path) -> None:
    path.mkdir()


def as_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "elsewhere.json")
    (path.parent.parent / "elsewhere.json").write_text("{}")


def as_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere")


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    "make", [as_folder, as_link, as_dangling_link, as_fifo, as_socket], ids=lambda make: make.__name__
)
def test_a_creation_json_that_is_no_file_is_still_looked_at_so_that_it_is_told(
    root: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(root / "P" / "Runs" / RUN)
    (run / ".exlab-wizard" / "creation.json").unlink()
    monkeypatch.chdir(run)
    make(run / ".exlab-wizard" / "creation.json")
    assert scan(root) == {f"P/Runs/{RUN}": (0, 0, 0)}


def test_a_cache_folder_that_is_a_link_is_not_looked_through(root: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "outside")
    run = root / "P" / "Runs" / RUN
    run.mkdir(parents=True)
    (run / ".exlab-wizard").symlink_to(tmp_path / "outside" / ".exlab-wizard")
    assert scan(root) == {f"P/Runs/{RUN}": (0, 0, 0)}


# --- whole or not at all ---------------------------------------------------------------------------------------------


def test_a_root_that_is_missing_is_an_error_and_not_an_empty_list(root: Path) -> None:
    root.rmdir()
    with pytest.raises(RootUnavailableError, match=r"SCOPE_01 is not there: .*none of its runs counts as gone"):
        scan(root)
    root.touch()
    with pytest.raises(RootUnavailableError, match="none of its runs counts as gone"):
        scan(root)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOTCONN, errno.ESTALE])
@pytest.mark.parametrize("level", [".", "P", "P/Runs", "P/TestRuns"])
@pytest.mark.parametrize("call", ["scandir", "open"])
def test_a_level_that_cannot_be_read_is_an_error_and_never_a_shorter_list(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, level: str, call: str
) -> None:
    for project in ("A", "P", "Z"):
        make_run(root / project / "Runs" / RUN)
        make_run(root / project / "TestRuns" / TEST_RUN)
    real = getattr(os, call)
    # A project is listed by its Runs and TestRuns only.
    refused = {"P/Runs", "P/TestRuns"} if level == "P" and call == "scandir" else {level}

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if os.path.relpath(whole(path, **kwargs), root) in refused:
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(RootUnavailableError, match=r"cannot be listed \(.+\): let the agent's account read it"):
        scan(root)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_creation_json_that_cannot_be_asked_is_not_taken_for_a_missing_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    runs = [make_run(root / "P" / "Runs" / name) for name in (RUN, "Run_2026-04-18T00-00")]
    other = signature(runs[1])
    real = os.lstat

    def refuse(path: Any, **how: int) -> Any:
        if whole(path, **how).startswith(str(runs[0] / ".exlab-wizard")):
            raise OSError(number, os.strerror(number))
        return real(path, **how)

    monkeypatch.setattr(os, "lstat", refuse)
    assert scan(root) == {f"P/Runs/{RUN}": (0, 0, 0), "P/Runs/Run_2026-04-18T00-00": other}


def test_a_run_that_goes_away_during_the_scan_is_left_out_or_seen_without_creation_json(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(root / "P" / "Runs" / RUN)
    real = os.lstat

    def vanish(path: Any, **how: int) -> Any:
        if whole(path, **how).startswith(str(run / ".exlab-wizard")) and run.exists():
            run.rename(root / "gone")
        return real(path, **how)

    monkeypatch.setattr(os, "lstat", vanish)
    assert scan(root) == {f"P/Runs/{RUN}": None}


def test_the_data_of_a_run_are_not_walked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(root / "P" / "Runs" / RUN)
    (run / "data").mkdir()
    listed: list[str] = []
    real = os.scandir

    def scandir(path: Any) -> Any:
        listed.append(os.path.relpath(whole(path), root))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan(root)
    assert {".", "P/Runs"} <= set(listed) <= {".", "P/Runs", "P/TestRuns"}


# --- is it there -----------------------------------------------------------------------------------------------------


def test_whether_something_stands_at_a_path_is_said_without_following_links_and_in_doubt_it_does(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = DiskRunScanner()
    (root / "file").touch()
    (root / "dangling").symlink_to("/nowhere")
    assert scanner.is_there(str(root))
    assert scanner.is_there(str(root / "dangling"))
    assert not scanner.is_there(str(root / "nothing"))
    assert not scanner.is_there(str(root / "file" / "below"))
    for number in (errno.EACCES, errno.EIO, errno.ENOTCONN):

        def refuse(_: Any, number: int = number, **__: Any) -> Any:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", refuse)
            assert scanner.is_there(str(root / "nothing"))
