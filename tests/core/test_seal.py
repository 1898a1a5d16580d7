"""What counts as a seal that is gone or was altered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exlab_watch_agent.core.seal import SealFound, is_the_agents, kept_as, says_more, seal_fault

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


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("creation.json", True),
        ("checksums.sha256", True),
        ("exlab-watch-agent.json", True),
        ("ingest.json", True),
        ("folders.txt", True),
        ("wizard.labpc-04.log", True),
        ("wizard.labpc-05.log", False),
        ("wizard..log", False),
        ("readme_fields.json", False),
        ("deep/creation.json", False),
        ("creation.json.saved-0123456789abcdef", False),
    ],
)
def test_the_agent_replaces_its_own_files_of_the_cache_folder_whatever_they_say(name: str, is_ours: bool) -> None:
    assert is_the_agents(f".exlab-wizard/{name}", host="labpc-04") is is_ours
    assert not is_the_agents(name, host="labpc-04"), "beside the cache folder nothing is"


def test_without_a_host_no_log_is_the_agents() -> None:
    assert not is_the_agents(".exlab-wizard/wizard..log", host="")
    assert not is_the_agents(".exlab-wizard/wizard.labpc-04.log", host="")


@pytest.mark.parametrize(
    ("name", "there", "here", "more"),
    [
        ("readme_fields.json", b"{}", b"{}", False),
        ("readme_fields.json", b"{", b"{}", True),
        ("wizard.other.log", b"one\n", b"one\ntwo\n", False),
        ("wizard.other.log", b"", b"one\n", False),
        ("wizard.other.log", b"one\ntwo\n", b"one\n", True),
        ("wizard.other.log", b"two\n", b"one\ntwo\n", True),
    ],
)
def test_a_file_says_more_unless_it_is_the_same_or_the_beginning_of_a_log(
    name: str, there: bytes, here: bytes, more: bool
) -> None:
    assert says_more(f".exlab-wizard/{name}", there=there, here=here) is more
