"""What is wrong with a config file, in our words: the library's errors and unknown keys.

All problems are reported at once, and none repeats a value of the file: values can be secrets. Where they are, and in which order
they are told, is said in sources.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from exlab_watch_agent.config.blocks import (
    TRANSPORTS,
    AgentBlock,
    BandwidthBlock,
    BandwidthWindowBlock,
    CleanupBlock,
    EquipmentBlock,
    LoggingBlock,
    VerifyBlock,
    keys_of,
)
from exlab_watch_agent.config.text import FOREIGN_BLOCKS, LATER_BLOCKS, WIZARD_CONFIG, KeyPath, Problem

Model = TypeVar("Model", bound=BaseModel)

BLOCKS: dict[str, type[BaseModel]] = {
    "nas_cleanup": CleanupBlock,
    "logging": LoggingBlock,
    "agent": AgentBlock,
    "verify": VerifyBlock,
}
TOP_LEVEL = (WIZARD_CONFIG, "equipment", *BLOCKS, "paths", "sync", *sorted(FOREIGN_BLOCKS))


def unknown_block(key: str) -> str:
    """Return what is said of a key at the top of our file that is not in `TOP_LEVEL`."""
    return "is of a later version; take it out" if key in LATER_BLOCKS else unknown_key(key, TOP_LEVEL)


def validated(
    model: type[Model], content: object, path: KeyPath, problems: list[Problem], *, is_wizards: bool = False
) -> Model | None:
    """Return the block, or None and add to `problems`. `is_wizards`: "24" is a number there, as it is for ExLab-Wizard."""
    try:
        return model.model_validate(content, strict=False if is_wizards else None)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            problems.extend(_problems_of(found, path, content))
        return None


# The library's kinds of errors in our words. {names} are the library's own numbers, never values of the file.
_SENTENCES = {
    "refused": "{sentence}",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "bool_type": "must be true or false, without quotes",
    "int_type": "must be a whole number, without quotes",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number, without quotes",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "model_type": "must be a block of keys",
    "model_attributes_type": "must be a block of keys",
    "invalid_key": "has a key that is not text",
}

_MEANINGS = {
    "id": "the instrument's folder name, like CONFOCAL_01",
    "local_root": "the absolute path of the folder in which <id>/ lies",
    "transport": f"a block with the type {', '.join(TRANSPORTS)}",
    "type": f"one of {', '.join(TRANSPORTS)}",
    "path": "the absolute path of the instrument's folder on the mounted NAS",
    "rclone_remote": "the name of a remote in rclone.conf",
    "rclone_remote_path": "the instrument's folder on that remote",
    "ssh_target": "user@host",
    "remote_path": "the absolute path of the instrument's folder on the server",
    "days": "a list of mon, tue, wed, thu, fri, sat, sun",
    "from": 'a time like "08:00"',
    "to": 'a time like "18:00"',
}

_PASSWORD = "is refused: only key-based ssh; name the key in ssh_key_path"  # noqa: S105


def _problems_of(found: Any, block: KeyPath, content: object) -> list[Problem]:
    """Return one error of the library in our words; a transport whose type is misspelt yields one for each odd key."""
    inside, transport_type = _without_tag(found["loc"])
    path, kind, key = (*block, *inside), found["type"], str((*block, *inside)[-1])
    if kind == "extra_forbidden":
        if key == "password" and transport_type == "rsync_ssh":
            return [Problem(path, _PASSWORD)]
        return [Problem(path, unknown_key(key, _known_keys(path[:-1], transport_type)))]
    if kind == "missing":
        return [Problem(path, _missing(key))]
    if kind == "union_tag_not_found":
        return _untyped_transport(path, content)
    if kind == "union_tag_invalid":
        hint = "; for other storage make a remote with `rclone config` and use rclone"
        return [Problem((*path, "type"), f"must be {_one_of(TRANSPORTS)}{hint}")]
    template = _SENTENCES.get(kind, "is not a possible value here")
    return [Problem(path, template.format_map(found.get("ctx", {})))]


def _without_tag(location: KeyPath) -> tuple[KeyPath, str | None]:
    """Return the library's location as it is in the file, and the transport's type, which the library puts into it."""
    if len(location) > 1 and location[0] == "transport" and location[1] in TRANSPORTS:
        return ("transport", *location[2:]), str(location[1])
    return location, None


def _untyped_transport(path: KeyPath, content: object) -> list[Problem]:
    transport = content.get("transport") if isinstance(content, Mapping) else None
    known = {key for model in TRANSPORTS.values() for key in keys_of(model)}
    odd = [str(key) for key in transport if key not in known] if isinstance(transport, Mapping) else []
    problems = [Problem((*path, key), unknown_key(key, sorted(known))) for key in odd]
    if not any(_nearest(key, sorted(known)) == "type" for key in odd):
        problems.append(Problem((*path, "type"), _missing("type")))
    return problems


def _missing(key: str) -> str:
    return f"is missing; it is {_MEANINGS[key]}" if key in _MEANINGS else "is missing"


def _one_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def unknown_key(key: object, known: Sequence[str]) -> str:
    nearest = _nearest(str(key), known)
    if nearest is not None:
        return f'unknown key; the nearest known key is "{nearest}"'
    return f"unknown key; known here: {', '.join(known)}"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(key.strip().lower(), known, n=1, cutoff=0.6)
    return near[0] if near else None


def _known_keys(block: KeyPath, transport_type: str | None) -> list[str]:
    name = [part for part in block if isinstance(part, str)][-1]
    if name == "transport" and transport_type:
        return keys_of(TRANSPORTS[transport_type])
    inner: dict[str, type[BaseModel]] = {
        "equipment": EquipmentBlock,
        "bandwidth": BandwidthBlock,
        "schedule": BandwidthWindowBlock,
    }
    return keys_of(inner.get(name) or BLOCKS[name])
