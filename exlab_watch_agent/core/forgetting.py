"""What is to be told of a run or an instrument → what of it can be forgotten, or why nothing can, with what mends it.

Decided here: that only what nobody can mend any more is forgotten, and that each of the rest is mended by the command that it
names. What is beyond mending is said where a problem is judged (attention.py, run_problems.py); that it is then not told while the
same lasts, is problem.py's (Dismissal). Nothing is deleted and no claim is changed by it: the run stays in `status`, what was
proven wrong in its record and in each export. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exlab_watch_agent.core.problem import Problem, Tier
from exlab_watch_agent.core.text import counted, printable


def is_of(problem: Problem, *, run_path: str = "", equipment_id: str = "") -> bool:
    """Whether a problem is one of this run, or of this instrument and its runs."""
    if equipment_id:
        return problem.equipment_id == equipment_id
    return problem.subject == run_path or problem.runs == (run_path,)


def to_forget(found: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return those that nobody can mend any more and that are told as yet."""
    return tuple(one for one in found if one.is_beyond_mending and not one.is_dismissed)


def refusal(found: Sequence[Problem], word: str) -> str:
    """Return why nothing of this run or instrument (as it was named) can be forgotten, and what helps."""
    name = printable(word)
    mendable = [one for one in found if not one.is_dismissed and not one.is_beyond_mending]
    if not mendable:
        is_done = any(one.is_dismissed for one in found)
        return (
            f"Nothing of {name} is told any more."
            if is_done
            else f"There is no problem of {name} that could be forgotten."
        )
    first = mendable[0]
    return f"{first.code} of {name} can still be mended, and is not forgotten before that. -> {first.command}"


def rest(found: Iterable[Problem]) -> str:
    """Return how many others of it need a person all the same, as the end of a sentence; empty where none does."""
    others = [one for one in found if not (one.is_dismissed or one.is_beyond_mending or one.tier is Tier.NOTICE)]
    if not others:
        return ""
    needs = "needs" if len(others) == 1 else "need"
    return f"; {counted(len(others), 'other problem')} of it {needs} you, the first: {others[0].command}"
