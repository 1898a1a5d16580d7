"""Kind of conflict → what a person can do about it, each with the command that makes the agent look again.

Decided here: the words. What a command then does is engine/operators.py's, and what becomes of the run decide.py's. `show` and
`problems` give what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

from exlab_watch_agent.core.claim import DESTINATION_OCCUPIED, OF_OTHERS, OF_THIS_AGENT
from exlab_watch_agent.core.text import shell_word

DIFFERS_FROM_SEALED = "differs_from_sealed_copy"
LOCAL_CHANGED = "local_changed_after_sync"
LOCAL_MISSING = "local_files_missing"
ONLY_COPY_LOST = "only_copy_lost"
_AWAY = "move what is there away on the NAS"
_ASIDE = "what is equal there stays, all else goes aside there, below .exlab-superseded"
_RENAME = "rename the run's folder here, so that it goes to a folder of its own, and have that seen by `scan`"


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


def ways_out(kind: str, run_path: str, *, detail: str = "") -> tuple[WayOut, ...]:
    """Return what can end this conflict of this run, the safest first; nothing for a kind that is none.

    `detail`: of the conflict, where it has one.
    """
    run = shell_word(run_path)
    again = f"exlab-watch-agent resolve {run} --use local"
    take_over = f"exlab-watch-agent resolve {run} --take-over"
    back = WayOut("put the files back here as they were, from the copy on the NAS", again)
    renamed = "exlab-watch-agent resolve NEW-NAME --use local"
    if kind == DESTINATION_OCCUPIED and detail == OF_THIS_AGENT:
        return (WayOut(_RENAME, renamed),)
    if kind == DESTINATION_OCCUPIED:
        look = WayOut(f"look at what is there ({_ASIDE})", take_over)
        return look, WayOut(f"or {_RENAME}", renamed), WayOut(f"or {_AWAY}", again)
    if kind == DIFFERS_FROM_SEALED:
        return back, WayOut(f"or, if what is here is right, have the copy make room ({_ASIDE})", take_over)
    if kind in OF_OTHERS:
        stop = WayOut(f"stop the agent that holds the copy ({_ASIDE})", take_over)
        restore = "or, if it is gone, restore the state folder that the copy belongs to, and work with that one"
        return stop, WayOut(restore, "exlab-watch-agent run"), WayOut(f"or {_AWAY}", again)
    if kind == LOCAL_MISSING:
        missing = "put the missing files back here as they were, from the copy on the NAS"
        heal = "or, where the copy is damaged as well, put them back from a backup, so that it is repaired from here"
        return WayOut(missing, f"exlab-watch-agent verify {run}"), WayOut(heal, again)
    if kind == LOCAL_CHANGED:
        keep = "or keep what is here now: what differs on the NAS is moved aside there, what is only there stays"
        return WayOut(back.deed, f"exlab-watch-agent verify {run}"), WayOut(keep, again)
    if kind == ONLY_COPY_LOST:
        again_here = "put the run's data back here as they were, from the old NAS or from a backup"
        forgotten = f'exlab-watch-agent forget {run} --reason "..."'
        return WayOut(again_here, again), WayOut("or, if nobody has them any more, have the loss forgotten", forgotten)
    return ()


def no_take_over(kind: str, run_path: str, *, detail: str = "") -> str | None:
    """Return in one sentence why `--take-over` cannot help in this conflict of this run, and what can; None where it can."""
    if kind in OF_OTHERS and detail != OF_THIS_AGENT:
        return None
    whose = "another run of this agent has the destination" if kind in OF_OTHERS else "the copy is this agent's own"
    ways = " ".join(str(way) for way in ways_out(kind, run_path, detail=detail))
    return f"{kind}: {whose}, so there is nobody to take it over from: {ways or 'see `show`'}"
