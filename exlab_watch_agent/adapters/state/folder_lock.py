"""The lock of a state folder: whoever holds it is the one agent that works there."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from exlab_watch_agent.adapters.state.layout import StateLayout

LOCK_WAIT_S = 0.3
"""A command that asks whether an agent runs holds the lock for a moment; an agent holds it for good."""


def folder_lock(folder: Path) -> FileLock:
    """Return the lock of a state folder, not taken yet. It counts: what was taken twice is free once it was given back twice.

    Not bound to a thread: any thread may close the store, which releases the folder.
    """
    return FileLock(StateLayout(folder).lock, timeout=LOCK_WAIT_S, thread_local=False)
