"""Whether two passes count as two: only when every clock that there is says that a minute lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

PASSES_APART_S = 60.0
"""Passes closer together than this count as one, unless `nas_cleanup` asks for no age at all: then any two count."""


@dataclass(frozen=True, slots=True)
class Uptime:
    """For how long the machine has been up, by a clock that nobody sets. Of one `boot_id` two of them can be compared.

    `boot_id` is empty where it is not known.
    """

    boot_id: str = ""
    seconds: float = 0.0


UNKNOWN_UPTIME = Uptime()


def are_apart(*, earlier_at: datetime, earlier: Uptime, now: datetime, uptime: Uptime) -> bool:
    """Return whether a pass that ends now counts beside that of `earlier_at`.

    After a reboot only the time since then is known to have passed. A wall clock that was set back tells nothing; one
    that was set ahead cannot hasten anything, because the uptime must agree. What is not known does not count as a minute.
    """
    if not earlier.boot_id or not uptime.boot_id:
        return False
    passed_s = uptime.seconds - (earlier.seconds if earlier.boot_id == uptime.boot_id else 0.0)
    by_wall_s = (now - earlier_at).total_seconds()
    return passed_s >= PASSES_APART_S and (by_wall_s >= PASSES_APART_S or by_wall_s < 0)
