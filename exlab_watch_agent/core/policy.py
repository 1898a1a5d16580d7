"""What the configuration demands, as plain frozen values that the core can be handed without knowing of files.

config/load.py turns the config file into these. All times are seconds, all sizes bytes, all rates bytes per second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from exlab_watch_agent.core.bandwidth import BandwidthLimit


class CompletenessSignal(StrEnum):
    SENTINEL_FILE = "sentinel_file"
    MANIFEST = "manifest"
    CREATION_JSON = "creation_json"


class Layout(StrEnum):
    MIRROR = "mirror"
    FLAT = "flat"


class ObserverMode(StrEnum):
    """`auto`: file system events where they arrive, else a light scan every few seconds."""

    AUTO = "auto"
    NATIVE = "native"
    POLLING = "polling"


@dataclass(frozen=True, slots=True)
class MountedPathTarget:
    path: str


@dataclass(frozen=True, slots=True)
class RcloneTarget:
    remote: str
    remote_path: str
    config_path: str | None


@dataclass(frozen=True, slots=True)
class RsyncSshTarget:
    """`ssh_config`: a file of the operator's that is gone by, None for none; `takes_port`: that it may say the port."""

    host: str
    port: int
    key_path: str
    known_hosts_path: str
    remote_path: str
    ssh_config: str | None = None
    may_lack_ssh_config: bool = False
    takes_port: bool = False


Target = MountedPathTarget | RcloneTarget | RsyncSshTarget


@dataclass(frozen=True, slots=True)
class EquipmentPolicy:
    """One instrument: where its runs are (`<local_root>/<equipment_id>/`), when they are complete, where they go."""

    equipment_id: str
    label: str
    local_root: str
    target: Target
    signal: CompletenessSignal = CompletenessSignal.SENTINEL_FILE
    sentinel_filename: str = ""
    manifest_filename: str = ""
    bandwidth: BandwidthLimit | None = None
    observer: ObserverMode = ObserverMode.AUTO


@dataclass(frozen=True, slots=True)
class CleanupPolicy:
    is_enabled: bool = False
    verify_passes_min: int = 2
    age_min_s: float = 24 * 3600
    retains_cache: bool = True
    trash_s: float = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is not about one instrument.

    `staged_elsewhere`: ids of those whose runs ExLab-Wizard hands to another computer.
    """

    equipment: tuple[EquipmentPolicy, ...] = ()
    staged_elsewhere: frozenset[str] = frozenset()
    settle_s: float = 30
    rescan_s: float = 15 * 60
    audit_interval_s: float = 24 * 3600
    reread_s: float = 90 * 24 * 3600
    stale_s: float = 24 * 3600
    unproven_s: float = 8 * 3600
    disk_s: float = 3 * 24 * 3600
    stall_s: float = 300
    pushes_max: int = 2
    retry_schedule_s: tuple[float, ...] = (30, 120, 480, 1800, 7200)
    layout: Layout = Layout.MIRROR
    verify_stream_bytes_max: int = 1 << 30
    cleanup: CleanupPolicy = field(default_factory=CleanupPolicy)
