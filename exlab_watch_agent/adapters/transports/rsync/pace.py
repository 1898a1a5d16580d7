"""How long the transport over ssh waits for what. Nothing here waits: what waits gets a `Pace`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds, but the count. Tests hand over a quicker one.

    `connect_s`, `alive_every_s`, `alive_count_max`: ssh's ConnectTimeout, ServerAliveInterval and ServerAliveCountMax, which
    take whole seconds only. After the product of the latter two ssh says by itself that the link is dead.
    `answer_s`: how long a shell on the target may say nothing at all. Longer than ssh takes to notice that the link is dead:
    then it is ssh that says so.
    `sync_s`: the same while the target makes what was written durable, which on a slow disk may take very long.
    `end_group_s`: for what a shell has started on the target to end, when it is given up.
    `look_every_s`: how often it is asked meanwhile whether the work is still wanted.
    `opens_every_s`: how often it is looked whether ssh has opened its socket.
    `busy_s`: for how long an rsync is tried again that another agent's holds off (rrsync lets one in at a time).
    `settle_s`: where nothing is created exclusively, for how long another agent may still write over a marker of ours.
    """

    connect_s: int = 20
    alive_every_s: int = 15
    alive_count_max: int = 4
    answer_s: float = 90.0
    sync_s: float = 3600.0
    end_group_s: float = 5.0
    look_every_s: float = 0.1
    opens_every_s: float = 0.02
    busy_s: float = 60.0
    settle_s: float = 0.5

    @property
    def greeting_s(self) -> float:
        """How long the first word of a shell may take: as long as ssh's own waits together."""
        return self.connect_s + self.alive_every_s * self.alive_count_max


PACE = Pace()
