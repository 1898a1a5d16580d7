"""Requests to a running rclone over its private socket, which can be broken off together.

Not here: the process behind it (daemon.py), and what it is asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from exlab_watch_agent.adapters.transports.rclone.errors import RcloneError, error_in
from exlab_watch_agent.errors import FailureKind


class Connections(Protocol):
    """Connections to the rclone that runs at present, which is started where none does."""

    @property
    def fs(self) -> str: ...

    @property
    def call_s(self) -> float:
        """How long rclone may take for an answer that needs no work of hours."""
        ...

    def take(self) -> http.client.HTTPConnection: ...

    def give_back(self, connection: http.client.HTTPConnection) -> None: ...

    def headers(self) -> dict[str, str]: ...

    def tail(self) -> str: ...


class Requests:
    """Requests that belong together and can be broken off together: rclone stops what a closed connection asked for."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._is_broken_off = False

    def call(self, path: str, parameters: Mapping[str, Any], *, may_take_hours: bool = False) -> dict[str, Any]:
        """Return rclone's answer. Raises: RcloneError, TransportError."""
        timeout_s = None if may_take_hours else self._connections.call_s
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
        address = quote(f"/[{self._connections.fs}]/{path}", safe="/", errors="surrogateescape")
        with self._asked("GET", address, None, headers, timeout_s=self._connections.call_s) as response:
            if response.status not in (http.client.OK, http.client.PARTIAL_CONTENT):
                text = response.read().decode("utf-8", "replace")
                if not response.headers.get("Content-Type", "").startswith("application/json"):
                    raise RcloneError(_cannot_be_opened(path), tail=self._connections.tail())
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
        connection = self._connections.take()
        is_reusable = False
        try:
            with self._lock:
                if self._is_broken_off:
                    raise RcloneError("broken off")
                self._open.add(connection)
            connection.timeout = timeout_s
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.request(method, address, body, headers | self._connections.headers())
            response = connection.getresponse()
            yield response
            is_reusable = response.isclosed()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._lost(error) from error
        finally:
            with self._lock:
                self._open.discard(connection)
            if is_reusable and not self._is_broken_off:
                self._connections.give_back(connection)
            else:
                connection.close()

    def _lost(self, error: Exception) -> RcloneError:
        tail = self._connections.tail()
        if isinstance(error, TimeoutError):
            text = f"rclone gave no answer for {self._connections.call_s:.0f} seconds"
            return RcloneError(text, kind=FailureKind.NETWORK, tail=tail)
        return RcloneError("rclone ended while it was asked", kind=FailureKind.UNKNOWN, tail=tail)


def _cannot_be_opened(path: str) -> str:
    """Return what is said of a file that is listed and that rclone's server of files does not give."""
    text = f"{path!r} is there and cannot be opened"
    if any(ord(character) < 32 for character in path):
        return f"{text}: rclone does not open names with line breaks or other control characters; rename it, or use another way"
    return text
