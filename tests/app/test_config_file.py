"""A running agent knows whether its config files still say what is in force, what is to be told, and when it may be taken in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.app.config_file import ConfigSource, ConfigWatch
from exlab_watch_agent.config.load import load_settings


class Clock(SystemClock):
    """Time passes when a test says so."""

    seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds


class Config:
    """A config file of ours, with ExLab-Wizard's beside it, and the watch over both."""

    def __init__(self, home: Path, **source: Any) -> None:
        self.home = home
        self.path, self.wizards = home / "ours.yaml", home / "config.yaml"
        self.clock = Clock()
        self.saves = 0
        self.entries: list[dict[str, Any]] = [self.entry("SCOPE_01")]
        self.save_wizards()
        self.save()
        fixed = {"has_fixed_state_dir": False} | source
        self.source = ConfigSource(lambda: load_settings(self.path), **fixed)
        self.watch = ConfigWatch(
            load_settings(self.path), self.source, state_dir=home / "state", clock=self.clock, steady_s=60, busy_s=600
        )
        self.look()

    def entry(self, equipment_id: str, **members: Any) -> dict[str, Any]:
        return {
            "id": equipment_id,
            "local_root": str(self.home / "local"),
            "transport": {"type": "mounted_path", "path": str(self.home / "nas" / equipment_id)},
            "completeness_signal": "creation_json",
            **members,
        }

    def save(self, text: str = "", **blocks: Any) -> None:
        self._write(self.path, text or json.dumps({"wizard_config": str(self.wizards), "agent": {}, **blocks}))

    def save_wizards(self) -> None:
        self._write(self.wizards, json.dumps({"equipment": self.entries}))

    def _write(self, path: Path, text: str) -> None:
        self.saves += 1
        path.write_text(text)
        os.utime(path, (1_000_000_000 + self.saves, 1_000_000_000 + self.saves))

    def look(self) -> tuple[str, str] | None:
        """Look as often as it takes until a saved file is judged; return code and sentence of what is to be told."""
        for _ in range(2):
            self.watch.look()
        news = self.watch.news
        return (news.code, news.sentence) if news is not None else None


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


def test_what_was_only_saved_or_says_the_same_in_other_words_is_no_news(config: Config) -> None:
    assert config.look() is None
    config.save(logging={"level": "info"})
    assert config.look() is None
    assert config.watch.changed_at is None


def test_a_change_that_waits_is_told_with_what_it_is_until_it_is_taken_back(config: Config) -> None:
    config.save(agent={"settle_seconds": 5})
    assert config.look() == (
        "config_newer",
        "the config was changed, which waits for `reload`: agent.settle_seconds: 30 -> 5",
    )
    assert config.watch.changed_at is not None
    assert config.watch.changed_at.timestamp() == 1_000_000_000 + config.saves
    config.save()
    assert config.look() is None


def test_a_file_is_read_at_the_second_look_for_at_the_first_it_may_be_half_written(config: Config) -> None:
    config.save("agent: [")
    config.watch.look()
    assert config.watch.news is None
    config.save(logging={"level": "DEBUG"})
    assert config.look() == (
        "config_pending",
        "the config was changed, which is taken in by itself in a quiet moment: logging.level: INFO -> DEBUG",
    )


def test_the_wizards_file_counts_as_well(config: Config) -> None:
    config.entries[0]["label"] = "New"
    config.save_wizards()
    assert config.look() == (
        "config_pending",
        "the config was changed, which is taken in by itself in a quiet moment: SCOPE_01 label: none -> New",
    )


def test_mistakes_are_told_and_are_over_once_they_are_mended_wherever_they_are(config: Config) -> None:
    other = config.home / "other.yaml"
    other.write_text("equipment: [\n")
    config.save(wizard_config=str(other), agent={"setle_seconds": 5})
    told = config.look()
    assert told is not None
    assert told[0] == "config_invalid"
    assert told[1].startswith("the config was saved with mistakes, so the one before it stays: ")
    assert config.watch.due(is_busy=False) is None
    config.save(wizard_config=str(other))
    assert config.look() is not None
    other.write_text(json.dumps({"equipment": config.entries}))
    assert config.look() is None, "a file that nobody had named before"


def test_a_file_that_an_editor_has_away_for_a_moment_is_no_mistake(config: Config) -> None:
    aside = config.path.with_suffix(".bak")
    config.path.rename(aside)
    config.watch.look()
    aside.rename(config.path)
    assert config.look() is None
    config.path.unlink()
    told = config.look()
    assert told is not None
    assert told[0] == "config_invalid"


def test_a_change_that_may_is_taken_in_a_minute_after_the_last_save_and_not_while_work_is_under_way(
    config: Config,
) -> None:
    config.entries.append(config.entry("SCOPE_02"))
    config.save_wizards()
    config.look()
    config.clock.seconds = 59
    assert config.watch.due(is_busy=False) is None
    config.entries[1]["label"] = "Two"
    config.save_wizards()
    config.look()
    config.clock.seconds = 118
    assert config.watch.due(is_busy=False) is None, "the minute began again"
    config.clock.seconds = 120
    assert config.watch.due(is_busy=True) is None
    found = config.watch.due(is_busy=False)
    assert found is not None
    assert [entry.label for entry in found.settings.equipment] == [None, "Two"]
    config.clock.seconds = 59 + 659
    assert config.watch.due(is_busy=True) is None
    config.clock.seconds = 59 + 660
    assert config.watch.due(is_busy=True) is not None, "a PC that never rests"


def test_what_was_saved_since_the_last_look_is_not_taken_in_by_itself(config: Config) -> None:
    config.save(logging={"level": "DEBUG"})
    config.look()
    config.clock.seconds = 100
    config.save(logging={"level": "DEBUG"}, agent={"layout": "flat"})
    assert config.watch.due(is_busy=False) is None


def test_one_change_that_waits_holds_up_all_others(config: Config) -> None:
    config.save(logging={"level": "DEBUG"}, agent={"layout": "flat"})
    told = config.look()
    config.clock.seconds = 10_000
    assert told is not None
    assert told[0] == "config_newer"
    assert config.watch.due(is_busy=False) is None


def test_another_state_folder_needs_a_start_unless_it_was_named_elsewhere(tmp_path: Path) -> None:
    config = Config(tmp_path)
    config.save(agent={"state_dir": str(tmp_path / "elsewhere")})
    told = config.look()
    assert told is not None
    assert told[0] == "config_needs_start"
    fixed = Config(tmp_path, has_fixed_state_dir=True)
    fixed.save(agent={"state_dir": str(tmp_path / "elsewhere")})
    assert fixed.look() is None


def test_where_no_other_agent_can_begin_each_change_needs_a_start(tmp_path: Path) -> None:
    config = Config(tmp_path, can_go_on=False)
    config.save(logging={"level": "DEBUG"})
    told = config.look()
    config.clock.seconds = 10_000
    assert told is not None
    assert told[0] == "config_needs_start"
    assert config.watch.due(is_busy=False) is None


def test_a_config_that_would_put_the_state_folder_among_the_runs_is_a_mistake(config: Config) -> None:
    config.entries.append(config.entry("SCOPE_02", transport={"type": "mounted_path", "path": str(config.home)}))
    config.save_wizards()
    told = config.look()
    assert told is not None
    assert told[0] == "config_invalid"


def test_many_changes_are_told_by_the_first_and_their_number(config: Config) -> None:
    config.entries += [config.entry(f"SCOPE_{number}") for number in range(7)]
    config.save_wizards()
    told = config.look()
    assert told is not None
    assert told[1].endswith("; and 3 more")


def test_without_a_source_nothing_is_ever_found(config: Config, tmp_path: Path) -> None:
    watch = ConfigWatch(load_settings(config.path), None, state_dir=tmp_path, clock=config.clock, steady_s=0, busy_s=0)
    config.save(agent={"layout": "flat"})
    for _ in range(3):
        watch.look()
    assert (watch.news, watch.changed_at, watch.due(is_busy=False)) == (None, None, None)
