"""The config of a running agent and its files: whether they say something else by now, and when that may be taken in.

Decided here: when the files are read again, what is told of them, and from when on a change may be taken in by itself. The files
are only read. What a change waits for is said in config/changes.py; how it is taken in, in reloading.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from exlab_watch_agent.adapters.local.overlaps import misplaced_state_folder
from exlab_watch_agent.app.build import require_way
from exlab_watch_agent.config.changes import Change, Waits, changes
from exlab_watch_agent.config.load import Settings
from exlab_watch_agent.core.problem import CONFIG_INVALID, CONFIG_NEEDS_START, CONFIG_NEWER, CONFIG_PENDING
from exlab_watch_agent.core.snapshot import Note
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.errors import AgentError, ConfigError
from exlab_watch_agent.ports import Clock

CHANGES_TOLD = 4
Signature = tuple[tuple[int, int, int] | None, ...]
"""Of each file: time, size, inode; None where it is not there."""


class ConfigSource:
    """From where the agents of a process have their config, one after the other.

    `read`: what the config says now; raises ConfigError. `has_fixed_state_dir`: the state folder was named elsewhere, so that the
    config's own means nothing. `can_go_on`: another agent can begin where this one ends; else a change waits for a start.
    """

    def __init__(self, read: Callable[[], Settings], *, has_fixed_state_dir: bool, can_go_on: bool = True) -> None:
        self.read = read
        self.has_fixed_state_dir = has_fixed_state_dir
        self.can_go_on = can_go_on
        # No lock, and no Event, which has one: a signal's handler may come while the same thread holds it.
        self._is_wanted = False

    def want(self) -> None:
        """Have the config read anew; from any thread, and from a signal's handler."""
        self._is_wanted = True

    def take_wish(self) -> bool:
        """Return and forget whether it is to be read anew."""
        if not self._is_wanted:
            return False
        self._is_wanted = False  # before the files are read: a signal after this has them read once more
        return True


@dataclass(frozen=True, slots=True)
class Found:
    """What the config says, beside the one in force: `settings` and what they change, or why they cannot be used, in lines."""

    settings: Settings
    changes: tuple[Change, ...] = ()
    mistakes: str = ""

    @property
    def waits_for(self) -> Waits:
        """What all of it together waits for: it is taken in as one, or not at all."""
        waits = {change.waits_for for change in self.changes}
        return next((one for one in (Waits.START, Waits.RELOAD) if one in waits), Waits.NOTHING)

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(change.sentence for change in self.changes)


class ConfigWatch:
    """Compares the files with the config in force, `in_force`, of an agent over this state folder. Only the loop uses it.

    `steady_s`, `busy_s`: see Pace.config_steady_s and config_busy_s. Without a source nothing is ever found.
    """

    def __init__(
        self,
        in_force: Settings,
        source: ConfigSource | None,
        *,
        state_dir: Path,
        clock: Clock,
        steady_s: float,
        busy_s: float,
    ) -> None:
        self._in_force = in_force
        self._source = source
        self._state_dir = state_dir
        self._clock = clock
        self._steady_s = steady_s
        self._busy_s = busy_s
        self._found = Found(in_force)
        self._seen: Signature | None = None
        self._seen_s = clock.monotonic_s()
        self._judged: Signature | None = None
        self._saved_at: datetime | None = None

    # --- reading -----------------------------------------------------------------------------------------------------

    def find(self) -> Found:
        """Read the config and say how it differs from the one in force."""
        if self._source is None:
            return Found(self._in_force)
        try:
            settings = self._source.read()
            if self._source.has_fixed_state_dir:
                agent = settings.agent.model_copy(update={"state_dir": self._in_force.agent.state_dir})
                settings = replace(settings, agent=agent)
            self._require_usable(settings)
        except AgentError as error:
            return Found(self._in_force, mistakes=str(error))
        found = changes(self._in_force, settings)
        if not self._source.can_go_on:
            found = tuple(replace(change, waits_for=Waits.START) for change in found)
        return Found(settings, found)

    def _require_usable(self, settings: Settings) -> None:
        """Check what a start checks before it touches the state folder. Raises: ConfigError."""
        policy = settings.policy()
        for equipment in policy.equipment:
            require_way(equipment)
        if misplaced := misplaced_state_folder(str(self._state_dir), policy):
            raise ConfigError(misplaced)

    def look(self) -> None:
        """Notice that a file was saved. It is read at the second look that finds it so: it may be half written at the first."""
        signature = self._signature()
        if self._seen is not None and signature != self._seen:
            self._seen, self._seen_s = signature, self._clock.monotonic_s()
            return
        self._seen = signature
        # What has mistakes is read again each time: where they lie, and so what must be saved to mend them, is not known here.
        if signature == self._judged and not self._found.mistakes:
            return
        self._judged = signature
        self._found = self.find()
        times = [one[0] for one in self._signature() if one is not None]
        self._saved_at = datetime.fromtimestamp(max(times) / 1e9, UTC) if times else self._clock.now()

    def _signature(self) -> Signature:
        files = dict.fromkeys((*self._in_force.files, *self._found.settings.files))
        return tuple(_signature_of(path) for path in files) if self._source is not None else ()

    # --- what follows ------------------------------------------------------------------------------------------------

    @property
    def changed_at(self) -> datetime | None:
        """When the files were saved that say something else; None where they say what is in force."""
        return self._saved_at if self._found.changes or self._found.mistakes else None

    @property
    def news(self) -> Note | None:
        """What is to be told of the files, None where they say what is in force."""
        if self._found.mistakes:
            first, *others = self._found.mistakes.split("\n")
            more = f" (and {counted(len(others), 'more line')})" if others else ""
            return Note(
                CONFIG_INVALID, f"the config was saved with mistakes, so the one before it stays: {first}{more}"
            )
        if not self._found.changes:
            return None
        told = in_one_line(self._found.sentences)
        match self._found.waits_for:
            case Waits.START:
                text = f"the config was changed, which only a new start of the agent takes in: {told}"
                return Note(CONFIG_NEEDS_START, text)
            case Waits.RELOAD:
                return Note(CONFIG_NEWER, f"the config was changed, which waits for `reload`: {told}")
            case Waits.NOTHING:
                return Note(
                    CONFIG_PENDING, f"the config was changed, which is taken in by itself in a quiet moment: {told}"
                )

    def due(self, *, is_busy: bool) -> Found | None:
        """Return what may be taken in by itself now, None where nothing may. `is_busy`: work is under way, and would be cut off."""
        if not self._found.changes or self._found.waits_for is not Waits.NOTHING:
            return None
        if self._clock.monotonic_s() - self._seen_s < self._steady_s + (self._busy_s if is_busy else 0):
            return None
        found = self.find()
        if found.mistakes or found.changes != self._found.changes:  # it was saved anew since the last look
            return None
        return found


def in_one_line(sentences: Sequence[str]) -> str:
    """Return the first of some sentences, and how many there are beside them."""
    more = len(sentences) - CHANGES_TOLD
    return "; ".join((*sentences[:CHANGES_TOLD], *([f"and {more} more"] if more > 0 else [])))


def _signature_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
