"""What is in a folder of the target, as a shell's answer says it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """One name below a folder of the target, of any kind; `mtime_s` is whole seconds."""

    mode: int
    size_bytes: int
    mtime_s: int

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


def entries_in(lines: Iterable[bytes]) -> Iterator[tuple[str, TargetEntry]]:
    """Yield path → entry. A line: mode in hexadecimal, size, whole seconds, path, with a blank between them."""
    for line in lines:
        mode, size, mtime, path = line.split(b" ", 3)
        if path != b".":
            yield os.fsdecode(path.removeprefix(b"./")), TargetEntry(int(mode, 16), int(size), int(mtime))
