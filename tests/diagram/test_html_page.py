"""The page: readable by itself, with the table that says what is refused, and harmless whatever names are in it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from exlab_watch_agent.core.record import Move
from exlab_watch_agent.diagram.html_page import REFUSED, html_page
from exlab_watch_agent.diagram.overlay import Overlay, way_overlay
from exlab_watch_agent.statechart import CHART, Chart, RunState, Trigger
from tests.diagram.charts import HOSTILE, hostile_chart

AT = datetime(2026, 11, 3, 9, 15, tzinfo=UTC)
VOID = {"meta"}


class Reader(HTMLParser):
    """Reads a page: the cells of each table under the heading before it, and which elements there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.tables: dict[str, list[list[str]]] = {}
        self._heading = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.seen.update(f"@{name}" for name, _ in attrs if name.startswith("on"))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self._heading = ""
        if tag == "tr" and "tbody" in self.open:
            self.tables.setdefault(self._heading, []).append([])
        if tag in ("td", "th") and "tbody" in self.open:
            self.tables[self._heading][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self._heading += data
        elif self.open and self.open[-1] in ("td", "th") and "tbody" in self.open:
            self.tables[self._heading][-1][-1] += data


def read(chart: Chart, overlay: Overlay | None = None) -> Reader:
    reader = Reader()
    reader.feed(html_page(chart, overlay or Overlay(), at=AT))
    assert reader.open == []
    return reader


def test_each_trigger_in_each_state_leads_where_the_chart_says_or_is_refused() -> None:
    grid = read(CHART).tables["Each trigger in each state"]
    assert [row[0] for row in grid] == [trigger.value for trigger in Trigger]
    for row in grid:
        expected = [CHART.destination(state, Trigger(row[0])) for state in CHART.states]
        assert row[1:] == [dest.value if dest is not None else REFUSED for dest in expected]


def test_states_arrows_and_promises_are_tables() -> None:
    tables = read(CHART).tables
    assert [row[0] for row in tables["The states"]] == [state.value for state in CHART.states]
    assert [row[:5] for row in tables["The arrows"]] == [
        [str(number), row.source.value, row.trigger.value, row.dest.value, row.why]
        for number, row in enumerate(CHART.rows, start=1)
    ]
    assert [row[1] for row in tables["What is promised, and which arrows carry it"]] == [p.says for p in CHART.promises]


def test_a_run_s_steps_are_a_table_of_their_own() -> None:
    moves = (
        Move(AT, "discovered", None, RunState.ACQUIRING, "creation.json was noticed"),
        Move(AT, "refused", RunState.ACQUIRING, RunState.BLOCKED, HOSTILE, "DOMAIN\\<b>ada</b>"),
    )
    page = read(CHART, way_overlay(CHART, "/data/<img src=x onerror=alert(1)>", moves, AT))
    steps = page.tables["What this run did"]
    assert [step[3] for step in steps] == ["new → acquiring", "acquiring → blocked"]
    assert steps[1][0] == "2"
    assert steps[1][6] == "DOMAIN\\<b>ada</b>"
    assert not page.seen & {"img", "b", "script", "@onerror"}


@pytest.mark.parametrize("chart", [CHART, hostile_chart()], ids=["ours", "hostile"])
def test_nothing_is_loaded_and_nothing_runs(chart: Chart) -> None:
    page = read(chart)
    assert not page.seen & {"script", "img", "link", "iframe", "object", "use", "image", "a"}
    assert not [name for name in page.seen if name.startswith("@on")]
    text = html_page(chart, at=AT)
    assert "\u202e" not in text
    assert set(re.findall(r"url\(([^)]{0,14})", text)) == {"data:font/ttf;"}


def test_the_page_says_its_versions_and_its_date() -> None:
    assert f"version {CHART.version}" in html_page(CHART, at=AT)
    assert "made 2026-11-03T09:15:00Z" in html_page(CHART, at=AT)
    assert "made" not in html_page(CHART).split("<svg")[0].split("<h1>")[1]
