"""The transport rsync over ssh: the contract on several targets, and what only it promises."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.rsync import target_folder
from exlab_watch_agent.adapters.transports.rsync.by_shell import ShellFarSide
from exlab_watch_agent.adapters.transports.rsync.target_folder import TargetFolder
from exlab_watch_agent.adapters.transports.rsync.target_tools import NEEDED
from exlab_watch_agent.core.passes import HowRead
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.errors import DestinationUnreachableError, FailureKind, TransportError
from exlab_watch_agent.ports import Control, Transport
from tests.adapters.transports.contract import FREE, RUN, TransportContract, fill, tree
from tests.adapters.transports.whole_runs import WholeRuns
from tests.lab.disks import read_only
from tests.lab.links import Link
from tests.lab.servers import SshServer, free_port, program, running_sshd


def source_of(server: SshServer, root: Path, *, stream_bytes_max: int | None = None, **more: object) -> str:
    """Return Python source whose last line binds `transport`."""
    options = "".join(f", {name}={value!r}" for name, value in more.items())
    return (
        "from exlab_watch_agent.adapters.transports.destination import Destination\n"
        "from exlab_watch_agent.adapters.transports.rsync.by_shell import ShellFarSide\n"
        "from exlab_watch_agent.core.policy import RsyncSshTarget\n"
        f"target = RsyncSshTarget({server.target!r}, {server.port}, {str(server.key)!r}, "
        f"{str(server.known_hosts)!r}, {str(root)!r})\n"
        f"transport = Destination(ShellFarSide(target{options}), stream_bytes_max={stream_bytes_max})"
    )


class Contract(WholeRuns, TransportContract):
    """Hooks for one server each."""

    HOW_READ: ClassVar[HowRead] = HowRead.SERVER_HASH
    HAS_A_CLOCK: ClassVar[bool] = True
    server: SshServer

    @pytest.fixture(autouse=True)
    def _closing(self) -> Iterator[None]:
        self.made: list[Transport] = []
        yield
        for transport in self.made:
            transport.close()

    def constructor(self, root: Path) -> str:
        return source_of(self.server, root, sampled_from_bytes=0)

    def make(self, root: Path) -> Transport:
        transport = super().make(root)
        self.made.append(transport)
        return transport


class TestContractOnAnOrdinaryServer(Contract):
    @pytest.fixture(autouse=True)
    def _server(self, sshd: SshServer) -> None:
        self.server = sshd


class TestContractOnANasBox(Contract):
    """BusyBox's shell and tools."""

    @pytest.fixture(autouse=True)
    def _server(self, sshd_busybox: SshServer) -> None:
        self.server = sshd_busybox


# --- what only this transport promises -----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "Run_2026-04-17T14-32"
    run.mkdir()
    return run


@pytest.fixture
def make(sshd: SshServer) -> Iterator[Callable[..., Destination]]:
    """A transport to a folder of the ordinary server; named members of its target and options win."""
    made: list[Destination] = []

    def make(root: Path, **more: Any) -> Destination:
        members = {
            "host": sshd.target, "port": sshd.port, "key_path": str(sshd.key), "known_hosts_path": str(sshd.known_hosts),
            "remote_path": str(root),
        }  # fmt: skip
        for name in list(more):
            if name in members:
                members[name] = more.pop(name)
        made.append(Destination(ShellFarSide(RsyncSshTarget(**members), **more)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for transport in made:
        transport.close()


def new_root(tmp_path: Path, name: str = "nas") -> Path:
    root = tmp_path / name
    root.mkdir()
    return root


def refusal(transport: Destination) -> TransportError:
    with pytest.raises(TransportError) as caught:
        transport.listing(RUN)
    with pytest.raises(DestinationUnreachableError) as away:
        transport.bind()
    assert str(caught.value).rstrip(".") in str(away.value)
    return caught.value


def test_nothing_listens(tmp_path: Path, make: Callable[..., Destination]) -> None:
    error = refusal(make(new_root(tmp_path), port=free_port()))
    assert error.kind is FailureKind.NETWORK
    assert "nothing answers on port" in str(error)


def test_a_name_that_the_network_does_not_know(tmp_path: Path, make: Callable[..., Destination]) -> None:
    error = refusal(make(new_root(tmp_path), host="root@no-such-host.invalid"))
    assert error.kind is FailureKind.NETWORK
    assert "not known" in str(error) or "could not" in str(error).lower()


def test_a_key_that_the_server_does_not_know(tmp_path: Path, make: Callable[..., Destination], sshd: SshServer) -> None:
    error = refusal(make(new_root(tmp_path), key_path=str(sshd.stranger_key)))
    assert error.kind is FailureKind.AUTH
    assert "authorized_keys" in str(error)
    assert str(sshd.stranger_key) in str(error)


def test_a_key_that_is_not_there(tmp_path: Path, make: Callable[..., Destination]) -> None:
    error = refusal(make(new_root(tmp_path), key_path=str(tmp_path / "no key")))
    assert error.kind is FailureKind.AUTH


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_host_key_that_is_unknown_or_another_one(
    tmp_path: Path, make: Callable[..., Destination], sshd: SshServer, is_changed: bool
) -> None:
    known_hosts = tmp_path / "known hosts"
    if is_changed:
        other = sshd.stranger_key.with_name("stranger.pub").read_text()
        known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {other}")
    error = refusal(make(new_root(tmp_path), known_hosts_path=str(known_hosts)))
    assert error.kind is FailureKind.AUTH
    assert ("ssh-keygen -f" if is_changed else "ssh-keyscan") in str(error), "the next step"


def test_odd_paths_of_key_and_known_hosts_and_root_work(
    tmp_path: Path, run: Path, make: Callable[..., Destination], sshd: SshServer
) -> None:
    odd = tmp_path / 'it\'s "odd" 100% $HOME \\ folder'
    odd.mkdir()
    key = odd / "key"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o600)
    (odd / "hosts").write_bytes(sshd.known_hosts.read_bytes())
    root = new_root(odd)
    transport = make(
        root,
        key_path=str(key),
        known_hosts_path=str(odd / "hosts"),
        socket_folder=odd / ("long" * 20),
        is_metered=False,
    )
    listed = fill(run, {"a": b"a"})
    transport.copy(str(run), listed, RUN, control=FREE)
    assert tree(root / RUN) == {"a": b"a"}


def test_a_login_script_that_prints_does_no_harm_to_questions(tmp_path: Path) -> None:
    with running_sshd(
        tmp_path / "chatty", force='/bin/sh -c "echo Welcome to the lab; $SSH_ORIGINAL_COMMAND"'
    ) as server:
        root = new_root(tmp_path)
        names: dict[str, Any] = {}
        exec(source_of(server, root), names)
        transport: Destination = names["transport"]
        try:
            assert transport.bind()
            run = tmp_path / "run"
            run.mkdir()
            with pytest.raises(TransportError, match="login script"):
                transport.copy(str(run), fill(run, {"a": b"a"}), RUN, control=FREE)
        finally:
            transport.close()


def test_a_read_only_target(tmp_path: Path, run: Path, make: Callable[..., Destination]) -> None:
    root = new_root(tmp_path)
    transport = make(root)
    listed = fill(run, {"a": b"a"})
    with read_only(root), pytest.raises(TransportError, match="read") as caught:
        transport.copy(str(run), listed, RUN, control=FREE)
    assert caught.value.kind is FailureKind.AUTH


def test_a_link_that_is_cut_in_mid_file_goes_on_from_the_piece(
    tmp_path: Path, run: Path, make: Callable[..., Destination], sshd: SshServer
) -> None:
    root = new_root(tmp_path)
    data = os.urandom(24_000_000)
    listed = fill(run, {"large.bin": data})
    with Link(sshd.port) as link:
        known_hosts = str(sshd.known_hosts_for(link.port))
        transport = make(
            root, port=link.port, known_hosts_path=known_hosts, is_metered=False, piece_kept_bytes=1024 * 1024
        )
        transport.bind()
        link.cut_after_bytes = link.bytes_up + 16_000_000
        with pytest.raises(TransportError) as caught:
            transport.copy(str(run), listed, RUN, control=FREE)
        assert caught.value.kind is FailureKind.NETWORK
        assert "large.bin" not in tree(root / RUN)
        waiting = root / RUN / ".exlab-partial"
        deadline = time.monotonic() + 30
        while not list(waiting.glob(f"*.push/{target_folder.PIECE_FOLDER}/large.bin")):
            assert time.monotonic() < deadline, "the target's rsync keeps what it has"
            time.sleep(0.05)
        link.mend()
        transport.close()  # a shell whose connection is just going may be asked once more, and fail
        before = link.bytes_up
        transport.clear_partials(RUN)
        transport.copy(str(run), listed, RUN, control=FREE)
        assert link.bytes_up - before < 20_000_000, "not all of it again"
    assert tree(root / RUN) == {"large.bin": data}


def test_a_limit_that_comes_and_goes_in_the_middle_of_a_file_holds_at_once(
    tmp_path: Path, run: Path, make: Callable[..., Destination], sshd: SshServer
) -> None:
    """Counted on the wire: what passed while the limit held, not how long anything took."""
    root = new_root(tmp_path)
    listed = fill(run, {"large.bin": os.urandom(60_000_000)})
    with Link(sshd.port) as link:
        link.rate_up = 20e6
        transport = make(root, port=link.port, known_hosts_path=str(sshd.known_hosts_for(link.port)))
        transport.bind()
        begun = link.bytes_up
        held: list[tuple[float, int]] = []

        def rate() -> float | None:
            sent = link.bytes_up - begun
            if sent < 10_000_000:
                return None
            if not held or held[-1][0] - held[0][0] < 4.0:
                held.append((time.monotonic(), sent))
                return 500_000.0
            return None

        transport.copy(str(run), listed, RUN, control=Control(rate_bytes_per_s=rate))
    settled = [(at, sent) for at, sent in held if at - held[0][0] > 1.5]  # what was on its way before has passed
    seconds, passed = settled[-1][0] - settled[0][0], settled[-1][1] - settled[0][1]
    assert passed <= 500_000 * seconds * 1.5 + 200_000
    assert passed > 0
    assert tree(root / RUN)["large.bin"] == (run / "large.bin").read_bytes()


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_name_that_comes_to_be_while_rsync_runs_is_not_replaced_either(
    tmp_path: Path, run: Path, make: Callable[..., Destination], what: str
) -> None:
    root = new_root(tmp_path)
    listed = fill(run, {"a.bin": os.urandom(200_000), "b/c.bin": b"c"})
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")

    def rate() -> float | None:
        there = root / RUN
        if there.is_dir() and not os.path.lexists(there / "a.bin"):
            if what == "file":
                (there / "a.bin").write_bytes(b"another's")
                (there / "b").mkdir()
                (there / "b" / "other").write_bytes(b"another's")
            elif what == "folder":
                (there / "a.bin").mkdir()
            else:
                (there / "a.bin").symlink_to(victim)
        return 500_000.0

    transport = make(root)
    with pytest.raises(TransportError, match="never replaced") as caught:
        transport.copy(str(run), listed, RUN, control=Control(rate_bytes_per_s=rate))
    assert caught.value.kind is FailureKind.UNKNOWN
    transport.clear_partials(RUN)
    found = tree(root / RUN)
    assert victim.read_bytes() == b"precious"
    if what == "file":
        assert found == {"a.bin": b"another's", "b/other": b"another's"}, "nothing replaced, nothing nested"
    elif what == "folder":
        assert not list((root / RUN / "a.bin").iterdir()), "nothing nested"


def test_names_that_the_target_takes_for_one_are_refused_and_nothing_is_lost(
    tmp_path: Path, run: Path, make: Callable[..., Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_root(tmp_path)
    transport = make(root)
    listed = fill(run, {"Case.txt": b"upper", "case.txt": b"lower"})
    whole = TargetFolder.survey

    def folding(folder: TargetFolder, path: str, **more: Any) -> dict[str, Any]:
        found = whole(folder, path, **more)
        return {name: entry for name, entry in found.items() if not path.endswith(".push") or name != "case.txt"}

    monkeypatch.setattr(TargetFolder, "survey", folding)
    with pytest.raises(TransportError, match="case"):
        transport.copy(str(run), listed, RUN, control=FREE)
    transport.clear_partials(RUN)
    assert tree(root / RUN) == {}


def test_a_shell_that_gives_no_answer_is_given_up_and_the_next_question_is_answered(
    tmp_path: Path, make: Callable[..., Destination]
) -> None:
    transport = make(new_root(tmp_path))
    known = transport.bind()
    assert isinstance(transport.way, ShellFarSide)
    with pytest.raises(TransportError) as caught, transport.way.connection.shell() as shell:
        shell.ask(b"sleep 1000", timeout_s=0.5)
    assert caught.value.kind is FailureKind.NETWORK
    transport.probe(expected_marker_id=known)


def test_a_server_that_was_started_again_is_found_again(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "own") as server:
        names: dict[str, Any] = {}
        exec(source_of(server, new_root(tmp_path)), names)
        transport: Destination = names["transport"]
        try:
            known = transport.bind()
            server.service.stop()
            with pytest.raises(DestinationUnreachableError):
                transport.require_marker(expected_marker_id=known)
            server.service.start()
            transport.require_marker(expected_marker_id=known)
        finally:
            transport.close()


def test_small_runs_are_not_sampled(tmp_path: Path, run: Path, make: Callable[..., Destination]) -> None:
    assert make(new_root(tmp_path)).samples(RUN, fill(run, {"a": b"a"}), control=FREE) is None


def test_the_tools_are_named(tmp_path: Path, make: Callable[..., Destination]) -> None:
    (note,) = make(new_root(tmp_path)).check_tools()
    assert note.startswith("rsync 3.")
    assert "on the target" in note


@contextlib.contextmanager
def few_tools(tmp_path: Path, **scripts: str) -> Iterator[Destination]:
    """Yield the way to a server that has the least that is needed, and these scripts."""
    folder = tmp_path / "few"
    folder.mkdir()
    for name in (*NEEDED, "sh", "rsync", "sync"):
        (folder / name).symlink_to(program(name))
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    force = f'/usr/bin/env -i PATH={folder} HOME=/tmp /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    with running_sshd(tmp_path / "few-server", force=force) as server:
        names: dict[str, Any] = {}
        exec(source_of(server, new_root(tmp_path), stream_bytes_max=1234), names)
        transport: Destination = names["transport"]
        try:
            yield transport
        finally:
            transport.close()


def test_where_nothing_on_the_target_hashes_the_bytes_come_back(tmp_path: Path, run: Path) -> None:
    files = {"a.bin": os.urandom(3_000_000), "empty": b"", "two\nlines": b"odd"}
    with few_tools(tmp_path) as transport:
        transport.copy(str(run), fill(run, files), RUN, control=FREE)
        read = transport.read_back(RUN, [*files, "gone"], control=FREE)
        assert read.digests == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        assert (read.how, read.nas_at) == (HowRead.DOWNLOAD, None), "it has no clock either"
        assert transport.digest_bytes_max() == 1234


@pytest.mark.parametrize(
    ("said", "nas_at"),
    [
        ("echo 1767225600", datetime(2026, 1, 1, tzinfo=UTC)),
        ("echo Thu Jan 1 00:00:00 UTC 2026", None),
        ("exit 1", None),
    ],
)
def test_the_time_of_a_pass_is_that_of_the_server_s_own_clock(
    tmp_path: Path, run: Path, said: str, nas_at: datetime | None
) -> None:
    with few_tools(tmp_path, date=said) as transport:
        transport.copy(str(run), fill(run, {"a.bin": b"a"}), RUN, control=FREE)
        assert transport.read_back(RUN, ["a.bin"], control=FREE).nas_at == nas_at
