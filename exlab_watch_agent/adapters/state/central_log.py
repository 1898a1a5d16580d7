"""The agent's own rotating log. A line that cannot be written there goes to stderr: a full disk silences nobody."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.local.durable import open_private
from exlab_watch_agent.core.text import printable, printable_lines


class _SafeFormatter(logging.Formatter):
    """One line a message, its time in UTC, with what may steer a terminal spelled out; a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        return printable_lines(super().formatException(ei))


class CentralLog(RotatingFileHandler):
    """A log file that is private to its user. Opened with its first line, and again after every error."""

    def __init__(self, path: Path, *, size_bytes_max: int, kept: int) -> None:
        super().__init__(
            path, maxBytes=size_bytes_max, backupCount=kept, encoding="utf-8", errors="backslashreplace", delay=True
        )
        formatter = _SafeFormatter("%(asctime)s [%(levelname)-5s] %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(exist_ok=True, mode=0o700)
        descriptor = open_private(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say the line elsewhere; logging's own way is a traceback."""
        self._let_go()
        with suppress(OSError, ValueError):  # Where nobody reads stderr either, nothing is left to say it to.
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()

    def _let_go(self) -> None:
        """Close the file and forget what it could not take: that has been said elsewhere, and would come twice."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()

    def close(self) -> None:
        self.acquire()
        try:
            self._let_go()
        finally:
            self.release()
        super().close()
