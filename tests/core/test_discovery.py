"""Path → run, and a burst of file events → what to look at."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.discovery import (
    RunPlace,
    destination_of,
    looks_like_run,
    place_of,
    runs_to_look_at,
)
from exlab_watch_agent.core.policy import Layout

ROOT = "/data/lab/CONFOCAL_01"
ROOTS = {"CONFOCAL_01": ROOT, "FLOW_01": "/data/lab/FLOW_01"}
LEAF = "Run_2026-04-17T14-32"
RUN = f"{ROOT}/PROJ-0042/Runs/{LEAF}"

# A segment as any file system can give it, surrogate escapes included; never "." or "..", which are no names.
NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12).filter(lambda n: n not in {".", ".."})
LEAVES = NAMES.filter(lambda n: not n.startswith("."))
PROJECTS = NAMES.filter(lambda n: n != ".exlab-wizard")


def posix_place(path: str, roots: dict[str, str] = ROOTS) -> RunPlace | None:
    return place_of(path, roots, flavour=PurePosixPath)


def look(*paths: str) -> tuple[frozenset[str], frozenset[str]]:
    return runs_to_look_at(paths, ROOTS, flavour=PurePosixPath)


@pytest.mark.parametrize(
    ("leaf", "is_run_like"),
    [
        ("Run_2026-04-17T14-32", True),
        ("TestRun_2026-04-17T14-32", True),
        ("Run_2026-04-17T14-32-59", True),
        ("Run_2026-04-17T14-32 ", True),
        ("Run_2026-04-17T14-32\n", True),
        ("Run_2026-04-17T14:32", True),
        ("Run_2026-13-17T14-32", True),
        ("Run_2026-04-32T14-32", True),
        ("Run_2026-04-17T24-00", True),
        ("Run_2026-04-17T14-60", True),
        ("Run_٢٠٢٦-04-17T14-32", True),
        ("Run_<date>", True),
        ("Run_", True),
        ("run_2026-04-17T14-32", False),
        ("Run-2026-04-17T14-32", False),
        ("MyRun_2026-04-17T14-32", False),
        ("notes", False),
        ("", False),
    ],
)
def test_a_name_that_is_meant_as_a_run_is_one_well_formed_or_not(leaf: str, is_run_like: bool) -> None:
    assert looks_like_run(leaf) == is_run_like


@pytest.mark.parametrize("parent_folder", ["Runs", "TestRuns"])
@pytest.mark.parametrize(
    "leaf", [LEAF, "TestRun_2026-04-17T14-32", "Run_<date>", f"{LEAF} ", "{{ name }}", "Run_a\\b", "Run_\udcff"]
)
def test_a_run_whose_name_breaks_the_rules_is_still_found(parent_folder: str, leaf: str) -> None:
    path = f"{ROOT}/Cortex Q3 Pilot/{parent_folder}/{leaf}"
    assert posix_place(path) == RunPlace(path, "CONFOCAL_01", "Cortex Q3 Pilot", parent_folder, leaf)


@pytest.mark.parametrize(
    "path",
    [
        ROOT,
        f"{ROOT}/PROJ-0042",
        f"{ROOT}/PROJ-0042/Runs",
        f"{RUN}/raw",
        f"{ROOT}/Runs/{LEAF}",
        f"{ROOT}/a/b/Runs/{LEAF}",
        f"{ROOT}/PROJ-0042/runs/{LEAF}",
        f"{ROOT}/PROJ-0042/RUNS/{LEAF}",
        f"{ROOT}/PROJ-0042/Testruns/{LEAF}",
        f"{ROOT}/PROJ-0042/Results/{LEAF}",
        f"{ROOT}/PROJ-0042/Runs/.exlab-wizard",
        f"{ROOT}/PROJ-0042/Runs/.trash",
        f"{ROOT}/.exlab-wizard/Runs/{LEAF}",
        f"{ROOT}2/PROJ-0042/Runs/{LEAF}",
        f"/data/lab/UNKNOWN_01/PROJ-0042/Runs/{LEAF}",
        f"{ROOT}/PROJ-0042/Runs/../../PROJ-0043/Runs/{LEAF}",
        f"{ROOT}/../Runs/{LEAF}",
        f"PROJ-0042/Runs/{LEAF}",
        "",
    ],
)
def test_what_is_not_exactly_a_folder_in_runs_or_testruns_is_no_place(path: str) -> None:
    assert posix_place(path) is None


@pytest.mark.parametrize("spelling", [f"{RUN}/", f"{ROOT}//PROJ-0042/./Runs/{LEAF}"])
@pytest.mark.parametrize("root", [ROOT, f"{ROOT}/", "/data//lab/CONFOCAL_01"])
def test_one_run_has_one_spelling_however_root_and_path_are_written(spelling: str, root: str) -> None:
    place = posix_place(spelling, {"CONFOCAL_01": root})
    assert place is not None
    assert place.run_path == RUN


def test_a_run_belongs_to_the_innermost_root() -> None:
    roots = {"OUTER": "/data", "INNER": "/data/p/Runs/x"}
    place = posix_place("/data/p/Runs/x/p/Runs/Run_1", roots)
    assert place is not None
    assert place.equipment_id == "INNER"


def test_on_windows_both_separators_and_any_case_of_the_root_mean_the_same_run() -> None:
    roots = {"FLOW_01": "D:/Lab/FLOW_01"}
    run = rf"D:\Lab\FLOW_01\My Project\Runs\{LEAF}"
    for path in (run, f"d:/lab/flow_01/My Project/Runs/{LEAF}"):
        assert place_of(path, roots, flavour=PureWindowsPath) == RunPlace(run, "FLOW_01", "My Project", "Runs", LEAF)
        assert place_of(path.replace("Runs", "runs"), roots, flavour=PureWindowsPath) is None
    creation = rf"d:\LAB\FLOW_01\My Project\Runs\{LEAF}\.exlab-wizard\creation.json"
    assert runs_to_look_at([creation], roots, flavour=PureWindowsPath) == (frozenset([run]), frozenset())
    place = place_of(run, roots, flavour=PureWindowsPath)
    assert place is not None
    assert place.relative == f"My Project/Runs/{LEAF}"


def test_on_windows_a_share_can_be_the_root() -> None:
    place = place_of(r"\\pc\lab\EQ\p\Runs\Run_1", {"EQ": "//pc/lab/EQ"}, flavour=PureWindowsPath)
    assert place == RunPlace(r"\\pc\lab\EQ\p\Runs\Run_1", "EQ", "p", "Runs", "Run_1")


@pytest.mark.parametrize(
    ("path", "equipment_id"),
    [
        (ROOT, "CONFOCAL_01"),
        (f"{ROOT}/PROJ-0042", "CONFOCAL_01"),
        (f"{ROOT}/PROJ-0042/Runs", "CONFOCAL_01"),
        ("/data/lab/FLOW_01/x y/TestRuns", "FLOW_01"),
        (f"{ROOT}/PROJ-0042/runs", None),
        (f"{ROOT}/PROJ-0042/readme.txt", None),
        (f"{ROOT}/PROJ-0042/Results/Runs", None),
        (f"{ROOT}/.exlab-wizard", None),
        (f"{ROOT}/.exlab-wizard/Runs", None),
        (f"{ROOT}/PROJ-0042/.exlab-wizard", None),
        ("/data/lab", None),
        ("/data/lab/OTHER", None),
        (f"{ROOT}/a/../b", None),
    ],
)
def test_a_folder_above_the_runs_asks_for_a_rescan_of_its_equipment_and_is_about_no_run(
    path: str, equipment_id: str | None
) -> None:
    assert look(path) == (frozenset(), frozenset() if equipment_id is None else {equipment_id})


@pytest.mark.parametrize("below", ["", "/.exlab-wizard", "/.exlab-wizard/creation.json", "/done.flag", "/raw"])
def test_the_run_its_direct_children_and_its_creation_file_are_a_reason_to_look(below: str) -> None:
    assert look(RUN + below) == (frozenset([RUN]), frozenset())


@pytest.mark.parametrize(
    "below",
    [
        "/.exlab-wizard/creation.json.lock",
        "/.exlab-wizard/.creation.json.k3j2.tmp",
        "/.exlab-wizard/wizard.labpc-04.log",
        "/.exlab-wizard/checksums.sha256",
        "/.exlab-wizard/.trash-7/creation.json",
        "/.exlab-wizard/.trash-7",
        "/raw/a.tif",
        "/raw/deep/creation.json",
    ],
)
def test_the_agents_own_writes_and_deeper_data_are_no_reason_to_look(below: str) -> None:
    assert look(RUN + below) == (frozenset(), frozenset())


def test_a_cache_folder_above_the_runs_is_no_run() -> None:
    above = [f"{ROOT}{folder}/.exlab-wizard/creation.json" for folder in ("", "/PROJ-0042", "/PROJ-0042/Runs")]
    assert look(*above) == (frozenset(), frozenset())


def test_a_burst_is_boiled_down_to_each_run_and_each_equipment_once() -> None:
    other = f"/data/lab/FLOW_01/p/TestRuns/{LEAF}"
    burst = [f"{RUN}/{number}.tif" for number in range(500)] * 3
    burst += [other, f"{other}/.exlab-wizard/creation.json", ROOT, f"{ROOT}/new project", "/elsewhere"]
    assert look(*burst) == (frozenset([RUN, other]), frozenset(["CONFOCAL_01"]))


@given(PROJECTS, st.sampled_from(["Runs", "TestRuns"]), LEAVES, st.lists(NAMES, max_size=1))
def test_a_run_and_what_lies_directly_in_it_lead_to_its_place(
    project: str, parent_folder: str, leaf: str, below: list[str]
) -> None:
    run = f"{ROOT}/{project}/{parent_folder}/{leaf}"
    assert posix_place(run) == RunPlace(run, "CONFOCAL_01", project, parent_folder, leaf)
    assert look("/".join([run, *below])) == (frozenset([run]), frozenset())


SEGMENTS = st.sampled_from(
    [
        "/data/lab",
        "CONFOCAL_01",
        "FLOW_01",
        "p",
        "Runs",
        "TestRuns",
        "Run_1",
        ".exlab-wizard",
        "creation.json",
        "..",
        ".",
    ]
)


@given(st.lists(st.lists(SEGMENTS | NAMES, max_size=8).map("/".join), max_size=5))
def test_a_burst_asks_for_nothing_that_its_single_paths_are_not_about(paths: list[str]) -> None:
    runs, rescans = look(*paths)
    single = [look(path) for path in paths]
    assert runs == frozenset().union(*(runs for runs, _ in single))
    assert rescans == frozenset().union(*(rescans for _, rescans in single))
    assert all(posix_place(run) is not None for run in runs)
    assert (runs, rescans) == look(*reversed(paths))


@given(PROJECTS, LEAVES)
def test_a_destination_is_below_the_root_and_names_the_run_folder_last(project: str, leaf: str) -> None:
    place = RunPlace(f"{ROOT}/{project}/Runs/{leaf}", "CONFOCAL_01", project, "Runs", leaf)
    assert destination_of(place, Layout.MIRROR) == f"{project}/Runs/{leaf}"
    assert destination_of(place, Layout.FLAT) == leaf
