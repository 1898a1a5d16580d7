"""One agent an equipment's root: real locks, two holders in one process, a holder that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.adapters.local.lock_holders import lock_holder
from exlab_watch_agent.adapters.local.root_lock import HOLDER_NAME, LOCK_NAME, EquipmentRootLock
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.errors import RootUnavailableError

FIRST = {"pid": 4711, "host": "labpc-04", "state_dir": "/home/lab/state"}
SECOND = {"pid": 4712, "host": "labpc-04", "state_dir": "/home/lab/other"}

HOLD = """\
import sys
from exlab_watch_agent.adapters.local.root_lock import EquipmentRootLock
lock = EquipmentRootLock(sys.argv[1], holder={"pid": 1, "host": "h", "state_dir": "s"})
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "SCOPE_01"
    root.mkdir()
    return root


def lock(root: Path, holder: dict[str, object] = FIRST) -> EquipmentRootLock:
    return EquipmentRootLock(str(root), holder=holder)


def test_a_second_holder_is_told_who_holds_the_root_and_gets_it_when_that_one_lets_go(root: Path) -> None:
    first, second = lock(root), lock(root, SECOND)
    first.take()
    with pytest.raises(RootUnavailableError, match="pid 4711 on labpc-04, state folder /home/lab/state") as refused:
        second.take()
    assert str(root) in str(refused.value)
    assert "stop that one" in str(refused.value)
    with pytest.raises(RootUnavailableError):
        second.take()  # asking does not wear it down
    first.take()  # nor does holding it once more
    first.release()
    second.take()
    with pytest.raises(RootUnavailableError, match="pid 4712"):
        first.take()
    second.release()
    second.release()
    first.take()
    first.release()


def test_equipment_folders_under_one_root_are_held_one_by_one(tmp_path: Path) -> None:
    locks = [lock(tmp_path / name) for name in ("SCOPE_01", "SCOPE_02")]
    for name, one in zip(("SCOPE_01", "SCOPE_02"), locks, strict=True):
        (tmp_path / name).mkdir()
        one.take()
    for one in locks:
        one.release()


def test_a_holder_that_is_killed_lets_the_root_go(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        second = lock(root, SECOND)
        with pytest.raises(RootUnavailableError, match="pid 1 on h"):
            second.take()
        process.kill()
        process.wait()
    second.take()
    assert json.loads((root / CACHE_FOLDER / HOLDER_NAME).read_text()) == SECOND
    second.release()


def test_whoever_holds_the_lock_is_named_by_what_the_system_says_and_not_only_by_what_an_agent_wrote(
    root: Path,
) -> None:
    first = lock(root)  # says that it is pid 1, and ends
    first.take()
    first.release()
    with FileLock(root / CACHE_FOLDER / LOCK_NAME):
        if not lock_holder(Folder(str(root / CACHE_FOLDER)), LOCK_NAME):
            pytest.skip("this system does not tell who holds a lock")
        with pytest.raises(RootUnavailableError) as caught:
            lock(root, SECOND).take()
    assert f"its lock {root / CACHE_FOLDER / LOCK_NAME} is held by pid {os.getpid()} (" in str(caught.value)
    assert "end that program" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_the_lock_is_for_the_agent_s_account_alone(root: Path) -> None:
    (root / CACHE_FOLDER).mkdir()
    (root / CACHE_FOLDER / LOCK_NAME).touch(0o666)  # by an earlier version
    first = lock(root)
    first.take()
    assert (root / CACHE_FOLDER / LOCK_NAME).stat().st_mode & 0o777 == 0o600
    first.release()


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="needs a second account")
def test_a_lock_of_another_account_is_said_with_that_account() -> None:
    with tempfile.TemporaryDirectory() as place:  # below folders that the second account may walk through
        root = Path(place, "SCOPE_01")
        root.mkdir()
        first = lock(root)
        first.take()
        first.release()
        for path in (Path(place), root, root / CACHE_FOLDER):
            path.chmod(0o777)
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.setuid(65534)
                lock(root, SECOND).take()
            except BaseException as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as said:
            text = said.read()
    assert "belongs to account root" in text
    assert "remove that file" in text


def test_a_lock_that_was_removed_or_whose_root_was_replaced_is_not_taken_for_held(root: Path) -> None:
    first, second = lock(root), lock(root, SECOND)
    first.take()
    root.rename(root.with_name("another disk"))
    root.mkdir()
    second.take()  # the folder that is there now is nobody's
    with pytest.raises(RootUnavailableError, match="pid 4712"):
        first.take()
    second.release()
    first.take()
    (root / CACHE_FOLDER / LOCK_NAME).unlink()
    second.take()
    with pytest.raises(RootUnavailableError, match="pid 4712"):
        first.take()
    second.release()


def test_a_root_that_is_not_there_or_a_link_is_never_made(root: Path) -> None:
    root.rmdir()
    with pytest.raises(RootUnavailableError, match="is not there: mount it"):
        lock(root).take()
    assert not root.exists()
    (root.parent / "elsewhere").mkdir()
    root.symlink_to(root.parent / "elsewhere")
    with pytest.raises(RootUnavailableError, match="is a link"):
        lock(root).take()
    assert list((root.parent / "elsewhere").iterdir()) == []


def test_a_cache_folder_that_is_a_link_or_a_file_is_not_written_through(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    (root / CACHE_FOLDER).symlink_to(root.parent / "elsewhere")
    with pytest.raises(RootUnavailableError, match="is a link"):
        lock(root).take()
    assert list((root.parent / "elsewhere").iterdir()) == []
    (root / CACHE_FOLDER).unlink()
    (root / CACHE_FOLDER).write_text("")
    with pytest.raises(RootUnavailableError, match="cannot be written"):
        lock(root).take()


def test_a_holder_that_cannot_say_who_it_is_does_not_hold(root: Path) -> None:
    (root / CACHE_FOLDER / HOLDER_NAME).mkdir(parents=True)
    first, second = lock(root), lock(root, SECOND)
    with pytest.raises(RootUnavailableError, match="give the agent's account the right to write there, or make room"):
        first.take()
    (root / CACHE_FOLDER / HOLDER_NAME).rmdir()
    second.take()  # the first one has let go
    second.release()


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff", b"x" * 10_000])
def test_a_holder_that_says_nothing_or_nonsense_is_still_one(root: Path, said: bytes) -> None:
    first = lock(root)
    first.take()
    (root / CACHE_FOLDER / HOLDER_NAME).write_bytes(said)
    with pytest.raises(RootUnavailableError, match="it has not said who it is"):
        lock(root, SECOND).take()
    first.release()


def test_what_a_killed_holder_left_half_written_is_removed(root: Path) -> None:
    left = root / CACHE_FOLDER / f".{HOLDER_NAME}.0123456789abcdef.tmp"
    left.parent.mkdir()
    left.write_text("{")
    first = lock(root)
    first.take()
    assert not left.exists()
    first.release()
