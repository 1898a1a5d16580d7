"""What several commands take, each said in one way."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The config file.", show_default=False)]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", help="The state folder, instead of the config's.")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A path, a leaf name that is unique, or a job id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while it works.")]

_SPAN = re.compile(r"(\d{1,5})([hd])")


def span_in(text: str) -> timedelta | None:
    """Return what `30d` or `12h` means, None for anything else."""
    found = _SPAN.fullmatch(text)
    return None if found is None else timedelta(hours=int(found[1]) * (24 if found[2] == "d" else 1))
