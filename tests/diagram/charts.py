"""Charts to draw that are worse than ours: hostile sentences, and the rows that are still to come."""

from __future__ import annotations

from dataclasses import replace

from exlab_watch_agent.statechart import CHART, Chart, Row, RunState, Trigger

HOSTILE = (
    '<script>alert("1")</script> & ]]> --> --\n[*] --> x : y;\\n" \'; %%{init: {}}%% @enduml #59; '
    "}} {{ `id` <U+0041> *b* \u202egpj.exe"
)


def hostile_chart() -> Chart:
    """Return our chart with sentences that try to leave their place in every language."""
    states = {state: replace(spec, meaning=f"{HOSTILE} {state}") for state, spec in CHART.states.items()}
    rows = tuple(replace(row, why=f"{HOSTILE} {number}") for number, row in enumerate(CHART.rows))
    return replace(CHART, states=states, rows=rows)


def with_rows(*pairs: tuple[str, str]) -> Chart:
    """Return our chart with more rows, from and to. Their triggers are stand-ins: where they lead is what is drawn."""
    rows = list(CHART.rows)
    for source, dest in pairs:
        used = {row.trigger for row in rows if row.source == source}
        trigger = next(trigger for trigger in Trigger if trigger not in used)
        rows.append(
            Row(RunState(source), trigger, RunState(dest), "a row that is still to come, and says so in a sentence")
        )
    return replace(CHART, rows=tuple(sorted(rows, key=lambda row: list(RunState).index(row.source))))


# The ways that SPEC 7 has and that are not all in the chart yet; one that is there already is then a second row of its arrow.
COMING = (
    ("acquiring", "cleaned"),
    ("running", "blocked"),
    ("running", "awaiting_verify"),
    ("verified", "acquiring"),
    ("auditing", "acquiring"),
    ("cleaning", "cleaning"),
    ("cleaning", "verified"),
    ("conflict", "cleaned"),
    ("conflict", "cleaning"),
    ("conflict", "acquiring"),
    ("failed", "acquiring"),
)
