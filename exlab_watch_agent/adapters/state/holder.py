"""What the agent that holds a state folder says of itself: who it is, and whether it waits for room.

The one thing that must still be told when the folder's disk is full. So the file has its full size from the start and is
rewritten in place, which needs no room; it is true while the agent holds the folder's lock, and then or not at all, so that
neither a torn nor a lost write does harm.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.local.durable import read_bounded, write_all
from exlab_watch_agent.core.text import printable, shortened

SIZE_BYTES = 4096
"""One page, which a reader sees whole or not at all on most file systems. JSON may make six bytes of a character."""
_CHARS_MAX = 500

_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def say(path: Path, values: dict[str, Any]) -> None:
    """Make the file say this. Sentences are cut to what fits. Raises: OSError."""
    cut = {key: value[:_CHARS_MAX] if isinstance(value, str) else value for key, value in values.items()}
    data = json.dumps(cut).encode().ljust(SIZE_BYTES - 1) + b"\n"
    descriptor = os.open(path, _WRITE, 0o600)
    try:
        write_all(descriptor, data)
        if os.fstat(descriptor).st_size > len(data):
            os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """Return what the holder says, an empty mapping where it says nothing that can be read."""
    try:
        said = json.loads(read_bounded(path, 4 * SIZE_BYTES))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def in_words(path: Path) -> str:
    """Return in one line who holds the folder, as far as the holder has said."""
    said = read(path)
    words = {"pid": "pid {}", "host": "on {}", "since": "since {}"}
    parts = [form.format(said[key]) for key, form in words.items() if said.get(key)]
    return printable(shortened(" ".join(parts), _CHARS_MAX)) or "it has not said who it is"
