"""A run's life as events in the words that archives use, from which PREMIS, PROV and RO-Crate are written.

Decided here: which move of the chart is which event, and how it ended. The words are those of the Library of Congress'
preservation event types (https://id.loc.gov/vocabulary/preservation/eventType.html). Moves that only begin or schedule something
are no events. Not here: how an event is written (premis.py, prov.py, rocrate.py). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from exlab_watch_agent.core.overrides import parse_time
from exlab_watch_agent.core.passes import Pass
from exlab_watch_agent.core.record import Move
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.report.dossier import HOW_READ, Dossier

DISCOVERED = "discovered"
"""The trigger of a run's first move, which no row of the chart has."""


class EventType(StrEnum):
    INGESTION_START = "ingestion start"
    VALIDATION = "validation"
    MODIFICATION = "modification"
    REPLICATION = "replication"
    FIXITY_CHECK = "fixity check"
    INGESTION_END = "ingestion end"
    RECOVERY = "recovery"
    DELETION = "deletion"
    POLICY_ASSIGNMENT = "policy assignment"


class Outcome(StrEnum):
    SUCCESS = "success"
    FAIL = "fail"
    UNFINISHED = "not finished"


@dataclass(frozen=True, slots=True)
class LifeEvent:
    """`at`: UTC. `id`: unique among those of its run. `operator`: who decided it, empty where the agent did.

    `proof`: what a pass kept of itself, as far as the record still has it.
    """

    id: str
    at: str
    type: EventType
    outcome: Outcome
    detail: str
    operator: str = ""
    proof: Pass | None = None


_OF_TRIGGER: Mapping[str, tuple[EventType, Outcome]] = {
    DISCOVERED: (EventType.INGESTION_START, Outcome.SUCCESS),
    "admitted": (EventType.VALIDATION, Outcome.SUCCESS),
    "refused": (EventType.VALIDATION, Outcome.FAIL),
    "changed": (EventType.MODIFICATION, Outcome.SUCCESS),
    "data_found": (EventType.MODIFICATION, Outcome.SUCCESS),
    "pushed": (EventType.REPLICATION, Outcome.SUCCESS),
    "proven": (EventType.FIXITY_CHECK, Outcome.SUCCESS),
    "audited": (EventType.FIXITY_CHECK, Outcome.SUCCESS),
    "difference_gone": (EventType.FIXITY_CHECK, Outcome.SUCCESS),
    "copy_damaged": (EventType.FIXITY_CHECK, Outcome.FAIL),
    "seal_missed": (EventType.FIXITY_CHECK, Outcome.FAIL),
    "conflict_found": (EventType.FIXITY_CHECK, Outcome.FAIL),
    "audit_interrupted": (EventType.FIXITY_CHECK, Outcome.UNFINISHED),
    "sealed": (EventType.INGESTION_END, Outcome.SUCCESS),
    "seal_failed": (EventType.INGESTION_END, Outcome.UNFINISHED),
    "removed": (EventType.DELETION, Outcome.SUCCESS),
    "local_gone": (EventType.DELETION, Outcome.SUCCESS),
    "interlock_broken": (EventType.DELETION, Outcome.UNFINISHED),
    "local_chosen": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
    "nas_chosen": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
    "taken_over": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
    "claim_lapsed": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
    "cancelled": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
    "retried": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
    "destination_replaced": (EventType.POLICY_ASSIGNMENT, Outcome.SUCCESS),
}
_OF_FAILED_ATTEMPT: Mapping[str, EventType] = {
    "queued": EventType.REPLICATION,
    "running": EventType.REPLICATION,
    "prechecking": EventType.REPLICATION,
    "awaiting_verify": EventType.FIXITY_CHECK,
}
"""What failed where an attempt was put back or given up, by the state that it was in."""
NO_EVENTS = frozenset(
    {
        "push_started",
        "precheck_passed",
        "copy_adopted",
        "audit_started",
        "cleanup_enabled",
        "cleanup_disabled",
        "interlocks_held",
        "removal_resumed",
    }
)
FAILED_ATTEMPTS = frozenset({"put_back", "gave_up"})
EVENTS = _OF_TRIGGER.keys()


def life_of(dossier: Dossier) -> list[LifeEvent]:
    """Return what happened to a run, the oldest first."""
    found = [*_moves(dossier.run.history, dossier.record.passes), *_overrides(dossier), *_incidents(dossier)]
    return sorted(found, key=lambda event: event.at)


def copy_of(dossier: Dossier) -> str:
    """Return where the copy is: the root as it was reached by the latest pass, and the folder in it. Empty: it has no place yet."""
    root = dossier.record.passes[-1].spelling if dossier.record.passes else ""
    return "/".join(filter(None, (root, dossier.record.destination)))


def operators_in(events: Sequence[LifeEvent]) -> list[str]:
    """Return who decided something, each once, sorted."""
    return sorted({event.operator for event in events} - {""})


def _moves(history: Sequence[Move], passes: Sequence[Pass]) -> Iterator[LifeEvent]:
    before_at: datetime | None = None
    for number, move in enumerate(history, start=1):
        source = move.source.value if move.source is not None else ""
        kind = _of(move.trigger, source)
        if kind is not None:
            proof = _proof(passes, before_at, move.at) if move.trigger in ("proven", "audited") else None
            detail = move.reason if proof is None else f"{move.reason} (the NAS was read by {HOW_READ[proof.remote]})"
            yield LifeEvent(f"move-{number}", utc_text(move.at), *kind, detail, move.operator or "", proof)
        before_at = move.at


def _of(trigger: str, source: str) -> tuple[EventType, Outcome] | None:
    if trigger in FAILED_ATTEMPTS:
        return _OF_FAILED_ATTEMPT.get(source, EventType.REPLICATION), Outcome.FAIL
    return _OF_TRIGGER.get(trigger)


def _proof(passes: Sequence[Pass], after: datetime | None, until: datetime) -> Pass | None:
    """Return the pass that ended between two moves."""
    return next((one for one in passes if (after is None or one.ended_at >= after) and one.ended_at <= until), None)


def _overrides(dossier: Dossier) -> Iterator[LifeEvent]:
    for entry, _ in dossier.overrides:
        what = f"override of {entry.problem_class}" if entry.revokes is None else f"override {entry.revokes} revoked"
        detail = f"{what}: {entry.reason}" + (f", until {entry.expires_at}" if entry.expires_at else "")
        # An entry may be written by hand: what is no time there cannot be one here.
        recorded_at = parse_time(entry.recorded_at) or dossier.record.discovered_at or dossier.record.entered_at
        yield LifeEvent(
            f"override-{entry.index + 1}",
            utc_text(recorded_at),
            EventType.POLICY_ASSIGNMENT,
            Outcome.SUCCESS,
            detail,
            entry.operator,
        )


def _incidents(dossier: Dossier) -> Iterator[LifeEvent]:
    for number, one in enumerate(dossier.record.incidents, start=1):
        found_at = utc_text(one.found_at)
        yield LifeEvent(f"incident-{number}", found_at, EventType.FIXITY_CHECK, Outcome.FAIL, one.what)
        if one.healed_at is not None:
            healed_at = utc_text(one.healed_at)
            yield LifeEvent(f"healed-{number}", healed_at, EventType.RECOVERY, Outcome.SUCCESS, one.what)
