"""What a scan saw against what is known: which runs are to be looked at, which are gone, and whether it is our root at all.

Pure, and over values that nobody changes meanwhile, so that it can be worked out beside the loop. Not here: how folders
are walked (adapters/local/scanner.py) and what follows for a run (engine/reconciling.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from exlab_watch_agent.core.discovery import RunPlace, looks_like_run
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.text import counted


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A folder in a Runs or TestRuns folder. `creation_signature` is None where it has no `creation.json`.

    `cache_signature`: how its cache folder looks (RunTree.cache_signature), None where that was not asked.
    """

    place: RunPlace
    creation_signature: FileSignature | None
    cache_signature: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one equipment's runs when a scan begins.

    `runs`: run path → signature of the `creation.json` that was last read, None when none was since the start.
    `rejected`: the same of folders that are not a usable run. `volume`: identity of the root that was last found to be
    ours, None before the first time. `accepted_volume`: the one that an operator has said to be right; `accepted_by`: the
    operator who says so of whatever is there now. `caches`: path of a sealed run → how its cache folder looked when it travelled.
    """

    runs: Mapping[str, FileSignature | None]
    rejected: Mapping[str, FileSignature]
    volume: str | None = None
    accepted_volume: str | None = None
    accepted_by: str | None = None
    caches: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Differences:
    """`changed`: path → signature of each `creation.json` that differs from the one last read, unknown runs included.

    `missing`: known paths that the scan did not find. `orphans`: run-shaped folders without `creation.json`.
    `is_any_there`: a known run is at its path. `caches`: sealed runs whose cache folder does not look as it did.
    """

    runs_total: int
    changed: Mapping[str, FileSignature]
    missing: tuple[str, ...]
    orphans: Mapping[str, RunPlace]
    is_any_there: bool
    caches: tuple[str, ...] = ()


def differences(known: Known, seen: Collection[SeenRun]) -> Differences:
    """Return what a whole listing of the equipment's runs tells that is not known yet."""
    changed: dict[str, FileSignature] = {}
    orphans: dict[str, RunPlace] = {}
    is_any_there = False
    for run in seen:
        path, signature = run.place.run_path, run.creation_signature
        if signature is None:
            if looks_like_run(run.place.leaf):
                orphans[path] = run.place
            continue
        is_known = path in known.runs
        is_any_there |= is_known
        if (known.runs[path] if is_known else known.rejected.get(path)) != signature:
            changed[path] = signature
    looks = {run.place.run_path: run.cache_signature for run in seen if run.cache_signature is not None}
    caches = tuple(path for path, look in looks.items() if known.caches.get(path, look) != look)
    paths = {run.place.run_path for run in seen}
    missing = tuple(path for path in known.runs if path not in paths)
    return Differences(len(seen), changed, missing, orphans, is_any_there, caches)


def root_doubt(
    *,
    root: str,
    equipment_id: str,
    known: Known,
    expected: Iterable[str],
    is_any_there: bool,
    is_empty: bool,
    volume: str,
) -> str | None:
    """Return why this root may not be the one that the runs are on, None when it is.

    The identity of a volume only raises the question, because it may differ after a reboot; the content answers
    it. `expected`: paths of the runs that must be somewhere (a cleaned one need not be). `is_empty`: nothing is in the
    root but hidden entries. Nothing is believed of a root in doubt, above all not that its runs are gone.
    """
    if is_any_there or known.accepted_by is not None or volume == known.accepted_volume:
        return None
    count = sum(1 for _ in expected)
    if not count:
        return None
    runs, verb = counted(count, "known run"), "is" if count == 1 else "are"
    accept = f"`exlab-watch-agent scan --accept-root {equipment_id}`"
    if is_empty:
        return (
            f"{root} is empty although {runs} {verb} expected there: mount the right volume; until then none of them "
            f"counts as gone. If it was emptied on purpose, say so with {accept}."
        )
    if known.volume is not None and volume != known.volume:
        return (
            f"{root} is not the same folder or volume as before, and none of {runs} is there: mount the right one; until "
            f"then none of them counts as gone. If this one is right, say so with {accept}."
        )
    return None
