"""A stop at any moment is harmless: kill -9 in a loop, SIGTERM and Ctrl-C in the middle of a push."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import AgentProcess, Equipment, Lab, hashes, until

SEED = 20260417
LIVES = 4
KILLS = 6
KILL_LINES_MAX = 12
KILL_DELAYS_S = (0.0, 0.1)
GOES_ON_S = 60.0  # on a machine that may be busy
RUN_BYTES = 1_500_000
BIG_BYTES = 40_000_000  # 40 s at one MiB a second: commands that look at it in the middle may take their time
OWN_NAMES = re.compile(r"\.exlab-watch-agent\.json|\.exlab-watch-agent/[^/]+\.json|.*/\.exlab-wizard/[^/]+")


def until_it_holds_the_state_folder(agent: AgentProcess) -> None:
    """Wait until the process is past its start, where it begins to work."""
    said = agent.lab.state / "agent.json"

    def holds() -> bool:
        assert agent.process.poll() is None, agent.said()
        return said.exists() and f'"pid": {agent.pid},' in said.read_text(encoding="utf-8")

    until(holds, "the agent holds the state folder", wait_s=GOES_ON_S)


def until_some_lines_later(agent: AgentProcess, count: int) -> None:
    """Wait until the trail is so many lines longer, or nothing more comes: a moment of the agent's life, however slow it is."""
    lab = agent.lab
    lines = len(lab.trail())

    def is_later() -> bool:
        assert agent.process.poll() is None, agent.said()
        facts = lab.trail()
        latest = {fact["record"]["job_id"]: fact["record"]["state"] for fact in facts if "record" in fact}
        is_all_done = len(latest) == len(list(lab.local.rglob("creation.json"))) and {*latest.values()} == {"verified"}
        return len(facts) >= lines + count or is_all_done

    until(is_later, f"{count} lines more", wait_s=GOES_ON_S)


def gets_a_processor_first(pid: int) -> None:
    """Let the process go before all others where that is allowed: what is timed is the agent, not the machine's load."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            os.sched_setscheduler(int(task), os.SCHED_RR, os.sched_param(1))


ENDS_WITH: dict[int, int] = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""A service is stopped by the one, and a person presses Ctrl-C for the other."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEED, SEED + LIVES))
def test_killed_at_random_moments_it_loses_nothing_and_leaves_no_debris(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02", upload_mbps=80), settle_seconds=0.05)
    runs = []
    for number in range(KILLS):
        if number % 2 == 0:
            files = {f"{part}/data {part}.bin": chance.randbytes(RUN_BYTES // 3) for part in range(3)}
            runs.append(lab.new_run(files=files, equipment=f"SCOPE_0{1 + number // 2 % 2}"))
        agent = AgentProcess(lab)
        try:
            until_it_holds_the_state_folder(agent)
            until_some_lines_later(agent, chance.randrange(KILL_LINES_MAX))
            time.sleep(chance.uniform(*KILL_DELAYS_S))
        finally:
            agent.kill()
        lab.assert_chain_holds_but_for_a_torn_end()
    was_interrupted = {fact["record"]["state"] for fact in lab.trail() if "record" in fact}
    assert {"running", "verified"} <= was_interrupted  # else the kills did not fall where they are to fall

    said = lab.cli("run", "--once", "--quiet")
    assert (said.code, said.out) == (0, f"{len(runs)} verified\n")
    for run in runs:
        lab.assert_whole(run)
        assert len({fact["record"]["job_id"] for fact in lab.facts(run)}) == 1
    assert lab.debris() == []
    wanted = {(lab.copy_of(run) / name).relative_to(lab.nas).as_posix() for run in runs for name in hashes(run)}
    for path in lab.nas.rglob("*"):
        name = path.relative_to(lab.nas).as_posix()
        if path.is_file() and name not in wanted and name.split("/")[1] != ".exlab-superseded":
            assert OWN_NAMES.fullmatch(name.split("/", 1)[1]), name
    lab.assert_chain_holds()
    lab.assert_log_is_clean()
    assert not [path for folder in (lab.local, lab.state) for path in folder.rglob("*.tmp")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_three_seconds_in_the_middle_of_a_limited_push(tmp_path: Path, number: int) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8))
    run = lab.new_run(files={"big.bin": os.urandom(BIG_BYTES)})
    with AgentProcess(lab) as agent:
        agent.until_up()
        shown = until(lambda: bytes_done_in_the_middle(lab), "progress is seen")
        assert 0 < shown["bytes_done"] < shown["bytes_total"] == BIG_BYTES
        assert shown["state"] == "running"
        gets_a_processor_first(agent.pid)
        began = time.monotonic()
        assert agent.stop(number) == ENDS_WITH[number]
        assert time.monotonic() - began < 3
        assert "Traceback" not in agent.said()
        assert ("Stopped; the next agent that runs goes on with " in agent.said()) == (number == signal.SIGINT)
    assert lab.record(run)["state"] == "running"
    assert lab.record(run)["attempts"] == 0
    assert lab.cli("status", "--json").json["agent"]["running"] is False
    lab.settings["equipment"][0]["transport"].pop("bandwidth")
    lab.save_config()
    assert lab.cli("run", "--once").code == 0
    lab.assert_whole(run)
    assert lab.debris() == []
    lab.assert_log_is_clean()


def bytes_done_in_the_middle(lab: Lab) -> dict[str, Any]:
    runs: list[dict[str, Any]] = lab.cli("status", "--json").json["runs"]
    return runs[0] if runs and 0 < runs[0]["bytes_done"] < runs[0]["bytes_total"] else {}


def test_a_push_keeps_to_the_limit_of_its_equipment(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment(upload_mbps=8))  # one MiB a second
    run = lab.new_run(files={"a.bin": os.urandom(1_500_000), "b.bin": os.urandom(1_000_000)})
    assert lab.cli("run", "--once").code == 0
    at = {fact["move"]["dest"]: fact["at"] for fact in lab.facts(run)}
    took_s = (datetime.fromisoformat(at["prechecking"]) - datetime.fromisoformat(at["running"])).total_seconds()
    assert took_s > 1.5, took_s
    lab.assert_whole(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well_at_any_moment_of_its_life(tmp_path: Path, number: int) -> None:
    chance = random.Random(SEED)
    lab = Lab(tmp_path, settle_seconds=0.05)
    for _ in range(4):
        lab.new_run(files={"a.bin": chance.randbytes(500_000)})
        agent = AgentProcess(lab, is_from_nothing=True)
        until_it_holds_the_state_folder(agent)
        time.sleep(chance.uniform(0, 0.3))
        gets_a_processor_first(agent.pid)
        began = time.monotonic()
        assert agent.stop(number) == ENDS_WITH[number], agent.said()
        assert time.monotonic() - began < 3
        assert "Traceback" not in agent.said()
    said = lab.cli("run", "--once", "--quiet")
    assert (said.code, said.out) == (0, "4 verified\n")
    lab.assert_chain_holds()
    lab.assert_log_is_clean()


@pytest.mark.parametrize("library", ["pydantic_core", "blake3", "xxhash"])
def test_ctrl_c_while_it_still_loads_its_modules_ends_it_without_a_word_of_python(tmp_path: Path, library: str) -> None:
    lab = Lab(tmp_path)
    with AgentProcess(lab, is_from_nothing=True) as agent:
        maps = Path(f"/proc/{agent.pid}/maps")
        until(lambda: library in maps.read_text(encoding="utf-8"), "the library is loaded")
        assert agent.stop(signal.SIGINT) in (130, 1, -signal.SIGINT)
        assert "Traceback" not in agent.said()
    assert lab.cli("run", "--once").code == 0


def test_the_agent_works_on_when_nobody_reads_its_words_any_more(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with subprocess.Popen(
        [sys.executable, *lab.argv("run")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        run = lab.new_run()
        try:
            lab.until_state(run, "verified")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_torn_line_at_the_end_of_the_trail_is_cut_off_and_kept_as_evidence(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    lab.cli("run", "--once")
    with (lab.state / "audit.jsonl").open("ab") as trail:
        trail.write(b'{"at": "2026')
    assert lab.cli("status").code == 0
    assert lab.cli("run", "--once").code == 0
    lab.assert_chain_holds()
    assert [path.read_bytes() for path in (lab.state / "evidence").iterdir()] == [b'{"at": "2026']
    assert lab.record(run)["state"] == "verified"


def test_a_trail_that_was_changed_is_said_and_holds_deletion_until_an_operator_accepts_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    lab.cli("run", "--once")
    trail = lab.state / "audit.jsonl"
    lines = trail.read_bytes().splitlines(keepends=True)
    trail.write_bytes(b"".join(lines[:-2] + lines[-1:]))
    for _ in range(2):
        said = lab.cli("problems")
        assert "The audit trail was changed" in " ".join(said.out.split())
        lab.cli("run", "--once")
    assert str(run) in lab.cli("status", "--json").out
    assert lab.cli("resolve", "--accept-trail", "--reason", "restored from a backup").code == 0
    assert "The audit trail was changed" not in " ".join(lab.cli("problems").out.split())
