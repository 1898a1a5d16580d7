"""One ssh connection to one target, opened on demand, that carries all shells and all of rsync.

Decided here: how ssh is called, what its failures mean, how many shells stay open, and what the target can do. Not here:
what is asked of a shell (target_folder.py), and rsync (rsync_process.py).

A fresh ssh login costs 250 ms, a second session over a connection that stands 10 ms, and a question to a shell that is
open less than one (FACTS.md, "Speeds and costs"). The connection (ssh's ControlMaster) is a child of the agent whose own
session is a shell reading from the agent: when the agent dies, in whatever way, that shell sees the end of its input, and
the connection goes with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.adapters.children.environment import find_program
from exlab_watch_agent.adapters.children.process import Child, Children, StallWatch
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.transports.rsync.remote_shell import RemoteShell, ShellEndedError
from exlab_watch_agent.errors import FailureKind, TransportError

CONNECT_S = 20
ALIVE_EVERY_S = 15
ALIVE_COUNT_MAX = 4
_GREETING_S = CONNECT_S + ALIVE_EVERY_S * ALIVE_COUNT_MAX
_END_GROUP_S = 5.0
_IDLE_SHELLS_MAX = 4
_SOCKET_PATH_BYTES_MAX = 80
"""A unix socket's path has 103 to 107 bytes, and ssh first makes it under a name that is 17 bytes longer."""

_SOCKET_NAME = re.compile(r"[0-9a-f]{8}")
_TEMPORARY_PREFIX = "exlab-ssh-"
_LEFT_FOR_S = 24 * 3600.0
_LOOK_EVERY_S = 0.02

_TARGET = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_AUTH, _NETWORK = FailureKind.AUTH, FailureKind.NETWORK


@dataclass(frozen=True, slots=True)
class SshLogin:
    """Where and as whom. `target` is `user@host`; the paths are absolute."""

    target: str
    port: int
    key_path: str
    known_hosts_path: str

    def __post_init__(self) -> None:
        if not _TARGET.fullmatch(self.target):  # it stands on a command line
            raise ValueError("ssh_target must be user@host")

    @property
    def host(self) -> str:
        return self.target.rpartition("@")[2]

    def options(self) -> list[str]:
        """Return ssh's options: key only, strict host keys, every wait bounded, nothing from the user's own config."""
        settings = {
            "IdentityFile": _as_one_word(self.key_path),  # -i would look for the file before it expands "%%"
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _as_one_word(self.known_hosts_path),
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "PreferredAuthentications": "publickey",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "ConnectTimeout": str(CONNECT_S),
            "ConnectionAttempts": "1",
            "ServerAliveInterval": str(ALIVE_EVERY_S),
            "ServerAliveCountMax": str(ALIVE_COUNT_MAX),
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "ControlPersist": "no",
            "LogLevel": "ERROR",
        }
        flags = ["-F", "/dev/null", "-T", "-p", str(self.port)]
        return flags + [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _as_one_word(path: str) -> str:
    """Return a path as ssh's config reads it: this option takes several, separated by blanks, and expands `%`."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


# --- what ssh's failures mean ----------------------------------------------------------------------------------------

_REFUSED_KEY = (
    "the server does not accept the key {key} for {target}: put {key}.pub into that account's authorized_keys "
    "(ssh-copy-id -i {key} -p {port} {target}), then retry"
)
_UNKNOWN_HOST = (
    "the server's host key is not in {known_hosts}: add it (ssh-keyscan -p {port} {host} >> {known_hosts}), compare its "
    "fingerprint with the server's own, then retry"
)
_CHANGED_HOST = (
    "the server's host key is not the one in {known_hosts}: find out why it changed; if it was meant to, remove the old "
    "one (ssh-keygen -f {known_hosts} -R '[{host}]:{port}'), add the new one, then retry"
)
_SAYINGS: tuple[tuple[str, FailureKind, str], ...] = (
    ("HOST IDENTIFICATION HAS CHANGED", _AUTH, _CHANGED_HOST),
    ("Host key verification failed|host key is known for|differs from the key for", _AUTH, _UNKNOWN_HOST),
    (
        "UNPROTECTED PRIVATE KEY|bad permissions",
        _AUTH,
        "the key {key} may be read by others: chmod 600 {key}, then retry",
    ),
    (
        "no such identity|Identity file .* not accessible|Load key .*No such file",
        _AUTH,
        "there is no key {key}: give another ssh_key_path, or make one (ssh-keygen -t ed25519 -f {key})",
    ),
    (
        "Load key|invalid format|error in libcrypto|passphrase",
        _AUTH,
        "the key {key} cannot be used without a person: give one in OpenSSH's format and without a passphrase",
    ),
    (r"Permission denied \(|Too many authentication failures|No supported authentication", _AUTH, _REFUSED_KEY),
    ("account is currently not available|This account", _AUTH, "the account {target} has no shell there"),
    (
        "Could not resolve|Name or service not known|nodename nor servname|name resolution",
        _NETWORK,
        "the name {host} is not known to the network: check ssh_target and the name server",
    ),
    ("Connection refused", _NETWORK, "nothing answers on port {port} of {host}: is its ssh service running?"),
    ("No route to host|[Nn]etwork is unreachable|Host is down", _NETWORK, "{host} cannot be reached from here"),
    ("timed out|[Tt]imeout", _NETWORK, "{host} did not answer in time"),
    (
        "Connection (?:closed|reset)|closed by remote host|Broken pipe|kex_exchange_identification|banner exchange",
        _NETWORK,
        "the connection to {host} was cut",
    ),
)


def classified_ssh(login: SshLogin, doing: str, tail: str, *, why: str = "") -> TransportError:
    """Return what the end of an ssh program means. `doing` begins the sentence; `why` ends it where ssh's words say nothing."""
    facts = {
        "key": login.key_path, "target": login.target, "host": login.host, "port": login.port,
        "known_hosts": login.known_hosts_path,
    }  # fmt: skip
    for pattern, kind, sentence in _SAYINGS:
        if re.search(pattern, tail):
            return TransportError(kind, f"{doing}: {sentence.format(**facts)}.", detail=tail)
    return TransportError(_NETWORK, f"{doing}: {why or 'the connection to ' + login.host + ' was lost'}.", detail=tail)


class NoShellError(TransportError):
    """The target lets us in and runs no command of ours (a forced command, sftp only), or lacks the simplest programs."""

    def __init__(self, why: str, *, detail: str = "") -> None:
        text = (
            f"{why} rsync over ssh needs an account with a POSIX shell and the usual programs there; for an account without, "
            "use the transport rclone with a remote of type sftp."
        )
        super().__init__(FailureKind.AUTH, text, detail=detail)


# --- what the target can do ------------------------------------------------------------------------------------------

NEEDED = ("cat", "dd", "df", "find", "head", "ln", "mkdir", "mv", "rm", "rmdir", "stat", "touch")
# The fastest first (openssl uses what the processor has for it; Debian's sha256sum is five times slower). Each prints
# `<64 hex><two characters><name>`, and reads its standard input where no name is given.
HASHERS: tuple[tuple[str, ...], ...] = (
    ("openssl", "dgst", "-sha256", "-r"),
    ("sha256sum",),
    ("shasum", "-a", "256"),
)
_KNOWN_ANSWER = hashlib.sha256(b"abc").hexdigest()
_NOWHERE = "/nonexistent-" + "0" * 16

_ASK_TOOLS = b"".join(
    [
        *(b"command -v %b >/dev/null || echo 'lacks %b'\n" % (name.encode(), name.encode()) for name in NEEDED),
        *(
            b'echo "hash %d $(printf abc | %b 2>/dev/null)"\n' % (number, " ".join(hasher).encode())
            for number, hasher in enumerate(HASHERS)
        ),
        b"stat -c %s / >/dev/null 2>&1 && echo 'stat -c'\n",
        b"stat -f %z / >/dev/null 2>&1 && echo 'stat -f'\n",
        b'echo "sync $(sync -f %b 2>&1)"\n' % _NOWHERE.encode(),
        b'echo "processors $(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null)"\n',
        b'echo "rsync $(rsync --version 2>/dev/null | head -n 1)"\n',
    ]
)


@dataclass(frozen=True, slots=True)
class TargetTools:
    """What the target's shell finds. `hasher`: None where nothing there computes SHA-256.

    `stat_option`: `-c` (GNU, BusyBox) or `-f` (BSD, macOS). `syncs_one_file_system`: else a sync is for the whole machine.
    """

    hasher: tuple[str, ...] | None
    stat_option: str
    syncs_one_file_system: bool
    processors: int
    rsync_version: str


def tools_in(said: str, login: SshLogin) -> TargetTools:
    """Return what the answer to `_ASK_TOOLS` says. Raises: NoShellError when what is needed at least is not there."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    lacking = found.get("lacks", [])
    if lacking or "stat" not in found:
        raise NoShellError(f"The shell of {login.target} finds no {', '.join(lacking or ['stat that works'])}.")
    right = [line.split(" ")[0] for line in found.get("hash", []) if line.split(" ")[1:2] == [_KNOWN_ANSWER]]
    processors = found.get("processors", [""])[0]
    version = re.search(r"version v?([0-9.]+)", found.get("rsync", [""])[0])
    return TargetTools(
        hasher=HASHERS[int(right[0])] if right else None,
        stat_option=found["stat"][0],
        syncs_one_file_system="No such file" in found.get("sync", [""])[0],
        processors=int(processors) if processors.isdigit() else 1,
        rsync_version=version[1] if version else "",
    )


# --- the connection --------------------------------------------------------------------------------------------------


class SshConnection:
    """The connection of one lane. All methods may be called from any thread; errors are TransportErrors."""

    def __init__(self, login: SshLogin, children: Children, folder: Path | None = None) -> None:
        self.login = login
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
        """End the connection and all that it carries. A later call opens it anew."""
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
        shell = RemoteShell(self._start(*self._words(), "--", self.login.target, "exec sh"))
        try:
            shell.greet(timeout_s=_GREETING_S, check=check)
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
            self._socket = new_socket_path(self._folder)
            try:
                self._master = RemoteShell(
                    self._start(*self._words(), "-o", "ControlMaster=yes", "--", self.login.target, "exec sh")
                )
                self._master.greet(timeout_s=_GREETING_S, check=check)
                self._tools = tools_in(self._master.ask(_ASK_TOOLS, check=check).output.decode(), self.login)
            except ShellEndedError as error:
                self._close()
                raise self._no_connection(error) from error
            except BaseException:
                self._close()
                raise

    def _no_connection(self, error: ShellEndedError) -> TransportError:
        said = classified_ssh(self.login, f"Cannot connect to {self.login.target}", error.tail)
        if error.returncode in (None, 255) or said.kind is _AUTH:
            return said
        why = f"{self.login.target} lets us in and runs no command of ours (it ended with {error.returncode})."
        return NoShellError(why, detail=error.tail)

    def _words(self) -> list[str]:
        return ssh_words(self.login, self._socket)

    def _start(self, *command: str) -> Child:
        return self._children.start(command, purpose=f"ssh {self.login.target}", has_stdin=True)

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
                    self._master.ask(script, timeout_s=_END_GROUP_S)
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

    def __init__(self, login: SshLogin, children: Children, folder: Path | None = None) -> None:
        self.login = login
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
            return ssh_words(self.login, self._socket)

    def close(self) -> None:
        """End the connection. A later call opens it anew."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        self._socket = new_socket_path(self._folder)
        words = [*ssh_words(self.login, self._socket), "-N", "-o", "ControlMaster=yes", "--", self.login.target]
        self._master = self._children.start(words, purpose=f"ssh {self.login.target}")
        self._master.listen(lambda _: None)
        watch = StallWatch(_GREETING_S, f"ssh to {self.login.target}")
        while not os.path.exists(self._socket):
            if self._master.has_ended_within(_LOOK_EVERY_S):
                tail = self._master.tail()
                self._close()
                raise classified_ssh(self.login, f"Cannot connect to {self.login.target}", tail)
            watch.saw(None)

    def _close(self) -> None:
        if self._master is not None:
            self._master.end()
            self._master = None
        remove_socket(self._socket, self._folder)
        self._socket = ""


# --- its socket ------------------------------------------------------------------------------------------------------


def ssh_words(login: SshLogin, socket_path: str) -> list[str]:
    """Return the command that reaches the login over the connection with this socket."""
    how_to_get = "install OpenSSH's client (the package openssh-client or openssh-clients)."
    ssh = find_program("ssh", how_to_get=how_to_get)
    return [ssh, *login.options(), "-S", socket_path.replace("%", "%%")]


def new_socket_path(folder: Path | None) -> str:
    """Return a path for a connection's socket, in a folder of this user alone; what agents killed long ago left there goes."""
    name = secrets.token_hex(4)
    if folder is not None and len(os.fsencode(folder)) + 1 + len(name) <= _SOCKET_PATH_BYTES_MAX:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_dead_sockets(folder)
        return str(folder / name)
    for left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            status = left.lstat()
            if status.st_uid == os.getuid() and SystemClock().now().timestamp() - status.st_mtime > _LEFT_FOR_S:
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
