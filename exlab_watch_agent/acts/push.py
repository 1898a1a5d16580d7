"""Copies what is missing at a run's destination."""

from __future__ import annotations

from exlab_watch_agent.acts.copy import (
    adopt,
    copy_says_synced,
    is_our_seal,
    keep_what_differs,
    lacks_room,
    may_be_adopted,
    present,
)
from exlab_watch_agent.acts.source import unchanged_inventory
from exlab_watch_agent.acts.take_over import displace, put_others_aside
from exlab_watch_agent.core.binding import first_folder
from exlab_watch_agent.core.claim import (
    CLAIM_PATH,
    DestinationLook,
    DestinationStanding,
    conflict_at,
    may_be_displaced,
    standing,
)
from exlab_watch_agent.core.effects import Push
from exlab_watch_agent.core.events import Pushed
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.push_plan import plan_push
from exlab_watch_agent.errors import DestinationOccupiedError, FailureKind, TransportError
from exlab_watch_agent.ports import Control, Ports


def push(effect: Push, ports: Ports, control: Control) -> Pushed:
    """Copy what is missing at the destination; safe to repeat.

    Writes only below `effect.destination`, and moves aside what is there with a different size or time, or was found wrong
    by the comparison before. The cache folder follows with the seal, when it can say what was proven; until then the
    claim says whose the copy is.
    """
    transport = ports.transport
    inventory = unchanged_inventory(effect, ports)
    look_there = transport.look(effect.destination)
    if effect.is_open:
        raise _unasked(effect, look_there, ports)
    if not look_there.is_empty:  # the run's own folder has its creation.json
        ports.apartness.require_run(effect.run_path, effect.destination)
    mine = ports.agent.signed(effect.claim)
    whose = standing(look_there, mine, is_our_seal=is_our_seal(look_there, ports, effect.manifest_digest))
    if whose is DestinationStanding.CLAIMED_BY_OTHER_AGENT and may_be_adopted(effect, look_there, ports):
        keep_what_differs(effect, _travelling(effect, ports), ports)
        adopt(effect, look_there, ports, control)
        whose = DestinationStanding.OURS
    elif may_be_displaced(whose, consent=effect.takes_over, holding=look_there.holding):
        displace(effect, look_there, inventory, ports, control)
        whose = DestinationStanding.OURS
    if effect.is_shown and look_there.identity not in (None, mine.identity):
        whose = DestinationStanding.OCCUPIED  # ExLab-Wizard knows no claims, and has put another run there since
    conflict = conflict_at(whose, effect.destination, holder=look_there.holder, is_sealed=effect.is_sealed)
    if conflict is not None:
        raise DestinationOccupiedError(conflict.message, kind=conflict.kind, holding=look_there.holding)
    if look_there.claim is None:  # where it was taken over, ours is there by now, and is left as it is
        transport.place_claim(effect.destination, mine)
    # A share that went away for a moment leaves it in the empty mount point; data without a claim are nobody's.
    ports.require_mounts(first_folder(effect.destination))
    transport.require_marker(expected_marker_id=ports.marker_id())
    transport.require_claim(effect.destination, mine)
    if ports.creations.read(effect.run_path).creation.sync_status != "pending":
        ports.creations.set_sync_status(effect.run_path, "pending")
    if effect.takes_over:
        put_others_aside(effect, inventory, ports)
    if effect.is_shown:
        keep_what_differs(effect, _travelling(effect, ports), ports)
    if not look_there.is_empty:
        # A sealed copy that is about to change must stop saying "synced" before its first file moves.
        transport.replace(effect.run_path, _travelling(effect, ports), effect.destination, control=control)
    transport.clear_partials(effect.destination)
    if look_there.is_sealed and copy_says_synced(effect, ports):
        raise TransportError(
            FailureKind.UNKNOWN, f"{effect.destination} goes on saying synced, so nothing there is changed"
        )
    wrong = ports.manifests.wrong(effect.job_id)
    there = {} if look_there.is_empty else present(ports, effect.destination)
    if effect.is_shown:  # that times differ is no reason to move what was found equal
        there = {path: (size_bytes, None) for path, (size_bytes, _) in there.items()}
    plan = plan_push(inventory.files, there, wrong=wrong)
    if no_room := lacks_room(transport.describe(), transport.free_bytes(), plan.bytes_to_copy):
        raise TransportError(FailureKind.DESTINATION_FULL, no_room, needs_bytes=plan.bytes_to_copy)
    if plan.set_aside:
        transport.require_claim(effect.destination, mine)  # whoever was given it meanwhile has what is there now
        transport.set_aside(effect.destination, plan.set_aside)
    if wrong:  # before the copy: what takes their names is not to make room once more after a kill
        ports.manifests.forget_wrong(effect.job_id)
    transport.copy(effect.run_path, plan.copy, effect.destination, control=control)
    return Pushed(effect.turn)


def _unasked(effect: Push, look_there: DestinationLook, ports: Ports) -> TransportError:
    """Return that a run's place is not decided yet. Raises: TransportError, with the reason, where it still cannot be asked.

    It is a failure of the push like any other, so that it is waited after it and told.
    """
    if look_there.claim is None and not look_there.is_empty:
        ports.transport.listing(effect.destination)
    text = f"what is at {effect.destination} could not be asked a moment ago, so the run's place is looked for anew"
    return TransportError(FailureKind.UNKNOWN, text)


def _travelling(effect: Push, ports: Ports) -> tuple[FileEntry, ...]:
    """Return the cache folder's files but the claim: one that came with a copied folder is another run's."""
    return tuple(entry for entry in ports.tree.cache_files(effect.run_path) if entry.path != CLAIM_PATH)
