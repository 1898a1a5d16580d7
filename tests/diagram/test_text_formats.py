"""Each form is the whole chart, reads back as the same graph, and lets no sentence out of its place."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from exlab_watch_agent.diagram.overlay import NOTHING, Overlay
from exlab_watch_agent.diagram.text_formats import NAMESPACE, TEXT_FORMATS, chart_json, dot, mermaid, plantuml, scxml
from exlab_watch_agent.statechart import CHART, Chart, RunState, Trigger
from tests.diagram.charts import hostile_chart

Edge = tuple[str, str, str]
SCXML = "{http://www.w3.org/2005/07/scxml}"
CHARTS = {"ours": CHART, "hostile": hostile_chart()}


def graph(chart: Chart) -> tuple[set[str], Counter[Edge]]:
    return {s.value for s in chart.states}, Counter((r.source.value, r.trigger.value, r.dest.value) for r in chart.rows)


def read_json(text: str) -> tuple[set[str], Counter[Edge]]:
    value = json.loads(text)
    rows = Counter((row["from"], row["trigger"], row["to"]) for row in value["rows"])
    return {state["state"] for state in value["states"]}, rows


def read_scxml(text: str) -> tuple[set[str], Counter[Edge]]:
    root = ET.fromstring(text)
    states = {state.attrib["id"]: state for state in root.iter(f"{SCXML}state")}
    rows = Counter(
        (name, way.attrib["event"], way.attrib["target"])
        for name, state in states.items()
        for way in state.findall(f"{SCXML}transition")
    )
    return set(states), rows


LINES = {
    "mermaid": r"^    (\w+) --> (\w+) : \d+ (\w+)",
    "dot": r'^    (\w+) -> (\w+) \[label="\d+ (\w+)"',
    "plantuml": r"^(\w+) --> (\w+) : \d+ (\w+)",
}


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_scxml_and_json_read_back_as_the_same_graph(chart: Chart) -> None:
    assert read_scxml(scxml(chart)) == graph(chart)
    assert read_json(chart_json(chart)) == graph(chart)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
@pytest.mark.parametrize("form", LINES)
def test_each_drawing_language_has_every_row_on_a_line_of_its_own(form: str, chart: Chart) -> None:
    found = re.findall(LINES[form], TEXT_FORMATS[form](chart, NOTHING), re.MULTILINE)
    assert Counter((source, trigger, dest) for source, dest, trigger in found) == graph(chart)[1]


@pytest.mark.parametrize("form", TEXT_FORMATS)
def test_hostile_sentences_change_no_form_s_structure(form: str) -> None:
    def shape(text: str) -> list[str]:
        return [
            line[: len(line) - len(line.lstrip())] + line.split()[0] if line.strip() else ""
            for line in text.split("\n")
        ]

    ours, theirs = TEXT_FORMATS[form](CHART, NOTHING), TEXT_FORMATS[form](hostile_chart(), NOTHING)
    assert shape(ours) == shape(theirs)
    assert "\u202e" not in theirs
    assert "<script" not in theirs or form in ("dot", "json")


def test_scxml_says_version_meaning_and_why() -> None:
    root = ET.fromstring(scxml(CHART))
    assert root.attrib["initial"] == CHART.initial
    assert [data.attrib["expr"] for data in root.iter(f"{SCXML}data")] == [f"'{CHART.version}'"]
    assert {s.attrib[f"{{{NAMESPACE}}}meaning"] for s in root.iter(f"{SCXML}state")} == {
        spec.meaning for spec in CHART.states.values()
    }
    assert {t.attrib[f"{{{NAMESPACE}}}why"] for t in root.iter(f"{SCXML}transition")} == {row.why for row in CHART.rows}


def test_json_says_which_row_carries_which_promise() -> None:
    value = json.loads(chart_json(CHART))
    assert value["version"] == CHART.version
    for number, promise in enumerate(CHART.promises, start=1):
        carried = {(row["from"], row["trigger"]) for row in value["rows"] if number in row["promises"]}
        assert carried == {(state.value, trigger.value) for state, trigger in promise.carried_by}


@pytest.mark.parametrize("form", TEXT_FORMATS)
def test_notes_stand_beside_their_state_and_row(form: str) -> None:
    overlay = Overlay(states={RunState.QUEUED: "3 runs"}, rows={(RunState.QUEUED, Trigger.PUSH_STARTED): "taken twice"})
    text = TEXT_FORMATS[form](CHART, overlay)
    assert "3 runs" in text
    assert "taken twice" in text


def test_dot_and_mermaid_and_plantuml_tell_working_states_apart() -> None:
    assert dot(CHART).count("shape=hexagon") == len(CHART.working)
    assert mermaid(CHART).count(" working\n") == len(CHART.working)
    assert len(re.findall(r"as \w+ <<working>>", plantuml(CHART))) == len(CHART.working)
