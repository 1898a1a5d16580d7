"""What an agent says of itself to others: the live view, the heartbeat, and who holds the state folder.

The values here are what every reader in this package works with; their JSON is written and read in this module alone, and
its keys are a promise. What another version or a damaged disk has left gives what can be read of it, and never an error:
all of this is true now or not at all, and nothing depends on it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from exlab_watch_agent.core.gate import Finding, OffendingKind, Rule, Tier
from exlab_watch_agent.core.text import printable, utc_text
from exlab_watch_agent.errors import NAS_UNREACHABLE

SCAN = "scan"
"""The kind where there is no observer: the folders are scanned, and no events are listened to."""

View = TypeVar("View")


@dataclass(frozen=True, slots=True)
class SeenEarlier:
    """An agent that is gone saw it so; `at` is None where it did not leave the time."""

    at: datetime | None


@dataclass(frozen=True, slots=True)
class LaneView:
    """How it is with one equipment. `waiting_since`: since when its destination cannot be used, None when it can.

    `root_problem`: why nothing is concluded from its folder. `seen_earlier` is set where it is not this agent's own word.
    """

    destination: str = ""
    waiting_since: datetime | None = None
    waiting_reason: str = ""
    waiting_kind: str = NAS_UNREACHABLE.code
    waiting_command: str = NAS_UNREACHABLE.command
    root_problem: str | None = None
    last_scan_at: datetime | None = None
    last_success_at: datetime | None = None
    seen_earlier: SeenEarlier | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "waiting_since": _time(self.waiting_since),
            "waiting_reason": self.waiting_reason,
            "waiting_kind": self.waiting_kind,
            "waiting_command": self.waiting_command,
            "root_problem": self.root_problem,
            "last_scan_at": _time(self.last_scan_at),
            "last_success_at": _time(self.last_success_at),
            **({"at": _time(self.seen_earlier.at)} if self.seen_earlier is not None else {}),
        }

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> LaneView:
        return cls(
            destination=_text(left, "destination"),
            waiting_since=_moment(left, "waiting_since"),
            waiting_reason=_text(left, "waiting_reason"),
            waiting_kind=_text(left, "waiting_kind") or NAS_UNREACHABLE.code,
            waiting_command=_text(left, "waiting_command") or NAS_UNREACHABLE.command,
            root_problem=_text(left, "root_problem") or None,
            last_scan_at=_moment(left, "last_scan_at"),
            last_success_at=_moment(left, "last_success_at"),
            seen_earlier=SeenEarlier(_moment(left, "at")) if "at" in left else None,
        )


@dataclass(frozen=True, slots=True)
class RootHealth:
    """How one root is watched. Degraded: less is seen, or later, than was asked for; `command` is what helps.

    `watches` and `missing` count folders, `let_go` finished runs that are left to the scans.
    """

    kind: str
    is_degraded: bool = False
    reason: str = ""
    command: str = ""
    watches: int = 0
    missing: int = 0
    let_go: int = 0
    canary: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "degraded": self.is_degraded,
            "reason": printable(self.reason),
            "command": self.command,
            "watches": self.watches,
            "missing": self.missing,
            "let_go": self.let_go,
            "canary": printable(self.canary),
        }

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> RootHealth:
        return cls(
            kind=_text(left, "kind"),
            is_degraded=bool(left.get("degraded")),
            reason=_text(left, "reason"),
            command=_text(left, "command"),
            watches=_number(left, "watches"),
            missing=_number(left, "missing"),
            let_go=_number(left, "let_go"),
            canary=_text(left, "canary"),
        )


@dataclass(frozen=True, slots=True)
class ObserverView:
    """How the roots are watched; `kind` is `mixed` where that differs. `watches_allowed`: by the system, where it says so."""

    kind: str = SCAN
    is_degraded: bool = False
    restarts: int = 0
    watches_allowed: int | None = None
    roots: Mapping[str, RootHealth] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "degraded": self.is_degraded,
            "restarts": self.restarts,
            **({"watches_allowed": self.watches_allowed} if self.kind != SCAN else {}),
            "roots": {equipment_id: health.to_json() for equipment_id, health in self.roots.items()},
        }

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> ObserverView:
        return cls(
            kind=_text(left, "kind") or SCAN,
            is_degraded=bool(left.get("degraded")),
            restarts=_number(left, "restarts"),
            watches_allowed=_number(left, "watches_allowed") or None,
            roots=_each(left, "roots", RootHealth.from_json),
        )


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a run's work is, `seconds` after it began."""

    bytes_done: int = 0
    files_done: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"bytes_done": self.bytes_done, "files_done": self.files_done, "seconds": round(self.seconds, 1)}

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> ProgressView:
        seconds = left.get("seconds")
        return cls(
            bytes_done=_number(left, "bytes_done"),
            files_done=_number(left, "files_done"),
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        )


@dataclass(frozen=True, slots=True)
class UnreadableView:
    """What of a run cannot be read, said by so many looks in a row."""

    message: str
    looks: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"message": printable(self.message), "looks": self.looks}

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> UnreadableView:
        return cls(_text(left, "message"), _number(left, "looks"))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment beside the records. What is not known is empty.

    `lanes`: equipment id → view. `progress`, `waiting` (why it does not go on), `run_problems` and `refused_after_sync`
    (rules that a synced run breaks now): by job id. `unreadable` and `path_problems` (folders that are not a usable run): by
    path, as it is shown. `roots_away`: equipment id → why its folder cannot be looked through; a fresh look's, never written.
    """

    at: datetime | None = None
    lanes: Mapping[str, LaneView] = field(default_factory=dict)
    observer: ObserverView | None = None
    progress: Mapping[str, ProgressView] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    run_problems: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, UnreadableView] = field(default_factory=dict)
    path_problems: Mapping[str, str] = field(default_factory=dict)
    orphans: tuple[Finding, ...] = ()
    refused_after_sync: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roots_away: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "at": _time(self.at),
            "lanes": lanes_json(self.lanes),
            "observer": self.observer.to_json() if self.observer is not None else None,
            "progress": {job_id: progress.to_json() for job_id, progress in self.progress.items()},
            "waiting": dict(self.waiting),
            "run_problems": dict(self.run_problems),
            "unreadable": {path: unreadable.to_json() for path, unreadable in self.unreadable.items()},
            "path_problems": dict(self.path_problems),
            "orphans": [finding.to_json() for finding in self.orphans],
            "refused_after_sync": {job_id: list(details) for job_id, details in self.refused_after_sync.items()},
        }

    @classmethod
    def from_json(cls, left: object) -> Snapshot:
        """Return what can be read of a live view that an agent left: nothing, where it is none at all."""
        if not isinstance(left, dict):
            return cls()
        observer = left.get("observer")
        orphans = left.get("orphans")
        refused = _block(left, "refused_after_sync")
        return cls(
            at=_moment(left, "at"),
            lanes=_each(left, "lanes", LaneView.from_json),
            observer=ObserverView.from_json(observer) if isinstance(observer, dict) and observer else None,
            progress=_each(left, "progress", ProgressView.from_json),
            waiting=_texts(left, "waiting"),
            run_problems=_texts(left, "run_problems"),
            unreadable=_each(left, "unreadable", UnreadableView.from_json),
            path_problems=_texts(left, "path_problems"),
            orphans=tuple(_findings(orphans if isinstance(orphans, list) else ())),
            refused_after_sync={
                job_id: tuple(str(detail) for detail in details)
                for job_id, details in refused.items()
                if isinstance(details, list)
            },
        )


@dataclass(frozen=True, slots=True)
class OldestUnsynced:
    """The run that has waited longest to be synced, and since when."""

    run_path: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What an agent says of itself here and on each NAS, so that its silence is noticed. `counts`: state → runs in it.

    `audit_seq` and `audit_blake3`: the head of the trail, by which a state folder that was put back is noticed.
    """

    at: datetime
    host: str
    state_folder: str
    machine: str
    path: str
    pid: int
    version: str
    counts: Mapping[str, int]
    oldest_unsynced: OldestUnsynced | None
    lanes: Mapping[str, LaneView]
    observer: ObserverView | None
    audit_seq: int
    audit_blake3: str
    paused: str | None
    hold: str | None

    def to_json(self) -> dict[str, Any]:
        oldest = self.oldest_unsynced
        return {
            "schema": 1,
            "at": _time(self.at),
            "host": self.host,
            "state_folder": self.state_folder,
            "machine": self.machine,
            "path": self.path,
            "pid": self.pid,
            "version": self.version,
            "counts": dict(self.counts),
            "oldest_unsynced": {"run_path": printable(oldest.run_path), "since": _time(oldest.since)}
            if oldest
            else None,
            "lanes": lanes_json(self.lanes),
            "observer": self.observer.to_json() if self.observer is not None else None,
            "audit": {"seq": self.audit_seq, "blake3": self.audit_blake3},
            "paused": self.paused,
            "hold": self.hold,
        }


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the state folder. `paused`: why nothing is decided there now. None: it does not say, or cannot be read."""

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    version: str | None = None
    paused: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "host": self.host,
            "since": self.since,
            "version": self.version,
            "paused": self.paused,
        }

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> Holder:
        return cls(
            pid=_number(left, "pid") or None,
            host=_text(left, "host") or None,
            since=_text(left, "since") or None,
            version=_text(left, "version") or None,
            paused=_text(left, "paused") or None,
        )


def lanes_json(lanes: Mapping[str, LaneView]) -> dict[str, Any]:
    return {equipment_id: lane.to_json() for equipment_id, lane in lanes.items()}


# --- reading what others left ----------------------------------------------------------------------------------------


def _time(moment: datetime | None) -> str | None:
    return utc_text(moment) if moment is not None else None


def _block(left: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = left.get(key)
    return found if isinstance(found, dict) else {}


def _each(left: Mapping[str, Any], key: str, read: Callable[[Mapping[str, Any]], View]) -> dict[str, View]:
    return {name: read(found) for name, found in _block(left, key).items() if isinstance(found, dict)}


def _texts(left: Mapping[str, Any], key: str) -> dict[str, str]:
    return {name: found for name, found in _block(left, key).items() if isinstance(found, str)}


def _text(left: Mapping[str, Any], key: str) -> str:
    found = left.get(key)
    return found if isinstance(found, str) else ""


def _number(left: Mapping[str, Any], key: str) -> int:
    found = left.get(key)
    return found if isinstance(found, int) else 0


def _moment(left: Mapping[str, Any], key: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(_text(left, key))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _findings(left: Iterable[Any]) -> Iterable[Finding]:
    for found in left:
        try:
            yield Finding(
                rule=Rule(found["rule"]),
                tier=Tier(found["tier"]),
                run_path=found["run_path"],
                offending_path=found["offending_path"],
                offending_kind=OffendingKind(found["offending_kind"]),
                matched_token=found["matched_token"],
                rule_detail=found["rule_detail"],
                synced_under_prior_policy=bool(found.get("synced_under_prior_policy")),
                override_active=bool(found.get("override_active")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # of a rule that this version does not have
