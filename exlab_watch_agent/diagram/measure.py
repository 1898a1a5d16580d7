"""How wide a text is, and where its lines break: taken from the very font that the picture carries.

The font is Fira Sans Condensed (SIL Open Font License, fonts/OFL.txt), cut down to Latin letters, figures and arrows. What it
has no glyph for (a run may be named in any script) counts as one em, which no script exceeds by much.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

FAMILY = "Fira Sans Condensed"
FILES = {False: "FiraSansCondensed-Regular.ttf", True: "FiraSansCondensed-SemiBold.ttf"}  # by `is_bold`
ASCENT, DESCENT = 0.74, 0.22  # of the size: what a line of text takes above and below its baseline


def font_path(*, is_bold: bool) -> Path:
    """Return the font file: the package is installed as files, never run from an archive."""
    return Path(str(resources.files("exlab_watch_agent.diagram") / "fonts" / FILES[is_bold]))


@dataclass(frozen=True)
class Advances:
    """The width of each glyph, in parts of the size. `widths`: code point → em."""

    widths: dict[int, float]

    def of(self, text: str) -> float:
        return sum(self.widths.get(ord(character), 1.0) for character in text)


@cache
def _advances(is_bold: bool) -> Advances:
    """Read the tables head, hhea, hmtx and cmap. Source: the OpenType specification 1.9, cmap format 4."""
    data = font_path(is_bold=is_bold).read_bytes()
    count = struct.unpack_from(">H", data, 4)[0]
    tables: dict[bytes, int] = {}
    for index in range(count):
        tag, _, offset, _ = struct.unpack_from(">4sLLL", data, 12 + 16 * index)
        tables[tag] = offset
    units = struct.unpack_from(">H", data, tables[b"head"] + 18)[0]
    metrics = struct.unpack_from(">H", data, tables[b"hhea"] + 34)[0]
    widths = [struct.unpack_from(">H", data, tables[b"hmtx"] + 4 * index)[0] / units for index in range(metrics)]
    return Advances({code: widths[min(glyph, metrics - 1)] for code, glyph in _glyphs(data, tables[b"cmap"]).items()})


def _glyphs(data: bytes, cmap: int) -> dict[int, int]:
    subtables = [
        struct.unpack_from(">HHL", data, cmap + 4 + 8 * i) for i in range(struct.unpack_from(">H", data, cmap + 2)[0])
    ]
    start = cmap + next(offset for platform, encoding, offset in subtables if (platform, encoding) == (3, 1))
    half = struct.unpack_from(">H", data, start + 6)[0]  # twice the number of segments
    found: dict[int, int] = {}
    for index in range(0, half, 2):
        end = struct.unpack_from(">H", data, start + 14 + index)[0]
        first = struct.unpack_from(">H", data, start + 16 + half + index)[0]
        delta = struct.unpack_from(">H", data, start + 16 + 2 * half + index)[0]
        at = start + 16 + 3 * half + index
        shift = struct.unpack_from(">H", data, at)[0]
        for code in range(first, end + 1):
            glyph = code if shift == 0 else struct.unpack_from(">H", data, at + shift + 2 * (code - first))[0]
            if code != 0xFFFF and (shift == 0 or glyph):
                found[code] = (glyph + delta) & 0xFFFF
    return found


def width(text: str, size: float, *, is_bold: bool = False) -> float:
    """Return how wide a text is, in the unit of `size`."""
    return _advances(is_bold).of(text) * size


def has_glyphs(text: str) -> bool:
    """Return whether the font has every letter of a text."""
    return all(ord(character) in _advances(False).widths for character in text)


def wrapped(text: str, size: float, width_max: float, *, is_bold: bool = False) -> list[str]:
    """Return the text in lines that are no wider; a single word that is wider is cut with `…`."""
    lines: list[str] = []
    for word in text.split(" "):  # a no-break space keeps two words together
        if not word:
            continue
        fitted = shortened(word, size, width_max, is_bold=is_bold)
        longer = f"{lines[-1]} {fitted}" if lines else fitted
        if lines and width(longer, size, is_bold=is_bold) <= width_max:
            lines[-1] = longer
        else:
            lines.append(fitted)
    return lines


def balanced(text: str, size: float, width_max: float) -> list[str]:
    """Return the same lines with their ends as even as can be: no last line of one word."""
    lines = wrapped(text, size, width_max)
    narrow = width_max
    while len(lines) > 1:
        narrow -= size / 4
        tried = wrapped(text, size, narrow)
        if len(tried) > len(lines) or any(line.endswith("…") for line in tried):
            break
        lines = tried
    return lines


def shortened(text: str, size: float, width_max: float, *, is_bold: bool = False) -> str:
    """Return the text, or as much of it as fits with `…` at its end."""
    if width(text, size, is_bold=is_bold) <= width_max:
        return text
    kept = text
    while kept and width(kept + "…", size, is_bold=is_bold) > width_max:
        kept = kept[:-1]
    return kept + "…"
