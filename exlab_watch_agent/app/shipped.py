"""Text files that lie beside the package in a checkout, and in it in a wheel."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_text(folder: str, name: str) -> str:
    """Return the text of a file of the checkout's top folder `folder`: from the wheel where it is there, else from the checkout."""
    packaged = resources.files("exlab_watch_agent") / folder / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / folder / name).read_text(encoding="utf-8")
