"""A folder of a server that is reached by rsync alone: listed, read and written through it, one call at a time.

Decided here: which call of rsync does what, and what it means that one failed. `rrsync` refuses a second call beside the
first. Not here: rsync's options for all calls and its exit codes (program.py), and what is at a destination (by_rsync.py).

Source: rsync 3.2.7 and 3.5.0 (log.c for how names are printed), their rrsync.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from exlab_watch_agent.adapters.children.process import Children, Ended, StallWatch
from exlab_watch_agent.adapters.clock import PausingClock
from exlab_watch_agent.adapters.transports.rsync.connection import SilentConnection
from exlab_watch_agent.adapters.transports.rsync.program import Rsync, classified_rsync
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
from exlab_watch_agent.adapters.transports.shared.own_files import OWN_FOLDER
from exlab_watch_agent.core.push_plan import folders_of
from exlab_watch_agent.errors import CancelledError, FailureKind, TransportError
from exlab_watch_agent.ports import Control

SMALL_BYTES_MAX = 256 * 1024 * 1024
UNHINDERED = Control()
NEW = ("-t", "--no-implied-dirs", "--omit-dir-times", "--fsync")
_LINE = re.compile(rb"([-a-z])[-a-zA-Z]{9}[.+@]? +(\d+) (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) (.*)", re.DOTALL)
_ESCAPED = re.compile(rb"\\#([0-7]{3})")
_TYPES = {b"-": stat.S_IFREG, b"d": stat.S_IFDIR, b"l": stat.S_IFLNK}
_BUSY = re.compile(r"Another instance of rrsync")
# The second form is rrsync's own since 3.5.0, which opens the path before it starts rsync.
_NO_ROOT = re.compile(
    r'(?:change_dir|mkdir) "[^"]*" failed: No such file|rrsync error: [^\n]*(?:No such file|does not exist)'
)
_NO_FOLDER = re.compile(r"failed: (?:Not a directory|Too many levels of symbolic links)")


@dataclass(frozen=True, slots=True)
class RsyncEntry:
    """One name on the server. `kind`: S_IFREG, S_IFDIR, S_IFLNK, or 0 for anything else; `mtime_ns` in whole seconds."""

    kind: int
    size_bytes: int
    mtime_ns: int | None


class RsyncFolder:
    """The destination root. Methods raise TransportErrors. `name`: the root for people."""

    def __init__(
        self,
        name: str,
        root: str,
        *,
        login: SshLogin,
        connection: SilentConnection,
        children: Children,
        stall_s: float,
        is_metered: bool,
        clock: PausingClock,
    ) -> None:
        self._name = name
        self._root = root
        self._login = login
        self._pace = login.pace
        self._connection = connection
        self._children = children
        self._rsync = Rsync(children, login, stall_s, is_metered)
        self._stall_s = stall_s
        self._clock = clock
        self._turn = threading.Lock()

    def address(self, path: str = "") -> str:
        """Return how rsync names a folder below the root, from here."""
        return f"{self._login.target}:{self._root}/{path}"

    def survey(
        self, paths: Sequence[str], control: Control = UNHINDERED, *, recursive: bool = False
    ) -> dict[str, RsyncEntry]:
        """Return path below the root → what is there, for these paths. Links above them are followed.

        A path that ends with `/` also gives what is in that folder; with `recursive` all that is below.
        """
        ended = self.list_call(paths, control, recursive=recursive)
        if ended.returncode != 0:
            raise self._classified(ended)
        found: dict[str, RsyncEntry] = {}
        for line in filter(None, ended.stdout.split(b"\n")):
            match = _LINE.fullmatch(line)
            if match is None:
                raise TransportError(FailureKind.UNKNOWN, f"The listing of {self._name} cannot be read: {line!r}.")
            kind, size, time, name = match.groups()
            path = os.fsdecode(_ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), name))
            found[path] = RsyncEntry(_TYPES.get(kind, 0), int(size), _nanoseconds(time.decode()))
        return found

    def survey_by_level(self, paths: Iterable[str]) -> dict[str, RsyncEntry]:
        """Return path → what is there, of those that lie in folders as far as the paths above them are asked for, too.

        One call for each level: of a link that is listed together with what is behind it, rsync says nothing, or that it is a
        folder.
        """
        found: dict[str, RsyncEntry] = {}
        left = set(paths)
        for _, level in groupby(sorted(left, key=_depth), key=_depth):
            due = [path for path in level if (up := path.rpartition("/")[0]) not in left or _is_folder(found.get(up))]
            seen = self.survey(due) if due else {}
            found.update((path, seen[path]) for path in due if path in seen)
        return found

    def list_call(self, paths: Sequence[str], control: Control, *, recursive: bool) -> Ended:
        """Let rsync list these paths, and return how it ended, whatever that means."""
        options = ["-r" if recursive else "-d", "--no-implied-dirs", "--ignore-missing-args"]
        return self._call(options, self.address(), self._scratch(), paths, control, is_listing=True)

    @contextlib.contextmanager
    def pulled(
        self, paths: Sequence[str], control: Control, size_bytes: int, *, options: Sequence[str] = ()
    ) -> Iterator[Path]:
        """Yield a folder with these files, as far as they are regular files there; it is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="pulled-", dir=self._scratch()) as folder:
            if shutil.disk_usage(folder).free < size_bytes:
                text = f"Hashing needs {size_bytes} bytes for a while in {folder}: make room there, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
            options = ["--ignore-missing-args", "--chmod=D700,F600", *options]
            self.run(options, self.address(), f"{folder}/", paths, control)
            yield Path(folder)

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return path → bytes of those that are regular files."""
        if not paths:
            return {}
        with self.pulled(paths, UNHINDERED, 0, options=[f"--max-size={SMALL_BYTES_MAX}"]) as at:
            return {path: (at / path).read_bytes() for path in paths if (at / path).is_file()}

    def put(self, files: Mapping[str, bytes], *, may_replace: bool, control: Control = UNHINDERED) -> None:
        """Write small files below the root, each whole at once; what has a name stays unless `may_replace`.

        Raises: TransportError when anything but a folder is where one must be: rsync would remove a link there.
        """
        self.make_folders([OWN_FOLDER, *sorted(folders_of(files))])
        with tempfile.TemporaryDirectory(prefix="pushed-", dir=self._scratch()) as folder:
            for path, data in files.items():
                local = Path(folder) / path
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(data)
            options = [*NEW, "-I" if may_replace else "--ignore-existing", f"--temp-dir={self._root}/{OWN_FOLDER}"]
            self.run(options, f"{folder}/", self.address("."), list(files), control)

    def make_folders(self, paths: Sequence[str]) -> None:
        """Make folders below the root, never the root. Raises when a link or a file is where one of them must be."""
        wanted = sorted({*paths, *folders_of(paths)})
        seen = self.survey_by_level(wanted)
        for path in wanted:
            if path in seen and seen[path].kind != stat.S_IFDIR:
                text = f"{path!r} at {self._name} is a link or a file where a folder must be: move it away, then retry."
                raise TransportError(FailureKind.UNKNOWN, text)
        missing = [path for path in wanted if path not in seen]
        if missing:
            with tempfile.TemporaryDirectory(prefix="pushed-", dir=self._scratch()) as folder:
                for path in missing:
                    (Path(folder) / path).mkdir(parents=True, exist_ok=True)
                options = ["-d", "--no-implied-dirs", "--omit-dir-times"]
                self.run(options, f"{folder}/", self.address("."), missing, UNHINDERED)

    def _scratch(self) -> str:
        return str(self._children.private_folder())

    def run(
        self,
        options: Sequence[str],
        source: str,
        target: str,
        names: Sequence[str],
        control: Control,
        report: Callable[[int, int], None] = lambda _bytes, _files: None,
    ) -> None:
        ended = self._call(options, source, target, names, control, report=report)
        if ended.returncode != 0:
            raise self._classified(ended)

    def _call(
        self,
        options: Sequence[str],
        source: str,
        target: str,
        names: Sequence[str],
        control: Control,
        *,
        report: Callable[[int, int], None] = lambda _bytes, _files: None,
        is_listing: bool = False,
    ) -> Ended:
        """Run one rsync when it is its turn. One that another agent's holds off is tried again for a minute."""
        require_plain(self._root)
        while not self._turn.acquire(timeout=self._pace.look_every_s):
            _check(control)
        try:
            watch = StallWatch(self._pace.busy_s, f"rsync to {self._login.target}")
            while True:
                _check(control)
                ended = self._rsync.call(
                    options, source, target, names=names, remote_shell=self._connection.remote_shell_words(),
                    control=control, report=report, stall_s=self._stall_s + 30, is_listing=is_listing,
                )  # fmt: skip
                if ended.returncode == 0 or not _BUSY.search(ended.tail):
                    return ended
                try:
                    watch.saw(None)
                except TransportError:
                    return ended
                self._clock.pause(self._pace.look_every_s)
        finally:
            self._turn.release()

    def _classified(self, ended: Ended) -> TransportError:
        if _BUSY.search(ended.tail):
            text = (
                f"Another rsync is at work at {self._name} and rrsync lets one in at a time: give rrsync the option -no-lock "
                "there, or each instrument a folder of its own."
            )
            return TransportError(FailureKind.NETWORK, text, detail=ended.tail)
        if _NO_FOLDER.search(ended.tail):
            text = f"At {self._name} a link or a file is where a folder must be: move it away, then retry."
            return TransportError(FailureKind.UNKNOWN, text, detail=ended.tail)
        if _NO_ROOT.search(ended.tail):
            text = (
                f"The folder {self._root} is not there, or the account may not enter it (with rrsync, remote_path counts from "
                "the folder that rrsync names)."
            )
            return TransportError(FailureKind.NETWORK, text, detail=ended.tail)
        return classified_rsync(self._login, ended)


def _depth(path: str) -> int:
    return path.count("/")


def _is_folder(entry: RsyncEntry | None) -> bool:
    return entry is not None and entry.kind == stat.S_IFDIR


def _check(control: Control) -> None:
    if control.is_cancelled():
        raise CancelledError("stopped as asked")


def require_plain(path: str) -> None:
    """Raise TransportError unless rsync's own way of telling a server a folder's path, and rrsync's of reading it, are safe.

    Only the destination's folder is told so; the names of files and folders in it travel as they are.
    """
    odd = [c for c in path if not c.isprintable() or c in "\\*?[]{}" or (c.isspace() and c != " ")]
    if odd:
        text = (
            f"The folder {path!r} has the character {odd[0]!r} in its path, which a server that allows rsync only may take "
            "for something else. Rename it, or use the transport rclone with a remote of type sftp."
        )
        raise TransportError(FailureKind.UNKNOWN, text)


def _nanoseconds(text: str) -> int | None:
    """Return the time that rsync prints for TZ=UTC; None for one that no calendar here has."""
    try:
        return int(datetime.strptime(text, "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC).timestamp()) * 10**9
    except ValueError:
        return None
