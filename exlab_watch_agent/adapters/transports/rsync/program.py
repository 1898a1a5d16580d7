"""Calls rsync: its command line, its progress, and what its exit codes mean.

Decided here: which options rsync gets, and which never. Not here: which files, and what becomes of them on the target
(by_shell.py): rsync only ever writes into a folder that was made for it, empty, a moment ago.

No `--delay-updates` and no `--fsync`: the agent gives files their final names itself, and one `sync` for all makes names
durable too, which rsync's fsync does not. Source: rsync(1), and docs/facts.md, rsync.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.adapters.children.environment import find_program
from exlab_watch_agent.adapters.children.process import Children, Ended
from exlab_watch_agent.adapters.transports.rsync import metered_stream
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin, classified_ssh
from exlab_watch_agent.adapters.transports.rsync.target_errors import classified_target
from exlab_watch_agent.adapters.transports.rsync.target_folder import PIECE_FOLDER
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.ports import Control, Progress

VERSION_MIN = (3, 2, 4)
HOW_TO_GET = "install rsync 3.2.4 or later (the package rsync; on macOS by Homebrew)."
_PROGRESS = re.compile(rb"\s([0-9]+) +[0-9]+%[^\r\n]*?(?:xfr#([0-9]+)[^\r\n]*)?[\r\n]")
_NETWORK, _UNKNOWN = FailureKind.NETWORK, FailureKind.UNKNOWN
_PUSHING = ("-t", "--no-implied-dirs", "--omit-dir-times")

# Codes that mean the same whatever was said. 12 and 255 are also what a target without rsync and a failed ssh end with.
_MEANINGS: dict[int, tuple[FailureKind, str]] = {
    1: (_UNKNOWN, "one of the two rsyncs does not know an option: is it 3.2.4 or later, here and on the target?"),
    2: (_UNKNOWN, "the two rsyncs do not understand each other"),
    4: (_UNKNOWN, "the target's rsync cannot do what was asked"),
    5: (_NETWORK, "the two rsyncs could not begin"),
    10: (_NETWORK, "the connection was cut"),
    12: (_NETWORK, "the connection was cut"),
    20: (_NETWORK, "rsync was told to stop"),
    24: (FailureKind.LOCAL_FILE_VANISHED, "files went away while they were copied"),
    30: (_NETWORK, "nothing moved for too long"),
    35: (_NETWORK, "the target did not answer in time"),
    255: (_NETWORK, "the connection was cut"),
}
_NO_RSYNC_THERE = re.compile(
    r"rsync: (?:command )?not found|rsync: No such file|not found: rsync|exec.*rsync.*No such file"
)
_NOT_CLEAN = re.compile(r"is your shell clean|protocol version mismatch")


@dataclass(frozen=True, slots=True)
class Rsync:
    """How rsync is called. `stall_s`: after so long without a byte it is ended.

    `is_metered`: a bandwidth limit may come into force, so what is sent passes metered_stream.py.
    What comes back never does.
    """

    children: Children
    login: SshLogin
    stall_s: float
    is_metered: bool

    def push(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        target_path: str,
        *,
        remote_shell: Sequence[str],
        control: Control,
        report: Callable[[int, int], None],
        may_resume: bool,
    ) -> None:
        """Copy these files below `source_root` into the folder `target_path`, which exists and is empty.

        `report` gets bytes and files done so far. `may_resume`: pieces of earlier pushes are there, whose reading on both
        sides moves no byte for a long time. Raises: TransportError; CancelledError.
        """
        ended = self.call(
            [*_PUSHING, "--ignore-existing", f"--partial-dir={PIECE_FOLDER}", "-s"],
            f"{source_root}/",
            f"{self.login.target}:{target_path}/",
            names=[entry.path for entry in files],
            remote_shell=remote_shell,
            control=control,
            report=report,
            stall_s=math.inf if may_resume else self.stall_s + 30,  # rsync's own wait comes first and says more
        )
        if ended.returncode != 0:
            raise classified_rsync(self.login, ended)

    def call(
        self,
        options: Sequence[str],
        source: str,
        target: str,
        *,
        names: Iterable[str],
        remote_shell: Sequence[str],
        control: Control,
        report: Callable[[int, int], None] = lambda _bytes, _files: None,
        stall_s: float,
        is_listing: bool = False,
    ) -> Ended:
        """Run rsync for these names below `source` and return how it ended, whatever that means.

        `is_listing`: its output is kept, and tells no progress.
        """
        program = find_program("rsync", how_to_get=HOW_TO_GET)
        done = [0, 0]
        left = b""

        def take(data: bytes) -> None:
            nonlocal left
            left += data
            for match in _PROGRESS.finditer(left):
                done[:] = max(done[0], int(match[1])), max(done[1], int(match[2] or 0))
            left = left[-200:]

        with tempfile.TemporaryDirectory(
            prefix="rate-", dir=self.children.private_folder(), ignore_cleanup_errors=True
        ) as folder:
            rate_file = Path(folder) / "rate"

            is_metered = self.is_metered and not source.startswith(f"{self.login.target}:")

            def moved() -> object:
                if is_metered:
                    metered_stream.write_rate(rate_file, control.rate_bytes_per_s())
                report(*done)
                return tuple(done)

            shell = list(remote_shell)
            if is_metered:
                metered_stream.write_rate(rate_file, control.rate_bytes_per_s())
                shell = [sys.executable, "-I", "-S", metered_stream.__file__, str(rate_file), *shell]
            return self.children.run(
                [program, *options, *self._options(is_listing), "-e", _as_rsync_reads(shell), "--", source, target],
                purpose=f"rsync to {self.login.target}",
                stdin=_names(names),
                on_output=None if is_listing else take,
                progress=None if is_listing else moved,
                control=control,
                stall_s=stall_s,
            )

    def _options(self, is_listing: bool) -> list[str]:
        common = [
            "--files-from=-", "--from0", f"--timeout={max(30, math.ceil(self.stall_s))}", "--no-human-readable",
        ]  # fmt: skip
        return [*common, "--list-only", "-8"] if is_listing else [*common, "--info=progress2", "--outbuf=None"]


def _names(paths: Iterable[str]) -> bytes:
    """Return rsync's list. `./` first: no name can then be taken for a comment or an option."""
    return b"".join(b"./%b\0" % os.fsencode(path) for path in paths)


def _as_rsync_reads(command: Iterable[str]) -> str:
    """Return a command as one argument that rsync splits into these words again."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in command)


class PushProgress:
    """Cumulative progress over portions; monotonic."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._done = Progress(0, 0)
        self._now = Progress(0, 0)

    def report(self, bytes_done: int, files_done: int) -> None:
        now = Progress(self._done.bytes_done + bytes_done, self._done.files_done + files_done)
        if now.bytes_done > self._now.bytes_done or now.files_done > self._now.files_done:
            self._now = Progress(max(now.bytes_done, self._now.bytes_done), max(now.files_done, self._now.files_done))
            self._control.report(self._now)

    def finish(self, files: Sequence[FileEntry]) -> None:
        size_bytes = sum(entry.size_bytes for entry in files)
        self._done = Progress(self._done.bytes_done + size_bytes, self._done.files_done + len(files))
        self._now = self._done  # what rsync sent may be less (pieces) or more (a file sent again)
        self._control.report(self._done)


def classified_rsync(login: SshLogin, ended: Ended) -> TransportError:
    """Return what rsync's end means: the code first, then its words."""
    doing = f"rsync to {login.target}"
    code, said = ended.returncode, ended.tail
    if code in (1, 12, 127, 255) and (code == 127 or _NO_RSYNC_THERE.search(said)):
        text = f"{doing}: there is no rsync on the target: install it there, then retry."
        return TransportError(FailureKind.BINARY_MISSING, text, detail=said)
    if _NOT_CLEAN.search(said):
        text = f"{doing}: the account's login script prints something: make it silent for commands, then retry."
        return TransportError(_UNKNOWN, text, detail=said)
    if code in (12, 255) and said:
        return classified_ssh(login, doing, said, why=_MEANINGS[code][1])
    if code in _MEANINGS:
        kind, sentence = _MEANINGS[code]
        return TransportError(kind, f"{doing}: {sentence}.", detail=said)
    if code in (3, 11, 13, 14, 22, 23):
        return classified_target(doing, said)
    if code < 0:
        return TransportError(_NETWORK, f"{doing}: it was ended by signal {-code}.", detail=said)
    return TransportError(_UNKNOWN, f"{doing}: it ended with code {code}.", detail=said)


def local_rsync_version(children: Children) -> str:
    """Return the version of the rsync here. Raises: TransportError with `binary_missing` when there is none, or an old one."""
    said = children.run([find_program("rsync", how_to_get=HOW_TO_GET), "--version"], purpose="rsync --version").stdout
    found = re.search(rb"version v?([0-9]+)\.([0-9]+)\.([0-9]+)", said)
    if found is None or tuple(map(int, found.groups())) < VERSION_MIN:
        version = found[0].decode() if found else "of an unknown version"
        raise TransportError(FailureKind.BINARY_MISSING, f"The rsync here is {version}: {HOW_TO_GET}")
    return b".".join(found.groups()).decode()
