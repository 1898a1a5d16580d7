"""Tells a person who waits for the agent what happens: moves, notices, and how far each run's work is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.cli.saying import say_aside
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.report.progress import progress_text

BARS_EVERY_S = 0.2
BAR_FROM_WIDTH = 100
"""A narrower terminal has room for the words alone."""
BAR_WIDTH = 20


class Narrator:
    """Tells a waiting person on stderr what happens: a line a move, and where there is a terminal one for what is under way."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._is_quiet = is_quiet
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def on_move(self, record: RunRecord, move: Move) -> None:
        if self._is_quiet:
            return
        source = move.source.value if move.source is not None else "new"
        text = f"{record.equipment_id} {printable(record.run_path.rsplit('/', 1)[-1])}: {source} -> {move.dest}"
        self._is_quiet = not self._say(f"{text} ({printable(move.reason)})")

    def on_notice(self, text: str) -> None:
        """Say what concerns the whole agent; also where moves are not to be told."""
        self._say(printable(text))

    def _say(self, line: str) -> bool:
        """Print a line; return False when the reader of our words has gone: the agent works on.

        While there are bars, what is printed on stderr comes above them. The library's own `print` would end the program
        where nobody reads any longer.
        """
        try:
            say_aside(line, is_flushed=True)
        except OSError:
            return False
        return True

    @contextmanager
    def following(self, agent: Agent) -> Iterator[None]:
        if self._is_quiet or not self._console.is_terminal:
            yield
            return
        words = TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        )
        bar = (BarColumn(BAR_WIDTH),) if self._console.width >= BAR_FROM_WIDTH else ()
        with Progress(*bar, words, console=self._console, transient=True, expand=True) as bars:
            self._stop.clear()  # it may follow one agent after the other
            self._thread = threading.Thread(target=self._follow, args=(agent, bars), daemon=True)
            self._thread.start()
            try:
                yield
            finally:
                self._stop.set()
                self._thread.join()

    def _follow(self, agent: Agent, bars: Progress) -> None:
        shown: dict[str, TaskID] = {}
        while not self._stop.wait(BARS_EVERY_S):
            progress = agent.progress()
            for job_id in set(shown) - set(progress):
                bars.remove_task(shown.pop(job_id))
            for job_id, done in progress.items():
                record = agent.store.view.get(job_id)
                if record is None or not done.bytes_total:
                    continue
                name = printable(record.run_path.rsplit("/", 1)[-1])
                if job_id not in shown:
                    shown[job_id] = bars.add_task("")
                bars.update(
                    shown[job_id],
                    description=f"{name} {progress_text(done)}",
                    total=done.bytes_total,
                    completed=min(done.bytes_done, done.bytes_total),
                )
