"""Whether the agent that claims a copy must be thought at work: in doubt it is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exlab_watch_agent.core.heartbeat import (
    SignOfLife,
    anchor_in,
    fault_of,
    is_at_work,
    is_evidence,
    is_recent,
    sign_in,
)
from exlab_watch_agent.core.rollback import TrailPosition

NOW = datetime(2026, 4, 18, 12, tzinfo=UTC)
HERE = "m" * 32
SIGN = SignOfLife(NOW - timedelta(hours=1), "labpc", "theirs", "another machine", "/state")


@pytest.mark.parametrize(
    ("sign", "is_working"),
    [
        (SIGN, True),
        (SignOfLife(NOW + timedelta(days=900), "labpc", "theirs"), True),  # its clock or ours is wrong
        (SignOfLife(NOW - timedelta(days=1), "labpc", "theirs"), True),
        (SignOfLife(NOW - timedelta(days=1, seconds=1), "labpc", "theirs"), False),
        (SignOfLife(SIGN.at, "labpc"), True),  # of the first version, which says no name
        (SignOfLife(SIGN.at, "labpc", "theirs", HERE, "/state"), True),
        (SignOfLife(SIGN.at, "labpc", "theirs", HERE, "/gone"), False),
        (SignOfLife(SIGN.at, "labpc", "theirs", HERE, "/ours"), False),
        (SignOfLife(SIGN.at, "labpc", "theirs", HERE), True),
        (SignOfLife(SIGN.at, "labpc", "theirs", "another machine", "/gone"), True),
        (SignOfLife(SIGN.at, "another", "theirs", HERE, "/gone"), True),  # this machine's disk was cloned
    ],
)
def test_an_agent_is_at_work_until_its_silence_or_the_end_of_its_folder_shows_otherwise(
    sign: SignOfLife, is_working: bool
) -> None:
    found = is_at_work(
        sign, now=NOW, machine=HERE, host="labpc", state_dir="/ours", is_gone=lambda path: path == "/gone"
    )
    assert found is is_working


def test_a_machine_that_says_nothing_of_itself_is_no_machine_that_is_known() -> None:
    sign = SignOfLife(SIGN.at, "labpc", "theirs", "", "/gone")
    assert is_at_work(sign, now=NOW, machine="", host="labpc", state_dir="/ours", is_gone=lambda _: True)


@pytest.mark.parametrize(
    ("at", "is_so"),
    [
        ("2026-04-18T11:00:00Z", True),
        ("2026-04-17T12:00:00Z", True),
        ("2026-04-17T11:59:59Z", False),
        ("2026-04-17T11:59:59", False),
        ("2028-01-01T00:00:00Z", True),
        ("yesterday", True),
        ("", False),
    ],
)
def test_a_seal_of_the_last_day_is_recent_and_so_is_one_at_a_time_that_nobody_understands(at: str, is_so: bool) -> None:
    assert is_recent(at, now=NOW) is is_so


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"3", b"{}", b'{"at": 3}', b'{"at": "soon"}', b"\xff", b'{"at": null}', b"[" * 100_000]
)
def test_what_is_no_sign_of_life_is_none(data: bytes) -> None:
    assert sign_in(data) is None


def test_what_a_sign_says_is_read_and_what_is_odd_in_it_is_not_believed() -> None:
    said = {"at": "2026-04-18T11:00:00", "host": "labpc", "state_folder": ["x"], "machine": 3, "path": "/state"}
    assert sign_in(json.dumps(said).encode()) == SignOfLife(SIGN.at, "labpc", "", "", "/state")


@pytest.mark.parametrize(
    ("anchor", "told_to", "is_so"),
    [
        (None, 0, False),
        (TrailPosition(9, "b" * 64), 0, False),  # whether that line is ours the trail itself says
        (TrailPosition(10, "a" * 64), 0, False),
        (TrailPosition(10, "b" * 64), 0, True),
        (TrailPosition(11, "b" * 64), 0, True),
        (TrailPosition(11, "b" * 64), 11, False),
    ],
)
def test_our_own_sign_is_kept_where_it_speaks_against_the_trail_and_was_not_told(
    anchor: TrailPosition | None, told_to: int, is_so: bool
) -> None:
    here = TrailPosition(10, "a" * 64)
    sign = replace(SIGN, state_folder="ours", anchor=anchor)
    assert is_evidence(sign, state_folder="ours", position=here, told_to=told_to) is is_so
    assert not is_evidence(SIGN, state_folder="ours", position=here, told_to=told_to)


def test_a_sign_that_is_empty_or_of_the_future_is_named_with_what_to_do() -> None:
    assert fault_of("pc.json", SIGN, now=NOW) == ""
    empty = fault_of("pc.json", None, now=NOW)
    assert empty.startswith(".exlab-watch-agent/pc.json on the NAS is empty or cannot be read")
    ahead = fault_of("pc.json", replace(SIGN, at=NOW + timedelta(days=900)), now=NOW)
    assert "is dated 2028-10-04T12:00:00Z, which is in the future" in ahead
    assert "remove this file" in ahead


def test_a_sign_says_where_its_trail_ended() -> None:
    said = {"at": "2026-04-18T11:00:00", "host": "labpc", "audit_seq": 7, "audit_blake3": "c" * 64}
    sign = sign_in(json.dumps(said).encode())
    assert sign is not None
    assert sign.anchor == TrailPosition(7, "c" * 64)
    assert sign_in(json.dumps(said | {"audit_seq": "7"}).encode()) == replace(sign, anchor=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"audit": 7}',
        '{"audit": {"seq": true, "blake3": "x"}}',
        '{"audit_seq": 7, "audit_blake3": ""}',
    ],
)
def test_what_is_no_heartbeat_names_no_line(text: str) -> None:
    assert anchor_in(text.encode()) is None


def test_both_forms_of_a_heartbeat_name_their_line() -> None:
    wanted = TrailPosition(7, "ab")
    assert anchor_in(b'{"audit": {"seq": 7, "blake3": "ab"}}') == wanted
    assert anchor_in(b'{"audit_seq": 7, "audit_blake3": "ab"}') == wanted
