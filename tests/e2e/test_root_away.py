"""A root that goes away, comes back, or is another one: the lane waits with a reason, and no run is ever believed gone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.lab import CACHE, Equipment, Lab, put, until

SLOW_MBPS = 8.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), is_quick=True)
    yield lab
    while subprocess.run(["umount", "--lazy", str(root_of(lab))], capture_output=True, check=False).returncode == 0:
        pass


def root_of(lab: Lab) -> Path:
    return lab.local / "SCOPE_01"


def mount(volume: Path, lab: Lab) -> None:
    volume.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(volume), str(root_of(lab))], check=True)


def unmount(lab: Lab) -> None:
    """As a disk that is pulled: at once, whoever has files open there."""
    subprocess.run(["umount", "--lazy", str(root_of(lab))], check=True)


def root_problem(lab: Lab) -> str:
    return str(lab.live().get("lanes", {}).get("SCOPE_01", {}).get("root_problem") or "")


@contextmanager
def away(lab: Lab, volume: Path) -> Iterator[None]:
    unmount(lab)
    until(lambda: "is empty although" in root_problem(lab), "the lane waits")
    yield
    mount(volume, lab)
    until(lambda: not root_problem(lab), "the lane goes on", wait_s=60)


def test_a_root_that_is_unmounted_is_waited_for_and_nothing_is_written_or_believed_meanwhile(lab: Lab) -> None:
    volume = lab.home / "volume"
    mount(volume, lab)
    with lab.running():
        synced, waiting = lab.new_run(), lab.new_run(files={})
        lab.until_state(synced, "verified")
        lab.until_state(waiting, "acquiring")
        lines = len(lab.trail())
        with away(lab, volume):
            said = lab.cli("status")
            assert "waits: " in said.out
            problems = lab.cli("problems", "--json").problems
            assert [(p["code"], p["subject"]) for p in problems] == [("root_unavailable", "SCOPE_01")]
            assert lab.cli("scan").code == 0
            assert list(root_of(lab).iterdir()) == []
            assert len([fact for fact in lab.trail()[lines:] if fact["kind"] != "operator_command"]) == 0
        put(waiting, {"image.tif": b"came later"})
        lab.until_state(waiting, "verified", wait_s=60)
        assert lab.states(synced)[-1] == "verified"
        assert not any("gone" in problem["sentence"] for problem in lab.cli("problems", "--json").problems)


def test_a_push_whose_source_is_unmounted_in_the_middle_costs_no_attempt_and_goes_on_afterwards(lab: Lab) -> None:
    lab.settings["equipment"][0]["transport"]["bandwidth"] = {"upload_mbps": SLOW_MBPS}
    lab.save_config()
    volume = lab.home / "volume"
    mount(volume, lab)
    with lab.running():
        run = lab.new_run(files={f"{number:02}.bin": bytes([number]) * 200_000 for number in range(20)})
        lab.until_state(run, "running")
        until(lambda: list(lab.copy_of(run).rglob("0*.bin")), "some files are there")
        with away(lab, volume):
            assert lab.record(run)["state"] in ("running", "queued")
        record = lab.until_state(run, "verified", wait_s=90)
        assert record["attempts"] == 0
        assert "failed" not in lab.states(run)
        lab.assert_whole(run)


def test_another_volume_in_the_root_s_place_is_not_taken_up_until_an_operator_says_so(lab: Lab) -> None:
    volume, other = lab.home / "volume", lab.home / "other"
    mount(volume, lab)
    with lab.running():
        run = lab.new_run()
        lab.until_state(run, "verified")
        lab.until_state(lab.new_run(files={}), "acquiring")
        strange = lab.new_run("Run_2027-01-01T00-00")  # on the first volume, and moved to the other one
        lab.until_state(strange, "verified")
        unmount(lab)
        mount(other, lab)
        foreign = lab.new_run("Run_2028-01-01T00-00")
        until(lambda: "not the same folder or volume" in root_problem(lab), "the lane waits")
        assert lab.record(foreign)["state"] is None
        assert not (root_of(lab) / CACHE).exists()
        said = lab.cli("scan", "--accept-root", "SCOPE_01")
        assert (said.code, "is taken for the right folder" in said.out) == (0, True)
        lab.until_state(foreign, "verified", wait_s=60)
        bound = [fact for fact in lab.trail() if fact["kind"] == "root_bound"]
        assert bound[0]["operator"] is None
        assert bound[-1]["operator"]
        assert len(bound) == 2


def test_a_root_that_is_removed_and_made_again_is_in_doubt_and_a_known_run_answers_for_it(lab: Lab) -> None:
    with lab.running():
        run = lab.new_run()
        lab.until_state(run, "verified")
        root_of(lab).rename(lab.home / "kept")
        until(lambda: "is not there" in root_problem(lab), "the lane waits", wait_s=60)
        root_of(lab).mkdir()
        until(lambda: "is empty although" in root_problem(lab), "the lane still waits", wait_s=60)
        (lab.home / "kept" / run.parent.parent.name).rename(root_of(lab) / run.parent.parent.name)
        until(lambda: not root_problem(lab), "the lane goes on", wait_s=60)
        new = lab.new_run()
        lab.until_state(new, "verified", wait_s=60)
        assert lab.states(run)[-1] == "verified"


def test_scan_without_an_agent_says_what_is_there_registers_it_and_pushes_nothing(lab: Lab) -> None:
    run = lab.new_run()
    said = lab.cli("scan")
    assert (said.code, said.out) == (0, "SCOPE_01: 1 run folder, 1 new, 0 gone\n")
    assert lab.states(run) == ["acquiring"]
    assert not lab.copy_of(run).exists()
    assert lab.cli("scan").out == "SCOPE_01: 1 run folder, 0 new, 0 gone\n"
    root_of(lab).rename(lab.home / "kept")
    said = lab.cli("scan")
    assert said.code == 0
    assert "NEEDS YOU  SCOPE_01: " in said.err
    assert said.out.startswith("SCOPE_01 waits: ")
    assert lab.cli("scan", "--accept-root", "SCOPE_02").code == 2
