"""Checks the audit trail against itself and against what the NAS knows of it, and searches it.

Decided here: which anchors are asked for. On the NAS these are the heartbeat of this state folder and the claims of its sealed
copies; of many copies some hundreds, spread over the whole trail, the newest among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.adapters.state.chain import Chain, Taker, anchors_in, read_chain
from exlab_watch_agent.adapters.state.folder_facts import folder_id_in
from exlab_watch_agent.adapters.state.trail_log import Wanted as Wanted
from exlab_watch_agent.adapters.state.trail_log import lines_as_written, lines_that_match
from exlab_watch_agent.app.build import make_transport
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.core import heartbeat
from exlab_watch_agent.core.anchors import Anchor
from exlab_watch_agent.core.binding import accepted
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.ports import Transport

CLAIMS_MAX = 300
"""So many claims of a destination are asked for: each costs a question to the NAS."""


@dataclass(frozen=True, slots=True)
class Audited:
    """What a check of the trail found. `beside`, `outside`: how many anchors there were in its folder, and on the NAS.

    `unasked`: in words, what could not be asked, or said nothing.
    """

    chain: Chain
    beside: int = 0
    outside: int = 0
    unasked: tuple[str, ...] = ()


def verify_folder(folder: Path) -> Audited:
    """Check a state folder, or a copy of one, by itself. Raises: StateFolderError."""
    return _held_against(folder, anchors_in(folder), ())


def verify_here(site: Site, taker: Taker | None = None) -> Audited:
    """Check the site's own trail, and ask its destinations what they know of it. `taker`: is given its lines meanwhile.

    Raises: StateFolderError.
    """
    anchors, unasked = anchors_in(site.state_dir), []
    sealed: dict[str, list[RunRecord]] = {}
    for record in site.records.values():
        if record.is_sealed:
            sealed.setdefault(record.equipment_id, []).append(record)
    for equipment_id in sorted(sealed.keys() - {equipment.equipment_id for equipment in site.policy.equipment}):
        unasked.append(f"{equipment_id} is no longer in the configuration, so the copies of its runs were not asked")
    for equipment in site.policy.equipment:
        transport = None
        try:
            transport = make_transport(equipment, site.policy)
            of_nas, more = _anchors_at(equipment, transport, site, sealed.get(equipment.equipment_id, []))
            anchors += of_nas
            unasked += more
        except AgentError as error:
            unasked.append(f"{equipment.equipment_id}: {error}")
        finally:
            if transport is not None:
                transport.close()
    # The anchors come first: an agent that writes meanwhile only makes the trail longer than they know.
    return _held_against(site.state_dir, anchors, unasked, taker)


def _held_against(
    folder: Path, anchors: Sequence[Anchor], unasked: Sequence[str], taker: Taker | None = None
) -> Audited:
    beside = sum(anchor.is_beside for anchor in anchors)
    return Audited(read_chain(folder, anchors, taker=taker), beside, len(anchors) - beside, tuple(unasked))


def _anchors_at(
    equipment: EquipmentPolicy, transport: Transport, site: Site, sealed: Sequence[RunRecord]
) -> tuple[list[Anchor], list[str]]:
    """Return what one destination knows of our trail, and what of it was not asked. Raises: AgentError."""
    spelling = transport.describe()
    marker_id = accepted(site.binding(equipment.equipment_id, spelling), spelling)
    if marker_id is None:
        return [], [f"{equipment.equipment_id}: {spelling} is not bound, so it knows nothing"]
    transport.require_marker(expected_marker_id=marker_id)
    found: list[Anchor] = []
    folder_id = folder_id_in(site.loaded.facts)
    for name in transport.listing(heartbeat.FOLDER):
        data = (
            transport.read_small(heartbeat.FOLDER, name, limit_bytes=heartbeat.BYTES_MAX)
            if name.endswith(".json")
            else None
        )
        sign = heartbeat.sign_in(data) if data is not None else None
        if sign is not None and sign.anchor is not None and sign.state_folder == folder_id != "":
            found.append(Anchor(f"the heartbeat at {transport.describe()}", sign.anchor))
    silent = 0
    asked = _spread(sorted(sealed, key=lambda record: str(record.sealed_at)), CLAIMS_MAX)
    for record in asked:
        look = transport.look(record.destination)
        is_ours = look.claim is not None and look.claim.job_id == record.job_id
        is_of_folder = look.claim is not None and look.claim.state_folder in ("", folder_id)
        if is_ours and is_of_folder and look.anchor is not None:
            found.append(Anchor(f"the claim of {record.destination} at {transport.describe()}", look.anchor))
        else:
            silent += 1
    more: list[str] = []
    if len(asked) < len(sealed):
        more.append(f"{equipment.equipment_id}: {len(asked)} of {len(sealed)} claims were asked for")
    if silent:
        more.append(f"{equipment.equipment_id}: {silent} of {len(asked)} sealed copies say nothing of this trail")
    return found, more


def _spread(records: Sequence[RunRecord], count_max: int) -> Sequence[RunRecord]:
    """Return so many of these, evenly from the first to the last."""
    if len(records) <= count_max:
        return records
    step = (len(records) - 1) / (count_max - 1)
    return [records[round(number * step)] for number in range(count_max)]


def search(site: Site, wanted: Wanted) -> Iterator[Mapping[str, object]]:
    """Yield the lines of the site's trail that are wanted, the oldest first. Raises: StateFolderError."""
    return lines_that_match(site.state_dir, wanted)


def search_as_written(site: Site, wanted: Wanted) -> Iterator[tuple[bytes, Mapping[str, object]]]:
    """Yield the same, each line's bytes beside what it says. Raises: StateFolderError."""
    return lines_as_written(site.state_dir, wanted)
