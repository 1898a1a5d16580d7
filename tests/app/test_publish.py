"""What a running agent leaves for others: the keys of `live.json` and of the heartbeat are read by people's own programs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.app.pace import PACE
from exlab_watch_agent.config.load import load_settings
from tests.lab.lab import CACHE, Equipment, Lab, run_to_rest, until

GOLDEN = Path(__file__).parent
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
DIGEST = re.compile(r"[0-9a-f]{64}")
JOB = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}")


def read_with_words_for_what_varies(path: Path, lab: Lab) -> Any:
    """Return the file's JSON, keys in their order, with a word for each time, number and path that is another every time."""
    text = path.read_text().replace(str(lab.home), "HOME").replace(json.dumps(__version__), '"VERSION"')
    for pattern, word in ((TIME, "TIME"), (DIGEST, "DIGEST"), (JOB, "JOB")):
        text = pattern.sub(word, text)
    document = json.loads(text)
    for lane in document["lanes"].values():
        lane["waiting_reason"] = "SENTENCE" if lane["waiting_reason"] else ""
    for orphan in document.get("orphans", ()):
        orphan["rule_detail"] = "SENTENCE"
    if "path_problems" in document:
        document["path_problems"] = dict.fromkeys(document["path_problems"], "SENTENCE")
    if document.get("refusals"):
        document["refusals"] = {"JOB": "REFUSAL"}
    if document.get("first_seen"):
        document["first_seen"] = {"PROBLEM": "TIME"}
    if "verdict" in document:
        document["verdict"] = "SENTENCE"
    for key in ("pid", "host", "state_folder", "machine"):
        if key in document:
            document[key] = key.upper()
    if oldest := document.get("oldest_unsynced"):
        oldest["run_path"] = "RUN"  # whichever was noticed first
    if "audit" in document:
        document["audit"]["seq"] = document["audit_seq"] = "SEQ"
    return document


def assert_golden(document: Any, name: str) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    golden = GOLDEN / name
    assert text == golden.read_text(encoding="utf-8")


def test_the_live_view_and_the_heartbeat_have_the_keys_that_they_always_had(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"))
    lab.new_run(files={"image.tif": b"x", "scan_<id>.dat": b""})
    lab.new_run(equipment="SCOPE_02")
    unusable = lab.new_run()
    (unusable / CACHE / "creation.json").write_text('{"schema_version": "3.0"}')
    unusable.with_name("Run_2026-12-12T00-00").mkdir()
    (lab.nas / "SCOPE_02").rename(lab.home / "elsewhere")
    run_to_rest(lab)
    live = read_with_words_for_what_varies(lab.state / "live.json", lab)
    assert_golden(live, "live.golden.json")
    assert_golden(read_with_words_for_what_varies(lab.state / "heartbeat.json", lab), "heartbeat.golden.json")


def test_a_watching_agent_says_of_each_root_how_it_is_watched(tmp_path: Path) -> None:
    lab = Lab(tmp_path, observer="polling")
    with lab.running():
        until(lambda: (lab.live().get("observer") or {}).get("roots"), "the observer is told")
        observer = lab.live()["observer"]
    assert list(observer) == ["kind", "degraded", "restarts", "watches_allowed", "roots"]
    (health,) = observer["roots"].values()
    assert list(health) == ["kind", "degraded", "reason", "command", "watches", "missing", "let_go", "canary"]


def test_the_log_says_now_and_then_how_far_a_long_push_is(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8))  # one MiB a second
    run = lab.new_run(files={"a.bin": b"x" * 3_000_000})
    pace = replace(PACE, progress_log_every_s=0.5)
    agent = Agent(load_settings(lab.config), scope=Scope(is_watching=False), pace=pace)
    agent.open()
    try:
        agent.run(until_rest=True)
    finally:
        agent.close()
    lab.assert_whole(run)
    said = re.findall(rf"Z \[INFO \] \S+: SCOPE_01 {run.name}: (push: .+)", lab.log())
    assert 1 <= len(said) <= 7
    assert all(re.fullmatch(r"push: .+ of 2.9 MiB \(\d+ %\).*, limit 1.0 MiB/s", line) for line in said)
