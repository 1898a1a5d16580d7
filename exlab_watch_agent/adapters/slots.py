"""A TinyDB storage that cannot be half written: two slots, written in turn, each with length and digest.

TinyDB's own storage rewrites its file in place and truncates last; a stop in the middle leaves unreadable JSON, and a
file of length zero opens as an empty database without a word. Here a slot is one header line and one body line. The
newest slot whose digest fits is the state; a damaged one is reported, never taken for an empty one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from tinydb.storages import Storage

from exlab_watch_agent.adapters.durable import write_atomically

SLOT_NAMES = ("state.a.json", "state.b.json")


@dataclass(frozen=True, slots=True)
class SlotReport:
    """What was found: the newest good content, and the slots that exist and are damaged."""

    generation: int
    content: dict[str, dict[str, Any]] | None
    damaged: tuple[Path, ...]


def read_slots(folder: Path) -> SlotReport:
    """Return the newest good content of the two slots. Raises: OSError when a slot exists and cannot be read."""
    generation, content = 0, None
    damaged: list[Path] = []
    for name in SLOT_NAMES:
        path = folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        parsed = _parse(data)
        if parsed is None:
            damaged.append(path)
        elif parsed[0] > generation:
            generation, content = parsed
    return SlotReport(generation, content, tuple(damaged))


def _parse(data: bytes) -> tuple[int, dict[str, dict[str, Any]]] | None:
    header_line, _, body = data.partition(b"\n")
    try:
        header = json.loads(header_line)
        generation, length, digest = int(header["generation"]), int(header["length"]), str(header["blake3"])
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None
    if generation <= 0 or len(body) != length or _digest(generation, body) != digest:
        return None
    content = json.loads(body)
    is_tables = isinstance(content, dict) and all(isinstance(table, dict) for table in content.values())
    return (generation, content) if is_tables else None


def _digest(generation: int, body: bytes) -> str:
    """Return the BLAKE3 over number and body: a slot must not pass for a newer one either."""
    return str(blake3(b"%d\n" % generation + body).hexdigest())


class SlotStorage(Storage):
    """The storage behind TinyDB. `write` is durable when it returns and never touches the newest good slot."""

    def __init__(self, folder: Path, content: dict[str, dict[str, Any]]) -> None:
        """`content`: what the caller has read from the slots and brought up to date."""
        self._folder = folder
        self._content = content
        self._generation = read_slots(folder).generation

    def read(self) -> dict[str, dict[str, Any]] | None:
        return self._content

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        body = json.dumps(data, separators=(",", ":")).encode()
        generation = self._generation + 1
        header = {"generation": generation, "length": len(body), "blake3": _digest(generation, body)}
        path = self._folder / SLOT_NAMES[generation % 2]
        write_atomically(path, json.dumps(header).encode() + b"\n" + body, mode=0o600)
        self._generation = generation
