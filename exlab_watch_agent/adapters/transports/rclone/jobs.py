"""Work of rclone that may take hours: supervised, at the rate of the moment, and broken off when it is no longer wanted.

Decided here: how many things are asked of rclone at once, and how it is known that it moves, has failed or has stopped. Not here:
what it is to do (uploads.py, proof.py).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from exlab_watch_agent.adapters.children.process import StallWatch
from exlab_watch_agent.adapters.clock import PausingClock
from exlab_watch_agent.adapters.transports.rclone.errors import RcloneError, error_in
from exlab_watch_agent.adapters.transports.rclone.pace import Pace
from exlab_watch_agent.adapters.transports.rclone.remote import Remote
from exlab_watch_agent.adapters.transports.rclone.requests import Requests
from exlab_watch_agent.errors import CancelledError, TransportError
from exlab_watch_agent.ports import Control, Progress

T = TypeVar("T")


class Jobs:
    """The work that one transport gives to its rclone. `stall_s`: what moves no byte for that long is ended."""

    def __init__(self, remote: Remote, *, stall_s: float, pace: Pace, clock: PausingClock) -> None:
        self._remote = remote
        self._daemon = remote.daemon
        self._stall_s = stall_s
        self._pace = pace
        self._clock = clock
        self._rate: float | None = None

    def supervision(
        self,
        control: Control,
        progress: Callable[[], object],
        *,
        set_rate: Callable[[float | None], None] = lambda _: None,
        more_s: float = 0.0,
    ) -> Supervision:
        """Return what looks after one piece of work. `more_s`: for how much longer than usual it may seem not to move."""
        return Supervision(control, self._stall_s + more_s, progress, set_rate)

    def batched(
        self, what: str, inputs: Sequence[Mapping[str, Any]], *, group: str, at_once: int, supervision: Supervision
    ) -> Sequence[Mapping[str, Any]]:
        """Let rclone do this for each input, and return its answers in the same order; what failed says so in its own.

        Raises: CancelledError, TransportError with `network` after a stall, RcloneError; rclone no longer works on it.
        """
        asked = [{"_path": f"operations/{what}", **members} for members in inputs]
        parameters = {"inputs": asked, "concurrency": at_once, "_group": group}
        results: Sequence[Mapping[str, Any]] = self.working(
            "job/batch", parameters, group=group, supervision=supervision
        )["results"]
        return results

    def working(
        self, path: str, parameters: Mapping[str, Any], *, group: str, supervision: Supervision
    ) -> Mapping[str, Any]:
        """Return rclone's answer to a request that may take hours. Raises: as `batched`."""
        answer: dict[str, Any] = {}

        def ask(requests: Requests, parameters: Mapping[str, Any]) -> None:
            answer.update(requests.call(path, parameters, may_take_hours=True))

        try:
            self.supervise([parameters], ask, supervision=supervision, threads=1)
        except (CancelledError, TransportError, RcloneError):
            self.stop(group)
            raise
        return answer

    def supervise(
        self, items: Sequence[T], work: Callable[[Requests, T], None], *, supervision: Supervision, threads: int
    ) -> None:
        """Do the work for each item in a few threads; cancelled, stalled or failed, break off all of it.

        Raises: what the work raises first, CancelledError, TransportError with `network` for a stall.
        """
        if not items:
            return
        requests = Requests(self._daemon)
        waiting = list(reversed(items))
        is_over = threading.Event()

        def work_off() -> None:
            while not is_over.is_set():
                try:
                    item = waiting.pop()  # takes from the end, and is atomic
                except IndexError:
                    return
                work(requests, item)

        with ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="rclone") as pool:
            futures: set[Future[None]] = {pool.submit(work_off) for _ in range(min(threads, len(items)))}
            try:
                pending = futures
                while pending:
                    ended, pending = wait(pending, timeout=self._pace.look_every_s, return_when=FIRST_EXCEPTION)
                    for future in ended:
                        future.result()
                    if pending:
                        supervision.check()
            finally:
                is_over.set()
                if any(not future.done() for future in futures):
                    requests.break_off()

    def stop(self, group: str) -> None:
        """Return when rclone no longer writes anything of this group; end it when it does not stop by itself."""
        try:
            self._remote.ask("job/stopgroup", group=group)
            deadline = StallWatch(self._pace.stop_wait_s, "rclone")
            while self._remote.ask("core/stats", group=group).get("transferring"):
                deadline.saw(None)
                self._clock.pause(self._pace.look_every_s / 2)
        except (RcloneError, TransportError):
            self._daemon.stop()

    def moved(self, group: str) -> tuple[int, int]:
        """Return bytes and files that rclone says it has moved for this group.

        Raises: RcloneError once any file failed. rclone would also try every other one, and wait for each of them. One that
        is not there has not failed: the answer says what became of it.
        """
        stats = self._remote.ask("core/stats", group=group)
        if stats.get("errors"):
            error = error_in({"error": stats.get("lastError") or "rclone gave no reason"})
            if not error.is_missing:
                raise error
        return int(stats.get("bytes", 0)), int(stats.get("transfers", 0))

    def failed(self, group: str) -> Mapping[str, str]:
        """Return path → what went wrong, of the latest transfers of a group."""
        with contextlib.suppress(RcloneError, TransportError):
            done = self._remote.ask("core/transferred", group=group).get("transferred") or ()
            return {str(item["name"]): str(item["error"]) for item in done if item.get("error")}
        return {}

    def forget(self, group: str) -> None:
        """Let rclone forget what it counted for this group."""
        with contextlib.suppress(RcloneError, TransportError):
            self._remote.ask("core/stats-delete", group=group)

    def set_rate(self, rate_bytes_per_s: float | None) -> None:
        """Let rclone send at most that fast from now on, what is on its way included."""
        if rate_bytes_per_s != self._rate:
            # One number, not "up:down": rclone keeps to those on network connections only, to this one in every copy.
            rate = "off" if rate_bytes_per_s is None else f"{max(1, int(rate_bytes_per_s))}B"
            self._remote.ask("core/bwlimit", rate=rate)
            self._rate = rate_bytes_per_s

    @contextlib.contextmanager
    def listed(self, paths: Iterable[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the filter that lets rclone see these paths and no others."""
        with self.scratch() as folder:
            (folder / "names").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
            yield {"FilesFrom0": [str(folder / "names")]}

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder of our own here, for files that rclone is to send; it is gone afterwards."""
        folder = self._daemon.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()


class Supervision:
    """Checks one piece of work for cancellation, stall and bandwidth."""

    def __init__(
        self,
        control: Control,
        stall_s: float,
        progress: Callable[[], object],
        set_rate: Callable[[float | None], None],
    ) -> None:
        self._control = control
        self._stall = StallWatch(stall_s, "rclone")
        self._progress = progress
        self._set_rate = set_rate
        self._most = (0, 0)

    def keep_rate(self) -> None:
        self._set_rate(self._control.rate_bytes_per_s())

    def check(self) -> None:
        """Raises: CancelledError, TransportError with `network` after a stall."""
        if self._control.is_cancelled():
            raise CancelledError("stopped as asked")
        self.keep_rate()
        progress = self._progress()
        self._stall.saw(progress)
        if isinstance(progress, tuple):
            # A file that is begun again counts from its start: what was reported is not taken back.
            self._most = max(self._most[0], progress[0]), max(self._most[1], progress[1])
            self._control.report(Progress(*self._most))
