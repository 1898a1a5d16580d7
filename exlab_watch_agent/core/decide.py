"""record, event, now, policy → the record to save and the effects to start. Pure: reads no clock and no disk.

Every rule of a run's life is in `judge`, one function per kind of event; the chart (statechart.py) says whether the
trigger that was picked is possible at all. What is deliberately not here: which queued run may start (queueing.py),
and how an effect is carried out (handlers.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from exlab_watch_agent.core.claim import Claim, conflict_at
from exlab_watch_agent.core.effects import Effect, Precheck, Push, Seal, Verify, WorkEffect, WriteStatus
from exlab_watch_agent.core.events import (
    AuditDue,
    CopyWrong,
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
    Verified,
)
from exlab_watch_agent.core.gate import blocking, explain, mark_overrides
from exlab_watch_agent.core.manifest import Comparison
from exlab_watch_agent.core.manifest import Outcome as Comparing
from exlab_watch_agent.core.overrides import active_classes
from exlab_watch_agent.core.passes import Uptime, are_apart
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import LastError, Move, RunRecord
from exlab_watch_agent.core.retry import PutBack, after_failure
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.errors import FailureKind
from exlab_watch_agent.statechart import RunState, Trigger

LOCAL_CHANGED = "local_changed_after_sync"
NAMES_KEPT_MAX = 20
UNREADABLE_MAX = 2
"""So often in a row a copy that cannot be read as a whole is looked at, before it counts as damaged."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one event: the record to save (`move` is None when it is the old one) and the effects to start."""

    record: RunRecord
    effects: tuple[Effect, ...] = ()
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The trigger that an event amounts to, why in words, and what else changes in the record."""

    trigger: Trigger
    reason: str
    changes: dict[str, Any] = field(default_factory=dict)
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
        return Step(record, resting_effects(record, event))
    moved = record.moved(judgement.trigger, at=now, **judgement.changes)
    move = Move(now, judgement.trigger, record.state, moved.state, judgement.reason, judgement.operator)
    return Step(moved, entry_effects(moved, before=record, event=event), move)


def judge(record: RunRecord, event: Event, *, now: datetime, policy: Policy) -> Judgement | None:
    """Return what the event means for a run in this state, None when nothing."""
    match event:
        case Inspected():
            return _judge_inspection(record, event, now=now)
        case Pushed() if record.state is RunState.RUNNING:
            return Judgement(Trigger.PUSHED, f"{counted(record.files_total, 'file')} at the destination")
        case PrecheckPassed() if record.state is RunState.PRECHECKING:
            return Judgement(Trigger.PRECHECK_PASSED, "sizes and sampled blocks agree")
        case CopyWrong() if record.state is RunState.PRECHECKING:
            return _after_failure(record, FailureKind.HASH_MISMATCH, event.message, now=now, policy=policy)
        case Verified():
            return _judge_verify(record, event, now=now, policy=policy)
        case Sealed() if record.state is RunState.SEALING:
            settled = {"sealed_at": record.sealed_at or now, "attempts": 0, "mismatches": 0, "last_error": None}
            return Judgement(Trigger.SEALED, "manifest and creation.json stand on both sides", settled | NO_WAIT)
        case RunChanged():
            return _judge_change(record, event.message)
        case EffectFailed():
            return _judge_failure(record, event, now=now, policy=policy)
        case RetryRequested() if record.state is RunState.FAILED:
            afresh = {"attempts": 0, "mismatches": 0, "last_error": None} | NO_WAIT
            return Judgement(Trigger.RETRIED, event.reason or "another try was asked for", afresh, event.operator)
        case LocalChosen() if record.state is RunState.CONFLICT:
            afresh = {"attempts": 0, "mismatches": 0, "last_error": None, "sealed_at": None, "manifest_digest": ""}
            afresh |= NO_PASSES | NO_WAIT
            return Judgement(Trigger.LOCAL_CHOSEN, event.reason or "the local data win", afresh, event.operator)
        case AuditDue() if record.state in (RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE):
            return Judgement(Trigger.AUDIT_STARTED, event.reason or "the next pass is due", {}, event.operator)
        case RunVanished() if record.state is RunState.QUEUED:
            message = "the run folder is gone: put it back, then retry"
            return _after_failure(record, FailureKind.LOCAL_FILE_VANISHED, message, now=now, policy=policy)
    return None


NO_WAIT: dict[str, Any] = {"next_attempt_at": None, "wait_s": 0.0}
NO_PASSES: dict[str, Any] = {
    "verify_passes": 0,
    "verified_at": None,
    "verified_boot_id": "",
    "verified_uptime_s": 0.0,
}


def _judge_inspection(record: RunRecord, event: Inspected, *, now: datetime) -> Judgement | None:
    findings = mark_overrides(event.findings, event.creation.overrides, now=now)
    refusals = blocking(findings)
    has_changed = event.fingerprint != record.fingerprint
    refused = (
        Judgement(Trigger.REFUSED, explain(findings), {"last_error": _refusal(findings), **_seen(event)})
        if refusals
        else None
    )
    changed = Judgement(Trigger.CHANGED, "the run changed since it counted as complete", AFRESH)
    match record.state:
        case RunState.ACQUIRING if event.completeness.is_complete:
            if refused is not None:
                return refused
            return Judgement(Trigger.ADMITTED, "complete, quiet and admitted by the gate", _admission(event, now))
        # What was sealed is never started over: in the queue the change shows, and an operator must choose.
        case RunState.BLOCKED if has_changed and not record.is_sealed:
            return changed
        case RunState.BLOCKED if refused is None:
            admission = _admission(event, now)
            if record.is_sealed:
                admission["fingerprint"] = record.fingerprint
            return Judgement(Trigger.ADMITTED, "the gate lets it through now", admission)
        case RunState.QUEUED:
            return _judge_queued(record, event, refused=refused, changed=changed if has_changed else None)
        case RunState.RUNNING if refused is not None:
            return refused
        case RunState.RUNNING | RunState.PRECHECKING | RunState.AWAITING_VERIFY | RunState.SEALING if has_changed:
            return _judge_change(record, "the run changed since it counted as complete")
        case RunState.VERIFIED | RunState.CLEANUP_ELIGIBLE if has_changed:
            return Judgement(Trigger.AUDIT_STARTED, "the local data moved since they were proven")
        case RunState.FAILED if has_changed and not record.is_sealed:
            return changed
    return None


def _judge_queued(
    record: RunRecord, event: Inspected, *, refused: Judgement | None, changed: Judgement | None
) -> Judgement | None:
    if changed is not None or not (event.completeness.is_complete or record.is_sealed):
        if record.is_sealed:
            return _conflict(LOCAL_CHANGED, "the local data changed after the run was sealed")
        return changed or Judgement(Trigger.CHANGED, event.completeness.reason, AFRESH)
    if refused is not None:
        return refused
    if event.destination is None:
        return None
    conflict = conflict_at(event.destination, event.destination_path, holder=event.holder, is_sealed=record.is_sealed)
    if conflict is not None:
        return _conflict(conflict.kind, conflict.message)
    changes = {"destination": event.destination_path, **NO_WAIT}
    return Judgement(Trigger.PUSH_STARTED, "a slot is free and the NAS answers", changes)


def _judge_verify(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> Judgement | None:
    comparison = event.comparison
    is_equal = comparison.outcome is Comparing.EQUAL and not event.skipped_oversize
    match record.state:
        case RunState.AWAITING_VERIFY:
            if comparison.outcome is Comparing.LOCAL_GONE:
                return _after_failure(
                    record,
                    FailureKind.LOCAL_FILE_VANISHED,
                    _words(comparison),
                    now=now,
                    policy=policy,
                    fingerprint=event.fingerprint,
                )
            if comparison.outcome in (Comparing.LOCAL_DIFFERS, Comparing.BOTH_DIFFER):
                return _judge_change(record, _words(comparison))
            if comparison.outcome is Comparing.REMOTE_DIFFERS:
                return _after_failure(record, FailureKind.HASH_MISMATCH, _words(comparison), now=now, policy=policy)
            if event.skipped_oversize:
                names = ", ".join(event.skipped_oversize[:NAMES_KEPT_MAX])
                text = f"too large to be proven by download: {names}; raise verify.max_stream_bytes in the config, then retry"
                error = LastError("verify_skipped_oversize", text)
                return Judgement(Trigger.GAVE_UP, error.message, {"last_error": error})
            if event.declared_mismatches and "manifest_hash_mismatch" not in active_classes(event.overrides, now=now):
                names = ", ".join(event.declared_mismatches[:NAMES_KEPT_MAX])
                changes = {"declared_mismatches": event.declared_mismatches[:NAMES_KEPT_MAX], **NO_WAIT}
                return Judgement(Trigger.PUT_BACK, f"hashes differ from the instrument's manifest: {names}", changes)
            return Judgement(Trigger.PROVEN, _words(comparison), _passed(record, event, now=now, policy=policy))
        case RunState.AUDITING:
            if is_equal:
                return Judgement(Trigger.PROVEN, _words(comparison), _passed(record, event, now=now, policy=policy))
            if comparison.outcome is Comparing.REMOTE_DIFFERS:
                return _damaged(LastError(FailureKind.HASH_MISMATCH, _words(comparison)))
            if comparison.outcome is Comparing.EQUAL:
                error = LastError("verify_skipped_oversize", "some files are too large to be proven by download")
                return Judgement(Trigger.AUDIT_INTERRUPTED, error.message, {"last_error": error})
            return _conflict(LOCAL_CHANGED, _words(comparison), fingerprint=event.fingerprint)
        case RunState.CONFLICT if is_equal and record.is_sealed:
            passed = _passed(record, event, now=now, policy=policy) | {"last_error": None}
            trigger = Trigger.SEAL_MISSED if event.is_seal_missing else Trigger.DIFFERENCE_GONE
            return Judgement(trigger, "both sides equal the manifest again", passed)
    return None


def _damaged(error: LastError) -> Judgement:
    """The sealed copy is not what it was: whatever was proven before is void, and a push must heal it."""
    voided = {"verify_passes": 0, "last_error": error, "attempts": 0, "mismatches": 0}
    return Judgement(Trigger.COPY_DAMAGED, error.message, voided)


def _judge_change(record: RunRecord, message: str) -> Judgement | None:
    """A change before the first seal starts the run over; after it, both versions matter and an operator must choose."""
    if record.state is RunState.AUDITING:
        return Judgement(Trigger.AUDIT_INTERRUPTED, message)
    if record.state not in WORKING_ON_A_PUSH:
        return None
    if not record.is_sealed:
        return Judgement(Trigger.CHANGED, message, AFRESH)
    if record.state in (RunState.AWAITING_VERIFY, RunState.SEALING):
        return _conflict(LOCAL_CHANGED, message)
    return Judgement(Trigger.PUT_BACK, message, NO_WAIT)


WORKING_ON_A_PUSH = frozenset({RunState.RUNNING, RunState.PRECHECKING, RunState.AWAITING_VERIFY, RunState.SEALING})


def _judge_failure(record: RunRecord, event: EffectFailed, *, now: datetime, policy: Policy) -> Judgement | None:
    error = LastError(event.kind, event.message, event.detail)
    match record.state:
        case RunState.AUDITING if event.is_copy_unreadable:
            if record.attempts + 1 >= UNREADABLE_MAX:
                return _damaged(error)
            doubted = {"verify_passes": 0, "last_error": error, "attempts": record.attempts + 1}
            return Judgement(Trigger.AUDIT_INTERRUPTED, event.message, doubted)
        case RunState.AUDITING if event.conflict:
            return _conflict(event.conflict, event.message)
        case RunState.AUDITING:
            return Judgement(Trigger.AUDIT_INTERRUPTED, event.message, {"last_error": error})
        case RunState.RUNNING if event.conflict:
            return _conflict(event.conflict, event.message)
        case RunState.SEALING:
            attempts = record.attempts + (0 if event.is_destination_away else 1)
            wait_s = policy.retry_schedule_s[min(max(attempts, 1), len(policy.retry_schedule_s)) - 1]
            return Judgement(
                Trigger.SEAL_FAILED,
                event.message,
                {"attempts": attempts, "last_error": error, **_wait(wait_s, now)},
            )
        case RunState.RUNNING | RunState.PRECHECKING | RunState.AWAITING_VERIFY:
            if event.is_destination_away or event.is_source_away:
                return Judgement(Trigger.PUT_BACK, event.message, {"last_error": error, **NO_WAIT})
            return _after_failure(
                record,
                event.kind,
                event.message,
                now=now,
                policy=policy,
                detail=event.detail,
                fingerprint=event.fingerprint,
            )
    return None


def _after_failure(
    record: RunRecord,
    kind: FailureKind,
    message: str,
    *,
    now: datetime,
    policy: Policy,
    detail: str = "",
    fingerprint: str = "",
) -> Judgement:
    attempts = record.attempts + 1
    mismatches = record.mismatches + (1 if kind is FailureKind.HASH_MISMATCH else 0)
    changes: dict[str, Any] = {
        "attempts": attempts,
        "mismatches": mismatches,
        "last_error": LastError(kind, message, detail),
    }
    if kind is FailureKind.HASH_MISMATCH:
        changes["verify_passes"] = 0
    verdict = after_failure(kind, attempts=attempts, mismatches=mismatches, schedule_s=policy.retry_schedule_s)
    if isinstance(verdict, PutBack):
        return Judgement(Trigger.PUT_BACK, message, changes | _wait(verdict.wait_s, now))
    if fingerprint:
        changes["fingerprint"] = fingerprint
    return Judgement(Trigger.GAVE_UP, f"{message} ({verdict.reason})", changes | NO_WAIT)


def _conflict(kind: str, message: str, *, fingerprint: str = "") -> Judgement:
    changes: dict[str, Any] = {"last_error": LastError(kind, message), "verify_passes": 0, **NO_WAIT}
    if fingerprint:
        changes["fingerprint"] = fingerprint
    return Judgement(Trigger.CONFLICT_FOUND, message, changes)


def _wait(wait_s: float, now: datetime) -> dict[str, Any]:
    return {"wait_s": wait_s, "next_attempt_at": now + timedelta(seconds=wait_s) if wait_s else None}


AFRESH: dict[str, Any] = {
    "fingerprint": "",
    "attempts": 0,
    "mismatches": 0,
    "last_error": None,
    "declared_mismatches": (),
    **NO_WAIT,
}


def _seen(event: Inspected) -> dict[str, Any]:
    return {
        "fingerprint": event.fingerprint,
        "files_total": event.files_total,
        "bytes_total": event.bytes_total,
        "run_kind": event.creation.run_kind,
    }


def _admission(event: Inspected, now: datetime) -> dict[str, Any]:
    return _seen(event) | {"enqueued_at": now, "attempts": 0, "mismatches": 0, "last_error": None, **NO_WAIT}


def _refusal(findings: tuple[Any, ...]) -> LastError:
    return LastError(blocking(findings)[0].rule, explain(findings))


def _passed(record: RunRecord, event: Verified, *, now: datetime, policy: Policy) -> dict[str, Any]:
    earlier = Uptime(record.verified_boot_id, record.verified_uptime_s)
    counts = (
        record.verified_at is None
        or record.verify_passes == 0
        or policy.cleanup.age_min_s == 0
        or are_apart(earlier_at=record.verified_at, earlier=earlier, now=now, uptime=event.uptime)
    )
    return {
        "verify_passes": record.verify_passes + (1 if counts else 0),
        "verified_at": now,
        "verified_boot_id": event.uptime.boot_id,
        "verified_uptime_s": event.uptime.seconds,
        "manifest_digest": event.manifest_digest,
        "fingerprint": event.fingerprint,
        "files_total": event.files_total,
        "bytes_total": event.bytes_total,
        "last_error": None,
        "attempts": 0,
        "mismatches": 0,
        **NO_WAIT,
    }


def _words(comparison: Comparison) -> str:
    """Return the comparison in one sentence, with the first name of each kind."""
    parts = [
        f"{len(names)} {what} (first: {names[0]})"
        for names, what in (
            (comparison.remote_missing, "missing on the NAS"),
            (comparison.remote_changed, "different or unreadable on the NAS"),
            (comparison.local_changed, "changed here"),
            (comparison.local_missing, "gone here"),
            (comparison.local_added, "new here"),
        )
        if names
    ]
    if parts:
        return "; ".join(parts)
    return "every SHA-256 is equal on both sides" if comparison.outcome is Comparing.EQUAL else "there is no data file"


def entry_effects(
    record: RunRecord, *, before: RunRecord | None = None, event: Event | None = None
) -> tuple[Effect, ...]:
    """Return what a run that has just entered its state needs; with only the record, what start-up issues again."""
    effects: list[Effect] = []
    # Sealing writes "synced" itself, so that the NAS copy says it too before the run counts as verified; a seal that
    # comes to nothing takes it back.
    is_sealed_now = before is not None and before.state is RunState.SEALING and record.state is RunState.VERIFIED
    is_seal_undone = before is not None and before.state is RunState.SEALING and record.state is not RunState.SEALING
    has_new_status = before is not None and record.sync_status != before.sync_status
    if ((has_new_status or is_seal_undone) and not is_sealed_now) or (
        isinstance(event, Inspected) and event.creation.sync_status != record.sync_status
    ):
        effects.append(write_status(record))
    work = work_effect(record)
    return (*effects, work) if work is not None else tuple(effects)


def resting_effects(record: RunRecord, event: Event) -> tuple[Effect, ...]:
    """Return what an event that moved nothing still asks for: a status that strayed, a conflict looked at again."""
    if isinstance(event, AuditDue) and record.state is RunState.CONFLICT and record.is_sealed:
        return (verify_effect(record),)
    if not isinstance(event, Inspected) or record.is_working or event.creation.sync_status == record.sync_status:
        return ()
    # An incomplete run's creation.json is still being written by others: only a false "synced" is taken back there.
    if record.state is RunState.ACQUIRING and event.creation.sync_status != "synced":
        return ()
    return (write_status(record),)


def write_status(record: RunRecord) -> WriteStatus:
    return WriteStatus(record.job_id, record.run_path, record.equipment_id, record.sync_status)


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
        manifest_digest=record.manifest_digest if record.is_sealed else "",
    )


def work_effect(record: RunRecord) -> WorkEffect | None:
    """Return the one effect that a working state owns."""
    place = (record.job_id, record.turn, record.run_path, record.equipment_id, record.destination, record.fingerprint)
    match record.state:
        case RunState.RUNNING:
            return Push(*place, claim=claim_of(record), is_sealed=record.is_sealed)
        case RunState.PRECHECKING:
            return Precheck(*place)
        case RunState.AWAITING_VERIFY | RunState.AUDITING:
            return verify_effect(record)
        case RunState.SEALING:
            return Seal(*place, manifest_digest=record.manifest_digest, claim=claim_of(record), wait_s=record.wait_s)
    return None
