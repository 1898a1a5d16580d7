"""How often and how long the watching waits for what. Nothing here waits: what waits gets a `Pace`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds, but counts and shares. Tests hand over a quicker one.

    `keep_every_s`: how often a keeper compares its root with the folder that is watched, which costs a few system calls.
    `poll_every_s`: how often at most a polled root is scanned; `poll_share_max`: for at most one part in this many of the
    time, so that a scan of 2 s comes every 100 s.
    `retry_every_s`: how often what failed natively is tried again. Setting 20,000 watches takes some tenths of a second.
    `canary_every_s`: how often the canary is placed; `canary_wait_s`: for how long its report may take.
    `silent_max`: a canary that is not heard may have been unlucky in a storm; after this many in a row the observer is
    replaced.
    `hang_s`: after how long a keeper that does not come back says that its root hangs. A minute, not measured: a share that
    reconnects is to go unmentioned.
    `start_wait_s`, `stop_wait_s`: for how long the agent's start waits for roots to be watched, and its end for threads.
    `quiet_s`: watchdog's timeout. On Windows nothing is delivered until the queue is quiet for this long; watchdog's
    default of a second starves us.
    `rest_s`: Linux, after each batch of events. In a storm this many are read at once instead of one by one, for a
    fraction of the cost.
    `drained_s`: Linux, how long no event may come until what was moved away counts as moved out of the root. A move inside
    it puts both its events into the queue at once, so this wait is never too short.
    """

    keep_every_s: float = 5.0
    poll_every_s: float = 5.0
    poll_share_max: int = 50
    retry_every_s: float = 600.0
    canary_every_s: float = 300.0
    canary_wait_s: float = 10.0
    silent_max: int = 2
    hang_s: float = 60.0
    start_wait_s: float = 5.0
    stop_wait_s: float = 5.0
    quiet_s: float = 0.05
    rest_s: float = 0.002
    drained_s: float = 0.05


PACE = Pace()
