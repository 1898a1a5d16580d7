"""The only place that asks the machine what time it is."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from exlab_watch_agent.core.passes import Uptime
from exlab_watch_agent.ports import Clock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_ID = f"process {uuid.uuid4()}"
_PROCESS_BEGAN_S = time.monotonic()


class PausingClock(Clock, Protocol):
    """A clock that can also wait: for adapters alone, since neither the engine nor a handler may."""

    def pause(self, seconds: float) -> None:
        """Return that much later."""
        ...


class SystemClock:
    """Implements ports.Clock and PausingClock.

    `boot_id_path`: the file in which the system names the present boot, where it does.
    """

    def __init__(self, *, boot_id_path: Path = _BOOT_ID) -> None:
        self._boot_id_path = boot_id_path

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_local(self) -> datetime:
        """Return the wall clock in the machine's own time zone: bandwidth windows are local."""
        return datetime.now().astimezone()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def uptime(self) -> Uptime:
        # Where the system names no boot, each process is one of its own: less is known to have passed, never more.
        try:
            return Uptime(self._boot_id_path.read_text(encoding="ascii").strip(), time.monotonic())
        except (OSError, ValueError):
            return Uptime(_PROCESS_ID, time.monotonic() - _PROCESS_BEGAN_S)


SYSTEM_CLOCK = SystemClock()
"""What adapters take where they are handed no other clock. It holds nothing, so one serves all."""


def pause(seconds: float) -> None:
    """Wait; never in the engine or a handler."""
    time.sleep(seconds)
