"""The one place that prints: results on stdout, all else on stderr, and JSON. Nothing from outside gets out raw."""

from __future__ import annotations

import json
import sys
from typing import Any

from exlab_watch_agent.core.text import printable


def say(text: str = "", *, end: str = "\n", is_flushed: bool = False) -> None:
    """Print one line of a result. Several lines are several calls, so that no name can make one."""
    print(printable(text), end=end, flush=is_flushed)


def say_aside(text: str, *, is_flushed: bool = False) -> None:
    """Print one line on stderr."""
    print(printable(text), file=sys.stderr, flush=is_flushed)


def say_lines_aside(text: str) -> None:
    """Print a text of several lines on stderr, whose line ends are our own."""
    for line in text.split("\n"):
        say_aside(line)


def say_json(value: Any) -> None:
    """Print a value as JSON in ASCII: nothing is lost of it, and nothing in it steers a terminal."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def put(content: bytes) -> None:
    """Put bytes on stdout as they are: a picture that is led into a file or a pipe."""
    sys.stdout.buffer.write(content)
    sys.stdout.flush()
