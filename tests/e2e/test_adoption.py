"""A sealed copy whose agent is at work no more: it is proven, and only then it is ours; what differs is left as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_proof import (
    FILES,
    another_agent,
    damage_here,
    everything,
    lose_all_here,
    lose_some_here,
    superseded,
    triggers,
    zero,
)
from tests.lab.lab import CACHE, Lab, read_creation

CLAIM = f"{CACHE}/exlab-watch-agent.json"
MANIFEST = f"{CACHE}/checksums.sha256"


def claim_of(lab: Lab, run: Path) -> dict[str, Any]:
    return dict(json.loads((lab.copy_of(run) / CLAIM).read_text()))


def data_there(lab: Lab, run: Path) -> dict[str, tuple[int, bytes]]:
    """Return each data file of a copy with its inode: one that was replaced is another one."""
    folder = lab.copy_of(run)
    names = (name for name in everything(folder) if not name.startswith(CACHE))
    return {name: ((folder / name).stat().st_ino, (folder / name).read_bytes()) for name in names}


def lose_state_folder(lab: Lab) -> None:
    shutil.rmtree(lab.state)


def fall_silent(lab: Lab) -> None:
    """Let the sign of life be one that is older than a day; the state folder is still there."""
    (path,) = (lab.nas / "SCOPE_01/.exlab-watch-agent").glob("*.json")
    said = json.loads(path.read_text())
    said["at"] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    path.write_text(json.dumps(said))


def leave_no_sign(lab: Lab) -> None:
    shutil.rmtree(lab.nas / "SCOPE_01/.exlab-watch-agent")


@pytest.fixture
def first(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "first")


@pytest.fixture
def run(first: Lab) -> Path:
    run = first.new_run(files=FILES)
    assert first.cli("run", "--once", "--quiet").code == 0
    return run


def of_first_version(lab: Lab, run: Path) -> None:
    """Make the claim one of the first version, which knew of no state folders."""
    claim = claim_of(lab, run) | {"schema": 1}
    for name in ("state_folder", "generation", "former"):
        del claim[name]
    (lab.copy_of(run) / CLAIM).write_text(json.dumps(claim))


@pytest.mark.parametrize("is_old_claim", [False, True])
@pytest.mark.parametrize("end", [lose_state_folder, fall_silent, leave_no_sign])
def test_a_copy_whose_agent_is_at_work_no_more_is_proven_and_then_ours(
    first: Lab, run: Path, tmp_path: Path, end: Callable[[Lab], None], is_old_claim: bool
) -> None:
    before, held = data_there(first, run), claim_of(first, run)
    if is_old_claim:
        of_first_version(first, run)
    end(first)
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 0
    assert triggers(second, run) == ["discovered", "admitted", "copy_adopted", "proven", "sealed"]
    assert data_there(second, run) == before, "no byte was copied anew"
    second.assert_whole(run)
    assert second.record(run)["verify_passes"] == 1
    claim = claim_of(second, run)
    assert (claim["schema"], claim["job_id"], claim["generation"]) == (2, second.record(run)["job_id"], 2)
    assert len(claim["state_folder"]) == 32
    (former,) = claim["former"]
    assert former == {
        "state_folder": "" if is_old_claim else held["state_folder"],
        "host": os.uname().nodename,
        "job_id": held["job_id"],
        "sealed_at": held["sealed_at"],
    }
    assert superseded(first) == {}
    assert second.cli("verify", run.name).code == 0
    assert claim_of(second, run)["former"] == [former]


@pytest.mark.parametrize("change", [damage_here, lose_some_here, lose_all_here])
def test_where_the_local_data_differ_or_are_less_nothing_there_is_touched(
    first: Lab, run: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    before = everything(first.copy_of(run))
    lose_state_folder(first)
    change(run)
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 3
    record = second.record(run)
    assert (record["state"], record["last_error"]["kind"]) == ("conflict", "differs_from_sealed_copy")
    assert record["verify_passes"] == 0
    assert everything(first.copy_of(run)) == before
    assert superseded(first) == {}
    assert read_creation(run)["sync_status"] == "failed"
    (problem,) = second.cli("problems", "--json").json["problems"]
    assert (problem["kind"], problem["severity"]) == ("differs_from_sealed_copy", "data_at_risk")
    back, away = second.cli("show", str(run), "--json").json["ways_out"]
    assert "put the files back here as they were" in back
    assert "move what is there away on the NAS" in away

    assert second.cli("resolve", str(run), "--use", "local").code == 3
    assert everything(first.copy_of(run)) == before, "an operator's word alone does not touch it either"
    first.copy_of(run).rename(first.nas / "kept by hand")
    assert second.cli("resolve", str(run), "--use", "local").code == 0
    second.assert_whole(run)
    assert everything(first.nas / "kept by hand") == before


def test_once_the_files_were_put_back_here_the_copy_is_taken_over(first: Lab, run: Path, tmp_path: Path) -> None:
    lose_state_folder(first)
    damage_here(run)
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 3
    shutil.copy2(first.copy_of(run) / "a.bin", run / "a.bin")
    assert second.cli("resolve", str(run), "--use", "local").code == 0
    assert triggers(second, run)[-3:] == ["copy_adopted", "proven", "sealed"]
    assert superseded(first) == {}


def test_a_damaged_copy_is_healed_where_the_local_data_are_what_was_sealed(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    held = claim_of(first, run)
    lose_state_folder(first)
    zero(first.copy_of(run) / "a.bin")
    damaged = (first.copy_of(run) / "a.bin").read_bytes()
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 0
    assert triggers(second, run)[2:] == [
        "copy_adopted", "put_back", "push_started", "pushed", "precheck_passed", "proven", "sealed",
    ]  # fmt: skip
    second.assert_whole(run)
    assert list(superseded(first).values()) == [damaged]
    claim = claim_of(second, run)
    assert (claim["generation"], [one["job_id"] for one in claim["former"]]) == (2, [held["job_id"]])


@pytest.mark.parametrize("is_damaged", [False, True])
def test_without_its_manifest_an_equal_copy_is_taken_over_and_a_different_one_is_left_alone(
    first: Lab, run: Path, tmp_path: Path, is_damaged: bool
) -> None:
    lose_state_folder(first)
    (first.copy_of(run) / MANIFEST).write_text("0" * 64 + "  a.bin\n")
    if is_damaged:
        zero(first.copy_of(run) / "a.bin")
    before = everything(first.copy_of(run))
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == (3 if is_damaged else 0)
    if is_damaged:
        assert second.record(run)["last_error"]["kind"] == "differs_from_sealed_copy"
        assert everything(first.copy_of(run)) == before, "nobody can say which side is right"
        assert superseded(first) == {}
    else:
        second.assert_whole(run)
        assert b"0" * 64 in b"".join(superseded(first).values()), "and what stood there is kept"


def test_an_agent_that_is_at_work_keeps_its_copy_and_its_sign_of_life(first: Lab, run: Path, tmp_path: Path) -> None:
    before = everything(first.copy_of(run))
    second = another_agent(first, tmp_path / "second")
    for _ in range(2):
        assert second.cli("run", "--once").code == 3
        assert second.record(run)["last_error"]["kind"] == "claimed_by_other_agent"
    assert everything(first.copy_of(run)) == before
    signs = {path.name: json.loads(path.read_text()) for path in (first.nas / "SCOPE_01/.exlab-watch-agent").iterdir()}
    own = claim_of(first, run)["state_folder"]
    host = os.uname().nodename
    assert signs[f"{host}.json"]["state_folder"] == own
    (other,) = (sign for name, sign in signs.items() if name != f"{host}.json")
    assert f"{host}-{other['state_folder'][:8]}.json" in signs
    assert other["path"] == str(second.state)

    lose_state_folder(first)
    assert second.cli("resolve", str(run), "--use", "local").code == 0
    assert triggers(second, run)[-4:] == ["local_chosen", "copy_adopted", "proven", "sealed"]
