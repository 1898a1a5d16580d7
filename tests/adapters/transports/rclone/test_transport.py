"""The rclone transport: the contract on real servers, and what only it promises."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.rclone import daemon
from exlab_watch_agent.adapters.transports.rclone.errors import failure_kind
from exlab_watch_agent.adapters.transports.rclone.far_side import RcloneFarSide
from exlab_watch_agent.adapters.transports.rclone.pace import PACE, Pace
from exlab_watch_agent.adapters.transports.rclone.requests import Requests
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.passes import HowRead
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.core.sampling import BLOCK_BYTES, sample_offsets
from exlab_watch_agent.errors import DestinationUnreachableError, FailureKind, TransportError
from exlab_watch_agent.ports import Control, Progress, Transport
from tests.adapters.transports.contract import CLAIM, FREE, ODD_NAMES, RUN, TransportContract, entries, fill, tree
from tests.adapters.transports.whole_runs import WholeRuns
from tests.lab.lab import Equipment, Lab, override, run_to_rest, until
from tests.lab.servers import Place, RcloneRemote, SshServer, obscured

CONTROLS = frozenset({"newline", "tab and carriage return", "invalid UTF-8"})


class RcloneContract(WholeRuns, TransportContract):
    """The contract through rclone. Links on the server are the server's affair, and no backend creates exclusively."""

    NAMES_IT_CANNOT_CARRY: ClassVar[frozenset[str]] = CONTROLS

    LISTS_AT_ONCE: ClassVar[bool] = False

    @pytest.fixture
    def remote(self) -> RcloneRemote:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _made(self, remote: RcloneRemote, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self._remote = remote
        self._transports: list[Transport] = []
        with TemporaryDirectory(prefix="exlab-") as folder:  # the path of a socket must be short
            monkeypatch.setenv("TMPDIR", folder)  # of the processes that a test starts; this one has looked already
            self._folder_of_children = Path(folder)
            yield
            for transport in self._transports:
                transport.close()
            self.after_kill(Path())

    def after_kill(self, root: Path) -> None:
        deadline_s = time.monotonic() + 120
        while list(self._folder_of_children.iterdir()):  # the warden takes it away when its rclone has ended
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def constructor(self, root: Path) -> str:
        remote = self._remote
        below = str(root.relative_to(remote.root))
        path = f"{remote.prefix}/{below}" if remote.prefix else below
        return (
            "from exlab_watch_agent.adapters.transports.destination import Destination\n"
            "from exlab_watch_agent.adapters.transports.rclone.far_side import RcloneFarSide\n"
            "from exlab_watch_agent.core.policy import RcloneTarget\n"
            f"target = RcloneTarget({remote.name!r}, {path!r}, {str(remote.config)!r})\n"
            "transport = Destination(RcloneFarSide(target, sampled_bytes_min=0))"
        )

    def make(self, root: Path) -> Transport:
        transport = super().make(root)
        self._transports.append(transport)
        return transport

    @pytest.fixture
    def root(self, remote: RcloneRemote, tmp_path: Path) -> Path:
        root = remote.root / tmp_path.name
        root.mkdir(parents=True)
        return root

    @pytest.fixture
    def tiny_root(self, remote: RcloneRemote, tmp_path: Path) -> Iterator[Path]:
        root = remote.root / f"tiny-{tmp_path.name}"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", str(root)], check=True)

    def test_of_two_runs_that_claim_at_once_one_gets_the_folder(self, root: Path) -> None:
        """Within one moment both may believe it is theirs; each looks again before and after its data, and one goes on."""
        body = """
            try:
                transport.place_claim(RUN, Claim("job-%d", "E%d", RUN, IDENTITY))
                time.sleep(1.5)
                transport.copy("/", (), RUN, control=FREE)
                print("mine")
            except DestinationOccupiedError:
                print("occupied")
            finally:
                transport.close()
        """
        children = [self.child(root, body % (n, n)) for n in range(4)]
        said = sorted(child.communicate()[0].strip() for child in children)
        assert said == [b"mine", b"occupied", b"occupied", b"occupied"]

    def test_a_link_under_a_files_name_is_never_written_through(
        self, run: Path, there: Path, transport: Transport, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        listed = fill(run, {"a.bin": b"new"})
        there.mkdir(parents=True)
        (there / "a.bin").symlink_to(victim)
        try:
            transport.copy(str(run), listed, RUN, control=FREE)
        except TransportError:
            assert (there / "a.bin").is_symlink()
        assert victim.read_bytes() == b"precious"

    def test_a_link_under_a_folders_name_leads_nowhere(
        self, run: Path, there: Path, transport: Transport, tmp_path: Path
    ) -> None:
        """It may lead somewhere: that is for the server to say. What stands there is not replaced even so."""
        outside = tmp_path / "outside"
        fill(outside, {"a.bin": b"foreign"})
        listed = fill(run, {"sub/a.bin": b"mine"})
        there.mkdir(parents=True)
        (there / "sub").symlink_to(outside)
        with suppress(TransportError):
            transport.copy(str(run), listed, RUN, control=FREE)
        assert tree(outside)["a.bin"] == b"foreign"

    def test_a_link_is_a_missing_file_for_those_who_read(
        self, there: Path, transport: Transport, tmp_path: Path
    ) -> None:
        """A folder is one."""
        (there / "folder").mkdir(parents=True)
        assert transport.read_back(RUN, ["folder"], control=FREE).digests == {}
        assert transport.read_small(RUN, "folder", limit_bytes=10) is None

    def test_a_damaged_block_is_found_by_reading_no_more_than_the_sampled_ones(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        listed = fill(run, {"a.bin": os.urandom(3_000_000), "b/c d.bin": os.urandom(100)})
        transport.copy(str(run), listed, RUN, control=FREE)
        here = LocalDigester().samples(str(run), listed, control=FREE)
        assert transport.samples(RUN, listed, control=FREE) == here
        sampled = sample_offsets(3_000_000)
        for offset, is_sampled in ((sampled[3] + 5, True), (sampled[3] + BLOCK_BYTES + 5, False)):
            data = bytearray((run / "a.bin").read_bytes())
            data[offset] ^= 1
            (there / "a.bin").write_bytes(data)
            found = transport.samples(RUN, listed, control=FREE)
            assert found is not None
            assert [path for path, digest in here.items() if found[path] != digest] == ["a.bin"] * is_sampled

    @pytest.mark.parametrize("what", ODD_NAMES)
    def test_a_name_that_would_change_there_is_refused_before_anything_is_copied(
        self, run: Path, there: Path, transport: Transport, what: str
    ) -> None:
        if what not in self.NAMES_IT_CANNOT_CARRY:
            pytest.skip("it arrives, as another test shows")
        listed = fill(run, {"a.bin": b"a", os.fsdecode(ODD_NAMES[what]): b"odd"})
        transport.place_claim(RUN, CLAIM)
        with pytest.raises(TransportError, match="Rename it"):
            transport.copy(str(run), listed, RUN, control=FREE)
        assert transport.listing(RUN) == {}


ESSENTIAL = {
    "test_first_use_leaves_a_marker_whose_id_is_the_same_ever_after",
    "test_a_root_that_is_not_there_is_unreachable_and_is_not_made",
    "test_a_missing_marker_is_an_unmounted_share_and_nothing_is_written_there",
    "test_another_runs_claim_is_respected",
    "test_a_claim_of_the_same_run_by_another_job_is_never_replaced",
    "test_a_name_that_exists_is_never_replaced",
    "test_a_source_that_changes_while_it_is_copied_gets_no_final_name",
    "test_a_copy_that_is_cancelled_leaves_whole_files_only_and_can_be_repeated",
    "test_killed_at_any_moment_and_repeated_everything_is_whole",
    "test_a_full_destination_says_so_and_keeps_no_half_file",
    "test_a_link_under_a_files_name_is_never_written_through",
    "test_digests_are_those_of_the_bytes_that_are_there_now",
    "test_a_damaged_block_is_found_by_reading_no_more_than_the_sampled_ones",
    "test_a_listing_is_believed_at_once_where_it_is_the_truth_and_else_asked_again_until_what_is_due_is_there",
    "test_the_cache_folder_is_replaced_file_by_file",
    "test_other_bytes_may_be_placed_instead_of_what_a_file_holds_here",
    "test_small_files_are_read_as_they_are",
    "test_small_files_are_written_whole_and_again",
    "test_what_makes_room_is_kept_under_the_first_free_number",
}


class Essentials(RcloneContract):
    """What a server has a say in. The rest is the same code for all, and the whole contract runs on two of them."""

    def test_odd_names_arrive_one_by_one_or_are_refused(self, run: Path, there: Path, transport: Transport) -> None:
        wanted = set()
        for number, (what, name) in enumerate(ODD_NAMES.items()):
            path = f"{number}/{os.fsdecode(name)}"  # side by side, both Unicode forms of a name are one to some servers
            (entry,) = fill(run, {path: what.encode()})
            if what in self.NAMES_IT_CANNOT_CARRY:
                with pytest.raises(TransportError, match="Rename it"):
                    transport.copy(str(run), [entry], RUN, control=FREE)
            else:
                transport.copy(str(run), [entry], RUN, control=FREE)
                wanted.add(path)
            (run / path).unlink()
        assert set(transport.listing(RUN)) == wanted
        found = transport.read_back(RUN, sorted(wanted), control=FREE).digests
        assert found == {path: hashlib.sha256(data).hexdigest() for path, data in tree(there).items()}
        assert found.keys() == wanted
        transport.set_aside(RUN, sorted(wanted))
        assert transport.listing(RUN) == {}

    def test_a_few_files_arrive_with_their_bytes_and_times_and_nothing_else_does(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        files = {
            "empty.bin": b"",
            "one.bin": b"1",
            "deep/er/and deeper/odd.bin": os.urandom(400_017),
            "large.bin": os.urandom(17 * 1024 * 1024 + 1),
            **{f"many/{n}.tif": os.urandom(n * 37) for n in range(6)},
        }
        fill(run, files)
        os.utime(run / "one.bin", ns=(10**18, 10**18))
        listed = entries(run)
        transport.copy(str(run), listed, RUN, control=FREE)
        assert tree(there) == files
        listing = transport.listing(RUN)
        assert {path: file.size_bytes for path, file in listing.items()} == {e.path: e.size_bytes for e in listed}
        for entry in listed:
            seen_ns = listing[entry.path].mtime_ns
            assert (seen_ns is not None) == self.KEEPS_TIMES
            assert seen_ns is None or abs(seen_ns - entry.mtime_ns) < 2 * 10**9


assert set(dir(RcloneContract)) >= ESSENTIAL
for name in dir(RcloneContract):
    if name.startswith("test_") and name not in ESSENTIAL and name not in dir(WholeRuns):
        setattr(Essentials, name, None)


def assert_full_is_no_success(transport: Transport, run: Path, tiny_root: Path) -> None:
    """For servers that have no word for it."""
    listed = fill(run, {"a.bin": os.urandom(100_000), "b.bin": os.urandom(2_000_000)})
    with pytest.raises(TransportError):
        transport.copy(str(run), listed, RUN, control=FREE)
    assert "b.bin" not in tree(tiny_root / RUN)


class TestLocal(RcloneContract):
    LISTS_AT_ONCE: ClassVar[bool] = True

    HOW_READ: ClassVar[HowRead] = HowRead.PAGE_CACHE
    IS_PAST_CACHE: ClassVar[bool] = False

    @pytest.fixture
    def remote(self, rclone_local: RcloneRemote) -> RcloneRemote:
        return rclone_local


class ShowsLate(Essentials):
    """rclone's own servers may show a file that they have just taken in as absent or shorter for a moment.

    rclone then says that a file was corrupted on its way, or that one that it has just renamed is not there; the push fails,
    and another one follows, as an engine would do.
    """

    def copy_the_rest(self, transport: Transport, run: Path, listed: tuple[FileEntry, ...]) -> None:
        for _ in range(9):
            with suppress(TransportError):
                return super().copy_the_rest(transport, run, listed)
            transport.clear_partials(RUN)
        return super().copy_the_rest(transport, run, listed)

    def replace(self, transport: Transport, run: Path, files: tuple[FileEntry, ...], instead: dict[str, bytes]) -> None:
        for _ in range(9):
            with suppress(TransportError):
                return super().replace(transport, run, files, instead)
        return super().replace(transport, run, files, instead)


class TestSftpOfRclone(ShowsLate):
    @pytest.fixture
    def remote(self, rclone_sftp: RcloneRemote) -> RcloneRemote:
        return rclone_sftp


class TestSftpOfSshd(Essentials):
    @pytest.fixture
    def remote(self, rclone_sshd: RcloneRemote) -> RcloneRemote:
        return rclone_sshd


class TestWebdav(Essentials):
    """A server that keeps no times, and neither says how full it is nor that it is."""

    KEEPS_TIMES: ClassVar[bool] = False

    def test_a_full_destination_says_so_and_keeps_no_half_file(self, run: Path, tiny_root: Path) -> None:
        assert_full_is_no_success(self.make(tiny_root), run, tiny_root)

    @pytest.fixture
    def remote(self, rclone_webdav: RcloneRemote) -> RcloneRemote:
        return rclone_webdav


class TestFtp(ShowsLate):
    KEEPS_TIMES: ClassVar[bool] = False
    NAMES_IT_CANNOT_CARRY: ClassVar[frozenset[str]] = CONTROLS | {"spaces"}

    @pytest.fixture
    def remote(self, rclone_ftp: RcloneRemote) -> RcloneRemote:
        return rclone_ftp


class TestS3(Essentials):
    """An object store: no folders, no links, no word for "full", and times that cost a request for each file."""

    KEEPS_TIMES: ClassVar[bool] = False

    test_a_link_under_a_files_name_is_never_written_through = None  # type: ignore[assignment]
    test_a_link_under_a_folders_name_leads_nowhere = None  # type: ignore[assignment]

    def test_a_root_that_is_not_there_is_unreachable_and_is_not_made(self, root: Path) -> None:
        """There the bucket is what must be there; a folder is only a part of names."""
        transport = Destination(RcloneFarSide(RcloneTarget(self._remote.name, "no-bucket/x", str(self._remote.config))))
        self._transports.append(transport)
        with pytest.raises(DestinationUnreachableError):
            transport.bind()
        assert not (self._remote.root.parent / "no-bucket").exists()

    def test_a_full_destination_says_so_and_keeps_no_half_file(self, run: Path, tiny_root: Path) -> None:
        assert_full_is_no_success(self.make(tiny_root), run, tiny_root)

    @pytest.fixture
    def remote(self, rclone_s3: RcloneRemote) -> RcloneRemote:
        return rclone_s3


class TestSmb(RcloneContract):
    NAMES_IT_CANNOT_CARRY: ClassVar[frozenset[str]] = CONTROLS | {
        "spaces",
        "quotes",
        "hash, semicolon, bracket",
        "backslash",
    }

    @pytest.fixture
    def remote(self, rclone_smb: RcloneRemote) -> RcloneRemote:
        return rclone_smb


# --- what only it promises ---------------------------------------------------------------------------------------------


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    nas = tmp_path / "nas"
    nas.mkdir()
    return nas


@pytest.fixture
def conf(tmp_path: Path, nas: Path) -> Path:
    conf = tmp_path / "rclone.conf"
    conf.write_text(f"[other]\ntype = local\n\n[lab]\ntype = alias\nremote = {nas}\n", encoding="utf-8")
    return conf


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "children")
    yield children
    children.close()


MADE: list[Destination] = []


@pytest.fixture(autouse=True)
def _made_are_closed() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def make(
    conf: Path, children: Children, path: str = "root", *, stream_bytes_max: int | None = None, **more: object
) -> Destination:
    far = RcloneFarSide(RcloneTarget("lab", path, str(conf)), children=children, **more)  # type: ignore[arg-type]
    MADE.append(Destination(far, stream_bytes_max=stream_bytes_max))
    return MADE[-1]


def daemon_of(transport: Destination) -> daemon.RcloneDaemon:
    assert isinstance(transport.way, RcloneFarSide)
    return transport.way.remote.daemon


def test_rclone_gets_a_private_copy_of_the_sections_it_needs(conf: Path, nas: Path, children: Children) -> None:
    (nas / "root").mkdir()
    before = conf.read_bytes()
    make(conf, children).round_trip()
    copies = list(children.private_folder().glob("*.conf"))
    assert [copy.stat().st_mode & 0o777 for copy in copies] == [0o600]
    assert "[lab]" in copies[0].read_text()
    assert "[other]" not in copies[0].read_text()
    assert conf.read_bytes() == before
    folder = children.private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    children.close()
    assert not folder.exists()


def test_a_changed_config_holds_from_the_next_probe_on(
    conf: Path, nas: Path, children: Children, tmp_path: Path
) -> None:
    (nas / "root").mkdir()
    transport = make(conf, children)
    transport.round_trip()
    conf.write_text(conf.read_text().replace(str(nas), str(tmp_path / "elsewhere")))
    with pytest.raises(DestinationUnreachableError):
        transport.round_trip()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not there"),
        ("[other]\ntype = local\n", r"has no remote \[lab\]"),
        ("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA", "is encrypted"),
    ],
)
def test_a_config_that_cannot_serve_is_said_in_a_sentence(
    conf: Path, children: Children, text: str | None, words: str
) -> None:
    conf.unlink()
    if text is not None:
        conf.write_text(text)
    with pytest.raises(DestinationUnreachableError, match=words):
        make(conf, children).bind()


def all_that_is_said(lab: Lab, run: Path, *words: str) -> list[str]:
    """Fail unless the lane waits at no attempt's cost and `problems` has the words; return all that anybody gets to read."""
    with lab.running():
        until(lambda: lab.live()["lanes"]["SCOPE_01"]["waiting_since"], "the lane waits", wait_s=60)
        assert (lab.record(run)["state"], lab.record(run)["attempts"]) == ("queued", 0)
        problem = lab.cli("problems", "--json").problems[0]["sentence"]
        assert [word for word in words if word not in problem] == [], problem
        said = [lab.cli(*command).out for command in (("problems",), ("status",), ("show", str(run)), ("check",))]
    files = [path for path in lab.state.rglob("*") if path.is_file()]
    assert lab.state / "live.json" in files
    return [problem, *said, *(path.read_bytes().decode("utf-8", "replace") for path in files), lab.log()]


CANARY = "canary-pa55word-canary"


@pytest.mark.parametrize(
    ("fixture", "members", "more"),
    [
        ("rclone_webdav", {"pass": CANARY}, ""),
        ("rclone_webdav", {"bearer_token": "plain " + CANARY, "user": "", "pass": ""}, ""),
        ("rclone_smb", {"pass": CANARY, "token": f'{{"access_token": "{CANARY}"}}'}, ""),
        ("rclone_sftp", {"pass": CANARY}, "crypt"),
    ],
    ids=["webdav", "bearer token", "OAuth token", "crypt"],
)
def test_a_server_that_does_not_let_us_in_is_told_with_the_next_step_and_no_secret_is(
    fixture: str, members: dict[str, str], more: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remote: RcloneRemote = request.getfixturevalue(fixture)
    members = {name: obscured(value) if value == CANARY else value for name, value in members.items()}
    remote = remote.changed(tmp_path / "rclone", **members)
    transport = dict(remote.place(tmp_path.name).transport)
    hidden = [CANARY, *remote.secrets, *(value for name, value in members.items() if value and name == "pass")]
    if more:
        hidden += [obscured(CANARY + "1"), obscured(CANARY + "2")]
        with remote.config.open("a", encoding="utf-8") as file:
            file.write(f"[lab-crypt]\ntype = crypt\nremote = {remote.name}:{transport['rclone_remote_path']}\n")
            file.write(f"password = {hidden[-2]}\npassword2 = {hidden[-1]}\n")
        transport |= {"rclone_remote": "lab-crypt", "rclone_remote_path": "x"}
    lab = Lab(tmp_path / "lab", Equipment(place=Place(transport, tmp_path)))
    said = all_that_is_said(
        lab, lab.new_run(), "does not let us in", f"[{transport['rclone_remote']}] in {remote.config}"
    )
    assert not [(secret, text) for secret in hidden for text in said if secret in text]


def test_an_rclone_that_is_too_old_keeps_the_lane_waiting_with_the_way_to_get_another(
    rclone_local: RcloneRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path / "lab", Equipment(place=rclone_local.place(tmp_path.name)))
    program = an_old_rclone(tmp_path)
    monkeypatch.setattr(daemon, "find_program", lambda *_, **__: str(program))
    lab.new_run()
    run_to_rest(lab)
    lane = lab.live()["lanes"]["SCOPE_01"]
    assert lane["waiting_since"]
    assert re.search(r"too old.*pip install exlab-watch-agent\[rclone\]", lane["waiting_reason"])


def test_a_line_break_above_a_run_is_named_as_what_rclone_cannot_open(
    rclone_local: RcloneRemote, tmp_path: Path
) -> None:
    lab = Lab(tmp_path / "lab", Equipment(place=rclone_local.place(tmp_path.name)))
    run = lab.new_run(project="P\nQ", validation_overrides=[override("illegal_filesystem_character")])
    run_to_rest(lab)
    assert "rclone does not open names with line breaks" in lab.record(run)["last_error"]["message"], lab.record(run)


def test_an_sftp_remote_without_known_hosts_is_warned_of(tmp_path: Path, children: Children) -> None:
    conf = tmp_path / "rclone.conf"
    conf.write_text("[lab]\ntype = alias\nremote = inner:x\n\n[inner]\ntype = sftp\nhost = 127.0.0.1\n")
    notes = make(conf, children).check_tools()
    assert notes[0].startswith("rclone 1.")
    assert "known_hosts_file" in notes[1]
    conf.write_text(conf.read_text() + "known_hosts_file = /x\n")
    assert len(make(conf, children).check_tools()) == 1


def an_old_rclone(folder: Path) -> Path:
    program = folder / "rclone-old"
    program.write_text("#!/bin/sh\necho rclone v1.60.1-DEV\n")
    program.chmod(0o755)
    return program


def test_an_rclone_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = an_old_rclone(tmp_path)
    monkeypatch.setattr(daemon, "find_program", lambda *_, **__: str(program))
    with pytest.raises(TransportError, match=r"1\.60\.1.*too old.*pip install") as caught:
        daemon.rclone_program()
    assert caught.value.kind is FailureKind.BINARY_MISSING


def test_rclone_killed_in_the_middle_leaves_no_part_and_the_next_push_completes(
    conf: Path, nas: Path, children: Children, tmp_path: Path
) -> None:
    (nas / "root").mkdir()
    run = tmp_path / "run"
    run.mkdir()
    listed = fill(run, {"a.bin": os.urandom(6_000_000), "b.bin": os.urandom(10)})
    transport = make(conf, children)
    transport.round_trip()
    child = daemon_of(transport)._child
    assert child is not None

    def kill(progress: Progress) -> None:
        if progress.bytes_done > 0:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(TransportError):
        transport.copy(str(run), listed, RUN, control=Control(report=kill, rate_bytes_per_s=lambda: 2e6))
    there = nas / "root" / RUN
    assert "a.bin" not in tree(there)
    assert any(name.endswith(".exlab-partial") for name in tree(there)), "or the kill came before it wrote"
    transport.clear_partials(RUN)
    assert not any(name.endswith(".exlab-partial") for name in tree(there))
    missing = [entry for entry in listed if entry.path not in transport.listing(RUN)]
    transport.copy(str(run), missing, RUN, control=FREE)
    assert tree(there) == tree(run)


def test_a_push_that_moves_nothing_is_ended_as_network(
    conf: Path, nas: Path, children: Children, tmp_path: Path
) -> None:
    (nas / "root" / RUN).mkdir(parents=True)
    run = tmp_path / "run"
    run.mkdir()
    listed = fill(run, {"a.bin": os.urandom(6_000_000)})
    transport = make(conf, children, stall_s=1.0)
    transport.round_trip()
    child = daemon_of(transport)._child
    assert child is not None
    has_moved = threading.Event()

    def stop(_: Progress) -> None:
        if not has_moved.is_set():
            has_moved.set()
            # The link is silent: rclone is there and answers, and no byte moves.
            Requests(daemon_of(transport)).call("core/bwlimit", {"rate": "1B"})

    with pytest.raises(TransportError, match="moved no byte") as caught:
        transport.copy(str(run), listed, RUN, control=Control(report=stop, rate_bytes_per_s=lambda: 2e6))
    assert caught.value.kind is FailureKind.NETWORK
    transport.clear_partials(RUN)
    assert tree(nas / "root" / RUN) == {}


def test_a_file_that_cannot_be_read_back_is_no_missing_file(
    rclone_sshd: RcloneRemote, sshd_ordinary_user: SshServer, children: Children, tmp_path: Path
) -> None:
    remote = rclone_sshd.changed(
        tmp_path, port=str(sshd_ordinary_user.port), user=sshd_ordinary_user.user,
        key_file=str(sshd_ordinary_user.key), known_hosts_file=str(sshd_ordinary_user.known_hosts),
    )  # fmt: skip
    root = sshd_ordinary_user.place(tmp_path.name).root
    fill(root / "run", {"a.bin": b"a", "secret.bin": b"secret"})
    (root / "run" / "secret.bin").chmod(0)
    transport = Destination(RcloneFarSide(RcloneTarget(remote.name, str(root), str(remote.config)), children=children))
    MADE.append(transport)
    assert transport.read_back("run", ["a.bin", "gone.bin"], control=FREE).digests.keys() == {"a.bin"}
    with pytest.raises(TransportError, match="permission denied") as caught:
        transport.read_back("run", ["a.bin", "secret.bin", "gone.bin"], control=FREE)
    assert caught.value.kind is FailureKind.AUTH


def test_what_is_not_there_is_left_out_of_the_proof_however_soon_rclone_is_asked_how_it_goes(
    conf: Path, nas: Path, children: Children
) -> None:
    """rclone counts a folder that it is to hash as an error, and says so before its answer says which it was."""
    fill(nas / "root" / RUN, {"folder/a.bin": b"a", **{f"{n}.bin": os.urandom(200_000) for n in range(50)}})
    transport = make(conf, children, pace=Pace(look_every_s=0.001))
    names = [f"{n}.bin" for n in range(50)]
    for _ in range(5):
        assert sorted(transport.read_back(RUN, ["folder", "gone.bin", *names], control=FREE).digests) == sorted(names)


class LaterClock(SystemClock):
    """The system's, or so much later."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


def test_connections_that_rclone_closes_because_nobody_uses_them_are_no_sign_that_it_is_away(
    conf: Path, nas: Path, children: Children
) -> None:
    """rclone closes what lies idle for a minute. Here they are cut, which looks the same to whoever takes one up again."""
    (nas / "root").mkdir()
    clock = LaterClock()
    transport = make(conf, children, clock=clock)
    marker_id = transport.bind()
    daemon = daemon_of(transport)
    idle = [daemon.take() for _ in range(3)]
    for connection in idle:
        if connection.sock is None:
            connection.connect()
        daemon.give_back(connection)
    for connection in idle:
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
    clock.ahead_s = PACE.idle_s
    transport.require_marker(expected_marker_id=marker_id)


def test_data_with_a_name_like_a_part_on_its_way_are_refused_and_never_cleared(
    conf: Path, nas: Path, children: Children, tmp_path: Path
) -> None:
    (nas / "root").mkdir()
    run = tmp_path / "run"
    run.mkdir()
    ours = "a.bin.0123abcd.exlab-partial"
    listed = fill(run, {ours: b"x", "b.0123abcd.partial": b"theirs", "c.exlab-partial": b"theirs"})
    transport = make(conf, children)
    with pytest.raises(TransportError, match="Rename"):
        transport.copy(str(run), listed, RUN, control=FREE)
    transport.copy(str(run), [entry for entry in listed if entry.path != ours], RUN, control=FREE)
    transport = make(conf, children)
    transport.clear_partials(RUN)
    assert tree(nas / "root" / RUN) == {"b.0123abcd.partial": b"theirs", "c.exlab-partial": b"theirs"}


def test_small_files_that_are_replaced_do_not_hide_what_a_killed_push_left(
    conf: Path, nas: Path, children: Children, tmp_path: Path
) -> None:
    """A push that is repeated replaces the cache folder first, and clears only then."""
    (nas / "root").mkdir()
    run = tmp_path / "run"
    small = {".exlab-wizard/creation.json": b"{}"}
    fill(run, small)
    fill(nas / "root" / RUN, {"a.bin.0123abcd.exlab-partial": b"half"})
    transport = make(conf, children)
    transport.replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)
    transport.clear_partials(RUN)
    assert tree(nas / "root" / RUN) == small


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("dial tcp 127.0.0.1:1: connect: connection refused", FailureKind.NETWORK),
        ("dial tcp 10.0.0.1:22: connect: no route to host", FailureKind.NETWORK),
        ("lookup nas.invalid: no such host", FailureKind.NETWORK),
        ("read tcp: i/o timeout", FailureKind.NETWORK),
        ("couldn't connect SSH: ssh: handshake failed: EOF", FailureKind.NETWORK),
        ("ssh: handshake failed: ssh: unable to authenticate, attempted methods [none password]", FailureKind.AUTH),
        ("ssh: handshake failed: knownhosts: key mismatch", FailureKind.AUTH),
        ("update stor: 530 Login incorrect", FailureKind.AUTH),
        ("sftp: permission denied", FailureKind.AUTH),
        ("response error: The attempted logon is invalid", FailureKind.AUTH),
        ("open /x: read-only file system", FailureKind.AUTH),
        ("write /x: no space left on device", FailureKind.DESTINATION_FULL),
        ("Insufficient Storage: 507", FailureKind.DESTINATION_FULL),
        ('sftp: "preallocate: file too big for remaining disk space" (SSH_FX_FAILURE)', FailureKind.DESTINATION_FULL),
        ("response error: An operation failed because the disk was full", FailureKind.DESTINATION_FULL),
        ("something nobody has seen", FailureKind.UNKNOWN),
    ],
)
def test_what_an_error_of_rclone_means(words: str, kind: FailureKind) -> None:
    assert failure_kind(words) is kind


def test_a_remote_hash_is_believed_only_where_the_server_reads_the_bytes_and_has_shown_that_it_hashes_right(
    conf: Path, nas: Path, children: Children, rclone_sshd: RcloneRemote, rclone_smb: RcloneRemote, tmp_path: Path
) -> None:
    def bound(remote: RcloneRemote) -> int | None:
        place = remote.place(tmp_path.name).transport
        target = RcloneTarget(place["rclone_remote"], place["rclone_remote_path"], place["rclone_config"])
        transport = Destination(RcloneFarSide(target, children=children), stream_bytes_max=7)
        try:
            transport.bind()
            return transport.digest_bytes_max()
        finally:
            transport.close()

    (nas / "root").mkdir()
    assert make(conf, children, stream_bytes_max=7).digest_bytes_max() is None
    assert bound(rclone_sshd) is None
    assert bound(rclone_smb) == 7
    for number, program in enumerate(("sha1sum", "/no/such/program", "echo " + "0" * 64 + " ")):
        assert bound(rclone_sshd.changed(tmp_path / f"{number}", sha256sum_command=program)) == 7


# --- a foreign file that comes while a push runs ---------------------------------------------------------------------


def to(remote: RcloneRemote, children: Children, name: str, **bounds: int) -> tuple[Destination, Path]:
    """Return a transport with these bounds to a new folder of the remote, and that folder."""
    place = remote.place(name)
    block = place.transport
    target = RcloneTarget(block["rclone_remote"], block["rclone_remote_path"], block["rclone_config"])
    MADE.append(Destination(RcloneFarSide(target, children=children, **bounds)))  # type: ignore[arg-type]
    return MADE[-1], place.root


@dataclass
class Stranger:
    """Puts a file of its own under a name as soon as the push has moved something, and never over another one."""

    path: Path
    data: bytes
    after_files: int = 0
    has_come: bool = False

    def control(self, rate_bytes_per_s: float) -> Control:
        return Control(report=self.see, rate_bytes_per_s=lambda: rate_bytes_per_s)

    def see(self, progress: Progress) -> None:
        if not self.has_come and progress.bytes_done and progress.files_done >= self.after_files:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("xb") as file:
                file.write(self.data)
            self.has_come = True


def assert_taken_and_completed(
    transport: Destination, run: Path, listed: tuple[FileEntry, ...], root: Path, stranger: Stranger, rate: float
) -> None:
    """The push fails with the sentence, the stranger's bytes stay, and once they are moved aside the next one completes."""
    there = root / RUN
    taken = str(stranger.path.relative_to(there))
    with pytest.raises(TransportError, match=f"{taken!r} in {RUN!r} at .* exists already and is never replaced"):
        transport.copy(str(run), listed, RUN, control=stranger.control(rate))
    assert stranger.has_come
    assert stranger.path.read_bytes() == stranger.data
    arrived = tree(there)
    files = tree(run)
    assert {path for path, data in arrived.items() if files.get(path) != data} == {taken}, "no part is left behind"
    transport.clear_partials(RUN)
    transport.set_aside(RUN, [taken])
    missing = [entry for entry in listed if entry.path not in transport.listing(RUN)]
    transport.copy(str(run), missing, RUN, control=FREE)
    assert tree(there) == files
    assert (root / ".exlab-superseded" / RUN / "1" / taken).read_bytes() == stranger.data


@pytest.mark.parametrize("bound", ["files", "bytes"])
@pytest.mark.parametrize("fixture", ["rclone_local", "rclone_sftp", "rclone_sshd", "rclone_webdav", "rclone_s3"])
def test_a_file_that_somebody_else_puts_under_a_name_of_a_later_batch_is_never_overwritten(
    fixture: str, bound: str, children: Children, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bounds = {"batch_files": 2} if bound == "files" else {"batch_bytes": 400_000}
    transport, root = to(request.getfixturevalue(fixture), children, tmp_path.name, **bounds)
    run = tmp_path / "run"
    listed = fill(run, {f"d/{n}.bin": os.urandom(200_000) for n in range(8)})
    transport.round_trip()
    stranger = Stranger(root / RUN / "d" / "7.bin", b"the only copy")
    assert_taken_and_completed(transport, run, listed, root, stranger, 1e6)


@pytest.mark.parametrize("fixture", ["rclone_local", "rclone_sftp", "rclone_sshd", "rclone_webdav", "rclone_smb"])
@pytest.mark.parametrize("which", ["only", "other"])
def test_a_file_that_somebody_else_puts_under_a_large_files_name_while_it_is_copied_is_never_overwritten(
    fixture: str, which: str, children: Children, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    transport, root = to(request.getfixturevalue(fixture), children, tmp_path.name, large_bytes=300_000)
    run = tmp_path / "run"
    names = ["d/a.bin"] if which == "only" else ["d/a.bin", "d/b.bin", "d/c.bin", "d/d.bin"]
    # At a megabyte a second: long enough for a stranger to come in the middle, on a busy machine too.
    size_bytes = 2_000_000 // len(names)
    listed = fill(run, {name: os.urandom(size_bytes) for name in names})
    transport.round_trip()
    stranger = Stranger(root / RUN / names[-1], os.urandom(size_bytes))
    assert_taken_and_completed(transport, run, listed, root, stranger, 1e6)


def test_where_files_cannot_be_renamed_large_ones_are_looked_for_a_few_at_a_time(
    rclone_s3: RcloneRemote, children: Children, tmp_path: Path
) -> None:
    transport, root = to(rclone_s3, children, tmp_path.name, large_bytes=100_000)
    run = tmp_path / "run"
    listed = fill(run, {f"{n}.bin": os.urandom(300_000) for n in range(6)})
    transport.round_trip()
    stranger = Stranger(root / RUN / "5.bin", b"the only copy")
    assert_taken_and_completed(transport, run, listed, root, stranger, 1e6)


def test_the_name_that_was_taken_is_found_among_many(
    rclone_local: RcloneRemote, children: Children, tmp_path: Path
) -> None:
    """rclone remembers the latest hundred files only, and what it passed over comes first."""
    transport, root = to(rclone_local, children, tmp_path.name, batch_files=150)
    run = tmp_path / "run"
    files = {"0.bin": os.urandom(2_000_000), **{f"{n:03d}.bin": os.urandom(10) for n in range(1, 300)}}
    listed = fill(run, files)
    transport.round_trip()
    stranger = Stranger(root / RUN / "160.bin", b"the only copy")
    assert_taken_and_completed(transport, run, listed, root, stranger, 2e6)


def test_a_push_that_fits_into_one_batch_asks_rclone_to_copy_once(
    rclone_local: RcloneRemote, children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands there was looked for a moment before; each request more costs every run."""
    transport, root = to(rclone_local, children, tmp_path.name)
    run = tmp_path / "run"
    listed = fill(run, {f"{n}.bin": os.urandom(1000) for n in range(10)})
    transport.round_trip()
    asked: list[str] = []
    call = Requests.call

    def seen(self: Requests, path: str, parameters: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        asked.append(path)
        return call(self, path, parameters, **more)

    monkeypatch.setattr(Requests, "call", seen)
    transport.copy(str(run), listed, RUN, control=FREE)
    assert tree(root / RUN) == tree(run)
    to_the_server = [path for path in asked if path.startswith(("operations/", "sync/", "job/"))]
    assert to_the_server == ["operations/list", "sync/copy"]
