"""The gate: each rule on both sides of its boundary, where a finding points, and what it takes to get past it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core import gate
from exlab_watch_agent.core.creation import Creation, OverrideEntry, RunIdentity
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.gate import (
    Finding,
    OffendingKind,
    Rule,
    Tier,
    blocking,
    evaluate,
    explain,
    mark_overrides,
    orphan,
)
from exlab_watch_agent.core.inventory import FileEntry, Inventory, OddEntry, OddKind
from exlab_watch_agent.core.text import printable

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LEAF = "Run_2026-04-17T14-32"


def a_place(
    *, equipment: str = "CONFOCAL_01", project: str = "Cortex Q3 Pilot", parent: str = "Runs", leaf: str = LEAF
) -> RunPlace:
    return RunPlace(f"/data/lab/{equipment}/{project}/{parent}/{leaf}", equipment, project, parent, leaf)


def a_creation(*, run_kind: str = "experimental", schema_minor: int = 8, has_lims_project: bool = True) -> Creation:
    return Creation(
        schema_version=f"1.{schema_minor}",
        schema_minor=schema_minor,
        level="run",
        run_kind=run_kind,
        identity=RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", LEAF),
        has_lims_project=has_lims_project,
        project_name="Cortex Q3 Pilot",
        sync_status="pending",
    )


def an_inventory(*files: str, folders: tuple[str, ...] = (), odd: tuple[OddEntry, ...] = ()) -> Inventory:
    return Inventory(files=tuple(FileEntry(path, 1, 1) for path in files), directories=folders, odd=odd)


def findings_of(
    *files: str,
    folders: tuple[str, ...] = (),
    odd: tuple[OddEntry, ...] = (),
    place: RunPlace | None = None,
    creation: Creation | None = None,
    readme: str | None = None,
    mismatches: tuple[str, ...] = (),
) -> tuple[Finding, ...]:
    return evaluate(
        place=place or a_place(),
        creation=creation or a_creation(),
        inventory=an_inventory(*files, folders=folders, odd=odd),
        markdown=() if readme is None else [("README.md", readme)],
        declared_mismatches=mismatches,
    )


def rules_of(*files: str) -> list[str]:
    return [finding.rule.value for finding in findings_of(*files)]


def test_a_clean_run_has_no_findings() -> None:
    assert findings_of("data/stack 001.ome.tif", "README.md", ".hidden", folders=("data", "empty")) == ()


# --- Name rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("<sample>.tif", "<sample>"),
        ("img_<_x9>_<Date>.tif", "<_x9>"),
        ("<A>", "<A>"),
        ("<<date>>", "<date>"),
    ],
)
def test_a_placeholder_token_in_a_name_is_found(name: str, token: str) -> None:
    (finding,) = [f for f in findings_of(name) if f.rule is Rule.UNRESOLVED_PLACEHOLDER_TOKEN]
    assert finding.matched_token == token
    assert finding.tier is Tier.HARD


@pytest.mark.parametrize("name", ["<9a>", "<>", "<a b>", "<a-b>", "<é>", "a>b<c", "<a", "a>"])
def test_brackets_that_hold_no_identifier_are_illegal_characters_only(name: str) -> None:
    assert rules_of(name) == ["illegal_filesystem_character"]


def test_the_brackets_of_a_placeholder_are_reported_once_as_the_placeholder() -> None:
    assert rules_of("<sample>.tif") == ["unresolved_placeholder_token"]
    assert rules_of("<sample>?.tif") == ["illegal_filesystem_character", "unresolved_placeholder_token"]
    assert rules_of("a <x>") == ["unresolved_placeholder_token"]  # no trailing space appears where the token stood
    assert rules_of("<sample>>.tif") == ["illegal_filesystem_character", "unresolved_placeholder_token"]


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("{{ sample }}.tif", "{{ sample }}"),
        ("{{}}", "{{}}"),
        ("a{% if x %}b", "{% if x %}"),
        ("{%%}", "{%%}"),
        ("{{a}} {{b}}", "{{a}}"),
    ],
)
def test_a_jinja_marker_in_a_name_is_found(name: str, token: str) -> None:
    (finding,) = findings_of(name)
    assert (finding.rule, finding.tier, finding.matched_token) == (Rule.LEFTOVER_JINJA_MARKER, Tier.HARD, token)


@pytest.mark.parametrize("name", ["{{ a }", "{ a }", "{{ a", "a }}", "{% a }", "{% a %", "{# a #}", "{{a}b}", "50%}"])
def test_braces_that_close_no_marker_are_fine(name: str) -> None:
    assert rules_of(name) == []


@pytest.mark.parametrize(
    ("name", "token"),
    [
        *((f"a{character}b", character) for character in '<>:"\\|?*'),
        ("a\x00b", "\\x00"),
        ("a\x1fb", "\\x1f"),
        ("a\nb", "\\n"),
        ("\tb", "\\t"),
        ("a.", "."),
        ("a ", " "),
        ("a..", "."),
        ("a. ", " "),
        (" ", " "),
        ("a\udcff.tif", "\\udcff"),
        ("a\ud800", "\\ud800"),
        ("a\udfff", "\\udfff"),
    ],
)
def test_an_illegal_character_is_found(name: str, token: str) -> None:
    (finding,) = findings_of(f"data/{name}")
    assert (finding.rule, finding.tier) == (Rule.ILLEGAL_FILESYSTEM_CHARACTER, Tier.HARD)
    assert finding.matched_token == token


@pytest.mark.parametrize(
    "name",
    ["a b", "a.b", ".a", " a", "...a", "\x7f", "ä€😀", "a'b;c&d$e`f", "-rf", "(1)", "[2]", "#", "~", "％", "a,b"],
)
def test_a_character_that_every_share_can_hold_is_fine(name: str) -> None:
    assert rules_of(name) == []


def test_one_finding_tells_all_illegal_characters_of_a_name_up_to_three() -> None:
    (finding,) = findings_of("a?b:c?d*e|f")
    assert finding.matched_token == "?"
    assert '"?", ":", "*" and 1 more' in finding.rule_detail


DEVICES = ["CON", "PRN", "AUX", "NUL", *(f"{d}{n}" for d in ("COM", "LPT") for n in "123456789¹²³")]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", ["{}", "{}.txt", "{}.tar.gz", "{} .txt", "{}  .x"])
def test_a_device_name_is_reserved_in_any_case_with_or_without_extension(device: str, shape: str) -> None:
    for name in (device, device.lower(), device.capitalize()):
        (finding,) = findings_of(shape.format(name))
        assert (finding.rule, finding.tier) == (Rule.RESERVED_FILESYSTEM_NAME, Tier.HARD)
        assert finding.matched_token == name


@pytest.mark.parametrize(
    "name",
    ["CONF", "CON_1", "xCON", "CON-1.txt", "my.con", ".con", "COM", "COM0", "COM10", "LPT", "LPT⁴", "CON a", " CON"],
)
def test_a_name_that_only_resembles_a_device_is_fine(name: str) -> None:
    assert rules_of(name) == []


def test_a_name_can_break_two_rules_at_once() -> None:
    assert rules_of("con. ") == ["illegal_filesystem_character", "reserved_filesystem_name"]
    assert rules_of("{{ <x> }}") == ["leftover_jinja_marker", "unresolved_placeholder_token"]


# --- Where a finding points -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (a_place(equipment="CONFOCAL:1"), "CONFOCAL:1"),
        (a_place(project="A: B"), "CONFOCAL_01/A: B"),
        (a_place(project="back\\slash"), "CONFOCAL_01/back\\slash"),
        (a_place(leaf="Run_2026:04"), "CONFOCAL_01/Cortex Q3 Pilot/Runs/Run_2026:04"),
    ],
)
def test_a_segment_is_named_from_the_equipment_id_down(place: RunPlace, path: str) -> None:
    (finding,) = findings_of("a.tif", place=place)
    assert finding.rule is Rule.ILLEGAL_FILESYSTEM_CHARACTER
    assert finding.offending_path == path
    assert finding.offending_kind is OffendingKind.DIRECTORY_SEGMENT
    assert finding.run_path == place.run_path


@pytest.mark.parametrize(
    ("project", "rule"),
    [
        ("<project>", Rule.UNRESOLVED_PLACEHOLDER_TOKEN),
        ("{{ project }}", Rule.LEFTOVER_JINJA_MARKER),
        ("Aux", Rule.RESERVED_FILESYSTEM_NAME),
        ("Pilot ", Rule.ILLEGAL_FILESYSTEM_CHARACTER),
    ],
)
def test_every_name_rule_holds_for_segments_too(project: str, rule: Rule) -> None:
    assert [finding.rule for finding in findings_of("a.tif", place=a_place(project=project))] == [rule]


def test_a_bad_folder_name_is_reported_at_the_folder_and_not_again_below_it() -> None:
    found = findings_of("a/b?/c.tif", "a/b?/d/e.tif", folders=("a", "a/b?", "a/b?/d"))
    assert [(f.offending_path, f.offending_kind) for f in found] == [("a/b?", OffendingKind.DIRECTORY_SEGMENT)]


def test_the_same_bad_name_in_two_folders_is_two_findings() -> None:
    assert [f.offending_path for f in findings_of("a/x?", "b/x?")] == ["a/x?", "b/x?"]


def test_an_empty_folder_a_folder_known_by_its_content_only_and_a_link_are_names_too() -> None:
    odd = (OddEntry("l?", OddKind.SYMLINK),)
    found = findings_of("f?/a.tif", folders=("e?",), odd=odd)
    assert [(f.rule, f.offending_path) for f in found] == [
        (Rule.SYMLINK_IN_RUN, "l?"),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "e?"),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "f?"),
        (Rule.ILLEGAL_FILESYSTEM_CHARACTER, "l?"),
    ]


# --- Collisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A.tif", "a.tif"),
        ("STRASSE", "straße"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAF\u00c9", "cafe\u0301"),
        ("\u03a3", "\u03c2"),  # capital and final sigma
        ("\u00c5", "\u212b"),  # A with ring, and the sign for angstrom
        ("\u1e9b\u0323", "\u1e69"),
        ("K", "\u212a"),  # kelvin sign
    ],
)
def test_names_equal_but_for_case_or_unicode_form_collide(first: str, second: str) -> None:
    (finding,) = findings_of(f"d/{first}", f"d/{second}")
    earlier, later = sorted((first, second))
    assert (finding.rule, finding.tier, finding.offending_path) == (Rule.CASE_COLLISION, Tier.HARD, f"d/{later}")
    assert f"d/{earlier}" in finding.rule_detail


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.tif", "b.tif"), ("a", "a.tif"), ("cm2", "cm²"), ("e", "é"), ("ı", "i"), ("d/a", "e/A")],
)
def test_names_that_differ_otherwise_do_not_collide(first: str, second: str) -> None:
    assert rules_of(first, second) == []


def test_three_names_of_a_kind_are_two_findings_against_the_first() -> None:
    found = findings_of("a", "A", "Å", "å")
    assert [f.offending_path for f in found] == ["a", "å"]
    found = findings_of("ab", "Ab", "AB")
    assert [(f.offending_path, f.matched_token) for f in found] == [("Ab", "Ab"), ("ab", "ab")]
    assert all('"AB"' in f.rule_detail for f in found)


def test_colliding_folders_are_reported_and_what_is_in_them_is_not() -> None:
    found = findings_of("Data/a.tif", "data/A.tif", "data/a.tif2", folders=("Data", "data"))
    assert [(f.offending_path, f.offending_kind) for f in found] == [("data", OffendingKind.DIRECTORY_SEGMENT)]


def test_a_folder_and_a_file_or_a_link_collide_too() -> None:
    found = findings_of("DATA", folders=("data",), odd=(OddEntry("Data", OddKind.SYMLINK),))
    assert [f.offending_path for f in found if f.rule is Rule.CASE_COLLISION] == ["Data", "data"]


def test_a_second_spelling_of_the_cache_folder_collides_with_it() -> None:
    (finding,) = findings_of(".Exlab-Wizard/x", folders=(".Exlab-Wizard",))
    assert (finding.rule, finding.offending_path) == (Rule.CASE_COLLISION, ".Exlab-Wizard")
    assert rules_of("deeper/.Exlab-Wizard") == []


# --- Odd entries, run kind, required fields, declared hashes ----------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (OddKind.SYMLINK, Rule.SYMLINK_IN_RUN),
        (OddKind.SPECIAL, Rule.SPECIAL_FILE_IN_RUN),
        (OddKind.MOUNT_POINT, Rule.SPECIAL_FILE_IN_RUN),
    ],
)
def test_links_mount_points_and_special_files_are_hard_findings(kind: OddKind, rule: Rule) -> None:
    (finding,) = findings_of("a.tif", odd=(OddEntry("d/latest", kind),))
    assert (finding.rule, finding.tier, finding.offending_path) == (rule, Tier.HARD, "d/latest")
    assert (finding.offending_kind, finding.matched_token) == (OffendingKind.FILE_NAME, "latest")


@pytest.mark.parametrize("run_kind", ["experimental", "test", "Test", "", "pilot"])
@pytest.mark.parametrize("parent", ["Runs", "TestRuns", "runs", ""])
@pytest.mark.parametrize("prefix", ["Run_", "TestRun_", "run_", ""])
def test_run_kind_parent_folder_and_leaf_prefix_must_agree(run_kind: str, parent: str, prefix: str) -> None:
    place = a_place(parent=parent, leaf=f"{prefix}2026-04-17T14-32")
    found = findings_of("a.tif", place=place, creation=a_creation(run_kind=run_kind))
    if (run_kind, parent, prefix) in {("experimental", "Runs", "Run_"), ("test", "TestRuns", "TestRun_")}:
        assert found == ()
    else:
        (finding,) = found
        assert (finding.rule, finding.tier) == (Rule.MODE_PREFIX_MISMATCH, Tier.HARD)
        assert finding.matched_token == place.leaf
        assert f'"{run_kind}"' in finding.rule_detail


@pytest.mark.parametrize(
    ("schema_minor", "has_lims_project", "is_found"),
    [(0, False, False), (4, False, False), (5, False, True), (8, False, True), (9, False, True), (5, True, False)],
)
def test_lims_project_is_required_from_schema_1_5_on(schema_minor: int, has_lims_project: bool, is_found: bool) -> None:
    creation = a_creation(schema_minor=schema_minor, has_lims_project=has_lims_project)
    found = findings_of("a.tif", creation=creation)
    assert [(f.rule, f.tier) for f in found] == [(Rule.MISSING_REQUIRED_FIELD, Tier.SOFT)] * is_found


def test_each_file_whose_declared_hash_is_wrong_is_one_hard_finding_about_content() -> None:
    found = findings_of("d/a.tif", "b.tif", mismatches=("d/a.tif", "b.tif", "d/a.tif"))
    assert [(f.rule, f.tier, f.offending_path, f.offending_kind) for f in found] == [
        (Rule.MANIFEST_HASH_MISMATCH, Tier.HARD, "b.tif", OffendingKind.FILE_CONTENT),
        (Rule.MANIFEST_HASH_MISMATCH, Tier.HARD, "d/a.tif", OffendingKind.FILE_CONTENT),
    ]


def test_an_orphan_is_a_soft_finding_at_the_run_folder() -> None:
    finding = orphan(a_place())
    assert (finding.rule, finding.tier) == (Rule.ORPHAN, Tier.SOFT)
    assert finding.offending_path == f"CONFOCAL_01/Cortex Q3 Pilot/Runs/{LEAF}"


# --- Front matter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "readme",
    [
        None,
        "",
        "# Title\n<sample>\n",
        "\n---\na: [\n---\n",  # not the first line
        " ---\na: [\n---\n",
        "----\na: [\n---\n",
        "---\n---\n<sample>\n",
        "---\ntitle: x\n---\n<sample> {{ x }}\n---\na: [\n",
        "---\r\ntitle: x\r\n---\r\n<sample>\r\n",
        "\ufeff---\ntitle: x\n---\n",
        "---  \ntitle: x\n---\t\n",
        "---\ntitle: '{x} {{ x } {% x }'\n---",
        "---\nonly a title\n---\n",
        "---\nwhen: 2026-13-45\nn: !!int ''\nlimit: '<2 mM>'\n---\n",
    ],
)
def test_a_readme_with_good_or_no_front_matter_is_fine(readme: str | None) -> None:
    assert findings_of("README.md", readme=readme) == ()


@pytest.mark.parametrize(
    ("readme", "words"),
    [
        ("---\ntitle: x\n", "no closing line"),
        ("---", "no closing line"),
        ("---\ntitle: x\n ---\n", "no closing line"),
        ("---\ntitle: <sample>\n", "no closing line"),
        ("---\ntitle: x\nb: [\n---\n", "line 3"),
        ("---  \na: b: c\n---\t\n", "line 2"),
        ("---\r\na: b: c\r\n---\r\n", "line 2"),
        ("\ufeff---\na: *nowhere\n---\n", "line 2"),
        ("---\na: \x07\n---\n", "not YAML"),
        ("---\na: \udcff\n---\n", "not YAML"),
        ("---\na\n...\nb\n---\n", "not YAML"),
        ('---\n"\\UFFFFFFFF"\n---\n', "not YAML"),
        (f"---\n%YAML {'9' * 5000}.1\n---\n", "not YAML"),
        (f"---\n{'[' * 60_000}\n---\n", "not YAML"),
        (f"---\n{'- ' * 30_000}\n---\n", "not YAML"),
        (f"---\n#{'a' * gate.FRONT_MATTER_CHARS_MAX}\n---\n", "longer than"),
    ],
)
def test_malformed_front_matter_is_a_soft_finding(readme: str, words: str) -> None:
    (finding,) = findings_of("README.md", readme=readme)
    assert (finding.rule, finding.tier) == (Rule.MALFORMED_YAML_FRONT_MATTER, Tier.SOFT)
    assert (finding.offending_path, finding.offending_kind) == ("README.md", OffendingKind.FILE_CONTENT)
    assert words in finding.rule_detail


def test_front_matter_of_exactly_the_greatest_length_is_read() -> None:
    readme = f"---\n#{'a' * (gate.FRONT_MATTER_CHARS_MAX - 1)}\n---\n"
    assert findings_of("README.md", readme=readme) == ()


@pytest.mark.parametrize("line", ["title: <sample>", "title: [<sample>", "# <sample>", f"a: {'x' * 70_000}<sample>"])
def test_a_placeholder_in_front_matter_is_a_hard_finding_about_content(line: str) -> None:
    (finding,) = [f for f in findings_of("README.md", readme=f"---\n{line}\n---\n") if f.tier is Tier.HARD]
    assert (finding.rule, finding.matched_token) == (Rule.UNRESOLVED_PLACEHOLDER_TOKEN, "<sample>")
    assert (finding.offending_path, finding.offending_kind) == ("README.md", OffendingKind.FILE_CONTENT)


@pytest.mark.parametrize("marker", ["{{ label }}", "{{}}", "{%- if x -%}", "{{ a\n{{ b }}"])
@pytest.mark.parametrize("path", ["README.md", "notes/deep/Notes.MD"])
def test_a_template_marker_in_any_front_matter_is_a_hard_finding_about_content(marker: str, path: str) -> None:
    text = f"---\nlabel: '{marker}'\n---\n"
    found = evaluate(place=a_place(), creation=a_creation(), inventory=an_inventory(path), markdown=[(path, text)])
    (finding,) = [one for one in found if one.tier is Tier.HARD]
    assert (finding.rule, finding.matched_token) == (Rule.LEFTOVER_JINJA_MARKER, printable(marker))
    assert (finding.offending_path, finding.offending_kind) == (path, OffendingKind.FILE_CONTENT)
    assert path in finding.rule_detail


def test_each_file_has_its_own_findings() -> None:
    texts = [("a.md", "---\nx: <one>\n---\n"), ("b.md", "---\nx: [\n---\n"), ("c.md", "---\nx: <one>\n---\n")]
    found = evaluate(place=a_place(), creation=a_creation(), inventory=an_inventory("a.md"), markdown=iter(texts))
    assert [(one.rule.value, one.offending_path) for one in found] == [
        ("unresolved_placeholder_token", "a.md"),
        ("unresolved_placeholder_token", "c.md"),
        ("malformed_yaml_front_matter", "b.md"),
    ]


@given(st.text(alphabet=st.sampled_from("{}%a \n"), max_size=40))
def test_markers_are_found_in_content_where_they_would_be_found_in_a_name(text: str) -> None:
    assert bool(gate._jinja_markers(text)) == bool(gate._JINJA.search(text))


def test_front_matter_of_the_greatest_length_is_searched_in_no_time() -> None:
    # Searched by the pattern for names, these would take hours, and the test would not end.
    for piece in ("{{ ", "{{ }", "{% ", "<a", "}{"):
        text = "---\n" + piece * (gate.MARKDOWN_BYTES_MAX // len(piece)) + "\n---\n"
        assert [one for one in findings_of("README.md", readme=text) if one.tier is Tier.HARD] == []


@pytest.mark.parametrize(
    ("name", "is_one"), [("README.md", True), ("a/b.MD", True), ("a.mdx", False), ("md", False), ("a.md/b.txt", False)]
)
def test_markdown_is_known_by_its_name(name: str, is_one: bool) -> None:
    assert gate.is_markdown(name) == is_one


@pytest.mark.parametrize(
    ("beginning", "may"),
    [(b"---\nti", True), (b"\xef\xbb\xbf---", True), (b"--", False), (b"# Titl", False), (b"", False)],
)
def test_most_files_need_not_be_read_beyond_their_beginning(beginning: bytes, may: bool) -> None:
    assert gate.may_have_front_matter(beginning) == may


def test_nested_merge_keys_in_front_matter_do_not_multiply() -> None:
    # Loaded instead of composed, these thirty lines would ask for 10**30 pairs, and the test would not end.
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 30)]
    assert findings_of("README.md", readme="\n".join(["---", *lines, "---"])) == ()


@given(st.text(alphabet=st.sampled_from("-:[]{}&*!|>'\"%@`?#,\\ \t\r\nax0UN.<~=\ufeff\udcff\x85"), max_size=60))
def test_no_front_matter_makes_the_gate_raise(text: str) -> None:
    for finding in findings_of("README.md", readme=f"---\n{text}\n---\n"):
        finding.to_json()


# --- The verdict ------------------------------------------------------------------------------------------------------


def an_override(rule: str, *, expires_at: str | None = None) -> OverrideEntry:
    return OverrideEntry(index=0, id=rule, problem_class=rule, expires_at=expires_at)


def test_nothing_blocks_a_run_when_each_hard_class_is_overridden() -> None:
    found = findings_of("<x>", "a?", "b?", creation=a_creation(has_lims_project=False))
    placeholder, illegal = an_override("unresolved_placeholder_token"), an_override("illegal_filesystem_character")
    for overrides, left in [
        ([], ["a?", "b?", "<x>"]),
        ([placeholder], ["a?", "b?"]),
        ([illegal], ["<x>"]),
        ([placeholder, illegal], []),
        ([an_override("missing_required_field")], ["a?", "b?", "<x>"]),
        ([illegal, replace(placeholder, expires_at="2026-05-01T12:00:00Z")], ["<x>"]),
        ([illegal, placeholder, OverrideEntry(2, None, revokes="illegal_filesystem_character")], ["a?", "b?"]),
    ]:
        marked = mark_overrides(found, overrides, now=NOW)
        assert [f.offending_path for f in blocking(marked)] == left


def test_soft_findings_never_block_and_findings_without_marks_do() -> None:
    assert not blocking(findings_of("a.tif", creation=a_creation(has_lims_project=False)))
    assert blocking(findings_of("a?"))
    assert not blocking(())


def test_marks_are_set_anew_each_time() -> None:
    found = findings_of("a?")
    marked = mark_overrides(found, [an_override("illegal_filesystem_character")], now=NOW)
    assert [f.override_active for f in marked] == [True]
    assert mark_overrides(marked, [], now=NOW) == found


def test_the_explanation_names_the_worst_blocking_finding_and_how_many_more() -> None:
    found = findings_of("a?", "<x>", odd=(OddEntry("latest", OddKind.SYMLINK),), creation=a_creation(schema_minor=8))
    assert explain(tuple(reversed(found))) == (
        '"latest" is a link, which is never followed or copied: put what it points to in its place, or remove it '
        "(2 more blocking findings)"
    )
    marked = mark_overrides(
        found, [an_override("symlink_in_run"), an_override("unresolved_placeholder_token")], now=NOW
    )
    assert explain(marked) == ('The file name "a?" has "?" where Windows and SMB shares do not allow it: rename it')


def test_there_is_nothing_to_explain_where_nothing_blocks() -> None:
    assert explain(()) == ""
    assert explain(findings_of("a.tif", creation=a_creation(has_lims_project=False))) == ""


# --- Values -----------------------------------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_specification_with_their_tiers() -> None:
    assert {rule.value: rule.tier.value for rule in Rule} == {
        "unresolved_placeholder_token": "hard",
        "leftover_jinja_marker": "hard",
        "illegal_filesystem_character": "hard",
        "reserved_filesystem_name": "hard",
        "mode_prefix_mismatch": "hard",
        "symlink_in_run": "hard",
        "special_file_in_run": "hard",
        "manifest_hash_mismatch": "hard",
        "case_collision": "hard",
        "orphan": "soft",
        "missing_required_field": "soft",
        "malformed_yaml_front_matter": "soft",
        "verify_skipped_oversize": "soft",
    }
    tiers = [rule.tier for rule in Rule]
    assert tiers == sorted(tiers, key=[Tier.HARD, Tier.SOFT].index), "worst first"


def test_a_finding_becomes_json_with_every_field_and_plain_values() -> None:
    (finding,) = findings_of("d/a\udcff\x1b[31m\u202e.tif", place=a_place(project="A"))
    value = finding.to_json()
    assert list(value) == [field.name for field in fields(Finding)]
    assert {type(part) for part in value.values()} == {str, bool}
    assert value["offending_path"] == "d/a\\udcff\\x1b[31m\\u202e.tif"
    assert json.loads(json.dumps(value, ensure_ascii=False).encode()) == value


def test_a_run_path_that_is_not_unicode_is_kept_in_the_finding_and_escaped_in_its_json() -> None:
    (finding,) = findings_of("a.tif", place=a_place(project="P\udcff"))
    assert "\udcff" in finding.run_path
    assert "P\\udcff" in str(finding.to_json()["run_path"])
    explain([finding]).encode()


@pytest.mark.parametrize("text", ["", "plain", "ä € 😀", "back\\slash", "non\u00a0breaking", "می\u200cخواهم"])
def test_text_that_does_no_harm_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


# --- Laws -------------------------------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.text(st.sampled_from("aAéE\u0301ß<>{}%:?*\\. \x07\udcff_1conCON"), min_size=1, max_size=8),
    st.sampled_from(["<x>", "{{ a }}", "con", "aux.txt", "data", "Data", "README.md", ".exlab-wizard"]),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ODDS = st.builds(OddEntry, path=PATHS, kind=st.sampled_from(OddKind))


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    files = draw(st.lists(PATHS, max_size=8, unique=True))
    folders = draw(st.lists(PATHS.filter(lambda path: path not in files), max_size=4, unique=True))
    taken = {*files, *folders}
    odd = draw(st.lists(ODDS.filter(lambda entry: entry.path not in taken), max_size=2, unique_by=lambda e: e.path))
    return an_inventory(*files, folders=tuple(folders), odd=tuple(odd))


@given(inventories(), st.randoms(use_true_random=False))
def test_the_same_run_gives_the_same_findings_in_the_same_order(inventory: Inventory, rng: random.Random) -> None:
    files, folders, odd = list(inventory.files), list(inventory.directories), list(inventory.odd)
    for entries in (files, folders, odd):
        rng.shuffle(entries)
    shuffled = Inventory(files=tuple(files), directories=tuple(folders), odd=tuple(odd))
    one, other = (evaluate(place=a_place(), creation=a_creation(), inventory=each) for each in (inventory, shuffled))
    assert one == other
    assert len(set(one)) == len(one)


@given(inventories())
def test_every_finding_about_a_name_quotes_a_part_of_that_name_and_can_be_printed(inventory: Inventory) -> None:
    for finding in evaluate(place=a_place(), creation=a_creation(), inventory=inventory):
        assert finding.matched_token
        assert finding.matched_token in finding.offending_path.rpartition("/")[2]
        assert finding.rule_detail.endswith(".")
        for text in (finding.offending_path, finding.matched_token, finding.rule_detail):
            assert printable(text) == text
            text.encode()


@given(st.text(min_size=1, max_size=12))
@pytest.mark.parametrize(("rule", "tokens_of"), [(rule, tokens_of) for rule, tokens_of, _ in gate._NAME_RULES])
def test_the_quick_check_lets_no_bad_name_pass(rule: Rule, tokens_of: Callable[[str], list[str]], name: str) -> None:
    if tokens_of(name):
        assert gate._SUSPECT.search(name)


@given(inventories())
def test_there_is_a_collision_exactly_when_two_paths_are_one_to_a_caseless_nas(inventory: Inventory) -> None:
    paths = {path for path, _ in gate._entries(inventory)} | {".exlab-wizard"}
    distinct = {"/".join(gate.folded(name) for name in path.split("/")) for path in paths}
    found = evaluate(place=a_place(), creation=a_creation(), inventory=inventory)
    assert any(f.rule is Rule.CASE_COLLISION for f in found) == (len(distinct) < len(paths))


SAFE_NAMES = st.text(st.sampled_from("abcdefghij0123456789-_()"), min_size=4, max_size=20)


@given(st.lists(st.lists(SAFE_NAMES, min_size=1, max_size=3).map("/".join), unique=True))
def test_names_of_safe_characters_give_no_findings(paths: list[str]) -> None:
    assert findings_of(*paths) == ()
