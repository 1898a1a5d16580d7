"""The one place where parts are chosen and joined: settings in; transports, ports, lanes, the store and the logs out.

Nothing runs here. What a running agent does with the parts is agent.py's, what a command does with them offline.py's.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.cache_folder import CacheFolderSealer, FolderManifestStore
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.old_files import OldFiles
from exlab_watch_agent.adapters.local.root_lock import EquipmentRootLock
from exlab_watch_agent.adapters.local.run_log import RunLogWriter
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state.central_log import CentralLog
from exlab_watch_agent.adapters.state.inbox import Inbox
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide
from exlab_watch_agent.adapters.transports.rclone.far_side import RcloneFarSide
from exlab_watch_agent.adapters.transports.rsync.way import RsyncWay
from exlab_watch_agent.app.pace import PACE, Pace
from exlab_watch_agent.config.load import Settings
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget, Policy, RcloneTarget, RsyncSshTarget
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.errors import ConfigError
from exlab_watch_agent.ports import AgentSelf, Clock, Ports, Transport
from exlab_watch_agent.statechart import CHART

PACKAGE_LOG = logging.getLogger("exlab_watch_agent")


@dataclass(frozen=True, slots=True)
class Scope:
    """What an agent looks after, and how.

    `only`: these run folders (None: all). `only_enqueued`: runs that were enqueued, now or in an earlier life; what is
    discovered is ignored. `is_watching`: file events are listened to. `is_working`: runs are pushed, verified and
    sealed; else it is only found out what is where.
    """

    only: frozenset[str] | None = None
    only_enqueued: bool = False
    is_watching: bool = True
    is_working: bool = True

    @property
    def is_everything(self) -> bool:
        return self.only is None and not self.only_enqueued and self.is_working


@dataclass(frozen=True, slots=True)
class Parts:
    """What an agent over one state folder works with, but for its engine and its lanes. Nothing is open yet."""

    state_dir: Path
    settings: Settings
    policy: Policy
    clock: SystemClock
    pace: Pace
    host: str
    store: RunStore
    children: Children
    run_log: RunLogWriter
    old_files: OldFiles
    inbox: Inbox

    @property
    def roots(self) -> dict[str, str]:
        """Equipment id → the folder below which its runs are."""
        return {item.equipment_id: equipment_root(item) for item in self.policy.equipment}

    def anchor(self) -> Mapping[str, str | int]:
        """Return where the audit trail is now, as a sealed run's receipt says it."""
        head = self.store.head
        return {
            "host": self.host,
            "version": __version__,
            "chart": CHART.version,
            "audit_seq": head.seq,
            "audit_blake3": head.digest,
            "sealed_at": utc_text(self.clock.now()),
        }

    def itself(self) -> AgentSelf:
        """Return who this agent is. The store is open."""
        return AgentSelf(
            state_folder=self.store.folder_id,
            host=self.host,
            machine=self.store.machine,
            state_dir=os.path.abspath(self.state_dir),
            is_gone=_is_gone,
            has_line=self.store.has_line,
        )

    def make_transport(self, equipment: EquipmentPolicy) -> Transport:
        """Return the configured transport of an equipment; its programs live and end with this agent."""
        return make_transport(equipment, self.policy, state_dir=self.state_dir, children=self.children, pace=self.pace)


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it may be there, for others
        pass
    return False


def parts_of(
    settings: Settings, *, state_dir: Path | None, clock: SystemClock, pace: Pace = PACE, lock: FileLock | None = None
) -> Parts:
    """Return the parts for an agent with these settings, over another state folder than theirs if one is given. `lock`: see
    RunStore."""
    folder, host = state_dir or settings.state_dir, socket.gethostname()
    return Parts(
        state_dir=folder,
        settings=settings,
        policy=settings.policy(),
        clock=clock,
        pace=pace,
        host=host,
        store=RunStore(folder, lock=lock),
        children=Children(StateLayout(folder).children),
        run_log=RunLogWriter(host),
        old_files=OldFiles(),
        inbox=Inbox(folder),
    )


def require_way(equipment: EquipmentPolicy) -> None:
    """Raises: ConfigError for a way to the NAS that this platform does not have."""
    if os.name == "nt" and isinstance(equipment.target, RsyncSshTarget):
        raise ConfigError(
            f"equipment {equipment.equipment_id}: rsync over ssh runs on Linux and macOS only; on Windows use rclone with "
            "a remote of type sftp."
        )


def make_transport(
    equipment: EquipmentPolicy,
    policy: Policy,
    *,
    state_dir: Path | None = None,
    children: Children | None = None,
    pace: Pace = PACE,
) -> Transport:
    """Return the transport that an equipment's target asks for, for the agent of that state folder if one is given.

    `children` keeps the programs that it runs; without it the transport has its own, ended by its `close`.
    Raises: ConfigError for a transport that this platform does not have.
    """
    host = socket.gethostname()
    owner = f"{host} {state_dir} {equipment.equipment_id}" if state_dir is not None else ""
    if isinstance(equipment.target, MountedPathTarget):
        return Destination(MountedFarSide(equipment.target.path), owner=owner, host=host)
    if isinstance(equipment.target, RcloneTarget):
        return Destination(
            RcloneFarSide(equipment.target, children=children, stall_s=policy.stall_s, pace=pace.rclone),
            owner=owner,
            host=host,
            stream_bytes_max=policy.verify_stream_bytes_max,
        )
    require_way(equipment)
    way = RsyncWay(
        equipment.target,
        children=children,
        socket_folder=None if state_dir is None else StateLayout(state_dir).sockets,
        stall_s=policy.stall_s,
        is_metered=equipment.bandwidth is not None,
        pace=pace.rsync,
    )
    return Destination(way, owner=owner, host=host, stream_bytes_max=policy.verify_stream_bytes_max)


def ports_of(
    equipment: EquipmentPolicy,
    policy: Policy,
    transport: Transport,
    *,
    state_dir: Path,
    clock: Clock,
    old_files: OldFiles | None = None,
) -> Ports:
    """Return what the work on one equipment's runs needs. Asks no disk and no network."""
    root = equipment_root(equipment)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "state_dir": str(state_dir)}
    return Ports(
        clock=clock,
        tree=DiskRunTree(),
        creations=JsonCreationFiles(tell=PACKAGE_LOG.warning, old_files=old_files),
        digester=LocalDigester(),
        scanner=DiskRunScanner(),
        root_lock=EquipmentRootLock(root, holder=holder),
        transport=transport,
        manifests=FolderManifestStore(StateLayout(state_dir).manifests),
        sealer=CacheFolderSealer(),
        equipment=equipment,
        root=root,
        policy=policy,
        apartness=ProbedApartness(equipment, transport, clock, policy.equipment),
    )


def open_log(parts: Parts) -> logging.Handler:
    """Have the package's log written into the state folder; return what `close_log` takes."""
    logging_block = parts.settings.logging
    handler = CentralLog(
        StateLayout(parts.state_dir).log,
        size_bytes_max=int(logging_block.central_log_max_mb * 1024 * 1024),
        kept=logging_block.central_log_keep,
    )
    PACKAGE_LOG.setLevel(logging_block.level)
    PACKAGE_LOG.addHandler(handler)
    PACKAGE_LOG.propagate = False
    return handler


def close_log(handler: logging.Handler) -> None:
    PACKAGE_LOG.removeHandler(handler)
    PACKAGE_LOG.propagate = True
    handler.close()
