"""What several commands take, each said in one way."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from exlab_watch_agent.core.text import printable

CONFIG_VARIABLE = "EXLAB_WATCH_AGENT_CONFIG"
STATE_DIR_VARIABLE = "EXLAB_WATCH_AGENT_STATE_DIR"
RUN_HELP = "A path, a leaf name or its unique beginning, or a job id or its first 8 characters or more."


def given_path(text: str) -> Path:
    """Return the path that is meant, found from anywhere: `~` is the home folder also where no shell has put that in.

    `--config=~/x` is such a place, and a variable another. Raises: BadParameter.
    """
    if not text:
        raise typer.BadParameter("it is empty; give a path.")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise typer.BadParameter(
            f"{printable(text)}: no home folder is known for that; give the whole path."
        ) from error
    return path.resolve() if ".." in path.parts else path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        parser=given_path,
        envvar=CONFIG_VARIABLE,
        help="The config file.",
        show_default=False,
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        parser=given_path,
        envvar=STATE_DIR_VARIABLE,
        help="The state folder, instead of the config's.",
    ),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN|EQUIPMENT", help=f"Of these only. {RUN_HELP} An instrument's id is given whole."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while it works.")]

_SPAN = re.compile(r"(\d{1,5})([hd])")


def span_in(text: str) -> timedelta | None:
    """Return what `30d` or `12h` means, None for anything else."""
    found = _SPAN.fullmatch(text)
    return None if found is None else timedelta(hours=int(found[1]) * (24 if found[2] == "d" else 1))
