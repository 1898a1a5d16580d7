"""What is taken of an ssh config that an operator keeps: where a name leads, and as whom.

Decided here: which of its settings are taken, and which stop the lane. ssh itself reads the file (`ssh -G`), with its patterns,
`Match` and `Include`; what it finds is put on our own command line (ssh_login.py), and the file is never handed to the ssh that
connects. So nothing in it can run a command, forward a port or send a variable, and host keys are checked as always.

Taken: HostName, User, Port, ProxyJump, IdentityFile, IdentityAgent. What would weaken the check of host keys is refused although it
is not taken, because whoever wrote it expects it to hold; so is ProxyCommand, without which the way would be another one.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from exlab_watch_agent.adapters.children.environment import find_program
from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.transports.rsync.ssh_login import HOW_TO_GET_SSH, TARGET, SshLogin
from exlab_watch_agent.errors import FailureKind, TransportError

JUMPS_MAX = 8
_HOP = re.compile(rf"(?:ssh://)?(?P<target>{TARGET.pattern})(?::(?P<port>[0-9]{{1,5}}))?/?")
_OFF = frozenset({"no", "off", "false"})
_REFUSED: Mapping[str, frozenset[str] | None] = {
    # In the words of `ssh -G`; None: any value but `none`.
    "stricthostkeychecking": _OFF | {"accept-new"},
    "nohostauthenticationforlocalhost": frozenset({"yes", "true"}),
    "verifyhostkeydns": frozenset({"yes", "true"}),
    "knownhostscommand": None,
    "proxycommand": None,
}
_SPELLED = {
    "stricthostkeychecking": "StrictHostKeyChecking",
    "nohostauthenticationforlocalhost": "NoHostAuthenticationForLocalhost",
    "verifyhostkeydns": "VerifyHostKeyDNS",
    "knownhostscommand": "KnownHostsCommand",
    "proxycommand": "ProxyCommand",
    "userknownhostsfile": "UserKnownHostsFile",
}


def found_in_config(login: SshLogin, children: Children) -> SshLogin:
    """Return the login as the operator's ssh config has it; the same one where it is to go by none.

    Raises: TransportError of kind `auth` where the config cannot be read, or says what is refused; with `binary_missing`.
    """
    if login.config_path is None:
        return login
    if not os.path.exists(login.config_path):
        if login.may_lack_config:
            return login
        raise _refusal(login, f"there is no ssh config {login.config_path}: correct ssh_config, or make the file")
    return _found(login, children, ())


def _found(login: SshLogin, children: Children, jumps: tuple[str, ...]) -> SshLogin:
    said = _asked(login, children)
    for sentence in _what_is_refused(said):
        raise _refusal(login, f"{login.config_path} says {sentence} for {login.host}")
    keys = tuple(said.get("identityfile", ()))
    own = login.key_path.replace("%", "%%")
    if own in keys and not os.path.exists(login.key_path) and len(keys) > 1:
        keys = tuple(key for key in keys if key != own)  # a default that this operator never made
    agent = _last(said, "identityagent") or "none"
    is_from_surroundings = agent.startswith("$") or agent.lower() == "ssh_auth_sock"  # of which a service has none
    found = replace(
        login,
        host_name=_last(said, "hostname") or login.host,
        user=_last(said, "user") or "",
        port=int(_last(said, "port") or login.port),
        keys=keys,
        agent="none" if is_from_surroundings else agent,
    )
    hops = [hop for hop in (_last(said, "proxyjump") or "none").split(",") if hop and hop.lower() != "none"]
    if not hops:
        return found
    if len(jumps) + len(hops) > JUMPS_MAX or hops[-1] in jumps:
        raise _refusal(login, f"{login.config_path} leads over more than {JUMPS_MAX} hosts, or in a circle")
    return replace(found, proxy_command=_way_over(hops, login, children, jumps))


def _way_over(hops: Sequence[str], login: SshLogin, children: Children, jumps: tuple[str, ...]) -> str:
    """Return the command that leads to the host over the last hop, which is reached over those before it."""
    *before, last = hops
    fits = _HOP.fullmatch(last)
    if fits is None:
        raise _refusal(login, f"{login.config_path} has a ProxyJump that is no [user@]host[:port]")
    hop = replace(login, target=fits["target"], port=int(fits["port"] or 22), takes_port=fits["port"] is None)
    found = _found(hop, children, (*jumps, *hops))
    if before:
        found = replace(found, proxy_command=_way_over(before, login, children, (*jumps, *hops)))
    ssh = find_program("ssh", how_to_get=HOW_TO_GET_SSH)
    words = [shlex.quote(word.replace("%", "%%")) for word in (ssh, *found.options())]
    return " ".join([*words, "-W", "'[%h]:%p'", "--", shlex.quote(found.target)])


def _asked(login: SshLogin, children: Children) -> dict[str, list[str]]:
    """Return what ssh says that it would do, by the lower-case name of the setting; of some there are several."""
    ssh = find_program("ssh", how_to_get=HOW_TO_GET_SSH)
    port = [] if login.takes_port else ["-p", str(login.port)]
    key = ["-o", f"IdentityFile={login.key_words}"]
    words = [ssh, "-G", "-T", "-F", str(login.config_path), *port, *key, "--", login.target]
    ended = children.run(words, purpose="ssh -G")
    if ended.returncode != 0:
        raise _refusal(
            login,
            f"ssh cannot use {login.config_path}: ssh -G -F {login.config_path} {login.target} says why",
            ended.tail,
        )
    said: dict[str, list[str]] = {}
    for line in ended.stdout.decode("utf-8", "surrogateescape").splitlines():
        name, _, value = line.partition(" ")
        said.setdefault(name, []).append(value)
    return said


def _what_is_refused(said: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, values in _REFUSED.items():
        value = (_last(said, name) or "none").lower()
        if (value in values) if values is not None else (value != "none"):
            why = (
                "which is not taken: use ProxyJump"
                if name == "proxycommand"
                else "which weakens the check of host keys"
            )
            yield f"{_SPELLED[name]}, {why}, or set ssh_config: none"
    known = (_last(said, "userknownhostsfile") or "").lower().split()
    if "/dev/null" in known or known == ["none"]:
        yield "UserKnownHostsFile with no file, which weakens the check of host keys: take it out, or set ssh_config: none"


def _last(said: Mapping[str, Sequence[str]], name: str) -> str | None:
    return said[name][-1] if name in said else None


def _refusal(login: SshLogin, why: str, detail: str = "") -> TransportError:
    return TransportError(FailureKind.AUTH, f"Cannot connect to {login.target}: {why}.", detail=detail)
