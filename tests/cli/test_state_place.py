"""Where a state folder may be: a wrong place is one sentence before anything is made or changed there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_commands import one_line
from tests.lab.lab import Lab, Said

Command = Callable[..., Said]
PLACES: dict[str, Callable[[Lab], Path]] = {
    "in a run": lambda lab: lab.new_run() / "state",
    "in the equipment's folder": lambda lab: lab.local / "SCOPE_01" / "deep" / "state",
    "the equipment's folder": lambda lab: lab.local / "SCOPE_01",
    "in the destination": lambda lab: lab.nas / "SCOPE_01" / "state",
    "in a run, by a link": lambda lab: linked(lab, lab.new_run()) / "state",
    "in the destination, by a link": lambda lab: linked(lab, lab.nas / "SCOPE_01") / "state",
}


def linked(lab: Lab, folder: Path) -> Path:
    link = lab.home / "link"
    link.symlink_to(folder)
    return link


@pytest.mark.parametrize(
    "words", [["run", "--once"], ["sync", "Run_2026-04-17T00-01"], ["bind", "--all", "--yes"]], ids=" ".join
)
@pytest.mark.parametrize("place", PLACES)
def test_a_state_folder_among_the_runs_or_their_copies_is_refused(
    lab: Lab, on: Command, place: str, words: list[str]
) -> None:
    folder = PLACES[place](lab)
    if words[0] == "sync" and "run" not in place:
        lab.new_run("Run_2026-04-17T00-01")
    before = everything(lab)
    said = on(*words, "--state-dir", str(folder))
    assert said.code == 1
    text = one_line(said.err)
    assert str(folder) in text
    assert ("the destination of SCOPE_01" if "destination" in place else "the runs of SCOPE_01") in text
    assert "give another --state-dir" in text
    assert everything(lab) == before


@pytest.mark.parametrize("place", PLACES)
def test_check_says_that_of_a_state_folder(lab: Lab, on: Command, place: str) -> None:
    folder = PLACES[place](lab)
    said = on("check", "--state-dir", str(folder))
    assert said.code == 1
    assert [
        line for line in said.out.splitlines() if line.startswith("NOT") and str(folder) in line and "SCOPE_01" in line
    ]


def test_a_destination_that_is_linked_to_where_the_state_folder_is_counts_by_what_it_is(
    tmp_path: Path, command: Command
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "SCOPE_01").symlink_to(tmp_path / "real")
    lab = Lab(tmp_path, is_bound=False)
    said = command("run", "--once", "--state-dir", str(tmp_path / "real" / "state"), "--config", str(lab.config))
    assert said.code == 1
    assert "the destination of SCOPE_01" in one_line(said.err)
    assert list((tmp_path / "real").iterdir()) == []
    assert not lab.state.exists()


def test_the_config_s_own_state_folder_is_judged_by_the_disk_too(lab: Lab, on: Command) -> None:
    lab.settings["agent"]["state_dir"] = str(linked(lab, lab.local / "SCOPE_01") / "state")
    lab.save_config()
    said = on("run", "--once")
    assert said.code == 1
    assert "the runs of SCOPE_01" in one_line(said.err)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o777])
def test_an_existing_folder_is_never_made_private_without_being_asked(lab: Lab, on: Command, mode: int) -> None:
    folder = lab.home / "mine"
    folder.mkdir()
    folder.chmod(mode)
    said = on("run", "--once", "--state-dir", str(folder))
    assert said.code == 1
    assert f"`chmod 700 {folder}`" in one_line(said.err)
    assert (folder.stat().st_mode & 0o7777, list(folder.iterdir())) == (mode, [])
    folder.chmod(0o700)
    assert (
        on("run", "--once", "--state-dir", str(folder)).code == 3
    )  # the destination is not bound for this state folder


def test_a_folder_with_other_things_in_it_is_not_offered_a_chmod(lab: Lab, on: Command) -> None:
    home = lab.home / "home of asmith"
    home.mkdir(mode=0o755)
    (home / "thesis.docx").write_bytes(b"1")
    text = one_line(on("run", "--once", "--state-dir", str(home)).err)
    assert "give --state-dir a folder of its own" in text
    assert "chmod" not in text
    assert home.stat().st_mode & 0o7777 == 0o755


def test_a_state_folder_below_one_that_everybody_may_write_in_is_refused(lab: Lab, on: Command) -> None:
    above = lab.home / "shared"
    above.mkdir()
    above.chmod(0o777)
    folder = above / "deep" / "state"
    said = on("run", "--once", "--state-dir", str(folder))
    assert said.code == 1
    text = one_line(said.err)
    assert f"{above} may be written by others" in text
    assert "give another --state-dir" in text
    assert list(above.iterdir()) == []
    above.chmod(0o1777)  # as /tmp is: nobody takes away what is another's there
    assert on("run", "--once", "--state-dir", str(folder)).code == 3


def test_a_shared_group_counts_as_others_and_the_account_s_own_does_not(lab: Lab, on: Command) -> None:
    above = lab.home / "shared"
    above.mkdir()
    above.chmod(0o770)
    assert on("run", "--once", "--state-dir", str(above / "state")).code == 3
    if os.geteuid() == 0:
        os.chown(above, -1, 12345)
        assert f"{above} may be written by others" in one_line(
            on("run", "--once", "--state-dir", str(above / "state")).err
        )


def everything(lab: Lab) -> str:
    found = sorted((str(path), path.lstat().st_mode) for top in (lab.local, lab.nas) for path in top.rglob("*"))
    return json.dumps(found)
