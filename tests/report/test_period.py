"""What counts as what in a period, and that its summary is told in two forms that say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exlab_watch_agent.core.week import Happening
from exlab_watch_agent.report.dossier import HOW_READ
from exlab_watch_agent.report.pages import ChainSummary, digest_of
from exlab_watch_agent.report.period import Period
from exlab_watch_agent.report.tally import ROWS_MAX, Bounds, PeriodTally
from tests.report.reports import HOSTILE, SCRIPT, Seen

DAY = datetime(2026, 4, 17, tzinfo=UTC)
Fact = dict[str, object]


def at(hours: float) -> str:
    """Return a time as the trail writes it, so many hours after the day's beginning."""
    return (DAY + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record_json(job_id: str, equipment_id: str = "SCOPE_01", /, **members: object) -> Fact:
    path = f"/data/{equipment_id}/P/Runs/{job_id}"
    return {"job_id": job_id, "run_path": path, "equipment_id": equipment_id, "project": "P", **members}


class Trail:
    """Facts as they are in a trail, numbered."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def add(self, kind: str, hours: float, **members: object) -> None:
        seq = len(self.facts) + 1
        self.facts.append({"seq": seq, "at": at(hours), "kind": kind, "host": "pc", "chart": "c1", **members})

    def move(self, hours: float, source: str | None, trigger: str, dest: str, record: Fact) -> None:
        move = {"at": at(hours), "trigger": trigger, "source": source, "dest": dest, "reason": "so it was"}
        self.add("transition", hours, move=move, record={**record, "state": dest})

    def synced(self, job_id: str, hours: float, *, equipment_id: str = "SCOPE_01", files: int = 2) -> Fact:
        """Have a run come and be proven within an hour."""
        of_data = {"files_total": files, "bytes_total": files * 10, "discovered_at": at(hours)}
        found = record_json(job_id, equipment_id, **of_data)
        self.move(hours, None, "discovered", "acquiring", found)
        proof = {"ended_at": at(hours + 0.5), "remote": "nowait", "past_cache": True, "bytes": files * 10}
        proven = {**found, "verify_passes": 1, "verified_at": at(hours + 0.5), "passes": [proof]}
        self.move(hours + 0.6, "awaiting_verify", "proven", "sealing", proven)
        sealed = {**proven, "sealed_at": at(hours + 1)}
        self.move(hours + 1, "sealing", "sealed", "verified", sealed)
        return sealed

    def counted(self, **bounds: str) -> PeriodTally:
        tally = PeriodTally(Bounds(**bounds))
        for fact in self.facts:
            tally.take(fact)
        return tally


def period(tally: PeriodTally, **changed: Any) -> Period:
    given: dict[str, Any] = {
        "made_at": DAY + timedelta(days=3),
        "made_by": "asmith (uid 7)",
        "host": "labpc-04",
        "program": {"exlab-watch-agent": "1"},
        "at": DAY + timedelta(days=3),
        "tally": tally,
        "ended": (),
        "waiting": {},
        "chain": ChainSummary(29, 29, "e" * 64, 2, 2),
        "script": SCRIPT,
    }
    return Period(**{**given, **changed})


def total(tally: PeriodTally) -> Mapping[str, int]:
    counts: Mapping[str, int] = period(tally).content()["total"]
    return counts


def test_runs_volumes_and_passes_are_counted_by_instrument_and_in_all() -> None:
    trail = Trail()
    trail.synced("a", 1)
    trail.synced("b", 2, files=3)
    trail.synced("c", 3, equipment_id="SCOPE_02")
    said = period(trail.counted()).content()
    first, second = said["equipment"]
    assert (first["equipment_id"], first["runs_found"], first["runs_sealed"]) == ("SCOPE_01", 2, 2)
    assert (first["files_sealed"], first["bytes_sealed"], first["bytes_proven"]) == (5, 50, 50)
    assert (second["equipment_id"], second["passes"], second["passes_past_cache"]) == ("SCOPE_02", 1, 1)
    assert (said["total"]["runs_found"], said["total"]["passes"], said["total"]["bytes_sealed"]) == (3, 3, 70)
    assert said["passes_read_by"] == {"nowait": 3}


def test_a_run_that_is_sealed_again_after_a_heal_is_no_new_one_and_its_pass_is_one_more() -> None:
    trail = Trail()
    sealed = trail.synced("a", 1)
    trail.move(5, "sealing", "sealed", "verified", {**sealed, "verify_passes": 2, "verified_at": at(4.9)})
    counts = total(trail.counted())
    assert (counts["runs_sealed"], counts["passes"]) == (1, 2)


def test_the_period_begins_with_since_and_ends_before_until_and_knows_what_was_before_it() -> None:
    trail = Trail()
    trail.synced("before", 1)
    trail.synced("within", 10)
    trail.synced("after", 20)
    tally = trail.counted(since=at(10), until=at(20))
    assert total(tally)["runs_found"] == 1
    cover = tally.coverage(DAY + timedelta(hours=20))
    assert (cover["runs"], cover["proven"]) == (2, 2)
    assert [run["run_path"].rpartition("/")[2] for run in cover["oldest"]] == ["before", "within"]


def test_one_instrument_s_summary_has_nothing_of_another_and_what_concerns_all() -> None:
    trail = Trail()
    trail.synced("a", 1)
    trail.synced("b", 1, equipment_id="SCOPE_02")
    trail.add("destination_bound", 2, data={"root": "SCOPE_02 /nas", "marker_id": "m", "accepted_by": "itself"})
    trail.add("operator_command", 3, operator="asmith", data={"command": "verify", "job_id": "b", "login": "asmith"})
    trail.add("operator_command", 3, operator="asmith", data={"command": "bind", "equipment": "SCOPE_02"})
    trail.add("operator_command", 3, data={"command": "look", "run_path": "/data/SCOPE_02/P/Runs/new"})
    trail.add("trail_damaged", 4, data={"found": "line 3 was changed"})
    tally = trail.counted(equipment_id="SCOPE_01")
    said = period(tally).content()
    assert [one["equipment_id"] for one in said["equipment"]] == ["SCOPE_01"]
    assert (said["commands"]["total"], said["coverage"]["runs"]) == (0, 1)
    assert [row["kind"] for row in said["others"]["rows"]] == ["trail_damaged"]
    assert total(trail.counted(equipment_id="SCOPE_02"))["commands"] == 3


def test_what_needed_a_person_what_failed_and_what_went_are_told_with_who_and_why() -> None:
    trail = Trail()
    record = trail.synced("a", 1)
    trail.move(2, "auditing", "copy_damaged", "queued", record)
    incident = {"id": "a/7", "incident": "copy_damaged", "what": "1 file differs"}
    trail.add("incident", 2, record=record, data=incident)
    trail.add("incident", 2, record=record, data={**incident, "id": "a/8"})
    trail.add("incident_healed", 3, record=record, data={"id": "a/7", "incident": "copy_damaged", "healed_by": "a/9"})
    trail.move(4, "acquiring", "refused", "blocked", record_json("b"))
    trail.add("override_added", 5, operator="asmith", record=record_json("b"), data={"id": "o", "reason": "no sample"})
    trail.add("override_revoked", 6, operator="asmith", record=record_json("b"), data={"revokes": "o"})
    away: Fact = {"last_error": {"kind": "network", "message": "it does not answer"}}
    trail.move(7, "running", "put_back", "queued", {**record_json("b"), **away})
    trail.move(8, "cleaning", "removed", "cleaned", record)
    trail.move(9, "cleaned", "audited", "cleaned", record)
    said = period(trail.counted()).content()
    assert (said["incidents"]["total"], said["incidents"]["open"]) == (3, 1)
    assert (said["total"]["incidents"], said["total"]["incidents_healed"]) == (2, 1)
    assert (said["total"]["overrides_added"], said["total"]["overrides_revoked"]) == (1, 1)
    assert (said["total"]["deletions"], said["total"]["bytes_deleted"]) == (1, 20)
    assert [row["what"] for row in said["stops"]["rows"]] == ["acquiring -> blocked: refused (so it was)"]
    assert said["failed_attempts"] == [{"equipment_id": "SCOPE_01", "kind": "network", "total": 1}]
    text = Seen(period(trail.counted()).to_html(how_read=HOW_READ)).text
    assert "2 incidents within the period; 1 not healed." in text
    assert "no sample" in text


def test_an_incident_from_before_the_period_is_still_open_in_it() -> None:
    trail = Trail()
    record = trail.synced("a", 1)
    trail.add("incident", 2, record=record, data={"id": "a/7", "incident": "copy_damaged", "what": "1 file differs"})
    made = period(trail.counted(since=at(10)))
    content = made.content()
    assert (content["incidents"]["total"], content["incidents"]["open"]) == (0, 1)
    assert not made.is_good(content)


def test_coverage_says_how_old_each_proof_is_and_names_what_is_not_proven() -> None:
    trail = Trail()
    for number, days in enumerate((0, 0, 3, 40, 400)):
        trail.synced(f"run{number}", -24 * days)
    trail.move(5, None, "discovered", "acquiring", record_json("new", discovered_at=at(5)))
    # Sealed once and read once, and nothing proves it now: by its state, or because its passes are void.
    was_proven: Fact = {"sealed_at": at(1), "verified_at": at(1)}
    lost = record_json("lost", discovered_at=at(2), verify_passes=1, **was_proven)
    trail.move(6, "auditing", "copy_damaged", "queued", lost)
    void = record_json("void", discovered_at=at(6), verify_passes=0, **was_proven)
    trail.move(6, "auditing", "audit_interrupted", "verified", void)
    cover = trail.counted().coverage(DAY + timedelta(hours=12))
    assert (cover["runs"], cover["proven"], cover["not_proven"]["total"]) == (8, 5, 3)
    assert [(one["within_days"], one["runs"]) for one in cover["by_age"]] == [
        (1, 2), (7, 1), (30, 0), (90, 1), (365, 0), (None, 1)
    ]  # fmt: skip
    assert [run["run_path"].rpartition("/")[2] for run in cover["not_proven"]["runs"]] == ["lost", "new", "void"]
    assert cover["states"] == {"acquiring": 1, "queued": 1, "verified": 6}


def test_a_record_that_was_restored_after_damage_is_not_counted_as_a_run_that_came() -> None:
    trail = Trail()
    restored = record_json("a", state="verified", sealed_at=at(0), verify_passes=1, verified_at=at(0))
    trail.add("run_restored", 1, record=restored)
    counts = total(trail.counted())
    assert (counts["runs_found"], counts["runs_sealed"], counts["passes"]) == (0, 0, 0)
    assert trail.counted().coverage(DAY)["proven"] == 1


def test_of_many_events_the_first_are_listed_and_all_are_counted() -> None:
    trail = Trail()
    for number in range(ROWS_MAX + 7):
        trail.add("operator_command", 1, data={"command": "scan", "login": f"user{number}"})
    said = period(trail.counted()).content()["commands"]
    assert (said["total"], len(said["rows"]), said["rows"][0]["operator"]) == (ROWS_MAX + 7, ROWS_MAX, "user0")
    assert f"of {ROWS_MAX + 7}; audit log has all." in Seen(period(trail.counted()).to_html(how_read=HOW_READ)).text


def test_a_reading_that_is_done_again_counts_nothing_twice() -> None:
    trail = Trail()
    trail.synced("a", 1)
    tally = trail.counted()
    once = period(tally).content()
    tally.begin()
    for fact in trail.facts:
        tally.take(fact)
    assert period(tally).content() == once


@pytest.mark.parametrize(
    "fact",
    [
        {},
        {"kind": "of a later version", "at": at(1), "data": {"x": 1}},
        {"kind": "transition", "at": at(1), "record": [], "move": "x"},
        {"kind": "transition", "at": at(1), "record": {"job_id": "a", "verified_at": "yesterday", "passes": ["x"]}},
    ],
)
def test_a_line_of_any_shape_is_taken(fact: Fact) -> None:
    tally = PeriodTally(Bounds())
    tally.take(fact)
    assert period(tally).to_html(how_read=HOW_READ)


def test_outages_are_told_from_the_diary_and_as_they_are_now() -> None:
    ended = Happening(DAY, "outage_ended", "SCOPE_01", "the NAS could not be used from 1 to 2")
    made = period(PeriodTally(Bounds()), ended=(ended,), waiting={"SCOPE_02": (DAY, "it does not answer")})
    text = Seen(made.to_html(how_read=HOW_READ)).text
    assert "SCOPE_01: the NAS could not be used from 1 to 2" in text
    assert "SCOPE_02: since 2026-04-17T00:00:00Z, and not ended as far as is known: it does not answer" in text


def test_an_empty_period_is_told_as_one() -> None:
    text = Seen(period(PeriodTally(Bounds("SCOPE_01", at(0), at(24)))).to_html(how_read=HOW_READ)).text
    assert "2026-04-17T00:00:00Z to 2026-04-18T00:00:00Z" in text
    assert "No line of the trail is of this period." in text


def test_both_forms_carry_the_digest_of_the_same_content_and_the_script() -> None:
    trail = Trail()
    trail.synced("a", 1)
    made = period(trail.counted())
    said = json.loads(json.dumps(made.to_json()))
    digest = said.pop("digest")
    assert digest == digest_of(said)
    text = Seen(made.to_html(how_read=HOW_READ)).text
    assert digest in text
    assert SCRIPT in text
    assert said["verify_script"]["text"] == SCRIPT


def hostile_trail() -> Trail:
    """Return a trail of which every text that comes from outside is hostile."""
    trail = Trail()
    record = {**record_json("a"), "run_path": HOSTILE, "equipment_id": HOSTILE, "project": HOSTILE}
    trail.move(1, HOSTILE, HOSTILE, "blocked", record)
    trail.add("incident", 2, operator=HOSTILE, record=record, data={"id": HOSTILE, "what": HOSTILE})
    trail.add("operator_command", 3, operator=HOSTILE, data={"command": HOSTILE, "reason": HOSTILE, "login": HOSTILE})
    trail.add(HOSTILE, 4, data={"root": HOSTILE})
    return trail


def test_names_are_text_and_nothing_else() -> None:
    html = period(hostile_trail().counted(), made_by=HOSTILE, host=HOSTILE).to_html(how_read=HOW_READ)
    seen = Seen(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in seen.tags}
    assert not [attributes for _, attributes in seen.tags if {"src", "href", "onclick"} & attributes.keys()]
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "<script>alert(1)</script>" in seen.text
