"""What the engine's loop is told and what it keeps in memory: messages of the inbox, lanes, views.

Nothing here outlives the process: what must, is in core/record.py. Only the loop's thread changes these values, but for
a task's progress and its cancel flag.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import WorkEffect
from exlab_watch_agent.core.events import Outcome
from exlab_watch_agent.core.gate import Finding
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.handlers import Look, LookResult
from exlab_watch_agent.ports import Ports, Progress, RunScanner, SeenRun

PROBE_FIRST_S = 5.0
ASK_FULLY_EVERY_S = 10.0

# --- messages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something may have changed at these paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScanWanted:
    """These lanes must be reconciled (None: all)."""

    equipment_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Requested:
    """An operator's command. `reply` is called once with the answer, after what it caused is durable."""

    request: Mapping[str, Any]
    reply: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Scanned:
    equipment_id: str
    seen: tuple[SeenRun, ...] = ()
    error: str | None = None
    is_full: bool = True


@dataclass(frozen=True, slots=True)
class Looked:
    order: Look
    result: LookResult
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Worked:
    job_id: str
    turn: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class StatusWritten:
    job_id: str
    status: str
    signature: tuple[int, int, int] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Probed:
    equipment_id: str
    marker_id: str | None
    error: str | None


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
    make_ports: Callable[[Callable[[], str | None], Callable[[], Mapping[str, Any]]], Ports]


@dataclass
class Lane:
    """All work of one equipment. Its executors are its own, so that a hanging mount holds up no other lane.

    `eyes` look, scan and probe; `hands` push, hash and seal, so that ten-hour pushes never make the lane blind.
    """

    equipment: EquipmentPolicy
    root: str
    scanner: RunScanner
    ports: Ports
    eyes: Executor
    hands: Executor
    marker_key: str
    marker_id: str | None = None
    ready: deque[str] = field(default_factory=deque)
    audits: deque[str] = field(default_factory=deque)
    parked: dict[str, WorkEffect] = field(default_factory=dict)
    pushing: str | None = None
    auditing: str | None = None
    waiting_since: datetime | None = None
    waiting_reason: str = ""
    probe_wait_s: float = PROBE_FIRST_S
    asked_fully_s: float = -ASK_FULLY_EVERY_S
    root_problem: str | None = None
    is_scanning: bool = False
    scan_again: bool = False
    scan_is_full: bool = False
    backlog: dict[str, None] = field(default_factory=dict)
    background_looks: int = 0
    last_scan_at: datetime | None = None
    last_success_at: datetime | None = None
    orphans: dict[str, RunPlace] = field(default_factory=dict)


@dataclass
class Task:
    turn: int
    cancel: threading.Event
    lane: Lane
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    began_s: float = 0.0


@dataclass
class View:
    """What the last look at a run said; not persisted, told to people."""

    reason: str = ""
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    signature: tuple[int, int, int] | None = None
    own_signature: tuple[int, int, int] | None = None
    fingerprint: str = ""
    quiet_since_s: float = 0.0
    changes: int = 0
    looks_unchanged: int = 0
    rereads: int = 0
    is_settling: bool = False


@dataclass
class LookState:
    is_running: bool = False
    again: bool = False
    not_before_s: float = 0.0
    is_background: bool = False
