"""The one border between an agent's view as values and its JSON: nothing is lost, and what is damaged harms nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import Finding, orphan
from exlab_watch_agent.core.snapshot import (
    Doing,
    FolderProblem,
    LaneView,
    Note,
    ObserverView,
    ProgressView,
    RootHealth,
    SeenEarlier,
    Snapshot,
    UnreadableView,
)
from exlab_watch_agent.report.heartbeat import Heartbeat, Holder, LastAgent, OldestUnsynced, last_agent_in

NOW = datetime(2026, 4, 18, 12, 0, 0, tzinfo=UTC)
RUN = "/data/SCOPE_01/P/Runs/Run_2026-04-17T14-32"
GOLDEN = Path(__file__).parents[1] / "app"


def an_orphan() -> Finding:
    place = place_of(RUN, {"SCOPE_01": "/data/SCOPE_01"})
    assert place is not None
    return orphan(place)


def a_full_one() -> Snapshot:
    waits = LaneView(
        "/nas/A", NOW, "it is away", "destination_unbound", "exlab-watch-agent bind A", "gone", NOW, NOW, NOW, NOW
    )
    return Snapshot(
        at=NOW,
        lanes={"A": waits, "B": LaneView("/nas/B", seen_earlier=SeenEarlier(NOW))},
        observer=ObserverView("mixed", True, 3, 8192, {"A": RootHealth("native", True, "few", "do", 5, 2, 1, "heard")}),
        progress={"job": ProgressView(100, 2, 1.5, Doing.VERIFY, 200, 1024.0)},
        waiting={"job": "it must be quiet"},
        run_problems={"job": Note("run_gone", "it is gone")},
        unreadable={RUN: UnreadableView("It is locked.", 3)},
        path_problems={RUN: FolderProblem("It has no time.", "schema_major_mismatch", {"found": "3.0"}, (f"{RUN}/x",))},
        orphans=(an_orphan(),),
        refused_after_sync={"job": ("a name", "another name")},
        refusals={"job": Note("case_collision", "two names")},
        notes={"job": (Note("override_expiring", "it lapses", NOW),)},
        first_seen={"0123456789ab": NOW},
    )


def test_what_is_written_is_read_back_as_it_was() -> None:
    document = json.loads(json.dumps(a_full_one().to_json()))
    assert Snapshot.from_json(document) == a_full_one()
    assert Snapshot.from_json(document).to_json() == document


def test_names_that_are_no_unicode_can_be_written() -> None:
    view = Snapshot(path_problems={RUN: FolderProblem("It is wrong.", runs=(f"{RUN}/\udcff",))})
    assert json.dumps(view.to_json(), ensure_ascii=False).encode()


def test_the_keys_of_the_live_view_are_those_that_were_pinned() -> None:
    golden = json.loads((GOLDEN / "live.golden.json").read_text(encoding="utf-8"))
    document: Any = a_full_one().to_json()
    assert list(document) == list(golden)
    assert list(document["lanes"]["A"]) == list(golden["lanes"]["SCOPE_01"])
    assert list(document["lanes"]["B"]) == [*golden["lanes"]["SCOPE_01"], "at"]
    assert list(document["orphans"][0]) == list(golden["orphans"][0])
    assert list(document["progress"]["job"]) == [
        *("bytes_done", "files_done", "seconds", "doing", "bytes_total", "limit_bytes_per_s")
    ]
    assert list(document["unreadable"][RUN]) == ["message", "looks"]


def test_the_keys_of_the_heartbeat_are_those_that_were_pinned() -> None:
    oldest = OldestUnsynced("/data/a\nb", NOW)
    beat = Heartbeat(
        NOW,
        "pc",
        "s" * 32,
        "m" * 32,
        "/state",
        7,
        "0.1.0",
        {"queued": 1},
        oldest,
        a_full_one().lanes,
        None,
        9,
        "f" * 64,
        None,
        None,
        agent_running=True,
        verdict="nothing needs a person",
        tier="notice",
        last_agent=LastAgent(NOW, is_in_order=False),
    )
    document = beat.to_json()
    assert list(document) == list(json.loads((GOLDEN / "heartbeat.golden.json").read_text(encoding="utf-8")))
    assert document["oldest_unsynced"] == {"run_path": "/data/a\\nb", "since": "2026-04-18T12:00:00Z"}
    assert document["audit"] == {"seq": 9, "blake3": "f" * 64}
    assert (document["audit_seq"], document["audit_blake3"]) == (9, "f" * 64)
    assert document["last_agent"] == {"seen_at": "2026-04-18T12:00:00Z", "stopped_in_order": False}
    assert last_agent_in(document) == beat.last_agent


def test_a_heartbeat_says_of_the_last_agent_what_it_can() -> None:
    assert last_agent_in({"at": "2026-04-18T12:00:00Z"}) == LastAgent(NOW, is_in_order=False), "of the first version"
    assert last_agent_in({"at": "2026-04-18T12:00:00Z", "last_agent": None}) is None
    assert last_agent_in([]) == LastAgent(None, is_in_order=False), "damaged"


def test_an_observer_that_only_scans_says_nothing_of_watches() -> None:
    assert ObserverView().to_json() == {"kind": "scan", "degraded": False, "restarts": 0, "roots": {}}
    assert ObserverView("native", watches_allowed=None).to_json()["watches_allowed"] is None


def test_a_view_of_an_older_form_gives_what_it_has() -> None:
    lane = {"destination": "/nas/A", "waiting_since": "2026-04-18T11:00:00Z", "waiting_reason": "it is away"}
    (view,) = Snapshot.from_json({"lanes": {"A": lane}}).lanes.values()
    assert (view.waiting_kind, view.waiting_command) == ("nas_unreachable", "exlab-watch-agent check")
    assert view.waiting_since == datetime(2026, 4, 18, 11, tzinfo=UTC)
    assert (view.seen_earlier, view.last_scan_at, view.root_problem) == (None, None, None)


@pytest.mark.parametrize("left", [None, [], "text", 3, {}, {"lanes": []}, {"lanes": {"A": 3}}, {"orphans": [{}, 3]}])
def test_what_is_no_view_at_all_is_an_empty_one(left: object) -> None:
    assert Snapshot.from_json(left) == Snapshot()


def test_an_orphan_of_a_rule_that_is_not_known_here_is_passed_over() -> None:
    known, strange = an_orphan().to_json(), {**an_orphan().to_json(), "rule": "of_a_later_version"}
    assert Snapshot.from_json({"orphans": [strange, known]}).orphans == (an_orphan(),)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_whatever_stands_at_whatever_place_is_read_without_an_error(data: st.DataObject) -> None:
    document: Any = json.loads(json.dumps(a_full_one().to_json()))
    place = document
    while isinstance(place, dict) and place and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict):
            break
        place = place[key]
    if place:
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    json.dumps(Snapshot.from_json(document).to_json())


@given(st.dictionaries(st.sampled_from(["pid", "host", "since", "version", "paused", "at"]), json_values))
def test_whatever_a_holder_says_is_read_without_an_error(said: dict[str, Any]) -> None:
    json.dumps(Holder.from_json(said).to_json())


def test_a_holder_is_read_back_as_it_was() -> None:
    holder = Holder(7, "pc", "2026-04-18T11:00:00Z", "0.1.0", "since then: no room", NOW)
    assert Holder.from_json(holder.to_json()) == holder
    assert Holder.from_json({}) == Holder()
