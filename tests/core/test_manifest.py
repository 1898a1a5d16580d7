"""The manifest's text, against the real `sha256sum` too, and the three-way comparison."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.completeness import DeclaredFile
from exlab_watch_agent.core.manifest import (
    Agreement,
    ManifestError,
    check_declared,
    compare,
    format_manifest,
    manifest_digest,
    parse_manifest,
    read_others_manifest,
)

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
HEX = st.sampled_from("0123456789abcdef")
DIGESTS = st.text(HEX, min_size=64, max_size=64)


def _is_name(name: bytes) -> bool:
    return name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name


# Names as a POSIX folder can hold them: any bytes, with a liking for those that need care.
RAW_NAMES = (
    st.binary(min_size=1, max_size=12)
    | st.text("\\\n\r -*#nr'\"ä😀a", min_size=1, max_size=6).map(str.encode)
    | st.sampled_from([b"-", b" ", b"*", b"SHA256 (x) = y", b"\\n", b"\\", b".exlab-wizard2"])
).filter(_is_name)
PATHS = (
    st.lists(RAW_NAMES, min_size=1, max_size=3)
    .filter(lambda names: names[0] != b".exlab-wizard")
    .map(lambda names: b"/".join(names).decode("utf-8", "surrogateescape"))
)
MANIFESTS = st.dictionaries(PATHS, DIGESTS, max_size=8)

ODD_NAMES = [
    "plain.tif",
    "raw/deep/a b.tif",
    "  leading and trailing  ",
    "*starred",
    "-",
    "raw/-",
    "--check",
    "#comment",
    "back\\slash",
    "\\",
    "back\\nslash-n",
    "new\nline",
    "carriage\rreturn",
    "ends with return\r",
    "all\\three\n\r",
    "quote'\"$(x)`",
    "ünïcode 😀",
    "not-utf8-\udcff\udc80",
    "SHA256 (x) = y",
    "tab\tand\x1bescape",
]


def test_a_manifest_is_two_spaces_posix_paths_and_sorted_by_bytes() -> None:
    text = format_manifest({"b/c": B, "b": A, "B": C, "ä": A, "b b": C})
    expected = f"{C}  B\n{A}  b\n{C}  b b\n{B}  b/c\n{A}  ä\n"
    assert text == expected.encode()


def test_names_that_would_break_a_line_are_escaped_as_coreutils_does() -> None:
    assert format_manifest({"a\\b\nc\rd": A, "plain": B, "x\udcff": C}) == (
        b"\\" + A.encode() + b"  a\\\\b\\nc\\rd\n" + B.encode() + b"  plain\n" + C.encode() + b"  x\xff\n"
    )


def test_an_empty_manifest_is_an_empty_text() -> None:
    assert format_manifest({}) == b""
    assert parse_manifest(b"") == {}


@given(MANIFESTS)
def test_what_is_written_is_read_back_whatever_the_names(digests: dict[str, str]) -> None:
    text = format_manifest(digests)
    assert parse_manifest(text) == digests
    assert text.count(b"\n") == len(digests)


@given(MANIFESTS, st.randoms(use_true_random=False))
def test_the_text_depends_on_the_content_alone(digests: dict[str, str], random: object) -> None:
    names = list(digests)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert format_manifest({name: digests[name] for name in names}) == format_manifest(digests)


@given(st.dictionaries(PATHS, DIGESTS, min_size=1, max_size=4), st.data())
def test_a_text_with_one_byte_changed_is_refused_or_is_the_text_of_another_content(
    digests: dict[str, str], data: st.DataObject
) -> None:
    text = bytearray(format_manifest(digests))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]) | st.just(text[place] ^ 32))
    try:
        found = parse_manifest(bytes(text))
    except ManifestError:
        return
    assert found != digests
    assert format_manifest(found) == bytes(text)


@given(st.dictionaries(PATHS, DIGESTS, min_size=1, max_size=4), st.data())
def test_a_text_that_was_cut_off_never_passes_for_the_whole(digests: dict[str, str], data: st.DataObject) -> None:
    text = format_manifest(digests)
    torn = text[: data.draw(st.integers(0, len(text) - 1))]
    if torn and not torn.endswith(b"\n"):
        with pytest.raises(ManifestError, match="cut off"):
            parse_manifest(torn)
    else:
        assert len(parse_manifest(torn)) < len(digests)


@given(st.binary(max_size=300) | st.from_regex(rb"(\\?[0-9a-f]{64}  [^\n]{0,9}\n){0,3}", fullmatch=True))
def test_no_bytes_make_the_reader_fail_otherwise_and_what_it_reads_is_written_alike(text: bytes) -> None:
    try:
        found = parse_manifest(text)
    except ManifestError:
        return
    assert format_manifest(found) == text


H = A.encode()


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (H + b"  a\n" + H + b"  a\n", 2, "twice"),
        (H + b"  b\n" + H + b"  a\n", 2, "out of order"),
        (H + b"  a\n" + H + b"  b", 2, "cut off"),
        (H + b"  a\r\n", 1, "two spaces"),
        (H + b"  a\n\n", 2, "two spaces"),
        (b"\n", 1, "two spaces"),
        (H + b" a\n", 1, "two spaces"),
        (H + b" *a\n", 1, "two spaces"),
        (H + b"  \n", 1, "two spaces"),
        (H + b"  a\0b\n", 1, "two spaces"),
        (H[:-1] + b"  a\n", 1, "two spaces"),
        (H.upper() + b"  a\n", 1, "two spaces"),
        (b"g" * 64 + b"  a\n", 1, "two spaces"),
        (b"# comment\n", 1, "two spaces"),
        (b"\xef\xbb\xbf" + H + b"  a\n", 1, "two spaces"),
        (H + b"  a\\\\b\n", 1, "escaped"),
        (b"\\" + H + b"  a\n", 1, "escaped"),
        (b"\\" + H + b"  a\\\n", 1, "escaped"),
        (b"\\" + H + b"  a\\tb\n", 1, "escaped"),
        (b"\\" + H + b"  a\\\\\\\n", 1, "escaped"),
        (H + b"  /a\n", 1, "does not name"),
        (H + b"  ../a\n", 1, "does not name"),
        (H + b"  a/../b\n", 1, "does not name"),
        (H + b"  ./a\n", 1, "does not name"),
        (H + b"  a/./b\n", 1, "does not name"),
        (H + b"  a//b\n", 1, "does not name"),
        (H + b"  a/\n", 1, "does not name"),
        (H + b"  ..\n", 1, "does not name"),
        (H + b"  -\n", 1, "does not name"),
        (H + b"  .exlab-wizard/creation.json\n", 1, "does not name"),
        (H + b"  a\n" + H + b"  .exlab-wizard\n", 2, "does not name"),
    ],
)
def test_anything_but_the_agents_own_text_is_refused_with_its_line(text: bytes, line: int, part: str) -> None:
    with pytest.raises(ManifestError, match=part) as caught:
        parse_manifest(text)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"line {line} of the manifest ")


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/a", "a/../b", "a//b", "a/", "./a", "a\0b", ".exlab-wizard/x", "lone\ud800", "\udcc3\udca9"],
)
def test_a_name_that_could_not_be_read_back_or_is_no_data_file_is_never_written(path: str) -> None:
    with pytest.raises(ManifestError) as caught:
        format_manifest({"fine": A, path: B})
    assert caught.value.line is None
    assert re.fullmatch(r"[ -~]+", str(caught.value)), "the sentence must be printable on any terminal"


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n", "a" * 65])
def test_a_digest_that_is_none_is_never_written(digest: str) -> None:
    with pytest.raises(ManifestError, match="the digest of 'x'"):
        format_manifest({"x": digest})


def test_sha256sum_accepts_the_manifest_of_real_files_with_odd_names(tmp_path: Path) -> None:
    digests = {}
    for name in ODD_NAMES:
        path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = b"content of " + os.fsencode(name)
        with open(path, "wb") as file:
            file.write(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    text = format_manifest(digests)
    assert parse_manifest(text) == digests
    cache = tmp_path / ".exlab-wizard"
    cache.mkdir()
    (cache / "checksums.sha256").write_bytes(text)
    check = ["sha256sum", "--check", "--strict", ".exlab-wizard/checksums.sha256"]
    done = subprocess.run(check, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b": OK\n") == len(ODD_NAMES)
    with open(os.fsencode(tmp_path) + b"/" + os.fsencode("new\nline"), "ab") as file:
        file.write(b"damage")
    done = subprocess.run(check, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout.count(b": FAILED\n") == 1


def test_sha256sum_writes_the_same_lines(tmp_path: Path) -> None:
    names = [name for name in ODD_NAMES if "/" not in name and name != "-"]
    for name in names:
        with open(os.fsencode(tmp_path) + b"/" + os.fsencode(name), "wb") as file:
            file.write(os.fsencode(name))
    ordered = sorted(os.fsencode(name) for name in names)
    done = subprocess.run(
        [b"sha256sum", b"--", *ordered],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert format_manifest({n: hashlib.sha256(os.fsencode(n)).hexdigest() for n in names}) == done.stdout


def test_the_digest_of_a_manifest_is_the_sha256_of_its_bytes() -> None:
    assert manifest_digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    text = format_manifest({"a": A})
    assert manifest_digest(text) == hashlib.sha256(text).hexdigest()


SEALED = {"a": A, "b": B}


@pytest.mark.parametrize(
    ("local", "remote", "agreement"),
    [
        ({"a": A, "b": B}, {"a": A, "b": B}, Agreement.EQUAL),
        ({"a": A, "b": B}, {"a": A, "b": C}, Agreement.REMOTE_DIFFERS),
        ({"a": A, "b": B}, {"a": A}, Agreement.REMOTE_DIFFERS),
        ({"a": A, "b": B}, {}, Agreement.REMOTE_DIFFERS),
        ({"a": A, "b": B}, {"a": B, "b": A}, Agreement.REMOTE_DIFFERS),
        ({"a": A, "b": B}, {"a": A, "b": ""}, Agreement.REMOTE_DIFFERS),
        ({"a": A, "b": B}, {"a": A, "b": B.upper()}, Agreement.REMOTE_DIFFERS),
        ({"a": A, "b": C}, {"a": A, "b": B}, Agreement.LOCAL_DIFFERS),
        ({"a": A, "b": B, "c": C}, {"a": A, "b": B}, Agreement.LOCAL_DIFFERS),
        ({"a": C}, {"a": A, "b": B}, Agreement.LOCAL_DIFFERS),
        ({"a": A, "c": C}, {"a": A, "b": B}, Agreement.LOCAL_DIFFERS),
        ({"a": A}, {"a": A, "b": B}, Agreement.LOCAL_GONE),
        ({}, {"a": A, "b": B}, Agreement.LOCAL_GONE),
        ({"a": A}, {"a": A}, Agreement.BOTH_DIFFER),
        ({}, {}, Agreement.BOTH_DIFFER),
        ({"a": A, "b": C}, {"a": A, "b": C}, Agreement.BOTH_DIFFER),
        ({"a": A, "b": C}, {"a": C, "b": B}, Agreement.BOTH_DIFFER),
        ({"a": A, "b": B, "c": C}, {"a": A}, Agreement.BOTH_DIFFER),
    ],
)
def test_local_and_remote_are_each_held_against_the_manifest(
    local: dict[str, str], remote: dict[str, str], agreement: Agreement
) -> None:
    assert compare(local=local, manifest=SEALED, remote=remote).agreement is agreement


@pytest.mark.parametrize(
    ("remote", "agreement"),
    [
        ({"a": A, "b": B}, Agreement.EQUAL),
        ({"a": A, "b": C}, Agreement.REMOTE_DIFFERS),
        ({"a": A}, Agreement.REMOTE_DIFFERS),
        ({}, Agreement.REMOTE_DIFFERS),
    ],
)
def test_before_there_is_a_manifest_the_local_files_are_what_must_be_there(
    remote: dict[str, str], agreement: Agreement
) -> None:
    assert compare(local=SEALED, manifest=None, remote=remote).agreement is agreement


@pytest.mark.parametrize("manifest", [None, {}])
@pytest.mark.parametrize("remote", [{}, {"a": A}])
def test_an_empty_manifest_verifies_nothing(manifest: dict[str, str] | None, remote: dict[str, str]) -> None:
    assert compare(local={}, manifest=manifest, remote=remote).agreement is Agreement.LOCAL_DIFFERS
    assert compare(local={"a": A}, manifest={}, remote=remote).agreement is Agreement.LOCAL_DIFFERS


@pytest.mark.parametrize("nothing", ["", "UNSUPPORTED", "A" * 64, "a" * 63])
def test_two_sides_that_agree_on_no_hash_at_all_are_not_equal(nothing: str) -> None:
    same = {"a": A, "b": nothing}
    for manifest in (None, same):
        compared = compare(local=same, manifest=manifest, remote=same)
        assert compared.agreement is Agreement.BOTH_DIFFER
        assert compared.remote_changed == compared.local_changed == ("b",)


def test_each_difference_is_named_in_order() -> None:
    manifest = dict.fromkeys(["same", "l2", "l1", "gone2", "gone1", "r2", "r1", "lost2", "lost1"], A)
    local = {**manifest, "l1": B, "l2": C, "new2": A, "new1": A}
    remote = {**manifest, "r1": B, "r2": C, "stray": A}
    for name in ("gone1", "gone2"):
        del local[name]
    for name in ("lost1", "lost2"):
        del remote[name]
    found = compare(local=local, manifest=manifest, remote=remote, remote_listing=["z", "same", "new1", "gone1", "y"])
    assert (found.local_changed, found.local_missing, found.local_added) == (
        ("l1", "l2"), ("gone1", "gone2"), ("new1", "new2"),
    )  # fmt: skip
    assert (found.remote_changed, found.remote_missing) == (("r1", "r2"), ("lost1", "lost2"))
    assert found.remote_extra == ("stray", "y", "z")


SIDES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([A, B]))


@given(SIDES, st.none() | SIDES, SIDES, st.lists(st.sampled_from("abcdxyz")))
def test_the_outcome_follows_from_the_named_differences_and_extras_have_no_part_in_it(
    local: dict[str, str], manifest: dict[str, str] | None, remote: dict[str, str], listing: list[str]
) -> None:
    found = compare(local=local, manifest=manifest, remote=remote, remote_listing=listing)
    plain = compare(local=local, manifest=manifest, remote=remote)
    assert found.agreement is plain.agreement
    expected = local if manifest is None else manifest
    required = {path: remote.get(path) for path in expected}
    is_remote_equal = required == expected
    is_equal = bool(expected) and local == expected and is_remote_equal
    assert (found.agreement is Agreement.EQUAL) is is_equal
    assert bool(found.remote_changed or found.remote_missing) is not is_remote_equal
    assert (found.agreement in {Agreement.REMOTE_DIFFERS, Agreement.BOTH_DIFFER}) is not is_remote_equal
    is_short_only = is_remote_equal and local.items() < expected.items()
    assert (found.agreement is Agreement.LOCAL_GONE) is is_short_only
    assert not set(found.remote_extra) & (local.keys() | expected.keys())


def test_hashes_given_by_the_instrument_must_be_the_verifiers_own() -> None:
    declared = [
        DeclaredFile("z", 1, A), DeclaredFile("wrong", 1, A), DeclaredFile("right", 1, B),
        DeclaredFile("no hash given", 1), DeclaredFile("not hashed here", 1, A),
    ]  # fmt: skip
    local = {"z": C, "wrong": B, "right": B, "no hash given": C, "other": A}
    assert check_declared(declared, local) == ("wrong", "z")


def test_a_manifest_of_others_is_read_in_any_order_with_one_blank_or_two_and_names_as_they_are() -> None:
    one, two = "1" * 64, "2" * 64
    text = (
        f"{two}  z.tif\n{one} a b.tif\n{one.upper()} *./deep/c.tif\r\n{one}  back\\slash\n\nno line\n{one}\n"
        f"{one}  twice\n{two}  twice\n{one}  same\n{one}  same\n{two}  last"
    )
    assert read_others_manifest(text.encode()) == {
        "z.tif": two, "a b.tif": one, "deep/c.tif": one, "back\\slash": one, "same": one, "last": two,
    }  # fmt: skip
    assert read_others_manifest(b"") == read_others_manifest(b"\xff\0") == {}
