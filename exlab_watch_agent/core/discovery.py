"""Where a run is: path → run, and which runs a burst of file events is about.

Decided here: which folders are shaped like a run, and the destination that follows from where a run is. Not here:
what is in `creation.json`, whose `paths` never decide what is read, written or deleted; and whether a path is a folder
and no link, which only the tree can tell.

`roots` is everywhere: equipment id → its absolute folder `<local_root>/<equipment id>`. `flavour` is the kind of path
of the platform; under `PureWindowsPath` both separators and any case of the letters mean the same folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import NamedTuple

from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE
from exlab_watch_agent.core.policy import Layout

RUN_PARENT_FOLDERS = ("Runs", "TestRuns")
RUN_PREFIXES = ("Run_", "TestRun_")

_RUN_DEPTH = 3  # <project>/<Runs or TestRuns>/<leaf>


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run-shaped folder: `run_path` = `<local_root>/<equipment_id>/<project>/<parent_folder>/<leaf>`.

    `parent_folder` is `Runs` or `TestRuns`. All parts are taken from where the run is.
    """

    run_path: str
    equipment_id: str
    project: str
    parent_folder: str
    leaf: str

    @property
    def relative(self) -> str:
        """POSIX path below `<local_root>/<equipment_id>`: the destination in the layout `mirror`."""
        return f"{self.project}/{self.parent_folder}/{self.leaf}"


class _Tree(NamedTuple):
    equipment_id: str
    root: PurePath


class _Spot(NamedTuple):
    """A path below (or at) one equipment's root; `parts` are its segments below the root."""

    tree: _Tree
    parts: tuple[str, ...]


def looks_like_run(leaf: str) -> bool:
    """True for a name that is meant as a run, well formed or not: without a `creation.json` it is an orphan."""
    return leaf.startswith(RUN_PREFIXES)


def place_of(path: str, roots: Mapping[str, str], *, flavour: type[PurePath] = PurePath) -> RunPlace | None:
    """Return the place of the run folder `path`, None where no run can be.

    Any leaf counts that does not begin with a dot: a run whose name breaks the rules must be found, so that the gate
    can say so. `run_path` is spelled from the root as configured, so one run has one spelling.
    """
    spot = _spot(path, _trees(roots, flavour), flavour)
    if spot is None or len(spot.parts) != _RUN_DEPTH:
        return None
    return _place(spot)


def runs_to_look_at(
    paths: Iterable[str], roots: Mapping[str, str], *, flavour: type[PurePath] = PurePath
) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a burst of file events asks for: the run folders to look at, and the equipment ids to rescan.

    A run is looked at for itself, its direct children and its `creation.json`. All else in the cache folder is written
    by the agent or the wizard beside their work (lock, temporary files, logs), and deeper data come with the scan. A rescan
    is asked for by the folders above a run: whatever a moved tree brought along was there before anything watched it.
    """
    trees = _trees(roots, flavour)
    runs: set[str] = set()
    rescans: set[str] = set()
    for path in frozenset(paths):
        spot = _spot(path, trees, flavour)
        if spot is None:
            continue
        if _is_above_runs(spot.parts):
            rescans.add(spot.tree.equipment_id)
        elif _is_reason_to_look(spot.parts[_RUN_DEPTH:]) and (place := _place(spot)) is not None:
            runs.add(place.run_path)
    return frozenset(runs), frozenset(rescans)


def run_of_cache_file(path: str, *, flavour: type[PurePath] = PurePath) -> str:
    """Return the run folder of a file that is directly in a cache folder."""
    return str(flavour(path).parent.parent)


def destination_of(place: RunPlace, layout: Layout) -> str:
    """Return the run's POSIX path below the destination root; the run folder appears in it exactly once."""
    return place.leaf if layout is Layout.FLAT else place.relative


def _trees(roots: Mapping[str, str], flavour: type[PurePath]) -> Mapping[PurePath, _Tree]:
    return _parsed(tuple(roots.items()), flavour)


@lru_cache(maxsize=8)
def _parsed(roots: tuple[tuple[str, str], ...], flavour: type[PurePath]) -> Mapping[PurePath, _Tree]:
    # Kept because a scan asks once per run: parsing 20 roots each time took 80 of 100 µs.
    return {flavour(root): _Tree(equipment_id, flavour(root)) for equipment_id, root in roots}


def _spot(path: str, trees: Mapping[PurePath, _Tree], flavour: type[PurePath]) -> _Spot | None:
    """Return where `path` is, seen from its root. A path with `..` is nowhere: what it means depends on links."""
    pure = flavour(path)
    if ".." in pure.parts:
        return None
    for folder in (pure, *pure.parents):
        tree = trees.get(folder)
        if tree is not None:
            return _Spot(tree, pure.parts[len(folder.parts) :])
    return None


def _place(spot: _Spot) -> RunPlace | None:
    if len(spot.parts) < _RUN_DEPTH:
        return None
    project, parent_folder, leaf = spot.parts[:_RUN_DEPTH]
    if project == CACHE_FOLDER or parent_folder not in RUN_PARENT_FOLDERS or leaf.startswith("."):
        return None
    run_path = str(spot.tree.root.joinpath(project, parent_folder, leaf))
    return RunPlace(run_path, spot.tree.equipment_id, project, parent_folder, leaf)


def _is_above_runs(parts: tuple[str, ...]) -> bool:
    if CACHE_FOLDER in parts:
        return False
    return len(parts) < 2 or (len(parts) == 2 and parts[1] in RUN_PARENT_FOLDERS)


def _is_reason_to_look(parts_in_run: tuple[str, ...]) -> bool:
    return len(parts_in_run) < 2 or parts_in_run == (CACHE_FOLDER, CREATION_FILE)
