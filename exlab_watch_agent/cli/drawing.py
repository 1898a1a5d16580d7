"""The command `diagram`: which form is meant, and where it goes. What is drawn is decided in diagram/."""

from __future__ import annotations

from pathlib import Path

from exlab_watch_agent.cli.saying import say, say_aside
from exlab_watch_agent.core.text import printable, reason
from exlab_watch_agent.diagram.overlay import NOTHING, Overlay
from exlab_watch_agent.diagram.text_formats import TEXT_FORMATS
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.statechart import CHART

FORMATS = tuple(TEXT_FORMATS)
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
}


def draw(*, form: str | None, out: Path | None) -> int:
    """Print the chart in one form, or write it into a new file."""
    text = drawn(_form_that_is_meant(form, out), NOTHING)
    if out is None:
        for line in text.rstrip("\n").split("\n"):
            say(line)
    else:
        _write_new(out, text.encode())
        say_aside(f"{out} was written")
    return ExitCode.FINE


def drawn(form: str, overlay: Overlay) -> str:
    """Return the chart in one of FORMATS."""
    return TEXT_FORMATS[form](CHART, overlay)


def _form_that_is_meant(form: str | None, out: Path | None) -> str:
    if form is None:
        suffix = out.suffix.lower() if out is not None else ""
        if out is not None and suffix not in BY_SUFFIX:
            raise ConfigError(f"The name {printable(out.name)} does not say which form is meant: give --format.")
        return BY_SUFFIX.get(suffix, DEFAULT_FORMAT)
    if form not in FORMATS:
        raise ConfigError(f"--format takes {', '.join(FORMATS)}, not {printable(form) or repr(form)}.")
    return form


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that did not exist: a mistyped name can be that of somebody's data."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise AgentError(f"{printable(str(path))} exists, and nothing is overwritten: give another name.") from error
    except OSError as error:
        raise AgentError(f"{printable(str(path))} cannot be written: {reason(error)}.") from error
