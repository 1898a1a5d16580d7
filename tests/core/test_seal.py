"""What counts as a seal that is gone or was altered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exlab_watch_agent.core.seal import SealFound, kept_as, seal_fault

PROVEN = "a" * 64
WHOLE = SealFound(is_claimed=True, claimed_digest=PROVEN, manifest_digest=PROVEN, says_synced=True)


def test_a_seal_that_is_as_it_was_left_has_no_fault() -> None:
    assert seal_fault(WHOLE, manifest_digest=PROVEN) == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(WHOLE, is_claimed=False), "claim is gone"),
        (replace(WHOLE, claimed_digest=""), "does not name the manifest"),
        (replace(WHOLE, claimed_digest="b" * 64), "does not name the manifest"),
        (replace(WHOLE, manifest_digest=""), "manifest is gone"),
        (replace(WHOLE, manifest_digest="b" * 64), "manifest was altered"),
        (replace(WHOLE, says_synced=False), "does not say synced"),
        (replace(WHOLE, lists_folders=False), "list of empty folders"),
    ],
)
def test_each_part_of_a_seal_is_missed(found: SealFound, said: str) -> None:
    assert said in seal_fault(found, manifest_digest=PROVEN)


def test_a_file_that_was_altered_is_kept_at_one_place_and_another_one_at_another() -> None:
    places = [kept_as("P/Runs/R", ".exlab-wizard/checksums.sha256", digest * 64) for digest in "aab"]
    assert places[0] == places[1] != places[2]
    assert places[0] == ".exlab-superseded/P/Runs/R/seal-aaaaaaaaaaaaaaaa/checksums.sha256"
