"""A run's chain of custody: both forms say the same, and no name in it is anything but text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from exlab_watch_agent.core.creation import OverrideEntry, RunIdentity
from exlab_watch_agent.core.overrides import OverrideStanding
from exlab_watch_agent.core.passes import HowRead
from exlab_watch_agent.core.record import LastError, RunRecord
from exlab_watch_agent.report.dossier import HOW_READ, ChainSummary, Dossier, FileProof, digest_of, origin_of
from exlab_watch_agent.report.status import RunInFull
from exlab_watch_agent.report.trail import TrailRow
from exlab_watch_agent.statechart import RunState

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
    )
    return replace(given, **changed)


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


def test_it_says_what_was_proven_and_what_was_not() -> None:
    text = Seen(dossier().to_html()).text
    assert "1 file, 5 bytes: proven equal on both sides in 1 pass" in text
    assert "What this does not prove" in text
    assert "a.tif" in text
    assert "d" * 64 in text.replace(" ", "")
    not_proven = replace(RECORD, state=RunState.CONFLICT)
    assert "This run is not proven: its state is conflict" in Seen(dossier(not_proven).to_html()).text


def verdict_of(made: Dossier) -> str:
    html = made.to_html()
    return html[html.index('<div class="verdict') : html.index("</div>")]


def test_a_sealed_copy_that_nothing_proves_now_is_not_called_proven() -> None:
    assert "verdict good" in verdict_of(dossier())
    unread = replace(RECORD, verify_passes=0, last_error=LastError("unknown", "the copy cannot be read back"))
    said = verdict_of(dossier(unread))
    assert "verdict bad" in said
    assert "nothing proves its copy now: the copy cannot be read back" in said
    broken = ChainSummary(29, 29, "e" * 64, 2, 2, against=("line 7 was changed",))
    assert "verdict bad" in verdict_of(dossier(chain=broken))


def test_who_was_not_asked_about_the_trail_is_said() -> None:
    away = ChainSummary(29, 29, "e" * 64, 2, 0, unasked=("CONFOCAL_01: the NAS does not answer",))
    text = Seen(dossier(chain=away).to_html()).text
    assert "2 in its own folder (the store, the heartbeat), 0 on the NAS" in text
    assert "CONFOCAL_01: the NAS does not answer" in text


def test_it_needs_no_script_and_no_network() -> None:
    html = dossier().to_html()
    seen = Seen(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in seen.tags}
    assert not [attributes for _, attributes in seen.tags if {"src", "href"} & attributes.keys()]
    assert "http" not in html
    assert "url(" not in html


def test_both_forms_carry_the_digest_of_the_same_content() -> None:
    given = dossier()
    said = json.loads(json.dumps(given.to_json()))
    digest = said.pop("digest")
    assert digest == digest_of(said)
    assert digest in Seen(given.to_html()).text.replace(" ", "")
    assert digest != dossier(chain=ChainSummary(30, 30, "e" * 64, 2, 2)).to_json()["digest"]


def test_names_are_text_and_nothing_else() -> None:
    record = replace(RECORD, run_path=f"/data/{HOSTILE}", project=HOSTILE, destination=HOSTILE)
    entry = OverrideEntry(0, HOSTILE, HOSTILE, None, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    html = dossier(
        record,
        creation={"created_by": HOSTILE, "template": {"name": HOSTILE}, "lims_project": {"short_id": HOSTILE}},
        overrides=((entry, OverrideStanding.ACTIVE),),
        rows=(TrailRow(1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        files=(FileProof(HOSTILE, "d" * 64),),
        chain=ChainSummary(1, 1, "e" * 64, 0, 0, (HOSTILE,), (HOSTILE,)),
        made_by=HOSTILE,
    ).to_html()
    seen = Seen(html)
    assert "script" not in {tag for tag, _ in seen.tags}
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "<script>alert(1)</script>" in seen.text


@pytest.mark.parametrize(
    "creation", [{}, {"template": "x", "lims_project": [1], "created_at": {"a": 1}}, {"orchestrator": None}]
)
def test_a_creation_json_of_any_shape_is_fine(creation: dict[str, Any]) -> None:
    assert origin_of(creation) == []
    assert dossier(creation=creation).to_html()


def test_every_way_of_reading_has_its_words() -> None:
    assert HOW_READ.keys() == set(HowRead)


def test_many_files_become_an_appendix() -> None:
    many = tuple(FileProof(f"raw/{number:05}.tif", f"{number:064x}", number) for number in range(2_000))
    html = dossier(files=many).to_html()
    assert "Appendix: files" in html
    assert html.count("raw/") == 2_000
