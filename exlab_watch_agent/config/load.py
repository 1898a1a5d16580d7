"""The config, checked, turned into the plain values of core/policy.py: our own file, ExLab-Wizard's, or both.

Decided here: in which order it is checked, and what comes out. The parts: the file as text (text.py), single values
(values.py), blocks (blocks.py), what ExLab-Wizard's file may say (wizard.py), how two files become one (sources.py), refusals
(problems.py), what lies between blocks (overlaps.py). Not here: whether folders, programs and destinations exist (the command
`check`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from exlab_watch_agent.config.blocks import AgentBlock, CleanupBlock, EquipmentBlock, LoggingBlock, VerifyBlock
from exlab_watch_agent.config.overlaps import PlacesOfEntry, overlaps
from exlab_watch_agent.config.problems import TOP_LEVEL, Model, unknown_block, validated
from exlab_watch_agent.config.sources import ConfigText, Entry, Sources, joined
from exlab_watch_agent.config.text import WIZARD_CONFIG, Document, KeyPath, Problem, read_text
from exlab_watch_agent.config.values import accepted, local_path, seconds
from exlab_watch_agent.config.wizard import (
    entries_of,
    ids_staged_elsewhere,
    is_staged_elsewhere,
    is_sync_off,
    logging_of,
    note_of,
    with_its_ssh,
)
from exlab_watch_agent.core.policy import CleanupPolicy, Layout, Policy
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """A config that was found good.

    `wizard_config`: ExLab-Wizard's file that was read with it. `notes` are sentences about what the config says that a person
    may not expect; they are not errors. `staged_elsewhere`: as in Policy.
    """

    path: Path
    equipment: tuple[EquipmentBlock, ...]
    agent: AgentBlock
    nas_cleanup: CleanupBlock
    verify: VerifyBlock
    logging: LoggingBlock
    is_sync_enabled: bool = True
    notes: tuple[str, ...] = ()
    staged_elsewhere: frozenset[str] = frozenset()
    wizard_config: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that it was read from."""
        return (self.path,) if self.wizard_config is None else (self.path, self.wizard_config)

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
            staged_elsewhere=self.staged_elsewhere,
            settle_s=self.agent.settle_seconds,
            rescan_s=self.agent.rescan_minutes * 60,
            audit_interval_s=self.agent.audit_interval_hours * 3600,
            reread_s=self.agent.reread_days * 24 * 3600,
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
    """Return the settings in the config file, and in ExLab-Wizard's if it names that. The files are only read.

    Raises: ConfigError, one sentence when there is no usable file, else one line for each problem in it.
    """
    return parse_settings(read_text(path), source=str(path))


def parse_settings(text: str, *, source: str) -> Settings:
    """Return the settings in the text of a config file; `source` is the file's name in messages.

    Raises: ConfigError with one line for each problem: file, line, key, and what is allowed there.
    """
    return _checked(config_text(text, source=source), Path(source))


def settings_from_mapping(config: Mapping[str, Any], *, source: str = "config") -> Settings:
    """Return the settings in a mapping shaped like the config file, for programs that have no file.

    Raises: ConfigError as `parse_settings` does, without line numbers.
    """
    return _checked(ConfigText.of_mapping(config, source), Path(source))


def config_text(text: str, *, source: str) -> ConfigText:
    """Return the content of a config file, and whose it is. Raises: ConfigError where it is no YAML."""
    shown = printable(source)
    try:
        return ConfigText.of(Document.parse(text, source=shown))
    except RecursionError:
        raise ConfigError(f"{shown}: blocks are nested too deeply; write the file flatter.") from None


def _checked(main: ConfigText, path: Path) -> Settings:
    problems: list[Problem] = []
    wizard_config, theirs = _wizards_file(main, problems)
    texts = [main] if theirs is None else [main, theirs]
    for text in texts:
        problems.extend(text.document.problems if text.document is not None else ())
    passed_over: dict[str, list[KeyPath]] = {text.source: [] for text in texts}
    for key in main.content:
        if main.is_ours and key not in TOP_LEVEL:
            problems.append(main.problem((key,), unknown_block(key)))
    for text in texts:
        passed_over[text.source] += [(key,) for key in text.content if not text.is_ours and key not in TOP_LEVEL]

    entries, notes = _instruments(main, theirs, passed_over, problems)
    sources = Sources(texts, entries)

    def block(name: str, model: type[Model]) -> Model:
        text = sources.place_of((name,)).text
        found = text.content.get(name)
        if model is LoggingBlock and not text.is_ours:
            found = logging_of(text, passed_over[text.source])
        # A block without content is one whose members are all commented out.
        good = validated(model, {} if found is None else found, (name,), problems, is_wizards=not text.is_ours)
        return good or model()

    cleanup = block("nas_cleanup", CleanupBlock)
    logging = block("logging", LoggingBlock)
    agent = block("agent", AgentBlock)
    verify = block("verify", VerifyBlock)
    here = [(position, entry) for position, entry in enumerate(entries) if not is_staged_elsewhere(entry)]
    equipment = [
        validated(EquipmentBlock, entry.content, ("equipment", position), problems, is_wizards=entry.is_wizards)
        for position, entry in here
    ]
    raw_agent = main.content.get("agent")
    state_dir = accepted(local_path, raw_agent.get("state_dir")) if isinstance(raw_agent, Mapping) else None
    places = [
        PlacesOfEntry.of(("equipment", position), sources.name(("equipment", position)), entry.content)
        for position, entry in here
    ]
    problems.extend(overlaps(places, state_dir))
    if problems:
        raise ConfigError(sources.report(problems))
    notes += [
        f"{sources.name(('equipment', position))} has sync_mode stage: ExLab-Wizard hands its runs to another computer, so the "
        "agent leaves them alone here"
        for position, entry in enumerate(entries)
        if is_staged_elsewhere(entry)
    ]
    is_sync_enabled = not any(is_sync_off(text.content) for text in texts)
    if not is_sync_enabled:
        notes.append("sync.enabled is false: that is ExLab-Wizard's own sync; the agent ignores it")
    notes += [note for text in texts if (note := note_of(text, passed_over[text.source]))]
    return Settings(
        path=path,
        equipment=tuple(entry for entry in equipment if entry is not None),
        agent=agent,
        nas_cleanup=cleanup,
        verify=verify,
        logging=logging,
        is_sync_enabled=is_sync_enabled,
        notes=tuple(notes),
        wizard_config=wizard_config,
        staged_elsewhere=ids_staged_elsewhere(entries),
    )


def _wizards_file(main: ConfigText, problems: list[Problem]) -> tuple[Path | None, ConfigText | None]:
    """Return ExLab-Wizard's file that ours names, None where it names none. Raises: ConfigError where it cannot be used."""
    named = main.content.get(WIZARD_CONFIG)
    if named is None:
        return None, None
    place = (WIZARD_CONFIG,)
    path = accepted(local_path, named)
    if path is None:
        problems.append(
            main.problem(place, "must be the absolute path of ExLab-Wizard's config.yaml (~ is the home folder)")
        )
        return None, None
    line = main.line(place)
    where = f"{main.source}:{line}" if line else main.source
    theirs = config_text(
        read_text(Path(path), instead=f"correct {WIZARD_CONFIG} in {where}, or take it out there"), source=path
    )
    if theirs.is_ours:
        sentence = "names a file of the agent's own; it must be ExLab-Wizard's config.yaml, which has none of the agent's blocks"
        problems.append(main.problem(place, sentence))
        return None, None
    return Path(path), theirs


def _instruments(
    main: ConfigText, theirs: ConfigText | None, passed_over: dict[str, list[KeyPath]], problems: list[Problem]
) -> tuple[list[Entry], list[str]]:
    """Return the entries of all files, and notes about those of ours that belong to no instrument."""
    entries = entries_of(main, passed_over[main.source], problems)
    if theirs is None:
        return [with_its_ssh(entry) for entry in entries], []
    together, idle = joined(entries, entries_of(theirs, passed_over[theirs.source], problems))
    return [with_its_ssh(entry) for entry in together], [
        f"{main.source}:{entry.places[0].line}: the entry adds to an instrument that ExLab-Wizard's config does not have, and "
        "is none itself, because it has no transport: it is passed over"
        for entry in idle
    ]
