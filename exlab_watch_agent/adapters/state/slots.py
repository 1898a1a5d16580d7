"""The projection on disk, which cannot be half written: two slots, written in turn, each with length and digest.

TinyDB's own storage rewrites its file in place and truncates last; a stop in the middle leaves unreadable JSON, and a
file of length zero opens as an empty database without a word. Here a slot is a header line, a line of facts, and one line
a document. The newest slot whose digest fits is the state; a damaged one is reported, never taken for an empty one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from exlab_watch_agent.adapters.local.durable import write_atomically
from exlab_watch_agent.adapters.state.documents import json_bytes
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.errors import StateFolderError

STORE_SCHEMA = 2
"""2: one line a document, histories in the trail. 1: one JSON body with histories; read, and written again as 2."""
_HEADER_BYTES_MAX = 4096
_CHUNK_BYTES = 1 << 20
_LINES_A_CHUNK = 1000


@dataclass(slots=True)
class SlotReport:
    """What was found: the newest good slot (generation 0 for none), and the slots that exist and are damaged.

    `lines`: the documents as they are there; for schema 1 rewritten as schema 2, each without its place in the trail.
    """

    generation: int = 0
    schema: int = STORE_SCHEMA
    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    damaged: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class _Header:
    generation: int
    schema: int
    length: int
    digest: str


def read_slots(folder: Path) -> SlotReport:
    """Return the newest good content of the two slots.

    Raises: OSError when a slot exists and cannot be read; StateFolderError when another version wrote a good one.
    """
    newest: tuple[_Header, BinaryIO] | None = None
    damaged: list[Path] = []
    opened: list[BinaryIO] = []
    try:
        for path in StateLayout(folder).slots:
            try:
                opened.append(path.open("rb"))
            except FileNotFoundError:
                continue
            header = _checked_header(opened[-1])
            if header is None:
                damaged.append(path)
            elif newest is None or header.generation > newest[0].generation:
                newest = header, opened[-1]
        if newest is None:
            return SlotReport(damaged=tuple(damaged))
        return _content(*newest, folder, tuple(damaged))
    finally:
        for file in opened:
            file.close()


def _checked_header(file: BinaryIO) -> _Header | None:
    """Return the header of a slot whose bytes are those that were written, None for a damaged one."""
    try:
        raw = json.loads(file.readline(_HEADER_BYTES_MAX))
        header = _Header(int(raw["generation"]), int(raw.get("schema", 1)), int(raw["length"]), str(raw["blake3"]))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
    length, digest = _measured(header.generation, header.schema, chunks)
    return header if header.generation > 0 and (length, digest) == (header.length, header.digest) else None


def _measured(generation: int, schema: int, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Return length and BLAKE3 of a body, the latter also over the numbers: a slot must not pass for a newer one either."""
    length = 0
    hasher = blake3(b"%d\n" % generation if schema == 1 else b"%d %d\n" % (generation, schema))
    for chunk in chunks:
        length += len(chunk)
        hasher.update(chunk)
    return length, hasher.hexdigest()


def _content(header: _Header, file: BinaryIO, folder: Path, damaged: tuple[Path, ...]) -> SlotReport:
    file.seek(0)
    file.readline()
    if header.schema == 1:
        content = json.loads(file.read())
        facts = content.get("facts", {})
        if facts.get("head", {}).get("schema") != 1:
            raise _of_another_version(folder, facts.get("head", {}).get("schema"))
        records = (document["record"] for document in content.get("runs", {}).values())
        lines = [json_bytes({"last": None, "record": record}) for record in records]
    elif header.schema == STORE_SCHEMA:
        facts = json.loads(file.readline())
        lines = [line[:-1] for line in file]
    else:
        raise _of_another_version(folder, header.schema)
    return SlotReport(header.generation, header.schema, facts, lines, damaged)


def _of_another_version(folder: Path, schema: Any) -> StateFolderError:
    return StateFolderError(
        f"{folder} was written by another version of the agent (schema {schema}, this one knows {STORE_SCHEMA}): "
        "install that version again."
    )


class Slots:
    """Writes the two slots in turn. `write` is durable when it returns and never touches the newest good slot."""

    def __init__(self, folder: Path, generation: int) -> None:
        """`generation`: the number of the newest good slot, 0 for none."""
        self._layout = StateLayout(folder)
        self._generation = generation

    def write(self, facts: bytes, lines: list[bytes]) -> None:
        """Write the next slot from bytes that nobody changes: may be called from a thread of its own. Raises: OSError."""
        generation = self._generation + 1
        length, digest = _measured(generation, STORE_SCHEMA, _body(facts, lines))
        header = {"schema": STORE_SCHEMA, "generation": generation, "length": length, "blake3": digest}
        path = self._layout.slots[generation % 2]
        write_atomically(path, _chain(json_bytes(header) + b"\n", _body(facts, lines)), mode=0o600)
        self._generation = generation


def _body(facts: bytes, lines: list[bytes]) -> Iterator[bytes]:
    """Yield the body in pieces: no copy of all of it is made, and no piece keeps other threads waiting for long."""
    yield facts + b"\n"
    for start in range(0, len(lines), _LINES_A_CHUNK):
        yield b"\n".join(lines[start : start + _LINES_A_CHUNK]) + b"\n"


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
