"""No room: on the disk of the state folder the agent waits and harms nothing; on the instrument's, the run waits.

Real small disks (tmpfs), the real agent process, real kill -9, and errors of the disk put in by strace. Mounting needs
root, or sudo without a password; without either these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import AgentProcess, Equipment, Lab, until

TO_THE_END = ["acquiring", "queued", "running", "prechecking", "awaiting_verify", "sealing", "verified"]
NOT_STARTED = (None, "acquiring", "queued")
SMALL = 1 << 20
GOES_ON_S = 90.0
"""The agent tries again after at most 30 s; the rest is for a busy machine."""

MakeDisk = Callable[[Path, int], "Disk"]


def as_root(*words: str) -> None:
    before = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*before, *words], check=True, capture_output=True)


class Disk:
    """A small disk that can be filled to its last byte."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={size_bytes},mode=700,uid={os.geteuid()},gid={os.getegid()}"
        as_root("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
        self._ballast = folder / "ballast"

    def fill(self, *, free_bytes: int = 0) -> None:
        """Leave so much room, or none."""
        with self._ballast.open("ab", buffering=0) as ballast, suppress(OSError):
            while (room := shutil.disk_usage(self.folder).free - free_bytes) > 0:
                ballast.write(bytes(min(room, 1 << 16)))

    def make_room(self) -> None:
        self._ballast.unlink()

    def unmount(self) -> None:
        as_root("umount", "--lazy", str(self.folder))


@pytest.fixture
def make_disk() -> Iterator[MakeDisk]:
    disks: list[Disk] = []

    def make(folder: Path, size_bytes: int) -> Disk:
        try:
            disks.append(Disk(folder, size_bytes))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small disk cannot be mounted here: {error}")
        return disks[-1]

    yield make
    for disk in disks:
        disk.unmount()


def paused(lab: Lab) -> str | None:
    found: str | None = lab.cli("status", "--json").json["agent"]["paused"]
    return found


def until_paused(lab: Lab) -> list[Path]:
    """Bring runs until the agent waits for room: the last page of the trail's file takes some lines more."""
    runs: list[Path] = []

    def is_paused() -> bool:
        if len(runs) < 12:
            runs.append(lab.new_run())
        return paused(lab) is not None

    until(is_paused, "the agent waits for room", wait_s=60)
    return runs


def assert_nothing_was_started_that_is_not_durable(lab: Lab, runs: list[Path]) -> None:
    for run in runs:
        if lab.record(run)["state"] in NOT_STARTED:
            assert not lab.copy_of(run).exists(), lab.record(run)


def assert_all_went_to_the_end_once(lab: Lab, runs: list[Path]) -> None:
    for run in runs:
        lab.until_state(run, "verified", wait_s=GOES_ON_S)
        lab.assert_whole(run)
        assert lab.states(run) == TO_THE_END
        assert len({fact["record"]["job_id"] for fact in lab.facts(run)}) == 1
    lab.assert_chain_holds()
    assert lab.debris() == []


def problems(lab: Lab) -> dict[str, Any]:
    return {problem["code"]: problem for problem in lab.cli("problems", "--json").problems}


# --- the disk of the state folder ------------------------------------------------------------------------------------


def test_on_a_full_disk_the_agent_waits_says_so_harms_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, make_disk: MakeDisk
) -> None:
    lab = Lab(tmp_path, is_bound=False, is_quick=True)
    disk = make_disk(lab.state, SMALL)
    lab.bind()
    first = lab.new_run()
    with lab.running() as agent:
        lab.until_state(first, "verified")
        disk.fill()
        runs = until_paused(lab)

        # Until the agent itself has said so, status goes by the disk.
        said = until(
            lambda: (text := lab.cli("status")) and "the agent is paused since" in text.out and text, "the pause"
        )
        assert "make room" in said.out
        problem = problems(lab)["state_folder_full"]
        assert problem["tier"] == "needs_you"
        assert str(lab.state) in problem["sentence"]
        assert lab.cli("problems").code == 3
        heartbeat = lab.nas / "SCOPE_01" / ".exlab-watch-agent" / f"{os.uname().nodename}.json"
        until(lambda: "room" in (json.loads(heartbeat.read_text())["paused"] or ""), "the NAS shows it, too")
        # A command is refused or left, in one sentence, and the files of the state folder are as they were.
        command = lab.cli("verify", first.name)
        assert "Traceback" not in command.err
        assert "paused" in command.out + command.err or "No space left" in command.err
        assert_nothing_was_started_that_is_not_durable(lab, runs)
        assert agent.said().count("paused since") == 1

        disk.make_room()
        assert_all_went_to_the_end_once(lab, runs)
        until(lambda: paused(lab) is None, "it says that it goes on")
        assert agent.said().count("There is room again") >= 1
        until(lambda: lab.cli("problems").code == 0, "nothing needs a person any more")
    assert not [path for path in lab.state.rglob("*.tmp") if path.parent.name != "inbox"]


def test_killed_while_it_waits_for_room_it_takes_all_up_again_even_while_there_is_still_none(
    tmp_path: Path, make_disk: MakeDisk
) -> None:
    lab = Lab(tmp_path, is_bound=False, is_quick=True)
    disk = make_disk(lab.state, SMALL)
    lab.bind()
    first = lab.new_run()
    with AgentProcess(lab) as agent:
        lab.until_state(first, "verified")
        disk.fill()
        runs = until_paused(lab)
        agent.kill()
    assert paused(lab) is None  # what a dead agent said of itself counts no more
    assert_nothing_was_started_that_is_not_durable(lab, runs)
    lab.assert_chain_holds_but_for_a_torn_end()

    with AgentProcess(lab) as agent:
        until(lambda: paused(lab) is not None, "the next one waits, too", wait_s=60)
        assert agent.process.poll() is None, agent.said()
        assert_nothing_was_started_that_is_not_durable(lab, runs)
        disk.make_room()
        assert_all_went_to_the_end_once(lab, runs)
        assert agent.stop() == 0
        assert "Traceback" not in agent.said()
    lab.assert_log_is_clean()


def test_a_signal_ends_it_while_it_waits_for_room_and_the_next_start_takes_all_up(
    tmp_path: Path, make_disk: MakeDisk
) -> None:
    lab = Lab(tmp_path, is_bound=False, is_quick=True)
    disk = make_disk(lab.state, SMALL)
    lab.bind()
    with AgentProcess(lab) as agent:
        agent.until_up()
        disk.fill()
        runs = until_paused(lab)
        assert agent.stop(signal.SIGTERM) == 0, agent.said()  # within ten seconds
        assert "Traceback" not in agent.said()
    # A command that is to end rather says that there is no room than wait for it.
    once = lab.cli("run", "--once", "--quiet")
    assert once.code == 1
    assert len(once.err.strip().splitlines()) == 1, once.err
    assert "room" in once.err
    assert_nothing_was_started_that_is_not_durable(lab, runs)
    disk.make_room()
    assert lab.cli("run", "--once", "--quiet").out == f"{len(runs)} verified\n"
    assert_all_went_to_the_end_once(lab, runs)
    lab.assert_log_is_clean()


def test_a_manifest_that_has_no_room_holds_up_the_seal_alone_and_costs_no_second_push(
    tmp_path: Path, make_disk: MakeDisk
) -> None:
    lab = Lab(tmp_path, retry_schedule=["1s", "1s"], is_bound=False, is_quick=True)
    disk = make_disk(lab.state, 2 * SMALL)
    lab.bind()
    with lab.running() as agent:
        lab.until_state(lab.new_run(), "verified")
        disk.fill(free_bytes=SMALL // 4)  # enough for many lines of the trail
        name = "a name that fills the manifest " + "x" * 180
        run = lab.new_run(files={f"{name} {number:04d}": b"%d" % number for number in range(1300)})
        until(lambda: "seal_failed" in problems(lab), "the failing seal is a problem", wait_s=GOES_ON_S)
        assert "make room" in problems(lab)["seal_failed"]["sentence"]
        assert lab.record(run)["state"] == "sealing"
        assert agent.process.poll() is None
        disk.make_room()
        lab.until_state(run, "verified", wait_s=GOES_ON_S)
        lab.assert_whole(run)
        assert lab.states(run).count("running") == 1
        assert list((lab.state / "manifests").glob("*.tmp")) == []


# --- the instrument's disk -------------------------------------------------------------------------------------------


def test_without_room_beside_the_data_the_run_says_so_and_is_sealed_once_there_is_some(
    tmp_path: Path, make_disk: MakeDisk
) -> None:
    lab = Lab(tmp_path, Equipment("SCOPE_01"), Equipment("SCOPE_02"), retry_schedule=["1s", "1s"], is_quick=True)
    disk = make_disk(lab.local / "SCOPE_01", 4 * SMALL)
    with lab.running():
        run = lab.new_run(equipment="SCOPE_01", files={"a.tif": os.urandom(SMALL)})
        disk.fill()
        other = lab.new_run(equipment="SCOPE_02")
        lab.until_state(other, "verified")
        until(lambda: "seal_failed" in problems(lab), "it is a problem", wait_s=GOES_ON_S)
        assert lab.cli("problems").code == 3
        assert lab.record(run)["state"] == "sealing"
        disk.make_room()
        lab.until_state(run, "verified", wait_s=GOES_ON_S)
        lab.assert_whole(run)
        until(lambda: lab.cli("problems").code == 0, "nothing needs a person any more")


# --- a disk that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 4])
def test_a_failed_fsync_of_the_trail_ends_the_agent_with_one_sentence_and_the_next_start_is_fine(
    tmp_path: Path, number: int
) -> None:
    lab = Lab(tmp_path)
    assert lab.cli("run", "--once", "--quiet").code == 0  # so that the trail's name is there for strace
    runs = [lab.new_run(), lab.new_run()]
    inject = ["-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={number}"]
    strace = ["strace", "-f", "-qq", "-o", str(lab.home / "strace.out"), "-P", str(lab.state / "audit.jsonl"), *inject]
    with subprocess.Popen(
        [*strace, sys.executable, *lab.argv("run", "--quiet")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the agent, too, which outlives its tracer
    assert "INJECTED" in (lab.home / "strace.out").read_text()
    assert process.returncode == 1
    assert len(said.strip().splitlines()) == 1, said
    assert str(lab.state) in said
    assert_nothing_was_started_that_is_not_durable(lab, runs)
    assert lab.cli("run", "--once", "--quiet").out == "2 verified\n"
    assert_all_went_to_the_end_once(lab, runs)
