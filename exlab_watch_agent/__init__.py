"""exlab-watch-agent: proves, repairs and only then frees a laboratory's run folders."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exlab_watch_agent.adapters.state.database import open_readonly
    from exlab_watch_agent.app.client import NASSyncClient, SyncJobHandle, SyncJobState

__version__ = version("exlab-watch-agent")
__all__ = ["NASSyncClient", "SyncJobHandle", "SyncJobState", "__version__", "open_readonly"]


def __getattr__(name: str) -> Any:
    """Load what programs use only when it is asked for: the command line does not need it."""
    if name in ("NASSyncClient", "SyncJobHandle", "SyncJobState"):
        from exlab_watch_agent.app import client

        return getattr(client, name)
    if name == "open_readonly":
        from exlab_watch_agent.adapters.state import database

        return database.open_readonly
    raise AttributeError(name)
