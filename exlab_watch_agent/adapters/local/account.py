"""Asks the system which account this process, or the owner of a file, is. What was claimed beside it is only handed on.

POSIX: the uid and the login that the system's own list has for it. Windows: the login alone, which the system says as well
(`GetUserName`); its SID is not asked for, and files there have no owner that counts here.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping

from exlab_watch_agent.core.operator import UNKNOWN, Operator, operator_of


def account_of(uid: int) -> Operator:
    """Return the account with this uid; one that is in no list of the system's is called by its number."""
    import pwd

    try:
        return Operator(pwd.getpwuid(uid).pw_name, uid)
    except KeyError:
        return Operator(str(uid), uid)


def owner_of(status: os.stat_result) -> Operator | None:
    """Return the account that a file belongs to, None where the platform does not say."""
    return account_of(status.st_uid) if os.name == "posix" else None


def own_account() -> Operator:
    """Return the account of this process, with the name that its environment claims where that is another one."""
    if os.name == "posix":
        return operator_of(account_of(os.getuid()), _claimed(os.environ))
    try:
        return Operator(os.getlogin())
    except OSError:
        return Operator(UNKNOWN)


def _claimed(environment: Mapping[str, str]) -> str:
    """Return what the environment says: anybody can set it, sudo does as well."""
    if who := environment.get("SUDO_USER"):
        return f"{who} by sudo, uid {environment.get('SUDO_UID', '?')}"
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
