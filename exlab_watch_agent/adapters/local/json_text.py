"""JSON as a text that others wrote: read strictly, change at a few places, leave every other byte alone.

Decided here: what is refused (duplicate keys, NaN, deep nesting), where the values of an object are in the text, and
how a new value is spelled in the file's own style. Not here: which values are changed (creation_splicing.py).

Numbers are kept as their texts: 1.50 stays 1.50, and 5,000 digits are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class JsonNumber:
    """A number as it is spelled."""

    text: str


_DECODER = json.JSONDecoder(parse_int=JsonNumber, parse_float=JsonNumber)

# Strings are matched whole, so that what looks like a bracket in one does not count. A string without its end takes the rest
# of the text; without that each of its quotes would start another search to the end: 1 MiB of \" would take hours.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]|NaN|-?Infinity', re.DOTALL)
_COLON_AHEAD = re.compile(r"[ \t\r\n]*:")
_NO_SPACE = re.compile(r"[^ \t\r\n]|\Z")


class JsonTextError(ValueError):
    """The text is not the JSON that is accepted here; `line` and `column` are 1-based."""

    def __init__(self, reason: str, text: str, index: int) -> None:
        super().__init__(reason)
        self.line = text.count("\n", 0, index) + 1
        self.column = index - text.rfind("\n", 0, index)


def parse(text: str) -> Any:
    """Return the document, numbers as JsonNumber. Raises: JsonTextError, and nothing else whatever the text is."""
    try:
        _refuse_traps(text)
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonTextError(error.msg, text, error.pos) from None


def _refuse_traps(text: str) -> None:
    """Refuse what Python's parser takes or dies of: deep nesting, duplicate keys, NaN and infinities."""
    keys_of_open: list[set[str] | None] = []  # One for each open bracket: an object's keys so far, None for an array.
    for match in _TOKEN.finditer(text):
        found = match[0]
        if found in ("{", "["):
            if len(keys_of_open) == DEPTH_MAX:
                raise JsonTextError(f"nested deeper than {DEPTH_MAX} levels", text, match.start())
            keys_of_open.append(set() if found == "{" else None)
        elif found in ("}", "]"):
            if keys_of_open:
                keys_of_open.pop()
        elif not found.startswith('"'):
            raise JsonTextError(f"{found} is not allowed", text, match.start())
        elif keys_of_open and (keys := keys_of_open[-1]) is not None and _COLON_AHEAD.match(text, match.end()):
            key, _ = _DECODER.raw_decode(text, match.start())  # "a" and "\u0061" are one key.
            if key in keys:
                raise JsonTextError("this key appears twice", text, match.start())
            keys.add(key)


def same(one: Any, other: Any) -> bool:
    """Return whether two parsed values are equal, the order of keys and the spelling of numbers included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@dataclass(frozen=True, slots=True)
class Span:
    """Where something is: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member of an object is: its key with the quotes, and its value."""

    name: str
    key: Span
    value: Span

    @property
    def whole(self) -> Span:
        return Span(self.key.start, self.value.end)


def members(text: str, start: int) -> list[Member]:
    """Return the members of the object whose `{` is at `start` of a text that `parse` accepts."""

    def one_member(index: int) -> tuple[Member, int]:
        name, key_end = _DECODER.raw_decode(text, index)
        value_start = _skip_space(text, _skip_space(text, key_end) + 1)
        _, value_end = _DECODER.raw_decode(text, value_start)
        return Member(name, Span(index, key_end), Span(value_start, value_end)), value_end

    return _listed(text, start, "}", one_member)


def items(text: str, start: int) -> list[Span]:
    """Return where the items are of the array whose `[` is at `start` of a text that `parse` accepts."""

    def one_item(index: int) -> tuple[Span, int]:
        _, end = _DECODER.raw_decode(text, index)
        return Span(index, end), end

    return _listed(text, start, "]", one_item)


def _listed(text: str, start: int, closing: str, one: Callable[[int], tuple[T, int]]) -> list[T]:
    found: list[T] = []
    index = _skip_space(text, start + 1)
    while text[index] != closing:
        element, end = one(index)
        found.append(element)
        index = _skip_space(text, end)
        if text[index] == ",":
            index = _skip_space(text, index + 1)
    return found


def _skip_space(text: str, index: int) -> int:
    match = _NO_SPACE.search(text, index)
    assert match is not None
    return match.start()


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is written: `newline` is empty for one on one line; `indent` is one level of it."""

    newline: str
    indent: str
    comma: str
    colon: str
    is_ascii: bool

    def spelled(self, value: Any, *, base: str | None = None) -> str:
        """Return the text of a value. `base`: the indentation of the line it starts on; None puts all on one line."""
        if base is None or not self.newline:
            return self._dumped(value, None, (self.comma, self.colon))
        lines = self._dumped(value, self.indent, (",", self.colon))
        return lines.replace("\n", self.newline + base)

    def _dumped(self, value: Any, indent: str | None, separators: tuple[str, str]) -> str:
        text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
        if text.isascii() or not (self.is_ascii or _has_lone_surrogate(text)):
            return text
        return json.dumps(value, indent=indent, separators=separators, ensure_ascii=True, allow_nan=False)


def _has_lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def style_of(text: str, start: int, first: Member) -> Style:
    """Return the style of the object whose `{` is at `start`, as its first member shows it."""
    lead = text[start + 1 : first.key.start]
    colon = text[first.key.end : first.value.start]
    return Style(
        newline="\r\n" if "\r\n" in lead else "\n" if "\n" in lead else "",
        indent=lead.rpartition("\n")[2] if "\n" in lead else "",
        comma=", " if colon.endswith(" ") else ",",
        colon=colon if "\n" not in colon else ": ",
        is_ascii=text.isascii(),
    )


def gap(text: str, start: int, spans: Sequence[Span], style: Style, *, at_end: bool) -> str:
    """Return the comma with its white space as it is in this object or array, which starts at `start`.

    With a single element the white space before it tells how another would be set off.
    """
    if len(spans) > 1:
        before, after = spans[-2:] if at_end else spans[:2]
        return text[before.end : after.start]
    lead = text[start + 1 : spans[0].start]
    return "," + lead if "\n" in lead else style.comma


@dataclass(frozen=True, slots=True)
class Edit:
    """`text[start:end]` becomes `replacement`; an insertion where both are equal."""

    start: int
    end: int
    replacement: str


def splice(text: str, edits: Sequence[Edit]) -> str:
    """Return the text with these edits, which do not overlap, and not one other character changed."""
    pieces: list[str] = []
    index = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [text[index : edit.start], edit.replacement]
        index = edit.end
    return "".join([*pieces, text[index:]])
