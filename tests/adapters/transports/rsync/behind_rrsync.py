"""The way to an account for rsync alone (`rrsync`), as the suites of a way take it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.ports import Transport
from tests.adapters.transports.contract import OneWay
from tests.lab.servers import SshServer


class BehindRrsync(OneWay):
    """A way to an account that `rrsync` lets in."""

    is_metered: ClassVar = True

    @pytest.fixture(autouse=True)
    def _server(self, sshd_rrsync: SshServer) -> Iterator[None]:
        self.server = sshd_rrsync
        self.made: list[tuple[Transport, Children]] = []
        yield
        for transport, children in self.made:
            transport.close()
            children.close()

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return self.server.place(f"{tmp_path.parent.name} {tmp_path.name}").root

    def constructor(self, root: Path) -> str:
        return (
            "import os\n"
            "from exlab_watch_agent.adapters.children.process import Children\n"
            "from exlab_watch_agent.adapters.transports.destination import Destination\n"
            "from exlab_watch_agent.adapters.transports.rsync.by_rsync import RsyncOnlyFarSide\n"
            "from exlab_watch_agent.core.policy import RsyncSshTarget\n"
            f"target = RsyncSshTarget({self.server.target!r}, {self.server.port}, {str(self.server.key)!r}, "
            f"{str(self.server.known_hosts)!r}, {self.server.path_of(root)!r})\n"
            "children = Children()\n"
            f"far = RsyncOnlyFarSide(target, children=children, is_metered={self.is_metered})\n"
            "transport = Destination(far, owner=str(os.getpid()), stream_bytes_max=1 << 30)"
        )

    def make(self, root: Path) -> Transport:
        names: dict[str, Any] = {}
        exec(self.constructor(root), names)
        self.made.append((names["transport"], names["children"]))
        transport: Transport = names["transport"]
        return transport
