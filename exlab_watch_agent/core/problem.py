"""One thing that needs a person, or that a person may want to know: how bad it is, what it is called, what helps.

Decided here: the three tiers, every code with its tier, and how a problem is known again. Codes, tiers and the members of the
JSON are a promise (docs/json.md lists them). Not here: when something is a problem (attention.py). Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from exlab_watch_agent.core.gate import Rule
from exlab_watch_agent.core.incidents import IncidentKind
from exlab_watch_agent.core.misplaced import MISPLACED
from exlab_watch_agent.core.text import counted, shell_word, unicode_text, utc_text
from exlab_watch_agent.core.ways_out import KEEPS_CHANGING, LOCAL_MISSING, ONLY_COPY_LOST

PROGRAM = "exlab-watch-agent"
ID_LENGTH = 12


class Tier(StrEnum):
    """Worst first. `risk`: data are at risk; `needs_you`: it does not go on, or not well, without a person; `notice`: to know."""

    RISK = "risk"
    NEEDS_YOU = "needs_you"
    NOTICE = "notice"


class Severity(StrEnum):
    """`hard`: something is refused, stopped or at risk; `soft`: nothing is kept from its goal by it."""

    HARD = "hard"
    SOFT = "soft"


HANGING = "agent_hanging"
STATE_FULL = "state_folder_full"
CONFIG_NEWER = "config_newer"
CONFIG_INVALID = "config_invalid"
CONFIG_PENDING = "config_pending"
CONFIG_NEEDS_START = "config_needs_start"
FAILED = "nas_sync_failed"
SOFT_RULES = frozenset({rule.value for rule in Rule if rule.tier.value == Severity.SOFT})

DISMISSABLE = SOFT_RULES
"""Codes that an operator may dismiss; beside them, what nobody can mend any more is forgotten (Problem.is_beyond_mending)."""

TIERS: Mapping[str, Tier] = {
    # the agent
    HANGING: Tier.NEEDS_YOU,
    "agent_gone": Tier.NEEDS_YOU,
    "agent_never_ran": Tier.NEEDS_YOU,
    "agent_stopped": Tier.NOTICE,
    "deletion_on_hold": Tier.RISK,
    **{kind.value: Tier.RISK for kind in IncidentKind},
    STATE_FULL: Tier.NEEDS_YOU,
    CONFIG_INVALID: Tier.NEEDS_YOU,
    CONFIG_NEEDS_START: Tier.NEEDS_YOU,
    CONFIG_NEWER: Tier.NEEDS_YOU,
    CONFIG_PENDING: Tier.NOTICE,
    "no_equipment": Tier.NEEDS_YOU,
    # an instrument, its folder and its destination
    "nas_unreachable": Tier.NEEDS_YOU,
    "destination_full": Tier.NEEDS_YOU,
    "destination_replacing": Tier.NOTICE,
    "destination_unbound": Tier.NEEDS_YOU,
    "marker_gone": Tier.NEEDS_YOU,
    "destination_is_source": Tier.NEEDS_YOU,
    "root_unavailable": Tier.NEEDS_YOU,
    "observer_degraded": Tier.NEEDS_YOU,
    "equipment_unknown": Tier.NEEDS_YOU,
    "many_repairs": Tier.NEEDS_YOU,
    "reread_overdue": Tier.NEEDS_YOU,
    "local_disk_filling": Tier.NEEDS_YOU,
    "nas_filling": Tier.NEEDS_YOU,
    "outage_ended": Tier.NOTICE,
    # a run in conflict
    "destination_occupied": Tier.NEEDS_YOU,
    "claimed_by_other_agent": Tier.NEEDS_YOU,
    "claimed_unsealed": Tier.NEEDS_YOU,
    "differs_from_sealed_copy": Tier.NEEDS_YOU,
    "local_changed_after_sync": Tier.NEEDS_YOU,
    LOCAL_MISSING: Tier.NEEDS_YOU,
    ONLY_COPY_LOST: Tier.RISK,
    "conflict": Tier.NEEDS_YOU,
    # a folder that is not a usable run
    "schema_major_mismatch": Tier.NEEDS_YOU,
    "creation_invalid_json": Tier.NEEDS_YOU,
    "creation_invalid_content": Tier.NEEDS_YOU,
    "creation_unreadable": Tier.NEEDS_YOU,
    "creation_locked": Tier.NEEDS_YOU,
    "creation_changed": Tier.NEEDS_YOU,
    "creation_unwritable": Tier.NEEDS_YOU,
    "creation_json": Tier.NEEDS_YOU,
    "unexpected_level": Tier.NEEDS_YOU,
    MISPLACED: Tier.NEEDS_YOU,
    "unreadable": Tier.NEEDS_YOU,
    # a run
    **{rule.value: Tier.NOTICE if rule.value in SOFT_RULES else Tier.NEEDS_YOU for rule in Rule},
    FAILED: Tier.NEEDS_YOU,
    "attempt_failed": Tier.NEEDS_YOU,
    "seal_failed": Tier.NEEDS_YOU,
    "audit_failed": Tier.NEEDS_YOU,
    "cache_not_copied": Tier.NEEDS_YOU,
    KEEPS_CHANGING: Tier.NEEDS_YOU,
    "run_gone": Tier.NEEDS_YOU,
    "status_unwritten": Tier.NEEDS_YOU,
    "run_problem": Tier.NEEDS_YOU,
    "stale": Tier.NEEDS_YOU,
    "unproven": Tier.NEEDS_YOU,
    "under_way": Tier.NEEDS_YOU,
    "override_malformed": Tier.NEEDS_YOU,
    "override_unknown_class": Tier.NEEDS_YOU,
    "override_expiring": Tier.NEEDS_YOU,
    "override_dangling": Tier.NOTICE,
    "repaired": Tier.NOTICE,
    "removed_by_others": Tier.NOTICE,
    "synced_under_prior_policy": Tier.NOTICE,
}
"""Every code → its tier. What a later version calls otherwise needs a person here."""


def tier_of(code: str) -> Tier:
    return TIERS.get(code, Tier.NEEDS_YOU)


@dataclass(frozen=True, slots=True)
class Dismissal:
    """An operator wants a problem listed no more: who, why, and until when (None: for good)."""

    by: str
    reason: str
    until: datetime | None = None

    def holds(self, problem: Problem, *, now: datetime) -> bool:
        may_be = problem.code in DISMISSABLE or problem.is_beyond_mending
        return may_be and (self.until is None or now < self.until)


@dataclass(frozen=True, slots=True)
class Problem:
    """What needs a person, and the one command that helps or shows more.

    `subject`: what it is about (a run's path, a folder's, an instrument's id, `agent`), as it is: made safe when shown. `runs`: the
    paths of all runs that it is about. `since`: None until it is known since when. `detail`: what a program may want beside the
    code, such as the kind of a failure. `is_beyond_mending`: it is of what is gone, no longer configured or lost, so that nothing
    that is left here can end it; then `occurrence` tells it from a later one of the same, and stays as it is while it lasts.
    """

    code: str
    subject: str
    sentence: str
    command: str
    equipment_id: str | None = None
    runs: tuple[str, ...] = ()
    since: datetime | None = None
    detail: Mapping[str, str] = field(default_factory=dict)
    is_dismissed: bool = False
    is_beyond_mending: bool = False
    occurrence: str = ""

    @property
    def id(self) -> str:
        """What it is called as long as it lasts: of what it is and about what, and of nothing that changes meanwhile."""
        members = [self.code, self.equipment_id or "", self.subject, self.detail.get("incident", "")]
        named = "\0".join([*members, self.occurrence] if self.occurrence else members)
        return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]

    @property
    def tier(self) -> Tier:
        return tier_of(self.code)

    @property
    def severity(self) -> Severity:
        is_of_gate = self.code == "synced_under_prior_policy"
        return Severity.HARD if is_of_gate or self.tier is not Tier.NOTICE else Severity.SOFT

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "code": self.code,
            "tier": self.tier.value,
            "severity": self.severity.value,
            "equipment_id": self.equipment_id,
            "runs": [unicode_text(path) for path in self.runs],
            "sentence": self.sentence,
            "since": utc_text(self.since) if self.since is not None else None,
            "command": self.command,
            "dismissed": self.is_dismissed,
            "subject": unicode_text(self.subject),
            "detail": dict(self.detail),
            "beyond_mending": self.is_beyond_mending,
        }


def command(*words: str) -> str:
    """Return a command of ours as it is pasted; the last word may be a path."""
    return " ".join((PROGRAM, *words))


def about(verb: str, path: str) -> str:
    """Return a command of ours about one run."""
    return command(verb, shell_word(path))


def forget(word: str) -> str:
    """Return the command that has what is beyond mending forgotten. `word`: an instrument, or a run as a shell takes it."""
    return command("forget", word, "--reason", '"..."')


def rank(problem: Problem) -> tuple[object, ...]:
    """Return what problems are sorted by: an agent that does not move before all, for what follows may be old; then worst first."""
    tiers = list(Tier)
    order = list(TIERS)
    place = order.index(problem.code) if problem.code in TIERS else len(order)
    return problem.code != HANGING, tiers.index(problem.tier), place, problem.equipment_id or "", problem.subject


def worst(problems: Iterable[Problem]) -> Tier | None:
    """Return the worst tier of those that are not dismissed, None where there are none."""
    found = {problem.tier for problem in problems if not problem.is_dismissed}
    return next((tier for tier in Tier if tier in found), None)


def verdict(problems: Iterable[Problem]) -> str:
    """Return in one sentence how it is, without names of runs and people."""
    counts = dict.fromkeys(Tier, 0)
    for problem in problems:
        if not problem.is_dismissed:
            counts[problem.tier] += 1
    risk, needs = counts[Tier.RISK], counts[Tier.NEEDS_YOU]
    at_risk = f"data are at risk ({counted(risk, 'problem')})" if risk else ""
    if not needs:
        return at_risk or "nothing needs a person"
    noun = "more problem" if risk else "problem"
    waiting = f"{counted(needs, noun)} {'needs' if needs == 1 else 'need'} you"
    return f"{at_risk}, and {waiting}" if risk else waiting
