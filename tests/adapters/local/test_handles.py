"""Folders by handle: what is kept open, what is closed, and that the way without handles refuses the same."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local import file_lock, handles
from exlab_watch_agent.adapters.local.file_lock import LockedError
from exlab_watch_agent.adapters.local.handles import (
    READ_FLAGS,
    Folder,
    LinkError,
    OtherDeviceError,
    folder_at,
    folder_below,
    run_folder,
    statuses_below,
)
from exlab_watch_agent.adapters.local.reach import Reach
from tests.lab.disks import full_disk

BOTH_WAYS = pytest.mark.parametrize("by_handle", [True, False])


def count_open() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "local" / "SCOPE_01" / "P" / "Runs" / "Run_1"
    (run / "a" / "b").mkdir(parents=True)
    (run / "a" / "b" / "x.tif").write_bytes(b"x")
    return run


@BOTH_WAYS
def test_a_link_on_the_way_is_refused_with_its_whole_path(
    run: Path, monkeypatch: pytest.MonkeyPatch, by_handle: bool
) -> None:
    monkeypatch.setattr(handles, "_BY_HANDLE", by_handle)
    (run / "link").symlink_to(run / "a")
    (run / "file").touch()
    with run_folder(str(run)) as folder:
        with pytest.raises(LinkError) as caught:
            folder.below("link/b")
        assert caught.value.filename == str(run / "link")
        with pytest.raises(NotADirectoryError) as no_folder:
            folder.step("file")
        assert not isinstance(no_folder.value, LinkError)
        with pytest.raises(FileNotFoundError) as nothing:
            folder.step("nothing")
        assert nothing.value.filename == str(run / "nothing")
        with folder.below("a/b") as below:
            assert below.names() == ["x.tif"]
            descriptor = below.open("x.tif", READ_FLAGS)
        assert os.read(descriptor, 9) == b"x"
        os.close(descriptor)


@BOTH_WAYS
def test_names_are_made_renamed_linked_and_removed_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_handle: bool
) -> None:
    monkeypatch.setattr(handles, "_BY_HANDLE", by_handle)
    with folder_at(str(tmp_path)) as here:
        here.mkdir("there")
        os.close(here.open("a", handles.CREATE_FLAGS))
        with here.step("there") as there:
            here.link("a", there, "b")
            here.move("a", there, "c")
            there.move_over("c", here, "d")
            there.replace("b", "e")
            assert (sorted(here.names()), there.names()) == (["d", "there"], ["e"])
            assert os.path.samestat(here.lstat("d"), there.lstat("e"))
            assert there.has("e")
            assert not there.has("b")
            there.unlink("e")
        here.rmdir("there")
        assert here.names() == ["d"]
        assert here.volume_id() == os.statvfs(tmp_path).f_fsid


def test_a_folder_that_may_only_be_passed_is_passed() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another account")
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others than their owner
        os.chmod(place, 0o755)
        (Path(place) / "passed" / "in").mkdir(parents=True)
        (Path(place) / "passed").chmod(0o711)
        body = (
            "import os, sys; from exlab_watch_agent.adapters.local.handles import folder_below; os.setuid(65534); "
            "print(folder_below(sys.argv[1], 2).names())"
        )
        ended = subprocess.run(
            [sys.executable, "-c", body, str(Path(place) / "passed" / "in")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stdout == "[]\n", ended.stderr


def test_another_disk_is_refused_from_the_run_on_and_not_above(run: Path) -> None:
    with full_disk(run / "mounted"), run_folder(str(run)) as folder, pytest.raises(OtherDeviceError):
        folder.step("mounted")
    with full_disk(run) as mounted, run_folder(str(run)) as folder:
        (mounted / "a").mkdir()
        folder.step("a").close()


@pytest.mark.parametrize("path", ["/a/b/c/d/e", "/a/b/c/d/e/", "a/b", "/a", "/", "a", "/a//b/c"])
def test_a_path_is_taken_apart_without_loss(path: str) -> None:
    anchor, names = handles._split(path, 4)
    assert len(names) <= 4
    assert os.path.normpath(os.path.join(anchor, *names)) == os.path.normpath(path)
    assert all(name and "/" not in name for name in names)


def test_a_closed_folder_answers_nothing_more(run: Path) -> None:
    folder = run_folder(str(run))
    folder.close()
    folder.close()
    for ask in (lambda: folder.lstat("a"), folder.status, folder.names, lambda: folder.step("a")):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            ask()


def test_nothing_stays_open(run: Path) -> None:
    (run / "link").symlink_to(run)
    before = count_open()
    with run_folder(str(run)) as folder:
        for path in ("a/nothing", "link/a", "a/b/x.tif"):
            with pytest.raises(OSError):
                folder.below(path)
        folder.below("a", to_list=True).close()
    with pytest.raises(OSError):
        folder_below(str(run / "link" / "a"), 4)
    assert len(statuses_below(str(run / "nothing"), 4)) == 3
    with pytest.raises(OSError):
        handles.Folder(str(run)).step("nothing")
    assert count_open() == before


# --- many folders ----------------------------------------------------------------------------------------------------


def test_few_folders_stay_open_and_the_last_ones_are_not_entered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(50):
        (tmp_path / "a" / str(n) / "b").mkdir(parents=True)
    before = count_open()
    reach = Reach(folder_at(str(tmp_path)), kept_open=4)
    for n in range(50):
        with reach.folder(f"a/{n}/b"):
            assert count_open() <= before + 1 + 5
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_, **__: pytest.fail("it was entered again"))
        with reach.folder("a/49/b") as first, reach.folder("a/49/b") as second:
            assert first is second
    reach.close()
    assert count_open() == before


def test_a_folder_in_use_is_closed_by_its_last_user(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    before = count_open()
    reach = Reach(folder_at(str(tmp_path)), kept_open=1)
    with reach.folder("a") as folder:
        with reach.folder("b"), reach.folder("c"):
            assert folder.names() == []
        reach.forget()
        assert folder.names() == []
        with reach.folder("a") as anew:
            assert anew is not folder
    reach.close()
    assert count_open() == before


def test_many_threads_reach_the_right_folders(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / str(n) / "in").mkdir(parents=True)
        (tmp_path / str(n) / "in" / f"{n}.tif").touch()
    before = count_open()
    reach = Reach(folder_at(str(tmp_path)), kept_open=3)
    wrong: list[object] = []

    def ask(first: int) -> None:
        try:
            for n in range(first, first + 300):
                with reach.folder(f"{n % 20}/in") as folder:
                    if folder.names() != [f"{n % 20}.tif"]:
                        wrong.append(n)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reach.close()
    assert wrong == []
    assert count_open() == before


# --- the lock --------------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_a_lock_keeps_out_filelock_and_is_kept_out_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_handle: bool
) -> None:
    from filelock import FileLock, Timeout

    monkeypatch.setattr(handles, "_BY_HANDLE", by_handle)
    theirs = FileLock(tmp_path / "x.lock", timeout=0)
    with folder_at(str(tmp_path)) as folder:
        ours = file_lock.take(folder, "x.lock", wait_s=0)
        assert ours.is_named(folder, "x.lock")
        with pytest.raises(Timeout):
            theirs.acquire()
        with pytest.raises(LockedError):
            file_lock.take(folder, "x.lock", wait_s=0)
        ours.release()
        ours.release()
        with theirs, pytest.raises(LockedError):
            file_lock.take(folder, "x.lock", wait_s=0)
        file_lock.take(folder, "x.lock", wait_s=0).release()


def test_a_lock_that_was_removed_before_it_was_taken_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = file_lock._is_locked
    removed: list[bool] = []

    def remove_first(descriptor: int) -> bool:
        if not removed:
            removed.append(True)
            (tmp_path / "x.lock").unlink()
        return real(descriptor)

    monkeypatch.setattr(file_lock, "_is_locked", remove_first)
    with folder_at(str(tmp_path)) as folder:
        lock = file_lock.take(folder, "x.lock", wait_s=1)
        assert lock.is_named(folder, "x.lock")
        lock.release()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_is_no_lock_and_leads_nowhere(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    if kind == "link":
        path.symlink_to(tmp_path / "made")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = count_open()
    with folder_at(str(tmp_path)) as folder, pytest.raises(OSError):
        file_lock.take(folder, "x.lock", wait_s=0)
    assert count_open() == before
    assert os.listdir(tmp_path) == ["x.lock"]


def test_a_lock_of_another_account_that_may_only_be_read_can_be_taken(tmp_path: Path) -> None:
    real = Folder.open

    class ReadOnly(Folder):
        def open(self, name: str, flags: int, mode: int = 0o600) -> int:
            if flags & os.O_RDWR and not flags & os.O_CREAT:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(self, name, flags, mode)

    (tmp_path / "x.lock").touch()
    with ReadOnly(str(tmp_path), os.open(tmp_path, os.O_RDONLY)) as folder:
        file_lock.take(folder, "x.lock", wait_s=0).release()


def test_a_file_system_that_refuses_modes_and_owners_has_locks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "fchown", refuse)
    with folder_at(str(tmp_path)) as folder:
        file_lock.take(folder, "x.lock", wait_s=0).release()
