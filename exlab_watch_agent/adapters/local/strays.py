"""Searches the levels around the runs of an equipment for a `creation.json` that stands where no run can be.

A search beside the scan, of which nothing depends: what cannot be entered or read is passed over, and a find concludes nothing but
that somebody is told. What it costs does not grow with the files in runs: the folders of a run, or of what is found, are its data
and are never listed. It goes through the equipment's folder, those of the projects, those beside `Runs` in them, a folder in
`Runs` that has no `creation.json` of its own, and no deeper (core/misplaced.py says which); beside that through those folders of
`local_root` that are named like an instrument and are none of the config's, down to a run and no deeper. Bounds: of one folder
1,000 entries are read; of each instrument, and of each that the config lacks, at most 20,000 folders are asked for a
`creation.json`, which takes about a fifth of a second on a local disk, and 100 that have one are told. What lies beyond these is
not found.

No link is followed, and nothing is looked for on a share that is mounted in `local_root`, nor at the destination of one of ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from exlab_watch_agent.adapters.local.durable import read_in
from exlab_watch_agent.adapters.local.handles import (
    EQUIPMENT_LEVELS,
    Folder,
    folder_at,
    folder_below,
    is_link,
    is_real_folder,
)
from exlab_watch_agent.adapters.local.identity import identity_of
from exlab_watch_agent.adapters.local.lock_holders import lock_holder
from exlab_watch_agent.adapters.local.mounts import shares_in
from exlab_watch_agent.adapters.local.root_lock import LOCK_NAME
from exlab_watch_agent.core.creation import level_in
from exlab_watch_agent.core.discovery import RUN_PARENT_FOLDERS
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE
from exlab_watch_agent.core.misplaced import (
    Stray,
    is_meant_as_equipment,
    is_out_of_place,
    is_run_parent,
    is_searched,
    may_be_in_place,
)
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget, Policy
from exlab_watch_agent.core.reconcile import SeenRun

CREATION_BYTES_MAX = 1 << 20

RUN_DEPTH = 3
"""Below the equipment's folder: project, `Runs`, run."""

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many entries of one folder are read; and of one instrument, how many folders are asked, and how many are told."""

    entries_max: int = 1_000
    asked_max: int = 20_000
    found_max: int = 100


BOUNDS = Bounds()


def strays_of(
    equipment: EquipmentPolicy, root: str, seen: Iterable[SeenRun], *, bounds: Bounds = BOUNDS
) -> list[Stray]:
    """Return what stands out of place below the equipment's folder `root`. `seen`: what the scan of its runs has just found."""
    search = _Search(bounds)
    with suppress(OSError), folder_below(root, EQUIPMENT_LEVELS) as folder:
        if _has_creation(folder) and is_out_of_place((), _level_in(folder)):
            search.found.append(())
        search.through(folder, ())
        for run in seen:
            if run.creation_signature is None and search.goes_on:
                search.through_leaf(folder, (run.place.project, run.place.parent_folder, run.place.leaf))
    return [Stray(root, equipment.equipment_id, parts, separator=os.sep) for parts in search.found]


def strays_beside(equipment: EquipmentPolicy, policy: Policy, *, bounds: Bounds = BOUNDS) -> list[Stray]:
    """Return the runs in `local_root` of instruments that the config does not have there, and that no other agent works on."""
    here = os.path.normcase(equipment.local_root)
    known = {one.equipment_id for one in policy.equipment if os.path.normcase(one.local_root) == here}
    found: list[Stray] = []
    with suppress(OSError), folder_at(equipment.local_root) as folder:
        names = [name for name in _folders_in(folder, bounds.entries_max) if is_meant_as_equipment(name, known)]
        left_alone = {*policy.staged_elsewhere, *shares_in(equipment.local_root)} if names else set()
        for name in names:
            root = os.path.join(equipment.local_root, name)
            if name in left_alone or os.path.normcase(root) in _destinations(policy):
                continue
            with suppress(OSError), folder.step(name) as inside:
                if not _is_worked_on(inside):
                    search = _Search(bounds, is_of_runs_only=True)
                    search.through(inside, ())
                    found += [Stray(root, name, parts, is_known=False, separator=os.sep) for parts in search.found]
    return found


def _destinations(policy: Policy) -> frozenset[str]:
    """Return the mounted destinations, by name alone: one that does not answer is not to be waited for."""
    targets = (one.target for one in policy.equipment)
    return frozenset(os.path.normcase(target.path) for target in targets if isinstance(target, MountedPathTarget))


def _is_worked_on(folder: Folder) -> bool:
    """Return whether another agent works on this equipment, whose config then has it."""
    with suppress(OSError), folder.step(CACHE_FOLDER) as cache:
        return bool(lock_holder(cache, LOCK_NAME))
    return False


class _Search:
    """One search, with what is left of its bounds. `is_of_runs_only`: for what is a run by where it is."""

    def __init__(self, bounds: Bounds, *, is_of_runs_only: bool = False) -> None:
        self.found: list[Names] = []
        self._bounds = bounds
        self._is_of_runs_only = is_of_runs_only
        self._asked = 0

    @property
    def goes_on(self) -> bool:
        return self._asked < self._bounds.asked_max and len(self.found) < self._bounds.found_max

    def through(self, folder: Folder, parts: Names) -> None:
        """Ask the folders directly in this one, and go through those in which there may be more."""
        for name in _folders_in(folder, self._bounds.entries_max):
            if not self.goes_on:
                return
            self._asked += 1
            below = (*parts, _as_run_parent(folder, name) if len(parts) == 1 else name)
            if self._finds(folder, name, below):
                self.found.append(below)
            elif self._goes_into(below):
                with suppress(OSError), folder.step(name) as inside:
                    self.through(inside, below)

    def through_leaf(self, root: Folder, parts: Names) -> None:
        """Ask the folders in one that is where a run can be, and is none."""
        self._asked += 1
        with suppress(OSError), root.below("/".join(parts)) as leaf:
            self.through(leaf, parts)

    def _finds(self, folder: Folder, name: str, parts: Names) -> bool:
        if self._is_of_runs_only:
            return len(parts) == RUN_DEPTH and _has_creation(folder, name)
        if not _has_creation(folder, name):
            return False
        return is_out_of_place(parts, _level_in(folder, name) if may_be_in_place(parts) else None)

    def _goes_into(self, parts: Names) -> bool:
        if self._is_of_runs_only:
            return len(parts) < RUN_DEPTH and (len(parts) != 2 or is_run_parent(parts[1]))
        return is_searched(parts)


def _folders_in(folder: Folder, entries_max: int) -> list[str]:
    """Return names of real folders among the first so many entries of this one, sorted; none where it cannot be listed."""
    with suppress(OSError), folder.again(to_list=True) as listed, listed.scan() as entries:
        return sorted(entry.name for entry in islice(entries, entries_max) if is_real_folder(entry))
    return []


def _as_run_parent(folder: Folder, name: str) -> str:
    """Return the right spelling of `runs` where the file system does not tell that from `Runs`, else the name itself."""
    if not is_run_parent(name) or name in RUN_PARENT_FOLDERS:
        return name
    with suppress(OSError):
        found = identity_of(folder.lstat(name))
        for right in RUN_PARENT_FOLDERS:
            if right.casefold() == name.casefold() and identity_of(folder.lstat(right)) == found:
                return right
    return name


def _has_creation(folder: Folder, name: str = "") -> bool:
    """Return whether there is a `creation.json` for this folder, or for that of this name in it, reached by no link."""
    cache_folder = f"{name}/{CACHE_FOLDER}" if name else CACHE_FOLDER
    try:
        is_regular = stat.S_ISREG(folder.lstat(f"{cache_folder}/{CREATION_FILE}").st_mode)
        return is_regular and not is_link(folder.lstat(cache_folder))
    except OSError:
        return False


def _level_in(folder: Folder, name: str = "") -> str | None:
    """Return which level that `creation.json` is of; None where it cannot be read."""
    with suppress(OSError), folder.below(name) as holder, holder.step(CACHE_FOLDER) as cache:
        return level_in(read_in(cache, CREATION_FILE, CREATION_BYTES_MAX)[0])
    return None
