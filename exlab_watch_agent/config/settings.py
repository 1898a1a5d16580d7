"""The config file, checked, turned into the plain values of core/policy.py.

Decided here: what a config file may say. A file that ExLab-Wizard already uses loads as it is: blocks that are not ours
are passed over unread, and the blocks that we share are held to the letter, because a misspelt key that is ignored is a
safety switch that does nothing. All problems are reported at once, and none repeats a value of the file: values can be
secrets. Not here: whether folders, programs and destinations exist (the command `check`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from exlab_watch_agent.config.text import EXAMPLE, FOREIGN_BLOCKS, Document, KeyPath, Problem, read_text
from exlab_watch_agent.core.bandwidth import BandwidthLimit, Window
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.policy import (
    CleanupPolicy,
    CompletenessSignal,
    EquipmentPolicy,
    Layout,
    MountedPathTarget,
    ObserverMode,
    Policy,
    RcloneTarget,
    RsyncSshTarget,
    Target,
)
from exlab_watch_agent.core.text import named
from exlab_watch_agent.errors import ConfigError

_YEAR_HOURS = 24 * 366
_KEY_SHOWN_MAX = 60


# ---------------------------------------------------------------------------------------------------------------------
# What single values may be. A refusal says what is allowed and never what was given.


def _refusal(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


def _printable(value: str) -> str:
    if not value.isprintable():
        raise _refusal("must not contain line breaks or other control characters")
    return value


def _local_path(value: str) -> str:
    """Return the path with `~` put in, normalised. Purely textual: the disk is not asked."""
    path = os.path.expanduser(_printable(value))
    if not os.path.isabs(path):
        raise _refusal("must be an absolute path (a leading ~ is the home folder)")
    if ".." in re.split(r"[/\\]" if os.name == "nt" else "/", path):
        raise _refusal('must not contain "..": write the folder that is meant')
    return os.path.normpath(path)


def _equipment_id(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,31}", value):
        raise _refusal("must be 1 to 32 characters of A-Z, 0-9 and _, the first a letter (like CONFOCAL_01)")
    return value


def _plain_file_name(value: str) -> str:
    _printable(value)
    if "/" in value or "\\" in value or value in (".", ".."):
        raise _refusal("must be the name of a file in the run folder, without any path")
    if value.casefold() == CACHE_FOLDER:
        raise _refusal(f"must not be the cache folder {CACHE_FOLDER}")
    return value


def _ssh_target(value: str) -> str:
    # The name stands on ssh's command line: nothing that could be an option, a path or a second word.
    if not re.fullmatch(
        r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", value
    ):
        raise _refusal(
            "must be user@host, of letters, digits, dots, dashes and underscores (like labuser@nas01.lab.example)"
        )
    return value


def _rclone_remote(value: str) -> str:
    # A colon or comma would turn the name into a connection string, which can hold a password or name another backend.
    if not value or value.startswith("-") or re.search(r"[:,/\\]", _printable(value)):
        raise _refusal(
            'must be the name of a remote in rclone.conf, without ":", "," or "/" and not beginning with "-"'
        )
    return value


def _folder_at_destination(value: str) -> str:
    if ".." in _printable(value).split("/"):
        raise _refusal('must not contain "..": write the folder that is meant')
    folder = value.rstrip("/") or value[:1]
    if not folder:
        raise _refusal("must name a folder")
    return folder


def _rclone_path(value: str) -> str:
    # rclone is asked for the bytes of a file by "[remote:path]/file".
    if "]" in value:
        raise _refusal('must not contain "]"')
    return _folder_at_destination(value)


def _remote_path_over_ssh(value: str) -> str:
    # It is handed over quoted, so that the far shell expands nothing in it.
    if not value.startswith("/"):
        raise _refusal("must be an absolute path on the server, beginning with / (a ~ is not expanded there)")
    return _folder_at_destination(value)


def _clock_time(value: object) -> str:
    # Unquoted, YAML 1.1 reads 18:00 as the number 1080, and 08:00 as text: only quotes are safe.
    if not isinstance(value, str) or not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise _refusal('must be a time from "00:00" to "23:59", zero-padded, local time; quote it, like "08:00"')
    return value


_SECONDS_PER = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,6})?[smhd]", value):
        raise _refusal('must be a number with a unit, s, m, h or d, in quotes, like "30s", "8m", "2h" or "1d"')
    if _seconds(value) > 30 * _SECONDS_PER["d"]:
        raise _refusal("must be at most 30d")
    return value


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * _SECONDS_PER[duration[-1]]


def _log_level(value: object) -> object:
    # ExLab-Wizard takes any case, and calls WARNING also WARN.
    if not isinstance(value, str):
        return value
    level = value.strip().upper()
    return "WARNING" if level == "WARN" else level


Text = Annotated[str, AfterValidator(_printable), Field(min_length=1, max_length=4096)]
LocalPath = Annotated[str, AfterValidator(_local_path), Field(min_length=1, max_length=4096)]
ClockTime = Annotated[str, BeforeValidator(_clock_time)]
Duration = Annotated[str, BeforeValidator(_duration)]
Observer = Literal["auto", "native", "polling"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


# ---------------------------------------------------------------------------------------------------------------------
# The blocks of the file.


class _Block(BaseModel):
    """Strict, because YAML already has types: the text "yes" is not true, and the text "24" is not a number."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
    )


class BandwidthWindowBlock(_Block):
    days: Annotated[list[Day], Field(min_length=1, max_length=7)]
    from_: Annotated[ClockTime, Field(alias="from")]
    to: ClockTime


class BandwidthBlock(_Block):
    upload_mbps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    schedule: Annotated[list[BandwidthWindowBlock], Field(max_length=100)] | None = None

    def limit(self) -> BandwidthLimit | None:
        if self.upload_mbps is None:
            return None
        windows = tuple(
            Window(
                weekdays=frozenset(_DAYS.index(day) for day in window.days),
                start=time.fromisoformat(window.from_),
                end=time.fromisoformat(window.to),
            )
            for window in self.schedule or ()
        )
        return BandwidthLimit(upload_mbps=self.upload_mbps, windows=windows)


class MountedPathBlock(_Block):
    type: Literal["mounted_path"]
    path: LocalPath
    bandwidth: BandwidthBlock | None = None

    def target(self) -> Target:
        return MountedPathTarget(path=self.path)


class RcloneBlock(_Block):
    type: Literal["rclone"]
    rclone_remote: Annotated[str, AfterValidator(_rclone_remote), Field(max_length=255)]
    rclone_remote_path: Annotated[str, AfterValidator(_rclone_path), Field(max_length=4096)]
    rclone_config: LocalPath | None = None
    bandwidth: BandwidthBlock | None = None

    def target(self) -> Target:
        return RcloneTarget(
            remote=self.rclone_remote, remote_path=self.rclone_remote_path, config_path=self.rclone_config
        )


class RsyncSshBlock(_Block):
    type: Literal["rsync_ssh"]
    ssh_target: Annotated[str, AfterValidator(_ssh_target)]
    ssh_port: Annotated[int, Field(ge=1, le=65535)] = 22
    # ExLab-Wizard's own default, so that a file that leaves it out works here too.
    ssh_key_path: LocalPath = "~/.ssh/id_ed25519"
    known_hosts: LocalPath = "~/.ssh/known_hosts"
    remote_path: Annotated[str, AfterValidator(_remote_path_over_ssh), Field(max_length=4096)]
    bandwidth: BandwidthBlock | None = None

    def target(self) -> Target:
        return RsyncSshTarget(
            host=self.ssh_target,
            port=self.ssh_port,
            key_path=self.ssh_key_path,
            known_hosts_path=self.known_hosts,
            remote_path=self.remote_path,
        )


_TRANSPORTS: dict[str, type[MountedPathBlock | RcloneBlock | RsyncSshBlock]] = {
    "mounted_path": MountedPathBlock,
    "rclone": RcloneBlock,
    "rsync_ssh": RsyncSshBlock,
}


class EquipmentBlock(_Block):
    """One instrument that this computer syncs to the NAS."""

    id: Annotated[str, AfterValidator(_equipment_id)]
    label: Annotated[Text, Field(max_length=200)] | None = None
    local_root: LocalPath
    nas_root: str | None = None  # for display only
    # Absent means `sentinel_file`, which then asks for a file name: a signal that nobody chose must not let a pause of
    # the instrument pass for the end of a run.
    completeness_signal: Literal["sentinel_file", "manifest", "creation_json"] = "sentinel_file"
    sentinel_filename: Annotated[str, AfterValidator(_plain_file_name), Field(max_length=255)] | None = None
    manifest_filename: Annotated[str, AfterValidator(_plain_file_name), Field(max_length=255)] | None = None
    observer: Observer | None = None  # absent: as the agent's
    transport: Annotated[MountedPathBlock | RcloneBlock | RsyncSshBlock, Field(discriminator="type")]
    # Of newer ExLab-Wizard versions. Entries with `stage` are not ours, see `_is_staged_elsewhere`.
    sync_mode: Literal["nas", "stage"] = "nas"
    orchestrator_staging_transport: Any = None

    @field_validator("sentinel_filename", "manifest_filename")
    @classmethod
    def _is_there_when_the_signal_needs_it(cls, value: str | None, info: ValidationInfo) -> str | None:
        # At the field and not at the model: this way it is reported together with the entry's other problems.
        needed_by = {"sentinel_filename": "sentinel_file", "manifest_filename": "manifest"}[str(info.field_name)]
        if not value and info.data.get("completeness_signal") == needed_by:
            raise _refusal(
                f"is missing: completeness_signal {needed_by} needs it "
                "(allowed signals: sentinel_file, which is the default, manifest, creation_json)"
            )
        return value or None

    def equipment_policy(self, observer: Observer = "auto") -> EquipmentPolicy:
        """Return the same as plain values; `observer` is the agent's, for an entry that says nothing else."""
        return EquipmentPolicy(
            equipment_id=self.id,
            label=self.label or self.id,
            local_root=self.local_root,
            target=self.transport.target(),
            signal=CompletenessSignal(self.completeness_signal),
            sentinel_filename=self.sentinel_filename or "",
            manifest_filename=self.manifest_filename or "",
            bandwidth=self.transport.bandwidth.limit() if self.transport.bandwidth else None,
            observer=ObserverMode(self.observer or observer),
        )


class CleanupBlock(_Block):
    """`enabled` is false unless the file says true: nothing is ever deleted for lack of a line."""

    enabled: bool = False
    min_verify_passes: Annotated[int, Field(ge=1, le=1000)] = 2
    min_age_hours: Annotated[float, Field(ge=0, le=100 * _YEAR_HOURS)] = 24
    retain_cache: bool = True


class LoggingBlock(_Block):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_log_level)] = "INFO"
    central_log_max_mb: Annotated[int, Field(ge=1, le=100_000)] = 10
    central_log_keep: Annotated[int, Field(ge=1, le=10_000)] = 5


class AgentBlock(_Block):
    state_dir: LocalPath | None = None
    settle_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = 30
    rescan_minutes: Annotated[float, Field(gt=0, le=7 * 1440)] = 15
    observer: Observer = "auto"
    audit_interval_hours: Annotated[float, Field(gt=0, le=_YEAR_HOURS)] = 24
    max_parallel_runs: Annotated[int, Field(ge=1, le=64)] = 2
    retry_schedule: Annotated[list[Duration], Field(min_length=1, max_length=100)] = ["30s", "2m", "8m", "30m", "2h"]
    layout: Literal["mirror", "flat"] = "mirror"
    stale_hours: Annotated[float, Field(gt=0, le=_YEAR_HOURS)] = 24
    stall_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    trash_hours: Annotated[float, Field(ge=0, le=_YEAR_HOURS)] = 0


class VerifyBlock(_Block):
    max_stream_bytes: Annotated[int, Field(ge=0, le=1 << 63)] = 1 << 30


class _SharedBlock(BaseModel):
    """A block of ExLab-Wizard of which we use one member: the others are its own affair."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)


class PathsBlock(_SharedBlock):
    local_root: Any = None  # the default of every equipment's own; checked there


class SyncBlock(_SharedBlock):
    enabled: bool = True


class ValidatorBlock(_SharedBlock):
    """Tunes ExLab-Wizard's content scan; the agent scans no content."""


_BLOCKS: dict[str, type[BaseModel]] = {
    "paths": PathsBlock,
    "nas_cleanup": CleanupBlock,
    "sync": SyncBlock,
    "logging": LoggingBlock,
    "validator": ValidatorBlock,
    "agent": AgentBlock,
    "verify": VerifyBlock,
}
_TOP_LEVEL = ("equipment", *_BLOCKS, *sorted(FOREIGN_BLOCKS))


# ---------------------------------------------------------------------------------------------------------------------
# What comes out.


@dataclass(frozen=True, slots=True)
class Settings:
    """A config file that was found good.

    `notes` are sentences about what the file says that a person may not expect; they are no errors.
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
            stall_s=self.agent.stall_seconds,
            pushes_max=self.agent.max_parallel_runs,
            retry_schedule_s=tuple(_seconds(duration) for duration in self.agent.retry_schedule),
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
        document = Document.parse(text, source=source)
        return _checked(document.content(), document, source=source)
    except RecursionError:
        raise ConfigError(f"{source}: blocks are nested too deeply; write the file flatter.") from None


def settings_from_mapping(config: Mapping[str, Any], *, source: str = "config") -> Settings:
    """Return the settings in a mapping shaped like the config file, for programs that have no file.

    Raises: ConfigError as `parse_settings` does, without line numbers.
    """
    return _checked(dict(config), None, source=source)


# ---------------------------------------------------------------------------------------------------------------------
# The content: every block by itself, then what lies between blocks.


Model = TypeVar("Model", bound=BaseModel)


def _checked(content: dict[str, Any], document: Document | None, *, source: str) -> Settings:
    problems = document.problems if document else []
    problems.extend(Problem((key,), _unknown_key(key, _TOP_LEVEL)) for key in content if key not in _TOP_LEVEL)

    def block(name: str, model: type[Model]) -> Model:
        # A block without content is one whose members are all commented out.
        found = content.get(name)
        return _validated(model, {} if found is None else found, (name,), problems) or model()

    paths = block("paths", PathsBlock)
    sync = block("sync", SyncBlock)
    block("validator", ValidatorBlock)
    cleanup = block("nas_cleanup", CleanupBlock)
    logging = block("logging", LoggingBlock)
    agent = block("agent", AgentBlock)
    verify = block("verify", VerifyBlock)
    entries, notes = _entries(content.get("equipment"), paths, problems)
    equipment = [_validated(EquipmentBlock, entry, path, problems) for path, entry in entries]
    raw_agent = content.get("agent")
    state_dir = _accepted(_local_path, raw_agent.get("state_dir")) if isinstance(raw_agent, Mapping) else None
    problems.extend(_overlaps([_Lane.of(path, entry) for path, entry in entries], state_dir))
    if problems:
        raise ConfigError(_report(problems, document, source))
    if not sync.enabled:
        notes.append("sync.enabled is false: that is ExLab-Wizard's own sync; the agent does not go by it.")
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


def _entries(
    equipment: object, paths: PathsBlock, problems: list[Problem]
) -> tuple[list[tuple[KeyPath, object]], list[str]]:
    """Return the entries that are ours, each with its place in the file, and notes about those that are not."""
    if equipment is None or equipment in ([], ()):
        problems.append(Problem(("equipment",), f"names no instrument; add at least one entry, as in {EXAMPLE}"))
        return [], []
    if not isinstance(equipment, list | tuple):
        problems.append(Problem(("equipment",), "must be a list, one entry for each instrument"))
        return [], []
    ours: list[tuple[KeyPath, object]] = []
    notes: list[str] = []
    for position, entry in enumerate(equipment):
        if isinstance(entry, Mapping) and entry.get("sync_mode") == "stage":
            notes.append(
                f"equipment[{position}] has sync_mode stage: ExLab-Wizard hands its runs to another computer, "
                "so the agent leaves them alone here."
            )
            continue
        if isinstance(entry, Mapping) and "local_root" not in entry and paths.local_root:
            entry = {**entry, "local_root": paths.local_root}
        ours.append((("equipment", position), entry))
    if not ours:
        problems.append(Problem(("equipment",), "names no instrument that syncs from here: all have sync_mode stage"))
    return ours, notes


def _validated(model: type[Model], content: object, path: KeyPath, problems: list[Problem]) -> Model | None:
    """Return the block, or None and add to `problems`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            problems.extend(_problems_of(found, path, content))
        return None


# The library's kinds of errors in our words. {names} are the library's own numbers, never values of the file.
_SENTENCES = {
    "refused": "{sentence}",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "bool_type": "must be true or false, without quotes",
    "int_type": "must be a whole number, without quotes",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number, without quotes",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "model_type": "must be a block of keys",
    "model_attributes_type": "must be a block of keys",
    "invalid_key": "has a key that is not text",
}

_MEANINGS = {
    "id": "the instrument's folder name, like CONFOCAL_01",
    "local_root": "the absolute path of the folder in which <id>/ lies",
    "transport": f"a block with the type {', '.join(_TRANSPORTS)}",
    "type": f"one of {', '.join(_TRANSPORTS)}",
    "path": "the absolute path of the instrument's folder on the mounted NAS",
    "rclone_remote": "the name of a remote in rclone.conf",
    "rclone_remote_path": "the instrument's folder on that remote",
    "ssh_target": "user@host",
    "remote_path": "the absolute path of the instrument's folder on the server",
    "days": "a list of mon, tue, wed, thu, fri, sat, sun",
    "from": 'a time like "08:00"',
    "to": 'a time like "18:00"',
}

_PASSWORD = "is refused: only key-based ssh; name the key in ssh_key_path"  # noqa: S105


def _problems_of(found: Any, block: KeyPath, content: object) -> list[Problem]:
    """Return one error of the library in our words; a transport whose type is misspelt yields one for each odd key."""
    inside, transport_type = _without_tag(found["loc"])
    path, kind, key = (*block, *inside), found["type"], str((*block, *inside)[-1])
    if kind == "extra_forbidden":
        if key == "password" and transport_type == "rsync_ssh":
            return [Problem(path, _PASSWORD)]
        return [Problem(path, _unknown_key(key, _known_keys(path[:-1], transport_type)))]
    if kind == "missing":
        return [Problem(path, _missing(key))]
    if kind == "union_tag_not_found":
        return _untyped_transport(path, content)
    if kind == "union_tag_invalid":
        hint = "; for other storage make a remote with `rclone config` and use rclone"
        return [Problem((*path, "type"), f"must be {_one_of(_TRANSPORTS)}{hint}")]
    template = _SENTENCES.get(kind, "is not a value that can stand here")
    return [Problem(path, template.format_map(found.get("ctx", {})))]


def _without_tag(location: KeyPath) -> tuple[KeyPath, str | None]:
    """Return the library's location as it is in the file, and the transport's type, which the library puts into it."""
    if len(location) > 1 and location[0] == "transport" and location[1] in _TRANSPORTS:
        return ("transport", *location[2:]), str(location[1])
    return location, None


def _untyped_transport(path: KeyPath, content: object) -> list[Problem]:
    transport = content.get("transport") if isinstance(content, Mapping) else None
    known = {key for model in _TRANSPORTS.values() for key in _keys(model)}
    odd = [str(key) for key in transport if key not in known] if isinstance(transport, Mapping) else []
    problems = [Problem((*path, key), _unknown_key(key, sorted(known))) for key in odd]
    if not any(_nearest(key, sorted(known)) == "type" for key in odd):
        problems.append(Problem((*path, "type"), _missing("type")))
    return problems


def _missing(key: str) -> str:
    return f"is missing; it is {_MEANINGS[key]}" if key in _MEANINGS else "is missing"


def _one_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _unknown_key(key: object, known: Sequence[str]) -> str:
    nearest = _nearest(str(key), known)
    if nearest is not None:
        return f'unknown key; the nearest known key is "{nearest}"'
    return f"unknown key; known here: {', '.join(known)}"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(key.strip().lower(), known, n=1, cutoff=0.6)
    return near[0] if near else None


def _known_keys(block: KeyPath, transport_type: str | None) -> list[str]:
    name = [part for part in block if isinstance(part, str)][-1]
    if name == "transport" and transport_type:
        return _keys(_TRANSPORTS[transport_type])
    inner: dict[str, type[BaseModel]] = {
        "equipment": EquipmentBlock,
        "bandwidth": BandwidthBlock,
        "schedule": BandwidthWindowBlock,
    }
    return _keys(inner.get(name) or _BLOCKS[name])


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _report(problems: Sequence[Problem], document: Document | None, source: str) -> str:
    """Return the problems one a line, in the order of the file."""
    placed = []
    for problem in problems:
        line = problem.line or (document.line(problem.path) if document else 0)
        place = f"{source}:{line}" if document else source
        placed.append((line, f"{place}: {_dotted(problem.path)}: {problem.sentence}"))
    return "\n".join(dict.fromkeys(text for _, text in sorted(placed, key=lambda pair: pair[0])))


def _dotted(path: KeyPath) -> str:
    """Return `equipment[0].transport.type`. Keys are the file's own words: made harmless for a terminal, and bounded."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + named(part, limit=_KEY_SHOWN_MAX)
    return text or "(top level)"


# ---------------------------------------------------------------------------------------------------------------------
# What must lie apart: a copy inside the original is no copy, and a run must have one owner.


@dataclass(frozen=True, slots=True)
class _Lane:
    """What of an entry decides about overlaps; None for what is missing or refused anyway.

    Taken from the raw entry, so that overlaps are reported together with an entry's other problems.
    """

    path: KeyPath
    equipment_id: str | None
    run_root: str | None
    mounted_path: str | None

    @classmethod
    def of(cls, path: KeyPath, entry: object) -> _Lane:
        if not isinstance(entry, Mapping):
            return cls(path, None, None, None)
        equipment_id = _accepted(_equipment_id, entry.get("id"))
        local_root = _accepted(_local_path, entry.get("local_root"))
        transport = entry.get("transport")
        mounted = transport if isinstance(transport, Mapping) and transport.get("type") == "mounted_path" else {}
        return cls(
            path=path,
            equipment_id=equipment_id,
            run_root=os.path.join(local_root, equipment_id) if local_root and equipment_id else None,
            mounted_path=_accepted(_local_path, mounted.get("path")),
        )


def _accepted(check: Callable[[str], str], value: object) -> str | None:
    try:
        return check(value.strip()) if isinstance(value, str) and value.strip() else None
    except PydanticCustomError:
        return None


def _overlaps(lanes: Sequence[_Lane], state_dir: str | None) -> Iterator[Problem]:
    """Yield one problem for each pair of places that must lie apart and does not; compares names, asks no disk."""
    first_with_id: dict[str, _Lane] = {}
    roots: dict[str, _Lane] = {}
    destinations: dict[str, _Lane] = {}
    for lane in lanes:
        if lane.equipment_id and first_with_id.setdefault(lane.equipment_id, lane) is not lane:
            other = _dotted(first_with_id[lane.equipment_id].path)
            yield Problem((*lane.path, "id"), f"is the id of {other} too; every instrument needs its own")
        if lane.run_root:
            roots.setdefault(os.path.normcase(lane.run_root), lane)
        if lane.mounted_path:
            destinations.setdefault(os.path.normcase(lane.mounted_path), lane)
    for root, lane in roots.items():
        for above in _folders_above(root):
            if above in roots:
                other = _dotted(roots[above].path)
                sentence = (
                    f"its runs (<local_root>/<id>) would lie inside those of {other} and belong to two instruments"
                )
                yield Problem((*lane.path, "local_root"), sentence)
            if above in destinations:
                sentence = f"contains the local runs of {_dotted(lane.path)}; a copy must lie apart from them"
                yield Problem((*destinations[above].path, "transport", "path"), sentence)
    for destination, lane in destinations.items():
        for above in (destination, *_folders_above(destination)):
            if above in roots:
                sentence = f"lies among the local runs of {_dotted(roots[above].path)}; a copy must lie apart from them"
                yield Problem((*lane.path, "transport", "path"), sentence)
    if state_dir is not None:
        state_dir = os.path.normcase(state_dir)
        if any(above in roots or above in destinations for above in (state_dir, *_folders_above(state_dir))):
            yield Problem(("agent", "state_dir"), "must lie outside the runs and outside their copies")


def _folders_above(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def linked_overlaps(policy: Policy) -> tuple[str, ...]:
    """Return one sentence for each mounted destination that, links and bind mounts followed, lies among local runs.

    The file's names alone do not show this. Reads the disk, and a dead network mount may not answer for minutes: call
    it from a worker thread.
    """
    sentences = []
    run_roots = {item.equipment_id: os.path.join(item.local_root, item.equipment_id) for item in policy.equipment}
    for item in policy.equipment:
        if not isinstance(item.target, MountedPathTarget):
            continue
        destination = os.path.realpath(item.target.path)
        for owner, run_root in run_roots.items():
            root = os.path.realpath(run_root)
            if _is_at_or_below(destination, root) or _is_at_or_below(root, destination):
                sentences.append(
                    f"The destination of {item.equipment_id} is really the local folder of {owner}'s runs or overlaps it "
                    f"({destination}, {root}): nothing there would be a copy; give it a folder of its own."
                )
    return tuple(sentences)


def _is_at_or_below(path: str, folder: str) -> bool:
    """Return whether the path is the folder or lies in it: by name, and by the identity of what is on the disk."""
    candidates = (path, *_folders_above(path))
    if os.path.normcase(folder) in map(os.path.normcase, candidates):
        return True
    try:
        identity = os.stat(folder)
    except OSError:
        return False
    for candidate in candidates:
        try:
            if os.path.samestat(os.stat(candidate), identity):
                return True
        except OSError:
            continue
    return False
