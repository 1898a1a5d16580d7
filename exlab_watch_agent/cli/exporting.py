"""`audit export`: what an auditor takes away, in the form that is asked for, on stdout, in a new file or in a new folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from exlab_watch_agent.app.exporting import dossier_of, period_of
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.auditing import span_of
from exlab_watch_agent.cli.saying import put, say_aside, write_new, write_new_folder
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.diagram.overlay import way_overlay
from exlab_watch_agent.diagram.svg import svg_element
from exlab_watch_agent.diagram.wall import wall_picture
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.report.bagit import bag_of
from exlab_watch_agent.report.dossier import HOW_READ, Dossier
from exlab_watch_agent.report.pages import SCRIPT_NAME
from exlab_watch_agent.report.premis import premis_of
from exlab_watch_agent.report.prov import prov_of
from exlab_watch_agent.report.rocrate import crate_of
from exlab_watch_agent.report.tally import Bounds
from exlab_watch_agent.statechart import CHART

OF_A_PERIOD = ("html", "json")
FOLDERS = ("bagit", "rocrate")
FORMATS = (*OF_A_PERIOD, "premis", "prov", *FOLDERS)
TAKEN = "exists and is not overwritten: give another -o."


def export(
    site: Site,
    *,
    run: str | None,
    equipment: str | None,
    since: str | None,
    until: str | None,
    form: str,
    output: Path | None,
) -> int:
    """Print or write one run's chain of custody, or without a run the summary of a period."""
    site.require_state_dir()
    if run is not None and (equipment or since or until):
        raise ConfigError("Give --run, or --equipment, --since and --until, not both.")
    if form not in FORMATS:
        raise ConfigError(f"--format takes {', '.join(FORMATS)}.")
    if run is None and form not in OF_A_PERIOD:
        raise ConfigError(f"--format {form} is for one run: give --run, or take {' or '.join(OF_A_PERIOD)}.")
    if form in FOLDERS and output is None:
        raise ConfigError(f"--format {form} makes a folder: name a new one with -o.")
    if output is not None and os.path.lexists(output):  # said before a trail of a million lines is read
        raise AgentError(f"{printable(str(output))} {TAKEN}")
    made = (
        _of_run(site, run, form) if run is not None else _of_period(site, _bounds(site, equipment, since, until), form)
    )
    if isinstance(made, bytes):
        if output is None:
            put(made)
            return ExitCode.FINE
        write_new(output, made, taken=TAKEN)
    elif output is not None:
        write_new_folder(output, made, taken=TAKEN)
    say_aside(f"{output} was written")
    return ExitCode.FINE


def _of_run(site: Site, run: str, form: str) -> bytes | Mapping[str, bytes]:
    """Return a file's content, or a folder's files: POSIX path → content."""
    dossier = dossier_of(site, run)
    match form:
        case "html":
            return _html(site, dossier)
        case "json":
            return _json(dossier.to_json())
        case "premis":
            return premis_of(dossier)
        case "prov":
            return prov_of(dossier)
        case "bagit":
            return bag_of(dossier, _evidence(site, dossier))
        case _:
            return crate_of(dossier, _evidence(site, dossier))


def _of_period(site: Site, bounds: Bounds, form: str) -> bytes:
    period = period_of(site, bounds)
    return f"{period.to_html(how_read=HOW_READ)}\n".encode() if form == "html" else _json(period.to_json())


def _evidence(site: Site, dossier: Dossier) -> dict[str, bytes]:
    """Return what a folder carries of a run beside what its format asks for: name → content."""
    return {
        "report.html": _html(site, dossier),
        "report.json": _json(dossier.to_json()),
        "trail.jsonl": b"".join(line + b"\n" for line in dossier.lines),
        SCRIPT_NAME: dossier.script.encode(),
    }


def _html(site: Site, dossier: Dossier) -> bytes:
    """Return the page of a run, with the picture of its way."""
    way = way_overlay(CHART, dossier.record.run_path, dossier.run.history, site.now())
    return f"{dossier.to_html(picture=svg_element(wall_picture(CHART, way)))}\n".encode()


def _json(value: object) -> bytes:
    return f"{json.dumps(value, indent=2, ensure_ascii=True)}\n".encode()


def _bounds(site: Site, equipment: str | None, since: str | None, until: str | None) -> Bounds:
    return Bounds(equipment or "", *span_of(since, until, site.now()))
