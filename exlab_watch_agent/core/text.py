"""Words for people, each rule once: times, counts, errors, words for a shell, and text from outside made safe to show.

Text from outside (names, paths, what programs and others' files say) may break a line, steer a terminal, or be no
Unicode. There is one set of such characters and one way to spell them: `printable`. On top of it, on purpose different:

- `named`: a single name within a sentence of ours; one that is empty or odd is put in quotes, so that its end is seen.
- `printable_lines`: a message of several lines, whose line ends are our own. A line of a log goes through `printable`.
- `unicode_text`: a member of JSON, which spells what steers a terminal by itself where it is written in ASCII.
- `shell_word`: what can be pasted behind a command.
"""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime

# Controls, line separators, direction marks, surrogates (what is left of bytes that are not Unicode).
_HARMFUL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f\ud800-\udfff]")
_PLAIN = re.compile(r"[\w.:/\\][\w.:/\\-]*")
_NO_UNICODE = re.compile(r"[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` in one line, with control characters, direction marks and surrogates as `\\n`, `\\x07`, `\\u202e`, `\\udcff`.

    All else stays, so nearly every path is given as it is. A run cannot move an operator's cursor by its names.
    """
    return _HARMFUL.sub(_spelled, text)


def unicode_text(text: str) -> str:
    """Return `text` for JSON: as it is, but for surrogates, which many programs refuse; they are spelled as `printable` does."""
    return _NO_UNICODE.sub(_spelled, text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each made printable."""
    return "\n".join(printable(line) for line in text.split("\n"))


def named(name: str, *, limit: int) -> str:
    """Return a name from outside for a sentence, of at most `limit` characters: `a.tif`, or `'a\\n'`, or `''`."""
    short = shortened(name, limit)
    safe = printable(short)
    return safe if safe and safe == short else f"'{safe}'"


def shell_word(path: str) -> str:
    """Return a path as one word of a command line: quoted as a POSIX shell wants it, any other as Windows does.

    Only where a shell needs that: of a path of Windows, too, letters, digits and `_ - . : / \\` stand for themselves.
    """
    safe = printable(path)
    if path.startswith("/"):
        return shlex.quote(safe)
    return safe if _PLAIN.fullmatch(safe) else f'"{safe}"'


def shortened(text: str, limit: int) -> str:
    """Return at most so many characters of a text: a path may be thousands long."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _spelled(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def counted(number: int, noun: str) -> str:
    """Return `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def human_bytes(amount: float) -> str:
    """Return an amount in the largest unit in which it is at least 1."""
    unit = 0
    while amount >= 1024 and unit < len(UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{amount:.0f} {UNITS[unit]}" if unit == 0 else f"{amount:.1f} {UNITS[unit]}"


def age(seconds: float) -> str:
    """Return `40 s`, `12 min`, `30 h` or `9 days`: in the largest unit of which there are at least two."""
    whole = max(0, int(seconds))
    for unit_s, unit in ((24 * 3600, "days"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit_s:
            return f"{whole // unit_s} {unit}"
    return f"{whole} s"


def utc_text(moment: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SSZ`: how every time is shown and written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_text_exact(moment: datetime) -> str:
    """Return the same with microseconds, for the audit trail."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def reason(error: OSError) -> str:
    """Return an operating system error in the system's own words; one that was made without any is named by its class."""
    return error.strerror or str(error) or type(error).__name__


def reason_with_name(error: OSError) -> str:
    """Return the same with the name that the error is about, for sentences that do not give it."""
    where = f" ({error.filename!r})" if isinstance(error.filename, str) else ""
    return f"{reason(error)}{where}"
