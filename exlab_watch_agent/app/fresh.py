"""The fresh look at the folders that a command takes where no agent is there to ask. Only reads, and asks no NAS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from exlab_watch_agent.acts.inspect import inspect
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.app.build import make_transport, ports_of
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.effects import Inspect
from exlab_watch_agent.core.events import Inspection, Seen, Unseen, UnseenCode
from exlab_watch_agent.core.gate import Finding, mark_overrides, orphan, refusal
from exlab_watch_agent.core.notes import notes_of
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.reconcile import Differences, Known, differences, root_doubt
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.run_problems import ADMITTED_NOW, RUN_GONE, gone_text, is_told_as_gone
from exlab_watch_agent.core.snapshot import FolderProblem, Note, Snapshot, UnreadableView
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.statechart import CHART, RunState


def look_at(site: Site, path: str, record: RunRecord | None) -> Inspection | None:
    """Look at a run folder now; None where its equipment is not configured."""
    place, equipment = place_of(path, site.roots), site.equipment_of(path)
    if place is None or equipment is None:
        return None
    transport = make_transport(equipment, site.policy)
    ports = ports_of(equipment, site.policy, transport, state_dir=site.state_dir, clock=site.clock)
    declared = record.declared_mismatches if record is not None else ()
    return inspect(Inspect(place, declared_mismatches=declared, judges_gate=True), ports)


def look_through(site: Site) -> Snapshot:
    """Return a snapshot for where no agent has one: what is in the folders now, and the lanes as they were left."""
    view = _FolderViews()
    lanes = dict(site.snapshot.lanes)
    by_path = {record.run_path: record for record in site.records.values()}
    for equipment in site.policy.equipment:
        equipment_id = equipment.equipment_id
        of_lane = {path: record for path, record in by_path.items() if record.equipment_id == equipment_id}
        try:
            found, misplaced = _scan(site, equipment, of_lane)
        except RootUnavailableError as error:
            view.roots_away[equipment_id] = str(error)
            if equipment_id in lanes:
                lanes[equipment_id] = replace(lanes[equipment_id], root_problem=None)
            continue
        view.path_problems |= {printable(path): folder for path, folder in misplaced.items()}
        view.orphans += [orphan(place) for place in found.orphans.values()]
        missing = {of_lane[path].job_id: path for path in found.missing if is_told_as_gone(of_lane[path])}
        view.run_problems |= {job_id: Note(RUN_GONE, printable(gone_text(path))) for job_id, path in missing.items()}
        unsettled = [path for path, record in of_lane.items() if record.state in CHART.unsettled]
        for path in sorted({*found.changed, *unsettled} - {*found.missing}):
            record = of_lane.get(path)
            view.note(path, record, look_at(site, path, record), now=site.now())
    return Snapshot(
        lanes=lanes,
        roots_away=view.roots_away,
        orphans=tuple(view.orphans),
        run_problems=view.run_problems,
        path_problems=view.path_problems,
        unreadable=view.unreadable,
        refusals=view.refusals,
        first_seen=site.left.first_seen,
        notes={**site.left.notes, **view.notes},
    )


class _FolderViews:
    """Collects the parts of a snapshot."""

    def __init__(self) -> None:
        self.roots_away: dict[str, str] = {}
        self.orphans: list[Finding] = []
        self.run_problems: dict[str, Note] = {}
        self.path_problems: dict[str, FolderProblem] = {}
        self.refusals: dict[str, Note] = {}
        self.notes: dict[str, tuple[Note, ...]] = {}
        self.unreadable: dict[str, UnreadableView] = {}

    def note(self, path: str, record: RunRecord | None, result: Inspection | None, *, now: datetime) -> None:
        match result:
            case Unseen(code=UnseenCode.CREATION | UnseenCode.LEVEL):
                self.path_problems[printable(path)] = result.folder_problem()
            case Unseen(code=UnseenCode.UNREADABLE):
                self.unreadable[printable(path)] = UnreadableView(result.message)
            case Seen() if record is not None:
                overrides = result.creation.overrides
                findings = mark_overrides(result.inspected.findings, overrides, now=now)
                self.notes[record.job_id] = notes_of(findings, overrides)
                if record.state is RunState.BLOCKED:
                    refused = refusal(findings)
                    said = Note(refused[0].value, refused[1]) if refused is not None else ADMITTED_NOW
                    self.refusals[record.job_id] = said


def _scan(
    site: Site, equipment: EquipmentPolicy, of_lane: Mapping[str, RunRecord]
) -> tuple[Differences, Mapping[str, FolderProblem]]:
    """Return by the agent's own rules what is different from the records, and what is where no run can be.

    Raises: RootUnavailableError.
    """
    scanner = DiskRunScanner()
    volume = scanner.volume(equipment)
    bound = site.loaded.facts.get("volumes", {}).get(equipment.equipment_id)
    known = Known({path: record.creation_signature for path, record in of_lane.items()}, {}, bound)
    seen = scanner.scan(equipment)
    found = differences(known, seen)
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
    return found, scanner.misplaced(equipment, seen, site.policy)
