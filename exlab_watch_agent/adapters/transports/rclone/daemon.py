"""One long-lived `rclone rcd` for one equipment, and its connections.

A process start costs 70 ms and a new connection to the NAS as much again; a request to a running rclone costs one or
two. Decided here: which rclone, how it is started and with which flags, and which connections to it are kept. Not here: how
it is asked (requests.py), what its errors mean (errors.py), and what it is asked for (far_side.py).

It listens on a socket in a folder that only our user may enter (where a path would be too long, or on Windows, on
loopback with a password that it gets by its environment). It cannot do more than its own command line could.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import socket
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from exlab_watch_agent.adapters.children.environment import find_program
from exlab_watch_agent.adapters.children.process import Child, Children
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.rclone.config import RemoteConfig, read_remote
from exlab_watch_agent.adapters.transports.rclone.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rclone.requests import Requests
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.errors import FailureKind, TransportError

T = TypeVar("T")

VERSION_MIN = (1, 75, 0)
HOW_TO_GET = (
    "rclone 1.75 or later is needed: install it with `pip install exlab-watch-agent[rclone]`, "
    "or from https://rclone.org/downloads/."
)
PARTIAL_SUFFIX = ".exlab-partial"
_SOCKET_PATH_BYTES_MAX = 100
_LISTENS_EVERY_S = 0.005
# What a proxy or a private certificate authority needs; nothing else of the surroundings changes what rclone does.
_SURROUNDINGS = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_FLAGS = (
    "--rc-serve",
    "--rc-server-read-timeout=9000h",  # one request may be a push of many hours
    "--rc-server-write-timeout=9000h",
    "--rc-max-header-bytes=1048576",  # it holds long names, in %XX
    "--rc-job-expire-duration=5s",
    "--rc-job-expire-interval=1s",
    "--ask-password=false",
    "--ignore-existing",  # a name that is there when rclone looks is skipped; the few of our own say otherwise
    "--ignore-checksum",  # the module far_side.py says why
    "--retries=1",
    "--multi-thread-streams=0",
    "--buffer-size=1M",  # more would be read long before it is sent, and a change meanwhile not be seen
    f"--partial-suffix={PARTIAL_SUFFIX}",
    "--stats=0",
    "--log-level=NOTICE",
    "--use-json-log=false",
)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("rclone", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RcloneDaemon:
    """Keeps the process running from the first request on. Any thread; requests run side by side."""

    def __init__(
        self,
        target: RcloneTarget,
        children: Children | None = None,
        *,
        pace: Pace = PACE,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self._pace = pace
        self._clock = clock
        self._own_children = Children() if children is None else None
        self._children = children or self._own_children or Children()
        self._lock = threading.RLock()
        self._child: Child | None = None
        self._config: RemoteConfig | None = None
        self._address = ""
        self._headers: dict[str, str] = {}
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []  # since when, which; the latest last
        self._remembered: dict[str, Any] = {}
        self.remote = target.remote
        self.config_path = Path(target.config_path or _default_config_path())
        self.fs = f"{target.remote}:{target.remote_path}"

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> RemoteConfig:
        """What the operator's file says of the remote now. Raises: TransportError."""
        config = self._config
        if config is not None and _signature(self.config_path) == config.signature:
            return config
        self._config = read_remote(self.config_path, self.remote)
        return self._config

    @property
    def folder(self) -> Path:
        """A folder of our own, private to our user, that goes when the agent goes."""
        return self._children.private_folder()

    @property
    def call_s(self) -> float:
        return self._pace.call_s

    def tail(self) -> str:
        return self._child.tail() if self._child is not None else ""

    def ensure(self) -> None:
        """Let it run, with the operator's config as it is now. Raises: TransportError."""
        with self._lock:
            before = self._config
            config = self.config
            if self._child is not None and (config is not before or not self._child.is_running):
                self.stop()
            if self._child is None:
                self._start(config)

    def _start(self, config: RemoteConfig) -> None:
        program = rclone_program()
        folder, nonce = self.folder, secrets.token_hex(4)
        path = config.path
        if not config.has_token:
            path = folder / f"rclone-{nonce}.conf"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(config.text)
        environment = {name: os.environ[name] for name in _SURROUNDINGS if name in os.environ}
        self._address = f"{folder}/rclone-{nonce}"
        if os.name != "nt" and len(os.fsencode(self._address)) <= _SOCKET_PATH_BYTES_MAX:
            addressed = [f"--rc-addr=unix://{self._address}", "--rc-no-auth"]
            self._headers = {}
        else:
            password = secrets.token_hex(16)
            self._address = f"127.0.0.1:{_free_port()}"
            self._headers = {"Authorization": "Basic " + b64encode(f"agent:{password}".encode()).decode()}
            environment |= {"RCLONE_RC_USER": "agent", "RCLONE_RC_PASS": password}
            addressed = [f"--rc-addr={self._address}"]
        self._child = self._children.start(
            [
                program,
                "rcd",
                f"--config={path}",
                f"--cache-dir={folder}",
                f"--temp-dir={folder}",
                *addressed,
                *self._flags(),
            ],
            purpose=f"rclone to {self.fs}",
            environment=environment,
        )
        self._child.listen(lambda _: None)
        self._remembered = {}
        deadline_s = self._clock.monotonic_s() + self._pace.start_s
        while not self._answers():
            if not self._child.is_running or self._clock.monotonic_s() > deadline_s:
                tail = self._child.tail()
                self.stop()
                text = f"rclone could not be started: {tail.splitlines()[-1] if tail else 'it said nothing'}"
                raise TransportError(FailureKind.UNKNOWN, text, detail=tail)
            self._clock.pause(_LISTENS_EVERY_S)

    def _flags(self) -> tuple[str, ...]:
        return (
            *_FLAGS,
            f"--low-level-retries={self._pace.tries_max}",
            f"--contimeout={self._pace.connect_s:g}s",
            f"--timeout={self._pace.silence_s:g}s",
        )

    def _answers(self) -> bool:
        connection = self._new_connection()
        try:
            connection.connect()
        except OSError:
            connection.close()
            return False
        self._idle.append((self._clock.monotonic_s(), connection))
        return True

    def stop(self) -> None:
        """End the process, and whatever it is doing. The next request starts another."""
        with self._lock:
            child, self._child = self._child, None
            idle, self._idle = self._idle, []
            for _, connection in idle:
                connection.close()
            if child is not None:
                child.end()

    def close(self) -> None:
        self.stop()
        if self._own_children is not None:
            self._own_children.close()

    # --- requests ----------------------------------------------------------------------------------------------------

    def once(self, path: str, parameters: Mapping[str, Any]) -> Any:
        """Return the answer to a question whose answer stays the same while the process runs."""
        return self.remembered(
            f"{path} {json.dumps(parameters, sort_keys=True)}", lambda: Requests(self).call(path, parameters)
        )

    def remembered(self, name: str, find: Callable[[], T]) -> T:
        """Return what `find` returned when it was first called in this life of the process."""
        self.ensure()
        if name not in self._remembered:
            self._remembered[name] = find()
        found: T = self._remembered[name]
        return found

    def take(self) -> http.client.HTTPConnection:
        self.ensure()
        with self._lock:
            while self._idle:
                since_s, connection = self._idle.pop()
                if self._clock.monotonic_s() - since_s < self._pace.idle_s:
                    return connection
                connection.close()
            return self._new_connection()

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if self._child is not None:
                self._idle.append((self._clock.monotonic_s(), connection))
                return
        connection.close()

    def headers(self) -> dict[str, str]:
        return dict(self._headers)

    def _new_connection(self) -> http.client.HTTPConnection:
        if self._headers:
            return http.client.HTTPConnection(self._address, timeout=self._pace.call_s)
        return _UnixConnection(self._address, self._pace.call_s)


def rclone_program() -> str:
    """Return the path of an rclone that is new enough. Raises: TransportError with `binary_missing`."""
    program = find_program("rclone", how_to_get=HOW_TO_GET, is_beside_python=True)
    status = os.stat(program)
    version = rclone_version(program, (status.st_ino, status.st_mtime_ns))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < VERSION_MIN:
        text = f"{program} is rclone {version or 'of an unknown version'}, which is too old to be trusted with data: {HOW_TO_GET}"
        raise TransportError(FailureKind.BINARY_MISSING, text)
    return program


@cache
def rclone_version(program: str, _identity: tuple[int, int]) -> str:
    """Return the version that the program says, "" when it says none. Asked once for each binary."""
    children = Children()
    try:
        ended = children.run([program, "version", "--config=" + os.devnull], purpose="rclone version", stall_s=30)
    finally:
        children.close()
    found = re.match(rb"rclone v(\d+\.\d+[\w.+-]*)", ended.stdout)
    return found[1].decode() if found else ""


def _default_config_path() -> str:
    """Return where rclone keeps its config when nothing else is said."""
    if sys.platform == "win32":
        return os.path.join(os.environ.get("APPDATA", ""), "rclone", "rclone.conf")
    return os.path.expanduser("~/.config/rclone/rclone.conf")


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
