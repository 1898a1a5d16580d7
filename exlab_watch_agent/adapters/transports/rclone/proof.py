"""What proves a copy at a remote: samples of large files, and SHA-256 of everything.

Decided here: whose hash is believed, which files are worth asking a server for theirs, and how the others are read back.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xxhash

from exlab_watch_agent.adapters.local.digests import Pulse
from exlab_watch_agent.adapters.transports.rclone.errors import RcloneError, error_in
from exlab_watch_agent.adapters.transports.rclone.jobs import Jobs, Supervision
from exlab_watch_agent.adapters.transports.rclone.remote import Remote, below
from exlab_watch_agent.adapters.transports.rclone.requests import Requests
from exlab_watch_agent.adapters.transports.shared.own_files import MARKER_FILE, require_inside
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.sampling import BLOCK_BYTES, sample_offsets
from exlab_watch_agent.errors import CancelledError
from exlab_watch_agent.ports import Control

SAMPLED_BYTES_MIN = 32 * 1024 * 1024
"""Below this many bytes in all, the verifier has read everything sooner than ranges of it could be asked for."""
HASHED_THERE_BYTES_MIN = 1024 * 1024
"""A server's own sha256sum costs it a process for each file; smaller files are read sooner."""
_FILES_PER_REQUEST = 500
_READERS = 4
_DIGEST_CHARACTERS = 64
_SLOWEST_HASH_BYTES_PER_S = 10_000_000
_HASHES_THERE = frozenset({"sftp"})
"""Backends whose SHA-256 is taken by the server, of the bytes on its disk, when it is asked. Others keep what they once
were told, or what they saw while the bytes arrived: that is not a reading of what is stored."""

_ON_THIS_PC = frozenset({"local"})


class Proof:
    """Reads back what is at one remote. Methods raise RcloneError, TransportError, CancelledError."""

    def __init__(self, remote: Remote, jobs: Jobs, *, sampled_bytes_min: int, stream_bytes_max: int | None) -> None:
        self._remote = remote
        self._jobs = jobs
        self._sampled_bytes_min = sampled_bytes_min
        self._stream_bytes_max = stream_bytes_max

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        """Return path → xxh3_128 of some blocks of each file that is there; None where reading them would not pay."""
        if sum(entry.size_bytes for entry in files) < self._sampled_bytes_min:
            return None
        found: dict[str, str] = {}
        there = self._remote.files(destination)
        present = [entry for entry in files if require_inside(entry.path) in there]
        pulse = Pulse(control)

        def sample(requests: Requests, entry: FileEntry) -> None:
            hasher = xxhash.xxh3_128()
            for offset in sample_offsets(entry.size_bytes):
                data = b""
                if offset < there[entry.path].size_bytes:
                    path = f"{destination}/{entry.path}"
                    with requests.reading(path, start=offset, size_bytes=BLOCK_BYTES) as response:
                        data = response.read(BLOCK_BYTES)
                hasher.update(data)
                pulse.moved(len(data))
            found[entry.path] = hasher.hexdigest()

        supervision = self._jobs.supervision(control, lambda: pulse.bytes_moved)
        self._jobs.supervise(present, sample, supervision=supervision, threads=_READERS)
        return found

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        """Return path → SHA-256 of each file that is there. A remote on this PC's own disk is read through its cache."""
        for path in paths:
            require_inside(path)
        found: dict[str, str] = {}
        if control.is_cancelled():
            raise CancelledError("stopped as asked")
        asked: list[str] = []
        sizes: dict[str, int] = {}
        if self._hashes_there():
            sizes = {path: file.size_bytes for path, file in self._remote.files(destination).items()}
            asked = sorted(path for path in paths if sizes.get(path, 0) >= HASHED_THERE_BYTES_MIN)
        read = sorted(set(paths) - set(asked))
        # A server that hashes says nothing meanwhile: then only time can tell, at 10 MB a second.
        longest = max((sizes[path] for path in asked), default=0)
        group = f"proof-{secrets.token_hex(4)}"
        more_s = longest / _SLOWEST_HASH_BYTES_PER_S
        supervision = self._jobs.supervision(control, lambda: self._jobs.moved(group), more_s=more_s)
        try:
            found |= self._read_and_hashed(destination, read, group=group, supervision=supervision)
            # Of a file that cannot be read a list of hashes says nothing; asked for it alone, rclone says why.
            silent = set(read) - found.keys()
            silent &= self._remote.files(destination).keys() if silent else set()
            for wanted, more in ((asked, {}), (sorted(silent), {"download": True})):
                for batch in portions(wanted, count_max=_FILES_PER_REQUEST):
                    inputs = [
                        {"fs": self._remote.fs, "remote": f"{destination}/{path}", "hashType": "sha256", **more}
                        for path in batch
                    ]
                    answers = self._jobs.batched(
                        "hashsumfile", inputs, group=group, at_once=_READERS, supervision=supervision
                    )
                    found |= _digests_in(zip(batch, answers, strict=True))
        finally:
            self._jobs.forget(group)
        if self._remote.daemon.config.leaf_types & _ON_THIS_PC:
            return ReadBack(found, HowRead.PAGE_CACHE, is_past_cache=False)
        return ReadBack(found, HowRead.SERVER_HASH if asked else HowRead.DOWNLOAD, is_past_cache=True)

    def _read_and_hashed(
        self, destination: str, paths: Sequence[str], *, group: str, supervision: Supervision
    ) -> Mapping[str, str]:
        """Return path → SHA-256 of files that rclone reads back; one that is not there is left out."""
        if not paths:
            return {}
        with self._jobs.listed(f"{destination}/{path}" for path in paths) as names:
            parameters = {
                "fs": self._remote.fs, "hashType": "sha256", "download": True,
                "_config": {"Checkers": _READERS, "NoTraverse": True}, "_filter": names, "_group": group,
            }  # fmt: skip
            answer = self._jobs.working("operations/hashsum", parameters, group=group, supervision=supervision)
        lines = [(below(line[_DIGEST_CHARACTERS + 2 :], destination), line) for line in answer["hashsum"]]
        return _digests_in((path, {"hash": line[:_DIGEST_CHARACTERS]}) for path, line in lines)

    def digest_bytes_max(self) -> int | None:
        """Return from which size on a file is not hashed, None where every file is."""
        if self._remote.daemon.config.base_type == "local" or self._hashes_there():
            return None
        return self._stream_bytes_max

    def _hashes_there(self) -> bool:
        """Whether the server itself takes SHA-256, which it has shown on the marker."""
        if self._remote.daemon.config.base_type not in _HASHES_THERE or "sha256" not in self._remote.info()["Hashes"]:
            return False
        return self._remote.daemon.remembered("hashes there", self._hashes_the_marker)

    def _hashes_the_marker(self) -> bool:
        known = self._remote.read_own(MARKER_FILE)
        try:
            answer = self._remote.ask(
                "operations/hashsumfile", fs=self._remote.fs, remote=MARKER_FILE, hashType="sha256"
            )
        except RcloneError:  # it has no such program, or runs none for us
            return False
        return known is not None and answer.get("hash") == hashlib.sha256(known).hexdigest()


def _digests_in(answers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Return path → SHA-256 of what was hashed; a file that is not there is left out. Raises: RcloneError."""
    found: dict[str, str] = {}
    for path, answer in answers:
        if "error" in answer:
            error = error_in(answer)
            if error.is_missing:
                continue
            raise error
        digest = str(answer.get("hash", ""))
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise RcloneError(f"there is no SHA-256 of {path!r}")
        found[path] = digest
    return found
