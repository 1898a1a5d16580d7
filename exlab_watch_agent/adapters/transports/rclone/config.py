"""What an operator's rclone.conf says of one remote. It is read, never written.

rclone itself writes into the file that it is given: renewed OAuth tokens, and what it found out about a server's shell.
The agent's rclone is therefore given a private copy of the sections that the remote needs. Only where one of them holds
an OAuth token it is given the file itself: such a token may be good for one renewal, and a renewal kept in a copy would
lock the operator out.

Also decided here: through which remotes a copy can be proven. A remote of type `cache` answers what is read back from a
disk of this PC, and of other wrappers nobody has looked into what they answer: such a chain is not used at all.

Source: rclone 1.75 (goconfig for the file, fs/fspath for connection strings, fs.SpaceSepList for `upstreams`).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import FailureKind, TransportError

_SECTION = re.compile(r"\[([^\]]*)\]\s*")
_MEMBER = re.compile(r"([^=:\s#;][^=:]*?)\s*[=:]\s*(.*)")  # whichever of the two signs comes first
_QUOTED = re.compile(r'"""(.*)"""|`(.*)`')
_ENCRYPTED = "RCLONE_ENCRYPT_"
CONFIG_BYTES_MAX = 1024 * 1024

_WRAPPERS = frozenset({"alias", "chunker", "combine", "crypt", "hasher"})
"""Types that hand on to the remote behind them what they are asked, so that what is read back has been read there."""
_CACHE = "cache"
_NEVER_ENDS = frozenset({"archive", _CACHE, "compress", "union"})
"""Types that are wrappers, whatever members they have: `:archive:nas:x` has none."""
_VALUE = r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?!['"])[^:,]*"""
_CONNECTION = re.compile(rf"(:?[\w.+@ -]+)((?:,\w+(?:=(?:{_VALUE}))?)*):.*", re.DOTALL)
_PARAMETER = re.compile(rf",(\w+)(?:=({_VALUE}))?")

# What each part of a backend's "encoding" changes: the characters themselves, and the stand-ins that it then quotes.
# Source: rclone's lib/encoder; "rclone help flags encoding" names the parts.
_CHANGED_BY: Mapping[str, str] = {
    "Slash": "／",
    "LtGt": "[<>＜＞]",
    "DoubleQuote": '["＂]',
    "SingleQuote": "['＇]",
    "BackQuote": "[`｀]",
    "Dollar": "[$＄]",
    "Colon": "[:：]",
    "Question": "[?？]",
    "Asterisk": "[*＊]",
    "Pipe": "[|｜]",
    "Hash": "[#＃]",
    "Percent": "[%％]",
    "BackSlash": r"[\\＼]",
    "CrLf": "[\r\n␍␊]",
    "Del": "[\x7f␡]",
    "Ctl": "[\x01-\x1f\u2401-\u241f]",
    "LeftSpace": r"\A[ ␠]",
    "LeftPeriod": r"\A[.．]",
    "LeftTilde": r"\A[~～]",
    "LeftCrLfHtVt": r"\A[\r\n\t\v␍␊␉␋]",
    "RightSpace": r"[ ␠]\Z",
    "RightPeriod": r"[.．]\Z",
    "RightCrLfHtVt": r"[\r\n\t\v␍␊␉␋]\Z",
    "Dot": r"\A．{1,2}\Z",
    "SquareBracket": "[][［］]",
    "Semicolon": "[;；]",
    "Exclamation": "[!！]",
}
# What rclone changes anywhere: its stand-in for NUL, its quote, and bytes that are not UTF-8, which JSON cannot carry.
_CHANGED_ALWAYS = "[␀‛\ufffd\ud800-\udfff]"
_EVERYWHERE = "Slash,Dot,Ctl,Del"  # how rclone itself speaks of names, whatever the backend


@dataclass(frozen=True)
class RemoteConfig:
    """One remote with the remotes that it is built on; `sections` in the order in which they were met, it first."""

    name: str
    path: Path
    sections: Mapping[str, Mapping[str, str]]
    text: str
    signature: tuple[int, int, int]

    @property
    def has_token(self) -> bool:
        return any("token" in members for members in self.sections.values())

    @property
    def base_type(self) -> str:
        """The type of the backend where the bytes end up as they are; "" where a wrapper changes or spreads them."""
        name = self.name
        for _ in self.sections:
            members = self.sections[name]
            if members.get("type") != "alias":
                return members.get("type", "")
            inner = members.get("remote", "").partition(":")
            if inner[0] not in self.sections or not inner[1]:
                return "local" if os.path.isabs(members.get("remote", "")) else ""
            name = inner[0]
        return ""

    @property
    def leaf_types(self) -> frozenset[str]:
        """The types of the backends where the bytes end up, through all wrappers.

        What leads nowhere that can be told counts as "local": then a person has to say which place it is.
        """
        met = _chain(f"{self.name}:", self.sections)
        # "%(...)" is filled in by rclone itself, so that the type as it is written here says nothing.
        ends = (link.type for link in met if not link.inner)
        return frozenset("local" if kind in _WRAPPERS or "%(" in kind else kind for kind in ends)

    def notes(self) -> tuple[str, ...]:
        """Return what an operator should know of the remote."""
        unchecked = [
            name
            for name, members in self.sections.items()
            if members.get("type") == "sftp" and not members.get("known_hosts_file")
        ]
        return tuple(
            f"the remote {name} accepts any host key, so that nobody knows which server gets the data: "
            f"set known_hosts_file for it in {self.path}"
            for name in unchecked
        )

    def changed_names(self, default_encodings: Mapping[str, str]) -> re.Pattern[str]:
        """Return what finds a part of a path that would have another name there. `default_encodings`: by type."""
        if self.sections[self.name].get("type") == "crypt" and self._encrypts_names():
            parts = {_EVERYWHERE}
        else:
            parts = {_EVERYWHERE}
            for members in self.sections.values():
                parts.add(members.get("encoding") or default_encodings.get(members.get("type", ""), ""))
        flags = {flag.strip() for part in parts for flag in part.split(",")}
        patterns = [pattern for flag, pattern in _CHANGED_BY.items() if flag in flags]
        return re.compile("|".join([_CHANGED_ALWAYS, *patterns]))

    def _encrypts_names(self) -> bool:
        return self.sections[self.name].get("filename_encryption", "standard") == "standard"


@dataclass(frozen=True)
class _Link:
    """A remote in a chain of remotes, as another one names it: its name, its type, and what it is built on.

    The name is "" for a remote that a connection string makes on the spot, and for a path.
    """

    name: str
    type: str
    inner: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        return f"the remote [{self.name}]" if self.name else "an unnamed remote"


_PATH = _Link("", "local")


def _chain(text: str, sections: Mapping[str, Mapping[str, str]], above: tuple[_Link, ...] = ()) -> Iterator[_Link]:
    """Yield the remote that a text like `name:path` names, and all that it is built on; never itself again."""
    link = _link(text, sections)
    if link.name and link.name in {each.name for each in above}:
        link = _PATH
    yield link
    for inner in link.inner:
        yield from _chain(inner, sections, (*above, link))


def _link(text: str, sections: Mapping[str, Mapping[str, str]]) -> _Link:
    """Return what a text like `name:path`, `name,member=value:path`, `:type,member=value:path` or a path names."""
    parts = _CONNECTION.fullmatch(text)
    if parts is None:
        return _PATH
    name, more = parts[1], {found[1]: _unquoted(found[2]) for found in _PARAMETER.finditer(parts[2])}
    if name.startswith(":"):
        return _Link("", name[1:], _built_on(name[1:], more))
    if name not in sections or (os.name == "nt" and len(name) == 1):  # there it is the letter of a drive
        return _PATH
    members = {**sections[name], **more}
    kind = members.get("type", "")
    inner = _built_on(kind, members)
    return _Link(name, kind, inner) if kind or inner else _PATH


def _unquoted(value: str | None) -> str:
    if value is None:
        return "true"
    return value[1:-1].replace(value[0] * 2, value[0]) if value[:1] in ("'", '"') else value


def _built_on(kind: str, members: Mapping[str, str]) -> tuple[str, ...]:
    """Return the remotes and paths that a remote of this type wraps, as its members spell them."""
    found = [members["remote"]] if members.get("remote") else []
    try:
        upstreams = next(csv.reader([members.get("upstreams", "")], delimiter=" ", strict=True), [])
    except csv.Error:
        return ("",)
    for upstream in upstreams:
        # `combine` says before each under which folder it appears.
        found.append(upstream.partition("=")[2] if kind == "combine" else upstream)
    return tuple(found)


def _require_provable(chain: tuple[_Link, ...], path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    """Return when what is read back through the chain is what is stored behind it. Raises: TransportError."""
    first = chain[0]
    for link in chain:
        if link.type in _WRAPPERS or not (link.inner or link.type in _NEVER_ENDS):
            continue
        why = (
            "which answers from a cache of its own on this PC, so what is read back proves nothing"
            if link.type == _CACHE
            else "through which nobody can tell what is stored, so what is read back proves nothing"
        )
        behind = " or ".join(dict.fromkeys(filter(None, (_link(text, sections).name for text in link.inner))))
        out = f"name the remote behind it, {behind}, in rclone_remote"
        if not behind:
            out = "make a remote there that leads where it leads, and name that in rclone_remote"
        elif link is not first:
            out = f"let [{first.name}] lead to the remote behind it, {behind}, without it"
        raise _unusable(f"{path} has {link.called} of {f'type {link.type}' if link.type else 'no type'}, {why}: {out}")


def read_remote(path: Path, name: str) -> RemoteConfig:
    """Return what the file says of the remote.

    Raises: TransportError with a sentence about the file; also for a remote through which no copy could be proven.
    """
    try:
        status = path.stat()
        text = path.read_bytes()[:CONFIG_BYTES_MAX].decode("utf-8")
    except FileNotFoundError as error:
        raise _unusable(f"{path} is not there: make it with `rclone config`, or set rclone_config") from error
    except (OSError, ValueError) as error:
        why = reason_with_name(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise _unusable(f"{path} cannot be read: {why}") from error
    if _ENCRYPTED in text:
        raise _unusable(
            f"{path} is encrypted, and nobody is there to type its password: give one that is not, for the agent alone"
        )
    every = _sections(text)
    if name not in every:
        raise _unusable(f"{path} has no remote [{name}]: make it with `rclone config`, or correct rclone_remote")
    sections = {section: members for section, (members, _) in every.items()}
    chain = tuple(_chain(f"{name}:", sections))
    _require_provable(chain, path, sections)
    wanted = dict.fromkeys([name, *(link.name for link in chain if link.name)])
    kept = "".join(every[section][1] + _asked_besides(sections[section]) for section in wanted)
    signature = (status.st_ino, status.st_size, status.st_mtime_ns)
    return RemoteConfig(name, path, {section: sections[section] for section in wanted}, kept, signature)


def _asked_besides(members: Mapping[str, str]) -> str:
    """Return what the private copy says more: sftp offers a server's sha256sum only where its config names it.

    Left to find one by itself, rclone 1.75 tries `sha1sum` for SHA-256. Whether this one serves is asked later.
    """
    if members.get("type") != "sftp":
        return ""
    wanted = {"hashes": "sha256", "sha256sum_command": "sha256sum"}
    return "".join(f"{name} = {value}\n" for name, value in wanted.items() if name not in members)


def _unusable(text: str) -> TransportError:
    return TransportError(FailureKind.UNKNOWN, f"The rclone config {text}.")


def _sections(text: str) -> dict[str, tuple[dict[str, str], str]]:
    """Return section → (members, its own lines as they are)."""
    found: dict[str, tuple[dict[str, str], list[str]]] = {}
    members: dict[str, str] = {}
    lines: list[str] = []
    for line in text.lstrip("\ufeff").splitlines(keepends=True):
        if header := _SECTION.fullmatch(line.strip()):
            members, lines = found.setdefault(header[1].strip(), ({}, []))
        elif member := _MEMBER.fullmatch(line.strip()):
            quoted = _QUOTED.fullmatch(member[2])
            members[member[1].strip('"`')] = (quoted[1] or quoted[2] or "") if quoted else member[2]
        lines.append(line if line.endswith("\n") else f"{line}\n")
    return {name: (members, "".join(lines)) for name, (members, lines) in found.items()}
