"""A run that still moves is not complete: growing files, preallocated files, and a restart in between."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.lab.lab import Equipment, Lab, put

SETTLE_S = 1.0
WRITING_S = 2.5
PAUSE_S = 0.05
WHOLE = bytes(range(256)) * 4000
TRIES = 5


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, Equipment("SCOPE_01"), settle_seconds=SETTLE_S)


class Instrument(threading.Thread):
    """Writes on and on into files of the same size to be, until `finish`; `longest_pause_s` says whether it ever stood still."""

    def __init__(self, *paths: Path) -> None:
        super().__init__(name="instrument")
        self.longest_pause_s = 0.0
        self._paths = paths
        self._is_over = threading.Event()

    def run(self) -> None:
        written, wrote_s = 0, time.monotonic()
        files = [path.open("r+b") for path in self._paths]
        while not self._is_over.wait(PAUSE_S):
            assert written < len(WHOLE), "there is always more to write"
            for file in files:
                file.write(WHOLE[written : written + 1000])
                file.flush()
            written += 1000
            now_s = time.monotonic()
            self.longest_pause_s = max(self.longest_pause_s, now_s - wrote_s)
            wrote_s = now_s
        for file in files:
            file.write(WHOLE[written:])
            file.close()

    def finish(self) -> None:
        self._is_over.set()
        self.join()


def test_files_that_grow_or_are_filled_in_place_keep_their_runs_acquiring_until_they_are_quiet(lab: Lab) -> None:
    with lab.running():
        for _ in range(TRIES):
            growing = lab.new_run(files={"deep/er/grow.bin": b""})
            preallocated = lab.new_run(files={"deep/er/full size.bin": bytes(len(WHOLE))})
            instrument = Instrument(growing / "deep/er/grow.bin", preallocated / "deep/er/full size.bin")
            instrument.start()
            try:
                time.sleep(WRITING_S)
                states = (lab.states(growing), lab.states(preallocated))
                why = lab.cli("show", str(growing), "--json").json["why"]
            finally:
                instrument.finish()
            if instrument.longest_pause_s < SETTLE_S:
                break  # else the machine was so busy that the runs were quiet for a while
        assert states == (["acquiring"], ["acquiring"])
        assert why.startswith("not complete yet: ")
        assert "quiet" in why
        for run in (growing, preallocated):
            lab.until_state(run, "verified")
            assert lab.states(run).count("acquiring") == 1
            lab.assert_whole(run)
        assert (lab.copy_of(growing) / "deep/er/grow.bin").read_bytes() == WHOLE
        assert (lab.copy_of(preallocated) / "deep/er/full size.bin").read_bytes() == WHOLE


def test_what_was_copied_in_with_old_times_is_not_taken_for_quiet(lab: Lab) -> None:
    with lab.running():
        run = lab.new_run(files={"a.bin": b"a"})
        os.utime(run / "a.bin", (0, 0))
        lab.until_state(run, "acquiring")
        put(run, {"b.bin": b"b"})
        os.utime(run / "b.bin", (2**32, 2**32))  # and a clock that runs ahead makes nobody wait for ever
        lab.until_state(run, "verified")
        discovered, admitted = (fact["at"] for fact in lab.facts(run)[:2])
        waited = (datetime.fromisoformat(admitted) - datetime.fromisoformat(discovered)).total_seconds()
        assert waited >= SETTLE_S
        lab.assert_whole(run)


def test_a_restart_before_a_run_has_settled_starts_its_quiet_time_anew_and_takes_the_same_job_up(lab: Lab) -> None:
    lab.settings["agent"]["settle_seconds"] = 600  # however busy the machine is, the first life ends before that
    lab.save_config()
    run = lab.new_run()
    with lab.running():
        lab.until_state(run, "acquiring")
    assert lab.states(run) == ["acquiring"]
    lab.settings["agent"]["settle_seconds"] = SETTLE_S
    lab.save_config()
    with lab.running():
        lab.until_state(run, "verified")
    assert len({fact["record"]["job_id"] for fact in lab.facts(run)}) == 1
