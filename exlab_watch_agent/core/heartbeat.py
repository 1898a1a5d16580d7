"""Whether an agent that claims a copy is still at work, by the sign of life that it leaves on the NAS.

Decided here: where a sign of life lies, what of it is believed, and when it is too old. Not here: what it says of the agent's
runs (report/heartbeat.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.core.text import utc_text

FOLDER = ".exlab-watch-agent"
"""Below a destination root."""
SILENT_FOR = timedelta(days=1)
"""After so long without a sign of life an agent no longer keeps others from its copies."""
BYTES_MAX = 1024 * 1024
FUTURE_AFTER = timedelta(minutes=5)
"""Clocks of two machines may differ by so much; what is further ahead is said to be in the future."""


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """Who left it and when. `state_folder`, `machine` and `state_dir` are empty in those of the first version.

    `anchor`: the last line that its agent's trail had, None where it says none.
    """

    at: datetime
    host: str
    state_folder: str = ""
    machine: str = ""
    state_dir: str = ""
    anchor: TrailPosition | None = None


def name_of(host: str) -> str:
    """Return the name of a host's file in the folder."""
    return f"{host}.json"


def name_beside(host: str, state_folder: str) -> str:
    """Return its name where another agent of the same host has the first one."""
    return f"{host}-{state_folder[:8]}.json"


def sign_in(data: bytes) -> SignOfLife | None:
    """Return what a file says, None where it is none."""
    try:
        said = json.loads(data)
        at = datetime.fromisoformat(said["at"])
        names = [said.get(name, "") for name in ("host", "state_folder", "machine", "path")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    host, state_folder, machine, state_dir = (name if isinstance(name, str) else "" for name in names)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return SignOfLife(at, host, state_folder, machine, state_dir, anchor_in(data))


def anchor_in(data: bytes) -> TrailPosition | None:
    """Return the line of the trail that a heartbeat names, None where it names none."""
    try:
        said = json.loads(data)
        audit = said.get("audit", {})
        seq, digest = said.get("audit_seq", audit.get("seq")), said.get("audit_blake3", audit.get("blake3"))
    except (ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1 or not isinstance(digest, str) or not digest:
        return None
    return TrailPosition(seq, digest)


def is_evidence(seen: SignOfLife, *, state_folder: str, position: TrailPosition, told_to: int) -> bool:
    """Return whether our own sign of life on the NAS speaks against the trail here and was not told yet: it is kept until it is.

    `position`: the last line of the trail here. `told_to`: up to which line such an anchor has been told.
    """
    if seen.anchor is None or seen.state_folder != state_folder or seen.anchor.seq <= told_to:
        return False
    return seen.anchor.seq > position.seq or (seen.anchor.seq == position.seq and seen.anchor != position)


def fault_of(name: str, sign: SignOfLife | None, *, now: datetime) -> str:
    """Return in a sentence why a sign of life that keeps others from a copy may be none; empty where nothing speaks against it."""
    path = f"{FOLDER}/{name}"
    if sign is None:
        what = f"{path} on the NAS is empty or cannot be read"
    elif sign.at - now > FUTURE_AFTER:
        what = f"{path} on the NAS is dated {utc_text(sign.at)}, which is in the future"
    else:
        return ""
    return (
        f"{what}, and may be a sign of life of that agent: if it is at work no more, remove this file, and the copy is "
        "looked at again within a day"
    )


def is_recent(at: str, *, now: datetime) -> bool:
    """Return whether this time, as a claim says it, is less than a day ago; so is one in the future, or none at all."""
    try:
        then = datetime.fromisoformat(at)
    except ValueError:
        return bool(at)
    return now - (then if then.tzinfo else then.replace(tzinfo=UTC)) <= SILENT_FOR


def is_at_work(
    sign: SignOfLife, *, now: datetime, machine: str, host: str, state_dir: str, is_gone: Callable[[str], bool]
) -> bool:
    """Return whether an agent must be thought at work because of this sign.

    One that says when it was left in the future is believed. `machine`, `host`, `state_dir`: of this agent. An agent of this
    very machine whose state folder is gone, or has become ours, is at work no more.
    """
    if now - sign.at > SILENT_FOR:
        return False
    is_of_this_machine = bool(machine) and (sign.machine, sign.host) == (machine, host) and bool(sign.state_dir)
    return not (is_of_this_machine and (sign.state_dir == state_dir or is_gone(sign.state_dir)))
