"""Another account that has two names change places without pause, and paths that are longer than the system takes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> None:
    """Have two names change places, in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2", str(first))


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """Let two names change places without pause while this lasts; both are as before afterwards."""
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            exchange(first, second)
            exchange(first, second)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def deep_folder(above: Path) -> Iterator[Path]:
    """A new folder for trees of any depth, which is gone afterwards: Python's own removal fails in deep ones."""
    folder = above / "deep"
    folder.mkdir()
    try:
        yield folder
    finally:
        subprocess.run(["rm", "-rf", "--", folder], check=True)


def write_below(folder: Path, parts: list[str], data: bytes) -> None:
    """Write a file below a folder, step by step: the path may be longer than the system takes."""
    handle = os.open(folder, os.O_RDONLY)
    for part in parts[:-1]:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=handle)
        step = os.open(part, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = step
    file = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=handle)
    os.write(file, data)
    os.close(file)
    os.close(handle)
