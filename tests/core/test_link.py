"""What a lane's destination may be to it: every state × every event, and that only a probe ends a wait."""

from __future__ import annotations

from dataclasses import replace
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
    LinkStep,
    ProbeAnswered,
    ProbeUnanswered,
    PushArrived,
    Unasked,
    decide_link,
    must_ask_fully,
)
from exlab_watch_agent.errors import DESTINATION_FULL, NAS_UNREACHABLE, Wait

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
IDLE_S = 300.0
"""One that answers is asked again, so that it is told that it went away also where nothing is to be pushed."""
EARLIER, LATER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
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


def test_it_is_probed_after_5_10_20_40_seconds_and_at_least_every_five_minutes() -> None:
    step = decide_link(Answering(), LinkLost(NOW, "gone", NAS_UNREACHABLE))
    waits = [step.probe_in_s]
    for _ in range(7):
        step = decide_link(step.link, ProbeUnanswered(NOW, "gone", NAS_UNREACHABLE))
        waits.append(step.probe_in_s)
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


# --- one that is full ---------------------------------------------------------------------------------------------------

FULL_NOW = LinkLost(NOW, "no room", DESTINATION_FULL, 500)
FULL = Away(EARLIER, "no room", DESTINATION_FULL, 20.0, 500)


def test_what_a_full_one_lacks_is_asked_for_until_it_is_there() -> None:
    step = decide_link(Answering(100.0), FULL_NOW)
    assert (step.link, step.probe_in_s) == (Away(NOW, "no room", DESTINATION_FULL, 5.0, 500), 5.0)
    step = decide_link(step.link, ProbeUnanswered(LATER, "less room still", DESTINATION_FULL))
    assert (step.link, step.probe_in_s) == (Away(NOW, "less room still", DESTINATION_FULL, 10.0, 500), 10.0)
    assert decide_link(step.link, ProbeAnswered(200.0)).link == Answering(200.0, full_wait_s=10.0)


def test_one_that_says_it_has_room_and_takes_nothing_is_tried_less_and_less_often() -> None:
    """A quota: the disk has room, and nothing may be written. Each try sends data in vain."""
    link: Link = Answering()
    waits = []
    for _ in range(8):
        step = decide_link(link, FULL_NOW)
        waits.append(step.probe_in_s)
        link = decide_link(decide_link(step.link, ProbeAnswered()).link, AdmissionAnswered()).link
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert decide_link(decide_link(link, PushArrived()).link, FULL_NOW).probe_in_s == 5.0, "something got through"


def test_one_that_is_full_and_then_away_is_told_to_be_away_since_then() -> None:
    for event in (LinkLost(NOW, "gone", NAS_UNREACHABLE), ProbeUnanswered(NOW, "gone", NAS_UNREACHABLE)):
        after = decide_link(FULL, event).link
        assert isinstance(after, Away)
        assert (after.since, after.wait, after.needs_bytes) == (NOW, NAS_UNREACHABLE, 0)


def test_work_that_met_no_room_does_not_say_that_one_which_does_not_answer_is_only_full() -> None:
    away = Away(EARLIER, "gone", NAS_UNREACHABLE, 20.0)
    assert decide_link(away, FULL_NOW).link is away
    found = decide_link(FULL, replace(FULL_NOW, needs_bytes=900)).link
    assert found == replace(FULL, needs_bytes=900), "another run needs more, and nothing is asked sooner for that"


@pytest.mark.parametrize("link", LINKS)
def test_a_push_that_arrives_ends_no_wait(link: Link) -> None:
    assert decide_link(link, PushArrived()) == LinkStep(link)


@pytest.mark.parametrize("link", LINKS)
def test_it_need_not_show_again_that_it_keeps_what_is_written_for_ten_seconds_after_it_did(link: Link) -> None:
    answered = decide_link(link, ProbeAnswered(200.0)).link
    assert not must_ask_fully(answered, now_s=200.0 + ASKED_FULLY_FOR_S - 0.1)
    assert must_ask_fully(answered, now_s=200.0 + ASKED_FULLY_FOR_S)
    assert not must_ask_fully(decide_link(answered, ProbeAnswered()).link, now_s=201.0)  # a light answer takes nothing
    lost = decide_link(answered, LinkLost(NOW, "gone", NAS_UNREACHABLE)).link
    assert must_ask_fully(lost, now_s=200.0)
    assert must_ask_fully(decide_link(lost, ProbeAnswered()).link, now_s=201.0)
