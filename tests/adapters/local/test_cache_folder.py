"""Manifests in the state folder and the agent's own files in a run, on real folders."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local.cache_folder import CacheFolderSealer, FolderManifestStore
from exlab_watch_agent.errors import ManifestNotKeptError, RunUnreadableError

JOB = "8c7e" * 8
DATA = b"0" * 64 + b"  a.tif\n"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def manifests(tmp_path: Path) -> FolderManifestStore:
    return FolderManifestStore(tmp_path / "state" / "manifests")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / ".exlab-wizard").mkdir(parents=True)
    return tmp_path / "run"


def test_a_manifest_is_loaded_by_its_digest_and_by_no_other(manifests: FolderManifestStore) -> None:
    assert manifests.load(JOB, digest=digest(DATA)) is None
    manifests.save(JOB, DATA)
    assert manifests.load(JOB, digest=digest(DATA)) == DATA
    assert manifests.load(JOB, digest=digest(b"")) is None
    assert manifests.load("another", digest=digest(DATA)) is None


def test_the_latest_manifest_of_a_run_counts(manifests: FolderManifestStore) -> None:
    manifests.save(JOB, DATA)
    manifests.save(JOB, DATA * 2)
    assert manifests.load(JOB, digest=digest(DATA)) is None
    assert manifests.load(JOB, digest=digest(DATA * 2)) == DATA * 2


def test_a_damaged_manifest_is_none_at_all(manifests: FolderManifestStore, tmp_path: Path) -> None:
    manifests.save(JOB, DATA)
    (path,) = (tmp_path / "state" / "manifests").iterdir()
    for damaged in (b"", DATA[:-1], DATA + b"\n", DATA.upper() + b"x"):
        path.write_bytes(damaged)
        assert manifests.load(JOB, digest=digest(DATA)) is None
    manifests.save(JOB, DATA)
    assert manifests.load(JOB, digest=digest(DATA)) == DATA


def test_manifests_are_private_and_durable_with_their_folder(
    manifests: FolderManifestStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    manifests.save(JOB, DATA)
    folder = tmp_path / "state" / "manifests"
    (path,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(folder.parent) in synced
    assert synced[-1] == str(folder)
    assert len(synced) == 3


def test_saving_the_same_manifest_again_writes_no_file_and_makes_its_name_durable(
    manifests: FolderManifestStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests.save(JOB, DATA)
    (path,) = (tmp_path / "state" / "manifests").iterdir()
    before = (path.stat().st_ino, path.stat().st_mtime_ns)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    manifests.save(JOB, DATA)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    assert synced == [str(path.parent)]


def test_a_manifest_whose_saving_fails_leaves_the_old_one(
    manifests: FolderManifestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests.save(JOB, DATA)

    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(ManifestNotKeptError, match=r"No space.*make room.*tries again"):
            manifests.save(JOB, DATA * 2)
    assert manifests.load(JOB, digest=digest(DATA)) == DATA


def test_what_was_found_wrong_is_kept_beside_the_manifest_until_it_is_forgotten(manifests: FolderManifestStore) -> None:
    odd = ["a.tif", "sub/caf\udce9.tif", "two\nlines"]
    assert manifests.wrong(JOB) == frozenset()
    manifests.forget_wrong(JOB)
    manifests.note_wrong(JOB, odd)
    assert manifests.wrong(JOB) == frozenset(odd)
    assert manifests.wrong("another") == frozenset()
    manifests.note_wrong(JOB, ["b.tif"])
    assert manifests.wrong(JOB) == {"b.tif"}
    manifests.save(JOB, DATA)
    manifests.forget_wrong(JOB)
    assert manifests.wrong(JOB) == frozenset()
    assert manifests.load(JOB, digest=digest(DATA)) == DATA


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'["a"', b"\xff", b"[" * 100_000])
def test_a_list_of_what_is_wrong_that_cannot_be_read_names_nothing(
    manifests: FolderManifestStore, tmp_path: Path, damaged: bytes
) -> None:
    manifests.note_wrong(JOB, ["a.tif"])
    (path,) = (tmp_path / "state" / "manifests").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(damaged)
    assert manifests.wrong(JOB) == frozenset()


def test_a_list_that_cannot_be_written_or_removed_says_so(
    manifests: FolderManifestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests.note_wrong(JOB, ["a.tif"])

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        patch.setattr(os, "unlink", fail)
        with pytest.raises(ManifestNotKeptError, match="list of what is wrong"):
            manifests.note_wrong(JOB, ["b.tif"])
        with pytest.raises(ManifestNotKeptError, match="list of what is wrong"):
            manifests.forget_wrong(JOB)
    assert manifests.wrong(JOB) == {"a.tif"}


def test_a_sealed_file_stands_whole_in_the_cache_folder_and_may_be_written_again(run: Path) -> None:
    for data in (DATA, DATA * 2, DATA * 2, b""):
        CacheFolderSealer().write(str(run), "checksums.sha256", data)
        assert (run / ".exlab-wizard" / "checksums.sha256").read_bytes() == data
        assert os.listdir(run / ".exlab-wizard") == ["checksums.sha256"]
    assert (run / ".exlab-wizard" / "checksums.sha256").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a.tif", "sub/a", "/etc/passwd", "a/", "..\\a", "C:a", "a\0b", "./a"], ids=repr
)
def test_only_a_plain_name_can_be_written(run: Path, tmp_path: Path, name: str) -> None:
    (run / ".exlab-wizard" / "sub").mkdir()
    (run / "a.tif").write_bytes(b"data")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="only a plain name"):
        CacheFolderSealer().write(str(run), name, b"x")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (run / "a.tif").read_bytes() == b"data"


def test_nothing_is_written_through_a_cache_folder_that_is_a_link(run: Path, tmp_path: Path) -> None:
    (run / ".exlab-wizard").rmdir()
    (tmp_path / "outside").mkdir()
    (run / ".exlab-wizard").symlink_to(tmp_path / "outside")
    with pytest.raises(RunUnreadableError, match="is a link"):
        CacheFolderSealer().write(str(run), "checksums.sha256", b"x")
    assert not list((tmp_path / "outside").iterdir())


def test_a_link_that_stands_under_the_name_is_replaced_and_not_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"data")
    (run / ".exlab-wizard" / "checksums.sha256").symlink_to(tmp_path / "outside")
    CacheFolderSealer().write(str(run), "checksums.sha256", b"x")
    assert (tmp_path / "outside").read_bytes() == b"data"
    assert not (run / ".exlab-wizard" / "checksums.sha256").is_symlink()


def test_a_missing_cache_folder_is_a_wait_and_is_not_made(run: Path) -> None:
    (run / ".exlab-wizard").rmdir()
    for folder in (run, run / "gone"):
        with pytest.raises(RunUnreadableError, match="cannot be written"):
            CacheFolderSealer().write(str(folder), "checksums.sha256", b"x")
    assert not list(run.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CacheFolderSealer().write(str(run), "checksums.sha256", b"old")

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RunUnreadableError, match="cannot be written"):
            CacheFolderSealer().write(str(run), "checksums.sha256", b"new")
    assert (run / ".exlab-wizard" / "checksums.sha256").read_bytes() == b"old"
    assert os.listdir(run / ".exlab-wizard") == ["checksums.sha256"]
