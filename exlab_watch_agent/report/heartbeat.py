"""What an agent says of itself: the heartbeat, here and on each NAS, and who holds the state folder.

Their keys are a promise. What another version or a damaged disk has left gives what can be read of it, and never an error. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.members import moment, number, text, time_text
from exlab_watch_agent.core.snapshot import LaneView, ObserverView, lanes_json
from exlab_watch_agent.core.text import printable


@dataclass(frozen=True, slots=True)
class OldestUnsynced:
    """The run that has waited longest to be synced, and since when."""

    run_path: str
    since: datetime


@dataclass(frozen=True, slots=True)
class LastAgent:
    """The last agent that was there for all runs: when it gave a sign of life, and whether it was stopped in order then.

    A command that works by itself on a few runs is none: an agent that was killed is not made good by it.
    """

    seen_at: datetime | None
    is_in_order: bool

    def to_json(self) -> dict[str, Any]:
        return {"seen_at": time_text(self.seen_at), "stopped_in_order": self.is_in_order}


def last_agent_in(left: object) -> LastAgent | None:
    """Return what a heartbeat says of the last agent; None: there was none yet. The first version did not say how it ended."""
    if not isinstance(left, dict):
        return LastAgent(None, is_in_order=False)
    if "last_agent" not in left:
        return LastAgent(moment(left, "at"), is_in_order=False)
    said = left["last_agent"]
    if not isinstance(said, dict):
        return None
    return LastAgent(moment(said, "seen_at"), said.get("stopped_in_order") is True)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What an agent says of itself here and on each NAS, so that its silence is noticed. `counts`: state → runs in it.

    `audit_seq` and `audit_blake3`: the head of the trail, by which a state folder that was put back is noticed. `verdict`: what
    needs a person, in one sentence; `tier`: the worst of it.
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
    agent_running: bool
    verdict: str
    tier: str | None
    last_agent: LastAgent | None

    def to_json(self) -> dict[str, Any]:
        oldest = self.oldest_unsynced
        return {
            "schema": 1,
            "at": time_text(self.at),
            "host": self.host,
            "state_folder": self.state_folder,
            "machine": self.machine,
            "path": self.path,
            "pid": self.pid,
            "version": self.version,
            "counts": dict(self.counts),
            "oldest_unsynced": {"run_path": printable(oldest.run_path), "since": time_text(oldest.since)}
            if oldest
            else None,
            "lanes": lanes_json(self.lanes),
            "observer": self.observer.to_json() if self.observer is not None else None,
            "audit": {"seq": self.audit_seq, "blake3": self.audit_blake3},
            "paused": self.paused,
            "hold": self.hold,
            "agent_running": self.agent_running,
            "verdict": self.verdict,
            "tier": self.tier,
            "audit_seq": self.audit_seq,
            "audit_blake3": self.audit_blake3,
            "last_agent": self.last_agent.to_json() if self.last_agent is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the state folder. `paused`: why nothing is decided there now; `at`: when its loop last came by.

    None: it does not say, or cannot be read.
    """

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    version: str | None = None
    paused: str | None = None
    at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "host": self.host,
            "since": self.since,
            "version": self.version,
            "paused": self.paused,
            "at": time_text(self.at),
        }

    @classmethod
    def from_json(cls, left: Mapping[str, Any]) -> Holder:
        return cls(
            pid=number(left, "pid") or None,
            host=text(left, "host") or None,
            since=text(left, "since") or None,
            version=text(left, "version") or None,
            paused=text(left, "paused") or None,
            at=moment(left, "at"),
        )
