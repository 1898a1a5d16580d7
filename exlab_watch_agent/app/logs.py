"""Which log is meant by a word, and its lines: the agent's, an instrument's part of that, or a run's own."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.adapters.local.log_file import LogFile
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.core.text import printable, reason
from exlab_watch_agent.errors import AgentError


@dataclass(frozen=True, slots=True)
class Log:
    """A log that was asked for. `name`: for people; `about`: what its lines must have, empty for all of them.

    `older`: files that were rotated away, the oldest first.
    """

    name: str
    file: LogFile
    older: tuple[Path, ...] = ()
    about: str = ""

    def lines(self) -> Iterator[str]:
        """Yield all lines that are there, the oldest first. Raises: AgentError."""
        for path in self.older:
            one = LogFile.at(path)
            try:
                yield from self._taken(one.new_lines())
                yield from self._taken(one.begun())
            finally:
                one.close()
        yield from self.new_lines()

    def new_lines(self) -> Iterator[str]:
        """Yield the lines that came since the last question. Raises: AgentError."""
        yield from self._taken(self.file.new_lines())

    def _taken(self, lines: Iterator[str]) -> Iterator[str]:
        # Ids are of capitals, digits and underscores: CONFOCAL_1 is not in a line about CONFOCAL_10.
        word = re.compile(rf"(?<![A-Z0-9_]){re.escape(self.about)}(?![A-Z0-9_])")
        try:
            yield from (line for line in lines if word.search(line))
        except OSError as error:
            raise AgentError(f"The log {printable(self.name)} cannot be read: {reason(error)}.") from error


def log_of(site: Site, word: str | None) -> Log:
    """Return the log of a run or an instrument, or without a word the agent's. Raises: RunNotFoundError."""
    path = StateLayout(site.state_dir).log
    known = {record.equipment_id for record in site.records.values()} | site.roots.keys()
    if word is not None and word not in known:
        run_path, _ = site.find_run(word)
        return Log(f"of {run_path}", LogFile.of_run(run_path, socket.gethostname()))
    rotated = [one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdecimal()]
    older = tuple(sorted(rotated, key=lambda one: int(one.suffix[1:]), reverse=True))
    return Log(str(path), LogFile.at(path), older, word or "")
