"""One agent an equipment's root: a lock in `<local_root>/<EQUIPMENT>/.exlab-wizard/`, and beside it who holds it.

Agents with different state folders know nothing of each other's runs, and two of them over one root would push each run
twice and fight over its `creation.json`. Not here: that only one agent works in a state folder (adapters/state/store.py), and
what a lane does meanwhile (it does not touch the root).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exlab_watch_agent.adapters.local import file_lock
from exlab_watch_agent.adapters.local.account import account_of
from exlab_watch_agent.adapters.local.durable import read_in, remove_temporaries, write_in
from exlab_watch_agent.adapters.local.file_lock import HeldLock, LockedError
from exlab_watch_agent.adapters.local.handles import EQUIPMENT_LEVELS, Folder, LinkError, folder_below
from exlab_watch_agent.adapters.local.lock_holders import lock_holder
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
        self._path = os.path.join(root, CACHE_FOLDER)
        self._holder = dict(holder)
        self._lock: HeldLock | None = None

    def take(self) -> None:
        if self._lock is not None and self._is_in_place(self._lock):
            return
        # The root was replaced by another folder, or the file was removed: what we hold no longer guards anything.
        self.release()
        with self._opened_root() as root:
            try:
                with self._cache_folder(root) as folder:
                    self._take(folder)
            except (OSError, NotImplementedError) as error:
                self.release()
                why = reason(error) if isinstance(error, OSError) else str(error)
                raise RootUnavailableError(
                    f"{self._path} cannot be written ({why}), and without its lock there, and creation.json in each run, "
                    "no run can be synced: give the agent's account the right to write there, or make room."
                ) from error

    def _is_in_place(self, lock: HeldLock) -> bool:
        try:
            with folder_below(self._path, EQUIPMENT_LEVELS + 1) as folder:
                return lock.is_named(folder, LOCK_NAME)
        except OSError:
            return False

    def _opened_root(self) -> Folder:
        # The root itself is never made: an absent one is a volume that is not mounted.
        try:
            return folder_below(self._root, EQUIPMENT_LEVELS)
        except LinkError as error:
            raise RootUnavailableError(
                f"{self._root} is a link, and links are not followed: let local_root name the folder that it leads to."
            ) from error
        except OSError as error:
            raise RootUnavailableError(
                f"{self._root} is not there: mount it or create it; until then none of its runs counts as gone."
            ) from error

    def _cache_folder(self, root: Folder) -> Folder:
        try:
            try:
                return root.step(CACHE_FOLDER)
            except FileNotFoundError:
                root.mkdir(CACHE_FOLDER, 0o775)
                return root.step(CACHE_FOLDER)
        except LinkError as error:
            raise RootUnavailableError(
                f"{self._path} is a link, and links are not followed: put a folder there."
            ) from error

    def _take(self, folder: Folder) -> None:
        try:
            self._lock = file_lock.take(folder, LOCK_NAME, wait_s=0, is_ours_alone=True)
        except LockedError:
            raise RootUnavailableError(
                f"{self._root} is worked on by another agent ({_said_by_holder(folder)}): stop that one, or take the "
                f"equipment out of one of the two configs; {_held_by(folder)}this agent goes on by itself once the folder is free."
            ) from None
        except PermissionError as error:
            owner = _other_owner(folder)
            if not owner:
                raise
            raise RootUnavailableError(
                f"{folder.path_of(LOCK_NAME)}, the lock of an agent, belongs to account {owner}: run this agent under that "
                "account, or, if no agent runs there any more, remove that file."
            ) from error
        remove_temporaries(folder, of=HOLDER_NAME)
        write_in(folder, HOLDER_NAME, json.dumps(self._holder).encode(), mode=0o644)

    def release(self) -> None:
        """Release the root. May be called again, and without having taken it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def _held_by(folder: Folder) -> str:
    """Return who holds the lock by the system's word: what an agent wrote about itself may be of one that has ended."""
    who = lock_holder(folder, LOCK_NAME)
    path = folder.path_of(LOCK_NAME)
    return f"its lock {path} is held by {who}, and if that is no agent, end that program; " if who else ""


def _other_owner(folder: Folder) -> str:
    """Return which account has the lock file; empty where it is ours, or not there."""
    with suppress(OSError, AttributeError):  # Windows has no such numbers
        uid = folder.lstat(LOCK_NAME).st_uid
        if uid != os.geteuid():
            return printable(str(account_of(uid)))
    return ""


def _said_by_holder(folder: Folder) -> str:
    try:
        said = json.loads(read_in(folder, HOLDER_NAME, HOLDER_BYTES_MAX)[0])
        return printable(f"pid {said['pid']} on {said['host']}, state folder {said['state_dir']}")
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said who it is"
