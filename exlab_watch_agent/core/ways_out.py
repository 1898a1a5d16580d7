"""Kind of conflict → what a person can do about it, each with the command that makes the agent look again.

Decided here: the words. What a command then does is engine/operators.py's, and what becomes of the run decide.py's. `show` and
`problems` give what is said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exlab_watch_agent.core.claim import DESTINATION_OCCUPIED, HELD_BY_OTHERS, OF_OTHERS, OF_THIS_AGENT
from exlab_watch_agent.core.text import counted, printable, shell_word

DIFFERS_FROM_SEALED = "differs_from_sealed_copy"
LOCAL_CHANGED = "local_changed_after_sync"
LOCAL_MISSING = "local_files_missing"
ONLY_COPY_LOST = "only_copy_lost"
UNCOMPARED = "and it is not compared yet with what was sealed"
"""Of local data that changed: whether files are missing among them nobody knows."""
KEEPS_CHANGING = "keeps_changing"
"""No conflict yet: a sealed run of which files change during every audit."""
NAMES_TOLD_MAX = 10
_AWAY = "move what is there away on the NAS"
_ASIDE = "what is equal there stays, all else goes aside there, below .exlab-superseded"
_RENAME = "rename the run's folder here, so that it goes to a folder of its own, and have that seen by `scan`"


def copy_lost(destination: str) -> str:
    """Return what is said of a proven run of which nothing is left here, and whose copy is not where it must be."""
    return f"nothing of this run is left here, and its copy {destination} is not at the destination"


def data_left(names: Sequence[str]) -> str:
    """Return what must become of these data files here before the sealed copy alone may count; empty where there are none."""
    if not names:
        return ""
    told = ", ".join(printable(name) for name in names[:NAMES_TOLD_MAX])
    more = f" and {len(names) - NAMES_TOLD_MAX} more" if len(names) > NAMES_TOLD_MAX else ""
    left = (
        f"{counted(len(names), 'data file')} of this run {'is' if len(names) == 1 else 'are'} left here ({told}{more})"
    )
    return f"{left}: move what is left away first, or bring back what is missing"


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
    manifest = f"exlab-watch-agent resolve {run} --use nas-manifest"
    only_there = WayOut(
        "or, if the sealed copy is to count, move all data files of the run away from its folder here", manifest
    )
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
    if kind in (LOCAL_MISSING, LOCAL_CHANGED) and detail == HELD_BY_OTHERS:
        as_sealed = WayOut("put the files back here as they were when this agent proved them", take_over)
        give_up = "or give up what this agent proved, for what is here now (its holder gives way by a `--take-over` after that)"
        return (as_sealed,) if kind == LOCAL_MISSING else (as_sealed, WayOut(give_up, again))
    if kind == LOCAL_MISSING:
        missing = "put the missing files back here as they were, from the copy on the NAS"
        heal = "or, where the copy is damaged as well, put them back from a backup, so that it is repaired from here"
        return WayOut(missing, f"exlab-watch-agent verify {run}"), WayOut(heal, again), only_there
    if kind == LOCAL_CHANGED:
        keep = "or keep what is here now: what differs on the NAS is moved aside there, what is only there stays"
        return WayOut(back.deed, f"exlab-watch-agent verify {run}"), WayOut(keep, again), only_there
    if kind == ONLY_COPY_LOST:
        again_here = "put the run's data back here as they were, from the old NAS or from a backup"
        put_right = "or, once the copy on the NAS was put right, from a backup of it, have it proven as the only one"
        forgotten = f'exlab-watch-agent forget {run} --reason "..."'
        given_up = WayOut("or, if nobody has them any more, have the loss forgotten", forgotten)
        return WayOut(again_here, again), WayOut(put_right, manifest), given_up
    return ()


def may_be_taken_over(kind: str, *, detail: str = "") -> bool:
    """Return whether others hold the destination in this kind of conflict, who may give way on an operator's word."""
    return (kind in OF_OTHERS and detail != OF_THIS_AGENT) or detail == HELD_BY_OTHERS


def no_take_over(kind: str, run_path: str, *, detail: str = "") -> str | None:
    """Return in one sentence why `--take-over` cannot help in this conflict of this run, and what can; None where it can."""
    if may_be_taken_over(kind, detail=detail):
        return None
    whose = "another run of this agent has the destination" if kind in OF_OTHERS else "the copy is this agent's own"
    ways = " ".join(str(way) for way in ways_out(kind, run_path, detail=detail))
    return f"{kind}: {whose}, so there is nobody to take it over from: {ways or 'see `show`'}"
