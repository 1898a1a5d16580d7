"""What another config changes, and what each change waits for: every member of every block has its rule, and its case here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel

from exlab_watch_agent.config.blocks import TRANSPORTS, EquipmentBlock, keys_of
from exlab_watch_agent.config.changes import RULES, Waits, changes
from exlab_watch_agent.config.load import Settings, settings_from_mapping
from exlab_watch_agent.config.problems import BLOCKS

MOUNTED = {"type": "mounted_path", "path": "/nas/S"}
RCLONE = {"type": "rclone", "rclone_remote": "lab-nas", "rclone_remote_path": "lab/S"}
RSYNC = {"type": "rsync_ssh", "ssh_target": "lab@nas01", "remote_path": "/srv/S"}
LIMIT = {"upload_mbps": 50.0, "schedule": [{"days": ["mon", "tue"], "from": "08:00", "to": "18:00"}]}
NOTHING, RELOAD, START = Waits.NOTHING, Waits.RELOAD, Waits.START


def entry(equipment_id: str = "SCOPE_01", transport: Any = MOUNTED, **members: Any) -> dict[str, Any]:
    signal = {"completeness_signal": "creation_json"}
    return {"id": equipment_id, "local_root": "/data/lab", "transport": transport, **signal, **members}


def config(*entries: dict[str, Any], **blocks: Any) -> Settings:
    return settings_from_mapping({"equipment": list(entries or [entry()]), "agent": {}, **blocks})


def said(old: Settings, new: Settings) -> list[tuple[str, Waits]]:
    return [(change.sentence, change.waits_for) for change in changes(old, new)]


OF_BLOCKS: list[tuple[str, Any, Any, str, Waits]] = [
    ("nas_cleanup.enabled", False, True, "false -> true (looser)", RELOAD),
    ("nas_cleanup.enabled", True, False, "true -> false", NOTHING),
    ("nas_cleanup.min_verify_passes", 3, 2, "3 -> 2 (looser)", RELOAD),
    ("nas_cleanup.min_verify_passes", 2, 3, "2 -> 3", NOTHING),
    ("nas_cleanup.min_age_hours", 24.0, 12.5, "24 -> 12.5 (looser)", RELOAD),
    ("nas_cleanup.min_age_hours", 24.0, 25.0, "24 -> 25", NOTHING),
    ("nas_cleanup.retain_cache", True, False, "true -> false (looser)", RELOAD),
    ("nas_cleanup.retain_cache", False, True, "false -> true", NOTHING),
    ("agent.trash_hours", 2.0, 1.0, "2 -> 1 (looser)", RELOAD),
    ("agent.trash_hours", 1.0, 2.0, "1 -> 2", NOTHING),
    ("logging.level", "INFO", "DEBUG", "INFO -> DEBUG", NOTHING),
    ("logging.central_log_max_mb", 10, 20, "10 -> 20", NOTHING),
    ("logging.central_log_keep", 5, 6, "5 -> 6", NOTHING),
    ("agent.state_dir", "/var/a", "/var/b", "/var/a -> /var/b", START),
    ("agent.state_dir", None, "/var/b", "none -> /var/b", START),
    ("agent.settle_seconds", 30.0, 5.0, "30 -> 5", RELOAD),
    ("agent.rescan_minutes", 15.0, 5.0, "15 -> 5", RELOAD),
    ("agent.observer", "auto", "polling", "auto -> polling", RELOAD),
    ("agent.audit_interval_hours", 24.0, 12.0, "24 -> 12", RELOAD),
    ("agent.reread_days", 90.0, 180.0, "90 -> 180", RELOAD),
    ("agent.max_parallel_runs", 2, 4, "2 -> 4", RELOAD),
    ("agent.retry_schedule", ["30s"], ["30s", "2m"], "30s -> 30s, 2m", RELOAD),
    ("agent.layout", "mirror", "flat", "mirror -> flat", RELOAD),
    ("agent.stale_hours", 24.0, 48.0, "24 -> 48", NOTHING),
    ("agent.unproven_hours", 8.0, 9.0, "8 -> 9", NOTHING),
    ("agent.disk_days", 3.0, 7.0, "3 -> 7", NOTHING),
    ("agent.stall_seconds", 300.0, 100.0, "300 -> 100", RELOAD),
    ("verify.max_stream_bytes", 1 << 30, 1 << 20, "1073741824 -> 1048576", RELOAD),
]
OF_EQUIPMENT: list[tuple[str, Any, Any, str, Waits]] = [
    ("label", "Old", "New", "Old -> New", NOTHING),
    ("label", "Old", "A" * 150, f"Old -> {'A' * 119}…", NOTHING),
    ("local_root", "/data/lab", "/data/other", "/data/lab -> /data/other", RELOAD),
    ("nas_root", None, "//nas01/lab", "none -> //nas01/lab", NOTHING),
    ("completeness_signal", "sentinel_file", "creation_json", "sentinel_file -> creation_json", RELOAD),
    ("sentinel_filename", "a.flag", "b.flag", "a.flag -> b.flag", RELOAD),
    ("manifest_filename", "a.json", "b.json", "a.json -> b.json", RELOAD),
    ("observer", None, "polling", "none -> polling", RELOAD),
]
OF_TRANSPORTS: list[tuple[dict[str, Any], str, Any, str, Waits]] = [
    (MOUNTED, "path", "/nas/T", "/nas/S -> /nas/T", RELOAD),
    (RCLONE, "rclone_remote", "other", "lab-nas -> other", RELOAD),
    (RCLONE, "rclone_remote_path", "lab/T", "lab/S -> lab/T", RELOAD),
    (RCLONE, "rclone_config", "/etc/rclone.conf", "none -> /etc/rclone.conf", RELOAD),
    (RSYNC, "ssh_target", "lab@nas02", "lab@nas01 -> lab@nas02", RELOAD),
    (RSYNC, "ssh_port", 2222, "none -> 2222", RELOAD),
    (RSYNC, "ssh_config", "/etc/lab.ssh", "none -> /etc/lab.ssh", RELOAD),
    (RSYNC | {"ssh_key_path": "/k/a"}, "ssh_key_path", "/k/b", "/k/a -> /k/b", RELOAD),
    (RSYNC | {"known_hosts": "/k/a"}, "known_hosts", "/k/b", "/k/a -> /k/b", RELOAD),
    (RSYNC, "remote_path", "/srv/T", "/srv/S -> /srv/T", RELOAD),
    *(
        (way, "bandwidth", LIMIT, "none -> 50 Mbit/s (mon+tue 08:00-18:00)", NOTHING)
        for way in (MOUNTED, RCLONE, RSYNC)
    ),
    (MOUNTED | {"bandwidth": LIMIT}, "bandwidth", {}, "50 Mbit/s (mon+tue 08:00-18:00) -> no limit", NOTHING),
]


@pytest.mark.parametrize(("name", "old", "new", "words", "waits_for"), OF_BLOCKS)
def test_a_member_of_a_block(name: str, old: Any, new: Any, words: str, waits_for: Waits) -> None:
    block, member = name.split(".")
    assert said(config(**{block: {member: old}}), config(**{block: {member: new}})) == [(f"{name}: {words}", waits_for)]


@pytest.mark.parametrize(("member", "old", "new", "words", "waits_for"), OF_EQUIPMENT)
def test_a_member_of_an_instrument(member: str, old: Any, new: Any, words: str, waits_for: Waits) -> None:
    files = {"sentinel_filename": "a.flag", "manifest_filename": "a.json"}
    before, after = entry(**files | {member: old}), entry(**files | {member: new})
    assert said(config(before), config(after)) == [(f"SCOPE_01 {member}: {words}", waits_for)]


@pytest.mark.parametrize(("way", "member", "new", "words", "waits_for"), OF_TRANSPORTS)
def test_a_member_of_a_transport(way: dict[str, Any], member: str, new: Any, words: str, waits_for: Waits) -> None:
    before, after = entry(transport=way), entry(transport=way | {member: new})
    assert said(config(before), config(after)) == [(f"SCOPE_01 transport.{member}: {words}", waits_for)]


def test_another_way_to_the_nas_is_one_change_and_its_limit_another() -> None:
    new = config(entry(transport=RSYNC | {"bandwidth": LIMIT}))
    assert said(config(), new) == [
        ("SCOPE_01 transport: mounted_path /nas/S -> rsync_ssh lab@nas01:/srv/S", RELOAD),
        ("SCOPE_01 transport.bandwidth: none -> 50 Mbit/s (mon+tue 08:00-18:00)", NOTHING),
    ]


def test_an_instrument_more_is_taken_in_by_itself_and_one_less_is_not() -> None:
    one, two = config(), config(entry(), entry("SCOPE_02", RCLONE))
    assert said(one, two) == [("SCOPE_02 is new, to rclone lab-nas:lab/S", NOTHING)]
    assert said(two, one) == [("SCOPE_02 was taken out", RELOAD)]


def test_a_new_id_is_another_instrument() -> None:
    assert said(config(), config(entry("SCOPE_1"))) == [
        ("SCOPE_01 was taken out", RELOAD),
        ("SCOPE_1 is new, to mounted_path /nas/S", NOTHING),
    ]


def test_an_instrument_that_is_staged_from_now_on_is_taken_out_and_the_way_back_is_a_new_one() -> None:
    here, staged = config(), config(entry(sync_mode="stage"))
    assert said(here, staged) == [
        ("SCOPE_01 was taken out", RELOAD),
        ("SCOPE_01 is handed to another computer by ExLab-Wizard (sync_mode stage)", NOTHING),
    ]
    assert said(staged, here) == [("SCOPE_01 is new, to mounted_path /nas/S", NOTHING)]
    none = settings_from_mapping({"equipment": [], "agent": {}})
    assert said(staged, none) == [
        ("SCOPE_01 is not handed to another computer by ExLab-Wizard any more", NOTHING),
    ]


def test_what_says_the_same_in_another_way_changes_nothing() -> None:
    two = [entry(), entry("SCOPE_02", RCLONE)]
    same = config(*reversed(two), logging={"level": "info"}, lims={"token": "a"}, sync={"enabled": False})
    assert said(config(*two, lims={"token": "b"}), same) == []


def test_text_that_steers_a_terminal_is_made_harmless() -> None:
    sentences = [one.sentence for one in changes(config(), config(entry(nas_root="//nas\x1b[2J\nx")))]
    assert sentences == ["SCOPE_01 nas_root: none -> //nas\\x1b[2J\\nx"]


def test_every_member_has_a_rule_and_every_rule_has_a_member_and_a_case() -> None:
    """Who adds a member to the config says here what a running agent does with it."""
    blocks: dict[str, list[type[BaseModel]]] = {"equipment": [EquipmentBlock], "transport": [*TRANSPORTS.values()]}
    blocks |= {name: [model] for name, model in BLOCKS.items()}
    members = {f"{name}.{key}" for name, models in blocks.items() for model in models for key in keys_of(model)}
    assert set(RULES) == members
    tried = {name for name, *_ in OF_BLOCKS} | {f"equipment.{name}" for name, *_ in OF_EQUIPMENT}
    tried |= {f"transport.{name}" for _, name, *_ in OF_TRANSPORTS} | {"transport.type"}
    assert tried == {name for name, rule in RULES.items() if rule is not None}


def test_every_part_of_the_settings_is_compared_or_is_known_to_say_nothing() -> None:
    compared = {"equipment", "staged_elsewhere", *BLOCKS}
    say_nothing = {"path", "wizard_config", "notes", "is_sync_enabled"}
    assert {field.name for field in fields(Settings)} == compared | say_nothing
