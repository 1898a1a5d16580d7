"""What of a cache folder is due at the NAS after the seal."""

from __future__ import annotations

import hashlib

import pytest

from exlab_watch_agent.core.cache_copy import (
    digest_of,
    due,
    form_of,
    has_travelled,
    is_altered,
    is_of_others,
    makes_due,
    size_known,
)
from exlab_watch_agent.core.inventory import FileEntry

CREATION, LOG, CLAIM = (
    f".exlab-wizard/{name}" for name in ("creation.json", "wizard.pc.log", "exlab-watch-agent.json")
)
FIELDS = ".exlab-wizard/readme_fields.json"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CREATION, True),
        (FIELDS, True),
        (".exlab-wizard/ingest.json", True),
        (".exlab-wizard/templates/wizard.x.log", True),
        (".exlab-wizard/wizard.log.json", True),
        (LOG, False),
        (CLAIM, False),
        (".exlab-wizard/checksums.sha256", False),
        (".exlab-wizard/folders.txt", False),
    ],
)
def test_logs_and_what_a_seal_places_make_nothing_due(path: str, expected: bool) -> None:
    assert makes_due(path) is expected


def test_a_folder_has_travelled_only_in_the_very_form_that_it_has_now() -> None:
    digests = {CREATION: "a", FIELDS: "b"}
    form = form_of(digests)
    assert has_travelled(form, digests)
    assert has_travelled(form, {**digests, LOG: "c", CLAIM: "d"})
    assert not has_travelled("", {})
    for other in (
        {CREATION: "a"},
        {CREATION: "a", FIELDS: "c"},
        {**digests, ".exlab-wizard/n": "n"},
        {CREATION: "b", FIELDS: "a"},
    ):
        assert not has_travelled(form, other)


def test_due_is_what_the_agent_did_not_put_there() -> None:
    assert due({CREATION: "a", FIELDS: "b", LOG: "c"}, {CREATION: "a", FIELDS: "x", LOG: "y"}) == (FIELDS,)
    assert due({CREATION: "a", FIELDS: "b"}, {}) == (CREATION, FIELDS)


def test_what_others_wrote_is_neither_what_is_here_nor_what_the_agent_put_there() -> None:
    ours = hashlib.sha256(b"ours").hexdigest()
    assert is_of_others(b"theirs", here=b"new", placed=ours)
    assert is_of_others(b"theirs", here=None, placed="")
    assert not is_of_others(b"ours", here=b"new", placed=ours)
    assert not is_of_others(b"new", here=b"new", placed=ours)
    assert not is_of_others(None, here=b"new", placed=ours)


def test_a_file_that_is_too_large_to_be_read_is_known_by_size_and_time() -> None:
    entry = FileEntry(FIELDS, 7, 11)
    assert digest_of(entry, b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert digest_of(entry, None) == "7:11"


@pytest.mark.parametrize(
    ("there", "here", "is_so"),
    [
        (b"a", b"a", False),
        (b"a", None, False),
        (b"a", b"b", False),
        (b"b", b"b", False),
        (b"c", b"b", True),
        (None, b"a", True),
    ],
)
def test_a_file_of_the_copy_is_altered_where_it_is_neither_what_was_placed_nor_what_is_here(
    there: bytes | None, here: bytes | None, is_so: bool
) -> None:
    assert is_altered(there, here=here, placed=hashlib.sha256(b"a").hexdigest()) is is_so


def test_a_large_file_is_known_by_its_size() -> None:
    assert size_known("20000000:17") == 20_000_000
    assert size_known("a" * 64) is None
    assert size_known("x:17") is None
