"""What can be asked and done without a running agent: status, one run in full, problems, overrides, a config file.

Where an agent runs, it is asked through its inbox; what it keeps of itself is read. What a command prints is cli's.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.adapters.state.folder_facts import dismissals_in
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.app.diary import read_week
from exlab_watch_agent.app.fresh import look_at, look_through
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.core.attention import Situation, attention
from exlab_watch_agent.core.commands import AcceptMachine, AcceptTrail, DismissProblem, Forget, LookAt
from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.events import Seen, Unseen
from exlab_watch_agent.core.facts import dismissals_of
from exlab_watch_agent.core.forgetting import is_of
from exlab_watch_agent.core.gate import Finding, Tier, mark_overrides, refusal
from exlab_watch_agent.core.notes import why_without_effect
from exlab_watch_agent.core.overrides import OverrideStanding, override_standing
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.reread import coverage
from exlab_watch_agent.core.run_problems import ADMITTED_NOW
from exlab_watch_agent.core.snapshot import Note, Snapshot
from exlab_watch_agent.core.text import printable, shell_word, unicode_text, utc_text
from exlab_watch_agent.engine.operators import AT_HOME, MACHINE_ACCEPTED, NOTHING_ON_HOLD, TRAIL_ACCEPTED, dismissed
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.report.choice import Choice
from exlab_watch_agent.report.problems import Wanted
from exlab_watch_agent.report.status import RunInFull, sentence, status_json
from exlab_watch_agent.statechart import RunState

EVERYTHING = Choice(is_all=True)

# --- reading ---------------------------------------------------------------------------------------------------------


def status(site: Site, choice: Choice = EVERYTHING) -> dict[str, Any]:
    """Return what `status --json` prints of the runs that are asked for."""
    holder = site.holder
    named = choice.named(site.records.values())
    lanes = {name: lane for name, lane in site.snapshot.lanes.items() if choice.takes_lane(name, named)}
    return status_json(
        named,
        replace(site.snapshot, lanes=lanes),
        is_running=holder is not None,
        pid=holder.pid if holder is not None else None,
        version=__version__,
        paused=site.paused,
        hold=site.hold,
        read_again=coverage(named, policy=site.policy, now=site.now()),
        listed=choice.listed(named),
    )


def choice_of(site: Site, words: Sequence[str], choice: Choice) -> Choice:
    """Return the choice, of what these words name: runs and instruments. Raises: RunNotFoundError."""
    known = {record.equipment_id for record in site.records.values()} | site.roots.keys()
    runs = frozenset(site.find_run(word)[0] for word in words if word not in known)
    return replace(choice, runs=runs, equipment=frozenset(known.intersection(words)))


def run_in_full(site: Site, word: str) -> RunInFull:
    """Return everything about one run, after a look at its folder. Raises: RunNotFoundError."""
    path, record = site.find_run(word)
    at = site.moment
    result = look_at(site, path, record)
    why = ""
    findings: tuple[Finding, ...] = ()
    if isinstance(result, Unseen):
        why = result.message
    elif isinstance(result, Seen):
        findings = mark_overrides(result.inspected.findings, result.creation.overrides, now=at.now)
        why = result.inspected.completeness.reason
    if record is None:
        why = why or f"it has not been taken up yet: {site.command('sync', shell_word(path))} does that"
        return RunInFull(path, printable(why), findings=findings)
    waits = why or site.snapshot.waiting.get(record.job_id) or _must_be_quiet(site)
    refused = refusal(findings)
    said_now = ADMITTED_NOW if refused is None else Note(refused[0].value, refused[1])
    fresh = replace(
        site.snapshot,
        waiting={**site.snapshot.waiting, record.job_id: waits},
        refusals={record.job_id: said_now} if isinstance(result, Seen) else {},
    )
    said = printable(sentence(record, fresh, at))
    if isinstance(result, Unseen) and record.state is not RunState.ACQUIRING:
        said += f"; its folder cannot be looked at now: {printable(why)}"
    return RunInFull(
        path,
        said,
        findings=_marked_where_synced(findings) if record.sync_status == "synced" else findings,
        record=record,
        snapshot=site.snapshot,
        history=site.history(record.job_id),
        extra=FolderManifestStore(StateLayout(site.state_dir).manifests).extra_files(record.job_id),
        dismissed=_not_told_of(site, record),
    )


def _not_told_of(site: Site, record: RunRecord) -> tuple[Problem, ...]:
    """Return what is not told of a run any more, because an operator said so."""
    if not dismissals_in(site.loaded.facts):
        return ()
    return tuple(one for one in find_problems(site) if one.is_dismissed and is_of(one, run_path=record.run_path))


def _must_be_quiet(site: Site) -> str:
    if site.holder is None:
        return f"it must be quiet for {site.policy.settle_s:g} s while an agent runs, and no agent is running"
    return f"it must be quiet for {site.policy.settle_s:g} s"


def _marked_where_synced(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the findings of a synced run: what would block it today was let through by an earlier policy."""
    return tuple(
        replace(finding, synced_under_prior_policy=finding.tier is Tier.HARD and not finding.override_active)
        for finding in findings
    )


def find_problems(site: Site) -> tuple[Problem, ...]:
    """Return what needs a person: from the running agent's live view, or by a fresh look where none runs."""
    return attention(situation_of(site, known_now(site)))


def known_now(site: Site) -> Snapshot:
    """Return the running agent's live view; where none runs, that of a fresh look."""
    return site.snapshot if site.holder is not None else look_through(site)


def wanted_of(site: Site, words: Sequence[str], asked: Wanted) -> Wanted:
    """Return what is asked for, of what these words name: runs, instruments, projects. Raises: RunNotFoundError."""
    known = {record.equipment_id for record in site.records.values()} | site.roots.keys()
    runs: set[str] = set()
    for word in words:
        of_project = {record.run_path for record in site.records.values() if record.project == word}
        if word not in known:
            runs |= of_project or {site.find_run(word)[0]}
    return replace(asked, runs=frozenset(runs), equipment=frozenset(known.intersection(words)))


def situation_of(site: Site, snapshot: Snapshot) -> Situation:
    """Return what is to be judged of a site, with what is known beside its records."""
    return Situation(
        at=site.moment,
        agent=site.standing,
        runs=tuple(site.records.values()),
        snapshot=snapshot,
        policy=site.policy,
        known_equipment=frozenset(site.roots) or frozenset(r.equipment_id for r in site.records.values()),
        paused=site.paused,
        hold=site.hold,
        flags=site.flags,
        week=read_week(site.state_dir),
        roots=site.roots,
        dismissals=dismissals_in(site.loaded.facts),
        has_config=site.has_config,
    )


# --- doing -----------------------------------------------------------------------------------------------------------


def accept(site: Site, command: AcceptTrail | AcceptMachine) -> str:
    """Have the state as it is counted as true, or this machine as its home; return what is to be said. Raises: AgentError."""
    if site.holder is not None:
        return site.ask_agent(command)
    if site.hold is None and isinstance(command, AcceptTrail):
        raise AgentError(NOTHING_ON_HOLD)
    require_private(site.state_dir)
    store = RunStore(site.state_dir)
    store.open()
    try:
        match command:
            case AcceptTrail():
                was_held, said, nothing = store.accept_trail, TRAIL_ACCEPTED, NOTHING_ON_HOLD
            case AcceptMachine():
                was_held, said, nothing = store.accept_machine, MACHINE_ACCEPTED, AT_HOME
        if not was_held(str(command.operator), command.reason, site.now()):
            raise AgentError(nothing)
    finally:
        store.close()
    return said


def dismiss(site: Site, command: DismissProblem | Forget) -> str:
    """Have problems listed no more; return what is to be said. Raises: AgentError."""
    if site.holder is not None:
        return site.ask_agent(command)
    require_private(site.state_dir)
    store = RunStore(site.state_dir)
    store.open()
    try:
        for fact in dismissals_of(command):
            store.note(fact, fact.by, site.now())
    finally:
        store.close()
    return dismissed(command)


# --- overrides -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListedOverride:
    """One entry of a run's `validation_overrides`. `why`: why it lets nothing through now; empty where it does."""

    run_path: str
    entry: OverrideEntry
    standing: OverrideStanding
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.entry.id,
            "problem_class": self.entry.problem_class,
            "revokes": self.entry.revokes,
            "operator": self.entry.operator,
            "recorded_at": self.entry.recorded_at,
            "expires_at": self.entry.expires_at,
            "reason": self.entry.reason,
            "standing": self.standing.value,
            "run_path": unicode_text(self.run_path),
            "why": self.why,
        }


def overrides_of(site: Site, run_path: str) -> list[ListedOverride]:
    """Return all entries of a run's `creation.json`, the newest last, each with its standing now. Raises: CreationFileError."""
    now = site.now()
    overrides = JsonCreationFiles().read(run_path).creation.overrides
    return [
        ListedOverride(
            run_path, entry, override_standing(entry, overrides, now=now), why_without_effect(entry, overrides, now=now)
        )
        for entry in overrides
    ]


def overrides_of_all(site: Site) -> tuple[list[ListedOverride], int]:
    """Return the entries of all runs that are known, by path, and of how many runs the `creation.json` could not be read."""
    found: list[ListedOverride] = []
    unread = 0
    for path in sorted(record.run_path for record in site.records.values()):
        try:
            found += overrides_of(site, path)
        except AgentError:
            unread += 1
    return found, unread


def findings_now(site: Site, run_path: str, record: RunRecord | None) -> tuple[Finding, ...] | str:
    """Return a run's findings as its folder is now, those that are overridden marked; or why they cannot be known."""
    match look_at(site, run_path, record):
        case Seen() as seen:
            return mark_overrides(seen.inspected.findings, seen.creation.overrides, now=site.now())
        case Unseen() as unseen:
            return unseen.message
        case _:
            return "its equipment is not in the config"


def add_override(
    site: Site,
    run_path: str,
    problem_class: str,
    *,
    operator: str,
    reason: str,
    now: datetime,
    expires_at: datetime | None,
) -> str:
    """Append an override, durably; return its id. Raises: AgentError when the file cannot be changed."""
    entry = {
        "id": str(uuid.uuid4()),
        "problem_class": problem_class,
        "operator": operator,
        "recorded_at": utc_text(now),
        "expires_at": utc_text(expires_at) if expires_at is not None else None,
        "reason": reason,
        "revoked": False,
    }
    _append_override(site, run_path, entry)
    return str(entry["id"])


def revoke_override(site: Site, run_path: str, override_id: str, *, operator: str, reason: str) -> None:
    """Append a tombstone. Raises: AgentError when there is no such override in force."""
    listed = overrides_of(site, run_path)
    standing = next((one.standing for one in listed if one.entry.id == override_id and one.entry.revokes is None), None)
    if standing is None:
        raise AgentError(
            f"{printable(run_path)} has no override {printable(override_id)}: "
            f"{site.command('override', 'list', shell_word(run_path))} shows them."
        )
    if standing is OverrideStanding.REVOKED:
        raise AgentError(f"The override {override_id} is revoked already.")
    entry = {
        "id": str(uuid.uuid4()),
        "revokes": override_id,
        "operator": operator,
        "recorded_at": utc_text(site.now()),
        "reason": reason,
        "revoked": True,
    }
    _append_override(site, run_path, entry)


def _append_override(site: Site, run_path: str, entry: dict[str, Any]) -> None:
    JsonCreationFiles().append_override(run_path, entry)
    if site.holder is not None:
        # The watcher sees the file as well; this makes sure where it does not.
        site.ask_agent(LookAt(operator_here(), run_path))
