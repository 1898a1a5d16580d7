"""What the agent needs to know of a `creation.json`, as plain values.

Decided here: defaults of absent members, and what counts as a run's identity. Reading and writing the file is the
adapter's work (adapters/creation_json.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

SCHEMA_MAJOR = 1
SCHEMA_CURRENT = "1.8"
EXPERIMENTAL = "experimental"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """By what a run is known again after it was renamed or moved: texts as they stand in `creation.json`.

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
    """Signatures of the `creation.json` that was changed and of what stands there now; equal when nothing was written.

    A reader whose last-read signature is `before` has nothing to learn from `after`. Any other reader must read again:
    other programs write this file, too.
    """

    before: tuple[int, int, int]
    after: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class CreationProblem:
    """Why a `creation.json` cannot be used now. `message` is one sentence with the next step."""

    code: str
    message: str
    line: int | None = None
    column: int | None = None
    at: datetime | None = field(default=None, compare=False)
