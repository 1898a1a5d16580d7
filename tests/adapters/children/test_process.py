"""Child processes: real programs, real signals, real kill -9 of the process that started them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.children import warden
from exlab_watch_agent.adapters.children.environment import built_environment, find_program
from exlab_watch_agent.adapters.children.process import Children, StallWatch
from exlab_watch_agent.adapters.children.tail import Tail, redacted
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.errors import CancelledError, FailureKind, SourceChangedError, StateFolderError, TransportError
from exlab_watch_agent.ports import Control

SH = "/bin/sh"
PURPOSE = "the test's child"


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "children")
    yield children
    children.close()


def is_alive(pid: int) -> bool:
    return warden.started_at(pid) is not None


def wait_for(is_so: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def pids_in(path: Path, count: int) -> list[int]:
    """Wait until the file holds that many process ids, one a line."""
    wait_for(lambda: path.exists() and len(path.read_text().split()) >= count and path.read_text().endswith("\n"))
    return [int(word) for word in path.read_text().split()]


# --- what a child gets and gives ---------------------------------------------------------------------------------------


def test_output_exit_code_and_last_words_come_back(children: Children) -> None:
    ended = children.run([SH, "-c", "cat; echo oh >&2; echo no >&2; exit 7"], purpose=PURPOSE, stdin=b"in\0put")
    assert (ended.returncode, ended.stdout, ended.tail) == (7, b"in\0put", "oh\nno")


def test_without_stdin_a_child_reads_nothing(children: Children) -> None:
    assert children.run([SH, "-c", "cat"], purpose=PURPOSE).stdout == b""


def test_more_than_any_pipe_holds_passes_both_ways_at_once(children: Children) -> None:
    pieces = [os.urandom(1_000_000) for _ in range(8)]
    taken: list[bytes] = []
    ended = children.run([shutil.which("cat") or "", "-"], purpose=PURPOSE, stdin=iter(pieces), on_output=taken.append)
    assert ended.stdout == b""
    assert b"".join(taken) == b"".join(pieces)


def test_a_flood_of_complaints_does_not_block_and_its_end_is_kept(children: Children) -> None:
    script = "import sys\nfor n in range(200_000): print('complaint', n, file=sys.stderr)"
    ended = children.run([sys.executable, "-c", script], purpose=PURPOSE)
    assert ended.returncode == 0
    assert ended.tail.split("\n")[-1] == "complaint 199999"
    assert len(ended.tail) < 1000


def test_a_child_that_does_not_read_its_stdin_ends_by_itself(children: Children) -> None:
    ended = children.run([SH, "-c", "exit 3"], purpose=PURPOSE, stdin=(bytes(1_000_000) for _ in range(50)))
    assert ended.returncode == 3


def test_the_environment_is_built_and_not_inherited(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RCLONE_DRY_RUN", "RSYNC_RSH", "LD_PRELOAD_NOT", "SSH_ASKPASS", "PYTHONPATH", "BASH_ENV"):
        monkeypatch.setenv(name, "surprise")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/surprise")
    said = children.run(["/usr/bin/env"], purpose=PURPOSE, environment={"MINE": "1"}).stdout.decode()
    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names <= {"HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TZ", "MINE", warden.TOKEN_VARIABLE}
    assert "surprise" not in said
    assert built_environment()["LC_ALL"] == "C.UTF-8"


def test_a_program_that_is_not_there_is_named(children: Children) -> None:
    with pytest.raises(TransportError, match="frobnicate") as caught:
        find_program("frobnicate", how_to_get="get it somewhere.")
    assert caught.value.kind is FailureKind.BINARY_MISSING
    with pytest.raises(TransportError) as caught:
        children.run(["/nowhere/frobnicate"], purpose=PURPOSE)
    assert caught.value.kind is FailureKind.BINARY_MISSING
    with pytest.raises(ValueError, match="absolute"):
        children.run(["sh"], purpose=PURPOSE)


def test_a_program_that_anybody_may_change_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransportError, match="any user"):
        find_program("tool", how_to_get="")
    program.chmod(0o755)
    assert find_program("tool", how_to_get="") == str(program)


def test_no_name_becomes_a_word_of_a_shell(children: Children) -> None:
    odd = "$(touch /tmp/x);`id` 'a' \"b\"\n-rf"
    assert children.run(["/bin/echo", "-n", odd], purpose=PURPOSE).stdout.decode() == odd


# --- its end -----------------------------------------------------------------------------------------------------------


def test_cancelling_ends_the_whole_tree(children: Children, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    begun = time.monotonic()
    with pytest.raises(CancelledError):
        children.run(
            [SH, "-c", f"sleep 99 & sleep 98 & echo $$ $! > {pids}; wait"],
            purpose=PURPOSE,
            control=Control(is_cancelled=pids.exists),
        )
    assert time.monotonic() - begun < 60
    assert not any(map(is_alive, pids_in(pids, 2)))


def test_what_will_not_terminate_is_killed(children: Children, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ > {pids}; while :; do sleep 0.1; done"
    with pytest.raises(CancelledError):
        children.run([SH, "-c", script], purpose=PURPOSE, control=Control(is_cancelled=pids.exists))
    assert not is_alive(pids_in(pids, 1)[0])


def test_a_child_that_moves_nothing_is_ended_as_a_network_trouble(children: Children, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TransportError, match="moved no byte") as caught:
        children.run([SH, "-c", f"echo last >&2; echo $$ > {pids}; sleep 99"], purpose=PURPOSE, stall_s=0.5)
    assert (caught.value.kind, caught.value.detail) == (FailureKind.NETWORK, "last")
    assert not is_alive(pids_in(pids, 1)[0])


class SetClock(SystemClock):
    """A clock that stands still until it is set."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


def test_what_moves_now_and_then_is_left_alone_and_what_does_not_for_too_long_is_a_network_trouble() -> None:
    clock = SetClock()
    watch = StallWatch(10, "rclone", clock)
    for moved_bytes in range(1, 6):
        clock.now_s += 60
        watch.saw(moved_bytes)
    clock.now_s += 10
    watch.saw(moved_bytes)
    clock.now_s += 0.1
    with pytest.raises(TransportError, match="rclone moved no byte for 10 seconds") as caught:
        watch.saw(moved_bytes)
    assert caught.value.kind is FailureKind.NETWORK


def test_output_and_progress_count_as_moving(tmp_path: Path) -> None:
    clock = SetClock()
    children = Children(tmp_path / "children", clock=clock)

    def pass_three_seconds(_: bytes = b"") -> None:
        clock.now_s += 3

    def progress() -> float:
        pass_three_seconds()
        return clock.now_s

    try:
        script = "for n in $(seq 10); do sleep 0.02; echo $n; done"  # all of it lasts longer than a stall may
        command = [SH, "-c", script]
        assert children.run(command, purpose=PURPOSE, stall_s=4, on_output=pass_three_seconds).returncode == 0
        command = [SH, "-c", "sleep 0.5"]
        assert children.run(command, purpose=PURPOSE, stall_s=4, progress=progress).returncode == 0
    finally:
        children.close()
    assert clock.now_s > 12


def test_what_a_child_leaves_running_ends_with_it(children: Children, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    children.run([SH, "-c", f"sleep 99 >/dev/null 2>&1 & echo $! > {pids}"], purpose=PURPOSE)
    wait_for(lambda: not is_alive(pids_in(pids, 1)[0]))


def test_what_holds_the_pipes_of_an_ended_child_is_not_waited_for(children: Children, tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = children.run([SH, "-c", "sleep 99 & exit 5"], purpose=PURPOSE)
    assert ended.returncode == 5
    assert time.monotonic() - begun < 60


def test_an_error_of_the_one_who_listens_or_feeds_ends_the_child_and_is_raised(children: Children) -> None:
    def refuse(_: bytes) -> None:
        raise SourceChangedError("listener")

    def feed() -> Iterator[bytes]:
        yield b"a part"
        raise SourceChangedError("feeder")

    with pytest.raises(SourceChangedError, match="listener"):
        children.run([SH, "-c", "echo x; sleep 99"], purpose=PURPOSE, on_output=refuse)
    with pytest.raises(SourceChangedError, match="feeder"):
        children.run([SH, "-c", "cat; echo whole"], purpose=PURPOSE, stdin=feed())


def test_a_feeder_that_fails_never_makes_a_part_look_whole(children: Children, tmp_path: Path) -> None:
    target, pids = tmp_path / "target", tmp_path / "pids"

    def feed() -> Iterator[bytes]:
        yield b"a part"
        pids_in(pids, 1)
        raise SourceChangedError("it grew")

    script = f"echo $$ > {pids}; cat > {target}.part && mv {target}.part {target}"
    with pytest.raises(SourceChangedError):
        children.run([SH, "-c", script], purpose=PURPOSE, stdin=feed())
    wait_for(lambda: not is_alive(pids_in(pids, 1)[0]))
    assert not target.exists()


def test_many_at_once_from_many_threads(children: Children) -> None:
    results: list[bytes] = []

    def work(n: int) -> None:
        results.append(children.run([SH, "-c", "cat"], purpose=PURPOSE, stdin=b"%d" % n).stdout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, results)) == list(range(30))


def test_closing_ends_what_still_runs_and_a_new_start_works(children: Children, tmp_path: Path) -> None:
    child = children.start([SH, "-c", "sleep 99"], purpose=PURPOSE)
    children.close()
    assert not child.is_running
    assert list((tmp_path / "children").iterdir()) == []
    assert children.run([SH, "-c", "echo again"], purpose=PURPOSE).stdout == b"again\n"


# --- an agent that was killed ------------------------------------------------------------------------------------------


def agent(folder: Path, body: str) -> subprocess.Popen[bytes]:
    """Start a process that has `children` in that folder and runs the body."""
    source = "\n".join(
        (
            "import os, signal, sys, threading, time",
            "from pathlib import Path",
            "from exlab_watch_agent.adapters.children import process, warden",
            "from exlab_watch_agent.adapters.children.process import Children",
            f"children = Children(Path({str(folder)!r}))",
            textwrap.dedent(body),
        )
    )
    return subprocess.Popen([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_children_end_when_their_agent_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    killed = agent(
        tmp_path / "children",
        f"""
        # From a thread that has ended: a parent-death signal would have come by now.
        thread = threading.Thread(target=lambda: children.start(
            ["/bin/sh", "-c", "trap '' TERM; sleep 99 & echo $$ $! >> {pids}; while :; do sleep 0.1; done"], purpose="x"))
        thread.start(); thread.join()
        time.sleep(99)
        """,
    )
    try:
        found = pids_in(pids, 2)
        time.sleep(0.3)
        assert all(map(is_alive, found))
    finally:
        killed.kill()
        killed.wait()
    wait_for(lambda: not any(map(is_alive, found)))
    wait_for(lambda: list((tmp_path / "children").iterdir()) == [])


KILL_WARDEN = """
children.run(["/bin/true"], purpose="starts the warden")
children._warden.kill(); children._warden.wait()
children._warden.poll = lambda: None
"""


def test_a_new_agent_ends_what_a_killed_one_and_its_killed_warden_left(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    killed = agent(
        tmp_path / "children",
        KILL_WARDEN
        + f"""
script = "trap '' TERM HUP; setsid sleep 97 & echo $$ $! >> {pids}; while :; do sleep 0.1; done"
children.start(["/bin/sh", "-c", script], purpose="x")
time.sleep(99)
""",
    )
    found = pids_in(pids, 2)
    killed.kill()
    killed.wait()
    time.sleep(0.3)
    assert all(map(is_alive, found)), "with its warden gone they go on"
    children = Children(tmp_path / "children")
    children.end_leftovers()
    assert not any(map(is_alive, found))
    assert list((tmp_path / "children").iterdir()) == []


def test_an_agent_killed_between_start_and_note_leaves_nothing_unfound(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    killed = agent(
        tmp_path / "children",
        KILL_WARDEN
        + f"""
process.warden.started_at = lambda pid: os.kill(os.getpid(), signal.SIGKILL)  # asked right after the start
children.start(["/bin/sh", "-c", "echo $$ >> {pids}; sleep 99"], purpose="x")
""",
    )
    killed.wait()
    found = pids_in(pids, 1)
    notes = [json.loads(path.read_text()) for path in (tmp_path / "children").rglob("*.json")]
    assert [note["pid"] for note in notes] == [None]
    Children(tmp_path / "children").end_leftovers()
    assert not is_alive(found[0])


def test_a_process_that_got_the_id_of_an_ended_child_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["/bin/sleep", "99"])
    try:
        notes = tmp_path / "children" / "0123"
        notes.mkdir(parents=True)
        for n, started in enumerate(("another time", None, "")):
            note = {"token": f"none-{n}", "purpose": "x", "pid": bystander.pid, "started": started}
            (notes / f"{n}.json").write_text(json.dumps(note))
        (notes / "cut.json").write_text('{"token": "')
        Children(tmp_path / "children").end_leftovers()
        assert bystander.poll() is None
        assert not notes.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_an_agent_that_cannot_end_a_leftover_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = subprocess.Popen(["/bin/sleep", "99"])
    try:
        notes = tmp_path / "children" / "0123"
        notes.mkdir(parents=True)
        note = {"token": "t", "purpose": "rclone", "pid": stays.pid, "started": warden.started_at(stays.pid)}
        (notes / "t.json").write_text(json.dumps(note))
        monkeypatch.setattr(warden, "_signal", lambda *_: None)
        patience = warden.Patience(grace_s=0.1, kill_wait_s=0.1)
        with pytest.raises(StateFolderError, match="rclone"):
            Children(tmp_path / "children", patience=patience).end_leftovers()
        assert (notes / "t.json").exists()
    finally:
        stays.kill()
        stays.wait()


def test_leftovers_of_the_running_agent_itself_are_its_own_affair(children: Children) -> None:
    child = children.start([SH, "-c", "sleep 99"], purpose=PURPOSE)
    children.end_leftovers()
    assert child.is_running


# --- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "didn't find backend for :sftp,host=h,pass='CANARY x',user=u:dir",
        ":webdav,url=u,bearer_token=CANARY:x",
        '{"pass": "CANARY \\" CANARY", "n": 1}',
        "https://user:CANARY@host/path",
        "secret_access_key = CANARY",
        "PASSWORD=CANARY",
        "Authorization: CANARY",
    ],
)
def test_secrets_are_struck_out(text: str) -> None:
    assert "CANARY" not in redacted(text)
    tail = Tail()
    tail.add(text.encode() + b"\nmore")
    assert "CANARY" not in tail.text()


def test_other_words_stay(children: Children) -> None:
    plain = "ssh: handshake failed: knownhosts: key is unknown: dir/a b=c.txt (passed 3 of 4)"
    assert redacted(plain) == plain
