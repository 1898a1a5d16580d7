"""The watcher with the real watchdog on real folders: what is reported, what is not, and that nothing stays deaf."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver

from exlab_watch_agent.adapters import watch
from exlab_watch_agent.adapters.durable import temporary_name, write_atomically
from exlab_watch_agent.adapters.watch import Watcher

WAIT_S = 8.0
LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.01)


class Heard:
    """A watcher over one root, and what it said. `outside` is on the same volume and not watched."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "lab" / "SCOPE_01"
        self.other = tmp_path / "lab" / "FLOW_01"
        self.inbox = tmp_path / "state" / "inbox"
        self.outside = tmp_path / "outside"
        self.runs = self.root / "PROJ-0042 Übersicht" / "Runs"
        for folder in (self.runs, self.other, self.inbox, self.outside):
            folder.mkdir(parents=True)
        self.paths: list[str] = []
        self.lost: list[str | None] = []
        self.inbox_calls = 0
        self.watcher = Watcher(
            {"SCOPE_01": str(self.root), "FLOW_01": str(self.other)},
            self.inbox,
            on_path=self.paths.append,
            on_inbox=self.count,
            on_lost=self.lost.append,
        )

    def count(self) -> None:
        self.inbox_calls += 1

    @property
    def observer(self) -> BaseObserver:
        assert self.watcher._observer is not None
        return self.watcher._observer

    def settle(self) -> None:
        """Wait until all that has happened was delivered: what is made last is reported last."""
        mark = self.root / f"mark-{time.monotonic_ns()}"
        mark.mkdir()
        until(lambda: str(mark) in self.paths, "the mark")
        mark.rmdir()
        until(lambda: self.paths.count(str(mark)) >= 2, "the end of the mark")
        self.paths[:] = [path for path in self.paths if path != str(mark)]

    def forget(self) -> None:
        self.settle()
        self.paths.clear()

    def heard(self, path: Path) -> None:
        until(lambda: str(path) in self.paths, f"{path} among {self.paths}")

    def is_seeing(self, root: Path) -> None:
        """A new run in `root` is reported."""
        run = make_run(root / f"P{time.monotonic_ns()}" / "Runs" / "Run_2026-04-17T14-32")
        self.heard(creation_of(run))


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    lab = Heard(tmp_path)
    lab.watcher.start()
    try:
        yield lab
    finally:
        lab.watcher.stop()


def creation_of(run: Path) -> Path:
    return run / ".exlab-wizard" / "creation.json"


def make_run(run: Path) -> Path:
    creation_of(run).parent.mkdir(parents=True)
    creation_of(run).write_text("{}")
    return run


# --- what is reported ------------------------------------------------------------------------------------------------


def test_a_run_that_is_created_is_reported_with_its_creation_json(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.heard(run)
    heard.heard(creation_of(run))


def test_a_run_that_is_copied_in_with_its_project_is_reported(heard: Heard) -> None:
    make_run(heard.outside / "P2" / "TestRuns" / "TestRun_2026-04-17T14-32")
    shutil.copytree(heard.outside / "P2", heard.root / "P2")
    heard.heard(creation_of(heard.root / "P2" / "TestRuns" / "TestRun_2026-04-17T14-32"))


@pytest.mark.parametrize("level", ["run", "Runs", "project"])
def test_what_is_moved_in_is_reported_and_watched_from_then_on(heard: Heard, level: str) -> None:
    run = make_run(heard.outside / "P2" / "Runs" / "Run_2026-04-17T14-32")
    (heard.root / "P2" / "Runs").mkdir(parents=True)
    moves = {
        "run": (run, heard.root / "P2" / "Runs" / run.name),
        "Runs": (run.parent, heard.root / "P3" / "Runs"),
        "project": (run.parent.parent, heard.root / "P4"),
    }
    source, target = moves[level]
    target.parent.mkdir(exist_ok=True)
    heard.forget()
    source.rename(target)
    heard.heard(target)
    heard.forget()
    (moved,) = target.rglob("creation.json")
    moved.write_text('{"a": 1}')
    heard.heard(moved)


def test_a_run_that_is_renamed_is_reported_under_both_names(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    renamed = run.rename(run.with_name("Run_2026-04-17T15-00"))
    heard.heard(run)
    heard.heard(renamed)
    heard.forget()
    creation_of(renamed).write_text('{"a": 1}')
    heard.heard(creation_of(renamed))


def test_a_run_that_is_removed_is_reported(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    shutil.rmtree(run)
    heard.heard(run)


@pytest.mark.parametrize("save", ["in place", "by rename", "by rename from outside", "again after a removal"])
def test_every_way_to_save_creation_json_is_reported(heard: Heard, save: str) -> None:
    creation = creation_of(make_run(heard.runs / "Run_2026-04-17T14-32"))
    heard.forget()
    for number in range(3):
        text = f'{{"number": {number}}}'
        if save == "in place":
            creation.write_text(text)
        elif save == "by rename":
            write_atomically(creation, text.encode())
        elif save == "by rename from outside":
            (heard.outside / "creation.json").write_text(text)
            (heard.outside / "creation.json").replace(creation)
        else:
            creation.unlink()
            creation.write_text(text)
        heard.heard(creation)
        heard.forget()


def test_files_directly_in_a_run_are_reported_as_a_sentinel_may_be_among_them(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    (run / "acquisition_complete.flag").touch()
    heard.heard(run / "acquisition_complete.flag")


def test_a_burst_of_new_runs_leaves_none_out(heard: Heard) -> None:
    runs = [make_run(heard.runs / f"Run_2026-04-{day:02d}T{hour:02d}-00") for day in range(1, 11) for hour in range(20)]
    for run in runs:
        heard.heard(creation_of(run))


# --- what is not -----------------------------------------------------------------------------------------------------


def test_data_below_the_run_are_neither_reported_nor_watched(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    watches = open_watches()
    (run / "data" / "deep").mkdir(parents=True)
    heard.forget()
    for number in range(50):
        (run / "data" / "deep" / f"{number}.tif").write_bytes(b"x")
        (run / "data" / f"more {number}").mkdir()
    heard.settle()
    assert heard.paths == []
    assert open_watches() == watches


def open_watches() -> int:
    """Return how many folders this process watches, as the kernel counts them."""
    found = 0
    for name in os.listdir("/proc/self/fdinfo"):
        try:
            found += Path("/proc/self/fdinfo", name).read_text().count("inotify wd:")
        except FileNotFoundError:
            continue
    return found


def test_the_agents_own_writes_beside_creation_json_are_not_reported(heard: Heard) -> None:
    cache = creation_of(make_run(heard.runs / "Run_2026-04-17T14-32")).parent
    heard.forget()
    (cache / "creation.json.lock").touch()
    (cache / "creation.json.lock").unlink()
    (cache / temporary_name("creation.json")).write_text("{}")
    with (cache / "wizard.labpc-04.log").open("a") as log:
        log.write("a line\n")
    write_atomically(cache / "checksums.sha256", b"")
    (cache / ".trash-7").mkdir()
    (cache / ".trash-7" / "creation.json").write_text("{}")
    heard.settle()
    assert heard.paths == []


def test_reading_is_not_reported(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    (run / "a.tif").write_bytes(b"x")
    heard.forget()
    for _ in range(3):
        creation_of(run).read_bytes()
        (run / "a.tif").read_bytes()
        os.listdir(run)
    heard.settle()
    assert heard.paths == []


@pytest.mark.parametrize("is_before", [True, False], ids=["made before the start", "made after the start"])
def test_what_lies_behind_a_link_is_not_watched(heard: Heard, is_before: bool) -> None:
    behind = make_run(heard.outside / "P2" / "Runs" / "Run_2026-04-17T14-32")
    if is_before:
        heard.watcher.stop()
    (heard.root / "P2").symlink_to(heard.outside / "P2")
    (heard.runs / "Run_2026-04-17T15-00").symlink_to(behind)
    if is_before:
        heard.watcher.start()
    heard.forget()
    creation_of(behind).write_text('{"a": 1}')
    heard.settle()
    assert heard.paths == []


# --- the inbox -------------------------------------------------------------------------------------------------------


def test_a_request_in_the_inbox_is_reported_as_such(heard: Heard) -> None:
    write_atomically(heard.inbox / "20260417.json", b"{}")
    until(lambda: heard.inbox_calls, "the request")
    assert heard.paths == []


def test_an_inbox_that_goes_away_and_comes_back_ends_nothing(heard: Heard) -> None:
    heard.inbox.rmdir()
    heard.watcher.supervise()
    heard.is_seeing(heard.root)
    heard.inbox.mkdir()
    heard.watcher.supervise()
    heard.inbox_calls = 0
    (heard.inbox / "a.json").touch()
    until(lambda: heard.inbox_calls, "the request")
    assert not heard.watcher.is_degraded


# --- what dies is replaced -------------------------------------------------------------------------------------------


def test_a_healthy_watcher_is_left_alone(heard: Heard) -> None:
    observer = heard.observer
    for _ in range(5):
        heard.watcher.supervise()
    assert heard.observer is observer
    assert (heard.lost, heard.watcher.restarts, heard.watcher.is_degraded) == ([], 0, False)


def test_a_root_that_is_missing_at_the_start_is_watched_once_it_is_there(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    shutil.rmtree(lab.root)
    lab.watcher.start()
    try:
        lab.watcher.supervise()
        assert (lab.lost, lab.watcher.is_degraded) == ([], True)
        lab.is_seeing(lab.other)
        lab.root.mkdir()
        lab.watcher.supervise()
        assert (lab.lost, lab.watcher.is_degraded, lab.watcher.restarts) == (["SCOPE_01"], False, 0)
        lab.is_seeing(lab.root)
    finally:
        lab.watcher.stop()


def removed(heard: Heard) -> None:
    shutil.rmtree(heard.root)


def moved_away(heard: Heard) -> None:
    heard.root.rename(heard.outside / "away")


def moved_with_its_parent(heard: Heard) -> None:
    heard.root.parent.rename(heard.outside / "away")


@pytest.mark.parametrize("go", [removed, moved_away, moved_with_its_parent], ids=lambda go: go.__name__)
@pytest.mark.parametrize("is_seen_missing", [True, False], ids=["looked at in between", "not looked at in between"])
def test_a_root_that_goes_away_and_is_made_again_is_reported_and_seen_again(
    heard: Heard, go: Callable[[Heard], None], is_seen_missing: bool
) -> None:
    go(heard)
    if is_seen_missing:
        heard.watcher.supervise()
        assert heard.lost[0] is None
        assert heard.watcher.is_degraded
    heard.root.mkdir(parents=True)
    heard.other.mkdir(exist_ok=True)
    until(lambda: (heard.watcher.supervise(), heard.lost and not heard.watcher.is_degraded)[1], "the root's return")
    heard.is_seeing(heard.root)
    heard.is_seeing(heard.other)


def test_a_root_that_is_replaced_by_a_link_is_no_longer_watched(heard: Heard) -> None:
    heard.root.rename(heard.outside / "away")
    heard.root.symlink_to(heard.outside / "away")
    heard.watcher.supervise()
    assert (heard.lost, heard.watcher.is_degraded) == ([None], True)


def test_a_root_that_may_not_be_read_is_not_taken_for_a_watched_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Heard(tmp_path)
    real = os.access
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != str(lab.root) and real(path, mode))
        lab.watcher.start()
        assert lab.watcher.is_degraded
    try:
        lab.watcher.supervise()
        assert (lab.lost, lab.watcher.is_degraded) == (["SCOPE_01"], False)
    finally:
        lab.watcher.stop()


class Planted(FileSystemEventHandler):
    def on_any_event(self, event: Any) -> None:
        raise RuntimeError("planted")


def kill_dispatcher(heard: Heard) -> None:
    for handlers in heard.observer._handlers.values():
        handlers.add(Planted())
    (heard.root / "trigger").mkdir()


def kill_emitter(heard: Heard) -> None:
    next(emitter for emitter in heard.observer.emitters if emitter.watch.path == str(heard.root)).stop()


def kill_reader(heard: Heard) -> None:
    heard.observer._inotify_fd.stop()  # type: ignore[attr-defined]


def threads_of(observer: BaseObserver) -> list[threading.Thread]:
    return [observer, *observer.emitters, observer._inotify_fd]  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kill", [kill_dispatcher, kill_emitter, kill_reader], ids=lambda kill: kill.__name__)
def test_a_dead_thread_of_the_observer_is_noticed_said_and_replaced(
    heard: Heard, kill: Callable[[Heard], None]
) -> None:
    before = heard.observer
    threads = threads_of(before)
    kill(heard)
    until(lambda: not all(thread.is_alive() for thread in threads), "the death")
    heard.watcher.supervise()
    assert (heard.lost, heard.watcher.restarts) == ([None], 1)
    assert heard.observer is not before
    heard.is_seeing(heard.root)
    heard.is_seeing(heard.other)
    until(lambda: not any(thread.is_alive() for thread in threads), "the end of the old threads")


def test_a_receiver_that_raises_does_not_end_the_watching(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)
    lab = Heard(tmp_path)

    def refuse(path: str) -> None:
        lab.paths.append(path)
        raise RuntimeError("the engine is gone")

    lab.watcher = Watcher(
        {"SCOPE_01": str(lab.root)}, lab.inbox, on_path=refuse, on_inbox=lab.count, on_lost=lab.lost.append
    )
    lab.watcher.start()
    try:
        lab.is_seeing(lab.root)
        lab.is_seeing(lab.root)
        lab.watcher.supervise()
        assert lab.watcher.restarts == 0
        assert "was not passed on" in caplog.text
    finally:
        lab.watcher.stop()


def test_when_nothing_can_be_watched_the_agent_goes_on_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Heard(tmp_path)

    def refuse() -> BaseObserver:
        raise OSError("inotify instance limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(watch, "make_observer", refuse)
        lab.watcher.start()
        lab.watcher.supervise()
        assert (lab.lost, lab.watcher.is_degraded) == ([], True)
    try:
        lab.watcher.supervise()
        assert (lab.lost, lab.watcher.is_degraded) == ([None], False)
        lab.is_seeing(lab.root)
    finally:
        lab.watcher.stop()


def test_a_root_that_cannot_be_watched_is_said_once_and_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)
    lab = Heard(tmp_path)
    real = BaseObserver.schedule

    def schedule(observer: BaseObserver, handler: Any, path: str, **options: Any) -> Any:
        if path == str(lab.root):
            raise OSError("inotify watch limit reached")
        return real(observer, handler, path, **options)

    monkeypatch.setattr(BaseObserver, "schedule", schedule)
    lab.watcher.start()
    try:
        for _ in range(3):
            lab.watcher.supervise()
        assert caplog.text.count("inotify watch limit reached") == 1
        assert lab.watcher.is_degraded
        lab.is_seeing(lab.other)
    finally:
        lab.watcher.stop()


# --- lost events -----------------------------------------------------------------------------------------------------


@contextmanager
def small_queue() -> Iterator[None]:
    """Shrink the kernel's queue for inotify descriptors that are made meanwhile; they keep it."""
    before = LIMIT.read_text()
    try:
        LIMIT.write_text("64")
    except OSError as error:
        pytest.skip(f"{LIMIT} cannot be written: {error}")
    try:
        yield
    finally:
        LIMIT.write_text(before)


def test_an_overflow_of_the_kernels_queue_is_reported_and_healed_and_makes_no_other_one(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    for number in range(300):  # more watches than the queue has room for: taking them away would overflow it again
        (lab.root / f"{number:03d}").mkdir()
    with small_queue():
        lab.watcher.start()
    try:
        number = 0
        while not lab.lost:
            assert number < 20_000, "the queue never overflowed"
            with lab.observer._inotify_fd._lock:  # type: ignore[attr-defined]  # the reader waits: the queue fills
                for _ in range(100):
                    (lab.root / f"P{number:06d}").mkdir()
                    number += 1
            time.sleep(0.01)
        assert set(lab.lost) == {None}
        overflows = len(lab.lost)
        time.sleep(0.3)
        assert len(lab.lost) <= overflows + 2, "the overflows go on though nothing happens"
        lost_before = len(lab.lost)
        lab.watcher.supervise()
        assert (lab.watcher.restarts, len(lab.lost)) == (1, lost_before + 1)
        some = [lab.root / f"P{made:06d}" for made in range(0, number, 50)]  # also those whose making nobody heard of
        for run in [make_run(project / "Runs" / "Run_2026-04-17T14-32") for project in some]:
            lab.heard(creation_of(run))
        lab.watcher.supervise()
        assert (lab.watcher.restarts, len(lab.lost)) == (1, lost_before + 1)
    finally:
        lab.watcher.stop()


def test_only_overflows_are_taken_for_lost_events_and_after_the_stop_none_is_heard(heard: Heard) -> None:
    log = logging.getLogger("watchdog.observers.inotify_c")
    log.warning("something else")
    assert heard.lost == []
    log.warning("Inotify queue overflowed; filesystem events were lost")
    assert heard.lost == [None]
    heard.watcher.stop()
    log.warning("Inotify queue overflowed; filesystem events were lost")
    assert heard.lost == [None]


# --- the end ---------------------------------------------------------------------------------------------------------


def test_stopping_ends_all_threads_and_may_be_repeated(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    descriptors = len(os.listdir("/proc/self/fd"))
    lab = Heard(tmp_path)
    for _ in range(3):
        lab.watcher.start()
        lab.is_seeing(lab.root)
        lab.watcher.stop()
        lab.watcher.stop()
        lab.watcher.supervise()
    until(lambda: set(threading.enumerate()) <= before, "the end of the threads")
    until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, "the end of the descriptors")


def test_a_watcher_that_was_never_started_stops_at_once(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    lab.watcher.supervise()
    lab.watcher.stop()
    assert lab.lost == []


def test_stopping_waits_a_bounded_time_for_a_mount_that_hangs(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STOP_WAIT_S", 0.2)
    hangs = threading.Event()
    real = heard.observer.on_thread_stop

    def hang() -> None:
        hangs.wait(WAIT_S)
        real()

    monkeypatch.setattr(heard.observer, "on_thread_stop", hang)
    began = time.monotonic()
    heard.watcher.stop()
    assert time.monotonic() - began < WAIT_S / 2
    hangs.set()
