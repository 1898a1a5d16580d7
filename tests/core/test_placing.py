"""A copy that waits gets its names in few moves, and nothing is ever nested."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.placing import folders_of, plan_moves

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


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
