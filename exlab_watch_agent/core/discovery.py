"""Where a run is: path → run, and which runs a burst of file events is about.

Decided here: which folders are shaped like a run, and the destination that follows from where a run is. Not here:
what is in `creation.json`, whose `paths` never decide what is read, written or deleted.
"""

from __future__ import annotations

from dataclasses import dataclass


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
