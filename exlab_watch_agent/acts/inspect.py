"""Looks at a run folder, and before a push at its destination too. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from exlab_watch_agent.acts.place import find_place
from exlab_watch_agent.acts.probe import ask_destination
from exlab_watch_agent.core.binding import first_folder
from exlab_watch_agent.core.completeness import judge as judge_completeness
from exlab_watch_agent.core.completeness import not_signalled, signal_file
from exlab_watch_agent.core.creation import Creation
from exlab_watch_agent.core.effects import Admit, AskWhere, Inspect
from exlab_watch_agent.core.events import Inspected, Inspection, NothingNew, Seen, Unseen, UnseenCode, Whereabouts
from exlab_watch_agent.core.gate import MARKDOWN_BYTES_MAX, Finding, evaluate, is_markdown, may_have_front_matter
from exlab_watch_agent.core.inventory import CREATION_PATH, Inventory
from exlab_watch_agent.core.policy import CompletenessSignal
from exlab_watch_agent.core.text import shortened
from exlab_watch_agent.errors import (
    CreationFileError,
    DestinationUnreachableError,
    RootUnavailableError,
    RunUnreadableError,
    SourceChangedError,
)
from exlab_watch_agent.ports import Ports

BEGINNING_BYTES = 6
"""A mark of Unicode's and three dashes."""
EXPECTED_BYTES_MAX = 64 * 1024 * 1024
RUN_LEVEL = "run"
SENTENCE_MAX = 700
"""At most so many characters are kept of what the system says: it repeats a path, however long that is."""
LEVEL_MAX = 60
SCHEMA_REFUSED = "schema_major_mismatch"


def inspect(effect: Inspect | Admit, ports: Ports) -> Inspection:
    """Return what is in a run folder now, for an `Admit` also at its destination; or why that cannot be told."""
    path = effect.place.run_path
    creation: Creation | None = None
    try:
        ports.require_root()
    except RootUnavailableError as error:
        return Unseen(UnseenCode.ROOT, str(error))
    try:
        file = ports.creations.read(path)
        if file.creation.level != RUN_LEVEL:
            level = _another_level(path, file.creation.level)
            return Unseen(UnseenCode.LEVEL, level, signature=file.signature, called="unexpected_level")
        creation = file.creation
        if isinstance(effect, Inspect) and effect.known_signature == file.signature:
            return NothingNew()
        inspected, inventory = _inspected(effect, creation, ports)
        marker_id = below = None
        if isinstance(effect, Admit):
            marker_id = ask_destination(ports, is_full=effect.asks_nas_fully)
            ports.require_mounts(first_folder(effect.destination))
            below = ports.transport.below(first_folder(effect.destination))
            inspected = _with_destination(effect, inspected, inventory, ports)
        return Seen(creation, file.signature, inspected, marker_id, below)
    except CreationFileError as error:
        code = UnseenCode.MISSING if error.code == "missing" else UnseenCode.CREATION
        return Unseen(code, str(error), called=_called(error), detail=_detail(error))
    except RootUnavailableError as error:
        return Unseen(UnseenCode.MISSING, str(error))
    except (RunUnreadableError, SourceChangedError) as error:
        return Unseen(UnseenCode.UNREADABLE, shortened(str(error), SENTENCE_MAX), creation)
    except DestinationUnreachableError as error:
        return Unseen(UnseenCode.DESTINATION, str(error), wait=error.wait)


def _called(error: CreationFileError) -> str:
    """Return the code by which programs know why a `creation.json` cannot be used: ExLab-Wizard's where it has one."""
    return error.code if error.code == SCHEMA_REFUSED else f"creation_{error.code}"


def _detail(error: CreationFileError) -> dict[str, str]:
    if error.code == SCHEMA_REFUSED:
        found = {"field": error.field, "expected_major": (error.expected or "").partition(".")[0], "found": error.found}
        return {name: value or "" for name, value in found.items()}
    place = {"line": error.line, "column": error.column}
    return {name: str(value) for name, value in place.items() if value is not None}


def ask_where(effect: AskWhere, ports: Ports) -> Whereabouts:
    """Return in which folders a run still is. The new folder is asked for last: a run moved back is not two runs."""
    are_there = {path: ports.scanner.is_there(path) for path in effect.places}
    return Whereabouts(are_there, ports.scanner.is_there(effect.place.run_path))


def _another_level(run_path: str, level: str) -> str:
    return (
        f"{run_path}/{CREATION_PATH} says level {shortened(json.dumps(level), LEVEL_MAX)} where a run is "
        "expected: each folder in Runs and TestRuns must be one, so nothing here is copied. If it is a run, write "
        f'"level": "{RUN_LEVEL}" there, else move the folder elsewhere.'
    )


def _inspected(effect: Inspect | Admit, creation: Creation, ports: Ports) -> tuple[Inspected, Inventory]:
    """Return what was seen, and what is in the run; nothing is where nothing was looked at for want of a signal."""
    path = effect.place.run_path
    judges_gate = isinstance(effect, Admit) or effect.judges_gate
    signal = signal_file(ports.equipment)
    if signal is not None and not judges_gate and not ports.tree.has_name(path, signal):
        unsignalled = not_signalled(signal)
        return Inspected(creation, unsignalled, (), "", files_total=0, bytes_total=0, is_unsignalled=True), Inventory(
            ()
        )
    inventory = ports.tree.inventory(path)
    names = {entry.path for entry in inventory.files}
    expected = None
    if ports.equipment.signal is CompletenessSignal.MANIFEST and ports.equipment.manifest_filename in names:
        expected = ports.tree.read_small(path, ports.equipment.manifest_filename, limit_bytes=EXPECTED_BYTES_MAX)
    completeness = judge_completeness(policy=ports.equipment, inventory=inventory, manifest=expected)
    findings: tuple[Finding, ...] = ()
    if completeness.is_complete or judges_gate:
        findings = evaluate(
            place=effect.place,
            creation=creation,
            inventory=inventory,
            markdown=_markdown_of(inventory, path, ports),
            declared_mismatches=effect.declared_mismatches,
        )
    inspected = Inspected(
        creation=creation,
        completeness=completeness,
        findings=findings,
        fingerprint=inventory.fingerprint,
        files_total=inventory.files_total,
        bytes_total=inventory.bytes_total,
    )
    return inspected, inventory


def _markdown_of(inventory: Inventory, run_path: str, ports: Ports) -> Iterator[tuple[str, str]]:
    """Yield path and text of each Markdown file that may have front matter. Raises: RunUnreadableError."""
    for entry in inventory.files:
        if not is_markdown(entry.path):
            continue
        if not may_have_front_matter(ports.tree.read_small(run_path, entry.path, limit_bytes=BEGINNING_BYTES)):
            continue
        data = ports.tree.read_small(run_path, entry.path, limit_bytes=MARKDOWN_BYTES_MAX)
        yield entry.path, data.decode("utf-8", "surrogateescape")


def _with_destination(effect: Admit, inspected: Inspected, inventory: Inventory, ports: Ports) -> Inspected:
    """Add which place the run has at the destination, whose that is, and who claims it in words."""
    found = find_place(effect, inventory, ports)
    return replace(
        inspected,
        destination=found.standing,
        destination_path=found.destination,
        holder=found.look.holder,
        anchor=found.look.anchor_of(ports.agent.signed(effect.claim)),
        claimed_manifest=found.look.sealed_as,
        claimed_job="" if found.look.claim is None else found.look.claim.job_id,
        holding=found.look.holding,
        detail=found.detail,
        sign_fault=found.sign_fault,
    )
