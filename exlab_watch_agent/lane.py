"""What the engine's loop is told and what it keeps in memory: messages of the inbox, lanes, views.

Nothing here outlives the process: what must, is in core/record.py. Only the loop's thread changes these values, but for
a task's progress and its cancel flag.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import WorkEffect
from exlab_watch_agent.core.events import Outcome
from exlab_watch_agent.core.gate import Finding
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.reconcile import Differences, Signature
from exlab_watch_agent.errors import NAS_UNREACHABLE, DestinationUnreachableError, Wait
from exlab_watch_agent.handlers import Look, LookResult
from exlab_watch_agent.ports import Ports, Progress, RootLock, RunScanner, SavedCreation
from exlab_watch_agent.statechart import RunState

SETTLED_STATES = frozenset({RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE, RunState.CLEANED})
"""Sealed and at rest: the data are looked at by audits only, and `creation.json` when it is another one."""
UNREADABLE_LOOKS_TOLD = 3
"""A file that another program holds for a moment is nobody's problem; what three looks cannot read is."""
PROBE_FIRST_S = 5.0
ASK_FULLY_EVERY_S = 10.0

# --- messages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something may have changed at these paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScanWanted:
    """These lanes must be reconciled (None: all). One that is not full only looks for what came, went or was edited."""

    equipment_ids: tuple[str, ...] | None = None
    is_full: bool = True


@dataclass(frozen=True, slots=True)
class Requested:
    """An operator's command. `reply` is called once with the answer, after what it caused is durable."""

    request: Mapping[str, Any]
    reply: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan found, or why nothing is concluded from it.

    `gone`: known paths at which nothing stands. `signalled`: runs whose signal has come.
    """

    equipment_id: str
    began_s: float
    ended_s: float
    is_full: bool
    error: str | None = None
    volume: str = ""
    found: Differences | None = None
    gone: tuple[str, ...] = ()
    signalled: tuple[str, ...] = ()
    accepted_by: str | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """`twins`: place of another run of the same identity → whether a run is still there, of those that were asked for."""

    order: Look
    result: LookResult
    began_s: float
    ended_s: float
    twins: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Worked:
    job_id: str
    turn: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class StatusWritten:
    job_id: str
    status: str
    saved: SavedCreation | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Probed:
    equipment_id: str
    marker_id: str | None
    error: DestinationUnreachableError | None


@dataclass(frozen=True, slots=True)
class DestinationLost:
    """The destination could not be used for something that is no run's work."""

    equipment_id: str
    error: DestinationUnreachableError


@dataclass(frozen=True, slots=True)
class Bound:
    """A destination root was bound because an operator said so, or could not be: `marker_id`, or `error` in words."""

    equipment_id: str
    operator: str
    marker_id: str | None
    error: str | None
    reply: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Woken:
    pass


# --- what the loop keeps in memory -----------------------------------------------------------------------------------


@dataclass
class LaneSetup:
    """One equipment as agent.py puts it together. `make_ports` is handed two questions that the engine answers."""

    equipment: EquipmentPolicy
    root: str
    scanner: RunScanner
    make_ports: Callable[[Callable[[], Binding | None], Callable[[], Mapping[str, Any]]], Ports]
    root_lock: RootLock


@dataclass
class Lane:
    """All work of one equipment. Its executors are its own, so that a hanging mount holds up no other lane.

    `eyes` look, scan and probe; `hands` push, hash and seal, so that ten-hour pushes never make the lane blind.
    `is_ours`: a scan found that this is the root that we know, and it is held against agents of other state folders;
    until then nothing there is looked at or touched, and `root_problem` says why not. `waiting_since`: since when the
    destination cannot be used; `wait` names that wait. `asking`: how many
    probes and bindings of it are under way.
    `known`: run path → signature of the `creation.json` that was last taken in, None when none was in this life;
    `passed_over`: the same of folders that are no usable run. `unsignalled`: paths of runs whose signal is not there: only
    scans ask for it, and so does whatever event comes. `backlog`: paths to look at when there is time.
    """

    equipment: EquipmentPolicy
    root: str
    scanner: RunScanner
    root_lock: RootLock
    ports: Ports
    eyes: Executor
    hands: Executor
    marker_key: str
    binding: Binding | None = None
    ready: deque[str] = field(default_factory=deque)
    audits: deque[str] = field(default_factory=deque)
    parked: dict[str, WorkEffect] = field(default_factory=dict)
    pushing: str | None = None
    auditing: str | None = None
    waiting_since: datetime | None = None
    waiting_reason: str = ""
    wait: Wait = NAS_UNREACHABLE
    asking: int = 0
    probe_wait_s: float = PROBE_FIRST_S
    asked_fully_s: float = -ASK_FULLY_EVERY_S
    volume: str | None = None
    accepted_volume: str | None = None
    accepted_by: str | None = None
    root_problem: str | None = None
    root_wait_s: float = 0.0
    is_ours: bool = False
    is_scanning: bool = False
    scan_again: bool = False
    scan_is_full: bool = False
    scan_not_before_s: float = 0.0
    scan_took_s: float = 0.0
    known: dict[str, Signature | None] = field(default_factory=dict)
    passed_over: dict[str, Signature] = field(default_factory=dict)
    unsignalled: set[str] = field(default_factory=set)
    backlog: OrderedDict[str, None] = field(default_factory=OrderedDict)
    background_looks: int = 0
    last_scan_at: datetime | None = None
    runs_seen: int = 0
    gone: frozenset[str] = frozenset()
    last_success_at: datetime | None = None
    orphans: dict[str, RunPlace] = field(default_factory=dict)


@dataclass
class Task:
    turn: int
    cancel: threading.Event
    lane: Lane
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    began_s: float = 0.0
    is_seal: bool = False


@dataclass(slots=True)
class View:
    """What the last look at a run said; not persisted, told to people.

    `unreadable`: which part of it cannot be read and why; `unreadable_looks`: how many looks in a row said so, counted up
    to those after which it is told.
    """

    reason: str = ""
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    own_signature: Signature | None = None
    fingerprint: str = ""
    quiet_since_s: float = 0.0
    changes: int = 0
    looks_unchanged: int = 0
    is_settling: bool = False
    unreadable: str = ""
    unreadable_looks: int = 0


@dataclass(slots=True)
class LookState:
    """`is_slow`: its last look took so long that the next one waits for its turn in the background."""

    is_running: bool = False
    again: bool = False
    not_before_s: float = 0.0
    is_slow: bool = False
    is_background: bool = False
