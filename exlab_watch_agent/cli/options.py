"""What several commands take, each said in one way."""

from __future__ import annotations

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
