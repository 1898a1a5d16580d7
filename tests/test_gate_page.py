"""docs/gate.md has every rule of the gate in its tier; each example is made on a disk and found, with the words given there."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.core.completeness import parse_expected
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import Finding, Rule, Tier, evaluate, is_markdown, orphan
from exlab_watch_agent.core.inventory import OddEntry, OddKind
from exlab_watch_agent.core.run_problems import NOT_OVERRIDDEN

PAGE = (Path(__file__).parent.parent / "docs" / "gate.md").read_text(encoding="utf-8")
CODE = r"`([^`]+)`"
NOT_BY_THE_GATE = {Rule.ORPHAN, Rule.VERIFY_SKIPPED_OVERSIZE}


def section(title: str, text: str = PAGE) -> str:
    """Return what stands below a heading, down to the next one of its level or above."""
    marks = title.partition(" ")[0]
    below = text.partition(f"{title}\n")[2]
    return re.split(rf"(?m)^#{{1,{len(marks)}}} ", below)[0]


def rules_in(title: str) -> list[str]:
    return re.findall(r"(?m)^### `(\w+)`$", section(title))


def examples() -> list[tuple[Rule, str, str]]:
    """Return (rule, what is in the run, what is said) for each row of the page."""
    row = re.compile(r"(?m)^\| ([^|]*`[^|]*) \| (.+) \|$")
    return [(rule, found[1], found[2]) for rule in Rule for found in row.finditer(section(f"### `{rule}`"))]


def fine_ones() -> list[tuple[Rule, str]]:
    """Return (rule, what it does not find)."""
    found: list[tuple[Rule, str]] = []
    for rule in Rule:
        for text in re.findall(r"(?s)Fine: (.+?)\.\n", section(f"### `{rule}`")):
            for one in re.finditer(rf"{CODE}(?:\s+with\s+{CODE})?", text):
                name, content = one.groups()
                found.append((rule, f"`{name}` with `{content}`" if content else f"file `{name}`"))
    return found


class Scene:
    """One run on a disk, and what the gate finds in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.project, self.leaf = "PROJ-0042", "Run_2026-04-17T14-32"
        self._makes: list[Callable[[Path], object]] = []
        self._creation: dict[str, object] = {
            "schema_version": "1.9",
            "created_at": "2026-04-17T14:32:00Z",
            "created_by": "asmith",
            "level": "run",
            "run_kind": "experimental",
            "lims_project": {"uid": "8c7e", "short_id": "PROJ-0042", "name_at_creation": "Cortex"},
        }
        self._odd: tuple[OddEntry, ...] = ()

    def holds(self, what: str) -> Scene:
        """Take in one cell of the page: a word for what it is, and in code what it is called or says."""
        kind, names = what.partition("`")[0].strip(), re.findall(CODE, what)
        match kind, names:
            case "file" | "files", ["img_000.tif", "manifest.json"]:
                self._makes += [partial(put, "img_000.tif"), partial(put, "manifest.json", text=of_other_bytes())]
            case "file" | "files", _:
                self._makes += [partial(put, name) for name in names]
            case "folder", [name]:
                self._makes.append(lambda run: (run / name).mkdir())
            case "link", [name]:
                self._makes.append(partial(link, name))
            case "pipe", [name]:
                self._makes.append(lambda run: os.mkfifo(run / name))
            case "mount point", [name]:  # a real one needs root: tests/adapters/local has those
                self._odd = (OddEntry(name, OddKind.MOUNT_POINT),)
            case "project folder", [name]:
                self.project = name
            case "run folder", [name]:
                self.leaf = name
            case "", ["creation.json", "lims_project"]:
                del self._creation["lims_project"]
            case "", ["creation.json", members]:
                self._creation |= json.loads(f"{{{members}}}")
            case "", [name, text]:
                self._makes.append(partial(put, name, text=text.replace("⏎", "\n")))
            case _:
                pytest.fail(f"nobody knows how to make this: {what}")
        return self

    def findings(self) -> tuple[Finding, ...]:
        run = self._root / "CONFOCAL_01" / self.project / "Runs" / self.leaf
        (run / ".exlab-wizard").mkdir(parents=True)
        (run / ".exlab-wizard" / "creation.json").write_text(json.dumps(self._creation), encoding="utf-8")
        for make in self._makes:
            make(run)
        place = place_of(str(run), {"CONFOCAL_01": str(self._root / "CONFOCAL_01")})
        assert place is not None
        inventory = DiskRunTree().inventory(str(run))
        return evaluate(
            place=place,
            creation=JsonCreationFiles().read(str(run)).creation,
            inventory=replace(inventory, odd=inventory.odd + self._odd),
            markdown=[
                (entry.path, (run / entry.path).read_text(encoding="utf-8"))
                for entry in inventory.files
                if is_markdown(entry.path)
            ],
            declared_mismatches=mismatches(run),
        )


def put(name: str, run: Path, *, text: str = "x") -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(text, encoding="utf-8")


def link(name: str, run: Path) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).symlink_to("elsewhere")


def of_other_bytes() -> str:
    return json.dumps({"files": [{"path": "img_000.tif", "size": 1, "sha256": "0" * 64}]})


def mismatches(run: Path) -> list[str]:
    manifest = run / "manifest.json"
    if not manifest.exists():
        return []
    declared = {one.path: one.sha256 for one in parse_expected(manifest.read_bytes())}
    return [
        path for path, digest in declared.items() if hashlib.sha256((run / path).read_bytes()).hexdigest() != digest
    ]


def test_every_rule_is_on_the_page_in_its_tier_worst_first() -> None:
    assert rules_in("## Hard rules") == [rule.value for rule in Rule if rule.tier is Tier.HARD]
    assert rules_in("## Soft rules") == [rule.value for rule in Rule if rule.tier is Tier.SOFT]
    assert re.findall(r"(?m)^### `(\w+)`$", PAGE) == [rule.value for rule in Rule]


def test_every_rule_has_an_example_but_the_one_that_only_the_verify_finds() -> None:
    assert {rule for rule, _, _ in examples()} == set(Rule) - {Rule.VERIFY_SKIPPED_OVERSIZE}
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| in the ")]
    assert len(examples()) == len(rows)


@pytest.mark.parametrize(("rule", "what", "said"), [one for one in examples() if one[0] not in NOT_BY_THE_GATE])
def test_the_gate_finds_each_example_and_nothing_else(rule: Rule, what: str, said: str, tmp_path: Path) -> None:
    found = Scene(tmp_path).holds(what).findings()
    assert [(finding.rule, finding.rule_detail) for finding in found] == [(rule, said)]


@pytest.mark.parametrize(("rule", "what"), fine_ones())
def test_what_is_called_fine_is_fine(rule: Rule, what: str, tmp_path: Path) -> None:
    assert Scene(tmp_path).holds(what).findings() == (), rule


def test_the_names_of_each_list_of_fine_ones_are_fine_together(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    names = [what for rule, what in fine_ones() if rule is Rule.CASE_COLLISION]
    assert len(names) > 1
    for what in names:
        scene.holds(what)
    assert scene.findings() == ()


def test_an_orphan_is_told_as_the_page_says(tmp_path: Path) -> None:
    ((_, what, said),) = [one for one in examples() if one[0] is Rule.ORPHAN]
    (name,) = re.findall(CODE, what)
    place = place_of(str(tmp_path / "PROJ-0042" / "Runs" / name), {"CONFOCAL_01": str(tmp_path)})
    assert place is not None
    assert orphan(place).rule_detail == said


def test_the_rules_without_an_offered_override_are_the_first_ones_of_the_page() -> None:
    first = [Rule(name) for name in rules_in("## Hard rules")[: len(NOT_OVERRIDDEN)]]
    assert set(first) == NOT_OVERRIDDEN
    assert len(first) == 4, "the page says four"
    assert "first four rules" in PAGE
