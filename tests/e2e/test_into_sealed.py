"""Data that come into a sealed run, change in it or go from it: noticed by `scan`, `sync` and the scans of an agent, and told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_proof import everything
from tests.lab.lab import Lab, until

FILES = {"a.tif": os.urandom(5_000), "deep/er/b.tif": os.urandom(5_000)}


def add(run: Path) -> None:
    (run / "late.tif").write_bytes(b"late")


def add_deep(run: Path) -> None:
    (run / "deep/er/late.tif").write_bytes(b"late")


def change(run: Path) -> None:
    with (run / "deep/er/b.tif").open("ab") as file:
        file.write(b"more")


def remove(run: Path) -> None:
    (run / "deep/er/b.tif").unlink()


def change_unseen(run: Path) -> None:
    """Change a file so that its size and times tell nothing of it but to a clock that nobody can set."""
    path = run / "deep/er/b.tif"
    times, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


Change = Callable[[Path], None]
EVERY_CHANGE = pytest.mark.parametrize("change", [add, add_deep, change, remove, change_unseen])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    # Without events, and with scans that nobody waits for: what is noticed is so by what is asked for.
    return Lab(tmp_path, observer="polling", rescan_minutes=600, is_quick=True)


@pytest.fixture
def run(lab: Lab) -> Path:
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    return run


def told(lab: Lab, run: Path) -> bool:
    """Return whether the run is a conflict that is told, in which nothing was moved on either side."""
    record = lab.record(run)
    if record["state"] != "conflict":
        return False
    assert record["last_error"]["kind"] in ("local_changed_after_sync", "local_files_missing")
    said = lab.cli("problems", "--json")
    assert said.code in (3, 4)
    assert str(run) in said.out
    assert hashes_there(lab, run) == FILES
    return True


def hashes_there(lab: Lab, run: Path) -> dict[str, bytes]:
    return {name: data for name, data in everything(lab.copy_of(run)).items() if not name.startswith(".exlab-wizard")}


@EVERY_CHANGE
def test_scan_without_an_agent_notices_it_says_so_and_the_next_run_compares(
    lab: Lab, run: Path, change: Change
) -> None:
    change(run)
    said = lab.cli("scan")
    assert lab.record(run)["state"] == "auditing"
    assert "1 run whose data moved since they were proven" in said.out
    assert lab.cli("run", "--once", "--quiet").code in (3, 4)
    assert told(lab, run)


@EVERY_CHANGE
def test_sync_without_an_agent_notices_it_and_compares(lab: Lab, run: Path, change: Change) -> None:
    change(run)
    lab.cli("sync", str(run))
    assert told(lab, run)


@pytest.mark.parametrize("words", [("scan",), ("sync", "RUN")])
@EVERY_CHANGE
def test_a_running_agent_notices_it_when_it_is_asked(
    lab: Lab, run: Path, change: Change, words: tuple[str, ...]
) -> None:
    with lab.running():
        change(run)
        said = lab.cli(*(str(run) if word == "RUN" else word for word in words))
        assert said.code == 0 or "The run is in conflict" in said.err, "or it was noticed without being asked"
        until(lambda: told(lab, run), "the change is told")


@pytest.mark.parametrize("change", [add_deep, remove])
def test_scans_alone_come_to_every_sealed_run(tmp_path: Path, change: Change) -> None:
    lab = Lab(tmp_path, observer="polling", rescan_minutes=1440)
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    change(run)
    lab.cli("run", "--once", "--quiet")
    assert told(lab, run)


def test_what_is_put_back_ends_the_conflict_and_what_only_an_audit_can_find_is_found_by_one(
    lab: Lab, run: Path
) -> None:
    add(run)
    lab.cli("sync", str(run))
    assert told(lab, run)
    (run / "late.tif").unlink()
    assert lab.cli("verify", str(run)).code == 0
    assert lab.record(run)["state"] == "verified"


def test_a_sealed_run_in_which_nothing_moved_is_looked_at_and_left_alone(lab: Lab, run: Path) -> None:
    states = lab.states(run)
    assert lab.cli("scan").code == 0
    assert lab.cli("sync", str(run)).code == 0
    assert lab.states(run) == states
