"""On what kind of file system a folder is, and whether events of other computers arrive there.

inotify and ReadDirectoryChangesW report what this computer's own kernel does. What an instrument writes to a share from
another computer is on the disk without any event, so such a root must be looked through every few seconds instead.
Source: inotify(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re

MOUNTS = "/proc/self/mountinfo"
WINDOWS_SHARE = "a network drive"

_SHARED = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "fuse", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
     "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
     "wekafs"}
)  # fmt: skip
_LOCAL_FUSE = frozenset(
    {"fuse.bindfs", "fuse.cryfs", "fuse.encfs", "fuse.exfat", "fuse.exfat-fuse", "fuse.fuse-overlayfs", "fuse.gocryptfs",
     "fuse.lxcfs", "fuse.mergerfs", "fuse.ntfs", "fuse.ntfs-3g", "fuse.snapfuse", "fuse.unionfs", "fuse.zfs-fuse"}
)  # fmt: skip
_DRIVE_REMOTE = 4


def is_shared(kind: str) -> bool:
    """Return whether other computers may write to this kind of file system without an event here.

    An unknown file system in user space counts as one: to look through it costs little, to be deaf costs a run.
    """
    return kind == WINDOWS_SHARE or kind in _SHARED or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def kind_of(folder: str) -> str:
    """Return the name of the file system that `folder` is on, as `mount` shows it; empty where that cannot be told.

    May wait for ever on a share that does not answer.
    """
    if os.name == "nt":
        return WINDOWS_SHARE if _is_remote_drive(os.path.splitdrive(os.path.abspath(folder))[0]) else ""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            return kind_in(file.read(), os.path.realpath(folder))
    except OSError:
        return ""  # macOS has no such file; the canary still judges.


def _is_remote_drive(drive: str) -> bool:
    import ctypes

    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # only Windows has it, also in the eyes of mypy
    return drive.startswith("\\\\") or kernel.GetDriveTypeW(drive + "\\") == _DRIVE_REMOTE


def kind_in(mountinfo: str, real_path: str) -> str:
    """Return the file system of `real_path` by the text of a mountinfo file."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _unescaped(fields[4])
        inside = real_path == point or real_path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one is on top.
        if inside and len(point) >= best:
            best, kind = len(point), right.split(" ")[0]
    return kind


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
