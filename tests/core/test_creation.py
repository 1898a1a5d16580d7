"""What is read of a copy of a `creation.json`, whatever its bytes are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.creation import RunIdentity, identity_in, identity_of, says_synced

WHOLE = {
    "created_at": "2026-04-17T14:32:11Z",
    "created_by": "asmith",
    "lims_project": {"uid": "p-1"},
    "paths": {"local": "D:\\lab\\Run_1\\"},
    "sync_status": "synced",
}


def test_the_identity_is_four_texts_of_the_file() -> None:
    expected = RunIdentity("2026-04-17T14:32:11Z", "asmith", "p-1", "Run_1")
    assert identity_of(WHOLE, folder_name="moved") == expected
    assert identity_in(json.dumps(WHOLE).encode(), folder_name="moved") == expected


@pytest.mark.parametrize("local", ["/lab/Run_1", "/lab/Run_1/", "lab\\Run_1", "C:\\lab/Run_1\\/"])
def test_the_leaf_is_the_last_part_of_a_path_of_either_platform(local: str) -> None:
    assert identity_of(WHOLE | {"paths": {"local": local}}, folder_name="moved").leaf_name == "Run_1"


@pytest.mark.parametrize("paths", [None, {}, {"local": None}, {"local": ""}, {"local": "//"}, {"local": 7}, "x"])
def test_where_no_path_is_given_the_folder_s_own_name_is_the_leaf(paths: object) -> None:
    assert identity_of(WHOLE | {"paths": paths}, folder_name="moved").leaf_name == "moved"


def test_what_is_absent_or_no_text_counts_as_empty() -> None:
    assert identity_of({"created_by": 7, "lims_project": []}, folder_name="a") == RunIdentity("", "", "", "a")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"sync_status": ["synced"]}'])
def test_a_copy_that_is_none_has_no_identity_and_says_nothing(data: bytes) -> None:
    assert identity_in(data, folder_name="a") is None
    assert not says_synced(data)


@pytest.mark.parametrize(
    ("status", "is_synced"), [("synced", True), ("pending", False), ("Synced", False), (None, False)]
)
def test_a_copy_says_synced_by_that_word_alone(status: str | None, is_synced: bool) -> None:
    assert says_synced(json.dumps(WHOLE | {"sync_status": status}).encode()) is is_synced


@given(st.binary(max_size=40))
def test_no_bytes_make_a_reader_fail(data: bytes) -> None:
    identity_in(data, folder_name="a")
    says_synced(data)
