"""What writers of `creation.json` that were killed left behind: the agent's own texts go, a save of somebody else is kept.

A stop between the exchange and the look (exchanging.py) leaves under a temporary name what had the place. Nearly always that is
the text that was read, or ours; both say nothing that the file does not say now.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from exlab_watch_agent.adapters.local import durable, json_text
from exlab_watch_agent.adapters.local.exchanging import keep_beside
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.core.inventory import CREATION_FILE

_WRITTEN_BY_US = frozenset({"schema_version", "sync_status", "validation_overrides"})


def clear_leftovers(folder: Folder, tree: dict[str, Any], *, limit_bytes: int, kept: Callable[[str], None]) -> None:
    """Clear the cache folder of them. `tree`: what the file says now. For who holds the lock, so that no writer lives."""
    names: list[str] = []
    with suppress(OSError):  # Not worth a failure; the push leaves such names out.
        names = folder.names()
    for name in names:
        if name.startswith(f".{CREATION_FILE}.") and durable.is_temporary_name(name):
            with suppress(OSError):
                if _says_more(folder, name, tree, limit_bytes):
                    kept(keep_beside(folder, name, CREATION_FILE))
                else:
                    folder.unlink(name)


def _says_more(folder: Folder, name: str, now: dict[str, Any], limit_bytes: int) -> bool:
    """Return whether this is a whole document that says something which the file does not say now."""
    try:
        left = json_text.parse(durable.read_in(folder, name, limit_bytes)[0].decode("utf-8-sig"))
    except ValueError:  # Cut off: it was not written to its end. JSON and UTF-8 errors are ValueErrors.
        return False
    if not isinstance(left, dict):
        return False
    overrides, known = left.get("validation_overrides") or [], now.get("validation_overrides") or []
    if not isinstance(overrides, list) or not json_text.same(_others(left), _others(now)):
        return True
    return not all(any(json_text.same(_without_id(one), _without_id(other)) for other in known) for one in overrides)


def _others(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in _WRITTEN_BY_US}


def _without_id(entry: Any) -> Any:
    """Return an override without its id, which our writes give to those that have none."""
    return {name: value for name, value in entry.items() if name != "id"} if isinstance(entry, dict) else entry
