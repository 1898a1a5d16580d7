"""docs/guarantees.md names for each promise the tests that carry it: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_each_test_that_carries_a_promise_exists() -> None:
    named = NAMED.findall((ROOT / "docs/guarantees.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_each_promise_names_one() -> None:
    rows = [
        line
        for line in (ROOT / "docs/guarantees.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| promise")
    ]
    assert [row for row in rows if not NAMED.search(row)] == []
