"""Thirty things that go wrong, each told in every way of asking: by `run --once`, of a running or hanging agent, and without one.

What is asked of each: the same code everywhere, a sentence that names the matter, the exit code of its tier, and that the agent's
own standing is told beside it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import (
    CACHE,
    MANIFEST_SIGNAL,
    PROJECT,
    AgentProcess,
    Equipment,
    Lab,
    Said,
    override,
    put,
    read_creation,
    save_in_place,
    until,
)

Command = Callable[..., Said]
EXIT_CODES = {"notice": 0, "needs_you": 3, "risk": 4}
SCOPE = "SCOPE_01"


@dataclass(frozen=True)
class Trouble:
    """`make` brings it about in a lab whose one run is proven; `word`: what its sentence must say.

    `as_user`: root would not notice. `settings`: of the instrument.
    """

    code: str
    make: Callable[[Lab], object]
    word: str = ""
    tier: str = "needs_you"
    as_user: bool = False
    settings: dict[str, str] = field(default_factory=dict)


def nas(lab: Lab) -> Path:
    return lab.nas / SCOPE


def instrument(lab: Lab) -> Path:
    return lab.local / SCOPE


def proven(lab: Lab) -> Path:
    """Return the run that was proven before."""
    (run,) = (
        path for path in (instrument(lab) / PROJECT / "Runs").iterdir() if (path / CACHE / "checksums.sha256").exists()
    )
    return run


# --- the destination -------------------------------------------------------------------------------------------------


def nas_is_missing(lab: Lab) -> None:
    lab.new_run()
    nas(lab).rename(lab.nas / "away")


def nas_is_an_empty_folder(lab: Lab) -> None:
    nas_is_missing(lab)
    nas(lab).mkdir()


def nas_is_a_file(lab: Lab) -> None:
    nas_is_missing(lab)
    nas(lab).write_bytes(b"")


def marker_is_gone(lab: Lab) -> None:
    (nas(lab) / ".exlab-watch-agent.json").unlink()


def marker_is_of_another(lab: Lab) -> None:
    marker = nas(lab) / ".exlab-watch-agent.json"
    said = json.loads(marker.read_text())
    old = str(said["id"])
    marker.write_text(marker.read_text().replace(old, "0" * len(old)))


def marker_is_damaged(lab: Lab) -> None:
    (nas(lab) / ".exlab-watch-agent.json").write_bytes(b"{")


def nas_may_not_be_written(lab: Lab) -> None:
    lab.new_run()
    nas(lab).chmod(0o555)


def nas_is_full(lab: Lab) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(nas(lab))], check=True)
    shutil.copytree(lab.nas / "kept", nas(lab), dirs_exist_ok=True)
    lab.new_run(files={"big.bin": b"x" * 4_000_000})


def nas_is_the_instrument_s_folder(lab: Lab) -> None:
    shutil.copy2(nas(lab) / ".exlab-watch-agent.json", instrument(lab))
    nas(lab).rename(lab.nas / "away")
    nas(lab).mkdir()
    subprocess.run(["mount", "--bind", str(instrument(lab)), str(nas(lab))], check=True)
    lab.new_run()


def goes_to(lab: Lab, place: dict[str, Any]) -> None:
    lab.settings["equipment"][0]["transport"] = place
    lab.save_config()
    lab.new_run()


def nothing_listens_at_the_ssh_port(lab: Lab) -> None:
    key = lab.home / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    ssh = {"ssh_target": "lab@127.0.0.1", "ssh_port": 9, "ssh_key_path": str(key), "remote_path": "/srv/runs"}
    goes_to(lab, {"type": "rsync_ssh", **ssh})


def the_remote_is_not_in_rclone_s_config(lab: Lab) -> None:
    goes_to(lab, {"type": "rclone", "rclone_remote": "no-such-remote", "rclone_remote_path": "runs"})


# --- the instrument's folder -----------------------------------------------------------------------------------------


def instrument_s_folder_is_missing(lab: Lab) -> None:
    instrument(lab).rename(lab.home / "away")


def instrument_s_folder_is_empty(lab: Lab) -> None:
    instrument_s_folder_is_missing(lab)
    instrument(lab).mkdir()


def instrument_is_not_in_the_config(lab: Lab) -> None:
    lab.settings["equipment"][0]["id"] = "SCOPE_02"
    (lab.local / "SCOPE_02").mkdir()
    lab.save_config()


# --- a folder that is no usable run ----------------------------------------------------------------------------------


def saved(text: str | bytes) -> Callable[[Lab], None]:
    def make(lab: Lab) -> None:
        path = lab.new_run() / CACHE / "creation.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def creation_may_not_be_read(lab: Lab) -> None:
    (lab.new_run() / CACHE / "creation.json").chmod(0)


def a_data_file_may_not_be_read(lab: Lab) -> None:
    (lab.new_run() / "image.tif").chmod(0)


def a_folder_may_not_be_listed(lab: Lab) -> None:
    run = lab.new_run(files={"raw/a.bin": b"a"})
    (run / "raw").chmod(0)


def a_run_lies_too_deep(lab: Lab) -> None:
    lab.new_run(parent="Runs/2026")


def a_folder_looks_like_a_run(lab: Lab) -> None:
    put(instrument(lab) / PROJECT / "Runs" / "Run_2026-04-17T23-59", {"a.bin": b"a"})


# --- a run -----------------------------------------------------------------------------------------------------------


def named(name: str) -> Callable[[Lab], object]:
    return lambda lab: lab.new_run(files={name: b"data"})


def a_link_in_the_run(lab: Lab) -> None:
    run = lab.new_run(files={"a.bin": b"a"})
    (run / "link").symlink_to("a.bin")
    lab.write_creation(run)


def another_run_s_data_are_there(lab: Lab) -> None:
    run = lab.new_run(files={"image.tif": b"ours"})
    put(lab.copy_of(run), {"image.tif": b"theirs"})


def what_was_proven_changed(lab: Lab) -> None:
    (proven(lab) / "image.tif").write_bytes(b"another")
    lab.cli("verify", str(proven(lab)))


def what_was_proven_is_partly_gone(lab: Lab) -> None:
    run = proven(lab)
    (run / "image.tif").unlink()
    lab.cli("verify", str(run))


def the_only_copy_is_gone(lab: Lab) -> None:
    run = proven(lab)
    shutil.rmtree(lab.copy_of(run))
    shutil.rmtree(run)


def listing(image: bytes) -> bytes:
    """Return the instrument's own manifest of a run with this one image."""
    one = {"path": "image.tif", "size": 4, "sha256": hashlib.sha256(image).hexdigest()}
    return json.dumps({"files": [one]}).encode()


def the_instrument_s_hashes_are_others(lab: Lab) -> None:
    lab.new_run(files={"image.tif": b"data", "manifest.json": listing(b"other")})


def an_override(**members: Any) -> Callable[[Lab], None]:
    def make(lab: Lab) -> None:
        run = lab.new_run(files={"scan_<id>.dat": b"data"})
        rule = {"unresolved_placeholder_token", "illegal_filesystem_character"}
        entries = [override(name) | members for name in sorted(rule)]
        save_in_place(run, read_creation(run) | {"validation_overrides": entries})

    return make


def soon() -> str:
    return (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")


TROUBLES = [
    Trouble("nas_unreachable", nas_is_missing, "may not be mounted"),
    Trouble("nas_unreachable", nas_is_an_empty_folder, "marker"),
    Trouble("nas_unreachable", nas_is_a_file, str(SCOPE)),
    Trouble("marker_gone", marker_is_gone, "marker"),
    Trouble("nas_unreachable", marker_is_of_another, "another destination"),
    Trouble("nas_unreachable", marker_is_damaged, "damaged"),
    Trouble("nas_unreachable", nas_may_not_be_written, "", as_user=True),
    Trouble("destination_full", nas_is_full, "room"),
    Trouble("destination_is_source", nas_is_the_instrument_s_folder, "own folder"),
    Trouble("nas_unreachable", nothing_listens_at_the_ssh_port, "127.0.0.1"),
    Trouble("nas_unreachable", the_remote_is_not_in_rclone_s_config, "rclone config"),
    Trouble("root_unavailable", instrument_s_folder_is_missing, str(SCOPE)),
    Trouble("root_unavailable", instrument_s_folder_is_empty, "empty"),
    Trouble("equipment_unknown", instrument_is_not_in_the_config, str(SCOPE)),
    Trouble("creation_invalid_json", saved("{"), "JSON"),
    Trouble("creation_invalid_content", saved("[]"), "creation.json"),
    Trouble("schema_major_mismatch", saved('{"schema_version": "9.0", "level": "run"}'), "9"),
    Trouble("unexpected_level", saved('{"schema_version": "1.8", "level": "project"}'), "project"),
    Trouble("creation_unreadable", creation_may_not_be_read, "creation.json", as_user=True),
    Trouble("attempt_failed", a_data_file_may_not_be_read, "image.tif", as_user=True),
    Trouble("unreadable", a_folder_may_not_be_listed, "raw", as_user=True),
    Trouble("misplaced_creation", a_run_lies_too_deep, "2026"),
    Trouble("orphan", a_folder_looks_like_a_run, "creation.json", tier="notice"),
    Trouble("unresolved_placeholder_token", named("scan_<id>.dat"), "<id>"),
    Trouble("leftover_jinja_marker", named("{{ label }}.dat"), "label"),
    Trouble("reserved_filesystem_name", named("con.txt"), "con.txt"),
    Trouble("symlink_in_run", a_link_in_the_run, "link"),
    Trouble("manifest_hash_mismatch", the_instrument_s_hashes_are_others, "image.tif", settings=MANIFEST_SIGNAL),
    Trouble("override_expiring", an_override(expires_at=soon()), "expires"),
    Trouble("override_unknown_class", an_override(problem_class="no_such_class"), "no_such_class"),
    Trouble("override_malformed", an_override(expires_at="tomorrow"), "tomorrow"),
    Trouble("destination_occupied", another_run_s_data_are_there, "not known to be this run's"),
    Trouble("local_changed_after_sync", what_was_proven_changed, "changed"),
    Trouble("local_files_missing", what_was_proven_is_partly_gone, "gone"),
    Trouble("only_copy_lost", the_only_copy_is_gone, "", tier="risk"),
]


@pytest.fixture(params=TROUBLES, ids=lambda trouble: trouble.make.__name__ + "-" + trouble.code)
def trouble(request: pytest.FixtureRequest) -> Trouble:
    found: Trouble = request.param
    return found


@pytest.fixture
def lab(tmp_path: Path, trouble: Trouble, command: Command) -> Iterator[Lab]:
    """A lab with one proven run, in which the trouble has begun since."""
    signal = trouble.settings or {"completeness_signal": "creation_json"}
    lab = Lab(tmp_path, Equipment(SCOPE, signal=signal), is_quick=True, retry_schedule=["1s"] * 60)
    files = {"image.tif": b"1st!"}
    if trouble.settings:
        files["manifest.json"] = listing(files["image.tif"])
    lab.new_run(files=files)
    assert command("run", "--once", "--quiet", "--config", str(lab.config)) == Said(0, "1 verified\n", "")
    shutil.copytree(nas(lab), lab.nas / "kept")
    try:
        trouble.make(lab)
        yield lab
    finally:
        for path in (nas(lab), instrument(lab)):
            subprocess.run(["umount", "--lazy", str(path)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["chmod", "-R", "u+rwX", str(tmp_path)], check=True)


def told(said: Said, code: str) -> dict[str, Any] | None:
    return next((one for one in said.json["problems"] if one["code"] == code), None)


def test_it_is_told_in_every_way_of_asking(trouble: Trouble, lab: Lab, on: Command) -> None:
    def ask(*words: str) -> Said:
        return lab.cli(*words, as_user=True) if trouble.as_user else on(*words)

    def is_told(standing: str = "") -> dict[str, Any]:
        said = ask("problems", "--json")
        found = told(said, trouble.code)
        assert found is not None, said.out
        assert found["tier"] == trouble.tier
        assert trouble.word in found["sentence"]
        assert found["command"].startswith("exlab-watch-agent ")
        if standing:
            assert told(said, standing) is not None
            assert standing != "agent_hanging" or said.json["problems"][0]["code"] == standing
        assert said.code == max(EXIT_CODES[one["tier"]] for one in said.json["problems"])
        return found

    once = ask("run", "--once", "--quiet")
    assert once.code == EXIT_CODES[trouble.tier], once
    is_told()
    if trouble.tier != "notice":
        assert trouble.word in once.err
        assert " -> exlab-watch-agent " in once.err

    with AgentProcess(lab, as_user=trouble.as_user) as agent:
        agent.until_up()
        # Until it has asked, it says that it has not asked yet, whatever was known of the destination before.
        until(lambda: told(ask("problems", "--json"), trouble.code) and lab.live()["lanes"], f"{trouble.code} is told")
        if trouble.tier != "notice":
            until(lambda: ask("status").out.splitlines()[0] != "nothing needs a person", "status tells it")
        is_told()
        agent.process.send_signal(signal.SIGSTOP)
        _let_two_minutes_pass(lab)
        is_told("agent_hanging")
        agent.process.send_signal(signal.SIGKILL)
        agent.process.wait()
        is_told("agent_gone")


def _let_two_minutes_pass(lab: Lab) -> None:
    """Have the holder's file say what it would say by then; nobody waits two minutes in a test."""
    path = lab.state / "agent.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"at": (datetime.now(UTC) - timedelta(minutes=3)).isoformat()}))
