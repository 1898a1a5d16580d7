"""Reports of a run and of a period as the tests of their forms want them, and a reader of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from exlab_watch_agent.core.creation import OverrideEntry, RunIdentity
from exlab_watch_agent.core.overrides import OverrideStanding
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.report.dossier import Dossier, FileProof
from exlab_watch_agent.report.pages import ChainSummary
from exlab_watch_agent.report.status import RunInFull
from exlab_watch_agent.report.trail import TrailRow
from exlab_watch_agent.statechart import RunState

SCRIPT = (Path(__file__).parent.parent.parent / "docs" / "verify_trail.py").read_text(encoding="utf-8")
NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'&\n\u202eevil\x1b[31m"
RECORD = RunRecord(
    job_id="a" * 32,
    run_path="/data/lab/CONFOCAL_01/P/Runs/Run_2026-04-17T14-32",
    equipment_id="CONFOCAL_01",
    project="P",
    run_kind="experimental",
    identity=RunIdentity("2026-04-17T14:32:00Z", "asmith", "8c7e", "Run_2026-04-17T14-32"),
    entered_at=NOW,
    state=RunState.VERIFIED,
    destination="P/Runs/Run_2026-04-17T14-32",
    files_total=1,
    bytes_total=5,
    manifest_digest="c" * 64,
    verify_passes=1,
    verified_at=NOW,
    sealed_at=NOW,
)


def dossier(record: RunRecord = RECORD, **changed: Any) -> Dossier:
    given = Dossier(
        made_at=NOW,
        made_by="asmith (uid 7)",
        host="labpc-04",
        program={"exlab-watch-agent": "1"},
        record=record,
        run=RunInFull(record.run_path, "resting", record=record),
        creation={"created_at": "2026-04-17T14:32:00Z", "created_by": "asmith"},
        overrides=(),
        rows=(TrailRow(7, "2026-04-17T14:32:00Z", "transition", "CONFOCAL_01", record.run_path, "", "a -> b: c (d)"),),
        files=(FileProof("a.tif", "d" * 64, 5),),
        chain=ChainSummary(29, 29, "e" * 64, 2, 2),
        script=SCRIPT,
    )
    return replace(given, **changed)


def hostile_dossier() -> Dossier:
    """Return a run of which every text that comes from outside is hostile."""
    record = replace(RECORD, run_path=f"/data/{HOSTILE}", project=HOSTILE, destination=HOSTILE)
    entry = OverrideEntry(0, HOSTILE, HOSTILE, None, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    moves = (
        Move(NOW, "discovered", None, RunState.ACQUIRING, HOSTILE, HOSTILE),
        Move(NOW, "proven", RunState.AWAITING_VERIFY, RunState.SEALING, HOSTILE),
    )
    return dossier(
        record,
        run=RunInFull(record.run_path, HOSTILE, record=record, history=moves),
        creation={"created_by": HOSTILE, "template": {"name": HOSTILE}, "lims_project": {"short_id": HOSTILE}},
        overrides=((entry, OverrideStanding.ACTIVE),),
        rows=(TrailRow(1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        files=(FileProof(HOSTILE, "d" * 64),),
        chain=ChainSummary(1, 1, "e" * 64, 0, 0, (HOSTILE,), (HOSTILE,)),
        made_by=HOSTILE,
    )


class Seen(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
