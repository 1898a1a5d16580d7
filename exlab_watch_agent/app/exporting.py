"""Gathers what an auditor is given of a run: from the store, the trail, the run's folder, and what the NAS knows of the trail."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.app.auditing import Audited, Wanted, search, verify_here
from exlab_watch_agent.app.offline import overrides_of, run_in_full
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.core.inventory import CREATION_PATH
from exlab_watch_agent.core.manifest import ManifestError, parse_manifest
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import printable, shell_word
from exlab_watch_agent.errors import AgentError, CreationFileError, RunUnreadableError
from exlab_watch_agent.report.dossier import ChainSummary, Dossier, FileProof
from exlab_watch_agent.report.trail import row_of
from exlab_watch_agent.statechart import CHART

_CREATION_BYTES_MAX = 4 * 1024 * 1024


def dossier_of(site: Site, word: str) -> Dossier:
    """Return everything that is known of a run. Raises: AgentError for one that is not known."""
    path, record = site.find_run(word)
    if record is None:
        raise AgentError(
            f"{printable(path)} is not known yet, so there is nothing to export: `exlab-watch-agent sync {shell_word(path)}`."
        )
    run = run_in_full(site, path)
    overrides = []
    with suppress(CreationFileError):
        overrides = overrides_of(site, path)
    audited = verify_here(site)
    return Dossier(
        made_at=site.now(),
        made_by=str(operator_here()),
        host=socket.gethostname(),
        program={"exlab-watch-agent": __version__, "chart": CHART.version},
        record=record,
        run=run,
        creation=_creation_of(path),
        overrides=overrides,
        rows=[row_of(fact) for fact in search(site, Wanted(job_id=record.job_id))],
        files=_files_of(site, record),
        chain=_summary(audited),
    )


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
            f"`exlab-watch-agent verify {shell_word(record.run_path)}` makes it anew."
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
