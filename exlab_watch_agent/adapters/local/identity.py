"""By what a file or folder is known to be the same one as before, on every platform: the one place that says so.

Decided here: which members of a status count. Not here: how the status was asked for, which must be of the name itself or of the
open file, never of where a link leads (handles.py).

On Windows `st_ctime` is the time of creation and tells of no change; device and inode are the volume's and the file's number.
Nothing here was tried there.
"""

from __future__ import annotations

import os
import stat

from exlab_watch_agent.core.inventory import FileEntry, FileSignature
from exlab_watch_agent.errors import SourceChangedError


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """Return what no other file or folder has at the same time."""
    return status.st_dev, status.st_ino


def signature_of(status: os.stat_result) -> FileSignature:
    return FileSignature(mtime_ns=status.st_mtime_ns, size_bytes=status.st_size, inode=status.st_ino)


def entry_of(path: str, status: os.stat_result) -> FileEntry:
    return FileEntry(
        path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
    )  # by position: this line runs once a file


def require_unchanged(entry: FileEntry, status: os.stat_result) -> None:
    """Raise SourceChangedError unless the open file is the entry's; members of the entry that are 0 are not known."""
    if (
        status.st_size != entry.size_bytes
        or status.st_mtime_ns != entry.mtime_ns
        or (entry.ctime_ns and status.st_ctime_ns != entry.ctime_ns)
        or (entry.inode and status.st_ino != entry.inode)
        or (entry.device and status.st_dev != entry.device)
        or not stat.S_ISREG(status.st_mode)
    ):
        raise SourceChangedError(f"{entry.path!r} changed while it was being worked on.")
