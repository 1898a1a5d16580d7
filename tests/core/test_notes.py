"""What a look tells beside a run's way: soft findings, and entries of validation_overrides that do not do what was meant."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.notes import notes_of
from exlab_watch_agent.core.snapshot import Note

RULE = "unresolved_placeholder_token"


def expiring(index: int, day: str) -> OverrideEntry:
    return OverrideEntry(index, f"until {day}", RULE, expires_at=f"{day}T00:00:00Z")


@pytest.mark.parametrize(
    ("entries", "codes", "words"),
    [
        ([], [], ""),
        ([OverrideEntry(0, "a", RULE)], [], ""),
        ([OverrideEntry(0, None, RULE)], [], ""),
        ([OverrideEntry(0, "a", None)], ["override_malformed"], "names no problem_class"),
        ([OverrideEntry(0, "a", "unresolved_placeholder")], ["override_unknown_class"], f"the nearest one is {RULE}"),
        ([OverrideEntry(0, "a", "xyz")], ["override_unknown_class"], "which no rule has"),
        ([OverrideEntry(0, "a", RULE, expires_at="2027-01-01")], ["override_malformed"], "entry 1"),
        (
            [OverrideEntry(0, "a", RULE, expires_at="2027-01-01T00:00:00Z")],
            ["override_expiring"],
            "2027-01-01T00:00:00Z",
        ),
        ([expiring(0, "2027-01-01"), OverrideEntry(1, "b", RULE)], [], ""),
        ([expiring(0, "2027-01-01"), expiring(1, "2027-02-01")], ["override_expiring"], "2027-02-01T00:00:00Z"),
        ([expiring(0, "2027-01-01"), OverrideEntry(1, "b", "leftover_jinja_marker")], ["override_expiring"], "longer"),
        (
            [expiring(0, "2027-01-01"), OverrideEntry(1, "b", RULE), OverrideEntry(2, "c", revokes="b")],
            ["override_expiring"],
            "2027-01-01T00:00:00Z",
        ),
        (
            [expiring(0, "2027-01-01"), OverrideEntry(1, "b", RULE, expires_at="for ever")],
            ["override_expiring", "override_malformed"],
            "a copy that is proven stays proven",
        ),
        ([OverrideEntry(0, "a", None), OverrideEntry(1, "b", revokes="a")], [], ""),
        ([OverrideEntry(0, "b", revokes="a\x1b")], ["override_dangling"], "'a\\x1b'"),
    ],
)
def test_what_is_told_of_overrides(entries: list[OverrideEntry], codes: list[str], words: str) -> None:
    found = notes_of((), entries)
    assert [note.code for note in found] == codes
    assert words in " ".join(note.sentence for note in found)


def test_an_override_that_expires_says_when() -> None:
    (note,) = notes_of((), [OverrideEntry(0, "a", RULE, expires_at="2027-01-01T00:00:00Z")])
    assert note.due == datetime(2027, 1, 1, tzinfo=UTC)
    assert isinstance(note, Note)
