"""What changes in the cache folder of a sealed run is brought to the NAS, with no incident, no push and no pass lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.errors import FailureKind, TransportError
from tests.e2e.test_adoption import CLAIM, claim_of, data_there
from tests.e2e.test_proof import FILES, superseded, triggers
from tests.lab.lab import CACHE, AgentProcess, Lab, override, read_creation, run_to_rest, save_by_rename, until
from tests.lab.wrapped import Wrapped

FIELDS = f"{CACHE}/readme_fields.json"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab", is_quick=True)


@pytest.fixture
def run(lab: Lab) -> Path:
    run = lab.new_run(files=FILES)
    (run / FIELDS).write_text('{"sample": "1"}')
    assert lab.cli("run", "--once", "--quiet").code == 0
    return run


def as_sealed(lab: Lab, run: Path) -> tuple[Any, ...]:
    """Return what must not change when only the cache folder travels."""
    record = lab.record(run)
    return (
        triggers(lab, run),
        record["state"],
        record["verify_passes"],
        record.get("incidents", []),
        record["attempts"],
        data_there(lab, run),
    )


def add_override(lab: Lab, run: Path) -> None:
    document = read_creation(run)
    document["validation_overrides"] = [override("reserved_filesystem_name")]
    save_by_rename(run, document)


def is_there(lab: Lab, run: Path) -> bool:
    """Whether the copy has the creation.json and the fields that are here."""
    names = [name for name in (f"{CACHE}/creation.json", FIELDS) if (run / name).exists()]
    return all((lab.copy_of(run) / name).read_bytes() == (run / name).read_bytes() for name in names)


def placed(lab: Lab, run: Path) -> dict[str, str]:
    """Return what the claim says that the agent put there; it is written last."""
    kept: dict[str, str] = claim_of(lab, run)["cache"]
    return kept


def placed_is_there(lab: Lab, run: Path) -> bool:
    copy, kept = lab.copy_of(run), placed(lab, run)
    return kept == {name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in kept}


def claim_says_what_is_there(lab: Lab, run: Path) -> None:
    kept = placed(lab, run)
    assert set(kept) >= {f"{CACHE}/creation.json", f"{CACHE}/checksums.sha256"}
    assert not any(name.endswith(".log") or name == CLAIM for name in kept)
    assert placed_is_there(lab, run)


def test_the_seal_keeps_in_the_claim_what_it_put_there(lab: Lab, run: Path) -> None:
    assert FIELDS in claim_of(lab, run)["cache"]
    claim_says_what_is_there(lab, run)


def test_an_override_that_is_added_to_a_synced_run_travels_by_its_event(lab: Lab, run: Path) -> None:
    before = as_sealed(lab, run)
    with lab.running():
        add_override(lab, run)
        until(lambda: is_there(lab, run), "the copy has the override")
        (run / FIELDS).write_text('{"sample": "1b"}')
        until(
            lambda: is_there(lab, run) and placed_is_there(lab, run), "the copy has the fields, and the claim says so"
        )
    assert len(read_creation(lab.copy_of(run))["validation_overrides"]) == 1
    assert read_creation(lab.copy_of(run))["sync_status"] == "synced"
    assert as_sealed(lab, run) == before
    claim_says_what_is_there(lab, run)
    assert superseded(lab) == {}


@pytest.mark.parametrize("in_place", [False, True])
def test_what_changed_while_no_agent_ran_travels_by_the_scan_alone(lab: Lab, run: Path, in_place: bool) -> None:
    before = as_sealed(lab, run)
    if in_place:
        (run / FIELDS).write_text('{"sample": "2"}')
    else:
        add_override(lab, run)
        (run / CACHE / "notes.json").write_text("{}")
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    assert in_place or (lab.copy_of(run) / CACHE / "notes.json").exists()
    assert as_sealed(lab, run) == before
    claim_says_what_is_there(lab, run)
    carried = [line["data"] for line in lab.trail() if line["kind"] == "cache_carried"]
    assert len(carried) == 1
    assert (FIELDS if in_place else f"{CACHE}/creation.json") in carried[0]["files"]
    assert lab.cli("audit", "verify").code == 0


def test_a_file_that_the_nas_does_not_take_is_told_until_it_does(lab: Lab, run: Path) -> None:
    in_the_way = lab.copy_of(run) / FIELDS
    in_the_way.unlink(missing_ok=True)
    (in_the_way / "a folder of somebody").mkdir(parents=True)
    (run / FIELDS).write_text('{"sample": "2"}')
    for _ in range(2):
        assert lab.cli("run", "--once").code == 3
        (problem,) = lab.cli("problems", "--json").problems
        assert (problem["code"], problem["tier"], problem["runs"]) == ("cache_not_copied", "needs_you", [str(run)])
    assert lab.record(run)["state"] == "verified"
    (in_the_way / "a folder of somebody").rmdir()
    in_the_way.rmdir()
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    assert lab.cli("problems", "--json").problems == []
    assert [line["data"]["message"] != "" for line in lab.trail() if line["kind"] == "cache_stays"] == [True, False]
    assert lab.cli("audit", "verify").code == 0


def test_our_own_log_makes_nothing_due_and_goes_along(lab: Lab, run: Path) -> None:
    (log,) = (run / CACHE).glob("wizard.*.log")
    there = lab.copy_of(run) / CACHE / log.name
    before = there.read_bytes()
    with log.open("a") as file:
        file.write("2026-04-17T14:32:11Z [INFO ] a line more\n")
    assert lab.cli("run", "--once").code == 0
    assert there.read_bytes() == before
    add_override(lab, run)
    assert lab.cli("run", "--once").code == 0
    assert b"a line more" in there.read_bytes()


class Gone(Wrapped):
    """A NAS that goes away at the second file of the cache folder, or at the claim."""

    calls = 0
    at = 1

    def replace(self, *arguments: Any, **named: Any) -> Any:
        Gone.calls += 1
        if Gone.calls == Gone.at:
            raise TransportError(FailureKind.NETWORK, "gone")
        return self._inner.replace(*arguments, **named)


@pytest.mark.parametrize("at", [1, 2])
def test_what_was_broken_off_is_brought_at_the_next_start(lab: Lab, run: Path, at: int) -> None:
    before = as_sealed(lab, run)
    add_override(lab, run)
    Gone.calls, Gone.at = 0, at
    run_to_rest(lab, wrapped=Gone)
    assert Gone.calls == at
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    assert as_sealed(lab, run) == before
    claim_says_what_is_there(lab, run)


def test_killed_at_any_moment_the_copy_gets_it_in_the_end(lab: Lab, run: Path) -> None:
    before = as_sealed(lab, run)
    for number in range(3):
        with AgentProcess(lab) as agent:
            agent.until_up()
            (run / FIELDS).write_text(json.dumps({"sample": number}))
            agent.kill()
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    assert as_sealed(lab, run) == before
    claim_says_what_is_there(lab, run)


def test_while_the_nas_is_away_it_waits_and_costs_nothing(lab: Lab, run: Path) -> None:
    before = as_sealed(lab, run)
    aside = lab.nas.with_name("unmounted")
    with lab.running():
        lab.nas.rename(aside)
        lab.nas.mkdir()
        (run / FIELDS).write_text('{"sample": "3"}')
        until(lambda: lab.live()["lanes"]["SCOPE_01"].get("waiting_kind"), "the lane waits")
        shutil.rmtree(lab.nas)
        aside.rename(lab.nas)
        until(lambda: is_there(lab, run), "the copy has the fields")
    assert as_sealed(lab, run) == before


def test_what_others_wrote_at_the_nas_goes_aside_first(lab: Lab, run: Path) -> None:
    before = as_sealed(lab, run)
    foreign = b'{"sample": "of somebody at the NAS"}'
    (lab.copy_of(run) / FIELDS).write_bytes(foreign)
    (run / FIELDS).write_text('{"sample": "4"}')
    add_override(lab, run)
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    assert list(superseded(lab).values()) == [foreign]
    assert as_sealed(lab, run) == before


def test_nothing_is_brought_to_a_copy_that_others_hold_by_now(lab: Lab, run: Path) -> None:
    claim = claim_of(lab, run) | {"job_id": "other", "state_folder": "f" * 32}
    (lab.copy_of(run) / CLAIM).write_text(json.dumps(claim))
    there = (lab.copy_of(run) / FIELDS).read_bytes()
    (run / FIELDS).write_text('{"sample": "5"}')
    lab.cli("run", "--once")
    assert (lab.copy_of(run) / FIELDS).read_bytes() == there
    assert claim_of(lab, run) == claim


def test_a_half_written_creation_json_does_not_travel(lab: Lab, run: Path) -> None:
    there = (lab.copy_of(run) / CACHE / "creation.json").read_bytes()
    (run / CACHE / "creation.json").write_text('{"schema_version": "1.8", ')
    lab.cli("run", "--once")
    assert (lab.copy_of(run) / CACHE / "creation.json").read_bytes() == there


@pytest.mark.parametrize("name", ["checksums.sha256", "folders.txt"])
def test_what_only_a_seal_places_is_not_brought_when_it_is_altered_here(lab: Lab, run: Path, name: str) -> None:
    before = as_sealed(lab, run)
    there = lab.copy_of(run) / CACHE / name
    sealed = there.read_bytes() if there.exists() else None
    (run / CACHE / name).write_text("written by another program after the seal\n")
    add_override(lab, run)
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    assert (there.read_bytes() if there.exists() else None) == sealed
    assert as_sealed(lab, run) == before
    claim_says_what_is_there(lab, run)
    assert superseded(lab) == {}


def test_a_nas_that_was_copied_gets_what_changed_here_since_then(lab: Lab, run: Path) -> None:
    """It carries the marker, too: under another path it is bound without a question, and nothing counts as brought there."""
    copied = Path(shutil.copytree(lab.nas, lab.nas.with_name("copied nas")))
    add_override(lab, run)
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    lab.nas = copied
    lab.settings["equipment"] = [one.to_config(lab) for one in lab.equipment]
    lab.save_config()
    assert not is_there(lab, run)
    assert lab.cli("run", "--once").code == 0
    assert is_there(lab, run)
    claim_says_what_is_there(lab, run)
    assert data_there(lab, run)
    assert lab.record(run)["state"] == "verified"
