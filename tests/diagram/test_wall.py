"""The wall picture has every state and every row, and nothing lies on anything: for today's chart, and for those to come."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exlab_watch_agent import __version__
from exlab_watch_agent.core.record import Move
from exlab_watch_agent.diagram.measure import balanced, has_glyphs, shortened, width, wrapped
from exlab_watch_agent.diagram.overlay import NOTHING, Overlay, way_overlay
from exlab_watch_agent.diagram.route import CannotDrawError, edges_of, plan
from exlab_watch_agent.diagram.shapes import Anchor, Line, Outline, Shape, Sheet, Stroke, Text
from exlab_watch_agent.diagram.svg import svg
from exlab_watch_agent.diagram.wall import wall_picture
from exlab_watch_agent.statechart import CHART, Chart, Place, Rail, RunState, Tag, Trigger
from tests.diagram.charts import COMING, HOSTILE, hostile_chart, with_rows
from tests.diagram.tangles import STATES, tangles

SVG = "{http://www.w3.org/2000/svg}"


def words(sheet: Sheet) -> list[str]:
    return [drawn.words for drawn in sheet.drawn if isinstance(drawn, Text)]


def moved(state: RunState, place: Place) -> Chart:
    states = {name: replace(spec, place=place) if name is state else spec for name, spec in CHART.states.items()}
    return replace(CHART, states=states)


# --- nothing lies on anything ----------------------------------------------------------------------------------------


def test_nothing_in_the_picture_of_today_s_chart_lies_on_anything() -> None:
    assert tangles(wall_picture(CHART)) == []


@pytest.mark.parametrize("count", range(1, len(COMING) + 1, 4))
def test_nothing_does_when_the_rows_that_are_still_to_come_are_there(count: int) -> None:
    assert tangles(wall_picture(with_rows(*COMING[:count]))) == []


def test_nothing_does_when_all_of_them_are_there() -> None:
    assert tangles(wall_picture(with_rows(*COMING))) == []


@pytest.mark.parametrize("seed", range(12))
def test_any_other_row_is_drawn_cleanly_or_named_in_a_sentence(seed: int) -> None:
    chance = random.Random(seed)
    pairs = [(chance.choice(list(RunState)).value, chance.choice(list(RunState)).value) for _ in range(6)]
    try:
        sheet = wall_picture(with_rows(*pairs))
    except CannotDrawError:
        return  # in a sentence, as the next test reads it
    found = tangles(sheet)
    # The two things that a sheet may have no room for are said by the layout itself; a tangle is never one of them.
    assert [one for one in found if "too high" not in one and "no room for its name" not in one] == []


def test_more_arrows_than_a_state_has_ports_are_refused_with_its_name() -> None:
    crowd = [("sealing", dest) for dest in ("queued", "running", "prechecking", "awaiting_verify", "auditing")]
    with pytest.raises(
        CannotDrawError, match="sealing has 7 arrows above it and room for 5: give it or its neighbours"
    ):
        plan(with_rows(*crowd))


def test_two_states_in_one_place_are_a_tangle() -> None:
    assert any("lies on" in one for one in tangles(wall_picture(moved(RunState.FAILED, Place(0.5, Rail.BELOW)))))


def test_an_eleventh_column_has_no_room() -> None:
    with pytest.raises(CannotDrawError, match="11 columns"):
        wall_picture(moved(RunState.AUDITING, Place(10, Rail.SPINE)))


@pytest.mark.parametrize("broken", ["line", "text", "badge"])
def test_what_lies_on_something_is_found(broken: str) -> None:
    """The check itself: a line moved on another, a text moved on a line, a number moved on a state."""
    sheet = wall_picture(CHART)
    lines = [d for d in sheet.drawn if isinstance(d, Line) and d.owner == "acquiring"]
    if broken == "line":
        more: Line | Text | Shape = replace(lines[0], owner="another")
    elif broken == "text":
        (x, y), _ = lines[0].segments[1]
        more = Text(x - 8.0, y, "words on a line", 2.5)
    else:
        state = next(d for d in sheet.drawn if isinstance(d, Shape) and d.owner == "verified")
        more = replace(
            state, outline=Outline.BADGE, owner="acquiring", area=replace(state.area, right=state.area.right + 3)
        )
    assert tangles(replace(sheet, drawn=(*sheet.drawn, more)))


# --- everything is there ---------------------------------------------------------------------------------------------


def test_each_state_has_its_place_and_its_shape() -> None:
    shapes = {d.owner: d.outline for d in wall_picture(CHART).drawn if isinstance(d, Shape) and d.outline in STATES}
    for state, spec in CHART.states.items():
        expected = Outline.WORKING if spec.is_working else Outline.RESTING
        expected = Outline.STOPPED if Tag.NEEDS_ATTENTION in spec.tags else Outline.FINAL if spec.is_final else expected
        assert shapes[state.value] is expected


@pytest.mark.parametrize("chart", [CHART, with_rows(*COMING)], ids=["today", "to come"])
def test_each_row_has_its_number_at_an_arrow_and_its_line_in_the_table(chart: Chart) -> None:
    said = words(wall_picture(chart))
    for number, row in enumerate(chart.rows, start=1):
        assert said.count(str(number)) == (3 if number == 7 else 2), number  # 7 is the example in the key
        assert row.trigger.value in said
    assert "".join(said).count("…") == 0


def test_each_arrow_is_one_line_from_its_state_to_its_bus_or_neighbour() -> None:
    laid = plan(CHART)
    drawn = [*laid.straight, *(loop.edge for loop in laid.loops)]
    drawn += [tap.edge for bus in laid.buses for tap in bus.taps if tap.edge is not None]
    assert sorted(drawn, key=lambda edge: edge.numbers) == sorted(edges_of(CHART), key=lambda edge: edge.numbers)
    for bus in laid.buses:
        assert all(tap.edge is None or tap.edge.dest is bus.dest for tap in bus.taps)


def test_the_promises_are_there_and_their_letters_are_at_the_rows_that_carry_them() -> None:
    said = words(wall_picture(CHART))
    for letter, promise in zip("ABCD", CHART.promises, strict=True):
        assert promise.says in said
        assert said.count(letter) >= 1 + len({(key[0], CHART.destination(*key)) for key in promise.carried_by})


def test_the_title_block_names_versions_and_date_and_leaves_room_for_a_signature() -> None:
    said = words(wall_picture(CHART, at=datetime(2026, 11, 3, 7, 5, tzinfo=UTC)))
    assert {CHART.version, __version__, "run_sync", "2026-11-03T07:05:00Z", "checked and signed"} <= set(said)
    assert not any(re.match(r"\d{4}-", one) for one in words(wall_picture(CHART)))


def test_the_phases_are_headings_in_the_order_of_the_spine() -> None:
    headings = [one for one in words(wall_picture(CHART)) if re.match(r"\d  ", one)]
    assert headings == ["1  Acquire", "2  Push", "3  Prove", "4  Keep", "5  Release"]


def test_the_same_chart_is_drawn_the_same_every_time() -> None:
    assert svg(wall_picture(CHART)) == svg(wall_picture(CHART))


# --- as a file -------------------------------------------------------------------------------------------------------


def test_hostile_sentences_stay_texts() -> None:
    ours, theirs = svg(wall_picture(CHART)), svg(wall_picture(hostile_chart()))
    assert "<script" not in theirs
    assert "\u202e" not in theirs
    found = ET.fromstring(theirs)
    assert {e.tag for e in found.iter()} == {e.tag for e in ET.fromstring(ours).iter()}
    texts = " ".join(element.text or "" for element in found.iter(f"{SVG}text"))
    assert "<script>alert" in texts


def test_every_text_keeps_its_computed_width_in_programs_that_do_not_read_the_font() -> None:
    sheet = wall_picture(CHART)
    found = list(ET.fromstring(svg(sheet)).iter(f"{SVG}text"))
    assert [e.text for e in found] == words(sheet)
    assert all(float(e.attrib["textLength"]) > 0 for e in found)


def test_nothing_in_the_file_is_loaded_from_elsewhere_or_run() -> None:
    text = svg(wall_picture(CHART))
    addresses = set(re.findall(r"https?://[^\"' )]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bon\w+=|javascript:|<script|<image|<use|@import", text)


# --- texts -----------------------------------------------------------------------------------------------------------


def test_a_text_is_as_wide_as_its_glyphs() -> None:
    assert width("mm", 10) == 2 * width("m", 10)
    assert width("i", 10) < width("m", 10) < width("m", 10, is_bold=True) * 1.1
    assert width("\N{CJK UNIFIED IDEOGRAPH-4E2D}", 10) == 10
    assert has_glyphs("verified: 2×, 12 min → é")
    assert not has_glyphs("\N{CJK UNIFIED IDEOGRAPH-4E2D}")


def test_lines_are_no_wider_than_they_may_be() -> None:
    text = "waiting for a slot, for the end of a backoff or for the NAS to come back, and averyveryverylongword_without_end"
    for lines in (wrapped(text, 2.4, 20), balanced(text, 2.4, 20)):
        assert all(width(line, 2.4) <= 20 for line in lines)
        assert " ".join(lines).startswith("waiting for a slot, for the end")
    assert shortened("acquiring", 2.4, 5).endswith("…")
    assert wrapped("", 2.4, 20) == []


def test_anchored_texts_take_their_room_left_and_right() -> None:
    start, middle, end = (Text(100, 50, "verified", 3, anchor=anchor).area for anchor in Anchor)
    assert start.left == 100 == end.right
    assert middle.left + middle.right == pytest.approx(200)


# --- a run's own way -------------------------------------------------------------------------------------------------

WAY = Overlay(
    subject="Run_2026-11-03T09-15",
    states={RunState.ACQUIRING: "1×", RunState.QUEUED: "1×, now"},
    rows={(RunState.ACQUIRING, Trigger.ADMITTED): "1×"},
    is_way=True,
    now=RunState.QUEUED,
)


def test_what_a_run_did_not_do_is_pale_and_its_way_is_not() -> None:
    sheet = wall_picture(CHART, WAY)
    assert tangles(sheet) == []
    strokes = {d.stroke for d in sheet.drawn if isinstance(d, Line) and d.owner not in ("key", "rule", "title block")}
    assert strokes == {Stroke.PALE, Stroke.TAKEN}
    strong = {
        d.owner
        for d in sheet.drawn
        if isinstance(d, Shape) and d.outline in STATES and not d.is_pale and d.owner != "key"
    }
    assert strong == {"acquiring", "queued"}


def test_a_plain_picture_has_nothing_pale() -> None:
    assert not [d for d in wall_picture(CHART, NOTHING).drawn if isinstance(d, Shape) and d.is_pale]


def test_a_long_way_is_cut_where_the_sheet_ends_and_says_so() -> None:
    start = datetime(2026, 11, 3, 9, 15, tzinfo=UTC)
    kinds = [(row.trigger.value, row.source, row.dest) for row in CHART.rows] * 8
    moves = [
        Move(start + timedelta(hours=index), trigger, source, dest, f"{HOSTILE} {'long ' * 40}")
        for index, (trigger, source, dest) in enumerate(kinds)
    ]
    sheet = wall_picture(CHART, way_overlay(CHART, f"/data/{HOSTILE * 4}", moves, start + timedelta(days=900)))
    assert tangles(sheet) == []
    (said,) = [one for one in words(sheet) if "more steps" in one]
    assert 300 < int(said.split()[0]) < len(moves)
    assert ET.fromstring(svg(sheet)) is not None
