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

from exlab_watch_agent.errors import FailureKind, TransportError
from tests.e2e.test_proof import (
    FILES,
    CannotCopy,
    another_agent,
    damage_here,
    everything,
    lose_all_here,
    lose_some_here,
    superseded,
    triggers,
    zero,
)
from tests.lab.lab import CACHE, Lab, put, read_creation, run_to_rest
from tests.lab.wrapped import Wrapped

CLAIM = f"{CACHE}/exlab-watch-agent.json"
MANIFEST = f"{CACHE}/checksums.sha256"


def claim_of(lab: Lab, run: Path) -> dict[str, Any]:
    return dict(json.loads((lab.copy_of(run) / CLAIM).read_text()))


def data_there(lab: Lab, run: Path) -> dict[str, tuple[int, bytes]]:
    """Return each data file of a copy with its inode: one that was replaced is another one."""
    folder = lab.copy_of(run)
    names = (name for name in everything(folder) if not name.startswith(CACHE))
    return {name: ((folder / name).stat().st_ino, (folder / name).read_bytes()) for name in names}


def data_aside(lab: Lab) -> dict[str, bytes]:
    """Return the data files that were moved aside; of cache folders copies are kept there, too."""
    return {path: data for path, data in superseded(lab).items() if "/seal-" not in path}


def lose_state_folder(lab: Lab) -> None:
    shutil.rmtree(lab.state)


LONG_AGO = (datetime.now(UTC) - timedelta(hours=25)).isoformat()


def fall_silent(lab: Lab) -> None:
    """Let the sign of life be one that is older than a day; the state folder is still there."""
    (path,) = (lab.nas / "SCOPE_01/.exlab-watch-agent").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"at": LONG_AGO}))
    age_the_seals(lab)


def leave_no_sign(lab: Lab) -> None:
    """Let there be none."""
    shutil.rmtree(lab.nas / "SCOPE_01/.exlab-watch-agent")
    age_the_seals(lab)


def age_the_seals(lab: Lab) -> None:
    """Let the runs be sealed longer than a day ago: what was sealed lately is a sign of life as well."""
    for path in (lab.nas / "SCOPE_01").glob(f"*/Runs/*/{CLAIM}"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sealed_at": LONG_AGO}))


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
        "sealed_at": held["sealed_at"] if end is lose_state_folder else LONG_AGO,
    }
    assert data_aside(first) == {}
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
    (problem,) = second.cli("problems", "--json").problems
    assert (problem["code"], problem["tier"]) == ("differs_from_sealed_copy", "needs_you")
    back, give_way = second.cli("show", str(run), "--json").json["ways_out"]
    assert "put the files back here as they were" in back
    assert give_way.endswith(f"resolve '{run}' --take-over")

    assert second.cli("resolve", str(run), "--use", "local").code == 1
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
    assert data_aside(first) == {}


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
    assert list(data_aside(first).values()) == [damaged]
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


def test_without_the_manifest_fewer_files_here_are_no_proof_of_a_copy_that_has_more(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    lose_state_folder(first)
    (first.copy_of(run) / MANIFEST).unlink()
    lose_some_here(run)
    before = everything(first.copy_of(run))
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 3
    assert second.record(run)["last_error"]["kind"] == "differs_from_sealed_copy"
    assert everything(first.copy_of(run)) == before


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_only_the_other_agents_cache_folder_says_is_kept(
    first: Lab, run: Path, tmp_path: Path, is_damaged: bool
) -> None:
    lose_state_folder(first)
    there = first.copy_of(run) / CACHE / "creation.json"
    noted = json.dumps(json.loads(there.read_text()) | {"notes": "of the other PC"}).encode()
    there.write_bytes(noted)
    if is_damaged:
        zero(first.copy_of(run) / "a.bin")
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 0
    second.assert_whole(run)
    assert noted in superseded(first).values()


def test_what_changed_here_after_the_proof_does_not_go_over_a_sealed_copy(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    good = (first.copy_of(run) / "b.bin").read_bytes()
    lose_state_folder(first)
    zero(first.copy_of(run) / "a.bin")
    second = another_agent(first, tmp_path / "second")
    run_to_rest(second, wrapped=CannotCopy)
    put(run, {"b.bin": b"truncated"})
    second.cli("run", "--once")
    second.cli("retry", str(run))
    second.cli("run", "--once")
    assert second.record(run)["state"] == "conflict"
    assert (first.copy_of(run) / "b.bin").read_bytes() == good


def test_a_copy_whose_heal_was_broken_off_can_be_taken_over_by_a_third_agent(
    first: Lab, run: Path, tmp_path: Path
) -> None:
    lose_state_folder(first)
    zero(first.copy_of(run) / "a.bin")
    second = another_agent(first, tmp_path / "second")
    run_to_rest(second, wrapped=CannotCopy)
    lose_state_folder(second)
    third = another_agent(first, tmp_path / "third")
    assert third.cli("run", "--once").code == 0
    third.assert_whole(run)
    assert [len(claim_of(third, run)["former"]), claim_of(third, run)["generation"]] == [2, 3]


class Hiccups(Wrapped):
    """A NAS that fails the first proof, and then does not answer the look after it."""

    failed = looked = False

    def read_back(self, *arguments: Any, **named: Any) -> Any:
        if not Hiccups.looked:
            Hiccups.failed = True
            raise TransportError(FailureKind.UNKNOWN, "an error of its disk")
        return self._inner.read_back(*arguments, **named)

    def look(self, destination: str) -> Any:
        if Hiccups.failed and not Hiccups.looked:
            Hiccups.looked = True
            raise TransportError(FailureKind.UNKNOWN, "the folder did not answer")
        return self._inner.look(destination)


def test_a_proof_that_failed_is_no_proof_also_where_the_look_after_it_fails(
    first: Lab, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(first.copy_of(run))
    lose_state_folder(first)
    damage_here(run)
    second = another_agent(first, tmp_path / "second")
    monkeypatch.setattr(Hiccups, "failed", False)
    monkeypatch.setattr(Hiccups, "looked", False)
    run_to_rest(second, wrapped=Hiccups)
    for _ in range(2):
        second.cli("retry", str(run))
        second.cli("run", "--once")
    assert second.record(run)["state"] == "conflict"
    assert everything(first.copy_of(run)) == before
    assert superseded(first) == {}


def test_of_two_agents_that_adopt_at_once_one_has_the_copy(first: Lab, run: Path, tmp_path: Path) -> None:
    lose_state_folder(first)
    second, third = another_agent(first, tmp_path / "second"), another_agent(first, tmp_path / "third")
    third.local = tmp_path / "third/instrument pc"
    third.settings["equipment"] = [one.to_config(third) for one in third.equipment]
    third.save_config()
    copied = third.local / run.relative_to(first.local)
    shutil.copytree(run, copied)
    seen: list[int] = []

    class Meanwhile(Wrapped):
        def read_back(self, *arguments: Any, **named: Any) -> Any:
            if not seen:
                seen.append(third.cli("run", "--once").code)
            return self._inner.read_back(*arguments, **named)

    run_to_rest(second, wrapped=Meanwhile)
    assert seen == [0]
    assert third.cli("verify", copied.name).code == 0
    assert third.record(copied)["state"] == "verified"
    assert second.record(run)["last_error"]["kind"] == "claimed_by_other_agent"


def test_an_agent_that_ended_before_it_could_leave_a_sign_is_known_by_its_seal(tmp_path: Path) -> None:
    first = Lab(tmp_path / "first")
    run = first.new_run(files=FILES)
    assert first.cli("sync", str(run)).code == 0
    shutil.rmtree(first.nas / "SCOPE_01/.exlab-watch-agent", ignore_errors=True)
    second = another_agent(first, tmp_path / "second")
    assert second.cli("run", "--once").code == 3
    assert second.record(run)["last_error"]["kind"] == "claimed_by_other_agent"
