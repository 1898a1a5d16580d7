"""record, event, now, policy → the record to save and the effects to start. Pure: reads no clock and no disk.

Every rule of a run's life is in `judge`, one function per kind of event; the chart (statechart.py) says whether the
trigger that was picked is possible at all. What is deliberately not here: which queued run may start (queueing.py),
and how an effect is carried out (acts). Longer than other modules: a reader who asks what may happen to a run finds all of it
in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from exlab_watch_agent.core.claim import (
    DESTINATION_OCCUPIED,
    OF_OTHERS,
    Claim,
    DestinationStanding,
    as_last_seen,
    awaits_look,
    conflict_at,
    is_meant,
    may_be_displaced,
)
from exlab_watch_agent.core.effects import Precheck, Push, Seal, SealedRun, Verify, Work, WriteStatus
from exlab_watch_agent.core.events import (
    AuditDue,
    CancelRequested,
    CopyWrong,
    DestinationReplaced,
    EffectFailed,
    Event,
    Inspected,
    LocalChosen,
    Outcome,
    PrecheckPassed,
    Pushed,
    RetryRequested,
    RunChanged,
    RunVanished,
    Sealed,
    TakenOver,
    Verified,
)
from exlab_watch_agent.core.gate import blocking, explain, mark_overrides
from exlab_watch_agent.core.incidents import Incident, IncidentKind, incident_of
from exlab_watch_agent.core.manifest import Agreement, Comparison
from exlab_watch_agent.core.overrides import active_classes
from exlab_watch_agent.core.passes import UNKNOWN_UPTIME, LocalSide, Pass, Uptime, are_apart, is_apart_from
from exlab_watch_agent.core.places import Footing
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import CANCELLED, LastError, Move, RunRecord
from exlab_watch_agent.core.retry import PutBack, after_failure
from exlab_watch_agent.core.seal import FOLDERS_FAULT
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.core.ways_out import (
    DIFFERS_FROM_SEALED,
    KEEPS_CHANGING,
    LOCAL_MISSING,
    ONLY_COPY_LOST,
    UNCOMPARED,
    may_be_taken_over,
)
from exlab_watch_agent.core.ways_out import LOCAL_CHANGED as LOCAL_CHANGED
from exlab_watch_agent.errors import FailureKind
from exlab_watch_agent.statechart import CHART, RunState, Trigger

RunEffect = Work | WriteStatus
DIFFERENT_COPY = (
    "the NAS has a sealed copy of this run by another agent, and it is not what is here; nothing was touched:"
)
_NOT_HELD = frozenset({DestinationStanding.FREE, DestinationStanding.OURS, DestinationStanding.ADOPTABLE})
NAMES_KEPT_MAX = 20
HAS_CHANGED = "the run changed since it counted as complete"
_COPY_DIFFERS = frozenset({Agreement.REMOTE_DIFFERS, Agreement.BOTH_DIFFER})
_COMPARES_A_SEALED = frozenset({RunState.AUDITING, RunState.CONFLICT, RunState.CLEANED})
GONE_HERE = "the run folder is gone here: two scans did not find it"
INTERRUPTIONS_TOLD = 3
"""So many audits in a row that ended because files changed here are a problem that a person must end."""
UNREADABLE_MAX = 2
"""So often in a row a copy that cannot be read as a whole is looked at, before it counts as damaged."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one event: the record to save (`move` is None when it is the old one) and the effects to start."""

    record: RunRecord
    effects: tuple[RunEffect, ...] = ()
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The trigger that an event amounts to, why in words, and the record with all that changes beside its state."""

    trigger: Trigger
    reason: str
    record: RunRecord
    operator: str | None = None


def decide(record: RunRecord, event: Event, *, now: datetime, policy: Policy) -> Step:
    """Return what follows from one event: the record to save and the effects to start.

    An event that changes nothing returns the record itself and no effect (but for a status that does not say what the
    state says). Raises: IllegalTransition if judgement and chart disagree (our defect, never the data's).
    """
    if isinstance(event, Outcome) and event.turn != record.turn:
        return Step(record)
    judgement = judge(record, event, now=now, policy=policy)
    if judgement is None:
        return Step(_noticed(record, event, now=now), resting_effects(record, event))
    moved = judgement.record.moved(judgement.trigger, at=now)
    move = Move(now, judgement.trigger, record.state, moved.state, judgement.reason, judgement.operator)
    return Step(moved, entry_effects(moved, before=record, event=event), move)


def judge(record: RunRecord, event: Event, *, now: datetime, policy: Policy) -> Judgement | None:
    """Return what the event means for a run in this state, None when nothing."""
    state = record.state
    match event:
        case Inspected():
            return _judge_inspection(record, event, now=now)
        case Pushed():
            if state is RunState.RUNNING:
                return Judgement(Trigger.PUSHED, f"{counted(record.files_total, 'file')} at the destination", record)
        case PrecheckPassed():
            if state is RunState.PRECHECKING:
                return Judgement(Trigger.PRECHECK_PASSED, "sizes and sampled blocks agree", record)
        case CopyWrong():
            if state is RunState.PRECHECKING:
                error = LastError(FailureKind.HASH_MISMATCH, event.message)
                return _after_failure(record, FailureKind.HASH_MISMATCH, error, now=now, policy=policy)
        case Verified():
            return _judge_verify(record, event, now=now, policy=policy)
        case Sealed():
            if state is RunState.SEALING:
                sealed = replace(record, sealed_at=record.sealed_at or now, adopts="", adopts_from="", takes_over="")
                sealed = replace(sealed, cache_form=event.cache_form, cache_signature=event.cache_signature)
                sealed = replace(sealed.with_cache_staying("", at=now), seal_trouble=None)
                sealed = sealed.cleared().healed(at=now).at_place(record.destination)
                return Judgement(Trigger.SEALED, "manifest and creation.json are on both sides", sealed)
        case RunChanged():
            if state is RunState.AUDITING:
                return _judge_interrupted(record, event, now=now)
            if state is RunState.SEALING and record.is_sealed and event.is_unproven:
                # What was sealed is never started over: both sides are compared with it anew, and what is missing there is healed.
                return Judgement(Trigger.CHANGED, event.message, record.returned(now))
            changed = _judge_change(record, event.message, is_missing_there=event.is_missing_there)
            if (
                changed is not None and event.is_unproven
            ):  # neither side changed, and what kept it from its seal may do so again
                return replace(changed, record=replace(changed.record, seal_trouble=record.seal_trouble))
            return changed
        case EffectFailed():
            return _judge_failure(record, event, now=now, policy=policy)
        case RetryRequested():
            if state is RunState.FAILED:
                reason = event.reason or "another try was asked for"
                return Judgement(Trigger.RETRIED, reason, record.cleared(), event.operator)
        case CancelRequested():
            if state in CHART.sources(Trigger.CANCELLED):
                error = LastError(CANCELLED, f"cancelled by {event.operator}: {event.reason}")
                # Whom the operator before had make room keeps it: the later word counts.
                stopped = replace(record.with_error(error).without_wait(), takes_over="")
                return Judgement(Trigger.CANCELLED, event.reason, stopped, event.operator)
        case LocalChosen():
            reason = event.reason or "the local data win"
            if is_short(record):  # they win once a comparison has shown that all that was sealed is here again
                return Judgement(Trigger.LOCAL_CHOSEN, reason, record.returned(now), event.operator)
            if (
                state is RunState.CONFLICT
                and record.is_sealed
                and kind_of(record) in OF_OTHERS - {DESTINATION_OCCUPIED}
            ):
                # What was proven here is given up by no word about others: files may be missing, which nobody was told of.
                return Judgement(Trigger.LOCAL_CHOSEN, reason, record.returned(now), event.operator)
            if state is RunState.CONFLICT:
                anew = record.unsealed(by=event.operator)
                if kind_of(record) in OF_OTHERS:
                    # What others have there stays theirs: the run may have a place of its own elsewhere.
                    anew = anew.at_place("")
                return Judgement(Trigger.LOCAL_CHOSEN, reason, anew.cleared(), event.operator)
        case TakenOver():
            if is_held_by_others(record):
                reason = event.reason or "what others have at the destination makes room"
                # What was proven here before is given up by nobody's word about others: the data are held against it first.
                anew = record.returned(now) if record.is_sealed else record.unsealed(by=event.operator).cleared()
                meant = replace(anew, takes_over=as_last_seen(record.held_by))
                return Judgement(Trigger.TAKEN_OVER, reason, meant, event.operator)
        case AuditDue():
            if state in (RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE):
                return Judgement(Trigger.AUDIT_STARTED, event.reason or "the next pass is due", record, event.operator)
        case DestinationReplaced():
            return _judge_replaced(record, event)
        case RunVanished():
            if state in CHART.sealed_here and record.is_sealed:
                return Judgement(Trigger.AUDIT_STARTED, GONE_HERE, record.with_local_gone(now))
            if state is RunState.QUEUED and record.is_sealed:
                text = f"{GONE_HERE}, and what the NAS has was to be proven or repaired first"
                return _conflict(record.with_local_gone(now), LastError(LOCAL_MISSING, text))
            if state is RunState.QUEUED:
                error = LastError(FailureKind.LOCAL_FILE_VANISHED, "the run folder is gone: put it back, then retry")
                return _after_failure(record, FailureKind.LOCAL_FILE_VANISHED, error, now=now, policy=policy)
        case _:
            assert_never(event)
    return None


def _judge_inspection(record: RunRecord, event: Inspected, *, now: datetime) -> Judgement | None:
    findings = mark_overrides(event.findings, event.creation.overrides, now=now)
    refusals = blocking(findings)
    has_changed = event.fingerprint != record.fingerprint
    refused = None
    if refusals:
        refusal = _as_seen(record, event).with_error(LastError(refusals[0].rule, explain(findings)))
        refused = Judgement(Trigger.REFUSED, explain(findings), refusal)
    match record.state:
        case RunState.ACQUIRING if event.completeness.is_complete:
            return refused or Judgement(
                Trigger.ADMITTED, "complete, quiet and admitted by the gate", _admitted(record, event, now)
            )
        # What was sealed is never started over: in the queue the change shows, and an operator must choose.
        case RunState.BLOCKED if has_changed and not record.is_sealed:
            return _start_over(record, HAS_CHANGED)
        case RunState.BLOCKED if refused is None:
            admitted = _admitted(record, event, now)
            if record.is_sealed:
                admitted = replace(admitted, fingerprint=record.fingerprint)
            return Judgement(Trigger.ADMITTED, "the gate lets it through now", admitted)
        case RunState.QUEUED:
            changed = _start_over(record, HAS_CHANGED) if has_changed else None
            return _judge_queued(record, event, refused=refused, changed=changed)
        case RunState.RUNNING if refused is not None:
            return refused
        case RunState.RUNNING | RunState.PRECHECKING | RunState.AWAITING_VERIFY | RunState.SEALING if has_changed:
            return _judge_change(record, HAS_CHANGED)
        case RunState.VERIFIED | RunState.CLEANUP_ELIGIBLE if has_changed:
            return Judgement(Trigger.AUDIT_STARTED, "the local data moved since they were proven", record)
        case RunState.FAILED if has_changed and not (record.is_sealed or record.is_cancelled):
            return _start_over(record, HAS_CHANGED)
        # Of a cache folder alone the copy stays the only one, and is looked at.
        case RunState.CLEANED if event.files_total:
            text = "there are data in the run folder again: they are compared with the copy before anything is written"
            return Judgement(Trigger.DATA_FOUND, text, record.returned(now))
        case RunState.CONFLICT if awaits_holder(record) and event.destination in _NOT_HELD:
            return Judgement(Trigger.CLAIM_LAPSED, "no other agent holds the copy any more", record.cleared())
    return None


def _judge_queued(
    record: RunRecord, event: Inspected, *, refused: Judgement | None, changed: Judgement | None
) -> Judgement | None:
    is_back = record.is_sealed and record.gone_at is not None  # what it is now, only a comparison shows
    if not is_back and (changed is not None or not (event.completeness.is_complete or record.is_sealed)):
        if record.is_sealed:
            return _not_compared(record, "the local data changed after the run was sealed")
        return changed or _start_over(record, event.completeness.reason)
    if refused is not None:
        return refused
    if event.destination is None:
        return None
    where = event.destination
    if where is not DestinationStanding.UNASKED:
        is_held = where not in (DestinationStanding.FREE, DestinationStanding.OURS)
        record = replace(record, held_by=event.holding if is_held else "")
    if where is DestinationStanding.ADOPTABLE and record.is_sealed and not _is_the_one_it_adopts(record, event):
        where = DestinationStanding.CLAIMED_BY_OTHER_AGENT  # it was put over the copy that we had sealed
    if may_be_displaced(where, consent=record.takes_over, holding=event.holding):
        # The push asks whether that is what was sealed.
        displacing = _as_seen(record.at_place(event.destination_path), event)
        displacing = replace(displacing, takes_over=event.holding, gone_at=None).without_wait()
        text = f"an operator has it taken over ({event.holder or 'no claim says whose it is'})"
        return Judgement(Trigger.PUSH_STARTED, text, displacing)
    conflict = conflict_at(
        where,
        event.destination_path,
        holder=event.holder,
        is_sealed=record.is_sealed,
        detail=event.detail,
        sign_fault=event.sign_fault,
    )
    if conflict is not None:
        # Whoever came since the operator's word was not told of when it was given.
        since = "it is not held by the one that was to give way: " if record.takes_over else ""
        return _conflict(record, LastError(conflict.kind, f"{since}{conflict.message}", conflict.detail))
    bound_for = record.at_place(event.destination_path, _footing(record, where)).without_wait()
    if where is DestinationStanding.LEFT_THERE:
        # It is proven first. An operator's word is for what does not prove to be this run's, and for nobody who comes meanwhile.
        left = replace(bound_for, takes_over=event.holding if is_meant(record.takes_over, event.holding) else "")
        text = "a copy of this run that no agent made is there: it is proven before it counts as ours"
        return Judgement(Trigger.COPY_ADOPTED, text, left)
    if awaits_look(record.takes_over) and where is not DestinationStanding.UNASKED:
        bound_for = replace(bound_for, takes_over="")  # nobody had to give way: the word is used up
    if event.destination is DestinationStanding.ADOPTABLE and not record.is_sealed:
        adopting = replace(bound_for, adopts=event.claimed_manifest, adopts_from=event.claimed_job)
        text = f"a sealed copy of this run is there ({event.holder}): it is proven before it counts as ours"
        if not _is_the_one_it_adopts(record, event):  # else what failed before was to prove this very copy
            adopting = replace(adopting, attempts=0, mismatches=0)
        return Judgement(Trigger.COPY_ADOPTED, text, adopting)
    if is_back:
        text = "the run is back: it is compared with what was sealed"
        return Judgement(Trigger.COPY_ADOPTED, text, _as_seen(bound_for, event))
    return Judgement(Trigger.PUSH_STARTED, "a slot is free and the NAS answers", bound_for)


def _footing(record: RunRecord, where: DestinationStanding) -> Footing:
    """Return what the place of a run that is about to be pushed rests on."""
    if where is DestinationStanding.LEFT_THERE:
        return Footing.LEFT_THERE
    if record.has_place and not awaits_look(record.takes_over):  # who is to give way is yet to be seen
        return record.footing
    return Footing.OPEN if where is DestinationStanding.UNASKED else Footing.OWN


def _is_the_one_it_adopts(record: RunRecord, event: Inspected) -> bool:
    """Whether the copy there is still the one that the local data were found to be equal to."""
    return bool(record.adopts) and (record.adopts, record.adopts_from) == (event.claimed_manifest, event.claimed_job)


def awaits_holder(record: RunRecord) -> bool:
    """Whether a run rests only because another agent holds its copy, which may end without anybody's doing."""
    error = record.last_error
    return (
        record.state is RunState.CONFLICT
        and not record.is_sealed
        and error is not None
        and error.kind == DestinationStanding.CLAIMED_BY_OTHER_AGENT
    )


def is_held_by_others(record: RunRecord) -> bool:
    """Whether a run rests because others hold its destination, who may give way on an operator's word."""
    error = record.last_error
    return (
        record.state is RunState.CONFLICT and error is not None and may_be_taken_over(error.kind, detail=error.detail)
    )


def kind_of(record: RunRecord) -> str:
    """Return the kind of what a run was last stopped by; empty where nothing did."""
    return record.last_error.kind if record.last_error is not None else ""


def is_short(record: RunRecord) -> bool:
    """Whether a sealed run rests because local data are missing, some or all, or nobody has looked whether they are.

    What is left must not be called the run.
    """
    if record.state is not RunState.CONFLICT or not record.is_sealed or record.last_error is None:
        return False
    kind, detail = record.last_error.kind, record.last_error.detail
    return kind in (LOCAL_MISSING, ONLY_COPY_LOST) or (kind, detail) == (LOCAL_CHANGED, UNCOMPARED)


def _judge_verify(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement | None:
    match record.state:
        case RunState.AWAITING_VERIFY:
            return _judge_first_verify(record, event, now=now, policy=policy)
        case RunState.AUDITING if event.local is LocalSide.MANIFEST:
            return _judge_gone(record, event, now=now, policy=policy)
        case RunState.CLEANED if event.local is LocalSide.MANIFEST:
            return _judge_only_copy(record, event, now=now, policy=policy)
        case RunState.AUDITING:
            return _judge_audit(record, event, now=now, policy=policy)
        case RunState.CONFLICT if event.local is LocalSide.MANIFEST:
            return _judge_nas_chosen(record, event, now=now, policy=policy)
        case RunState.CONFLICT if _is_equal(event) and record.is_sealed:
            proven = _proven(record, event, policy=policy)
            if event.seal_fault:
                return _seal_missed(proven, event, now=now)
            return Judgement(Trigger.DIFFERENCE_GONE, "both sides equal the manifest again", proven.healed(at=now))
    return None


def _is_equal(event: Verified) -> bool:
    return event.comparison.agreement is Agreement.EQUAL and not event.skipped_oversize


def _judge_first_verify(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement:
    found = _words(event.comparison)
    if record.adopts and not record.is_sealed:
        return _judge_adoption(record, event, found, now=now, policy=policy)
    if record.footing is Footing.LEFT_THERE:
        return _judge_left_there(record, event, found, now=now, policy=policy)
    match event.comparison.agreement:
        case Agreement.LOCAL_GONE if record.is_sealed:
            return _conflict(record, LastError(LOCAL_MISSING, found), fingerprint=event.fingerprint)
        case Agreement.LOCAL_GONE:
            error = LastError(FailureKind.LOCAL_FILE_VANISHED, found)
            left = event.fingerprint
            return _after_failure(
                record, FailureKind.LOCAL_FILE_VANISHED, error, now=now, policy=policy, fingerprint=left
            )
        case Agreement.LOCAL_DIFFERS | Agreement.BOTH_DIFFER:
            sealed = record if record.is_sealed else None
            differs = sealed and _local_differs(sealed, event.comparison, fingerprint=event.fingerprint)
            return differs or _start_over(record, found)
        case Agreement.REMOTE_DIFFERS:
            error = LastError(FailureKind.HASH_MISMATCH, found)
            if record.is_sealed and record.gone_at is not None:  # what is back is whole, so that it may repair the copy
                record = replace(record.with_incident(_damage(record, event.comparison, now=now)), gone_at=None)
            return _after_failure(record, FailureKind.HASH_MISMATCH, error, now=now, policy=policy)
        case Agreement.EQUAL:
            return _judge_equal(record, event, found, now=now, policy=policy)
        case _:
            assert_never(event.comparison.agreement)


def _judge_equal(record: RunRecord, event: Verified, found: str, *, now: datetime, policy: Policy) -> Judgement:
    if event.skipped_oversize:
        names = ", ".join(event.skipped_oversize[:NAMES_KEPT_MAX])
        text = f"too large to be proven by download: {names}; raise verify.max_stream_bytes in the config, then retry"
        return Judgement(Trigger.GAVE_UP, text, record.with_error(LastError("verify_skipped_oversize", text)))
    if event.declared_mismatches and "manifest_hash_mismatch" not in active_classes(event.overrides, now=now):
        kept = event.declared_mismatches[:NAMES_KEPT_MAX]
        put_back = replace(record, declared_mismatches=kept).without_wait()
        return Judgement(Trigger.PUT_BACK, f"hashes differ from the instrument's manifest: {', '.join(kept)}", put_back)
    return Judgement(Trigger.PROVEN, found, _proven(record, event, policy=policy))


def _judge_adoption(record: RunRecord, event: Verified, found: str, *, now: datetime, policy: Policy) -> Judgement:
    """Another agent's sealed copy was compared with the local data. Only what is here whole takes it over, or heals it."""
    agreement = event.comparison.agreement
    is_whole_here = event.is_by_manifest and agreement is Agreement.REMOTE_DIFFERS and bool(event.manifest_digest)
    # Without the manifest what only the NAS has may be of the run: then less is here than was sealed.
    is_less_here = not event.is_by_manifest and bool(event.comparison.remote_extra)
    if agreement is Agreement.EQUAL and not is_less_here:
        given = _judge_equal(record, event, found, now=now, policy=policy)
        if given.trigger is not Trigger.PROVEN:
            return given
        return replace(given, record=given.record.adopted(event.manifest_digest, at=now))
    if is_whole_here:
        error = LastError(FailureKind.HASH_MISMATCH, found)
        sealed = record.adopted(event.manifest_digest, at=now).with_incident(_damage(record, event.comparison, now=now))
        return _after_failure(sealed, FailureKind.HASH_MISMATCH, error, now=now, policy=policy)
    away = replace(record, adopts="", adopts_from="")
    return _conflict(away, LastError(DIFFERS_FROM_SEALED, f"{DIFFERENT_COPY} {found}"))


def _judge_left_there(record: RunRecord, event: Verified, found: str, *, now: datetime, policy: Policy) -> Judgement:
    """A copy without a claim was compared with the local data. It is completed only where every file of it is what is here."""
    match event.comparison:
        case _ if event.comparison.agreement is Agreement.EQUAL or event.skipped_oversize:
            return _judge_equal(record, event, found, now=now, policy=policy)
        case Comparison(agreement=Agreement.REMOTE_DIFFERS, remote_changed=()):
            shown = replace(record.at_place(record.destination, Footing.SHOWN), takes_over="").without_wait()
            return Judgement(Trigger.PUT_BACK, f"what is there is this run's, and is completed: {found}", shown)
        case Comparison(agreement=Agreement.REMOTE_DIFFERS) if record.takes_over:
            text = f"what is there is not what is here, and makes room because an operator said so: {found}"
            return Judgement(Trigger.PUT_BACK, text, record.at_place(record.destination).without_wait())
    detail = f"a copy of this run that no agent made, and that is not what is here ({found}{event.others_manifest})"
    conflict = conflict_at(DestinationStanding.OCCUPIED, record.destination, holder="", is_sealed=False, detail=detail)
    assert conflict is not None, "what is occupied is a conflict"
    return _conflict(record, LastError(conflict.kind, conflict.message))


def _judge_audit(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement:
    found = _words(event.comparison)
    if _is_equal(event):
        proven = _proven(record, event, policy=policy)
        right = Judgement(Trigger.PROVEN, found, proven.healed(at=now))
        return _seal_missed(proven, event, now=now) if event.seal_fault else right
    record = _noticed(record, event, now=now)
    if conflict := _local_differs(record, event.comparison, fingerprint=event.fingerprint):
        return conflict
    match event.comparison.agreement:
        case Agreement.REMOTE_DIFFERS:
            # Every file here is what was sealed, whatever times they have.
            intact = replace(record, fingerprint=event.fingerprint)
            return _damaged(intact, LastError(FailureKind.HASH_MISMATCH, found))
        case Agreement.EQUAL:
            error = LastError("verify_skipped_oversize", "some files are too large to be proven by download")
            return Judgement(Trigger.AUDIT_INTERRUPTED, error.message, record.with_error(error))
        case agreement:
            raise AssertionError(f"{agreement} is a conflict")


def _local_differs(record: RunRecord, found: Comparison, *, fingerprint: str) -> Judgement | None:
    """Return the conflict of a sealed run that is not here as it was sealed; None where it is."""
    if found.agreement in (Agreement.EQUAL, Agreement.REMOTE_DIFFERS):
        return None
    # What else is new or changed here does not make up for what is missing: the rest must not be called the run.
    is_short = found.agreement is Agreement.LOCAL_GONE or bool(found.local_missing)
    error = LastError(LOCAL_MISSING if is_short else LOCAL_CHANGED, _words(found))
    return _conflict(record, error, fingerprint=fingerprint)


def _judge_interrupted(record: RunRecord, event: RunChanged, *, now: datetime) -> Judgement:
    """Files changed here during an audit: what did not change was compared all the same, and what is wrong there is on record, the
    seal included.

    It is repaired once the run is quiet; that it never is gets told. A first change or two is nobody's problem.
    """
    again = replace(_noticed(record, event, now=now), gone_at=None, interruptions=record.interruptions + 1)
    reason = event.message
    if event.stayed is not None:
        if conflict := _local_differs(again, event.stayed, fingerprint=event.fingerprint):
            return conflict
        if event.stayed.agreement is Agreement.REMOTE_DIFFERS:
            again, reason = again.with_passes_void(), f"{event.message}; {_words(event.stayed)}"
        elif event.seal_fault:
            again, reason = _with_altered_seal(again, event.seal_fault, now=now), f"{event.message}; {event.seal_fault}"
    if again.interruptions >= INTERRUPTIONS_TOLD:
        text = f"{event.message}, and so it was each time of the last {again.interruptions}"
        again = again.with_error(LastError(KEEPS_CHANGING, text))
    return Judgement(Trigger.AUDIT_INTERRUPTED, reason, again)


def _judge_gone(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement:
    """The run's folder is gone here, and the copy was compared with the manifest.

    `cleaned` says that the NAS has the only copy, so all of this must be true first: two scans of a root that is there and is ours
    did not find the folder, nor one that may be it under another name; it was not there before and after the comparison; the
    claim there is ours; every file of the manifest that the seal proved was read there and is equal. Nothing is removed by it.
    """
    if event.comparison.agreement is Agreement.LOCAL_GONE and event.proof is not None:
        files = counted(event.files_total, "file")
        text = f"{GONE_HERE}; the NAS has the only copy now, and {'it is' if event.files_total == 1 else 'all are'} right: {files}"
        return Judgement(Trigger.LOCAL_GONE, text, _looked_at(record, event, event.proof, now=now, policy=policy))
    if event.comparison.agreement is Agreement.LOCAL_GONE:
        error = LastError(
            "verify_skipped_oversize", f"{GONE_HERE}, and some files are too large to be proven by download"
        )
        return Judgement(Trigger.AUDIT_INTERRUPTED, error.message, record.with_error(error))
    text = f"{GONE_HERE}, and the copy on the NAS is not what was sealed: {_words(event.comparison)}"
    return _conflict(_noticed(record, event, now=now), LastError(ONLY_COPY_LOST, text))


def _judge_nas_chosen(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement | None:
    """An operator says that the sealed copy counts. That is recorded of a run without one data file here, and removes nothing.

    All of this must be true: the claim there is ours; every file of the manifest that the seal proved was read there, now, and is
    equal; no data file was here before and after that. Else the conflict stays, and what was found wrong there is on record.
    """
    if not (
        record.is_sealed and event.chosen_by and event.proof and event.comparison.agreement is Agreement.LOCAL_GONE
    ):
        return None
    counts = replace(record, gone_at=None if event.is_folder_here else record.gone_at or now)
    after = _looked_at(counts, event, event.proof, now=now, policy=policy)
    reason = event.reason or "the sealed copy counts, and is the only one"
    return Judgement(Trigger.NAS_CHOSEN, reason, after, event.chosen_by)


def _judge_only_copy(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement:
    """The only copy was looked at again: a difference stays visible, for there is nothing here to heal it from."""
    if event.comparison.agreement is Agreement.LOCAL_GONE and event.proof is not None:
        looked_at = _looked_at(record, event, event.proof, now=now, policy=policy)
        return Judgement(Trigger.AUDITED, "every SHA-256 on the NAS is that of the manifest", looked_at)
    if event.comparison.agreement is Agreement.LOCAL_GONE:
        error = LastError("verify_skipped_oversize", "some files are too large to be proven by download")
        return Judgement(Trigger.AUDITED, error.message, record.with_error(error))
    text = f"the only copy is not what was sealed: {_words(event.comparison)}"
    lost = _noticed(record, event, now=now).with_error(LastError(ONLY_COPY_LOST, text)).with_passes_void()
    return Judgement(Trigger.AUDITED, text, lost)


def _looked_at(record: RunRecord, event: Verified, proof: Pass, *, now: datetime, policy: Policy) -> RunRecord:
    """Return the record after a copy without its original was found to be what the manifest says."""
    one_more = _is_one_more(record, proof, policy=policy)
    whole = record.with_data(record.fingerprint, files_total=event.files_total, bytes_total=event.bytes_total)
    after = whole.with_pass(proof, is_one_more=one_more).cleared()
    if not event.seal_fault:
        return after.healed(at=now)
    kind, found_by = IncidentKind.SEAL_ALTERED, _found_by(record)
    return after.with_incident(incident_of(kind, found_by=found_by, found_at=now, what=event.seal_fault))


def _seal_missed(proven: RunRecord, event: Verified, *, now: datetime) -> Judgement:
    """The data are what they were, and the copy does not say so, or says something else: it is sealed again."""
    what = f"both sides equal the manifest, but the NAS copy does not say so: {event.seal_fault}"
    return Judgement(Trigger.SEAL_MISSED, what, _with_altered_seal(proven, event.seal_fault, now=now))


def _with_altered_seal(record: RunRecord, fault: str, *, now: datetime) -> RunRecord:
    """Return the record with what is wrong with the seal of its copy as an incident, where that is somebody's doing there."""
    if fault == FOLDERS_FAULT:  # that the run has another empty folder now is not
        return record
    found = incident_of(IncidentKind.SEAL_ALTERED, found_by=_found_by(record), found_at=now, what=fault)
    return record.with_incident(found)


def _noticed(record: RunRecord, event: Event, *, now: datetime) -> RunRecord:
    """Return the record with what a comparison proved wrong with a sealed copy, whatever else it leads to."""
    found = None
    if isinstance(event, Verified | RunChanged):
        found = event.comparison if isinstance(event, Verified) else event.stayed
    if found is None or found.agreement not in _COPY_DIFFERS:
        return record
    if record.state not in _COMPARES_A_SEALED or not record.is_sealed:
        return record
    return record.with_incident(_damage(record, found, now=now))


def _damage(record: RunRecord, found: Comparison, *, now: datetime) -> Incident:
    files = (*found.remote_missing, *found.remote_changed)
    what = _words(found)
    return incident_of(IncidentKind.COPY_DAMAGED, found_by=_found_by(record), found_at=now, what=what, files=files)


def _found_by(record: RunRecord) -> str:
    """Return what the comparison that has just ended is called."""
    return f"{record.job_id}/{record.turn}"


def _damaged(record: RunRecord, error: LastError) -> Judgement:
    """The sealed copy is not what it was: whatever was proven before is void, and a push must heal it."""
    voided = replace(record, attempts=0, mismatches=0).with_error(error).with_passes_void()
    return Judgement(Trigger.COPY_DAMAGED, error.message, voided)


def _start_over(record: RunRecord, reason: str) -> Judgement:
    return Judgement(Trigger.CHANGED, reason, record.afresh())


def _judge_replaced(record: RunRecord, event: DestinationReplaced) -> Judgement | None:
    """The copy, or what was under way to it, is at a place that was given up: what can be proven or pushed anew is queued.

    Not so where the data are only at the old place, for then there is nothing to push; and not where the local data are not, or not
    all, what was sealed, since at the new place the sealed copy may be back, and no push may put it aside before an operator chose.
    """
    reason = f"the destination was replaced: {event.reason}"
    anew = record.elsewhere().cleared()
    if not record.is_sealed:
        anew = replace(anew.without_doubtful_place(), adopts="", adopts_from="")
    kind = record.last_error.kind if record.last_error is not None else ""
    match record.state:
        case RunState.AUDITING:
            return Judgement(Trigger.AUDIT_INTERRUPTED, reason, anew, event.operator)
        case RunState.RUNNING | RunState.PRECHECKING | RunState.AWAITING_VERIFY:
            return Judgement(Trigger.PUT_BACK, reason, anew, event.operator)
        case RunState.SEALING:
            return Judgement(Trigger.DESTINATION_REPLACED, reason, anew, event.operator or None)
        case RunState.VERIFIED | RunState.CLEANUP_ELIGIBLE if event.has_data:
            return Judgement(Trigger.DESTINATION_REPLACED, reason, anew, event.operator)
        case RunState.CONFLICT if event.has_data and kind not in (LOCAL_CHANGED, LOCAL_MISSING):
            return Judgement(Trigger.DESTINATION_REPLACED, reason, anew, event.operator)
    return None


def _judge_change(record: RunRecord, message: str, *, is_missing_there: bool = False) -> Judgement | None:
    if record.state not in CHART.on_a_push:
        return None
    found = _change_of_a_push(record, message)
    if not is_missing_there:
        return found
    return replace(found, record=replace(found.record, mismatches=record.mismatches + 1))


def _change_of_a_push(record: RunRecord, message: str) -> Judgement:
    """A change before the first seal starts the run over; after it, both versions matter and an operator must choose."""
    if not record.is_sealed:
        return _start_over(record, message)
    if record.state in (RunState.AWAITING_VERIFY, RunState.SEALING):
        return _not_compared(record, message)
    return Judgement(Trigger.PUT_BACK, message, record.without_wait())


def _judge_failure(record: RunRecord, event: EffectFailed, *, now: datetime, policy: Policy) -> Judgement | None:
    error = LastError(event.kind, event.message, event.detail)
    match record.state:
        case RunState.AUDITING if event.is_copy_unreadable:
            if record.attempts + 1 >= UNREADABLE_MAX:
                found = _unreadable(record, event, now=now)
                if record.gone_at is not None:  # there is nothing to heal it from
                    return _conflict(found, LastError(ONLY_COPY_LOST, f"{GONE_HERE}, and {event.message}"))
                return _damaged(found, error)
            return Judgement(Trigger.AUDIT_INTERRUPTED, event.message, record.failed(error).with_passes_void())
        case RunState.AUDITING | RunState.RUNNING | RunState.AWAITING_VERIFY | RunState.SEALING if event.conflict:
            held = replace(record, held_by=event.holding or record.held_by)
            return _conflict(held, LastError(event.conflict, event.message, event.detail))
        case RunState.AUDITING:
            return Judgement(Trigger.AUDIT_INTERRUPTED, event.message, _unfinished(record, error))
        case RunState.CLEANED if event.is_copy_unreadable:
            failed = record.failed(error).with_passes_void()
            if failed.attempts >= UNREADABLE_MAX:
                lost = LastError(ONLY_COPY_LOST, f"the only copy cannot be read: {event.message}")
                failed = _unreadable(failed, event, now=now).with_error(lost)
            return Judgement(Trigger.AUDITED, event.message, failed)
        case RunState.CLEANED if event.conflict:
            claimed = _unfinished(record, LastError(event.conflict, event.message))
            return Judgement(Trigger.AUDITED, event.message, claimed)
        case RunState.CLEANED if not (event.is_destination_away or event.is_source_away):
            return Judgement(Trigger.AUDITED, f"it could not be looked at: {event.message}", _unfinished(record, error))
        case RunState.SEALING:
            failed = record.with_error(error)
            if not event.is_destination_away:
                failed = record.failed(error).with_seal_failed(error, at=now)
            wait_s = policy.retry_schedule_s[min(max(failed.attempts, 1), len(policy.retry_schedule_s)) - 1]
            return Judgement(Trigger.SEAL_FAILED, event.message, failed.waiting(wait_s, now=now))
        case RunState.RUNNING | RunState.PRECHECKING | RunState.AWAITING_VERIFY:
            if event.is_destination_away or event.is_source_away:
                return Judgement(Trigger.PUT_BACK, event.message, record.with_error(error).without_wait())
            left = event.fingerprint
            return _after_failure(record, event.kind, error, now=now, policy=policy, fingerprint=left)
    return None


def _unfinished(record: RunRecord, error: LastError) -> RunRecord:
    """Return the record after a look at a sealed copy that did not end: that it is lost stays said until one does."""
    is_lost = record.last_error is not None and record.last_error.kind == ONLY_COPY_LOST
    return record if is_lost else record.with_error(error)


def _unreadable(record: RunRecord, event: EffectFailed, *, now: datetime) -> RunRecord:
    kind, found_by = IncidentKind.COPY_UNREADABLE, _found_by(record)
    return record.with_incident(incident_of(kind, found_by=found_by, found_at=now, what=event.message))


def _after_failure(
    record: RunRecord, kind: FailureKind, error: LastError, *, now: datetime, policy: Policy, fingerprint: str = ""
) -> Judgement:
    """Count the failure, and put the run back or give up. `fingerprint`: what is left of a run of which a file vanished."""
    failed = record.failed(error, is_mismatch=kind is FailureKind.HASH_MISMATCH)
    verdict = after_failure(
        kind, attempts=failed.attempts, mismatches=failed.mismatches, schedule_s=policy.retry_schedule_s
    )
    if isinstance(verdict, PutBack):
        return Judgement(Trigger.PUT_BACK, error.message, failed.waiting(verdict.wait_s, now=now))
    if fingerprint:
        failed = replace(failed, fingerprint=fingerprint)
    return Judgement(Trigger.GAVE_UP, f"{error.message} ({verdict.reason})", failed.without_wait())


def _conflict(record: RunRecord, error: LastError, *, fingerprint: str = "") -> Judgement:
    found = record.with_error(error).with_passes_void().without_wait()
    if fingerprint:
        found = replace(found, fingerprint=fingerprint)
    return Judgement(Trigger.CONFLICT_FOUND, error.message, replace(found, takes_over=""))


def _not_compared(record: RunRecord, message: str) -> Judgement:
    """Return the conflict of a sealed run that changed here, of which nobody knows yet whether files are missing."""
    return _conflict(record, LastError(LOCAL_CHANGED, message, UNCOMPARED))


def _as_seen(record: RunRecord, event: Inspected) -> RunRecord:
    seen = record.with_data(event.fingerprint, files_total=event.files_total, bytes_total=event.bytes_total)
    return replace(seen, run_kind=event.creation.run_kind)


def _admitted(record: RunRecord, event: Inspected, now: datetime) -> RunRecord:
    return replace(_as_seen(record, event).cleared(of_mismatches=False), enqueued_at=now)


def _proven(record: RunRecord, event: Verified, *, policy: Policy) -> RunRecord:
    """Return the record after both sides were found equal. It counts as another pass when it is apart from the last one."""
    assert event.proof is not None, "both sides are equal, and nothing was left out"
    data = record.with_data(event.fingerprint, files_total=event.files_total, bytes_total=event.bytes_total)
    proven = data.with_pass(event.proof, is_one_more=_is_one_more(record, event.proof, policy=policy))
    return proven.cleared(of_mismatches=record.is_sealed)


def _is_one_more(record: RunRecord, proof: Pass, *, policy: Policy) -> bool:
    return record.verify_passes == 0 or policy.cleanup.age_min_s == 0 or _is_apart_from_the_last(record, proof)


def _is_apart_from_the_last(record: RunRecord, proof: Pass) -> bool:
    if record.passes:
        return is_apart_from(record.passes[-1], proof)
    if record.verified_at is None:
        return True
    earlier = Uptime(record.verified_boot_id, record.verified_uptime_s)
    return are_apart(earlier_at=record.verified_at, earlier=earlier, now=proof.ended_at, uptime=proof.uptime)


def _words(comparison: Comparison) -> str:
    """Return the comparison in one sentence, with the first name of each kind."""
    parts = [
        f"{counted(len(names), 'file')} {what} (first: {names[0]})"
        for names, what in (
            (comparison.remote_missing, "missing on the NAS"),
            (comparison.remote_changed, "different or unreadable on the NAS"),
            (comparison.local_changed, "changed here"),
            (comparison.local_missing, "gone here"),
            (comparison.local_added, "new here"),
        )
        if names
    ]
    if not parts:
        is_equal = comparison.agreement is Agreement.EQUAL
        parts.append("every SHA-256 is equal on both sides" if is_equal else "there is no data file")
    if extra := comparison.remote_extra:
        parts.append(
            f"{counted(len(extra), 'file')} there {'is' if len(extra) == 1 else 'are'} not the run's (first: {extra[0]})"
        )
    return "; ".join(parts)


def entry_effects(
    record: RunRecord, *, before: RunRecord | None = None, event: Event | None = None
) -> tuple[RunEffect, ...]:
    """Return what a run that has just entered its state needs; with only the record, what start-up issues again."""
    effects: list[RunEffect] = []
    # Sealing writes "synced" itself, so that the NAS copy says it too before the run counts as verified; a seal that
    # comes to nothing takes it back.
    is_sealed_now = before is not None and before.state is RunState.SEALING and record.state is RunState.VERIFIED
    is_seal_undone = before is not None and before.state is RunState.SEALING and record.state is not RunState.SEALING
    has_new_status = before is not None and record.sync_status != before.sync_status
    is_seen = isinstance(event, Inspected) or (isinstance(event, Verified) and event.local is LocalSide.READ)
    is_nothing_there = record.gone_at is not None and not is_seen
    if ((has_new_status or is_seal_undone) and not is_sealed_now and not is_nothing_there) or (
        isinstance(event, Inspected) and event.creation.sync_status != record.sync_status
    ):
        effects.append(write_status(record))
    work = work_effect(record)
    return (*effects, work) if work is not None else tuple(effects)


def resting_effects(record: RunRecord, event: Event) -> tuple[RunEffect, ...]:
    """Return what an event that moved nothing still asks for: a status that differs, a conflict looked at again."""
    if isinstance(event, AuditDue) and record.state in (RunState.CONFLICT, RunState.CLEANED) and record.is_sealed:
        return (verify_effect(record),)
    if not isinstance(event, Inspected) or record.is_working or event.creation.sync_status == record.sync_status:
        return ()
    # An incomplete run's creation.json is still being written by others: only a false "synced" is taken back there.
    if record.state is RunState.ACQUIRING and event.creation.sync_status != "synced":
        return ()
    return (write_status(record),)


def nas_choice_effect(record: RunRecord, *, operator: str, reason: str) -> Verify:
    """Return the comparison after which a run in conflict, of which nothing is left here, may be left to its sealed copy."""
    return replace(verify_effect(record), local=LocalSide.MANIFEST, chosen_by=operator, reason=reason)


def write_status(record: RunRecord) -> WriteStatus:
    return WriteStatus(record.job_id, record.run_path, record.equipment_id, record.sync_status)


def sealed_run_of(record: RunRecord) -> SealedRun:
    """Return a sealed run as those know it who look for its data on both sides."""
    return SealedRun(record.job_id, record.destination, record.manifest_digest, record.run_path)


def claim_of(record: RunRecord) -> Claim:
    """Return what says at the destination whose folder it is."""
    run = "/".join(record.run_path.replace("\\", "/").rsplit("/", 3)[1:])
    return Claim(record.job_id, record.equipment_id, run, record.identity)


def verify_effect(record: RunRecord) -> Verify:
    return Verify(
        record.job_id,
        record.turn,
        record.run_path,
        record.equipment_id,
        record.destination,
        record.fingerprint,
        manifest_digest=record.sealed_as,
        claim=claim_of(record),
        is_audit=record.state in (RunState.AUDITING, RunState.CLEANED),
        adopts=record.adopts,
        adopts_from=record.adopts_from,
        is_left_there=record.footing is Footing.LEFT_THERE,
        local=LocalSide.MANIFEST if record.state is RunState.CLEANED else LocalSide.READ,
        may_be_gone=record.gone_at is not None and record.state is RunState.AUDITING,
    )


def work_effect(record: RunRecord) -> Work | None:
    """Return the one effect that a working state owns."""
    place = (record.job_id, record.turn, record.run_path, record.equipment_id, record.destination, record.fingerprint)
    match record.state:
        case RunState.RUNNING:
            # Before the proof nobody's claim gives way to a push.
            adopts, held_by = (record.adopts, record.adopts_from) if record.is_sealed else ("", "")
            return Push(
                *place,
                claim_of(record),
                record.is_sealed,
                adopts=adopts,
                adopts_from=held_by,
                takes_over=record.takes_over,
                manifest_digest=record.sealed_as,
                is_open=record.footing is Footing.OPEN,
                is_shown=record.footing is Footing.SHOWN,
            )
        case RunState.PRECHECKING:
            return Precheck(*place)
        case RunState.AWAITING_VERIFY | RunState.AUDITING:
            return verify_effect(record)
        case RunState.SEALING:
            return Seal(
                *place,
                manifest_digest=record.manifest_digest,
                claim=claim_of(record),
                wait_s=record.wait_s,
                is_again=record.is_sealed,
                adopts=record.adopts,
                adopts_from=record.adopts_from,
                is_left_there=record.footing in (Footing.LEFT_THERE, Footing.SHOWN),
                proven=record.passes[-1].uptime if record.passes else UNKNOWN_UPTIME,
                has_missed=record.mismatches > 0,
                is_proven=record.verify_passes > 0,
                is_taken_over=bool(record.takes_over),
            )
    return None
