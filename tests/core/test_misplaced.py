"""What is told of a `creation.json` that stands where no run can be, case by case: the folder at fault, and the next step."""

from __future__ import annotations

import pytest

from exlab_watch_agent.core.creation import level_in
from exlab_watch_agent.core.misplaced import (
    UNKNOWN_EQUIPMENT,
    Stray,
    folder_problems,
    is_meant_as_equipment,
    is_out_of_place,
    is_searched,
)

ROOT = "/data/SCOPE_01"
RUN = "Run_2026-04-17T14-32"
OTHER = "Run_2026-04-18T10-00"


def told(*paths: str, root: str = ROOT, is_known: bool = True) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Return folder at fault, below `/data/` → kind, sentence, folders with a `creation.json` below it."""
    strays = [Stray(root, root.rpartition("/")[2], tuple(filter(None, path.split("/"))), is_known) for path in paths]
    return {
        path.removeprefix("/data/"): (problem.detail["kind"], problem.message, problem.runs)
        for path, problem in folder_problems(strays).items()
    }


SLIPS = [
    # where the creation.json is; the folder at fault; kind; what is wrong and what helps
    (
        f"P/runs/{RUN}",
        "P/runs",
        "run_parent",
        f"1 folder in it has a creation.json ({RUN}) where no run can be, so it is not copied: runs are looked for in "
        "Runs only, spelled so; move the runs in it to /data/SCOPE_01/P/Runs",
    ),
    (
        f"P/testruns/Test{RUN}",
        "P/testruns",
        "run_parent",
        "runs are looked for in TestRuns only, spelled so; move the runs in it to /data/SCOPE_01/P/TestRuns",
    ),
    (
        f"P/2026-04/{RUN}",
        "P/2026-04",
        "run_parent",
        "runs are looked for in Runs and TestRuns only; move the runs in it to /data/SCOPE_01/P/Runs",
    ),
    (
        f"P/Runs/April/{RUN}",
        "P/Runs/April",
        "too_deep",
        "these are one level too deep; move the runs in it one level up, to /data/SCOPE_01/P/Runs",
    ),
    (
        f"P/Runs/Runs/{RUN}",
        "P/Runs/Runs",
        "too_deep",
        "these are one level too deep; move the runs in it one level up, to /data/SCOPE_01/P/Runs",
    ),
    (
        f"group/P/TestRuns/Test{RUN}",
        "group/P/TestRuns",
        "too_deep",
        "it is one level too deep; move what is in it to /data/SCOPE_01/<project>/TestRuns",
    ),
    (
        f"Runs/{RUN}",
        "Runs",
        "no_project",
        "the folder of a project is missing above it; move what is in it to /data/SCOPE_01/<project>/Runs",
    ),
    (
        f"P/{RUN}",
        f"P/{RUN}",
        "no_run_parent",
        "it has a creation.json, and is where no run can be, so it is not copied: it is not in a folder Runs or TestRuns; "
        "move it into /data/SCOPE_01/P/Runs",
    ),
    (
        f"P/Test{RUN}",
        f"P/Test{RUN}",
        "no_run_parent",
        "it is not in a folder Runs or TestRuns; move it into /data/SCOPE_01/P/TestRuns",
    ),
    (
        RUN,
        RUN,
        "not_a_run_folder",
        "it is too high up to be a run's folder; move the run to a folder of its own, /data/SCOPE_01/<project>/Runs/<run>",
    ),
    ("P/Runs", "P/Runs", "not_a_run_folder", "too high up"),
    ("", "", "not_a_run_folder", "too high up"),
]


@pytest.mark.parametrize(("path", "at_fault", "kind", "sentence"), SLIPS, ids=[slip[0] or "root" for slip in SLIPS])
def test_one_folder_is_at_fault_and_the_sentence_says_where_it_should_stand(
    path: str, at_fault: str, kind: str, sentence: str
) -> None:
    ((where, (told_kind, message, runs)),) = told(path).items()
    assert where == f"SCOPE_01/{at_fault}".rstrip("/")
    assert told_kind == kind
    assert message.endswith(sentence) or sentence in message
    assert runs == (f"{ROOT}/{path}".rstrip("/"),)


def test_what_stands_wrong_for_one_reason_is_one_problem_of_all_of_them() -> None:
    found = told(f"P/runs/{OTHER}", f"P/runs/{RUN}", f"P/Runs/April/{RUN}", f"Q/runs/{RUN}")
    assert list(found) == ["SCOPE_01/P/Runs/April", "SCOPE_01/P/runs", "SCOPE_01/Q/runs"]
    _, message, runs = found["SCOPE_01/P/runs"]
    assert message.startswith(f"2 folders in it have a creation.json (such as {RUN}) where no run can be")
    assert runs == (f"{ROOT}/P/runs/{RUN}", f"{ROOT}/P/runs/{OTHER}")


def test_an_instrument_that_the_config_lacks_is_one_problem_that_says_so() -> None:
    found = told(f"P/Runs/{RUN}", f"Q/TestRuns/Test{RUN}", root="/data/FLOW_01", is_known=False)
    assert found == {
        "FLOW_01": (
            UNKNOWN_EQUIPMENT,
            f"2 folders in it have a creation.json (such as P/Runs/{RUN}) where no run can be, so they are not copied: "
            "the config has no equipment FLOW_01 with this local_root; add it and start the agent again, or move the folder "
            "elsewhere",
            (f"/data/FLOW_01/P/Runs/{RUN}", f"/data/FLOW_01/Q/TestRuns/Test{RUN}"),
        )
    }


@pytest.mark.parametrize(
    ("path", "level", "is_out"),
    [
        ("", "equipment", False),
        ("", "run", True),
        ("P", "project", False),
        ("P", None, False),
        ("P", "run", True),
        (RUN, "project", True),
        (RUN, None, True),
        ("P/Runs", "equipment", False),
        ("P/TestRuns", None, False),
        ("P/Runs", "run", True),
        ("P/other", "project", True),
        (f"P/Runs/{RUN}", "run", False),
        ("P/TestRuns/any name", None, False),
        (f"P/runs/{RUN}", "project", True),
        (f"P/Runs/x/{RUN}", "run", True),
    ],
)
def test_the_files_of_projects_and_of_the_levels_above_runs_are_in_their_place(
    path: str, level: str | None, is_out: bool
) -> None:
    assert is_out_of_place(tuple(filter(None, path.split("/"))), level) is is_out


@pytest.mark.parametrize(
    ("path", "is_in"),
    [
        ("", True),
        ("P", True),
        ("P/runs", True),
        ("P/raw", True),
        ("P/Runs", False),  # the scan lists it
        ("P/Runs/x", True),
        ("P/raw/2026", False),
        ("P/raw/runs", True),
        ("G/P/Runs/x", False),
        ("P/Runs/x/y", False),
    ],
)
def test_the_search_goes_no_deeper_than_one_slip_can_lead(path: str, is_in: bool) -> None:
    assert is_searched(tuple(filter(None, path.split("/")))) is is_in


@pytest.mark.parametrize(
    ("name", "is_meant"),
    [
        ("FLOW_01", True),
        ("SCOPE_01", False),
        ("scope_01", True),
        ("Scope_01", True),
        ("backup", False),
        ("A" * 33, False),
    ],
)
def test_only_what_could_be_an_instrument_s_folder_counts_as_one(name: str, is_meant: bool) -> None:
    assert is_meant_as_equipment(name, {"SCOPE_01"}) is is_meant


@pytest.mark.parametrize(
    ("data", "level"),
    [
        (b'{"level": "project"}', "project"),
        (b'{"schema_version": "1.0"}', "run"),
        (b"{", None),
        (b"[1]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_level_of_a_file_is_a_run_s_where_it_names_none(data: bytes, level: str | None) -> None:
    assert level_in(data) == level
