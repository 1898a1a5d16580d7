"""How far a run's work is, in words: what is being done, of how much, how fast, how long still, and the limit in force. Pure."""

from __future__ import annotations

from exlab_watch_agent.core.snapshot import Doing, ProgressView
from exlab_watch_agent.core.text import human_bytes

NO_BYTES = (Doing.SEAL,)
"""What counts no bytes of the run."""
UNITS_S = ((3600, "h"), (60, "min"))


def progress_text(progress: ProgressView) -> str:
    """Return `push: 1.2 GiB of 3.0 GiB (40 %), 78.4 MiB/s, 25 s left, limit 80.0 MiB/s`, without what is not known.

    The limit is told of a push alone: what else reads there need not go by it.
    """
    return ", ".join(progress_parts(progress))


def progress_parts(progress: ProgressView) -> list[str]:
    """Return the parts of that."""
    doing = progress.doing.value if progress.doing is not None else "under way"
    if progress.doing in NO_BYTES or not progress.bytes_total:
        return [doing]
    done = min(progress.bytes_done, progress.bytes_total)
    parts = [
        f"{doing}: {human_bytes(done)} of {human_bytes(progress.bytes_total)} ({100 * done // progress.bytes_total} %)"
    ]
    if progress.rate_bytes_per_s:
        parts.append(f"{human_bytes(progress.rate_bytes_per_s)}/s")
    if progress.seconds_left is not None:
        parts.append(f"{span_text(progress.seconds_left)} left")
    if progress.limit_bytes_per_s is not None and progress.doing is Doing.PUSH:
        parts.append(f"limit {human_bytes(progress.limit_bytes_per_s)}/s")
    return parts


def span_text(seconds: float) -> str:
    """Return `40 s`, `12 min` or `30 h`: rounded up, so that nothing that is still under way has no time left."""
    whole = max(1, -int(-seconds // 1))
    for unit_s, unit in UNITS_S:
        if whole >= 2 * unit_s:
            return f"{-(-whole // unit_s)} {unit}"
    return f"{whole} s"
