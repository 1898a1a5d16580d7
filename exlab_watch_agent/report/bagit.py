"""A run as a BagIt bag (RFC 8493) that carries the evidence and not the data.

Decided here: the manifest lists every data file with the SHA-256 that was sealed, `data/` is empty, and where the copy can be named
by a URL `fetch.txt` says where each file is. So the bag is not complete until the files are put into `data/`, and any reader of
bags then proves that they are what was sealed. The reports, the run's lines of the trail and the script that checks a trail are tag
files in `custody/`, which the tag manifest covers. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from urllib.parse import quote

from exlab_watch_agent.core.text import printable, unicode_text, utc_text
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.report.dossier import Dossier, FileProof
from exlab_watch_agent.report.life import copy_of

EVIDENCE = "custody"
PAYLOAD = "data/"
_ENCODED = {"%": "%25", "\r": "%0D", "\n": "%0A"}
"""Source: RFC 8493, 2.1.3: these characters of a name, and no others. (`bagit` 1.9 for Python does not decode the first.)"""


def bag_of(dossier: Dossier, evidence: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return POSIX path → content of all files of the bag; a path that ends in `/` is an empty folder.

    `evidence`: name → content of what goes into `custody/`. Raises: AgentError for a run that has no manifest, and for names that
    are no Unicode, which a bag cannot hold.
    """
    if not dossier.files:
        raise AgentError(
            f"{printable(dossier.record.run_path)} was never sealed, so no manifest says what a bag of it would hold: "
            "take html or json."
        )
    tags = {
        "bag-info.txt": _info(dossier),
        "manifest-sha256.txt": b"".join(_line(file.sha256, f"{PAYLOAD}{file.path}") for file in dossier.files),
        **{f"{EVIDENCE}/{name}": content for name, content in evidence.items()},
    }
    fetch = b"".join(_fetched(dossier, file) for file in dossier.files)
    if fetch:
        tags["fetch.txt"] = fetch
    declared = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    digests = {name: sha256(content).hexdigest() for name, content in {"bagit.txt": declared, **tags}.items()}
    listed = b"".join(_line(digest, name) for name, digest in sorted(digests.items()))
    # What makes a folder a bag comes last: half of one is none.
    return {PAYLOAD: b"", **tags, "tagmanifest-sha256.txt": listed, "bagit.txt": declared}


def _line(digest: str, path: str) -> bytes:
    return f"{digest}  {_name(path)}\n".encode()


def _name(path: str) -> str:
    """Return a path as a bag spells it. Raises: AgentError."""
    if unicode_text(path) != path:
        raise AgentError(f"{printable(path)} is a name that is no Unicode, which a bag cannot hold: take html or json.")
    return re.sub("[%\r\n]", lambda found: _ENCODED[found[0]], path)


def _fetched(dossier: Dossier, file: FileProof) -> bytes:
    url = _url(f"{copy_of(dossier)}/{file.path}") if dossier.record.passes else None
    if url is None:
        return b""
    size = "-" if file.size_bytes is None else str(file.size_bytes)
    return f"{url} {size} {_name(PAYLOAD + file.path)}\n".encode()


def _url(place: str) -> str | None:
    """Return the URL of a file that is reached by a path of this PC; None for what only rclone or ssh can reach."""
    forward = place.replace("\\", "/") if re.match(r"[A-Za-z]:|\\\\", place) else place
    if forward.startswith("//"):  # a share: its server is the URL's host
        return f"file:{_quoted(forward)}"
    if re.match(r"[A-Za-z]:/", forward):
        return f"file:///{forward[:2]}{_quoted(forward[2:])}"
    return f"file://{_quoted(forward)}" if forward.startswith("/") else None


def _quoted(path: str) -> str:
    """Return a path as in a URL; of a name that is no Unicode its bytes are meant."""
    return quote(path.encode("utf-8", "surrogateescape"))


def _info(dossier: Dossier) -> bytes:
    record = dossier.record
    members = [
        ("External-Identifier", record.job_id),
        ("External-Description", f"Chain of custody of {record.run_path} of {record.equipment_id}"),
        ("Bagging-Date", utc_text(dossier.made_at)[:10]),
        ("Bag-Software-Agent", f"exlab-watch-agent {dossier.program.get('exlab-watch-agent', '')}".strip()),
        ("Payload-Oxum", _oxum(dossier.files, record.bytes_total, record.files_total)),
        (
            "Internal-Sender-Description",
            f"The data are not in this bag. They are at {copy_of(dossier)}; put them into data/, and the bag is complete: "
            f"then it proves that they are what was sealed. {EVIDENCE}/ has the evidence.",
        ),
        ("Internal-Sender-Identifier", record.run_path),
        ("Exlab-State", record.state.value),
        ("Exlab-Manifest-SHA256", record.manifest_digest),
        ("Exlab-Verified-At", utc_text(record.verified_at) if record.verified_at is not None else ""),
    ]
    return "".join(f"{label}: {printable(value)}\n" for label, value in members if value).encode()


def _oxum(files: Sequence[FileProof], bytes_total: int, files_total: int) -> str:
    """Return `bytes.files` of the payload, empty where the sizes are not known: the local files may be gone."""
    sizes = [file.size_bytes for file in files if file.size_bytes is not None]
    if len(sizes) == len(files):
        return f"{sum(sizes)}.{len(files)}"
    return f"{bytes_total}.{files_total}" if files_total == len(files) else ""
