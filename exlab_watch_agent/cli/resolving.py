"""`resolve`: which runs are meant, and what is asked for each of them."""

from __future__ import annotations

from collections.abc import Mapping

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.cli import work
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.core.commands import AcceptMachine, AcceptTrail, Resolve, TakeOver, UseNasManifest, reason_in
from exlab_watch_agent.core.decide import is_short
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.statechart import RunState

_USES: Mapping[str, type[Resolve | UseNasManifest]] = {"local": Resolve, "nas-manifest": UseNasManifest}


def resolve(
    site: Site,
    words: list[str],
    *,
    use: str | None,
    takes_over: bool,
    is_for_all: bool,
    accepts_trail: bool,
    accepts_machine: bool,
    reason: str,
) -> int:
    """Do what the options say, for each run that is meant; return the exit code. `words`: runs, or equipment.

    Raises: ConfigError for options that do not go together.
    """
    has_deed, names_runs = (use is not None) + takes_over, bool(words) + is_for_all
    if accepts_trail + accepts_machine + has_deed != 1 or has_deed != names_runs:
        raise ConfigError(
            "Name runs, an equipment or --all with --use local, --use nas-manifest or --take-over, or give --accept-trail or "
            "--accept-machine alone."
        )
    why = reason_in(reason) if reason or accepts_machine else ""
    if accepts_machine:
        return _accept(site, AcceptMachine(operator_here(), why))
    if accepts_trail:
        return _accept(site, AcceptTrail(operator_here(), why))
    if use not in (None, *_USES):
        raise ConfigError("--use takes `local` or `nas-manifest`: the agent never overwrites local data.")
    kind = TakeOver if takes_over else _USES[use or "local"]
    equipment = [word for word in words if _is_equipment(site, word)]
    records = [work.known(site, word)[1] for word in words if word not in equipment]
    in_conflict = [record for record in site.records.values() if record.state is RunState.CONFLICT]
    records += [record for record in in_conflict if is_for_all or record.equipment_id in equipment]
    for record in records:  # before anything is done
        if use == "local":
            _require_what_could_win(site, record)
        if use == "nas-manifest":
            _require_nothing_left(site, record)
    commands = {r.run_path: kind(operator_here(), job_id=r.job_id, reason=why) for r in records}
    if not commands:
        say("no run is in conflict")
        return ExitCode.FINE
    if len(words) == 1 and not equipment:
        return work.act(site, commands[records[0].run_path], run_paths=frozenset(commands))
    return work.act_on_each(site, commands)


def _accept(site: Site, command: AcceptTrail | AcceptMachine) -> int:
    """Have the state as it is counted as true, or this machine as its home. Raises: AgentError."""
    say(offline.accept(site, command))
    return ExitCode.FINE


def _require_what_could_win(site: Site, record: RunRecord) -> None:
    """Raise AgentError where local data are to win that are not there."""
    if is_short(record) and not site.is_here(record.run_path):
        path = printable(record.run_path)
        raise AgentError(f"{path} is not here, so that there is nothing that could win: put it back first.")


def _require_nothing_left(site: Site, record: RunRecord) -> None:
    """Raise AgentError where data files are here that a sealed copy is to count for."""
    if left := site.data_left(record.run_path):
        raise AgentError(f"{left}; then give this command again.")


def _is_equipment(site: Site, word: str) -> bool:
    return word in site.roots or any(record.equipment_id == word for record in site.records.values())
