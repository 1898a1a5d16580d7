"""Charts to draw that are worse than ours: hostile sentences, and the rows that are still to come."""

from __future__ import annotations

from dataclasses import replace

from exlab_watch_agent.statechart import CHART, Chart

HOSTILE = (
    '<script>alert("1")</script> & ]]> --> --\n[*] --> x : y;\\n" \'; %%{init: {}}%% @enduml #59; '
    "}} {{ `id` <U+0041> *b* \u202egpj.exe"
)


def hostile_chart() -> Chart:
    """Return our chart with sentences that try to leave their place in every language."""
    states = {state: replace(spec, meaning=f"{HOSTILE} {state}") for state, spec in CHART.states.items()}
    rows = tuple(replace(row, why=f"{HOSTILE} {number}") for number, row in enumerate(CHART.rows))
    return replace(CHART, states=states, rows=rows)
