"""A real agent that must go on seeing: by events, by polling, after a sleep, after its root was gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local import renaming
from exlab_watch_agent.adapters.local.handles import Folder
from tests.lab.lab import CACHE, SENTINEL_SIGNAL, Equipment, Lab, creation_of, read_creation, until


def new_lab(tmp_path: Path, **agent: Any) -> Lab:
    """Return a lab whose runs stay `acquiring`, so that only the noticing is at work, and whose scans are rare."""
    return Lab(tmp_path, Equipment("SCOPE_01", SENTINEL_SIGNAL), is_quick=True, **{"rescan_minutes": 600, **agent})


def taken_up(lab: Lab) -> set[str]:
    return {fact["record"]["run_path"] for fact in lab.trail() if "record" in fact}


def watch_of(lab: Lab) -> dict[str, Any]:
    return dict((lab.live().get("observer") or {}).get("roots", {}).get("SCOPE_01", {}))


def has_overrides(lab: Lab, run: Path, number: int) -> bool:
    """Return whether the trail has so many overrides of the run."""
    return [fact["kind"] for fact in lab.facts(run)].count("override_added") == number


def until_well(lab: Lab) -> None:
    until(lambda: watch_of(lab).get("canary") == "heard" and not watch_of(lab)["degraded"], "a watcher that is well")


def test_no_new_run_is_missed_by_events_while_files_are_appended_to_without_pause(tmp_path: Path) -> None:
    lab = new_lab(tmp_path)
    busy = lab.new_run()
    ends = threading.Event()

    def append() -> None:
        files = [(busy / f"{number}.raw").open("ab", buffering=0) for number in range(20)]
        while not ends.is_set():
            for number, file in enumerate(files):
                file.write(b"x" * 100)
                if number % 10 == 0:  # and some that are opened and closed each time, directly in the run folder
                    with (busy / f"closed {number}").open("ab") as closed:
                        closed.write(b"x")
        for file in files:
            file.close()

    with lab.running():
        until_well(lab)
        scans = lab.live()["lanes"]["SCOPE_01"]["last_scan_at"]
        writer = threading.Thread(target=append)
        writer.start()
        try:
            runs = [lab.new_run() for _ in range(100)]
            until(lambda: {str(run) for run in runs} <= taken_up(lab), "100 runs", wait_s=60)
        finally:
            ends.set()
            writer.join()
        assert lab.live()["lanes"]["SCOPE_01"]["last_scan_at"] == scans, "a scan helped"
        assert not watch_of(lab)["degraded"]
    lab.assert_log_is_clean()


def test_what_changes_while_the_agent_is_stopped_is_known_when_it_goes_on(tmp_path: Path) -> None:
    lab = new_lab(tmp_path)
    old = lab.new_run()
    with lab.running() as agent:
        until_well(lab)
        until(lambda: str(old) in taken_up(lab), "the first run")
        os.kill(agent.pid, signal.SIGSTOP)
        try:
            runs = [lab.new_run(project=f"P{number % 7}") for number in range(300)]
            old.rename(old.with_name("Run_2026-04-18T00-00"))
            shutil.rmtree(runs.pop())
        finally:
            os.kill(agent.pid, signal.SIGCONT)
        wanted = {str(run) for run in runs} | {str(old.with_name("Run_2026-04-18T00-00"))}
        until(lambda: wanted <= taken_up(lab), "all runs", wait_s=60)
        assert not watch_of(lab)["degraded"]


def test_polling_by_choice_notices_new_runs_and_is_not_degraded(tmp_path: Path) -> None:
    lab = new_lab(tmp_path, observer="polling")
    with lab.running() as agent:
        first = lab.new_run()
        until(lambda: str(first) in taken_up(lab), "the first run")
        assert "inotify wd:" not in watches_of(agent.pid, of="SCOPE_01", lab=lab)
        second = lab.new_run()
        until(lambda: str(second) in taken_up(lab), "the second run")
        said = lab.cli("status")
        assert "looked through every few seconds" in said.out
        assert (watch_of(lab)["kind"], watch_of(lab)["degraded"]) == ("polling", False)
        assert lab.cli("problems").out == "nothing needs a person\n"
        assert json.loads((lab.state / "heartbeat.json").read_text())["observer"]["kind"] == "polling"


def watches_of(pid: int, *, of: str, lab: Lab) -> str:
    """Return the watches of a process on an equipment's folder."""
    inode = f"ino:{(lab.local / of).stat().st_ino:x} "
    texts = [file.read_text() for file in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return "".join(line for text in texts for line in text.splitlines() if inode in line)


@pytest.mark.alone
def test_a_watcher_at_the_end_of_its_means_is_a_problem_with_the_command_that_helps(tmp_path: Path) -> None:
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before = limit.read_text()
    lab = new_lab(tmp_path)
    try:
        limit.write_text("0")
    except OSError as error:
        pytest.skip(f"{limit} cannot be written: {error}")
    try:
        with lab.running():
            run = lab.new_run()
            until(lambda: str(run) in taken_up(lab), "the run, by polling")
            until(lambda: watch_of(lab).get("degraded"), "the word of it")
            problem = next(p for p in lab.cli("problems", "--json").problems if p["code"] == "observer_degraded")
            assert problem["command"] == "sysctl -w fs.inotify.max_user_instances=1024"
            assert "degraded" in lab.cli("status").out
            assert "max_user_instances=1024" in lab.cli("check").out
            limit.write_text(before)
            until_well(lab)
            assert not any(p["code"] == "observer_degraded" for p in lab.cli("problems", "--json").problems)
    finally:
        limit.write_text(before)


def test_a_root_that_is_unmounted_and_mounted_again_loses_no_run_and_gets_no_file_of_ours_meanwhile(
    tmp_path: Path,
) -> None:
    lab = new_lab(tmp_path)
    root = lab.local / "SCOPE_01"
    image = tmp_path / "behind"
    image.mkdir()
    bind = ["mount", "--bind", str(image), str(root)]
    done = subprocess.run(bind, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        with lab.running():
            runs = [lab.new_run() for _ in range(5)]
            until(lambda: {str(run) for run in runs} <= taken_up(lab), "the runs")
            until_well(lab)
            subprocess.run(
                ["umount", "--lazy", str(root)], check=True
            )  # as a share that drops: the agent holds files open
            try:
                until(lambda: lab.live()["lanes"]["SCOPE_01"]["root_problem"], "the lane's wait")
                until(lambda: watch_of(lab)["watches"] < 10, "the watch over the empty folder")
                assert os.listdir(root) == [], "something was written below the mount point"
            finally:
                subprocess.run(bind, check=True)
            until(lambda: lab.live()["lanes"]["SCOPE_01"]["root_problem"] is None, "the root's return", wait_s=60)
            until_well(lab)
            newcomer = lab.new_run()
            until(lambda: str(newcomer) in taken_up(lab), "a run that is new")
            assert all(lab.record(run)["state"] == "acquiring" for run in runs)
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_an_editors_saves_are_each_decided_on_by_events(tmp_path: Path) -> None:
    lab = new_lab(tmp_path)
    with lab.running():
        until_well(lab)
        run = lab.new_run()
        until(lambda: str(run) in taken_up(lab), "the run")
        scans = lab.live()["lanes"]["SCOPE_01"]["last_scan_at"]
        for turn in range(5):
            entry = {"id": f"{turn}", "problem_class": "orphan", "operator": "a", "reason": "b", "revoked": False}
            document = creation_of(run, validation_overrides=[*[{**entry, "id": str(n)} for n in range(turn)], entry])
            fresh = run / CACHE / "creation.json.new"
            fresh.write_text(json.dumps(document))
            fresh.replace(run / CACHE / "creation.json")
            until(partial(has_overrides, lab, run, turn + 1), f"override {turn}")
        assert lab.live()["lanes"]["SCOPE_01"]["last_scan_at"] == scans


def test_what_an_editor_writes_into_the_file_that_it_had_open_before_the_agent_wrote_counts(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).touch()
    try:
        renaming.exchange(Folder(str(tmp_path)), "one", "other")
    except renaming.CannotRenameSoError as error:
        pytest.skip(str(error))
    lab = Lab(tmp_path, is_quick=True)
    run = lab.new_run(files={"a.bin": b"a"}, sync_status="pending")
    with lab.running(), (run / CACHE / "creation.json").open("r+", encoding="utf-8") as editor:
        before = json.load(editor)
        until(lambda: read_creation(run)["sync_status"] == "synced", "a run that is synced")
        editor.seek(0)
        editor.truncate()
        json.dump({**before, "operator_note": "written late"}, editor)
        editor.flush()
        until(lambda: "operator_note" in read_creation(run), "what was written")
    assert read_creation(run)["sync_status"] == "synced"
