"""The run's own log: the line to the letter, and a writer that never harms the run."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.local.run_log import RunLogWriter, format_line, level_of, sentence
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.statechart import RunState, Trigger

NOW = datetime(2026, 4, 17, 14, 32, 11, 999_999, tzinfo=UTC)
LEAF = "Run_2026-04-17T14-32"


def a_record(run_path: Path | str, **changes: Any) -> RunRecord:
    record = RunRecord(
        job_id="1",
        run_path=str(run_path),
        equipment_id="CONFOCAL_01",
        project="PROJ-0042",
        run_kind="experimental",
        identity=RunIdentity("", "", "", ""),
        entered_at=NOW,
        files_total=3,
        bytes_total=4711,
    )
    return replace(record, **changes)


def a_move(
    dest: RunState = RunState.QUEUED,
    *,
    trigger: str = "admitted",
    source: RunState | None = RunState.ACQUIRING,
    reason: str = "complete",
) -> Move:
    return Move(NOW, trigger, source, dest, reason)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / LEAF / ".exlab-wizard").mkdir(parents=True)
    return tmp_path / LEAF


def log_of(run: Path) -> Path:
    return run / ".exlab-wizard" / "wizard.labpc-04.log"


def written(*moves: tuple[RunRecord, Move]) -> None:
    writer = RunLogWriter("labpc-04")
    writer.start()
    for record, move in moves:
        writer.put(record, move)
    writer.close()


# --- the line --------------------------------------------------------------------------------------------------------


def test_the_line_is_exactly_that_of_the_wizard(run: Path) -> None:
    written((a_record(run), a_move(RunState.VERIFIED, trigger="sealed", source=RunState.SEALING)))
    assert log_of(run).read_text() == (
        "2026-04-17T14:32:11Z [INFO ] [host:labpc-04] [equip:CONFOCAL_01] [proj:PROJ-0042] [kind:experimental] "
        f"[run:{LEAF}] NAS sync complete: 3 files, 4711 bytes, every SHA-256 equal on both sides\n"
    )


def test_times_are_utc_wherever_the_clock_stands() -> None:
    at = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert format_line(a_record("/r"), at=at, level="INFO", host="h", text="t").startswith(
        "2026-04-17T14:32:11Z [INFO ]"
    )


@pytest.mark.parametrize(
    ("move", "level", "text"),
    [
        (a_move(source=None, dest=RunState.ACQUIRING, trigger="discovered", reason="seen"), "INFO",
         "NAS sync new -> acquiring (discovered): seen"),
        (a_move(), "INFO", "NAS sync acquiring -> queued (admitted): complete"),
        (a_move(RunState.BLOCKED, trigger="refused"), "WARNING", "NAS sync acquiring -> blocked (refused): complete"),
        (a_move(RunState.CONFLICT), "WARNING", "NAS sync acquiring -> conflict (admitted): complete"),
        (a_move(RunState.QUEUED, trigger=Trigger.PUT_BACK), "WARNING", "NAS sync acquiring -> queued (put_back): complete"),
        (a_move(RunState.QUEUED, trigger=Trigger.COPY_DAMAGED), "WARNING",
         "NAS sync acquiring -> queued (copy_damaged): complete"),
        (a_move(RunState.FAILED), "ERROR", "NAS sync acquiring -> failed (admitted): complete"),
        (a_move(RunState.VERIFIED, source=RunState.AUDITING, trigger="audited"), "INFO",
         "NAS sync auditing -> verified (audited): complete"),
    ],
)  # fmt: skip
def test_level_and_sentence_say_what_happened(move: Move, level: str, text: str) -> None:
    assert (level_of(move), sentence(a_record("/r"), move)) == (level, text)


FORGERY = "\n2026-04-17T14:32:11Z [INFO ] [host:x] NAS sync complete"


@pytest.mark.parametrize("member", ["project", "run_kind", "equipment_id", "run_path", "reason"])
@pytest.mark.parametrize(
    "end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"], ids=ascii
)
def test_no_line_end_in_a_name_or_reason_can_forge_a_second_line(member: str, end: str) -> None:
    text = "a" + FORGERY.replace("\n", end)
    record = a_record("/data/" + LEAF)
    move = a_move(reason=text if member == "reason" else "r")
    if member == "run_path":
        record = replace(record, run_path="/data/" + text)
    elif member != "reason":
        changed: dict[str, Any] = {member: text}
        record = replace(record, **changed)
    line = format_line(record, at=NOW, level="INFO", host="labpc-04", text=sentence(record, move))
    assert line.splitlines() == [line]
    assert "\\" in line


def test_control_characters_and_names_that_are_no_unicode_become_visible_text() -> None:
    record = a_record("/data/Run_\x00\x1b[31m\x7f\x9b\udcff ä")
    line = format_line(record, at=NOW, level="INFO", host="h", text="t")
    assert "[run:Run_\\x00\\x1b[31m\\x7f\\x9b\\udcff ä]" in line
    assert re.search(r"[\x00-\x1f\x7f-\x9f]", line) is None
    line.encode()


# --- the writer ------------------------------------------------------------------------------------------------------


def test_lines_are_appended_in_order_to_what_stands_there(run: Path) -> None:
    log_of(run).write_text("a line of ExLab-Wizard\n")
    written(*((a_record(run), a_move(reason=f"number {number}")) for number in range(200)))
    lines = log_of(run).read_text().splitlines()
    assert lines[0] == "a line of ExLab-Wizard"
    assert [line.rpartition(" ")[2] for line in lines[1:]] == [str(number) for number in range(200)]


def test_each_line_reaches_the_central_log_too(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)
    caplog.set_level("INFO", "exlab_watch_agent")
    written((a_record(run), a_move(RunState.FAILED)))
    assert [(r.levelname, r.getMessage().partition(" ")[0]) for r in caplog.records] == [
        ("ERROR", "[equip:CONFOCAL_01]")
    ]


def test_a_run_without_cache_folder_gets_no_log_and_no_folder(run: Path, tmp_path: Path) -> None:
    (run / ".exlab-wizard").rmdir()
    gone = tmp_path / "gone" / LEAF
    written((a_record(run), a_move()), (a_record(gone), a_move()))
    assert not list(run.iterdir())
    assert not gone.parent.exists()


def test_nothing_is_written_through_a_linked_cache_folder_or_a_linked_log(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("data")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".exlab-wizard").symlink_to(outside)
    log_of(run).symlink_to(outside / "file")
    written((a_record(linked), a_move()), (a_record(run), a_move()))
    log_of(run).unlink()
    log_of(run).symlink_to(outside / "new")
    written((a_record(run), a_move()))
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "data"


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link"])
def test_a_log_that_is_no_file_holds_nothing_up(run: Path, tmp_path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(log_of(run))
    elif kind == "folder":
        log_of(run).mkdir()
    else:
        log_of(run).symlink_to("/nowhere/at/all")
    (tmp_path / "other" / ".exlab-wizard").mkdir(parents=True)
    began = time.monotonic()
    written((a_record(run), a_move()), (a_record(tmp_path / "other"), a_move()))
    assert time.monotonic() - began < 5
    assert "complete" in log_of(tmp_path / "other").read_text()


def test_a_disk_that_fails_is_said_and_the_next_lines_are_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)
    real = os.write
    calls = iter([OSError(errno.ENOSPC, "No space left on device")])

    def write(descriptor: int, data: bytes) -> int:
        error = next(calls, None)
        if error is not None:
            raise error
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    written((a_record(run), a_move(reason="first")), (a_record(run), a_move(reason="second")))
    assert "could not be written: No space left on device" in caplog.text
    assert [line.rpartition(" ")[2] for line in log_of(run).read_text().splitlines()] == ["second"]


def test_a_line_that_was_written_in_part_is_said(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("exlab_watch_agent"), "propagate", True)
    monkeypatch.setattr(os, "write", lambda *_: 3)
    written((a_record(run), a_move()))
    assert "a line was written in part" in caplog.text


# --- the end ---------------------------------------------------------------------------------------------------------


def test_closing_writes_what_waits_and_may_be_repeated_and_come_without_a_start(run: Path) -> None:
    writer = RunLogWriter("labpc-04")
    writer.close()
    writer.start()
    writer.put(a_record(run), a_move())
    writer.close()
    writer.close()
    assert len(log_of(run).read_text().splitlines()) == 1


def test_a_writer_that_hangs_holds_up_neither_the_engine_nor_the_end(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_hanging, hangs = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        is_hanging.set()
        hangs.wait(20)

    monkeypatch.setattr(RunLogWriter, "_append", hang)
    writer = RunLogWriter("labpc-04", lines_max=10, close_wait_s=0.2)
    writer.start()
    writer.put(a_record(run), a_move())
    is_hanging.wait(5)
    began = time.monotonic()
    for _ in range(50):
        writer.put(a_record(run), a_move())
    writer.close()
    assert time.monotonic() - began < 2
    hangs.set()
    writer.close()
    writer._thread.join(5)
