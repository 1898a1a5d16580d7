"""How long the engine's loop waits for what, beside what the config file says. Nothing here waits: what waits gets a `Pace`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds. Tests hand over a quicker one.

    `probe_first_s`, `probe_max_s`: when a destination that is away is asked again, at first and at most; each question
    without an answer doubles the wait.
    `probe_idle_s`: when one that answers is asked again, so that one that went away is told also when nothing is to be pushed.
    `doubt_first_s`, `doubt_max_s`: the same for a scan of a root that was not found to be ours.
    `second_scan_s`: when a run whose folder is gone is looked for a second time.
    `missing_s`: when a run that is to be pushed and was not at its place has its turn again; a scan finds out why.
    `unreadable_s`: when a run that cannot be read whole is looked at again. `problem_s`: the same for a `creation.json` that
    cannot be used: that it was corrected may make no event.
    `status_s`: when a `creation.json` in which its run's status could not be written is looked at again.
    `cache_quiet_s`: how long after a file of a sealed run's cache folder was written it is brought to the NAS.
    `room_first_s`, `room_max_s`: when a commit for which there was no room is tried again, at first and at most.
    """

    probe_first_s: float = 5.0
    probe_max_s: float = 300.0
    probe_idle_s: float = 300.0
    doubt_first_s: float = 5.0
    doubt_max_s: float = 60.0
    second_scan_s: float = 5.0
    missing_s: float = 60.0
    unreadable_s: float = 5.0
    problem_s: float = 60.0
    status_s: float = 60.0
    cache_quiet_s: float = 20.0
    room_first_s: float = 1.0
    room_max_s: float = 30.0


PACE = Pace()
