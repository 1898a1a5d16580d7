"""A run as an RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) that carries the evidence and names the data.

Decided here: the evidence are the crate's own files; each data file is named by an `arcp` URI of the run's job id, the crate's way
to name what lies elsewhere, with its SHA-256. What made and proved the run are actions with their times. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from exlab_watch_agent.core.text import unicode_text, utc_text
from exlab_watch_agent.report.dossier import Dossier, FileProof
from exlab_watch_agent.report.life import EventType, LifeEvent, Outcome, copy_of, life_of, operators_in

METADATA = "ro-crate-metadata.json"
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_ACTIONS: Mapping[EventType, str] = {
    EventType.REPLICATION: "TransferAction",
    EventType.FIXITY_CHECK: "AssessAction",
    EventType.VALIDATION: "AssessAction",
    EventType.DELETION: "DeleteAction",
    EventType.POLICY_ASSIGNMENT: "AuthorizeAction",
}
_STATUS = {
    Outcome.SUCCESS: "http://schema.org/CompletedActionStatus",
    Outcome.FAIL: "http://schema.org/FailedActionStatus",
    Outcome.UNFINISHED: "http://schema.org/PotentialActionStatus",
}
_ENCODINGS = {".html": "text/html", ".json": "application/json", ".jsonl": "application/jsonl", ".py": "text/x-python"}


def crate_of(dossier: Dossier, evidence: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return name → content of all files of the crate; `evidence`: those that are beside the metadata."""
    events = [event for event in life_of(dossier) if event.type in _ACTIONS]
    data_files = [_data_file(dossier, file) for file in dossier.files]
    own_files = [_own_file(name, content) for name, content in evidence.items()]
    graph = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": _SPECIFICATION},
        },
        _root(dossier, [one["@id"] for one in (*own_files, *data_files)], events),
        {"@id": "#license", "@type": "CreativeWork", "name": "none is stated: ask those whose data they are"},
        {"@id": "#equipment", "@type": "IndividualProduct", "name": dossier.record.equipment_id},
        {
            "@id": "#agent",
            "@type": "SoftwareApplication",
            "name": "exlab-watch-agent",
            "softwareVersion": ", ".join(f"{name} {version}" for name, version in dossier.program.items()),
        },
        *own_files,
        *data_files,
        *(_action(event) for event in events),
        *({"@id": _person(name), "@type": "Person", "name": unicode_text(name)} for name in operators_in(events)),
    ]
    context = [f"{_SPECIFICATION}/context", {"sha256": "http://schema.org/sha256"}]
    metadata = json.dumps({"@context": context, "@graph": graph}, indent=2, ensure_ascii=True)
    # What makes a folder a crate comes last: half of one is none.
    return {**evidence, METADATA: metadata.encode() + b"\n"}


def _root(dossier: Dossier, parts: Sequence[str], events: Sequence[LifeEvent]) -> dict[str, Any]:
    record, place = dossier.record, copy_of(dossier)
    where = f" The data themselves are not in it; their copy is at {place}." if place else ""
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": unicode_text(record.identity.leaf_name or record.run_path),
        "description": unicode_text(f"Chain of custody of the run {record.run_path} of {record.equipment_id}.{where}"),
        "identifier": record.job_id,
        "datePublished": utc_text(dossier.made_at)[:10],
        "license": {"@id": "#license"},
        "hasPart": [{"@id": part} for part in parts],
        "mentions": [{"@id": _action_id(event)} for event in events],
    }


def _data_file(dossier: Dossier, file: FileProof) -> dict[str, Any]:
    return {
        "@id": f"{_elsewhere(dossier.record.job_id)}/{quote(file.path.encode('utf-8', 'surrogateescape'))}",
        "@type": "File",
        "name": unicode_text(file.path),
        "sha256": file.sha256,
        **({"contentSize": str(file.size_bytes)} if file.size_bytes is not None else {}),
    }


def _elsewhere(job_id: str) -> str:
    """Return the URI below which a run's data are named. Source: the arcp draft, `uuid` and `name` authorities."""
    groups = re.fullmatch(r"([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})", job_id)
    return f"arcp://uuid,{'-'.join(groups.groups())}" if groups else f"arcp://name,{quote(job_id, safe='')}"


def _own_file(name: str, content: bytes) -> dict[str, Any]:
    encoding = next((kind for ending, kind in _ENCODINGS.items() if name.endswith(ending)), "application/octet-stream")
    return {
        "@id": name,
        "@type": "File",
        "name": name,
        "encodingFormat": encoding,
        "sha256": sha256(content).hexdigest(),
        "contentSize": str(len(content)),
    }


def _action(event: LifeEvent) -> dict[str, Any]:
    proof = event.proof
    return {
        "@id": _action_id(event),
        "@type": _ACTIONS[event.type],
        "name": event.type.value,
        "description": unicode_text(event.detail),
        **({"startTime": utc_text(proof.started_at)} if proof is not None else {}),
        "endTime": event.at,
        "actionStatus": {"@id": _STATUS[event.outcome]},
        "object": {"@id": "./"},
        "agent": {"@id": _person(event.operator) if event.operator else "#agent"},
        "instrument": {"@id": "#agent"},
    }


def _action_id(event: LifeEvent) -> str:
    return f"#{event.id}"


def _person(name: str) -> str:
    return f"#person-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
