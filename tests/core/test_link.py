"""What a lane's destination may be to it: every state × every event, and that only a probe ends a wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from exlab_watch_agent.core.link import (
    ASKED_FULLY_FOR_S,
    AdmissionAnswered,
    Answering,
    Away,
    Link,
    LinkEvent,
    LinkLost,
    ProbeAnswered,
    ProbeUnanswered,
    Unasked,
    decide_link,
    must_ask_fully,
)
from exlab_watch_agent.errors import NAS_UNREACHABLE, Wait

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
IDLE_S = 300.0
"""One that answers is asked again, so that it is told that it went away also where nothing is to be pushed."""
EARLIER = NOW - timedelta(hours=1)
UNBOUND = Wait("destination_unbound", "exlab-watch-agent bind SCOPE_01")
LINKS: list[Link] = [
    Unasked(),
    Answering(),
    Answering(100.0),
    Away(EARLIER, "it was not there", UNBOUND),
    Away(EARLIER, "it was not there", UNBOUND, 60.0),
]
EVENTS: list[LinkEvent] = [
    LinkLost(NOW, "it is not there", NAS_UNREACHABLE),
    ProbeUnanswered(NOW, "it is not there", NAS_UNREACHABLE),
    ProbeAnswered(),
    ProbeAnswered(200.0),
    AdmissionAnswered(),
    AdmissionAnswered(200.0),
]


@pytest.mark.parametrize(("link", "event"), list(product(LINKS, EVENTS)))
def test_it_is_away_exactly_since_something_said_so_and_until_a_probe_was_answered(
    link: Link, event: LinkEvent
) -> None:
    step = decide_link(link, event)
    match event:
        case LinkLost() | ProbeUnanswered():
            since = link.since if isinstance(link, Away) else NOW
            assert isinstance(step.link, Away)
            assert (step.link.since, step.link.reason, step.link.wait) == (since, event.reason, event.wait)
        case ProbeAnswered():
            assert isinstance(step.link, Answering)
            assert step.probe_in_s == IDLE_S
        case AdmissionAnswered():
            assert isinstance(step.link, Away) == isinstance(link, Away)
            assert step.probe_in_s == (None if isinstance(link, Away) else IDLE_S)


@pytest.mark.parametrize("link", LINKS)
def test_one_that_is_lost_is_probed_soon_and_a_probe_that_is_planned_is_left_as_it_is(link: Link) -> None:
    step = decide_link(link, LinkLost(NOW, "it is not there", NAS_UNREACHABLE))
    assert step.probe_in_s == (None if isinstance(link, Away) else 5.0)


def test_it_is_probed_after_5_10_20_40_and_at_most_60_seconds() -> None:
    step = decide_link(Answering(), LinkLost(NOW, "gone", NAS_UNREACHABLE))
    waits = [step.probe_in_s]
    for _ in range(5):
        step = decide_link(step.link, ProbeUnanswered(NOW, "gone", NAS_UNREACHABLE))
        waits.append(step.probe_in_s)
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


@pytest.mark.parametrize("link", LINKS)
def test_it_need_not_show_again_that_it_keeps_what_is_written_for_ten_seconds_after_it_did(link: Link) -> None:
    answered = decide_link(link, ProbeAnswered(200.0)).link
    assert not must_ask_fully(answered, now_s=200.0 + ASKED_FULLY_FOR_S - 0.1)
    assert must_ask_fully(answered, now_s=200.0 + ASKED_FULLY_FOR_S)
    assert not must_ask_fully(decide_link(answered, ProbeAnswered()).link, now_s=201.0)  # a light answer takes nothing
    lost = decide_link(answered, LinkLost(NOW, "gone", NAS_UNREACHABLE)).link
    assert must_ask_fully(lost, now_s=200.0)
    assert must_ask_fully(decide_link(lost, ProbeAnswered()).link, now_s=201.0)
