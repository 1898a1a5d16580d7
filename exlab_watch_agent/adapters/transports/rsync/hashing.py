"""SHA-256 of what is on the target: by a program there, in portions side by side, or of all bytes read back."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from operator import itemgetter

from exlab_watch_agent.adapters.local.digests import Pulse
from exlab_watch_agent.adapters.transports.rsync.connection import SshConnection
from exlab_watch_agent.adapters.transports.rsync.target_folder import TargetFolder, checking, data_below
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.errors import CancelledError, FailureKind, TransportError
from exlab_watch_agent.ports import Control

_PORTION_BYTES = 64 * 1024 * 1024
_PORTION_FILES = 500
_HASHERS_MAX = 4
_SLOWEST_HASH_BYTES_PER_S = 1_000_000

Open = Callable[[Control], AbstractContextManager[TargetFolder]]


class Hashing:
    """`open_folder` opens the root through a shell that is the caller's alone."""

    def __init__(self, connection: SshConnection, open_folder: Open) -> None:
        self._connection = connection
        self._open = open_folder

    def digests(self, destination: str, paths: Sequence[str], control: Control) -> dict[str, str]:
        """Return path → SHA-256 of each regular file that is there."""
        checking(control)()
        tools = self._connection.tools()
        with self._open(control) as folder:
            standing = data_below(folder, destination)
        files = [(path, standing[path].size_bytes) for path in paths if path in standing and standing[path].is_file]
        if tools.hasher is None:
            return self._streamed_digests(destination, files, control)
        waiting = deque(
            portions(files, count_max=_PORTION_FILES, bytes_max=_PORTION_BYTES, size_bytes_of=itemgetter(1))
        )
        workers = min(len(waiting), _HASHERS_MAX, max(1, tools.processors))
        found: dict[str, str] = {}
        pulse = Pulse(control)
        has_failed = threading.Event()

        def work_off() -> None:
            own = Control(lambda: has_failed.is_set() or control.is_cancelled())
            try:
                with self._open(own) as folder:
                    while waiting:
                        with contextlib.suppress(IndexError):
                            self._hash_portion(folder, destination, waiting.popleft(), found, pulse)
            except BaseException:
                has_failed.set()
                raise

        if workers <= 1:
            work_off()
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="remote-digests") as pool:
                ends = [pool.submit(work_off) for _ in range(workers)]
            errors = [error for end in ends if (error := end.exception()) is not None]
            if errors:
                raise next((e for e in errors if not isinstance(e, CancelledError)), errors[0])
        pulse.finished()
        return found

    def _hash_portion(
        self,
        folder: TargetFolder,
        destination: str,
        files: Sequence[tuple[str, int]],
        found: dict[str, str],
        pulse: Pulse,
    ) -> None:
        size_bytes = sum(size for _, size in files)
        some = folder.digests(
            destination,
            [path for path, _ in files],
            silence_s=self._connection.login.pace.answer_s + size_bytes / _SLOWEST_HASH_BYTES_PER_S,
        )
        if len(some) != len(files):
            standing = data_below(folder, destination)
            left = [path for path, _ in files if path not in some and path in standing]
            if left:
                text = f"Cannot hash {left[0]!r} on the target: the account may not read it, or its disk fails."
                raise TransportError(FailureKind.AUTH, text)
        found |= some
        for _ in files:
            pulse.finished_file()
        pulse.moved(size_bytes)

    def _streamed_digests(self, destination: str, files: Sequence[tuple[str, int]], control: Control) -> dict[str, str]:
        """The same where nothing on the target can hash: all bytes come back here."""
        found = {}
        pulse = Pulse(control)
        with self._open(control) as folder:
            for path, _ in files:
                hasher = hashlib.sha256()

                def take(data: bytes, hasher: hashlib._Hash = hasher) -> None:
                    hasher.update(data)
                    pulse.moved(len(data))

                if folder.stream(f"{destination}/{path}", take):
                    found[path] = hasher.hexdigest()
                    pulse.finished_file()
        pulse.finished()
        return found
