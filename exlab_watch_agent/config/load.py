"""The config file, checked, turned into the plain values of core/policy.py.

Decided here: in which order a file is checked, and what comes out. The parts: the file as text (text.py), single values
(values.py), blocks (blocks.py), what is shared with ExLab-Wizard (wizard.py), refusals (problems.py), what lies between
blocks (overlaps.py). Not here: whether folders, programs and destinations exist (the command `check`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from exlab_watch_agent.config.blocks import AgentBlock, CleanupBlock, EquipmentBlock, LoggingBlock, VerifyBlock
from exlab_watch_agent.config.overlaps import PlacesOfEntry, overlaps
from exlab_watch_agent.config.problems import TOP_LEVEL, Model, report, unknown_key, validated
from exlab_watch_agent.config.text import Document, Problem, read_text
from exlab_watch_agent.config.values import accepted, local_path, seconds
from exlab_watch_agent.config.wizard import PathsBlock, SyncBlock, ValidatorBlock, entries_that_are_ours
from exlab_watch_agent.core.policy import CleanupPolicy, Layout, Policy
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """A config file that was found good.

    `notes` are sentences about what the file says that a person may not expect; they are not errors.
    """

    path: Path
    equipment: tuple[EquipmentBlock, ...]
    agent: AgentBlock
    nas_cleanup: CleanupBlock
    verify: VerifyBlock
    logging: LoggingBlock
    is_sync_enabled: bool = True
    notes: tuple[str, ...] = ()

    @property
    def state_dir(self) -> Path:
        """Return the folder for the agent's state: the configured one, else the platform's for this user."""
        if self.agent.state_dir is not None:
            return Path(self.agent.state_dir)
        return platformdirs.user_state_path("exlab-watch-agent", appauthor=False)

    def policy(self) -> Policy:
        """Return the same as plain values for the core: seconds, bytes, no files."""
        return Policy(
            equipment=tuple(entry.equipment_policy(self.agent.observer) for entry in self.equipment),
            settle_s=self.agent.settle_seconds,
            rescan_s=self.agent.rescan_minutes * 60,
            audit_interval_s=self.agent.audit_interval_hours * 3600,
            stale_s=self.agent.stale_hours * 3600,
            unproven_s=self.agent.unproven_hours * 3600,
            disk_s=self.agent.disk_days * 24 * 3600,
            stall_s=self.agent.stall_seconds,
            pushes_max=self.agent.max_parallel_runs,
            retry_schedule_s=tuple(seconds(duration) for duration in self.agent.retry_schedule),
            layout=Layout(self.agent.layout),
            verify_stream_bytes_max=self.verify.max_stream_bytes,
            cleanup=CleanupPolicy(
                is_enabled=self.nas_cleanup.enabled,
                verify_passes_min=self.nas_cleanup.min_verify_passes,
                age_min_s=self.nas_cleanup.min_age_hours * 3600,
                retains_cache=self.nas_cleanup.retain_cache,
                trash_s=self.agent.trash_hours * 3600,
            ),
        )


def load_settings(path: Path) -> Settings:
    """Return the settings in the config file. The file is only read.

    Raises: ConfigError, one sentence when there is no usable file, else one line for each problem in it.
    """
    return parse_settings(read_text(path), source=str(path))


def parse_settings(text: str, *, source: str) -> Settings:
    """Return the settings in the text of a config file; `source` is the file's name in messages.

    Raises: ConfigError with one line for each problem: file, line, key, and what is allowed there.
    """
    try:
        document = Document.parse(text, source=printable(source))
        return _checked(document.content(), document, source=source)
    except RecursionError:
        raise ConfigError(f"{printable(source)}: blocks are nested too deeply; write the file flatter.") from None


def settings_from_mapping(config: Mapping[str, Any], *, source: str = "config") -> Settings:
    """Return the settings in a mapping shaped like the config file, for programs that have no file.

    Raises: ConfigError as `parse_settings` does, without line numbers.
    """
    return _checked(dict(config), None, source=source)


def _checked(content: dict[str, Any], document: Document | None, *, source: str) -> Settings:
    problems = document.problems if document else []
    problems.extend(Problem((key,), unknown_key(key, TOP_LEVEL)) for key in content if key not in TOP_LEVEL)

    def block(name: str, model: type[Model]) -> Model:
        # A block without content is one whose members are all commented out.
        found = content.get(name)
        return validated(model, {} if found is None else found, (name,), problems) or model()

    paths = block("paths", PathsBlock)
    sync = block("sync", SyncBlock)
    block("validator", ValidatorBlock)
    cleanup = block("nas_cleanup", CleanupBlock)
    logging = block("logging", LoggingBlock)
    agent = block("agent", AgentBlock)
    verify = block("verify", VerifyBlock)
    entries, notes = entries_that_are_ours(content.get("equipment"), paths, problems)
    equipment = [validated(EquipmentBlock, entry, path, problems) for path, entry in entries]
    raw_agent = content.get("agent")
    state_dir = accepted(local_path, raw_agent.get("state_dir")) if isinstance(raw_agent, Mapping) else None
    problems.extend(overlaps([PlacesOfEntry.of(path, entry) for path, entry in entries], state_dir))
    if problems:
        raise ConfigError(report(problems, document, printable(source)))
    if not sync.enabled:
        notes.append("sync.enabled is false: that is ExLab-Wizard's own sync; the agent ignores it.")
    return Settings(
        path=Path(source),
        equipment=tuple(entry for entry in equipment if entry is not None),
        agent=agent,
        nas_cleanup=cleanup,
        verify=verify,
        logging=logging,
        is_sync_enabled=sync.enabled,
        notes=tuple(notes),
    )
