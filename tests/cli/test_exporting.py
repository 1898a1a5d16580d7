"""`audit export`: a run or a period in every form, in a new place, with the script by which anybody checks the trail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bagit
import pytest
from rocrate.rocrate import ROCrate

from exlab_watch_agent.cli.exporting import FOLDERS, FORMATS
from exlab_watch_agent.cli.saying import write_new_folder
from exlab_watch_agent.errors import AgentError
from tests.lab.lab import Lab, Said
from tests.report.reports import SCRIPT, Seen

Command = Callable[..., Said]


def test_a_run_s_chain_of_custody_is_written_once_in_both_forms(lab: Lab, on: Command, tmp_path: Path) -> None:
    run = lab.new_run()
    on("run", "--once")
    said = on("audit", "export", "--run", run.name, "--format", "json").json
    assert [one["path"] for one in said["files"]] == sorted(one["path"] for one in said["files"])
    assert said["chain"]["is_whole"]
    assert said["run"]["verify_passes"] == 1
    assert {row["kind"] for row in said["trail"]} == {"transition"}
    report = tmp_path / "custody.html"
    assert on("audit", "export", "--run", run.name, "-o", str(report)).code == 0
    page = report.read_text(encoding="utf-8")
    assert f"The way of {run.name}" in page
    assert "proven equal on both sides in 1 pass" in page
    again = on("audit", "export", "--run", run.name, "-o", str(report))
    assert again.code == 1
    assert "exists and is not overwritten" in again.err


def test_a_period_is_told_of_one_instrument_and_of_all(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    on("verify", run.name)
    said = on("audit", "export", "--format", "json").json
    assert said["period"] == {"equipment_id": None, "since": None, "until": None}
    assert (said["total"]["runs_found"], said["total"]["runs_sealed"], said["total"]["commands"]) == (1, 1, 1)
    assert said["total"]["bytes_sealed"] == sum(file.stat().st_size for file in run.glob("*.tif"))
    assert (said["coverage"]["proven"], said["chain"]["is_whole"], said["chain"]["known_outside"]) == (1, True, 2)
    assert said["trail"]["lines"] == len(lab.trail())
    of_one = on(
        "audit", "export", "--equipment", "SCOPE_01", "--since", "1h", "--until", "2030-01-01", "--format", "json"
    )
    assert of_one.json["period"]["equipment_id"] == "SCOPE_01"
    assert of_one.json["total"]["passes"] == said["total"]["passes"] >= 1
    earlier = on("audit", "export", "--until", "2020-01-01", "--format", "json").json
    assert (earlier["total"]["runs_found"], earlier["coverage"]["runs"]) == (0, 0)
    page = Seen(on("audit", "export", "--equipment", "SCOPE_01").out).text
    assert "1 run came, 1 was proven for the first time." in page


def test_a_trail_that_was_changed_shows_in_the_period_s_summary(lab: Lab, on: Command) -> None:
    lab.new_run()
    on("run", "--once")
    trail = lab.state / "audit.jsonl"
    lines = trail.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"SCOPE", b"SKOPE")
    trail.write_bytes(b"\n".join(lines))
    said = on("audit", "export", "--format", "json").json
    assert not said["chain"]["is_whole"]
    assert said["chain"]["against"] == ["line 4 in audit.jsonl was changed or cannot be read"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_is_written_into_a_new_place_and_never_over_another(
    lab: Lab, on: Command, tmp_path: Path, form: str
) -> None:
    run = lab.new_run()
    on("run", "--once")
    target = tmp_path / "export"
    words = ("audit", "export", "--run", run.name, "--format", form)
    done = on(*words, "-o", str(target))
    assert (done.code, done.out, done.err) == (0, "", f"{target} was written\n")
    assert target.is_dir() == (form in FOLDERS)
    before = {path: path.read_bytes() for path in (target, *target.rglob("*")) if path.is_file()}
    again = on(*words, "-o", str(target))
    assert (again.code, again.err) == (1, f"{target} exists and is not overwritten: give another -o.\n")
    assert {path: path.read_bytes() for path in (target, *target.rglob("*")) if path.is_file()} == before
    nowhere = on(*words, "-o", str(tmp_path / "no" / "folder"))
    assert (nowhere.code, nowhere.err.count("\n")) == (1, 1)
    assert "cannot be written: No such file or directory." in nowhere.err


def test_a_bag_and_a_crate_carry_the_reports_the_trail_s_lines_and_the_script(
    lab: Lab, on: Command, tmp_path: Path
) -> None:
    run = lab.new_run()
    on("run", "--once")
    for form in FOLDERS:
        on("audit", "export", "--run", run.name, "--format", form, "-o", str(tmp_path / form))
    lines = (lab.state / "audit.jsonl").read_bytes().splitlines()
    for evidence in (tmp_path / "bagit" / "custody", tmp_path / "rocrate"):
        assert (evidence / "verify_trail.py").read_text(encoding="utf-8") == SCRIPT
        written = (evidence / "trail.jsonl").read_bytes().splitlines()
        assert len(written) == len(lab.facts(run))
        assert set(written) <= set(lines)
        assert json.loads((evidence / "report.json").read_text())["run"]["run_path"] == str(run)
        assert f"The way of {run.name}" in (evidence / "report.html").read_text(encoding="utf-8")
    for file in lab.copy_of(run).glob("*.tif"):
        (tmp_path / "bagit" / "data" / file.name).write_bytes(file.read_bytes())
    assert bagit.Bag(str(tmp_path / "bagit")).validate(), "the copy on the NAS is what was sealed"
    assert ROCrate(str(tmp_path / "rocrate")).root_dataset["identifier"] == lab.record(run)["job_id"]


def test_the_script_in_an_export_checks_a_copy_of_the_state_folder(lab: Lab, on: Command, tmp_path: Path) -> None:
    lab.new_run()
    on("run", "--once")
    said = on("audit", "export", "--format", "json").json
    script = tmp_path / said["verify_script"]["name"]
    script.write_text(said["verify_script"]["text"], encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), str(lab.state)], capture_output=True, text=True, check=True)
    assert f"the last is line {said['chain']['last_seq']}, its BLAKE3 {said['chain']['last_blake3']}" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--run", "nobody"), "No run is called nobody"),
        (("--equipment", "NOBODY_01"), "No instrument is called NOBODY_01: those that are known are SCOPE_01."),
        (("--run", "x", "--since", "1d"), "Give --run, or --equipment, --since and --until, not both."),
        (("--format", "pdf"), "--format takes html, json, premis, prov, bagit, rocrate."),
        (("--format", "bagit"), "--format bagit is for one run: give --run, or take html or json."),
        (("--run", "x", "--format", "rocrate"), "--format rocrate makes a folder: name a new one with -o."),
        (("--since", "1d", "--until", "2d"), "--until must be later than --since."),
        (("--since", "yesterday"), "--since takes a day"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(lab: Lab, on: Command, words: tuple[str, ...], said: str) -> None:
    lab.new_run()
    on("run", "--once")
    found = on("audit", "export", *words)
    assert found.code in (1, 2)
    assert said in found.err
    assert (found.out, found.err.count("\n")) == ("", 1)


def test_a_place_that_is_taken_is_said_before_anything_is_read(lab: Lab, on: Command, tmp_path: Path) -> None:
    lab.new_run()
    on("run", "--once")
    (tmp_path / "taken").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path, tmp_path / "taken"):
        said = on("audit", "export", "--run", "nobody", "-o", str(place))
        assert (said.code, said.err) == (1, f"{place} exists and is not overwritten: give another -o.\n")


def test_a_run_that_is_not_sealed_has_all_forms_but_the_bag(lab: Lab, on: Command, tmp_path: Path) -> None:
    run = lab.new_run(files={"scan_<sample_id>.dat": b"x"})
    on("run", "--once")
    assert lab.record(run)["state"] == "blocked"
    for form in FORMATS:
        done = on("audit", "export", "--run", run.name, "--format", form, "-o", str(tmp_path / form))
        assert done.code == (1 if form == "bagit" else 0), done.err
    assert not (tmp_path / "bagit").exists()


def test_a_folder_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:

    with pytest.raises(AgentError, match="cannot be written"):
        write_new_folder(tmp_path / "new", {"data/": b"", "a/b": b"1", "a/b/c": b"2"}, taken="")
    assert not list(tmp_path.iterdir())
