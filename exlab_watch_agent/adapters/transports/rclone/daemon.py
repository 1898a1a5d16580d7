"""One long-lived `rclone rcd` for one equipment, and requests to it over a private socket.

A process start costs 70 ms and a new connection to the NAS as much again; a request to a running rclone costs one or
two. Decided here: which rclone, how it is started and with which flags, how it is asked, and what its errors mean. Not
here: what it is asked for (rclone.py).

It listens on a socket in a folder that only our user may enter (where a path would be too long, or on Windows, on
loopback with a password that it gets by its environment). It cannot do more than its own command line could.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from exlab_watch_agent.adapters.children.environment import find_program
from exlab_watch_agent.adapters.children.process import Child, Children
from exlab_watch_agent.adapters.children.tail import redacted
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.transports.rclone.config import RemoteConfig, read_remote
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.errors import FailureKind, TransportError

T = TypeVar("T")

VERSION_MIN = (1, 75, 0)
HOW_TO_GET = (
    "rclone 1.75 or later is needed: install it with `pip install exlab-watch-agent[rclone]`, "
    "or from https://rclone.org/downloads/."
)
PARTIAL_SUFFIX = ".exlab-partial"
CALL_S = 150.0
IDLE_S = 30.0
"""How long a connection may lie idle and be used again. rclone closes one that nobody uses for 60 s, and a request over
that would look as if rclone had ended."""
_START_S = 30.0
_SOCKET_PATH_BYTES_MAX = 100
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
    "--rc-max-header-bytes=1048576",  # long names stand in it, in %XX
    "--rc-job-expire-duration=5s",
    "--rc-job-expire-interval=1s",
    "--ask-password=false",
    "--ignore-existing",  # a name that is there when rclone looks is passed over; the few of our own say otherwise
    "--ignore-checksum",  # the module rclone.py says why
    "--retries=1",
    "--low-level-retries=3",
    "--contimeout=15s",
    "--timeout=2m",
    "--multi-thread-streams=0",
    "--buffer-size=1M",  # more would be read long before it is sent, and a change meanwhile not be seen
    f"--partial-suffix={PARTIAL_SUFFIX}",
    "--stats=0",
    "--log-level=NOTICE",
    "--use-json-log=false",
)

_AUTH, _FULL, _NETWORK = FailureKind.AUTH, FailureKind.DESTINATION_FULL, FailureKind.NETWORK
# rclone's errors are words that came from the backend, so words it must be; the first that fits. What an answering
# server said of itself comes before what the link may have had to do with it.
_KINDS: tuple[tuple[str, FailureKind], ...] = (
    (
        r"no space left|disk space|disk.{0,10}full|disk quota|quota.{0,20}exceeded|insufficient.?storage|storagefull"
        r"|: 552|\b507\b",
        _FULL,
    ),
    (
        r"unable to authenticate|no supported methods remain|ssh: no key found|attempted logon is invalid|logon.?failure",
        _AUTH,
    ),
    (r"knownhosts: key|host key|certificate signed by unknown|certificate is not valid|certificate has expired", _AUTH),
    (r"permission denied|access.?denied|access is denied|read-only file system|operation not permitted", _AUTH),
    (
        r"\b401\b|\b403\b|unauthori[sz]ed|forbidden|login (incorrect|failed)|: 530|signaturedoesnotmatch|invalidaccesskey",
        _AUTH,
    ),
    (
        r"password (is )?(wrong|incorrect)|wrong password|invalid_grant|token expired|account.{0,20}(locked|disabled)",
        _AUTH,
    ),
    (
        r"connection refused|no route to host|network is (unreachable|down)|host is down|no such host|server misbehaving",
        _NETWORK,
    ),
    (r"i/o timeout|timed? ?out|deadline exceeded|connection (reset|lost|closed|aborted)|broken pipe|\beof\b", _NETWORK),
    (
        r"closed network|couldn't connect|failed to connect|handshake failed|use of closed|\b50[234]\b|\b42[16]\b",
        _NETWORK,
    ),
)


_IS_FOLDER = "is a directory not a file"


def failure_kind(text: str) -> FailureKind:
    """Return what an error of rclone means for a push."""
    words = text.lower()
    return next((kind for pattern, kind in _KINDS if re.search(pattern, words)), FailureKind.UNKNOWN)


class RcloneError(Exception):
    """rclone could not do what a request asked. `is_missing`: the file or folder is not there."""

    def __init__(self, text: str, *, is_missing: bool = False, kind: FailureKind | None = None, tail: str = "") -> None:
        super().__init__(redacted(text))
        self.is_missing = is_missing
        self.kind = kind or failure_kind(text)
        self.tail = tail


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("rclone", timeout=CALL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RcloneDaemon:
    """Keeps the process running from the first request on. Any thread; requests run side by side."""

    def __init__(self, target: RcloneTarget, children: Children | None = None) -> None:
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
            [program, "rcd", f"--config={path}", f"--cache-dir={folder}", f"--temp-dir={folder}", *addressed, *_FLAGS],
            purpose=f"rclone to {self.fs}",
            environment=environment,
        )
        self._child.listen(lambda _: None)
        self._remembered = {}
        deadline_s = _monotonic_s() + _START_S
        while not self._answers():
            if not self._child.is_running or _monotonic_s() > deadline_s:
                tail = self._child.tail()
                self.stop()
                text = f"rclone could not be started: {tail.splitlines()[-1] if tail else 'it said nothing'}"
                raise TransportError(FailureKind.UNKNOWN, text, detail=tail)
            threading.Event().wait(0.005)

    def _answers(self) -> bool:
        connection = self._new_connection()
        try:
            connection.connect()
        except OSError:
            connection.close()
            return False
        self._idle.append((_monotonic_s(), connection))
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
                if _monotonic_s() - since_s < IDLE_S:
                    return connection
                connection.close()
            return self._new_connection()

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if self._child is not None:
                self._idle.append((_monotonic_s(), connection))
                return
        connection.close()

    def headers(self) -> dict[str, str]:
        return dict(self._headers)

    def _new_connection(self) -> http.client.HTTPConnection:
        if self._headers:
            return http.client.HTTPConnection(self._address, timeout=CALL_S)
        return _UnixConnection(self._address)


class Requests:
    """Requests that belong together and can be broken off together: rclone stops what a closed connection asked for."""

    def __init__(self, daemon: RcloneDaemon) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._is_broken_off = False

    def call(self, path: str, parameters: Mapping[str, Any], *, timeout_s: float | None = CALL_S) -> dict[str, Any]:
        """Return rclone's answer. Raises: RcloneError, TransportError."""
        body = json.dumps(parameters).encode("ascii")
        headers = {"Content-Type": "application/json"}
        with self._asked("POST", f"/{path}", body, headers, timeout_s=timeout_s) as response:
            answer = json.loads(response.read())
        if response.status != http.client.OK:
            raise error_in(answer)
        assert isinstance(answer, dict), "rclone answers with an object"
        return answer

    @contextlib.contextmanager
    def reading(
        self, path: str, *, start: int = 0, size_bytes: int | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the bytes of one file (of a range of it). Raises: RcloneError, with `is_missing` when it is not there."""
        headers = {"Accept-Encoding": "identity"}
        if start or size_bytes is not None:
            last = "" if size_bytes is None else start + size_bytes - 1
            headers["Range"] = f"bytes={start}-{last}"
        address = quote(f"/[{self._daemon.fs}]/{path}", safe="/", errors="surrogateescape")
        with self._asked("GET", address, None, headers, timeout_s=CALL_S) as response:
            if response.status not in (http.client.OK, http.client.PARTIAL_CONTENT):
                text = response.read().decode("utf-8", "replace")
                if not response.headers.get("Content-Type", "").startswith("application/json"):
                    raise RcloneError(f"{path!r} is there and cannot be opened", tail=self._daemon.tail())
                raise error_in(json.loads(text))
            yield response

    def break_off(self) -> None:
        """End all requests, now and in future."""
        with self._lock:
            self._is_broken_off = True
            for connection in self._open:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _asked(
        self, method: str, address: str, body: bytes | None, headers: dict[str, str], *, timeout_s: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._daemon.take()
        is_reusable = False
        try:
            with self._lock:
                if self._is_broken_off:
                    raise RcloneError("broken off")
                self._open.add(connection)
            connection.timeout = timeout_s
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.request(method, address, body, headers | self._daemon.headers())
            response = connection.getresponse()
            yield response
            is_reusable = response.isclosed()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RcloneError(*_lost(error), kind=_kind_of_loss(error), tail=self._daemon.tail()) from error
        finally:
            with self._lock:
                self._open.discard(connection)
            if is_reusable and not self._is_broken_off:
                self._daemon.give_back(connection)
            else:
                connection.close()


def error_in(answer: Mapping[str, Any]) -> RcloneError:
    """Return the error that an answer of rclone says: {"error", "status", "path", "input"}."""
    text = str(answer.get("error", "rclone gave no reason"))
    is_missing = answer.get("status") == http.client.NOT_FOUND or _IS_FOLDER in text
    return RcloneError(text, is_missing=is_missing)


def _lost(error: Exception) -> tuple[str]:
    if isinstance(error, TimeoutError):
        return (f"rclone gave no answer for {CALL_S:.0f} seconds",)
    return ("rclone ended while it was asked",)


def _kind_of_loss(error: Exception) -> FailureKind:
    return FailureKind.NETWORK if isinstance(error, TimeoutError) else FailureKind.UNKNOWN


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


_monotonic_s = SystemClock().monotonic_s
