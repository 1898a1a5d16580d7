"""`creation.json` of a run: read strictly, changed at two members, everything else left as it stands.

Decided here: what of a file is refused and with which words, and where a change is spliced into its text. Not here:
what the values mean (core/creation.py, core/overrides.py), nor how bytes become durable (durable.py).

The file belongs to others: ExLab-Wizard, which takes the same lock, and people with editors, who take none. So it is
never parsed and dumped, and the file is looked at once more in the last moment before it is replaced.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from exlab_watch_agent.adapters.local import durable, json_text
from exlab_watch_agent.adapters.local.json_text import Edit, JsonNumber, JsonTextError, Member, Style
from exlab_watch_agent.core.creation import (
    EXPERIMENTAL,
    SCHEMA_CURRENT,
    SCHEMA_MAJOR,
    Creation,
    OverrideEntry,
    identity_of,
)
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, FileSignature
from exlab_watch_agent.core.text import printable, reason, shortened
from exlab_watch_agent.errors import CreationFileError
from exlab_watch_agent.ports import CreationFile, CreationText, SavedCreation
from exlab_watch_agent.statechart import SYNC_STATUSES

LOCK_FILE = f"{CREATION_FILE}.lock"
LIMIT_BYTES = 1 << 20
DEFAULT_LOCK_WAIT_S = 10.0

_BOM = "\ufeff"
_SCHEMA = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_CURRENT_MINOR = int(SCHEMA_CURRENT.partition(".")[2])
_WRITE_ATTEMPT_COUNT_MAX = 5
_SHOWN_MAX = 80
_MEND_IT = "mend it in an editor and save it; the agent then reads it again."
_KIND_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    JsonNumber: "a number",
}


class SpliceDefectError(AssertionError):
    """The new text would have changed more than was meant: our defect, found before anything was written."""


class _ChangedMeanwhileError(Exception):
    """Somebody without the lock saved the file while we prepared ours."""


@dataclass(frozen=True, slots=True)
class _Document:
    """A file that was read and accepted. `tree` is `text` parsed, its numbers as texts."""

    creation: Creation
    text: str
    tree: dict[str, Any]
    has_bom: bool
    status: os.stat_result

    @property
    def signature(self) -> FileSignature:
        return durable.signature_of(self.status)

    @property
    def overrides(self) -> list[dict[str, Any]]:
        return self.tree.get("validation_overrides") or []


class JsonCreationFiles:
    """Implements ports.CreationFiles on `<run>/.exlab-wizard/creation.json`. Safe to use from several threads.

    `lock_wait_s` bounds the wait for a lock that another program holds.
    """

    def __init__(
        self,
        *,
        lock_wait_s: float = DEFAULT_LOCK_WAIT_S,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._lock_wait_s = lock_wait_s
        self._new_id = new_id

    def read(self, run_path: str) -> CreationFile:
        document = _read(run_path)
        return CreationFile(document.creation, document.signature)

    def set_sync_status(self, run_path: str, sync_status: str) -> SavedCreation:
        return self._change(run_path, lambda document: self._with_status(document, sync_status))

    def _with_status(self, document: _Document, sync_status: str) -> str | None:
        """Return the text that says so, None when it is said already."""
        if sync_status not in SYNC_STATUSES:
            raise ValueError(f"unknown sync_status {sync_status!r}")
        if document.creation.sync_status == sync_status:
            return None
        return _changed(document, self._new_id, sync_status=sync_status)

    def text_with_status(self, run_path: str, sync_status: str) -> CreationText:
        document = _read(run_path)
        text = self._with_status(document, sync_status)
        data = _encoded(document, document.text if text is None else text, run_path)
        return CreationText(data, document.signature)

    def put_text(self, run_path: str, text: CreationText) -> SavedCreation:
        def change(document: _Document) -> str | None:
            if document.signature != text.signature:
                raise CreationFileError(
                    f"{_where(run_path)} was saved by another program meanwhile; the agent tries again.", code="changed"
                )
            new = text.data.decode().removeprefix(_BOM)
            return None if new == document.text else new

        return self._change(run_path, change)

    def append_override(self, run_path: str, entry: Mapping[str, Any]) -> FileSignature:
        """Append `entry`, which must have an `id`; nothing is written when it stands there already.

        Raises: CreationFileError, `invalid_content` too when the id belongs to an entry of other content.
        """
        if not isinstance(entry.get("id"), str) or not entry["id"]:
            raise ValueError("an override is appended with its id")
        appended = json_text.parse(json.dumps(dict(entry), allow_nan=False))

        def change(document: _Document) -> str | None:
            for existing, known in zip(document.creation.overrides, document.overrides, strict=True):
                if existing.id != entry["id"]:
                    continue
                if json_text.same(known, appended):
                    return None
                raise CreationFileError(
                    f"{_where(run_path)} has another override with the id {printable(shortened(entry['id'], _SHOWN_MAX))}: "
                    "entries are never changed, record yours with a new id.",
                    code="invalid_content",
                    field=f"validation_overrides[{existing.index}]",
                )
            return _changed(document, self._new_id, entry=dict(entry))

        return self._change(run_path, change).after

    def _change(self, run_path: str, change: Callable[[_Document], str | None]) -> SavedCreation:
        """Read, change and write under the lock; `change` returns the new text, None for "it stands there already"."""
        _read(run_path)  # A file that cannot be read is left alone, without so much as a lock file beside it.
        folder = Path(run_path, CACHE_FOLDER)
        with self._locked(run_path, folder), _write_errors(run_path):
            _remove_leftovers(folder)
            for _ in range(_WRITE_ATTEMPT_COUNT_MAX):
                document = _read(run_path)
                text = change(document)
                if text is None:
                    durable.fsync_folder(folder)  # A stop may have come between our replace and its fsync.
                    return SavedCreation(document.signature, document.signature)
                with suppress(_ChangedMeanwhileError):
                    return SavedCreation(document.signature, _write(run_path, document, text))
        raise CreationFileError(
            f"{_where(run_path)} was saved by another program each time the agent wanted to write it: "
            "close the program that keeps it open; the agent tries again.",
            code="locked",
        )

    @contextmanager
    def _locked(self, run_path: str, folder: Path) -> Iterator[None]:
        # Whoever may reach the folder may take the lock: ExLab-Wizard often runs under another account than the agent,
        # and there is nothing in this file to protect.
        lock = FileLock(folder / LOCK_FILE, timeout=self._lock_wait_s, mode=0o666)
        try:
            lock.acquire()
        except Timeout:
            raise CreationFileError(
                f"{_where(run_path)} has been locked by another program for {self._lock_wait_s:g} s: close the window "
                "of ExLab-Wizard or the command that is changing this run; the agent tries again.",
                code="locked",
            ) from None
        except OSError as error:
            raise CreationFileError(
                f"{_where(run_path)} cannot be locked ({reason(error)}): "
                f"let the agent's account write {LOCK_FILE} and the folder it is in.",
                code="unwritable",
            ) from error
        try:
            yield
        finally:
            lock.release()


# Reading ------------------------------------------------------------------------------------------------------------


def _read(run_path: str) -> _Document:
    where = _where(run_path)
    data, status = _read_bytes(Path(run_path, CACHE_FOLDER, CREATION_FILE), where)
    text, tree = _parsed(data, where)
    if not isinstance(tree, dict):
        raise _invalid(where, "the whole file", "an object", tree)
    creation = _creation(tree, where, Path(run_path).name)
    return _Document(creation, text, tree, data.startswith(_BOM.encode()), status)


def _read_bytes(path: Path, where: str) -> tuple[bytes, os.stat_result]:
    try:
        if durable.is_link(os.lstat(path.parent)):
            raise durable.NotRegularFileError(errno.ELOOP, "the folder is a link", str(path.parent))
        return durable.read_with_status(path, LIMIT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise CreationFileError(
            f"{where} is missing: create the run with ExLab-Wizard, or put the file back.", code="missing"
        ) from None
    except durable.FileTooLargeError:
        raise CreationFileError(
            f"{where} is larger than {LIMIT_BYTES} bytes: remove what does not belong into it.", code="invalid_content"
        ) from None
    except durable.NotRegularFileError as error:
        raise CreationFileError(
            f"{where} is reached by a link or is not a regular file: put the real file in its place.", code="unreadable"
        ) from error
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
        text = data.decode("utf-8").removeprefix(_BOM)
        return text, json_text.parse(text)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").removeprefix(_BOM)
        problem = JsonTextError("this byte is not UTF-8", before, len(before))
    except JsonTextError as error:
        problem = error
    raise CreationFileError(
        f"{where} is not valid JSON at line {problem.line}, column {problem.column} ({problem}): {_MEND_IT}",
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
    found = None if value is None else printable(shortened(_text(value) or _kind_name(value), _SHOWN_MAX))
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
        f"{where}: {field} must be {expected}, not {found}: {_MEND_IT}",
        code="invalid_content",
        field=field,
        expected=expected,
        found=found,
    )


def _kind_name(value: Any) -> str:
    return _KIND_NAMES.get(type(value), "null")


# Changing -----------------------------------------------------------------------------------------------------------


def _changed(
    document: _Document,
    new_id: Callable[[], str],
    *,
    sync_status: str | None = None,
    entry: dict[str, Any] | None = None,
) -> str:
    """Return the text with a new `sync_status`, or with one more override, and what every write of ours brings along:
    the schema version raised to the current one, and an id for each hand-written override without one.
    """
    new_ids = {index: new_id() for index, known in enumerate(document.overrides) if known.get("id") in (None, "")}
    text = document.text
    start = text.index("{")
    members = {member.name: member for member in json_text.members(text, start)}
    style = json_text.style_of(text, start, next(iter(members.values())))
    edits = _id_edits(text, members.get("validation_overrides"), new_ids, style)
    if _is_older(document):
        edits.append(_replacing(members["schema_version"], f'"{SCHEMA_CURRENT}"'))
    if sync_status is not None:
        edits.append(_set_member(text, start, members, "sync_status", style.spelled(sync_status), style))
    if entry is not None:
        edits.append(_append_entry(text, start, members, entry, style))
    changed = json_text.splice(text, edits)
    if not json_text.same(json_text.parse(changed), _intended(document, new_ids, sync_status, entry)):
        raise SpliceDefectError("a change of creation.json would have touched more than it should; nothing was written")
    return changed


def _is_older(document: _Document) -> bool:
    return int(document.creation.schema_version.partition(".")[2]) < _CURRENT_MINOR


def _intended(
    document: _Document, new_ids: Mapping[int, str], sync_status: str | None, entry: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what the new text must say, worked out on the values alone: the check on the splicing."""
    tree = dict(document.tree)
    if _is_older(document):
        tree["schema_version"] = SCHEMA_CURRENT
    if sync_status is not None:
        tree["sync_status"] = sync_status
    if new_ids or entry is not None:
        overrides = [
            _with_id(known, new_ids[index]) if index in new_ids else known
            for index, known in enumerate(document.overrides)
        ]
        added = [] if entry is None else [json_text.parse(json.dumps(entry, allow_nan=False))]
        tree["validation_overrides"] = overrides + added
    return tree


def _with_id(known: dict[str, Any], identifier: str) -> dict[str, Any]:
    return known | {"id": identifier} if "id" in known else {"id": identifier} | known


def _id_edits(text: str, overrides: Member | None, new_ids: Mapping[int, str], style: Style) -> list[Edit]:
    """Return the edits that give each entry in `new_ids` its id: as its first member, or where an empty one stands."""
    edits = []
    spans = json_text.items(text, overrides.value.start) if overrides is not None and new_ids else []
    for index, identifier in new_ids.items():
        start = spans[index].start
        found = json_text.members(text, start)
        present = next((member for member in found if member.name == "id"), None)
        if present is not None:
            edits.append(_replacing(present, style.spelled(identifier)))
            continue
        spelled = f'"id"{style.colon}{style.spelled(identifier)}'
        if not found:
            edits.append(Edit(start + 1, start + 1, spelled))
            continue
        after = json_text.gap(text, start, [member.whole for member in found], style, at_end=False)
        edits.append(Edit(found[0].key.start, found[0].key.start, spelled + after))
    return edits


def _append_entry(text: str, start: int, members: Mapping[str, Member], entry: dict[str, Any], style: Style) -> Edit:
    """Return the edit that puts `entry` behind the last override, spelled as that one is."""
    overrides = members.get("validation_overrides")
    spans = (
        json_text.items(text, overrides.value.start)
        if overrides is not None and text[overrides.value.start] == "["
        else []
    )
    if overrides is None or not spans:
        return _set_member(
            text, start, members, "validation_overrides", style.spelled([entry], base=style.indent), style
        )
    last = spans[-1]
    before = json_text.gap(text, overrides.value.start, spans, style, at_end=True)
    is_on_one_line = "\n" not in text[last.start : last.end]
    base = None if is_on_one_line else before.rpartition("\n")[2] if "\n" in before else style.indent
    return Edit(last.end, last.end, before + style.spelled(entry, base=base))


def _set_member(text: str, start: int, members: Mapping[str, Member], name: str, spelled: str, style: Style) -> Edit:
    """Return the edit that makes the member of the outer object say `spelled`; an absent one comes last."""
    if name in members:
        return _replacing(members[name], spelled)
    wholes = [member.whole for member in members.values()]
    before = json_text.gap(text, start, wholes, style, at_end=True)
    return Edit(wholes[-1].end, wholes[-1].end, f'{before}"{name}"{style.colon}{spelled}')


def _replacing(member: Member, spelled: str) -> Edit:
    return Edit(member.value.start, member.value.end, spelled)


# Writing ------------------------------------------------------------------------------------------------------------


def _write(run_path: str, document: _Document, text: str) -> FileSignature:
    """Put `text` in the place of the file that was read. Raises: _ChangedMeanwhileError when another stands there."""
    path = Path(run_path, CACHE_FOLDER, CREATION_FILE)
    data = _encoded(document, text, run_path)

    def refuse_if_changed() -> None:
        try:
            is_ours_to_replace = durable.signature_of(os.lstat(path)) == document.signature
        except FileNotFoundError:
            is_ours_to_replace = False
        if not is_ours_to_replace:
            raise _ChangedMeanwhileError

    before = document.status
    mode = stat.S_IMODE(before.st_mode)
    owner = (before.st_uid, before.st_gid)
    return durable.signature_of(
        durable.write_atomically(path, data, mode=mode, owner=owner, before_replace=refuse_if_changed)
    )


def _encoded(document: _Document, text: str, run_path: str) -> bytes:
    """Return the bytes of a text that is to stand in the document's place. Raises: CreationFileError when they are too many."""
    data = ((_BOM if document.has_bom else "") + text).encode()
    if len(data) > LIMIT_BYTES:
        raise CreationFileError(
            f"{_where(run_path)} would become larger than {LIMIT_BYTES} bytes: remove what does not belong into it.",
            code="invalid_content",
        )
    return data


@contextmanager
def _write_errors(run_path: str) -> Iterator[None]:
    """The border for the errors of writing."""
    try:
        yield
    except OSError as error:
        raise CreationFileError(
            f"{_where(run_path)} cannot be written ({reason(error)}): "
            "make room on the disk and let the agent's account write into its folder.",
            code="unwritable",
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left behind. We hold the lock: no living one has a temporary file here."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        if name.startswith(f".{CREATION_FILE}.") and durable.is_temporary_name(name):
            with suppress(OSError):  # Not worth a failure; the push leaves such names out.
                os.unlink(folder / name)


# Words --------------------------------------------------------------------------------------------------------------


def _where(run_path: str) -> str:
    return printable(shortened(str(Path(run_path, CACHE_FOLDER, CREATION_FILE)), 1000))
