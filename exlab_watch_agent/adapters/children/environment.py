"""Which file is run as a child, and what of the agent's surroundings it gets to see."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Mapping

from exlab_watch_agent.errors import FailureKind, TransportError

_POSIX_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# HOME: "~" in an operator's rclone.conf, and ssh's own files. Nothing else of the agent's surroundings reaches a child.
_KEPT_ON_POSIX = ("HOME", "USER", "LOGNAME")
_KEPT_ON_WINDOWS = (
    "APPDATA", "COMSPEC", "LOCALAPPDATA", "PATH", "PATHEXT", "PROGRAMDATA", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP",
    "USERNAME", "USERPROFILE",
)  # fmt: skip


def find_program(name: str, *, how_to_get: str, is_beside_python: bool = False) -> str:
    """Return the absolute path of a program: beside the running Python if `is_beside_python` and it is there, else on PATH.

    `how_to_get` ends the sentence when there is none. Raises: TransportError with `binary_missing`.
    """
    beside = shutil.which(name, path=os.path.dirname(sys.executable)) if is_beside_python else None
    found = beside or shutil.which(name)
    if found is None:
        raise TransportError(FailureKind.BINARY_MISSING, f"The program {name} was not found: {how_to_get}")
    path = os.path.abspath(found)
    if os.name != "nt" and os.stat(path).st_mode & stat.S_IWOTH:
        text = f"{path} may be changed by any user of this machine and is not run: take that right away (chmod o-w)."
        raise TransportError(FailureKind.BINARY_MISSING, text)
    return path


def built_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return all that a child gets to see: no RCLONE_*, no RSYNC_*, nothing that would change what a program does."""
    if os.name == "nt":
        built = {name: os.environ[name] for name in _KEPT_ON_WINDOWS if name in os.environ}
    else:
        built = {name: os.environ[name] for name in _KEPT_ON_POSIX if name in os.environ}
        built |= {"PATH": _POSIX_PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return built | dict(extra or {})
