"""One push through a folder of our own on the target: files get their names there only once all of a portion is right.

The order, and why it is so, is said in by_shell.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exlab_watch_agent.adapters.transports.far_side import Shipment
from exlab_watch_agent.adapters.transports.rsync.program import PushProgress, Rsync
from exlab_watch_agent.adapters.transports.rsync.target_errors import classified_target
from exlab_watch_agent.adapters.transports.rsync.target_folder import TargetFolder
from exlab_watch_agent.adapters.transports.shared.own_files import PARTIAL_FOLDER, arrived_under_another_name, taken
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.push_plan import plan_moves
from exlab_watch_agent.ports import Control


@dataclass(frozen=True, slots=True)
class StagedPush:
    """From where to where, through what, and who gets progress. `name`: the root for people; `root_path`: that on the target.

    `remote_shell` returns the command by which rsync gets its session. `piece_kept_bytes`: as PIECE_KEPT_BYTES says.
    """

    root: TargetFolder
    rsync: Rsync
    remote_shell: Callable[[], Sequence[str]]
    name: str
    root_path: str
    source_root: str
    folder: str
    control: Control
    progress: PushProgress
    piece_kept_bytes: int

    def copy(self, shipment: Shipment) -> None:
        """Copy files and give them their names."""
        waiting = own_folder(self.folder, "push")
        self.stage(shipment.files, waiting)
        shipment.require_as_listed()
        moves = plan_moves([entry.path for entry in shipment.files], shipment.folders)
        said = self.root.move_new(waiting, self.folder, moves)
        left = sorted(path for path, entry in self.root.survey(waiting).items() if entry.is_file)
        if left and said:
            raise classified_target(f"Cannot give {left[0]!r} its name at {self.name}", said)
        if left:
            raise taken(left[0], self.folder, self.name)
        self.progress.finish(shipment.files)

    def stage(self, files: Sequence[FileEntry], waiting: str) -> None:
        """Let rsync copy the files into the folder `waiting`, and require that all of them are there."""
        self.root.make(waiting)
        large = [entry.path for entry in files if entry.size_bytes >= self.piece_kept_bytes]
        may_resume = bool(large) and self.root.offer_pieces(self.folder, waiting, large)
        self.rsync.push(
            self.source_root,
            files,
            f"{self.root_path}/{waiting}",
            remote_shell=self.remote_shell(),
            control=self.control,
            report=self.progress.report,
            may_resume=may_resume,
        )
        arrived = {path: entry for path, entry in self.root.survey(waiting).items() if not entry.is_folder}
        expected = {entry.path: entry.size_bytes for entry in files}
        if {path: entry.size_bytes for path, entry in arrived.items()} != expected:
            odd = sorted(set(expected) ^ set(arrived)) or sorted(
                p for p in expected if arrived[p].size_bytes != expected[p]
            )
            raise arrived_under_another_name(odd[0], self.name)


def own_folder(destination: str, kind: str) -> str:
    """Return a new name for a folder of ours; `TargetFolder.clear_partials` knows the form."""
    return f"{destination}/{PARTIAL_FOLDER}/{secrets.token_hex(8)}.{kind}"
