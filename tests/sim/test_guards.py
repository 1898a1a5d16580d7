"""The list of guards stays true to the code and to the page that tells of them."""

from __future__ import annotations

import pytest

from tests.sim.guard_list import GUARDS, Guard
from tests.sim.guards import PACKAGE, ROOT


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_can_be_removed_from_the_code_as_it_is(guard: Guard) -> None:
    assert all(path.read_text(encoding="utf-8") != text for path, text in guard.removed_from(ROOT / PACKAGE).items())


def test_the_page_tells_of_every_guard_once() -> None:
    page = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    assert [page.count(f"\n| {guard.name} |") for guard in GUARDS] == [1] * len(GUARDS)
