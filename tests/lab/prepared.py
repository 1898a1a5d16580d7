"""Starts the agent's commands from a process that has loaded the package already, so that no test waits for imports.

A test starts some commands, and each would spend more time on its imports than on its work. What runs is the same: a process
of its own, with its own pid, environment, folder and files, that real signals reach. It is handed to the tests' process, which
takes orphans in (conftest.py), so it is waited for like any child. Only where the interpreter itself must start otherwise (its
environment says so) is it started anew. That the command starts from nothing is tested elsewhere: as a module, from the wheel,
by a shell.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.lab.servers import KEEPER_PIDS

_READ_AT_START = ("PYTHON", "LC_", "LANG")
_MESSAGE_BYTES = 1 << 20
_LOOK_EVERY_S = 0.005

Files = tuple[IO[bytes], IO[bytes], IO[bytes]]


class Started:
    """A process that was started so. Members as those of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._waited(os.WNOHANG)) is None:
            if deadline is not None and time.monotonic() > deadline:
                assert timeout is not None
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(_LOOK_EVERY_S)
        return code

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Prepared:
    """The loaded process, one for each process of tests."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.owner = os.getpid()
        self.environment = _as_read_at_start(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.prepared", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        KEEPER_PIDS.add(self._process.pid)
        theirs.close()
        atexit.register(self.close)

    def close(self) -> None:
        if os.getpid() == self.owner:
            self._ours.close()
            self._process.wait(10)

    def start(self, argv: Sequence[str], *, cwd: Path, files: Files) -> Started:
        message = json.dumps({"argv": list(argv), "cwd": str(cwd), "environment": dict(os.environ)}).encode()
        socket.send_fds(self._ours, [message], [file.fileno() for file in files])
        return Started(int(self._ours.recv(32)))


_prepared: list[_Prepared] = []


def start(argv: Sequence[str], *, cwd: Path, files: Files) -> Started | subprocess.Popen[bytes]:
    """Start `python ARGV`, a command of the agent, with these files as standard input, output and error."""
    if not _prepared:
        _prepared.append(_Prepared())
    if _as_read_at_start(os.environ) != _prepared[0].environment:
        return start_anew(argv, cwd=cwd, files=files)
    return _prepared[0].start(argv, cwd=cwd, files=files)


def start_anew(argv: Sequence[str], *, cwd: Path, files: Files) -> subprocess.Popen[bytes]:
    """Start it from nothing."""
    given, said, complained = files
    return subprocess.Popen([sys.executable, *argv], stdin=given, stdout=said, stderr=complained, cwd=cwd)


def _as_read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


# --- in the loaded process -------------------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Fork a command for each message, until the tests' process has closed its end. In the command: do what it does."""
    from exlab_watch_agent.__main__ import main
    from exlab_watch_agent.cli.main import main as run_command
    from tests.lab.quick import QUICK

    gc.freeze()
    with socket.socket(fileno=descriptor) as requests:
        while True:
            message, files, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 3)
            if not message:
                return
            reading, writing = os.pipe()
            between = os.fork()
            if between == 0:
                pid = os.fork()
                if pid == 0:
                    break
                os.write(writing, str(pid).encode())
                os._exit(0)
            os.waitpid(between, 0)  # from here on what it forked is a child of the tests' process
            requests.send(os.read(reading, 32))
            os.close(reading)
            os.close(writing)
            for file in files:
                os.close(file)
    os.close(reading)
    os.close(writing)
    wanted = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    match wanted["argv"]:
        case ["-m", "exlab_watch_agent", *words]:
            sys.argv = ["exlab-watch-agent", *words]
            main()
        case [_, *words]:
            sys.argv = ["exlab-watch-agent", *words]
            run_command(QUICK)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
