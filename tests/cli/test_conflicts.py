"""Each kind of conflict names what can help, and what it names does help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.lab.lab import CACHE, Lab, Said, hashes, put, read_creation

Command = Callable[..., Said]
FOREIGN = {"of somebody else.bin": b"1", "d/x": b"2"}


def kind(lab: Lab, run: Path) -> str:
    record = lab.record(run)
    assert record["state"] == "conflict", lab.states(run)
    return str(record["last_error"]["kind"])


def ways_out(on: Command, run: Path) -> list[str]:
    found = on("show", str(run), "--json").json["ways_out"]
    lines = [line.strip() for line in on("show", str(run)).out.splitlines() if line.startswith("  way out")]
    assert [line.removeprefix("way out").strip() for line in lines] == found
    return list(found)


def command_of(on: Command) -> str:
    (problem,) = on("problems", "--json").problems
    return str(problem["command"])


def test_data_of_nobody_known_are_moved_away_and_then_the_run_goes_there(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    put(lab.copy_of(run), FOREIGN)
    assert on("run", "--once").code == 3
    assert kind(lab, run) == "destination_occupied"
    message = lab.record(run)["last_error"]["message"]
    assert "holds data that are not known to be this run's" in message
    look, rename, away = ways_out(on, run)
    assert look.startswith("look at what is there")
    assert look.endswith(f", then: exlab-watch-agent resolve '{run}' --take-over")
    assert rename.startswith("or rename the run's folder here")
    assert away == f"or move what is there away on the NAS, then: exlab-watch-agent resolve '{run}' --use local"
    assert command_of(on) == f"exlab-watch-agent resolve '{run}' --take-over"
    for words in (["resolve", str(run), "--use", "local"], ["resolve", str(run), "--use", "local"]):
        said = on(*words)
        assert said.code == 1
        assert "wins" not in said.out
        assert said.out == (
            "the destination is looked at again: while others have it nothing there is touched, and the run waits\n"
        )
        assert kind(lab, run) == "destination_occupied"
        assert hashes(lab.copy_of(run)) == hashes_of(FOREIGN, lab)
    lab.copy_of(run).rename(lab.nas / "away")
    assert on("resolve", str(run), "--use", "local").code == 0
    lab.assert_whole(run)
    assert hashes(lab.nas / "away") == hashes_of(FOREIGN, lab)
    assert on("show", str(run), "--json").json["ways_out"] == []


def hashes_of(files: dict[str, bytes], lab: Lab) -> dict[str, str]:
    put(lab.home / "as they were", files)
    return hashes(lab.home / "as they were")


def test_a_new_run_in_the_place_of_one_that_was_renamed_goes_its_own_way_once_it_is_renamed(
    lab: Lab, on: Command
) -> None:
    first = lab.new_run("Run_2026-04-17T00-01")
    on("run", "--once")
    first.rename(first.with_name("Run_2026-04-17T09-09"))
    on("scan")
    second = lab.new_run("Run_2026-04-17T00-01", files={"other.bin": b"other"}, created_at="2026-04-18T14:32:00Z")
    assert on("run", "--once").code == 3
    assert kind(lab, second) == "destination_occupied"
    assert "holds another run's data" in lab.record(second)["last_error"]["message"]
    before = hashes(lab.copy_of(second))
    renamed = second.rename(second.with_name("Run_2026-04-17T10-10"))
    for words in (["scan"], ["resolve", renamed.name, "--use", "local"]):
        on(*words)
    assert lab.record(renamed)["state"] == "verified", lab.record(renamed)
    lab.assert_whole(renamed)
    assert hashes(lab.copy_of(second)) == before
    assert on("problems").code == 0


def test_local_files_that_changed_after_the_sync_are_put_back_or_win(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"a.bin": b"1", "b.bin": b"2"})
    on("run", "--once")
    (run / "a.bin").write_bytes(b"another")
    (run / "new.bin").write_bytes(b"3")
    assert on("verify", str(run)).code == 3
    assert kind(lab, run) == "local_changed_after_sync"
    back, win, _ = ways_out(on, run)
    assert back.startswith("put the files back here as they were, from the copy on the NAS")
    assert back.endswith(f"then: exlab-watch-agent verify '{run}'")
    assert win.endswith(f"then: exlab-watch-agent resolve '{run}' --use local")
    copy = lab.copy_of(run)
    put(run, {"a.bin": (copy / "a.bin").read_bytes()})
    (run / "new.bin").unlink()
    assert on("verify", str(run)).code == 0
    assert lab.record(run)["state"] == "verified"
    (run / "a.bin").write_bytes(b"another")
    on("verify", str(run))
    said = on("resolve", str(run), "--use", "local")
    assert said.out.startswith(
        "the local data win: the run is queued, what differs on the NAS is moved aside, and what is only there stays there\n"
    )
    assert lab.record(run)["state"] == "verified"
    assert (copy / "a.bin").read_bytes() == b"another"
    assert (copy / "b.bin").read_bytes() == b"2"


def test_a_copy_that_lost_its_claim_and_a_file_at_once_has_a_way_out(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"a.bin": b"1", "b.bin": b"2"})
    on("run", "--once")
    copy = lab.copy_of(run)
    for path in (copy / CACHE).iterdir():
        path.unlink()
    (copy / CACHE).rmdir()
    (copy / "a.bin").unlink()
    on("verify", str(run))
    assert kind(lab, run) == "destination_occupied"
    assert "holds data that are not known to be this run's" in lab.record(run)["last_error"]["message"]
    copy.rename(lab.nas / "kept")
    assert on("resolve", str(run), "--use", "local").code == 0
    lab.assert_whole(run)
    assert read_creation(copy)["sync_status"] == "synced"
    assert (lab.nas / "kept" / "b.bin").read_bytes() == b"2"
