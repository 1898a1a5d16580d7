"""What every transport must pass. A transport's test module subclasses `TransportContract` and fills in the hooks.

The destination root is always a folder of this machine that the test can look into and damage directly; how the
transport reaches it (mount, rclone, ssh) is its own affair.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.core.claim import Claim
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.passes import HowRead
from exlab_watch_agent.errors import (
    AgentError,
    CancelledError,
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import Control, Progress, Transport

RUN = "PROJ-0042/Runs/Run_2026-04-17T14-32"
MARKER = ".exlab-watch-agent.json"
IDENTITY = RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", "Run_2026-04-17T14-32")
CLAIM = Claim(job_id="job-1", equipment_id="CONFOCAL_01", run=RUN, identity=IDENTITY)
CREATION = b"""{"schema_version": "1.8", "created_at": "2026-04-17T14:32:00Z", "created_by": "asmith",
 "lims_project": {"uid": "8c7e"}, "paths": {"local": "D:\\\\lab\\\\CONFOCAL_01\\\\P\\\\Runs/Run_2026-04-17T14-32"}}"""
FREE = Control()

ODD_NAMES: dict[str, bytes] = {
    "spaces": b" two  spaces ",
    "quotes": b'it\'s "quoted" `here` $HOME',
    "leading dash": b"-rf --delete",
    "leading dot": b".hidden",
    "hash, semicolon, bracket": b"#;[a]{b}*?!",
    "backslash": b"back\\slash",
    "newline": b"two\nlines",
    "tab and carriage return": b"a\tb\rc",
    "NFC": "Zürich é".encode(),
    "NFD": "Zu\u0308rich e\u0301".encode(),
    "emoji": "🔬".encode(),
    "255 bytes": b"n" * 251 + b".tif",
    "255 bytes not ASCII": ("ö" * 127).encode() + b"x",
    "invalid UTF-8": b"caf\xe9.tif",
    "looks like a temporary file": b".a.0123456789abcdef.tmp",
    "looks like a marker": b".exlab-watch-agent.json",
}


def tree(root: Path) -> dict[str, bytes]:
    """Return all regular files below: relative path → bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def entries(run: Path) -> tuple[FileEntry, ...]:
    return DiskRunTree().inventory(str(run)).files


def fill(run: Path, files: dict[str, bytes]) -> tuple[FileEntry, ...]:
    for name, data in files.items():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return entries(run)


def in_background(work: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
    thread.start()
    return thread


class OneWay:
    """The hooks: how a suite gets a transport of one way, and the places that it looks at."""

    def constructor(self, root: Path) -> str:
        """Return Python source, imports included, whose last line binds `transport` to a transport of this root."""
        raise NotImplementedError

    def make(self, root: Path) -> Transport:
        names: dict[str, Transport] = {}
        exec(self.constructor(root), names)
        return names["transport"]

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        run = tmp_path / "local" / "Run_2026-04-17T14-32"
        run.mkdir(parents=True)
        return run

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "nas"
        root.mkdir()
        return root

    @pytest.fixture
    def there(self, root: Path) -> Path:
        """The run's destination folder, looked at directly."""
        return root / RUN

    @pytest.fixture
    def transport(self, root: Path) -> Transport:
        return self.make(root)


class TransportContract(OneWay):
    """Each test's name is a sentence about the transport."""

    NAMES_IT_CANNOT_CARRY: ClassVar[frozenset[str]] = frozenset()
    KEEPS_TIMES: ClassVar[bool] = True
    LISTS_AT_ONCE: ClassVar[bool] = True
    HOW_READ: ClassVar[HowRead] = HowRead.DOWNLOAD
    """How this way reads two megabytes back, and as the next says, whether past the caches of this PC."""
    IS_PAST_CACHE: ClassVar[bool] = True

    @pytest.fixture
    def tiny_root(self, tmp_path: Path) -> Iterator[Path]:
        """A destination of 1 MiB."""
        root = tmp_path / "tiny"
        root.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("a full destination needs root and mount")
        yield root
        subprocess.run(["umount", str(root)], check=True)

    def child(self, root: Path, body: str) -> subprocess.Popen[bytes]:
        """Start a process that has `transport`, `entries`, RUN, CLAIM, FREE and runs the body."""
        source = (
            "from tests.adapters.transports.contract import *\n" + self.constructor(root) + "\n" + textwrap.dedent(body)
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen([sys.executable, "-c", source], env=environment, stdout=subprocess.PIPE)

    # --- the marker --------------------------------------------------------------------------------------------------

    def test_first_use_leaves_a_marker_whose_id_is_the_same_ever_after(self, root: Path) -> None:
        first = self.make(root).bind()
        assert len(first) == 32
        assert self.make(root).bind() == first
        assert self.make(root).bind(known_marker_id=first) == first
        self.make(root).probe(expected_marker_id=first)
        assert list(tree(root)) == [MARKER]

    def test_a_root_that_is_not_there_is_unreachable_and_is_not_made(self, root: Path) -> None:
        root.rmdir()
        with pytest.raises(DestinationUnreachableError):
            self.make(root).bind()
        assert not root.exists()

    def test_a_missing_marker_is_an_unmounted_share_and_nothing_is_written_there(self, root: Path) -> None:
        transport = self.make(root)
        known = transport.bind()
        (root / MARKER).unlink()
        with pytest.raises(DestinationUnreachableError, match="may not be mounted") as caught:
            transport.probe(expected_marker_id=known)
        assert transport.describe() in str(caught.value)
        assert tree(root) == {}

    def test_a_marker_that_is_gone_is_put_back_with_its_id_and_another_ones_stays(self, root: Path) -> None:
        transport = self.make(root)
        known = transport.bind()
        before = (root / MARKER).read_bytes()
        (root / MARKER).unlink()
        transport.put_marker_back(known)
        assert (root / MARKER).read_bytes() == before
        self.make(root).probe(expected_marker_id=known)
        with pytest.raises(DestinationUnreachableError, match="another destination"):
            transport.put_marker_back("0" * 32)
        assert (root / MARKER).read_bytes() == before

    def test_a_marker_is_not_put_into_a_root_that_is_not_there(self, root: Path) -> None:
        root.rmdir()
        with pytest.raises(DestinationUnreachableError):
            self.make(root).put_marker_back("0" * 32)
        assert not root.exists()

    def test_another_place_with_a_marker_of_its_own_is_not_ours(self, root: Path, transport: Transport) -> None:
        transport.bind()
        with pytest.raises(DestinationUnreachableError, match="may not be mounted"):
            transport.probe(expected_marker_id="0" * 32)

    @pytest.mark.parametrize("garbled", [b"", b"{", b"[]", b'{"id": 7}', b'{"id": "x"}', b"\xff\xfe", b"[" * 10_000])
    @pytest.mark.parametrize("is_known", [True, False])
    def test_a_garbled_marker_is_neither_believed_nor_replaced(
        self, root: Path, transport: Transport, garbled: bytes, is_known: bool
    ) -> None:
        (root / MARKER).write_bytes(garbled)
        with pytest.raises(DestinationUnreachableError):
            transport.bind(known_marker_id="0" * 32 if is_known else None)
        with pytest.raises(DestinationUnreachableError):
            transport.probe(expected_marker_id="0" * 32 if is_known else None)
        assert tree(root) == {MARKER: garbled}

    def test_agents_that_come_first_at_once_agree_on_one_id(self, root: Path) -> None:
        children = [self.child(root, "print(transport.bind())") for _ in range(4)]
        ids = {child.communicate()[0] for child in children}
        assert len(ids) == 1
        assert ids.pop().strip().decode() in (root / MARKER).read_text()

    # --- claims ------------------------------------------------------------------------------------------------------

    def test_a_destination_that_is_not_there_is_empty(self, transport: Transport) -> None:
        look = transport.look(RUN)
        assert (look.is_empty, look.claim, look.identity) == (True, None, None)
        assert transport.listing(RUN) == {}

    def test_a_claim_that_was_placed_is_seen_and_may_be_placed_again(self, transport: Transport, root: Path) -> None:
        transport.place_claim(RUN, CLAIM)
        before = tree(root)
        transport.place_claim(RUN, CLAIM)
        look = transport.look(RUN)
        assert (look.is_empty, look.claim) == (False, CLAIM)
        assert tree(root) == before
        assert list(before) == [f"{RUN}/.exlab-wizard/exlab-watch-agent.json"]

    def test_another_runs_claim_is_respected(self, transport: Transport, root: Path) -> None:
        transport.place_claim(RUN, CLAIM)
        before = tree(root)
        other = Claim("job-2", "CONFOCAL_02", RUN, IDENTITY)
        with pytest.raises(DestinationOccupiedError, match="CONFOCAL_01"):
            transport.place_claim(RUN, other)
        assert tree(root) == before

    @pytest.mark.parametrize("is_sealed", [False, True])
    def test_a_claim_of_the_same_run_by_another_job_is_never_replaced(
        self, transport: Transport, root: Path, there: Path, is_sealed: bool
    ) -> None:
        transport.place_claim(RUN, CLAIM)
        if is_sealed:
            path = there / ".exlab-wizard/exlab-watch-agent.json"
            seal = b'{"manifest_sha256": "00", "host": "labpc-07", "sealed_at": "2026-04-18T09:00:00Z",'
            path.write_bytes(path.read_bytes().replace(b'"host": ""', b'"is_odd": true').replace(b"{", seal, 1))
        before = tree(root)
        rebuilt = Claim("job-9", CLAIM.equipment_id, CLAIM.run, CLAIM.identity)
        with pytest.raises(DestinationOccupiedError, match="job-1") as caught:
            transport.place_claim(RUN, rebuilt)
        assert caught.value.kind == ("claimed_by_other_agent" if is_sealed else "claimed_unsealed")
        assert ("on labpc-07, sealed at 2026-04-18T09:00:00Z" in str(caught.value)) == is_sealed
        assert tree(root) == before
        look = transport.look(RUN)
        assert (look.claim, look.is_sealed) == (replace(CLAIM, host="labpc-07" if is_sealed else ""), is_sealed)
        assert "job-1" in look.holder

    def test_a_copy_that_says_synced_counts_as_sealed_although_its_claim_is_lost(
        self, transport: Transport, there: Path
    ) -> None:
        fill(there, {".exlab-wizard/creation.json": CREATION})
        assert not transport.look(RUN).is_sealed
        fill(there, {".exlab-wizard/creation.json": CREATION.replace(b"{", b'{"sync_status": "synced", ', 1)})
        look = transport.look(RUN)
        assert (look.is_sealed, look.claim, look.identity, look.holder) == (True, None, IDENTITY, "")

    def test_a_claim_that_cannot_be_read_stops_us(self, transport: Transport, there: Path) -> None:
        fill(there, {".exlab-wizard/exlab-watch-agent.json": b"{"})
        assert transport.look(RUN).claim is None
        assert not transport.look(RUN).is_empty
        with pytest.raises(DestinationOccupiedError):
            transport.place_claim(RUN, CLAIM)

    def test_members_that_a_seal_added_to_the_claim_do_no_harm(self, transport: Transport, run: Path) -> None:
        transport.place_claim(RUN, CLAIM)
        claim = transport.read_small(RUN, ".exlab-wizard/exlab-watch-agent.json", limit_bytes=10_000)
        assert claim is not None
        fill(run, {".exlab-wizard/exlab-watch-agent.json": claim.replace(b"{", b'{"manifest_sha256": "00",', 1)})
        transport.replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)
        assert transport.look(RUN).claim == CLAIM

    def test_of_two_runs_that_claim_at_once_one_gets_the_folder(self, root: Path) -> None:
        body = """
            try:
                transport.place_claim(RUN, Claim("job-%d", "E%d", RUN, IDENTITY))
                print("mine")
            except DestinationOccupiedError:
                print("occupied")
        """
        children = [self.child(root, body % (n, n)) for n in range(4)]
        said = sorted(child.communicate()[0].strip() for child in children)
        assert said == [b"mine", b"occupied", b"occupied", b"occupied"]

    def test_a_claim_that_another_agent_replaced_meanwhile_is_ours_no_longer(
        self, transport: Transport, there: Path
    ) -> None:
        transport.place_claim(RUN, CLAIM)
        transport.require_claim(RUN, CLAIM)
        path = there / ".exlab-wizard/exlab-watch-agent.json"
        path.write_bytes(path.read_bytes().replace(b"job-1", b"job-2"))
        with pytest.raises(DestinationOccupiedError, match="job-2"):
            transport.require_claim(RUN, CLAIM)
        path.unlink()
        with pytest.raises(TransportError, match="could not be read back"):
            transport.require_claim(RUN, CLAIM)

    def test_whose_folder_it_is_shows_in_its_creation_json(self, transport: Transport, there: Path) -> None:
        fill(there, {".exlab-wizard/creation.json": CREATION})
        assert transport.look(RUN).identity == IDENTITY
        assert not transport.look(RUN).is_empty

    def test_foreign_data_are_not_nothing(self, transport: Transport, there: Path) -> None:
        fill(there, {"data.tif": b"x"})
        look = transport.look(RUN)
        assert (look.is_empty, look.claim, look.identity) == (False, None, None)

    # --- copying -----------------------------------------------------------------------------------------------------

    def test_every_byte_and_time_arrives_and_nothing_else_does(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        files = {
            "empty.bin": b"",
            "one.bin": b"1",
            "deep/er/and deeper/block.bin": os.urandom(128 * 1024),
            "deep/odd.bin": os.urandom(128 * 1024 * 3 + 17),
            "large.bin": os.urandom(20 * 1024 * 1024 + 1),
            **{f"many/{n:03d}.tif": os.urandom(n * 37) for n in range(120)},
        }
        fill(run, files)
        os.utime(run / "one.bin", ns=(10**18, 10**18))
        listed = entries(run)
        transport.copy(str(run), listed, RUN, control=FREE)
        assert tree(there) == files
        listing = transport.listing(RUN)
        assert {path: file.size_bytes for path, file in listing.items()} == {e.path: e.size_bytes for e in listed}
        for entry in listed if self.KEEPS_TIMES else ():
            assert abs((there / entry.path).stat().st_mtime_ns - entry.mtime_ns) < 2 * 10**9
        assert sorted(os.listdir(there)) == ["deep", "empty.bin", "large.bin", "many", "one.bin"]

    def test_a_listing_is_believed_at_once_where_it_is_the_truth_and_else_asked_again_until_what_is_due_is_there(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        due = fill(run, {"a.bin": b"a" * 1000, "deep/b.bin": os.urandom(300_000)})
        self.copy_the_rest(transport, run, due)
        listed = transport.listing(RUN, due=due)
        assert {path: file.size_bytes for path, file in listed.items()} == {e.path: e.size_bytes for e in due}
        (there / "a.bin").unlink()
        asked = 0

        def is_cancelled() -> bool:
            nonlocal asked
            asked += 1
            return asked > 2

        if self.LISTS_AT_ONCE:
            assert transport.listing(RUN, due=due, control=Control(is_cancelled=is_cancelled)).keys() == {"deep/b.bin"}
        else:
            with pytest.raises(CancelledError):
                transport.listing(RUN, due=due, control=Control(is_cancelled=is_cancelled))

    def test_only_what_is_listed_is_copied(self, run: Path, there: Path, transport: Transport) -> None:
        listed = fill(run, {"a": b"a"})
        fill(run, {"later": b"later"})
        transport.copy(str(run), listed, RUN, control=FREE)
        assert tree(there) == {"a": b"a"}

    def test_copying_nothing_is_fine(self, run: Path, transport: Transport) -> None:
        transport.copy(str(run), (), RUN, control=FREE)
        assert transport.listing(RUN) == {}

    @pytest.mark.parametrize("what", ODD_NAMES)
    def test_an_odd_name_is_just_a_name(self, run: Path, there: Path, transport: Transport, what: str) -> None:
        if what in self.NAMES_IT_CANNOT_CARRY:
            pytest.skip(f"not with this transport: {what}")
        name = os.fsdecode(ODD_NAMES[what])
        listed = fill(run, {name: b"file", f"folder/{name}/{name}": b"deeper"})
        transport.place_claim(RUN, CLAIM)
        transport.copy(str(run), listed, RUN, control=FREE)
        paths = [entry.path for entry in listed]
        assert sorted(transport.listing(RUN)) == sorted(paths) == sorted([name, f"folder/{name}/{name}"])
        assert transport.read_back(RUN, paths, control=FREE).digests == LocalDigester().digests(
            str(run), listed, control=FREE
        )
        transport.set_aside(RUN, paths)
        assert transport.listing(RUN) == {}
        assert (there.parents[2] / ".exlab-superseded" / RUN / "1" / name).read_bytes() == b"file"

    def test_progress_counts_up_to_the_whole(self, run: Path, transport: Transport) -> None:
        listed = fill(run, {f"{n}.bin": os.urandom(300_000) for n in range(20)})
        seen: list[Progress] = []
        transport.copy(str(run), listed, RUN, control=Control(report=seen.append))
        assert seen[-1] == Progress(bytes_done=6_000_000, files_done=20)
        assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)

    def test_a_name_that_exists_is_never_replaced(self, run: Path, there: Path, transport: Transport) -> None:
        listed = fill(run, {"a.bin": b"new", "b.bin": b"new"})
        fill(there, {"b.bin": b"old and the only copy"})
        with pytest.raises(TransportError, match=r"b\.bin") as caught:
            transport.copy(str(run), listed, RUN, control=FREE)
        assert caught.value.kind is FailureKind.UNKNOWN
        assert tree(there)["b.bin"] == b"old and the only copy"

    @pytest.mark.parametrize("change", ["longer", "shorter", "touched", "replaced"])
    def test_a_source_that_is_not_the_listed_one_is_not_copied(
        self, run: Path, there: Path, transport: Transport, change: str
    ) -> None:
        listed = fill(run, {"a.bin": b"12345"})
        path = run / "a.bin"
        if change == "longer":
            path.write_bytes(b"123456")
        elif change == "shorter":
            path.write_bytes(b"1234")
        elif change == "touched":
            os.utime(path, ns=(10**18, 10**18))
        else:
            (run / "new").write_bytes(b"54321")
            os.utime(run / "new", ns=(listed[0].mtime_ns, listed[0].mtime_ns))
            os.replace(run / "new", path)
        with pytest.raises(SourceChangedError):
            transport.copy(str(run), listed, RUN, control=FREE)
        transport.clear_partials(RUN)
        assert not there.exists() or tree(there) == {}

    @pytest.mark.parametrize("change", ["appended", "cut", "rewritten"])
    def test_a_source_that_changes_while_it_is_copied_gets_no_final_name(
        self, run: Path, there: Path, transport: Transport, change: str
    ) -> None:
        listed = fill(run, {"growing.bin": os.urandom(4_000_000)})
        has_begun, has_changed = threading.Event(), threading.Event()

        def change_it() -> None:
            has_begun.wait(60)
            time.sleep(0.5)  # so that some of it is on its way
            with open(run / "growing.bin", "r+b") as file:
                if change == "appended":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                elif change == "cut":
                    file.truncate(3_900_000)
                else:
                    file.seek(3_000_000)
                    file.write(b"other")
            has_changed.set()

        def rate() -> float:
            """So little that the copy cannot end before the change, however busy the machine is."""
            has_begun.set()
            return 50e6 if has_changed.is_set() else 400_000.0

        writer = in_background(change_it)
        try:
            with pytest.raises(SourceChangedError):
                transport.copy(str(run), listed, RUN, control=Control(rate_bytes_per_s=rate))
        finally:
            has_begun.set()
            writer.join()
        transport.clear_partials(RUN)
        assert tree(there) == {}

    def test_a_source_that_is_gone_is_named(self, run: Path, there: Path, transport: Transport) -> None:
        listed = fill(run, {"a.bin": b"a", "gone.bin": b"gone"})
        (run / "gone.bin").unlink()
        with pytest.raises(TransportError, match=r"gone\.bin") as caught:
            transport.copy(str(run), listed, RUN, control=FREE)
        assert caught.value.kind is FailureKind.LOCAL_FILE_VANISHED
        assert "gone.bin" not in tree(there)

    def test_a_source_that_became_a_link_is_not_followed(self, run: Path, there: Path, transport: Transport) -> None:
        listed = fill(run, {"a.bin": b"a"})
        (run.parent / "secret").write_bytes(b"s")
        (run / "a.bin").unlink()
        (run / "a.bin").symlink_to(run.parent / "secret")
        with pytest.raises((SourceChangedError, TransportError)):
            transport.copy(str(run), listed, RUN, control=FREE)
        assert not there.exists() or b"s" not in tree(there).values()

    def test_a_copy_that_is_cancelled_leaves_whole_files_only_and_can_be_repeated(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        files = {f"{n}.bin": os.urandom(700_000) for n in range(10)}
        listed = fill(run, files)
        moved: list[Progress] = []
        begun_s = time.monotonic()
        control = Control(
            is_cancelled=lambda: time.monotonic() - begun_s > 1.0,
            report=moved.append,
            rate_bytes_per_s=lambda: 2_000_000.0,
        )
        with pytest.raises(CancelledError):
            transport.copy(str(run), listed, RUN, control=control)
        transport.clear_partials(RUN)
        arrived = tree(there)
        assert all(files[name] == data for name, data in arrived.items())
        assert len(arrived) < 10
        self.copy_the_rest(transport, run, listed)
        assert tree(there) == files

    def copy_the_rest(self, transport: Transport, run: Path, listed: tuple[FileEntry, ...]) -> None:
        missing = [entry for entry in listed if entry.path not in transport.listing(RUN)]
        transport.copy(str(run), missing, RUN, control=FREE)

    def test_a_rate_limit_holds_and_its_end_is_noticed(self, run: Path, transport: Transport) -> None:
        """With the limit for ever it would take 150 s, more than any test may."""
        listed = fill(run, {"a.bin": os.urandom(30_000_000)})
        begun_s = time.monotonic()
        control = Control(rate_bytes_per_s=lambda: 200_000.0 if time.monotonic() - begun_s < 1.0 else None)
        transport.copy(str(run), listed, RUN, control=control)
        assert time.monotonic() - begun_s > 0.9, "unlimited it takes no time"

    def test_killed_at_any_moment_and_repeated_everything_is_whole(
        self, run: Path, root: Path, there: Path, transport: Transport
    ) -> None:
        files = {f"d{n % 3}/{n}.bin": os.urandom(200_000 + n) for n in range(40)} | {"large.bin": os.urandom(9_000_000)}
        listed = fill(run, files)
        body = f"""
            print("go", flush=True)
            transport.clear_partials(RUN)
            missing = [e for e in entries(Path({str(run)!r})) if e.path not in transport.listing(RUN)]
            transport.copy({str(run)!r}, missing, RUN, control=Control(rate_bytes_per_s=lambda: 12e6))
        """
        dice = random.Random(7)
        for _ in range(4):
            child = self.child(root, body)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(dice.uniform(0.05, 0.6))
            child.send_signal(signal.SIGKILL)
            child.communicate()
            self.after_kill(root)
            sizes = {path: file.size_bytes for path, file in transport.listing(RUN).items()}
            assert all(len(files[path]) == size for path, size in sizes.items())
            assert transport.read_back(RUN, list(sizes), control=FREE).digests == {
                path: hashlib.sha256(files[path]).hexdigest() for path in sizes
            }
        transport.clear_partials(RUN)
        self.copy_the_rest(transport, run, listed)
        assert tree(there) == files, "everything whole, no debris"

    def after_kill(self, root: Path) -> None:
        """Wait until nothing that the killed agent had started writes any more."""

    def test_a_full_destination_says_so_and_keeps_no_half_file(self, run: Path, tiny_root: Path) -> None:
        transport = self.make(tiny_root)
        transport.bind()
        listed = fill(run, {"a.bin": os.urandom(100_000), "b.bin": os.urandom(2_000_000)})
        with pytest.raises(TransportError) as caught:
            transport.copy(str(run), listed, RUN, control=FREE)
        assert caught.value.kind is FailureKind.DESTINATION_FULL
        transport.clear_partials(RUN)
        assert "b.bin" not in tree(tiny_root / RUN)
        free = transport.free_bytes()
        assert free is None or free >= 700_000, "what was half written does not fill the place"

    # --- links at the destination ------------------------------------------------------------------------------------

    def test_a_link_under_a_files_name_is_never_written_through(
        self, run: Path, there: Path, transport: Transport, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        listed = fill(run, {"a.bin": b"new"})
        there.mkdir(parents=True)
        (there / "a.bin").symlink_to(victim)
        assert transport.listing(RUN) == {}
        with pytest.raises(TransportError):
            transport.copy(str(run), listed, RUN, control=FREE)
        assert victim.read_bytes() == b"precious"
        transport.set_aside(RUN, ["a.bin"])
        transport.copy(str(run), listed, RUN, control=FREE)
        assert victim.read_bytes() == b"precious"
        assert (there / "a.bin").read_bytes() == b"new"

    def test_a_link_under_a_folders_name_leads_nowhere(
        self, run: Path, there: Path, transport: Transport, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        fill(outside, {"a.bin": b"foreign"})
        listed = fill(run, {"sub/a.bin": b"mine", "sub/b.bin": b"mine"})
        there.mkdir(parents=True)
        (there / "sub").symlink_to(outside)
        assert transport.listing(RUN) == {}
        assert transport.read_back(RUN, ["sub/a.bin"], control=FREE).digests == {}
        assert transport.read_small(RUN, "sub/a.bin", limit_bytes=100) is None
        with pytest.raises(TransportError):
            transport.copy(str(run), listed, RUN, control=FREE)
        assert tree(outside) == {"a.bin": b"foreign"}

    def test_a_link_is_a_missing_file_for_those_who_read(
        self, there: Path, transport: Transport, tmp_path: Path
    ) -> None:
        (tmp_path / "victim").write_bytes(b"x")
        there.mkdir(parents=True)
        (there / "a.bin").symlink_to(tmp_path / "victim")
        os.mkfifo(there / "fifo")
        (there / "folder").mkdir()
        names = ["a.bin", "fifo", "folder"]
        wanted = [FileEntry(name, 1, 0) for name in names]
        assert transport.read_back(RUN, names, control=FREE).digests == {}
        assert not transport.samples(RUN, wanted, control=FREE)
        assert [transport.read_small(RUN, name, limit_bytes=10) for name in names] == [None] * 3

    # --- evidence ----------------------------------------------------------------------------------------------------

    def test_digests_are_those_of_the_bytes_that_are_there_now(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        files = {"a.bin": os.urandom(3_000_000), "empty": b"", "s/small": b"small"}
        listed = fill(run, files)
        transport.copy(str(run), listed, RUN, control=FREE)
        paths = [entry.path for entry in listed]
        good = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        read = transport.read_back(RUN, [*paths, "not there", "nor/there"], control=FREE)
        assert (read.digests, read.how, read.is_past_cache) == (good, self.HOW_READ, self.IS_PAST_CACHE)
        before = (there / "a.bin").stat()
        with open(there / "a.bin", "r+b") as file:
            file.seek(1_000_000)
            file.write(b"rot")
        os.utime(there / "a.bin", ns=(before.st_mtime_ns, before.st_mtime_ns))
        again = transport.read_back(RUN, paths, control=FREE).digests
        assert again["a.bin"] == hashlib.sha256((there / "a.bin").read_bytes()).hexdigest() != good["a.bin"]
        assert again["s/small"] == good["s/small"]

    def test_digests_can_be_cancelled(self, there: Path, transport: Transport) -> None:
        fill(there, {"a.bin": b"a"})
        with pytest.raises(CancelledError):
            transport.read_back(RUN, ["a.bin"], control=Control(is_cancelled=lambda: True))

    @pytest.mark.parametrize("size_bytes", [0, 1, 65_536, 600_000, 5_000_000])
    def test_samples_agree_with_the_local_ones_on_a_good_copy(
        self, run: Path, transport: Transport, size_bytes: int
    ) -> None:
        listed = fill(run, {"a.bin": os.urandom(size_bytes), "b/c.bin": os.urandom(size_bytes)})
        transport.copy(str(run), listed, RUN, control=FREE)
        there = transport.samples(RUN, listed, control=FREE)
        assert there is None or there == LocalDigester().samples(str(run), listed, control=FREE)

    @pytest.mark.parametrize("damage", ["zero tail", "cut", "missing", "zeros"])
    def test_samples_show_a_partial_copy(self, run: Path, there: Path, transport: Transport, damage: str) -> None:
        listed = fill(run, {"a.bin": os.urandom(5_000_000)})
        transport.copy(str(run), listed, RUN, control=FREE)
        path = there / "a.bin"
        if damage == "missing":
            path.unlink()
        else:
            os.truncate(path, 0 if damage == "zeros" else 4_000_000)
            if damage != "cut":
                os.truncate(path, 5_000_000)
        found = transport.samples(RUN, listed, control=FREE)
        if found is None:
            pytest.skip("this transport reads no ranges")
        assert found != LocalDigester().samples(str(run), listed, control=FREE)
        assert ("a.bin" in found) == (damage != "missing")

    # --- small files -------------------------------------------------------------------------------------------------

    def test_the_cache_folder_is_replaced_file_by_file(self, run: Path, there: Path, transport: Transport) -> None:
        old = {".exlab-wizard/creation.json": b"old", ".exlab-wizard/theirs.json": b"theirs", "data.bin": b"data"}
        fill(there, old)
        fill(run, {"data.bin": b"DATA"})
        new = {".exlab-wizard/creation.json": b"new", ".exlab-wizard/deep/x": b"", ".exlab-wizard/a b.log": b"l"}
        fill(run, new)
        cache = DiskRunTree().cache_files(str(run))
        transport.replace(str(run), cache, RUN, control=FREE)
        transport.replace(str(run), cache, RUN, control=FREE)
        assert tree(there) == {**old, **new}
        assert transport.listing(RUN).keys() == {"data.bin"}

    def test_what_others_wrote_into_the_cache_folder_is_kept_before_it_is_replaced(
        self, run: Path, root: Path, there: Path, transport: Transport
    ) -> None:
        curator = {
            ".exlab-wizard/fields.json": b"a curator's",
            ".exlab-wizard/deep/x": b"x\0\n",
            ".exlab-wizard/same": b"s",
        }
        logs = {".exlab-wizard/wizard.a.log": b"one\n", ".exlab-wizard/wizard.b.log": b"another\n"}
        own = {".exlab-wizard/creation.json": b"old", ".exlab-wizard/checksums.sha256": b"old"}
        fill(there, curator | logs | own)
        new = dict.fromkeys(curator | own, b"new") | dict.fromkeys(logs, b"one\ntwo\n") | {".exlab-wizard/same": b"s"}
        fill(run, new)
        cache = DiskRunTree().cache_files(str(run))
        for _ in range(2):
            self.replace(transport, run, cache, {})
            assert tree(there) == new
            kept = tree(root / ".exlab-superseded" / RUN)
            assert {path.partition("/")[2]: data for path, data in kept.items()} == {
                "fields.json": b"a curator's", "x": b"x\0\n", "wizard.b.log": b"another\n"
            }  # fmt: skip

    def replace(self, transport: Transport, run: Path, files: tuple[FileEntry, ...], instead: dict[str, bytes]) -> None:
        """Replace, as often as an engine would, where a server may not show at once what it has taken in."""
        transport.replace(str(run), files, RUN, control=FREE, instead=instead)

    def test_other_bytes_may_be_placed_instead_of_what_a_file_holds_here(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        small = {".exlab-wizard/creation.json": b"pending", ".exlab-wizard/wizard.log": b"one\n"}
        large = {".exlab-wizard/odd.bin": random.Random(1).randbytes(1_200_000)}
        for files in (small, small | large):
            fill(run, files)
            cache = DiskRunTree().cache_files(str(run))
            for text in (b"synced, and longer", b""):
                instead = {".exlab-wizard/creation.json": text, ".exlab-wizard/not.listed": b"x"}
                self.replace(transport, run, cache, instead)
                assert tree(there) == files | {".exlab-wizard/creation.json": text}
        assert tree(run) == small | large

    def test_data_are_never_replaced(self, run: Path, there: Path, transport: Transport) -> None:
        fill(there, {"data.bin": b"old"})
        with pytest.raises(AgentError):
            transport.replace(str(run), fill(run, {"data.bin": b"new"}), RUN, control=FREE)
        assert tree(there) == {"data.bin": b"old"}

    def test_a_log_may_have_grown_since_it_was_listed(self, run: Path, there: Path, transport: Transport) -> None:
        fill(run, {".exlab-wizard/wizard.host.log": b"one\n"})
        cache = DiskRunTree().cache_files(str(run))
        fill(run, {".exlab-wizard/wizard.host.log": b"one\ntwo\n"})
        transport.replace(str(run), cache, RUN, control=FREE)
        assert tree(there)[".exlab-wizard/wizard.host.log"] == b"one\ntwo\n"

    def test_small_files_are_read_as_they_are(self, there: Path, transport: Transport) -> None:
        fill(there, {"a.txt": b"12345", "empty": b""})
        assert transport.read_small(RUN, "a.txt", limit_bytes=100) == b"12345"
        assert transport.read_small(RUN, "a.txt", limit_bytes=3) == b"123"
        assert transport.read_small(RUN, "empty", limit_bytes=3) == b""
        assert transport.read_small(RUN, "none", limit_bytes=3) is None
        assert transport.read_small(RUN, "no/ne", limit_bytes=3) is None

    def test_one_of_several_files_is_found(self, there: Path, transport: Transport) -> None:
        fill(there, {"sub/a.txt": b"", "b.txt": b"b"})
        absent = [f"{RUN}/c.txt", f"{RUN}/no/ne.txt", "not/here"]
        assert not transport.is_any_there(absent)
        for name in ("sub/a.txt", "b.txt"):
            assert transport.is_any_there([*absent, f"{RUN}/{name}"])
            assert transport.is_any_there([f"{RUN}/{name}", *absent])

    def test_small_files_are_written_whole_and_again(self, root: Path, transport: Transport) -> None:
        for text in (b"first, longer", b"second", b""):
            transport.write_small(".exlab-watch-agent/labpc 04.json", text)
            transport.write_small("top.json", text)
            assert tree(root) == {".exlab-watch-agent/labpc 04.json": text, "top.json": text}

    def test_what_makes_room_is_kept_under_the_first_free_number(
        self, root: Path, there: Path, transport: Transport
    ) -> None:
        fill(there, {"a.bin": b"1", "sub/b.bin": b"2", "c.bin": b"3"})
        transport.set_aside(RUN, ["a.bin", "sub/b.bin", "gone.bin", "no/where"])
        assert tree(there) == {"c.bin": b"3"}
        fill(there, {"a.bin": b"4"})
        transport.set_aside(RUN, iter(["a.bin"]))
        transport.set_aside(RUN, ["gone.bin"])
        transport.set_aside(RUN, [])
        assert tree(root / ".exlab-superseded" / RUN) == {"1/a.bin": b"1", "1/sub/b.bin": b"2", "2/a.bin": b"4"}

    def test_clearing_partials_where_there_are_none_is_fine(self, there: Path, transport: Transport) -> None:
        transport.clear_partials(RUN)
        fill(there, {"a.bin": b"a"})
        transport.clear_partials(RUN)
        assert tree(there) == {"a.bin": b"a"}

    def test_free_space_is_a_number_or_unknown(self, transport: Transport) -> None:
        free = transport.free_bytes()
        assert free is None or free > 0

    # --- names -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out", "a//b", "", ".", "a/.", "a/", "nul\0"])
    def test_no_name_leads_out_of_the_destination(self, run: Path, root: Path, transport: Transport, path: str) -> None:
        fill(run.parent, {"out": b"out"})
        fill(root, {"PROJ-0042/Runs/out": b"o", "out": b"o"})
        before = tree(root.parent)
        entry = FileEntry(path, 3, (run.parent / "out").stat().st_mtime_ns)
        attempts: list[Callable[[], object]] = [
            lambda: transport.copy(str(run), [entry], RUN, control=FREE),
            lambda: transport.replace(str(run), [entry], RUN, control=FREE),
            lambda: transport.replace(str(run), [FileEntry(f".exlab-wizard/{path}", 3, 0)], RUN, control=FREE),
            lambda: transport.read_small(RUN, path, limit_bytes=10),
            lambda: transport.write_small(path, b"out"),
            lambda: transport.set_aside(RUN, [path]),
            lambda: transport.read_back(RUN, [path], control=FREE).digests,
            lambda: transport.look(path),
            lambda: transport.listing(path),
            lambda: transport.place_claim(path, CLAIM),
            lambda: transport.require_claim(path, CLAIM),
            lambda: transport.clear_partials(path),
        ]
        for attempt in attempts:
            with pytest.raises(AgentError):
                attempt()
        assert tree(root.parent) == before

    def test_the_agents_own_names_are_not_taken_for_data(self, run: Path, there: Path, transport: Transport) -> None:
        fill(run, {".exlab-partial/a.bin": b"a"})
        with pytest.raises(TransportError, match="Rename"):
            transport.copy(str(run), entries(run), RUN, control=FREE)
        assert not there.exists() or tree(there) == {}


def needs(program: str) -> None:
    """Skip, visibly, where a program is not installed."""
    try:
        subprocess.run([program, "--version"], capture_output=True, check=False)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        pytest.skip(f"{program} is not installed")
