"""What of the damage to a copy stays on record: what is one incident, how many are kept, and which give way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exlab_watch_agent.core.incidents import (
    INCIDENTS_KEPT_MAX,
    Incident,
    IncidentKind,
    all_healed,
    incident_of,
    with_incident,
)

NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def incident(turn: int = 1, *files: str, kind: IncidentKind = IncidentKind.COPY_DAMAGED) -> Incident:
    return incident_of(kind, found_by=f"job/{turn}", found_at=NOW, what="a.bin differs", files=files)


def test_an_incident_names_the_first_files_and_counts_all() -> None:
    found = incident(1, *(f"{number:03}.bin" for number in reversed(range(300))))
    assert found.files_total == 300
    assert found.files == ("000.bin", "001.bin", "002.bin", "003.bin", "004.bin")


def test_the_same_damage_found_again_is_one_incident_until_it_is_healed() -> None:
    known = with_incident((), incident(1, "a.bin"))
    assert with_incident(known, incident(2, "a.bin")) == known
    assert len(with_incident(known, incident(2, "a.bin", "b.bin"))) == 2
    healed = all_healed(known, at=LATER, by="job/2")
    assert len(with_incident(healed, incident(3, "a.bin"))) == 2, "it rotted once more"


def test_incidents_of_one_turn_have_names_of_their_own() -> None:
    known = with_incident(with_incident((), incident(1, "a.bin")), incident(1, "a.bin", "b.bin"))
    assert [one.id for one in known] == ["job/1", "job/1 2"]


def test_all_that_was_wrong_is_healed_by_one_pass_and_stays_healed_by_that_one() -> None:
    healed = all_healed(with_incident((), incident(1, "a.bin")), at=NOW, by="job/2")
    assert all_healed(healed, at=LATER, by="job/3") is healed
    both = all_healed(with_incident(healed, incident(4, "b.bin")), at=LATER, by="job/5")
    assert [(one.healed_at, one.healed_by) for one in both] == [(NOW, "job/2"), (LATER, "job/5")]


def test_what_is_not_healed_gives_way_last() -> None:
    known = with_incident((), incident(0, "first.bin"))
    for turn in range(1, 2 * INCIDENTS_KEPT_MAX):
        known = with_incident(known, incident(turn, f"{turn}.bin"))
        if turn % 2:
            known = (known[0], *all_healed(known[1:], at=LATER, by=f"job/{turn}"))
    assert len(known) == INCIDENTS_KEPT_MAX
    assert known[0].files == ("first.bin",)
    assert known[-1].id == f"job/{2 * INCIDENTS_KEPT_MAX - 1}"
