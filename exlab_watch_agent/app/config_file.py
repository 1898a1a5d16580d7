"""Whether the config files still say what a running agent took in at its start. It reads them, and never takes them in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


class ConfigFiles:
    """The files of one config as they were when the agent was made: ours, ExLab-Wizard's, or both."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [_ConfigFile(path) for path in paths]

    def changed_at(self) -> datetime | None:
        """Return when the first of them was saved that differs from the one in force; None where none does."""
        return min((at for file in self._files if (at := file.changed_at()) is not None), default=None)


class _ConfigFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = self._read()
        self._seen: tuple[int, int] | None = None
        self._changed_at: datetime | None = None

    def changed_at(self) -> datetime | None:
        """Return when the file was saved that differs from the one in force; None where it does not, or cannot be read now."""
        if self._digest is None:
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
        try:
            return hashlib.sha256(self._path.read_bytes()).digest()
        except OSError:
            return None
