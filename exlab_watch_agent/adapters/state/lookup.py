"""One line of the audit trail by its number, without reading the others: by halves, for lines are in order.

Decided here: how it is found. Not here: whether it chains (segments.py), and what it means (recovery.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from exlab_watch_agent.adapters.state.layout import CLOSED_NAME, StateLayout
from exlab_watch_agent.adapters.state.segments import line_digest, segment_path

_SEQ = re.compile(rb'\{"seq":(\d{1,16}),')


def digest_at(folder: Path, seq: int) -> str | None:
    """Return the digest of the line with this number; None where there is none, or it cannot be read."""
    closed = StateLayout(folder).closed
    try:
        names = os.listdir(closed) if closed.is_dir() else []
        firsts = sorted(int(match[1]) for name in names if (match := CLOSED_NAME.fullmatch(name)))
        line = None
        # The live segment comes after the closed ones, and may hold the line as well as the last of these.
        for path in (segment_path(folder, max((n for n in firsts if n <= seq), default=1)), segment_path(folder, seq)):
            with path.open("rb") as file:
                line = line or _line_of(file, seq)
    except OSError:
        return None
    return None if line is None else line_digest(line)


def _line_of(file: BinaryIO, seq: int) -> bytes | None:
    """Return the line without its newline. Between `low` and `high` lie the beginnings of the lines that it may be."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:
        middle = (low + high) // 2
        begin = _begin_after(file, middle) if middle else 0
        if begin >= high:  # no line begins in the upper half
            high = middle
            continue
        file.seek(begin)
        line = file.readline()
        match = _SEQ.match(line)
        if match is None or not line.endswith(b"\n"):
            return None
        found = int(match[1])
        if found == seq:
            return line[:-1]
        if found < seq:
            low = begin + len(line)
        else:
            high = middle
    return None


def _begin_after(file: BinaryIO, offset: int) -> int:
    """Return where the first line begins that begins at `offset` or later."""
    file.seek(offset - 1)
    file.readline()
    return file.tell()
