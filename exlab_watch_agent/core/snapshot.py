"""What is known of one moment beside the records: the snapshot that a running agent leaves as its live view.

The values here are what every reader in this package works with; their JSON is written and read in this module alone, and
its keys are a promise. What another version or a damaged disk has left gives what can be read of it, and never an error:
all of this is true now or not at all, and nothing depends on it. Not here: the heartbeat (report/heartbeat.py), and what of
all this needs a person (attention.py). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from exlab_watch_agent.core.gate import Finding, OffendingKind, Rule, Tier
from exlab_watch_agent.core.members import block, each, moment, number, text, texts, time_text
from exlab_watch_agent.core.text import printable, unicode_text
from exlab_watch_agent.errors import NAS_UNREACHABLE

SCAN = "scan"
"""The kind where there is no observer: the folders are scanned, and no events are listened to."""


@dataclass(frozen=True, slots=True)
class SeenEarlier:
    """An agent that is gone saw it so; `at` is None where it did not leave the time."""

    at: datetime | None


@dataclass(frozen=True, slots=True)
class LaneView:
    """How it is with one equipment. `waiting_since`: since when its destination cannot be used, None when it can.

    `root_problem`: why nothing is concluded from its folder. `answered_at`: when its destination last answered a question.
    `unread_since`: since when a proven copy was not read again that is overdue; None where none is.
    `seen_earlier` is set where it is not this agent's own word.
    """

    destination: str = ""
    waiting_since: datetime | None = None
    waiting_reason: str = ""
    waiting_kind: str = NAS_UNREACHABLE.code
    waiting_command: str = NAS_UNREACHABLE.command
    root_problem: str | None = None
    last_scan_at: datetime | None = None
    last_success_at: datetime | None = None
    root_problem_since: datetime | None = None
    answered_at: datetime | None = None
    unread_since: datetime | None = None
    seen_earlier: SeenEarlier | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "destination": self.destination,
            "waiting_since": time_text(self.waiting_since),
            "waiting_reason": self.waiting_reason,
            "waiting_kind": self.waiting_kind,
            "waiting_command": self.waiting_command,
            "root_problem": self.root_problem,
            "last_scan_at": time_text(self.last_scan_at),
            "last_success_at": time_text(self.last_success_at),
            "root_problem_since": time_text(self.root_problem_since),
            "answered_at": time_text(self.answered_at),
            **({"unread_since": time_text(self.unread_since)} if self.unread_since is not None else {}),
            **({"at": time_text(self.seen_earlier.at)} if self.seen_earlier is not None else {}),
        }

    @classmethod
    def from_json(cls, left: Mapping[str, object]) -> LaneView:
        return cls(
            destination=text(left, "destination"),
            waiting_since=moment(left, "waiting_since"),
            waiting_reason=text(left, "waiting_reason"),
            waiting_kind=text(left, "waiting_kind") or NAS_UNREACHABLE.code,
            waiting_command=text(left, "waiting_command") or NAS_UNREACHABLE.command,
            root_problem=text(left, "root_problem") or None,
            last_scan_at=moment(left, "last_scan_at"),
            last_success_at=moment(left, "last_success_at"),
            root_problem_since=moment(left, "root_problem_since"),
            answered_at=moment(left, "answered_at"),
            unread_since=moment(left, "unread_since"),
            seen_earlier=SeenEarlier(moment(left, "at")) if "at" in left else None,
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

    def to_json(self) -> dict[str, object]:
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
    def from_json(cls, left: Mapping[str, object]) -> RootHealth:
        return cls(
            kind=text(left, "kind"),
            is_degraded=bool(left.get("degraded")),
            reason=text(left, "reason"),
            command=text(left, "command"),
            watches=number(left, "watches"),
            missing=number(left, "missing"),
            let_go=number(left, "let_go"),
            canary=text(left, "canary"),
        )


@dataclass(frozen=True, slots=True)
class ObserverView:
    """How the roots are watched; `kind` is `mixed` where that differs. `watches_allowed`: by the system, where it says so."""

    kind: str = SCAN
    is_degraded: bool = False
    restarts: int = 0
    watches_allowed: int | None = None
    roots: Mapping[str, RootHealth] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "degraded": self.is_degraded,
            "restarts": self.restarts,
            **({"watches_allowed": self.watches_allowed} if self.kind != SCAN else {}),
            "roots": {equipment_id: health.to_json() for equipment_id, health in self.roots.items()},
        }

    @classmethod
    def from_json(cls, left: Mapping[str, object]) -> ObserverView:
        return cls(
            kind=text(left, "kind") or SCAN,
            is_degraded=bool(left.get("degraded")),
            restarts=number(left, "restarts"),
            watches_allowed=number(left, "watches_allowed") or None,
            roots=each(left, "roots", RootHealth.from_json),
        )


class Doing(StrEnum):
    """What is being done with a run."""

    PUSH = "push"
    PRECHECK = "precheck"
    VERIFY = "verify"
    AUDIT = "audit"
    SEAL = "seal"


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a run's work is, `seconds` after it began.

    `doing` is None where an earlier version left it. `bytes_total`: of the run. `limit_bytes_per_s`: the bandwidth limit in force
    on the way to its destination, None for none.
    """

    bytes_done: int = 0
    files_done: int = 0
    seconds: float = 0.0
    doing: Doing | None = None
    bytes_total: int = 0
    limit_bytes_per_s: float | None = None

    @property
    def rate_bytes_per_s(self) -> float:
        """The mean rate since it began."""
        return self.bytes_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long it takes at that rate, None where that cannot be told."""
        rate = self.rate_bytes_per_s
        return max(0, self.bytes_total - self.bytes_done) / rate if rate > 0 and self.bytes_total else None

    def to_json(self) -> dict[str, object]:
        return {
            "bytes_done": self.bytes_done,
            "files_done": self.files_done,
            "seconds": round(self.seconds, 1),
            "doing": self.doing.value if self.doing is not None else None,
            "bytes_total": self.bytes_total,
            "limit_bytes_per_s": self.limit_bytes_per_s,
        }

    @classmethod
    def from_json(cls, left: Mapping[str, object]) -> ProgressView:
        seconds, limit, doing = left.get("seconds"), left.get("limit_bytes_per_s"), text(left, "doing")
        return cls(
            bytes_done=number(left, "bytes_done"),
            files_done=number(left, "files_done"),
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
            doing=next((one for one in Doing if one.value == doing), None),
            bytes_total=number(left, "bytes_total"),
            limit_bytes_per_s=float(limit) if isinstance(limit, int | float) else None,
        )


@dataclass(frozen=True, slots=True)
class UnreadableView:
    """What of a run cannot be read, said by so many looks in a row."""

    message: str
    looks: int = 1

    def to_json(self) -> dict[str, object]:
        return {"message": printable(self.message), "looks": self.looks}

    @classmethod
    def from_json(cls, left: Mapping[str, object]) -> UnreadableView:
        return cls(text(left, "message"), number(left, "looks"))


@dataclass(frozen=True, slots=True)
class FolderProblem:
    """Why a folder is not a usable run. `code`: what it is called; `detail`: what else a program may want to know of it.

    `runs`: paths of the folders below it that it is about; empty where it is about itself.
    """

    message: str
    code: str = "creation_json"
    detail: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that is to be told of a run, by its code. `due`: when it will be so, None where it is so now."""

    code: str
    sentence: str
    due: datetime | None = None

    def to_json(self) -> dict[str, object]:
        return {"code": self.code, "sentence": printable(self.sentence), "due": time_text(self.due)}

    @classmethod
    def from_json(cls, left: Mapping[str, object]) -> Note:
        return cls(text(left, "code"), text(left, "sentence"), moment(left, "due"))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment beside the records. What is not known is empty.

    `lanes`: equipment id → view. `progress`, `waiting` (why it does not go on), `run_problems`, `refusals` (why the gate refuses
    it now), `refused_after_sync` (rules that a synced run breaks now) and `notes`: by job id. `unreadable` and `path_problems`
    (folders that are not a usable run, or hold some where none can be): by path, as it is shown. `first_seen`: id of a problem →
    since when it has been one.
    `config_changed_at`: when the config file was saved that the agent has not taken in, None where it has; `config_news`: what of
    it is to be told.
    `roots_away`: equipment id → why its folder cannot be looked through; a fresh look's, never written.
    """

    at: datetime | None = None
    lanes: Mapping[str, LaneView] = field(default_factory=dict)
    observer: ObserverView | None = None
    progress: Mapping[str, ProgressView] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    run_problems: Mapping[str, Note] = field(default_factory=dict)
    unreadable: Mapping[str, UnreadableView] = field(default_factory=dict)
    path_problems: Mapping[str, FolderProblem] = field(default_factory=dict)
    orphans: tuple[Finding, ...] = ()
    refused_after_sync: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roots_away: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, Note] = field(default_factory=dict)
    notes: Mapping[str, tuple[Note, ...]] = field(default_factory=dict)
    first_seen: Mapping[str, datetime] = field(default_factory=dict)
    config_changed_at: datetime | None = None
    config_news: Note | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "schema": 1,
            "at": time_text(self.at),
            "lanes": lanes_json(self.lanes),
            "observer": self.observer.to_json() if self.observer is not None else None,
            "progress": {job_id: progress.to_json() for job_id, progress in self.progress.items()},
            "waiting": dict(self.waiting),
            "run_problems": {job_id: note.sentence for job_id, note in self.run_problems.items()},
            "unreadable": {path: unreadable.to_json() for path, unreadable in self.unreadable.items()},
            "path_problems": {path: folder.message for path, folder in self.path_problems.items()},
            "orphans": [finding.to_json() for finding in self.orphans],
            "refused_after_sync": {job_id: list(details) for job_id, details in self.refused_after_sync.items()},
            "path_codes": {path: {"code": folder.code, **folder.detail} for path, folder in self.path_problems.items()},
            "path_runs": {
                path: [*map(unicode_text, folder.runs)] for path, folder in self.path_problems.items() if folder.runs
            },
            "run_codes": {job_id: note.code for job_id, note in self.run_problems.items()},
            "refusals": {job_id: note.to_json() for job_id, note in self.refusals.items()},
            "notes": {job_id: [note.to_json() for note in notes] for job_id, notes in self.notes.items()},
            "first_seen": {problem_id: time_text(at) for problem_id, at in self.first_seen.items()},
            "config_changed_at": time_text(self.config_changed_at),
            "config_news": self.config_news.to_json() if self.config_news is not None else None,
        }

    @classmethod
    def from_json(cls, left: object) -> Snapshot:
        """Return what can be read of a live view that an agent left: nothing, where it is none at all."""
        if not isinstance(left, dict):
            return cls()
        observer = left.get("observer")
        orphans, news = left.get("orphans"), left.get("config_news")
        refused, first_seen = block(left, "refused_after_sync"), block(left, "first_seen")
        return cls(
            at=moment(left, "at"),
            lanes=each(left, "lanes", LaneView.from_json),
            observer=ObserverView.from_json(observer) if isinstance(observer, dict) and observer else None,
            progress=each(left, "progress", ProgressView.from_json),
            waiting=texts(left, "waiting"),
            run_problems={
                job_id: Note(text(block(left, "run_codes"), job_id) or "run_problem", sentence)
                for job_id, sentence in texts(left, "run_problems").items()
            },
            unreadable=each(left, "unreadable", UnreadableView.from_json),
            path_problems=_folder_problems(left),
            orphans=tuple(_findings(orphans if isinstance(orphans, list) else ())),
            refused_after_sync={
                job_id: tuple(str(detail) for detail in details)
                for job_id, details in refused.items()
                if isinstance(details, list)
            },
            refusals=each(left, "refusals", Note.from_json),
            notes={
                job_id: tuple(Note.from_json(note) for note in notes if isinstance(note, dict))
                for job_id, notes in block(left, "notes").items()
                if isinstance(notes, list)
            },
            first_seen={name: at for name in first_seen if (at := moment(first_seen, name)) is not None},
            config_changed_at=moment(left, "config_changed_at"),
            config_news=Note.from_json(news) if isinstance(news, dict) else None,
        )


def lanes_json(lanes: Mapping[str, LaneView]) -> dict[str, object]:
    return {equipment_id: lane.to_json() for equipment_id, lane in lanes.items()}


def _folder_problems(left: Mapping[str, object]) -> dict[str, FolderProblem]:
    codes, paths = block(left, "path_codes"), block(left, "path_runs")
    found: dict[str, FolderProblem] = {}
    for path, message in texts(left, "path_problems").items():
        detail = texts(codes, path)
        code = detail.pop("code", "") or "creation_json"
        below = paths.get(path)
        runs = tuple(str(one) for one in below) if isinstance(below, list) else ()
        found[path] = FolderProblem(message, code, detail, runs)
    return found


def _findings(left: Iterable[object]) -> Iterable[Finding]:
    for found in left:
        if not isinstance(found, dict) or any(not isinstance(found.get(name), str) for name in FINDING_TEXTS):
            continue
        try:
            rule, tier, kind = Rule(found["rule"]), Tier(found["tier"]), OffendingKind(found["offending_kind"])
        except ValueError:
            continue  # of a rule that this version does not have
        yield Finding(
            rule=rule,
            tier=tier,
            run_path=found["run_path"],
            offending_path=found["offending_path"],
            offending_kind=kind,
            matched_token=found["matched_token"],
            rule_detail=found["rule_detail"],
            synced_under_prior_policy=bool(found.get("synced_under_prior_policy")),
            override_active=bool(found.get("override_active")),
        )


FINDING_TEXTS = ("rule", "tier", "run_path", "offending_path", "offending_kind", "matched_token", "rule_detail")
