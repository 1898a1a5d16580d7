"""Has the NAS read a copy back, and finds out which of its files it cannot give back. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from exlab_watch_agent.acts.copy import CACHE_READ_BACK_BYTES_MAX, NOT_THE_COPY
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.passes import HowRead, ReadBack, weakest
from exlab_watch_agent.errors import TransportError
from exlab_watch_agent.ports import Control, Ports

UNREADABLE = "unreadable"
"""The hash of a file that cannot be read; it agrees with no hash."""
UNREADABLE_FILES_MAX = 200
"""Each costs some requests to find. Where there are more, the copy as a whole counts as unreadable."""


def read_back(destination: str, paths: Sequence[str], ports: Ports, control: Control) -> ReadBack:
    """Return what the NAS says of these files; `UNREADABLE` for each that it lists and cannot give back.

    Raises: TransportError when it gives back nothing at all, or when its files are not the reason.
    """
    reader = _Reader(destination, ports, control)
    found = reader.read(paths)
    is_nothing_readable = bool(reader.unreadable) and found.keys() == reader.unreadable
    if reader.error is not None and is_nothing_readable and not (len(paths) == 1 and reader.reads_its_claim()):
        raise reader.error
    return ReadBack(found, weakest(reader.ways), reader.is_past_cache, reader.nas_at)


class _Reader:
    """Reads one copy back, by halves where it must, until it is clear which files cannot be read."""

    def __init__(self, destination: str, ports: Ports, control: Control) -> None:
        self._destination = destination
        self._ports = ports
        self._control = control
        self.unreadable: set[str] = set()
        self.error: TransportError | None = None
        self.ways: list[HowRead] = []
        self.is_past_cache = True
        self.nas_at: datetime | None = None

    def read(self, paths: Sequence[str]) -> dict[str, str]:
        """Return path → SHA-256, `UNREADABLE` for what cannot be read at the second try either."""
        try:
            return self._digests(paths)
        except TransportError as error:
            self._require_about_the_copy(error)
        if len(paths) > 1:
            middle = len(paths) // 2
            return self.read(paths[:middle]) | self.read(paths[middle:])
        try:
            return self._digests(paths)
        except TransportError as error:
            self._require_about_the_copy(error)
            self.unreadable |= set(paths)
            if len(self.unreadable) > UNREADABLE_FILES_MAX:
                raise
            return dict.fromkeys(paths, UNREADABLE)

    def reads_its_claim(self) -> bool:
        """Return whether the file beside the only data file can be read."""
        try:
            read = self._ports.transport.read_small
            return read(self._destination, CLAIM_PATH, limit_bytes=CACHE_READ_BACK_BYTES_MAX) is not None
        except TransportError:
            return False

    def _digests(self, paths: Sequence[str]) -> dict[str, str]:
        read = self._ports.transport.read_back(self._destination, paths, control=self._control)
        self.ways.append(read.how)
        self.is_past_cache &= read.is_past_cache
        self.nas_at = read.nas_at
        return dict(read.digests)

    def _require_about_the_copy(self, error: TransportError) -> None:
        """Raise the error unless the NAS is there and the reason is what is stored on it."""
        if error.kind in NOT_THE_COPY:
            raise error
        self._ports.transport.require_marker(expected_marker_id=self._ports.marker_id())
        self.error = error
