"""One agent, three instruments, one NAS: what a run lives through, each test with runs of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from exlab_watch_agent.core.text import shell_word
from tests.lab.lab import (
    CACHE,
    MANIFEST_SIGNAL,
    SENTINEL,
    SENTINEL_SIGNAL,
    AgentProcess,
    Equipment,
    Lab,
    creation_of,
    hashes,
    override,
    put,
    read_creation,
    save_by_rename,
    save_in_place,
    tombstone,
    until,
)

TO_THE_END = ["acquiring", "queued", "running", "prechecking", "awaiting_verify", "sealing", "verified"]
PROJECT_ONLY = "PROJ-0043"
PLACEHOLDER = "unresolved_placeholder_token"
WIZARD_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \[(?:INFO |WARNING|ERROR)\] \[host:[^]]+\] \[equip:SCOPE_01\] \[proj:[^]]+\] "
    r"\[kind:experimental\] \[run:Run_[^]]+\] NAS sync .+"
)
ODD_FILES = {
    "plain.bin": b"x" * 300_000,
    "empty": b"",
    "-rf": b"1",
    "it's quoted & (more).txt": b"2",
    "λ β-tubulin/100 %/$HOME; `id`.tif": b"3" * 5000,
    "deep/er/and/deeper/z.bin": b"4",
    " leading and  double": b"5",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(
        tmp_path_factory.mktemp("lab"),
        Equipment("SCOPE_01"),
        Equipment("SENTINEL_01", SENTINEL_SIGNAL),
        Equipment("MANIFEST_01", MANIFEST_SIGNAL),
    )


@pytest.fixture(scope="module", autouse=True)
def agent(lab: Lab) -> Iterator[AgentProcess]:
    with lab.running(as_user=True) as agent:
        yield agent
    lab.assert_chain_holds()
    assert lab.debris() == []


def why(lab: Lab, run: Path) -> str:
    return str(lab.cli("show", str(run), "--json").json["why"])


def problem_of(lab: Lab, run: Path) -> dict[str, Any]:
    """Return the one problem that is listed about a run."""
    said = lab.cli("problems", "--json")
    found = [problem for problem in said.problems if str(run) in problem["subject"]]
    assert len(found) == 1, said.out
    assert said.code == 3
    return dict(found[0])


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_a_run_that_appears_ends_verified_and_the_nas_copy_is_equal_and_says_so(lab: Lab) -> None:
    run = lab.new_run(files=ODD_FILES)
    before = read_creation(run)
    lab.until_state(run, "verified")
    assert lab.states(run) == TO_THE_END
    lab.assert_whole(run)
    assert read_creation(run) == before | {"sync_status": "synced"}
    assert list(read_creation(run)) == list(before)
    assert '"unknown": [\n        1.5,' in (run / CACHE / "creation.json").read_text(encoding="utf-8")
    said = lab.cli("status", "--json")
    shown = next(one for one in said.json["runs"] if one["run_path"] == str(run))
    assert (shown["state"], shown["sync_status"], shown["attempts"]) == ("verified", "synced", 0)
    assert shown["bytes_done"] == shown["bytes_total"] == sum(map(len, ODD_FILES.values()))


def test_names_that_only_a_posix_disk_can_hold_are_synced_once_an_operator_says_so(lab: Lab) -> None:
    files = {'say "hi"': b"1", "back\\slash": b"2", "new\nline": b"3", "a:b|c?*": b"4", "ends in a dot.": b"5"}
    run = lab.new_run(files=files, validation_overrides=[override("illegal_filesystem_character")])
    lab.until_state(run, "verified")
    lab.assert_whole(run)


def test_every_line_of_the_run_s_own_log_has_the_wizard_s_format_and_the_last_says_complete(lab: Lab) -> None:
    run = lab.new_run(project="P [x] ] y")
    log = run / CACHE / f"wizard.{socket.gethostname()}.log"
    earlier = "2026-04-17T14:32:11Z [INFO ] a line of ExLab-Wizard\n"
    log.write_text(earlier, encoding="utf-8")
    lab.until_state(run, "verified")
    until(lambda: "NAS sync complete" in log.read_text(encoding="utf-8"), "the last line is written")
    first, *ours = log.read_text(encoding="utf-8").splitlines()
    assert first + "\n" == earlier
    assert len(ours) == len(TO_THE_END)
    for line in ours:
        assert WIZARD_LINE.fullmatch(line.replace("[proj:P [x] ] y]", "[proj:P]")), line
    assert "NAS sync complete: 1 file, 20000 bytes" in ours[-1]


def test_the_central_log_and_the_heartbeat_are_there_and_private(lab: Lab, agent: AgentProcess) -> None:
    assert "agent 0." in lab.log()
    heartbeat = json.loads((lab.state / "heartbeat.json").read_text())
    assert heartbeat["pid"] == agent.pid
    assert set(heartbeat["lanes"]) == {"SCOPE_01", "SENTINEL_01", "MANIFEST_01"}
    assert {"at", "version", "counts", "oldest_unsynced"} <= set(heartbeat)
    assert lab.state.stat().st_mode & 0o077 == 0


def test_the_decision_after_a_write_of_creation_json_comes_within_a_second(lab: Lab) -> None:
    delays = []
    for _ in range(7):
        run = lab.new_run(files={})  # without data, so that nothing else goes on
        written_s = (run / CACHE / "creation.json").stat().st_mtime
        first = until(lambda run=run: lab.facts(run), "a decision")[0]  # type: ignore[misc]
        delays.append(datetime.fromisoformat(first["at"]).timestamp() - written_s)
    assert statistics.median(delays) < 1, delays


def test_the_agent_s_own_writes_of_creation_json_cause_no_second_reaction(lab: Lab) -> None:
    run = lab.new_run()
    lab.until_state(run, "verified")
    written = (run / CACHE / "creation.json").stat()
    # Events come in order: when a later run has gone all the way, those of the earlier one's writes have been seen.
    lab.until_state(lab.new_run(), "verified")
    assert lab.states(run) == TO_THE_END
    assert len(lab.facts(run)) == len(TO_THE_END)
    assert (run / CACHE / "creation.json").stat() == written


def test_a_creation_json_that_is_moved_in_counts_as_one_that_is_written(lab: Lab) -> None:
    run = lab.new_run()
    lab.until_state(run, "verified")
    moved_in = lab.local / "SCOPE_01" / "moved in" / "Runs" / "Run_2026-06-01T00-00"
    elsewhere = lab.home / "elsewhere"
    put(elsewhere, {"a.bin": b"a"})
    (elsewhere / CACHE).mkdir()
    save_in_place(elsewhere, creation_of(moved_in))
    moved_in.parent.mkdir(parents=True)
    elsewhere.rename(moved_in)
    lab.until_state(moved_in, "verified")
    lab.assert_whole(moved_in)


def test_a_project_s_own_creation_json_is_no_run_and_in_a_run_s_place_it_is_told_until_it_is_corrected(
    lab: Lab,
) -> None:
    project = lab.local / "SCOPE_01" / PROJECT_ONLY / "Runs"
    (project.parent / CACHE).mkdir(parents=True)
    (project.parent / CACHE / "creation.json").write_text('{"schema_version": "1.8", "level": "project"}')
    inside = lab.new_run(project=PROJECT_ONLY, level="project")
    run = lab.new_run(project=PROJECT_ONLY)
    lab.until_state(run, "verified")
    assert lab.facts(inside) == lab.facts(project.parent) == []
    assert lab.cli("show", str(inside)).code == 0
    until(lambda: listed_paths(lab), "it is a problem")
    problem = problem_of(lab, inside)
    assert (problem["tier"], problem["code"], problem["command"]) == (
        "needs_you",
        "unexpected_level",
        f"exlab-watch-agent sync '{inside}'",
    )
    assert 'creation.json says level "project" where a run is expected: ' in problem["sentence"]
    said = lab.cli("sync", str(inside))
    assert (said.code, said.out, said.err) == (1, "the run is looked at\n", f"{inside}: {problem['sentence']}\n")
    lab.write_creation(inside)
    lab.until_state(inside, "verified")
    until(lambda: not listed_paths(lab), "it is none any more")


# --- when is it complete ---------------------------------------------------------------------------------------------


def test_a_run_without_data_is_not_complete_and_show_says_so(lab: Lab) -> None:
    run = lab.new_run(files={})
    lab.until_state(run, "acquiring")
    assert "no data files yet" in why(lab, run)
    put(run, {"first.bin": b"1"})
    lab.until_state(run, "verified")


def test_a_run_waits_for_its_sentinel_however_late_and_show_says_so(lab: Lab) -> None:
    run = lab.new_run(equipment="SENTINEL_01")
    lab.until_state(run, "acquiring")
    sentence = f"not complete yet: {SENTINEL} is not there yet"
    assert why(lab, run) == sentence
    until(lambda: f"{sentence}\n" in lab.cli("status").out, "status says so too")
    (run / SENTINEL).touch()
    lab.until_state(run, "verified")
    assert lab.states(run) == TO_THE_END
    lab.assert_whole(run)


def test_a_run_waits_for_every_file_that_its_manifest_lists(lab: Lab) -> None:
    files = {"raw/a.bin": b"a" * 1000, "raw/b.bin": b"b" * 2000}
    listed = {"files": [{"path": name, "size": len(data)} for name, data in files.items()]}
    run = lab.new_run(files={"manifest.json": json.dumps(listed).encode()}, equipment="MANIFEST_01")
    lab.until_state(run, "acquiring")
    assert "raw/a.bin" in why(lab, run)
    put(run, {"raw/a.bin": files["raw/a.bin"], "raw/b.bin": b"b"})
    assert "raw/b.bin" in why(lab, run)
    put(run, files)
    lab.cli("sync", str(run))  # the watch does not cover data below the run folder
    lab.until_state(run, "verified")
    assert lab.states(run) == TO_THE_END
    lab.assert_whole(run)


def test_a_hash_of_the_instrument_s_manifest_that_is_wrong_blocks_the_run_after_its_verify(lab: Lab) -> None:
    listed = {"files": [{"path": "a.bin", "size": 1, "sha256": "0" * 64}]}
    run = lab.new_run(files={"manifest.json": json.dumps(listed).encode(), "a.bin": b"a"}, equipment="MANIFEST_01")
    lab.until_state(run, "blocked")
    problem = problem_of(lab, run)
    assert problem["code"] == "manifest_hash_mismatch"
    assert "a.bin" in problem["sentence"]
    assert read_creation(run)["sync_status"] == "blocked_by_validation"


def test_a_run_that_changes_after_it_was_admitted_but_before_it_is_proven_starts_anew_and_ends_whole(lab: Lab) -> None:
    runs = [lab.new_run(files={"a.bin": bytes(3_000_000)}) for _ in range(3)]  # one lane: the last one has to wait
    lab.until_state(runs[-1], "queued", "running", "prechecking", "awaiting_verify", "sealing", "verified")
    put(runs[-1], {"late.bin": b"late", "a.bin": b"shorter now"})
    until(
        lambda: lab.states(runs[-1])[-2:] == ["sealing", "verified"] or lab.states(runs[-1])[-1] == "conflict", "rest"
    )
    if lab.states(runs[-1])[-1] == "conflict":
        return
    if hashes(lab.copy_of(runs[-1])) == hashes(runs[-1]):
        lab.assert_whole(runs[-1])
    else:  # on a busy machine the change may come right after the proof: then the next pass says so
        assert lab.cli("verify", str(runs[-1])).err == ""
        lab.until_state(runs[-1], "conflict")


def test_a_run_that_cannot_be_read_whole_is_known_at_once_a_problem_after_the_third_look_and_heals_by_itself(
    lab: Lab,
) -> None:
    run = lab.local / lab.equipment[0].id / "PROJ-0042 Cortex pilot" / "Runs" / lab.new_leaf()
    (run / CACHE).mkdir(parents=True)
    put(run, {"a.bin": b"a", "sub/b.bin": b"b"})
    (run / "sub").chmod(0)
    lab.write_creation(run)
    try:
        lab.until_state(run, "acquiring")
        until(lambda: "cannot be listed now: Permission denied" in why(lab, run), "the reason is shown")
        for _ in range(2):
            lab.cli("sync", str(run))  # sooner than its own next looks
        until(lambda: is_told_unreadable(lab, run), "the third look")
        problem = problem_of(lab, run)
        assert (problem["tier"], problem["code"]) == ("needs_you", "unreadable")
        assert f"('{run}/sub'). Let the agent's account read it" in problem["sentence"]
        assert lab.log().count(f"{run} cannot be read whole") == 1
    finally:
        (run / "sub").chmod(0o755)
    lab.until_state(run, "verified")
    assert lab.states(run) == TO_THE_END
    lab.assert_whole(run)
    until(lambda: str(run) not in lab.cli("problems").out, "it is no problem any more")


def is_told_unreadable(lab: Lab, run: Path) -> bool:
    return bool(lab.live()["unreadable"].get(str(run), {}).get("looks") == 3)


# --- the gate --------------------------------------------------------------------------------------------------------


def blocked_run(lab: Lab, **members: Any) -> Path:
    run = lab.new_run(files={"scan_<sample_id>.dat": b"data"}, **members)
    lab.until_state(run, "blocked")
    until(lambda: read_creation(run)["sync_status"] == "blocked_by_validation", "the file says so")
    return run


@pytest.mark.parametrize("save", [save_in_place, save_by_rename])
def test_a_blocked_run_is_released_by_an_override_that_is_written_by_hand(
    lab: Lab, save: Callable[[Path, Any], None]
) -> None:
    run = blocked_run(lab)
    assert not lab.copy_of(run).exists()
    problem = problem_of(lab, run)
    assert problem["code"] == PLACEHOLDER
    assert "<sample_id>" in problem["sentence"]
    assert f"--class {PLACEHOLDER}" in problem["command"]
    document = read_creation(run)
    save(run, document | {"validation_overrides": [override(PLACEHOLDER)]})
    lab.until_state(run, "verified")
    assert lab.states(run) == ["acquiring", "blocked", *TO_THE_END[1:]]
    lab.assert_whole(run)
    assert [fact["operator"] for fact in lab.facts(run) if fact["kind"] == "override_added"] == ["asmith"]


def test_a_hand_written_override_without_id_counts_and_gets_one_with_the_agent_s_next_write(lab: Lab) -> None:
    run = blocked_run(lab)
    entry = {"problem_class": PLACEHOLDER, "operator": "x", "reason": "y", "recorded_at": "2026-01-01T00:00:00Z"}
    save_in_place(run, read_creation(run) | {"validation_overrides": [entry]})
    lab.until_state(run, "verified")
    written = read_creation(run)["validation_overrides"]
    assert len(written) == 1
    assert written[0]["id"]
    assert written[0] | {"id": None} == entry | {"id": None}


def test_a_half_saved_creation_json_releases_nothing_and_blocks_nothing(lab: Lab) -> None:
    run = blocked_run(lab)
    whole = json.dumps(read_creation(run) | {"validation_overrides": [override(PLACEHOLDER)]})
    (run / CACHE / "creation.json").write_text(whole[:-9])
    lab.until_state(lab.new_run(), "verified")
    assert lab.record(run)["state"] == "blocked"
    (run / CACHE / "creation.json").write_text(whole)
    lab.until_state(run, "verified")


def test_a_blocked_run_is_released_by_the_command_that_problems_names(lab: Lab) -> None:
    run = blocked_run(lab)
    said = lab.cli(
        "override", "add", run.name, "--class", PLACEHOLDER, "--reason", "it has no id yet", "--operator", "bjones"
    )
    assert (said.code, said.err) == (0, "")
    lab.until_state(run, "verified")
    lab.assert_whole(run)
    entry = read_creation(run)["validation_overrides"][0]
    assert (entry["problem_class"], entry["operator"], entry["reason"]) == (PLACEHOLDER, "bjones", "it has no id yet")
    assert f"active    {entry['id']}" in lab.cli("override", "list", run.name).out


def test_a_name_that_is_mended_on_the_disk_releases_the_run(lab: Lab) -> None:
    run = blocked_run(lab)
    (run / "scan_<sample_id>.dat").rename(run / "scan_17.dat")
    lab.until_state(run, "verified")
    lab.assert_whole(run)
    assert "blocked" in lab.states(run)


def test_an_override_that_is_revoked_or_of_another_class_releases_nothing(lab: Lab) -> None:
    run = blocked_run(lab)
    revoked = override(PLACEHOLDER)
    entries = [revoked, tombstone(revoked["id"]), override("case_collision"), tombstone("nobody")]
    save_by_rename(run, read_creation(run) | {"validation_overrides": entries})
    until(lambda: lab.record(run).get("overrides_seen") == 4, "the entries were read")
    lab.until_state(lab.new_run(), "verified")
    assert lab.record(run)["state"] == "blocked"
    kinds = [fact["kind"] for fact in lab.facts(run) if fact["kind"].startswith("override")]
    assert kinds == ["override_added", "override_revoked", "override_added", "override_revoked"]
    assert "revokes nobody, which is not there" in lab.log()


def test_links_and_special_files_in_a_run_block_it_and_are_not_followed(lab: Lab) -> None:
    outside = lab.home / "outside.txt"
    outside.write_text("not of this run")
    linked, piped = lab.new_run(), lab.new_run()
    (linked / "link.txt").symlink_to(outside)
    os.mkfifo(piped / "pipe")
    lab.until_state(linked, "blocked")
    lab.until_state(piped, "blocked")
    assert (problem_of(lab, linked)["code"], problem_of(lab, piped)["code"]) == (
        "symlink_in_run",
        "special_file_in_run",
    )
    (linked / "link.txt").unlink()
    (piped / "pipe").unlink()
    lab.until_state(linked, "verified")
    lab.until_state(piped, "verified")


def test_a_linked_run_folder_is_not_followed(lab: Lab) -> None:
    real = lab.home / "real" / "Run_2026-04-17T23-59"
    put(real, {"a.bin": b"a"})
    (real / CACHE).mkdir()
    save_in_place(real, creation_of(real))
    folder = lab.local / "SCOPE_01" / "linked" / "Runs"
    folder.mkdir(parents=True)
    (folder / real.name).symlink_to(real)
    (lab.local / "SCOPE_01" / "linked project").symlink_to(folder.parent)
    lab.until_state(lab.new_run(project="linked"), "verified")
    lab.cli("sync", str(folder / real.name))
    lab.until_state(lab.new_run(project="linked"), "verified")
    assert read_creation(real)["sync_status"] == "pending"
    assert sorted(path.name for path in (lab.nas / "SCOPE_01").iterdir() if "linked" in path.name) == ["linked"]
    assert real.name not in json.dumps([fact.get("record") for fact in lab.trail()])


# --- the same run under another name ---------------------------------------------------------------------------------


def test_a_run_that_is_renamed_or_moved_keeps_its_job_and_its_history(lab: Lab) -> None:
    run = blocked_run(lab)
    job_id = lab.record(run)["job_id"]
    renamed = run.with_name("Run_2026-07-01T00-00")
    run.rename(renamed)
    until(lambda: lab.record(renamed)["state"] == "blocked", "it is known under its new name")
    moved = lab.local / "SCOPE_01" / "another project" / "Runs" / renamed.name
    moved.parent.mkdir(parents=True)
    renamed.rename(moved)
    until(lambda: lab.record(moved)["state"] == "blocked", "it is known in its new place")
    (moved / "scan_<sample_id>.dat").rename(moved / "scan.dat")
    lab.until_state(moved, "verified")
    assert lab.record(moved)["job_id"] == job_id
    assert lab.states(moved)[:2] == ["acquiring", "blocked"]
    lab.assert_whole(moved)
    assert lab.cli("show", moved.name, "--json").json["job_id"] == job_id
    assert lab.cli("show", str(run)).code == 1
    assert str(run) not in lab.cli("status").out


# --- what is no creation.json ----------------------------------------------------------------------------------------

GOOD = json.dumps({"schema_version": "1.8", "level": "run", "created_at": "2026-01-01T00:00:00Z", "created_by": "x"})
BAD = {
    "truncated": (GOOD[:40].encode(), "line 1, column"),
    "empty": (b"", "is empty"),
    "another major": (GOOD.replace("1.8", "2.0").encode(), "reads 1.x only"),
    "no schema_version": (b'{"level": "run"}', "has no schema_version"),
    "100,000 brackets": (b"[" * 100_000, "line 1, column"),
    "duplicate keys": (GOOD.replace('"level"', '\n"level": "run", "level"').encode(), "line 2, column"),
    "NaN": (GOOD.replace('"x"', "NaN").encode(), "line 1, column"),
    "not UTF-8": (b'{"schema_version": "1.8",\n "x": "\xff"}', "line 2, column 8"),
    "a list": (b"[1, 2]", "must be an object"),
    "overrides that are a text": (GOOD.replace("{", '{"validation_overrides": "no", ').encode(), "must be a list"),
}
ODD = ("a folder", "unreadable", "a link")


@pytest.fixture(scope="module")
def bad_runs(lab: Lab, agent: AgentProcess) -> dict[str, Path]:
    """Return kind → run with such a creation.json, once the agent counts each as a problem; `known` was verified before."""
    known = lab.new_run(project="bad")
    lab.until_state(known, "verified")
    runs = {"known": known}
    (known / CACHE / "creation.json").write_bytes(BAD["truncated"][0])
    for kind in (*BAD, *ODD):
        runs[kind] = lab.new_run(project="bad")
        spoil(runs[kind] / CACHE / "creation.json", kind)
    until(lambda: len(listed_paths(lab)) >= len(runs), "all are problems")
    return runs


def spoil(path: Path, kind: str) -> None:
    if kind in BAD:
        path.write_bytes(BAD[kind][0])
        return
    aside = path.with_name("moved-away.json")
    path.rename(aside)
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link":
        path.symlink_to(aside.name)
    else:
        path.write_bytes(aside.read_bytes())
        path.chmod(0)


def listed_paths(lab: Lab) -> dict[str, str]:
    return dict(lab.live().get("path_problems", {}))


@pytest.mark.parametrize("kind", [*BAD, *ODD])
def test_a_creation_json_that_cannot_be_used_is_a_problem_that_says_where_and_is_left_as_it_is(
    lab: Lab, bad_runs: dict[str, Path], kind: str
) -> None:
    run = bad_runs[kind]
    path = run / CACHE / "creation.json"
    problem = problem_of(lab, run)
    assert str(path) in problem["sentence"]
    if kind in BAD:
        assert BAD[kind][1] in problem["sentence"]
        assert path.read_bytes() == BAD[kind][0]
    assert problem["code"].startswith("creation_") or problem["code"] == "schema_major_mismatch"
    assert not lab.copy_of(run).exists()
    assert not [name for name in os.listdir(run / CACHE) if "creation" in name and name != "creation.json"]


def test_a_known_run_s_bad_edit_leaves_the_last_good_state_in_force(lab: Lab, bad_runs: dict[str, Path]) -> None:
    run = bad_runs["known"]
    assert lab.record(run)["state"] == "verified"
    assert (run / CACHE / "creation.json").read_bytes() == BAD["truncated"][0]
    assert "line 1, column" in problem_of(lab, run)["sentence"]
    assert "line 1, column" in lab.cli("show", str(run), "--json").json["why"]


def test_runs_with_bad_creation_json_hold_up_no_other_and_are_taken_up_when_they_are_mended(
    lab: Lab, bad_runs: dict[str, Path]
) -> None:
    lab.until_state(lab.new_run(), "verified")
    for kind, run in bad_runs.items():
        path = run / CACHE / "creation.json"
        if kind == "a folder":
            path.rmdir()
        elif path.is_symlink():
            path.unlink()
        elif kind == "unreadable":
            path.chmod(0o644)
        lab.write_creation(run)
    for run in bad_runs.values():
        lab.until_state(run, "verified")
    until(lambda: read_creation(bad_runs["known"])["sync_status"] == "synced", "the file says again what is true")
    assert lab.states(bad_runs.pop("known")) == TO_THE_END
    for run in bad_runs.values():
        lab.assert_whole(run)
    mended = {str(run) for run in bad_runs.values()}
    until(lambda: not mended & listed_paths(lab).keys(), "none of them is a problem any more")


# --- commands while it runs ------------------------------------------------------------------------------------------


def test_a_second_agent_on_the_same_state_folder_says_who_holds_it_and_leaves(lab: Lab, agent: AgentProcess) -> None:
    for words in (["run"], ["run", "--once"]):
        said = lab.cli(*words)
        assert said.code == 1
        assert f"(pid {agent.pid} on " in said.err
        assert "stop it first" in said.err
        assert said.out == ""


def test_commands_reach_the_running_agent_and_come_back_with_its_answer(lab: Lab) -> None:
    run = lab.new_run()
    lab.until_state(run, "verified")
    said = lab.cli("verify", run.name)
    assert (said.code, said.out) == (0, "another verify pass was started\n")
    until(lambda: lab.states(run) == [*TO_THE_END, "auditing", "verified"], "one more pass")
    assert lab.facts(run)[-2]["operator"]
    assert lab.cli("sync", run.name).out == "the run is verified and is looked at now\n"
    for words, sentence in (
        (
            ["retry", run.name],
            "The run is verified, and only a failed or queued one can be tried again. "
            f"-> exlab-watch-agent verify {shell_word(str(run))}",
        ),
        (["resolve", run.name, "--use", "local"], "The run is verified: there is no conflict to resolve."),
    ):
        said = lab.cli(*words)
        assert (said.code, said.out, said.err) == (1, "", sentence + "\n")
    assert lab.cli("retry", "--all").out == "no run has failed, and none waits for its next attempt\n"
    commands = [fact["data"]["command"] for fact in lab.trail() if fact["kind"] == "operator_command"]
    assert commands[-4:] == ["verify", "sync", "retry", "resolve"]
    assert os.listdir(lab.state / "inbox") == os.listdir(lab.state / "replies") == []


def test_sync_of_a_run_that_nobody_knows_yet_has_the_agent_look_at_it(lab: Lab) -> None:
    run = lab.new_run(equipment="SENTINEL_01")
    assert lab.cli("sync", str(run)).code == 0
    lab.until_state(run, "acquiring")


def test_garbage_in_the_inbox_harms_nobody(lab: Lab) -> None:
    inbox = lab.state / "inbox"
    (inbox / "0-a.json").write_bytes(b"\xff{")
    (inbox / "0-b.json").write_text("[" * 50_000)
    (inbox / "0-c.json").write_text('{"command": "fly", "run_path": 7}')
    (inbox / "0-d.json").write_text('{"command": "retry", "job_id": ["x"]}')
    (inbox / "0-e.json").write_text("{}")
    (inbox / "0-f.json").mkdir()
    until(lambda: sorted(os.listdir(inbox)) == ["0-f.json"], "the files are gone")
    (inbox / "0-f.json").rmdir()
    lab.until_state(lab.new_run(), "verified")
    shutil.rmtree(lab.state / "replies")
    (lab.state / "replies").mkdir()


def test_a_held_lock_of_creation_json_is_a_wait_and_other_runs_go_on(lab: Lab) -> None:
    run = lab.new_run(equipment="SENTINEL_01")
    lab.until_state(run, "acquiring")
    with FileLock(run / CACHE / "creation.json.lock"):
        (run / SENTINEL).touch()
        lab.until_state(run, "sealing")
        lab.until_state(lab.new_run(), "verified")
        assert lab.record(run)["state"] == "sealing"
    lab.until_state(run, "verified")
    lab.assert_whole(run)


def test_everything_on_both_sides_is_still_equal_at_the_end(lab: Lab) -> None:
    for fact in {json.dumps(fact["record"]["run_path"]): fact for fact in lab.trail() if "record" in fact}.values():
        run = Path(fact["record"]["run_path"])
        if fact["record"]["state"] == "verified":
            assert hashes(run) == hashes(lab.copy_of(run))
