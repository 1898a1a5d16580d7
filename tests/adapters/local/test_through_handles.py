"""Everything that touches a run does so step by step: a folder that is swapped for a link leads nowhere else, and no path is
too long.

The agent is often root, and the account of the instrument may rename what is in a run at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.local.cache_folder import CacheFolderSealer
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.root_lock import EquipmentRootLock
from exlab_watch_agent.adapters.local.run_log import RunLogWriter
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide
from exlab_watch_agent.core.inventory import FileEntry, OddEntry, OddKind
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget
from exlab_watch_agent.errors import AgentError, RunUnreadableError, SourceChangedError
from exlab_watch_agent.ports import Control
from tests.lab.disks import full_disk
from tests.lab.swapping import deep_folder, exchange, swapping, write_below
from tests.sim.world import FakeClock

TREE = DiskRunTree()
CACHE = ".exlab-wizard"
SECRET = b"what only root may read"
TRY_FOR_S = 1.0
CREATION = json.dumps({"schema_version": "1.8", "level": "run", "sync_status": "pending"})


class Place:
    """A run, and beside it a folder that the agent must never come to, with a link to it."""

    def __init__(self, home: Path) -> None:
        self.local_root = home / "local"
        self.equipment = self.local_root / "SCOPE_01"
        self.run = self.equipment / "P" / "Runs" / "Run_2026-04-17T14-32"
        self.outside = home / "outside"
        (self.run / CACHE).mkdir(parents=True)
        (self.run / CACHE / "creation.json").write_text(CREATION)
        self.outside.mkdir()
        self.link = home / "link"
        self.link.symlink_to(self.outside)
        self.policy = EquipmentPolicy("SCOPE_01", "Scope", str(self.local_root), MountedPathTarget(str(home / "nas")))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with deep_folder(tmp_path) as folder:
        yield folder


@pytest.fixture
def place(home: Path) -> Place:
    return Place(home)


@contextmanager
def nothing_is_made_in(folder: Path) -> Iterator[None]:
    """Fail if a name came or went in the folder, also for a moment."""
    before = (sorted(os.listdir(folder)), folder.stat().st_mtime_ns)
    yield
    assert (sorted(os.listdir(folder)), folder.stat().st_mtime_ns) == before


def again_and_again(act: Callable[[], object]) -> None:
    """Do something for a moment; what it raises about a run that is being changed is not the question here."""
    until = time.monotonic() + TRY_FOR_S
    while time.monotonic() < until:
        with suppress(AgentError, OSError):
            act()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_was_swapped_for_a_link_on_the_way_shows_nothing_of_where_it_leads(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_below(place.run, ["a", "b", "image.tif"], b"x")
    write_below(place.outside, ["b", "key.pem"], SECRET)
    real = os.open

    def open_after_the_swap(path: str, *arguments: int, **options: int) -> int:
        if os.path.basename(path) == "b" and not (place.run / "a").is_symlink():
            exchange(place.run / "a", place.link)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_after_the_swap)
    names: list[str] = []
    with suppress(RunUnreadableError):
        names = [entry.path for entry in TREE.inventory(str(place.run)).files]
    assert (place.run / "a").is_symlink()
    assert names in ([], ["a/b/image.tif"])


def test_a_folder_that_is_swapped_for_a_link_without_pause_shows_nothing_of_where_it_leads(place: Place) -> None:
    write_below(place.run, ["a", "b", "image.tif"], b"x")
    write_below(place.outside, ["b", "key.pem"], SECRET)
    found: set[str] = set()
    with swapping(place.run / "a", place.link):
        again_and_again(lambda: found.update(entry.path for entry in TREE.inventory(str(place.run)).files))
    assert found <= {"a/b/image.tif"}


def test_no_file_outside_is_hashed_in_place_of_one_whose_folder_was_swapped_for_a_link(place: Place) -> None:
    write_below(place.run, ["a", "image.tif"], b"x")
    (place.run / "a").rename(place.outside / "a")
    (place.run / "a").symlink_to(place.outside / "a")  # the very same file, reached through a link
    status = (place.outside / "a" / "image.tif").stat()
    entry = FileEntry(
        "a/image.tif", 1, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
    )  # fmt: skip
    with pytest.raises(SourceChangedError):
        LocalDigester().digests(str(place.run), [entry], control=Control())


def test_a_project_that_is_swapped_for_a_link_shows_no_run_of_where_it_leads(place: Place) -> None:
    (place.outside / "Runs" / "Run_2020-01-01T00-00").mkdir(parents=True)
    seen: set[str] = set()
    with swapping(place.equipment / "P", place.link):
        again_and_again(lambda: seen.update(run.place.leaf for run in DiskRunScanner().scan(place.policy)))
    assert seen <= {place.run.name}


# --- writing ---------------------------------------------------------------------------------------------------------


def test_no_lock_and_no_creation_json_is_made_where_a_swapped_cache_folder_leads(place: Place) -> None:
    (place.outside / "creation.json").write_text(CREATION)
    status = iter(["synced", "pending"] * 1_000_000)
    files = JsonCreationFiles(lock_wait_s=0.1)
    with nothing_is_made_in(place.outside):
        with swapping(place.run / CACHE, place.link):
            again_and_again(lambda: files.set_sync_status(str(place.run), next(status)))
        assert (place.outside / "creation.json").read_text() == CREATION


def test_no_log_is_written_where_a_swapped_cache_folder_leads(place: Place) -> None:
    writer = RunLogWriter("labpc-04")
    with nothing_is_made_in(place.outside), swapping(place.run / CACHE, place.link):
        again_and_again(lambda: writer._append(str(place.run), "a line"))


def test_no_seal_is_written_where_a_swapped_cache_folder_leads(place: Place) -> None:
    with nothing_is_made_in(place.outside), swapping(place.run / CACHE, place.link):
        again_and_again(lambda: CacheFolderSealer().write(str(place.run), "checksums.sha256", b"x"))


def test_no_lock_of_the_root_is_made_where_a_swapped_cache_folder_leads(place: Place) -> None:
    (place.equipment / CACHE).mkdir()
    lock = EquipmentRootLock(str(place.equipment), holder={"pid": 1})

    def take_and_release() -> None:
        try:
            lock.take()
        finally:
            lock.release()

    with nothing_is_made_in(place.outside), swapping(place.equipment / CACHE, place.link):
        again_and_again(take_and_release)


def test_no_probe_file_is_made_where_a_swapped_cache_folder_leads(place: Place) -> None:
    (place.local_root.parent / "nas").mkdir()
    transport = Destination(MountedFarSide(str(place.local_root.parent / "nas")))
    apartness = ProbedApartness(place.policy, transport, FakeClock())
    with nothing_is_made_in(place.outside), swapping(place.run / CACHE, place.link):
        again_and_again(lambda: apartness.require_run(str(place.run), "P/Runs/x"))


def test_a_run_that_is_swapped_for_a_link_is_neither_written_nor_read_where_that_leads(place: Place) -> None:
    (place.outside / CACHE).mkdir()
    (place.outside / CACHE / "creation.json").write_text(CREATION)
    (place.outside / "key.pem").write_bytes(SECRET)
    writer = RunLogWriter("labpc-04")
    seen: set[str] = set()

    def act() -> None:
        seen.update(entry.path for entry in TREE.inventory(str(place.run)).files)
        for step in (
            lambda: writer._append(str(place.run), "a line"),
            lambda: CacheFolderSealer().write(str(place.run), "checksums.sha256", b"x"),
            lambda: JsonCreationFiles(lock_wait_s=0.1).set_sync_status(str(place.run), "synced"),
        ):
            with suppress(AgentError, OSError):
                step()

    with nothing_is_made_in(place.outside / CACHE), swapping(place.run, place.link):
        again_and_again(act)
    assert seen == set()


def test_the_folder_that_the_config_names_may_be_reached_through_links(place: Place, tmp_path: Path) -> None:
    (tmp_path / "by another name").symlink_to(place.local_root)
    run = tmp_path / "by another name" / place.run.relative_to(place.local_root)
    write_below(place.run, ["a", "image.tif"], b"x")
    assert [entry.path for entry in TREE.inventory(str(run)).files] == ["a/image.tif"]
    JsonCreationFiles().set_sync_status(str(run), "synced")
    CacheFolderSealer().write(str(run), "checksums.sha256", b"x")
    assert {"creation.json", "checksums.sha256"} <= set(os.listdir(place.run / CACHE))


@pytest.mark.parametrize("level", ["SCOPE_01", "P", "Runs"])
def test_below_that_folder_no_level_may_be_a_link(place: Place, level: str) -> None:
    folder = next(parent for parent in (place.run, *place.run.parents) if parent.name == level)
    folder.rename(place.outside / level)
    folder.symlink_to(place.outside / level)
    with pytest.raises(AgentError):
        TREE.inventory(str(place.run))
    with pytest.raises(AgentError):
        JsonCreationFiles().read(str(place.run))
    with pytest.raises(AgentError):
        CacheFolderSealer().write(str(place.run), "checksums.sha256", b"x")


# --- paths that are longer than the system takes ---------------------------------------------------------------------

LONG = ["d" * 250] * 20
"""Names that together are longer than PATH_MAX, 4,096 bytes on Linux."""


def test_a_file_whose_path_is_longer_than_the_system_takes_is_listed_read_and_hashed(place: Place) -> None:
    write_below(place.run, [*LONG, "image.tif"], SECRET)
    path = "/".join([*LONG, "image.tif"])
    found = TREE.inventory(str(place.run))
    assert [entry.path for entry in found.files] == [path]
    assert len(found.directories) == len(LONG)
    assert TREE.read_small(str(place.run), path, limit_bytes=100) == SECRET
    digests = LocalDigester().digests(str(place.run), found.files, control=Control())
    assert digests == {path: hashlib.sha256(SECRET).hexdigest()}
    assert LocalDigester().samples(str(place.run), found.files, control=Control()).keys() == {path}


def test_a_cache_file_whose_path_is_longer_than_the_system_takes_is_found(place: Place) -> None:
    write_below(place.run, [CACHE, *LONG, "note.txt"], b"x")
    assert "/".join([CACHE, *LONG, "note.txt"]) in [entry.path for entry in TREE.cache_files(str(place.run))]


def test_folders_in_each_other_without_number_are_listed_with_few_handles(place: Place) -> None:
    names = ["d"] * 3000
    write_below(place.run, [*names, "image.tif"], b"x")
    write_below(place.run, [*names[:1500], "e", "image.tif"], b"x")
    found = TREE.inventory(str(place.run))
    assert len(found.directories) == 3001
    digests = LocalDigester().digests(str(place.run), found.files, control=Control())
    assert len(digests) == len(found.files) == 2


def test_a_run_whose_own_path_is_longer_than_the_system_takes_is_found_read_and_written(home: Path) -> None:
    local_root = home
    while len(str(local_root)) < 3600:
        local_root /= "d" * 200
    names = ["E" * 100, "P" * 250, "Runs", "Run_" + "n" * 240]
    local_root.mkdir(parents=True)
    write_below(local_root, [*names, CACHE, "creation.json"], CREATION.encode())
    write_below(local_root, [*names, "image.tif"], SECRET)
    policy = EquipmentPolicy(names[0], "Scope", str(local_root), MountedPathTarget(str(home / "nas")))
    (seen,) = DiskRunScanner().scan(policy)
    assert len(seen.place.run_path) > 4096
    assert seen.creation_signature not in (None, (0, 0, 0))
    run_path = seen.place.run_path
    assert DiskRunScanner().is_there(run_path)
    assert not DiskRunScanner().is_there(run_path[:-1])
    assert TREE.has_name(run_path, "image.tif")
    assert not TREE.has_name(run_path, "other.tif")
    assert len(TREE.inventory(run_path).files) == 1
    files = JsonCreationFiles()
    files.set_sync_status(run_path, "synced")
    assert files.read(run_path).creation.sync_status == "synced"
    CacheFolderSealer().write(run_path, "checksums.sha256", b"x")
    RunLogWriter("labpc-04")._append(run_path, "a line")
    assert {entry.path for entry in TREE.cache_files(run_path)} == {
        f"{CACHE}/{name}" for name in ("creation.json", "checksums.sha256", "wizard.labpc-04.log")
    }


# --- one device ------------------------------------------------------------------------------------------------------


def test_a_place_in_a_run_where_another_disk_is_mounted_is_shown_and_not_entered(place: Place) -> None:
    with full_disk(place.run / "a" / "mounted") as mounted:
        (mounted / "key.pem").write_bytes(SECRET)
        found = TREE.inventory(str(place.run))
        assert found.odd == (OddEntry("a/mounted", OddKind.MOUNT_POINT),)
        assert found.files == ()
        with pytest.raises(RunUnreadableError):
            TREE.read_small(str(place.run), "a/mounted/key.pem", limit_bytes=100)


def test_nothing_is_written_into_a_cache_folder_on_which_another_disk_is_mounted(place: Place) -> None:
    with full_disk(place.run / CACHE) as mounted:
        (mounted / "creation.json").write_text(CREATION)
        for act in (
            lambda: JsonCreationFiles().set_sync_status(str(place.run), "synced"),
            lambda: CacheFolderSealer().write(str(place.run), "checksums.sha256", b"x"),
            lambda: TREE.cache_files(str(place.run)),
        ):
            with pytest.raises(AgentError):
                act()
        assert os.listdir(mounted) == ["creation.json"]


def test_the_folder_of_an_equipment_or_of_a_run_may_be_a_disk_of_its_own(place: Place) -> None:
    with full_disk(place.run) as run:
        (run / CACHE).mkdir()
        (run / CACHE / "creation.json").write_text(CREATION)
        assert TREE.inventory(str(place.run)).files == ()
        assert len(DiskRunScanner().scan(place.policy)) == 1
        JsonCreationFiles().set_sync_status(str(place.run), "synced")


# --- what others may do with our files -------------------------------------------------------------------------------


def test_nothing_that_the_agent_makes_in_a_run_or_beside_it_may_be_written_by_everybody(place: Place) -> None:
    before = os.umask(0)
    try:
        JsonCreationFiles().set_sync_status(str(place.run), "synced")
        CacheFolderSealer().write(str(place.run), "checksums.sha256", b"x")
        RunLogWriter("labpc-04")._append(str(place.run), "a line")
        lock = EquipmentRootLock(str(place.equipment), holder={"pid": 1})
        lock.take()
        lock.release()
    finally:
        os.umask(before)
    made = [path for folder in (place.run / CACHE, place.equipment / CACHE) for path in (folder, *folder.iterdir())]
    assert len(made) == 2 + 4 + 2
    assert [path.name for path in made if path.stat().st_mode & 0o002] == []
