"""The manifest: which files a run must have, with their SHA-256. Written, read, and compared with what is there.

Decided here: the text of `checksums.sha256`, and the agreement of local, manifest and remote. Not here: what
follows from it (decide.py). Digests are everywhere: POSIX path relative to the run → 64 lowercase hex.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from exlab_watch_agent.core.completeness import DeclaredFile
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.errors import AgentError

EXTRA_KEPT_MAX = 100
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(rb"(\\?)([0-9a-f]{64})  ([^\r\n\0]+)")
_OTHERS_LINE = re.compile(rb"\s*([0-9A-Fa-f]{64})[ \t]+\*?(.+)")
_TO_ESCAPE = re.compile(rb"[\\\n\r]")
_ESCAPED_NAME = re.compile(rb"(?:[^\\]|\\[\\nr])+")
_ESCAPE_PAIR = re.compile(rb"\\([\\nr])")
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_UNESCAPES = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}
# To sha256sum a file name of one dash is its standard input.
_DASH, _WRITTEN_DASH = b"-", b"./-"


class ManifestError(AgentError):
    """A manifest cannot be read, or cannot be written for these names. `line` is 1-based, None when writing."""

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line} of the manifest {message}")
        self.line = line


class Agreement(StrEnum):
    """What the three-way comparison says."""

    EQUAL = "equal"
    REMOTE_DIFFERS = "remote_differs"
    LOCAL_DIFFERS = "local_differs"
    BOTH_DIFFER = "both_differ"
    LOCAL_GONE = "local_gone"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Local and remote against the manifest; paths sorted. `remote_extra` never has a part in the agreement."""

    agreement: Agreement
    local_changed: tuple[str, ...] = ()
    local_missing: tuple[str, ...] = ()
    local_added: tuple[str, ...] = ()
    remote_changed: tuple[str, ...] = ()
    remote_missing: tuple[str, ...] = ()
    remote_extra: tuple[str, ...] = ()


def format_manifest(digests: Mapping[str, str]) -> bytes:
    r"""Return the text of `checksums.sha256`: `<hex>  <path>` a line, sorted by the bytes of the path.

    `sha256sum -c` reads it in the run folder. As GNU coreutils 9 does, a line whose name holds a backslash, newline or
    carriage return begins with a backslash and has these as `\\`, `\n` and `\r`. Names that are not valid Unicode
    are kept as their raw bytes.
    Raises: ManifestError for a name or digest that `parse_manifest` would not give back.
    """
    names = sorted((_name_of(path), digest) for path, digest in digests.items())
    return b"".join(_line_of(name, digest) for name, digest in names)


def parse_manifest(data: bytes) -> dict[str, str]:
    """Return the digests of a manifest, in its order.

    Strict: only what `format_manifest` writes is read, so each content has exactly one text and a torn, reordered or
    hand-made one shows. Raises: ManifestError with the line.
    """
    *lines, rest = data.split(b"\n")
    digests: dict[str, str] = {}
    earlier = b""
    for number, line in enumerate(lines, start=1):
        name, digest = _read_line(line, number)
        if name <= earlier:
            raise ManifestError("names a file twice" if name == earlier else "is out of order", line=number)
        earlier = name
        digests[name.decode("utf-8", "surrogateescape")] = digest
    if rest:
        raise ManifestError("does not end with a newline: the file was cut off", line=len(lines) + 1)
    return digests


def read_others_manifest(data: bytes) -> dict[str, str]:
    """Return the digests of a manifest that ExLab-Wizard, or a person with sha256sum, wrote: evidence, never a proof.

    Lines in any order, one or more blanks after the hash, names as they are. A line that is none, and a name that is there
    twice with two hashes, say nothing.
    """
    found: dict[str, set[str]] = {}
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        match = _OTHERS_LINE.fullmatch(line)
        if match is not None:
            name = match[2].decode("utf-8", "surrogateescape").removeprefix("./")
            found.setdefault(name, set()).add(match[1].decode().lower())
    return {name: next(iter(digests)) for name, digests in found.items() if len(digests) == 1}


def manifest_digest(data: bytes) -> str:
    """Return the SHA-256 of a manifest's text, 64 lowercase hex."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class ExtraFiles:
    """Files at the destination that the run does not have: how many, and the first of their paths, sorted."""

    files_total: int = 0
    paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, paths: Sequence[str]) -> ExtraFiles:
        return cls(len(paths), tuple(sorted(paths)[:EXTRA_KEPT_MAX]))


def compare(
    *,
    local: Mapping[str, str],
    manifest: Mapping[str, str] | None,
    remote: Mapping[str, str],
    remote_listing: Iterable[str] = (),
) -> Comparison:
    """Compare local and remote with the manifest; before there is one, `local` is what must be there.

    `remote_listing`: every path at the destination, only to name what is extra there. An empty manifest is never equal,
    because nothing was proven; it counts as a local difference. A value that is not 64 lowercase hex proves nothing
    and agrees with nothing.
    """
    expected = local if manifest is None else manifest
    local_changed, local_missing = _differences(expected, local)
    remote_changed, remote_missing = _differences(expected, remote)
    local_added = tuple(sorted(local.keys() - expected.keys()))
    extra = (set(remote_listing) | remote.keys()) - expected.keys() - local.keys()
    agreement = _agreement(
        is_local_other=bool(local_changed or local_added) or not expected,
        is_local_short=bool(local_missing),
        is_remote_other=bool(remote_changed or remote_missing),
    )
    return Comparison(
        agreement=agreement,
        local_changed=local_changed,
        local_missing=local_missing,
        local_added=local_added,
        remote_changed=remote_changed,
        remote_missing=remote_missing,
        remote_extra=tuple(sorted(extra)),
    )


def check_declared(declared: Iterable[DeclaredFile], local: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths, sorted, whose hash as given by the instrument is not the one that the verifier computed.

    A file without a digest in `local` is not named: that it is missing is completeness's matter.
    """
    return tuple(
        sorted(
            entry.path
            for entry in declared
            if entry.sha256 is not None and local.get(entry.path, entry.sha256) != entry.sha256
        )
    )


def _agreement(*, is_local_other: bool, is_local_short: bool, is_remote_other: bool) -> Agreement:
    if is_remote_other:
        return Agreement.BOTH_DIFFER if is_local_other or is_local_short else Agreement.REMOTE_DIFFERS
    if is_local_other:
        return Agreement.LOCAL_DIFFERS
    return Agreement.LOCAL_GONE if is_local_short else Agreement.EQUAL


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of `expected` that are other in `found`, and those that are not there; each sorted."""
    missing = sorted(expected.keys() - found.keys())
    changed = sorted(
        path
        for path, digest in expected.items()
        if path in found and not (found[path] == digest and _SHA256.fullmatch(digest))
    )
    return tuple(changed), tuple(missing)


def _name_of(path: str) -> bytes:
    """Return the path's bytes. Raises: ManifestError when they would not be read back as this very path."""
    try:
        name = path.encode("utf-8", "surrogateescape")
        is_reversible = name.decode("utf-8", "surrogateescape") == path
    except UnicodeEncodeError:
        is_reversible = False
    if not is_reversible:
        raise ManifestError(f"the name {path!a} is not valid Unicode and cannot be written into a manifest")
    if not _is_data_name(name):
        raise ManifestError(f"{path!a} is not a data file's path relative to the run folder")
    return name


def _is_data_name(name: bytes) -> bool:
    """True for a relative path that cannot lead outside the run folder or into its cache folder."""
    segments = name.split(b"/")
    is_plain = not any(segment in (b"", b".", b"..") for segment in segments)
    return is_plain and b"\0" not in name and segments[0] != CACHE_FOLDER.encode()


def _line_of(name: bytes, digest: str) -> bytes:
    if not _SHA256.fullmatch(digest):
        raise ManifestError(f"the digest of {ascii(name)[1:]} is not 64 lowercase hexadecimal digits")
    written = _WRITTEN_DASH if name == _DASH else name
    escaped = _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], written)
    mark = b"\\" if escaped != written else b""
    return mark + digest.encode() + b"  " + escaped + b"\n"


def _read_line(line: bytes, number: int) -> tuple[bytes, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ManifestError("is not a SHA-256 in lowercase, two spaces and a name", line=number)
    mark, digest, written = found.groups()
    if (b"\\" in written) != bool(mark) or not _ESCAPED_NAME.fullmatch(written):
        raise ManifestError("has a name that is not escaped as sha256sum does", line=number)
    name = _ESCAPE_PAIR.sub(lambda pair: _UNESCAPES[pair[1]], written)
    if name == _WRITTEN_DASH:
        name = _DASH
    elif name == _DASH or not _is_data_name(name):
        raise ManifestError("does not name a data file relative to the run folder", line=number)
    return name, digest.decode()
