"""The engine's immutable view as the values that others get: snapshot, lanes, progress, why it is paused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from exlab_watch_agent.core.effects import Precheck, Push, Seal, Verify, Work
from exlab_watch_agent.core.gate import blocking, orphan, refusal
from exlab_watch_agent.core.snapshot import (
    Doing,
    FolderProblem,
    LaneView,
    Note,
    ObserverView,
    ProgressView,
    Snapshot,
    UnreadableView,
)
from exlab_watch_agent.core.text import printable, utc_text
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.views import EngineView, LaneNow, Told
from exlab_watch_agent.errors import NAS_UNREACHABLE
from exlab_watch_agent.ports import RunsView
from exlab_watch_agent.statechart import RunState


@dataclass(frozen=True, slots=True)
class ScannedLane:
    """What the last scan of one equipment saw; `root_problem`: why nothing is concluded from it."""

    root_problem: str | None
    runs_seen: int
    gone: int


def snapshot_of(
    engine: Engine,
    runs: RunsView,
    *,
    destinations: Mapping[str, str],
    now: datetime,
    observer: ObserverView,
    before: Mapping[str, LaneView],
    first_seen: Mapping[str, datetime],
    notes_before: Mapping[str, tuple[Note, ...]],
    config_changed_at: datetime | None,
    config_news: Note | None,
) -> Snapshot:
    """Return what the engine knows beside the records. May be called from any thread.

    `first_seen`, `config_changed_at`, `config_news`: see Snapshot. `notes_before`: by job id, what an earlier agent noted of runs
    that were not looked at since.
    """
    view = engine.view
    waiting: dict[str, str] = {}
    run_problems: dict[str, Note] = {}
    refusals: dict[str, Note] = {}
    notes = {job_id: of_run for job_id, of_run in notes_before.items() if job_id not in view.told.runs}
    unreadable: dict[str, UnreadableView] = {}
    for job_id, run in view.told.runs.items():
        if run.reason:
            waiting[job_id] = printable(run.reason)
        if run.problem:
            run_problems[job_id] = Note(run.problem.code, printable(run.problem.sentence))
        refused = refusal(run.findings)
        if refused is not None and (record := runs.get(job_id)) is not None and record.state is RunState.BLOCKED:
            refusals[job_id] = Note(refused[0].value, refused[1])
        if run.notes:
            notes[job_id] = run.notes
        if run.unreadable and (record := runs.get(job_id)) is not None:
            unreadable[printable(record.run_path)] = UnreadableView(run.unreadable, run.unreadable_looks)
    return Snapshot(
        at=now,
        lanes=lanes_of(view, destinations, before),
        observer=observer,
        progress=progress_of(engine, runs),
        waiting=waiting,
        run_problems=run_problems,
        unreadable=unreadable,
        path_problems=_folder_problems(view),
        refusals=refusals,
        notes=notes,
        config_changed_at=config_changed_at,
        config_news=config_news,
        first_seen=first_seen,
        orphans=tuple(orphan(place) for lane in view.lanes.values() for place in lane.orphans),
        refused_after_sync=_refused_after_sync(view.told, runs),
    )


def _folder_problems(view: EngineView) -> dict[str, FolderProblem]:
    """Return what looks found of folders that are not a usable run, and scans of those that are where no run can be."""
    found = [view.told.folders, *(lane.misplaced for lane in view.lanes.values())]
    return {
        printable(path): replace(folder, message=printable(folder.message))
        for folders in found
        for path, folder in folders.items()
    }


def _refused_after_sync(told: Told, runs: RunsView) -> dict[str, tuple[str, ...]]:
    """Return job id → findings that would block a run that is synced already."""
    refused = {job_id: found for job_id, run in told.runs.items() if (found := blocking(run.findings))}
    records = {job_id: runs.get(job_id) for job_id in refused}
    return {
        job_id: tuple(finding.rule_detail for finding in found)
        for job_id, found in refused.items()
        if (record := records[job_id]) is not None and record.sync_status == "synced"
    }


def lanes_of(view: EngineView, destinations: Mapping[str, str], before: Mapping[str, LaneView]) -> dict[str, LaneView]:
    """Return each equipment's view; where this agent has not asked a destination, with the wait that was left of it.

    `destinations`: equipment id → its destination root as its transport says it.
    """
    return {
        lane_id: _lane_view(lane, destinations[lane_id], before.get(lane_id)) for lane_id, lane in view.lanes.items()
    }


def _lane_view(lane: LaneNow, destination: str, before: LaneView | None) -> LaneView:
    away = lane.away
    wait = NAS_UNREACHABLE if away is None else away.wait
    view = LaneView(
        destination=destination,
        waiting_since=None if away is None else away.since,
        waiting_reason="" if away is None else away.reason,
        waiting_kind=wait.code,
        waiting_command=wait.command,
        root_problem=lane.root_problem,
        last_scan_at=lane.last_scan_at,
        last_success_at=lane.last_success_at,
        root_problem_since=lane.doubted_since,
        answered_at=lane.answered_at,
        unread_since=lane.unread_since,
    )
    if before is None or _has_asked(lane, before):
        return view
    return replace(
        view,
        waiting_since=before.waiting_since,
        waiting_reason=before.waiting_reason,
        waiting_kind=before.waiting_kind,
        waiting_command=before.waiting_command,
        answered_at=before.answered_at,
        seen_earlier=before.seen_earlier,
    )


def _has_asked(lane: LaneNow, before: LaneView) -> bool:
    """Return whether this agent knows by itself how it is with a destination that an earlier one was waiting for.

    One that was started for single runs, or works on none, asks few or none; what is not asked stays as it was found.
    """
    since = before.waiting_since
    if since is None or lane.away is not None or lane.has_asked:
        return True
    return lane.last_success_at is not None and lane.last_success_at > since


def progress_of(engine: Engine, runs: RunsView) -> dict[str, ProgressView]:
    """Return job id → what is being done with the run, and how far that is. May be called from any thread."""
    found: dict[str, ProgressView] = {}
    for job_id, now in engine.under_way().items():
        record = runs.get(job_id)
        found[job_id] = ProgressView(
            bytes_done=now.progress.bytes_done,
            files_done=now.progress.files_done,
            seconds=round(now.seconds, 1),
            doing=_doing(now.effect),
            bytes_total=record.bytes_total if record is not None else 0,
            limit_bytes_per_s=now.rate_bytes_per_s,
        )
    return found


def _doing(effect: Work) -> Doing:
    match effect:
        case Push():
            return Doing.PUSH
        case Precheck():
            return Doing.PRECHECK
        case Verify():
            return Doing.AUDIT if effect.is_audit else Doing.VERIFY
        case Seal():
            return Doing.SEAL
        case _:
            assert_never(effect)


def paused_of(engine: Engine) -> str | None:
    """Return why nothing is decided now, in one sentence with the next step; None in ordinary times."""
    pause = engine.view.pause
    return f"since {utc_text(pause.since)}: {pause.reason}" if pause is not None else None


def scanned_of(engine: Engine) -> dict[str, ScannedLane]:
    """Return equipment id → what its last scan saw."""
    return {
        lane_id: ScannedLane(lane.root_problem, lane.runs_seen, len(lane.gone))
        for lane_id, lane in engine.view.lanes.items()
    }


def lanes_that_answer(view: EngineView) -> list[str]:
    """Return the ids of the lanes whose destination is bound and could be used when it was last asked."""
    return [lane_id for lane_id, lane in view.lanes.items() if lane.is_bound and lane.away is None]
