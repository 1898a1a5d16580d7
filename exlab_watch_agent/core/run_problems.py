"""What of one run needs a person: by the state in which it rests or works, and by what its last look said.

The sentence of each is the one that holds now: of a run that the gate refuses it is that of the last look, not that of the moment
at which it was refused. Not here: what of an instrument or a folder is one (attention.py), and codes and tiers (problem.py). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from exlab_watch_agent.core.gate import Rule
from exlab_watch_agent.core.incidents import Incident, IncidentKind
from exlab_watch_agent.core.notes import DANGLING, EXPIRING, MALFORMED, UNKNOWN_CLASS
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.problem import FAILED, Problem, about, command, forget
from exlab_watch_agent.core.record import LastError, RunRecord
from exlab_watch_agent.core.snapshot import Note, Snapshot
from exlab_watch_agent.core.standing import Moment
from exlab_watch_agent.core.text import counted, printable, shell_word, utc_text
from exlab_watch_agent.core.ways_out import KEEPS_CHANGING, LOCAL_CHANGED, LOCAL_MISSING, ONLY_COPY_LOST, ways_out
from exlab_watch_agent.statechart import CHART, RunState

FAILURES_TOLD = 2
"""A first failed attempt is nobody's problem while an agent goes on to the next one."""
NOT_OVERRIDDEN = frozenset(
    {Rule.MANIFEST_HASH_MISMATCH, Rule.SYMLINK_IN_RUN, Rule.SPECIAL_FILE_IN_RUN, Rule.CASE_COLLISION}
)
"""Rules whose breach is to be mended: data would be damaged or stay behind, so no override is offered."""
ADMITTED_NOW = Note("under_way", "the gate lets it through now, and the next agent that runs goes on with it")
EXPIRY_TOLD = timedelta(days=7)
OF_OVERRIDES = frozenset({MALFORMED, UNKNOWN_CLASS, EXPIRING, DANGLING})
ONLY_HERE = CHART.on_a_push | {RunState.QUEUED}
"""States of a run that is complete, on its way, and not proven yet."""
UNDER_WAY = ONLY_HERE | {RunState.ACQUIRING}
REPAIRS_TOLD_FOR = timedelta(days=7)
"""Also that somebody removed a run here."""
_IN_WORDS = {
    IncidentKind.COPY_DAMAGED: "the copy on the NAS was found damaged",
    IncidentKind.COPY_UNREADABLE: "the copy on the NAS could not be read back",
    IncidentKind.SEAL_ALTERED: "the data on the NAS were right, but the seal of the copy was not",
}
SAID_BY_LOST = frozenset({IncidentKind.COPY_DAMAGED, IncidentKind.COPY_UNREADABLE})
"""Incidents that `only_copy_lost` says already, with what they mean where nothing of the run is left here."""
RUN_GONE = "run_gone"
NO_REASON = LastError("", "no reason is known")


def of_run(record: RunRecord, snapshot: Snapshot, *, policy: Policy, at: Moment) -> Iterable[Problem]:
    """Return all that is to be told of a run whose equipment is configured; where it is gone and was never sealed, that alone."""
    note = snapshot.run_problems.get(record.job_id)
    if note is not None and note.code == RUN_GONE and not record.is_sealed:
        yield gone(record)
        return
    yield from _of_state(record, snapshot, policy=policy, at=at)
    is_lost = record.last_error is not None and record.last_error.kind == ONLY_COPY_LOST
    yield from (found for found in of_incidents(record, at) if not (is_lost and found.code in SAID_BY_LOST))
    trouble = record.seal_trouble
    # It is one problem for as long as it lasts, also while the proof is made anew for the next try.
    if trouble is not None and record.state in UNDER_WAY and trouble.times >= (FAILURES_TOLD if at.goes_on else 1):
        text = f"its seal failed {counted(trouble.times, 'time')}: {printable(trouble.message)}"
        found = _problem(record, "seal_failed", text, about("show", record.run_path), kind=trouble.kind)
        yield replace(found, since=trouble.since)
    if record.cache_stays:
        text = (
            "what changed in its .exlab-wizard is not on the NAS, which did not take it; it is tried again with each scan: "
            f"{printable(record.cache_stays)}"
        )
        found = _problem(record, "cache_not_copied", text, about("show", record.run_path))
        yield replace(found, since=record.cache_stays_since)
    if note is not None:
        yield _problem(record, note.code, printable(note.sentence), about("show", record.run_path), is_dated=False)
    if details := snapshot.refused_after_sync.get(record.job_id):
        text = "; ".join(printable(detail) for detail in details)
        yield _problem(record, "synced_under_prior_policy", text, about("show", record.run_path), is_dated=False)
    for note in snapshot.notes.get(record.job_id, ()):
        if note.due is None or _is_near(note.due, record, at):
            yield _problem(record, note.code, printable(note.sentence), _shows(note, record), is_dated=False)


def is_told_as_gone(record: RunRecord) -> bool:
    """Whether it is told of this run that its folder is missing. What a sealed one needs, its failure or conflict says already."""
    rests = (RunState.FAILED, RunState.CONFLICT)
    return record.state in CHART.gone_when_missing and not (record.is_sealed and record.state in rests)


def gone_text(run_path: str) -> str:
    """Return what is said of a run whose folder is gone although it was not synced."""
    return f"{run_path} is gone: put it back, or have it forgotten if it was removed on purpose"


def gone(record: RunRecord) -> Problem:
    """Return that the folder of this run is gone, and that no copy of it was ever sealed."""
    found = _problem(
        record, RUN_GONE, printable(gone_text(record.run_path)), forget(shell_word(record.run_path)), is_dated=False
    )
    return replace(found, is_beyond_mending=True, occurrence=f"turn {record.turn}")


def is_nothing_here(record: RunRecord) -> bool:
    """Return whether nothing is left here of a sealed run from which its copy could be repaired, as far as is known.

    Of a run that is back `gone_at` stays until it is proven (RunRecord.returned), so that it alone does not tell.
    """
    is_lost = (
        record.state is RunState.CONFLICT and record.last_error is not None and record.last_error.kind == ONLY_COPY_LOST
    )
    return record.state is RunState.CLEANED or (is_lost and record.gone_at is not None)


def _deeds_for_lost(run_path: str) -> str:
    """Return the first and the last thing that can end the loss of an only copy: the data come back, or nobody has them."""
    ways = ways_out(ONLY_COPY_LOST, run_path)
    return f"{ways[0].deed}, {ways[-1].deed}"


def _lost(record: RunRecord) -> str:
    """Return what tells this loss of the only copy from another one: no pass is possible while it lasts."""
    damages = [one.id for one in record.incidents if not one.is_healed]
    return ", ".join([f"since {utc_text(record.verified_at)}" if record.verified_at is not None else "", *damages])


def _is_near(due: datetime, record: RunRecord, at: Moment) -> bool:
    """Whether an override lapses soon enough to be told: of a run that is still here."""
    return record.state is not RunState.CLEANED and timedelta(0) < due - at.now <= EXPIRY_TOLD


def _shows(note: Note, record: RunRecord) -> str:
    """Return the command that shows more of a note."""
    if note.code in OF_OVERRIDES:
        return command("override", "list", shell_word(record.run_path))
    return about("show", record.run_path)


def of_incidents(record: RunRecord, at: Moment) -> Iterable[Problem]:
    """Return what was proven wrong with the copy: each incident that is not healed, and the repairs of the last week."""
    for one in record.incidents:
        what = f"{_IN_WORDS[one.kind]} on {utc_text(one.found_at)}: {printable(one.what)}"
        show = about("show", record.run_path)
        if one.healed_at is None:
            found = _problem(record, one.kind.value, f"{what}; it is not repaired yet", show)
            is_lost = is_nothing_here(record)
            yield replace(found, since=one.found_at, detail={"incident": one.id}, is_beyond_mending=is_lost)
        elif at.now - one.healed_at <= REPAIRS_TOLD_FOR:
            found = _problem(record, "repaired", f"{what}; {_end_of(one)}", show)
            yield replace(found, since=one.healed_at, detail={"incident": one.id})


def _end_of(one: Incident) -> str:
    """Return how an incident ended, and when."""
    assert one.healed_at is not None, "one that ended"
    if one.replaced_by:
        return f"{printable(one.replaced_by)} let the local data take its place, which were proven on {utc_text(one.healed_at)}"
    return f"it was right again on {utc_text(one.healed_at)}"


def _problem(
    record: RunRecord, code: str, sentence: str, helps: str, *, kind: str = "", is_dated: bool = True
) -> Problem:
    """Return a problem of a run. `is_dated`: it lasts since the run entered its state."""
    return Problem(
        code,
        record.run_path,
        sentence,
        helps,
        record.equipment_id,
        (record.run_path,),
        record.entered_at if is_dated else None,
        {"kind": kind} if kind else {},
    )


def _of_state(record: RunRecord, snapshot: Snapshot, *, policy: Policy, at: Moment) -> Iterable[Problem]:
    """Return what is wrong with a run by the state in which it rests or works: one thing at most."""
    path, show = record.run_path, about("show", record.run_path)
    error = record.last_error or NO_REASON
    message = printable(error.message)
    match record.state:
        case RunState.VERIFIED | RunState.CLEANUP_ELIGIBLE | RunState.CLEANED if error.kind == ONLY_COPY_LOST:
            # A cleaned run is compared with its copy once it was seen that there are data again, any other when it is asked for.
            helps = about("sync" if record.state is RunState.CLEANED else "verify", path)
            text = f"{message}. What can end it: {_deeds_for_lost(path)}"
            yield replace(_problem(record, error.kind, text, helps), is_beyond_mending=True, occurrence=_lost(record))
        case RunState.CONFLICT:
            ways = ways_out(error.kind, path, detail=error.detail)
            is_since = error.kind in (LOCAL_CHANGED, LOCAL_MISSING)
            so = f"since it was proven: {message}" if is_since else message
            is_lost = error.kind == ONLY_COPY_LOST and is_nothing_here(record)
            deed = _deeds_for_lost(path) if is_lost else ways[0].deed if ways else ""
            text = f"{so.rstrip('.')}. What can end it: {deed}" if ways else so
            found = _problem(record, error.kind or "conflict", text, ways[0].command if ways else show)
            yield replace(found, is_beyond_mending=True, occurrence=_lost(record)) if is_lost else found
        case RunState.FAILED if record.is_cancelled:
            text = f"{message.rstrip('.')} ({utc_text(record.entered_at)}): it stays so, also where it changes, until it is retried"
            yield _problem(record, FAILED, text, about("retry", path), kind=error.kind)
        case RunState.FAILED:
            yield _problem(record, FAILED, message, about("retry", path), kind=error.kind)
        case RunState.BLOCKED:
            refusal = refusal_of(record, snapshot)
            yield _problem(record, refusal.code, printable(refusal.sentence), _lets_through(record, refusal))
        case RunState.ACQUIRING if at.now - record.entered_at > timedelta(seconds=policy.stale_s):
            missing = snapshot.waiting.get(record.job_id) or "`show` says what is missing"
            text = f"not complete since {utc_text(record.entered_at)}: {missing}"
            yield _problem(record, "stale", text, show)
        case state if state in CHART.tells_attempts and _has_failed(record, at):
            helps = about("retry", path) if state is RunState.QUEUED else show
            text = printable(failed_attempt(record, at))
            yield _problem(record, "attempt_failed", text, helps, kind=error.kind)
        case RunState.QUEUED if at.is_ended and (reason := snapshot.waiting.get(record.job_id)):
            yield _problem(record, "under_way", f"still queued and not pushed: {printable(reason)}", show)
        case RunState.SEALING if record.seal_trouble is None and _has_failed(record, at):  # of an earlier version
            yield _problem(record, "seal_failed", message, show, kind=error.kind)
        case state if state in ONLY_HERE and not record.is_sealed and _is_unproven(record, policy, at):
            since = record.enqueued_at or record.entered_at
            text = f"it has been complete since {utc_text(since)} and is only on this PC: see what it waits for"
            yield replace(_problem(record, "unproven", text, show), since=since)
        case RunState.CLEANED if record.last_error is not None:
            text = f"the only copy could not be looked at: {message}"
            yield _problem(record, "audit_failed", text, about("verify", path), kind=error.kind)
        case RunState.CLEANED if record.gone_at is not None and at.now - record.gone_at <= REPAIRS_TOLD_FOR:
            text = (
                f"somebody removed this run here before {utc_text(record.gone_at)}; the NAS has the only copy, and "
                f"{counted(record.files_total, 'file')} there {'was' if record.files_total == 1 else 'were'} found right"
            )
            yield replace(_problem(record, "removed_by_others", text, show), since=record.gone_at)
        case RunState.VERIFIED | RunState.AUDITING | RunState.CLEANUP_ELIGIBLE if error.kind == KEEPS_CHANGING:
            since = record.verified_at or record.entered_at
            text = (
                f"it was not proven whole since {utc_text(since)}: {message}; what did not change was compared. End the program "
                "that writes there"
            )
            yield replace(_problem(record, error.kind, text, about("verify", path)), since=since)
        case RunState.VERIFIED if record.last_error is not None:
            text = f"the last verify pass could not be finished: {message}"
            yield _problem(record, "audit_failed", text, about("verify", path), kind=error.kind)


def _is_unproven(record: RunRecord, policy: Policy, at: Moment) -> bool:
    return at.now - (record.enqueued_at or record.entered_at) > timedelta(seconds=policy.unproven_s)


def _has_failed(record: RunRecord, at: Moment) -> bool:
    """Whether a failed attempt is told: once it failed again, and at once where nothing follows by itself."""
    return record.last_error is not None and record.attempts >= (FAILURES_TOLD if at.goes_on else 1)


def refusal_of(record: RunRecord, snapshot: Snapshot) -> Note:
    """Return why the gate refuses a run: what its last look said, and where there was none, what was said when it was refused."""
    error = record.last_error or LastError(RunState.BLOCKED, CHART.states[RunState.BLOCKED].meaning)
    return snapshot.refusals.get(record.job_id, Note(error.kind, error.message))


def _lets_through(record: RunRecord, refusal: Note) -> str:
    if refusal.code == ADMITTED_NOW.code:
        return command("run")
    if refusal.code in NOT_OVERRIDDEN:
        return about("show", record.run_path)
    return command("override", "add", shell_word(record.run_path), "--class", refusal.code, "--reason", '"..."')


def failed_attempt(record: RunRecord, at: Moment) -> str:
    """Return which attempt failed, why, and what comes next."""
    error = (record.last_error or NO_REASON).message.rstrip(".")
    due = record.next_attempt_at
    if not at.goes_on:
        when = f", not before {utc_text(due)}" if due is not None and due > at.now else ""
        following = f"the next `{command('run')}` tries it again{when}"
    elif record.state is not RunState.QUEUED:
        following = "it is being tried again"
    else:
        following = f"next attempt at {utc_text(due)}" if due is not None and due > at.now else "the next one is due"
    return f"attempt {record.attempts} failed: {error}; {following}"
