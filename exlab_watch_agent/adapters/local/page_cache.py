"""Whether what is read of a file comes from where it is kept, or from this PC's memory.

Decided here: how the system is asked what it has cached, and how a file is read past that. Not here: which files have to be
(the transports), and what it means for a proof (core/passes.py).

`posix_fadvise(DONTNEED)` is advice: pages that a program has mapped, and pages not yet written back, stay. So the system is
asked what is left. `mincore` is asked and not `preadv2(RWF_NOWAIT)`, which begins to read ahead by being asked, and then
finds its own pages; the file is mapped for it and never touched through the mapping, so a file that shrinks does no harm.
Source: mincore(2), open(2), Linux 6.18.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import sys
from collections.abc import Callable
from functools import cache

DIRECT_BYTES = 1024 * 1024
"""Piece of a direct read: whole pages, and large enough that a disk or server is asked seldom."""
_PIECE_BYTES = 1 << 30
_IS_RESIDENT = 1
_FAILED = ctypes.c_void_p(-1).value
_O_DIRECT = getattr(os, "O_DIRECT", 0)


@cache
def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    return libc


def may_be_cached(descriptor: int, size_bytes: int) -> bool:
    """Return False only where the system says that no page of the file's first `size_bytes` is in its cache.

    Where it cannot be asked, or does not tell because the file is another user's, that is True.
    """
    libc = _libc()
    if libc is None:
        return size_bytes > 0
    return any(
        _is_any_resident(libc, descriptor, start, min(_PIECE_BYTES, size_bytes - start))
        for start in range(0, size_bytes, _PIECE_BYTES)
    )


def _is_any_resident(libc: ctypes.CDLL, descriptor: int, start: int, size_bytes: int) -> bool:
    address = libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, start)
    if address == _FAILED:
        return True
    try:
        pages = ctypes.create_string_buffer(-(-size_bytes // mmap.PAGESIZE))
        if libc.mincore(address, size_bytes, pages) != 0:
            return True
        return any(page & _IS_RESIDENT for page in pages.raw) if any(pages.raw) else False
    finally:
        libc.munmap(address, size_bytes)


def hash_directly(descriptor: int, moved: Callable[[int], None]) -> str | None:
    """Return the SHA-256 (64 lowercase hex) of a whole file read past the page cache; None where its system cannot do that.

    `moved` is told the bytes of each piece. The descriptor is as it was afterwards, at the file's start where the answer is
    None. Raises: OSError.
    """
    if not _O_DIRECT:
        return None
    import fcntl  # there is none on Windows

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT)
    except OSError:
        return None
    hasher = hashlib.sha256()
    done = 0
    try:
        # Anonymous memory begins at a page, which is all that a direct read asks of its buffer.
        with mmap.mmap(-1, DIRECT_BYTES) as memory, memoryview(memory) as buffer:
            while size := os.preadv(descriptor, [buffer], done):
                with buffer[:size] as piece:
                    hasher.update(piece)
                moved(size)
                done += size
    except OSError as error:
        # Some systems take the flag and refuse the read; some do after a piece that is no whole page.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return None
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return hasher.hexdigest()
