"""Which runs `status` lists."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from exlab_watch_agent.core.record import LastError
from exlab_watch_agent.core.snapshot import Snapshot
from exlab_watch_agent.report.choice import CSV_COLUMNS, Choice, csv_rows
from exlab_watch_agent.report.status import run_json
from exlab_watch_agent.statechart import RunState
from tests.report.test_status import NOW, record

RECORDS = [
    replace(
        record(state, str(state), f"/data/E/P/Runs/{state}"),
        equipment_id="SCOPE_02" if state is RunState.FAILED else "SCOPE_01",
        entered_at=NOW - timedelta(hours=number),
    )
    for number, state in enumerate(RunState)
]
AT_GOAL = {"verified", "cleaned", "cleanup_eligible"}
EVERY = {state.value for state in RunState}


@pytest.mark.parametrize(
    ("choice", "listed"),
    [
        (Choice(), EVERY - AT_GOAL),
        (Choice(is_all=True), EVERY),
        (Choice(states=frozenset({RunState.VERIFIED})), {"verified"}),
        (Choice(equipment=frozenset({"SCOPE_02"})), {"failed"}),
        (
            Choice(runs=frozenset({"/data/E/P/Runs/verified"}), equipment=frozenset({"SCOPE_02"})),
            {"failed", "verified"},
        ),
        (Choice(equipment=frozenset({"SCOPE_02"}), states=frozenset({RunState.VERIFIED})), set()),
        (Choice(since=NOW - timedelta(hours=1)), {state.value for state in list(RunState)[:2]}),
        (Choice(limit=3), {state.value for state in list(RunState)[:3]}),
        (Choice(limit=100), EVERY),
    ],
)
def test_what_is_listed(choice: Choice, listed: set[str]) -> None:
    found = choice.listed(choice.named(reversed(RECORDS)))
    assert {one.state.value for one in found} == listed
    assert [one.run_path for one in found] == sorted(one.run_path for one in found)


def test_csv_has_every_member_of_a_run_but_its_progress() -> None:
    failed = record(RunState.FAILED, last_error=LastError("network", "it is away"))
    members = run_json(failed, Snapshot())
    assert {*CSV_COLUMNS} - {"last_error_kind", "last_error_message"} == {*members} - {"last_error", "progress"}
    heading, row = csv_rows([failed], Snapshot())
    assert len(heading) == len(row)
    shown = dict(zip(heading, row, strict=True))
    assert (shown["last_error_kind"], shown["last_error_message"], shown["verified_at"]) == (
        "network",
        "it is away",
        "",
    )
