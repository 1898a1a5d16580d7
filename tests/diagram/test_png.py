"""The wall picture as PNG, by the command and by the renderer itself."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.drawing import draw
from exlab_watch_agent.diagram.overlay import NOTHING, Overlay
from exlab_watch_agent.diagram.png import png
from exlab_watch_agent.diagram.shapes import Text
from exlab_watch_agent.diagram.wall import wall_picture
from exlab_watch_agent.statechart import CHART


def test_the_png_is_a3_at_200_dots_and_its_texts_are_drawn() -> None:
    sheet = wall_picture(CHART)
    image, without = png(sheet), png(replace(sheet, drawn=tuple(d for d in sheet.drawn if not isinstance(d, Text))))
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", image[16:24]) == (3307, 2339)
    assert ink(image) > 1.5 * ink(without)  # without its font a renderer leaves texts out, and says nothing


def ink(image: bytes) -> int:
    """Return how many bytes the picture has when packed: more lines and letters, more bytes."""
    return len(zlib.compress(image))


def test_a_name_in_letters_that_the_font_has_not_is_drawn_too() -> None:
    assert png(wall_picture(CHART, Overlay(subject="\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}")))


def test_the_command_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "chart.png"
    assert draw(Site(), NOTHING, form=None, out=out) == 0
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
