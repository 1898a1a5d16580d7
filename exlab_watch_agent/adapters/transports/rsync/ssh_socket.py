"""The socket by which programs share one ssh connection: its path, its folder, and what killed agents left of theirs."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
import tempfile
from pathlib import Path

from exlab_watch_agent.adapters.children.environment import find_program
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK
from exlab_watch_agent.adapters.transports.rsync.ssh_login import HOW_TO_GET_SSH, SshLogin
from exlab_watch_agent.ports import Clock

_SOCKET_PATH_BYTES_MAX = 80
"""A unix socket's path has 103 to 107 bytes, and ssh first makes it under a name that is 17 bytes longer."""

_SOCKET_NAME = re.compile(r"[0-9a-f]{8}")
_TEMPORARY_PREFIX = "exlab-ssh-"
_LEFT_FOR_S = 24 * 3600.0


def ssh_words(login: SshLogin, socket_path: str) -> list[str]:
    """Return the command that reaches the login over the connection with this socket."""
    ssh = find_program("ssh", how_to_get=HOW_TO_GET_SSH)
    return [ssh, *login.options(), "-S", socket_path.replace("%", "%%")]


def new_socket_path(folder: Path | None, *, clock: Clock = SYSTEM_CLOCK) -> str:
    """Return a path for a connection's socket, in a folder of this user alone; what agents killed long ago left there goes."""
    name = secrets.token_hex(4)
    if folder is not None and len(os.fsencode(folder)) + 1 + len(name) <= _SOCKET_PATH_BYTES_MAX:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_dead_sockets(folder)
        return str(folder / name)
    for left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            status = left.lstat()
            if status.st_uid == os.getuid() and clock.now().timestamp() - status.st_mtime > _LEFT_FOR_S:
                _remove_dead_sockets(left)
                left.rmdir()
    return str(Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX)) / name)


def remove_socket(path: str, folder: Path | None) -> None:
    """Remove a socket, and its folder where that was made for it alone."""
    if not path:
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
    if folder is None or os.path.dirname(path) != str(folder):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))


def _remove_dead_sockets(folder: Path) -> None:
    """Remove the sockets that nobody listens on. ssh gives one its name only once it listens, so none is coming up."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if not _SOCKET_NAME.fullmatch(path.name) or not stat.S_ISSOCK(path.lstat().st_mode):
                continue
            with socket.socket(socket.AF_UNIX) as asking:
                try:
                    asking.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink()
