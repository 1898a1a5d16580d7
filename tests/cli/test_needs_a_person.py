"""What needs a person is told where nobody reads a log: by exit code and stderr of what works, and by `problems` afterwards."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.lab import CACHE, SENTINEL_SIGNAL, Equipment, Lab, Said, read_creation
from tests.lab.swapping import write_below

Command = Callable[..., Said]

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
EARLIER = r" \(as an agent last saw it, \d+ s ago; no agent is running\)"
STOPPED = rf"NOTICE  agent: no agent is running: it was stopped in order at {TIME}"
CHECK = "exlab-watch-agent check"
NEXT_STEP = (
    "Let the agent's account read it, close the program that holds it, or shorten the path; then the agent goes on."
)


def last_line(said: Said) -> str:
    return said.err.splitlines()[-1]


def assert_line(pattern: str, line: str) -> None:
    assert re.fullmatch(pattern, line), line


def listed(said: Said) -> list[tuple[str, str, str, str]]:
    return [(one["tier"], one["code"], one["subject"], one["command"]) for one in said.problems]


def assert_nothing(said: Said) -> None:
    """Nothing needs a person; that an agent was stopped in order may be told all the same."""
    first, *notices = said.out.splitlines()
    assert (said.code, said.err, first) == (0, "", "nothing needs a person")
    for notice, helps in zip(notices[::2], notices[1::2], strict=True):
        assert_line(STOPPED, notice)
        assert helps.startswith("    -> exlab-watch-agent run --config ")


def needed(said: Said) -> list[str]:
    """Return the lines of `problems` but for those that are about the agent itself, with commands without their flags."""
    lines = [line for line in said.out.splitlines() if line != "nothing needs a person"]
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    kept = [pair for pair in pairs if "  agent: " not in pair[0]]
    return [word for what, helps in kept for word in (what, helps.partition(" --config ")[0])]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody but root may look into this folder."""
    folder.chmod(0)
    try:
        yield
    finally:
        folder.chmod(0o755)


# --- a destination that is away --------------------------------------------------------------------------------------


def without_folder(lab: Lab) -> str:
    (lab.nas / "SCOPE_01").rename(lab.nas / "away")
    return "The share may not be mounted"


def without_marker(lab: Lab) -> str:
    (lab.nas / "SCOPE_01").rename(lab.nas / "away")
    (lab.nas / "SCOPE_01").mkdir()
    return "marker"


def back(lab: Lab) -> None:
    shutil.rmtree(lab.nas / "SCOPE_01", ignore_errors=True)
    (lab.nas / "away").rename(lab.nas / "SCOPE_01")


@pytest.mark.parametrize("go_away", [without_folder, without_marker])
def test_run_once_whose_nas_is_away_says_so_and_ends_with_3_and_so_do_problems_and_status_afterwards(
    lab: Lab, on: Command, go_away: Callable[[Lab], str]
) -> None:
    lab.new_run()
    assert on("run", "--once", "--quiet") == Said(0, "1 verified\n", "")
    word = go_away(lab)
    run = lab.new_run()

    said = on("run", "--once", "--quiet")
    assert (said.code, said.out) == (3, "1 queued, 1 verified\n")
    assert said.err.count("\n") == 1
    assert_line(rf"NEEDS YOU  SCOPE_01: NAS unreachable since {TIME}: .+ -> {CHECK} --config .+", last_line(said))
    assert word in said.err

    said = on("problems")
    assert (said.code, said.err) == (3, "")
    first, second = needed(said)
    assert_line(rf"NEEDS YOU  SCOPE_01: NAS unreachable since {TIME}: .+{EARLIER}", first)
    assert second == f"    -> {CHECK}"
    assert listed(on("problems", "--json")) == [("needs_you", "nas_unreachable", "SCOPE_01", CHECK)]

    said = on("status")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "1 problem needs you"
    assert_line(r"1 run, .+ is only on this PC, the oldest for \d+ s", lines[1])
    assert_line(rf"no agent is running: it was stopped in order at {TIME}", lines[2])
    assert_line(rf"SCOPE_01 -> {lab.nas}/SCOPE_01: NAS unreachable since {TIME}: .+{EARLIER}; .*", lines[4])
    assert lines[7].startswith(f"queued           {run}  (")
    assert_line(rf" +NAS unreachable since {TIME}: .+{EARLIER}", lines[8])
    lane = on("status", "--json").json["lanes"]["SCOPE_01"]
    assert lane["waiting_since"]
    assert re.fullmatch(TIME, lane["at"])
    assert re.match(rf"NAS unreachable since {TIME}: ", on("show", run.name, "--json").json["why"])

    back(lab)
    assert on("run", "--once", "--quiet") == Said(0, "2 verified\n", "")
    assert_nothing(on("problems"))
    assert "NAS unreachable" not in on("status").out
    lab.assert_whole(run)


def test_a_command_about_one_equipment_leaves_what_is_known_of_the_others(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    on: Command = lambda *words: command(*words, "--config", str(lab.config))  # noqa: E731
    run = lab.new_run()
    lab.new_run(equipment="SCOPE_02")
    (lab.nas / "SCOPE_02").rename(lab.nas / "away")
    assert on("run", "--once", "--quiet").code == 3
    other = lab.new_run()
    said = on("sync", str(other))
    assert (said.code, "NAS unreachable" in said.err) == (0, False), "it is about the other equipment"
    assert on("verify", str(run)).code == 0
    assert on("scan").code == 0, "that it scanned is all that was asked for"
    assert [one[2] for one in listed(on("problems", "--json"))] == ["SCOPE_02"]


@pytest.mark.parametrize("words", [["sync"], ["verify"], ["resolve", "--use", "local"]], ids=" ".join)
def test_a_command_whose_run_does_not_come_to_rest_ends_with_3_and_says_why(
    lab: Lab, on: Command, words: list[str]
) -> None:
    run = lab.new_run()
    if words != ["sync"]:
        on("run", "--once", "--quiet")
    if words[0] == "resolve":
        (run / "image.tif").write_bytes(b"another")
        assert on("verify", run.name).code == 3
    without_folder(lab)
    said = on(*words, str(run))
    assert said.code == (3 if words == ["verify"] else 1)
    assert re.search(
        rf"^NEEDS YOU  SCOPE_01: NAS unreachable since {TIME}: .+ -> {CHECK} --config ", said.err, re.MULTILINE
    )


def test_a_lane_that_waits_for_another_reason_than_its_nas_names_its_own_command(lab: Lab, on: Command) -> None:
    lab.new_run()
    without_folder(lab)
    on("run", "--once")
    live = json.loads((lab.state / "live.json").read_text())
    more = {"waiting_kind": "destination_unbound", "waiting_command": "exlab-watch-agent bind SCOPE_01"}
    live["lanes"]["SCOPE_01"] |= {"waiting_reason": "it was never used before", **more}
    (lab.state / "live.json").write_text(json.dumps(live))
    said = on("problems", "--json")
    assert listed(said) == [("needs_you", "destination_unbound", "SCOPE_01", "exlab-watch-agent bind SCOPE_01")]
    assert_line(rf"it was never used before \(since {TIME}\){EARLIER}", said.problems[0]["sentence"])


# --- a root that is away ---------------------------------------------------------------------------------------------


def test_run_once_whose_instrument_folder_is_missing_ends_with_3(lab: Lab, on: Command) -> None:
    root = lab.local / "SCOPE_01"
    root.rename(lab.home / "elsewhere")
    said = on("run", "--once")
    assert (said.code, said.out) == (3, "no runs were found\n")
    assert_line(rf"NEEDS YOU  SCOPE_01: .*{re.escape(str(root))} .+ -> {CHECK} --config .+", last_line(said))
    assert said.err.count("\n") == 1
    assert listed(on("problems", "--json")) == [("needs_you", "root_unavailable", "SCOPE_01", CHECK)]
    (lab.home / "elsewhere").rename(root)
    assert on("run", "--once").code == 0
    assert_nothing(on("problems"))


def test_a_root_that_is_empty_although_runs_are_known_says_nothing_of_the_runs(lab: Lab, on: Command) -> None:
    lab.new_run(files={})
    assert on("run", "--once").code == 0
    root = lab.local / "SCOPE_01"
    root.rename(lab.home / "elsewhere")
    root.mkdir()
    said = on("problems", "--json")
    assert listed(said) == [("needs_you", "root_unavailable", "SCOPE_01", CHECK)]
    assert "is empty although 1 known run is expected there" in said.out


def test_a_run_that_is_gone_before_it_was_synced_is_said_by_run_once_and_by_problems(lab: Lab, on: Command) -> None:
    run, _ = lab.new_run(files={}), lab.new_run()
    assert on("run", "--once").code == 0
    shutil.rmtree(run)
    said = on("run", "--once", "--quiet")
    gone = f"{run} is gone: put it back, or have it forgotten if it was removed on purpose"
    forget = f"exlab-watch-agent forget '{run}' --reason \"...\""
    assert said.code == 3
    assert said.err.startswith(f"NEEDS YOU  {run}: {gone} -> {forget} --config ")
    assert needed(on("problems")) == [f"NEEDS YOU  {run}: {gone}", f"    -> {forget}"]


# --- attempts that fail ----------------------------------------------------------------------------------------------


def test_run_once_whose_first_attempt_failed_says_so_and_ends_with_3(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    obstacle = lab.copy_of(run).parent
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder must be")
    said = on("run", "--once", "--quiet")
    assert (said.code, said.out) == (3, "1 queued\n")
    failed = rf"attempt 1 failed: .+; the next `exlab-watch-agent run` tries it again, not before {TIME}"
    assert_line(rf"NEEDS YOU  {run}: {failed} -> exlab-watch-agent retry '{run}' --config .+", last_line(said))
    said = on("problems")
    assert said.code == 3
    assert_line(rf"NEEDS YOU  {run}: {failed}", said.out.splitlines()[0])
    assert_line(f" +{failed}", on("status").out.splitlines()[-1])
    said = on("retry", run.name)
    assert said.code == 1
    assert "attempt 1 failed: " in last_line(said), "the attempts count anew"
    obstacle.unlink()
    assert on("retry", run.name).code == 0
    assert_nothing(on("problems"))
    lab.assert_whole(run)


def test_run_once_whose_seal_was_refused_says_so_and_ends_with_3(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    (run / CACHE).chmod(0o555)
    try:
        said = lab.cli("run", "--once", "--quiet", as_user=True)
        assert (said.code, said.out) == (3, "1 sealing\n")
        assert_line(rf"NEEDS YOU  {run}: .+ -> exlab-watch-agent show '{run}' --config .+", last_line(said))
        assert listed(on("problems", "--json")) == [
            ("needs_you", "seal_failed", str(run), f"exlab-watch-agent show '{run}'")
        ]
    finally:
        (run / CACHE).chmod(0o755)


# --- runs that cannot be used ----------------------------------------------------------------------------------------


def test_a_run_that_cannot_be_read_whole_is_known_and_named_with_the_part_and_the_next_step(
    lab: Lab, on: Command
) -> None:
    run = lab.new_run(files={"a.bin": b"a", "sub/b.bin": b"b"})
    message = f"A part of the run {run} cannot be listed now: Permission denied ('{run}/sub'). {NEXT_STEP}"
    line = f"NEEDS YOU  {run}: {message} -> exlab-watch-agent show '{run}' --config {shlex.quote(str(lab.config))}\n"
    text = [f"NEEDS YOU  {run}: {message}", f"    -> exlab-watch-agent show '{run}'"]
    with locked(run / "sub"):
        assert needed(lab.cli("problems", as_user=True)) == text
        assert lab.cli("run", "--once", "--quiet", as_user=True) == Said(3, "1 acquiring\n", line)
        assert needed(lab.cli("problems", as_user=True)) == text
        assert listed(lab.cli("problems", "--json", as_user=True)) == [
            ("needs_you", "unreadable", str(run), f"exlab-watch-agent show '{run}'")
        ]
        said = lab.cli("sync", str(run), as_user=True)
        assert (said.code, said.out, said.err) == (1, "", line)
        assert lab.log().count("cannot be read whole") == 2, "once in the life of each agent"
    assert lab.record(run)["state"] == "acquiring"
    assert not lab.copy_of(run).exists()
    assert on("run", "--once", "--quiet") == Said(0, "1 verified\n", "")
    assert_nothing(on("problems"))
    lab.assert_whole(run)


def test_a_queued_run_that_cannot_be_read_any_more_is_said_and_not_pushed(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"a.bin": b"a", "sub/b.bin": b"b"})
    without_folder(lab)
    assert on("run", "--once", "--quiet").code == 3
    back(lab)
    with locked(run / "sub"):
        said = lab.cli("run", "--once", "--quiet", as_user=True)
        assert (said.code, said.out) == (3, "1 queued\n")
        assert f"cannot be listed now: Permission denied ('{run}/sub')" in last_line(said)
        assert not lab.copy_of(run).exists()
        assert lab.record(run)["attempts"] == 0
        assert [one[1] for one in listed(lab.cli("problems", "--json", as_user=True))] == ["unreadable"]
    assert on("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)


def test_a_run_that_was_moved_and_cannot_be_read_in_its_new_place_is_the_same_run(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"<id>": b"1", "sub/b.bin": b"b"})
    assert on("run", "--once", "--quiet").code == 3
    job_id = lab.record(run)["job_id"]
    moved = run.with_name("Run_2027-01-01T00-00")
    run.rename(moved)
    with locked(moved / "sub"):
        assert lab.cli("run", "--once", "--quiet", as_user=True).code == 3
    assert (lab.record(moved)["job_id"], lab.record(moved)["state"]) == (job_id, "blocked")
    assert on("status", "--json").json["counts"] == {"blocked": 1}


def test_a_queued_run_whose_creation_json_is_gone_is_said(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    (lab.nas / "SCOPE_01").rename(lab.home / "away")
    assert on("run", "--once").code == 3
    (lab.home / "away").rename(lab.nas / "SCOPE_01")
    (run / CACHE / "creation.json").rename(run / "creation.json.bak")
    said = on("run", "--once")
    assert said.code == 3
    assert f"{run}: still queued and not pushed: " in said.err


def test_a_path_that_is_longer_than_the_system_takes_is_copied_and_proven_like_any_other(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    path = "/".join(["d" * 250] * 20 + ["deep.bin"])
    write_below(run, path.split("/"), b"deep")
    try:
        assert on("run", "--once", "--quiet").code == 0
        assert on("problems").code == 0
        manifest = (lab.copy_of(run) / CACHE / "checksums.sha256").read_text()
        assert f"{hashlib.sha256(b'deep').hexdigest()}  {path}\n" in manifest
    finally:
        subprocess.run(["rm", "-rf", "--", run, lab.copy_of(run)], check=True)


@pytest.mark.parametrize("level", ["equipment", "Run", "project", "x\x1b[31m\n"])
def test_a_level_that_is_not_a_run_s_is_told_wherever_one_would_look_and_forgotten_when_it_is_corrected(
    lab: Lab, on: Command, level: str
) -> None:
    run = lab.new_run(level=level)
    where = run / CACHE / "creation.json"
    shown = json.dumps(level)
    message = (
        f"{where} says level {shown} where a run is expected: each folder in Runs and TestRuns must be one, so nothing "
        'here is copied. If it is a run, write "level": "run" there, else move the folder elsewhere.'
    )
    text = [f"NEEDS YOU  {run}: {message}", f"    -> exlab-watch-agent sync '{run}'"]
    assert needed(on("problems")) == text
    said = on("run", "--once")
    assert (said.code, said.out) == (3, "no runs were found\n")
    assert said.err.startswith(f"NEEDS YOU  {run}: {message} -> exlab-watch-agent sync '{run}' --config ")
    assert needed(on("problems")) == text
    said = on("sync", str(run))
    assert (said.code, said.out, said.err) == (1, "", f"{run} was not synced: {message}\n")
    assert on("show", str(run), "--json").json["why"] == message
    assert not lab.copy_of(run).exists()
    lab.write_creation(run)
    assert on("run", "--once").code == 0
    assert_nothing(on("problems"))
    lab.assert_whole(run)


def test_a_known_run_whose_creation_json_is_spoiled_is_told_without_an_agent_too(lab: Lab, on: Command) -> None:
    run, waiting = lab.new_run(), lab.new_run(files={})
    assert on("run", "--once").code == 0
    for path in (run, waiting):
        (path / CACHE / "creation.json").write_text("{")
    assert [one[1:3] for one in listed(on("problems", "--json"))] == [
        ("creation_invalid_json", str(run)),
        ("creation_invalid_json", str(waiting)),
    ]


# --- what needs nobody -----------------------------------------------------------------------------------------------


def test_a_run_that_is_still_being_acquired_and_an_orphan_need_nobody_in_run_once(
    tmp_path: Path, command: Command
) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01", SENTINEL_SIGNAL))
    lab.new_run()
    (lab.local / "SCOPE_01" / "P" / "Runs" / "Run_2026-01-01T00-00").mkdir(parents=True)
    said = command("run", "--once", "--quiet", "--config", str(lab.config))
    assert said == Said(0, "1 acquiring\n", "")


def test_an_orphan_s_name_cannot_steer_the_terminal(lab: Lab, on: Command) -> None:
    (lab.local / "SCOPE_01" / "P\x1b[31m\nQ" / "Runs" / "Run_2026-01-01T00-00").mkdir(parents=True)
    said = on("problems")
    assert "\x1b" not in said.out
    assert len(needed(said)) == 2


# --- a state folder that is not there --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["show", "x"], ["problems"], ["override", "list", "x"]], ids=" ".join
)
def test_what_only_reads_ends_with_2_where_there_is_no_state_folder(
    lab: Lab, on: Command, command: Command, words: list[str]
) -> None:
    lab.new_run()
    text = (
        "There is no state folder at {}: no agent has worked with it yet. `exlab-watch-agent run` makes it, or give the "
        "right --state-dir.\n"
    )
    shutil.rmtree(lab.state)
    assert on(*words) == Said(2, "", text.format(lab.state))
    lab.bind()
    assert on("run", "--once").code == 0
    mistyped = lab.home / "staet"
    assert on(*words, "--state-dir", str(mistyped)) == Said(2, "", text.format(mistyped))
    said = command(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("There is no state folder at ")
    assert not mistyped.exists()


def test_what_acts_makes_its_state_folder_or_needs_none(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"<id>": b"1"})
    shutil.rmtree(lab.state)
    assert (
        on("override", "add", run.name, "--class", "unresolved_placeholder_token", "--reason", "it has no id yet").code
        == 0
    )
    assert not lab.state.exists()
    assert on("bind", "--all", "--yes").code == 0
    assert on("sync", run.name).code == 0
    assert read_creation(run)["sync_status"] == "synced"
