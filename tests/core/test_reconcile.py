"""What a scan tells, and when a root is in doubt: only its content answers, its identity never does alone."""

from __future__ import annotations

from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.reconcile import Known, SeenRun, differences, root_doubt

A, B, C = ("/lab/EQ/P/Runs/Run_2026-04-17T14-0" + digit for digit in "012")
OLD, NEW = FileSignature(1, 10, 5), FileSignature(2, 10, 5)


def seen(path: str, signature: FileSignature | None = OLD) -> SeenRun:
    leaf = path.rpartition("/")[2]
    return SeenRun(RunPlace(path, "EQ", "P", "Runs", leaf), signature)


def test_what_is_as_it_was_taken_in_is_no_difference() -> None:
    found = differences(Known({A: OLD}, {B: OLD}), [seen(A), seen(B)])
    assert (found.changed, found.missing, found.orphans, found.is_any_there) == ({}, (), {}, True)


def test_new_edited_never_read_and_missing_runs_and_orphans_are_told_apart() -> None:
    orphan = "/lab/EQ/P/Runs/Run_x"
    known = Known({A: OLD, B: None, "/lab/EQ/gone": OLD}, {})
    found = differences(known, [seen(A, NEW), seen(B), seen(C), seen(orphan, None), seen("/lab/EQ/P/Runs/notes", None)])
    assert found.changed == {A: NEW, B: OLD, C: OLD}
    assert found.missing == ("/lab/EQ/gone",)
    assert list(found.orphans) == [orphan]
    assert found.runs_total == 5


def test_a_run_folder_that_lost_its_creation_json_does_not_vouch_for_the_root() -> None:
    found = differences(Known({A: OLD}, {}), [seen(A, None)])
    assert (found.is_any_there, found.missing) == (False, ())


def doubt(
    known: Known,
    *,
    expected: tuple[str, ...] = (A,),
    is_any_there: bool = False,
    is_empty: bool = False,
    volume: str = "v",
) -> str:
    return (
        root_doubt(
            root="/lab/EQ",
            equipment_id="EQ",
            known=known,
            expected=expected,
            is_any_there=is_any_there,
            is_empty=is_empty,
            volume=volume,
        )
        or ""
    )


def test_an_empty_root_waits_whatever_its_volume_when_runs_are_expected_there() -> None:
    for volume in (None, "v", "w"):
        text = doubt(Known({A: OLD}, {}, volume), is_empty=True)
        assert "is empty although 1 known run is expected there" in text
        assert "scan --accept-root EQ" in text
    assert not doubt(Known({}, {}, "v"), expected=(), is_empty=True)


def test_another_volume_waits_until_a_known_run_is_there_or_an_operator_says_so() -> None:
    other = Known({A: OLD, B: OLD}, {}, "before")
    assert "none of 2 known runs is there" in doubt(other, expected=(A, B))
    assert not doubt(other, expected=(A, B), is_any_there=True)
    assert not doubt(Known({A: OLD}, {}, "before", accepted_by="asmith"))
    assert not doubt(Known({A: OLD}, {}, "before", accepted_volume="v"))
    assert doubt(Known({A: OLD}, {}, "before", accepted_volume="another"))
    assert not doubt(Known({A: OLD}, {}, "before"), expected=())


def test_runs_that_are_gone_from_the_same_volume_or_before_any_was_remembered_are_each_on_their_own() -> None:
    assert not doubt(Known({A: OLD}, {}, "v"))
    assert not doubt(Known({A: OLD}, {}, None))
