"""How far a run's work is, in words."""

from __future__ import annotations

import pytest

from exlab_watch_agent.core.snapshot import Doing, ProgressView
from exlab_watch_agent.report.progress import progress_text, span_text

MIB = 1024.0**2


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (
            ProgressView(int(MIB), 1, 2.0, Doing.PUSH, int(4 * MIB)),
            "push: 1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6 s left",
        ),
        (
            ProgressView(int(MIB), 1, 2.0, Doing.PUSH, int(4 * MIB), MIB / 2),
            "push: 1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6 s left, limit 512.0 KiB/s",
        ),
        (
            ProgressView(int(MIB), 1, 2.0, Doing.VERIFY, int(4 * MIB), 1.0),
            "verify: 1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6 s left",
        ),
        (ProgressView(0, 0, 0.0, Doing.AUDIT, 1000), "audit: 0 bytes of 1000 bytes (0 %)"),
        (ProgressView(2000, 0, 1.0, Doing.PUSH, 1000), "push: 1000 bytes of 1000 bytes (100 %), 2.0 KiB/s, 1 s left"),
        (ProgressView(0, 0, 3.0, Doing.SEAL, 1000), "seal"),
        (ProgressView(5, 0, 3.0, Doing.PUSH, 0), "push"),
        (ProgressView(5, 0, 3.0, None, 0), "under way"),
    ],
)
def test_progress_in_words(progress: ProgressView, said: str) -> None:
    assert progress_text(progress) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1 s"), (0.2, "1 s"), (119, "119 s"), (120, "2 min"), (121, "3 min"), (7200, "2 h"), (10_000, "3 h")],
)
def test_time_left_is_never_none_and_rounded_up(seconds: float, said: str) -> None:
    assert span_text(seconds) == said
