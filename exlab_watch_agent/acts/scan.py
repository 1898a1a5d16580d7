"""Compares an equipment's folder with what is known of its runs. Reads only, but for the lock that it places at the end."""

from __future__ import annotations

from exlab_watch_agent.core.completeness import signal_file
from exlab_watch_agent.core.effects import Scan
from exlab_watch_agent.core.events import ScanFailed, Scanned
from exlab_watch_agent.core.reconcile import Differences, SeenRun, differences, root_doubt
from exlab_watch_agent.errors import RootUnavailableError
from exlab_watch_agent.ports import Ports


def scan(effect: Scan, ports: Ports) -> Scanned | ScanFailed:
    """Return what came, went and was edited; or why this may not be our root, and nothing is concluded from it."""
    try:
        volume = ports.scanner.volume(ports.equipment)
        found, gone, seen = _compare(effect, volume, ports)
        signalled: tuple[str, ...] = ()
        if (signal := signal_file(ports.equipment)) is not None:
            signalled = tuple(path for path in effect.unsignalled if ports.tree.has_name(path, signal))
        ports.root_lock.take()  # the first thing that is written there, so only once it is known to be our root
    except RootUnavailableError as error:
        return ScanFailed(str(error))
    misplaced = ports.scanner.misplaced(ports.equipment, seen, ports.policy) if effect.seeks_misplaced else None
    free_bytes = ports.scanner.free_bytes(ports.equipment) if effect.is_full else None
    return Scanned(volume, found, gone, signalled, free_bytes, misplaced)


def _compare(effect: Scan, volume: str, ports: Ports) -> tuple[Differences, tuple[str, ...], tuple[SeenRun, ...]]:
    """Return what is different, which known runs are gone, and all that was seen.

    Raises: RootUnavailableError when it may not be our root.
    """
    seen = ports.scanner.scan(ports.equipment, with_caches=effect.is_full)
    found = differences(effect.known, seen)
    doubt = root_doubt(
        root=effect.root,
        equipment_id=effect.equipment_id,
        known=effect.known,
        expected=(path for path in effect.known.runs if path not in effect.cleaned),
        is_any_there=found.is_any_there,
        is_empty=found.runs_total == 0 and ports.scanner.is_empty(ports.equipment),
        volume=volume,
    )
    if doubt is not None:
        raise RootUnavailableError(doubt)
    # One that came, or was moved there, after the scan had passed is not gone.
    gone = tuple(path for path in found.missing if path not in effect.cleaned and not ports.scanner.is_there(path))
    if ports.scanner.volume(ports.equipment) != volume:
        raise RootUnavailableError(f"{effect.root} was replaced by another folder or volume while it was scanned.")
    return found, gone, seen
