"""What is kept beside the chart is drawn from today's chart."""

from __future__ import annotations

import pytest

from tests.diagram.keep import KEPT, STATECHARTS, kept_form


@pytest.mark.parametrize("form", KEPT)
def test_the_kept_forms_are_those_of_today_s_chart(form: str) -> None:
    kept = (STATECHARTS / f"run_sync.{KEPT[form]}").read_bytes()
    assert kept == kept_form(form), "the chart has changed: make the kept forms anew by `python -m tests.diagram.keep`"


def test_nothing_else_is_kept_beside_the_chart() -> None:
    assert {path.name for path in STATECHARTS.iterdir()} == {"run_sync.yaml", *(f"run_sync.{s}" for s in KEPT.values())}
