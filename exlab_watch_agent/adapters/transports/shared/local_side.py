"""The local side of a push by a tool: that the files are those of the list, before and after, and what small ones hold now.

Not here: hashing (digests.py), how a file is reached (sources.py), and what becomes of the bytes (the transports). The tool itself
takes paths and resolves them anew: what it read is judged by what was here before and after (docs/transports.md, What remains).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from exlab_watch_agent.adapters.local.identity import require_unchanged
from exlab_watch_agent.adapters.local.sources import Sources, unreadable
from exlab_watch_agent.adapters.local.tree import read_at_most
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.errors import FailureKind, SourceChangedError, TransportError


def require_sources(source_root: str, files: Iterable[FileEntry]) -> None:
    """Open each file once. Raises: SourceChangedError, RunUnreadableError; TransportError with `local_file_vanished`."""
    with Sources(source_root) as sources:
        for entry in files:
            try:
                os.close(sources.open_as_listed(entry))
            except FileNotFoundError as error:
                text = f"{entry.path!r} was removed from {source_root} before it was copied."
                raise TransportError(FailureKind.LOCAL_FILE_VANISHED, text) from error


def require_sources_unchanged(source_root: str, files: Iterable[FileEntry]) -> None:
    """Raise SourceChangedError unless each file is still what its entry says: then what was read is what was listed."""
    with Sources(source_root) as sources:
        for entry in files:
            try:
                require_unchanged(entry, sources.status_now(entry.path))
            except FileNotFoundError as error:
                raise SourceChangedError(f"{entry.path!r} went away while it was being copied.") from error


def as_it_is(source_root: str, path: str) -> FileEntry:
    """Return a file's entry as it is now. A log may have grown since it was listed."""
    descriptor = _open_now(source_root, path)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise SourceChangedError(f"{path!r} is no longer a regular file.")
    return FileEntry(path, status.st_size, status.st_mtime_ns)


def bytes_to_place(source_root: str, path: str, instead: Mapping[str, bytes]) -> bytes:
    """Return the content of a small file: what is given `instead`, else what the file holds at this moment."""
    given = instead.get(path)
    return read_as_it_is(source_root, path) if given is None else given


def beginning_to_place(source_root: str, path: str, instead: Mapping[str, bytes], limit_bytes: int) -> bytes:
    """Return at most so many bytes of that content, from the beginning."""
    if path in instead:
        return instead[path][:limit_bytes]
    descriptor = _open_now(source_root, path)
    try:
        return read_at_most(descriptor, limit_bytes)
    except OSError as error:
        raise unreadable(source_root, path, error) from error
    finally:
        os.close(descriptor)


def read_as_it_is(source_root: str, path: str) -> bytes:
    """Return what a small file holds at this moment. What a log gets meanwhile comes next time."""
    descriptor = _open_now(source_root, path)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise SourceChangedError(f"{path!r} is no longer a regular file.")
        data = read_at_most(descriptor, before.st_size)
        after = os.fstat(descriptor)
    except OSError as error:
        raise unreadable(source_root, path, error) from error
    finally:
        os.close(descriptor)
    is_as_it_was = (len(data), after.st_size, after.st_mtime_ns) == (before.st_size, before.st_size, before.st_mtime_ns)
    if not is_as_it_was and not path.endswith(".log"):
        raise SourceChangedError(f"{path!r} changed while it was being copied.")
    return data


def _open_now(source_root: str, path: str) -> int:
    try:
        with Sources(source_root) as sources:
            return sources.open_now(path)
    except FileNotFoundError as error:
        raise SourceChangedError(f"{path!r} was removed before it was copied.") from error
