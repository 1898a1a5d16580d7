"""The words of `audit`; what they do is in auditing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli import auditing, exporting
from exlab_watch_agent.cli.options import Config, StateDir, given_path

audit_app = typer.Typer(
    help="Check the audit trail, here or in a copied folder, search it, and hand it out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@audit_app.command("verify")
def audit_verify(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", parser=given_path, help="A state folder or a copy of one; it is checked by itself."
        ),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Check that no line of the trail was changed, removed or reordered; without FOLDER also by what the NAS knows of it."""
    return auditing.verify(Site(config, state_dir), folder)


@audit_app.command("log")
def audit_log(
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only lines about this run.")] = None,
    equipment: Annotated[
        str | None, typer.Option("--equipment", metavar="E", help="Only lines about this one.")
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option("--operator", metavar="O", help="Only what this person did, by login or the name given."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="K", help="Only lines of this kind.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="T", help="2026-04-18, 2026-04-18T09:14:22Z, or 30d, 12h ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="T", help="The same; a day counts whole.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, as they are in the trail.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Search the audit trail."""
    return auditing.log(
        Site(config, state_dir),
        run=run,
        equipment=equipment,
        operator=operator,
        kind=kind,
        since=since,
        until=until,
        as_csv=as_csv,
        as_json=as_json,
    )


@audit_app.command("export")
def audit_export(
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="One run's chain of custody; else a period's summary.")
    ] = None,
    equipment: Annotated[
        str | None, typer.Option("--equipment", metavar="E", help="The summary of this instrument alone.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="T", help="2026-04-18, 2026-04-18T09:14:22Z, or 30d, 12h ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="T", help="The same; a day counts whole.")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="F", help="html, json; of a run also premis, prov, and folders: bagit, rocrate."
        ),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", parser=given_path, help="A new file or folder; else stdout."),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Hand out one run's chain of custody, or what a period was like, to be kept and printed."""
    return exporting.export(
        Site(config, state_dir), run=run, equipment=equipment, since=since, until=until, form=form, output=output
    )
