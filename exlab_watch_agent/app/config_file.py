"""Whether the config file still says what a running agent took in at its start. It reads the file, and never takes it in."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path


class ConfigFile:
    """The file as it was when the agent was made; None where it runs without one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._digest = self._read()
        self._seen: tuple[int, int] | None = None
        self._changed_at: datetime | None = None

    def changed_at(self) -> datetime | None:
        """Return when the file was saved that differs from the one in force; None where it does not, or cannot be read now."""
        if self._path is None or self._digest is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return self._changed_at
        signature = status.st_mtime_ns, status.st_size
        if signature != self._seen:
            self._seen = signature
            digest = self._read()
            differs = digest is not None and digest != self._digest
            self._changed_at = datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC) if differs else None
        return self._changed_at

    def _read(self) -> bytes | None:
        if self._path is None:
            return None
        try:
            return hashlib.sha256(self._path.read_bytes()).digest()
        except OSError:
            return None
