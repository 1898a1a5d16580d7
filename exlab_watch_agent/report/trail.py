"""One line of the audit trail as people read it, as a row of a table and of CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COLUMNS = ("seq", "at", "kind", "equipment", "run", "operator", "what")
_TOLD_ELSEWHERE = frozenset({"schema", "command", "job_id", "run_path", "equipment_id", "uid", "login", "claimed"})


@dataclass(frozen=True, slots=True)
class TrailRow:
    """`run`: the run's path, empty for a line that is about none. `what`: in words, what happened. `at`: UTC."""

    seq: int
    at: str
    kind: str
    equipment: str
    run: str
    operator: str
    what: str

    def cells(self) -> tuple[str, ...]:
        return (str(self.seq), self.at, self.kind, self.equipment, self.run, self.operator, self.what)


def row_of(fact: Mapping[str, object]) -> TrailRow:
    """Return the row of a line, whatever version wrote it: what it lacks is empty."""
    record, data = _mapping(fact.get("record")), _mapping(fact.get("data"))
    seq = fact.get("seq")
    return TrailRow(
        seq=seq if isinstance(seq, int) else 0,
        at=_text(fact.get("at"))[:19] + "Z",
        kind=_text(fact.get("kind")),
        equipment=_text(record.get("equipment_id") or data.get("equipment_id")),
        run=_text(record.get("run_path") or data.get("run_path")),
        operator=_operator(fact, data),
        what=_what(fact, data),
    )


def _operator(fact: Mapping[str, object], data: Mapping[str, object]) -> str:
    """Return who: the account as the system named it, and the name that was claimed where that is another one."""
    login, claimed = _text(data.get("login")), _text(data.get("claimed"))
    name = login or _text(fact.get("operator")) or _text(_mapping(fact.get("move")).get("operator"))
    return f"{name} (as {claimed})" if claimed and claimed != name else name


def _what(fact: Mapping[str, object], data: Mapping[str, object]) -> str:
    move = _mapping(fact.get("move"))
    if move:
        source, dest = _text(move.get("source")) or "new", _text(move.get("dest"))
        return f"{source} -> {dest}: {_text(move.get('trigger'))} ({_text(move.get('reason'))})"
    said = [_text(data.get("command"))]
    said += [
        f"{name} {value}" for name, value in data.items() if name not in _TOLD_ELSEWHERE and value not in (None, "")
    ]
    return ", ".join(filter(None, said))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
