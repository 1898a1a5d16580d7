"""Which folders are watched, what an event is about, on what file systems events arrive, and how much is allowed."""

from __future__ import annotations

import pytest

from exlab_watch_agent.adapters.local import mounts
from exlab_watch_agent.adapters.watching.levels import is_watched, subject_of
from exlab_watch_agent.adapters.watching.limits import Limits, judged, more_watches, watches_for
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.ports import SeenRun

CACHE = ".exlab-wizard"
RUN = ("P 1", "Runs", "Run_2026-04-17T14-32")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), True),
        (("P 1",), True),
        ((CACHE,), True),
        ((".Trash-1000",), False),
        (("P 1", "Runs"), True),
        (("P 1", "TestRuns"), True),
        (("P 1", "docs"), False),
        (("P 1", CACHE), False),
        ((CACHE, "Runs"), False),
        (RUN, True),
        (("P 1", "Runs", ".hidden"), False),
        ((*RUN, CACHE), True),
        ((*RUN, "data"), False),
        ((*RUN, CACHE, ".trash-1"), False),
    ],
)
def test_the_levels_down_to_the_cache_folder_are_watched_and_no_data(parts: tuple[str, ...], expected: bool) -> None:
    assert is_watched(parts) is expected


@pytest.mark.parametrize(
    ("parts", "is_folder", "expected"),
    [
        ((), True, None),
        (("P 1",), True, ("P 1",)),
        (("README.md",), False, None),
        (("P 1", "Runs"), True, ("P 1", "Runs")),
        (("P 1", "docs"), True, None),
        (RUN, True, RUN),
        (RUN, False, None),
        ((*RUN, "1.tif"), False, RUN),
        ((*RUN, CACHE), True, RUN),
        ((*RUN, CACHE, "creation.json"), False, (*RUN, CACHE, "creation.json")),
        ((*RUN, CACHE, "readme_fields.json"), False, (*RUN, CACHE, "readme_fields.json")),
        ((*RUN, CACHE, "ingest.json"), False, (*RUN, CACHE, "ingest.json")),
        ((*RUN, CACHE, "wizard.pc.log"), False, None),
        ((*RUN, CACHE, "creation.json.lock"), False, None),
        ((*RUN, "data", "creation.json"), False, None),
        (("P 1", "docs", "a", "b"), False, None),
        (("P 1", "Runs", ".hidden", "b"), False, None),
        ((CACHE, "watch-agent.canary"), False, (CACHE, "watch-agent.canary")),
        ((CACHE, "watch-agent.lock"), False, None),
        ((CACHE, "Runs", "Run_1"), True, None),
    ],
)
def test_an_event_is_about_a_run_a_folder_above_it_or_nothing(
    parts: tuple[str, ...], is_folder: bool, expected: tuple[str, ...] | None
) -> None:
    assert subject_of(parts, is_folder=is_folder) == expected


MOUNTINFO = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /mnt/lab rw,relatime shared:1 - nfs4 nas:/lab rw
41 27 0:51 / /mnt/my\040lab rw - cifs //nas/lab rw
42 40 0:52 / /mnt/lab/fast rw - xfs /dev/vdb rw
43 42 0:53 / /mnt/lab/fast rw - fuse.sshfs me@pc:/ rw
44 27 0:54 / /mnt/labels rw - tmpfs tmpfs rw
a broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/lab", "ext4"),
        ("/", "ext4"),
        ("/mnt/lab", "nfs4"),
        ("/mnt/lab/SCOPE_01", "nfs4"),
        ("/mnt/laboratory", "ext4"),
        ("/mnt/my lab/SCOPE_01", "cifs"),
        ("/mnt/lab/fast/x", "fuse.sshfs"),
        ("/mnt/labels/x", "tmpfs"),
    ],
)
def test_a_folder_is_on_the_mount_that_is_nearest_above_it_and_on_top(path: str, kind: str) -> None:
    assert mounts.mount_in(MOUNTINFO, path).kind == kind


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.rclone", "virtiofs", "vboxsf"]
)
def test_events_of_others_do_not_arrive_on_a_share(kind: str) -> None:
    assert mounts.is_shared(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "fuseblk", "fuse.mergerfs", "overlay", "vfat", ""])
def test_a_local_disk_is_no_share(kind: str) -> None:
    assert not mounts.is_shared(kind)


def test_this_folders_file_system_is_told(tmp_path: object) -> None:
    assert mounts.kind_of(str(tmp_path))


def test_the_watches_of_an_equipment_are_its_runs_their_cache_folders_and_those_above() -> None:
    def seen(project: str, leaf: str, *, has_creation: bool = True) -> SeenRun:
        place = RunPlace(f"/lab/E/{project}/Runs/{leaf}", "E", project, "Runs", leaf)
        return SeenRun(place, FileSignature(1, 1, 1) if has_creation else None)

    runs = [seen("P1", "Run_1"), seen("P1", "Run_2"), seen("P2", "Run_1", has_creation=False)]
    assert watches_for(runs) == 2 + 2 + 2 + 3 + 2


def test_too_few_watches_or_instances_are_said_with_the_command_that_helps() -> None:
    assert [is_fine for is_fine, _ in judged(100, 2, Limits(8192, 128, 16384))] == [True]
    [(is_fine, text)] = judged(20_000, 2, Limits(8192, 128, 16384))
    assert not is_fine
    assert "sysctl -w fs.inotify.max_user_watches=65536" in text
    [_, (is_fine, text)] = judged(100, 200, Limits(8192, 128, 16384))
    assert not is_fine
    assert "max_user_instances=1024" in text
    assert judged(100, 2, Limits()) == []
    assert more_watches(100_000).endswith("=262144")
