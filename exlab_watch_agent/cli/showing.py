"""What `status`, `show` and `problems` print, and the fresh look that they take where no agent is there to ask."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from exlab_watch_agent.acts.handlers import Look, LookResult, Seen, Unseen, look
from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.cache_folder import CacheFolderSealer, FolderManifestStore
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.app.agent import make_transport
from exlab_watch_agent.cli.context import Context
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import Finding, mark_overrides, orphan
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.reconcile import Differences, Known, differences, root_doubt
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import age, counted, printable, utc_text
from exlab_watch_agent.engine.scanning import gone
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.ports import Ports
from exlab_watch_agent.report.problems import (
    Moment,
    Problem,
    problems,
    problems_of_state,
    why_lane_waits,
    why_root_waits,
)
from exlab_watch_agent.report.status import counts, history_json, run_json, sentence
from exlab_watch_agent.statechart import CHART, RunState

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
        manifests=FolderManifestStore(StateLayout(context.state_dir).manifests),
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
    value["why"] = printable(sentence(record, fresh, _moment(context, now)))
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
    """Return what needs a person: from the running agent's live view, or by a fresh look where none runs."""
    return problems(
        context.records.values(),
        context.live if context.holder is not None else _looked_through(context),
        policy=context.policy,
        known_equipment=frozenset(context.roots) or frozenset(r.equipment_id for r in context.records.values()),
        at=_moment(context, now),
        paused=context.paused,
        hold=context.hold,
    )


def _looked_through(context: Context) -> dict[str, Any]:
    """Return a live view for where no agent has one: what is in the folders now, and the lanes as they were left."""
    view: dict[str, Any] = {"lanes": dict(context.live["lanes"]), "roots_away": {}, "path_problems": {}}
    view |= {"unreadable": {}, "orphans": [], "run_problems": {}}
    by_path = {record.run_path: record for record in context.records.values()}
    for equipment in context.policy.equipment:
        equipment_id = equipment.equipment_id
        of_lane = {path: record for path, record in by_path.items() if record.equipment_id == equipment_id}
        try:
            found = _scanned_now(context, equipment, of_lane)
        except RootUnavailableError as error:
            view["roots_away"][equipment_id] = str(error)
            if equipment_id in view["lanes"]:
                view["lanes"][equipment_id] = {**view["lanes"][equipment_id], "root_problem": None}
            continue
        view["orphans"] += [orphan(place).to_json() for place in found.orphans.values()]
        missing = {
            of_lane[path].job_id: path for path in found.missing if of_lane[path].state in CHART.gone_when_missing
        }
        view["run_problems"] |= {job_id: printable(gone(path)) for job_id, path in missing.items()}
        unsettled = [path for path, record in of_lane.items() if record.state in CHART.unsettled]
        for path in sorted({*found.changed, *unsettled} - {*found.missing}):
            _note(view, path, look_at(context, path, of_lane.get(path)))
    return view


def _scanned_now(context: Context, equipment: EquipmentPolicy, of_lane: Mapping[str, RunRecord]) -> Differences:
    """Return what is different from the records, by the agent's own rules. Raises: RootUnavailableError."""
    scanner = DiskRunScanner()
    volume = scanner.volume(equipment)
    bound = context.loaded.facts.get("volumes", {}).get(equipment.equipment_id)
    known = Known({path: record.creation_signature for path, record in of_lane.items()}, {}, bound)
    found = differences(known, scanner.scan(equipment))
    doubt = root_doubt(
        root=equipment_root(equipment),
        equipment_id=equipment.equipment_id,
        known=known,
        expected=(path for path, record in of_lane.items() if record.state is not RunState.CLEANED),
        is_any_there=found.is_any_there,
        is_empty=found.runs_total == 0 and scanner.is_empty(equipment),
        volume=volume,
    )
    if doubt is not None:
        raise RootUnavailableError(doubt)
    return found


def _note(view: dict[str, Any], path: str, result: LookResult | None) -> None:
    match result:
        case Unseen("creation" | "level"):
            view["path_problems"][path] = result.message
        case Unseen("unreadable"):
            view["unreadable"][printable(path)] = {"message": result.message, "looks": 1}


def print_problems(found: list[Problem]) -> None:
    if not found:
        print("nothing needs a person")
    for problem in found:
        print(f"{problem.severity.name}  {problem.subject}: {problem.message}\n    -> {problem.command}")


def print_status(context: Context) -> None:
    at = _moment(context, SystemClock().now())
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
        away = why_root_waits(lane, at)
        waits = f"waits: {away}" if away else why_lane_waits(lane, at)
        if waits or holder is not None:
            print(f"{equipment_id} -> {lane['destination']}: {waits or 'ok'}; {_scanned(lane, at.now)}")
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
            print(f"{'':<16}   {printable(sentence(record, live, at))}")


def watched(watch: Mapping[str, Any]) -> str:
    """Return in a few words how a root is watched."""
    kind = "watched by file events" if watch["kind"] == "native" else "looked through every few seconds"
    health = f"degraded: {watch['reason']}" if watch["degraded"] else watch["reason"]
    return f"{kind}, {counted(watch['watches'], 'folder')}{f'; {health}' if health else ''}"


def _moment(context: Context, now: datetime) -> Moment:
    return Moment(now, is_ended=context.holder is None)


def _scanned(lane: Mapping[str, Any], now: datetime) -> str:
    if not lane.get("last_scan_at"):
        return "not scanned yet"
    return f"last scan {age((now - datetime.fromisoformat(lane['last_scan_at'])).total_seconds())} ago"


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
