"""The ssh connection and the shell that stays open: real sshd, real shells."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.transports.rsync.connection import SshConnection
from exlab_watch_agent.adapters.transports.rsync.remote_shell import RemoteShell, ShellEndedError, printing, quoted
from exlab_watch_agent.adapters.transports.rsync.ssh_login import NoShellError, SshLogin, classified_ssh
from exlab_watch_agent.adapters.transports.rsync.ssh_socket import new_socket_path, remove_socket
from exlab_watch_agent.adapters.transports.rsync.target_tools import NEEDED
from exlab_watch_agent.errors import CancelledError, FailureKind, TransportError
from tests.lab.servers import SshServer, program, running_sshd

ODD = 'it\'s "odd" $HOME `id` \\ % \n -x \udce9 ü'
SHELLS = [["/bin/sh"], ["/bin/bash"], ["busybox", "sh"]]


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "children")
    yield children
    children.close()


def login_to(server: SshServer) -> SshLogin:
    return SshLogin(server.target, server.port, str(server.key), str(server.known_hosts))


@pytest.fixture
def connection(sshd: SshServer, children: Children, tmp_path: Path) -> Iterator[SshConnection]:
    connection = SshConnection(login_to(sshd), children, tmp_path / "s")
    yield connection
    connection.close()


# --- a shell, without ssh ------------------------------------------------------------------------------------------------


@pytest.fixture(params=SHELLS, ids=lambda words: words[-1] if len(words) == 1 else "busybox")
def shell(request: pytest.FixtureRequest, children: Children) -> Iterator[RemoteShell]:
    words = [program(request.param[0]), *request.param[1:]]
    shell = RemoteShell(children.start(words, purpose="a shell", has_stdin=True))
    shell.greet(timeout_s=20)
    yield shell
    shell.end()


def test_output_status_and_words_come_back_apart(shell: RemoteShell) -> None:
    answer = shell.ask(b"echo out; echo oh >&2; exit 7")
    assert (answer.status, answer.output, answer.words) == (7, b"out\n", "oh")
    assert shell.ask(b":").output == b""
    assert shell.ask(b"cat").output == b"", "a script has nothing to read"


def test_any_bytes_travel_both_ways(shell: RemoteShell) -> None:
    data = bytes(range(256)) * 300 + b"'; exit 1; '" + b"-n"
    assert shell.ask(b"{ " + printing(data) + b"; } | cat").output == data


def test_any_name_is_one_word(shell: RemoteShell) -> None:
    assert shell.ask(b"printf '<%s>' " + quoted(ODD)).output == b"<" + os.fsencode(ODD) + b">"


def test_one_script_leaves_nothing_to_the_next(shell: RemoteShell) -> None:
    shell.ask(b"cd /; x=1; set -f; exit 3")
    assert shell.ask(b'printf "%s" "$x"').output == b""


def test_large_output_goes_to_a_sink_piece_by_piece(shell: RemoteShell) -> None:
    taken: list[bytes] = []
    answer = shell.ask(b"head -c 3000000 /dev/zero; exit 2", sink=taken.append)
    assert (answer.status, answer.output) == (2, b"")
    assert b"".join(taken) == bytes(3_000_000)
    assert len(taken) > 1


def test_an_answer_that_is_cut_off_is_no_answer(shell: RemoteShell) -> None:
    with pytest.raises(ShellEndedError):
        shell.ask(b"echo half; kill -9 $$")


def test_waiting_for_an_answer_can_be_cancelled_and_has_an_end(shell: RemoteShell) -> None:
    def cancel() -> None:
        raise CancelledError("stopped as asked")

    with pytest.raises(CancelledError):
        shell.ask(b"sleep 99", check=cancel)
    with pytest.raises(ShellEndedError, match="no answer"):
        shell.ask(b":", timeout_s=0.3)


# --- the connection ------------------------------------------------------------------------------------------------------


def test_shells_are_used_again(connection: SshConnection) -> None:
    with connection.shell() as first:
        first.ask(b":")
    with connection.shell() as second, connection.shell() as third:
        assert second is first
        assert third is not first


def test_the_socket_is_private_and_short_and_goes_with_the_connection(
    sshd: SshServer, children: Children, tmp_path: Path
) -> None:
    deep = tmp_path / ("long" * 30)
    connection = SshConnection(login_to(sshd), children, deep)
    words = connection.remote_shell_words()
    socket = Path(words[words.index("-S") + 1])
    assert socket.is_socket()
    assert socket.parent.stat().st_mode & 0o077 == 0
    assert len(str(socket)) < 90
    connection.close()
    assert not socket.exists()
    assert not socket.parent.exists()


def test_nothing_is_left_on_either_side_when_the_agent_is_killed(sshd: SshServer, tmp_path: Path) -> None:
    mark = f"sleep 98{os.getpid()}"
    body = f"""
import threading
from pathlib import Path
from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.transports.rsync.connection import SshConnection
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
login = SshLogin({sshd.target!r}, {sshd.port}, {str(sshd.key)!r}, {str(sshd.known_hosts)!r})
connection = SshConnection(login, Children(Path({str(tmp_path / "children")!r})), Path({str(tmp_path / "s")!r}))
with connection.shell() as shell:
    shell.ask(b"echo x")
    print("go", flush=True)
    threading.Event().wait()
"""
    agent = subprocess.Popen([sys.executable, "-c", body], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"go\n", mark
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    deadline = time.monotonic() + 30
    while is_running(b"ssh", b"-S", str(tmp_path).encode()):
        assert time.monotonic() < deadline, "the connection outlived the agent"
        time.sleep(0.1)


def test_what_runs_on_the_target_ends_with_a_cancelled_question(connection: SshConnection) -> None:
    mark = str(10_000_000 + os.getpid()).encode()

    def cancel() -> None:
        if is_running(b"sleep", mark):
            raise CancelledError("stopped as asked")

    with pytest.raises(CancelledError), connection.shell() as shell:
        shell.ask(b"sleep " + mark, check=cancel)
    deadline = time.monotonic() + 20
    while is_running(b"sleep", mark):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(*beginnings: bytes) -> bool:
    """Return whether a process of this machine has words that begin so, in this order, the first of them its program."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # one that has just ended
            words = iter(path.read_bytes().split(b"\0"))
            is_program = os.path.basename(next(words)).startswith(beginnings[0])
            if is_program and all(any(word.startswith(start) for word in words) for start in beginnings[1:]):
                return True
    return False


def test_an_account_without_a_shell_is_refused_with_the_way_out(children: Children, sshd_sftp_only: SshServer) -> None:
    connection = SshConnection(login_to(sshd_sftp_only), children)
    with pytest.raises(NoShellError, match="rclone"):
        connection.tools()
    connection.close()


def test_a_target_without_the_simplest_programs_is_refused(children: Children, sshd_bare: SshServer) -> None:
    connection = SshConnection(login_to(sshd_bare), children)
    with pytest.raises(NoShellError, match="rclone"):
        connection.tools()
    connection.close()


def test_a_target_that_cannot_hash_is_seen_as_one(children: Children, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for name in (*NEEDED, "sh", "rsync", "sync"):
        (folder / name).symlink_to(program(name))
    force = f'/usr/bin/env -i PATH={folder} HOME=/tmp /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    with running_sshd(tmp_path / "server", force=force) as server:
        connection = SshConnection(login_to(server), children)
        assert connection.tools().hasher is None
        connection.close()


@pytest.mark.parametrize("target", ["-oProxyCommand=x", "a b@host", "user@-x", "user@host;id", "", "u@h@i"])
def test_no_target_becomes_an_option_or_a_command(target: str) -> None:
    with pytest.raises(ValueError, match="user@host"):
        SshLogin(target, 22, "/key", "/hosts")


def test_what_ssh_says_of_a_dead_link_is_a_network_trouble() -> None:
    login = SshLogin("labuser@nas01", 22, "/key", "/hosts")
    for words in ("ssh: connect to host nas01 port 22: No route to host", "Timeout, server nas01 not responding.", ""):
        error = classified_ssh(login, "Cannot connect", words)
        assert (type(error), error.kind) == (TransportError, FailureKind.NETWORK)


def test_busybox_is_there() -> None:
    assert shutil.which("busybox"), "installed by tests/run.sh"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets, wherever the tests' own folders are."""
    with tempfile.TemporaryDirectory(prefix="exlab-") as folder:
        yield Path(folder)


def test_sockets_of_killed_agents_go_and_those_in_use_stay(
    children: Children, sshd: SshServer, short_folder: Path
) -> None:
    folder = short_folder
    dead, others = folder / "0123abcd", folder / "note.txt"
    others.write_text("not ours")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(dead))
    first, second = (SshConnection(login_to(sshd), children, folder) for _ in range(2))
    try:
        first.tools()
        assert not dead.exists(), "nobody listens on it"
        (alive,) = set(folder.iterdir()) - {others}
        second.tools()
        assert alive in folder.iterdir(), "the first one's connection"
        assert len(list(folder.iterdir())) == 3
    finally:
        first.close()
        second.close()
    assert list(folder.iterdir()) == [others]


@pytest.mark.parametrize("is_old", [True, False])
def test_temporary_folders_that_killed_agents_left_go_after_a_day(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_old: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "exlab-ssh-left"
    left.mkdir()
    if is_old:
        os.utime(left, (1e9, 1e9))
    path = new_socket_path(None)
    assert left.exists() != is_old
    remove_socket(path, None)
    assert not Path(path).parent.exists()
