"""What a state folder keeps beside its runs: bindings, volumes, segments, the hold on deletion.

Decided here: what each kind of line of the trail changes of it. Not here: which lines count (recovery.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from exlab_watch_agent.adapters.state.trail import TRAIL_SCHEMA
from exlab_watch_agent.core.binding import Below, Binding, marker_key, split_key
from exlab_watch_agent.core.facts import (
    KINDS,
    DestinationBound,
    FolderFact,
    FolderNamed,
    MachineAccepted,
    MachineChanged,
    MountFound,
    ProblemDismissed,
    RootBound,
    TrailAccepted,
    TrailFoundBehind,
    folder_fact,
)
from exlab_watch_agent.core.overrides import parse_time
from exlab_watch_agent.core.problem import Dismissal
from exlab_watch_agent.core.rollback import ELSEWHERE
from exlab_watch_agent.errors import StateFolderError


def note_fact(facts: dict[str, Any], kind: str, data: Mapping[str, Any]) -> None:
    """Bring the facts that belong to no run in line with one line of the trail. Raises: KeyError, StateFolderError."""
    match kind:
        case kind if kind in KINDS:
            _note(facts, folder_fact(kind, data))
        case "run_restored":
            pass
        case "segment_opened" | "trail_damaged":
            if data["schema"] > TRAIL_SCHEMA:
                raise StateFolderError(
                    f"The audit trail was written by another version of the agent (schema {data['schema']}, this one knows "
                    f"{TRAIL_SCHEMA}): install that version again."
                )
            facts["has_opening"] = True
            if "state_folder" in data:
                _name(facts, FolderNamed(data["state_folder"], data["machine"]))
            if kind == "trail_damaged":
                facts["hold"] = {"found": data["found"]}
                facts["segments"] = dict(data["segments"])
            elif data["closed"] is not None:
                facts.setdefault("segments", {})[data["closed"]] = data["closed_bytes"]
        case _:
            raise StateFolderError(
                f"The audit trail has a line of the kind {kind!r}, which this version does not know: install the version "
                "that wrote it again."
            )


def _note(facts: dict[str, Any], fact: FolderFact | None) -> None:
    match fact:
        case DestinationBound():
            facts.setdefault("markers", {})[fact.root] = fact.marker_id
            facts.setdefault("accepted_by", {})[fact.root] = fact.accepted_by
            equipment_id, spelling = split_key(fact.root)
            facts.setdefault("bound", {})[equipment_id] = spelling
            if fact.reason:  # it takes the place of another one, and what is mounted below it is learned anew
                facts.get("mounts", {}).pop(fact.root, None)
        case MountFound():
            mount = {"type": fact.mount.kind, "source": fact.mount.source}
            facts.setdefault("mounts", {}).setdefault(fact.root, {})[fact.folder] = mount
        case RootBound():
            facts.setdefault("volumes", {})[fact.equipment_id] = fact.volume
        case TrailFoundBehind():
            before = facts.get("hold", {}).get("found")
            facts["hold"] = {"found": f"{before}; {fact.found}" if before else fact.found}
            facts["ahead"] = {"seq": fact.anchor.seq, "digest": fact.anchor.digest}
        case TrailAccepted():
            facts.pop("hold", None)
        case FolderNamed():
            _name(facts, fact)
        case MachineChanged():
            facts["found_on"] = fact.machine
        case MachineAccepted():
            facts.pop("found_on", None)
            facts.setdefault("folder", {})["machine"] = fact.machine
        case ProblemDismissed():
            said = {"by": fact.by, "reason": fact.reason, "until": fact.until}
            facts.setdefault("dismissed", {})[fact.problem_id] = said
        case None:
            pass
        case _:
            assert_never(fact)


def _name(facts: dict[str, Any], fact: FolderNamed) -> None:
    facts["folder"] = {"id": fact.folder_id, "machine": fact.machine}


def folder_id_in(facts: Mapping[str, Any]) -> str:
    """Return what the state folder is called, 32 hex; empty for one of the first version that was not written to since."""
    return str(facts.get("folder", {}).get("id", ""))


class _Dismissals(Mapping[str, Dismissal]):
    """Each is made when it is asked for: there may be many, and a look at a run asks for one."""

    def __init__(self, said: Mapping[str, Mapping[str, str]]) -> None:
        self._said = said

    def __getitem__(self, problem_id: str) -> Dismissal:
        said = self._said[problem_id]
        return Dismissal(said["by"], said["reason"], parse_time(said["until"]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._said)

    def __len__(self) -> int:
        return len(self._said)


def dismissals_in(facts: Mapping[str, Any]) -> Mapping[str, Dismissal]:
    """Return id of a problem → its dismissal, the last one that was given."""
    return _Dismissals(facts.get("dismissed", {}))


def trail_doubt_in(facts: Mapping[str, Any]) -> str | None:
    """Return what was found against the trail and not accepted yet; None where nothing was."""
    found: str | None = facts.get("hold", {}).get("found")
    return found


def hold_in(facts: Mapping[str, Any], *, trail_doubt: str | None) -> str | None:
    """Return why nothing may be deleted until an operator has accepted the state; None when deletion is not held."""
    return "; ".join(filter(None, (ELSEWHERE if "found_on" in facts else None, trail_doubt))) or None


def binding_in(facts: Mapping[str, Any], equipment_id: str, spelling: str) -> Binding | None:
    """Return an equipment's binding, None before the first one.

    `spelling`: of the root that is configured. What an earlier version wrote does not say which of several bindings was the last:
    then that of this root counts, as it did for that version, or else any.
    """
    markers: Mapping[str, str] = facts.get("markers", {})
    bound: str | None = facts.get("bound", {}).get(equipment_id)
    if bound is None:
        spellings = [known for root in markers for owner, known in [split_key(root)] if owner == equipment_id]
        if not spellings:
            return None
        bound = spelling if spelling in spellings else spellings[-1]
    root = marker_key(equipment_id, bound)
    return Binding(markers[root], facts.get("accepted_by", {}).get(root, ""), bound)


def mounts_in(facts: Mapping[str, Any], equipment_id: str, spelling: str) -> dict[str, Below]:
    """Return the mounts that are known directly below a destination root: folder → mount."""
    known: Mapping[str, Mapping[str, str]] = facts.get("mounts", {}).get(marker_key(equipment_id, spelling), {})
    return {folder: Below(mount["type"], mount["source"]) for folder, mount in known.items()}
