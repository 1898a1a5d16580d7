"""The bandwidth limit in force at an instant, and when it changes. (contract stub: BandwidthLimit is used by policy.py)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open `[start, end)` in local time on `weekdays` (0 = Monday); past midnight where end <= start, belonging to the start day."""

    weekdays: frozenset[int]
    start: time
    end: time


@dataclass(frozen=True, slots=True)
class BandwidthLimit:
    """`upload_mbps` megabits per second; no windows: it always holds; else only inside one."""

    upload_mbps: float
    windows: tuple[Window, ...] = ()
