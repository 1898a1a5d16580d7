"""A sealed run of which files are missing here: whatever else is new, changed or held by others, the rest is never called the run.

What the operator is told to say of data that changed, or of a copy that others hold, must not give up a file that nobody named.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.core.commands import VerifyNow
from exlab_watch_agent.core.operator import Operator
from tests.e2e.test_adoption import MANIFEST
from tests.e2e.test_proof import CannotCopy, another_agent
from tests.lab.lab import Lab, put, run_to_rest
from tests.lab.wrapped import Wrapped

FILES = {"a.bin": b"a" * 5000, "b.bin": b"b" * 5000, "sub/c.bin": b"c" * 5000}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "first", retry_schedule=["1s", "1s"], is_quick=True)
    lab.settings["nas_cleanup"] = {"min_age_hours": 0}
    lab.save_config()
    return lab


def synced(lab: Lab) -> Path:
    """Return a run that is synced, beside another one that stays."""
    run, _ = lab.new_run(files=FILES), lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    return run


def kind(lab: Lab, run: Path) -> str:
    record = lab.record(run)
    return f"{record['state']}: {(record.get('last_error') or {}).get('kind')}"


def choose_local(lab: Lab, run: Path) -> str:
    lab.cli("resolve", run.name, "--use", "local")
    lab.cli("run", "--once", "--quiet")
    return kind(lab, run)


def test_of_a_part_that_comes_back_with_changes_it_is_told_that_files_are_missing(lab: Lab) -> None:
    run, elsewhere = synced(lab), lab.home / "away"
    shutil.move(run, elsewhere)
    lab.cli("run", "--once", "--quiet")
    assert lab.record(run)["state"] == "cleaned"
    (elsewhere / "b.bin").unlink()
    put(elsewhere, {"a.bin": b"A" * 5000, "new.bin": b"new"})
    shutil.move(elsewhere, run)
    lab.cli("run", "--once", "--quiet")
    assert kind(lab, run) == "conflict: local_files_missing"
    assert choose_local(lab, run) == "conflict: local_files_missing", "only the NAS has b.bin"
    assert (lab.copy_of(run) / "a.bin").read_bytes() == FILES["a.bin"]


def test_a_file_that_goes_while_a_repair_waits_is_not_given_up_by_the_word_for_changed_data(lab: Lab) -> None:
    run = synced(lab)
    (lab.copy_of(run) / "a.bin").write_bytes(bytes(5000))
    run_to_rest(lab, wrapped=CannotCopy, command=VerifyNow(Operator("asmith"), run_path=str(run)))
    (run / "b.bin").unlink()
    put(run, {"new.bin": b"new"})
    lab.cli("retry", run.name)
    lab.cli("run", "--once", "--quiet")
    assert lab.record(run)["state"] == "conflict"
    assert choose_local(lab, run) == "conflict: local_files_missing"
    assert lab.record(run)["sealed_at"]


def test_a_file_that_goes_during_a_seal_is_not_given_up_by_the_word_for_changed_data(lab: Lab) -> None:
    run = synced(lab)
    (lab.copy_of(run) / MANIFEST).unlink()

    class GoesMeanwhile(Wrapped):
        def replace(self, *arguments: Any, **named: Any) -> Any:
            (run / "b.bin").unlink(missing_ok=True)
            put(run, {"new.bin": b"new"})
            return self._inner.replace(*arguments, **named)

    run_to_rest(lab, wrapped=GoesMeanwhile, command=VerifyNow(Operator("asmith"), run_path=str(run)))
    assert lab.record(run)["state"] == "conflict"
    assert choose_local(lab, run) == "conflict: local_files_missing"
    assert lab.record(run)["sealed_at"]


def test_the_word_for_a_copy_that_others_hold_does_not_give_up_what_is_missing_here(lab: Lab, tmp_path: Path) -> None:
    run = synced(lab)
    other = another_agent(lab, tmp_path / "other")
    (run / "a.bin").write_bytes(b"measured anew")
    other.cli("run", "--once", "--quiet")
    assert other.cli("resolve", run.name, "--take-over").code == 0
    assert other.record(run)["state"] == "verified"
    (run / "b.bin").unlink()
    lab.cli("verify", run.name)
    assert kind(lab, run) == "conflict: claimed_by_other_agent"
    for _ in range(2):
        lab.cli("resolve", run.name, "--use", "local")
    lab.cli("resolve", run.name, "--take-over")
    assert kind(lab, run) == "conflict: local_files_missing", "nobody said that it may be given up"
