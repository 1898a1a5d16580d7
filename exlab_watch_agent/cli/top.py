"""`top`: what `status` says, live: first what is under way, then what waits. A line never wraps, however narrow it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.keys import single_keys
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.core.attention import why_lane_waits, why_root_waits
from exlab_watch_agent.core.problem import verdict
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import age, printable
from exlab_watch_agent.errors import ExitCode
from exlab_watch_agent.report.choice import Choice
from exlab_watch_agent.report.progress import progress_parts
from exlab_watch_agent.report.status import counts, only_here, sentence

EVERY_S = 1.0
DUTY = 5.0
"""It rests so many times as long as it worked: looking must not cost what is looked at."""
ENDS = ("q", "Q", "\x03", "\x1b")
INDENT = "  "


def top(make_site: Callable[[], Site], choose: Callable[[Site], Choice]) -> int:
    """Show it until `q` or Ctrl-C; where there is no terminal once. `make_site`: a fresh one for each look."""
    console = Console(highlight=False)
    if not (console.is_terminal and sys.stdin.isatty()):
        site = make_site()
        for line in lines(site, choose(site), width=None):
            say(line)
        return ExitCode.FINE
    try:
        with single_keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                site = make_site()
                began_s = site.clock.monotonic_s()
                shown = list(lines(site, choose(site), width=console.width))
                live.update(_screen(shown, height=console.height), refresh=True)
                took_s = site.clock.monotonic_s() - began_s
                if pressed(max(EVERY_S, DUTY * took_s)) in ENDS:
                    return ExitCode.FINE
    except KeyboardInterrupt:
        return ExitCode.FINE


def _screen(shown: list[str], *, height: int) -> Group:
    """Return as many lines as there is room for; the last one says how many there are beyond."""
    if len(shown) > height:
        beyond = len(shown) - height + 1
        shown = [*shown[: height - 1], f"... and {beyond} more lines: `status` has them all; q ends this"]
    return Group(*(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in shown))


def lines(site: Site, choice: Choice, *, width: int | None) -> Iterator[str]:
    """Yield what is shown. `width`: what has several parts is spread over lines no longer than that."""
    at, holder, snapshot = site.moment, site.holder, site.snapshot
    runs = choice.named(site.records.values())
    yield verdict(offline.find_problems(site))
    agent = f"agent is running, pid {holder.pid or '?'}" if holder is not None else "no agent is running"
    yield f"{agent}; {', '.join(f'{count} {state}' for state, count in counts(runs).items()) or 'no runs are known'}"
    yield only_here(runs, now=at.now)
    for equipment_id, lane in sorted(snapshot.lanes.items()):
        if not choice.takes_lane(equipment_id, runs):
            continue
        waits = why_root_waits(lane, at) or why_lane_waits(lane, at)
        asked = (
            f"ok, answered {age((at.now - lane.answered_at).total_seconds())} ago"
            if lane.answered_at is not None
            else "not asked yet"
        )
        yield f"{equipment_id}: {waits or asked}"
    listed = choice.listed(runs)
    under_way = [record for record in listed if record.job_id in snapshot.progress]
    for record in under_way:
        yield f"{_leaf(record)}  {record.equipment_id}"
        yield from spread(progress_parts(snapshot.progress[record.job_id]), width=width)
    for record in listed:
        if record.job_id not in snapshot.progress:
            yield f"{_leaf(record)}  {record.state}: {printable(sentence(record, snapshot, at))}"


def _leaf(record: RunRecord) -> str:
    return printable(record.run_path.rsplit("/", 1)[-1])


def spread(parts: list[str], *, width: int | None) -> Iterator[str]:
    """Yield the parts in lines of at most this width, a part alone that is longer by itself."""
    line = ""
    for part in parts:
        if line and width is not None and len(INDENT) + len(line) + 2 + len(part) > width:
            yield INDENT + line
            line = part
        else:
            line = f"{line}, {part}" if line else part
    yield INDENT + line
