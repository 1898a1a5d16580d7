"""The only place that asks the machine what time it is."""

from __future__ import annotations

import threading
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
    """What an adapter is handed that has to wait for a while: nothing inside ever waits."""

    def pause(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...


class SystemClock:
    """Implements PausingClock. `boot_id_path`: the file in which the system names the present boot, where it does."""

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
        threading.Event().wait(seconds)

    def uptime(self) -> Uptime:
        # Where the system names no boot, each process is one of its own: less is known to have passed, never more.
        try:
            return Uptime(self._boot_id_path.read_text(encoding="ascii").strip(), time.monotonic())
        except (OSError, ValueError):
            return Uptime(_PROCESS_ID, time.monotonic() - _PROCESS_BEGAN_S)


SYSTEM_CLOCK = SystemClock()
"""What adapters take where they are handed no other clock. It holds nothing, so one serves all."""


def utc_text(moment: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SSZ`: how every time is shown and written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_text_exact(moment: datetime) -> str:
    """Return the same with microseconds, for the audit trail."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def pause(seconds: float) -> None:
    """Wait; only for a person's command that polls, never in the engine or a handler."""
    time.sleep(seconds)
