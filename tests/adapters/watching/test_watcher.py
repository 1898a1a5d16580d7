"""The watcher on real folders and the real kernel: what is reported, what is not, and that nothing stays deaf."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver, EventQueue

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local import mounts
from exlab_watch_agent.adapters.local.durable import temporary_name, write_atomically
from exlab_watch_agent.adapters.watching import canary
from exlab_watch_agent.adapters.watching.limits import Limits
from exlab_watch_agent.adapters.watching.observers import make_observer, plain_observer
from exlab_watch_agent.adapters.watching.pace import PACE, Pace
from exlab_watch_agent.core.policy import ObserverMode
from tests.adapters.watching.hearing import BRISK, CACHE, WAIT_S, Heard, creation_of, make_run, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    with Heard(tmp_path) as lab:
        lab.until_well()
        yield lab


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
    heard.heard(run)


def test_a_burst_of_new_runs_leaves_none_out(heard: Heard) -> None:
    runs = [make_run(heard.runs / f"Run_2026-04-{day:02d}T{hour:02d}-00") for day in range(1, 11) for hour in range(20)]
    for run in runs:
        heard.heard(creation_of(run))


# --- what is not -----------------------------------------------------------------------------------------------------


def test_data_below_the_run_are_neither_reported_nor_watched(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    watches = heard.open_watches()
    (run / "data" / "deep").mkdir(parents=True)
    heard.heard(run)  # that a folder came in the run is about the run
    heard.forget()
    for number in range(50):
        (run / "data" / "deep" / f"{number}.tif").write_bytes(b"x")
        (run / "data" / f"more {number}").mkdir()
    heard.settle()
    assert heard.paths == []
    assert heard.open_watches() == watches


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
        heard.until_well()
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
    keeper = heard.watcher.inbox_keeper
    assert keeper is not None
    heard.inbox.rmdir()
    until(lambda: keeper.health.is_degraded, "the inbox's absence")
    heard.is_seeing(heard.root)
    heard.inbox.mkdir()
    until(lambda: not keeper.health.is_degraded, "the inbox's return")
    heard.inbox_calls = 0
    (heard.inbox / "a.json").touch()
    until(lambda: heard.inbox_calls, "the request")
    assert not heard.watcher.is_degraded


# --- how folders come and go -----------------------------------------------------------------------------------------


def test_a_name_whose_folder_was_moved_away_is_watched_when_it_is_made_again(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    run.rename(heard.outside / "gone")
    make_run(run)
    heard.heard(creation_of(run))
    heard.forget()
    creation_of(run).write_text('{"a": 1}')
    heard.heard(creation_of(run))


def test_what_was_moved_out_is_neither_reported_nor_watched(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    watches = heard.open_watches()
    run.parent.parent.rename(heard.outside / "gone")
    until(lambda: heard.open_watches() == watches - 4, "the end of the watches of what was moved out")
    heard.forget()
    creation_of(heard.outside / "gone" / "Runs" / run.name).write_text('{"a": 1}')
    heard.settle()
    assert heard.paths == []


@pytest.mark.parametrize("level", ["cache", "run", "Runs", "project"])
def test_what_is_renamed_to_and_fro_stays_watched_and_keeps_no_second_watch(heard: Heard, level: str) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    heard.forget()
    watches = heard.open_watches()
    folder = {"cache": creation_of(run).parent, "run": run, "Runs": run.parent, "project": run.parent.parent}[level]
    for _ in range(50):
        folder.rename(folder.with_name(f"{folder.name} 2"))
        folder.with_name(f"{folder.name} 2").rename(folder)
    heard.forget()
    creation_of(run).write_text('{"a": 1}')
    heard.heard(creation_of(run))
    until(lambda: heard.open_watches() == watches, f"{watches} watches")


def test_a_cache_folder_that_is_replaced_by_a_rename_over_it_is_watched(heard: Heard) -> None:
    run = make_run(heard.runs / "Run_2026-04-17T14-32")
    fresh = creation_of(make_run(heard.outside / "Run")).parent
    heard.forget()
    creation_of(run).unlink()
    fresh.replace(creation_of(run).parent)
    heard.heard(creation_of(run))
    heard.forget()
    creation_of(run).write_text('{"a": 1}')
    heard.heard(creation_of(run))


def test_a_storm_of_files_in_one_run_is_one_path_to_look_at(tmp_path: Path) -> None:
    lab = Heard(tmp_path, on_news=lambda: None)  # nobody takes what comes, as while the engine is busy
    run = make_run(lab.runs / "Run_2026-04-17T14-32")
    with lab:
        lab.until_well()
        for number in range(3000):
            (run / f"{number}.tif").write_bytes(b"x")
        (lab.root / "P3").mkdir()
        until(lambda: str(lab.root / "P3") in lab.watcher._paths, "the mark")
        assert set(lab.watcher.take()) == {str(run), str(lab.root / "P3")}


def test_runs_under_odd_names_are_reported_letter_by_letter(heard: Heard) -> None:
    for number, name in enumerate(["P  2 λ", "it's; $HOME", os.fsdecode(b"not \xff unicode"), "new\nline"]):
        run = make_run(heard.root / name / "TestRuns" / f"TestRun_2026-04-17T14-{number:02d}")
        heard.heard(creation_of(run))


# --- what dies is replaced -------------------------------------------------------------------------------------------


def test_a_healthy_watcher_is_left_alone(heard: Heard) -> None:
    observer = heard.observer
    looks = heard.keeper.turns
    until(lambda: heard.keeper.turns > looks + 5, "five looks")
    assert heard.observer is observer
    assert (heard.lost, heard.watcher.restarts, heard.is_well()) == ([], 0, True)


def test_a_root_that_is_missing_at_the_start_is_watched_once_it_is_there(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    shutil.rmtree(lab.root)
    with lab:
        assert (lab.lost, lab.health.is_degraded, lab.health.kind) == ([], True, "native")
        assert "is not there" in lab.health.reason
        lab.is_seeing(lab.other)
        lab.root.mkdir()
        lab.until_well()
        assert (lab.lost, lab.watcher.restarts) == (["SCOPE_01"], 0)
        lab.is_seeing(lab.root)


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
        until(lambda: heard.health.is_degraded, "the absence")
    heard.root.mkdir(parents=True)
    heard.other.mkdir(exist_ok=True)
    gone = {"SCOPE_01", "FLOW_01"} if go is moved_with_its_parent else {"SCOPE_01"}
    until(lambda: gone <= set(heard.lost), "the return of all that went away")
    heard.until_well()
    heard.is_seeing(heard.root)
    heard.is_seeing(heard.other)


def test_a_root_that_is_replaced_by_a_link_is_no_longer_watched(heard: Heard) -> None:
    heard.root.rename(heard.outside / "away")
    heard.root.symlink_to(heard.outside / "away")
    until(lambda: heard.health.is_degraded, "the link")
    assert heard.health.watches == 0


def test_a_root_that_may_not_be_read_is_not_taken_for_a_watched_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Heard(tmp_path)
    real = os.access
    with lab:
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode: path != str(lab.root) and real(path, mode))
            until(lambda: lab.health.is_degraded, "the refusal")
        lab.until_well()
        assert lab.lost == ["SCOPE_01"]


class Planted(FileSystemEventHandler):
    def on_any_event(self, event: Any) -> None:
        raise RuntimeError("planted")


def kill_dispatcher(heard: Heard) -> None:
    for handlers in heard.observer._handlers.values():
        handlers.add(Planted())
    (heard.root / "trigger").mkdir()


def kill_emitter(heard: Heard) -> None:
    next(iter(heard.observer.emitters)).stop()


def kill_emitter_by_a_defect(heard: Heard) -> None:
    def fail(data: bytes) -> Any:
        raise RuntimeError("planted")

    next(iter(heard.observer.emitters)).levels.take = fail  # type: ignore[attr-defined]
    (heard.root / "trigger").mkdir()


def threads_of(observer: BaseObserver) -> list[threading.Thread]:
    return [observer, *observer.emitters]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "kill", [kill_dispatcher, kill_emitter, kill_emitter_by_a_defect], ids=lambda kill: kill.__name__
)
def test_a_dead_thread_of_the_observer_is_noticed_said_and_replaced(
    heard: Heard, kill: Callable[[Heard], None]
) -> None:
    before, other = heard.observer, heard.watcher.keepers["FLOW_01"].observer
    threads = threads_of(before)
    until(lambda: heard.health.canary == "heard", "the canary")  # else the death may be seen only after its wait
    kill(heard)
    until(lambda: not all(thread.is_alive() for thread in threads), "the death")
    until(lambda: heard.lost, "the word of it")
    heard.until_well()
    assert (heard.lost, heard.watcher.restarts) == (["SCOPE_01"], 1)
    assert heard.observer is not before
    assert heard.watcher.keepers["FLOW_01"].observer is other, "the other root had nothing to do with it"
    heard.is_seeing(heard.root)
    heard.is_seeing(heard.other)
    until(lambda: not any(thread.is_alive() for thread in threads), "the end of the old threads")


def test_a_receiver_that_raises_does_not_end_the_watching(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)

    def refuse() -> None:
        lab.take()
        raise RuntimeError("the engine is gone")

    lab = Heard(tmp_path, on_news=refuse)
    with lab:
        lab.is_seeing(lab.root)
        lab.is_seeing(lab.root)
        assert lab.watcher.restarts == 0
        until(lambda: "was not passed on" in caplog.text, "the log")


def test_a_keeper_that_fails_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Heard(tmp_path)
    with lab:
        lab.until_well()
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda *_: 1 / 0)
            until(lambda: "the watch failed" in lab.health.reason, "the failure")
        lab.until_well()
        lab.is_seeing(lab.root)


# --- what cannot be watched ------------------------------------------------------------------------------------------


class Refusing:
    """Lets no observer be made until it relents."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_relented = False

    def __call__(self, is_finished: Callable[[str], bool], limits: Limits, pace: Pace) -> BaseObserver:
        if not self.has_relented:
            raise OSError(self.number, "refused")
        return make_observer(is_finished, limits, pace)


@pytest.mark.parametrize(
    ("number", "sysctl"), [(errno.EMFILE, "max_user_instances"), (errno.ENOSPC, "max_user_watches")]
)
def test_a_root_that_cannot_be_watched_is_polled_and_tried_again(tmp_path: Path, number: int, sysctl: str) -> None:
    refusing = Refusing(number)
    pace = replace(BRISK, retry_every_s=0.2, poll_every_s=0.01)

    def is_polled() -> bool:
        lab.watcher.supervise()
        return "SCOPE_01" in lab.polled

    with Heard(tmp_path, pace=pace, make_observer=refusing) as lab:
        until(lambda: lab.health.kind == "polling", "the fall-back")
        assert lab.health.is_degraded
        assert sysctl in lab.health.command
        until(is_polled, "a poll")
        assert lab.lost == []
        refusing.has_relented = True
        lab.until_well()
        assert sorted(lab.lost) == ["FLOW_01", "SCOPE_01"]
        lab.is_seeing(lab.root)


def test_who_asked_for_native_events_alone_is_degraded_and_not_polled(tmp_path: Path) -> None:
    with Heard(tmp_path, mode=ObserverMode.NATIVE, make_observer=Refusing(errno.EMFILE)) as lab:
        lab.watcher.supervise()
        assert (lab.health.kind, lab.health.is_degraded, lab.polled) == ("native", True, [])


def test_a_root_that_cannot_be_watched_is_said_once_and_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)
    lab = Heard(tmp_path, pace=replace(BRISK, retry_every_s=0.0))
    real = BaseObserver.schedule

    def schedule(observer: BaseObserver, handler: Any, path: str, **options: Any) -> Any:
        if path == str(lab.root):
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return real(observer, handler, path, **options)

    monkeypatch.setattr(BaseObserver, "schedule", schedule)
    with lab:
        until(lambda: lab.health.is_degraded, "the refusal")
        looks = lab.keeper.turns
        until(lambda: lab.keeper.turns > looks + 3, "three looks")
        assert caplog.text.count("inotify watch limit reached") == 1
        lab.is_seeing(lab.other)


class StandingClock(SystemClock):
    """Its time goes on only where a test says so."""

    now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s


def test_polling_by_choice_is_not_degraded_and_keeps_its_pace(tmp_path: Path) -> None:
    clock = StandingClock()
    with Heard(tmp_path, mode=ObserverMode.POLLING, clock=clock) as lab:
        assert (lab.health.kind, lab.health.is_degraded, lab.keeper.observer) == ("polling", False, None)
        lab.watcher.supervise()
        lab.watcher.supervise()
        assert lab.polled == ["SCOPE_01", "FLOW_01"], "two at once"
        clock.now_s += PACE.poll_every_s
        lab.watcher.supervise()
        assert lab.polled == ["SCOPE_01", "FLOW_01"] * 2
        lab.took_s = 2.0
        clock.now_s += PACE.poll_share_max * 2.0 - 1
        lab.watcher.supervise()
        assert lab.polled == ["SCOPE_01", "FLOW_01"] * 2, "a scan that takes 2 s is asked for at most every 100 s"
        clock.now_s += 1
        lab.watcher.supervise()
        assert lab.polled == ["SCOPE_01", "FLOW_01"] * 3


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "a network drive"])
def test_a_share_that_others_write_to_is_polled_without_being_degraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(mounts, "kind_of", lambda _: kind)
    with Heard(tmp_path) as lab:
        assert (lab.health.kind, lab.health.is_degraded) == ("polling", False)
        assert kind in lab.health.reason


def test_on_a_share_native_events_are_had_by_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "kind_of", lambda _: "nfs4")
    with Heard(tmp_path, mode=ObserverMode.NATIVE) as lab:
        lab.until_well()
        lab.is_seeing(lab.root)


def test_a_root_that_hangs_stops_neither_the_start_nor_the_others_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    real = os.lstat
    lab = Heard(tmp_path, pace=replace(BRISK, hang_s=0.2, start_wait_s=0.2))

    def hang(path: Any, **options: Any) -> os.stat_result:
        if path == str(lab.root):
            answers.wait(WAIT_S)
        return real(path, **options)

    monkeypatch.setattr(os, "lstat", hang)
    with lab:
        lab.is_seeing(lab.other)
        until(lambda: "does not answer" in lab.health.reason, "the word of it")
        assert lab.health.is_degraded
        make_run(lab.runs / "Run_2026-04-17T14-32")
        answers.set()
        lab.until_well()
        assert "SCOPE_01" in lab.lost, "what came while it hung must be scanned for"


# --- the canary ------------------------------------------------------------------------------------------------------


def test_the_canary_is_heard_leaves_nothing_and_is_no_news(tmp_path: Path) -> None:
    with Heard(tmp_path, pace=replace(BRISK, canary_every_s=0.0)) as heard:
        heard.until_well()
        until(lambda: heard.health.canary == "heard", "the canary")
        turns = heard.keeper.turns
        until(lambda: heard.keeper.turns > turns + 5, "five canaries")
        heard.settle()
        assert (heard.paths, heard.lost, heard.watcher.restarts) == ([], [], 0)
        heard.watcher.stop()
        assert os.listdir(heard.root / ".exlab-wizard") == []


def test_the_lock_beside_the_canary_is_no_news(heard: Heard) -> None:
    heard.forget()
    folder = heard.root / ".exlab-wizard"
    for name in ("watch-agent.lock", "watch-agent.json", "creation.json"):
        (folder / name).write_text("x")
        (folder / name).unlink()
    heard.settle()
    assert heard.paths == []


def deafen(observer: BaseObserver) -> None:
    """Take the handlers away: everything lives and nothing is reported."""
    for handlers in observer._handlers.values():
        handlers.clear()


def _drop_event(event_queue: EventQueue) -> None:
    event_queue.get()


class Deafening:
    """Makes observers to which no event gets through, as long as it is on."""

    def __init__(self) -> None:
        self.is_on = True

    def __call__(self, is_finished: Callable[[str], bool], limits: Limits, pace: Pace) -> BaseObserver:
        observer = make_observer(is_finished, limits, pace)
        if self.is_on:
            observer.dispatch_events = _drop_event  # type: ignore[method-assign]  # it is deaf
        return observer


CANARIES = replace(BRISK, canary_every_s=0.1, canary_wait_s=2.0)
"""Those that are never heard cost this long; two of a healthy observer's in a row must be delivered within it."""


def test_an_observer_that_went_deaf_with_all_its_threads_alive_is_replaced(tmp_path: Path) -> None:
    with Heard(tmp_path, pace=CANARIES) as lab:
        lab.until_well()
        before = lab.observer
        deafen(before)
        until(lambda: "SCOPE_01" in lab.lost, "the replacement")
        until(lambda: lab.keeper.observer not in (None, before), "another observer")
        lab.until_well()
        lab.is_seeing(lab.root)


@pytest.mark.parametrize(("mode", "kind"), [(ObserverMode.AUTO, "polling"), (ObserverMode.NATIVE, "native")])
def test_where_no_event_ever_arrives_the_root_is_polled_or_degraded_until_they_do(
    tmp_path: Path, mode: ObserverMode, kind: str
) -> None:
    deafening = Deafening()
    pace = replace(CANARIES, canary_wait_s=1.0, retry_every_s=0.5)
    with Heard(tmp_path, mode=mode, pace=pace, make_observer=deafening) as lab:
        until(lambda: "not even by a new observer" in lab.health.reason, "the silence")
        assert (lab.health.kind, lab.health.canary, lab.health.is_degraded) == (kind, "silent", True)
        deafening.is_on = False
        lab.lost.clear()
        lab.until_well()
        until(lambda: "SCOPE_01" in lab.lost, "the word of it")
        lab.is_seeing(lab.root)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_root_in_which_nothing_can_be_written_is_watched_without_a_canary_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("watch-agent.canary"):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with Heard(tmp_path) as lab:
        until(lambda: lab.health.canary.startswith("none"), "the word of it")
        assert os.strerror(number) in lab.health.reason
        assert lab.is_well()
        lab.is_seeing(lab.root)


def test_before_a_root_is_known_to_be_ours_nothing_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Heard(tmp_path)
    lab.is_ours = False
    with lab:
        lab.until_well()
        lab.is_seeing(lab.root)
        looks = lab.keeper.turns
        until(lambda: lab.keeper.turns > looks + 3, "three looks")
        assert lab.health.canary == ""
        lab.is_ours = True
        until(lambda: lab.health.canary == "heard", "the canary")


def test_below_a_mount_point_whose_disk_is_gone_nothing_is_made(heard: Heard) -> None:
    until(lambda: heard.health.canary == "heard", "the canary")
    heard.root.rename(heard.outside / "the disk")
    heard.root.mkdir()
    until(lambda: "is not there yet" in heard.health.reason, "the new folder's watch")
    assert os.listdir(heard.root) == []
    (heard.root / CACHE).mkdir()  # as the agent's lock is taken
    until(lambda: heard.health.canary == "heard", "the canary")


def test_the_canary_follows_no_link_out_of_the_root(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    (lab.root / CACHE).rmdir()
    (lab.root / CACHE).symlink_to(lab.outside)
    (lab.outside / "watch-agent.canary").write_text("another's")
    with lab:
        until(lambda: lab.health.canary.startswith("none"), "the word of it")
    assert (lab.outside / "watch-agent.canary").read_text() == "another's"


def test_a_canary_that_a_killed_agent_left_is_taken_away(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    canary.place(str(lab.root))
    with lab:
        until(lambda: lab.health.canary == "heard", "the canary")
    canary.remove(str(lab.root))
    assert os.listdir(lab.root / CACHE) == []


def test_a_canary_whose_folder_went_away_or_became_a_link_is_removed_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "watch-agent.canary").write_text("another's")
    (tmp_path / "root").mkdir()
    canary.remove(str(tmp_path / "root"))
    (tmp_path / "root" / CACHE).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="link"):
        canary.remove(str(tmp_path / "root"))
    assert os.listdir(tmp_path / "outside") == ["watch-agent.canary"]


# --- the other platforms' observer, as far as it can be tried here ---------------------------------------------------


# watchdog warns when it meets a folder that was made while it registered the one above; here a warning would end its thread.
@pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")
def test_watchdogs_own_observer_serves_behind_the_same_handler(tmp_path: Path) -> None:
    with Heard(tmp_path, make_observer=plain_observer) as lab:
        lab.until_well()
        assert type(lab.observer).__module__.startswith("watchdog.")
        until(lambda: lab.health.canary == "heard", "the canary")
        lab.is_seeing(lab.root)
        run = make_run(lab.runs / "Run_2026-04-17T14-32")
        lab.heard(creation_of(run))
        lab.forget()
        (run / "data" / "deep").mkdir(parents=True)
        (run / "data" / "deep" / "1.tif").write_bytes(b"x")
        creation_of(run).with_name("wizard.log").write_text("x")
        write_atomically(creation_of(run), b"{}")
        lab.heard(creation_of(run))
        lab.settle()
        assert set(lab.paths) == {str(run), str(creation_of(run))}


# --- the end ---------------------------------------------------------------------------------------------------------


def test_stopping_ends_all_threads_and_may_be_repeated(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    descriptors = len(os.listdir("/proc/self/fd"))
    lab = Heard(tmp_path)
    for _ in range(3):
        with lab:
            lab.is_seeing(lab.root)
        lab.watcher.stop()
        lab.watcher.supervise()
    until(lambda: set(threading.enumerate()) <= before, "the end of the threads")
    until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, "the end of the descriptors")


def test_a_watcher_that_was_never_started_stops_at_once(tmp_path: Path) -> None:
    lab = Heard(tmp_path)
    lab.watcher.supervise()
    lab.watcher.stop()
    assert lab.lost == []


def test_stopping_waits_a_bounded_time_for_a_mount_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(tmp_path, pace=replace(BRISK, stop_wait_s=0.2))
    heard.watcher.start()
    heard.until_well()
    hangs = threading.Event()
    real = heard.observer.on_thread_stop

    def hang() -> None:
        hangs.wait(WAIT_S)
        real()

    monkeypatch.setattr(heard.observer, "on_thread_stop", hang)
    keeper = heard.keeper
    heard.watcher.stop()
    assert keeper.is_alive(), "it waited for the mount"
    hangs.set()
    keeper.join(WAIT_S)
