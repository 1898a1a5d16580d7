"""Whether an agent that claims a copy is still at work, by the sign of life that it leaves on the NAS.

Decided here: where a sign of life lies, what of it is believed, and when it is too old. Not here: what it says of the agent's
runs (report/heartbeat.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

FOLDER = ".exlab-watch-agent"
"""Below a destination root."""
SILENT_FOR = timedelta(days=1)
"""After so long without a sign of life an agent no longer keeps others from its copies."""
BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """Who left it and when. `state_folder`, `machine` and `state_dir` are empty in those of the first version."""

    at: datetime
    host: str
    state_folder: str = ""
    machine: str = ""
    state_dir: str = ""


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
    return SignOfLife(at if at.tzinfo else at.replace(tzinfo=UTC), host, state_folder, machine, state_dir)


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
