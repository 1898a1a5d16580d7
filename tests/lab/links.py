"""A link to a server that can be cut, made silent or slow, and mended."""

from __future__ import annotations

import selectors
import socket
import threading
import time

from tests.lab.servers import HOST


class Link:
    """A TCP link on loopback to a server's port, which can be cut, fall silent, or be slow. One thread carries all of it.

    `cut_after_bytes` counts what has gone up (towards the server) on all connections together; so does
    `silent_after_bytes`.
    """

    def __init__(self, to_port: int) -> None:
        self.bytes_up = 0
        self.cut_after_bytes: int | None = None
        self.silent_after_bytes: int | None = None
        self.is_silent = False
        self.is_refusing = False
        self.rate_up: float | None = None
        self._to_port = to_port
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._ups: set[socket.socket] = set()
        self._is_ending = False
        self._paid_s = 0.0
        self._thread = threading.Thread(target=self._carry, name=f"link to port {to_port}")

    def __enter__(self) -> Link:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending = True
        self._thread.join(10)
        self._cut()
        self._listener.close()
        self._selector.close()

    def cut(self) -> None:
        """Cut all connections at the next byte, and refuse new ones until `mend`."""
        self.is_refusing = True

    def mend(self) -> None:
        """Carry everything again."""
        self.cut_after_bytes = self.silent_after_bytes = self.rate_up = None
        self.is_silent = self.is_refusing = False

    def _carry(self) -> None:
        while not self._is_ending:
            if self.is_refusing:
                self._cut()
            for key, _ in self._selector.select(0.02):
                if key.fileobj is self._listener:
                    self._accept()
                elif not self.is_silent:
                    self._pass_on(key.fileobj)  # type: ignore[arg-type]
            if self.is_silent:
                time.sleep(0.02)  # the select comes back at once while nobody reads

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self.is_refusing:
            near.close()
            return
        try:
            far = socket.create_connection((HOST, self._to_port), timeout=5)
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.settimeout(5)
            self._selector.register(sock, selectors.EVENT_READ)
        self._pairs |= {near: far, far: near}
        self._ups.add(near)

    def _pass_on(self, sock: socket.socket) -> None:
        other = self._pairs.get(sock)
        if other is None:
            return
        is_watched = any(x is not None for x in (self.rate_up, self.cut_after_bytes, self.silent_after_bytes))
        piece = 16_384 if is_watched else 262_144
        try:
            data = sock.recv(piece)
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(sock, other)
        elif sock in self._ups:
            self.bytes_up += len(data)
            if self.cut_after_bytes is not None and self.bytes_up > self.cut_after_bytes:
                self.is_refusing = True
            if self.silent_after_bytes is not None and self.bytes_up > self.silent_after_bytes:
                self.is_silent = True
            if self.rate_up is not None:
                self._paid_s = max(self._paid_s, time.monotonic()) + len(data) / self.rate_up
                time.sleep(max(0.0, self._paid_s - time.monotonic()))

    def _drop(self, *socks: socket.socket) -> None:
        for sock in socks:
            if self._pairs.pop(sock, None) is not None:
                self._selector.unregister(sock)
                sock.close()
            self._ups.discard(sock)

    def _cut(self) -> None:
        self._drop(*list(self._pairs))
