"""The rules of a run's life: what each event means in each state, as tables, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any

import pytest

from exlab_watch_agent.core.claim import HELD_BY_OTHERS, NOBODY_KNOWN, OF_OTHERS, DestinationStanding, as_last_seen
from exlab_watch_agent.core.completeness import Completeness
from exlab_watch_agent.core.creation import Creation, OverrideEntry, RunIdentity
from exlab_watch_agent.core.decide import LOCAL_CHANGED, Step, decide, entry_effects, judge, nas_choice_effect
from exlab_watch_agent.core.effects import Precheck, Push, Seal, Verify, Work, WriteStatus
from exlab_watch_agent.core.events import (
    AuditDue,
    CancelRequested,
    CopyWrong,
    DestinationReplaced,
    EffectFailed,
    Event,
    Inspected,
    LocalChosen,
    PrecheckPassed,
    Pushed,
    RetryRequested,
    RunChanged,
    RunVanished,
    Sealed,
    TakenOver,
    Verified,
)
from exlab_watch_agent.core.facts import IncidentHealed
from exlab_watch_agent.core.gate import Finding, OffendingKind, Rule
from exlab_watch_agent.core.incidents import IncidentKind, incident_of
from exlab_watch_agent.core.manifest import Agreement, Comparison
from exlab_watch_agent.core.passes import PASSES_KEPT_MAX, UNKNOWN_UPTIME, HowRead, LocalSide, Pass, Uptime
from exlab_watch_agent.core.places import Footing
from exlab_watch_agent.core.policy import CleanupPolicy, Policy
from exlab_watch_agent.core.record import CANCELLED, LastError, RunRecord, SealTrouble
from exlab_watch_agent.core.seal import FOLDERS_FAULT
from exlab_watch_agent.errors import FailureKind
from exlab_watch_agent.statechart import CHART, RunState, Trigger

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=24)
POLICY = Policy(retry_schedule_s=(30, 120, 480, 1800, 7200))
IDENTITY = RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", "Run_2026-04-17T14-32")
TURN = 7

WITH_A_PUSH = [RunState.RUNNING, RunState.PRECHECKING, RunState.AWAITING_VERIFY]
HARD = Finding(
    Rule.RESERVED_FILESYSTEM_NAME,
    Rule.RESERVED_FILESYSTEM_NAME.tier,
    "/r",
    "CON",
    OffendingKind.FILE_NAME,
    "CON",
    "bad",
)
SOFT = replace(HARD, rule=Rule.MISSING_REQUIRED_FIELD, tier=Rule.MISSING_REQUIRED_FIELD.tier)
OVERRIDE = OverrideEntry(0, "a", problem_class="reserved_filesystem_name", operator="asmith")


def record(state: RunState | str = RunState.ACQUIRING, *, sealed: bool = False, **changes: Any) -> RunRecord:
    """A run in the middle of its life: judged complete as fingerprint "f", and sealed long ago if asked for."""
    made = RunRecord(
        job_id="job",
        run_path="/data/EQ/P/Runs/Run_2026-04-17T14-32",
        equipment_id="EQ",
        project="P",
        run_kind="experimental",
        identity=IDENTITY,
        entered_at=EARLIER,
        state=RunState(state),
        turn=TURN,
        destination="P/Runs/Run_2026-04-17T14-32",
        fingerprint="f",
        files_total=2,
        bytes_total=10,
    )
    if sealed:
        made = replace(made, sealed_at=EARLIER, verified_at=EARLIER, verify_passes=1, manifest_digest="m" * 64)
    return replace(made, **changes)


def inspected(
    *,
    fingerprint: str = "f",
    complete: bool = True,
    findings: tuple[Finding, ...] = (),
    overrides: tuple[OverrideEntry, ...] = (),
    sync_status: str = "pending",
    destination: DestinationStanding | None = None,
    claimed_manifest: str = "",
    destination_path: str = "P/Runs/Run_2026-04-17T14-32",
) -> Inspected:
    creation = Creation("1.8", 8, "run", "experimental", IDENTITY, True, "P", sync_status, overrides)
    completeness = Completeness(complete, "" if complete else "no data files yet")
    place = destination_path if destination is not None else ""
    return Inspected(
        creation, completeness, findings, fingerprint, 2, 10, destination, place, claimed_manifest=claimed_manifest,
        claimed_job="theirs" if claimed_manifest else "",
    )  # fmt: skip


def verified(agreement: Agreement = Agreement.EQUAL, *, turn: int = TURN, **changes: Any) -> Verified:
    names = {
        Agreement.REMOTE_DIFFERS: {"remote_changed": ("a.bin",)},
        Agreement.LOCAL_DIFFERS: {"local_changed": ("a.bin",)},
        Agreement.BOTH_DIFFER: {"local_changed": ("a.bin",), "remote_changed": ("a.bin",)},
        Agreement.LOCAL_GONE: {"local_missing": ("a.bin",)},
    }.get(agreement, {})
    made = Verified(turn, Comparison(agreement, **names), "d" * 64, "f", 2, 10)
    if agreement is Agreement.EQUAL and not changes.get("skipped_oversize"):
        made = replace(made, proof=proof(changes.pop("uptime", UNKNOWN_UPTIME)))
    return replace(made, **changes)


def of_the_copy_alone(agreement: Agreement = Agreement.LOCAL_GONE, **changes: Any) -> Verified:
    """The copy was compared with the manifest, because nothing is left here."""
    made = verified(agreement, is_by_manifest=True, local=LocalSide.MANIFEST)
    if agreement is Agreement.LOCAL_GONE:
        made = replace(
            made, manifest_digest="m" * 64, proof=replace(proof(), manifest_sha256="m" * 64, local=LocalSide.MANIFEST)
        )
    return replace(made, **changes)


def proof(uptime: Uptime = UNKNOWN_UPTIME) -> Pass:
    return Pass(
        "job/1", NOW - timedelta(seconds=1), NOW, uptime.boot_id, uptime.seconds, 0.0, "m" * 32, "/mnt/nas", "d" * 64, 2,
        10, HowRead.O_DIRECT, past_cache=True,
    )  # fmt: skip


def failed(kind: FailureKind = FailureKind.NETWORK, *, turn: int = TURN, **changes: Any) -> EffectFailed:
    return replace(EffectFailed(turn, kind, "the link broke"), **changes)


def step(before: RunRecord, event: Any, *, policy: Policy = POLICY) -> Step:
    return decide(before, event, now=NOW, policy=policy)


def moved(before: RunRecord, event: Any, *, policy: Policy = POLICY) -> tuple[str | None, str]:
    """The trigger that was picked (None for none) and the state afterwards."""
    after = step(before, event, policy=policy)
    return (after.move.trigger if after.move else None), after.record.state.value


def statuses(after: Step) -> list[str]:
    return [effect.sync_status for effect in after.effects if isinstance(effect, WriteStatus)]


def work(after: Step) -> list[Any]:
    return [effect for effect in after.effects if not isinstance(effect, WriteStatus)]


# --- every event in every state --------------------------------------------------------------------------------------

INSPECTIONS = [
    inspected(fingerprint=f, complete=c, findings=p, overrides=o, destination=d, sync_status=s)
    for f, c, p, o, d, s in product(
        ("f", "g"),
        (True, False),
        ((), (HARD,), (SOFT,)),
        ((), (OVERRIDE,), (OVERRIDE, OverrideEntry(1, "b", revokes="a"))),
        (None, *DestinationStanding),
        ("pending", "synced", "failed"),
    )
]
OUTCOMES = [
    Pushed(TURN),
    PrecheckPassed(TURN),
    CopyWrong(TURN, "partial copy"),
    Sealed(TURN),
    RunChanged(TURN, "changed"),
    *(verified(agreement) for agreement in Agreement),
    *(of_the_copy_alone(agreement) for agreement in (Agreement.LOCAL_GONE, Agreement.BOTH_DIFFER)),
    of_the_copy_alone(Agreement.LOCAL_GONE, proof=None, skipped_oversize=("a.bin",)),
    verified(declared_mismatches=("a.bin",)),
    verified(skipped_oversize=("a.bin",)),
    verified(Agreement.REMOTE_DIFFERS, skipped_oversize=("a.bin",)),
    *(failed(kind) for kind in FailureKind),
    *(failed(kind, is_destination_away=True) for kind in FailureKind),
    failed(FailureKind.LOCAL_FILE_VANISHED, fingerprint="g"),
    failed(FailureKind.AUTH, is_copy_unreadable=True),
    failed(FailureKind.UNKNOWN, conflict="claimed_unsealed"),
]
OTHERS = [
    RetryRequested("op"),
    CancelRequested("op", "the wrong sample"),
    LocalChosen("op"),
    AuditDue(),
    AuditDue("op", "by hand"),
    RunVanished(),
    DestinationReplaced("op", "the old NAS burned down"),
    DestinationReplaced("op", "the old NAS burned down", has_data=False),
]
EVERY_EVENT = [*INSPECTIONS, *OUTCOMES, *OTHERS]
EVERY_RECORD = [
    *(
        record(state, sealed=sealed, attempts=attempts, mismatches=mismatches)
        for state, sealed, (attempts, mismatches) in product(RunState, (False, True), ((0, 0), (1, 1), (4, 0)))
    ),
    *(record(state, sealed=True, gone_at=EARLIER, attempts=attempts) for state in RunState for attempts in (0, 1)),
]


@cache
def every_step(state: RunState) -> list[tuple[RunRecord, Any, Step]]:
    """Every event decided for every record in `state`: (before, event, what follows)."""
    records = [before for before in EVERY_RECORD if before.state is state]
    return [(before, event, step(before, event)) for before in records for event in EVERY_EVENT]


@pytest.mark.parametrize("state", list(RunState))
def test_no_event_in_any_state_picks_a_trigger_that_the_chart_does_not_have(state: RunState) -> None:
    for before, _, after in every_step(state):  # IllegalTransition would end the test
        assert after.record.turn == before.turn + (1 if after.move else 0)
        same = replace(before, incidents=after.record.incidents)
        assert after.record == same or after.move is not None, (
            "a record changes only by a move, but for what is noticed"
        )


@pytest.mark.parametrize("state", list(RunState))
def test_a_working_state_owns_one_effect_of_its_own_turn_and_a_resting_one_none(state: RunState) -> None:
    for before, _, after in every_step(state):
        if after.move is None:
            # A conflict, and an only copy, may be looked at again without a move.
            assert work(after) == [] or before.state in (RunState.CONFLICT, RunState.CLEANED)
        elif after.record.is_working:
            (effect,) = work(after)
            assert effect.turn == after.record.turn
            assert (effect.job_id, effect.run_path) == ("job", before.run_path)
        else:
            assert work(after) == []


@pytest.mark.parametrize("state", list(RunState))
def test_a_run_that_says_synced_afterwards_was_proven_or_said_so_before(state: RunState) -> None:
    for before, event, after in every_step(state):
        if after.record.sync_status == "synced" and before.sync_status != "synced":
            is_proof = isinstance(event, Sealed) or (
                isinstance(event, Verified) and event.comparison.agreement is Agreement.EQUAL
            )
            # A sealed run that was healed or reopened keeps its seal: the conflict shows it, nothing is called new.
            assert is_proof or (after.record.state is RunState.CONFLICT and before.is_sealed), (before, event)


def test_a_pass_is_counted_only_by_an_equal_comparison() -> None:
    for before, event in product(EVERY_RECORD, OUTCOMES):
        after = step(before, event).record
        if after.verify_passes > before.verify_passes or after.verified_at == NOW:
            assert isinstance(event, Verified), (before, event)
            is_of_copy = event.local is LocalSide.MANIFEST and event.comparison.agreement is Agreement.LOCAL_GONE
            assert is_of_copy or event.comparison.agreement is Agreement.EQUAL
            assert not is_of_copy or after.state is RunState.CLEANED, "that both sides are equal needs both sides"
            assert not event.skipped_oversize


def test_while_the_nas_is_away_no_attempt_is_consumed_and_no_run_fails() -> None:
    for before, kind in product(EVERY_RECORD, FailureKind):
        after = step(before, failed(kind, is_destination_away=True)).record
        assert after.attempts == before.attempts
        assert after.mismatches == before.mismatches
        assert after.state is not RunState.FAILED or before.state is RunState.FAILED


@pytest.mark.parametrize("state", list(RunState))
def test_only_an_operator_takes_the_seal_from_a_run(state: RunState) -> None:
    for before, event, after in every_step(state):
        if before.is_sealed and not isinstance(event, LocalChosen):
            assert after.record.is_sealed


@pytest.mark.parametrize("state", list(RunState))
def test_a_reason_and_a_time_stand_with_every_move(state: RunState) -> None:
    for before, event, after in every_step(state):
        if after.move is not None:
            assert after.move.reason
            assert (after.move.at, after.record.entered_at) == (NOW, NOW)
            assert (after.move.source, after.move.dest) == (before.state, after.record.state)
            assert after.move.operator == getattr(event, "operator", None)


# --- staleness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [TURN - 1, TURN + 1, 0])
def test_the_outcome_of_another_turn_changes_nothing(turn: int) -> None:
    for before, event in product(EVERY_RECORD, OUTCOMES):
        after = step(before, replace(event, turn=turn))  # type: ignore[type-var]  # each of them is a dataclass
        assert after.record is before
        assert after.effects == ()
        assert after.move is None


def test_an_outcome_counts_once() -> None:
    after = step(record("running"), Pushed(TURN)).record
    assert step(after, Pushed(TURN)).record is after


# --- looks -----------------------------------------------------------------------------------------------------------

LOOKS = [
    # state, sealed, what was seen, trigger, state afterwards
    ("acquiring", False, inspected(complete=False), None, "acquiring"),
    ("acquiring", False, inspected(), "admitted", "queued"),
    ("acquiring", False, inspected(findings=(HARD,)), "refused", "blocked"),
    ("acquiring", False, inspected(findings=(SOFT,)), "admitted", "queued"),
    ("acquiring", False, inspected(findings=(HARD,), overrides=(OVERRIDE,)), "admitted", "queued"),
    ("acquiring", False, inspected(findings=(HARD,), complete=False), None, "acquiring"),
    ("blocked", False, inspected(findings=(HARD,)), None, "blocked"),
    ("blocked", False, inspected(findings=(HARD,), overrides=(OVERRIDE,)), "admitted", "queued"),
    ("blocked", False, inspected(), "admitted", "queued"),
    ("blocked", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("blocked", True, inspected(fingerprint="g"), "admitted", "queued"),
    ("blocked", True, inspected(fingerprint="g", findings=(HARD,)), None, "blocked"),
    ("queued", False, inspected(), None, "queued"),
    ("queued", False, inspected(findings=(HARD,)), "refused", "blocked"),
    ("queued", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("queued", False, inspected(complete=False), "changed", "acquiring"),
    ("queued", True, inspected(fingerprint="g"), "conflict_found", "conflict"),
    ("queued", True, inspected(complete=False), None, "queued"),
    ("queued", False, inspected(destination=DestinationStanding.FREE), "push_started", "running"),
    ("queued", False, inspected(destination=DestinationStanding.OURS), "push_started", "running"),
    ("queued", False, inspected(destination=DestinationStanding.OCCUPIED), "conflict_found", "conflict"),
    ("queued", False, inspected(destination=DestinationStanding.CLAIMED_UNSEALED), "conflict_found", "conflict"),
    ("queued", True, inspected(destination=DestinationStanding.CLAIMED_BY_OTHER_AGENT), "conflict_found", "conflict"),
    ("queued", False, inspected(destination=DestinationStanding.SEALED_UNCLAIMED), "conflict_found", "conflict"),
    ("queued", False, inspected(destination=DestinationStanding.ADOPTABLE), "copy_adopted", "awaiting_verify"),
    ("queued", True, inspected(destination=DestinationStanding.ADOPTABLE), "conflict_found", "conflict"),
    ("queued", False, inspected(destination=DestinationStanding.LEFT_THERE), "copy_adopted", "awaiting_verify"),
    ("queued", False, inspected(fingerprint="g", destination=DestinationStanding.LEFT_THERE), "changed", "acquiring"),
    ("queued", False, inspected(findings=(HARD,), destination=DestinationStanding.LEFT_THERE), "refused", "blocked"),
    ("queued", False, inspected(findings=(HARD,), destination=DestinationStanding.ADOPTABLE), "refused", "blocked"),
    ("queued", False, inspected(fingerprint="g", destination=DestinationStanding.ADOPTABLE), "changed", "acquiring"),
    ("queued", True, inspected(destination=DestinationStanding.SEALED_UNCLAIMED), "push_started", "running"),
    ("queued", True, inspected(destination=DestinationStanding.OURS), "push_started", "running"),
    ("queued", False, inspected(findings=(HARD,), destination=DestinationStanding.OURS), "refused", "blocked"),
    ("queued", False, inspected(fingerprint="g", destination=DestinationStanding.OURS), "changed", "acquiring"),
    ("running", False, inspected(), None, "running"),
    ("running", False, inspected(findings=(HARD,)), "refused", "blocked"),
    ("running", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("running", True, inspected(fingerprint="g"), "put_back", "queued"),
    ("prechecking", False, inspected(findings=(HARD,)), None, "prechecking"),
    ("prechecking", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("prechecking", True, inspected(fingerprint="g"), "put_back", "queued"),
    ("awaiting_verify", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("awaiting_verify", True, inspected(fingerprint="g"), "conflict_found", "conflict"),
    ("sealing", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("sealing", True, inspected(fingerprint="g"), "conflict_found", "conflict"),
    ("verified", True, inspected(), None, "verified"),
    ("verified", True, inspected(findings=(HARD,)), None, "verified"),
    ("verified", True, inspected(fingerprint="g"), "audit_started", "auditing"),
    ("cleanup_eligible", True, inspected(fingerprint="g"), "audit_started", "auditing"),
    ("auditing", True, inspected(fingerprint="g"), None, "auditing"),
    ("conflict", True, inspected(fingerprint="g"), None, "conflict"),
    ("failed", False, inspected(), None, "failed"),
    ("failed", False, inspected(fingerprint="g"), "changed", "acquiring"),
    ("failed", True, inspected(fingerprint="g"), None, "failed"),
    ("cleaning", True, inspected(fingerprint="g", complete=False), None, "cleaning"),
    ("cleaned", True, replace(inspected(fingerprint="g", complete=False), files_total=0), None, "cleaned"),
    ("cleaned", True, inspected(fingerprint="g", complete=False), "data_found", "acquiring"),
]


@pytest.mark.parametrize(("state", "sealed", "event", "trigger", "after"), LOOKS)
def test_what_a_look_at_a_run_leads_to(
    state: RunState, sealed: bool, event: Inspected, trigger: str | None, after: str
) -> None:
    sync_status = CHART.sync_status(RunState(state))
    event = replace(event, creation=replace(event.creation, sync_status=sync_status))
    assert moved(record(state, sealed=sealed), event) == (trigger, after)


@pytest.mark.parametrize(
    ("state", "way_back"), [("blocked", inspected(fingerprint="g")), ("failed", RetryRequested("op"))]
)
def test_a_sealed_run_that_changed_meanwhile_is_a_conflict_before_anything_is_pushed(
    state: RunState, way_back: Event
) -> None:
    queued = step(record(state, sealed=True), way_back).record
    start = inspected(fingerprint="g", destination=DestinationStanding.OURS)
    assert moved(queued, start) == ("conflict_found", "conflict")


def test_a_sealed_run_is_never_started_over() -> None:
    for state in RunState:
        for before, event, after in every_step(state):
            if before.is_sealed and before.state is not RunState.ACQUIRING:
                has_come_back = before.state is RunState.CLEANED and isinstance(event, Inspected)
                assert after.record.state is not RunState.ACQUIRING or has_come_back, (before, event)


def test_a_revoked_and_an_expired_override_let_nothing_through() -> None:
    tombstone = OverrideEntry(1, "b", revokes="a")
    expired = replace(OVERRIDE, expires_at="2026-04-17T14:32:00Z")
    garbled = replace(OVERRIDE, expires_at="next week")
    for overrides in ((OVERRIDE, tombstone), (expired,), (garbled,)):
        event = inspected(findings=(HARD,), overrides=overrides)
        assert moved(record("acquiring"), event) == ("refused", "blocked")
        assert moved(record("queued"), event) == ("refused", "blocked")


def test_an_override_that_is_revoked_while_the_push_runs_stops_it() -> None:
    before = record("running")
    after = step(before, inspected(findings=(HARD,), overrides=(OVERRIDE, OverrideEntry(1, "b", revokes="a"))))
    assert after.record.state is RunState.BLOCKED
    assert statuses(after) == ["blocked_by_validation"]
    assert step(after.record, Pushed(TURN)).record is after.record, "the push that was stopped counts no longer"


def test_admission_keeps_what_was_seen_and_begins_to_count_anew() -> None:
    before = record("acquiring", fingerprint="", attempts=3, mismatches=1, last_error=LastError("network", "x"))
    after = step(before, inspected()).record
    assert (after.fingerprint, after.files_total, after.bytes_total, after.enqueued_at) == ("f", 2, 10, NOW)
    assert (after.attempts, after.mismatches, after.last_error) == (0, 1, None), (
        "what was wrong with its copy counts until the seal"
    )


def test_a_refusal_names_the_worst_finding() -> None:
    after = step(record("acquiring"), inspected(findings=(HARD,))).record
    assert after.last_error is not None
    assert after.last_error.kind == "reserved_filesystem_name"


def test_a_change_forgets_what_was_judged() -> None:
    before = record("running", attempts=2, mismatches=1, declared_mismatches=("a",), wait_s=30, next_attempt_at=NOW)
    after = step(before, RunChanged(TURN, "grew")).record
    assert (after.fingerprint, after.attempts, after.mismatches, after.declared_mismatches) == ("", 0, 0, ())
    assert (after.wait_s, after.next_attempt_at) == (0.0, None)


def test_a_push_goes_where_the_look_before_it_looked() -> None:
    after = step(record("queued", destination=""), inspected(destination=DestinationStanding.FREE))
    (effect,) = work(after)
    assert isinstance(effect, Push)
    assert effect.destination == "P/Runs/Run_2026-04-17T14-32"
    assert effect.claim.run == "P/Runs/Run_2026-04-17T14-32"
    assert effect.fingerprint == "f"


# --- the straight way ------------------------------------------------------------------------------------------------


def test_a_run_goes_from_noticed_to_verified() -> None:
    run = record("acquiring", fingerprint="", turn=0)
    path = []
    for make_event in (
        lambda turn: inspected(),
        lambda turn: inspected(destination=DestinationStanding.FREE),
        Pushed,
        PrecheckPassed,
        lambda turn: verified(turn=turn),
        Sealed,
    ):
        after = step(run, make_event(run.turn))
        run = after.record
        path.append((run.state.value, [type(effect) for effect in after.effects]))
    assert path == [
        ("queued", []),
        ("running", [Push]),
        ("prechecking", [Precheck]),
        ("awaiting_verify", [Verify]),
        ("sealing", [Seal]),
        ("verified", []),
    ]
    assert (run.verify_passes, run.verified_at, run.sealed_at, run.manifest_digest) == (1, NOW, NOW, "d" * 64)


# --- verify ----------------------------------------------------------------------------------------------------------

VERIFIES = [
    ("awaiting_verify", False, verified(), "proven", "sealing"),
    ("awaiting_verify", False, verified(Agreement.REMOTE_DIFFERS), "put_back", "queued"),
    ("awaiting_verify", False, verified(Agreement.LOCAL_DIFFERS), "changed", "acquiring"),
    ("awaiting_verify", False, verified(Agreement.BOTH_DIFFER), "changed", "acquiring"),
    ("awaiting_verify", False, verified(Agreement.LOCAL_GONE), "gave_up", "failed"),
    ("awaiting_verify", True, verified(), "proven", "sealing"),
    ("awaiting_verify", True, verified(Agreement.LOCAL_DIFFERS), "conflict_found", "conflict"),
    ("awaiting_verify", True, verified(Agreement.BOTH_DIFFER), "conflict_found", "conflict"),
    ("awaiting_verify", False, verified(skipped_oversize=("a",)), "gave_up", "failed"),
    ("awaiting_verify", False, verified(declared_mismatches=("a",)), "put_back", "queued"),
    ("auditing", True, verified(), "proven", "verified"),
    ("auditing", True, verified(Agreement.REMOTE_DIFFERS), "copy_damaged", "queued"),
    ("auditing", True, verified(Agreement.LOCAL_DIFFERS), "conflict_found", "conflict"),
    ("auditing", True, verified(Agreement.LOCAL_GONE), "conflict_found", "conflict"),
    ("auditing", True, verified(Agreement.BOTH_DIFFER), "conflict_found", "conflict"),
    ("auditing", True, verified(skipped_oversize=("a",)), "audit_interrupted", "verified"),
    ("conflict", True, verified(), "difference_gone", "verified"),
    ("conflict", True, verified(seal_fault="its manifest is gone"), "seal_missed", "sealing"),
    ("conflict", True, verified(Agreement.LOCAL_DIFFERS), None, "conflict"),
    ("conflict", True, verified(skipped_oversize=("a",)), None, "conflict"),
    ("conflict", False, verified(), None, "conflict"),
    ("queued", True, verified(), None, "queued"),
    ("verified", True, verified(Agreement.REMOTE_DIFFERS), None, "verified"),
]


@pytest.mark.parametrize(("state", "sealed", "event", "trigger", "after"), VERIFIES)
def test_what_a_comparison_of_both_sides_leads_to(
    state: RunState, sealed: bool, event: Event, trigger: str | None, after: str
) -> None:
    assert moved(record(state, sealed=sealed), event) == (trigger, after)


def test_an_equal_comparison_of_an_unsealed_run_seals_what_was_compared() -> None:
    event = verified(fingerprint="g", files_total=3, bytes_total=30)
    (effect,) = work(step(record("awaiting_verify"), event))
    assert isinstance(effect, Seal)
    assert (effect.fingerprint, effect.manifest_digest) == ("g", "d" * 64)


def test_hashes_that_the_instrument_declared_otherwise_pass_only_with_an_active_override() -> None:
    override = OverrideEntry(0, "a", problem_class="manifest_hash_mismatch")
    event = verified(declared_mismatches=("a.bin",))
    assert moved(record("awaiting_verify"), event)[0] == "put_back"
    assert moved(record("awaiting_verify"), replace(event, overrides=(override,)))[0] == "proven"
    revoked = (override, OverrideEntry(1, "b", revokes="a"))
    assert moved(record("awaiting_verify"), replace(event, overrides=revoked))[0] == "put_back"
    assert step(record("awaiting_verify"), event).record.declared_mismatches == ("a.bin",)


def test_a_damaged_copy_is_healed_by_a_push_and_the_passes_before_it_are_void() -> None:
    healing = step(record("auditing", sealed=True, attempts=4), verified(Agreement.REMOTE_DIFFERS))
    assert healing.record.state is RunState.QUEUED
    assert healing.record.is_sealed
    assert (healing.record.verify_passes, healing.record.attempts) == (0, 0)
    assert statuses(healing) == ["pending"]
    running = step(healing.record, inspected(destination=DestinationStanding.OURS)).record
    again = step(step(running, Pushed(running.turn)).record, PrecheckPassed(running.turn + 1))
    (effect,) = work(again)
    assert effect.manifest_digest == "m" * 64, "after a seal both sides are compared with the manifest"


def healed(before: RunRecord) -> RunRecord:
    """The run from its place in the queue to the next seal, with both sides equal on the way."""
    running = step(before, inspected(destination=DestinationStanding.OURS)).record
    proving = step(step(running, Pushed(running.turn)).record, PrecheckPassed(running.turn + 1)).record
    sealing = step(proving, verified(turn=proving.turn)).record
    assert not sealing.incidents[-1].is_healed, "the seal on the NAS may say anything yet"
    return step(sealing, Sealed(sealing.turn)).record


def test_damage_stays_visible_after_it_was_healed_and_names_the_pass_that_says_so() -> None:
    damaged = step(record("auditing", sealed=True), verified(Agreement.REMOTE_DIFFERS)).record
    (found,) = damaged.incidents
    assert (found.kind, found.found_at, found.files_total, found.files) == ("copy_damaged", NOW, 1, ("a.bin",))
    assert not found.is_healed
    (after,) = healed(damaged).incidents
    assert after == replace(found, healed_at=NOW, healed_by="job/1")


def test_damage_of_a_copy_whose_local_data_differ_too_is_an_incident_beside_the_conflict() -> None:
    conflict = step(record("auditing", sealed=True), verified(Agreement.BOTH_DIFFER)).record
    assert conflict.state is RunState.CONFLICT
    assert [one.kind for one in conflict.incidents] == ["copy_damaged"]
    again = step(conflict, verified(Agreement.BOTH_DIFFER, turn=conflict.turn))
    assert again.record == conflict, "what is known is not told again"
    gone = step(conflict, verified(turn=conflict.turn)).record
    assert (gone.state, gone.incidents[0].healed_by) == (RunState.VERIFIED, "job/1")


def test_damage_that_is_found_while_a_conflict_rests_is_on_record_without_a_move() -> None:
    """It used to be forgotten: a conflict over local files hid that the copy on the NAS had rotted meanwhile."""
    resting = record("conflict", sealed=True, last_error=LastError(LOCAL_CHANGED, "changed"))
    after = step(resting, verified(Agreement.BOTH_DIFFER))
    assert after.move is None
    assert (after.record.state, after.record.turn) == (RunState.CONFLICT, resting.turn)
    assert [one.kind for one in after.record.incidents] == ["copy_damaged"]


@pytest.mark.parametrize("agreement", [Agreement.REMOTE_DIFFERS, Agreement.BOTH_DIFFER])
def test_a_first_copy_that_is_wrong_is_no_incident(agreement: Agreement) -> None:
    assert step(record("awaiting_verify"), verified(agreement)).record.incidents == ()


def test_a_seal_that_was_altered_is_an_incident_until_it_is_placed_again() -> None:
    sealing = step(record("auditing", sealed=True), verified(seal_fault="its manifest was altered")).record
    assert [(one.kind, one.what, one.is_healed) for one in sealing.incidents] == [
        ("seal_altered", "its manifest was altered", False)
    ]
    (after,) = step(sealing, Sealed(sealing.turn)).record.incidents
    assert (after.healed_at, after.healed_by) == (NOW, "job/1")


# --- a run that somebody removed ----------------------------------------------------------------------------------------


def gone(**changes: Any) -> RunRecord:
    """A sealed run that two scans did not find, while its copy is hashed."""
    return step(record("verified", sealed=True, **changes), RunVanished()).record


def test_a_sealed_run_that_is_gone_is_called_removed_only_after_its_copy_was_proven() -> None:
    auditing = gone()
    assert (auditing.state, auditing.gone_at, auditing.verify_passes) == (RunState.AUDITING, NOW, 1)
    (effect,) = [one for one in entry_effects(auditing) if isinstance(one, Verify)]
    assert (effect.may_be_gone, effect.local, effect.manifest_digest) == (True, LocalSide.READ, "m" * 64)
    after = step(auditing, of_the_copy_alone(turn=auditing.turn))
    assert (after.record.state, after.record.sync_status) == (RunState.CLEANED, "cleaned")
    assert after.effects == (), "there is no creation.json here to be written"
    assert after.record.passes[-1].local is LocalSide.MANIFEST
    assert after.record.incidents == ()


@pytest.mark.parametrize(
    ("event", "state", "kind", "incidents"),
    [
        (of_the_copy_alone(Agreement.BOTH_DIFFER), "conflict", "only_copy_lost", ["copy_damaged"]),
        (of_the_copy_alone(proof=None, skipped_oversize=("a.bin",)), "verified", "verify_skipped_oversize", []),
        (failed(FailureKind.NETWORK), "verified", "network", []),
        (failed(FailureKind.UNKNOWN, conflict="claimed_unsealed"), "conflict", "claimed_unsealed", []),
        (verified(Agreement.LOCAL_GONE), "conflict", "local_files_missing", []),
    ],
)
def test_nothing_less_than_an_equal_copy_makes_a_run_that_is_gone_a_removed_one(
    event: Event, state: str, kind: str, incidents: list[str]
) -> None:
    auditing = gone()
    assert isinstance(event, Verified | EffectFailed)
    after = step(auditing, replace(event, turn=auditing.turn)).record
    assert (after.state.value, after.last_error and after.last_error.kind) == (state, kind)
    assert [one.kind for one in after.incidents] == incidents


def test_a_copy_that_cannot_be_read_twice_and_has_no_original_any_more_is_not_pushed_anew() -> None:
    auditing = gone(attempts=1)
    after = step(auditing, failed(FailureKind.UNKNOWN, turn=auditing.turn, is_copy_unreadable=True)).record
    assert after.state is RunState.CONFLICT
    assert [one.kind for one in after.incidents] == ["copy_unreadable"]


def test_a_run_that_is_there_again_while_its_copy_is_hashed_is_not_gone() -> None:
    auditing = gone()
    back = step(auditing, RunChanged(auditing.turn, "it is there again")).record
    assert (back.state, back.gone_at) == (RunState.VERIFIED, None)
    proven = step(auditing, verified(turn=auditing.turn)).record
    assert (proven.state, proven.gone_at) == (RunState.VERIFIED, None)


def test_a_run_that_is_gone_while_its_copy_is_to_be_repaired_is_a_conflict_and_no_failed_push() -> None:
    after = step(record("queued", sealed=True), RunVanished())
    assert after.record.state is RunState.CONFLICT
    assert after.record.last_error is not None
    assert after.record.last_error.kind == "local_files_missing"
    assert after.effects == ()


def test_an_only_copy_is_looked_at_again_and_a_difference_stays_until_it_is_gone() -> None:
    cleaned = record("cleaned", sealed=True, gone_at=EARLIER)
    (effect,) = step(cleaned, AuditDue()).effects
    assert isinstance(effect, Verify)
    assert (effect.local, effect.may_be_gone, effect.is_audit) == (LocalSide.MANIFEST, False, True)
    same = step(cleaned, of_the_copy_alone()).record
    assert (same.state, len(same.passes), same.incidents) == (RunState.CLEANED, 1, ())
    lost = step(cleaned, of_the_copy_alone(Agreement.BOTH_DIFFER)).record
    assert (lost.state, lost.verify_passes) == (RunState.CLEANED, 0)
    assert [(one.kind, one.is_healed) for one in lost.incidents] == [("copy_damaged", False)]
    still = step(lost, of_the_copy_alone(Agreement.BOTH_DIFFER, turn=lost.turn)).record
    assert still.incidents == lost.incidents
    restored = step(lost, of_the_copy_alone(turn=lost.turn)).record
    assert [one.is_healed for one in restored.incidents] == [True]


def test_data_in_a_removed_run_are_compared_with_the_copy_before_anything_is_written() -> None:
    back = step(record("cleaned", sealed=True, gone_at=EARLIER, passes=(proof(),)), inspected(complete=False)).record
    assert (back.state, back.is_sealed, back.verify_passes) == (RunState.ACQUIRING, True, 0)
    queued = step(back, inspected()).record
    proving = step(queued, inspected(destination=DestinationStanding.OURS)).record
    assert proving.state is RunState.AWAITING_VERIFY
    for agreement, state in (
        (Agreement.EQUAL, RunState.SEALING),
        (Agreement.LOCAL_DIFFERS, RunState.CONFLICT),
        (Agreement.BOTH_DIFFER, RunState.CONFLICT),
        (Agreement.LOCAL_GONE, RunState.CONFLICT),
        (Agreement.REMOTE_DIFFERS, RunState.QUEUED),
    ):
        after = step(proving, verified(agreement, turn=proving.turn)).record
        assert after.state is state, agreement
    healing = step(proving, verified(Agreement.REMOTE_DIFFERS, turn=proving.turn)).record
    assert [one.kind for one in healing.incidents] == ["copy_damaged"]
    pushing = step(healing, inspected(destination=DestinationStanding.OURS)).record
    assert pushing.state is RunState.RUNNING


@pytest.mark.parametrize("kind", ["local_files_missing", "only_copy_lost"])
@pytest.mark.parametrize(
    ("agreement", "state", "last"),
    [
        (Agreement.EQUAL, "sealing", None),
        (Agreement.REMOTE_DIFFERS, "queued", "hash_mismatch"),
        (Agreement.LOCAL_GONE, "conflict", "local_files_missing"),
        (Agreement.LOCAL_DIFFERS, "conflict", "local_changed_after_sync"),
        (Agreement.BOTH_DIFFER, "conflict", "local_changed_after_sync"),
    ],
)
def test_local_data_that_were_missing_win_only_once_a_comparison_has_shown_that_they_are_what_was_sealed(
    kind: str, agreement: Agreement, state: str, last: str | None
) -> None:
    chosen = step(record("conflict", sealed=True, last_error=LastError(kind, "why")), LocalChosen("asmith")).record
    assert (chosen.state, chosen.is_sealed, chosen.manifest_digest) == (RunState.QUEUED, True, "m" * 64)
    proving = step(chosen, inspected(fingerprint="g", complete=False, destination=DestinationStanding.OURS)).record
    assert (proving.state, proving.fingerprint) == (RunState.AWAITING_VERIFY, "g")
    after = step(proving, verified(agreement, turn=proving.turn, is_by_manifest=True)).record
    assert (after.state.value, after.last_error and after.last_error.kind) == (state, last)
    if agreement is Agreement.REMOTE_DIFFERS:
        assert [one.kind for one in after.incidents] == ["copy_damaged"]
        pushing = step(after, inspected(fingerprint=after.fingerprint, destination=DestinationStanding.OURS)).record
        assert pushing.state is RunState.RUNNING


@pytest.mark.parametrize("state", ["auditing", "cleaned"])
def test_that_an_only_copy_is_lost_stays_said_while_it_cannot_be_looked_at(state: str) -> None:
    lost = record(state, sealed=True, gone_at=EARLIER, last_error=LastError("only_copy_lost", "not there"))
    for event in (failed(FailureKind.UNKNOWN), failed(FailureKind.NETWORK)):
        assert step(lost, event).record.last_error == LastError("only_copy_lost", "not there")


def test_an_only_copy_that_another_agent_claims_is_told_and_is_no_word_on_its_data() -> None:
    cleaned = record("cleaned", sealed=True, gone_at=EARLIER)
    after = step(cleaned, failed(FailureKind.UNKNOWN, conflict="claimed_by_other_agent")).record
    assert (after.state, after.incidents) == (RunState.CLEANED, ())
    assert after.last_error is not None
    assert after.last_error.kind == "claimed_by_other_agent"


def test_where_an_operator_lets_other_data_take_a_damaged_copy_s_place_its_incident_says_so() -> None:
    found = step(record("conflict", sealed=True), verified(Agreement.BOTH_DIFFER)).record
    chosen = step(found, LocalChosen("asmith", "the NAS is right to be replaced")).record
    assert [(one.replaced_by, one.is_healed) for one in chosen.incidents] == [("asmith", False)], (
        "it stays open until a seal"
    )
    (after,) = step(replace(chosen, state=RunState.SEALING), Sealed(chosen.turn)).record.incidents
    assert (after.replaced_by, after.healed_at) == ("asmith", NOW)
    assert IncidentHealed(after).data()["replaced_by"] == "asmith"


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *((kind, "" if kind == "destination_occupied" else "CONFOCAL_01/Run_1") for kind in sorted(OF_OTHERS)),
        (LOCAL_CHANGED, "CONFOCAL_01/Run_1"),
    ],
)
def test_a_place_that_others_have_is_given_up_when_the_local_data_win_and_one_of_ours_is_kept(
    kind: str, place: str
) -> None:
    """A run that was moved here after its seal kept its old place, which another agent has taken since: it was stuck there.

    The look that follows finds such a place to be occupied; before that nothing says so.
    """
    before = record("conflict", sealed=True, destination="CONFOCAL_01/Run_1", last_error=LastError(kind, "theirs"))
    assert step(before, LocalChosen("asmith")).record.destination == place


def test_another_empty_folder_of_the_run_is_a_new_seal_and_no_incident() -> None:
    sealing = step(record("auditing", sealed=True), verified(seal_fault=FOLDERS_FAULT)).record
    assert (sealing.state, sealing.incidents) == (RunState.SEALING, ())


def test_a_copy_that_cannot_be_read_is_an_incident_at_the_second_time_and_not_before() -> None:
    unreadable = failed(FailureKind.UNKNOWN, is_copy_unreadable=True)
    once = step(record("auditing", sealed=True), unreadable).record
    assert once.incidents == ()
    twice = step(record("auditing", sealed=True, attempts=1), unreadable).record
    assert [one.kind for one in twice.incidents] == ["copy_unreadable"]


def test_a_damaged_copy_of_another_agent_is_an_incident_when_it_is_taken_over() -> None:
    adopting = record("awaiting_verify", adopts="m" * 64, adopts_from="theirs")
    event = replace(verified(Agreement.REMOTE_DIFFERS, is_by_manifest=True), manifest_digest="m" * 64)
    assert [one.kind for one in step(adopting, event).record.incidents] == ["copy_damaged"]


def test_a_conflict_is_looked_at_again_without_touching_either_side() -> None:
    after = step(record("conflict", sealed=True), AuditDue())
    (effect,) = work(after)
    assert isinstance(effect, Verify)
    assert after.move is None
    assert effect.turn == TURN
    assert step(record("conflict"), AuditDue()).effects == (), "an unsealed conflict has no manifest to compare with"


@pytest.mark.parametrize(
    ("passes_before", "age_min_s", "counted"),
    [(1, 3600, 1), (1, 0, 2), (0, 3600, 1), (2, 3600, 2), (2, 0, 3)],
)
def test_a_pass_a_second_after_another_counts_only_where_cleanup_asks_for_no_age(
    passes_before: int, age_min_s: float, counted: int
) -> None:
    before = record(
        "auditing",
        sealed=True,
        verified_at=NOW - timedelta(seconds=1),
        verify_passes=passes_before,
        verified_boot_id="boot",
        verified_uptime_s=500.0,
    )
    policy = replace(POLICY, cleanup=CleanupPolicy(age_min_s=age_min_s))
    after = step(before, verified(uptime=Uptime("boot", 501.0)), policy=policy).record
    assert after.verify_passes == counted
    assert (after.verified_at, after.verified_boot_id, after.verified_uptime_s) == (NOW, "boot", 501.0)


def test_a_pass_a_minute_after_another_is_one_more() -> None:
    before = record("auditing", sealed=True, verified_boot_id="boot", verified_uptime_s=500.0)
    assert step(before, verified(uptime=Uptime("boot", 560.0))).record.verify_passes == 2
    assert step(before, verified(uptime=Uptime("boot", 559.0))).record.verify_passes == 1
    assert step(before, verified()).record.verify_passes == 1, "what is not known hastens nothing"


ADOPTING: dict[str, Any] = {"adopts": "m" * 64, "adopts_from": "theirs"}
MAY_ADOPT = inspected(destination=DestinationStanding.ADOPTABLE, claimed_manifest="m" * 64)


def test_a_copy_that_is_to_be_adopted_is_compared_with_its_own_manifest_before_anything_is_written() -> None:
    after = step(record("queued", mismatches=2, attempts=3), MAY_ADOPT)
    assert (after.record.adopts, after.record.adopts_from) == ("m" * 64, "theirs")
    assert (after.record.mismatches, after.record.attempts, after.record.sealed_at) == (0, 0, None)
    (effect,) = work(after)
    assert isinstance(effect, Verify)
    assert (effect.adopts, effect.adopts_from, effect.manifest_digest, effect.is_audit) == (
        "m" * 64, "theirs", "", False,
    )  # fmt: skip


@pytest.mark.parametrize(("adopts_from", "attempts"), [("theirs", 3), ("of another", 0)])
def test_what_failed_while_this_very_copy_was_to_be_adopted_counts_on(adopts_from: str, attempts: int) -> None:
    again = record("queued", attempts=3, adopts="m" * 64, adopts_from=adopts_from)
    assert step(again, MAY_ADOPT).record.attempts == attempts


WHOLE_HERE = verified(Agreement.REMOTE_DIFFERS, is_by_manifest=True)
UNMADE = verified(Agreement.REMOTE_DIFFERS, is_by_manifest=True, manifest_digest="")
UNKNOWN_WHICH = verified(Agreement.REMOTE_DIFFERS)


@pytest.mark.parametrize(
    ("event", "trigger", "state"),
    [
        (verified(), "proven", "sealing"),
        (WHOLE_HERE, "put_back", "queued"),
        (UNMADE, "conflict_found", "conflict"),
        (UNKNOWN_WHICH, "conflict_found", "conflict"),
        (verified(Agreement.LOCAL_DIFFERS, is_by_manifest=True), "conflict_found", "conflict"),
        (verified(Agreement.BOTH_DIFFER, is_by_manifest=True), "conflict_found", "conflict"),
        (verified(Agreement.LOCAL_GONE, is_by_manifest=True), "conflict_found", "conflict"),
    ],
)
def test_only_local_data_that_are_what_was_sealed_take_a_copy_over_and_from_then_on_bind_us(
    event: Verified, trigger: str, state: str
) -> None:
    before = record("awaiting_verify", **ADOPTING)
    assert moved(before, event) == (trigger, state)
    after = step(before, event).record
    assert (after.adopts == "") is (state == "conflict")
    assert after.is_sealed is (state != "conflict")
    if after.is_sealed:
        assert after.manifest_digest == "d" * 64


def test_a_damaged_copy_is_healed_only_once_the_local_data_were_found_to_be_what_was_sealed() -> None:
    found = step(record("awaiting_verify", **ADOPTING), WHOLE_HERE).record
    (effect,) = work(step(found, MAY_ADOPT))
    assert isinstance(effect, Push)
    assert (effect.adopts, effect.adopts_from, effect.is_sealed) == ("m" * 64, "theirs", True)
    another = inspected(destination=DestinationStanding.ADOPTABLE, claimed_manifest="n" * 64)
    assert moved(found, another) == ("conflict_found", "conflict"), "it is another copy by now"
    changed = inspected(fingerprint="g", destination=DestinationStanding.ADOPTABLE, claimed_manifest="m" * 64)
    assert moved(found, changed) == ("conflict_found", "conflict"), "what is here is no more what was sealed"


def test_a_copy_that_was_not_proven_yet_gives_way_to_no_push() -> None:
    failed_once = step(record("awaiting_verify", **ADOPTING), failed()).record
    assert failed_once.state.value == "queued"
    unasked = step(failed_once, inspected(destination=DestinationStanding.UNASKED))
    (effect,) = work(unasked)
    assert isinstance(effect, Push)
    assert (effect.adopts, effect.adopts_from, effect.is_sealed) == ("", "", False)


def test_after_the_seal_nothing_is_left_to_adopt() -> None:
    sealed = step(record("sealing", sealed=True, **ADOPTING), Sealed(TURN)).record
    assert (sealed.adopts, sealed.adopts_from) == ("", "")
    assert (
        record("conflict", **ADOPTING).unsealed(by="asmith").adopts,
        record("queued", **ADOPTING).afresh().adopts,
    ) == ("", "")


def test_a_change_after_the_proof_of_an_adopted_copy_is_a_conflict_and_no_new_start() -> None:
    proven = step(record("awaiting_verify", **ADOPTING), verified()).record
    assert moved(proven, RunChanged(proven.turn, "it changed"))[1] == "conflict"


HELD = LastError("claimed_by_other_agent", "held by another")


@pytest.mark.parametrize("where", list(DestinationStanding))
@pytest.mark.parametrize(
    "error", [HELD, LastError("claimed_unsealed", "x"), LastError("differs_from_sealed_copy", "x")]
)
def test_a_conflict_ends_by_itself_only_where_another_agent_held_the_copy_and_holds_it_no_more(
    where: DestinationStanding, error: LastError
) -> None:
    before = record("conflict", last_error=error)
    is_free = where in (DestinationStanding.FREE, DestinationStanding.OURS, DestinationStanding.ADOPTABLE)
    trigger = moved(before, inspected(destination=where))[0]
    assert (trigger == "claim_lapsed") is (is_free and error is HELD)
    assert moved(record("conflict", sealed=True, last_error=error), inspected(destination=where))[0] is None
    assert moved(before, inspected())[0] is None, "a look that did not ask the NAS says nothing of it"


def test_a_record_keeps_the_latest_passes_and_a_difference_voids_them() -> None:
    after = record("auditing", sealed=True)
    for number in range(PASSES_KEPT_MAX + 2):
        proven = step(
            replace(after, state=RunState.AUDITING, turn=TURN), verified(uptime=Uptime("boot", 100.0 * number))
        )
        after = proven.record
    assert [one.monotonic_s for one in after.passes] == [100.0 * n for n in range(2, PASSES_KEPT_MAX + 2)]
    damaged = step(replace(after, state=RunState.AUDITING, turn=TURN), verified(Agreement.REMOTE_DIFFERS)).record
    assert (damaged.passes, damaged.verify_passes) == ((), 0)


def test_passes_are_two_only_where_the_clock_of_the_nas_says_so_too() -> None:
    first = replace(proof(Uptime("boot", 100.0)), nas_at=NOW)
    before = record("auditing", sealed=True, verify_passes=1, passes=(first,))
    for nas_passed_s, counted in ((59, 1), (60, 2)):
        second = replace(
            proof(Uptime("boot", 400.0)),
            ended_at=NOW + timedelta(hours=1),
            nas_at=NOW + timedelta(seconds=nas_passed_s),
        )
        after = step(before, replace(verified(), proof=second)).record
        assert after.verify_passes == counted


DIFFERENT = [
    ("auditing", verified(Agreement.REMOTE_DIFFERS)),
    ("auditing", verified(Agreement.LOCAL_DIFFERS)),
    ("auditing", verified(Agreement.BOTH_DIFFER)),
    ("auditing", verified(Agreement.LOCAL_GONE)),
    ("awaiting_verify", verified(Agreement.REMOTE_DIFFERS)),
    ("awaiting_verify", verified(Agreement.LOCAL_DIFFERS)),
    ("prechecking", CopyWrong(TURN, "partial copy")),
    ("queued", inspected(fingerprint="g")),
    ("sealing", RunChanged(TURN, "grew")),
    ("running", failed(conflict="claimed_by_other_agent")),
]


@pytest.mark.parametrize(("state", "event"), DIFFERENT)
def test_whatever_is_found_different_voids_the_passes_before_it(state: RunState, event: Event) -> None:
    after = step(record(state, sealed=True, verify_passes=2), event)
    assert after.move is not None
    assert after.record.verify_passes == 0


def test_a_difference_that_is_gone_begins_to_count_anew() -> None:
    conflict = step(record("auditing", sealed=True, verify_passes=2), verified(Agreement.LOCAL_DIFFERS)).record
    assert step(conflict, verified(turn=conflict.turn)).record.verify_passes == 1


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WITH_A_PUSH)
@pytest.mark.parametrize("kind", [FailureKind.NETWORK, FailureKind.UNKNOWN])
def test_what_may_pass_waits_longer_each_time_and_fails_at_the_fifth(state: RunState, kind: FailureKind) -> None:
    waits = []
    run = record(state)
    for _ in range(4):
        run = step(replace(run, state=RunState(state)), failed(kind, turn=run.turn)).record
        waits.append((run.state.value, run.wait_s, run.attempts))
        assert run.next_attempt_at == NOW + timedelta(seconds=run.wait_s)
    assert waits == [("queued", 30, 1), ("queued", 120, 2), ("queued", 480, 3), ("queued", 1800, 4)]
    last = step(replace(run, state=RunState(state)), failed(kind, turn=run.turn)).record
    assert (last.state, last.attempts, last.next_attempt_at) == (RunState.FAILED, 5, None)
    assert last.last_error == LastError(kind, "the link broke")


@pytest.mark.parametrize("state", WITH_A_PUSH)
@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.LOCAL_FILE_VANISHED, FailureKind.BINARY_MISSING])
def test_what_needs_a_person_fails_at_once(state: RunState, kind: FailureKind) -> None:
    assert moved(record(state), failed(kind)) == ("gave_up", "failed")


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("prechecking", CopyWrong(TURN, "partial copy")),
        ("awaiting_verify", verified(Agreement.REMOTE_DIFFERS)),
        ("running", failed(FailureKind.HASH_MISMATCH)),
    ],
)
def test_a_wrong_copy_is_pushed_once_more_at_once_and_then_fails(
    state: RunState, event: CopyWrong | Verified | EffectFailed
) -> None:
    first = step(record(state), event)
    assert (first.record.state, first.record.mismatches, first.record.wait_s) == (RunState.QUEUED, 1, 0)
    second = step(replace(first.record, state=RunState(state)), replace(event, turn=first.record.turn))
    assert (second.record.state, second.record.mismatches) == (RunState.FAILED, 2)
    assert second.record.last_error is not None
    assert second.record.last_error.kind == "hash_mismatch"


def test_a_vanished_file_is_no_new_change_when_what_is_left_is_looked_at() -> None:
    run = step(record("awaiting_verify"), failed(FailureKind.LOCAL_FILE_VANISHED, fingerprint="left")).record
    assert moved(run, inspected(fingerprint="left", complete=False)) == (None, "failed")
    assert moved(run, inspected(fingerprint="f"))[0] == "changed"


def test_a_push_that_fails_because_the_nas_is_away_waits_for_the_lane_and_not_for_a_backoff() -> None:
    run = step(record("running", attempts=4), failed(is_destination_away=True)).record
    assert (run.state, run.attempts, run.wait_s, run.next_attempt_at) == (RunState.QUEUED, 4, 0, None)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_an_audit_that_cannot_be_done_proves_and_disproves_nothing(kind: FailureKind) -> None:
    before = record("auditing", sealed=True, verify_passes=3)
    after = step(before, failed(kind)).record
    assert (after.state, after.verify_passes, after.verified_at) == (RunState.VERIFIED, 3, EARLIER)


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.UNKNOWN])
def test_a_copy_that_cannot_be_read_voids_the_passes_at_once_and_is_damaged_at_the_second_time(
    kind: FailureKind,
) -> None:
    unreadable = failed(kind, message="no file of it can be read", is_copy_unreadable=True)
    once = step(record("auditing", sealed=True, verify_passes=3), unreadable).record
    assert (once.state, once.verify_passes, once.attempts) == (RunState.VERIFIED, 0, 1)
    assert once.last_error == LastError(kind, "no file of it can be read")
    again = step(once, AuditDue()).record
    away = step(again, failed(turn=again.turn, is_destination_away=True)).record
    assert (away.state, away.attempts) == (RunState.VERIFIED, 1), "a NAS that is away proves nothing meanwhile"
    again = step(away, AuditDue()).record
    twice = step(again, replace(unreadable, turn=again.turn))
    assert twice.move is not None
    assert twice.move.trigger == "copy_damaged"
    assert (twice.record.state, twice.record.verify_passes, twice.record.attempts) == (RunState.QUEUED, 0, 0)
    assert twice.record.last_error == once.last_error
    read = step(again, verified(turn=again.turn)).record
    assert (read.attempts, read.verify_passes) == (0, 1)


@pytest.mark.parametrize("kind", ["destination_occupied", "claimed_by_other_agent", "claimed_unsealed"])
def test_a_claim_that_a_push_meets_is_a_conflict_and_costs_no_attempt(kind: FailureKind) -> None:
    after = step(record("running", attempts=3), failed(message="of another job", conflict=kind)).record
    assert (after.state, after.attempts) == (RunState.CONFLICT, 3)
    assert after.last_error == LastError(kind, "of another job")


@pytest.mark.parametrize("is_sealed", [False, True])
def test_an_operators_word_to_take_over_is_for_one_holder_and_used_up_by_a_conflict(is_sealed: bool) -> None:
    held = LastError("claimed_by_other_agent", "held")
    queued = step(
        record("conflict", sealed=is_sealed, last_error=held, held_by="b/7/1/l"), TakenOver("asmith", "it was stopped")
    )
    assert queued.move is not None
    assert (queued.move.trigger, queued.move.operator, queued.move.reason) == (
        "taken_over", "asmith", "it was stopped",
    )  # fmt: skip
    run = queued.record
    assert (run.state, run.is_sealed, run.takes_over) == (RunState.QUEUED, is_sealed, as_last_seen("b/7/1/l"))
    where = DestinationStanding.CLAIMED_BY_OTHER_AGENT
    seen = replace(inspected(destination=where), holding="b/7/1/m")
    pushing = step(run, seen)
    (effect,) = work(pushing)
    assert isinstance(effect, Push)
    assert effect.takes_over == pushing.record.takes_over == "b/7/1/m"
    again = step(pushing.record, failed(turn=pushing.record.turn)).record
    assert moved(replace(again, attempts=0), seen) == ("push_started", "running"), "a try that failed goes on"
    back = step(again, replace(seen, holding="b/7/3/")).record
    assert (back.state, back.takes_over) == (RunState.CONFLICT, "")
    sealed = step(replace(pushing.record, state=RunState.SEALING), Sealed(pushing.record.turn)).record
    assert sealed.takes_over == ""


@pytest.mark.parametrize("said_of", ["b/7/1/m", NOBODY_KNOWN, "", "as an earlier version wrote it"])
@pytest.mark.parametrize("found", ["c/9/2/n", "b/8/1/m"])
def test_a_word_that_waited_for_the_nas_is_not_for_who_came_meanwhile(said_of: str, found: str) -> None:
    takes_over = "whoever" if said_of.startswith("as an") else as_last_seen(said_of)
    seen = inspected(destination=DestinationStanding.CLAIMED_BY_OTHER_AGENT)
    after = step(record("queued", takes_over=takes_over), replace(seen, holding=found)).record
    assert (after.state, after.takes_over, after.held_by) == (RunState.CONFLICT, "", found)
    assert after.last_error is not None
    assert (after.last_error.kind, "not held by the one" in after.last_error.message) == (
        "claimed_by_other_agent",
        True,
    )
    again = step(step(after, TakenOver("asmith")).record, replace(seen, holding=found))
    assert (again.record.state, again.record.takes_over) == (RunState.RUNNING, found)


@pytest.mark.parametrize("how", [{"adopts": "m" * 64, "adopts_from": "theirs"}, {"takes_over": "b/7/1/m"}])
def test_a_copy_that_came_from_others_is_proven_anew_where_its_proof_does_not_hold_for_the_seal(how: Any) -> None:
    before = record("sealing", sealed=True, **how)
    (seal,) = work(step(replace(before, state=RunState.AWAITING_VERIFY), verified()))
    assert isinstance(seal, Seal)
    assert (seal.is_again, seal.is_first) == (True, True)
    event = RunChanged(TURN, "proven too long ago", is_unproven=True)
    anew = step(before, event).record
    assert (anew.state, anew.sealed_as, anew.verify_passes) == (RunState.ACQUIRING, before.sealed_as, 0)
    queued = step(anew, inspected(fingerprint="g")).record
    seen = inspected(fingerprint="g", destination=DestinationStanding.OURS)
    proving = step(queued, seen)
    (effect,) = work(proving)
    assert isinstance(effect, Verify)
    assert (proving.record.state, effect.manifest_digest) == (RunState.AWAITING_VERIFY, before.sealed_as)
    assert moved(proving.record, verified(Agreement.LOCAL_DIFFERS, turn=proving.record.turn)) == (
        "conflict_found", "conflict",
    )  # fmt: skip
    again = replace(before, adopts="", adopts_from="", takes_over="")
    (effect,) = work(step(replace(again, state=RunState.AWAITING_VERIFY), verified()))
    assert not effect.is_first


@pytest.mark.parametrize("is_folder_here", [False, True])
@pytest.mark.parametrize("kind", [LOCAL_CHANGED, "local_files_missing", "only_copy_lost"])
def test_a_sealed_copy_counts_on_an_operators_word_once_it_alone_was_proven(kind: str, is_folder_here: bool) -> None:
    conflict = record("conflict", sealed=True, verify_passes=0, last_error=LastError(kind, "so"))
    effect = nas_choice_effect(conflict, operator="asmith", reason="it was moved to the archive")
    assert (effect.local, effect.manifest_digest, effect.chosen_by) == (LocalSide.MANIFEST, "m" * 64, "asmith")
    word: dict[str, Any] = {"chosen_by": "asmith", "reason": effect.reason, "is_folder_here": is_folder_here}
    after = step(conflict, of_the_copy_alone(**word))
    assert after.move is not None
    assert (after.move.trigger, after.move.operator, after.move.reason) == ("nas_chosen", "asmith", effect.reason)
    assert (after.record.state, after.record.gone_at) == (RunState.CLEANED, None if is_folder_here else NOW)
    assert (after.record.sealed_as, after.record.verify_passes) == ("m" * 64, 1)
    assert statuses(after) == (["cleaned"] if is_folder_here else [])


@pytest.mark.parametrize(
    ("sealed", "event"),
    [
        (True, of_the_copy_alone(Agreement.BOTH_DIFFER, chosen_by="asmith")),
        (True, of_the_copy_alone(chosen_by="asmith", proof=None, skipped_oversize=("a",))),
        (True, of_the_copy_alone()),
        (False, of_the_copy_alone(chosen_by="asmith")),
        (True, RunChanged(TURN, "2 data files of this run are left here")),
    ],
)
def test_it_does_not_count_where_it_is_wrong_was_not_read_whole_or_data_are_left(sealed: bool, event: Any) -> None:
    conflict = record("conflict", sealed=sealed, last_error=LastError("local_files_missing", "so"))
    after = step(conflict, event)
    assert (after.move, after.record.state) == (None, RunState.CONFLICT)
    is_wrong = isinstance(event, Verified) and event.comparison.agreement is Agreement.BOTH_DIFFER
    assert bool(after.record.incidents) is is_wrong, "what was found wrong there is on record"


def test_a_seal_that_fails_for_good_is_one_trouble_with_one_since_through_every_proof_that_is_made_anew() -> None:
    run = record("sealing")
    for times in (1, 2, 3):
        run = step(replace(run, state=RunState.SEALING, turn=TURN), failed()).record
        assert run.seal_trouble == SealTrouble(NOW, times, "network", "the link broke")
        old = step(replace(run, turn=TURN), RunChanged(TURN, "proven too long ago", is_unproven=True)).record
        assert old.state is RunState.ACQUIRING
        admitted = step(old, inspected()).record
        run = step(replace(admitted, state=RunState.AWAITING_VERIFY, turn=TURN), verified()).record
        assert (run.state, run.seal_trouble is not None and run.seal_trouble.times) == (RunState.SEALING, times)
    assert step(replace(run, turn=TURN), Sealed(TURN)).record.seal_trouble is None
    assert step(replace(run, turn=TURN), RunChanged(TURN, "it changed")).record.seal_trouble is None
    away = step(replace(run, turn=TURN), failed(is_destination_away=True)).record
    assert away.seal_trouble == run.seal_trouble, "a NAS that is away is the lane's matter"


def test_files_that_were_touched_and_are_what_was_sealed_heal_a_damaged_copy() -> None:
    damaged = step(record("auditing", sealed=True), verified(Agreement.REMOTE_DIFFERS, fingerprint="touched")).record
    assert (damaged.state, damaged.fingerprint) == (RunState.QUEUED, "touched")
    seen = inspected(fingerprint="touched", destination=DestinationStanding.OURS)
    assert moved(damaged, seen) == ("push_started", "running")
    later = inspected(fingerprint="changed since", destination=DestinationStanding.OURS)
    assert moved(damaged, later) == ("conflict_found", "conflict")


def interrupted(agreement: Agreement | None, **changes: Any) -> RunChanged:
    """An audit in which a file changed here, and what became of all others."""
    stayed = None if agreement is None else verified(agreement).comparison
    return RunChanged(TURN, "1 file changed", stayed=stayed, moving=("z.log",), fingerprint="g", **changes)


@pytest.mark.parametrize("agreement", [None, Agreement.EQUAL])
def test_files_that_change_during_every_audit_are_told_and_forgotten_with_the_next_proof(
    agreement: Agreement | None,
) -> None:
    after = record("auditing", sealed=True)
    for times in (1, 2, 3, 4):
        after = step(replace(after, state=RunState.AUDITING, turn=TURN), interrupted(agreement)).record
        assert (after.state, after.verify_passes, after.incidents) == (RunState.VERIFIED, 1, ())
        told = after.last_error is not None and after.last_error.kind == "keeps_changing"
        assert (after.interruptions, told) == (times, times >= 3)
    proven = step(replace(after, state=RunState.AUDITING, turn=TURN), verified()).record
    assert (proven.interruptions, proven.last_error) == (0, None)


def test_damage_shows_beside_files_that_change_during_an_audit_and_is_not_repaired_from_a_run_in_motion() -> None:
    damaged = step(record("auditing", sealed=True, verify_passes=2), interrupted(Agreement.REMOTE_DIFFERS)).record
    assert (damaged.state, damaged.verify_passes, damaged.passes) == (RunState.VERIFIED, 0, ())
    assert [one.kind for one in damaged.incidents] == ["copy_damaged"]
    again = step(record("conflict", sealed=True), interrupted(Agreement.REMOTE_DIFFERS))
    assert again.record.state is RunState.CONFLICT


@pytest.mark.parametrize(
    ("agreement", "kind"),
    [
        (Agreement.LOCAL_DIFFERS, LOCAL_CHANGED),
        (Agreement.LOCAL_GONE, "local_files_missing"),
        (Agreement.BOTH_DIFFER, LOCAL_CHANGED),
    ],
)
def test_what_differs_here_and_did_not_move_is_a_conflict_whatever_else_moves(agreement: Agreement, kind: str) -> None:
    after = step(record("auditing", sealed=True), interrupted(agreement)).record
    assert after.last_error is not None
    assert (after.state, after.last_error.kind, after.fingerprint) == (RunState.CONFLICT, kind, "g")
    assert bool(after.incidents) is (agreement is Agreement.BOTH_DIFFER)


@pytest.mark.parametrize("changes", [{"seal_fault": "its claim is damaged"}, {"seal_fault": FOLDERS_FAULT}, {}])
def test_an_altered_seal_shows_beside_files_that_change_during_an_audit(changes: dict[str, str]) -> None:
    after = step(record("auditing", sealed=True), interrupted(Agreement.EQUAL, **changes)).record
    is_altered = changes.get("seal_fault", FOLDERS_FAULT) != FOLDERS_FAULT
    assert (after.state, [one.kind for one in after.incidents]) == (RunState.VERIFIED, ["seal_altered"] * is_altered)


@pytest.mark.parametrize("is_short", [True, False])
@pytest.mark.parametrize("agreement", [Agreement.LOCAL_DIFFERS, Agreement.BOTH_DIFFER])
def test_of_a_sealed_run_that_is_back_missing_files_are_the_conflict_whatever_else_changed(
    agreement: Agreement, is_short: bool
) -> None:
    found = verified(agreement)
    missing = ("b.bin",) if is_short else ()
    found = replace(found, comparison=replace(found.comparison, local_missing=missing))
    after = step(record("awaiting_verify", sealed=True), found).record
    assert after.last_error is not None
    assert (after.state, after.last_error.kind) == (
        RunState.CONFLICT,
        "local_files_missing" if is_short else LOCAL_CHANGED,
    )
    assert step(after, LocalChosen("asmith")).record.is_sealed is is_short


@pytest.mark.parametrize("state", ["awaiting_verify", "sealing"])
def test_changed_data_that_nobody_compared_are_compared_before_they_win(state: str) -> None:
    conflict = step(record(state, sealed=True), RunChanged(TURN, "it changed")).record
    assert (conflict.state, conflict.last_error and conflict.last_error.kind) == (RunState.CONFLICT, LOCAL_CHANGED)
    chosen = step(conflict, LocalChosen("asmith")).record
    assert (chosen.state, chosen.sealed_as, chosen.gone_at) == (RunState.QUEUED, conflict.sealed_as, NOW)


@pytest.mark.parametrize("kind", sorted(OF_OTHERS))
def test_no_word_about_others_gives_up_what_was_sealed_here(kind: str) -> None:
    held = record("conflict", sealed=True, last_error=LastError(kind, "held"), destination="P/Run_1")
    chosen = step(held, LocalChosen("asmith")).record
    assert chosen.is_sealed is (kind != "destination_occupied")
    assert bool(chosen.destination) is chosen.is_sealed, "without a place of its own it may have one elsewhere"


def test_a_word_to_take_over_gives_up_nothing_that_was_sealed_here_and_the_push_is_told_what_it_was() -> None:
    held = LastError("claimed_by_other_agent", "held")
    conflict = record("conflict", sealed=True, last_error=held, held_by="b/7/1/m")
    queued = step(conflict, TakenOver("asmith")).record
    assert (queued.sealed_as, queued.verify_passes) == (conflict.sealed_as, 0)
    seen = inspected(fingerprint="g", destination=DestinationStanding.CLAIMED_BY_OTHER_AGENT)
    pushing = step(queued, replace(seen, holding="b/7/1/m"))
    (effect,) = work(pushing)
    assert isinstance(effect, Push)
    assert (effect.manifest_digest, effect.takes_over, effect.fingerprint) == (conflict.sealed_as, "b/7/1/m", "g")
    refused = failed(turn=pushing.record.turn, conflict=LOCAL_CHANGED, detail=HELD_BY_OTHERS)
    differs = step(pushing.record, refused).record
    assert (differs.state, differs.sealed_as, differs.takes_over) == (RunState.CONFLICT, conflict.sealed_as, "")
    assert differs.last_error == LastError(LOCAL_CHANGED, refused.message, HELD_BY_OTHERS)
    assert moved(differs, TakenOver("asmith")) == ("taken_over", "queued"), "once the files are as they were"
    assert not step(differs, LocalChosen("asmith")).record.is_sealed


def test_who_holds_a_copy_is_known_from_every_look_that_a_conflict_comes_of() -> None:
    told = failed(conflict="claimed_by_other_agent", holding="b/7/1/m")
    for state in ("running", "auditing", "sealing"):
        assert step(record(state, sealed=state == "auditing", held_by="a"), told).record.held_by == "b/7/1/m"
    unknown = step(record("running", held_by="a"), failed(conflict="claimed_by_other_agent"))
    assert unknown.record.held_by == "a"


@pytest.mark.parametrize("where", [DestinationStanding.FREE, DestinationStanding.OURS])
def test_a_word_to_take_over_that_nobody_had_to_give_way_to_is_used_up(where: DestinationStanding) -> None:
    after = step(record("queued", takes_over=as_last_seen("b/7/1/m")), inspected(destination=where))
    assert (after.record.state, after.record.takes_over) == (RunState.RUNNING, "")


THEIRS = (
    DestinationStanding.OCCUPIED,
    DestinationStanding.CLAIMED_UNSEALED,
    DestinationStanding.CLAIMED_BY_OTHER_AGENT,
    DestinationStanding.SEALED_UNCLAIMED,
    DestinationStanding.ADOPTABLE,
)


@pytest.mark.parametrize("before", list(Footing))
@pytest.mark.parametrize("where", THEIRS)
def test_a_place_that_was_taken_over_is_the_run_s_own(where: DestinationStanding, before: Footing) -> None:
    at: dict[str, Any] = {"destination": "Run_1", "footing": before}
    if before is Footing.OWN:
        at = {"destination": ""}
    seen = replace(inspected(destination=where, destination_path="Run_1"), holding="b/7/1/m")
    pushing = step(record("queued", takes_over=as_last_seen("b/7/1/m"), **at), seen)
    assert (pushing.record.state, pushing.record.takes_over) == (RunState.RUNNING, "b/7/1/m")
    assert (pushing.record.destination, pushing.record.footing) == ("Run_1", Footing.OWN)
    assert pushing.record.has_place
    (effect,) = work(pushing)
    assert isinstance(effect, Push)
    assert not effect.is_shown, "nobody found equal what was there"


def test_a_copy_that_was_left_there_is_proven_before_an_operators_word_takes_anything_over() -> None:
    seen = replace(LEFT, holding=NOBODY_KNOWN)
    proving = step(record("queued", destination="", takes_over=as_last_seen("")), seen)
    assert (proving.record.state, proving.record.footing) == (RunState.AWAITING_VERIFY, Footing.LEFT_THERE)
    assert proving.record.takes_over == NOBODY_KNOWN, "the word is for nobody who comes meanwhile"
    left = record("awaiting_verify", takes_over=NOBODY_KNOWN, **LEFT_THERE)
    assert step(left, verified()).record.state is RunState.SEALING
    shown = step(left, replace(verified(), comparison=SOME_MISSING)).record
    assert (shown.footing, shown.takes_over) == (Footing.SHOWN, ""), (
        "what is there is the run's: nobody has to give way"
    )
    differs = step(left, replace(verified(), comparison=SOME_DIFFER))
    assert differs.move is not None
    assert (differs.move.trigger, differs.record.state) == ("put_back", RunState.QUEUED)
    assert (differs.record.destination, differs.record.footing) == ("Run_1", Footing.OWN)
    occupied = inspected(destination=DestinationStanding.OCCUPIED, destination_path="Run_1")
    assert moved(differs.record, replace(occupied, holding=NOBODY_KNOWN)) == ("push_started", "running")
    assert moved(differs.record, replace(occupied, holding="b/7/1/m")) == ("conflict_found", "conflict")
    assert moved(left, verified(Agreement.BOTH_DIFFER)) == ("conflict_found", "conflict")


def test_a_word_to_take_over_waits_for_a_place_that_could_not_be_asked_and_moves_nobody_unseen() -> None:
    for destination in ("Run_1", ""):
        before = record("queued", takes_over=as_last_seen("b/7/1/m"), destination=destination)
        unasked = step(before, inspected(destination=DestinationStanding.UNASKED))
        (effect,) = work(unasked)
        assert isinstance(effect, Push)
        assert effect.is_open, "who is to give way is yet to be seen"
        anew = step(unasked.record, RunChanged(unasked.record.turn, "its place is not decided yet")).record
        assert (anew.state, anew.takes_over) == (RunState.ACQUIRING, as_last_seen("b/7/1/m"))


def test_an_operators_word_is_not_for_another_destination() -> None:
    conflict = record("conflict", takes_over="b/7/1/m", last_error=LastError("claimed_unsealed", "held"))
    conflict = replace(conflict, cache_form="f", cache_signature=7, verify_passes=1, passes=(proof(),))
    after = step(conflict, DestinationReplaced("asmith", "the old NAS burned down")).record
    assert (after.takes_over, after.cache_form, after.cache_signature) == ("", "", 0)
    assert (after.verify_passes, after.passes) == (0, ())


@pytest.mark.parametrize("kind", [LOCAL_CHANGED, "cleanup_stopped"])
def test_a_copy_of_our_own_is_not_taken_over(kind: str) -> None:
    assert moved(record("conflict", sealed=True, last_error=LastError(kind, "so")), TakenOver("asmith"))[0] is None


def test_an_audit_that_met_a_moving_run_ends_and_is_repeated() -> None:
    before = record("auditing", sealed=True)
    assert moved(before, RunChanged(TURN, "it changed while it was verified")) == ("audit_interrupted", "verified")


def test_a_run_folder_that_is_gone_fails_a_queued_run_and_no_other() -> None:
    for state in RunState:
        trigger, after = moved(record(state), RunVanished())
        assert (trigger, after) == (("gave_up", "failed") if state is RunState.QUEUED else (None, state.value))


# --- sealing ---------------------------------------------------------------------------------------------------------


def test_a_seal_that_fails_is_tried_again_after_a_wait_and_never_gives_up() -> None:
    run = record("sealing")
    waits = []
    for _ in range(7):
        after = step(run, failed(turn=run.turn))
        run = after.record
        (effect,) = work(after)
        assert isinstance(effect, Seal)
        assert effect.wait_s == run.wait_s
        waits.append(run.wait_s)
    assert waits == [30, 120, 480, 1800, 7200, 7200, 7200]
    assert run.state is RunState.SEALING


def test_a_seal_that_fails_because_the_nas_is_away_consumes_no_attempt() -> None:
    after = step(record("sealing", attempts=2), failed(is_destination_away=True)).record
    assert (after.state, after.attempts) == (RunState.SEALING, 2)


@pytest.mark.parametrize("event", [RunChanged(TURN, "grew"), inspected(fingerprint="g", sync_status="synced")])
def test_a_seal_that_is_undone_takes_synced_back(event: Event) -> None:
    after = step(record("sealing"), event)
    assert after.record.state is RunState.ACQUIRING
    assert "pending" in statuses(after)


def test_a_sealed_run_that_changed_while_it_was_sealed_anew_is_a_conflict() -> None:
    after = step(record("sealing", sealed=True), RunChanged(TURN, "grew")).record
    assert (after.state, after.is_sealed) == (RunState.CONFLICT, True)
    assert after.last_error is not None
    assert after.last_error.kind == LOCAL_CHANGED


def test_the_first_seal_keeps_its_time() -> None:
    assert step(record("sealing", sealed=True), Sealed(TURN)).record.sealed_at == EARLIER
    assert step(record("sealing", attempts=2, mismatches=1), Sealed(TURN)).record.sealed_at == NOW


# --- statuses in creation.json ---------------------------------------------------------------------------------------

STATUSES = [
    # state, sealed, event, what is written
    ("acquiring", False, inspected(findings=(HARD,)), ["blocked_by_validation"]),
    ("acquiring", False, inspected(), []),
    ("acquiring", False, inspected(sync_status="synced", complete=False), ["pending"]),
    ("acquiring", False, inspected(sync_status="failed", complete=False), []),
    ("acquiring", False, inspected(sync_status="failed"), ["pending"]),
    ("blocked", False, inspected(sync_status="blocked_by_validation"), ["pending"]),
    ("blocked", False, inspected(findings=(HARD,), sync_status="pending"), ["blocked_by_validation"]),
    ("running", False, Pushed(TURN), []),
    ("running", False, failed(FailureKind.AUTH), ["failed"]),
    ("running", False, failed(), []),
    ("awaiting_verify", False, verified(), []),
    ("sealing", False, Sealed(TURN), []),  # the seal itself wrote it, on both sides
    ("auditing", True, verified(), []),
    ("auditing", True, verified(Agreement.REMOTE_DIFFERS), ["pending"]),
    ("auditing", True, verified(Agreement.LOCAL_DIFFERS), ["failed"]),
    ("verified", True, inspected(sync_status="pending"), ["synced"]),
    ("verified", True, inspected(sync_status="synced"), []),
    ("conflict", True, inspected(sync_status="synced", fingerprint="g"), ["failed"]),
    ("conflict", True, verified(), ["synced"]),
    ("conflict", False, inspected(sync_status="pending"), ["failed"]),
    ("conflict", True, LocalChosen("op"), ["pending"]),
    ("failed", False, RetryRequested("op"), ["pending"]),
    ("running", False, CancelRequested("op", "the wrong sample"), ["failed"]),
    ("failed", False, inspected(sync_status="pending"), ["failed"]),
    ("queued", False, RunVanished(), ["failed"]),
]


@pytest.mark.parametrize(("state", "sealed", "event", "written"), STATUSES)
def test_creation_json_is_made_to_say_what_the_state_says(
    state: RunState, sealed: bool, event: Event, written: list[str]
) -> None:
    assert statuses(step(record(state, sealed=sealed), event)) == written


# --- operators -------------------------------------------------------------------------------------------------------


def test_retry_arms_a_failed_run_anew_and_no_other() -> None:
    before = record("failed", attempts=5, mismatches=2, last_error=LastError("network", "x"))
    after = step(before, RetryRequested("asmith", "the cable is back")).record
    assert (after.state, after.attempts, after.mismatches, after.last_error) == (RunState.QUEUED, 0, 0, None)
    for state in set(RunState) - {RunState.FAILED}:
        assert moved(record(state), RetryRequested("asmith")) == (None, state.value)


CANCEL = CancelRequested("asmith", "the wrong sample was measured")
CANCELLED_ERROR = LastError(CANCELLED, "cancelled by asmith: the wrong sample was measured")


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("sealed", [False, True])
def test_cancel_ends_what_is_under_way_before_the_proof_and_nothing_else(state: RunState, sealed: bool) -> None:
    """A seal is not stopped: every byte is proven then. A heal is: what it repairs stays on record as damaged."""
    damage = incident_of(IncidentKind.COPY_DAMAGED, found_by="job/6", found_at=EARLIER, what="a.bin differs")
    before = record(state, sealed=sealed, wait_s=30.0, next_attempt_at=NOW, incidents=(damage,) if sealed else ())
    after = step(before, CANCEL)
    if state not in (RunState.QUEUED, *WITH_A_PUSH):
        assert after == Step(before)
        return
    assert (after.record.state, after.record.last_error) == (RunState.FAILED, CANCELLED_ERROR)
    assert (after.record.next_attempt_at, after.record.sync_status) == (None, "failed")
    assert (after.record.is_sealed, after.record.incidents) == (sealed, before.incidents)
    assert after.move is not None
    assert (after.move.operator, after.move.reason) == ("asmith", CANCEL.reason)


def test_a_cancelled_run_stays_so_whatever_happens_to_it_until_it_is_retried() -> None:
    cancelled = step(record("running"), CANCEL).record
    for event in EVERY_EVENT:
        if isinstance(event, RetryRequested):
            continue
        of_this_turn: Any = event
        if hasattr(event, "turn"):
            of_this_turn = replace(of_this_turn, turn=cancelled.turn)
        for given in (event, of_this_turn):
            after = step(cancelled, given)
            assert after.record == cancelled, given
            assert not [effect for effect in after.effects if not isinstance(effect, WriteStatus)]
    failed_before = replace(cancelled, last_error=LastError("network", "x"))
    assert moved(failed_before, inspected(fingerprint="g")) == ("changed", "acquiring"), (
        "another failure is left by a change"
    )
    retried = step(cancelled, RetryRequested("bjones")).record
    assert (retried.state, retried.last_error, retried.attempts) == (RunState.QUEUED, None, 0)


def test_an_outcome_that_comes_after_the_cancel_is_stale() -> None:
    cancelled = step(record("running"), CANCEL).record
    assert step(cancelled, Pushed(TURN)) == Step(cancelled)


def test_whoever_was_to_make_room_keeps_it_once_the_run_is_cancelled() -> None:
    assert step(record("queued", takes_over="their-job"), CANCEL).record.takes_over == ""


def test_resolving_a_conflict_starts_the_proof_over() -> None:
    after = step(record("conflict", sealed=True, verify_passes=3), LocalChosen("asmith"))
    assert after.record.state is RunState.QUEUED
    assert (after.record.is_sealed, after.record.verify_passes, after.record.manifest_digest) == (False, 0, "")
    assert after.record.verified_at is None
    assert after.move is not None
    assert after.move.operator == "asmith"


def test_an_audit_starts_only_where_a_run_is_sealed_and_at_rest() -> None:
    auditable = {RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE}
    for state in RunState:
        trigger, _ = moved(record(state, sealed=True), AuditDue())
        assert (trigger == "audit_started") is (state in auditable)


# --- start-up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("running", Push),
        ("prechecking", Precheck),
        ("awaiting_verify", Verify),
        ("sealing", Seal),
        ("auditing", Verify),
    ],
)
def test_start_up_issues_a_working_states_effect_again_and_nothing_else(state: RunState, kind: type[Work]) -> None:
    (effect,) = entry_effects(record(state, sealed=state == "auditing"))
    assert isinstance(effect, Push | Precheck | Verify | Seal)
    assert type(effect) is kind
    assert effect.turn == TURN


@pytest.mark.parametrize("state", sorted(set(RunState) - CHART.working))
def test_start_up_issues_nothing_for_a_resting_state(state: RunState) -> None:
    assert entry_effects(record(state)) == ()


def test_a_first_verify_compares_with_no_manifest_and_a_later_one_with_the_sealed() -> None:
    (first,) = entry_effects(record("awaiting_verify", manifest_digest="x" * 64))
    (later,) = entry_effects(record("awaiting_verify", sealed=True))
    assert isinstance(first, Verify)
    assert isinstance(later, Verify)
    assert (first.manifest_digest, later.manifest_digest) == ("", "m" * 64)


def test_judging_asks_no_machine() -> None:
    judgement = judge(record("running"), Pushed(TURN), now=NOW, policy=POLICY)
    assert judgement is not None
    assert judgement.trigger is Trigger.PUSHED


# --- a destination that was replaced ------------------------------------------------------------------------------------

REPLACED_LEADS_TO = {
    RunState.RUNNING: (Trigger.PUT_BACK, Trigger.PUT_BACK),
    RunState.PRECHECKING: (Trigger.PUT_BACK, Trigger.PUT_BACK),
    RunState.AWAITING_VERIFY: (Trigger.PUT_BACK, Trigger.PUT_BACK),
    RunState.SEALING: (Trigger.DESTINATION_REPLACED, Trigger.DESTINATION_REPLACED),
    RunState.VERIFIED: (Trigger.DESTINATION_REPLACED, None),
    RunState.CLEANUP_ELIGIBLE: (Trigger.DESTINATION_REPLACED, None),
    RunState.CONFLICT: (Trigger.DESTINATION_REPLACED, None),
    RunState.AUDITING: (Trigger.AUDIT_INTERRUPTED, Trigger.AUDIT_INTERRUPTED),
}
"""State → what its run is moved by, with its data here and without; no other state is moved."""


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("state", list(RunState))
def test_where_the_destination_was_replaced_each_state_goes_on_as_the_table_says(
    state: RunState, sealed: bool, has_data: bool
) -> None:
    error = LastError("destination_occupied", "others have it")
    before = record(state, sealed=sealed, attempts=2, mismatches=1, last_error=error, adopts="m", adopts_from="theirs")
    before = replace(before, verify_passes=1, passes=(proof(),))
    found = step(before, DestinationReplaced("asmith", "the old NAS burned down", has_data))
    expected = REPLACED_LEADS_TO.get(state, (None, None))[0 if has_data else 1]
    assert (found.move.trigger if found.move else None) == expected
    if found.move is None:
        assert found.record is before, "its passes are made void by who tells of it"
        return
    after = found.record
    assert (found.move.operator, found.move.reason) == (
        "asmith",
        "the destination was replaced: the old NAS burned down",
    )
    assert (after.verify_passes, after.passes, after.attempts, after.mismatches, after.last_error) == (
        0,
        (),
        0,
        0,
        None,
    )
    assert (after.is_sealed, after.manifest_digest, after.fingerprint) == (sealed, before.manifest_digest, "f")
    assert (after.adopts, after.adopts_from) == (("m", "theirs") if sealed else ("", ""))
    assert after.state is (RunState.VERIFIED if state is RunState.AUDITING else RunState.QUEUED)
    assert not any(isinstance(effect, Work) for effect in found.effects), "nothing is begun before its turn"


def test_where_the_destination_was_replaced_local_data_that_differ_from_what_was_sealed_stay_a_conflict() -> None:
    changed = record(RunState.CONFLICT, sealed=True, last_error=LastError(LOCAL_CHANGED, "1 file changed here"))
    assert step(changed, DestinationReplaced("asmith", "the old NAS burned down")).move is None


def test_a_proven_run_that_is_queued_for_another_place_and_changed_meanwhile_is_a_conflict_and_not_pushed() -> None:
    queued = step(record(RunState.VERIFIED, sealed=True), DestinationReplaced("asmith", "it burned down")).record
    found = step(queued, inspected(fingerprint="g", destination=DestinationStanding.FREE))
    assert (found.record.state, found.record.last_error and found.record.last_error.kind) == (
        RunState.CONFLICT,
        LOCAL_CHANGED,
    )


# --- what ExLab-Wizard left there --------------------------------------------------------------------------------------

LEFT = inspected(destination=DestinationStanding.LEFT_THERE, destination_path="Run_1")
LEFT_THERE: dict[str, Any] = {"destination": "Run_1", "footing": Footing.LEFT_THERE}
SOME_MISSING = Comparison(Agreement.REMOTE_DIFFERS, remote_missing=("b",))
SOME_DIFFER = Comparison(Agreement.REMOTE_DIFFERS, remote_missing=("b",), remote_changed=("a",))


def test_what_was_left_there_is_proven_before_anything_is_written() -> None:
    after = step(record("queued", destination="", attempts=3), LEFT)
    assert (after.record.destination, after.record.footing, after.record.attempts) == ("Run_1", Footing.LEFT_THERE, 3)
    assert not after.record.has_place
    (effect,) = work(after)
    assert isinstance(effect, Verify)
    assert (effect.destination, effect.is_left_there, effect.manifest_digest) == ("Run_1", True, "")


@pytest.mark.parametrize(
    ("event", "trigger", "state", "footing"),
    [
        (verified(), "proven", "sealing", Footing.LEFT_THERE),
        (replace(verified(Agreement.REMOTE_DIFFERS), comparison=SOME_MISSING), "put_back", "queued", Footing.SHOWN),
        (
            replace(verified(), comparison=SOME_MISSING, skipped_oversize=("a",)),
            "gave_up",
            "failed",
            Footing.LEFT_THERE,
        ),
        (replace(verified(), comparison=SOME_DIFFER), "conflict_found", "conflict", Footing.LEFT_THERE),
        (verified(Agreement.BOTH_DIFFER), "conflict_found", "conflict", Footing.LEFT_THERE),
    ],
)
def test_only_a_copy_in_which_nothing_differs_is_taken_for_the_run_s(
    event: Verified, trigger: str, state: str, footing: Footing
) -> None:
    before = record("awaiting_verify", attempts=1, **LEFT_THERE)
    assert moved(before, event) == (trigger, state)
    after = step(before, event).record
    assert (after.footing, after.destination) == (footing, "Run_1")
    if state == "conflict":
        assert after.last_error is not None
        assert after.last_error.kind == "destination_occupied"
        assert after.unsealed(by="asmith").destination == "", "its place is looked for anew once an operator has acted"


def test_a_partial_copy_is_completed_and_what_is_there_stays() -> None:
    shown = step(record("awaiting_verify", **LEFT_THERE), replace(verified(), comparison=SOME_MISSING)).record
    assert shown.has_place
    assert shown.attempts == 0, "nothing failed"
    (effect,) = work(step(shown, inspected(destination=DestinationStanding.OURS, destination_path="Run_1")))
    assert isinstance(effect, Push)
    assert (effect.destination, effect.is_shown) == ("Run_1", True)
    assert moved(shown, inspected(destination=DestinationStanding.OCCUPIED)) == ("conflict_found", "conflict")


def test_the_seal_makes_the_place_the_run_s_own_and_a_change_before_it_lets_it_be_looked_for_anew() -> None:
    for footing in (Footing.LEFT_THERE, Footing.SHOWN):
        before = record("sealing", destination="Run_1", footing=footing)
        (effect,) = [e for e in entry_effects(before) if isinstance(e, Seal)]
        assert effect.is_left_there
        sealed = step(before, Sealed(TURN)).record
        assert (sealed.destination, sealed.footing) == ("Run_1", Footing.OWN)
        assert sealed.has_place
        assert step(before, RunChanged(TURN, "it changed")).record.destination == ""
    kept = step(record("running", destination="P/Runs/Run_1"), RunChanged(TURN, "it changed")).record
    assert kept.destination == "P/Runs/Run_1", "a place that is claimed is kept"


def test_a_place_that_could_not_be_asked_is_decided_anew_and_never_pushed_to() -> None:
    unasked = step(record("queued", destination=""), inspected(destination=DestinationStanding.UNASKED)).record
    assert (unasked.footing, unasked.has_place) == (Footing.OPEN, False)
    (effect,) = [e for e in entry_effects(unasked) if isinstance(e, Push)]
    assert effect.is_open
    decided = step(record("queued", destination="Run_1"), inspected(destination=DestinationStanding.UNASKED)).record
    assert decided.has_place


@pytest.mark.parametrize(
    ("state", "is_sealed", "destination", "footing"),
    [
        ("queued", False, "", Footing.OWN),
        ("acquiring", False, "", Footing.OWN),
        ("running", False, "there", Footing.OPEN),
        ("queued", True, "there", Footing.OWN),
        ("verified", True, "there", Footing.OWN),
    ],
)
def test_a_run_that_is_moved_has_another_place_until_it_is_sealed(
    state: str, is_sealed: bool, destination: str, footing: Footing
) -> None:
    after = record(state, sealed=is_sealed, destination="there").moved_to("/data/EQ/Q/Runs/Run_2", "Q")
    assert (after.destination, after.footing) == (destination, footing)


def test_what_was_proven_of_other_data_does_not_count_for_those_that_came_after() -> None:
    before = record(RunState.SEALING, verify_passes=1, passes=(proof(),), verified_at=NOW, manifest_digest="d" * 64)
    after = step(before, RunChanged(TURN, "it changed")).record
    assert after.state is RunState.ACQUIRING
    assert (after.verify_passes, after.passes, after.verified_at, after.manifest_digest) == (0, (), None, "")
