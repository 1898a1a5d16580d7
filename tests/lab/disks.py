"""Disks that are full, read-only, damaged, or take names that differ in case only for the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab.servers import START_S, descendants, done, program


@contextmanager
def full_disk(folder: Path, *, size: str = "1m") -> Iterator[Path]:
    """A file system of a few bytes, mounted at the folder. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    done(program("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        done(program("umount"), "--lazy", folder)  # a server may still stand in it


@contextmanager
def loop_disk(folder: Path, *, image: Path) -> Iterator[Path]:
    """An ext4 disk kept in the file `image`, mounted at the folder. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    done("truncate", "--size", "40M", image)
    done(program("mkfs.ext4"), "-q", "-F", image)
    done(program("mount"), "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        done(program("umount"), folder)


def damage(image: Path, block: bytes) -> None:
    """Change the only block of a disk that holds these bytes, below all caches of its file system."""
    data = image.read_bytes()
    assert data.count(block) == 1, "it is on the disk, once"
    with image.open("r+b") as file:
        file.seek(data.index(block))
        file.write(bytes(len(block)))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def folding_disk(folder: Path, *, image: Path) -> Iterator[Path]:
    """An NTFS disk, mounted at the folder, on which names that differ in case only are one name.

    It shows all of them in lower case. Needs root.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done("truncate", "--size", "40M", image)
    done(program("mkntfs"), "--force", "--fast", "--quiet", image)
    done(program("lowntfs-3g"), "-o", "ignore_case", image, folder)
    try:
        yield folder
    finally:
        done(program("umount"), "--lazy", folder)
        _wait_for_the_disk_s_process(image)


def _wait_for_the_disk_s_process(image: Path) -> None:
    """What serves a disk goes on for a while after it was unmounted: until it has written what it kept."""
    deadline = time.monotonic() + START_S
    while any(str(image) in _command_line(pid) for pid in descendants(os.getpid())):
        assert time.monotonic() < deadline, f"the disk {image} is still being written"
        time.sleep(0.02)


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder, on which nothing can be written while this lasts. Needs root."""
    done(program("mount"), "--bind", folder, folder)
    try:
        done(program("mount"), "-o", "remount,bind,ro", folder)
        yield folder
    finally:
        done(program("umount"), "--lazy", folder)
