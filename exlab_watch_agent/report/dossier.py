"""One run's chain of custody, as a program reads it (JSON) and as a person keeps it (one HTML file).

Decided here: what an auditor is given of a run, in which order, and what is said of what it does not prove. Both forms have the
same content; the HTML needs no script and no network, and prints. Names come from the disks of others: they are spelled out
(`printable`) and escaped by the template engine. Not here: where it all comes from (app/exporting.py). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.overrides import OverrideStanding
from exlab_watch_agent.core.passes import HowRead, LocalSide
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import unicode_text, utc_text
from exlab_watch_agent.report.pages import ChainSummary, digest_of, page, script_json
from exlab_watch_agent.report.status import RunInFull, proofs_past_cache
from exlab_watch_agent.report.trail import TrailRow

DOSSIER_SCHEMA = 1
FILES_ON_THE_FIRST_PAGES_MAX = 500
NOT_PROVEN = (
    "That the bytes are what the instrument measured: they were first read when the run was complete.",
    "That both sides are equal now: each pass says when they were.",
    "What lies in the memory of the NAS: a server may answer from it, and hide damage on its disks until it forgets the file.",
    "That nobody wrote the audit trail anew: its chain has no key. Only what the NAS knows of it speaks against that.",
    "The times: they are those of this PC's clock.",
)

HOW_READ = {
    HowRead.SERVER_HASH: "the server's own SHA-256",
    HowRead.DOWNLOAD: "fetching every byte",
    HowRead.O_DIRECT: "reading directly, past the page cache",
    HowRead.NOWAIT: "reading when nothing of it was in the page cache",
    HowRead.NO_BUFFERING: "reading without buffering",
    HowRead.STORAGE_HOST: "a program on the storage host",
    HowRead.INJECTED: "a program that brought its own hashes",
    HowRead.PAGE_CACHE: "reading, perhaps from this PC's memory",
}

COMPARED_WITH = {LocalSide.READ: "the local files", LocalSide.MANIFEST: "the sealed manifest alone"}


@dataclass(frozen=True, slots=True)
class FileProof:
    """One data file. `sha256`: 64 lowercase hex. `size_bytes`: of the local file as it is now, None where it is not here."""

    path: str
    sha256: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that is told of one run. `creation`: the members of its `creation.json`, empty where it cannot be read.

    `rows`: the lines of the trail about it, the oldest first. `files`: what was sealed, by path; empty where it never was.
    `program`: name → version, of the agent and its chart. `script`: the program that checks a trail by itself. `lines`: those of
    `rows` as they are in the trail, byte for byte, without their line ends.
    """

    made_at: datetime
    made_by: str
    host: str
    program: Mapping[str, str]
    record: RunRecord
    run: RunInFull
    creation: Mapping[str, Any]
    overrides: Sequence[tuple[OverrideEntry, OverrideStanding]]
    rows: Sequence[TrailRow]
    files: Sequence[FileProof]
    chain: ChainSummary
    script: str
    lines: Sequence[bytes] = ()

    def content(self) -> dict[str, Any]:
        """Return everything but the digest that names it."""
        return {
            "schema": DOSSIER_SCHEMA,
            "made_at": utc_text(self.made_at),
            "made_by": self.made_by,
            "host": self.host,
            "program": dict(self.program),
            "run": self.run.to_json(),
            "creation": self.creation,
            "overrides": [
                {
                    "id": entry.id,
                    "problem_class": entry.problem_class,
                    "revokes": entry.revokes,
                    "operator": entry.operator,
                    "reason": entry.reason,
                    "recorded_at": entry.recorded_at,
                    "expires_at": entry.expires_at,
                    "standing": standing.value,
                }
                for entry, standing in self.overrides
            ],
            "trail": [
                {
                    "seq": row.seq,
                    "at": row.at,
                    "kind": row.kind,
                    "operator": unicode_text(row.operator),
                    "what": unicode_text(row.what),
                }
                for row in self.rows
            ],
            "files": [
                {"path": unicode_text(file.path), "sha256": file.sha256, "size_bytes": file.size_bytes}
                for file in self.files
            ],
            "chain": self.chain.to_json(),
            "not_proven": list(NOT_PROVEN),
            "verify_script": script_json(self.script),
        }

    def to_json(self) -> dict[str, Any]:
        content = self.content()
        return {**content, "digest": digest_of(content)}

    def to_html(self, *, picture: str = "") -> str:
        """Return the page. `picture`: the chart with the run's way through it, as an SVG element of our own making."""
        content = self.content()
        run = content["run"]
        past_cache = {one.id for one in proofs_past_cache(self.record)}
        return page(
            "dossier.html.j2",
            content,
            run=run,
            leaf=unicode_text(self.record.identity.leaf_name) or run["run_path"],
            passes=run["passes"],
            past_cache=past_cache,
            origin=origin_of(self.creation),
            picture=Markup(picture),  # noqa: S704 - every text in it was escaped by diagram/svg.py
            compared_with={side.value: words for side, words in COMPARED_WITH.items()},
            how_read={way.value: words for way, words in HOW_READ.items()},
            findings=run["findings"],
            incidents=run["incidents"],
            files=content["files"],
            is_appendix=len(self.files) > FILES_ON_THE_FIRST_PAGES_MAX,
            files_digest=self.record.manifest_digest,
        )  # fmt: skip


def origin_of(creation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where a run came from, label and text, from the members of its `creation.json`, whatever these are."""

    def text_at(*names: str) -> str:
        value: object = creation
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else ""

    found = [
        ("Created", " by ".join(filter(None, (text_at("created_at"), text_at("created_by"))))),
        ("Instrument", text_at("orchestrator", "equipment_label")),
        ("Template", " ".join(filter(None, (text_at("template", "name"), text_at("template", "version"))))),
        (
            "LIMS project",
            " ".join(filter(None, (text_at("lims_project", n) for n in ("short_id", "name_at_creation")))),
        ),
        ("LIMS id", text_at("lims_project", "uid")),
    ]
    return [(label, text) for label, text in found if text]
