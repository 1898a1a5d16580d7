"""`check`: is everything there that the agent will need? One line each, and what to do about what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator

from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.mounts import is_shared, kind_of
from exlab_watch_agent.adapters.local.overlaps import linked_overlaps
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.adapters.watching.limits import judged, read_limits, watches_for
from exlab_watch_agent.app.agent import make_transport
from exlab_watch_agent.cli.context import Context
from exlab_watch_agent.cli.showing import human_bytes
from exlab_watch_agent.core.binding import accepted, must_ask
from exlab_watch_agent.core.policy import EquipmentPolicy, ObserverMode
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.errors import AgentError, ExitCode
from exlab_watch_agent.ports import Transport

Line = tuple[bool, str]


def check(context: Context) -> int:
    """Print the findings; return 0 when all is well, 1 when something is not. Raises: ConfigError."""
    settings = context.settings
    lines: list[Line] = [(True, f"config {settings.path}: {len(context.policy.equipment)} equipment")]
    lines += [(True, note) for note in settings.notes]
    lines += [(False, text) for text in linked_overlaps(context.policy)]
    lines += _check_state_dir(context)
    watches_needed = 1  # the inbox
    for equipment in context.policy.equipment:
        watches, root_lines = _check_root(equipment)
        watches_needed += watches
        lines += root_lines
        lines += _check_destination(equipment, context)
    is_native = any(equipment.observer is not ObserverMode.POLLING for equipment in context.policy.equipment)
    if is_native:
        lines += judged(watches_needed, len(context.policy.equipment), read_limits())
    if context.policy.cleanup.is_enabled:
        lines.append(
            (True, "nas_cleanup is enabled, and this version never removes local data: verified is where runs rest")
        )
    for is_fine, text in lines:
        print(f"{'ok ' if is_fine else 'NOT'} {text}")
    return ExitCode.FINE if all(is_fine for is_fine, _ in lines) else ExitCode.FAILED


def _check_state_dir(context: Context) -> Iterator[Line]:
    folder = context.state_dir
    parent = folder
    while not parent.exists():
        parent = parent.parent
    try:
        require_private(folder)
    except AgentError as error:
        yield False, str(error)
        return
    if parent.is_dir() and os.access(parent, os.W_OK):
        yield True, f"state folder {folder}"
    else:
        yield False, f"state folder {folder} cannot be written: give another --state-dir or agent.state_dir"
    kind = kind_of(str(parent))
    if is_shared(kind):
        text = f"state folder {folder} lies on a network mount ({kind}), whose locks and fsync may not hold"
        yield True, f"{text}: a folder on a local disk is safer"
    if context.holder is not None:
        yield True, f"an agent works in it, pid {context.holder.get('pid', '?')}"


def _check_root(equipment: EquipmentPolicy) -> tuple[int, list[Line]]:
    """Return how many folders are to be watched there, and what to say."""
    root = equipment_root(equipment)
    try:
        runs = DiskRunScanner().scan(equipment)
    except AgentError as error:
        return 0, [(False, f"{equipment.equipment_id}: {error}")]
    lines: list[Line] = [(True, f"{equipment.equipment_id}: {counted(len(runs), 'run folder')} below {root}")]
    kind = kind_of(root)
    if equipment.observer is ObserverMode.AUTO and is_shared(kind):
        lines.append(
            (True, f"{equipment.equipment_id}: {root} is on {kind}, so it is looked through every few seconds")
        )
        return 0, lines
    if equipment.observer is ObserverMode.POLLING:
        return 0, lines
    return watches_for(runs), lines


def _check_destination(equipment: EquipmentPolicy, context: Context) -> Iterator[Line]:
    transport = None
    try:
        transport = make_transport(equipment, context.policy)
        for note in transport.check_tools():
            yield True, f"{equipment.equipment_id}: {note}"
        yield True, f"{equipment.equipment_id}: {_binding(equipment, transport, context)}"
        ProbedApartness(equipment, transport, SystemClock(), context.policy.equipment).require_root(is_first=True)
        free_bytes = transport.free_bytes()
    except AgentError as error:
        yield False, f"{equipment.equipment_id}: {error}"
        return
    finally:
        if transport is not None:
            transport.close()
    room = f", {human_bytes(free_bytes)} free" if free_bytes is not None else ""
    yield True, f"{equipment.equipment_id}: {transport.describe()} was written, read back and cleared{room}"


def _binding(equipment: EquipmentPolicy, transport: Transport, context: Context) -> str:
    """Return whether the destination is bound, or will be and why. Writes nothing. Raises: DestinationUnreachableError."""
    marker_id = accepted(context.binding(equipment.equipment_id, transport.describe()))
    if marker_id is not None:
        transport.require_marker(expected_marker_id=marker_id)
        return f"{transport.describe()} is bound"
    nature = transport.nature()
    if not nature.elsewhere:
        raise must_ask(equipment.equipment_id, transport.describe(), nature)
    return f"{transport.describe()} will bind by itself, because {nature.elsewhere}"
