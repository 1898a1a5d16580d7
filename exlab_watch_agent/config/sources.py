"""Where a setting is: in our own file, in ExLab-Wizard's beside it, or put together from both.

Two files with two owners become one list of instruments here. What is found wrong later is said with the file and the line in which
it is. Not here: what each file may say (wizard.py, blocks.py), and how it is read (text.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from exlab_watch_agent.config.text import Document, KeyPath, Problem, is_ours
from exlab_watch_agent.core.text import named

_KEY_SHOWN_MAX = 60


@dataclass(frozen=True, slots=True, eq=False)
class ConfigText:
    """One config as it was read. `document` is None for a mapping, which has no lines. `source`: its name in messages."""

    source: str
    content: Mapping[str, Any]
    document: Document | None
    is_ours: bool

    @classmethod
    def of(cls, document: Document) -> ConfigText:
        return cls(document.source, document.content(), document, document.is_ours)

    @classmethod
    def of_mapping(cls, content: Mapping[str, Any], source: str) -> ConfigText:
        return cls(source, content, None, is_ours(content))

    def line(self, path: KeyPath) -> int:
        """Return the 1-based line of the last part of the path that is there, 0 where there are no lines."""
        return self.document.line(path) if self.document is not None else 0

    def problem(self, path: KeyPath, sentence: str) -> Problem:
        return Problem(path, sentence, self.line(path), self.source)

    def depth(self, path: KeyPath) -> int:
        """Return how many parts of the path are there."""
        found: Any = self.content
        for depth, part in enumerate(path):
            is_member = isinstance(found, Mapping) and part in found
            if not is_member and not (isinstance(found, list | tuple) and part in range(len(found))):
                return depth
            found = found[part]
        return len(path)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere in one of the files."""

    text: ConfigText
    path: KeyPath

    @property
    def line(self) -> int:
        return self.text.line(self.path)

    @property
    def depth(self) -> int:
        return self.text.depth(self.path)


@dataclass(frozen=True, slots=True)
class Entry:
    """One instrument. `places`: where its entry is, ours first where both files have one.

    `of_first`: members that are of the first place alone, because ours take the place of ExLab-Wizard's.
    """

    content: object
    places: tuple[Place, ...]
    of_first: frozenset[str] = frozenset()

    @property
    def is_wizards(self) -> bool:
        """Whether ExLab-Wizard wrote any of it."""
        return not all(place.text.is_ours for place in self.places)

    def place_of(self, inside: KeyPath) -> Place:
        """Return the place that has the most of this path; ours where both have as much."""
        if inside and inside[0] in self.of_first:
            return Place(self.places[0].text, (*self.places[0].path, *inside))
        return max((Place(place.text, (*place.path, *inside)) for place in self.places), key=lambda place: place.depth)


@dataclass(frozen=True, slots=True)
class Sources:
    """The files, ours first, and the instruments in them: `("equipment", n, ...)` is a place in the n-th entry."""

    texts: Sequence[ConfigText]
    entries: Sequence[Entry] = ()

    def place_of(self, path: KeyPath) -> Place:
        """Return where the path is, or most of it."""
        match path:
            case ("equipment", int(position), *inside) if position < len(self.entries):
                return self.entries[position].place_of(tuple(inside))
        return next((Place(text, path) for text in self.texts if path[:1] != () and path[0] in text.content), None) or (
            Place(self.texts[0], path)
        )

    def name(self, path: KeyPath) -> str:
        """Return what a sentence calls the place: its path, with the file where there are two."""
        place = self.place_of(path)
        return dotted(place.path) + (f" of {PurePath(place.text.source).name}" if len(self.texts) > 1 else "")

    def report(self, problems: Sequence[Problem]) -> str:
        """Return the problems one a line, in the order of the files, and what to do where one is in ExLab-Wizard's."""
        order = {text.source: position for position, text in enumerate(self.texts)}
        said: list[tuple[int, int, str]] = []
        for problem in problems:
            place = self.place_of(problem.path)
            source, line, path = place.text.source, place.line, place.path
            if problem.source is not None:
                source, line, path = problem.source, problem.line or 0, problem.path
            where = f"{source}:{line}" if line else source
            said.append((order.get(source, 0), line, f"{where}: {dotted(path)}: {problem.sentence}"))
        lines = list(dict.fromkeys(sentence for _, _, sentence in sorted(said, key=lambda found: found[:2])))
        lines += [
            self._about_the_wizards(text)
            for text in self.texts
            if not text.is_ours and _names(said, order[text.source])
        ]
        return "\n".join(lines)

    def _about_the_wizards(self, text: ConfigText) -> str:
        ours = next((other.source for other in self.texts if other.is_ours), None)
        if ours is not None:
            return f"{text.source}: this is ExLab-Wizard's file: correct it there, or say it otherwise in {ours}, which wins."
        return (
            f"{text.source}: read as ExLab-Wizard's file, because it has no block of the agent's own: correct it there, or say it "
            f"otherwise in a file of ours beside it, which `exlab-watch-agent init --from {text.source}` writes."
        )


def _names(said: Sequence[tuple[int, int, str]], position: int) -> bool:
    return any(found[0] == position for found in said)


def dotted(path: KeyPath) -> str:
    """Return `equipment[0].transport.type`. Keys are the file's own words: made harmless for a terminal, and bounded."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + named(part, limit=_KEY_SHOWN_MAX)
    return text or "(top level)"


# --- two files, one list ---------------------------------------------------------------------------------------------


def joined(ours: Sequence[Entry], wizards: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return ExLab-Wizard's entries with what ours add to them and then our own, and apart from these ours that add to nothing.

    An entry of ours belongs to the first of ExLab-Wizard's with the same `id`. One without a counterpart and without a
    `transport` is no instrument of its own.
    """
    mine: dict[str, Entry] = {}
    alone: list[Entry] = []
    known = {_id(entry) for entry in wizards}
    for entry in ours:
        equipment_id = _id(entry)
        if equipment_id is None or equipment_id in mine or equipment_id not in known:
            alone.append(entry)
        else:
            mine[equipment_id] = entry
    together = [_with_ours(entry, mine.pop(_id(entry) or "", None)) for entry in wizards]
    own = [entry for entry in alone if not isinstance(entry.content, Mapping) or "transport" in entry.content]
    return [*together, *own], [entry for entry in alone if entry not in own]


def _id(entry: Entry) -> str | None:
    found = entry.content.get("id") if isinstance(entry.content, Mapping) else None
    return found.strip() if isinstance(found, str) else None


def _with_ours(theirs: Entry, ours: Entry | None) -> Entry:
    """Return one entry of two: members of ours replace; a `transport` of ours without a `type` only adds to ExLab-Wizard's."""
    if ours is None or not isinstance(theirs.content, Mapping) or not isinstance(ours.content, Mapping):
        return theirs
    content, of_first = {**theirs.content, **ours.content}, frozenset(str(key) for key in ours.content)
    transport, added = theirs.content.get("transport"), ours.content.get("transport")
    if isinstance(transport, Mapping) and isinstance(added, Mapping) and "type" not in added:
        content["transport"] = {**transport, **added}
        of_first -= {"transport"}
    return Entry(content, (*ours.places, *theirs.places), of_first)
