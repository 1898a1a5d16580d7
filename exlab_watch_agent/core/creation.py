"""What the agent needs to know of a `creation.json`, as plain values.

Decided here: defaults of absent members, and what counts as a run's identity. Reading and writing the run's own file is the
adapter's work (adapters/local/creation_file.py); copies at a destination are only asked for the little that is here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from exlab_watch_agent.core.inventory import FileSignature

SCHEMA_MAJOR = 1
SCHEMA_CURRENT = "1.8"
EXPERIMENTAL = "experimental"
RUN_LEVEL = "run"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """By what a run is known again after it was renamed or moved: texts as they are in `creation.json`.

    `leaf_name` is the last part of `paths.local`, which a rename leaves alone; the folder's own name where it is absent.
    """

    created_at: str
    created_by: str
    project_uid: str
    leaf_name: str


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """One member of `validation_overrides`, an override or a tombstone (then `revokes` is set).

    `id` is None for a hand-written entry without one. `expires_at` is the text of the file: None or absent means
    "never", an unreadable time counts as expired. `index` is the position in the list.
    """

    index: int
    id: str | None
    problem_class: str | None = None
    revokes: str | None = None
    operator: str = ""
    recorded_at: str = ""
    expires_at: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Creation:
    """A `creation.json` as read. `schema_minor` counts 1.4 as 3. `has_lims_project` tells absent from present."""

    schema_version: str
    schema_minor: int
    level: str
    run_kind: str
    identity: RunIdentity
    has_lims_project: bool
    project_name: str
    sync_status: str
    overrides: tuple[OverrideEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedCreation:
    """Signatures of the `creation.json` that was changed and of what is there now; equal when nothing was written.

    A reader whose last-read signature is `before` has nothing to learn from `after`. Any other reader must read again:
    other programs also write this file.
    """

    before: FileSignature
    after: FileSignature


def identity_of(members: Mapping[str, object], *, folder_name: str) -> RunIdentity:
    """Return the identity in the members of a `creation.json`; what is absent, or is not text, counts as empty.

    `folder_name`: the run folder's own name.
    """
    project, paths = _mapping(members.get("lims_project")), _mapping(members.get("paths"))
    return RunIdentity(
        created_at=_text(members.get("created_at")),
        created_by=_text(members.get("created_by")),
        project_uid=_text(project.get("uid")),
        leaf_name=_last_part(_text(paths.get("local"))) or folder_name,
    )


def identity_in(data: bytes, *, folder_name: str) -> RunIdentity | None:
    """Return the identity in the bytes of somebody's copy of a `creation.json`, None when there is none."""
    members = _members_in(data)
    return identity_of(members, folder_name=folder_name) if isinstance(members.get("created_at"), str) else None


def says_synced(data: bytes) -> bool:
    """Return whether the bytes of a copy of a `creation.json` say that its run is synced."""
    return _members_in(data).get("sync_status") == "synced"


def level_in(data: bytes) -> str | None:
    """Return the level in the bytes of a `creation.json`, that of a run where they name none; None where they are no object."""
    members = _members_in(data)
    return (_text(members.get("level")) or RUN_LEVEL) if members else None


def _members_in(data: bytes) -> Mapping[str, object]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _last_part(path: str) -> str:
    """Return the last part of a path of either platform."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
