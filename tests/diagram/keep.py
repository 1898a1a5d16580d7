"""Makes the forms of the chart that are kept beside it anew: `python -m tests.diagram.keep`."""

from __future__ import annotations

from pathlib import Path

from exlab_watch_agent.cli.drawing import drawn
from exlab_watch_agent.diagram.overlay import NOTHING

STATECHARTS = Path(__file__).parent.parent.parent / "statecharts"
KEPT = {"mermaid": "mmd", "dot": "dot", "plantuml": "puml", "scxml": "scxml", "json": "json", "svg": "svg"}


def kept_form(form: str) -> bytes:
    """Return what is kept: undated, so that it is the same on every day."""
    return drawn(form, NOTHING, at=None)


if __name__ == "__main__":
    for name, suffix in KEPT.items():
        (STATECHARTS / f"run_sync.{suffix}").write_bytes(kept_form(name))
