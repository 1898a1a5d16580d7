"""What is asked of a shell on the target: listing, reading, writing and moving files below one folder there.

Decided here: the scripts, and what their answers mean. They use what dash, bash and BusyBox have alike, follow no link
below the root, and take every name as one quoted word. Not here: when they are asked, and what a run needs (by_shell.py).

Every path is relative to the root and was checked by the caller (`own_files.require_inside`).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from exlab_watch_agent.adapters.local.durable import temporary_name
from exlab_watch_agent.adapters.transports.far_side import FolderLook
from exlab_watch_agent.adapters.transports.rsync.remote_shell import (
    ABSENT,
    FAILED,
    IN_THE_WAY,
    NO_ROOT,
    TAKEN,
    Answer,
    RemoteShell,
    printing,
    quoted,
    words,
)
from exlab_watch_agent.adapters.transports.rsync.target_digests import digests_in, is_odd
from exlab_watch_agent.adapters.transports.rsync.target_entries import TargetEntry, entries_in
from exlab_watch_agent.adapters.transports.rsync.target_errors import classified_target
from exlab_watch_agent.adapters.transports.rsync.target_tools import TargetTools
from exlab_watch_agent.adapters.transports.shared.own_files import PARTIAL_FOLDER
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.errors import CancelledError, FailureKind, TransportError
from exlab_watch_agent.ports import Control

PIECES_FOLDER = "pieces"
PIECE_FOLDER = ".exlab-piece-5d1c0b7e"
"""Where rsync itself keeps the piece of a file: beside it. (An absolute folder would be found by the rsync that writes it,
but not by newer ones that read it: 3.2.7 with its security fixes then fails with "failed verification".)"""
PIECE_KEPT_BYTES = 64 * 1024 * 1024
"""A piece of a file that was cut off is kept from this size on: then the next push goes on from there."""
BLOCK_BYTES = 16 * 1024
_ARGUMENT_BYTES_MAX = 48 * 1024  # some systems take 128 KiB in all, environment included

Check = Callable[[], None]


class TargetFolder:
    """One folder of the target (the destination root) through one open shell. Methods raise TransportErrors.

    `check` may raise and is asked while an answer is waited for. `piece_kept_bytes`: as PIECE_KEPT_BYTES says.
    """

    def __init__(
        self,
        shell: RemoteShell,
        tools: TargetTools,
        root: str,
        check: Check = lambda: None,
        *,
        piece_kept_bytes: int = PIECE_KEPT_BYTES,
    ) -> None:
        self._piece_kept_bytes = piece_kept_bytes
        self._shell = shell
        self._tools = tools
        self._root = root
        self._check = check

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """Return at most `limit_bytes` of one regular file, None where there is none (a link is none)."""
        folder, _, name = path.rpartition("/")
        script = b"regular %b || exit %d\nexec head -c %d < ./%b" % (quoted(name), ABSENT, limit_bytes, quoted(name))
        answer = self._ask(f"Cannot read {path!r}", self._enter(folder) + script, may_be=(ABSENT,))
        return answer.output if answer.status == 0 else None

    def look(self, destination: str, claim_path: str, creation_path: str, limit_bytes: int) -> FolderLook:
        """Return what is in a run's folder; own temporary files and an empty cache folder are nothing."""
        nonce = secrets.token_hex(16).encode()
        script = self._enter(destination) + (
            b"h=0\n"
            b"for n in ./* ./.[!.]* ./..?*; do\n"
            b'  if anything "$n"; then case $n in (./%b|./%b) ;; (*) h=1; break ;; esac; fi\n'
            b"done\n"
            b'if there %b; then for n in ./* ./.[!.]* ./..?*; do if anything "$n"; then h=1; break; fi; done; cd ..\n'
            b"elif anything ./%b; then h=1; fi\n"
            b'printf %%s "$h"\n'
        ) % ((PARTIAL_FOLDER.encode(), CACHE_FOLDER.encode()) + (CACHE_FOLDER.encode(),) * 2)
        for path in (claim_path, creation_path):
            folder, _, name = path.rpartition("/")
            script += b"printf %b\n(there %b && regular %b && printf + && exec head -c %d < ./%b)\n" % (
                nonce, words(folder.split("/")), quoted(name), limit_bytes, quoted(name),
            )  # fmt: skip
        script += b"exit 0"
        answer = self._ask(f"Cannot look at {destination!r}", script, may_be=(ABSENT,))
        if answer.status == ABSENT:
            return FolderLook(True, None, None)
        holds, claim, creation = answer.output.split(nonce)
        return FolderLook(holds == b"0", claim[1:] if claim else None, creation[1:] if creation else None)

    def survey(self, folder: str, *, leave_out: Sequence[str] = ()) -> dict[str, TargetEntry]:
        """Return everything below a folder: path → entry; nothing where it is absent. `leave_out`: names directly in it."""
        nonce = secrets.token_hex(16).encode()
        pruned = b" -o ".join(b"-path %b" % quoted(f"./{name}") for name in leave_out)
        pruned = b"\\( %b \\) -prune -o " % pruned if pruned else b""
        form = b"%f %s %Y %n" if self._tools.stat_option == "-c" else b"%Xp %z %m %N"
        script = self._enter(folder) + b"exec find . %b-exec stat %b %b {} +" % (
            pruned, self._tools.stat_option.encode(), quoted(form + nonce),
        )  # fmt: skip
        answer = self._ask(f"Cannot list {folder!r}", script, may_be=(ABSENT,))
        if answer.status == ABSENT:
            return {}
        *lines, last = answer.output.split(nonce + b"\n")
        if last:
            raise TransportError(FailureKind.UNKNOWN, f"Cannot list {folder!r}: the target's answer was cut off.")
        return dict(entries_in(lines))

    def free_bytes(self) -> int | None:
        """Return what `df` says is available to this account, None where it does not know."""
        answer = self._ask("Cannot ask for free space", self._enter("") + b"df -Pk . || exit 0")
        found = re.search(rb"\s([0-9]+)\s+[0-9]+\s+([0-9]+)\s+[0-9]+%\s[^\n]*\n?$", answer.output)
        return int(found[2]) * 1024 if found and int(found[1]) else None

    def now(self) -> datetime | None:
        """Return the target's clock (aware UTC, whole seconds), None where it does not say."""
        answer = self._ask("Cannot ask for the time", b"date -u +%s || exit 0")
        said = answer.output.strip()
        return datetime.fromtimestamp(int(said), UTC) if re.fullmatch(rb"[0-9]{1,11}", said) else None

    def digests(self, folder: str, paths: Sequence[str], *, silence_s: float | None = None) -> dict[str, str]:
        """Return path → SHA-256 of these regular files; one that cannot be read is left out.

        All on one command line; the caller asks in portions. Only where the target has a hasher.
        """
        assert self._tools.hasher is not None, "asked before"
        hasher = b" ".join(word.encode() for word in self._tools.hasher)
        plain = [path for path in paths if not is_odd(path)]
        script = self._enter(folder)
        for names in _command_lines(plain):
            script += b"%b %b\n" % (hasher, words(f"./{name}" for name in names))
        for path in paths:
            if is_odd(path):  # no program prints these as they are: so it is not told the name
                script += b"%b < ./%b\n" % (hasher, quoted(path))
        script += b"exit 0"
        answer = self._ask(f"Cannot hash files in {folder!r}", script, silence_s=silence_s)
        order = [*((path, b"./" + os.fsencode(path)) for path in plain), *((p, None) for p in paths if is_odd(p))]
        return digests_in(answer.output, order)

    def stream(self, path: str, sink: Callable[[bytes], None]) -> bool:
        """Hand over all bytes of one regular file; return False where there is none."""
        folder, _, name = path.rpartition("/")
        script = b"regular %b || exit %d\nexec cat < ./%b" % (quoted(name), ABSENT, quoted(name))
        return self._ask(f"Cannot read {path!r}", self._enter(folder) + script, may_be=(ABSENT,), sink=sink).status == 0

    def blocks(self, folder: str, wanted: Sequence[tuple[str, Sequence[int]]], sink: Callable[[bytes], None]) -> None:
        """Hand over, of each file in turn, the two blocks of 16 KiB that begin at each block number, as far as there are any."""
        script = self._enter(folder) + b"".join(
            b"dd if=./%b bs=%d skip=%d count=2 2>/dev/null\n" % (quoted(path), BLOCK_BYTES, number)
            for path, numbers in wanted
            for number in numbers
        )
        self._ask(f"Cannot read from {folder!r}", script + b"exit 0", sink=sink)

    # --- writing -----------------------------------------------------------------------------------------------------

    def make(self, folder: str) -> None:
        """Make a folder and those above it, never the root. Also raises when a link or a file is in the way."""
        self._ask(f"Cannot make {folder!r}", self._make(folder) + b":")

    def place_new(self, path: str, data: bytes, temporary: str) -> bool:
        """Write a small file under a name that nothing has, and return whether that was so; what has it stays.

        Whole at once, not yet durable. It waits under `temporary`, whose folder is ours, or the root.
        """
        folder, _, name = path.rpartition("/")
        waiting_in = temporary.rpartition("/")[0]
        waiting, final = quoted(f"{self._root}/{temporary}"), quoted(name)
        clearing = b"rmdir %b 2>/dev/null; " % quoted(f"{self._root}/{waiting_in}") if waiting_in else b""
        script = self._make(folder) + (
            b"anything ./%b && exit %d\n(\n%b:\n) || exit $?\nrm -f %b\n"
            b"{ %b; } | cat > %b || { rm -f %b; %bexit %d; }\n"
            # A file system without hard links: there the look and the rename are two steps.
            b"s=0; if ln %b ./%b 2>/dev/null; then :; elif anything ./%b; then s=%d; else mv -n %b ./%b; s=$?\n"
            b"if [ $s = 0 ] && [ -e %b ]; then s=%d; fi; fi\n"
            b"rm -f %b; %bexit $s"
        ) % (
            final, TAKEN, self._make(waiting_in), waiting, printing(data), waiting, waiting, clearing, FAILED,
            waiting, final, final, TAKEN, waiting, final, waiting, TAKEN, waiting, clearing,
        )  # fmt: skip
        return self._ask(f"Cannot write {path!r}", script, may_be=(TAKEN,)).status == 0

    def replace(self, files: Sequence[tuple[str, bytes]], temporary_folder: str) -> None:
        """Write small files, replacing what has their names, each whole at once; durable when it returns.

        `temporary_folder`: a new folder of ours below which they wait. Together they must fit on one request.
        """
        script = b"(\n" + self._make(temporary_folder)
        for number, (_, data) in enumerate(files):
            script += b"{ %b; } | cat > ./%d || exit %d\n" % (printing(data), number, FAILED)
        script += b") || exit $?\n"
        for number, (path, _) in enumerate(files):
            folder, _, name = path.rpartition("/")
            final, temporary = quoted(name), quoted(f"{self._root}/{temporary_folder}/{number}")
            script += b"(\n%b[ -d ./%b ] && exit %d\nmv -f %b ./%b\n) || exit $?\n" % (
                self._make(folder), final, IN_THE_WAY, temporary, final,
            )  # fmt: skip
        script += b"(\n" + self._enter(temporary_folder) + b"cd .. && rmdir %b && cd .. && rmdir %b 2>/dev/null\n)\n" % (
            quoted("./" + temporary_folder.rpartition("/")[2]), quoted(f"./{PARTIAL_FOLDER}"),
        )  # fmt: skip
        self._ask(
            f"Cannot write {files[0][0]!r}", script + self._enter("") + self._sync(), silence_s=self._shell.pace.sync_s
        )

    def remove_left(self, folder: str, name: str) -> None:
        """Remove what a killed writer left as temporary files of one name in a folder of the agent's own."""
        left = b"./" + quoted(f".{name}.") + b"?" * 16 + b".tmp"
        self._ask(
            f"Cannot clean up in {folder!r}",
            self._enter(folder) + b'for n in %b; do regular "$n" && rm -f "$n"; done; exit 0' % left,
            may_be=(ABSENT,),
        )

    def exchange(self, name: str, nonce: bytes, *, mtime_text: str) -> tuple[bytes, int]:
        """Write a probe file into the root, read it back and remove it; return its bytes and time.

        `mtime_text`: the time it is to have, as `touch -t` takes it, in UTC.
        """
        probe = quoted(f"./{name}")
        form = b"%Y" if self._tools.stat_option == "-c" else b"%m"
        script = self._enter("") + (
            b"rm -f %b; set -C\n"
            b"if e=$(%b | cat 2>&1 > %b); then :; else rm -f %b; printf '%%s\\n' \"$e\" >&2; exit %d; fi\n"
            b"TZ=UTC0 touch -t %b %b\nstat %b %b %b\ncat %b; s=$?; rm -f %b; exit $s"
        ) % (
            probe, printing(nonce), probe, probe, FAILED, mtime_text.encode(), probe,
            self._tools.stat_option.encode(), form, probe, probe, probe,
        )  # fmt: skip
        answer = self._ask("Cannot write a probe file", script)
        mtime, _, data = answer.output.partition(b"\n")
        return data, int(mtime)

    def move_new(self, from_folder: str, to_folder: str, moves: Mapping[str, Sequence[str]]) -> str:
        """Move names to where nothing has them; return what `mv` said.

        `moves`: parent folder (relative to both) → names in it, files or folders. What has a
        name already stays as it is, and what was to be moved stays too. Nothing can be nested by this: the last operand is
        always the parent folder, which exists.
        """
        source = f"{self._root}/{from_folder}"
        said = []
        for parent, names in moves.items():
            source_parent = f"{source}/{parent}" if parent else source
            target_parent = f"{to_folder}/{parent}" if parent else to_folder
            for portion in _command_lines(names, each=len(os.fsencode(source_parent)) + 1):
                script = self._make(target_parent) + b"mv -n %b ./" % words(f"{source_parent}/{n}" for n in portion)
                said.append(self._ask(f"Cannot write to {target_parent!r}", script, may_be=(1,)).words)
        return "\n".join(filter(None, said))

    def move_over(self, from_folder: str, to_folder: str, paths: Iterable[str]) -> None:
        """Move files over what has their names, one by one; not yet durable."""
        for path in paths:
            parent, _, name = path.rpartition("/")
            script = self._make(f"{to_folder}/{parent}" if parent else to_folder) + (
                b"[ -d ./%b ] && exit %d\nmv -f %b ./%b"
            ) % (quoted(name), IN_THE_WAY, quoted(f"{self._root}/{from_folder}/{path}"), quoted(name))
            self._ask(f"Cannot write {path!r}", script)

    def put(self, path: str, data: bytes) -> None:
        """Write a small file, replacing what has its name, whole at once; not yet durable."""
        folder, _, name = path.rpartition("/")
        temporary, final = quoted(temporary_name(name)), quoted(name)
        script = self._make(folder) + (
            b"[ -d ./%b ] && exit %d\n{ %b; } | cat > ./%b && mv -f ./%b ./%b || { rm -f ./%b; exit %d; }"
        ) % (final, IN_THE_WAY, printing(data), temporary, temporary, final, temporary, FAILED)
        self._ask(f"Cannot write {path!r}", script)

    def new_numbered_folder(self, parent: str) -> str:
        """Return the first numbered folder below `parent` that was not there, made now and by us alone."""
        script = (
            self._make(parent)
            + (
                b"n=1\nuntil mkdir ./$n 2>/dev/null; do anything ./$n || { mkdir ./$n; exit %d; }; n=$((n + 1)); done\n"
                b'printf %%s "$n"'
            )
            % FAILED
        )
        return f"{parent}/{self._ask(f'Cannot make a folder in {parent!r}', script).output.decode()}"

    def offer_pieces(self, destination: str, waiting: str, paths: Iterable[str]) -> bool:
        """Put kept pieces of files of these names where rsync will go on from them; return whether there were any.

        They are known by the last part of the path alone. A piece of another file does no harm: rsync compares.
        """
        pieces = f"{destination}/{PARTIAL_FOLDER}/{PIECES_FOLDER}"
        kept = {path for path, entry in self.survey(pieces).items() if entry.is_file}
        found = False
        for path in paths:
            parent, _, name = path.rpartition("/")
            if name in kept:
                kept.discard(name)
                script = self._make(f"{waiting}/{parent}/{PIECE_FOLDER}" if parent else f"{waiting}/{PIECE_FOLDER}")
                self._ask(f"Cannot go on with {path!r}", script + b"mv %b ./" % quoted(f"{self._root}/{pieces}/{name}"))
                found = True
        return found

    def sync(self) -> None:
        """Make everything that was written below the root durable, names included."""
        self._ask("Cannot make the copy durable", self._enter("") + self._sync(), silence_s=self._shell.pace.sync_s)

    def clear_partials(self, destination: str, *, keeps_pieces: bool, then_syncs: bool = False) -> None:
        """Remove what pushes of ours left under temporary names.

        A program of an earlier push that still writes there can then never give a file its final name: what it would
        rename is gone. `keeps_pieces`: large pieces stay, for the next push to go on from. `then_syncs`: does what
        `sync` does as well.
        """
        blocks = self._piece_kept_bytes // 512 - 1
        keeping = b"find \"$n\" -type f -path %b -size +%d -exec mv -f {} ./%b/ \\; || exit %d" % (
            quoted(f"*/{PIECE_FOLDER}/*"), blocks, PIECES_FOLDER.encode(), FAILED,
        )  # fmt: skip
        script = self._enter(destination) + (
            b"there %b || exit 0\n"
            b"[ -h ./%b ] && exit %d\nmkdir -p ./%b || exit %d\n"
            b"for n in ./????????????????.push ./????????????????.small; do\n"
            b'  if [ -d "$n" ] && [ ! -h "$n" ]; then %b; rm -rf "$n" || exit %d; fi\n'
            b"done\n"
            b'for n in ./.*.????????????????.tmp; do regular "$n" && rm -f "$n"; done\n'
            b"find ./%b -type f %b -exec rm -f {} +\n"
            b"rmdir ./%b 2>/dev/null\n"
            b"cd .. && rmdir ./%b 2>/dev/null\n"
            b"exit 0"
        ) % (
            PARTIAL_FOLDER.encode(), PIECES_FOLDER.encode(), IN_THE_WAY, PIECES_FOLDER.encode(), FAILED,
            keeping if keeps_pieces else b":", FAILED, PIECES_FOLDER.encode(),
            b"! -size +%d" % blocks if keeps_pieces else b"", PIECES_FOLDER.encode(), PARTIAL_FOLDER.encode(),
        )  # fmt: skip
        if then_syncs:
            script = b"(\n%b\n) || exit $?\n%b%b" % (script, self._enter(""), self._sync())
        self._ask(f"Cannot clean up in {destination!r}", script, may_be=(ABSENT,), silence_s=self._shell.pace.sync_s)

    # --- shared ------------------------------------------------------------------------------------------------------

    def _enter(self, folder: str) -> bytes:
        """Return the lines that go into a folder below the root through real folders only."""
        entering = b"cd %b || exit %d\n" % (quoted(self._root), NO_ROOT)
        return entering + (b"there %b || exit $?\n" % words(folder.split("/")) if folder else b"")

    def _make(self, folder: str) -> bytes:
        entering = b"cd %b || exit %d\n" % (quoted(self._root), NO_ROOT)
        return entering + (b"make %b || exit $?\n" % words(folder.split("/")) if folder else b"")

    def _sync(self) -> bytes:
        return b"sync -f ." if self._tools.syncs_one_file_system else b"sync"

    def _ask(
        self,
        doing: str,
        script: bytes,
        *,
        may_be: tuple[int, ...] = (),
        silence_s: float | None = None,
        sink: Callable[[bytes], None] | None = None,
    ) -> Answer:
        answer = self._shell.ask(script, timeout_s=silence_s, check=self._check, sink=sink)
        if answer.status in (0, *may_be):
            return answer
        if answer.status == NO_ROOT:
            text = f"{doing}: the folder {self._root} is not there, or the account may not enter it."
            raise TransportError(FailureKind.NETWORK, text, detail=answer.words)
        if answer.status == IN_THE_WAY:
            text = f"{doing}: a link or a file is where a folder must be: move it away, then retry."
            raise TransportError(FailureKind.UNKNOWN, text, detail=answer.words)
        raise classified_target(f"{doing} in {self._root}", answer.words)


def _command_lines(names: Iterable[str], *, each: int = 2) -> Iterator[list[str]]:
    """Yield the names in as many as one command line takes; `each`: what is added to every one, in bytes."""
    return portions(names, bytes_max=_ARGUMENT_BYTES_MAX, size_bytes_of=lambda name: len(os.fsencode(name)) + each + 1)


def data_below(folder: TargetFolder, destination: str) -> dict[str, TargetEntry]:
    """Return what is in a run's folder, by paths relative to it; the cache folder and our own are left out."""
    return folder.survey(destination, leave_out=(CACHE_FOLDER, PARTIAL_FOLDER))


def checking(control: Control) -> Check:
    """Return what raises CancelledError once the work is no longer wanted."""

    def check() -> None:
        if control.is_cancelled():
            raise CancelledError("stopped as asked")

    return check
