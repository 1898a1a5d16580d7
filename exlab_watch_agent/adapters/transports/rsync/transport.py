"""The transport of type `rsync_ssh`: by a shell on the target where there is one, by rsync alone where only that is allowed.

Decided here: which of the two it is, asked once, at the first question, and again after `close`. Not here: how either works
(by_shell.py, by_rsync.py). An account that allows neither is refused with the sentence of ssh_login.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.rsync.by_rsync import RsyncOnlyTransport
from exlab_watch_agent.adapters.transports.rsync.by_shell import RsyncSshTransport
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rsync.ssh_login import NoShellError
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.claim import Claim, DestinationLook
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.errors import DestinationUnreachableError, TransportError
from exlab_watch_agent.ports import NOTHING_ELSE, Control, RemoteFile


class RsyncTransport:
    """Implements ports.Transport; members as those of RsyncSshTransport."""

    def __init__(
        self,
        target: RsyncSshTarget,
        *,
        owner: str = "",
        children: Children | None = None,
        socket_folder: Path | None = None,
        stall_s: float = 300.0,
        stream_bytes_max: int = 1 << 30,
        is_metered: bool = True,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self._own_children = Children() if children is None else None
        kept = children or self._own_children or Children()
        self._by_shell = RsyncSshTransport(
            target, owner=owner, children=kept, socket_folder=socket_folder, stall_s=stall_s,
            stream_bytes_max=stream_bytes_max, is_metered=is_metered, pace=pace, clock=clock,
        )  # fmt: skip
        self._by_rsync = RsyncOnlyTransport(
            target, owner=owner, children=kept, socket_folder=socket_folder, stall_s=stall_s,
            stream_bytes_max=stream_bytes_max, is_metered=is_metered, pace=pace, clock=clock,
        )  # fmt: skip
        self._choosing = threading.Lock()
        self._chosen: RsyncSshTransport | RsyncOnlyTransport | None = None

    def _way(self) -> RsyncSshTransport | RsyncOnlyTransport:
        """Return the way that the account allows. Raises: TransportError, NoShellError when there is none."""
        with self._choosing:
            if self._chosen is None:
                try:
                    self._by_shell.require_shell()
                    self._chosen = self._by_shell
                except NoShellError:
                    if not self._by_rsync.is_answering():
                        raise
                    self._chosen = self._by_rsync
            return self._chosen

    def _asking_way(self) -> RsyncSshTransport | RsyncOnlyTransport:
        try:
            return self._way()
        except TransportError as error:
            text = f"The destination {self.describe()} cannot be used: {str(error).rstrip('.')}."
            raise DestinationUnreachableError(text) from error

    def describe(self) -> str:
        return self._by_shell.describe()

    def check_tools(self) -> tuple[str, ...]:
        return self._way().check_tools()

    def nature(self) -> Nature:
        return self._by_shell.nature()

    def bind(self, *, known_marker_id: str | None = None) -> str:
        return self._asking_way().bind(known_marker_id=known_marker_id)

    def put_marker_back(self, marker_id: str) -> None:
        self._asking_way().put_marker_back(marker_id)

    def probe(self, *, expected_marker_id: str | None) -> None:
        self._asking_way().probe(expected_marker_id=expected_marker_id)

    def require_marker(self, *, expected_marker_id: str | None) -> None:
        self._asking_way().require_marker(expected_marker_id=expected_marker_id)

    def round_trip(self, while_there: Callable[[str, bytes], None] | None = None) -> None:
        self._asking_way().round_trip(while_there)

    def free_bytes(self) -> int | None:
        return self._way().free_bytes()

    def top_names(self) -> tuple[str, ...] | None:
        return self._way().top_names()

    def look(self, destination: str) -> DestinationLook:
        return self._way().look(destination)

    def place_claim(self, destination: str, claim: Claim) -> None:
        self._way().place_claim(destination, claim)

    def listing(self, destination: str) -> Mapping[str, RemoteFile]:
        return self._way().listing(destination)

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        self._way().copy(source_root, files, destination, control=control)

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        *,
        control: Control,
        instead: Mapping[str, bytes] = NOTHING_ELSE,
    ) -> None:
        self._way().replace(source_root, files, destination, control=control, instead=instead)

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        return self._way().read_small(destination, relative_path, limit_bytes=limit_bytes)

    def write_small(self, path: str, data: bytes) -> None:
        self._way().write_small(path, data)

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        self._way().set_aside(destination, paths)

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        return self._way().samples(destination, files, control=control)

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        return self._way().read_back(destination, paths, control=control)

    def digest_bytes_max(self) -> int | None:
        return self._way().digest_bytes_max()

    def clear_partials(self, destination: str) -> None:
        self._way().clear_partials(destination)

    def close(self) -> None:
        with self._choosing:
            self._by_shell.close()
            self._by_rsync.close()
            self._chosen = None
        if self._own_children is not None:
            self._own_children.close()
