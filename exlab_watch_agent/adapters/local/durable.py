"""The durable file protocol: how a small file is replaced, read and placed so that a stop at any instant is harmless.

Decided here: temporary file in the same folder, all bytes, fsync, replace, fsync of the folder (without the last one up to
half of the simulated power cuts lost an acknowledged write). Not here: what is in the file, who may write it when.

Source: docs/facts.md, Replacing a file durably, and Replacing a file on Windows.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from exlab_watch_agent.adapters import clock
from exlab_watch_agent.adapters.local.handles import CREATE_FLAGS, READ_FLAGS, Folder, is_link

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_CHUNK_BYTES = 1 << 20
_SYNC_EVERY_BYTES = 4 << 20

_WINDOWS_BUSY = frozenset({5, 32, 33})
_REPLACE_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.75, 1.0)
# A file system that cannot sync a folder (some SMB and FUSE mounts) says one of these; EIO and ENOSPC are real.
_NO_FOLDER_FSYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)


class FileTooLargeError(ValueError):
    """The file holds more bytes than the caller allows."""


class NotRegularFileError(OSError):
    """The name leads to a link, a folder or a special file, not to a regular file."""


def temporary_name(name: str) -> str:
    """Return a fresh name `.<name>.<16 hex>.tmp` for what will become `name`."""
    return f".{name}.{secrets.token_hex(8)}.tmp"


def remove_temporaries(folder: Path | Folder, *, of: str = "", but: Collection[str] = ()) -> None:
    """Remove what writers that were killed left in a folder, of one name or of all names, but those of writers that we know.

    Only for who knows that nobody else writes there now. What cannot be removed stays: it does no harm.
    """
    prefix = f".{of}." if of else "."
    here = folder if isinstance(folder, Folder) else Folder(str(folder))
    with suppress(OSError):
        for name in here.names():
            if is_temporary_name(name) and name.startswith(prefix) and name not in but:
                with suppress(OSError):
                    here.unlink(name)


def is_temporary_name(name: str) -> bool:
    """Return whether `temporary_name` makes such names: one that is found was left by a stop and is never pushed."""
    return _TEMPORARY.fullmatch(name) is not None


def write_atomically(
    path: Path,
    data: bytes | Iterable[bytes],
    *,
    mode: int | None = None,
    pause: Callable[[float], None] = clock.pause,
) -> os.stat_result:
    """Write a file of the agent's own by its path: what `write_in` does in the folder that the path names."""
    return write_in(Folder(str(path.parent)), path.name, data, mode=mode, pause=pause)


def write_in(
    folder: Folder,
    name: str,
    data: bytes | Iterable[bytes],
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    finish: Callable[[int], None] | None = None,
    before_replace: Callable[[], None] | None = None,
    take_place: Callable[[Folder, str, str], bool] | None = None,
    pause: Callable[[float], None] = clock.pause,
) -> os.stat_result:
    """Write `data` to the name in the folder, durably, and return the `fstat` of the very file that was placed.

    The old file stays whole until the new one is. `mode`: permission bits, 0o600 for None. `owner`: (uid, gid), as far
    as this account may give files away. `finish` is given the descriptor when all is done but its fsync. `before_replace`
    may still forbid the replacement by raising. `take_place` is tried instead of the replacement, with the folder, the temporary
    name and the name: it makes the name durable itself and clears up after itself, and returns False, with nothing moved, where
    it cannot. Data in pieces are synced as they are written, so that another file's fsync never waits for all of them.
    `pause` waits for whoever has the old file open.
    Raises: OSError. The temporary file is gone then, and a failed fsync was not repeated; when it was the fsync of the
    folder, the new file is there but may not survive a power cut.
    """
    temporary = temporary_name(name)
    descriptor = folder.open(temporary, CREATE_FLAGS, 0o600)
    try:
        try:
            if isinstance(data, bytes):
                write_all(descriptor, data)
            else:
                _write_pieces(descriptor, data)
            give(descriptor, mode, owner)
            if finish is not None:
                finish(descriptor)
            os.fsync(descriptor)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)  # Some network file systems report a full disk only here.
        if before_replace is not None:
            before_replace()
    except BaseException:
        _discard(folder, temporary)
        raise
    if take_place is not None and take_place(folder, temporary, name):
        return status
    try:
        _replace(folder, temporary, name, pause)
    except BaseException:
        _discard(folder, temporary)
        raise
    sync_folder(folder)
    return status


def _discard(folder: Folder, temporary: str) -> None:
    with suppress(OSError):
        folder.unlink(temporary)


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that is, when it is made here, this account's alone: an `opener` for `open`. Raises: OSError."""
    return os.open(path, flags | _BINARY | _NOFOLLOW, 0o600)


def _write_pieces(descriptor: int, pieces: Iterable[bytes]) -> None:
    unsynced_bytes = 0
    for piece in pieces:
        write_all(descriptor, piece)
        unsynced_bytes += len(piece)
        if unsynced_bytes > _SYNC_EVERY_BYTES:
            sync_data(descriptor)
            unsynced_bytes = 0


def sync_data(descriptor: int) -> None:
    """Make the file's bytes and its length durable. Raises: OSError; then never again on this file.

    fdatasync where there is one: it leaves out the times, which nobody needs after a power cut, and nothing else.
    """
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: one call may take only a part. Raises: OSError."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if written <= 0:
            raise OSError(errno.EIO, "no byte was written")
        view = view[written:]


def give(descriptor: int, mode: int | None, owner: tuple[int, int] | None) -> None:
    """Set owner, then mode: a change of the owner may clear bits of the mode."""
    if owner is not None and hasattr(os, "fchown"):
        try:
            os.fchown(descriptor, *owner)
        except OSError:  # Only root gives files away; another account can at least keep a group it belongs to.
            with suppress(OSError):
                os.fchown(descriptor, -1, owner[1])
    # Not called for nothing: file systems without such bits (vfat) refuse even the mode that is set already.
    if mode is not None and hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)


def _replace(folder: Folder, source: str, target: str, pause: Callable[[float], None]) -> None:
    """Rename over the target; on Windows wait a moment while a scanner, indexer or reader has the target open."""
    for wait_s in _REPLACE_WAITS_S:
        try:
            folder.replace(source, target)
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in _WINDOWS_BUSY:
                raise
        pause(wait_s)
    folder.replace(source, target)


def fsync_folder(path: Path) -> None:
    """Make the names in this folder durable, where the platform and the file system can. Raises: OSError."""
    sync_folder(Folder(str(path)))


def sync_folder(folder: Folder) -> None:
    """Do the same in a folder that is open."""
    if os.name == "nt":
        return
    descriptor = folder.open_itself()
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of one regular file of at most `limit_bytes`; never follows a link, never waits for a fifo.

    Raises: FileTooLargeError; NotRegularFileError and other OSErrors.
    """
    return read_in(Folder(str(path.parent)), path.name, limit_bytes)[0]


def read_in(folder: Folder, name: str, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return what `read_bounded` returns, with the `fstat` of that very file from before its first byte was read.

    From before: a file that is rewritten while it is read then shows as changed, never as known.
    """
    descriptor = _open_regular(folder, name)
    try:
        status = os.fstat(descriptor)
        chunks: list[bytes] = []
        wanted = limit_bytes + 1
        while wanted > 0 and (chunk := os.read(descriptor, min(wanted, _CHUNK_BYTES))):
            chunks.append(chunk)
            wanted -= len(chunk)
    finally:
        os.close(descriptor)
    if wanted <= 0:
        raise FileTooLargeError(f"more than {limit_bytes} bytes")
    return b"".join(chunks), status


def _open_regular(folder: Folder, name: str) -> int:
    """Return a descriptor of the regular file of that name itself."""
    named = None if _NOFOLLOW else folder.lstat(name)
    try:
        descriptor = folder.open(name, READ_FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO) or _is_folder(folder, name):
            raise NotRegularFileError(error.errno, "not a regular file", folder.path_of(name)) from error
        raise
    opened = os.fstat(descriptor)
    is_same = named is None or (not is_link(named) and os.path.samestat(named, opened))
    if stat.S_ISREG(opened.st_mode) and is_same:
        return descriptor
    os.close(descriptor)
    raise NotRegularFileError(errno.EINVAL, "not a regular file", folder.path_of(name))


def _is_folder(folder: Folder, name: str) -> bool:
    try:
        return stat.S_ISDIR(folder.lstat(name).st_mode)
    except OSError:
        return False
