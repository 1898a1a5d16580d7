"""A `creation.json` that stands where no run can be: which folders may hold one, and what is to be told of it.

Decided here: which folders a search goes through, which `creation.json` is out of place, which one folder is at fault, and in
which words. A run is `<local_root>/<EQUIPMENT>/<project>/<Runs or TestRuns>/<run>`, and what is searched for is one slip away
from that: a level too many or too few, another name in the place of `Runs`, an instrument that the config does not have there.
Not here: how the folders are walked (adapters/local/strays.py). Pure.

`parts` are everywhere the names below the equipment's folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from exlab_watch_agent.core.creation import RUN_LEVEL
from exlab_watch_agent.core.discovery import RUN_PARENT_FOLDERS, looks_like_run
from exlab_watch_agent.core.snapshot import FolderProblem
from exlab_watch_agent.core.text import named

MISPLACED = "misplaced_creation"
UNKNOWN_EQUIPMENT = "unknown_equipment"
"""`detail.kind` of a folder of an instrument that the config does not have there; the other kinds: docs/json.md."""
NAME_LIMIT = 80

PROJECT = "<project>"

_PARENTS = frozenset(name.casefold() for name in RUN_PARENT_FOLDERS)
_EQUIPMENT_ID = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Stray:
    """A folder with a `creation.json` where no run can be: at `parts` below `root`, the folder of an equipment.

    `is_known`: whether the config has the equipment there. `separator`: the platform's.
    """

    root: str
    equipment_id: str
    parts: tuple[str, ...]
    is_known: bool = True
    separator: str = "/"

    def path_of(self, *parts: str) -> str:
        return self.separator.join((self.root, *parts))

    @property
    def path(self) -> str:
        return self.path_of(*self.parts)


# --- where is searched -----------------------------------------------------------------------------------------------


def is_run_parent(name: str) -> bool:
    """Return whether a folder is meant to hold runs, however its name is spelled."""
    return name.casefold() in _PARENTS


def is_searched(parts: tuple[str, ...]) -> bool:
    """Return whether the folders directly in this one are asked for a `creation.json`.

    Folders four names deep are the deepest that are asked, and below a project only those in the place of a run, or in another
    `Runs`. What is in a `Runs` or `TestRuns` in its place is left to the scan of the runs.
    """
    match parts:
        case () | (_,):
            return True
        case (_, name):
            return name not in RUN_PARENT_FOLDERS
        case (_, parent, name):
            return parent in RUN_PARENT_FOLDERS or is_run_parent(name)
    return False


def may_be_in_place(parts: tuple[str, ...]) -> bool:
    """Return whether a `creation.json` of another level than a run's is right here: an equipment's, a project's, `Runs`' own."""
    return len(parts) < 2 or (len(parts) == 2 and is_run_parent(parts[1]))


def is_out_of_place(parts: tuple[str, ...], level: str | None) -> bool:
    """Return whether the `creation.json` of this folder stands where no run can be. `level`: None where it cannot be read."""
    if len(parts) == 3 and parts[1] in RUN_PARENT_FOLDERS:
        return False
    return not may_be_in_place(parts) or level == RUN_LEVEL or (bool(parts) and looks_like_run(parts[-1]))


def is_meant_as_equipment(name: str, known: Iterable[str]) -> bool:
    """Return whether a folder beside those of the instruments is one of an instrument that the config lacks.

    `known`: the instruments that the config has there. Only a name that could stand in the config counts, or one of these in
    another spelling: a shared folder has other things in it, too.
    """
    spellings = {equipment_id.casefold(): equipment_id for equipment_id in known}
    is_an_id = _EQUIPMENT_ID.fullmatch(name) is not None
    return name not in spellings.values() and (is_an_id or name.casefold() in spellings)


# --- what is told ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fault:
    """The folder at fault, what its fault is called, what is wrong with it, and the next step."""

    parts: tuple[str, ...]
    kind: str
    wrong: str
    step: str


def folder_problems(strays: Iterable[Stray]) -> dict[str, FolderProblem]:
    """Return what is to be told: path of the folder at fault → one problem for all that stands wrong because of it.

    Sorted by path, and so are the `runs` of each.
    """
    found: dict[str, list[Stray]] = {}
    for stray in strays:
        found.setdefault(stray.path_of(*_fault_of(stray).parts), []).append(stray)
    return {path: _problem_of(sorted(group, key=lambda one: one.path)) for path, group in sorted(found.items())}


def _problem_of(strays: list[Stray]) -> FolderProblem:
    first, paths = strays[0], tuple(stray.path for stray in strays)
    fault = _fault_of(first)
    below = first.separator.join(first.parts[len(fault.parts) :])
    if below:
        has = "folder in it has" if len(paths) == 1 else "folders in it have"
        such_as = "" if len(paths) == 1 else "such as "
        what = f"{len(paths)} {has} a creation.json ({such_as}{named(below, limit=NAME_LIMIT)}) where no run can be"
    else:
        what = "it has a creation.json, and is where no run can be"
    copied = "they are not copied" if len(paths) > 1 else "it is not copied"
    message = f"{what}, so {copied}: {fault.wrong}; {fault.step}"
    return FolderProblem(message, MISPLACED, {"kind": fault.kind, "equipment_id": first.equipment_id}, paths)


def _fault_of(stray: Stray) -> _Fault:
    """Return which folder is at fault: the uppermost, since what is in it moves along."""
    if not stray.is_known:
        wrong = f"the config has no equipment {named(stray.equipment_id, limit=NAME_LIMIT)} with this local_root"
        return _Fault((), UNKNOWN_EQUIPMENT, wrong, "add it and start the agent again, or move the folder elsewhere")
    parts = stray.parts
    match parts:
        case (parent, _, *_) if is_run_parent(parent):
            step = f"move what is in it to {stray.path_of(PROJECT, _spelled(parent))}"
            return _Fault(parts[:1], "no_project", "the folder of a project is missing above it", step)
        case (project, parent, _, _) if parent in RUN_PARENT_FOLDERS:
            step = f"move the runs in it one level up, to {stray.path_of(project, parent)}"
            return _Fault(parts[:3], "too_deep", "these are one level too deep", step)
        case (_, _, parent, _):
            step = f"move what is in it to {stray.path_of(PROJECT, _spelled(parent))}"
            return _Fault(parts[:3], "too_deep", "it is one level too deep", step)
        case (project, parent, _):
            right = _spelled(parent)
            wrong = f"runs are looked for in {right} only, spelled so"
            if not is_run_parent(parent):
                wrong = "runs are looked for in Runs and TestRuns only"
            return _Fault(parts[:2], "run_parent", wrong, f"move the runs in it to {stray.path_of(project, right)}")
        case (project, name) if not is_run_parent(name):
            step = f"move it into {stray.path_of(project, _spelled(name))}"
            return _Fault(parts, "no_run_parent", "it is not in a folder Runs or TestRuns", step)
        case _:
            step = f"move the run to a folder of its own, {stray.path_of(PROJECT, 'Runs', '<run>')}"
            return _Fault(parts, "not_a_run_folder", "it is too high up to be a run's folder", step)


def _spelled(name: str) -> str:
    """Return how a folder of runs must be spelled that is called, or holds what is called, so."""
    is_of_tests = name.casefold().startswith("test")
    return RUN_PARENT_FOLDERS[1] if is_of_tests else RUN_PARENT_FOLDERS[0]
