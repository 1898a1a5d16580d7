"""What an operator's rclone.conf says of one remote. It is read, never written.

rclone itself writes into the file that it is given: renewed OAuth tokens, and what it found out about a server's shell.
The agent's rclone is therefore given a private copy of the sections that the remote needs. Only where one of them holds
an OAuth token it is given the file itself: such a token may be good for one renewal, and a renewal kept in a copy would
lock the operator out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exlab_watch_agent.adapters.tree import reason
from exlab_watch_agent.errors import FailureKind, TransportError

_SECTION = re.compile(r"\[([^\]]*)\]\s*")
_MEMBER = re.compile(r"([^=\s#;][^=]*?)\s*=\s*(.*)")
_ENCRYPTED = "RCLONE_ENCRYPT_"
CONFIG_BYTES_MAX = 1024 * 1024

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
# What rclone changes anywhere: its stand-in for NUL, its quote, and bytes that are no UTF-8, which JSON cannot carry.
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
    def leaf_types(self) -> frozenset[str]:
        return frozenset({self.base_type or "local"})

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


def read_remote(path: Path, name: str) -> RemoteConfig:
    """Return what the file says of the remote. Raises: TransportError with a sentence about the file."""
    try:
        status = path.stat()
        text = path.read_bytes()[:CONFIG_BYTES_MAX].decode("utf-8")
    except FileNotFoundError as error:
        raise _unusable(f"{path} is not there: make it with `rclone config`, or set rclone_config") from error
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise _unusable(f"{path} cannot be read: {why}") from error
    if _ENCRYPTED in text:
        raise _unusable(
            f"{path} is encrypted, and nobody is there to type its password: give one that is not, for the agent alone"
        )
    every = _sections(text)
    if name not in every:
        raise _unusable(f"{path} has no remote [{name}]: make it with `rclone config`, or correct rclone_remote")
    wanted = _with_inner(name, every)
    kept = "".join(every[section][1] + _asked_besides(every[section][0]) for section in wanted)
    signature = (status.st_ino, status.st_size, status.st_mtime_ns)
    return RemoteConfig(name, path, {section: every[section][0] for section in wanted}, kept, signature)


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
    """Return section → (members, its own lines as they stand)."""
    found: dict[str, tuple[dict[str, str], list[str]]] = {}
    members: dict[str, str] = {}
    lines: list[str] = []
    for line in text.lstrip("\ufeff").splitlines(keepends=True):
        if header := _SECTION.fullmatch(line.strip()):
            members, lines = found.setdefault(header[1], ({}, []))
        elif member := _MEMBER.fullmatch(line.strip()):
            members[member[1]] = member[2]
        lines.append(line if line.endswith("\n") else f"{line}\n")
    return {name: (members, "".join(lines)) for name, (members, lines) in found.items()}


def _with_inner(name: str, every: Iterable[str] | Mapping[str, tuple[Mapping[str, str], str]]) -> list[str]:
    """Return the remote and all that its members name, the remotes that it wraps."""
    assert isinstance(every, Mapping)
    wanted = [name]
    for section in wanted:
        for value in every[section][0].values():
            wanted += [
                other
                for other in every
                if other not in wanted and re.search(rf"(?<![^\s\"=,]){re.escape(other)}:", value)
            ]
    return wanted
