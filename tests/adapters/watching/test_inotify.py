"""The watcher against the kernel at its limits: full queues, too few watches, mounts. What is changed is put back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local.scanner import DiskRunScanner
from exlab_watch_agent.adapters.watching.limits import FOLDER
from exlab_watch_agent.adapters.watching.pace import Pace
from exlab_watch_agent.core.policy import EquipmentPolicy, MountedPathTarget
from tests.adapters.watching.hearing import BRISK, Heard, creation_of, make_run, until

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's"),
    pytest.mark.alone,
]

BURST = 5000


class Reconciled(Heard):
    """A watcher and the scans that it asks for: what an agent would know of."""

    def __init__(self, tmp_path: Path, *, pace: Pace = BRISK) -> None:
        super().__init__(tmp_path, pace=pace)
        self.found: set[str] = set()

    def __enter__(self) -> Reconciled:
        super().__enter__()
        return self

    def known(self) -> set[str]:
        """Return the run folders that an event or a wanted scan has brought."""
        while self.lost:
            self.lost.pop()
            equipment = EquipmentPolicy("SCOPE_01", "", str(self.root.parent), MountedPathTarget("/"))
            self.found.update(seen.place.run_path for seen in DiskRunScanner().scan(equipment))
        self.found.update(path.removesuffix("/.exlab-wizard/creation.json") for path in self.paths if "/Run" in path)
        return self.found

    def knows(self, runs: list[Path]) -> None:
        wanted = set(map(str, runs))
        until(lambda: wanted <= self.known(), f"{len(wanted)} runs known")


@contextmanager
def limit(name: str, value: int) -> Iterator[None]:
    """Set one of inotify's limits for a while."""
    file = FOLDER / name
    before = file.read_text()
    try:
        file.write_text(str(value))
    except OSError as error:
        pytest.skip(f"{file} cannot be written: {error}")
    try:
        yield
    finally:
        file.write_text(before)


def watches_in_use() -> int:
    """Return how many watches this user has, over all programs."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/fdinfo/*"):
        with suppress(OSError):
            if file.stat().st_uid == os.geteuid():
                found += file.read_text().count("inotify wd:")
    return found


def runs_in(project: Path, number: int) -> list[Path]:
    return [
        project / "Runs" / f"Run_2026-{n // 1440 % 12 + 1:02d}-01T{n // 60 % 24:02d}-{n % 60:02d}"
        for n in range(number)
    ]


def test_of_a_burst_of_5000_new_runs_none_is_missed(tmp_path: Path) -> None:
    with Reconciled(tmp_path) as lab:
        lab.until_well()
        runs = [make_run(run) for run in runs_in(lab.root / "P2", BURST)]
        lab.knows(runs)
        lab.until_well()
        lab.forget()
        creation_of(runs[17]).write_text("{ }")
        lab.heard(creation_of(runs[17]))


def test_an_overflow_is_noticed_healed_and_makes_no_other_one(tmp_path: Path) -> None:
    lab = Reconciled(tmp_path, pace=replace(BRISK, rest_s=0.3))  # the reader rests: the queue fills
    for number in range(300):  # more watches than the queue has room for
        (lab.root / f"{number:03d}").mkdir()
    (lab.root / "P2" / "Runs").mkdir(parents=True)
    with limit("max_queued_events", 64):
        lab.watcher.start()
    try:
        lab.until_well()
        lab.settle()  # with a rest after it
        runs = [make_run(run) for run in runs_in(lab.root / "P2", 400)]
        until(lambda: lab.lost, "the word of the overflow")
        lab.knows(runs)
        lab.until_well()
        restarts = lab.watcher.restarts
        assert restarts >= 1
        for run in runs[::50]:  # also those whose making nobody heard of
            creation_of(run).write_text("{ }")
            lab.heard(creation_of(run))
        turns = lab.keeper.turns
        until(lambda: lab.keeper.turns > turns + 5, "five looks")
        assert lab.watcher.restarts == restarts, "the overflows go on though nothing happens"
        other = lab.watcher.keepers["FLOW_01"]
        assert other.restarts == 0, "the other root has a queue of its own"
    finally:
        lab.watcher.stop()


def test_too_few_watches_are_counted_and_said_and_the_scans_serve_until_there_are_more(
    tmp_path: Path,
) -> None:
    lab = Reconciled(tmp_path, pace=replace(BRISK, poll_every_s=0.05))

    def is_polled() -> bool:
        lab.watcher.supervise()
        return "SCOPE_01" in lab.polled

    runs = [make_run(run) for run in runs_in(lab.root / "P2", 300)]
    with limit("max_user_watches", watches_in_use() + 200):
        lab.watcher.start()
        try:
            until(lambda: lab.health.missing, "the refusal")
            health = lab.health
            assert (health.kind, health.is_degraded) == ("polling", True)
            assert "are not watched" in health.reason
            assert "max_user_watches=" in health.command
            assert health.watches > 0
            newcomer = make_run(lab.root / "P2" / "Runs" / "Run_2027-01-01T00-00")
            lab.heard(newcomer)  # the levels above are watched before the runs
            until(is_polled, "a light scan")
        except BaseException:
            lab.watcher.stop()
            raise
    try:
        lab.until_well()  # the limit is another, so it is tried at once
        lab.knows(runs)
        creation_of(runs[0]).write_text("{ }")
        lab.heard(creation_of(runs[0]))
    finally:
        lab.watcher.stop()


def test_where_watches_are_scarce_finished_runs_do_without(tmp_path: Path) -> None:
    lab = Reconciled(tmp_path)
    finished = [make_run(run) for run in runs_in(lab.root / "P2", 300)]
    lab.finished.update(map(str, finished))
    allowed = watches_in_use() + 100
    with limit("max_user_watches", allowed):
        lab.watcher.start()
        try:
            until(lambda: lab.health.let_go, "the letting go")
            assert lab.health.watches <= allowed / 2 + 10, "finished runs leave half of the watches to others"
            unfinished = [make_run(run) for run in runs_in(lab.root / "P3", 20)]
            for run in unfinished:
                lab.heard(creation_of(run))
            lab.forget()
            for run in unfinished:
                creation_of(run).write_text("{ }")
                lab.heard(creation_of(run))
            health = lab.health
            assert (health.kind, health.missing, health.is_degraded) == ("native", 0, False), health
            assert "finished runs" in health.reason
        finally:
            lab.watcher.stop()


def test_finished_runs_give_their_watches_to_new_ones_when_the_kernel_has_no_more(tmp_path: Path) -> None:
    lab = Reconciled(tmp_path)
    finished = [make_run(run) for run in runs_in(lab.root / "P2", 100)]
    with limit("max_user_watches", watches_in_use() + 250):
        lab.watcher.start()
        try:
            lab.until_well()
            lab.finished.update(map(str, finished))
            unfinished = [make_run(run) for run in runs_in(lab.root / "P3", 60)]
            for run in unfinished:
                lab.heard(creation_of(run))
            until(lambda: lab.health.let_go, "the letting go")
            lab.forget()
            for run in unfinished:
                creation_of(run).write_text("{ }")
                lab.heard(creation_of(run))
            assert lab.health.missing == 0
        finally:
            lab.watcher.stop()


def test_without_an_inotify_instance_the_roots_are_polled_until_there_is_one(tmp_path: Path) -> None:
    with limit("max_user_instances", 0):
        lab = Heard(tmp_path)
        lab.watcher.start()
        try:
            until(lambda: lab.health.kind == "polling", "the fall-back")
            assert lab.health.is_degraded
            assert "max_user_instances" in lab.health.command
        except BaseException:
            lab.watcher.stop()
            raise
    try:
        lab.until_well()
        lab.is_seeing(lab.root)
    finally:
        lab.watcher.stop()


def test_a_tree_of_runs_that_is_moved_in_is_known_and_watched(tmp_path: Path) -> None:
    with Reconciled(tmp_path) as lab:
        lab.until_well()
        runs = [make_run(run) for run in runs_in(lab.outside / "P2", 1000)]
        (lab.outside / "P2").rename(lab.root / "P2")
        moved = [lab.root / "P2" / "Runs" / run.name for run in runs]
        lab.knows(moved)
        lab.forget()
        for run in moved[::100]:
            creation_of(run).write_text("{ }")
            lab.heard(creation_of(run))
        assert lab.is_well()


def test_folders_that_come_and_go_and_are_moved_at_once_leave_no_watch_behind(tmp_path: Path) -> None:
    """Three threads make, rename, move out and remove runs; in the end exactly what is there is watched."""
    with Reconciled(tmp_path) as lab:
        lab.until_well()

        def churn(number: int) -> None:
            for turn in range(60):
                project = lab.root / f"P{(number + turn) % 5}"
                run = project / "Runs" / f"Run_2026-01-{number + 1:02d}T00-{turn:02d}"
                with suppress(OSError):
                    make_run(run)
                with suppress(OSError):
                    match turn % 4:
                        case 0:
                            shutil.rmtree(run)
                        case 1:
                            project.rename(lab.root / f"Q{number}-{turn}")
                        case 2:
                            run.rename(lab.outside / f"{number}-{turn}")

        threads = [threading.Thread(target=churn, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lab.settle()
        runs = [path for path in lab.root.glob("*/Runs/Run_*") if path.is_dir()]
        lab.knows(runs)
        for run in runs:
            lab.paths.clear()
            (run / ".exlab-wizard").mkdir(exist_ok=True)
            creation_of(run).write_text("{ }")
            lab.heard(creation_of(run))
        levels = ("*", "*/Runs", "*/Runs/*", "*/Runs/*/.exlab-wizard")
        expected = 1 + sum(path.is_dir() for level in levels for path in lab.root.glob(level))
        until(lambda: lab.health.watches == expected, f"{expected} watches, not {lab.health.watches}")
        all_of_them = expected + len([lab.other, lab.other / ".exlab-wizard", lab.inbox])
        until(lambda: lab.open_watches() == all_of_them, f"{all_of_them} watches")
        assert lab.watcher.restarts == 0


@contextmanager
def mounted(point: Path) -> Iterator[None]:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "exlab-test", str(point)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_root_that_is_mounted_over_unmounted_and_mounted_again_is_seen_each_time(tmp_path: Path) -> None:
    with Heard(tmp_path) as lab:
        lab.until_well()
        for _ in range(2):
            for is_mounted in (True, False):
                lab.lost.clear()
                if is_mounted:
                    mount = mounted(lab.root)
                    mount.__enter__()
                else:
                    mount.__exit__(None, None, None)
                try:
                    until(lambda: "SCOPE_01" in lab.lost, "the word of it")
                    lab.until_well()
                    lab.is_seeing(lab.root)
                except BaseException:
                    if is_mounted:
                        mount.__exit__(None, None, None)
                    raise
        assert lab.watcher.keepers["FLOW_01"].restarts == 0
        lab.is_seeing(lab.other)


def test_a_bind_mount_over_the_parent_of_a_root_is_noticed(tmp_path: Path) -> None:
    with Heard(tmp_path) as lab:
        lab.until_well()
        (lab.outside / "SCOPE_01").mkdir()
        (lab.outside / "FLOW_01").mkdir()
        done = subprocess.run(
            ["mount", "--bind", str(lab.outside), str(lab.root.parent)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        try:
            until(lambda: set(lab.lost) == {"SCOPE_01", "FLOW_01"}, "the word of it")
            lab.until_well()
            lab.is_seeing(lab.root)
        finally:
            subprocess.run(["umount", str(lab.root.parent)], check=True)
        lab.until_well()
        lab.until_this_root_is_watched()
        lab.is_seeing(lab.root)


def test_an_idle_emitter_sleeps_in_the_kernel(tmp_path: Path) -> None:
    """Its thread uses no processor time while nothing happens, whatever the keepers do."""
    with Heard(tmp_path) as lab:
        lab.until_well()
        until(lambda: lab.health.canary == "heard", "the canary")
        lab.settle()
        emitter = next(iter(lab.observer.emitters))
        stat = Path(f"/proc/self/task/{emitter.native_id}/status")
        turns = lab.keeper.turns
        until(lambda: lab.keeper.turns > turns + 1, "the end of its last pause")
        switches = voluntary_switches(stat)
        turns = lab.keeper.turns
        until(lambda: lab.keeper.turns > turns + 5, "five looks")
        assert voluntary_switches(stat) == switches


def voluntary_switches(status: Path) -> int:
    return int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])
