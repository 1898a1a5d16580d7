"""The chart as one page of HTML: the wall picture, and as tables what it cannot hold. Nothing is loaded, no script runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from exlab_watch_agent import __version__
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.diagram.overlay import NOTHING, Overlay, promise_letter
from exlab_watch_agent.diagram.svg import svg_element
from exlab_watch_agent.diagram.text_formats import xml_text
from exlab_watch_agent.diagram.wall import wall_picture
from exlab_watch_agent.statechart import Chart, Trigger

REFUSED = "refused"
_STYLE = """
:root { color-scheme: light }
body { margin: 0 auto; padding: 1.5rem; max-width: 100rem; background: #fff; color: #16212b;
  font: 1rem/1.45 'Fira Sans Condensed', 'Segoe UI', Arial, sans-serif }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
p { max-width: 50rem; margin: .3rem 0 } svg { width: 100%; height: auto; margin-top: 1rem; border: 1px solid #b4bcc4 }
.wide { overflow-x: auto } table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .22rem .7rem .22rem 0; border-top: 1px solid #d5dbe0 }
thead th { border: 0; color: #4d5a66; font-weight: 400 } tbody th { font-weight: 600; white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } td.r { overflow-wrap: anywhere }
.grid { font-size: .8rem } .grid thead th { vertical-align: bottom }
.grid thead th span { writing-mode: vertical-rl; transform: rotate(180deg); color: #16212b; font-weight: 600 }
.grid td { border-left: 1px solid #d5dbe0; padding: .15rem .4rem; font-weight: 600 }
.grid td.no { color: #7b8790; font-weight: 400 }
@page { size: A3 landscape; margin: 10mm }
@media print { body { padding: 0; max-width: none } header { display: none } tr, .grid { break-inside: avoid }
  svg { display: block; margin: 0; border: 0; height: 274mm; break-after: page } h2, p { break-after: avoid } }
"""


def html_page(chart: Chart, overlay: Overlay = NOTHING, *, at: datetime | None = None) -> str:
    """Return the page. `at`: the date that is said on it, None for none."""
    sheet = wall_picture(chart, overlay, at=at)
    made = f", made {utc_text(at)}" if at is not None else ""
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{xml_text(sheet.title)}</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<header><h1>{xml_text(sheet.title)}</h1>",
        f"<p>Chart {xml_text(chart.name)}, version {chart.version}; exlab-watch-agent {__version__}{made}.</p>",
        f"<p>{xml_text(overlay.detail)}</p></header>",
        svg_element(sheet).rstrip("\n"),
    ]
    if overlay.is_way:
        lines += _steps(overlay)
    lines += _promises(chart)
    lines += _states(chart, overlay)
    lines += _rows(chart, overlay)
    lines += _grid(chart)
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _steps(overlay: Overlay) -> Iterator[str]:
    yield "<h2>What this run did</h2>"
    heads = ("arrow", "when", "after", "move", "trigger", "why", "operator")
    yield from _table(
        heads,
        ((s.number, s.at, s.stayed, s.move, s.trigger, s.reason, s.operator) for s in overlay.steps),
        numbers=(0,),
    )
    if any(not step.number for step in overlay.steps[1:]):
        yield "<p>A step without a number is no arrow of this version of the chart.</p>"


def _promises(chart: Chart) -> Iterator[str]:
    yield "<h2>What is promised, and which arrows carry it</h2>"
    numbers = {row.key: number for number, row in enumerate(chart.rows, start=1)}
    rows = (
        (promise_letter(index), promise.says, ", ".join(str(numbers[key]) for key in promise.carried_by))
        for index, promise in enumerate(chart.promises)
    )
    yield from _table(("", "promise", "arrows"), rows)


def _states(chart: Chart, overlay: Overlay) -> Iterator[str]:
    yield "<h2>The states</h2>"
    heads = ("state", "phase", "kind", "meaning", "sync_status", "job_state", *(("here",) if overlay.states else ()))
    rows = (
        (
            state.value,
            spec.phase,
            "final" if spec.is_final else "working" if spec.is_working else "resting",
            spec.meaning,
            spec.sync_status,
            spec.job_state or "–",
            *((overlay.states.get(state, ""),) if overlay.states else ()),
        )
        for state, spec in chart.states.items()
    )
    yield from _table(heads, rows)


def _rows(chart: Chart, overlay: Overlay) -> Iterator[str]:
    yield "<h2>The arrows</h2>"
    heads = ("", "from", "trigger", "to", "why", "promise", *(("taken",) if overlay.rows else ()))
    rows = (
        (
            str(number),
            row.source.value,
            row.trigger.value,
            row.dest.value,
            row.why,
            ", ".join(promise_letter(index) for index in chart.promises_of(row.key)),
            *((overlay.rows.get(row.key, ""),) if overlay.rows else ()),
        )
        for number, row in enumerate(chart.rows, start=1)
    )
    yield from _table(heads, rows, numbers=(0,))


def _grid(chart: Chart) -> Iterator[str]:
    """Yield what each trigger does in each state: nearly always nothing."""
    pairs = len(chart.states) * len(Trigger)
    yield "<h2>Each trigger in each state</h2>"
    yield f"<p>Of {pairs} pairs {len(chart.rows)} lead anywhere. The others are refused: logged, and nothing changes.</p>"
    yield '<div class="wide"><table class="grid"><thead><tr><th>trigger</th>'
    yield "".join(f'<th scope="col"><span>{state}</span></th>' for state in chart.states) + "</tr></thead><tbody>"
    for trigger in Trigger:
        cells = [chart.destination(state, trigger) for state in chart.states]
        shown = "".join(f"<td>{dest}</td>" if dest else f'<td class="no">{REFUSED}</td>' for dest in cells)
        yield f'<tr><th scope="row">{trigger}</th>{shown}</tr>'
    yield "</tbody></table></div>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> Iterator[str]:
    def kind(index: int) -> str:
        return ' class="n"' if index in numbers else ' class="r"' if heads[index] in ("why", "meaning") else ""

    yield '<div class="wide"><table><thead><tr>'
    yield (
        "".join(f'<th scope="col"{kind(i)}>{xml_text(head)}</th>' for i, head in enumerate(heads))
        + "</tr></thead><tbody>"
    )
    for row in rows:
        yield "<tr>" + "".join(f"<td{kind(i)}>{xml_text(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
    yield "</tbody></table></div>"
