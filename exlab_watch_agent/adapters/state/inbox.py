"""Commands for a running agent: small files dropped into `<state_dir>/inbox`, answered in `<state_dir>/replies`.

A request appears by rename, so that it is never seen half written; the agent removes it before it obeys, so that a
crash cannot make it obey twice.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from exlab_watch_agent.adapters.clock import PausingClock, SystemClock
from exlab_watch_agent.adapters.local.account import owner_of
from exlab_watch_agent.adapters.local.durable import fsync_folder, is_temporary_name, read_in, write_atomically
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import StateFolderError
from exlab_watch_agent.ports import Clock

REQUEST_BYTES_MAX = 64 * 1024
REPLY_KEPT_S = 3600
POLL_S = 0.05


class Request(NamedTuple):
    """What was left in one file; `owner`: the account that the file belongs to, None where the platform does not say."""

    name: str
    members: dict[str, Any]
    owner: Operator | None


class Inbox:
    """The agent's side."""

    def __init__(self, state_dir: Path, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        layout = StateLayout(state_dir)
        self._inbox, self._replies = layout.inbox, layout.replies

    @property
    def folder(self) -> Path:
        return self._inbox

    def prepare(self) -> None:
        """Make the folders, and forget answers that nobody fetched."""
        for folder in (self._inbox, self._replies):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for reply in self._replies.iterdir():
            with suppress(OSError):
                if self._clock.now().timestamp() - reply.stat().st_mtime > REPLY_KEPT_S:
                    reply.unlink()

    def take(self) -> list[Request]:
        """Return and remove the requests that are there, oldest first. What is not a request is removed unread."""
        taken: list[Request] = []
        for name in sorted(os.listdir(self._inbox)):
            path = self._inbox / name
            if is_temporary_name(name) or not name.endswith(".json"):
                continue
            request: Any = None
            owner: Operator | None = None
            with suppress(OSError, ValueError, RecursionError):
                data, status = read_in(Folder(str(self._inbox)), name, REQUEST_BYTES_MAX)
                request, owner = json.loads(data), owner_of(status)
            with suppress(OSError):
                path.unlink()
                if isinstance(request, dict):
                    taken.append(Request(name, request, owner))
        if taken:
            with suppress(OSError):
                fsync_folder(self._inbox)  # A power cut must not bring them back either.
        return taken

    def reply(self, name: str, answer: Mapping[str, Any]) -> None:
        with suppress(OSError):
            write_atomically(self._replies / name, json.dumps(answer).encode(), mode=0o600)


def send_request(
    state_dir: Path, request: Mapping[str, Any], *, wait_s: float, clock: PausingClock | None = None
) -> dict[str, Any] | None:
    """Leave a request for the running agent and return its answer; None when none came in time.

    Raises: StateFolderError when it cannot be left.
    """
    layout = StateLayout(state_dir)
    inbox, replies = layout.inbox, layout.replies
    clock = clock or SystemClock()
    name = f"{clock.now():%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}.json"
    try:
        inbox.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(inbox / name, json.dumps(request).encode(), mode=0o600)
    except OSError as error:
        raise StateFolderError(
            f"The request cannot be left for the agent in {inbox} ({reason(error)}): correct that, then give the command again."
        ) from error
    deadline_s = clock.monotonic_s() + wait_s
    while clock.monotonic_s() < deadline_s:
        with suppress(OSError, ValueError):
            answer = json.loads((replies / name).read_bytes())
            (replies / name).unlink()
            return dict(answer)
        clock.pause(POLL_S)
    return None
