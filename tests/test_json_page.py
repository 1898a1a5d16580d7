"""docs/json.md names every code with its tier and every member, and no other."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from exlab_watch_agent.app.offline import ListedOverride
from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.overrides import OverrideStanding
from exlab_watch_agent.core.problem import TIERS, Problem
from exlab_watch_agent.core.snapshot import ProgressView, Snapshot
from exlab_watch_agent.report.heartbeat import Heartbeat
from exlab_watch_agent.report.status import RunInFull, run_json
from exlab_watch_agent.report.tally import Bounds, PeriodTally
from exlab_watch_agent.statechart import RunState
from tests.report.reports import dossier
from tests.report.test_period import period
from tests.report.test_status import record

PAGE = (Path(__file__).parent.parent / "docs" / "json.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_the_page_lists_every_code_with_its_tier() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section("Codes"), re.MULTILINE)
    assert dict(rows) == {code: tier.value for code, tier in TIERS.items()}
    assert len(rows) == len(TIERS)


def test_the_page_lists_every_member_of_a_problem() -> None:
    assert first_cells(section("`problems --json`")) == list(Problem("stale", "", "", "").to_json())


def test_the_page_lists_every_member_of_a_run_and_of_its_progress() -> None:
    of_run, _, of_progress = section("`status --json`").partition("\n`progress`:\n")
    snapshot = Snapshot(progress={"job": ProgressView()})
    members = run_json(record(RunState.RUNNING), snapshot)
    assert first_cells(of_run) == list(members)
    assert first_cells(of_progress) == list(members["progress"])


def test_the_page_lists_every_member_of_a_run_in_full() -> None:
    whole = RunInFull("/run", "why", record=record(RunState.VERIFIED)).to_json()
    more = [name for name in whole if name not in run_json(record(RunState.VERIFIED), Snapshot())]
    assert set(first_cells(section("`show --json`"))) == {*more, "overrides"}


def test_the_page_lists_every_member_of_an_override() -> None:
    one = ListedOverride("/run", OverrideEntry(0, "id"), OverrideStanding.ACTIVE, "")
    assert first_cells(section("`override list --json`")) == list(one.to_json())


def test_the_page_lists_every_member_of_the_heartbeat() -> None:
    beat = Heartbeat(
        *(
            datetime(2026, 4, 18, tzinfo=UTC),
            "pc",
            "s",
            "m",
            "/state",
            7,
            "0.1.0",
            {},
            None,
            {},
            None,
            9,
            "f",
            None,
            None,
        ),
        agent_running=True,
        verdict="",
        tier=None,
        last_agent=None,
    )
    assert sorted(first_cells(section("The heartbeat"))) == sorted(beat.to_json())


def test_the_page_lists_every_member_of_a_run_s_export() -> None:
    assert sorted(first_cells(section("`audit export --run --format json`"))) == sorted(dossier().to_json())


def test_the_page_lists_every_member_of_a_period_s_summary_and_every_count() -> None:
    said = period(PeriodTally(Bounds())).to_json()
    assert sorted(first_cells(section("`audit export --format json`"))) == sorted(said)
    assert first_cells(section("Counts of a period")) == list(said["total"])
