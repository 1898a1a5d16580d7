"""How long the transport over rclone waits for what. Nothing here waits: what waits gets a `Pace`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds, but the count. Tests hand over a quicker one.

    `connect_s`, `silence_s`: rclone's own `--contimeout` and `--timeout`, for a connection to come about and for a byte to
    come over it.
    `tries_max`: rclone's own `--low-level-retries`. Between its tries rclone waits up to two seconds, and tries of tries add up.
    `call_s`: for rclone's answer to a question; longer than `connect_s` and `silence_s` together, so that it is rclone that
    says what was wrong.
    `idle_s`: how long a connection to rclone may lie idle and be used again. rclone closes one that nobody uses for 60 s,
    and a request over that would look as if rclone had ended.
    `start_s`: for rclone to start and listen, which takes it 70 ms on a machine with nothing else to do.
    `stop_wait_s`: for rclone to stop what it was told to stop; then it is ended.
    `look_every_s`: how often work under way is asked whether it moves and is still wanted.
    `settle_s`: for how long another agent may still write over a marker of ours: nothing is created exclusively.
    `lag_s`: for how long a server may not list what it has just taken in, or list it as shorter; `lag_look_every_s`: how often it
    is asked meanwhile. FTP and WebDAV servers that write behind show a file within two seconds; object stores and drives with
    a listing of their own say nothing better than "soon".
    """

    connect_s: float = 15.0
    silence_s: float = 120.0
    tries_max: int = 3
    call_s: float = 150.0
    idle_s: float = 30.0
    start_s: float = 30.0
    stop_wait_s: float = 3.0
    look_every_s: float = 0.1
    settle_s: float = 0.5
    lag_s: float = 8.0
    lag_look_every_s: float = 0.5


PACE = Pace()
