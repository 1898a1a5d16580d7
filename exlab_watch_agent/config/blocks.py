"""The blocks of the config file that are ours: their keys, what each may hold, and its default.

The blocks are held to the letter, because a misspelt key that is ignored is a safety switch that does nothing. Not here:
what ExLab-Wizard's own blocks may hold (wizard.py), and what lies between blocks (overlaps.py).
"""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from exlab_watch_agent.config.values import (
    DAYS,
    REREAD_DAYS_MAX,
    YEAR_HOURS,
    ClockTime,
    Day,
    Duration,
    LocalPath,
    Observer,
    SshConfig,
    Text,
    equipment_id_text,
    local_path,
    log_level,
    plain_file_name,
    rclone_path,
    rclone_remote_name,
    refusal,
    remote_path_over_ssh,
    ssh_target_text,
)
from exlab_watch_agent.core.bandwidth import BandwidthLimit, Window
from exlab_watch_agent.core.policy import (
    CompletenessSignal,
    EquipmentPolicy,
    MountedPathTarget,
    ObserverMode,
    RcloneTarget,
    RsyncSshTarget,
    Target,
)


class Block(BaseModel):
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


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys that a block has in the file."""
    return [field.alias or name for name, field in model.model_fields.items()]


class BandwidthWindowBlock(Block):
    # ExLab-Wizard writes `from_`, and reads both.
    model_config = ConfigDict(populate_by_name=True)

    days: Annotated[list[Day], Field(min_length=1, max_length=7)]
    from_: Annotated[ClockTime, Field(alias="from")]
    to: ClockTime


class BandwidthBlock(Block):
    upload_mbps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    schedule: Annotated[list[BandwidthWindowBlock], Field(max_length=100)] | None = None

    def limit(self) -> BandwidthLimit | None:
        if self.upload_mbps is None:
            return None
        windows = tuple(
            Window(
                weekdays=frozenset(DAYS.index(day) for day in window.days),
                start=time.fromisoformat(window.from_),
                end=time.fromisoformat(window.to),
            )
            for window in self.schedule or ()
        )
        return BandwidthLimit(upload_mbps=self.upload_mbps, windows=windows)


class MountedPathBlock(Block):
    type: Literal["mounted_path"]
    path: LocalPath
    bandwidth: BandwidthBlock | None = None

    def target(self) -> Target:
        return MountedPathTarget(path=self.path)


class RcloneBlock(Block):
    type: Literal["rclone"]
    rclone_remote: Annotated[str, AfterValidator(rclone_remote_name), Field(max_length=255)]
    rclone_remote_path: Annotated[str, AfterValidator(rclone_path), Field(max_length=4096)]
    rclone_config: LocalPath | None = None
    bandwidth: BandwidthBlock | None = None

    def target(self) -> Target:
        return RcloneTarget(
            remote=self.rclone_remote, remote_path=self.rclone_remote_path, config_path=self.rclone_config
        )


class RsyncSshBlock(Block):
    type: Literal["rsync_ssh"]
    ssh_target: Annotated[str, AfterValidator(ssh_target_text)]
    ssh_port: Annotated[int, Field(ge=1, le=65535)] | None = None  # 22, or as ssh_config says
    # ExLab-Wizard's own default, so that a file that leaves it out works here too.
    ssh_key_path: LocalPath = "~/.ssh/id_ed25519"
    known_hosts: LocalPath = "~/.ssh/known_hosts"
    remote_path: Annotated[str, AfterValidator(remote_path_over_ssh), Field(max_length=4096)]
    # `user` in an entry of ExLab-Wizard's, whose own ssh goes by the user's file, else `none`.
    ssh_config: SshConfig = "none"
    bandwidth: BandwidthBlock | None = None

    def target(self) -> Target:
        return RsyncSshTarget(
            host=self.ssh_target,
            port=self.ssh_port or 22,
            key_path=self.ssh_key_path,
            known_hosts_path=self.known_hosts,
            remote_path=self.remote_path,
            ssh_config={"none": None, "user": local_path("~/.ssh/config")}.get(self.ssh_config, self.ssh_config),
            may_lack_ssh_config=self.ssh_config == "user",
            takes_port=self.ssh_config != "none" and self.ssh_port is None,
        )


TRANSPORTS: dict[str, type[MountedPathBlock | RcloneBlock | RsyncSshBlock]] = {
    "mounted_path": MountedPathBlock,
    "rclone": RcloneBlock,
    "rsync_ssh": RsyncSshBlock,
}


class EquipmentBlock(Block):
    """One instrument that this computer syncs to the NAS."""

    id: Annotated[str, AfterValidator(equipment_id_text)]
    label: Annotated[Text, Field(max_length=200)] | None = None
    local_root: LocalPath
    nas_root: str | None = None  # for display only
    # Absent means `sentinel_file`, which then asks for a file name: a signal that nobody chose must not let a pause of
    # the instrument pass for the end of a run.
    completeness_signal: Literal["sentinel_file", "manifest", "creation_json"] = "sentinel_file"
    sentinel_filename: Annotated[str, AfterValidator(plain_file_name), Field(max_length=255)] | None = None
    manifest_filename: Annotated[str, AfterValidator(plain_file_name), Field(max_length=255)] | None = None
    observer: Observer | None = None  # absent: as the agent's
    transport: Annotated[MountedPathBlock | RcloneBlock | RsyncSshBlock, Field(discriminator="type")]
    # Of newer ExLab-Wizard versions. Entries with `stage` are not ours, see `_is_staged_elsewhere`.
    sync_mode: Literal["nas", "stage"] = "nas"
    orchestrator_staging_transport: Any = None

    @field_validator("sentinel_filename", "manifest_filename")
    @classmethod
    def _require_file_for_signal(cls, value: str | None, info: ValidationInfo) -> str | None:
        # At the field and not at the model: this way it is reported together with the entry's other problems.
        needed_by = {"sentinel_filename": "sentinel_file", "manifest_filename": "manifest"}[str(info.field_name)]
        if not value and info.data.get("completeness_signal") == needed_by:
            raise refusal(
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


class CleanupBlock(Block):
    """`enabled` is false unless the file says true: nothing is ever deleted for lack of a line."""

    enabled: bool = False
    min_verify_passes: Annotated[int, Field(ge=1, le=1000)] = 2
    min_age_hours: Annotated[float, Field(ge=0, le=100 * YEAR_HOURS)] = 24
    retain_cache: bool = True


class LoggingBlock(Block):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(log_level)] = "INFO"
    central_log_max_mb: Annotated[int, Field(ge=1, le=100_000)] = 10
    central_log_keep: Annotated[int, Field(ge=1, le=10_000)] = 5


class AgentBlock(Block):
    state_dir: LocalPath | None = None
    settle_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = 30
    rescan_minutes: Annotated[float, Field(gt=0, le=7 * 1440)] = 15
    observer: Observer = "auto"
    audit_interval_hours: Annotated[float, Field(gt=0, le=YEAR_HOURS)] = 24
    reread_days: Annotated[float, Field(gt=0, le=REREAD_DAYS_MAX)] = 90
    max_parallel_runs: Annotated[int, Field(ge=1, le=64)] = 2
    retry_schedule: Annotated[list[Duration], Field(min_length=1, max_length=100)] = ["30s", "2m", "8m", "30m", "2h"]
    layout: Literal["mirror", "flat"] = "mirror"
    stale_hours: Annotated[float, Field(gt=0, le=YEAR_HOURS)] = 24
    unproven_hours: Annotated[float, Field(gt=0, le=YEAR_HOURS)] = 8
    disk_days: Annotated[float, Field(gt=0, le=365)] = 3
    stall_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    trash_hours: Annotated[float, Field(ge=0, le=YEAR_HOURS)] = 0


class VerifyBlock(Block):
    max_stream_bytes: Annotated[int, Field(ge=0, le=1 << 63)] = 1 << 30
