"""A whole life of the store, ended at every point at which it can end, and read back: nothing acknowledged is lost.

First in this process, with system calls that fail or stop having any effect (quick, so every point is tried in every
way); then a process of its own under strace, which kills it at its n-th call, or lets that call fail, in the real kernel.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local.durable import temporary_name
from exlab_watch_agent.adapters.state.chain import anchors_in, read_chain
from exlab_watch_agent.adapters.state.layout import EVIDENCE_NAME, TRAIL_NAME
from exlab_watch_agent.adapters.state.recovery import load
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.errors import StateFolderError, StoreFullError, StoreWriteError
from exlab_watch_agent.ports import Entry
from tests.adapters.state.store_lives import (
    NOW,
    State,
    a_record,
    assert_whole,
    let_go,
    live_a_little,
    moved,
    opened,
    slot_paths,
    state_of,
    state_read,
    with_entries,
)

SEGMENT_BYTES = 6000
SYNCS = ("fsync", "fdatasync")
CHANGING = ("write", *SYNCS, "replace", "rename", "unlink", "mkdir", "ftruncate", "chmod")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def no_sync(_: int) -> None:
    return None


def real_of(name: str) -> Callable[..., Any]:
    """Return the system call; a sync without its wait, where no power is cut."""
    return no_sync if name in SYNCS else getattr(os, name)


class DeadError(BaseException):
    """The process is gone: no handler of the code under test may take it for an error."""


class Dying:
    """Ends the "process" at the n-th system call that changes something: from then on none has any effect."""

    def __init__(self, patch: pytest.MonkeyPatch, *, die_at: int, how: str) -> None:
        self.count = 0
        self._die_at, self._how = die_at, how
        for name in CHANGING:
            patch.setattr(os, name, self._watched(name, real_of(name)))

    @property
    def is_dead(self) -> bool:
        return self.count >= self._die_at

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                raise DeadError
            self.count += 1
            if self.count < self._die_at:
                return real(*args, **kwargs)
            if self._how == "after":
                real(*args, **kwargs)
            elif self._how == "half way" and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise DeadError

        return call


class Failing:
    """Lets the n-th of the watched system calls fail, once, as a disk would."""

    def __init__(self, patch: pytest.MonkeyPatch, *, fail_at: int, number: int, names: Sequence[str]) -> None:
        self.count = 0
        self.failed: str | None = None
        self._fail_at, self._number = fail_at, number
        for name in names:
            patch.setattr(os, name, self._watched(name, real_of(name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self._fail_at:
                self.failed = name
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(self._number, os.strerror(self._number))
            return real(*args, **kwargs)

        return call


class Life:
    """What was acknowledged, and what was under way when the process died."""

    def __init__(self) -> None:
        self.acknowledged: State = {}
        self.under_way: State = {}
        self.stores: list[RunStore] = []

    def commit(self, store: RunStore, *entries: Entry) -> None:
        self.under_way = with_entries(self.acknowledged, entries)
        store.commit(entries, at=NOW)
        self.acknowledged = self.under_way

    def live(self, folder: Path) -> None:
        """Live twice over the same folder: commits of one and of many, checkpoints by hand, new segments."""
        for first in (1, 4):
            store = RunStore(folder, segment_bytes=SEGMENT_BYTES)
            self.stores.append(store)
            store.open()
            self.commit(store, moved(a_record(0, turn=first - 1), first))
            self.commit(store, *(moved(a_record(run, turn=first - 1), first) for run in (1, 2, 3)))
            store.checkpoint()
            self.commit(store, moved(a_record(0, turn=first), first + 1))
            self.commit(store, moved(a_record(0, turn=first + 1), first + 2))
            if first == 1:
                store.checkpoint()
            store.close()


@pytest.mark.parametrize("how", ["before", "after", "half way"])
def test_a_stop_at_any_step_of_a_life_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    endings: set[bool] = set()
    for die_at in range(1, 500):
        folder = tmp_path / str(die_at)
        life = Life()
        with monkeypatch.context() as patch:
            dying = Dying(patch, die_at=die_at, how=how)
            with suppress(DeadError):
                life.live(folder)
        for store in life.stores:
            let_go(store)
        if folder.exists():
            loaded = load(folder)
            read = state_read(loaded)
            assert read in (life.acknowledged, life.under_way), die_at
            assert loaded.hold is None, (die_at, loaded.hold)
            with opened(folder) as store:
                assert state_of(store) == read
                assert store.hold is None
                endings.add(read == life.acknowledged)
                store.commit([moved(a_record(9), 1)], at=NOW)
                assert len(store) == len(read) + 1
            assert_whole(folder)
        if not dying.is_dead:
            assert life.acknowledged == read
            break
    else:
        pytest.fail("the life never came to its end")
    assert die_at > 60
    assert len(list((folder / "audit").iterdir())) >= 1  # so new segments were among the steps
    assert endings == {True, False}  # a line that stood and was not acknowledged yet may be true, and is then whole


@pytest.mark.parametrize("how", ["before", "after", "half way"])
@pytest.mark.parametrize("trail", ["torn", "broken", "missing"])
def test_a_stop_at_any_step_of_a_recovery_loses_neither_state_nor_evidence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, trail: str
) -> None:
    live_a_little(folder)
    live = folder / TRAIL_NAME
    if trail == "missing":
        live.unlink()
    elif trail == "broken":
        live.write_bytes(live.read_bytes().replace(b'"step_3"', b'"step_4"', 1))
    else:
        live.write_bytes(live.read_bytes() + b'{"torn')
    damaged = live.read_bytes() if trail == "broken" else b'{"torn'
    slot_paths(folder)[1].write_bytes(b"older")
    (folder / temporary_name("x")).write_bytes(b"")
    before = load(folder)
    lived = state_of_documents(before)
    template = folder.rename(folder.with_name("template"))
    for die_at in range(1, 200):
        shutil.copytree(template, folder)
        store = RunStore(folder)
        with monkeypatch.context() as patch:
            dying = Dying(patch, die_at=die_at, how=how)
            with suppress(DeadError):
                store.open()
                store.checkpoint()
                store.close()
        let_go(store)
        assert state_of_documents(load(folder)) == lived, die_at
        with opened(folder) as store:
            assert {record.job_id: record for record in store} == lived
            assert (store.hold is None) == (trail == "torn"), die_at
        kept = {p.read_bytes() for p in (folder / EVIDENCE_NAME).iterdir() if not p.name.startswith(".")}
        assert kept >= {b"older", *([] if trail == "missing" else [damaged])}, die_at
        assert read_chain(folder, anchors_in(folder)).breaks == ()
        shutil.rmtree(folder)
        if not dying.is_dead:
            break
    else:
        pytest.fail("the recovery never came to its end")
    assert die_at > 10


def state_of_documents(loaded: Any) -> dict[str, Any]:
    return {record.job_id: record for record in loaded.documents.records()}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["no room", "a bad disk"])
def test_any_failed_call_leaves_exactly_what_was_acknowledged_and_a_full_disk_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failed: set[str | None] = set()
    said: set[str] = set()
    for fail_at in range(1, 300):
        folder = tmp_path / str(fail_at)
        acknowledged: State = {}
        with opened(folder, segment_bytes=4000) as store, monkeypatch.context() as patch:
            failing = Failing(patch, fail_at=fail_at, number=number, names=("write", *SYNCS, "replace", "rename"))
            for turn in range(1, 7):
                entries = [moved(a_record(run, turn=turn - 1), turn) for run in range(2)]
                try:
                    store.commit(entries, at=NOW)
                    if turn == 3:
                        acknowledged = with_entries(acknowledged, entries)
                        store.checkpoint()
                        continue
                except StoreFullError as error:
                    said.add(str(error).rpartition(": ")[2])
                    assert state_of(store) == acknowledged
                    if turn != 3 or state_of(store) != with_entries(acknowledged, entries):
                        store.commit(entries, at=NOW)  # there is room now
                except StoreWriteError as error:
                    said.add(str(error).rpartition(": ")[2])
                    break
                acknowledged = with_entries(acknowledged, entries)
            assert state_of(store) == acknowledged
        with opened(folder) as store:
            assert state_of(store) == acknowledged
            assert (store.notices, store.hold) == ((), None)
        assert_whole(folder)
        failed.add(failing.failed)
        if failing.failed is None:
            break
    else:
        pytest.fail("the life never came to its end")
    assert failed >= {"write", "fdatasync", "fsync", "replace", "rename", None}
    stop = "make room or repair the disk, then start the agent again."
    assert said == ({stop, "make room there."} if number == errno.ENOSPC else {stop})


def test_a_start_on_a_failing_disk_is_one_sentence_and_the_next_start_finds_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived = live_a_little(folder)
    trail = folder / TRAIL_NAME
    trail.write_bytes(trail.read_bytes() + b'{"torn')
    slot_paths(folder)[1].write_bytes(b"damaged")
    template = folder.rename(folder.with_name("template"))
    said: set[str] = set()
    for fail_at in range(1, 200):
        shutil.copytree(template, folder)
        with monkeypatch.context() as patch:
            failing = Failing(patch, fail_at=fail_at, number=errno.EIO, names=[n for n in CHANGING if n != "chmod"])
            store = RunStore(folder)
            try:
                store.open()
            except StateFolderError as error:
                said.add(str(error).partition("cannot be ")[2][:10])
            store.close()
        with opened(folder) as store:
            assert state_of(store) == lived
        kept = {path.read_bytes() for path in (folder / EVIDENCE_NAME).iterdir() if not path.name.startswith(".")}
        assert kept == {b'{"torn', b"damaged"}
        shutil.rmtree(folder)
        if failing.failed is None:
            break
    else:
        pytest.fail("the start never came to its end")
    assert said == {"used as st", "brought in"}


# --- a process of its own, in the real kernel ------------------------------------------------------------------------------

STEPS = 5
LIVES = 2
CALLS_MAX = 250  # more than any life makes of one kind
POINTS_MIN = {"write": 15, "fdatasync": 10, "fsync": 25, "rename": 8}
DRIVER = Path(__file__).parent / "store_driver.py"
INJECTIONS = {
    "killed at a write": ("write", "signal=KILL"),
    "killed at a sync of data": ("fdatasync", "signal=KILL"),
    "killed at a sync": ("fsync", "signal=KILL"),
    "killed at a rename": ("rename", "signal=KILL"),
    "killed at an unlink": ("unlink", "signal=KILL"),
    "killed at a mkdir": ("mkdir", "signal=KILL"),
    "no room at a write": ("write", "error=ENOSPC"),
    "a bad disk at a sync of data": ("fdatasync", "error=EIO"),
    "a bad disk at a sync": ("fsync", "error=EIO"),
    "a bad disk at a rename": ("rename", "error=EIO"),
}


@pytest.mark.parametrize(("call", "what"), INJECTIONS.values(), ids=INJECTIONS)
def test_a_real_process_may_end_or_fail_at_its_nth_call_for_every_n(tmp_path: Path, call: str, what: str) -> None:
    """strace lets the n-th call of each process fail; the driver forks one process for every n until one lives on."""
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:{what}:when={CALLS_MAX}",
    ]
    told = subprocess.run(
        [*command, sys.executable, str(DRIVER), str(tmp_path), call, str(CALLS_MAX)],
        capture_output=True,
        timeout=100,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    points = json.loads(told.stdout)
    assert points[-1]["said"] == ["kept"] * LIVES * STEPS + ["end"]  # this one was not met by the failure any more
    assert len(points) > POINTS_MIN.get(call, 1)
    for point in points:
        folder = tmp_path / str(point["n"])
        acknowledged = sum(word == "kept" for word in point["said"])
        if not (folder / TRAIL_NAME).exists() and acknowledged == 0 and not folder.exists():
            continue
        with opened(folder) as store:
            turns = {record.job_id: record.turn for record in store}
            assert turns in (turns_after(acknowledged), turns_after(acknowledged + 1)), point
            if what.startswith("error"):
                assert turns == turns_after(acknowledged), point
            assert (store.hold, [n for n in store.notices if "never acknowledged" not in n]) == (None, []), point
            for record in store:
                moves = store.history(record.job_id)
                assert [move.dest for move in moves][-1:] == [record.state]
                assert len(moves) == sum(
                    turns_after(k).get(record.job_id) == k for k in range(1, LIVES * STEPS + 1) if k <= record.turn
                )
        assert_whole(folder)


def turns_after(steps: int) -> dict[str, int]:
    """Return each run's turn after so many commits of the driver's life: odd ones are of three runs, the others of one."""
    turns: dict[str, int] = {}
    for number in range(min(steps, LIVES * STEPS)):
        for run in range(1 + 2 * (number % 2)):
            turns[a_record(run).job_id] = number + 1
    return turns
