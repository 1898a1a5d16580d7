"""The machine's clocks: the uptime only goes forward, and says of which boot it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.clock import SystemClock

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def test_the_uptime_goes_forward_and_is_that_of_this_boot() -> None:
    clock = SystemClock()
    first, second = clock.uptime(), clock.uptime()
    assert first.boot_id == second.boot_id != ""
    assert 0 <= first.seconds <= second.seconds


@pytest.mark.skipif(not BOOT_ID.exists(), reason="only Linux names its boots")
def test_two_processes_of_one_boot_agree_on_it_and_on_the_time_since_then() -> None:
    source = (
        "from exlab_watch_agent.adapters.clock import SystemClock as C; u = C().uptime(); print(u.boot_id, u.seconds)"
    )
    mine = SystemClock().uptime()
    boot_id, seconds = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout.split()
    assert boot_id == mine.boot_id == BOOT_ID.read_text().strip()
    assert mine.seconds <= float(seconds) <= SystemClock().uptime().seconds


def test_where_no_boot_is_named_each_process_counts_from_its_own_beginning(tmp_path: Path) -> None:
    clock = SystemClock(boot_id_path=tmp_path / "none")
    first, second = clock.uptime(), clock.uptime()
    assert first.boot_id == second.boot_id
    assert first.boot_id.startswith("process ")
    assert 0 <= first.seconds <= second.seconds <= SystemClock().monotonic_s()


def test_a_pause_is_as_long_as_was_asked_for() -> None:
    clock = SystemClock()
    began_s = clock.monotonic_s()
    clock.pause(0.05)
    assert clock.monotonic_s() - began_s >= 0.05
