"""The only place that asks the machine what time it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_local(self) -> datetime:
        """Return the wall clock in the machine's own time zone: bandwidth windows are local."""
        return datetime.now().astimezone()

    def monotonic_s(self) -> float:
        return time.monotonic()


def utc_text(moment: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SSZ`: how every time is shown and written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_text_exact(moment: datetime) -> str:
    """Return the same with microseconds, for the audit trail."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def pause(seconds: float) -> None:
    """Wait; only for a person's command that polls, never in the engine or a handler."""
    time.sleep(seconds)
