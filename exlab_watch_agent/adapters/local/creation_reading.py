"""Reads `creation.json` strictly: what of a file is refused, and with which words.

Not here: what the values mean (core/creation.py, core/overrides.py), and how the file is changed (creation_file.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exlab_watch_agent.adapters.local import durable, json_text
from exlab_watch_agent.adapters.local.handles import Folder, LinkError, OtherDeviceError, run_folder
from exlab_watch_agent.adapters.local.identity import signature_of
from exlab_watch_agent.adapters.local.json_text import JsonNumber, JsonTextError
from exlab_watch_agent.core.creation import EXPERIMENTAL, SCHEMA_MAJOR, Creation, OverrideEntry, identity_of
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FileSignature
from exlab_watch_agent.core.text import printable, reason, shortened
from exlab_watch_agent.errors import CreationFileError

LIMIT_BYTES = 1 << 20
BOM = "\ufeff"
SHOWN_MAX = 80
_SCHEMA = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_CORRECT_IT = "correct it in an editor and save it; the agent then reads it again."
_KIND_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    JsonNumber: "a number",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read and accepted. `tree` is `text` parsed, its numbers as texts."""

    creation: Creation
    text: str
    tree: dict[str, Any]
    has_bom: bool
    status: os.stat_result

    @property
    def signature(self) -> FileSignature:
        return signature_of(self.status)

    @property
    def overrides(self) -> list[dict[str, Any]]:
        return self.tree.get("validation_overrides") or []


def read_document(run_path: str) -> Document:
    """Return the run's `creation.json` as it is now. Raises: CreationFileError."""
    with cache_folder_of(run_path) as folder:
        return read_document_in(folder, run_path)


def read_document_in(folder: Folder, run_path: str) -> Document:
    """Return what is in the run's open cache folder. Raises: CreationFileError."""
    where = where_is(run_path)
    with _read_errors(where):
        data, status = durable.read_in(folder, CREATION_FILE, LIMIT_BYTES)
    return document_of(data, status, run_path)


def document_of(data: bytes, status: os.stat_result, run_path: str) -> Document:
    """Return what these bytes say as a run's `creation.json`. Raises: CreationFileError."""
    where = where_is(run_path)
    text, tree = _parsed(data, where)
    if not isinstance(tree, dict):
        raise _invalid(where, "the whole file", "an object", tree)
    creation = _creation(tree, where, Path(run_path).name)
    return Document(creation=creation, text=text, tree=tree, has_bom=data.startswith(BOM.encode()), status=status)


def cache_folder_of(run_path: str) -> Folder:
    """Return the run's cache folder, to be closed by the caller. Raises: CreationFileError as if it were the file."""
    with _read_errors(where_is(run_path)), run_folder(run_path) as run:
        return run.step(CACHE_FOLDER)


@contextmanager
def _read_errors(where: str) -> Iterator[None]:
    """The border for the errors of reading."""
    try:
        yield
    except (LinkError, OtherDeviceError, durable.NotRegularFileError) as error:
        raise CreationFileError(
            f"{where} is reached by a link or is not a regular file: put the real file in its place.", code="unreadable"
        ) from error
    except (FileNotFoundError, NotADirectoryError):
        raise CreationFileError(
            f"{where} is missing: create the run with ExLab-Wizard, or put the file back.", code="missing"
        ) from None
    except durable.FileTooLargeError:
        raise CreationFileError(
            f"{where} is larger than {LIMIT_BYTES} bytes: remove what does not belong into it.", code="invalid_content"
        ) from None
    except OSError as error:
        raise CreationFileError(
            f"{where} cannot be read ({reason(error)}): let the agent's account read it, or close what holds it open.",
            code="unreadable",
        ) from error


def _parsed(data: bytes, where: str) -> tuple[str, Any]:
    """Return the text without its BOM, and the document in it."""
    if not data.strip():
        raise CreationFileError(
            f"{where} is empty (line 1, column 1): wait until it is saved, or put its content back.",
            code="invalid_json",
            line=1,
            column=1,
        )
    try:
        text = data.decode("utf-8").removeprefix(BOM)
        return text, json_text.parse(text)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").removeprefix(BOM)
        problem = JsonTextError("this byte is not UTF-8", before, len(before))
    except JsonTextError as error:
        problem = error
    raise CreationFileError(
        f"{where} is not valid JSON at line {problem.line}, column {problem.column} ({problem}): {_CORRECT_IT}",
        code="invalid_json",
        line=problem.line,
        column=problem.column,
    )


def _creation(tree: dict[str, Any], where: str, folder_name: str) -> Creation:
    """Return the values with the defaults of absent members. A null counts as absent."""
    version, minor = _schema(tree.get("schema_version"), where)
    project = _member(tree, "lims_project", dict, where)
    paths = _member(tree, "paths", dict, where) or {}
    _member(paths, "local", str, where, inside="paths.")
    in_project = project or {}
    names = [
        _member(in_project, name, str, where, inside="lims_project.") or ""
        for name in ("uid", "name_at_creation", "short_id")
    ]
    for name in ("created_at", "created_by"):
        _member(tree, name, str, where)
    entries = _member(tree, "validation_overrides", list, where) or []
    return Creation(
        schema_version=version,
        schema_minor=3 if minor == 4 else minor,  # 1.4 was withdrawn: its files are read as 1.3.
        level=_member(tree, "level", str, where) or "run",
        run_kind=_member(tree, "run_kind", str, where) or EXPERIMENTAL,
        identity=identity_of(tree, folder_name=folder_name),
        has_lims_project=project is not None,
        project_name=names[1] or names[2],
        sync_status=_member(tree, "sync_status", str, where) or "pending",
        overrides=tuple(_override(index, entry, where) for index, entry in enumerate(entries)),
    )


def _schema(value: Any, where: str) -> tuple[str, int]:
    match = _SCHEMA.fullmatch(value) if isinstance(value, str) else None
    if match is not None and int(match[1]) == SCHEMA_MAJOR:
        return match[0], int(match[2])
    found = None if value is None else printable(shortened(_text(value) or _kind_name(value), SHOWN_MAX))
    says = "has no schema_version" if found is None else f"has the schema_version {found}"
    raise CreationFileError(
        f"{where} {says}, and this agent reads {SCHEMA_MAJOR}.x only: "
        "update the agent, or have ExLab-Wizard write the file again; it is left as it is.",
        code="schema_major_mismatch",
        field="schema_version",
        expected=f"{SCHEMA_MAJOR}.x",
        found=found,
    )


def _override(index: int, entry: Any, where: str) -> OverrideEntry:
    """Return a hand-written entry as far as it can be understood; in doubt it admits less, never more."""
    if not isinstance(entry, dict):
        raise _invalid(where, f"validation_overrides[{index}]", "an object", entry)
    revokes = None
    if entry.get("revokes") is not None or entry.get("revoked") not in (None, False):
        revokes = _text(entry.get("revokes")) or ""  # Not None: a tombstone, though one without a target.
    expires_at = entry.get("expires_at")
    return OverrideEntry(
        index=index,
        id=_text(entry.get("id")) or None,
        problem_class=_text(entry.get("problem_class")),
        revokes=revokes,
        operator=_text(entry.get("operator")) or "",
        recorded_at=_text(entry.get("recorded_at")) or "",
        expires_at=None if expires_at is None else _text(expires_at) or "",
        reason=_text(entry.get("reason")) or "",
    )


def _text(value: Any) -> str | None:
    """Return a text as it is and a number as it is spelled (ids are compared as texts), None for anything else."""
    if isinstance(value, JsonNumber):
        return value.text
    return value if isinstance(value, str) else None


def _member(holder: Mapping[str, Any], name: str, kind: type, where: str, *, inside: str = "") -> Any:
    """Return the member, None where it is absent or null. Raises: CreationFileError when it is of another type."""
    value = holder.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise _invalid(where, inside + name, _KIND_NAMES[kind], value)


def _invalid(where: str, field: str, expected: str, value: Any) -> CreationFileError:
    found = _kind_name(value)
    return CreationFileError(
        f"{where}: {field} must be {expected}, not {found}: {_CORRECT_IT}",
        code="invalid_content",
        field=field,
        expected=expected,
        found=found,
    )


def _kind_name(value: Any) -> str:
    return _KIND_NAMES.get(type(value), "null")


def where_is(run_path: str) -> str:
    """Return the path of a run's `creation.json` as it can go into a message."""
    return printable(shortened(str(Path(run_path, CACHE_FOLDER, CREATION_FILE)), 1000))
