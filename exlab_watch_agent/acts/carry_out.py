"""One border for all effects: plain values and ports in, a result out, whatever happened.

No policy, no retry, no sleep in any of `acts`: a need for one is a rule that belongs in core. Work that touches the
destination asks it first who it is, and again afterwards: an unmounted share is an empty folder that would accept writes, and
whose emptiness would look like damage.
"""

from __future__ import annotations

import logging
from typing import assert_never

from exlab_watch_agent.acts.carry_cache import carry_cache
from exlab_watch_agent.acts.copy import NOT_THE_COPY
from exlab_watch_agent.acts.inspect import ask_where, inspect
from exlab_watch_agent.acts.precheck import precheck
from exlab_watch_agent.acts.probe import bind, place_heartbeat, probe
from exlab_watch_agent.acts.push import push
from exlab_watch_agent.acts.replace_destination import replace_destination
from exlab_watch_agent.acts.scan import scan
from exlab_watch_agent.acts.seal import seal
from exlab_watch_agent.acts.source import vanished
from exlab_watch_agent.acts.status import write_status
from exlab_watch_agent.acts.verify import verify
from exlab_watch_agent.core.binding import first_folder
from exlab_watch_agent.core.claim import HELD_BY_OTHERS
from exlab_watch_agent.core.effects import (
    Admit,
    AskWhere,
    Bind,
    CarryCache,
    Effect,
    Inspect,
    PlaceHeartbeat,
    Precheck,
    Probe,
    Push,
    ReplaceDestination,
    Scan,
    Seal,
    Verify,
    Work,
    WriteStatus,
)
from exlab_watch_agent.core.events import (
    BindingRefused,
    CacheStays,
    EffectFailed,
    HeartbeatPlaced,
    Outcome,
    Result,
    RunChanged,
    ScanFailed,
    StatusUnwritten,
    Unreached,
    Unseen,
    UnseenCode,
    Whereabouts,
)
from exlab_watch_agent.errors import (
    DESTINATION_FULL,
    CancelledError,
    CreationFileError,
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    LocalDiffersError,
    ManifestLostError,
    ManifestNotKeptError,
    RootUnavailableError,
    RunUnreadableError,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import Control, Ports

log = logging.getLogger(__name__)


def carry_out(effect: Effect, ports: Ports, control: Control) -> Result:
    """Return what came of an effect. Raises: CancelledError only."""
    try:
        return _result(effect, ports, control)
    except CancelledError:
        raise
    except Exception as defect:  # our defect: it is reported as what it prevents, and every effect ends
        log.exception("%s failed", type(effect).__name__)
        return _stopped_by(defect, effect)


def _result(effect: Effect, ports: Ports, control: Control) -> Result:
    match effect:
        case Push() | Precheck() | Verify() | Seal():
            return work(effect, ports, control)
        case WriteStatus():
            return write_status(effect, ports)
        case Inspect() | Admit():
            return inspect(effect, ports)
        case AskWhere():
            return ask_where(effect, ports)
        case Scan():
            return scan(effect, ports)
        case Probe():
            return probe(effect, ports)
        case Bind():
            return bind(effect, ports)
        case CarryCache():
            return carry_cache(effect, ports, control)
        case ReplaceDestination():
            return replace_destination(effect, ports)
        case PlaceHeartbeat():
            return place_heartbeat(effect, ports)
        case _:
            assert_never(effect)


def _stopped_by(defect: Exception, effect: Effect) -> Result:
    """Return the failure of an effect that a defect of ours stopped."""
    match effect:
        case Push() | Precheck() | Verify() | Seal():
            message = f"an internal error stopped it ({defect!r}): see the central log"
            return EffectFailed(effect.turn, FailureKind.UNKNOWN, message)
        case WriteStatus():
            return StatusUnwritten(f"it could not be written: {defect}")
        case Inspect() | Admit():
            return Unseen(UnseenCode.UNREADABLE, f"the look failed: {defect}")
        case AskWhere():
            return Whereabouts({}, is_new_there=False)
        case Scan():
            return ScanFailed(f"the scan failed: {defect}")
        case Probe():
            return Unreached(f"the probe failed: {defect}")
        case Bind() | ReplaceDestination():
            return BindingRefused(f"the binding failed: {defect}")
        case CarryCache():
            return CacheStays(f"an internal error stopped it ({defect!r})")
        case PlaceHeartbeat():
            return HeartbeatPlaced(f"it could not be placed: {defect}")
        case _:
            assert_never(effect)


def work(effect: Work, ports: Ports, control: Control) -> Outcome:
    """Carry out one working state's effect and return its outcome, whatever happens.

    Raises: CancelledError; any error that is not of this package is our defect and is let through.
    """
    try:
        ports.transport.require_marker(expected_marker_id=ports.marker_id())
        if not (isinstance(effect, Verify) and effect.manifest_digest):
            # An audit asks of its run alone, which needs no writing there: a NAS that rots is often read-only by then.
            ports.apartness.require_root()
        ports.require_mounts(first_folder(effect.destination))
        ports.require_root()
        outcome = _worked(effect, ports, control)
        # A share that went away in the middle looks like missing files: ask again before anything is believed. So does a
        # root here that is a different volume now. (A seal has asked already, before the one thing that it did here after that.)
        if not isinstance(effect, Seal):
            ports.transport.require_marker(expected_marker_id=ports.marker_id())
        ports.require_mounts()
        ports.require_root()
        return outcome
    except DestinationUnreachableError as error:
        kind = FailureKind.DESTINATION_FULL if error.wait == DESTINATION_FULL else FailureKind.NETWORK
        return EffectFailed(effect.turn, kind, str(error), is_destination_away=True, wait=error.wait)
    except SourceChangedError as error:
        return RunChanged(effect.turn, str(error))
    except RootUnavailableError as error:
        # A run folder that is not there was moved, removed, or its root is away: the next look and the scan tell which.
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), is_source_away=True)
    except DestinationOccupiedError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), conflict=error.kind, holding=error.holding)
    except LocalDiffersError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), HELD_BY_OTHERS, conflict=error.kind)
    except (RunUnreadableError, CreationFileError, ManifestNotKeptError, ManifestLostError) as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error))
    except TransportError as error:
        return _transport_trouble(effect, error, ports)


def _worked(effect: Work, ports: Ports, control: Control) -> Outcome:
    match effect:
        case Push():
            return push(effect, ports, control)
        case Precheck():
            return precheck(effect, ports, control)
        case Verify():
            return verify(effect, ports, control)
        case Seal():
            return seal(effect, ports, control)
        case _:
            assert_never(effect)


def _transport_trouble(effect: Work, error: TransportError, ports: Ports) -> Outcome:
    if error.kind is FailureKind.LOCAL_FILE_VANISHED:
        return vanished(effect, str(error), ports)
    is_reading = isinstance(effect, Precheck | Verify)
    try:
        # A NAS that can no longer be written can still say that it is there; an effect that only reads needs no more.
        ask = ports.transport.require_marker if is_reading else ports.transport.probe
        ask(expected_marker_id=ports.marker_id())
        ports.require_mounts()
    except DestinationUnreachableError as away:
        return EffectFailed(effect.turn, FailureKind.NETWORK, str(away), error.detail, is_destination_away=True)
    if error.kind is FailureKind.DESTINATION_FULL and not is_reading:
        return EffectFailed(
            effect.turn,
            error.kind,
            str(error),
            error.detail,
            is_destination_away=True,
            wait=DESTINATION_FULL,
            needs_bytes=error.needs_bytes,
        )
    is_unreadable = isinstance(effect, Verify) and error.kind not in NOT_THE_COPY
    return EffectFailed(effect.turn, error.kind, str(error), error.detail, is_copy_unreadable=is_unreadable)
