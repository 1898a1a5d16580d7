"""What a look at a run tells beside its way: soft findings, and overrides that do not do what their author meant.

Decided here: the words. Not here: which overrides are in force (overrides.py), what blocks (gate.py), and whom it needs
(attention.py). Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from datetime import datetime

from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.gate import Finding, Rule, Tier
from exlab_watch_agent.core.overrides import dangling_tombstones, parse_time, revoked_ids
from exlab_watch_agent.core.snapshot import Note
from exlab_watch_agent.core.text import named, utc_text

NAME_MAX = 80
MALFORMED, UNKNOWN_CLASS = "override_malformed", "override_unknown_class"
EXPIRING, DANGLING = "override_expiring", "override_dangling"


def notes_of(findings: Sequence[Finding], overrides: Sequence[OverrideEntry]) -> tuple[Note, ...]:
    """Return what is to be told of a run for as long as its last look holds, in the order in which it was found."""
    soft = [Note(finding.rule.value, finding.rule_detail) for finding in findings if finding.tier is Tier.SOFT]
    return *soft, *_notes_of_overrides(overrides)


def _notes_of_overrides(overrides: Sequence[OverrideEntry]) -> Iterator[Note]:
    revoked = revoked_ids(overrides)
    for tombstone in dangling_tombstones(overrides):
        text = (
            f"{_entry(tombstone)} revokes {named(tombstone.revokes or '', limit=NAME_MAX)}, which is no override here"
        )
        yield Note(DANGLING, f"{text}: it has no effect")
    for entry in overrides:
        if entry.revokes is None and (entry.id is None or entry.id not in revoked):
            yield from _note_of(entry)


def _note_of(entry: OverrideEntry) -> Iterator[Note]:
    until = parse_time(entry.expires_at) if entry.expires_at is not None else None
    if entry.problem_class is None:
        yield Note(MALFORMED, f"{_entry(entry)} names no problem_class, so it has no effect: give it one, or revoke it")
    elif entry.problem_class not in {rule.value for rule in Rule}:
        near = difflib.get_close_matches(entry.problem_class, [rule.value for rule in Rule], n=1)
        hint = f": the nearest one is {near[0]}" if near else ""
        text = f"{_entry(entry)} names the class {named(entry.problem_class, limit=NAME_MAX)}, which no rule has"
        yield Note(UNKNOWN_CLASS, f"{text}{hint}")
    elif entry.expires_at is not None and until is None:
        text = f"expires_at {named(entry.expires_at, limit=NAME_MAX)} is no time such as 2026-10-18T09:14:22Z"
        yield Note(MALFORMED, f"{_entry(entry)} has no effect: its {text}")
    elif until is not None:
        text = (
            f"the override of {entry.problem_class} expires at {utc_text(until)}: the gate refuses the run from then on"
        )
        yield Note(EXPIRING, text, until)


def why_without_effect(entry: OverrideEntry, overrides: Sequence[OverrideEntry], *, now: datetime) -> str:
    """Return why an entry of the list has no effect at `now`; empty where it lets something through, or revokes what does."""
    if entry.revokes is not None:
        return "no override here has that id" if entry in dangling_tombstones(overrides) else ""
    grave = next((one for one in overrides if one.revokes is not None and one.revokes == entry.id), None)
    if grave is not None:
        return (
            f"revoked by {grave.operator or 'nobody named'} at {grave.recorded_at or 'no time given'}: {grave.reason}"
        )
    if entry.problem_class is None:
        return "it names no problem_class"
    if entry.problem_class not in {rule.value for rule in Rule}:
        return "no rule is called so"
    until = parse_time(entry.expires_at) if entry.expires_at is not None else None
    if entry.expires_at is not None and until is None:
        return f"its expires_at {named(entry.expires_at, limit=NAME_MAX)} is no time such as 2026-10-18T09:14:22Z"
    return f"it expired at {utc_text(until)}" if until is not None and until <= now else ""


def _entry(entry: OverrideEntry) -> str:
    return f"entry {entry.index + 1} of validation_overrides in creation.json"
