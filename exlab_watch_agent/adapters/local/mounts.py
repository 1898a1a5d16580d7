"""On what kind of file system a folder is, and whether events of other computers arrive there.

inotify and ReadDirectoryChangesW report what this computer's own kernel does. What an instrument writes to a share from
another computer is on the disk without any event, so such a root must be looked through every few seconds instead.

And of a destination: whether its file system shows that it is on another machine, and whether a program on this PC may answer
there for a server that has not seen the bytes. Source: inotify(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
_ELSEWHERE = frozenset({"9p", "ceph", "cifs", "fuse.glusterfs", "glusterfs", "smb3", "virtiofs"})
"""File systems whose bytes lie on another machine; with every `nfs*` and `fuse.ceph*`."""
_WRITES_THROUGH = frozenset({"fuseblk", "fuse.sshfs", "fuse.glusterfs", "fuse.mergerfs", "fuse.bindfs"})
"""File systems in user space that keep no written bytes back; with every `fuse.ceph*`."""
_DRIVE_REMOTE = 4
_OPEN_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that a folder is on. `kind` and `source` as `mount` shows them; empty where that cannot be told."""

    kind: str
    source: str


def is_elsewhere(kind: str) -> bool:
    """Return whether a folder on this kind of file system is shown to lie on another machine."""
    return kind == WINDOWS_SHARE or kind in _ELSEWHERE or kind.startswith(("nfs", "fuse.ceph"))


def answers_from_a_cache(kind: str) -> bool:
    """Return whether a program on this PC may keep what is written there back, and answer for it when it is read.

    An unknown file system in user space counts as one: nothing that is read back there proves anything.
    """
    is_in_user_space = kind == "fuse" or kind.startswith("fuse.")
    return is_in_user_space and kind not in _WRITES_THROUGH and not kind.startswith("fuse.ceph")


def is_shared(kind: str) -> bool:
    """Return whether other computers may write to this kind of file system without an event here.

    An unknown file system in user space counts as one: to look through it costs little, to be deaf costs a run.
    """
    return kind == WINDOWS_SHARE or kind in _SHARED or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def kind_of(folder: str) -> str:
    """Return the name of the file system that `folder` is on, as `mount` shows it; empty where that cannot be told.

    May wait for ever on a share that does not answer.
    """
    return mount_of(folder).kind


def mount_of(folder: str) -> Mount:
    """Return what `folder` is on. May wait for ever on a share that does not answer."""
    if os.name == "nt":
        drive = os.path.splitdrive(os.path.abspath(folder))[0]
        return Mount(WINDOWS_SHARE if _is_remote_drive(drive) else "", drive)
    try:
        text = _mountinfo()
        real_path = os.path.realpath(folder)
        device = os.stat(real_path).st_dev
        return mount_in(text, real_path, device=f"{os.major(device)}:{os.minor(device)}")
    except OSError:
        return Mount("", "")  # macOS has no such file; the canary still judges.


def mount_below(root: str, name: str) -> Mount | None:
    """Return what the folder `name` directly in `root` is a mount of; empty where it is none, or is not there.

    None where that cannot be told. The kernel is asked on which mount the opened folders are, so that bind mounts count, and
    mounts that others hide do not; opening has an automount come. `source` is as findmnt says it: `/dev/sdb1[/folder]` where only
    a folder of it is mounted. Raises: OSError where either cannot be opened for another reason than that it is not there.
    """
    if not os.path.exists(MOUNTS):
        return None  # neither macOS nor Windows has it
    above = os.open(root, _OPEN_FOLDER)
    try:
        try:
            folder = os.open(name, _OPEN_FOLDER | getattr(os, "O_NOFOLLOW", 0), dir_fd=above)
        except PermissionError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return Mount("", "")
            raise
        try:
            mount_id = _mount_id(folder)
            return Mount("", "") if mount_id == _mount_id(above) else _mount_with(mount_id)
        finally:
            os.close(folder)
    finally:
        os.close(above)


def shares_in(folder: str) -> frozenset[str]:
    """Return the names directly in `folder` on which a share is mounted, or will be once it is entered.

    Asks nothing but the list of mounts, so that a share that does not answer is not waited for. Empty where there is no list.
    """
    try:
        lines = list(_lines_in(_mountinfo()))
    except OSError:
        return frozenset()
    here = os.path.realpath(folder)
    shares = [line.point for line in lines if line.kind == "autofs" or is_shared(line.kind)]
    return frozenset(name for above, name in map(os.path.split, shares) if above == here)


def _mount_id(descriptor: int) -> str:
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")


def _mount_with(mount_id: str) -> Mount | None:
    line = next((line for line in _lines_in(_mountinfo()) if line.mount_id == mount_id), None)
    if line is None:
        return None  # it went away meanwhile
    return Mount(line.kind, line.source + (f"[{line.inside}]" if line.inside != "/" else ""))


def _is_remote_drive(drive: str) -> bool:
    import ctypes

    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # only Windows has it, also in the eyes of mypy
    return drive.startswith("\\\\") or kernel.GetDriveTypeW(drive + "\\") == _DRIVE_REMOTE


def mount_in(mountinfo: str, real_path: str, *, device: str = "") -> Mount:
    """Return what `real_path` is on by the text of a mountinfo file.

    `device`: major and minor number of the folder itself. A mount with these comes before one with a longer name, which a
    later mount further up may hide. (Some file systems, such as btrfs, have numbers of their own for folders.)
    """
    best, found = (False, -1), Mount("", "")
    for line in _lines_in(mountinfo):
        is_inside = real_path == line.point or real_path.startswith(line.point.rstrip("/") + "/")
        # Of two mounts on one point the later one is on top.
        rank = (line.device == device, len(line.point))
        if is_inside and rank >= best:
            best, found = rank, Mount(line.kind, line.source)
    return found


class _Line(NamedTuple):
    """One mount, as a line of a mountinfo file tells it. `inside`: which folder of its file system is mounted at `point`."""

    mount_id: str
    device: str
    inside: str
    point: str
    kind: str
    source: str


def _mountinfo() -> str:
    """Raises: OSError, as neither macOS nor Windows has it."""
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _lines_in(mountinfo: str) -> Iterator[_Line]:
    """Yield the mounts of a mountinfo file, in its order. Source: proc_pid_mountinfo(5)."""
    for text in mountinfo.split("\n"):
        left, _, right = text.partition(" - ")
        fields = left.split(" ")
        if len(fields) >= 5 and right:
            kind, source, *_ = (*right.split(" "), "")
            mount_id, _, device, inside, point = fields[:5]
            yield _Line(mount_id, device, _unescaped(inside), _unescaped(point), kind, _unescaped(source))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
