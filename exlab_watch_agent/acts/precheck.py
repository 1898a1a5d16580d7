"""Looks for cheap evidence against a copy: missing names, sizes, sampled blocks."""

from __future__ import annotations

from collections.abc import Sequence

from exlab_watch_agent.acts.copy import NOT_THE_COPY, note_wrong, present
from exlab_watch_agent.acts.source import unchanged_inventory
from exlab_watch_agent.core.effects import Precheck
from exlab_watch_agent.core.events import CopyWrong, PrecheckPassed
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.push_plan import wrong_sizes
from exlab_watch_agent.core.sampling import sample_files
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.errors import TransportError
from exlab_watch_agent.ports import Control, Ports


def precheck(effect: Precheck, ports: Ports, control: Control) -> PrecheckPassed | CopyWrong:
    """Return evidence against the copy, or that there is none. Writes nothing there; the next push moves aside what is wrong."""
    inventory = unchanged_inventory(effect, ports)
    there_now = present(ports, effect.destination, due=inventory.files, control=control)
    wrong = wrong_sizes(inventory.files, there_now)
    what = "missing or different in size"
    if not wrong:
        sampled = sample_files(inventory.files)
        there = _samples_there(effect, sampled, ports, control)
        if there is not None:
            here = ports.digester.samples(effect.run_path, sampled, control=control)
            wrong = tuple(path for path, digest in here.items() if there.get(path) != digest)
            what = "different in sampled blocks"
            unchanged_inventory(effect, ports)
    if not wrong:
        return PrecheckPassed(effect.turn)
    note_wrong(effect, [path for path in wrong if path in there_now], ports)
    return CopyWrong(effect.turn, f"partial copy: {counted(len(wrong), 'file')} {what} on the NAS (first: {wrong[0]})")


def _samples_there(
    effect: Precheck, sampled: Sequence[FileEntry], ports: Ports, control: Control
) -> dict[str, str] | None:
    """Return the samples of the copy; None where ranges, or some of its files, cannot be read: the comparison that follows finds
    out which, and the push after it replaces them."""
    try:
        return ports.transport.samples(effect.destination, sampled, control=control)
    except TransportError as error:
        if error.kind in NOT_THE_COPY:
            raise
        return None
