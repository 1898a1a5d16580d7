"""The command `diagram`: which form is meant, and where it goes. What is drawn is decided in diagram/."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.saying import put, say, say_aside, write_new
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.diagram.html_page import html_page
from exlab_watch_agent.diagram.overlay import Overlay, counts_overlay, way_overlay
from exlab_watch_agent.diagram.png import png
from exlab_watch_agent.diagram.svg import svg
from exlab_watch_agent.diagram.text_formats import TEXT_FORMATS
from exlab_watch_agent.diagram.wall import wall_picture
from exlab_watch_agent.errors import ConfigError, ExitCode
from exlab_watch_agent.statechart import CHART

FORMATS = (*TEXT_FORMATS, "svg", "png", "html")
DEFAULT_FORMAT = "mermaid"
BY_SUFFIX = {
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".puml": "plantuml",
    ".plantuml": "plantuml",
    ".scxml": "scxml",
    ".json": "json",
    ".svg": "svg",
    ".png": "png",
    ".html": "html",
    ".htm": "html",
}


def draw(site: Site, overlay: Overlay, *, form: str | None, out: Path | None) -> int:
    """Print the chart in one form, or write it into a new file."""
    meant = _form_that_is_meant(form, out)
    if meant == "png" and out is None and sys.stdout.isatty():
        raise ConfigError("A PNG is no text: give -o FILE.")
    content = drawn(meant, overlay, at=site.now())
    if out is not None:
        write_new(out, content, taken="exists, and nothing is overwritten: give another name.")
        say_aside(f"{out} was written")
    elif meant == "png":
        put(content)
    else:
        for line in content.decode().rstrip("\n").split("\n"):
            say(line)
    return ExitCode.FINE


def counts_of(site: Site) -> Overlay:
    """Return how many runs are in each state, as the store has it."""
    return counts_overlay([record.state for record in site.records.values()])


def way_of(site: Site, run_path: str, job_id: str) -> Overlay:
    """Return one run's way through the chart, from its history."""
    return way_overlay(CHART, run_path, site.history(job_id), site.now())


def drawn(form: str, overlay: Overlay, *, at: datetime | None) -> bytes:
    """Return the chart in one of FORMATS. `at`: the date in the title block of a picture."""
    if form == "svg":
        return svg(wall_picture(CHART, overlay, at=at)).encode()
    if form == "png":
        return png(wall_picture(CHART, overlay, at=at))
    if form == "html":
        return html_page(CHART, overlay, at=at).encode()
    return TEXT_FORMATS[form](CHART, overlay).encode()


def _form_that_is_meant(form: str | None, out: Path | None) -> str:
    if form is None:
        suffix = out.suffix.lower() if out is not None else ""
        if out is not None and suffix not in BY_SUFFIX:
            raise ConfigError(f"The name {printable(out.name)} does not say which form is meant: give --format.")
        return BY_SUFFIX.get(suffix, DEFAULT_FORMAT)
    if form not in FORMATS:
        raise ConfigError(f"--format takes {', '.join(FORMATS)}, not {printable(form) or repr(form)}.")
    return form
