"""Turns blocks that a shell on the target reads into the samples of files."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import xxhash

from exlab_watch_agent.adapters.transports.rsync.target_folder import BLOCK_BYTES
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.sampling import BLOCK_BYTES as SAMPLE_BYTES
from exlab_watch_agent.core.sampling import sample_offsets
from exlab_watch_agent.errors import FailureKind, TransportError


class Sampler:
    """Turns the target's blocks, which come one after the other in one stream, into one digest a file.

    `dd` reads at multiples of its block: so of each sample both blocks in which it can lie are asked for.
    """

    def __init__(self, files: Sequence[FileEntry], sizes: Mapping[str, int]) -> None:
        self.blocks: list[tuple[str, list[int]]] = []
        self._hashers = {entry.path: xxhash.xxh3_128() for entry in files}
        self._expected: deque[tuple[str, int, int, int]] = deque()  # path, bytes that come, sample from, sample to
        self._left = bytearray()
        for entry in files:
            numbers = []
            for offset in sample_offsets(entry.size_bytes):
                number = offset // BLOCK_BYTES
                coming = min(max(0, sizes[entry.path] - number * BLOCK_BYTES), 2 * BLOCK_BYTES)
                begin = offset - number * BLOCK_BYTES
                end = begin + min(SAMPLE_BYTES, entry.size_bytes - offset)
                numbers.append(number)
                self._expected.append((entry.path, coming, begin, end))
            self.blocks.append((entry.path, numbers))

    def take(self, data: bytes) -> None:
        self._left += data
        while self._expected and len(self._left) >= self._expected[0][1]:
            path, coming, begin, end = self._expected.popleft()
            self._hashers[path].update(bytes(self._left[:coming][begin:end]))
            del self._left[:coming]

    def digests(self) -> dict[str, str]:
        """Return path → xxh3_128. Raises: TransportError when less or more came than the files' sizes promised."""
        if self._expected or self._left:
            raise TransportError(FailureKind.NETWORK, "Files on the target changed while samples of them were read.")
        return {path: hasher.hexdigest() for path, hasher in self._hashers.items()}
