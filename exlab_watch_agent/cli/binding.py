"""`bind`: an operator says once that a destination is the right one. What was seen there is shown before anything is asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from exlab_watch_agent.app import checks
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.saying import say, say_aside
from exlab_watch_agent.core.commands import reason_in
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.text import counted, human_bytes, printable
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode

NAMES_SHOWN_MAX = 5


def bind(site: Site, equipment_ids: Sequence[str], *, is_all: bool, is_yes: bool) -> int:
    """Have destinations bound, each after a look and a question; return the exit code. Raises: ConfigError."""
    chosen = _chosen(site, equipment_ids, is_all=is_all)
    codes = [_bind_one(site, equipment, is_yes=is_yes) for equipment in chosen]
    return max(codes, default=ExitCode.FINE)


def _chosen(site: Site, equipment_ids: Sequence[str], *, is_all: bool) -> list[EquipmentPolicy]:
    known = {equipment.equipment_id: equipment for equipment in site.settings.policy().equipment}
    if is_all == bool(equipment_ids):
        raise ConfigError(f"Name the equipment to bind ({', '.join(known)}), or give --all.")
    unknown = [equipment_id for equipment_id in equipment_ids if equipment_id not in known]
    if unknown:
        raise ConfigError(f"{printable(unknown[0])} is not in the config, which has {', '.join(known)}.")
    return list(known.values()) if is_all else [known[equipment_id] for equipment_id in dict.fromkeys(equipment_ids)]


def _bind_one(site: Site, equipment: EquipmentPolicy, *, is_yes: bool) -> ExitCode:
    equipment_id = equipment.equipment_id
    try:
        seen = checks.look_at_destination(site, equipment)
        if seen.unbound is None:
            say(f"{equipment_id}: {seen.destination} is bound already")
            return ExitCode.FINE
        _print_what_is_there(equipment_id, seen.destination, seen.unbound)
        if (
            seen.unbound.binds_by_itself
            or is_yes
            or _is_answered_yes(f"Is that the right place for the copies of {equipment_id}?")
        ):
            say(checks.bind(site, equipment_id))
            return ExitCode.FINE
    except AgentError as error:
        say_aside(f"{equipment_id} was not bound: {printable(str(error))}")
        return ExitCode.FAILED
    say_aside(f"{equipment_id} was not bound: nothing is copied there until it is.")
    return ExitCode.FAILED


def replace(site: Site, equipment_ids: Sequence[str], *, is_all: bool, is_yes: bool, reason: str) -> int:
    """Have the configured roots take the place of those that were bound; return the exit code. Raises: ConfigError."""
    why = reason_in(reason)
    chosen = _chosen(site, equipment_ids, is_all=is_all)
    codes = [_replace_one(site, equipment, is_yes=is_yes, reason=why) for equipment in chosen]
    return max(codes, default=ExitCode.FINE)


def _replace_one(site: Site, equipment: EquipmentPolicy, *, is_yes: bool, reason: str) -> ExitCode:
    equipment_id = equipment.equipment_id
    try:
        seen = checks.look_at_replacement(site, equipment)
        _print_what_is_there(equipment_id, seen.destination, seen.root)
        say(f"  marker   {seen.marker}")
        say(f"  takes the place of {printable(seen.former)}")
        only = f"; {counted(seen.only_there, 'run')} of them not whole here: the old place has the only copy known"
        say(f"  runs     {seen.runs} were proven there{only if seen.only_there else ', and all have their data here'}")
        if is_yes or _is_answered_yes(f"Give up the old place and prove or push all runs of {equipment_id} anew?"):
            say(checks.replace_destination(site, equipment_id, reason))
            return ExitCode.FINE
    except AgentError as error:
        say_aside(f"The destination of {equipment_id} was not replaced: {printable(str(error))}")
        return ExitCode.FAILED
    say_aside(f"The destination of {equipment_id} was not replaced: nothing was changed.")
    return ExitCode.FAILED


def _print_what_is_there(equipment_id: str, destination: str, unbound: checks.Unbound) -> None:
    free_bytes, nature = unbound.free_bytes, unbound.nature
    say(f"{equipment_id} -> {destination}")
    say(f"  lies on  {nature}")
    say(f"  free     {human_bytes(free_bytes) if free_bytes is not None else 'unknown'}")
    say(f"  holds    {_names(unbound.top_names)}")
    if unbound.is_marker_gone:
        say("  marker   gone: it was bound before. It is put back only where sealed copies of this agent's are found")
    say(f"  place    {nature.elsewhere or 'nothing shows that it is a place other than this PC'}")


def _names(names: tuple[str, ...] | None) -> str:
    if names is None:
        return "unknown"
    if not names:
        return "nothing"
    first = ", ".join(printable(name) for name in names[:NAMES_SHOWN_MAX])
    return f"{counted(len(names), 'name')}: {first}{', ...' if len(names) > NAMES_SHOWN_MAX else ''}"


def _is_answered_yes(question: str) -> bool:
    say(f"{question} [y/N] ", end="", is_flushed=True)
    answer = sys.stdin.readline().strip().lower()
    if not answer:
        say()
    return answer in ("y", "yes")
