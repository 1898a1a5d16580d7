"""The transport for servers that allow rsync only: the contract behind rrsync, where it differs, and how it is chosen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local.digests import LocalDigester
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.rsync.by_rsync import RsyncOnlyFarSide
from exlab_watch_agent.adapters.transports.rsync.by_shell import ShellFarSide
from exlab_watch_agent.adapters.transports.rsync.ssh_login import NoShellError
from exlab_watch_agent.adapters.transports.rsync.way import RsyncWay
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.errors import (
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import Control, Transport
from tests.adapters.transports.contract import (
    CLAIM,
    FREE,
    MARKER,
    ODD_NAMES,
    RUN,
    TransportContract,
    entries,
    fill,
    tree,
)
from tests.adapters.transports.rsync.behind_rrsync import BehindRrsync
from tests.lab.servers import Place, SshServer


def without_probe(found: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the one file that cannot be removed."""
    probes = [path for path in found if path.startswith(".exlab-watch-agent/probe-")]
    assert len(probes) <= 1
    return {path: data for path, data in found.items() if path not in probes}


class TestContractBehindRrsync(BehindRrsync, TransportContract):
    @pytest.fixture
    def tiny_root(self, root: Path) -> Iterator[Path]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=True)
        yield root
        subprocess.run(["umount", "--lazy", str(root)], check=True)

    # rsync itself gives a file its name: see the file that changed while it was sent, below.
    test_a_source_that_changes_while_it_is_copied_gets_no_final_name = None  # type: ignore[assignment]

    # --- where it differs, and says so -------------------------------------------------------------------------------

    def test_first_use_leaves_a_marker_whose_id_is_the_same_ever_after(self, root: Path) -> None:
        first = self.make(root).bind()
        assert len(first) == 32
        assert self.make(root).bind() == first
        self.make(root).probe(expected_marker_id=first)
        assert list(without_probe(tree(root))) == [MARKER]

    def test_a_missing_marker_is_an_unmounted_share_and_nothing_is_written_there(self, root: Path) -> None:
        transport = self.make(root)
        known = transport.bind()
        (root / MARKER).unlink()
        before = tree(root)
        with pytest.raises(DestinationUnreachableError, match="may not be mounted") as caught:
            transport.probe(expected_marker_id=known)
        assert transport.describe() in str(caught.value)
        assert tree(root) == before

    @pytest.mark.parametrize("garbled", [b"", b"[" * 10_000])
    @pytest.mark.parametrize("is_known", [True, False])
    def test_a_garbled_marker_is_neither_believed_nor_replaced(
        self, root: Path, transport: Transport, garbled: bytes, is_known: bool
    ) -> None:
        super().test_a_garbled_marker_is_neither_believed_nor_replaced(root, transport, garbled, is_known)

    test_an_odd_name_is_just_a_name = None  # type: ignore[assignment]

    def test_odd_names_are_just_names(self, run: Path, there: Path, transport: Transport) -> None:
        names = [os.fsdecode(name) for name in ODD_NAMES.values()]
        listed = fill(run, {path: b"file" for name in names for path in (name, f"folder/{name}/{name}")})
        transport.place_claim(RUN, CLAIM)
        transport.copy(str(run), listed, RUN, control=FREE)
        paths = sorted(entry.path for entry in listed)
        assert sorted(transport.listing(RUN)) == paths
        assert transport.read_back(RUN, paths, control=FREE).digests == LocalDigester().digests(
            str(run), listed, control=FREE
        )
        for name in names:
            (there / name).write_bytes(b"rot!")
        transport.set_aside(RUN, names)
        assert sorted(transport.listing(RUN)) == sorted(set(paths) - set(names))
        transport.copy(str(run), [entry for entry in listed if entry.path in names], RUN, control=FREE)
        assert tree(there.parents[2] / ".exlab-superseded" / RUN / "1") == dict.fromkeys(names, b"rot!")
        assert {name: (there / name).read_bytes() for name in names} == dict.fromkeys(names, b"file")

    test_what_makes_room_is_kept_under_the_first_free_number = None  # type: ignore[assignment]

    def test_what_makes_room_is_kept_under_the_first_free_number_once_the_right_bytes_come(
        self, run: Path, root: Path, there: Path, transport: Transport
    ) -> None:
        listed = fill(run, {"a.bin": b"A", "sub/b.bin": b"B"})
        fill(there, {"a.bin": b"1", "sub/b.bin": b"2", "c.bin": b"3"})
        transport.set_aside(RUN, ["a.bin", "sub/b.bin", "gone.bin", "no/where"])
        assert tree(there) == {"a.bin": b"1", "sub/b.bin": b"2", "c.bin": b"3"}, "until the right bytes come"
        assert list(transport.listing(RUN)) == ["c.bin"]
        transport.copy(str(run), listed, RUN, control=FREE)
        assert tree(there) == {"a.bin": b"A", "sub/b.bin": b"B", "c.bin": b"3"}
        (there / "a.bin").write_bytes(b"4")
        transport.set_aside(RUN, iter(["a.bin"]))
        transport.copy(str(run), listed[:1], RUN, control=FREE)
        transport.set_aside(RUN, ["gone.bin"])
        transport.set_aside(RUN, [])
        assert tree(root / ".exlab-superseded" / RUN) == {"1/a.bin": b"1", "1/sub/b.bin": b"2", "2/a.bin": b"4"}

    def test_a_folder_under_a_files_name_cannot_make_room(self, there: Path, transport: Transport) -> None:
        (there / "a.bin").mkdir(parents=True)
        with pytest.raises(TransportError, match="move it away"):
            transport.set_aside(RUN, ["a.bin"])
        assert (there / "a.bin").is_dir()

    @pytest.mark.parametrize("what", ["link", "file"])
    def test_nothing_that_stands_where_a_folder_must_be_is_removed(
        self, run: Path, root: Path, transport: Transport, tmp_path: Path, what: str
    ) -> None:
        """rsync itself would remove a link or a file to make a folder, here of the cache folder and of the run's own."""
        listed = fill(run, {".exlab-wizard/creation.json": b"{}", "a": b"a"})
        outside = tmp_path / "outside"
        outside.mkdir()
        for odd in (root / RUN / ".exlab-wizard", root / "PROJ-0043/Runs/R"):
            odd.parent.mkdir(parents=True)
            if what == "link":
                odd.symlink_to(outside)
            else:
                odd.write_bytes(b"theirs")
        with pytest.raises(TransportError, match="folder must be"):
            transport.place_claim(RUN, CLAIM)
        cache = [FileEntry(".exlab-wizard/creation.json", 2, 0)]
        with pytest.raises(TransportError, match="folder must be"):
            transport.replace(str(run), cache, RUN, control=FREE)
        with pytest.raises(TransportError, match="folder must be"):
            transport.copy(str(run), [e for e in listed if e.path == "a"], "PROJ-0043/Runs/R", control=FREE)
        for odd in (root / RUN / ".exlab-wizard", root / "PROJ-0043/Runs/R"):
            assert odd.is_symlink() if what == "link" else odd.read_bytes() == b"theirs"
        assert not list(outside.iterdir())

    @pytest.mark.parametrize("behind", ["Runs/R/.exlab-wizard", "Runs/R", "Runs", ""])
    def test_a_link_on_the_way_stays_whatever_is_behind_it(
        self, run: Path, root: Path, transport: Transport, tmp_path: Path, behind: str
    ) -> None:
        """A project that was moved to another disk of the NAS, with a link left in its place, which rsync would remove."""
        listed = fill(run, {"a": b"a"})
        moved = tmp_path / "moved"
        (moved / behind).mkdir(parents=True)
        (moved / "theirs").write_bytes(b"theirs")
        (root / "PROJ-0043").symlink_to(moved)
        with pytest.raises(TransportError, match="link"):
            transport.write_small("PROJ-0043/Runs/R/evidence", b"evidence")
        assert (root / "PROJ-0043").is_symlink()
        with pytest.raises(TransportError, match="link"):
            transport.place_claim("PROJ-0043/Runs/R", CLAIM)
        assert (root / "PROJ-0043").is_symlink()
        with pytest.raises(TransportError, match="link"):
            transport.copy(str(run), listed, "PROJ-0043/Runs/R", control=FREE)
        assert (root / "PROJ-0043").is_symlink()
        assert [path.name for path in moved.rglob("*") if path.is_file()] == ["theirs"]

    @pytest.mark.parametrize("path", ["PROJ [1]/Runs/R", "P\\J/Runs/R", "P{a,b}/R", "P*/R", "P\u00a0J/R", "P\nJ/R"])
    def test_a_folder_whose_path_may_be_read_otherwise_is_refused(
        self, run: Path, root: Path, transport: Transport, path: str
    ) -> None:
        listed = fill(run, {"a": b"a"})
        with pytest.raises(TransportError, match="Rename"):
            transport.place_claim(path, CLAIM)
        with pytest.raises(TransportError, match="Rename"):
            transport.copy(str(run), listed, path, control=FREE)
        assert tree(root) == {}

    def test_a_file_that_changed_while_it_was_sent_is_said_and_replaced_by_the_next_push(
        self, run: Path, root: Path, there: Path, transport: Transport
    ) -> None:
        listed = fill(run, {"a.bin": b"before", "b.bin": os.urandom(400_000)})

        def rate() -> float:
            if (there / "a.bin").exists():
                (run / "a.bin").write_bytes(b"after it")
            return 200_000.0

        with pytest.raises(SourceChangedError):
            transport.copy(str(run), listed, RUN, control=Control(rate_bytes_per_s=rate))
        assert transport.listing(RUN)["a.bin"].size_bytes == len(b"before")
        transport.set_aside(RUN, ["a.bin"])
        transport.copy(str(run), [e for e in entries(run) if e.path == "a.bin"], RUN, control=FREE)
        assert (there / "a.bin").read_bytes() == b"after it"
        assert tree(root / ".exlab-superseded") == {f"{RUN}/1/a.bin": b"before"}

    def test_a_claim_that_another_agent_replaced_meanwhile_is_seen_after_the_copy(
        self, run: Path, there: Path, transport: Transport
    ) -> None:
        transport.place_claim(RUN, CLAIM)
        path = there / ".exlab-wizard/exlab-watch-agent.json"
        path.write_bytes(path.read_bytes().replace(b"job-1", b"job-2"))
        with pytest.raises(DestinationOccupiedError):
            transport.copy(str(run), fill(run, {"a": b"a"}), RUN, control=FREE)

    def test_a_root_that_is_not_there_says_how_rrsync_counts(self, root: Path) -> None:
        root.rmdir()
        with pytest.raises(TransportError, match="rrsync names") as caught:
            self.make(root).listing(RUN)
        assert caught.value.kind is FailureKind.NETWORK

    def test_what_is_larger_than_the_bound_is_said(self, transport: Transport) -> None:
        assert transport.digest_bytes_max() == 1 << 30
        assert transport.free_bytes() is None


# --- which way -----------------------------------------------------------------------------------------------------------


def chosen(server: SshServer, place: Place) -> Destination:
    block: dict[str, Any] = dict(place.transport)
    target = RsyncSshTarget(
        block["ssh_target"], block["ssh_port"], block["ssh_key_path"], block["known_hosts"], block["remote_path"]
    )
    return Destination(RsyncWay(target))


@pytest.mark.parametrize(
    ("fixture", "way"),
    [("sshd", ShellFarSide), ("sshd_bare", RsyncOnlyFarSide), ("sshd_rrsync", RsyncOnlyFarSide)],
)
def test_the_way_is_what_the_account_allows(
    fixture: str, way: type, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: SshServer = request.getfixturevalue(fixture)
    place = server.place(f"{tmp_path.name} way")
    transport = chosen(server, place)
    run = tmp_path / "run"
    try:
        transport.round_trip()
        assert isinstance(transport.way.chosen(), way)
        assert "rsync" in transport.check_tools()[0]
        transport.copy(str(run), fill(run, {"a": b"a"}), RUN, control=FREE)
        assert tree(place.root / RUN) == {"a": b"a"}
    finally:
        transport.close()


def test_an_account_that_allows_neither_is_refused_with_another_way(sshd_sftp_only: SshServer, tmp_path: Path) -> None:
    place = sshd_sftp_only.place(tmp_path.name)
    transport = chosen(sshd_sftp_only, place)
    try:
        with pytest.raises(NoShellError, match="rclone"):
            transport.listing(RUN)
        with pytest.raises(DestinationUnreachableError, match="rclone"):
            transport.bind()
    finally:
        transport.close()
    assert list(place.root.iterdir()) == []
