"""The example configs of the transports are good ones, and say what they are there to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from exlab_watch_agent.config.load import load_settings
from exlab_watch_agent.core.policy import RcloneTarget, RsyncSshTarget

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(("name", "target"), [("rclone", RcloneTarget), ("rsync_ssh", RsyncSshTarget)])
def test_an_example_of_a_transport_loads_without_a_word_of_complaint(name: str, target: type) -> None:
    settings = load_settings(CONFIG / f"{name}.example.yaml")
    (equipment,) = settings.policy().equipment
    assert isinstance(equipment.target, target)
    assert equipment.bandwidth is not None
    assert equipment.bandwidth.upload_mbps == 50
