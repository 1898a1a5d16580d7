"""How long a whole agent waits for what: the paces of its parts in one value, which it hands on to them."""

from __future__ import annotations

from dataclasses import dataclass

from exlab_watch_agent.adapters.transports.rclone import pace as rclone
from exlab_watch_agent.adapters.transports.rsync import pace as rsync
from exlab_watch_agent.adapters.watching import pace as watching
from exlab_watch_agent.core import pace as engine


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds. Tests hand over a quicker one.

    `live_every_s`: how often at most the live view is written. `attend_every_s`: how often it is judged what needs a person.
    `supervise_every_s`: how often the watching is looked after.
    `inbox_every_s`: how often operators' requests are looked for that made no event. `heartbeat_every_s`,
    `nas_heartbeat_every_s`: how often the heartbeat is written here, and left on each NAS that answers; `nas_heartbeat_again_s`:
    how soon again where it could not be left. `config_every_s`: how often a config without an instrument is read again.
    `config_steady_s`: how long a config must be as it was saved before what may be is taken in by itself; `config_busy_s`: how much
    longer that waits for a moment without a push, a comparison or a seal.
    `progress_log_every_s`: how often the log says how far each run's work is that has lasted as long.
    """

    engine: engine.Pace = engine.PACE
    watching: watching.Pace = watching.PACE
    rclone: rclone.Pace = rclone.PACE
    rsync: rsync.Pace = rsync.PACE
    live_every_s: float = 0.5
    attend_every_s: float = 5.0
    supervise_every_s: float = 1.0
    inbox_every_s: float = 1.0
    heartbeat_every_s: float = 30.0
    nas_heartbeat_every_s: float = 900.0
    config_every_s: float = 5.0
    config_steady_s: float = 60.0
    config_busy_s: float = 600.0
    nas_heartbeat_again_s: float = 60.0
    progress_log_every_s: float = 60.0


PACE = Pace()
