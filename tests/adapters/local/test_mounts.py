"""What a destination's file system shows: another machine, or a cache on this PC that may answer for one."""

from __future__ import annotations

import pytest

from exlab_watch_agent.adapters.local.mounts import (
    WINDOWS_SHARE,
    Mount,
    answers_from_a_cache,
    is_elsewhere,
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
