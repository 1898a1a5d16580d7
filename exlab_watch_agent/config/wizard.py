"""What ExLab-Wizard's own file may say that ours may not, and what of it is passed over.

Its file belongs to it: it refuses every key that it does not know, so nothing of ours is ever needed there, and a newer version of
it must not stop a laboratory, so what we do not know there is passed over with a note. (But not in `nas_cleanup`, where an
unknown word could be the one that forbids a deletion.) Its models take a number written as text, and so do we in its file. Of a
block that both use, the members that are not ours are its own affair; its other blocks are skipped unread (text.py names them).

Source: src/exlab_wizard/config/models.py and loader.py of exfab/ExLabWizard at 2a5da6c.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from exlab_watch_agent.config.blocks import (
    TRANSPORTS,
    BandwidthBlock,
    BandwidthWindowBlock,
    EquipmentBlock,
    LoggingBlock,
    keys_of,
)
from exlab_watch_agent.config.sources import ConfigText, Entry, Place, dotted
from exlab_watch_agent.config.text import KeyPath, Problem

LABEL_SHOWN_MAX = 200
_PASSED_OVER_SHOWN_MAX = 8
_SIGNAL_OF = {"sentinel_filename": "sentinel_file", "manifest_filename": "manifest"}


def entries_of(text: ConfigText, passed_over: list[KeyPath], problems: list[Problem]) -> list[Entry]:
    """Return a file's entries. Of ExLab-Wizard's the keys that we do not know are left out, and added to `passed_over`."""
    equipment = text.content.get("equipment")
    if equipment is None:
        return []
    if not isinstance(equipment, list | tuple):
        problems.append(text.problem(("equipment",), "must be a list, one entry for each instrument"))
        return []
    paths = text.content.get("paths")
    default = paths.get("local_root") if isinstance(paths, Mapping) else None
    found = []
    for position, content in enumerate(equipment):
        place = Place(text, ("equipment", position))
        if isinstance(content, Mapping) and not text.is_ours:
            content = _as_we_know_it(content, place.path, passed_over)
        if isinstance(content, Mapping) and "local_root" not in content and default:
            content = {**content, "local_root": default}
        found.append(Entry(content, (place,)))
    return found


def is_staged_elsewhere(entry: Entry) -> bool:
    """Return whether ExLab-Wizard hands the runs of this instrument to another computer."""
    return isinstance(entry.content, Mapping) and entry.content.get("sync_mode") == "stage"


def with_its_ssh(entry: Entry) -> Entry:
    """Return an entry whose way by ssh goes by the user's own ssh config where ExLab-Wizard wrote it, and nothing else is said."""
    content = entry.content
    transport = content.get("transport") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(transport, Mapping) or transport.get("type") != "rsync_ssh":
        return entry
    if not entry.is_wizards or "transport" in entry.of_first:
        return entry
    return replace(entry, content={**content, "transport": {"ssh_config": "user", **transport}})


def ids_staged_elsewhere(entries: Iterable[Entry]) -> frozenset[str]:
    """Return the ids of those instruments, as they are written."""
    contents = (entry.content for entry in entries if is_staged_elsewhere(entry))
    return frozenset(str(content.get("id")) for content in contents if isinstance(content, Mapping))


def logging_of(text: ConfigText, passed_over: list[KeyPath]) -> object:
    """Return the block `logging` of ExLab-Wizard's file, without the keys that we do not know."""
    return _known(text.content.get("logging"), LoggingBlock, ("logging",), passed_over)


def is_sync_off(content: Mapping[str, Any]) -> bool:
    """Return whether ExLab-Wizard's own sync is switched off, in one of the words that it takes for that."""
    sync = content.get("sync")
    found = sync.get("enabled", True) if isinstance(sync, Mapping) else True
    return str(found).strip().lower() in ("false", "no", "off", "0", "n", "f")


def note_of(text: ConfigText, passed_over: Iterable[KeyPath]) -> str | None:
    """Return one sentence about all keys that were passed over, None where none was. Values are not shown: they can be secrets."""
    places = sorted((text.line(path), dotted(path)) for path in passed_over)
    if not places:
        return None
    shown = [name + (f" (line {line})" if line else "") for line, name in places[:_PASSED_OVER_SHOWN_MAX]]
    more = len(places) - len(shown)
    rest = f" and {more} more" if more else ""
    return f"passed over in {text.source}, because this version does not know it: {', '.join(shown)}{rest}"


# --- one entry -------------------------------------------------------------------------------------------------------


def _as_we_know_it(content: Mapping[Any, Any], path: KeyPath, passed_over: list[KeyPath]) -> dict[Any, Any]:
    entry = dict(_known(content, EquipmentBlock, path, passed_over))
    if isinstance(label := entry.get("label"), str):
        # For people only, so it is no reason to stop.
        entry["label"] = (
            "".join(sign if sign.isprintable() else " " for sign in label)[:LABEL_SHOWN_MAX].strip() or None
        )
    signal = entry.get("completeness_signal", "sentinel_file")
    for member, needed_by in _SIGNAL_OF.items():
        if signal != needed_by:
            entry.pop(member, None)  # ExLab-Wizard keeps the name of the file for the signal that was chosen before
    if isinstance(transport := entry.get("transport"), Mapping):
        entry["transport"] = _known_transport(transport, (*path, "transport"), passed_over)
    return entry


def _known_transport(content: Mapping[Any, Any], path: KeyPath, passed_over: list[KeyPath]) -> Mapping[Any, Any]:
    model = TRANSPORTS.get(str(content.get("type")))
    if model is None:
        return content  # refused as a whole, with the types that there are
    transport = dict(
        _known(content, model, path, passed_over, kept=("password",))
    )  # a password is refused, not passed over
    if isinstance(there := transport.get("remote_path"), str) and there.strip() and there.strip()[0] not in "/~":
        transport["remote_path"] = f"~/{there.strip()}"  # rsync takes a relative path from the account's home folder
    where = (*path, "bandwidth")
    if isinstance(transport.get("bandwidth"), Mapping):
        bandwidth = dict(_known(transport["bandwidth"], BandwidthBlock, where, passed_over))
        if isinstance(schedule := bandwidth.get("schedule"), list | tuple):
            bandwidth["schedule"] = [
                _known(window, BandwidthWindowBlock, (*where, "schedule", position), passed_over, kept=("from_",))
                for position, window in enumerate(schedule)
            ]
        transport["bandwidth"] = bandwidth
    return transport


def _known(
    content: Any, model: type[BaseModel], path: KeyPath, passed_over: list[KeyPath], *, kept: tuple[str, ...] = ()
) -> Any:
    """Return a block without the keys that we do not know; what is no block is returned as it is."""
    if not isinstance(content, Mapping):
        return content
    known = {*keys_of(model), *kept}
    passed_over += [(*path, str(key)) for key in content if key not in known]
    return {key: value for key, value in content.items() if key in known}
