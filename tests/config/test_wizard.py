"""ExLab-Wizard's own file, written as it writes it, and ours beside it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exlab_watch_agent.config.load import Settings, load_settings, parse_settings, settings_from_mapping
from exlab_watch_agent.core.bandwidth import BandwidthLimit, Window
from exlab_watch_agent.core.policy import (
    CleanupPolicy,
    CompletenessSignal,
    MountedPathTarget,
    RcloneTarget,
    RsyncSshTarget,
)
from exlab_watch_agent.errors import ConfigError
from tests.lab.wizard_config import config_of, entry_of, save, staged_entry, text_of, window

WORKDAYS = frozenset(range(5))
RCLONE = {"type": "rclone", "rclone_remote": "lab-nas", "rclone_remote_path": "lab/CONFOCAL_01"}
RSYNC = {"type": "rsync_ssh", "ssh_target": "labuser@nas01", "ssh_key_path": "~/.ssh/id", "remote_path": "/srv/FLOW_01"}
SECRET = "hunter2-canary"


def confocal(**members: Any) -> dict[str, Any]:
    return {**entry_of("CONFOCAL_01", "/data/lab", RCLONE), **members}


def flow(**members: Any) -> dict[str, Any]:
    return {**entry_of("FLOW_01", "/data/lab", RSYNC), **members}


def of_the_wizard(*equipment: Mapping[str, Any], **blocks: Any) -> Settings:
    return parse_settings(text_of(config_of(*equipment, **blocks)), source="config.yaml")


# --- its file alone --------------------------------------------------------------------------------------------------


def test_a_file_that_exlab_wizard_saved_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/lab")
    text = text_of(config_of(confocal(), flow()))
    for written in ("from_: 08:00", "to: 18:00", "level: WARN"):  # what this test is about
        assert written in text
    settings = parse_settings(text, source="config.yaml")
    first, second = settings.policy().equipment
    assert first.target == RcloneTarget("lab-nas", "lab/CONFOCAL_01", None)
    assert first.bandwidth == BandwidthLimit(50, (Window(WORKDAYS, time(8), time(18)),))
    assert first.signal is CompletenessSignal.SENTINEL_FILE
    assert second.target == RsyncSshTarget(
        "labuser@nas01",
        22,
        "/home/lab/.ssh/id",
        "/home/lab/.ssh/known_hosts",
        "/srv/FLOW_01",
        ssh_config="/home/lab/.ssh/config",
        may_lack_ssh_config=True,
        takes_port=True,
    )
    assert settings.policy().cleanup == CleanupPolicy(is_enabled=True)
    assert settings.notes == ()
    assert settings.files == (Path("config.yaml"),)


@pytest.mark.parametrize("word", ["NO", "ON", "Y", "YES", "OFF", "NULL_1", "N", "TRUE_1"])
def test_words_that_mean_something_in_yaml_1_1_are_names_in_its_file(word: str) -> None:
    """It writes YAML 1.2 and puts no quotes around them."""
    transport = {"type": "rclone", "rclone_remote": word.lower(), "rclone_remote_path": f"lab/{word}"}
    (equipment,) = of_the_wizard(entry_of(word, "/data/lab", transport, label=word)).policy().equipment
    assert (equipment.equipment_id, equipment.label) == (word, word)
    assert equipment.target == RcloneTarget(word.lower(), f"lab/{word}", None)


@settings(deadline=None)
@given(
    label=st.text(min_size=1, max_size=300).filter(str.strip),
    name=st.from_regex(r"[A-Za-z0-9~=<.][A-Za-z0-9_.:+-]{0,12}", fullmatch=True).filter(
        lambda name: name not in (".", "..")
    ),
    megabits=st.floats(min_value=1e-5, max_value=1e6, allow_nan=False),
)
def test_any_text_that_it_can_write_comes_back_as_it_was(label: str, name: str, megabits: float) -> None:
    transport = {**RCLONE, "bandwidth": {"upload_mbps": megabits, "schedule": []}}
    (equipment,) = of_the_wizard(confocal(label=label, sentinel_filename=name, transport=transport)).policy().equipment
    assert equipment.sentinel_filename == name
    assert equipment.bandwidth == BandwidthLimit(megabits, ())
    assert equipment.label.isprintable()


def test_numbers_as_text_are_numbers_in_its_file_as_they_are_for_exlab_wizard() -> None:
    transport = {**RCLONE, "bandwidth": {"upload_mbps": "50", "schedule": [window("08:00", "09:30")]}}
    cleanup = {"enabled": "yes", "min_verify_passes": "3", "min_age_hours": "24", "retain_cache": "true"}
    settings = of_the_wizard(confocal(transport=transport), nas_cleanup=cleanup)
    (equipment,) = settings.policy().equipment
    assert equipment.bandwidth == BandwidthLimit(50, (Window(WORKDAYS, time(8), time(9, 30)),))
    assert settings.policy().cleanup == CleanupPolicy(is_enabled=True, verify_passes_min=3, age_min_s=24 * 3600)
    mapping = settings_from_mapping(config_of(confocal(transport=transport), nas_cleanup=cleanup))
    assert mapping.policy() == settings.policy()


def test_a_number_with_a_leading_zero_is_decimal_there() -> None:
    text = text_of(config_of(confocal())).replace("min_age_hours: 24", "min_age_hours: 010")
    assert parse_settings(text, source="config.yaml").nas_cleanup.min_age_hours == 10


def test_what_this_version_does_not_know_is_passed_over_with_one_note_that_shows_no_value() -> None:
    newer = {
        **confocal(colour=SECRET),
        "transport": {
            **RCLONE,
            "token": SECRET,
            "bandwidth": {"burst": SECRET, "schedule": [{**window("08:00", "18:00"), "tz": SECRET}]},
        },
    }
    settings = of_the_wizard(newer, cloud={"token": SECRET}, logging={"level": "INFO", "format": SECRET})
    (note,) = settings.notes
    for name in (
        "equipment[0].colour",
        "equipment[0].transport.token",
        "equipment[0].transport.bandwidth.burst",
        "equipment[0].transport.bandwidth.schedule[0].tz",
        "cloud",
        "logging.format",
    ):
        assert f"{name} (line " in note
    assert SECRET not in note


def test_of_many_keys_that_are_not_known_the_first_are_named_and_the_rest_counted() -> None:
    (note,) = of_the_wizard(confocal(), **{f"new_{n:02d}": 1 for n in range(20)}).notes
    assert note.count("(line ") == 8
    assert note.endswith(" and 12 more")


def test_an_unknown_word_in_nas_cleanup_is_refused_for_it_could_forbid_a_deletion() -> None:
    cleanup = {"enabled": True, "keep_for_ever": True}
    with pytest.raises(ConfigError, match=r"nas_cleanup\.keep_for_ever: unknown key"):
        of_the_wizard(confocal(), nas_cleanup=cleanup)


def test_the_file_name_of_another_signal_than_the_chosen_one_does_not_matter() -> None:
    (equipment,) = of_the_wizard(confocal(manifest_filename="lists/manifest.json")).policy().equipment
    assert (equipment.sentinel_filename, equipment.manifest_filename) == ("acquisition_complete.flag", "")


def test_instruments_of_another_computer_and_none_at_all_are_no_mistakes() -> None:
    settings = of_the_wizard(staged_entry("SEQ_01", "/data/lab"))
    assert settings.policy().equipment == ()
    assert "equipment[0] has sync_mode stage" in settings.notes[0]
    assert of_the_wizard().policy().equipment == ()


def test_a_password_is_refused_there_too_and_not_passed_over() -> None:
    with pytest.raises(ConfigError, match="only key-based ssh") as refusal:
        of_the_wizard(flow(transport={**RSYNC, "password": SECRET}))
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("target", ["nas_01", "lab_user@nas_01.lab", "LAB\\asmith@nas01", "nas01"])
def test_an_alias_and_a_user_of_a_domain_are_targets(target: str) -> None:
    (equipment,) = of_the_wizard(flow(transport={**RSYNC, "ssh_target": target})).policy().equipment
    assert isinstance(equipment.target, RsyncSshTarget)
    assert equipment.target.host == target


@pytest.mark.parametrize(
    ("written", "meant"), [("~/lab/FLOW_01/", "~/lab/FLOW_01"), ("lab/FLOW_01", "~/lab/FLOW_01"), ("/srv/x", "/srv/x")]
)
def test_a_path_on_the_server_may_count_from_the_accounts_home(written: str, meant: str) -> None:
    (equipment,) = of_the_wizard(flow(transport={**RSYNC, "remote_path": written})).policy().equipment
    assert isinstance(equipment.target, RsyncSshTarget)
    assert equipment.target.remote_path == meant


def test_what_cannot_work_is_refused_with_both_ways_out() -> None:
    with pytest.raises(ConfigError) as refusal:
        of_the_wizard(confocal(local_root="data/lab"))
    first, second = str(refusal.value).splitlines()
    assert "equipment[0].local_root: must be an absolute path" in first
    assert "correct it there" in second
    assert "`exlab-watch-agent init --from config.yaml`" in second


def ssh_of(settings: Settings, equipment_id: str = "FLOW_01") -> tuple[str | None, bool, bool, int]:
    (target,) = (item.target for item in settings.policy().equipment if item.equipment_id == equipment_id)
    assert isinstance(target, RsyncSshTarget)
    return target.ssh_config, target.may_lack_ssh_config, target.takes_port, target.port


def test_an_entry_of_exlab_wizard_goes_by_the_users_ssh_config_and_one_of_ours_by_none_unless_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/lab")
    users = "/home/lab/.ssh/config"
    wizards = tmp_path / "config.yaml"
    save(wizards, config_of(flow()))
    assert ssh_of(load_settings(wizards)) == (users, True, True, 22)

    def with_ours(transport: str) -> Settings:
        return beside(tmp_path / "ours.yaml", wizards, f"equipment: [{{id: FLOW_01, transport: {transport}}}]\n")

    assert ssh_of(with_ours("{known_hosts: /etc/hosts}")) == (users, True, True, 22)
    assert ssh_of(with_ours("{ssh_port: 22}")) == (users, True, False, 22)
    assert ssh_of(with_ours("{ssh_config: none}")) == (None, False, False, 22)
    assert ssh_of(with_ours("{ssh_config: /etc/agent/ssh_config}")) == ("/etc/agent/ssh_config", False, True, 22)
    whole = "type: rsync_ssh, ssh_target: a@nas01, remote_path: /srv"
    assert ssh_of(with_ours(f"{{{whole}}}")) == (None, False, False, 22)
    assert ssh_of(with_ours(f"{{{whole}, ssh_config: user, ssh_port: 2201}}")) == (users, True, False, 2201)
    with pytest.raises(ConfigError, match=r"transport\.ssh_config: must be an absolute path"):
        with_ours(f"{{{whole}, ssh_config: users}}")


# --- ours beside it --------------------------------------------------------------------------------------------------


@pytest.fixture
def wizards(tmp_path: Path) -> Path:
    path = tmp_path / "wizard" / "config.yaml"
    save(path, config_of(confocal(), flow(), paths={"local_root": "/data/lab"}))
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return tmp_path / "exlab-watch-agent.yaml"


def beside(ours: Path, wizards: Path, text: str = "") -> Settings:
    ours.write_text(f"wizard_config: {wizards}\n{text}", encoding="utf-8")
    return load_settings(ours)


def refused(ours: Path, wizards: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        beside(ours, wizards, text)
    return str(refusal.value).splitlines()


def test_ours_alone_adds_nothing_and_both_files_are_those_of_the_config(ours: Path, wizards: Path) -> None:
    alone, settings = load_settings(wizards), beside(ours, wizards)
    assert settings.policy() == alone.policy()
    assert settings.files == (ours, wizards)
    assert settings.notes == ()


def test_neither_file_is_written(ours: Path, wizards: Path) -> None:
    before = wizards.read_bytes(), wizards.stat().st_mtime_ns
    beside(ours, wizards, "agent: {settle_seconds: 1}\n")
    assert (wizards.read_bytes(), wizards.stat().st_mtime_ns) == before
    assert sorted(path.name for path in wizards.parent.iterdir()) == ["config.yaml"]


def test_an_entry_of_ours_adds_members_and_replaces_others(ours: Path, wizards: Path) -> None:
    text = """
agent: {settle_seconds: 5}
equipment:
  - {id: FLOW_01, completeness_signal: creation_json, transport: {known_hosts: /etc/agent/known_hosts, ssh_port: 2222}}
  - {id: CONFOCAL_01, observer: polling, transport: {type: mounted_path, path: /mnt/nas/CONFOCAL_01}}
  - {id: SEQ_01, local_root: /data/seq, completeness_signal: creation_json, transport: {type: mounted_path, path: /mnt/seq}}
"""
    settings = beside(ours, wizards, text)
    first, second, third = settings.policy().equipment
    assert (first.equipment_id, first.target) == ("CONFOCAL_01", MountedPathTarget("/mnt/nas/CONFOCAL_01"))
    assert first.bandwidth is None, "a transport of ours with a type takes the place of the whole other one"
    assert first.sentinel_filename == "acquisition_complete.flag"
    assert isinstance(second.target, RsyncSshTarget)
    assert (second.target.host, second.target.port, second.target.remote_path, second.target.known_hosts_path) == (
        "labuser@nas01",
        2222,
        "/srv/FLOW_01",
        "/etc/agent/known_hosts",
    )
    assert second.bandwidth is not None, "one without a type only adds to it"
    assert second.signal is CompletenessSignal.CREATION_JSON
    assert third.equipment_id == "SEQ_01"
    assert settings.policy().settle_s == 5


def test_a_block_of_ours_takes_the_place_of_the_other_one(ours: Path, wizards: Path) -> None:
    assert beside(ours, wizards).policy().cleanup.is_enabled
    assert not beside(ours, wizards, "nas_cleanup: {min_age_hours: 1}\n").policy().cleanup.is_enabled
    assert beside(ours, wizards, "logging: {level: DEBUG}\n").logging.level == "DEBUG"


def test_an_entry_of_ours_that_belongs_to_nobody_is_noted(ours: Path, wizards: Path) -> None:
    settings = beside(ours, wizards, "equipment:\n  - {id: CONFOCAL_O1, observer: polling}\n")
    assert len(settings.policy().equipment) == 2
    (note,) = settings.notes
    assert note.startswith(f"{ours}:3: the entry adds to an instrument that ExLab-Wizard's config does not have")


def test_an_instrument_that_is_staged_elsewhere_can_be_taken_over_by_ours(ours: Path, tmp_path: Path) -> None:
    wizards = tmp_path / "config.yaml"
    save(wizards, config_of(staged_entry("SEQ_01", "/data/lab")))
    transport = "transport: {type: mounted_path, path: /mnt/seq}"
    assert beside(ours, wizards, f"equipment: [{{id: SEQ_01, {transport}}}]\n").policy().equipment == ()
    settings = beside(ours, wizards, f"equipment: [{{id: SEQ_01, sync_mode: nas, {transport}}}]\n")
    assert [item.equipment_id for item in settings.policy().equipment] == ["SEQ_01"]


def test_each_mistake_is_told_with_the_file_in_which_it_is(ours: Path, wizards: Path) -> None:
    text = text_of(config_of(confocal(local_root="data"), flow()))
    wizards.write_text(text, encoding="utf-8")
    line = next(number for number, one in enumerate(text.splitlines(), start=1) if "local_root: data" in one)
    said = refused(
        ours,
        wizards,
        "agent: {settle_second: 1}\n"
        "equipment:\n"
        "  - {id: FLOW_01, sentinel_filenam: x,\n"
        "     transport: {ssh_port: a}}\n"
        "  - {id: CONFOCAL_01, transport: {type: rclone, rclone_remote_path: x}}\n",
    )
    assert [one.split(": ", 2)[:2] for one in said] == [
        [f"{ours}:2", "agent.settle_second"],
        [f"{ours}:4", "equipment[0].sentinel_filenam"],
        [f"{ours}:5", "equipment[0].transport.ssh_port"],
        [f"{ours}:6", "equipment[1].transport.rclone_remote"],
        [f"{wizards}:{line}", "equipment[0].local_root"],
        [str(wizards), "this is ExLab-Wizard's file"],
    ]
    assert said[1].endswith('the nearest known key is "sentinel_filename"')
    assert str(ours) in said[-1]


def test_two_instruments_that_overlap_are_named_with_their_files(ours: Path, wizards: Path) -> None:
    text = (
        "equipment:\n  - {id: SEQ_01, local_root: /data/lab/FLOW_01, completeness_signal: creation_json,\n"
        "     transport: {type: mounted_path, path: /mnt/seq}}\n"
    )
    (line,) = refused(ours, wizards, text)
    assert line.startswith(f"{ours}:3: equipment[0].local_root: ")
    assert "inside those of equipment[1] of config.yaml" in line


@pytest.mark.parametrize("named", ["config.yaml", "''", "5", "[a]"])
def test_the_path_of_its_file_is_absolute(ours: Path, named: str) -> None:
    ours.write_text(f"wizard_config: {named}\n")
    with pytest.raises(ConfigError, match=r":1: wizard_config: must be the absolute path"):
        load_settings(ours)


def test_a_file_that_is_not_there_is_said_with_the_line_that_names_it(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=f"There is no config file {tmp_path}/gone.yaml; correct wizard_config in {ours}:1"
    ):
        beside(ours, tmp_path / "gone.yaml")


def test_a_file_of_ours_is_no_file_of_exlab_wizard(ours: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("agent: {}\n")
    for named in (other, ours):
        with pytest.raises(ConfigError, match="names a file of the agent's own"):
            beside(ours, named)


def test_a_key_of_exlab_wizard_is_told_from_a_mistyped_one_of_ours(ours: Path, wizards: Path) -> None:
    assert beside(ours, wizards, "lims: {x: 1}\noperators: {allowlist: []}\n").notes == ()
    (line,) = refused(ours, wizards, "agnt: {}\n")
    assert line.endswith('agnt: unknown key; the nearest known key is "agent"')
