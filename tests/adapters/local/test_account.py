"""Which account a process is, as the system says it."""

from __future__ import annotations

import os
import pwd

import pytest

from exlab_watch_agent.adapters.local.account import account_of, own_account
from exlab_watch_agent.core.operator import Operator

LOGIN = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)


def test_the_account_is_the_system_s_and_an_environment_only_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_account() == Operator(LOGIN, os.getuid())
    monkeypatch.setenv("LOGNAME", "prof.x")
    assert own_account() == Operator(LOGIN, os.getuid(), "prof.x")


def test_sudo_s_word_is_a_claim_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "asmith")
    monkeypatch.setenv("SUDO_UID", "1000")
    assert own_account() == Operator(LOGIN, os.getuid(), "asmith by sudo, uid 1000")


def test_an_account_without_a_name_is_called_by_its_number() -> None:
    assert account_of(4_000_000) == Operator("4000000", 4_000_000)
