"""`creation.json` on real files: what is refused and how, and that a change changes nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exlab_watch_agent.adapters.local import creation_file, json_text, renaming
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.creation_reading import LIMIT_BYTES
from exlab_watch_agent.adapters.local.creation_splicing import SpliceDefectError
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.local.lock_holders import lock_holder
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.core.creation import OverrideEntry, RunIdentity
from exlab_watch_agent.errors import CreationFileError

RUN_NAME = "Run_2026-04-17T14-32"
SAMPLE = """{
  "schema_version": "1.8",
  "created_at": "2026-04-17T14:32:00Z",
  "created_by": "asmith",
  "level": "run",
  "run_kind": "experimental",
  "lims_project": {"uid": "8c7e", "short_id": "PROJ-0042", "name_at_creation": "Cortex Q3 Pilot", "source": "live"},
  "variables": {"gain": 1.50, "counts": 1e400, "note": "caf\\u00e9 \\/ \\ud83d\\ude00"},
  "paths": {"local": "/data/lab/CONFOCAL_01/PROJ-0042/Runs/Run_2026-04-17T14-32"},
  "sync_status": "pending",
  "validation_overrides": []
}
"""
ENTRY: dict[str, Any] = {
    "id": "3f2b6c1e-0000-4000-8000-000000000001",
    "problem_class": "case_collision",
    "operator": "Jürgen",
    "recorded_at": "2026-04-18T09:14:22Z",
    "reason": 'he said "go" \\ ahead',
    "revoked": False,
}

WRITES: tuple[tuple[Any, Any], ...] = (
    (JsonCreationFiles.set_sync_status, "synced"),
    (JsonCreationFiles.append_override, ENTRY),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / RUN_NAME
    (path / ".exlab-wizard").mkdir(parents=True)
    return path


def file_of(run: Path) -> Path:
    return run / ".exlab-wizard" / "creation.json"


def written(run: Path) -> tuple[int, int, int]:
    """What a write of the file would change, and a read would not: its inode, size and time of the last write."""
    status = file_of(run).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def put(run: Path, content: str | bytes) -> None:
    file_of(run).write_bytes(content.encode() if isinstance(content, str) else content)


def text_of(run: Path) -> str:
    return file_of(run).read_bytes().decode()


def names_in(run: Path) -> set[str]:
    return set(os.listdir(run / ".exlab-wizard"))


def refusal(run: Path, content: str | bytes) -> CreationFileError:
    """Return the error that reading raises, after a look that writing raises it too and touches nothing."""
    put(run, content)
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles().read(str(run))
    for write, argument in WRITES:
        with pytest.raises(CreationFileError) as from_write:
            write(JsonCreationFiles(), str(run), argument)
        assert from_write.value.code == caught.value.code
    assert file_of(run).read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names_in(run) == {"creation.json"}, "not even a lock file"
    return caught.value


def read_text(run: Path, content: str | bytes) -> Any:
    put(run, content)
    return JsonCreationFiles().read(str(run)).creation


# Reading -------------------------------------------------------------------------------------------------------------


def test_a_whole_file_is_read(run: Path) -> None:
    creation = read_text(run, SAMPLE)
    assert (creation.schema_version, creation.schema_minor) == ("1.8", 8)
    assert (creation.level, creation.run_kind, creation.sync_status) == ("run", "experimental", "pending")
    assert creation.identity == RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", RUN_NAME)
    assert creation.has_lims_project
    assert creation.project_name == "Cortex Q3 Pilot"
    assert creation.overrides == ()


def test_absent_members_have_their_defaults(run: Path) -> None:
    creation = read_text(run, '{"schema_version": "1.0"}')
    assert (creation.level, creation.run_kind, creation.sync_status) == ("run", "experimental", "pending")
    assert creation.identity == RunIdentity("", "", "", RUN_NAME)
    assert not creation.has_lims_project
    assert creation.project_name == ""


def test_null_counts_as_absent(run: Path) -> None:
    members = ["level", "run_kind", "sync_status", "validation_overrides", "lims_project", "paths", "created_at"]
    nulls = read_text(run, json.dumps({"schema_version": "1.0"} | dict.fromkeys(members)))
    assert nulls == read_text(run, '{"schema_version": "1.0"}')


def test_another_level_is_returned_for_the_caller_to_judge(run: Path) -> None:
    assert read_text(run, '{"schema_version": "1.8", "level": "project"}').level == "project"


@pytest.mark.parametrize(
    ("version", "minor"), [("1.0", 0), ("1.3", 3), ("1.4", 3), ("1.5", 5), ("1.8", 8), ("1.9", 9), ("1.10", 10)]
)
def test_a_1_4_file_reads_as_1_3_and_a_newer_minor_is_read(run: Path, version: str, minor: int) -> None:
    creation = read_text(run, json.dumps({"schema_version": version, "novelty": {"deep": [1]}}))
    assert (creation.schema_version, creation.schema_minor) == (version, minor)


@pytest.mark.parametrize(
    ("local", "leaf"),
    [
        ("/data/Runs/Run_1", "Run_1"),
        ("C:\\data\\Runs\\Run_1", "Run_1"),
        ("C:\\data/Runs\\Run_1/", "Run_1"),
        ("Run_1", "Run_1"),
        ("", RUN_NAME),
        ("///", RUN_NAME),
    ],
)
def test_the_leaf_name_is_the_last_part_of_a_path_of_either_platform(run: Path, local: str, leaf: str) -> None:
    assert read_text(run, json.dumps({"schema_version": "1.8", "paths": {"local": local}})).identity.leaf_name == leaf


def test_the_project_is_named_by_its_short_id_where_it_has_no_name(run: Path) -> None:
    assert read_text(run, '{"schema_version": "1.8", "lims_project": {"short_id": "P-1"}}').project_name == "P-1"


def test_a_byte_order_mark_is_accepted(run: Path) -> None:
    assert read_text(run, b"\xef\xbb\xbf" + SAMPLE.encode()) == read_text(run, SAMPLE)


def test_lone_surrogates_are_texts(run: Path) -> None:
    creation = read_text(run, '{"schema_version": "1.8", "created_by": "\\ud800", "paths": {"local": "a/\\udcff"}}')
    assert (creation.identity.created_by, creation.identity.leaf_name) == ("\ud800", "\udcff")


def test_a_number_of_5000_digits_does_no_harm(run: Path) -> None:
    content = f'{{"schema_version": "1.0", "n": {"1" * 5000}, "validation_overrides": [{{"id": {"2" * 5000}}}]}}'
    assert read_text(run, content).overrides[0].id == "2" * 5000
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert "1" * 5000 in text_of(run)


def test_overrides_are_read_as_far_as_they_can_be_understood(run: Path) -> None:
    entries = [
        ENTRY | {"expires_at": "2026-10-18T09:14:22Z"},
        {"id": "t", "revokes": ENTRY["id"], "revoked": True},
        {},
        {"id": 7, "problem_class": ["x"], "operator": None, "expires_at": 5, "reason": {}, "revoked": False},
        {"revokes": 7},
        {"id": "self", "problem_class": "orphan", "revoked": True},
        {"id": "", "expires_at": True, "revokes": None, "revoked": None},
    ]
    creation = read_text(run, json.dumps({"schema_version": "1.8", "validation_overrides": entries}))
    assert creation.overrides == (
        OverrideEntry(
            0,
            ENTRY["id"],
            "case_collision",
            None,
            "Jürgen",
            "2026-04-18T09:14:22Z",
            "2026-10-18T09:14:22Z",
            ENTRY["reason"],
        ),
        OverrideEntry(1, "t", revokes=ENTRY["id"]),
        OverrideEntry(2, None),
        OverrideEntry(3, "7", expires_at="5"),
        OverrideEntry(4, None, revokes="7"),
        OverrideEntry(5, "self", "orphan", revokes=""),
        OverrideEntry(6, None, expires_at=""),
    )


def test_the_signature_is_that_of_the_file_and_tells_each_kind_of_save(run: Path) -> None:
    put(run, SAMPLE)
    files = JsonCreationFiles()
    first = files.read(str(run)).signature
    status = os.stat(file_of(run))
    assert first == (status.st_mtime_ns, status.st_size, status.st_ino)
    with file_of(run).open("r+") as in_place:
        in_place.write(SAMPLE.replace("asmith", "bsmith"))
    os.utime(file_of(run), ns=(1, status.st_mtime_ns + 1))
    second = files.read(str(run))
    (run / "other").write_text(SAMPLE.replace("asmith", "csmith"))
    os.replace(run / "other", file_of(run))
    third = files.read(str(run))
    assert len({first, second.signature, third.signature}) == 3
    assert (second.creation.identity.created_by, third.creation.identity.created_by) == ("bsmith", "csmith")


def test_the_signature_is_never_newer_than_the_bytes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    real = os.read

    def read_and_append(descriptor: int, size: int) -> bytes:
        data = real(descriptor, size)
        with file_of(run).open("ab") as editor:
            editor.write(b" ")
        return data if data.endswith(b"\n") else b""

    monkeypatch.setattr(os, "read", read_and_append)
    seen = JsonCreationFiles().read(str(run)).signature
    assert seen[1] == len(SAMPLE.encode())


# Refusing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "column", "word"),
    [
        ("", 1, 1, "empty"),
        (" \n\n", 1, 1, "empty"),
        ("\0" * 500, 1, 1, "Expecting value"),
        ("hello", 1, 1, "Expecting value"),
        ('{\n "schema_version": "1.8"\n "level": "run"\n}', 3, 2, "delimiter"),
        ('{\r\n "schema_version": "1.8",\r\n}', 3, 1, "property name"),
        ('{"schema_version": "1.8"} x', 1, 27, "Extra data"),
        ('{"schema_version": "1.8", "a": "\t"}', 1, 33, "control character"),
        ('{"schema_version": "1.8",\n "x": {"a": 1,\n  "b": 2, "a": 3}}', 3, 11, "twice"),
        ('{"schema_version": "1.8",\n "a": 1, "\\u0061": 2}', 2, 10, "twice"),
        ('{"schema_version": "1.8",\n "x": NaN}', 2, 7, "NaN"),
        ('{"schema_version": "1.8", "x": [Infinity]}', 1, 33, "Infinity"),
        ('{"schema_version": "1.8", "x": -Infinity}', 1, 32, "-Infinity"),
        (b'{"schema_version": "1.8",\n "x": "\xff"}', 2, 8, "UTF-8"),
        (b'{"x": "\xed\xa0\x80"}', 1, 8, "UTF-8"),
        (b"\xef\xbb\xbf{\n\xff", 2, 1, "UTF-8"),
        (SAMPLE.encode("utf-16"), 1, 1, "UTF-8"),
        ("[" * 100_000, 1, 33, "nested"),
        ("[" * 100_000 + "]" * 100_000, 1, 33, "nested"),
        ('{"schema_version": "1.8", "x":\n' + '{"a":' * 100_000, 2, 156, "nested"),
        ("}" * 1000, 1, 1, "Expecting value"),
        ('"' + '\\"' * 400_000, 1, 1, "Unterminated"),
        ('{"a\\', 1, 2, "Unterminated"),
    ],
)
def test_text_that_is_not_the_json_we_accept_is_refused_with_line_and_column(
    run: Path, content: str | bytes, line: int, column: int, word: str
) -> None:
    error = refusal(run, content)
    assert error.code == "invalid_json"
    assert (error.line, error.column) == (line, column)
    assert f"line {line}, column {column}" in str(error)
    assert word in str(error)


def test_brackets_within_texts_are_no_nesting(run: Path) -> None:
    deep = "[" * 29 + '"' + '[{\\"' * 1000 + '"' + "]" * 29
    read_text(run, f'{{"schema_version": "1.8", "x": [[{deep}]]}}')
    assert refusal(run, f'{{"schema_version": "1.8", "x": [[[{deep}]]]}}').code == "invalid_json"


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("", None),
        ('"schema_version": null', None),
        ('"schema_version": "2.0"', "2.0"),
        ('"schema_version": "0.9"', "0.9"),
        ('"schema_version": 1.8', "1.8"),
        ('"schema_version": "1"', "1"),
        ('"schema_version": "1.8.1"', "1.8.1"),
        ('"schema_version": "1.8\\n"', "1.8\\n"),
        ('"schema_version": "1.٨"', "1.٨"),
        ('"schema_version": " 1.8"', " 1.8"),
        ('"schema_version": ["1.8"]', "a list"),
        (f'"schema_version": "1.{"9" * 9000}"', None),
    ],
)
def test_another_or_no_schema_major_is_a_mismatch(run: Path, version: str, found: str | None) -> None:
    error = refusal(run, f"{{{version}}}")
    assert (error.code, error.field, error.expected) == ("schema_major_mismatch", "schema_version", "1.x")
    if len(version) < 100:
        assert error.found == found
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("member", "field", "expected", "found"),
    [
        ('"level": 5', "level", "a text", "a number"),
        ('"run_kind": []', "run_kind", "a text", "a list"),
        ('"sync_status": true', "sync_status", "a text", "true or false"),
        ('"created_at": 1.5', "created_at", "a text", "a number"),
        ('"created_by": {}', "created_by", "a text", "an object"),
        ('"lims_project": "x"', "lims_project", "an object", "a text"),
        ('"lims_project": {"uid": 7}', "lims_project.uid", "a text", "a number"),
        ('"paths": []', "paths", "an object", "a list"),
        ('"paths": {"local": false}', "paths.local", "a text", "true or false"),
        ('"validation_overrides": {}', "validation_overrides", "a list", "an object"),
        ('"validation_overrides": [{}, "x"]', "validation_overrides[1]", "an object", "a text"),
        ('"validation_overrides": [null]', "validation_overrides[0]", "an object", "null"),
    ],
)
def test_a_member_of_the_wrong_type_is_named(run: Path, member: str, field: str, expected: str, found: str) -> None:
    error = refusal(run, f'{{"schema_version": "1.8", {member}}}')
    assert (error.code, error.field, error.expected, error.found) == ("invalid_content", field, expected, found)
    assert f"{field} must be {expected}, not {found}" in str(error)


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "1", "true"])
def test_a_document_that_is_no_object_is_invalid_content(run: Path, content: str) -> None:
    assert refusal(run, content).code == "invalid_content"


def test_a_file_of_one_mebibyte_is_read_and_a_larger_one_is_not(run: Path) -> None:
    largest = '{"schema_version": "1.8"}'.ljust(LIMIT_BYTES)
    read_text(run, largest)
    assert refusal(run, largest + " ").code == "invalid_content"
    assert refusal(run, "x" * (2 << 20)).code == "invalid_content"


def test_a_file_that_would_grow_beyond_the_limit_is_left_as_it_is(run: Path) -> None:
    largest = '{"schema_version": "1.8"}'.ljust(LIMIT_BYTES)
    put(run, largest)
    with pytest.raises(CreationFileError, match="larger") as caught:
        JsonCreationFiles().append_override(str(run), ENTRY)
    assert caught.value.code == "invalid_content"
    assert text_of(run) == largest


def test_a_file_cut_at_any_byte_is_refused(run: Path) -> None:
    whole = read_text(run, SAMPLE)
    for length in range(len(SAMPLE.encode())):
        if length == len(SAMPLE.encode()) - 1:  # Only the last newline may be missing.
            assert read_text(run, SAMPLE.encode()[:length]) == whole
            continue
        put(run, SAMPLE.encode()[:length])
        with pytest.raises(CreationFileError) as caught:
            JsonCreationFiles().read(str(run))
        assert caught.value.code == "invalid_json"


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0dN1aIe-.\n ', max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_no_input_whatever_leads_to_another_error(noise: bytes) -> None:
    with made_run(noise) as run, suppress(CreationFileError):
        JsonCreationFiles().read(str(run))


@given(st.text('{}[]",:\\u0d1aIe-.\n ', max_size=30))
@settings(max_examples=500, deadline=None)
def test_what_is_accepted_is_accepted_by_the_standard_library_too(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = ...
    try:
        parsed = json_text.parse(text)
    except json_text.JsonTextError:
        return
    assert expected is not ...
    assert plain(parsed) == plain(json.loads(text, parse_int=json_text.JsonNumber, parse_float=json_text.JsonNumber))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nothing", "missing"),
        ("no cache folder", "missing"),
        ("no run", "missing"),
        ("cache folder is a file", "missing"),
        ("folder", "unreadable"),
        ("fifo", "unreadable"),
        ("link", "unreadable"),
        ("cache folder is a link", "unreadable"),
    ],
)
def test_what_is_not_a_regular_file_in_its_place_is_refused(run: Path, kind: str, code: str) -> None:
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "creation.json").write_text(SAMPLE)
    if kind == "folder":
        file_of(run).mkdir()
    elif kind == "fifo":
        os.mkfifo(file_of(run))
    elif kind == "link":
        file_of(run).symlink_to(elsewhere / "creation.json")
    elif kind != "nothing":
        (run / ".exlab-wizard").rmdir()
    if kind == "no run":
        run.rmdir()
    elif kind == "cache folder is a file":
        (run / ".exlab-wizard").write_text("x")
    elif kind == "cache folder is a link":
        (run / ".exlab-wizard").symlink_to(elsewhere)
    for act, *arguments in ((JsonCreationFiles.read,), *WRITES):
        with pytest.raises(CreationFileError) as caught:
            act(JsonCreationFiles(), str(run), *arguments)
        assert caught.value.code == code
    assert os.listdir(elsewhere) == ["creation.json"]
    assert (elsewhere / "creation.json").read_text() == SAMPLE
    if kind == "no cache folder":
        assert os.listdir(run) == [], "no folder is made for the lock"


def test_a_file_that_may_not_be_read_is_unreadable(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)

    def deny(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", deny)  # A mode would not stop root.
    with pytest.raises(CreationFileError, match="Permission denied") as caught:
        JsonCreationFiles().read(str(run))
    assert caught.value.code == "unreadable"


def test_messages_hold_no_control_characters_and_no_surrogates(tmp_path: Path) -> None:
    run = tmp_path / "Run_\x1b[31m\n\udcff"
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles().read(str(run))
    assert str(caught.value).isprintable()
    str(caught.value).encode()


# Changing ------------------------------------------------------------------------------------------------------------


def test_only_the_status_changes(run: Path) -> None:
    put(run, SAMPLE)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert names_in(run) == {"creation.json", "creation.json.lock"}


def test_the_returned_signature_is_what_the_next_read_sees(run: Path) -> None:
    put(run, SAMPLE)
    files = JsonCreationFiles()
    written = files.set_sync_status(str(run), "synced").after
    assert files.read(str(run)).signature == written
    assert files.append_override(str(run), ENTRY) == files.read(str(run)).signature != written


@pytest.mark.parametrize("content", [SAMPLE, '{"schema_version":"1.0"}', '{"schema_version":"1.0","sync_status":null}'])
def test_a_status_that_stands_there_already_is_not_written(run: Path, content: str) -> None:
    put(run, content)
    before = JsonCreationFiles().read(str(run)).signature
    saved = JsonCreationFiles().set_sync_status(str(run), "pending")
    assert (saved.before, saved.after) == (before, before)
    assert text_of(run) == content
    assert JsonCreationFiles().read(str(run)).signature == before


SAVED_BY_HAND = SAMPLE.replace('"validation_overrides": []', '"validation_overrides": [{"operator": "x"}]')


@pytest.mark.parametrize("content", [SAMPLE, "\ufeff" + SAMPLE, SAMPLE.replace("\n", "\r\n"), SAVED_BY_HAND])
def test_a_text_with_another_status_is_made_without_writing_and_placed_as_it_is(run: Path, content: str) -> None:
    put(run, content)
    before = written(run)
    files = JsonCreationFiles()
    text = files.text_with_status(str(run), "synced")
    assert text.signature == files.read(str(run)).signature
    assert (written(run), text_of(run)) == (before, content), "nothing was written"
    assert b'"sync_status": "synced"' in text.data
    saved = files.put_text(str(run), text)
    assert file_of(run).read_bytes() == text.data, "an id that was given to an override is the same on both sides"
    assert (saved.before, saved.after) == (text.signature, files.read(str(run)).signature)


def test_a_text_that_stands_there_already_is_not_written_again(run: Path) -> None:
    put(run, SAMPLE.replace("pending", "synced"))
    before = written(run)
    files = JsonCreationFiles()
    text = files.text_with_status(str(run), "synced")
    assert text.data == file_of(run).read_bytes()
    saved = files.put_text(str(run), text)
    assert saved.before == saved.after == text.signature
    assert written(run) == before


def test_a_text_made_from_a_file_that_was_saved_meanwhile_is_not_placed(run: Path) -> None:
    put(run, SAMPLE)
    files = JsonCreationFiles()
    text = files.text_with_status(str(run), "synced")
    put(run, SAMPLE.replace("asmith", "bjones"))
    with pytest.raises(CreationFileError, match="saved by another program") as caught:
        files.put_text(str(run), text)
    assert caught.value.code == "changed"
    assert text_of(run) == SAMPLE.replace("asmith", "bjones")


def test_a_text_that_would_be_too_large_is_not_made(run: Path) -> None:
    room = LIMIT_BYTES - len(SAMPLE.encode())
    put(run, SAMPLE.replace('"pending",', '"pending",' + " " * room))
    with pytest.raises(CreationFileError, match="would become larger"):
        JsonCreationFiles().text_with_status(str(run), "blocked_by_validation")


def test_an_unknown_status_is_our_mistake(run: Path) -> None:
    put(run, SAMPLE)
    with pytest.raises(ValueError, match="unknown"):
        JsonCreationFiles().set_sync_status(str(run), "synced_or_failed")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1.0", "1.8"), ("1.4", "1.8"), ("1.7", "1.8"), ("1.8", "1.8"), ("1.9", "1.9"), ("1.10", "1.10"),
    ],
)  # fmt: skip
def test_an_older_schema_version_is_raised_and_a_newer_one_stays(run: Path, before: str, after: str) -> None:
    put(run, SAMPLE.replace('"1.8"', f'"{before}"'))
    JsonCreationFiles().set_sync_status(str(run), "failed")
    assert text_of(run) == SAMPLE.replace('"1.8"', f'"{after}"').replace('"pending"', '"failed"')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"schema_version":"1.8"}', '{"schema_version":"1.8","sync_status":"synced"}'),
        ('{"schema_version": "1.8"}', '{"schema_version": "1.8", "sync_status": "synced"}'),
        (
            '{ "schema_version" : "1.8" , "x" : 1 }\n',
            '{ "schema_version" : "1.8" , "x" : 1 , "sync_status" : "synced" }\n',
        ),
        ('{\n\t"schema_version": "1.8"\n}', '{\n\t"schema_version": "1.8",\n\t"sync_status": "synced"\n}'),
        (
            '{\r\n    "schema_version": "1.8",\r\n    "x": [\r\n    ]\r\n}\r\n',
            '{\r\n    "schema_version": "1.8",\r\n    "x": [\r\n    ],\r\n    "sync_status": "synced"\r\n}\r\n',
        ),
        (
            '\ufeff{"sync_status": null, "schema_version": "1.8"}',
            '\ufeff{"sync_status": "synced", "schema_version": "1.8"}',
        ),
        (
            '{"x": {"sync_status": "pending"}, "schema_version": "1.8", "sync\\u005fstatus": "p"}',
            '{"x": {"sync_status": "pending"}, "schema_version": "1.8", "sync\\u005fstatus": "synced"}',
        ),
    ],
)  # fmt: skip
def test_an_absent_member_is_added_in_the_style_of_the_file(run: Path, before: str, after: str) -> None:
    put(run, before)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == after


SHORT = {"id": "n", "problem_class": "orphan"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '{"schema_version":"1.8"}',
            '{"schema_version":"1.8","validation_overrides":[{"id":"n","problem_class":"orphan"}]}',
        ),
        (
            '{"schema_version": "1.8", "validation_overrides": null, "x": 1}',
            '{"schema_version": "1.8", "validation_overrides": [{"id": "n", "problem_class": "orphan"}], "x": 1}',
        ),
        (
            '{\n  "schema_version": "1.8",\n  "validation_overrides": [\n  ]\n}\n',
            '{\n  "schema_version": "1.8",\n  "validation_overrides": [\n    {\n      "id": "n",\n'
            '      "problem_class": "orphan"\n    }\n  ]\n}\n',
        ),
        (
            '{\r\n\t"schema_version": "1.8"\r\n}\r\n',
            '{\r\n\t"schema_version": "1.8",\r\n\t"validation_overrides": [\r\n\t\t{\r\n\t\t\t"id": "n",\r\n'
            '\t\t\t"problem_class": "orphan"\r\n\t\t}\r\n\t]\r\n}\r\n',
        ),
        (
            '{\n  "schema_version": "1.8",\n  "validation_overrides": [\n    {"id": "a", "n": 1.50}\n  ]\n}\n',
            '{\n  "schema_version": "1.8",\n  "validation_overrides": [\n    {"id": "a", "n": 1.50},\n'
            '    {"id": "n", "problem_class": "orphan"}\n  ]\n}\n',
        ),
        (
            '{\n  "validation_overrides": [\n    {\n      "id": "a"\n    }\n  ],\n  "schema_version": "1.8"\n}\n',
            '{\n  "validation_overrides": [\n    {\n      "id": "a"\n    },\n    {\n      "id": "n",\n'
            '      "problem_class": "orphan"\n    }\n  ],\n  "schema_version": "1.8"\n}\n',
        ),
        (
            '{"schema_version": "1.8", "validation_overrides": [{"id": "a"}  ,  {"id": "b"} ]}',
            '{"schema_version": "1.8", "validation_overrides": [{"id": "a"}  ,  {"id": "b"}  ,  '
            '{"id": "n", "problem_class": "orphan"} ]}',
        ),
    ],
)
def test_an_override_is_appended_in_the_style_of_the_file(run: Path, before: str, after: str) -> None:
    put(run, before)
    JsonCreationFiles().append_override(str(run), SHORT)
    assert text_of(run) == after


def test_hand_written_overrides_get_an_id_at_our_next_write_and_no_others(run: Path) -> None:
    put(
        run,
        '{"schema_version": "1.8", "other": [{"problem_class": "x"}], "validation_overrides": [\n'
        '  {"problem_class": "a", "n": {"x": 1}},\n  {"id": "b"},\n  {\n    "problem_class": "c"\n  },\n  {},'
        '\n  {"problem_class": "d", "id": null},\n  {"id": 5}\n]}',
    )
    fresh = iter(["one", "two", "three", "four"])
    JsonCreationFiles(new_id=lambda: next(fresh)).set_sync_status(str(run), "synced")
    assert text_of(run) == (
        '{"schema_version": "1.8", "other": [{"problem_class": "x"}], "validation_overrides": [\n'
        '  {"id": "one", "problem_class": "a", "n": {"x": 1}},\n  {"id": "b"},\n  {\n    "id": "two",\n'
        '    "problem_class": "c"\n  },\n  {"id": "three"},'
        '\n  {"problem_class": "d", "id": "four"},\n  {"id": 5}\n], "sync_status": "synced"}'
    )


def test_the_ids_given_are_random_uuids(run: Path) -> None:
    put(run, '{"schema_version": "1.8", "validation_overrides": [{}, {}]}')
    JsonCreationFiles().set_sync_status(str(run), "synced")
    ids = {entry.id for entry in JsonCreationFiles().read(str(run)).creation.overrides}
    assert len(ids) == 2
    assert all(uuid.UUID(identifier).version == 4 for identifier in ids)


@pytest.mark.parametrize(
    ("content", "spelled"),
    [(SAMPLE, b"J\\u00fcrgen"), (SAMPLE.replace("asmith", "Jörg"), "Jürgen".encode())],
    ids=["an ASCII file stays one", "another one holds letters"],
)
def test_letters_are_spelled_as_the_file_spells_them(run: Path, content: str, spelled: bytes) -> None:
    put(run, content)
    JsonCreationFiles().append_override(str(run), ENTRY)
    assert b'"operator": "' + spelled + b'"' in file_of(run).read_bytes()
    assert JsonCreationFiles().read(str(run)).creation.overrides[0].operator == "Jürgen"


def test_a_lone_surrogate_in_an_override_is_written_as_an_escape(run: Path) -> None:
    put(run, SAMPLE.replace("asmith", "Jörg"))
    JsonCreationFiles().append_override(str(run), ENTRY | {"reason": "\udcff"})
    assert JsonCreationFiles().read(str(run)).creation.overrides[0].reason == "\udcff"


def test_appending_the_same_override_again_changes_nothing(run: Path) -> None:
    put(run, SAMPLE)
    first = JsonCreationFiles().append_override(str(run), ENTRY)
    assert JsonCreationFiles().append_override(str(run), ENTRY) == first
    assert len(JsonCreationFiles().read(str(run)).creation.overrides) == 1


def test_an_entry_is_never_changed_by_appending_another_with_its_id(run: Path) -> None:
    put(run, SAMPLE)
    JsonCreationFiles().append_override(str(run), ENTRY)
    before = text_of(run)
    with pytest.raises(CreationFileError, match="never changed"):
        JsonCreationFiles().append_override(str(run), ENTRY | {"reason": "another"})
    assert text_of(run) == before


@pytest.mark.parametrize("entry", [{}, {"id": ""}, {"id": None}, {"id": 5}])
def test_an_override_without_an_id_is_our_mistake(run: Path, entry: dict[str, Any]) -> None:
    put(run, SAMPLE)
    with pytest.raises(ValueError, match="id"):
        JsonCreationFiles().append_override(str(run), entry)


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o644])
def test_the_permission_bits_are_kept(run: Path, mode: int) -> None:
    put(run, SAMPLE)
    file_of(run).chmod(mode)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert stat.S_IMODE(file_of(run).stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept_so_that_people_can_go_on_editing(run: Path) -> None:
    put(run, SAMPLE)
    os.chown(file_of(run), 12345, 23456)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    status = file_of(run).stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


ACL = "system.posix_acl_access"
OWNER, USER, GROUP, MASK, OTHER, NOBODY = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return the bytes of a POSIX ACL: (tag, rights, id) each. Source: acl(5), <linux/posix_acl_xattr.h>."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# The group may read only: the mask, which `stat` shows as the group's bits, belongs to the named user.
WIZARD_MAY_WRITE = acl((OWNER, 6, NOBODY), (USER, 6, 4711), (GROUP, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY))


def mark(path: Path, name: str, value: bytes) -> None:
    """Set an extended attribute, where the file system has such."""
    if not hasattr(os, "setxattr"):
        pytest.skip("there are no extended attributes here")
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"this file system keeps no {name}: {error}")


def test_an_access_list_and_extended_attributes_are_kept(run: Path) -> None:
    put(run, SAMPLE)
    mark(file_of(run), ACL, WIZARD_MAY_WRITE)
    mark(file_of(run), "user.lims.id", b"PROJ-0042\0\xff")
    mark(file_of(run), "user.empty", b"")
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "synced")
    assert os.getxattr(file_of(run), ACL) == WIZARD_MAY_WRITE, "the named user may still write, the group still may not"
    assert os.getxattr(file_of(run), "user.lims.id") == b"PROJ-0042\0\xff"
    assert os.getxattr(file_of(run), "user.empty") == b""
    assert stat.S_IMODE(file_of(run).stat().st_mode) == 0o660
    assert said == []


def test_rights_that_the_folder_gives_to_new_files_do_not_come_onto_one_that_had_none_of_them(run: Path) -> None:
    put(run, SAMPLE)
    file_of(run).chmod(0o640)
    mark(run / ".exlab-wizard", "system.posix_acl_default", WIZARD_MAY_WRITE)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert ACL not in os.listxattr(file_of(run))
    assert stat.S_IMODE(file_of(run).stat().st_mode) == 0o640


def test_an_access_list_that_cannot_be_kept_gives_nobody_more_than_before_and_is_said_once(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    mark(file_of(run), ACL, WIZARD_MAY_WRITE)
    mark(file_of(run), "user.lims", b"1")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    said: list[str] = []
    files = JsonCreationFiles(tell=said.append)
    files.set_sync_status(str(run), "synced")
    mode = stat.S_IMODE(file_of(run).stat().st_mode)
    assert mode == 0o640, "what the mask allowed to the named user is not allowed to the group"
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert len(said) == 1
    assert "creation.json" in said[0]
    assert "access list (ACL)" in said[0]
    assert "user.lims" in said[0]
    monkeypatch.undo()
    mark(file_of(run), ACL, WIZARD_MAY_WRITE)
    mark(file_of(run), "user.lims", b"1")
    monkeypatch.setattr(os, "setxattr", refuse)
    files.set_sync_status(str(run), "pending")
    assert len(said) == 1, "once for one reason"


@pytest.mark.parametrize("call", ["listxattr", "getxattr"])
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EACCES, errno.EIO])
def test_attributes_that_cannot_be_asked_for_never_lose_the_write(
    run: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    put(run, SAMPLE)
    mark(file_of(run), "user.lims", b"1")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, "refused")

    monkeypatch.setattr(os, call, refuse)
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert len(said) == (0 if (call, code) == ("listxattr", errno.EOPNOTSUPP) else 1), "having none is nothing to say"


def test_where_the_platform_has_no_extended_attributes_a_write_goes_on_without(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    for call in ("listxattr", "getxattr", "setxattr", "removexattr"):
        monkeypatch.delattr(os, call, raising=False)
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert said == []


def test_an_owner_that_cannot_be_kept_is_said_and_the_write_is_made(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    if os.geteuid() == 0:
        os.chown(file_of(run), 12345, 23456)
    else:
        pytest.skip("only root has files that belong to others here")

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "fchown", refuse)
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert len(said) == 1
    assert "owner 12345" in said[0]
    assert "group 23456" in said[0]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has files that belong to others here"
)
@pytest.mark.parametrize("has_list", [False, True])
def test_a_group_that_cannot_be_kept_gives_its_rights_to_no_other_group(
    run: Path, monkeypatch: pytest.MonkeyPatch, has_list: bool
) -> None:
    put(run, SAMPLE)
    file_of(run).chmod(0o664)
    if has_list:
        list_ = acl((OWNER, 6, NOBODY), (USER, 6, 4711), (GROUP, 6, NOBODY), (MASK, 6, NOBODY), (OTHER, 4, NOBODY))
        mark(file_of(run), ACL, list_)
    os.chown(file_of(run), -1, 23456)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "fchown", refuse)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    status = file_of(run).stat()
    assert status.st_gid != 23456
    if has_list:
        assert os.getxattr(file_of(run), ACL) == acl(
            (OWNER, 6, NOBODY), (USER, 6, 4711), (GROUP, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 4, NOBODY)
        )
    else:
        assert stat.S_IMODE(status.st_mode) == 0o644


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("folder_mode", "mode"), [(0o755, 0o644), (0o2775, 0o664), (0o777, 0o666)])
def test_who_may_write_into_the_folder_can_take_the_lock_that_we_made_and_nobody_else(
    run: Path, folder_mode: int, mode: int
) -> None:
    put(run, SAMPLE)
    (run / ".exlab-wizard").chmod(folder_mode)
    os.chown(run / ".exlab-wizard", 12345, 23456)
    before = os.umask(0o077)
    try:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    finally:
        os.umask(before)
    status = (run / ".exlab-wizard" / "creation.json.lock").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 12345, 23456)


@pytest.mark.parametrize("other", ["asmith", "1.50", "8c7e", "caf"])
def test_a_splice_that_would_change_anything_else_is_never_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    put(run, SAMPLE)
    real = json_text.splice
    monkeypatch.setattr(json_text, "splice", lambda text, edits: real(text, edits).replace(other, other[:-1] + "9"))
    with pytest.raises(SpliceDefectError):
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE


def test_a_splice_that_changes_nothing_is_never_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    monkeypatch.setattr(json_text, "splice", lambda text, edits: text)
    with pytest.raises(SpliceDefectError):
        JsonCreationFiles().set_sync_status(str(run), "synced")


def test_a_splice_that_would_change_the_order_of_keys_is_never_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, '{"schema_version": "1.8", "x": {"a": 1, "b": 2}}')
    real = json_text.splice
    monkeypatch.setattr(
        json_text, "splice", lambda text, edits: real(text, edits).replace('"a": 1, "b": 2', '"b": 2, "a": 1')
    )
    with pytest.raises(SpliceDefectError):
        JsonCreationFiles().set_sync_status(str(run), "synced")


# Changing any document -----------------------------------------------------------------------------------------------


@contextmanager
def made_run(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, RUN_NAME)
        (run / ".exlab-wizard").mkdir(parents=True)
        put(run, content)
        yield run


@dataclass(frozen=True)
class Hole:
    """A place at which a change is expected; `old` is what stands there before."""

    name: str
    old: str = ""


@dataclass(frozen=True)
class Number:
    spelled: str


NUMBERS = st.sampled_from(["0", "-0", "1.50", "1e400", "-1E-5", "100000000000000000000000001", "9" * 400]).map(Number)
STRINGS = st.text(max_size=8) | st.sampled_from(["{", '"]', "\\", "sync_status", "é😀", "\ud800", "\u2028", "a\tb\n"])
KEYS = STRINGS | st.sampled_from(["id", "sync_status", "validation_overrides", "schema_version"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


class Writer:
    """Writes a document in one of many styles, as a list of literal texts and holes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._indent = random.choice([None, "  ", "    ", "\t", ""])
        self._newline = random.choice(["\n", "\r\n"])
        self._colon = random.choice([": ", ":", " : "])
        self._comma = random.choice([", ", ","])
        self._is_ascii = random.random() < 0.5
        self._is_untidy = random.random() < 0.3

    def string(self, value: str) -> str:
        if self._is_ascii or any("\ud800" <= c <= "\udfff" for c in value):
            return json.dumps(value)
        if self._random.random() < 0.2:
            return '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 0x10000 else c for c in value) + '"'
        return json.dumps(value, ensure_ascii=False)

    def break_(self, level: int) -> str:
        if self._is_untidy:
            return self._random.choice(["", " ", "\n", "\r\n\t", "\n\n  "])
        return "" if self._indent is None else self._newline + self._indent * level

    def value(self, value: Any, level: int = 0) -> str:
        if isinstance(value, Number):
            return value.spelled
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, list):
            return old_text(self.join([[self.value(item, level + 1)] for item in value], "[]", level))
        if isinstance(value, dict):
            pairs = [[self.key(key) + self.value(item, level + 1)] for key, item in value.items()]
            return old_text(self.join(pairs, "{}", level))
        return json.dumps(value)

    def key(self, name: str) -> str:
        return self.string(name) + self._colon

    def join(self, elements: Sequence[Sequence[str | Hole]], brackets: str, level: int) -> list[str | Hole]:
        """Return the elements with commas and white space; adjacent texts become one."""
        parts: list[str | Hole] = [brackets[0]]
        for index, element in enumerate(elements):
            if index:
                parts.append("," if self._indent is not None or self._is_untidy else self._comma)
            parts += [self.break_(level + 1), *element]
        if brackets == "{}" and level == 0:
            parts.append(Hole("end"))
        parts += [self.break_(level) if elements else "", brackets[1]]
        merged: list[str | Hole] = []
        for part in parts:
            if isinstance(part, str) and merged and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        return merged

    def overrides(self, entries: Sequence[dict[str, Any]]) -> list[str | Hole]:
        if not entries:
            return [Hole("overrides", "[" + self._random.choice(["", " ", "\n"]) + "]")]
        spelled: list[list[str | Hole]] = []
        for index, entry in enumerate(entries):
            text = self.value(entry, 2)
            if "id" in entry:
                spelled.append([text])
            else:
                first = re.match(r"\{[ \t\r\n]*", text)
                assert first is not None
                spelled.append([first[0], Hole(f"id{index}"), text[first.end() :]])
        spelled[-1] = [*spelled[-1], Hole("append")]
        return self.join(spelled, "[]", 1)


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"problem_class": STRINGS, "id": st.sampled_from(["a", "b"]), "note": VALUES, "é": NUMBERS},
    ),
    max_size=3,
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[str | Hole], list[dict[str, Any]] | None]:
    writer = Writer(draw(st.randoms(use_true_random=False)))
    others = draw(st.dictionaries(STRINGS, VALUES, max_size=4))
    for known in ("schema_version", "sync_status", "validation_overrides", "level", "run_kind", "paths"):
        others.pop(known, None)
    members: list[list[str | Hole]] = [[writer.key(key) + writer.value(value, 1)] for key, value in others.items()]
    version = draw(st.sampled_from(["1.0", "1.4", "1.8", "1.12"]))
    members.append([writer.key("schema_version"), Hole("version", f'"{version}"')])
    if draw(st.booleans()):
        members.append([writer.key("sync_status"), Hole("status", '"pending"')])
    entries = draw(st.none() | ENTRIES)
    if entries is not None:
        members.append([writer.key("validation_overrides"), *writer.overrides(entries)])
    members = draw(st.permutations(members))
    bom = draw(st.sampled_from(["", "\ufeff"]))
    return [bom, *writer.join(members, "{}", 0), draw(st.sampled_from(["", "\n", "\r\n\r\n "]))], entries


def old_text(parts: Sequence[str | Hole]) -> str:
    return "".join(part.old if isinstance(part, Hole) else part for part in parts)


def holes_of(parts: Sequence[str | Hole], text: str, changed: str) -> dict[str, str]:
    """Return what stands now in the hole `changed` and in those of the ids.

    Everything else is checked to stand there to the letter, the version being the one that any write leaves.
    """

    def pattern(part: str | Hole) -> str:
        if isinstance(part, str):
            return re.escape(part)
        if part.name == changed or part.name.startswith("id"):
            return f"(?P<{part.name}>.*?)"
        return re.escape('"1.8"' if part.old in ('"1.0"', '"1.4"') else part.old)

    match = re.fullmatch("".join(map(pattern, parts)), text, re.DOTALL)
    assert match is not None, f"something else changed:\n{old_text(parts)!r}\n{text!r}"
    holes = match.groupdict()
    for name in holes:
        if name.startswith("id"):
            assert member_in(holes[name]) == {"id": "given"}
    return holes


def member_in(inserted: str) -> Any:
    """Return the one member that was inserted, with its comma before or behind it."""
    return loaded("{" + inserted.strip(", \t\r\n") + "}")


def plain(value: Any) -> Any:
    """Return a value in which the order of keys and the spelling of numbers count in a comparison."""
    if isinstance(value, dict):
        return ("object", [(key, plain(item)) for key, item in value.items()])
    return [plain(item) for item in value] if isinstance(value, list) else (type(value).__name__, value)


def loaded(text: str) -> Any:
    return json.loads(text.removeprefix("\ufeff"), parse_int=Number, parse_float=Number)


@given(documents())
@settings(max_examples=250, deadline=None)
def test_a_status_written_to_any_document_leaves_all_else_as_it_stands(
    document: tuple[list[str | Hole], list[dict[str, Any]] | None],
) -> None:
    parts, _ = document
    with made_run(old_text(parts).encode()) as run:
        JsonCreationFiles(new_id=lambda: "given").set_sync_status(str(run), "synced")
        text = text_of(run)
    if any(isinstance(part, Hole) and part.name == "status" for part in parts):
        assert holes_of(parts, text, "status")["status"] == '"synced"'
    else:
        assert member_in(holes_of(parts, text, "end")["end"]) == {"sync_status": "synced"}
    before, after = loaded(old_text(parts)), loaded(text)
    assert list(after) == [*before, "sync_status"] if "sync_status" not in before else list(after) == list(before)


@given(documents(), st.dictionaries(st.sampled_from(["operator", "reason", "x"]), STRINGS))
@settings(max_examples=250, deadline=None)
def test_an_override_appended_to_any_document_leaves_all_else_as_it_stands(
    document: tuple[list[str | Hole], list[dict[str, Any]] | None], more: dict[str, str]
) -> None:
    parts, entries = document
    entry = {"id": "new", "problem_class": "orphan"} | more
    with made_run(old_text(parts).encode()) as run:
        JsonCreationFiles(new_id=lambda: "given").append_override(str(run), entry)
        text = text_of(run)
    if entries is None:
        assert member_in(holes_of(parts, text, "end")["end"]) == {"validation_overrides": [entry]}
    elif not entries:
        assert loaded(holes_of(parts, text, "overrides")["overrides"]) == [entry]
    else:
        assert loaded(holes_of(parts, text, "append")["append"].lstrip(", \t\r\n")) == entry
    before, after = loaded(old_text(parts)), loaded(text)
    kept = [{"id": "given"} | known if "id" not in known else known for known in before.get("validation_overrides", [])]
    assert plain(after["validation_overrides"]) == plain([*kept, entry])
    for tree in (before, after):
        tree.pop("validation_overrides", None)
        tree.pop("schema_version")
    assert plain(before) == plain(after)


# Stops, other programs -----------------------------------------------------------------------------------------------


def test_a_replace_that_fails_leaves_the_old_file_and_no_temporary_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(renaming, "_rename", fail)
    with pytest.raises(CreationFileError, match="No space left") as caught:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert caught.value.code == "unwritable"
    assert text_of(run) == SAMPLE
    assert names_in(run) == {"creation.json", "creation.json.lock"}


def test_a_folder_in_which_nothing_can_be_made_is_said(run: Path) -> None:
    put(run, SAMPLE)
    (run / ".exlab-wizard" / "creation.json.lock").mkdir()
    with pytest.raises(CreationFileError, match="cannot be locked") as caught:
        JsonCreationFiles(lock_wait_s=0.2).set_sync_status(str(run), "synced")
    assert caught.value.code == "unwritable"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_stop_at_any_system_call_leaves_the_old_or_the_new_file_whole(
    run: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    new = SAMPLE.replace('"pending"', '"synced"')
    outcomes: list[str] = []
    for stop_at in range(1, 200):
        put(run, SAMPLE)
        if not _dies_at_call(stop_at, run):
            break
        outcomes.append(text_of(run))
        assert outcomes[-1] in (SAMPLE, new)
    else:
        pytest.fail("the write never came to its end")
    assert outcomes.index(new) > 5, "the stops covered the steps before the replace"
    assert outcomes[-1] == new
    put(run, SAMPLE)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert names_in(run) == {"creation.json", "creation.json.lock"}, "what a stop left is gone after the next write"


def _dies_at_call(stop_at: int, run: Path) -> bool:
    """Write in a child that ends without any clean-up before its n-th system call; return whether it came that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def stopping(real: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == stop_at:
                    os._exit(9)
                return real(*args, **kwargs)

            return call

        for name in ("open", "write", "fsync", "close", "replace", "unlink", "fchmod", "fchown"):
            setattr(os, name, stopping(getattr(os, name)))
        vars(renaming)["_rename"] = stopping(renaming._rename)
        try:
            JsonCreationFiles().set_sync_status(str(run), "synced")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9


def test_a_leftover_of_a_stop_is_removed_and_nothing_else(run: Path) -> None:
    put(run, SAMPLE)
    kept = {".creation.json.swp", ".other.0123456789abcdef.tmp", "creation.json.bak", "readme_fields.json"}
    for name in {*kept, ".creation.json.0123456789abcdef.tmp"}:
        (run / ".exlab-wizard" / name).write_text("x")
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert names_in(run) == kept | {"creation.json", "creation.json.lock"}


@pytest.mark.parametrize("how", ["in place", "by rename"])
def test_an_edit_by_hand_while_we_write_is_not_lost(run: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    put(run, SAMPLE)
    edited = SAMPLE.replace('"validation_overrides": []', '"validation_overrides": [{"id": "h"}]')
    saves = [edited]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if saves and how == "in place":
            put(run, saves.pop())
        elif saves:
            (run / "editor").write_text(saves.pop())
            os.replace(run / "editor", file_of(run))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == edited.replace('"pending"', '"synced"')
    assert names_in(run) == {"creation.json", "creation.json.lock"}


@pytest.fixture
def exchanging(run: Path) -> None:
    """This file system can let two names change places."""
    for name in ("a", "b"):
        (run / name).touch()
    try:
        renaming.exchange(Folder(str(run)), "a", "b")
    except renaming.CannotRenameSoError as error:
        pytest.skip(str(error))


def at_each_rename(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, ... in the very last moment before a name changes, when no look comes any more."""
    done = 0
    replace, rename = os.replace, renaming._rename

    def before(call: Callable[..., None]) -> Callable[..., None]:
        def acting(*args: Any, **kwargs: Any) -> None:
            nonlocal done
            done += 1
            act(done)
            call(*args, **kwargs)

        return acting

    monkeypatch.setattr(os, "replace", before(replace))
    monkeypatch.setattr(renaming, "_rename", before(rename))


def saved_by_rename(run: Path, text: str) -> None:
    (run / "editor").write_text(text)
    os.rename(run / "editor", file_of(run))


REVOKED = SAMPLE.replace(
    '"validation_overrides": []', '"validation_overrides": [{"id": "h", "revokes": "x", "revoked": true}]'
)


@pytest.mark.usefixtures("exchanging")
@pytest.mark.parametrize("save", [put, saved_by_rename])
def test_a_save_in_the_last_moment_before_the_replace_is_put_back_and_written_again_with_ours(
    run: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path, str], None]
) -> None:
    put(run, SAMPLE)
    at_each_rename(monkeypatch, lambda nth: save(run, REVOKED) if nth == 1 else None)
    saved = JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == REVOKED.replace('"pending"', '"synced"')
    assert saved.after == JsonCreationFiles().read(str(run)).signature
    assert names_in(run) == {"creation.json", "creation.json.lock"}


@pytest.mark.usefixtures("exchanging")
def test_rights_that_were_changed_in_the_last_moment_are_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    at_each_rename(monkeypatch, lambda nth: file_of(run).chmod(0o600) if nth == 1 else None)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert stat.S_IMODE(file_of(run).stat().st_mode) == 0o600
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')


@pytest.mark.usefixtures("exchanging")
def test_a_text_made_for_a_file_that_was_saved_in_the_last_moment_is_not_placed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    files = JsonCreationFiles()
    text = files.text_with_status(str(run), "synced")
    at_each_rename(monkeypatch, lambda nth: saved_by_rename(run, REVOKED) if nth == 1 else None)
    with pytest.raises(CreationFileError) as caught:
        files.put_text(str(run), text)
    assert caught.value.code == "changed"
    assert text_of(run) == REVOKED
    assert names_in(run) == {"creation.json", "creation.json.lock"}


@pytest.mark.usefixtures("exchanging")
def test_a_save_that_is_half_done_at_the_replace_is_put_back_and_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    with open(file_of(run), "r+") as editor:
        at_each_rename(monkeypatch, lambda nth: os.ftruncate(editor.fileno(), 0) if nth == 1 else None)
        with pytest.raises(CreationFileError) as caught:
            JsonCreationFiles().set_sync_status(str(run), "synced")
        assert caught.value.code == "invalid_json"
        editor.write(REVOKED)
    assert text_of(run) == REVOKED, "the editor wrote into the very file that has the name"


@pytest.mark.usefixtures("exchanging")
def test_of_two_saves_the_later_has_the_name_and_the_earlier_is_kept_beside(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    later = SAMPLE.replace("asmith", "bjones")
    saves = {1: REVOKED, 2: later}
    at_each_rename(monkeypatch, lambda nth: saved_by_rename(run, saves[nth]) if nth in saves else None)
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "synced")
    assert text_of(run) == later.replace('"pending"', '"synced"')
    kept = names_in(run) - {"creation.json", "creation.json.lock"}
    assert len(kept) == 1
    name = kept.pop()
    assert (run / ".exlab-wizard" / name).read_text() == REVOKED
    assert len(said) == 1
    assert name in said[0]


@pytest.mark.usefixtures("exchanging")
def test_a_file_that_was_removed_while_a_save_was_given_back_has_that_save(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    steps = {1: lambda: saved_by_rename(run, REVOKED), 2: lambda: file_of(run).unlink()}
    at_each_rename(monkeypatch, lambda nth: steps[nth]() if nth in steps else None)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == REVOKED.replace('"pending"', '"synced"')


@pytest.mark.usefixtures("exchanging")
def test_a_file_that_was_removed_in_the_last_moment_is_not_brought_back(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    at_each_rename(monkeypatch, lambda nth: file_of(run).unlink() if nth == 1 else None)
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert caught.value.code == "missing"
    assert names_in(run) == {"creation.json.lock"}


@pytest.mark.usefixtures("exchanging")
def test_a_save_that_cannot_be_given_back_is_kept_beside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)

    def act(nth: int) -> None:
        if nth == 1:
            saved_by_rename(run, REVOKED)
        if nth == 2:
            raise OSError(errno.EIO, "Input/output error")

    at_each_rename(monkeypatch, act)
    said: list[str] = []
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles(tell=said.append).set_sync_status(str(run), "synced")
    assert caught.value.code == "unwritable"
    kept = names_in(run) - {"creation.json", "creation.json.lock"}
    assert [(run / ".exlab-wizard" / name).read_text() for name in kept] == [REVOKED]
    assert kept.pop() in said[0]
    assert json.loads(text_of(run))["sync_status"] == "synced"


@pytest.mark.usefixtures("exchanging")
def test_a_save_that_can_neither_be_given_back_nor_kept_beside_is_not_removed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)

    def act(nth: int) -> None:
        if nth == 1:
            saved_by_rename(run, REVOKED)
        else:
            raise OSError(errno.EIO, "Input/output error")

    at_each_rename(monkeypatch, act)
    monkeypatch.setattr(Folder, "move", lambda *_: act(2))
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert caught.value.code == "unwritable"
    left = names_in(run) - {"creation.json", "creation.json.lock"}
    assert [(run / ".exlab-wizard" / name).read_text() for name in left] == [REVOKED]
    monkeypatch.undo()
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "failed")
    assert len(said) == 1, "the next write finds it"


def test_where_names_cannot_change_places_the_file_is_replaced_as_before(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert names_in(run) == {"creation.json", "creation.json.lock"}


def test_a_file_system_that_takes_an_exchange_for_a_plain_rename_does_no_harm(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(run, SAMPLE)
    monkeypatch.setattr(renaming, "_rename", lambda here, source, there, target, _: here.move(source, there, target))
    JsonCreationFiles().set_sync_status(str(run), "synced")
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert names_in(run) == {"creation.json", "creation.json.lock"}


@pytest.mark.usefixtures("exchanging")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_right_after_the_exchange_a_whole_file_is_there_and_a_save_that_came_out_is_found_again(
    run: Path,
) -> None:
    put(run, SAMPLE)
    if (child := os.fork()) == 0:
        rename = renaming._rename

        def die(*args: Any) -> None:
            saved_by_rename(run, REVOKED)
            rename(*args)
            os._exit(9)

        vars(renaming)["_rename"] = die
        try:
            JsonCreationFiles().set_sync_status(str(run), "synced")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert text_of(run) == SAMPLE.replace('"pending"', '"synced"')
    assert len(names_in(run)) == 3
    assert [file.path for file in DiskRunTree().cache_files(str(run))] == [".exlab-wizard/creation.json"], "not pushed"
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "failed")
    kept = names_in(run) - {"creation.json", "creation.json.lock"}
    assert [(run / ".exlab-wizard" / name).read_text() for name in kept] == [REVOKED]
    assert kept.pop() in said[0]


def test_what_a_stop_left_of_the_agents_own_texts_is_removed_without_a_word(run: Path) -> None:
    put(run, SAMPLE.replace('"pending"', '"synced"'))
    for number, text in enumerate([SAMPLE, SAMPLE.replace('"pending"', '"failed"'), SAMPLE[:200], "", "[]"]):
        (run / ".exlab-wizard" / f".creation.json.{number:016x}.tmp").write_text(text)
    said: list[str] = []
    JsonCreationFiles(tell=said.append).set_sync_status(str(run), "failed")
    assert names_in(run) == {"creation.json", "creation.json.lock"}
    assert said == []


def test_a_half_saved_file_met_while_writing_is_left_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        put(run, SAMPLE[:100])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert caught.value.code == "invalid_json"
    assert text_of(run) == SAMPLE[:100]


def test_a_file_that_is_saved_again_and_again_is_given_up_for_now(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        put(run, text_of(run) + "\n")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CreationFileError, match="each time") as caught:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert caught.value.code == "locked"


def test_a_file_removed_while_we_write_is_not_brought_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(run, SAMPLE)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        file_of(run).unlink(missing_ok=True)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CreationFileError) as caught:
        JsonCreationFiles().set_sync_status(str(run), "synced")
    assert caught.value.code == "missing"
    assert names_in(run) == {"creation.json.lock"}


HOLD_LOCK = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_held_by_another_program_is_waited_for_and_then_said(run: Path) -> None:
    put(run, SAMPLE)
    lock = run / ".exlab-wizard" / "creation.json.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        impatient = JsonCreationFiles(lock_wait_s=0.3)
        with pytest.raises(CreationFileError, match=r"locked by another program for 0\.3 s") as caught:
            impatient.set_sync_status(str(run), "synced")
        assert caught.value.code == "locked"
        if lock_holder(Folder(str(lock.parent)), lock.name):
            assert f"pid {holder.pid} (" in str(caught.value)
            assert "or end that program" in str(caught.value)
        assert text_of(run) == SAMPLE
        assert impatient.read(str(run)).creation.sync_status == "pending", "reading needs no lock"
        holder.stdin.close()
        JsonCreationFiles(lock_wait_s=30).set_sync_status(str(run), "synced")
        assert holder.wait(30) == 0


APPEND = """
import sys
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
files = JsonCreationFiles(lock_wait_s=60)
for number in range(50):
    files.append_override(sys.argv[1], {"id": f"{sys.argv[2]}-{number}", "problem_class": "orphan"})
"""


def test_of_overrides_appended_by_two_processes_at_once_none_is_lost(run: Path) -> None:
    put(run, SAMPLE)
    package_root = Path(creation_file.__file__).parents[2]
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(run), name], cwd=package_root) for name in ("one", "two")
    ]
    assert [writer.wait(100) for writer in writers] == [0, 0]
    ids = [entry.id for entry in JsonCreationFiles().read(str(run)).creation.overrides]
    assert len(ids) == 100
    for name in ("one", "two"):
        assert [i for i in ids if i is not None and i.startswith(name)] == [f"{name}-{n}" for n in range(50)]
    assert names_in(run) == {"creation.json", "creation.json.lock"}
