"""Which blocks of which files the precheck reads: cheap evidence that can only fail a copy, never promote one.

The cost must not grow with the size of a file or the number of files: at most `FILES_MAX` files, at most
`BLOCKS_PER_FILE` blocks of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

BLOCK_BYTES = 16 * 1024
BLOCKS_PER_FILE = 8
FILES_MAX = 32

T = TypeVar("T")


def sample_offsets(size_bytes: int) -> tuple[int, ...]:
    """Return the offsets of the blocks to read: first, last and evenly spread between; all of a small file."""
    if size_bytes <= BLOCK_BYTES * BLOCKS_PER_FILE:
        return tuple(range(0, size_bytes, BLOCK_BYTES))
    last = size_bytes - BLOCK_BYTES
    return tuple(last * i // (BLOCKS_PER_FILE - 1) for i in range(BLOCKS_PER_FILE))


def sample_files(files: Sequence[T]) -> tuple[T, ...]:
    """Return at most `FILES_MAX` of the files: first, last and evenly spread between."""
    if len(files) <= FILES_MAX:
        return tuple(files)
    last = len(files) - 1
    return tuple(files[last * i // (FILES_MAX - 1)] for i in range(FILES_MAX))
