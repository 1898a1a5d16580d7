"""exlab-watch-agent: proves, repairs and only then frees a laboratory's run folders."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exlab_watch_agent.app.client import NASSyncClient, SyncJobHandle, SyncJobState

__version__ = version("exlab-watch-agent")
__all__ = ["NASSyncClient", "SyncJobHandle", "SyncJobState", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the client only when it is asked for: the command line does not need it."""
    if name in ("NASSyncClient", "SyncJobHandle", "SyncJobState"):
        from exlab_watch_agent.app import client

        return getattr(client, name)
    raise AttributeError(name)
