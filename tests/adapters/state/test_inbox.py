"""Commands for a running agent, on real folders: obeyed once, and whatever lies in the inbox is harmless."""

from __future__ import annotations

import json
import os
import pwd
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.durable import temporary_name
from exlab_watch_agent.adapters.state import inbox as inbox_module
from exlab_watch_agent.adapters.state.inbox import REQUEST_BYTES_MAX, Inbox, send_request
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.core.operator import Operator

WAIT_S = 10.0


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def inbox(state_dir: Path) -> Inbox:
    inbox = Inbox(state_dir)
    inbox.prepare()
    return inbox


def requests_of(inbox: Inbox) -> list[dict[str, Any]]:
    return [request.members for request in inbox.take()]


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; return its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def serve(inbox: Inbox, count: int) -> list[dict[str, Any]]:
    """Answer `count` requests, as an agent does; return them."""
    served: list[dict[str, Any]] = []
    deadline = time.monotonic() + WAIT_S
    while len(served) < count:
        assert time.monotonic() < deadline, "the requests did not come"
        for request in inbox.take():
            served.append(request.members)
            inbox.reply(request.name, {"ok": True, "message": f"did {request.members['number']}"})
        time.sleep(0.005)
    return served


def test_the_folders_are_private(inbox: Inbox, state_dir: Path) -> None:
    assert inbox.folder == StateLayout(state_dir).inbox
    for name in ("inbox", "replies"):
        assert (state_dir / name).stat().st_mode & 0o777 == 0o700


def test_a_request_of_another_process_is_answered_to_it(inbox: Inbox, state_dir: Path) -> None:
    def ask() -> None:
        answer = send_request(state_dir, {"command": "retry", "number": 7, "run": "Ü\n\udcff"}, wait_s=WAIT_S)
        assert answer == {"ok": True, "message": "did 7"}

    child = in_child(ask)
    assert serve(inbox, 1) == [{"command": "retry", "number": 7, "run": "Ü\n\udcff"}]
    assert os.waitpid(child, 0)[1] == 0
    assert not list(StateLayout(state_dir).inbox.iterdir())
    assert not list(StateLayout(state_dir).replies.iterdir())


def test_many_askers_at_once_each_get_their_own_answer_and_each_request_is_obeyed_once(
    inbox: Inbox, state_dir: Path
) -> None:
    def ask(number: int) -> None:
        answer = send_request(state_dir, {"number": number}, wait_s=WAIT_S)
        assert answer == {"ok": True, "message": f"did {number}"}

    children = [in_child(lambda number=number: ask(number)) for number in range(12)]  # type: ignore[misc]
    served = serve(inbox, 12)
    assert sorted(request["number"] for request in served) == list(range(12))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 12
    assert requests_of(inbox) == []


def test_without_an_answer_in_time_there_is_none_and_the_request_waits(inbox: Inbox, state_dir: Path) -> None:
    assert send_request(state_dir, {"number": 1}, wait_s=0.1) is None
    assert requests_of(inbox) == [{"number": 1}]


def test_a_request_may_come_before_the_agent_ever_ran(state_dir: Path) -> None:
    assert send_request(state_dir, {"number": 1}, wait_s=0) is None
    inbox = Inbox(state_dir)
    inbox.prepare()
    assert requests_of(inbox) == [{"number": 1}]


def test_requests_are_taken_oldest_first_and_only_once(inbox: Inbox, state_dir: Path) -> None:
    for number in range(5):
        send_request(state_dir, {"number": number}, wait_s=0)
    assert [request["number"] for request in requests_of(inbox)] == [0, 1, 2, 3, 4]
    assert requests_of(inbox) == []


def test_a_request_is_gone_durably_before_it_is_obeyed(
    inbox: Inbox, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_request(state_dir, {"number": 1}, wait_s=0)
    steps: list[str] = []
    real_unlink, real_fsync = os.unlink, os.fsync

    def unlink(path: Any, **options: Any) -> None:
        steps.append("unlink")
        real_unlink(path, **options)

    def fsync(fd: int) -> None:
        steps.append(os.readlink(f"/proc/self/fd/{fd}"))
        real_fsync(fd)

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "fsync", fsync)
    assert requests_of(inbox) == [{"number": 1}]
    assert steps == ["unlink", str(inbox.folder)]


def test_a_request_that_cannot_be_removed_is_not_obeyed(
    inbox: Inbox, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_request(state_dir, {"number": 1}, wait_s=0)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        assert requests_of(inbox) == []
    assert requests_of(inbox) == [{"number": 1}]


ALIEN: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"command": "ret',
    "no object": b"[1, 2]",
    "null": b"null",
    "a number of endless digits": b"9" * 60_000,
    "too large": b'{"a": "' + b"x" * REQUEST_BYTES_MAX + b'"}',
    "deeply nested": b"[" * 60_000,
    "deeply nested objects": b'{"a":' * 10_000,
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "NULs": b"\0" * 500,
}


@pytest.mark.parametrize("data", ALIEN.values(), ids=ALIEN)
def test_what_is_no_request_is_removed_and_the_others_are_obeyed(inbox: Inbox, state_dir: Path, data: bytes) -> None:
    (inbox.folder / "00000000T000000.json").write_bytes(data)
    send_request(state_dir, {"number": 1}, wait_s=0)
    (inbox.folder / "99999999T000000.json").write_bytes(data)
    assert requests_of(inbox) == [{"number": 1}]
    assert os.listdir(inbox.folder) == []


def test_links_special_files_and_folders_are_not_read_and_hold_nothing_up(
    inbox: Inbox, state_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside.json").write_text('{"number": 7}')
    (inbox.folder / "0.json").symlink_to(tmp_path / "outside.json")
    os.mkfifo(inbox.folder / "1.json")
    (inbox.folder / "2.json").mkdir()
    (inbox.folder / "3.json").symlink_to("/nowhere")
    send_request(state_dir, {"number": 1}, wait_s=0)
    assert requests_of(inbox) == [{"number": 1}]
    assert (tmp_path / "outside.json").exists()
    assert os.listdir(inbox.folder) == ["2.json"]
    assert requests_of(inbox) == []


def test_a_request_that_is_being_written_is_not_touched(inbox: Inbox) -> None:
    half = inbox.folder / temporary_name("1.json")
    half.write_bytes(b'{"number"')
    (inbox.folder / "README.txt").write_bytes(b"an operator's")
    assert requests_of(inbox) == []
    assert half.exists()
    assert (inbox.folder / "README.txt").exists()


def test_an_answer_that_cannot_be_left_is_no_error(inbox: Inbox, state_dir: Path) -> None:
    StateLayout(state_dir).replies.rmdir()
    inbox.reply("1.json", {"ok": True})
    assert not StateLayout(state_dir).replies.exists()


def test_answers_appear_whole(inbox: Inbox, state_dir: Path) -> None:
    seen: list[Any] = []
    path = StateLayout(state_dir).replies / "1.json"
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.is_set():
            if path.exists():
                seen.append(json.loads(path.read_bytes()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(50):
        inbox.reply("1.json", {"ok": True, "text": "x" * 50_000, "number": number})
    has_ended.set()
    watcher.join()
    assert all(answer["ok"] for answer in seen)


def test_answers_that_nobody_fetched_are_forgotten_after_a_while(inbox: Inbox, state_dir: Path) -> None:
    replies = StateLayout(state_dir).replies
    for name, age_s in (("old.json", inbox_module.REPLY_KEPT_S + 60), ("new.json", 10)):
        (replies / name).write_text("{}")
        moment = time.time() - age_s
        os.utime(replies / name, (moment, moment))
    (replies / "folder").mkdir()
    os.utime(replies / "folder", (0, 0))
    inbox.prepare()
    assert sorted(os.listdir(replies)) == ["folder", "new.json"]


class JumpingClock(SystemClock):
    """A clock on which time passes only while somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.pauses = 0

    def monotonic_s(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds
        self.pauses += 1


def test_an_answer_is_waited_for_as_long_as_was_said_and_no_longer(state_dir: Path) -> None:
    clock = JumpingClock()
    assert send_request(state_dir, {"command": "retry"}, wait_s=30, clock=clock) is None
    assert 30 <= clock.now_s - 100 < 31
    assert clock.pauses >= 100  # an answer is seen soon after it came


def test_a_request_is_its_file_s_owner_s_whatever_it_says(inbox: Inbox, state_dir: Path) -> None:
    send_request(state_dir, {"number": 1, "operator": "prof.x", "uid": 4711, "login": "prof.x"}, wait_s=0)
    (request,) = inbox.take()
    assert request.owner == Operator(pwd.getpwuid(os.getuid()).pw_name, os.getuid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_request_of_another_account_is_that_account_s_also_one_that_has_no_name(
    inbox: Inbox, state_dir: Path
) -> None:
    send_request(state_dir, {"number": 1}, wait_s=0)
    (path,) = inbox.folder.iterdir()
    os.chown(path, 4711, -1)
    assert [request.owner for request in inbox.take()] == [Operator("4711", 4711)]
