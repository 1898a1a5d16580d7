"""`check`: is everything there that the agent will need? One line each, and what to do about what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator

from exlab_watch_agent.adapters.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.agent import make_transport
from exlab_watch_agent.cli.context import Context
from exlab_watch_agent.cli.showing import human_bytes
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.errors import AgentError, ExitCode
from exlab_watch_agent.settings import linked_overlaps

Line = tuple[bool, str]


def check(context: Context) -> int:
    """Print the findings; return 0 when all is well, 1 when something is not. Raises: ConfigError."""
    settings = context.settings
    lines: list[Line] = [(True, f"config {settings.path}: {len(context.policy.equipment)} equipment")]
    lines += [(True, note) for note in settings.notes]
    lines += [(False, text) for text in linked_overlaps(context.policy)]
    lines += _check_state_dir(context)
    for equipment in context.policy.equipment:
        lines += _check_root(equipment)
        lines += _check_destination(equipment)
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
    if parent.is_dir() and os.access(parent, os.W_OK):
        yield True, f"state folder {folder}"
    else:
        yield False, f"state folder {folder} cannot be written: give another --state-dir or agent.state_dir"
    if context.holder is not None:
        yield True, f"an agent works in it, pid {context.holder.get('pid', '?')}"


def _check_root(equipment: EquipmentPolicy) -> Iterator[Line]:
    root = equipment_root(equipment)
    try:
        runs = DiskRunScanner().scan(equipment)
    except AgentError as error:
        yield False, f"{equipment.equipment_id}: {error}"
        return
    yield True, f"{equipment.equipment_id}: {len(runs)} run folders below {root}"


def _check_destination(equipment: EquipmentPolicy) -> Iterator[Line]:
    try:
        transport = make_transport(equipment)
        transport.round_trip()
        free_bytes = transport.free_bytes()
    except AgentError as error:
        yield False, f"{equipment.equipment_id}: {error}"
        return
    room = f", {human_bytes(free_bytes)} free" if free_bytes is not None else ""
    yield True, f"{equipment.equipment_id}: {transport.describe()} was written, read back, hashed and cleared{room}"
