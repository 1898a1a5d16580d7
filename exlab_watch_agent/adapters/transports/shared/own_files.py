"""What the agent itself keeps at a destination: names and formats that every transport shares.

Decided here: how marker, claim and partial files are called and spelled, and how much of a foreign file is believed.
Not here: how they get there (each way), and what a claim means (core/claim.py).

```
<root>/.exlab-watch-agent.json                    marker: {"schema": 1, "id": 32 hex}
<root>/.exlab-watch-agent/                        heartbeats; what rsync alone keeps there
<root>/.exlab-superseded/<destination>/<n>/...    what had to make room, never destroyed
<destination>/.exlab-partial/                     files on their way; ours alone, may be emptied at any time
<destination>/.exlab-wizard/exlab-watch-agent.json   claim: whose folder it is; the seal adds members
```
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from exlab_watch_agent.adapters.local.tree import is_inside
from exlab_watch_agent.core.claim import CLAIM_SCHEMA, FORMER_MAX, Claim, DestinationLook, FormerHolder
from exlab_watch_agent.core.creation import RunIdentity, identity_in, says_synced
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.errors import FailureKind, TransportError

MARKER_FILE = ".exlab-watch-agent.json"
PROBE_PREFIX = ".exlab-probe-"
OWN_FOLDER = ".exlab-watch-agent"
PARTIAL_FOLDER = ".exlab-partial"
OWN_FILE_BYTES_MAX = 1024 * 1024
SCHEMA = 1
WORDS_MAX = 300
DIGEST_CHARACTERS = 64
SEQ_MAX = 2**53
_OF_THE_SEAL = (("on", "host"), ("sealed at", "sealed_at"))

_MARKER_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def require_inside(relative_path: str) -> str:
    """Return the path. Raises: TransportError when it could name something outside the folder it is joined to."""
    if not is_inside(relative_path):
        raise TransportError(FailureKind.UNKNOWN, f"{relative_path!r} does not name anything inside the destination.")
    return relative_path


def require_data_path(relative_path: str) -> str:
    """Return the path. Raises: TransportError when a data file has a name that the agent uses itself."""
    first = require_inside(relative_path).partition("/")[0]
    if first in (PARTIAL_FOLDER, CACHE_FOLDER):
        raise TransportError(
            FailureKind.UNKNOWN,
            f"{relative_path!r}: the name {first} at the top of a run is the agent's own. Rename it, then retry.",
        )
    return relative_path


def require_cache_path(relative_path: str) -> str:
    """Return the path. Raises: TransportError unless it lies in the cache folder: nothing else is ever replaced."""
    if not require_inside(relative_path).startswith(f"{CACHE_FOLDER}/"):
        raise TransportError(FailureKind.UNKNOWN, f"{relative_path!r} is not in {CACHE_FOLDER} and is never replaced.")
    return relative_path


def new_marker_id() -> str:
    return uuid.uuid4().hex


def marker_text(marker_id: str) -> bytes:
    return _text({"schema": SCHEMA, "id": marker_id})


def marker_id_in(data: bytes) -> str | None:
    """Return the id that a marker file says, None when it is not one."""
    found = _object_in(data).get("id")
    return found if isinstance(found, str) and _MARKER_ID.fullmatch(found) else None


def claim_text(claim: Claim) -> bytes:
    return _text({"schema": CLAIM_SCHEMA, **asdict(claim)})


def claim_in(data: bytes) -> Claim | None:
    """Return the claim that a claim file makes, None when it is not one. Unknown members are ignored."""
    members = _object_in(data)
    identity = members.get("identity")
    if not isinstance(identity, dict):
        return None
    texts = [members.get(name) for name in ("job_id", "equipment_id", "run")]
    texts += [identity.get(name) for name in ("created_at", "created_by", "project_uid", "leaf_name")]
    if not all(isinstance(text, str) for text in texts):
        return None
    job_id, equipment_id, run, *rest = (str(text) for text in texts)
    generation = members.get("generation")
    return Claim(
        job_id=job_id,
        equipment_id=equipment_id,
        run=run,
        identity=RunIdentity(*rest),
        state_folder=_string(members.get("state_folder"))[:WORDS_MAX],
        host=_string(members.get("host"))[:WORDS_MAX],
        generation=generation if isinstance(generation, int) and 0 < generation <= SEQ_MAX else 1,
        former=_former_in(members.get("former")),
    )


def _former_in(listed: object) -> tuple[FormerHolder, ...]:
    items = listed[-FORMER_MAX:] if isinstance(listed, list) else []
    names = [member.name for member in fields(FormerHolder)]
    return tuple(FormerHolder(*(_string(_mapping(item).get(name))[:WORDS_MAX] for name in names)) for item in items)


def sealed_as(data: bytes) -> str:
    """Return the digest of the manifest that a claim says was proven; empty before the seal, which adds this member."""
    said = _string(_object_in(data).get("manifest_sha256"))
    return said if len(said) <= DIGEST_CHARACTERS else said[:DIGEST_CHARACTERS]


def sealed_at_in(data: bytes) -> str:
    """Return when a claim says that its copy was sealed, as it says it; empty where it does not."""
    return _string(_object_in(data).get("sealed_at"))[:WORDS_MAX]


def anchor_in(data: bytes) -> TrailPosition | None:
    """Return the line of its holder's audit trail at which a claim's copy was sealed; None where it names none."""
    members = _object_in(data)
    seq, digest = members.get("audit_seq"), _string(members.get("audit_blake3"))
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 < seq <= SEQ_MAX or not _DIGEST.fullmatch(digest):
        return None
    return TrailPosition(seq, digest)


def holder_in(data: bytes) -> str:
    """Return in words who makes a claim: its job, its run, and host and time of the seal where it has them."""
    claim = claim_in(data)
    if claim is None:
        return ""
    members = _object_in(data)
    parts = [f"job {claim.job_id} of {claim.equipment_id} {claim.run}"]
    parts += [f"{word} {text}" for word, name in _OF_THE_SEAL if (text := _string(members.get(name)))]
    return ", ".join(part[:WORDS_MAX] for part in parts)


def _text(members: Mapping[str, Any]) -> bytes:
    return (json.dumps(members, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def _object_in(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def arrived_under_another_name(path: str, where: str) -> TransportError:
    """Return what is wrong with a target on which a file that was copied is not there under its name."""
    text = (
        f"{path!r} is not there under its name after it was copied to {where}: the copy may have been cut short, which another "
        "try mends, or the target takes names that differ in case only for one, or changes them: then rename the file, or use "
        "another target."
    )
    return TransportError(FailureKind.UNKNOWN, text)


def look_of(
    destination: str, *, claim: bytes | None, creation: bytes | None, is_empty: bool = False
) -> DestinationLook:
    """Return whose folder it is, from the bytes of its claim and of its `creation.json`, None where there is none."""
    proven_as = "" if claim is None else sealed_as(claim)
    is_synced = creation is not None and says_synced(creation)
    return DestinationLook(
        is_empty=is_empty,
        claim=None if claim is None else claim_in(claim),
        identity=None if creation is None else identity_in(creation, folder_name=destination.rpartition("/")[2]),
        is_sealed=bool(proven_as) or is_synced,
        holder="" if claim is None else holder_in(claim),
        says_synced=is_synced,
        sealed_as=proven_as,
        anchor=None if claim is None else anchor_in(claim),
        sealed_at="" if claim is None else sealed_at_in(claim),
    )


def taken(path: str, destination: str, where: str) -> TransportError:
    """Return what is wrong where something has the name of a file that is to be copied."""
    text = (
        f"Cannot write {path!r} in {destination!r} at {where}: something of that name, or of one that the server takes for "
        "the same, exists already and is never replaced. Rename one of them, then retry."
    )
    return TransportError(FailureKind.UNKNOWN, text)
