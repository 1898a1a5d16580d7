"""Members of a JSON object that another version, another program or a damaged disk may have left.

Each function returns what can be read of it, and never an error: an empty value stands for what is missing or of another type.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from exlab_watch_agent.core.text import utc_text

View = TypeVar("View")


def time_text(moment: datetime | None) -> str | None:
    return utc_text(moment) if moment is not None else None


def block(left: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = left.get(key)
    return found if isinstance(found, dict) else {}


def each(left: Mapping[str, object], key: str, read: Callable[[Mapping[str, object]], View]) -> dict[str, View]:
    return {name: read(found) for name, found in block(left, key).items() if isinstance(found, dict)}


def texts(left: Mapping[str, object], key: str) -> dict[str, str]:
    return {name: found for name, found in block(left, key).items() if isinstance(found, str)}


def text(left: Mapping[str, object], key: str) -> str:
    found = left.get(key)
    return found if isinstance(found, str) else ""


def number(left: Mapping[str, object], key: str) -> int:
    found = left.get(key)
    return found if isinstance(found, int) else 0


def moment(left: Mapping[str, object], key: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text(left, key))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
