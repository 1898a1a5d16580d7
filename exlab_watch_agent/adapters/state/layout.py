"""Every name in the state folder, once. What is in the files: docs/state.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TRAIL_NAME = "audit.jsonl"
NEXT_NAME = "audit.next.jsonl"
CLOSED_FOLDER = "audit"
SLOT_NAMES = ("state.a.json", "state.b.json")
EVIDENCE_NAME = "evidence"
CLOSED_NAME = re.compile(r"audit\.(\d{12})\.jsonl")


def closed_name(first_seq: int) -> str:
    """Return the name of the closed segment whose first line has this number."""
    return f"audit.{first_seq:012d}.jsonl"


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Where everything is in the state folder `root`. Asks no disk."""

    root: Path

    # --- the store ---------------------------------------------------------------------------------------------------

    @property
    def lock(self) -> Path:
        """Held by the agent that works here."""
        return self.root / "agent.lock"

    @property
    def holder(self) -> Path:
        """What that agent says of itself."""
        return self.root / "agent.json"

    @property
    def trail(self) -> Path:
        """The live segment of the audit trail."""
        return self.root / TRAIL_NAME

    @property
    def next_trail(self) -> Path:
        """The segment that is about to become the live one; found beside a live one it was left by a stop and means nothing."""
        return self.root / NEXT_NAME

    @property
    def closed(self) -> Path:
        """The folder of closed segments."""
        return self.root / CLOSED_FOLDER

    def closed_segment(self, first_seq: int) -> Path:
        return self.closed / closed_name(first_seq)

    @property
    def slots(self) -> tuple[Path, Path]:
        """The two files of the projection, written in turn."""
        return self.root / SLOT_NAMES[0], self.root / SLOT_NAMES[1]

    @property
    def evidence(self) -> Path:
        """The folder of what was found damaged or torn; nothing in it is ever removed or replaced."""
        return self.root / EVIDENCE_NAME

    # --- the agent ---------------------------------------------------------------------------------------------------

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def inbox(self) -> Path:
        """The folder of requests for a running agent."""
        return self.root / "inbox"

    @property
    def replies(self) -> Path:
        """The folder of its answers."""
        return self.root / "replies"

    @property
    def live(self) -> Path:
        """What the agent shows of the moment."""
        return self.root / "live.json"

    @property
    def heartbeat(self) -> Path:
        return self.root / "heartbeat.json"

    @property
    def week(self) -> Path:
        """What happened in the last week and is over, and how much room the disks had."""
        return self.root / "week.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def log(self) -> Path:
        return self.logs / "agent.log"

    @property
    def children(self) -> Path:
        """The folder of notes on running programs."""
        return self.root / "children"

    @property
    def sockets(self) -> Path:
        """The folder of ssh's control sockets."""
        return self.root / "ssh"

    @property
    def traces_of_use(self) -> tuple[Path, ...]:
        """What an agent leaves here beside slots and trail. Not the lock: commands may make one."""
        return self.evidence, self.closed, self.manifests, self.logs, self.heartbeat, self.live, self.holder
