"""A file takes the place of another that people save at any moment; what came out is looked at, and a save of theirs goes back.

Decided here: the order exchange, look, fsync of the folder, look again, and that no bytes but those that were read and our own
are ever removed. Not here: what is written (creation_file.py), and which file systems can (renaming.py).

A look before a replace leaves a moment in which a save is lost. Here the two names change places in one step, so what had the
place is still there to be looked at. Whoever opened the old file to write in place writes on into the file that goes back; who
does so later writes into one that has no name, and which is watched (old_files.py).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from exlab_watch_agent.adapters.local.attributes import Attributes, attributes_of
from exlab_watch_agent.adapters.local.durable import sync_folder
from exlab_watch_agent.adapters.local.handles import READ_FLAGS, Folder
from exlab_watch_agent.adapters.local.renaming import CannotRenameSoError, exchange, rename_new

_GIVE_BACK_COUNT_MAX = 8


class AnotherSaveError(Exception):
    """Somebody without the lock saved the file, or took it away, while ours was prepared. What they left is in its place."""


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody would miss of a file."""

    data: bytes
    attributes: Attributes


def take_place(
    folder: Folder,
    temporary: str,
    name: str,
    *,
    as_read: Held,
    limit_bytes: int,
    kept: Callable[[str], None],
    let_go: Callable[[int], None],
) -> bool:
    """Give `temporary` the place of `name`, durably, if that is still as it was read; return whether this could be tried.

    False: the platform or the file system cannot, and nothing has moved. `kept` is told the name of a save that was overtaken by
    a later one, or could not be given back: it lies beside. A stop at any instant leaves a whole file at `name`, and in
    `temporary` what came out; else nothing has that name afterwards, unless it is a save that can be given no other. `let_go` is
    given a descriptor of the file that had the place, to be closed by it.
    Raises: AnotherSaveError; OSError.
    """
    ours = _held_in(folder, temporary, limit_bytes)
    try:
        if _has_taken_place(folder, temporary, name, ours, as_read, limit_bytes, let_go):
            return True
    except CannotRenameSoError:
        return False
    except BaseException:
        _clear(folder, temporary, name, (as_read, ours), limit_bytes, kept)
        raise
    _clear(folder, temporary, name, (as_read, ours), limit_bytes, kept)
    raise AnotherSaveError


def _has_taken_place(
    folder: Folder,
    temporary: str,
    name: str,
    ours: Held | None,
    as_read: Held,
    limit_bytes: int,
    let_go: Callable[[int], None],
) -> bool:
    """Let the two change places; return False when what came out was another's save, which has its name back then.

    Raises: CannotRenameSoError, where nothing has moved; OSError.
    """
    try:
        exchange(folder, temporary, name)
    except FileNotFoundError:
        return False
    if not folder.has(temporary):  # A file system that does not look at the flag has replaced the file.
        sync_folder(folder)
        return True
    came_out = _held_in(folder, temporary, limit_bytes)
    if came_out == as_read:
        sync_folder(folder)
        came_out = _held_in(
            folder, temporary, limit_bytes
        )  # An editor that writes in place may have been in the midst.
    if came_out == as_read:
        with suppress(OSError):  # It can be read, as it was a moment ago.
            let_go(folder.open(temporary, READ_FLAGS))
        with suppress(OSError):  # The next write clears it away.
            folder.unlink(temporary)
        return True
    _give_back(folder, temporary, name, came_out, ours, limit_bytes)
    sync_folder(folder)
    return False


def _clear(
    folder: Folder,
    temporary: str,
    name: str,
    ours_to_remove: tuple[Held | None, ...],
    limit_bytes: int,
    kept: Callable[[str], None],
) -> None:
    """Remove what has the temporary name where it is of ours or what was read; keep beside whatever else it is."""
    if not folder.has(temporary):
        return
    left = _held_in(folder, temporary, limit_bytes)
    if left is not None and left in ours_to_remove:
        with suppress(OSError):
            folder.unlink(temporary)
    else:
        kept(keep_beside(folder, temporary, name))


def _give_back(
    folder: Folder, temporary: str, name: str, newest: Held | None, older: Held | None, limit_bytes: int
) -> None:
    """Give the place to the newest save. `newest` is what `temporary` holds, `older` what was put in its place."""
    for _ in range(_GIVE_BACK_COUNT_MAX):
        try:
            exchange(folder, temporary, name)
        except FileNotFoundError:  # It was taken away: then this save is all there is.
            try:
                rename_new(folder, temporary, folder, name)
            except FileExistsError:
                continue
            return
        came_out = _held_in(folder, temporary, limit_bytes)
        if came_out is not None and came_out == older:
            return
        newest, older = came_out, newest  # Somebody saved once more in between, and that is what came out.


def keep_beside(folder: Folder, temporary: str, name: str) -> str:
    """Give a save that has no place a name that nothing cleans up; return it."""
    target = saved_name(name)
    folder.move(temporary, folder, target)
    return target


def saved_name(name: str) -> str:
    """Return a fresh name for a save of that file which has no place."""
    return f"{name}.saved-{secrets.token_hex(8)}"


def _held_in(folder: Folder, name: str, limit_bytes: int) -> Held | None:
    """Return what the file there holds, None for anything that is not a readable regular file of that size."""
    try:
        descriptor = folder.open(name, READ_FLAGS)
    except OSError:
        return None
    try:
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = bytearray()
            while len(data) <= limit_bytes and (piece := file.read(limit_bytes + 1 - len(data))):
                data += piece
        return None if len(data) > limit_bytes else Held(bytes(data), attributes_of(descriptor))
    except OSError:
        return None
    finally:
        os.close(descriptor)
