"""What a template left in the front matter of Markdown keeps a run from being pushed, until somebody lets it through."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command
from tests.lab.lab import Lab


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("README.md", "---\nlabel: '{{ label }}'\n---\n", "leftover_jinja_marker"),
        ("notes.md", "---\nlabel: <label>\n---\n", "unresolved_placeholder_token"),
        ("protocols/deep/NOTES.MD", "\ufeff---\r\nlabel: <label>\r\n---\r\n", "unresolved_placeholder_token"),
        ("large.md", f"---\nlabel: <label>\n---\n{'x' * 6_000_000}", "unresolved_placeholder_token"),
    ],
    ids=["readme", "notes", "deep", "large"],
)
def test_a_marker_in_front_matter_blocks_the_run(lab: Lab, on: Command, name: str, text: str, rule: str) -> None:
    run = lab.new_run(files={name: text.encode(), "image.tif": b"1"})
    assert on("run", "--once").code == 3
    record = lab.record(run)
    assert (record["state"], record["last_error"]["kind"]) == ("blocked", rule)
    assert name in record["last_error"]["message"]
    assert not lab.copy_of(run).exists()
    assert on("override", "add", run.name, "--class", rule, "--reason", "the label is not known").code == 0
    assert on("run", "--once").code == 0
    lab.assert_whole(run)


@pytest.mark.parametrize(
    "text", ["---\nlabel: [<label>\n", "---\nlabel: [\n---\n", "# <label>\n", "x" * 6_000_000, ""], ids=range(5)
)
def test_all_else_in_markdown_blocks_nothing(lab: Lab, on: Command, text: str) -> None:
    run = lab.new_run(files={"notes/a.md": text.encode()})
    assert on("run", "--once").code == 0
    lab.assert_whole(run)
    told = [one["code"] for one in on("problems", "--json").problems]
    assert told == (["malformed_yaml_front_matter"] if text.startswith("---") else [])
