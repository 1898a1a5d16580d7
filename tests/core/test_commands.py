"""Operators' commands through their JSON border: what one process writes, another reads as the same command."""

from __future__ import annotations

import json

import pytest

from exlab_watch_agent.core.commands import (
    AcceptTrail,
    BindDestination,
    Cancel,
    Command,
    Enqueue,
    LookAt,
    ReplaceDestination,
    Resolve,
    Retry,
    RetryAll,
    ScanRoots,
    Sync,
    TakeOver,
    UseNasManifest,
    VerifyNow,
    command_of,
)
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.errors import AgentError

ASMITH = Operator("asmith")
COMMANDS: list[tuple[Command, dict[str, object]]] = [
    (ScanRoots(ASMITH), {"command": "scan"}),
    (ScanRoots(ASMITH, "SCOPE_01"), {"command": "scan", "accept_root": "SCOPE_01"}),
    (BindDestination(ASMITH, "SCOPE_01"), {"command": "bind", "equipment": "SCOPE_01"}),
    (
        ReplaceDestination(ASMITH, "SCOPE_01", "the old NAS burned down"),
        {"command": "replace_destination", "equipment": "SCOPE_01", "reason": "the old NAS burned down"},
    ),
    (AcceptTrail(ASMITH, "I looked"), {"command": "accept_trail", "reason": "I looked"}),
    (Enqueue(Operator("program"), "/data/a"), {"command": "enqueue", "run_path": "/data/a"}),
    (LookAt(ASMITH, "/data/a"), {"command": "look", "run_path": "/data/a"}),
    (RetryAll(ASMITH), {"command": "retry", "all": True}),
    (Retry(ASMITH, job_id="1f"), {"command": "retry", "job_id": "1f"}),
    (Sync(ASMITH, run_path="/data/a"), {"command": "sync", "run_path": "/data/a"}),
    (VerifyNow(ASMITH, job_id="1f", reason="so"), {"command": "verify", "job_id": "1f", "reason": "so"}),
    (Resolve(ASMITH, job_id="1f", reason="so"), {"command": "resolve", "job_id": "1f", "reason": "so"}),
    (TakeOver(ASMITH, job_id="1f", reason="so"), {"command": "take_over", "job_id": "1f", "reason": "so"}),
    (Cancel(ASMITH, job_id="1f", reason="so"), {"command": "cancel", "job_id": "1f", "reason": "so"}),
    (UseNasManifest(ASMITH, job_id="1f", reason="so"), {"command": "use_nas_manifest", "job_id": "1f", "reason": "so"}),
]


@pytest.mark.parametrize(("command", "told"), COMMANDS, ids=lambda value: type(value).__name__)
def test_a_command_is_the_same_after_its_way_through_json(command: Command, told: dict[str, object]) -> None:
    assert command.to_json() == told
    assert command_of(json.loads(json.dumps({**told, "operator": command.operator.name}))) == command


def test_a_request_without_an_operator_is_somebodys_whom_nobody_knows() -> None:
    assert command_of({"command": "scan"}).operator == Operator("unknown")
    assert command_of({"command": "scan", "operator": None}).operator == Operator("unknown")


@pytest.mark.parametrize("request_", [{}, {"command": "format"}, {"command": None}, {"command": ["scan"]}])
def test_what_is_no_command_is_refused_in_one_sentence(request_: dict[str, object]) -> None:
    with pytest.raises(AgentError, match="is not a command that this agent knows"):
        command_of(request_)


def test_what_a_request_says_besides_is_passed_over_and_odd_values_are_taken_as_text() -> None:
    assert command_of({"command": "retry", "job_id": 7, "colour": "red"}) == Retry(Operator("unknown"), job_id="7")
