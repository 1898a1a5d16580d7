"""Finds lines of the audit trail by what they say, without parsing those that cannot match.

A trail of a million lines has a gigabyte. It is read from its first byte to its last: an index would have to be kept true, and
a search by halves would need times that only grow, which those of a PC do not. Each condition has bytes that a matching line must
hold, so most lines cost one search for them, and only the rest are parsed and asked exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.adapters.state.segments import find_segments
from exlab_watch_agent.core.members import block
from exlab_watch_agent.core.text import reason
from exlab_watch_agent.errors import StateFolderError

_AT = b'"at":"'


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: all conditions hold. `since`, `until`: UTC times as the trail writes them, the first inclusive.

    `job_id`: lines about this run, commands of operators included; `operator`: who is named, as the system knew them.
    """

    job_id: str = ""
    equipment_id: str = ""
    operator: str = ""
    kind: str = ""
    since: str = ""
    until: str = ""

    def bytes_needed(self) -> tuple[tuple[bytes, ...], ...]:
        """Return what every matching line has in it: of each of these at least one."""
        needed: list[tuple[bytes, ...]] = []
        if self.job_id:
            needed.append((json.dumps(self.job_id).encode(),))
        if self.equipment_id:
            needed.append((json.dumps(self.equipment_id)[:-1].encode(),))  # a root's name goes on behind it
        if self.operator:
            who = json.dumps(self.operator).encode()
            needed.append(tuple(b'"%b":%b' % (name, who) for name in (b"operator", b"login", b"claimed")))
        if self.kind:
            needed.append((b'"kind":%b' % json.dumps(self.kind).encode(),))
        return tuple(needed)

    def is_met_by(self, fact: Mapping[str, object]) -> bool:
        record, data = block(fact, "record"), block(fact, "data")
        return (
            self.job_id in ("", record.get("job_id"), data.get("job_id"))
            and self.equipment_id
            in ("", record.get("equipment_id"), data.get("equipment_id"), _first(data.get("root")))
            and self.operator in ("", fact.get("operator"), data.get("login"), data.get("claimed"))
            and self.kind in ("", fact.get("kind"))
        )


def lines_that_match(folder: Path, wanted: Wanted) -> Iterator[dict[str, object]]:
    """Yield the facts of all matching lines, the oldest first. Raises: StateFolderError."""
    return (fact for _, fact in lines_as_written(folder, wanted))


def lines_as_written(folder: Path, wanted: Wanted) -> Iterator[tuple[bytes, dict[str, object]]]:
    """Yield all matching lines byte for byte, without their line ends, each with its fact, the oldest first.

    What cannot be read is left out: `audit verify` names it. Raises: StateFolderError.
    """
    needed = wanted.bytes_needed()
    since, until = wanted.since.encode(), wanted.until.encode()
    try:
        for segment in find_segments(folder):
            with segment.path.open("rb") as file:
                for line in file:
                    if not all(any(word in line for word in words) for words in needed):
                        continue
                    if not _is_between(line, since, until):
                        continue
                    fact = _fact(line)
                    if fact is not None and wanted.is_met_by(fact):
                        yield line.rstrip(b"\n"), fact
    except OSError as error:
        raise StateFolderError(f"The audit trail in {folder} cannot be read: {reason(error)}.") from error


def _is_between(line: bytes, since: bytes, until: bytes) -> bool:
    if not since and not until:
        return True
    begin = line.find(_AT, 0, 160) + len(_AT)
    at = line[begin : line.find(b'"', begin)]
    return (not since or at >= since) and (not until or at < until)


def _fact(line: bytes) -> dict[str, object] | None:
    try:
        fact = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fact if isinstance(fact, dict) else None


def _first(root: object) -> object:
    """Return the equipment of a destination root's name (core/binding.py)."""
    return root.partition(" ")[0] if isinstance(root, str) else None
