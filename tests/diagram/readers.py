"""Has other people's programs read the drawn forms of the chart: `python -m tests.diagram.readers`.

SCXML by state-machine-cat, DOT by Graphviz, Mermaid by its own parser; each must see the states and arrows that the chart has, also
where its sentences are hostile. It needs Node.js 20 or later and the npm registry, so it is part of `.ci/nightly` and no test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.diagram.overlay import NOTHING
from exlab_watch_agent.diagram.text_formats import TEXT_FORMATS
from exlab_watch_agent.statechart import CHART, Chart
from tests.diagram.charts import hostile_chart

PROGRAMS = ("state-machine-cat@15.0.8", "@viz-js/viz@3.31.0", "mermaid@12.3.0", "jsdom@29.1.1")
FORMS = {"scxml": "scxml", "dot": "dot", "mermaid": "mmd"}
SCRIPT = Path(__file__).with_suffix(".mjs")


def main() -> int:
    """Return 1 where a reader sees another graph than the chart is, and print each one's verdict."""
    is_same = True
    with tempfile.TemporaryDirectory(prefix="exlab-readers-") as name:
        folder = Path(name)
        shutil.copy2(SCRIPT, folder)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *PROGRAMS], cwd=folder, check=True)
        for which, chart in {"the chart": CHART, "a chart of hostile sentences": hostile_chart()}.items():
            for form, suffix in FORMS.items():
                (folder / f"chart.{suffix}").write_text(TEXT_FORMATS[form](chart, NOTHING), encoding="utf-8")
            for reader, seen in _seen(folder).items():
                differences = _differences(chart, seen)
                print(f"{reader}: {which}: {'; '.join(differences) or 'the same states and arrows'}")
                is_same = is_same and not differences
    return 0 if is_same else 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader made of a form: the names of the states; from, label and to of each arrow."""

    states: list[str]
    arrows: list[tuple[str, str, str]]


def _seen(folder: Path) -> dict[str, Seen]:
    done = subprocess.run(["node", SCRIPT.name, "."], cwd=folder, check=True, stdout=subprocess.PIPE)
    return {reader: Seen(**said) for reader, said in json.loads(done.stdout).items()}


def _differences(chart: Chart, seen: Seen) -> list[str]:
    states = {state.value for state in chart.states} ^ set(seen.states)
    # A label is the row's number and its trigger; in SCXML the event is the trigger alone.
    arrows = Counter((source, label.split(" ")[-1], dest) for source, label, dest in seen.arrows)
    ours = Counter((row.source.value, row.trigger.value, row.dest.value) for row in chart.rows)
    return [f"other states: {sorted(states)}"] * bool(states) + [
        f"{what}: {sorted(set(odd))}" for what, odd in (("not seen", ours - arrows), ("not ours", arrows - ours)) if odd
    ]


if __name__ == "__main__":
    sys.exit(main())
