"""A shell on the other side that stays open: one script after the other is asked of it, without a process for each here.

Decided here: how a script travels, how its output, exit status and last words come back, and when a shell is given up.
Not here: what is asked (target_folder.py), and how the shell is reached (connection.py).

Scripts are plain POSIX sh (dash, bash, BusyBox). Each runs in a subshell of its own, reads nothing, and is answered by

```
<output> \\n <nonce> <status> \\n <words on stderr> \\n <nonce> \\n
```

with a nonce that nobody could know before: an answer that was cut off is never taken for a short one, and whatever a
login script prints is skipped. An answer that does not come ends the shell, never the lane.
"""

from __future__ import annotations

import os
import queue
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from exlab_watch_agent.adapters.children.process import Child
from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK
from exlab_watch_agent.adapters.transports.rsync.pace import PACE, Pace
from exlab_watch_agent.ports import Clock

_PID = re.compile(rb"\n([0-9]+)\n$")  # before it may be what a login script printed

# Statuses that the functions below give, and that scripts pass on.
ABSENT, NO_ROOT, IN_THE_WAY, FAILED, TAKEN = 3, 4, 5, 6, 7

_PRELUDE = rb"""LC_ALL=C; export LC_ALL; unset CDPATH ENV BASH_ENV
there() {
  for p do
    if [ -h "./$p" ] || [ ! -d "./$p" ]; then return 3; fi
    cd "./$p" || return 6
  done
}
make() {
  for p do
    if [ -h "./$p" ] || { [ -e "./$p" ] && [ ! -d "./$p" ]; }; then printf '%s\n' "in the way: $p" >&2; return 5; fi
    [ -d "./$p" ] || mkdir "./$p" || [ -d "./$p" ] || return 6
    cd "./$p" || return 6
  done
}
regular() { [ ! -h "./$1" ] && [ -f "./$1" ]; }
anything() { [ -e "$1" ] || [ -h "$1" ]; }
"""


class ShellEndedError(Exception):
    """The shell gave no whole answer. `tail`: the last words of the program that led to it."""

    def __init__(self, why: str, tail: str, returncode: int | None) -> None:
        super().__init__(why)
        self.tail = tail
        self.returncode = returncode


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script left: exit status, stdout, stderr without its last line feed."""

    status: int
    output: bytes
    words: str


def quoted(text: str | bytes) -> bytes:
    """Return one word that a POSIX shell reads as exactly these bytes. They must hold no NUL."""
    return b"'" + os.fsencode(text).replace(b"'", b"'\\''") + b"'"


def words(texts: Iterable[str | bytes]) -> bytes:
    return b" ".join(map(quoted, texts))


def printing(data: bytes) -> bytes:
    """Return the command that prints exactly these bytes, by builtins alone."""
    parts = data.split(b"\0")
    return b"; printf '\\000'; ".join(b"printf %s " + quoted(part) for part in parts)


class RemoteShell:
    """One shell behind a child process's pipes. For one thread at a time; after a ShellEndedError only `end` is left."""

    def __init__(self, child: Child, *, pace: Pace = PACE, clock: Clock = SYSTEM_CLOCK) -> None:
        self.pace = pace
        self._clock = clock
        self._child = child
        self._changed = threading.Condition()
        self._received = bytearray()
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._has_ended = child.listen(self._take, stdin=self._pieces())
        self.process_group: int | None = None
        self.is_asking = False

    @property
    def is_alive(self) -> bool:
        return self._child.is_running and not self._has_ended.is_set()

    def greet(self, *, timeout_s: float, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the shell and teach it the functions of this module. Raises: ShellEndedError."""
        self._requests.put(_PRELUDE)
        # sshd gives each session a process group of its own, and the shell leads it.
        answer = self.ask(b"printf '\\n%s\\n' $$", timeout_s=timeout_s, check=check)
        found = _PID.search(answer.output)
        self.process_group = int(found[1]) if found else None

    def ask(
        self,
        script: bytes,
        *,
        timeout_s: float | None = None,
        check: Callable[[], None] = lambda: None,
        sink: Callable[[bytes], None] | None = None,
    ) -> Answer:
        """Run a script and return its answer. `timeout_s`: how long nothing at all may come back; else as the pace says.

        `check` is asked every tenth of a second and may raise. `sink` takes the output piece by piece as it comes; then
        the answer's own is empty. Raises: ShellEndedError; what `check` and `sink` raise. The shell must then be ended.
        """
        timeout_s = self.pace.answer_s if timeout_s is None else timeout_s
        nonce = secrets.token_hex(16).encode()
        self.is_asking = True
        self._requests.put(
            b"r() {\n%b\n}\n{ e=$(r </dev/null 2>&1 >&3 3>&-); s=$?; } 3>&1\n"
            b'printf \'\\n%%s %%s\\n%%s\\n%%s\\n\' %b "$s" "$e" %b\n' % (script, nonce, nonce)
        )
        output, rest = self._until(b"\n" + nonce + b" ", timeout_s, check, sink)
        self._put_back(rest)
        said, rest = self._until(b"\n" + nonce + b"\n", timeout_s, check, None)
        self._put_back(rest)
        self.is_asking = False
        status, _, text = said.partition(b"\n")
        return Answer(int(status), output, text.decode("utf-8", "backslashreplace").strip("\n"))

    def tail(self) -> str:
        """Return the last words of the program that leads to the shell."""
        return self._child.tail()

    def end(self) -> None:
        """Close the shell and end the program that led to it. May be called again."""
        self._requests.put(None)
        self._child.end()

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _pieces(self) -> Iterator[bytes]:
        while (piece := self._requests.get()) is not None:
            yield piece

    def _take(self, data: bytes) -> None:
        with self._changed:
            self._received += data
            self._changed.notify()

    def _put_back(self, data: bytes) -> None:
        with self._changed:
            self._received[:0] = data

    def _until(
        self, mark: bytes, timeout_s: float, check: Callable[[], None], sink: Callable[[bytes], None] | None
    ) -> tuple[bytes, bytes]:
        """Return what comes before the mark, and what came after it."""
        kept = bytearray()
        searched = 0
        while True:
            kept += self._next(timeout_s, check)
            found = kept.find(mark, searched)
            end = found if found >= 0 else max(0, len(kept) - len(mark) + 1)
            if sink is not None and end:
                sink(bytes(kept[:end]))
                del kept[:end]
                found, end = (0 if found >= 0 else -1), 0
            if found >= 0:
                return bytes(kept[:found]), bytes(kept[found + len(mark) :])
            searched = end

    def _next(self, timeout_s: float, check: Callable[[], None]) -> bytes:
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            with self._changed:
                if not self._received:
                    self._changed.wait(self.pace.look_every_s)
                if self._received:
                    data = bytes(self._received)
                    self._received.clear()
                    return data
            check()
            if self._has_ended.is_set() and not self._received:
                self._child.has_ended_within(5.0)
                raise ShellEndedError(
                    "the connection to the shell there was lost", self._child.tail(), self._child.returncode
                )
            if self._clock.monotonic_s() > deadline_s:
                raise ShellEndedError(
                    f"the target gave no answer for {timeout_s:.0f} seconds", self._child.tail(), None
                )
