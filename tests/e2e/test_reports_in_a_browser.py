"""The exported pages in a real browser without a network: no script runs in them, and they print on A4 paper."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path

import pytest

from exlab_watch_agent.report.dossier import HOW_READ, Dossier, FileProof
from exlab_watch_agent.report.trail import TrailRow
from tests.report.reports import SCRIPT, Seen, dossier, hostile_dossier
from tests.report.test_period import hostile_trail, period

A4_POINTS = (595, 842)
MARGIN_POINTS = 36
"""Half an inch: nearer to the edge many printers print nothing."""
# A network and processes of its own: nothing can be loaded, and nothing outlives the command.
ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
BROWSER = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]


POLICY = "default-src 'none'"
"""What the page says to the browser of itself: it loads nothing and runs nothing."""


@dataclass(frozen=True)
class Word:
    """A printed word and where it is, in points from the upper left corner of its page."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Printed:
    """Page after page: its size in points, and its words."""

    pages: list[tuple[tuple[float, float], list[Word]]]

    @property
    def text(self) -> str:
        return "".join(word.text for _, words in self.pages for word in words)


def browse(page: Path, *words: str) -> str:
    argv = [*ALONE, *BROWSER, f"--user-data-dir={page.parent / 'profile'}", *words, page.as_uri()]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def printed(html: str, folder: Path) -> Printed:
    """Print a page as a browser does, and read the paper."""
    page, paper = folder / "page.html", folder / "paper.pdf"
    page.write_text(html, encoding="utf-8")
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    boxes = subprocess.run(["pdftotext", "-bbox", str(paper), "-"], capture_output=True, text=True, check=True).stdout
    pages = []
    for size, body in re.findall(r"<page ([^>]*)>(.*?)</page>", boxes, re.DOTALL):
        words = [
            Word(unescape(text), *(float(place) for place in re.findall(r'="([\d.-]+)"', where)))
            for where, text in re.findall(r"<word ([^>]*)>(.*?)</word>", body, re.DOTALL)
        ]
        width, height = re.findall(r'="([\d.]+)"', size)
        pages.append(((float(width), float(height)), words))
    return Printed(pages)


def long_names() -> Dossier:
    """Return a run whose names are as long as file systems allow, without a blank at which a line could be broken."""
    path = "/".join(("d" * 200, "ä" * 120, "x" * 250 + ".tif"))
    given = dossier(files=tuple(FileProof(f"{number}-{path}", f"{number:064x}", 5) for number in range(40)))
    record = replace(given.record, run_path=f"/data/{'r' * 240}", project="p" * 240)
    row = TrailRow(7, "2026-04-17T14:32:00Z", "transition", "S", record.run_path, "o" * 120, "w" * 400)
    return replace(given, record=record, run=replace(given.run, record=record, why="y" * 300), rows=(row,) * 30)


PAGES = {
    "long names": lambda: long_names().to_html(),
    "hostile names": lambda: hostile_dossier().to_html(),
    "a hostile period": lambda: period(hostile_trail().counted()).to_html(how_read=HOW_READ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_printed_on_a4_with_nothing_cut_off(name: str, tmp_path: Path) -> None:
    html = PAGES[name]()
    paper = printed(html, tmp_path)
    for number, (size, words) in enumerate(paper.pages, start=1):
        assert size == pytest.approx(A4_POINTS, abs=1.5)
        outside = [
            word
            for word in words
            if word.left < MARGIN_POINTS
            or word.right > size[0] - MARGIN_POINTS
            or word.top < MARGIN_POINTS / 2
            or word.bottom > size[1] - MARGIN_POINTS / 2
        ]
        assert not outside, f"page {number}"
        assert f"Page{number}of{len(paper.pages)}" in "".join(word.text for word in words)
    missing = signs(Seen(html.partition("<body>")[2]).text) - signs(paper.text)
    assert not missing


def signs(text: str) -> Counter[str]:
    """Return how often each letter is in a text. Columns beside each other are read line by line, so that their order is lost."""
    return Counter("".join(unicodedata.normalize("NFKC", text.replace("\u00ad", "")).upper().split()))


def test_a_page_is_whole_without_scripts_and_lets_none_run(tmp_path: Path) -> None:
    html = hostile_dossier().to_html()
    page = tmp_path / "page.html"
    # As if a name had become a script, and asked for a picture.
    injected = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    for given, title in ((html, "Run_2026-04-17T14-32: chain of custody"), (html.replace(POLICY, ""), "run")):
        page.write_text(given.replace("</header>", f"{injected}</header>"), encoding="utf-8")
        seen = browse(page, "--dump-dom")
        assert f"<title>{title}</title>" in seen
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen
        assert unescape(re.findall(r'<pre class="script">(.*?)</pre>', seen, re.DOTALL)[0]) == SCRIPT
