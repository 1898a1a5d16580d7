"""What `status`, `show` and `problems` print, and the fresh look that they take where no agent is there to ask."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.clock import SystemClock, utc_text
from exlab_watch_agent.adapters.creation_json import JsonCreationFiles
from exlab_watch_agent.adapters.digests import LocalDigester
from exlab_watch_agent.adapters.scanner import DiskRunScanner
from exlab_watch_agent.adapters.seal import CacheFolderSealer, FolderManifestStore
from exlab_watch_agent.adapters.tree import DiskRunTree
from exlab_watch_agent.agent import make_transport
from exlab_watch_agent.cli.context import Context
from exlab_watch_agent.core.discovery import looks_like_run, place_of
from exlab_watch_agent.core.gate import Finding, mark_overrides, orphan, printable
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.words import counted
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.handlers import Look, LookResult, Seen, Unseen, look
from exlab_watch_agent.ports import Ports
from exlab_watch_agent.report.status import (
    Problem,
    Severity,
    counts,
    history_json,
    problems,
    problems_of_state,
    rank,
    run_json,
    sentence,
)
from exlab_watch_agent.statechart import RunState

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
SHOWN_FINDINGS_MAX = 100


def look_at(context: Context, path: str, record: RunRecord | None) -> LookResult | None:
    """Look at a run folder now, reading only; None where its equipment is not configured."""
    place = place_of(path, context.roots)
    equipment = next(
        (e for e in context.policy.equipment if place is not None and e.equipment_id == place.equipment_id), None
    )
    if place is None or equipment is None:
        return None
    transport = make_transport(equipment, context.policy)
    ports = Ports(
        clock=SystemClock(),
        tree=DiskRunTree(),
        creations=JsonCreationFiles(),
        digester=LocalDigester(),
        transport=transport,
        manifests=FolderManifestStore(context.state_dir / "manifests"),
        sealer=CacheFolderSealer(),
        equipment=equipment,
        policy=context.policy,
        apartness=ProbedApartness(equipment, transport, SystemClock()),
        binding=lambda: None,
        trail_head=dict,
    )
    declared = record.declared_mismatches if record is not None else ()
    return look(Look(place, declared_mismatches=declared, judges_gate=True), ports)


def run_in_full(context: Context, word: str) -> dict[str, Any]:
    """Return what `show --json` prints. Raises: RunNotFoundError."""
    path, record = context.find_run(word)
    now = SystemClock().now()
    result = look_at(context, path, record)
    why = ""
    findings: tuple[Finding, ...] = ()
    if isinstance(result, Unseen):
        why = result.message
    elif isinstance(result, Seen):
        findings = mark_overrides(result.inspected.findings, result.creation.overrides, now=now)
        why = result.inspected.completeness.reason
    if record is None:
        why = why or "it has not been taken up yet: `exlab-watch-agent run` or `sync` does that"
        return {
            "job_id": "",
            "run_path": printable(path),
            "state": None,
            "why": printable(why),
            "history": [],
            "findings": _findings_json(findings),
        }
    waiting = context.live.get("waiting", {})
    fresh = {
        **context.live,
        "waiting": {
            record.job_id: why or waiting.get(record.job_id) or _not_running(context),
            **_but(waiting, record.job_id),
        },
    }
    value = run_json(record, context.live)
    value["why"] = printable(sentence(record, fresh, now=now))
    if isinstance(result, Unseen) and record.state is not RunState.ACQUIRING:
        value["why"] += f"; its folder cannot be looked at now: {printable(why)}"
    value["progress"] = context.live.get("progress", {}).get(record.job_id)
    value["last_error_detail"] = printable(record.last_error.detail) if record.last_error is not None else ""
    value["history"] = history_json(context.history(record.job_id))
    value["findings"] = _findings_json(findings, is_synced=record.sync_status == "synced")
    return value


def _but(waiting: Mapping[str, str], job_id: str) -> dict[str, str]:
    return {key: text for key, text in waiting.items() if key != job_id}


def _not_running(context: Context) -> str:
    if context.holder is None:
        return f"it must be quiet for {context.policy.settle_s:g} s while the agent runs, and none does"
    return f"it must be quiet for {context.policy.settle_s:g} s"


def _findings_json(findings: tuple[Finding, ...], *, is_synced: bool = False) -> list[dict[str, Any]]:
    listed = [finding.to_json() for finding in findings[:SHOWN_FINDINGS_MAX]]
    for entry in listed:
        is_refusal = entry["tier"] == "hard" and not entry["override_active"]
        entry["synced_under_prior_policy"] = is_synced and is_refusal
    return listed


def find_problems(context: Context, *, now: datetime) -> list[Problem]:
    """Return what needs a person: from the running agent's live view, or by a fresh scan where none runs."""
    live = context.live
    orphans: list[Finding] = []
    path_problems: dict[str, str] = dict(live.get("path_problems", {}))
    extra: list[Problem] = []
    if context.holder is None:
        known = {record.run_path for record in context.records.values()}
        for equipment in context.policy.equipment:
            try:
                seen_runs = DiskRunScanner().scan(equipment)
            except RootUnavailableError as error:
                extra.append(
                    Problem(
                        Severity.WAITING,
                        "root_unavailable",
                        equipment.equipment_id,
                        str(error),
                        "exlab-watch-agent check",
                    )
                )
                continue
            for seen in seen_runs:
                if seen.creation_signature is None and looks_like_run(seen.place.leaf):
                    orphans.append(orphan(seen.place))
                elif seen.creation_signature is not None and seen.place.run_path not in known:
                    result = look_at(context, seen.place.run_path, None)
                    if isinstance(result, Unseen) and result.code == "creation":
                        path_problems[seen.place.run_path] = result.message
    for entry in live.get("orphans", ()):
        extra.append(
            Problem(Severity.NOTICE, entry["rule"], entry["run_path"], entry["rule_detail"], "see the message")
        )
    found = problems(
        context.records.values(),
        live,
        orphans=orphans,
        path_problems=path_problems,
        policy=context.policy,
        known_equipment=frozenset(context.roots) or frozenset(r.equipment_id for r in context.records.values()),
        now=now,
    )
    extra += problems_of_state(paused=context.paused, hold=context.hold)
    return sorted({*found, *extra}, key=rank)


def print_problems(found: list[Problem]) -> None:
    if not found:
        print("nothing needs a person")
    for problem in found:
        print(f"{problem.severity.name}  {problem.subject}: {problem.message}\n    -> {problem.command}")


def print_status(context: Context) -> None:
    now = SystemClock().now()
    holder, live = context.holder, context.live
    if holder is None:
        print("no agent is running")
    else:
        print(
            f"agent {holder.get('version', '?')} is running, pid {holder.get('pid', '?')}, since {holder.get('since', '?')}"
        )
    for problem in problems_of_state(paused=context.paused, hold=context.hold):
        print(f"{problem.message}\n    -> {problem.command}")
    for equipment_id, lane in sorted(live.get("lanes", {}).items()):
        state = "ok"
        if lane.get("root_problem"):
            state = f"waits: {lane['root_problem']}"
        elif lane.get("waiting_since"):
            state = f"NAS unreachable since {lane['waiting_since']}: {lane['waiting_reason']}"
        scanned = lane.get("last_scan_at")
        age = f"last scan {_age(scanned, now)} ago" if scanned else "not scanned yet"
        print(f"{equipment_id} -> {lane['destination']}: {state}; {age}")
        watch = (live.get("observer") or {}).get("roots", {}).get(equipment_id)
        if watch:
            print(f"{'':<{len(equipment_id)}}    {watched(watch)}")
    observer = live.get("observer")
    if observer:
        allowed = f", {observer['watches_allowed']} watches allowed" if observer.get("watches_allowed") else ""
        health = "degraded, see `exlab-watch-agent problems`" if observer.get("degraded") else "ok"
        print(f"file watcher ({observer['kind']}): {health}, replaced {counted(observer['restarts'], 'time')}{allowed}")
    runs = sorted(context.records.values(), key=lambda record: record.run_path)
    print(", ".join(f"{count} {state}" for state, count in counts(runs).items()) or "no runs are known")
    for record in runs:
        print(f"{record.state:<16} {printable(record.run_path)}  ({_amount(record, live)})")
        if record.state.value not in ("verified", "cleaned"):
            print(f"{'':<16}   {printable(sentence(record, live, now=now))}")


def watched(watch: Mapping[str, Any]) -> str:
    """Return in a few words how a root is watched."""
    kind = "watched by file events" if watch["kind"] == "native" else "looked through every few seconds"
    health = f"degraded: {watch['reason']}" if watch["degraded"] else watch["reason"]
    return f"{kind}, {counted(watch['watches'], 'folder')}{f'; {health}' if health else ''}"


def _age(moment: str, now: datetime) -> str:
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _amount(record: RunRecord, live: Mapping[str, Any]) -> str:
    amount = f"{counted(record.files_total, 'file')}, {human_bytes(record.bytes_total)}"
    progress = live.get("progress", {}).get(record.job_id)
    if not progress or not record.bytes_total or not progress.get("seconds"):
        return amount
    done, seconds = int(progress["bytes_done"]), float(progress["seconds"])
    rate = done / seconds
    left = f", {int((record.bytes_total - done) / rate)} s left" if rate > 0 else ""
    share = f"{100 * done // record.bytes_total} % in {progress['files_done']} files"
    return f"{amount}; {share}, {human_bytes(rate)}/s{left}"


def human_bytes(amount: float) -> str:
    """Return an amount in the largest unit in which it is at least 1."""
    unit = 0
    while amount >= 1024 and unit < len(UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{amount:.0f} {UNITS[unit]}" if unit == 0 else f"{amount:.1f} {UNITS[unit]}"


def print_run(value: Mapping[str, Any]) -> None:
    print(value["run_path"])
    print(f"  state        {value['state'] or 'not known yet'}: {value['why']}")
    if value["state"]:
        print(f"  job          {value['job_id']}")
        print(f"  equipment    {value['equipment_id']}, project {value['project']}, {value['run_kind']}")
        print(f"  data         {counted(value['files_total'], 'file')}, {human_bytes(value['bytes_total'])}")
        print(f"  destination  {value['destination'] or '-'}")
        print(f"  passes       {value['verify_passes']}, last {value['verified_at'] or '-'}")
        if value["last_error"]:
            print(f"  last error   {value['last_error']['kind']}: {value['last_error']['message']}")
        if value["last_error_detail"]:
            print(textwrap.indent(value["last_error_detail"], "      "))
    for finding in value["findings"]:
        mark = "overridden" if finding["override_active"] else finding["tier"]
        if finding["synced_under_prior_policy"]:
            mark += ", synced under prior policy"
        print(f"  finding      {finding['rule']} ({mark}): {finding['rule_detail']}")
    for move in value["history"]:
        operator = f" by {move['operator']}" if move["operator"] else ""
        print(f"  {move['at']}  {move['from'] or 'new'} -> {move['to']}{operator}: {move['reason']}")


__all__ = [
    "find_problems",
    "human_bytes",
    "look_at",
    "print_problems",
    "print_run",
    "print_status",
    "run_in_full",
    "utc_text",
]
