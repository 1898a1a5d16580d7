"""What the loop's inbox takes: a closed union. Anyone may put one in, from any thread; only the loop handles them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exlab_watch_agent.core.commands import Command
from exlab_watch_agent.core.effects import Effect
from exlab_watch_agent.core.events import Result
from exlab_watch_agent.core.facts import Fact

Answer = Mapping[str, object]
"""`ok` and `message`: whether a command was obeyed, and what is to be said."""


@dataclass(frozen=True, slots=True)
class Woken:
    """Something may be there to be read: hints, commands, or the wish to stop."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something may have changed at these paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScanWanted:
    """These lanes must be reconciled (None: all). One that is not full only looks for what came, went or was edited."""

    equipment_ids: tuple[str, ...] | None = None
    is_full: bool = True


@dataclass(frozen=True, slots=True)
class CommandGiven:
    """An operator's command. `reply` is called once with the answer, after what it caused is durable."""

    command: Command
    reply: Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Noted:
    """Something about the agent as a whole belongs into the trail. `reply` is called with `answer` once it is durable."""

    facts: tuple[Fact, ...]
    operator: str | None
    reply: Callable[[Answer], None]
    answer: Answer


@dataclass(frozen=True, slots=True)
class Ended:
    """An effect came to its end; `result` is None when it was cancelled. Times are monotonic seconds."""

    effect: Effect
    result: Result | None
    began_s: float
    ended_s: float


Message = Woken | Noticed | ScanWanted | CommandGiven | Noted | Ended
