"""ExLab-Wizard's config on the command line: alone, beside a file of ours, and made ready by `init --from`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from exlab_watch_agent.app.site import Site, default_config_path, wizards_config_path
from exlab_watch_agent.cli.narrating import Narrator
from exlab_watch_agent.cli.running import with_equipment
from exlab_watch_agent.config.load import load_settings
from tests.cli.test_commands import one_line
from tests.lab.lab import CACHE, SENTINEL, Lab, Said, put
from tests.lab.servers import HOST, SshServer
from tests.lab.wizard_config import config_of, entry_of, save, staged_entry

Command = Callable[..., Said]


@pytest.fixture
def wizards(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return ExLab-Wizard's file at its own place: one instrument over rclone, with the operator's rclone.conf at its own."""
    home = lab.home / "home of the operator"
    monkeypatch.setenv("HOME", str(home))
    put(home, {".config/rclone/rclone.conf": b"[lab-nas]\ntype = local\n"})
    transport = {"type": "rclone", "rclone_remote": "lab-nas", "rclone_remote_path": str(lab.nas / "SCOPE_01")}
    path = wizards_config_path()
    save(path, config_of(entry_of("SCOPE_01", str(lab.local), transport, sentinel_filename=SENTINEL)))
    return path


def status_of(run: Path) -> str:
    return str(json.loads((run / CACHE / "creation.json").read_text(encoding="utf-8")).get("sync_status"))


def test_a_file_as_exlab_wizard_saves_it_is_checked_bound_and_used(lab: Lab, command: Command, wizards: Path) -> None:
    before = wizards.read_bytes()
    flags = ("--config", str(wizards), "--state-dir", str(lab.home / "s"))
    said = command("check", *flags)
    assert (said.code, said.err) == (3, "")
    assert f"ok  config {wizards}: 1 equipment" in said.out
    assert "exlab-watch-agent bind SCOPE_01" in said.out
    assert command("bind", "--all", "--yes", *flags).code == 0
    said = command("check", *flags)
    assert (said.code, said.err) == (0, "")
    assert wizards.read_bytes() == before


def test_a_run_is_brought_to_the_nas_by_what_exlab_wizard_wrote_and_ours_adds(
    lab: Lab, command: Command, wizards: Path
) -> None:
    run = lab.new_run(files={"image.tif": b"x" * 5000, SENTINEL: b""})
    before = wizards.read_bytes()
    ours = lab.home / "ours" / "exlab-watch-agent.yaml"
    flags = ("--config", str(ours), "--state-dir", str(lab.home / "s"))
    said = command("init", "--from", str(wizards), *flags)
    assert (said.code, said.err) == (0, "")
    assert one_line(said.out).startswith(
        f"{ours} was written; {wizards}, which has 1 instrument, is read with it as it is"
    )
    ours.write_text(ours.read_text().replace("settle_seconds: 30", "settle_seconds: 0.2"))
    assert command("bind", "--all", "--yes", *flags).code == 0
    said = command("check", *flags)
    assert (said.code, said.err) == (0, "")
    assert f"ok  config {ours}, with ExLab-Wizard's {wizards}: 1 equipment" in said.out
    said = command("run", "--once", "--quiet", *flags)
    assert (said.code, said.out.strip()) == (0, "1 verified")
    assert status_of(run) == "synced"
    copy = lab.nas / "SCOPE_01" / run.relative_to(lab.local / "SCOPE_01")
    assert (copy / "image.tif").read_bytes() == b"x" * 5000
    assert wizards.read_bytes() == before


def test_an_alias_of_an_ssh_config_in_exlab_wizards_file_leads_to_the_server_and_a_path_counts_from_its_home(
    lab: Lab, command: Command, sshd_ordinary_user: SshServer
) -> None:
    sshd = sshd_ordinary_user
    place = sshd.place("by alias")
    from_home = f"~/{place.root.relative_to('/tmp')}"
    run = lab.new_run(files={"image.tif": b"y" * 5000, SENTINEL: b""})
    transport = {
        "type": "rsync_ssh",
        "ssh_target": "lab_nas",
        "ssh_key_path": "~/.ssh/id_ed25519",
        "remote_path": from_home,
    }
    wizards, ours, ssh_config = lab.home / "wizards.yaml", lab.home / "ours.yaml", lab.home / "ssh config"
    save(wizards, config_of(entry_of("SCOPE_01", str(lab.local), transport, sentinel_filename=SENTINEL)))
    ssh_config.write_text(
        f'Host lab_nas\n HostName {HOST}\n Port {sshd.port}\n User {sshd.user}\n IdentityFile "{sshd.key}"\n'
    )
    added = {"ssh_config": str(ssh_config), "known_hosts": str(sshd.known_hosts)}
    settings = {
        "wizard_config": str(wizards),
        "agent": {"settle_seconds": 0.2},
        "equipment": [{"id": "SCOPE_01", "transport": added}],
    }
    ours.write_text(yaml.safe_dump(settings))
    flags = ("--config", str(ours), "--state-dir", str(lab.home / "s"))
    said = command("check", *flags)
    assert (said.code, said.err) == (0, "")
    said = command("run", "--once", "--quiet", *flags)
    assert (said.code, said.out.strip()) == (0, "1 verified")
    assert status_of(run) == "synced"
    assert (place.root / run.relative_to(lab.local / "SCOPE_01") / "image.tif").read_bytes() == b"y" * 5000
    ssh_config.write_text(ssh_config.read_text() + " StrictHostKeyChecking no\n")
    said = command("check", *flags)
    assert said.code == 1
    assert "says StrictHostKeyChecking, which weakens the check of host keys" in said.out


# --- init ------------------------------------------------------------------------------------------------------------


def test_what_init_writes_beside_it_says_the_defaults_and_what_is_in_its_comments_is_good(
    lab: Lab, command: Command, wizards: Path
) -> None:
    ours = lab.home / "ours.yaml"
    assert command("init", "--from", str(wizards), "--config", str(ours)).code == 0
    written = load_settings(ours)
    alone = load_settings(wizards)
    assert written.policy() == alone.policy()
    assert written.agent == alone.agent
    text = ours.read_text()
    assert "Instruments that ExLab-Wizard's file has now: SCOPE_01." in text
    commented = [line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# equipment:", "#   "))]
    blocks = [
        line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# nas_cleanup:", "# logging:"))
    ]
    example = yaml.safe_load("\n".join([*commented, *blocks]))
    assert [entry["id"] for entry in example["equipment"]] == ["SCOPE_01", "SCOPE_01"]
    for entry in example["equipment"]:
        ours.write_text(yaml.safe_dump({**yaml.safe_load(text), **example, "equipment": [entry]}))
        assert len(load_settings(ours).policy().equipment) == 1


def test_init_says_where_exlab_wizards_config_is_and_check_without_ours_too(command: Command, wizards: Path) -> None:
    said = command("check")
    assert (said.code, said.out) == (2, "")
    assert one_line(said.err).endswith(f"`exlab-watch-agent init --from {wizards}` writes ours.")
    said = command("init")
    assert said.code == 0
    assert f"exlab-watch-agent init --from {wizards}" in said.out
    said = command("check")
    assert f"ExLab-Wizard's config {wizards} is not used" in said.out


def test_init_from_a_file_of_ours_or_none_is_refused_and_nothing_is_overwritten(
    lab: Lab, command: Command, wizards: Path
) -> None:
    ours = lab.home / "new.yaml"
    said = command("init", "--from", str(lab.config), "--config", str(ours))
    assert (said.code, said.out) == (2, "")
    assert "is a file of the agent's own" in one_line(said.err)
    said = command("init", "--from", str(lab.home / "gone"), "--config", str(ours))
    assert "name ExLab-Wizard's config.yaml with --from" in one_line(said.err)
    assert not ours.exists()
    said = command("init", "--from", str(wizards), "--config", str(wizards))
    assert said.code == 2
    assert "is not overwritten" in one_line(said.err)


def test_the_first_versions_config_is_still_found_without_a_name(command: Command, lab: Lab) -> None:
    ours = default_config_path()
    assert ours.name == "exlab-watch-agent.yaml"
    first = ours.with_name("config.yaml")
    put(first.parent, {"config.yaml": lab.config.read_bytes()})
    assert default_config_path() == first
    assert f"config {first}: 1 equipment" in command("check").out
    put(first.parent, {ours.name: lab.config.read_bytes()})
    assert default_config_path() == ours


# --- no instrument yet -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["none", "staged elsewhere"])
def empty(lab: Lab, request: pytest.FixtureRequest) -> Path:
    path = lab.home / "empty.yaml"
    save(path, config_of(*([] if request.param == "none" else [staged_entry("SCOPE_01", str(lab.local))])))
    return path


def test_a_config_without_an_instrument_is_nowhere_all_is_well(lab: Lab, command: Command, empty: Path) -> None:
    flags = ("--config", str(empty), "--state-dir", str(lab.home / "s"))
    said = command("check", *flags)
    assert said.code == 1
    assert "NOT the config has no instrument yet" in said.out
    said = command("run", "--once", *flags)
    assert said.code == 3
    assert "no instrument yet" in said.err
    said = command("problems", *flags)
    assert said.code == 3
    assert "no instrument yet" in said.out


def test_run_waits_for_an_instrument_and_a_broken_file_meanwhile_is_told_once(
    lab: Lab, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(empty, lab.home / "s")
    assert not site.policy.equipment
    looks = 0

    def edited_meanwhile() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            empty.write_text("equipment: [\n")
        elif looks == 4:
            save(
                empty,
                config_of(
                    entry_of(
                        "SCOPE_01", str(lab.local), {"type": "rclone", "rclone_remote": "a", "rclone_remote_path": "b"}
                    )
                ),
            )
        return False

    stop = threading.Event()
    stop.wait = lambda timeout=None: edited_meanwhile()  # type: ignore[method-assign]  # an editor at work while it waits
    assert [item.equipment_id for item in with_equipment(site, Narrator(), every_s=0, stop=stop).policy.equipment] == [
        "SCOPE_01"
    ]
    said = capsys.readouterr().err
    assert "no instrument yet" in said
    assert said.count("not valid YAML") == 1
