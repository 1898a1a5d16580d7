"""An SVG of ours as PNG, by resvg: no browser, no system package, and the font that the picture carries."""

from __future__ import annotations

from exlab_watch_agent.diagram.measure import font_path, has_glyphs
from exlab_watch_agent.diagram.shapes import Sheet, Text
from exlab_watch_agent.diagram.svg import svg

DOTS_PER_INCH = 200  # A3 is 3307 × 2339 dots then, and the smallest type some 20 high


def png(sheet: Sheet) -> bytes:
    """Return the sheet as a PNG. The system's fonts are looked at only where a name has letters that ours has not."""
    import resvg_py  # nobody else needs the renderer, so no other command waits until it is loaded

    is_ours = all(has_glyphs(drawn.words) for drawn in sheet.drawn if isinstance(drawn, Text))
    files = [str(font_path(is_bold=is_bold)) for is_bold in (False, True)]
    return bytes(
        resvg_py.svg_to_bytes(svg_string=svg(sheet), dpi=DOTS_PER_INCH, font_files=files, skip_system_fonts=is_ours)
    )
