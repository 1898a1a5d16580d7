"""When two passes are two: only as far as every clock shows that time lies between them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exlab_watch_agent.core.passes import UNKNOWN_UPTIME, HowRead, Pass, Uptime, are_apart, counting, weakest

AT = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("by_wall_s", "earlier", "uptime", "is_apart"),
    [
        (60, Uptime("a", 100), Uptime("a", 160), True),
        (59, Uptime("a", 100), Uptime("a", 160), False),
        (60, Uptime("a", 100), Uptime("a", 159), False),
        (HOUR_S, Uptime("a", 100), Uptime("a", 105), False),  # the wall clock was set ahead
        (-HOUR_S, Uptime("a", 100), Uptime("a", 105), False),  # ... and back
        (-HOUR_S, Uptime("a", 100), Uptime("a", 160), True),  # one that was set back tells nothing
        (0, Uptime("a", 100), Uptime("a", 160), False),
        (HOUR_S, Uptime("a", 100_000), Uptime("b", 60), True),  # since the reboot a minute has passed at least
        (HOUR_S, Uptime("a", 100_000), Uptime("b", 59), False),
        (-HOUR_S, Uptime("a", 100_000), Uptime("b", 60), True),  # no battery: the clock begins anew at each boot
        (59, Uptime("a", 100_000), Uptime("b", 60), False),
        (HOUR_S, UNKNOWN_UPTIME, Uptime("a", 9_000), False),
        (HOUR_S, Uptime("a", 100), UNKNOWN_UPTIME, False),
        (HOUR_S, UNKNOWN_UPTIME, UNKNOWN_UPTIME, False),
    ],
)
def test_two_passes_are_apart_when_every_clock_says_so(
    by_wall_s: float, earlier: Uptime, uptime: Uptime, is_apart: bool
) -> None:
    now = AT + timedelta(seconds=by_wall_s)
    assert are_apart(earlier_at=AT, earlier=earlier, now=now, uptime=uptime) is is_apart


def proof(after_s: float, **changes: object) -> Pass:
    made = Pass(
        id=f"job/{after_s}",
        started_at=AT,
        ended_at=AT + timedelta(seconds=after_s),
        boot_id="a",
        monotonic_s=100 + after_s,
        uptime_sum_s=after_s,
        marker_id="m",
        spelling="/mnt/nas",
        manifest_sha256="d",
        files=1,
        bytes=1,
        remote=HowRead.O_DIRECT,
        past_cache=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("second", "count"),
    [
        (proof(60), 2),
        (proof(59), 1),
        (proof(60, past_cache=False), 1),
        (proof(60, remote=HowRead.INJECTED), 1),
        (proof(60, remote=HowRead.PAGE_CACHE), 1),
        (proof(60, remote=HowRead.PAGE_CACHE, past_cache=False), 1),
        (proof(60, manifest_sha256="another"), 1),
        (proof(60, marker_id="another"), 1),
        (proof(60, spelling="//server/share"), 2),
        (proof(60, nas_at=AT), 2),  # the first has none to compare with
    ],
)
def test_deletion_goes_only_by_passes_past_the_cache_of_this_manifest_and_place_and_apart(
    second: Pass, count: int
) -> None:
    passes = [proof(0), second]
    assert len(counting(passes, manifest_sha256="d", marker_id="m", needs_distance=True)) == count


def test_a_pass_between_two_that_are_apart_does_not_keep_them_from_counting() -> None:
    passes = [proof(0), proof(30), proof(59), proof(61)]
    found = counting(passes, manifest_sha256="d", marker_id="m", needs_distance=True)
    assert [one.id for one in found] == ["job/0", "job/61"]
    assert len(counting(passes, manifest_sha256="d", marker_id="m", needs_distance=False)) == 4


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ([], HowRead.DOWNLOAD),
        ([HowRead.NOWAIT, HowRead.O_DIRECT], HowRead.NOWAIT),
        ([HowRead.NOWAIT, HowRead.PAGE_CACHE, HowRead.O_DIRECT], HowRead.PAGE_CACHE),
        ([HowRead.SERVER_HASH, HowRead.INJECTED], HowRead.INJECTED),
    ],
)
def test_of_several_ways_the_one_that_shows_least_is_said(ways: list[HowRead], said: HowRead) -> None:
    assert weakest(ways) is said
