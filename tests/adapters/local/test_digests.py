"""The local digester on real files."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local import digests
from exlab_watch_agent.adapters.local.digests import BUFFER_BYTES, LocalDigester, Pulse, hash_descriptor, new_buffer
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.sampling import BLOCK_BYTES, BLOCKS_PER_FILE, sample_offsets
from exlab_watch_agent.errors import CancelledError, RunUnreadableError, SourceChangedError
from exlab_watch_agent.ports import Control, Progress

DIGESTER = LocalDigester()
FREE = Control()
SIZES = [0, 1, 4096, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * BUFFER_BYTES + 7, 5_000_000]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    return run


def entries(run: Path) -> tuple[FileEntry, ...]:
    return DiskRunTree().inventory(str(run)).files


def changed_while(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let the change happen between the opening of a file and its last look."""
    real = digests.hash_descriptor

    def hash_then_change(*arguments: object, **options: object) -> str:
        digest = real(*arguments, **options)  # type: ignore[arg-type]
        change()
        return digest

    monkeypatch.setattr(digests, "hash_descriptor", hash_then_change)


def test_digests_are_those_of_hashlib_for_every_size(run: Path) -> None:
    files = {f"{size}.bin": os.urandom(size) for size in SIZES}
    for name, data in files.items():
        (run / name).write_bytes(data)
    assert DIGESTER.digests(str(run), entries(run), control=FREE) == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }


def test_odd_names_are_just_names(run: Path) -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9", b"a\nb", b"-rf", b" ", b"n" * 255)]
    for name in names:
        (run / name).write_bytes(b"x")
    assert set(DIGESTER.digests(str(run), entries(run), control=FREE)) == set(names)


def test_a_file_that_is_gone_is_left_out(run: Path) -> None:
    (run / "a").write_bytes(b"a")
    (run / "sub").mkdir()
    (run / "sub" / "b").write_bytes(b"b")
    listed = entries(run)
    (run / "sub" / "b").unlink()
    (run / "sub").rmdir()
    assert set(DIGESTER.digests(str(run), listed, control=FREE)) == {"a"}
    assert set(DIGESTER.samples(str(run), listed, control=FREE)) == {"a"}


def test_a_run_folder_that_is_gone_is_not_a_run_whose_files_were_deleted(run: Path) -> None:
    (run / "a").write_bytes(b"a")
    listed = entries(run)
    run.rename(run.parent / "elsewhere")
    for ask in (DIGESTER.digests, DIGESTER.samples):
        with pytest.raises(RunUnreadableError):
            ask(str(run), listed, control=FREE)


@pytest.mark.parametrize("change", ["longer", "shorter", "touched", "replaced", "link", "folder", "fifo", "parent"])
def test_a_file_that_is_not_the_listed_one_is_not_hashed(run: Path, change: str) -> None:
    path = run / "sub" / "a"
    path.parent.mkdir()
    path.write_bytes(b"12345")
    listed = entries(run)
    status = path.stat()
    if change == "longer":
        path.write_bytes(b"123456")
    elif change == "shorter":
        path.write_bytes(b"1")
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "parent":
        path.parent.rename(run / "was")
        path.parent.write_bytes(b"")
    else:
        path.rename(run / "was")
        if change == "replaced":
            path.write_bytes(b"12345")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        elif change == "link":
            path.symlink_to(run / "was")
        elif change == "folder":
            path.mkdir()
        else:
            os.mkfifo(path)
    for ask in (DIGESTER.digests, DIGESTER.samples):
        with pytest.raises(SourceChangedError, match="a"):
            ask(str(run), listed, control=FREE)


@pytest.mark.parametrize("size_bytes", [5, 3_000_000])
def test_a_file_that_is_changed_while_it_is_read_has_no_digest(
    run: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    path = run / "a"
    path.write_bytes(b"x" * size_bytes)
    listed = entries(run)

    def rewrite_keeping_the_time() -> None:
        with open(path, "r+b") as file:
            file.write(b"y")
        os.utime(path, ns=(listed[0].mtime_ns, listed[0].mtime_ns))

    changed_while(monkeypatch, rewrite_keeping_the_time)
    with pytest.raises(SourceChangedError):
        DIGESTER.digests(str(run), listed, control=FREE)


def test_members_of_an_entry_that_are_not_known_are_not_compared(run: Path) -> None:
    (run / "a").write_bytes(b"a")
    entry = FileEntry("a", 1, (run / "a").stat().st_mtime_ns)
    assert DIGESTER.digests(str(run), [entry], control=FREE) == {"a": hashlib.sha256(b"a").hexdigest()}


def test_a_file_that_may_not_be_read_is_a_wait() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        path = Path(place) / "a"
        path.write_bytes(b"a")
        listed = entries(Path(place))
        path.chmod(0)
        listed = entries(Path(place))
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(RunUnreadableError, match="'a'"):
                DIGESTER.digests(place, listed, control=FREE)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_no_name_leads_out_of_the_run(run: Path, path: str) -> None:
    (run.parent / "secret").write_bytes(b"s")
    (run / "a").mkdir()
    entry = FileEntry(path, 1, (run.parent / "secret").stat().st_mtime_ns)
    for ask in (DIGESTER.digests, DIGESTER.samples):
        with pytest.raises(RunUnreadableError):
            ask(str(run), [entry], control=FREE)


def test_cancelling_is_noticed_within_a_piece(run: Path) -> None:
    (run / "a").write_bytes(b"x" * 5_000_000)
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(CancelledError):
        DIGESTER.digests(str(run), entries(run), control=Control(is_cancelled=is_cancelled))
    with pytest.raises(CancelledError):
        DIGESTER.samples(str(run), entries(run), control=Control(is_cancelled=lambda: True))


def test_no_file_stays_open_after_an_end_in_the_middle(run: Path) -> None:
    (run / "a").write_bytes(b"a")
    listed = entries(run)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CancelledError):
        DIGESTER.digests(str(run), listed, control=Control(is_cancelled=lambda: True))
    (run / "a").write_bytes(b"changed")
    with pytest.raises(SourceChangedError):
        DIGESTER.digests(str(run), listed, control=FREE)
    assert os.listdir("/proc/self/fd") == before


def test_progress_ends_at_the_whole(run: Path) -> None:
    for n in range(10):
        (run / f"{n}").write_bytes(b"x" * 1000)
    seen: list[Progress] = []
    DIGESTER.digests(str(run), entries(run), control=Control(report=seen.append))
    assert seen[-1] == Progress(bytes_done=10_000, files_done=10)


class TickingClock(SystemClock):
    """A clock on which a second passes between any two looks."""

    def __init__(self) -> None:
        super().__init__()
        self._ticks = itertools.count()

    def monotonic_s(self) -> float:
        return float(next(self._ticks))


def test_progress_shows_while_it_goes_on() -> None:
    seen: list[Progress] = []
    pulse = Pulse(Control(report=seen.append), TickingClock())
    pulse.moved(5)
    pulse.finished_file()
    pulse.moved(6)
    assert seen == [Progress(5, 0), Progress(11, 1)]


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("said_bytes", [0, 7, 10_000_000])
def test_a_wrong_idea_of_the_size_does_not_change_the_digest(tmp_path: Path, size_bytes: int, said_bytes: int) -> None:
    data = os.urandom(size_bytes)
    (tmp_path / "a").write_bytes(data)
    with open(tmp_path / "a", "rb") as file:
        found = hash_descriptor(file.fileno(), said_bytes, new_buffer(), lambda _: None, drops_behind=True)
    assert found == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "size_bytes", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, BLOCK_BYTES * BLOCKS_PER_FILE, 600_000, 5_000_000]
)
def test_samples_are_xxh3_of_the_blocks_that_the_core_chose(run: Path, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    (run / "a").write_bytes(data)
    blocks = b"".join(data[offset : offset + BLOCK_BYTES] for offset in sample_offsets(size_bytes))
    assert DIGESTER.samples(str(run), entries(run), control=FREE) == {"a": xxhash.xxh3_128(blocks).hexdigest()}


def test_samples_read_little_of_a_large_file(run: Path) -> None:
    with open(run / "sparse", "wb") as file:
        file.truncate(1 << 34)
    assert set(DIGESTER.samples(str(run), entries(run), control=FREE)) == {"sparse"}
