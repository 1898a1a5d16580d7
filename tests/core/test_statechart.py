"""The chart as values: loaded, checked, and refused where it contradicts itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from exlab_watch_agent.statechart import CHART, ChartError, RunState, Tag, Trigger, chart_text, parse_chart


def changed_chart(change: Callable[[dict[str, Any]], object]) -> str:
    raw = yaml.safe_load(chart_text())
    change(raw)
    return yaml.safe_dump(raw, sort_keys=False)


def test_the_chart_file_names_every_state_and_every_trigger_once() -> None:
    assert list(CHART.states) == list(RunState)
    assert {row.trigger for row in CHART.rows} == set(Trigger)


def test_a_run_begins_as_acquiring() -> None:
    assert CHART.initial is RunState.ACQUIRING


def test_the_working_states_are_those_that_own_an_effect() -> None:
    assert {state.value for state in CHART.working} == {
        "running",
        "prechecking",
        "awaiting_verify",
        "sealing",
        "auditing",
        "cleaning",
    }


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_and_every_row_says_what_it_means(state: RunState) -> None:
    assert CHART.states[state].meaning
    assert all(row.why for row in CHART.rows if row.source is state)


# What each state means for `creation.json` and for a client, written down once more: the chart must not drift away from it.
SYNC_STATUS = {
    "acquiring": "pending",
    "blocked": "blocked_by_validation",
    "queued": "pending",
    "running": "pending",
    "prechecking": "pending",
    "awaiting_verify": "pending",
    "sealing": "pending",
    "verified": "synced",
    "auditing": "synced",
    "cleanup_eligible": "synced",
    "cleaning": "synced",
    "cleaned": "cleaned",
    "failed": "failed",
}
JOB_STATE = {
    "acquiring": "queued",
    "blocked": None,
    "queued": "queued",
    "running": "running",
    "prechecking": "awaiting_verify",
    "awaiting_verify": "awaiting_verify",
    "sealing": "awaiting_verify",
    "verified": "verified",
    "auditing": "verified",
    "cleanup_eligible": "cleanup_eligible",
    "cleaning": "cleanup_eligible",
    "cleaned": "cleaned",
    "conflict": "failed",
    "failed": "failed",
}


@pytest.mark.parametrize(("state", "status"), SYNC_STATUS.items())
def test_creation_json_says_what_the_specification_says(state: RunState, status: str) -> None:
    assert CHART.sync_status(RunState(state)) == status


def test_job_states_are_those_of_the_specification() -> None:
    assert {state.value: spec.job_state for state, spec in CHART.states.items()} == JOB_STATE


def test_only_cleaned_is_final() -> None:
    assert [state for state, spec in CHART.states.items() if spec.is_final] == [RunState.CLEANED]


def test_the_version_is_that_of_the_content_and_changes_with_every_word() -> None:
    assert parse_chart(chart_text()).version == CHART.version
    assert parse_chart("# a comment more\n" + chart_text()).version == CHART.version
    for change in (
        lambda raw: raw["rows"][0].update(why="for another reason"),
        lambda raw: raw["states"]["failed"].update(meaning="something else"),
        lambda raw: raw["states"]["failed"]["tags"].append("settled"),
        lambda raw: raw["rows"].reverse(),
        lambda raw: raw["rows"][0].update(to="blocked"),
    ):
        assert parse_chart(changed_chart(change)).version != CHART.version


# The sets of states that others ask for, written down once more.
TAGGED = {
    Tag.SETTLED: "verified cleanup_eligible cleaned",
    Tag.AUDITABLE: "verified cleanup_eligible conflict cleaned",
    Tag.ON_A_PUSH: "running prechecking awaiting_verify sealing",
    Tag.GONE_WHEN_MISSING: "acquiring blocked queued conflict failed",
    Tag.AT_DESTINATION: "prechecking awaiting_verify sealing verified auditing cleanup_eligible cleaning cleaned conflict",
    Tag.TELLS_ATTEMPTS: "queued running prechecking awaiting_verify",
    Tag.RETRYABLE: "queued failed",
    Tag.NEEDS_ATTENTION: "blocked conflict failed",
}


@pytest.mark.parametrize("tag", list(Tag))
def test_each_set_of_states_has_a_name_and_is_what_it_is_meant_to_be(tag: Tag) -> None:
    assert {state.value for state in CHART.tagged(tag)} == set(TAGGED[tag].split())
    assert getattr(CHART, tag.value) == CHART.tagged(tag)


def test_what_is_not_settled_is_every_other_state() -> None:
    assert [state for state in RunState if state not in CHART.settled] == list(CHART.unsettled)


def test_the_states_from_which_a_trigger_leads_anywhere_are_those_of_its_rows() -> None:
    assert CHART.sources(Trigger.AUDIT_STARTED) == {RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE}
    assert CHART.sources(Trigger.RETRIED) == {RunState.FAILED}


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a tag is unknown": lambda raw: raw["states"]["failed"].update(tags=["doomed"]),
    "a tag has no state": lambda raw: [
        raw["states"][state]["tags"].remove("retryable") for state in ("queued", "failed")
    ],
    "a state is missing": lambda raw: raw["states"].pop("cleaned"),
    "a state is unknown": lambda raw: raw["states"].update(dreaming=raw["states"]["failed"]),
    "a row begins in an unknown state": lambda raw: raw["rows"][0].update({"from": "dreaming"}),
    "a row ends in an unknown state": lambda raw: raw["rows"][0].update(to="dreaming"),
    "a trigger is unknown": lambda raw: raw["rows"][0].update(trigger="dreamt"),
    "a trigger has no row": lambda raw: raw["rows"].pop([r["trigger"] for r in raw["rows"]].index("pushed")),
    "one trigger leads to two states": lambda raw: raw["rows"].append(raw["rows"][0] | {"to": "failed"}),
    "a row stands there twice": lambda raw: raw["rows"].append(dict(raw["rows"][0])),
    "a kind is unknown": lambda raw: raw["states"]["failed"].update(kind="sleeping"),
    "a sync_status is unknown": lambda raw: raw["states"]["failed"].update(sync_status="done"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_chart_that_contradicts_itself_is_refused(name: str) -> None:
    with pytest.raises(ChartError):
        parse_chart(changed_chart(CONTRADICTIONS[name]))


def test_an_unknown_initial_state_is_refused() -> None:
    with pytest.raises((ChartError, ValueError)):
        parse_chart(changed_chart(lambda raw: raw.update(initial="dreaming")))


def test_a_sentence_that_a_comma_would_cut_is_refused() -> None:
    cut = (
        chart_text()
        .replace('why: "complete, quiet, and', "why: complete, quiet, and")
        .replace('lets it through"', "lets it through")
    )
    with pytest.raises(ChartError, match="with a comma in quotes"):
        parse_chart(cut)


def test_where_a_state_is_drawn_and_what_is_promised_do_not_make_another_chart() -> None:
    def move(raw: dict[str, Any]) -> None:
        raw["states"]["blocked"]["place"] = [2, "below"]
        raw["promises"].pop()

    assert parse_chart(changed_chart(move)).version == CHART.version


@pytest.mark.parametrize("place", [None, [1], ["left", "spine"], [1, "beside"]])
def test_a_state_without_a_place_is_refused(place: object) -> None:
    with pytest.raises(ChartError, match="blocked: `place` must be"):
        parse_chart(changed_chart(lambda raw: raw["states"]["blocked"].update(place=place)))


@pytest.mark.parametrize("column", [1, 0.5])
def test_each_state_on_the_spine_has_a_column_of_its_own(column: float) -> None:
    with pytest.raises(ChartError, match="a column of its own"):
        parse_chart(changed_chart(lambda raw: raw["states"]["acquiring"].update(place=[column, "spine"])))


def test_a_promise_that_no_row_carries_is_refused() -> None:
    carried = [["blocked", "sealed"]]
    with pytest.raises(ChartError, match="not there: blocked, sealed"):
        parse_chart(changed_chart(lambda raw: raw["promises"][0].update(carried_by=carried)))


def carriers(says: str) -> set[tuple[str, str]]:
    (found,) = [promise for promise in CHART.promises if says in promise.says]
    return {(state.value, trigger.value) for state, trigger in found.carried_by}


def test_every_row_that_makes_a_run_synced_carries_the_promise_that_it_was_proven() -> None:
    made = {
        (row.source.value, row.trigger.value)
        for row in CHART.rows
        if CHART.sync_status(row.dest) == "synced" and CHART.sync_status(row.source) != "synced"
    }
    assert made <= carriers("called synced"), "name the new row below that promise in the chart"


def test_every_row_that_leads_into_cleaning_carries_the_promise_about_local_data() -> None:
    into = {(r.source.value, r.trigger.value) for r in CHART.rows if r.dest is RunState.CLEANING is not r.source}
    assert into <= carriers("Local data go"), "name the new row below that promise in the chart"


def test_every_row_into_a_conflict_and_every_way_into_a_push_carries_its_promise() -> None:
    conflicts = {(r.source.value, r.trigger.value) for r in CHART.rows if r.dest is RunState.CONFLICT}
    assert conflicts <= carriers("Where two copies differ"), "name the new row below that promise in the chart"
    pushes = {
        (r.source.value, r.trigger.value)
        for r in CHART.rows
        if r.dest is RunState.RUNNING or r.dest is RunState.BLOCKED
    }
    assert pushes <= carriers("Nothing is pushed") | {("acquiring", "refused")}
