"""What is taken of an operator's ssh config, against a real sshd, and what of it stops the lane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.transports.rsync.connection import SilentConnection, SshConnection
from exlab_watch_agent.adapters.transports.rsync.ssh_config import found_in_config
from exlab_watch_agent.adapters.transports.rsync.ssh_login import SshLogin
from exlab_watch_agent.errors import FailureKind, TransportError
from tests.lab.servers import HOST, SshServer


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "children")
    yield children
    children.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "ssh config"


def login_by(config: Path, server: SshServer, target: str = "lab-nas") -> SshLogin:
    """Return a login that knows the server's key and nothing else: neither its port nor the account's key."""
    nowhere = str(config.with_name("no key"))
    return SshLogin(target, 22, nowhere, str(server.known_hosts), config_path=str(config), takes_port=True)


def host(server: SshServer, name: str = "lab-nas", *more: str) -> str:
    lines = (f"HostName {HOST}", f"Port {server.port}", f"User {server.user}", f'IdentityFile "{server.key}"', *more)
    return "\n  ".join((f"Host {name}", *lines)) + "\n"


def arrives(login: SshLogin, children: Children, folder: Path) -> bool:
    connection = SshConnection(login, children, folder)
    try:
        return bool(connection.tools().rsync_version)
    finally:
        connection.close()


def test_an_alias_leads_to_host_port_user_and_key(
    sshd: SshServer, children: Children, config: Path, tmp_path: Path
) -> None:
    config.write_text(host(sshd))
    assert arrives(login_by(config, sshd), children, tmp_path / "s")


def test_rsync_alone_goes_by_it_too(sshd: SshServer, children: Children, config: Path, tmp_path: Path) -> None:
    config.write_text(host(sshd))
    connection = SilentConnection(login_by(config, sshd), children, tmp_path / "s")
    try:
        words = [*connection.remote_shell_words(), "--", "lab-nas", "echo", "here"]
        assert children.run(words, purpose="a command").stdout == b"here\n"
    finally:
        connection.close()


@pytest.mark.parametrize("hops", ["jump", "jump,second"])
def test_the_way_may_lead_over_other_hosts_each_with_its_own_settings(
    sshd: SshServer, children: Children, config: Path, tmp_path: Path, hops: str
) -> None:
    config.write_text(host(sshd, "lab-nas", f"ProxyJump {hops}") + host(sshd, "jump") + host(sshd, "second"))
    assert arrives(login_by(config, sshd), children, tmp_path / "s")


def test_the_host_key_of_a_host_on_the_way_is_checked_as_strictly(
    sshd: SshServer, children: Children, config: Path, tmp_path: Path
) -> None:
    """The two names are one server here, and only one of them has its key known."""
    config.write_text(host(sshd, "lab-nas", "ProxyJump jump") + host(sshd, "jump").replace(HOST, "localhost"))
    with pytest.raises(TransportError) as refusal:
        arrives(login_by(config, sshd), children, tmp_path / "s")
    assert refusal.value.kind is FailureKind.AUTH
    assert "host key" in str(refusal.value)


def test_a_circle_of_hosts_is_refused(sshd: SshServer, children: Children, config: Path) -> None:
    config.write_text(host(sshd, "lab-nas", "ProxyJump jump") + host(sshd, "jump", "ProxyJump jump"))
    with pytest.raises(TransportError, match="in a circle"):
        found_in_config(login_by(config, sshd), children)


def test_an_unknown_host_key_is_refused_whatever_leads_there(
    sshd: SshServer, children: Children, config: Path, tmp_path: Path
) -> None:
    config.write_text(host(sshd))
    (tmp_path / "nobody").write_text("")
    login = replace(login_by(config, sshd), known_hosts_path=str(tmp_path / "nobody"))
    with pytest.raises(TransportError, match="host key is not in") as refusal:
        arrives(login, children, tmp_path / "s")
    assert f"-p {sshd.port}" in str(refusal.value), "the port that was found, not the one of the config"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("StrictHostKeyChecking no", "StrictHostKeyChecking"),
        ("StrictHostKeyChecking off", "StrictHostKeyChecking"),
        ("StrictHostKeyChecking accept-new", "StrictHostKeyChecking"),
        ("UserKnownHostsFile /dev/null", "UserKnownHostsFile"),
        ("UserKnownHostsFile none", "UserKnownHostsFile"),
        ("NoHostAuthenticationForLocalhost yes", "NoHostAuthenticationForLocalhost"),
        ("VerifyHostKeyDNS yes", "VerifyHostKeyDNS"),
        ("KnownHostsCommand /bin/true", "KnownHostsCommand"),
        ("ProxyCommand nc %h %p", "ProxyCommand"),
    ],
)
@pytest.mark.parametrize("where", ["lab-nas", "jump"])
def test_what_weakens_the_check_of_host_keys_stops_the_lane(
    sshd: SshServer, children: Children, config: Path, line: str, name: str, where: str
) -> None:
    lines = {"lab-nas": ["ProxyJump jump"] if where == "jump" else [], "jump": []}
    lines[where].append(line)
    config.write_text("".join(host(sshd, one, *more) for one, more in lines.items()))
    with pytest.raises(TransportError) as refusal:
        found_in_config(login_by(config, sshd), children)
    assert refusal.value.kind is FailureKind.AUTH
    assert f"says {name}" in str(refusal.value)
    assert f"for {where}" in str(refusal.value)
    assert "ssh_config: none" in str(refusal.value)


def test_nothing_else_of_the_file_takes_effect(
    sshd: SshServer, children: Children, config: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    more = (
        "PermitLocalCommand yes",
        f"LocalCommand touch {trace}",
        "RemoteCommand false",
        "PasswordAuthentication yes",
    )
    config.write_text(host(sshd, "lab-nas", *more, "LocalForward 127.0.0.1:9 127.0.0.1:9", "ExitOnForwardFailure yes"))
    assert arrives(login_by(config, sshd), children, tmp_path / "s")
    assert not trace.exists()


def test_what_the_agents_config_says_of_user_and_port_wins(sshd: SshServer, children: Children, config: Path) -> None:
    config.write_text(host(sshd))
    found = found_in_config(replace(login_by(config, sshd, "asmith@lab-nas"), port=2222, takes_port=False), children)
    assert (found.user, found.port, found.host_name) == ("asmith", 2222, HOST)


def test_the_key_of_the_agents_config_comes_first_and_may_be_missing_beside_another(
    sshd: SshServer, children: Children, config: Path, tmp_path: Path
) -> None:
    config.write_text(host(sshd))
    own = tmp_path / "100% mine"
    login = replace(login_by(config, sshd), key_path=str(own))
    assert found_in_config(login, children).keys == (str(sshd.key),)
    own.touch()
    assert found_in_config(login, children).keys == (str(own).replace("%", "%%"), str(sshd.key))


def test_an_agent_is_asked_where_the_file_names_its_socket_and_never_one_of_the_surroundings(
    sshd: SshServer, children: Children, config: Path
) -> None:
    for named, taken in (("/run/agent", "/run/agent"), ("SSH_AUTH_SOCK", "none"), ("$AGENT", "none"), ("none", "none")):
        config.write_text(host(sshd, "lab-nas", f"IdentityAgent {named}"))
        assert found_in_config(login_by(config, sshd), children).agent == taken


def test_a_file_that_is_not_there_or_no_ssh_config_is_refused_unless_it_is_the_users_own(
    sshd: SshServer, children: Children, config: Path
) -> None:
    login = login_by(config, sshd)
    with pytest.raises(TransportError, match="there is no ssh config"):
        found_in_config(login, children)
    users = replace(login, may_lack_config=True)
    assert found_in_config(users, children) == users
    config.write_text("Hots lab-nas\n")
    with pytest.raises(TransportError, match="ssh cannot use"):
        found_in_config(login, children)
