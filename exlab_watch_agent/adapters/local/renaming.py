"""Two renames that the standard library has not: two names change places, and a name is taken only where nothing has it.

Decided here: how Linux is asked (renameat2), and that a file system without it says so before anything has moved. Not here:
what is done instead; that differs.

Source: rename(2). The kernel looks for the new name itself before it asks the file system. vfat, NFS and most FUSE file
systems refuse an exchange; cifs knows "only where nothing has it" alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache

from exlab_watch_agent.adapters.local.handles import Folder

_Renameat2 = Callable[[int, bytes, int, bytes, int], int]

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
# EINVAL: the file system does not know the flag. EPERM: a sandbox forbids the call; a permission that is missing says EACCES,
# and EPERM of a protected file is said again by whatever is tried instead.
_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


class CannotRenameSoError(Exception):
    """The platform or the file system has no such rename. Nothing has moved."""


def exchange(folder: Folder, one: str, other: str) -> None:
    """Let two names in a folder change places, in one step.

    Raises: CannotRenameSoError; FileNotFoundError when either is not there; other OSErrors.
    """
    _rename(folder, one, folder, other, _EXCHANGE)


def rename_new(here: Folder, source: str, there: Folder, target: str) -> None:
    """Rename, also to another folder, unless anything at all has the target's name, a link itself included.

    Raises: FileExistsError; CannotRenameSoError; other OSErrors.
    """
    _rename(here, source, there, target, _NOREPLACE)


def _rename(here: Folder, source: str, there: Folder, target: str, flags: int) -> None:
    call = _renameat2()
    if call is None:
        raise CannotRenameSoError("this platform has no renameat2")
    if call(*_at(here, source), *_at(there, target), flags) == 0:
        return
    code = ctypes.get_errno()
    if code in _CANNOT:
        raise CannotRenameSoError(os.strerror(code))
    raise OSError(code, os.strerror(code), here.path_of(source), None, there.path_of(target))


def _at(folder: Folder, name: str) -> tuple[int, bytes]:
    """Return from where a name counts, and the name. A folder without a handle is named by its path."""
    return (
        (_AT_FDCWD, os.fsencode(folder.path_of(name))) if folder.handle is None else (folder.handle, os.fsencode(name))
    )


@cache
def _renameat2() -> _Renameat2 | None:
    """Return the C library's function, None where it has none (glibc before 2.28, musl, other systems)."""
    if os.name != "posix":
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    renameat2: _Renameat2 = call
    return renameat2
