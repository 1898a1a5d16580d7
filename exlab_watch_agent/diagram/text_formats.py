"""The chart in the languages that other programs draw from or read: Mermaid, DOT, PlantUML, SCXML and JSON.

Each is the whole graph: all states, all rows in the chart's order, numbered from 1 as in the wall picture. How they are laid
out is the other program's matter. Every sentence goes through the escaping of its language, so none can end a label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from xml.sax.saxutils import escape, quoteattr

from exlab_watch_agent.core.text import printable, unicode_text
from exlab_watch_agent.diagram.overlay import NOTHING, Overlay
from exlab_watch_agent.statechart import Chart, Row, RunState

NAMESPACE = "urn:exlab-watch-agent:chart"  # of what SCXML has no word for: meaning, why, number
_NOT_IN_XML = re.compile("[\ufffe\uffff]")  # the last two that XML 1.0 forbids; all others are gone after `printable`
_PLAIN = re.compile(r"[^A-Za-z0-9 ,.()_/-]")


def xml_text(text: str) -> str:
    """Return a text from anywhere for between two tags of XML or HTML."""
    return escape(_without_forbidden(text))


def xml_attribute(text: str) -> str:
    """Return it as the value of an attribute, in quotes."""
    return quoteattr(_without_forbidden(text))


def _without_forbidden(text: str) -> str:
    return _NOT_IN_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", printable(text))


def _noted(name: str, note: str | None) -> str:
    return f"{name} ({note})" if note else name


def _label(number: int, row: Row, overlay: Overlay) -> str:
    return _noted(f"{number} {row.trigger}", overlay.rows.get(row.key))


# --- Mermaid ---------------------------------------------------------------------------------------------------------


def _mermaid_text(text: str) -> str:
    """Return a text for a label: what is no letter, digit or plain mark is written as an entity of Mermaid's, `#58;`."""
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", printable(text))


def mermaid(chart: Chart, overlay: Overlay = NOTHING) -> str:
    """Return a state diagram of Mermaid."""
    lines = ["stateDiagram-v2", f"    %% {_title(chart)}", "    direction LR"]
    for state, spec in chart.states.items():
        lines.append(f"    state {_mermaid_quoted(_noted(state, overlay.states.get(state)))} as {state}")
        lines.append(f"    {state} : {_mermaid_text(spec.meaning)}")
    lines.append(f"    [*] --> {chart.initial}")
    for number, row in enumerate(chart.rows, start=1):
        lines.append(f"    {row.source} --> {row.dest} : {_mermaid_text(_label(number, row, overlay))}")
    lines += [f"    {state} --> [*]" for state, spec in chart.states.items() if spec.is_final]
    lines += ["    classDef working fill:#dde3ea,stroke:#1f2a36", "    classDef resting fill:#ffffff,stroke:#1f2a36"]
    for state, spec in chart.states.items():
        lines.append(f"    class {state} {'working' if spec.is_working else 'resting'}")
    return "\n".join(lines) + "\n"


def _mermaid_quoted(text: str) -> str:
    return f'"{_mermaid_text(text)}"'


# --- DOT -------------------------------------------------------------------------------------------------------------


def _dot_text(text: str) -> str:
    """Return a quoted string. In a label Graphviz reads a backslash and an ampersand as the beginning of something."""
    plain = printable(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def dot(chart: Chart, overlay: Overlay = NOTHING) -> str:
    """Return a directed graph for Graphviz."""
    lines = [f"// {_title(chart)}", f"digraph {chart.name} {{", "    rankdir=LR;"]
    lines.append('    node [shape=box, style=rounded, fontname="Helvetica"];')
    lines.append('    edge [fontname="Helvetica", fontsize=10];')
    for state, spec in chart.states.items():
        shape = "shape=hexagon, style=filled, fillcolor=gray90" if spec.is_working else "shape=box, style=rounded"
        twice = ", peripheries=2" if spec.is_final else ""
        label = _dot_text(_noted(state, overlay.states.get(state)))
        lines.append(f"    {state} [label={label}, tooltip={_dot_text(spec.meaning)}, {shape}{twice}];")
    lines += ["    start [shape=point, width=0.15];", f"    start -> {chart.initial};"]
    for number, row in enumerate(chart.rows, start=1):
        label = _dot_text(_label(number, row, overlay))
        lines.append(f"    {row.source} -> {row.dest} [label={label}, tooltip={_dot_text(row.why)}];")
    return "\n".join([*lines, "}"]) + "\n"


# --- PlantUML --------------------------------------------------------------------------------------------------------


def _plantuml_text(text: str) -> str:
    """Return a text for a label: what could be markup is written as a code point, `<U+002A>`."""
    return _PLAIN.sub(lambda found: f"<U+{ord(found[0]):04X}>", printable(text))


def plantuml(chart: Chart, overlay: Overlay = NOTHING) -> str:
    """Return a state diagram of PlantUML."""
    lines = [f"@startuml {chart.name}", f"' {_title(chart)}", "hide empty description", "left to right direction"]
    lines += ["skinparam state {", "  BackgroundColor White", "  BackgroundColor<<working>> #DDE3EA", "}"]
    for state, spec in chart.states.items():
        name = _plantuml_text(_noted(state, overlay.states.get(state)))
        lines.append(f'state "{name}" as {state}{" <<working>>" if spec.is_working else ""}')
        lines.append(f"{state} : {_plantuml_text(spec.meaning)}")
    lines.append(f"[*] --> {chart.initial}")
    for number, row in enumerate(chart.rows, start=1):
        lines.append(f"{row.source} --> {row.dest} : {_plantuml_text(_label(number, row, overlay))}")
    lines += [f"{state} --> [*]" for state, spec in chart.states.items() if spec.is_final]
    return "\n".join([*lines, "@enduml"]) + "\n"


# --- SCXML -----------------------------------------------------------------------------------------------------------


def scxml(chart: Chart, overlay: Overlay = NOTHING) -> str:
    """Return the chart in the W3C's State Chart XML: <state id>, <transition event target>, no guards and no actions.

    A state that is final for a person is a <state> here too: SCXML lets nothing leave a <final>, and `cleaned` is looked at
    again. Source: https://www.w3.org/TR/scxml/, 3.3 to 3.7.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(
        f'<scxml xmlns="http://www.w3.org/2005/07/scxml" xmlns:ew="{NAMESPACE}" version="1.0" datamodel="ecmascript"'
        f' name="{chart.name}" initial="{chart.initial}">'
    )
    lines.append(f'  <datamodel><data id="chart_version" expr={xml_attribute(repr(chart.version))}/></datamodel>')
    numbers = {row.key: number for number, row in enumerate(chart.rows, start=1)}
    for state, spec in chart.states.items():
        members = [f'id="{state}"', f'ew:kind="{_kind(chart, state)}"', f"ew:meaning={xml_attribute(spec.meaning)}"]
        if state in overlay.states:
            members.append(f"ew:note={xml_attribute(overlay.states[state])}")
        lines.append(f"  <state {' '.join(members)}>")
        for row in chart.rows:
            if row.source is not state:
                continue
            note = f" ew:note={xml_attribute(overlay.rows[row.key])}" if row.key in overlay.rows else ""
            lines.append(
                f'    <transition event="{row.trigger}" target="{row.dest}" ew:number="{numbers[row.key]}"'
                f" ew:why={xml_attribute(row.why)}{note}/>"
            )
        lines.append("  </state>")
    return "\n".join([*lines, "</scxml>"]) + "\n"


# --- JSON ------------------------------------------------------------------------------------------------------------


def chart_json(chart: Chart, overlay: Overlay = NOTHING) -> str:
    """Return the chart as JSON: `chart`, `version`, `initial`, `states`, `rows`, `promises`; members are only ever added."""
    states = [
        {
            "state": state.value,
            "meaning": spec.meaning,
            "kind": "working" if spec.is_working else "resting",
            "final": spec.is_final,
            "sync_status": spec.sync_status,
            "job_state": spec.job_state,
            "phase": spec.phase,
            "tags": [tag.value for tag in spec.tags],
            "note": unicode_text(overlay.states[state]) if state in overlay.states else None,
        }
        for state, spec in chart.states.items()
    ]
    rows = [
        {
            "number": number,
            "from": row.source.value,
            "trigger": row.trigger.value,
            "to": row.dest.value,
            "why": row.why,
            "promises": [index + 1 for index in chart.promises_of(row.key)],
            "note": unicode_text(overlay.rows[row.key]) if row.key in overlay.rows else None,
        }
        for number, row in enumerate(chart.rows, start=1)
    ]
    value = {
        "schema": 1,
        "chart": chart.name,
        "version": chart.version,
        "initial": chart.initial.value,
        "subject": unicode_text(overlay.subject) or None,
        "states": states,
        "rows": rows,
        "promises": [{"number": index, "says": promise.says} for index, promise in enumerate(chart.promises, start=1)],
        "steps": [asdict(step) for step in overlay.steps],
    }
    return json.dumps(value, indent=2, ensure_ascii=True) + "\n"


def _kind(chart: Chart, state: RunState) -> str:
    spec = chart.states[state]
    return "final" if spec.is_final else "working" if spec.is_working else "resting"


def _title(chart: Chart) -> str:
    return f"{chart.name}, chart {chart.version}: made from statecharts/run_sync.yaml by `exlab-watch-agent diagram`"


TEXT_FORMATS: dict[str, Callable[[Chart, Overlay], str]] = {
    "mermaid": mermaid,
    "dot": dot,
    "plantuml": plantuml,
    "scxml": scxml,
    "json": chart_json,
}
