"""Asks a destination root who it is, binds it, and leaves signs of life there.

An unmounted share is an empty folder that would accept writes, and whose emptiness would look like damage: whatever touches
the destination asks for its marker first.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from exlab_watch_agent.acts.copy import lacks_room
from exlab_watch_agent.core import heartbeat
from exlab_watch_agent.core.binding import (
    Binding,
    RootStanding,
    another_root,
    is_bound_without_asking,
    marker_gone,
    must_ask,
    standing_of,
)
from exlab_watch_agent.core.effects import Bind, PlaceHeartbeat, Probe, SealedCopy
from exlab_watch_agent.core.events import Answered, BindingRefused, HeartbeatPlaced, Unreached
from exlab_watch_agent.core.heartbeat import SignOfLife
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.errors import (
    DESTINATION_FULL,
    AgentError,
    DestinationUnboundError,
    DestinationUnreachableError,
    ForeignMarkerError,
    MarkerMissingError,
    TransportError,
)
from exlab_watch_agent.ports import Ports, Transport


def find_destination(ports: Ports) -> str:
    """Return the marker's id of a destination root that is bound and answers, by reading alone.

    A root that is shown to be another place, or has the marker that was accepted under another spelling, is bound here.
    Raises: DestinationUnreachableError.
    """
    standing = ask_standing(ports.transport, ports.binding, ports.equipment.equipment_id)
    if standing is RootStanding.BOUND and ports.binding is not None:
        ports.require_mounts()
        return ports.binding.marker_id
    nature = ports.transport.nature()
    if not is_bound_without_asking(standing, nature):
        raise must_ask(ports.equipment.equipment_id, ports.transport.describe(), nature)
    return bind_destination(ports).marker_id


def ask_standing(transport: Transport, known: Binding | None, equipment_id: str) -> RootStanding:
    """Return what the root is to an equipment that was bound so, where it may be used or be bound.

    Raises: DestinationUnreachableError where it does not answer; MarkerMissingError where the known marker is gone; and by name
    where it is another root than the bound one.
    """
    spelling = transport.describe()
    if known is None:
        return standing_of(None, spelling=spelling, found=None)
    try:
        transport.require_marker(expected_marker_id=known.marker_id)
    except ForeignMarkerError as error:
        raise another_root(equipment_id, spelling, known) from error
    return standing_of(known, spelling=spelling, found=known.marker_id)


def ask_destination(ports: Ports, *, is_full: bool, is_doubted: bool = False) -> str:
    """Return the same of a root that may also be written to: it is not the instrument's own folder.

    `is_full`: it must also keep and give back a few bytes; `is_doubted`: it did not answer a moment ago, so that what
    was shown of it no longer counts. Raises: DestinationUnreachableError.
    """
    marker_id = ports.marker_id()
    if marker_id is not None and ports.binding is not None and is_full:
        try:
            ports.transport.probe(expected_marker_id=marker_id)
            ports.require_mounts()
        except ForeignMarkerError as error:
            raise another_root(ports.equipment.equipment_id, ports.transport.describe(), ports.binding) from error
    else:
        marker_id = find_destination(ports)
    ports.apartness.require_root(anew=is_doubted)  # it writes, and an unmounted share is known by its marker only
    return marker_id


def bind_destination(ports: Ports, copies: Sequence[SealedCopy] = ()) -> Answered:
    """Return the id of the root's marker, placed now where there was none; a marker that is known must be there.

    One that is known and gone is placed again where one of these copies is, for then this is the root that had it.
    Nothing is written there before it is shown that the root is not the instrument's own folder, but probe files.
    Raises: DestinationUnreachableError.
    """
    known = ports.binding
    if known is not None:
        try:
            ask_standing(ports.transport, known, ports.equipment.equipment_id)
        except MarkerMissingError as error:
            if not _holds_one_of(copies, ports):
                raise _missing(error, ports, known) from error
            ports.apartness.require_root(is_first=True)
            ports.transport.put_marker_back(known.marker_id)
            return Answered(known.marker_id, is_put_back=True)
    ports.apartness.require_root(is_first=True)
    return Answered(ports.transport.bind(known_marker_id=None if known is None else known.marker_id))


def _missing(
    error: MarkerMissingError, ports: Ports, known: Binding | None
) -> DestinationUnboundError | MarkerMissingError:
    """Return what a missing marker means where no copy of ours was found: an unmounted share, or another root by the config."""
    spelling = ports.transport.describe()
    if known is None or standing_of(known, spelling=spelling, found=None) is RootStanding.UNMARKED:
        return error
    return another_root(ports.equipment.equipment_id, spelling, known)


def _holds_one_of(copies: Sequence[SealedCopy], ports: Ports) -> bool:
    """Return whether one of these copies is there, by its claim. What cannot be asked for is not there."""
    for copy in copies:
        with suppress(TransportError, DestinationUnreachableError):
            if _holds(copy, ports):
                return True
    return False


def _holds(copy: SealedCopy, ports: Ports) -> bool:
    """Return whether this sealed copy is there, by its claim. Raises: TransportError, DestinationUnreachableError."""
    found = ports.transport.look(copy.destination)
    return found.claim is not None and (found.claim.job_id, found.sealed_as) == (copy.job_id, copy.manifest_digest)


def probe(effect: Probe, ports: Ports) -> Answered | Unreached:
    """Return whether the destination is there, and unless the probe is light whether it can be written to."""
    try:
        if effect.is_light:
            return Answered(find_destination(ports), free_bytes=_room(effect, ports))
        marker_id = ask_destination(ports, is_full=True, is_doubted=True)
        free_bytes = _room(effect, ports)
        if no_room := lacks_room(ports.transport.describe(), free_bytes, effect.needs_bytes):
            return Unreached(no_room, DESTINATION_FULL)
        return Answered(marker_id, free_bytes=free_bytes if effect.asks_room else None)
    except MarkerMissingError as error:
        if not _holds_one_of(effect.copies, ports):
            missing = _missing(error, ports, ports.binding)
            return Unreached(str(missing), missing.wait)
        gone = marker_gone(effect.equipment_id, ports.transport.describe())
        return Unreached(str(gone), gone.wait)
    except DestinationUnreachableError as error:
        return Unreached(str(error), error.wait)


def _room(effect: Probe, ports: Ports) -> int | None:
    """Return the free bytes there; None where they were not asked for or cannot be told, which is no trouble of it."""
    if effect.asks_room or effect.needs_bytes:
        with suppress(TransportError, DestinationUnreachableError):
            return ports.transport.free_bytes()
    return None


def bind(effect: Bind, ports: Ports) -> Answered | BindingRefused:
    """Bind the root, or return why it cannot be bound."""
    try:
        return bind_destination(ports, effect.copies)
    except AgentError as error:
        return BindingRefused(str(error))


def place_heartbeat(effect: PlaceHeartbeat, ports: Ports) -> HeartbeatPlaced | Unreached:
    """Leave the sign of life. A NAS that can no longer be written may still be read and audited, so the lane does not wait."""
    try:
        ports.transport.require_marker(expected_marker_id=ports.marker_id())
    except DestinationUnreachableError as error:
        return Unreached(str(error), error.wait)
    anchor: TrailPosition | None = None
    try:
        ask_destination(ports, is_full=True)
        path, sign = _own_place(effect, ports)
        if sign is not None and sign.state_folder == ports.agent.state_folder:
            anchor = sign.anchor
            position = effect.position
            if position is not None and heartbeat.is_evidence(
                sign, state_folder=ports.agent.state_folder, position=position, told_to=effect.told_to
            ):
                return HeartbeatPlaced(
                    "the one there is of a later state of this agent: it stays until that is on record", anchor
                )
        ports.transport.write_small(path, effect.data)
    except AgentError as error:
        return HeartbeatPlaced(str(error), anchor)
    return HeartbeatPlaced(anchor=anchor)


def _own_place(effect: PlaceHeartbeat, ports: Ports) -> tuple[str, SignOfLife | None]:
    """Return where the sign of life goes, and what is there now: beside that of another agent of this host, unless that is older
    than a day."""
    first = heartbeat.name_of(effect.host)
    data = ports.transport.read_small(heartbeat.FOLDER, first, limit_bytes=heartbeat.BYTES_MAX)
    sign = None if data is None else heartbeat.sign_in(data)
    is_taken = (
        sign is not None
        and sign.state_folder not in ("", ports.agent.state_folder)
        and ports.clock.now() - sign.at <= heartbeat.SILENT_FOR
    )
    if is_taken:
        first = heartbeat.name_beside(effect.host, ports.agent.state_folder)
        data = ports.transport.read_small(heartbeat.FOLDER, first, limit_bytes=heartbeat.BYTES_MAX)
        sign = None if data is None else heartbeat.sign_in(data)
    return f"{heartbeat.FOLDER}/{first}", sign
