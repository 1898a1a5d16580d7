"""A config file as text: bytes, YAML nodes, the line on which each key is, and whose file it is.

Decided here: which files are read at all, what of YAML is taken, and by which version of it. ExLab-Wizard writes YAML 1.2, where
`NO` and `18:00` are texts; ours is read as YAML 1.1, as it always was. Not here: what a setting may say (values.py, blocks.py).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from exlab_watch_agent.core.text import printable, shell_word
from exlab_watch_agent.errors import ConfigError

CONFIG_SIZE_MAX = 1 << 20
EXAMPLE = "the example that `exlab-watch-agent init` writes"
FOREIGN_BLOCKS = frozenset({"lims", "readme", "operators", "plugins", "validator", "orchestrator"})
"""Belong to other parts of ExLab-Wizard; their content is never looked at."""
WIZARD_CONFIG = "wizard_config"
LATER_BLOCKS = frozenset({"page", "notify", "metrics", "staging", "fleet", "cluster"})
"""Ours, of later versions."""
_OUR_KEYS = frozenset({WIZARD_CONFIG, "agent", "verify"}) | LATER_BLOCKS
_NODES_MAX = 600_000  # more than a file of the largest size can hold, so that only aliases reach it

KeyPath = tuple[str | int, ...]
"""A place in the file: keys and list positions from the top."""


def is_ours(keys: Iterable[str]) -> bool:
    """Return whose file one with these keys at its top is: ours with any that ExLab-Wizard does not have, else ExLab-Wizard's."""
    return not _OUR_KEYS.isdisjoint(keys)


def read_text(path: Path, *, instead: str = "") -> str:
    """Return the text of the file. `instead`: what else can be done, as `--config` would say it.

    Raises: ConfigError, one sentence with the next step.
    """
    shown = printable(str(path))
    init = (
        instead
        or f"write one with `exlab-watch-agent init --config {shell_word(str(path))}`, or name another with --config"
    )
    another = instead or "name another with --config"
    try:
        # Asked before opening: to open a pipe would wait for ever for somebody to write into it.
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{shown} is a folder and not a config file; {another}.")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{shown} is not a regular file; {another}.")
        with open(path, "rb") as file:
            data = file.read(CONFIG_SIZE_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"There is no config file {shown}; {init}.") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a possible file name"
        raise ConfigError(
            f"The config file {shown} cannot be read ({reason}); make it readable for the agent's user, or {init}."
        ) from None
    if len(data) > CONFIG_SIZE_MAX:
        raise ConfigError(f"The config file {shown} is larger than 1 MiB; is it the right file? Else {init}.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}:{line}: the file is not UTF-8 text; save it as UTF-8.") from None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, and what is allowed there.

    `source`, `line`: the file and its line, for what is known to be of one file; else the report finds them by the path.
    """

    path: KeyPath
    sentence: str
    line: int | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """In the place of what YAML has and no setting can be: a date, a value with a foreign tag.

    A value of no known type, so that the check of its block refuses it together with all else.
    """


_YAML_TAG = "tag:yaml.org,2002:"
_MERGE = _YAML_TAG + "merge"
_PLAIN = "tag:exlab-watch-agent,plain"


class _Loader(yaml.SafeLoader):
    """Leaves open what a value without quotes is: that depends on whose file it is, which its keys say."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0] and value != "<<":
            return _PLAIN
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]  # so are the library's stubs


_VERSION_1_1 = yaml.resolver.Resolver()
_VERSION_1_2: tuple[tuple[str, re.Pattern[str]], ...] = (
    # As the library that ExLab-Wizard reads and writes with (ruamel.yaml 0.19) tells them apart; but for dates, which no
    # setting is: they are texts.
    ("null", re.compile(r"(?:~|null|Null|NULL)?")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")),
    (
        "float",
        re.compile(
            r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?)"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
    ),
)


MEND = "; correct it there or in the line before: most often it is an indentation, a quote or a colon"


class Document:
    """The nodes of a YAML file: its content as plain values, and the line on which a key is.

    Our own walk over the nodes, because PyYAML's keeps the last of two equal keys, stops at the first odd value, and
    forgets the lines. `source`: the file's name in messages.
    """

    def __init__(self, root: yaml.Node | None, source: str) -> None:
        self.source = source
        self._root = root
        self.is_ours = isinstance(root, yaml.MappingNode) and is_ours(_members(root))
        self._plain: dict[int, Any] = {}
        self._constructor = yaml.constructor.SafeConstructor()
        self.problems: list[Problem] = []

    @classmethod
    def parse(cls, text: str, *, source: str) -> Document:
        """Raises: ConfigError with the place at which the text stops being YAML."""
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
            raise ConfigError(f"{place}: not valid YAML: {_without_values(error.problem)}{MEND}.") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(f"{source}:{line}: not valid YAML: a control character that is not allowed.") from None
        is_empty = root is None or (root.tag == _PLAIN and _kind_in_1_2(str(root.value)) == "null")
        if not is_empty and not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{source}:1: the file must be a mapping with the block `equipment`; see {EXAMPLE}.")
        if root is not None and _expanded_node_count(root) > _NODES_MAX:
            raise ConfigError(f"{source}: its aliases (*name) expand to too much or to themselves; write them out.")
        return cls(root, source)

    def content(self) -> dict[str, Any]:
        """Return the blocks that we read, as plain values; foreign blocks are left out unread."""
        if not isinstance(self._root, yaml.MappingNode):
            return {}
        self._check_keys(self._root, ())
        return {
            key: None if key in FOREIGN_BLOCKS else self._value(value, (key,))
            for key, (_, value) in _members(self._root).items()
        }

    def line(self, path: KeyPath) -> int:
        """Return the 1-based line of the last part of the path that the file has."""
        node, line = self._root, 1
        for part in path:
            if isinstance(node, yaml.MappingNode) and part in (members := _members(node)):
                key_node, node = members[str(part)]
                line = key_node.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return line

    def _check_keys(self, node: yaml.MappingNode, path: KeyPath) -> None:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE and not all(
                isinstance(source, yaml.MappingNode) for source in _merged(value_node)
            ):
                self._refuse((*path, "<<"), "must be an alias of a block, or a list of such", line)
            elif not isinstance(key_node, yaml.ScalarNode):
                self._refuse(path, "has a key that is not plain text", line)
            elif key_node.value in seen:
                first = seen[key_node.value]
                self._refuse((*path, key_node.value), f"is there twice, first on line {first}; keep one", line)
            else:
                seen[key_node.value] = line

    def _refuse(self, path: KeyPath, sentence: str, line: int) -> None:
        self.problems.append(Problem(path, sentence, line, self.source))

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        # A node that aliases share is built once, so that an alias costs nothing here.
        if id(node) not in self._plain:
            self._plain[id(node)] = self._built(node, path)
        return self._plain[id(node)]

    def _built(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _YAML_TAG + "map":
            self._check_keys(node, path)
            return {key: self._value(value, (*path, key)) for key, (_, value) in _members(node).items()}
        if isinstance(node, yaml.SequenceNode) and node.tag == _YAML_TAG + "seq":
            return [self._value(item, (*path, position)) for position, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        construct: dict[str, Callable[[Any], Any]] = {
            "str": self._constructor.construct_yaml_str,
            "null": self._constructor.construct_yaml_null,
            "bool": self._constructor.construct_yaml_bool,
            "int": self._constructor.construct_yaml_int,
            "float": self._constructor.construct_yaml_float,
        }
        kind = self._kind(node)
        if not isinstance(node, yaml.ScalarNode) or kind not in construct:
            return Unusable()
        if kind in ("int", "float") and ":" in node.value:
            return node.value  # YAML 1.1 makes a number to the base of 60 of it: nobody who writes 18:00 means 1080.
        try:
            if kind == "int" and not self.is_ours:
                return _whole_number_in_1_2(node.value)
            return construct[kind](node)
        except (ValueError, KeyError, IndexError, OverflowError):
            return Unusable()

    def _kind(self, node: yaml.Node) -> str:
        """Return what a node is: `str`, `int`, ... For a value without quotes the version of YAML decides that."""
        if node.tag != _PLAIN:
            return node.tag.removeprefix(_YAML_TAG)
        if not self.is_ours:
            return _kind_in_1_2(node.value)
        tag = _VERSION_1_1.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        return str(tag).removeprefix(_YAML_TAG)


def _kind_in_1_2(value: str) -> str:
    return next((kind for kind, pattern in _VERSION_1_2 if pattern.fullmatch(value)), "str")


def _whole_number_in_1_2(value: str) -> int:
    """Return the number; 010 is ten here, and eight in YAML 1.1. Raises: ValueError."""
    digits = value.replace("_", "")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits.lstrip("+-")[:2], 10)
    return int(digits, base)


def _members(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Return key → (key node, value node); merged keys (`<<`) only where the mapping has none of its own.

    A key is taken as its text: `on` and `123` are keys like any other.
    """
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE:
            for source in _merged(value_node):
                if isinstance(source, yaml.MappingNode):
                    merged = {**_members(source), **merged}
        elif isinstance(key_node, yaml.ScalarNode):
            own[key_node.value] = (key_node, value_node)
    return {**merged, **own}


def _merged(value_node: yaml.Node) -> list[yaml.Node]:
    return list(value_node.value) if isinstance(value_node, yaml.SequenceNode) else [value_node]


def _expanded_node_count(root: yaml.Node) -> int:
    """Return how many nodes there are once every alias is written out; more than allowed for one that holds itself."""
    counts: dict[int, int] = {}
    open_nodes: set[int] = set()

    def count(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            return _NODES_MAX + 1
        if id(node) not in counts:
            open_nodes.add(id(node))
            counts[id(node)] = 1 + sum(count(child) for child in _children(node))
            open_nodes.discard(id(node))
        return counts[id(node)]

    return count(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _without_values(yaml_problem: str | None) -> str:
    """Return the YAML library's own words without what they quote of the file: `*hunter2` is a password without quotes."""
    words = yaml_problem or "it cannot be read"
    if "undefined alias" in words:
        return "a value that begins with * must be in quotes"
    return re.sub(r"'(?!<)[^']{2,}'|\"[^\"]{2,}\"", "…", words)
