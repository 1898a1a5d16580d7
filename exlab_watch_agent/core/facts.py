"""What a line of the audit trail may say: a closed union, and what each says as JSON members (`data`).

Kinds and keys are what auditors and later versions read: they never change their meaning. Not here: the lines that the
state folder writes about itself (adapters/state), and how a line is chained to the one before. Longer than other modules: the union
is closed, and who reads it looks for what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, get_args

from exlab_watch_agent.core.binding import Below
from exlab_watch_agent.core.commands import AgentCommand, DismissProblem, Forget
from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.incidents import Incident
from exlab_watch_agent.core.record import Move
from exlab_watch_agent.core.rollback import TrailPosition

Data = Mapping[str, str | int | bool | tuple[str, ...] | None]


class TakenBecause(StrEnum):
    """Why a running agent took in another config: an operator's command, a signal (nobody knows whose), or by itself."""

    COMMAND = "command"
    SIGNAL = "signal"
    BY_ITSELF = "by_itself"


@dataclass(frozen=True, slots=True)
class Transition:
    """A run moved from one state of the chart to another, or was discovered. The move is written beside the data."""

    kind: ClassVar[str] = "transition"
    move: Move

    def data(self) -> Data:
        return {}


@dataclass(frozen=True, slots=True)
class IdentityChanged:
    """The `creation.json` of a run that is not sealed says another identity than before."""

    kind: ClassVar[str] = "identity_changed"

    def data(self) -> Data:
        return {}


@dataclass(frozen=True, slots=True)
class RunMoved:
    """The run's folder is elsewhere now."""

    kind: ClassVar[str] = "moved"
    source: str
    dest: str

    def data(self) -> Data:
        return {"from": self.source, "to": self.dest}


@dataclass(frozen=True, slots=True)
class OverrideFound:
    """An entry of `validation_overrides` that was not there before: an override, or a tombstone that revokes one."""

    entry: OverrideEntry

    @property
    def kind(self) -> str:
        return "override_revoked" if self.entry.revokes is not None else "override_added"

    def data(self) -> Data:
        return {
            "id": self.entry.id,
            "problem_class": self.entry.problem_class,
            "revokes": self.entry.revokes,
            "reason": self.entry.reason,
            "recorded_at": self.entry.recorded_at,
            "expires_at": self.entry.expires_at,
        }


@dataclass(frozen=True, slots=True)
class OverridesRemoved:
    """`validation_overrides` became shorter, which only a person can do by hand: how many entries there were, and are."""

    kind: ClassVar[str] = "overrides_removed"
    before: int
    after: int

    def data(self) -> Data:
        return {"from": self.before, "to": self.after}


@dataclass(frozen=True, slots=True)
class DestinationBound:
    """The root with this marker is an equipment's destination from now on. `root`: see binding.marker_key.

    `replaces`: the marker's id of the one that an operator gave up for it, and `reason` why; else both are empty.
    """

    kind: ClassVar[str] = "destination_bound"
    root: str
    marker_id: str
    accepted_by: str
    replaces: str = ""
    reason: str = ""

    def data(self) -> Data:
        bound = {"root": self.root, "marker_id": self.marker_id, "accepted_by": self.accepted_by}
        return bound | ({"replaces": self.replaces, "reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class MountFound:
    """A first folder below a destination root is a mount of its own, of this type and source. `root`: see binding.marker_key."""

    kind: ClassVar[str] = "destination_mount"
    root: str
    folder: str
    mount: Below

    def data(self) -> Data:
        return {"root": self.root, "folder": self.folder, "type": self.mount.kind, "source": self.mount.source}


@dataclass(frozen=True, slots=True)
class PassesVoided:
    """What was proven of a run was proven at another root than the one that is bound now, as far as is known."""

    kind: ClassVar[str] = "passes_voided"
    root: str
    marker_id: str

    def data(self) -> Data:
        return {"root": self.root, "marker_id": self.marker_id}


@dataclass(frozen=True, slots=True)
class IncidentFound:
    """Damage or loss of the run's copy at the NAS was proven. `files`: the first names, of `files_total`."""

    kind: ClassVar[str] = "incident"
    incident: Incident

    def data(self) -> Data:
        one = self.incident
        named = {"id": one.id, "incident": one.kind.value, "what": one.what}
        return {**named, "files_total": one.files_total, "files": one.files}


@dataclass(frozen=True, slots=True)
class IncidentHealed:
    """The copy is right again, by the pass `healed_by`; with other data where an operator chose that (`replaced_by`)."""

    kind: ClassVar[str] = "incident_healed"
    incident: Incident

    def data(self) -> Data:
        one = self.incident
        named = {"id": one.id, "incident": one.kind.value, "healed_by": one.healed_by}
        return {**named, "replaced_by": one.replaced_by} if one.replaced_by else named


@dataclass(frozen=True, slots=True)
class CacheFolderCarried:
    """What changed in the run's cache folder is in its copy. `paths`: what was brought; `form`: of the folder then."""

    kind: ClassVar[str] = "cache_carried"
    form: str
    paths: tuple[str, ...]

    def data(self) -> Data:
        return {"form": self.form, "files": self.paths}


@dataclass(frozen=True, slots=True)
class AttemptsCleared:
    """An operator ended the wait of a queued run: its attempts count from 0 again. `attempts`: how many had failed."""

    kind: ClassVar[str] = "attempts_cleared"
    attempts: int

    def data(self) -> Data:
        return {"attempts": self.attempts}


@dataclass(frozen=True, slots=True)
class CacheFolderStays:
    """What changed in the run's cache folder could not be brought to its copy although the NAS answers; empty: it could again."""

    kind: ClassVar[str] = "cache_stays"
    message: str

    def data(self) -> Data:
        return {"message": self.message}


@dataclass(frozen=True, slots=True)
class RootBound:
    """A scan found an equipment's folder to be ours, with this identity."""

    kind: ClassVar[str] = "root_bound"
    equipment_id: str
    volume: str

    def data(self) -> Data:
        return {"equipment_id": self.equipment_id, "volume": self.volume}


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """An operator's command, as it was given, and by which account (`uid`, `login`; `claimed` where that is another name)."""

    kind: ClassVar[str] = "operator_command"
    command: AgentCommand

    def data(self) -> Data:
        return {**self.command.to_json(), **self.command.operator.to_json()}


@dataclass(frozen=True, slots=True)
class TrailFoundBehind:
    """An anchor of our own on the NAS speaks against the trail here, so that deletion is held. `found`: in words, what it says."""

    kind: ClassVar[str] = "trail_found_behind"
    anchor: TrailPosition
    found: str

    def data(self) -> Data:
        return {"seq": self.anchor.seq, "digest": self.anchor.digest, "found": self.found}


@dataclass(frozen=True, slots=True)
class FolderNamed:
    """What a state folder is called from now on, and on which machine it is at home (empty: not known).

    `folder_id`: 32 hex. A folder that is new says it in the first line of its trail; this is for older ones.
    """

    kind: ClassVar[str] = "state_folder_named"
    folder_id: str
    machine: str

    def data(self) -> Data:
        return {"state_folder": self.folder_id, "machine": self.machine}


@dataclass(frozen=True, slots=True)
class MachineChanged:
    """The state folder was opened on another machine than the one that it is at home on, so that deletion is held."""

    kind: ClassVar[str] = "machine_changed"
    machine: str

    def data(self) -> Data:
        return {"machine": self.machine}


@dataclass(frozen=True, slots=True)
class MachineAccepted:
    """An operator said that the state folder is at home on this machine from now on."""

    kind: ClassVar[str] = "machine_accepted"
    machine: str
    reason: str

    def data(self) -> Data:
        return {"machine": self.machine, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ProblemDismissed:
    """An operator wants a problem listed no more. `until`: RFC 3339, empty for good. `subject`: the run or the instrument that it
    was said of; empty where only the problem was named."""

    kind: ClassVar[str] = "problem_dismissed"
    problem_id: str
    by: str
    reason: str
    until: str = ""
    subject: str = ""

    def data(self) -> Data:
        said = {"problem_id": self.problem_id, "by": self.by, "reason": self.reason, "until": self.until}
        return {**said, "subject": self.subject} if self.subject else said


def dismissals_of(command: DismissProblem | Forget) -> tuple[ProblemDismissed, ...]:
    """Return what the trail is to say of each problem that an operator does not want listed."""
    by = str(command.operator)
    match command:
        case DismissProblem():
            return (ProblemDismissed(command.problem_id, by, command.reason, command.until or ""),)
        case Forget():
            named = command.subject
            return tuple(ProblemDismissed(one, by, command.reason, subject=named) for one in command.problem_ids)


@dataclass(frozen=True, slots=True)
class TrailAccepted:
    """An operator took the state for true that was found after damage; `hold`: what was found then."""

    kind: ClassVar[str] = "trail_accepted"
    reason: str
    hold: str

    def data(self) -> Data:
        return {"reason": self.reason, "hold": self.hold}


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """A running agent took in another config. `changes`: the first of `total`, a sentence each. `because`: who wanted it."""

    kind: ClassVar[str] = "config_changed"
    changes: tuple[str, ...]
    total: int
    because: TakenBecause

    def data(self) -> Data:
        return {"changes": self.changes, "total": self.total, "because": self.because.value}


Fact = (
    Transition
    | IdentityChanged
    | RunMoved
    | OverrideFound
    | OverridesRemoved
    | DestinationBound
    | MountFound
    | PassesVoided
    | IncidentFound
    | IncidentHealed
    | CacheFolderCarried
    | AttemptsCleared
    | CacheFolderStays
    | RootBound
    | OperatorCommand
    | TrailFoundBehind
    | TrailAccepted
    | FolderNamed
    | MachineChanged
    | MachineAccepted
    | ProblemDismissed
    | ConfigChanged
)
KINDS = frozenset(
    {*(fact.kind for fact in get_args(Fact) if fact is not OverrideFound), "override_added", "override_revoked"}
)
"""Every kind of line that a fact is written as."""

FolderFact = (
    DestinationBound
    | MountFound
    | RootBound
    | TrailFoundBehind
    | TrailAccepted
    | FolderNamed
    | MachineChanged
    | MachineAccepted
    | ProblemDismissed
)
"""What a state folder keeps beside its runs."""


def folder_fact(kind: str, data: Mapping[str, object]) -> FolderFact | None:
    """Return what a line says of the folder; None for what it says of a run, or for an operator's command.

    A binding of the first version says nothing of who accepted it. Raises: KeyError when a member is missing.
    """
    match kind:
        case DestinationBound.kind:
            accepted_by = str(data.get("accepted_by", ""))
            replaces, reason = str(data.get("replaces", "")), str(data.get("reason", ""))
            return DestinationBound(str(data["root"]), str(data["marker_id"]), accepted_by, replaces, reason)
        case MountFound.kind:
            mount = Below(str(data["type"]), str(data["source"]))
            return MountFound(str(data["root"]), str(data["folder"]), mount)
        case RootBound.kind:
            return RootBound(str(data["equipment_id"]), str(data["volume"]))
        case TrailFoundBehind.kind:
            return TrailFoundBehind(TrailPosition(int(str(data["seq"])), str(data["digest"])), str(data["found"]))
        case TrailAccepted.kind:
            return TrailAccepted(str(data.get("reason", "")), str(data.get("hold", "")))
        case FolderNamed.kind:
            return FolderNamed(str(data["state_folder"]), str(data["machine"]))
        case ProblemDismissed.kind:
            words = (str(data.get(name, "")) for name in ("problem_id", "by", "reason", "until", "subject"))
            return ProblemDismissed(*words)
        case MachineChanged.kind:
            return MachineChanged(str(data["machine"]))
        case MachineAccepted.kind:
            return MachineAccepted(str(data["machine"]), str(data.get("reason", "")))
    return None
