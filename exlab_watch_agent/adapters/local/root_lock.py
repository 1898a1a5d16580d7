"""One agent an equipment's root: a lock in `<local_root>/<EQUIPMENT>/.exlab-wizard/`, and beside it who holds it.

Agents with different state folders know nothing of each other's runs, and two of them over one root would push each run
twice and fight over its `creation.json`. Not here: that only one agent works in a state folder (adapters/state/store.py), and
what a lane does meanwhile (it does not touch the root).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from exlab_watch_agent.adapters.local.durable import is_link, read_bounded, remove_temporaries, write_atomically
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.text import printable, reason
from exlab_watch_agent.errors import RootUnavailableError

LOCK_NAME = "watch-agent.lock"
HOLDER_NAME = "watch-agent.json"
HOLDER_BYTES_MAX = 4096


class EquipmentRootLock:
    """Implements ports.RootLock. Held until `release`, or until the process ends, however that comes about."""

    def __init__(self, root: str, *, holder: Mapping[str, Any]) -> None:
        """`root`: the equipment's folder. `holder`: what another agent is told, such as pid, host and state_dir."""
        self._root = root
        self._folder = Path(root, CACHE_FOLDER)
        self._holder = dict(holder)
        self._lock: FileLock | None = None
        self._identity: tuple[int, int] | None = None

    def take(self) -> None:
        if self._lock is not None and _identity(self._folder / LOCK_NAME) == self._identity:
            return
        # The root was replaced by another folder, or the file was removed: what we hold no longer guards anything.
        self.release()
        self._require_root()
        try:
            self._take()
        except Timeout:
            raise RootUnavailableError(
                f"{self._root} is worked on by another agent ({self._said_by_holder()}): stop that one, or take the "
                "equipment out of one of the two configs; this agent goes on by itself once the folder is free."
            ) from None
        except (OSError, NotImplementedError) as error:
            self.release()
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise RootUnavailableError(
                f"{self._folder} cannot be written ({why}), and without its lock there, and creation.json in each run, "
                "no run can be synced: give the agent's account the right to write there, or make room."
            ) from error

    def _require_root(self) -> None:
        # The root itself is never made: an absent one is a volume that is not mounted.
        try:
            is_linked = is_link(os.lstat(self._root))
        except OSError as error:
            raise RootUnavailableError(
                f"{self._root} is not there: mount it or create it; nothing is concluded from it."
            ) from error
        if is_linked:
            raise RootUnavailableError(
                f"{self._root} is a link, and links are not followed: let local_root name the folder that it leads to."
            )

    def _take(self) -> None:
        self._folder.mkdir(exist_ok=True)
        if is_link(os.lstat(self._folder)):
            raise RootUnavailableError(f"{self._folder} is a link, and links are not followed: put a folder there.")
        # Not bound to a thread: any thread may close the agent, which releases the root.
        lock = FileLock(self._folder / LOCK_NAME, timeout=0, thread_local=False, mode=0o666)
        lock.acquire()
        self._lock, self._identity = lock, _identity(self._folder / LOCK_NAME)
        remove_temporaries(self._folder, of=HOLDER_NAME)
        write_atomically(self._folder / HOLDER_NAME, json.dumps(self._holder).encode(), mode=0o644)

    def _said_by_holder(self) -> str:
        try:
            said = json.loads(read_bounded(self._folder / HOLDER_NAME, HOLDER_BYTES_MAX))
            return printable(f"pid {said['pid']} on {said['host']}, state folder {said['state_dir']}")
        except (OSError, ValueError, KeyError, TypeError):
            return "it has not said who it is"

    def release(self) -> None:
        """Release the root. May be called again, and without having taken it."""
        lock, self._lock, self._identity = self._lock, None, None
        if lock is not None:
            lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
