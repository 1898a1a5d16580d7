"""When a run is complete, and what is said of one that is not yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.completeness import (
    Completeness,
    DeclaredFile,
    ExpectedFilesError,
    judge,
    parse_expected,
)
from exlab_watch_agent.core.inventory import FileEntry, Inventory, OddEntry, OddKind
from exlab_watch_agent.core.policy import CompletenessSignal, EquipmentPolicy, MountedPathTarget

SENTINEL = "acquisition_complete.flag"
LIST = "manifest.json"
HASH = "AB" * 32


def equipment(signal: CompletenessSignal) -> EquipmentPolicy:
    return EquipmentPolicy("EQ", "", "/data", MountedPathTarget("/nas"), signal, SENTINEL, LIST)


def inventory(
    files: Mapping[str, int], odd: Iterable[tuple[str, OddKind]] = (), directories: tuple[str, ...] = ()
) -> Inventory:
    entries = tuple(FileEntry(path, size, mtime_ns=1) for path, size in sorted(files.items()))
    return Inventory(entries, directories, tuple(OddEntry(path, kind) for path, kind in odd))


def by_sentinel(files: Mapping[str, int], *, quiet_s: float = 30, settle_s: float = 30) -> Completeness:
    policy = equipment(CompletenessSignal.SENTINEL_FILE)
    return judge(policy=policy, inventory=inventory(files), manifest=None, quiet_s=quiet_s, settle_s=settle_s)


def by_list(files: Mapping[str, int], document: object, *, quiet_s: float = 30) -> Completeness:
    """Judge a run that holds `files` and the list `document` (JSON, or bytes as they are)."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = inventory({**files, LIST: len(data)})
    policy = equipment(CompletenessSignal.MANIFEST)
    return judge(policy=policy, inventory=found, manifest=data, quiet_s=quiet_s, settle_s=30)


def test_a_run_with_its_sentinel_and_data_is_complete_once_it_was_quiet_long_enough() -> None:
    assert by_sentinel({SENTINEL: 0, "a.tif": 1}) == Completeness(is_complete=True)


@pytest.mark.parametrize(
    ("files", "quiet_s", "reason"),
    [
        ({"a.tif": 1}, 99, "acquisition_complete.flag is not there yet"),
        ({"a.tif": 1, f"raw/{SENTINEL}": 0}, 99, "acquisition_complete.flag is not there yet"),
        ({"a.tif": 1, SENTINEL.upper(): 0}, 99, "acquisition_complete.flag is not there yet"),
        ({}, 0, "acquisition_complete.flag is not there yet"),
        ({SENTINEL: 0}, 0, "no data files yet"),
        ({SENTINEL: 7}, 99, "no data files yet"),
        ({SENTINEL: 0, "a.tif": 1}, 12.9, "quiet for 12 of 30 s"),
        ({SENTINEL: 0, "a.tif": 1}, 29.999, "quiet for 29 of 30 s"),
        ({SENTINEL: 0, "a.tif": 1}, -5.0, "quiet for 0 of 30 s"),
    ],
)
def test_what_is_missing_is_said_in_the_order_signal_data_quiet(
    files: dict[str, int], quiet_s: float, reason: str
) -> None:
    assert by_sentinel(files, quiet_s=quiet_s) == Completeness(is_complete=False, reason=reason)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (inventory({"a.tif": 1}, [(SENTINEL, OddKind.SYMLINK)]), "a link or a special file"),
        (inventory({"a.tif": 1}, [(SENTINEL, OddKind.SPECIAL)]), "a link or a special file"),
        (inventory({"a.tif": 1}, directories=(SENTINEL,)), "a folder"),
    ],
)
def test_a_signal_that_is_no_regular_file_does_not_count(found: Inventory, reason: str) -> None:
    for signal, name in ((CompletenessSignal.SENTINEL_FILE, SENTINEL), (CompletenessSignal.MANIFEST, SENTINEL)):
        policy = EquipmentPolicy("EQ", "", "/data", MountedPathTarget("/nas"), signal, SENTINEL, name)
        judged = judge(policy=policy, inventory=found, manifest=b"{}", quiet_s=30, settle_s=30)
        assert judged.reason == f"{SENTINEL} is {reason}, and only a regular file counts"


def test_a_signal_is_never_looked_for_below_the_run_folder() -> None:
    policy = EquipmentPolicy("EQ", "", "/data", MountedPathTarget("/nas"), CompletenessSignal.SENTINEL_FILE, "raw/done")
    found = inventory({"raw/done": 0, "a.tif": 1})
    assert not judge(policy=policy, inventory=found, manifest=None, quiet_s=30, settle_s=30).is_complete


def test_a_half_second_of_settling_is_shown_as_such() -> None:
    judged = by_sentinel({SENTINEL: 0, "a.tif": 1}, quiet_s=0.2, settle_s=0.5)
    assert judged.reason == "quiet for 0 of 0.5 s"


def test_under_creation_json_any_data_file_will_do_even_one_named_like_another_signal() -> None:
    policy = equipment(CompletenessSignal.CREATION_JSON)
    for files, is_complete in (({SENTINEL: 0}, True), ({LIST: 2}, True), ({"a": 0}, True), ({}, False)):
        judged = judge(policy=policy, inventory=inventory(files), manifest=None, quiet_s=30, settle_s=30)
        assert judged.is_complete is is_complete
        assert judged.reason == ("" if is_complete else "no data files yet")


@pytest.mark.parametrize(
    "document",
    [
        {"files": [{"path": "raw/a.tif", "size": 10, "sha256": HASH}, {"path": "b", "size": 0}], "version": 3},
        {"files": [{"path": "raw\\a.tif", "size": 10, "sha256": HASH.lower()}, {"path": "./b", "size": 0}]},
    ],
)
def test_a_list_whose_every_line_holds_makes_the_run_complete_and_is_handed_on(document: object) -> None:
    declared = (DeclaredFile("raw/a.tif", 10, HASH.lower()), DeclaredFile("b", 0))
    assert by_list({"raw/a.tif": 10, "b": 0, "more": 5}, document) == Completeness(True, "", declared)


def test_a_plain_mapping_of_paths_to_sizes_is_a_list_too_even_with_a_file_called_files() -> None:
    judged = by_list({"raw/a.tif": 10, "files": 3}, {"raw/a.tif": 10, "files": 3})
    assert judged == Completeness(True, "", (DeclaredFile("raw/a.tif", 10), DeclaredFile("files", 3)))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"raw/a.tif": 4, "b": 0}, "1 of 2 files listed in manifest.json are missing or have another size, "
         "first: raw/a.tif (expected 10 bytes, found 4)"),
        ({"raw/a.tif": 4}, "2 of 2 files listed in manifest.json are missing or have another size, "
         "first: raw/a.tif (expected 10 bytes, found 4)"),
        ({"raw/a.tif": 10}, "1 of 2 files listed in manifest.json are missing or have another size, "
         "first: b (expected 0 bytes, not there)"),
        ({"raw/a.tif": 11, "b": 0}, "1 of 2 files listed in manifest.json are missing or have another size, "
         "first: raw/a.tif (expected 10 bytes, found 11)"),
    ],
)  # fmt: skip
def test_a_marker_that_arrives_before_its_data_waits_and_names_the_first_file(
    files: dict[str, int], reason: str
) -> None:
    judged = by_list(files, {"raw/a.tif": 10, "b": 0}, quiet_s=0)
    assert judged.reason == reason
    assert [entry.path for entry in judged.declared] == ["raw/a.tif", "b"]


@pytest.mark.parametrize(
    "document",
    [{}, {"files": []}, {LIST: 3}, {".exlab-wizard/creation.json": 5}, {"files": [], "note": "later"}],
)
def test_a_list_without_data_files_is_not_complete(document: object) -> None:
    assert by_list({"a": 1}, document).reason == "manifest.json lists no files yet"


def test_a_list_that_names_only_what_is_there_still_needs_quiet() -> None:
    assert by_list({"a": 1}, {"a": 1}, quiet_s=1).reason == "quiet for 1 of 30 s"


def test_what_a_list_says_of_itself_does_not_matter() -> None:
    document = {"files": [{"path": LIST, "size": 1, "sha256": HASH}, {"path": "a", "size": 1}]}
    assert by_list({"a": 1}, document) == Completeness(True, "", (DeclaredFile("a", 1),))


@pytest.mark.parametrize("end", range(1, 60, 7))
def test_a_half_written_list_is_a_wait_with_a_reason(end: int) -> None:
    half = json.dumps({"files": [{"path": "a", "size": 1}, {"path": "b", "size": 1}]}).encode()[:end]
    judged = by_list({"a": 1, "b": 1}, half)
    assert judged.reason == "manifest.json cannot be used yet: it is not valid JSON, or not yet wholly written"
    assert not judged.is_complete


@pytest.mark.parametrize(("data", "found"), [(None, 0), (b'{"a": 1}', 8)])
def test_a_list_that_was_read_short_is_not_believed(data: bytes | None, found: int) -> None:
    policy = equipment(CompletenessSignal.MANIFEST)
    there = inventory({"a": 1, LIST: 9})
    judged = judge(policy=policy, inventory=there, manifest=data, quiet_s=30, settle_s=30)
    assert judged.reason == f"manifest.json could not be read whole yet ({found} of 9 bytes)"


def test_bytes_of_a_list_that_is_not_in_the_run_are_not_believed() -> None:
    policy = equipment(CompletenessSignal.MANIFEST)
    judged = judge(policy=policy, inventory=inventory({"a": 1}), manifest=b'{"a": 1}', quiet_s=30, settle_s=30)
    assert judged.reason == "manifest.json is not there yet"


DEEP = b'{"files": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
SHAPE = "not an object with a"


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\xfd", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (DEEP, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[]", "must be"),
        (b"3", "must be"),
        (b"null", "must be"),
        (b'{"files": [3]}', "entry 1"),
        (b'{"files": [{"path": "a", "size": 1}, {"size": 1}]}', "entry 2"),
        (b'{"files": [{"path": 3, "size": 1}]}', SHAPE),
        (b'{"files": [{"path": "a"}]}', "size of a "),
        (b'{"files": {"a": 1}}', "size of files "),
        (b'{"a": -1}', "size of a "),
        (b'{"a": true}', "size of a "),
        (b'{"a": 1.0}', "size of a "),
        (b'{"a": NaN}', "size of a "),
        (b'{"a": Infinity}', "size of a "),
        (b'{"a": "1"}', "size of a "),
        (b'{"a": null}', "size of a "),
        (b'{"a": 9223372036854775808}', "size of a "),
        (b'{"": 1}', "'' is not a file's path"),
        (b'{".": 1}', ". is not a file's path"),
        (b'{"/etc/passwd": 1}', "/etc/passwd is not a file's path"),
        (b'{"../a": 1}', "../a is not a file's path"),
        (b'{"a/../b": 1}', "a/../b is not a file's path"),
        (b'{"a\\\\..\\\\b": 1}', "is not a file's path"),
        (b'{"\\\\\\\\nas\\\\a": 1}', "is not a file's path"),
        (b'{"C:\\\\a": 1}', "is not a file's path"),
        (b'{"c:a": 1}', "is not a file's path"),
        (b'{"a/": 1}', "a/ is not a file's path"),
        (b'{"a//b": 1}', "a//b is not a file's path"),
        (b'{"a\\u001b[2J": -1}', r"size of 'a\x1b[2J' "),
        (b'{"a\\ud800": -1}', r"size of 'a\ud800' "),
        (b'{"a": 1, "a": 2}', "a is listed twice"),
        (b'{"a/b": 1, "a\\\\b": 2}', "a/b is listed twice"),
        (b'{"files": [{"path": "a", "size": 1}, {"path": "a", "size": 2}]}', "a is listed twice"),
        (b'{"files": [{"path": "a", "size": 1, "sha256": ""}]}', "sha256 of a "),
        (b'{"files": [{"path": "a", "size": 1, "sha256": 5}]}', "sha256 of a "),
        (b'{"files": [{"path": "a", "size": 1, "sha256": "' + b"g" * 64 + b'"}]}', "sha256 of a "),
        (b'{"files": [{"path": "a", "size": 1, "sha256": "' + b"a" * 63 + b'"}]}', "sha256 of a "),
        (b'{"files": [{"path": "a", "size": 1, "sha256": "' + b"a" * 64 + b'\\n"}]}', "sha256 of a "),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_naming_the_entry(data: bytes, part: str) -> None:
    with pytest.raises(ExpectedFilesError) as caught:
        parse_expected(data)
    assert part in str(caught.value)
    assert not by_list({"a": 1}, data).is_complete


def test_two_different_hashes_of_one_file_are_refused() -> None:
    entries = [{"path": "a", "size": 1, "sha256": letter * 64} for letter in "ab"]
    with pytest.raises(ExpectedFilesError, match="a is listed twice"):
        parse_expected(json.dumps({"files": entries}).encode())


def test_a_file_that_is_listed_twice_alike_counts_once_and_keeps_its_hash() -> None:
    without, with_hash = {"path": "a", "size": 1}, {"path": "./a", "size": 1, "sha256": HASH}
    for entries in ([without, with_hash], [with_hash, without], [with_hash, with_hash]):
        listed = parse_expected(json.dumps({"files": entries}).encode())
        assert listed == (DeclaredFile("a", 1, HASH.lower()),)


def test_a_list_with_a_byte_order_mark_or_in_utf_16_is_read() -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        assert parse_expected('{"ä": 1}'.encode(encoding)) == (DeclaredFile("ä", 1),)


def test_an_error_about_an_endless_name_stays_one_sentence() -> None:
    with pytest.raises(ExpectedFilesError) as caught:
        parse_expected(json.dumps({"a" * 100_000: -1}).encode())
    assert len(str(caught.value)) < 300


def test_hidden_nesting_in_an_entry_ends_in_the_same_error_at_any_depth() -> None:
    for depth in range(1, 2000, 50):
        for data in (b'{"files": [{"path": %s}]}', b'{"a": %s}', b'{"a": %s, "a": %s}'):
            with pytest.raises(ExpectedFilesError):
                parse_expected(data.replace(b"%s", b"[" * depth + b"]" * depth))


NAMES = st.text("abcXYZ019 ._-ä", min_size=1, max_size=8).filter(lambda n: n.strip(".") and n != LIST)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join).filter(lambda p: not p.startswith(".exlab-wizard/"))
FILES = st.dictionaries(PATHS, st.integers(0, 2**40), min_size=1, max_size=8)


@given(FILES, FILES)
def test_more_files_never_make_a_run_incomplete_whose_list_holds(listed: dict[str, int], more: dict[str, int]) -> None:
    assert by_list(listed, listed).is_complete
    assert by_list({**more, **listed}, listed).is_complete


@given(FILES, st.data())
def test_one_listed_file_that_is_gone_or_of_another_size_is_enough_to_wait(
    listed: dict[str, int], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(listed)))
    size = data.draw(st.none() | st.integers(0, 2**40).filter(lambda other: other != listed[name]))
    found = {path: found for path, found in {**listed, name: size}.items() if found is not None}
    judged = by_list(found, listed)
    assert not judged.is_complete
    assert judged.reason.startswith(f"1 of {len(listed)} files")


@given(st.sampled_from(CompletenessSignal), FILES, st.floats(0, 1e6), st.floats(0, 1e6), st.booleans(), st.booleans())
def test_a_run_is_never_complete_before_it_was_quiet_and_says_why_exactly_when_it_is_not(
    signal: CompletenessSignal, files: dict[str, int], quiet_s: float, settle_s: float, has_flag: bool, has_list: bool
) -> None:
    data = json.dumps(files).encode() if has_list else None
    found = {**files, **({SENTINEL: 0} if has_flag else {}), **({LIST: len(data)} if data is not None else {})}
    judged = judge(
        policy=equipment(signal), inventory=inventory(found), manifest=data, quiet_s=quiet_s, settle_s=settle_s
    )
    assert judged.is_complete is (judged.reason == "")
    if quiet_s < settle_s:
        assert not judged.is_complete


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_the_reader_fail_otherwise_than_in_its_own_way(data: bytes) -> None:
    with suppress(ExpectedFilesError):
        assert isinstance(parse_expected(data), tuple)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["files", "path", "size", "sha256", "a", "../b", "c\\d"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_what_the_reader_accepts_lies_in_the_run_and_has_a_size(document: object) -> None:
    try:
        listed = parse_expected(json.dumps(document).encode())
    except ExpectedFilesError:
        return
    for entry in listed:
        assert not entry.path.startswith("/")
        assert "\\" not in entry.path
        assert not {"", ".", ".."} & set(entry.path.split("/"))
        assert type(entry.size_bytes) is int
        assert entry.size_bytes >= 0
