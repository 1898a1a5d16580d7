"""What other threads may read of the engine at any time: immutable values, swapped for new ones when something changed.

A reader that has one has it whole. True now or not at all: nothing here is persisted, and nobody but the loop makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from rpds import HashTrieMap

from exlab_watch_agent.core.attention import UNREADABLE_LOOKS_TOLD as UNREADABLE_LOOKS_TOLD
from exlab_watch_agent.core.binding import accepted
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.gate import Finding, blocking
from exlab_watch_agent.core.link import Answering, Away
from exlab_watch_agent.core.snapshot import FolderProblem, Note
from exlab_watch_agent.core.week import Room
from exlab_watch_agent.engine.lane import Lane


@dataclass(frozen=True, slots=True)
class RunView:
    """What the last look at a run said.

    `reason`: why it is where it is; `problem`: what keeps it from its goal; `unreadable`: which part of it cannot be read
    and why, and `unreadable_looks`: how many looks in a row said so, counted up to the number after which it is reported. `notes`:
    what else is to be told of it.
    """

    reason: str = ""
    problem: Note | None = None
    findings: tuple[Finding, ...] = ()
    unreadable: str = ""
    unreadable_looks: int = 0
    notes: tuple[Note, ...] = ()

    @property
    def has_news(self) -> bool:
        """Whether there is anything in it that a person should know of a run that rests."""
        return bool(self.problem or self.unreadable or self.notes or blocking(self.findings))


NOTHING = RunView()


@dataclass(frozen=True, eq=False)
class Told:
    """Equal to itself only: each change makes a new one, and to compare two would cost as much as there are runs.

    `runs`: job id → what is said of a run; a run that rests, with nothing to say about it, has none.

    `folders`: path → what keeps a folder from being a usable run.
    """

    runs: HashTrieMap[str, RunView] = field(default_factory=HashTrieMap)
    folders: HashTrieMap[str, FolderProblem] = field(default_factory=HashTrieMap)


class Views:
    """Written by the loop's thread only."""

    def __init__(self) -> None:
        self.now = Told()

    def of(self, job_id: str) -> RunView:
        return self.now.runs.get(job_id, NOTHING)

    def tell(self, job_id: str, view: RunView) -> None:
        """Say this of a run from now on."""
        if self.now.runs.get(job_id) != view:
            self.now = replace(self.now, runs=self.now.runs.insert(job_id, view))

    def tell_problem(self, job_id: str, problem: Note) -> None:
        """Say what keeps a run from its goal."""
        self.tell(job_id, replace(self.of(job_id), problem=problem))

    def forget(self, job_id: str) -> None:
        if job_id in self.now.runs:
            self.now = replace(self.now, runs=self.now.runs.remove(job_id))

    def tell_of_folder(self, path: str, problem: FolderProblem | None) -> None:
        """Say what keeps a folder from being a usable run; None: nothing does."""
        if self.now.folders.get(path) == problem:
            return
        folders = self.now.folders
        self.now = replace(self.now, folders=folders.remove(path) if problem is None else folders.insert(path, problem))


@dataclass(frozen=True, slots=True)
class LaneNow:
    """A lane as it is between two passes.

    `root_problem`: why nothing is concluded from its root; `away`: since when and why its destination cannot be used.
    `has_asked`: whether the destination has shown in this life that it keeps what is written. `is_bound`: whether an
    accepted destination root is known. `scan_took_s`: how long its last scan took. `lacks_heartbeat`: the last sign of life could
    not be left there. `unread_since`: the oldest time since which a copy was not read that is overdue and waits for its instrument.
    """

    is_ours: bool
    root_problem: str | None
    away: Away | None
    has_asked: bool
    is_bound: bool
    scan_took_s: float
    last_scan_at: datetime | None
    last_success_at: datetime | None
    doubted_since: datetime | None
    answered_at: datetime | None
    room_here: Room | None
    room_there: Room | None
    runs_seen: int
    gone: frozenset[str]
    orphans: tuple[RunPlace, ...]
    misplaced: Mapping[str, FolderProblem]
    lacks_heartbeat: bool = False
    unread_since: datetime | None = None


def lane_now(lane: Lane) -> LaneNow:
    link = lane.link
    return LaneNow(
        is_ours=lane.is_ours,
        root_problem=lane.root_problem,
        away=lane.waits,
        has_asked=isinstance(link, Answering) and link.asked_fully_s is not None,
        is_bound=accepted(lane.binding, lane.spelling) is not None,
        scan_took_s=lane.scan_took_s,
        last_scan_at=lane.last_scan_at,
        last_success_at=lane.last_success_at,
        doubted_since=lane.doubted_since,
        answered_at=lane.answered_at,
        room_here=lane.room_here,
        room_there=lane.room_there,
        runs_seen=lane.runs_seen,
        gone=lane.gone,
        orphans=lane.orphans,
        misplaced=lane.misplaced,
        lacks_heartbeat=lane.lacks_heartbeat,
        unread_since=min(lane.unread.values(), default=None),
    )


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing is decided now, in one sentence with the next step, and since when."""

    since: datetime
    reason: str


@dataclass(frozen=True)
class EngineView:
    """All that others see of the engine, as it was at the end of its last pass. `lanes`: equipment id → lane."""

    lanes: Mapping[str, LaneNow]
    told: Told
    pause: Pause | None = None
