"""Where and as whom ssh goes in, and what its failures mean: a table of its words.

Decided here: ssh's options. Not here: what of them an operator's ssh config says (ssh_config.py), the connection (connection.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.core.policy import RsyncSshTarget
from exlab_watch_agent.errors import FailureKind, TransportError

TARGET = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.\\-]*@)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
HOW_TO_GET_SSH = "install OpenSSH's client (the package openssh-client or openssh-clients)."
_AUTH, _NETWORK = FailureKind.AUTH, FailureKind.NETWORK


@dataclass(frozen=True, slots=True)
class SshLogin:
    """Where and as whom. `target` is `user@host`; the paths are absolute. `pace`: how long ssh itself waits.

    `config_path`: the ssh config that is to be gone by, None for none; `may_lack_config`: it need not be there. `takes_port`: that
    it may say the port. What was found in it: `host_name`, `user`, `keys` as ssh writes them, `agent` (`none` or the path of its
    socket), and `proxy_command`, the way over other hosts.
    """

    target: str
    port: int
    key_path: str
    known_hosts_path: str
    pace: Pace = PACE
    config_path: str | None = None
    may_lack_config: bool = False
    takes_port: bool = False
    host_name: str = ""
    user: str = ""
    keys: tuple[str, ...] = ()
    agent: str = "none"
    proxy_command: str = ""

    def __post_init__(self) -> None:
        if not TARGET.fullmatch(self.target):  # it is put on a command line
            raise ValueError("ssh_target must be user@host")

    @classmethod
    def of(cls, target: RsyncSshTarget, pace: Pace) -> SshLogin:
        return cls(
            target.host,
            target.port,
            target.key_path,
            target.known_hosts_path,
            pace,
            target.ssh_config,
            target.may_lack_ssh_config,
            target.takes_port,
        )

    @property
    def host(self) -> str:
        return self.target.rpartition("@")[2]

    def options(self) -> list[str]:
        """Return ssh's options: key only, strict host keys, every wait bounded; of the user's own config what was found in it."""
        found = {
            "HostName": self.host_name.replace("%", "%%"),
            "User": self.user,
            "ProxyCommand": self.proxy_command,
        }
        settings = {name: value for name, value in found.items() if value} | {
            "IdentitiesOnly": "yes",
            "IdentityAgent": _quoted(self.agent) if self.agent != "none" else "none",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _as_one_word(self.known_hosts_path),
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "PreferredAuthentications": "publickey",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "ConnectTimeout": str(self.pace.connect_s),
            "ConnectionAttempts": "1",
            "ServerAliveInterval": str(self.pace.alive_every_s),
            "ServerAliveCountMax": str(self.pace.alive_count_max),
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "ControlPersist": "no",
            "LogLevel": "ERROR",
        }
        flags = ["-F", "/dev/null", "-T", "-p", str(self.port)]
        # -i would look for the file before it expands "%%". Of several keys ssh tries each.
        keys = [_quoted(key) for key in self.keys] or [self.key_words]
        flags += [word for key in keys for word in ("-o", f"IdentityFile={key}")]
        return flags + [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    @property
    def key_words(self) -> str:
        return _as_one_word(self.key_path)


def _as_one_word(path: str) -> str:
    """Return a path as ssh's config reads it: this option takes several, separated by blanks, and expands `%`."""
    return _quoted(path.replace("%", "%%"))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- what ssh's failures mean ----------------------------------------------------------------------------------------

_REFUSED_KEY = (
    "the server does not accept the key {key} for {target}: put {key}.pub into that account's authorized_keys "
    "(ssh-copy-id -i {key} -p {port} {target}), then retry"
)
_UNKNOWN_HOST = (
    "the server's host key is not in {known_hosts}: add it (ssh-keyscan -p {port} {host} >> {known_hosts}), compare its "
    "fingerprint with the server's own, then retry"
)
_CHANGED_HOST = (
    "the server's host key is not the one in {known_hosts}: find out why it changed; if it was meant to, remove the old "
    "one (ssh-keygen -f {known_hosts} -R '[{host}]:{port}'), add the new one, then retry"
)
_SAYINGS: tuple[tuple[str, FailureKind, str], ...] = (
    ("HOST IDENTIFICATION HAS CHANGED", _AUTH, _CHANGED_HOST),
    ("Host key verification failed|host key is known for|differs from the key for", _AUTH, _UNKNOWN_HOST),
    (
        "UNPROTECTED PRIVATE KEY|bad permissions",
        _AUTH,
        "the key {key} may be read by others: chmod 600 {key}, then retry",
    ),
    (
        "no such identity|Identity file .* not accessible|Load key .*No such file",
        _AUTH,
        "there is no key {key}: give another ssh_key_path, or make one (ssh-keygen -t ed25519 -f {key})",
    ),
    (
        "Load key|invalid format|error in libcrypto|passphrase",
        _AUTH,
        "the key {key} cannot be used without a person: give one in OpenSSH's format and without a passphrase",
    ),
    (r"Permission denied \(|Too many authentication failures|No supported authentication", _AUTH, _REFUSED_KEY),
    ("account is currently not available|This account", _AUTH, "the account {target} has no shell there"),
    (
        "Could not resolve|Name or service not known|nodename nor servname|name resolution",
        _NETWORK,
        "the name {host} is not known to the network: check ssh_target and the name server",
    ),
    (
        "Connection refused",
        _NETWORK,
        "nothing answers on port {port} of {host}: see whether its ssh service is running",
    ),
    ("No route to host|[Nn]etwork is unreachable|Host is down", _NETWORK, "{host} cannot be reached from here"),
    ("timed out|[Tt]imeout", _NETWORK, "{host} did not answer in time"),
    (
        "Connection (?:closed|reset)|closed by remote host|Broken pipe|kex_exchange_identification|banner exchange",
        _NETWORK,
        "the connection to {host} was cut",
    ),
)


def classified_ssh(login: SshLogin, doing: str, tail: str, *, why: str = "") -> TransportError:
    """Return what the end of an ssh program means. `doing` begins the sentence; `why` ends it where ssh's words say nothing."""
    facts = {
        "key": login.key_path, "target": login.target, "host": login.host, "port": login.port,
        "known_hosts": login.known_hosts_path,
    }  # fmt: skip
    for pattern, kind, sentence in _SAYINGS:
        if re.search(pattern, tail):
            return TransportError(kind, f"{doing}: {sentence.format(**facts)}.", detail=tail)
    return TransportError(_NETWORK, f"{doing}: {why or 'the connection to ' + login.host + ' was lost'}.", detail=tail)


class NoShellError(TransportError):
    """The target lets us in and runs no command of ours (a forced command, sftp only), or lacks the simplest programs."""

    def __init__(self, why: str, *, detail: str = "") -> None:
        text = (
            f"{why} rsync over ssh needs an account with a POSIX shell and the usual programs there; for an account without, "
            "use the transport rclone with a remote of type sftp."
        )
        super().__init__(FailureKind.AUTH, text, detail=detail)
