"""Gathers what an auditor is given of a run or a period: from the store, the trail, the run's folder, and what the NAS knows."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.app.auditing import Audited, Wanted, search_as_written, verify_here
from exlab_watch_agent.app.diary import read_week
from exlab_watch_agent.app.offline import overrides_of, run_in_full
from exlab_watch_agent.app.shipped import shipped_text
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.core.inventory import CREATION_PATH
from exlab_watch_agent.core.manifest import ManifestError, parse_manifest
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import printable, shell_word, utc_text_exact
from exlab_watch_agent.errors import AgentError, CreationFileError, RunUnreadableError
from exlab_watch_agent.report.dossier import Dossier, FileProof
from exlab_watch_agent.report.pages import SCRIPT_NAME, ChainSummary
from exlab_watch_agent.report.period import Period
from exlab_watch_agent.report.tally import Bounds, PeriodTally
from exlab_watch_agent.report.trail import row_of
from exlab_watch_agent.statechart import CHART

_CREATION_BYTES_MAX = 4 * 1024 * 1024


def dossier_of(site: Site, word: str) -> Dossier:
    """Return everything that is known of a run. Raises: AgentError for one that is not known."""
    path, record = site.find_run(word)
    if record is None:
        raise AgentError(
            f"{printable(path)} is not known yet, so there is nothing to export: {site.command('sync', shell_word(path))}."
        )
    run = run_in_full(site, path)
    overrides = []
    with suppress(CreationFileError):
        overrides = overrides_of(site, path)
    audited = verify_here(site)
    lines = list(search_as_written(site, Wanted(job_id=record.job_id)))
    return Dossier(
        made_at=site.now(),
        made_by=str(operator_here()),
        host=socket.gethostname(),
        program=program_here(),
        record=record,
        run=run,
        creation=_creation_of(path),
        overrides=[(one.entry, one.standing) for one in overrides],
        rows=[row_of(fact) for _, fact in lines],
        files=_files_of(site, record),
        chain=_summary(audited),
        script=verify_script(),
        lines=[line for line, _ in lines],
    )


def period_of(site: Site, bounds: Bounds) -> Period:
    """Return what a period was like, by one reading of the trail. Raises: AgentError for an instrument that nobody knows."""
    known = {record.equipment_id for record in site.records.values()} | site.roots.keys()
    if bounds.equipment_id and bounds.equipment_id not in known:
        raise AgentError(
            f"No instrument is called {printable(bounds.equipment_id)}: those that are known are "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    now = site.now()
    ends_at = min(now, datetime.fromisoformat(bounds.until)) if bounds.until else now
    tally = PeriodTally(bounds)
    audited = verify_here(site, tally)
    lanes = site.snapshot.lanes if ends_at == now else {}
    return Period(
        made_at=now,
        made_by=str(operator_here()),
        host=socket.gethostname(),
        program=program_here(),
        at=ends_at,
        tally=tally,
        ended=[
            one
            for one in read_week(site.state_dir).happened
            if one.code == "outage_ended"
            and bounds.equipment_id in ("", one.equipment_id)
            and bounds.since <= utc_text_exact(one.at) < utc_text_exact(ends_at)
        ],
        waiting={
            name: (lane.waiting_since, lane.waiting_reason)
            for name, lane in lanes.items()
            if lane.waiting_since is not None and bounds.equipment_id in ("", name)
        },
        chain=_summary(audited),
        script=verify_script(),
    )


def program_here() -> dict[str, str]:
    """Return what made a report: name → version."""
    return {"exlab-watch-agent": __version__, "chart": CHART.version}


def verify_script() -> str:
    """Return the program that checks a trail by itself."""
    return shipped_text("docs", SCRIPT_NAME)


def _creation_of(run_path: str) -> Mapping[str, Any]:
    try:
        data = DiskRunTree().read_small(run_path, CREATION_PATH, limit_bytes=_CREATION_BYTES_MAX)
        members = json.loads(data)
    except (AgentError, ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _files_of(site: Site, record: RunRecord) -> list[FileProof]:
    """Return what was sealed, with the sizes that the files have here. Raises: AgentError where the manifest is lost."""
    if not record.manifest_digest:
        return []
    kept = FolderManifestStore(StateLayout(site.state_dir).manifests).load(record.job_id, digest=record.manifest_digest)
    if kept is None:
        raise AgentError(
            f"The manifest of {printable(record.run_path)} is not in {site.state_dir} any more, so its files cannot be listed: "
            f"{site.command('verify', shell_word(record.run_path))} makes it anew."
        )
    sizes: dict[str, int] = {}
    with suppress(RunUnreadableError, AgentError):
        sizes = {entry.path: entry.size_bytes for entry in DiskRunTree().inventory(record.run_path).files}
    try:
        return [FileProof(path, digest, sizes.get(path)) for path, digest in parse_manifest(kept).items()]
    except ManifestError as error:
        raise AgentError(f"The manifest of {printable(record.run_path)} cannot be read: {error}") from error


def _summary(audited: Audited) -> ChainSummary:
    chain = audited.chain
    broken = [one.found for one in (*chain.accounted, *chain.breaks)]
    return ChainSummary(
        lines=chain.lines,
        last_seq=chain.head.seq,
        last_blake3=chain.head.digest,
        known_beside=audited.beside,
        known_outside=audited.outside,
        unasked=audited.unasked,
        against=(*broken, *chain.against),
    )
