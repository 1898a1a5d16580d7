"""What a push has to do, from what is here and what stands there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS, folders_of, plan_moves, plan_push, wrong_sizes

SECOND = 1_000_000_000
A = FileEntry("a.bin", 10, 5 * SECOND)
B = FileEntry("b.bin", 20, 6 * SECOND)


def test_what_is_not_there_is_copied() -> None:
    plan = plan_push([A, B], {})
    assert plan.copy == (A, B)
    assert (plan.set_aside, plan.bytes_to_copy) == ((), 30)


def test_what_is_there_with_its_size_and_time_is_left_for_the_verifier() -> None:
    plan = plan_push([A, B], {"a.bin": (10, 5 * SECOND)})
    assert plan.copy == (B,)
    assert plan.set_aside == ()


@pytest.mark.parametrize(
    ("size_bytes", "mtime_ns", "is_copied"),
    [
        (10, 5 * SECOND, False),
        (10, None, False),  # the backend keeps no times
        (10, 5 * SECOND + MTIME_TOLERANCE_NS, False),
        (10, 5 * SECOND - MTIME_TOLERANCE_NS, False),
        (10, 5 * SECOND + MTIME_TOLERANCE_NS + 1, True),
        (10, 0, True),
        (9, 5 * SECOND, True),
        (11, None, True),
        (0, 5 * SECOND, True),
    ],
)
def test_what_stands_there_with_other_content_makes_room_and_is_copied(
    size_bytes: int, mtime_ns: int | None, is_copied: bool
) -> None:
    plan = plan_push([A], {"a.bin": (size_bytes, mtime_ns)})
    assert plan.copy == ((A,) if is_copied else ())
    assert plan.set_aside == (("a.bin",) if is_copied else ())


def test_what_a_comparison_found_wrong_makes_room_although_size_and_time_agree() -> None:
    there = {"a.bin": (10, 5 * SECOND), "b.bin": (20, 6 * SECOND)}
    plan = plan_push([A, B], there, wrong={"a.bin", "gone.bin"})
    assert (plan.copy, plan.set_aside) == ((A,), ("a.bin",))
    assert plan_push([A], {}, wrong={"a.bin"}).set_aside == (), "what does not stand there makes no room"


def test_what_the_run_does_not_have_is_never_touched() -> None:
    plan = plan_push([A], {"a.bin": (10, 5 * SECOND), "extra.bin": (1, 1)})
    assert plan.set_aside == ()


def test_missing_files_and_other_sizes_are_evidence_against_a_copy_and_times_are_none() -> None:
    there = {"a.bin": (10, 0), "extra.bin": (1, 1)}
    assert wrong_sizes([A, B], there) == ("b.bin",)
    assert wrong_sizes([A, B], there | {"b.bin": (19, 6 * SECOND)}) == ("b.bin",)
    assert wrong_sizes([A, B], there | {"b.bin": (20, None)}) == ()


names = st.sampled_from(["a", "b", "c", "d/e"])
sizes = st.integers(0, 3)
times = st.integers(0, 4).map(lambda seconds: seconds * SECOND)
inventories = st.dictionaries(names, st.tuples(sizes, times)).map(
    lambda found: [FileEntry(path, size, mtime) for path, (size, mtime) in sorted(found.items())]
)
listings = st.dictionaries(names, st.tuples(sizes, st.none() | times))


@given(inventories, listings)
def test_every_file_is_either_copied_or_present_and_only_copied_ones_make_room(
    files: list[FileEntry], there: dict[str, tuple[int, int | None]]
) -> None:
    plan = plan_push(files, there)
    present = [entry for entry in files if entry not in plan.copy]
    assert [entry for entry in files if entry in plan.copy] == list(plan.copy)
    assert all(entry.path in there for entry in present)
    assert set(plan.set_aside) == {entry.path for entry in plan.copy} & set(there)


@given(inventories, listings)
def test_after_the_plan_was_carried_out_nothing_is_left_to_do(
    files: list[FileEntry], there: dict[str, tuple[int, int | None]]
) -> None:
    plan = plan_push(files, there)
    after = {path: seen for path, seen in there.items() if path not in plan.set_aside}
    after |= {entry.path: (entry.size_bytes, entry.mtime_ns) for entry in plan.copy}
    assert plan_push(files, after).copy == ()
    assert wrong_sizes(files, after) == ()


# --- moves: a copy that waits gets its names in few of them, and nothing is ever nested -----------------------------------

PARTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def test_where_nothing_stands_the_top_entries_are_moved() -> None:
    assert plan_moves(["a", "d/b", "d/e/c", "f/g"], []) == {"": ["a", "d", "f"]}


def test_into_a_folder_that_stands_its_entries_are_moved() -> None:
    assert plan_moves(["d/b", "d/e/c", "d/e/x", "f/g"], ["d"]) == {"d": ["b", "e"], "": ["f"]}


def test_nothing_to_move_is_no_move() -> None:
    assert plan_moves([], ["d"]) == {}


@given(st.sets(PATHS), st.sets(PATHS))
def test_every_file_is_reached_once_and_no_folder_that_stands_is_moved(paths: set[str], standing: set[str]) -> None:
    files = {path for path in paths if not any(other.startswith(path + "/") for other in paths)}
    folders = folders_of(f"{path}/x" for path in standing) - files
    moved = [
        f"{parent}/{name}" if parent else name for parent, names in plan_moves(files, folders).items() for name in names
    ]
    assert not set(moved) & folders
    for path in files:
        assert len([name for name in moved if path == name or path.startswith(name + "/")]) == 1
