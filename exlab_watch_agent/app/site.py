"""What every command starts from: the config, the state folder, the run that the operator means, the running agent."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_config_path, user_state_path

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.account import own_account
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state.folder_facts import binding_in
from exlab_watch_agent.adapters.state.holder import read as read_holder
from exlab_watch_agent.adapters.state.inbox import send_request
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.recovery import Loaded, load
from exlab_watch_agent.app.publish import lanes_left, read_last_agent, read_live
from exlab_watch_agent.config.load import Settings, load_settings
from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.commands import AgentCommand
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.operator import Operator, request_members
from exlab_watch_agent.core.policy import EquipmentPolicy, Policy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.snapshot import Snapshot
from exlab_watch_agent.core.standing import Gone, Moment, NeverRan, Standing, moment_of, standing_of_holder
from exlab_watch_agent.core.text import printable, shell_word
from exlab_watch_agent.core.ways_out import data_left
from exlab_watch_agent.errors import AgentError, ConfigError, NoStateFolderError, RootUnavailableError, StateFolderError
from exlab_watch_agent.report.heartbeat import Holder

APP_NAME = "exlab-watch-agent"
REPLY_WAIT_S = 10.0
JOB_ID_BEGINNING_MIN = 8
CANDIDATES_SHOWN_MAX = 5


class RunNotFoundError(AgentError):
    """The operator's word fits no run, or several."""


class CommandRefusedError(AgentError):
    """The running agent has understood a command and does not obey; the text is its answer."""


def default_config_path() -> Path:
    """Return where the config is that no command names: ours at its place, or `config.yaml` there, as the first version had it."""
    folder = user_config_path(APP_NAME, appauthor=False)
    ours, first = folder / f"{APP_NAME}.yaml", folder / "config.yaml"
    return first if first.exists() and not ours.exists() else ours


def wizards_config_path() -> Path:
    """Return where ExLab-Wizard keeps its config. Source: src/exlab_wizard/paths.py of exfab/ExLabWizard at 2a5da6c."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "exlab-wizard" / "config.yaml"


def operator_here() -> Operator:
    """Return who gives a command in this process: the system's account, with the name that was claimed beside it."""
    return own_account()


@dataclass
class Site:
    """One config file and one state folder, as one command sees them. Nothing is read before it is asked for.

    `config` and `state`: what the command names, as absolute paths; None for the usual places.
    """

    config: Path | None = None
    state: Path | None = None
    clock: SystemClock = field(default_factory=SystemClock, repr=False)

    def now(self) -> datetime:
        return self.clock.now()

    @property
    def moment(self) -> Moment:
        return moment_of(self.standing, self.now())

    @property
    def flags(self) -> str:
        """What each command needs behind it to mean this site, as it is pasted: what was given here, and found from anywhere."""
        given = (("--config", self.config), ("--state-dir", self.state))
        return " ".join(f"{name} {shell_word(str(path))}" for name, path in given if path is not None)

    def command(self, *words: str) -> str:
        """Return a command of ours for a sentence, complete with its flags. `words`: those from outside as `shell_word`s."""
        return f"`{' '.join((APP_NAME, *words, self.flags)).rstrip()}`"

    # --- the config --------------------------------------------------------------------------------------------------

    @property
    def has_config(self) -> bool:
        return self.config is not None or default_config_path().exists()

    @cached_property
    def settings(self) -> Settings:
        path, theirs = default_config_path(), wizards_config_path()
        if not self.has_config and theirs.exists():
            shown, command = printable(str(theirs)), f"{APP_NAME} init --from {shell_word(str(theirs))}"
            raise ConfigError(
                f"There is no config file {printable(str(path))}, but ExLab-Wizard has one, {shown}: `{command}` writes ours."
            )
        return load_settings(self.config or path)

    @cached_property
    def policy(self) -> Policy:
        """The policy of the config; without any config the defaults, so that the state can still be looked at."""
        if not self.has_config:
            return Policy()
        return self.settings.policy()

    @cached_property
    def roots(self) -> dict[str, str]:
        return {equipment.equipment_id: equipment_root(equipment) for equipment in self.policy.equipment}

    def equipment_of(self, run_path: str) -> EquipmentPolicy | None:
        """Return the configured equipment whose run this is, None when it belongs to none."""
        place = place_of(run_path, self.roots)
        if place is None:
            return None
        return next((item for item in self.policy.equipment if item.equipment_id == place.equipment_id), None)

    # --- the state ---------------------------------------------------------------------------------------------------

    @cached_property
    def state_dir(self) -> Path:
        if self.state is not None:
            return self.state
        if self.has_config:
            return self.settings.state_dir
        return user_state_path(APP_NAME, appauthor=False)

    def require_state_dir(self) -> None:
        """For what only reads: there must be something to read. Raises: NoStateFolderError."""
        if not self.state_dir.exists():
            raise NoStateFolderError(
                f"There is no state folder at {printable(str(self.state_dir))}: no agent has worked with it yet. "
                f"`{APP_NAME} run` makes it, or give the right --state-dir."
            )

    @cached_property
    def loaded(self) -> Loaded:
        if self.state_dir.is_dir():
            return load(self.state_dir)
        if self.state_dir.exists():
            raise StateFolderError(f"{self.state_dir} is not a folder: give another --state-dir or agent.state_dir.")
        return Loaded(self.state_dir)

    @cached_property
    def records(self) -> dict[str, RunRecord]:
        return {record.job_id: record for record in self.loaded.documents.records()}

    def history(self, job_id: str) -> tuple[Move, ...]:
        return self.loaded.history(job_id)

    def binding(self, equipment_id: str, destination: str) -> Binding | None:
        """Return an equipment's binding, None before the first one; `destination`: the root that is configured."""
        return binding_in(self.loaded.facts, equipment_id, destination)

    @property
    def hold(self) -> str | None:
        """Why nothing may be deleted until an operator has accepted the state; None when deletion is not held."""
        return printable(self.loaded.hold) if self.loaded.hold is not None else None

    # --- the running agent -------------------------------------------------------------------------------------------

    @cached_property
    def holder(self) -> Holder | None:
        """Who works in the state folder now; None when nobody does."""
        if not StateLayout(self.state_dir).lock.exists():
            return None
        lock = FileLock(StateLayout(self.state_dir).lock, timeout=0)
        try:
            with lock:
                return None
        except Timeout:
            pass
        return Holder.from_json(read_holder(StateLayout(self.state_dir).holder))

    @cached_property
    def standing(self) -> Standing:
        """How it is with the agent: by its own word where it holds the folder, else by what the last one left."""
        if self.holder is not None:
            return standing_of_holder(self.holder.at, now=self.now(), pid=self.holder.pid)
        last = read_last_agent(self.state_dir)
        return NeverRan() if last is None else Gone(last.seen_at, last.is_in_order)

    @cached_property
    def paused(self) -> str | None:
        """Why the running agent decides nothing now; None when it does, or when none runs."""
        if self.holder is None:
            return None
        said = self.holder.paused
        if not said and shutil.disk_usage(self.state_dir).free == 0:
            # Where even the rewriting of a file in place needs room, the agent cannot say it.
            said = f"or will be: the disk of {self.state_dir} has no room left."
        return printable(said) if said else None

    @cached_property
    def left(self) -> Snapshot:
        """The live view, by the running agent or as the last one left it."""
        return read_live(self.state_dir)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The running agent's live view; where none runs, only its lanes, as the last one left them and with that time."""
        if self.holder is not None:
            return self.left
        lanes = lanes_left(self.left)
        return Snapshot(lanes={name: lane for name, lane in lanes.items() if not self.roots or name in self.roots})

    def ask_agent(self, command: AgentCommand, *, must_answer: bool = False, waits_for: str = "") -> str:
        """Leave a command for the running agent; return its answer.

        `waits_for`: what the agent may have to wait for before it can answer. Raises: CommandRefusedError with its refusal;
        AgentError with `must_answer` where it has not answered yet.
        """
        answer = send_request(
            self.state_dir, {**command.to_json(), **request_members(command.operator)}, wait_s=REPLY_WAIT_S
        )
        if answer is None and must_answer:
            raise AgentError(
                "The running agent has not answered yet: `status` says what it does; give the command again."
            )
        if answer is None and waits_for and self.paused is None:
            return f"the running agent has taken the request, and waits for {waits_for}: `status` says how far that is"
        if answer is None and self.paused is not None:
            return f"the request was left for the running agent, which is paused {self.paused}"
        if answer is None:
            return "the request was left for the running agent, which has not answered yet"
        if not answer.get("ok"):
            raise CommandRefusedError(str(answer.get("message")))
        return str(answer.get("message"))

    # --- the run that is meant ---------------------------------------------------------------------------------------

    def find_run(self, word: str) -> tuple[str, RunRecord | None]:
        """Return path and record (None for a run that is on the disk and not known yet) of the run that is meant.

        `word`: a path, a leaf name or its unique beginning, or a job id or its unique beginning. Raises: RunNotFoundError.
        """
        if word in self.records:
            return self.records[word].run_path, self.records[word]
        path = os.path.abspath(os.path.expanduser(word))
        by_path = {record.run_path: record for record in self.records.values()}
        if path in by_path:
            return path, by_path[path]
        if os.path.isdir(path) and place_of(path, self.roots) is not None:
            return path, None
        named = self._named(word, {*by_path, *self._paths_on_disk()}) if word else []
        if len(named) == 1:
            return named[0], by_path.get(named[0])
        if named:
            shown = ", ".join(printable(one) for one in named[:CANDIDATES_SHOWN_MAX])
            more = f" and {len(named) - CANDIDATES_SHOWN_MAX} more" if len(named) > CANDIDATES_SHOWN_MAX else ""
            raise RunNotFoundError(
                f"{printable(word)} may be any of {len(named)} runs; give the path of one: {shown}{more}"
            )
        if os.path.isdir(path):
            raise RunNotFoundError(
                f"{printable(path)} is not a run of a configured equipment. A run is <local_root>/<EQUIPMENT>/<project>/Runs/<run>."
            )
        raise RunNotFoundError(
            f"No run is called {printable(word) or repr(word)}: {self.command('status', '--all')} lists those that are known."
        )

    def _named(self, word: str, paths: Iterable[str]) -> list[str]:
        """Return the runs that a word can mean: those of that very name, else those whose name or job id begins so."""
        leaves = {path: os.path.basename(path) for path in paths}
        exact = [path for path, leaf in leaves.items() if leaf == word]
        if exact:
            return sorted(exact)
        found = {path for path, leaf in leaves.items() if leaf.startswith(word)}
        if len(word) >= JOB_ID_BEGINNING_MIN:
            found |= {record.run_path for job_id, record in self.records.items() if job_id.startswith(word)}
        return sorted(found)

    @staticmethod
    def is_here(run_path: str) -> bool:
        """Return whether a run's folder is on the disk, or may be."""
        return DiskRunScanner().is_there(run_path)

    @staticmethod
    def data_left(run_path: str) -> str:
        """Return in words which data files of a run are on the disk; empty where none are. Raises: RunUnreadableError."""
        if not DiskRunScanner().is_there(run_path):
            return ""
        return data_left([entry.path for entry in DiskRunTree().inventory(run_path).files])

    def _paths_on_disk(self) -> list[str]:
        found: list[str] = []
        for equipment in self.policy.equipment:
            try:
                found += [seen.place.run_path for seen in DiskRunScanner().scan(equipment)]
            except RootUnavailableError:
                continue  # Its runs cannot be named by their leaf now; a path or a job id still works.
        return found
