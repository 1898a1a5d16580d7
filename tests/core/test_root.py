"""What an equipment's root may be: every state × every event, and that only a scan that found it makes it ours."""

from __future__ import annotations

from itertools import product

import pytest

from exlab_watch_agent.core.root import (
    Doubted,
    Ours,
    Root,
    RootFound,
    RootInDoubt,
    Unasked,
    after_scan,
)

ROOTS: list[Root] = [Unasked(), Ours("disk 1"), Doubted("it is empty", 5.0), Doubted("it is gone", 40.0)]
EVENTS = [RootFound("disk 1"), RootFound("disk 2"), RootInDoubt("it is gone")]


@pytest.mark.parametrize(("root", "event"), list(product(ROOTS, EVENTS)))
def test_a_scan_that_found_the_root_makes_it_ours_and_any_other_puts_it_in_doubt(
    root: Root, event: RootFound | RootInDoubt
) -> None:
    after = after_scan(root, event)
    if isinstance(event, RootFound):
        assert after == Ours(event.volume)
    else:
        assert isinstance(after, Doubted)
        assert after.reason == event.reason


def test_a_doubt_that_lasts_is_looked_into_after_5_10_20_40_and_at_most_60_seconds_and_from_5_the_next_time() -> None:
    root: Root = Unasked()
    for _ in range(2):
        waits = []
        for _ in range(6):
            root = after_scan(root, RootInDoubt("it is gone"))
            assert isinstance(root, Doubted)
            waits.append(root.wait_s)
        assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
        root = after_scan(root, RootFound("disk 1"))
