"""The tree adapter on a real disk."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local import handles, tree
from exlab_watch_agent.adapters.local.handles import folder_below, is_link
from exlab_watch_agent.adapters.local.tree import DiskRunTree, is_inside
from exlab_watch_agent.core.inventory import OddEntry, OddKind
from exlab_watch_agent.errors import RootUnavailableError, RunUnreadableError

TREE = DiskRunTree()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "Run_2026-04-17T14-32"
    run.mkdir()
    return run


def fill(run: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)


def as_nobody(call: object, *arguments: object, **options: object) -> object:
    """Call without root's power to read everything."""
    if os.geteuid() != 0:
        return call(*arguments, **options)  # type: ignore[operator]
    os.seteuid(65534)
    try:
        return call(*arguments, **options)  # type: ignore[operator]
    finally:
        os.seteuid(0)


def test_an_inventory_holds_every_file_and_folder_sorted_by_path_with_what_lstat_says(run: Path) -> None:
    fill(run, "b/c/d.tif", "a.tif", "b.tif", "b/a.tif", "Z.tif", data=b"12345")
    (run / "empty").mkdir()
    found = TREE.inventory(str(run))
    assert [entry.path for entry in found.files] == ["Z.tif", "a.tif", "b.tif", "b/a.tif", "b/c/d.tif"]
    assert found.directories == ("b", "b/c", "empty")
    assert found.odd == ()
    for entry in found.files:
        status = (run / entry.path).lstat()
        assert (entry.size_bytes, entry.mtime_ns, entry.ctime_ns, entry.inode, entry.device) == (
            status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev,
        )  # fmt: skip


def test_the_cache_folder_is_left_out_at_the_top_and_only_there(run: Path) -> None:
    fill(run, ".exlab-wizard/creation.json", "sub/.exlab-wizard/data.bin", ".exlab-wizard.bak")
    assert [entry.path for entry in TREE.inventory(str(run)).files] == [
        ".exlab-wizard.bak",
        "sub/.exlab-wizard/data.bin",
    ]


def test_links_and_special_files_are_shown_and_never_followed_or_opened(run: Path, tmp_path: Path) -> None:
    fill(tmp_path / "outside", "secret")
    (run / "file-link").symlink_to(tmp_path / "outside" / "secret")
    (run / "folder-link").symlink_to(tmp_path / "outside")
    (run / "dangling").symlink_to("nowhere")
    os.mkfifo(run / "fifo")
    os.mknod(run / "socket", stat.S_IFSOCK | 0o600)  # bind() refuses a path of more than 107 bytes
    found = TREE.inventory(str(run))
    assert found.files == ()
    assert found.directories == ()
    assert found.odd == (
        OddEntry("dangling", OddKind.SYMLINK),
        OddEntry("fifo", OddKind.SPECIAL),
        OddEntry("file-link", OddKind.SYMLINK),
        OddEntry("folder-link", OddKind.SYMLINK),
        OddEntry("socket", OddKind.SPECIAL),
    )


def test_a_cache_folder_that_is_a_link_is_shown_and_not_read(run: Path, tmp_path: Path) -> None:
    fill(tmp_path / "outside", "creation.json")
    (run / ".exlab-wizard").symlink_to(tmp_path / "outside")
    assert TREE.inventory(str(run)).odd == (OddEntry(".exlab-wizard", OddKind.SYMLINK),)
    with pytest.raises(RunUnreadableError):
        TREE.cache_files(str(run))
    with pytest.raises(RunUnreadableError):
        TREE.read_small(str(run), ".exlab-wizard/creation.json", limit_bytes=10)


def test_names_that_are_no_unicode_or_hold_newlines_are_kept_exactly(run: Path) -> None:
    names = [b"caf\xe9", b"two\nlines", "é".encode(), "e\u0301".encode(), b"n" * 255]
    for name in names:
        (run / os.fsdecode(name)).write_bytes(b"")
    assert {os.fsencode(entry.path) for entry in TREE.inventory(str(run)).files} == set(names)


def test_a_run_folder_that_is_not_there_is_an_unavailable_root(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "nothing", tmp_path / "link", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RootUnavailableError, match=path.name):
            TREE.inventory(str(path))
        with pytest.raises(RootUnavailableError):
            TREE.cache_files(str(path))


def test_a_folder_that_cannot_be_listed_makes_no_short_inventory() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others than their owner
        os.chmod(place, 0o755)
        fill(Path(place), "a.tif", "locked/b.tif")
        os.chmod(Path(place) / "locked", 0)
        with pytest.raises(RunUnreadableError, match="locked"):
            as_nobody(TREE.inventory, place)
        os.chmod(Path(place) / "locked", 0o755)


def test_an_entry_that_vanishes_while_it_is_looked_at_is_not_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(run, "a.tif", "b.tif")
    real = os.scandir

    def scandir_then_remove(folder: object) -> object:
        listing = real(folder)  # type: ignore[call-overload]
        (run / "a.tif").unlink(missing_ok=True)
        return listing

    monkeypatch.setattr(os, "scandir", scandir_then_remove)
    assert [entry.path for entry in TREE.inventory(str(run)).files] == ["b.tif"]


@pytest.mark.parametrize("becomes", ["nothing", "link"])
def test_a_folder_that_vanishes_in_the_middle_makes_no_short_inventory(
    run: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    fill(run, "sub/a.tif")
    real = os.open

    def open_after_the_move(path: str, *arguments: int, **options: int) -> int:
        if str(path) == "sub":
            (run / "sub").rename(run.parent / "elsewhere")
            if becomes == "link":
                (run / "sub").symlink_to(run.parent / "elsewhere")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_after_the_move)
    with pytest.raises(RunUnreadableError):
        TREE.inventory(str(run))


def test_a_run_that_is_written_to_without_pause_is_listed_without_error(run: Path) -> None:
    is_over = threading.Event()

    def write() -> None:
        n = 0
        while not is_over.is_set():
            fill(run, f"d{n % 5}/{n % 50}.tif")
            (run / f"d{n % 5}" / f"{n % 50}.tif").unlink()
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            TREE.inventory(str(run))
    finally:
        is_over.set()
        writer.join()


def test_the_way_without_handles_gives_the_same(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows lists by path and steps by path."""
    fill(run, "a.tif", "b/c.tif", ".exlab-wizard/x")
    (run / "link").symlink_to(tmp_path)
    by_handle = TREE.inventory(str(run))
    monkeypatch.setattr(handles, "_BY_HANDLE", False)
    monkeypatch.setattr(tree, "_ON_WINDOWS", True)
    assert TREE.inventory(str(run)) == by_handle
    assert TREE.read_small(str(run), "b/c.tif", limit_bytes=9) == b"x"
    with pytest.raises(RunUnreadableError):
        TREE.read_small(str(run), f"link/{run.name}/a.tif", limit_bytes=9)
    with pytest.raises(NotADirectoryError):
        folder_below(str(run / "link"), 1)
    assert not is_inside("a\\..\\b")
    assert not is_inside("C:x")


def test_cache_files_travel_without_locks_temporary_files_and_trash(run: Path) -> None:
    kept = ["creation.json", "checksums.sha256", "wizard.host.log", "deep/readme_fields.json", ".hidden", "a.tmp"]
    dropped = ["creation.json.lock", ".creation.json.0123456789abcdef.tmp", ".trash-7/data/a.tif", "deep/.b.tmp"]
    fill(run, "data.tif", *(f".exlab-wizard/{name}" for name in kept + dropped), data=b"123")
    os.symlink("creation.json", run / ".exlab-wizard" / "link")
    found = TREE.cache_files(str(run))
    assert [entry.path for entry in found] == sorted(f".exlab-wizard/{name}" for name in kept)
    status = (run / ".exlab-wizard/creation.json").stat()
    entry = next(entry for entry in found if entry.path.endswith("creation.json"))
    assert (entry.size_bytes, entry.inode, entry.device) == (3, status.st_ino, status.st_dev)


def test_a_run_without_a_cache_folder_has_no_cache_files(run: Path) -> None:
    assert TREE.cache_files(str(run)) == ()


def test_a_small_file_is_read_up_to_the_limit(run: Path) -> None:
    fill(run, "a/b.txt", data=b"0123456789")
    assert TREE.read_small(str(run), "a/b.txt", limit_bytes=100) == b"0123456789"
    assert TREE.read_small(str(run), "a/b.txt", limit_bytes=4) == b"0123"
    assert TREE.read_small(str(run), "a/b.txt", limit_bytes=0) == b""


@pytest.mark.parametrize(
    "name", ["link", "folder-link/secret", "fifo", "folder", "missing", "folder/missing", "file/x"]
)
def test_what_is_no_regular_file_inside_the_run_is_not_read(run: Path, tmp_path: Path, name: str) -> None:
    fill(tmp_path / "outside", "secret")
    fill(run, "file", "folder/x")
    (run / "link").symlink_to(tmp_path / "outside" / "secret")
    (run / "folder-link").symlink_to(tmp_path / "outside")
    os.mkfifo(run / "fifo")
    with pytest.raises(RunUnreadableError):
        TREE.read_small(str(run), name, limit_bytes=10)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a//b", "./a", "a\0b"])
def test_no_name_leads_out_of_the_run(run: Path, name: str) -> None:
    fill(run.parent, "secret")
    fill(run, "a/x", "b")
    with pytest.raises(RunUnreadableError):
        TREE.read_small(str(run), name, limit_bytes=10)
    assert not is_inside(name)


class _Reparsed:
    """The status of an entry with a reparse tag, as only Windows gives one."""

    st_file_attributes = 0x400

    def __init__(self, tag: int, mode: int) -> None:
        self.st_reparse_tag = tag
        self.st_mode = mode


@pytest.mark.parametrize("tag", [0xA000000C, 0xA0000003], ids=["symbolic link", "junction or mount point"])
def test_what_stands_for_another_place_is_a_link(tag: int) -> None:
    assert is_link(_Reparsed(tag, 0o040755))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tag", [0x80000013, 0x9000001A, 0x9000701A, 0x80000017, 0x80000018], ids=["dedup", "cloud", "cloud 7", "wof", "wci"]
)
def test_a_file_whose_bytes_the_system_keeps_elsewhere_is_still_that_file(tag: int) -> None:
    assert not is_link(_Reparsed(tag, 0o100644))  # type: ignore[arg-type]
