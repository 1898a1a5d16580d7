"""The config file: what it may say, what comes out, and how it is refused."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
from datetime import time
from pathlib import Path

import platformdirs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exlab_watch_agent.config.blocks import EquipmentBlock
from exlab_watch_agent.config.load import load_settings, parse_settings, settings_from_mapping
from exlab_watch_agent.core.bandwidth import BandwidthLimit, Window
from exlab_watch_agent.core.policy import (
    CleanupPolicy,
    CompletenessSignal,
    EquipmentPolicy,
    Layout,
    MountedPathTarget,
    ObserverMode,
    Policy,
    RcloneTarget,
    RsyncSshTarget,
)
from exlab_watch_agent.errors import ConfigError, ExitCode

CONFIG = Path(__file__).parents[2] / "config"
SOURCE = "config.yaml"
CANARY = "hunter2-canary"

MINIMAL = """\
equipment:
  - id: CONFOCAL_01
    local_root: /data/lab
    sentinel_filename: done.flag
    transport: {type: mounted_path, path: /mnt/nas/CONFOCAL_01}
"""


def problems(text: str) -> list[str]:
    """Return the lines of the refusal, each without the file's name. The text is taken as of a file of ours."""
    text += "" if re.search(r"(?m)^(agent|verify):", text) else "\nagent: {}\n"
    with pytest.raises(ConfigError) as refusal:
        parse_settings(text, source=SOURCE)
    lines = str(refusal.value).splitlines()
    assert all(line.startswith(f"{SOURCE}:") for line in lines)
    return [line.removeprefix(f"{SOURCE}:") for line in lines]


def the_problem(text: str) -> str:
    """Return the only line of the refusal."""
    lines = problems(text)
    assert len(lines) == 1, lines
    return lines[0]


def entry(**members: object) -> dict[str, object]:
    """Return one equipment entry that is good, with these members put in; None takes one out."""
    good: dict[str, object] = {
        "id": "CONFOCAL_01",
        "local_root": "/data/lab",
        "completeness_signal": "creation_json",
        "transport": {"type": "mounted_path", "path": "/mnt/nas/CONFOCAL_01"},
    }
    return {key: value for key, value in {**good, **members}.items() if value is not None}


def with_entries(*entries: dict[str, object], **blocks: object) -> str:
    """Return a file of ours with these entries."""
    return yaml.safe_dump({"equipment": list(entries), "agent": {}, **blocks}, sort_keys=False)


RCLONE = {"type": "rclone", "rclone_remote": "lab-nas", "rclone_remote_path": "lab/CONFOCAL_01"}
RSYNC = {"type": "rsync_ssh", "ssh_target": "labuser@nas01.lab.example", "remote_path": "/srv/lab/CONFOCAL_01"}


# --- what comes out


def test_the_example_config_says_the_defaults() -> None:
    settings = load_settings(CONFIG / "config.example.yaml")
    policy = settings.policy()
    assert policy == Policy(equipment=policy.equipment)
    assert policy.cleanup == CleanupPolicy(is_enabled=False)
    assert (settings.logging.level, settings.logging.central_log_max_mb, settings.logging.central_log_keep) == (
        "INFO",
        10,
        5,
    )
    assert settings.path == CONFIG / "config.example.yaml"
    assert settings.notes == ()
    assert policy.equipment == (
        EquipmentPolicy(
            equipment_id="CONFOCAL_01",
            label="Confocal Microscope 1",
            local_root="/data/lab",
            target=MountedPathTarget("/mnt/nas/lab/CONFOCAL_01"),
            signal=CompletenessSignal.SENTINEL_FILE,
            sentinel_filename="acquisition_complete.flag",
            bandwidth=BandwidthLimit(50, (Window(frozenset(range(5)), time(8), time(18)),)),
        ),
    )


def test_the_entries_in_the_comments_of_the_example_are_good_too() -> None:
    text = (CONFIG / "config.example.yaml").read_text(encoding="utf-8")
    commented, rest = text.split("\nnas_cleanup:")
    uncommented = re.sub(r"(?m)^  # (?!---)", "  ", commented) + "\nnas_cleanup:" + rest
    assert [item.equipment_id for item in parse_settings(uncommented, source=SOURCE).policy().equipment] == [
        "CONFOCAL_01",
        "SEQ_01",
        "FLOW_01",
    ]


def test_the_example_config_names_every_setting_of_the_agent() -> None:
    text = (CONFIG / "config.example.yaml").read_text(encoding="utf-8")
    settings = load_settings(CONFIG / "config.example.yaml")
    for block in (settings.agent, settings.nas_cleanup, settings.verify, settings.logging):
        for key in type(block).model_fields:
            assert re.search(rf"(?m)^  {key}:", text), key


def test_an_existing_exlab_wizard_config_loads_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/exlab")
    settings = load_settings(CONFIG / "exlab-wizard.example.yaml")
    foreign = yaml.safe_load((CONFIG / "exlab-wizard.example.yaml").read_text(encoding="utf-8"))
    assert {"paths", "lims", "readme", "operators", "plugins", "orchestrator", "logging", "validator", "sync"} <= set(
        foreign
    )
    confocal, flow = settings.policy().equipment
    assert confocal.target == RcloneTarget("lab-nas", "lab/CONFOCAL_01", None)
    assert flow.target == RsyncSshTarget(
        "labuser@nas01.lab.example",
        22,
        "/home/exlab/.ssh/id_ed25519",
        "/home/exlab/.ssh/known_hosts",
        "/srv/lab/FLOW_01",
        ssh_config="/home/exlab/.ssh/config",
        may_lack_ssh_config=True,
        takes_port=True,
    )
    assert (flow.signal, flow.manifest_filename) == (CompletenessSignal.MANIFEST, "manifest.json")
    assert flow.bandwidth is None
    assert settings.logging.level == "WARNING"
    assert settings.is_sync_enabled
    assert settings.policy().cleanup.is_enabled


def test_foreign_blocks_are_passed_over_unread() -> None:
    strange = "lims: {password: !vault x, password: 2}\nplugins: !include other.yaml\nreadme: [2026-99-99]\n"
    assert parse_settings(strange + MINIMAL, source=SOURCE).equipment[0].id == "CONFOCAL_01"


@pytest.mark.parametrize("own", ["", "agent: {}\n"])
def test_unknown_members_of_the_shared_blocks_are_left_alone(own: str) -> None:
    shared = "paths: {new_dir: x}\nsync: {new: 1}\nvalidator: {new: {a: b}}\n"
    assert parse_settings(shared + MINIMAL + own, source=SOURCE).is_sync_enabled


def test_every_number_comes_out_in_seconds_and_bytes() -> None:
    agent = """
agent:
  settle_seconds: 0
  rescan_minutes: 0.5
  audit_interval_hours: 2
  reread_days: 30
  max_parallel_runs: 3
  retry_schedule: ["30s", "2m", "1.5h", "1d"]
  layout: flat
  stale_hours: 1
  stall_seconds: 7.5
  trash_hours: 2
nas_cleanup: {enabled: true, min_verify_passes: 3, min_age_hours: 0.5, retain_cache: false}
verify: {max_stream_bytes: 5}
"""
    policy = parse_settings(MINIMAL + agent, source=SOURCE).policy()
    assert policy == Policy(
        equipment=policy.equipment,
        settle_s=0,
        rescan_s=30,
        audit_interval_s=7200,
        reread_s=30 * 86_400,
        stale_s=3600,
        stall_s=7.5,
        pushes_max=3,
        retry_schedule_s=(30, 120, 5400, 86400),
        layout=Layout.FLAT,
        verify_stream_bytes_max=5,
        cleanup=CleanupPolicy(is_enabled=True, verify_passes_min=3, age_min_s=1800, retains_cache=False, trash_s=7200),
    )


def test_an_equipment_is_observed_as_it_says_else_as_the_agent_says_else_by_itself() -> None:
    def modes(agent: str, entry: dict[str, str]) -> ObserverMode:
        document = yaml.safe_load(MINIMAL + agent)
        document["equipment"][0] |= entry
        policy = parse_settings(yaml.safe_dump(document), source=SOURCE).policy()
        return policy.equipment[0].observer

    assert modes("", {}) is ObserverMode.AUTO
    assert modes("agent: {observer: polling}\n", {}) is ObserverMode.POLLING
    assert modes("agent: {observer: polling}\n", {"observer": "native"}) is ObserverMode.NATIVE
    assert modes("", {"observer": "polling"}) is ObserverMode.POLLING


def test_nothing_is_deleted_for_lack_of_a_line() -> None:
    for cleanup in ("", "nas_cleanup:\n", "nas_cleanup: {min_age_hours: 1}\n"):
        assert not parse_settings(MINIMAL + cleanup, source=SOURCE).policy().cleanup.is_enabled


def test_the_state_folder_is_the_platforms_unless_the_file_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/exlab")
    expected = platformdirs.user_state_path("exlab-watch-agent", appauthor=False)
    assert parse_settings(MINIMAL, source=SOURCE).state_dir == expected
    named = parse_settings(MINIMAL + "agent: {state_dir: ~/state}\n", source=SOURCE)
    assert named.state_dir == Path("/home/exlab/state")


def test_the_wizards_local_root_serves_entries_that_have_none() -> None:
    text = with_entries(entry(local_root=None), paths={"local_root": "/data/shared/"})
    assert parse_settings(text, source=SOURCE).policy().equipment[0].local_root == "/data/shared"


def test_the_label_is_the_id_where_there_is_none() -> None:
    assert parse_settings(MINIMAL, source=SOURCE).policy().equipment[0].label == "CONFOCAL_01"


def test_blanks_around_a_text_do_not_count() -> None:
    text = with_entries(
        entry(completeness_signal="sentinel_file", sentinel_filename=" done.flag ", local_root="/data/lab ")
    )
    (equipment,) = parse_settings(text, source=SOURCE).policy().equipment
    assert (equipment.sentinel_filename, equipment.local_root) == ("done.flag", "/data/lab")


def test_settings_cannot_be_changed() -> None:
    settings = parse_settings(MINIMAL, source=SOURCE)
    with pytest.raises(AttributeError):
        settings.is_sync_enabled = False  # type: ignore[misc]  # that is what is tried
    with pytest.raises(ValueError, match="frozen"):
        settings.nas_cleanup.enabled = True


def test_entries_that_stage_to_another_computer_are_left_out_and_said_so() -> None:
    staged = entry(id="FLOW_01", sync_mode="stage", transport=None, orchestrator_staging_transport={"type": "smb"})
    settings = parse_settings(with_entries(entry(), staged), source=SOURCE)
    assert [item.equipment_id for item in settings.policy().equipment] == ["CONFOCAL_01"]
    assert "equipment[1] has sync_mode stage" in settings.notes[0]
    assert parse_settings(with_entries(staged), source=SOURCE).equipment == ()


def test_a_switched_off_wizard_sync_is_noted() -> None:
    settings = parse_settings(MINIMAL + "sync: {enabled: false}\n", source=SOURCE)
    assert not settings.is_sync_enabled
    assert any("sync.enabled" in note for note in settings.notes)


def test_a_mapping_serves_as_well_as_a_file() -> None:
    settings = settings_from_mapping({"equipment": [entry(transport=RCLONE)]})
    assert settings.policy().equipment[0].target == RcloneTarget("lab-nas", "lab/CONFOCAL_01", None)
    with pytest.raises(ConfigError, match=r"^config: agent\.settle_second: unknown key; .*settle_seconds"):
        settings_from_mapping({"equipment": [entry()], "agent": {"settle_second": 1}})


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    text = """
equipment:
  - &first
    id: CONFOCAL_01
    local_root: /data/lab
    completeness_signal: creation_json
    transport: &nas {type: mounted_path, path: /mnt/nas/CONFOCAL_01}
  - <<: *first
    id: FLOW_01
    transport: {<<: *nas, path: /mnt/nas/FLOW_01}
"""
    policy = parse_settings(text, source=SOURCE).policy()
    assert [(item.equipment_id, item.target) for item in policy.equipment] == [
        ("CONFOCAL_01", MountedPathTarget("/mnt/nas/CONFOCAL_01")),
        ("FLOW_01", MountedPathTarget("/mnt/nas/FLOW_01")),
    ]


# --- refusals: where, what is allowed, and all at once


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    text = """\
equipmnt: []
equipment:
  - id: CONFOCAL_01
    local_root: /data/lab
    completeness_signal: creation_json
    transport: {typ: mounted_path, path: /mnt/nas/a}
  - id: CONFOCAL_01
    local_root: data/lab
    sentinel_filename: flags/done
    transport:
      type: rsync_ssh
      ssh_target: -oProxyCommand=x
      password: hunter2-canary
      remote_path: /srv
nas_cleanup: {enabeld: true}
agent:
  settle_seconds: -1
  state_dir: /data/lab/CONFOCAL_01/state
"""
    assert [re.findall(r"^(\d+): ([^:]+):", line)[0] for line in problems(text)] == [
        ("1", "equipmnt"),
        ("6", "equipment[0].transport.typ"),
        ("7", "equipment[1].id"),
        ("8", "equipment[1].local_root"),
        ("9", "equipment[1].sentinel_filename"),
        ("12", "equipment[1].transport.ssh_target"),
        ("13", "equipment[1].transport.password"),
        ("15", "nas_cleanup.enabeld"),
        ("17", "agent.settle_seconds"),
        ("18", "agent.state_dir"),
    ]


@pytest.mark.parametrize(
    ("addition", "key", "nearest"),
    [
        ("agnt: {}", "agnt", "agent"),
        ("agent: {settle_second: 1}", "agent.settle_second", "settle_seconds"),
        ("nas_cleanup: {min_age_hour: 1}", "nas_cleanup.min_age_hour", "min_age_hours"),
        ("verify: {max_stream_byte: 1}", "verify.max_stream_byte", "max_stream_bytes"),
        ("logging: {Level: INFO}", "logging.Level", "level"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(addition: str, key: str, nearest: str) -> None:
    assert the_problem(MINIMAL + addition) == f'6: {key}: unknown key; the nearest known key is "{nearest}"'


def test_unknown_keys_deep_inside_a_transport_are_named_with_the_keys_of_that_very_block() -> None:
    window = {"day": ["mon"], "days": ["mon"], "from": "08:00", "to": "18:00"}
    transport = {**RCLONE, "rclone_remot": "x", "bandwidth": {"upload_mbp": 5, "schedule": [window]}}
    assert [line.split(": ", 1)[1] for line in problems(with_entries(entry(transport=transport)))] == [
        'equipment[0].transport.rclone_remot: unknown key; the nearest known key is "rclone_remote"',
        'equipment[0].transport.bandwidth.upload_mbp: unknown key; the nearest known key is "upload_mbps"',
        'equipment[0].transport.bandwidth.schedule[0].day: unknown key; the nearest known key is "days"',
    ]


def test_a_key_near_to_none_is_answered_with_all_that_are_known() -> None:
    assert the_problem(MINIMAL + "verify: {zzz: 1}") == "6: verify.zzz: unknown key; known here: max_stream_bytes"


def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    assert the_problem(MINIMAL + "nas_cleanup:\n  enabled: false\n  enabled: true\n") == (
        "8: nas_cleanup.enabled: is there twice, first on line 7; keep one"
    )
    assert "equipment: is there twice" in the_problem(MINIMAL + MINIMAL)


@pytest.mark.parametrize("text", ["", "# nothing\n", "equipment:\n", "equipment: []\n", "agent: {}\n", "~\n"])
def test_a_config_may_have_no_instrument_yet(text: str) -> None:
    assert parse_settings(text, source=SOURCE).policy().equipment == ()


def test_a_block_of_a_later_version_is_told_from_a_mistyped_one() -> None:
    assert the_problem(MINIMAL + "page: {port: 1}\nagent: {}\n") == "6: page: is of a later version; take it out"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("agent: {settle_seconds: .inf}", "must be a finite number"),
        ("agent: {settle_seconds: .nan}", "must be a finite number"),
        ("agent: {settle_seconds: -0.1}", "must be at least 0"),
        ("agent: {settle_seconds: '30'}", "must be a number, without quotes"),
        ("agent: {settle_seconds: true}", "must be a number, without quotes"),
        ("agent: {settle_seconds: 1:30}", "must be a number, without quotes"),
        ("agent: {rescan_minutes: 0}", "must be greater than 0"),
        ("agent: {observer: poll}", "must be 'auto', 'native' or 'polling'"),
        ("agent: {stall_seconds: 0}", "must be greater than 0"),
        ("agent: {max_parallel_runs: 0}", "must be at least 1"),
        ("agent: {max_parallel_runs: 1.0}", "must be a whole number, without quotes"),
        ("agent: {layout: flt}", "must be 'mirror' or 'flat'"),
        ("agent: {layout: !include x}", "must be 'mirror' or 'flat'"),
        ("agent: {state_dir: state}", "must be an absolute path"),
        ("agent: {retry_schedule: []}", "must have at least 1 entry"),
        ("agent: {retry_schedule: [30]}", "must be a number with a unit"),
        ("agent: {retry_schedule: [2w]}", "must be a number with a unit"),
        ("agent: {retry_schedule: [31d]}", "must be at most 30d"),
        ("agent: [1]", "must be a block of keys"),
        ("agent: !odd {settle_seconds: 1}", "must be a block of keys"),
        ("nas_cleanup: {enabled: 'yes'}", "must be true or false, without quotes"),
        ("nas_cleanup: {enabled: 1}", "must be true or false, without quotes"),
        ("nas_cleanup: {min_verify_passes: 0}", "must be at least 1"),
        ("nas_cleanup: {min_age_hours: .nan}", "must be a finite number"),
        ("nas_cleanup: {retain_cache: !!int {a: b}}", "must be true or false, without quotes"),
        ("verify: {max_stream_bytes: 2026-01-01}", "must be a whole number, without quotes"),
        ("logging: {level: LOUD}", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("logging: {central_log_keep: 0}", "must be at least 1"),
    ],
)
def test_a_value_that_would_have_to_be_guessed_is_refused_with_what_is_allowed(block: str, expected: str) -> None:
    line = the_problem(MINIMAL + block)
    assert line.startswith("6: ")
    assert expected in line


@pytest.mark.parametrize("equipment_id", ["confocal_01", "1_CONFOCAL", "A-B", "A B", "A" * 33, "", "É", "../A"])
def test_an_equipment_id_off_the_pattern_is_refused(equipment_id: str) -> None:
    assert "equipment[0].id: must be 1 to 32 characters" in the_problem(with_entries(entry(id=equipment_id)))


def test_yaml_words_for_false_need_quotes_as_an_id() -> None:
    assert "equipment[0].id: must be text; put it in quotes" in the_problem(MINIMAL.replace("CONFOCAL_01\n", "NO\n", 1))


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"completeness_signal": None}, "sentinel_filename"),
        ({"completeness_signal": "sentinel_file"}, "sentinel_filename"),
        ({"completeness_signal": "sentinel_file", "sentinel_filename": ""}, "sentinel_filename"),
        ({"completeness_signal": "manifest", "sentinel_filename": "x"}, "manifest_filename"),
    ],
)
def test_a_signal_needs_its_file_name_and_the_agent_never_guesses_that_a_run_has_ended(
    members: dict[str, object], key: str
) -> None:
    line = the_problem(with_entries(entry(**members)))
    assert f"equipment[0].{key}: is missing" in line
    assert "creation_json" in line


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a\\b", "/abs", ".exlab-wizard", ".ExLab-Wizard", "a\x1bb"])
def test_a_signal_file_is_a_plain_name_in_the_run_folder(name: str) -> None:
    text = with_entries(entry(completeness_signal="sentinel_file", sentinel_filename=name))
    assert "equipment[0].sentinel_filename: must" in the_problem(text)


@pytest.mark.parametrize(
    "target", ["-oProxyCommand=x", "user@-host", "-u@host", "a b@host", "user@ho st", "u@h;x", "@h", "u@", "u@h:p"]
)
def test_an_ssh_target_can_be_no_option_and_no_second_word(target: str) -> None:
    assert "transport.ssh_target: must be user@host" in the_problem(
        with_entries(entry(transport={**RSYNC, "ssh_target": target}))
    )


@pytest.mark.parametrize("remote", ["nas:", ":sftp,host=x", "a,b", "-v", "a/b", ""])
def test_an_rclone_remote_is_a_name_and_never_a_connection_string(remote: str) -> None:
    assert "transport.rclone_remote: must be" in the_problem(
        with_entries(entry(transport={**RCLONE, "rclone_remote": remote}))
    )


@pytest.mark.parametrize("path", ["srv/lab", "~lab/x", "~", "~/", "/srv/../etc", "~/../etc", ""])
def test_a_path_on_the_ssh_server_is_absolute_and_straight(path: str) -> None:
    assert "transport.remote_path: must" in the_problem(with_entries(entry(transport={**RSYNC, "remote_path": path})))


@pytest.mark.parametrize("path", ["data/lab", "", "/data/../etc", "~nobody-of-that-name/x", "/data\x00"])
def test_a_local_path_is_absolute_and_straight(path: str) -> None:
    assert "equipment[0].local_root: must" in the_problem(with_entries(entry(local_root=path)))


def test_a_password_for_ssh_is_refused_with_the_reason_and_not_repeated() -> None:
    line = the_problem(with_entries(entry(transport={**RSYNC, "password": CANARY})))
    assert "transport.password: is refused: only key-based ssh" in line
    assert CANARY not in line


def test_a_transport_without_or_with_a_foreign_type_is_answered_with_those_there_are() -> None:
    assert "transport.type: is missing; it is one of mounted_path, rclone, rsync_ssh" in the_problem(
        with_entries(entry(transport={"path": "/mnt/nas"}))
    )
    foreign = the_problem(with_entries(entry(transport={"type": "rclone_sftp", "host": "nas01"})))
    assert "transport.type: must be mounted_path, rclone or rsync_ssh" in foreign
    assert "rclone config" in foreign


@pytest.mark.parametrize("start", ["8:00", "'8:00'", "'24:00'", "24:00", "'08:00:00'", "480", "1080"])
def test_a_time_is_zero_padded(start: str) -> None:
    bandwidth = f"bandwidth: {{upload_mbps: 5, schedule: [{{days: [mon], from: {start}, to: '06:00'}}]}}"
    line = the_problem(MINIMAL.replace("/CONFOCAL_01}", f"/CONFOCAL_01, {bandwidth}}}"))
    assert line.startswith('5: equipment[0].transport.bandwidth.schedule[0].from: must be a time from "00:00"')
    assert "zero-padded" in line


@pytest.mark.parametrize(
    ("key", "start"), [("from", "18:00"), ("from_", "18:00"), ("from_", "08:00"), ("from", "'08:00'")]
)
@pytest.mark.parametrize("own", ["", "agent: {}\n"])
def test_a_time_needs_no_quotes_whoever_wrote_it(key: str, start: str, own: str) -> None:
    bandwidth = f"bandwidth: {{upload_mbps: 5, schedule: [{{days: [mon], {key}: {start}, to: 19:30}}]}}"
    text = MINIMAL.replace("/CONFOCAL_01}", f"/CONFOCAL_01, {bandwidth}}}") + own
    (equipment,) = parse_settings(text, source=SOURCE).policy().equipment
    assert equipment.bandwidth is not None
    hour = int(start.strip("'")[:2])
    assert equipment.bandwidth.windows == (Window(frozenset({0}), time(hour), time(19, 30)),)


@pytest.mark.parametrize("mbps", [0, -1, ".inf", "'50'", "true"])
def test_a_bandwidth_limit_is_a_positive_number(mbps: object) -> None:
    line = the_problem(MINIMAL.replace("/CONFOCAL_01}", f"/CONFOCAL_01, bandwidth: {{upload_mbps: {mbps}}}}}"))
    assert "transport.bandwidth.upload_mbps: must be" in line


def test_absent_limits_are_none() -> None:
    absent: list[dict[str, object] | None] = [None, {}, {"upload_mbps": None}, {"schedule": []}]
    for bandwidth in absent:
        text = with_entries(entry(transport={**RCLONE, "bandwidth": bandwidth}))
        assert parse_settings(text, source=SOURCE).policy().equipment[0].bandwidth is None


# --- places that must lie apart


def mounted(path: str) -> dict[str, str]:
    return {"type": "mounted_path", "path": path}


def test_several_instruments_may_share_one_local_root_and_one_destination() -> None:
    text = with_entries(entry(transport=RCLONE), entry(id="CONFOCAL_02", transport=RCLONE))
    assert len(parse_settings(text, source=SOURCE).equipment) == 2


def test_roots_of_runs_may_not_lie_within_each_other() -> None:
    text = with_entries(
        entry(transport=RCLONE), entry(id="B", local_root="/data//lab/CONFOCAL_01/x/", transport=RCLONE)
    )
    assert (
        "equipment[1].local_root: its runs (<local_root>/<id>) would lie inside those of equipment[0]"
        in the_problem(text)
    )


def test_a_root_that_only_begins_alike_is_another_place() -> None:
    text = with_entries(entry(transport=RCLONE), entry(id="CONFOCAL_011", transport=mounted("/data/lab/CONFOCAL_0")))
    assert len(parse_settings(text, source=SOURCE).equipment) == 2


@pytest.mark.parametrize(
    "path", ["/data/lab/CONFOCAL_01", "/data/lab/CONFOCAL_01/copy", "/data/lab", "/", "/data/./lab"]
)
def test_a_destination_among_the_local_runs_is_refused(path: str) -> None:
    line = the_problem(with_entries(entry(transport=mounted(path))))
    assert "equipment[0].transport.path: " in line
    assert "a copy must lie apart from them" in line


def test_a_destination_among_the_runs_of_another_instrument_is_refused() -> None:
    line = the_problem(
        with_entries(entry(transport=RCLONE), entry(id="B", transport=mounted("/data/lab/CONFOCAL_01/b")))
    )
    assert "equipment[1].transport.path: lies among the local runs of equipment[0]" in line


def test_a_state_folder_among_runs_or_copies_is_refused() -> None:
    for state_dir in ("/data/lab/CONFOCAL_01", "/mnt/nas/CONFOCAL_01/state"):
        line = the_problem(with_entries(entry(), agent={"state_dir": state_dir}))
        assert "agent.state_dir: must lie outside" in line


# --- hostile and broken files


@pytest.mark.parametrize(
    "text",
    [
        f"equipment: [{{id: A, transport: {{type: rsync_ssh, password: *{CANARY}}}}}]",
        f"password: '{CANARY}\n",
        f"password: {CANARY}: x: y\n",
        f'a: "{CANARY}" "{CANARY}"\n',
        f"a: &{CANARY} 1\nb: &{CANARY} 2\n",
        f"a: !{CANARY}!x 1\n",
        f"{{a: {CANARY}\n",
        f"%{CANARY}\n",
        f"a: {CANARY}\n\tb: 1\n",
    ],
)
def test_broken_yaml_is_refused_with_its_place_and_without_its_words(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_settings(text, source=SOURCE)
    assert re.match(rf"{SOURCE}:\d+", str(refusal.value))
    assert CANARY not in str(refusal.value)


def secrets_everywhere() -> list[str]:
    bad: dict[str, object] = {
        "id": CANARY,
        "local_root": CANARY,
        "sentinel_filename": f"{CANARY}/",
        "transport": CANARY,
    }
    transports = [
        {"type": CANARY},
        {"type": CANARY, "password": CANARY},
        {**RSYNC, "ssh_target": f"-{CANARY}", "ssh_port": CANARY, "remote_path": CANARY, "password": CANARY},
        {
            **RCLONE,
            "rclone_remote": f":sftp,pass={CANARY}",
            "rclone_config": CANARY,
            "bandwidth": {"upload_mbps": CANARY},
        },
    ]
    blocks = {"agent": {"layout": CANARY, "retry_schedule": [CANARY]}, "logging": {"level": CANARY}, "other": CANARY}
    return [with_entries(bad, **blocks), *(with_entries(entry(transport=item)) for item in transports)]


@pytest.mark.parametrize("text", secrets_everywhere())
def test_a_refusal_never_repeats_a_value(text: str) -> None:
    assert CANARY in text
    assert CANARY not in "\n".join(problems(text))


def test_a_refusal_keeps_no_error_of_the_library_that_would_show_values() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_settings(with_entries(entry(transport={**RSYNC, "password": CANARY})), source=SOURCE)
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


def test_the_librarys_own_error_does_not_show_values_either() -> None:
    with pytest.raises(ValidationError) as error:
        EquipmentBlock.model_validate({"id": "A", "transport": {**RSYNC, "password": CANARY}, "label": 5})
    assert CANARY not in str(error.value)


def test_a_value_that_begins_with_a_star_is_told_to_be_quoted() -> None:
    with pytest.raises(
        ConfigError, match=r"^config\.yaml:1:4: not valid YAML: a value that begins with \* must be in quotes"
    ):
        parse_settings("a: *b", source=SOURCE)


def test_aliases_that_stand_for_billions_are_refused_at_once() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    with pytest.raises(ConfigError, match="aliases"):
        parse_settings(bomb + MINIMAL, source=SOURCE)


def test_an_alias_that_holds_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="aliases"):
        parse_settings("equipment: &e [*e]\n", source=SOURCE)


def test_a_file_of_brackets_is_refused_and_breaks_nothing() -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_settings("equipment: " + "[" * 50_000 + "]" * 50_000, source=SOURCE)


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "5"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        parse_settings(text, source=SOURCE)


def test_keys_that_are_no_text_are_refused() -> None:
    assert "has a key that is not plain text" in the_problem(MINIMAL + "agent: {? [a] : 1}\n")
    assert "agent.<<: must be an alias" in the_problem(MINIMAL + "agent: {<<: 5}\n")


def test_an_odd_key_cannot_write_lines_or_colours_into_a_terminal() -> None:
    line = the_problem(MINIMAL + 'verify: {"a\\nb\\e[31m": 1}\n')
    assert r"verify.'a\nb\x1b[31m'" in line
    assert len(the_problem(MINIMAL + f"verify: {{{'k' * 120}: 1}}\n")) < 200


@given(st.text(max_size=60))
def test_any_text_loads_or_is_refused_in_words(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert not parse_settings(text, source=SOURCE).equipment


yaml_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(
    block=st.sampled_from(
        ["equipment", "transport", "bandwidth", "agent", "nas_cleanup", "verify", "logging", "paths", "sync"]
    ),
    key=st.sampled_from(
        ["id", "type", "local_root", "schedule", "settle_seconds", "retry_schedule", "enabled", "level", "sync_mode"]
    ),
    value=yaml_values,
)
def test_any_value_at_any_place_loads_or_is_refused_in_words(block: str, key: str, value: object) -> None:
    good = entry(transport={**RCLONE, "bandwidth": {"upload_mbps": 5}})
    config: dict[str, object] = {"equipment": [good]}
    if block == "equipment":
        good[key] = value
    elif block == "transport":
        good["transport"] = {**RCLONE, key: value}
    elif block == "bandwidth":
        good["transport"] = {**RCLONE, "bandwidth": {key: value}}
    else:
        config[block] = {key: value}
    for load in (settings_from_mapping, lambda config: parse_settings(yaml.safe_dump(config), source=SOURCE)):
        with contextlib.suppress(ConfigError):
            assert len(load(config).policy().equipment) < 2


# --- the file itself


def test_a_missing_file_is_answered_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no config file .*exlab-watch-agent init"):
        load_settings(tmp_path / "config.yaml")


def test_a_folder_or_a_pipe_is_no_config_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_settings(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_settings(tmp_path / "pipe")


def test_an_unreadable_file_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\); make it readable"):
        load_settings(path)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(Path("a\x00b"))


def test_a_file_of_more_than_a_mebibyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_settings(path)


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"equipment: []\nlabel: Ger\xe4t\n")
    with pytest.raises(ConfigError, match=":2: the file is not UTF-8"):
        load_settings(path)


def test_a_byte_order_mark_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_settings(path).equipment[0].id == "CONFOCAL_01"


def test_reading_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    before = path.stat()
    load_settings(path)
    assert (path.stat().st_mtime_ns, os.listdir(tmp_path)) == (before.st_mtime_ns, ["config.yaml"])


# --- the service file


def test_the_service_runs_the_agent_and_does_not_restart_on_a_bad_config() -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as the library's manual says
    unit.read(CONFIG / "exlab-watch-agent.service", encoding="utf-8")
    service = unit["Service"]
    assert re.search(
        r"/exlab-watch-agent run --config \S+ --state-dir /var/lib/exlab-watch-agent$", service["ExecStart"]
    )
    assert service["RestartPreventExitStatus"] == str(int(ExitCode.USAGE))
    assert service["StateDirectoryMode"] == "0700"
    assert service["NoNewPrivileges"] == "true"
