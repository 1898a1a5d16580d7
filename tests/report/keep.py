"""Makes docs/examples anew from the demo's runs: `python -m tests.report.keep`. Needs Chromium, pdftoppm and, on Linux, unshare.

The demo is made under `/srv/lab` on a host of the name labpc-04, in namespaces of its own, so that nothing of the machine that
makes the examples gets into them. They have the times of their making, so that no test compares them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = "EXLAB_EXAMPLES_ARE_MADE_HERE"
HOST, LAB = "labpc-04", Path("/srv/lab")
EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
RUN = "Run_2026-04-17T15-10"
"""The demo's run that was blocked, and that a person let through."""
FORMS = {"run.html": "html", "run.premis.xml": "premis", "run.prov.json": "prov"}
PICTURES = {"run": 2, "period": 1}
"""Which page of each is shown in docs/ and README."""


def main() -> None:
    if os.environ.get(HERE) != "1":
        argv = ["unshare", "--map-root-user", "--mount", "--uts", sys.executable, "-m", "tests.report.keep"]
        subprocess.run(argv, env={**os.environ, HERE: "1"}, check=True)
        return
    subprocess.run(["hostname", HOST], check=True)
    with tempfile.TemporaryDirectory(prefix="exlab-examples-") as name:
        work = Path(name)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/srv"], check=True)
        _agent("demo", "--keep", str(LAB))
        config = ("--config", str(LAB / "config.yaml"))
        for target, form in FORMS.items():
            _agent("audit", "export", *config, "--run", RUN, "--format", form, "-o", str(work / target))
        _agent("audit", "export", *config, "-o", str(work / "period.html"))
        for page, number in PICTURES.items():
            _picture(work / f"{page}.html", number)
        for target in (*FORMS, "period.html", *(f"{page}.png" for page in PICTURES)):
            shutil.copyfile(work / target, EXAMPLES / target)


def _agent(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "exlab_watch_agent", *words], check=True, stdout=subprocess.DEVNULL)


def _picture(page: Path, number: int) -> None:
    """Print a page as a browser does, and draw one sheet of the paper beside it."""
    paper = page.with_suffix(".pdf")
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    argv = [*browser, f"--user-data-dir={page.parent / 'profile'}", "--no-pdf-header-footer", f"--print-to-pdf={paper}"]
    subprocess.run([*argv, page.as_uri()], check=True, stderr=subprocess.DEVNULL)
    sheet = ["pdftoppm", "-png", "-gray", "-r", "80", "-f", str(number), "-l", str(number), "-singlefile"]
    subprocess.run([*sheet, str(paper), str(page.with_suffix(""))], check=True)


if __name__ == "__main__":
    main()
