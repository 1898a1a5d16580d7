"""The durable file protocol, on real files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local import durable
from exlab_watch_agent.adapters.local.durable import (
    FileTooLargeError,
    NotRegularFileError,
    fsync_folder,
    is_temporary_name,
    read_bounded,
    read_in,
    temporary_name,
    write_atomically,
    write_in,
)
from exlab_watch_agent.adapters.local.handles import Folder


class SystemCalls:
    """Records the calls that make up the protocol, and lets one of them fail."""

    NAMES = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self.fail: dict[str, OSError] = {}
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(name)
            if name in self.fail:
                if name == "close":
                    real(*args, **kwargs)
                raise self.fail[name]
            return real(*args, **kwargs)

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> SystemCalls:
    return SystemCalls(monkeypatch)


def test_a_new_file_holds_the_bytes_and_is_private(tmp_path: Path) -> None:
    status = write_atomically(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert os.listdir(tmp_path) == ["a"]


def test_the_returned_status_is_that_of_the_file_that_now_stands_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    status = write_atomically(tmp_path / "a", b"new")
    standing = os.stat(tmp_path / "a")
    assert (status.st_ino, status.st_mtime_ns, status.st_size) == (standing.st_ino, standing.st_mtime_ns, 3)


@pytest.mark.parametrize("mode", [0o640, 0o664, 0o400])
def test_the_mode_is_set_whatever_the_umask_says(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "a", b"x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept_where_the_account_may(tmp_path: Path) -> None:
    status = write_in(Folder(str(tmp_path)), "a", b"x", mode=0o664, owner=(12345, 23456))
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o664)


def test_an_owner_that_cannot_be_kept_is_no_failure_and_the_group_is_tried_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, int]] = []

    def refuse(descriptor: int, uid: int, gid: int) -> None:
        tried.append((uid, gid))
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "fchown", refuse)
    write_in(Folder(str(tmp_path)), "a", b"x", owner=(1, 2))
    assert tried == [(1, 2), (-1, 2)]
    assert (tmp_path / "a").read_bytes() == b"x"


def test_the_last_touch_comes_before_the_fsync_and_forbids_the_file_by_raising(
    tmp_path: Path, calls: SystemCalls
) -> None:
    folder = Folder(str(tmp_path))
    write_in(folder, "a", b"data", mode=0o640, finish=lambda _: calls.seen.append("finish"))
    assert calls.seen[:4] == ["open", "write", "finish", "fsync"]

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "refused")

    with pytest.raises(OSError, match="refused"):
        write_in(folder, "a", b"other", finish=fail)
    assert (tmp_path / "a").read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["a"]


def test_the_order_is_write_fsync_close_replace_fsync_of_the_folder(tmp_path: Path, calls: SystemCalls) -> None:
    write_atomically(tmp_path / "a", b"data")
    assert calls.seen == ["open", "write", "fsync", "close", "replace", "open", "fsync", "close"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: real(descriptor, view[:3]))
    write_atomically(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_write_that_takes_nothing_is_an_error_and_not_an_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, view: 0)
    with pytest.raises(OSError, match="no byte"):
        write_atomically(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["write", "fsync", "close", "replace"])
def test_a_failing_step_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, calls: SystemCalls, step: str) -> None:
    (tmp_path / "a").write_bytes(b"old")
    calls.fail[step] = OSError(errno.ENOSPC, "no space")
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "a", b"new")
    calls.fail.clear()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    assert calls.seen.count("fsync") <= 1, "a failed fsync is never repeated"


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_in(Folder(str(tmp_path)), "a", b"new", before_replace=interrupt)
    assert os.listdir(tmp_path) == []


def test_a_link_at_the_target_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("code", [5, 32, 33])
def test_on_windows_a_target_that_is_held_open_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    attempts = _replace_fails(monkeypatch, times=2, winerror=code)
    waits_s: list[float] = []
    write_atomically(tmp_path / "a", b"x", pause=waits_s.append)
    assert waits_s == [0.05, 0.1]
    assert len(attempts) == 3
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize(("code", "expected"), [(None, 1), (112, 1), (5, 7)])
def test_other_errors_are_not_tried_again_and_the_tries_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, expected: int
) -> None:
    attempts = _replace_fails(monkeypatch, times=1000, winerror=code)
    waits_s: list[float] = []
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a", b"x", pause=waits_s.append)
    assert len(attempts) == len(waits_s) + 1 == expected
    assert os.listdir(tmp_path) == []


def _replace_fails(monkeypatch: pytest.MonkeyPatch, *, times: int, winerror: int | None) -> list[int]:
    attempts: list[int] = []
    real = os.replace

    class SharingError(PermissionError):
        """What Windows raises: elsewhere the class has no `winerror`."""

    def replace(source: Path, target: Path) -> None:
        attempts.append(1)
        if len(attempts) <= times:
            error = SharingError(errno.EACCES, "held open")
            error.winerror = winerror  # type: ignore[attr-defined]
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    return attempts


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_no_failure(tmp_path: Path, calls: SystemCalls, code: int) -> None:
    calls.fail["fsync"] = OSError(code, "cannot")
    fsync_folder(tmp_path)


def test_a_folder_that_fails_to_sync_is_an_error(tmp_path: Path, calls: SystemCalls) -> None:
    calls.fail["fsync"] = OSError(errno.EIO, "broken disk")
    with pytest.raises(OSError, match="broken disk"):
        fsync_folder(tmp_path)
    assert calls.seen == ["open", "fsync", "close"]


def test_temporary_names_are_recognised_and_no_others() -> None:
    assert is_temporary_name(temporary_name("creation.json"))
    assert temporary_name("creation.json").startswith(".creation.json.")
    assert temporary_name("a") != temporary_name("a")
    for name in ("creation.json", "a.tmp", ".a.tmp", ".creation.json.0123.tmp", "x.a.0123456789abcdef.tmp"):
        assert not is_temporary_name(name)


def test_reading_gives_the_bytes_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(FileTooLargeError):
        read_bounded(tmp_path / "a", 4)


def test_a_file_of_several_mebibytes_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20 + 17)
    (tmp_path / "a").write_bytes(data)
    read, status = read_in(Folder(str(tmp_path)), "a", 4 * 2**20)
    assert read == data
    assert status.st_ino == os.stat(tmp_path / "a").st_ino


def test_a_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "a", 5)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "fifo", "socket", "device"])
def test_only_a_regular_file_is_read_and_nothing_hangs(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    monkeypatch.chdir(tmp_path)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "b").write_bytes(b"x")
        path.symlink_to("b")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("a")
    else:
        path = Path("/dev/zero")
    with pytest.raises(NotRegularFileError):
        read_bounded(path, 5)


def test_a_platform_without_nofollow_refuses_a_link_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "a").symlink_to("b")
    monkeypatch.setattr(durable, "_NOFOLLOW", 0)
    monkeypatch.setattr(durable, "READ_FLAGS", os.O_RDONLY)
    with pytest.raises(NotRegularFileError):
        read_bounded(tmp_path / "a", 5)
    assert read_bounded(tmp_path / "b", 5) == b"x"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"xxx")
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for name, error in (("b", FileTooLargeError), ("folder", NotRegularFileError)):
        with pytest.raises(error):
            read_bounded(tmp_path / name, 1)
    write_atomically(tmp_path / "c", b"x")
    assert len(os.listdir("/proc/self/fd")) == before
