"""House rules that a reader should not have to check by eye."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exlab_watch_agent"
MODULES = sorted(PACKAGE.rglob("*.py"))
CLOCKS = {("time", "sleep"), ("time", "time"), ("time", "monotonic"), ("datetime", "now"), ("datetime", "utcnow")}


def tracked() -> list[str]:
    """Return the repository's files, relative to it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


def called(path: Path) -> set[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "clock.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_clock_adapter_asks_for_the_time_or_sleeps(path: Path) -> None:
    assert not called(path) & CLOCKS


def test_nothing_waits_in_disguise() -> None:
    """A wait for an event that nobody can set is a pause: that is the clock's, which comes in by the constructor."""
    # Two are programs of their own, into which nothing of ours is imported; durable.py waits for Windows alone.
    allowed = {"clock.py", "metered_stream.py", "warden.py", "durable.py"}
    assert {path.name for path in MODULES if "Event().wait(" in path.read_text(encoding="utf-8")} <= allowed


def test_nothing_removes_a_tree_but_the_demo_its_own_folder() -> None:
    users = {path.name for path in MODULES if ("shutil", "rmtree") in called(path)}
    assert users <= {"demo.py"}


def test_no_program_is_called_through_a_shell() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                pytest.fail(f"{path} passes shell=")
        assert ("os", "system") not in called(path)


def test_only_one_module_of_the_command_line_prints() -> None:
    for path in MODULES:
        if path.parts[-2:] == ("cli", "saying.py"):
            continue
        names = [
            n.func.id
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        assert "print" not in names, path


def test_every_module_says_what_it_decides() -> None:
    silent = [p.name for p in MODULES if p.stat().st_size and not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


LINES_MAX = 400


def test_a_module_is_no_longer_than_a_reader_s_patience_or_says_why() -> None:
    long = {p: p.read_text(encoding="utf-8") for p in MODULES if p.read_bytes().count(b"\n") > LINES_MAX}
    unexplained = [
        p.name
        for p, text in long.items()
        if "onger than other modules" not in (ast.get_docstring(ast.parse(text)) or "")
    ]
    assert not unexplained


def test_the_chart_in_the_checkout_is_the_one_that_the_wheel_carries() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"statecharts/run_sync.yaml" = "exlab_watch_agent/statecharts/run_sync.yaml"' in text
    assert yaml.safe_load((ROOT / "statecharts" / "run_sync.yaml").read_text())["chart"] == "run_sync"


def test_the_script_that_checks_a_trail_is_one_file_which_the_wheel_carries() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"docs/verify_trail.py" = "exlab_watch_agent/docs/verify_trail.py"' in text
    assert [name for name in tracked() if name.endswith("verify_trail.py")] == ["docs/verify_trail.py"]


def test_no_file_of_the_repository_names_a_place_of_the_machine_it_was_made_on() -> None:
    listed = tracked()
    words = ("/" + "work/", "/" + "root/")
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".service", ""}:
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [word for word in words if word in text], name


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    names = set(re.findall(r"[\w./-]*\w\.(?:py|sh|md)\b", page.read_text(encoding="utf-8")))
    files = [f"/{file}" for file in tracked()]
    assert not [
        name for name in sorted(names) if not any(file.endswith(f"/{name.removeprefix('../')}") for file in files)
    ]


def test_every_fact_that_a_docstring_cites_is_a_heading() -> None:
    headings = tuple(re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "facts.md").read_text(encoding="utf-8")))
    for path in MODULES:
        for cited in " ".join(path.read_text(encoding="utf-8").split()).split("docs/facts.md, ")[1:]:
            assert cited.startswith(headings), path
