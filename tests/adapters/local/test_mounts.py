"""What a destination's file system shows: another machine, or a cache on this PC that may answer for one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local.mounts import (
    WINDOWS_SHARE,
    Mount,
    answers_from_a_cache,
    is_elsewhere,
    mount_below,
    mount_in,
)

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:41 / /mnt/lab rw - nfs4 nas01:/export/lab\040data rw
31 22 0:42 / /mnt/odd rw - tmpfs  rw
"""


def test_a_mount_is_told_with_what_is_behind_it() -> None:
    assert mount_in(MOUNTINFO, "/mnt/lab/SCOPE_01") == Mount("nfs4", "nas01:/export/lab data")
    assert mount_in(MOUNTINFO, "/mnt/laboratory") == Mount("ext4", "/dev/sda1")
    assert mount_in(MOUNTINFO, "/mnt/odd/x").kind == "tmpfs"
    assert mount_in("", "/mnt/lab") == Mount("", "")


def test_a_mount_that_a_later_one_further_up_hides_is_not_told() -> None:
    hidden = MOUNTINFO + "33 22 0:50 / /mnt rw - fuse.rclone far: rw\n"
    assert mount_in(hidden, "/mnt/lab/SCOPE_01", device="0:50") == Mount("fuse.rclone", "far:")
    assert mount_in(hidden, "/mnt/lab/SCOPE_01", device="0:99").kind == "nfs4"


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.ceph-fuse", "glusterfs", "fuse.glusterfs", "9p", WINDOWS_SHARE]
)  # fmt: skip
def test_a_network_file_system_is_shown_to_be_another_machine(kind: str) -> None:
    assert is_elsewhere(kind)
    assert not answers_from_a_cache(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "vfat", "fuseblk", "tmpfs", "overlay", "fuse.sshfs", "fuse.mergerfs", "fuse.bindfs", ""]
)  # fmt: skip
def test_any_other_folder_is_asked_about_and_may_be_used(kind: str) -> None:
    assert not is_elsewhere(kind)
    assert not answers_from_a_cache(kind)


@pytest.mark.parametrize(
    "kind", ["fuse", "fuse.rclone", "fuse.s3fs", "fuse.gvfsd-fuse", "fuse.davfs2", "fuse.onedriver"]
)
def test_an_unknown_file_system_in_user_space_may_answer_from_a_cache(kind: str) -> None:
    assert answers_from_a_cache(kind)
    assert not is_elsewhere(kind)


# --- a folder that is a mount of its own --------------------------------------------------------------------------------


@contextmanager
def mounted(target: Path, *words: str) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *words, str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def test_a_plain_folder_a_link_a_file_and_nothing_lie_on_the_file_system_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root" / "plain").mkdir(parents=True)
    (tmp_path / "root" / "file").touch()
    (tmp_path / "root" / "link").symlink_to("/proc")
    for name in ("plain", "file", "link", "nothing"):
        assert mount_below(str(tmp_path / "root"), name) == Mount("", "")
    assert mount_below("/", "proc") == Mount("proc", "proc") or not os.path.ismount("/proc")


def test_a_mount_is_known_by_type_and_source_and_also_one_of_a_folder_of_the_same_disk(tmp_path: Path) -> None:
    root, child = tmp_path / "root", tmp_path / "root" / "a project"
    with mounted(child, "-t", "tmpfs", "tank/a project"):
        assert mount_below(str(root), child.name) == Mount("tmpfs", "tank/a project")
    assert mount_below(str(root), child.name) == Mount("", "")
    (tmp_path / "elsewhere").mkdir()
    with mounted(child, "--bind", str(tmp_path / "elsewhere")):
        found = mount_below(str(root), child.name)
        assert found is not None
        assert found.kind
        assert found.source.endswith("elsewhere]")
        assert os.stat(child).st_dev == os.stat(root).st_dev, "no device number tells"


def test_a_mount_that_the_root_itself_was_mounted_over_is_not_told(tmp_path: Path) -> None:
    root, child = tmp_path / "root", tmp_path / "root" / "project"
    with mounted(child, "-t", "tmpfs", "first"), mounted(root, "-t", "tmpfs", "second"):
        child.mkdir()
        assert mount_below(str(root), "project") == Mount("", "")


def test_a_root_that_is_itself_a_mount_or_reached_by_a_link_has_plain_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (tmp_path / "link").symlink_to(root)
    with mounted(root, "-t", "tmpfs", "nas"):
        (root / "project").mkdir()
        for spelled in (root, tmp_path / "link"):
            assert mount_below(str(spelled), "project") == Mount("", "")
    with pytest.raises(FileNotFoundError):
        mount_below(str(tmp_path / "none"), "project")
