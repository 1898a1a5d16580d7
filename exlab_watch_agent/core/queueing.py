"""Which queued runs may start now: at most one push an equipment, at most so many at once, each lane in its turn.

The cost grows with the number of instruments, not of runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def lanes_to_start(
    lanes_with_work: Sequence[str],
    *,
    busy: Collection[str],
    waiting: Collection[str],
    pushes_max: int,
    last_started: str | None,
) -> tuple[str, ...]:
    """Return the lanes that may start one push each, fairest first: the lane after the last that started comes first.

    `busy`: lanes with a push under way. `waiting`: lanes whose NAS or local root is away.
    """
    free = pushes_max - len(busy)
    if free <= 0:
        return ()
    order = sorted(lanes_with_work)
    if last_started is not None:
        order = [lane for lane in order if lane > last_started] + [lane for lane in order if lane <= last_started]
    return tuple(lane for lane in order if lane not in busy and lane not in waiting)[:free]
