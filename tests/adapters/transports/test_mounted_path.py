"""The mounted-path transport: the contract, and what only it promises."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract")
from contract import TransportContract  # noqa: E402


class TestContract(TransportContract):
    def constructor(self, root: Path) -> str:
        return (
            "from exlab_watch_agent.adapters.transports.mounted_path import MountedPathTransport\n"
            f"transport = MountedPathTransport({str(root)!r})"
        )
