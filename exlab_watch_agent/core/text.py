"""Small words of sentences for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def age(seconds: float) -> str:
    """Return `40 s`, `12 min`, `30 h` or `9 days`: in the largest unit of which there are at least two."""
    whole = max(0, int(seconds))
    for unit_s, unit in ((24 * 3600, "days"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit_s:
            return f"{whole // unit_s} {unit}"
    return f"{whole} s"


def shortened(text: str, limit: int) -> str:
    """Return at most so many characters of a text: a path may be thousands long."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
