"""What another config would change for an agent that runs: member by member, in words, and what each change waits for.

Decided here: which members a running agent takes in by itself. Those can neither lose anything nor point anywhere else: an
instrument more, bandwidth, labels, logs, from when on something is told, and a `nas_cleanup` that deletes less. All else waits
for a person. Every member has its rule, and a member without one is a defect that a test finds. Not here: when it is taken in
(app/config_file.py), and blocks that the agent passes over: of these nothing is ever said, for there may be secrets in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel

from exlab_watch_agent.config.blocks import (
    BandwidthBlock,
    EquipmentBlock,
    MountedPathBlock,
    RcloneBlock,
    keys_of,
)
from exlab_watch_agent.config.load import Settings
from exlab_watch_agent.config.problems import BLOCKS
from exlab_watch_agent.core.text import printable, shortened

VALUE_CHARS_MAX = 120
LOOSER = " (looser)"


class Waits(Enum):
    """What a change waits for: for a quiet moment only; for an operator's `reload`; for a start, because no reload can make it."""

    NOTHING = "nothing"
    RELOAD = "reload"
    START = "start"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different. `sentence` has what was and what is, in one line that can be shown."""

    sentence: str
    waits_for: Waits


@dataclass(frozen=True, slots=True)
class UnlessLooser:
    """It waits for `reload` where it becomes looser, which means that more may be deleted, or sooner."""

    is_looser: Callable[[float, float], bool]


def _is_lower(old: float, new: float) -> bool:
    return new < old


def _is_higher(old: float, new: float) -> bool:
    return new > old


Rule = Waits | UnlessLooser | None
"""None: the member says nothing by itself."""

RULES: Mapping[str, Rule] = {
    "nas_cleanup.enabled": UnlessLooser(_is_higher),
    "nas_cleanup.min_verify_passes": UnlessLooser(_is_lower),
    "nas_cleanup.min_age_hours": UnlessLooser(_is_lower),
    "nas_cleanup.retain_cache": UnlessLooser(_is_lower),
    "logging.level": Waits.NOTHING,
    "logging.central_log_max_mb": Waits.NOTHING,
    "logging.central_log_keep": Waits.NOTHING,
    "agent.state_dir": Waits.START,
    "agent.settle_seconds": Waits.RELOAD,
    "agent.rescan_minutes": Waits.RELOAD,
    "agent.observer": Waits.RELOAD,
    "agent.audit_interval_hours": Waits.RELOAD,
    "agent.reread_days": Waits.RELOAD,
    "agent.max_parallel_runs": Waits.RELOAD,
    "agent.retry_schedule": Waits.RELOAD,
    "agent.layout": Waits.RELOAD,
    "agent.stale_hours": Waits.NOTHING,
    "agent.unproven_hours": Waits.NOTHING,
    "agent.disk_days": Waits.NOTHING,
    "agent.stall_seconds": Waits.RELOAD,
    "agent.trash_hours": UnlessLooser(_is_lower),
    "verify.max_stream_bytes": Waits.RELOAD,
    "equipment.id": None,  # another id is another instrument
    "equipment.label": Waits.NOTHING,
    "equipment.local_root": Waits.RELOAD,
    "equipment.nas_root": Waits.NOTHING,
    "equipment.completeness_signal": Waits.RELOAD,
    "equipment.sentinel_filename": Waits.RELOAD,
    "equipment.manifest_filename": Waits.RELOAD,
    "equipment.observer": Waits.RELOAD,
    "equipment.transport": None,  # its members have rules of their own
    "equipment.sync_mode": None,  # with `stage` it is none of the agent's instruments
    "equipment.orchestrator_staging_transport": None,  # of an entry with `stage`
    "transport.type": Waits.RELOAD,
    "transport.path": Waits.RELOAD,
    "transport.rclone_remote": Waits.RELOAD,
    "transport.rclone_remote_path": Waits.RELOAD,
    "transport.rclone_config": Waits.RELOAD,
    "transport.ssh_target": Waits.RELOAD,
    "transport.ssh_port": Waits.RELOAD,
    "transport.ssh_config": Waits.RELOAD,
    "transport.ssh_key_path": Waits.RELOAD,
    "transport.known_hosts": Waits.RELOAD,
    "transport.remote_path": Waits.RELOAD,
    "transport.bandwidth": Waits.NOTHING,
}
"""Block and member → when it is taken in."""


def changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """Return what the new config changes, in the order of the file; nothing where only its spelling is another one."""
    before = {entry.id: entry for entry in old.equipment}
    after = {entry.id: entry for entry in new.equipment}
    found = [Change(f"{name} was taken out", Waits.RELOAD) for name in before if name not in after]
    for name, entry in after.items():
        if name not in before:
            found.append(Change(f"{name} is new, to {_destination(entry)}", Waits.NOTHING))
        else:
            found += _of_equipment(before[name], entry)
    found += [
        Change(f"{name} is handed to another computer by ExLab-Wizard (sync_mode stage)", Waits.NOTHING)
        for name in sorted(new.staged_elsewhere - old.staged_elsewhere)
    ]
    found += [
        Change(f"{name} is not handed to another computer by ExLab-Wizard any more", Waits.NOTHING)
        for name in sorted(old.staged_elsewhere - new.staged_elsewhere - after.keys())
    ]
    for block in BLOCKS:
        found += _of_members(f"{block}.", block, getattr(old, block), getattr(new, block))
    return tuple(found)


def _of_equipment(old: EquipmentBlock, new: EquipmentBlock) -> Iterable[Change]:
    yield from _of_members(f"{new.id} ", "equipment", old, new)
    name = f"{new.id} transport"
    if old.transport.type != new.transport.type:
        yield Change(f"{name}: {_destination(old)} -> {_destination(new)}", Waits.RELOAD)
        yield from _of_members(f"{name}.", "transport", old.transport, new.transport, only=("bandwidth",))
    else:
        yield from _of_members(f"{name}.", "transport", old.transport, new.transport)


def _of_members(
    prefix: str, block: str, old: BaseModel, new: BaseModel, only: tuple[str, ...] = ()
) -> Iterable[Change]:
    """Return the changes of two blocks of one kind; `prefix`: what a member's name begins with when it is said."""
    for member in only or keys_of(type(new)):
        was, is_now, rule = getattr(old, member), getattr(new, member), RULES[f"{block}.{member}"]
        if was == is_now or rule is None:
            continue
        sentence = f"{prefix}{member}: {_said(was)} -> {_said(is_now)}"
        match rule:
            case UnlessLooser(is_looser) if is_looser(was, is_now):
                yield Change(sentence + LOOSER, Waits.RELOAD)
            case UnlessLooser():
                yield Change(sentence, Waits.NOTHING)
            case Waits():
                yield Change(sentence, rule)


def _destination(entry: EquipmentBlock) -> str:
    match entry.transport:
        case MountedPathBlock() as way:
            place = way.path
        case RcloneBlock() as way:
            place = f"{way.rclone_remote}:{way.rclone_remote_path}"
        case way:
            place = f"{way.ssh_target}:{way.remote_path}"
    return f"{entry.transport.type} {_said(place)}"


def _said(value: object) -> str:
    """Return a value of a checked member in words."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case BandwidthBlock():
            return _limit(value)
        case list():
            return ", ".join(map(str, value))
    return shortened(printable(str(value)), VALUE_CHARS_MAX)


def _limit(block: BandwidthBlock) -> str:
    if block.upload_mbps is None:
        return "no limit"
    windows = [f"{'+'.join(window.days)} {window.from_}-{window.to}" for window in block.schedule or ()]
    return shortened(f"{block.upload_mbps:g} Mbit/s" + (f" ({', '.join(windows)})" if windows else ""), VALUE_CHARS_MAX)
