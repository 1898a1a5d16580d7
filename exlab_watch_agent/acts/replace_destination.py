"""Looks at a root that is to take the place of the bound one, and tells of a proven run whether a copy of it is left anywhere."""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress

from exlab_watch_agent.core.effects import ReplaceDestination, SealedCopy, SealedRun
from exlab_watch_agent.core.events import BindingRefused, Replaced
from exlab_watch_agent.core.manifest import ManifestError, parse_manifest
from exlab_watch_agent.errors import AgentError, SourceChangedError
from exlab_watch_agent.ports import ManifestStore, Ports, RunTree


def replace_destination(effect: ReplaceDestination, ports: Ports) -> Replaced | BindingRefused:
    """Return the id of the root's marker, placed now where there was none, and which runs have no data here; or why not.

    The marker comes last: whatever cannot be told before leaves the root as it was.
    """
    try:
        ports.require_root()  # of an instrument's disk that is away, every run would seem to have no data here
        without_data = [run for run in effect.sealed if is_short_here(run, ports.tree, ports.manifests)]
        ports.apartness.require_root(is_first=True)
        lost = [run for run in without_data if is_missing(run, ports)]
        marker_id = ports.transport.bind(known_marker_id=None)
        ports.require_root()
    except AgentError as error:
        return BindingRefused(str(error))
    return Replaced(marker_id, frozenset(run.job_id for run in without_data), frozenset(run.job_id for run in lost))


def is_short_here(run: SealedRun, tree: RunTree, manifests: ManifestStore) -> bool:
    """Return whether not all data files of a sealed run are here, by the names in its manifest; by whether there is anything where
    no manifest is kept. Raises: RunUnreadableError where the folder is there and cannot be listed."""
    if not tree.has_data(run.run_path):
        return True
    names = _sealed_names(run, manifests)
    if names is not None:
        with suppress(SourceChangedError):
            return not names <= {entry.path for entry in tree.inventory(run.run_path).files}
    return False


def is_missing(copy: SealedCopy, ports: Ports) -> bool:
    """Return whether this sealed copy is not there, by the names in its manifest, or by its claim where no manifest is kept.

    That it is whole, only hashes show. Raises: TransportError where it cannot be asked for.
    """
    names = _sealed_names(copy, ports.manifests)
    if names is not None:
        return not names <= ports.transport.listing(copy.destination).keys()
    found = ports.transport.look(copy.destination)
    return found.claim is None or found.sealed_as != copy.manifest_digest


def _sealed_names(copy: SealedCopy, manifests: ManifestStore) -> Set[str] | None:
    """Return the paths of the data files that a copy was sealed with; None where its manifest is not kept here."""
    manifest = manifests.load(copy.job_id, digest=copy.manifest_digest)
    if manifest is not None:
        with suppress(ManifestError):
            return parse_manifest(manifest).keys()
    return None
