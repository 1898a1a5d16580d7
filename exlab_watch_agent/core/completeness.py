"""Is a run complete? The signal of its equipment, its data and its quiet time, or what is still missing.

Decided here: what each signal means, and how the instrument's own list of expected files is read. Not here: how long a
run has been quiet (the engine's clock knows) and whether its names are acceptable (gate.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from exlab_watch_agent.core.inventory import CACHE_FOLDER, Inventory
from exlab_watch_agent.core.policy import CompletenessSignal, EquipmentPolicy
from exlab_watch_agent.core.text import named
from exlab_watch_agent.errors import AgentError

NO_DATA_FILES = "no data files yet"

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:")
_SIZE_MAX = 2**63 - 1
_shown = partial(named, limit=200)


class ExpectedFilesError(AgentError):
    """The instrument's list of expected files cannot be understood, perhaps because it is still being written."""


@dataclass(frozen=True, slots=True)
class DeclaredFile:
    """One file that the instrument says it wrote: `path` POSIX and relative to the run, `sha256` 64 lowercase hex."""

    path: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether a run is complete; `reason` says in one sentence why not yet, and is empty when it is.

    `declared`: the files that the instrument's manifest lists; empty for the other signals.
    """

    is_complete: bool
    reason: str = ""
    declared: tuple[DeclaredFile, ...] = ()


def judge(
    *, policy: EquipmentPolicy, inventory: Inventory, manifest: bytes | None, quiet_s: float = 0, settle_s: float = 0
) -> Completeness:
    """Return whether the run is complete: its signal is there, it holds data, and nothing moved for `settle_s`.

    A caller that learns the quiet time only later leaves it out here and adds it with `settled`.

    `manifest`: the bytes of the policy's `manifest_filename`, None where there is no such file or another signal is
    used. For the signal `creation_json` the caller asks only with a valid `creation.json`. A list of expected files
    that cannot be understood is a wait, never an error: it may be half written.
    """
    declared: tuple[DeclaredFile, ...] = ()
    missing = ""
    match policy.signal:
        case CompletenessSignal.SENTINEL_FILE:
            missing = _why_not_there(policy.sentinel_filename, inventory)
        case CompletenessSignal.MANIFEST:
            declared, missing = _judge_manifest(policy.manifest_filename, inventory, manifest)
        case CompletenessSignal.CREATION_JSON:
            pass
    reason = missing or _why_no_data(policy, inventory) or _why_not_quiet(quiet_s, settle_s)
    return Completeness(is_complete=not reason, reason=reason, declared=declared)


def signal_file(policy: EquipmentPolicy) -> str | None:
    """Return the name in the run folder without which no run of this equipment is complete; None where there is none."""
    match policy.signal:
        case CompletenessSignal.SENTINEL_FILE:
            return policy.sentinel_filename
        case CompletenessSignal.MANIFEST:
            return policy.manifest_filename
        case CompletenessSignal.CREATION_JSON:
            return None


def not_signalled(name: str) -> Completeness:
    """Return the judgement of a run whose signal is not there: nothing else needs to be looked at."""
    return Completeness(is_complete=False, reason=f"{_shown(name)} is not there yet", declared=())


def settled(completeness: Completeness, *, quiet_s: float, settle_s: float) -> Completeness:
    """Return the judgement with the quiet time added: what was complete waits until nothing moved for `settle_s`."""
    reason = completeness.reason or _why_not_quiet(quiet_s, settle_s)
    return Completeness(is_complete=not reason, reason=reason, declared=completeness.declared)


def parse_expected(data: bytes) -> tuple[DeclaredFile, ...]:
    """Return the files that an instrument's manifest lists, in its order.

    Shapes: `{"files": [{"path": "...", "size": 1, "sha256": "..."}]}` with `sha256` optional and unknown members passed
    over, or `{path: size}`. Backslashes separate folders, as instruments on Windows write them. Entries in the cache
    folder are left out: they are not data. The caller bounds the size of `data`.
    Raises: ExpectedFilesError, naming the entry.
    """
    listed: dict[str, DeclaredFile] = {}
    for path, size, sha256 in _entries(_document(data)):
        entry = _declared(path, size, sha256)
        earlier = listed.get(entry.path)
        listed[entry.path] = entry if earlier is None else _merged(earlier, entry)
    return tuple(entry for entry in listed.values() if entry.path.split("/")[0] != CACHE_FOLDER)


def _judge_manifest(name: str, inventory: Inventory, data: bytes | None) -> tuple[tuple[DeclaredFile, ...], str]:
    """Return what the manifest lists and, as a sentence, what of it does not hold; empty when all does."""
    missing = _why_not_there(name, inventory)
    if missing:
        return (), missing
    size_bytes = next(entry.size_bytes for entry in inventory.files if entry.path == name)
    # A list that was read short, or rewritten since the inventory was made, must not be believed.
    if data is None or len(data) != size_bytes:
        found = 0 if data is None else len(data)
        return (), f"{_shown(name)} could not be read whole yet ({found} of {size_bytes} bytes)"
    try:
        # What a manifest says of itself proves nothing, and it cannot know its own hash.
        declared = tuple(entry for entry in parse_expected(data) if entry.path != name)
    except ExpectedFilesError as error:
        return (), f"{_shown(name)} cannot be used yet: {error}"
    if not declared:
        return (), f"{_shown(name)} lists no files yet"
    return declared, _why_not_as_declared(name, declared, inventory)


def _why_not_there(name: str, inventory: Inventory) -> str:
    """Return why `name` is not a regular file directly in the run folder; empty when it is."""
    if any(entry.path == name for entry in inventory.files) and "/" not in name:
        return ""
    if any(odd.path == name for odd in inventory.odd):
        return f"{_shown(name)} is a link or a special file, and only a regular file counts"
    if name in inventory.directories:
        return f"{_shown(name)} is a folder, and only a regular file counts"
    return not_signalled(name).reason


def _why_not_as_declared(name: str, declared: tuple[DeclaredFile, ...], inventory: Inventory) -> str:
    sizes = {entry.path: entry.size_bytes for entry in inventory.files}
    wrong = [entry for entry in declared if sizes.get(entry.path) != entry.size_bytes]
    if not wrong:
        return ""
    first = wrong[0]
    found = f"found {sizes[first.path]}" if first.path in sizes else "not there"
    return (
        f"{len(wrong)} of {len(declared)} files listed in {_shown(name)} are missing or have another size, "
        f"first: {_shown(first.path)} (expected {first.size_bytes} bytes, {found})"
    )


def _why_no_data(policy: EquipmentPolicy, inventory: Inventory) -> str:
    """A run that holds nothing but its sentinel holds no data; a manifest that holds names data beside itself."""
    sentinel = policy.sentinel_filename if policy.signal is CompletenessSignal.SENTINEL_FILE else None
    return "" if any(entry.path != sentinel for entry in inventory.files) else NO_DATA_FILES


def _why_not_quiet(quiet_s: float, settle_s: float) -> str:
    return "" if quiet_s >= settle_s else f"quiet for {max(0, int(quiet_s))} of {settle_s:g} s"


def _document(data: bytes) -> dict[str, object]:
    try:
        document = json.loads(data, object_pairs_hook=_unambiguous)
    # Nesting without end ends in RecursionError; broken encodings and endless numbers are ValueErrors.
    except (ValueError, RecursionError) as error:
        raise ExpectedFilesError("it is not valid JSON, or not yet wholly written") from error
    if not isinstance(document, dict):
        raise ExpectedFilesError('it must be {"files": [...]} or {path: size}')
    return document


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object; a name that is given twice with different values is an error, not "the last one wins"."""
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members and members[name] != value:
            raise ExpectedFilesError(f"{_shown(name)} is listed twice with different values")
        members[name] = value
    return members


def _entries(document: dict[str, object]) -> Iterable[tuple[str, object, object]]:
    """Yield path, size and SHA-256 (None where absent) of each entry, the latter two not checked yet."""
    files = document.get("files")
    # A plain mapping may well list a file that is called "files".
    if isinstance(files, list):
        for number, entry in enumerate(files, start=1):
            path = entry.get("path") if isinstance(entry, dict) else None
            if not isinstance(path, str):
                raise ExpectedFilesError(f'entry {number} of "files" is not an object with a "path" and a "size"')
            yield path, entry.get("size"), entry.get("sha256")
    else:
        for path, size in document.items():
            yield path, size, None


def _declared(path: str, size: object, sha256: object) -> DeclaredFile:
    # JSON's true is an int to Python.
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_MAX:
        raise ExpectedFilesError(f"the size of {_shown(path)} is not a whole number of bytes")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise ExpectedFilesError(f"the sha256 of {_shown(path)} is not 64 hexadecimal digits")
    return DeclaredFile(_relative(path), size, None if sha256 is None else str(sha256).lower())


def _relative(path: str) -> str:
    """Return the POSIX path relative to the run. Nothing that leads outside the run, and nothing empty, passes."""
    segments = [segment for segment in path.replace("\\", "/").split("/") if segment != "."]
    if not all(segments) or not segments or ".." in segments or _DRIVE.match(path):
        raise ExpectedFilesError(f"{_shown(path)} is not a file's path relative to the run folder")
    return "/".join(segments)


def _merged(earlier: DeclaredFile, later: DeclaredFile) -> DeclaredFile:
    hashes = {entry.sha256 for entry in (earlier, later) if entry.sha256 is not None}
    if earlier.size_bytes != later.size_bytes or len(hashes) > 1:
        raise ExpectedFilesError(f"{_shown(earlier.path)} is listed twice with different values")
    return later if earlier.sha256 is None else earlier
