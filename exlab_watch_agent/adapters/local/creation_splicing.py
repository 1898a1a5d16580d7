"""Works out the new text of a `creation.json`: two members are changed, every other byte of it stays.

The file is never parsed and dumped: it belongs to others. Each change is spliced into the text, and what comes out is parsed
once more and compared with what it must say, before anything is written (creation_file.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from exlab_watch_agent.adapters.local import json_text
from exlab_watch_agent.adapters.local.creation_reading import Document
from exlab_watch_agent.adapters.local.json_text import Edit, Member, Style
from exlab_watch_agent.core.creation import SCHEMA_CURRENT

_CURRENT_MINOR = int(SCHEMA_CURRENT.partition(".")[2])


class SpliceDefectError(AssertionError):
    """The new text would have changed more than was meant: our defect, found before anything was written."""


def changed_text(
    document: Document,
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


def _is_older(document: Document) -> bool:
    return int(document.creation.schema_version.partition(".")[2]) < _CURRENT_MINOR


def _intended(
    document: Document, new_ids: Mapping[int, str], sync_status: str | None, entry: dict[str, Any] | None
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
    """Return the edits that give each entry in `new_ids` its id: as its first member, or in the place of an empty one."""
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
