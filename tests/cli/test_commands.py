"""Every command: what it prints, its JSON, its exit code, and what it says of a mistake."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import exlab_watch_agent
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner
from exlab_watch_agent.config.load import load_settings
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.reconcile import SeenRun
from tests.lab.lab import CACHE, SECRET, SENTINEL_SIGNAL, Equipment, Lab, Said, override, read_creation, save_in_place

Command = Callable[..., Said]

PLACEHOLDER = "unresolved_placeholder_token"
COMMANDS = [
    ["demo"],
    ["init"],
    ["check"],
    ["bind"],
    ["run"],
    ["reload"],
    ["scan"],
    ["status"],
    ["top"],
    ["log"],
    ["show"],
    ["problems"],
    ["sync"],
    ["retry"],
    ["cancel"],
    ["forget"],
    ["verify"],
    ["resolve"],
    ["diagram"],
    ["override", "add"],
    ["override", "revoke"],
    ["override", "list"],
    ["audit", "verify"],
    ["audit", "log"],
    ["audit", "export"],
]
STATUS_KEYS = [
    "job_id", "run_path", "equipment_id", "project", "run_kind", "state", "sync_status", "attempts", "next_attempt_at",
    "last_error", "verify_passes", "verified_at", "enqueued_at", "destination", "files_total", "bytes_total",
    "bytes_done", "progress",
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
README = Path(__file__).parents[2] / "README.md"


def one_line(text: str) -> str:
    """Return the one line that a text is; fails when it is more or less."""
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    return text[:-1]


# --- the commands as such --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["override"], ["audit"]])
def test_without_a_command_the_help_is_shown(command: Command, words: list[str]) -> None:
    said = command(*words)
    assert said.code in (0, 2)
    assert "Usage: exlab-watch-agent" in said.out + said.err


def test_the_help_names_every_command_and_no_other(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    listed = re.findall(r"^  (\w+) ", said.out[said.out.index("Commands:") :], re.MULTILINE)
    assert listed == list(dict.fromkeys(words[0] for words in COMMANDS))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(command: Command, words: list[str]) -> None:
    said = command(*words, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: exlab-watch-agent {' '.join(words)}")
    assert "--config FILE" in said.out
    assert "--state-dir DIR" in said.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_stands_in_the_readme(words: list[str]) -> None:
    assert " ".join(words) in README.read_text(encoding="utf-8")


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version") == Said(0, f"{exlab_watch_agent.__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["show"],
        ["status", "--jsno"],
        ["show", "a", "b"],
        ["resolve", "x"],
        ["override", "add", "x"],
        ["retry"],
        ["retry", "x", "--all"],
        ["resolve", "x", "--use", "nas"],
        ["resolve", "x", "--accept-trail"],
        ["resolve", "--use", "local", "--accept-trail"],
        ["resolve", "--use", "local"],
        ["demo", "--config", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_usage_ends_with_2_and_one_clear_word(command: Command, words: list[str]) -> None:
    said = command(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.strip()


def test_an_option_before_the_command_is_told_where_it_belongs(command: Command) -> None:
    for words in (["--config", "x", "status"], ["--state-dir", "x", "problems"], ["--json", "status"]):
        said = command(*words)
        assert (said.code, said.out) == (2, "")
        assert "exlab-watch-agent status --config FILE" in said.err
    assert "stand behind it" not in command("status", "--jsno").err


# --- config ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["status"], ["check"], ["run", "--once"], ["problems"], ["sync", "x"]], ids=" ".join)
def test_all_mistakes_of_the_config_are_named_at_once_with_file_and_line(
    lab: Lab, on: Command, words: list[str]
) -> None:
    lab.config.write_text(
        "equipment:\n"
        "  - id: scope 1\n"
        "    local_root: relative/path\n"
        "    completness_signal: creation_json\n"
        "    transport: {type: mounted_path, path: 7}\n"
        "agent: {settle_seconds: -1, layuot: flat}\n"
        f"rubbish: {SECRET}\n"
    )
    said = on(*words)
    assert (said.code, said.out) == (2, "")
    assert "scope 1" not in said.err, "values stay out of error texts: one may be a secret"
    for word in (
        "equipment[0].id",
        "completness_signal",
        "completeness_signal",
        "settle_seconds",
        "layuot",
        "layout",
        "rubbish",
    ):
        assert word in said.err, word
    assert str(lab.config) in said.err
    assert SECRET not in said.err


def test_a_config_that_is_not_there_or_no_yaml_is_said_so(lab: Lab, command: Command, on: Command) -> None:
    said = command("status", "--config", str(lab.home / "nowhere.yaml"))
    assert said.code == 2
    assert "nowhere.yaml" in said.err
    lab.config.write_text("equipment: [\n")
    assert on("status").code == 2
    lab.config.write_bytes(b"\xff\xfe")
    assert on("status").code == 2
    lab.config.unlink()
    lab.config.mkdir()
    said = on("status")
    assert said.code == 2
    assert one_line(said.err)


def test_without_any_config_status_still_answers_and_run_says_what_is_missing(tmp_path: Path, command: Command) -> None:
    (tmp_path / "state").mkdir()
    said = command("status", "--state-dir", str(tmp_path / "state"))
    flags = f"--state-dir {tmp_path / 'state'}"
    assert (said.code, said.out) == (
        0,
        f"1 problem needs you\n    -> exlab-watch-agent problems {flags}\n"
        "no agent has worked with this state folder yet, so nothing is copied\n"
        f"    -> exlab-watch-agent run {flags}\nno runs are known\n",
    )
    said = command("run")
    assert said.code == 2
    assert "exlab-watch-agent.yaml" in said.err


def test_without_an_instrument_no_command_says_that_all_is_well_or_that_run_makes_a_folder(
    tmp_path: Path, command: Command
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"agent: {{state_dir: {tmp_path / 'state'}}}\n")
    for words in (["status"], ["problems"], ["bind", "--all"], ["bind", "SCOPE_01"]):
        said = command(*words, "--config", str(config))
        assert (said.code, said.out) == (2, ""), words
        assert "has no instrument yet" in said.err
        assert "exlab-watch-agent run" not in said.err


def test_init_writes_a_config_that_loads_and_never_overwrites_one(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "new" / "config.yaml"
    said = command("init", "--config", str(path), "--state-dir", str(tmp_path / "a state"))
    assert (said.code, said.err) == (0, "")
    assert str(path) in one_line(said.out)
    assert load_settings(path).state_dir == tmp_path / "a state"
    path.write_text("mine")
    said = command("init", "--config", str(path))
    assert (said.code, said.out) == (2, "")
    assert "is not overwritten" in one_line(said.err)
    assert path.read_text() == "mine"


def test_init_without_a_name_writes_where_the_other_commands_look(command: Command) -> None:
    assert command("init").code == 0
    assert command("init").code == 2
    assert "CONFOCAL_01" in command("check").out


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_says_that_all_is_well_and_leaves_nothing_behind(lab: Lab, on: Command) -> None:
    lab.new_run()
    before = sorted(lab.home.rglob("*"))
    said = on("check")
    assert (said.code, said.err) == (0, "")
    assert all(line.startswith("ok ") for line in said.out.splitlines())
    assert "1 run folder below" in said.out
    assert "inotify watches needed" in said.out
    assert "was written, read back and cleared" in said.out
    assert sorted(lab.home.rglob("*")) == before


def test_check_looks_through_each_instrument_once(lab: Lab, on: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.new_run()
    scan, scanned = DiskRunScanner.scan, list[str]()

    def counted(self: DiskRunScanner, equipment: EquipmentPolicy) -> tuple[SeenRun, ...]:
        scanned.append(equipment.equipment_id)
        return scan(self, equipment)

    monkeypatch.setattr(DiskRunScanner, "scan", counted)
    assert on("check").code == 0
    assert scanned == ["SCOPE_01"]


def test_check_says_all_that_is_not_well(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    shutil.rmtree(lab.nas / "SCOPE_01")
    (lab.local / "SCOPE_02").rmdir()
    said = command("check", "--config", str(lab.config))
    assert said.code == 3
    wrong = [line for line in said.out.splitlines() if line.startswith("NOT ")]
    assert len(wrong) == 2
    assert str(lab.nas / "SCOPE_01") in wrong[0]
    assert str(lab.local / "SCOPE_02") in wrong[1]


def test_check_names_a_state_folder_that_is_a_file(lab: Lab, on: Command) -> None:
    shutil.rmtree(lab.state)
    lab.state.write_text("")
    said = on("check")
    assert said.code == 1
    assert f"NOT state folder {lab.state}" in said.out


@pytest.mark.parametrize("words", [["status"], ["problems"], ["run", "--once"], ["show", "x"]], ids=" ".join)
def test_a_state_folder_that_is_a_file_is_one_clear_sentence(lab: Lab, on: Command, words: list[str]) -> None:
    shutil.rmtree(lab.state)
    lab.state.write_text("")
    said = on(*words)
    assert said.code == 1
    assert str(lab.state) in one_line(said.err)


# --- status, show, problems ------------------------------------------------------------------------------------------


def test_status_json_has_the_promised_shape(lab: Lab, on: Command) -> None:
    run, blocked = lab.new_run(), lab.new_run(files={"<id>": b""})
    assert on("run", "--once").code == 3
    said = on("status", "--json")
    assert (said.code, said.err) == (0, "")
    value = said.json
    assert value["schema"] == 1
    version = exlab_watch_agent.__version__
    assert value["agent"] == {"running": False, "pid": None, "version": version, "paused": None, "hold": None}
    assert value["counts"] == {"blocked": 1, "verified": 1}
    by_path = {one["run_path"]: one for one in value["runs"]}
    assert set(by_path) == {str(run), str(blocked)}
    for one in value["runs"]:
        assert list(one) == STATUS_KEYS
    whole = by_path[str(run)]
    assert whole | {"job_id": "", "verified_at": "", "enqueued_at": ""} == {
        "job_id": "",
        "run_path": str(run),
        "equipment_id": "SCOPE_01",
        "project": run.parent.parent.name,
        "run_kind": "experimental",
        "state": "verified",
        "sync_status": "synced",
        "attempts": 0,
        "next_attempt_at": None,
        "last_error": None,
        "verify_passes": 1,
        "verified_at": "",
        "enqueued_at": "",
        "destination": f"{run.parent.parent.name}/Runs/{run.name}",
        "files_total": 1,
        "bytes_total": 20_000,
        "bytes_done": 20_000,
        "progress": None,
    }
    assert TIME.fullmatch(whole["verified_at"])
    assert TIME.fullmatch(whole["enqueued_at"])
    refused = by_path[str(blocked)]
    assert set(refused["last_error"]) == {"kind", "message"}
    assert refused["last_error"]["kind"] == PLACEHOLDER
    assert (refused["sync_status"], refused["bytes_done"]) == ("blocked_by_validation", 0)


def test_show_json_is_such_a_run_with_its_history_and_findings(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"<id>": b"1"}, validation_overrides=[override(PLACEHOLDER)])
    assert on("run", "--once").code == 0
    said = on("show", str(run), "--json")
    assert (said.code, said.err) == (0, "")
    assert set(STATUS_KEYS) | {"history", "findings"} <= set(said.json)
    for move in said.json["history"]:
        assert list(move) == ["at", "trigger", "from", "to", "reason", "operator"]
        assert TIME.fullmatch(move["at"])
    first, *_, last = said.json["history"]
    assert (first["from"], first["to"], first["operator"]) == (None, "acquiring", None)
    assert (last["from"], last["to"], last["trigger"]) == ("sealing", "verified", "sealed")
    (finding,) = said.json["findings"]
    assert list(finding) == [
        "rule", "tier", "run_path", "offending_path", "offending_kind", "matched_token", "rule_detail",
        "synced_under_prior_policy", "override_active",
    ]  # fmt: skip
    assert (finding["rule"], finding["override_active"], finding["synced_under_prior_policy"]) == (
        PLACEHOLDER,
        True,
        False,
    )


def test_show_names_who_let_a_run_through_and_who_told_it_to_do_what(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"<id>": b"1"})
    on("run", "--once")
    words = (
        "--class",
        PLACEHOLDER,
        "--reason",
        "the sample\x1b has no id",
        "--operator",
        "asmith",
        "--expires",
        "2099-01-01",
    )
    assert on("override", "add", run.name, *words).code == 0
    on("run", "--once")
    (entry,) = on("show", run.name, "--json").json["overrides"]
    assert entry == on("override", "list", run.name, "--json").json["overrides"][0]
    assert (entry["operator"], entry["problem_class"], entry["standing"]) == ("asmith", PLACEHOLDER, "active")
    (line,) = [line for line in on("show", run.name).out.splitlines() if line.startswith("  override ")]
    assert entry["id"] in line
    assert f"{PLACEHOLDER}  by asmith at " in line
    assert ", until 2099-01-0" in line
    assert line.endswith(": the sample\\x1b has no id")
    on("override", "revoke", run.name, entry["id"], "--reason", "it has an id after all", "--operator", "bjones")
    said = [line for line in on("show", run.name).out.splitlines() if line.startswith("  override ")]
    assert [line.split()[1] for line in said] == ["revoked", "tombstone"]
    assert "by asmith" in said[0]
    assert said[1].endswith(": it has an id after all")
    assert "by bjones" in said[1]


def test_show_in_words_has_the_state_the_reason_and_each_move(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    said = on("show", run.name)
    first, *lines = said.out.splitlines()
    assert first == str(run)
    assert lines[0].startswith("  state        verified: 1 file proven equal on both sides, last at ")
    assert lines[-1].endswith("sealing -> verified: manifest and creation.json are on both sides")
    assert lines[-7].endswith("  new -> acquiring: creation.json was noticed")


def test_show_explains_a_run_that_nobody_has_taken_up_yet(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01", SENTINEL_SIGNAL))
    run = lab.new_run()
    value = command("show", str(run), "--json", "--config", str(lab.config)).json
    assert (value["job_id"], value["state"], value["history"]) == ("", None, [])
    assert value["why"] == "acquisition_complete.flag is not there yet"
    assert "acquisition_complete.flag is not there yet" in command("show", run.name, "--config", str(lab.config)).out


def test_verify_without_an_agent_says_what_came_of_it(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    said = on("verify", run.name)
    started, came = said.out.splitlines()
    assert (said.code, started) == (0, "another verify pass was started")
    assert came.startswith(f"{run}: verified: 1 file proven equal on both sides, last at ")


def test_what_only_a_scan_found_is_not_told_as_what_an_agent_did(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    (run / "late.tif").write_bytes(b"late")
    on("scan")
    assert f"the next one goes on with proving again {run}" in on("status").out
    assert "it was proving" not in on("problems").out


def test_status_in_words_counts_and_lists_what_is_where(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    said = on("status", "--all")
    verdict, quiet, first, helps, rest = said.out.split("\n", 4)
    assert (verdict, quiet) == ("nothing needs a person", "every known run is proven on the NAS")
    assert re.fullmatch(r"no agent is running: it was stopped in order at \S+", first)
    assert helps.startswith("    -> exlab-watch-agent run --config ")
    counts, read, line = rest.split("\n", 2)
    assert (said.code, counts, line) == (0, "1 verified", f"verified         {run}  (1 file, 19.5 KiB)\n")
    assert re.fullmatch(
        r"read and found right within 90 days: 19.5 KiB of 19.5 KiB, 1 of 1 synced run; every byte was read at \S+ or later",
        read,
    )


def test_problems_are_listed_worst_first_each_once_with_its_command(lab: Lab, on: Command) -> None:
    conflict, blocked = lab.new_run(), lab.new_run(files={"a<x>": b"", "b<x>": b"", "c<y>": b""})
    orphan = lab.local / "SCOPE_01" / "P" / "Runs" / "Run_2026-01-01T00-00"
    orphan.mkdir(parents=True)
    copy = lab.copy_of(conflict)
    copy.mkdir(parents=True)
    (copy / "foreign").write_text("x")
    broken = lab.new_run()
    (broken / CACHE / "creation.json").write_text("{")
    assert on("run", "--once").code == 3
    said = on("problems", "--json")
    assert (said.code, said.err) == (3, "")
    assert [(one["tier"], one["code"], one["subject"]) for one in said.problems] == [
        ("needs_you", "destination_occupied", str(conflict)),
        ("needs_you", "creation_invalid_json", str(broken)),
        ("needs_you", PLACEHOLDER, str(blocked)),
        ("notice", "orphan", str(orphan)),
    ]
    for one in said.problems:
        assert list(one)[:10] == [
            *("id", "code", "tier", "severity", "equipment_id", "runs", "sentence", "since", "command", "dismissed")
        ]
        assert (one["equipment_id"], one["runs"]) == ("SCOPE_01", [one["subject"]])
        assert one["sentence"]
        assert one["command"]
    text = on("problems")
    assert text.code == 3
    assert text.out.count("\n    -> ") == 5, "these, and that the agent was stopped"
    assert text.out.count(str(blocked)) >= 1


def test_the_command_that_problems_names_can_be_pasted_into_a_shell(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path / 'it\'s "here" $HOME')
    run = lab.new_run(files={"<id>": b"1"})
    assert lab.cli("run", "--once").code == 3
    (problem, _) = command("problems", "--json", "--config", str(lab.config)).json["problems"]
    pasted = problem["command"].replace("exlab-watch-agent", f"'{sys.executable}' -m exlab_watch_agent", 1)
    done = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "--reason must say why, in 10 to 500 characters.\n"), (
        "only that is left"
    )
    said = pasted.replace('"..."', '"the name may stay"')
    done = subprocess.run(["sh", "-c", said], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_creation(run)["validation_overrides"][0]["problem_class"] == PLACEHOLDER
    assert command("run", "--once", "--config", str(lab.config)).code == 0


# --- which run is meant ----------------------------------------------------------------------------------------------


def test_a_run_is_named_by_its_path_its_leaf_or_its_job(lab: Lab, on: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.new_run()
    on("run", "--once")
    job_id = on("show", str(run), "--json").json["job_id"]
    monkeypatch.chdir(run.parent)
    for word in (run.name, job_id, f"{run}/", f"./{run.name}", f"../Runs/{run.name}"):
        assert on("show", word, "--json").json["job_id"] == job_id, word


@pytest.mark.parametrize("words", [["show"], ["sync"], ["verify"], ["retry"], ["override", "list"]], ids=" ".join)
def test_an_unknown_run_is_one_sentence_with_the_next_step(lab: Lab, on: Command, words: list[str]) -> None:
    lab.new_run()
    for word in ("Run_1999-01-01T00-00", "", "\x1b[31m", "a\nb", "/etc", str(lab.local)):
        said = on(*words, word)
        assert (said.code, said.out) == (1, ""), word
        assert "\x1b" not in one_line(said.err)


def test_the_beginning_of_a_name_or_a_job_will_do_where_it_is_the_only_one(lab: Lab, on: Command) -> None:
    runs = [lab.new_run(f"Run_2026-{month:02d}-01T00-00") for month in range(1, 8)]
    shorter = lab.new_run("Run_2026-08-01T00-0")
    longer = lab.new_run("Run_2026-08-01T00-00")
    on("run", "--once")
    unknown = lab.new_run("Run_2026-09-01T00-00")
    job_id = on("show", str(runs[0]), "--json").json["job_id"]
    for word, run in (
        ("Run_2026-01", runs[0]),
        (job_id[:8], runs[0]),
        (job_id[:-1], runs[0]),
        (shorter.name, shorter),
        (longer.name, longer),
        ("Run_2026-09", unknown),
    ):
        assert on("show", word, "--json").json["run_path"] == str(run), word
    said = on("show", "Run_2026")
    assert (said.code, said.out) == (1, "")
    assert one_line(said.err) == (
        f"Run_2026 may be any of 10 runs; give the path of one: {', '.join(map(str, runs[:5]))} and 5 more"
    )
    assert "No run is called" in one_line(on("show", job_id[:7]).err)
    assert "No run is called" in one_line(on("show", "run_2026-01").err)


def test_a_leaf_name_that_several_runs_have_must_be_a_path(lab: Lab, on: Command) -> None:
    first, second = (lab.new_run("Run_2026-01-01T00-00", project=name) for name in ("A", "B"))
    on("run", "--once")
    said = on("show", first.name)
    assert said.code == 1
    assert f"may be any of 2 runs; give the path of one: {first}, {second}" in one_line(said.err)
    assert on("show", str(second)).code == 0


@pytest.mark.parametrize("project", ["a b", "it's", '"q"', "-rf", "--json", "プロジェクト", "$(reboot)", "%s {0}"])
def test_names_with_spaces_quotes_dashes_and_other_scripts_work(lab: Lab, on: Command, project: str) -> None:
    overrides = [override("illegal_filesystem_character")] if '"' in project else []
    run = lab.new_run(files={"-x": b"1", "a b'c": b"2"}, project=project, validation_overrides=overrides)
    assert on("sync", str(run)).code == 0
    lab.assert_whole(run)
    assert on("show", run.name, "--json").json["project"] == project
    assert f"verified         {run}" in on("status", "--all").out


def test_a_name_that_is_not_unicode_is_shown_and_never_breaks_the_output(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={})
    os.close(os.open(os.fsencode(run) + b"/bad\xff.bin", os.O_CREAT | os.O_WRONLY))
    assert on("run", "--once").code == 3
    for words in (["status"], ["show", run.name], ["problems"], ["status", "--json"], ["show", run.name, "--json"]):
        said = on(*words)
        said.out.encode("utf-8")
        assert said.err == ""
    assert on("problems", "--json").problems[0]["code"] == "illegal_filesystem_character"


# --- doing -----------------------------------------------------------------------------------------------------------


def test_run_once_brings_all_to_rest_and_says_what_is_where(lab: Lab, on: Command) -> None:
    said = on("run", "--once")
    assert (said.code, said.out) == (0, "no runs were found\n")
    run = lab.new_run()
    said = on("run", "--once")
    assert (said.code, said.out) == (0, "1 verified\n")
    assert said.err.splitlines()[0] == f"SCOPE_01 {run.name}: new -> acquiring (creation.json was noticed)"
    assert said.err.splitlines()[-1].startswith(f"SCOPE_01 {run.name}: sealing -> verified (")
    assert on("run", "--once", "--quiet") == Said(0, "1 verified\n", "")
    assert stat.S_IMODE(lab.state.stat().st_mode) == 0o700


def test_run_once_leaves_a_heartbeat_that_knows_how_it_ended(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    beat = json.loads((lab.state / "heartbeat.json").read_text())
    assert beat["counts"] == {"verified": 1}
    assert beat["oldest_unsynced"] is None
    assert beat["lanes"]["SCOPE_01"]["last_success_at"]
    (on_nas,) = (lab.nas / "SCOPE_01" / ".exlab-watch-agent").iterdir()
    assert json.loads(on_nas.read_text())["counts"] == {"verified": 1}
    on("run", "--once")
    beat = json.loads((lab.state / "heartbeat.json").read_text())
    assert beat["lanes"]["SCOPE_01"]["last_success_at"], "also after a start without news"
    lab.assert_whole(run)


def test_sync_says_in_one_sentence_why_a_run_is_not_synced(tmp_path: Path, command: Command) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01", SENTINEL_SIGNAL))
    on: Command = lambda *words: command(*words, "--config", str(lab.config))  # noqa: E731
    run = lab.new_run()
    said = on("sync", str(run))
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == f"{run}: acquiring: acquisition_complete.flag is not there yet"
    broken = lab.new_run()
    (broken / CACHE / "creation.json").write_text('{"schema_version": "3.0"}')
    said = on("sync", str(broken))
    assert said.code == 1
    assert "3.0" in said.err
    blocked = lab.new_run(files={"<id>": b"", "acquisition_complete.flag": b""})
    said = on("sync", str(blocked))
    assert said.code == 1
    assert "<id>" in said.err.splitlines()[-1]
    orphan = blocked.with_name("Run_2026-12-12T00-00")
    orphan.mkdir()
    said = on("sync", str(orphan))
    assert said.code == 1
    assert "creation.json" in said.err


def test_sync_touches_no_other_run(lab: Lab, on: Command) -> None:
    run, other = lab.new_run(), lab.new_run()
    said = on("sync", run.name)
    assert (said.code, said.out) == (0, f"{run}: verified, 1 file, 20000 bytes\n")
    assert lab.record(other)["state"] is None
    assert not lab.copy_of(other).exists()
    assert on("status", "--json").json["counts"] == {"verified": 1}


def test_verify_counts_one_more_pass_and_refuses_what_is_not_sealed(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    said = on("verify", str(run))
    assert said.code == 1
    assert f"sync {run}" in one_line(said.err).replace("'", "")
    on("run", "--once")
    assert on("verify", run.name).code == 0
    assert lab.states(run)[-2:] == ["auditing", "verified"]


def test_retry_puts_a_failed_run_back_with_its_attempts_counted_anew(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    lab.settings["agent"]["retry_schedule"] = ["1s"]
    lab.save_config()
    obstacle = lab.copy_of(run).parent
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder must be")
    assert on("run", "--once").code == 3
    assert lab.record(run)["state"] == "failed"
    assert read_creation(run)["sync_status"] == "failed"
    (problem,) = on("problems", "--json").problems
    assert problem["command"].startswith("exlab-watch-agent retry ")
    assert on("retry", run.name).code == 1
    obstacle.unlink()
    said = on("retry", "--all")
    assert said.code == 0
    assert "1 failed run put back into the queue" in said.out
    lab.assert_whole(run)
    assert lab.record(run)["attempts"] == 0
    assert on("retry", "--all") == Said(0, "no run has failed, and none waits for its next attempt\n", "")
    said = on("retry", run.name)
    assert said.code == 1
    assert "only a failed or queued one can be tried again" in said.err


def test_retry_of_several_runs_tries_each_and_a_mistyped_name_stops_all_before(lab: Lab, on: Command) -> None:
    verified, failed = lab.new_run(), lab.new_run()
    lab.settings["agent"]["retry_schedule"] = ["1s"]
    lab.save_config()
    on("sync", verified.name)
    obstacle = lab.copy_of(failed)
    obstacle.write_text("a file where a folder must be")
    assert on("run", "--once").code == 3
    obstacle.unlink()
    said = on("retry", failed.name, "Run_mistyped")
    assert (said.code, one_line(said.err).partition(":")[0]) == (1, "No run is called Run_mistyped")
    assert lab.record(failed)["state"] == "failed"
    said = on("retry", verified.name, failed.name)
    assert said.code == 1
    assert "The run is verified, and only a failed or queued one can be tried again." in said.err
    assert lab.record(failed)["state"] == "verified"


def test_who_gave_a_command_is_the_system_s_account_and_never_only_a_name_that_was_claimed(
    lab: Lab, on: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.new_run()
    on("run", "--once", "--quiet")
    monkeypatch.setenv("LOGNAME", "prof.x")
    assert on("verify", str(run)).code == 0
    account = f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"
    (line,) = [fact for fact in lab.trail() if fact["kind"] == "operator_command"]
    assert line["operator"] == f"{account}, as 'prof.x'"
    assert (line["data"]["uid"], line["data"]["login"], line["data"]["claimed"]) == (
        os.getuid(), pwd.getpwuid(os.getuid()).pw_name, "prof.x"
    )  # fmt: skip
    assert f"verified -> auditing by {account}, as 'prof.x': an operator asked for it\n" in on("show", str(run)).out
    history = on("show", str(run), "--json").json["history"]
    assert f"{account}, as 'prof.x'" in [move["operator"] for move in history]


# --- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_are_added_listed_and_revoked_and_nothing_else_is_changed(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"<id>": b"1"})
    before = read_creation(run)
    assert on("override", "list", run.name) == Said(0, "no overrides\n", "")
    said = on("override", "add", run.name, "--class", PLACEHOLDER, "--reason", 'it\'s "fine"', "--expires", "30d")
    assert (said.code, said.err) == (0, "")
    (entry,) = read_creation(run)["validation_overrides"]
    assert one_line(said.out) == f"override {entry['id']} was added to {run}; nothing blocks it any more"
    assert set(entry) == {"id", "problem_class", "operator", "recorded_at", "expires_at", "reason", "revoked"}
    assert TIME.fullmatch(entry["expires_at"])
    assert read_creation(run) | {"validation_overrides": []} == before
    assert on("run", "--once").code == 0

    said = on("override", "revoke", run.name, entry["id"], "--reason", "it was a mistake", "--operator", "bjones")
    assert (said.code, said.out) == (0, f"override {entry['id']} of {run} is revoked\n")
    kept, grave = read_creation(run)["validation_overrides"]
    assert kept == entry
    assert set(grave) == {"id", "revokes", "operator", "recorded_at", "reason", "revoked"}
    assert (grave["revokes"], grave["operator"], grave["revoked"]) == (entry["id"], "bjones", True)
    listed = on("override", "list", run.name, "--json").json["overrides"]
    assert [one["standing"] for one in listed] == ["revoked", "tombstone"]
    again = on("override", "revoke", run.name, entry["id"], "--reason", "the name may stay")
    assert (again.code, one_line(again.err)) == (1, f"The override {entry['id']} is revoked already.")


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (
            ["--class", "nonsense", "--reason", "the name may stay"],
            2,
            f"not a rule that blocks a run; those that {{run}} breaks: {PLACEHOLDER}",
        ),
        (
            ["--class", "case_collision", "--reason", "the name may stay"],
            1,
            f"so nothing was added; those that {{run}} breaks: {PLACEHOLDER}.",
        ),
        (["--class", "orphan", "--reason", "the name may stay"], 2, "not a rule that blocks a run"),
        (["--class", PLACEHOLDER, "--reason", "  "], 2, "--reason must say why, in 10 to 500 characters"),
        (["--class", PLACEHOLDER, "--reason", "too short"], 2, "--reason must say why, in 10 to 500 characters"),
        (["--class", PLACEHOLDER, "--reason", "the name may stay", "--operator", ""], 2, "--operator must name"),
        (["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "soon"], 2, "--expires takes a day"),
        (
            ["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "2020-01-01T00:00:00Z"],
            2,
            "lies in the past",
        ),
        (["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "2020-01-01"], 2, "lies in the past"),
        (
            ["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "2026-02-30"],
            2,
            "--expires takes a day",
        ),
        (
            ["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "9999-12-31"],
            2,
            "--expires takes a day",
        ),
        (["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "0d"], 2, "lies in the past or is now"),
        (["--class", PLACEHOLDER, "--reason", "the name may stay", "--expires", "99999d"], 0, ""),
    ],
)
def test_an_override_that_makes_no_sense_is_refused_and_nothing_is_written(
    lab: Lab, on: Command, words: list[str], code: int, part: str
) -> None:
    run = lab.new_run(files={"<id>": b"1"})
    before = (run / CACHE / "creation.json").read_bytes()
    said = on("override", "add", run.name, *words)
    assert said.code == code
    if code:
        assert part.format(run=run) in one_line(said.err)
        assert (run / CACHE / "creation.json").read_bytes() == before


def test_an_override_of_a_run_whose_creation_json_is_bad_is_refused_and_the_file_is_left(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    (run / CACHE / "creation.json").write_text('{"schema_version": "1.8"')
    for words in (
        ["add", run.name, "--class", PLACEHOLDER, "--reason", "the name may stay"],
        ["list", run.name],
        ["revoke", run.name, "x", "--reason", "the name may stay"],
    ):
        said = on("override", *words)
        assert (said.code, said.out) == (1, "")
        assert "line 1, column" in one_line(said.err)
    assert (run / CACHE / "creation.json").read_text() == '{"schema_version": "1.8"'
    assert on("override", "revoke", lab.new_run().name, "no-such-id", "--reason", "the name may stay").code == 1


def test_a_revoked_override_on_a_synced_run_is_a_notice_and_does_not_unsync_it(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"<id>": b"1"}, validation_overrides=[override(PLACEHOLDER)])
    assert on("run", "--once").code == 0
    save_in_place(run, read_creation(run) | {"validation_overrides": []})
    assert on("run", "--once").code == 0
    assert lab.record(run)["state"] == "verified"
    assert read_creation(run)["sync_status"] == "synced"
    (finding,) = on("show", run.name, "--json").json["findings"]
    assert (finding["synced_under_prior_policy"], finding["override_active"]) == (True, False)


# --- the demo, and the process itself --------------------------------------------------------------------------------


def test_the_demo_tells_its_story_with_exit_code_0_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    said = command("demo")
    assert (said.code, said.err) == (0, "")
    for chapter in ("1. A clean run", "2. A run that breaks the path rules", "3. A copy that is not whole", "equal"):
        assert chapter in said.out
    assert "DIFFERENT" not in said.out
    home = re.search(r"instrument  (.*)/instrument-pc", said.out)
    assert home is not None
    assert not Path(home[1]).exists()
    assert command("demo", "--keep", str(tmp_path)).code == 2


def test_output_that_nobody_reads_any_more_is_no_defect(lab: Lab, on: Command) -> None:
    for _ in range(3):
        lab.new_run()
    on("run", "--once")
    for words in (["status"], ["status", "--json"], ["show", "Run_2026-04-17T00-01"]):
        with subprocess.Popen(
            [sys.executable, *lab.argv(*words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert "Traceback" not in process.stderr.read()


def test_the_package_can_be_run_as_a_module_and_as_a_command() -> None:
    version = f"{exlab_watch_agent.__version__}\n"
    script = Path(sys.executable).with_name("exlab-watch-agent")
    for argv in ([sys.executable, "-m", "exlab_watch_agent"], [str(script)]):
        assert subprocess.run([*argv, "--version"], capture_output=True, text=True, check=True).stdout == version
