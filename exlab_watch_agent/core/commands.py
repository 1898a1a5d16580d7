"""What an operator, or a program on an operator's behalf, may ask of a running agent: a closed union with one JSON border.

`command_of` reads what another process left in the inbox, `to_json` writes it; the keys are those in the audit
trail as well (`operator_command`). Not here: whether a command can be obeyed now (engine/operators.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from exlab_watch_agent.core.operator import Operator, operator_in
from exlab_watch_agent.errors import AgentError, ConfigError

Json = str | bool | None
REASON_MIN, REASON_MAX = 10, 500
"""So many characters say why: an auditor reads it years later."""


def reason_in(text: str) -> str:
    """Return why, without the blanks around it. Raises: ConfigError where it says too little, or too much."""
    reason = text.strip()
    if not REASON_MIN <= len(reason) <= REASON_MAX:
        raise ConfigError(f"--reason must say why, in {REASON_MIN} to {REASON_MAX} characters.")
    return reason


@dataclass(frozen=True, slots=True)
class _Command:
    name: ClassVar[str]
    operator: Operator

    def to_json(self) -> dict[str, Json]:
        """Return the command as JSON members; the operator, what is None, and the name of no run are left out."""
        told = {member.name: getattr(self, member.name) for member in fields(self) if member.name != "operator"}
        names_nothing = {name for name in ("job_id", "run_path") if not told.get(name)}
        return {"command": self.name} | {
            name: value for name, value in told.items() if value is not None and name not in names_nothing
        }


@dataclass(frozen=True, slots=True)
class _OfRun(_Command):
    """About one known run: by its job id, or by where it is."""

    job_id: str = ""
    run_path: str = ""


@dataclass(frozen=True, slots=True)
class ScanRoots(_Command):
    """Reconcile all equipment; `accept_root`: what is in this equipment's root now is the right folder."""

    name = "scan"
    accept_root: str | None = None


@dataclass(frozen=True, slots=True)
class BindDestination(_Command):
    """The destination of this equipment is the right one."""

    name = "bind"
    equipment: str = ""


@dataclass(frozen=True, slots=True)
class ReplaceDestination(_Command):
    """The root that answers takes the place of the one that this equipment was bound to."""

    name = "replace_destination"
    equipment: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AcceptTrail(_Command):
    """The state that was found after damage counts."""

    name = "accept_trail"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AcceptMachine(_Command):
    """The state folder is at home on this machine from now on."""

    name = "accept_machine"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DismissProblem(_Command):
    """The soft finding or orphan of this id is to be listed no more, `until` then; None: for good."""

    name = "dismiss"
    problem_id: str = ""
    reason: str = ""
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Reload(_Command):
    """Take in the config as it is now. The agent's own: its engine ends by that, and another one begins."""

    name = "reload"


@dataclass(frozen=True, slots=True)
class Forget(_Command):
    """These problems of a run or an instrument, which nobody can mend any more, are not to be told again.

    `subject`: the run's path, or the instrument's id; `problems`: their ids with a blank between.
    """

    name = "forget"
    subject: str = ""
    problems: str = ""
    reason: str = ""

    @property
    def problem_ids(self) -> tuple[str, ...]:
        return tuple(self.problems.split())


@dataclass(frozen=True, slots=True)
class Enqueue(_Command):
    """Look after this run from now on."""

    name = "enqueue"
    run_path: str = ""


@dataclass(frozen=True, slots=True)
class LookAt(_Command):
    """Look at this folder now."""

    name = "look"
    run_path: str = ""


@dataclass(frozen=True, slots=True)
class RetryAll(_Command):
    """Try every failed run again."""

    name = "retry"

    def to_json(self) -> dict[str, Json]:
        return {"command": self.name, "all": True}


@dataclass(frozen=True, slots=True)
class Retry(_OfRun):
    """Try a failed run again, or let a queued one wait no longer."""

    name = "retry"


@dataclass(frozen=True, slots=True)
class Sync(_OfRun):
    """Bring a run to rest now."""

    name = "sync"


@dataclass(frozen=True, slots=True)
class VerifyNow(_OfRun):
    """Make one more pass over a sealed run."""

    name = "verify"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resolve(_OfRun):
    """The local data of a run in conflict win."""

    name = "resolve"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UseNasManifest(_OfRun):
    """The sealed copy of a run in conflict counts, of which no data file is left here."""

    name = "use_nas_manifest"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TakeOver(_OfRun):
    """What others have at the destination of a run in conflict makes room for it."""

    name = "take_over"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancel(_OfRun):
    """End what is under way with a run, and leave it until somebody asks for another try."""

    name = "cancel"
    reason: str = ""


RunCommand = Retry | Sync | VerifyNow | Resolve | TakeOver | UseNasManifest | Cancel
Command = (
    ScanRoots
    | BindDestination
    | ReplaceDestination
    | AcceptTrail
    | AcceptMachine
    | DismissProblem
    | Forget
    | Enqueue
    | LookAt
    | RetryAll
    | RunCommand
)
AgentCommand = Command | Reload
"""What a running agent is asked: all that its engine obeys, and what only the agent itself can do."""
_BY_NAME: dict[str, type[Command]] = {
    kind.name: kind
    for kind in (
        ScanRoots,
        BindDestination,
        ReplaceDestination,
        AcceptTrail,
        AcceptMachine,
        DismissProblem,
        Forget,
        Enqueue,
        LookAt,
        Retry,
        Sync,
        VerifyNow,
        Resolve,
        TakeOver,
        UseNasManifest,
        Cancel,
    )
}


def agent_command_of(request: Mapping[str, object], owner: Operator | None = None) -> AgentCommand:
    """Return the command in a request to an agent, as `command_of` does that to its engine."""
    if request.get("command") == Reload.name:
        return Reload(operator_in(request, owner))
    return command_of(request, owner)


def command_of(request: Mapping[str, object], owner: Operator | None = None) -> Command:
    """Return the command in a request, given by the owner of the request's file where there is one.

    Raises: AgentError for one that this version does not know.
    """
    name, operator = str(request.get("command")), operator_in(request, owner)
    if name == RetryAll.name and request.get("all"):
        return RetryAll(operator)
    kind = _BY_NAME.get(name)
    if kind is None:
        raise AgentError(f"{name} is not a command that this agent knows.")
    given = {
        member.name: str(request[member.name])
        for member in fields(kind)
        if member.name != "operator" and request.get(member.name) is not None
    }
    return kind(operator, **given)
