"""What `status`, `show` and `problems` print for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.core.attention import of_agent, why_lane_waits, why_root_waits, with_flags
from exlab_watch_agent.core.incidents import Incident
from exlab_watch_agent.core.problem import command, verdict
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.reread import coverage
from exlab_watch_agent.core.snapshot import LaneView, ObserverView, RootHealth
from exlab_watch_agent.core.text import age, counted, human_bytes, printable
from exlab_watch_agent.report.choice import Choice
from exlab_watch_agent.report.problems import need_a_person
from exlab_watch_agent.report.progress import progress_text
from exlab_watch_agent.report.status import (
    FINDINGS_SHOWN_MAX,
    RunInFull,
    counts,
    coverage_text,
    history_json,
    only_here,
    proofs_past_cache,
    sentence,
    time_text,
)

EXTRA_SHOWN_MAX = 3


# --- status ----------------------------------------------------------------------------------------------------------


def print_status(site: Site, choice: Choice) -> None:
    """Print the verdict, the lanes, and the runs that are asked for: without more words those that are not at their goal."""
    at, holder, snapshot = site.moment, site.holder, site.snapshot
    found = offline.find_problems(site)
    say(verdict(found))
    if need_a_person(found):
        say(f"    -> {with_flags(command('problems'), site.flags)}")
    if hidden := sum(problem.is_dismissed for problem in found):
        verb = "is" if hidden == 1 else "are"
        say(
            f"{counted(hidden, 'problem')} {verb} dismissed or forgotten: {with_flags(command('problems', '--all'), site.flags)}"
        )
    if holder is not None:
        version, pid, since = holder.version or "?", holder.pid or "?", holder.since or "?"
        say(f"agent {version} is running, pid {pid}, since {since}")
    runs = choice.named(site.records.values())
    if here := only_here(runs, now=at.now):
        say(here)
    for problem in of_agent(offline.situation_of(site, snapshot)):
        say(problem.sentence)
        say(f"    -> {with_flags(problem.command, site.flags)}")
    for equipment_id, lane in sorted(snapshot.lanes.items()):
        if not choice.takes_lane(equipment_id, runs):
            continue
        away = why_root_waits(lane, at)
        waits = f"waits: {away}" if away else why_lane_waits(lane, at)
        if waits or holder is not None:
            say(f"{equipment_id} -> {lane.destination}: {waits or _answered(lane, at.now)}; {_scanned(lane, at.now)}")
        health = snapshot.observer.roots.get(equipment_id) if snapshot.observer is not None else None
        if health is not None:
            say(f"{'':<{len(equipment_id)}}    {_watched(health)}")
    if snapshot.observer is not None:
        say(_observed(snapshot.observer))
    say(", ".join(f"{count} {state}" for state, count in counts(runs).items()) or "no runs are known")
    read_again = coverage(runs, policy=site.policy, now=at.now)
    if text := coverage_text(read_again, days=site.policy.reread_s / 86_400):
        say(text)
    listed = choice.listed(runs)
    for record in listed:
        say(f"{record.state:<16} {printable(record.run_path)}  ({_amount(record)})")
        if (progress := snapshot.progress.get(record.job_id)) is not None:
            say(f"{'':<16}   {progress_text(progress)}")
        if record.state.value not in ("verified", "cleaned"):
            say(f"{'':<16}   {printable(sentence(record, snapshot, at))}")
    if more := len(replace(choice, limit=None, is_all=True).listed(runs)) - len(listed):
        say(
            f"{counted(more, 'more run')}, whose state changed before: a higher --limit lists {'them' if more > 1 else 'it'}"
        )


def _observed(observer: ObserverView) -> str:
    allowed = f", {observer.watches_allowed} watches allowed" if observer.watches_allowed else ""
    health = "degraded, see `exlab-watch-agent problems`" if observer.is_degraded else "ok"
    return f"file watcher ({observer.kind}): {health}, replaced {counted(observer.restarts, 'time')}{allowed}"


def _watched(health: RootHealth) -> str:
    """Return in a few words how a root is watched."""
    kind = "watched by file events" if health.kind == "native" else "looked through every few seconds"
    said = f"degraded: {health.reason}" if health.is_degraded else health.reason
    return f"{kind}, {counted(health.watches, 'folder')}{f'; {said}' if said else ''}"


def _scanned(lane: LaneView, now: datetime) -> str:
    if lane.last_scan_at is None:
        return "not scanned yet"
    return f"last scan {age((now - lane.last_scan_at).total_seconds())} ago"


def _answered(lane: LaneView, now: datetime) -> str:
    """Return how it is with a destination that nothing waits for: quiet is no answer."""
    if lane.answered_at is None:
        return "not asked yet"
    return f"ok, answered {age((now - lane.answered_at).total_seconds())} ago"


def _amount(record: RunRecord) -> str:
    return f"{counted(record.files_total, 'file')}, {human_bytes(record.bytes_total)}"


# --- one run ---------------------------------------------------------------------------------------------------------


def print_run(run: RunInFull, overrides: Sequence[str] = ()) -> None:
    """Print what is known of a run. `overrides`: one line each, who let it through and why."""
    say(printable(run.run_path))
    record = run.record
    say(f"  state        {record.state if record is not None else 'not known yet'}: {run.why}")
    if record is not None:
        _print_record(record)
        for one in record.incidents:
            say(f"  incident     {time_text(one.found_at)}  {one.kind} ({_end_of(one)}): {printable(one.what)}")
    for problem in run.dismissed:
        said = problem.detail
        say(
            f"  not told     {problem.code}, as {printable(said['dismissed_by'])} said: {printable(said['dismissed_reason'])}"
        )
    for way in run.ways_out:
        say(f"  way out      {way}")
    if run.extra.files_total:
        names = ", ".join(run.extra.paths[:EXTRA_SHOWN_MAX])
        more = ", ..." if run.extra.files_total > EXTRA_SHOWN_MAX else ""
        files = counted(run.extra.files_total, "file")
        say(
            f"  extra        {files} at the destination that the run does not have, and that are left alone: {names}{more}"
        )
    for finding in run.findings[:FINDINGS_SHOWN_MAX]:
        mark = "overridden" if finding.override_active else finding.tier.value
        if finding.synced_under_prior_policy:
            mark += ", synced under prior policy"
        say(f"  finding      {finding.rule.value} ({mark}): {finding.rule_detail}")
    for line in overrides:
        say(f"  override     {line}")
    for move in history_json(run.history):
        operator = f" by {move['operator']}" if move["operator"] else ""
        say(f"  {move['at']}  {move['from'] or 'new'} -> {move['to']}{operator}: {move['reason']}")


def _passes_text(record: RunRecord) -> str:
    if not record.verify_passes or record.verified_at is None:
        return "0"
    text = f"{record.verify_passes}, last {time_text(record.verified_at)}"
    if record.passes:
        text += f" by {record.passes[-1].remote}; {len(proofs_past_cache(record))} past the caches of this PC"
    return text


def _end_of(one: Incident) -> str:
    if not one.is_healed:
        return "not healed"
    chosen = f" with other data, as {printable(one.replaced_by)} chose," if one.replaced_by else ""
    return f"right again {time_text(one.healed_at)}{chosen} by pass {one.healed_by}"


def _print_record(record: RunRecord) -> None:
    say(f"  job          {record.job_id}")
    say(f"  equipment    {record.equipment_id}, project {printable(record.project)}, {record.run_kind}")
    say(f"  data         {counted(record.files_total, 'file')}, {human_bytes(record.bytes_total)}")
    say(f"  destination  {printable(record.destination) or '-'}")
    say(f"  passes       {_passes_text(record)}")
    if record.last_error is not None:
        say(f"  last error   {record.last_error.kind}: {printable(record.last_error.message)}")
        if record.last_error.detail:
            say(f"      {record.last_error.detail}")
