"""The line that a run's event leaves in its `wizard.<hostname>.log`, and the thread that writes such lines in order.

The file is append-only and shared with ExLab-Wizard; it is for people. The durable record is the audit trail.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import stat
import threading
from contextlib import suppress
from datetime import datetime

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.handles import run_folder
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import counted, printable, reason, utc_text
from exlab_watch_agent.ports import Clock
from exlab_watch_agent.statechart import CHART, RunState

log = logging.getLogger(__name__)

QUEUE_MAX = 100_000
CLOSE_WAIT_S = 10.0
# O_NONBLOCK: the open of a fifo would wait for a reader for ever.
_APPEND = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_APPEND
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


def level_of(move: Move) -> str:
    if move.dest is RunState.FAILED:
        return "ERROR"
    return "WARNING" if move.dest in CHART.needs_attention or move.trigger in ("put_back", "copy_damaged") else "INFO"


def sentence(record: RunRecord, move: Move) -> str:
    """Return what happened in words."""
    if move.source is RunState.SEALING and move.dest is RunState.VERIFIED:
        return (
            f"NAS sync complete: {counted(record.files_total, 'file')}, {counted(record.bytes_total, 'byte')}, "
            "every SHA-256 equal on both sides"
        )
    source = move.source or "new"
    return f"NAS sync {source} -> {move.dest} ({move.trigger}): {move.reason}"


def format_line(record: RunRecord, *, at: datetime, level: str, host: str, text: str) -> str:
    """Return one line in the wizard's format; names with line breaks cannot forge a second one."""
    leaf = os.path.basename(record.run_path)
    return printable(
        f"{utc_text(at)} [{level:<5}] [host:{host}] [equip:{record.equipment_id}] [proj:{record.project}] "
        f"[kind:{record.run_kind}] [run:{leaf}] {text}"
    )


class RunLogWriter:
    """Appends lines to runs' logs on a thread of its own, in order. A run whose log cannot be written loses no data."""

    def __init__(
        self, host: str, *, clock: Clock | None = None, lines_max: int = QUEUE_MAX, close_wait_s: float = CLOSE_WAIT_S
    ) -> None:
        """`lines_max`: how many lines may wait. `close_wait_s`: how long `close` waits for them."""
        self._host = host
        self._monotonic_s = (clock or SystemClock()).monotonic_s
        self._close_wait_s = close_wait_s
        self._queue: queue.Queue[tuple[RunRecord, datetime, str, str] | None] = queue.Queue(lines_max)
        self._thread = threading.Thread(target=self._run, name="run-log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, record: RunRecord, move: Move) -> None:
        """Take note of a move; never blocks."""
        try:
            self._queue.put_nowait((record, move.at, level_of(move), sentence(record, move)))
        except queue.Full:
            log.warning("the run logs are not written fast enough; a line of %s was left out", record.run_path)

    def close(self) -> None:
        """Write what is waiting, a bounded time long. May be called twice, and without a start."""
        if not self._thread.is_alive():
            return
        deadline_s = self._monotonic_s() + self._close_wait_s
        with suppress(queue.Full):
            self._queue.put(None, timeout=self._close_wait_s)
        self._thread.join(max(0.0, deadline_s - self._monotonic_s()))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            record, at, level, text = item
            line = format_line(record, at=at, level=level, host=self._host, text=text)
            log.log(logging.getLevelNamesMapping()[level], "%s", line[line.index("[equip:") :])
            try:
                self._append(record.run_path, line)
            except OSError as error:
                log.warning("the log of %s could not be written: %s", record.run_path, reason(error))

    def _append(self, run_path: str, line: str) -> None:
        try:
            with run_folder(run_path) as run, run.step(CACHE_FOLDER) as folder:
                descriptor = folder.open(f"wizard.{self._host}.log", _APPEND, 0o644)
        except (FileNotFoundError, NotADirectoryError):
            return  # The run is gone or was moved; its folder is not made again.
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            data = line.encode() + b"\n"
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "a line was written in part")
        finally:
            os.close(descriptor)
