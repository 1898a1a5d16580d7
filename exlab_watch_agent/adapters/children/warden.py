"""Ends the child processes of an agent that is gone. A module, and a program of its own that needs nothing but Python.

Each agent keeps one folder of notes, one note a child: `{"token", "purpose", "pid", "started"}`. The note exists before
the child is started, and its token is in the child's environment. Who reads the notes later can therefore find

- the child, by its process id, if that process also began at the noted time (ids are used again);
- on Linux whatever has the token in its environment: a child whose agent died before it could note the id, and
  processes that the child started and that left its group.

As a program (`python -I -S warden.py FOLDER`) it waits until its standard input ends, which the kernel sees to whatever
way the agent dies, and then ends what the notes still name. The parent-death signal of Linux does not replace this: it
belongs to the thread that started the child, and fires when that thread ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TOKEN_VARIABLE = "EXLAB_WATCH_AGENT_CHILD"  # noqa: S105
NOTE_SUFFIX = ".json"
_LOOK_EVERY_S = 0.02
_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self/environ").exists()  # Linux


class Patience(NamedTuple):
    """How long a process is given after it was asked to end, and after it was killed."""

    grace_s: float = 2.0
    kill_wait_s: float = 5.0


PATIENCE = Patience()


def started_at(pid: int) -> str | None:
    """Return when this process began, in words that no other process of that id has; None when it has ended."""
    if _HAS_PROC:
        try:
            # The name in parentheses may hold anything; after it: state (3), ..., start in ticks since boot (22).
            fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        return None if fields[0] in ("Z", "X") else f"{boot} {fields[19]}"
    asked = subprocess.run(["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, check=False)
    return asked.stdout.decode(errors="replace").strip() or None


def end_noted(folder: Path, patience: Patience = PATIENCE) -> list[str]:
    """End every child that the notes of this folder name, and forget the notes of those that are gone.

    Returns the purposes of children that are still there after a KILL (they hang in the kernel, or are not ours).
    """
    staying = []
    for path in sorted(folder.glob(f"*{NOTE_SUFFIX}")):
        note = _note_at(path)
        if note is not None and not _end(note, patience):
            staying.append(f"{note.get('purpose')} (process {note.get('pid')})")
            continue
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return staying


def remove(folder: Path) -> None:
    """Remove an agent's folder of notes with what its children left there. May be done by several at once."""
    with contextlib.suppress(OSError):
        for left, folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.unlink(os.path.join(left, name))
            for name in folders:
                os.rmdir(os.path.join(left, name))
        os.rmdir(folder)


def _note_at(path: Path) -> dict[str, object] | None:
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):  # cut off by the kill: then the child was not started yet
        return None
    return note if isinstance(note, dict) else None


def _end(note: dict[str, object], patience: Patience) -> bool:
    """Return whether nothing of this child is left, after it was asked and then forced."""
    for signal_number, wait_s in ((signal.SIGTERM, patience.grace_s), (signal.SIGKILL, patience.kill_wait_s)):
        for _ in range(int(wait_s / _LOOK_EVERY_S)):
            alive = list(_alive(note))
            if not alive:
                return True
            for pid in alive:
                _signal(pid, signal_number)
            threading.Event().wait(_LOOK_EVERY_S)  # It has no clock: as a program it needs nothing but Python.
    return not list(_alive(note))


def _alive(note: dict[str, object]) -> Iterator[int]:
    pid = note.get("pid")
    if isinstance(pid, int) and note.get("started") and started_at(pid) == note["started"]:
        yield pid
    if _HAS_PROC:
        mark = f"{TOKEN_VARIABLE}={note.get('token')}".encode()
        for entry in os.listdir(_PROC):
            if entry.isdigit() and int(entry) != pid and _has_in_environment(int(entry), mark):
                yield int(entry)


def _has_in_environment(pid: int, mark: bytes) -> bool:
    try:
        return mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0") and started_at(pid) is not None
    except OSError:  # ended, or another user's
        return False


def _signal(pid: int, signal_number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal_number)
        else:
            os.kill(pid, signal_number)


def main(folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes when the agent has gone, and not before
    while os.read(0, 4096):
        pass
    if not end_noted(Path(folder)):  # else the next agent tries again
        remove(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
