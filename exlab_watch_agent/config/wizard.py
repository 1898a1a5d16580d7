"""What the config file shares with ExLab-Wizard: a file that it already uses loads as it is.

Its own blocks are skipped unread (text.py names them). Of a block that both use, the members that are not ours are its
own affair. Entries of the equipment list that it hands to another computer are not ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from exlab_watch_agent.config.text import EXAMPLE, KeyPath, Problem


class _SharedBlock(BaseModel):
    """A block of ExLab-Wizard of which we use one member: the others are its own affair."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)


class PathsBlock(_SharedBlock):
    local_root: Any = None  # the default of every equipment's own; checked there


class SyncBlock(_SharedBlock):
    enabled: bool = True


class ValidatorBlock(_SharedBlock):
    """Tunes ExLab-Wizard's content scan; the agent scans no content."""


class Entries(NamedTuple):
    """`ours`: each with its place in the file. `notes`: about those that are not; `passed_over`: their ids."""

    ours: list[tuple[KeyPath, object]]
    notes: list[str]
    passed_over: frozenset[str]


def entries_that_are_ours(equipment: object, paths: PathsBlock, problems: list[Problem]) -> Entries:
    """Return the entries of the list of equipment that are ours, and what is to be known of the others."""
    if equipment is None or equipment in ([], ()):
        problems.append(Problem(("equipment",), f"names no instrument; add at least one entry, as in {EXAMPLE}"))
        return Entries([], [], frozenset())
    if not isinstance(equipment, list | tuple):
        problems.append(Problem(("equipment",), "must be a list, one entry for each instrument"))
        return Entries([], [], frozenset())
    ours: list[tuple[KeyPath, object]] = []
    notes: list[str] = []
    passed_over: set[str] = set()
    for position, entry in enumerate(equipment):
        if isinstance(entry, Mapping) and entry.get("sync_mode") == "stage":
            notes.append(
                f"equipment[{position}] has sync_mode stage: ExLab-Wizard hands its runs to another computer, "
                "so the agent leaves them alone here."
            )
            passed_over.add(str(entry.get("id")))
            continue
        if isinstance(entry, Mapping) and "local_root" not in entry and paths.local_root:
            entry = {**entry, "local_root": paths.local_root}
        ours.append((("equipment", position), entry))
    if not ours:
        problems.append(Problem(("equipment",), "names no instrument that syncs from here: all have sync_mode stage"))
    return Entries(ours, notes, frozenset(passed_over))
