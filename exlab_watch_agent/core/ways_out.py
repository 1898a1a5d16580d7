"""Kind of conflict → what a person can do about it, each with the command that makes the agent look again.

Decided here: the words. What a command then does is engine/operators.py's, and what becomes of the run decide.py's. `show` and
`problems` give what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

from exlab_watch_agent.core.claim import OF_OTHERS
from exlab_watch_agent.core.text import shell_word

DIFFERS_FROM_SEALED = "differs_from_sealed_copy"
LOCAL_CHANGED = "local_changed_after_sync"
LOCAL_MISSING = "local_files_missing"
ONLY_COPY_LOST = "only_copy_lost"
_AWAY = "move what is there away on the NAS"


def copy_lost(destination: str) -> str:
    """Return what is said of a proven run of which nothing is left here, and whose copy is not where it must be."""
    return f"nothing of this run is left here, and its copy {destination} is not at the destination"


@dataclass(frozen=True, slots=True)
class WayOut:
    """What to do, and the command that follows it, complete with its run."""

    deed: str
    command: str

    def __str__(self) -> str:
        return f"{self.deed}, then: {self.command}"


def ways_out(kind: str, run_path: str) -> tuple[WayOut, ...]:
    """Return what can end this conflict of this run, the safest first; nothing for a kind that is none."""
    run = shell_word(run_path)
    again = f"exlab-watch-agent resolve {run} --use local"
    if kind == "destination_occupied":
        rename = "or rename the run's folder here, so that it goes to a folder of its own, and have that seen by `scan`"
        return WayOut(_AWAY, again), WayOut(rename, "exlab-watch-agent resolve NEW-NAME --use local")
    if kind == DIFFERS_FROM_SEALED:
        back = "put the files back here as they were, from the copy on the NAS"
        return WayOut(back, again), WayOut(f"or, if what is here is right, {_AWAY}", again)
    if kind in OF_OTHERS:
        restore = "restore the state folder that the copy belongs to, and work with that one"
        return WayOut(restore, "exlab-watch-agent run"), WayOut(f"or {_AWAY}", again)
    if kind == LOCAL_MISSING:
        back = "put the missing files back here as they were, from the copy on the NAS"
        heal = "or, where the copy is damaged as well, put them back from a backup, so that it is repaired from here"
        return WayOut(back, f"exlab-watch-agent verify {run}"), WayOut(heal, again)
    if kind == LOCAL_CHANGED:
        back = "put the files back here as they were, from the copy on the NAS"
        keep = "or keep what is here now: what differs on the NAS is moved aside there, what is only there stays"
        return WayOut(back, f"exlab-watch-agent verify {run}"), WayOut(keep, again)
    if kind == ONLY_COPY_LOST:
        back = "put the run's data back here as they were, from the old NAS or from a backup"
        return (WayOut(back, again),)
    return ()
