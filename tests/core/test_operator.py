"""Who gives a command: the system's account first, and what was claimed as a claim."""

from __future__ import annotations

import pytest

from exlab_watch_agent.core.commands import Retry, command_of
from exlab_watch_agent.core.facts import OperatorCommand
from exlab_watch_agent.core.operator import Operator, operator_in, operator_of, request_members

ASMITH = Operator("asmith", 1000)


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (ASMITH, "asmith (uid 1000)"),
        (Operator("asmith", 1000, "prof.x"), "asmith (uid 1000), as 'prof.x'"),
        (Operator("asmith", 1000, "root (uid 0)\n\u202e"), "asmith (uid 1000), as 'root (uid 0)\\n\\u202e'"),
        (Operator("asmith", 1000, "x" * 500), f"asmith (uid 1000), as '{'x' * 63}…'"),
        (Operator("asmith"), "asmith"),
        (Operator(), "unknown"),
    ],
)
def test_an_operator_is_told_in_one_line(operator: Operator, said: str) -> None:
    assert str(operator) == said


def test_a_claim_that_says_nothing_else_is_none() -> None:
    assert operator_of(ASMITH, "asmith") == operator_of(ASMITH, None) == operator_of(ASMITH, "") == ASMITH
    assert operator_of(ASMITH, "prof.x") == Operator("asmith", 1000, "prof.x")


def test_the_owner_of_a_request_outdoes_what_it_says() -> None:
    request = {"command": "retry", "operator": "prof.x", "uid": 0, "login": "root", "job_id": "1f"}
    assert command_of(request, ASMITH) == Retry(Operator("asmith", 1000, "prof.x"), job_id="1f")
    assert operator_in(request, None) == Operator("prof.x")  # and nobody vouches for it


def test_a_request_says_what_it_said_in_the_first_version_and_the_account() -> None:
    assert request_members(Operator("asmith", 1000, "prof.x")) == {"operator": "prof.x", "uid": 1000, "login": "asmith"}
    assert request_members(ASMITH)["operator"] == "asmith"


def test_the_line_of_a_command_has_account_and_claim() -> None:
    line = OperatorCommand(Retry(Operator("asmith", 1000, "prof.x"), job_id="1f")).data()
    assert line == {"command": "retry", "job_id": "1f", "uid": 1000, "login": "asmith", "claimed": "prof.x"}
    assert OperatorCommand(Retry(Operator("asmith"), job_id="1f")).data() == {"command": "retry", "job_id": "1f"}
