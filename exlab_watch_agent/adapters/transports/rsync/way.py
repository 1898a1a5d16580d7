"""The way of the type `rsync_ssh`: by a shell on the target where there is one, by rsync alone where only that is allowed.

Decided here: which of the two it is, asked once, at the first question, and again after `close`. Not here: how either works
(by_shell.py, by_rsync.py). An account that allows neither is refused with the sentence of ssh_login.py.
"""

from __future__ import annotations

import threading
from pathlib import Path

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.far_side import FarSide, Way
from exlab_watch_agent.adapters.transports.rsync.by_rsync import RsyncOnlyFarSide
from exlab_watch_agent.adapters.transports.rsync.by_shell import ShellFarSide
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rsync.ssh_login import NoShellError
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.errors import FailureKind, TransportError

NEEDS_SHELL = (
    "remote_path begins with ~, and the account allows rsync only, which knows no home folder: give the absolute path on "
    "the server."
)


class RsyncWay(Way):
    """Leads to a server by ssh; members as those of ShellFarSide."""

    def __init__(
        self,
        target: RsyncSshTarget,
        *,
        children: Children | None = None,
        socket_folder: Path | None = None,
        stall_s: float = 300.0,
        is_metered: bool = True,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self._own_children = Children() if children is None else None
        kept = children or self._own_children or Children()
        self._by_shell = ShellFarSide(
            target, children=kept, socket_folder=socket_folder, stall_s=stall_s, is_metered=is_metered, pace=pace,
            clock=clock,
        )  # fmt: skip
        self._by_rsync = RsyncOnlyFarSide(
            target, children=kept, socket_folder=socket_folder, stall_s=stall_s, is_metered=is_metered, pace=pace,
            clock=clock,
        )  # fmt: skip
        self.name = self._by_shell.name
        self._remote_path = target.remote_path
        self._choosing = threading.Lock()
        self._chosen: FarSide | None = None

    def chosen(self) -> FarSide:
        """Return the way that the account allows. Raises: TransportError, NoShellError when there is none."""
        with self._choosing:
            if self._chosen is None:
                try:
                    self._by_shell.require_shell()
                    self._chosen = self._by_shell
                except NoShellError:
                    if self._remote_path.startswith("~"):
                        raise TransportError(FailureKind.AUTH, NEEDS_SHELL) from None
                    if not self._by_rsync.is_answering():
                        raise
                    self._chosen = self._by_rsync
            return self._chosen

    def nature(self) -> Nature:
        return self._by_shell.nature()

    def close(self) -> None:
        with self._choosing:
            self._by_shell.close()
            self._by_rsync.close()
            self._chosen = None
        if self._own_children is not None:
            self._own_children.close()
