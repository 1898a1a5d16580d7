"""One equipment as the loop keeps it in memory: its root, its destination, its queues, and what is known of its folders.

Nothing here outlives the process: what must, is in core/record.py. Decided here: what may start while the root is not ours or
the destination is away. Not here: what those two may be (core/root.py, core/link.py), and what runs (errands.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from exlab_watch_agent.core import link as links
from exlab_watch_agent.core import root as roots
from exlab_watch_agent.core.binding import Below, Binding
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import (
    Admit,
    CarryCache,
    Effect,
    PlaceHeartbeat,
    Precheck,
    Push,
    Seal,
    Verify,
    WriteStatus,
)
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.link import Away, Link
from exlab_watch_agent.core.reconcile import Known
from exlab_watch_agent.core.root import Doubted, Ours, Root
from exlab_watch_agent.core.snapshot import FolderProblem
from exlab_watch_agent.core.week import Room
from exlab_watch_agent.engine.messages import Answer
from exlab_watch_agent.errors import DESTINATION_REPLACING
from exlab_watch_agent.ports import Ports


@dataclass(frozen=True, slots=True)
class Replacing:
    """An operator's word that another root takes the place of the bound one, until it has been carried out or refused.

    `reply`: takes the answer. `is_asked`: the lane was at rest, and the root is being looked at.
    """

    operator: str
    reason: str
    reply: Callable[[Answer], None]
    since: datetime
    is_asked: bool = False

    def as_wait(self) -> Away:
        """Return what is told of it until it has been carried out."""
        text = (
            f"its destination is being replaced, as {self.operator} asked: nothing is started until the work under way has ended. "
            "Should that hang, end the agent, start it again and give the command once more"
        )
        return Away(self.since, text, DESTINATION_REPLACING)


@dataclass
class Lane:
    """All work of one equipment.

    `spelling`: of the destination root, as its transport says it; `binding`: the equipment's, which may be to another one;
    `mounts`: those known directly below the root. `is_working`: False where the engine only finds out what is where. `queue`,
    `audits`: job ids of the runs that may be pushed, and audited, in this order; `firsts`: those that an operator wants pushed
    before all others. `known`: run path → signature of the `creation.json` that was last read, None when none was in this life;
    `rejected`: the same of folders that are not a usable run. `unsignalled`: runs waiting for their completeness signal; only a
    scan or an event for that run checks it again. `backlog`: paths to look at when there is time. `caches`: path of a sealed run
    → how its cache folder looked when it travelled last; `caches_due`: job ids of those that look otherwise. `accepted_by`: an
    operator's word on what is in the root, of which the next scan takes note; `replacing`: one on the destination, for which the
    lane comes to rest: nothing more is started there. `gone`: paths of known runs that the last scan did not find; `vanished`:
    those of sealed ones of which two in a row say so, and that are in no other place as far as can be told; `asks_twice`: the
    second scan is still to come. `doubted_since`: since when nothing is concluded from the root; `answered_at`: when the
    destination last answered a question. `room_here`, `room_there`: how much room the disk of the root, and the destination, had
    when they were last asked. `lacks_heartbeat`: the last sign of life could not be left at the destination. `misplaced`: what
    the last search found where no run can be, by folder. `reread_not_before_s`: when an overdue run may be read beside the
    working instrument again; `unread`: job id → since when it was not read, of those that are overdue and wait for that.
    """

    ports: Ports
    spelling: str
    binding: Binding | None = None
    mounts: dict[str, Below] = field(default_factory=dict)
    is_working: bool = True
    replacing: Replacing | None = None
    root: Root = field(default_factory=roots.Unasked)
    link: Link = field(default_factory=links.Unasked)
    queue: OrderedDict[str, None] = field(default_factory=OrderedDict)
    firsts: set[str] = field(default_factory=set)
    audits: OrderedDict[str, None] = field(default_factory=OrderedDict)
    accepted_volume: str | None = None
    accepted_by: str | None = None
    scan_not_before_s: float = 0.0
    scan_took_s: float = 0.0
    known: dict[str, FileSignature | None] = field(default_factory=dict)
    rejected: dict[str, FileSignature] = field(default_factory=dict)
    unsignalled: set[str] = field(default_factory=set)
    backlog: OrderedDict[str, None] = field(default_factory=OrderedDict)
    caches: dict[str, int] = field(default_factory=dict)
    caches_due: OrderedDict[str, None] = field(default_factory=OrderedDict)
    gone: frozenset[str] = frozenset()
    vanished: frozenset[str] = frozenset()
    asks_twice: bool = False
    lacks_heartbeat: bool = False
    reread_not_before_s: float = 0.0
    unread: dict[str, datetime] = field(default_factory=dict)
    orphans: tuple[RunPlace, ...] = ()
    misplaced: Mapping[str, FolderProblem] = field(default_factory=dict)
    runs_seen: int = 0
    last_scan_at: datetime | None = None
    last_success_at: datetime | None = None
    doubted_since: datetime | None = None
    answered_at: datetime | None = None
    room_here: Room | None = None
    room_there: Room | None = None

    @property
    def equipment_id(self) -> str:
        return self.ports.equipment.equipment_id

    @property
    def is_ours(self) -> bool:
        """Whether the last scan found this root to be ours: until then nothing there is looked at or touched."""
        return isinstance(self.root, Ours)

    @property
    def root_problem(self) -> str | None:
        """Why nothing is concluded from this root, in one sentence; None where it is ours or was not asked yet."""
        return self.root.reason if isinstance(self.root, Doubted) else None

    @property
    def away(self) -> Away | None:
        """Since when and why the destination cannot be used; None where it answers or was not asked yet."""
        return self.link if isinstance(self.link, Away) else None

    @property
    def waits(self) -> Away | None:
        """Since when and why nothing is started at the destination; None where something may be."""
        return self.away or (self.replacing.as_wait() if self.replacing is not None else None)

    @property
    def is_held(self) -> bool:
        """Whether nothing may be started at the destination now: it is away, or about to be replaced."""
        return self.waits is not None

    @property
    def may_read(self) -> bool:
        """Whether the destination may be read now: also while it is full."""
        return self.replacing is None and (self.away is None or self.away.is_full)

    def ports_now(self) -> Ports:
        """Return the lane's ports with what is known of both sides now."""
        return replace(self.ports, binding=self.binding, mounts=dict(self.mounts), volume=roots.volume_of(self.root))

    def is_open_for(self, effect: Effect) -> bool:
        """Return whether an effect may start: while the root is not ours, or the NAS away, what needs it waits."""
        match effect:
            case Push() | Seal() | CarryCache():
                return self.is_working and self.is_ours and not self.is_held
            case Precheck() | Verify():
                return self.is_working and self.is_ours and self.may_read
            case Admit():
                return self.is_ours and not self.is_held
            case WriteStatus():
                return self.is_ours
            case PlaceHeartbeat():
                return self.may_read
        return True

    # --- queues ------------------------------------------------------------------------------------------------------

    def put_into_queue(self, job_id: str, *, is_first: bool = False) -> None:
        if job_id not in self.queue:
            self.queue[job_id] = None
            self.queue.move_to_end(job_id, last=not (is_first or job_id in self.firsts))

    def put_before_all(self, job_id: str) -> None:
        """Have this run pushed before all others of the lane, from when it is ready to be; the last one asked for comes first."""
        self.firsts.add(job_id)
        if job_id in self.queue:
            self.queue.move_to_end(job_id, last=False)

    def put_first(self, run_paths: Iterable[str]) -> None:
        """Have these folders looked at in the background, in this order, before all others that wait."""
        for path in reversed(list(run_paths)):
            self.backlog[path] = None
            self.backlog.move_to_end(path, last=False)

    # --- what is known of its folders --------------------------------------------------------------------------------

    def as_known(self, volume: str | None) -> Known:
        """Return what a scan is to compare with; `volume`: identity under which the root was last bound."""
        caches = dict(self.caches)
        return Known(dict(self.known), dict(self.rejected), volume, self.accepted_volume, self.accepted_by, caches)

    def read(self, run_path: str, signature: FileSignature | None) -> None:
        """Take note of the `creation.json` of a run that was read; None: it is to be read once more."""
        self.rejected.pop(run_path, None)
        self.known[run_path] = signature
        # A scan may have come between a new run's folder and its `creation.json`.
        self.orphans = tuple(orphan for orphan in self.orphans if orphan.run_path != run_path)

    def forget(self, run_path: str) -> None:
        """Forget a path at which the run no longer is."""
        self.known.pop(run_path, None)
        self.caches.pop(run_path, None)
        self.unsignalled.discard(run_path)
