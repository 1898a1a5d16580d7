"""A run's chain of custody: both forms say the same, and no name in it is anything but text."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from markupsafe import escape

from exlab_watch_agent.core.passes import HowRead, LocalSide, Pass
from exlab_watch_agent.core.record import LastError
from exlab_watch_agent.report.dossier import HOW_READ, Dossier, FileProof, origin_of
from exlab_watch_agent.report.pages import ChainSummary, digest_of
from exlab_watch_agent.statechart import RunState
from tests.report.reports import NOW, RECORD, SCRIPT, Seen, dossier, hostile_dossier


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


def test_an_only_copy_is_not_said_to_be_equal_on_both_sides() -> None:
    proof = Pass(
        "job/9", NOW, NOW, "", 0.0, 0.0, "m" * 32, "/mnt/nas", "c" * 64, 1, 5, HowRead.O_DIRECT, past_cache=True
    )
    passes = (proof, replace(proof, id="job/11", local=LocalSide.MANIFEST))
    made = dossier(replace(RECORD, state=RunState.CLEANED, gone_at=NOW, passes=passes))
    said = verdict_of(made)
    assert "verdict good" in said
    assert "the NAS has the only copy, and every SHA-256 of it was that of the sealed manifest at" in said
    text = Seen(made.to_html()).text
    assert "both sides in" not in text
    assert text.index("the local files") < text.index("the sealed manifest alone")
    lost = replace(
        RECORD, state=RunState.CLEANED, verify_passes=0, last_error=LastError("only_copy_lost", "it is not there")
    )
    assert "nothing proves its copy now: it is not there" in verdict_of(dossier(lost))


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
    assert "http:" not in html.replace(escape(SCRIPT), "")
    assert "https:" not in html.replace(escape(SCRIPT), "")
    assert "url(" not in html


def test_the_script_that_checks_a_trail_can_be_copied_out_of_both_forms() -> None:
    given = dossier()
    assert SCRIPT in Seen(given.to_html()).text
    said = given.to_json()["verify_script"]
    assert said == {"name": "verify_trail.py", "sha256": sha256(SCRIPT.encode()).hexdigest(), "text": SCRIPT}


def test_both_forms_carry_the_digest_of_the_same_content() -> None:
    given = dossier()
    said = json.loads(json.dumps(given.to_json()))
    digest = said.pop("digest")
    assert digest == digest_of(said)
    assert digest in Seen(given.to_html()).text.replace(" ", "")
    assert digest != dossier(chain=ChainSummary(30, 30, "e" * 64, 2, 2)).to_json()["digest"]


def test_names_are_text_and_nothing_else() -> None:
    html = hostile_dossier().to_html()
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
