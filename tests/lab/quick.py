"""The agent's own command line, whose `run` waits less: `python quick.py WORD...` is `exlab-watch-agent WORD...`.

Everything else is as it is: what is shortened are the waits that a test would spend for nothing, before what is away is asked
again. Nobody but a test can hand over such a pace.
"""

from __future__ import annotations

from exlab_watch_agent.adapters.transports.rclone import pace as rclone
from exlab_watch_agent.adapters.transports.rsync import pace as rsync
from exlab_watch_agent.adapters.watching import pace as watching
from exlab_watch_agent.app.pace import Pace
from exlab_watch_agent.cli.main import main
from exlab_watch_agent.core import pace as engine

QUICK = Pace(
    engine=engine.Pace(
        probe_first_s=0.3,
        probe_max_s=0.6,
        probe_idle_s=1.0,
        doubt_first_s=0.3,
        doubt_max_s=0.6,
        second_scan_s=0.3,
        missing_s=1.0,
        unreadable_s=0.4,
        problem_s=1.0,
        room_first_s=0.2,
        room_max_s=0.5,
        cache_quiet_s=0.3,
    ),
    watching=watching.Pace(keep_every_s=0.3, poll_every_s=0.5),
    rclone=rclone.Pace(connect_s=2.0, silence_s=5.0, tries_max=1, call_s=10.0, stop_wait_s=0.5),
    rsync=rsync.Pace(connect_s=2, alive_every_s=2, alive_count_max=2),
    live_every_s=0.1,
    attend_every_s=0.5,
    supervise_every_s=0.2,
    config_steady_s=1.0,
    config_busy_s=60.0,
)

if __name__ == "__main__":
    main(QUICK)
