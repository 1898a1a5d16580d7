"""What must lie apart: a copy inside the original is not a copy, and a run must have one owner.

Compares the names in the file and asks no disk; what links and mounts make of them is the command `check`'s to find out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from exlab_watch_agent.config.text import KeyPath, Problem
from exlab_watch_agent.config.values import accepted, equipment_id_text, local_path


@dataclass(frozen=True, slots=True)
class PlacesOfEntry:
    """What of an entry decides about overlaps; None for what is missing or refused anyway.

    Taken from the raw entry, so that overlaps are reported together with an entry's other problems. `name`: what sentences call
    it.
    """

    path: KeyPath
    name: str
    equipment_id: str | None
    run_root: str | None
    mounted_path: str | None

    @classmethod
    def of(cls, path: KeyPath, name: str, entry: object) -> PlacesOfEntry:
        if not isinstance(entry, Mapping):
            return cls(path, name, None, None, None)
        equipment_id = accepted(equipment_id_text, entry.get("id"))
        local_root = accepted(local_path, entry.get("local_root"))
        transport = entry.get("transport")
        mounted = transport if isinstance(transport, Mapping) and transport.get("type") == "mounted_path" else {}
        return cls(
            path=path,
            name=name,
            equipment_id=equipment_id,
            run_root=os.path.join(local_root, equipment_id) if local_root and equipment_id else None,
            mounted_path=accepted(local_path, mounted.get("path")),
        )


def overlaps(lanes: Sequence[PlacesOfEntry], state_dir: str | None) -> Iterator[Problem]:
    """Yield one problem for each pair of places that must lie apart and does not; compares names, asks no disk."""
    first_with_id: dict[str, PlacesOfEntry] = {}
    roots: dict[str, PlacesOfEntry] = {}
    destinations: dict[str, PlacesOfEntry] = {}
    for lane in lanes:
        if lane.equipment_id and first_with_id.setdefault(lane.equipment_id, lane) is not lane:
            other = first_with_id[lane.equipment_id].name
            yield Problem((*lane.path, "id"), f"is also the id of {other}; every instrument needs its own")
        if lane.run_root:
            roots.setdefault(os.path.normcase(lane.run_root), lane)
        if lane.mounted_path:
            destinations.setdefault(os.path.normcase(lane.mounted_path), lane)
    for root, lane in roots.items():
        for above in _folders_above(root):
            if above in roots:
                other = roots[above].name
                sentence = (
                    f"its runs (<local_root>/<id>) would lie inside those of {other} and belong to two instruments"
                )
                yield Problem((*lane.path, "local_root"), sentence)
            if above in destinations:
                sentence = f"contains the local runs of {lane.name}; a copy must lie apart from them"
                yield Problem((*destinations[above].path, "transport", "path"), sentence)
    for destination, lane in destinations.items():
        for above in (destination, *_folders_above(destination)):
            if above in roots:
                sentence = f"lies among the local runs of {roots[above].name}; a copy must lie apart from them"
                yield Problem((*lane.path, "transport", "path"), sentence)
    if state_dir is not None:
        state_dir = os.path.normcase(state_dir)
        if any(above in roots or above in destinations for above in (state_dir, *_folders_above(state_dir))):
            yield Problem(("agent", "state_dir"), "must lie outside the runs and outside their copies")


def _folders_above(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent
