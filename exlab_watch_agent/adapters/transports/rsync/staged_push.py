"""One push through a folder of our own on the target: files get their names there only once all of a portion is right.

The order, and why it is so, is said in by_shell.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exlab_watch_agent.adapters.transports.rsync.program import PushProgress, Rsync
from exlab_watch_agent.adapters.transports.rsync.target_errors import classified_target
from exlab_watch_agent.adapters.transports.rsync.target_folder import TargetFolder
from exlab_watch_agent.adapters.transports.shared.local_side import require_sources, require_sources_unchanged
from exlab_watch_agent.adapters.transports.shared.own_files import PARTIAL_FOLDER, arrived_under_another_name
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.push_plan import folders_of, plan_moves
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.ports import Control


@dataclass(frozen=True, slots=True)
class StagedPush:
    """From where to where, through what, and who gets progress. `name`: the root for people; `root`: its path on the target.

    `remote_shell` returns the command by which rsync gets its session. `piece_kept_bytes`: as PIECE_KEPT_BYTES says.
    """

    folder: TargetFolder
    rsync: Rsync
    remote_shell: Callable[[], Sequence[str]]
    name: str
    root: str
    source_root: str
    destination: str
    control: Control
    progress: PushProgress
    piece_kept_bytes: int

    def copy(self, files: Sequence[FileEntry], folders: set[str]) -> None:
        """Copy files and give them their names. `folders`: those in the run's folder, kept up to date."""
        waiting = own_folder(self.destination, "push")
        self.stage(files, waiting)
        require_sources_unchanged(self.source_root, files)
        moves = plan_moves([entry.path for entry in files], folders)
        said = self.folder.move_new(waiting, self.destination, moves)
        left = sorted(path for path, entry in self.folder.survey(waiting).items() if entry.is_file)
        if left and said:
            raise classified_target(f"Cannot give {left[0]!r} its name at {self.name}", said)
        if left:
            raise TransportError(FailureKind.UNKNOWN, taken(left[0], self.destination))
        folders |= folders_of(entry.path for entry in files)
        self.progress.finish(files)

    def stage(self, files: Sequence[FileEntry], waiting: str) -> None:
        """Let rsync copy the files into the folder `waiting`, and require that all of them are there."""
        require_sources(self.source_root, files)
        self.folder.make(waiting)
        large = [entry.path for entry in files if entry.size_bytes >= self.piece_kept_bytes]
        may_resume = bool(large) and self.folder.offer_pieces(self.destination, waiting, large)
        try:
            self.rsync.push(
                self.source_root,
                files,
                f"{self.root}/{waiting}",
                remote_shell=self.remote_shell(),
                control=self.control,
                report=self.progress.report,
                may_resume=may_resume,
            )
        except TransportError:
            require_sources(self.source_root, files)  # one that is gone or changed is the reason, whatever rsync said
            raise
        arrived = {path: entry for path, entry in self.folder.survey(waiting).items() if not entry.is_folder}
        expected = {entry.path: entry.size_bytes for entry in files}
        if {path: entry.size_bytes for path, entry in arrived.items()} != expected:
            require_sources_unchanged(self.source_root, files)
            odd = sorted(set(expected) ^ set(arrived)) or sorted(
                p for p in expected if arrived[p].size_bytes != expected[p]
            )
            raise arrived_under_another_name(odd[0], self.name)


def own_folder(destination: str, kind: str) -> str:
    """Return a new name for a folder of ours; `TargetFolder.clear_partials` knows the form."""
    return f"{destination}/{PARTIAL_FOLDER}/{secrets.token_hex(8)}.{kind}"


def taken(path: str, destination: str) -> str:
    """Return what is wrong where something has the name of a file."""
    return (
        f"Cannot write {path!r} in {destination!r}: something of that name exists already and is never replaced. "
        "Rename one of them, then retry."
    )
