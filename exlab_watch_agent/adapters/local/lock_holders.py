"""Who holds a file's lock, as far as the system tells: process, program and account.

Any account that can read a lock file can hold it, so what a holder wrote about itself says little. Linux only, and only what
/proc shows: a process of another container, or of another machine on a share, is not seen. Source: proc_locks(5).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from exlab_watch_agent.adapters.local.account import account_of
from exlab_watch_agent.adapters.local.handles import Folder
from exlab_watch_agent.core.text import printable

_LOCKS_BYTES_MAX = 1 << 20
_NAME_CHARS_MAX = 40


def lock_holder(folder: Folder, name: str, *, proc: str = "/proc") -> str:
    """Return who holds a lock on the file, as `pid 4711 (python3) of account asmith (uid 1000)`.

    Empty where nobody does, or the system does not tell.
    """
    with suppress(OSError, AttributeError):  # Windows has no such numbers
        status = folder.lstat(name)
        where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open(f"{proc}/locks", encoding="ascii", errors="replace") as file:
            lines = file.read(_LOCKS_BYTES_MAX).splitlines()
        for line in lines:
            # `1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF`; one that waits has `->` as its second word.
            words = line.split()
            if len(words) >= 6 and words[1] != "->" and words[5] == where and words[4].isdecimal() and words[4] != "0":
                return _process_in_words(words[4], proc)
    return ""


def _process_in_words(pid: str, proc: str) -> str:
    words = f"pid {pid}"
    with suppress(OSError):
        program = Path(proc, pid, "comm").read_bytes()[:_NAME_CHARS_MAX].decode("utf-8", "replace").strip()
        words += f" ({printable(program)})" if program else ""
    with suppress(OSError):
        words += f" of account {printable(str(account_of(os.stat(f'{proc}/{pid}').st_uid)))}"
    return words
