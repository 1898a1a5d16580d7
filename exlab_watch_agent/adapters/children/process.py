"""Runs the programs that transports use: without a shell, in a built environment, and never longer than the agent lives.

Decided here: how a program is started, fed, listened to and ended, and what becomes of children whose agent was killed
(warden.py). Not here: how it is found and what its environment holds (environment.py), which program and arguments, and what
its exit code means.

A child and all that it starts form a process group of their own (Windows: a job). It ends
- when it is done; what it left running in its group is ended with it;
- when the work is cancelled, or moved nothing for `stall_s`: asked to terminate, then killed;
- when the agent dies, by the warden that each `Children` starts with its first child (Windows: by the job);
- at the latest when the next agent of the same state folder starts (`end_leftovers`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from exlab_watch_agent.adapters.children import warden
from exlab_watch_agent.adapters.children.environment import built_environment
from exlab_watch_agent.adapters.children.tail import READ_BYTES, Tail
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import CancelledError, FailureKind, StateFolderError, TransportError
from exlab_watch_agent.ports import Clock, Control

if sys.platform == "win32":
    from exlab_watch_agent.adapters.children.windows_job import Job

OUTPUT_BYTES_MAX = 256 * 1024 * 1024
STALL_S = 300.0
_LOOK_EVERY_S = 0.1
_TERM_WAIT_S = 3.0
_KILL_WAIT_S = 5.0
_PIPES_WAIT_S = 5.0
_FREE = Control()


class StallWatch:
    """Notices that something which should move does not. One instance a piece of work, asked by one thread."""

    def __init__(self, stall_s: float, what: str, clock: Clock | None = None) -> None:
        self._monotonic_s = (clock or SystemClock()).monotonic_s
        self._stall_s = stall_s
        self._what = what
        self._seen: object = None
        self._since_s = self._monotonic_s()

    def saw(self, value: object) -> None:
        """Note how far the work is. Raises: TransportError with `network` once that was the same for `stall_s`."""
        if value != self._seen:
            self._seen, self._since_s = value, self._monotonic_s()
        elif self._monotonic_s() - self._since_s > self._stall_s:
            text = f"{self._what} moved no byte for {self._stall_s:.0f} seconds and was ended."
            raise TransportError(FailureKind.NETWORK, text)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: `returncode` as subprocess counts it (negative: by that signal), `tail` its last words."""

    returncode: int
    stdout: bytes
    tail: str


class Child:
    """One running program. Made by `Children`; `end` may be called from any thread, and more than once."""

    def __init__(self, process: subprocess.Popen[bytes], forget: Callable[[], None], job: Any, clock: Clock) -> None:
        self._monotonic_s = clock.monotonic_s
        self._process = process
        self._forget = forget
        self._job = job
        self._ending = threading.Lock()
        self._tail = Tail()
        self._threads: list[threading.Thread] = []
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """What it ended with, None while it runs."""
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        return self.returncode is None

    def tail(self) -> str:
        return self._tail.text()

    def listen(
        self,
        on_output: Callable[[bytes], None],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        on_error: Callable[[BaseException], None] = lambda _: None,
    ) -> threading.Event:
        """Feed and drain it, each pipe by a thread of its own; return what is set once it said all it had to say.

        `on_error` gets what `on_output` or the stdin's iterator raised; the caller then ends the child, whose stdin
        stays open until that happened, so that it cannot take a part for the whole.
        """
        has_said_all = threading.Event()
        open_pipes = [self._process.stdout, self._process.stderr]

        def drain(pipe: IO[bytes], take: Callable[[bytes], None]) -> None:
            try:
                while data := os.read(pipe.fileno(), READ_BYTES):
                    take(data)
            except BaseException as error:  # noqa: BLE001  (the caller raises it)
                on_error(error)
            open_pipes.remove(pipe)
            if not open_pipes:
                has_said_all.set()

        def feed(pipe: IO[bytes]) -> None:
            try:
                for piece in (stdin,) if isinstance(stdin, bytes) else stdin:
                    pipe.write(piece)
                    pipe.flush()  # a piece may be a question whose answer is waited for
                pipe.close()
            except BrokenPipeError:
                pass  # it ended before it had read all, and says why by its exit code
            except BaseException as error:  # noqa: BLE001  (the caller raises it)
                on_error(error)

        assert self._process.stdout is not None, "started with pipes"
        assert self._process.stderr is not None, "started with pipes"
        self._begin(drain, self._process.stdout, on_output)
        self._begin(drain, self._process.stderr, self._tail.add)
        if self._process.stdin is not None:
            self._begin(feed, self._process.stdin)
        return has_said_all

    def has_ended_within(self, wait_s: float) -> bool:
        """Return whether it has ended, at the latest that much later."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        return not self.is_running

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name=f"child-{self.pid}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def end(self) -> int:
        """End it and its group: asked first, then killed; return how it ended. Nothing of it runs or is noted afterwards.

        Raises: TransportError when it hangs in the kernel and cannot be ended.
        """
        with self._ending:
            for signal_number, wait_s in ((signal.SIGTERM, _TERM_WAIT_S), (_KILL, _KILL_WAIT_S)):
                if self.is_running:
                    self._signal(signal_number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(wait_s)
            if self.is_running:
                raise TransportError(
                    FailureKind.UNKNOWN, f"The process {self.pid} cannot be ended: it hangs in the system."
                )
            self._signal(_KILL)  # what it left in its group
            deadline_s = self._monotonic_s() + _PIPES_WAIT_S
            for thread in self._threads:
                thread.join(max(0.0, deadline_s - self._monotonic_s()))
            if not any(thread.is_alive() for thread in self._threads):
                for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                    if pipe is not None:
                        with contextlib.suppress(OSError):
                            pipe.close()
            self._forget()
            return self._process.returncode

    def _signal(self, signal_number: int) -> None:
        if sys.platform == "win32":
            self._job.terminate()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal_number)


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Children:
    """The child processes of one agent. All methods may be called from any thread.

    `folder`: `<state_dir>/children`, where their notes are kept (one folder below it for each agent); None for a command
    without a state folder, whose notes are in a temporary folder and serve its own warden only.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        clock: Clock | None = None,
        patience: warden.Patience = warden.PATIENCE,
    ) -> None:
        self._folder = folder
        self._clock = clock or SystemClock()
        self._patience = patience
        self._lock = threading.Lock()
        self._notes: Path | None = None
        self._warden: subprocess.Popen[bytes] | None = None
        self._running: dict[str, Child] = {}

    def end_leftovers(self) -> None:
        """End what agents of this state folder that are gone have left running. For who holds the state folder's lock.

        Raises: StateFolderError when something cannot be ended: nothing may be written to where it still writes.
        """
        if self._folder is None or not self._folder.is_dir():
            return
        staying = []
        for notes in self._folder.iterdir():
            if notes == self._notes or not notes.is_dir():
                continue
            found = warden.end_noted(notes, self._patience)
            staying += found
            if not found:
                warden.remove(notes)
        if staying:
            text = f"A child process of an earlier agent still runs and cannot be ended: {staying[0]}. End it, then start again."
            raise StateFolderError(text)

    def start(
        self,
        command: Sequence[str],
        *,
        purpose: str,
        environment: Mapping[str, str] | None = None,
        has_stdin: bool = False,
    ) -> Child:
        """Start a program whose absolute path is `command[0]`; the caller listens to it and ends it.

        It is noted before it starts. What must not happen unnoted (writing to a destination) a program should do only
        once it was told what, by stdin or a request. Raises: TransportError with `binary_missing`.
        """
        if not os.path.isabs(command[0]):
            raise ValueError("programs are called by their absolute path")
        token = secrets.token_hex(16)
        with self._lock:
            note = self._note_folder() / f"{token}{warden.NOTE_SUFFIX}"
            _write_note(note, {"token": token, "purpose": purpose, "pid": None, "started": None})
            try:
                process, job = _spawn(
                    command, built_environment({**(environment or {}), warden.TOKEN_VARIABLE: token}), has_stdin
                )
            except OSError as error:
                note.unlink()
                text = f"The program {command[0]} cannot be started: {reason_with_name(error)}."
                raise TransportError(FailureKind.BINARY_MISSING, text) from error
            if os.name != "nt":  # there the job ends it
                started = warden.started_at(process.pid)
                _write_note(note, {"token": token, "purpose": purpose, "pid": process.pid, "started": started})

            def forget() -> None:
                with self._lock:
                    self._running.pop(token, None)
                note.unlink(missing_ok=True)

            child = self._running[token] = Child(process, forget, job, self._clock)
        return child

    def run(
        self,
        command: Sequence[str],
        *,
        purpose: str,
        stdin: bytes | Iterable[bytes] = b"",
        on_output: Callable[[bytes], None] | None = None,
        progress: Callable[[], object] | None = None,
        control: Control = _FREE,
        stall_s: float = STALL_S,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a program to its end and return how it ended; an exit code other than 0 is the caller's to judge.

        `on_output` takes stdout piece by piece on another thread (then `Ended.stdout` is empty); what it raises ends the
        program and is raised here. `progress` is asked a few times a second how far the work is, as any value; one that
        stays the same for `stall_s` is a stall. Without it, output counts as moving.
        Raises: CancelledError; TransportError with `network` after a stall, with `binary_missing`.
        """
        watch = StallWatch(stall_s, purpose, self._clock)
        kept: list[bytes] = []
        errors: list[BaseException] = []
        said_bytes = 0

        def take(data: bytes) -> None:
            nonlocal said_bytes
            said_bytes += len(data)
            if on_output is not None:
                on_output(data)
                return
            if said_bytes > OUTPUT_BYTES_MAX:
                raise TransportError(FailureKind.UNKNOWN, f"{purpose}: the program said more than can be kept.")
            kept.append(data)

        child = self.start(command, purpose=purpose, environment=environment, has_stdin=stdin != b"")
        try:
            has_said_all = child.listen(take, stdin=stdin, on_error=errors.append)
            # What closed its output ends now or goes on in silence; what has ended may have left its output to others.
            while not (has_said_all.wait(_LOOK_EVERY_S) and child.has_ended_within(_LOOK_EVERY_S)) and child.is_running:
                if errors:
                    break
                if control.is_cancelled():
                    raise CancelledError("stopped as asked")
                watch.saw(progress() if progress is not None else said_bytes)
        except TransportError as error:
            child.end()
            raise TransportError(error.kind, str(error), detail=child.tail()) from None
        finally:
            returncode = child.end()
        if errors:
            raise errors[0]
        return Ended(returncode, b"".join(kept), child.tail())

    def close(self) -> None:
        """End all children and the warden. May be called twice; a later `start` begins again."""
        for child in list(self._running.values()):
            child.end()
        with self._lock:
            if self._warden is not None:
                assert self._warden.stdin is not None, "started with a pipe"
                self._warden.stdin.close()
                self._warden.wait()  # no more notes are made, so it has nothing to wait for
                self._warden = None
            if self._notes is not None:
                warden.remove(self._notes)  # where there is no warden, or it was killed
                self._notes = None

    def private_folder(self) -> Path:
        """Return a folder that only our user may enter, for what a child must find; all in it goes with the agent."""
        with self._lock:
            return self._note_folder()

    def _note_folder(self) -> Path:
        """Return this agent's own folder of notes, made with its warden at the first call."""
        if self._notes is None:
            if self._folder is None:
                self._notes = Path(tempfile.mkdtemp(prefix="exlab-watch-agent-"))
            else:
                self._notes = self._folder / secrets.token_hex(8)
                self._notes.mkdir(mode=0o700, parents=True)
        if os.name != "nt" and (self._warden is None or self._warden.poll() is not None):
            self._warden = subprocess.Popen(
                [sys.executable, "-I", "-S", warden.__file__, str(self._notes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=built_environment(),
                start_new_session=True,
            )
        return self._notes


def _spawn(command: Sequence[str], environment: dict[str, str], has_stdin: bool) -> tuple[subprocess.Popen[bytes], Any]:
    stdin = subprocess.PIPE if has_stdin else subprocess.DEVNULL
    if sys.platform == "win32":
        job = Job()
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, creationflags=flags
        )
        job.take(process)
        return process, job
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",  # no folder of the agent's is kept busy, and no relative name means anything
        start_new_session=True,
    )
    return process, None


def _write_note(path: Path, note: Mapping[str, object]) -> None:
    """Write the note, whole or not at all. Not durable: no child outlives the machine."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(note), encoding="utf-8")
    temporary.replace(path)
