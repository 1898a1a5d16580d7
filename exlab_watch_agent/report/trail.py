"""One line of the audit trail as people read it, as a row of a table and of CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exlab_watch_agent.core.members import block, number, text

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
    record, data = block(fact, "record"), block(fact, "data")
    return TrailRow(
        seq=number(fact, "seq"),
        at=text(fact, "at")[:19] + "Z",
        kind=text(fact, "kind"),
        equipment=text(record, "equipment_id") or text(data, "equipment_id"),
        run=text(record, "run_path") or text(data, "run_path"),
        operator=_operator(fact, data),
        what=_what(fact, data),
    )


def _operator(fact: Mapping[str, object], data: Mapping[str, object]) -> str:
    """Return who: the account as the system named it, and the name that was claimed where that is another one."""
    login, claimed = text(data, "login"), text(data, "claimed")
    name = login or text(fact, "operator") or text(block(fact, "move"), "operator")
    return f"{name} (as {claimed})" if claimed and claimed != name else name


def _what(fact: Mapping[str, object], data: Mapping[str, object]) -> str:
    move = block(fact, "move")
    if move:
        return (
            f"{text(move, 'source') or 'new'} -> {text(move, 'dest')}: {text(move, 'trigger')} ({text(move, 'reason')})"
        )
    said = [text(data, "command")]
    said += [
        f"{name} {value}" for name, value in data.items() if name not in _TOLD_ELSEWHERE and value not in (None, "")
    ]
    return ", ".join(filter(None, said))
