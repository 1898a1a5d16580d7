"""What people read is true: commands and settings exist, sentences are the program's own, in words that people know."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from exlab_watch_agent.cli.main import app
from exlab_watch_agent.config.blocks import AgentBlock
from exlab_watch_agent.core.problem import PROGRAM, TIERS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exlab_watch_agent"
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("operator.md", "it.md", "gate.md")}

TELLING = [
    *(
        PACKAGE / "core" / f"{name}.py"
        for name in ("attention", "run_problems", "ways_out", "gate", "notes", "claim", "reconcile")
    ),
    *sorted((PACKAGE / "cli").glob("*.py")),
    *(PACKAGE / "report" / name for name in ("problems.py", "status.py")),
    PACKAGE / "app" / "checks.py",
]
OF_THE_HOUSE = re.compile(
    r"\b(lanes?|effects? of|errands?|slots?|records?|claim|claimed|claims|adopt(ed)?|fingerprint|inventory|digests?|far side|"
    r"snapshot|tombstone|trigger|nonce|generation|projection|commit|engine|worker|queue)\b"
)


def commands_on(text: str) -> Iterator[list[str]]:
    """Yield each command of ours in code, as words, without what a shell makes of its end."""
    code = re.findall(r"(?m)^ *((?:sudo|/opt|\*/15|out=).*|exlab-watch-agent .*)$", text) + re.findall(
        r"`([^`\n]+)`", text
    )
    for line in code:
        found = re.search(rf"{PROGRAM} ([a-z][^>|)]*)", line)
        if found is not None and not found[1].startswith("status --config"):
            yield shlex.split(found[1].replace('"$@" 2', ""))


def command_named(words: list[str]) -> tuple[TyperCommand, list[str]]:
    """Return what the first words name, and the words after it."""
    found = typer.main.get_command(app)
    while isinstance(found, TyperGroup):
        assert words[0] in found.commands, words
        found, words = found.commands[words[0]], words[1:]
    assert isinstance(found, TyperCommand)
    return found, words


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_one_with_these_options(page: str) -> None:
    named = list(commands_on(PAGES[page]))
    assert len(named) >= 3
    for words in named:
        command, rest = command_named(words)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_every_setting_on_a_page_is_one() -> None:
    named = {name for page in PAGES.values() for name in re.findall(r"`agent\.(\w+)", page)}
    assert named
    assert named <= set(AgentBlock.model_fields)


def test_every_code_of_a_problem_on_a_page_is_one() -> None:
    named = {name for page in PAGES.values() for name in re.findall(r"\(`(\w+_\w+)`\)", page)}
    assert named
    assert named <= set(TIERS)


# --- the sentences of operator.md ------------------------------------------------------------------------------------


def sentences_in(path: Path) -> list[str]:
    """Return the texts of a module, each hole of an f-string as `\\0`; docstrings are none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare | inside:
            found.append(node.value)
    return found


def parts_of(text: str) -> list[str]:
    """Return what of a text is always the same; a stop at its end may go where the sentence goes on."""
    return [part for part in re.split(r"\0|\{\w+\}", text.removesuffix(".")) if part]


@cache
def long_texts() -> list[list[str]]:
    """Return all texts of the program of which enough is always the same, in their parts."""
    texts = [parts_of(text) for path in PACKAGE.rglob("*.py") for text in sentences_in(path)]
    return [parts for parts in texts if sum(map(len, parts)) >= SAME_CHARS_MIN]


SAME_CHARS_MIN = 16
QUOTED = re.findall(r"(?m)^\*\*\d+\. .+?```text\n(.+?)\n```", PAGES["operator.md"], re.DOTALL)


def test_the_page_has_ten_sentences() -> None:
    assert len(QUOTED) == 10


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_sentence_is_one_of_the_program_s(quoted: str) -> None:
    """A whole text of the program is in it: all that is the same in every sentence made of that text."""
    assert any(all(part in quoted for part in parts) for parts in long_texts())


def test_no_word_of_the_house_is_in_a_sentence_that_people_see() -> None:
    for path in TELLING:
        for text in sentences_in(path):
            if " " in text.strip() and (found := OF_THE_HOUSE.search(text)):
                pytest.fail(f"{path.relative_to(ROOT)} says {found[0]!r} in {text!r}")


def test_the_words_that_people_meet_are_words_of_the_house_page() -> None:
    page = (ROOT / "docs" / "words.md").read_text(encoding="utf-8")
    allowed = page.partition("**What people at the instrument meet.**")[2].partition("The rest belongs")[0]
    assert not OF_THE_HOUSE.search(allowed)
