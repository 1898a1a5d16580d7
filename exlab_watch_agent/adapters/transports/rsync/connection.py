"""One ssh connection to one target, opened on demand, that carries all shells and all of rsync.

Decided here: how many shells stay open, and when the connection is opened again. Not here: how ssh is called and what its
failures mean (ssh_login.py), what the target can do (target_tools.py), what is asked of a shell (target_folder.py), and
rsync (program.py).

A fresh ssh login costs 250 ms, a second session over an open connection 10 ms, and a question to an open shell less
than one (docs/facts.md, Speeds and costs). The connection (ssh's ControlMaster) is a child of the agent whose own
session is a shell reading from the agent: when the agent dies, in whatever way, that shell sees the end of its input, and
the connection goes with it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from exlab_watch_agent.adapters.children.process import Child, Children, StallWatch
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.rsync.remote_shell import RemoteShell, ShellEndedError
from exlab_watch_agent.adapters.transports.rsync.ssh_config import found_in_config
from exlab_watch_agent.adapters.transports.rsync.ssh_login import NoShellError, SshLogin, classified_ssh
from exlab_watch_agent.adapters.transports.rsync.ssh_socket import new_socket_path, remove_socket, ssh_words
from exlab_watch_agent.adapters.transports.rsync.target_tools import ASK_TOOLS, TargetTools, tools_in
from exlab_watch_agent.errors import FailureKind, TransportError

_IDLE_SHELLS_MAX = 4


class SshConnection:
    """The connection of one lane. All methods may be called from any thread; errors are TransportErrors."""

    def __init__(
        self,
        login: SshLogin,
        children: Children,
        folder: Path | None = None,
        *,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self.login = login
        self._found = login
        self._clock = clock
        self._children = children
        self._folder = folder
        self._lock = threading.Lock()
        self._master: RemoteShell | None = None
        self._tools: TargetTools | None = None
        self._socket = ""
        self._idle: list[RemoteShell] = []

    @contextlib.contextmanager
    def shell(self, check: Callable[[], None] = lambda: None) -> Iterator[RemoteShell]:
        """Yield a shell for the caller alone. One that still owes an answer afterwards is ended."""
        shell = self._taken(check)
        try:
            yield shell
        except ShellEndedError as error:
            doing = f"Working at {self.login.target}"
            raise classified_ssh(self.login, doing, self._tail(error), why=str(error)) from error
        finally:
            if shell.is_asking or not self._keep(shell):
                self._give_up(shell)

    def tools(self) -> TargetTools:
        """Return what the target can do, asked once for each connection. Raises: TransportError, NoShellError."""
        self._require_master(lambda: None)
        assert self._tools is not None, "asked when the connection was opened"
        return self._tools

    def remote_shell_words(self) -> list[str]:
        """Return the command by which another program (rsync) gets its own session over this connection."""
        self._require_master(lambda: None)
        return self._words()

    def close(self) -> None:
        """End the connection and all that it carries. A later call opens it again."""
        with self._lock:
            self._close()

    def _taken(self, check: Callable[[], None]) -> RemoteShell:
        self._require_master(check)
        with self._lock:
            while self._idle:
                shell = self._idle.pop()
                if shell.is_alive:
                    return shell
                shell.end()
        shell = self._shell(*self._words(), "--", self.login.target, "exec sh")
        try:
            shell.greet(timeout_s=self.login.pace.greeting_s, check=check)
        except BaseException as error:
            shell.end()
            if isinstance(error, ShellEndedError):
                raise classified_ssh(self.login, f"Cannot work at {self.login.target}", error.tail) from error
            raise
        return shell

    def _require_master(self, check: Callable[[], None]) -> None:
        with self._lock:
            if self._master is not None and self._master.is_alive:
                return
            self._close()
            self._found = found_in_config(self.login, self._children)
            self._socket = new_socket_path(self._folder, clock=self._clock)
            try:
                self._master = self._shell(
                    *self._words(), "-o", "ControlMaster=yes", "--", self.login.target, "exec sh"
                )
                self._master.greet(timeout_s=self.login.pace.greeting_s, check=check)
                self._tools = tools_in(self._master.ask(ASK_TOOLS, check=check).output.decode(), self.login)
            except ShellEndedError as error:
                self._close()
                raise self._no_connection(error) from error
            except BaseException:
                self._close()
                raise

    def _no_connection(self, error: ShellEndedError) -> TransportError:
        said = classified_ssh(self._found, f"Cannot connect to {self.login.target}", error.tail)
        if error.returncode in (None, 255) or said.kind is FailureKind.AUTH:
            return said
        why = f"{self.login.target} lets us in and runs no command of ours (it ended with {error.returncode})."
        return NoShellError(why, detail=error.tail)

    def _words(self) -> list[str]:
        return ssh_words(self._found, self._socket)

    def _shell(self, *command: str) -> RemoteShell:
        child = self._children.start(command, purpose=f"ssh {self.login.target}", has_stdin=True)
        return RemoteShell(child, pace=self.login.pace, clock=self._clock)

    def _tail(self, error: ShellEndedError) -> str:
        """Return the words of the program that ended, or of the connection that took it along."""
        with self._lock:
            master = self._master
        return error.tail or ("" if master is None else master.tail())

    def _keep(self, shell: RemoteShell) -> bool:
        with self._lock:
            if self._master is None or not shell.is_alive or len(self._idle) >= _IDLE_SHELLS_MAX:
                return False
            self._idle.append(shell)
            return True

    def _give_up(self, shell: RemoteShell) -> None:
        """End a shell, and before it, as far as possible, what it still does on the target.

        In this order: the connection holds the shell's pipes open until the session on the target has ended.
        """
        with self._lock:
            if shell.is_asking and shell.process_group and self._master is not None and self._master.is_alive:
                with contextlib.suppress(ShellEndedError):
                    script = b"kill -TERM -%d 2>/dev/null" % shell.process_group
                    self._master.ask(script, timeout_s=self.login.pace.end_group_s)
        shell.end()

    def _close(self) -> None:
        for shell in [*self._idle, *filter(None, [self._master])]:
            shell.end()
        self._idle.clear()
        self._master = self._tools = None
        remove_socket(self._socket, self._folder)
        self._socket = ""


class SilentConnection:
    """A connection that only carries other programs' sessions, for an account that runs no command of ours.

    It has no session of its own that could end with the agent: so it is the warden (process.py) that ends it then.
    """

    def __init__(
        self,
        login: SshLogin,
        children: Children,
        folder: Path | None = None,
        *,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self.login = login
        self._found = login
        self._clock = clock
        self._children = children
        self._folder = folder
        self._lock = threading.Lock()
        self._master: Child | None = None
        self._socket = ""

    def remote_shell_words(self) -> list[str]:
        """Return the command by which rsync gets a session. Raises: TransportError."""
        with self._lock:
            if self._master is None or not self._master.is_running:
                self._close()
                self._open()
            return ssh_words(self._found, self._socket)

    def close(self) -> None:
        """End the connection. A later call opens it again."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        self._found = found_in_config(self.login, self._children)
        self._socket = new_socket_path(self._folder, clock=self._clock)
        words = [*ssh_words(self._found, self._socket), "-N", "-o", "ControlMaster=yes", "--", self.login.target]
        self._master = self._children.start(words, purpose=f"ssh {self.login.target}")
        self._master.listen(lambda _: None)
        watch = StallWatch(self.login.pace.greeting_s, f"ssh to {self.login.target}")
        while not os.path.exists(self._socket):
            if self._master.has_ended_within(self.login.pace.opens_every_s):
                tail = self._master.tail()
                self._close()
                raise classified_ssh(self._found, f"Cannot connect to {self.login.target}", tail)
            watch.saw(None)

    def _close(self) -> None:
        if self._master is not None:
            self._master.end()
            self._master = None
        remove_socket(self._socket, self._folder)
        self._socket = ""
