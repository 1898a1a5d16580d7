"""What an anchor of our own on the NAS says of the trail here: that it is an older copy, or that both copies were used."""

from __future__ import annotations

import pytest

from exlab_watch_agent.core.rollback import TrailPosition, found_behind, is_in_trail

HEAD = TrailPosition(10, "a" * 64)


@pytest.mark.parametrize(
    ("seen", "ahead", "said"),
    [
        (TrailPosition(9, "a" * 64), None, ""),
        (TrailPosition(9, "b" * 64), None, "both copies of it were used"),
        (HEAD, None, ""),
        (TrailPosition(11, "b" * 64), None, "older copy of itself"),
        (TrailPosition(10, "b" * 64), None, "both copies of it were used"),
        (TrailPosition(11, "b" * 64), TrailPosition(11, "b" * 64), ""),
        (TrailPosition(11, "b" * 64), TrailPosition(12, "c" * 64), ""),
        (TrailPosition(13, "b" * 64), TrailPosition(12, "c" * 64), "older copy of itself"),
    ],
)
def test_what_an_anchor_says(seen: TrailPosition, ahead: TrailPosition | None, said: str) -> None:
    found = found_behind(seen, head=HEAD, digest_here="a" * 64, ahead=ahead)
    assert (said in found, bool(found)) == (True, bool(said))


@pytest.mark.parametrize(
    ("seen", "is_there"),
    [
        (TrailPosition(9, "a" * 64), True),
        (HEAD, True),
        (TrailPosition(9, "b" * 64), False),
        (TrailPosition(11, "a" * 64), False),
    ],
)
def test_whether_the_trail_has_a_line(seen: TrailPosition, is_there: bool) -> None:
    assert is_in_trail(seen, head=HEAD, digest_here="a" * 64) is is_there


def test_a_line_that_cannot_be_read_says_nothing() -> None:
    assert is_in_trail(TrailPosition(9, "b" * 64), head=HEAD, digest_here=None)
    assert found_behind(TrailPosition(9, "b" * 64), head=HEAD, digest_here=None, ahead=None) == ""
