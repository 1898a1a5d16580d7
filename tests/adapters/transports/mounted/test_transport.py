"""The mounted-path transport: the contract, and what only it promises."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exlab_watch_agent.acts.seal import PROOF_HOLDS_S
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local import page_cache, renaming
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.handles import Folder, folder_at
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.mounted.copy import place_new
from exlab_watch_agent.adapters.transports.mounted.errors import classified
from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide
from exlab_watch_agent.adapters.transports.mounted.throttle import Throttle
from exlab_watch_agent.core.creation import identity_in
from exlab_watch_agent.core.events import LocalChosen
from exlab_watch_agent.core.passes import HowRead
from exlab_watch_agent.errors import (
    AgentError,
    CancelledError,
    DestinationUnreachableError,
    FailureKind,
    RunUnreadableError,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import Control
from exlab_watch_agent.statechart import RunState
from tests.adapters.transports.contract import (
    CLAIM,
    CREATION,
    FREE,
    MARKER,
    RUN,
    TransportContract,
    entries,
    fill,
    needs,
    tree,
)
from tests.adapters.transports.whole_runs import CLAIM_FILE, FILES, WholeRuns
from tests.lab.disks import damage, full_disk, loop_disk
from tests.lab.one_run import OneRun
from tests.lab.swapping import deep_folder, swapping, write_below

CACHE = f"{RUN}/.exlab-wizard"
FS_IOC_SHUTDOWN = 0x8004587D


class TestContract(WholeRuns, TransportContract):
    HOW_READ: ClassVar[HowRead] = HowRead.NOWAIT

    def constructor(self, root: Path) -> str:
        return (
            "from exlab_watch_agent.adapters.transports.destination import Destination\n"
            "from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide\n"
            f"transport = Destination(MountedFarSide({str(root)!r}))"
        )

    def test_a_proof_of_long_ago_is_made_anew_before_a_first_seal(self, life: OneRun, there: Path) -> None:
        """While the seal waited, somebody wrote other bytes of the same size there: that was sealed, and called synced."""
        life.bring_to_rest(but_stop_in=RunState.SEALING)
        (there / "a.tif").write_bytes(b"x" * len(FILES["a.tif"]))
        life.clock.up_longer_s = PROOF_HOLDS_S + 1
        life.work()
        assert (life.moves[-1], life.record.state) == ("changed", RunState.ACQUIRING)
        assert life.bring_to_rest() is RunState.VERIFIED
        assert {name: (there / name).read_bytes() for name in FILES} == FILES

    @pytest.mark.parametrize("is_gone", [False, True])
    def test_a_proof_of_long_ago_is_made_anew_before_it_is_adopted(
        self, life: OneRun, there: Path, equipment: Path, tmp_path: Path, is_gone: bool
    ) -> None:
        life.bring_to_rest()
        other = self.another(life, equipment, tmp_path, days_ahead=2)
        other.bring_to_rest(but_stop_in=RunState.SEALING)
        if is_gone:
            (there / "a.tif").unlink()
        else:
            (there / "a.tif").write_bytes(b"x" * len(FILES["a.tif"]))
            other.clock.up_longer_s = PROOF_HOLDS_S + 1
        other.work()
        assert (other.moves[-1], other.record.state) == ("changed", RunState.ACQUIRING)
        assert other.bring_to_rest() is RunState.VERIFIED, other.moves
        assert {name: (there / name).read_bytes() for name in FILES} == FILES
        (incident,) = other.record.incidents
        assert (incident.kind, incident.files, incident.is_healed) == ("copy_damaged", ("a.tif",), True)

    def test_a_copy_of_which_files_go_again_and_again_is_pushed_once_more_and_then_told(
        self, life: OneRun, there: Path
    ) -> None:
        """It was pushed for ever, without an attempt counted."""
        for move in ("changed", "seal_failed"):
            life.bring_to_rest(but_stop_in=RunState.SEALING)
            (there / "a.tif").unlink()
            life.work()
            assert life.moves[-1] == move
        assert (life.record.state, life.record.attempts) == (RunState.SEALING, 1)
        assert life.record.last_error is not None
        assert life.record.last_error.kind == "hash_mismatch"

    def test_those_who_held_a_copy_before_us_stay_named_when_the_local_data_win(
        self, life: OneRun, there: Path
    ) -> None:
        """The next seal is a first one again, and used to make the claim anew."""
        life.bring_to_rest()
        claim = json.loads((there / CLAIM_FILE).read_text())
        before = {"state_folder": "b" * 32, "host": "lab-1", "job_id": "theirs", "sealed_at": "2026-04-18T11:00:00Z"}
        (there / CLAIM_FILE).write_text(json.dumps({**claim, "generation": 2, "former": [before]}))
        (Path(life.place.run_path) / "a.tif").write_bytes(b"another")
        life.audit()
        assert life.record.state is RunState.CONFLICT
        life.happened(LocalChosen("asmith"))
        assert life.bring_to_rest() is RunState.VERIFIED
        after = json.loads((there / CLAIM_FILE).read_text())
        assert (after["generation"], after["former"]) == (2, [before])
        assert after["manifest_sha256"] != claim["manifest_sha256"]


class TestContractWithoutHardLinksAndSendfile(TestContract):
    """What a FAT disk, some shares and other platforms leave us."""

    @pytest.fixture(autouse=True)
    def _poor_platform(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_link(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_link)
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)
        monkeypatch.delattr(os, "sendfile")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "local" / "Run_2026-04-17T14-32"
    run.mkdir(parents=True)
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "nas"
    root.mkdir()
    return root


@pytest.fixture
def there(root: Path) -> Path:
    return root / RUN


@pytest.fixture
def transport(root: Path) -> Destination:
    return Destination(MountedFarSide(str(root)))


# --- durable -----------------------------------------------------------------------------------------------------------


class Recorder:
    """Notes every fsync, link, replace and rename, in their order; files and folders by (device, inode)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, tuple[int, int]]] = []
        fsync, link, replace, rename = os.fsync, os.link, os.replace, renaming._rename

        def note_fsync(descriptor: int) -> None:
            fsync(descriptor)
            self.done.append(("fsync", self._key(os.fstat(descriptor))))

        def note_link(source: str, target: str, **how: Any) -> None:
            link(source, target, **how)
            self.done.append(("name", self._key(os.lstat(target, dir_fd=how["dst_dir_fd"]))))

        def note_replace(source: str, target: str, **how: Any) -> None:
            replace(source, target, **how)
            self.done.append(("name", self._key(os.lstat(target, dir_fd=how["dst_dir_fd"]))))

        def note_rename(here: Folder, source: str, there: Folder, target: str, flags: int) -> None:
            rename(here, source, there, target, flags)
            self.done.append(("name", self._key(there.lstat(target))))

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(renaming, "_rename", note_rename)
        monkeypatch.setattr(os, "link", note_link)
        monkeypatch.setattr(os, "replace", note_replace)

    @staticmethod
    def _key(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def assert_durable(self, path: Path, *, root: Path) -> None:
        """The file was synced, then named, then its folder; the folders above were synced by whatever made them."""
        synced = self.done.index(("fsync", self._key(path.lstat())))
        named = self.done.index(("name", self._key(path.lstat())))
        assert synced < named
        for folder in path.parents:
            since = named if folder == path.parent else 0
            assert ("fsync", self._key(folder.lstat())) in self.done[since:], folder
            if folder == root:
                return


def test_a_file_is_synced_before_it_has_its_name_and_its_folders_after(
    run: Path, root: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {"a.bin": b"a", "sub/deep/b.bin": b"b" * 20_000_000, ".exlab-wizard/x.json": b"x"})
    recorder = Recorder(monkeypatch)
    transport.place_claim(RUN, CLAIM)
    transport.copy(str(run), listed, RUN, control=FREE)
    transport.replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)
    transport.write_small("receipts/r.json", b"r")
    for name in ("a.bin", "sub/deep/b.bin", ".exlab-wizard/x.json", ".exlab-wizard/exlab-watch-agent.json"):
        recorder.assert_durable(there / name, root=root)
    recorder.assert_durable(root / "receipts" / "r.json", root=root)


def test_folders_that_a_killed_push_made_are_synced_by_the_next_one(
    run: Path, root: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(there, {"sub/deep/a.bin": b"a"})
    recorder = Recorder(monkeypatch)
    transport.copy(str(run), (), RUN, control=FREE)
    synced = {key for what, key in recorder.done if what == "fsync"}
    for folder in (root, there.parent, there, there / "sub", there / "sub/deep"):
        status = folder.stat()
        assert (status.st_dev, status.st_ino) in synced, folder


def test_what_was_moved_aside_is_synced_on_both_sides(
    root: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(there, {"sub/a.bin": b"a"})
    recorder = Recorder(monkeypatch)
    transport.set_aside(RUN, ["sub/a.bin"])
    synced = {key for what, key in recorder.done if what == "fsync"}
    for folder in (root, there / "sub", root / ".exlab-superseded" / RUN / "1" / "sub"):
        assert (folder.stat().st_dev, folder.stat().st_ino) in synced, folder


def test_a_failed_fsync_is_not_repeated_on_the_same_file(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {"a.bin": b"a"})
    tried: list[int] = []

    def failing(descriptor: int) -> None:
        tried.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(TransportError) as caught:
        transport.copy(str(run), listed, RUN, control=FREE)
    assert caught.value.kind is FailureKind.NETWORK
    assert len(tried) == 1
    assert tree(there) == {}
    assert os.listdir(there) == []


def test_power_cut_after_the_copy_loses_nothing(run: Path, tmp_path: Path) -> None:
    """A loop device whose file system is shut down without writing its journal: what was not synced is gone."""
    files = {f"d{n % 4}/{n}.bin": os.urandom(10_000 + n) for n in range(60)} | {"large.bin": os.urandom(20_000_000)}
    listed = fill(run, files)
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(160 << 20)
    if subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True, check=False).returncode:
        pytest.skip("needs mkfs.ext4")
    loop = ["mount", "-o", "loop", str(image), str(mount)]
    if os.geteuid() != 0 or subprocess.run(loop, capture_output=True, check=False).returncode:
        pytest.skip("a power cut needs root and a loop device")
    try:
        transport = Destination(MountedFarSide(str(mount)))
        marker = transport.bind()
        transport.place_claim(RUN, CLAIM)
        transport.copy(str(run), listed, RUN, control=FREE)
        transport.write_small("receipts/r.json", b"r")
        handle = os.open(mount, os.O_RDONLY)
        fcntl.ioctl(handle, FS_IOC_SHUTDOWN, (2).to_bytes(4, sys.byteorder))
        os.close(handle)
        subprocess.run(["umount", str(mount)], check=True)
        subprocess.run(loop, check=True)
        transport.probe(expected_marker_id=marker)
        assert transport.look(RUN).claim == CLAIM
        assert {name: data for name, data in tree(mount / RUN).items() if ".exlab-wizard" not in name} == files
        assert tree(mount)["receipts/r.json"] == b"r"
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def is_cached(path: Path) -> bool:
    """Say whether the first page of a file is in the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def test_what_is_hashed_is_not_answered_by_the_page_cache(run: Path, there: Path, transport: Destination) -> None:
    listed = fill(run, {"small.bin": b"a" * 5000, "large.bin": os.urandom(3_000_000), "empty.bin": b""})
    transport.copy(str(run), listed, RUN, control=FREE)
    names = ["small.bin", "large.bin", "empty.bin"]
    for name in names:
        (there / name).read_bytes()
    assert is_cached(there / "large.bin")
    read = transport.read_back(RUN, names, control=FREE)
    assert (read.how, read.is_past_cache) == (HowRead.NOWAIT, True)
    assert not any(is_cached(there / name) for name in names[:2]), "and nothing of it stays in memory"


@contextlib.contextmanager
def mapped_by_another(path: Path) -> Iterator[None]:
    """Keep all pages of a file in the page cache, whatever is advised, as a program does that has it mapped."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            assert memory[page] >= 0
        yield


def test_damage_below_the_cache_is_found_also_of_a_file_that_a_program_has_mapped(run: Path, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    listed = fill(run, {"a.bin": data})
    image, mount = tmp_path / "image", tmp_path / "mount"
    with loop_disk(mount, image=image):
        transport = Destination(MountedFarSide(str(mount)))
        transport.copy(str(run), listed, RUN, control=FREE)
        good = transport.read_back(RUN, ["a.bin"], control=FREE)
        subprocess.run(["sync", "-f", str(mount)], check=True)
        with mapped_by_another(mount / RUN / "a.bin"):
            damage(image, data[8192:12288])
            assert (mount / RUN / "a.bin").read_bytes() == data, "a cache hides it"
            read = transport.read_back(RUN, ["a.bin"], control=FREE)
        assert read.digests != good.digests
        assert (read.how, read.is_past_cache) == (HowRead.O_DIRECT, True)


def test_a_file_that_may_have_come_from_the_cache_is_said_to(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {"a.bin": os.urandom(3_000_000), "b.bin": b"b"})
    transport.copy(str(run), listed, RUN, control=FREE)
    # A file system that takes no direct read, which no disk of this machine is.
    monkeypatch.setattr(page_cache, "_O_DIRECT", 0)
    with mapped_by_another(there / "a.bin"):
        read = transport.read_back(RUN, ["a.bin", "b.bin"], control=FREE)
    assert (read.how, read.is_past_cache) == (HowRead.PAGE_CACHE, False)
    assert read.digests == LocalDigester().digests(str(run), listed, control=FREE)


def test_what_lies_in_memory_alone_has_nothing_below_the_cache(run: Path, tmp_path: Path) -> None:
    listed = fill(run, {"a.bin": b"a" * 5000})
    mount = tmp_path / "mount"
    with full_disk(mount, size="8m"):
        transport = Destination(MountedFarSide(str(mount)))
        transport.copy(str(run), listed, RUN, control=FREE)
        assert transport.read_back(RUN, ["a.bin"], control=FREE).is_past_cache


CRASH_POINTS = [
    (call, nth)
    for call, most in [
        ("mkdirat", 6), ("sendfile", 3), ("utimensat", 2), ("fsync", 8), ("linkat", 3), ("unlinkat", 5),
    ]
    for nth in range(1, most + 1)
]  # fmt: skip


@pytest.mark.parametrize(("call", "nth"), CRASH_POINTS)
def test_killed_at_this_very_system_call_and_repeated_everything_is_whole(
    run: Path, root: Path, there: Path, transport: Destination, call: str, nth: int
) -> None:
    needs("strace")
    files = {"a.bin": os.urandom(1000), "sub/b.bin": os.urandom(9_000_000), "sub/deep/c.bin": b""}
    listed = fill(run, files)
    body = (
        # strace counts the calls of each thread for itself: one worker, so that every call has its number.
        f"transport = Destination(MountedFarSide({str(root)!r}, workers=1))\n"
        "transport.place_claim(RUN, CLAIM)\n"
        f"transport.copy({str(run)!r}, entries(Path({str(run)!r})), RUN, control=FREE)\n"
    )
    source = f"from tests.adapters.transports.contract import *\n{TestContract().constructor(root)}\n{body}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}",
         sys.executable, "-B", "-c", source],
        env=environment, capture_output=True, check=False,
    )  # fmt: skip
    if b"PTRACE" in ended.stderr:
        pytest.skip("tracing is not allowed here")
    assert ended.returncode != 0, "the call was never reached"
    assert all(files[name] == data for name, data in _data(there).items() if not name.startswith(".exlab-"))
    look = transport.look(RUN)
    assert look.is_empty or look.claim == CLAIM
    transport.place_claim(RUN, CLAIM)
    transport.clear_partials(RUN)
    missing = [entry for entry in listed if entry.path not in transport.listing(RUN)]
    transport.copy(str(run), missing, RUN, control=FREE)
    assert _data(there) == files
    assert sorted(os.listdir(there)) == [".exlab-wizard", "a.bin", "sub"]


def _data(there: Path) -> dict[str, bytes]:
    if not there.exists():
        return {}
    return {name: data for name, data in tree(there).items() if not name.startswith(".exlab-wizard/")}


# --- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, FailureKind.DESTINATION_FULL),
        (errno.EDQUOT, FailureKind.DESTINATION_FULL),
        (errno.EACCES, FailureKind.AUTH),
        (errno.EPERM, FailureKind.AUTH),
        (errno.EROFS, FailureKind.AUTH),
        (errno.EIO, FailureKind.NETWORK),
        (errno.ESTALE, FailureKind.NETWORK),
        (errno.ENOTCONN, FailureKind.NETWORK),
        (errno.EHOSTDOWN, FailureKind.NETWORK),
        (errno.ENETUNREACH, FailureKind.NETWORK),
        (errno.ETIMEDOUT, FailureKind.NETWORK),
        (errno.ENOENT, FailureKind.NETWORK),
        (errno.EEXIST, FailureKind.UNKNOWN),
        (errno.ENAMETOOLONG, FailureKind.UNKNOWN),
        (errno.EFBIG, FailureKind.UNKNOWN),
    ],
)
def test_each_errno_of_the_destination_has_one_meaning(code: int, kind: FailureKind) -> None:
    assert classified(OSError(code, os.strerror(code)), "doing").kind is kind


def test_errors_of_windows_shares_are_told_by_their_own_numbers() -> None:
    error = OSError(errno.EINVAL, "the network name is gone")
    error.winerror = 64  # type: ignore[attr-defined]
    assert classified(error, "doing").kind is FailureKind.NETWORK


def as_nobody(call: Callable[[], object]) -> None:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        call()
    finally:
        os.seteuid(user)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A place that an account without rights can reach; pytest's own are closed to others than their owner."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def test_a_local_permission_is_a_wait_and_one_of_the_destination_is_auth(open_place: Path) -> None:
    run, root = open_place / "run", open_place / "nas"
    root.mkdir(mode=0o777)
    root.chmod(0o777)
    fill(run, {"a.bin": b"a"})
    (run / "a.bin").chmod(0)
    listed = entries(run)
    transport = Destination(MountedFarSide(str(root)))
    with pytest.raises(RunUnreadableError):
        as_nobody(lambda: transport.copy(str(run), listed, RUN, control=FREE))
    (run / "a.bin").chmod(0o644)
    root.chmod(0o755)
    with pytest.raises(TransportError) as caught:
        as_nobody(lambda: transport.copy(str(run), entries(run), "other", control=FREE))
    assert caught.value.kind is FailureKind.AUTH


def test_a_local_read_error_is_not_taken_for_one_of_the_network(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {"a.bin": b"a" * 100})
    bad = (run / "a.bin").stat().st_ino
    read = os.read

    def failing_sendfile(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def failing_read(descriptor: int, size: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size)

    monkeypatch.setattr(os, "sendfile", failing_sendfile)
    monkeypatch.setattr(os, "read", failing_read)
    with pytest.raises(RunUnreadableError, match=r"a\.bin"):
        transport.copy(str(run), listed, RUN, control=FREE)
    assert os.listdir(there) == []


def test_a_write_that_takes_no_bytes_is_an_error(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {"a.bin": b"a" * 100})
    monkeypatch.delattr(os, "sendfile")
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(TransportError):
        transport.copy(str(run), listed, RUN, control=FREE)
    assert os.listdir(there) == []


def test_short_writes_and_sends_are_gone_on_with(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(300_001)
    sendfile, write = os.sendfile, os.write
    turns = iter(range(10**6))

    def moody_sendfile(target: int, source: int, offset: int, count: int) -> int:
        if next(turns) % 2:
            raise OSError(errno.EINVAL, "Invalid argument")
        return sendfile(target, source, offset, min(count, 70_001))

    monkeypatch.setattr(os, "sendfile", moody_sendfile)
    monkeypatch.setattr(os, "write", lambda descriptor, view: write(descriptor, view[:999]))
    transport.copy(str(run), fill(run, {"a.bin": data}), RUN, control=FREE)
    assert tree(there) == {"a.bin": data}


def test_an_error_in_one_file_stops_the_others_soon(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {f"{n:04d}": b"x" for n in range(2000)})
    (run / "0000").write_bytes(b"changed")
    with pytest.raises(SourceChangedError, match="0000"):
        transport.copy(str(run), listed, RUN, control=FREE)
    assert len(os.listdir(there)) < 1900
    assert ".exlab-partial" not in os.listdir(there)


def test_a_run_folder_that_is_gone_is_a_wait_not_a_vanished_file(run: Path, transport: Destination) -> None:
    listed = fill(run, {"a.bin": b"a"})
    run.rename(run.parent / "elsewhere")
    with pytest.raises(RunUnreadableError):
        transport.copy(str(run), listed, RUN, control=FREE)


# --- names and places --------------------------------------------------------------------------------------------------


def test_a_name_that_a_lost_answer_gave_us_already_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS the kernel asks again, and then is told that the name exists."""
    (tmp_path / "temporary").write_bytes(b"a")
    os.link(tmp_path / "temporary", tmp_path / "final")
    folder = Folder(str(tmp_path))
    place_new(folder, "temporary", folder, "final")
    assert tree(tmp_path) == {"final": b"a"}


def place(path: Path) -> None:
    """Give the file `temporary` there the name `final`."""
    with folder_at(str(path)) as folder:
        place_new(folder, "temporary", folder, "final")


WAYS = ["hard link", "renameat2", "exclusive creation"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a final name is taken: what comes before in the list cannot be done here."""
    index = WAYS.index(request.param)
    if index == 1:
        (tmp_path / "x").touch()
        folder = Folder(str(tmp_path))
        try:
            renaming.rename_new(folder, "x", folder, "y")
        except renaming.CannotRenameSoError as error:
            pytest.skip(str(error))
        (tmp_path / "y").unlink()
    if index > 0:

        def no_link(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_link)
    if index > 1:
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    return str(request.param)


def test_a_link_comes_before_the_rename_of_which_over_smb_only_this_pc_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a rename, where a link can be made")

    monkeypatch.setattr(renaming, "_rename", fail)
    (tmp_path / "temporary").write_bytes(b"ours")
    place(tmp_path)
    assert tree(tmp_path) == {"final": b"ours"}


def in_the_last_moment(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call `act` once, right before the first call that could give a name to something."""
    waiting = [act]

    def before(module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            is_real = renaming._renameat2() is not None if name == "_rename" else name != "open" or args[1] & os.O_CREAT
            if waiting and is_real:
                waiting.pop()()
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    if os.link.__name__ == "link":  # else it is one that refuses: nothing gets its name by that
        before(os, "link")
    for name in ("rename", "replace", "open"):
        before(os, name)
    before(renaming, "_rename")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_name_that_a_colleague_takes_in_the_last_moment_stays_the_colleagues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    temporary, final = tmp_path / "temporary", tmp_path / "final"
    temporary.write_bytes(b"ours")
    make: dict[str, Callable[[], object]] = {
        "file": lambda: final.write_bytes(b"theirs"),
        "folder": final.mkdir,
        "link": lambda: final.symlink_to("elsewhere"),
    }
    in_the_last_moment(monkeypatch, make[what])
    with pytest.raises(FileExistsError):
        place(tmp_path)
    assert temporary.read_bytes() == b"ours"
    if what == "file":
        assert final.read_bytes() == b"theirs"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("way")
def test_a_free_name_is_taken_by_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "temporary").write_bytes(b"ours")
    inode = (tmp_path / "temporary").stat().st_ino
    place(tmp_path)
    assert tree(tmp_path) == {"final": b"ours"}
    assert (tmp_path / "final").stat().st_ino == inode


def without_renameat2_and_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", no_link)


def test_what_is_written_into_the_place_that_we_hold_open_for_ourselves_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_renameat2_and_links(monkeypatch)
    temporary, final = tmp_path / "temporary", tmp_path / "final"
    temporary.write_bytes(b"ours")
    close = os.close

    def closing(descriptor: int) -> None:
        close(descriptor)
        final.write_bytes(b"theirs")

    monkeypatch.setattr(os, "close", closing)
    with pytest.raises(FileExistsError):
        place(tmp_path)
    assert (temporary.read_bytes(), final.read_bytes()) == (b"ours", b"theirs")


def test_a_place_that_was_held_and_not_taken_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_renameat2_and_links(monkeypatch)
    (tmp_path / "temporary").write_bytes(b"ours")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        place(tmp_path)
    assert tree(tmp_path) == {"temporary": b"ours"}


def test_where_nothing_is_made_exclusively_the_name_is_looked_at_right_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_renameat2_and_links(monkeypatch)
    (tmp_path / "temporary").write_bytes(b"ours")
    (tmp_path / "final").symlink_to("elsewhere")

    def no_exclusive_creation(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with folder_at(str(tmp_path)) as folder:
        monkeypatch.setattr(os, "open", no_exclusive_creation)
        with pytest.raises(FileExistsError):
            place_new(folder, "temporary", folder, "final")
        (tmp_path / "final").unlink()
        place_new(folder, "temporary", folder, "final")
    monkeypatch.undo()
    assert tree(tmp_path) == {"final": b"ours"}


def test_names_of_any_length_fit_because_temporary_names_are_short(run: Path, transport: Destination) -> None:
    listed = fill(run, {"n" * 255: b"a"})
    transport.copy(str(run), listed, RUN, control=FREE)
    assert set(transport.listing(RUN)) == {"n" * 255}


def test_new_files_and_folders_have_the_permissions_of_the_umask(
    run: Path, there: Path, transport: Destination
) -> None:
    listed = fill(run, {"sub/a.bin": b"a"})
    (run / "sub/a.bin").chmod(0o600)
    listed = entries(run)
    before = os.umask(0o027)
    try:
        transport.copy(str(run), listed, RUN, control=FREE)
        transport.write_small("beat.json", b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((there / "sub/a.bin").stat().st_mode) == 0o640
    assert stat.S_IMODE((there / "sub").stat().st_mode) == 0o750
    assert stat.S_IMODE((there.parents[2] / "beat.json").stat().st_mode) == 0o640


def test_times_are_kept_to_the_nanosecond(run: Path, there: Path, transport: Destination) -> None:
    fill(run, {"a.bin": b"a"})
    os.utime(run / "a.bin", ns=(1_500_000_000_123_456_789,) * 2)
    transport.copy(str(run), entries(run), RUN, control=FREE)
    assert (there / "a.bin").stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert transport.listing(RUN)["a.bin"].mtime_ns == 1_500_000_000_123_456_789


def test_a_share_that_keeps_no_times_says_none_and_takes_the_bytes(
    run: Path, there: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = fill(run, {"a.bin": b"a"})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    transport.bind()
    transport.copy(str(run), listed, RUN, control=FREE)
    assert tree(there) == {"a.bin": b"a"}
    assert transport.listing(RUN)["a.bin"].mtime_ns is None


def test_clearing_removes_our_own_temporary_files_and_nothing_else(there: Path, transport: Destination) -> None:
    ours = ".exlab-partial/.partial.0123456789abcdef.tmp"
    fill(there, {ours: b"half", ".exlab-partial/theirs": b"1", ".exlab-partial/.x.tmp": b"2", "a.bin": b"a"})
    (there / ".exlab-partial" / ".link.0123456789abcdef.tmp").symlink_to(there / "a.bin")
    transport.clear_partials(RUN)
    assert tree(there).keys() - {".exlab-partial/.link.0123456789abcdef.tmp"} == {
        ".exlab-partial/theirs",
        ".exlab-partial/.x.tmp",
        "a.bin",
    }
    assert (there / ".exlab-partial" / ".link.0123456789abcdef.tmp").is_symlink()


def test_a_partial_folder_that_is_a_link_is_neither_emptied_nor_used(
    run: Path, there: Path, transport: Destination, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    fill(outside, {".partial.0123456789abcdef.tmp": b"theirs"})
    there.mkdir(parents=True)
    (there / ".exlab-partial").symlink_to(outside)
    transport.clear_partials(RUN)
    with pytest.raises(TransportError):
        transport.copy(str(run), fill(run, {"a.bin": b"a"}), RUN, control=FREE)
    assert tree(outside) == {".partial.0123456789abcdef.tmp": b"theirs"}


@pytest.mark.parametrize("left", [[".exlab-partial/.claim.0123456789abcdef.tmp"], []])
def test_what_a_push_stopped_at_once_leaves_counts_as_nothing(
    there: Path, transport: Destination, left: list[str]
) -> None:
    (there / ".exlab-wizard").mkdir(parents=True)
    fill(there, dict.fromkeys(left, b""))
    assert transport.look(RUN).is_empty


def test_a_folder_that_goes_away_in_the_middle_is_not_made_again_and_is_said(
    run: Path, there: Path, transport: Destination
) -> None:
    """It is what keeps data off the local disk when the share is taken away below us."""
    listed = fill(run, {f"{n}.bin": b"x" * 100_000 for n in range(5)})
    begun_s = time.monotonic()

    def rate() -> float:
        if time.monotonic() - begun_s > 0.3 and there.exists():
            there.rename(there.parent / "gone")
        return 200_000.0

    with pytest.raises(TransportError) as caught:
        transport.copy(str(run), listed, RUN, control=Control(rate_bytes_per_s=rate))
    assert caught.value.kind is FailureKind.NETWORK
    assert not there.exists()


def test_a_full_share_has_answered_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Destination(MountedFarSide(str(tmp_path)))
    known = transport.bind()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    transport.probe(expected_marker_id=known)
    assert list(tree(tmp_path)) == [MARKER]


@pytest.mark.parametrize("call", ["fsync", "open", "unlink"])
def test_a_share_that_answers_from_a_cache_alone_is_unreachable(
    root: Path, transport: Destination, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    known = transport.bind()
    real = getattr(os, call)

    def gone(what: object, *arguments: object, **options: object) -> object:
        if call == "open" and not (int(str(arguments[0])) & os.O_CREAT):
            return real(what, *arguments, **options)
        if call == "unlink" and str(what) not in os.listdir(root):
            return real(what, *arguments, **options)
        raise OSError(errno.EHOSTDOWN, "Host is down")

    monkeypatch.setattr(os, call, gone)
    if call == "unlink":  # the nonce was exchanged: that one cannot be removed is no news
        transport.probe(expected_marker_id=known)
        return
    with pytest.raises(DestinationUnreachableError, match="Host is down"):
        transport.probe(expected_marker_id=known)


def test_a_root_that_is_a_file_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationUnreachableError, match="Not a directory"):
        Destination(MountedFarSide(str(tmp_path / "file"))).bind()


# --- cache folder ------------------------------------------------------------------------------------------------------


class Appending(threading.Thread):
    """Appends lines to a file until told to stop."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.is_over = threading.Event()

    def run(self) -> None:
        with open(self.path, "ab", buffering=0) as file:
            while not self.is_over.is_set():
                file.write(b"one whole line\n")


def test_a_log_that_grows_all_the_time_arrives_as_it_was_at_some_moment(
    run: Path, there: Path, transport: Destination
) -> None:
    fill(run, {".exlab-wizard/wizard.host.log": b"one whole line\n" * 100_000})
    writer = Appending(run / ".exlab-wizard/wizard.host.log")
    writer.start()
    try:
        for _ in range(5):
            transport.replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)
            text = (there / ".exlab-wizard/wizard.host.log").read_bytes()
            assert len(text) >= 1_500_000
            assert (run / ".exlab-wizard/wizard.host.log").read_bytes().startswith(text)
    finally:
        writer.is_over.set()
        writer.join()


def test_another_cache_file_that_changes_while_it_is_read_is_not_taken(
    run: Path, there: Path, transport: Destination
) -> None:
    fill(there, {".exlab-wizard/creation.json": b"old"})
    fill(run, {".exlab-wizard/creation.json": b"x" * 1_000_000})
    path = run / ".exlab-wizard/creation.json"
    begun_s = time.monotonic()

    def rate() -> float:
        if time.monotonic() - begun_s > 0.2:
            path.write_bytes(b"half")
        return 1_000_000.0

    with pytest.raises(SourceChangedError):
        transport.replace(
            str(run), DiskRunTree().cache_files(str(run)), RUN, control=Control(rate_bytes_per_s=rate)
        )  # fmt: skip
    assert tree(there) == {".exlab-wizard/creation.json": b"old"}


def test_a_cache_file_that_is_gone_by_now_is_a_change(run: Path, transport: Destination) -> None:
    fill(run, {".exlab-wizard/passing.json": b"x"})
    cache = DiskRunTree().cache_files(str(run))
    (run / ".exlab-wizard/passing.json").unlink()
    with pytest.raises(SourceChangedError):
        transport.replace(str(run), cache, RUN, control=FREE)


@pytest.mark.parametrize(
    "local",
    ["/data/lab/C/P/Runs/Leaf", "D:\\lab\\C\\Runs\\Leaf", "D:\\lab/C\\Leaf//", "Leaf", "", "/", None, "//nas/a\\"],
)
def test_the_identity_is_the_one_that_is_read_of_a_local_run(run: Path, local: str | None) -> None:
    members = json.loads(CREATION) | {"paths": {} if local is None else {"local": local}}
    data = json.dumps(members).encode()
    fill(run, {".exlab-wizard/creation.json": data})
    assert identity_in(data, folder_name=run.name) == JsonCreationFiles().read(str(run)).creation.identity


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"null", b'{"created_at": 5}', b"[" * 100_000, b'{"a":' * 9999]
)
def test_a_creation_json_that_cannot_be_read_identifies_nobody(data: bytes) -> None:
    assert identity_in(data, folder_name="x") is None


# --- the bandwidth limit -----------------------------------------------------------------------------------------------


class WaitedClock(SystemClock):
    """Time that passes only while somebody waits."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now_s += seconds


def pass_bytes(throttle: Throttle, size_bytes: int, piece_bytes: int = 8 << 20) -> None:
    while size_bytes:
        size_bytes -= throttle.take(min(piece_bytes, size_bytes))


class TestThrottle:
    @pytest.mark.parametrize("rate", [1.0, 5_000.0, 1e6, 6.4e6, 1e9])
    @pytest.mark.parametrize("piece_bytes", [4096, 8 << 20])
    def test_the_rate_holds_over_any_second(self, rate: float, piece_bytes: int) -> None:
        clock = WaitedClock()
        throttle = Throttle(lambda: rate, lambda: None, clock=clock)
        burst = rate / 4 + 16 * 1024 + 1
        moved = 0
        while clock.now_s < 5:
            moved += throttle.take(piece_bytes)
            assert moved <= rate * clock.now_s + burst
        assert moved >= rate * 4

    def test_unlimited_does_not_wait(self) -> None:
        clock = WaitedClock()
        pass_bytes(Throttle(lambda: None, lambda: None, clock=clock), 10**12)
        assert clock.now_s == 0

    def test_a_limit_that_changes_in_the_middle_holds_at_once(self) -> None:
        clock = WaitedClock()
        rate: list[float | None] = [None]
        throttle = Throttle(lambda: rate[0], lambda: None, clock=clock)
        pass_bytes(throttle, 10**9)
        rate[0] = 100e6
        pass_bytes(throttle, 10**9)
        assert 9 < clock.now_s < 10.5
        rate[0] = 1e6
        began_s = clock.now_s
        pass_bytes(throttle, 5 * 10**6)
        assert 4.5 < clock.now_s - began_s < 6
        rate[0] = None
        began_s = clock.now_s
        pass_bytes(throttle, 10**12)
        assert clock.now_s == began_s

    def test_waiting_notices_that_it_was_cancelled(self) -> None:
        clock = WaitedClock()

        def check() -> None:
            if clock.now_s > 1:
                raise CancelledError("stopped as asked")

        with pytest.raises(CancelledError):
            pass_bytes(Throttle(lambda: 10.0, check, clock=clock), 10**6)
        assert clock.now_s < 1.2


def test_a_root_that_leads_back_to_the_runs_own_folders_is_refused(run: Path, tmp_path: Path) -> None:
    listed = fill(run, {"a.bin": b"a"})
    for place in (run, run.parent, run.parent.parent):
        link = tmp_path / f"link-to-{place.name}"
        link.symlink_to(place)
        with pytest.raises(TransportError, match="own folder") as caught:
            Destination(MountedFarSide(str(link))).copy(str(run), listed, "P/Runs/R", control=FREE)
        assert caught.value.kind is FailureKind.AUTH
    assert os.listdir(run) == ["a.bin"]


def test_a_round_trip_leaves_nothing_and_places_no_marker(root: Path, transport: Destination) -> None:
    transport.round_trip()
    assert os.listdir(root) == []
    with pytest.raises(DestinationUnreachableError):
        Destination(MountedFarSide(str(root / "absent"))).round_trip()


def test_the_marker_is_required_before_and_after_each_piece_of_work(root: Path, transport: Destination) -> None:
    with pytest.raises(DestinationUnreachableError):
        transport.require_marker(expected_marker_id=None)
    marker_id = transport.bind()
    transport.require_marker(expected_marker_id=marker_id)
    with pytest.raises(DestinationUnreachableError):
        transport.require_marker(expected_marker_id="0" * 32)
    (root / ".exlab-watch-agent.json").unlink()
    with pytest.raises(DestinationUnreachableError):
        transport.require_marker(expected_marker_id=marker_id)


# --- step by step ------------------------------------------------------------------------------------------------------


def test_a_path_that_is_longer_than_the_system_takes_arrives_is_proven_and_moved_aside(tmp_path: Path) -> None:
    with deep_folder(tmp_path) as home:
        path = "/".join(["d" * 250] * 20 + ["image.tif"])
        write_below(home, ["local", *path.split("/")], b"x" * 3000)
        write_below(home, ["local", "a", "image.tif"], b"y")
        (home / "nas").mkdir()
        transport = Destination(MountedFarSide(str(home / "nas")))
        listed = entries(home / "local")
        transport.copy(str(home / "local"), listed, RUN, control=FREE)
        assert set(transport.listing(RUN)) == {path, "a/image.tif"}
        here = LocalDigester().digests(str(home / "local"), listed, control=FREE)
        assert transport.read_back(RUN, [path, "a/image.tif"], control=FREE).digests == here
        assert transport.samples(RUN, listed, control=FREE) is not None
        assert transport.read_small(RUN, path, limit_bytes=2) == b"xx"
        transport.set_aside(RUN, [path])
        assert set(transport.listing(RUN)) == {"a/image.tif"}
        assert transport.listing(f".exlab-superseded/{RUN}/1").keys() == {path}


def test_no_bytes_come_from_where_a_swapped_folder_of_the_run_leads(
    tmp_path: Path, run: Path, there: Path, transport: Destination
) -> None:
    listed = fill(run, {"a/image.tif": b"x", ".exlab-wizard/note.json": b"{}"})
    (tmp_path / "outside").mkdir()
    for name in ("image.tif", "note.json"):
        (tmp_path / "outside" / name).write_bytes(b"what only root may read")
    for name in ("link", "link2"):
        (tmp_path / name).symlink_to(tmp_path / "outside")
    own = DiskRunTree().cache_files(str(run))
    until_s = time.monotonic() + 1.0
    with swapping(run / "a", tmp_path / "link"), swapping(run / ".exlab-wizard", tmp_path / "link2"):
        while time.monotonic() < until_s:
            with contextlib.suppress(AgentError):
                transport.copy(str(run), listed, RUN, control=FREE)
            with contextlib.suppress(AgentError):
                transport.replace(str(run), own, RUN, control=FREE)
            with contextlib.suppress(AgentError):
                transport.set_aside(RUN, ["a/image.tif"])
    arrived = [path.read_bytes() for path in transport_root(there).rglob("*") if path.is_file()]
    assert set(arrived) <= {b"x", b"{}"}


def transport_root(there: Path) -> Path:
    return next(parent for parent in there.parents if parent.name == "nas")


def test_nothing_is_written_where_a_swapped_folder_of_the_destination_leads(
    tmp_path: Path, run: Path, there: Path, transport: Destination
) -> None:
    listed = fill(run, {f"a/{n}.tif": b"x" for n in range(20)})
    (there / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    until_s = time.monotonic() + 1.0
    with swapping(there / "a", tmp_path / "link"):
        while time.monotonic() < until_s:
            with contextlib.suppress(AgentError):
                transport.copy(str(run), listed, RUN, control=FREE)
            with contextlib.suppress(AgentError):
                transport.set_aside(RUN, [entry.path for entry in listed])
    assert os.listdir(tmp_path / "outside") == []


def test_a_root_that_refuses_the_account_is_not_said_to_be_unmounted(tmp_path: Path) -> None:
    far = MountedFarSide(str(tmp_path))
    refused = far.away(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x")))
    assert refused.endswith(
        f"cannot be used: Permission denied ('{tmp_path}/x'). Let the agent's account read and write there."
    )
    assert far.away(FileNotFoundError(errno.ENOENT, "No such file or directory")).endswith(
        "The share may not be mounted."
    )
