"""Problems as text: equal ones of one instrument folded into one, which shows its first and says how many there are.

What is told of each stands in core/attention.py; the JSON is never folded. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exlab_watch_agent.core.attention import with_flags
from exlab_watch_agent.core.problem import Problem, Severity, Tier, command, verdict, worst
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import ExitCode

WORDS = {Tier.RISK: "RISK", Tier.NEEDS_YOU: "NEEDS YOU", Tier.NOTICE: "NOTICE"}


def exit_code(problems: Iterable[Problem]) -> ExitCode:
    """Return with what a command ends that asks for what needs a person."""
    match worst(problems):
        case Tier.RISK:
            return ExitCode.AT_RISK
        case Tier.NEEDS_YOU:
            return ExitCode.NEEDS_ATTENTION
    return ExitCode.FINE


def need_a_person(problems: Iterable[Problem]) -> list[Problem]:
    """Return those that are more than a notice and were not dismissed."""
    return [problem for problem in problems if problem.tier is not Tier.NOTICE and not problem.is_dismissed]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which problems are asked for; what is empty asks for all. `runs`: paths of runs and folders; `equipment`: ids.

    `has_dismissed`: also those that an operator has dismissed.
    """

    runs: frozenset[str] = frozenset()
    equipment: frozenset[str] = frozenset()
    code: str = ""
    severity: Severity | None = None
    has_dismissed: bool = False

    @property
    def names_some(self) -> bool:
        """Whether single ones are asked for, which are then not folded."""
        return bool(self.code or self.runs)

    def takes(self, problem: Problem) -> bool:
        is_named = not (self.runs or self.equipment) or problem.equipment_id in self.equipment
        is_about = is_named or problem.subject in self.runs or not self.runs.isdisjoint(problem.runs)
        is_of_code = not self.code or problem.code == self.code
        is_as_severe = self.severity is None or problem.severity is self.severity
        return is_about and is_of_code and is_as_severe and (self.has_dismissed or not problem.is_dismissed)


@dataclass(frozen=True, slots=True)
class Fold:
    """Problems of one code, of one instrument and of one tier; never none. `flags`: of the command that lists them all."""

    problems: tuple[Problem, ...]
    flags: str = ""

    @property
    def first(self) -> Problem:
        return self.problems[0]

    def line(self) -> str:
        """Return what it is, in one line."""
        first, dismissed = self.first, " (dismissed)" if self.first.is_dismissed else ""
        return f"{WORDS[first.tier]}{dismissed}  {printable(first.subject)}: {first.sentence}"

    def others(self) -> str:
        """Return in a few words how many more there are; empty where there are none."""
        more = len(self.problems) - 1
        return f" (and {more} more)" if more else ""

    def more(self) -> str:
        """Return how many more there are, with the command that lists them; empty where there are none."""
        more = len(self.problems) - 1
        if not more:
            return ""
        equipment_id = self.first.equipment_id or ""
        of = f" of {equipment_id}" if equipment_id else ""
        words = command("problems", *filter(None, [equipment_id]), "--class", self.first.code)
        return f"and {more} more{of}, {self.first.code}: {with_flags(words, self.flags)}"


def folded(problems: Sequence[Problem], *, flags: str = "") -> list[Fold]:
    """Return the problems in their order, equal ones of one instrument together at the place of the first."""
    alike: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        key = (problem.code, problem.equipment_id, problem.tier, problem.is_dismissed)
        alike.setdefault(key, []).append(problem)
    return [Fold(tuple(found), flags) for found in alike.values()]


def unfolded(problems: Sequence[Problem]) -> list[Fold]:
    return [Fold((problem,)) for problem in problems]


def lines(folds: Sequence[Fold]) -> list[str]:
    """Return what `problems` prints: the verdict where nothing needs a person, then each with what helps."""
    said: list[str] = []
    every = [problem for fold in folds for problem in fold.problems]
    if not need_a_person(every):
        said.append(verdict(every))
    for fold in folds:
        said += [fold.line(), f"    -> {fold.first.command}"]
        if more := fold.more():
            said.append(f"    {more}")
    return said


def news_of(told: Mapping[str, Problem], needed: Mapping[str, Problem]) -> list[str]:
    """Return a line for each kind of what is new since it was told, and of what is over. Both: id → problem."""
    begun = [one for known, one in needed.items() if known not in told]
    over = [one for known, one in told.items() if known not in needed]
    return [
        *(one_line(fold) for fold in folded(begun)),
        *(f"OVER  {fold.first.subject}: {fold.first.sentence}{fold.others()}" for fold in folded(over)),
    ]


def one_line(fold: Fold) -> str:
    """Return the same of one fold in a single line, for stderr and logs."""
    return f"{fold.line()}{fold.others()} -> {fold.first.command}"
