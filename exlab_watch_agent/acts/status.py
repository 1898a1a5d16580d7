"""Makes `creation.json` say what a run's state says."""

from __future__ import annotations

from exlab_watch_agent.core.effects import WriteStatus
from exlab_watch_agent.core.events import StatusUnwritten, StatusWritten
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.ports import Ports


def write_status(effect: WriteStatus, ports: Ports) -> StatusWritten | StatusUnwritten:
    """Make the file say it, or return why it cannot."""
    try:
        ports.require_root()
        return StatusWritten(ports.creations.set_sync_status(effect.run_path, effect.sync_status))
    except AgentError as error:
        return StatusUnwritten(str(error))
